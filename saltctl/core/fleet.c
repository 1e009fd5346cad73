/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/core/fleet.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "fabric/status/status.h"

static const char *const roles[] = {"selectord", "teacherd", "trainerd"};
static const char *const keys[] = {"selector", "teacher", "trainer"};

#define N_ROLES (sizeof(roles) / sizeof(roles[0]))

/* Accepts both forms of a role: "teacher", as in a roster, and "teacherd", as in an announcement. */
static size_t
role_number(const char *role)
{
	size_t i;

	for (i = 0; i < N_ROLES; i++)
		if (strcmp(role, roles[i]) == 0 || strcmp(role, keys[i]) == 0)
			break;
	return i;
}

static const char *
role_name(const char *role)
{
	size_t i = role_number(role);

	return i < N_ROLES ? roles[i] : role;
}

const char *
fleet_key(const char *role)
{
	size_t i = role_number(role);

	return i < N_ROLES ? keys[i] : NULL;
}

int
fleet_open(struct fleet *f, const struct ctl_args *args, const char *usage)
{
	struct err_note note = {.name = ""};
	int exit_code, rc;

	*f = (struct fleet){.args = args};
	if (!ctl_has(args, "config") && !ctl_has(args, "endpoint"))
		return ctl_usage(args, "%s", usage);
	if (ctl_has(args, "config")) {
		if ((exit_code = ctl_open_config(args, CONFIG_NEED_RUN, &f->cfg)) != 0)
			return exit_code;
		f->run_dir = f->cfg->run.dir;
	}
	if ((rc = stop_install()) != 0 || (rc = fleet_bus(&f->bus, f->cfg, &note)) != 0 ||
	    (rc = bus_asker_new(&f->asker, f->bus)) != 0)
		return ctl_fail(args, rc, &note);
	return 0;
}

/* Drops the queries that have no answer yet. */
static void
give_up(struct fleet *f)
{
	struct bus_ask *ask;

	for (size_t i = 0; i < f->n; i++)
		f->daemons[i].asked = false;
	while (f->asker != NULL && (ask = bus_asker_drop(f->asker)) != NULL) {
		free(ask->answer);
		free(ask);
	}
}

void
fleet_close(struct fleet *f)
{
	give_up(f);
	bus_asker_destroy(&f->asker);
	fleet_clear(f);
	bus_destroy(&f->bus);
	config_destroy(&f->cfg);
}

void
fleet_add(struct fleet *f, const char *role, const char *name, const char *host, int64_t pid, const char *endpoint)
{
	struct fleet_daemon *d = NULL;

	for (size_t i = 0; i < f->n && d == NULL; i++)
		if (strcmp(f->daemons[i].endpoint, endpoint) == 0)
			d = &f->daemons[i];
	if (d == NULL) {
		d = ctl_add(f->daemons, f->n, f->cap);
		snprintf(d->role, sizeof(d->role), "%s", role_name(role));
		snprintf(d->name, sizeof(d->name), "%s", name);
		snprintf(d->host, sizeof(d->host), "%s", host);
		snprintf(d->endpoint, sizeof(d->endpoint), "%s", endpoint);
		ctl_printable(d->name);
		ctl_printable(d->host);
		d->pid = pid;
		d->rc = ERR_AGAIN;
	}
	d->seen_ms = clock_now_ms();
	d->left = false;
}

static void
add_endpoints(struct fleet *f)
{
	const char *endpoint;

	for (size_t i = 0; (endpoint = ctl_get_nth(f->args, "endpoint", i)) != NULL; i++)
		fleet_add(f, "", "", "", 0, endpoint);
}

int
fleet_find(struct fleet *f)
{
	struct status_announce *list = NULL;
	size_t n = 0;
	int rc = f->run_dir != NULL ? status_announce_list(f->run_dir, &list, &n, &f->n_bad) : 0;

	for (size_t i = 0; i < n && rc == 0; i++)
		if (list[i].status_endpoint[0] != '\0')
			fleet_add(f, list[i].role, list[i].name, list[i].host, list[i].pid, list[i].status_endpoint);
	free(list);
	add_endpoints(f);
	return rc;
}

static void
take_text(const struct json *answer, const char *key, char *to, size_t size)
{
	const char *text;

	if (json_text(json_get(answer, key), &text))
		snprintf(to, size, "%s", text);
	ctl_printable(to);
}

