/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mode file in selectord's core: scores from a file choose the same rows as equal scores from a teacher, and
 * a list is served unchanged.
 */
#include "core_sim.h"
#include "data/select/file.h"

static const uint64_t one_teacher[] = {1};

/* Makes a file of scores: S(x) of the score record that the teacher would make for each sequence. */
static void
file_of_scores(struct select_file *f, float score[WINDOWS])
{
	for (uint64_t i = 0; i < WINDOWS; i++) {
		float loss[L], scratch[L];
		uint8_t bytes[3 * L], rank[L];

		make_score(i, bytes);
		labels_scores_decode(bytes, sizeof(bytes), L, loss, rank, NULL);
		score[i] = (float)select_score(loss, rank, L, 10, scratch);
	}
	*f = (struct select_file){.n_windows = WINDOWS, .n = WINDOWS, .score = score, .hash = {21, 22}};
}

/* Makes a file with a list of n sequences, not in shuffle order. */
static void
file_of_list(struct select_file *f, uint64_t list[WINDOWS], uint64_t place[WINDOWS], uint64_t n)
{
	for (uint64_t i = 0; i < WINDOWS; i++)
		place[i] = UINT64_MAX;
	for (uint64_t i = 0; i < n; i++) {
		/* 7 and 50 are coprime, so each sequence comes once */
		list[i] = (7 * i + 3) % WINDOWS;
		place[list[i]] = i;
	}
	*f = (struct select_file){.n_windows = WINDOWS, .n = n, .list = list, .place = place, .hash = {23, n}};
}

static void
with_file(struct sim *s, const struct select_file *f)
{
	s->cfg.file = f;
	s->cfg.file_set = (struct wire_score_set){true, {true, {5, f->hash.lo}}, {true, f->hash}, "file", 1};
}

/* Fetches all rows of a plan from S shards with two models. Returns the number of labelled sequences. */
static size_t
rows_of(const struct select_file *f, const struct wire_plan *plan, uint32_t S, uint64_t K, uint64_t *out, const char *what)
{
	struct sim *shard[4];
	struct hash128 hash = {0};
	size_t n_labels = 0;

	for (uint32_t i = 0; i < S; i++) {
		shard[i] = calloc(1, sizeof(struct sim));
		sim_config(shard[i], i, S, true);
		with_file(shard[i], f);
		sim_start(shard[i]);
		hello_teacher(shard[i], 1, 1);
		hash = hello_trainer(shard[i], 50, plan);
		work_all(shard[i], one_teacher, 1);
	}
	for (uint64_t g = 0; g < plan->n_rows; g++)
		CHECK_ROW(what, fetch(shard[g / K % S], 50, hash, g, 1, out + g, NULL) == 1);
	for (uint32_t i = 0; i < S; i++) {
		CHECK_ROW(what, shard[i]->n_scores_asked == 0);
		n_labels += shard[i]->n_labels_asked;
		sim_end(shard[i]);
	}
	return n_labels;
}

static void
test_scores(void)
{
	float score[WINDOWS];
	struct select_file f;

	file_of_scores(&f, score);
	for (uint32_t S = 1; S <= 4; S *= 2)
		for (int pool = 0; pool < 2; pool++) {
			struct wire_plan chosen = plan_of(3, WIRE_MODE_SALT_DS, 24), plan = plan_of(3, WIRE_MODE_FILE, 24);
			const char *what = pool ? "scores, a pool" : "scores, blocks";
			uint64_t want[24], got[24];

			chosen.pool = plan.pool = pool ? 48 : 0;
			reference(&chosen, 24, UINT64_MAX, want);
			CHECK_ROW(what, rows_of(&f, &plan, S, pool ? 24 : 4, got, what) == 24);
			CHECK_ROW(what, memcmp(want, got, sizeof(want)) == 0);
		}
}

static void
test_list(void)
{
	static const uint64_t lengths[] = {30, 29, 6, 2};
	uint64_t list[WINDOWS], place[WINDOWS], got[WINDOWS];
	struct select_file f;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		for (uint32_t S = 1; S <= 4; S *= 2) {
			uint64_t n = lengths[i];
			struct wire_plan plan = plan_of(3, WIRE_MODE_FILE, n);

			file_of_list(&f, list, place, n);
			/* a block beyond the end starts the list again, maybe at another shard */
			CHECK_ROW("list", rows_of(&f, &plan, S, 4, got, "list") >= n);
			CHECK_ROW("list", memcmp(list, got, n * sizeof(*list)) == 0);
		}
}

