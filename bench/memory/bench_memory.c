/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_memory - the peak of a training step's anonymous memory, compared with the estimate in
 * docs/performance.md.
 *
 *   bench_memory [--threads N] [--tiny] [--json FILE]
 *
 *   rss_vs_plan
 *       GPT-2 124M, 4 x 256: RssAnon, read every millisecond during three steps, compared with the bytes of
 *       parameters and activations. fp32: 16 bytes per parameter (weights, gradients, two moments); bf16: 18
 *       (with the copy that computes). Activations: model_session_plan.
 *   rss_vs_saltctl_plan, rss_vs_saltctl_plan_16
 *       the same compared with the sum that `saltctl plan` prints; _16 with 16 sequences in four
 *       micro-batches
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/common/train.h"
#include "engine/fit/fit.h"

static atomic_bool watching;
static size_t most;			/* bytes; owned by the watcher thread until it is joined */

static size_t
anonymous_bytes(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	size_t kib = 0;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "RssAnon: %zu kB", &kib) == 1)
			break;
	if (f != NULL)
		fclose(f);
	return kib * 1024;
}

static void *
watch(void *arg)
{
	(void)arg;
	while (atomic_load(&watching)) {
		size_t now = anonymous_bytes();

		most = now > most ? now : most;
		usleep(1000);
	}
	return NULL;
}

static size_t
planned(const struct bench_shape *s, enum dtype dtype, bool recompute)
{
	const struct model_session_options o = {.max_batch = s->micro_batch, .max_tokens = s->tokens, .training = true, .recompute = recompute};
	struct err_note note = {.name = ""};
	size_t bytes;
	int rc = model_session_plan(&s->config, dtype, &o, &bytes, &note);

	if (rc != 0)
		bench_fail("model_session_plan", rc, &note);
	return bytes;
}

/* The sum that `saltctl plan` prints, in bytes. */
static double
priced(const struct bench_train *t, int threads)
{
	const struct bench_shape *s = t->shape;
	const struct optim_split split = optim_split_whole(step_model(t->step)->n_params);
	const struct fit_shape shape = {.model = &s->config, .n_params = step_model(t->step)->n_params,
	    .dtype = kernels_dtype(t->kernels),
	    .deterministic = true, .split = &split, .threads = threads, .batch = (uint64_t)s->batch, .micro_batch = (uint64_t)s->micro_batch,
	    .lanes = (uint64_t)s->lanes, .context = (uint64_t)s->tokens};
	double bytes[FIT_ITEMS];
	struct err_note note = {.name = ""};
	int rc = fit_train(&shape, 1, bytes, &note);

	if (rc != 0)
		bench_fail("fit_train", rc, &note);
	return fit_sum(bytes);
}

/* Makes steps with this shape; sets most to the peak of memory in bytes. */
static void
steps(struct bench_train *t, const struct bench_shape *shape, struct comm *comm, const struct bench_args *a)
{
	pthread_t watcher;

	most = 0;
	bench_train_open(t, shape, comm, &(struct kernels_options){.backend = a->backend, .threads = a->threads}, OPTIM_ADAMW, 0);
	atomic_store(&watching, true);
	if (pthread_create(&watcher, NULL, watch, NULL) != 0)
		bench_fail("watcher", EAGAIN, NULL);
	for (int i = 0; i < a->rounds; i++)
		bench_train_once(t, &t->kd);
	atomic_store(&watching, false);
	pthread_join(watcher, NULL);
}

static void
against_plan(struct bench_results *r, const char *name, const struct bench_train *t, int threads)
{
	bench_row(r, name, (double)most / 1048576, "MiB", "saltctl plan, memory of a rank", priced(t, threads) / 1048576);
}

int
main(int argc, char **argv)
{
	struct bench_args a = {.rounds = 3};
	struct bench_results *r;
	struct comm *comm;
	struct bench_train t;
	double per_param, plan;
	size_t activations;
	char peer[96];

	bench_args(&a, argc, argv);
	if (comm_init(&comm, NULL, NULL) != 0)
		return 70;
	r = bench_results_new();
	steps(&t, bench_shape("gpt2_124m", a.tiny), comm, &a);
	per_param = kernels_dtype(t.kernels) == DTYPE_F32 ? 16 : 18;
	activations = planned(t.shape, kernels_dtype(t.kernels), false);
	plan = per_param * (double)step_model(t.step)->n_params + (double)activations;
	snprintf(peer, sizeof(peer), "%g bytes a parameter + activations, %s", per_param, dtype_name(kernels_dtype(t.kernels)));
	bench_row(r, "rss_vs_plan", (double)most / 1048576, "MiB", peer, plan / 1048576);
	against_plan(r, "rss_vs_saltctl_plan", &t, a.threads);
	printf("  %lld parameters; activations, MiB: fp32 %.1f, recomputed %.1f; bf16 %.1f, recomputed %.1f\n",
	    (long long)step_model(t.step)->n_params, (double)planned(t.shape, DTYPE_F32, false) / 1048576,
	    (double)planned(t.shape, DTYPE_F32, true) / 1048576, (double)planned(t.shape, DTYPE_BF16, false) / 1048576,
	    (double)planned(t.shape, DTYPE_BF16, true) / 1048576);
	bench_train_close(&t);
	steps(&t, bench_shape("gpt2_124m_16", a.tiny), comm, &a);
	against_plan(r, "rss_vs_saltctl_plan_16", &t, a.threads);
	bench_train_close(&t);
	comm_finalize(&comm);
	return bench_results_end(&r, a.json);
}
