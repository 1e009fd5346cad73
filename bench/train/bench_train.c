/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_train - complete optimizer steps as in trainerd (trainerd/step.h: forward, loss, backward, clip,
 * AdamW), with one rank.
 *
 *   bench_train [--backend NAME] [--threads N] [--rounds N] [--tiny] [--cpu-time] [--only NAME] [--json FILE]
 *       [--peer COMMAND]...
 *
 *   train_gpt2_124m_fp32, train_small_fp32, train_llama_135m_fp32 (and _bf16)
 *       tokens/s compared with the fastest comparison program
 *   share_of_ceiling_fp32 (GPT-2 124M, 4 x 256), share_of_ceiling (16 x 256, bf16)
 *       FLOP/s of the step compared with those of its matrix products alone, with the shapes and the number
 *       of products of a step: OpenBLAS's SGEMM or oneDNN's bf16 matmul (weights in its own format), each
 *       with its own threads. Both count 6 FLOP per product parameter and token; the ceiling does not include
 *       attention.
 *   kd_step_cost_gpt2_124m, kd_step_cost_small; kd_step_cost is the larger of the two
 *       a phase-one step with sampled labels (N = 50) in memory, compared with a plain step on the same
 *       tokens
 *
 *   muon_step_cost (GPT-2 124M, 4 x 256), muon_step_cost_16 (16 x 256)
 *       a step with Muon compared with one with AdamW. The time of Newton-Schulz does not depend on the
 *       batch.
 *
 *   document_step_cost_LENGTH (GPT-2 124M, 16 x 256)
 *       a step with corpus.isolate_documents and documents of this mean length, compared with a step without
 *       it
 *
 * With --backend cuda (bf16) instead, at shapes for GPUs:
 *   train_gpt2_124m_cuda, train_gpt2_1558m_cuda
 *       tokens/s compared with the fastest comparison program
 *   mfu_gpt2_124m_cuda, mfu_gpt2_1558m_cuda
 *       TFLOP/s of the step compared with the device's dense bf16 peak (peak.h); the ratio is the MFU
 *   ceiling_gpt2_124m_cuda, ceiling_gpt2_1558m_cuda
 *       share_of_ceiling, with the products of cuBLASLt
 *   kd_step_cost_gpt2_124m_gpu
 *
 * Compared programs take turns (A B A B ...). Ours runs in this process; the comparison programs answer
 * through pipes. Values are medians of --rounds.
 */
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpus/cpus.h"
#include "bench/common/train.h"
#include "bench/train/ceiling.h"
#include "bench/train/peak.h"
#include "engine/kernels/kernels.h"

CPUS_BOUND_SPIN;		/* as in trainerd */

/* ---- the ceiling ---- */

/* A product of the step, C[m, n] = op(A) op(B), and how often the step has it. */
struct product {
	bool trans_a, trans_b;
	int64_t m, n, k;
	int64_t count;
};

#define PRODUCTS_MAX 24

/* Adds the three products of a linear layer: forward, d_x, d_w. */
static int
add_layer(struct product *p, int n, int64_t rows, int64_t in, int64_t out, int64_t count)
{
	p[n++] = (struct product){false, true, rows, out, in, count};
	p[n++] = (struct product){false, false, rows, in, out, count};
	p[n++] = (struct product){true, false, out, in, rows, count};
	return n;
}

static int
products_of(const struct bench_shape *s, struct product *p)
{
	const struct model_config *c = &s->config;
	int64_t rows = s->micro_batch * s->tokens, times = s->batch / s->micro_batch, layers = c->n_layers * times;
	int64_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
	int n = 0;

	n = add_layer(p, n, rows, c->d_model, q + 2 * kv, layers);
	n = add_layer(p, n, rows, q, c->d_model, layers);
	n = add_layer(p, n, rows, c->d_model, c->d_ff, c->family == MODEL_FAMILY_GPT2 ? layers : 2 * layers);
	n = add_layer(p, n, rows, c->d_ff, c->d_model, layers);
	return add_layer(p, n, rows, c->d_model, c->vocab_size, times);
}

