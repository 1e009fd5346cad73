/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_angle TEACHER STUDENT CORPUS CONTEXT TOKENS SAMPLES TAU WEIGHT FIRST - compares the student's
 * parameter gradient with sampled labels with that with dense labels, on the same sequences. Both kinds of
 * labels are made by teacherd's engine as records and decoded as in trainerd.
 *
 *   TEACHER, STUDENT   model folders; CORPUS: prefix; CONTEXT: length of a sequence; TOKENS: a multiple of it
 *   SAMPLES            draws per token, N; TAU: temperature
 *   WEIGHT             distillation weight, 0 .. 1
 *   FIRST              stream position of the first sequence, with run.seed 2 (as in the quickstart)
 *
 * Prints one line: degrees between the two, |sampled - dense| / |dense|, |sampled| / |dense|. angle.sh runs
 * it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/random/shuffle.h"
#include "bench/common/bench.h"
#include "data/corpus/corpus.h"
#include "data/labels/labels.h"
#include "engine/infer/infer.h"
#include "engine/weights/weights.h"

#define RUN_SEED 2

struct bench {
	struct corpus *corpus;
	struct infer *infer;
	struct kernels *kernels;
	struct model *model;
	struct model_session *session;
	float *params;
	uint32_t context, samples, vocab;
	size_t n;				/* number of sequences */
	uint64_t *seqs;
	int32_t *tokens;			/* [n, context + 1] */
	double tau, weight;
};

static int
read_range(void *arg, uint64_t begin, uint64_t end, float *out, struct err_note *note)
{
	return weights_model_read(arg, begin, end - begin, out, note);
}

static void
student_open(struct bench *b, const char *dir)
{
	const struct model_session_options so = {.max_batch = 1, .max_tokens = b->context, .training = true};
	const struct kernels_options ko = {.threads = 0};
	struct weights_model *w = NULL;
	struct model_config cfg;
	struct err_note note = {.name = ""};
	int rc;

	if ((rc = kernels_new(&b->kernels, &ko, &note)) != 0 || (rc = weights_config_load(dir, &cfg, &note)) != 0 ||
	    (rc = model_new(&b->model, &cfg, &note)) != 0 || (rc = weights_model_open(&w, dir, b->model, &note)) != 0)
		bench_fail(dir, rc, &note);
	b->params = bench_need(kernels_alloc(b->kernels, (size_t)b->model->n_params * dtype_size(kernels_dtype(b->kernels))));
	if ((rc = model_load(b->model, b->kernels, b->params, read_range, w, &note)) != 0)
		bench_fail(dir, rc, &note);
	model_bind(b->model, b->params, kernels_dtype(b->kernels));
	weights_model_close(&w);
	if ((rc = model_session_new(&b->session, b->model, b->kernels, &so, &note)) != 0)
		bench_fail(dir, rc, &note);
}

static void
windows_open(struct bench *b, const char *prefix, uint64_t first)
{
	struct err_note note = {.name = ""};
	uint64_t n_windows;
	int rc;

	if ((rc = corpus_open(&b->corpus, prefix, &note)) != 0)
		bench_fail(prefix, rc, &note);
	b->vocab = corpus_info(b->corpus)->vocab;
	n_windows = corpus_n_windows(b->corpus, b->context);
	b->seqs = bench_need(calloc(b->n, sizeof(*b->seqs)));
	b->tokens = bench_need(calloc(b->n * (b->context + 1), sizeof(*b->tokens)));
	for (size_t i = 0; i < b->n; i++) {
		b->seqs[i] = CORPUS_SEQ_MAKE(CORPUS_TRAIN, shuffle_order(RUN_SEED, n_windows, first + i));
		if ((rc = corpus_window(b->corpus, b->seqs[i], b->context, b->tokens + i * (b->context + 1), &note)) != 0)
			bench_fail(prefix, rc, &note);
	}
}

/* The unigram table of the label set, made from the corpus's counts as in selectord. */
static const struct labels_unigram *
table(struct bench *b)
{
	const struct labels_unigram *u = NULL;
	uint64_t *counts = bench_need(malloc(b->vocab * sizeof(*counts)));
	struct labels_unigram *own;
	struct err_note note = {.name = ""};
	int rc;

	if ((rc = corpus_counts(b->corpus, b->vocab, counts, &note)) != 0)
		bench_fail("counts", rc, &note);
	if ((rc = labels_unigram_from_counts(&own, counts, b->vocab, b->tau, &note)) != 0 ||
	    (rc = infer_unigram(b->infer, labels_unigram_bytes(own), b->vocab, &u, &note)) != 0)
		bench_fail("unigram table", rc, &note);
	free(counts);
	labels_unigram_destroy(&own);
	return u;
}

