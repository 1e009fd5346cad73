/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger: the cost of a run, from its files, and its saving compared with the baseline. A figure that is in
 * no file is printed as "-". The output says that the result of one seed is an observation, not a claim.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "saltctl/plan/price.h"
#include "saltctl/report/report.h"
#include "base/json/json.h"
#include "engine/model/model.h"

#define MAX_RUNS 256

static const struct cli_option options[] = {
	{"run", "DIR", "a run's directory; may be repeated (required)", true},
	{"baseline", "DIR", "compare each run with this one: the same model, data and steps without a teacher", false},
	CTL_JSON, CTL_END
};

/* NaN: not known. */
struct cost {
	double step_flops, tokens, flops, rate;
	double teacher_flops;		/* of the score and label passes of phase one, each counted once */
	double teacher_seconds;		/* processor time, from RUN/ledger */
};

/* When a run reached the target, and its cost by then; the teacher's cost is that of the whole phase one. */
struct saving {
	const char *why;		/* reason why there is no comparison; else NULL */
	double target;
	const struct report_eval *reached;	/* NULL: not reached */
	/*
	 * Loss of the last evaluation within the baseline's FLOPs (the teacher's included), or within its
	 * seconds; NaN: none.
	 */
	double equal_flops, equal_seconds;
	uint64_t equal_flops_step, equal_seconds_step;
	/* report_speed; if it is far from 1, seconds times speed are the seconds at the baseline's speed */
	double speed;
	bool same_speed;
};

static double
model_flops(const char *path, uint32_t context)
{
	struct model_config cfg;

	return report_model_config(path, &cfg) == 0 ? model_flops_per_token(&cfg, (int64_t)context) : NAN;
}

/* FLOPs of the forward passes of teacher and scorer for the rows of phase one, by the run's own settings. */
static double
teacher_flops(const struct report_run *run)
{
	struct config *cfg = NULL;
	struct price_work w;
	char path[4200];
	uint64_t block, kept, steps = run->switch_step > 0 ? run->switch_step : run->last_step;
	double teacher, scorer, flops = NAN;
	bool one;

	if (run->kd_tokens <= 0)
		return 0;
	config_stored(run->dir, path, sizeof(path));
	if (config_load(path, NULL, 0, &cfg, NULL) != 0)
		return NAN;
	if (config_phase_one(cfg)) {
		const char *scores = cfg->teacher.scorer[0] != '\0' ? cfg->teacher.scorer : cfg->teacher.model;

		one = strcmp(scores, cfg->teacher.model) == 0;
		config_block(cfg, &block, &kept);
		price_work(&w, steps * cfg->trainer.batch, block, kept,
		    cfg->selector.mode == CONFIG_MODE_SALT_DS, one, 0);
		teacher = model_flops(cfg->teacher.model, cfg->corpus.context);
		scorer = model_flops(scores, cfg->corpus.context);
		flops = ((double)w.labelled * teacher + (w.one_pass || w.scored == 0 ? 0 :
		    (double)w.scored * scorer)) / 3 * (double)cfg->corpus.context;
	}
	config_destroy(&cfg);
	return flops;
}

static struct cost
cost_of(const struct report_run *run)
{
	struct cost c = {NAN, NAN, NAN, NAN, teacher_flops(run), run->teacher_seconds};

	if (run->kd_tokens <= 0 && isnan(c.teacher_seconds))
		c.teacher_seconds = 0;
	if (run->batch == 0)
		return c;
	c.tokens = (double)run->last_step * (double)run->batch * (double)run->context;
	c.step_flops = (double)run->batch * (double)run->context * model_flops(run->model, (uint32_t)run->context);
	c.flops = (double)run->last_step * c.step_flops;
	c.rate = run->seconds > 0 ? c.flops / run->seconds : NAN;
	return c;
}

static void
compare(struct saving *s, const struct report_run *run, const struct cost *c, const struct report_run *base,
    const struct cost *b)
{
	double seconds;

	*s = (struct saving){.target = NAN, .equal_flops = NAN, .equal_seconds = NAN, .speed = report_speed(run, base)};
	s->same_speed = report_same_speed(s->speed);
	seconds = base->seconds / (s->same_speed ? 1 : s->speed);
	if (strcmp(run->model, base->model) != 0 || run->batch != base->batch || run->context != base->context)
		s->why = "another model, batch or context than the baseline's";
	else if (run->seed != base->seed)
		s->why = "another seed than the baseline's: other first weights and order of data";
	else if (strcmp(base->mode, "?") == 0)
		s->why = "the run to compare with has no fleet.yaml, so it is not known whether it had a teacher";
	else if (strcmp(base->mode, "baseline") != 0)
		s->why = "the run to compare with had a teacher itself";
	else if (!report_finished(base))
		s->why = "the baseline has not finished";
	if (s->why != NULL)
		return;
	s->target = report_last(base)->loss;
	for (size_t i = 0; i < run->n_evals; i++) {
		const struct report_eval *e = &run->evals[i];

		if (s->reached == NULL && e->loss <= s->target)
			s->reached = e;
		if ((double)e->step * c->step_flops + c->teacher_flops <= b->flops) {
			s->equal_flops = e->loss;
			s->equal_flops_step = e->step;
		}
		if (e->seconds <= seconds) {
			s->equal_seconds = e->loss;
			s->equal_seconds_step = e->step;
		}
	}
}

