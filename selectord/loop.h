/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop - the main loop of selectord and its only poll: passes frames to the core, its answers to the peers
 * and its records to the writer thread, and sends acknowledgements when their records are on the disk.
 */
#ifndef SALT_SELECTORD_LOOP_H
#define SALT_SELECTORD_LOOP_H

#include "fabric/bus/bus.h"
#include "selectord/commit.h"
#include "selectord/core.h"
#include "selectord/store.h"
#include "fabric/status/status.h"
#include "fabric/wire/status_answer.h"

struct json;
struct loop;

struct loop_parts {				/* all borrowed; they outlive the loop */
	struct bus *bus;
	struct bus_server *server;
	struct bus_waker *waker;		/* woken by the writer thread */
	struct core *core;
	struct store *store;
	struct commit *commit;
	struct cache *cache;
	struct status *status;
	const char *cache_dir;			/* for messages */
	uint32_t max_message;
};

int loop_new(struct loop **loop, const struct loop_parts *parts);
void loop_destroy(struct loop **loop);		/* takes NULL */

/*
 * loop_run - runs until a stop is requested and all pending records are committed and acknowledged (at most
 * 10 s more), or until an error. Returns 0, the writer's error (such as EIO), ENOMEM, or errno of the wait
 * for messages; the note names the cause.
 */
int loop_run(struct loop *loop, struct err_note *note);

/* The hooks of selectord's status socket (fabric/daemon); arg is the loop. */
size_t loop_peers(void *arg, struct wire_peer *peers, size_t max);
void loop_members(void *arg, struct json *answer);		/* adds "plans" */

#endif
