/* SPDX-License-Identifier: Apache-2.0 */
/* ceiling - the speed of one matrix product by a library alone, an upper bound for those of a step. */
#ifndef SALT_BENCH_CEILING_H
#define SALT_BENCH_CEILING_H

#include <stdbool.h>
#include <stdint.h>

struct kernels;

/*
 * ceiling_bf16_seconds - seconds of C[m, n] = op(A) op(B) with bf16 operands, by oneDNN with `threads`
 * threads of its own. Without trans_a, B is in the format that oneDNN chooses (the repacking is not timed)
 * and C is bf16. With trans_a, as for a gradient of weights, both operands keep their layout and C is fp32.
 * One call is timed, after one that is not. < 0: this build has no oneDNN.
 */
double ceiling_bf16_seconds(bool trans_a, int64_t m, int64_t n, int64_t k, int threads);

/*
 * ceiling_gpu_seconds - seconds of one product C[m, n] = op(A) op(B) with bf16 operands, by the backend of
 * this kernels handle (cuBLASLt on cuda), which must compute in bf16. trans_a: C is fp32, as gradients of
 * weights are; else C is bf16. Returns the mean of several consecutive calls, after one that is not timed.
 */
double ceiling_gpu_seconds(struct kernels *kernels, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k);

#endif
