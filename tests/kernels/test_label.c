/* SPDX-License-Identifier: Apache-2.0 */
/* Compares scores and labels with the reference, which scans all ids for every draw. */
#include "fixture.h"
#include "reference.h"

#define MAX_THREADS 3

static struct kernels *contexts[MAX_THREADS];

struct answers {
	struct kernels_labels labels;
	int64_t m, n, v;
};

static struct answers
answers_new(int64_t m, int64_t n, int64_t v)
{
	struct answers a = {.m = m, .n = n, .v = v};
	int64_t width = n > v ? n : v;

	a.labels.loss_nats = calloc((size_t)m, sizeof(float));
	a.labels.rank = calloc((size_t)m, sizeof(int32_t));
	a.labels.n_unique = calloc((size_t)m, sizeof(int32_t));
	a.labels.ids = calloc((size_t)(m * n), sizeof(int32_t));
	a.labels.counts = calloc((size_t)(m * n), sizeof(int32_t));
	a.labels.values = calloc((size_t)(m * width), sizeof(float));
	REQUIRE(a.labels.values != NULL && a.labels.counts != NULL);
	return a;
}

static void
answers_free(struct answers *a)
{
	free(a->labels.loss_nats);
	free(a->labels.rank);
	free(a->labels.n_unique);
	free(a->labels.ids);
	free(a->labels.counts);
	free(a->labels.values);
}

static bool
same_ints(const int32_t *a, const int32_t *b, int64_t n)
{
	return memcmp(a, b, (size_t)n * sizeof(*a)) == 0;
}

static void
one(const char *what, enum kernels_label_kind kind, int64_t b, int64_t t, int64_t c, int64_t v, int n, float tau, int64_t n_valid)
{
	int64_t m = b * t, values = kind == KERNELS_LABEL_DENSE ? m * v : m * n;
	float *h = noise(m * c, 1), *w = noise(v * c, 3 / sqrtf((float)c));
	struct tensor th = t2(h, m, c), tw = t2(w, v, c);
	struct kernels_label_spec spec = {.score = true, .kind = kind, .n = n, .tau = tau, .seed = 99, .n_valid = n_valid};
	struct answers want = answers_new(m, n, v);
	int32_t *next = malloc((size_t)m * sizeof(*next));
	uint64_t seqs[8];

	for (int64_t i = 0; i < m; i++)
		next[i] = below((int32_t)(n_valid > 0 ? n_valid : v));
	for (int64_t i = 0; i < b; i++)
		seqs[i] = 1000003 * (uint64_t)i + ((uint64_t)7 << 32);
	kernels_output_label_ref(h, w, &spec, next, seqs, b, t, c, v, &want.labels);
	for (int threads = 1; threads <= FIXTURE_TEAMS; threads++) {
		struct answers got = answers_new(m, n, v);

		kernels_output_label(contexts[threads - 1], &th, &tw, NULL, &spec, next, seqs, b, t, &got.labels);
		for (int64_t i = 0; i < m; i++)		/* among many logits some are equal in fp32 */
			CHECK_ROW(what, abs(got.labels.rank[i] - want.labels.rank[i]) <= v / 10000);
		CHECK_ROW(what, same_ints(got.labels.ids, want.labels.ids, m * n));
		CHECK_ROW(what, same_ints(got.labels.counts, want.labels.counts, m * n));
		CHECK_ROW(what, same_ints(got.labels.n_unique, want.labels.n_unique, m));
		for (int64_t i = 0; i < m; i++)
			CHECK_ROW(what, fabs((double)got.labels.loss_nats[i] - (double)want.labels.loss_nats[i]) < 2e-5);
		for (int64_t i = 0; i < values && kind != KERNELS_LABEL_SAMPLED; i++)
			CHECK_ROW(what, got.labels.values[i] == want.labels.values[i] ||
			    fabs((double)got.labels.values[i] - (double)want.labels.values[i]) < 2e-5 / (double)tau);
		answers_free(&got);
	}
	answers_free(&want);
	free(next);
	fixture_close(what);
}

