/* SPDX-License-Identifier: Apache-2.0 */
/*
 * muon - Newton-Schulz as in kernels.h: five times X = a X + (b G + c G^2) X with G = X X^T, on the smaller
 * side s of the matrix (for a tall matrix X (b G + c G^2) with G = X^T X). cuBLASLt computes the products,
 * with factors in the compute dtype and fp32 results. Sums with these results are fp32 and rounded once, when
 * X is stored. The matrices of a list are updated one after another.
 *
 * Memory: X, G and one more [s, s] in the compute dtype, and an fp32 array of the larger of CUDA_MUON_PART
 * and s^2 numbers: rows (or columns) of the last product pass through it part by part.
 */
#include "engine/kernels/cuda/cuda.h"

#define ITERATIONS 5
#define THREADS 256
#define PAD 8				/* rows of factors begin at multiples of this many numbers */

/* Numbers in a part of the last product. The emulation uses a smaller part. */
#ifndef CUDA_MUON_PART
#define CUDA_MUON_PART ((int64_t)4 << 20)
#endif

static const float coefficients[3] = {3.4445f, -4.7750f, 2.0315f};

/* A matrix on the device. Element (r, c) is element muon_at(r) + c of w, m, grad and copy. */
struct muon_matrix {
	float *w, *m;
	const float *grad;
	struct view copy;
	int64_t rows, cols, ld, group, group_stride;
	float momentum, one_minus_momentum, grad_scale, shrink, step;
};

__device__ __forceinline__ int64_t
muon_at(const struct muon_matrix &a, int64_t r)
{
	return r / a.group * a.group_stride + r % a.group * a.ld;
}

/* U, computed from the momentum after this step. */
__device__ __forceinline__ float
nesterov(const struct muon_matrix &a, int64_t i)
{
	return fmaf(a.momentum, a.m[i], a.one_minus_momentum * (a.grad[i] * a.grad_scale));
}

/* One block per row: updates the momentum and computes the sum of squares of U. */
__global__ static void
momentum(struct muon_matrix a, double *sums)
{
	CUDA_SHARED(double, room, WARP);
	int64_t row = blockIdx.x, at = muon_at(a, row);
	double sum = 0;

	for (int64_t c = threadIdx.x; c < a.cols; c += THREADS) {
		float u;

		a.m[at + c] = fmaf(a.momentum, a.m[at + c], a.one_minus_momentum * (a.grad[at + c] * a.grad_scale));
		u = nesterov(a, at + c);
		sum += (double)u * (double)u;
	}
	sum = reduced<add_op>(sum, room, 0.0);
	if (threadIdx.x == 0)
		sums[row] = sum;
}

/* One block: sums[0] = 1 / max(|U|, 1e-7), from the rows' sums. */
__global__ static void
norm(double *sums, int64_t rows)
{
	CUDA_SHARED(double, room, WARP);
	double sum = 0, size;

	for (int64_t r = threadIdx.x; r < rows; r += THREADS)
		sum += sums[r];
	sum = reduced<add_op>(sum, room, 0.0);
	size = sqrt(sum);
	if (threadIdx.x == 0)
		sums[0] = 1 / (size > 1e-7 ? size : 1e-7);
}

/* X = U / |U|; the rows of x are width apart. */
__global__ static void
first_x(struct view x, int64_t width, struct muon_matrix a, const double *scale)
{
	int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, r = i / a.cols, c = i % a.cols;

	if (r < a.rows)
		put(x, r * width + c, nesterov(a, muon_at(a, r) + c) * (float)scale[0]);
}

/* p = b g + c square, all [s, s]; rows of p and g are width apart, rows of square s. */
__global__ static void
polynomial(struct view p, struct view g, const float *square, int64_t s, int64_t width, float b, float c)
{
	int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, at = i / s * width + i % s;

	if (i < s * s)
		put(p, at, fmaf(c, square[i], b * get(g, at)));
}

/*
 * X = a X + part [rows, cols], in place, for rows from `row` and columns from `col` on. After the last
 * iteration W = shrink W - step X instead, and its copy.
 */
__global__ static void
next_x(struct view x, int64_t width, const float *part, int64_t row, int64_t col, int64_t rows, int64_t cols, float factor, bool last,
    struct muon_matrix a)
{
	int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, r = i / cols, c = i % cols, at = (row + r) * width + col + c;
	float new_x, new_w;

	if (r >= rows)
		return;
	new_x = fmaf(factor, get(x, at), part[i]);
	if (!last) {
		put(x, at, new_x);
		return;
	}
	at = muon_at(a, row + r) + col + c;
	new_w = fmaf(-a.step, new_x, a.w[at] * a.shrink);
	a.w[at] = new_w;
	if (a.copy.data != NULL)
		put(a.copy, at, new_w);
}

/* Working memory of a matrix. */
struct muon_room {
	double *sums;				/* [rows] */
	float *part;
	struct kernels__matrix x, g, p;		/* [rows, cols], [s, s], [s, s] */
};

