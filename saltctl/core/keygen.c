/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

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

	if (rc != 0)
		return ctl_fail(args, rc, &note);
	printf("%s/%s.key  %s/%s.pub  role %s\n", args->operands[0], name, args->operands[0], name,
	    bus_role_name(role));
	return 0;
}

static int
keygen(struct ctl_args *args)
{
	const char *role = ctl_get(args, "role"), *name = ctl_get(args, "name");
	int exit_code = 0;

	if (role == NULL && name != NULL)
		return ctl_usage(args, "--name needs --role");
	for (enum bus_role r = BUS_ROLE_SELECTOR; r <= BUS_ROLE_CLIENT; r++) {
		if (role != NULL && strcmp(role, bus_role_name(r)) == 0)
			return one(args, name != NULL ? name : role, r);
		if (role == NULL && exit_code == 0)
			exit_code = one(args, bus_role_name(r), r);
	}
	return role != NULL ? ctl_usage(args,
	    "--role: expected selector, teacher, trainer or client, found \"%s\"", role) : exit_code;
}

const struct ctl_verb ctl_keygen = {
	.name = "keygen", .operands = "FOLDER", .summary = "keys for a fleet that spans hosts",
	.about = "Makes NAME.key, which is secret, and NAME.pub for each. Every host gets a folder with its own\n"
	    ".key files and all .pub files, for security.curve_dir. Removing a .pub revokes the key. Nothing is\n"
	    "overwritten; missing parents are made.",
	.example = "saltctl keygen keys",
	.options = options, .min_operands = 1, .max_operands = 1, .run = keygen,
};