static void
take(struct fleet_daemon *d, const struct bus_ask *ask)
{
	json_close(&d->answer);
	d->asked = d->gone = false;
	d->rc = ask->rc;
	if (ask->rc == 0 && (json_parse((const char *)ask->answer, ask->len, d->endpoint, &d->answer, NULL) != 0 ||
	    json_kind(d->answer) != JSON_KIND_OBJECT)) {
		json_close(&d->answer);
		d->rc = ERR_FORMAT;
	}
	if (d->rc == 0) {
		take_text(d->answer, "role", d->role, sizeof(d->role));
		take_text(d->answer, "name", d->name, sizeof(d->name));
		take_text(d->answer, "host", d->host, sizeof(d->host));
		json_int(json_get(d->answer, "pid"), &d->pid);
	} else {
		d->gone = d->pid > 0 && strcmp(d->host, bus_host()) == 0 && kill((pid_t)d->pid, 0) != 0 &&
		    errno == ESRCH;
	}
}

/* Adds the daemons that selectord lists as connected. */
static void
add_roster(struct fleet *f, const struct json *roster)
{
	for (size_t i = 0; i < json_count(roster); i++) {
		const struct json *p = json_item(roster, i);
		const char *endpoint = ctl_text_of(p, "status_endpoint", "");

		if (endpoint[0] != '\0')
			fleet_add(f, ctl_text_of(p, "role", ""), ctl_text_of(p, "name", ""), ctl_text_of(p, "host", ""),
			    ctl_int_of(p, "pid", 0), endpoint);
	}
}

/* A query under way. It has its own copy of the endpoint, because the fleet's array may move meanwhile. */
struct asking {
	struct bus_ask ask;
	char endpoint[sizeof(((struct fleet_daemon *)0)->endpoint)];
};

static int
ask_one(struct fleet *f, size_t i, int64_t timeout_ms)
{
	struct fleet_daemon *d = &f->daemons[i];
	struct asking *a;
	int rc;

	if (d->asked)
		return 0;
	a = ctl_alloc(1, sizeof(*a));
	memcpy(a->endpoint, d->endpoint, sizeof(a->endpoint));
	a->ask = (struct bus_ask){.endpoint = a->endpoint, .server_key = fleet_key(d->role), .id = i};
	if ((rc = bus_asker_ask(f->asker, &a->ask, "json", 4, timeout_ms)) != 0)
		free(a);
	d->asked = rc == 0;
	d->asked_ms = clock_now_ms();
	return rc;
}

/* Waits for one answer, stores it and appends the daemons of its roster. False: none within wait_ms. */
static bool
take_next(struct fleet *f, int64_t wait_ms)
{
	struct bus_ask *ask = bus_asker_next(f->asker, wait_ms);
	struct fleet_daemon *d;

	if (ask == NULL)
		return false;
	d = &f->daemons[ask->id];
	take(d, ask);
	free(ask->answer);
	free(ask);			/* frees the struct asking, whose first member it is */
	add_roster(f, json_get(d->answer, "roster"));
	return true;
}

int
fleet_turn(struct fleet *f, int64_t every_ms, int64_t timeout_ms, int64_t wait_ms)
{
	int64_t now = clock_now_ms();
	int rc = 0;

	if (f->found_ms == 0 || now - f->found_ms >= every_ms) {
		f->found_ms = now;
		rc = fleet_find(f);
	}
	add_endpoints(f);		/* refreshes seen_ms, so that they never count as left */
	for (size_t i = 0; i < f->n && rc == 0; i++) {
		struct fleet_daemon *d = &f->daemons[i];

		if (d->answer == NULL && d->rc != ERR_AGAIN && now - d->seen_ms > 3 * every_ms)
			d->left = true;
		if (!d->left && !d->asked && (d->asked_ms == 0 || now - d->asked_ms >= every_ms))
			rc = ask_one(f, i, timeout_ms);
	}
	while (rc == 0 && take_next(f, wait_ms))
		wait_ms = 0;
	if (rc == 0 && wait_ms > 0 && bus_asker_open(f->asker) == 0)		/* there is no answer to wait for */
		stop_sleep_ms(wait_ms);
	return rc;
}

static int
by_role(const void *a, const void *b)
{
	const struct fleet_daemon *x = a, *y = b;
	size_t rx = role_number(x->role), ry = role_number(y->role);

	return rx != ry ? rx < ry ? -1 : 1 : strcmp(x->name, y->name);
}

int
fleet_ask(struct fleet *f, int64_t timeout_ms)
{
	size_t n_asked = 0;
	int rc = 0;

	/* The daemons of a roster are queried when it arrives, while other answers are still missing. */
	while (rc == 0 && (n_asked < f->n || bus_asker_open(f->asker) > 0)) {
		while (n_asked < f->n && rc == 0)
			rc = ask_one(f, n_asked++, timeout_ms);
		if (rc == 0)
			take_next(f, timeout_ms + 1);
	}
	give_up(f);
	if (f->n > 0)
		qsort(f->daemons, f->n, sizeof(*f->daemons), by_role);
	return rc;
}

