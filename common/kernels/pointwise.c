#include "kernels/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "log/log.h"
#include "mem/mem.h"

/* Element-wise loops go in pieces of this size. */
#define PIECE 4096

#define PIECES(k, n, call)										\
	do {												\
		int64_t n_ = (n);									\
		_Pragma("omp parallel for num_threads((k)->threads) schedule(static) if ((k)->threads > 1 && n_ > (k)->small)") \
		for (int64_t at = 0; at < n_; at += PIECE) {						\
			int64_t len = n_ - at < PIECE ? n_ - at : PIECE;				\
			call;										\
		}											\
	} while (0)

void
kernels_add(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *r)
{
	float *out = kernels__f32(y);
	const float *a = kernels__f32(x), *b = kernels__f32(r);

	kernels__shape(tensor_count(y) == tensor_count(x) && tensor_count(y) == tensor_count(r), "add");
	PIECES(k, tensor_count(y), k->vec->add(out + at, a + at, b + at, len));
}

void
kernels_gelu(struct kernels *k, struct tensor *y, const struct tensor *x)
{
	float *out = kernels__f32(y);
	const float *in = kernels__f32(x);

	kernels__shape(tensor_count(y) == tensor_count(x), "gelu");
	PIECES(k, tensor_count(y), k->vec->gelu(out + at, in + at, len));
}

void
kernels_gelu_bwd(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *x)
{
	float *out = kernels__f32(d_x);
	const float *d = kernels__f32(d_y), *in = kernels__f32(x);

	kernels__shape(tensor_count(d_x) == tensor_count(x) && tensor_count(d_x) == tensor_count(d_y), "gelu_bwd");
	PIECES(k, tensor_count(d_x), k->vec->gelu_bwd(out + at, d + at, in + at, len));
}

void
kernels_gelu_erf(struct kernels *k, struct tensor *y, const struct tensor *x)
{
	float *out = kernels__f32(y);
	const float *in = kernels__f32(x);

	kernels__shape(tensor_count(y) == tensor_count(x), "gelu_erf");
	PIECES(k, tensor_count(y), k->vec->gelu_erf(out + at, in + at, len));
}

void
kernels_gelu_erf_bwd(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *x)
{
	float *out = kernels__f32(d_x);
	const float *d = kernels__f32(d_y), *in = kernels__f32(x);

	kernels__shape(tensor_count(d_x) == tensor_count(x) && tensor_count(d_x) == tensor_count(d_y), "gelu_erf_bwd");
	PIECES(k, tensor_count(d_x), k->vec->gelu_erf_bwd(out + at, d + at, in + at, len));
}

void
kernels_swiglu(struct kernels *k, struct tensor *y, const struct tensor *gate, const struct tensor *up)
{
	float *out = kernels__f32(y);
	const float *g = kernels__f32(gate), *u = kernels__f32(up);

	kernels__shape(tensor_count(y) == tensor_count(gate) && tensor_count(y) == tensor_count(up), "swiglu");
	PIECES(k, tensor_count(y), k->vec->swiglu(out + at, g + at, u + at, len));
}

void
kernels_swiglu_bwd(struct kernels *k, struct tensor *d_gate, struct tensor *d_up, const struct tensor *d_y,
    const struct tensor *gate, const struct tensor *up)
{
	float *dg = kernels__f32(d_gate), *du = kernels__f32(d_up);
	const float *d = kernels__f32(d_y), *g = kernels__f32(gate), *u = kernels__f32(up);

	kernels__shape(tensor_count(d_y) == tensor_count(gate) && tensor_count(d_y) == tensor_count(up) &&
	    tensor_count(d_y) == tensor_count(d_gate) && tensor_count(d_y) == tensor_count(d_up), "swiglu_bwd");
	PIECES(k, tensor_count(d_y), k->vec->swiglu_bwd(dg + at, du + at, d + at, g + at, u + at, len));
}

void
kernels_accumulate(struct kernels *k, float *y, const float *x, int64_t n)
{
	PIECES(k, n, k->vec->add(y + at, y + at, x + at, len));
}

void
kernels_convert(struct kernels *k, void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, int64_t n)
{
	kernels__shape(to_dtype != DTYPE_F16 && from_dtype != DTYPE_F16, "convert");
	if (to_dtype == from_dtype)
		kernels_copy(k, to, from, (size_t)n * dtype_size(to_dtype));
	else if (to_dtype == DTYPE_BF16)
		PIECES(k, n, k->vec->narrow((uint16_t *)to + at, (const float *)from + at, len));
	else
		PIECES(k, n, k->vec->widen((float *)to + at, (const uint16_t *)from + at, len));
}

/* Cosines and sines are kept from call to call: the same for every layer, query and key of a model. */
static void
rope_prepare(struct kernels *k, const float *freq, int64_t t, int64_t half)
{
	size_t n;

	if (k->rope_half == half && k->rope_t >= t && memcmp(k->rope_freq, freq, (size_t)half * sizeof(float)) == 0)
		return;
	free(k->rope_table);
	free(k->rope_freq);
	if (!mem_mul((size_t)t, (size_t)half * 2, &n) || (k->rope_table = mem_alloc(n, sizeof(float))) == NULL ||
	    (k->rope_freq = mem_alloc((size_t)half, sizeof(float))) == NULL)
		log_fatal("kernels.memory", "what=rope t=%lld half=%lld", (long long)t, (long long)half);
	memcpy(k->rope_freq, freq, (size_t)half * sizeof(float));
	k->rope_half = half;
	k->rope_t = t;
	for (int64_t i = 0; i < t; i++) {
		for (int64_t j = 0; j < half; j++) {
			float angle = (float)i * freq[j];

			k->rope_table[i * half + j] = cosf(angle);
			k->rope_table[(t + i) * half + j] = sinf(angle);
		}
	}
}

void
kernels_rope(struct kernels *k, struct kernels_heads *x, const float *freq, int64_t b, int64_t t, bool inverse)
{
	int64_t half = x->head_dim / 2;

	kernels__shape(x->head_dim % 2 == 0 && kernels__heads_fit(x), "rope");
	rope_prepare(k, freq, t, half);
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && b * t * x->n_heads * half > k->small)
	for (int64_t m = 0; m < b * t; m++) {
		const float *cosine = k->rope_table + m % t * half, *sine = k->rope_table + (k->rope_t + m % t) * half;

		for (int64_t h = 0; h < x->n_heads; h++)
			k->vec->rope(kernels__head_at(x, m, h), cosine, sine, half, inverse);
	}
}
