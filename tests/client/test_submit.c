/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares the results that the library computes from logits with those of the engine's kernel for the same
 * logits (fp32, with the identity as output layer): draws, ids and ranks are equal, losses and probabilities
 * equal up to single precision. Labels from draws and from logits have the same bytes; invalid results are
 * rejected by name. The probability of ids that the corpus does not have goes to the tail of topk labels.
 */
#include <inttypes.h>

#include "base/random/random.h"
#include "check.h"
#include "client/client_internal.h"
#include "client/fake_leases.h"
#include "engine/kernels/kernels.h"
#include "engine/tensor/tensor.h"

enum { L = 40, VOCAB = 300, PADDED = 317, N = 50, K = 9, SECOND = 1000 };

static char dir[] = "/tmp/salt_submit_XXXXXX", yaml[64], model_dir[64];
static struct hash128 model;
static float logits[L * PADDED];

/* Results of the kernel for the logits as sequence seq. */
struct expected {
	float loss_nats[L], values[L * PADDED];
	int32_t rank[L], n_unique[L], ids[L * N], counts[L * N], next[L];
};

static void
expect(struct expected *x, const struct fake_leases *f, uint64_t seq)
{
	struct kernels_options o = {.backend = KERNELS_BACKEND_OPENBLAS, .dtype = KERNELS_DTYPE_FP32, .threads = 1};
	struct kernels_label_spec spec = {.score = true, .kind = (enum kernels_label_kind)f->set.kind, .n = (int)f->set.n, .tau = f->set.tau,
	    .seed = f->set.seed, .n_valid = VOCAB};
	struct kernels_labels out = {x->loss_nats, x->rank, x->n_unique, x->ids, x->counts, x->values};
	float *identity;
	struct kernels *k;
	struct tensor h, w;

	REQUIRE(kernels_new(&k, &o, NULL) == 0);
	REQUIRE((identity = kernels_alloc(k, (size_t)PADDED * PADDED * sizeof(float))) != NULL);
	for (size_t v = 0; v < PADDED; v++)
		identity[v * PADDED + v] = 1;
	for (uint32_t t = 0; t < L; t++)
		x->next[t] = fake_token(f, seq, t + 1);
	h = (struct tensor){.data = logits, .dtype = DTYPE_F32, .n_dims = 2, .dims = {L, PADDED}};
	w = (struct tensor){.data = identity, .dtype = DTYPE_F32, .n_dims = 2, .dims = {PADDED, PADDED}};
	kernels_output_label(k, &h, &w, NULL, &spec, x->next, &seq, 1, L, &out);
	kernels_free(k, identity);
	kernels_destroy(&k);
}

/* Makes logits of several scales: flat and steep rows, one id with nearly all probability, equal logits. */
static void
make_logits(void)
{
	for (uint32_t t = 0; t < L; t++)
		for (uint32_t v = 0; v < PADDED; v++) {
			float pair[2];
			uint32_t w[4];

			random_words(17, RANDOM_PURPOSE_GENERATE, t, v, 0, w);
			random_normal(w[0], w[1], pair);
			logits[t * PADDED + v] = pair[0] * (float)(1 + t % 7) + (t % 11 == 3 && v == 5 ? 60 : 0) + (v >= VOCAB ? 200 : 0);
		}
	for (uint32_t t = 1; t < L; t += 5)		/* many equal logits */
		for (uint32_t v = 0; v < PADDED; v++)
			logits[t * PADDED + v] = roundf(logits[t * PADDED + v] * 2) / 2;
	for (uint32_t t = 0; t < L; t += 4)
		logits[t * PADDED + 250] = logits[t * PADDED + 20] = 20;
}

/* Sets logits beyond n_valid: the kernel ignores them, the library adds their probability to topk's tail. */
static void
pad_logits(float u)
{
	for (uint32_t t = 0; t < L; t++)
		for (uint32_t v = VOCAB; v < PADDED; v++)
			logits[t * PADDED + v] = u;
}