struct ceiling {
	struct product products[PRODUCTS_MAX];
	int n, threads;
	bool bf16;
	struct kernels *gpu;		/* kernels handle for products by cuBLASLt; NULL: CPU libraries */
	float *a, *b, *c;		/* fp32 only */
	double flops;			/* per step */
};

static float *
filled(int64_t n)
{
	float *x = bench_need(malloc((size_t)n * sizeof(*x)));

	for (int64_t i = 0; i < n; i++)
		x[i] = (float)(i % 997) * 1e-3f - 0.5f;
	return x;
}

static void
ceiling_open(struct ceiling *c, const struct bench_shape *s, struct kernels *kernels, bool bf16, bool gpu)
{
	int64_t most[3] = {0};

	memset(c, 0, sizeof(*c));
	c->threads = kernels_threads(kernels);
	c->bf16 = bf16;
	c->gpu = gpu ? kernels : NULL;
	c->n = products_of(s, c->products);
	for (int i = 0; i < c->n; i++) {
		const struct product *p = &c->products[i];
		int64_t sizes[3] = {p->m * p->k, p->k * p->n, p->m * p->n};

		for (int j = 0; j < 3; j++)
			most[j] = sizes[j] > most[j] ? sizes[j] : most[j];
		c->flops += 2.0 * (double)p->m * (double)p->n * (double)p->k * (double)p->count;
	}
	if (bf16)
		return;
	c->a = filled(most[0]);
	c->b = filled(most[1]);
	c->c = filled(most[2]);
}

static void
ceiling_close(struct ceiling *c)
{
	free(c->a);
	free(c->b);
	free(c->c);
}

/* Seconds of a step's products: each shape is timed once and counted as often as the step has it. */
static double
ceiling_once(struct ceiling *c)
{
	double seconds = 0;
	int before = omp_get_max_threads();

	for (int i = 0; i < c->n && c->bf16; i++) {
		const struct product *p = &c->products[i];

		seconds += (double)p->count * (c->gpu != NULL ? ceiling_gpu_seconds(c->gpu, p->trans_a, p->trans_b, p->m, p->n, p->k) :
		    ceiling_bf16_seconds(p->trans_a, p->m, p->n, p->k, c->threads));
	}
	if (c->bf16)
		return seconds;
	omp_set_num_threads(c->threads);
	for (int i = 0; i < c->n; i++) {
		const struct product *p = &c->products[i];
		double start = bench_now();

		cblas_sgemm(CblasRowMajor, p->trans_a ? CblasTrans : CblasNoTrans, p->trans_b ? CblasTrans : CblasNoTrans, (int)p->m, (int)p->n,
		    (int)p->k, 1, c->a, (int)(p->trans_a ? p->m : p->k), c->b, (int)(p->trans_b ? p->k : p->n), 0, c->c, (int)p->n);
		seconds += (bench_now() - start) * (double)p->count;
	}
	omp_set_num_threads(before);
	return seconds;
}

/* ---- measurements ---- */

static struct comm *comm;		/* one rank */

/*
 * FLOP of a step: 6 per product parameter and token, and for attention 6 * context * width per layer and
 * token, which counts the part of scores and sums below the causal mask, forward and twice that backward.
 */
static double
flops_of(const struct bench_shape *s, const struct ceiling *c)
{
	const struct model_config *m = &s->config;

	return c->flops + 6.0 * (double)(s->batch * s->tokens) * (double)(m->n_layers * s->tokens * m->n_heads * m->head_dim);
}

