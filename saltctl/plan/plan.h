/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan - `saltctl plan`: the capacity estimate of a configuration before it is run.
 *
 *   plan.c          options; configuration, models, corpora -> struct plan
 *   plan_measure.c  measured seconds: a run's metrics.jsonl, micro-batches on this machine, a network file
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
	char remark[128];		/* set if the architecture is not known; else "" */
	double flops;			/* per token, forward and backward */
};

/* Measured figures and their source; without a measurement all are NaN and source is "". */
struct plan_measured {
	struct price_compute compute;	/* of the planned model */
	double flops_per_s;		/* of one core, forward and backward */
	double label_bytes;		/* per token; NaN: no labels seen */
	int ranks;			/* of the measured run */
	double step_s;			/* median step of the measured run, not scaled */
	/* share of the reduction that was complete when backward ended; NaN: one rank, or not recorded */
	double early;
	char source[4400], remark[400];
};

/* One part of a blend: its size, its share, and how many of its sequences the run trains on. */
struct plan_part {
	char prefix[4096];
	double share;
	uint64_t windows, sequences;	/* in the part; trained in the run, repetitions counted */
};

struct plan {
	struct config *cfg;
	struct plan_model student, teacher, scorer;
	bool has_teacher;		/* there is a phase one */
	struct optim_split *split;	/* of the student's parameters; shape refers to it */
	double muon_flops;		/* Newton-Schulz, per step; 0: AdamW */
	struct fit_shape shape;
	struct price_machine machine;
	struct price_work work;
	struct price_worth worth;
	struct plan_measured measured;
	char network_source[4400];	/* "": no network figures, so the reduction is not counted */
	uint64_t phase_one_steps;	/* with until_margin all steps, the upper bound */
	bool until_margin;
	uint64_t n_windows, heldout_windows, evaluations;	/* 0: not known; eval_sequences applied */
	double corpus_bytes;		/* NaN: the corpus does not exist */
	struct plan_part *parts;	/* [n_parts]; NULL: the corpus does not exist */
	size_t n_parts;
	double label_bytes, score_bytes;	/* per token; NaN: does not apply */
	const char *label_source;
	/* the GPU of the trainer (shape.gpu) or of the teachers */
	bool teacher_gpu;
	struct kernels_device gpu;	/* found on this machine; memory_bytes 0: none, or not asked for */
	double gpu_bytes;		/* its memory, or --device-memory; NaN: not known */
	struct plan_fit {
		bool fits, other;	/* a rank fits as configured; it fits with the shape `with` */
		struct fit_shape with;	/* another micro-batch, or recompute */
	} fit[PLAN_MAX_RANKS];		/* set if gpu_bytes is known */
	/* bytes of a teacher on a GPU: its parameters; each of its workers. NaN: not known */
	double teacher_params, teacher_worker;
	int teacher_workers;
	double checkpoint_bytes;
	double labels_stored, scores_stored;	/* bytes in the cache, pages included; NaN: does not apply */
	double baseline_flops, teacher_flops, eval_flops;	/* of the whole run */
	size_t n_ranks;
	int ranks[PLAN_MAX_RANKS];
	double memory[PLAN_MAX_RANKS][FIT_ITEMS];
	struct price_time one;		/* one rank */
	struct price_time time[PLAN_MAX_RANKS];
};

/* Device memory of a process's CUDA context: an approximation, since it depends on driver and device. */
#define PLAN_CONTEXT_BYTES (0.5 * 1073741824.0)

/* plan_print_text, plan_print_json - print the estimate to standard output; return an exit code. */
int plan_print_text(const struct plan *p);
int plan_print_json(const struct plan *p);

/* ---- plan_measure.c ---- these return 0, or an error with its note */

/*
 * plan_read_run - takes medians from a run directory or a metrics.jsonl into p->measured, scaled by FLOPs and
 * parameters if that run trained another model.
 */
int plan_read_run(struct plan *p, const char *path, struct err_note *note);

/* plan_measure_here - runs micro-batches and an update of the model on this machine, if memory suffices. */
int plan_measure_here(struct plan *p, struct err_note *note);

/*
 * plan_read_network - reads the output of bench_network, or an object {"latency_seconds",
 * "bytes_per_second"[, "sum_bytes_per_second"]}.
 */
int plan_read_network(const char *path, struct price_link *link, double *sum_bytes_per_s, struct err_note *note);

#endif
