/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_kernels [--dtype fp32|bf16] [--seconds S] [--batch B] [--context T] [--width C] [--heads H] [--ff F] [--vocab V] [--layers N]
 *               [--backend NAME] [--threads N] [--cpu-time] [--tiny] [--only ROW] [--json FILE]
 *
 * One micro-batch of a GPT-2-shaped model, kernel by kernel, beside what the device can do: matrix products beside OpenBLAS's own threaded
 * SGEMM at the same shape (fp32 on CPUs; elsewhere bench_train measures that ceiling), kernels that move data beside a copy of as many
 * bytes, attention beside the fastest product. Kernel and SGEMM take turns, and the best time of each counts. --cpu-time counts
 * processor time instead: on a busy machine it says more about one thread, and nothing about several. Defaults: the quickstart's student.
 */
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err/err.h"
#include "base/random/random.h"
#include "bench/common/bench.h"
#include "engine/kernels/kernels.h"

#define SAMPLES 50
#define NUMBERS (1 << 20)		/* random ones that an array repeats */
#define GPU_CALLS 10			/* between two waits for the device, so that a wait is not measured */

struct shape {
	int64_t b, t, c, h, f, v, layers;
};

/* All a measurement may touch. */
struct bench {
	struct bench_args args;
	struct bench_results *results;
	struct kernels *k;
	int threads, calls;
	double seconds;
	struct shape s;
	enum dtype dtype;
	float *x, *y, *w, *b, *d_x, *d_w, *d_b, *stat, *big, *other;	/* device memory, enough for the largest use */
	int32_t *next;
	struct kernels_labels labels;			/* host memory */
	double step, ceiling;				/* seconds of a micro-batch: ours; only its products, as the peer makes them */
	float *stream;					/* [4 * n_adamw] */
	int64_t n_adamw;
	double copy_bytes_per_s, product_flops_per_s;	/* of a copy; of the fastest product so far */
};

/* One product: op(A)[m, k] op(B)[k, n]. */
struct product {
	bool trans_a, trans_b;
	int64_t m, n, k;
	float beta;
};

static bool
on_gpu(const struct bench *b)
{
	return b->args.backend == KERNELS_BACKEND_CUDA;
}

/* Products in fp32 on CPUs are compared with OpenBLAS's own threads. */
static bool
has_peer(const struct bench *b)
{
	return b->dtype == DTYPE_F32 && !on_gpu(b);
}

static void
peer_product(struct bench *b, const struct product *p)
{
	omp_set_num_threads(b->threads);
	cblas_sgemm(CblasRowMajor, p->trans_a ? CblasTrans : CblasNoTrans, p->trans_b ? CblasTrans : CblasNoTrans, (int)p->m, (int)p->n,
	    (int)p->k, 1, b->x, (int)(p->trans_a ? p->m : p->k), b->w, (int)(p->trans_b ? p->k : p->n), p->beta, b->other, (int)p->n);
}

/* Best seconds of one call of ours and of the peer's products, in turns. */
static void
measure(struct bench *b, void (*ours)(struct bench *b), const struct product *peer, int n_peer, double *best, double *best_peer)
{
	double until = bench_now() + b->seconds;

	*best = *best_peer = INFINITY;
	for (int i = 0; i < (b->args.tiny ? 2 : 5) || bench_now() < until; i++) {
		double start = bench_now(), middle;

		for (int j = 0; j < b->calls; j++)
			ours(b);
		kernels_sync(b->k);
		middle = bench_now();
		for (int j = 0; j < n_peer; j++)
			peer_product(b, &peer[j]);
		if (i > 0) {			/* the first warms up */
			*best = fmin(*best, (middle - start) / b->calls);
			*best_peer = fmin(*best_peer, bench_now() - middle);
		}
	}
	if (n_peer == 0)
		*best_peer = 0;
}

