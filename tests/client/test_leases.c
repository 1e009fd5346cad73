/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A teacher's leases over the fake bus: two leases ahead, renewals, repeated results, leases that are lost
 * with selectord or never answered, release, drain, close, forks, leases that cannot be computed, and several
 * threads. Models that salt_open rejects.
 */
#include <inttypes.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "check.h"
#include "client/client_internal.h"
#include "client/fake_leases.h"

enum { L = 8, VOCAB = 64, N = 4, SECOND = 1000 };

static char dir[] = "/tmp/salt_leases_XXXXXX", yaml[64];
static struct hash128 model;
static float logits[L * VOCAB];
static struct salt_error e;

static struct salt_model
one_model(void)
{
	return (struct salt_model){.dir = dir, .vocab = VOCAB, .max_context = 64, .serves_score = 1, .serves_label = 1};
}

static struct salt *
begin(struct fake_leases *f)
{
	const struct salt_model m = one_model();
	const struct salt_options o = {.size = sizeof(o), .role = SALT_TEACHER, .config = yaml, .models = &m, .n_models = 1, .threads = 2};
	struct salt *s;
	int rc;

	fake_leases_start(f);
	if ((rc = salt_open(&s, &o, &e)) != 0)
		fprintf(stderr, "%s\n", e.text);
	REQUIRE(rc == 0);
	return s;
}

static struct fake_leases
fake_of(unsigned n_leases)
{
	return (struct fake_leases){.context = L, .vocab = VOCAB, .model = model, .want_score = true, .want_label = true, .n_seqs = 2,
	    .n_leases = n_leases, .set = {.kind = LABELS_KIND_SAMPLED, .n = N, .tau = 1, .seed = 4}};
}

static struct salt_lease *
take(struct salt *s)
{
	struct salt_lease *lease;
	int rc = salt_lease(s, 10 * SECOND, &lease, &e);

	if (rc != 0)
		fprintf(stderr, "%s\n", e.text);
	REQUIRE(rc == 0 && lease != NULL);
	return lease;
}

static void
compute(struct salt *s, struct salt_lease *lease)
{
	for (uint32_t i = 0; i < lease->n; i++)
		CHECK(salt_submit_logits(s, lease, i, logits, VOCAB, &e) == 0);
}

static struct salt_view
view(struct salt *s)
{
	struct salt_view v = {.size = sizeof(v)};

	REQUIRE(salt_view(s, &v, &e) == 0);
	return v;
}

static void
close_all(struct salt **s, struct fake_leases *f)
{
	salt_close(s);
	fake_leases_end(f);
}

/* Two leases are held beside the caller's; HELLO describes the model; unfinished leases are returned. */
static void
two_ahead(void)
{
	struct fake_leases f = fake_of(5);
	struct salt *s = begin(&f);
	struct salt_lease *lease = take(s), *second;
	const struct wire_model *m = &f.hello.models[0];
	struct salt_view v;

	CHECK(lease->id == 100 && lease->seqs[1] == 1 && lease->tokens[L + 1] == fake_token(&f, 1, 0));
	CHECK(fake_until(s, &f, &f.n_given, 3));
	CHECK(f.n_given == 3 && f.n_largest_credit == 2);
	CHECK(f.hello.n_models == 1 && hash_equal(m->fingerprint, model) && strcmp(m->compute_class, "fp32/any") == 0 && m->vocab_size == VOCAB &&
	    m->max_context == 64 && m->serves_score && m->serves_label);
	compute(s, lease);
	salt_return(s, &lease);
	second = take(s);
	CHECK(second->id == 101);
	CHECK(salt_submit_logits(s, second, 1, logits, VOCAB, &e) == 0);
	salt_return(s, &second);
	CHECK(salt_flush(s, 10 * SECOND, &e) == 0);
	v = view(s);
	CHECK(v.sequences == 3 && v.tokens == 3 * L && v.unconfirmed == 0);
	CHECK(fake_until(s, &f, &f.n_returned, 1) && f.n_returned == 1);
	CHECK(f.result[1].n == 1 && f.result[2].n == 0 && f.result[3].n == 1);
	lease = take(s);
	second = take(s);
	CHECK(lease->id == 102 && second->id == 103);
	salt_return(s, &lease);
	salt_return(s, &second);
	salt_return(s, &second);			/* NULL */
	lease = take(s);
	salt_return(s, &lease);
	CHECK(salt_lease(s, 0, &lease, &e) == SALT_TIMEOUT && lease == NULL);
	CHECK(salt_lease(s, 30, &lease, &e) == SALT_TIMEOUT && strstr(e.text, "selectord has no sequence") != NULL);
	CHECK(strstr(view(s).waiting, "selectord has no sequence") != NULL);
	close_all(&s, &f);
}

