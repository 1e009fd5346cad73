/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention - in bf16 on matrix units: products read q, k and v in place; probabilities are rounded to bf16
 * before they are multiplied. fp32 uses the shared kernels.
 */
#include "engine/kernels/onednn/onednn.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log/log.h"
#include "base/mem/mem.h"

/* The products of one tile of queries; keys: up to the tile's last row. */
struct tile {
	int64_t n, keys;
	const struct primitive *scores;			/* S [n, keys] = Q K^T */
	const struct primitive *out;			/* O [n, D] = P V */
	const struct primitive *d_probs;			/* d_P [n, keys] = d_O V^T */
	const struct primitive *d_value, *d_key;		/* [keys, D] += P^T d_O, d_S^T Q */
	const struct primitive *d_query;			/* [n, D] = d_S K */
};

/* Tiles of a sequence of t; *room: scratch of a thread's products, in floats. The caller frees the tiles. */
static struct tile *
tiles_of(struct kernels *k, const struct kernels_heads *q, const struct kernels_heads *key, const struct kernels_heads *value, int64_t t,
    int64_t d_q_stride, int64_t d_key_ld, int64_t *room)
{
	const int64_t d = q->head_dim, out_ld = q->n_heads * d, n_tiles = (t + CPU__QUERIES - 1) / CPU__QUERIES;
	const enum dtype half = DTYPE_BF16, full = DTYPE_F32;
	struct tile *tiles = mem_alloc((size_t)n_tiles, sizeof(*tiles));
	size_t most = 0;

	if (tiles == NULL)
		log_fatal("kernels.memory", "what=attention");
	memset(tiles, 0, (size_t)n_tiles * sizeof(*tiles));
	for (int64_t i = 0; i < n_tiles; i++) {
		struct tile *w = &tiles[i];
		const int64_t n = cpu__min(CPU__QUERIES, t - i * CPU__QUERIES), keys = i * CPU__QUERIES + n;
		const struct kernels__matrix queries = {NULL, half, q->stride, false}, k_rows = {NULL, half, key->stride, false};
		const struct kernels__matrix k_cols = {NULL, half, key->stride, true}, v_rows = {NULL, half, value->stride, false};
		const struct kernels__matrix v_cols = {NULL, half, value->stride, true}, out = {NULL, half, out_ld, false};
		const struct kernels__matrix scores = {NULL, full, keys, false}, probs = {NULL, half, keys, false}, probs_t = {NULL, half, keys, true};
		const struct kernels__matrix d_query = {NULL, half, d_q_stride, false}, d_keys = {NULL, full, d_key_ld, false};

		w->n = n;
		w->keys = keys;
		w->scores = onednn__tile(k, n, keys, d, &queries, &k_cols, &scores, false);
		if (d_q_stride == 0) {
			w->out = onednn__tile(k, n, d, keys, &probs, &v_rows, &out, false);
		} else {
			w->d_probs = onednn__tile(k, n, keys, d, &out, &v_cols, &scores, false);
			w->d_value = onednn__tile(k, keys, d, n, &probs_t, &out, &d_keys, true);
			w->d_key = onednn__tile(k, keys, d, n, &probs_t, &queries, &d_keys, true);
			w->d_query = onednn__tile(k, n, d, keys, &probs, &k_rows, &d_query, false);
		}
		for (const struct primitive *const *p = &w->scores; p <= &w->d_query; p++)
			if (*p != NULL && (*p)->scratch_bytes > most)
				most = (*p)->scratch_bytes;
	}
	*room = (int64_t)((most + 63) / 64 * 16);
	return tiles;
}

static void *
head_at(const struct kernels_heads *x, int64_t row, int64_t h)
{
	return kernels__element(x->data, x->dtype, cpu__head_at(x, row, h));
}

