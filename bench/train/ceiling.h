/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ceiling - one product of matrices by a library alone, at its best: what a step's products can be measured against.
 */
#ifndef SALT_BENCH_CEILING_H
#define SALT_BENCH_CEILING_H

#include <stdbool.h>
#include <stdint.h>

struct kernels;

/*
 * ceiling_bf16_seconds - C[m, n] = op(A) op(B), bf16 operands, by oneDNN on its own team of `threads`. B is in the format that oneDNN asks
 * for (repacking is not timed) unless trans_a, which is how a gradient of weights comes: both operands as they lie then, C fp32. Else C is bf16.
 * The time of one call after another that was not timed. < 0: this build has no oneDNN.
 */
double ceiling_bf16_seconds(bool trans_a, int64_t m, int64_t n, int64_t k, int threads);

/*
 * ceiling_gpu_seconds - seconds of one product C[m, n] = op(A) op(B) with bf16 operands, by the backend of this context (cuBLASLt on cuda); the
 * context computes in bf16. trans_a: C is fp32, as gradients of weights are; else C is bf16. The mean of several calls in a row, after one that is
 * not timed.
 */
double ceiling_gpu_seconds(struct kernels *kernels, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k);

#endif
