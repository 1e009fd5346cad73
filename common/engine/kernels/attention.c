#include "engine/kernels/kernels_internal.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log/log.h"
#include "base/mem/mem.h"

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

/* n rows of one head as fp32: its own data in fp32, else widened. */
struct rows {
	float *data;
	int64_t stride;
};

static struct rows
head_rows(const struct kernels *k, const struct kernels_heads *x, int64_t row, int64_t n, int64_t h, float *room, bool fill)
{
	int64_t d = x->head_dim;

	if (x->dtype == DTYPE_F32)
		return (struct rows){(float *)x->data + kernels__head_at(x, row, h), x->stride};
	for (int64_t i = 0; i < n && fill; i++)
		kernels__read(k, x->data, x->dtype, kernels__head_at(x, row + i, h), d, room + i * d);
	return (struct rows){room, d};
}

static void
head_store(const struct kernels *k, const struct kernels_heads *x, int64_t row, int64_t n, int64_t h, struct rows from)
{
	for (int64_t i = 0; i < n && x->dtype != DTYPE_F32; i++)
		kernels__store(k, x->data, x->dtype, kernels__head_at(x, row + i, h), x->head_dim, from.data + i * from.stride);
}

/* o and d_o: [M, H*D] seen as heads. */
static struct kernels_heads
as_heads(const struct tensor *o, const struct kernels_heads *q)
{
	return (struct kernels_heads){.data = o->data, .dtype = o->dtype, .stride = q->n_heads * q->head_dim, .n_heads = q->n_heads,
	    .head_dim = q->head_dim};
}

/* ---- on units for bf16: products take q, k, v as they lie; probabilities are rounded to bf16 for the products that take them ---- */

/* The products of one tile of queries; keys: up to the tile's last row. */
struct tile {
	int64_t n, keys;
	const struct kernels__tile *scores;			/* S [n, keys] = Q K^T */
	const struct kernels__tile *out;			/* O [n, D] = P V */
	const struct kernels__tile *d_probs;			/* d_P [n, keys] = d_O V^T */
	const struct kernels__tile *d_value, *d_key;		/* [keys, D] += P^T d_O, d_S^T Q */
	const struct kernels__tile *d_query;			/* [n, D] = d_S K */
};

/* Tiles of a sequence of t and the room that a thread's products want, in floats. The caller frees. */
static struct tile *
tiles_of(struct kernels *k, const struct kernels_heads *q, const struct kernels_heads *key, const struct kernels_heads *value, int64_t t,
    int64_t d_q_stride, int64_t d_key_ld, int64_t *room)
{
	const int64_t d = q->head_dim, out_ld = q->n_heads * d, n_tiles = (t + QUERIES - 1) / QUERIES;
	const enum dtype half = DTYPE_BF16, full = DTYPE_F32;
	struct tile *tiles = mem_alloc((size_t)n_tiles, sizeof(*tiles));
	size_t most = 0;

	if (tiles == NULL)
		log_fatal("kernels.memory", "what=attention");
	memset(tiles, 0, (size_t)n_tiles * sizeof(*tiles));
	for (int64_t i = 0; i < n_tiles; i++) {
		struct tile *w = &tiles[i];
		const int64_t n = min64(QUERIES, t - i * QUERIES), keys = i * QUERIES + n;
		const struct kernels__matrix queries = {NULL, half, q->stride, false}, k_rows = {NULL, half, key->stride, false};
		const struct kernels__matrix k_cols = {NULL, half, key->stride, true}, v_rows = {NULL, half, value->stride, false};
		const struct kernels__matrix v_cols = {NULL, half, value->stride, true}, out = {NULL, half, out_ld, false};
		const struct kernels__matrix scores = {NULL, full, keys, false}, probs = {NULL, half, keys, false}, probs_t = {NULL, half, keys, true};
		const struct kernels__matrix d_query = {NULL, half, d_q_stride, false}, d_keys = {NULL, full, d_key_ld, false};

		w->n = n;
		w->keys = keys;
		w->scores = kernels__onednn_tile(k, n, keys, d, &queries, &k_cols, &scores, false);
		if (d_q_stride == 0) {
			w->out = kernels__onednn_tile(k, n, d, keys, &probs, &v_rows, &out, false);
		} else {
			w->d_probs = kernels__onednn_tile(k, n, keys, d, &out, &v_cols, &scores, false);
			w->d_value = kernels__onednn_tile(k, keys, d, n, &probs_t, &out, &d_keys, true);
			w->d_key = kernels__onednn_tile(k, keys, d, n, &probs_t, &queries, &d_keys, true);
			w->d_query = kernels__onednn_tile(k, n, d, keys, &probs, &k_rows, &d_query, false);
		}
		for (const struct kernels__tile *const *p = &w->scores; p <= &w->d_query; p++)
			if (*p != NULL && kernels__onednn_tile_room(*p) > most)
				most = kernels__onednn_tile_room(*p);
	}
	*room = (int64_t)((most + 63) / 64 * 16);
	return tiles;
}

