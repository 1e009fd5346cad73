/*
 * label: opens the plan of a configuration at every shard of selectord, to be labelled as a whole, and watches until it is. No trainer is
 * needed: what one would ask for later is then there.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "data/corpus/corpus.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/hello.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"
#include "fabric/wire/wire.h"

#define ANSWER_MS 10000			/* a HELLO without an answer is said again */
#define LOOK_FIRST_MS 1000		/* HELLO again to learn how far it is: at first so often, ... */
#define LOOK_MS 5000			/* ... later so often, since each is a line in selectord's log */
#define LOOK_FIRST 20

static const struct ctl_option options[] = {
	CTL_CONFIG,
	{"no-wait", NULL, "open the plan and leave; selectord and the teachers go on", false},
	{"wait-max", "S", "give up after so many seconds (75); for ever unless told", false},
	CTL_JSON, CTL_END
};

struct link {
	struct bus_client *client;
	const char *endpoint;
	bool welcomed, released;
	uint64_t rows_ready;
	int64_t say_ms;			/* HELLO is due then */
	unsigned n_said;
};

struct label {
	const struct ctl_args *args;
	struct config *cfg;
	struct corpus *train, *heldout;
	struct wire_message hello;
	struct bus *bus;
	struct bus_poll *poll;
	struct link *links;
	size_t n_links;
	int exit_code;			/* of a refusal; 0: none */
	bool over;
};

/* The same plan as the trainer of this configuration states. */
static struct wire_plan
plan_of(const struct config *cfg)
{
	bool salt_ds = cfg->selector.mode == CONFIG_MODE_SALT_DS;
	double margin;
	uint64_t steps = config_until_margin(cfg, &margin) ? cfg->trainer.steps : cfg->phase_one.steps;

	return (struct wire_plan){.present = true, .seed = cfg->run.seed, .batch = cfg->trainer.batch,
	    .mode = salt_ds ? WIRE_MODE_SALT_DS : WIRE_MODE_NONE, .k = salt_ds ? cfg->selector.k : 0, .window = cfg->selector.block,
	    .keep = salt_ds ? cfg->selector.keep_share : 0, .pool = cfg->selector.pool, .n_rows = steps * cfg->trainer.batch,
	    .label_ahead_rows = UINT64_MAX};
}

static int
label_open(struct label *l, struct err_note *note)
{
	int exit_code, rc;

	if ((rc = stop_install()) != 0 || (rc = fleet_bus(&l->bus, l->cfg, note)) != 0)
		return ctl_fail(l->args, rc, note);
	if ((exit_code = hello_make(l->args, l->cfg, &l->hello, &l->train, &l->heldout)) != 0)
		return exit_code;
	l->hello.hello.plan = plan_of(l->cfg);
	if ((l->poll = bus_poll_new(l->bus)) == NULL)
		return ctl_fail(l->args, errno, NULL);
	l->n_links = l->cfg->selector.endpoints.n;
	if ((l->links = calloc(l->n_links + 1, sizeof(*l->links))) == NULL)
		return ctl_fail(l->args, ENOMEM, NULL);
	for (size_t i = 0; i < l->n_links; i++) {
		l->links[i].endpoint = l->cfg->selector.endpoints.item[i];
		l->links[i].say_ms = INT64_MAX;
		if ((rc = bus_client_new(&l->links[i].client, l->bus, l->links[i].endpoint, NULL, note)) != 0 ||
		    (rc = bus_poll_add_client(l->poll, l->links[i].client)) != 0)
			return ctl_fail(l->args, rc, note);
	}
	return 0;
}

static void
send_message(struct label *l, struct link *link, const struct wire_message *msg)
{
	struct err_note note = {.name = ""};
	uint8_t *frame;
	size_t len;
	int rc = wire_encode(msg, SIZE_MAX, &frame, &len, &note);

	if (rc == 0) {
		bus_client_send(link->client, frame, len);
		return;
	}
	l->exit_code = ctl_fail(l->args, rc, &note);
	l->over = true;
}