/* Share saved, 1 - spent / of: 0.3 is 30 % saved; negative: it cost more. */
static double
saved(double spent, double of)
{
	return of > 0 ? 1 - spent / of : NAN;
}

static double
saved_seconds(const struct saving *s, const struct report_run *base, bool equal_speed)
{
	return s->reached != NULL ? saved(s->reached->seconds * (equal_speed ? s->speed : 1), base->seconds) : NAN;
}

static double
reached_flops(const struct saving *s, const struct cost *c, bool teacher)
{
	return s->reached != NULL ? (double)s->reached->step * c->step_flops + (teacher ? c->teacher_flops : 0) : NAN;
}

/* ---- text ---- */

static const char *
known(double v, const char *(*print)(double, char *), char buf[32])
{
	return isfinite(v) ? print(v, buf) : "-";
}

static void
print_costs(const struct report_run *runs, const struct cost *costs, size_t n)
{
	struct ctl_table *t =
	    ctl_table_new("run\tmode\t>steps\t>tokens\t>FLOPs\t>trained\t>FLOP/s\t>waited\t>label bytes\t>teacher FLOPs"
	    "\t>teacher CPU");
	char b[8][32];

	for (size_t i = 0; i < n; i++) {
		const struct report_run *r = &runs[i];
		const struct cost *c = &costs[i];

		ctl_table_add(t, "%s\t%s\t%" PRIu64 "\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", r->dir, r->mode, r->last_step,
		    known(c->tokens, ctl_count, b[0]), known(c->flops, ctl_count, b[1]),
		    known(r->seconds, ctl_span, b[2]), known(c->rate, ctl_count, b[3]),
		    known(r->wait_seconds, ctl_span, b[4]), known(r->label_bytes, ctl_bytes, b[5]),
		    known(c->teacher_flops, ctl_count, b[6]), known(c->teacher_seconds, ctl_span, b[7]));
	}
	ctl_table_end(&t);
	for (size_t i = 0; i < n; i++)
		report_print_quarantined(&runs[i]);
}

static const char *
percent(double share, char buf[32])
{
	snprintf(buf, 32, isfinite(share) ? "%.1f %% %s" : "-", 100 * fabs(share), share >= 0 ? "saved" : "more");
	return buf;
}

static void
print_saving(const struct saving *s, const struct report_run *run, const struct cost *c, const struct report_run *base,
    const struct cost *b)
{
	char x[32], y[32], z[32];

	printf("\n%s against %s\n", run->dir, base->dir);
	if (s->why != NULL) {
		printf("  not compared: %s\n", s->why);
		return;
	}
	printf("  baseline's final loss  %.4f at step %" PRIu64 "; ", s->target, report_last(base)->step);
	if (s->reached == NULL) {
		printf("%s\n", report_finished(run) ? "not reached: nothing was saved" : "not reached so far");
	} else {
		printf("reached at step %" PRIu64 "\n", s->reached->step);
		printf("  steps                  %s\n", percent(saved((double)s->reached->step,
		    (double)report_last(base)->step), x));
		printf("  FLOPs                  %s; with the teacher's passes %s\n",
		    percent(saved(reached_flops(s, c, false), b->flops), x), percent(saved(reached_flops(s, c,
		    true), b->flops), y));
		if (s->same_speed)
			printf("  wall clock             %s of training", percent(saved_seconds(s, base, false), x));
		else
			printf("  wall clock             does not compare: %s FLOP/s against the baseline's %s (other work beside one of them, or another\n"
			    "                         machine?); at the baseline's speed %s of training", known(c->rate, ctl_count, x),
			    known(b->rate, ctl_count, y), percent(saved_seconds(s, base, true), z));
		printf("; teachers took %s of processor time beside it\n", known(c->teacher_seconds, ctl_span, y));
	}
	if (isfinite(s->equal_flops))
		printf("  at equal FLOPs         %.4f at step %" PRIu64 ", teacher's passes counted\n",
		    s->equal_flops, s->equal_flops_step);
	if (isfinite(s->equal_seconds))
		printf("  at equal wall clock    %.4f at step %" PRIu64 "%s\n", s->equal_seconds, s->equal_seconds_step,
		    s->same_speed ? "" : ", at the baseline's speed");
	if (report_at(run, report_last(base)->step) != NULL)
		printf("  at equal steps         %.4f\n", report_at(run, report_last(base)->step)->loss);
}

static const char caveat[] =
    "One seed is an observation: a claim needs three. Steps are known to the interval of the evaluations. The training of\n"
    "the teacher itself is not counted; its FLOPs are the passes that phase one needed, counted as the trainer's are.";

/* ---- JSON ---- */

