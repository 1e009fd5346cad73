/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trainer with the library over the fake bus: tokens and labels of a step, ranges of rows, quarantined and
 * missing rows, timeouts, a lost connection, the switch by margin, CHECKPOINTED and RELEASE, rows that must
 * be rejected, forks, and two threads.
 */
#include <inttypes.h>
#include <pthread.h>
#include <sys/wait.h>

#include "base/random/shuffle.h"
#include "check.h"
#include "client/client_internal.h"
#include "replay/fake_selectord.h"

enum { L = 4, VOCAB = 32, STUDENT = 40, BATCH = 4, STEPS = 8, SEED = 9, SECOND = 1000 };

static char dir[] = "/tmp/salt_client_XXXXXX", yaml[64];
static struct corpus *corpus;
static struct fake_selectord plain;

/* A script in which no peer answers. */
static enum fake_step
nobody(void *arg, int step)
{
	(void)arg;
	(void)step;
	return FAKE_AGAIN_WHEN_WOKEN;
}

/* Opens a trainer of a run whose phase one ends as phase_one says, with the selectord f (NULL: none). */
static struct salt *
begin(struct fake_selectord *f, const char *phase_one, const char *kind)
{
	const char *const overrides[] = {phase_one, kind};
	const struct salt_options o = {.size = sizeof(o), .role = SALT_TRAINER, .config = yaml, .overrides = overrides, .n_overrides = 2,
	    .vocab = STUDENT, .prefetch_steps = 2, .threads = 2, .keep_records = 1};
	struct salt_error e;
	struct salt *s;
	int rc;

	fake_bus_reset(1000000, f != NULL ? fake_selectord_script : nobody, f);
	if ((rc = salt_open(&s, &o, &e)) != 0)
		fprintf(stderr, "%s\n", e.text);
	REQUIRE(rc == 0);
	return s;
}

static struct salt_rows *
get(struct salt *s, uint64_t step, uint64_t first, uint64_t n)
{
	struct salt_rows *rows;
	struct salt_error e;
	int rc = salt_rows(s, step, first, n, 10 * SECOND, &rows, &e);

	if (rc != 0)
		fprintf(stderr, "%s\n", e.text);
	REQUIRE(rc == 0 && rows != NULL && e.code == 0);
	CHECK(rows->step == step && rows->first == first && rows->n == n && rows->context == L && rows->vocab == STUDENT);
	return rows;
}

/* Checks that each row has the tokens of its position in the shuffle order. */
static void
check_tokens(const struct salt_rows *r)
{
	for (uint64_t i = 0; i < r->n; i++) {
		uint64_t seq = shuffle_order(SEED, corpus_n_windows(corpus, L), r->step * BATCH + r->first + i);
		int32_t tokens[L + 1];

		REQUIRE(corpus_window(corpus, seq, L, tokens, NULL) == 0);
		CHECK(r->seqs[i] == seq && memcmp(r->tokens + i * (L + 1), tokens, sizeof(tokens)) == 0);
	}
}

/* Checks that row i has the label that the fake makes for its number in the plan, and this weight. */
static void
check_label(const struct salt_rows *r, uint64_t i, float weight)
{
	uint64_t row = r->step * BATCH + r->first + i;

	CHECK(r->kd_weight[i] == weight && !r->quarantined[i] && r->records[i] != NULL && r->record_bytes[i] > LABELS_OVERHEAD_BYTES);
	for (uint64_t p = i * L; p < (i + 1) * L; p++) {
		/* index of the more probable id */
		int64_t at = r->offsets[p], low = row % VOCAB == VOCAB - 1;

		CHECK(r->offsets[p + 1] - at == 2 && fabsf(r->tail[p]) < 1e-3f);
		CHECK(r->ids[at + low] == (int32_t)(row % VOCAB) && fabsf(r->weights[at + low] - 0.75f) < 1e-3f);
		CHECK(r->ids[at + 1 - low] == (int32_t)((row + 1) % VOCAB) && fabsf(r->weights[at + 1 - low] - 0.25f) < 1e-3f);
	}
}