/* A kernel made of products: GFLOP/s beside the peer's. count: how often a micro-batch uses it. */
static void
products(struct bench *b, const char *name, void (*ours)(struct bench *b), const struct product *p, int n, int64_t count)
{
	double best, peer, flops = 0;

	if (!bench_wanted(&b->args, name))
		return;
	for (int i = 0; i < n; i++)
		flops += 2.0 * (double)p[i].m * (double)p[i].n * (double)p[i].k;
	if (!has_peer(b))
		n = 0;
	measure(b, ours, p, n, &best, &peer);
	bench_row(b->results, name, flops / best / 1e9, "GFLOP/s", n > 0 ? "OpenBLAS, own threads" : NULL, n > 0 ? flops / peer / 1e9 : 0);
	b->step += (double)count * best;
	b->ceiling += (double)count * peer;
	b->product_flops_per_s = fmax(b->product_flops_per_s, flops / best);
}

/* A kernel that is no plain product: its time beside that of as many FLOPs of the fastest product, or else of a copy of as many bytes. */
static void
plain(struct bench *b, const char *name, void (*ours)(struct bench *b), int64_t count, double bytes, double flops)
{
	double best, peer;

	if (!bench_wanted(&b->args, name))
		return;
	measure(b, ours, NULL, 0, &best, &peer);
	if (flops > 0)
		bench_row(b->results, name, best * 1e6, "us", "its products at the best speed above", flops / b->product_flops_per_s * 1e6);
	else
		bench_row(b->results, name, best * 1e6, "us", "a copy of as many bytes", bytes / b->copy_bytes_per_s * 1e6);
	b->step += (double)count * best;
}

static int64_t lin_in, lin_out;		/* the linear layer being measured; one main thread */

static struct tensor
f32(float *p, int64_t a, int64_t c)
{
	return tensor_2d(p, DTYPE_F32, a, c);
}

/* In the compute dtype. */
static struct tensor
mat(const struct bench *b, float *p, int64_t a, int64_t c)
{
	return tensor_2d(p, b->dtype, a, c);
}

static void
linear(struct bench *b)
{
	int64_t m = b->s.b * b->s.t;
	struct tensor x = mat(b, b->x, m, lin_in), y = mat(b, b->y, m, lin_out), w = mat(b, b->w, lin_in, lin_out), bias = mat(b, b->b, 1, lin_out);

	kernels_linear(b->k, &y, &x, &w, &bias, KERNELS_IN_OUT, false);
}

static void
linear_bwd_x(struct bench *b)
{
	int64_t m = b->s.b * b->s.t;
	struct tensor d_x = mat(b, b->d_x, m, lin_in), d_y = mat(b, b->y, m, lin_out), w = mat(b, b->w, lin_in, lin_out);

	kernels_linear_bwd_x(b->k, &d_x, &d_y, &w, KERNELS_IN_OUT, false);
}

static void
linear_bwd_w(struct bench *b)
{
	int64_t m = b->s.b * b->s.t;
	struct tensor x = mat(b, b->x, m, lin_in), d_y = mat(b, b->y, m, lin_out), d_w = f32(b->d_w, lin_in, lin_out), d_b = f32(b->d_b, 1, lin_out);

	kernels_linear_bwd_w(b->k, &d_w, &d_b, &d_y, &x, KERNELS_IN_OUT, true);
}

static void
output_loss(struct bench *b)
{
	int64_t m = b->s.b * b->s.t;
	struct tensor h = mat(b, b->x, m, b->s.c), w = mat(b, b->w, b->s.v, b->s.c), d_h = mat(b, b->d_x, m, b->s.c), d_w = f32(b->d_w, b->s.v, b->s.c);
	struct kernels_targets targets = {.n_rows = m, .next = b->next};
	struct kernels_loss_sums sums;

	kernels_output_loss(b->k, &h, &w, NULL, &targets, 1e-3f, &d_h, &d_w, &sums);
}

