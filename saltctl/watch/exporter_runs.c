#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "saltctl/watch/exporter.h"
#include "saltctl/core/output.h"
#include "saltctl/report/report.h"
#include "base/json/json.h"
#include "base/mem/mem.h"

#define RUNS_MAX 64			/* those written to last are shown */
#define POINTS_MAX 400			/* of a curve: more steps are brought together */

/* One run's folder. The text is made again when one of the files is another than it was. */
struct entry {
	char *dir;			/* path */
	struct timespec written;	/* metrics.jsonl */
	off_t bytes;
	ino_t inode;
	struct timespec ledger;		/* the folder RUN/ledger */
	char *text;
	bool seen;
};

struct exporter_runs {
	char *dir, *also;
	struct entry *list;
	size_t n, cap, left_off;
};

/* ---- one run as JSON ---- */

static void
print_number(double v, FILE *out)
{
	if (isfinite(v))
		fprintf(out, "%.7g", v);
	else
		fputs("null", out);
}

/* Steps [first, end) as one point. */
struct bucket {
	uint64_t step;			/* the last one's */
	double hard, lr, tokens_per_s, rows_ahead;
	int phase;
};

static struct bucket
bring_together(const struct report_run *run, size_t first, size_t end)
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
	return (struct bucket){.step = last->step, .phase = last->phase, .hard = n_hard > 0 ? hard / (double)n_hard : NAN, .lr = last->lr,
	    .rows_ahead = n_ahead > 0 && last->phase == 1 ? ahead / (double)n_ahead : NAN,
	    .tokens_per_s = run->batch > 0 && last->seconds > from_s ?
	    (double)((last->step - from_step) * run->batch * run->context) / (last->seconds - from_s) : NAN};
}

static void
print_points(const struct report_run *run, FILE *out)
{
	size_t each = (run->n_points + POINTS_MAX - 1) / POINTS_MAX, n = 0;
	struct bucket b[POINTS_MAX];

	if (each == 0)
		each = 1;
	for (size_t first = 0; first < run->n_points; first += each)
		b[n++] = bring_together(run, first, first + each < run->n_points ? first + each : run->n_points);
	fprintf(out, ",\"steps_per_point\":%zu,\"points\":{\"step\":[", each);
	for (size_t i = 0; i < n; i++)
		fprintf(out, "%s%" PRIu64, i > 0 ? "," : "", b[i].step);
#define COLUMN(name) \
	fprintf(out, "],\"" #name "\":["); \
	for (size_t i = 0; i < n; i++) { \
		fputs(i > 0 ? "," : "", out); \
		print_number(b[i].name, out); \
	}
	COLUMN(hard)
	COLUMN(lr)
	COLUMN(tokens_per_s)
	COLUMN(rows_ahead)
#undef COLUMN
	fputs("]}", out);
}

static void
print_evals(const struct report_run *run, FILE *out)
{
	fputs(",\"evals\":{\"step\":[", out);
	for (size_t i = 0; i < run->n_evals; i++)
		fprintf(out, "%s%" PRIu64, i > 0 ? "," : "", run->evals[i].step);
	fputs("],\"loss\":[", out);
	for (size_t i = 0; i < run->n_evals; i++) {
		fputs(i > 0 ? "," : "", out);
		print_number(run->evals[i].loss, out);
	}
	fputs("]}", out);
}

static const char *
base_name(const char *dir)
{
	const char *slash = strrchr(dir, '/');

	return slash != NULL ? slash + 1 : dir;
}

/* What is no list of numbers. */
static struct json *
head(const struct report_run *run, const char *name)
{
	struct json *o = ctl_object();

	ctl_put_text(o, "name", name);
	ctl_put_text(o, "dir", run->dir);
	ctl_put_text(o, "mode", run->mode);
	ctl_put_int(o, "step", (int64_t)run->last_step);
	ctl_put_int(o, "steps_total", (int64_t)run->steps);
	ctl_put(o, "switch_step", run->switch_step > 0 ? json_new_int((int64_t)run->switch_step) : json_new_null());
	ctl_put(o, "finished", json_new_flag(report_finished(run)));
	ctl_put_int(o, "seed", (int64_t)run->seed);
	ctl_put(o, "parameters", run->n_params > 0 ? json_new_int(run->n_params) : json_new_null());
	ctl_put_num(o, "heldout_loss", report_last(run) != NULL ? report_last(run)->loss : NAN);
	ctl_put_num(o, "accuracy", report_last(run) != NULL ? report_last(run)->accuracy : NAN);
	ctl_put(o, "ledger", ledger_json(run));
	return o;
}

static char *
run_text(const char *dir)
{
	struct err_note note = {.name = ""};
	struct report_run run;
	struct json *o = NULL;
	char *all = NULL, *first = NULL, why[512];
	size_t n = 0;
	FILE *out;
	int rc = report_read(&run, dir, &note);

	if (rc != 0) {
		o = ctl_object();
		ctl_put_text(o, "name", base_name(dir));
		ctl_put_text(o, "dir", dir);
		ctl_put_text(o, "error", err_note_str(&note, rc, why, sizeof(why)));
		all = json_print(o, false);
		json_close(&o);
		return all;
	}
	o = head(&run, base_name(dir));
	if ((first = json_print(o, false)) != NULL && (out = open_memstream(&all, &n)) != NULL) {
		fprintf(out, "%.*s", (int)strlen(first) - 1, first);	/* without its last brace */
		print_points(&run, out);
		print_evals(&run, out);
		fputs("}", out);
		if (fclose(out) != 0) {
			free(all);
			all = NULL;
		}
	}
	free(first);
	json_close(&o);
	report_run_free(&run);
	return all;
}

/* ---- the folder ---- */

struct exporter_runs *
exporter_runs_new(const char *dir, const char *also)
{
	struct exporter_runs *r = calloc(1, sizeof(*r));

	if (r == NULL || (r->dir = strdup(dir)) == NULL || (also != NULL && (r->also = strdup(also)) == NULL))
		exporter_runs_destroy(&r);
	return r;
}

static void
entry_free(struct entry *e)
{
	free(e->dir);
	free(e->text);
}

void
exporter_runs_destroy(struct exporter_runs **runs)
{
	struct exporter_runs *r = *runs;

	if (r == NULL)
		return;
	for (size_t i = 0; i < r->n; i++)
		entry_free(&r->list[i]);
	free(r->list);
	free(r->dir);
	free(r->also);
	free(r);
	*runs = NULL;
}

size_t
exporter_runs_count(const struct exporter_runs *r)
{
	return r->n;
}

static bool
same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Is there a run in @dir? Then its entry, made if need be; its text goes when its files have changed. */
static int
look_at(struct exporter_runs *r, const char *dir)
{
	struct stat metrics, ledger;
	char path[4400], real[4097];
	struct entry *e = NULL;

	snprintf(path, sizeof(path), "%s/metrics.jsonl", dir);
	if (stat(path, &metrics) != 0 || !S_ISREG(metrics.st_mode))
		return 0;
	if (realpath(dir, real) != NULL)	/* one run under two names is one run */
		dir = real;
	snprintf(path, sizeof(path), "%s/ledger", dir);
	if (stat(path, &ledger) != 0)
		ledger.st_mtim = (struct timespec){0, 0};
	for (size_t i = 0; i < r->n && e == NULL; i++)
		if (strcmp(r->list[i].dir, dir) == 0)
			e = &r->list[i];
	if (e == NULL) {
		if (mem_grow((void **)&r->list, &r->cap, r->n + 1, sizeof(*r->list)) != 0)
			return ENOMEM;
		r->list[r->n] = (struct entry){.dir = strdup(dir)};
		if (r->list[r->n].dir == NULL)
			return ENOMEM;
		e = &r->list[r->n++];
	}
	if (!same_time(e->written, metrics.st_mtim) || e->bytes != metrics.st_size || e->inode != metrics.st_ino ||
	    !same_time(e->ledger, ledger.st_mtim)) {
		free(e->text);
		e->text = NULL;
	}
	e->written = metrics.st_mtim;
	e->bytes = metrics.st_size;
	e->inode = metrics.st_ino;
	e->ledger = ledger.st_mtim;
	e->seen = true;
	return 0;
}

static int
newest_first(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->written.tv_sec != y->written.tv_sec)
		return x->written.tv_sec > y->written.tv_sec ? -1 : 1;
	return x->written.tv_nsec != y->written.tv_nsec ? x->written.tv_nsec > y->written.tv_nsec ? -1 : 1 : strcmp(x->dir, y->dir);
}