/* Of equal logits the lower id comes first, in ranks, in top-k and at its edge. */
static void
ties(void)
{
	enum { V = 8 };
	float u[V] = {1, 3, 2, 3, 1, 2, 0, 3}, w[V * V] = {0}, values[4];
	int32_t ids[4], rank;
	struct tensor th = t2(u, 1, V), tw = t2(w, V, V);
	struct kernels_label_spec spec = {.score = true, .kind = KERNELS_LABEL_TOPK, .n = 4, .tau = 1};
	static const int32_t want[4] = {1, 3, 7, 2}, ranks[V] = {5, 0, 3, 1, 6, 4, 7, 2};
	float loss;
	struct kernels_labels out = {.loss_nats = &loss, .rank = &rank, .ids = ids, .values = values};
	const uint64_t seq = 0;

	for (int i = 0; i < V; i++)
		w[i * V + i] = 1;
	for (int32_t y = 0; y < V; y++) {
		kernels_output_label(contexts[0], &th, &tw, NULL, &spec, &y, &seq, 1, 1, &out);
		CHECK(rank == ranks[y]);
		CHECK(same_ints(ids, want, 4));
	}
}

/* With logits that are not finite, labels still have valid ids, and the score shows the error. */
static void
not_finite(void)
{
	enum { V = 5 };
	static const float bad[] = {NAN, INFINITY, -INFINITY};
	float u[V] = {0, 1, 2, 3, 4}, w[V * V] = {0}, values[3], loss;
	int32_t ids[3], counts[3], n_unique, rank, y = 2;
	const uint64_t seq = 0;
	struct tensor th = t2(u, 1, V), tw = t2(w, V, V);
	struct kernels_labels out = {.loss_nats = &loss, .rank = &rank, .n_unique = &n_unique, .ids = ids, .counts = counts, .values = values};

	for (int i = 0; i < V; i++)
		w[i * V + i] = 1;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		u[2] = bad[i];		/* multiplied by 0 it makes every other logit NaN */
		for (int kind = KERNELS_LABEL_SAMPLED; kind <= KERNELS_LABEL_TOPK; kind++) {
			struct kernels_label_spec spec = {.score = true, .kind = (enum kernels_label_kind)kind, .n = 3, .tau = 1};

			kernels_output_label(contexts[0], &th, &tw, NULL, &spec, &y, &seq, 1, 1, &out);
			CHECK(!isfinite(loss) && rank >= 0 && rank < V && (rank == V - 1 || !isnan(bad[i])));
			for (int j = 0; j < (kind == KERNELS_LABEL_TOPK ? 3 : n_unique); j++)
				CHECK(ids[j] >= 0 && ids[j] < V);
		}
	}
}

int
main(void)
{
	fixture_start();
	for (int i = 0; i < MAX_THREADS; i++)
		contexts[i] = fixture_kernels(i + 1);
	one("score", KERNELS_LABEL_NONE, 2, 3, 5, 11, 1, 1, 0);
	one("sampled, tiny", KERNELS_LABEL_SAMPLED, 1, 3, 2, 3, 7, 1, 0);
	one("sampled", KERNELS_LABEL_SAMPLED, 3, FIXTURE_MIRROR ? 5 : 17, 16, 517, 50, 1, 0);
	one("sampled, sharp, masked", KERNELS_LABEL_SAMPLED, 2, 9, 16, 517, 50, 0.25f, 430);
	one("sampled, flat", KERNELS_LABEL_SAMPLED, FIXTURE_MIRROR ? 1 : 2, 9, 16, 4099, 51, 4, 0);
	if (!FIXTURE_MIRROR)			/* the emulation has small chunks */
		one("sampled, more rows than a chunk", KERNELS_LABEL_SAMPLED, 1, 70, 3, 33001, 5, 1, 0);
	one("topk", KERNELS_LABEL_TOPK, 3, FIXTURE_MIRROR ? 5 : 17, 16, 517, 12, 1, 0);
	one("topk of all", KERNELS_LABEL_TOPK, 1, 3, 4, 9, 9, 2, 0);
	one("topk, masked", KERNELS_LABEL_TOPK, 1, 5, 4, 64, 9, 0.5f, 40);
	one("dense", KERNELS_LABEL_DENSE, 2, 9, 16, 65, 1, 0.25f, 50);
	ties();
	not_finite();
	for (int i = 0; i < MAX_THREADS; i++)
		kernels_destroy(&contexts[i]);
	return check_done();
}
