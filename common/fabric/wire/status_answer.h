/*
 * status_answer - what a status socket says: a snapshot of the status room and, from selectord, who is connected, as JSON or as the
 * protobuf of proto/status.proto. bus carries the bytes; a daemon's bus_status_fn takes its locks, fills a snapshot and calls here.
 */
#ifndef SALT_WIRE_STATUS_ANSWER_H
#define SALT_WIRE_STATUS_ANSWER_H

#include "fabric/status/status.h"
#include "fabric/wire/wire.h"

enum { WIRE_PEERS_MAX = 4096 };

/* One line of the roster. */
struct wire_peer {
	char name[WIRE_NAME_MAX], host[WIRE_NAME_MAX];
	enum wire_role role;
	uint32_t pid;
	char status_endpoint[WIRE_ENDPOINT_MAX];
	double age_s;			/* since it was last heard */
};

/*
 * wire_status_answer - the answer to one request: empty or "json": status_json() with "roster":[...] added when peers is not NULL;
 * bytes that parse as StatusRequest: a StatusReply. Anything else: 0 and *answer NULL (say nothing).
 * @answer malloc'ed, the caller's. Returns 0 or ENOMEM. Pure; any thread.
 */
int wire_status_answer(const void *body, size_t len, const struct status_snapshot *snap, const struct wire_peer *peers, size_t n_peers,
    uint8_t **answer, size_t *answer_len);

/* wire_status_request - the protobuf request into buf; returns its length. */
size_t wire_status_request(uint8_t buf[16]);

/*
 * wire_status_decode - a StatusReply into a snapshot and a roster. Texts too long for the snapshot are cut, metrics past
 * STATUS_METRICS_MAX dropped; a metric's rate and help are not in the reply. *peers malloc'ed (free it), NULL when there are none.
 * Returns 0, ERR_FORMAT, ERR_RANGE (more than WIRE_PEERS_MAX peers; out of budget), ENOMEM.
 */
int wire_status_decode(const void *bytes, size_t len, struct status_snapshot *snap, struct wire_peer **peers, size_t *n_peers,
    struct err_note *note);

#endif
