#include "engine/kernels/kernels_internal.h"

#include <cblas.h>
#include <limits.h>
#include <omp.h>
#include <string.h>

/* A part has about this many multiply-adds, a matrix at most so many parts, and no side of a part goes below this. */
#define PART_WORK (64 << 20)
#define PARTS_MAX 256
#define PART_SIDE 64
/* Sides of parts are multiples of this: the register tile of every SGEMM kernel divides it. */
#define PART_UNIT 16

void
kernels__sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
    const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
	int threads = omp_get_max_threads();

	kernels__shape(m <= INT_MAX && n <= INT_MAX && k <= INT_MAX && lda <= INT_MAX && ldb <= INT_MAX && ldc <= INT_MAX, "sgemm");
	/* OpenBLAS's OpenMP build asks for the calling thread's team size; the setting belongs to this thread alone. */
	if (threads != 1)
		omp_set_num_threads(1);
	cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans, trans_b ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k,
	    alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
	if (threads != 1)
		omp_set_num_threads(threads);
}

/* How often each side is cut: the longer side of a part is halved until parts are small enough, or enough. */
static void
cut(int64_t m, int64_t n, int64_t k, int64_t *parts_m, int64_t *parts_n)
{
	int64_t pm = 1, pn = 1;

	for (;;) {
		int64_t side_m = m / pm, side_n = n / pn;

		if (pm * pn >= PARTS_MAX || side_m * side_n <= 2 * PART_WORK / (k > 0 ? k : 1))
			break;
		if (side_m >= side_n && side_m >= 2 * PART_SIDE)
			pm *= 2;
		else if (side_n >= 2 * PART_SIDE)
			pn *= 2;
		else if (side_m >= 2 * PART_SIDE)
			pm *= 2;
		else
			break;
	}
	*parts_m = pm;
	*parts_n = pn;
}

static int64_t
edge(int64_t size, int64_t parts, int64_t i)
{
	int64_t units = (size + PART_UNIT - 1) / PART_UNIT, at = units * i / parts * PART_UNIT;

	return at < size ? at : size;
}

void
kernels__sgemm_parts(struct kernels *ctx, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
    const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc, const float *bias)
{
	int64_t pm, pn;

	if (m == 0 || n == 0)
		return;
	cut(m, n, k, &pm, &pn);
#pragma omp parallel for num_threads(ctx->threads) schedule(dynamic) if (ctx->threads > 1 && pm * pn > 1)
	for (int64_t part = 0; part < pm * pn; part++) {
		int64_t m0 = edge(m, pm, part / pn), m1 = edge(m, pm, part / pn + 1);
		int64_t n0 = edge(n, pn, part % pn), n1 = edge(n, pn, part % pn + 1);
		float *out = c + m0 * ldc + n0, beta_here = beta;

		if (bias != NULL) {
			for (int64_t i = 0; i < m1 - m0; i++) {
				float *row = out + i * ldc;

				if (beta == 0)
					memcpy(row, bias + n0, (size_t)(n1 - n0) * sizeof(float));
				else
					ctx->vec->add(row, row, bias + n0, n1 - n0);
			}
			beta_here = 1;
		}
		kernels__sgemm(trans_a, trans_b, m1 - m0, n1 - n0, k, alpha, trans_a ? a + m0 : a + m0 * lda, lda,
		    trans_b ? b + n0 * ldb : b + n0, ldb, beta_here, out, ldc);
	}
}

/*
 * bf16 on OpenBLAS. Panels of both operands, PANEL of the inner dimension at a time, are widened into a thread's own room and multiplied
 * in fp32 into the part's sums: a product of two bf16 numbers is exact in fp32, so this is what bf16 units compute, up to the order of sums.
 */
#define PANEL 512

/* Rows r0.. and columns c0.. of a matrix as it lies in memory, as fp32; *ld: the row length of what is returned. */
static const float *
block_f32(const struct kernels *k, const struct kernels__matrix *x, int64_t r0, int64_t rows, int64_t c0, int64_t cols, float *buf,
    int64_t *ld)
{
	if (x->dtype == DTYPE_F32) {
		*ld = x->ld;
		return (const float *)x->data + r0 * x->ld + c0;
	}
	*ld = cols;
	for (int64_t i = 0; i < rows; i++)
		k->vec->widen(buf + i * cols, (const uint16_t *)x->data + (r0 + i) * x->ld + c0, cols);
	return buf;
}

