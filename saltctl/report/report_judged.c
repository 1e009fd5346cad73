/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report_judged - measures beside the mean loss: the files of trainer.eval_choices, and the loss on the
 * sequences that are easy, medium and hard for the teacher.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file/file.h"
#include "base/json/json.h"
#include "saltctl/core/output.h"
#include "saltctl/report/report.h"

static const char *const third_names[REPORT_THIRDS] = {"easy", "medium", "hard"};

/* ---- trainer.eval_choices ---- */

void
report_choices_read(struct report_run *run, const struct json *eval)
{
	const struct json *all = json_get(eval, "choices");
	size_t cap = 0;

	if (json_count(all) == 0)
		return;
	free(run->choices);
	run->choices = NULL;
	run->n_choices = 0;
	for (void *it = json_first(all); it != NULL; it = json_next(all, it)) {
		const struct json *o = json_value(it);
		struct report_choice *c = ctl_add(run->choices, run->n_choices, cap);

		snprintf(c->name, sizeof(c->name), "%s", json_key(it));
		snprintf(c->kind, sizeof(c->kind), "%s", ctl_text_of(o, "kind", "?"));
		c->items = ctl_int_of(o, "items", 0);
		c->accuracy = ctl_num_of(o, "accuracy", NAN);
		c->accuracy_se = ctl_num_of(o, "accuracy_se", NAN);
		c->by_byte = ctl_num_of(o, "accuracy_by_byte", NAN);
		c->sets_mean = ctl_num_of(o, "sets_mean", NAN);
		c->sets_mean_se = ctl_num_of(o, "sets_mean_se", NAN);
		c->log_p = ctl_num_of(o, "log_probability", NAN);
	}
}

static const char *
share(double mean, double se, char buf[48])
{
	int n = snprintf(buf, 48, isfinite(mean) ? "%.2f %%" : "-", 100 * mean);

	if (isfinite(se))
		snprintf(buf + n, 48 - (size_t)n, " +- %.2f", 100 * se);
	return buf;
}

static size_t
most_choices(const struct report *r)
{
	size_t most = 0;

	for (size_t i = 0; i < r->n_runs; i++)
		most = r->runs[i].n_choices > most ? r->runs[i].n_choices : most;
	return most;
}

static void
print_choices(const struct report *r)
{
	struct ctl_table *t;
	char a[48], b[48], c[48], log_p[32];

	if (most_choices(r) == 0)
		return;
	printf("\nChoices, at the last evaluation (standard errors over items)\n\n");
	t = ctl_table_new("run\tfile\tkind\t>items\t>accuracy\t>per byte\t>mean over sets\t>log-probability");
	for (size_t i = 0; i < r->n_runs; i++)
		for (size_t k = 0; k < r->runs[i].n_choices; k++) {
			const struct report_choice *x = &r->runs[i].choices[k];

			snprintf(log_p, sizeof(log_p), isfinite(x->log_p) ? "%.3f" : "-", x->log_p);
			ctl_table_add(t, "%s\t%s\t%s\t%" PRId64 "\t%s\t%s\t%s\t%s", r->runs[i].label, x->name,
			    x->kind, x->items, share(x->accuracy, x->accuracy_se, a),
			    share(x->by_byte, NAN, b), share(x->sets_mean, x->sets_mean_se, c), log_p);
		}
	ctl_table_end(&t);
}

struct json *
report_choices_json(const struct report_run *run)
{
	struct json *o = ctl_object();

	for (size_t k = 0; k < run->n_choices; k++) {
		const struct report_choice *x = &run->choices[k];

		ctl_put(o, x->name,
		    ctl_record(CTL("kind", x->kind), CTL("items", x->items), CTL("accuracy", x->accuracy),
			CTL("accuracy_se", x->accuracy_se), CTL("accuracy_by_byte", x->by_byte),
			CTL("sets_mean", x->sets_mean), CTL("sets_mean_se", x->sets_mean_se),
			CTL("log_probability", x->log_p)));
	}
	return o;
}

/* ---- losses of sequences ---- */

struct sequence_loss {
	int64_t sequence;
	double loss;
};

struct losses {
	struct sequence_loss *items;
	size_t n, cap;
};

