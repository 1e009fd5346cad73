#include "fabric/wire/wire_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem/mem.h"
#include "salt.pb-c.h"

/* Nested messages of one frame while it is being packed. `failed` is looked at once, at the end. */
struct enc {
	struct mem_arena *arena;
	bool failed;
};

static void *
alloc(struct enc *e, size_t bytes)
{
	void *p = mem_arena_alloc(e->arena, bytes);

	if (p == NULL)
		e->failed = true;
	return p;
}

static void
put_hash(struct enc *e, ProtobufCBinaryData *out, struct hash128 h)
{
	uint8_t *p;

	if ((p = alloc(e, 16)) == NULL)
		return;
	for (int i = 0; i < 8; i++) {
		p[i] = (uint8_t)(h.hi >> (56 - 8 * i));
		p[8 + i] = (uint8_t)(h.lo >> (56 - 8 * i));
	}
	out->data = p;
	out->len = 16;
}

static void
put_id(struct enc *e, ProtobufCBinaryData *out, const struct wire_id *id)
{
	if (id->known)
		put_hash(e, out, id->hash);
}

/* protobuf-c packs what it is given and writes nothing there: the casts drop const only. */
static void
put_bytes(ProtobufCBinaryData *out, const void *bytes, size_t len)
{
	out->data = (uint8_t *)(uintptr_t)bytes;
	out->len = len;
}

static char *
put_text(const char *s)
{
	return (char *)(uintptr_t)s;
}

static Salt__V1__Corpus *
put_corpus(struct enc *e, const struct wire_corpus *c)
{
	Salt__V1__Corpus *m;

	if (!c->present || (m = alloc(e, sizeof(*m))) == NULL)
		return NULL;
	salt__v1__corpus__init(m);
	put_id(e, &m->fingerprint, &c->fingerprint);
	m->context = c->context;
	m->n_windows = c->n_windows;
	put_id(e, &m->tokenizer, &c->tokenizer);
	m->vocab_size = c->vocab_size;
	return m;
}

static Salt__V1__Model *
put_model(struct enc *e, const struct wire_model *s)
{
	Salt__V1__Model *m;

	if ((m = alloc(e, sizeof(*m))) == NULL)
		return NULL;
	salt__v1__model__init(m);
	put_hash(e, &m->fingerprint, s->fingerprint);
	m->compute_class = put_text(s->compute_class);
	m->serves_score = s->serves_score;
	m->serves_label = s->serves_label;
	m->vocab_size = s->vocab_size;
	m->max_context = s->max_context;
	put_id(e, &m->tokenizer, &s->tokenizer);
	return m;
}

static Salt__V1__LabelSet *
put_label_set(struct enc *e, const struct wire_label_set *s)
{
	Salt__V1__LabelSet *m;

	if (!s->present || (m = alloc(e, sizeof(*m))) == NULL)
		return NULL;
	salt__v1__label_set__init(m);
	put_id(e, &m->hash, &s->hash);
	put_id(e, &m->teacher, &s->teacher);
	m->compute_class = put_text(s->compute_class);
	m->kind = (Salt__V1__LabelKind)s->kind;
	m->n = s->n;
	m->tau = s->tau;
	m->seed = s->seed;
	m->version = s->version;
	return m;
}

static Salt__V1__ScoreSet *
put_score_set(struct enc *e, const struct wire_score_set *s)
{
	Salt__V1__ScoreSet *m;

	if (!s->present || (m = alloc(e, sizeof(*m))) == NULL)
		return NULL;
	salt__v1__score_set__init(m);
	put_id(e, &m->hash, &s->hash);
	put_id(e, &m->scorer, &s->scorer);
	m->compute_class = put_text(s->compute_class);
	m->version = s->version;
	return m;
}

static Salt__V1__Plan *
put_plan(struct enc *e, const struct wire_plan *s)
{
	Salt__V1__Plan *m;

	if (!s->present || (m = alloc(e, sizeof(*m))) == NULL)
		return NULL;
	salt__v1__plan__init(m);
	put_id(e, &m->hash, &s->hash);
	m->seed = s->seed;
	m->batch = s->batch;
	m->mode = (Salt__V1__SelectorMode)s->mode;
	m->k = s->k;
	m->window = s->window;
	m->keep = s->keep;
	m->pool = s->pool;
	m->n_rows = s->n_rows;
	m->label_ahead_rows = s->label_ahead_rows;
	return m;
}

