/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_model - tokens per second of whole models: training (forward, loss, backward) and a teacher's pass
 * (forward, scores, 50 draws per token).
 *
 *   bench_model [--threads N] [--seconds S] [--only NAME] [--json FILE] [--peer FILE]
 *
 * Random weights and tokens; the median of the runs that fit into S seconds (at least 3). --peer: the output
 * of bench_model.py, PyTorch's figures of the same shapes on the same machine, lines "NAME VALUE", which are
 * printed beside ours.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/kernels/kernels.h"
#include "engine/model/model.h"

#define MAX_RUNS 200

struct shape {
	const char *name;
	int64_t b, t;
	struct model_config config;
};

#define GPT2(v, ctx, c, l, h)									\
	{.family = MODEL_FAMILY_GPT2, .vocab_size = (v), .context = (ctx), .d_model = (c), .n_layers = (l), .n_heads = (h),	\
	    .n_kv_heads = (h), .head_dim = (c) / (h), .d_ff = 4 * (c), .norm_eps = 1e-5f, .tied = true, .attention_bias = true,	\
	    .mlp_bias = true, .initializer_range = 0.02f}

static const struct shape shapes[] = {
	{"gpt2_2x96_v4096", 16, 128, GPT2(4096, 128, 96, 2, 4)},
	{"gpt2_4x160_v4096", 16, 128, GPT2(4096, 128, 160, 4, 5)},
	{"gpt2_124m", 4, 64, GPT2(50257, 1024, 768, 12, 12)},
	{"smollm2_135m", 4, 64, {.family = MODEL_FAMILY_LLAMA, .vocab_size = 49152, .context = 8192, .d_model = 576, .n_layers = 30,
	    .n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .d_ff = 1536, .norm_eps = 1e-5f, .tied = true, .rope_theta = 100000,
	    .initializer_range = 0.04f}},
};

struct options {
	int threads;
	double seconds;
	const char *only, *json, *peer;
};

static double
now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct bench {
	const struct shape *shape;
	struct model *model;
	struct kernels *kernels;
	struct model_session *session;
	float *params, *d_params;
	int32_t *tokens, *next;
	uint64_t *seqs;
	struct kernels_labels labels;
};

#define DRAWS 50

static void
train_once(struct bench *e)
{
	int64_t rows = e->shape->b * e->shape->t;
	const struct kernels_targets targets = {.n_rows = rows, .next = e->next};
	struct kernels_loss_sums sums;

	if (model_forward(e->session, e->tokens, e->shape->b, e->shape->t) != 0 ||
	    model_loss(e->session, &targets, 1.0f / (float)rows, e->d_params, &sums) != 0)
		exit(70);
	model_backward(e->session, e->d_params);
	kernels_sync(e->kernels);
}

static void
teach_once(struct bench *e)
{
	const struct kernels_label_spec spec = {.score = true, .kind = KERNELS_LABEL_SAMPLED, .n = DRAWS, .tau = 1, .seed = 1};

	if (model_forward(e->session, e->tokens, e->shape->b, e->shape->t) != 0 ||
	    model_labels(e->session, &spec, e->next, e->seqs, &e->labels) != 0)
		exit(70);
	kernels_sync(e->kernels);
}

/* Median of tokens per second. */
static double
measure(struct bench *e, void (*once)(struct bench *), double seconds)
{
	double runs[MAX_RUNS], end;
	int n = 0;

	once(e);
	for (end = now_s() + seconds; n < 3 || (n < MAX_RUNS && now_s() < end); n++) {
		double start = now_s();

		once(e);
		runs[n] = now_s() - start;
	}
	qsort(runs, (size_t)n, sizeof(runs[0]), by_value);
	return (double)(e->shape->b * e->shape->t) / runs[n / 2];
}

/* Reads a line "NAME VALUE" of the file of --peer; 0 if there is none. */
static double
peer_value(const char *path, const char *name)
{
	FILE *f = path != NULL ? fopen(path, "r") : NULL;
	char found[128];
	double value, out = 0;

	while (f != NULL && fscanf(f, "%127s %lf", found, &value) == 2)
		if (strcmp(found, name) == 0)
			out = value;
	if (f != NULL)
		fclose(f);
	return out;
}

static void
report(const struct options *o, FILE *json, const struct bench *e, const char *what, double tokens_s, double flops)
{
	static int n;
	char name[128];
	double peer;

	snprintf(name, sizeof(name), "%s_%s", e->shape->name, what);
	peer = peer_value(o->peer, name);
	printf("%-28s %10.0f tokens/s %8.3f TFLOP/s", name, tokens_s, tokens_s * flops * 1e-12);
	if (peer > 0)
		printf("   PyTorch %10.0f   ratio %.2f", peer, tokens_s / peer);
	printf("\n");
	fflush(stdout);
	if (json == NULL)
		return;
	fprintf(json, "%s\n {\"name\": \"%s\", \"value\": %.1f, \"unit\": \"tokens/s\"", n++ > 0 ? "," : "", name, tokens_s);
	if (peer > 0)
		fprintf(json, ", \"peer\": \"PyTorch\", \"peer_value\": %.1f, \"ratio\": %.3f", peer, tokens_s / peer);
	fprintf(json, "}");
}

