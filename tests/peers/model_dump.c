/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model_dump - computes logits and gradients of a model directory with our engine, as raw files for
 * tests/peers/model_torch.py.
 *
 *   model_dump DIR TOKENS B T OUT [--init SEED] [--save DIR2] [--threads N] [--recompute] [--steps N]
 *   [--document-end ID]
 *
 *   DIR      config.json and, without --init, its tensors; --init: our first values instead
 *   TOKENS   int32 [B, T+1]
 *   OUT      an existing folder: OUT/logits.f32 [B*T, V], OUT/grads.f32 of the mean LM loss in the flat order
 *   --save   also writes the parameters as a model directory
 *   --document-end  documents end with this id and are isolated (model_session_documents); the mean is over
 *            tokens that have a target
 *   --steps  makes N steps of AdamW on these tokens before saving (learning rate 1e-3, betas 0.9 and 0.95,
 *            eps 1e-8, no decay)
 *
 * Prints one line of JSON: the loss, name and offset of each tensor, and the loss after each step.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels/kernels.h"
#include "engine/model/model.h"
#include "engine/weights/weights.h"

struct dump {
	const char *dir, *tokens_path, *out, *save;
	long long b, t, seed;
	int threads;
	bool recompute;
	int steps, document_end;
	int64_t counted;		/* number of tokens with a target */

	struct model_config config;
	struct model *model;
	struct kernels *kernels;
	struct model_session *session;
	float *host, *params, *d_params, *moments, *logits;
	int32_t *tokens, *inputs, *next;
};

static int
usage(void)
{
	fprintf(stderr, "usage: model_dump DIR TOKENS B T OUT [--init SEED] [--save DIR2] [--threads N] [--recompute] [--steps N] [--document-end ID]\n");
	return ERR_USAGE;
}

static int
parse(struct dump *d, int argc, char **argv)
{
	if (argc < 6)
		return usage();
	*d = (struct dump){.dir = argv[1], .tokens_path = argv[2], .b = atoll(argv[3]), .t = atoll(argv[4]), .out = argv[5], .seed = -1,
	    .threads = 1, .document_end = -1};
	for (int i = 6; i < argc; i++) {
		if (strcmp(argv[i], "--recompute") == 0)
			d->recompute = true;
		else if (i + 1 == argc)
			return usage();
		else if (strcmp(argv[i], "--init") == 0)
			d->seed = atoll(argv[++i]);
		else if (strcmp(argv[i], "--save") == 0)
			d->save = argv[++i];
		else if (strcmp(argv[i], "--threads") == 0)
			d->threads = atoi(argv[++i]);
		else if (strcmp(argv[i], "--steps") == 0)
			d->steps = atoi(argv[++i]);
		else if (strcmp(argv[i], "--document-end") == 0)
			d->document_end = atoi(argv[++i]);
		else
			return usage();
	}
	return d->b < 1 || d->t < 1 || d->b > 4096 || d->t > 1 << 20 ? usage() : 0;
}

static int
read_tokens(struct dump *d, struct err_note *note)
{
	size_t n = (size_t)(d->b * (d->t + 1)), rows = (size_t)(d->b * d->t);
	FILE *f = fopen(d->tokens_path, "rb");
	int rc = 0;

	if (f == NULL)
		return err_note_set(note, errno, "%s", d->tokens_path);
	if ((d->tokens = malloc(n * sizeof(int32_t))) == NULL || (d->inputs = malloc(rows * sizeof(int32_t))) == NULL ||
	    (d->next = malloc(rows * sizeof(int32_t))) == NULL)
		rc = ENOMEM;
	else if (fread(d->tokens, sizeof(int32_t), n, f) != n)
		rc = err_note_set(note, ERR_FORMAT, "%s", d->tokens_path);
	for (size_t i = 0; rc == 0 && i < rows; i++) {
		size_t at = i / (size_t)d->t * (size_t)(d->t + 1) + i % (size_t)d->t;

		d->inputs[i] = d->tokens[at];
		d->next[i] = d->tokens[at + 1];
	}
	if (rc == 0)
		model_document_targets(d->inputs, (int64_t)rows, d->document_end, d->next);
	for (size_t i = 0; rc == 0 && i < rows; i++)
		d->counted += d->next[i] != KERNELS_NO_TARGET;
	fclose(f);
	return rc;
}

static int
load(struct dump *d, struct err_note *note)
{
	struct weights_model *w = NULL;
	const struct kernels_options options = {.backend = KERNELS_BACKEND_OPENBLAS, .dtype = KERNELS_DTYPE_FP32, .threads = d->threads};
	const struct model_session_options session = {.max_batch = d->b, .max_tokens = d->t, .training = true, .recompute = d->recompute};
	size_t bytes;
	int rc;

	if ((rc = weights_config_load(d->dir, &d->config, note)) != 0 || (rc = model_new(&d->model, &d->config, note)) != 0 ||
	    (rc = kernels_new(&d->kernels, &options, note)) != 0)
		return rc;
	bytes = (size_t)d->model->n_params * sizeof(float);
	d->host = malloc(bytes);
	d->params = kernels_alloc(d->kernels, bytes);
	d->d_params = kernels_alloc(d->kernels, bytes);
	d->moments = kernels_alloc(d->kernels, 2 * bytes);
	if (d->host == NULL || d->params == NULL || d->d_params == NULL || d->moments == NULL)
		return ENOMEM;
	if (d->seed >= 0) {
		model_init(d->model, (uint32_t)d->seed, 0, d->model->n_params, d->host);
	} else {
		if ((rc = weights_model_open(&w, d->dir, d->model, note)) == 0)
			rc = weights_model_read(w, 0, (uint64_t)d->model->n_params, d->host, note);
		weights_model_close(&w);
		if (rc != 0)
			return rc;
	}
	kernels_upload(d->kernels, d->params, d->host, bytes);
	model_bind(d->model, d->params, DTYPE_F32);
	rc = model_session_new(&d->session, d->model, d->kernels, &session, note);
	return rc != 0 ? rc : model_session_documents(d->session, d->document_end);
}

