#include "fabric/wire/wire_internal.h"

#include <errno.h>
#include <string.h>
#include "base/mem/mem.h"
#include "salt.pb-c.h"

/* WIRE_ROWS_MAX result rows with nothing but an error text each: 560 KiB of ours, 200 KiB of protobuf-c's. */
enum { BUDGET_FLOOR = 1 << 20 };
enum { SLACK_BYTES = 16 << 10 };		/* what a usual message takes beyond the bytes of its frame */

/* What turns protobuf into our structs. The first failure stays; everything after it may be half done. */
struct dec {
	const char *message;
	struct mem_arena *arena;
	struct err_note *note;
	bool over_budget;
	int rc;
};

static const ProtobufCMessageDescriptor *const descriptors[WIRE_TYPES] = {
	[WIRE_HELLO] = &salt__v1__hello__descriptor,
	[WIRE_WELCOME] = &salt__v1__welcome__descriptor,
	[WIRE_REFUSE] = &salt__v1__refuse__descriptor,
	[WIRE_LEASE_REQUEST] = &salt__v1__lease_request__descriptor,
	[WIRE_LEASE] = &salt__v1__lease__descriptor,
	[WIRE_LEASE_RENEW] = &salt__v1__lease_renew__descriptor,
	[WIRE_LEASE_RETURN] = &salt__v1__lease_return__descriptor,
	[WIRE_RESULT] = &salt__v1__result__descriptor,
	[WIRE_DONE] = &salt__v1__done__descriptor,
	[WIRE_RELEASE_TEACHER] = &salt__v1__release_teacher__descriptor,
	[WIRE_ROWS_REQUEST] = &salt__v1__rows_request__descriptor,
	[WIRE_ROWS] = &salt__v1__rows__descriptor,
	[WIRE_CHECKPOINTED] = &salt__v1__checkpointed__descriptor,
	[WIRE_RELEASE] = &salt__v1__release__descriptor,
	[WIRE_ACK] = &salt__v1__ack__descriptor,
	[WIRE_PING] = &salt__v1__ping__descriptor,
	[WIRE_PONG] = &salt__v1__ping__descriptor,
	[WIRE_BYE] = &salt__v1__bye__descriptor,
	[WIRE_DROP_LABELS] = &salt__v1__drop_labels__descriptor,
	[WIRE_DROPPED] = &salt__v1__dropped__descriptor,
};

const ProtobufCMessageDescriptor *
wire__descriptor(enum wire_type type)
{
	return (unsigned)type < WIRE_TYPES ? descriptors[type] : NULL;
}

/* The budget: protobuf-c allocates here (it sets all it takes) and never frees; nothing else bounds what it takes for a frame. */
static void *
budget_alloc(void *arg, size_t bytes)
{
	struct dec *d = arg;
	void *p = mem_arena_alloc_raw(d->arena, bytes);

	if (p == NULL)
		d->over_budget = true;
	return p;
}

static void
budget_free(void *arg, void *p)
{
	(void)arg;
	(void)p;
}

static int
fail(struct dec *d, int rc, const char *field, const char *expected, size_t found)
{
	if (d->rc != 0)
		return d->rc;
	d->rc = err_note_set(d->note, rc, "%s", d->message);
	err_note_place(d->note, "%s", field);
	err_note_expected(d->note, "%s", expected);
	err_note_found(d->note, "%zu", found);
	return rc;
}

static void
get_id(struct dec *d, const char *field, struct wire_id *out, const ProtobufCBinaryData *from)
{
	if (from->len == 0)
		return;
	if (from->len != 16) {
		fail(d, ERR_FORMAT, field, "0 or 16 bytes", from->len);
		return;
	}
	out->known = true;
	for (int i = 0; i < 8; i++) {
		out->hash.hi = out->hash.hi << 8 | from->data[i];
		out->hash.lo = out->hash.lo << 8 | from->data[8 + i];
	}
}

/* Absent stays zero, which the checks refuse. */
static void
get_hash(struct dec *d, const char *field, struct hash128 *out, const ProtobufCBinaryData *from)
{
	struct wire_id id = {0};

	get_id(d, field, &id, from);
	*out = id.hash;
}