/* A lease is renewed three times before it expires, with a progress counter that calls advance. */
static void
renewals(void)
{
	struct fake_leases f = fake_of(1);
	struct salt *s = begin(&f);
	struct salt_lease *lease = take(s);
	uint64_t progress;

	for (unsigned i = 1; i <= 3; i++) {
		f.skip_ms = 1001;
		CHECK(fake_until(s, &f, &f.n_renew, i));
	}
	progress = f.progress;
	CHECK(salt_renew(s, lease, &e) == 0 && salt_submit_logits(s, lease, 0, logits, VOCAB, &e) == 0);
	f.skip_ms = 1001;
	CHECK(fake_until(s, &f, &f.n_renew, 4) && f.progress == progress + 2);
	f.skip_ms = 1001;
	CHECK(fake_until(s, &f, &f.n_renew, 5) && f.progress == progress + 2);	/* no call, no progress */
	salt_return(s, &lease);
	close_all(&s, &f);
}

/*
 * Results that are not acknowledged are sent again: at once after a lost connection, and after 10 s without
 * an answer; but not for ever.
 */
static void
sent_again(void)
{
	struct fake_leases f = fake_of(1);
	struct salt *s = begin(&f);
	struct salt_lease *lease = take(s);

	f.silent = true;
	compute(s, lease);
	salt_return(s, &lease);
	CHECK(fake_until(s, &f, &f.result[1].n, 1) && fake_until(s, &f, &f.result[0].n, 1));
	CHECK(salt_flush(s, 30, &e) == SALT_TIMEOUT && view(s).unconfirmed == 2);
	f.reconnect = true;
	CHECK(fake_until(s, &f, &f.result[1].n, 2) && f.n_hello == 2);
	f.skip_ms = 10001;
	CHECK(fake_until(s, &f, &f.result[1].n, 3));
	f.silent = false;
	f.skip_ms = 10001;
	CHECK(fake_until(s, &f, &f.result[1].n, 4));
	CHECK(salt_flush(s, 10 * SECOND, &e) == 0 && view(s).unconfirmed == 0);
	close_all(&s, &f);

	f = fake_of(12);
	s = begin(&f);
	f.silent = true;
	lease = take(s);
	compute(s, lease);
	salt_return(s, &lease);
	CHECK(fake_until(s, &f, &f.result[1].n, 1) && fake_until(s, &f, &f.result[0].n, 1));
	for (unsigned i = 2; i <= 4; i++) {
		f.skip_ms = 10001;
		CHECK(fake_until(s, &f, &f.result[1].n, i));
	}
	CHECK(view(s).unconfirmed == 2);
	f.skip_ms = 10001;
	client__wake(s);
	CHECK(salt_flush(s, 10 * SECOND, &e) == 0 && view(s).unconfirmed == 0 && f.result[0].n == 4);	/* given up */
	/* the teacher continues; the waiting leases have expired */
	lease = take(s);
	CHECK(lease->id > 102);
	salt_return(s, &lease);
	close_all(&s, &f);
}

