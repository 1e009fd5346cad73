/* SPDX-License-Identifier: Apache-2.0 */
/*
 * onednn - what the files of the backend onednn share. It is optional: without oneDNN they are not in the build.
 */
#ifndef SALT_KERNELS_ONEDNN_H
#define SALT_KERNELS_ONEDNN_H

#include <dnnl.h>
#include <sys/queue.h>

#include "engine/kernels/cpu/cpu.h"

enum { ONEDNN__ROWS = 128 };	/* of a full part of C */

#if DNNL_VERSION_MAJOR >= 3
#define LAYOUT_PTR(l) ((l)->md)
#else
#define LAYOUT_PTR(l) (&(l)->md)
#endif

struct layout {
	dnnl_memory_desc_t md;
	dnnl_memory_t *memories;	/* one for each thread, for onednn__run; NULL in a layout that is only compared */
};

/* Everything that a part's primitive depends on. Zeroed before it is filled, so that memcmp compares it. */
struct shape {
	int64_t m, n, k, lda, ldb, ldc;
	int32_t trans_a, trans_b, dtype, dtype_c, bias, add, packed;
	int32_t unused;
};

struct primitive {
	SLIST_ENTRY(primitive) next;
	struct shape shape;
	dnnl_primitive_t run;
	struct layout a, b, c, bias, scratch;
	size_t scratch_bytes;		/* with the copied column, if there is one */
	size_t column_at, column_size;	/* where in the scratch memory the column is copied to; size of an element, 0: no copy */
};

struct reorder {
	SLIST_ENTRY(reorder) next;
	int64_t n, k, ld;
	int32_t trans, blocked;		/* blocked: to is BA16a64b2a, which matmul.c can write itself */
	dnnl_primitive_t run;
	struct layout from, to;
	size_t to_bytes;
};

/*
 * onednn__source - what a product reads as A: @a itself, or a copy of its only column in @scratch. oneDNN 3.7
 * takes elements that lie side by side when a transposed A has one column only, whatever its stride;
 * tests/kernels/test_bf16.c finds that (17 x 33 x 65).
 */
void *onednn__source(const struct primitive *p, const void *a, void *scratch);

struct packs;			/* repacked weights, of one context or shared by several: matmul.c */

struct onednn {
	enum dtype dtype;
	dnnl_engine_t engine;
	dnnl_stream_t *streams;		/* one for each thread */
	int n_streams;
	SLIST_HEAD(, primitive) primitives;
	SLIST_HEAD(, reorder) reorders;
	struct packs *packs;
	bool owns_packs;
};

static inline struct onednn *
onednn__of(const struct kernels *k)
{
	return k->own;
}

struct argument {
	int index;
	const struct layout *layout;
	void *data;
};

/*
 * All of these end the process if oneDNN fails (log_fatal): a shape that it does not support is a bug.
 *
 * onednn__primitive, onednn__reorder - created once per shape and kept with the context; call them outside of
 * parallel loops, with omp_set_num_threads(1). The reorder packs a panel [k, n] of weights for a full part.
 * onednn__run - with n arguments, at most 6, on the calling thread, which is this one of the context's.
 */
struct primitive *onednn__primitive(struct kernels *k, const struct shape *s);
struct reorder *onednn__reorder(struct onednn *o, int64_t n, int64_t k, int64_t ld, bool trans);
void onednn__run(struct onednn *o, dnnl_primitive_t primitive, int thread, const struct argument *args, int n);

/* matmul.c */
struct packs *onednn__packs_new(void);		/* NULL without memory */
void onednn__packs_destroy(struct packs **packs);
void onednn__params(struct kernels *k, const void *params, size_t bytes, uint64_t generation);
void onednn__stale(struct onednn *o);		/* all that is repacked is out of date */
void onednn__matmul(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, const struct tensor *bias, bool add);

/*
 * Operands of bf16 products in the forms for which oneDNN uses the matrix units, on the calling thread.
 * onednn__blocked - does it want a repacked B [k, n] in the format BA16a64b2a? To be called outside of parallel loops,
 * with omp_set_num_threads(1).
 * onednn__pack - B [k, n] in that format: k and n rounded up to multiples of 32 and 64, with zeros.
 * onednn__rows - rows of op(A) without gaps, [rows, ld], with zeros after the first `depth` columns; ld: a multiple of 32.
 */
bool onednn__blocked(struct onednn *o, int64_t n, int64_t k);
void onednn__pack(const struct vec *vec, const struct kernels__matrix *b, int64_t k, int64_t n, uint16_t *to);
void onednn__rows(const struct vec *vec, const struct kernels__matrix *a, int64_t row, int64_t rows, int64_t depth, uint16_t *to, int64_t ld);

/*
 * Small products that a thread makes alone, inside a parallel loop of the caller's: C[m, n] = op(A) op(B) (+
 * C), A and B in the compute dtype, C in it or fp32, rows of any length; with b->keep B is what onednn__pack makes. onednn__tile prepares one, outside
 * of parallel loops; the data of a, b, c do not matter yet. onednn__tile_run needs scratch_bytes of the
 * thread's own memory, 64-byte aligned.
 */
const struct primitive *onednn__tile(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, bool add);
void onednn__tile_run(const struct kernels *ctx, const struct primitive *tile, const void *a, const void *b, void *c, void *scratch);

extern const struct cpu__bf16 onednn__bf16;	/* tiles by shape, for Muon */

/* attention.c */
void onednn__attention(struct kernels *k, const struct kernels_heads *o, float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);
void onednn__attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct kernels_heads *d_o, const struct kernels_heads *o, const float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);

#endif