static void
get_text(struct dec *d, const char *field, char *out, size_t size, const char *from)
{
	size_t n = from != NULL ? strlen(from) : 0;

	if (n >= size)
		fail(d, ERR_RANGE, field, "a shorter text", n);
	else if (n > 0)
		memcpy(out, from, n + 1);
}

#define GET_TEXT(d, field, out, from) get_text((d), (field), (out), sizeof(out), (from))

static void
get_corpus(struct dec *d, const char *field, struct wire_corpus *out, const Salt__V1__Corpus *m)
{
	if (m == NULL)
		return;
	out->present = true;
	get_id(d, field, &out->fingerprint, &m->fingerprint);
	out->context = m->context;
	out->n_windows = m->n_windows;
	get_id(d, field, &out->tokenizer, &m->tokenizer);
	out->vocab_size = m->vocab_size;
}

static void
get_model(struct dec *d, struct wire_model *out, const Salt__V1__Model *m)
{
	get_hash(d, "models.fingerprint", &out->fingerprint, &m->fingerprint);
	GET_TEXT(d, "models.compute_class", out->compute_class, m->compute_class);
	out->serves_score = m->serves_score;
	out->serves_label = m->serves_label;
	out->vocab_size = m->vocab_size;
	out->max_context = m->max_context;
	get_id(d, "models.tokenizer", &out->tokenizer, &m->tokenizer);
}

static void
get_label_set(struct dec *d, struct wire_label_set *out, const Salt__V1__LabelSet *m)
{
	if (m == NULL)
		return;
	out->present = true;
	get_id(d, "label_set.hash", &out->hash, &m->hash);
	get_id(d, "label_set.teacher", &out->teacher, &m->teacher);
	GET_TEXT(d, "label_set.compute_class", out->compute_class, m->compute_class);
	out->kind = (enum wire_label_kind)m->kind;
	out->n = m->n;
	out->tau = m->tau;
	out->seed = m->seed;
	out->version = m->version;
}

static void
get_score_set(struct dec *d, struct wire_score_set *out, const Salt__V1__ScoreSet *m)
{
	if (m == NULL)
		return;
	out->present = true;
	get_id(d, "score_set.hash", &out->hash, &m->hash);
	get_id(d, "score_set.scorer", &out->scorer, &m->scorer);
	GET_TEXT(d, "score_set.compute_class", out->compute_class, m->compute_class);
	out->version = m->version;
}

static void
get_plan(struct dec *d, struct wire_plan *out, const Salt__V1__Plan *m)
{
	if (m == NULL)
		return;
	out->present = true;
	get_id(d, "plan.hash", &out->hash, &m->hash);
	out->seed = m->seed;
	out->batch = m->batch;
	out->mode = (enum wire_mode)m->mode;
	out->k = m->k;
	out->window = m->window;
	out->keep = m->keep;
	out->pool = m->pool;
	out->n_rows = m->n_rows;
	out->label_ahead_rows = m->label_ahead_rows;
}

static void
get_hello(struct dec *d, struct wire_hello *out, const Salt__V1__Hello *m)
{
	out->protocol_version = m->protocol_version;
	out->role = (enum wire_role)m->role;
	get_hash(d, "boot_id", &out->boot_id, &m->boot_id);
	GET_TEXT(d, "name", out->name, m->name);
	GET_TEXT(d, "host", out->host, m->host);
	out->pid = m->pid;
	out->max_message = m->max_message;
	get_corpus(d, "corpus", &out->corpus, m->corpus);
	get_corpus(d, "heldout", &out->heldout, m->heldout);
	out->n_models = m->n_models;
	if (m->n_models > WIRE_MODELS_MAX)
		fail(d, ERR_RANGE, "models", "at most 4", m->n_models);
	else
		for (size_t i = 0; i < m->n_models; i++)
			get_model(d, &out->models[i], m->models[i]);
	get_plan(d, &out->plan, m->plan);
	get_label_set(d, &out->label_set, m->label_set);
	out->rank = m->rank;
	GET_TEXT(d, "status_endpoint", out->status_endpoint, m->status_endpoint);
}

