/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda - what the CUDA kernels share: their handle's data, memory of a call, reads and writes of numbers on
 * the device.
 */
#ifndef SALT_CUDA_H
#define SALT_CUDA_H

extern "C" {
#include "base/log/log.h"
#include "engine/kernels/kernels_internal.h"

/* The backend's table, and kernels_plugin.device. */
extern const struct kernels_ops kernels__cuda;
int cuda__device(struct kernels_device *device, struct err_note *note);
}
#include "engine/kernels/cuda/device.h"

/* ---- host ---- */

/* Host arrays of a call, copied to the device. Each slot has its own memory, valid until its next use. */
enum cuda_slot {
	SLOT_TOKENS, SLOT_STARTS, SLOT_FREQ, SLOT_ORDER, SLOT_PLACES, SLOT_NEXT, SLOT_WEIGHT, SLOT_LOSS_WEIGHT, SLOT_OFFSETS, SLOT_IDS, SLOT_VALUES, SLOT_SEQS, N_SLOTS
};
/* Device memory of a call: contents are valid until the call ends. */
enum cuda_room { ROOM_MAIN, ROOM_LOGITS, ROOM_GRADIENT, ROOM_ROWS, ROOM_IDS, ROOM_PRODUCT, N_ROOMS };

struct cuda {
	cudaStream_t stream;
	void *lt;				/* cublasLtHandle_t, of matmul.cu */
	struct cuda_peers *peers;		/* of nccl.cu; NULL: not open */
	struct {
		void *host, *device;
		size_t bytes, used;		/* used: by the last upload */
		cudaEvent_t sent;		/* host may be written again after it */
	} slots[N_SLOTS];
	struct {
		void *p;
		size_t bytes;
	} rooms[N_ROOMS];
	void *landing;				/* page-locked: of cuda__download */
	size_t landing_bytes;
};

static inline struct cuda *
cuda_of(const struct kernels *k)
{
	return (struct cuda *)k->own;
}

/* cuda__check - ends the process if a CUDA call failed. */
void cuda__check(cudaError_t rc, const char *what);
#define CUDA_CALL(call) cuda__check((call), #call)
/* kernel<<<grid, block, 0, the handle's stream>>>(...) */
#define CUDA_RUN(k, kernel, grid, block, ...) cuda__check(cuda_launch(kernel, grid, block, 0, cuda_of(k)->stream, __VA_ARGS__), #kernel)

/*
 * cuda__upload - copies bytes of host memory to the device; host may be reused at once. The result is valid
 * until the slot's next use. NULL for NULL or 0 bytes. What the slot holds already is not sent again, so
 * kernels must not write to it.
 */
const void *cuda__upload(struct kernels *k, enum cuda_slot slot, const void *host, size_t bytes);
void *cuda__room(struct kernels *k, enum cuda_room room, size_t bytes);
void cuda__fetch(struct kernels *k, void *host, const void *device, size_t bytes);	/* waits */
/* cuda__download - the same into memory of the handle, which is valid until the next call. */
const void *cuda__download(struct kernels *k, const void *device, size_t bytes);

extern const struct kernels_peers_ops cuda__peers;

int cuda__matmul_open(struct kernels *k, struct err_note *note);
size_t cuda__matmul_version();			/* version of cuBLASLt: 130100 is 13.1.0 */
void cuda__matmul_close(struct kernels *k);

/* Number of blocks of `per` for n. */
static inline unsigned
cuda_blocks(int64_t n, int64_t per)
{
	return (unsigned)((n + per - 1) / per);
}

/* ---- the table's functions ---- */

void cuda__matmul(struct kernels *k, int64_t m, int64_t n, int64_t inner, const struct kernels__matrix *a, const struct kernels__matrix *b,
    const struct kernels__matrix *c, const struct tensor *bias, bool add);
void cuda__column_sums(struct kernels *k, float *sums, const struct tensor *x);
/* The same of [rows, cols] with rows ld apart. */
void cuda__column_sums_of(struct kernels *k, float *sums, const void *data, enum dtype dtype, int64_t rows, int64_t cols, int64_t ld);
void cuda__embed(struct kernels *k, struct tensor *y, const int32_t *tokens, const struct tensor *wte, const struct tensor *wpe, int64_t m,
    int64_t t, const int32_t *starts);
void cuda__embed_bwd(struct kernels *k, struct tensor *d_wte, struct tensor *d_wpe, const struct tensor *d_y, const int32_t *tokens, int64_t m,
    int64_t t, const int32_t *starts);
void cuda__norm(struct kernels *k, struct tensor *y, float *mean, float *rstd, const struct tensor *x, const struct tensor *g,
    const struct tensor *b, float eps);
void cuda__norm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g, const float *mean, const float *rstd, bool add);
void cuda__rmsnorm_heads(struct kernels *k, struct kernels_heads *y, float *rstd, const struct kernels_heads *x, const struct tensor *g,
    float eps, int64_t m);
void cuda__rmsnorm_heads_bwd(struct kernels *k, struct kernels_heads *d_x, struct tensor *d_g, const struct kernels_heads *d_y,
    const struct kernels_heads *x, const struct tensor *g, const float *rstd, int64_t m);
void cuda__pointwise(struct kernels *k, enum kernels__pointwise op, struct tensor *const out[2], const struct tensor *const in[3], int64_t n);
void cuda__affine(struct kernels *k, struct tensor *y, const struct tensor *x, float factor, float shift);
void cuda__add_scaled(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *branch, float factor);
void cuda__soft_cap(struct kernels *k, struct tensor *x, float cap);
void cuda__accumulate(struct kernels *k, float *y, const float *x, int64_t n);
void cuda__convert(struct kernels *k, void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, int64_t n);
void cuda__rope(struct kernels *k, struct kernels_heads *x, const float *freq, float magnitude, int64_t b, int64_t t, const int32_t *starts,
    bool inverse);
