/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kernels/cpu/cpu.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log/log.h"
#include "base/mem/mem.h"

/*
 * A document is computed as if it were a sequence by itself, in tiles of CPU__QUERIES rows. The scores of a
 * tile are [CPU__QUERIES, keys that one of its rows sees], so a thread needs CPU__QUERIES * T floats. A task
 * is a tile of a head (forward) or a key head of a document (backward); tasks write disjoint outputs, and the
 * order inside a task is fixed.
 */

/* Rows [row, row + n) that attend only to each other: a document, or a sequence if it is not divided. */
struct document {
	int64_t row, n;
};

/* Lists the documents of b sequences of t rows, in order; *n: their number. The caller frees the list. */
static struct document *
documents_of(const int32_t *starts, int64_t b, int64_t t, int64_t *n)
{
	struct document *list;
	int64_t count = b;

	for (int64_t m = 0; starts != NULL && m < b * t; m++)
		count += m % t != 0 && starts[m] == m % t;
	if ((list = mem_alloc((size_t)count, sizeof(*list))) == NULL)
		log_fatal("kernels.memory", "what=documents");
	*n = 0;
	for (int64_t m = 0; m < b * t; m += list[(*n)++].n) {
		int64_t end = (m / t + 1) * t, next = starts != NULL ? m + 1 : end;

		while (next < end && starts[next] != next % t)
			next++;
		list[*n] = (struct document){m, next - m};
	}
	return list;
}

/* Rows [row, row + n) of the document that begins at row0. */
struct tile {
	int64_t row0, row, n;
};

static struct tile *
tiles_of(const struct document *documents, int64_t n_documents, int64_t *n)
{
	struct tile *list;
	int64_t count = 0;

	for (int64_t i = 0; i < n_documents; i++)
		count += (documents[i].n + CPU__QUERIES - 1) / CPU__QUERIES;
	if ((list = mem_alloc((size_t)count, sizeof(*list))) == NULL)
		log_fatal("kernels.memory", "what=attention");
	*n = 0;
	for (const struct document *d = documents; d < documents + n_documents; d++)
		for (int64_t at = 0; at < d->n; at += CPU__QUERIES)
			list[(*n)++] = (struct tile){d->row, d->row + at, cpu__min(CPU__QUERIES, d->n - at)};
	return list;
}

/* n rows of one head as fp32: the tensor's own data in fp32, else room, widened into it if fill is set */
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

/* Number of keys before those that query t sees, in a tile whose keys begin at first. */
static int64_t
unseen(const struct kernels_attention_form *form, int64_t t, int64_t start, int64_t first)
{
	int64_t seen = cpu__first_key(form, t);

	return (seen > start ? seen : start) - first;
}

float
cpu__softmax_row(const struct kernels *k, const struct kernels_attention_form *form, float *s, int64_t t, int64_t start, int64_t first,
    int64_t keys)
{
	int64_t skip = unseen(form, t, start, first), n = t + 1 - first - skip;

	memset(s, 0, (size_t)skip * sizeof(float));
	if (form->soft_cap == 0)
		return k->vec->softmax(s + skip, n, keys - skip, form->scale);
	k->vec->soft_cap(s + skip, s + skip, form->scale, form->soft_cap, n);
	return k->vec->softmax(s + skip, n, keys - skip, 1);
}

void
cpu__softmax_row_bwd(const struct kernels *k, const struct kernels_attention_form *form, float *p, float *d_p, int64_t t, int64_t start,
    int64_t first, int64_t keys, float lse, float delta, float *room)
{
	int64_t skip = unseen(form, t, start, first), n = t + 1 - first - skip;

	memset(p, 0, (size_t)skip * sizeof(float));
	memset(d_p, 0, (size_t)skip * sizeof(float));
	if (form->soft_cap == 0) {
		k->vec->softmax_bwd(p + skip, d_p + skip, n, keys - skip, form->scale, lse, delta);
		return;
	}
	k->vec->soft_cap(room, p + skip, form->scale, form->soft_cap, n);
	memcpy(p + skip, room, (size_t)n * sizeof(float));
	k->vec->softmax_bwd(p + skip, d_p + skip, n, keys - skip, 1, lse, delta);
	k->vec->soft_cap_bwd(d_p + skip, room, form->scale, form->soft_cap, n);
}

