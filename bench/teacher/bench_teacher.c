/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_teacher - teacherd's engine (engine/infer/infer.h: sequences in, encoded label records out), 135M
 * Llama shape, 4 x 512, sampled labels with N = 50.
 *
 *   bench_teacher [--backend NAME] [--threads N] [--rounds N] [--tiny] [--only NAME] [--json FILE]
 *       [--peer COMMAND]...
 *
 *   teacher_label_vs_forward
 *       labelling compared with the bare forward pass, which computes logits and discards them. The faster of
 *       two forward passes counts: that of teacherd (one thread per sequence), and all threads on one batch.
 *   labels_same_bytes
 *       with --backend cuda and 64 x 1024 (the first row is called teacher_label_cuda there): number of
 *       sequences of the batch whose labels have the same bytes in reverse order and in forward passes of
 *       four sequences, compared with all of them
 *   teacher_label_vs_torch
 *       compared with forward pass, softmax and 50 draws per token of the fastest comparison program
 *
 * The weights are random. They are written to a new folder under TMPDIR (540 MB), because teacherd's engine
 * reads models from folders.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/common/bench.h"
#include "engine/infer/infer.h"
#include "engine/weights/weights.h"

#define N_DRAWS 50

struct teacher {
	const struct bench_shape *shape;
	struct infer *infer, *fours;		/* fours: four sequences per forward pass, or NULL */
	struct kernels *kernels;		/* for the forward pass of the batch with all threads */
	struct model *model;
	struct model_session *session;
	float *params;
	void *copy;				/* the parameters in the compute dtype, if that is not fp32 */
	int32_t *tokens;			/* [batch, L + 1] */
	int32_t *inputs;			/* [batch, L] */
	uint64_t *seqs;
};

static void
write_model(struct teacher *t, const char *dir, struct err_note *note)
{
	size_t bytes = (size_t)t->model->n_params * sizeof(float);
	float *params = bench_need(malloc(bytes));
	int rc;

	model_init(t->model, 1, 0, t->model->n_params, params);
	kernels_upload(t->kernels, t->params, params, bytes);
	if ((rc = weights_config_save(dir, &t->shape->config, WEIGHTS_F32, NULL, note)) != 0 ||
	    (rc = weights_model_save(dir, t->model, weights_source_array, params, WEIGHTS_F32, 0, NULL, NULL, note)) != 0)
		bench_fail(dir, rc, note);
	free(params);
}

static void
remove_model(const char *dir)
{
	static const char *const names[] = {"config.json", "model.safetensors", ".salt_fingerprint"};
	char path[4200];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
}