/* Adds the row of a step's TFLOP/s, compared with the peak of the device. */
static void
mfu_row(struct bench_results *r, const char *name, double flops, double seconds)
{
	struct kernels_device device = {.name = "this device"};
	struct err_note note = {.name = ""};
	char why[160], peak_name[128];
	double peak;

	if (kernels_device(&device, &note) != 0 || (peak = peak_bf16_tflops(device.name)) == 0) {
		snprintf(why, sizeof(why), "the dense bf16 peak of %s is not in bench/train/peak.c; %.4g TFLOP/s", device.name, flops / seconds * 1e-12);
		bench_no_row(r, name, "TFLOP/s", why);
		return;
	}
	snprintf(peak_name, sizeof(peak_name), "dense bf16 peak, %s", device.name);
	bench_row(r, name, flops / seconds * 1e-12, "TFLOP/s", peak_name, peak);
}

/*
 * Measures tokens per second compared with the fastest comparison program, the step's share of the speed of
 * its products, and its share of the device's peak (mfu_name NULL: not).
 */
static void
train_row(const struct bench_args *a, struct bench_peer **peers, struct bench_results *r, const char *shape_name, const char *name,
    const char *share_name, const char *mfu_name, enum kernels_dtype dtype)
{
	const struct kernels_options compute = {.backend = a->backend, .dtype = dtype, .threads = a->threads};
	const struct bench_shape *shape = bench_shape(shape_name, a->tiny);
	double ours[BENCH_ROUNDS_MAX], ceilings[BENCH_ROUNDS_MAX], theirs[BENCH_PEERS_MAX][BENCH_ROUNDS_MAX], best = 0, seconds, top, tokens;
	char best_name[128] = "";
	const char *type = dtype == KERNELS_DTYPE_BF16 ? "bf16" : "fp32";
	bool alone = !bench_wanted(a, name), with_share = share_name != NULL && (!alone || bench_wanted(a, share_name));
	struct ceiling c;
	struct bench_train t;

	if (alone && !with_share)
		return;
	for (int p = 0; p < a->n_peers && !alone; p++)		/* not timed: it finds its fastest variant */
		theirs[p][0] = peers[p] != NULL ? bench_peer_seconds(peers[p], "train", type, shape) : -1;
	bench_train_open(&t, shape, comm, &compute, OPTIM_ADAMW, 0);
	ceiling_open(&c, shape, t.kernels, dtype == KERNELS_DTYPE_BF16, a->backend == KERNELS_BACKEND_CUDA);
	bench_train_once(&t, &t.plain);
	for (int round = 0; round < a->rounds; round++) {
		ours[round] = bench_train_once(&t, &t.plain);
		ceilings[round] = with_share ? ceiling_once(&c) : 1;
		for (int p = 0; p < a->n_peers && !alone; p++)
			if (peers[p] != NULL && theirs[p][0] >= 0)
				theirs[p][round] = bench_peer_seconds(peers[p], "train", type, shape);
	}
	tokens = (double)(shape->batch * shape->tokens);
	seconds = bench_median(ours, a->rounds);
	top = bench_median(ceilings, a->rounds);
	for (int p = 0; p < a->n_peers && !alone; p++)
		if (peers[p] != NULL && theirs[p][0] >= 0) {
			double speed = tokens / bench_median(theirs[p], a->rounds);

			if (speed > best) {
				best = speed;
				snprintf(best_name, sizeof(best_name), "%s, %s", bench_peer_name(peers[p]), bench_peer_variant(peers[p]));
			}
		}
	if (!alone)
		bench_row(r, name, tokens / seconds, "tokens/s", best > 0 ? best_name : NULL, best);
	if (with_share)
		bench_row(r, share_name, c.flops / seconds * 1e-9, "GFLOP/s", c.gpu != NULL ? "its products, cuBLASLt" :
		    c.bf16 ? "its products, oneDNN" : "its products, OpenBLAS", c.flops / top * 1e-9);
	if (mfu_name != NULL && (!alone || bench_wanted(a, mfu_name)))
		mfu_row(r, mfu_name, flops_of(shape, &c), seconds);
	ceiling_close(&c);
	bench_train_close(&t);
}

