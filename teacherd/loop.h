/*
 * loop - teacherd's only poll: leases in, results out, renewals on time, the engine in threads of its own.
 *
 * One connection per selector shard. Two leases in hand per shard, so that compute never waits for the network. What was computed is
 * kept and sent again until selectord says DONE (it does so after its commit), or is another process than the one that leased it.
 */
#ifndef SALT_TEACHERD_LOOP_H
#define SALT_TEACHERD_LOOP_H

#include "fabric/bus/bus.h"
#include "base/err/err.h"

struct config;
struct infer;
struct status;

struct loop_options {
	const struct config *config;
	struct bus *bus;
	struct infer *infer;
	struct bus_waker *waker;		/* the one that infer wakes */
	struct status *status;
	const char *name, *status_endpoint;
};

/*
 * loop_run - until released by selectord or stopped by a signal (leases in hand are handed back, what is computed is sent): 0.
 * Otherwise why selectord refused us, or errno; the note says more.
 */
int loop_run(const struct loop_options *o, struct err_note *note);

#endif
