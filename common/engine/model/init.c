/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init - initial values of the parameters, and loading them.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cpus/cpus.h"
#include "base/hash/hash.h"
#include "base/mem/mem.h"
#include "base/random/random.h"
#include "engine/model/model.h"

#define GROUPS 64		/* groups made at a time; a group is the four values of elements 4g .. 4g+3 of
				 * a tensor */

static void
init_tensor(uint32_t seed, int number, const struct model_tensor *t, int64_t begin, int64_t end, float *out)
{
	float values[4 * GROUPS];

	if (t->init_std == 0) {
		for (int64_t e = begin; e < end; e++)
			*out++ = t->init_value;
		return;
	}
	for (int64_t at = begin & ~INT64_C(3); at < end; at += 4 * GROUPS) {
		int64_t n = end - at < 4 * GROUPS ? end - at : 4 * GROUPS;

		random_normals(seed, RANDOM_PURPOSE_INIT, (uint64_t)number, (uint64_t)at >> 2, (size_t)(n + 3) / 4, values);
		for (int64_t i = at < begin ? begin - at : 0; i < n; i++)
			*out++ = t->init_std * values[i];
	}
}

/* Elements that a thread takes at a time: 2 MiB, a huge page, so that two threads seldom create the same page. */
#define PIECE (1 << 19)

static void
init_range(const struct model *model, uint32_t seed, int64_t begin, int64_t end, float *out)
{
	for (int i = 0; i < model->n_tensors; i++) {
		const struct model_tensor *t = &model->tensors[i];
		int64_t from = begin > t->offset ? begin : t->offset;
		int64_t to = end < t->offset + t->n_elements ? end : t->offset + t->n_elements;

		if (from < to)
			init_tensor(seed, i, t, from - t->offset, to - t->offset, out + (from - begin));
	}
}

void
model_init(const struct model *model, uint32_t seed, int64_t begin, int64_t end, float *out)
{
	int threads = cpus_here();

	/* In parallel: one thread takes seconds for a model of 135M parameters. */
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (end - begin > PIECE)
	for (int64_t piece = begin / PIECE; piece < (end + PIECE - 1) / PIECE; piece++) {
		int64_t from = piece * PIECE > begin ? piece * PIECE : begin;
		int64_t to = (piece + 1) * PIECE < end ? (piece + 1) * PIECE : end;

		init_range(model, seed, from, to, out + (from - begin));
	}
}

#define LOAD_PIECE (1 << 22)

int
model_load(const struct model *model, struct kernels *kernels, void *params,
    int (*get)(void *arg, uint64_t begin, uint64_t end, float *out, struct err_note *note), void *arg, struct err_note *note)
{
	enum dtype dtype = kernels_dtype(kernels);
	uint64_t n = (uint64_t)model->n_params;
	float *piece = NULL, *wide = NULL;
	int rc = ENOMEM;

	if ((piece = mem_alloc(n < LOAD_PIECE ? (size_t)n : LOAD_PIECE, sizeof(float))) == NULL ||
	    (wide = kernels_alloc(kernels, (n < LOAD_PIECE ? (size_t)n : LOAD_PIECE) * sizeof(float))) == NULL) {
		err_note_set(note, ENOMEM, "parameters");
		goto out;
	}
	for (uint64_t begin = 0; begin < n; begin += LOAD_PIECE) {
		uint64_t end = n - begin < LOAD_PIECE ? n : begin + LOAD_PIECE;

		if ((rc = get(arg, begin, end, piece, note)) != 0)
			goto out;
		kernels_upload(kernels, wide, piece, (size_t)(end - begin) * sizeof(float));
		kernels_convert(kernels, (char *)params + (size_t)begin * dtype_size(dtype), dtype, wide, DTYPE_F32, (int64_t)(end - begin));
	}
	kernels_sync(kernels);		/* other kernels handles may read them now */
	rc = 0;
out:
	kernels_free(kernels, wide);
	free(piece);
	return rc;
}
