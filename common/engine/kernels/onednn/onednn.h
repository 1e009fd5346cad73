/* SPDX-License-Identifier: Apache-2.0 */
/*
 * onednn - what the files of the backend onednn share. The backend is optional: a build without oneDNN omits
 * it.
 */
#ifndef SALT_KERNELS_ONEDNN_H
#define SALT_KERNELS_ONEDNN_H

#include <dnnl.h>
#include <sys/queue.h>

#include "engine/kernels/cpu/cpu.h"

enum { ONEDNN__ROWS = 128 };	/* rows of a full part of C */

#if DNNL_VERSION_MAJOR >= 3
#define LAYOUT_PTR(l) ((l)->md)
#else
#define LAYOUT_PTR(l) (&(l)->md)
#endif

struct layout {
	dnnl_memory_desc_t md;
	dnnl_memory_t *memories;	/* one per thread, for onednn__run; NULL in a layout only compared */
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
	size_t scratch_bytes;		/* includes the copied column, if there is one */
	size_t column_at, column_size;	/* offset of the copied column in the scratch memory; size of an
					 * element, 0: no copy */
};

struct reorder {
	SLIST_ENTRY(reorder) next;
	int64_t n, k, ld;
	int32_t trans, blocked;		/* blocked: `to` is BA16a64b2a, which matmul.c can write */
	dnnl_primitive_t run;
	struct layout from, to;
	size_t to_bytes;
};

/*
 * onednn__source - returns what a product reads as A: @a itself, or a copy of its only column in @scratch. If
 * a transposed A has only one column, oneDNN 3.7 reads adjacent elements, whatever the stride;
 * tests/kernels/test_bf16.c detects this (17 x 33 x 65).
 */
void *onednn__source(const struct primitive *p, const void *a, void *scratch);

struct packs;			/* repacked weights, of one handle or shared by several: matmul.c */

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
 * onednn__primitive, onednn__reorder - created once per shape and kept with the handle. Call them outside of
 * parallel loops, with omp_set_num_threads(1). The reorder repacks a panel [k, n] of weights for a full part.
 * onednn__run - runs a primitive with n arguments, at most 6, on the calling thread; thread: its index in the
 * handle's team.
 */
struct primitive *onednn__primitive(struct kernels *k, const struct shape *s);
struct reorder *onednn__reorder(struct onednn *o, int64_t n, int64_t k, int64_t ld, bool trans);
void onednn__run(struct onednn *o, dnnl_primitive_t primitive, int thread, const struct argument *args, int n);

/* matmul.c */
struct packs *onednn__packs_new(void);		/* NULL if memory is exhausted */
void onednn__packs_destroy(struct packs **packs);
void onednn__params(struct kernels *k, const void *params, size_t bytes, uint64_t generation);
void onednn__stale(struct onednn *o);		/* marks all repacked weights as out of date */
void onednn__matmul(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, const struct tensor *bias, bool add);

/*
 * Operands of bf16 products in the forms for which oneDNN uses the matrix units; computed on the calling
 * thread.
 * onednn__blocked - true if oneDNN prefers a repacked B [k, n] in the format BA16a64b2a. Call it outside of
 * parallel loops, with omp_set_num_threads(1).
 * onednn__pack - writes B [k, n] in that format: k and n are rounded up to multiples of 32 and 64, with
 * zeros.
 * onednn__rows - copies rows of op(A) without gaps, [rows, ld], with zeros after the first `depth` columns;
 * ld is a multiple of 32.
 */
bool onednn__blocked(struct onednn *o, int64_t n, int64_t k);
void onednn__pack(const struct vec *vec, const struct kernels__matrix *b, int64_t k, int64_t n, uint16_t *to);
void onednn__rows(const struct vec *vec, const struct kernels__matrix *a, int64_t row, int64_t rows, int64_t depth, uint16_t *to, int64_t ld);

/*
 * Small products that a thread computes alone, inside a parallel loop of the caller: C[m, n] = op(A) op(B) (+
 * C). A and B have the compute dtype, C the same or fp32; rows may have gaps. With b->keep, B is in
 * onednn__pack's format. onednn__tile prepares a product, outside of parallel loops; it does not use the data
 * of a, b and c. onednn__tile_run needs scratch_bytes of memory for the thread, 64-byte aligned.
 */
const struct primitive *onednn__tile(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, bool add);
void onednn__tile_run(const struct kernels *ctx, const struct primitive *tile, const void *a, const void *b, void *c, void *scratch);

extern const struct cpu__bf16 onednn__bf16;	/* products of Muon, as tiles */

/* attention.c */
void onednn__attention(struct kernels *k, const struct kernels_heads *o, float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);
void onednn__attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct kernels_heads *d_o, const struct kernels_heads *o, const float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);

#endif
