/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report - reads runs from their folders, compares them, prints tables and draws charts. Every figure comes
 * from the files of the runs; a missing one is shown as missing.
 *
 *   report_read.c   RUN/metrics.jsonl and RUN/fleet.yaml -> struct report_run
 *   report.c        the verb; which run is compared with which; tables and JSON
 *   report_seeds.c  several seeds and complete shorter runs of one recipe
 *   report_judged.c choices, and the loss on sequences that are easy, medium and hard for the teacher
 *   report_html.c   report.html around the charts of report_chart.c
 *   ledger.c        the verb ledger: what runs cost and saved
 */
#ifndef SALT_CTL_REPORT_H
#define SALT_CTL_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err/err.h"

struct json;

/* One step as metrics.jsonl has it. NaN: null or absent. */
struct report_step {
	uint64_t step;			/* steps done */
	int phase;			/* 1 or 2; 0: absent */
	double hard, lr, wait_seconds, kd_tokens, label_bytes;	/* hard: next-token loss, nats */
	double seconds;			/* of training up to this step */
	double rows_ahead;		/* number of steps whose rows had been fetched by then */
};

struct report_eval {
	uint64_t step;
	double loss, accuracy, bits_per_byte, teacher_loss;
	double seconds;			/* of training up to this step; NaN: not known */
};

/* Results of one file of trainer.eval_choices at the last evaluation. NaN: absent. */
struct report_choice {
	char name[64], kind[16];
	int64_t items;
	double accuracy, accuracy_se, by_byte, sets_mean, sets_mean_se, log_p;
};

/* The beginning of report.html: a file that begins so is replaced without --replace. */
#define REPORT_HTML_BEGIN "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">" \
	"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>saltfleet: report</title>"

struct ctl_args;

struct report_run {
	const char *dir;
	char name[64];
	char label[128];		/* name, with seed and steps if other runs have the same name */
	char mode[16];			/* baseline, rkd, salt, salt_ds, salt_file; "?" without fleet.yaml */
	/* from fleet.yaml; 0 and "" without it */
	uint64_t steps, batch, context, seed;
	char model[4096];
	int64_t n_params;		/* 0: not known */
	/* from metrics.jsonl */
	struct report_step *points;
	size_t n_points, cap_points;
	struct report_eval *evals;
	size_t n_evals, cap_evals;
	struct report_choice *choices;
	size_t n_choices;
	uint64_t switch_step;		/* 0: none so far */
	int64_t rows_seen_again;	/* -1: not recorded */
	uint64_t last_step, bad_lines;
	double seconds, wait_seconds, kd_tokens, label_bytes;	/* sums; seconds of training, of waiting for rows */
	int64_t quarantined_rows;	/* sum of rows trained without the teacher */
	double teacher_seconds;		/* processor time of all teacherd, from RUN/ledger; NaN: no such file */
	uint64_t bad_ledgers;		/* files there that cannot be read */
};

/*
 * report_read - reads one run. An incomplete last line (the run may be writing it) is ignored; other bad
 * lines are counted. Returns 0, ENOENT, ERR_FORMAT (no line of a trainer), ENOMEM, errno, or ERR_CONFIG for
 * an invalid fleet.yaml; a missing one is no error. Call report_run_free.
 */
int report_read(struct report_run *run, const char *dir, struct err_note *note);
void report_run_free(struct report_run *run);
/* report_left_out - prints on standard error what report_read had to leave out, if anything. */
void report_left_out(const struct ctl_args *args, const struct report_run *run);

/*
 * report_model_config - reads a model's config.json. Returns 0 or an error; a file that exists but cannot be
 * read is also logged.
 */
struct model_config;
int report_model_config(const char *dir, struct model_config *cfg);

const struct report_eval *report_last(const struct report_run *run);		/* NULL: none */
const struct report_eval *report_at(const struct report_run *run, uint64_t step);	/* NULL: none */
/* report_finished - whether the last step (of fleet.yaml, or without it of the metrics) was evaluated. */
bool report_finished(const struct report_run *run);

/*
 * report_speed - steps per second of run divided by those of base, for runs of the same model and batch; NaN:
 * not known. If it is far from 1 their seconds cannot be compared: other processes ran beside one of them, or
 * the machines or threads differ.
 */
double report_speed(const struct report_run *run, const struct report_run *base);
bool report_same_speed(double ratio);		/* within a tenth, or not known */

void report_print_quarantined(const struct report_run *run);	/* a paragraph; nothing if there are none */