static ProtobufCMessage *
put_hello(struct enc *e, const struct wire_hello *s)
{
	Salt__V1__Hello *m;

	if ((m = alloc(e, sizeof(*m))) == NULL)
		return NULL;
	salt__v1__hello__init(m);
	m->protocol_version = s->protocol_version != 0 ? s->protocol_version : WIRE_VERSION;
	m->role = (Salt__V1__Role)s->role;
	put_hash(e, &m->boot_id, s->boot_id);
	m->name = put_text(s->name);
	m->host = put_text(s->host);
	m->pid = s->pid;
	m->max_message = s->max_message;
	m->corpus = put_corpus(e, &s->corpus);
	m->heldout = put_corpus(e, &s->heldout);
	if (s->n_models > 0 && (m->models = alloc(e, s->n_models * sizeof(*m->models))) != NULL)
		for (; m->n_models < s->n_models; m->n_models++)
			m->models[m->n_models] = put_model(e, &s->models[m->n_models]);
	m->plan = put_plan(e, &s->plan);
	m->label_set = put_label_set(e, &s->label_set);
	m->rank = s->rank;
	m->status_endpoint = put_text(s->status_endpoint);
	return &m->base;
}

static ProtobufCMessage *
put_welcome(struct enc *e, const struct wire_welcome *s)
{
	Salt__V1__Welcome *m;

	if ((m = alloc(e, sizeof(*m))) == NULL)
		return NULL;
	salt__v1__welcome__init(m);
	m->protocol_version = s->protocol_version != 0 ? s->protocol_version : WIRE_VERSION;
	put_hash(e, &m->boot_id, s->boot_id);
	m->shard = s->shard;
	m->n_shards = s->n_shards;
	m->max_message = s->max_message;
	m->lease_ms = s->lease_ms;
	m->corpus = put_corpus(e, &s->corpus);
	m->heldout = put_corpus(e, &s->heldout);
	m->label_set = put_label_set(e, &s->label_set);
	m->score_set = put_score_set(e, &s->score_set);
	put_id(e, &m->plan_hash, &s->plan_hash);
	m->heldout_loss_nats = s->heldout_loss_nats;
	m->rows_ready = s->rows_ready;
	m->released = s->released;
	m->unigram.data = (uint8_t *)(uintptr_t)s->unigram.bytes;	/* only read */
	m->unigram.len = s->unigram.len;
	return &m->base;
}

static ProtobufCMessage *
put_refuse(struct enc *e, const struct wire_refuse *s)
{
	Salt__V1__Refuse *m;

	if ((m = alloc(e, sizeof(*m))) == NULL)
		return NULL;
	salt__v1__refuse__init(m);
	m->code = s->code;
	m->field = put_text(s->field);
	m->expected = put_text(s->expected);
	m->found = put_text(s->found);
	m->text = put_text(s->text);
	m->retry_ms = s->retry_ms;
	return &m->base;
}

static ProtobufCMessage *
put_lease(struct enc *e, const struct wire_lease *s)
{
	Salt__V1__Lease *m;

	if ((m = alloc(e, sizeof(*m))) == NULL)
		return NULL;
	salt__v1__lease__init(m);
	m->lease_id = s->lease_id;
	put_hash(e, &m->model, s->model);
	m->want_score = s->want_score;
	m->want_label = s->want_label;
	m->n_seqs = s->n_seqs;
	m->seqs = (uint64_t *)(uintptr_t)s->seqs;
	put_bytes(&m->tokens, s->tokens, s->n_seqs * ((size_t)s->context + 1) * sizeof(int32_t));
	m->context = s->context;
	m->lease_ms = s->lease_ms;
	m->label_set = put_label_set(e, &s->label_set);
	m->n_valid = s->n_valid;
	return &m->base;
}

