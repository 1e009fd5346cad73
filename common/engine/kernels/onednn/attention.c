/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention - bf16 attention on matrix units: products read q, k and v in place; probabilities are rounded to
 * bf16 before they are multiplied. fp32 uses the shared kernels.
 *
 * A primitive takes milliseconds to make and is kept by its shape, so there must be few shapes, whatever the
 * lengths of the documents: tiles are CPU__QUERIES rows of the sequence (the last one may be shorter), and
 * keys begin at a multiple of CPU__QUERIES. A tile with parts of several documents is computed twice, with
 * zeros in place of the other rows' probabilities: once for the document that began before the tile, whose
 * keys begin earlier, and once for those that begin in the tile.
 *
 * oneDNN uses the matrix units (AMX) only for operands without gaps and a repacked B. So heads of HEAD
 * numbers in whole tiles, which are the usual case, are copied into this form (plan.dense): keys and values
 * once, queries and probabilities tile by tile.
 */
#include "engine/kernels/onednn/onednn.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log/log.h"
#include "base/mem/mem.h"

#define HEAD 64
#define TILE (CPU__QUERIES * HEAD / 2)		/* floats that hold a dense tile in bf16 */

/* The products of a tile of n queries with the keys up to the tile's last row. */
struct products {
	const struct primitive *scores;			/* S [n, keys] = Q K^T */
	const struct primitive *out;			/* O [n, D] = P V */
	const struct primitive *d_probs;			/* d_P [n, keys] = d_O V^T */
	const struct primitive *d_value, *d_key;		/* [keys, D] += P^T d_O, d_S^T Q */
	const struct primitive *d_query;			/* [n, D] = d_S K */
};

/* The tiles of b sequences of t rows, and the shapes of their products. */
struct plan {
	int64_t t, n_tiles;		/* n_tiles: per sequence */
	bool dense;			/* operands have no gaps; a product's B is repacked */
	struct products *products;		/* [2, n_tiles]: for full tiles, for a short last one; index
						 * (t0 - first key) / CPU__QUERIES */
	int64_t room;			/* scratch memory of a thread's products, in floats */
	struct pass {			/* rows of a tile whose documents have the same first key */
		int64_t t0, n;		/* the tile */
		int64_t from, to;		/* rows from .. to of the sequence */
		int64_t key0;		/* first key */
		const struct products *products;
	} *passes;
	int64_t *tiles;			/* [b * n_tiles + 1] index of each tile's first pass */
};

static void
make_products(struct kernels *k, struct products *w, bool dense, int64_t n, int64_t keys, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, int64_t d_q_stride, int64_t d_key_ld, size_t *most)
{
	const int64_t d = q->head_dim, out_ld = dense ? d : q->n_heads * d;
	const enum dtype half = DTYPE_BF16, full = DTYPE_F32;
	const struct kernels__matrix packed = {.keep = true}, queries = {NULL, half, dense ? d : q->stride, false};
	const struct kernels__matrix k_rows = dense ? packed : (struct kernels__matrix){NULL, half, key->stride, false};
	const struct kernels__matrix k_cols = dense ? packed : (struct kernels__matrix){NULL, half, key->stride, true};
	const struct kernels__matrix v_rows = dense ? packed : (struct kernels__matrix){NULL, half, value->stride, false};
	const struct kernels__matrix v_cols = dense ? packed : (struct kernels__matrix){NULL, half, value->stride, true};
	const struct kernels__matrix out = {NULL, half, out_ld, false}, out_b = dense ? packed : out, queries_b = dense ? packed : queries;
	const struct kernels__matrix scores = {NULL, full, keys, false}, probs = {NULL, half, keys, false};
	const struct kernels__matrix probs_t = {NULL, half, dense ? n : keys, !dense}, d_keys = {NULL, full, d_key_ld, false};
	const struct kernels__matrix d_query = {NULL, half, dense ? d : d_q_stride, false};

	w->scores = onednn__tile(k, n, keys, d, &queries, &k_cols, &scores, false);
	if (d_q_stride == 0) {
		w->out = onednn__tile(k, n, d, keys, &probs, &v_rows, &out, false);
	} else {
		w->d_probs = onednn__tile(k, n, keys, d, &out, &v_cols, &scores, false);
		w->d_value = onednn__tile(k, keys, d, n, &probs_t, &out_b, &d_keys, true);
		w->d_key = onednn__tile(k, keys, d, n, &probs_t, &queries_b, &d_keys, true);
		w->d_query = onednn__tile(k, n, d, keys, &probs, &k_rows, &d_query, false);
	}
	for (const struct primitive *const *p = &w->scores; p <= &w->d_query; p++)
		if (*p != NULL && (*p)->scratch_bytes > *most)
			*most = (*p)->scratch_bytes;
}

