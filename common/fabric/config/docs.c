/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_docs - prints docs/config.md, or with "man" fleet.yaml(5), which is made with the programs.
 * `cmake --build --preset dev --target docs` writes the former to its place.
 */
#include <stdio.h>
#include <string.h>
#include "fabric/config/cli.h"
#include "fabric/config/config.h"

int
main(int argc, char **argv)
{
	bool man = argc > 1 && strcmp(argv[1], "man") == 0;

	return (man ? config_man(stdout, cli_version) : config_docs(stdout)) != 0 || fflush(stdout) != 0;
}
