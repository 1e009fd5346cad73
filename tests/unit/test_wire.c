/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/wire/wire.h"

#include <math.h>
#include "check.h"
#include "fabric/wire/status_answer.h"
#include "base/json/json.h"
#include "salt.pb-c.h"
#include "status.pb-c.h"

/* Messages with every field set ------------------------------------------------------------------------------------------------- */

static const struct hash128 H1 = {0x0102030405060708u, 0x090a0b0c0d0e0f10u}, H2 = {2, 22}, H3 = {3, 33}, H4 = {4, 44};
static const uint64_t seqs[2] = {UINT64_C(1) << 48 | 7, UINT64_MAX};
static const int32_t tokens[2 * 4] = {1, 2, 3, 4, 0, 6, 7, 99};
static const struct wire_result_row result_rows[3] = {
	{.seq = 5, .scores = {(const uint8_t *)"abc", 3}, .label = {(const uint8_t *)"\0label", 6}},
	{.seq = 0, .label = {(const uint8_t *)"x", 1}},
	{.seq = 6, .error = "logits not finite"},
};
static const struct wire_row rows[2] = {{.seq = 9, .label = {(const uint8_t *)"\1\0\2", 3}}, {.seq = 10, .quarantined = true}};

static struct wire_corpus
full_corpus(uint64_t n)
{
	return (struct wire_corpus){true, {true, H1}, 128, n, {true, H2}, 4096, 2};
}

static struct wire_label_set
full_label_set(void)
{
	return (struct wire_label_set){true, {true, H1}, {true, H2}, "fp32/openblas", LABELS_KIND_TOPK, 16, 1.5f, 77, 1};
}

static void
fill(struct wire_message *m, enum wire_type type)
{
	memset(m, 0, sizeof(*m));
	m->type = type;
	switch (type) {
	case WIRE_HELLO:
		m->hello = (struct wire_hello){.protocol_version = 1, .role = WIRE_ROLE_TRAINER, .boot_id = H3, .name = "trainerd-0",
			.host = "node1", .pid = 12, .max_message = 1 << 20, .corpus = full_corpus(1000), .heldout = full_corpus(10), .rank = 3,
			.status_endpoint = "tcp://node1:5000", .label_set = full_label_set(),
			.plan = {true, {true, H4}, 42, 8, WIRE_MODE_SALT_DS, 10, 512, 0.75, 3, 1600, UINT64_MAX, true}};
		break;
	case WIRE_WELCOME:
		m->welcome = (struct wire_welcome){1, H3, 1, 2, 1 << 20, 30000, full_corpus(1000), full_corpus(10), full_label_set(),
			{true, {true, H3}, {true, H4}, "bf16/onednn", 1}, {true, H4}, 3.25, 64, true};
		break;
	case WIRE_REFUSE:
		m->refuse = (struct wire_refuse){78, "label_set.tau", "1", "2", "identities differ", 500};
		break;
	case WIRE_LEASE_REQUEST:
		m->lease_request.credit = 2;
		break;
	case WIRE_LEASE:
		m->lease = (struct wire_lease){11, H2, true, true, seqs, 2, tokens, 3, 30000, full_label_set(), 100, 2};
		break;
	case WIRE_LEASE_RENEW:
		m->lease_renew = (struct wire_lease_renew){11, 1234};
		break;
	case WIRE_LEASE_RETURN:
		m->lease_return.lease_id = 11;
		break;
	case WIRE_RESULT:
		m->result = (struct wire_result){11, result_rows, 3};
		break;
	case WIRE_DONE:
		m->done = (struct wire_done){11, seqs, 2};
		break;
	case WIRE_RELEASE_TEACHER:
		strcpy(m->release_teacher.reason, "idle");
		break;
	case WIRE_ROWS_REQUEST:
		m->rows_request = (struct wire_rows_request){21, H1, 800, 8, 100};
		break;
	case WIRE_ROWS:
		m->rows = (struct wire_rows){21, H1, 800, rows, 2, 2.5};
		break;
	case WIRE_CHECKPOINTED:
		m->checkpointed = (struct wire_checkpointed){22, H1, 100};
		break;
	case WIRE_RELEASE:
		m->release = (struct wire_release){23, H1, 200};
		break;
	case WIRE_ACK:
		m->ack.request_id = 23;
		break;
	case WIRE_PING:
	case WIRE_PONG:
		m->ping.nonce = 42;
		break;
	case WIRE_BYE:
		strcpy(m->bye.reason, "drain");
		break;
	case WIRE_DROP_LABELS:
		m->drop_labels = (struct wire_drop_labels){24, true};
		break;
	case WIRE_DROPPED:
		m->dropped = (struct wire_dropped){24, 1000, 9000000, 17};
		break;
	case WIRE_NONE:
	case WIRE_TYPES:
		break;
	}
}

/* A teacher's HELLO has other fields. */
static void
fill_teacher(struct wire_message *m)
{
	fill(m, WIRE_HELLO);
	m->hello.role = WIRE_ROLE_TEACHER;
	m->hello.corpus = m->hello.heldout = (struct wire_corpus){0};
	m->hello.plan = (struct wire_plan){0};
	m->hello.n_models = WIRE_MODELS_MAX;
	for (uint64_t i = 0; i < WIRE_MODELS_MAX; i++)
		m->hello.models[i] = (struct wire_model){{i, 1}, "fp32/openblas", i % 2 == 0, true, 4096, 1024, {true, H2}};
}

static bool
bytes_equal(struct wire_bytes a, struct wire_bytes b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.bytes, b.bytes, a.len) == 0);
}

/* Compares field by field, because padding may differ. */
static bool
id_equal(struct wire_id a, struct wire_id b)
{
	return a.known == b.known && hash_equal(a.hash, b.hash);
}

static bool
corpus_equal(const struct wire_corpus *a, const struct wire_corpus *b)
{
	return a->present == b->present && id_equal(a->fingerprint, b->fingerprint) && a->context == b->context
	    && a->n_windows == b->n_windows && id_equal(a->tokenizer, b->tokenizer) && a->vocab_size == b->vocab_size && a->document_end == b->document_end;
}