/* True if keys begin at multiples of CPU__QUERIES, so that there are few shapes. */
static bool
in_tiles(const struct plan *p, const struct kernels_attention_form *form)
{
	return p->dense || form->starts != NULL;
}

/* The first key that a tile at t0 reads for a document that begins at start. */
static int64_t
first_key(const struct plan *p, const struct kernels_attention_form *form, int64_t t0, int64_t start)
{
	int64_t first = cpu__first_key(form, t0);

	if (!in_tiles(p, form))
		return first;
	return (first > start ? first : start) / CPU__QUERIES * CPU__QUERIES;
}

/* Number of keys of products number i, for tiles of n rows. */
static int64_t
keys_of(const struct plan *p, const struct kernels_attention_form *form, int64_t i, int64_t n)
{
	return i * CPU__QUERIES + n - (in_tiles(p, form) ? 0 : first_key(p, form, i * CPU__QUERIES, 0));
}

/* Lists the passes of all tiles, in row order. */
static void
make_passes(struct plan *p, const struct kernels_attention_form *form, int64_t b)
{
	const int32_t *starts = form->starts;
	int64_t n = 0;

	for (int64_t tile = 0; tile < b * p->n_tiles; tile++) {
		int64_t row0 = tile / p->n_tiles * p->t, t0 = tile % p->n_tiles * CPU__QUERIES, end = cpu__min(t0 + CPU__QUERIES, p->t);

		p->tiles[tile] = n;
		for (int64_t from = t0, to; from < end; from = to) {
			int64_t first = starts != NULL ? starts[row0 + from] : 0, key0 = first_key(p, form, t0, first), row = tile % p->n_tiles;

			for (to = starts != NULL ? from + 1 : end; to < end && (starts[row0 + to] == first || first >= t0); to++)
				;
			p->passes[n++] = (struct pass){.t0 = t0, .n = end - t0, .from = from, .to = to, .key0 = key0,
			    .products = &p->products[(end - t0 < CPU__QUERIES ? p->n_tiles : 0) + (in_tiles(p, form) ? (t0 - key0) / CPU__QUERIES : row)]};
		}
	}
	p->tiles[b * p->n_tiles] = n;
}

/* True if oneDNN prefers every B of these shapes in the format of onednn__pack. */
static bool
dense_pays(struct kernels *k, int64_t t)
{
	struct onednn *o = onednn__of(k);
	int threads = omp_get_max_threads();
	bool all = true;

	omp_set_num_threads(1);
	for (int64_t keys = CPU__QUERIES; keys <= t && all; keys += CPU__QUERIES)
		all = onednn__blocked(o, keys, HEAD) && onednn__blocked(o, HEAD, keys);
	omp_set_num_threads(threads);
	return all;
}

static struct plan
plan_new(struct kernels *k, const struct kernels_heads *q, const struct kernels_heads *key, const struct kernels_heads *value,
    const struct kernels_attention_form *form, int64_t b, int64_t t, int64_t d_q_stride, int64_t d_key_ld)
{
	const int32_t *starts = form->starts;
	struct plan p = {.t = t, .n_tiles = (t + CPU__QUERIES - 1) / CPU__QUERIES};
	int64_t last = t % CPU__QUERIES;		/* rows of a short last tile; 0: none */
	size_t most = 0;

	p.products = mem_alloc((size_t)(2 * p.n_tiles), sizeof(*p.products));
	p.passes = mem_alloc((size_t)(starts != NULL ? b * t : b * p.n_tiles), sizeof(*p.passes));
	p.tiles = mem_alloc((size_t)(b * p.n_tiles + 1), sizeof(*p.tiles));
	if (p.products == NULL || p.passes == NULL || p.tiles == NULL)
		log_fatal("kernels.memory", "what=attention");
	memset(p.products, 0, (size_t)(2 * p.n_tiles) * sizeof(*p.products));
	p.dense = q->head_dim == HEAD && last == 0 && dense_pays(k, t);
	for (int64_t i = 0; i < t / CPU__QUERIES; i++)
		make_products(k, &p.products[i], p.dense, CPU__QUERIES, keys_of(&p, form, i, CPU__QUERIES), q, key, value, d_q_stride, d_key_ld, &most);
	for (int64_t i = starts != NULL ? 0 : p.n_tiles - 1; last > 0 && i < p.n_tiles; i++)
		make_products(k, &p.products[p.n_tiles + i], false, last, keys_of(&p, form, i, last), q, key, value, d_q_stride, d_key_ld, &most);
	p.room = (int64_t)((most + 63) / 64 * 16);
	make_passes(&p, form, b);
	return p;
}

