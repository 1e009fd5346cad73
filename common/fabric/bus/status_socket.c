#include "fabric/bus/bus_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log/log.h"

enum { HWM_FRAMES = 16, LINGER_MS = 200 };

struct bus_status {
	struct bus *bus;
	void *socket;
	char endpoint[BUS_ENDPOINT_MAX];
	bus_status_fn *fn;
	void *arg;
	struct bus_waker *stop;
	atomic_bool stopping;
	bool started;
	pthread_t thread;
};

/*
 * One request: id, perhaps '', body; delimited tells whether '' was there. False: something else. Takes all
 * parts in any case.
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
serve(struct bus_status *s)
{
	zmq_msg_t id, body;
	uint8_t *answer = NULL;
	size_t len = 0;
	bool delimited;

	zmq_msg_init(&id);
	zmq_msg_init(&body);
	if (receive(s->socket, &id, &body, &delimited)) {
		s->fn(s->arg, zmq_msg_data(&body), zmq_msg_size(&body), &answer, &len);
		/*
		 * a client that asks faster than it reads loses answers: ROUTER refuses the first part of
		 * one, so no answer is cut
		 */
		if (answer != NULL && zmq_msg_send(&id, s->socket, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0
		    && (!delimited || zmq_send(s->socket, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0))
			zmq_send(s->socket, answer, len, ZMQ_DONTWAIT);
		free(answer);
	}
	zmq_msg_close(&id);
	zmq_msg_close(&body);
}

static void *
status_main(void *arg)
{
	struct bus_status *s = arg;
	zmq_pollitem_t items[2] = {{s->socket, 0, ZMQ_POLLIN, 0}, {NULL, bus__waker_fd(s->stop), ZMQ_POLLIN,
	    0}};

	while (!atomic_load(&s->stopping)) {
		if (zmq_poll(items, 2, -1) < 0 && errno != EINTR) {
			log_error("bus.status", "error=\"%s\"", zmq_strerror(errno));
			break;
		}
		if ((items[0].revents & ZMQ_POLLIN) != 0)
			serve(s);
	}
	return NULL;
}

int
bus_status_new(struct bus_status **out, struct bus *bus, const char *endpoint, bus_status_fn *fn, void *arg,
    struct err_note *note)
{
	struct bus__socket_options options = {ZMQ_ROUTER, BUS_STATUS_REQUEST_MAX, HWM_FRAMES, LINGER_MS};
	struct bus_status *s;
	int rc = 0;

	*out = NULL;
	if ((s = calloc(1, sizeof(*s))) == NULL || (s->stop = bus_waker_new()) == NULL) {
		free(s);
		return err_note_set(note, ENOMEM, "%s", endpoint);
	}
	s->bus = bus;
	s->fn = fn;
	s->arg = arg;
	if ((s->socket = bus__socket_new(bus, &options)) == NULL)
		rc = err_note_set(note, errno, "%s", endpoint);
	else if ((rc = bus__bind(bus, s->socket, endpoint, s->endpoint, note)) == 0) {
		if ((rc = bus__thread_new(&s->thread, status_main, s)) != 0)
			err_note_set(note, rc, "%s: status thread", endpoint);
		s->started = rc == 0;
	}
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
	if (s->started) {
		atomic_store(&s->stopping, true);
		bus_waker_wake(s->stop);
		pthread_join(s->thread, NULL);
	}
	bus__socket_close(s->bus, &s->socket);
	bus_waker_destroy(&s->stop);
	free(s);
}

const char *
bus_status_endpoint(const struct bus_status *status)
{
	return status->endpoint;
}
