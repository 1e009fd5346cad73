/* SPDX-License-Identifier: Apache-2.0 */
/*
 * label - a teacher's scores and labels. Each row of logits has a block of threads. Draws are those of
 * cpu/label.c (same random words, same exponential, exact sums): equal logits give equal labels.
 */
#include <math.h>

#include "engine/kernels/cuda/rows.h"

#define GRAIN 0x1p-33

struct label_task {
	float *logits, *weights;		/* [n, v] in rows of ld */
	int64_t v, ld, n_valid, t, begin;	/* row 0 is row `begin` of the call */
	const int32_t *next;
	const uint64_t *seqs;
	int kind, n, padded;			/* padded: n rounded up to a power of two */
	bool score;
	uint32_t seed;
	float tau, soft_cap;
	uint64_t *keys;				/* [n, padded], sort keys */
	float *loss_nats, *values;
	int32_t *rank, *n_unique, *ids, *counts;
};

/* Philox4x32-10 with the key and counter of random_words (base/random). */
__device__ static void
label_words(uint32_t seed, uint64_t seq, uint32_t position, uint32_t draw, uint32_t out[4])
{
	uint32_t k0 = seed, k1 = RANDOM_PURPOSE_LABEL, c0 = (uint32_t)seq, c1 = (uint32_t)(seq >> 32), c2 = position, c3 = draw;

	for (int round = 0; round < 10; round++) {
		uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;

		c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
		c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
		c1 = (uint32_t)b;
		c3 = (uint32_t)a;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	out[0] = c0;
	out[1] = c1;
	out[2] = c2;
	out[3] = c3;
}

/* Sorts n keys, n a power of two, in ascending order (Batcher's bitonic network). */
__device__ static void
sort(uint64_t *keys, int n)
{
	for (int size = 2; size <= n; size *= 2)
		for (int step = size / 2; step > 0; step /= 2) {
			__syncthreads();
			for (int i = (int)threadIdx.x; i < n / 2; i += ROW_THREADS) {
				int low = i / step * step * 2 + i % step, high = low + step;
				uint64_t a = keys[low], b = keys[high];

				if ((a > b) == ((low & size) == 0)) {
					keys[low] = b;
					keys[high] = a;
				}
			}
		}
	__syncthreads();
}

/* A sort key in the order of the numbers: NaN is lowest, -0 equals 0. */
__device__ __forceinline__ uint32_t
order_key(float f)
{
	uint32_t u = bits_of(f == 0 ? 0 : f);

	return f == f ? (u & 0x80000000u ? ~u : u | 0x80000000u) : 0;
}

/* Draws the ids of a row, in ascending order with counts. ends: [ROW_THREADS]. */
__device__ static void
draw(const struct label_task &a, const float *weights, int64_t m, uint64_t *keys, int32_t *ids, int32_t *counts, double *ends)
{
	int64_t per = (a.n_valid + ROW_THREADS - 1) / ROW_THREADS, first = threadIdx.x * per;
	int64_t last = first + per < a.n_valid ? first + per : a.n_valid;
	double sum = 0, total;
	uint32_t words[4];

	for (int64_t i = first; i < last; i++)
		sum += (double)weights[i];
	ends[threadIdx.x] = sum;
	__syncthreads();
	if (threadIdx.x == 0)
		for (int i = 1; i < ROW_THREADS; i++)
			ends[i] += ends[i - 1];
	__syncthreads();
	total = ends[ROW_THREADS - 1];
	for (int d = (int)threadIdx.x; d < a.padded; d += ROW_THREADS) {
		int64_t at = a.n_valid - 1;
		int low = 0, high = ROW_THREADS;
		double bound;

		if (d >= a.n) {
			keys[d] = UINT64_MAX;
			continue;
		}
		label_words(a.seed, a.seqs[m / a.t], (uint32_t)(m % a.t), (uint32_t)(d / 2), words);
		bound = (double)(((uint64_t)words[d % 2 * 2] << 32 | words[d % 2 * 2 + 1]) >> 11) * 0x1p-53 * total;
		while (low < high) {			/* the first range that ends over the bound */
			int middle = (low + high) / 2;

			if (ends[middle] > bound)
				high = middle;
			else
				low = middle + 1;
		}
		if (low < ROW_THREADS) {
			double before = low > 0 ? ends[low - 1] : 0;

			for (at = low * per; at < a.n_valid - 1 && !(before + (double)weights[at] > bound); at++)
				before += (double)weights[at];
		}
		keys[d] = (uint64_t)at;
	}
	sort(keys, a.padded);
	if (threadIdx.x == 0) {
		int unique = 0;

		for (int d = 0; d < a.n; d++) {
			if (unique > 0 && ids[unique - 1] == (int32_t)keys[d]) {
				counts[unique - 1]++;
			} else {
				ids[unique] = (int32_t)keys[d];
				counts[unique++] = 1;
			}
		}
		for (int d = unique; d < a.n; d++)
			ids[d] = counts[d] = 0;
		a.n_unique[m - a.begin] = unique;
	}
}

/* True for ids whose key is over `key`, and for ids with exactly this key up to the id `bound`. */
__device__ __forceinline__ bool
chosen(float u, int64_t i, uint32_t key, int64_t bound)
{
	uint32_t k = order_key(u);

	return k > key || (k == key && i <= bound);
}

__device__ static int
count_chosen(const struct label_task &a, const float *u, uint32_t key, int64_t bound, int *room)
{
	int n = 0;

	for (int64_t i = threadIdx.x; i < a.n_valid; i += ROW_THREADS)
		n += chosen(u[i], i, key, bound);
	return reduced<add_op>(n, room, 0);
}

/*
 * Writes the n best ids to keys, best first. It finds, bit by bit, the largest key that n ids reach, then by
 * bisection the smallest id bound with which n are chosen, and sorts the chosen ids.
 */
__device__ static void
top_k(const struct label_task &a, const float *u, uint64_t *keys, int *room, int *before)
{
	uint32_t key = 0;
	int64_t low = 0, high = a.n_valid - 1;
	int mine = 0, at = 0;

	for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1)
		if (count_chosen(a, u, key | bit, a.n_valid, room) >= a.n)
			key |= bit;
	while (low < high) {
		int64_t middle = (low + high) / 2;

		if (count_chosen(a, u, key, middle, room) >= a.n)
			high = middle;
		else
			low = middle + 1;
	}
	for (int64_t i = threadIdx.x; i < a.n_valid; i += ROW_THREADS)
		mine += chosen(u[i], i, key, low);
	before[threadIdx.x] = mine;
	__syncthreads();
	for (int i = 0; i < (int)threadIdx.x; i++)
		at += before[i];
	for (int64_t i = threadIdx.x; i < a.n_valid; i += ROW_THREADS)
		if (chosen(u[i], i, key, low))
			keys[at++] = (uint64_t)~order_key(u[i]) << 32 | (uint64_t)i;
	for (int i = a.n + (int)threadIdx.x; i < a.padded; i += ROW_THREADS)
		keys[i] = UINT64_MAX;
	sort(keys, a.padded);
}