static void
output_label(struct bench *b)
{
	int64_t m = b->s.b * b->s.t;
	struct tensor h = mat(b, b->x, m, b->s.c), w = mat(b, b->w, b->s.v, b->s.c);
	struct kernels_label_spec spec = {.score = true, .kind = KERNELS_LABEL_SAMPLED, .n = SAMPLES, .tau = 1, .seed = 1};
	uint64_t seqs[1024] = {0};

	kernels_output_label(b->k, &h, &w, NULL, &spec, b->next, seqs, b->s.b, b->s.t, &b->labels);
}

static struct kernels_heads
heads(struct bench *b, float *all, int64_t third)
{
	char *data = (char *)all + (size_t)(third * b->s.c) * dtype_size(b->dtype);

	return (struct kernels_heads){data, b->dtype, 3 * b->s.c, b->s.h, b->s.c / b->s.h};
}

static void
attention(struct bench *b)
{
	struct kernels_heads q = heads(b, b->big, 0), key = heads(b, b->big, 1), value = heads(b, b->big, 2);
	struct tensor o = mat(b, b->y, b->s.b * b->s.t, b->s.c);

	kernels_attention(b->k, &o, b->stat, &q, &key, &value, NULL, b->s.b, b->s.t);
}

static void
attention_bwd(struct bench *b)
{
	struct kernels_heads q = heads(b, b->big, 0), key = heads(b, b->big, 1), value = heads(b, b->big, 2);
	struct kernels_heads d_q = heads(b, b->other, 0), d_key = heads(b, b->other, 1), d_value = heads(b, b->other, 2);
	struct tensor o = mat(b, b->y, b->s.b * b->s.t, b->s.c), d_o = mat(b, b->x, b->s.b * b->s.t, b->s.c);

	kernels_attention_bwd(b->k, &d_q, &d_key, &d_value, &d_o, &o, b->stat, &q, &key, &value, NULL, b->s.b, b->s.t);
}

static void
layernorm(struct bench *b)
{
	int64_t m = b->s.b * b->s.t;
	struct tensor x = f32(b->other, m, b->s.c), y = mat(b, b->y, m, b->s.c), g = mat(b, b->w, 1, b->s.c), bias = mat(b, b->b, 1, b->s.c);

	kernels_layernorm(b->k, &y, b->stat, b->stat + m, &x, &g, &bias, 1e-5f);
}

static void
layernorm_bwd(struct bench *b)
{
	int64_t m = b->s.b * b->s.t;
	struct tensor x = f32(b->other, m, b->s.c), d_y = mat(b, b->y, m, b->s.c), d_x = f32(b->d_x, m, b->s.c), g = mat(b, b->w, 1, b->s.c);
	struct tensor d_g = f32(b->d_w, 1, b->s.c), d_b = f32(b->d_b, 1, b->s.c);

	kernels_layernorm_bwd(b->k, &d_x, &d_g, &d_b, &d_y, &x, &g, b->stat, b->stat + m, true);
}

/* A bf16 gradient is widened into that of the residual stream, or the reverse. */
static void
convert(struct bench *b)
{
	kernels_convert(b->k, b->y, b->dtype, b->other, DTYPE_F32, b->s.b * b->s.t * b->s.c);
}

static void
gelu(struct bench *b)
{
	struct tensor x = mat(b, b->big, b->s.b * b->s.t, b->s.f), y = mat(b, b->y, b->s.b * b->s.t, b->s.f);

	kernels_gelu(b->k, &y, &x);
}

static void
gelu_bwd(struct bench *b)
{
	struct tensor x = mat(b, b->big, b->s.b * b->s.t, b->s.f), y = mat(b, b->y, b->s.b * b->s.t, b->s.f);

	kernels_gelu_bwd(b->k, &y, &y, &x);
}

