/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampled targets are unbiased: the mean of what the kernel draws and the codec encodes is the teacher's
 * dense distribution. Two statistics over all rows of all states, each of them standard normal if that holds:
 *   cells    Pearson's chi-square over ids, summed over the states, with Wilson and Hilferty's cube root
 *   entropy  mean over rows of -sum t'_v log t_v (t' sampled, t dense), minus t's entropy, in standard errors
 * Each must be within 3: with a correct sampler one seed in 370 fails by chance, for each. TEST_SEED sets
 * another seed. Top-k targets, as in the method's paper, are tested in the same way and must fail, which
 * shows that the statistics can detect a bias.
 */
#include "fixture.h"
#include "data/labels/labels.h"

enum { V = 300, C = 16, STATES = 8, B = 64, T = 32, ROWS = B * T, N = 50, K = 12, LIMIT = 3 };

struct teacher {
	struct kernels *kernels;
	float *h, *w;			/* [ROWS, C]: row m is state m mod STATES; [V, C] */
	float log_t[STATES * V];
	float tau;
};

static void
kernel(const struct teacher *t, enum kernels_label_kind kind, const uint64_t *seqs, int64_t b, int64_t rows, struct kernels_labels *out)
{
	struct tensor h = t2(t->h, b * rows, C), w = t2(t->w, V, C);
	struct kernels_label_spec spec = {.kind = kind, .n = kind == KERNELS_LABEL_TOPK ? K : N, .tau = t->tau, .seed = fixture_seed};

	kernels_output_label(t->kernels, &h, &w, NULL, &spec, NULL, seqs, b, rows, out);
}

/* Encodes all sequences as records and decodes them as the trainer does. */
static void
through_codec(const struct teacher *t, enum labels_kind kind, const struct kernels_labels *from, struct labels_batch *batch)
{
	uint64_t counts[V];
	struct labels_unigram *unigram = NULL;
	struct labels_buf buf = {0};
	struct err_note note;
	int32_t tokens[T + 1] = {0};

	for (int v = 0; v < V; v++)
		counts[v] = (uint64_t)(1 + 7 * v % 97);
	REQUIRE(labels_unigram_from_counts(&unigram, counts, V, (double)t->tau, &note) == 0);
	for (int b = 0; b < B; b++) {
		struct labels_spec spec = {.kind = kind, .version = LABELS_VERSION, .context = T, .vocab = V, .n_samples = N, .k = K, .tau = (double)t->tau,
		    .unigram = unigram, .seed = fixture_seed};
		struct hash128 hash;

		tokens[0] = b;
		hash = hash_tokens(tokens, T + 1);
		REQUIRE((kind == LABELS_KIND_SAMPLED ?
		    labels_encode_sampled(&spec, hash, from->n_unique + b * T, from->ids + b * T * N, from->counts + b * T * N, &buf, &note) :
		    labels_encode_topk(&spec, hash, from->ids + b * T * K, from->values + b * T * K, &buf, &note)) == 0);
		REQUIRE(labels_decode(&spec, hash, buf.bytes, buf.len, batch, &note) == 0);
	}
	labels_buf_free(&buf);
	labels_unigram_destroy(&unigram);
}

struct statistic {
	double chi2, df;		/* sums over states */
	double excess, variance;	/* sum over rows of -sum t' log t - H(t), and its variance */
};

/* Adds a state to s. target: [V], the sum of the targets of the state's n rows. */
static void
add_state(struct statistic *s, const double *target, const float *log_t, double n)
{
	double left_seen = 0, left_expected = 0, h = 0, h2 = 0, cells = 0;

	for (int v = 0; v < V; v++) {
		double p = exp((double)log_t[v]), expected = n * N * p, seen = N * target[v];

		h -= p * (double)log_t[v];
		h2 += p * (double)log_t[v] * (double)log_t[v];
		s->excess -= target[v] * (double)log_t[v];
		if (expected < 5) {	/* rare ids share a cell */
			left_seen += seen;
			left_expected += expected;
			continue;
		}
		s->chi2 += (seen - expected) * (seen - expected) / expected;
		cells++;
	}
	if (left_expected >= 5) {
		s->chi2 += (left_seen - left_expected) * (left_seen - left_expected) / left_expected;
		cells++;
	}
	s->df += cells - 1;
	s->excess -= n * h;
	s->variance += n * (h2 - h * h) / N;
}

