/* stop - the process's request to stop: signals set it, waits end on it. One flag per process, because signals have no other owner. */
#ifndef SALT_STOP_H
#define SALT_STOP_H

#include <stdbool.h>
#include <stdint.h>

/*
 * stop_install - SIGTERM, SIGINT and SIGUSR1 set a flag and end every stop_sleep_ms and every poll on stop_fd; SIGPIPE and SIGXFSZ are
 * ignored (write reports EPIPE and EFBIG). The same signal a second time (TERM and INT only) ends the process at once by that signal.
 * mpirun sends INT and TERM for one Ctrl-C, so different signals are not added up. Call it first in main, before threads are made.
 * Returns 0 or errno.
 */
int stop_install(void);
bool stop_requested(void);
int stop_signal(void);			/* the first signal, 0 if none */
void stop_request(void);		/* as if a signal had arrived: drain, RELEASE_TEACHER; any thread */
int stop_fd(void);			/* readable once a stop was requested; -1 before stop_install */
void stop_sleep_ms(int64_t ms);		/* returns early when a stop is requested */

#endif
