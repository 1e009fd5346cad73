/* SPDX-License-Identifier: Apache-2.0 */
#include "core_sim.h"
#include "base/random/random.h"
#include "base/random/shuffle.h"
#include "data/corpus/blend.h"

#include <errno.h>

static size_t
slot(uint64_t seq)
{
	return (size_t)CORPUS_SEQ_INDEX(seq) + (CORPUS_SEQ_NO(seq) == CORPUS_HELDOUT ? WINDOWS : 0);
}

/* ---- records of a teacher: pure functions of the sequence ---- */
void
make_score(uint64_t seq, uint8_t out[3 * L])
{
	float loss[L];
	int32_t rank[L];
	uint32_t w[4];

	for (uint32_t t = 0; t < L; t++) {
		random_words(99, RANDOM_PURPOSE_GENERATE, seq, t, 0, w);
		loss[t] = (float)(w[0] % 5000) / 1000;
		rank[t] = (int32_t)(w[1] % 14);
	}
	REQUIRE(labels_scores_encode(loss, rank, L, out, NULL) == 0);
}

void
make_label(uint64_t seq, uint8_t out[LABEL_BYTES])
{
	memset(out, 0, LABEL_BYTES);
	snprintf((char *)out, LABEL_BYTES, "label of %llu", (unsigned long long)seq);
}

static int
ask_label(void *arg, uint64_t seq, struct cache_bytes *out)
{
	struct sim *s = arg;

	if (!s->has_label[slot(seq)])
		return ERR_NOT_FOUND;
	*out = (struct cache_bytes){s->label[slot(seq)], LABEL_BYTES};
	return 0;
}

static int
ask_scores(void *arg, enum cache_scores set, uint64_t seq, struct cache_bytes *out)
{
	struct sim *s = arg;

	if (!s->has_score[set][slot(seq)])
		return ERR_NOT_FOUND;
	*out = (struct cache_bytes){s->score[set][slot(seq)], 3 * L};
	return 0;
}

static int
ask_rows(void *arg, struct hash128 plan, uint64_t block, uint64_t first, size_t n, struct cache_row *out)
{
	struct sim *s = arg;

	for (size_t i = 0; i < s->n_blocks; i++)
		if (hash_equal(s->blocks[i].plan, plan) && s->blocks[i].block == block) {
			if (first + n > s->blocks[i].n)
				return ERR_RANGE;
			memcpy(out, s->blocks[i].rows + first, n * sizeof(*out));
			return 0;
		}
	return ERR_NOT_FOUND;
}

static int
ask_rows_count(void *arg, struct hash128 plan, uint64_t block, uint64_t *n)
{
	struct sim *s = arg;

	for (size_t i = 0; i < s->n_blocks; i++)
		if (hash_equal(s->blocks[i].plan, plan) && s->blocks[i].block == block) {
			*n = s->blocks[i].n;
			return 0;
		}
	return ERR_NOT_FOUND;
}

static int
ask_plan(void *arg, struct hash128 plan, struct cache_plan *out)
{
	struct sim *s = arg;

	for (size_t i = 0; i < s->n_plans; i++)
		if (hash_equal(s->plans[i].hash, plan)) {
			*out = s->plans[i];
			return 0;
		}
	return ERR_NOT_FOUND;
}

static int
ask_plans(void *arg, int (*each)(void *each_arg, const struct cache_plan *plan), void *each_arg)
{
	struct sim *s = arg;
	int rc = s->plans_damaged ? ERR_CORRUPT : 0;

	for (size_t i = 0; rc == 0 && i < s->n_plans; i++)
		rc = each(each_arg, &s->plans[i]);
	return rc;
}

static int
ask_label_next(void *arg, uint64_t *seq, struct cache_bytes *out)
{
	struct sim *s = arg;

	for (uint64_t i = *seq; i < WINDOWS; i++)
		if (s->has_label[i]) {
			*seq = i;
			return ask_label(arg, i, out);
		}
	return ERR_NOT_FOUND;
}

static int
ask_tokens(void *arg, uint64_t seq, int32_t *out)
{
	(void)arg;
	for (int i = 0; i <= L; i++)
		out[i] = (int32_t)(CORPUS_SEQ_INDEX(seq) % 90) + i;
	return 0;
}

static int
ask_n_results(void *arg, uint64_t *n)
{
	struct sim *s = arg;
	uint64_t labels = 0, scores = 0;

	for (size_t i = 0; i < WINDOWS; i++) {
		labels += s->has_label[i];
		scores += s->has_score[CACHE_SCORES_SCORER][i];
	}
	*n = labels > scores ? labels : scores;
	return 0;
}

