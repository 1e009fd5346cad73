/* SPDX-License-Identifier: Apache-2.0 */
/*
 * price - the arithmetic of a capacity estimate: sequences to label, bytes, FLOPs, and seconds at R ranks. It
 * uses no file, no clock and no output, so that tests can compare it with results computed by hand. All bytes
 * and seconds are doubles; a size is never used to allocate. plan.c supplies the numbers, plan_print.c prints
 * them.
 */
#ifndef SALT_CTL_PRICE_H
#define SALT_CTL_PRICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"
#include "engine/fit/fit.h"

/* price_share - share of the work of an update, 0..1, of the rank that has the largest one. */
double price_share(const struct optim_split *split, int n_ranks);

/* ---- the work of the teachers ---- */

struct price_work {
	uint64_t rows;			/* of phase one */
	uint64_t blocks;		/* selection blocks; 0 in mode none */
	uint64_t scored;		/* sequences that the scorer processes; 0 in mode none */
	uint64_t labelled;		/* sequences that the teacher processes */
	uint64_t stored;		/* label records that stay in the cache, if cache.keep_unselected is off */
	bool one_pass;			/* one model scores and labels, in one pass: labelled equals scored */
};

/*
 * price_work - @window, @kept: W and K of selection, equal in mode none; @n_windows: sequences of the corpus,
 * 0 if not known. A sequence is scored and labelled once, however many epochs use it.
 */
void price_work(struct price_work *w, uint64_t rows, uint64_t window, uint64_t kept, bool selects,
    bool one_model, uint64_t n_windows);

/*
 * price_unique - expected number of distinct ids among N draws: the power law through 5 for N = 13 and 12 for
 * N = 50, which the RS-KD paper reports (arXiv 2503.16870).
 */
double price_unique(uint32_t n_draws);

/* ---- time: an alpha-beta model of the network, and compute that scales with cores ---- */

struct price_link {
	double latency_s;		/* alpha: of one exchange, however short */
	double bytes_per_s;		/* beta: in each direction, both at once; INFINITY: not counted */
};

struct price_machine {
	double cores;			/* of a host, available to the trainer */
	double threads;			/* of a rank; 0: cores / ranks of the host */
	int ranks_per_host;		/* a power of two; rank r is on host r / ranks_per_host */
	struct price_link between;	/* between hosts; the ranks of a host share it */
	struct price_link within;	/* within a host, through memory; slower where ranks share cores */
	double sum_bytes_per_s;		/* rate of adding fp32 gradients; INFINITY: not counted */
	/* 0..1: share of the reduction's transfers that run during backward, if backward is long enough */
	double overlap;
};

/* Seconds with `cores` cores per rank. */
struct price_compute {
	double micro_s;			/* forward, loss and backward of one micro-batch */
	double update_s;		/* of all parameters, by one rank */
	double other_s;			/* rest of a step, beyond compute, update and reduction */
	double cores;
};

struct price_time {
	int ranks, hosts;
	double cores;			/* of a rank; a fraction if ranks share cores */
	double compute_s, update_s, reduce_s, hidden_s, gather_s, small_s, other_s;
	double step_s;			/* compute + update + reduce - hidden + gather + small + other */
	double bytes;			/* sent by a rank in a step */
};

/*
 * price_time - the time of one step at n_ranks. Reduction: recursive halving, levels l = 0, 1, ..: partners
 * at distance 2^l exchange half of what they hold and add it: alpha + bytes / beta + bytes / sum. Gather: the
 * same in reverse order, in the compute dtype. Small: PRICE_SMALL all-reduces of a few numbers; one of them
 * has 8 bytes for each block of 64 Ki parameters. Hidden: transfers of the reduction, without the additions,
 * that overlap the backward of the last micro-batch; at most two thirds of that micro-batch's time (three
 * quarters with recompute).
 */
#define PRICE_SMALL 5
void price_time(struct price_time *t, const struct fit_shape *s, const struct price_machine *m,
    const struct price_compute *c, int n_ranks);

/* price_cores - number of cores of a rank; a fraction if ranks share cores. */
double price_cores(const struct price_machine *m, int n_ranks);

/* price_gather - seconds of the gather alone, which the measured update of several ranks contains. */
double price_gather(const struct fit_shape *s, const struct price_machine *m, int n_ranks);

/* price_efficiency - core-seconds of a step at one rank divided by those of t. */
double price_efficiency(const struct price_time *one, const struct price_time *t);

/* ---- is it worth it ---- */

struct price_worth {
	double inline_factor;		/* 1 + N_T / (3 N_S): cost of a phase-one step, teacher in line */
	double label_share;		/* teacher's FLOPs (scores and labels) / FLOPs of the whole baseline */
	double saving;			/* assumption: share of the baseline's steps that is saved */
	double net_saving;		/* saving - label_share; the teacher's training is not counted */
	double made_net_saving;		/* saving - made_share */
	/* share of the baseline's FLOPs for labels and for training a teacher on as many tokens as the run */
	double made_share;
	double teacher_tokens;		/* most training tokens of the teacher that still pay; <= 0: none */
};

void price_worth(struct price_worth *w, double student_params, double teacher_params, double baseline_flops,
    double teacher_flops, double run_tokens, double saving);

#endif
