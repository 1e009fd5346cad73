/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "saltctl/core/fleet.h"
#include "saltctl/core/output.h"
#include "saltctl/watch/top.h"
#include "base/json/json.h"

#define SEED_BYTES (8 << 20)
#define PACE_S 60.0			/* pace is the mean over this time */
#define STEP_MAX 1e15			/* larger numbers are rejected, so that sums fit in 64 bits */

void
top_init(struct top *t, const char *title, double tokens_per_step)
{
	*t = (struct top){.title = title, .tokens_per_step = tokens_per_step, .loss = NAN, .heldout = NAN,
	    .per_point = 1};
}

void
top_free(struct top *t)
{
	free(t->daemons);
	t->daemons = NULL;
	t->n = t->cap = 0;
}

/* ---- history ---- */

/* Reads a number of steps from an untrusted file or answer; false, with *out unchanged, if not valid. */
static bool
step_of(const struct json *number, int64_t *out)
{
	double v;

	if (!json_num(number, &v) || !(v >= 0 && v <= STEP_MAX))
		return false;
	*out = (int64_t)v;
	return true;
}

/* Merges each two points into one, so that the whole history stays visible at half the resolution. */
static void
halve(struct top *t)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n_points; i += 2) {
		struct top_point p = t->points[i];

		if (i + 1 < t->n_points) {
			p.last = t->points[i + 1].last;
			p.loss = (p.loss + t->points[i + 1].loss) / 2;
		}
		t->points[n++] = p;
	}
	t->n_points = n;
	t->per_point *= 2;
}

void
top_loss(struct top *t, int64_t step, double loss)
{
	struct top_point *p;

	if (!isfinite(loss))
		return;
	while (t->n_points > 0 && t->points[t->n_points - 1].last >= step)	/* after a restart */
		t->n_points--;
	p = t->n_points > 0 ? &t->points[t->n_points - 1] : NULL;
	if (p != NULL && (size_t)(p->last - p->first + 1) < t->per_point) {
		p->loss += (loss - p->loss) / 2;
		p->last = step;
		return;
	}
	if (t->n_points == TOP_POINTS_MAX)
		halve(t);
	t->points[t->n_points++] = (struct top_point){step, step, loss};
}

static void
seed_line(struct top *t, const char *text, size_t len)
{
	struct json *line = NULL;
	const char *kind;
	int64_t step;
	double loss;

	if (json_parse(text, len, "metrics", &line, NULL) != 0)
		return;			/* an incomplete line, the first or the last one */
	kind = ctl_text_of(line, "kind", "");
	if (step_of(json_get(line, "step"), &step) && json_num(json_get(line, "loss"), &loss)) {
		if (strcmp(kind, "step") == 0)
			top_loss(t, step, loss);
		else if (strcmp(kind, "eval") == 0)
			t->heldout = loss;
	}
	json_close(&line);
}

int
top_seed(struct top *t, const char *path)
{
	FILE *in = fopen(path, "re");
	struct stat st;
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	if (in == NULL)
		return errno == ENOENT ? 0 : errno;
	if (fstat(fileno(in), &st) == 0 && st.st_size > SEED_BYTES)
		fseek(in, -SEED_BYTES, SEEK_END);
	while ((n = getline(&line, &cap, in)) > 0)
		seed_line(t, line, (size_t)n);
	free(line);
	fclose(in);
	return 0;
}

static void
keep_pace(struct top *t, double now_s)
{
	size_t n = t->n_paces;

	if (n > 0 && t->step < t->paces[n - 1].step)
		n = 0;			/* restarted from a checkpoint */
	if (n > 0 && now_s - t->paces[n - 1].at_s < 1)
		return;
	if (n == TOP_PACES_MAX)
		memmove(t->paces, t->paces + 1, --n * sizeof(t->paces[0]));
	t->paces[n].at_s = now_s;
	t->paces[n].step = t->step;
	t->n_paces = n + 1;
}

double
top_pace(const struct top *t)
{
	size_t last = t->n_paces - 1, first;

	if (t->n_paces == 0)
		return 0;
	for (first = last; first > 0 && t->paces[last].at_s - t->paces[first - 1].at_s <= PACE_S; first--)
		;
	if (t->paces[last].at_s - t->paces[first].at_s >= 5)
		return (double)(t->paces[last].step - t->paces[first].step) / (t->paces[last].at_s - t->paces[first].at_s);
	return t->tokens_per_step > 0 ? t->tokens_per_s / t->tokens_per_step : 0;
}

/* ---- current state ---- */

static void
take_text(const struct json *o, const char *key, char *out, size_t size)
{
	snprintf(out, size, "%s", ctl_text_of(o, key, ""));
}

