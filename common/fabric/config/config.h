/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config - fleet.yaml as structs. One table (table.c) has key, type, default, range or choices, class and help of every option.
 * Parsing, --set, printing, docs/config.md and the comparison of identities use it. The module does not log, exit or read the
 * environment.
 *
 * At its start a daemon calls config_load(file, --set list), which parses, applies overrides, derives values from other options
 * and checks options against each other; then config_require() for the options that it needs. The configuration of an existing
 * run (run.dir/fleet.yaml) is loaded too, and config_identity_diff() compares the two. config_store() stores the values
 * in use.
 */
#ifndef SALT_CONFIG_H
#define SALT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "base/err/err.h"
#include "data/corpus/corpus.h"
#include "data/labels/labels.h"

/* Choices. The words in fleet.yaml are the last parts of the names in lower case; config_word() returns them. */
enum config_serve { CONFIG_SERVE_SCORE = 1, CONFIG_SERVE_LABEL = 2, CONFIG_SERVE_BOTH = 3 };	/* bits: SCORE | LABEL = BOTH */
enum config_mode { CONFIG_MODE_NONE, CONFIG_MODE_SALT_DS, CONFIG_MODE_FILE };
enum config_optimizer { CONFIG_OPTIMIZER_ADAMW, CONFIG_OPTIMIZER_MUON };
enum config_schedule { CONFIG_SCHEDULE_COSINE, CONFIG_SCHEDULE_LINEAR, CONFIG_SCHEDULE_WSD, CONFIG_SCHEDULE_CONSTANT };
enum config_dtype { CONFIG_DTYPE_AUTO, CONFIG_DTYPE_FP32, CONFIG_DTYPE_BF16 };
enum config_switch { CONFIG_SWITCH_AUTO, CONFIG_SWITCH_ON, CONFIG_SWITCH_OFF };
enum config_residual { CONFIG_RESIDUAL_TRUE_TOKEN, CONFIG_RESIDUAL_GHOST, CONFIG_RESIDUAL_RENORMALISE };
enum config_token_weight { CONFIG_TOKEN_WEIGHT_CONSTANT, CONFIG_TOKEN_WEIGHT_TEACHER_CONFIDENCE, CONFIG_TOKEN_WEIGHT_MARGIN };
enum config_handover { CONFIG_HANDOVER_STEP, CONFIG_HANDOVER_LINEAR, CONFIG_HANDOVER_RATIO };
enum config_late { CONFIG_LATE_WAIT, CONFIG_LATE_HARD };
enum config_backend { CONFIG_BACKEND_AUTO, CONFIG_BACKEND_OPENBLAS, CONFIG_BACKEND_ONEDNN, CONFIG_BACKEND_CUDA };

#define CONFIG_ALL UINT64_MAX		/* selector.label_ahead_steps: all */

struct config_texts {
	size_t n;
	char **item;
};

struct config_numbers {
	size_t n;
	uint64_t *item;
};

/* Field names are the yaml keys. Texts are never NULL ("": not given). Paths are absolute or "". Units: docs/config.md. */
struct config_run {
	char *dir;
	uint32_t seed;
};

struct config_corpus {
	char *train;			/* a prefix, or a list as corpus_open takes it */
	char *heldout;			/* a prefix */
	uint32_t context;		/* L, tokens */
	enum corpus_dtype dtype;	/* of raw ids; CORPUS_DTYPE_NONE: auto */
	bool isolate_documents;
};

struct config_cache {
	char *dir;
	bool keep_unselected;
	uint64_t map_size;		/* bytes of address space for LMDB */
};

struct config_teacher {
	char *model, *scorer;		/* scorer: derived from model when not given */
	char *compute_class;		/* "auto" or a name; see config_compute_class() */
	enum config_serve serve;
	uint32_t threads;		/* 0: all cores */
};

struct config_labels {
	enum labels_kind kind;
	uint32_t samples;		/* N of sampled */
	uint32_t k;			/* of topk */
	double tau;
	uint32_t seed;
};

