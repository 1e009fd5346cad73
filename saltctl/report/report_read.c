/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "saltctl/report/report.h"
#include "base/json/json.h"
#include "base/log/log.h"
#include "engine/model/model.h"
#include "engine/weights/weights.h"

#define SAME_SPEED 1.1

int
report_model_config(const char *dir, struct model_config *cfg)
{
	struct err_note note = {.name = ""};
	char text[1024], quoted[1200];
	int rc = dir[0] != '\0' ? weights_config_load(dir, cfg, &note) : ENOENT;

	if (rc > 0 && rc != ENOENT)
		log_warn("model.unread", "why=%s", log_quote(err_note_str(&note, rc, text, sizeof(text)), quoted, sizeof(quoted)));
	return rc;
}

static int
read_step(struct report_run *run, const struct json *j, uint64_t step)
{
	struct report_step *p;

	if (run->n_points > 0 && run->points[run->n_points - 1].step >= step)
		return ERR_FORMAT;		/* steps must increase */
	p = ctl_add(run->points, run->n_points, run->cap_points);
	*p = (struct report_step){.step = step, .phase = (int)ctl_int_of(j, "phase", 0),
	    .hard = ctl_num_of(j, "hard", NAN), .lr = ctl_num_of(j, "lr", NAN),
	    .seconds = ctl_num_of(j, "seconds", NAN), .wait_seconds = ctl_num_of(j, "wait_seconds", NAN),
	    .kd_tokens = ctl_num_of(j, "kd_tokens", NAN), .label_bytes = ctl_num_of(j, "label_bytes", NAN),
	    .rows_ahead = ctl_num_of(j, "rows_ahead", NAN)};
	run->last_step = step;
	run->seconds = p->seconds;
	run->wait_seconds += isfinite(p->wait_seconds) ? p->wait_seconds : 0;
	run->kd_tokens += isfinite(p->kd_tokens) ? p->kd_tokens : 0;
	run->label_bytes += isfinite(p->label_bytes) ? p->label_bytes : 0;
	run->quarantined_rows += ctl_int_of(j, "quarantined_rows", 0);
	return 0;
}

static int
read_eval(struct report_run *run, const struct json *j, uint64_t step)
{
	struct report_eval *e;

	if (run->n_evals > 0 && run->evals[run->n_evals - 1].step > step)
		return ERR_FORMAT;
	if (run->n_evals > 0 && run->evals[run->n_evals - 1].step == step)
		run->n_evals--;			/* repeated after a resume; the later one counts */
	e = ctl_add(run->evals, run->n_evals, run->cap_evals);
	*e = (struct report_eval){.step = step, .loss = ctl_num_of(j, "loss", NAN),
	    .accuracy = ctl_num_of(j, "accuracy", NAN), .bits_per_byte = ctl_num_of(j, "bits_per_byte", NAN),
	    .teacher_loss = ctl_num_of(j, "teacher_loss", NAN), .seconds = run->last_step == step ?
	    run->seconds : NAN};
	report_choices_read(run, j);
	return 0;
}

static int
read_line(struct report_run *run, const char *line, size_t n)
{
	struct json *j = NULL;
	const char *kind;
	int64_t step;
	int rc = json_parse(line, n, "metrics.jsonl", &j, NULL);

	if (rc != 0)
		return rc;
	rc = ERR_FORMAT;
	if (json_text(json_get(j, "kind"), &kind) && json_int(json_get(j, "step"), &step) && step >= 0) {
		rc = 0;
		if (strcmp(kind, "step") == 0) {
			rc = read_step(run, j, (uint64_t)step);
		} else if (strcmp(kind, "eval") == 0) {
			rc = read_eval(run, j, (uint64_t)step);
		} else if (strcmp(kind, "event") == 0 && strcmp(ctl_text_of(j, "event", ""), "switch") == 0) {
			run->switch_step = (uint64_t)step;
			run->rows_seen_again = ctl_int_of(j, "rows_seen_again", -1);
		}
	}
	json_close(&j);
	return rc;
}

static int
read_metrics(struct report_run *run, struct err_note *note)
{
	char path[4200], *line = NULL;
	size_t cap = 0, good = 0;
	FILE *in;
	ssize_t n;
	int rc = 0;

	snprintf(path, sizeof(path), "%s/metrics.jsonl", run->dir);
	if ((in = fopen(path, "re")) == NULL)
		return err_note_set(note, errno, "%s", path);
	while (rc == 0 && (n = getline(&line, &cap, in)) > 0) {
		if (line[n - 1] != '\n')
			break;
		if ((rc = read_line(run, line, (size_t)n)) == ERR_FORMAT) {
			run->bad_lines++;
			rc = 0;
		} else if (rc == 0) {
			good++;
		} else {
			err_note_set(note, rc, "%s", path);
		}
	}
	if (rc == 0 && ferror(in))
		rc = err_note_set(note, errno != 0 ? errno : EIO, "%s", path);
	fclose(in);
	free(line);
	if (rc == 0 && good == 0)
		rc = err_expect(note, ERR_FORMAT, "%s",
		    "a trainer's metrics: lines of JSON with kind and step", "%" PRIu64 " other lines", path,
		    run->bad_lines);
	return rc;
}

