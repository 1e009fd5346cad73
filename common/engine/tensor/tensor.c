/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/tensor/tensor.h"

#include <string.h>

size_t
dtype_size(enum dtype dtype)
{
	return dtype == DTYPE_F32 ? 4 : 2;
}

const char *
dtype_name(enum dtype dtype)
{
	static const char *const names[DTYPE_COUNT] = {"fp32", "bf16", "fp16"};

	return names[dtype];
}

struct tensor
tensor_1d(void *data, enum dtype dtype, int64_t a)
{
	return (struct tensor){.data = data, .dtype = dtype, .n_dims = 1, .dims = {a}};
}

struct tensor
tensor_2d(void *data, enum dtype dtype, int64_t a, int64_t b)
{
	return (struct tensor){.data = data, .dtype = dtype, .n_dims = 2, .dims = {a, b}};
}

struct tensor
tensor_rows(const struct tensor *t, int64_t begin, int64_t n)
{
	struct tensor r = *t;
	int64_t row = 1;

	for (int i = 1; i < t->n_dims; i++)
		row *= t->dims[i];
	r.data = (char *)t->data + (size_t)(begin * row) * dtype_size(t->dtype);
	r.dims[0] = n;
	return r;
}

float
tensor_bf16_to_f32(uint16_t v)
{
	uint32_t u = (uint32_t)v << 16;
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

uint16_t
tensor_f32_to_bf16(float v)
{
	uint32_t u;

	memcpy(&u, &v, sizeof(u));
	if ((u & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

float
tensor_f16_to_f32(uint16_t v)
{
	uint32_t sign = (uint32_t)(v & 0x8000) << 16, exponent = v >> 10 & 0x1f, mantissa = v & 0x3ffu, u;
	float f;

	if (exponent == 0x1f) {
		u = sign | 0x7f800000u | mantissa << 13;
	} else if (exponent != 0) {
		u = sign | (exponent + 112) << 23 | mantissa << 13;
	} else {
		f = (float)mantissa * 0x1p-24f;		/* subnormal: exact */
		return sign ? -f : f;
	}
	memcpy(&f, &u, sizeof(f));
	return f;
}

uint16_t
tensor_f32_to_f16(float v)
{
	uint32_t u, sign, mag;

	memcpy(&u, &v, sizeof(u));
	sign = u >> 16 & 0x8000u;
	mag = u & 0x7fffffffu;
	if (mag > 0x7f800000u)
		return (uint16_t)(sign | 0x7e00u);
	if (mag >= 0x477ff000u)				/* would round to 65536 or more: infinity */
		return (uint16_t)(sign | 0x7c00u);
	if (mag < 0x38800000u) {			/* subnormal or zero: let the FPU round at 2^-24 */
		float f, magic = 0.5f;

		memcpy(&f, &mag, sizeof(f));
		f += magic;
		memcpy(&u, &f, sizeof(u));
		return (uint16_t)(sign | (u - 0x3f000000u));
	}
	mag += 0xfffu + (mag >> 13 & 1);
	return (uint16_t)(sign | ((mag - 0x38000000u) >> 13));
}
