/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_shard - shared by the simulations of a shard of selectord: fake_selectord (for trainers), fake_leases
 * (for teachers). Failures abort, because they occur in the library's thread.
 */
#ifndef SALT_FAKE_SHARD_H
#define SALT_FAKE_SHARD_H

#include <stdatomic.h>
#include <stdlib.h>

#include "fabric/wire/wire.h"
#include "replay/fake_bus.h"

#define MUST(cond) ((cond) ? (void)0 : abort())

/* Sends a message to the client and sets *pushed, since the client has something to receive. */
static inline void
fake_shard_push(const struct wire_message *m, bool *pushed)
{
	uint8_t *frame;
	size_t len;

	MUST(wire_encode(m, SIZE_MAX, &frame, &len, NULL) == 0);
	fake_bus_push(0, 0, frame, len);
	free(frame);
	*pushed = true;
}

/*
 * Call it at the beginning of a step. It advances the clock by *skip_ms once, connects in step 0, and if lost
 * is set disconnects and connects again.
 */
static inline void
fake_shard_events(int step, atomic_llong *skip_ms, bool lost, bool *pushed)
{
	int64_t ms = atomic_exchange(skip_ms, 0);

	if (ms > 0)
		fake_bus_advance(ms);
	if (lost)
		fake_bus_push_event(0, 0, BUS_EVENT_DISCONNECTED);
	if (step == 0 || lost)
		fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
	*pushed = step == 0 || lost || ms > 0;
}

/* The next message of the client after the first *seen ones, or NULL. wire_message_destroy it. */
static inline struct wire_message *
fake_shard_heard(size_t *seen, size_t *len)
{
	const struct fake_sent *sent = fake_bus_sent(*seen);
	struct wire_message *m = NULL;

	if (sent == NULL)
		return NULL;
	MUST(wire_decode(sent->frame, sent->len, &m, NULL) == 0);
	*len = sent->len;
	++*seen;
	return m;
}

#endif
