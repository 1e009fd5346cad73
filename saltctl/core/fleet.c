#include "saltctl/core/fleet.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "base/mem/mem.h"
#include "fabric/status/status.h"

static const char *const roles[] = {"selectord", "teacherd", "trainerd"};
static const char *const keys[] = {"selector", "teacher", "trainer"};

#define N_ROLES (sizeof(roles) / sizeof(roles[0]))

/* The roster says "teacher" where an announcement says "teacherd". */
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
fleet_add(struct fleet *f, const char *role, const char *name, const char *host, int64_t pid, const char *endpoint)
{
	struct fleet_daemon *d;

	for (size_t i = 0; i < f->n; i++)
		if (strcmp(f->daemons[i].endpoint, endpoint) == 0) {
			f->daemons[i].seen_ms = clock_now_ms();
			f->daemons[i].left = false;
			return 0;
		}
	if (mem_grow((void **)&f->daemons, &f->cap, f->n + 1, sizeof(*f->daemons)) != 0)
		return ENOMEM;
	d = &f->daemons[f->n++];
	memset(d, 0, sizeof(*d));
	snprintf(d->role, sizeof(d->role), "%s", role_name(role));
	snprintf(d->name, sizeof(d->name), "%s", name);
	snprintf(d->host, sizeof(d->host), "%s", host);
	snprintf(d->endpoint, sizeof(d->endpoint), "%s", endpoint);
	d->pid = pid;
	d->rc = ERR_AGAIN;
	d->seen_ms = clock_now_ms();
	return 0;
}

int
fleet_find(struct fleet *f, const char *run_dir)
{
	struct status_announce *list = NULL;
	size_t n = 0, n_bad;
	int rc = status_announce_list(run_dir, &list, &n, &n_bad);

	for (size_t i = 0; i < n && rc == 0; i++)
		if (list[i].status_endpoint[0] != '\0')
			rc = fleet_add(f, list[i].role, list[i].name, list[i].host, list[i].pid, list[i].status_endpoint);
	free(list);
	return rc;
}

static void
take_text(const struct json *answer, const char *key, char *to, size_t size)
{
	const char *text;

	if (json_text(json_get(answer, key), &text))
		snprintf(to, size, "%s", text);
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
		d->gone = d->pid > 0 && strcmp(d->host, bus_host()) == 0 && kill((pid_t)d->pid, 0) != 0 && errno == ESRCH;
	}
}

/* Who selectord says is connected, if not known yet. */
static int
add_roster(struct fleet *f, const struct json *roster)
{
	int rc = 0;

	for (size_t i = 0; i < json_count(roster) && rc == 0; i++) {
		const struct json *p = json_item(roster, i);
		const char *role = "", *name = "", *host = "", *endpoint = "";
		int64_t pid = 0;

		json_text(json_get(p, "role"), &role);
		json_text(json_get(p, "name"), &name);
		json_text(json_get(p, "host"), &host);
		json_int(json_get(p, "pid"), &pid);
		if (json_text(json_get(p, "status_endpoint"), &endpoint) && endpoint[0] != '\0')
			rc = fleet_add(f, role, name, host, pid, endpoint);
	}
	return rc;
}

/* A request that is under way: the fleet's array may move meanwhile. */
struct asking {
	struct bus_ask ask;
	char endpoint[sizeof(((struct fleet_daemon *)0)->endpoint)];
};

int
fleet_ask_one(struct fleet *f, struct bus_asker *asker, size_t i, int64_t timeout_ms)
{
	struct fleet_daemon *d = &f->daemons[i];
	struct asking *a;
	int rc;

	if (d->asked)
		return 0;
	if ((a = calloc(1, sizeof(*a))) == NULL)
		return ENOMEM;
	memcpy(a->endpoint, d->endpoint, sizeof(a->endpoint));
	a->ask = (struct bus_ask){.endpoint = a->endpoint, .server_key = fleet_key(d->role), .id = i};
	if ((rc = bus_asker_ask(asker, &a->ask, "json", 4, timeout_ms)) != 0)
		free(a);
	d->asked = rc == 0;
	d->asked_ms = clock_now_ms();
	return rc;
}

