/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err/crash.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifdef SALT_CRASH_POINTS
void
crash_point(const char *name)
{
	static atomic_long n_reached;
	const char *at = getenv("SALT_CRASH_AT");
	size_t len = strlen(name);
	char *end;
	long count = 1;

	if (at == NULL || strncmp(at, name, len) != 0 || (at[len] != '\0' && at[len] != ':'))
		return;
	if (at[len] == ':') {
		count = strtol(at + len + 1, &end, 10);
		if (end == at + len + 1 || *end != '\0' || count < 1)
			return;
	}
	if (atomic_fetch_add(&n_reached, 1) + 1 == count)
		raise(SIGKILL);
}
#endif
