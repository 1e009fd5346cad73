/*
 * step - one optimiser step: lanes, the fixed tree of gradient sums, clipping, AdamW on this rank's range, parameters gathered.
 *
 * The batch is G lanes; rank r of R holds lanes [r*G/R, (r+1)*G/R), so rows [r*batch/R, (r+1)*batch/R). A lane runs its micro-batches
 * in order into one gradient buffer; lanes are summed by adjacent pairs, a rank's own first and then among ranks, both by reduce.h
 * layer by layer while the backward of the rank's last micro-batch still runs.
 * Every micro-batch has the same shape on every rank, so R changes no bit.
 */
#ifndef SALT_STEP_H
#define SALT_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err/err.h"
#include "engine/kernels/kernels.h"
#include "engine/model/model.h"
#include "engine/optim/optim.h"
#include "trainerd/comm.h"
#include "trainerd/shard.h"

struct step_options {
	int64_t context;		/* L */
	int64_t batch;			/* sequences over all ranks */
	int64_t micro_batch;		/* sequences */
	int64_t lanes;			/* G; R divides it */
	bool deterministic;		/* the fixed tree; off: one buffer a rank, MPI's own sum */
	struct optim_config optim;
	enum kernels_residual residual;
	bool recompute;			/* activations of a layer are made again in backward: less memory, the same bits */
	int64_t bucket;			/* elements of a piece of the gradients' sum over ranks, see reduce.h; 0: as there */
};

/* This rank's rows of one step. Arrays are the giver's, not written to. */
struct step_rows {
	int64_t n_rows;			/* sequences: batch / R */
	const int32_t *tokens;		/* [n_rows, L + 1] */
	const float *weight;		/* [n_rows]: KD weight of each sequence; NULL: plain LM */
	const int64_t *offsets;		/* [n_rows * L + 1] into ids, values; NULL with dense or without labels */
	const int32_t *ids;
	const float *values;
	const float *dense;		/* [n_rows * L, V] or NULL */
};

/* Means over the whole batch, the same bits on all ranks. Losses in nats per token. */
struct step_result {
	double loss, hard;		/* mixed; LM */
	double soft, entropy;		/* over tokens with KD weight > 0; 0 where there are none. KL(t || p) = soft - entropy */
	double accuracy;		/* of the next token, 0..1 */
	double grad_norm;		/* before clipping */
	int64_t kd_tokens;
	bool skipped;			/* loss or gradient was not finite: nothing was updated */
	double compute_s, reduce_s, update_s;	/* this rank's; reduce_s: what was left of the sums after backward, and the norm */
	double overlap_s;		/* part of compute_s that went into sums of gradients while backward ran */
	double exposed_s;		/* part of reduce_s: waiting for those sums after backward */
	double reduced_early;		/* share of the gradients whose sum was complete when backward ended, 0..1 */
};

struct step;

/*
 * step_new - model_new + session + buffers; parameters are zero until step_masters is filled and step_spread called.
 * Returns 0, ERR_CONFIG (note: R does not divide the lanes, ...), ERR_RANGE, ENOMEM.
 */
int step_new(struct step **s, const struct model_config *cfg, struct kernels *kernels, struct comm *comm,
    const struct step_options *options, struct err_note *note);
void step_destroy(struct step **s);		/* takes NULL */

const struct model *step_model(const struct step *s);
const struct shard *step_shard(const struct step *s);

/*
 * The weights: fp32 masters of this rank's range, which the optimiser moves and checkpoints keep, and all of them on every rank in the
 * compute dtype, which the model reads. In fp32 the masters lie inside the latter.
 * step_spread - collective, after masters were written from outside (loaded, first weights): brings the copies of all ranks up to date.
 */
float *step_masters(struct step *s);		/* [shard.end - shard.begin] */
const void *step_params(const struct step *s);	/* [n_params] in step_model()->dtype */
void step_spread(struct step *s);
float *step_m(struct step *s);			/* [shard.end - shard.begin] */
float *step_v(struct step *s);

/* step_run - collective. @update counts optimiser steps from 1 (AdamW's bias correction); @lr of this step. */
void step_run(struct step *s, const struct step_rows *rows, float lr, int64_t update, struct step_result *out);

/* What an evaluation on the held-out windows gives; the same bits on all ranks, whatever R is. */
struct step_eval {
	double loss;			/* log-perplexity, nats per token */
	double accuracy;
	int64_t tokens;
	bool finite;
};

/*
 * step_evaluate - collective. get(arg, i, out) copies the L+1 tokens of window i of n; returns 0 or an error that ends the evaluation
 * on all ranks (the first rank's that has one is returned by all). Windows go in groups of micro_batch, group j to lane j mod G.
 */
int step_evaluate(struct step *s, uint64_t n, int (*get)(void *arg, uint64_t i, int32_t *out), void *arg, struct step_eval *out);

#endif
