/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention - what the fp32 kernels (attention.cu) and the bf16 kernels (attention_mma.cu) of attention share.
 *
 * Both have the order of FlashAttention-2 (Dao, 2023): a block has a tile of queries and reads the keys that they see tile by tile; of the
 * scores it keeps each row's maximum and sum. Backward computes the probabilities again, from the log-sum-exp, in two kernels: a block has a
 * tile of keys and reads queries (d_key, d_value; the query heads of its key head in order), or a tile of queries and reads keys (d_q).
 * Every sum has one block and a fixed order, and tiles begin at multiples of their size in a sequence: a sequence gets the same bits alone
 * and in a batch, a document in its place whatever its neighbours are.
 */
#ifndef SALT_CUDA_ATTENTION_H
#define SALT_CUDA_ATTENTION_H

#include <limits.h>
#include <math.h>

#include "engine/kernels/cuda/cuda.h"

#define MAX_HEAD 256
#define LOG2E 1.44269504f

/* struct kernels_heads on the device. wide: 8 numbers from any multiple of 8 of a head lie at a multiple of 16 bytes. */
struct heads {
	void *data;
	int64_t stride, head_stride;
	bool wide;
};

struct attention {
	struct heads q, key, value, o, d_o, d_q, d_key, d_value;
	float *lse;				/* [B, H, T] */
	const float *delta;			/* backward: [B, H, T], d_o . o */
	const int32_t *starts;			/* NULL: no documents */
	int t, n_heads, group, d;		/* group: query heads of a key head */
	int window;				/* 0: none */
	float scale, soft_cap;
};

/* The bf16 kernels. b: sequences. */
void cuda__attention_mma(struct kernels *k, const struct attention *a, int64_t b);
void cuda__attention_mma_bwd(struct kernels *k, const struct attention *a, int64_t b);

/* kernel<<<grid, block, shared_bytes>>> for kernels with more than 48 KiB of shared memory, too. */
template <typename... P> static inline void
attention_run(struct kernels *k, const char *name, void (*kernel)(P...), dim3 grid, unsigned block, size_t shared_bytes, const struct attention &a)
{
	CUDA_CALL(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes));
	cuda__check(cuda_launch(kernel, grid, block, shared_bytes, cuda_of(k)->stream, a), name);
}

/* ---- device ---- */

/* What a block has: a head of a sequence and a tile of its rows. */
struct place {
	int64_t row0;				/* the sequence's first row in the call */
	int head, first, n;			/* rows first .. first + n - 1 of the sequence */
};

/*
 * Tiles of a head are neighbours in the grid, so that those which run at a time share keys and values in the cache. last: the last tile comes
 * first, which has most keys.
 */
__device__ __forceinline__ struct place
place_of(const struct attention &a, int heads, int rows, bool last)
{
	unsigned tiles = (unsigned)(a.t + rows - 1) / (unsigned)rows, i = blockIdx.x % tiles, head = blockIdx.x / tiles;
	int first = (int)(last ? tiles - 1 - i : i) * rows;

	return {(int64_t)(head / (unsigned)heads) * a.t, (int)(head % (unsigned)heads), first, a.t - first < rows ? a.t - first : rows};
}

/* The first key that query i of the sequence at row0 sees. It does not decrease from query to query. */
__device__ __forceinline__ int
first_key(const struct attention &a, int64_t row0, int i)
{
	int start = a.starts != NULL ? a.starts[row0 + i] : 0, in_window = a.window > 0 ? i - a.window + 1 : 0;

	return start > in_window ? start : in_window;
}

/* Tiles of `step` queries from `from` on of which some query sees a key up to `last`. */
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

/* The score of x = q . k; *slope: its derivative to x, over scale. */
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

/* Number of the first element of head h in row `row`. */
__device__ __forceinline__ int64_t
head_at(const struct heads &x, int64_t row, int h)
{
	return row * x.stride + h * x.head_stride;
}

/* Of row `row` of the call, head h, in lse and delta. */
__device__ __forceinline__ int64_t
stat_at(const struct attention &a, int64_t row0, int row, int h)
{
	return row0 * a.n_heads + (int64_t)h * a.t + row;
}

#endif
