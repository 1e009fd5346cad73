/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "base/cpus/cpus.h"

/*
 * About 0.05 ms, which is longer than what the main thread computes alone between two parallel loops.
 * libgomp's own 300,000 are many milliseconds: where another process has the processor of one thread, the
 * others keep theirs busy with waiting, and the scheduler cannot give it to the thread that they wait for.
 */
#define ENV_MAX 4096		/* environment variables; with more of them the spin limit is not set */
#define SPIN "GOMP_SPINCOUNT=1000"

__attribute__((no_sanitize("address", "thread", "undefined"))) void
cpus_bound_spin(int argc, char **argv, char **envp)
{
	const char *self = (const char *)getauxval(AT_EXECFN);
	char *env[ENV_MAX];
	size_t n = 0;

	(void)argc;
	/* Without an interpreter's address the dynamic linker was started by hand, with this program as its argument. */
	if (self == NULL || getauxval(AT_BASE) == 0)
		return;
	for (; envp[n] != NULL && n < ENV_MAX - 2; n++) {
		if (strncmp(envp[n], "OMP_WAIT_POLICY=", 16) == 0 || strncmp(envp[n], "GOMP_SPINCOUNT=", 15) == 0)
			return;
		env[n] = envp[n];
	}
	if (envp[n] != NULL)
		return;
	env[n] = (char *)SPIN;
	env[n + 1] = NULL;
	execve(self, argv, env);	/* where this fails, the program works all the same */
}