/* Makes the label of one sequence with the teacher, and decodes its record into batch. */
static void
label(struct bench *b, const struct labels_spec *spec, size_t i, struct labels_batch *batch)
{
	const int32_t *tokens = b->tokens + i * (b->context + 1);
	struct infer_job *job = bench_need(infer_job_new(1, b->context)), *back;
	struct err_note note = {.name = ""};
	int rc;

	job->want_label = true;
	job->n_valid = b->vocab;
	job->spec = *spec;
	job->rows[0].seq = b->seqs[i];
	memcpy(job->tokens, tokens, (b->context + 1) * sizeof(*tokens));
	if ((rc = infer_check(b->infer, job, &note)) != 0)
		bench_fail("teacher", rc, &note);
	infer_submit(b->infer, job);
	while ((back = infer_finished(b->infer)) == NULL)
		usleep(200);
	if (back->rows[0].error[0] != '\0') {
		fprintf(stderr, "bench_angle: %s\n", back->rows[0].error);
		exit(70);
	}
	labels_batch_clear(batch);
	if ((rc = labels_decode(spec, hash_tokens(tokens, b->context + 1), back->rows[0].label.bytes, back->rows[0].label.len, batch, &note)) != 0)
		bench_fail("record", rc, &note);
	infer_job_free(&back);
}

/*
 * d_params += gradient of the mean loss over all sequences. The student must have the corpus's vocabulary,
 * because dense label rows are not padded.
 */
static void
gradient(struct bench *b, enum labels_kind kind, float *d_params)
{
	const struct labels_spec spec = {.kind = kind, .version = LABELS_VERSION, .context = b->context, .vocab = b->vocab, .n_samples = b->samples,
	    .seed = 1, .tau = b->tau, .unigram = kind == LABELS_KIND_SAMPLED ? table(b) : NULL};
	float *weight = bench_need(malloc(b->context * sizeof(*weight)));
	struct labels_batch batch = {0};

	for (uint32_t t = 0; t < b->context; t++)
		weight[t] = (float)b->weight;
	for (size_t i = 0; i < b->n; i++) {
		const int32_t *tokens = b->tokens + i * (b->context + 1);
		struct kernels_targets targets = {.n_rows = b->context, .next = tokens + 1, .weight = weight};
		struct kernels_loss_sums sums;
		int rc;

		label(b, &spec, i, &batch);
		if (kind == LABELS_KIND_DENSE) {
			targets.dense = batch.dense;
		} else {
			targets.offsets = batch.row_offsets;
			targets.ids = batch.ids;
			targets.values = batch.weights;
		}
		if ((rc = model_forward(b->session, tokens, 1, b->context)) != 0 ||
		    (rc = model_loss(b->session, &targets, 1.0f / (float)(b->n * b->context), d_params, &sums)) != 0)
			bench_fail("student", rc, NULL);
		model_backward(b->session, d_params);
	}
	labels_batch_free(&batch);
	free(weight);
}

static double
dot(const float *x, const float *y, int64_t n)
{
	double sum = 0;

	for (int64_t i = 0; i < n; i++)
		sum += (double)x[i] * (double)y[i];
	return sum;
}

int
main(int argc, char **argv)
{
	struct infer_options io = {.threads = 0};
	struct err_note note = {.name = ""};
	float *dense, *sampled;
	struct bench b = {0};
	double dd, ss, ds;
	int64_t n;
	int rc;

	if (argc != 10) {
		fprintf(stderr, "usage: bench_angle TEACHER STUDENT CORPUS CONTEXT TOKENS SAMPLES TAU WEIGHT FIRST\n");
		return 64;
	}
	b.context = (uint32_t)strtoul(argv[4], NULL, 10);
	b.n = b.context > 0 ? strtoul(argv[5], NULL, 10) / b.context : 0;
	b.samples = (uint32_t)strtoul(argv[6], NULL, 10);
	b.tau = strtod(argv[7], NULL);
	b.weight = strtod(argv[8], NULL);
	if (b.n < 1 || b.samples < 1 || !(b.weight > 0 && b.weight <= 1)) {
		fprintf(stderr, "bench_angle: a window, a draw and a weight over 0 and up to 1 at least\n");
		return 64;
	}
	windows_open(&b, argv[3], strtoull(argv[9], NULL, 10));
	if ((rc = infer_new(&b.infer, &io, &note)) != 0 || (rc = infer_add_model(b.infer, argv[1], false, true, &note)) != 0)
		bench_fail(argv[1], rc, &note);
	student_open(&b, argv[2]);
	if ((uint32_t)b.model->config.vocab_size != b.vocab) {
		fprintf(stderr, "bench_angle: the student has %lld ids, the corpus %u\n", (long long)b.model->config.vocab_size, b.vocab);
		return 65;
	}
	n = b.model->n_params;
	dense = bench_need(calloc((size_t)n, sizeof(*dense)));
	sampled = bench_need(calloc((size_t)n, sizeof(*sampled)));
	gradient(&b, LABELS_KIND_DENSE, dense);
	gradient(&b, LABELS_KIND_SAMPLED, sampled);
	dd = dot(dense, dense, n);
	ss = dot(sampled, sampled, n);
	ds = dot(dense, sampled, n);
	printf("%.4f %.5f %.5f\n", acos(fmin(1, ds / sqrt(dd * ss))) * 180 / acos(-1), sqrt(fmax(0, dd + ss - 2 * ds) / dd), sqrt(ss / dd));
	free(dense);
	free(sampled);
	model_session_destroy(&b.session);
	model_destroy(&b.model);
	kernels_free(b.kernels, b.params);
	kernels_destroy(&b.kernels);
	infer_destroy(&b.infer);
	corpus_destroy(&b.corpus);
	free(b.seqs);
	free(b.tokens);
	return 0;
}
