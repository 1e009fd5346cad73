/* SPDX-License-Identifier: Apache-2.0 */
/* Within a compute class, records do not depend on how sequences are batched and spread over threads. */
#include "engine/infer/infer.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/random/random.h"
#include "check.h"
#include "engine/model/model.h"
#include "engine/weights/weights.h"

enum { VOCAB = 500, N = 7 };

static struct err_note note;
static uint32_t context;
static char dir[] = "/tmp/salt_infer.XXXXXX";

static int
first_values(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *n)
{
	(void)n;
	model_init(arg, 11, (int64_t)begin, (int64_t)(begin + count), out);
	return 0;
}

static void
make_model(enum model_family family)
{
	struct model_config cfg = {.family = family, .vocab_size = VOCAB, .context = 64, .d_model = 96, .n_layers = 2, .n_heads = 3,
	    .n_kv_heads = 3, .head_dim = 32, .d_ff = 200, .norm_eps = 1e-5f, .rope_theta = 10000, .tied = true, .initializer_range = 0.2f,
	    .bos_id = -1, .eos_id = -1};
	struct model *model;

	REQUIRE(model_new(&model, &cfg, &note) == 0);
	REQUIRE(weights_config_save(dir, &cfg, WEIGHTS_F32, NULL, &note) == 0);
	REQUIRE(weights_model_save(dir, model, first_values, model, WEIGHTS_F32, 0, NULL, NULL, &note) == 0);
	model_destroy(&model);
}

/* Computes the n sequences from first on as one job. */
static struct infer_job *
compute(struct infer *in, const struct labels_spec *spec, size_t first, size_t n)
{
	struct infer_job *job = infer_job_new(n, context), *back;

	REQUIRE(job != NULL);
	job->want_score = job->want_label = true;
	job->n_valid = VOCAB;
	job->spec = *spec;
	for (size_t i = 0; i < n; i++) {
		job->rows[i].seq = 100 + first + i;
		for (uint32_t t = 0; t <= context; t++) {
			uint32_t w[4];

			random_words(5, RANDOM_PURPOSE_GENERATE, first + i, t, 0, w);
			job->tokens[i * (context + 1) + t] = (int32_t)(w[0] % VOCAB);
		}
	}
	REQUIRE(infer_check(in, job, &note) == 0);
	infer_submit(in, job);
	while ((back = infer_finished(in)) == NULL)
		usleep(1000);
	CHECK(back == job);
	return job;
}

static void
same_records(enum kernels_dtype dtype, const struct labels_spec *spec)
{
	static const int ways[][2] = {{1, 2}, {3, 1}, {7, 1}, {16, 2}, {2, 2}};	/* batch, threads */
	struct infer_options o = {.kernels = {.dtype = dtype}, .threads = 1, .batch = 1};
	struct infer_job *alone[N], *all;
	struct infer *in;
	char what[64];

	REQUIRE(infer_new(&in, &o, &note) == 0 && infer_add_model(in, dir, true, true, &note) == 0);
	for (size_t i = 0; i < N; i++)
		alone[i] = compute(in, spec, i, 1);
	infer_destroy(&in);
	for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
		snprintf(what, sizeof(what), "L %u kind %d batch %d threads %d", context, (int)spec->kind, ways[w][0], ways[w][1]);
		o.batch = ways[w][0];
		o.threads = ways[w][1];
		REQUIRE(infer_new(&in, &o, &note) == 0 && infer_add_model(in, dir, true, true, &note) == 0);
		all = compute(in, spec, 0, N);
		for (size_t i = 0; i < N; i++) {
			const struct infer_row *a = &alone[i]->rows[0], *b = &all->rows[i];

			CHECK_ROW(what, a->error[0] == '\0' && b->error[0] == '\0');
			REQUIRE(a->scores != NULL && b->scores != NULL && a->label.len > 0);
			CHECK_ROW(what, memcmp(a->scores, b->scores, (size_t)context * LABELS_SCORE_BYTES) == 0);
			CHECK_ROW(what, a->label.len == b->label.len && memcmp(a->label.bytes, b->label.bytes, a->label.len) == 0);
		}
		CHECK(infer_progress(in) == N && infer_jobs(in) == 0);
		infer_job_free(&all);
		infer_destroy(&in);
	}
	for (size_t i = 0; i < N; i++)
		infer_job_free(&alone[i]);
}

int
main(void)
{
	/* With short contexts a product's bits may depend on its rows (AVX-512, OpenBLAS 0.3.21). */
	static const uint32_t contexts[] = {1, 3, 7, 40};
	uint8_t codes[VOCAB];
	struct labels_unigram *u;
	struct labels_spec sampled = {.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .vocab = VOCAB,
	    .n_samples = 20, .seed = 3, .tau = 0.7}, topk = sampled, dense = sampled;
	char command[64];

	memset(codes, 8, sizeof(codes));
	REQUIRE(mkdtemp(dir) != NULL && labels_unigram_new(&u, codes, VOCAB, &note) == 0);
	sampled.unigram = u;
	topk.kind = LABELS_KIND_TOPK;
	topk.k = 9;
	dense.kind = LABELS_KIND_DENSE;
	make_model(MODEL_FAMILY_LLAMA);
	for (size_t i = 0; i < sizeof(contexts) / sizeof(contexts[0]); i++) {
		context = sampled.context = topk.context = dense.context = contexts[i];
		same_records(KERNELS_DTYPE_FP32, &sampled);
		same_records(KERNELS_DTYPE_FP32, &topk);
		same_records(KERNELS_DTYPE_FP32, &dense);
		same_records(KERNELS_DTYPE_BF16, &sampled);
	}
	labels_unigram_destroy(&u);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	CHECK(system(command) == 0);
	return check_done();
}
