/* SPDX-License-Identifier: Apache-2.0 */
/* child - runs a function in a process of its own, for faults that end it. C and C++. */
#ifndef SALT_CUDA_EMU_CHILD_H
#define SALT_CUDA_EMU_CHILD_H

#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/*
 * child_status - run(number), for so many seconds at most. Returns the status as waitpid(2) has it, 0 if run
 * returned; text: the beginning of what it wrote to standard error.
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