struct config_selector {
	enum config_mode mode;
	char *file;			/* of mode file; read by selectord only */
	uint32_t k;
	uint64_t block;			/* W, sequences; see config_block() */
	double keep_share;		/* (0, 1] */
	uint64_t pool;			/* sequences of one global block; 0: blocks of W */
	bool by_part;			/* of a blend: choose within each part */
	struct config_texts endpoints;	/* one for each shard, in shard order */
	uint64_t label_ahead_steps;	/* or CONFIG_ALL */
	double lease_s;
	uint32_t lease_sequences;
	uint32_t commit_ms;
	double teacher_idle_s;		/* 0: idle teachers are never released */
	uint32_t quarantine_teachers;	/* 1 .. 3 */
	double max_quarantined;		/* 0 .. 1 */
};

struct config_trainer {
	char *model;			/* directory or config.json: the student's shape */
	char *init;			/* directory with weights; "": random by run.seed */
	uint64_t steps;
	uint32_t batch;			/* sequences a step, over all ranks */
	uint32_t micro_batch;		/* sequences; derived: batch / lanes */
	uint32_t lanes;
	enum config_optimizer optimizer;
	double lr;
	double min_lr_ratio;		/* lr at the end / lr */
	uint64_t warmup;		/* steps */
	enum config_schedule schedule;
	uint64_t decay_steps;		/* of wsd; derived: steps / 10 */
	double weight_decay;
	double betas[2];
	double eps;
	double clip;			/* 0: off */
	enum config_dtype dtype;	/* auto: compute.dtype */
	enum config_backend backend;	/* auto: compute.backend */
	enum config_switch deterministic;
	bool recompute;
	uint32_t threads;		/* a rank; 0: cores / ranks of this host */
	uint32_t ranks;			/* for deploy only */
	uint64_t checkpoint_every;	/* steps; 0: at the switch, at a stop and at the end only */
	uint32_t keep_checkpoints;	/* newest complete ones */
	struct config_numbers keep_steps;
	uint64_t eval_every;		/* steps; 0: at the switch and at the end only */
	uint64_t eval_sequences;	/* 0: all */
	struct config_texts eval_choices;	/* files or folders of data/task */
	bool tensorboard;		/* write run.dir/tb */
	double wait_max_s;		/* 0: for ever */
	double stall_s;			/* the watchdog's limit without progress */
};

struct config_phase_one {
	uint64_t steps;			/* 0: none, unless until_margin */
	double until_margin;		/* nats; NaN: not given. Ask config_until_margin() */
	double weight;			/* w */
	enum config_token_weight token_weight;
	enum config_residual residual;
	enum config_handover handover;
	uint64_t handover_steps;
	enum config_late late;
};

struct config_checkpoint {
	bool gather;
};

struct config_compute {
	enum config_backend backend;
	enum config_dtype dtype;
};

struct config_bus {
	uint64_t max_message;		/* bytes */
};

struct config_security {
	char *curve_dir;
	bool allow_plain_remote;
};

struct config_status {
	char *bind;
};

struct config_deploy {
	uint32_t teachers;
};

struct config_own;			/* memory, and the origin of each value */

struct config {
	struct config_run run;
	struct config_corpus corpus;
	struct config_cache cache;
	struct config_teacher teacher;
	struct config_labels labels;
	struct config_selector selector;
	struct config_trainer trainer;
	struct config_phase_one phase_one;
	struct config_checkpoint checkpoint;
	struct config_compute compute;
	struct config_bus bus;
	struct config_security security;
	struct config_status status;
	struct config_deploy deploy;
	struct config_own *own;
};

/*
 * config_load - reads a file, applies overrides, derives values and checks everything.
 * @path       fleet.yaml (at most 1 MiB), or NULL: defaults and overrides only, relative paths from the working directory
 * @overrides  n texts "section.key=value", as for --set; the last one of a key counts. A value is written as in the file
 *             (lists: [a, b] or a,b; of corpora [{prefix: a, weight: 1}, ...]); its relative paths start at the directory of the file
 * Returns 0 and *cfg (to be freed by config_destroy), ERR_CONFIG with note "FILE:LINE: KEY: expected .., found ..", ENOMEM or
 * errno. *cfg is NULL on failure. Required keys are checked by config_require, not here.
 */
int config_load(const char *path, const char *const *overrides, size_t n, struct config **cfg, struct err_note *note);
int config_load_text(const char *text, size_t len, const char *name, const char *base_dir,
    const char *const *overrides, size_t n, struct config **cfg, struct err_note *note);
void config_destroy(struct config **cfg);	/* cfg and *cfg may be NULL */