static void
get_bytes(struct wire_bytes *out, const ProtobufCBinaryData *from)
{
	out->bytes = from->len != 0 ? from->data : NULL;
	out->len = from->len;
}

static void
get_welcome(struct dec *d, struct wire_welcome *out, const Salt__V1__Welcome *m)
{
	out->protocol_version = m->protocol_version;
	get_hash(d, "boot_id", &out->boot_id, &m->boot_id);
	out->shard = m->shard;
	out->n_shards = m->n_shards;
	out->max_message = m->max_message;
	out->lease_ms = m->lease_ms;
	get_corpus(d, "corpus", &out->corpus, m->corpus);
	get_corpus(d, "heldout", &out->heldout, m->heldout);
	get_label_set(d, &out->label_set, m->label_set);
	get_score_set(d, &out->score_set, m->score_set);
	get_id(d, "plan_hash", &out->plan_hash, &m->plan_hash);
	out->heldout_loss_nats = m->heldout_loss_nats;
	out->rows_ready = m->rows_ready;
	out->released = m->released;
	get_bytes(&out->unigram, &m->unigram);
}

static void
get_refuse(struct dec *d, struct wire_refuse *out, const Salt__V1__Refuse *m)
{
	out->code = m->code;
	GET_TEXT(d, "field", out->field, m->field);
	GET_TEXT(d, "expected", out->expected, m->expected);
	GET_TEXT(d, "found", out->found, m->found);
	GET_TEXT(d, "text", out->text, m->text);
	out->retry_ms = m->retry_ms;
}

static void
get_lease(struct dec *d, struct wire_lease *out, const Salt__V1__Lease *m)
{
	size_t n;

	out->lease_id = m->lease_id;
	get_hash(d, "model", &out->model, &m->model);
	out->want_score = m->want_score;
	out->want_label = m->want_label;
	out->n_seqs = m->n_seqs;
	out->seqs = m->seqs;
	out->context = m->context;
	out->lease_ms = m->lease_ms;
	get_label_set(d, &out->label_set, m->label_set);
	out->n_valid = m->n_valid;
	if (!mem_mul(m->n_seqs, (size_t)m->context + 1, &n) || !mem_mul(n, sizeof(int32_t), &n) || n != m->tokens.len)
		fail(d, ERR_FORMAT, "tokens", "n_seqs * (context + 1) * 4 bytes", m->tokens.len);
	else if (n != 0)
		out->tokens = (const int32_t *)(const void *)m->tokens.data;	/* from the arena, so aligned */
}

static void *
rows_alloc(struct dec *d, struct wire_message *msg, size_t n, size_t size)
{
	void *p;

	if (n > WIRE_ROWS_MAX) {
		fail(d, ERR_RANGE, "rows", "at most 1024", n);
		return NULL;
	}
	if (n == 0)
		return NULL;
	if ((p = mem_arena_alloc(msg->arena, n * size)) == NULL)
		d->over_budget = true;
	return p;
}

static void
get_result(struct dec *d, struct wire_message *msg, const Salt__V1__Result *m)
{
	struct wire_result_row *rows = rows_alloc(d, msg, m->n_rows, sizeof(*rows));

	msg->result.lease_id = m->lease_id;
	msg->result.n_rows = m->n_rows;
	msg->result.rows = rows;
	for (size_t i = 0; rows != NULL && i < m->n_rows; i++) {
		rows[i].seq = m->rows[i]->seq;
		get_bytes(&rows[i].scores, &m->rows[i]->scores);
		get_bytes(&rows[i].label, &m->rows[i]->label);
		GET_TEXT(d, "rows.error", rows[i].error, m->rows[i]->error);
	}
}

