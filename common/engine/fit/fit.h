/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fit - calculates the memory of a trainer's rank and of a teacher, and finds options with which a rank takes
 * less. Arithmetic only: no file, no device. Bytes are doubles; they are never used to allocate.
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
	/* fp32; with fp32 compute the model reads them, so every rank holds all of them */
	FIT_MASTERS,
	/* all parameters in a compute dtype other than fp32; masters are then the rank's optimizer range */
	FIT_COPY,
	FIT_MOMENTS,			/* AdamW's m and v, or Muon's momentum, of the same range */
	FIT_GRADIENTS,			/* fp32, whole arrays; 1 + log2(lanes / R) of them if deterministic */
	/* buckets of gradients received from other ranks: FIT_BUCKETS of FIT_BUCKET elements at most */
	FIT_RECEIVED,
	FIT_MUON,			/* working memory of Newton-Schulz */
	FIT_ACTIVATIONS,		/* model_session_plan of one micro-batch */
	/* logits and their gradient; on CPUs in bf16 also repacked weights, on a GPU cuBLASLt's workspace */
	FIT_PRODUCTS,
	/* tokens and labels of FIT_STEPS_AHEAD steps; 0 with a GPU, as they are in host memory */
	FIT_ROWS,
	FIT_ITEMS
};

#define FIT_BUCKETS 8			/* in flight: trainerd/reduce.c */
#define FIT_BUCKET (INT64_C(1) << 20)	/* elements: REDUCE_BUCKET */
#define FIT_STEPS_AHEAD 6		/* steps that a rank's feed holds: FEED_SLOTS */

struct fit_shape {
	const struct model_config *model;
	int64_t n_params;
	enum dtype dtype;		/* compute dtype */
	bool gpu;			/* GPU memory (backend cuda); false: host memory */
	bool recompute, deterministic;
	const struct optim_split *split;	/* division of the optimizer's state */
	int64_t muon_rows, muon_cols;	/* size of the largest matrix, set by fit_muon; 0: none */
	/* threads of a rank, which update one matrix each; a GPU updates one at a time */
	int threads;
	uint64_t batch, micro_batch, lanes, context;
	/* ids of a token's decoded label, 8 bytes each, plus 8 per token; 0: no labels */
	double label_entries;
};

/* fit_muon - sets muon_rows and muon_cols to the largest matrix that Muon updates. */
void fit_muon(struct fit_shape *s, const struct model *model);

/*
 * fit_train - bytes of each item for the rank that takes most memory. n_ranks: a power of two that divides
 * the lanes.
 * Returns 0, or as model_session_plan.
 */
int fit_train(const struct fit_shape *s, int n_ranks, double bytes[FIT_ITEMS], struct err_note *note);

double fit_sum(const double bytes[FIT_ITEMS]);

/*
 * fit_find - sets *found to s with the largest micro-batch, at most s's, that fits in `bytes`; with recompute
 * only if nothing fits without it. Returns false, and leaves *found unchanged, if nothing fits.
 */
bool fit_find(const struct fit_shape *s, int n_ranks, double bytes, struct fit_shape *found);

/*
 * fit_label - GPU memory of a teacher's worker besides the parameters: activations of `batch` sequences of
 * `context` tokens for each of its models, and the buffers for labels (dense: of kind dense), which the
 * models share.
 * Returns bytes, or NaN if there can be no such session.
 */
double fit_label(const struct model_config *const *models, size_t n_models, enum dtype dtype, uint64_t batch,
    uint64_t context, bool dense);

#endif