static struct salt *
open_teacher(const char *class)
{
	const struct salt_model m = {.dir = model_dir, .vocab = PADDED, .max_context = 64, .serves_score = 1, .serves_label = 1};
	const struct salt_options o = {.size = sizeof(o), .role = SALT_TEACHER, .config = yaml, .models = &m, .n_models = 1, .threads = 3,
	    .compute_class = class};
	struct salt_error e;
	struct salt *s;
	int rc = salt_open(&s, &o, &e);

	if (rc != 0)
		fprintf(stderr, "%s\n", e.text);
	REQUIRE(rc == 0);
	return s;
}

static struct salt_lease *
take(struct salt *s)
{
	struct salt_lease *lease;
	struct salt_error e;
	int rc = salt_lease(s, 10 * SECOND, &lease, &e);

	if (rc != 0)
		fprintf(stderr, "%s\n", e.text);
	REQUIRE(rc == 0 && lease != NULL);
	return lease;
}

static void
flush(struct salt *s)
{
	struct salt_error e;

	if (salt_flush(s, 10 * SECOND, &e) != 0)
		fprintf(stderr, "%s\n", e.text);
	CHECK(e.code == 0);
}

static struct fake_leases
fake_of(enum labels_kind kind, uint32_t n, float tau)
{
	return (struct fake_leases){.context = L, .vocab = VOCAB, .model = model, .want_score = true, .want_label = true, .n_seqs = 3,
	    .n_leases = 1, .set = {.kind = kind, .n = n, .tau = tau, .seed = 4}};
}

static void
check_scores(const struct fake_result *r, const struct expected *x)
{
	float loss[L];
	uint8_t rank[L];

	REQUIRE(labels_scores_decode(r->scores, r->n_scores, L, loss, rank, NULL) == 0);
	for (uint32_t t = 0; t < L; t++) {
		CHECK_NEAR(loss[t], x->loss_nats[t] < 31.9f ? x->loss_nats[t] : loss[t], 0.5 / 2048 + 1e-5);
		CHECK(rank[t] == (x->rank[t] < 255 ? x->rank[t] : 255));
	}
}

static void
check_label(const struct fake_leases *f, const struct fake_result *r, uint64_t seq, const struct expected *x)
{
	struct labels_batch b = {.kind = 0};
	struct labels_buf buf = {0};
	int32_t tokens[L + 1];
	struct hash128 hash;

	for (uint32_t t = 0; t <= L; t++)
		tokens[t] = fake_token(f, seq, t);
	hash = hash_tokens(tokens, L + 1);
	REQUIRE(labels_decode(&f->spec, hash, r->label, r->n_label, &b, NULL) == 0 && b.n_rows == L);
	if (f->set.kind == LABELS_KIND_SAMPLED) {
		/* the record equals teacherd's record of the kernel's draws */
		REQUIRE(labels_encode_sampled(&f->spec, hash, x->n_unique, x->ids, x->counts, &buf, NULL) == 0);
		CHECK(buf.len == r->n_label && memcmp(buf.bytes, r->label, buf.len) == 0);
	} else if (f->set.kind == LABELS_KIND_TOPK) {
		/* compared with teacherd's record: the same ids, and codes that differ by at most 1 */
		struct labels_batch theirs = {.kind = 0};

		REQUIRE(labels_encode_topk(&f->spec, hash, x->ids, x->values, &buf, NULL) == 0);
		REQUIRE(labels_decode(&f->spec, hash, buf.bytes, buf.len, &theirs, NULL) == 0 && theirs.row_offsets[L] == b.row_offsets[L]);
		for (int64_t at = 0; at < b.row_offsets[L]; at++) {
			CHECK(b.ids[at] == theirs.ids[at]);
			CHECK_NEAR(b.weights[at], theirs.weights[at], theirs.weights[at] * 1.1 / 2048);
		}
		labels_batch_free(&theirs);
	} else {
		for (uint32_t t = 0; t < L; t++)
			for (uint32_t v = 0; v < VOCAB; v++)
				CHECK_NEAR(b.dense[t * VOCAB + v], exp((double)x->values[t * PADDED + v]),
				    1e-3 * exp((double)x->values[t * PADDED + v]) + 1e-12);
	}
	labels_buf_free(&buf);
	labels_batch_free(&b);
}

