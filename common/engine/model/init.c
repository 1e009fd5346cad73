/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init - initial values of the parameters, and loading them.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/hash/hash.h"
#include "base/mem/mem.h"
#include "base/random/random.h"
#include "engine/model/model.h"

/* The four values of elements 4g .. 4g+3 of a tensor. */
static void
normal_group(uint32_t seed, int tensor, uint64_t group, float out[4])
{
	uint32_t words[4];

	random_words(seed, RANDOM_PURPOSE_INIT, (uint64_t)tensor, (uint32_t)group, (uint32_t)(group >> 32), words);
	random_normal(words[0], words[1], &out[0]);
	random_normal(words[2], words[3], &out[2]);
}

static void
init_tensor(uint32_t seed, int number, const struct model_tensor *t, int64_t begin, int64_t end, float *out)
{
	float group[4];

	for (int64_t e = begin; e < end; e++) {
		if (t->init_std == 0) {
			*out++ = t->init_value;
			continue;
		}
		if (e == begin || (e & 3) == 0)
			normal_group(seed, number, (uint64_t)e >> 2, group);
		*out++ = t->init_std * group[e & 3];
	}
}

#define PIECE (1 << 16)		/* elements a thread takes at a time; a multiple of a group */

void
model_init(const struct model *model, uint32_t seed, int64_t begin, int64_t end, float *out)
{
	for (int i = 0; i < model->n_tensors; i++) {
		const struct model_tensor *t = &model->tensors[i];
		int64_t from = (begin > t->offset ? begin : t->offset) - t->offset;
		int64_t to = (end < t->offset + t->n_elements ? end : t->offset + t->n_elements) - t->offset;

		/* In parallel: a model of 135M takes seconds on one thread. */
#pragma omp parallel for schedule(static) if (to - from > PIECE)
		for (int64_t piece = from / PIECE; piece < (to + PIECE - 1) / PIECE; piece++) {
			int64_t at = piece * PIECE > from ? piece * PIECE : from, stop = (piece + 1) * PIECE < to ? (piece + 1) * PIECE : to;

			init_tensor(seed, i, t, at, stop, out + (t->offset + at - begin));
		}
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
	rc = 0;
out:
	kernels_free(kernels, wide);
	free(piece);
	return rc;
}
