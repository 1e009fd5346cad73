/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash/hash.h"
#include "base/log/log.h"
#include "base/mem/mem.h"
#include "base/random/random.h"

/* The rank of y among u[0..n); ties: lower id first. If u_y is NaN, the worst rank. */
static int64_t
rank_of(const struct vec *vec, const float *u, int64_t n, int32_t y)
{
	if (!(u[y] == u[y]))
		return n - 1;
	return vec->count_from(u, y, u[y]) + vec->count_above(u + y + 1, n - y - 1, u[y]);
}

/* Sums that vec->grain writes for n numbers. */
static int64_t
groups_of(int64_t n)
{
	return (n + VEC_GROUP - 1) / VEC_GROUP;
}

static int
ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/*
 * Makes n draws in one sweep. weights: exp((u - max)/tau) rounded to VEC_GRAIN, so every sum of them is exact
 * in fp64, and "the smallest v whose cumulative sum exceeds u * total" does not depend on the order of
 * summation. sums: the sum of each group of VEC_GROUP weights; the sweep skips whole groups by them and goes id by
 * id only in the group that holds a draw. Ids of weight 0 are never drawn. A row that is not finite gives its last
 * id; its score is NaN.
 */
static void
draw(const float *weights, const double *sums, int64_t n_ids, const double *uniforms, double *bounds, int n, int32_t *ids,
    int32_t *counts, int32_t *n_unique)
{
	double total = 0, before = 0;
	int64_t at = 0;
	int unique = 0;

	for (int64_t i = 0; i < groups_of(n_ids); i++)
		total += sums[i];
	for (int d = 0; d < n; d++)
		bounds[d] = uniforms[d] * total;
	qsort(bounds, (size_t)n, sizeof(*bounds), ascending);
	for (int d = 0; d < n; d++) {
		/* before = sum of weights[0..at); advance until before + weights[at] exceeds the bound */
		while (at < n_ids - 1) {
			if (at % VEC_GROUP == 0 && at + VEC_GROUP < n_ids && !(before + sums[at / VEC_GROUP] > bounds[d])) {
				before += sums[at / VEC_GROUP];
				at += VEC_GROUP;
				continue;
			}
			while (at < n_ids - 1 && !(before + (double)weights[at] > bounds[d])) {
				before += (double)weights[at++];
				if (at % VEC_GROUP == 0)
					break;
			}
			if (at == n_ids - 1 || before + (double)weights[at] > bounds[d])
				break;
		}
		if (unique > 0 && ids[unique - 1] == at) {
			counts[unique - 1]++;
		} else {
			ids[unique] = (int32_t)at;
			counts[unique++] = 1;
		}
	}
	for (int i = unique; i < n; i++)
		ids[i] = counts[i] = 0;
	*n_unique = unique;
}

/*
 * True if a is worse than b: a lower value, or the same value and a higher id. NaN is worse than any number.
 */
static bool
worse(const float *u, int32_t a, int32_t b)
{
	if (u[a] == u[b] || (!(u[a] == u[a]) && !(u[b] == u[b])))
		return a > b;
	return u[a] < u[b] || !(u[a] == u[a]);
}

static void
sift_down(const float *u, int32_t *heap, int n, int i)
{
	for (;;) {
		int child = 2 * i + 1;
		int32_t id;

		if (child >= n)
			return;
		if (child + 1 < n && worse(u, heap[child + 1], heap[child]))
			child++;
		if (!worse(u, heap[child], heap[i]))
			return;
		id = heap[i];
		heap[i] = heap[child];
		heap[child] = id;
		i = child;
	}
}

/* The k best ids, best first, by a heap with the worst on top. Of equal values the lower id is better. */
static void
top_k(const float *u, int64_t n_ids, int k, int32_t *ids)
{
	for (int i = 0; i < k; i++)
		ids[i] = i;
	for (int i = k / 2 - 1; i >= 0; i--)
		sift_down(u, ids, k, i);
	for (int64_t v = k; v < n_ids; v++) {
		if (!(u[v] > u[ids[0]]) && u[ids[0]] == u[ids[0]])
			continue;
		if (!(u[v] == u[v]))
			continue;
		ids[0] = (int32_t)v;
		sift_down(u, ids, k, 0);
	}
	for (int i = k - 1; i > 0; i--) {
		int32_t id = ids[0];

		ids[0] = ids[i];
		ids[i] = id;
		sift_down(u, ids, i, 0);
	}
}

struct task {
	const struct vec *vec;
	const struct kernels_label_spec *spec;
	const int32_t *next;
	const uint64_t *seqs;
	int64_t t, v, n_valid;
	struct kernels_labels *out;
};