static int64_t
padded(int64_t n)
{
	return (n + PAD - 1) / PAD * PAD;
}

static struct view
factor_view(const struct kernels__matrix *m)
{
	return view_of(m->data, m->dtype, 1);
}

static int64_t
part_floats(int64_t s)
{
	return s * s > CUDA_MUON_PART ? s * s : CUDA_MUON_PART;
}

/* Takes a multiple of 256 bytes, so that the alignment of products does not depend on the arrays before. */
static char *
taken(char **at, size_t bytes)
{
	char *p = *at;

	*at += (bytes + 255) / 256 * 256;
	return p;
}

/* Lays out the arrays of room from `at` on and returns the end. With at NULL the end is the size. */
static char *
lay(const struct kernels *k, struct muon_room *room, const struct kernels_muon_matrix *m, char *at)
{
	int64_t s = m->rows < m->cols ? m->rows : m->cols;
	size_t size = dtype_size(k->dtype);

	room->sums = (double *)taken(&at, (size_t)m->rows * sizeof(double));
	room->part = (float *)taken(&at, (size_t)part_floats(s) * sizeof(float));
	room->x = {taken(&at, (size_t)(m->rows * padded(m->cols)) * size), k->dtype, padded(m->cols), false};
	room->g = {taken(&at, (size_t)(s * padded(s)) * size), k->dtype, padded(s), false};
	room->p = {taken(&at, (size_t)(s * padded(s)) * size), k->dtype, padded(s), false};
	return at;
}

/* X' of one iteration, part by part: each part of X enters only its own product. */
static void
apply(struct kernels *k, const struct muon_room *room, const struct muon_matrix &a, bool last)
{
	bool tall = a.rows > a.cols;
	int64_t s = tall ? a.cols : a.rows, all = tall ? a.rows : a.cols, step = part_floats(s) / s;

	for (int64_t i = 0; i < all; i += step) {
		int64_t n = all - i < step ? all - i : step, row = tall ? i : 0, col = tall ? 0 : i, rows = tall ? n : s, cols = tall ? s : n;
		struct kernels__matrix x = room->x, part = {room->part, DTYPE_F32, cols, false};

		x.data = kernels__element(x.data, x.dtype, row * x.ld + col);
		cuda__matmul(k, rows, cols, s, tall ? &x : &room->p, tall ? &room->p : &x, &part, NULL, false);
		CUDA_RUN(k, next_x, cuda_blocks(rows * cols, THREADS), THREADS, factor_view(&room->x), room->x.ld, room->part, row, col, rows, cols,
		    coefficients[0], last, a);
	}
}

static void
one(struct kernels *k, const struct kernels_muon_matrix *m, const struct kernels_muon *args, char *memory)
{
	int64_t s = m->rows < m->cols ? m->rows : m->cols, l = m->rows + m->cols - s;
	const struct muon_matrix a = {m->w, m->m, m->grad, view_of(m->copy, args->copy_dtype, 1), m->rows, m->cols, m->ld, m->group, m->group_stride,
	    args->momentum, (float)(1 - (double)args->momentum), args->grad_scale, (float)(1 - (double)args->lr * (double)args->decay),
	    (float)((double)args->lr * (double)m->scale)};
	struct muon_room room;
	struct kernels__matrix left, right, square;

	lay(k, &room, m, memory);
	left = right = room.x;
	left.trans = m->rows > m->cols;
	right.trans = !left.trans;
	square = {room.part, DTYPE_F32, s, false};
	CUDA_RUN(k, momentum, (unsigned)m->rows, THREADS, a, room.sums);
	CUDA_RUN(k, norm, 1, THREADS, room.sums, m->rows);
	CUDA_RUN(k, first_x, cuda_blocks(m->rows * m->cols, THREADS), THREADS, factor_view(&room.x), room.x.ld, a, room.sums);
	for (int i = 0; i < ITERATIONS; i++) {
		cuda__matmul(k, s, s, l, &left, &right, &room.g, NULL, false);
		cuda__matmul(k, s, s, s, &room.g, &room.g, &square, NULL, false);
		CUDA_RUN(k, polynomial, cuda_blocks(s * s, THREADS), THREADS, factor_view(&room.p), factor_view(&room.g), room.part, s, room.g.ld,
		    coefficients[1], coefficients[2]);
		apply(k, &room, a, i + 1 == ITERATIONS);
	}
}

void
cuda__muon(struct kernels *k, const struct kernels_muon_matrix *list, int64_t n, const struct kernels_muon *a)
{
	struct muon_room room;
	size_t bytes = 0;
	char *memory;

	for (int64_t i = 0; i < n; i++) {
		size_t here = (size_t)(uintptr_t)lay(k, &room, &list[i], NULL);

		bytes = here > bytes ? here : bytes;
	}
	if (n == 0)
		return;
	memory = (char *)cuda__room(k, ROOM_MAIN, bytes);
	for (int64_t i = 0; i < n; i++)
		one(k, &list[i], a, memory);
}
