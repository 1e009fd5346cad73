/* ledger: what a run has cost, as far as its files say. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "ctl/ctl.h"
#include "ctl/output.h"
#include "ctl/report.h"
#include "json/json.h"
#include "model/model.h"
#include "weights/weights.h"

static const struct ctl_option options[] = {
	{"run", "DIR", "a run's directory; may be repeated (required)", true},
	CTL_JSON, CTL_END
};

struct cost {
	double tokens, flops, rate;		/* NaN: not known */
};

static struct cost
cost_of(const struct report_run *run)
{
	struct cost c = {NAN, NAN, NAN};
	struct model_config cfg;

	if (run->batch == 0)
		return c;
	c.tokens = (double)run->last_step * (double)run->batch * (double)run->context;
	if (run->model[0] == '\0' || weights_config_load(run->model, &cfg, NULL) != 0)
		return c;
	c.flops = c.tokens * model_flops_per_token(&cfg, (int64_t)run->context);
	c.rate = run->seconds > 0 ? c.flops / run->seconds : NAN;
	return c;
}

static void
cell(struct ctl_table *t, double v, const char *(*print)(double, char *))
{
	char buf[32];

	ctl_table_cell(t, "%s", isfinite(v) ? print(v, buf) : "-");
}

static int
ledger(struct ctl_args *args)
{
	static const char *const titles[] = {"run", "mode", ">steps", ">tokens", ">FLOPs", ">trained", ">FLOP/s", ">waited", ">label bytes"};
	struct json *all = ctl_has(args, "json") ? ctl_array() : NULL, *o;
	struct ctl_table *t = ctl_table_new(titles, 9);
	struct err_note note = {.name = ""};
	struct report_run run;
	const char *dir;
	int exit_code = ctl_need(args, "run") == NULL ? EX_USAGE : 0, rc;

	for (size_t i = 0; exit_code == 0 && (dir = ctl_get_nth(args, "run", i)) != NULL; i++) {
		struct cost c;

		if ((rc = report_read(&run, dir, &note)) != 0) {
			exit_code = ctl_fail(args, rc, &note);
			break;
		}
		c = cost_of(&run);
		if (all != NULL) {
			o = ctl_object();
			ctl_put_text(o, "run", dir);
			ctl_put_text(o, "mode", run.mode);
			ctl_put_int(o, "steps", (int64_t)run.last_step);
			ctl_put_num(o, "tokens", c.tokens);
			ctl_put_num(o, "flops", c.flops);
			ctl_put_num(o, "train_seconds", run.seconds);
			ctl_put_num(o, "flops_per_second", c.rate);
			ctl_put_num(o, "wait_seconds", run.wait_seconds);
			ctl_put_num(o, "labelled_tokens", run.kd_tokens);
			ctl_put_num(o, "label_bytes", run.label_bytes);
			ctl_push(all, o);
		} else {
			ctl_table_cell(t, "%s", dir);
			ctl_table_cell(t, "%s", run.mode);
			ctl_table_cell(t, "%" PRIu64, run.last_step);
			cell(t, c.tokens, ctl_count);
			cell(t, c.flops, ctl_count);
			cell(t, run.seconds, ctl_span);
			cell(t, c.rate, ctl_count);
			cell(t, run.wait_seconds, ctl_span);
			cell(t, run.label_bytes, ctl_bytes);
		}
		report_run_free(&run);
	}
	if (exit_code == 0 && all != NULL) {
		ctl_table_free(&t);
		return ctl_print_json(all);
	}
	if (exit_code == 0)
		ctl_table_print(t, stdout);
	ctl_table_free(&t);
	json_close(&all);
	return exit_code;
}

const struct ctl_verb ctl_ledger = {
	.name = "ledger", .operands = "", .summary = "what runs have cost: tokens, FLOPs, seconds, label bytes",
	.about = "Read from metrics.jsonl and fleet.yaml. FLOPs are the model's (forward and backward), as `model info` counts them; what teachers\n"
	    "computed is not in them. \"-\": not known.",
	.example = "saltctl ledger --run run/baseline --run run/salt",
	.options = options, .run = ledger,
};