static int
by_dir(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return strcmp(x->dir, y->dir);
}

static int
scan(struct exporter_runs *r)
{
	size_t keep = 0;
	struct dirent *e;
	char path[4300];
	int rc;
	DIR *d;

	for (size_t i = 0; i < r->n; i++)
		r->list[i].seen = false;
	rc = look_at(r, r->dir);
	if (rc == 0 && r->also != NULL)
		rc = look_at(r, r->also);
	if ((d = opendir(r->dir)) != NULL) {
		while (rc == 0 && (e = readdir(d)) != NULL) {
			if (e->d_name[0] == '.' || snprintf(path, sizeof(path), "%s/%s", r->dir, e->d_name) >= (int)sizeof(path))
				continue;
			rc = look_at(r, path);
		}
		closedir(d);
	}
	for (size_t i = 0; i < r->n; i++) {
		if (r->list[i].seen)
			r->list[keep++] = r->list[i];
		else
			entry_free(&r->list[i]);
	}
	r->n = keep;
	r->left_off = 0;
	if (r->n > RUNS_MAX) {
		qsort(r->list, r->n, sizeof(*r->list), newest_first);
		r->left_off = r->n - RUNS_MAX;
		for (size_t i = RUNS_MAX; i < r->n; i++)
			entry_free(&r->list[i]);
		r->n = RUNS_MAX;
	}
	if (r->n > 0)
		qsort(r->list, r->n, sizeof(*r->list), by_dir);
	return rc;
}

/* A folder's own name as JSON. */
static char *
quoted(const char *dir)
{
	char real[4097], *text;
	struct json *j = json_new_text(realpath(dir, real) != NULL ? real : dir);

	text = j != NULL ? json_print(j, false) : NULL;
	json_close(&j);
	return text;
}

char *
exporter_runs_read(struct exporter_runs *r)
{
	char *all = NULL, *also = NULL;
	size_t n = 0;
	FILE *out = NULL;

	if (scan(r) != 0 || (r->also != NULL && (also = quoted(r->also)) == NULL) || (out = open_memstream(&all, &n)) == NULL)
		goto out;
	fprintf(out, "{\"left_off\":%zu,\"run_dir\":%s,\"runs\":[", r->left_off, also != NULL ? also : "null");
	for (size_t i = 0, shown = 0; i < r->n; i++) {
		struct entry *e = &r->list[i];

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
