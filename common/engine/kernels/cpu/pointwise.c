/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log/log.h"
#include "base/mem/mem.h"

/* Elements that a thread takes at a time. */
#define PIECE 4096
/* Elements of an operand that are widened at a time, in bf16. */
#define ROOM 1024

#define PIECES(k, n, call)										\
	do {												\
		int64_t n_ = (n);									\
		_Pragma("omp parallel for num_threads((k)->threads) schedule(static) if ((k)->threads > 1 && n_ > (k)->small)") \
		for (int64_t at = 0; at < n_; at += PIECE) {						\
			int64_t len = n_ - at < PIECE ? n_ - at : PIECE;				\
			call;										\
		}											\
	} while (0)

static void
op_run(const struct vec *vec, enum kernels__pointwise op, float *const out[2], const float *const in[3], int64_t n)
{
	switch (op) {
	case KERNELS__GELU:
		vec->gelu(out[0], in[0], n);
		break;
	case KERNELS__GELU_BWD:
		vec->gelu_bwd(out[0], in[0], in[1], n);
		break;
	case KERNELS__GELU_ERF:
		vec->gelu_erf(out[0], in[0], n);
		break;
	case KERNELS__GELU_ERF_BWD:
		vec->gelu_erf_bwd(out[0], in[0], in[1], n);
		break;
	case KERNELS__SWIGLU:
		vec->swiglu(out[0], in[0], in[1], n);
		break;
	case KERNELS__SWIGLU_BWD:
		vec->swiglu_bwd(out[0], out[1], in[0], in[1], in[2], n);
		break;
	case KERNELS__RELU:
		vec->relu(out[0], in[0], n);
		break;
	case KERNELS__RELU_BWD:
		vec->relu_bwd(out[0], in[0], in[1], n);
		break;
	case KERNELS__RELU2:
		vec->relu2(out[0], in[0], n);
		break;
	case KERNELS__RELU2_BWD:
		vec->relu2_bwd(out[0], in[0], in[1], n);
		break;
	case KERNELS__GEGLU:
		vec->geglu(out[0], in[0], in[1], n);
		break;
	case KERNELS__GEGLU_BWD:
		vec->geglu_bwd(out[0], out[1], in[0], in[1], in[2], n);
		break;
	}
}

/*
 * Computes one piece: in place in fp32, through ROOM widened elements of each operand in bf16. Inputs are
 * read before outputs are written.
 */
static void
op_piece(const struct kernels *k, enum kernels__pointwise op, struct tensor *const out[2], const struct tensor *const in[3], int64_t begin, int64_t n)
{
	float rooms[5][ROOM];

	for (int64_t at = begin, len; at < begin + n; at += len) {
		const float *from[3] = {NULL};
		float *to[2] = {NULL};

		len = out[0]->dtype == DTYPE_F32 || begin + n - at < ROOM ? begin + n - at : ROOM;
		for (int i = 0; i < 3; i++)
			if (in[i] != NULL)
				from[i] = cpu__read(k, in[i]->data, in[i]->dtype, at, len, rooms[i]);
		for (int i = 0; i < 2; i++)
			if (out[i] != NULL)
				to[i] = cpu__place(out[i]->data, out[i]->dtype, at, rooms[3 + i]);
		op_run(k->vec, op, to, from, len);
		for (int i = 0; i < 2; i++)
			if (out[i] != NULL)
				cpu__store(k, out[i]->data, out[i]->dtype, at, len, to[i]);
	}
}

void
cpu__pointwise(struct kernels *k, enum kernels__pointwise op, struct tensor *const out[2], const struct tensor *const in[3], int64_t n)
{
	PIECES(k, n, op_piece(k, op, out, in, at, len));
}

/* Uses a buffer, so that y may be x. */
static void
affine_piece(const struct kernels *k, struct tensor *y, const struct tensor *x, float factor, float shift, int64_t begin, int64_t n)
{
	float from[ROOM], to[ROOM];

	for (int64_t at = begin, len; at < begin + n; at += len) {
		float *out = cpu__place(y->data, y->dtype, at, to);

		len = begin + n - at < ROOM ? begin + n - at : ROOM;
		k->vec->affine(out, cpu__read(k, x->data, x->dtype, at, len, from), factor, -shift, len);
		cpu__store(k, y->data, y->dtype, at, len, out);
	}
}

