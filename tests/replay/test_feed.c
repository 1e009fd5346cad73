/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trainer's feed over the fake bus: tokens and labels of a step, quarantined and late rows, the switch by
 * margin, RELEASE, and rows that it must reject.
 */
#include "trainerd/feed.h"

#include <unistd.h>

#include "base/random/shuffle.h"
#include "check.h"
#include "data/labels/labels.h"
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "fabric/session/session.h"
#include "fabric/status/status.h"
#include "replay/fake_bus.h"
#include "replay/fake_selectord.h"

enum { L = 4, VOCAB = 32, MODEL_VOCAB = 40, BATCH = 4, STEPS = 4, SEED = 9 };

#define FAKE_PLAN .corpus = corpus, .fingerprint = fingerprint, .context = L, .vocab = VOCAB, .seed = SEED, .first_rows = BATCH

static char dir[] = "/tmp/salt_feed_XXXXXX";
static struct corpus *corpus;
static struct hash128 fingerprint;

struct fixture {
	struct bus *bus;
	struct config *config;
	struct status *status;
	struct feed *feed;
};

static void
begin(struct fixture *x, struct fake_selectord *s)
{
	static const char *const options[] = {"corpus.context=4", "trainer.batch=4", "trainer.lanes=1", "trainer.steps=4", "run.seed=9",
	    "selector.mode=none", "selector.endpoints=[tcp://127.0.0.1:1]", "labels.kind=topk", "labels.k=2", "phase_one.steps=4",
	    "phase_one.weight=0.6", "phase_one.late=hard"};
	struct feed_options o = {.corpus = corpus, .corpus_fingerprint = fingerprint, .vocab_size = MODEL_VOCAB, .n_ranks = 1,
	    .phase = {.total_steps = STEPS, .switch_step = PHASE_UNKNOWN, .margin_nats = 0.1, .weight = 0.6f}, .name = "trainerd-0",
	    .status_endpoint = ""};
	struct err_note note = {.name = ""};
	char text[1024];
	int rc;

	fake_bus_reset(1000000, fake_selectord_script, s);
	rc = config_load(NULL, options, sizeof(options) / sizeof(options[0]), &x->config, &note);
	if (rc != 0)
		fprintf(stderr, "%s\n", err_note_str(&note, rc, text, sizeof(text)));
	REQUIRE(rc == 0 && bus_new(&x->bus, &(struct bus_options){0}, NULL) == 0);
	REQUIRE((x->status = status_new("trainerd", "trainerd-0", "test", 0)) != NULL);
	o.bus = x->bus;
	o.config = x->config;
	o.status = x->status;
	REQUIRE(feed_new(&x->feed, &o, NULL) == 0);
}

static void
end(struct fixture *x)
{
	feed_destroy(&x->feed);
	status_destroy(&x->status);
	bus_destroy(&x->bus);
	config_destroy(&x->config);
}

/* Calls feed_poll until its result is final. */
static int
wait_for(struct feed *f, uint64_t step, struct err_note *note)
{
	int rc = ERR_AGAIN;

	for (int i = 0; i < 500 && (rc = feed_poll(f, step, note)) == ERR_AGAIN; i++)
		feed_wait(f, 10);
	return rc;
}

/* Checks that each row of a step has the tokens of its position in the shuffle order. */
static void
check_tokens(const struct feed_rows *rows, uint64_t step)
{
	for (uint64_t i = 0; i < BATCH; i++) {
		int32_t tokens[L + 1];

		REQUIRE(corpus_window(corpus, shuffle_order(SEED, corpus_n_windows(corpus, L), step * BATCH + i), L, tokens, NULL) == 0);
		CHECK(memcmp(rows->rows.tokens + i * (L + 1), tokens, sizeof(tokens)) == 0);
	}
}

/* Checks that row i has the label for its number, and weight 0.6. */
static void
check_label(const struct step_rows *rows, uint64_t step, uint64_t i)
{
	uint64_t row = step * BATCH + i;

	CHECK(rows->weight[i] == 0.6f);
	for (uint64_t t = i * L; t < (i + 1) * L; t++) {
		/* index of the more probable id */
		int64_t at = rows->offsets[t], low = row % VOCAB == VOCAB - 1 ? 1 : 0;

		CHECK(rows->offsets[t + 1] - at == 2);
		CHECK(rows->ids[at + low] == (int32_t)(row % VOCAB) && fabsf(rows->values[at + low] - 0.75f) < 1e-3f);
		CHECK(rows->ids[at + 1 - low] == (int32_t)((row + 1) % VOCAB) && fabsf(rows->values[at + 1 - low] - 0.25f) < 1e-3f);
	}
}

