/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop - the request to stop: signals set it, waits end on it. One flag for the process, because signals
 * belong to the process.
 */
#ifndef SALT_STOP_H
#define SALT_STOP_H

#include <stdbool.h>
#include <stdint.h>

/*
 * stop_install - SIGTERM, SIGINT, SIGHUP and SIGUSR1 set a flag and end every stop_sleep_ms and every poll on
 * stop_fd. SIGPIPE and SIGXFSZ are ignored: write reports EPIPE and EFBIG. A SIGHUP that is ignored already,
 * as under nohup(1), stays so. SIGTERM or SIGINT a second time ends the process at once by that signal;
 * different signals are not added up, because mpirun sends INT and TERM for one Ctrl-C. Call it first in
 * main, before threads are made. Returns 0 or errno.
 */
int stop_install(void);
bool stop_requested(void);
int stop_signal(void);			/* the first signal, 0 if none */
void stop_request(void);		/* as if a signal had arrived; any thread */
int stop_fd(void);			/* readable once a stop was requested; -1 before stop_install */
void stop_sleep_ms(int64_t ms);		/* returns early when a stop is requested */

#endif
