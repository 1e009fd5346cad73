/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop - teacherd's main loop, the only one that polls: it receives leases and sends results. The engine
 * computes in threads of its own.
 *
 * One session connects to all shards of selectord. Two leases per shard are computed or requested, so that
 * computing does not wait for the network.
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
 * loop_run - runs until selectord releases the teacher or a signal stops it; then hands back leases that are
 * not computed, sends the others, and returns 0. Otherwise returns the reason why selectord refused the
 * teacher, or errno; the note has the details.
 */
int loop_run(const struct loop_options *o, struct err_note *note);

#endif
