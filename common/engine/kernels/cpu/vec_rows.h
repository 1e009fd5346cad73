/* SPDX-License-Identifier: Apache-2.0 */
/* vec_rows - the loops over whole rows; names end in the instruction set. */
#ifndef SALT_KERNELS_VEC_ROWS_H
#define SALT_KERNELS_VEC_ROWS_H

#include <stdbool.h>
#include <stdint.h>
#include "engine/kernels/cpu/vec_math.h"

#define VEC_ROW(name) VEC_PASTE(VEC_PASTE(vec_row_, name), VEC_PASTE(_, SALT_VEC_ISA))

float VEC_ROW(sum)(const float *x, int64_t n);
float VEC_ROW(exp_sum)(float *y, const float *x, float a, float shift, int64_t n);
float VEC_ROW(dot)(const float *a, const float *b, int64_t n);
double VEC_ROW(sum_squares)(const float *x, int64_t n);
float VEC_ROW(max)(const float *x, int64_t n);
int64_t VEC_ROW(count_above)(const float *x, int64_t n, float bound);
int64_t VEC_ROW(count_from)(const float *x, int64_t n, float bound);
void VEC_ROW(layernorm)(float *y, float *mean, float *rstd, const float *x, const float *g, const float *b, float eps, int64_t n);
void VEC_ROW(layernorm_bwd)(float *d_x, float *d_g, float *d_b, const float *d_y, const float *x, const float *g, float mean,
    float rstd, bool add, int64_t n);
void VEC_ROW(rmsnorm)(float *y, float *rstd, const float *x, const float *g, float eps, int64_t n);
void VEC_ROW(rmsnorm_bwd)(float *d_x, float *d_g, const float *d_y, const float *x, const float *g, float rstd, bool add, int64_t n);
void VEC_ROW(transpose)(uint32_t *y, int64_t y_stride, const uint16_t *x, int64_t x_stride, int64_t rows, int64_t cols);
void VEC_ROW(rope)(float *x, const float *cosine, const float *sine, int64_t half, bool inverse);
float VEC_ROW(softmax)(float *s, int64_t n, int64_t n_padded, float scale);
void VEC_ROW(softmax_bwd)(float *p, float *d_p, int64_t n, int64_t n_padded, float scale, float lse, float delta);

#endif
