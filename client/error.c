/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/config/cli.h"

static const struct {
	const char *name;
	int exit_code;
} codes[] = {
	[SALT_OK] = {"SALT_OK", 0},
	[SALT_TIMEOUT] = {"SALT_TIMEOUT", 75},
	[SALT_END] = {"SALT_END", 0},
	[SALT_FORKED] = {"SALT_FORKED", 70},
	[SALT_CONFIG] = {"SALT_CONFIG", 78},
	[SALT_MISMATCH] = {"SALT_MISMATCH", 78},
	[SALT_DATA] = {"SALT_DATA", 65},
	[SALT_REFUSED] = {"SALT_REFUSED", 69},
	[SALT_NONFINITE] = {"SALT_NONFINITE", 65},
	[SALT_RANGE] = {"SALT_RANGE", 64},
	[SALT_NOT_FOUND] = {"SALT_NOT_FOUND", 66},
	[SALT_MEMORY] = {"SALT_MEMORY", 71},
	[SALT_SYSTEM] = {"SALT_SYSTEM", 74},
	[SALT_CLOSED] = {"SALT_CLOSED", 75},
	[SALT_INTERNAL] = {"SALT_INTERNAL", 70},
};

const char *
salt_version(void)
{
	return cli_version;
}

const char *
salt_code_name(int code)
{
	return code >= 0 && (size_t)code < sizeof(codes) / sizeof(codes[0]) ? codes[code].name : "?";
}

void
salt_free(void *p)
{
	free(p);
}

static int
code_of(int rc)
{
	switch (rc) {
	case ERR_CONFIG:
	case ERR_USAGE:
		return SALT_CONFIG;
	case ERR_MISMATCH:
		return SALT_MISMATCH;
	case ERR_CORRUPT:
	case ERR_FORMAT:
	case ERR_VERSION:
	case ERR_UNSUPPORTED:
		return SALT_DATA;
	case ERR_REFUSED:
		return SALT_REFUSED;
	case ERR_NONFINITE:
		return SALT_NONFINITE;
	case ERR_RANGE:
		return SALT_RANGE;
	case ERR_NOT_FOUND:
	case ENOENT:
		return SALT_NOT_FOUND;
	case ENOMEM:
		return SALT_MEMORY;
	case ERR_AGAIN:
	case ERR_TIMEOUT:
		return SALT_TIMEOUT;
	case ERR_CLOSED:
		return SALT_CLOSED;
	default:
		return rc > 0 ? SALT_SYSTEM : SALT_INTERNAL;
	}
}

int
client__ok(struct salt_error *e)
{
	if (e != NULL)
		*e = (struct salt_error){.code = SALT_OK};
	return SALT_OK;
}

int
client__error(struct salt_error *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (e == NULL)
		return code;
	e->code = code;
	e->exit_code = codes[code].exit_code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return code;
}

int
client__fail(struct salt_error *e, int rc, const struct err_note *note)
{
	char text[sizeof(e->text)];

	return client__error(e, code_of(rc), "%s", err_note_str(note, rc, text, sizeof(text)));
}

int
client__copy(struct salt_error *e, const struct salt_error *from)
{
	if (e != NULL)
		*e = *from;
	return from->code;
}

int
client__enter(const struct salt *s, int role, struct salt_error *e)
{
	static const char *const roles[] = {"", "SALT_TRAINER", "SALT_TEACHER", "SALT_CLIENT"};

	if (s->pid != getpid())
		return client__error(e, SALT_FORKED, "this process, %d, is a fork of process %d, which called salt_open: open it here, after the fork",
		    (int)getpid(), (int)s->pid);
	if (role != 0 && role != s->role)
		return client__error(e, SALT_RANGE, "options.role: this call needs %s, found %s", roles[role], roles[s->role]);
	return client__ok(e);
}
