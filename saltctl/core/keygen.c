/* SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "fabric/bus/bus.h"
#include "saltctl/core/ctl.h"

static const struct cli_option options[] = {
	{"role", "ROLE", "selector, teacher, trainer or client; default: one key for each", false},
	{"name", "NAME", "of the key's files; default: the role", false},
	CTL_END
};

static int
one(const struct ctl_args *args, const char *name, enum bus_role role)
{
	struct err_note note = {.name = ""};
	int rc = bus_keys_generate(args->operands[0], name, role, &note);

	return rc != 0 ? ctl_fail(args, rc, &note) : 0;
}

static void
say(const char *dir, const char *name, enum bus_role role)
{
	printf("%s/%s.key  %s/%s.pub  role %s\n", dir, name, dir, name, bus_role_name(role));
}

/* Makes all keys or none, so that the same command can be repeated after an error. */
static int
all(const struct ctl_args *args)
{
	const char *dir = args->operands[0];
	char path[PATH_MAX];
	int exit_code = 0;

	for (enum bus_role r = BUS_ROLE_SELECTOR; r <= BUS_ROLE_CLIENT && exit_code == 0; r++)
		if ((exit_code = one(args, bus_role_name(r), r)) != 0)
			while (--r >= BUS_ROLE_SELECTOR)
				for (const char *const *end = (const char *const []){"key", "pub", NULL}; *end != NULL; end++) {
					snprintf(path, sizeof(path), "%s/%s.%s", dir, bus_role_name(r), *end);
					unlink(path);
				}
	for (enum bus_role r = BUS_ROLE_SELECTOR; r <= BUS_ROLE_CLIENT && exit_code == 0; r++)
		say(dir, bus_role_name(r), r);
	return exit_code;
}

static int
keygen(struct ctl_args *args)
{
	const char *role = ctl_get(args, "role"), *name = ctl_get(args, "name");
	int exit_code;

	if (role == NULL)
		return name != NULL ? ctl_usage(args, "--name needs --role") : all(args);
	for (enum bus_role r = BUS_ROLE_SELECTOR; r <= BUS_ROLE_CLIENT; r++)
		if (strcmp(role, bus_role_name(r)) == 0) {
			if ((exit_code = one(args, name != NULL ? name : role, r)) == 0)
				say(args->operands[0], name != NULL ? name : role, r);
			return exit_code;
		}
	return ctl_usage(args, "--role: expected selector, teacher, trainer or client, found \"%s\"", role);
}

const struct ctl_verb ctl_keygen = {
	.name = "keygen", .operands = "FOLDER", .summary = "keys for a fleet that spans hosts",
	.about = "Makes NAME.key, which is secret, and NAME.pub for each. Every host gets a folder with its own\n"
	    ".key files and all .pub files, for security.curve_dir. Removing a .pub revokes the key. Nothing is\n"
	    "overwritten; missing parents are made.",
	.example = "saltctl keygen keys",
	.options = options, .min_operands = 1, .max_operands = 1, .run = keygen,
};