static const void *
head_at(const struct kernels_heads *x, int64_t row, int64_t h)
{
	return kernels__element(x->data, x->dtype, kernels__head_at(x, row, h));
}

static void
attention_units(struct kernels *k, const struct kernels_heads *out, float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, int64_t b, int64_t t)
{
	const int64_t heads = q->n_heads, n_tiles = (t + QUERIES - 1) / QUERIES, group = heads / key->n_heads;
	const int64_t cells = (min64(QUERIES, t) * t + 31) / 32 * 32;		/* of a tile's scores */
	const float scale = 1.0f / sqrtf((float)q->head_dim);
	int64_t products;
	struct tile *tiles = tiles_of(k, q, key, value, t, 0, 0, &products);
	float *scratch = kernels__scratch(k, (size_t)k->threads * (size_t)(products + cells + cells / 2));

#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * heads * n_tiles; task++) {
		int64_t tile = n_tiles - 1 - task % n_tiles, h = task / n_tiles % heads, row0 = task / n_tiles / heads * t, t0 = tile * QUERIES;
		float *room = scratch + omp_get_thread_num() * (products + cells + cells / 2), *s = room + products;
		uint16_t *probs = (uint16_t *)(void *)(s + cells);
		const struct tile *w = &tiles[tile];

		kernels__onednn_tile_run(k, w->scores, head_at(q, row0 + t0, h), head_at(key, row0, h / group), s, room);
		for (int64_t i = 0; i < w->n; i++)
			lse[(row0 / t * heads + h) * t + t0 + i] = k->vec->softmax(s + i * w->keys, t0 + i + 1, w->keys, scale);
		k->vec->narrow(probs, s, w->n * w->keys);
		kernels__onednn_tile_run(k, w->out, probs, head_at(value, row0, h / group), (void *)(uintptr_t)head_at(out, row0 + t0, h), room);
	}
	free(tiles);
}

static void
attention_units_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct kernels_heads *d_o, const struct kernels_heads *o, const float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, int64_t b, int64_t t)
{
	const int64_t heads = q->n_heads, d = q->head_dim, n_tiles = (t + QUERIES - 1) / QUERIES, group = heads / key->n_heads;
	const int64_t cells = (min64(QUERIES, t) * t + 31) / 32 * 32, size = (t * d + 15) / 16 * 16;
	const float scale = 1.0f / sqrtf((float)d);
	int64_t products, room;
	struct tile *tiles = tiles_of(k, q, key, value, t, d_q->stride, d, &products);
	float *scratch;

	room = products + 3 * cells + 2 * size + (2 * d + 15) / 16 * 16;
	scratch = kernels__scratch(k, (size_t)k->threads * (size_t)room);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * key->n_heads; task++) {
		int64_t kh = task % key->n_heads, seq = task / key->n_heads, row0 = seq * t;
		float *mine = scratch + omp_get_thread_num() * room, *p = mine + products, *d_p = p + cells;
		uint16_t *probs = (uint16_t *)(void *)(d_p + cells), *d_scores = probs + cells;
		struct rows sum_key = {d_p + 2 * cells, d}, sum_value = {sum_key.data + size, d};
		float *row = sum_value.data + size;

		memset(sum_key.data, 0, (size_t)(2 * size) * sizeof(float));
		for (int64_t h = kh * group; h < (kh + 1) * group; h++) {
			for (int64_t tile = 0; tile < n_tiles; tile++) {
				const struct tile *w = &tiles[tile];
				int64_t t0 = tile * QUERIES, keys = w->keys;
				const void *queries = head_at(q, row0 + t0, h), *d_out = head_at(d_o, row0 + t0, h);

				kernels__onednn_tile_run(k, w->scores, queries, head_at(key, row0, kh), p, mine);
				kernels__onednn_tile_run(k, w->d_probs, d_out, head_at(value, row0, kh), d_p, mine);
				for (int64_t i = 0; i < w->n; i++) {
					int64_t at = kernels__head_at(o, row0 + t0 + i, h);
					float delta = k->vec->dot(kernels__read(k, d_o->data, d_o->dtype, at, d, row),
					    kernels__read(k, o->data, o->dtype, at, d, row + d), d);

					k->vec->softmax_bwd(p + i * keys, d_p + i * keys, t0 + i + 1, keys, scale,
					    lse[(seq * heads + h) * t + t0 + i], delta);
				}
				k->vec->narrow(probs, p, w->n * keys);
				k->vec->narrow(d_scores, d_p, w->n * keys);
				kernels__onednn_tile_run(k, w->d_value, probs, d_out, sum_value.data, mine);
				kernels__onednn_tile_run(k, w->d_key, d_scores, queries, sum_key.data, mine);
				kernels__onednn_tile_run(k, w->d_query, d_scores, head_at(key, row0, kh),
				    (void *)(uintptr_t)head_at(d_q, row0 + t0, h), mine);
			}
		}
		head_store(k, d_key, row0, t, kh, sum_key);
		head_store(k, d_value, row0, t, kh, sum_value);
	}
	free(tiles);
}

