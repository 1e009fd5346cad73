/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watchdog - a thread that ends the run (all ranks, exit code 75) when this rank makes no progress within a limit:
 * the larger of trainer.stall_s and 10 times the median of the last steps; 10 times trainer.stall_s before the first
 * step; or the limit given for an activity. Every vote while rows are missing is progress, so a rank may wait for
 * rows for any time, as long as it votes. Time in which the process itself was stopped does not count. One per process.
 *
 * watchdog_limit is for starting and ending MPI, when there is no watchdog.
 */
#ifndef SALT_WATCHDOG_H
#define SALT_WATCHDOG_H

#include <stdbool.h>

#include "trainerd/comm.h"

struct watchdog;

/* watchdog_new - min_s: the smallest limit. NULL with errno. */
struct watchdog *watchdog_new(struct comm *comm, double min_s);
void watchdog_destroy(struct watchdog **w);	/* takes NULL */

/*
 * watchdog_progress - the rank makes progress; doing (static text) names what it does next, for the message if it
 * hangs.
 * watchdog_long - the same, and what it does next may take up to seconds. watchdog_step - a step took seconds.
 */
void watchdog_progress(struct watchdog *w, const char *doing);
void watchdog_long(struct watchdog *w, const char *doing, double seconds);
void watchdog_step(struct watchdog *w, double seconds);

/*
 * watchdog_limit - if watchdog_destroy is not called within seconds, ends this process with exit code 75 and a line
 * that names doing (static text); mpirun then ends the other ranks. If memory or threads are
 * short, returns NULL and sets no limit.
 */
struct watchdog *watchdog_limit(const char *doing, double seconds);

#endif
