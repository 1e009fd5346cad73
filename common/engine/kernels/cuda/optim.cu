/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "engine/kernels/cuda/cuda.h"

#define THREADS 256

/* One block of threads per block of elements; thread i adds elements i, i + THREADS, ... in order. */
__global__ static void
norm_blocks(const float *x, int64_t n, double *out)
{
	CUDA_SHARED(double, room, WARP);
	int64_t begin = (int64_t)blockIdx.x * KERNELS_NORM_BLOCK, end = begin + KERNELS_NORM_BLOCK < n ? begin + KERNELS_NORM_BLOCK : n;
	double sum = 0;

	for (int64_t i = begin + threadIdx.x; i < end; i += THREADS)
		sum += (double)x[i] * (double)x[i];
	sum = reduced<add_op>(sum, room, 0.0);
	if (threadIdx.x == 0)
		out[blockIdx.x] = sum;
}

void
cuda__norm_blocks(struct kernels *k, const float *x, int64_t n, double *out)
{
	unsigned blocks = cuda_blocks(n, KERNELS_NORM_BLOCK);
	double *sums = (double *)cuda__room(k, ROOM_MAIN, blocks * sizeof(*sums));

	if (blocks == 0)
		return;
	CUDA_RUN(k, norm_blocks, blocks, THREADS, x, n, sums);
	cuda__fetch(k, out, sums, blocks * sizeof(*out));
}

struct adamw {
	float grad_scale, shrink, beta1, beta2, one_minus_beta1, one_minus_beta2, step_size, inv_sqrt_bias2, eps;
};

__global__ static void
adamw(struct view w, struct view m, struct view v, struct view grad, struct view copy, int64_t n, struct adamw a)
{
	int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * QUAD;
	struct quad w4, m4, v4, g4;

	if (at >= n)
		return;
	w4 = get_quad(w, at, n - at);
	m4 = get_quad(m, at, n - at);
	v4 = get_quad(v, at, n - at);
	g4 = get_quad(grad, at, n - at);
	for (int e = 0; e < QUAD; e++) {
		float g = g4.f[e] * a.grad_scale;

		m4.f[e] = a.beta1 * m4.f[e] + a.one_minus_beta1 * g;
		v4.f[e] = a.beta2 * v4.f[e] + a.one_minus_beta2 * g * g;
		w4.f[e] = w4.f[e] * a.shrink - a.step_size * m4.f[e] / (sqrtf(v4.f[e]) * a.inv_sqrt_bias2 + a.eps);
	}
	put_quad(m, at, n - at, m4);
	put_quad(v, at, n - at, v4);
	put_quad(w, at, n - at, w4);
	if (copy.data != NULL)
		put_quad(copy, at, n - at, w4);
}

void
cuda__adamw(struct kernels *k, float *w, float *m, float *v, const float *grad, void *copy, enum dtype copy_dtype, int64_t n,
    const struct kernels_adamw *a)
{
	double bias1 = 1 - pow((double)a->beta1, (double)a->step), bias2 = 1 - pow((double)a->beta2, (double)a->step);
	const struct adamw c = {
	    .grad_scale = a->grad_scale,
	    .shrink = (float)(1 - (double)a->lr * (double)a->decay),
	    .beta1 = a->beta1,
	    .beta2 = a->beta2,
	    .one_minus_beta1 = (float)(1 - (double)a->beta1),
	    .one_minus_beta2 = (float)(1 - (double)a->beta2),
	    .step_size = (float)((double)a->lr / bias1),
	    .inv_sqrt_bias2 = (float)(1 / sqrt(bias2)),
	    .eps = a->eps,
	};

	if (n > 0)
		CUDA_RUN(k, adamw, cuda_blocks(n, THREADS * QUAD), THREADS, view_of(w, DTYPE_F32, 0), view_of(m, DTYPE_F32, 0),
		    view_of(v, DTYPE_F32, 0), view_of(grad, DTYPE_F32, 0), view_of(copy, copy_dtype, 0), n, c);
}