/* Compares a phase-one step with a plain one. Returns the ratio; 0: not asked for. */
static double
kd_row(const struct bench_args *a, struct bench_results *r, const char *shape_name)
{
	/* dtype 0 is auto, as in trainerd */
	const struct kernels_options compute = {.backend = a->backend, .threads = a->threads};
	double plain[BENCH_ROUNDS_MAX], kd[BENCH_ROUNDS_MAX];
	int n = a->rounds;
	char name[64];
	struct bench_train t;

	snprintf(name, sizeof(name), "kd_step_cost_%s", shape_name);
	bench_train_open(&t, bench_shape(shape_name, a->tiny), comm, &compute, OPTIM_ADAMW, 0);
	bench_train_once(&t, &t.plain);
	bench_train_once(&t, &t.kd);
	for (int i = 0; i < n; i++) {			/* A B, then B A: a slowdown affects both alike */
		if (i % 2 == 0)
			plain[i] = bench_train_once(&t, &t.plain);
		kd[i] = bench_train_once(&t, &t.kd);
		if (i % 2 == 1)
			plain[i] = bench_train_once(&t, &t.plain);
	}
	bench_train_close(&t);
	bench_row(r, name, bench_median(kd, n) * 1e3, "ms", "plain step", bench_median(plain, n) * 1e3);
	return bench_median(kd, n) / bench_median(plain, n);
}

static void
kd_rows(const struct bench_args *a, struct bench_results *r)
{
	double large, small;

	if (!bench_wanted(a, "kd_step_cost"))
		return;
	large = kd_row(a, r, "gpt2_124m");
	small = kd_row(a, r, "small");
	bench_row(r, "kd_step_cost", large > small ? large : small, "x", "plain step", 1);
}

/* Compares a step with Muon with one with AdamW. */
static void
muon_row(const struct bench_args *a, struct bench_results *r, const char *shape_name, const char *name)
{
	const struct kernels_options compute = {.backend = a->backend, .threads = a->threads};
	double seconds[2][BENCH_ROUNDS_MAX];
	struct bench_train t[2];

	if (!bench_wanted(a, name))
		return;
	for (int kind = 0; kind < 2; kind++) {
		bench_train_open(&t[kind], bench_shape(shape_name, a->tiny), comm, &compute, (enum optim_kind)kind, 0);
		bench_train_once(&t[kind], &t[kind].plain);
	}
	for (int i = 0; i < a->rounds; i++)
		for (int j = 0; j < 2; j++) {		/* A B, then B A */
			int kind = (i + j) % 2;

			seconds[kind][i] = bench_train_once(&t[kind], &t[kind].plain);
		}
	bench_row(r, name, bench_median(seconds[OPTIM_MUON], a->rounds) * 1e3, "ms", "the step with AdamW",
	    bench_median(seconds[OPTIM_ADAMW], a->rounds) * 1e3);
	for (int kind = 0; kind < 2; kind++)
		bench_train_close(&t[kind]);
}

static void
document_row(const struct bench_args *a, struct bench_results *r, int64_t length)
{
	const struct kernels_options compute = {.backend = a->backend, .threads = a->threads};
	double seconds[2][BENCH_ROUNDS_MAX];
	struct bench_train t[2];
	char name[64];

	snprintf(name, sizeof(name), "document_step_cost_%lld", (long long)length);
	if (!bench_wanted(a, name))
		return;
	for (int isolated = 0; isolated < 2; isolated++) {
		bench_train_open(&t[isolated], bench_shape("gpt2_124m_16", a->tiny), comm, &compute, OPTIM_ADAMW,
		    isolated * length);
		bench_train_once(&t[isolated], &t[isolated].plain);
	}
	for (int i = 0; i < a->rounds; i++)
		for (int j = 0; j < 2; j++)		/* A B, then B A */
			seconds[(i + j) % 2][i] = bench_train_once(&t[(i + j) % 2], &t[(i + j) % 2].plain);
	bench_row(r, name, bench_median(seconds[1], a->rounds) * 1e3, "ms", "a plain step", bench_median(seconds[0], a->rounds) * 1e3);
	for (int isolated = 0; isolated < 2; isolated++)
		bench_train_close(&t[isolated]);
}

