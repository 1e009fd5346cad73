/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>

#include "fabric/config/config.h"
#include "saltctl/core/ctl.h"
#include "saltctl/core/output.h"

static const struct cli_option options[] = {
	CTL_CONFIG,
	{"quiet", NULL, "print only one line with the result", false},
	{"get", "KEY", "print one resolved value, such as trainer.steps; may be repeated", true},
	CTL_END
};

static int
get_values(const struct ctl_args *args, const struct config *cfg)
{
	char value[4096];
	const char *key;

	for (size_t i = 0; (key = ctl_get_nth(args, "get", i)) != NULL; i++) {
		if (config_get_text(cfg, key, value, sizeof(value)) != 0)
			return ctl_usage(args, "--get: there is no option \"%s\"; docs/config.md lists them", key);
		printf("%s\n", value);
	}
	return 0;
}

/* Prints what the settings amount to: mode, tokens, rows, selection and labels. */
static void
amounts(const struct config *cfg)
{
	const struct config_trainer *t = &cfg->trainer;
	uint64_t block, kept;
	double margin;
	char buf[32];

	printf("# amounts to: %s\n", config_mode_name(cfg));
	if (t->batch > 0 && t->steps > 0 && cfg->corpus.context > 0)
		printf("# %" PRIu64 " steps of %u x %u = %" PRIu64 " tokens: %s tokens\n", t->steps, t->batch,
		    cfg->corpus.context, (uint64_t)t->batch * cfg->corpus.context,
		    ctl_count((double)t->steps * t->batch * cfg->corpus.context, buf));
	if (!config_phase_one(cfg)) {
		printf("# no phase one: no teacher, no selectord\n");
		return;
	}
	config_block(cfg, &block, &kept);
	if (config_until_margin(cfg, &margin))
		printf("# phase one until the held-out loss is within %g nats of the teacher's\n", margin);
	else
		printf("# phase one: steps 0 to %" PRIu64 ", rows 0 to %" PRIu64 "\n", cfg->phase_one.steps - 1,
		    cfg->phase_one.steps * t->batch - 1);
	printf("# selection: %" PRIu64 " of each %" PRIu64 " sequences\n", kept, block);
	if (cfg->labels.kind == LABELS_KIND_DENSE)
		printf("# labels: dense\n");
	else
		printf("# labels: %s, %u a token\n", config_word("labels.kind", cfg->labels.kind),
		    cfg->labels.kind == LABELS_KIND_SAMPLED ? cfg->labels.samples : cfg->labels.k);
}

static int
config_check(struct ctl_args *args)
{
	struct config *cfg = NULL;
	int exit_code = ctl_open_config(args, 0, &cfg);

	if (exit_code != 0)
		return exit_code;
	if (ctl_has(args, "get")) {
		exit_code = get_values(args, cfg);
	} else if (ctl_has(args, "quiet")) {
		config_print_renamed(cfg, stderr, "saltctl");
		printf("%s: good, amounts to %s\n", ctl_get(args, "config"), config_mode_name(cfg));
	} else {
		config_print_renamed(cfg, stderr, "saltctl");
		if (config_print(cfg, stdout, true) != 0)
			exit_code = EX_IOERR;
		amounts(cfg);
	}
	config_destroy(&cfg);
	return exit_code;
}

const struct ctl_verb ctl_config_check = {
	.name = "config check", .operands = "", .summary = "read fleet.yaml, print every option and where it came from",
	.about = "Reads the file and the overrides as every daemon does, checks them, and prints every option and the\n"
	    "kind of run. Files that the options name are not opened. Exit code 78 if anything is wrong, with the line.",
	.example = "saltctl config check -c fleet.yaml --set trainer.lr=1e-3",
	.options = options, .run = config_check,
};