static void
teacher_open(struct teacher *t, const struct bench_args *a)
{
	const struct bench_shape *s = t->shape = bench_shape(a->backend == KERNELS_BACKEND_CUDA ? "llama_135m_gpu" : "llama_135m", a->tiny);
	const struct kernels_options ko = {.backend = a->backend, .threads = a->threads};
	const struct infer_options io = {.kernels = ko, .threads = a->threads}, fours = {.kernels = ko, .threads = 1, .batch = 4};
	const struct model_session_options so = {.max_batch = s->batch, .max_tokens = s->tokens};
	struct err_note note = {.name = ""};
	char dir[4096];
	int rc;

	snprintf(dir, sizeof(dir), "%s/salt_bench.XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	if (mkdtemp(dir) == NULL)
		bench_fail(dir, 73, &note);
	if ((rc = kernels_new(&t->kernels, &ko, &note)) != 0 || (rc = model_new(&t->model, &s->config, &note)) != 0)
		bench_fail(s->name, rc, &note);
	t->params = bench_need(kernels_alloc(t->kernels, (size_t)t->model->n_params * sizeof(float)));
	write_model(t, dir, &note);
	if (kernels_dtype(t->kernels) != DTYPE_F32) {
		t->copy = bench_need(kernels_alloc(t->kernels, (size_t)t->model->n_params * dtype_size(kernels_dtype(t->kernels))));
		kernels_convert(t->kernels, t->copy, kernels_dtype(t->kernels), t->params, DTYPE_F32, t->model->n_params);
	}
	model_bind(t->model, t->copy != NULL ? t->copy : t->params, kernels_dtype(t->kernels));
	if ((rc = model_session_new(&t->session, t->model, t->kernels, &so, &note)) != 0 || (rc = infer_new(&t->infer, &io, &note)) != 0 ||
	    (rc = infer_add_model(t->infer, dir, true, true, &note)) != 0)
		bench_fail(s->name, rc, &note);
	if (a->backend == KERNELS_BACKEND_CUDA && bench_wanted(a, "labels_same_bytes") &&
	    ((rc = infer_new(&t->fours, &fours, &note)) != 0 || (rc = infer_add_model(t->fours, dir, true, true, &note)) != 0))
		bench_fail(s->name, rc, &note);
	remove_model(dir);			/* the model is in memory now */
	t->tokens = bench_need(calloc((size_t)(s->batch * (s->tokens + 1)), sizeof(int32_t)));
	t->inputs = bench_need(calloc((size_t)(s->batch * s->tokens), sizeof(int32_t)));
	t->seqs = bench_need(calloc((size_t)s->batch, sizeof(uint64_t)));
	for (int64_t b = 0; b < s->batch; b++) {
		t->seqs[b] = (uint64_t)b;
		for (int64_t i = 0; i <= s->tokens; i++)
			t->tokens[b * (s->tokens + 1) + i] = (int32_t)((b * 7919 + i * 104729 + 13) % s->config.vocab_size);
		memcpy(t->inputs + b * s->tokens, t->tokens + b * (s->tokens + 1), (size_t)s->tokens * sizeof(int32_t));
	}
}

static void
teacher_close(struct teacher *t)
{
	infer_destroy(&t->infer);
	infer_destroy(&t->fours);
	model_session_destroy(&t->session);
	model_destroy(&t->model);
	kernels_free(t->kernels, t->copy);
	kernels_free(t->kernels, t->params);
	kernels_destroy(&t->kernels);
	free(t->tokens);
	free(t->inputs);
	free(t->seqs);
}

/* A unigram table of equal weights, which fits random tokens. */
static const struct labels_unigram *
flat(struct infer *infer, uint32_t vocab)
{
	const struct labels_unigram *u = NULL;
	uint8_t *codes = bench_need(malloc(vocab));

	memset(codes, 1, vocab);
	if (infer_unigram(infer, codes, vocab, &u, NULL) != 0)
		exit(70);
	free(codes);
	return u;
}

/*
 * Runs the whole batch and waits for it. label false: only the forward pass with its logits. backwards: the
 * last sequence first.
 */
static struct infer_job *
run(struct teacher *t, struct infer *infer, bool label, bool backwards)
{
	const struct bench_shape *s = t->shape;
	struct infer_job *job = bench_need(infer_job_new((size_t)s->batch, (uint32_t)s->tokens)), *back;
	size_t window = (size_t)(s->tokens + 1);

	job->want_label = label;
	job->n_valid = (uint32_t)s->config.vocab_size;
	if (label)
		job->spec = (struct labels_spec){.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = (uint32_t)s->tokens,
		    .vocab = job->n_valid, .n_samples = N_DRAWS, .seed = 1, .tau = 1, .unigram = flat(infer, job->n_valid)};
	for (size_t i = 0; i < job->n; i++) {
		size_t b = backwards ? job->n - 1 - i : i;

		memcpy(job->tokens + i * window, t->tokens + b * window, window * sizeof(int32_t));
		job->rows[i].seq = t->seqs[b];
	}
	infer_submit(infer, job);
	while ((back = infer_finished(infer)) == NULL)
		usleep(500);
	for (size_t i = 0; i < back->n; i++)
		if (back->rows[i].error[0] != '\0') {
			fprintf(stderr, "bench_teacher: %s\n", back->rows[i].error);
			exit(70);
		}
	return back;
}

/* Seconds of a lease with the whole batch. */
static double
lease(struct teacher *t, bool label)
{
	double start = bench_now(), seconds;
	struct infer_job *job = run(t, t->infer, label, false);

	seconds = bench_now() - start;
	infer_job_free(&job);
	return seconds;
}

/* Number of sequences that have the same label in both jobs; b has them in reverse order. */
static int64_t
same_labels(const struct infer_job *a, const struct infer_job *b)
{
	int64_t n = 0;

	for (size_t i = 0; i < a->n; i++) {
		const struct infer_row *x = &a->rows[i], *y = &b->rows[b->n - 1 - i];

		n += x->seq == y->seq && x->label.len > 0 && x->label.len == y->label.len && memcmp(x->label.bytes, y->label.bytes, x->label.len) == 0;
	}
	return n;
}

static void
same_row(struct teacher *t, struct bench_results *r)
{
	struct infer_job *in_order = run(t, t->infer, true, false), *permuted = run(t, t->fours, true, true);

	bench_row(r, "labels_same_bytes", (double)same_labels(in_order, permuted), "sequences", "all", (double)in_order->n);
	infer_job_free(&in_order);
	infer_job_free(&permuted);
}

static double
forward(struct teacher *t)
{
	const struct kernels_label_spec nothing = {.kind = KERNELS_LABEL_NONE, .tau = 1};
	struct kernels_labels out = {NULL};
	double start = bench_now();

	if (model_forward(t->session, t->inputs, t->shape->batch, t->shape->tokens) != 0 ||
	    model_labels(t->session, &nothing, NULL, t->seqs, &out) != 0)
		exit(70);
	kernels_sync(t->kernels);
	return bench_now() - start;
}

int
main(int argc, char **argv)
{
	struct bench_args a = {.rounds = 5};
	struct bench_peer *peers[BENCH_PEERS_MAX] = {NULL};
	double labels[BENCH_ROUNDS_MAX], tiles[BENCH_ROUNDS_MAX], batch[BENCH_ROUNDS_MAX], theirs[BENCH_PEERS_MAX][BENCH_ROUNDS_MAX];
	double tokens, best_forward, label, best = 0;
	char name[128] = "";
	struct bench_results *r;
	struct teacher t;

	bench_args(&a, argc, argv);
	memset(&t, 0, sizeof(t));
	teacher_open(&t, &a);
	for (int p = 0; p < a.n_peers && a.backend != KERNELS_BACKEND_CUDA && bench_wanted(&a, "teacher_label_vs_torch"); p++)
		if ((peers[p] = bench_peer_open(a.peer[p])) != NULL)
			theirs[p][0] = bench_peer_seconds(peers[p], "teach", kernels_dtype(t.kernels) == DTYPE_F32 ? "fp32" : "bf16", t.shape);
	r = bench_results_new();
	if (t.fours != NULL)
		same_row(&t, r);
	if (a.only != NULL && strcmp(a.only, "labels_same_bytes") == 0)
		goto end;
	lease(&t, true);
	forward(&t);
	for (int i = 0; i < a.rounds; i++) {
		labels[i] = lease(&t, true);
		tiles[i] = lease(&t, false);
		batch[i] = forward(&t);
		for (int p = 0; p < a.n_peers; p++)
			if (peers[p] != NULL && theirs[p][0] >= 0)
				theirs[p][i] = bench_peer_seconds(peers[p], "teach", kernels_dtype(t.kernels) == DTYPE_F32 ? "fp32" : "bf16", t.shape);
	}
	tokens = (double)(t.shape->batch * t.shape->tokens);
	label = tokens / bench_median(labels, a.rounds);
	best_forward = tokens / bench_median(tiles, a.rounds);
	if (tokens / bench_median(batch, a.rounds) > best_forward)
		best_forward = tokens / bench_median(batch, a.rounds);
	printf("%s, %d workers\n", infer_describe(t.infer), infer_threads(t.infer));
	printf("  forward: a thread a sequence %.0f tokens/s, all threads on a batch %.0f\n", tokens / bench_median(tiles, a.rounds),
	    tokens / bench_median(batch, a.rounds));
	bench_row(r, a.backend == KERNELS_BACKEND_CUDA ? "teacher_label_cuda" : "teacher_label_vs_forward", label, "tokens/s", "forward pass", best_forward);
	for (int p = 0; p < a.n_peers; p++)
		if (peers[p] != NULL && theirs[p][0] >= 0 && tokens / bench_median(theirs[p], a.rounds) > best) {
			best = tokens / bench_median(theirs[p], a.rounds);
			snprintf(name, sizeof(name), "%s, %s", bench_peer_name(peers[p]), bench_peer_variant(peers[p]));
		}
	if (a.backend != KERNELS_BACKEND_CUDA && bench_wanted(&a, "teacher_label_vs_torch"))
		bench_row(r, "teacher_label_vs_torch", label, "tokens/s", best > 0 ? name : NULL, best);
end:
	teacher_close(&t);
	for (int p = 0; p < a.n_peers; p++)
		bench_peer_close(&peers[p]);
	return bench_results_end(&r, a.json);
}
