/* SPDX-License-Identifier: Apache-2.0 */
/* train - trains a model on random tokens and labels, for the benches of a step. Link it with a comm. */
#ifndef SALT_BENCH_TRAIN_H
#define SALT_BENCH_TRAIN_H

#include "bench/common/bench.h"
#include "engine/kernels/kernels.h"
#include "trainerd/comm.h"
#include "trainerd/step.h"

/*
 * A model in training, and the rows of one step of this rank: plain, and with sampled labels (N = 50, about a
 * dozen ids per token).
 */
struct bench_train {
	const struct bench_shape *shape;
	struct kernels *kernels;
	struct comm *comm;		/* owned by the caller */
	struct step *step;
	struct step_rows plain, kd;
	int32_t *tokens, *ids;
	int64_t *offsets;
	float *weight, *values;
	int64_t updates;
	double loss;			/* of the last step */
};

/*
 * bench_train_open - compute: backend, dtype and threads; shape and comm must stay valid. documents: mean
 * length of isolated documents; 0: sequences are not divided into documents. Exits on errors.
 */
void bench_train_open(struct bench_train *t, const struct bench_shape *shape, struct comm *comm,
    const struct kernels_options *compute, enum optim_kind kind, int64_t documents);
void bench_train_close(struct bench_train *t);

/* bench_train_once - makes one optimizer step; returns its seconds. */
double bench_train_once(struct bench_train *t, const struct step_rows *rows);

/* bench_barrier - returns when all ranks have called it. */
void bench_barrier(struct comm *comm);

#endif