int
fleet_take(struct fleet *f, struct bus_asker *asker, int64_t wait_ms)
{
	struct bus_ask *ask = bus_asker_next(asker, wait_ms);
	struct fleet_daemon *d;
	int rc;

	if (ask == NULL)
		return ERR_TIMEOUT;
	d = &f->daemons[ask->id];
	take(d, ask);
	free(ask->answer);
	free(ask);			/* it is the first of struct asking */
	rc = add_roster(f, json_get(d->answer, "roster"));
	return rc;
}

int
fleet_turn(struct fleet *f, struct bus_asker *asker, const char *run_dir, int64_t every_ms, int64_t timeout_ms, int64_t wait_ms)
{
	int64_t now = clock_now_ms();
	int rc = 0;

	if (run_dir[0] != '\0' && (f->found_ms == 0 || now - f->found_ms >= every_ms)) {
		f->found_ms = now;
		rc = fleet_find(f, run_dir);
	}
	for (size_t i = 0; i < f->n && rc == 0; i++) {
		struct fleet_daemon *d = &f->daemons[i];

		if (d->answer == NULL && d->rc != ERR_AGAIN && now - d->seen_ms > 3 * every_ms)
			d->left = true;
		if (!d->left && !d->asked && (d->asked_ms == 0 || now - d->asked_ms >= every_ms))
			rc = fleet_ask_one(f, asker, i, timeout_ms);
	}
	while (rc == 0 && (rc = fleet_take(f, asker, wait_ms)) == 0)
		wait_ms = 0;
	if (rc != ERR_TIMEOUT)
		return rc;
	if (wait_ms > 0 && bus_asker_open(asker) == 0)		/* nobody to wait for */
		stop_sleep_ms(wait_ms);
	return 0;
}

void
fleet_give_up(struct fleet *f, struct bus_asker **asker)
{
	struct bus_ask *ask;

	if (*asker == NULL)
		return;
	for (size_t i = 0; i < f->n; i++)
		f->daemons[i].asked = false;
	while ((ask = bus_asker_drop(*asker)) != NULL) {
		free(ask->answer);
		free(ask);
	}
	bus_asker_destroy(asker);
}

static int
by_role(const void *a, const void *b)
{
	const struct fleet_daemon *x = a, *y = b;
	size_t rx = role_number(x->role), ry = role_number(y->role);

	return rx != ry ? rx < ry ? -1 : 1 : strcmp(x->name, y->name);
}

int
fleet_ask(struct fleet *f, struct bus *bus, int64_t timeout_ms)
{
	struct bus_asker *asker = NULL;
	size_t n_asked = 0;
	int rc = bus_asker_new(&asker, bus);

	/* The roster comes with an answer: whoever is in it is asked at once, while others still keep us waiting. */
	while (rc == 0 && (n_asked < f->n || bus_asker_open(asker) > 0)) {
		while (n_asked < f->n && rc == 0)
			rc = fleet_ask_one(f, asker, n_asked++, timeout_ms);
		if (rc == 0 && (rc = fleet_take(f, asker, timeout_ms + 1)) == ERR_TIMEOUT)
			rc = 0;
	}
	fleet_give_up(f, &asker);
	if (f->n > 0)
		qsort(f->daemons, f->n, sizeof(*f->daemons), by_role);
	return rc;
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
			n += (size_t)snprintf(buf + n, size - n, "%s%s %.*s/s", n > 0 ? ", " : "", ctl_count(v, number), (int)len - 6, key);
		else
			n += (size_t)snprintf(buf + n, size - n, "%s%s %s", n > 0 ? ", " : "", key, ctl_count(v, number));
	}
}

const char *
fleet_why(const struct fleet_daemon *d)
{
	if (d->gone)
		return "its process is gone";
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
	*f = (struct fleet){.n = 0};
}

struct json *
fleet_json(struct fleet *f)
{
	struct json *root = ctl_object(), *list = ctl_array(), *o;

	for (size_t i = 0; i < f->n; i++) {
		struct fleet_daemon *d = &f->daemons[i];

		if ((o = d->answer) == NULL) {
			o = ctl_object();
			ctl_put_text(o, "role", d->role);
			ctl_put_text(o, "name", d->name);
			ctl_put_text(o, "host", d->host);
			ctl_put_int(o, "pid", d->pid);
			ctl_put_text(o, "why", fleet_why(d));
		}
		ctl_put(o, "answered", json_new_flag(d->answer != NULL));
		ctl_put_text(o, "endpoint", d->endpoint);
		ctl_push(list, o);
		d->answer = NULL;		/* the list's now */
	}
	ctl_put(root, "daemons", list);
	return root;
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
