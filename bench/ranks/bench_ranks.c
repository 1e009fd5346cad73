/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ranks SHAPE BATCH STEPS THREADS [tiny] - run under mpirun: seconds of each optimizer step of a shape
 * of bench.h, with BATCH sequences and two lanes. Rank 0 prints one line per step, after one step that is not
 * counted. ranks.sh and busy.sh compare the results. GPT-2 computes in fp32, other models in the dtype that
 * auto chooses.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpus/cpus.h"
#include "bench/common/train.h"

CPUS_BOUND_SPIN;		/* as in trainerd */

int
main(int argc, char **argv)
{
	const struct bench_shape *found;
	struct bench_shape shape;
	struct kernels_options compute = {.backend = KERNELS_BACKEND_AUTO};
	struct bench_train t;
	struct comm *comm;
	int64_t batch;
	int steps, rc;

	if ((rc = comm_init(&comm, &argc, &argv)) != 0)
		return 70;
	if (argc < 5 || (found = bench_shape(argv[1], argc > 5 && strcmp(argv[5], "tiny") == 0)) == NULL || (batch = atoll(argv[2])) < 8 ||
	    batch % 8 != 0 || (steps = atoi(argv[3])) < 1) {
		fprintf(stderr, "usage: bench_ranks SHAPE BATCH STEPS THREADS [tiny]; BATCH a multiple of 8\n");
		comm_abort(comm, 64);
	}
	shape = *found;
	shape.batch = batch;
	if (shape.micro_batch * 2 > batch)
		shape.micro_batch = batch / 2;
	shape.lanes = 2;
	compute.dtype = strcmp(argv[1], "gpt2_124m") == 0 ? KERNELS_DTYPE_FP32 : KERNELS_DTYPE_AUTO;
	compute.threads = atoi(argv[4]);
	bench_train_open(&t, &shape, comm, &compute, OPTIM_ADAMW, 0);
	for (int i = 0; i <= steps; i++) {
		double seconds;

		bench_barrier(comm);
		seconds = bench_train_once(&t, &t.plain);
		if (i > 0 && comm_rank(comm) == 0) {
			printf("%.6f\n", seconds);
			fflush(stdout);
		}
	}
	bench_train_close(&t);
	comm_finalize(&comm);
	return 0;
}
