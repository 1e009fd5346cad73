/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report - runs read from their folders, compared, printed and drawn. Every figure shown was measured by the
 * runs; a missing one is shown as missing.
 *
 *   report_read.c   RUN/metrics.jsonl and RUN/fleet.yaml -> struct report_run
 *   report.c        the verb; which run is compared with which; tables and JSON
 *   report_seeds.c  several seeds and complete shorter runs of one recipe
 *   report_judged.c choices, and the loss on sequences by the teacher's
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
	double seconds;			/* of training up to here */
	double rows_ahead;		/* steps whose rows had been fetched by then */
};

struct report_eval {
	uint64_t step;
	double loss, accuracy, bits_per_byte, teacher_loss;
	double seconds;			/* of training up to this step; NaN: not known */
};

/* A file of trainer.eval_choices at the last evaluation. NaN: absent. */
struct report_choice {
	char name[64], kind[16];
	int64_t items;
	double accuracy, accuracy_se, by_byte, sets_mean, sets_mean_se, log_p;
};

/* How report.html begins: such a file is replaced without asking. */
#define REPORT_HTML_BEGIN "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">" \
	"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>saltfleet: report</title>"

struct report_run {
	const char *dir;
	char name[64];
	char label[128];		/* name, with seed and steps if other runs have that name too */
	char mode[16];			/* baseline, rkd, salt, salt_ds, salt_file; "?" without fleet.yaml */
	/* from fleet.yaml; 0 and "" without one */
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
	int64_t rows_seen_again;	/* -1: not said */
	uint64_t last_step, bad_lines;
	double seconds, wait_seconds, kd_tokens, label_bytes;	/* sums; seconds of training, of waiting for rows */
	int64_t quarantined_rows;	/* sum: trained without the teacher */
	double teacher_seconds;		/* processor time of all teacherd, from RUN/ledger; NaN: no such file */
};

/*
 * report_read - one run. An incomplete last line (the run is being written) is ignored; other bad lines are counted.
 * 0, ENOENT, ERR_FORMAT (no line of a trainer), ENOMEM, errno; fleet.yaml may be missing, but not bad (ERR_CONFIG).
 */
int report_read(struct report_run *run, const char *dir, struct err_note *note);
void report_run_free(struct report_run *run);

/*
 * report_model_config - a model's config.json. 0, or why there is none; a file that is there and cannot be
 * read is logged.
 */
struct model_config;
int report_model_config(const char *dir, struct model_config *cfg);

const struct report_eval *report_last(const struct report_run *run);		/* NULL: none */
const struct report_eval *report_at(const struct report_run *run, uint64_t step);	/* NULL: none */
/* report_finished - the last step was evaluated: fleet.yaml's, or without one the last in the metrics. */
bool report_finished(const struct report_run *run);

/*
 * report_speed - steps a second of run over those of base, two runs of the same model and batch; NaN: not
 * known. Far from 1 their seconds do not compare: other work ran beside one of them, or the machines or
 * threads differ.
 */
double report_speed(const struct report_run *run, const struct report_run *base);
bool report_same_speed(double ratio);		/* within a tenth, or not known */

void report_print_quarantined(const struct report_run *run);	/* a paragraph; nothing if there are none */

/* ledger_json - what a run has cost (ledger.c); a figure that no file has is null. json_close it. */
struct json *ledger_json(const struct report_run *run);

/* A run against the baseline that had the same model, data and steps. */
struct report_race {
	const struct report_run *run, *baseline;	/* baseline NULL: none given */
	double target;					/* baseline's final held-out loss */
	const struct report_eval *reached;		/* first evaluation at or below it; NULL: not reached */
	bool decided;					/* both have finished, or it was reached */
};

/* Values of several runs. */
struct report_mean {
	size_t n;
	double sum, squares;
};

/* Finished runs of one name, model and number of steps: the seeds of one recipe. */
struct report_group {
	const struct report_run *first;
	struct report_mean loss, accuracy, bits_per_byte;
	struct report_mean difference;	/* final loss minus that of the baseline of the same seed; empty: none was given */
	/*
	 * Complete shorter runs: the share of the baseline's steps at which the final losses of this name's
	 * runs, joined by straight lines over their steps, reach the baseline's. One value a seed, in the
	 * group of the longest run.
	 */
	struct report_mean share;
	size_t n_at_most;		/* values that are only a bound: the shortest run is already below the baseline */
	size_t n_not_reached;
};

/* Mean loss of a run on the sequences that are easy, medium and hard for the teacher. */
#define REPORT_THIRDS 3
struct report_thirds {
	bool known;
	double loss[REPORT_THIRDS], se[REPORT_THIRDS];	/* nats a token; se: over sequences */
};

struct report {
	struct report_run *runs;
	size_t n_runs;
	bool seeds;					/* a name was given to more than one run */
	const struct report_race *races;
	size_t n_races;
	double teacher_seconds;				/* NaN: not known */
	const char *teacher_source;			/* kind of seconds, and their source */
	struct report_group *groups;			/* free() */
	size_t n_groups;
	struct report_thirds *thirds;			/* [n_runs + 1], the teacher's last; NULL: not asked for. free() it */
	size_t n_sequences;				/* of all thirds */
};

/*
 * report_groups - makes labels and r->groups. baseline: the name of the runs to compare with; NULL: those
 * without a teacher.
 */
void report_groups(struct report *r, const char *baseline);
struct json *report_groups_json(const struct report *r);
void report_print_groups(const struct report *r);
const char *report_plus_minus(const struct report_mean *m, double scale, int digits, char buf[48]);	/* "4.123 +- 0.004" */
const char *report_share(const struct report_group *g, char buf[96]);

/* report_choices_read - the member choices of an evaluation's line, if it has one. */
void report_choices_read(struct report_run *run, const struct json *eval);
struct json *report_choices_json(const struct report_run *run);		/* an object, by file */

/*
 * report_thirds_read - r->thirds from the file of the teacher's losses (saltctl eval --by-sequence) and
 * sequence_losses.jsonl of the runs. Thirds are made of the sequences that all of them have; a run without
 * the file is not known. 0, ERR_FORMAT, errno.
 * report_thirds_json: of run i, or of the teacher (n_runs); null if not known.
 */
int report_thirds_read(struct report *r, const char *teacher, struct err_note *note);
struct json *report_thirds_json(const struct report *r, size_t i);

void report_judged_print(const struct report *r);	/* both as tables; nothing where there is nothing */
void report_judged_html(const struct report *r, FILE *out);

/* report_html - the page. 0 or errno. */
int report_html(const struct report *r, FILE *out);

/* ---- charts (report_chart.c) ---- */

struct chart_series {
	const char *name;
	size_t look;			/* colour, dashes and marker by number */
	const double *x, *y;
	size_t n;
	bool markers;
	double mark_x;			/* a vertical line, the switch; NaN: none */
};

struct chart {
	const char *title, *x_label;	/* the title says what y is */
	const struct chart_series *series;
	size_t n_series;
	double y_max;			/* NaN: the largest; points above are cut off */
};

void chart_svg(const struct chart *c, FILE *out);
void chart_text(const char *text, FILE *out);	/* escaped for HTML */

#endif
