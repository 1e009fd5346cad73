/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic on a row of logits, in loops that the compiler vectorizes. Each is compiled for any processor
 * and for AVX2.
 *
 * Weights exp((u - top) / tau) are computed in double and rounded to multiples of 2^-33, as teacherd rounds
 * its single precision ones. Sums of them are exact, so a draw does not depend on the order of summation.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/leases_internal.h"

#define LANES 8				/* partial sums */
#define BLOCK 64			/* weights that are added before the sweep looks at single ones; a multiple of LANES */
#define GRAINS 0x1p33
#define TO_WHOLE 0x1.8p52		/* x + this - this rounds x to an integer; the low bits of x + this
					   hold it */
#define LN2_HIGH 0x1.62e42fefa0000p-1	/* low bits zero: a product with a small integer is exact */
#define LN2_LOW 0x1.cf79abc9e3b3ap-40
#define MINUS_INFINITY ((int32_t)0xff800000)	/* bit pattern */

#if defined(__x86_64__) && !defined(SALT_LOGITS_PLAIN)		/* a test compiles the portable version */
#define WIDE __attribute__((target("avx2,fma")))
#define HAS_WIDE (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#else
#define WIDE
#define HAS_WIDE false
#endif
#define BODY static inline __attribute__((always_inline))

/*
 * Compares floats as integers, which vectorizes: they have the same order once the low 31 bits of negative
 * ones are inverted.
 */
BODY bool
top_body(const float *u, size_t n, float *top)
{
	int32_t best = INT32_MIN, odd = 0;

	for (size_t v = 0; v < n; v++) {
		int32_t b;

		memcpy(&b, &u[v], sizeof(b));
		odd |= -((b & 0x7f800000) == 0x7f800000) & -(b != MINUS_INFINITY);
		b ^= (b >> 31) & 0x7fffffff;
		best = b > best ? b : best;
	}
	best ^= (best >> 31) & 0x7fffffff;
	memcpy(top, &best, sizeof(*top));
	return odd == 0 && best != MINUS_INFINITY;
}

BODY int32_t
rank_body(const float *u, size_t n, size_t y)
{
	const float uy = u[y];
	int32_t rank = 0;

	for (size_t v = 0; v < y; v++)
		rank += u[v] >= uy;
	for (size_t v = y + 1; v < n; v++)
		rank += u[v] > uy;
	return rank;
}

/*
 * e^x for x <= 0, with an error of about 1e-13: 2^k times the series of e^r, |r| <= ln(2) / 2. For x < -700
 * it returns e^-700, which is as good as 0 here.
 */
BODY double
exponential(double x)
{
	double k, r, p;
	uint64_t bits, shift;

	x = x > -700 ? x : -700;
	k = x * 0x1.71547652b82fep+0 + TO_WHOLE;
	memcpy(&shift, &k, sizeof(shift));
	k -= TO_WHOLE;
	r = x - k * LN2_HIGH - k * LN2_LOW;
	p = 1.0 / 3628800;
	p = p * r + 1.0 / 362880;
	p = p * r + 1.0 / 40320;
	p = p * r + 1.0 / 5040;
	p = p * r + 1.0 / 720;
	p = p * r + 1.0 / 120;
	p = p * r + 1.0 / 24;
	p = p * r + 1.0 / 6;
	p = p * r + 0.5;
	p = p * r + 1;
	p = p * r + 1;
	memcpy(&bits, &p, sizeof(bits));
	bits += shift << 52;			/* bits 52 and up are the exponent */
	memcpy(&p, &bits, sizeof(p));
	return p;
}

BODY double
sum_body(const double *w, size_t n)
{
	double lane[LANES] = {0}, sum = 0;
	size_t v = 0;

	for (; v + LANES <= n; v += LANES)
		for (size_t i = 0; i < LANES; i++)
			lane[i] += w[v + i];
	for (; v < n; v++)
		sum += w[v];
	for (size_t i = 0; i < LANES; i++)
		sum += lane[i];
	return sum;
}

