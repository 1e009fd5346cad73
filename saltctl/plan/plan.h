/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan - `saltctl plan`: the cost of a configuration before it is run.
 *
 *   plan.c          options; configuration, models, corpora -> struct plan
 *   plan_measure.c  seconds: a run's metrics.jsonl, a few micro-batches here, a network's file
 *   price.c         the arithmetic
 *   plan_print.c    tables and JSON
 */
#ifndef SALT_CTL_PLAN_H
#define SALT_CTL_PLAN_H

#include "engine/kernels/kernels.h"
#include "fabric/config/config.h"
#include "saltctl/plan/price.h"

#define PLAN_MAX_RANKS 16		/* entries of --ranks */

struct plan_model {
	char path[4096];
	struct model_config config;
	int64_t n_params;
	char remark[128];		/* of an architecture that is not known; "" */
	double flops;			/* a token, forward and backward */
};

/* What was measured, and where; all NaN and source "" without. */
struct plan_measured {
	struct price_compute compute;	/* of the planned model */
	double flops_per_s;		/* of one core, forward and backward */
	double label_bytes;		/* a token; NaN: no labels seen */
	int ranks;			/* of the measured run */
	double step_s;			/* of it, as it was: median */
	/* share of its reduction that was complete when backward ended; NaN: one rank, or not recorded */
	double early;
	char source[4400], remark[400];
};

/* One part of a blend: its size, its share, and the sequences that the run trains on from it. */
struct plan_part {
	char prefix[4096];
	double share;
	uint64_t windows, sequences;	/* sequences: of the run, with repetitions */
};

struct plan {
	struct config *cfg;
	struct plan_model student, teacher, scorer;
	bool has_teacher;		/* there is a phase one */
	struct optim_split *split;	/* of the student's parameters; shape refers to it */
	double muon_flops;		/* of a step, in Newton-Schulz; 0: AdamW */
	struct fit_shape shape;
	struct price_machine machine;
	struct price_work work;
	struct price_worth worth;
	struct plan_measured measured;
	char network_source[4400];	/* "": no figures of a network: reduction is not counted */
	uint64_t phase_one_steps;	/* until_margin: all, the most it can be */
	bool until_margin;
	uint64_t n_windows, heldout_windows, evaluations;	/* 0: not known; eval_windows applied */
	double corpus_bytes;		/* NaN: no corpus there */
	struct plan_part *parts;	/* [n_parts]; NULL: no corpus there */
	size_t n_parts;
	double label_bytes, score_bytes;	/* a token; NaN: does not apply */
	const char *label_source;
	/* The GPU that the trainer (shape.gpu) or the teachers compute on. */
	bool teacher_gpu;
	struct kernels_device gpu;	/* found here; memory_bytes 0: none, or not asked for */
	double gpu_bytes;		/* its memory, or --device-memory; NaN: not known */
	struct plan_fit {
		bool fits, other;	/* a rank as configured; with another micro-batch, or recompute */
		struct fit_shape with;
	} fit[PLAN_MAX_RANKS];		/* where gpu_bytes is known */
	/* bytes of a teacher on a GPU: parameters; each of its workers. NaN: not known */
	double teacher_params, teacher_worker;
	int teacher_workers;
	double checkpoint_bytes;
	double labels_stored, scores_stored;	/* bytes in the cache, pages included; NaN: does not apply */
	double baseline_flops, teacher_flops, eval_flops;	/* of the run */
	size_t n_ranks;
	int ranks[PLAN_MAX_RANKS];
	double memory[PLAN_MAX_RANKS][FIT_ITEMS];
	struct price_time one;		/* one rank */
	struct price_time time[PLAN_MAX_RANKS];
};

/*
 * Memory of a GPU that CUDA itself takes for a process: its context. About; it depends on driver and device.
 */
#define PLAN_CONTEXT_BYTES (0.5 * 1073741824.0)

/* plan_print_text, plan_print_json - exit code. */
int plan_print_text(const struct plan *p);
int plan_print_json(const struct plan *p);

/* ---- plan_measure.c ---- 0, or an error with its note */

/* plan_read_run - medians of a run directory or a metrics.jsonl, scaled by FLOPs and parameters where it
 * trained another model. */
int plan_read_run(struct plan *p, const char *path, struct err_note *note);

/* plan_measure_here - a few micro-batches and one update of the planned model on this machine, after its
 * memory was found enough. */
int plan_measure_here(struct plan *p, struct err_note *note);

/* plan_read_network - what bench_network wrote, or an object {"latency_seconds", "bytes_per_second"[,
 * "sum_bytes_per_second"]}. */
int plan_read_network(const char *path, struct price_link *link, double *sum_bytes_per_s, struct err_note *note);

#endif