static int
by_sequence(const void *a, const void *b)
{
	const struct sequence_loss *x = a, *y = b;

	return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

static int
by_loss(const void *a, const void *b)
{
	const struct sequence_loss *x = a, *y = b;

	return x->loss != y->loss ? (x->loss > y->loss) - (x->loss < y->loss) : by_sequence(a, b);
}

static void
add(struct losses *l, struct sequence_loss x)
{
	struct sequence_loss *slot = ctl_add(l->items, l->n, l->cap);

	*slot = x;
}

/* Reads JSON lines with sequence and loss and sorts them by sequence. ERR_FORMAT for a repeated sequence. */
static int
read_losses(const char *path, struct losses *out, struct err_note *note)
{
	uint64_t line = 0;
	size_t len;
	char *data = NULL;
	int rc;

	if ((rc = file_read(path, 0, &data, &len, note)) != 0)
		return rc;
	for (char *at = data, *end; at < data + len && rc == 0; at = end + 1) {
		struct json *o = NULL;
		struct sequence_loss x;

		if ((end = memchr(at, '\n', (size_t)(data + len - at))) == NULL)
			end = data + len;
		line++;
		if (end == at)
			continue;
		if (json_parse(at, (size_t)(end - at), path, &o, NULL) == 0 &&
		    json_int(json_get(o, "sequence"), &x.sequence) && json_num(json_get(o, "loss"), &x.loss))
			add(out, x);
		else
			rc = err_expect_at(note, ERR_FORMAT, "%s", "line %" PRIu64,
			    "an object with numbers sequence and loss", "", path, line);
		json_close(&o);
	}
	free(data);
	if (rc == 0 && out->n > 0)
		qsort(out->items, out->n, sizeof(*out->items), by_sequence);
	for (size_t i = 1; i < out->n && rc == 0; i++)
		if (out->items[i].sequence == out->items[i - 1].sequence)
			rc = err_expect(note, ERR_FORMAT, "%s", "each sequence once",
			    "sequence %" PRId64 " twice", path, out->items[i].sequence);
	return rc;
}

static const struct sequence_loss *
find(const struct losses *l, int64_t sequence)
{
	const struct sequence_loss key = {.sequence = sequence};

	return l->n > 0 ? bsearch(&key, l->items, l->n, sizeof(*l->items), by_sequence) : NULL;
}

/* Mean and standard error of a run's losses on the sequences teacher[begin .. end). */
static void
mean_of(const struct losses *run, const struct sequence_loss *teacher, size_t begin, size_t end, double *mean,
    double *se)
{
	double n = (double)(end - begin), sum = 0, squares = 0;

	for (size_t i = begin; i < end; i++)
		sum += find(run, teacher[i].sequence)->loss;
	*mean = sum / n;
	for (size_t i = begin; i < end; i++) {
		double d = find(run, teacher[i].sequence)->loss - *mean;

		squares += d * d;
	}
	*se = n > 1 ? sqrt(squares / (n - 1) / n) : NAN;
}

int
report_thirds_read(struct report *r, const char *teacher, struct err_note *note)
{
	struct losses *runs = ctl_alloc(r->n_runs, sizeof(*runs)), all = {.n = 0}, common = {.n = 0};
	char path[4400];
	int rc = read_losses(teacher, &all, note);

	r->thirds = ctl_alloc(r->n_runs + 1, sizeof(*r->thirds));
	for (size_t i = 0; i < r->n_runs && rc == 0; i++) {
		snprintf(path, sizeof(path), "%s/sequence_losses.jsonl", r->runs[i].dir);
		if ((rc = read_losses(path, &runs[i], note)) == ENOENT)
			rc = 0;		/* the run is shown as not known */
		r->thirds[i].known = runs[i].n > 0;
	}
	for (size_t k = 0; k < all.n && rc == 0; k++) {
		bool everywhere = true;

		for (size_t i = 0; i < r->n_runs; i++)
			everywhere = everywhere &&
			    (!r->thirds[i].known || find(&runs[i], all.items[k].sequence) != NULL);
		if (everywhere)
			add(&common, all.items[k]);
	}
	if (rc == 0 && common.n < REPORT_THIRDS)
		rc = err_expect(note, ERR_FORMAT, "%s",
		    "at least three sequences that the runs were evaluated on too", "%zu", teacher, common.n);
	if (rc == 0) {
		qsort(common.items, common.n, sizeof(*common.items), by_loss);
		r->n_sequences = common.n;
		for (size_t i = 0; i <= r->n_runs; i++)
			for (size_t t = 0; t < REPORT_THIRDS && (i == r->n_runs || r->thirds[i].known); t++)
				mean_of(i == r->n_runs ? &all : &runs[i], common.items,
				    common.n * t / REPORT_THIRDS, common.n * (t + 1) / REPORT_THIRDS,
				    &r->thirds[i].loss[t], &r->thirds[i].se[t]);
		r->thirds[r->n_runs].known = true;
	}
	for (size_t i = 0; i < r->n_runs; i++)
		free(runs[i].items);
	free(runs);
	free(all.items);
	free(common.items);
	return rc;
}

static const char *
name_of(const struct report *r, size_t i)
{
	return i < r->n_runs ? r->runs[i].label : "the teacher";
}

static void
print_thirds(const struct report *r)
{
	struct ctl_table *t;
	bool missing = false;

	if (r->thirds == NULL)
		return;
	printf("\nLoss by thirds of %zu held-out sequences, in the order of the teacher's loss\n\n",
	    r->n_sequences);
	t = ctl_table_new("run\t>easy\t>medium\t>hard");
	for (size_t i = 0; i <= r->n_runs; i++) {
		const double *loss = r->thirds[i].loss, *se = r->thirds[i].se;

		if (r->thirds[i].known)
			ctl_table_add(t, "%s\t%.4f +- %.4f\t%.4f +- %.4f\t%.4f +- %.4f", name_of(r, i),
			    loss[0], se[0], loss[1], se[1], loss[2], se[2]);
		else
			ctl_table_add(t, "%s\t-\t-\t-", name_of(r, i));
		missing = missing || !r->thirds[i].known;
	}
	ctl_table_end(&t);
	if (missing)
		printf(
		    "\n-: no sequence_losses.jsonl in the run's folder; trainerd writes it after the last step, or\n"
		    "   saltctl eval -c fleet.yaml --model CHECKPOINT --by-sequence RUN/sequence_losses.jsonl\n");
}

struct json *
report_thirds_json(const struct report *r, size_t i)
{
	struct json *o;

	if (r->thirds == NULL || !r->thirds[i].known)
		return json_new_null();
	o = ctl_object();
	for (size_t t = 0; t < REPORT_THIRDS; t++)
		ctl_put(o, third_names[t],
		    ctl_record(CTL("log_perplexity", r->thirds[i].loss[t]), CTL("se", r->thirds[i].se[t])));
	return o;
}

/* ---- both ---- */

void
report_judged_print(const struct report *r)
{
	print_choices(r);
	print_thirds(r);
}

static void
cell(FILE *out, const char *text)
{
	fprintf(out, "<td>");
	chart_text(text, out);
	fprintf(out, "</td>");
}

static void
html_choices(const struct report *r, FILE *out)
{
	char buf[48];

	fprintf(out,
	    "<h2>Choices</h2>\n<div class=\"wide\"><table><tr><th>run</th><th class=\"t\">file</th><th>items</th><th>accuracy</th>"
	    "<th>per byte</th><th>mean over sets</th></tr>\n");
	for (size_t i = 0; i < r->n_runs; i++)
		for (size_t k = 0; k < r->runs[i].n_choices; k++) {
			const struct report_choice *x = &r->runs[i].choices[k];

			fprintf(out, "<tr>");
			cell(out, r->runs[i].label);
			fprintf(out, "<td class=\"t\">");
			chart_text(x->name, out);
			fprintf(out, "</td><td>%" PRId64 "</td>", x->items);
			cell(out, share(x->accuracy, x->accuracy_se, buf));
			cell(out, share(x->by_byte, NAN, buf));
			cell(out, share(x->sets_mean, x->sets_mean_se, buf));
			fprintf(out, "</tr>\n");
		}
	fprintf(out,
	    "</table></div>\n<p class=\"note\">At the last evaluation, by trainer.eval_choices. +-: standard errors over items.</p>\n");
}

static void
html_thirds(const struct report *r, FILE *out)
{
	char buf[64];

	fprintf(out,
	    "<h2>Loss by the teacher's</h2>\n<div class=\"wide\"><table><tr><th>run</th><th>easy</th><th>medium</th><th>hard</th></tr>\n");
	for (size_t i = 0; i <= r->n_runs; i++) {
		fprintf(out, "<tr>");
		cell(out, name_of(r, i));
		for (size_t t = 0; t < REPORT_THIRDS; t++) {
			snprintf(buf, sizeof(buf), r->thirds[i].known ? "%.4f +- %.4f" : "-",
			    r->thirds[i].loss[t], r->thirds[i].se[t]);
			cell(out, buf);
		}
		fprintf(out, "</tr>\n");
	}
	fprintf(out,
	    "</table></div>\n<p class=\"note\">%zu held-out sequences in thirds, by the teacher's loss on them. +-: standard errors over "
	    "sequences.</p>\n",
	    r->n_sequences);
}

void
report_judged_html(const struct report *r, FILE *out)
{
	if (most_choices(r) > 0)
		html_choices(r, out);
	if (r->thirds != NULL)
		html_thirds(r, out);
}
