/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli - command lines by getopt_long(3), described by tables of options: one parser for the daemons and for
 * every verb of saltctl. The tables also make the help texts, the manual pages and the completion.
 *
 * Accepted forms: --name ARG, --name=ARG, any unambiguous beginning of a name, and for options with a letter
 * -c ARG and -cARG. Letters without an argument may stand together (-nv). What follows "--" is an operand.
 */
#ifndef SALT_CONFIG_CLI_H
#define SALT_CONFIG_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

extern const char cli_version[];		/* of saltfleet, as CMakeLists.txt has it */

/* One option. A table ends with CLI_END. Every table has --help and -h besides. */
struct cli_option {
	const char *name, *arg, *help;		/* "config", "FILE"; arg NULL: the option takes none */
	bool many;				/* may be given several times */
	char letter;				/* 'c' for -c; 0: no short form */
};
#define CLI_END {NULL, NULL, NULL, false, 0}

struct cli_value {
	const struct cli_option *option;
	const char *text;			/* the argument; "" for an option without one */
};

struct cli_args {
	const char *program;			/* begins every message: "selectord", "saltctl corpus build" */
	const char *help;			/* the command that shows the options: "selectord --help" */
	const struct cli_option *options;
	/* filled in by cli_parse; texts are those of argv */
	struct cli_value *values;		/* in the order given */
	size_t n_values;
	const char **operands;
	size_t n_operands;
	bool wants_help;			/* --help was given; what follows it was not read */
};

/*
 * cli_parse - argv[0] is not read. Returns 0, or the exit code after the message was printed (EX_USAGE,
 * EX_OSERR). cli_free in any case.
 * cli_usage - prints "PROGRAM: MESSAGE" and "try: HELP" on standard error. Returns EX_USAGE.
 * cli_print_options - one line for each option, as help texts show it; left: columns of the option itself.
 */
int cli_parse(struct cli_args *args, int argc, char **argv);
void cli_free(struct cli_args *args);
int cli_usage(const struct cli_args *args, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_print_options(const struct cli_option *options, int left, FILE *out);

/*
 * cli_get - the last value given, "" for an option without argument, NULL if not given. cli_get_nth - the
 * i-th, NULL past the end.
 */
const char *cli_get(const struct cli_args *args, const char *name);
const char *cli_get_nth(const struct cli_args *args, const char *name, size_t i);

#endif
