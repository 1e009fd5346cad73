/* SPDX-License-Identifier: Apache-2.0 */
/* events: prints the events that the daemons publish: steps, switches, joins, leases, losses, errors. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/output.h"
#include "saltctl/watch/follow.h"
#include "base/json/json.h"

#define TURN_MS 50
#define FLEET_MS 1000
#define ANSWER_MS 2000
#define AT_ONCE 1000			/* most events taken from one daemon per turn */

static const struct cli_option options[] = {
	CTL_CONFIG,
	{"endpoint", "TCP", "ask this status socket too for its events, such as tcp://127.0.0.1:5560; may be repeated", true},
	{"count", "N", "end after N events", false},
	{"json", NULL, "a JSON object for each event", false},
	CTL_END
};

struct source {
	STAILQ_ENTRY(source) next;
	struct bus_events *socket;		/* NULL after the daemon has left */
	char daemon[BUS_ENDPOINT_MAX], name[64], last_ts[32];	/* daemon: its status socket */
};

struct events {
	const struct ctl_args *args;
	struct fleet fleet;
	STAILQ_HEAD(, source) sources;
	struct follow out;
	uint64_t left;			/* events to print before the verb ends */
};

static bool
wanted(const struct events *e, const char *topic)
{
	for (size_t i = 0; i < e->args->n_operands; i++)
		if (strncmp(topic, e->args->operands[i], strlen(e->args->operands[i])) == 0)
			return true;
	return e->args->n_operands == 0;
}

/* Subscribes to each daemon whose answer names its events socket. */
static int
subscribe(struct events *e)
{
	const char *endpoint;
	struct source *s;
	int rc;

	for (size_t i = 0; i < e->fleet.n; i++) {
		struct fleet_daemon *d = &e->fleet.daemons[i];

		STAILQ_FOREACH(s, &e->sources, next)
			if (strcmp(s->daemon, d->endpoint) == 0)
				break;
		if (d->left && s != NULL)
			bus_events_destroy(&s->socket);
		if (!json_text(json_get(d->answer, "events_endpoint"), &endpoint) || (s != NULL && s->socket != NULL))
			continue;
		if (s == NULL) {
			s = ctl_alloc(1, sizeof(*s));
			STAILQ_INSERT_TAIL(&e->sources, s, next);
		}
		snprintf(s->daemon, sizeof(s->daemon), "%s", d->endpoint);
		snprintf(s->name, sizeof(s->name), "%s", d->name);
		fprintf(stderr, "saltctl events: listening to %s\n", s->name);
		if ((rc = bus_events_subscribe(&s->socket, e->fleet.bus, endpoint, fleet_key(d->role),
		    e->args->n_operands == 1 ? e->args->operands[0] : "", NULL)) != 0)
			return rc;
	}
	return 0;
}

static void
receive(struct events *e)
{
	static char text[1 << 16];
	char topic[256];
	struct source *s;

	STAILQ_FOREACH(s, &e->sources, next)
		for (int n = 0; e->left > 0 && s->socket != NULL && n < AT_ONCE; n++) {
			if (bus_events_recv(s->socket, topic, sizeof(topic), text, sizeof(text), 0) != 0)
				break;
			if (!wanted(e, topic))
				continue;
			e->left--;
			follow_add(&e->out, s->name, text, strlen(text), s->last_ts);
		}
	follow_print(&e->out);
}

static int
events(struct ctl_args *args)
{
	struct events e = {.args = args, .out.json = ctl_has(args, "json"), .left = UINT64_MAX,
	    .sources = STAILQ_HEAD_INITIALIZER(e.sources)};
	struct source *s;
	int exit_code, rc = 0;

	if ((exit_code = ctl_get_u64(args, "count", 1, UINT64_MAX, &e.left)) != 0 ||
	    (exit_code = fleet_open(&e.fleet, args,
	    "whose events? give -c fleet.yaml or --endpoint tcp://HOST:PORT")) != 0)
		goto out;
	while (rc == 0 && e.left > 0 && !stop_requested() && !ferror(stdout))
		if ((rc = fleet_turn(&e.fleet, FLEET_MS, ANSWER_MS, TURN_MS)) == 0 && (rc = subscribe(&e)) == 0)
			receive(&e);
	if (rc != 0)
		exit_code = ctl_fail(args, rc, NULL);
out:
	while ((s = STAILQ_FIRST(&e.sources)) != NULL) {
		STAILQ_REMOVE_HEAD(&e.sources, next);
		bus_events_destroy(&s->socket);
		free(s);
	}
	follow_clear(&e.out);
	fleet_close(&e.fleet);
	return exit_code;
}

const struct ctl_verb ctl_events = {
	.name = "events", .operands = "[TOPIC ...]", .summary = "a fleet's events as they happen",
	.about = "Subscribes to the events socket of every daemon, those that join later too, and prints what they\n"
	    "publish: every log line and every step. A TOPIC is the beginning of an event's name: step, eval,\n"
	    "switch, checkpoint, peer (daemons that join and leave), lease, rows, run. Events from before the\n"
	    "subscription, or more than the network takes, are lost; saltctl logs shows the log lines.",
	.example = "saltctl events switch --count 1 -c fleet.yaml",
	.options = options, .max_operands = CTL_ANY, .run = events,
};
