/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/*
 * Tiles of CPU__QUERIES rows. The scores of a tile are [CPU__QUERIES, keys up to the tile's last row], so a
 * thread needs CPU__QUERIES * T floats. A task is a tile (forward) or a key head (backward); tasks write
 * disjoint outputs, and the order inside a task is fixed.
 */

/* n rows of one head as fp32: its own data in fp32, else widened into room. */
static struct cpu__rows
head_rows(const struct kernels *k, const struct kernels_heads *x, int64_t row, int64_t n, int64_t h,
    float *room, bool fill)
{
	int64_t d = x->head_dim;

	if (x->dtype == DTYPE_F32)
		return (struct cpu__rows){(float *)x->data + cpu__head_at(x, row, h), x->stride};
	for (int64_t i = 0; i < n && fill; i++)
		cpu__read(k, x->data, x->dtype, cpu__head_at(x, row + i, h), d, room + i * d);
	return (struct cpu__rows){room, d};
}

void
cpu__heads_store(const struct kernels *k, const struct kernels_heads *x, int64_t row, int64_t n, int64_t h,
    struct cpu__rows from)
{
	for (int64_t i = 0; i < n && x->dtype != DTYPE_F32; i++)
		cpu__store(k, x->data, x->dtype, cpu__head_at(x, row + i, h), x->head_dim, from.data + i * from.stride);
}

void
cpu__attention(struct kernels *k, const struct kernels_heads *out, float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, int64_t b, int64_t t)
{
	int64_t heads = q->n_heads, d = q->head_dim, group, tiles = (t + CPU__QUERIES - 1) / CPU__QUERIES,
		tile_rows = cpu__min(CPU__QUERIES, t);
	int64_t room = tile_rows * t + (q->dtype == DTYPE_F32 ? 0 : 2 * (tile_rows + t) * d);
	float scale = 1.0f / sqrtf((float)d);
	float *scratch;

	group = heads / key->n_heads;
	scratch = cpu__scratch(k, (size_t)k->threads * (size_t)room);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * heads * tiles; task++) {
		int64_t tile = task % tiles, h = task / tiles % heads, row0 = task / tiles / heads * t;
		int64_t t0 = tile * CPU__QUERIES, n = cpu__min(CPU__QUERIES, t - t0), keys = t0 + n;
		float *s = scratch + omp_get_thread_num() * room, *at = s + tile_rows * t;
		struct cpu__rows mine = head_rows(k, q, row0 + t0, n, h, at, true),
				 to = head_rows(k, out, row0 + t0, n, h, at + tile_rows * d, false);
		struct cpu__rows theirs = head_rows(k, key, row0, keys, h / group, at + 2 * tile_rows * d, true);
		struct cpu__rows values = head_rows(
		    k, value, row0, keys, h / group, at + (2 * tile_rows + t) * d, true);

		cpu__sgemm(false, true, n, keys, d, 1, mine.data, mine.stride, theirs.data, theirs.stride, 0, s, keys);
		for (int64_t i = 0; i < n; i++)
			lse[(row0 / t * heads + h) * t + t0 + i] = k->vec->softmax(
			    s + i * keys, t0 + i + 1, keys, scale);
		cpu__sgemm(false, false, n, d, keys, 1, s, keys, values.data, values.stride, 0, to.data, to.stride);
		cpu__heads_store(k, out, row0 + t0, n, h, to);
	}
}

/* A task of backward: the tiles of one key head, and the scratch of its thread. */
struct task_bwd {
	struct kernels *k;
	const struct kernels_heads *q, *d_q, *o, *d_o;
	struct cpu__rows key, value, d_key, d_value;		/* of the whole sequence */
	float *p, *d_p;					/* [tile_rows, t] */
	float *room;					/* of a tile's rows of q, d_q, o, d_o: 4 [tile_rows, D] */
	int64_t tile_rows;
};