static int
read_settings(struct report_run *run, struct err_note *note)
{
	struct config *cfg = NULL;
	struct model_config mc;
	struct model *model = NULL;
	char path[4200], *real;
	int rc;

	snprintf(run->mode, sizeof(run->mode), "?");
	config_stored(run->dir, path, sizeof(path));
	if (access(path, F_OK) != 0)
		return 0;
	if ((rc = config_load(path, NULL, 0, &cfg, note)) != 0)
		return rc;
	snprintf(run->mode, sizeof(run->mode), "%s", config_mode_name(cfg));
	real = realpath(cfg->trainer.model, NULL);		/* two paths of a model compare equal */
	snprintf(run->model, sizeof(run->model), "%s", real != NULL ? real : cfg->trainer.model);
	free(real);
	run->steps = cfg->trainer.steps;
	run->batch = cfg->trainer.batch;
	run->context = cfg->corpus.context;
	run->seed = cfg->run.seed;
	if (report_model_config(run->model, &mc) == 0 &&
	    model_new(&model, &mc, NULL) == 0)
		run->n_params = model->n_params;
	model_destroy(&model);
	config_destroy(&cfg);
	return 0;
}

/*
 * Sums the processor time of the teachers, each of which has a JSON file in RUN/ledger. Ignores other files and
 * those of other daemons, and counts JSON files that cannot be read.
 */
static void
read_ledger(struct report_run *run)
{
	char path[4400];
	struct dirent *e;
	DIR *d;

	run->teacher_seconds = NAN;
	snprintf(path, sizeof(path), "%s/ledger", run->dir);
	if ((d = opendir(path)) == NULL) {
		run->bad_ledgers += errno != ENOENT;
		return;
	}
	while ((e = readdir(d)) != NULL) {
		const char *dot = strrchr(e->d_name, '.');
		struct json *j = NULL;
		const char *role;
		double seconds;

		if (dot == NULL || strcmp(dot, ".json") != 0)
			continue;
		snprintf(path, sizeof(path), "%s/ledger/%s", run->dir, e->d_name);
		if (json_parse_file(path, 1u << 20, &j, NULL) != 0 || (role = ctl_text_of(j, "role", NULL)) == NULL ||
		    (strcmp(role, "teacherd") == 0 && !json_num(json_get(j, "cpu_seconds"), &seconds)))
			run->bad_ledgers++;
		else if (strcmp(role, "teacherd") == 0)
			run->teacher_seconds = (isnan(run->teacher_seconds) ? 0 : run->teacher_seconds) + seconds;
		json_close(&j);
	}
	closedir(d);
}

int
report_read(struct report_run *run, const char *dir, struct err_note *note)
{
	int rc;

	*run = (struct report_run){.dir = dir, .rows_seen_again = -1};
	if ((rc = read_settings(run, note)) == 0)
		rc = read_metrics(run, note);
	read_ledger(run);
	if (rc != 0)
		report_run_free(run);
	return rc;
}

void
report_left_out(const struct ctl_args *args, const struct report_run *run)
{
	if (run->bad_lines > 0)
		fprintf(stderr,
		    "saltctl %s: %s/metrics.jsonl: %" PRIu64 " lines are not a trainer's and were left out\n",
		    args->verb->name, run->dir, run->bad_lines);
	if (run->bad_ledgers > 0)
		fprintf(stderr,
		    "saltctl %s: %s/ledger: %" PRIu64
		    " files cannot be read as a daemon's, so the teachers' processor time lacks them\n",
		    args->verb->name, run->dir, run->bad_ledgers);
}

void
report_run_free(struct report_run *run)
{
	free(run->points);
	free(run->evals);
	free(run->choices);
	run->choices = NULL;
	run->n_choices = 0;
	run->points = NULL;
	run->evals = NULL;
	run->n_points = run->n_evals = 0;
}

const struct report_eval *
report_last(const struct report_run *run)
{
	return run->n_evals > 0 ? &run->evals[run->n_evals - 1] : NULL;
}

const struct report_eval *
report_at(const struct report_run *run, uint64_t step)
{
	for (size_t i = 0; i < run->n_evals; i++)
		if (run->evals[i].step == step)
			return &run->evals[i];
	return NULL;
}

double
report_speed(const struct report_run *run, const struct report_run *base)
{
	return (double)run->last_step / run->seconds / ((double)base->last_step / base->seconds);
}

bool
report_same_speed(double ratio)
{
	return !isfinite(ratio) || (ratio < SAME_SPEED && ratio > 1 / SAME_SPEED);
}

bool
report_finished(const struct report_run *run)
{
	const struct report_eval *last = report_last(run);

	return last != NULL && last->step == (run->steps > 0 ? run->steps : run->last_step);
}