/* Labels one row of logits u. work: [V] floats; uniforms, bounds: [n]; sums: [groups_of(V)]. */
static void
row_labels(const struct task *task, const float *u, int64_t m, float *work, double *uniforms, double *bounds, double *sums)
{
	const struct kernels_label_spec *spec = task->spec;
	const struct vec *vec = task->vec;
	struct kernels_labels *out = task->out;
	int64_t n_valid = task->n_valid, n = spec->n;
	float top = vec->max(u, n_valid), inv_tau = 1.0f / spec->tau, sum = 0;

	if (spec->score) {
		int32_t y = task->next[m];

		if (y < 0 || y >= n_valid)
			log_fatal("kernels.targets", "row=%lld next=%d vocab=%lld", (long long)m, (int)y, (long long)n_valid);
		sum = vec->exp_sum(work, u, 1, top, n_valid);
		out->loss_nats[m] = (float)((double)top + log((double)sum) - (double)u[y]);
		out->rank[m] = (int32_t)rank_of(vec, u, n_valid, y);
	}
	if (spec->kind == KERNELS_LABEL_NONE)
		return;
	if (!spec->score || spec->tau != 1) {			/* otherwise work has them from the score */
		vec->affine(work, u, 1, top, n_valid);		/* subtracted before the division, for
								 * precision with large logits */
		sum = vec->exp_sum(work, work, inv_tau, 0, n_valid);
	}
	if (spec->kind == KERNELS_LABEL_SAMPLED) {
		uint32_t words[4];

		for (int64_t d = 0; d < n; d++) {
			if (d % 2 == 0)
				random_words(spec->seed, RANDOM_PURPOSE_LABEL, task->seqs[m / task->t], (uint32_t)(m % task->t),
				    (uint32_t)(d / 2), words);
			uniforms[d] = random_uniform53(words[d % 2 * 2], words[d % 2 * 2 + 1]);
		}
		vec->grain(work, sums, work, n_valid);
		draw(work, sums, n_valid, uniforms, bounds, spec->n, out->ids + m * n, out->counts + m * n, out->n_unique + m);
	} else {
		double log_sum = log((double)sum);

		if (spec->kind == KERNELS_LABEL_TOPK) {
			top_k(u, n_valid, spec->n, out->ids + m * n);
			for (int64_t i = 0; i < n; i++)
				out->values[m * n + i] = (float)(((double)u[out->ids[m * n + i]] - (double)top) / (double)spec->tau - log_sum);
		} else {
			float *values = out->values + m * task->v;

			vec->affine(values, u, 1, top, n_valid);
			vec->affine(values, values, inv_tau, (float)log_sum, n_valid);
			for (int64_t i = n_valid; i < task->v; i++)
				values[i] = -INFINITY;
		}
	}
}

void
cpu__output_label(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_label_spec *spec, const int32_t *next, const uint64_t *seqs, int64_t b, int64_t t, struct kernels_labels *out)
{
	int64_t m = b * t, c = kernels__cols(h), v = w_out->dims[0], chunk = cpu__logit_rows(v), draws, doubles, stride;
	struct task task = {k->vec, spec, next, seqs, t, v, spec->n_valid > 0 ? spec->n_valid : v, out};
	float *logits, *work;

	chunk = chunk < m ? chunk : m;
	draws = spec->kind == KERNELS_LABEL_SAMPLED ? spec->n : 0;
	doubles = spec->kind == KERNELS_LABEL_SAMPLED ? 2 * draws + groups_of(v) : 0;
	stride = (v + 15) / 16 * 16 + 2 * doubles;		/* per thread: V floats, then doubles */
	logits = cpu__scratch(k, ((size_t)chunk * (size_t)v + 15) / 16 * 16 + (size_t)k->threads * (size_t)stride);
	work = logits + (chunk * v + 15) / 16 * 16;
	for (int64_t begin = 0; begin < m; begin += chunk) {
		int64_t n = m - begin < chunk ? m - begin : chunk;

		k->backend->matmul(k, n, v, c, &(struct kernels__matrix){kernels__element(h->data, h->dtype, begin * c), h->dtype, c, false},
		    &(struct kernels__matrix){w_out->data, w_out->dtype, c, true, true, chunk < m}, &(struct kernels__matrix){logits, DTYPE_F32, v, false},
		    more->bias, false);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic, 4) if (k->threads > 1 && n * v > k->small)
		for (int64_t i = 0; i < n; i++) {
			float *mine = work + omp_get_thread_num() * stride;
			double *uniforms = (double *)(void *)(mine + stride - 2 * doubles);

			if (more->soft_cap > 0)
				k->vec->soft_cap(logits + i * v, logits + i * v, 1, more->soft_cap, v);
			row_labels(&task, logits + i * v, begin + i, mine, uniforms, uniforms + draws, uniforms + 2 * draws);
		}
	}
}