void
onednn__attention(struct kernels *k, const struct kernels_heads *out, float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, int64_t b, int64_t t)
{
	const int64_t heads = q->n_heads, n_tiles = (t + CPU__QUERIES - 1) / CPU__QUERIES, group = heads / key->n_heads;
	const int64_t cells = (cpu__min(CPU__QUERIES, t) * t + 31) / 32 * 32;		/* of a tile's scores */
	const float scale = 1.0f / sqrtf((float)q->head_dim);
	int64_t products;
	struct tile *tiles;
	float *scratch;

	if (q->dtype == DTYPE_F32) {
		cpu__attention(k, out, lse, q, key, value, b, t);
		return;
	}
	tiles = tiles_of(k, q, key, value, t, 0, 0, &products);
	scratch = cpu__scratch(k, (size_t)k->threads * (size_t)(products + cells + cells / 2));
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * heads * n_tiles; task++) {
		int64_t tile = n_tiles - 1 - task % n_tiles, h = task / n_tiles % heads, row0 = task / n_tiles / heads * t, t0 = tile * CPU__QUERIES;
		float *room = scratch + omp_get_thread_num() * (products + cells + cells / 2), *s = room + products;
		uint16_t *probs = (uint16_t *)(void *)(s + cells);
		const struct tile *w = &tiles[tile];

		onednn__tile_run(k, w->scores, head_at(q, row0 + t0, h), head_at(key, row0, h / group), s, room);
		for (int64_t i = 0; i < w->n; i++)
			lse[(row0 / t * heads + h) * t + t0 + i] = k->vec->softmax(s + i * w->keys, t0 + i + 1, w->keys, scale);
		k->vec->narrow(probs, s, w->n * w->keys);
		onednn__tile_run(k, w->out, probs, head_at(value, row0, h / group), head_at(out, row0 + t0, h), room);
	}
	free(tiles);
}

void
onednn__attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct kernels_heads *d_o, const struct kernels_heads *o, const float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, int64_t b, int64_t t)
{
	const int64_t heads = q->n_heads, d = q->head_dim, n_tiles = (t + CPU__QUERIES - 1) / CPU__QUERIES, group = heads / key->n_heads;
	const int64_t cells = (cpu__min(CPU__QUERIES, t) * t + 31) / 32 * 32, size = (t * d + 15) / 16 * 16;
	const float scale = 1.0f / sqrtf((float)d);
	int64_t products, room;
	struct tile *tiles;
	float *scratch;

	if (q->dtype == DTYPE_F32) {
		cpu__attention_bwd(k, d_q, d_key, d_value, d_o, o, lse, q, key, value, b, t);
		return;
	}
	tiles = tiles_of(k, q, key, value, t, d_q->stride, d, &products);
	room = products + 3 * cells + 2 * size + (2 * d + 15) / 16 * 16;
	scratch = cpu__scratch(k, (size_t)k->threads * (size_t)room);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * key->n_heads; task++) {
		int64_t kh = task % key->n_heads, seq = task / key->n_heads, row0 = seq * t;
		float *mine = scratch + omp_get_thread_num() * room, *p = mine + products, *d_p = p + cells;
		uint16_t *probs = (uint16_t *)(void *)(d_p + cells), *d_scores = probs + cells;
		struct cpu__rows sum_key = {d_p + 2 * cells, d}, sum_value = {sum_key.data + size, d};
		float *row = sum_value.data + size;

		memset(sum_key.data, 0, (size_t)(2 * size) * sizeof(float));
		for (int64_t h = kh * group; h < (kh + 1) * group; h++) {
			for (int64_t tile = 0; tile < n_tiles; tile++) {
				const struct tile *w = &tiles[tile];
				int64_t t0 = tile * CPU__QUERIES, keys = w->keys;
				const void *queries = head_at(q, row0 + t0, h), *d_out = head_at(d_o, row0 + t0, h);

				onednn__tile_run(k, w->scores, queries, head_at(key, row0, kh), p, mine);
				onednn__tile_run(k, w->d_probs, d_out, head_at(value, row0, kh), d_p, mine);
				for (int64_t i = 0; i < w->n; i++) {
					int64_t at = cpu__head_at(o, row0 + t0 + i, h);
					float delta = k->vec->dot(cpu__read(k, d_o->data, d_o->dtype, at, d, row),
					    cpu__read(k, o->data, o->dtype, at, d, row + d), d);

					k->vec->softmax_bwd(p + i * keys, d_p + i * keys, t0 + i + 1, keys, scale,
					    lse[(seq * heads + h) * t + t0 + i], delta);
				}
				k->vec->narrow(probs, p, w->n * keys);
				k->vec->narrow(d_scores, d_p, w->n * keys);
				onednn__tile_run(k, w->d_value, probs, d_out, sum_value.data, mine);
				onednn__tile_run(k, w->d_key, d_scores, queries, sum_key.data, mine);
				onednn__tile_run(k, w->d_query, d_scores, head_at(key, row0, kh),
				    head_at(d_q, row0 + t0, h), mine);
			}
		}
		cpu__heads_store(k, d_key, row0, t, kh, sum_key);
		cpu__heads_store(k, d_value, row0, t, kh, sum_value);
	}
	free(tiles);
}