void
cpu__attention(struct kernels *k, const struct kernels_heads *out, float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	int64_t heads = q->n_heads, d = q->head_dim, group, n_documents, n_tiles, tile_rows = cpu__min(CPU__QUERIES, t);
	struct document *documents = documents_of(form->starts, b, t, &n_documents);
	struct tile *tiles = tiles_of(documents, n_documents, &n_tiles);
	int64_t room = tile_rows * t + (q->dtype == DTYPE_F32 ? 0 : 2 * (tile_rows + t) * d);
	float *scratch;

	group = heads / key->n_heads;
	scratch = cpu__scratch(k, (size_t)k->threads * (size_t)room);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < heads * n_tiles; task++) {
		int64_t h = task / n_tiles, row0 = tiles[task % n_tiles].row0, row = tiles[task % n_tiles].row;
		int64_t n = tiles[task % n_tiles].n, t0 = row - row0;
		int64_t first = cpu__first_key(form, t0), keys = t0 + n - first;
		float *s = scratch + omp_get_thread_num() * room, *at = s + tile_rows * t;
		struct cpu__rows mine = head_rows(k, q, row, n, h, at, true),
				 to = head_rows(k, out, row, n, h, at + tile_rows * d, false);
		struct cpu__rows theirs = head_rows(k, key, row0 + first, keys, h / group, at + 2 * tile_rows * d, true);
		struct cpu__rows values = head_rows(
		    k, value, row0 + first, keys, h / group, at + (2 * tile_rows + t) * d, true);

		cpu__sgemm(false, true, n, keys, d, 1, mine.data, mine.stride, theirs.data, theirs.stride, 0, s, keys);
		for (int64_t i = 0; i < n; i++)
			lse[(row / t * heads + h) * t + row % t + i] = cpu__softmax_row(
			    k, form, s + i * keys, t0 + i, 0, first, keys);
		cpu__sgemm(false, false, n, d, keys, 1, s, keys, values.data, values.stride, 0, to.data, to.stride);
		cpu__heads_store(k, out, row, n, h, to);
	}
	free(tiles);
	free(documents);
}

/* A task of backward: a key head of a document, and the scratch memory of its thread. */
struct task_bwd {
	struct kernels *k;
	const struct kernels_heads *q, *d_q, *o, *d_o;
	const struct kernels_attention_form *form;
	struct cpu__rows key, value, d_key, d_value;		/* rows of the whole document */
	float *p, *d_p;					/* [tile_rows, t] */
	float *capped;					/* [t] */
	float *room;					/* q, d_q, o, d_o of a tile: 4 [tile_rows, D] */
	int64_t tile_rows;
};

