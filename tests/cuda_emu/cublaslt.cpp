/* SPDX-License-Identifier: Apache-2.0 */
#include "cublasLt.h"

#include <stdlib.h>

#include <vector>

struct cublaslt_emu_handle {
	int one;
};
struct cublaslt_emu_desc {
	int32_t trans_a, trans_b, epilogue, bias_type;
	const void *bias;
};
struct cublaslt_emu_layout {
	cudaDataType_t type;
	int64_t rows, cols, ld;
};
struct cublaslt_emu_preference {
	uint64_t values[CUBLASLT_EMU_PREFS];
};

/* As the library: a value of another size than the attribute's is an error. */
static cublasStatus_t
assign(void *to, size_t size, const void *value, size_t bytes)
{
	if (size != bytes)
		return CUBLAS_STATUS_INVALID_VALUE;
	memcpy(to, value, bytes);
	return CUBLAS_STATUS_SUCCESS;
}

size_t
cublasLtGetVersion()
{
	return 0;
}

cublasStatus_t
cublasLtCreate(cublasLtHandle_t *lt)
{
	*lt = new cublaslt_emu_handle();
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtDestroy(cublasLtHandle_t lt)
{
	delete lt;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t, cudaDataType_t)
{
	*d = new cublaslt_emu_desc();
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
	delete d;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t name, const void *value, size_t bytes)
{
	int32_t *const words[] = {&d->trans_a, &d->trans_b, &d->epilogue, NULL, &d->bias_type};

	if (name == CUBLASLT_MATMUL_DESC_BIAS_POINTER)
		return assign(&d->bias, sizeof(d->bias), value, bytes);
	return assign(words[name], sizeof(int32_t), value, bytes);
}

cublasStatus_t
cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows, uint64_t cols, int64_t ld)
{
	if (ld < (int64_t)rows)
		return CUBLAS_STATUS_INVALID_VALUE;
	*l = new cublaslt_emu_layout{type, (int64_t)rows, (int64_t)cols, ld};
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
	delete l;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
	*p = new cublaslt_emu_preference();
	for (int i = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES; i < CUBLASLT_EMU_PREFS; i++)
		(*p)->values[i] = 256;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
	delete p;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t name, const void *value, size_t bytes)
{
	return assign(&p->values[name], name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? 8 : 4, value, bytes);
}

/*
 * CUDA_EMU_ALIGNED=N: a product of bf16 operands with more than N multiplications is refused where a matrix's columns, or the numbers in one
 * of them, are no multiple of 16 bytes. A device computes it, on much slower kernels.
 */
static bool
slow(const cublaslt_emu_layout &x)
{
	int64_t size = x.type == CUDA_R_32F ? 4 : 2;

	return x.ld * size % 16 != 0 || x.rows * size % 16 != 0;
}

static bool
refused(const cublaslt_emu_layout &a, const cublaslt_emu_layout &b, const cublaslt_emu_layout &out, int64_t inner)
{
	const char *least = getenv("CUDA_EMU_ALIGNED");

	return least != NULL && a.type == CUDA_R_16BF && out.rows * out.cols * inner > atoll(least) && (slow(a) || slow(b) || slow(out));
}

cublasStatus_t
cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
    cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out, cublasLtMatmulPreference_t p, int, cublasLtMatmulHeuristicResult_t *results, int *found)
{
	int64_t inner = d->trans_a ? a->rows : a->cols;

	*found = 0;
	if (a->type != b->type || c->type != out->type || (a->type == CUDA_R_32F && c->type != CUDA_R_32F) ||
	    (d->trans_a ? a->cols : a->rows) != c->rows || (d->trans_b ? b->rows : b->cols) != c->cols ||
	    (d->trans_b ? b->cols : b->rows) != inner || (d->epilogue == CUBLASLT_EPILOGUE_BIAS && d->bias_type != out->type))
		return CUBLAS_STATUS_NOT_SUPPORTED;
	if (refused(*a, *b, *out, inner))
		return CUBLAS_STATUS_SUCCESS;		/* no algorithm */
	for (int i = 0; i < 4; i++)
		results->algo.alignment[i] = (uint32_t)p->values[CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES + i];
	*found = 1;
	return CUBLAS_STATUS_SUCCESS;
}

