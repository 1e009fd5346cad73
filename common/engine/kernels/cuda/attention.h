/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention - what the fp32 kernels (attention.cu) and the bf16 kernels (attention_mma.cu) of attention share.
 *
 * Both follow FlashAttention-2 (Dao, 2023): a block has a tile of queries and reads the keys that they see
 * tile by tile; of the scores it keeps the maximum and the sum of each row. Backward recomputes the
 * probabilities from the log-sum-exp, in two kernels: in one a block has a tile of keys and reads queries
 * (d_key, d_value; over the query heads of its key head in order), in the other it has a tile of queries and
 * reads keys (d_q). One block computes every sum, in a fixed order, and tiles begin at multiples of their
 * size in a sequence: a sequence gets the same bits alone and in a batch, and a document gets the same bits
 * at one index of a sequence, whatever its neighbours are.
 */
#ifndef SALT_CUDA_ATTENTION_H
#define SALT_CUDA_ATTENTION_H

#include <limits.h>
#include <math.h>

#include "engine/kernels/cuda/cuda.h"

#define MAX_HEAD 256
#define LOG2E 1.44269504f

/*
 * struct kernels_heads on the device. wide: 8 numbers at any multiple of 8 of a head are aligned to 16 bytes.
 */
struct heads {
	void *data;
	int64_t stride, head_stride;
	bool wide;
};

struct attention {
	struct heads q, key, value, o, d_o, d_q, d_key, d_value;
	float *lse;				/* [B, H, T] */
	const float *delta;			/* backward: [B, H, T], dot products of d_o and o */
	const int32_t *starts;			/* NULL: no documents */
	int t, n_heads, group, d;		/* group: query heads per key head */
	int window;				/* 0: none */
	float scale, soft_cap;
};

/* The bf16 kernels. b: number of sequences. */
void cuda__attention_mma(struct kernels *k, const struct attention *a, int64_t b);
void cuda__attention_mma_bwd(struct kernels *k, const struct attention *a, int64_t b);

/* Runs kernel<<<grid, block, shared_bytes>>>, also with more than 48 KiB of shared memory. */
template <typename... P> static inline void
attention_run(struct kernels *k, const char *name, void (*kernel)(P...), dim3 grid, unsigned block, size_t shared_bytes, const struct attention &a)
{
	CUDA_CALL(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes));
	cuda__check(cuda_launch(kernel, grid, block, shared_bytes, cuda_of(k)->stream, a), name);
}

/* ---- device ---- */

/* The work of a block: a tile of rows of one head of one sequence. */
struct place {
	int64_t row0;				/* the sequence's first row in the call */
	int head, first, n;			/* rows first .. first + n - 1 of the sequence */
};

/*
 * The tiles of a head are adjacent in the grid, so that blocks that run at the same time share keys and
 * values in the cache. last: tiles are assigned from the last one, which has the most keys.
 */
__device__ __forceinline__ struct place
place_of(const struct attention &a, int heads, int rows, bool last)
{
	unsigned tiles = (unsigned)(a.t + rows - 1) / (unsigned)rows, i = blockIdx.x % tiles, head = blockIdx.x / tiles;
	int first = (int)(last ? tiles - 1 - i : i) * rows;

	return {(int64_t)(head / (unsigned)heads) * a.t, (int)(head % (unsigned)heads), first, a.t - first < rows ? a.t - first : rows};
}

/* The first key that query i of the sequence at row0 sees. It never decreases from one query to the next. */
__device__ __forceinline__ int
first_key(const struct attention &a, int64_t row0, int i)
{
	int start = a.starts != NULL ? a.starts[row0 + i] : 0, in_window = a.window > 0 ? i - a.window + 1 : 0;

	return start > in_window ? start : in_window;
}

/* Number of tiles of `step` queries, from `from` on, in which some query sees a key up to `last`. */
__device__ __forceinline__ int
query_tiles(const struct attention &a, int64_t row0, int from, int last, int step)
{
	int low = 0, high = (a.t - from + step - 1) / step;

	while (low < high) {
		int middle = (low + high) / 2;

		if (first_key(a, row0, from + middle * step) <= last)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The score for x = q . k; *slope: its derivative with respect to x, divided by scale. */
__device__ __forceinline__ float
score_of(const struct attention &a, float x, float *slope)
{
	float u;

	*slope = 1;
	if (a.soft_cap == 0)
		return x * a.scale;
	u = tanhf(x * a.scale / a.soft_cap);
	*slope = 1 - u * u;
	return a.soft_cap * u;
}

/* Index of the first element of head h in row `row`. */
__device__ __forceinline__ int64_t
head_at(const struct heads &x, int64_t row, int h)
{
	return row * x.stride + h * x.head_stride;
}

/* Index in lse and delta of head h and row `row` of the sequence at row0. */
__device__ __forceinline__ int64_t
stat_at(const struct attention &a, int64_t row0, int row, int h)
{
	return row0 * a.n_heads + (int64_t)h * a.t + row;
}

#endif