/* Computes d_q of one tile of queries of head h, and adds to d_key and d_value of its key head. */
static void
tile_bwd(const struct task_bwd *w, const float *lse, int64_t row0, int64_t t0, int64_t n, int64_t h)
{
	struct kernels *k = w->k;
	int64_t d = w->q->head_dim, first = cpu__first_key(w->form, t0), keys = t0 + n - first, row = row0 + t0, size = w->tile_rows * d;
	struct cpu__rows q = head_rows(k, w->q, row, n, h, w->room, true),
			 d_q = head_rows(k, w->d_q, row, n, h, w->room + size, false);
	struct cpu__rows out = head_rows(k, w->o, row, n, h, w->room + 2 * size, true);
	struct cpu__rows d_out = head_rows(k, w->d_o, row, n, h, w->room + 3 * size, true);
	float *p = w->p, *d_p = w->d_p, *key = w->key.data + first * w->key.stride, *value = w->value.data + first * w->value.stride;

	cpu__sgemm(false, true, n, keys, d, 1, q.data, q.stride, key, w->key.stride, 0, p, keys);
	cpu__sgemm(false, true, n, keys, d, 1, d_out.data, d_out.stride, value, w->value.stride, 0, d_p, keys);
	for (int64_t i = 0; i < n; i++) {
		float delta = k->vec->dot(d_out.data + i * d_out.stride, out.data + i * out.stride, d);

		cpu__softmax_row_bwd(k, w->form, p + i * keys, d_p + i * keys, t0 + i, 0, first, keys, lse[t0 + i], delta, w->capped);
	}
	cpu__sgemm(true, false, keys, d, n, 1, p, keys, d_out.data, d_out.stride, 1,
	    w->d_value.data + first * w->d_value.stride, w->d_value.stride);
	cpu__sgemm(true, false, keys, d, n, 1, d_p, keys, q.data, q.stride, 1,
	    w->d_key.data + first * w->d_key.stride, w->d_key.stride);
	cpu__sgemm(false, false, n, d, keys, 1, d_p, keys, key, w->key.stride, 0, d_q.data, d_q.stride);
	cpu__heads_store(k, w->d_q, row, n, h, d_q);
}

void
cpu__attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key,
    struct kernels_heads *d_value, const struct kernels_heads *d_o, const struct kernels_heads *o,
    const float *lse, const struct kernels_heads *q, const struct kernels_heads *key,
    const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t)
{
	int64_t heads = q->n_heads, d = q->head_dim, group, n_documents, tile_rows = cpu__min(CPU__QUERIES, t);
	struct document *documents = documents_of(form->starts, b, t, &n_documents);
	int64_t room = tile_rows * t * 2 + t + (q->dtype == DTYPE_F32 ? 0 : 4 * (tile_rows + t) * d);
	float *scratch;

	group = heads / key->n_heads;
	scratch = cpu__scratch(k, (size_t)k->threads * (size_t)room);
#pragma omp parallel for num_threads(k->threads) schedule(dynamic) if (k->threads > 1 && b * heads * t * t > k->small)
	for (int64_t task = 0; task < n_documents * key->n_heads; task++) {
		int64_t kh = task % key->n_heads, row0 = documents[task / key->n_heads].row, rows = documents[task / key->n_heads].n;
		float *p = scratch + omp_get_thread_num() * room, *at = p + tile_rows * t * 2 + t;
		const struct task_bwd w = {.k = k,
		    .q = q,
		    .d_q = d_q,
		    .o = o,
		    .d_o = d_o,
		    .form = form,
		    .p = p,
		    .capped = p + tile_rows * t * 2,
		    .d_p = p + tile_rows * t,
		    .tile_rows = tile_rows,
		    .room = at + 4 * t * d,
		    .key = head_rows(k, key, row0, rows, kh, at, true),
		    .value = head_rows(k, value, row0, rows, kh, at + t * d, true),
		    .d_key = head_rows(k, d_key, row0, rows, kh, at + 2 * t * d, false),
		    .d_value = head_rows(k, d_value, row0, rows, kh, at + 3 * t * d, false)};

		for (int64_t i = 0; i < rows; i++) {
			memset(w.d_key.data + i * w.d_key.stride, 0, (size_t)d * sizeof(float));
			memset(w.d_value.data + i * w.d_value.stride, 0, (size_t)d * sizeof(float));
		}
		for (int64_t h = kh * group; h < (kh + 1) * group; h++)
			for (int64_t t0 = 0; t0 < rows; t0 += CPU__QUERIES)
				tile_bwd(&w, lse + (row0 / t * heads + h) * t + row0 % t, row0, t0, cpu__min(CPU__QUERIES, rows - t0), h);
		cpu__heads_store(k, d_key, row0, rows, kh, w.d_key);
		cpu__heads_store(k, d_value, row0, rows, kh, w.d_value);
	}
	free(documents);
}
