/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tensor - shape, dtype and address of an array; no arithmetic. Letters used in all comments of the engine:
 *   B sequences in a micro-batch   T positions of a sequence (= context L when full)   C model width (d_model)
 *   V vocabulary   H heads   K key/value heads   D head dimension   F feed-forward width   M = B*T rows
 * Tensors are row-major and dense; the last dimension is contiguous.
 */
#ifndef SALT_TENSOR_H
#define SALT_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_COUNT };

size_t dtype_size(enum dtype dtype);		/* bytes of one element */
const char *dtype_name(enum dtype dtype);	/* "fp32", "bf16", "fp16" */

#define TENSOR_MAX_DIMS 4

/*
 * A view: it does not own its data. data may be a device address; only kernels/ dereferences it.
 * A tensor with data == NULL stands for "absent" where a header says that it may be (a bias, say).
 */
struct tensor {
	void *data;
	enum dtype dtype;
	int n_dims;
	int64_t dims[TENSOR_MAX_DIMS];
};

struct tensor tensor_1d(void *data, enum dtype dtype, int64_t a);
struct tensor tensor_2d(void *data, enum dtype dtype, int64_t a, int64_t b);

/* tensor_rows - the view of rows [begin, begin + n) of the first dimension. */
struct tensor tensor_rows(const struct tensor *t, int64_t begin, int64_t n);

/* tensor_count - number of elements. */
static inline int64_t
tensor_count(const struct tensor *t)
{
	int64_t n = 1;

	for (int i = 0; i < t->n_dims; i++)
		n *= t->dims[i];
	return n;
}

/* Scalar conversions. They round to nearest even; NaN stays NaN. */
float tensor_bf16_to_f32(uint16_t v);
uint16_t tensor_f32_to_bf16(float v);
float tensor_f16_to_f32(uint16_t v);
uint16_t tensor_f32_to_f16(float v);

#endif
