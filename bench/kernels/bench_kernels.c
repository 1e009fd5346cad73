/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_kernels [--json FILE] [--dtype fp32|bf16] [--threads N] [--seconds S] [--cpu-time]
 *     [--batch B --context T --width C --heads H --ff F --vocab V --layers N]
 *
 * Measures one micro-batch of a GPT-2-shaped model, kernel by kernel, compared with the limits of this
 * machine: for matrix products OpenBLAS's own threaded SGEMM of the same shape, for streams memcpy. Kernel
 * and comparison program take turns and the best time of each counts, so that other work on the machine
 * affects both alike. --cpu-time counts processor time instead, which is more reliable for one thread on a
 * busy machine and useless for several. Defaults: the student of the quickstart. With --dtype bf16 there is
 * no comparison program: bench_train measures the ceiling.
 */
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/err/err.h"
#include "base/hash/hash.h"
#include "base/json/json.h"
#include "base/random/random.h"
#include "engine/kernels/kernels.h"

struct shape {
	int64_t b, t, c, h, f, v, layers;
};

/* Everything that a measurement uses. */
struct bench {
	struct kernels *k;
	int threads;
	double seconds;
	struct shape s;
	enum dtype dtype;
	float *x, *y, *w, *b, *d_x, *d_w, *d_b, *stat, *big, *other;	/* enough for the largest use */
	int32_t *next;
	struct json *results;
	double step, ceiling;				/* seconds of a micro-batch: ours; products alone */
};

/* One product: op(A)[m, k] op(B)[k, n]. */
struct product {
	bool trans_a, trans_b;
	int64_t m, n, k;
	float beta;
};

static clockid_t bench_clock = CLOCK_MONOTONIC;