static void *
room(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (p == NULL)
		exit(71);
	return p;
}

static int
run_shape(const struct options *o, FILE *json, const struct shape *shape)
{
	const struct kernels_options options = {.backend = KERNELS_BACKEND_AUTO, .dtype = KERNELS_DTYPE_FP32, .threads = o->threads};
	const struct model_session_options session = {.max_batch = shape->b, .max_tokens = shape->t, .training = true};
	size_t rows = (size_t)(shape->b * shape->t), bytes;
	struct bench e = {.shape = shape};
	struct err_note note = {0};
	char text[1024];
	double flops = model_flops_per_token(&shape->config, shape->t);
	int rc;

	if ((rc = model_new(&e.model, &shape->config, &note)) != 0 || (rc = kernels_new(&e.kernels, &options, &note)) != 0 ||
	    (rc = model_session_new(&e.session, e.model, e.kernels, &session, &note)) != 0)
		goto out;
	bytes = (size_t)e.model->n_params * sizeof(float);
	e.params = kernels_alloc(e.kernels, bytes);
	e.d_params = kernels_alloc(e.kernels, bytes);
	if (e.params == NULL || e.d_params == NULL)
		exit(71);
	model_init(e.model, 1, 0, e.model->n_params, e.params);	/* these backends use host memory */
	model_bind(e.model, e.params, DTYPE_F32);
	e.tokens = room(rows, sizeof(int32_t));
	e.next = room(rows, sizeof(int32_t));
	e.seqs = room((size_t)shape->b, sizeof(uint64_t));
	e.labels = (struct kernels_labels){.loss_nats = room(rows, sizeof(float)), .rank = room(rows, sizeof(int32_t)),
	    .n_unique = room(rows, sizeof(int32_t)), .ids = room(rows * DRAWS, sizeof(int32_t)), .counts = room(rows * DRAWS, sizeof(int32_t))};
	for (size_t i = 0; i < rows; i++) {
		e.tokens[i] = (int32_t)((i * 7919 + 13) % (size_t)shape->config.vocab_size);
		e.next[i] = (int32_t)((i * 104729 + 7) % (size_t)shape->config.vocab_size);
	}
	if (o->only == NULL && shape == shapes)
		printf("%s\n", kernels_describe(e.kernels));
	report(o, json, &e, "train", measure(&e, train_once, o->seconds), flops);
	report(o, json, &e, "teach", measure(&e, teach_once, o->seconds), flops / 3);
	free(e.tokens);
	free(e.next);
	free(e.seqs);
	free(e.labels.loss_nats);
	free(e.labels.rank);
	free(e.labels.n_unique);
	free(e.labels.ids);
	free(e.labels.counts);
out:
	if (rc != 0)
		fprintf(stderr, "bench_model: %s\n", err_note_str(&note, rc, text, sizeof(text)));
	model_session_destroy(&e.session);
	if (e.kernels != NULL) {
		kernels_free(e.kernels, e.params);
		kernels_free(e.kernels, e.d_params);
	}
	kernels_destroy(&e.kernels);
	model_destroy(&e.model);
	return rc;
}

int
main(int argc, char **argv)
{
	struct options o = {.threads = 2, .seconds = 3};
	FILE *json = NULL;
	int rc = 0;

	for (int i = 1; i < argc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (value != NULL && strcmp(argv[i], "--threads") == 0)
			o.threads = atoi(value);
		else if (value != NULL && strcmp(argv[i], "--seconds") == 0)
			o.seconds = atof(value);
		else if (value != NULL && strcmp(argv[i], "--only") == 0)
			o.only = value;
		else if (value != NULL && strcmp(argv[i], "--json") == 0)
			o.json = value;
		else if (value != NULL && strcmp(argv[i], "--peer") == 0)
			o.peer = value;
		else {
			fprintf(stderr, "usage: bench_model [--threads N] [--seconds S] [--only NAME] [--json FILE] [--peer FILE]\n");
			return 64;
		}
	}
	if (o.json != NULL && (json = fopen(o.json, "w")) == NULL) {
		perror(o.json);
		return 73;
	}
	if (json != NULL)
		fprintf(json, "[");
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]) && rc == 0; i++)
		if (o.only == NULL || strcmp(o.only, shapes[i].name) == 0)
			rc = run_shape(&o, json, &shapes[i]);
	if (json != NULL) {
		fprintf(json, "\n]\n");
		if (fclose(json) != 0)
			rc = 74;
	}
	return rc == 74 ? 74 : err_exit_code(rc);
}