__global__ static void
row_labels(struct label_task a)
{
	CUDA_SHARED(float, room, WARP);
	CUDA_SHARED(double, wide, WARP);
	CUDA_SHARED(int, counts, WARP);
	CUDA_SHARED(double, ends, ROW_THREADS);
	CUDA_SHARED(int, before, ROW_THREADS);
	int64_t row = blockIdx.x, m = a.begin + row, n_valid = a.n_valid;
	float *u = a.logits + row * a.ld, *weights = a.weights + row * a.ld, inv_tau = 1.0f / a.tau;
	float top = cap_and_max(u, a.v, n_valid, a.soft_cap, room), sum = 0;
	uint64_t *keys = a.keys + row * a.padded;
	double log_sum;

	if (a.score) {
		int32_t y = a.next[m];
		float u_y = u[y];
		int rank = 0;

		for (int64_t i = threadIdx.x; i < n_valid; i += ROW_THREADS) {
			sum += row_exp(u[i] - top);
			rank += i < y ? u[i] >= u_y : u[i] > u_y;
		}
		log_sum = log(reduced<add_op>((double)sum, wide, 0.0));
		rank = reduced<add_op>(rank, counts, 0);
		if (threadIdx.x == 0) {
			a.loss_nats[row] = (float)((double)top + log_sum - (double)u_y);
			a.rank[row] = u_y == u_y ? rank : (int)n_valid - 1;
		}
	}
	if (a.kind == KERNELS_LABEL_NONE)
		return;
	sum = 0;
	for (int64_t i = threadIdx.x; i < n_valid; i += ROW_THREADS) {
		float w = row_exp((u[i] - top) * inv_tau);
		const double magic = 1.5 * 0x1p52 * GRAIN;

		sum += w;
		weights[i] = a.kind == KERNELS_LABEL_SAMPLED ? (float)(((double)w + magic) - magic) : w;
	}
	log_sum = log(reduced<add_op>((double)sum, wide, 0.0));		/* its barriers make the weights
									 * visible to all threads */
	if (a.kind == KERNELS_LABEL_SAMPLED) {
		draw(a, weights, m, keys, a.ids + row * a.n, a.counts + row * a.n, ends);
	} else if (a.kind == KERNELS_LABEL_TOPK) {
		top_k(a, u, keys, counts, before);
		for (int i = (int)threadIdx.x; i < a.n; i += ROW_THREADS) {
			int32_t id = (int32_t)(keys[i] & 0xffffffffu);

			a.ids[row * a.n + i] = id;
			a.values[row * a.n + i] = (float)(((double)u[id] - (double)top) / (double)a.tau - log_sum);
		}
	} else {
		for (int64_t i = threadIdx.x; i < a.v; i += ROW_THREADS)
			a.values[row * a.v + i] = i < n_valid ? (u[i] - top) * inv_tau - (float)log_sum : -INFINITY;
	}
}