static bool
label_set_equal(const struct wire_label_set *a, const struct wire_label_set *b)
{
	return a->present == b->present && id_equal(a->hash, b->hash) && id_equal(a->teacher, b->teacher)
	    && strcmp(a->compute_class, b->compute_class) == 0 && a->kind == b->kind && a->n == b->n && a->tau == b->tau
	    && a->seed == b->seed && a->version == b->version;
}

static void
check_hello(const char *what, const struct wire_hello *a, const struct wire_hello *b)
{
	const struct wire_plan *p = &a->plan, *q = &b->plan;

	CHECK_ROW(what, a->protocol_version == b->protocol_version && a->role == b->role && hash_equal(a->boot_id, b->boot_id));
	CHECK_ROW(what, strcmp(a->name, b->name) == 0 && strcmp(a->host, b->host) == 0 && a->pid == b->pid);
	CHECK_ROW(what, a->max_message == b->max_message && a->rank == b->rank && strcmp(a->status_endpoint, b->status_endpoint) == 0);
	CHECK_ROW(what, corpus_equal(&a->corpus, &b->corpus) && corpus_equal(&a->heldout, &b->heldout));
	CHECK_ROW(what, label_set_equal(&a->label_set, &b->label_set) && a->n_models == b->n_models);
	for (size_t i = 0; i < a->n_models; i++) {
		const struct wire_model *m = &a->models[i], *n = &b->models[i];

		CHECK_ROW(what, hash_equal(m->fingerprint, n->fingerprint) && strcmp(m->compute_class, n->compute_class) == 0);
		CHECK_ROW(what, m->serves_score == n->serves_score && m->serves_label == n->serves_label);
		CHECK_ROW(what, m->vocab_size == n->vocab_size && m->max_context == n->max_context && id_equal(m->tokenizer, n->tokenizer));
	}
	CHECK_ROW(what, p->present == q->present && id_equal(p->hash, q->hash) && p->seed == q->seed && p->batch == q->batch);
	CHECK_ROW(what, p->mode == q->mode && p->k == q->k && p->window == q->window && p->keep == q->keep && p->pool == q->pool);
	CHECK_ROW(what, p->by_part == q->by_part && p->n_rows == q->n_rows && p->label_ahead_rows == q->label_ahead_rows);
}

static void
check_welcome(const char *what, const struct wire_welcome *a, const struct wire_welcome *b)
{
	const struct wire_score_set *s = &a->score_set, *t = &b->score_set;

	CHECK_ROW(what, a->protocol_version == b->protocol_version && hash_equal(a->boot_id, b->boot_id) && a->shard == b->shard);
	CHECK_ROW(what, a->n_shards == b->n_shards && a->max_message == b->max_message && a->lease_ms == b->lease_ms);
	CHECK_ROW(what, corpus_equal(&a->corpus, &b->corpus) && corpus_equal(&a->heldout, &b->heldout));
	CHECK_ROW(what, label_set_equal(&a->label_set, &b->label_set) && id_equal(a->plan_hash, b->plan_hash));
	CHECK_ROW(what, s->present == t->present && id_equal(s->hash, t->hash) && id_equal(s->scorer, t->scorer));
	CHECK_ROW(what, strcmp(s->compute_class, t->compute_class) == 0 && s->version == t->version);
	CHECK_ROW(what, a->heldout_loss_nats == b->heldout_loss_nats && a->rows_ready == b->rows_ready && a->released == b->released);
}

static void
check_equal(const char *what, const struct wire_message *a, const struct wire_message *b)
{
	CHECK_ROW(what, a->type == b->type);
	switch (a->type) {
	case WIRE_LEASE: {
		const struct wire_lease *x = &a->lease, *y = &b->lease;

		CHECK_ROW(what, x->n_seqs == y->n_seqs && memcmp(x->seqs, y->seqs, x->n_seqs * 8) == 0);
		CHECK_ROW(what, memcmp(x->tokens, y->tokens, x->n_seqs * (x->context + 1) * 4) == 0);
		CHECK_ROW(what, x->lease_id == y->lease_id && hash_equal(x->model, y->model) && x->want_score == y->want_score);
		CHECK_ROW(what, x->want_label == y->want_label && x->context == y->context && x->lease_ms == y->lease_ms);
		CHECK_ROW(what, label_set_equal(&x->label_set, &y->label_set) && x->n_valid == y->n_valid && x->document_end == y->document_end);
		break;
	}
	case WIRE_HELLO:
		check_hello(what, &a->hello, &b->hello);
		break;
	case WIRE_WELCOME:
		check_welcome(what, &a->welcome, &b->welcome);
		break;
	case WIRE_DONE:
		CHECK_ROW(what, a->done.lease_id == b->done.lease_id && a->done.n_seqs == b->done.n_seqs);
		CHECK_ROW(what, memcmp(a->done.seqs, b->done.seqs, a->done.n_seqs * 8) == 0);
		break;
	case WIRE_RESULT:
		CHECK_ROW(what, a->result.lease_id == b->result.lease_id && a->result.n_rows == b->result.n_rows);
		for (size_t i = 0; i < a->result.n_rows; i++) {
			const struct wire_result_row *x = &a->result.rows[i], *y = &b->result.rows[i];

			CHECK_ROW(what, x->seq == y->seq && bytes_equal(x->scores, y->scores) && bytes_equal(x->label, y->label));
			CHECK_ROW(what, strcmp(x->error, y->error) == 0);
		}
		break;
	case WIRE_ROWS:
		CHECK_ROW(what, a->rows.request_id == b->rows.request_id && hash_equal(a->rows.plan_hash, b->rows.plan_hash));
		CHECK_ROW(what, a->rows.first_row == b->rows.first_row && a->rows.n_rows == b->rows.n_rows);
		CHECK_ROW(what, a->rows.heldout_loss_nats == b->rows.heldout_loss_nats);
		for (size_t i = 0; i < a->rows.n_rows; i++) {
			const struct wire_row *x = &a->rows.rows[i], *y = &b->rows.rows[i];

			CHECK_ROW(what, x->seq == y->seq && x->quarantined == y->quarantined && bytes_equal(x->label, y->label));
		}
		break;
	default:
		/* the small messages have no pointers and no undefined padding */
		CHECK_ROW(what, memcmp(&a->refuse, &b->refuse, sizeof(a->refuse)) == 0);
	}
}