/* Advances the clock and waits until the message that is due by then is sent: LEASE_RENEW or LEASE_RETURN. */
static void
skip(struct salt *s, struct fake_leases *f, int64_t ms, const unsigned *what)
{
	unsigned was;

	pthread_mutex_lock(&f->lock);
	was = *what;
	pthread_mutex_unlock(&f->lock);
	f->skip_ms = ms;
	CHECK(fake_until(s, f, what, was + 1));
}

/*
 * A lease of 3 s expires after 12 s without a call, even if it is renewed: the caller gets an error with its
 * number, and its result is sent nevertheless. Waiting leases are returned, and the next lease is a new one.
 * With calls a lease lasts 120 s, without renewals 3 s.
 */
static void
expired(void)
{
	struct fake_leases f = fake_of(20);
	struct salt *s = begin(&f);
	struct salt_lease *lease = take(s);

	CHECK(fake_until(s, &f, &f.n_given, 3));
	for (int i = 0; i < 7; i++)
		skip(s, &f, 1500, &f.n_renew);
	CHECK(salt_submit_logits(s, lease, 0, logits, VOCAB, &e) == 0);		/* after 10.5 s */
	for (int i = 0; i < 7; i++)
		skip(s, &f, 1500, &f.n_renew);
	/* 12.1 s after its renewal; waiting leases are returned */
	skip(s, &f, 3100, &f.n_returned);
	CHECK(salt_renew(s, lease, &e) == SALT_CLOSED && strstr(e.text, "lease 100 has expired") != NULL);
	CHECK(salt_submit_logits(s, lease, 1, logits, VOCAB, &e) == SALT_CLOSED && strstr(e.text, "lease 100 has expired") != NULL &&
	    strstr(e.text, "every 12 s") != NULL);
	CHECK(fake_until(s, &f, &f.result[1].n, 1) && f.result[1].label != NULL);
	salt_return(s, &lease);
	lease = take(s);
	CHECK(lease->id > 102);
	for (int i = 0; i < 58; i++) {
		skip(s, &f, 2000, &f.n_renew);
		CHECK(salt_renew(s, lease, &e) == 0);
	}
	skip(s, &f, 4500, &f.n_returned);
	CHECK(salt_renew(s, lease, &e) == SALT_CLOSED && strstr(e.text, "an end after 120 s") != NULL);
	salt_return(s, &lease);
	lease = take(s);
	skip(s, &f, 3500, &f.n_returned);
	CHECK(salt_submit_logits(s, lease, 0, logits, VOCAB, &e) == SALT_CLOSED && strstr(e.text, "a connection every 3 s") != NULL);
	salt_return(s, &lease);
	close_all(&s, &f);
}

/* After a restart of selectord waiting leases are dropped, and the caller's lease is closed. */
static void
restarted(void)
{
	struct fake_leases f = fake_of(6);
	struct salt *s = begin(&f);
	struct salt_lease *lease = take(s);
	const int32_t rank[L] = {0};
	const float loss[L] = {0};

	CHECK(fake_until(s, &f, &f.n_given, 3));
	CHECK(salt_submit_logits(s, lease, 0, logits, VOCAB, &e) == 0 && salt_flush(s, 10 * SECOND, &e) == 0);
	f.restart = true;
	CHECK(fake_until(s, &f, &f.n_given, 5));
	CHECK(salt_submit_logits(s, lease, 1, logits, VOCAB, &e) == SALT_CLOSED && strstr(e.text, "selectord has restarted") != NULL);
	CHECK(salt_submit_scores(s, lease, 1, loss, rank, &e) == SALT_CLOSED && salt_submit_error(s, lease, 1, "x", &e) == SALT_CLOSED);
	CHECK(salt_renew(s, lease, &e) == SALT_CLOSED);
	salt_return(s, &lease);
	lease = take(s);
	CHECK(lease->id == 103);
	compute(s, lease);
	salt_return(s, &lease);
	CHECK(salt_flush(s, 10 * SECOND, &e) == 0 && f.result[1].n == 0 && f.result[6].n == 1 && f.n_returned == 0);
	close_all(&s, &f);
}

