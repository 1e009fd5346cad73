/*
 * cli - the command line that all daemons share:
 *   -c FILE            fleet.yaml                      -n    check configuration and files, then exit
 *   --set KEY=VALUE    override one option, repeatable  -nv   and print the resolved configuration
 *   -v, --verbose      debug lines in the log          --help, --version
 * and what a daemon adds. config_cli_start does what every main does with it.
 */
#ifndef SALT_CONFIG_CLI_H
#define SALT_CONFIG_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "fabric/config/config.h"

/* An option of one daemon, "--name" or "--name ARG". value is set by parsing: the argument, or "" for one without, NULL: not given. */
struct config_cli_option {
	const char *name, *arg, *help;
	const char *value;
};

struct config_cli {
	const char *program, *purpose;		/* "selectord", one line for --help */
	unsigned needs;				/* CONFIG_NEED_*: checked with -n and at start */
	struct config_cli_option *options;
	size_t n_options;
	/* filled in: */
	const char *path;
	const char **overrides;
	size_t n_overrides;
	bool check, verbose;
};

/*
 * config_cli_start - parse, answer --help and --version, load and check the configuration.
 * Returns 0 and *cfg: go on (with cli->check set: only as far as checking goes). -1: all is said, exit with *exit_code; messages of wrong
 * use and configuration went to stderr. argv must stay; config_cli_free at the end.
 */
int config_cli_start(struct config_cli *cli, int argc, char **argv, struct config **cfg, int *exit_code);
void config_cli_free(struct config_cli *cli);

#endif
