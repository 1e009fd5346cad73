#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock/stop.h"
#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"

static const struct ctl_option options[] = {
	CTL_CONFIG,
	{"endpoint", "TCP", "ask this status socket too, such as tcp://127.0.0.1:5560; may be repeated", true},
	{"watch", "S", "again every S seconds, until stopped", false},
	{"timeout", "S", "wait so long for answers; 2 unless told", false},
	CTL_JSON, CTL_END
};

static const char *
text(const struct json *o, const char *key)
{
	const char *s;

	return json_text(json_get(o, key), &s) ? s : "";
}

static void
print_daemon(struct ctl_table *t, const struct fleet_daemon *d)
{
	int64_t step = 0, steps = 0;
	char buf[256];

	ctl_table_cell(t, "%s", d->role[0] != '\0' ? d->role : "?");
	ctl_table_cell(t, "%s", d->name[0] != '\0' ? d->name : d->endpoint);
	ctl_table_cell(t, "%s", d->host[0] != '\0' ? d->host : "?");
	ctl_table_cell(t, d->pid > 0 ? "%" PRId64 : "?", d->pid);
	if (d->answer == NULL) {
		ctl_table_cell(t, "NO ANSWER");
		for (int i = 0; i < 4; i++)
			ctl_table_cell(t, "-");
		ctl_table_cell(t, "%s", fleet_why(d));
		return;
	}
	ctl_table_cell(t, "%s", text(d->answer, "state"));
	ctl_table_cell(t, "%s", text(d->answer, "phase")[0] != '\0' ? text(d->answer, "phase") : "-");
	json_int(json_get(d->answer, "step"), &step);
	json_int(json_get(d->answer, "steps_total"), &steps);
	if (steps > 0)
		ctl_table_cell(t, "%" PRId64 " of %" PRId64, step, steps);
	else
		ctl_table_cell(t, "-");
	fleet_numbers(json_get(d->answer, "rates"), true, buf, sizeof(buf));
	ctl_table_cell(t, "%s", buf);
	fleet_numbers(json_get(d->answer, "queues"), false, buf, sizeof(buf));
	ctl_table_cell(t, "%s", buf);
	ctl_table_cell(t, "%.100s", text(d->answer, "last_error")[0] != '\0' ? text(d->answer, "last_error") : "-");
}

static void
print_plans(const struct fleet *f)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct json *plans = json_get(f->daemons[i].answer, "plans");

		for (size_t p = 0; p < json_count(plans); p++) {
			const struct json *plan = json_item(plans, p);
			int64_t rows = 0, ready = 0, asked = 0;
			bool released = false;

			json_int(json_get(plan, "rows"), &rows);
			json_int(json_get(plan, "rows_ready"), &ready);
			json_int(json_get(plan, "rows_asked"), &asked);
			json_flag(json_get(plan, "released"), &released);
			printf("%splan %.8s at %s: %" PRId64 " of %" PRId64 " rows ready, %" PRId64 " asked for%s\n", p == 0 ? "\n" : "",
			    text(plan, "plan"), f->daemons[i].name, ready, rows, asked, released ? ", released" : "");
		}
	}
}

static size_t
n_silent(const struct fleet *f)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n; i++)
		n += f->daemons[i].answer == NULL;
	return n;
}

static void
print_fleet(const struct fleet *f)
{
	static const char *const titles[] = {"role", "name", "host", ">pid", "state", "phase", "step", "rates", "queues", "last error"};
	struct ctl_table *t = ctl_table_new(titles, 10);

	for (size_t i = 0; i < f->n; i++)
		print_daemon(t, &f->daemons[i]);
	ctl_table_print(t, stdout);
	ctl_table_free(&t);
	print_plans(f);
	if (n_silent(f) > 0)
		printf("\n%zu of %zu do not answer\n", n_silent(f), f->n);
}

static int
gather(const struct ctl_args *args, const struct config *cfg, struct bus *bus, double timeout_s, struct fleet *f)
{
	struct err_note note = {.name = ""};
	const char *endpoint;
	int rc = 0;

	if (cfg != NULL && (rc = fleet_find(f, cfg->run.dir)) != 0)
		err_note_set(&note, rc, "%s/daemons", cfg->run.dir);
	for (size_t i = 0; rc == 0 && (endpoint = ctl_get_nth(args, "endpoint", i)) != NULL; i++)
		rc = fleet_add(f, "", "", "", 0, endpoint);
	if (rc == 0 && f->n == 0) {
		fprintf(stderr, "saltctl status: no daemon is announced in %s/daemons; is the fleet up?\n", cfg->run.dir);
		return EX_UNAVAILABLE;
	}
	if (rc == 0 && (rc = fleet_ask(f, bus, (int64_t)(timeout_s * 1000))) != 0)
		err_note_set(&note, rc, "status sockets");
	return rc != 0 ? ctl_fail(args, rc, &note) : 0;
}

static int
status(struct ctl_args *args)
{
	double watch = 0, timeout_s = 2;
	struct err_note note = {.name = ""};
	struct config *cfg = NULL;
	struct bus *bus = NULL;
	int exit_code, rc;

	if (!ctl_has(args, "config") && !ctl_has(args, "endpoint"))
		return ctl_usage(args, "whose status? give -c fleet.yaml or --endpoint tcp://HOST:PORT");
	if ((exit_code = ctl_get_num(args, "watch", 0.1, 86400, &watch)) != 0 ||
	    (exit_code = ctl_get_num(args, "timeout", 0.01, 3600, &timeout_s)) != 0 ||
	    (ctl_has(args, "config") && (exit_code = ctl_open_config(args, CONFIG_NEED_RUN, &cfg)) != 0))
		return exit_code;
	if ((rc = stop_install()) != 0 || (rc = fleet_bus(&bus, cfg, &note)) != 0) {
		exit_code = ctl_fail(args, rc, &note);
		goto out;
	}
	do {
		struct fleet f = {.n = 0};

		if ((exit_code = gather(args, cfg, bus, timeout_s, &f)) == 0) {
			size_t silent = n_silent(&f);

			if (watch > 0 && isatty(STDOUT_FILENO))
				printf("\033[H\033[2J");
			if (ctl_has(args, "json"))
				exit_code = ctl_print_json(fleet_json(&f));
			else
				print_fleet(&f);
			if (exit_code == 0 && silent > 0)
				exit_code = EX_UNAVAILABLE;
		}
		fleet_clear(&f);
		if (ctl_flush(exit_code) == EX_IOERR || stop_requested())
			break;
		if (watch > 0)
			stop_sleep_ms((int64_t)(watch * 1000));
	} while (watch > 0 && !stop_requested());
out:
	bus_destroy(&bus);
	config_destroy(&cfg);
	return exit_code;
}

const struct ctl_verb ctl_status = {
	.name = "status", .operands = "", .summary = "every daemon of a fleet in one table",
	.about = "Finds daemons by run.dir/daemons and by the list that selectord keeps, and asks all at once. Who does not answer is shown too,\n"
	    "and the exit code is then 69.",
	.example = "saltctl status -c fleet.yaml --watch 2",
	.options = options, .run = status,
};
