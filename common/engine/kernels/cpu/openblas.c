/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openblas - matrix products by OpenBLAS, and the backend that consists of them and the shared kernels.
 */
#include "engine/kernels/cpu/cpu.h"

#include <cblas.h>
#include <limits.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpus/cpus.h"

/* Approximate multiply-adds per part; maximum number of parts of a matrix; shortest side of a part. */
#define PART_WORK (64 << 20)
#define PARTS_MAX 256
#define PART_SIDE 64
/* Sides of parts are multiples of this, which is a multiple of the register tile of every SGEMM kernel. */
#define PART_UNIT 16

void
cpu__sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
    const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
	int threads = omp_get_max_threads();

	kernels__shape(m <= INT_MAX && n <= INT_MAX && k <= INT_MAX && lda <= INT_MAX && ldb <= INT_MAX &&
		ldc <= INT_MAX,
	    "sgemm");
	/* OpenBLAS's OpenMP build uses the calling thread's team size; the setting affects this thread only. */
	if (threads != 1)
		omp_set_num_threads(1);
	cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans, trans_b ? CblasTrans : CblasNoTrans,
	    (int)m, (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
	if (threads != 1)
		omp_set_num_threads(threads);
}

/* Parts along each side: the longer side of a part is halved until parts are small, or many, enough. */
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

static void
matmul_f32(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, const float *bias, bool add)
{
	int64_t pm, pn;

	if (m == 0 || n == 0)
		return;
	cut(m, n, k, &pm, &pn);
#pragma omp parallel for num_threads(ctx->threads) schedule(dynamic) if (ctx->threads > 1 && pm * pn > 1)
	for (int64_t part = 0; part < pm * pn; part++) {
		int64_t m0 = edge(m, pm, part / pn), m1 = edge(m, pm, part / pn + 1);
		int64_t n0 = edge(n, pn, part % pn), n1 = edge(n, pn, part % pn + 1);
		float *out = (float *)c->data + m0 * c->ld + n0;

		for (int64_t i = 0; i < m1 - m0 && bias != NULL; i++) {
			float *row = out + i * c->ld;

			if (add)
				ctx->vec->add(row, row, bias + n0, n1 - n0);
			else
				memcpy(row, bias + n0, (size_t)(n1 - n0) * sizeof(float));
		}
		cpu__sgemm(a->trans, b->trans, m1 - m0, n1 - n0, k, 1,
		    (float *)a->data + (a->trans ? m0 : m0 * a->ld), a->ld,
		    (float *)b->data + (b->trans ? n0 * b->ld : n0), b->ld, add || bias != NULL ? 1 : 0, out,
		    c->ld);
	}
}

/*
 * bf16 on OpenBLAS: panels of both operands, PANEL of the inner dimension at a time, are widened into the
 * thread's buffer and multiplied in fp32. A product of two bf16 numbers is exact in fp32, so the result
 * equals that of bf16 units up to the order of sums.
 */
#define PANEL 512

/* Rows from r0 on and columns from c0 on of a stored matrix as fp32; *ld: row length of the result. */
static const float *
block_f32(const struct kernels *k, const struct kernels__matrix *x, int64_t r0, int64_t rows, int64_t c0,
    int64_t cols, float *buf, int64_t *ld)
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

/* Sets the initial sums of a part: C, bias, or both. Returns false, without sums, if there is neither. */
static bool
part_start(const struct kernels *k, float *sums, int64_t ld, const struct kernels__matrix *c,
    const struct tensor *bias, bool add, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *buf)
{
	int64_t n = n1 - n0;
	const float *b;

	if (add && c->dtype == DTYPE_BF16)
		for (int64_t i = m0; i < m1; i++)
			k->vec->widen(sums + (i - m0) * ld, (const uint16_t *)c->data + i * c->ld + n0, n);
	if (bias == NULL)
		return add;
	b = cpu__read(k, bias->data, bias->dtype, n0, n, buf);
	for (int64_t i = 0; i < m1 - m0; i++) {
		if (add)
			k->vec->add(sums + i * ld, sums + i * ld, b, n);
		else
			memcpy(sums + i * ld, b, (size_t)n * sizeof(float));
	}
	return true;
}