/* A lease of three sequences, with logits for all of them. */
static void
against_the_kernel(enum labels_kind kind, uint32_t n, float tau)
{
	struct fake_leases f = fake_of(kind, n, tau);
	struct expected *x = malloc(sizeof(*x));
	struct salt_lease *lease;
	struct salt *s;

	REQUIRE(x != NULL);
	fake_leases_start(&f);
	s = open_teacher(NULL);
	lease = take(s);
	CHECK(lease->n == 3 && lease->context == L && lease->n_valid == VOCAB && lease->want_score && lease->want_label && lease->model == 0);
	CHECK(lease->kind == (int)kind && fabs(lease->tau - tau) < 1e-7 && lease->seed == 4 && lease->size == sizeof(*lease));
	for (uint32_t i = 0; i < 3; i++)
		CHECK(salt_submit_logits(s, lease, i, logits, PADDED, NULL) == 0);
	salt_return(s, &lease);
	CHECK(lease == NULL);
	flush(s);
	salt_close(&s);
	for (uint64_t seq = 0; seq < 3; seq++) {
		expect(x, &f, seq);
		CHECK(f.result[seq].n == 1 && f.result[seq].error[0] == '\0');
		check_scores(&f.result[seq], x);
		check_label(&f, &f.result[seq], seq, x);
	}
	CHECK(f.n_returned == 0);
	fake_leases_end(&f);
	free(x);
}

/* The kernel's draws in another order, and scores in a separate call, give the same bytes as logits. */
static void
parts(void)
{
	struct fake_leases f = fake_of(LABELS_KIND_SAMPLED, N, 0.25f), g = fake_of(LABELS_KIND_SAMPLED, N, 0.25f);
	struct expected *x = malloc(sizeof(*x));
	int32_t *draws = malloc(L * N * sizeof(*draws));
	double *u = malloc(L * N * sizeof(*u)), all = 0;
	struct salt_lease *lease;
	struct salt *s;

	REQUIRE(x != NULL && draws != NULL && u != NULL);
	fake_leases_start(&g);
	expect(x, &g, 1);
	for (uint32_t t = 0; t < L; t++)
		for (int32_t i = 0, d = N; i < x->n_unique[t]; i++)
			for (int32_t k = 0; k < x->counts[t * N + (uint32_t)i]; k++)
				draws[t * N + (uint32_t)--d] = x->ids[t * N + (uint32_t)i];
	s = open_teacher(NULL);
	lease = take(s);
	CHECK(salt_submit_samples(s, lease, 1, draws, NULL) == 0);
	CHECK(salt_submit_samples(s, lease, 1, draws, NULL) == SALT_RANGE);
	CHECK(salt_submit_scores(s, lease, 1, x->loss_nats, x->rank, NULL) == 0);
	CHECK(salt_submit_scores(s, lease, 1, x->loss_nats, x->rank, NULL) == SALT_RANGE);
	/* logits add the missing label */
	CHECK(salt_submit_scores(s, lease, 2, x->loss_nats, x->rank, NULL) == 0);
	CHECK(salt_submit_logits(s, lease, 2, logits, PADDED, NULL) == 0);
	/* the random numbers as labels.h defines them */
	CHECK(salt_uniforms(lease, 1, u, NULL) == 0 && salt_uniforms(lease, 3, u, NULL) == SALT_RANGE);
	for (uint32_t t = 0; t < L; t++)
		for (uint32_t d = 0; d < N; d++) {
			uint32_t w[4];

			random_words(4, RANDOM_PURPOSE_LABEL, 1, t, d / 2, w);
			CHECK(u[t * N + d] == (d % 2 == 0 ? random_uniform53(w[0], w[1]) : random_uniform53(w[2], w[3])));
			all += u[t * N + d];
		}
	CHECK(all > 0.45 * L * N && all < 0.55 * L * N);
	salt_return(s, &lease);
	flush(s);
	CHECK(fake_until(s, &g, &g.n_returned, 1));
	salt_close(&s);
	CHECK(g.n_returned == 1 && g.result[0].n == 0);		/* sequence 0 was returned */

	fake_leases_start(&f);
	s = open_teacher(NULL);
	lease = take(s);
	for (uint32_t i = 0; i < 3; i++)
		CHECK(salt_submit_logits(s, lease, i, logits, PADDED, NULL) == 0);
	salt_return(s, &lease);
	flush(s);
	salt_close(&s);
	for (uint64_t seq = 1; seq < 3; seq++)
		CHECK(f.result[seq].n_label == g.result[seq].n_label && f.result[seq].n_label > LABELS_OVERHEAD_BYTES &&
		    memcmp(f.result[seq].label, g.result[seq].label, f.result[seq].n_label) == 0);
	fake_leases_end(&f);
	fake_leases_end(&g);
	free(x);
	free(draws);
	free(u);
}

