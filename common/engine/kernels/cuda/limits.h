/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits - the working memory of the output layer and of products, for the kernels and for its calculation in
 * advance (kernels_gpu_bytes).
 */
#ifndef SALT_CUDA_LIMITS_H
#define SALT_CUDA_LIMITS_H

#include <stdint.h>

/*
 * Logits that exist at a time, in floats: 512 MiB. Each chunk reads and writes the whole output layer. The
 * emulation uses a smaller number.
 */
#ifndef CUDA_LOGITS
#define CUDA_LOGITS ((int64_t)128 << 20)
#endif
#define CUDA_WORKSPACE ((int64_t)32 << 20)	/* bytes that cuBLASLt may use */
#define CUDA_MIN_ROWS 8
#define CUDA_MAX_ROWS 8192

/*
 * cuda_row_floats - distance in floats from one row of v logits to the next. Products with bf16 operands are
 * fast if rows begin at multiples of 16 bytes, which rows of 50257 logits would not.
 */
static inline int64_t
cuda_row_floats(int64_t v)
{
	return (v + 63) / 64 * 64;
}

/* Number of rows per chunk, for m rows of logits. */
static inline int64_t
cuda_chunk_rows(int64_t v, int64_t m)
{
	int64_t rows = CUDA_LOGITS / cuda_row_floats(v) / CUDA_MIN_ROWS * CUDA_MIN_ROWS;

	rows = rows < CUDA_MIN_ROWS ? CUDA_MIN_ROWS : rows > CUDA_MAX_ROWS ? CUDA_MAX_ROWS : rows;
	return rows < m ? rows : m;
}

#endif