BODY double
weights_body(const float *restrict u, size_t n, float top, double tau, double *restrict weights)
{
	const double scale = 1 / tau;

	for (size_t v = 0; v < n; v++)
		weights[v] = exponential(((double)u[v] - (double)top) * scale);
	return sum_body(weights, n);
}

/* Rounds the weights; returns their sum. */
BODY double
grains_body(double *weights, size_t n)
{
	for (size_t v = 0; v < n; v++)
		weights[v] = ((weights[v] * GRAINS + TO_WHOLE) - TO_WHOLE) * (1 / GRAINS);
	return sum_body(weights, n);
}

/* ---- each body twice ---- */

WIDE static bool
top_wide(const float *u, size_t n, float *top)
{
	return top_body(u, n, top);
}

bool
client__logits_top(const float *u, size_t n, float *top)
{
	return HAS_WIDE ? top_wide(u, n, top) : top_body(u, n, top);
}

WIDE static int32_t
rank_wide(const float *u, size_t n, size_t y)
{
	return rank_body(u, n, y);
}

int32_t
client__logits_rank(const float *u, size_t n, size_t y)
{
	return HAS_WIDE ? rank_wide(u, n, y) : rank_body(u, n, y);
}

WIDE static double
weights_wide(const float *u, size_t n, float top, double tau, double *weights)
{
	return weights_body(u, n, top, tau, weights);
}

double
client__logits_weights(const float *u, size_t n, float top, double tau, double *weights)
{
	return HAS_WIDE ? weights_wide(u, n, top, tau, weights) : weights_body(u, n, top, tau, weights);
}

WIDE static double
grains_wide(double *weights, size_t n)
{
	return grains_body(weights, n);
}

/* ---- draws and best ids ---- */

static int
ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void
client__logits_draw(double *weights, size_t n, double *bounds, uint32_t n_draws, int32_t *ids)
{
	double total = HAS_WIDE ? grains_wide(weights, n) : grains_body(weights, n), before = 0;
	size_t at = 0;

	for (uint32_t d = 0; d < n_draws; d++)
		bounds[d] *= total;
	qsort(bounds, n_draws, sizeof(*bounds), ascending);
	for (uint32_t d = 0; d < n_draws; d++) {
		/* before is the sum of weights[0..at) */
		while (at + BLOCK < n) {
			double block = sum_body(weights + at, BLOCK);

			if (before + block > bounds[d])
				break;
			before += block;
			at += BLOCK;
		}
		while (at < n - 1 && !(before + weights[at] > bounds[d]))
			before += weights[at++];
		ids[d] = (int32_t)at;
	}
}

/* Whether a is worse than b: a smaller logit, or an equal one and a higher id. */
static bool
worse(const float *u, int32_t a, int32_t b)
{
	return u[a] < u[b] || (u[a] == u[b] && a > b);
}

static void
sift_down(const float *u, int32_t *heap, size_t n, size_t i)
{
	for (size_t child; (child = 2 * i + 1) < n; i = child) {
		int32_t id = heap[i];

		if (child + 1 < n && worse(u, heap[child + 1], heap[child]))
			child++;
		if (!worse(u, heap[child], id))
			return;
		heap[i] = heap[child];
		heap[child] = id;
	}
}

/* Keeps the best ids in a heap with the worst on top. */
void
client__logits_best(const float *u, size_t n, uint32_t k, int32_t *ids)
{
	for (uint32_t i = 0; i < k; i++)
		ids[i] = (int32_t)i;
	for (size_t i = k / 2; i-- > 0; )
		sift_down(u, ids, k, i);
	for (size_t v = k; v < n; v++)
		if (u[v] > u[ids[0]]) {
			ids[0] = (int32_t)v;
			sift_down(u, ids, k, 0);
		}
	for (size_t left = k; left-- > 1; ) {
		int32_t id = ids[0];

		ids[0] = ids[left];
		ids[left] = id;
		sift_down(u, ids, left, 0);
	}
}