/* The sums of a part before anything is multiplied: what C holds, bias, both, or nothing (returns false: not filled). */
static bool
part_start(const struct kernels *k, float *sums, int64_t ld, const struct kernels__matrix *c, const struct tensor *bias, bool add,
    int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *buf)
{
	int64_t n = n1 - n0;
	const float *b;

	if (add && c->dtype == DTYPE_BF16)
		for (int64_t i = m0; i < m1; i++)
			k->vec->widen(sums + (i - m0) * ld, (const uint16_t *)c->data + i * c->ld + n0, n);
	if (bias == NULL || bias->data == NULL)
		return add;
	b = kernels__read(k, bias->data, bias->dtype, n0, n, buf);
	for (int64_t i = 0; i < m1 - m0; i++) {
		if (add)
			k->vec->add(sums + i * ld, sums + i * ld, b, n);
		else
			memcpy(sums + i * ld, b, (size_t)n * sizeof(float));
	}
	return true;
}

static void
matmul_widened(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a, const struct kernels__matrix *b,
    const struct kernels__matrix *c, const struct tensor *bias, bool add)
{
	int64_t pm, pn, side_m, side_n, depth = k < PANEL ? k : PANEL, room;
	float *rooms;

	if (m == 0 || n == 0)
		return;
	cut(m, n, k, &pm, &pn);
	side_m = (m + pm - 1) / pm + 2 * PART_UNIT;
	side_n = (n + pn - 1) / pn + 2 * PART_UNIT;
	room = ((side_m + side_n) * depth + side_m * side_n + 15) / 16 * 16;
	rooms = kernels__panels(ctx, (size_t)ctx->threads * (size_t)room);
#pragma omp parallel for num_threads(ctx->threads) schedule(dynamic) if (ctx->threads > 1 && pm * pn > 1)
	for (int64_t part = 0; part < pm * pn; part++) {
		int64_t m0 = edge(m, pm, part / pn), m1 = edge(m, pm, part / pn + 1), mn = m1 - m0;
		int64_t n0 = edge(n, pn, part % pn), n1 = edge(n, pn, part % pn + 1), nn = n1 - n0, lda, ldb, ldc;
		float *mine = rooms + omp_get_thread_num() * room, *mine_b = mine + side_m * depth, *sums;
		bool started;

		sums = c->dtype == DTYPE_F32 ? (float *)c->data + m0 * c->ld + n0 : mine_b + side_n * depth;
		ldc = c->dtype == DTYPE_F32 ? c->ld : nn;
		started = part_start(ctx, sums, ldc, c, bias, add, m0, m1, n0, n1, mine_b);
		for (int64_t at = 0; at < k || (at == 0 && k == 0); at += PANEL) {
			int64_t len = k - at < PANEL ? k - at : PANEL;
			const float *pa = a->trans ? block_f32(ctx, a, at, len, m0, mn, mine, &lda) : block_f32(ctx, a, m0, mn, at, len, mine, &lda);
			const float *pb = b->trans ? block_f32(ctx, b, n0, nn, at, len, mine_b, &ldb) :
			    block_f32(ctx, b, at, len, n0, nn, mine_b, &ldb);

			kernels__sgemm(a->trans, b->trans, mn, nn, len, 1, pa, lda, pb, ldb, started ? 1 : 0, sums, ldc);
			started = true;
		}
		if (c->dtype == DTYPE_BF16)
			for (int64_t i = 0; i < mn; i++)
				ctx->vec->narrow((uint16_t *)c->data + (m0 + i) * c->ld + n0, sums + i * ldc, nn);
	}
}

void
kernels__matmul(struct kernels *ctx, int64_t m, int64_t n, int64_t k, struct kernels__matrix a, struct kernels__matrix b,
    struct kernels__matrix c, const struct tensor *bias, bool add)
{
	kernels__shape(a.dtype == ctx->dtype && b.dtype == ctx->dtype && (c.dtype == ctx->dtype || c.dtype == DTYPE_F32), "matmul: dtype");
	if (ctx->onednn != NULL)
		kernels__onednn_matmul(ctx, m, n, k, &a, &b, &c, bias, add);
	else if (ctx->dtype == DTYPE_F32)
		kernels__sgemm_parts(ctx, a.trans, b.trans, m, n, k, 1, a.data, a.ld, b.data, b.ld, add ? 1 : 0, c.data, c.ld,
		    bias != NULL ? bias->data : NULL);
	else
		matmul_widened(ctx, m, n, k, &a, &b, &c, bias, add);
}

