/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pointwise - kernels that compute an element from its inputs alone, and RoPE. Each thread computes four
 * elements.
 */
#include "engine/kernels/cuda/cuda.h"

#define THREADS 256

/* Further operations; their numbers follow those of enum kernels__pointwise. */
enum { OP_AFFINE = KERNELS__GEGLU_BWD + 1, OP_ADD_SCALED, OP_SOFT_CAP, OP_COPY };

struct operands {
	struct view out[2], in[3];
	float a, b;
};

/*
 * gelu_new and its derivative, whose last term is set to 0 for large |x|, where it would be infinity times 0.
 */
__device__ __forceinline__ float
gelu(float x, float *slope)
{
	const float root = 0.79788456f, cube = 0.044715f;		/* sqrt(2 / pi) */
	float t = tanhf(root * (x + cube * x * x * x));

	*slope = 0.5f * (1 + t) + (t * t < 1 ? 0.5f * x * (1 - t * t) * root * (1 + 3 * cube * x * x) : 0);
	return 0.5f * x * (1 + t);
}

__device__ __forceinline__ float
gelu_erf(float x, float *slope)
{
	float phi = 0.5f * (1 + erff(x * 0.70710678f)), density = 0.39894228f * expf(-0.5f * x * x);	/* 1 / sqrt(2 pi) */

	*slope = phi + (density > 0 ? x * density : 0);
	return x * phi;
}

__device__ __forceinline__ float
silu(float x, float *slope)
{
	float s = 1 / (1 + expf(-x));

	*slope = s * (1 + x * (1 - s));
	return x * s;
}

/* y0 and y1 from x0, x1 and x2, as in kernels.h. */
template <int op> __device__ __forceinline__ void
compute(float *y0, float *y1, float x0, float x1, float x2, float a, float b)
{
	float slope;

	*y1 = 0;
	if (op == KERNELS__GELU)
		*y0 = gelu(x0, &slope);
	else if (op == KERNELS__GELU_BWD)
		gelu(x1, &slope), *y0 = x0 * slope;
	else if (op == KERNELS__GELU_ERF)
		*y0 = gelu_erf(x0, &slope);
	else if (op == KERNELS__GELU_ERF_BWD)
		gelu_erf(x1, &slope), *y0 = x0 * slope;
	else if (op == KERNELS__SWIGLU)
		*y0 = silu(x0, &slope) * x1;
	else if (op == KERNELS__GEGLU)
		*y0 = gelu(x0, &slope) * x1;
	else if (op == KERNELS__SWIGLU_BWD)
		*y1 = x0 * silu(x1, &slope), *y0 = x0 * x2 * slope;
	else if (op == KERNELS__GEGLU_BWD)
		*y1 = x0 * gelu(x1, &slope), *y0 = x0 * x2 * slope;
	else if (op == KERNELS__RELU)
		*y0 = x0 > 0 ? x0 : 0;
	else if (op == KERNELS__RELU_BWD)
		*y0 = x1 > 0 ? x0 : 0;
	else if (op == KERNELS__RELU2)
		*y0 = x0 > 0 ? x0 * x0 : 0;
	else if (op == KERNELS__RELU2_BWD)
		*y0 = x1 > 0 ? x0 * 2 * x1 : 0;
	else if (op == OP_AFFINE)
		*y0 = a * x0 + b;
	else if (op == OP_ADD_SCALED)
		*y0 = x0 + a * x1;
	else if (op == OP_SOFT_CAP)
		*y0 = a * tanhf(x0 / a);
	else
		*y0 = x0;
}

template <int op, int outs, int ins> __global__ void
pointwise(struct operands o, int64_t n)
{
	int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * QUAD;
	struct quad x0, x1 = {}, x2 = {}, y0, y1;

	if (at >= n)
		return;
	x0 = get_quad(o.in[0], at, n - at);
	if (ins > 1)
		x1 = get_quad(o.in[1], at, n - at);
	if (ins > 2)
		x2 = get_quad(o.in[2], at, n - at);
	for (int e = 0; e < QUAD; e++)
		compute<op>(&y0.f[e], &y1.f[e], x0.f[e], x1.f[e], x2.f[e], o.a, o.b);
	put_quad(o.out[0], at, n - at, y0);
	if (outs > 1)
		put_quad(o.out[1], at, n - at, y1);
}

