/*
 * onednn - what linear_onednn.c and onednn_primitive.c share; nobody else knows oneDNN.
 */
#ifndef SALT_KERNELS_ONEDNN_H
#define SALT_KERNELS_ONEDNN_H

#include <dnnl.h>

#include "engine/kernels/kernels_internal.h"

enum { KERNELS__ONEDNN_ROWS = 128 };	/* of a full part of C */

#if DNNL_VERSION_MAJOR >= 3
#define LAYOUT_PTR(l) ((l)->md)
#else
#define LAYOUT_PTR(l) (&(l)->md)
#endif

struct layout {
	dnnl_memory_desc_t md;
};

/* Everything that a part's primitive depends on. Zeroed before it is filled, so that memcmp compares it. */
struct shape {
	int64_t m, n, k, lda, ldb, ldc;
	int32_t trans_a, trans_b, dtype, dtype_c, bias, add, packed;
	int32_t unused;
};

struct primitive {
	struct shape shape;
	dnnl_primitive_t run;
	struct layout a, b, c, bias, scratch;
	size_t scratch_bytes;
};

struct reorder {
	int64_t n, k, ld;
	int32_t trans, unused;
	dnnl_primitive_t run;
	struct layout from, to;
	size_t to_bytes;
};

struct packs;			/* repacked weights, of one context or shared by several: linear_onednn.c */

struct kernels__onednn {
	enum dtype dtype;
	dnnl_engine_t engine;
	dnnl_stream_t *streams;		/* one for each thread */
	int n_streams;
	struct primitive **primitives;
	int n_primitives;
	struct reorder **reorders;
	int n_reorders;
	int n_slow;			/* primitives for which oneDNN has only its plain loops */
	struct packs *packs;
	bool owns_packs;
};

struct argument {
	int index;
	const struct layout *layout;
	void *data;
};

/*
 * All of these end the process when oneDNN cannot (log_fatal): a shape it does not take is a mistake of ours.
 *
 * kernels__onednn_primitive, kernels__onednn_reorder - made once for a shape, kept as long as the context; call them outside of parallel
 * loops, with omp_set_num_threads(1). The reorder packs a panel [k, n] of weights in the format in which a full part wants it.
 * kernels__onednn_run - n arguments, at most 6; on the calling thread, any of the context's.
 */
struct primitive *kernels__onednn_primitive(struct kernels__onednn *o, const struct shape *s);
struct reorder *kernels__onednn_reorder(struct kernels__onednn *o, int64_t n, int64_t k, int64_t ld, bool trans);
void kernels__onednn_run(struct kernels__onednn *o, dnnl_primitive_t primitive, dnnl_stream_t stream, const struct argument *args, int n);

/* linear_onednn.c */
struct packs *kernels__onednn_packs_new(void);		/* NULL without memory */
void kernels__onednn_packs_destroy(struct packs **packs);

#endif