static void
check_phase_two(const struct salt_rows *r)
{
	CHECK(r->phase == 2 && r->kind == SALT_NO_LABELS && r->offsets == NULL && r->dense == NULL && r->label_bytes == 0);
	for (uint64_t i = 0; i < r->n; i++)
		CHECK(r->kd_weight[i] == 0 && !r->quarantined[i]);
	check_tokens(r);
}

/* Both phases, a quarantined row, ranges; every step can be read again. */
static void
a_run(void)
{
	struct fake_selectord f = plain;
	struct salt *s;
	struct salt_view v = {.size = sizeof(v)};
	struct salt_rows *r;

	f.quarantined = 1;
	f.twice = true;
	s = begin(&f, "phase_one.steps=4", "labels.kind=topk");
	r = get(s, 0, 0, BATCH);
	check_tokens(r);
	CHECK(r->phase == 1 && r->kind == SALT_TOPK && r->max_entries == 2 && r->size == sizeof(*r) && r->label_bytes == r->record_bytes[0] * 3);
	for (uint64_t i = 0; i < BATCH; i++)
		if (i != 1)
			check_label(r, i, 0.6f);
	CHECK(r->kd_weight[1] == 0 && r->quarantined[1] && r->records[1] == NULL && r->offsets[2 * L] == r->offsets[L]);
	salt_rows_free(&r);
	CHECK(r == NULL);
	for (uint64_t step = 1; step < STEPS; step++) {
		r = get(s, step, 0, BATCH);
		if (step >= 4)
			check_phase_two(r);
		for (uint64_t i = 0; step < 4 && i < BATCH; i++)
			check_label(r, i, 0.6f);
		salt_rows_free(&r);
	}
	r = get(s, 2, 1, 2);			/* the same step again, with another range */
	check_tokens(r);
	check_label(r, 0, 0.6f);
	check_label(r, 1, 0.6f);
	salt_rows_free(&r);
	r = get(s, 7, 3, 1);
	check_phase_two(r);
	CHECK(salt_view(s, &v, NULL) == 0 && v.shards == 1 && v.shards_welcomed == 1 && v.teacher_nats == 2.5 && v.quarantined_rows == 1);
	CHECK(v.label_bytes > 0 && salt_kd_weight(s, 3) == 0.6f && salt_kd_weight(s, 4) == 0);
	salt_close(&s);
	CHECK(s == NULL);
	check_phase_two(r);			/* rows stay valid after salt_close */
	salt_rows_free(&r);
}

/* Dense labels are extended to the student's larger vocabulary. */
static void
dense(void)
{
	struct fake_selectord f = plain;
	struct salt *s = begin(&f, "phase_one.steps=4", "labels.kind=dense");
	struct salt_rows *r = get(s, 1, 0, BATCH);

	CHECK(r->kind == SALT_DENSE && r->offsets == NULL && r->ids == NULL && r->tail == NULL && r->dense != NULL);
	for (uint64_t p = 0; p < BATCH * L; p++)
		for (uint32_t v = 0; v < STUDENT; v++) {
			uint64_t row = BATCH + p / L;

			CHECK_NEAR(r->dense[p * STUDENT + v], v == row % VOCAB ? 0.75 : v == (row + 1) % VOCAB ? 0.25 : 0, 1e-3);
		}
	salt_rows_free(&r);
	salt_close(&s);
}

