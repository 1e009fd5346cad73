/* SPDX-License-Identifier: Apache-2.0 */
/*
 * norm - LayerNorm and RMSNorm of rows and of heads, and column sums. One block computes one row. Gradients
 * of gains and biases are first summed over blocks of ROW_BLOCK rows; these sums are then added in order.
 */
#include "engine/kernels/cuda/cuda.h"

#define ROW_BLOCK 64
#define COLUMN_THREADS 64
#define TOTAL_WARPS 16

/* Row r is head r % heads of row r / heads. */
struct rows {
	int64_t stride, heads, head_stride;
};

__device__ __forceinline__ int64_t
row_at(const struct rows &rows, int64_t r)
{
	return rows.heads == 1 ? r * rows.stride : r / rows.heads * rows.stride + r % rows.heads * rows.head_stride;
}

/* mean, b: for LayerNorm only. */
__global__ static void
norm(struct view y, struct rows y_rows, float *mean, float *rstd, struct view x, struct rows x_rows, struct view g, struct view b, float eps, int c)
{
	CUDA_SHARED(float, room, WARP);
	int64_t r = blockIdx.x, from = row_at(x_rows, r), to = row_at(y_rows, r);
	int step = (int)blockDim.x * QUAD, first = (int)threadIdx.x * QUAD;
	float sum = 0, m = 0, scale;

	if (mean != NULL) {
		for (int i = first; i < c; i += step) {
			struct quad q = get_quad(x, from + i, c - i);

			for (int e = 0; e < QUAD; e++)
				sum += q.f[e];
		}
		m = reduced<add_op>(sum, room, 0.0f) / (float)c;
		sum = 0;
	}
	for (int i = first; i < c; i += step) {
		struct quad q = get_quad(x, from + i, c - i);

		for (int e = 0; e < QUAD; e++)
			sum += i + e < c ? (q.f[e] - m) * (q.f[e] - m) : 0;
	}
	scale = 1 / sqrtf(reduced<add_op>(sum, room, 0.0f) / (float)c + eps);
	if (threadIdx.x == 0) {
		rstd[r] = scale;
		if (mean != NULL)
			mean[r] = m;
	}
	for (int i = first; i < c; i += step) {
		struct quad q = get_quad(x, from + i, c - i), gain = get_quad(g, i, c - i), shift = {};

		if (mean != NULL)
			shift = get_quad(b, i, c - i);
		for (int e = 0; e < QUAD; e++)
			q.f[e] = (q.f[e] - m) * scale * gain.f[e] + shift.f[e];
		put_quad(y, to + i, c - i, q);
	}
}

/* With d = d_y g and n the normalised x: d_x = rstd (d - mean(d) - n mean(d n)); RMSNorm omits mean(d). */
__global__ static void
norm_bwd(struct view d_x, struct rows d_x_rows, struct view d_y, struct rows d_y_rows, struct view x, struct rows x_rows, struct view g,
    const float *mean, const float *rstd, bool add, int c)
{
	CUDA_SHARED(float, room, WARP);
	int64_t r = blockIdx.x, from = row_at(x_rows, r), dy = row_at(d_y_rows, r), to = row_at(d_x_rows, r);
	int step = (int)blockDim.x * QUAD, first = (int)threadIdx.x * QUAD;
	float m = mean != NULL ? mean[r] : 0, scale = rstd[r], sum = 0, dot = 0;

	for (int i = first; i < c; i += step) {
		struct quad q = get_quad(x, from + i, c - i), d = get_quad(d_y, dy + i, c - i), gain = get_quad(g, i, c - i);

		for (int e = 0; e < QUAD; e++) {
			sum += d.f[e] * gain.f[e];
			dot += d.f[e] * gain.f[e] * (q.f[e] - m) * scale;
		}
	}
	sum = mean != NULL ? reduced<add_op>(sum, room, 0.0f) / (float)c : 0;
	dot = reduced<add_op>(dot, room, 0.0f) / (float)c;
	for (int i = first; i < c; i += step) {
		struct quad q = get_quad(x, from + i, c - i), d = get_quad(d_y, dy + i, c - i), gain = get_quad(g, i, c - i), old = {};

		if (add)
			old = get_quad(d_x, to + i, c - i);
		for (int e = 0; e < QUAD; e++)
			old.f[e] += scale * (d.f[e] * gain.f[e] - sum - (q.f[e] - m) * scale * dot);
		put_quad(d_x, to + i, c - i, old);
	}
}

