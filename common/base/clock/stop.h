/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop - the request to stop the process. Signals set it, and waits end when it is set. There is one flag for
 * the process, because signals are delivered to the process.
 */
#ifndef SALT_STOP_H
#define SALT_STOP_H

#include <stdbool.h>
#include <stdint.h>

/*
 * stop_install - SIGTERM, SIGINT, SIGHUP and SIGUSR1 set a flag and end every stop_sleep_ms and every poll on
 * stop_fd. SIGPIPE and SIGXFSZ are ignored: write reports EPIPE and EFBIG. If SIGHUP is ignored already, as
 * under nohup(1), it stays ignored. A second SIGTERM, or a second SIGINT, ends the process at once by that
 * signal; the two are counted separately, because mpirun sends INT and TERM for one Ctrl-C. Call it first in
 * main, before threads are started. Returns 0 or errno.
 */
int stop_install(void);
bool stop_requested(void);
int stop_signal(void);			/* the first signal, 0 if none */
void stop_request(void);		/* as if a signal had arrived; any thread */
int stop_fd(void);			/* readable once a stop was requested; -1 before stop_install */
void stop_sleep_ms(int64_t ms);		/* returns early when a stop is requested */

#endif
