/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

#define PIECE 16384

void
cpu__norm_blocks(struct kernels *k, const float *x, int64_t n, double *out)
{
	int64_t blocks = (n + KERNELS_NORM_BLOCK - 1) / KERNELS_NORM_BLOCK;

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && blocks > 1)
	for (int64_t i = 0; i < blocks; i++) {
		int64_t at = i * KERNELS_NORM_BLOCK, len = n - at < KERNELS_NORM_BLOCK ? n - at : KERNELS_NORM_BLOCK;

		out[i] = k->vec->sum_squares(x + at, len);
	}
}

void
cpu__adamw(struct kernels *k, float *w, float *m, float *v, const float *grad, void *copy, enum dtype copy_dtype, int64_t n,
    const struct kernels_adamw *a)
{
	double bias1 = 1 - pow((double)a->beta1, (double)a->step), bias2 = 1 - pow((double)a->beta2, (double)a->step);
	struct vec_adamw c = {
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

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && n > PIECE)
	for (int64_t at = 0; at < n; at += PIECE) {
		int64_t len = n - at < PIECE ? n - at : PIECE;

		if (copy != NULL && copy_dtype == DTYPE_BF16) {
			k->vec->adamw_bf16(w + at, m + at, v + at, grad + at, (uint16_t *)copy + at, len, &c);
			continue;
		}
		k->vec->adamw(w + at, m + at, v + at, grad + at, len, &c);
		if (copy != NULL)
			memcpy((float *)copy + at, w + at, (size_t)len * sizeof(float));
	}
}
