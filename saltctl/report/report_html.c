/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "saltctl/core/output.h"
#include "saltctl/report/report.h"

#define CURVE_POINTS 600		/* points of a curve; more would be closer than the line is wide */
#define SMOOTH_PART 50			/* the moving mean is over steps / SMOOTH_PART steps */

static const char head[] =
    REPORT_HTML_BEGIN "\n<style>\n"
    "body{font:16px/1.45 system-ui,sans-serif;max-width:1180px;margin:0 auto;padding:12px;color:#222;background:#fff}\n"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin-top:1.6em}p,figure{max-width:760px}figure{margin:1.4em 0}figcaption{font-weight:600;margin-bottom:.3em}\n"
    "svg{width:100%;height:auto;display:block}.legend span{white-space:nowrap;margin-right:1em}.legend svg{display:inline;width:44px}\n"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\n"
    "td,th{padding:3px 9px;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}\n"
    "td:first-child,th:first-child,td.t,th.t{text-align:left}.note{color:#555;font-size:.9em}\n"
    "</style></head><body>\n<h1>Training runs</h1>\n";

static void
number(FILE *out, const char *fmt, double v)
{
	fprintf(out, "<td>");
	fprintf(out, isfinite(v) ? fmt : "&ndash;", v);
	fprintf(out, "</td>");
}

static void
result_row(FILE *out, const struct report_run *run, const char *when, const struct report_eval *e)
{
	fprintf(out, "<tr><td>");
	chart_text(run->label, out);
	fprintf(out, "</td><td class=\"t\">%s</td><td>%" PRIu64 "</td>", when, e->step);
	number(out, "%.4f", e->loss);
	number(out, "%.2f&nbsp;%%", 100 * e->accuracy);
	number(out, "%.4f", e->bits_per_byte);
	number(out, "%.1f", e->seconds);
	fprintf(out, "</tr>\n");
}

static void
results(const struct report *r, FILE *out)
{
	fprintf(out,
	    "<h2>Held-out evaluation</h2>\n<div class=\"wide\"><table><tr><th>run</th><th class=\"t\">when</th><th>step</th>"
	    "<th>log-perplexity</th><th>token accuracy</th><th>bits per byte</th><th>seconds trained</th></tr>\n");
	for (size_t i = 0; i < r->n_runs; i++) {
		const struct report_run *run = &r->runs[i];
		const struct report_eval *last = report_last(run), *at = run->switch_step > 0 ? report_at(run,
		    run->switch_step) : NULL;

		if (at != NULL && at != last)
			result_row(out, run, "at the switch", at);
		if (last != NULL)
			result_row(out, run, report_finished(run) ? "end" : "so far", last);
	}
	fprintf(out, "</table></div>\n");
}

static void
groups(const struct report *r, FILE *out)
{
	char b[4][48], share[96];

	fprintf(out, "<h2>Several seeds, mean and standard error</h2>\n<div class=\"wide\"><table><tr><th>runs</th><th>steps</th><th>seeds</th>"
	    "<th>log-perplexity</th><th>token accuracy, %%</th><th>bits per byte</th><th>against baseline</th><th>%% of its steps</th></tr>\n");
	for (size_t i = 0; i < r->n_groups; i++) {
		const struct report_group *g = &r->groups[i];

		fprintf(out, "<tr><td>");
		chart_text(g->first->name, out);
		fprintf(out, "</td><td>%" PRIu64 "</td><td>%zu</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>\n",
		    g->first->steps, g->loss.n, report_plus_minus(&g->loss, 1, 4, b[0]), report_plus_minus(&g->accuracy, 100, 2, b[1]),
		    report_plus_minus(&g->bits_per_byte, 1, 4, b[2]), report_plus_minus(&g->difference, 1, 4, b[3]), report_share(g, share));
	}
	fprintf(out, "</table></div>\n<p class=\"note\">Against baseline: the final loss minus that of the baseline of the same seed. %% of its "
	    "steps: where the final losses of complete runs reach the baseline's, in the row of the longest run.</p>\n");
}

static void
races(const struct report *r, FILE *out)
{
	double speed;

	for (size_t i = 0; i < r->n_races; i++) {
		const struct report_race *c = &r->races[i];

		if (r->seeds && c->baseline == NULL)
			continue;
		fprintf(out, "<p><b>");
		chart_text(c->run->label, out);
		fprintf(out, "</b>: ");
		if (c->baseline == NULL) {
			fprintf(out, "no baseline of the same model, shuffle order and steps was given.");
		} else if (!isfinite(c->target)) {
			chart_text(c->baseline->name, out);
			fprintf(out, " has not finished, so there is nothing to compare with yet.");
		} else {
			fprintf(out, "the final held-out log-perplexity of ");
			chart_text(c->baseline->name, out);
			fprintf(out, " (%.4f after %" PRIu64 " steps, %.1f s) was ", c->target,
			    c->baseline->last_step, c->baseline->seconds);
			if (c->reached != NULL)
				fprintf(out, "reached at step %" PRIu64 " after %.1f s of training.",
				    c->reached->step, c->reached->seconds);
			else
				fprintf(out, c->decided ? "<b>not reached</b>." : "not reached so far.");
			speed = report_speed(c->run, c->baseline);
			if (c->reached != NULL && !report_same_speed(speed))
				fprintf(out, " The two ran at different speeds (%.2f times as many steps a second): at the speed of the baseline it took "
				    "%.1f s.", speed, c->reached->seconds * speed);
		}
		if (c->run->kd_tokens > 0)
			fprintf(out, " Labels took %.1f bytes a token.", c->run->label_bytes / c->run->kd_tokens);
		if (c->run->wait_seconds > 0)
			fprintf(out, " The trainer waited %.1f s for them.", c->run->wait_seconds);
		fprintf(out, "</p>\n");
	}
	if (isfinite(r->teacher_seconds))
		fprintf(out, "<p>Teachers computed for %.1f s (%s).</p>\n", r->teacher_seconds, r->teacher_source);
}

