#include "kernels/internal.h"

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

void
kernels_linear(struct kernels *k, struct tensor *y, const struct tensor *x, const struct tensor *w, const struct tensor *b,
    enum kernels_layout layout, bool add)
{
	int64_t m = kernels__rows(x), in = kernels__cols(x), out = kernels__cols(y);
	bool out_in = layout == KERNELS_OUT_IN;

	kernels__shape(kernels__rows(y) == m && w->n_dims == 2 && w->dims[out_in ? 0 : 1] == out && w->dims[out_in ? 1 : 0] == in &&
	    (b == NULL || b->data == NULL || kernels__cols(b) == out), "linear");
	kernels__sgemm_parts(k, false, out_in, m, out, in, 1, kernels__f32(x), in, kernels__f32(w), out_in ? in : out, add ? 1 : 0,
	    kernels__f32(y), out, b != NULL ? kernels__f32(b) : NULL);
}

void
kernels_linear_bwd_x(struct kernels *k, struct tensor *d_x, const struct tensor *d_y, const struct tensor *w,
    enum kernels_layout layout, bool add)
{
	int64_t m = kernels__rows(d_y), in = kernels__cols(d_x), out = kernels__cols(d_y);
	bool out_in = layout == KERNELS_OUT_IN;

	kernels__shape(kernels__rows(d_x) == m && w->n_dims == 2 && w->dims[out_in ? 0 : 1] == out && w->dims[out_in ? 1 : 0] == in,
	    "linear_bwd_x");
	kernels__sgemm_parts(k, false, !out_in, m, in, out, 1, kernels__f32(d_y), out, kernels__f32(w), out_in ? in : out, add ? 1 : 0,
	    kernels__f32(d_x), in, NULL);
}

/* Column sums of x [m, n] added to sums: blocks of rows first, then the blocks in order. */
static void
add_column_sums(struct kernels *k, float *sums, const float *x, int64_t m, int64_t n)
{
	int64_t blocks = (m + KERNELS_ROW_BLOCK - 1) / KERNELS_ROW_BLOCK;
	float *partial = kernels__scratch(k, (size_t)blocks * (size_t)n);

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * n > k->small)
	for (int64_t block = 0; block < blocks; block++) {
		int64_t begin = block * KERNELS_ROW_BLOCK, end = begin + KERNELS_ROW_BLOCK < m ? begin + KERNELS_ROW_BLOCK : m;
		float *p = partial + block * n;

		memcpy(p, x + begin * n, (size_t)n * sizeof(float));
		for (int64_t i = begin + 1; i < end; i++)
			k->vec->add(p, p, x + i * n, n);
	}
	for (int64_t block = 0; block < blocks; block++)
		k->vec->add(sums, sums, partial + block * n, n);
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
		kernels__sgemm_parts(k, true, false, out, in, m, 1, kernels__f32(d_y), out, kernels__f32(x), in, 1, kernels__f32(d_w), in,
		    NULL);
	else
		kernels__sgemm_parts(k, true, false, in, out, m, 1, kernels__f32(x), in, kernels__f32(d_y), out, 1, kernels__f32(d_w), out,
		    NULL);
	if (d_b != NULL && d_b->data != NULL)
		add_column_sums(k, kernels__f32(d_b), kernels__f32(d_y), m, out);
}