/* Waiting leases are returned, the caller's can be finished, and there is no further lease. */
static void
the_end(bool release)
{
	struct fake_leases f = fake_of(6);
	struct salt *s = begin(&f);
	struct salt_lease *lease = take(s), *none;

	CHECK(fake_until(s, &f, &f.n_given, 3));
	if (release)
		f.release = true;
	else
		CHECK(salt_drain(s, &e) == 0);
	CHECK(fake_until(s, &f, &f.n_returned, 2));
	CHECK(salt_lease(s, 10 * SECOND, &none, &e) == SALT_END && none == NULL && e.exit_code == 0);
	CHECK(strstr(e.text, release ? "selectord has released this teacher" : "salt_drain was called") != NULL);
	compute(s, lease);
	salt_return(s, &lease);
	CHECK(salt_flush(s, 10 * SECOND, &e) == 0 && f.result[0].n == 1 && f.result[1].n == 1 && f.n_given == 3 && f.n_returned == 2);
	close_all(&s, &f);
}

/* No frame is longer than selectord accepts. */
static void
split(void)
{
	enum { K = 1500, WIDE = 4096, LONG = 16 };
	struct fake_leases f = {.context = LONG, .vocab = WIDE, .model = model, .want_label = true, .n_seqs = 5, .n_leases = 1,
	    .set = {.kind = LABELS_KIND_TOPK, .n = K, .tau = 1, .seed = 4}, .max_message = 200000};
	struct salt_model m = {.dir = dir, .vocab = WIDE, .max_context = LONG, .serves_label = 1};
	const struct salt_options o = {.size = sizeof(o), .role = SALT_TEACHER, .config = yaml, .models = &m, .n_models = 1, .threads = 2};
	float *wide = calloc(LONG * WIDE, sizeof(*wide));
	struct salt_lease *lease;
	struct salt *s;

	REQUIRE(wide != NULL);
	for (size_t i = 0; i < LONG * WIDE; i++)
		wide[i] = (float)(i % 97) * 0.1f;
	fake_leases_start(&f);
	f.silent = true;
	REQUIRE(salt_open(&s, &o, &e) == 0);
	lease = take(s);
	CHECK(!lease->want_score && lease->k == K);
	for (uint32_t i = 0; i < lease->n; i++)
		CHECK(salt_submit_logits(s, lease, i, wide, WIDE, &e) == 0);
	salt_return(s, &lease);
	for (uint32_t i = 0; i < 5; i++)
		CHECK(fake_until(s, &f, &f.result[i].n, 1) && f.result[i].n_label == LABELS_OVERHEAD_BYTES + LONG * K * 4);
	f.silent = false;
	f.reconnect = true;				/* all five are sent again at once */
	CHECK(fake_until(s, &f, &f.result[4].n, 2));
	CHECK(salt_flush(s, 10 * SECOND, &e) == 0);
	for (uint32_t i = 0; i < 5; i++)
		CHECK(f.result[i].n == 2);
	CHECK(f.longest_result <= f.max_message && f.longest_result > f.max_message / 2);
	free(wide);
	close_all(&s, &f);
}

/* Leases that this teacher cannot compute are answered with an error and not given to the caller. */
static void
impossible(void)
{
	struct fake_leases f = fake_of(1);
	struct salt_lease *lease;
	struct salt *s;

	f.n_valid = VOCAB + 1;
	s = begin(&f);
	CHECK(fake_until(s, &f, &f.result[1].n, 1) && strstr(f.result[0].error, "vocabulary 65 of at most 64") != NULL);
	CHECK(salt_lease(s, 0, &lease, &e) == SALT_TIMEOUT && salt_flush(s, 10 * SECOND, &e) == 0);
	close_all(&s, &f);
	f = fake_of(1);
	f.model.lo++;
	s = begin(&f);
	CHECK(fake_until(s, &f, &f.result[1].n, 1) &&
	    strstr(f.result[1].error, "does not serve the model") != NULL);
	close_all(&s, &f);
	f = fake_of(1);
	f.context = 65;
	s = begin(&f);
	CHECK(fake_until(s, &f, &f.result[1].n, 1) && strstr(f.result[1].error, "context 65 of at most 64") != NULL);
	close_all(&s, &f);
}

