/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_feed FLEET same [KEY=VALUE ...]
 *     compares a trainer with libsaltfleet with trainerd's own feed, on the same selectord: tokens, labels,
 *     weights and bytes of every step are equal bit for bit, as a whole and in the ranges of 1, 2 and 4
 *     processes. PAUSE=STEP in the environment: before this step it prints "paused" and waits until the file
 *     "go" exists.
 * client_feed FLEET rows FIRST [KEY=VALUE ...]
 *     the library alone: prints a line "row STEP WINDOW HASH-OF-RECORD" for each row of the steps from FIRST
 *     on, with "-" for quarantined rows and rows of phase two.
 *
 * Exit code: 0, or that of an error of the library, whose name, exit code and text are printed to stderr.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "base/clock/clock.h"
#include "client/saltfleet.h"
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "fabric/status/status.h"
#include "tests/check.h"
#include "trainerd/feed.h"

enum { WAIT_MS = 60000 };

static int
failed(const struct salt_error *e)
{
	fprintf(stderr, "%s %d %s\n", salt_code_name(e->code), e->exit_code, e->text);
	return e->exit_code;
}

/* The objects that trainerd's feed needs. */
struct ground {
	struct corpus *corpus, *heldout;
	struct bus *bus;
	struct status *status;
};

static struct feed *
open_feed(const struct config *cfg, struct ground *g)
{
	struct feed_options o = {.config = cfg, .n_ranks = 1, .name = "trainerd-0", .status_endpoint = "",
	    .phase = {.total_steps = cfg->trainer.steps, .switch_step = cfg->phase_one.steps, .margin_nats = NAN,
	    .weight = (float)cfg->phase_one.weight, .handover = (enum phase_handover)cfg->phase_one.handover,
	    .handover_steps = cfg->phase_one.handover_steps}};
	struct feed *feed;

	REQUIRE(corpus_open(&g->corpus, cfg->corpus.train, NULL) == 0 && corpus_open(&g->heldout, cfg->corpus.heldout, NULL) == 0);
	corpus_set_number(g->heldout, CORPUS_HELDOUT);
	REQUIRE(corpus_fingerprint(g->corpus, &o.corpus_fingerprint, NULL) == 0);
	REQUIRE(corpus_fingerprint(g->heldout, &o.heldout_fingerprint, NULL) == 0);
	REQUIRE(bus_new(&g->bus, &(struct bus_options){.max_message = cfg->bus.max_message}, NULL) == 0);
	REQUIRE((g->status = status_new("trainerd", "trainerd-0", "test", clock_now_ms())) != NULL);
	o.corpus = g->corpus;
	o.heldout = g->heldout;
	o.vocab_size = corpus_info(g->corpus)->vocab;
	o.bus = g->bus;
	o.status = g->status;
	REQUIRE(feed_new(&feed, &o, NULL) == 0);
	return feed;
}

static bool
equal(const void *a, const void *b, size_t n)
{
	return (a == NULL) == (b == NULL) && (a == NULL || memcmp(a, b, n) == 0);
}

/* Compares rows [first, first + n) of the step from the library with those of the feed. */
static void
compare(struct salt *s, const struct feed_rows *f, uint64_t step, uint64_t first, uint64_t n, uint32_t L)
{
	const struct step_rows *want = &f->rows;
	struct salt_rows *r = NULL;
	struct salt_error e;

	if (salt_rows(s, step, first, n, WAIT_MS, &r, &e) != 0)
		exit(failed(&e));
	CHECK(equal(r->tokens, want->tokens + first * (L + 1), n * (L + 1) * sizeof(int32_t)));
	CHECK(r->phase == (want->weight != NULL ? 1 : 2));
	if (want->weight != NULL)
		CHECK(equal(r->kd_weight, want->weight + first, n * sizeof(float)));
	if (want->offsets != NULL) {
		int64_t begin = want->offsets[first * L], entries = want->offsets[(first + n) * L] - begin;

		REQUIRE(r->offsets != NULL);
		for (uint64_t p = 0; p <= n * L; p++)
			CHECK(r->offsets[p] == want->offsets[first * L + p] - begin);
		CHECK(equal(r->ids, want->ids + begin, (size_t)entries * sizeof(int32_t)));
		CHECK(equal(r->weights, want->values + begin, (size_t)entries * sizeof(float)));
	}
	if (want->dense != NULL)
		CHECK(equal(r->dense, want->dense + first * L * r->vocab, n * L * r->vocab * sizeof(float)));
	CHECK((r->offsets == NULL) == (want->offsets == NULL) && (r->dense == NULL) == (want->dense == NULL));
	CHECK(n < (uint64_t)want->n_rows || r->label_bytes == f->label_bytes);
	salt_rows_free(&r);
}