static struct statistic
measure(const struct teacher *t, const struct labels_batch *batch)
{
	static double sum[STATES][V];
	struct statistic s = {0};

	memset(sum, 0, sizeof(sum));
	CHECK(batch->n_rows == ROWS);
	for (size_t m = 0; m < batch->n_rows; m++) {
		double all = 0;

		for (int64_t i = batch->row_offsets[m]; i < batch->row_offsets[m + 1]; i++)
			all += (double)batch->weights[i];
		/* top-k is renormalized; for sampled labels all is 1 */
		for (int64_t i = batch->row_offsets[m]; i < batch->row_offsets[m + 1]; i++)
			sum[m % STATES][batch->ids[i]] += (double)batch->weights[i] / all;
	}
	for (int state = 0; state < STATES; state++)
		add_state(&s, sum[state], t->log_t + state * V, ROWS / STATES);
	return s;
}

static double
cells_z(const struct statistic *s)
{
	return (cbrt(s->chi2 / s->df) - (1 - 2 / (9 * s->df))) / sqrt(2 / (9 * s->df));
}

static double
entropy_z(const struct statistic *s)
{
	return s->excess / sqrt(s->variance);
}

static void
one(const char *what, struct teacher *t, float tau)
{
	struct kernels_labels out = {.n_unique = calloc(ROWS, sizeof(int32_t)), .ids = calloc(ROWS * N, sizeof(int32_t)),
	    .counts = calloc(ROWS * N, sizeof(int32_t)), .values = calloc(ROWS * N, sizeof(float))};
	struct kernels_labels dense = {.values = t->log_t};
	struct labels_batch sampled = {0}, topk = {0};
	struct statistic s;
	uint64_t seqs[B];

	REQUIRE(out.n_unique != NULL && out.ids != NULL && out.counts != NULL && out.values != NULL);
	for (int b = 0; b < B; b++)
		seqs[b] = (uint64_t)(b % 2) << 48 | (uint64_t)(1 + 37 * b);
	t->tau = tau;
	kernel(t, KERNELS_LABEL_DENSE, seqs, 1, STATES, &dense);
	kernel(t, KERNELS_LABEL_SAMPLED, seqs, B, T, &out);
	through_codec(t, LABELS_KIND_SAMPLED, &out, &sampled);
	s = measure(t, &sampled);
	fprintf(stderr, "%s: sampled, %d draws: cells %.2f (chi-square %.1f of %.0f), entropy %.2f standard errors\n", what, ROWS * N, cells_z(&s), s.chi2,
	    s.df, entropy_z(&s));
	CHECK_ROW(what, fabs(cells_z(&s)) <= LIMIT);
	CHECK_ROW(what, fabs(entropy_z(&s)) <= LIMIT);
	kernel(t, KERNELS_LABEL_TOPK, seqs, B, T, &out);
	through_codec(t, LABELS_KIND_TOPK, &out, &topk);
	s = measure(t, &topk);
	fprintf(stderr, "%s: top-%d: cells %.1f, entropy %.1f standard errors\n", what, K, cells_z(&s), entropy_z(&s));
	CHECK_ROW(what, cells_z(&s) > LIMIT);
	CHECK_ROW(what, entropy_z(&s) < -LIMIT);
	labels_batch_free(&sampled);
	labels_batch_free(&topk);
	free(out.n_unique);
	free(out.ids);
	free(out.counts);
	free(out.values);
}

int
main(void)
{
	struct teacher t = {0};

	fixture_start();
	t.kernels = fixture_kernels(2);
	t.h = noise(ROWS * C, 1);
	for (int m = STATES; m < ROWS; m++)
		memcpy(t.h + m * C, t.h + m % STATES * C, C * sizeof(float));
	t.w = noise(V * C, 2 / sqrtf(C));
	one("tau 1", &t, 1);
	one("tau 0.25", &t, 0.25f);
	one("tau 2", &t, 2);
	fixture_close("arrays");
	kernels_destroy(&t.kernels);
	return check_done();
}