static void
plan_free(struct plan *p)
{
	free(p->products);
	free(p->passes);
	free(p->tiles);
}

static void *
head_at(const struct kernels_heads *x, int64_t row, int64_t h)
{
	return kernels__element(x->data, x->dtype, cpu__head_at(x, row, h));
}

/* Index in its sequence of the first row of a row's document. */
static int64_t
start_of(const struct kernels_attention_form *form, int64_t row)
{
	return form->starts != NULL ? form->starts[row] : 0;
}

/* Writes zeros to the rows of a tile that belong to another pass. */
static void
clear_others(const struct pass *w, float *s)
{
	int64_t keys = w->t0 + w->n - w->key0;

	memset(s, 0, (size_t)((w->from - w->t0) * keys) * sizeof(float));
	memset(s + (w->to - w->t0) * keys, 0, (size_t)((w->t0 + w->n - w->to) * keys) * sizeof(float));
}

/*
 * Runs a product whose [n, D] result goes to the pass's rows of head h of x. The result goes through `tile`
 * if it is dense or if the tile has rows of another pass.
 */
static void
run_rows(struct kernels *k, const struct primitive *product, const struct pass *w, bool dense, const void *a, const void *b,
    const struct kernels_heads *x, int64_t row0, int64_t h, uint16_t *tile, float *room)
{
	uint16_t *to = head_at(x, row0 + w->t0, h);
	int64_t stride = dense ? HEAD : x->stride;
	bool whole = !dense && w->from == w->t0 && w->to == w->t0 + w->n;

	onednn__tile_run(k, product, a, b, whole ? to : tile, room);
	for (int64_t i = w->from - w->t0; i < w->to - w->t0 && !whole; i++)
		memcpy(to + i * x->stride, tile + i * stride, (size_t)x->head_dim * sizeof(*to));
}

/* Rows of head h of x, from `row` on, as they are stored. */
static struct kernels__matrix
head_rows(const struct kernels_heads *x, int64_t row, int64_t h, bool trans)
{
	return (struct kernels__matrix){head_at(x, row, h), x->dtype, x->stride, trans, false};
}

/* CPU__QUERIES rows of head h of x: as they are stored, or with dense copied to `to` without gaps. */
static const void *
dense_rows(const struct kernels *k, bool dense, const struct kernels_heads *x, int64_t row, int64_t h, uint16_t *to)
{
	const struct kernels__matrix rows = head_rows(x, row, h, false);

	if (!dense)
		return rows.data;
	onednn__rows(k->vec, &rows, 0, CPU__QUERIES, HEAD, to, HEAD);
	return to;
}

/* The transpose of a tile's probabilities: as they are stored, or with dense copied to `to`. */
static const void *
columns(const struct kernels *k, bool dense, uint16_t *probs, int64_t keys, uint16_t *to)
{
	const struct kernels__matrix all = {probs, DTYPE_BF16, keys, true, false};

	if (!dense)
		return probs;
	onednn__rows(k->vec, &all, 0, keys, CPU__QUERIES, to, CPU__QUERIES);
	return to;
}

/* Writes the t rows of head h of x, or with trans their transpose, in the format of a product's B. */
static void
pack_head(const struct kernels *k, const struct kernels_heads *x, int64_t row, int64_t t, int64_t h, bool trans, uint16_t *to)
{
	const struct kernels__matrix rows = head_rows(x, row, h, trans);

	onednn__pack(k->vec, &rows, trans ? HEAD : t, trans ? t : HEAD, to);
}