static void
test_round_trip(void)
{
	for (int t = WIRE_HELLO; t <= WIRE_TYPES; t++) {
		struct wire_message m, *back = NULL;
		const char *what = wire_type_name((enum wire_type)(t < WIRE_TYPES ? t : WIRE_HELLO));
		struct err_note note = {0};
		uint8_t *frame;
		size_t len;

		if (t < WIRE_TYPES)
			fill(&m, (enum wire_type)t);
		else
			fill_teacher(&m);
		CHECK_ROW(what, wire_encode(&m, SIZE_MAX, &frame, &len, &note) == 0);
		REQUIRE(frame != NULL);
		CHECK_ROW(what, len > WIRE_HEADER_BYTES && memcmp(frame, "SALT\1\0", 6) == 0);
		CHECK_ROW(what, wire_decode(frame, len, &back, &note) == 0);
		REQUIRE(back != NULL);
		/* the frame may be freed right after decoding */
		memset(frame, 0xee, len);
		free(frame);
		check_equal(what, &m, back);
		wire_message_destroy(&back);
		CHECK(back == NULL);
		/*
		 * a frame that is too long for the receiver is an error of encode; one of exactly its limit
		 * is not
		 */
		CHECK_ROW(what, wire_encode(&m, len - 1, &frame, &len, &note) == ERR_RANGE && frame == NULL);
		CHECK_ROW(what, wire_encode(&m, SIZE_MAX, &frame, &len, &note) == 0);
		free(frame);
		CHECK_ROW(what, wire_encode(&m, len, &frame, &len, &note) == 0);
		free(frame);
	}
}

/* Frames encoded by hand from the text of salt.proto, as other implementations would send them. */
static void
test_golden_bytes(void)
{
	static const uint8_t ping[] = {'S', 'A', 'L', 'T', 1, 0, 16, 0, 0x08, 42};
	static const uint8_t request[] = {'S', 'A', 'L', 'T', 1, 0, 11, 0, 0x08, 21, 0x12, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
		15, 16, 0x18, 0xa0, 0x06, 0x20, 8, 0x28, 100};
	struct wire_message m;
	uint8_t *frame;
	size_t len;

	fill(&m, WIRE_PING);
	REQUIRE(wire_encode(&m, SIZE_MAX, &frame, &len, NULL) == 0);
	CHECK(len == sizeof(ping) && memcmp(frame, ping, len) == 0);
	free(frame);
	fill(&m, WIRE_ROWS_REQUEST);
	REQUIRE(wire_encode(&m, SIZE_MAX, &frame, &len, NULL) == 0);
	CHECK(len == sizeof(request) && memcmp(frame, request, len) == 0);
	free(frame);
}

/* What is missing --------------------------------------------------------------------------------------------------------------- */

static size_t
varint(const uint8_t *p, uint64_t *out)
{
	size_t n = 0;

	*out = 0;
	do
		*out |= (uint64_t)(p[n] & 0x7f) << (7 * n);
	while (p[n++] & 0x80);
	return n;
}

/* Removes the top-level fields with this number from a frame; returns its new length. */
static size_t
without(const uint8_t *frame, size_t len, uint64_t number, uint8_t *out)
{
	size_t at = WIRE_HEADER_BYTES, n = WIRE_HEADER_BYTES;

	memcpy(out, frame, n);
	while (at < len) {
		size_t start = at;
		uint64_t tag, v;

		at += varint(frame + at, &tag);
		if ((tag & 7) == 0)
			at += varint(frame + at, &v);
		else if ((tag & 7) == 2) {
			at += varint(frame + at, &v);
			at += v;
		} else
			at += (tag & 7) == 1 ? 8 : 4;
		if (tag >> 3 != number) {
			memcpy(out + n, frame + start, at - start);
			n += at - start;
		}
	}
	return n;
}

/* Marks the fields that a message and its submessages have: bit i of the descriptor's entry in seen. */
static void
mark_fields(const ProtobufCMessageDescriptor *desc, const uint8_t *p, size_t len, const ProtobufCMessageDescriptor **descs, uint64_t *seen)
{
	size_t at = 0, d = 0;

	while (descs[d] != NULL && descs[d] != desc)
		d++;
	descs[d] = desc;
	while (at < len) {
		const ProtobufCFieldDescriptor *f;
		uint64_t tag, n;

		at += varint(p + at, &tag);
		f = protobuf_c_message_descriptor_get_field(desc, (unsigned)(tag >> 3));
		REQUIRE(f != NULL);
		seen[d] |= UINT64_C(1) << (f - desc->fields);
		if ((tag & 7) == 0) {
			at += varint(p + at, &n);
			continue;
		}
		n = (tag & 7) == 1 ? 8 : 4;
		if ((tag & 7) == 2)
			at += varint(p + at, &n);
		if (f->type == PROTOBUF_C_TYPE_MESSAGE)
			mark_fields(f->descriptor, p + at, n, descs, seen);
		at += n;
	}
}

