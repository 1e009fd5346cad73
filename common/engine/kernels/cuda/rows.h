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

/* Caps z [0, v) in place, each thread its own elements. Returns the maximum over the first n elements. */
__device__ __forceinline__ float
cap_and_max(float *z, int64_t v, int64_t n, float cap, float *room)
{
	float top = -INFINITY;

	for (int64_t i = threadIdx.x; i < v; i += ROW_THREADS) {
		if (cap > 0)
			z[i] = cap * tanhf(z[i] / cap);
		if (i < n)
			top = max_op()(top, z[i]);
	}
	return reduced<max_op>(top, room, -INFINITY);
}

#endif