template <int op, int outs, int ins> static void
launch(struct kernels *k, const struct operands &o, int64_t n)
{
	if (n > 0)
		CUDA_RUN(k, (pointwise<op, outs, ins>), cuda_blocks(n, THREADS * QUAD), THREADS, o, n);
}

static struct view
whole(const struct tensor *t)
{
	return t != NULL ? view_of(t->data, t->dtype, 0) : view{};
}

void
cuda__pointwise(struct kernels *k, enum kernels__pointwise op, struct tensor *const out[2], const struct tensor *const in[3], int64_t n)
{
	const struct operands o = {{whole(out[0]), whole(out[1])}, {whole(in[0]), whole(in[1]), whole(in[2])}, 0, 0};

	switch (op) {
#define OP(name, outs, ins)										\
	case KERNELS__##name:										\
		launch<KERNELS__##name, outs, ins>(k, o, n);						\
		break
	OP(GELU, 1, 1);
	OP(GELU_BWD, 1, 2);
	OP(GELU_ERF, 1, 1);
	OP(GELU_ERF_BWD, 1, 2);
	OP(SWIGLU, 1, 2);
	OP(SWIGLU_BWD, 2, 3);
	OP(GEGLU, 1, 2);
	OP(GEGLU_BWD, 2, 3);
	OP(RELU, 1, 1);
	OP(RELU_BWD, 1, 2);
	OP(RELU2, 1, 1);
	OP(RELU2_BWD, 1, 2);
#undef OP
	}
}

void
cuda__affine(struct kernels *k, struct tensor *y, const struct tensor *x, float factor, float shift)
{
	launch<OP_AFFINE, 1, 1>(k, {{whole(y), {}}, {whole(x), {}, {}}, factor, shift}, tensor_count(y));
}

void
cuda__add_scaled(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *branch, float factor)
{
	launch<OP_ADD_SCALED, 1, 2>(k, {{whole(y), {}}, {whole(x), whole(branch), {}}, factor, 0}, tensor_count(y));
}

void
cuda__soft_cap(struct kernels *k, struct tensor *x, float cap)
{
	launch<OP_SOFT_CAP, 1, 1>(k, {{whole(x), {}}, {whole(x), {}, {}}, cap, 0}, tensor_count(x));
}

void
cuda__accumulate(struct kernels *k, float *y, const float *x, int64_t n)
{
	const struct view to = view_of(y, DTYPE_F32, 0), from = view_of(x, DTYPE_F32, 0);

	launch<OP_ADD_SCALED, 1, 2>(k, {{to, {}}, {to, from, {}}, 1, 0}, n);
}

void
cuda__convert(struct kernels *k, void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, int64_t n)
{
	launch<OP_COPY, 1, 1>(k, {{view_of(to, to_dtype, 0), {}}, {view_of(from, from_dtype, 0), {}, {}}, 0, 0}, n);
}

/* A thread rotates pair j of all heads of row m. */
__global__ static void
rope(struct view x, int64_t rows, int64_t t, int64_t half, int64_t stride, int64_t n_heads, int64_t head_stride, const float *freq,
    const int32_t *starts, float magnitude, float sign)
{
	int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, m = i / half, j = i % half;
	float angle, cosine, sine;

	if (m >= rows)
		return;
	angle = (float)position_of(starts, m, t) * freq[j];
	cosine = magnitude * cosf(angle);
	sine = sign * magnitude * sinf(angle);
	for (int64_t h = 0; h < n_heads; h++) {
		int64_t at = m * stride + h * head_stride + j;
		float a = get(x, at), b = get(x, at + half);

		put(x, at, a * cosine - b * sine);
		put(x, at + half, b * cosine + a * sine);
	}
}

void
cuda__rope(struct kernels *k, struct kernels_heads *x, const float *freq, float magnitude, int64_t b, int64_t t, const int32_t *starts,
    bool inverse)
{
	int64_t half = x->head_dim / 2, rows = b * t;

	CUDA_RUN(k, rope, cuda_blocks(rows * half, THREADS), THREADS, view_of(x->data, x->dtype, 1), rows, t, half, x->stride, x->n_heads,
	    kernels__head_stride(x), (const float *)cuda__upload(k, SLOT_FREQ, freq, (size_t)half * sizeof(float)),
	    (const int32_t *)cuda__upload(k, SLOT_STARTS, starts, (size_t)rows * sizeof(*starts)), magnitude, inverse ? -1.0f : 1.0f);
}