/* A missing row: timeouts, the view; it is requested again after 30 s and after a lost connection. */
static void
missing(void)
{
	struct fake_selectord f = plain;
	struct salt_view v = {.size = sizeof(v)};
	struct salt_rows *r;
	struct salt_error e;
	struct salt *s;

	f.withheld = BATCH + 2;
	s = begin(&f, "phase_one.steps=4", "labels.kind=topk");
	r = get(s, 0, 0, BATCH);
	salt_rows_free(&r);
	CHECK(salt_rows(s, 1, 0, BATCH, 0, &r, &e) == SALT_TIMEOUT && r == NULL && e.code == SALT_TIMEOUT && e.exit_code == 75);
	CHECK(salt_rows(s, 1, 0, BATCH, 20, &r, NULL) == SALT_TIMEOUT);
	r = get(s, 2, 0, BATCH);		/* the next step arrives */
	salt_rows_free(&r);
	CHECK(salt_rows(s, 1, 0, BATCH, 20, &r, &e) == SALT_TIMEOUT);
	CHECK(salt_view(s, &v, NULL) == 0);
	CHECK_STR(v.waiting, "row 6 of step 1 has no label yet");
	f.withheld = -1;
	f.skip_ms = 31 * SECOND;
	client__wake(s);
	r = get(s, 1, 0, BATCH);
	check_label(r, 2, 0.6f);
	salt_rows_free(&r);
	f.withheld = 1;
	CHECK(salt_rows(s, 0, 0, BATCH, 20, &r, &e) == SALT_TIMEOUT);		/* an earlier step */
	f.withheld = -1;
	f.reconnect = true;
	client__wake(s);
	r = get(s, 0, 0, BATCH);
	check_label(r, 1, 0.6f);
	salt_rows_free(&r);
	CHECK(f.n_hello == 2);
	salt_close(&s);
}

/* The switch by margin, decided after rows of later steps have arrived; CHECKPOINTED and RELEASE. */
static void
margin(void)
{
	struct fake_selectord f = plain;
	struct salt *s = begin(&f, "phase_one.until_margin=0.1", "labels.kind=topk");
	struct salt_plan p = {.size = sizeof(p)};
	struct salt_view v = {.size = sizeof(v)};
	struct salt_rows *r;
	struct salt_error e;

	r = get(s, 0, 0, BATCH);
	salt_rows_free(&r);
	r = get(s, 1, 0, BATCH);
	salt_rows_free(&r);
	CHECK(salt_plan(s, &p, &e) == 0 && p.switch_step == SALT_UNKNOWN && p.margin_nats == 0.1 && p.steps == STEPS && p.batch == BATCH);
	CHECK(salt_release(s, 2, &e) == SALT_RANGE);
	CHECK(salt_checkpointed(s, STEPS + 1, &e) == SALT_RANGE);
	CHECK(salt_checkpointed(s, 1, &e) == 0 && salt_flush(s, 10 * SECOND, &e) == 0 && f.checkpointed == 1);
	CHECK(salt_switch(s, 2, &e) == 0 && salt_plan(s, &p, &e) == 0 && p.switch_step == 2);
	for (uint64_t step = 2; step < STEPS; step++) {
		r = get(s, step, 0, BATCH);
		check_phase_two(r);
		salt_rows_free(&r);
	}
	CHECK(salt_checkpointed(s, STEPS, &e) == 0 && salt_release(s, 2, &e) == 0 && salt_flush(s, 10 * SECOND, &e) == 0);
	CHECK(f.n_release == 1 && f.checkpointed == 2 && salt_view(s, &v, NULL) == 0 && v.released && v.checkpointed == 2 && v.waiting[0] == '\0');
	salt_close(&s);
}

/* One of the fake's answers is wrong: the error is final for phase one; phase two is not affected. */
static void
rejected(struct fake_selectord f, int code, int exit_code, const char *says)
{
	struct salt *s = begin(&f, "phase_one.steps=4", "labels.kind=topk");
	struct salt_view v = {.size = sizeof(v)};
	struct salt_rows *r;
	struct salt_error e;

	for (uint64_t step = 0; step < 2; step++) {
		CHECK(salt_rows(s, step, 0, BATCH, 10 * SECOND, &r, &e) == code && e.code == code && e.exit_code == exit_code && r == NULL);
		CHECK_ROW(e.text, strstr(e.text, says) != NULL);
	}
	CHECK(salt_view(s, &v, NULL) == 0 && strstr(v.waiting, says) != NULL);
	r = get(s, 4, 0, BATCH);
	check_phase_two(r);
	salt_rows_free(&r);
	CHECK(salt_checkpointed(s, 1, &e) == 0 && salt_flush(s, 10 * SECOND, &e) == (f.refuse > 0 ? code : 0));
	salt_close(&s);
}

