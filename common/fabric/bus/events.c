/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/bus_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	HWM_EVENTS = 1000, EVENT_MAX = 64 << 10,
	HELD_BYTES = 256 << 10		/* a subscriber sends its subscriptions, and no more than this */
};

/* An event is a message of two parts: topic, text. */
struct bus_events {
	struct bus *bus;
	void *socket;
	char endpoint[BUS_ENDPOINT_MAX];
	bool publishes;
	pthread_mutex_t lock;		/* protects the socket when several threads send */
};

static int
make(struct bus_events **out, struct bus *bus, int type, struct err_note *note)
{
	struct bus__socket_options options = {type, EVENT_MAX, HWM_EVENTS, 0};

	if ((*out = calloc(1, sizeof(**out))) == NULL)
		return err_note_set(note, ENOMEM, "events");
	(*out)->bus = bus;
	pthread_mutex_init(&(*out)->lock, NULL);
	if (((*out)->socket = bus__socket_new(bus, &options)) == NULL)
		return err_note_set(note, errno, "events");
	return 0;
}

int
bus_events_publish(struct bus_events **out, struct bus *bus, const char *endpoint, struct err_note *note)
{
	int rc;

	if ((rc = make(out, bus, ZMQ_PUB, note)) == 0)
		rc = bus__bind(bus, (*out)->socket, endpoint, (*out)->endpoint, note);
	if (rc == 0 && (rc = bus__guard_watch(bus->guard, (*out)->endpoint, (struct bus__limits){HELD_BYTES, HELD_BYTES},
	    (*out)->socket, &(*out)->lock)) != 0)
		err_note_set(note, rc, "%s: thread that watches connections", endpoint);
	if (*out != NULL)
		(*out)->publishes = rc == 0;
	if (rc != 0)
		bus_events_destroy(out);
	return rc;
}

int
bus_events_subscribe(struct bus_events **out, struct bus *bus, const char *endpoint, const char *server_key,
    const char *topic, struct err_note *note)
{
	int rc;

	if ((rc = make(out, bus, ZMQ_SUB, note)) == 0
	    && (rc = bus__connect(bus, (*out)->socket, endpoint, server_key, note)) == 0
	    && zmq_setsockopt((*out)->socket, ZMQ_SUBSCRIBE, topic, strlen(topic)) != 0)
		rc = err_note_set(note, errno, "%s", endpoint);
	if (rc != 0)
		bus_events_destroy(out);
	else
		snprintf((*out)->endpoint, sizeof((*out)->endpoint), "%s", endpoint);
	return rc;
}

void
bus_events_destroy(struct bus_events **events)
{
	if (*events == NULL)
		return;
	if ((*events)->publishes)
		bus__guard_forget((*events)->bus->guard, (*events)->endpoint);
	bus__socket_close((*events)->bus, &(*events)->socket);
	pthread_mutex_destroy(&(*events)->lock);
	free(*events);
	*events = NULL;
}

const char *
bus_events_endpoint(const struct bus_events *events)
{
	return events->endpoint;
}

void
bus_events_send(struct bus_events *events, const char *topic, const char *text)
{
	if (events == NULL)
		return;
	pthread_mutex_lock(&events->lock);
	if (zmq_send(events->socket, topic, strlen(topic), ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
		zmq_send(events->socket, text, strlen(text), ZMQ_DONTWAIT);
	pthread_mutex_unlock(&events->lock);
}

static bool
copy_part(zmq_msg_t *msg, char *out, size_t size)
{
	size_t n = zmq_msg_size(msg);

	if (n >= size)
		n = size - 1;
	memcpy(out, zmq_msg_data(msg), n);
	out[n] = 0;
	return zmq_msg_more(msg);
}

int
bus_events_recv(struct bus_events *e, char *topic, size_t topic_size, char *text, size_t text_size,
    int64_t timeout_ms)
{
	zmq_pollitem_t item = {e->socket, 0, ZMQ_POLLIN, 0};
	zmq_msg_t msg;
	bool more;
	int n;

	topic[0] = text[0] = 0;
	if (zmq_poll(&item, 1, (long)timeout_ms) <= 0)
		return ERR_TIMEOUT;
	zmq_msg_init(&msg);
	n = zmq_msg_recv(&msg, e->socket, ZMQ_DONTWAIT);
	more = n >= 0 && copy_part(&msg, topic, topic_size);
	if (more && zmq_msg_recv(&msg, e->socket, 0) >= 0)
		more = copy_part(&msg, text, text_size);
	while (more && zmq_msg_recv(&msg, e->socket, 0) >= 0)
		more = zmq_msg_more(&msg);
	zmq_msg_close(&msg);
	return n >= 0 ? 0 : ERR_TIMEOUT;
}