static void
refused(struct label *l, struct link *link, const struct wire_refuse *r)
{
	char text[2048];

	if (r->retry_ms > 0) {
		link->say_ms = clock_now_ms() + r->retry_ms;
		return;
	}
	fprintf(stderr, "saltctl label: refused by selectord at %s: %s\n", link->endpoint, wire_refuse_str(r, text, sizeof(text)));
	l->exit_code = r->code >= EX__BASE && r->code <= EX__MAX ? r->code : EX_UNAVAILABLE;
	l->over = true;
}

static void
receive(struct label *l, struct link *link)
{
	struct bus_event event;

	while (bus_client_recv(link->client, &event) == 0) {
		struct wire_message *msg = NULL;

		if (event.kind == BUS_EVENT_CONNECTED) {
			link->say_ms = 0;
		} else if (event.kind == BUS_EVENT_DISCONNECTED) {
			link->welcomed = false;
			link->say_ms = INT64_MAX;
		} else if (event.kind == BUS_EVENT_REFUSED) {
			fprintf(stderr, "saltctl label: selectord at %s does not take our key (client.key in security.curve_dir)\n", link->endpoint);
			l->exit_code = EX_NOPERM;
			l->over = true;
		} else if (event.kind == BUS_EVENT_FRAME && wire_decode(event.frame, event.len, &msg, NULL) == 0) {
			if (msg->type == WIRE_WELCOME) {
				link->welcomed = true;
				link->released = msg->welcome.released;
				link->rows_ready = msg->welcome.rows_ready;
				link->say_ms = clock_now_ms() + (link->n_said < LOOK_FIRST ? LOOK_FIRST_MS : LOOK_MS);
			} else if (msg->type == WIRE_REFUSE) {
				refused(l, link, &msg->refuse);
			} else if (msg->type == WIRE_PING) {
				struct wire_message pong = {.type = WIRE_PONG, .ping = msg->ping};

				send_message(l, link, &pong);
			}
		}
		wire_message_destroy(&msg);
		bus_event_free(&event);
	}
}

static void
turn(struct label *l)
{
	for (size_t i = 0; i < l->n_links && !l->over; i++) {
		struct link *link = &l->links[i];

		receive(l, link);
		if (!l->over && bus_client_connected(link->client) && clock_now_ms() >= link->say_ms) {
			send_message(l, link, &l->hello);
			link->say_ms = clock_now_ms() + ANSWER_MS;
			link->n_said++;
		}
	}
}

/* Rows that all shards have, from row 0 without a gap. */
static uint64_t
rows_ready(const struct label *l, bool *all_welcomed)
{
	uint64_t rows = l->hello.hello.plan.n_rows;

	*all_welcomed = true;
	for (size_t i = 0; i < l->n_links; i++) {
		*all_welcomed = *all_welcomed && l->links[i].welcomed;
		if (l->links[i].rows_ready < rows)
			rows = l->links[i].rows_ready;
	}
	return rows;
}

static bool
released(const struct label *l)
{
	for (size_t i = 0; i < l->n_links; i++)
		if (l->links[i].released)
			return true;
	return false;
}

static int
finish(const struct label *l, uint64_t ready, double seconds, const char *verdict)
{
	uint64_t rows = l->hello.hello.plan.n_rows;
	struct json *o;
	char buf[32];

	if (ctl_has(l->args, "json")) {
		o = ctl_object();
		ctl_put_text(o, "verdict", verdict);
		ctl_put_int(o, "rows", (int64_t)rows);
		ctl_put_int(o, "rows_ready", (int64_t)ready);
		ctl_put_num(o, "seconds", seconds);
		return ctl_print_json(o);
	}
	printf("%" PRIu64 " of %" PRIu64 " rows ready after %s: %s\n", ready, rows, ctl_span(seconds, buf), verdict);
	return 0;
}

