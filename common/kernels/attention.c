#include "kernels/internal.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/*
 * Tiles of QUERIES rows: scores of a tile are [QUERIES, keys up to the tile's last row], so memory is QUERIES * T floats a thread.
 * Tasks are whole tiles (forward) or whole key heads (backward) and write disjoint outputs; inside a task the order is fixed.
 */
#define QUERIES 64

static int64_t
min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static void
check_heads(const struct kernels_heads *q, const struct kernels_heads *key, const struct kernels_heads *value)
{
	kernels__shape(kernels__heads_fit(q) && kernels__heads_fit(key) && kernels__heads_fit(value) && q->n_heads % key->n_heads == 0 &&
	    value->n_heads == key->n_heads && key->head_dim == q->head_dim && value->head_dim == q->head_dim, "attention");
}

void
kernels_attention(struct kernels *k, struct tensor *o, float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, int64_t b, int64_t t)
{
	int64_t heads = q->n_heads, d = q->head_dim, group, tiles = (t + QUERIES - 1) / QUERIES, tile_rows = min64(QUERIES, t);
	float scale = 1.0f / sqrtf((float)d);
	float *scratch;

	check_heads(q, key, value);
	kernels__shape(kernels__rows(o) == b * t && kernels__cols(o) == heads * d, "attention");
	group = heads / key->n_heads;
	scratch = kernels__scratch(k, (size_t)k->threads * (size_t)tile_rows * (size_t)t);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * heads * tiles; task++) {
		int64_t tile = task % tiles, h = task / tiles % heads, row0 = task / tiles / heads * t;
		int64_t t0 = tile * QUERIES, n = min64(QUERIES, t - t0), keys = t0 + n;
		float *s = scratch + omp_get_thread_num() * tile_rows * t;

		kernels__sgemm(false, true, n, keys, d, 1, kernels__head_at(q, row0 + t0, h), q->stride, kernels__head_at(key, row0, h / group),
		    key->stride, 0, s, keys);
		for (int64_t i = 0; i < n; i++)
			lse[(row0 / t * heads + h) * t + t0 + i] = k->vec->softmax(s + i * keys, t0 + i + 1, keys, scale);
		kernels__sgemm(false, false, n, d, keys, 1, s, keys, kernels__head_at(value, row0, h / group), value->stride, 0,
		    kernels__f32(o) + (row0 + t0) * heads * d + h * d, heads * d);
	}
}

/* The gradients of one tile of queries of head h; d_key and d_value of its key head are added to. */
static void
tile_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value, const float *d_o,
    const float *o, const float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, int64_t row0, int64_t t0, int64_t n, int64_t h, float *p, float *d_p)
{
	int64_t heads = q->n_heads, d = q->head_dim, kh = h / (heads / key->n_heads), keys = t0 + n;
	const float *d_out = d_o + (row0 + t0) * heads * d + h * d, *out = o + (row0 + t0) * heads * d + h * d;
	float scale = 1.0f / sqrtf((float)d);

	kernels__sgemm(false, true, n, keys, d, 1, kernels__head_at(q, row0 + t0, h), q->stride, kernels__head_at(key, row0, kh), key->stride, 0, p, keys);
	kernels__sgemm(false, true, n, keys, d, 1, d_out, heads * d, kernels__head_at(value, row0, kh), value->stride, 0, d_p, keys);
	for (int64_t i = 0; i < n; i++) {
		float delta = k->vec->dot(d_out + i * heads * d, out + i * heads * d, d);

		k->vec->softmax_bwd(p + i * keys, d_p + i * keys, t0 + i + 1, keys, scale, lse[t0 + i], delta);
	}
	kernels__sgemm(true, false, keys, d, n, 1, p, keys, d_out, heads * d, 1, kernels__head_at(d_value, row0, kh), d_value->stride);
	kernels__sgemm(true, false, keys, d, n, 1, d_p, keys, kernels__head_at(q, row0 + t0, h), q->stride, 1, kernels__head_at(d_key, row0, kh),
	    d_key->stride);
	kernels__sgemm(false, false, n, d, keys, 1, d_p, keys, kernels__head_at(key, row0, kh), key->stride, 0, kernels__head_at(d_q, row0 + t0, h),
	    d_q->stride);
}

void
kernels_attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct tensor *d_o, const struct tensor *o, const float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, int64_t b, int64_t t)
{
	int64_t heads = q->n_heads, d = q->head_dim, group, tile_rows = min64(QUERIES, t);
	float *scratch;

	check_heads(q, key, value);
	check_heads(d_q, d_key, d_value);
	kernels__shape(kernels__rows(o) == b * t && kernels__cols(o) == heads * d && kernels__rows(d_o) == b * t &&
	    kernels__cols(d_o) == heads * d && d_q->n_heads == heads && d_key->n_heads == key->n_heads && d_q->head_dim == d,
	    "attention_bwd");
	group = heads / key->n_heads;
	scratch = kernels__scratch(k, (size_t)k->threads * (size_t)tile_rows * (size_t)t * 2);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * key->n_heads; task++) {
		int64_t kh = task % key->n_heads, seq = task / key->n_heads, row0 = seq * t;
		float *p = scratch + omp_get_thread_num() * tile_rows * t * 2, *d_p = p + tile_rows * t;

		for (int64_t i = 0; i < t; i++) {
			memset(kernels__head_at(d_key, row0 + i, kh), 0, (size_t)d * sizeof(float));
			memset(kernels__head_at(d_value, row0 + i, kh), 0, (size_t)d * sizeof(float));
		}
		for (int64_t h = kh * group; h < (kh + 1) * group; h++)
			for (int64_t t0 = 0; t0 < t; t0 += QUERIES)
				tile_bwd(k, d_q, d_key, d_value, kernels__f32(d_o), kernels__f32(o), lse + (seq * heads + h) * t, q, key,
				    value, row0, t0, min64(QUERIES, t - t0), h, p, d_p);
	}
}
