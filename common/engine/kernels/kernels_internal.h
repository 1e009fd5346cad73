/* internal - shared by the .c files of kernels/ only. */
#ifndef SALT_KERNELS_INTERNAL_H
#define SALT_KERNELS_INTERNAL_H

#include "engine/kernels/kernels.h"
#include "engine/kernels/vec.h"

struct kernels__onednn;

struct kernels {
	int threads;
	int64_t small;			/* KERNELS_SMALL; tests lower it */
	enum dtype dtype;
	struct kernels__onednn *onednn;	/* NULL: OpenBLAS */
	const struct vec *vec;
	char compute_class[32];
	char describe[128];
	char reason[192];
	float *scratch;			/* one allocation, grown when a kernel asks for more */
	size_t scratch_bytes;
	float *panels;			/* the same, for products of matrices, whose callers hold scratch */
	size_t panels_bytes;
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

/* Number of the first element of head h at row (b * T + t), from data on. */
static inline int64_t
kernels__head_at(const struct kernels_heads *x, int64_t row, int64_t h)
{
	return row * x->stride + h * kernels__head_stride(x);
}

/* The heads lie inside their row, none on another. */
static inline bool
kernels__heads_fit(const struct kernels_heads *x)
{
	return x->n_heads > 0 && x->head_dim > 0 && kernels__head_stride(x) >= x->head_dim &&
	    x->stride >= (x->n_heads - 1) * kernels__head_stride(x) + x->head_dim;
}

/*
 * Pieces of a tensor as fp32, n elements from element at on. In fp32 all three are the tensor's own data and cost nothing; in bf16 a
 * piece is widened into buf, worked on there, and narrowed back, so that loops know fp32 only.
 *   kernels__read   the piece to read
 *   kernels__place  where to write the piece (not yet filled)
 *   kernels__store  ends writing: piece is what kernels__place gave
 */
static inline const float *
kernels__read(const struct kernels *k, const void *data, enum dtype dtype, int64_t at, int64_t n, float *buf)
{
	if (dtype == DTYPE_F32)
		return (const float *)data + at;
	k->vec->widen(buf, (const uint16_t *)data + at, n);
	return buf;
}

static inline float *
kernels__place(void *data, enum dtype dtype, int64_t at, float *buf)
{
	return dtype == DTYPE_F32 ? (float *)data + at : buf;
}

static inline void
kernels__store(const struct kernels *k, void *data, enum dtype dtype, int64_t at, int64_t n, const float *piece)
{
	if (dtype != DTYPE_F32)
		k->vec->narrow((uint16_t *)data + at, piece, n);
}

/* Element i of data. */
static inline void *
kernels__element(const void *data, enum dtype dtype, int64_t i)
{
	return (char *)(uintptr_t)data + i * (int64_t)dtype_size(dtype);
}

/* Rows and columns of a tensor seen as a matrix: the last dimension is the columns. */
int64_t kernels__rows(const struct tensor *t);
int64_t kernels__cols(const struct tensor *t);

/* kernels__scratch - at least n floats, 64-byte aligned, not zeroed, good until the next call. log_fatal without memory. */
float *kernels__scratch(struct kernels *k, size_t n);
/* kernels__panels - the same, a second place: for products of matrices alone. */
float *kernels__panels(struct kernels *k, size_t n);

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

/* A matrix as it lies in memory, and how it enters a product. */
struct kernels__matrix {
	void *data;
	enum dtype dtype;
	int64_t ld;
	bool trans;
	bool keep;			/* B only: a weight of forward; inside the range of kernels_params its repacked form is kept */
};

/*
 * kernels__matmul - C[m, n] = op(A) op(B) (+ C with add) (+ bias), in the context's backend and dtype: A and B in the compute dtype, C
 * in it or fp32, bias (data NULL: none) in it. Sums are fp32 and C is rounded once. Parts are cut by (m, n, k) alone, as above.
 */
void kernels__matmul(struct kernels *ctx, int64_t m, int64_t n, int64_t k, struct kernels__matrix a, struct kernels__matrix b,
    struct kernels__matrix c, const struct tensor *bias, bool add);

/* ---- linear_onednn.c, onednn_primitive.c ---- */

/* kernels__onednn_isa - what oneDNN makes code for on this processor ("avx2", "avx512", "avx512_bf16", "amx"); NULL: not in this build. */
const char *kernels__onednn_isa(bool *bf16);
void kernels__onednn_version(char *buf, size_t size);
/* kernels__onednn_slow - products so far for which oneDNN has no fast code, only its plain loops: a thousand times slower. Logged once each. */
int kernels__onednn_slow(const struct kernels__onednn *o);
/* share: repacked weights are kept there; it outlives this one. Returns 0 or ENOMEM. */
int kernels__onednn_new(struct kernels__onednn **o, enum dtype dtype, int threads, struct kernels__onednn *share);
void kernels__onednn_destroy(struct kernels__onednn **o);
void kernels__onednn_params(struct kernels__onednn *o, const void *params, size_t bytes, uint64_t generation);
void kernels__onednn_stale(struct kernels__onednn *o);		/* all that is repacked is out of date */
/* As kernels__matmul, bias in the compute dtype. */
void kernels__onednn_matmul(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, const struct tensor *bias, bool add);

/*
 * Small products that a thread makes alone, inside a parallel loop of the caller's: C[m, n] = op(A) op(B) (+ C), A and B in the compute
 * dtype, C in it or fp32, rows of any length. kernels__onednn_tile prepares one, outside of parallel loops; the data of a, b, c do not matter
 * yet. It lasts as long as the context. Running it takes room: kernels__onednn_tile_room bytes, 64-byte aligned, of the thread's own.
 */
struct kernels__tile;
const struct kernels__tile *kernels__onednn_tile(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, bool add);
size_t kernels__onednn_tile_room(const struct kernels__tile *tile);
void kernels__onednn_tile_run(const struct kernels *ctx, const struct kernels__tile *tile, const void *a, const void *b, void *c, void *room);

/* Rows of logits that exist at a time: by V alone. */
int64_t kernels__logit_rows(int64_t v);

#endif
