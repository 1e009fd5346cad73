/* What a running selectord does for us: it has the cache for itself, so `cache drop --write` asks it. */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/hello.h"

#define WELCOME_MS 10000		/* for the answer to HELLO */
#define AGAIN_MS 5000			/* a request without an answer is sent again: the same one, which is harmless */

struct ask {
	const struct ctl_args *args;
	const char *endpoint;
	struct bus_client *client;
	struct wire_message hello, request;
	bool welcomed, over;
	int64_t say_ms, give_up_ms;
	int exit_code;
	struct wire_dropped *out;
};

static void
send_message(struct ask *a, const struct wire_message *msg)
{
	struct err_note note = {.name = ""};
	uint8_t *frame;
	size_t len;
	int rc = wire_encode(msg, SIZE_MAX, &frame, &len, &note);

	if (rc == 0) {
		bus_client_send(a->client, frame, len);
		return;
	}
	a->exit_code = ctl_fail(a->args, rc, &note);
	a->over = true;
}

static void
answer_in(struct ask *a, const struct wire_message *msg)
{
	char text[2048];

	switch (msg->type) {
	case WIRE_WELCOME:
		a->welcomed = true;
		a->say_ms = 0;
		break;
	case WIRE_REFUSE:
		if (msg->refuse.retry_ms > 0) {
			a->say_ms = clock_now_ms() + msg->refuse.retry_ms;
			break;
		}
		fprintf(stderr, "saltctl %s: refused by selectord at %s: %s\n", a->args->verb->name, a->endpoint,
		    wire_refuse_str(&msg->refuse, text, sizeof(text)));
		a->exit_code = msg->refuse.code >= EX__BASE && msg->refuse.code <= EX__MAX ? msg->refuse.code : EX_UNAVAILABLE;
		a->over = true;
		break;
	case WIRE_PING:
		send_message(a, &(struct wire_message){.type = WIRE_PONG, .ping = msg->ping});
		break;
	case WIRE_DROPPED:
		if (msg->dropped.request_id != a->request.drop_labels.request_id)
			break;
		*a->out = msg->dropped;
		a->exit_code = 0;
		a->over = true;
		break;
	default:
		break;
	}
}

static void
receive(struct ask *a)
{
	struct bus_event event;

	while (!a->over && bus_client_recv(a->client, &event) == 0) {
		struct wire_message *msg = NULL;

		if (event.kind == BUS_EVENT_CONNECTED) {
			a->say_ms = 0;
		} else if (event.kind == BUS_EVENT_DISCONNECTED) {
			a->welcomed = false;
			a->say_ms = INT64_MAX;
			a->give_up_ms = clock_now_ms() + WELCOME_MS;
		} else if (event.kind == BUS_EVENT_REFUSED) {
			fprintf(stderr, "saltctl %s: selectord at %s does not take our key (client.key in security.curve_dir)\n", a->args->verb->name, a->endpoint);
			a->exit_code = EX_NOPERM;
			a->over = true;
		} else if (event.kind == BUS_EVENT_FRAME && wire_decode(event.frame, event.len, &msg, NULL) == 0) {
			answer_in(a, msg);
		}
		wire_message_destroy(&msg);
		bus_event_free(&event);
	}
}

int
cache_ask_drop(const struct ctl_args *args, const struct config *cfg, size_t shard, bool released_too, struct wire_dropped *out)
{
	struct ask a = {.args = args, .say_ms = INT64_MAX, .out = out, .request = {.type = WIRE_DROP_LABELS}};
	struct corpus *train = NULL, *heldout = NULL;
	struct err_note note = {.name = ""};
	struct bus_poll *poll = NULL;
	struct bus *bus = NULL;
	int rc;

	a.endpoint = cfg->selector.endpoints.item[shard];
	a.request.drop_labels = (struct wire_drop_labels){1 + shard, released_too};
	if ((a.exit_code = hello_make(args, cfg, &a.hello, &train, &heldout)) != 0)
		goto out;
	if ((rc = stop_install()) != 0 || (rc = fleet_bus(&bus, cfg, &note)) != 0) {
		a.exit_code = ctl_fail(args, rc, &note);
		goto out;
	}
	if ((poll = bus_poll_new(bus)) == NULL || (rc = bus_client_new(&a.client, bus, a.endpoint, NULL, &note)) != 0 ||
	    (rc = bus_poll_add_client(poll, a.client)) != 0) {
		a.exit_code = ctl_fail(args, poll == NULL ? errno : rc, &note);
		goto out;
	}
	a.exit_code = EX_UNAVAILABLE;
	a.give_up_ms = clock_now_ms() + WELCOME_MS;
	while (!a.over && !stop_requested()) {
		receive(&a);
		if (!a.over && !a.welcomed && clock_now_ms() >= a.give_up_ms) {
			fprintf(stderr, "saltctl %s: selectord at %s does not answer\n", args->verb->name, a.endpoint);
			break;
		}
		if (!a.over && bus_client_connected(a.client) && clock_now_ms() >= a.say_ms) {
			send_message(&a, a.welcomed ? &a.request : &a.hello);
			a.say_ms = clock_now_ms() + AGAIN_MS;
		}
		if (!a.over)
			bus_poll_wait(poll, 100);
	}
	if (a.welcomed)
		send_message(&a, &(struct wire_message){.type = WIRE_BYE, .bye = {.reason = "done"}});
	bus_poll_wait(poll, 0);
out:
	if (a.client != NULL) {
		bus_poll_remove(poll, a.client);
		bus_client_destroy(&a.client);
	}
	bus_poll_destroy(&poll);
	bus_destroy(&bus);
	corpus_destroy(&heldout);
	corpus_destroy(&train);
	return a.exit_code;
}
