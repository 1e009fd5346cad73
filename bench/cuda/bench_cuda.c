/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_cuda - what bench/cuda/session.sh measures on a GPU beside the tests of kernels and the other
 * benches.
 *
 *   bench_cuda device
 *       prints name, architecture, libraries and memory on one line
 *   bench_cuda check [--tiny] [--only NAME] [--json FILE]
 *       measures these rows; --tiny: small shapes, for tests
 *       two_runs_same_bits            ten steps of GPT-2 124M (4 x 256, bf16), twice: number of losses and
 *                                     weights with equal bits, compared with all of them
 *       losses_vs_cpu_fp32, _bf16     ten steps on the GPU and on the CPU (openblas): the largest
 *                                     difference of losses, compared with the allowed one
 *       copy_device, copy_to_device, copy_to_host
 *                                     GB/s; within the device bytes read and bytes written both count
 *   bench_cuda report JSON TABLE FILE...
 *       writes the rows of FILE... as one JSON file and as a Markdown table
 *
 * Exit code 1: a check failed; its row is written nevertheless.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash/hash.h"
#include "bench/common/train.h"
#include "bench/cuda/report.h"

#define STEPS 10
#define PIECE (INT64_C(1) << 20)

/*
 * Largest allowed difference between a loss on the GPU and on the CPU, in nats; the losses are about 11. In
 * fp32 the two add in different orders, over ten steps. In bf16 some activations are also rounded to another
 * neighbour, a relative difference of 2^-8; a loss is the mean over 1024 tokens.
 */
#define NATS_FP32 1e-3
#define NATS_BF16 2e-2

static struct comm *comm;		/* one rank */
static bool failed;

struct run {
	double losses[STEPS];
	struct hash128 weights;
};

static struct hash128
weights_hash(struct step *step)
{
	int64_t n = step_total(step, STEP_MASTERS);
	float *piece = bench_need(malloc((size_t)PIECE * sizeof(*piece)));
	struct hash128 h = {0};

	for (int64_t at = 0; at < n; at += PIECE) {
		struct hash128 chain[2] = {h};
		int64_t count = n - at < PIECE ? n - at : PIECE;

		step_read(step, STEP_MASTERS, at, count, piece);
		chain[1] = hash_bytes(piece, (size_t)count * sizeof(*piece));
		h = hash_bytes(chain, sizeof(chain));
	}
	free(piece);
	return h;
}

static void
train(const struct bench_args *a, enum kernels_backend backend, enum kernels_dtype dtype, struct run *out)
{
	const struct kernels_options compute = {.backend = backend, .dtype = dtype, .threads = a->threads};
	struct bench_train t;

	bench_train_open(&t, bench_shape("gpt2_124m", a->tiny), comm, &compute, OPTIM_ADAMW, 0);
	for (int i = 0; i < STEPS; i++) {
		bench_train_once(&t, &t.plain);
		out->losses[i] = t.loss;
	}
	out->weights = weights_hash(t.step);
	bench_train_close(&t);
}

static void
check_twice(const struct bench_args *a, struct bench_results *r)
{
	struct run runs[2];
	int same = 0;

	for (int i = 0; i < 2; i++)
		train(a, a->backend, KERNELS_DTYPE_BF16, &runs[i]);
	for (int i = 0; i < STEPS; i++)
		same += memcmp(&runs[0].losses[i], &runs[1].losses[i], sizeof(double)) == 0;
	same += memcmp(&runs[0].weights, &runs[1].weights, sizeof(runs[0].weights)) == 0;
	bench_row(r, "two_runs_same_bits", same, "equal", "losses and weights", STEPS + 1);
	failed |= same != STEPS + 1;
}

static void
check_losses(const struct bench_args *a, struct bench_results *r, const char *name, enum kernels_dtype dtype, double allowed)
{
	struct run device, cpu;
	double worst = 0;

	train(a, a->backend, dtype, &device);
	train(a, KERNELS_BACKEND_OPENBLAS, dtype, &cpu);
	for (int i = 0; i < STEPS; i++) {
		printf("  step %d: %.6f, on the CPU %.6f\n", i + 1, device.losses[i], cpu.losses[i]);
		worst = fmax(worst, fabs(device.losses[i] - cpu.losses[i]));
	}
	bench_row(r, name, worst, "nats", "allowed", allowed);
	failed |= !(worst <= allowed);
}

