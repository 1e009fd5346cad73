/* SPDX-License-Identifier: Apache-2.0 */
#include "saltctl/core/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int
ctl_fail(const struct ctl_args *args, int rc, const struct err_note *note)
{
	char text[1400];

	fprintf(stderr, "saltctl %s: %s\n", args->verb->name, err_note_str(note, rc, text, sizeof(text)));
	return err_exit_code(rc);
}

int
ctl_args_parse(struct ctl_args *args, const struct ctl_verb *verb, int argc, char **argv)
{
	size_t n_stdin = 0;
	int rc;

	*args = (struct ctl_args){.verb = verb};
	snprintf(args->program, sizeof(args->program), "saltctl %s", verb->name);
	snprintf(args->help, sizeof(args->help), "saltctl help %s", verb->name);
	args->cli = (struct cli_args){.program = args->program, .help = args->help, .options = verb->options};
	if ((rc = cli_parse(&args->cli, argc + 1, argv - 1)) != 0 || args->cli.wants_help)
		return rc;
	args->operands = args->cli.operands;
	args->n_operands = args->cli.n_operands;
	for (const struct cli_option *o = verb->options; o->name != NULL; o++)
		if (strcmp(o->name, "set") == 0 && ctl_has(args, "set") && !ctl_has(args, "config"))
			return ctl_usage(args, "--set %s changes an option of fleet.yaml: give -c FILE",
			    ctl_get(args, "set"));
	if (args->n_operands < verb->min_operands)
		return ctl_usage(args, "%s is missing", verb->operands);
	if (args->n_operands > verb->max_operands)
		return ctl_usage(args, "unexpected argument %s", args->operands[verb->max_operands]);
	for (size_t i = 0; i < args->n_operands; i++)
		n_stdin += strcmp(args->operands[i], "-") == 0;
	if (n_stdin > 1)
		return ctl_usage(args, "%s: expected - at most once, because standard input can be read once, found it %zu times",
		    verb->operands, n_stdin);
	return 0;
}

void
ctl_args_free(struct ctl_args *args)
{
	cli_free(&args->cli);
}

const char *
ctl_need(const struct ctl_args *args, const char *name)
{
	const struct cli_option *o = args->verb->options;

	if (ctl_has(args, name))
		return ctl_get(args, name);
	while (strcmp(o->name, name) != 0)
		o++;
	ctl_usage(args, "--%s %s is missing: %s", name, o->arg, o->help);
	return NULL;
}

int
ctl_get_u64(const struct ctl_args *args, const char *name, uint64_t min, uint64_t max, uint64_t *out)
{
	const char *text = ctl_get(args, name);
	unsigned long long v;
	char *end;

	if (text == NULL)
		return 0;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || v < min || v > max) {
		if (max == UINT64_MAX)
			return ctl_usage(args,
			    "--%s: expected a whole number of at least %" PRIu64 ", found \"%s\"", name, min, text);
		return ctl_usage(args,
		    "--%s: expected a whole number from %" PRIu64 " to %" PRIu64 ", found \"%s\"", name, min,
		    max, text);
	}
	*out = v;
	return 0;
}

int
ctl_get_num(const struct ctl_args *args, const char *name, double min, double max, double *out)
{
	const char *text = ctl_get(args, name);
	double v;
	char *end;

	if (text == NULL)
		return 0;
	v = strtod(text, &end);
	if (end == text || *end != '\0' || !(v >= min && v <= max))
		return ctl_usage(args, "--%s: expected a number from %g to %g, found \"%s\"", name, min, max, text);
	*out = v;
	return 0;
}