static void
fetch(struct kernels *k, void *to, int64_t at, const void *from, int64_t n)
{
	if (to != NULL)
		cuda__fetch(k, (char *)to + 4 * at, from, (size_t)(4 * n));
}

void
cuda__output_label(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_label_spec *spec, const int32_t *next, const uint64_t *seqs, int64_t b, int64_t t, struct kernels_labels *out)
{
	int64_t m = b * t, c = kernels__cols(h), v = w_out->dims[0], chunk = cuda_chunk_rows(v, m), ld = cuda_row_floats(v), width, n_ids;
	bool sampled = spec->kind == KERNELS_LABEL_SAMPLED, top = spec->kind == KERNELS_LABEL_TOPK, dense = spec->kind == KERNELS_LABEL_DENSE;
	struct label_task a = {};
	float *rows;

	a.v = v;
	a.ld = ld;
	a.n_valid = spec->n_valid > 0 ? spec->n_valid : v;
	a.t = t;
	a.kind = spec->kind;
	a.n = sampled || top ? spec->n : 0;
	a.score = spec->score;
	a.seed = spec->seed;
	a.tau = spec->kind != KERNELS_LABEL_NONE ? spec->tau : 1;
	a.soft_cap = more->soft_cap;
	for (a.padded = 1; a.padded < a.n; a.padded *= 2)
		;
	for (int64_t i = 0; i < m && spec->score; i++)
		if (next[i] < 0 || next[i] >= a.n_valid)
			log_fatal("kernels.targets", "row=%lld next=%d vocab=%lld", (long long)i, (int)next[i], (long long)a.n_valid);
	a.next = (const int32_t *)cuda__upload(k, SLOT_NEXT, spec->score ? next : NULL, (size_t)m * sizeof(*next));
	a.seqs = (const uint64_t *)cuda__upload(k, SLOT_SEQS, seqs, (size_t)b * sizeof(*seqs));
	width = dense ? v : a.n;
	n_ids = chunk * a.n;
	a.logits = (float *)cuda__room(k, ROOM_LOGITS, (size_t)(chunk * ld) * sizeof(float));
	a.weights = (float *)cuda__room(k, ROOM_GRADIENT, (size_t)(chunk * ld) * sizeof(float));
	a.keys = (uint64_t *)cuda__room(k, ROOM_IDS, (size_t)(chunk * a.padded) * sizeof(*a.keys));
	rows = (float *)cuda__room(k, ROOM_ROWS, (size_t)(3 * chunk + 2 * n_ids + chunk * width + 1) * sizeof(float));
	a.loss_nats = rows;
	a.rank = (int32_t *)(rows + chunk);
	a.n_unique = (int32_t *)(rows + 2 * chunk);
	a.ids = (int32_t *)(rows + 3 * chunk);
	a.counts = a.ids + n_ids;
	a.values = (float *)(a.counts + n_ids);
	for (a.begin = 0; a.begin < m; a.begin += chunk) {
		int64_t n = m - a.begin < chunk ? m - a.begin : chunk;
		struct kernels__matrix h_rows = {kernels__element(h->data, h->dtype, a.begin * c), h->dtype, c, false, false};

		row_logits(k, a.logits, n, &h_rows, w_out, more->bias);
		CUDA_RUN(k, row_labels, (unsigned)n, ROW_THREADS, a);
		fetch(k, spec->score ? out->loss_nats : NULL, a.begin, a.loss_nats, n);
		fetch(k, spec->score ? out->rank : NULL, a.begin, a.rank, n);
		fetch(k, sampled ? out->n_unique : NULL, a.begin, a.n_unique, n);
		fetch(k, sampled || top ? out->ids : NULL, a.begin * a.n, a.ids, n * a.n);
		fetch(k, sampled ? out->counts : NULL, a.begin * a.n, a.counts, n * a.n);
		fetch(k, top || dense ? out->values : NULL, a.begin * width, a.values, n * width);
	}
}