int
fleet_look(struct fleet *f, double timeout_s)
{
	struct err_note note = {.name = ""};
	int rc;

	if ((rc = fleet_find(f)) != 0)
		return ctl_fail(f->args, err_note_set(&note, rc, "%s/daemons", f->run_dir), &note);
	if (f->n_bad > 0)
		fprintf(stderr,
		    "saltctl %s: %s/daemons: %zu .json files are not what a daemon announces; its daemon is not found by them. "
		    "Restart that daemon, or remove the file if it does not run\n",
		    f->args->verb->name, f->run_dir, f->n_bad);
	if (f->n == 0) {
		fprintf(stderr, "saltctl %s: no daemon is announced in %s/daemons; is the fleet up?\n",
		    f->args->verb->name, f->run_dir);
		return EX_UNAVAILABLE;
	}
	if ((rc = fleet_ask(f, (int64_t)(timeout_s * 1000))) != 0)
		return ctl_fail(f->args, err_note_set(&note, rc, "status sockets"), &note);
	return 0;
}

size_t
fleet_n_silent(const struct fleet *f)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n; i++)
		n += f->daemons[i].answer == NULL;
	return n;
}

void
fleet_numbers(const struct json *o, bool rates, char *buf, size_t size)
{
	size_t n = 0;
	char number[32];

	snprintf(buf, size, "-");
	for (void *it = json_first(o); it != NULL && n < size; it = json_next(o, it)) {
		const char *key = json_key(it);
		size_t len = strlen(key);
		double v;

		if (!json_num(json_value(it), &v) || v == 0)
			continue;
		if (rates && len > 6 && strcmp(key + len - 6, "_per_s") == 0)
			n += (size_t)snprintf(buf + n, size - n, "%s%s %.*s/s", n > 0 ? ", " : "",
			    ctl_count(v, number), (int)len - 6, key);
		else
			n += (size_t)snprintf(buf + n, size - n, "%s%s %s", n > 0 ? ", " : "", key,
			    ctl_count(v, number));
	}
}

void
fleet_gpu(const struct json *answer, char *buf, size_t size)
{
	const struct json *gauges = json_get(answer, "gauges");
	const struct { const char *key; int digits; double unit; } figures[] = {
		{"gpu_utilization_ratio", 0, 0.01}, {"gpu_memory_used_bytes", 1, 1e9}, {"gpu_memory_bytes", 1, 1e9}};
	char text[3][24];
	double v;

	buf[0] = '\0';
	if (ctl_text_of(answer, "gpu", "")[0] == '\0')
		return;
	for (int i = 0; i < 3; i++) {
		snprintf(text[i], sizeof(text[i]), "?");
		if (json_num(json_get(gauges, figures[i].key), &v) && v >= 0 && v < 1e18)
			snprintf(text[i], sizeof(text[i]), "%.*f", figures[i].digits, v / figures[i].unit);
	}
	snprintf(buf, size, "%.63s %s %%, %s of %s GB", ctl_text_of(answer, "gpu", ""), text[0], text[1], text[2]);
}

const char *
fleet_why(const struct fleet_daemon *d)
{
	if (d->gone)
		return "its process has ended";
	return d->rc == ERR_TIMEOUT ? "no answer in time" : err_str(d->rc);
}

void
fleet_forget(struct fleet *f, int64_t since_ms)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n; i++)
		if (f->daemons[i].answer != NULL || f->daemons[i].seen_ms >= since_ms)
			f->daemons[n++] = f->daemons[i];
	f->n = n;
}

void
fleet_clear(struct fleet *f)
{
	for (size_t i = 0; i < f->n; i++)
		json_close(&f->daemons[i].answer);
	free(f->daemons);
	f->daemons = NULL;
	f->n = f->cap = 0;
}

struct json *
fleet_json(struct fleet *f)
{
	struct json *list = ctl_array(), *o;

	for (size_t i = 0; i < f->n; i++) {
		struct fleet_daemon *d = &f->daemons[i];
		bool answered = d->answer != NULL;

		o = answered ? d->answer : ctl_record(CTL("role", d->role), CTL("name", d->name), CTL("host", d->host),
		    CTL("pid", d->pid), CTL("why", fleet_why(d)));
		ctl_push(list, ctl_put_all(o, CTL("answered", answered), CTL("endpoint", d->endpoint)));
		d->answer = NULL;		/* now owned by the list */
	}
	return ctl_record(CTL("daemons", list));
}

int
fleet_bus(struct bus **bus, const struct config *cfg, struct err_note *note)
{
	struct bus_options o = {.role = BUS_ROLE_CLIENT};

	if (cfg != NULL) {
		o.max_message = cfg->bus.max_message;
		o.curve_dir = cfg->security.curve_dir;
		o.allow_plain_remote = cfg->security.allow_plain_remote;
	}
	return bus_new(bus, &o, note);
}
