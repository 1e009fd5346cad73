/*
 * loop - the main loop of selectord and its only poll: passes frames to the core, its answers to the peers and its records to the writer
 * thread, and sends acknowledgements when their records are on the disk.
 */
#ifndef SALT_SELECTORD_LOOP_H
#define SALT_SELECTORD_LOOP_H

#include "fabric/bus/bus.h"
#include "selectord/commit.h"
#include "selectord/core.h"
#include "selectord/store.h"
#include "fabric/status/status.h"

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
	uint32_t max_message;
};

int loop_new(struct loop **loop, const struct loop_parts *parts);
void loop_destroy(struct loop **loop);		/* takes NULL */

/*
 * loop_run - until a stop is asked for and all pending records are committed and acknowledged (at most 10 s more), or an error.
 * Returns 0, the writer's error (such as EIO), ENOMEM.
 */
int loop_run(struct loop *loop);

/* loop_status - a bus_status_fn; arg is the loop. */
void loop_status(void *arg, const uint8_t *body, size_t len, uint8_t **answer, size_t *answer_len);

#endif
