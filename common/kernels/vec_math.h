/*
 * vec_math - scalar functions that compilers turn into vector code: no branches, no table. Only vec*.c include it.
 */
#ifndef SALT_KERNELS_VEC_MATH_H
#define SALT_KERNELS_VEC_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define VEC_PASTE_(a, b) a##b
#define VEC_PASTE(a, b) VEC_PASTE_(a, b)

/* a * b + c: fused where the instruction set has it. Nothing else is fused (-ffp-contract=off). */
#ifdef __FMA__
#define VEC_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define VEC_FMA(a, b, c) ((a) * (b) + (c))
#endif

static inline float
vec_bits(int32_t i)
{
	float f;

	memcpy(&f, &i, sizeof(f));
	return f;
}

/* A loop over elements whose outputs may be its inputs (the same array, never shifted): safe to run as vectors. */
#define VEC_LOOP _Pragma("GCC ivdep") for

/*
 * exp(x) within 2 ulp where the result is a normal number (tests/kernels measures it over all of them); 0 below -103.97,
 * infinity above 88.7229; exp(NaN) is NaN, exp(-inf) is 0.
 * x = n ln 2 + r, |r| <= ln(2)/2; ln 2 in two parts (Cody and Waite); Taylor's polynomial of degree 7 for e^r (what it leaves is r^8/8!, 5e-9).
 * 2^n goes in as two factors, so that n = 128 and subnormal results come out right.
 */
static inline float
vec_expf(float x)
{
	float c = x < -104.0f ? -104.0f : x, n, r, p;
	int32_t i, half;

	c = c > 89.0f ? 89.0f : c;
	n = VEC_FMA(c, 1.44269504f, 12582912.0f) - 12582912.0f;		/* to nearest by 1.5 * 2^23 */
	r = VEC_FMA(n, -0.693145752f, c);
	r = VEC_FMA(n, -1.42860677e-6f, r);
	p = 1.98412698e-4f;
	p = VEC_FMA(p, r, 1.38888889e-3f);
	p = VEC_FMA(p, r, 8.33333333e-3f);
	p = VEC_FMA(p, r, 4.16666667e-2f);
	p = VEC_FMA(p, r, 1.66666667e-1f);
	p = VEC_FMA(p, r, 0.5f);
	p = VEC_FMA(p * r, r, r) + 1.0f;
	i = (int32_t)(n == n ? n : 0.0f);
	half = i >> 1;
	return p * vec_bits((half + 127) << 23) * vec_bits((i - half + 127) << 23);
}

/* 1 / (1 + exp(-x)) */
static inline float
vec_sigmoidf(float x)
{
	return 1.0f / (1.0f + vec_expf(-x));
}

#endif