static void
embed(struct bench *b)
{
	struct tensor y = f32(b->y, b->s.b * b->s.t, b->s.c), wte = mat(b, b->w, b->s.v, b->s.c), wpe = mat(b, b->x, b->s.t, b->s.c);

	kernels_embed(b->k, &y, b->next, &wte, &wpe, b->s.b, b->s.t, NULL);
}

static void
embed_bwd(struct bench *b)
{
	struct tensor d_y = f32(b->other, b->s.b * b->s.t, b->s.c), d_wte = f32(b->d_w, b->s.v, b->s.c), d_wpe = f32(b->d_x, b->s.t, b->s.c);

	kernels_embed_bwd(b->k, &d_wte, &d_wpe, &d_y, b->next, b->s.b, b->s.t, NULL);
}

/* p, moments and gradient side by side. */
static void
adamw(struct bench *b)
{
	struct kernels_adamw a = {.lr = 1e-4f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.1f, .grad_scale = 1, .step = 10};

	kernels_adamw(b->k, b->stream, b->stream + b->n_adamw, b->stream + 2 * b->n_adamw, b->stream + 3 * b->n_adamw, NULL, DTYPE_F32, b->n_adamw, &a);
}

static void
copy(struct bench *b)
{
	kernels_copy(b->k, b->stream, b->stream + 2 * b->n_adamw, 2 * (size_t)b->n_adamw * sizeof(float));
}

/* The speed of a copy, which the kernels that move data are compared with. */
static void
stream(struct bench *b)
{
	double best, none;

	measure(b, copy, NULL, 0, &best, &none);
	b->copy_bytes_per_s = 4.0 * (double)b->n_adamw * sizeof(float) / best;
	bench_row(b->results, "copy", b->copy_bytes_per_s / 1e9, "GB/s", NULL, 0);
}

static void
layer(struct bench *b, const char *name, int64_t in, int64_t out)
{
	int64_t m = b->s.b * b->s.t;
	struct product fwd = {false, false, m, out, in, 0}, bwd_x = {false, true, m, in, out, 0}, bwd_w = {true, false, in, out, m, 1};
	char text[64];

	lin_in = in;
	lin_out = out;
	snprintf(text, sizeof(text), "%s forward", name);
	products(b, text, linear, &fwd, 1, b->s.layers);
	snprintf(text, sizeof(text), "%s d_x", name);
	products(b, text, linear_bwd_x, &bwd_x, 1, b->s.layers);
	snprintf(text, sizeof(text), "%s d_w", name);
	products(b, text, linear_bwd_w, &bwd_w, 1, b->s.layers);
}

static void
run(struct bench *b)
{
	int64_t m = b->s.b * b->s.t, c = b->s.c, v = b->s.v, layers = b->s.layers;
	struct product loss[3] = {{false, true, m, v, c, 0}, {false, false, m, c, v, 0}, {true, false, v, c, m, 1}};
	double wide = (double)(m * c) * sizeof(float), narrow = (double)(m * c) * (double)dtype_size(b->dtype);	/* bytes of [m, c] */
	double inner = (double)(m * b->s.f) * (double)dtype_size(b->dtype);
	double pairs = (double)b->s.b * (double)b->s.t * (double)b->s.t / 2 * (double)c;	/* of queries and keys, times the width of the heads */

	stream(b);
	layer(b, "attention in", c, 3 * c);
	layer(b, "attention out", c, c);
	layer(b, "mlp in", c, b->s.f);
	layer(b, "mlp out", b->s.f, c);
	products(b, "output loss", output_loss, loss, 3, 1);
	plain(b, "attention", attention, layers, 0, 4 * pairs);
	plain(b, "attention backward", attention_bwd, layers, 0, 10 * pairs);
	plain(b, "layernorm", layernorm, 2 * layers + 1, wide + narrow, 0);
	plain(b, "layernorm backward", layernorm_bwd, 2 * layers + 1, 3 * wide + narrow, 0);
	plain(b, "gelu", gelu, layers, 2 * inner, 0);
	plain(b, "gelu backward", gelu_bwd, layers, 3 * inner, 0);
	if (b->dtype != DTYPE_F32)
		plain(b, "rounding", convert, 2 * layers, wide + narrow, 0);
	plain(b, "embed", embed, 1, wide + narrow, 0);
	plain(b, "embed backward", embed_bwd, 1, 3 * wide, 0);
	if (b->args.only == NULL)
		bench_row(b->results, "micro-batch", (double)m / b->step, "tokens/s", b->ceiling > 0 ? "its products alone" : NULL,
		    b->ceiling > 0 ? (double)m / b->ceiling : 0);
	/* what a teacher does; not part of a training step */
	products(b, "score and 50 samples", output_label, loss, 1, 0);
	plain(b, b->args.tiny ? "adamw" : "adamw, 4 Mi parameters", adamw, 0, 7.0 * (double)b->n_adamw * sizeof(float), 0);
}