static void
matmul_widened(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, const struct tensor *bias, bool add)
{
	int64_t pm, pn, side_m, side_n, depth = k < PANEL ? k : PANEL, room;
	float *rooms;

	if (m == 0 || n == 0)
		return;
	cut(m, n, k, &pm, &pn);
	side_m = (m + pm - 1) / pm + 2 * PART_UNIT;
	side_n = (n + pn - 1) / pn + 2 * PART_UNIT;
	room = ((side_m + side_n) * depth + side_m * side_n + 15) / 16 * 16;
	rooms = cpu__panels(ctx, (size_t)ctx->threads * (size_t)room);
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
			const float *pa = a->trans ? block_f32(ctx, a, at, len, m0, mn, mine, &lda) :
						     block_f32(ctx, a, m0, mn, at, len, mine, &lda);
			const float *pb = b->trans ? block_f32(ctx, b, n0, nn, at, len, mine_b, &ldb) :
			    block_f32(ctx, b, at, len, n0, nn, mine_b, &ldb);

			cpu__sgemm(a->trans, b->trans, mn, nn, len, 1, pa, lda, pb, ldb, started ? 1 : 0, sums, ldc);
			started = true;
		}
		if (c->dtype == DTYPE_BF16)
			for (int64_t i = 0; i < mn; i++)
				ctx->vec->narrow((uint16_t *)c->data + (m0 + i) * c->ld + n0, sums + i * ldc, nn);
	}
}

static void
matmul(struct kernels *ctx, int64_t m, int64_t n, int64_t k, const struct kernels__matrix *a,
    const struct kernels__matrix *b, const struct kernels__matrix *c, const struct tensor *bias, bool add)
{
	if (ctx->dtype == DTYPE_F32)
		matmul_f32(ctx, m, n, k, a, b, c, bias != NULL ? bias->data : NULL, add);
	else
		matmul_widened(ctx, m, n, k, a, b, c, bias, add);
}

/* ---- opening and closing a kernels handle ---- */

static pthread_once_t openblas_once = PTHREAD_ONCE_INIT;

/*
 * OpenBLAS always runs on one thread; the handle's threads take parts of a product. Its number of threads is
 * global to the process, so it is set once, before the first call. The setter also changes OpenMP's number of
 * threads, which is restored.
 */
static void
openblas_start(void)
{
	int threads = omp_get_max_threads();

	openblas_set_num_threads(1);
	omp_set_num_threads(threads);
}

static const struct vec *
pick_vec(void)
{
#ifdef SALT_VEC_X86
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
	    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
		return &vec_avx512;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		return &vec_haswell;
#endif
	return &vec_base;
}

int
cpu__open(struct kernels *k, const struct kernels_options *options, struct err_note *note)
{
	if (openblas_get_parallel() != OPENBLAS_OPENMP)
		return err_expect(note, ERR_LIBRARY, "OpenBLAS", "its OpenMP build (libopenblas-openmp-dev)",
		    "the %s build",
		    openblas_get_parallel() == OPENBLAS_SEQUENTIAL ? "sequential" : "pthread");
	pthread_once(&openblas_once, openblas_start);
	k->small = CPU__SMALL;
	k->threads = options->threads > 0 ? options->threads : cpus_here();
	k->vec = pick_vec();
	return 0;
}

void
cpu__describe(struct kernels *k, const char *library, const char *version, const char *units)
{
	snprintf(k->describe, sizeof(k->describe), "%s %s %.20s %s, %s loops, %d thread%s", library, version,
	    units, dtype_name(k->dtype), k->vec->name, k->threads, k->threads == 1 ? "" : "s");
}

void
cpu__close(struct kernels *k)
{
	float *rooms[] = {k->scratch, k->panels, k->packed};

	for (int i = 0; i < 3; i++)
		if (rooms[i] != NULL)
			cpu__free(k, rooms[i]);
	for (int i = 0; i < 2; i++) {
		free(k->ropes[i].table);
		free(k->ropes[i].freq);
	}
}

static int
openblas_open(struct kernels *k, const struct kernels_options *options, struct err_note *note)
{
	char version[24] = "";
	int rc;

	if ((rc = cpu__open(k, options, note)) != 0)
		return rc;
	sscanf(openblas_get_config(), "OpenBLAS %23s", version);
	cpu__describe(k, "OpenBLAS", version, openblas_get_corename());
	return 0;
}

const struct kernels_ops kernels__openblas = {
	CPU__OPS,
	.open = openblas_open,
	.close = cpu__close,
	.matmul = matmul,
	.attention = cpu__attention,
	.attention_bwd = cpu__attention_bwd,
	.adamw = cpu__adamw,
	.muon = cpu__muon,
};