/* config_require - checks that all keys of needs (CONFIG_NEED_*) are given. 0, or ERR_CONFIG naming the first missing. */
enum config_need {
	CONFIG_NEED_RUN = 1,		/* run.dir */
	CONFIG_NEED_CORPUS = 2,		/* corpus.train, corpus.context */
	CONFIG_NEED_HELDOUT = 4,	/* corpus.heldout */
	CONFIG_NEED_CACHE = 8,		/* cache.dir */
	CONFIG_NEED_TEACHER = 16,	/* teacher.model */
	CONFIG_NEED_TRAINER = 32,	/* trainer.model, trainer.steps, trainer.batch */
	CONFIG_NEED_BATCH = 64		/* trainer.batch alone, which is part of a plan */
};
int config_require(const struct config *cfg, unsigned needs, struct err_note *note);

/* config_mode_name - what the settings amount to: "baseline", "rkd" (phase one is the whole run), "salt", "salt_ds" or "salt_file". */
const char *config_mode_name(const struct config *cfg);
bool config_phase_one(const struct config *cfg);		/* the run has a phase one */
const char *config_compute_class(const struct config *cfg);	/* teacher.compute_class; NULL: auto */
/* What the trainer computes with: trainer.dtype and trainer.backend, or with auto those of compute. */
enum config_dtype config_trainer_dtype(const struct config *cfg);
enum config_backend config_trainer_backend(const struct config *cfg);
/*
 * config_teacher_dtype - the number format in which the engine computes labels: compute.dtype; with auto, the
 * one that a declared class begins with. ERR_MISMATCH: the two contradict each other, or the engine does not
 * have the format of the class.
 */
int config_teacher_dtype(const struct config *cfg, enum config_dtype *dtype, struct err_note *note);
bool config_until_margin(const struct config *cfg, double *margin_nats);	/* false: not given, *margin untouched */

/*
 * config_block - block size W and number K of rows chosen from a block. pool > 0: W = pool; mode none: K = W; otherwise
 * K = floor(keep_share * W), with keep_share as the decimal number in the file: 0.29 of 100 is 29, although 0.29 * 100 < 29
 * in binary.
 */
void config_block(const struct config *cfg, uint64_t *block, uint64_t *kept);

/* config_word - the word of a choice, as in config_word("labels.kind", cfg->labels.kind); "?" for an invalid value. */
const char *config_word(const char *key, int value);

/* config_get_text - the value of "section.key" as yaml prints it, cut to size bytes with NUL. 0 or ERR_NOT_FOUND. */
int config_get_text(const struct config *cfg, const char *key, char *buf, size_t size);

/* config_origin - the origin of a value: "default", "derived", "line 12", "--set"; "?" for an unknown key. Returns buf. */
const char *config_origin(const struct config *cfg, const char *key, char *buf, size_t size);

/* config_print - all options as yaml that config_load reads to the same values; origins as comments. 0 or errno. */
int config_print(const struct config *cfg, FILE *out, bool with_origin);

/*
 * config_print_renamed - prints one line with every option given under its former name, and its present name; nothing if
 * there is none.
 * @program  begins the line
 */
void config_print_renamed(const struct config *cfg, FILE *out, const char *program);

/*
 * config_store - writes the resolved options to run_dir/fleet.yaml, atomically. If run_dir has a fleet.yaml
 * that config_store did not write, or that was edited since (its first line holds a hash of the rest), it
 * writes to fleet.resolved.yaml. 0 or errno; note names the step.
 * config_stored - the path of that file. It may not exist.
 */
int config_store(const struct config *cfg, const char *run_dir, struct err_note *note);
void config_stored(const char *run_dir, char *path, size_t size);

/*
 * config_identity_diff - looks for the first identity option, in table order, that differs.
 * Returns 0, or ERR_CONFIG with the key, the old value (expected) and the new one (found) in the note.
 * config_tunable_diff - calls each() for every tunable option that differs, with both values as text; returns their number.
 */
int config_identity_diff(const struct config *old, const struct config *now, struct err_note *note);
size_t config_tunable_diff(const struct config *old, const struct config *now,
    void (*each)(void *arg, const char *key, const char *was, const char *is), void *arg);

/* config_docs - writes docs/config.md from the table; a test compares the two. Returns 0 or errno. */
int config_docs(FILE *out);
int config_man(FILE *out, const char *version);	/* fleet.yaml(5) */

#endif
