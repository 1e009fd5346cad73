/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul - products by cuBLASLt, which only this file uses. The algorithm is the first one that the library's
 * heuristic returns for a shape and an alignment; nothing is timed. Partial sums, if the library makes them,
 * are fp32.
 */
#include <cublasLt.h>
#include <stdlib.h>

#include "engine/kernels/cuda/cuda.h"
#include "engine/kernels/cuda/limits.h"
extern "C" {
#include "base/err/err.h"
}

#define THREADS 256
#define BIAS_BLOCKS 2048

static void
check(cublasStatus_t rc, const char *what)
{
	if (rc != CUBLAS_STATUS_SUCCESS)
		log_fatal("kernels.cublas", "call=\"%s\" status=%d", what, (int)rc);
}
#define LT(call) check((call), #call)

size_t
cuda__matmul_version()
{
	return cublasLtGetVersion();
}

int
cuda__matmul_open(struct kernels *k, struct err_note *note)
{
	cublasStatus_t rc = cublasLtCreate((cublasLtHandle_t *)&cuda_of(k)->lt);

	if (rc != CUBLAS_STATUS_SUCCESS)
		return err_expect(note, ERR_LIBRARY, "cuBLASLt", "a handle", "status %d", (int)rc);
	return 0;
}

void
cuda__matmul_close(struct kernels *k)
{
	if (cuda_of(k)->lt != NULL)
		cublasLtDestroy((cublasLtHandle_t)cuda_of(k)->lt);
}

/* A row-major [rows, cols] matrix is a column-major cols x rows matrix for the library. */
static cublasLtMatrixLayout_t
layout_of(enum dtype dtype, int64_t rows, int64_t cols, int64_t ld)
{
	cublasLtMatrixLayout_t layout;

	LT(cublasLtMatrixLayoutCreate(&layout, dtype == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F, (uint64_t)cols, (uint64_t)rows, ld));
	return layout;
}

/* The largest power of two, up to 256, that divides an address. */
static uint32_t
alignment_of(const void *p)
{
	uint32_t n = 256;

	while ((uintptr_t)p % n != 0)
		n /= 2;
	return n;
}

static void
prefer(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t name, uint32_t value)
{
	LT(cublasLtMatmulPreferenceSetAttribute(p, name, &value, sizeof(value)));
}

static void
describe(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t name, int32_t value)
{
	LT(cublasLtMatmulDescSetAttribute(d, name, &value, sizeof(value)));
}

/* c += bias, for products that do not add it themselves. A thread has four columns of every gridDim.x-th row. */
__global__ static void
add_bias(struct view c, int64_t ld, struct view bias, int64_t m, int64_t n)
{
	int64_t j = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * QUAD;
	struct quad b;

	if (j >= n)
		return;
	b = get_quad(bias, j, n - j);
	for (int64_t r = blockIdx.x; r < m; r += gridDim.x) {
		struct quad q = get_quad(c, r * ld + j, n - j);

		for (int e = 0; e < QUAD; e++)
			q.f[e] += b.f[e];
		put_quad(c, r * ld + j, n - j, q);
	}
}

/* The library is column-major, so it computes C^T = op(B)^T op(A)^T, with B as its first operand. */
void
cuda__matmul(struct kernels *k, int64_t m, int64_t n, int64_t inner, const struct kernels__matrix *a, const struct kernels__matrix *b,
    const struct kernels__matrix *c, const struct tensor *bias, bool add)
{
	cublasLtHandle_t lt = (cublasLtHandle_t)cuda_of(k)->lt;
	/* The library's kernels read a bias 16 bytes at a time, and no preference tells them its alignment. */
	bool fused = bias != NULL && bias->dtype == c->dtype && alignment_of(bias->data) >= 16;
	float one = 1, beta = add ? 1 : 0;
	size_t bytes = CUDA_WORKSPACE;
	void *workspace = cuda__room(k, ROOM_PRODUCT, bytes);
	cublasLtMatrixLayout_t la, lb, lc;
	cublasLtMatmulPreference_t preference;
	cublasLtMatmulHeuristicResult_t found;
	cublasLtMatmulDesc_t desc;
	int n_found = 0;

	if (m == 0 || n == 0)
		return;
	LT(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
	describe(desc, CUBLASLT_MATMUL_DESC_TRANSA, b->trans ? CUBLAS_OP_T : CUBLAS_OP_N);
	describe(desc, CUBLASLT_MATMUL_DESC_TRANSB, a->trans ? CUBLAS_OP_T : CUBLAS_OP_N);
	if (fused) {
		describe(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
		describe(desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias->dtype == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F);
		LT(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias->data, sizeof(bias->data)));
	}
	la = layout_of(b->dtype, b->trans ? n : inner, b->trans ? inner : n, b->ld);
	lb = layout_of(a->dtype, a->trans ? inner : m, a->trans ? m : inner, a->ld);
	lc = layout_of(c->dtype, m, n, c->ld);
	LT(cublasLtMatmulPreferenceCreate(&preference));
	LT(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes)));
	prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
	prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(b->data));
	prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(a->data));
	prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(c->data));
	prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(c->data));
	LT(cublasLtMatmulAlgoGetHeuristic(lt, desc, la, lb, lc, lc, preference, 1, &found, &n_found));
	if (n_found == 0)
		log_fatal("kernels.cublas", "call=cublasLtMatmulAlgoGetHeuristic m=%lld n=%lld k=%lld algorithms=none", (long long)m, (long long)n,
		    (long long)inner);
	LT(cublasLtMatmul(lt, desc, &one, b->data, la, a->data, lb, &beta, c->data, lc, c->data, lc, &found.algo, workspace, bytes,
	    cuda_of(k)->stream));
	cublasLtMatmulPreferenceDestroy(preference);
	cublasLtMatrixLayoutDestroy(la);
	cublasLtMatrixLayoutDestroy(lb);
	cublasLtMatrixLayoutDestroy(lc);
	cublasLtMatmulDescDestroy(desc);
	if (bias != NULL && !fused)
		CUDA_RUN(k, add_bias, dim3((unsigned)(m < BIAS_BLOCKS ? m : BIAS_BLOCKS), cuda_blocks(n, THREADS * QUAD)), THREADS,
		    view_of(c->data, c->dtype, c->ld), c->ld, view_of(bias->data, bias->dtype, 0), m, n);
}