static struct kernels__matrix
matrix(const struct tensor *t, int64_t ld, bool trans)
{
	return (struct kernels__matrix){t->data, t->dtype, ld, trans, false};
}

void
kernels_linear(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *w, const struct tensor *b,
    enum kernels_layout layout, bool add)
{
	int64_t m = kernels__rows(x), in = kernels__cols(x), out = kernels__cols(y);
	bool out_in = layout == KERNELS_OUT_IN;
	struct kernels__matrix weight = matrix(w, out_in ? in : out, out_in);

	weight.keep = true;
	kernels__shape(kernels__rows(y) == m && w->n_dims == 2 && w->dims[out_in ? 0 : 1] == out && w->dims[out_in ? 1 : 0] == in &&
	    (b == NULL || b->data == NULL || kernels__cols(b) == out), "linear");
	kernels__matmul(k, m, out, in, matrix(x, in, false), weight, matrix(y, out, false), b, add);
}

void
kernels_linear_bwd_x(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *w,
    enum kernels_layout layout, bool add)
{
	int64_t m = kernels__rows(d_y), in = kernels__cols(d_x), out = kernels__cols(d_y);
	bool out_in = layout == KERNELS_OUT_IN;

	kernels__shape(kernels__rows(d_x) == m && w->n_dims == 2 && w->dims[out_in ? 0 : 1] == out && w->dims[out_in ? 1 : 0] == in,
	    "linear_bwd_x");
	kernels__matmul(k, m, in, out, matrix(d_y, out, false), matrix(w, out_in ? in : out, !out_in), matrix(d_x, in, false), NULL, add);
}

/* Column sums of x [m, n] added to sums: blocks of rows first, then the blocks in order. */
static void
add_column_sums(struct kernels *k, float *sums, const struct tensor *x, int64_t m, int64_t n)
{
	int64_t blocks = (m + KERNELS_ROW_BLOCK - 1) / KERNELS_ROW_BLOCK;
	int64_t width = x->dtype == DTYPE_F32 ? n : 2 * n;	/* the sums of a block, then a row widened */
	float *partial = kernels__scratch(k, (size_t)blocks * (size_t)width);

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * n > k->small)
	for (int64_t block = 0; block < blocks; block++) {
		int64_t begin = block * KERNELS_ROW_BLOCK, end = begin + KERNELS_ROW_BLOCK < m ? begin + KERNELS_ROW_BLOCK : m;
		float *p = partial + block * width;

		memcpy(p, kernels__read(k, x->data, x->dtype, begin * n, n, p + n), (size_t)n * sizeof(float));
		for (int64_t i = begin + 1; i < end; i++)
			k->vec->add(p, p, kernels__read(k, x->data, x->dtype, i * n, n, p + n), n);
	}
	for (int64_t block = 0; block < blocks; block++)
		k->vec->add(sums, sums, partial + block * width, n);
}

void
kernels_linear_bwd_w(struct kernels *k, struct tensor *d_w, struct tensor *d_b, const struct tensor *d_y, const struct tensor *x,
    enum kernels_layout layout)
{
	int64_t m = kernels__rows(d_y), in = kernels__cols(x), out = kernels__cols(d_y);
	bool out_in = layout == KERNELS_OUT_IN;

	kernels__shape(kernels__rows(x) == m && d_w->n_dims == 2 && d_w->dims[out_in ? 0 : 1] == out &&
	    d_w->dims[out_in ? 1 : 0] == in && (d_b == NULL || d_b->data == NULL || kernels__cols(d_b) == out), "linear_bwd_w");
	if (out_in)
		kernels__matmul(k, out, in, m, matrix(d_y, out, true), matrix(x, in, false), matrix(d_w, in, false), NULL, true);
	else
		kernels__matmul(k, in, out, m, matrix(x, in, true), matrix(d_y, out, false), matrix(d_w, out, false), NULL, true);
	if (d_b != NULL && d_b->data != NULL)
		add_column_sums(k, kernels__f32(d_b), d_y, m, out);
}
