/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "saltctl/watch/exporter.h"
#include "saltctl/core/output.h"
#include "saltctl/report/report.h"
#include "base/json/json.h"

#define RUNS_MAX 64			/* the most recently written runs are shown */
#define POINTS_MAX 400			/* points of a curve; more steps are averaged */

/* The folder of one run. The text is made again when one of the files has changed. */
struct entry {
	char *dir;			/* path */
	struct timespec written, ledger;	/* mtime of metrics.jsonl and of the folder RUN/ledger */
	off_t bytes;
	ino_t inode;
	char *text;
};

struct entries {
	struct entry *list;
	size_t n, cap;
};

struct exporter_runs {
	char *dir, *also;
	struct entries runs;
	size_t left_off;
};

/* ---- one run as JSON ---- */

/* ,"NAME":[v, v, ...] */
static void
print_column(const char *name, const double *v, size_t stride, size_t n, FILE *out)
{
	fprintf(out, ",\"%s\":[", name);
	for (size_t i = 0; i < n; i++, v += stride)
		fprintf(out, isfinite(*v) ? "%s%.7g" : "%snull", i > 0 ? "," : "", *v);
	fputs("]", out);
}

/* Steps [first, end) as one point. */
struct bucket {
	double step;			/* number of the last step */
	double hard, lr, tokens_per_s, rows_ahead;
};

static struct bucket
average(const struct report_run *run, size_t first, size_t end)
{
	const struct report_step *p = run->points, *last = &p[end - 1];
	uint64_t from_step = first > 0 ? p[first - 1].step : 0;
	double from_s = first > 0 ? p[first - 1].seconds : 0, hard = 0, ahead = 0;
	size_t n_hard = 0, n_ahead = 0;

	for (size_t i = first; i < end; i++) {
		if (isfinite(p[i].hard)) {
			hard += p[i].hard;
			n_hard++;
		}
		if (isfinite(p[i].rows_ahead)) {
			ahead += p[i].rows_ahead;
			n_ahead++;
		}
	}
	return (struct bucket){.step = (double)last->step, .hard = n_hard > 0 ? hard / (double)n_hard : NAN,
	    .lr = last->lr, .rows_ahead = n_ahead > 0 && last->phase == 1 ? ahead / (double)n_ahead : NAN,
	    .tokens_per_s = run->batch > 0 && last->seconds > from_s ?
	    (double)((last->step - from_step) * run->batch * run->context) / (last->seconds - from_s) : NAN};
}

static void
print_curves(const struct report_run *run, FILE *out)
{
	size_t each = (run->n_points + POINTS_MAX - 1) / POINTS_MAX, n = 0;
	const size_t wide = sizeof(struct bucket) / sizeof(double), eval = sizeof(struct report_eval) / sizeof(double);
	struct bucket b[POINTS_MAX];

	if (each == 0)
		each = 1;
	for (size_t first = 0; first < run->n_points; first += each)
		b[n++] = average(run, first, first + each < run->n_points ? first + each : run->n_points);
	fprintf(out, ",\"steps_per_point\":%zu,\"points\":{\"step\":[", each);
	for (size_t i = 0; i < n; i++)
		fprintf(out, "%s%.0f", i > 0 ? "," : "", b[i].step);
	fputs("]", out);
	print_column("hard", &b->hard, wide, n, out);
	print_column("lr", &b->lr, wide, n, out);
	print_column("tokens_per_s", &b->tokens_per_s, wide, n, out);
	print_column("rows_ahead", &b->rows_ahead, wide, n, out);
	fputs("},\"evals\":{\"step\":[", out);
	for (size_t i = 0; i < run->n_evals; i++)
		fprintf(out, "%s%" PRIu64, i > 0 ? "," : "", run->evals[i].step);
	fputs("]", out);
	print_column("loss", run->n_evals > 0 ? &run->evals->loss : NULL, eval, run->n_evals, out);
	fputs("}", out);
}

static const char *
base_name(const char *dir)
{
	const char *slash = strrchr(dir, '/');

	return slash != NULL ? slash + 1 : dir;
}

/* All members except the lists of numbers. */
static struct json *
head(const struct report_run *run, const char *name)
{
	const struct report_eval *last = report_last(run);

	return ctl_record(CTL("name", name), CTL("dir", run->dir), CTL("mode", run->mode), CTL("step", run->last_step),
	    CTL("steps_total", run->steps), CTL("switch_step", ctl_known(run->switch_step > 0,
	    (int64_t)run->switch_step)), CTL("finished", report_finished(run)), CTL("seed", run->seed),
	    CTL("parameters", ctl_known(run->n_params > 0, run->n_params)),
	    CTL("heldout_loss", last != NULL ? last->loss : NAN), CTL("accuracy", last != NULL ? last->accuracy : NAN),
	    CTL("ledger", ledger_json(run)));
}

static char *
run_text(const char *dir)
{
	struct err_note note = {.name = ""};
	struct report_run run;
	struct json *o;
	char *all = NULL, *first, why[512];
	size_t n = 0;
	FILE *out;
	int rc = report_read(&run, dir, &note);

	o = rc == 0 ? head(&run, base_name(dir)) : ctl_record(CTL("name", base_name(dir)), CTL("dir", dir),
	    CTL("error", err_note_str(&note, rc, why, sizeof(why))));
	first = json_print(o, false);
	json_close(&o);
	if (rc != 0)
		return first;
	if (first != NULL && (out = open_memstream(&all, &n)) != NULL) {
		fprintf(out, "%.*s", (int)strlen(first) - 1, first);	/* without its last brace */
		print_curves(&run, out);
		fputs("}", out);
		if (fclose(out) != 0) {
			free(all);
			all = NULL;
		}
	}
	free(first);
	report_run_free(&run);
	return all;
}

