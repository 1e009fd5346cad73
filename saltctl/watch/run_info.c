/* SPDX-License-Identifier: Apache-2.0 */
/*
 * saltctl run info - prints step and phase of a run's newest complete checkpoint. The scripts in deploy/ use
 * it to decide which daemons to start.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/checkpoint/checkpoint.h"
#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"

static const struct cli_option options[] = {CTL_CONFIG, CTL_JSON, CTL_END};

/* Steps done, and whether trainerd would continue in phase one from this checkpoint. */
static int
read_state(const char *path, const struct config *cfg, int64_t *step, bool *one, struct err_note *note)
{
	struct checkpoint *c = NULL;
	int64_t switched;
	bool until_margin = config_until_margin(cfg, NULL), by_steps;
	int rc = checkpoint_open(&c, path, CHECKPOINT_SIZES, note);

	if (rc != 0)
		return rc;
	*step = ctl_int_of(checkpoint_state(c), "step", 0);
	switched = ctl_int_of(checkpoint_state(c), "switch_step", INT64_MAX);	/* null: not decided */
	by_steps = strcmp(ctl_text_of(checkpoint_state(c), "switch_by", ""), "steps") == 0;
	*one = config_phase_one(cfg) && *step < (int64_t)cfg->trainer.steps && switched >= *step;
	/* A switch at exactly this step has not been made yet, and changed options may move it. */
	if (until_margin ? switched == *step && !by_steps : (int64_t)cfg->phase_one.steps <= *step)
		*one = false;
	checkpoint_close(&c);
	return 0;
}

static int
run_info(struct ctl_args *args)
{
	struct checkpoint_info newest = {.path = ""};
	struct err_note note = {.name = ""};
	struct config *cfg = NULL;
	char root[4200], optimizer[32];
	int64_t step = 0;
	bool one;
	int exit_code, rc;

	if ((exit_code = ctl_open_config(args, CONFIG_NEED_RUN, &cfg)) != 0)
		return exit_code;
	one = config_phase_one(cfg);
	if (config_get_text(cfg, "trainer.optimizer", optimizer, sizeof(optimizer)) != 0)
		optimizer[0] = '\0';
	snprintf(root, sizeof(root), "%s/checkpoints", cfg->run.dir);
	/*
	 * The hashes are verified only if the result is not phase one: if the newest checkpoint is damaged,
	 * trainerd continues from an older one, which may be in phase one and need teachers.
	 */
	if ((rc = checkpoint_find_latest(root, CHECKPOINT_SIZES, &newest, &note)) == 0)
		rc = read_state(newest.path, cfg, &step, &one, &note);
	if (rc == 0 && !one && config_phase_one(cfg) && (rc = checkpoint_find_latest(root, CHECKPOINT_HASHES, &newest, &note)) == 0)
		rc = read_state(newest.path, cfg, &step, &one, &note);
	if (rc != 0 && rc != ERR_NOT_FOUND) {
		exit_code = ctl_fail(args, rc, &note);
	} else if (ctl_has(args, "json")) {
		exit_code = ctl_print_json(ctl_record(CTL("run", (const char *)cfg->run.dir), CTL("mode", config_mode_name(cfg)),
		    CTL("optimizer", optimizer), CTL("checkpoint", newest.path[0] != '\0' ? (const char *)newest.path : NULL), CTL("step", step),
		    CTL("steps", (int64_t)cfg->trainer.steps), CTL("phase", one ? "one" : "two")));
	} else {
		ctl_line("run", "%s (%s)", cfg->run.dir, config_mode_name(cfg));
		ctl_line("optimizer", "%s", optimizer);
		ctl_line("newest checkpoint", "%s", newest.path[0] != '\0' ? newest.path : "none");
		ctl_line("step", "%" PRId64 " of %" PRIu64, step, cfg->trainer.steps);
		ctl_line("phase", "%s", one ? "one" : "two");
	}
	config_destroy(&cfg);
	return exit_code;
}

const struct ctl_verb ctl_run_info = {
	.name = "run info", .operands = "", .summary = "progress of a run: newest complete checkpoint, step, phase",
	.about = "Reads run.dir/checkpoints, not the daemons; damaged checkpoints are skipped with a warning. The phase\n"
	    "is that of the step with which trainerd would continue: phase two needs no selectord and no teacher.",
	.example = "saltctl run info -c fleet.yaml",
	.options = options, .run = run_info,
};