static ProtobufCMessage *
put_result(struct enc *e, const struct wire_result *s)
{
	Salt__V1__Result *m;
	Salt__V1__ResultRow *rows;

	if ((m = alloc(e, sizeof(*m))) == NULL || (rows = alloc(e, s->n_rows * sizeof(*rows))) == NULL)
		return NULL;
	salt__v1__result__init(m);
	m->lease_id = s->lease_id;
	if ((m->rows = alloc(e, s->n_rows * sizeof(*m->rows))) == NULL)
		return NULL;
	for (; m->n_rows < s->n_rows; m->n_rows++) {
		const struct wire_result_row *from = &s->rows[m->n_rows];
		Salt__V1__ResultRow *r = m->rows[m->n_rows] = &rows[m->n_rows];

		salt__v1__result_row__init(r);
		r->seq = from->seq;
		put_bytes(&r->scores, from->scores.bytes, from->scores.len);
		put_bytes(&r->label, from->label.bytes, from->label.len);
		r->error = put_text(from->error);
	}
	return &m->base;
}

static ProtobufCMessage *
put_done(struct enc *e, const struct wire_done *s)
{
	Salt__V1__Done *m;

	if ((m = alloc(e, sizeof(*m))) == NULL)
		return NULL;
	salt__v1__done__init(m);
	m->lease_id = s->lease_id;
	m->n_seqs = s->n_seqs;
	m->seqs = (uint64_t *)(uintptr_t)s->seqs;
	return &m->base;
}

static ProtobufCMessage *
put_rows_request(struct enc *e, const struct wire_rows_request *s)
{
	Salt__V1__RowsRequest *m;

	if ((m = alloc(e, sizeof(*m))) == NULL)
		return NULL;
	salt__v1__rows_request__init(m);
	m->request_id = s->request_id;
	put_hash(e, &m->plan_hash, s->plan_hash);
	m->first_row = s->first_row;
	m->count = s->count;
	m->step = s->step;
	return &m->base;
}

static ProtobufCMessage *
put_rows(struct enc *e, const struct wire_rows *s)
{
	Salt__V1__Rows *m;
	Salt__V1__Row *rows;

	if ((m = alloc(e, sizeof(*m))) == NULL || (rows = alloc(e, s->n_rows * sizeof(*rows))) == NULL)
		return NULL;
	salt__v1__rows__init(m);
	m->request_id = s->request_id;
	put_hash(e, &m->plan_hash, s->plan_hash);
	m->first_row = s->first_row;
	m->heldout_loss_nats = s->heldout_loss_nats;
	if ((m->rows = alloc(e, s->n_rows * sizeof(*m->rows))) == NULL)
		return NULL;
	for (; m->n_rows < s->n_rows; m->n_rows++) {
		const struct wire_row *from = &s->rows[m->n_rows];
		Salt__V1__Row *r = m->rows[m->n_rows] = &rows[m->n_rows];

		salt__v1__row__init(r);
		r->seq = from->seq;
		r->quarantined = from->quarantined;
		put_bytes(&r->label, from->label.bytes, from->label.len);
	}
	return &m->base;
}

