/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "saltctl/watch/exporter.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"

#define NAME_MAX_BYTES 128
#define LABELS_MAX_BYTES 1280		/* names and hosts have 63 bytes, endpoints 255; escaped twice that */
#define METRICS_MAX 128			/* per group of a daemon; more are left out */

/* One line of the output, before lines are grouped by name. */
struct sample {
	char name[NAME_MAX_BYTES];
	bool counter;
	const char *help;		/* points into the fleet's answers */
	char *labels;			/* "{...}" or "" */
	double value;
	size_t number;			/* keeps lines of one name in order of arrival */
};

struct samples {
	struct sample *list;
	size_t n, cap;
};

static bool
name_ok(const char *name)
{
	size_t n = strlen(name);

	return n > 0 && n < 64 && name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0' &&
	    !(name[0] >= '0' && name[0] <= '9');
}

/*
 * Escapes the value of a label: backslash, quote and line feed. Other control characters become blanks and
 * bytes outside ASCII "?", because a truncated character would make Prometheus reject the whole text.
 */
static void
escape(char *out, size_t size, const char *text)
{
	size_t n = 0;

	for (; *text != '\0' && n + 3 < size; text++) {
		char c = *text == '\n' ? 'n' : (unsigned char)*text < 32 ? ' ' : (unsigned char)*text > 126 ?
		    '?' : *text;

		if (*text == '\n' || *text == '\\' || *text == '"')
			out[n++] = '\\';
		out[n++] = c;
	}
	out[n] = '\0';
}

static void
add(struct samples *s, const char *name, bool counter, const char *help, const char *labels, double value)
{
	size_t number = s->n;
	struct sample *p = ctl_add(s->list, s->n, s->cap);

	*p = (struct sample){.counter = counter, .help = help, .value = value, .number = number,
	    .labels = ctl_strndup(labels, SIZE_MAX)};
	snprintf(p->name, sizeof(p->name), "%s", name);
}

/* Writes {role=..,daemon=..,host=..} with one more label; key NULL: without it. */
static const char *
labels_of(const struct fleet_daemon *d, const char *key, const char *value, char buf[LABELS_MAX_BYTES])
{
	char role[160], name[600], host[160], more[160] = "";

	escape(role, sizeof(role), d->role);
	escape(name, sizeof(name), d->name[0] != '\0' ? d->name : d->endpoint);
	escape(host, sizeof(host), d->host);
	if (key != NULL)
		escape(more, sizeof(more), value);
	snprintf(buf, LABELS_MAX_BYTES, "{role=\"%s\",daemon=\"%s\",host=\"%s\"%s%s%s%s%s}", role, name, host,
	    key != NULL ? "," : "", key != NULL ? key : "", key != NULL ? "=\"" : "", more,
	    key != NULL ? "\"" : "");
	return buf;
}

static void
add_one(struct samples *s, const struct fleet_daemon *d, const char *name, bool counter, const char *help, double value)
{
	char labels[LABELS_MAX_BYTES];

	add(s, name, counter, help, labels_of(d, NULL, NULL, labels), value);
}

/* Adds a number from the top level of the answer, if it exists. */
static void
add_field(struct samples *s, const struct fleet_daemon *d, const char *field, const char *name, const char *help)
{
	double v;

	if (json_num(json_get(d->answer, field), &v))
		add_one(s, d, name, false, help, v);
}

/* Adds the daemon's own metrics, one group of its answer. */
static void
add_group(struct samples *s, const struct fleet_daemon *d, const char *group, bool counter)
{
	const struct json *o = json_get(d->answer, group), *helps = json_get(d->answer, "help");
	size_t section = strlen(d->role), n = 0;
	char name[NAME_MAX_BYTES];

	if (!name_ok(d->role))
		return;
	/* without the final d: trainerd's metrics are salt_trainer_..., as the section in fleet.yaml */
	section -= d->role[section - 1] == 'd';
	for (void *it = json_first(o); it != NULL && n < METRICS_MAX; it = json_next(o, it), n++) {
		const char *help = ctl_text_of(helps, json_key(it), "the daemon sent no help text");
		double v;

		if (!name_ok(json_key(it)) || !json_num(json_value(it), &v))
			continue;
		snprintf(name, sizeof(name), "salt_%.*s_%s", (int)section, d->role, json_key(it));
		add_one(s, d, name, counter, help, v);
	}
}

static void
add_states(struct samples *s, const struct fleet_daemon *d)
{
	const struct json *o = json_get(d->answer, "state_seconds");
	char labels[LABELS_MAX_BYTES];
	const char *state = ctl_text_of(d->answer, "state", ""), *phase = ctl_text_of(d->answer, "phase", "");
	size_t n = 0;
	double v;

	for (void *it = json_first(o); it != NULL && n < METRICS_MAX; it = json_next(o, it), n++) {
		labels_of(d, "state", json_key(it), labels);
		add(s, "salt_state", false, "1 for the state the daemon is in, 0 for those it has been in", labels,
		    strcmp(state, json_key(it)) == 0);
		if (json_num(json_value(it), &v))
			add(s, "salt_state_seconds_total", true, "time spent in each state", labels, v);
	}
	if (strcmp(phase, "one") == 0 || strcmp(phase, "two") == 0)
		add_one(s, d, "salt_phase", false, "1 with the teacher, 2 after the switch",
		    strcmp(phase, "one") == 0 ? 1 : 2);
}

