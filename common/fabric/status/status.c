/* SPDX-License-Identifier: Apache-2.0 */
/* status - metrics, state and phase, and snapshots of them. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/json/json.h"
#include "fabric/status/status_internal.h"

#define RATE_TIME_S 10.0		/* the weight of past rates falls to 1/e over this time */
#define RATE_STEP_MS 500		/* snapshots at shorter intervals do not change rates */

struct status_metric {
	enum status_kind kind;
	char name[STATUS_TEXT_MAX], unit[STATUS_TEXT_MAX / 2];
	char *help;
	_Atomic uint64_t bits;		/* a count, or a double's bits */
	uint64_t rated_at_count;
	double rate_per_s;
};

struct status {
	pthread_mutex_t lock;		/* for everything but the metrics' bits */
	char role[STATUS_TEXT_MAX], name[STATUS_TEXT_MAX], host[STATUS_TEXT_MAX], version[STATUS_TEXT_MAX];
	char phase[STATUS_TEXT_MAX], gpu_name[STATUS_TEXT_MAX], last_error[STATUS_ERROR_MAX],
	    events_endpoint[STATUS_ENDPOINT_MAX];
	struct status__gpu *gpu;	/* NULL: none */
	int64_t start_ms, state_since_ms, rated_ms;
	bool rated;
	uint64_t step, steps_total;
	size_t n_states, state;
	struct { char name[STATUS_TEXT_MAX]; int64_t spent_ms; } states[STATUS_STATES_MAX];
	size_t n_metrics;
	struct status_metric metrics[STATUS_METRICS_MAX];
};

/* Copies s, cut at the end of a UTF-8 character. */
static void
put_text(char *out, size_t size, const char *s)
{
	size_t n = strlen(s);

	if (n >= size) {
		n = size - 1;
		while (n > 0 && ((unsigned char)s[n] & 0xC0) == 0x80)
			n--;
	}
	memmove(out, s, n);
	out[n] = '\0';
}

struct status *
status_new(const char *role, const char *name, const char *version, int64_t now_ms)
{
	struct status *st = calloc(1, sizeof(*st));
	char host[256] = "";

	if (st == NULL)
		return NULL;
	if (pthread_mutex_init(&st->lock, NULL) != 0) {
		free(st);
		return NULL;
	}
	gethostname(host, sizeof(host) - 1);
	put_text(st->role, sizeof(st->role), role);
	put_text(st->name, sizeof(st->name), name);
	put_text(st->host, sizeof(st->host), host);
	put_text(st->version, sizeof(st->version), version);
	st->start_ms = st->state_since_ms = st->rated_ms = now_ms;
	status_state(st, "starting", now_ms);
	return st;
}

void
status_destroy(struct status **st)
{
	if (st == NULL || *st == NULL)
		return;
	for (size_t i = 0; i < (*st)->n_metrics; i++)
		free((*st)->metrics[i].help);
	status__gpu_destroy(&(*st)->gpu);
	pthread_mutex_destroy(&(*st)->lock);
	free(*st);
	*st = NULL;
}

struct status_metric *
status_register(struct status *st, enum status_kind kind, const char *name, const char *unit, const char *help)
{
	struct status_metric *m = NULL;
	size_t n = strlen(name);

	if (n == 0 || n >= sizeof(m->name) || name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] != '\0' ||
	    (name[0] >= '0' && name[0] <= '9'))
		return NULL;
	pthread_mutex_lock(&st->lock);
	for (size_t i = 0; i < st->n_metrics; i++)
		if (strcmp(st->metrics[i].name, name) == 0)
			goto out;
	if (st->n_metrics == STATUS_METRICS_MAX)
		goto out;
	m = &st->metrics[st->n_metrics];
	if ((m->help = strdup(help)) == NULL) {
		m = NULL;
		goto out;
	}
	m->kind = kind;
	put_text(m->name, sizeof(m->name), name);
	put_text(m->unit, sizeof(m->unit), unit);
	atomic_init(&m->bits, 0);		/* all bits zero is 0.0 too */
	st->n_metrics++;
out:
	pthread_mutex_unlock(&st->lock);
	return m;
}

static double
from_bits(uint64_t bits)
{
	double v;

	memcpy(&v, &bits, sizeof(v));
	return v;
}

static uint64_t
to_bits(double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	return bits;
}

static bool
is_count(const struct status_metric *m)
{
	return m->kind == STATUS_COUNTER || m->kind == STATUS_RATED || m->kind == STATUS_TIMER;
}

void
status_add(struct status_metric *m, uint64_t n)
{
	if (m != NULL && is_count(m))
		atomic_fetch_add_explicit(&m->bits, n, memory_order_relaxed);
}

void
status_set(struct status_metric *m, double value)
{
	if (m != NULL && !is_count(m))
		atomic_store_explicit(&m->bits, to_bits(value), memory_order_relaxed);
}