static void
get_rows(struct dec *d, struct wire_message *msg, const Salt__V1__Rows *m)
{
	struct wire_row *rows = rows_alloc(d, msg, m->n_rows, sizeof(*rows));

	msg->rows.request_id = m->request_id;
	get_hash(d, "plan_hash", &msg->rows.plan_hash, &m->plan_hash);
	msg->rows.first_row = m->first_row;
	msg->rows.heldout_loss_nats = m->heldout_loss_nats;
	msg->rows.n_rows = m->n_rows;
	msg->rows.rows = rows;
	for (size_t i = 0; rows != NULL && i < m->n_rows; i++) {
		rows[i].seq = m->rows[i]->seq;
		rows[i].quarantined = m->rows[i]->quarantined;
		get_bytes(&rows[i].label, &m->rows[i]->label);
	}
}

static void
get_message(struct dec *d, struct wire_message *msg, const void *m)
{
	switch (msg->type) {
	case WIRE_HELLO:
		get_hello(d, &msg->hello, m);
		break;
	case WIRE_WELCOME:
		get_welcome(d, &msg->welcome, m);
		break;
	case WIRE_REFUSE:
		get_refuse(d, &msg->refuse, m);
		break;
	case WIRE_LEASE_REQUEST:
		msg->lease_request.credit = ((const Salt__V1__LeaseRequest *)m)->credit;
		break;
	case WIRE_LEASE:
		get_lease(d, &msg->lease, m);
		break;
	case WIRE_LEASE_RENEW:
		msg->lease_renew.lease_id = ((const Salt__V1__LeaseRenew *)m)->lease_id;
		msg->lease_renew.progress = ((const Salt__V1__LeaseRenew *)m)->progress;
		break;
	case WIRE_LEASE_RETURN:
		msg->lease_return.lease_id = ((const Salt__V1__LeaseReturn *)m)->lease_id;
		break;
	case WIRE_RESULT:
		get_result(d, msg, m);
		break;
	case WIRE_DONE:
		msg->done.lease_id = ((const Salt__V1__Done *)m)->lease_id;
		msg->done.n_seqs = ((const Salt__V1__Done *)m)->n_seqs;
		msg->done.seqs = ((const Salt__V1__Done *)m)->seqs;
		break;
	case WIRE_RELEASE_TEACHER:
		GET_TEXT(d, "reason", msg->release_teacher.reason, ((const Salt__V1__ReleaseTeacher *)m)->reason);
		break;
	case WIRE_ROWS_REQUEST: {
		const Salt__V1__RowsRequest *r = m;

		msg->rows_request.request_id = r->request_id;
		get_hash(d, "plan_hash", &msg->rows_request.plan_hash, &r->plan_hash);
		msg->rows_request.first_row = r->first_row;
		msg->rows_request.count = r->count;
		msg->rows_request.step = r->step;
		break;
	}
	case WIRE_ROWS:
		get_rows(d, msg, m);
		break;
	case WIRE_CHECKPOINTED: {
		const Salt__V1__Checkpointed *c = m;

		msg->checkpointed.request_id = c->request_id;
		get_hash(d, "plan_hash", &msg->checkpointed.plan_hash, &c->plan_hash);
		msg->checkpointed.step = c->step;
		break;
	}
	case WIRE_RELEASE: {
		const Salt__V1__Release *r = m;

		msg->release.request_id = r->request_id;
		get_hash(d, "plan_hash", &msg->release.plan_hash, &r->plan_hash);
		msg->release.step = r->step;
		break;
	}
	case WIRE_ACK:
		msg->ack.request_id = ((const Salt__V1__Ack *)m)->request_id;
		break;
	case WIRE_PING:
	case WIRE_PONG:
		msg->ping.nonce = ((const Salt__V1__Ping *)m)->nonce;
		break;
	case WIRE_BYE:
		GET_TEXT(d, "reason", msg->bye.reason, ((const Salt__V1__Bye *)m)->reason);
		break;
	case WIRE_DROP_LABELS: {
		const Salt__V1__DropLabels *l = m;

		msg->drop_labels = (struct wire_drop_labels){l->request_id, l->released_too != 0};
		break;
	}
	case WIRE_DROPPED: {
		const Salt__V1__Dropped *l = m;

		msg->dropped = (struct wire_dropped){l->request_id, l->labels, l->bytes, l->kept};
		break;
	}
	case WIRE_NONE:
	case WIRE_TYPES:
		break;
	}
}

