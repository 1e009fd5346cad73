/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Run under mpirun; allreduce.sh runs both forms.
 *
 * bench_allreduce sums ELEMENTS ROUNDS - seconds of one sum over ranks whose result all ranks get, in three
 * ways: the fixed tree in buckets with a gather, MPI_Allreduce, and MPI_Ireduce in buckets with a gather.
 * Prints a line of three figures per round. bench_allreduce hidden STEPS [tiny] - GPT-2 124M, two sequences
 * of 256 per rank, one thread. Prints a line of three figures per step: seconds of the whole sum when nothing
 * else runs, seconds that it costs during and after backward, and the share that was complete when backward
 * ended. The cost is measured on the rank that ends last, so that the time for which other ranks wait for it
 * is not counted.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/train.h"
#include "trainerd/comm_device.h"
#include "trainerd/reduce.h"
#include "trainerd/shard.h"

#define PIECE (INT64_C(1) << 24)	/* floats of one MPI_Allreduce */

struct sums {
	struct comm *comm;
	struct kernels *kernels;
	struct shard shard;
	struct comm_device *device;
	struct reduce *fixed, *any;
	float *x;
};

static void
sums_open(struct sums *s, struct comm *comm, int64_t n)
{
	const struct kernels_options ko = {.dtype = KERNELS_DTYPE_FP32, .threads = 1};
	struct reduce_options fixed = {.any_order = false}, any = {.any_order = true};
	struct err_note note = {.name = ""};
	struct optim_split whole = optim_split_whole(n);
	int rc;

	*s = (struct sums){.comm = comm};
	if ((rc = kernels_new(&s->kernels, &ko, &note)) != 0)
		bench_fail("kernels", rc, &note);
	shard_range(&s->shard, &whole, comm_rank(comm), comm_size(comm));
	s->x = bench_need(kernels_alloc(s->kernels, (size_t)n * sizeof(float)));
	if ((rc = comm_device_new(&s->device, comm, s->kernels, 0, INT64_C(1) << 22)) != 0 ||
	    (rc = reduce_new(&s->fixed, &whole, comm, s->kernels, &fixed)) != 0 ||
	    (rc = reduce_new(&s->any, &whole, comm, s->kernels, &any)) != 0)
		bench_fail("reduce", rc, &note);
}

static void
sums_close(struct sums *s)
{
	reduce_destroy(&s->any);
	reduce_destroy(&s->fixed);
	comm_device_destroy(&s->device);
	kernels_free(s->kernels, s->x);
	kernels_destroy(&s->kernels);
}

/* Seconds of the sum by r; gather: with the time until all ranks have the whole result. */
static double
sums_once(struct sums *s, struct reduce *r, int gather)
{
	double start;

	bench_barrier(s->comm);
	start = bench_now();
	reduce_begin(r, s->x, NULL, 0);
	reduce_end(r, NULL);
	if (gather)
		shard_gather(&s->shard, s->device, s->x, sizeof(float));
	bench_barrier(s->comm);
	return bench_now() - start;
}

static void
bench_sums(struct comm *comm, int64_t n, int rounds)
{
	struct sums s;
	float *x;

	sums_open(&s, comm, n);
	x = bench_need(kernels_host_pointer(s.kernels, s.x));
	for (int i = 0; i <= rounds; i++) {
		double fixed = sums_once(&s, s.fixed, 1), any = sums_once(&s, s.any, 1), start, mpi;

		bench_barrier(comm);
		start = bench_now();
		for (int64_t at = 0; at < n; at += PIECE)
			MPI_Allreduce(MPI_IN_PLACE, x + at, (int)(n - at < PIECE ? n - at : PIECE), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
		bench_barrier(comm);
		mpi = bench_now() - start;
		if (i > 0 && comm_rank(comm) == 0)
			printf("%.6f %.6f %.6f\n", fixed, mpi, any);
	}
	sums_close(&s);
}

static void
bench_hidden(struct comm *comm, int steps, int tiny)
{
	struct bench_shape shape = *bench_shape("gpt2_124m", tiny);
	struct bench_train t;
	struct sums s;

	shape.batch = 2 * comm_size(comm);
	shape.micro_batch = 2;
	shape.lanes = comm_size(comm);
	bench_train_open(&t, &shape, comm, &(struct kernels_options){.dtype = KERNELS_DTYPE_FP32, .threads = 1}, OPTIM_ADAMW, 0);
	sums_open(&s, comm, step_model(t.step)->n_params);
	for (int i = 0; i <= steps; i++) {
		double alone = sums_once(&s, s.fixed, 0);
		struct step_result e;
		int64_t cost_ns;

		bench_barrier(comm);
		step_run(t.step, &t.plain, 1e-4f, ++t.updates, &e);
		cost_ns = -(int64_t)((e.overlap_s + e.exposed_s) * 1e9);
		comm_max(comm, &cost_ns, 1);
		if (i > 0 && comm_rank(comm) == 0)
			printf("%.6f %.6f %.6f\n", alone, (double)-cost_ns * 1e-9, e.reduced_early);
	}
	sums_close(&s);
	bench_train_close(&t);
}

int
main(int argc, char **argv)
{
	struct comm *comm;

	if (comm_init(&comm, &argc, &argv) != 0)
		return 70;
	if (argc >= 4 && strcmp(argv[1], "sums") == 0 && atoll(argv[2]) > 0 && atoll(argv[2]) < INT64_C(1) << 40)
		bench_sums(comm, atoll(argv[2]), atoi(argv[3]));
	else if (argc >= 3 && strcmp(argv[1], "hidden") == 0)
		bench_hidden(comm, atoi(argv[2]), argc > 3 && strcmp(argv[3], "tiny") == 0);
	else
		comm_abort(comm, 64);
	comm_finalize(&comm);
	return 0;
}