/* ---- everywhere: fp32 by OpenBLAS, bf16 widened ---- */

void
kernels_attention(struct kernels *k, struct tensor *o, float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, int64_t b, int64_t t)
{
	int64_t heads = q->n_heads, d = q->head_dim, group, tiles = (t + QUERIES - 1) / QUERIES, tile_rows = min64(QUERIES, t);
	int64_t room = tile_rows * t + (q->dtype == DTYPE_F32 ? 0 : 2 * (tile_rows + t) * d);
	const struct kernels_heads out = as_heads(o, q);
	float scale = 1.0f / sqrtf((float)d);
	float *scratch;

	check_heads(q, key, value);
	kernels__shape(kernels__rows(o) == b * t && kernels__cols(o) == heads * d && o->dtype == q->dtype && key->dtype == q->dtype &&
	    value->dtype == q->dtype, "attention");
	if (k->onednn != NULL && q->dtype == DTYPE_BF16) {
		attention_units(k, &out, lse, q, key, value, b, t);
		return;
	}
	group = heads / key->n_heads;
	scratch = kernels__scratch(k, (size_t)k->threads * (size_t)room);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * heads * tiles; task++) {
		int64_t tile = task % tiles, h = task / tiles % heads, row0 = task / tiles / heads * t;
		int64_t t0 = tile * QUERIES, n = min64(QUERIES, t - t0), keys = t0 + n;
		float *s = scratch + omp_get_thread_num() * room, *at = s + tile_rows * t;
		struct rows mine = head_rows(k, q, row0 + t0, n, h, at, true), to = head_rows(k, &out, row0 + t0, n, h, at + tile_rows * d, false);
		struct rows theirs = head_rows(k, key, row0, keys, h / group, at + 2 * tile_rows * d, true);
		struct rows values = head_rows(k, value, row0, keys, h / group, at + (2 * tile_rows + t) * d, true);

		kernels__sgemm(false, true, n, keys, d, 1, mine.data, mine.stride, theirs.data, theirs.stride, 0, s, keys);
		for (int64_t i = 0; i < n; i++)
			lse[(row0 / t * heads + h) * t + t0 + i] = k->vec->softmax(s + i * keys, t0 + i + 1, keys, scale);
		kernels__sgemm(false, false, n, d, keys, 1, s, keys, values.data, values.stride, 0, to.data, to.stride);
		head_store(k, &out, row0 + t0, n, h, to);
	}
}

/* What the tiles of one key head share, and the scratch of their thread. */
struct task_bwd {
	struct kernels *k;
	const struct kernels_heads *q, *d_q;
	struct kernels_heads o, d_o;
	struct rows key, value, d_key, d_value;		/* of the whole sequence */
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
	struct rows q = head_rows(k, w->q, row, n, h, w->room, true), d_q = head_rows(k, w->d_q, row, n, h, w->room + size, false);
	struct rows out = head_rows(k, &w->o, row, n, h, w->room + 2 * size, true);
	struct rows d_out = head_rows(k, &w->d_o, row, n, h, w->room + 3 * size, true);
	float scale = 1.0f / sqrtf((float)d), *p = w->p, *d_p = w->d_p;

