/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/random/random.h"
#include "bench/common/bench.h"
#include "bench/train/ceiling.h"

#define CALLS 8
#define NOISE (INT64_C(1) << 20)	/* random numbers, which an array repeats */

/* Operands are random numbers. With zeros a GPU uses less power and may clock higher, so the rate would be too good. */
static void *
noise(struct kernels *k, int64_t n, enum dtype dtype)
{
	int64_t block = n < NOISE ? n : NOISE, size = (int64_t)dtype_size(dtype);
	char *p = bench_need(kernels_alloc(k, (size_t)(n * size)));
	uint16_t *host;

	if (dtype == DTYPE_F32)			/* only outputs are fp32 */
		return p;
	host = bench_need(malloc((size_t)block * sizeof(*host)));
	for (int64_t i = 0; i < block; i += 4) {
		uint32_t words[4];

		random_words(1, RANDOM_PURPOSE_INIT, 0, 0, (uint32_t)i, words);
		for (int64_t j = i; j < i + 4 && j < block; j++)
			host[j] = tensor_f32_to_bf16((float)random_uniform53(words[j - i], 0) - 0.5f);
	}
	kernels_upload(k, p, host, (size_t)(block * size));
	free(host);
	for (int64_t at = block; at < n; at += block)
		kernels_copy(k, p + at * size, p, (size_t)((n - at < block ? n - at : block) * size));
	return p;
}

/* As the output layer multiplies: by ids up to a multiple of 8, the few others apart. */
static int64_t
even(int64_t n)
{
	return n > 8 ? n / 8 * 8 : n;
}

double
ceiling_gpu_seconds(struct kernels *kernels, bool trans_a, bool trans_b, int64_t rows, int64_t cols, int64_t inner)
{
	int64_t m = even(rows), n = even(cols), k = even(inner);
	void *a = noise(kernels, m * k, DTYPE_BF16), *b = noise(kernels, k * n, DTYPE_BF16), *c = noise(kernels, m * n, trans_a ? DTYPE_F32 : DTYPE_BF16);
	struct tensor ta = tensor_2d(a, DTYPE_BF16, trans_a ? k : m, trans_a ? m : k), tb = tensor_2d(b, DTYPE_BF16, trans_b ? n : k, trans_b ? k : n);
	struct tensor tc = tensor_2d(c, trans_a ? DTYPE_F32 : DTYPE_BF16, m, n);
	double start = 0, seconds;

	for (int i = 0; i <= CALLS; i++) {
		if (trans_a)
			kernels_linear_bwd_w(kernels, &tc, NULL, &ta, &tb, KERNELS_OUT_IN, false);
		else if (trans_b)
			kernels_linear(kernels, &tc, &ta, &tb, NULL, KERNELS_OUT_IN, false);
		else
			kernels_linear_bwd_x(kernels, &tc, &ta, &tb, KERNELS_OUT_IN, false);
		if (i > 0 && i < CALLS)
			continue;
		kernels_sync(kernels);
		start = i == 0 ? bench_now() : start;
	}
	seconds = (bench_now() - start) / CALLS;
	kernels_free(kernels, a);
	kernels_free(kernels, b);
	kernels_free(kernels, c);
	return seconds;
}
