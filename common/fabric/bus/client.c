#include "fabric/bus/bus_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock/clock.h"

/* RETRY, REFUSED: how long the library has to begin another try, before we do */
enum { HWM_FRAMES = 16, QUEUE_MESSAGES = 4, LINGER_MS = 1000, RETRY_MS = 1000, REFUSED_MS = 3000 };

struct bus_client {
	struct bus *bus;
	void *socket, *monitor;
	char endpoint[BUS_ENDPOINT_MAX];
	bool connected;
	int64_t retry_ms;		/* when to connect anew ourselves; INT64_MAX: the library does */
	enum bus_event_kind pending[2];	/* connection events not handed out yet, oldest first; 0: none */
	size_t max_queued;
	struct bus__outbox box;
};

int
bus_client_new(struct bus_client **out, struct bus *bus, const char *endpoint, const char *server_key, struct err_note *note)
{
	struct bus__socket_options options = {ZMQ_DEALER, (int64_t)bus->max_message, HWM_FRAMES, LINGER_MS};
	struct bus_client *c;
	int one = 1, rc;

	*out = NULL;
	if ((c = calloc(1, sizeof(*c))) == NULL)
		return err_note_set(note, ENOMEM, "%s", endpoint);
	c->bus = bus;
	c->max_queued = (size_t)bus->max_message * QUEUE_MESSAGES;
	c->retry_ms = INT64_MAX;
	snprintf(c->endpoint, sizeof(c->endpoint), "%s", endpoint);
	/* IMMEDIATE: nothing is kept for a connection that is not there, so no frame can reach a new selectord before HELLO */
	if ((c->socket = bus__socket_new(bus, &options)) == NULL
	    || zmq_setsockopt(c->socket, ZMQ_IMMEDIATE, &one, sizeof(one)) != 0
	    || (c->monitor = bus__monitor_new(bus, c->socket, ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED
	    | ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)) == NULL)
		rc = err_note_set(note, errno, "%s", endpoint);
	else
		rc = bus__connect(bus, c->socket, endpoint, server_key, note);
	if (rc != 0)
		bus_client_destroy(&c);
	*out = c;
	return rc;
}

void
bus_client_destroy(struct bus_client **client)
{
	struct bus_client *c = *client;

	if (c == NULL)
		return;
	*client = NULL;
	if (c->socket != NULL)
		bus__client_flush(c);
	bus__outbox_clear(&c->box);
	bus__socket_close(c->bus, &c->socket);
	bus__socket_close(c->bus, &c->monitor);
	free(c);
}

/* DISCONNECTED and CONNECTED may stand behind one another; a further one of a kind replaces what it makes stale. */
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
 * After what it takes for an error of the protocol (a refused key, a frame too long) the library gives a connection up for good and
 * says nothing; after all else it tells that it tries again. So a loss that no such word follows is ours to mend.
 */
static void
drain_monitor(struct bus_client *c)
{
	int event, value;

	while (bus__monitor_next(c->monitor, &event, &value))
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
			/* a connection refused in its handshake ends so too, and never stood */
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

int
bus_client_recv(struct bus_client *c, struct bus_event *event)
{
	memset(event, 0, sizeof(*event));
	drain_monitor(c);
	if (c->pending[0] != 0) {
		event->kind = c->pending[0];
		c->pending[0] = c->pending[1];
		c->pending[1] = 0;
		return 0;
	}
	for (;;) {
		zmq_msg_t *msg;
		int more;

		if ((msg = malloc(sizeof(*msg))) == NULL)
			return ENOMEM;
		zmq_msg_init(msg);
		if (zmq_msg_recv(msg, c->socket, ZMQ_DONTWAIT) < 0) {
			int rc = errno;

			free(msg);
			if (rc == EINTR)
				continue;
			return rc == EAGAIN ? ERR_AGAIN : rc;
		}
		if ((more = zmq_msg_more(msg)) == 0) {
			event->kind = BUS_EVENT_FRAME;
			event->frame = zmq_msg_data(msg);
			event->len = zmq_msg_size(msg);
			event->own = msg;
			return 0;
		}
		/* no server of ours does that: nothing of it is taken */
		while (more && zmq_msg_recv(msg, c->socket, 0) >= 0)
			more = zmq_msg_more(msg);
		zmq_msg_close(msg);
		free(msg);
	}
}

static int
try_send(struct bus_client *c, zmq_msg_t *msg)
{
	int events;
	size_t n = sizeof(events);

	for (int attempt = 0; zmq_msg_send(msg, c->socket, ZMQ_DONTWAIT) < 0; attempt++) {
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN || attempt > 0)
			return errno;
		zmq_getsockopt(c->socket, ZMQ_EVENTS, &events, &n);	/* hears of room and of new connections */
	}
	return 0;
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
	if ((rc = bus__frame_wrap(&msg, frame, len)) != 0)
		return rc;
	if (c->box.first == NULL) {
		if ((rc = try_send(c, &msg)) == 0)
			return 0;
		if (rc != EAGAIN) {
			zmq_msg_close(&msg);
			return rc;
		}
	}
	return bus__outbox_put(&c->box, &msg, c->max_queued);
}

int64_t
bus__client_due_ms(const struct bus_client *client)
{
	return client->retry_ms;
}

size_t
bus__client_flush(struct bus_client *c)
{
	drain_monitor(c);
	if (c->retry_ms <= clock_now_ms()) {
		c->retry_ms = INT64_MAX;
		zmq_disconnect(c->socket, c->endpoint);
		/* it was connected once, so nothing is wrong with the endpoint; without memory: later */
		if (zmq_connect(c->socket, c->endpoint) != 0)
			c->retry_ms = clock_now_ms() + REFUSED_MS;
	}
	while (c->box.first != NULL) {
		size_t len = zmq_msg_size(&c->box.first->msg);

		if (try_send(c, &c->box.first->msg) != 0)
			break;
		c->box.bytes -= len;
		bus__outbox_drop_first(&c->box);
	}
	return c->box.bytes;
}

bool
bus__client_pending(const struct bus_client *client)
{
	return client->pending[0] != 0;
}

bool
bus_client_connected(const struct bus_client *client)
{
	return client->connected;
}

size_t
bus_client_queued(const struct bus_client *client)
{
	return client->box.bytes;
}

void *
bus__client_socket(struct bus_client *client)
{
	return client->socket;
}

void *
bus__client_monitor(struct bus_client *client)
{
	return client->monitor;
}