static double
num(const struct json *o, const char *group, const char *key)
{
	return ctl_num_of(json_get(o, group), key, 0);
}

static void
take_trainer(struct top *t, const struct json *o, double now_s)
{
	char state[sizeof(t->state)];

	t->trains = true;
	take_text(o, "state", state, sizeof(state));
	if (strcmp(state, t->state) != 0) {
		snprintf(t->state, sizeof(t->state), "%s", state);
		t->state_since_s = now_s;
	}
	take_text(o, "phase", t->phase, sizeof(t->phase));
	step_of(json_get(o, "step"), &t->step);
	step_of(json_get(o, "steps_total"), &t->steps);
	t->switch_step = 0;
	t->knows_switch = step_of(json_get(json_get(o, "gauges"), "switch_step"), &t->switch_step);
	t->tokens_per_s = num(o, "rates", "tokens_per_s");
	t->trainer_ahead = num(o, "queues", "rows_ahead");
	if (num(o, "gauges", "loss") > 0 && t->step > 0) {		/* loss 0: no step since it started */
		t->loss = num(o, "gauges", "loss");
		top_loss(t, t->step, t->loss);
	}
	if (num(o, "gauges", "heldout_loss") > 0)
		t->heldout = num(o, "gauges", "heldout_loss");
	keep_pace(t, now_s);
}

static void
take_selectord(struct top *t, const struct json *o)
{
	int64_t v;

	t->selects = true;
	t->rows_ahead += num(o, "queues", "rows_ahead");
	t->labels_per_s += num(o, "rates", "labels_per_s");
	t->scores_per_s += num(o, "rates", "scores_per_s");
	if (num(o, "gauges", "teachers") > t->teachers)
		t->teachers = num(o, "gauges", "teachers");
	if (step_of(json_get(o, "step"), &v) && (t->rows_ready == 0 || v < t->rows_ready))
		t->rows_ready = v;
	if (step_of(json_get(o, "steps_total"), &v))
		t->rows_total = v;
}

static void
take_daemon(struct top_daemon *d, const struct fleet_daemon *f)
{
	const struct json *rates = json_get(f->answer, "rates");
	void *first = json_first(rates);

	snprintf(d->role, sizeof(d->role), "%.15s", f->role[0] != '\0' ? f->role : "?");
	snprintf(d->name, sizeof(d->name), "%.63s", f->name[0] != '\0' ? f->name : f->endpoint);
	snprintf(d->host, sizeof(d->host), "%s", f->host[0] != '\0' ? f->host : "?");
	if ((d->answers = f->answer != NULL)) {
		take_text(f->answer, "state", d->state, sizeof(d->state));
		take_text(f->answer, "last_error", d->error, sizeof(d->error));
		fleet_numbers(rates, true, d->rates, sizeof(d->rates));
		fleet_numbers(json_get(f->answer, "queues"), false, d->queues, sizeof(d->queues));
		fleet_gpu(f->answer, d->gpu, sizeof(d->gpu));
		if (first != NULL)
			json_num(json_value(first), &d->rate);
		return;
	}
	snprintf(d->state, sizeof(d->state), "%s", f->rc == ERR_AGAIN ? "asked" : "no answer");
	snprintf(d->why, sizeof(d->why), "%s", f->rc == ERR_AGAIN ? "" : fleet_why(f));
}

static int
by_role(const void *a, const void *b)
{
	const struct top_daemon *x = a, *y = b;
	int by = strcmp(x->role, y->role);		/* selectord, teacherd, trainerd */

	return by != 0 ? by : strverscmp(x->name, y->name);
}

void
top_feed(struct top *t, const struct fleet *f, double now_s)
{
	const struct fleet_daemon *trainer = NULL;

	t->n = t->n_silent = 0;
	t->trains = t->selects = false;
	t->rows_ahead = t->labels_per_s = t->scores_per_s = t->teachers = 0;
	t->rows_ready = t->rows_total = 0;
	for (size_t i = 0; i < f->n; i++) {
		const struct fleet_daemon *d = &f->daemons[i];

		if (d->left)
			continue;
		take_daemon(ctl_add(t->daemons, t->n, t->cap), d);
		t->n_silent += d->answer == NULL && d->rc != ERR_AGAIN;
		if (d->answer == NULL)
			continue;
		if (strcmp(d->role, "selectord") == 0)
			take_selectord(t, d->answer);
		if (strcmp(d->role, "trainerd") == 0 && (trainer == NULL || strverscmp(d->name, trainer->name) < 0))
			trainer = d;
	}
	if (trainer != NULL)
		take_trainer(t, trainer->answer, now_s);
	if (t->n > 0)
		qsort(t->daemons, t->n, sizeof(*t->daemons), by_role);
}