static int
ask_check_label(void *arg, uint64_t seq, const void *bytes, size_t len, struct err_note *note)
{
	uint8_t *want = malloc(LABEL_BYTES);		/* may fail, as in labels_check */
	bool good;

	(void)arg;
	if (want == NULL)
		return err_note_set(note, ENOMEM, "label");
	make_label(seq, want);
	good = len == LABEL_BYTES && memcmp(bytes, want, 12) == 0;
	free(want);
	return good ? 0 : err_note_set(note, ERR_MISMATCH, "label");
}

static void
apply(struct sim *s, const struct core_op *op)
{
	size_t at = slot(op->seq);

	switch (op->kind) {
	case CORE_OP_RESULT:
		if (op->scores != NULL) {
			CHECK(!s->has_score[op->set][at]);
			memcpy(s->score[op->set][at], op->scores, 3 * L);
			s->has_score[op->set][at] = true;
		}
		if (op->label != NULL) {
			memcpy(s->label[at], op->label, LABEL_BYTES);
			s->has_label[at] = true;
		}
		break;
	case CORE_OP_ROWS:
		for (size_t i = 0; i < s->n_blocks; i++)	/* a block is written only once */
			CHECK(s->blocks[i].block != op->block || !hash_equal(s->blocks[i].plan, op->plan_hash));
		REQUIRE(s->n_blocks < sizeof(s->blocks) / sizeof(s->blocks[0]));
		s->blocks[s->n_blocks].plan = op->plan_hash;
		s->blocks[s->n_blocks].block = op->block;
		s->blocks[s->n_blocks].n = op->n_rows;
		s->blocks[s->n_blocks].rows = malloc(op->n_rows * sizeof(*op->rows));
		memcpy(s->blocks[s->n_blocks++].rows, op->rows, op->n_rows * sizeof(*op->rows));
		for (size_t i = 0; i < op->n_drops; i++) {
			s->has_label[slot(op->drops[i])] = false;
		}
		break;
	case CORE_OP_DROP_LABEL:
		s->has_label[at] = false;
		break;
	case CORE_OP_DROP_SCORES:
		s->has_score[op->set][at] = false;
		break;
	case CORE_OP_PLAN: {
		size_t i = 0;

		while (i < s->n_plans && !hash_equal(s->plans[i].hash, op->plan.hash))
			i++;
		REQUIRE(i < sizeof(s->plans) / sizeof(s->plans[0]));
		s->plans[i] = op->plan;
		s->n_plans += i == s->n_plans;
		break;
	}
	case CORE_OP_ATTEMPTS:
		s->attempts[at] = op->attempts;
		break;
	case CORE_OP_DROP_ATTEMPTS:
		memset(&s->attempts[at], 0, sizeof(s->attempts[at]));
		break;
	case CORE_OP_QUARANTINE:
		s->quarantine[s->n_quarantine++] = op->quarantine;
		break;
	}
}

/* Messages are stored with their arrays until the test takes them; operations are committed unless held. */
void
pump(struct sim *s)
{
	for (bool more = true; more;) {
		struct core_out *out = (struct core_out *)(uintptr_t)core_out(s->core);

		more = false;
		for (size_t i = 0; i < out->n_messages; i++) {
			struct core_message *m = &out->messages[i];

			REQUIRE(s->n_inbox < INBOX);
			if (m->msg.type == WIRE_ROWS) {		/* its labels are borrowed: check them now */
				for (size_t r = 0; r < m->msg.rows.n_rows; r++) {
					uint8_t want[LABEL_BYTES];

					make_label(m->msg.rows.rows[r].seq, want);
					CHECK(m->msg.rows.rows[r].quarantined ? m->msg.rows.rows[r].label.len == 0 :
					    m->msg.rows.rows[r].label.len == LABEL_BYTES && memcmp(m->msg.rows.rows[r].label.bytes, want, 12) == 0);
				}
			}
			if (m->msg.type == WIRE_REFUSE)
				snprintf(s->last_refusal, sizeof(s->last_refusal), "%s", m->msg.refuse.field);
			s->inbox[s->n_inbox++] = *m;
			m->memory[0] = m->memory[1] = NULL;	/* the inbox owns them now: done_with() */
		}
		for (size_t i = 0; i < out->n_ops; i++) {
			struct held_op *h = calloc(1, sizeof(*h));

			h->op = out->ops[i];
			out->ops[i] = NULL;
			*s->last = h;
			s->last = &h->next;
		}
		core_clear(s->core);
		if (!s->hold_commits && s->first != NULL) {
			for (struct held_op *h; (h = s->first) != NULL; free(h)) {
				CHECK(h->op->no == s->durable + 1);
				s->durable = h->op->no;
				apply(s, h->op);
				core_op_free(&h->op);
				s->first = h->next;
			}
			s->last = &s->first;
			core_durable(s->core, s->durable, s->now);
			more = true;
		}
	}
}