void
cpu__affine(struct kernels *k, struct tensor *y, const struct tensor *x, float factor, float shift)
{
	PIECES(k, tensor_count(y), affine_piece(k, y, x, factor, shift, at, len));
}

static void
add_scaled_piece(const struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *branch, float factor,
    int64_t begin, int64_t n)
{
	float from[ROOM];

	for (int64_t at = begin, len; at < begin + n; at += len) {
		len = begin + n - at < ROOM ? begin + n - at : ROOM;
		if (y->data != x->data)
			memcpy(cpu__f32(y) + at, cpu__f32(x) + at, (size_t)len * sizeof(float));
		k->vec->axpy(cpu__f32(y) + at, factor, cpu__read(k, branch->data, branch->dtype, at, len, from), len);
	}
}

void
cpu__add_scaled(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *branch, float factor)
{
	PIECES(k, tensor_count(y), add_scaled_piece(k, y, x, branch, factor, at, len));
}

void
cpu__soft_cap(struct kernels *k, struct tensor *x, float cap)
{
	PIECES(k, tensor_count(x), k->vec->soft_cap(cpu__f32(x) + at, cpu__f32(x) + at, 1, cap, len));
}

void
cpu__accumulate(struct kernels *k, float *y, const float *x, int64_t n)
{
	PIECES(k, n, k->vec->add(y + at, y + at, x + at, len));
}

void
cpu__convert(struct kernels *k, void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, int64_t n)
{
	(void)from_dtype;
	if (to_dtype == DTYPE_BF16)
		PIECES(k, n, k->vec->narrow((uint16_t *)to + at, (const float *)from + at, len));
	else
		PIECES(k, n, k->vec->widen((float *)to + at, (const uint16_t *)from + at, len));
}

/*
 * Tables of cosines and sines are kept between calls: all layers of a model use the same one, or one of two.
 */
static const struct kernels__rope *
rope_prepare(struct kernels *k, const float *freq, float magnitude, int64_t t, int64_t half)
{
	struct kernels__rope *r = k->ropes;
	size_t n;

	for (int i = 0; i < 2; i++)
		if (r[i].half == half && r[i].t >= t && r[i].magnitude == magnitude &&
		    memcmp(r[i].freq, freq, (size_t)half * sizeof(float)) == 0) {
			k->rope_next = 1 - i;
			return &r[i];
		}
	r += k->rope_next;
	k->rope_next = 1 - k->rope_next;
	free(r->table);
	free(r->freq);
	if (!mem_mul((size_t)t, (size_t)half * 2, &n) || (r->table = mem_alloc(n, sizeof(float))) == NULL ||
	    (r->freq = mem_alloc((size_t)half, sizeof(float))) == NULL)
		log_fatal("kernels.memory", "what=rope t=%lld half=%lld", (long long)t, (long long)half);
	memcpy(r->freq, freq, (size_t)half * sizeof(float));
	r->half = half;
	r->t = t;
	r->magnitude = magnitude;
	for (int64_t i = 0; i < t; i++) {
		for (int64_t j = 0; j < half; j++) {
			float angle = (float)i * freq[j];

			r->table[i * half + j] = magnitude * cosf(angle);
			r->table[(t + i) * half + j] = magnitude * sinf(angle);
		}
	}
	return r;
}

void
cpu__rope(struct kernels *k, struct kernels_heads *x, const float *freq, float magnitude, int64_t b, int64_t t, const int32_t *starts,
    bool inverse)
{
	int64_t half = x->head_dim / 2;
	const struct kernels__rope *r = rope_prepare(k, freq, magnitude, t, half);
	float *rooms = x->dtype == DTYPE_F32 ? NULL : cpu__scratch(k, (size_t)k->threads * (size_t)(2 * half));

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && b * t * x->n_heads * half > k->small)
	for (int64_t m = 0; m < b * t; m++) {
		int64_t position = cpu__position(starts, m, t);
		const float *cosine = r->table + position * half, *sine = r->table + (r->t + position) * half;
		float *room = rooms != NULL ? rooms + omp_get_thread_num() * 2 * half : NULL;

		for (int64_t h = 0; h < x->n_heads; h++) {
			int64_t at = cpu__head_at(x, m, h);
			float *head = cpu__place(x->data, x->dtype, at, room);

			cpu__read(k, x->data, x->dtype, at, 2 * half, head);
			k->vec->rope(head, cosine, sine, half, inverse);
			cpu__store(k, x->data, x->dtype, at, 2 * half, head);
		}
	}
}
