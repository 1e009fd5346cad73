#include "ctl/fleet.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "config/config.h"
#include "ctl/output.h"
#include "json/json.h"
#include "mem/mem.h"
#include "status/status.h"

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

int
fleet_add(struct fleet *f, const char *role, const char *name, const char *host, int64_t pid, const char *endpoint)
{
	struct fleet_daemon *d;

	for (size_t i = 0; i < f->n; i++)
		if (strcmp(f->daemons[i].endpoint, endpoint) == 0)
			return 0;
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

/* Ask daemons [first, n). */
static int
ask_from(struct fleet *f, struct bus *bus, size_t first, int64_t timeout_ms)
{
	size_t n = f->n - first;
	struct bus_ask *asks = calloc(n + 1, sizeof(*asks));
	int rc;

	if (asks == NULL)
		return ENOMEM;
	for (size_t i = 0; i < n; i++) {
		size_t role = role_number(f->daemons[first + i].role);

		asks[i].endpoint = f->daemons[first + i].endpoint;
		asks[i].server_key = role < N_ROLES ? keys[role] : NULL;
	}
	rc = n > 0 ? bus_status_ask(bus, asks, n, "json", 4, timeout_ms) : 0;
	for (size_t i = 0; i < n; i++) {
		if (rc == 0)
			take(&f->daemons[first + i], &asks[i]);
		free(asks[i].answer);
	}
	free(asks);
	return rc;
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
	size_t known = f->n;
	int rc = ask_from(f, bus, 0, timeout_ms);

	for (size_t i = 0; i < known && rc == 0; i++)
		rc = add_roster(f, json_get(f->daemons[i].answer, "roster"));
	if (rc == 0 && f->n > known)
		rc = ask_from(f, bus, known, timeout_ms);
	if (f->n > 0)
		qsort(f->daemons, f->n, sizeof(*f->daemons), by_role);
	return rc;
}

void
fleet_clear(struct fleet *f)
{
	for (size_t i = 0; i < f->n; i++)
		json_close(&f->daemons[i].answer);
	free(f->daemons);
	*f = (struct fleet){.n = 0};
}

const char *
fleet_why(const struct fleet_daemon *d)
{
	if (d->gone)
		return "its process is gone";
	return d->rc == ERR_TIMEOUT ? "no answer in time" : err_str(d->rc);
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