/* The status socket of this process answers like that of a daemon; all shards accept a second client. */
static void
seen(struct salt *s, const struct salt_options *trainer)
{
	struct salt_options o = {.size = sizeof(o), .role = SALT_CLIENT, .config = trainer->config, .overrides = trainer->overrides,
	    .n_overrides = trainer->n_overrides};
	struct salt_view v = {.size = sizeof(v)};
	struct salt_error e;
	struct salt *other;
	char *json = NULL;

	REQUIRE(salt_view(s, &v, &e) == 0);
	CHECK_ROW(e.text, salt_status(v.status_endpoint, WAIT_MS, &json, &e) == 0);
	CHECK(json != NULL && strstr(json, "\"role\":\"trainerd\",\"name\":\"trainer-0\"") != NULL && strstr(json, "\"phase\":\"one\"") != NULL);
	salt_free(json);
	CHECK(salt_status(v.status_endpoint, 0, &json, &e) == SALT_TIMEOUT && json == NULL);
	if (salt_open(&other, &o, &e) != 0)
		exit(failed(&e));
	for (int i = 0; i < WAIT_MS / 50 && (salt_view(other, &v, &e) != 0 || v.shards_welcomed < v.shards); i++)
		usleep(50000);
	CHECK(v.shards > 0 && v.shards_welcomed == v.shards && v.waiting[0] == '\0' && v.status_endpoint[0] == '\0');
	salt_close(&other);
}

static int
same(struct salt *s, const struct salt_options *o, const struct config *cfg)
{
	const char *pause = getenv("PAUSE");
	struct ground g;
	struct feed *feed = open_feed(cfg, &g);
	uint64_t batch = cfg->trainer.batch;

	for (uint64_t step = 0; step < cfg->trainer.steps; step++) {
		struct err_note note = {.name = ""};
		struct feed_rows rows;
		int rc;

		if (pause != NULL && step == strtoull(pause, NULL, 10)) {
			puts("paused");
			fflush(stdout);
			while (access("go", F_OK) != 0)
				usleep(20000);
		}
		for (int64_t end = clock_now_ms() + WAIT_MS; (rc = feed_poll(feed, step, &note)) == ERR_AGAIN && clock_now_ms() < end;)
			feed_wait(feed, 50);
		REQUIRE(rc == 0 && feed_take(feed, step, &rows) == 0);
		for (uint64_t world = 1; world <= 4; world *= 2)
			for (uint64_t rank = 0; rank < world; rank++)
				compare(s, &rows, step, rank * batch / world, batch / world, cfg->corpus.context);
		feed_done(feed, step);
		if (step == 0)
			seen(s, o);
	}
	feed_destroy(&feed);
	bus_destroy(&g.bus);
	status_destroy(&g.status);
	corpus_destroy(&g.corpus);
	corpus_destroy(&g.heldout);
	return check_done();
}

static int
rows(struct salt *s, uint64_t first)
{
	struct salt_plan p = {.size = sizeof(p)};
	struct salt_error e;

	if (salt_plan(s, &p, &e) != 0)
		return failed(&e);
	for (uint64_t step = first; step < p.steps; step++) {
		struct salt_rows *r;
		char hex[HASH_HEX_BYTES];

		if (salt_rows(s, step, 0, p.batch, getenv("WAIT_MS") != NULL ? atoi(getenv("WAIT_MS")) : WAIT_MS, &r, &e) != 0)
			return failed(&e);
		for (uint64_t i = 0; i < r->n; i++)
			printf("row %" PRIu64 " %" PRIu64 " %s\n", step, r->seqs[i], r->records == NULL || r->records[i] == NULL ? "-" :
			    hash_hex(hash_bytes(r->records[i], r->record_bytes[i]), hex));
		salt_rows_free(&r);
	}
	return 0;
}

int
main(int argc, char **argv)
{
	bool alone = argc > 3 && strcmp(argv[2], "rows") == 0;
	int options = alone ? 4 : 3, rc;
	struct salt_options o = {.size = sizeof(o), .role = SALT_TRAINER, .config = argv[1], .keep_records = 1, .threads = 2,
	    .overrides = (const char *const *)argv + options, .n_overrides = (size_t)(argc - options)};
	struct config *cfg = NULL;
	struct salt_error e;
	struct salt *s;

	if (getenv("VOCAB") != NULL)
		o.vocab = (uint32_t)atoi(getenv("VOCAB"));
	if (salt_open(&s, &o, &e) != 0)
		return failed(&e);
	REQUIRE(config_load(argv[1], o.overrides, o.n_overrides, &cfg, NULL) == 0);
	rc = alone ? rows(s, strtoull(argv[3], NULL, 10)) : same(s, &o, cfg);
	salt_close(&s);
	config_destroy(&cfg);
	return rc;
}