/* Takes the oldest message for a peer that may be sent by now; the caller owns its arrays (done_with). */
struct core_message
take(struct sim *s, uint64_t peer, enum wire_type type)
{
	for (size_t i = 0; i < s->n_inbox; i++)
		if (s->inbox[i].peer == peer && s->inbox[i].after <= s->durable && (type == WIRE_NONE || s->inbox[i].msg.type == type)) {
			struct core_message m = s->inbox[i];

			memmove(&s->inbox[i], &s->inbox[i + 1], (--s->n_inbox - i) * sizeof(m));
			return m;
		}
	return (struct core_message){.msg.type = WIRE_NONE};
}

void
done_with(struct core_message *m)
{
	free(m->memory[0]);
	free(m->memory[1]);
}

const struct hash128 teacher = {10, 10};
static const struct hash128 early = {11, 11};

void
sim_config(struct sim *s, uint32_t shard, uint32_t n_shards, bool two_models)
{
	memset(s, 0, sizeof(*s));
	s->last = &s->first;
	s->key = "";
	s->now = 1000;
	s->ask = (struct core_store){s, ask_label, ask_scores, ask_rows_count, ask_rows, ask_plan, ask_plans, ask_label_next, ask_tokens, ask_n_results, ask_check_label};
	s->cfg = (struct core_config){
		.boot_id = {9, 9}, .shard = shard, .n_shards = n_shards, .max_message = 1 << 16, .lease_rows = 4, .lease_ms = 1000, .n_valid = 100,
		.record_max = 200, .quarantine_teachers = 3, .max_quarantined = 1,
		.corpus = {true, {true, {1, 1}}, L, WINDOWS, {true, {2, 2}}, 100},
		.label_set = {true, {true, {3, 3}}, {true, teacher}, "fp32/x", LABELS_KIND_SAMPLED, 8, 1.0f, 7, 1},
		.score_set = {true, {true, {4, 4}}, {true, two_models ? early : teacher}, "fp32/x", 1},
	};
}

void
sim_start(struct sim *s)
{
	struct err_note note;

	REQUIRE(core_new(&s->core, &s->cfg, &s->ask, &note) == 0);
	s->durable = 0;
	for (size_t i = 0; i < WINDOWS; i++)
		if (s->attempts[i].n_dead > 0 || s->attempts[i].n_errors > 0)
			CHECK(core_load_attempts(s->core, &s->attempts[i]) == 0);
	for (size_t i = 0; i < s->n_quarantine; i++)
		CHECK(core_load_quarantine(s->core, &s->quarantine[i]) == 0);
}

/* The process ends, and what was not committed is lost. */
void
sim_stop(struct sim *s)
{
	for (size_t i = 0; i < s->n_inbox; i++)
		done_with(&s->inbox[i]);
	s->n_inbox = 0;
	for (struct held_op *h; (h = s->first) != NULL; free(h)) {
		s->first = h->next;
		core_op_free(&h->op);
	}
	s->last = &s->first;
	core_destroy(&s->core);
}

void
sim_end(struct sim *s)
{
	sim_stop(s);
	for (size_t i = 0; i < s->n_blocks; i++)
		free(s->blocks[i].rows);
	free(s);
}

struct sim *
sim_new(void)
{
	struct sim *s = calloc(1, sizeof(*s));

	REQUIRE(s != NULL);
	sim_config(s, 0, 1, false);
	return s;
}

void
say(struct sim *s, uint64_t peer, const struct wire_message *m)
{
	struct wire_message *heard = NULL;
	uint8_t *frame;
	size_t len;

	if (m->type == WIRE_RESULT) {		/* decoded, as from the network: the core keeps its memory */
		CHECK(wire_encode(m, SIZE_MAX, &frame, &len, NULL) == 0);
		CHECK(wire_decode(frame, len, &heard, NULL) == 0);
		free(frame);
	}
	if (s->before != NULL)
		s->before();
	core_message(s->core, peer, s->key, heard != NULL ? heard : m, s->now);
	if (s->after != NULL)
		s->after();
	wire_message_destroy(&heard);
	pump(s);
}