/* Keys (transposed), then values, of each sequence and head in the format of B: [b, heads, 2, t * HEAD]. */
static uint16_t *
pack_heads(struct kernels *k, const struct kernels_heads *key, const struct kernels_heads *value, int64_t b, int64_t t)
{
	int64_t n = b * key->n_heads;
	uint16_t *panels = (uint16_t *)(void *)cpu__packed(k, (size_t)(n * t * HEAD));

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && 2 * n * t * HEAD > k->small)
	for (int64_t i = 0; i < 2 * n; i++)
		pack_head(k, i % 2 == 0 ? key : value, i / 2 / key->n_heads * t, t, i / 2 % key->n_heads, i % 2 == 0, panels + i * t * HEAD);
	return panels;
}

void
onednn__attention(struct kernels *k, const struct kernels_heads *out, float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	const int64_t heads = q->n_heads, group = heads / key->n_heads, rows = cpu__min(CPU__QUERIES, t);
	const int64_t cells = (rows * t + 31) / 32 * 32;		/* elements of a tile's scores */
	uint16_t *panels = NULL;
	int64_t room, apart;
	struct plan p;
	float *scratch;

	if (q->dtype == DTYPE_F32) {
		cpu__attention(k, out, lse, q, key, value, form, b, t);
		return;
	}
	p = plan_new(k, q, key, value, form, b, t, 0, 0);
	apart = p.dense ? 2 * TILE : form->starts != NULL ? (rows * out->stride + 31) / 32 * 16 : 0;
	room = p.room + cells + cells / 2 + apart;
	scratch = cpu__scratch(k, (size_t)k->threads * (size_t)room);
	if (p.dense)
		panels = pack_heads(k, key, value, b, t);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * heads * p.n_tiles; task++) {
		int64_t seq = task / p.n_tiles / heads, h = task / p.n_tiles % heads, row0 = seq * t;
		int64_t tile = seq * p.n_tiles + p.n_tiles - 1 - task % p.n_tiles;
		float *mine = scratch + omp_get_thread_num() * room, *s = mine + p.room;
		uint16_t *probs = (uint16_t *)(void *)(s + cells), *whole = probs + cells;
		const uint16_t *mine_b = p.dense ? panels + 2 * (seq * key->n_heads + h / group) * t * HEAD : NULL;

		for (const struct pass *w = p.passes + p.tiles[tile]; w < p.passes + p.tiles[tile + 1]; w++) {
			int64_t keys = w->t0 + w->n - w->key0;

			onednn__tile_run(k, w->products->scores, dense_rows(k, p.dense, q, row0 + w->t0, h, whole + 2 * TILE),
			    p.dense ? mine_b + w->key0 * HEAD : head_at(key, row0 + w->key0, h / group), s, mine);
			clear_others(w, s);
			for (int64_t i = w->from; i < w->to; i++)
				lse[(seq * heads + h) * t + i] = cpu__softmax_row(k, form, s + (i - w->t0) * keys, i, start_of(form, row0 + i), w->key0, keys);
			k->vec->narrow(probs, s, w->n * keys);
			run_rows(k, w->products->out, w, p.dense, probs,
			    p.dense ? mine_b + (t + w->key0) * HEAD : head_at(value, row0 + w->key0, h / group), out, row0, h, whole, mine);
		}
	}
	plan_free(&p);
}