static int
watch(struct label *l, double wait_max_s)
{
	uint64_t rows = l->hello.hello.plan.n_rows, ready = 0;
	double start = ctl_seconds(), last_said = start;
	struct ctl_meter meter;
	bool welcomed = false;

	ctl_meter_start(&meter, "label", "rows", (double)rows);
	while (!l->over && !stop_requested()) {
		turn(l);
		ready = rows_ready(l, &welcomed);
		if (welcomed && (ready == rows || released(l) || ctl_has(l->args, "no-wait")))
			break;
		if (wait_max_s > 0 && ctl_seconds() - start > wait_max_s)
			break;
		if (!welcomed && ctl_seconds() - last_said > 10) {
			last_said = ctl_seconds();
			fprintf(stderr, "saltctl label: waiting for selectord at");
			for (size_t i = 0; i < l->n_links; i++)
				if (!l->links[i].welcomed)
					fprintf(stderr, " %s", l->links[i].endpoint);
			fputc('\n', stderr);
		}
		ctl_meter_update(&meter, (double)ready);
		bus_poll_wait(l->poll, 200);
	}
	ctl_meter_end(&meter);
	if (l->over)
		return l->exit_code;
	for (size_t i = 0; i < l->n_links; i++) {
		struct wire_message bye = {.type = WIRE_BYE};

		snprintf(bye.bye.reason, sizeof(bye.bye.reason), "%s", ready == rows ? "all rows are there" : "stopped watching");
		if (l->links[i].welcomed)
			send_message(l, &l->links[i], &bye);
	}
	bus_poll_wait(l->poll, 0);
	if (welcomed && ready == rows)
		return finish(l, ready, ctl_seconds() - start, "done");
	if (welcomed && released(l)) {
		finish(l, ready, ctl_seconds() - start, "the plan was released before: no new labels are made for it");
		return EX_TEMPFAIL;
	}
	if (welcomed && ctl_has(l->args, "no-wait"))
		return finish(l, ready, ctl_seconds() - start, "the plan is open");
	finish(l, ready, ctl_seconds() - start, welcomed ? "not done; the plan stays open" : "selectord did not answer");
	return welcomed ? EX_TEMPFAIL : EX_UNAVAILABLE;
}

static int
label(struct ctl_args *args)
{
	struct label l = {.args = args};
	struct err_note note = {.name = ""};
	double wait_max_s = 0;
	int exit_code;

	if ((exit_code = ctl_get_num(args, "wait-max", 0.1, 1e9, &wait_max_s)) != 0 ||
	    (exit_code = ctl_open_config(args, CONFIG_NEED_CORPUS | CONFIG_NEED_BATCH, &l.cfg)) != 0)
		return exit_code;
	if (!config_phase_one(l.cfg)) {
		fprintf(stderr, "saltctl label: %s: there is no phase one, so there is nothing to label (phase_one.steps, phase_one.until_margin)\n",
		    ctl_get(args, "config"));
		exit_code = EX_CONFIG;
	} else if ((exit_code = label_open(&l, &note)) == 0) {
		exit_code = watch(&l, wait_max_s);
	}
	for (size_t i = 0; l.links != NULL && i < l.n_links; i++)
		if (l.links[i].client != NULL) {
			bus_poll_remove(l.poll, l.links[i].client);
			bus_client_destroy(&l.links[i].client);
		}
	free(l.links);
	bus_poll_destroy(&l.poll);
	bus_destroy(&l.bus);
	corpus_destroy(&l.heldout);
	corpus_destroy(&l.train);
	config_destroy(&l.cfg);
	return exit_code;
}

const struct ctl_verb ctl_label = {
	.name = "label", .operands = "", .summary = "have all labels of a plan made, without a trainer",
	.about = "Opens the plan of fleet.yaml at selectord (which must be up, with teachers) and waits until every row of phase one can be served.\n"
	    "Stopping it stops nobody else. A trainer with the same configuration finds the labels there.",
	.example = "saltctl label -c fleet.yaml",
	.options = options, .run = label,
};