static ProtobufCMessage *
put_message(struct enc *e, const struct wire_message *msg)
{
	switch (msg->type) {
	case WIRE_HELLO:
		return put_hello(e, &msg->hello);
	case WIRE_WELCOME:
		return put_welcome(e, &msg->welcome);
	case WIRE_REFUSE:
		return put_refuse(e, &msg->refuse);
	case WIRE_LEASE:
		return put_lease(e, &msg->lease);
	case WIRE_RESULT:
		return put_result(e, &msg->result);
	case WIRE_DONE:
		return put_done(e, &msg->done);
	case WIRE_ROWS_REQUEST:
		return put_rows_request(e, &msg->rows_request);
	case WIRE_ROWS:
		return put_rows(e, &msg->rows);
	case WIRE_LEASE_REQUEST: {
		Salt__V1__LeaseRequest *m = alloc(e, sizeof(*m));

		if (m == NULL)
			return NULL;
		salt__v1__lease_request__init(m);
		m->credit = msg->lease_request.credit;
		return &m->base;
	}
	case WIRE_LEASE_RENEW: {
		Salt__V1__LeaseRenew *m = alloc(e, sizeof(*m));

		if (m == NULL)
			return NULL;
		salt__v1__lease_renew__init(m);
		m->lease_id = msg->lease_renew.lease_id;
		m->progress = msg->lease_renew.progress;
		return &m->base;
	}
	case WIRE_LEASE_RETURN: {
		Salt__V1__LeaseReturn *m = alloc(e, sizeof(*m));

		if (m == NULL)
			return NULL;
		salt__v1__lease_return__init(m);
		m->lease_id = msg->lease_return.lease_id;
		return &m->base;
	}
	case WIRE_RELEASE_TEACHER: {
		Salt__V1__ReleaseTeacher *m = alloc(e, sizeof(*m));

		if (m == NULL)
			return NULL;
		salt__v1__release_teacher__init(m);
		m->reason = put_text(msg->release_teacher.reason);
		return &m->base;
	}
	case WIRE_CHECKPOINTED: {
		Salt__V1__Checkpointed *m = alloc(e, sizeof(*m));

		if (m == NULL)
			return NULL;
		salt__v1__checkpointed__init(m);
		m->request_id = msg->checkpointed.request_id;
		put_hash(e, &m->plan_hash, msg->checkpointed.plan_hash);
		m->step = msg->checkpointed.step;
		return &m->base;
	}
	case WIRE_RELEASE: {
		Salt__V1__Release *m = alloc(e, sizeof(*m));

		if (m == NULL)
			return NULL;
		salt__v1__release__init(m);
		m->request_id = msg->release.request_id;
		put_hash(e, &m->plan_hash, msg->release.plan_hash);
		m->step = msg->release.step;
		return &m->base;
	}
	case WIRE_ACK: {
		Salt__V1__Ack *m = alloc(e, sizeof(*m));

		if (m == NULL)
			return NULL;
		salt__v1__ack__init(m);
		m->request_id = msg->ack.request_id;
		return &m->base;
	}
	case WIRE_PING:
	case WIRE_PONG: {
		Salt__V1__Ping *m = alloc(e, sizeof(*m));

		if (m == NULL)
			return NULL;
		salt__v1__ping__init(m);
		m->nonce = msg->ping.nonce;
		return &m->base;
	}
	case WIRE_BYE: {
		Salt__V1__Bye *m = alloc(e, sizeof(*m));

		if (m == NULL)
			return NULL;
		salt__v1__bye__init(m);
		m->reason = put_text(msg->bye.reason);
		return &m->base;
	}
	case WIRE_DROP_LABELS: {
		Salt__V1__DropLabels *m = alloc(e, sizeof(*m));

		if (m == NULL)
			return NULL;
		salt__v1__drop_labels__init(m);
		m->request_id = msg->drop_labels.request_id;
		m->released_too = msg->drop_labels.released_too;
		return &m->base;
	}
	case WIRE_DROPPED: {
		Salt__V1__Dropped *m = alloc(e, sizeof(*m));

		if (m == NULL)
			return NULL;
		salt__v1__dropped__init(m);
		m->request_id = msg->dropped.request_id;
		m->labels = msg->dropped.labels;
		m->bytes = msg->dropped.bytes;
		m->kept = msg->dropped.kept;
		return &m->base;
	}
	case WIRE_NONE:
	case WIRE_TYPES:
		break;
	}
	return NULL;
}

int
wire_encode(const struct wire_message *msg, size_t max_bytes, uint8_t **frame, size_t *len, struct err_note *note)
{
	struct enc e = {0};
	ProtobufCMessage *m;
	uint8_t *p = NULL;
	size_t n;
	int rc;

	*frame = NULL;
	*len = 0;
	if ((rc = wire__check(msg, note)) != 0)
		return rc;
	if ((e.arena = mem_arena_new(0)) == NULL || (m = put_message(&e, msg)) == NULL || e.failed) {
		rc = err_note_set(note, ENOMEM, "%s", wire_type_name(msg->type));
		goto out;
	}
	n = protobuf_c_message_get_packed_size(m) + WIRE_HEADER_BYTES;
	if (n > max_bytes) {
		rc = err_note_set(note, ERR_RANGE, "%s", wire_type_name(msg->type));
		err_note_place(note, "bus.max_message");
		err_note_expected(note, "at most %zu bytes", max_bytes);
		err_note_found(note, "%zu", n);
		goto out;
	}
	if ((p = malloc(n)) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", wire_type_name(msg->type));
		goto out;
	}
	memcpy(p, "SALT", 4);
	p[4] = WIRE_VERSION & 0xff;
	p[5] = WIRE_VERSION >> 8;
	p[6] = (uint8_t)((unsigned)msg->type & 0xff);
	p[7] = (uint8_t)((unsigned)msg->type >> 8);
	protobuf_c_message_pack(m, p + WIRE_HEADER_BYTES);
	*frame = p;
	*len = n;
out:
	mem_arena_destroy(&e.arena);
	return rc;
}
