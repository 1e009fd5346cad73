/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec - the inner loops of kernels/, single-threaded, on plain float arrays. vec.c and vec_rows.c are
 * compiled once for each instruction set; cpu__open selects one table. Aliasing is as in kernels.h:
 * element-wise loops read an element before they write it.
 *
 * Bits: element-wise results depend on the element alone (multiply-adds are fused only as in vec_math.h).
 * Sums use VEC_LANES * 4 interleaved partial sums for every instruction set, so their order is fixed by n.
 */
#ifndef SALT_KERNELS_VEC_H
#define SALT_KERNELS_VEC_H

#include <stdbool.h>
#include <stdint.h>

struct vec_adamw {
	float grad_scale, shrink, beta1, beta2, one_minus_beta1, one_minus_beta2, step_size, inv_sqrt_bias2, eps;
};

struct vec {
	const char *name;

	/* element-wise, n elements */
	void (*add)(float *y, const float *a, const float *b, int64_t n);	/* y = a + b */
	void (*scale)(float *y, float a, int64_t n);				/* y *= a */
	void (*axpy)(float *y, float a, const float *x, int64_t n);		/* y += a * x */
	void (*gelu)(float *y, const float *x, int64_t n);
	void (*gelu_bwd)(float *d_x, const float *d_y, const float *x, int64_t n);
	void (*gelu_erf)(float *y, const float *x, int64_t n);
	void (*gelu_erf_bwd)(float *d_x, const float *d_y, const float *x, int64_t n);
	void (*swiglu)(float *y, const float *gate, const float *up, int64_t n);
	void (*swiglu_bwd)(float *d_gate, float *d_up, const float *d_y, const float *gate, const float *up, int64_t n);
	void (*geglu)(float *y, const float *gate, const float *up, int64_t n);
	void (*geglu_bwd)(float *d_gate, float *d_up, const float *d_y, const float *gate, const float *up, int64_t n);
	void (*relu)(float *y, const float *x, int64_t n);
	void (*relu_bwd)(float *d_x, const float *d_y, const float *x, int64_t n);
	void (*relu2)(float *y, const float *x, int64_t n);			/* max(x, 0)^2 */
	void (*relu2_bwd)(float *d_x, const float *d_y, const float *x, int64_t n);
	void (*soft_cap)(float *y, const float *x, float scale, float cap, int64_t n);	/* y = cap * tanh(x * scale / cap) */
	void (*soft_cap_bwd)(float *d, const float *y, float scale, float cap, int64_t n);	/* d *= scale * (1 - (y / cap)^2) */
	void (*exp)(float *y, const float *x, float scale, float shift, int64_t n);	/* y = exp(x * scale - shift) */
	void (*affine)(float *y, const float *x, float scale, float shift, int64_t n);	/* y = x * scale - shift */
	/* Nesterov: g = grad * grad_scale; m = beta m + (1 - beta) g; u = beta m + (1 - beta) g */
	void (*momentum)(float *u, float *m, const float *grad, int64_t n, float beta, float one_minus_beta, float grad_scale);
	void (*adamw)(float *w, float *m, float *v, const float *g, int64_t n, const struct vec_adamw *a);

	/* bf16 <-> fp32, as tensor_bf16_to_f32 and tensor_f32_to_bf16 */
	void (*widen)(float *y, const uint16_t *x, int64_t n);
	void (*narrow)(uint16_t *y, const float *x, int64_t n);
	void (*pairs)(uint32_t *y, const uint16_t *a, const uint16_t *b, int64_t n);	/* y = a in the low half, b in the high half */
	void (*adamw_bf16)(float *w, float *m, float *v, const float *g, uint16_t *copy, int64_t n, const struct vec_adamw *a);

	/* sums and searches of one row */
	float (*sum)(const float *x, int64_t n);
	float (*exp_sum)(float *y, const float *x, float scale, float shift, int64_t n);	/* exp, then sum of y */
	float (*dot)(const float *a, const float *b, int64_t n);
	double (*sum_squares)(const float *x, int64_t n);			/* in fp64 */
	float (*max)(const float *x, int64_t n);				/* -inf if n = 0; skips NaN */
	int64_t (*count_above)(const float *x, int64_t n, float bound);		/* x > bound */
	int64_t (*count_from)(const float *x, int64_t n, float bound);		/* x >= bound */

	/* whole rows */
	void (*layernorm)(float *y, float *mean, float *rstd, const float *x, const float *g, const float *b, float eps, int64_t n);
	void (*layernorm_bwd)(float *d_x, float *d_g, float *d_b, const float *d_y, const float *x, const float *g, float mean,
	    float rstd, bool add, int64_t n);
	void (*rmsnorm)(float *y, float *rstd, const float *x, const float *g, float eps, int64_t n);
	void (*rmsnorm_bwd)(float *d_x, float *d_g, const float *d_y, const float *x, const float *g, float rstd, bool add, int64_t n);
	/* pairs of bf16 numbers, [rows, cols] to [cols, rows]; strides are pairs in y and numbers in x */
	void (*transpose)(uint32_t *y, int64_t y_stride, const uint16_t *x, int64_t x_stride, int64_t rows, int64_t cols);
	void (*rope)(float *x, const float *cosine, const float *sine, int64_t half, bool inverse);

	/* attention: scores s[n] to probabilities, 0 from n to n_padded; returns log-sum-exp of s * scale */
	float (*softmax)(float *s, int64_t n, int64_t n_padded, float scale);
	/* scores p[n] to probabilities by lse, d_p to p * (d_p - delta) * scale; 0 from n to n_padded */
	void (*softmax_bwd)(float *p, float *d_p, int64_t n, int64_t n_padded, float scale, float lse, float delta);

	/*
	 * Labels: y = x, in (0, 1], rounded to a multiple of VEC_GRAIN, so that fp64 sums of y are exact in any order.
	 * sums [(n + VEC_GROUP - 1) / VEC_GROUP]: the sum of each group of VEC_GROUP numbers of y; the last group may
	 * be smaller.
	 */
	void (*grain)(float *y, double *sums, const float *x, int64_t n);
};

#define VEC_LANES 8
#define VEC_GROUP 64
#define VEC_GRAIN 0x1p-33		/* 2^20 values of at most 1: sums below 2^53 grains */

extern const struct vec vec_base, vec_haswell, vec_avx512;

#endif
