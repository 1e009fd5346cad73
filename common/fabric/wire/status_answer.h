/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status_answer - the answer of a status socket: a snapshot of the status module and, from selectord, the
 * connected peers, as JSON or as the protobuf of proto/status.proto. A daemon's bus_status_fn takes its
 * locks, fills a snapshot and calls this.
 */
#ifndef SALT_WIRE_STATUS_ANSWER_H
#define SALT_WIRE_STATUS_ANSWER_H

#include "fabric/status/status.h"
#include "fabric/wire/wire.h"

enum { WIRE_PEERS_MAX = 4096 };

/* One line of the roster: a connected peer. */
struct wire_peer {
	char name[WIRE_NAME_MAX], host[WIRE_NAME_MAX];
	enum wire_role role;
	uint32_t pid;
	char status_endpoint[WIRE_ENDPOINT_MAX];
	double age_s;			/* seconds since its last message */
};

/*
 * wire_status_answer - the answer to one request. An empty body or "json" gets status_json(), with
 * "roster":[...] added unless peers is NULL; bytes that parse as StatusRequest get a StatusReply. Anything
 * else: 0 and *answer NULL, send nothing.
 * @answer malloc'ed, the caller's. Returns 0 or ENOMEM. Any thread.
 */
int wire_status_answer(const void *body, size_t len, const struct status_snapshot *snap, const struct wire_peer *peers, size_t n_peers,
    uint8_t **answer, size_t *answer_len);

#endif