/* wire_fields.h has every field of salt.proto: all fields survive encoding and decoding. */
static void
test_all_fields(void)
{
	static const ProtobufCMessageDescriptor *const messages[WIRE_TYPES] = {NULL, &salt__v1__hello__descriptor,
		&salt__v1__welcome__descriptor, &salt__v1__refuse__descriptor, &salt__v1__lease_request__descriptor,
		&salt__v1__lease__descriptor, &salt__v1__lease_renew__descriptor, &salt__v1__lease_return__descriptor,
		&salt__v1__result__descriptor, &salt__v1__done__descriptor, &salt__v1__release_teacher__descriptor,
		&salt__v1__rows_request__descriptor, &salt__v1__rows__descriptor, &salt__v1__checkpointed__descriptor,
		&salt__v1__release__descriptor, &salt__v1__ack__descriptor, &salt__v1__ping__descriptor, &salt__v1__ping__descriptor,
		&salt__v1__bye__descriptor, &salt__v1__drop_labels__descriptor, &salt__v1__dropped__descriptor};
	static const uint8_t unigram[4096];
	const ProtobufCMessageDescriptor *descs[40] = {NULL};
	uint64_t seen[40] = {0};

	for (int t = WIRE_HELLO; t <= WIRE_TYPES; t++) {
		struct wire_message m, *back;
		uint8_t *frame;
		size_t len;

		if (t < WIRE_TYPES)
			fill(&m, (enum wire_type)t);
		else
			fill_teacher(&m);
		if (t == WIRE_WELCOME)
			m.welcome.unigram = (struct wire_bytes){unigram, sizeof(unigram)};
		REQUIRE(wire_encode(&m, SIZE_MAX, &frame, &len, NULL) == 0 && wire_decode(frame, len, &back, NULL) == 0);
		free(frame);
		REQUIRE(wire_encode(back, SIZE_MAX, &frame, &len, NULL) == 0);
		mark_fields(messages[m.type], frame + WIRE_HEADER_BYTES, len - WIRE_HEADER_BYTES, descs, seen);
		free(frame);
		wire_message_destroy(&back);
	}
	for (size_t d = 0; descs[d] != NULL; d++)
		for (unsigned i = 0; i < descs[d]->n_fields; i++) {
			char what[96];

			snprintf(what, sizeof(what), "%s.%s", descs[d]->short_name, descs[d]->fields[i].name);
			CHECK_ROW(what, (seen[d] >> i & 1) != 0);
		}
}

/* Removes each field of each message: exactly those that salt.proto and wire.h call required are missed. */
static void
test_missing(void)
{
	static const struct { enum wire_type type; bool teacher; int n_fields; const char *needed; } messages[] = {
		/* one character per field, from field 1 on: x required, . optional */
		{WIRE_HELLO, false, 14, ".xxx..xx......"},
		{WIRE_HELLO, true, 14, ".xxx..x..x...."},
		{WIRE_WELCOME, false, 14, ".x.xxx........"},
		{WIRE_REFUSE, false, 6, "x....."},
		{WIRE_LEASE_REQUEST, false, 1, "x"},
		{WIRE_LEASE, false, 10, "xx.xxxxxxx"},	/* without field 4 the label set is invalid */
		{WIRE_LEASE_RENEW, false, 2, "x."},
		{WIRE_LEASE_RETURN, false, 1, "x"},
		{WIRE_RESULT, false, 2, "xx"},
		{WIRE_DONE, false, 2, "xx"},
		{WIRE_RELEASE_TEACHER, false, 1, "."},
		{WIRE_ROWS_REQUEST, false, 5, ".x.x."},
		{WIRE_ROWS, false, 5, ".x.x."},
		{WIRE_CHECKPOINTED, false, 3, ".x."},
		{WIRE_RELEASE, false, 3, ".x."},
		{WIRE_ACK, false, 1, "."},
		{WIRE_PING, false, 1, "."},
		{WIRE_PONG, false, 1, "."},
		{WIRE_BYE, false, 1, "."},
		{WIRE_DROP_LABELS, false, 2, ".."},
		{WIRE_DROPPED, false, 4, "...."},
	};

	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++)
		for (int f = 1; f <= messages[i].n_fields; f++) {
			struct wire_message m, *back;
			struct err_note note = {0};
			uint8_t *frame, cut[4096];
			char what[64];
			size_t len, n;
			int rc;

			snprintf(what, sizeof(what), "%s without field %d", wire_type_name(messages[i].type), f);
			if (messages[i].teacher)
				fill_teacher(&m);
			else
				fill(&m, messages[i].type);
			REQUIRE(wire_encode(&m, sizeof(cut), &frame, &len, NULL) == 0);
			n = without(frame, len, (uint64_t)f, cut);
			free(frame);
			rc = wire_decode(cut, n, &back, &note);
			if (messages[i].needed[f - 1] == 'x') {
				CHECK_ROW(what, rc == ERR_FORMAT && back == NULL);
				CHECK_ROW(what, note.name[0] != 0 && note.place[0] != 0);
			} else
				CHECK_ROW(what, rc == 0 && (n < len || messages[i].type == WIRE_HELLO));
			wire_message_destroy(&back);
		}
}

/* What is wrong: set by hand, so encode refuses; the check is decode's too -------------------------------------------------------- */

static void
refused(const char *what, const struct wire_message *m, int rc, const char *place)
{
	struct err_note note = {0};
	uint8_t *frame;
	size_t len;

	CHECK_ROW(what, wire_encode(m, SIZE_MAX, &frame, &len, &note) == rc);
	CHECK_ROW(what, frame == NULL);
	CHECK_ROW(what, strcmp(note.place, place) == 0);
	if (strcmp(note.place, place) != 0)
		fprintf(stderr, "  place '%s', not '%s'\n", note.place, place);
	free(frame);
}

