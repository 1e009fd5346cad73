/* SPDX-License-Identifier: Apache-2.0 */
/*
 * label: opens the plan of a configuration at every shard of selectord, with all rows to be labelled now, and
 * waits until every row can be served. It needs no trainer; a trainer that starts later finds the labels.
 */
#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/json/json.h"
#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"
#include "saltctl/core/selector.h"

/*
 * Interval at which HELLO is sent to learn how many rows are ready. After LOOK_FIRST_S it is longer, because
 * each HELLO is a line in selectord's log.
 */
#define LOOK_FIRST_MS 1000
#define LOOK_FIRST_S 20
#define LOOK_MS 5000

static const struct cli_option options[] = {
	CTL_CONFIG,
	{"no-wait", NULL, "open the plan and return; selectord and the teachers continue", false},
	{"wait-max", "S", "give up after so many seconds (exit code 75); default: never", false},
	CTL_JSON, CTL_END
};

struct label {
	const struct ctl_args *args;
	struct config *cfg;
	struct selector selector;
	uint64_t rows;			/* of the plan */
};

/*
 * Receives messages. After each WELCOME another HELLO is sent some time later, to learn how many rows are
 * ready. Returns 0 or an exit code.
 */
static int
receive(struct label *l, double elapsed_s)
{
	struct session_event event = {0};
	int exit_code = 0;

	while (exit_code == 0 && session_next(l->selector.session, &event) == 0) {
		exit_code = selector_failed(&l->selector, &event);
		if (event.kind == SESSION_WELCOME)
			session_hello(l->selector.session, event.shard, elapsed_s < LOOK_FIRST_S ?
			    LOOK_FIRST_MS : LOOK_MS);
	}
	session_event_free(&event);
	return exit_code;
}

/* Number of rows from row 0, without a gap, that all shards have; *released: a shard released the plan. */
static uint64_t
rows_ready(const struct label *l, bool *released)
{
	uint64_t rows = l->rows;

	*released = false;
	for (size_t i = 0; i < session_n_shards(l->selector.session); i++) {
		const struct wire_welcome *w = session_welcome(l->selector.session, i);

		*released = *released || (w != NULL && w->released);
		if (w == NULL || w->rows_ready < rows)
			rows = w == NULL ? 0 : w->rows_ready;
	}
	return rows;
}

static void
print_waiting(const struct session *session)
{
	fprintf(stderr, "saltctl label: waiting for selectord at");
	for (size_t i = 0; i < session_n_shards(session); i++)
		if (!session_welcomed(session, i))
			fprintf(stderr, " %s", session_endpoint(session, i));
	fputc('\n', stderr);
}

static int
finish(const struct label *l, uint64_t ready, double seconds, const char *verdict)
{
	char buf[32];

	if (ctl_has(l->args, "json"))
		return ctl_print_json(json_build("{s:s, s:I, s:I, s:f}", "verdict", verdict, "rows",
		    (int64_t)l->rows, "rows_ready", (int64_t)ready, "seconds", seconds));
	printf("%" PRIu64 " of %" PRIu64 " rows ready after %s: %s\n", ready, l->rows, ctl_span(seconds, buf),
	    verdict);
	return 0;
}

static int
watch(struct label *l, double wait_max_s)
{
	struct session *session = l->selector.session;
	double start = clock_now_s(), elapsed = 0, said = 0;
	bool no_wait = ctl_has(l->args, "no-wait"), welcomed = false, released = false;
	struct ctl_meter meter;
	uint64_t ready = 0;
	int exit_code = 0;

	ctl_meter_start(&meter, "label", "rows", (double)l->rows);
	while ((exit_code = receive(l, elapsed)) == 0 && !stop_requested()) {
		elapsed = clock_now_s() - start;
		ready = rows_ready(l, &released);
		welcomed = session_n_welcomed(session) == session_n_shards(session);
		if ((welcomed && (ready == l->rows || released || no_wait)) ||
		    (wait_max_s > 0 && elapsed > wait_max_s))
			break;
		if (!welcomed && elapsed - said > 10) {
			said = elapsed;
			print_waiting(session);
		}
		ctl_meter_update(&meter, (double)ready);
		bus_poll_wait(l->selector.poll, 200);
	}
	ctl_meter_end(&meter);
	if (exit_code != 0)
		return exit_code;
	session_bye(session, ready == l->rows ? "all rows are there" : "stopped watching");
	if (welcomed && ready == l->rows)
		return finish(l, ready, elapsed, "done");
	if (welcomed && released) {
		finish(l, ready, elapsed, "no more labels are made, because the plan was released");
		fprintf(stderr, "saltctl label: %s: expected a plan in phase one, found one that was released after its switch. "
		    "Another try ends the same way. If its trainer needs more rows, for instance because phase_one.steps was "
		    "increased, start it: it opens the plan again\n", ctl_get(l->args, "config"));
		return EX_CONFIG;
	}
	if (welcomed && no_wait)
		return finish(l, ready, elapsed, "the plan is open");
	finish(l, ready, elapsed, welcomed ? "not done; the plan stays open" : "no answer from selectord");
	return welcomed ? EX_TEMPFAIL : EX_UNAVAILABLE;
}

static int
label(struct ctl_args *args)
{
	struct label l = {.args = args};
	double wait_max_s = 0, margin;
	int exit_code;

	if ((exit_code = ctl_get_num(args, "wait-max", 0.1, 1e9, &wait_max_s)) != 0 ||
	    (exit_code = ctl_open_config(args, CONFIG_NEED_CORPUS | CONFIG_NEED_BATCH, &l.cfg)) != 0)
		return exit_code;
	l.rows = (config_until_margin(l.cfg, &margin) ? l.cfg->trainer.steps :
	    l.cfg->phase_one.steps) * l.cfg->trainer.batch;
	if (!config_phase_one(l.cfg)) {
		fprintf(stderr, "saltctl label: %s: nothing to label without a phase one (phase_one.steps, "
		    "phase_one.until_margin)\n", ctl_get(args, "config"));
		exit_code = EX_CONFIG;
	} else if ((exit_code = selector_open(&l.selector, args, l.cfg, 0, l.cfg->selector.endpoints.n,
	    l.rows)) == 0) {
		exit_code = watch(&l, wait_max_s);
	}
	selector_close(&l.selector);
	config_destroy(&l.cfg);
	return exit_code;
}

const struct ctl_verb ctl_label = {
	.name = "label", .operands = "", .summary = "have all labels of a plan made, without a trainer",
	.about = "Opens the plan of fleet.yaml at selectord (which must be up, with teachers) and waits until every\n"
	    "row of phase one can be served. Stopping it does not stop the daemons. A trainer with the same\n"
	    "configuration finds the labels there. Exit code 75: not done yet; 78: never, the plan was released.",
	.example = "saltctl label -c fleet.yaml",
	.options = options, .run = label,
};
