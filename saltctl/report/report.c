/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "saltctl/core/ctl.h"
#include "saltctl/core/folder.h"
#include "saltctl/core/output.h"
#include "saltctl/report/report.h"
#include "base/file/file.h"
#include "base/json/json.h"

#define MAX_RUNS 256

static const struct cli_option options[] = {
	{"run", "[NAME=]DIR", "a run's folder, and its name in the tables (default: the folder's); may be repeated, also with the same NAME (required)", true},
	{"baseline", "NAME", "compare with this run; default: the baseline with the same model, shuffle order and steps", false},
	{"out", "FILE", "write report.html there; an earlier report is replaced", false},
	{"replace", NULL, "--out: replace any file", false},
	{"teacher-seconds", "X", "computing time of the teachers, instead of RUN/ledger: a number, or a file of `saltctl status --json`", false},
	{"teacher-losses", "FILE", "also the loss by thirds of the held-out sequences that the teacher finds easy, medium and hard; its losses, of "
	    "`saltctl eval --by-sequence`", false},
	{"table", NULL, "print the tables, with --out too", false},
	CTL_JSON, CTL_END
};

/* Reads the run NAME=DIR, or DIR alone, whose last component becomes the name. */
static int
open_run(const struct ctl_args *args, struct report_run *run, const char *text)
{
	const char *equals = strchr(text, '='), *slash = strchr(text, '/');
	bool named = equals != NULL && equals > text && (slash == NULL || equals < slash);
	const char *dir = named ? equals + 1 : text, *base;
	size_t n = strlen(dir);
	struct err_note note = {.name = ""};
	int rc;

	if (n == 0)
		return ctl_usage(args, "--run: expected [NAME=]DIR, found \"%s\"", text);
	if ((rc = report_read(run, dir, &note)) != 0)
		return ctl_fail(args, rc, &note);
	while (n > 1 && dir[n - 1] == '/')
		n--;
	for (base = dir + n; base > dir && base[-1] != '/'; base--)
		;
	if (named)
		base = text;
	snprintf(run->name, sizeof(run->name), "%.*s", (int)(named ? equals - text : dir + n - base), base);
	report_left_out(args, run);
	return 0;
}

static bool
comparable(const struct report_run *a, const struct report_run *b)
{
	return strcmp(a->model, b->model) == 0 && a->seed == b->seed && a->batch == b->batch &&
	    a->context == b->context && a->steps == b->steps;
}

static bool
has_teacher(const struct report_run *run)
{
	return strcmp(run->mode, "?") == 0 ? run->kd_tokens > 0 : strcmp(run->mode, "baseline") != 0;
}

/* Finds the baseline to compare the run with; NULL: none fits. */
static const struct report_run *
find_baseline(const struct report *r, const struct report_run *run, const char *name)
{
	const struct report_run *named = NULL;

	for (size_t i = 0; i < r->n_runs; i++) {
		const struct report_run *b = &r->runs[i];

		if (name != NULL ? strcmp(b->name, name) != 0 : strcmp(b->mode, "baseline") != 0)
			continue;
		if (run != NULL && comparable(b, run))
			return b;
		named = name == NULL || named != NULL ? named : b;
	}
	return named;
}

static void
race(struct report_race *race, const struct report_run *run, const struct report_run *baseline)
{
	*race = (struct report_race){.run = run, .baseline = baseline, .target = NAN};
	if (baseline == NULL || !report_finished(baseline))
		return;
	race->target = report_last(baseline)->loss;
	for (size_t i = 0; i < run->n_evals && race->reached == NULL; i++)
		if (run->evals[i].loss <= race->target)
			race->reached = &run->evals[i];
	race->decided = race->reached != NULL || report_finished(run);
}

static const char *
verdict(const struct report_race *race, char *buf, size_t size)
{
	if (race->baseline == NULL)
		snprintf(buf, size, "no baseline of the same model, shuffle order and steps given");
	else if (!isfinite(race->target))
		snprintf(buf, size, "%s has not finished", race->baseline->name);
	else if (race->reached != NULL)
		snprintf(buf, size, "reached at step %" PRIu64 " of %" PRIu64, race->reached->step,
		    race->baseline->last_step);
	else
		snprintf(buf, size, race->decided ? "not reached" : "not reached so far");
	return buf;
}

