/* SPDX-License-Identifier: Apache-2.0 */
/* child - runs a function in a child process, for faults that end a process. For C and C++. */
#ifndef SALT_CUDA_EMU_CHILD_H
#define SALT_CUDA_EMU_CHILD_H

#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/*
 * child_status - calls run(number) in a child for at most `seconds` seconds. Returns the status of
 * waitpid(2), 0 if run returned; text gets the beginning of its standard error.
 */
static inline int
child_status(void (*run)(int number), int number, unsigned seconds, char *text, size_t size)
{
	int ends[2], status;
	size_t have = 0;
	ssize_t n;
	pid_t child = -1;

	REQUIRE(pipe(ends) == 0 && (child = fork()) >= 0);
	if (child == 0) {
		dup2(ends[1], STDERR_FILENO);
		alarm(seconds);
		run(number);
		_exit(0);
	}
	close(ends[1]);
	while ((n = read(ends[0], text + have, size - 1 - have)) > 0)
		have += (size_t)n;
	text[have] = '\0';
	close(ends[0]);
	REQUIRE(waitpid(child, &status, 0) == child);
	return status;
}

#endif
