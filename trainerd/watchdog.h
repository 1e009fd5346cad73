/*
 * watchdog - a thread that ends the run (all ranks, exit 75) when a rank makes no progress: nothing for max(trainer.stall_s, 10 x the
 * median of the last steps), ten times trainer.stall_s before the first step, or what an activity was allowed. Every vote while rows are
 * missing is progress, so waiting for rows is not counted, but a rank that stops voting is. One per process.
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

#endif