static void
refused(struct sim *s, const struct wire_plan *plan, const char *with)
{
	struct wire_message m = {.type = WIRE_HELLO, .hello = {.protocol_version = 1, .role = WIRE_ROLE_TRAINER, .boot_id = {60, 77}, .name = "r",
	    .max_message = 1 << 16, .corpus = s->cfg.corpus, .plan = *plan}};
	struct core_message r;

	say(s, 60, &m);
	r = take(s, 60, WIRE_REFUSE);
	CHECK_ROW(with, r.msg.type == WIRE_REFUSE && r.msg.refuse.retry_ms == 0 && strncmp(r.msg.refuse.field, with, strlen(with)) == 0);
}

static void
test_refused(void)
{
	uint64_t list[WINDOWS], place[WINDOWS], seqs[24];
	struct wire_plan plan = plan_of(3, WIRE_MODE_FILE, 24), longer = plan, known = plan;
	float score[WINDOWS];
	struct select_file f;
	struct sim *s = sim_new();

	sim_start(s);
	refused(s, &plan, "selector.mode");
	sim_end(s);

	s = sim_new();
	file_of_list(&f, list, place, 24);
	with_file(s, &f);
	sim_start(s);
	hello_trainer(s, 50, &plan);
	longer.n_rows = 25;
	refused(s, &longer, "selector.file");
	known.hash = (struct wire_id){true, {1, 2}};	/* the hash of another file */
	refused(s, &known, "plan.hash");
	sim_end(s);

	s = sim_new();
	file_of_scores(&f, score);
	plan.pool = 48;
	plan.n_rows = 24;
	reference(&(struct wire_plan){.seed = 3, .mode = WIRE_MODE_NONE, .window = 48}, 24, UINT64_MAX, seqs);
	score[seqs[5]] = NAN;
	f.n--;
	with_file(s, &f);
	sim_start(s);
	refused(s, &plan, "selector.file");
	sim_end(s);
}

static struct wire_dropped
drop(struct sim *s, uint64_t id)
{
	struct core_message m = {.msg = {.type = WIRE_NONE}};

	say(s, 70, &(struct wire_message){.type = WIRE_HELLO, .hello = {.protocol_version = 1, .role = WIRE_ROLE_CLIENT, .boot_id = {70, 5}, .name = "c",
	    .max_message = 1 << 16, .corpus = s->cfg.corpus}});
	CHECK(take(s, 70, WIRE_WELCOME).msg.type == WIRE_WELCOME);
	say(s, 70, &(struct wire_message){.type = WIRE_DROP_LABELS, .drop_labels = {id, false}});
	for (int i = 0; i < 100 && m.msg.type != WIRE_DROPPED; i++, pass(s, 1))
		m = take(s, 70, WIRE_DROPPED);
	REQUIRE(m.msg.type == WIRE_DROPPED);
	return m.msg.dropped;
}

/* Labels that a list needs are kept; while no peer has opened the list's plan, all labels are kept. */
static void
test_drop(void)
{
	struct wire_plan plan = plan_of(3, WIRE_MODE_FILE, 12), all = plan_of(4, WIRE_MODE_NONE, WINDOWS);
	uint64_t list[WINDOWS], place[WINDOWS];
	struct sim *s = sim_new();
	struct hash128 hash;
	struct select_file f;
	struct wire_dropped d;

	file_of_list(&f, list, place, 12);
	with_file(s, &f);
	sim_start(s);
	hello_teacher(s, 1, 1);
	hello_trainer(s, 50, &plan);
	hash = hello_trainer(s, 51, &all);
	work_all(s, one_teacher, 1);
	for (int i = 0; i < WINDOWS; i++)
		CHECK(s->has_label[i]);
	say(s, 51, &(struct wire_message){.type = WIRE_CHECKPOINTED, .checkpointed = {1, hash, 1000}});
	sim_stop(s);
	/* no peer has opened the list's plan, so its needs are not known */
	sim_start(s);
	d = drop(s, 1);
	CHECK(d.labels == 0 && d.kept == WINDOWS);
	hello_trainer(s, 50, &plan);
	d = drop(s, 2);
	CHECK(d.labels == WINDOWS - 12 && d.kept == 12);
	for (int i = 0; i < 12; i++)
		CHECK(s->has_label[list[i]]);
	sim_end(s);
}

int
main(void)
{
	test_scores();
	test_list();
	test_refused();
	test_drop();
	return check_done();
}