static struct json *
saving_json(const struct saving *s, const struct report_run *run, const struct cost *c, const struct report_run *base,
    const struct cost *b)
{
	const struct report_eval *same = s->why == NULL ? report_at(run, report_last(base)->step) : NULL,
	    *at = s->reached;

	return ctl_record(CTL("baseline", base->dir), CTL("not_compared", s->why),
	    CTL("target_log_perplexity", s->target), CTL("reached_step", ctl_known(at != NULL,
	    at != NULL ? (int64_t)at->step : 0)), CTL("reached_seconds", at != NULL ? at->seconds : NAN),
	    CTL("reached_flops", reached_flops(s, c, false)), CTL("reached_flops_with_teacher",
	    reached_flops(s, c, true)), CTL("saved_steps", at != NULL ? saved((double)at->step,
	    (double)report_last(base)->step) : NAN), CTL("saved_flops", saved(reached_flops(s, c, false),
	    b->flops)),
	    CTL("saved_flops_with_teacher", saved(reached_flops(s, c, true), b->flops)),
	    CTL("saved_seconds", saved_seconds(s, base, false)), CTL("saved_seconds_at_equal_speed", saved_seconds(s, base, true)),
	    CTL("speed_ratio", s->speed), CTL("same_speed", json_new_flag(s->same_speed)),
	    CTL("loss_at_equal_steps", same != NULL ? same->loss : NAN), CTL("loss_at_equal_flops", s->equal_flops),
	    CTL("loss_at_equal_seconds", s->equal_seconds), CTL("seeds", 1));
}

static struct json *
run_json(const struct report_run *run, const struct cost *c)
{
	return ctl_record(CTL("run", run->dir), CTL("mode", run->mode), CTL("steps", run->last_step),
	    CTL("tokens", c->tokens), CTL("flops", c->flops), CTL("train_seconds", run->seconds),
	    CTL("flops_per_second", c->rate), CTL("wait_seconds", run->wait_seconds),
	    CTL("labelled_tokens", run->kd_tokens), CTL("label_bytes", run->label_bytes),
	    CTL("quarantined_rows", run->quarantined_rows),
	    CTL("teacher_flops", c->teacher_flops), CTL("teacher_cpu_seconds", c->teacher_seconds));
}

struct json *
ledger_json(const struct report_run *run)
{
	struct cost c = cost_of(run);

	return run_json(run, &c);
}

static int
ledger(struct ctl_args *args)
{
	static struct report_run runs[MAX_RUNS + 1];	/* a baseline comes last */
	struct cost costs[MAX_RUNS + 1];
	const char *dir, *baseline = ctl_get(args, "baseline");
	struct err_note note = {.name = ""};
	struct json *all = NULL;
	size_t n = 0, n_read = 0;
	int exit_code = ctl_need(args, "run") == NULL ? EX_USAGE : 0, rc;

	while (exit_code == 0 && ctl_get_nth(args, "run", n) != NULL)
		if (n++ == MAX_RUNS)
			exit_code = ctl_usage(args, "--run: at most %d of them", MAX_RUNS);
	for (size_t i = 0; exit_code == 0 && i < n + (baseline != NULL); i++) {
		dir = i < n ? ctl_get_nth(args, "run", i) : baseline;
		if ((rc = report_read(&runs[i], dir, &note)) != 0) {
			exit_code = ctl_fail(args, rc, &note);
			break;
		}
		n_read++;
		report_left_out(args, &runs[i]);
		costs[i] = cost_of(&runs[i]);
	}
	all = exit_code == 0 && ctl_has(args, "json") ? ctl_array() : NULL;
	if (exit_code == 0 && all == NULL)
		print_costs(runs, costs, n_read);
	for (size_t i = 0; exit_code == 0 && i < n; i++) {
		struct json *o = all != NULL ? run_json(&runs[i], &costs[i]) : NULL;
		struct saving s;

		if (baseline != NULL)
			compare(&s, &runs[i], &costs[i], &runs[n], &costs[n]);
		if (o != NULL && baseline != NULL)
			ctl_put(o, "against", saving_json(&s, &runs[i], &costs[i], &runs[n], &costs[n]));
		else if (baseline != NULL)
			print_saving(&s, &runs[i], &costs[i], &runs[n], &costs[n]);
		if (o != NULL)
			ctl_push(all, o);
	}
	if (all != NULL)
		exit_code = ctl_print_json(all);
	else if (exit_code == 0 && baseline != NULL)
		printf("\n%s\n", caveat);
	for (size_t i = 0; i < n_read; i++)
		report_run_free(&runs[i]);
	return exit_code;
}

const struct ctl_verb ctl_ledger = {
	.name = "ledger", .operands = "", .summary = "what runs have cost, and what they saved against a control run",
	.about = "Reads metrics.jsonl, fleet.yaml and RUN/ledger. FLOPs are the model's (forward and\n"
	    "backward), as `model info` counts them; the teacher's are the forward passes that phase one needed.\n"
	    "With --baseline: steps, FLOPs and wall clock to the baseline's final loss, with and without the\n"
	    "teacher, and the loss at equal steps, FLOPs and wall clock. Runs whose FLOP/s differ by a tenth or\n"
	    "more are named, and compared at the baseline's speed. \"-\": not known.",
	.example = "saltctl ledger --run run/salt --baseline run/baseline",
	.options = options, .run = ledger,
};