/* Phase two and a run without phase one send no messages. */
static void
alone(void)
{
	static const char *const phases[] = {"phase_one.steps=4", "phase_one.steps=0"};

	for (size_t i = 0; i < 2; i++) {
		struct salt *s = begin(NULL, phases[i], "labels.kind=topk");
		struct salt_rows *r;

		r = get(s, i == 0 ? 4 : 0, 0, BATCH);
		check_phase_two(r);
		CHECK(!s->connect);
		if (i == 1)
			CHECK(salt_release(s, 0, NULL) == 0 && salt_checkpointed(s, 2, NULL) == 0 && salt_flush(s, 0, NULL) == 0 && !s->connect);
		salt_rows_free(&r);
		salt_close(&s);
		CHECK(fake_bus_n_sent() == 0);
	}
}

static void
arguments(void)
{
	struct fake_selectord f = plain;
	struct salt *s = begin(&f, "phase_one.steps=4", "labels.kind=topk");
	struct salt_rows *r;
	struct salt_error e;

	CHECK(salt_rows(s, STEPS, 0, 1, 0, &r, &e) == SALT_RANGE && strstr(e.text, "8") != NULL);
	CHECK(salt_rows(s, 0, 0, 0, 0, &r, &e) == SALT_RANGE && salt_rows(s, 0, BATCH, 1, 0, &r, &e) == SALT_RANGE);
	CHECK(salt_rows(s, 0, 1, BATCH, 0, &r, &e) == SALT_RANGE && salt_rows(s, 0, 1, UINT64_MAX, 0, &r, &e) == SALT_RANGE);
	CHECK(salt_switch(s, 3, &e) == SALT_RANGE && salt_switch(s, 4, &e) == 0);
	salt_close(&s);
	salt_close(&s);
	salt_rows_free(&r);
}

/*
 * A run's checkpoints have one label set and one corpus: a trainer that is opened in their run.dir is
 * rejected with others in phase one, and accepted with the same. A checkpoint before a label is known does
 * not fix the label set; one of rank 1 fixes nothing.
 */
static void
pinned(void)
{
	char run[64], path[96], other[96];
	const char *overrides[] = {run, "phase_one.steps=4", NULL};
	struct salt_options o = {.size = sizeof(o), .role = SALT_TRAINER, .config = yaml, .overrides = overrides, .n_overrides = 2, .vocab = STUDENT,
	    .rank = 1};
	struct fake_selectord f = plain, g = plain;
	struct salt_rows *r;
	struct salt_error e;
	struct salt *s;
	FILE *file;

	snprintf(run, sizeof(run), "run.dir=%s/run", dir);
	snprintf(path, sizeof(path), "%s/run/identities.json", dir);
	for (int rank = 1; rank >= 0; rank--) {
		o.rank = (uint32_t)rank;
		f = plain;
		fake_bus_reset(1000000, fake_selectord_script, &f);
		REQUIRE(salt_open(&s, &o, &e) == 0);
		CHECK(salt_checkpointed(s, 1, &e) == 0);
		r = get(s, 1, 0, BATCH);
		salt_rows_free(&r);
		CHECK(salt_checkpointed(s, 2, &e) == 0 && (access(path, F_OK) == 0) == (rank == 0));
		salt_close(&s);
	}
	f = plain;
	fake_bus_reset(1000000, fake_selectord_script, &f);
	REQUIRE(salt_open(&s, &o, &e) == 0);
	r = get(s, 2, 0, BATCH);
	salt_rows_free(&r);
	CHECK(salt_checkpointed(s, 3, &e) == 0);
	salt_close(&s);
	for (o.rank = 0; o.rank < 2; o.rank++) {
		g = plain;
		g.other_teacher = 1;
		fake_bus_reset(1000000, fake_selectord_script, &g);
		REQUIRE(salt_open(&s, &o, &e) == 0);
		CHECK(salt_rows(s, 2, 0, BATCH, 10 * SECOND, &r, &e) == SALT_MISMATCH && r == NULL && e.exit_code == 78);
		CHECK_ROW(e.text, strstr(e.text, "label_set.teacher: ") != NULL && strstr(e.text, "expected 0000000000000005") != NULL &&
		    strstr(e.text, "/run/identities.json has the label set of this run's checkpoint") != NULL);
		CHECK(salt_rows(s, 4, 0, BATCH, 10 * SECOND, &r, &e) == 0);	/* phase two needs no labels */
		salt_rows_free(&r);
		salt_close(&s);
	}
	snprintf(other, sizeof(other), "corpus.heldout=%s/train2", dir);	/* the same text with another first token */
	overrides[2] = other;
	o.n_overrides = 3;
	fake_bus_reset(1000000, nobody, NULL);
	CHECK(salt_open(&s, &o, &e) == SALT_MISMATCH && s == NULL);
	CHECK_ROW(e.text, strstr(e.text, "corpus.heldout (fingerprint): ") != NULL && strstr(e.text, "use another run.dir") != NULL);
	o.n_overrides = 2;
	REQUIRE((file = fopen(path, "w")) != NULL && fputs("{\"version\": 1, \"corpus\": 5}", file) >= 0 && fclose(file) == 0);
	CHECK(salt_open(&s, &o, &e) == SALT_CONFIG && s == NULL && strstr(e.text, "identities.json") != NULL);
}