/* Checks that row i has no label: weight 0 and no entries. */
static void
check_plain(const struct step_rows *rows, uint64_t i)
{
	CHECK(rows->weight[i] == 0 && rows->offsets[(i + 1) * L] == rows->offsets[i * L]);
}

/* A quarantined row in step 0, a late one in step 1; the switch before step 2, and RELEASE. */
static void
a_run(void)
{
	struct fake_selectord s = {FAKE_PLAN, .quarantined = 1, .withheld = BATCH + 2, .other_seq = -1, .other_label = -1};
	struct err_note note;
	struct feed_rows rows;
	struct fixture x;

	begin(&x, &s);
	REQUIRE(wait_for(x.feed, 0, &note) == 0 && feed_take(x.feed, 0, &rows) == 0);
	check_tokens(&rows, 0);
	check_label(&rows.rows, 0, 0);
	check_plain(&rows.rows, 1);
	check_label(&rows.rows, 0, 2);
	check_label(&rows.rows, 0, 3);
	CHECK(rows.rows.n_rows == BATCH && rows.quarantined_rows == 1 && rows.late_rows == 0 && rows.label_bytes == s.label_bytes);
	CHECK(feed_view(x.feed).teacher_nats == 2.5 && feed_view(x.feed).has_sets && !feed_view(x.feed).released);
	CHECK(hash_equal(feed_view(x.feed).sets.teacher, (struct hash128){5, 6}));
	feed_done(x.feed, 0);
	/* fetched ahead, as steps of phase one so far */
	CHECK(wait_for(x.feed, 2, &note) == 0 && wait_for(x.feed, 3, &note) == 0);
	CHECK(feed_poll(x.feed, 1, &note) == ERR_AGAIN && feed_view(x.feed).ahead == 0);
	CHECK(feed_late(x.feed, 1));
	REQUIRE(feed_take(x.feed, 1, &rows) == 0);
	check_tokens(&rows, 1);
	check_label(&rows.rows, 1, 1);
	check_plain(&rows.rows, 2);
	CHECK(rows.late_rows == 1 && rows.quarantined_rows == 0);
	feed_done(x.feed, 1);
	feed_switch(x.feed, 2);
	feed_release(x.feed, 2);
	for (uint64_t step = 2; step < STEPS; step++) {
		REQUIRE(wait_for(x.feed, step, &note) == 0 && feed_take(x.feed, step, &rows) == 0);
		check_tokens(&rows, step);
		CHECK(rows.rows.weight == NULL && rows.rows.offsets == NULL && rows.late_rows == 0 && rows.label_bytes == 0);
		feed_done(x.feed, step);
	}
	for (int i = 0; i < 500 && !feed_view(x.feed).released; i++)
		feed_wait(x.feed, 10);
	CHECK(feed_view(x.feed).released);
	end(&x);
	CHECK(s.n_release == 1);
}

static void
rejected(void)
{
	struct fake_selectord s[] = {{FAKE_PLAN, .quarantined = -1, .withheld = -1, .other_seq = 2, .other_label = -1},
	    {FAKE_PLAN, .quarantined = -1, .withheld = -1, .other_seq = -1, .other_label = 2}};
	static const char *const names[] = {"row 2 of the plan", ""};

	for (size_t i = 0; i < 2; i++) {
		struct err_note note = {.name = ""};
		struct fixture x;

		begin(&x, &s[i]);
		CHECK(wait_for(x.feed, 0, &note) == ERR_MISMATCH);
		CHECK(names[i][0] == '\0' || strcmp(note.name, names[i]) == 0);
		end(&x);
	}
}

int
main(void)
{
	struct corpus_writer *w = NULL;
	char path[64];
	int32_t ids[200];

	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/train", dir);
	for (int i = 0; i < 200; i++)
		ids[i] = i * i % (VOCAB - 1);
	REQUIRE(corpus_writer_new(&w, path, &(struct corpus_writer_options){.vocab = VOCAB, .eod = VOCAB - 1}, NULL) == 0);
	REQUIRE(corpus_writer_document(w, ids, 200, 400, NULL) == 0 && corpus_writer_finish(w, NULL, NULL) == 0);
	corpus_writer_destroy(&w);
	REQUIRE(corpus_open(&corpus, path, NULL) == 0 && corpus_fingerprint(corpus, &fingerprint, NULL) == 0);
	a_run();
	rejected();
	corpus_destroy(&corpus);
	snprintf(path, sizeof(path), "rm -r %s", dir);
	CHECK(system(path) == 0);
	return check_done();
}