static double
now(void)
{
	struct timespec ts;

	clock_gettime(bench_clock, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void *
need(void *p)
{
	if (p == NULL) {
		fprintf(stderr, "bench_kernels: no memory\n");
		exit(71);
	}
	return p;
}

static void
peer_product(struct bench *b, const struct product *p)
{
	omp_set_num_threads(b->threads);
	cblas_sgemm(CblasRowMajor, p->trans_a ? CblasTrans : CblasNoTrans, p->trans_b ? CblasTrans : CblasNoTrans, (int)p->m, (int)p->n,
	    (int)p->k, 1, b->x, (int)(p->trans_a ? p->m : p->k), b->w, (int)(p->trans_b ? p->k : p->n), p->beta, b->other, (int)p->n);
}

/* Best seconds of one call of our kernel and of the comparison program's products, which take turns. */
static void
measure(struct bench *b, void (*ours)(struct bench *b), const struct product *peer, int n_peer, double *best, double *best_peer)
{
	double until = now() + b->seconds;

	*best = *best_peer = INFINITY;
	for (int i = 0; i < 5 || now() < until; i++) {
		double start = now(), middle;

		ours(b);
		middle = now();
		for (int j = 0; j < n_peer; j++)
			peer_product(b, &peer[j]);
		if (i > 0) {			/* the first warms up */
			*best = fmin(*best, middle - start);
			*best_peer = fmin(*best_peer, now() - middle);
		}
	}
	if (n_peer == 0)
		*best_peer = 0;
}

static void
report(struct bench *b, const char *name, double value, const char *unit, const char *peer, double peer_value)
{
	struct json *row = json_new_object();
	double ratio = peer != NULL ? value / peer_value : 0;

	if (peer != NULL)
		printf("%-28s %10.3f %-8s %-24s %10.3f   %.2f\n", name, value, unit, peer, peer_value, ratio);
	else
		printf("%-28s %10.3f %s\n", name, value, unit);
	json_put(row, "name", json_new_text(name));
	json_put(row, "value", json_new_num(value));
	json_put(row, "unit", json_new_text(unit));
	json_put(row, "peer", peer != NULL ? json_new_text(peer) : json_new_null());
	json_put(row, "peer_value", peer != NULL ? json_new_num(peer_value) : json_new_null());
	json_put(row, "ratio", peer != NULL ? json_new_num(ratio) : json_new_null());
	json_push(b->results, row);
}

/* Measures a kernel that consists of products, in GFLOP/s. count: how often a micro-batch uses it. */
static void
products(struct bench *b, const char *name, void (*ours)(struct bench *b), const struct product *p, int n, int64_t count)
{
	double best, peer, flops = 0;

	for (int i = 0; i < n; i++)
		flops += 2.0 * (double)p[i].m * (double)p[i].n * (double)p[i].k;
	if (b->dtype != DTYPE_F32)
		n = 0;
	measure(b, ours, p, n, &best, &peer);
	report(b, name, flops / best / 1e9, "GFLOP/s", n > 0 ? "OpenBLAS, own threads" : NULL, n > 0 ? flops / peer / 1e9 : 0);
	b->step += (double)count * best;
	b->ceiling += (double)count * peer;
}

/* Measures a kernel that is not a product; all its time is beyond the ceiling. */
static void
plain(struct bench *b, const char *name, void (*ours)(struct bench *b), int64_t count)
{
	double best, peer;

	measure(b, ours, NULL, 0, &best, &peer);
	report(b, name, best * 1e6, "us", NULL, 0);
	b->step += (double)count * best;
}

static int64_t lin_in, lin_out;		/* sizes of the linear layer being measured */

static struct tensor
f32(float *p, int64_t a, int64_t c)
{
	return tensor_2d(p, DTYPE_F32, a, c);
}

/* A matrix in the compute dtype. */
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
	struct kernels_label_spec spec = {.score = true, .kind = KERNELS_LABEL_SAMPLED, .n = 50, .tau = 1, .seed = 1};
	int32_t *ints = (int32_t *)(void *)b->big;
	struct kernels_labels out = {.loss_nats = b->stat, .rank = ints, .n_unique = ints + m, .ids = ints + 2 * m, .counts = ints + 52 * m};
	uint64_t seqs[1024] = {0};

	kernels_output_label(b->k, &h, &w, NULL, &spec, b->next, seqs, b->s.b, b->s.t, &out);
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
	struct tensor x = mat(b, b->x, m, b->s.c), y = mat(b, b->y, m, b->s.c), g = mat(b, b->w, 1, b->s.c), bias = mat(b, b->b, 1, b->s.c);

	kernels_layernorm(b->k, &y, b->stat, b->stat + m, &x, &g, &bias, 1e-5f);
}

static void
layernorm_bwd(struct bench *b)
{
	int64_t m = b->s.b * b->s.t;
	struct tensor x = mat(b, b->x, m, b->s.c), d_y = mat(b, b->y, m, b->s.c), d_x = mat(b, b->d_x, m, b->s.c), g = mat(b, b->w, 1, b->s.c);
	struct tensor d_g = f32(b->d_w, 1, b->s.c), d_b = f32(b->d_b, 1, b->s.c);

	kernels_layernorm_bwd(b->k, &d_x, &d_g, &d_b, &d_y, &x, &g, b->stat, b->stat + m, true);
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
	struct tensor y = mat(b, b->y, b->s.b * b->s.t, b->s.c), wte = mat(b, b->w, b->s.v, b->s.c), wpe = mat(b, b->x, b->s.t, b->s.c);

	kernels_embed(b->k, &y, b->next, &wte, &wpe, b->s.b, b->s.t, NULL);
}

static void
embed_bwd(struct bench *b)
{
	struct tensor d_y = mat(b, b->y, b->s.b * b->s.t, b->s.c), d_wte = f32(b->d_w, b->s.v, b->s.c), d_wpe = mat(b, b->d_x, b->s.t, b->s.c);

	kernels_embed_bwd(b->k, &d_wte, &d_wpe, &d_y, b->next, b->s.b, b->s.t, NULL);
}

#define ADAMW_N (4 << 20)

static void
stream(struct bench *b)
{
	struct kernels_adamw a = {.lr = 1e-4f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.1f, .grad_scale = 1, .step = 10};
	float *p = need(kernels_alloc(b->k, (size_t)ADAMW_N * 4 * sizeof(float)));
	double best = INFINITY, peer = INFINITY;

	for (int i = 0; i < 12; i++) {
		double start = now(), middle;

		kernels_adamw(b->k, p, p + ADAMW_N, p + 2 * ADAMW_N, p + 3 * ADAMW_N, NULL, DTYPE_F32, ADAMW_N, &a);
		middle = now();
		memcpy(p, p + 2 * ADAMW_N, (size_t)2 * ADAMW_N * sizeof(float));
		if (i > 1) {
			best = fmin(best, middle - start);
			peer = fmin(peer, now() - middle);
		}
		memset(p, 0, (size_t)ADAMW_N * 4 * sizeof(float));
	}
	report(b, "adamw, 4 Mi parameters", ADAMW_N * 7.0 * 4 / best / 1e9, "GB/s", "memcpy, one thread", ADAMW_N * 4.0 * 4 / peer / 1e9);
	kernels_free(b->k, p);
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
	int64_t m = b->s.b * b->s.t, c = b->s.c, v = b->s.v;
	struct product loss[3] = {{false, true, m, v, c, 0}, {false, false, m, c, v, 0}, {true, false, v, c, m, 1}};
	double tokens;

	layer(b, "attention in", c, 3 * c);
	layer(b, "attention out", c, c);
	layer(b, "mlp in", c, b->s.f);
	layer(b, "mlp out", b->s.f, c);
	products(b, "output loss", output_loss, loss, 3, 1);
	plain(b, "attention", attention, b->s.layers);
	plain(b, "attention backward", attention_bwd, b->s.layers);
	plain(b, "layernorm", layernorm, 2 * b->s.layers + 1);
	plain(b, "layernorm backward", layernorm_bwd, 2 * b->s.layers + 1);
	plain(b, "gelu", gelu, b->s.layers);
	plain(b, "gelu backward", gelu_bwd, b->s.layers);
	plain(b, "embed", embed, 1);
	plain(b, "embed backward", embed_bwd, 1);
	tokens = (double)m / b->step;
	report(b, "micro-batch", tokens, "token/s", b->ceiling > 0 ? "its products alone" : NULL, (double)m / b->ceiling);
	/* the work of a teacher, not part of a training step */
	products(b, "score and 50 samples", output_label, loss, 1, 0);
	stream(b);
}

static int
write_json(const struct bench *b, const char *path)
{
	char *text = json_print(b->results, true);
	FILE *f = fopen(path, "w");
	int bad = f == NULL || text == NULL || fputs(text, f) < 0;

	if (f != NULL && fclose(f) != 0)
		bad = 1;
	if (bad)
		fprintf(stderr, "bench_kernels: cannot write %s\n", path);
	free(text);
	return bad ? 74 : 0;
}

/* Converts x to the compute dtype in place; bf16 numbers fill the first half of the array. */
static void
narrow(struct bench *b, float *x, int64_t n)
{
	uint16_t *to = (uint16_t *)(void *)x;

	for (int64_t i = 0; i < n && b->dtype == DTYPE_BF16; i++)
		to[i] = tensor_f32_to_bf16(x[i]);
}

/* Allocates all arrays at once and fills them with numbers of the magnitude of activations and weights. */
static void
fill(struct bench *b, int64_t most)
{
	float **parts[] = {&b->x, &b->y, &b->w, &b->b, &b->d_x, &b->d_w, &b->d_b, &b->stat, &b->big, &b->other};
	int n = sizeof(parts) / sizeof(parts[0]);
	float *all = need(kernels_alloc(b->k, (size_t)n * (size_t)most * sizeof(float)));
	int64_t m = b->s.b * b->s.t;

	for (int i = 0; i < n; i++)
		*parts[i] = all + (int64_t)i * most;
	b->next = need(malloc((size_t)m * sizeof(*b->next)));
	for (int64_t i = 0; i < m || i < most; i++) {
		uint32_t words[4];

		random_words(1, RANDOM_PURPOSE_INIT, 0, 0, (uint32_t)i, words);
		if (i < m)
			b->next[i] = (int32_t)(words[0] % (uint32_t)b->s.v);
		for (int j = 0; j < n; j++)
			(*parts[j])[i] = (j == 2 ? 0.1f : 1) * (2 * (float)random_uniform53(words[j % 4], 0) - 1);
	}
	for (int j = 0; j < n; j++)
		if (parts[j] != &b->d_w && parts[j] != &b->d_b && parts[j] != &b->stat)
			narrow(b, *parts[j], most);
	kernels_params(b->k, b->w, most, 1);
}

int
main(int argc, char **argv)
{
	struct bench b = {.seconds = 0.5, .s = {8, 128, 160, 4, 640, 4096, 4}};
	const struct {
		const char *name;
		int64_t *value;
	} sizes[] = {{"--batch", &b.s.b}, {"--context", &b.s.t}, {"--width", &b.s.c}, {"--heads", &b.s.h}, {"--ff", &b.s.f},
	    {"--vocab", &b.s.v}, {"--layers", &b.s.layers}};
	const char *json = NULL;
	struct err_note note;
	char text[512];
	int64_t widest, most;
	struct kernels_options options = {.dtype = KERNELS_DTYPE_FP32};
	int rc;

	for (int i = 1; i < argc; i++) {
		int64_t *value = NULL;

		for (size_t j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++)
			if (strcmp(argv[i], sizes[j].name) == 0)
				value = sizes[j].value;
		if (i + 1 < argc && value != NULL && (*value = atoll(argv[i + 1])) > 0)
			i++;
		else if (i + 1 < argc && strcmp(argv[i], "--json") == 0)
			json = argv[++i];
		else if (i + 1 < argc && strcmp(argv[i], "--threads") == 0)
			options.threads = atoi(argv[++i]);
		else if (i + 1 < argc && strcmp(argv[i], "--dtype") == 0 && (strcmp(argv[i + 1], "fp32") == 0 || strcmp(argv[i + 1], "bf16") == 0))
			options.dtype = strcmp(argv[++i], "bf16") == 0 ? KERNELS_DTYPE_BF16 : KERNELS_DTYPE_FP32;
		else if (strcmp(argv[i], "--cpu-time") == 0)
			bench_clock = CLOCK_PROCESS_CPUTIME_ID;
		else if (i + 1 < argc && strcmp(argv[i], "--seconds") == 0)
			b.seconds = atof(argv[++i]);
		else {
			fprintf(stderr, "usage: bench_kernels [--json FILE] [--dtype fp32|bf16] [--threads N] [--seconds S] [--cpu-time] [--batch B] [--context T] [--width C] "
			    "[--heads H] [--ff F] [--vocab V] [--layers N]\n");
			return 64;
		}
	}
	if (b.s.b > 1024 || b.s.c % b.s.h != 0) {
		fprintf(stderr, "bench_kernels: --batch at most 1024, --heads divides --width\n");
		return 64;
	}
	if ((rc = kernels_new(&b.k, &options, &note)) != 0) {
		fprintf(stderr, "bench_kernels: %s\n", err_note_str(&note, rc, text, sizeof(text)));
		return err_exit_code(rc);
	}
	b.threads = kernels_threads(b.k);
	b.dtype = kernels_dtype(b.k);
	printf("%s\n", kernels_describe(b.k));
	widest = b.s.v > 3 * b.s.c ? b.s.v : 3 * b.s.c;
	widest = b.s.f > widest ? b.s.f : widest;
	most = b.s.b * b.s.t * widest > b.s.v * b.s.c ? b.s.b * b.s.t * widest : b.s.v * b.s.c;
	fill(&b, most);
	b.results = need(json_new_array());
	run(&b);
	rc = json != NULL ? write_json(&b, json) : 0;
	json_close(&b.results);
	free(b.next);
	kernels_free(b.k, b.x);
	kernels_destroy(&b.k);
	return rc;
}
