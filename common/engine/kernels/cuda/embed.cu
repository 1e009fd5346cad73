/* SPDX-License-Identifier: Apache-2.0 */
/*
 * embed - embeddings and their gradients. In backward the host groups the rows by the gradient row that they
 * add to (a token or a position), each group in row order. One block adds one group, so every sum is in row
 * order.
 */
#include <stdlib.h>

#include "engine/kernels/cuda/cuda.h"

#define THREADS 128

__global__ static void
embed(struct view y, const int32_t *tokens, struct view wte, struct view wpe, const int32_t *starts, int64_t t, int64_t c)
{
	int64_t m = blockIdx.x, token = tokens[m], position = position_of(starts, m, t);

	for (int64_t i = (int64_t)threadIdx.x * QUAD; i < c; i += THREADS * QUAD) {
		struct quad q = get_quad(wte, token * c + i, c - i), p = {};

		if (wpe.data != NULL)
			p = get_quad(wpe, position * c + i, c - i);
		for (int e = 0; e < QUAD; e++)
			q.f[e] += p.f[e];
		put_quad(y, m * c + i, c - i, q);
	}
}

void
cuda__embed(struct kernels *k, struct tensor *y, const int32_t *tokens, const struct tensor *wte, const struct tensor *wpe, int64_t m,
    int64_t t, const int32_t *starts)
{
	int64_t c = kernels__cols(wte);
	size_t bytes = (size_t)m * sizeof(*tokens);

	if (m > 0)
		CUDA_RUN(k, embed, (unsigned)m, THREADS, view_of(y->data, y->dtype, c), (const int32_t *)cuda__upload(k, SLOT_TOKENS, tokens, bytes),
		    view_of(wte->data, wte->dtype, c), wpe != NULL ? view_of(wpe->data, wpe->dtype, c) : view{},
		    (const int32_t *)cuda__upload(k, SLOT_STARTS, starts, bytes), t, c);
}

/* groups: [n, 3]: row of the gradient, then begin and end of its rows in `order`. */
__global__ static void
add_groups(struct view d, const int32_t *groups, const int32_t *order, struct view d_y, int64_t c)
{
	const int32_t *group = groups + 3 * (int64_t)blockIdx.x;
	int64_t row = group[0], begin = group[1], end = group[2];
	int64_t i = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * QUAD;
	struct quad sum;

	if (i >= c)
		return;
	sum = get_quad(d, row * c + i, c - i);
	for (int64_t at = begin; at < end; at++) {
		struct quad q = get_quad(d_y, order[at] * c + i, c - i);

		for (int e = 0; e < QUAD; e++)
			sum.f[e] += q.f[e];
	}
	put_quad(d, row * c + i, c - i, sum);
}

struct entry {
	int32_t key, row;
};

static int
by_key(const void *a, const void *b)
{
	const struct entry *x = (const struct entry *)a, *y = (const struct entry *)b;

	return x->key != y->key ? (x->key < y->key ? -1 : 1) : (x->row > y->row) - (x->row < y->row);
}

/* Adds each row of d_y to the row of d given by its key. entries: [m]. */
static void
add_by_key(struct kernels *k, struct tensor *d, const struct tensor *d_y, enum cuda_slot slot, struct entry *entries, int64_t m)
{
	int32_t *order = (int32_t *)malloc((size_t)(4 * m) * sizeof(*order)), *groups = order + m;
	int64_t c = kernels__cols(d_y), n = 0;
	const int32_t *sent;

	if (order == NULL)
		log_fatal("kernels.memory", "what=embed rows=%lld", (long long)m);
	qsort(entries, (size_t)m, sizeof(*entries), by_key);
	for (int64_t i = 0; i < m; i++) {
		order[i] = entries[i].row;
		if (i == 0 || entries[i].key != entries[i - 1].key) {
			groups[3 * n] = entries[i].key;
			groups[3 * n++ + 1] = (int32_t)i;
		}
		groups[3 * n - 1] = (int32_t)(i + 1);
	}
	sent = (const int32_t *)cuda__upload(k, slot, order, (size_t)(m + 3 * n) * sizeof(*order));
	CUDA_RUN(k, add_groups, dim3((unsigned)n, cuda_blocks(c, THREADS * QUAD)), THREADS, view_of(d->data, d->dtype, c), sent + m, sent,
	    view_of(d_y->data, d_y->dtype, c), c);
	free(order);
}

void
cuda__embed_bwd(struct kernels *k, struct tensor *d_wte, struct tensor *d_wpe, const struct tensor *d_y, const int32_t *tokens, int64_t m,
    int64_t t, const int32_t *starts)
{
	struct entry *entries = (struct entry *)malloc((size_t)(m + 1) * sizeof(*entries));

	if (entries == NULL)
		log_fatal("kernels.memory", "what=embed rows=%lld", (long long)m);
	for (int64_t i = 0; i < m; i++)
		entries[i] = entry{tokens[i], (int32_t)i};
	if (m > 0)
		add_by_key(k, d_wte, d_y, SLOT_ORDER, entries, m);
	for (int64_t i = 0; i < m; i++)
		entries[i] = entry{(int32_t)(i % t) - (starts != NULL ? starts[i] : 0), (int32_t)i};
	if (m > 0 && d_wpe != NULL)
		add_by_key(k, d_wpe, d_y, SLOT_PLACES, entries, m);
	free(entries);
}