/*
 * Probabilities 0.4, 0.2, 0.2 for ids of the corpus, 0.1 and 0.1 for two ids that it does not have, 0 for all
 * others. The label has the first two ids. seq 0: as described. seq 1: without the two foreign ids. seq 2:
 * these have all the probability.
 */
static void
others(float tau, const double expected[3][2])
{
	struct fake_leases f = fake_of(LABELS_KIND_TOPK, 2, tau);
	float *mine = malloc(sizeof(logits));
	struct salt_lease *lease;
	struct salt *s;

	REQUIRE(mine != NULL);
	for (uint32_t at = 0; at < L * PADDED; at++)
		mine[at] = -INFINITY;
	for (uint32_t t = 0; t < L; t++) {
		mine[t * PADDED + 7] = logf(0.4f);
		mine[t * PADDED + 9] = mine[t * PADDED + 11] = logf(0.2f);
		mine[t * PADDED + VOCAB] = mine[t * PADDED + PADDED - 1] = logf(0.1f);
	}
	f.want_score = false;
	fake_leases_start(&f);
	s = open_teacher(NULL);
	lease = take(s);
	CHECK(salt_submit_logits(s, lease, 0, mine, PADDED, NULL) == 0);
	for (uint32_t t = 1; t < L; t++)
		memmove(mine + t * VOCAB, mine + t * PADDED, VOCAB * sizeof(*mine));
	CHECK(salt_submit_logits(s, lease, 1, mine, VOCAB, NULL) == 0);
	for (uint32_t t = L; t-- > 0;) {
		memmove(mine + t * PADDED, mine + t * VOCAB, VOCAB * sizeof(*mine));
		for (uint32_t v = VOCAB; v < PADDED; v++)
			mine[t * PADDED + v] = v == VOCAB + 4 ? 200 : -INFINITY;
	}
	CHECK(salt_submit_logits(s, lease, 2, mine, PADDED, NULL) == 0);
	salt_return(s, &lease);
	flush(s);
	salt_close(&s);
	for (uint64_t seq = 0; seq < 3; seq++) {
		struct labels_batch b = {.kind = 0};
		int32_t tokens[L + 1];

		for (uint32_t t = 0; t <= L; t++)
			tokens[t] = fake_token(&f, seq, t);
		REQUIRE(labels_decode(&f.spec, hash_tokens(tokens, L + 1), f.result[seq].label, f.result[seq].n_label, &b, NULL) == 0);
		for (uint32_t t = 0; t < L; t++) {
			int64_t at = b.row_offsets[t];

			REQUIRE(b.row_offsets[t + 1] == at + 2);
			CHECK(b.ids[at] == 7 && b.ids[at + 1] == 9);
			CHECK_NEAR(b.weights[at], expected[seq][0], 3e-4);
			CHECK_NEAR(b.weights[at + 1], expected[seq][1], 3e-4);
			CHECK_NEAR(b.tail[t], 1 - expected[seq][0] - expected[seq][1], 6e-4);
		}
		labels_batch_free(&b);
	}
	fake_leases_end(&f);
	free(mine);
}

