/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash/hash.h"
#include "base/random/random.h"

static uint32_t
chance(uint64_t i)
{
	uint32_t words[4];

	random_words(1, RANDOM_PURPOSE_INIT, i, 0, 0, words);
	return words[0];
}

static int
ascending(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

	return (x > y) - (x < y);
}

/* Makes labels like those of a teacher: per token about a dozen ids from 50 draws. */
static void
fill_labels(struct bench_train *t)
{
	int64_t rows = t->plain.n_rows * t->shape->tokens, at = 0, v = t->shape->config.vocab_size;

	for (int64_t m = 0; m < rows; m++) {
		int64_t first = at, n = 8 + chance((uint64_t)m) % 9;

		t->offsets[m] = at;
		for (int64_t i = 0; i < n; i++)
			t->ids[first + i] = (int32_t)(chance((uint64_t)(m * 64 + i + 1)) % (uint64_t)v);
		qsort(t->ids + first, (size_t)n, sizeof(t->ids[0]), ascending);
		for (int64_t i = 0; i < n; i++)
			if (i == 0 || t->ids[first + i] != t->ids[at - 1])
				t->ids[at++] = t->ids[first + i];
		for (int64_t i = first; i < at; i++)
			t->values[i] = 1.0f / (float)(at - first);
	}
	t->offsets[rows] = at;
}

void
bench_train_open(struct bench_train *t, const struct bench_shape *shape, struct comm *comm,
    const struct kernels_options *compute, enum optim_kind kind, int64_t documents)
{
	const struct step_options so = {.context = shape->tokens, .batch = shape->batch, .micro_batch = shape->micro_batch,
	    .lanes = shape->lanes, .deterministic = true, .optim = {.kind = kind, .lr = 1e-4f, .steps = 1000, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
	    .weight_decay = 0.1f, .clip = 1}, .residual = KERNELS_RESIDUAL_TRUE_TOKEN, .isolate_documents = documents > 0};
	int64_t batch = shape->batch / comm_size(comm);
	size_t n_tokens = (size_t)(batch * (shape->tokens + 1)), rows = (size_t)(batch * shape->tokens);
	struct err_note note = {.name = ""};
	int rc;

	memset(t, 0, sizeof(*t));
	t->shape = shape;
	t->comm = comm;
	if ((rc = kernels_new(&t->kernels, compute, &note)) != 0 ||
	    (rc = step_new(&t->step, &shape->config, t->kernels, t->comm, &so, &note)) != 0 ||
	    (rc = step_init(t->step, 1, &note)) != 0)
		bench_fail(shape->name, rc, &note);
	step_spread(t->step);
	t->tokens = bench_need(calloc(n_tokens, sizeof(t->tokens[0])));
	t->weight = bench_need(calloc((size_t)batch, sizeof(t->weight[0])));
	t->offsets = bench_need(calloc(rows + 1, sizeof(t->offsets[0])));
	t->ids = bench_need(calloc(rows * 16, sizeof(t->ids[0])));
	t->values = bench_need(calloc(rows * 16, sizeof(t->values[0])));
	for (size_t i = 0; i < n_tokens; i++)
		t->tokens[i] = documents > 0 && chance(i + n_tokens) % (uint64_t)documents == 0 ? 0 :
		    (int32_t)(chance(i) % (uint64_t)shape->config.vocab_size);
	for (int64_t i = 0; i < batch; i++)
		t->weight[i] = 0.667f;
	t->plain = (struct step_rows){.n_rows = batch, .tokens = t->tokens};
	t->kd = (struct step_rows){.n_rows = batch, .tokens = t->tokens, .weight = t->weight, .offsets = t->offsets, .ids = t->ids,
	    .values = t->values};
	fill_labels(t);
}

void
bench_train_close(struct bench_train *t)
{
	step_destroy(&t->step);
	kernels_destroy(&t->kernels);
	free(t->tokens);
	free(t->weight);
	free(t->offsets);
	free(t->ids);
	free(t->values);
}

double
bench_train_once(struct bench_train *t, const struct step_rows *rows)
{
	struct step_result result;
	double start = bench_now();

	step_run(t->step, rows, 1e-4f, ++t->updates, &result);
	if (!isfinite(result.loss) || result.skipped) {
		fprintf(stderr, "bench: a step that is not finite says nothing\n");
		exit(70);
	}
	t->loss = result.loss;
	return bench_now() - start;
}

void
bench_barrier(struct comm *comm)
{
	double nothing = 0;

	comm_sum(comm, &nothing, 1);
}
