/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/bus_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log/log.h"

enum {
	HWM_FRAMES = 16, LINGER_MS = 200,
	HELD_BYTES = 256 << 10,		/* limit of a connection's incomplete requests */
	UNREAD_BYTES = 8 << 20		/* limit of a connection's unread answers; beyond it the connection is
					   ended */
};

struct bus_status {
	struct bus *bus;
	struct bus__service service;
	char endpoint[BUS_ENDPOINT_MAX];
	bus_status_fn *fn;
	void *arg;
};

/*
 * Receives one request: id, optionally '', body; *delimited: '' was there. False: the message has another
 * form. Consumes all parts in any case.
 */
static bool
receive(void *socket, zmq_msg_t *id, zmq_msg_t *body, bool *delimited)
{
	zmq_msg_t part;
	int more, n;

	*delimited = false;
	if (zmq_msg_recv(id, socket, ZMQ_DONTWAIT) < 0 || zmq_msg_recv(body, socket, 0) < 0)
		return false;
	if (!zmq_msg_more(body))
		return true;
	*delimited = zmq_msg_size(body) == 0;
	zmq_msg_init(&part);
	for (more = 1, n = 0; more; n++) {
		if (zmq_msg_recv(&part, socket, 0) < 0)
			break;
		more = zmq_msg_more(&part);
		if (n == 0)
			zmq_msg_move(body, &part);
	}
	zmq_msg_close(&part);
	return n == 1 && *delimited;
}

static void
serve(void *arg)
{
	struct bus_status *s = arg;
	zmq_msg_t id, body;
	uint8_t *answer = NULL;
	size_t len = 0;
	bool delimited;
	int fd;

	zmq_msg_init(&id);
	zmq_msg_init(&body);
	if (receive(s->service.socket, &id, &body, &delimited)) {
		fd = zmq_msg_get(&body, ZMQ_SRCFD);
		bus__guard_received(s->bus->guard, fd, zmq_msg_size(&body));
		s->fn(s->arg, zmq_msg_data(&body), zmq_msg_size(&body), &answer, &len);
		/* a client that does not read loses whole answers: ROUTER rejects the first part */
		if (answer != NULL && bus__guard_may_send(s->bus->guard, fd, len, UNREAD_BYTES) && zmq_msg_send(&id, s->service.socket, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0
		    && (!delimited || zmq_send(s->service.socket, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0))
			zmq_send(s->service.socket, answer, len, ZMQ_DONTWAIT);
		free(answer);
	}
	zmq_msg_close(&id);
	zmq_msg_close(&body);
}

int
bus_status_new(struct bus_status **out, struct bus *bus, const char *endpoint, bus_status_fn *fn, void *arg,
    struct err_note *note)
{
	struct bus__socket_options options = {ZMQ_ROUTER, BUS_STATUS_REQUEST_MAX, HWM_FRAMES, LINGER_MS};
	struct bus_status *s;
	int rc = 0;

	*out = NULL;
	if ((s = calloc(1, sizeof(*s))) == NULL)
		return err_note_set(note, ENOMEM, "%s", endpoint);
	s->bus = bus;
	s->fn = fn;
	s->arg = arg;
	s->service.serve = serve;
	s->service.arg = s;
	if ((s->service.socket = bus__socket_new(bus, &options)) == NULL)
		rc = err_note_set(note, errno, "%s", endpoint);
	else if ((rc = bus__bind(bus, s->service.socket, endpoint, s->endpoint, note)) == 0 &&
	    ((rc = bus__guard_watch(bus->guard, s->endpoint, (struct bus__limits){HELD_BYTES, HELD_BYTES},
	    s->service.socket, NULL)) != 0 ||
	    (rc = bus__service_start(&s->service)) != 0))
		err_note_set(note, rc, "%s: status thread", endpoint);
	if (rc != 0)
		bus_status_destroy(&s);
	*out = s;
	return rc;
}

void
bus_status_destroy(struct bus_status **status)
{
	struct bus_status *s = *status;

	if (s == NULL)
		return;
	*status = NULL;
	bus__service_stop(&s->service);
	if (s->endpoint[0] != '\0')
		bus__guard_forget(s->bus->guard, s->endpoint);
	bus__socket_close(s->bus, &s->service.socket);
	free(s);
}

const char *
bus_status_endpoint(const struct bus_status *status)
{
	return status->endpoint;
}