void
onednn__attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct kernels_heads *d_o, const struct kernels_heads *o, const float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	const int64_t heads = q->n_heads, d = q->head_dim, group = heads / key->n_heads, tile_rows = cpu__min(CPU__QUERIES, t);
	const int64_t cells = (tile_rows * t + 31) / 32 * 32, size = (t * d + 15) / 16 * 16;
	int64_t room, apart;
	struct plan plan;
	float *scratch;

	if (q->dtype == DTYPE_F32) {
		cpu__attention_bwd(k, d_q, d_key, d_value, d_o, o, lse, q, key, value, form, b, t);
		return;
	}
	plan = plan_new(k, q, key, value, form, b, t, d_q->stride, d);
	apart = plan.dense ? 5 * TILE + cells + 3 * t * HEAD / 2 : form->starts != NULL ? (tile_rows * d_q->stride + 31) / 32 * 16 : 0;
	room = plan.room + 3 * cells + 2 * size + (2 * d + 15) / 16 * 16 + (t + 15) / 16 * 16 + apart;
	scratch = cpu__scratch(k, (size_t)k->threads * (size_t)room);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < b * key->n_heads; task++) {
		int64_t kh = task % key->n_heads, seq = task / key->n_heads, row0 = seq * t;
		float *mine = scratch + omp_get_thread_num() * room, *p = mine + plan.room, *d_p = p + cells;
		uint16_t *probs = (uint16_t *)(void *)(d_p + cells), *d_scores = probs + cells;
		struct cpu__rows sum_key = {d_p + 2 * cells, d}, sum_value = {sum_key.data + size, d};
		float *row = sum_value.data + size, *capped = row + (2 * d + 15) / 16 * 16;
		uint16_t *whole = (uint16_t *)(void *)(capped + (t + 15) / 16 * 16), *turned = whole + 10 * TILE;
		uint16_t *key_b = turned + 2 * cells, *value_b = key_b + t * HEAD, *rows_b = value_b + t * HEAD;	/* K^T, V^T, K */

		if (plan.dense) {
			pack_head(k, key, row0, t, kh, true, key_b);
			pack_head(k, value, row0, t, kh, true, value_b);
			pack_head(k, key, row0, t, kh, false, rows_b);
		}
		memset(sum_key.data, 0, (size_t)(2 * size) * sizeof(float));
		for (int64_t h = kh * group; h < (kh + 1) * group; h++) {
			for (int64_t pass = plan.tiles[seq * plan.n_tiles]; pass < plan.tiles[(seq + 1) * plan.n_tiles]; pass++) {
				const struct pass *w = &plan.passes[pass];
				const struct products *products = w->products;
				int64_t keys = w->t0 + w->n - w->key0;
				const void *queries = dense_rows(k, plan.dense, q, row0 + w->t0, h, whole + 2 * TILE);
				const void *d_out = dense_rows(k, plan.dense, d_o, row0 + w->t0, h, whole + 4 * TILE);
				const void *k_rows = plan.dense ? rows_b + w->key0 * HEAD : head_at(key, row0 + w->key0, kh);

				onednn__tile_run(k, products->scores, queries, plan.dense ? key_b + w->key0 * HEAD : k_rows, p, mine);
				onednn__tile_run(k, products->d_probs, d_out,
				    plan.dense ? value_b + w->key0 * HEAD : head_at(value, row0 + w->key0, kh), d_p, mine);
				clear_others(w, p);
				clear_others(w, d_p);
				for (int64_t i = w->from; i < w->to; i++) {
					int64_t at = cpu__head_at(o, row0 + i, h), line = (i - w->t0) * keys;
					float delta = k->vec->dot(cpu__read(k, d_o->data, d_o->dtype, at, d, row),
					    cpu__read(k, o->data, o->dtype, at, d, row + d), d);

					cpu__softmax_row_bwd(k, form, p + line, d_p + line, i, start_of(form, row0 + i), w->key0, keys,
					    lse[(seq * heads + h) * t + i], delta, capped);
				}
				k->vec->narrow(probs, p, w->n * keys);
				k->vec->narrow(d_scores, d_p, w->n * keys);
				if (plan.dense) {
					pack_head(k, q, row0 + w->t0, w->n, h, false, whole + 6 * TILE);
					pack_head(k, d_o, row0 + w->t0, w->n, h, false, whole + 8 * TILE);
					queries = whole + 6 * TILE;
					d_out = whole + 8 * TILE;
				}
				onednn__tile_run(k, products->d_value, columns(k, plan.dense, probs, keys, turned), d_out, sum_value.data + w->key0 * d, mine);
				onednn__tile_run(k, products->d_key, columns(k, plan.dense, d_scores, keys, turned + cells), queries,
				    sum_key.data + w->key0 * d, mine);
				run_rows(k, products->d_query, w, plan.dense, d_scores, k_rows, d_q, row0, h, whole, mine);
			}
		}
		cpu__heads_store(k, d_key, row0, t, kh, sum_key);
		cpu__heads_store(k, d_value, row0, t, kh, sum_value);
	}
	plan_free(&plan);
}
