/* SPDX-License-Identifier: Apache-2.0 */
/*
 * price - the needs of a run before it is started: sequences to label, bytes, FLOPs, seconds
 * at R ranks. Arithmetic only: no file, no clock, no printing, so that tests can work it out by hand. All bytes
 * and seconds are doubles; a size is never used to allocate. plan.c supplies the numbers, plan_print.c prints.
 */
#ifndef SALT_CTL_PRICE_H
#define SALT_CTL_PRICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"
#include "engine/fit/fit.h"

/* price_share - share of the work of an update, 0..1, that the rank has which has most. */
double price_share(const struct optim_split *split, int n_ranks);

/* ---- the work of the teachers ---- */

struct price_work {
	uint64_t rows;			/* phase one's */
	uint64_t blocks;		/* of selection; 0 in mode none */
	uint64_t scored;		/* sequences that the scorer passes over; 0 in mode none */
	/* that the teacher passes over. Where one model does both it is one pass: see one_pass */
	uint64_t labelled;
	uint64_t stored;		/* label records that stay in the cache, if cache.keep_unselected is off */
	bool one_pass;
};

/*
 * price_work - @window, @kept: W and K of selection, equal in mode none; @n_windows: of the corpus, 0 if not
 * known; what is chosen from a second epoch is scored and labelled once.
 */
void price_work(struct price_work *w, uint64_t rows, uint64_t window, uint64_t kept, bool selects,
    bool one_model, uint64_t n_windows);

/* Ids of one row of N draws: measured by others as 5 for N = 13 and 12 for N = 50 (RS-KD, arXiv
 * 2503.16870); the power law through both. */
double price_unique(uint32_t n_draws);

/* ---- time: an alpha-beta model of the network, and compute that scales with cores ---- */

struct price_link {
	double latency_s;		/* alpha: of one exchange, however short */
	double bytes_per_s;		/* beta: each way, both ways at once; INFINITY: not counted */
};

struct price_machine {
	double cores;			/* of a host, for the trainer */
	double threads;			/* of a rank; 0: cores / ranks of the host */
	int ranks_per_host;		/* a power of two; rank r is on host r / ranks_per_host */
	struct price_link between;	/* hosts: shared by the ranks of a host when all of them cross it at once */
	struct price_link within;	/* a host: memory; slower where ranks share cores */
	double sum_bytes_per_s;		/* bytes of fp32 gradients added to others; INFINITY: not counted */
	/* 0..1: share of the reduction's transfers that run during backward where there is enough of that */
	double overlap;
};

/* Seconds with `cores` cores a rank. */
struct price_compute {
	double micro_s;			/* forward, loss and backward of one micro-batch */
	double update_s;		/* of all parameters, by one rank */
	double other_s;			/* the rest of a step that no other figure has */
	double cores;
};

struct price_time {
	int ranks, hosts;
	double cores;			/* of a rank, a fraction where ranks share */
	double compute_s, update_s, reduce_s, hidden_s, gather_s, small_s, other_s;
	double step_s;			/* compute + update + reduce - hidden + gather + small + other */
	double bytes;			/* that a rank sends in a step */
};

/*
 * price_time - one step at n_ranks. Reduction: recursive halving, level l = 0, 1, ..: partners at distance
 * 2^l exchange half of what they hold and add it: alpha + bytes / beta + bytes / sum. Gather: the same
 * backwards, in the compute dtype. Small: PRICE_SMALL all-reduces of a few numbers, one of them 8 bytes a
 * block of 64 Ki parameters. Hidden: transfers of the reduction, not the adding, that overlap the backward of
 * the last micro-batch, at most two thirds of that micro-batch (three quarters with recompute).
 */
#define PRICE_SMALL 5
void price_time(struct price_time *t, const struct fit_shape *s, const struct price_machine *m,
    const struct price_compute *c, int n_ranks);

/* price_cores - cores that a rank computes with. */
double price_cores(const struct price_machine *m, int n_ranks);

/* price_gather - seconds of the gather alone: what a measured update at several ranks has in it. */
double price_gather(const struct fit_shape *s, const struct price_machine *m, int n_ranks);

/* price_efficiency - useful share of the core-seconds of t against those of one rank: one * cores / (t *
 * ranks * cores). */
double price_efficiency(const struct price_time *one, const struct price_time *t);

/* ---- is it worth it ---- */

struct price_worth {
	double inline_factor;		/* 1 + N_T / (3 N_S): a phase-one step if the teacher ran in line */
	double label_share;		/* teacher's FLOPs (scores and labels) / FLOPs of the whole baseline */
	double saving;			/* assumed: share of the baseline's steps that is saved */
	double net_saving;		/* saving - label_share: of the baseline's FLOPs, teacher's training not counted */
	double made_net_saving;		/* saving - made_share */
	/* of the baseline: a teacher made for this on as many tokens, labels included */
	double made_share;
	double teacher_tokens;		/* most tokens such a teacher may see to be paid back; <= 0: never */
};

void price_worth(struct price_worth *w, double student_params, double teacher_params, double baseline_flops,
    double teacher_flops, double run_tokens, double saving);

#endif