static float
number(const void *p, cudaDataType_t type, int64_t i)
{
	uint32_t u;
	float f;

	if (type == CUDA_R_32F)
		return ((const float *)p)[i];
	u = (uint32_t)((const uint16_t *)p)[i] << 16;
	memcpy(&f, &u, sizeof(f));
	return f;
}

static void
store(void *p, cudaDataType_t type, int64_t i, float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	if (type == CUDA_R_32F)
		((float *)p)[i] = f;
	else
		((uint16_t *)p)[i] = (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* Each column by itself: what lies between columns is not the matrix's. */
static void
check_columns(const void *p, const cublaslt_emu_layout &l, bool write)
{
	int64_t size = l.type == CUDA_R_32F ? 4 : 2;

	for (int64_t c = 0; c < l.cols; c++)
		cuda_emu_check_range((const char *)p + c * l.ld * size, (size_t)(l.rows * size), write, "a product of memory that is not allocated");
}

/* op(x) as fp32, [other, inner] row-major. */
static std::vector<float>
gathered(const void *p, const cublaslt_emu_layout &l, bool inner_is_rows)
{
	std::vector<float> out((size_t)(l.rows * l.cols));

	for (int64_t c = 0; c < l.cols; c++)
		for (int64_t r = 0; r < l.rows; r++)
			out[(size_t)(inner_is_rows ? c * l.rows + r : r * l.cols + c)] = number(p, l.type, c * l.ld + r);
	return out;
}

cublasStatus_t
cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha, const void *a, cublasLtMatrixLayout_t la, const void *b,
    cublasLtMatrixLayout_t lb, const void *beta, const void *c, cublasLtMatrixLayout_t lc, void *out, cublasLtMatrixLayout_t lout,
    const cublasLtMatmulAlgo_t *algo, void *, size_t, cudaStream_t s)
{
	const cublaslt_emu_desc d = *desc;
	const cublaslt_emu_layout xa = *la, xb = *lb, xc = *lout;
	float scale = *(const float *)alpha, keep = *(const float *)beta;
	const void *all[4] = {a, b, c, out};

	for (int i = 0; i < 4; i++)
		if ((uintptr_t)all[i] % algo->alignment[i] != 0)
			return CUBLAS_STATUS_INVALID_VALUE;
	/* As kernels of the library that read a bias 16 bytes at a time: none of the preferences says how it is aligned. */
	if (d.epilogue == CUBLASLT_EPILOGUE_BIAS && (uintptr_t)d.bias % 16 != 0)
		return CUBLAS_STATUS_INVALID_VALUE;
	if (c != out || lc->ld != lout->ld)
		return CUBLAS_STATUS_NOT_SUPPORTED;
	cuda_emu_enqueue(s, [=] {
		int64_t inner = d.trans_a ? xa.rows : xa.cols;

		check_columns(a, xa, false);
		check_columns(b, xb, false);
		if (keep != 0)
			check_columns(out, xc, false);
		check_columns(out, xc, true);
		const std::vector<float> fa = gathered(a, xa, d.trans_a), fb = gathered(b, xb, !d.trans_b);
		for (int64_t j = 0; j < xc.cols; j++)
			for (int64_t i = 0; i < xc.rows; i++) {
				double sum = 0;

				for (int64_t k = 0; k < inner; k++)
					sum += (double)fa[(size_t)(i * inner + k)] * (double)fb[(size_t)(j * inner + k)];
				sum = scale * sum + (keep != 0 ? (double)keep * (double)number(out, xc.type, j * xc.ld + i) : 0);
				if (d.epilogue == CUBLASLT_EPILOGUE_BIAS)
					sum += (double)number(d.bias, (cudaDataType_t)d.bias_type, i);
				store(out, xc.type, j * xc.ld + i, (float)sum);
			}
	});
	return CUBLAS_STATUS_SUCCESS;
}