/* Device memory with numbers of the size activations and weights have, made on the host. */
static void
fill(struct bench *b)
{
	float **parts[] = {&b->x, &b->y, &b->w, &b->b, &b->d_x, &b->d_w, &b->d_b, &b->stat, &b->big, &b->other};
	int64_t m = b->s.b * b->s.t, widest = b->s.f > 3 * b->s.c ? b->s.f : 3 * b->s.c, most;
	int64_t made;
	char *host;
	uint32_t words[4];

	if (has_peer(b) && b->s.v > widest)
		widest = b->s.v;		/* the peer's output layer makes all logits */
	most = m * widest > b->s.v * b->s.c ? m * widest : b->s.v * b->s.c;
	made = most < NUMBERS ? most : NUMBERS;
	host = bench_need(malloc((size_t)most * sizeof(float)));
	for (size_t j = 0; j < sizeof(parts) / sizeof(parts[0]); j++) {
		bool is_fp32 = b->dtype == DTYPE_F32 || parts[j] == &b->d_w || parts[j] == &b->d_b || parts[j] == &b->stat || parts[j] == &b->other;
		size_t size = is_fp32 ? sizeof(float) : sizeof(uint16_t);

		for (int64_t i = 0; i < made; i++) {
			float value;
			uint16_t narrow;

			random_words(1, RANDOM_PURPOSE_INIT, j, 0, (uint32_t)i, words);
			value = (parts[j] == &b->w ? 0.1f : 1) * (2 * (float)random_uniform53(words[0], 0) - 1);
			narrow = tensor_f32_to_bf16(value);
			memcpy(host + (size_t)i * size, is_fp32 ? (const void *)&value : &narrow, size);
		}
		for (int64_t i = made; i < most; i += made)	/* again and again */
			memcpy(host + (size_t)i * size, host, (size_t)(most - i < made ? most - i : made) * size);
		*parts[j] = bench_need(kernels_alloc(b->k, (size_t)most * sizeof(float)));
		kernels_upload(b->k, *parts[j], host, (size_t)most * size);
	}
	b->next = bench_need(malloc((size_t)m * sizeof(*b->next)));
	for (int64_t i = 0; i < m; i++) {
		random_words(1, RANDOM_PURPOSE_INIT, 99, 0, (uint32_t)i, words);
		b->next[i] = (int32_t)(words[0] % (uint32_t)b->s.v);
	}
	free(host);
	b->stream = bench_need(kernels_alloc(b->k, 4 * (size_t)b->n_adamw * sizeof(float)));
	kernels_zero(b->k, b->stream, 4 * (size_t)b->n_adamw * sizeof(float));
	b->labels = (struct kernels_labels){.loss_nats = bench_need(calloc((size_t)m, sizeof(float))),
	    .rank = bench_need(calloc((size_t)m, sizeof(int32_t))), .n_unique = bench_need(calloc((size_t)m, sizeof(int32_t))),
	    .ids = bench_need(calloc((size_t)m * SAMPLES, sizeof(int32_t))), .counts = bench_need(calloc((size_t)m * SAMPLES, sizeof(int32_t)))};
	kernels_params(b->k, b->w, most, 1);
}