void
pass(struct sim *s, int64_t ms)
{
	s->now += ms;
	core_tick(s->core, s->now);
	pump(s);
}

void
hello_teacher(struct sim *s, uint64_t peer, uint64_t boot)
{
	struct wire_message m = {.type = WIRE_HELLO, .hello = {.protocol_version = 1, .role = WIRE_ROLE_TEACHER, .boot_id = {boot, 0}, .name = "t",
	    .max_message = 1 << 16, .n_models = 2}};

	m.hello.models[0] = (struct wire_model){teacher, "fp32/x", true, true, 128, 1024, {true, {2, 2}}};
	snprintf(m.hello.name, sizeof(m.hello.name), "t%u", (unsigned)boot);
	m.hello.models[1] = (struct wire_model){early, "fp32/x", true, true, 128, 1024, {true, {2, 2}}};
	say(s, peer, &m);
}

void
credit(struct sim *s, uint64_t peer, uint32_t n)
{
	say(s, peer, &(struct wire_message){.type = WIRE_LEASE_REQUEST, .lease_request = {n}});
}

struct wire_plan
plan_of(uint32_t seed, enum wire_mode mode, uint64_t n_rows)
{
	return (struct wire_plan){.present = true, .seed = seed, .batch = 4, .mode = mode, .k = 10, .window = 8, .keep = 0.5, .n_rows = n_rows,
	    .label_ahead_rows = UINT64_MAX};
}

struct hash128
hello_trainer(struct sim *s, uint64_t peer, const struct wire_plan *plan)
{
	struct wire_message m = {.type = WIRE_HELLO, .hello = {.protocol_version = 1, .role = WIRE_ROLE_TRAINER, .boot_id = {peer, 77}, .name = "r",
	    .max_message = 1 << 16, .corpus = s->cfg.corpus, .plan = *plan}};
	struct core_message w;

	say(s, peer, &m);
	w = take(s, peer, WIRE_WELCOME);
	REQUIRE(w.msg.type == WIRE_WELCOME);
	CHECK(w.msg.welcome.plan_hash.known);
	return w.msg.welcome.plan_hash.hash;
}

/* Sends results for all sequences of a lease except `not` (UINT64_MAX: no exception). */
void
work(struct sim *s, uint64_t peer, const struct core_message *lease, uint64_t not)
{
	const struct wire_lease *l = &lease->msg.lease;
	struct wire_result_row rows[64] = {0};
	uint8_t scores[64][3 * L], label[64][LABEL_BYTES];
	struct wire_message m = {.type = WIRE_RESULT, .result = {l->lease_id, rows, 0}};

	for (size_t i = 0; i < l->n_seqs; i++) {
		size_t n = m.result.n_rows;

		if (l->seqs[i] == not)
			continue;
		rows[n].seq = l->seqs[i];
		if (l->want_score) {
			make_score(l->seqs[i], scores[n]);
			rows[n].scores = (struct wire_bytes){scores[n], 3 * L};
		}
		if (l->want_label) {
			make_label(l->seqs[i], label[n]);
			rows[n].label = (struct wire_bytes){label[n], LABEL_BYTES};
		}
		m.result.n_rows++;
	}
	if (m.result.n_rows > 0)
		say(s, peer, &m);
}

void
report(struct sim *s, uint64_t peer, uint64_t lease_id, uint64_t seq)
{
	struct wire_result_row row = {.seq = seq, .error = "logits are not finite"};

	say(s, peer, &(struct wire_message){.type = WIRE_RESULT, .result = {lease_id, &row, 1}});
}

static void
count_lease(struct sim *s, const struct wire_lease *l)
{
	s->n_both_asked += l->want_score && l->want_label ? l->n_seqs : 0;
	s->n_scores_asked += l->want_score ? l->n_seqs : 0;
	s->n_labels_asked += l->want_label ? l->n_seqs : 0;
}

/* Teachers peers[0..n) work until nothing is leased any more. take() returns a DONE only if it is durable. */
void
work_all(struct sim *s, const uint64_t *peers, size_t n)
{
	for (bool any = true; any;) {
		any = false;
		for (size_t i = 0; i < n; i++) {
			struct core_message m;

			credit(s, peers[i], 2);
			while ((m = take(s, peers[i], WIRE_LEASE)).msg.type == WIRE_LEASE) {
				count_lease(s, &m.msg.lease);
				work(s, peers[i], &m, UINT64_MAX);
				done_with(&m);
				any = true;
			}
			while ((m = take(s, peers[i], WIRE_DONE)).msg.type == WIRE_DONE)
				done_with(&m);
		}
		pass(s, 10);
	}
}