/* The bf16 rows, if auto chooses bf16: the processor has units for it, and the build has oneDNN. */
static void
bf16_rows(const struct bench_args *a, struct bench_peer **peers, struct bench_results *r)
{
	static const char *const names[][3] = {{"gpt2_124m", "train_gpt2_124m_bf16", NULL}, {"small", "train_small_bf16", NULL},
	    {"llama_135m", "train_llama_135m_bf16", NULL}, {"gpt2_124m_16", "train_gpt2_124m_16_bf16", "share_of_ceiling"}};
	static const char why[] = "this processor has no bf16 units, or the build no oneDNN: auto takes fp32";
	const struct kernels_options options = {.backend = a->backend, .threads = a->threads};
	struct err_note note = {.name = ""};
	char class[64] = "";
	bool here = kernels_resolve(&options, class, sizeof(class), &note) == 0 && strncmp(class, "bf16", 4) == 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (here)
			train_row(a, peers, r, names[i][0], names[i][1], names[i][2], NULL, KERNELS_DTYPE_BF16);
		else if (bench_wanted(a, names[i][1]))
			bench_no_row(r, names[i][1], "tokens/s", why);
	}
	if (bench_wanted(a, "share_of_ceiling") && !here)
		bench_no_row(r, "share_of_ceiling", "GFLOP/s", why);
}

/* The rows of --backend cuda, each at a shape that fills a GPU. */
static void
cuda_rows(const struct bench_args *a, struct bench_peer **peers, struct bench_results *r)
{
	train_row(a, peers, r, "gpt2_124m_gpu", "train_gpt2_124m_cuda", "ceiling_gpt2_124m_cuda", "mfu_gpt2_124m_cuda", KERNELS_DTYPE_BF16);
	if (bench_wanted(a, "kd_step_cost_gpt2_124m_gpu"))
		kd_row(a, r, "gpt2_124m_gpu");
	train_row(a, peers, r, "gpt2_1558m_gpu", "train_gpt2_1558m_cuda", "ceiling_gpt2_1558m_cuda", "mfu_gpt2_1558m_cuda", KERNELS_DTYPE_BF16);
}

static void
cpu_rows(const struct bench_args *a, struct bench_peer **peers, struct bench_results *r)
{
	train_row(a, peers, r, "gpt2_124m", "train_gpt2_124m_fp32", "share_of_ceiling_fp32", NULL, KERNELS_DTYPE_FP32);
	train_row(a, peers, r, "small", "train_small_fp32", NULL, NULL, KERNELS_DTYPE_FP32);
	train_row(a, peers, r, "llama_135m", "train_llama_135m_fp32", NULL, NULL, KERNELS_DTYPE_FP32);
	kd_rows(a, r);
	document_row(a, r, 20);
	document_row(a, r, 200);
	muon_row(a, r, "gpt2_124m", "muon_step_cost");
	muon_row(a, r, "gpt2_124m_16", "muon_step_cost_16");
	bf16_rows(a, peers, r);
}

int
main(int argc, char **argv)
{
	struct bench_args a = {.rounds = 5};
	struct bench_peer *peers[BENCH_PEERS_MAX] = {NULL};
	struct bench_results *r;
	int rc;

	bench_args(&a, argc, argv);
	if ((rc = comm_init(&comm, NULL, NULL)) != 0)
		return 70;
	for (int p = 0; p < a.n_peers; p++)
		peers[p] = bench_peer_open(a.peer[p]);
	if (a.n_peers == 0)
		printf("no peers asked: see bench/compare.sh\n");
	r = bench_results_new();
	(a.backend == KERNELS_BACKEND_CUDA ? cuda_rows : cpu_rows)(&a, peers, r);
	for (int p = 0; p < a.n_peers; p++)
		bench_peer_close(&peers[p]);
	comm_finalize(&comm);
	rc = bench_results_end(&r, a.json);
	return rc;
}
