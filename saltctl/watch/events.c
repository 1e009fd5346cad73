/* events: what the daemons publish, as it happens: steps, switches, joins, leases, losses, errors. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/fleet.h"
#include "saltctl/watch/follow.h"
#include "base/json/json.h"
#include "base/mem/mem.h"

#define TURN_MS 50
#define FLEET_MS 1000
#define ANSWER_MS 2000
#define AT_ONCE 1000			/* events of one daemon in one turn */

static const struct ctl_option options[] = {
	CTL_CONFIG,
	{"endpoint", "TCP", "ask this status socket too for its events; may be repeated", true},
	{"count", "N", "end after N events", false},
	{"json", NULL, "a JSON object for each event", false},
	CTL_END
};

struct source {
	struct bus_events *socket;		/* NULL: the daemon has left */
	char daemon[BUS_ENDPOINT_MAX], name[64], last_ts[32];	/* daemon: its status socket */
};

struct events {
	const struct ctl_args *args;
	const char *run_dir;
	struct bus *bus;
	struct bus_asker *asker;
	struct fleet fleet;
	struct source **sources;
	size_t n_sources, cap;
	struct follow out;
	uint64_t left;			/* events until the end */
};

static bool
wanted(const struct events *e, const char *topic)
{
	for (size_t i = 0; i < e->args->n_operands; i++)
		if (strncmp(topic, e->args->operands[i], strlen(e->args->operands[i])) == 0)
			return true;
	return e->args->n_operands == 0;
}

/* A socket for each daemon that says where its events are. */
static int
subscribe(struct events *e)
{
	const char *endpoint;
	struct source *s;
	size_t k;
	int rc;

	for (size_t i = 0; i < e->fleet.n; i++) {
		struct fleet_daemon *d = &e->fleet.daemons[i];

		for (k = 0; k < e->n_sources && strcmp(e->sources[k]->daemon, d->endpoint) != 0; k++)
			;
		if (d->left && k < e->n_sources)
			bus_events_destroy(&e->sources[k]->socket);
		if (!json_text(json_get(d->answer, "events_endpoint"), &endpoint) || (k < e->n_sources && e->sources[k]->socket != NULL))
			continue;
		if (k == e->n_sources) {
			if ((rc = mem_grow((void **)&e->sources, &e->cap, e->n_sources + 1, sizeof(*e->sources))) != 0 ||
			    (e->sources[k] = calloc(1, sizeof(*s))) == NULL)
				return ENOMEM;
			e->n_sources++;
		}
		s = e->sources[k];
		snprintf(s->daemon, sizeof(s->daemon), "%s", d->endpoint);
		snprintf(s->name, sizeof(s->name), "%s", d->name);
		fprintf(stderr, "saltctl events: listening to %s\n", s->name);
		if ((rc = bus_events_subscribe(&s->socket, e->bus, endpoint, fleet_key(d->role),
		    e->args->n_operands == 1 ? e->args->operands[0] : "", NULL)) != 0)
			return rc;
	}
	return 0;
}

static int
receive(struct events *e)
{
	static char text[1 << 16];
	char topic[256];
	int rc = 0;

	for (size_t i = 0; i < e->n_sources; i++) {
		struct source *s = e->sources[i];

		for (int n = 0; rc == 0 && e->left > 0 && s->socket != NULL && n < AT_ONCE; n++) {
			if (bus_events_recv(s->socket, topic, sizeof(topic), text, sizeof(text), 0) != 0)
				break;
			if (!wanted(e, topic))
				continue;
			e->left--;
			rc = follow_add(&e->out, s->name, text, strlen(text), s->last_ts);
		}
	}
	follow_print(&e->out);
	return rc;
}

static int
events(struct ctl_args *args)
{
	struct events e = {.args = args, .run_dir = "", .out.json = ctl_has(args, "json"), .left = UINT64_MAX};
	struct err_note note = {.name = ""};
	struct config *cfg = NULL;
	int exit_code, rc;

	if (!ctl_has(args, "config") && !ctl_has(args, "endpoint"))
		return ctl_usage(args, "whose events? give -c fleet.yaml or --endpoint tcp://HOST:PORT");
	if ((exit_code = ctl_get_u64(args, "count", 1, UINT64_MAX, &e.left)) != 0 ||
	    (ctl_has(args, "config") && (exit_code = ctl_open_config(args, CONFIG_NEED_RUN, &cfg)) != 0))
		return exit_code;
	if (cfg != NULL)
		e.run_dir = cfg->run.dir;
	if ((rc = stop_install()) != 0 || (rc = fleet_bus(&e.bus, cfg, &note)) != 0 || (rc = bus_asker_new(&e.asker, e.bus)) != 0)
		goto out;
	while (rc == 0 && e.left > 0 && !stop_requested() && !ferror(stdout)) {
		const char *endpoint;

		for (size_t i = 0; rc == 0 && (endpoint = ctl_get_nth(args, "endpoint", i)) != NULL; i++)
			rc = fleet_add(&e.fleet, "", "", "", 0, endpoint);
		if (rc == 0 && (rc = fleet_turn(&e.fleet, e.asker, e.run_dir, FLEET_MS, ANSWER_MS, TURN_MS)) == 0 && (rc = subscribe(&e)) == 0)
			rc = receive(&e);
	}
out:
	if (rc != 0)
		exit_code = ctl_fail(args, rc, &note);
	fleet_give_up(&e.fleet, &e.asker);
	fleet_clear(&e.fleet);
	for (size_t i = 0; i < e.n_sources; i++) {
		bus_events_destroy(&e.sources[i]->socket);
		free(e.sources[i]);
	}
	free(e.sources);
	follow_clear(&e.out);
	bus_destroy(&e.bus);
	config_destroy(&cfg);
	return exit_code;
}

const struct ctl_verb ctl_events = {
	.name = "events", .operands = "[TOPIC ...]", .summary = "what happens in a fleet, as it happens",
	.about = "Subscribes to the events socket of every daemon, those that join later too, and prints what they publish: every line of their logs\n"
	    "and every step. A TOPIC is the beginning of an event's name: step, eval, switch, checkpoint, peer (who joins and leaves), lease,\n"
	    "rows, run. What a daemon says before we are there, or faster than the network takes it, is not repeated: logs has it.",
	.example = "saltctl events switch --count 1 -c fleet.yaml",
	.options = options, .max_operands = CTL_ANY, .run = events,
};