double
status_get(const struct status_metric *m)
{
	uint64_t bits;

	if (m == NULL)
		return 0;
	bits = atomic_load_explicit(&((struct status_metric *)(uintptr_t)m)->bits, memory_order_relaxed);
	if (m->kind == STATUS_TIMER)
		return (double)bits / 1e9;
	return is_count(m) ? (double)bits : from_bits(bits);
}

void
status_state(struct status *st, const char *state, int64_t now_ms)
{
	char name[STATUS_TEXT_MAX];
	size_t i;

	put_text(name, sizeof(name), state);
	pthread_mutex_lock(&st->lock);
	if (st->n_states > 0 && now_ms > st->state_since_ms)
		st->states[st->state].spent_ms += now_ms - st->state_since_ms;
	st->state_since_ms = now_ms;
	for (i = 0; i < st->n_states && strcmp(st->states[i].name, name) != 0; i++)
		;
	if (i == STATUS_STATES_MAX)
		i--;				/* too many states: the last entry is reused */
	if (i >= st->n_states)
		st->n_states = i + 1;
	put_text(st->states[i].name, sizeof(st->states[i].name), name);
	st->state = i;
	pthread_mutex_unlock(&st->lock);
}

void
status_phase(struct status *st, const char *phase)
{
	pthread_mutex_lock(&st->lock);
	put_text(st->phase, sizeof(st->phase), phase);
	pthread_mutex_unlock(&st->lock);
}

void
status_step(struct status *st, uint64_t step, uint64_t steps_total)
{
	pthread_mutex_lock(&st->lock);
	st->step = step;
	st->steps_total = steps_total;
	pthread_mutex_unlock(&st->lock);
}

void
status_events(struct status *st, const char *endpoint)
{
	pthread_mutex_lock(&st->lock);
	put_text(st->events_endpoint, sizeof(st->events_endpoint), endpoint);
	pthread_mutex_unlock(&st->lock);
}

void
status_gpu(struct status *st, const char *name, const char *pci_bus_id, double memory_bytes)
{
	struct status__gpu *gpu = status__gpu_new(st, pci_bus_id, memory_bytes);

	pthread_mutex_lock(&st->lock);
	put_text(st->gpu_name, sizeof(st->gpu_name), name);
	st->gpu = gpu;
	pthread_mutex_unlock(&st->lock);
}

void
status_error(struct status *st, const char *text)
{
	pthread_mutex_lock(&st->lock);
	put_text(st->last_error, sizeof(st->last_error), text);
	pthread_mutex_unlock(&st->lock);
}

/* Updates the rates. Lock held. */
static void
move_rates(struct status *st, int64_t now_ms)
{
	int64_t dt_ms = now_ms - st->rated_ms;
	double dt_s = (double)dt_ms / 1000, fresh = -expm1(-dt_s / RATE_TIME_S);

	if (dt_ms < RATE_STEP_MS)
		return;
	for (size_t i = 0; i < st->n_metrics; i++) {
		struct status_metric *m = &st->metrics[i];
		uint64_t count;
		double rate;

		if (m->kind != STATUS_RATED)
			continue;
		count = atomic_load_explicit(&m->bits, memory_order_relaxed);
		rate = (double)(count - m->rated_at_count) / dt_s;
		m->rate_per_s = st->rated ? m->rate_per_s + fresh * (rate - m->rate_per_s) : rate;
		m->rated_at_count = count;
	}
	st->rated = true;
	st->rated_ms = now_ms;
}

void
status_snapshot(struct status *st, int64_t now_ms, struct status_snapshot *out)
{
	struct status__gpu *gpu;

	memset(out, 0, sizeof(*out));
	pthread_mutex_lock(&st->lock);
	gpu = st->gpu;
	pthread_mutex_unlock(&st->lock);
	if (gpu != NULL)
		status__gpu_read(gpu);
	pthread_mutex_lock(&st->lock);
	move_rates(st, now_ms);
	put_text(out->role, sizeof(out->role), st->role);
	put_text(out->name, sizeof(out->name), st->name);
	put_text(out->host, sizeof(out->host), st->host);
	put_text(out->version, sizeof(out->version), st->version);
	put_text(out->state, sizeof(out->state), st->states[st->state].name);
	put_text(out->phase, sizeof(out->phase), st->phase);
	put_text(out->gpu, sizeof(out->gpu), st->gpu_name);
	put_text(out->last_error, sizeof(out->last_error), st->last_error);
	put_text(out->events_endpoint, sizeof(out->events_endpoint), st->events_endpoint);
	out->pid = getpid();
	out->step = st->step;
	out->steps_total = st->steps_total;
	out->uptime_s = (double)(now_ms - st->start_ms) / 1000;
	out->n_states = st->n_states;
	for (size_t i = 0; i < st->n_states; i++) {
		int64_t ms = st->states[i].spent_ms;

		if (i == st->state && now_ms > st->state_since_ms)
			ms += now_ms - st->state_since_ms;
		put_text(out->states[i].name, sizeof(out->states[i].name), st->states[i].name);
		out->states[i].seconds = (double)ms / 1000;
	}
	out->n_metrics = st->n_metrics;
	for (size_t i = 0; i < st->n_metrics; i++) {
		struct status_metric *m = &st->metrics[i];
		struct status_value *v = &out->metrics[i];

		v->kind = m->kind;
		put_text(v->name, sizeof(v->name), m->name);
		put_text(v->unit, sizeof(v->unit), m->unit);
		v->help = m->help;
		v->value = status_get(m);
		v->rate_per_s = m->kind == STATUS_RATED ? m->rate_per_s : 0;
	}
	pthread_mutex_unlock(&st->lock);
}

