/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "saltctl/report/report.h"

static void
mean_add(struct report_mean *m, double v)
{
	if (!isfinite(v))
		return;
	m->n++;
	m->sum += v;
	m->squares += v * v;
}

static double
mean_of(const struct report_mean *m)
{
	return m->n > 0 ? m->sum / (double)m->n : NAN;
}

/* Standard error of the mean, from the sample variance. */
static double
standard_error(const struct report_mean *m)
{
	double n = (double)m->n, mean = mean_of(m);

	return m->n > 1 ? sqrt(fmax(0, m->squares - n * mean * mean) / (n - 1) / n) : NAN;
}

/* Finds the longest finished baseline (or run called name) with run's model, seed, batch and context. */
static const struct report_run *
baseline_of(const struct report *r, const struct report_run *run, const char *name)
{
	const struct report_run *best = NULL;

	for (size_t i = 0; i < r->n_runs; i++) {
		const struct report_run *b = &r->runs[i];

		if ((name != NULL ? strcmp(b->name, name) == 0 : strcmp(b->mode, "baseline") == 0) && report_finished(b) &&
		    strcmp(b->model, run->model) == 0 && b->seed == run->seed && b->batch == run->batch && b->context == run->context &&
		    (best == NULL || b->steps > best->steps))
			best = b;
	}
	return best;
}

static bool
same_group(const struct report_run *a, const struct report_run *b)
{
	return strcmp(a->name, b->name) == 0 && a->steps == b->steps && strcmp(a->model, b->model) == 0;
}

int
report_groups_check(const struct ctl_args *args, const struct report *r)
{
	struct stat a, b;

	for (size_t i = 1; i < r->n_runs; i++)
		for (size_t k = 0; k < i; k++) {
			const struct report_run *one = &r->runs[k], *other = &r->runs[i];

			if (!same_group(one, other))
				continue;
			if (stat(one->dir, &a) == 0 && stat(other->dir, &b) == 0 && a.st_dev == b.st_dev &&
			    a.st_ino == b.st_ino)
				return ctl_usage(args,
				    "--run: %s and %s are one folder, and would count as two seeds of %s",
				    one->dir, other->dir, one->name);
			if (strcmp(one->mode, "?") != 0 && one->seed == other->seed)
				fprintf(stderr,
				    "saltctl report: warning: %s and %s, both %s, have the same run.seed %" PRIu64
				    "; the standard errors take "
				    "them for two seeds\n",
				    one->dir, other->dir, one->name, one->seed);
		}
	return 0;
}

/* Finds the finished runs with the name, model and seed of run, one of each length, the shortest first. */
static size_t
lengths(const struct report *r, const struct report_run *run, const struct report_run **out)
{
	size_t n = 0, at;

	for (size_t i = 0; i < r->n_runs; i++) {
		const struct report_run *o = &r->runs[i];

		if (strcmp(o->name, run->name) != 0 || strcmp(o->model, run->model) != 0 || o->seed != run->seed || !report_finished(o))
			continue;
		for (at = 0; at < n && out[at]->steps < o->steps; at++)
			;
		if (at < n && out[at]->steps == o->steps)
			continue;
		memmove(out + at + 1, out + at, (n - at) * sizeof(*out));
		out[at] = o;
		n++;
	}
	return n;
}

/*
 * The number of steps, as a share of the baseline's, at which the final losses of complete runs, interpolated
 * linearly over their steps, reach the baseline's final loss. NaN: they do not. *at_most: the shortest run is
 * already below.
 */
static double
share_of_steps(const struct report_run *const *runs, size_t n, const struct report_run *base, bool *at_most)
{
	double target = report_last(base)->loss, a, b, steps;

	*at_most = false;
	for (size_t i = 0; i < n; i++) {
		b = report_last(runs[i])->loss;
		steps = (double)runs[i]->steps;
		if (b > target)
			continue;
		*at_most = i == 0 && b < target;
		if (i > 0) {
			a = report_last(runs[i - 1])->loss;
			steps -= (target - b) / (a - b) * (steps - (double)runs[i - 1]->steps);
		}
		return steps / (double)base->steps;
	}
	return NAN;
}

static void
add_share(struct report_group *g, const struct report *r, const struct report_run *run, const struct report_run *base,
    const struct report_run **space)
{
	bool at_most;
	size_t n = lengths(r, run, space);
	double share;

	if (space[n - 1] != run)		/* counted once per seed, in the group of the longest run */
		return;
	share = share_of_steps(space, n, base, &at_most);
	g->n_not_reached += !isfinite(share);
	g->n_at_most += at_most;
	mean_add(&g->share, share);
}