	kernels__sgemm(false, true, n, keys, d, 1, q.data, q.stride, w->key.data, w->key.stride, 0, p, keys);
	kernels__sgemm(false, true, n, keys, d, 1, d_out.data, d_out.stride, w->value.data, w->value.stride, 0, d_p, keys);
	for (int64_t i = 0; i < n; i++) {
		float delta = k->vec->dot(d_out.data + i * d_out.stride, out.data + i * out.stride, d);

		k->vec->softmax_bwd(p + i * keys, d_p + i * keys, t0 + i + 1, keys, scale, lse[t0 + i], delta);
	}
	kernels__sgemm(true, false, keys, d, n, 1, p, keys, d_out.data, d_out.stride, 1, w->d_value.data, w->d_value.stride);
	kernels__sgemm(true, false, keys, d, n, 1, d_p, keys, q.data, q.stride, 1, w->d_key.data, w->d_key.stride);
	kernels__sgemm(false, false, n, d, keys, 1, d_p, keys, w->key.data, w->key.stride, 0, d_q.data, d_q.stride);
	head_store(k, w->d_q, row, n, h, d_q);
}

void
kernels_attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct tensor *d_o, const struct tensor *o, const float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, int64_t b, int64_t t)
{
	int64_t heads = q->n_heads, d = q->head_dim, group, tile_rows = min64(QUERIES, t);
	int64_t room = tile_rows * t * 2 + (q->dtype == DTYPE_F32 ? 0 : 4 * (tile_rows + t) * d);
	float *scratch;

	check_heads(q, key, value);
	check_heads(d_q, d_key, d_value);
	kernels__shape(kernels__rows(o) == b * t && kernels__cols(o) == heads * d && kernels__rows(d_o) == b * t &&
	    kernels__cols(d_o) == heads * d && d_q->n_heads == heads && d_key->n_heads == key->n_heads && d_q->head_dim == d &&
	    o->dtype == q->dtype && d_o->dtype == q->dtype && key->dtype == q->dtype && value->dtype == q->dtype &&
	    d_q->dtype == q->dtype && d_key->dtype == q->dtype && d_value->dtype == q->dtype, "attention_bwd");
	if (k->onednn != NULL && q->dtype == DTYPE_BF16) {
		const struct kernels_heads d_out = as_heads(d_o, q), out = as_heads(o, q);

		attention_units_bwd(k, d_q, d_key, d_value, &d_out, &out, lse, q, key, value, b, t);
		return;
	}
	group = heads / key->n_heads;
	scratch = kernels__scratch(k, (size_t)k->threads * (size_t)room);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * key->n_heads; task++) {
		int64_t kh = task % key->n_heads, seq = task / key->n_heads, row0 = seq * t;
		float *p = scratch + omp_get_thread_num() * room, *at = p + tile_rows * t * 2;
		const struct task_bwd w = {.k = k, .q = q, .d_q = d_q, .o = as_heads(o, q), .d_o = as_heads(d_o, q), .p = p,
		    .d_p = p + tile_rows * t, .tile_rows = tile_rows, .room = at + 4 * t * d,
		    .key = head_rows(k, key, row0, t, kh, at, true), .value = head_rows(k, value, row0, t, kh, at + t * d, true),
		    .d_key = head_rows(k, d_key, row0, t, kh, at + 2 * t * d, false),
		    .d_value = head_rows(k, d_value, row0, t, kh, at + 3 * t * d, false)};

		for (int64_t i = 0; i < t; i++) {
			memset(w.d_key.data + i * w.d_key.stride, 0, (size_t)d * sizeof(float));
			memset(w.d_value.data + i * w.d_value.stride, 0, (size_t)d * sizeof(float));
		}
		for (int64_t h = kh * group; h < (kh + 1) * group; h++)
			for (int64_t t0 = 0; t0 < t; t0 += QUERIES)
				tile_bwd(&w, lse + (seq * heads + h) * t, row0, t0, min64(QUERIES, t - t0), h);
		head_store(k, d_key, row0, t, kh, w.d_key);
		head_store(k, d_value, row0, t, kh, w.d_value);
	}
}