/* Reads the computing seconds of all teacherd: a number, or a file with the output of status --json. */
static int
teacher_seconds(const struct ctl_args *args, const char *text, struct report *r)
{
	struct err_note note = {.name = ""};
	struct json *root = NULL, *daemons;
	double seconds;
	char *end;
	int rc;

	seconds = strtod(text, &end);
	r->teacher_source = "as given";
	if (end != text && *end == '\0' && seconds >= 0 && isfinite(seconds)) {
		r->teacher_seconds = seconds;
		return 0;
	}
	if ((rc = json_parse_file(text, 16u << 20, &root, &note)) != 0)
		return ctl_fail(args, rc, &note);
	daemons = json_get(root, "daemons");
	for (size_t i = 0; i < json_count(daemons); i++) {
		struct json *d = json_item(daemons, i);

		if (strcmp(ctl_text_of(d, "role", ""), "teacherd") == 0 && json_get(d, "why") != NULL)
			fprintf(stderr, "saltctl report: %s: %s did not answer, so its seconds are not counted\n", text,
			    ctl_text_of(d, "name", "a teacher"));
		else if (strcmp(ctl_text_of(d, "role", ""), "teacherd") == 0 &&
		    json_num(json_get(json_get(d, "state_seconds"), "computing"), &seconds))
			r->teacher_seconds = (isnan(r->teacher_seconds) ? 0 : r->teacher_seconds) + seconds;
	}
	json_close(&root);
	r->teacher_source = "time spent computing, on the clock, of the teachers that answered";
	if (isfinite(r->teacher_seconds))
		return 0;
	return ctl_fail(args, err_expect(&note, ERR_FORMAT, "%s",
	    "seconds, or the output of saltctl status --json with a teacherd that answered", "", text), &note);
}

/* ---- tables ---- */

static const char *
number(double v, const char *fmt, char buf[32])
{
	snprintf(buf, 32, isfinite(v) ? fmt : "-", v);
	return buf;
}

static void
eval_row(struct ctl_table *t, const struct report_run *run, const char *when, const struct report_eval *e)
{
	char loss[32], accuracy[32], bits[32], span[32];

	ctl_table_add(t, "%s\t%s\t%s\t%" PRIu64 "\t%s\t%s\t%s\t%s", run->label, run->mode, when, e->step,
	    number(e->loss, "%.4f", loss), number(100 * e->accuracy, "%.2f %%", accuracy),
	    number(e->bits_per_byte, "%.4f", bits), isfinite(e->seconds) ? ctl_span(e->seconds, span) : "-");
}

static void
print_results(const struct report *r)
{
	struct ctl_table *t =
	    ctl_table_new("run\tmode\twhen\t>step\t>log-perplexity\t>token accuracy\t>bits per byte\t>trained");

	for (size_t i = 0; i < r->n_runs; i++) {
		const struct report_run *run = &r->runs[i];
		const struct report_eval *last = report_last(run), *at = run->switch_step > 0 ? report_at(run,
		    run->switch_step) : NULL;

		if (at != NULL && at != last)
			eval_row(t, run, "at the switch", at);
		if (last != NULL)
			eval_row(t, run, report_finished(run) ? at == last ? "switch, end" : "end" : "so far", last);
	}
	ctl_table_end(&t);
}

void
report_print_quarantined(const struct report_run *run)
{
	if (run->quarantined_rows > 0)
		printf("\n%s: %" PRId64 " rows of phase one were trained without the teacher, their sequences in quarantine\n"
		    "(saltctl cache stat --quarantine)\n", run->name[0] != '\0' ? run->name : run->dir, run->quarantined_rows);
}

