/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/config/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/err/nearest.h"

enum { OPTIONS_MAX = 64, VALUE_FIRST = 256 };	/* getopt_long returns VALUE_FIRST + row of the table; letters are below */

const char cli_version[] = SALT_VERSION;

int
cli_usage(const struct cli_args *args, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", args->program);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\ntry: %s\n", args->help);
	return EX_USAGE;
}

static const char *
option_name(const void *arg, size_t i)
{
	const struct cli_option *options = arg;

	return options[i].name;
}

static int
unknown(const struct cli_args *args, const char *word)
{
	size_t n = strcspn(word, "=");
	char name[64] = "";
	const char *near;

	strncat(name, word, n < sizeof(name) ? n : sizeof(name) - 1);
	near = strncmp(word, "--", 2) == 0 ? err_nearest(name + 2, option_name, args->options) : NULL;
	return near != NULL ? cli_usage(args, "unknown option %s; did you mean --%s?", word, near) : cli_usage(args, "unknown option %s", word);
}

static int
add_value(struct cli_args *args, size_t row)
{
	const struct cli_option *o = &args->options[row];

	if (!o->many && cli_get(args, o->name) != NULL)
		return cli_usage(args, "--%s is given twice", o->name);
	args->values[args->n_values++] = (struct cli_value){o, optarg != NULL ? optarg : ""};
	return 0;
}

/* The row of the table that getopt's code or optopt stands for; n_options if none. */
static size_t
row_of(const struct cli_args *args, int code, size_t n_options)
{
	size_t row = 0;

	if (code >= VALUE_FIRST)
		return (size_t)(code - VALUE_FIRST);
	while (row < n_options && args->options[row].letter != code)
		row++;
	return code != 0 ? row : n_options;
}

int
cli_parse(struct cli_args *args, int argc, char **argv)
{
	struct option longs[OPTIONS_MAX + 2] = {0};
	char letters[2 * OPTIONS_MAX + 8] = "-:h", *at = letters + 3;	/* '-': operands come in order; ':': we print the messages */
	size_t n = 0, row;
	int code, rc = 0;

	for (const struct cli_option *o = args->options; o->name != NULL && n < OPTIONS_MAX; o++, n++) {
		longs[n] = (struct option){o->name, o->arg != NULL ? required_argument : no_argument, NULL, VALUE_FIRST + (int)n};
		if (o->letter != 0)
			at += sprintf(at, o->arg != NULL ? "%c:" : "%c", o->letter);
	}
	longs[n] = (struct option){"help", no_argument, NULL, 'h'};
	args->values = calloc((size_t)argc + 1, sizeof(*args->values));
	args->operands = calloc((size_t)argc + 1, sizeof(*args->operands));
	if (args->values == NULL || args->operands == NULL) {
		fprintf(stderr, "%s: %s\n", args->program, strerror(ENOMEM));
		return EX_OSERR;
	}
	optind = 0;			/* glibc: start afresh */
	while (rc == 0 && (code = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		if (code == 1) {
			args->operands[args->n_operands++] = optarg;
		} else if (code == 'h') {
			args->wants_help = true;
			return 0;
		} else if (code != '?' && code != ':') {
			rc = add_value(args, row_of(args, code, n));
		} else if ((row = row_of(args, optopt, n)) == n) {
			rc = optopt != 0 && optopt < VALUE_FIRST ? cli_usage(args, "unknown option -%c", optopt) : unknown(args, argv[optind - 1]);
		} else if (code == ':') {
			rc = cli_usage(args, "--%s %s: the %s is missing", args->options[row].name, args->options[row].arg, args->options[row].arg);
		} else {
			rc = cli_usage(args, "--%s takes no value", args->options[row].name);
		}
	}
	while (rc == 0 && optind < argc)
		args->operands[args->n_operands++] = argv[optind++];
	return rc;
}

void
cli_free(struct cli_args *args)
{
	free(args->values);
	free(args->operands);
	args->values = NULL;
	args->operands = NULL;
}

void
cli_print_options(const struct cli_option *options, int left, FILE *out)
{
	for (const struct cli_option *o = options; o->name != NULL; o++) {
		char text[80], letter[8] = "";

		if (o->letter != 0)
			snprintf(letter, sizeof(letter), "-%c, ", o->letter);
		snprintf(text, sizeof(text), "%s--%s%s%s", letter, o->name, o->arg != NULL ? " " : "", o->arg != NULL ? o->arg : "");
		fprintf(out, "  %-*s %s\n", left, text, o->help);
	}
}

const char *
cli_get_nth(const struct cli_args *args, const char *name, size_t i)
{
	for (size_t v = 0; v < args->n_values; v++)
		if (strcmp(args->values[v].option->name, name) == 0 && i-- == 0)
			return args->values[v].text;
	return NULL;
}

const char *
cli_get(const struct cli_args *args, const char *name)
{
	for (size_t v = args->n_values; v-- > 0;)
		if (strcmp(args->values[v].option->name, name) == 0)
			return args->values[v].text;
	return NULL;
}