static void
settings(const struct report *r, FILE *out)
{
	char buf[32];

	fprintf(out,
	    "<h2>Settings</h2>\n<div class=\"wide\"><table><tr><th>run</th><th class=\"t\">mode</th><th>parameters</th><th>steps</th>"
	    "<th>batch</th><th>context</th><th>seed</th></tr>\n");
	for (size_t i = 0; i < r->n_runs; i++) {
		const struct report_run *run = &r->runs[i];

		fprintf(out, "<tr><td>");
		chart_text(run->label, out);
		fprintf(out,
		    "</td><td class=\"t\">%s</td><td>%s</td><td>%" PRIu64 "</td><td>%" PRIu64 "</td><td>%" PRIu64 "</td><td>%" PRIu64
		    "</td></tr>\n", run->mode, run->n_params > 0 ? ctl_count((double)run->n_params, buf) :
		    "&ndash;", run->steps, run->batch, run->context, run->seed);
	}
	fprintf(out, "</table></div>\n");
}

/* A curve; x and y are one allocation. */
struct curve {
	double *x, *y;
	size_t n;
};

enum what { HELDOUT, TRAINING, RATE };

static void
curve_make(const struct report_run *run, enum what what, struct curve *c)
{
	size_t n = what == HELDOUT ? run->n_evals : run->n_points, every = n / CURVE_POINTS + 1;
	double mean = NAN, keep;

	*c = (struct curve){.x = ctl_alloc(n + 1, 2 * sizeof(double))};
	c->y = c->x + n + 1;
	keep = exp(-1.0 / fmax(1.0, (double)n / SMOOTH_PART));
	for (size_t i = 0; i < n; i++) {
		double v = what == HELDOUT ? run->evals[i].loss : what == RATE ? run->points[i].lr :
		    run->points[i].hard;

		if (what == TRAINING) {
			if (isfinite(v))
				mean = isfinite(mean) ? keep * mean + (1 - keep) * v : v;
			v = mean;
		}
		if (what != HELDOUT && i % every != 0 && i + 1 != n)
			continue;
		c->x[c->n] = (double)(what == HELDOUT ? run->evals[i].step : run->points[i].step);
		c->y[c->n++] = v;
	}
}

static void
draw(const struct report *r, enum what what, struct chart *chart, FILE *out)
{
	struct curve *curves = ctl_alloc(r->n_runs, sizeof(*curves));
	struct chart_series *series = ctl_alloc(r->n_runs, sizeof(*series));

	chart->y_max = NAN;
	for (size_t i = 0; i < r->n_runs; i++) {
		const struct report_run *run = &r->runs[i];

		curve_make(run, what, &curves[i]);
		series[i] = (struct chart_series){.name = run->label, .look = i, .x = curves[i].x,
		    .y = curves[i].y, .n = curves[i].n, .markers = what == HELDOUT,
		    .mark_x = run->switch_step > 0 ? (double)run->switch_step : NAN};
		/*
		 * The large losses of the first steps would flatten the rest, so the scale ends at the loss
		 * after a twentieth of the steps.
		 */
		for (size_t p = 0; what == TRAINING && p < curves[i].n; p++)
			if (curves[i].x[p] * 20 >= (double)run->last_step) {
				chart->y_max = fmax(isfinite(chart->y_max) ? chart->y_max : -INFINITY, curves[i].y[p]);
				break;
			}
	}
	chart->series = series;
	chart->n_series = r->n_runs;
	chart_svg(chart, out);
	for (size_t i = 0; i < r->n_runs; i++)
		free(curves[i].x);
	free(curves);
	free(series);
}

int
report_html(const struct report *r, FILE *out)
{
	struct chart heldout = {.title = "Held-out log-perplexity, nats per token", .x_label = "step"};
	struct chart training = {.title = "Training: next-token loss, nats per token, smoothed", .x_label = "step"};
	struct chart rate = {.title = "Learning rate", .x_label = "step"};

	fputs(head, out);
	results(r, out);
	if (r->seeds)
		groups(r, out);
	races(r, out);
	report_judged_html(r, out);
	draw(r, HELDOUT, &heldout, out);
	draw(r, TRAINING, &training, out);
	draw(r, RATE, &rate, out);
	fprintf(out,
	    "<p class=\"note\">The training loss is the loss against the next token, also where the teacher's labels were trained on, as a "
	    "moving mean over a fiftieth of the steps; its chart is cut at what it was after a twentieth. Seconds are those of training "
	    "steps. Every number is read from metrics.jsonl of the runs.</p>\n");
	settings(r, out);
	fprintf(out, "</body></html>\n");
	return fflush(out) != 0 || ferror(out) ? (errno != 0 ? errno : EIO) : 0;
}
