/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "base/cpus/cpus.h"

#define ENV_MAX 4096		/* environment variables; with more of them the spin limit is not set */
/*
 * About 0.05 ms, longer than the main thread usually computes alone between two parallel loops. libgomp's
 * default of 300,000 is many milliseconds: if another process takes the processor of one thread, the other
 * threads keep theirs busy with spinning, and the scheduler cannot give one to the thread they wait for.
 */
#define SPIN "GOMP_SPINCOUNT=1000"

__attribute__((no_sanitize("address", "thread", "undefined"))) void
cpus_bound_spin(int argc, char **argv, char **envp)
{
	const char *self = (const char *)getauxval(AT_EXECFN);
	char *env[ENV_MAX];
	size_t n = 0;

	(void)argc;
	/* AT_BASE is 0 if the dynamic linker was started by hand, with this program as its argument. */
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
	execve(self, argv, env);	/* after a failure the program runs without the limit */
}