enum way { WITHIN, UP, DOWN, WAYS };

static void
check_copies(const struct bench_args *a, struct bench_results *r)
{
	static const char *const names[] = {"copy_device", "copy_to_device", "copy_to_host"};
	const struct kernels_options options = {.backend = a->backend};
	size_t bytes = a->tiny ? 1 << 16 : (size_t)1 << 30;
	struct err_note note = {.name = ""};
	struct kernels *k;
	char *from, *to, *host;
	int rc;

	if ((rc = kernels_new(&k, &options, &note)) != 0)
		bench_fail("a context", rc, &note);
	from = bench_need(kernels_alloc(k, bytes));
	to = bench_need(kernels_alloc(k, bytes));
	host = bench_need(kernels_host_alloc(k, bytes));
	for (int way = 0; way < WAYS; way++) {
		int calls = way == WITHIN ? 20 : 4;
		double start = 0;

		for (int i = 0; i <= calls; i++) {		/* the first warms up */
			if (i == 1) {
				kernels_sync(k);
				start = bench_now();
			}
			if (way == WITHIN)
				kernels_copy(k, to, from, bytes);
			else if (way == UP)
				kernels_upload(k, to, host, bytes);
			else
				kernels_download(k, host, from, bytes);
		}
		kernels_sync(k);
		bench_row(r, names[way], (way == WITHIN ? 2 : 1) * (double)bytes * calls / (bench_now() - start) * 1e-9, "GB/s", NULL, 0);
	}
	kernels_host_free(k, host);
	kernels_free(k, to);
	kernels_free(k, from);
	kernels_destroy(&k);
}

static int
device(void)
{
	const struct kernels_options options = {.backend = KERNELS_BACKEND_CUDA};
	struct err_note note = {.name = ""};
	struct kernels_device d;
	struct kernels *k;
	int rc;

	if ((rc = kernels_device(&d, &note)) != 0 || (rc = kernels_new(&k, &options, &note)) != 0)
		bench_fail("no GPU to measure", rc, &note);
	printf("%s, %s, %.1f GiB, %.1f GiB of it free\n", d.name, kernels_device_versions(k), (double)d.memory_bytes / (1 << 30),
	    (double)d.free_bytes / (1 << 30));
	kernels_destroy(&k);
	return 0;
}

int
main(int argc, char **argv)
{
	struct bench_args a = {.rounds = 1, .backend = KERNELS_BACKEND_CUDA};
	struct bench_results *r;
	int rc;

	if (argc == 2 && strcmp(argv[1], "device") == 0)
		return device();
	if (argc >= 4 && strcmp(argv[1], "report") == 0)
		return report_write(argv[2], argv[3], argv + 4, argc - 4);
	if (argc < 2 || strcmp(argv[1], "check") != 0) {
		fprintf(stderr, "usage: bench_cuda device | check [--tiny] [--only NAME] [--json FILE] | report JSON TABLE FILE...\n");
		return 64;
	}
	bench_args(&a, argc - 1, argv + 1);
	if (comm_init(&comm, NULL, NULL) != 0)
		return 70;
	r = bench_results_new();
	if (bench_wanted(&a, "two_runs_same_bits"))
		check_twice(&a, r);
	if (bench_wanted(&a, "losses_vs_cpu_fp32"))
		check_losses(&a, r, "losses_vs_cpu_fp32", KERNELS_DTYPE_FP32, NATS_FP32);
	if (bench_wanted(&a, "losses_vs_cpu_bf16"))
		check_losses(&a, r, "losses_vs_cpu_bf16", KERNELS_DTYPE_BF16, NATS_BF16);
	if (bench_wanted(&a, "copy_device"))
		check_copies(&a, r);
	comm_finalize(&comm);
	rc = bench_results_end(&r, a.json);
	return rc != 0 ? rc : failed;
}
