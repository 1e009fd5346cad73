/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/bus_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock/clock.h"

/*
 * RETRY_MS, REFUSED_MS: if the library does not retry, the client reconnects so long after a loss or a
 * rejection
 */
enum { HWM_FRAMES = 16, QUEUE_MESSAGES = 4, LINGER_MS = 1000, RETRY_MS = 1000, REFUSED_MS = 3000 };

#define MONITORED (ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CONNECT_RETRIED | \
	ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)

struct bus_client {
	struct bus__source source;
	struct bus *bus;
	char endpoint[BUS_ENDPOINT_MAX];
	bool connected;
	int64_t retry_ms;		/* when to reconnect; INT64_MAX: the library does it */
	enum bus_event_kind pending[2];	/* connection events that recv has not returned yet, oldest first; 0: none */
	size_t max_queued;
	struct bus__outbox box;
};

/* At most DISCONNECTED and then CONNECTED are pending; another event replaces those that it makes stale. */
static void
push_event(struct bus_client *c, enum bus_event_kind kind)
{
	if (c->pending[0] == 0)
		c->pending[0] = kind;
	else if (c->pending[0] == BUS_EVENT_DISCONNECTED && kind == BUS_EVENT_CONNECTED)
		c->pending[1] = kind;
	else {
		c->pending[0] = kind;
		c->pending[1] = 0;
	}
}

/*
 * After a protocol error (a rejected key, a frame too long) the library gives up the connection without an
 * event; in all other cases it retries and reports CONNECT_RETRIED. After a loss without CONNECT_RETRIED this
 * client therefore reconnects itself.
 */
static void
drain_monitor(struct bus_client *c)
{
	int event, value;

	while (bus__monitor_next(c->source.monitor, &event, &value))
		switch (event) {
		case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
			c->connected = true;
			c->retry_ms = INT64_MAX;
			push_event(c, BUS_EVENT_CONNECTED);
			break;
		case ZMQ_EVENT_CONNECT_RETRIED:
			c->retry_ms = INT64_MAX;
			break;
		case ZMQ_EVENT_DISCONNECTED:
			if (c->retry_ms == INT64_MAX)
				c->retry_ms = clock_now_ms() + RETRY_MS;
			/* this event also follows a handshake that was rejected */
			if (!c->connected)
				break;
			c->connected = false;
			bus__outbox_clear(&c->box);
			push_event(c, BUS_EVENT_DISCONNECTED);
			break;
		default:
			c->retry_ms = clock_now_ms() + REFUSED_MS;
			if (!c->connected)
				push_event(c, BUS_EVENT_REFUSED);
		}
}

static int
try_send(struct bus_client *c, zmq_msg_t *msg)
{
	int events;
	size_t n = sizeof(events);

	for (int attempt = 0; zmq_msg_send(msg, c->source.socket, ZMQ_DONTWAIT) < 0; attempt++) {
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN || attempt > 0)
			return errno;
		/* makes libzmq update the socket's state */
		zmq_getsockopt(c->source.socket, ZMQ_EVENTS, &events, &n);
	}
	return 0;
}

static size_t
flush(struct bus__source *source, int64_t *due_ms, bool *pending)
{
	struct bus_client *c = (struct bus_client *)source;
	struct bus__frame *frame;

	drain_monitor(c);
	if (c->retry_ms <= clock_now_ms()) {
		c->retry_ms = INT64_MAX;
		zmq_disconnect(c->source.socket, c->endpoint);
		/* the endpoint was accepted before, so this fails only when memory is short: try later */
		if (zmq_connect(c->source.socket, c->endpoint) != 0)
			c->retry_ms = clock_now_ms() + REFUSED_MS;
	}
	while ((frame = STAILQ_FIRST(&c->box.frames)) != NULL && try_send(c, &frame->msg) == 0)
		bus__outbox_drop_first(&c->box);
	*due_ms = c->retry_ms < *due_ms ? c->retry_ms : *due_ms;
	*pending = *pending || c->pending[0] != 0;
	return c->box.bytes;
}

int
bus_client_new(struct bus_client **out, struct bus *bus, const char *endpoint, const char *server_key,
    struct err_note *note)
{
	struct bus__socket_options options = {ZMQ_DEALER, (int64_t)bus->max_message, HWM_FRAMES, LINGER_MS};
	struct bus_client *c;
	int one = 1, rc;

	*out = NULL;
	if ((c = calloc(1, sizeof(*c))) == NULL)
		return err_note_set(note, ENOMEM, "%s", endpoint);
	STAILQ_INIT(&c->box.frames);
	c->source.flush = flush;
	c->bus = bus;
	c->max_queued = (size_t)bus->max_message * QUEUE_MESSAGES;
	c->retry_ms = INT64_MAX;
	snprintf(c->endpoint, sizeof(c->endpoint), "%s", endpoint);
	/* IMMEDIATE: nothing is queued while not connected, so nothing reaches a new selectord before HELLO */
	if ((c->source.socket = bus__socket_new(bus, &options)) == NULL
	    || zmq_setsockopt(c->source.socket, ZMQ_IMMEDIATE, &one, sizeof(one)) != 0
	    || (c->source.monitor = bus__monitor_new(bus, c->source.socket, MONITORED)) == NULL)
		rc = err_note_set(note, errno, "%s", endpoint);
	else
		rc = bus__connect(bus, c->source.socket, endpoint, server_key, note);
	if (rc != 0)
		bus_client_destroy(&c);
	*out = c;
	return rc;
}

void
bus_client_destroy(struct bus_client **client)
{
	struct bus_client *c = *client;
	int64_t ignored_ms = 0;
	bool ignored = false;

	if (c == NULL)
		return;
	*client = NULL;
	if (c->source.socket != NULL)
		flush(&c->source, &ignored_ms, &ignored);
	bus__outbox_clear(&c->box);
	bus__socket_close(c->bus, &c->source.socket);
	bus__socket_close(c->bus, &c->source.monitor);
	free(c);
}

int
bus_client_recv(struct bus_client *c, struct bus_event *event)
{
	bool single;
	int rc;

	memset(event, 0, sizeof(*event));
	drain_monitor(c);
	if (c->pending[0] != 0) {
		event->kind = c->pending[0];
		c->pending[0] = c->pending[1];
		c->pending[1] = 0;
		return 0;
	}
	while ((rc = bus__frame_recv(c->source.socket, event, &single)) == 0) {
		if (single) {
			event->kind = BUS_EVENT_FRAME;
			return 0;
		}
		bus_event_free(event);		/* the servers in this repository send one part only */
	}
	return rc == EAGAIN ? ERR_AGAIN : rc;
}

int
bus_client_send(struct bus_client *c, uint8_t *frame, size_t len)
{
	zmq_msg_t msg;
	int rc;

	drain_monitor(c);
	if (!c->connected) {
		free(frame);
		return ERR_CLOSED;
	}
	if ((rc = bus__frame_wrap(&msg, frame, len, NULL)) != 0)
		return rc;
	if (STAILQ_EMPTY(&c->box.frames)) {
		if ((rc = try_send(c, &msg)) == 0)
			return 0;
		if (rc != EAGAIN) {
			zmq_msg_close(&msg);
			return rc;
		}
	}
	return bus__outbox_put(&c->box, &msg, c->max_queued);
}