static void
print_table(const struct report *r)
{
	char buf[160], a[32], b[32];
	double speed;

	printf("Held-out evaluation\n\n");
	print_results(r);
	for (size_t i = 0; i < r->n_races; i++) {
		const struct report_race *c = &r->races[i];
		const struct report_run *run = c->run;

		if (r->seeds && c->baseline == NULL)
			continue;		/* a shorter run, which is in the table of seeds */
		printf("\n%s against %s\n", run->label, c->baseline != NULL ? c->baseline->label : "no baseline");
		printf("  baseline's final loss  %s", verdict(c, buf, sizeof(buf)));
		if (isfinite(c->target))
			printf(" (log-perplexity %.4f)", c->target);
		printf("\n");
		if (c->reached != NULL && isfinite(c->reached->seconds) && isfinite(c->baseline->seconds))
			printf("  time to it             %s of training; %s trained %s\n",
			    ctl_span(c->reached->seconds, a), c->baseline->name,
			    ctl_span(c->baseline->seconds, b));
		speed = c->baseline != NULL ? report_speed(run, c->baseline) : NAN;
		if (c->reached != NULL && !report_same_speed(speed))
			printf("  at equal speed         %s; the run made %.2f times as many steps a second as %s, so their seconds do not compare\n",
			    ctl_span(c->reached->seconds * speed, a), speed, c->baseline->name);
		if (run->wait_seconds > 0)
			printf("  waited for labels      %s\n", ctl_span(run->wait_seconds, a));
		if (run->kd_tokens > 0)
			printf("  label bytes per token  %.1f (%s for %.0f tokens)\n",
			    run->label_bytes / run->kd_tokens, ctl_bytes(run->label_bytes, a),
			    run->kd_tokens);
		if (run->rows_seen_again >= 0)
			printf("  rows seen again        %" PRId64 " of phase one come again in phase two\n",
			    run->rows_seen_again);
	}
	if (r->seeds)
		report_print_groups(r);
	report_judged_print(r);
	for (size_t i = 0; i < r->n_runs; i++)
		report_print_quarantined(&r->runs[i]);
	if (isfinite(r->teacher_seconds))
		printf("\nteacher seconds          %.1f (%s)\n", r->teacher_seconds, r->teacher_source);
	else if (r->n_races > 0)
		printf("\nteacher seconds          not known (no RUN/ledger, no --teacher-seconds)\n");
}

static struct json *
eval_json(const struct report_eval *e)
{
	if (e == NULL)
		return json_new_null();
	return ctl_record(CTL("step", e->step), CTL("log_perplexity", e->loss), CTL("accuracy", e->accuracy),
	    CTL("bits_per_byte", e->bits_per_byte), CTL("seconds", e->seconds));
}

static int
print_json(const struct report *r)
{
	struct json *runs = ctl_array(), *races = ctl_array();
	char buf[160];

	for (size_t i = 0; i < r->n_runs; i++) {
		const struct report_run *run = &r->runs[i];

		ctl_push(runs, ctl_record(CTL("name", run->name), CTL("mode", run->mode),
		    CTL("finished", report_finished(run)), CTL("last_step", run->last_step),
		    CTL("switch_step", ctl_known(run->switch_step > 0, (int64_t)run->switch_step)),
		    CTL("at_switch", eval_json(run->switch_step > 0 ? report_at(run, run->switch_step) : NULL)),
		    CTL("last", eval_json(report_last(run))), CTL("choices", report_choices_json(run)),
		    CTL("by_teacher_loss", report_thirds_json(r, i)), CTL("train_seconds", run->seconds),
		    CTL("wait_seconds", run->wait_seconds), CTL("quarantined_rows", run->quarantined_rows),
		    CTL("label_bytes_per_token", run->kd_tokens > 0 ? run->label_bytes / run->kd_tokens : NAN)));
	}
	for (size_t i = 0; i < r->n_races; i++) {
		const struct report_race *c = &r->races[i];
		const struct report_run *b = c->baseline;

		ctl_push(races, ctl_record(CTL("run", c->run->name), CTL("baseline", b != NULL ? b->name : NULL),
		    CTL("target_log_perplexity", c->target),
		    CTL("reached", c->decided ? json_new_flag(c->reached != NULL) : json_new_null()),
		    CTL("reached_at", eval_json(c->reached)), CTL("baseline_seconds", b != NULL ? b->seconds : NAN),
		    CTL("speed_ratio", b != NULL ? report_speed(c->run, b) : NAN), CTL("verdict", verdict(c, buf, sizeof(buf)))));
	}
	return ctl_print_json(ctl_record(CTL("runs", runs), CTL("comparisons", races),
	    CTL("teacher_by_loss", report_thirds_json(r, r->n_runs)),
	    CTL("seeds", report_groups_json(r)), CTL("teacher_seconds", r->teacher_seconds),
	    CTL("teacher_seconds_are", isfinite(r->teacher_seconds) ? r->teacher_source : NULL)));
}

