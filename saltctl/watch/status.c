/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock/stop.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/fleet.h"
#include "saltctl/core/output.h"
#include "base/json/json.h"

static const struct cli_option options[] = {
	CTL_CONFIG,
	{"endpoint", "TCP", "ask this status socket too, such as tcp://127.0.0.1:5560; may be repeated", true},
	{"watch", "S", "repeat every S seconds until stopped", false},
	{"timeout", "S", "how long to wait for answers; default 2", false},
	CTL_JSON, CTL_END
};

static void
print_daemon(struct ctl_table *t, const struct fleet_daemon *d, bool gpus)
{
	const struct json *o = d->answer;
	char pid[24] = "?", step[48] = "-", rates[256], queues[256], gpu[128];
	const char *phase = ctl_text_of(o, "phase", ""), *error = ctl_text_of(o, "last_error", "");

	if (d->pid > 0)
		snprintf(pid, sizeof(pid), "%" PRId64, d->pid);
	ctl_table_add(t, "%s\t%s\t%s\t%s", d->role[0] != '\0' ? d->role : "?", d->name[0] != '\0' ? d->name :
	    d->endpoint, d->host[0] != '\0' ? d->host : "?", pid);
	if (o == NULL) {
		ctl_table_add(t, gpus ? "NO ANSWER\t-\t-\t-\t-\t-\t%s" : "NO ANSWER\t-\t-\t-\t-\t%s", fleet_why(d));
		return;
	}
	if (ctl_int_of(o, "steps_total", 0) > 0)
		snprintf(step, sizeof(step), "%" PRId64 " of %" PRId64, ctl_int_of(o, "step", 0),
		    ctl_int_of(o, "steps_total", 0));
	fleet_numbers(json_get(o, "rates"), true, rates, sizeof(rates));
	fleet_numbers(json_get(o, "queues"), false, queues, sizeof(queues));
	ctl_table_add(t, "%s\t%s\t%s\t%s\t%s", ctl_text_of(o, "state", ""), phase[0] != '\0' ? phase : "-", step,
	    rates, queues);
	fleet_gpu(o, gpu, sizeof(gpu));
	if (gpus)
		ctl_table_add(t, "%s", gpu[0] != '\0' ? gpu : "-");
	ctl_table_add(t, "%.100s", error[0] != '\0' ? error : "-");
}

static void
print_plans(const struct fleet *f)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct json *plans = json_get(f->daemons[i].answer, "plans");

		for (size_t p = 0; p < json_count(plans); p++) {
			const struct json *plan = json_item(plans, p);

			printf("%splan %.8s at %s: %" PRId64 " of %" PRId64 " rows ready, %" PRId64 " requested%s\n",
			    p == 0 ? "\n" : "", ctl_text_of(plan, "plan", ""), f->daemons[i].name,
			    ctl_int_of(plan, "rows_ready", 0), ctl_int_of(plan, "rows", 0),
			    ctl_int_of(plan, "rows_asked", 0),
			    ctl_flag_of(plan, "released") ? ", released" : "");
		}
	}
}

static void
print_fleet(const struct fleet *f)
{
	struct ctl_table *t;
	bool gpus = false;

	for (size_t i = 0; i < f->n; i++)
		gpus = gpus || ctl_text_of(f->daemons[i].answer, "gpu", "")[0] != '\0';
	t = ctl_table_new(gpus ? "role\tname\thost\t>pid\tstate\tphase\tstep\trates\tqueues\tGPU\tlast error" :
	    "role\tname\thost\t>pid\tstate\tphase\tstep\trates\tqueues\tlast error");
	for (size_t i = 0; i < f->n; i++)
		print_daemon(t, &f->daemons[i], gpus);
	ctl_table_end(&t);
	print_plans(f);
	if (fleet_n_silent(f) > 0)
		printf("\n%zu of %zu do not answer\n", fleet_n_silent(f), f->n);
}

static int
status(struct ctl_args *args)
{
	double watch = 0, timeout_s = 2;
	struct fleet f = {.n = 0};
	int exit_code;

	if ((exit_code = ctl_get_num(args, "watch", 0.1, 86400, &watch)) != 0 ||
	    (exit_code = ctl_get_num(args, "timeout", 0.01, 3600, &timeout_s)) != 0 ||
	    (exit_code = fleet_open(&f, args, "whose status? give -c fleet.yaml or --endpoint tcp://HOST:PORT")) != 0)
		goto out;
	do {
		if ((exit_code = fleet_look(&f, timeout_s)) == 0) {
			size_t silent = fleet_n_silent(&f);

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
	fleet_close(&f);
	return exit_code;
}

const struct ctl_verb ctl_status = {
	.name = "status", .operands = "", .summary = "every daemon of a fleet in one table",
	.about = "Finds daemons by run.dir/daemons and by the list that selectord keeps, and asks all at once. A\n"
	    "daemon that does not answer is shown as such, and the exit code is then 69.",
	.example = "saltctl status -c fleet.yaml --watch 2",
	.options = options, .run = status,
};
