/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_math - scalar functions that compilers vectorize: no branches, no tables. Only vec*.c include it.
 */
#ifndef SALT_KERNELS_VEC_MATH_H
#define SALT_KERNELS_VEC_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define VEC_PASTE_(a, b) a##b
#define VEC_PASTE(a, b) VEC_PASTE_(a, b)

/* a * b + c, fused if the instruction set can. Nothing else is fused (-ffp-contract=off). */
#ifdef __FMA__
#define VEC_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define VEC_FMA(a, b, c) ((a) * (b) + (c))
#endif

static inline float
vec_bits(uint32_t i)
{
	float f;

	memcpy(&f, &i, sizeof(f));
	return f;
}

/* Rounds to nearest, ties to even; NaN stays a (quiet) NaN. */
static inline uint16_t
vec_to_bf16(float x)
{
	uint32_t u, rounded, quiet;

	memcpy(&u, &x, sizeof(u));
	rounded = (u + 0x7fffu + (u >> 16 & 1)) >> 16;
	quiet = u >> 16 | 0x40;
	return (uint16_t)(x == x ? rounded : quiet);
}

/* A loop whose outputs may be its inputs (the same array, never shifted), so that it is safe to vectorize. */
#ifdef __clang__
#define VEC_LOOP for		/* clang checks for overlap at run time */
#else
#define VEC_LOOP _Pragma("GCC ivdep") for
#endif

/*
 * exp(x) within 2 ulp (tests/kernels measures it over the whole range); 0 where the result would be below 2^-125.5
 * (x < -86.98), infinity above 88.7229; exp(NaN) is NaN, exp(-inf) is 0.
 * x = n ln 2 + r, |r| <= ln(2)/2; ln 2 in two parts (Cody and Waite); Taylor's polynomial of degree 7 for e^r (error
 * r^8/8!, 5e-9). n is in the low bits of shifted; 2^n is computed as 2^(n-1) * 2, because n may be 128.
 */
static inline float
vec_expf(float x)
{
	float c = x > 89.0f ? 89.0f : x, shifted, n, r, p;
	uint32_t bits;

	shifted = VEC_FMA(c, 1.44269504f, 12582912.0f);			/* to nearest by 1.5 * 2^23 */
	n = shifted - 12582912.0f;
	r = VEC_FMA(n, -0.693145752f, c);
	r = VEC_FMA(n, -1.42860677e-6f, r);
	p = 1.98412698e-4f;
	p = VEC_FMA(p, r, 1.38888889e-3f);
	p = VEC_FMA(p, r, 8.33333333e-3f);
	p = VEC_FMA(p, r, 4.16666667e-2f);
	p = VEC_FMA(p, r, 1.66666667e-1f);
	p = VEC_FMA(p, r, 0.5f);
	p = VEC_FMA(p * r, r, r) + 1.0f;
	memcpy(&bits, &shifted, sizeof(bits));
	p = p * vec_bits((bits << 23) + (126u << 23)) * 2.0f;
	return x < -86.98f ? 0.0f : p;
}

/* 1 / (1 + exp(-x)) */
static inline float
vec_sigmoidf(float x)
{
	return 1.0f / (1.0f + vec_expf(-x));
}

#endif