static int
write_html(const struct ctl_args *args, const struct report *r, const char *path)
{
	struct err_note note = {.name = ""};
	struct file_replace file;
	int rc;

	if ((rc = ctl_may_write(path, REPORT_HTML_BEGIN, ctl_has(args, "replace"), &note)) != 0 ||
	    (rc = file_replace_begin(&file, path, &note)) != 0)
		return ctl_fail(args, rc, &note);
	if ((rc = report_html(r, file.f)) == 0) {
		rc = file_replace_end(&file, false, &note);
	} else {
		file_replace_abort(&file);
		err_note_set(&note, rc, "%s", path);
	}
	return rc != 0 ? ctl_fail(args, rc, &note) : 0;
}

static int
report_verb(struct ctl_args *args)
{
	const char *text, *baseline = ctl_get(args, "baseline"), *out = ctl_get(args, "out");
	static struct report_run runs[MAX_RUNS];
	static struct report_race races[MAX_RUNS];
	struct report r = {.runs = runs, .races = races, .teacher_seconds = NAN,
	    .teacher_source = "processor time, RUN/ledger"};
	struct err_note note = {.name = ""};
	int exit_code = 0, rc;

	if (ctl_need(args, "run") == NULL)
		return EX_USAGE;
	for (size_t i = 0; exit_code == 0 && (text = ctl_get_nth(args, "run", i)) != NULL; i++) {
		if (i == MAX_RUNS)
			exit_code = ctl_usage(args, "more than %d runs", MAX_RUNS);
		else if ((exit_code = open_run(args, &runs[i], text)) == 0)
			r.n_runs++;
	}
	if (exit_code == 0)
		exit_code = report_groups_check(args, &r);
	if (exit_code == 0 && baseline != NULL && find_baseline(&r, NULL, baseline) == NULL)
		exit_code = ctl_usage(args, "--baseline: no run is named \"%s\"", baseline);
	if (exit_code == 0 && (text = ctl_get(args, "teacher-seconds")) != NULL)
		exit_code = teacher_seconds(args, text, &r);
	else
		for (size_t i = 0; i < r.n_runs; i++)
			if (isfinite(runs[i].teacher_seconds))
				r.teacher_seconds = (isnan(r.teacher_seconds) ? 0 : r.teacher_seconds) +
				    runs[i].teacher_seconds;
	for (size_t i = 0; i < r.n_runs && text == NULL && isfinite(r.teacher_seconds); i++)
		if (isnan(runs[i].teacher_seconds) && has_teacher(&runs[i]))
			fprintf(stderr, "saltctl report: %s: no teacher's processor time in its ledger, so the teacher seconds "
			    "are those of the other runs\n", runs[i].dir);
	if (exit_code == 0 && (text = ctl_get(args, "teacher-losses")) != NULL && (rc = report_thirds_read(&r, text, &note)) != 0)
		exit_code = ctl_fail(args, rc, &note);
	for (size_t i = 0; i < r.n_runs && exit_code == 0; i++)
		if (has_teacher(&runs[i]))
			race(&races[r.n_races++], &runs[i], find_baseline(&r, &runs[i], baseline));
	report_groups(&r, baseline);
	if (exit_code == 0 && out != NULL)
		exit_code = write_html(args, &r, out);
	if (exit_code == 0 && ctl_has(args, "json"))
		exit_code = print_json(&r);
	else if (exit_code == 0 && (out == NULL || ctl_has(args, "table")))
		print_table(&r);
	free(r.groups);
	for (size_t i = 0; i < r.n_runs; i++)
		report_run_free(&runs[i]);
	free(r.thirds);
	return exit_code;
}

const struct ctl_verb ctl_report = {
	.name = "report", .operands = "", .summary = "runs side by side: tables, and loss curves as one HTML file",
	.about = "Reads metrics.jsonl and fleet.yaml of each run. A run with a teacher is compared with the\n"
	    "baseline that had the same model, seed, batch, context and steps: the first evaluation at or below\n"
	    "its final held-out loss, or \"not reached\". Seconds are those of training steps, without waiting\n"
	    "for labels and evaluations. Runs with the same NAME are seeds of one recipe, or complete runs of\n"
	    "other lengths: a further table has their means and standard errors, the difference from the baseline\n"
	    "of the same seed, and the share of its steps at which complete runs end with its final loss.",
	.example = "saltctl report --run SLM=run/slm --run BASELINE=run/baseline --run SALT_DS=run/salt --out run/report.html --table",
	.options = options, .run = report_verb,
};
