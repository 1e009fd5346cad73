#include "fabric/config/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static void
usage(FILE *out, const struct config_cli *cli)
{
	fprintf(out, "%s - %s\n\nusage: %s -c fleet.yaml [--set section.key=value ...] [-n | -nv]\n\n"
	    "  -c, --config FILE    configuration of the fleet, see docs/config.md\n"
	    "  --set KEY=VALUE      override one option, such as --set trainer.lr=1e-3; may be repeated\n"
	    "  -n                   check the configuration and exit; -nv prints it as resolved\n"
	    "  -v, --verbose        debug lines in the log\n", cli->program, cli->purpose, cli->program);
	for (size_t i = 0; i < cli->n_options; i++) {
		const struct config_cli_option *o = &cli->options[i];
		char left[64];

		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg != NULL ? " " : "", o->arg != NULL ? o->arg : "");
		fprintf(out, "  %-20s %s\n", left, o->help);
	}
	fprintf(out, "  --help, --version\n");
}

static int
wrong(const struct config_cli *cli, const char *what, const char *word)
{
	fprintf(stderr, "%s: %s%s%s\ntry: %s --help\n", cli->program, what, word != NULL ? " " : "", word != NULL ? word : "", cli->program);
	return EX_USAGE;
}

static int
parse_long(struct config_cli *cli, char **argv, int *i, int *exit_code)
{
	const char *name = argv[*i] + 2, *value = argv[*i + 1];
	const char **where = NULL;

	if (strcmp(name, "help") == 0) {
		usage(stdout, cli);
		*exit_code = 0;
		return -1;
	}
	if (strcmp(name, "version") == 0) {
		printf("%s %s\n", cli->program, SALT_VERSION);
		*exit_code = 0;
		return -1;
	}
	if (strcmp(name, "verbose") == 0) {
		cli->verbose = true;
		return 0;
	}
	if (strcmp(name, "config") == 0)
		where = &cli->path;
	else if (strcmp(name, "set") == 0)
		where = &cli->overrides[cli->n_overrides++];
	for (size_t o = 0; where == NULL && o < cli->n_options; o++)
		if (strcmp(name, cli->options[o].name) == 0) {
			where = &cli->options[o].value;
			if (cli->options[o].arg == NULL) {
				*where = "";
				return 0;
			}
		}
	if (where == NULL) {
		*exit_code = wrong(cli, "unknown option", argv[*i]);
		return -1;
	}
	if (value == NULL) {
		*exit_code = wrong(cli, "an argument is missing after", argv[*i]);
		return -1;
	}
	*where = value;
	++*i;
	return 0;
}

static int
parse(struct config_cli *cli, int argc, char **argv, bool *print, int *exit_code)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (strncmp(a, "--", 2) == 0 && a[2] != '\0') {
			if (parse_long(cli, argv, &i, exit_code) != 0)
				return -1;
		} else if (strcmp(a, "-c") == 0) {
			if (i + 1 == argc) {
				*exit_code = wrong(cli, "an argument is missing after", a);
				return -1;
			}
			cli->path = argv[++i];
		} else if (strcmp(a, "-n") == 0) {
			cli->check = true;
		} else if (strcmp(a, "-nv") == 0 || strcmp(a, "-vn") == 0) {
			cli->check = *print = true;
		} else if (strcmp(a, "-v") == 0) {
			cli->verbose = true;
		} else if (strcmp(a, "-h") == 0) {
			usage(stdout, cli);
			*exit_code = 0;
			return -1;
		} else {
			*exit_code = wrong(cli, "unexpected argument", a);
			return -1;
		}
	}
	if (cli->path == NULL) {
		*exit_code = wrong(cli, "which configuration? give -c fleet.yaml", NULL);
		return -1;
	}
	return 0;
}

int
config_cli_start(struct config_cli *cli, int argc, char **argv, struct config **cfg, int *exit_code)
{
	struct err_note note = {.name = ""};
	bool print = false;
	char text[1400];
	int rc;

	*cfg = NULL;
	if ((cli->overrides = calloc((size_t)argc + 1, sizeof(*cli->overrides))) == NULL) {
		*exit_code = EX_OSERR;
		return -1;
	}
	if (parse(cli, argc, argv, &print, exit_code) != 0)
		return -1;
	if ((rc = config_load(cli->path, cli->overrides, cli->n_overrides, cfg, &note)) != 0 ||
	    (rc = config_require(*cfg, cli->needs, &note)) != 0) {
		fprintf(stderr, "%s: %s\n", cli->program, err_note_str(&note, rc, text, sizeof(text)));
		*exit_code = err_exit_code(rc);
		return -1;
	}
	config_print_renamed(*cfg, stderr, cli->program);
	if (print && (rc = config_print(*cfg, stdout, true)) != 0) {
		*exit_code = EX_IOERR;
		return -1;
	}
	return 0;
}

void
config_cli_free(struct config_cli *cli)
{
	free(cli->overrides);
	cli->overrides = NULL;
}
