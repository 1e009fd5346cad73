/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ranks BATCH STEPS THREADS [tiny] - under mpirun: seconds of each optimiser step of GPT-2 124M, BATCH x 256 in micro-batches
 * of 4 and two lanes; rank 0 prints one line a step, after one that is not counted. ranks.sh compares.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/train.h"

int
main(int argc, char **argv)
{
	struct bench_shape shape;
	struct bench_train t;
	struct comm *comm;
	int64_t batch;
	int steps, rc;

	if ((rc = comm_init(&comm, &argc, &argv)) != 0)
		return 70;
	if (argc < 4 || (batch = atoll(argv[1])) < 8 || batch % 8 != 0 || (steps = atoi(argv[2])) < 1) {
		fprintf(stderr, "usage: bench_ranks BATCH STEPS THREADS [tiny]; BATCH a multiple of 8\n");
		comm_abort(comm, 64);
	}
	shape = *bench_shape("gpt2_124m", argc > 4 && strcmp(argv[4], "tiny") == 0);
	shape.batch = batch;
	shape.micro_batch = 4;
	shape.lanes = 2;
	bench_train_open(&t, &shape, comm, KERNELS_DTYPE_FP32, atoi(argv[3]), OPTIM_ADAMW, 0);
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
