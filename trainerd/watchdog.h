/*
 * watchdog - a thread that ends the run (all ranks, exit 75) when a rank makes no progress: nothing for max(trainer.stall_s, 10 x the
 * median of the last steps), ten times trainer.stall_s before the first step, or what an activity was allowed. Every vote while rows are
 * missing is progress, so waiting for rows is not counted, but a rank that stops voting is. One per process.
 *
 * Starting and ending MPI come before and after that: a limit for one thing that may hang, ten times trainer.stall_s too.
 */
#ifndef SALT_WATCHDOG_H
#define SALT_WATCHDOG_H

#include <stdbool.h>

#include "trainerd/comm.h"

struct watchdog;

/* watchdog_new - NULL without memory or threads. min_s: at least so long. */
struct watchdog *watchdog_new(struct comm *comm, double min_s);
void watchdog_destroy(struct watchdog **w);	/* takes NULL */

void watchdog_progress(struct watchdog *w, const char *doing);	/* something went forward; doing: static text, named if it stops here */
void watchdog_step(struct watchdog *w, double seconds);		/* a step took so long */
void watchdog_long(struct watchdog *w, const char *doing, double seconds);	/* what begins now may take so long in one piece */

/*
 * watchdog_limit - what begins now ends within seconds (watchdog_limit_end), or this process does, with 75 and a line that says what; mpirun
 * ends the others then. NULL without memory or threads: no limit.
 */
struct watchdog_limit;

struct watchdog_limit *watchdog_limit(const char *doing, double seconds);	/* doing: static text */
void watchdog_limit_end(struct watchdog_limit **limit);		/* takes NULL */

#endif
