/* SPDX-License-Identifier: Apache-2.0 */
/* References of the output layer: losses from their definitions, labels by a scan of all ids per draw. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash/hash.h"
#include "base/random/random.h"
#include "reference.h"
#include "base/log/log.h"
#include "base/mem/mem.h"

static void
logits_of(double *u, const float *h, const float *w_out, int64_t c, int64_t v)
{
	for (int64_t i = 0; i < v; i++) {
		u[i] = 0;
		for (int64_t j = 0; j < c; j++)
			u[i] += (double)h[j] * (double)w_out[i * c + j];
	}
}

/* Log-sum-exp over the ids whose skip is 0 (skip NULL: over all ids). */
static double
lse_of(const double *u, const double *skip, int64_t v)
{
	double top = -INFINITY, sum = 0;

	for (int64_t i = 0; i < v; i++)
		if (skip == NULL || skip[i] == 0)
			top = fmax(top, u[i]);
	for (int64_t i = 0; i < v; i++)
		if (skip == NULL || skip[i] == 0)
			sum += exp(u[i] - top);
	return top + log(sum);
}

static double *
doubles(int64_t n)
{
	double *p = mem_alloc((size_t)n, sizeof(double));

	if (p == NULL)
		log_fatal("kernels.memory", "doubles=%lld", (long long)n);
	return p;
}

/* Sets t[v] to the soft label and kept[v] to 1 for listed ids. Returns the probability of the ghost token. */
static double
soft_label(double *t, double *kept, const struct kernels_targets *targets, int64_t m, int64_t v)
{
	double sum = 0;

	for (int64_t i = 0; i < v; i++) {
		t[i] = targets->dense != NULL ? (double)targets->dense[m * v + i] : 0;
		kept[i] = 0;
	}
	if (targets->dense != NULL)
		return 0;
	for (int64_t i = targets->offsets[m]; i < targets->offsets[m + 1]; i++) {
		t[targets->ids[i]] = (double)targets->values[i];
		kept[targets->ids[i]] = 1;
		sum += (double)targets->values[i];
	}
	switch (targets->residual) {
	case KERNELS_RESIDUAL_TRUE_TOKEN:
		t[targets->next[m]] += fmax(0, 1 - sum);
		return 0;
	case KERNELS_RESIDUAL_RENORMALISE:
		for (int64_t i = 0; i < v; i++)
			t[i] /= sum;
		return 0;
	case KERNELS_RESIDUAL_GHOST:
		break;
	}
	return fmax(0, 1 - sum);
}

double
kernels_token_weight_ref(const float *h, const float *w_out, const struct kernels_targets *targets, int64_t m, int64_t c, int64_t v)
{
	double *z = doubles(v), *t = doubles(v), *kept = doubles(v), w = (double)targets->weight[m], ghost, t_y, p_y;
	int32_t y = targets->next[m];

	if (w == 0 || targets->token_weight == KERNELS_TOKEN_WEIGHT_CONSTANT)
		goto out;
	logits_of(z, h + m * c, w_out, c, v);
	ghost = soft_label(t, kept, targets, m, v);
	t_y = t[y];
	p_y = exp(z[y] - lse_of(z, NULL, v));
	if (ghost > 0 && kept[y] == 0) {
		t_y = ghost;
		p_y = exp(lse_of(z, kept, v) - lse_of(z, NULL, v));
	}
	if (targets->token_weight == KERNELS_TOKEN_WEIGHT_MARGIN)
		w *= t_y > 0 ? fmax(0, 1 - p_y / t_y) : 0;
	else
		w *= fmin(1, t_y);
out:
	free(z);
	free(t);
	free(kept);
	return w;
}

