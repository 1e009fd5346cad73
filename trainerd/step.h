/* SPDX-License-Identifier: Apache-2.0 */
/*
 * step - one optimiser step: lanes, the fixed tree of gradient sums, clipping, AdamW or Muon on this rank's
 * ranges, gather of the parameters.
 *
 * The batch is G lanes; rank r of R holds lanes [r*G/R, (r+1)*G/R), so rows [r*batch/R, (r+1)*batch/R). A lane runs
 * its micro-batches in order into one gradient buffer. Lanes are summed by adjacent pairs, first within a rank, then
 * over ranks; reduce.h does the last sums layer by layer while the backward pass of the rank's last micro-batch runs.
 * Every micro-batch has the same shape on every rank, so the bits do not depend on R.
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
	bool deterministic;		/* the fixed tree; off: one buffer a rank, and MPI chooses the order of the sum */
	struct optim_config optim;
	enum kernels_residual residual;
	enum kernels_token_weight token_weight;
	bool isolate_documents;		/* token document_end ends a document: see model_session_documents */
	int32_t document_end;
	bool recompute;			/* backward computes activations of a layer again: less memory, the same bits */
	int64_t bucket;			/* elements of a bucket, see reduce.h; 0: its default */
};

/* This rank's rows of one step, in host memory. The arrays are borrowed and only read. */
struct step_rows {
	int64_t n_rows;			/* sequences: batch / R */
	const int32_t *tokens;		/* [n_rows, L + 1] */
	const float *weight;		/* [n_rows]: distillation weight of each sequence; NULL: next token
					   alone */
	const float *loss_weight;	/* [n_rows, L]: weight of the loss of each target; NULL: all 1 */
	const int64_t *offsets;		/* [n_rows * L + 1] into ids, values; NULL with dense or without labels */
	const int32_t *ids;
	const float *values;
	const float *dense;		/* [n_rows * L, V] or NULL */
};

/*
 * Means over the whole batch, the same bits on all ranks. Losses in nats per token. Where documents are
 * isolated, the mean (and the gradient) is over the tokens of the batch that have a prediction, not over all:
 * batch * L less the tokens that end a document. With loss weights a the means of losses (and the gradient)
 * are sum a l / sum a over the tokens of the batch; weight and accuracy are over those with a > 0, each
 * counted once.
 */
struct step_result {
	double loss, hard;		/* mixed; next token alone. NaN: no token of the batch has a loss */
	double soft, entropy;		/* over tokens with distillation weight > 0; 0: none. KL(t || p) =
					   soft - entropy */
	double weight;			/* distillation weight, over the same tokens: the row's, after token_weight */
	double accuracy;		/* of the next token, 0..1 */
	double grad_norm;		/* before clipping */
	int64_t kd_tokens;
	bool skipped;			/* loss or gradient was not finite: nothing was updated */
	bool masked;			/* no token of the batch has a loss: nothing was updated, and
					   `skipped` is false */
	double compute_s, reduce_s, update_s;	/* of this rank; reduce_s: the sums after backward, and the norm */
	double overlap_s;		/* part of compute_s: sums of gradients while backward ran */
	double exposed_s;		/* part of reduce_s: waiting for those sums after backward */
	double reduced_early;		/* share of the gradients whose sum was complete when backward ended, 0..1 */
};

struct step;

/*
 * step_new - model, session and buffers; parameters are zero until the masters are filled and step_spread is called.
 * Returns 0, ERR_CONFIG (note: R does not divide the lanes, ...), ERR_RANGE, ENOMEM.
 */
int step_new(struct step **s, const struct model_config *cfg, struct kernels *kernels, struct comm *comm,
    const struct step_options *options, struct err_note *note);
void step_destroy(struct step **s);		/* takes NULL */

const struct model *step_model(const struct step *s);
enum optim_kind step_optim(const struct step *s);

/*
 * The state of the optimiser: fp32 masters of this rank's ranges of the weights, AdamW's first moment or
 * Muon's momentum, and AdamW's second moment. They are in device memory. So are all weights in the compute
 * dtype, which the model reads; in fp32 the masters are part of these. Only the functions below move them
 * between device and host.
 *
 * Elements of masters and M are numbered as the parameters in the flat order. V has no elements for matrices
 * that Muon updates: its numbering skips them.
 */
enum step_array { STEP_MASTERS, STEP_M, STEP_V, STEP_ARRAYS };

/* step_total - elements of an array over all ranks. */
int64_t step_total(const struct step *s, enum step_array array);

/*
 * step_parts, step_range - a rank has one range of each of so many parts of an array (engine/optim/split.h):
 * elements [begin, end), which may be none. The ranges of the parts ascend; those of all ranks together are
 * the array.
 */
int step_parts(const struct step *s);
void step_range(const struct step *s, enum step_array array, int rank, int part, int64_t *begin, int64_t *end);

#define STEP_PIECE (INT64_C(1) << 20)	/* most elements that step_fill requests at a time */

/*
 * step_read - copies elements [begin, begin + count) of an array, inside one range of this rank, to host
 * memory.
 */
void step_read(struct step *s, enum step_array array, int64_t begin, int64_t count, float *out);

/*
 * step_fill - fills this rank's ranges of an array from source, which is called for ascending ranges [begin,
 * begin + count) of at most STEP_PIECE elements. step_spread must follow when masters were filled. Returns 0,
 * ENOMEM, or the error of source.
 */
typedef int step_source(void *arg, uint64_t begin, uint64_t count, float *out, struct err_note *note);
int step_fill(struct step *s, enum step_array array, step_source *source, void *arg, struct err_note *note);

/* step_init - step_fill of the masters with random weights (model_init). 0 or ENOMEM. */
int step_init(struct step *s, uint32_t seed, struct err_note *note);

/* step_spread - collective, after the masters were filled: brings the weights of all ranks up to date. */
void step_spread(struct step *s);

/* step_run - collective. @update counts optimiser steps from 1 (AdamW's bias correction); @lr of this step. */
void step_run(struct step *s, const struct step_rows *rows, float lr, int64_t update, struct step_result *out);

/* Result of an evaluation on the held-out sequences; the same bits on all ranks, whatever R is. */
struct step_eval {
	double loss;			/* log-perplexity, nats per token */
	double accuracy;
	int64_t tokens;
	bool finite;
};

/*
 * step_evaluate - collective. get(arg, i, out) copies the L+1 tokens of sequence i of n; returns 0 or an
 * error, which ends the evaluation on all ranks and is returned by all. Sequences are evaluated in groups of
 * micro_batch, group j in lane j mod G. window_nats: NULL, or [n], the mean loss of each sequence on all
 * ranks.
 */
int step_evaluate(struct step *s, uint64_t n, int (*get)(void *arg, uint64_t i, int32_t *out), void *arg, double *window_nats,
    struct step_eval *out);

#endif