static int
write_floats(const struct dump *d, const char *name, const float *x, size_t n, struct err_note *note)
{
	char path[4096];
	FILE *f;
	int rc = 0;

	snprintf(path, sizeof(path), "%s/%s", d->out, name);
	if ((f = fopen(path, "wb")) == NULL)
		return err_note_set(note, errno, "%s", path);
	if (fwrite(x, sizeof(float), n, f) != n)
		rc = err_note_set(note, errno, "%s", path);
	if (fclose(f) != 0 && rc == 0)
		rc = err_note_set(note, errno, "%s", path);
	return rc;
}

static int
save(struct dump *d, struct err_note *note)
{
	int rc;

	kernels_download(d->kernels, d->host, d->params, (size_t)d->model->n_params * sizeof(float));
	if (d->save == NULL)
		return 0;
	if ((rc = weights_config_save(d->save, &d->config, WEIGHTS_F32, NULL, note)) != 0)
		return rc;
	return weights_model_save(d->save, d->model, weights_source_array, d->host, WEIGHTS_F32, 0, NULL, NULL, note);
}

/* Makes the steps and prints the loss after each; the first gradients have been computed before. */
static int
steps(struct dump *d, const struct kernels_targets *targets)
{
	int64_t n = d->model->n_params, rows = d->counted;
	struct kernels_loss_sums sums;
	int rc;

	for (int i = 1; i <= d->steps; i++) {
		const struct kernels_adamw a = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .grad_scale = 1, .step = i};

		kernels_adamw(d->kernels, d->params, d->moments, d->moments + n, d->d_params, NULL, DTYPE_F32, n, &a);
		model_changed(d->model);
		kernels_zero(d->kernels, d->d_params, (size_t)n * sizeof(float));
		if ((rc = model_forward(d->session, d->inputs, d->b, d->t)) != 0 ||
		    (rc = model_loss(d->session, targets, 1.0f / (float)rows, d->d_params, &sums)) != 0)
			return rc;
		model_backward(d->session, d->d_params);
		printf("%s%.9g", i > 1 ? ", " : "", sums.loss / (double)rows);
	}
	return 0;
}

static int
compute(struct dump *d, struct err_note *note)
{
	int64_t rows = d->b * d->t;
	struct kernels_targets targets = {.n_rows = rows, .next = d->next};
	struct kernels_loss_sums sums;
	size_t n_logits = (size_t)rows * (size_t)d->config.vocab_size;
	int rc;

	if ((d->logits = malloc(n_logits * sizeof(float))) == NULL)
		return ENOMEM;
	if ((rc = model_forward(d->session, d->inputs, d->b, d->t)) != 0)
		return rc;
	model_logits(d->session, 0, rows, d->logits);
	if ((rc = model_loss(d->session, &targets, 1.0f / (float)d->counted, d->d_params, &sums)) != 0)
		return rc;
	model_backward(d->session, d->d_params);
	kernels_download(d->kernels, d->host, d->d_params, (size_t)d->model->n_params * sizeof(float));
	if ((rc = write_floats(d, "logits.f32", d->logits, n_logits, note)) != 0 ||
	    (rc = write_floats(d, "grads.f32", d->host, (size_t)d->model->n_params, note)) != 0)
		return rc;
	printf("{\"loss\": %.9g, \"tensors\": {", sums.loss / (double)d->counted);
	for (int i = 0; i < d->model->n_tensors; i++)
		printf("%s\"%s\": %lld", i > 0 ? ", " : "", d->model->tensors[i].name, (long long)d->model->tensors[i].offset);
	printf("}, \"steps\": [");
	if ((rc = steps(d, &targets)) != 0)
		return rc;
	printf("]}\n");
	return save(d, note);
}

int
main(int argc, char **argv)
{
	struct dump d = {0};
	struct err_note note = {0};
	char text[1024];
	int rc;

	if ((rc = parse(&d, argc, argv)) == 0 && (rc = read_tokens(&d, &note)) == 0 && (rc = load(&d, &note)) == 0)
		rc = compute(&d, &note);
	if (rc != 0)
		fprintf(stderr, "model_dump: %s\n", err_note_str(&note, rc, text, sizeof(text)));
	model_session_destroy(&d.session);
	if (d.kernels != NULL) {
		kernels_free(d.kernels, d.params);
		kernels_free(d.kernels, d.d_params);
		kernels_free(d.kernels, d.moments);
	}
	kernels_destroy(&d.kernels);
	model_destroy(&d.model);
	free(d.host);
	free(d.logits);
	free(d.tokens);
	free(d.inputs);
	free(d.next);
	return err_exit_code(rc);
}