/* A new object filled by fill(); NULL: out of memory. */
static struct json *
filled(const struct status_snapshot *snap, int (*fill)(struct json *o, const struct status_snapshot *snap, unsigned kinds), unsigned kinds)
{
	struct json *o = json_new_object();

	if (o != NULL && fill(o, snap, kinds) != 0)
		json_close(&o);
	return o;
}

#define KIND(kind) (1u << (kind))

/* Adds the metrics of some kinds. Whole numbers are written as integers while a double holds them exactly. */
static int
put_values(struct json *o, const struct status_snapshot *snap, unsigned kinds)
{
	int rc = 0;

	for (size_t i = 0; i < snap->n_metrics && rc == 0; i++) {
		const struct status_value *v = &snap->metrics[i];
		bool whole = fabs(v->value) < 9007199254740992.0 && v->value == floor(v->value);

		if (kinds & KIND(v->kind))
			rc = json_put(o, v->name, whole ? json_new_int((int64_t)v->value) : json_new_num(v->value));
	}
	return rc;
}

/* NAME_total becomes NAME_per_s. */
static int
put_rates(struct json *o, const struct status_snapshot *snap, unsigned kinds)
{
	int rc = 0;

	for (size_t i = 0; i < snap->n_metrics && rc == 0; i++) {
		const struct status_value *v = &snap->metrics[i];
		size_t n = strlen(v->name);
		char name[STATUS_TEXT_MAX + 8];

		if (n > 6 && strcmp(v->name + n - 6, "_total") == 0)
			n -= 6;
		snprintf(name, sizeof(name), "%.*s_per_s", (int)n, v->name);
		if (kinds & KIND(v->kind))
			rc = json_put(o, name, json_new_num(v->rate_per_s));
	}
	return rc;
}

/* Adds the help text of each metric, so that a reader of the numbers needs no list. */
static int
put_help(struct json *o, const struct status_snapshot *snap, unsigned kinds)
{
	int rc = 0;

	(void)kinds;
	for (size_t i = 0; i < snap->n_metrics && rc == 0; i++)
		if (snap->metrics[i].help != NULL && snap->metrics[i].help[0] != '\0')
			rc = json_put(o, snap->metrics[i].name, json_new_text(snap->metrics[i].help));
	return rc;
}

static int
put_states(struct json *o, const struct status_snapshot *snap, unsigned kinds)
{
	int rc = 0;

	(void)kinds;
	for (size_t i = 0; i < snap->n_states && rc == 0; i++)
		rc = json_put(o, snap->states[i].name, json_new_num(snap->states[i].seconds));
	return rc;
}

char *
status_json(const struct status_snapshot *snap)
{
	struct json *o = json_build(
	    "{s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
	    "role", json_new_text(snap->role), "name", json_new_text(snap->name), "pid", (long long)snap->pid,
	    "host", json_new_text(snap->host), "version", json_new_text(snap->version), "state", json_new_text(snap->state),
	    "phase", json_new_text(snap->phase), "step", (long long)snap->step, "steps_total", (long long)snap->steps_total,
	    "uptime_s", json_new_num(snap->uptime_s), "rates", filled(snap, put_rates, KIND(STATUS_RATED)),
	    "queues", filled(snap, put_values, KIND(STATUS_QUEUE)),
	    "counters", filled(snap, put_values, KIND(STATUS_COUNTER) | KIND(STATUS_RATED)),
	    "gauges", filled(snap, put_values, KIND(STATUS_GAUGE)), "timers", filled(snap, put_values, KIND(STATUS_TIMER)),
	    "state_seconds", filled(snap, put_states, 0), "help", filled(snap, put_help, 0),
	    "gpu", snap->gpu[0] != '\0' ? json_new_text(snap->gpu) : json_new_null(),
	    "last_error", snap->last_error[0] != '\0' ? json_new_text(snap->last_error) : json_new_null(),
	    "events_endpoint", snap->events_endpoint[0] != '\0' ? json_new_text(snap->events_endpoint) : json_new_null());
	char *text = o != NULL ? json_print(o, false) : NULL;

	json_close(&o);
	return text;
}