/* A lease of the caller stays valid when the library closes; a forked child cannot use the session. */
static void
close_and_fork(void)
{
	struct fake_leases f = fake_of(3);
	struct salt *s = begin(&f);
	struct salt_lease *lease = take(s), *other;
	int status;
	pid_t child;

	if ((child = fork()) == 0) {
		struct salt_lease *mine = lease;
		bool good = salt_lease(s, 0, &other, &e) == SALT_FORKED && salt_submit_logits(s, lease, 0, logits, VOCAB, &e) == SALT_FORKED &&
		    salt_renew(s, lease, NULL) == SALT_FORKED && salt_drain(s, NULL) == SALT_FORKED && strstr(e.text, "is a fork of") != NULL;

		salt_return(s, &mine);
		_exit(!good || mine != NULL);
	}
	REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	CHECK(salt_submit_logits(s, lease, 0, logits, VOCAB, &e) == 0);
	salt_close(&s);
	CHECK(lease->seqs[1] == 1 && lease->tokens[0] == fake_token(&f, 0, 0));
	salt_return(s, &lease);
	CHECK(lease == NULL);
	fake_leases_end(&f);
}

/* A thread that takes leases until there are no more. */
struct worker {
	pthread_t thread;
	struct salt *s;
	unsigned n;
};

static void *
work(void *arg)
{
	struct worker *w = arg;
	struct salt_lease *lease;
	struct salt_error mine;

	while (salt_lease(w->s, 100, &lease, &mine) == 0) {
		for (uint32_t i = 0; i < lease->n; i++)
			w->n += salt_submit_logits(w->s, lease, i, logits, VOCAB, &mine) == 0;
		salt_return(w->s, &lease);
		salt_view(w->s, &(struct salt_view){.size = sizeof(struct salt_view)}, &mine);
	}
	return NULL;
}

static void
threads(void)
{
	struct fake_leases f = fake_of(32);
	struct salt *s = begin(&f);
	struct worker w[4];
	unsigned n = 0;

	for (int i = 0; i < 4; i++) {
		w[i] = (struct worker){.s = s};
		REQUIRE(pthread_create(&w[i].thread, NULL, work, &w[i]) == 0);
	}
	CHECK(fake_until(s, &f, &f.n_given, 32));
	for (int i = 0; i < 4; i++) {
		pthread_join(w[i].thread, NULL);
		n += w[i].n;
	}
	CHECK(salt_flush(s, 10 * SECOND, &e) == 0 && n == 64 && view(s).sequences == 64);
	for (int i = 0; i < 64; i++)
		CHECK(f.result[i].n == 1 && f.result[i].label != NULL && f.result[i].scores != NULL);
	close_all(&s, &f);
}

/* ---- what salt_open rejects ---- */