void cuda__attention(struct kernels *k, const struct kernels_heads *o, float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);
void cuda__attention_bwd(struct kernels *k, struct kernels_heads *d_q, struct kernels_heads *d_key, struct kernels_heads *d_value,
    const struct kernels_heads *d_o, const struct kernels_heads *o, const float *lse, const struct kernels_heads *q,
    const struct kernels_heads *key, const struct kernels_heads *value, const struct kernels_attention_form *form, int64_t b, int64_t t);
void cuda__norm_blocks(struct kernels *k, const float *x, int64_t n, double *out);
void cuda__adamw(struct kernels *k, float *w, float *m, float *v, const float *grad, void *copy, enum dtype copy_dtype, int64_t n,
    const struct kernels_adamw *a);
void cuda__muon(struct kernels *k, const struct kernels_muon_matrix *list, int64_t n, const struct kernels_muon *a);
void cuda__output_loss(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_targets *targets, float grad_scale, struct tensor *d_h, struct tensor *d_w, struct kernels_loss_sums *sums);
void cuda__output_label(struct kernels *k, const struct tensor *h, const struct tensor *w_out, const struct kernels_output *more,
    const struct kernels_label_spec *spec, const int32_t *next, const uint64_t *seqs, int64_t b, int64_t t, struct kernels_labels *out);

/* ---- device ---- */

#define QUAD 4

struct quad {
	float f[QUAD];
};

/* Numbers in device memory, read as fp32. quads: 4 numbers at any multiple of 4 may be accessed at once. */
struct view {
	void *data;
	bool bf16, quads;
};

/* stride: every row begins at a multiple of it; 0: there is one row. */
static inline struct view
view_of(const void *data, enum dtype dtype, int64_t stride)
{
	return view{const_cast<void *>(data), dtype == DTYPE_BF16, (uintptr_t)data % (QUAD * dtype_size(dtype)) == 0 && stride % QUAD == 0};
}

__device__ __forceinline__ float
get(const struct view &v, int64_t i)
{
	return v.bf16 ? widen(((const uint16_t *)v.data)[i]) : ((const float *)v.data)[i];
}

__device__ __forceinline__ void
put(const struct view &v, int64_t i, float f)
{
	if (v.bf16)
		((uint16_t *)v.data)[i] = (uint16_t)narrow(f);
	else
		((float *)v.data)[i] = f;
}

/* Numbers i .. i + 3, of which the first n exist; the others are 0. */
__device__ __forceinline__ struct quad
get_quad(const struct view &v, int64_t i, int64_t n)
{
	struct quad q;

	if (v.quads && n >= QUAD && v.bf16) {
		words2 w = load_words<words2>((const uint16_t *)v.data + i);

		for (int e = 0; e < QUAD; e++)
			q.f[e] = widen(w.w[e / 2] >> e % 2 * 16 & 0xffff);
	} else if (v.quads && n >= QUAD) {
		words4 w = load_words<words4>((const float *)v.data + i);

		for (int e = 0; e < QUAD; e++)
			q.f[e] = float_of(w.w[e]);
	} else {
		for (int e = 0; e < QUAD; e++)
			q.f[e] = e < n ? get(v, i + e) : 0;
	}
	return q;
}

__device__ __forceinline__ void
put_quad(const struct view &v, int64_t i, int64_t n, const struct quad &q)
{
	if (v.quads && n >= QUAD && v.bf16) {
		store_words((uint16_t *)v.data + i, words2{{narrow2(q.f[0], q.f[1]), narrow2(q.f[2], q.f[3])}});
	} else if (v.quads && n >= QUAD) {
		store_words((float *)v.data + i, words4{{bits_of(q.f[0]), bits_of(q.f[1]), bits_of(q.f[2]), bits_of(q.f[3])}});
	} else {
		for (int e = 0; e < QUAD && e < n; e++)
			put(v, i + e, q.f[e]);
	}
}

struct add_op {
	template <typename T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};
struct max_op {				/* ignores NaN in b, as a < b ? b : a does */
	template <typename T> __device__ __forceinline__ T operator()(T a, T b) const { return a < b ? b : a; }
};

/*
 * The sum (or maximum) over a block of up to 1024 threads, a multiple of WARP, in an order that depends on
 * the number of threads only. All threads get the result. room: [WARP] of shared memory; the caller may reuse
 * it after its next barrier.
 */
template <typename Op, typename T> __device__ __forceinline__ T
reduced(T v, T *room, T none)
{
	int warps = (int)blockDim.x / WARP, lane = (int)threadIdx.x % WARP;

	for (int by = WARP / 2; by > 0; by /= 2)
		v = Op()(v, __shfl_xor_sync(ALL_LANES, v, by));
	__syncthreads();			/* an earlier call may still read room */
	if (lane == 0)
		room[threadIdx.x / WARP] = v;
	__syncthreads();
	v = lane < warps ? room[lane] : none;
	for (int by = WARP / 2; by > 0; by /= 2)
		v = Op()(v, __shfl_xor_sync(ALL_LANES, v, by));
	return v;
}

/* Position of row m in its document. */
__device__ __forceinline__ int64_t
position_of(const int32_t *starts, int64_t m, int64_t t)
{
	return m % t - (starts != NULL ? starts[m] : 0);
}

#endif