/* ---- the folder ---- */

struct exporter_runs *
exporter_runs_new(const char *dir, const char *also)
{
	struct exporter_runs *r = ctl_alloc(1, sizeof(*r));

	r->dir = ctl_strndup(dir, SIZE_MAX);
	r->also = also != NULL ? ctl_strndup(also, SIZE_MAX) : NULL;
	return r;
}

/* Removes the entries from number n on. */
static void
truncate_list(struct entries *e, size_t n)
{
	for (size_t i = n; i < e->n; i++) {
		free(e->list[i].dir);
		free(e->list[i].text);
	}
	e->n = n < e->n ? n : e->n;
}

void
exporter_runs_destroy(struct exporter_runs **runs)
{
	struct exporter_runs *r = *runs;

	if (r == NULL)
		return;
	truncate_list(&r->runs, 0);
	free(r->runs.list);
	free(r->dir);
	free(r->also);
	free(r);
	*runs = NULL;
}

size_t
exporter_runs_count(const struct exporter_runs *r)
{
	return r->runs.n;
}

static bool
same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static struct entry *
entry_of(const struct entries *e, const char *dir)
{
	for (size_t i = 0; i < e->n; i++)
		if (strcmp(e->list[i].dir, dir) == 0)
			return &e->list[i];
	return NULL;
}

/* Adds the run in @dir, if there is one; if its files are unchanged, the text of the old entry is reused. */
static void
look_at(struct entries *now, const struct entries *old, const char *dir)
{
	struct stat metrics, ledger;
	char path[4400], real[4097];
	struct entry *e, *was;

	snprintf(path, sizeof(path), "%s/metrics.jsonl", dir);
	if (stat(path, &metrics) != 0 || !S_ISREG(metrics.st_mode))
		return;
	if (realpath(dir, real) != NULL)	/* so that two paths of one run compare equal */
		dir = real;
	if (entry_of(now, dir) != NULL)
		return;
	snprintf(path, sizeof(path), "%s/ledger", dir);
	if (stat(path, &ledger) != 0)
		ledger.st_mtim = (struct timespec){0, 0};
	e = ctl_add(now->list, now->n, now->cap);
	*e = (struct entry){.dir = ctl_strndup(dir, SIZE_MAX), .written = metrics.st_mtim, .ledger = ledger.st_mtim,
	    .bytes = metrics.st_size, .inode = metrics.st_ino};
	was = entry_of(old, dir);
	if (was != NULL && same_time(was->written, e->written) && same_time(was->ledger, e->ledger) &&
	    was->bytes == e->bytes && was->inode == e->inode) {
		e->text = was->text;
		was->text = NULL;
	}
}

static int
newest_first(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->written.tv_sec != y->written.tv_sec)
		return x->written.tv_sec > y->written.tv_sec ? -1 : 1;
	return x->written.tv_nsec != y->written.tv_nsec ? x->written.tv_nsec > y->written.tv_nsec ? -1 : 1 :
	    strcmp(x->dir, y->dir);
}

static int
by_dir(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return strcmp(x->dir, y->dir);
}

static void
scan(struct exporter_runs *r)
{
	struct entries now = {.n = 0};
	struct dirent *e;
	char path[4300];
	DIR *d;

	look_at(&now, &r->runs, r->dir);
	if (r->also != NULL)
		look_at(&now, &r->runs, r->also);
	if ((d = opendir(r->dir)) != NULL) {
		while ((e = readdir(d)) != NULL)
			if (e->d_name[0] != '.' && snprintf(path, sizeof(path), "%s/%s", r->dir,
			    e->d_name) < (int)sizeof(path))
				look_at(&now, &r->runs, path);
		closedir(d);
	}
	truncate_list(&r->runs, 0);
	free(r->runs.list);
	r->left_off = now.n > RUNS_MAX ? now.n - RUNS_MAX : 0;
	if (now.n > 0)
		qsort(now.list, now.n, sizeof(*now.list), newest_first);
	truncate_list(&now, RUNS_MAX);
	if (now.n > 0)
		qsort(now.list, now.n, sizeof(*now.list), by_dir);
	r->runs = now;
}

char *
exporter_runs_read(struct exporter_runs *r)
{
	char *all = NULL, *also = NULL, real[4097];
	size_t n = 0, shown = 0;
	struct json *j;
	FILE *out;

	scan(r);
	if (r->also != NULL) {
		j = ctl_node(realpath(r->also, real) != NULL ? real : r->also);
		also = json_print(j, false);
		json_close(&j);
	}
	if ((out = open_memstream(&all, &n)) == NULL)
		goto out;
	fprintf(out, "{\"left_off\":%zu,\"run_dir\":%s,\"runs\":[", r->left_off, also != NULL ? also : "null");
	for (size_t i = 0; i < r->runs.n; i++) {
		struct entry *e = &r->runs.list[i];

		if (e->text == NULL)
			e->text = run_text(e->dir);
		if (e->text != NULL)
			fprintf(out, "%s\n%s", shown++ > 0 ? "," : "", e->text);
	}
	fputs("]}\n", out);
	if (fclose(out) != 0) {
		free(all);
		all = NULL;
	}
out:
	free(also);
	return all;
}