static void
label_runs(struct report *r)
{
	for (size_t i = 0; i < r->n_runs; i++) {
		struct report_run *run = &r->runs[i];
		size_t n = 0;

		for (size_t j = 0; j < r->n_runs; j++)
			n += strcmp(r->runs[j].name, run->name) == 0;
		r->seeds |= n > 1;
		snprintf(run->label, sizeof(run->label), n > 1 ? "%s seed %" PRIu64 ", %" PRIu64 " steps" : "%s", run->name, run->seed, run->steps);
	}
}

void
report_groups(struct report *r, const char *baseline)
{
	const struct report_run **space = ctl_alloc(r->n_runs + 1, sizeof(*space));
	size_t cap = 0, g;

	label_runs(r);
	for (size_t i = 0; i < r->n_runs; i++) {
		const struct report_run *run = &r->runs[i], *base;
		const struct report_eval *last = report_last(run);

		if (!report_finished(run))
			continue;
		for (g = 0; g < r->n_groups && !same_group(r->groups[g].first, run); g++)
			;
		if (g == r->n_groups)
			((struct report_group *)ctl_add(r->groups, r->n_groups, cap))->first = run;
		mean_add(&r->groups[g].loss, last->loss);
		mean_add(&r->groups[g].accuracy, last->accuracy);
		mean_add(&r->groups[g].bits_per_byte, last->bits_per_byte);
		base = baseline_of(r, run, baseline);
		if (base == NULL || base == run)
			continue;
		mean_add(&r->groups[g].difference, last->loss - report_last(base)->loss);
		add_share(&r->groups[g], r, run, base, space);
	}
	free(space);
}

const char *
report_plus_minus(const struct report_mean *m, double scale, int digits, char buf[48])
{
	if (m->n == 0)
		snprintf(buf, 48, "-");
	else if (m->n == 1)
		snprintf(buf, 48, "%.*f", digits, scale * mean_of(m));
	else
		snprintf(buf, 48, "%.*f +- %.*f", digits, scale * mean_of(m), digits, scale * standard_error(m));
	return buf;
}

const char *
report_share(const struct report_group *g, char buf[96])
{
	char share[48], bound[32] = "", missed[40] = "";

	if (g->n_at_most > 0)
		snprintf(bound, sizeof(bound), "; %zu at most", g->n_at_most);
	if (g->n_not_reached > 0)
		snprintf(missed, sizeof(missed), "; %zu not reached", g->n_not_reached);
	snprintf(buf, 96, "%s%s%s", report_plus_minus(&g->share, 100, 1, share), bound, missed);
	return buf;
}

static struct json *
mean_json(const struct report_mean *m)
{
	return m->n == 0 ? json_new_null() : ctl_record(CTL("mean", mean_of(m)), CTL("standard_error", standard_error(m)),
	    CTL("seeds", (int64_t)m->n));
}

struct json *
report_groups_json(const struct report *r)
{
	struct json *all = ctl_array();

	for (size_t i = 0; i < r->n_groups; i++) {
		const struct report_group *g = &r->groups[i];

		ctl_push(all, ctl_record(CTL("name", g->first->name), CTL("steps", g->first->steps), CTL("log_perplexity", mean_json(&g->loss)),
		    CTL("accuracy", mean_json(&g->accuracy)), CTL("bits_per_byte", mean_json(&g->bits_per_byte)),
		    CTL("against_baseline", mean_json(&g->difference)), CTL("share_of_steps", mean_json(&g->share)),
		    CTL("share_at_most", (int64_t)g->n_at_most), CTL("share_not_reached", (int64_t)g->n_not_reached)));
	}
	return all;
}

void
report_print_groups(const struct report *r)
{
	struct ctl_table *t = ctl_table_new("runs\t>steps\t>seeds\t>log-perplexity\t>token accuracy, %\t>bits per byte\t>against baseline"
	    "\t>% of its steps");
	char b[4][48], share[96];

	printf("\nSeveral seeds, mean and standard error\n\n");
	for (size_t i = 0; i < r->n_groups; i++) {
		const struct report_group *g = &r->groups[i];

		ctl_table_add(t, "%s\t%" PRIu64 "\t%zu\t%s\t%s\t%s\t%s\t%s", g->first->name, g->first->steps, g->loss.n,
		    report_plus_minus(&g->loss, 1, 4, b[0]), report_plus_minus(&g->accuracy, 100, 2, b[1]),
		    report_plus_minus(&g->bits_per_byte, 1, 4, b[2]), report_plus_minus(&g->difference, 1, 4, b[3]), report_share(g, share));
	}
	ctl_table_end(&t);
	printf("\nagainst baseline: final loss minus that of the baseline of the same seed. %% of its steps: where the final losses of complete\n"
	    "runs reach the baseline's, in a row of the longest run.\n");
}
