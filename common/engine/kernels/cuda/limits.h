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

/* Number of rows per chunk, for m rows of logits. */
static inline int64_t
cuda_chunk_rows(int64_t v, int64_t m)
{
	int64_t rows = CUDA_LOGITS / v / CUDA_MIN_ROWS * CUDA_MIN_ROWS;

	rows = rows < CUDA_MIN_ROWS ? CUDA_MIN_ROWS : rows > CUDA_MAX_ROWS ? CUDA_MAX_ROWS : rows;
	return rows < m ? rows : m;
}

#endif