/* Requests rows [first, first + count) and checks them, from one or more answers. Returns their number. */
size_t
fetch(struct sim *s, uint64_t peer, struct hash128 plan, uint64_t first, uint32_t count, uint64_t *seqs, bool *quarantined)
{
	size_t n = 0;

	while (n < count) {
		struct core_message m;

		say(s, peer, &(struct wire_message){.type = WIRE_ROWS_REQUEST, .rows_request = {5, plan, first + n, (uint32_t)(count - n), 0}});
		if ((m = take(s, peer, WIRE_ROWS)).msg.type != WIRE_ROWS)
			break;
		CHECK(m.msg.rows.first_row == first + n && m.msg.rows.n_rows >= 1 && m.msg.rows.n_rows <= count - n);
		for (size_t i = 0; i < m.msg.rows.n_rows && n < count; i++, n++) {
			seqs[n] = m.msg.rows.rows[i].seq;
			if (quarantined != NULL)
				quarantined[n] = m.msg.rows.rows[i].quarantined;
		}
		done_with(&m);
	}
	return n;
}

const struct blend *reference_order;

static uint64_t
seq_at(const struct wire_plan *plan, uint64_t p)
{
	return reference_order != NULL ? blend_order(reference_order, plan->seed, p) : shuffle_order(plan->seed, WINDOWS, p);
}

/*
 * Number of rows of part i in a block whose parts are chosen separately: as many as part i has among the next
 * K positions of the order, but at most those in the block; the first parts get the rest.
 */
static uint64_t
rows_of_part(uint64_t block, uint64_t W, uint64_t K, size_t i)
{
	uint64_t n[8] = {0}, has[8] = {0}, left = K;
	size_t n_parts = blend_n_parts(reference_order);

	for (uint64_t p = block * K; p < (block + 1) * K; p++)
		n[blend_part_at(reference_order, p)]++;
	for (uint64_t p = block * W; p < (block + 1) * W; p++)
		has[blend_part_at(reference_order, p)]++;
	for (size_t j = 0; j < n_parts; j++)
		left -= n[j] = n[j] < has[j] ? n[j] : has[j];
	for (size_t j = 0; j < n_parts; j++)
		for (; left > 0 && n[j] < has[j]; left--)
			n[j]++;
	return n[i];
}

/* The rows by definition: row g is the (g mod K)-th chosen of block g div K. bad: never chosen. */
void
reference(const struct wire_plan *plan, uint64_t n_rows, uint64_t bad, uint64_t *out)
{
	uint64_t W = plan->pool > 0 ? plan->pool : plan->window, K = plan->mode == WIRE_MODE_NONE ? W : W / 2;

	for (uint64_t g = 0; g < n_rows; g++) {
		uint64_t block = g / K, kept = 0;
		double S[64];

		for (uint64_t i = 0; i < W; i++) {
			uint64_t seq = seq_at(plan, block * W + i);
			float loss[L], masked[L];
			uint8_t bytes[3 * L], rank[L];

			make_score(seq, bytes);
			labels_scores_decode(bytes, sizeof(bytes), L, loss, rank, NULL);
			for (int t = 0; t < L; t++)
				masked[t] = rank[t] < plan->k ? loss[t] : 0;
			for (int a = 0; a < L; a++)
				for (int b = a + 1; b < L; b++)
					if (masked[b] < masked[a]) {
						float x = masked[a];

						masked[a] = masked[b];
						masked[b] = x;
					}
			S[i] = seq == bad ? -1 : masked[L / 2];
		}
		for (uint64_t i = 0; i < W; i++) {
			uint64_t better = 0, most = K;
			size_t part = plan->by_part ? blend_part_at(reference_order, block * W + i) : 0;

			if (plan->by_part)
				most = rows_of_part(block, W, K, part);
			for (uint64_t j = 0; j < W; j++)
				if (!plan->by_part || blend_part_at(reference_order, block * W + j) == part)
					better += S[j] > S[i] || (S[j] == S[i] && j < i);
			if ((plan->mode == WIRE_MODE_NONE || better < most) && kept++ == g % K)
				out[g] = seq_at(plan, block * W + i);
		}
	}
}
