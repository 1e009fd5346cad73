#include "bus/internal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "log/log.h"

enum { HWM_FRAMES = 16, LINGER_MS = 200, ANSWER_MAX = 16 << 20, ASK_AT_ONCE = 512 };

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

/* One request: id, perhaps '', body. delimited: there was the ''. False: something else; in any case no part of it is left. */
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
		/* who asks faster than it reads loses answers: DONTWAIT, and ROUTER says so before the first part is taken */
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
	zmq_pollitem_t items[2] = {{s->socket, 0, ZMQ_POLLIN, 0}, {NULL, bus__waker_fd(s->stop), ZMQ_POLLIN, 0}};

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
bus_status_new(struct bus_status **out, struct bus *bus, const char *endpoint, bus_status_fn *fn, void *arg, struct err_note *note)
{
	struct bus__socket_options options = {ZMQ_ROUTER, BUS_STATUS_REQUEST_MAX, HWM_FRAMES, LINGER_MS};
	struct bus_status *s;
	sigset_t all, old;
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
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		rc = pthread_create(&s->thread, NULL, status_main, s);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		s->started = rc == 0;
		if (rc != 0)
			err_note_set(note, rc, "%s: status thread", endpoint);
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

/* The one frame of an answer; a longer message is nothing of ours. */
static void
take_answer(void *socket, struct bus_ask *ask)
{
	zmq_msg_t msg;
	int more;

	zmq_msg_init(&msg);
	if (zmq_msg_recv(&msg, socket, ZMQ_DONTWAIT) >= 0) {
		more = zmq_msg_more(&msg);
		if (!more && (ask->answer = malloc(zmq_msg_size(&msg) + 1)) != NULL) {
			ask->len = zmq_msg_size(&msg);
			memcpy(ask->answer, zmq_msg_data(&msg), ask->len);
			ask->answer[ask->len] = 0;
			ask->rc = 0;
		}
		while (more && zmq_msg_recv(&msg, socket, ZMQ_DONTWAIT) >= 0)
			more = zmq_msg_more(&msg);
	}
	zmq_msg_close(&msg);
}

static int
ask_some(struct bus *bus, struct bus_ask *asks, size_t n, const void *request, size_t request_len, int64_t timeout_ms)
{
	struct bus__socket_options options = {ZMQ_DEALER, ANSWER_MAX, HWM_FRAMES, 0};
	zmq_pollitem_t *items = calloc(n, sizeof(*items));
	int64_t end = bus_now_ms() + timeout_ms, left;
	size_t open = 0;

	if (items == NULL)
		return ENOMEM;
	for (size_t i = 0; i < n; i++) {
		items[i].events = ZMQ_POLLIN;
		items[i].fd = -1;		/* poll(2) leaves it out */
		if ((items[i].socket = bus__socket_new(bus, &options)) == NULL) {
			asks[i].rc = errno;
			continue;
		}
		if ((asks[i].rc = bus__connect(bus, items[i].socket, asks[i].endpoint, asks[i].server_key, NULL)) == 0
		    && zmq_send(items[i].socket, request, request_len, ZMQ_DONTWAIT) < 0)
			asks[i].rc = errno;
		if (asks[i].rc == 0) {
			asks[i].rc = ERR_TIMEOUT;
			open++;
		} else
			bus__socket_close(bus, &items[i].socket);
	}
	while (open > 0 && (left = end - bus_now_ms()) > 0) {
		if (zmq_poll(items, (int)n, (long)left) < 0 && errno != EINTR)
			break;
		for (size_t i = 0; i < n; i++)
			if (items[i].socket != NULL && (items[i].revents & ZMQ_POLLIN) != 0) {
				take_answer(items[i].socket, &asks[i]);
				if (asks[i].rc == 0) {
					bus__socket_close(bus, &items[i].socket);
					items[i].revents = 0;
					open--;
				}
			}
	}
	for (size_t i = 0; i < n; i++)
		bus__socket_close(bus, &items[i].socket);
	free(items);
	return 0;
}

int
bus_status_ask(struct bus *bus, struct bus_ask *asks, size_t n, const void *request, size_t request_len, int64_t timeout_ms)
{
	int rc = 0;

	for (size_t i = 0; i < n; i++) {
		asks[i].rc = ERR_TIMEOUT;
		asks[i].answer = NULL;
		asks[i].len = 0;
	}
	for (size_t at = 0; at < n && rc == 0; at += ASK_AT_ONCE)
		rc = ask_some(bus, asks + at, n - at < ASK_AT_ONCE ? n - at : ASK_AT_ONCE, request, request_len, timeout_ms);
	return rc;
}
