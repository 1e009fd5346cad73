/* internal - shared by the .c files of kernels/ only. */
#ifndef SALT_KERNELS_INTERNAL_H
#define SALT_KERNELS_INTERNAL_H

#include "kernels/kernels.h"
#include "kernels/vec.h"

struct kernels {
	int threads;
	int64_t small;			/* KERNELS_SMALL; tests lower it */
	enum dtype dtype;
	const struct vec *vec;
	char compute_class[32];
	char describe[128];
	char reason[128];
	float *scratch;			/* one allocation, grown when a kernel asks for more */
	size_t scratch_bytes;
	float *rope_table;		/* [T, D/2] cosines, then [T, D/2] sines, of rope_freq */
	float *rope_freq;
	int64_t rope_t, rope_half;
};

/*
 * Loops over fewer elements run on one thread (some 0.1 ms): a team costs little where its processors are idle, but a time slice where
 * one of them is busy with something else. Bits do not depend on it.
 */
#define KERNELS_SMALL (1 << 18)

/* Row blocks of reductions over rows: the shape alone decides. */
#define KERNELS_ROW_BLOCK 64

static inline float *
kernels__f32(const struct tensor *t)
{
	return t->data;
}

static inline int64_t
kernels__head_stride(const struct kernels_heads *x)
{
	return x->head_stride != 0 ? x->head_stride : x->head_dim;
}

/* First element of head h at row (b * T + t). */
static inline float *
kernels__head_at(const struct kernels_heads *x, int64_t row, int64_t h)
{
	return (float *)x->data + row * x->stride + h * kernels__head_stride(x);
}

/* The heads lie inside their row, none on another. */
static inline bool
kernels__heads_fit(const struct kernels_heads *x)
{
	return x->n_heads > 0 && x->head_dim > 0 && kernels__head_stride(x) >= x->head_dim &&
	    x->stride >= (x->n_heads - 1) * kernels__head_stride(x) + x->head_dim;
}

/* Rows and columns of a tensor seen as a matrix: the last dimension is the columns. */
int64_t kernels__rows(const struct tensor *t);
int64_t kernels__cols(const struct tensor *t);

/* kernels__scratch - at least n floats, 64-byte aligned, not zeroed, good until the next call. log_fatal without memory. */
float *kernels__scratch(struct kernels *k, size_t n);

/* kernels__shape - ends the process when what a kernel was given does not fit together. */
void kernels__shape(bool fits, const char *kernel);

/* Row-major C[m, n] = alpha op(A) op(B) + beta C on the calling thread alone, whatever OpenMP's settings are. */
void kernels__sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
    const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

/*
 * The same on the context's threads: C is cut into parts by (m, n, k) alone, each part one kernels__sgemm, so the bits do not
 * depend on the number of threads. @bias [n] or NULL: C = bias + alpha op(A) op(B) (beta 0) or C + bias + ... (beta 1).
 */
void kernels__sgemm_parts(struct kernels *ctx, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
    const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc, const float *bias);

/* Rows of logits that exist at a time: by V alone. */
int64_t kernels__logit_rows(int64_t v);

#endif
