/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fit - the memory that a trainer's rank and a teacher take, and the options with which a rank takes less.
 * Arithmetic only: no file, no device. Bytes are doubles; they are never used to allocate.
 */
#ifndef SALT_FIT_H
#define SALT_FIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"
#include "engine/model/model.h"
#include "engine/optim/split.h"

enum fit_item {
	/* fp32; in fp32 compute they are what the model reads, so every rank holds all of them */
	FIT_MASTERS,
	/* all parameters in the compute dtype, where that is not fp32; masters are then this rank's share */
	FIT_COPY,
	FIT_MOMENTS,			/* AdamW's m and v, or Muon's momentum, this rank's share */
	FIT_GRADIENTS,			/* fp32, whole; in the fixed tree 1 + log2(lanes / R) of them */
	/* buckets of gradients received from other ranks: FIT_BUCKETS of FIT_BUCKET elements at most */
	FIT_RECEIVED,
	FIT_MUON,			/* what Newton-Schulz works in */
	FIT_ACTIVATIONS,		/* model_session_plan of one micro-batch */
	/* logits and their gradient; in bf16 on CPUs the repacked weights, on a GPU what products work in */
	FIT_PRODUCTS,
	/* tokens and labels of FIT_STEPS_AHEAD steps; of a GPU they are in host memory, and 0 here */
	FIT_ROWS,
	FIT_ITEMS
};

#define FIT_BUCKETS 8			/* in flight: trainerd/reduce.c */
#define FIT_BUCKET (INT64_C(1) << 20)	/* elements: REDUCE_BUCKET */
#define FIT_STEPS_AHEAD 6		/* steps that a rank's feed holds: FEED_SLOTS */

struct fit_shape {
	const struct model_config *model;
	int64_t n_params;
	enum dtype dtype;		/* of compute */
	bool gpu;			/* memory of a GPU (backend cuda); else of the host */
	bool recompute, deterministic;
	const struct optim_split *split;	/* by optimizer */
	int64_t muon_rows, muon_cols;	/* of the largest matrix: fit_muon; 0: none */
	/* of a rank, which work on matrices side by side; a GPU takes one at a time */
	int threads;
	uint64_t batch, micro_batch, lanes, context;
	/* ids of a token's label as decoded: 8 bytes each, and 8 a token; 0: no labels */
	double label_entries;
};

/* fit_muon - sets muon_rows and muon_cols to the largest matrix that Muon updates. */
void fit_muon(struct fit_shape *s, const struct model *model);

/*
 * fit_train - bytes of each item, of the rank of n_ranks (a power of two that divides the lanes) that needs
 * most. 0, or as model_session_plan.
 */
int fit_train(const struct fit_shape *s, int n_ranks, double bytes[FIT_ITEMS], struct err_note *note);

double fit_sum(const double bytes[FIT_ITEMS]);

/*
 * fit_find - s with the largest micro-batch, at most s's, that fits in so many bytes; with recompute only if
 * nothing fits without it. False: nothing does, and *found is untouched.
 */
bool fit_find(const struct fit_shape *s, int n_ranks, double bytes, struct fit_shape *found);

/*
 * fit_label - what a worker of a teacher takes beside the parameters on a GPU: activations of `batch` sequences of
 * `context` tokens for each of its models, and what labels are made in (dense: of kind dense), which the models share.
 * Bytes, or NaN where there is no such session.
 */
double fit_label(const struct model_config *const *models, size_t n_models, enum dtype dtype, uint64_t batch,
    uint64_t context, bool dense);

#endif