static void
release(struct bench *b)
{
	float *parts[] = {b->x, b->y, b->w, b->b, b->d_x, b->d_w, b->d_b, b->stat, b->big, b->other, b->stream};

	for (size_t j = 0; j < sizeof(parts) / sizeof(parts[0]); j++)
		kernels_free(b->k, parts[j]);
	free(b->labels.loss_nats);
	free(b->labels.rank);
	free(b->labels.n_unique);
	free(b->labels.ids);
	free(b->labels.counts);
	free(b->next);
	kernels_destroy(&b->k);
}

/* Takes its own options out of argv; what is left is for bench_args. Returns how many are left, or -1. */
static int
own_options(struct bench *b, struct kernels_options *options, int argc, char **argv)
{
	const struct {
		const char *name;
		int64_t *value;
	} sizes[] = {{"--batch", &b->s.b}, {"--context", &b->s.t}, {"--width", &b->s.c}, {"--heads", &b->s.h}, {"--ff", &b->s.f},
	    {"--vocab", &b->s.v}, {"--layers", &b->s.layers}};
	int left = 1;

	for (int i = 1; i < argc; i++) {
		const char *text = i + 1 < argc ? argv[i + 1] : "";
		int64_t *size = NULL;
		bool good;

		for (size_t j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++)
			if (strcmp(argv[i], sizes[j].name) == 0)
				size = sizes[j].value;
		if (size != NULL) {
			good = (*size = atoll(text)) > 0;
		} else if (strcmp(argv[i], "--seconds") == 0) {
			good = (b->seconds = atof(text)) > 0;
		} else if (strcmp(argv[i], "--dtype") == 0) {
			good = strcmp(text, "fp32") == 0 || strcmp(text, "bf16") == 0;
			options->dtype = strcmp(text, "bf16") == 0 ? KERNELS_DTYPE_BF16 : KERNELS_DTYPE_FP32;
		} else {
			argv[left++] = argv[i];
			continue;
		}
		if (!good)
			return -1;
		i++;
	}
	return b->s.b <= 1024 && b->s.c % b->s.h == 0 ? left : -1;
}

int
main(int argc, char **argv)
{
	struct bench b = {.args = {.rounds = 1}, .seconds = 0.5, .s = {8, 128, 160, 4, 640, 4096, 4}};
	struct kernels_options options = {.dtype = KERNELS_DTYPE_FP32};
	struct err_note note;
	int rc;

	if ((argc = own_options(&b, &options, argc, argv)) < 0) {
		fprintf(stderr, "bench_kernels: expected --dtype fp32|bf16, --seconds above 0, and --batch (at most 1024), --context, --width, --heads (divides "
		    "the width), --ff, --vocab, --layers above 0\n");
		return 64;
	}
	bench_args(&b.args, argc, argv);
	if (b.args.tiny) {
		b.s = (struct shape){1, 64, 64, 2, 128, 256, 1};
		b.seconds = 1e-3;
	}
	options.backend = b.args.backend;
	options.threads = b.args.threads;
	if ((rc = kernels_new(&b.k, &options, &note)) != 0)
		bench_fail("bench_kernels", rc, &note);
	b.threads = kernels_threads(b.k);
	b.dtype = kernels_dtype(b.k);
	b.calls = on_gpu(&b) && !b.args.tiny ? GPU_CALLS : 1;
	b.n_adamw = b.args.tiny ? 1 << 12 : 4 << 20;
	printf("%s\n", kernels_describe(b.k));
	b.results = bench_results_new();
	fill(&b);
	run(&b);
	release(&b);
	return bench_results_end(&b.results, b.args.json);
}