/*
 * partial[block, column]: sums over the block's rows, in order. With x NULL: of d_y; otherwise of d_y n,
 * followed by those of d_y if mean is given.
 */
__global__ static void
column_partials(float *partial, struct view d_y, struct rows d_y_rows, struct view x, struct rows x_rows, const float *mean,
    const float *rstd, int64_t n_rows, int64_t rows_per_block, int c)
{
	int64_t begin = (int64_t)blockIdx.x * rows_per_block, end = begin + rows_per_block < n_rows ? begin + rows_per_block : n_rows;
	int i = (int)(blockIdx.y * COLUMN_THREADS + threadIdx.x) * QUAD;
	struct quad sum = {}, dot = {};

	if (i >= c)
		return;
	for (int64_t r = begin; r < end; r++) {
		struct quad d = get_quad(d_y, row_at(d_y_rows, r) + i, c - i), q;

		for (int e = 0; e < QUAD; e++)
			sum.f[e] += d.f[e];
		if (x.data == NULL)
			continue;
		q = get_quad(x, row_at(x_rows, r) + i, c - i);
		for (int e = 0; e < QUAD; e++)
			dot.f[e] += d.f[e] * (q.f[e] - (mean != NULL ? mean[r] : 0)) * rstd[r];
	}
	partial += (int64_t)blockIdx.x * (mean != NULL ? 2 * c : c) + i;
	for (int e = 0; e < QUAD && i + e < c; e++) {
		partial[e] = x.data != NULL ? dot.f[e] : sum.f[e];
		if (mean != NULL)
			partial[c + e] = sum.f[e];
	}
}

/*
 * Adds the column sums of the blocks to d_g, those from column c on to d_b. A warp adds those of every TOTAL_WARPS-th block, in order; then
 * the sums of the warps are added in order. One warp for all blocks would wait for memory once for each.
 */
__global__ static void
column_totals(float *d_g, float *d_b, const float *partial, int64_t blocks, int width, int c)
{
	CUDA_SHARED(float, room, TOTAL_WARPS * WARP);
	int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, i = (int)blockIdx.x * WARP + lane;
	float sum = 0, *to;

	for (int64_t block = warp; block < blocks && i < width; block += TOTAL_WARPS)
		sum += partial[block * width + i];
	room[threadIdx.x] = sum;
	__syncthreads();
	if (warp > 0 || i >= width)
		return;
	to = i < c ? d_g + i : d_b + (i - c);
	sum = *to;
	for (int w = 0; w < TOTAL_WARPS; w++)
		sum += room[w * WARP + lane];
	*to = sum;
}

/* Threads per row of c: enough for a quad each, at most 256. */
static unsigned
row_threads(int64_t c)
{
	int64_t n = (c + QUAD * WARP - 1) / (QUAD * WARP) * WARP;

	return (unsigned)(n < 256 ? n : 256);
}

static struct rows
matrix_rows(int64_t c)
{
	return {c, 1, 0};
}

static struct rows
head_rows(const struct kernels_heads *x)
{
	return {x->stride, x->n_heads, kernels__head_stride(x)};
}

static struct view
matrix_view(const struct tensor *t)
{
	return view_of(t->data, t->dtype, kernels__cols(t));
}

static struct view
head_view(const struct kernels_heads *x)
{
	/* a | b is a multiple of 4 only if both are */
	return view_of(x->data, x->dtype, x->stride | kernels__head_stride(x));
}

