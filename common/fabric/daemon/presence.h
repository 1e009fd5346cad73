/*
 * presence - how a daemon shows itself: the bus context with its key, the status socket, the announcement in run.dir/daemons.
 * What teacherd and trainerd do alike; selectord adds its roster through a callback.
 */
#ifndef SALT_PRESENCE_H
#define SALT_PRESENCE_H

#include "fabric/bus/bus.h"
#include "fabric/config/config.h"
#include "base/err/err.h"
#include "fabric/status/status.h"
#include "fabric/wire/status_answer.h"

struct presence {
	struct bus *bus;
	struct bus_status *socket;
	struct bus_events *events;
	struct status *status;
	char role[STATUS_TEXT_MAX], name[STATUS_TEXT_MAX];
	char run_dir[4096];
	size_t (*roster)(void *arg, struct wire_peer *peers, size_t max);	/* NULL: none; called on the socket's thread */
	void *roster_arg;
};

/*
 * presence_open - bus, status and socket, from the configuration. p: zeroed, roster set if there is one. Returns 0, ENOMEM, or why the
 * socket cannot be bound or the key not be read (note).
 */
int presence_open(struct presence *p, const struct config *cfg, const char *role, const char *name, enum bus_role key, struct err_note *note);

/*
 * presence_events_open - a PUB socket with every line of the log, debug lines too, under the topic of its event; beside status.bind: the
 * same host and any free port, or PATH.events. status says where. Without it (which is logged) nothing else is missing.
 * presence_events_close - before the bus goes; takes NULL. presence_open and presence_close do both; selectord, which has no struct
 * presence, calls them itself.
 */
void presence_events_open(struct bus_events **out, struct bus *bus, const char *status_bind, struct status *status);
void presence_events_close(struct bus_events **events);

/* presence_announce - write the announcement; data_endpoint may be NULL. A failure is logged, not returned: it is telemetry. */
void presence_announce(struct presence *p, const char *data_endpoint);

/* presence_make_directory - PATH and what is missing above it. 0, ERR_EXISTS (a file is in the way) or errno; the note says at which part. */
int presence_make_directory(const char *path, struct err_note *note);

void presence_close(struct presence *p);	/* what is open; zeroed p too */

#endif
