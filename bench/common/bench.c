/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err/err.h"
#include "base/json/json.h"

static clockid_t clock_id = CLOCK_MONOTONIC;	/* with --cpu-time: processor time of the process */

double
bench_now(void)
{
	struct timespec t;

	clock_gettime(clock_id, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double
bench_median(double *x, int n)
{
	qsort(x, (size_t)n, sizeof(x[0]), by_value);
	return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

void *
bench_need(void *p)
{
	if (p == NULL) {
		fprintf(stderr, "bench: no memory\n");
		exit(71);
	}
	return p;
}

void
bench_fail(const char *what, int rc, const struct err_note *note)
{
	char text[1400];

	fprintf(stderr, "bench: %s: %s\n", what, err_note_str(note, rc, text, sizeof(text)));
	exit(err_exit_code(rc));
}

/* ---- results ---- */

struct bench_results {
	struct json *rows;
};

struct bench_results *
bench_results_new(void)
{
	struct bench_results *r = bench_need(calloc(1, sizeof(*r)));

	r->rows = bench_need(json_new_array());
	return r;
}

static struct json *
row_new(const char *name, struct json *value, const char *unit)
{
	struct json *row = json_new_object();

	json_put(row, "name", json_new_text(name));
	json_put(row, "value", value);
	json_put(row, "unit", json_new_text(unit));
	return row;
}

void
bench_row(struct bench_results *r, const char *name, double value, const char *unit, const char *peer, double peer_value)
{
	struct json *row = row_new(name, json_new_num(value), unit);
	double ratio = peer != NULL ? value / peer_value : 0;

	json_put(row, "peer", peer != NULL ? json_new_text(peer) : json_new_null());
	json_put(row, "peer_value", peer != NULL ? json_new_num(peer_value) : json_new_null());
	json_put(row, "ratio", peer != NULL ? json_new_num(ratio) : json_new_null());
	json_push(r->rows, row);
	printf("%-26s %12.4g %-10s", name, value, unit);
	if (peer != NULL)
		printf(" %12.4g  %-44s %.3f", peer_value, peer, ratio);
	printf("\n");
	fflush(stdout);
}

void
bench_no_row(struct bench_results *r, const char *name, const char *unit, const char *why)
{
	struct json *row = row_new(name, json_new_null(), unit);

	json_put(row, "peer", json_new_null());
	json_put(row, "peer_value", json_new_null());
	json_put(row, "ratio", json_new_null());
	json_put(row, "why", json_new_text(why));
	json_push(r->rows, row);
	printf("%-26s %12s %-10s %s\n", name, "-", unit, why);
	fflush(stdout);
}

int
bench_results_end(struct bench_results **results, const char *path)
{
	struct bench_results *r = *results;
	FILE *f = NULL;
	char *text;
	int bad = 0;

	if (path != NULL) {
		text = json_print(r->rows, true);
		f = fopen(path, "w");
		bad = f == NULL || text == NULL || fputs(text, f) < 0;
		if (f != NULL && fclose(f) != 0)
			bad = 1;
		if (bad)
			fprintf(stderr, "bench: cannot write %s: %s\n", path, strerror(errno));
		free(text);
	}
	json_close(&r->rows);
	free(r);
	*results = NULL;
	return bad ? 73 : 0;
}

/* ---- shapes ---- */

#define GPT2(v, c, l, h)										\
	{.family = MODEL_FAMILY_GPT2, .vocab_size = (v), .context = 1024, .d_model = (c), .n_layers = (l), .n_heads = (h),	\
	    .n_kv_heads = (h), .head_dim = (c) / (h), .d_ff = 4 * (c), .norm_eps = 1e-5f, .tied = true, .attention_bias = true,	\
	    .mlp_bias = true, .initializer_range = 0.02f, .bos_id = -1, .eos_id = -1}
#define LLAMA(v, c, l, h, kv, f)									\
	{.family = MODEL_FAMILY_LLAMA, .vocab_size = (v), .context = 2048, .d_model = (c), .n_layers = (l), .n_heads = (h),	\
	    .n_kv_heads = (kv), .head_dim = (c) / (h), .d_ff = (f), .norm_eps = 1e-5f, .tied = true, .rope_theta = 100000,	\
	    .initializer_range = 0.04f, .bos_id = -1, .eos_id = -1}

/* name, batch, tokens, lanes, micro-batch; lanes as trainer.lanes with eight micro-batches, else one */
static const struct bench_shape shapes[2][8] = {
	{
		{"gpt2_124m", 4, 256, 1, 4, GPT2(50257, 768, 12, 12)},
		{"small", 32, 256, 8, 4, GPT2(8192, 256, 6, 4)},
		{"llama_135m", 4, 512, 1, 4, LLAMA(49152, 576, 30, 9, 3, 1536)},
		{"gpt2_124m_16", 16, 256, 1, 4, GPT2(50257, 768, 12, 12)},
		{"llama_3m", 16, 256, 2, 2, LLAMA(8192, 160, 5, 4, 4, 448)},
		{"gpt2_124m_gpu", 128, 1024, 1, 32, GPT2(50257, 768, 12, 12)},
		{"gpt2_1558m_gpu", 32, 1024, 1, 8, GPT2(50257, 1600, 48, 25)},
		{"llama_135m_gpu", 64, 1024, 1, 32, LLAMA(49152, 576, 30, 9, 3, 1536)},
	}, {
		{"gpt2_124m", 2, 32, 1, 2, GPT2(499, 64, 2, 2)},
		{"small", 8, 32, 8, 1, GPT2(499, 32, 2, 2)},
		{"llama_135m", 2, 32, 1, 2, LLAMA(499, 96, 2, 3, 1, 160)},
		{"gpt2_124m_16", 4, 32, 1, 2, GPT2(499, 64, 2, 2)},
		{"llama_3m", 4, 32, 2, 1, LLAMA(499, 32, 2, 2, 2, 64)},
		{"gpt2_124m_gpu", 2, 32, 1, 1, GPT2(499, 64, 2, 2)},
		{"gpt2_1558m_gpu", 2, 32, 1, 1, GPT2(499, 96, 2, 3)},
		{"llama_135m_gpu", 4, 32, 1, 2, LLAMA(499, 96, 2, 3, 1, 160)},
	},
};

const struct bench_shape *
bench_shape(const char *name, int tiny)
{
	for (size_t i = 0; i < sizeof(shapes[0]) / sizeof(shapes[0][0]); i++)
		if (strcmp(shapes[tiny != 0][i].name, name) == 0)
			return &shapes[tiny != 0][i];
	return NULL;
}

/* ---- comparison programs ---- */

struct bench_peer {
	pid_t pid;
	FILE *to, *from;
	char name[64], variant[32];
};

struct bench_peer *
bench_peer_open(const char *command)
{
	struct bench_peer *p = bench_need(calloc(1, sizeof(*p)));
	int to[2], from[2];
	char line[256];

	signal(SIGPIPE, SIG_IGN);
	/*
	 * O_CLOEXEC: a comparison program ends when its input is closed. If a program that is started later
	 * inherited the other end, the input would stay open.
	 */
	if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0 || (p->pid = fork()) < 0) {
		perror("bench: peer");
		exit(71);
	}
	if (p->pid == 0) {
		dup2(to[0], 0);
		dup2(from[1], 1);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	p->to = bench_need(fdopen(to[1], "w"));
	p->from = bench_need(fdopen(from[0], "r"));
	if (fgets(line, sizeof(line), p->from) == NULL || sscanf(line, "ready %63[^\n]", p->name) != 1) {
		printf("no peer: it does not start: %s\n", command);
		bench_peer_close(&p);
	}
	return p;
}

void
bench_peer_close(struct bench_peer **peer)
{
	struct bench_peer *p = *peer;

	if (p == NULL)
		return;
	fclose(p->to);
	fclose(p->from);
	waitpid(p->pid, NULL, 0);
	free(p);
	*peer = NULL;
}

const char *
bench_peer_name(const struct bench_peer *p)
{
	return p->name;
}

const char *
bench_peer_variant(const struct bench_peer *p)
{
	return p->variant;
}

double
bench_peer_seconds(struct bench_peer *p, const char *work, const char *dtype, const struct bench_shape *s)
{
	const struct model_config *c = &s->config;
	char line[256];
	double seconds;

	fprintf(p->to, "%s %s %s %lld %lld %lld %lld %lld %lld %lld %lld %lld\n", work, dtype, c->family == MODEL_FAMILY_GPT2 ? "gpt2" : "llama",
	    (long long)c->n_layers, (long long)c->d_model, (long long)c->n_heads, (long long)c->n_kv_heads, (long long)c->d_ff,
	    (long long)c->vocab_size, (long long)s->batch, (long long)s->tokens, (long long)s->micro_batch);
	if (fflush(p->to) != 0 || fgets(line, sizeof(line), p->from) == NULL || sscanf(line, "%lf %31s", &seconds, p->variant) != 2)
		return -1;
	return seconds;
}

/* ---- arguments ---- */

static bool
backend_of(const char *name, enum kernels_backend *backend)
{
	static const char *const names[] = {[KERNELS_BACKEND_AUTO] = "auto", [KERNELS_BACKEND_OPENBLAS] = "openblas",
	    [KERNELS_BACKEND_ONEDNN] = "onednn", [KERNELS_BACKEND_CUDA] = "cuda"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name, names[i]) == 0) {
			*backend = (enum kernels_backend)i;
			return true;
		}
	return false;
}

void
bench_args(struct bench_args *a, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--tiny") == 0) {
			a->tiny = 1;
			continue;
		}
		if (strcmp(argv[i], "--cpu-time") == 0) {
			clock_id = CLOCK_PROCESS_CPUTIME_ID;
			continue;
		}
		if (value != NULL && strcmp(argv[i], "--threads") == 0)
			a->threads = atoi(value);
		else if (value != NULL && strcmp(argv[i], "--rounds") == 0)
			a->rounds = atoi(value);
		else if (value != NULL && strcmp(argv[i], "--backend") == 0 && backend_of(value, &a->backend))
			;
		else if (value != NULL && strcmp(argv[i], "--only") == 0)
			a->only = value;
		else if (value != NULL && strcmp(argv[i], "--json") == 0)
			a->json = value;
		else if (value != NULL && strcmp(argv[i], "--peer") == 0 && a->n_peers < BENCH_PEERS_MAX)
			a->peer[a->n_peers++] = value;
		else {
			fprintf(stderr, "usage: %s [--backend auto|openblas|onednn|cuda] [--threads N] [--rounds N] [--tiny] [--cpu-time] [--only NAME] "
			    "[--json FILE] [--peer COMMAND]...\n", argv[0]);
			exit(64);
		}
		i++;
	}
	if (a->rounds < 1 || a->rounds > BENCH_ROUNDS_MAX) {
		fprintf(stderr, "%s: --rounds 1 to %d\n", argv[0], BENCH_ROUNDS_MAX);
		exit(64);
	}
}

int
bench_wanted(const struct bench_args *a, const char *name)
{
	return a->only == NULL || strcmp(a->only, name) == 0;
}