/* A logit of -infinity means probability 0; it is rejected for the next token and for a whole row. */
static void
masked(void)
{
	struct fake_leases f = fake_of(LABELS_KIND_SAMPLED, N, 1);
	float *mine = malloc(sizeof(logits)), loss[L];
	struct labels_batch b = {.kind = 0};
	struct salt_lease *lease;
	struct salt_error e;
	int32_t tokens[L + 1];
	uint8_t rank[L];
	struct salt *s;

	REQUIRE(mine != NULL);
	for (uint32_t at = 0; at < L * PADDED; at++)
		mine[at] = at % PADDED < VOCAB ? -INFINITY : NAN;	/* beyond n_valid: anything */
	fake_leases_start(&f);
	s = open_teacher(NULL);
	lease = take(s);
	CHECK(salt_submit_logits(s, lease, 1, mine, PADDED, &e) == SALT_NONFINITE && strstr(e.text, "logits of position 0") != NULL);
	for (uint32_t t = 0; t < L; t++) {		/* the next token has 3/4, id 0 or 1 has 1/4 */
		mine[t * PADDED + (uint32_t)lease->tokens[t + 1]] = logf(3);
		mine[t * PADDED + (lease->tokens[t + 1] == 0)] = 0;
	}
	CHECK(salt_submit_logits(s, lease, 0, mine, PADDED, &e) == 0);
	for (uint32_t t = 0; t < L; t++)
		mine[t * PADDED + 299] = mine[t * PADDED + 298] = 0;
	for (uint32_t t = 0; t <= L; t++)
		tokens[t] = lease->tokens[2 * (L + 1) + t];
	for (uint32_t t = 0; t < L; t++)
		mine[t * PADDED + (uint32_t)tokens[t + 1]] = t == 12 ? -INFINITY : 1;
	CHECK(salt_submit_logits(s, lease, 2, mine, PADDED, &e) == SALT_NONFINITE && strstr(e.text, "position 12, id ") != NULL &&
	    strstr(e.text, "-inf") != NULL);
	for (uint32_t t = 0; t <= L; t++)
		tokens[t] = lease->tokens[t];
	salt_return(s, &lease);
	flush(s);
	salt_close(&s);
	REQUIRE(labels_decode(&f.spec, hash_tokens(tokens, L + 1), f.result[0].label, f.result[0].n_label, &b, NULL) == 0);
	REQUIRE(labels_scores_decode(f.result[0].scores, f.result[0].n_scores, L, loss, rank, NULL) == 0);
	for (uint32_t t = 0; t < L; t++) {
		CHECK(rank[t] == 0);
		CHECK_NEAR(loss[t], -log(0.75), 0.5 / 2048 + 1e-5);
		for (int64_t at = b.row_offsets[t]; at < b.row_offsets[t + 1]; at++)
			CHECK(b.ids[at] == tokens[t + 1] || b.ids[at] == (tokens[t + 1] == 0));
	}
	labels_batch_free(&b);
	fake_leases_end(&f);
	free(mine);
}