#define REFUSED(type, change, rc, place)		\
	do {						\
		fill(&m, type);				\
		change;					\
		refused(#change, &m, rc, place);	\
	} while (0)

static void
test_wrong(void)
{
	struct wire_result_row both = {.seq = 1, .label = {(const uint8_t *)"x", 1}, .error = "and"}, neither = {.seq = 1};
	struct wire_row two = {.seq = 1, .quarantined = true, .label = {(const uint8_t *)"x", 1}};
	int32_t bad_tokens[8] = {0, 1, 2, 3, 4, 5, 6, 100};
	struct wire_message m;

	REFUSED(WIRE_HELLO, m.hello.role = (enum wire_role)4, ERR_FORMAT, "role");
	REFUSED(WIRE_HELLO, m.hello.n_models = 1, ERR_RANGE, "models");
	REFUSED(WIRE_HELLO, m.hello.max_message = 1023, ERR_RANGE, "max_message");
	REFUSED(WIRE_HELLO, memset(m.hello.name, 'x', sizeof(m.hello.name)), ERR_RANGE, "name");
	REFUSED(WIRE_HELLO, m.hello.corpus.context = 0, ERR_FORMAT, "corpus.context");
	REFUSED(WIRE_HELLO, m.hello.corpus.context = (1 << 24) + 1, ERR_RANGE, "corpus.context");
	REFUSED(WIRE_HELLO, m.hello.heldout.vocab_size = 0, ERR_FORMAT, "heldout.vocab_size");
	REFUSED(WIRE_HELLO, m.hello.plan.mode = (enum wire_mode)3, ERR_FORMAT, "plan.mode");
	REFUSED(WIRE_HELLO, m.hello.plan.batch = 0, ERR_FORMAT, "plan.batch");
	REFUSED(WIRE_HELLO, m.hello.plan.keep = NAN, ERR_RANGE, "plan.keep");
	REFUSED(WIRE_HELLO, m.hello.plan.keep = 0, ERR_RANGE, "plan.keep");
	REFUSED(WIRE_HELLO, m.hello.plan.keep = 1.001, ERR_RANGE, "plan.keep");
	REFUSED(WIRE_HELLO, m.hello.plan.k = 0, ERR_FORMAT, "plan.k");
	REFUSED(WIRE_HELLO, m.hello.plan.n_rows = 0, ERR_FORMAT, "plan.n_rows");
	REFUSED(WIRE_HELLO, (m.hello.plan.window = 0, m.hello.plan.pool = 0), ERR_FORMAT, "plan.window");
	REFUSED(WIRE_HELLO, m.hello.label_set.kind = (enum labels_kind)4, ERR_FORMAT, "label_set.kind");
	REFUSED(WIRE_HELLO, m.hello.label_set.tau = NAN, ERR_RANGE, "label_set.tau");
	REFUSED(WIRE_HELLO, m.hello.label_set.tau = INFINITY, ERR_RANGE, "label_set.tau");
	REFUSED(WIRE_HELLO, m.hello.label_set.n = 0, ERR_FORMAT, "label_set.n");
	REFUSED(WIRE_HELLO, m.hello.label_set.kind = LABELS_KIND_DENSE, ERR_RANGE, "label_set.n");
	REFUSED(WIRE_WELCOME, m.welcome.shard = 2, ERR_RANGE, "shard");
	REFUSED(WIRE_WELCOME, m.welcome.label_set.hash.known = false, ERR_FORMAT, "label_set.hash");
	REFUSED(WIRE_WELCOME, m.welcome.label_set.tau = 0, ERR_RANGE, "label_set.tau");
	REFUSED(WIRE_WELCOME, m.welcome.score_set.scorer.known = false, ERR_FORMAT, "score_set.scorer");
	REFUSED(WIRE_WELCOME, m.welcome.heldout_loss_nats = INFINITY, ERR_RANGE, "heldout_loss_nats");
	REFUSED(WIRE_WELCOME, m.welcome.heldout_loss_nats = -1, ERR_RANGE, "heldout_loss_nats");
	REFUSED(WIRE_HELLO, m.hello.corpus.n_windows = UINT64_C(1) << 48, ERR_RANGE, "corpus.n_windows");
	REFUSED(WIRE_HELLO, m.hello.corpus.vocab_size = (1 << 28) + 1, ERR_RANGE, "corpus.vocab_size");
	REFUSED(WIRE_HELLO, m.hello.plan.pool = UINT64_C(1) << 48, ERR_RANGE, "plan.pool");
	REFUSED(WIRE_HELLO, (m.hello.plan.pool = 0, m.hello.plan.window = UINT64_C(1) << 48), ERR_RANGE, "plan.window");
	REFUSED(WIRE_HELLO, m.hello.label_set.n = (1 << 20) + 1, ERR_RANGE, "label_set.n");
	REFUSED(WIRE_HELLO, m.hello.label_set.tau = 1e-7f, ERR_RANGE, "label_set.tau");
	REFUSED(WIRE_HELLO, m.hello.label_set.tau = 2e6f, ERR_RANGE, "label_set.tau");
	REFUSED(WIRE_WELCOME, m.welcome.n_shards = 65537, ERR_RANGE, "n_shards");
	REFUSED(WIRE_WELCOME, m.welcome.max_message = 1023, ERR_RANGE, "max_message");
	REFUSED(WIRE_WELCOME, m.welcome.lease_ms = 0, ERR_FORMAT, "lease_ms");
	REFUSED(WIRE_WELCOME, m.welcome.label_set.version = 0, ERR_FORMAT, "label_set.version");
	REFUSED(WIRE_WELCOME, m.welcome.label_set.kind = LABELS_KIND_NONE, ERR_FORMAT, "label_set.kind");
	REFUSED(WIRE_WELCOME, m.welcome.score_set.version = 0, ERR_FORMAT, "score_set.version");
	REFUSED(WIRE_WELCOME, m.welcome.heldout_loss_nats = 2e6, ERR_RANGE, "heldout_loss_nats");
	REFUSED(WIRE_WELCOME, (m.welcome.unigram = (struct wire_bytes){(const uint8_t *)"x", 1}), ERR_FORMAT, "unigram");
	REFUSED(WIRE_REFUSE, m.refuse.code = 79, ERR_RANGE, "code");
	REFUSED(WIRE_REFUSE, m.refuse.code = -1, ERR_RANGE, "code");
	REFUSED(WIRE_REFUSE, m.refuse.code = 1, ERR_RANGE, "code");
	REFUSED(WIRE_LEASE, m.lease.context = (1 << 24) + 1, ERR_RANGE, "context");
	REFUSED(WIRE_LEASE, m.lease.n_valid = (1 << 28) + 1, ERR_RANGE, "n_valid");
	REFUSED(WIRE_LEASE, m.lease.want_label = false, ERR_FORMAT, "label_set");
	REFUSED(WIRE_LEASE, m.lease.seqs = NULL, ERR_FORMAT, "seqs");
	REFUSED(WIRE_DONE, m.done.n_seqs = WIRE_SEQS_MAX + 1, ERR_RANGE, "seqs");
	REFUSED(WIRE_RESULT, m.result.n_rows = WIRE_ROWS_MAX + 1, ERR_RANGE, "rows");
	REFUSED(WIRE_ROWS, m.rows.first_row = UINT64_MAX, ERR_RANGE, "first_row");
	REFUSED(WIRE_LEASE, m.lease.n_seqs = WIRE_SEQS_MAX + 1, ERR_RANGE, "seqs");
	REFUSED(WIRE_LEASE, m.lease.tokens = bad_tokens, ERR_RANGE, "tokens");
	REFUSED(WIRE_LEASE, (bad_tokens[7] = -1, m.lease.tokens = bad_tokens), ERR_RANGE, "tokens");
	REFUSED(WIRE_LEASE, m.lease.want_label = m.lease.want_score = false, ERR_FORMAT, "want_label");
	REFUSED(WIRE_RESULT, (m.result.rows = &both, m.result.n_rows = 1), ERR_FORMAT, "rows");
	REFUSED(WIRE_RESULT, (m.result.rows = &neither, m.result.n_rows = 1), ERR_FORMAT, "rows");
	REFUSED(WIRE_ROWS, (m.rows.rows = &two, m.rows.n_rows = 1), ERR_FORMAT, "rows");
	REFUSED(WIRE_ROWS, m.rows.n_rows = WIRE_ROWS_MAX + 1, ERR_RANGE, "rows");
	REFUSED(WIRE_ROWS_REQUEST, m.rows_request.first_row = UINT64_MAX, ERR_RANGE, "first_row");
	fill_teacher(&m);
	m.hello.corpus = full_corpus(1);
	refused("teacher with a corpus", &m, ERR_FORMAT, "corpus");
	fill_teacher(&m);
	m.hello.models[3].serves_label = m.hello.models[3].serves_score = false;
	refused("model that serves nothing", &m, ERR_FORMAT, "models.serves_label");
	fill_teacher(&m);
	m.hello.models[0].compute_class[0] = 0;
	refused("model without a class", &m, ERR_FORMAT, "models.compute_class");
}

/* Frames that no encoder of ours makes -------------------------------------------------------------------------------------------- */

static void
check_frame(const char *what, const void *frame, size_t len, int rc)
{
	struct wire_message *m;
	struct err_note note = {0};
	int got = wire_decode(frame, len, &m, &note);

	CHECK_ROW(what, got == rc);
	if (got != rc)
		fprintf(stderr, "  got %s, want %s\n", err_str(got), err_str(rc));
	CHECK_ROW(what, (m != NULL) == (rc == 0));
	CHECK_ROW(what, rc == 0 || note.name[0] != 0);
	wire_message_destroy(&m);
}

#define FRAME(what, text, rc) check_frame((what), text, sizeof(text) - 1, (rc))

static void
test_frames(void)
{
	struct wire_message *m;
	struct err_note note = {0};

	FRAME("empty", "", ERR_FORMAT);
	FRAME("header cut", "SALT\1\0\20", ERR_FORMAT);
	FRAME("other magic", "SALZ\1\0\20\0", ERR_FORMAT);
	FRAME("type 0", "SALT\1\0\0\0", ERR_FORMAT);
	FRAME("type 21", "SALT\1\0\25\0", ERR_FORMAT);
	FRAME("type 16 + 256", "SALT\1\0\20\1", ERR_FORMAT);
	FRAME("PING of nothing", "SALT\1\0\20\0", 0);
	FRAME("PING with a field of the future", "SALT\1\0\20\0\x08\x2a\xf2\x07\3abc", 0);
	FRAME("varint without end", "SALT\1\0\20\0\x08\xff", ERR_FORMAT);
	FRAME("varint of 11 bytes", "SALT\1\0\20\0\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", ERR_FORMAT);
	FRAME("field 0", "SALT\1\0\20\0\x00\1", ERR_FORMAT);
	FRAME("a group", "SALT\1\0\20\0\x0b\x0c", ERR_FORMAT);
	FRAME("BYE", "SALT\1\0\22\0\x0a\3end", 0);
	FRAME("text longer than the frame", "SALT\1\0\22\0\x0a\4end", ERR_FORMAT);
	FRAME("length of 2^63", "SALT\1\0\22\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", ERR_FORMAT);
	FRAME("NUL in a text", "SALT\1\0\22\0\x0a\3e\0d", ERR_FORMAT);
	FRAME("fingerprint of 15 bytes", "SALT\1\0\15\0\x12\x0f""123456789012345", ERR_FORMAT);
	FRAME("fingerprint of 16 bytes", "SALT\1\0\15\0\x12\x10""1234567890123456", 0);
	FRAME("a lease of 2^32 - 1 tokens and none there", "SALT\1\0\5\0\x08\1\x2a\1\1\x38\xff\xff\xff\xff\x0f", ERR_FORMAT);
	CHECK(wire_decode("SALT\2\0\20\0", 8, &m, &note) == ERR_VERSION && m == NULL);
	CHECK_STR(note.place, "protocol version");
	CHECK_STR(note.expected, "1");
	CHECK_STR(note.found, "2");
}

/* Small frames that need much memory are rejected within the budget; the largest valid ones are accepted. */
static void
test_bombs(void)
{
	enum { BYTES = 1 << 20 };
	uint8_t *frame = malloc(BYTES), *out;
	struct wire_row *many = calloc(WIRE_ROWS_MAX, sizeof(*many));
	struct wire_result_row *results = calloc(WIRE_ROWS_MAX, sizeof(*results));
	uint64_t *many_seqs = calloc(WIRE_SEQS_MAX, sizeof(*many_seqs));
	struct wire_message m, *back;
	size_t len;

	REQUIRE(frame != NULL && many != NULL && results != NULL && many_seqs != NULL);
	/* half a million empty rows, 56 bytes each in protobuf-c */
	memcpy(frame, "SALT\1\0\14\0", 8);
	for (size_t i = 8; i < BYTES; i += 2)
		memcpy(frame + i, "\x22\0", 2);
	check_frame("empty rows", frame, BYTES, ERR_RANGE);
	/* unknown fields, such as those of later versions, need 32 bytes each */
	memcpy(frame, "SALT\1\0\20\0", 8);
	for (size_t i = 8; i < BYTES; i += 2)
		memcpy(frame + i, "\x10\1", 2);
	check_frame("unknown fields", frame, BYTES, ERR_RANGE);
	/* a packed byte becomes 8 in memory: 1 MiB of them is over the budget, and over the limit of seqs */
	memcpy(frame, "SALT\1\0\11\0\x08\1\x12\xf1\xff\x3f", 14);
	memset(frame + 14, 1, BYTES - 14);
	frame[11] = 0x80 | ((BYTES - 14) & 0x7f);
	frame[12] = 0x80 | ((BYTES - 14) >> 7 & 0x7f);
	frame[13] = (BYTES - 14) >> 14;
	check_frame("packed seqs", frame, BYTES, ERR_RANGE);
	fill(&m, WIRE_ROWS);
	for (size_t i = 0; i < WIRE_ROWS_MAX; i++) {
		many[i] = (struct wire_row){.seq = i, .quarantined = true};
		results[i].seq = i;
		strcpy(results[i].error, "x");
		many_seqs[i] = i;
	}
	m.rows.rows = many;
	m.rows.n_rows = WIRE_ROWS_MAX;
	REQUIRE(wire_encode(&m, SIZE_MAX, &out, &len, NULL) == 0);
	CHECK(wire_decode(out, len, &back, NULL) == 0 && back->rows.n_rows == WIRE_ROWS_MAX && back->rows.rows[1023].seq == 1023);
	wire_message_destroy(&back);
	free(out);
	fill(&m, WIRE_RESULT);
	m.result.rows = results;
	m.result.n_rows = WIRE_ROWS_MAX;
	REQUIRE(wire_encode(&m, SIZE_MAX, &out, &len, NULL) == 0);
	CHECK(wire_decode(out, len, &back, NULL) == 0 && back->result.n_rows == WIRE_ROWS_MAX);
	wire_message_destroy(&back);
	free(out);
	fill(&m, WIRE_DONE);
	m.done.seqs = many_seqs;
	m.done.n_seqs = WIRE_SEQS_MAX;
	REQUIRE(wire_encode(&m, SIZE_MAX, &out, &len, NULL) == 0);
	CHECK(wire_decode(out, len, &back, NULL) == 0 && back->done.n_seqs == WIRE_SEQS_MAX && back->done.seqs[1023] == 1023);
	wire_message_destroy(&back);
	free(out);
	free(frame);
	free(many);
	free(results);
	free(many_seqs);
}

/* Identities ---------------------------------------------------------------------------------------------------------------------- */

static void
test_plan_hash(void)
{
	struct wire_corpus c = full_corpus(1000), c2;
	struct wire_plan p = {true, {false, {0, 0}}, 42, 8, WIRE_MODE_SALT_DS, 10, 512, 0.75, 0, 1600, 100}, p2;
	struct hash128 base = wire_plan_hash(&c, &p, &H1);

	CHECK(hash_equal(base, wire_plan_hash(&c, &p, &H1)));
#define DIFFERS(change, want)								\
	do {										\
		c2 = c;									\
		p2 = p;									\
		const struct hash128 *s = &H1;						\
		change;									\
		CHECK_ROW(#change, (hash_equal(base, wire_plan_hash(&c2, &p2, s)) == 0) == (want));	\
	} while (0)
	DIFFERS(c2.fingerprint.hash.lo++, true);
	DIFFERS(c2.context++, true);
	DIFFERS(p2.seed++, true);
	DIFFERS(p2.batch++, true);
	DIFFERS(p2.mode = WIRE_MODE_NONE, true);
	DIFFERS(p2.k++, true);
	DIFFERS(p2.window++, true);
	DIFFERS(p2.keep = 0.5, true);
	DIFFERS(p2.pool = 512, true);
	DIFFERS(p2.by_part = true, true);
	DIFFERS(s = &H2, true);
	DIFFERS(p2.n_rows++, false);
	DIFFERS(p2.label_ahead_rows++, false);
	DIFFERS(p2.hash.known = true, false);
	/* mode file: all fields except k, and the score set, which stands for the file */
	DIFFERS(p2.mode = WIRE_MODE_FILE, true);
	p.mode = WIRE_MODE_FILE;
	base = wire_plan_hash(&c, &p, &H1);
	DIFFERS(p2.k++, false);
	DIFFERS(p2.keep = 0.5, true);
	DIFFERS(s = &H2, true);
	/* fields that a mode does not use do not change the hash */
	p.mode = WIRE_MODE_NONE;
	base = wire_plan_hash(&c, &p, NULL);
	DIFFERS((p2.k++, p2.keep = 0.5, s = NULL), false);
	p.pool = 99;
	base = wire_plan_hash(&c, &p, NULL);
	DIFFERS((p2.window++, s = NULL), false);
}

static void
test_diff(void)
{
	struct wire_label_set a = full_label_set(), b = full_label_set();
	struct wire_corpus c = full_corpus(7), d = full_corpus(7);
	struct err_note note = {0};
	struct wire_refuse refuse;
	char text[600];

	CHECK(wire_label_set_diff("label_set", &a, &b, &note) == 0);
	b.tau = 2;
	CHECK(wire_label_set_diff("label_set", &a, &b, &note) == ERR_MISMATCH);
	CHECK_STR(note.name, "label_set.tau");
	CHECK_STR(note.expected, "1.5");
	CHECK_STR(note.found, "2");
	wire_refuse_fill(&refuse, ERR_MISMATCH, &note, 0);
	CHECK(refuse.code == err_exit_code(ERR_MISMATCH) && refuse.retry_ms == 0);
	CHECK(strstr(wire_refuse_str(&refuse, text, sizeof(text)), "label_set.tau: expected 1.5, found 2 (") == text);
	/* an unknown field matches any value */
	b.tau = 0;
	b.kind = LABELS_KIND_NONE;
	b.n = 0;
	b.seed = 0;
	b.compute_class[0] = 0;
	b.hash.known = b.teacher.known = false;
	b.version = 0;
	CHECK(wire_label_set_diff("label_set", &a, &b, &note) == 0 && wire_label_set_diff("label_set", &b, &a, &note) == 0);
	b.kind = LABELS_KIND_TOPK;
	CHECK(wire_label_set_diff("x", &a, &b, &note) == ERR_MISMATCH);
	CHECK_STR(note.name, "x.k");
	b = a;
	b.seed++;			/* top-k draws nothing */
	CHECK(wire_label_set_diff("x", &a, &b, &note) == 0);
	a.kind = b.kind = LABELS_KIND_SAMPLED;
	CHECK(wire_label_set_diff("x", &a, &b, &note) == ERR_MISMATCH);
	CHECK_STR(note.name, "x.seed");
	b = a;
	b.teacher.hash = H4;
	CHECK(wire_label_set_diff("x", &a, &b, &note) == ERR_MISMATCH);
	CHECK_STR(note.found, "0000000000000004000000000000002c");
	b = a;
	strcpy(b.compute_class, "bf16/onednn");
	CHECK(wire_label_set_diff("x", &a, &b, &note) == ERR_MISMATCH);
	CHECK_STR(note.name, "x.compute_class");
	b.present = false;
	CHECK(wire_label_set_diff("x", &a, &b, &note) == 0);
	d.vocab_size++;
	CHECK(wire_corpus_diff("corpus", &c, &d, &note) == ERR_MISMATCH);
	CHECK_STR(note.name, "corpus.vocab_size");
	d = c;
	d.document_end = 0;
	CHECK(wire_corpus_diff("corpus", &c, &d, &note) == ERR_MISMATCH);
	CHECK_STR(note.name, "corpus.isolate_documents");
	CHECK_STR(note.found, "false");
	d = c;
	d.fingerprint.hash.hi ^= 1;
	CHECK(wire_corpus_diff("corpus", &c, &d, &note) == ERR_MISMATCH);
	d.fingerprint.known = false;
	CHECK(wire_corpus_diff("corpus", &c, &d, &note) == 0);
}

/* Status -------------------------------------------------------------------------------------------------------------------------- */

static void
test_status(void)
{
	static struct status_snapshot snap;
	static uint8_t request[] = {0x08, 0xd4, 0x82, 0xd1, 0x9a, 0x05};	/* field 1, varint 0x53544154 */
	struct wire_peer peers[2] = {
		{"teacherd-0", "node1", WIRE_ROLE_TEACHER, 5, "tcp://node1:1", 0.5},
		{"trainerd-\"1\"", "node2", WIRE_ROLE_TRAINER, 6, "", 2},
	};
	Salt__V1__StatusReply *back;
	struct status *st = status_new("selectord", "selectord-0", "0.1", 1000);
	struct json *root = NULL;
	struct err_note note = {0};
	uint8_t *answer;
	const char *text;
	size_t len;

	REQUIRE(st != NULL);
	status_add(status_register(st, STATUS_COUNTER, "leases_total", "leases", "given out"), 3);
	status_set(status_register(st, STATUS_GAUGE, "rows_ahead", "rows", "ahead"), 1.5);
	status_step(st, 7, 100);
	status_events(st, "tcp://node1:9");
	status_snapshot(st, 3000, &snap);
	snprintf(snap.gpu, sizeof(snap.gpu), "NVIDIA H200");

	REQUIRE(wire_status_answer("", 0, &snap, peers, 2, &answer, &len) == 0 && answer != NULL);
	REQUIRE(json_parse((char *)answer, len, "status", &root, &note) == 0);
	CHECK(json_count(json_get(root, "roster")) == 2);
	CHECK(json_text(json_get(json_item(json_get(root, "roster"), 1), "name"), &text) && strcmp(text, "trainerd-\"1\"") == 0);
	CHECK(json_text(json_get(root, "role"), &text) && strcmp(text, "selectord") == 0);
	CHECK(json_text(json_get(root, "gpu"), &text) && strcmp(text, "NVIDIA H200") == 0);
	CHECK(json_text(json_get(root, "events_endpoint"), &text) && strcmp(text, "tcp://node1:9") == 0);
	json_close(&root);
	free(answer);
	/* without a roster the answer is that of status_json() */
	REQUIRE(wire_status_answer("json", 4, &snap, NULL, 0, &answer, &len) == 0 && answer != NULL);
	REQUIRE(json_parse((char *)answer, len, "status", &root, &note) == 0);
	CHECK(json_get(root, "roster") == NULL && json_count(root) > 10);
	json_close(&root);
	free(answer);

	REQUIRE(wire_status_answer(request, sizeof(request), &snap, peers, 2, &answer, &len) == 0 && answer != NULL);
	REQUIRE((back = salt__v1__status_reply__unpack(NULL, len, answer)) != NULL);
	CHECK_STR(back->role, "selectord");
	CHECK_STR(back->gpu, "NVIDIA H200");
	CHECK_STR(back->name, "selectord-0");
	CHECK_STR(back->host, snap.host);
	CHECK_STR(back->version, "0.1");
	CHECK_STR(back->events_endpoint, "tcp://node1:9");
	CHECK(back->pid == (uint32_t)snap.pid && back->step == 7 && back->steps_total == 100 && back->uptime_s == snap.uptime_s);
	REQUIRE(back->n_metrics == 2 && back->n_roster == 2);
	CHECK(back->metrics[0]->counter && back->metrics[0]->value == 3 && !back->metrics[1]->counter && back->metrics[1]->value == 1.5);
	CHECK_STR(back->metrics[1]->name, "rows_ahead");
	CHECK_STR(back->metrics[1]->unit, "rows");
	CHECK_STR(back->metrics[1]->help, "ahead");
	CHECK_STR(back->roster[0]->name, "teacherd-0");
	CHECK_STR(back->roster[0]->host, "node1");
	CHECK_STR(back->roster[0]->role, "teacher");
	CHECK_STR(back->roster[0]->status_endpoint, "tcp://node1:1");
	CHECK(back->roster[0]->pid == 5 && back->roster[0]->age_s == 0.5);
	CHECK_STR(back->roster[1]->role, "trainer");
	salt__v1__status_reply__free_unpacked(back, NULL);
	free(answer);
	/* a request that is not empty, "json" or a message gets no answer */
	CHECK(wire_status_answer("jsom", 4, &snap, peers, 2, &answer, &len) == 0 && answer == NULL);
	CHECK(wire_status_answer("\x08\1", 2, &snap, peers, 2, &answer, &len) == 0 && answer == NULL);
	status_destroy(&st);
}

int
main(void)
{
	test_round_trip();
	test_golden_bytes();
	test_all_fields();
	test_missing();
	test_wrong();
	test_frames();
	test_bombs();
	test_plan_hash();
	test_diff();
	test_status();
	return check_done();
}
