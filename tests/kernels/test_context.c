/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels handles: rejected options and their messages, exp over its range, and several handles in parallel,
 * which must give the same bits as one alone.
 */
#include <omp.h>
#include <pthread.h>

#include "fixture.h"
#include "engine/kernels/cpu/vec.h"

#define REPEATS 10
#define TILES 4

static void
refusals(void)
{
	static const struct {
		const char *what;
		struct kernels_options options;
		int rc;
		const char *word;
	} rows[] = {
		{"auto", {.threads = 1}, 0, NULL},
		{"openblas fp32", {KERNELS_BACKEND_OPENBLAS, KERNELS_DTYPE_FP32, 1}, 0, NULL},
		{"openblas bf16", {KERNELS_BACKEND_OPENBLAS, KERNELS_DTYPE_BF16, 1}, 0, NULL},
		{"threads", {.threads = -1}, ERR_RANGE, "-1"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kernels *k;
		struct err_note note = {0};
		char class[32] = "";

		CHECK_ROW(rows[i].what, kernels_resolve(&rows[i].options, class, sizeof(class), &note) == rows[i].rc);
		CHECK_ROW(rows[i].what, kernels_new(&k, &rows[i].options, &note) == rows[i].rc);
		CHECK_ROW(rows[i].what, (k != NULL) == (rows[i].rc == 0));
		if (k == NULL) {
			CHECK_ROW(rows[i].what, strstr(note.found, rows[i].word) != NULL);
			continue;
		}
		if (rows[i].options.dtype == KERNELS_DTYPE_AUTO)	/* depends on processor and build */
			CHECK_STR(class, strstr(kernels_reason(k), "no bf16") != NULL ? "fp32/openblas" : "bf16/onednn");
		else
			CHECK_STR(class, rows[i].options.dtype == KERNELS_DTYPE_BF16 ? "bf16/openblas" : "fp32/openblas");
		CHECK_STR(kernels_compute_class(k), class);
		CHECK(kernels_dtype(k) == (strncmp(class, "bf16", 4) == 0 ? DTYPE_BF16 : DTYPE_F32) && kernels_threads(k) == 1);
		CHECK(strstr(kernels_describe(k), strstr(class, "onednn") != NULL ? "oneDNN " : "OpenBLAS 0.") == kernels_describe(k));
		kernels_destroy(&k);
		CHECK(k == NULL);
	}
}

/* A started download is complete when an event that was recorded after it is done. */
static void
events(void)
{
	enum { N = 5000 };
	const struct kernels_options options = {.threads = 1};
	struct err_note note = {0};
	struct kernels_event *event;
	struct kernels *k;
	int32_t *host, *device;

	CHECK(kernels_new(&k, &options, &note) == 0);
	host = kernels_host_alloc(k, N * sizeof(*host));
	device = kernels_alloc(k, N * sizeof(*device));
	event = kernels_event_new(k);
	CHECK(host != NULL && device != NULL && event != NULL && (uintptr_t)host % 64 == 0);
	CHECK(kernels_event_done(k, event));
	for (int32_t i = 0; i < N; i++)
		host[i] = i;
	kernels_upload(k, device, host, N * sizeof(*host));
	memset(host, 0, N * sizeof(*host));
	kernels_download_start(k, host + 1, device + 1, (N - 2) * sizeof(*host));
	kernels_event_record(k, event);
	kernels_event_wait(k, event);
	CHECK(kernels_event_done(k, event));
	CHECK(host[0] == 0 && host[N - 1] == 0);
	for (int32_t i = 1; i < N - 1; i++)
		CHECK(host[i] == i);
	kernels_event_destroy(k, &event);
	CHECK(event == NULL);
	kernels_free(k, device);
	kernels_host_free(k, host);
	kernels_destroy(&k);
}

/*
 * Allocations are zeroed and aligned for any size, below and above the size from which pages come directly
 * from the system; they can be freed and reused; a too large one is NULL.
 */
static void
memory(void)
{
	static const size_t sizes[] = {0, 1, 63, 4096, ((size_t)8 << 20) - 1, (size_t)8 << 20, ((size_t)9 << 20) + 1};
	const size_t n = sizeof(sizes) / sizeof(sizes[0]);
	const struct kernels_options options = {.threads = 1};
	struct err_note note = {0};
	unsigned char *p[7];
	struct kernels *k;

	REQUIRE(kernels_new(&k, &options, &note) == 0);
	/* the second time memory is reused that was written before */
	for (int again = 0; again < 2; again++) {
		for (size_t i = 0; i < n; i++) {
			size_t not_zero = 0;

			REQUIRE((p[i] = kernels_alloc(k, sizes[i])) != NULL);
			CHECK((uintptr_t)p[i] % 64 == 0);
			for (size_t at = 0; at < sizes[i]; at++)
				not_zero += p[i][at] != 0;
			CHECK(not_zero == 0);
			memset(p[i], 0xa5, sizes[i]);
		}
		for (size_t i = 0; i < n; i++) {
			size_t wrong = 0;

			for (size_t at = 0; at < sizes[i]; at++)
				wrong += p[i][at] != 0xa5;
			CHECK(wrong == 0);
			kernels_free(k, p[i]);
		}
	}
	kernels_free(k, NULL);
	CHECK(kernels_alloc(k, SIZE_MAX) == NULL && kernels_alloc(k, SIZE_MAX - ((size_t)4 << 20)) == NULL);
	CHECK(kernels_alloc(k, SIZE_MAX / 2) == NULL && kernels_alloc(k, SIZE_MAX - 10) == NULL);
	kernels_destroy(&k);
}

/* The accuracy that vec_math.h promises, over the whole range, for each table supported here. */
static void
exp_is_exact_enough(const struct vec *vec)
{
	enum { N = 4096 };
	float x[N], y[N];
	double worst = 0;

	for (int block = 0; block < 400; block++) {
		for (int i = 0; i < N; i++)
			x[i] = -104.5f + 194.0f * ((float)(block * N + i) / (400.0f * N));
		vec->exp(y, x, 1, 0, N);
		for (int i = 0; i < N; i++) {
			double want = exp((double)x[i]);

			if (x[i] > 88.72f)
				continue;
			if (x[i] >= -86.98f)
				worst = fmax(worst, fabs((double)y[i] - want) / (ldexp(1, ilogb(want)) * 0x1p-23));
			else
				CHECK(y[i] == 0);
		}
	}
	fprintf(stderr, "%s: exp within %.3f ulp\n", vec->name, worst);
	CHECK(worst < 2);
	x[0] = NAN;
	x[1] = -INFINITY;
	x[2] = INFINITY;
	x[3] = 0;
	x[4] = 88.8f;
	x[5] = -200;
	vec->exp(y, x, 1, 0, 6);
	CHECK(isnan(y[0]) && y[1] == 0 && y[2] == INFINITY && y[3] == 1 && y[4] == INFINITY && y[5] == 0);
}

/* A job with all calls of OpenBLAS, as in a teacher or a trainer; out: results that must be equal. */
#define M 512
#define C 96
#define N 384
#define V 515
#define OUT (M * N + M * C + N * C + M * C + 3 * M * C + V * C)

struct work {
	struct kernels *k;
	float *x, *w, *w_out, *d_y, *out;
	const int32_t *next;
	int wrong;
	const float *want;
	int repeats;
};

static void
compute(struct work *j)
{
	float *at = j->out, *lse = malloc(M * 4 * sizeof(float)), *qkv = malloc(3 * M * C * sizeof(float));
	struct tensor x = t2(j->x, M, C), w = t2(j->w, N, C), w_out = t2(j->w_out, V, C), d_y = t2(j->d_y, M, N), absent = t1(NULL, 0);
	struct tensor y = t2(at, M, N), d_x = t2(at + M * N, M, C), d_w = t2(at + M * N + M * C, N, C);
	struct tensor o, d_h, d_w_out;
	struct kernels_heads q = {j->x, DTYPE_F32, C, 4, C / 4, 0}, d_q, d_k, d_v;
	struct kernels_targets targets = {.n_rows = M, .next = j->next};
	struct kernels_loss_sums sums;

	memset(j->out, 0, OUT * sizeof(float));
	at += M * N + M * C + N * C;
	o = t2(at, M, C);
	at += M * C;
	d_q = q;
	d_k = q;
	d_v = q;
	d_q.data = at;
	d_k.data = at + M * C;
	d_v.data = at + 2 * M * C;
	at += 3 * M * C;
	d_w_out = t2(at, V, C);
	d_h = t2(qkv, M, C);
	kernels_linear(j->k, &y, &x, &w, &absent, KERNELS_OUT_IN, false);
	kernels_linear_bwd_x(j->k, &d_x, &d_y, &w, KERNELS_OUT_IN, false);
	kernels_linear_bwd_w(j->k, &d_w, NULL, &d_y, &x, KERNELS_OUT_IN, true);
	kernels_attention(j->k, &o, lse, &q, &q, &q, NULL, 2, M / 2);
	kernels_attention_bwd(j->k, &d_q, &d_k, &d_v, &x, &o, lse, &q, &q, &q, NULL, 2, M / 2);
	kernels_output_loss(j->k, &x, &w_out, NULL, &targets, 1, &d_h, &d_w_out, &sums);
	free(lse);
	free(qkv);
}

static void *
repeat(void *arg)
{
	struct work *j = arg;

	for (int i = 0; i < j->repeats; i++) {
		compute(j);
		j->wrong += memcmp(j->out, j->want, OUT * sizeof(float)) != 0;
	}
	return NULL;
}

/*
 * One handle alone; four with one thread each in pthreads; the same in an OpenMP team; beside a handle with
 * two threads, which has its own team. All results have the same bits as alone.
 */
static void
side_by_side(void)
{
	float *x = noise(M * C, 1), *w = noise(N * C, 1), *w_out = noise(V * C, 0.3f), *d_y = noise(M * N, 1), *want = room(OUT);
	static int32_t next[M];
	struct work jobs[TILES + 1];
	pthread_t threads[TILES + 1];

	for (int i = 0; i < M; i++)
		next[i] = below(V);
	for (int i = 0; i <= TILES; i++)
		jobs[i] = (struct work){.k = fixture_kernels(i == TILES ? 2 : 1), .x = x, .w = w, .w_out = w_out, .d_y = d_y,
		    .out = room(OUT), .next = next, .want = want, .repeats = REPEATS};
	compute(&jobs[0]);
	memcpy(want, jobs[0].out, OUT * sizeof(float));
	compute(&jobs[TILES]);
	CHECK_ROW("one thread and two", memcmp(jobs[TILES].out, want, OUT * sizeof(float)) == 0);

	for (int i = 0; i <= TILES; i++)
		REQUIRE(pthread_create(&threads[i], NULL, repeat, &jobs[i]) == 0);
	for (int i = 0; i <= TILES; i++)
		REQUIRE(pthread_join(threads[i], NULL) == 0);
	for (int i = 0; i <= TILES; i++)
		CHECK_ROW("from pthreads", jobs[i].wrong == 0);
#pragma omp parallel for num_threads(TILES) schedule(static, 1)
	for (int i = 0; i < TILES; i++)
		repeat(&jobs[i]);
	for (int i = 0; i < TILES; i++)
		CHECK_ROW("from an OpenMP team", jobs[i].wrong == 0);
	repeat(&jobs[TILES]);
	CHECK_ROW("alone again", jobs[TILES].wrong == 0);
	for (int i = 0; i <= TILES; i++)
		kernels_destroy(&jobs[i].k);
	fixture_close("side_by_side");
}

/* A kernels handle does not change the OpenMP settings of the thread that uses it. */
static void
openmp_left_alone(void)
{
	struct kernels *k;
	float *a = noise(64 * 64, 1), *b = room(64 * 64);
	struct tensor ta = t2(a, 64, 64), tb = t2(b, 64, 64);

	omp_set_num_threads(3);
	k = fixture_kernels(1);
	kernels_linear(k, &tb, &ta, &ta, NULL, KERNELS_OUT_IN, false);
	CHECK(omp_get_max_threads() == 3);
	kernels_destroy(&k);
	fixture_close("openmp_left_alone");
}

/*
 * On a machine without bf16 units (ctest sets ONEDNN_MAX_CPU_ISA=AVX2), or in a build without oneDNN, an
 * explicit backend and dtype still resolve, since they may describe a teacher's machine. Making a handle
 * fails with the missing feature; auto chooses fp32.
 */
static void
no_units(void)
{
	const struct kernels_options bf16 = {KERNELS_BACKEND_ONEDNN, KERNELS_DTYPE_BF16, 1}, any = {.threads = 1};
	struct err_note note = {0};
	struct kernels *k;
	char class[32] = "";

	CHECK(kernels_resolve(&bf16, class, sizeof(class), &note) == 0);
	CHECK_STR(class, "bf16/onednn");
	CHECK(kernels_new(&k, &bf16, &note) == ERR_UNSUPPORTED && k == NULL);
	CHECK(strstr(note.expected, "neither avx512_bf16 nor amx_bf16") != NULL || strstr(note.expected, "no oneDNN") != NULL);
	CHECK(kernels_resolve(&any, class, sizeof(class), &note) == 0);
	CHECK_STR(class, "fp32/openblas");
	REQUIRE(kernels_new(&k, &any, &note) == 0);
	CHECK_STR(kernels_compute_class(k), "fp32/openblas");
	kernels_destroy(&k);
}

int
main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "no_units") == 0) {
		no_units();
		return check_done();
	}
	fixture_start();
	openmp_left_alone();
	refusals();
	memory();
	events();
	exp_is_exact_enough(&vec_base);
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		exp_is_exact_enough(&vec_haswell);
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
	    __builtin_cpu_supports("avx512bw"))
		exp_is_exact_enough(&vec_avx512);
#endif
	side_by_side();
	return check_done();
}