void
kernels_output_loss_ref(const float *h, const float *w_out, const struct kernels_targets *targets, float grad_scale, float *d_h,
    float *d_w, struct kernels_loss_sums *sums, int64_t c, int64_t v)
{
	double *z = doubles(v), *t = doubles(v), *kept = doubles(v), *grad = doubles(v);

	*sums = (struct kernels_loss_sums){.finite = true};
	for (int64_t m = 0; m < targets->n_rows; m++) {
		double w = targets->weight != NULL ? (double)targets->weight[m] : 0, lse, soft = 0, entropy = 0, loss;
		double a = targets->loss_weight != NULL ? (double)targets->loss_weight[m] : 1;
		int32_t y = targets->next[m];
		int64_t best = 0;

		if (y == KERNELS_NO_TARGET || a == 0) {
			if (d_h != NULL)
				memset(d_h + m * c, 0, (size_t)c * sizeof(*d_h));
			continue;
		}
		logits_of(z, h + m * c, w_out, c, v);
		lse = lse_of(z, NULL, v);
		for (int64_t i = 0; i < v; i++) {
			best = z[i] > z[best] ? i : best;
			grad[i] = exp(z[i] - lse);
		}
		if (w > 0) {
			double ghost = soft_label(t, kept, targets, m, v);

			w = kernels_token_weight_ref(h, w_out, targets, m, c, v);
			sums->weight += w;
			for (int64_t i = 0; i < v; i++) {
				soft += t[i] * (lse - z[i]);
				entropy -= t[i] > 0 ? t[i] * log(t[i]) : 0;
				grad[i] -= w * t[i];
			}
			if (ghost > 0) {
				double lse_tail = lse_of(z, kept, v);

				soft += ghost * (lse - lse_tail);
				entropy -= ghost * log(ghost);
				for (int64_t i = 0; i < v; i++)
					grad[i] -= kept[i] != 0 ? 0 : w * ghost * exp(z[i] - lse_tail);
			}
			sums->kd_rows++;
			sums->kd_loss_weight += a;
		}
		grad[y] -= 1 - w;
		loss = (1 - w) * (lse - z[y]) + w * soft;
		sums->loss += a * loss;
		sums->hard += a * (lse - z[y]);
		sums->soft += a * soft;
		sums->entropy += a * entropy;
		sums->loss_weight += a;
		sums->correct += best == y;
		sums->rows++;
		if (targets->row_loss != NULL)
			targets->row_loss[m] = (float)loss;
		if (targets->row_hard != NULL)
			targets->row_hard[m] = (float)(lse - z[y]);
		for (int64_t j = 0; d_h != NULL && j < c; j++) {
			double s = 0;

			for (int64_t i = 0; i < v; i++) {
				s += grad[i] * (double)w_out[i * c + j];
				d_w[i * c + j] += (float)((double)grad_scale * a * grad[i] * (double)h[m * c + j]);
			}
			d_h[m * c + j] = (float)((double)grad_scale * a * s);
		}
	}
	free(z);
	free(t);
	free(kept);
	free(grad);
}

/* Draws from t, the probabilities of the n_valid ids, with a scan of all ids for each draw. */
static void
draw_row(const struct kernels_label_spec *spec, const double *t, int64_t n_valid, uint64_t seq, uint32_t position, int32_t *ids,
    int32_t *counts, int32_t *n_unique)
{
	double *hits = doubles(n_valid), total = 0;
	int n = 0;

	for (int64_t v = 0; v < n_valid; v++)
		total += t[v];
	for (int d = 0; d < spec->n; d++) {
		double bound, cumulative = 0;
		uint32_t words[4];
		int64_t v;

		random_words(spec->seed, RANDOM_PURPOSE_LABEL, seq, position, (uint32_t)d / 2, words);
		bound = total * (d % 2 == 0 ? random_uniform53(words[0], words[1]) : random_uniform53(words[2], words[3]));
		for (v = 0; v < n_valid - 1; v++)
			if ((cumulative += t[v]) > bound)
				break;
		hits[v]++;
	}
	for (int64_t v = 0; v < n_valid; v++) {
		if (hits[v] == 0)
			continue;
		ids[n] = (int32_t)v;
		counts[n++] = (int32_t)hits[v];
	}
	*n_unique = n;
	free(hits);
}

static int64_t
rank_of(const double *u, int64_t n, int64_t y)
{
	int64_t rank = 0;

	for (int64_t v = 0; v < n; v++)
		rank += u[v] > u[y] || (u[v] == u[y] && v < y);
	return rank;
}

void
kernels_output_label_ref(const float *h, const float *w_out, const struct kernels_label_spec *spec, const int32_t *next,
    const uint64_t *seqs, int64_t b, int64_t t, int64_t c, int64_t v, struct kernels_labels *out)
{
	int64_t n_valid = spec->n_valid > 0 ? spec->n_valid : v;
	double *u = doubles(v), *p = doubles(v);

	for (int64_t m = 0; m < b * t; m++) {
		double lse;

		logits_of(u, h + m * c, w_out, c, v);
		if (spec->score) {
			out->loss_nats[m] = (float)(lse_of(u, NULL, n_valid) - u[next[m]]);
			out->rank[m] = (int32_t)rank_of(u, n_valid, next[m]);
		}
		if (spec->kind == KERNELS_LABEL_NONE)
			continue;
		for (int64_t i = 0; i < v; i++)
			p[i] = u[i] / (double)spec->tau;
		lse = lse_of(p, NULL, n_valid);
		if (spec->kind == KERNELS_LABEL_DENSE)
			for (int64_t i = 0; i < v; i++)
				out->values[m * v + i] = i < n_valid ? (float)(p[i] - lse) : -INFINITY;
		for (int64_t i = 0; i < n_valid; i++) {
			int64_t rank = spec->kind == KERNELS_LABEL_TOPK ? rank_of(u, n_valid, i) : spec->n;

			if (rank < spec->n) {
				out->ids[m * spec->n + rank] = (int32_t)i;
				out->values[m * spec->n + rank] = (float)(p[i] - lse);
			}
			p[i] = exp(p[i] - lse);
		}
		if (spec->kind == KERNELS_LABEL_SAMPLED)
			draw_row(spec, p, n_valid, seqs[m / t], (uint32_t)(m % t), out->ids + m * spec->n, out->counts + m * spec->n,
			    out->n_unique + m);
	}
	free(u);
	free(p);
}