/* In a forked child every call fails with an error that says so, and the parent continues. */
static void
forked(void)
{
	struct fake_selectord f = plain;
	struct salt *s = begin(&f, "phase_one.steps=4", "labels.kind=topk");
	struct salt_rows *r = get(s, 0, 0, BATCH);
	struct salt_plan p = {.size = sizeof(p)};
	struct salt_view v = {.size = sizeof(v)};
	struct salt_error e;
	pid_t child;
	int status;

	if ((child = fork()) == 0) {
		int ok = salt_rows(s, 1, 0, BATCH, -1, &r, &e) == SALT_FORKED && strstr(e.text, "fork") != NULL &&
		    salt_plan(s, &p, &e) == SALT_FORKED && salt_view(s, &v, &e) == SALT_FORKED && salt_flush(s, -1, &e) == SALT_FORKED &&
		    salt_checkpointed(s, 1, &e) == SALT_FORKED && salt_release(s, 4, &e) == SALT_FORKED && salt_switch(s, 4, &e) == SALT_FORKED &&
		    isnan(salt_kd_weight(s, 0));

		salt_close(&s);
		_exit(ok && s == NULL ? 0 : 1);
	}
	REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	salt_rows_free(&r);
	r = get(s, 1, 0, BATCH);
	check_label(r, 0, 0.6f);
	salt_rows_free(&r);
	salt_close(&s);
}

struct reader {
	pthread_t thread;
	struct salt *s;
	uint64_t first, n;
};

static void *
read_all(void *arg)
{
	struct reader *x = arg;

	for (uint64_t step = 0; step < STEPS; step++) {
		struct salt_rows *r = get(x->s, step, x->first, x->n);

		if (step >= 4)
			check_phase_two(r);
		for (uint64_t i = 0; step < 4 && i < x->n; i++)
			check_label(r, i, 0.6f);
		salt_rows_free(&r);
	}
	return NULL;
}

/* Threads with different ranges, with the same range, and with overlapping ones. */
static void
threads(void)
{
	struct fake_selectord f = plain;
	struct salt *s;
	struct reader x[] = {{.first = 0, .n = 2}, {.first = 2, .n = 2}, {.first = 2, .n = 2}, {.first = 1, .n = 3}};

	f.twice = true;
	s = begin(&f, "phase_one.steps=4", "labels.kind=topk");
	for (size_t i = 0; i < sizeof(x) / sizeof(x[0]); i++) {
		x[i].s = s;
		REQUIRE(pthread_create(&x[i].thread, NULL, read_all, &x[i]) == 0);
	}
	for (size_t i = 0; i < sizeof(x) / sizeof(x[0]); i++)
		pthread_join(x[i].thread, NULL);
	salt_close(&s);
}

