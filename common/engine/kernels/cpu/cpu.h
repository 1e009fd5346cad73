/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu - what the CPU backends share: loops over tensors, on a team of OpenMP threads. openblas.c and onednn/
 * add the products of matrices.
 */
#ifndef SALT_KERNELS_CPU_H
#define SALT_KERNELS_CPU_H

#include "engine/kernels/cpu/vec.h"
#include "engine/kernels/kernels_internal.h"

/*
 * Loops over fewer elements (about 0.1 ms) run on one thread: starting a team costs little on idle
 * processors, but a time slice if one of them is busy. The number of threads does not change bits.
 */
#define CPU__SMALL (1 << 18)

/* Rows per block in reductions over rows. */
#define CPU__ROW_BLOCK 64

static inline int64_t
cpu__min(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static inline float *
cpu__f32(const struct tensor *t)
{
	return t->data;
}

/* Index in data of the first element of head h at row b * T + t. */
static inline int64_t
cpu__head_at(const struct kernels_heads *x, int64_t row, int64_t h)
{
	return row * x->stride + h * kernels__head_stride(x);
}

/* The position of row m in its document. */
static inline int64_t
cpu__position(const int32_t *starts, int64_t m, int64_t t)
{
	return m % t - (starts != NULL ? starts[m] : 0);
}

/*
 * Access to a part of a tensor as fp32: n elements from element `at` on. In fp32 the part is the tensor's own
 * data and costs nothing; in bf16 it is widened into buf, changed there and narrowed back, so that loops
 * handle fp32 only.
 *   cpu__read   returns the part for reading
 *   cpu__place  returns where to write the part (its content is undefined)
 *   cpu__store  ends writing; piece is the result of cpu__place
 */
static inline const float *
cpu__read(const struct kernels *k, const void *data, enum dtype dtype, int64_t at, int64_t n, float *buf)
{
	if (dtype == DTYPE_F32)
		return (const float *)data + at;
	k->vec->widen(buf, (const uint16_t *)data + at, n);
	return buf;
}

static inline float *
cpu__place(void *data, enum dtype dtype, int64_t at, float *buf)
{
	return dtype == DTYPE_F32 ? (float *)data + at : buf;
}

static inline void
cpu__store(const struct kernels *k, void *data, enum dtype dtype, int64_t at, int64_t n, const float *piece)
{
	if (dtype != DTYPE_F32)
		k->vec->narrow((uint16_t *)data + at, piece, n);
}

/*
 * cpu__open, cpu__close - the common part of kernels_new and kernels_destroy for CPU backends: threads, the
 * loops for this processor, and OpenBLAS, which computes attention's products for every CPU backend.
 */
int cpu__open(struct kernels *k, const struct kernels_options *options, struct err_note *note);
void cpu__close(struct kernels *k);
/* cpu__describe - sets the text that kernels_describe returns. */
void cpu__describe(struct kernels *k, const char *library, const char *version, const char *units);

/*
 * cpu__scratch - at least n floats, 64-byte aligned, not zeroed, valid until the next call. Ends the process
 * (log_fatal) if memory is exhausted.
 */
float *cpu__scratch(struct kernels *k, size_t n);
/* cpu__panels - a second such array, for products of matrices, whose callers use the scratch. */
float *cpu__panels(struct kernels *k, size_t n);
/* cpu__packed - a third one, for operands that are repacked as a whole for a product. */
float *cpu__packed(struct kernels *k, size_t n);

/*
 * Row-major C[m, n] = alpha op(A) op(B) + beta C, on the calling thread only, whatever OpenMP's settings are.
 */
void cpu__sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
    const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

/* C[m, n] = op(A) op(B), row-major; rows of C have no gaps. */
struct cpu__product {
	bool trans_a, trans_b;
	int64_t m, n, k, lda, ldb;
};

/* Products of bf16 factors into fp32, for backends that have them. */
struct cpu__bf16 {
	/*
	 * Must be called for a shape before its first product, outside of parallel loops. Returns the bytes
	 * of scratch memory that the product needs.
	 */
	size_t (*prepare)(struct kernels *k, const struct cpu__product *p);
	/*
	 * Runs on the calling thread only; thread: its index in the handle's team. scratch: 64-byte aligned.
	 */
	void (*run)(struct kernels *k, const struct cpu__product *p, const void *a, const void *b, float *c, void *scratch, int thread);
};

/*
 * cpu__muon_with - cpu__muon with the products of Newton-Schulz in bf16, computed by the functions of bf16.
 */
void cpu__muon_with(struct kernels *k, const struct cpu__bf16 *bf16, const struct kernels_muon_matrix *list, int64_t n,
    const struct kernels_muon *a);

/* Rows per tile in attention. */
#define CPU__QUERIES 64

/* The first key that any query of a tile sees, t0 being the tile's first query. */
static inline int64_t
cpu__first_key(const struct kernels_attention_form *form, int64_t t0)
{
	return form->window > 0 && t0 >= form->window ? t0 - form->window + 1 : 0;
}

/*
 * cpu__softmax_row - turns s[0, keys), the scores of query t with keys first .. first + keys - 1, into
 * probabilities. Keys that it does not see get 0: those outside form's window, and those before start, where
 * its document begins. Returns the log-sum-exp of the scaled and capped scores.
 * cpu__softmax_row_bwd - p: scores on entry, probabilities on return; d_p: gradient of the probabilities on
 * entry, of q k^T on return. room: [keys].
 */
float cpu__softmax_row(const struct kernels *k, const struct kernels_attention_form *form, float *s, int64_t t, int64_t start, int64_t first,
    int64_t keys);
void cpu__softmax_row_bwd(const struct kernels *k, const struct kernels_attention_form *form, float *p, float *d_p, int64_t t,
    int64_t start, int64_t first, int64_t keys, float lse, float delta, float *room);

/* Rows of fp32 numbers. */
struct cpu__rows {
	float *data;
	int64_t stride;
};

/* cpu__heads_store - rounds `from` to n rows of one head of x; no change in fp32, where `from` is the head */
void cpu__heads_store(const struct kernels *k, const struct kernels_heads *x, int64_t row, int64_t n,
    int64_t h, struct cpu__rows from);

/* Functions that all CPU backends share: cpu__NAME has the type of member NAME of struct kernels_ops. */
#define CPU__DECLARE(name) extern __typeof__(*((struct kernels_ops *)NULL)->name) cpu__##name
CPU__DECLARE(alloc);
CPU__DECLARE(free);
CPU__DECLARE(zero);
CPU__DECLARE(host_pointer);
CPU__DECLARE(transfer);
CPU__DECLARE(column_sums);
CPU__DECLARE(embed);
CPU__DECLARE(embed_bwd);
CPU__DECLARE(norm);
CPU__DECLARE(norm_bwd);
CPU__DECLARE(rmsnorm_heads);
CPU__DECLARE(rmsnorm_heads_bwd);
CPU__DECLARE(pointwise);
CPU__DECLARE(affine);
CPU__DECLARE(add_scaled);
CPU__DECLARE(soft_cap);
CPU__DECLARE(rope);
CPU__DECLARE(attention);
CPU__DECLARE(attention_bwd);
CPU__DECLARE(output_loss);
CPU__DECLARE(output_label);
CPU__DECLARE(accumulate);
CPU__DECLARE(norm_blocks);
CPU__DECLARE(adamw);
CPU__DECLARE(muon);
CPU__DECLARE(convert);

/* The functions that no CPU backend replaces. */
#define CPU__OPS \
	.alloc = cpu__alloc, .free = cpu__free, .host_alloc = cpu__alloc, .host_free = cpu__free, \
	.zero = cpu__zero, .host_pointer = cpu__host_pointer, .transfer = cpu__transfer, \
	.column_sums = cpu__column_sums, .embed = cpu__embed, .embed_bwd = cpu__embed_bwd, \
	.norm = cpu__norm, .norm_bwd = cpu__norm_bwd, .rmsnorm_heads = cpu__rmsnorm_heads, \
	.rmsnorm_heads_bwd = cpu__rmsnorm_heads_bwd, .pointwise = cpu__pointwise, .affine = cpu__affine, .add_scaled = cpu__add_scaled, \
	.soft_cap = cpu__soft_cap, .rope = cpu__rope, \
	.output_loss = cpu__output_loss, .output_label = cpu__output_label, .accumulate = cpu__accumulate, \
	.norm_blocks = cpu__norm_blocks, .convert = cpu__convert

/* Rows of logits that exist at a time; depends on V alone. */
int64_t cpu__logit_rows(int64_t v);

#endif
