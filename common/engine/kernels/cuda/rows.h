/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rows - what the kernels of the output layer share: chunks of rows, the exponential, soft caps.
 */
#ifndef SALT_CUDA_ROWS_H
#define SALT_CUDA_ROWS_H

#include "engine/kernels/cuda/cuda.h"
#include "engine/kernels/cuda/limits.h"

#define ROW_THREADS 256

/* exp(x) by the operations and fused multiply-adds of vec_expf (cpu/vec_math.h): equal logits, equal draws */
__device__ __forceinline__ float
row_exp(float x)
{
	float c = x > 89.0f ? 89.0f : x, shifted, n, r, p;

	shifted = fmaf(c, 1.44269504f, 12582912.0f);
	n = shifted - 12582912.0f;
	r = fmaf(n, -0.693145752f, c);
	r = fmaf(n, -1.42860677e-6f, r);
	p = 1.98412698e-4f;
	p = fmaf(p, r, 1.38888889e-3f);
	p = fmaf(p, r, 8.33333333e-3f);
	p = fmaf(p, r, 4.16666667e-2f);
	p = fmaf(p, r, 1.66666667e-1f);
	p = fmaf(p, r, 0.5f);
	p = fmaf(p * r, r, r) + 1.0f;
	p = p * float_of((bits_of(shifted) << 23) + (126u << 23)) * 2.0f;
	return x < -86.98f ? 0.0f : p;
}

/* A row of logits, or of their gradient: it begins at a multiple of 64 numbers. */
__device__ __forceinline__ struct view
row_view(const void *row, bool bf16)
{
	return {(void *)(uintptr_t)row, bf16, true};
}

/* Calls f(z[i]) for the ids i < n of a row; a thread reads four at a time. */
template <typename F> __device__ __forceinline__ void
each_logit(const float *row, int64_t n, F f)
{
	for (int64_t i = (int64_t)threadIdx.x * QUAD; i < n; i += ROW_THREADS * QUAD) {
		struct quad q = get_quad(row_view(row, false), i, n - i);

		for (int e = 0; e < QUAD; e++)
			if (i + e < n)
				f(q.f[e]);
	}
}

/*
 * Caps z [0, v) in place and returns the maximum over the first n elements. Ends with barriers: all threads may
 * then read the row.
 */
__device__ __forceinline__ float
cap_and_max(float *z, int64_t v, int64_t n, float cap, float *room)
{
	float top = -INFINITY;

	for (int64_t i = threadIdx.x; i < v && cap > 0; i += ROW_THREADS)
		z[i] = cap * tanhf(z[i] / cap);
	if (cap > 0)
		__syncthreads();
	each_logit(z, n, [&](float f) { top = max_op()(top, f); });
	return reduced<max_op>(top, room, -INFINITY);
}

/*
 * Ids of the first of two products over all ids. bf16 operands are read fastest 16 bytes at a time, so the last v % 8 ids have a product of
 * their own.
 */
static inline int64_t
even_ids(enum dtype dtype, int64_t v)
{
	return dtype == DTYPE_BF16 && v > 8 ? v / 8 * 8 : v;
}

/* logits [n, v] = h w^T + bias, in rows of cuda_row_floats(v). bias may be NULL. */
static inline void
row_logits(struct kernels *k, float *logits, int64_t n, const struct kernels__matrix *h, const struct tensor *w_out, const struct tensor *bias)
{
	int64_t v = w_out->dims[0], c = kernels__cols(w_out), ids = even_ids(w_out->dtype, v);

	for (int64_t at = 0; at < v; at += ids, ids = v - at) {
		struct kernels__matrix w = {kernels__element(w_out->data, w_out->dtype, at * c), w_out->dtype, c, true, true, false};
		struct kernels__matrix z = {logits + at, DTYPE_F32, cuda_row_floats(v), false, false, false};
		struct tensor part = {};

		if (bias != NULL)
			part = {kernels__element(bias->data, bias->dtype, at), bias->dtype, 1, {ids}};
		cuda__matmul(k, n, ids, c, h, &w, &z, bias != NULL ? &part : NULL, false);
	}
}

#endif