/* Counts lines of the log, none of which goes to stderr. */
static void
log_line(void *arg, int level, const char *line)
{
	if (level >= 0 && level <= 3 && strstr(line, "event=selectord.welcome") != NULL)
		(*(atomic_int *)arg)++;
}

static void
logged(void)
{
	atomic_int n = 0;
	struct fake_selectord f = plain;
	const char *const overrides[] = {"phase_one.steps=4"};
	const struct salt_options o = {.size = sizeof(o), .role = SALT_TRAINER, .config = yaml, .overrides = overrides, .n_overrides = 1,
	    .log = log_line, .log_arg = &n};
	struct salt_rows *r;
	struct salt *s;

	fake_bus_reset(1000000, fake_selectord_script, &f);
	REQUIRE(salt_open(&s, &o, NULL) == 0 && salt_rows(s, 0, 0, BATCH, 10 * SECOND, &r, NULL) == 0);
	salt_rows_free(&r);
	salt_close(&s);
	CHECK(n == 1);
}

static void
write_corpus(const char *path, int first)
{
	struct corpus_writer *w = NULL;
	int32_t ids[200];

	for (int i = 0; i < 200; i++)
		ids[i] = (i == 0 ? first : i * i) % (VOCAB - 1);
	REQUIRE(corpus_writer_new(&w, path, &(struct corpus_writer_options){.vocab = VOCAB, .eod = VOCAB - 1}, NULL) == 0);
	REQUIRE(corpus_writer_document(w, ids, 200, 400, NULL) == 0 && corpus_writer_finish(w, NULL, NULL) == 0);
	corpus_writer_destroy(&w);
}

static void
make_corpus(void)
{
	char path[64];
	FILE *file;

	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/train2", dir);
	write_corpus(path, 1);
	snprintf(path, sizeof(path), "%s/train", dir);
	write_corpus(path, 0);
	REQUIRE(corpus_open(&corpus, path, NULL) == 0);
	plain = (struct fake_selectord){.corpus = corpus, .context = L, .vocab = VOCAB, .seed = SEED, .quarantined = -1, .withheld = -1,
	    .other_seq = -1, .other_label = -1};
	REQUIRE(corpus_fingerprint(corpus, &plain.fingerprint, NULL) == 0);
	snprintf(yaml, sizeof(yaml), "%s/fleet.yaml", dir);
	REQUIRE((file = fopen(yaml, "w")) != NULL);
	fprintf(file, "corpus: {train: train, heldout: train, context: %d}\nrun: {seed: %d}\nselector: {mode: none}\n"
	    "labels: {kind: topk, k: 2}\ntrainer: {steps: %d, batch: %d, lanes: 1}\nphase_one: {weight: 0.6}\n", L, SEED, STEPS, BATCH);
	fclose(file);
}

int
main(void)
{
	struct fake_selectord f;
	char command[64];

	make_corpus();
	a_run();
	dense();
	missing();
	margin();
	f = plain;
	f.other_seq = 2;
	rejected(f, SALT_MISMATCH, 78, "row 2 of the plan: expected sequence");
	f = plain;
	f.other_label = 2;
	rejected(f, SALT_MISMATCH, 78, "row 2 (sequence");
	f = plain;
	f.refuse = 78;
	rejected(f, SALT_MISMATCH, 78, "plan.n_rows: refused by selectord at");
	f.refuse = 69;
	rejected(f, SALT_REFUSED, 69, "expected 8, found 9");
	f.refuse = 65;
	rejected(f, SALT_REFUSED, 65, "expected 8, found 9");
	alone();
	arguments();
	pinned();
	forked();
	threads();
	logged();
	corpus_destroy(&corpus);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	CHECK(system(command) == 0);
	return check_done();
}