static void
column_gradients(struct kernels *k, float *d_g, float *d_b, const struct view &d_y, const struct rows &d_y_rows, const struct view &x,
    const struct rows &x_rows, const float *mean, const float *rstd, int64_t n_rows, int64_t c)
{
	int64_t per_block = ROW_BLOCK * d_y_rows.heads, blocks = (n_rows + per_block - 1) / per_block;
	int width = (int)(mean != NULL ? 2 * c : c);
	float *partial = (float *)cuda__room(k, ROOM_MAIN, (size_t)blocks * (size_t)width * sizeof(*partial));

	if (blocks == 0)
		return;
	CUDA_RUN(k, column_partials, dim3((unsigned)blocks, cuda_blocks(c, COLUMN_THREADS * QUAD)), COLUMN_THREADS, partial, d_y, d_y_rows, x,
	    x_rows, mean, rstd, n_rows, per_block, (int)c);
	CUDA_RUN(k, column_totals, cuda_blocks(width, WARP), TOTAL_WARPS * WARP, d_g, d_b, partial, blocks, width, (int)c);
}

void
cuda__norm(struct kernels *k, struct tensor *y, float *mean, float *rstd, const struct tensor *x, const struct tensor *g,
    const struct tensor *b, float eps)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x);

	if (m > 0)
		CUDA_RUN(k, norm, (unsigned)m, row_threads(c), matrix_view(y), matrix_rows(c), b != NULL ? mean : NULL, rstd, matrix_view(x),
		    matrix_rows(c), matrix_view(g), b != NULL ? matrix_view(b) : view{}, eps, (int)c);
}

/* d_x may be d_y, so the gradients of gain and bias are computed first. */
void
cuda__norm_bwd(struct kernels *k, struct tensor *d_x, struct tensor *d_g, struct tensor *d_b, const struct tensor *d_y,
    const struct tensor *x, const struct tensor *g, const float *mean, const float *rstd, bool add)
{
	int64_t m = kernels__rows(x), c = kernels__cols(x);

	column_gradients(k, (float *)d_g->data, d_b != NULL ? (float *)d_b->data : NULL, matrix_view(d_y), matrix_rows(c), matrix_view(x),
	    matrix_rows(c), mean, rstd, m, c);
	if (m > 0)
		CUDA_RUN(k, norm_bwd, (unsigned)m, row_threads(c), matrix_view(d_x), matrix_rows(c), matrix_view(d_y), matrix_rows(c), matrix_view(x),
		    matrix_rows(c), matrix_view(g), mean, rstd, add, (int)c);
}

void
cuda__rmsnorm_heads(struct kernels *k, struct kernels_heads *y, float *rstd, const struct kernels_heads *x, const struct tensor *g,
    float eps, int64_t m)
{
	if (m > 0)
		CUDA_RUN(k, norm, (unsigned)(m * x->n_heads), row_threads(x->head_dim), head_view(y), head_rows(y), (float *)NULL, rstd, head_view(x),
		    head_rows(x), matrix_view(g), view{}, eps, (int)x->head_dim);
}

void
cuda__rmsnorm_heads_bwd(struct kernels *k, struct kernels_heads *d_x, struct tensor *d_g, const struct kernels_heads *d_y,
    const struct kernels_heads *x, const struct tensor *g, const float *rstd, int64_t m)
{
	column_gradients(k, (float *)d_g->data, NULL, head_view(d_y), head_rows(d_y), head_view(x), head_rows(x), NULL, rstd, m * x->n_heads,
	    x->head_dim);
	if (m > 0)
		CUDA_RUN(k, norm_bwd, (unsigned)(m * x->n_heads), row_threads(x->head_dim), head_view(d_x), head_rows(d_x), head_view(d_y),
		    head_rows(d_y), head_view(x), head_rows(x), matrix_view(g), (const float *)NULL, rstd, false, (int)x->head_dim);
}

void
cuda__column_sums_of(struct kernels *k, float *sums, const void *data, enum dtype dtype, int64_t rows, int64_t cols, int64_t ld)
{
	column_gradients(k, sums, NULL, view_of(data, dtype, ld), matrix_rows(ld), view{}, matrix_rows(ld), NULL, NULL, rows, cols);
}

void
cuda__column_sums(struct kernels *k, float *sums, const struct tensor *x)
{
	cuda__column_sums_of(k, sums, x->data, x->dtype, kernels__rows(x), kernels__cols(x), kernels__cols(x));
}