/* ledger_json - the cost of a run (ledger.c); a figure that is in no file is null. json_close it. */
struct json *ledger_json(const struct report_run *run);

/* A run compared with the baseline that had the same model, data and steps. */
struct report_race {
	const struct report_run *run, *baseline;	/* baseline NULL: none given */
	double target;					/* baseline's final held-out loss */
	const struct report_eval *reached;		/* first evaluation at or below target; NULL: none */
	bool decided;					/* both have finished, or the target was reached */
};

/* Number, sum and sum of squares of a value over several runs. */
struct report_mean {
	size_t n;
	double sum, squares;
};

/* Finished runs of one name, model and number of steps: the seeds of one recipe. */
struct report_group {
	const struct report_run *first;
	struct report_mean loss, accuracy, bits_per_byte;
	struct report_mean difference;	/* final loss minus the baseline's, by seed; empty: no baseline */
	/*
	 * If there are complete shorter runs of this name: the share of the baseline's steps at which their
	 * final losses, interpolated linearly over the steps, reach the baseline's. One value per seed, in
	 * the group of the longest run.
	 */
	struct report_mean share;
	size_t n_at_most;		/* values that are upper bounds: the shortest run is already below */
	size_t n_not_reached;
};

/* Mean loss of a run on the sequences that are easy, medium and hard for the teacher, a third each. */
#define REPORT_THIRDS 3
struct report_thirds {
	bool known;
	double loss[REPORT_THIRDS], se[REPORT_THIRDS];	/* nats per token; standard error over sequences */
};

struct report {
	struct report_run *runs;
	size_t n_runs;
	bool seeds;					/* several runs have the same name */
	const struct report_race *races;
	size_t n_races;
	double teacher_seconds;				/* NaN: not known */
	const char *teacher_source;			/* kind of these seconds, and their source */
	struct report_group *groups;			/* free() it */
	size_t n_groups;
	struct report_thirds *thirds;			/* [n_runs + 1], teacher last; or NULL; free() it */
	size_t n_sequences;				/* in all thirds together */
};

/*
 * report_groups - sets the labels of the runs and r->groups. baseline: the name of the runs to compare with;
 * NULL: the runs without a teacher.
 */
void report_groups(struct report *r, const char *baseline);
/*
 * report_groups_check - EX_USAGE, with a message, if a folder is given twice under one name, since it would count
 * as two seeds. Prints a warning about two runs of one name and one seed. Else 0.
 */
int report_groups_check(const struct ctl_args *args, const struct report *r);
struct json *report_groups_json(const struct report *r);
void report_print_groups(const struct report *r);
const char *report_plus_minus(const struct report_mean *m, double scale, int digits, char buf[48]);	/* "4.123 +- 0.004" */
const char *report_share(const struct report_group *g, char buf[96]);

/* report_choices_read - reads the member choices of an evaluation's line into run, if it has one. */
void report_choices_read(struct report_run *run, const struct json *eval);
struct json *report_choices_json(const struct report_run *run);		/* an object, a member per file */

/*
 * report_thirds_read - computes r->thirds from the file of the teacher's losses (saltctl eval --by-sequence)
 * and sequence_losses.jsonl of the runs. Only sequences that all of these files have are used; a run without
 * the file is marked as not known. Returns 0, ERR_FORMAT or errno.
 * report_thirds_json - the thirds of run i, or of the teacher (i = n_runs); null if not known.
 */
int report_thirds_read(struct report *r, const char *teacher, struct err_note *note);
struct json *report_thirds_json(const struct report *r, size_t i);

void report_judged_print(const struct report *r);	/* tables of choices and thirds */
void report_judged_html(const struct report *r, FILE *out);

/* report_html - writes the page. Returns 0 or errno. */
int report_html(const struct report *r, FILE *out);

/* ---- charts (report_chart.c) ---- */

struct chart_series {
	const char *name;
	size_t look;			/* index of colour, dashes and marker */
	const double *x, *y;
	size_t n;
	bool markers;
	double mark_x;			/* vertical line at the switch; NaN: none */
};

struct chart {
	const char *title, *x_label;	/* the title names y */
	const struct chart_series *series;
	size_t n_series;
	double y_max;			/* NaN: the largest value; points above it are cut off */
};

void chart_svg(const struct chart *c, FILE *out);
void chart_text(const char *text, FILE *out);	/* writes text, escaped for HTML */

#endif