/* The header: magic, version, a type we know. */
static int
header(const uint8_t *p, size_t len, enum wire_type *type, struct err_note *note)
{
	unsigned version, number;

	if (len < WIRE_HEADER_BYTES || memcmp(p, "SALT", 4) != 0) {
		err_note_set(note, ERR_FORMAT, "frame");
		err_note_expected(note, "\"SALT\" and a header of %d bytes", WIRE_HEADER_BYTES);
		err_note_found(note, len < WIRE_HEADER_BYTES ? "%zu bytes" : "%zu bytes of something else", len);
		return ERR_FORMAT;
	}
	version = p[4] | (unsigned)p[5] << 8;
	number = p[6] | (unsigned)p[7] << 8;
	if (version != WIRE_VERSION) {
		err_note_set(note, ERR_VERSION, "frame");
		err_note_place(note, "protocol version");
		err_note_expected(note, "%d", WIRE_VERSION);
		err_note_found(note, "%u", version);
		return ERR_VERSION;
	}
	if (number == WIRE_NONE || number >= WIRE_TYPES) {
		err_note_set(note, ERR_FORMAT, "frame");
		err_note_place(note, "message type");
		err_note_expected(note, "1 .. %d", WIRE_TYPES - 1);
		err_note_found(note, "%u", number);
		return ERR_FORMAT;
	}
	*type = (enum wire_type)number;
	return 0;
}

int
wire_decode(const void *bytes, size_t len, struct wire_message **out, struct err_note *note)
{
	const uint8_t *p = bytes;
	const ProtobufCMessageDescriptor *desc;
	struct dec d = {.note = note};
	ProtobufCAllocator allocator = {budget_alloc, budget_free, &d};
	ProtobufCMessage *m;
	struct wire_message *msg;
	enum wire_type type;
	size_t budget;
	int rc;

	*out = NULL;
	if ((rc = header(p, len, &type, note)) != 0)
		return rc;
	desc = wire__descriptor(type);
	p += WIRE_HEADER_BYTES;
	len -= WIRE_HEADER_BYTES;
	if ((rc = wire__scan(desc, p, len, note)) != 0)
		return rc;
	d.message = wire_type_name(type);
	if (!mem_mul(len, 4, &budget) || !mem_add(budget, BUDGET_FLOOR, &budget))
		return err_note_set(note, ERR_RANGE, "%s", d.message);
	if ((d.arena = mem_arena_new(budget)) != NULL)
		mem_arena_expect(d.arena, len + SLACK_BYTES);
	if (d.arena == NULL || (msg = mem_arena_alloc(d.arena, sizeof(*msg))) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", d.message);
		goto fail;
	}
	msg->type = type;
	msg->arena = d.arena;
	if ((m = protobuf_c_message_unpack(desc, &allocator, len, p)) != NULL) {
		get_message(&d, msg, m);
		rc = d.rc;
	} else if (!d.over_budget) {
		rc = err_note_set(note, ERR_FORMAT, "%s", d.message);
		err_note_expected(note, "a protobuf message of that type");
	}
	if (d.over_budget) {
		rc = err_note_set(note, ERR_RANGE, "%s", d.message);
		err_note_place(note, "frame of %zu bytes", len + WIRE_HEADER_BYTES);
		err_note_expected(note, "at most %zu bytes of memory for it", budget);
		err_note_found(note, "more");
	}
	if (rc == 0)
		rc = wire__check(msg, note);
	if (rc != 0)
		goto fail;
	*out = msg;
	return 0;
fail:
	mem_arena_destroy(&d.arena);
	return rc;
}

void
wire_message_destroy(struct wire_message **msg)
{
	struct mem_arena *arena;

	if (*msg == NULL)
		return;
	arena = (*msg)->arena;		/* the message lies within it */
	*msg = NULL;
	mem_arena_destroy(&arena);
}