static void
put(const char *name, const char *text)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	REQUIRE((file = fopen(path, "w")) != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void
refused(const struct salt_model *m, size_t n, const char *class, const char *override, int code, const char *says)
{
	const struct salt_options o = {.size = sizeof(o), .role = SALT_TEACHER, .config = yaml, .models = m, .n_models = n, .compute_class = class,
	    .overrides = &override, .n_overrides = override != NULL};
	struct salt *s;
	int rc = salt_open(&s, &o, &e);

	CHECK_ROW(says, rc == code && s == NULL && e.code == code);
	CHECK_ROW(e.text, strstr(e.text, says) != NULL);
	salt_close(&s);
}

static void
models(void)
{
	struct salt_model m = one_model(), x = m;
	char corpus[96];

	snprintf(corpus, sizeof(corpus), "%s/corpus.json", dir);
	refused(NULL, 0, NULL, NULL, SALT_CONFIG, "options.models: expected 1 or 2");
	refused(&m, 1, NULL, "teacher.compute_class=auto", SALT_CONFIG, "teacher.compute_class: expected a name");
	refused(&m, 1, "bf16/x", NULL, SALT_MISMATCH, "expected fp32/any (teacher.compute_class of");
	x.serves_score = x.serves_label = 0;
	refused(&x, 1, NULL, NULL, SALT_CONFIG, "options.models[0]: expected dir, vocab and max_context, and serves_score or serves_label");
	x = m;
	x.dir = check_missing();
	refused(&x, 1, NULL, NULL, SALT_NOT_FOUND, check_missing());
	/* tokenizers of any kind are accepted if the model has every id of the corpus */
	x = m;
	x.corpus_tokenizer = corpus;
	put("corpus.json", "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2}}, \"added_tokens\": [{\"id\": 3, \"content\": \"<e>\"}]}");
	refused(&x, 1, NULL, NULL, SALT_NOT_FOUND, "tokenizer.json");
	put("tokenizer.json", "{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0], [\"b\", -1], [\"d\", -2], [\"<e>\", 0], [\"f\", 0]]}}");
	refused(&x, 1, NULL, NULL, SALT_MISMATCH, "id 2: expected token \"c\"");
	refused(&x, 1, NULL, NULL, SALT_MISMATCH, "found \"d\"");
	put("tokenizer.json", "{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0], [\"b\", -1], [\"c\", -2]]}}");
	refused(&x, 1, NULL, NULL, SALT_MISMATCH, "id 3: expected token \"<e>\"");
	put("tokenizer.json", "{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"more\": 5, \"<e>\": 3}}}");
	x.vocab = 3;
	refused(&x, 1, NULL, NULL, SALT_MISMATCH, "options.models.vocab: expected at least 4");
	x.vocab = VOCAB;
	put("corpus.json", "{\"model\": 5}");
	refused(&x, 1, NULL, NULL, SALT_DATA, "corpus.json");
}

/* A model with all ids of the corpus and further ones is announced with the corpus's tokenizer. */
static void
corpus_tokenizer(void)
{
	struct fake_leases f = fake_of(0);
	struct salt_model m = one_model();
	const struct salt_options o = {.size = sizeof(o), .role = SALT_TEACHER, .config = yaml, .models = &m, .n_models = 1};
	struct hash128 want;
	struct salt *s;
	char corpus[96];

	snprintf(corpus, sizeof(corpus), "%s/corpus.json", dir);
	put("corpus.json", "{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1}}}");
	put("tokenizer.json", "{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2}}}");
	m.corpus_tokenizer = corpus;
	/* a file that data/tokenizer cannot read */
	want = hash_bytes("{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1}}}", 38);
	fake_leases_start(&f);
	REQUIRE(salt_open(&s, &o, &e) == 0);
	CHECK(fake_until(s, &f, &f.n_hello, 1) && f.hello.models[0].tokenizer.known && hash_equal(f.hello.models[0].tokenizer.hash, want));
	close_all(&s, &f);
}

int
main(void)
{
	char command[64], text[160], hex[HASH_HEX_BYTES];

	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(yaml, sizeof(yaml), "%s/fleet.yaml", dir);
	snprintf(text, sizeof(text), "teacher: {compute_class: fp32/any}\nselector: {endpoints: [\"ipc://%s/s\"]}\n", dir);
	put("fleet.yaml", text);
	put("config.json", "{}");
	put("model.safetensors", "{}");
	REQUIRE(salt_model_identity(dir, hex, &e) == 0 && hash_from_hex(&model, hex) == 0);
	for (size_t i = 0; i < L * VOCAB; i++)
		logits[i] = (float)(i * 7 % 31) * 0.25f;
	two_ahead();
	renewals();
	sent_again();
	expired();
	restarted();
	the_end(false);
	the_end(true);
	split();
	impossible();
	close_and_fork();
	threads();
	models();
	corpus_tokenizer();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	CHECK(system(command) == 0);
	return check_done();
}
