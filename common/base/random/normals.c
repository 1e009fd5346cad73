/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Computes many normal numbers at a time, in loops that compilers turn into vector instructions. The floats
 * must be those of random_normal, whose logarithm, sine and cosine are the C library's. So each value is
 * computed in double with a relative error below ERROR. If an interval of twice that error does not round to
 * one float, random_normal computes the value.
 */
#include <math.h>
#include <string.h>

#include "base/random/random_internal.h"

#define BLOCK 64

/* The series and their roundings have errors of about 2^-50; the C library has 2^-52. */
#define ERROR 0x1p-44

/* Below this distance from a multiple of pi/2 too many digits cancel. */
#define NEAR 0x1p-16

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

static inline __attribute__((always_inline)) uint64_t
bits_of(double x)
{
	uint64_t b;

	memcpy(&b, &x, sizeof(b));
	return b;
}

static inline __attribute__((always_inline)) double
double_of(uint64_t b)
{
	double x;

	memcpy(&x, &b, sizeof(x));
	return x;
}

/*
 * ln(x) of a normal x > 0: x = 2^e m with m in [sqrt(1/2), sqrt(2)), ln(m) = 2 artanh((m - 1) / (m + 1)),
 * artanh by its Taylor series.
 */
static inline __attribute__((always_inline)) double
natural_log(double x)
{
	uint64_t shifted = bits_of(x) - 0x3fe6a09e667f3bcdu;	/* sqrt(1/2) */
	double e = double_of((uint64_t)((int64_t)shifted >> 52) + 0x4338000000000000u) - 0x1.8p52;
	double m = double_of((shifted & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu);
	double s = (m - 1) / (m + 1), q = s * s, sum = 1.0 / 21;

	sum = sum * q + 1.0 / 19;
	sum = sum * q + 1.0 / 17;
	sum = sum * q + 1.0 / 15;
	sum = sum * q + 1.0 / 13;
	sum = sum * q + 1.0 / 11;
	sum = sum * q + 1.0 / 9;
	sum = sum * q + 1.0 / 7;
	sum = sum * q + 1.0 / 5;
	sum = sum * q + 1.0 / 3;
	return e * 0.693147180559945309417 + (2 * s + 2 * s * q * sum);
}

/*
 * As random_normal for words a and b: *x and *y, and *sure, whether d is far enough from 0. pi/2 is the sum
 * of half_pi, a double with 20 trailing zero bits, so that up to four times it is exact, and rest.
 */
static inline __attribute__((always_inline)) void
pair(uint32_t a, uint32_t b, double *x, double *y, int *sure)
{
	const double half_pi = 0x1.921fb544p+0, rest = 0x1.0b4611a626331p-34;
	double u = ((double)a + 0.5) * 0x1p-32, angle = 6.283185307179586476925 * ((double)b * 0x1p-32);
	double radius = sqrt(-2.0 * natural_log(u));
	uint32_t quarter = (uint32_t)(((uint64_t)b + (1u << 29)) >> 30);	/* the nearest multiple of pi/2 */
	double d = (angle - quarter * half_pi) - quarter * rest, q = d * d, sine, cosine, c, s;

	sine = -1.0 / 121645100408832000;
	sine = sine * q + 1.0 / 355687428096000;
	sine = sine * q - 1.0 / 1307674368000;
	sine = sine * q + 1.0 / 6227020800;
	sine = sine * q - 1.0 / 39916800;
	sine = sine * q + 1.0 / 362880;
	sine = sine * q - 1.0 / 5040;
	sine = sine * q + 1.0 / 120;
	sine = sine * q - 1.0 / 6;
	sine = d + d * q * sine;
	cosine = -1.0 / 6402373705728000;
	cosine = cosine * q + 1.0 / 20922789888000;
	cosine = cosine * q - 1.0 / 87178291200;
	cosine = cosine * q + 1.0 / 479001600;
	cosine = cosine * q - 1.0 / 3628800;
	cosine = cosine * q + 1.0 / 40320;
	cosine = cosine * q - 1.0 / 720;
	cosine = cosine * q + 1.0 / 24;
	cosine = 1 - 0.5 * q + q * q * cosine;
	c = quarter & 1 ? sine : cosine;
	s = quarter & 1 ? cosine : sine;
	*x = radius * ((quarter + 1) & 2 ? -c : c);
	*y = radius * (quarter & 2 ? -s : s);
	*sure = fabs(d) > NEAR;
}

/* Computes BLOCK groups. words: 4 a group, in two pairs; sure[pair]: out has random_normal's bits. */
CLONES static void
block(uint32_t seed, enum random_purpose purpose, uint64_t seq, uint64_t first, uint32_t words[4 * BLOCK], float out[4 * BLOCK],
    int sure[2 * BLOCK])
{
	for (int i = 0; i < BLOCK; i++) {
		uint32_t k0 = seed, k1 = (uint32_t)purpose, c0 = (uint32_t)seq, c1 = (uint32_t)(seq >> 32);
		uint32_t c2 = (uint32_t)(first + (uint64_t)i), c3 = (uint32_t)((first + (uint64_t)i) >> 32);

		for (int round = 0; round < 10; round++)
			random__round(&k0, &k1, &c0, &c1, &c2, &c3);
		words[4 * i] = c0;
		words[4 * i + 1] = c1;
		words[4 * i + 2] = c2;
		words[4 * i + 3] = c3;
	}
	for (int i = 0; i < 2 * BLOCK; i++) {
		double x, y;
		int good;

		pair(words[2 * i], words[2 * i + 1], &x, &y, &good);
		out[2 * i] = (float)x;
		out[2 * i + 1] = (float)y;
		sure[i] = good & ((float)(x * (1 - 2 * ERROR)) == (float)(x * (1 + 2 * ERROR))) &
		    ((float)(y * (1 - 2 * ERROR)) == (float)(y * (1 + 2 * ERROR)));
	}
}

void
random_normals(uint32_t seed, enum random_purpose purpose, uint64_t seq, uint64_t first, size_t n, float *out)
{
	uint32_t words[4 * BLOCK];
	float values[4 * BLOCK];
	int sure[2 * BLOCK];

	for (size_t at = 0; at < n; at += BLOCK) {
		block(seed, purpose, seq, first + at, words, values, sure);
		for (int i = 0; i < 2 * BLOCK; i++)
			if (!sure[i])
				random_normal(words[2 * i], words[2 * i + 1], values + 2 * i);
		memcpy(out + 4 * at, values, (n - at < BLOCK ? n - at : BLOCK) * 4 * sizeof(*out));
	}
}