/* The gradients of one tile of queries of head h; d_key and d_value of its key head are added to. */
static void
tile_bwd(const struct task_bwd *w, const float *lse, int64_t row0, int64_t t0, int64_t n, int64_t h)
{
	struct kernels *k = w->k;
	int64_t d = w->q->head_dim, keys = t0 + n, row = row0 + t0, size = w->tile_rows * d;
	struct cpu__rows q = head_rows(k, w->q, row, n, h, w->room, true),
			 d_q = head_rows(k, w->d_q, row, n, h, w->room + size, false);
	struct cpu__rows out = head_rows(k, w->o, row, n, h, w->room + 2 * size, true);
	struct cpu__rows d_out = head_rows(k, w->d_o, row, n, h, w->room + 3 * size, true);
	float scale = 1.0f / sqrtf((float)d), *p = w->p, *d_p = w->d_p;

	cpu__sgemm(false, true, n, keys, d, 1, q.data, q.stride, w->key.data, w->key.stride, 0, p, keys);
	cpu__sgemm(false, true, n, keys, d, 1, d_out.data, d_out.stride, w->value.data, w->value.stride, 0, d_p, keys);
	for (int64_t i = 0; i < n; i++) {
		float delta = k->vec->dot(d_out.data + i * d_out.stride, out.data + i * out.stride, d);

		k->vec->softmax_bwd(p + i * keys, d_p + i * keys, t0 + i + 1, keys, scale, lse[t0 + i], delta);
	}
	cpu__sgemm(true, false, keys, d, n, 1, p, keys, d_out.data, d_out.stride, 1, w->d_value.data,
	    w->d_value.stride);
	cpu__sgemm(true, false, keys, d, n, 1, d_p, keys, q.data, q.stride, 1, w->d_key.data, w->d_key.stride);
	cpu__sgemm(false, false, n, d, keys, 1, d_p, keys, w->key.data, w->key.stride, 0, d_q.data, d_q.stride);
	cpu__heads_store(k, w->d_q, row, n, h, d_q);
}

void
cpu__attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key,
    struct kernels_heads *d_value, const struct kernels_heads *d_o, const struct kernels_heads *o,
    const float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, int64_t b, int64_t t)
{
	int64_t heads = q->n_heads, d = q->head_dim, group, tile_rows = cpu__min(CPU__QUERIES, t);
	int64_t room = tile_rows * t * 2 + (q->dtype == DTYPE_F32 ? 0 : 4 * (tile_rows + t) * d);
	float *scratch;

	group = heads / key->n_heads;
	scratch = cpu__scratch(k, (size_t)k->threads * (size_t)room);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * key->n_heads; task++) {
		int64_t kh = task % key->n_heads, seq = task / key->n_heads, row0 = seq * t;
		float *p = scratch + omp_get_thread_num() * room, *at = p + tile_rows * t * 2;
		const struct task_bwd w = {.k = k,
		    .q = q,
		    .d_q = d_q,
		    .o = o,
		    .d_o = d_o,
		    .p = p,
		    .d_p = p + tile_rows * t,
		    .tile_rows = tile_rows,
		    .room = at + 4 * t * d,
		    .key = head_rows(k, key, row0, t, kh, at, true),
		    .value = head_rows(k, value, row0, t, kh, at + t * d, true),
		    .d_key = head_rows(k, d_key, row0, t, kh, at + 2 * t * d, false),
		    .d_value = head_rows(k, d_value, row0, t, kh, at + 3 * t * d, false)};

		for (int64_t i = 0; i < t; i++) {
			memset(w.d_key.data + i * w.d_key.stride, 0, (size_t)d * sizeof(float));
			memset(w.d_value.data + i * w.d_value.stride, 0, (size_t)d * sizeof(float));
		}
		for (int64_t h = kh * group; h < (kh + 1) * group; h++)
			for (int64_t t0 = 0; t0 < t; t0 += CPU__QUERIES)
				tile_bwd(&w, lse + (seq * heads + h) * t, row0, t0, cpu__min(CPU__QUERIES, t - t0), h);
		cpu__heads_store(k, d_key, row0, t, kh, w.d_key);
		cpu__heads_store(k, d_value, row0, t, kh, w.d_value);
	}
}