/* Invalid arguments are rejected by name; NaN is reported to selectord. */
static void
refusals(void)
{
	struct fake_leases f = fake_of(LABELS_KIND_TOPK, K, 1);
	float *mine = malloc(sizeof(logits)), log_p[L * K], loss[L];
	int32_t ids[L * K], rank[L] = {0};
	struct salt_lease *lease;
	struct salt_error e;
	struct salt *s;

	REQUIRE(mine != NULL);
	memcpy(mine, logits, sizeof(logits));
	for (uint32_t at = 0; at < L * K; at++) {
		ids[at] = (int32_t)(at % K);
		log_p[at] = -3 - (float)(at % K);
	}
	for (uint32_t t = 0; t < L; t++)
		loss[t] = 1;
	f.n_leases = 2;
	fake_leases_start(&f);
	s = open_teacher(NULL);
	lease = take(s);
	CHECK(salt_submit_logits(s, lease, 3, logits, PADDED, &e) == SALT_RANGE && strstr(e.text, "0 .. 2") != NULL);
	CHECK(salt_submit_logits(s, lease, 0, logits, VOCAB - 1, &e) == SALT_RANGE && strstr(e.text, "300 (lease.n_valid), found 299") != NULL);
	CHECK(salt_submit_samples(s, lease, 0, ids, &e) == SALT_RANGE && strstr(e.text, "expected a topk label, found a sampled one") != NULL);
	ids[2 * K + 1] = VOCAB;
	CHECK(salt_submit_topk(s, lease, 0, ids, log_p, &e) == SALT_RANGE && strstr(e.text, "position 2, entry 1") != NULL &&
	    strstr(e.text, "0 .. 299, found 300") != NULL);
	ids[2 * K + 1] = 0;				/* twice */
	CHECK(salt_submit_topk(s, lease, 0, ids, log_p, &e) == SALT_RANGE);
	ids[2 * K + 1] = 1;
	CHECK(salt_submit_topk(s, lease, 0, ids, log_p, &e) == 0);
	CHECK(salt_submit_scores(s, lease, 0, loss, rank, &e) == 0);
	CHECK(salt_submit_error(s, lease, 0, "late", &e) == SALT_RANGE);
	mine[30 * PADDED + 7] = INFINITY;
	mine[31 * PADDED + 2] = NAN;
	CHECK(salt_submit_logits(s, lease, 2, mine, PADDED, &e) == SALT_NONFINITE && e.exit_code == 65);
	CHECK(strstr(e.text, "sequence 2 ") != NULL && strstr(e.text, "position 30, id 7") != NULL && strstr(e.text, "found inf") != NULL);
	mine[6 * PADDED + VOCAB + 3] = NAN;		/* the logit of an id in the tail */
	CHECK(salt_submit_logits(s, lease, 1, mine, PADDED, &e) == SALT_NONFINITE && strstr(e.text, "position 6, id 303") != NULL);
	salt_return(s, &lease);
	lease = take(s);
	loss[3] = NAN;
	CHECK(salt_submit_scores(s, lease, 0, loss, rank, &e) == SALT_NONFINITE && strstr(e.text, "loss of position 3") != NULL);
	log_p[4 * K] = NAN;
	CHECK(salt_submit_topk(s, lease, 1, ids, log_p, &e) == SALT_NONFINITE && strstr(e.text, "position 4, id 0") != NULL);
	CHECK(salt_submit_error(s, lease, 2, "out of memory on the card", &e) == 0);
	salt_return(s, &lease);
	flush(s);
	salt_close(&s);
	CHECK(f.result[0].error[0] == '\0' && f.result[0].label != NULL && strstr(f.result[1].error, "position 6, id 303") != NULL);
	CHECK(strstr(f.result[2].error, "position 30, id 7") != NULL && f.result[2].label == NULL && f.result[2].scores == NULL);
	CHECK(strstr(f.result[3].error, "loss of position 3") != NULL && strstr(f.result[4].error, "position 4") != NULL);
	CHECK_STR(f.result[5].error, "out of memory on the card");
	CHECK(f.n_returned == 0);
	fake_leases_end(&f);
	free(mine);
}

int
main(void)
{
	char path[128];
	FILE *file;
	struct salt_error e;
	char hex[HASH_HEX_BYTES];

	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(yaml, sizeof(yaml), "%s/fleet.yaml", dir);
	snprintf(model_dir, sizeof(model_dir), "%s", dir);
	REQUIRE((file = fopen(yaml, "w")) != NULL);
	fprintf(file, "teacher: {compute_class: fp32/any}\nselector: {endpoints: [\"ipc://%s/s\"]}\n", dir);
	fclose(file);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, i == 0 ? "config.json" : "model.safetensors");
		REQUIRE((file = fopen(path, "w")) != NULL && fputs("{}", file) >= 0 && fclose(file) == 0);
	}
	REQUIRE(salt_model_identity(model_dir, hex, &e) == 0 && hash_from_hex(&model, hex) == 0);
	make_logits();
	against_the_kernel(LABELS_KIND_SAMPLED, N, 1);
	against_the_kernel(LABELS_KIND_SAMPLED, N, 0.25f);
	against_the_kernel(LABELS_KIND_SAMPLED, 1, 2);
	against_the_kernel(LABELS_KIND_DENSE, 0, 1);
	pad_logits(-1e30f);
	against_the_kernel(LABELS_KIND_TOPK, K, 1);
	against_the_kernel(LABELS_KIND_TOPK, K, 0.5f);
	parts();
	others(1, (const double[3][2]){{0.4, 0.2}, {0.5, 0.25}, {0, 0}});
	/* squared probabilities */
	others(0.5f, (const double[3][2]){{16 / 26.0, 4 / 26.0}, {16 / 24.0, 4 / 24.0}, {0, 0}});
	masked();
	refusals();
	snprintf(path, sizeof(path), "rm -rf %s", dir);
	CHECK(system(path) == 0);
	return check_done();
}