static void
add_plans(struct samples *s, const struct fleet_daemon *d)
{
	static const struct { const char *field, *name, *help; } all[] = {
		{"rows", "salt_plan_rows", "rows of the plan's phase one"},
		{"rows_ready", "salt_plan_rows_ready", "rows that can be served, from row 0 without a gap"},
		{"rows_asked", "salt_plan_rows_asked", "one past the furthest row that a trainer requested"},
	};
	const struct json *plans = json_get(d->answer, "plans");
	char labels[LABELS_MAX_BYTES], id[16];
	bool released;
	double v;

	for (size_t p = 0; p < json_count(plans) && p < METRICS_MAX; p++) {
		const struct json *plan = json_item(plans, p);

		snprintf(id, sizeof(id), "%.8s", ctl_text_of(plan, "plan", ""));
		labels_of(d, "plan", id, labels);
		for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
			if (json_num(json_get(plan, all[i].field), &v))
				add(s, all[i].name, false, all[i].help, labels, v);
		if (json_flag(json_get(plan, "released"), &released))
			add(s, "salt_plan_released", false,
			    "1 after the trainer's switch: no more labels of it are needed", labels, released);
	}
}

static void
add_daemon(struct samples *s, const struct fleet_daemon *d)
{
	char labels[LABELS_MAX_BYTES];
	const char *version, *gpu;

	add_one(s, d, "salt_up", false, "1 if the daemon's status socket answered in time", d->answer != NULL);
	if (d->answer == NULL)
		return;
	if (json_text(json_get(d->answer, "version"), &version))
		add(s, "salt_info", false, "what the daemon was built as", labels_of(d, "version", version, labels), 1);
	if (json_text(json_get(d->answer, "gpu"), &gpu))
		add(s, "salt_gpu_info", false, "the GPU that the daemon computes on", labels_of(d, "gpu", gpu,
		    labels), 1);
	add_field(s, d, "uptime_s", "salt_uptime_seconds", "since the daemon's start");
	add_field(s, d, "step", "salt_step", "steps done; of a selectord rows ready");
	add_field(s, d, "steps_total", "salt_steps",
	    "steps to do; of a selectord rows of all its plans; 0: it has none");
	add_states(s, d);
	add_plans(s, d);
	add_group(s, d, "counters", true);
	add_group(s, d, "timers", true);
	add_group(s, d, "gauges", false);
	add_group(s, d, "queues", false);
}

/*
 * Whether daemon i is left out because another entry has the same role, name and host, for instance after an
 * old announcement: Prometheus rejects duplicate series.
 */
static bool
stands_for_another(const struct fleet *f, size_t i)
{
	const struct fleet_daemon *d = &f->daemons[i];

	for (size_t k = 0; k < f->n; k++) {
		const struct fleet_daemon *e = &f->daemons[k];

		if (k != i && d->name[0] != '\0' && strcmp(d->role, e->role) == 0 && strcmp(d->name, e->name) == 0 &&
		    strcmp(d->host, e->host) == 0 &&
		    (d->answer == NULL) >= (e->answer == NULL) && ((d->answer == NULL) > (e->answer == NULL) || k < i))
			return true;
	}
	return false;
}

static void
add_self(struct samples *s, const struct fleet *f, const struct exporter_self *self)
{
	size_t answering = 0;

	for (size_t i = 0; i < f->n; i++)
		answering += f->daemons[i].answer != NULL;
	add(s, "salt_exporter_daemons", false, "daemons that are announced or connected", "", (double)f->n);
	add(s, "salt_exporter_daemons_answering", false, "of them those that answered the last poll", "",
	    (double)answering);
	add(s, "salt_exporter_polls_total", true, "polls of the status sockets", "", (double)self->n_polls);
	add(s, "salt_exporter_poll_seconds", false, "how long the last poll took", "", self->poll_seconds);
	add(s, "salt_exporter_polled_timestamp_seconds", false,
	    "when these figures were requested, Unix time", "", self->polled_at);
	add(s, "salt_exporter_runs", false, "runs in the directory that is shown", "", (double)self->n_runs);
	if (isfinite(self->run_disk_free_ratio))
		add(s, "salt_run_disk_free_ratio", false,
		    "share of the file system of run.dir that is free, as the exporter's host sees it", "",
		    self->run_disk_free_ratio);
}

static int
by_name(const void *a, const void *b)
{
	const struct sample *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c != 0 ? c : x->number < y->number ? -1 : 1;
}

static void
print_help(const char *help, FILE *out)
{
	for (; *help != '\0'; help++) {
		if (*help == '\\' || *help == '\n')
			fputc('\\', out);
		fputc(*help == '\n' ? 'n' : *help, out);
	}
}

int
exporter_metrics(const struct fleet *f, const struct exporter_self *self, FILE *out)
{
	struct samples s = {.n = 0};

	add_self(&s, f, self);
	for (size_t i = 0; i < f->n; i++)
		if (!stands_for_another(f, i))
			add_daemon(&s, &f->daemons[i]);
	if (s.n > 0)
		qsort(s.list, s.n, sizeof(*s.list), by_name);
	for (size_t i = 0, first = 0; i < s.n; i++) {
		const struct sample *p = &s.list[i];

		if (i == 0 || strcmp(p->name, s.list[first].name) != 0) {
			first = i;
			fprintf(out, "# HELP %s ", p->name);
			print_help(p->help, out);
			fprintf(out, "\n# TYPE %s %s\n", p->name, p->counter ? "counter" : "gauge");
		}
		if (p->counter == s.list[first].counter)	/* a daemon of another version may differ */
			fprintf(out, "%s%s %.17g\n", p->name, p->labels, p->value);
	}
	for (size_t i = 0; i < s.n; i++)
		free(s.list[i].labels);
	free(s.list);
	return ferror(out) ? EIO : 0;
}
