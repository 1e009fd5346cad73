/*
 * ask - requests to many status sockets at once; each ends with its own answer or timeout, independent of the
 * others.
 */
#include "fabric/bus/bus_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock/clock.h"
#include "base/mem/mem.h"

enum { HWM_FRAMES = 16, ANSWER_MAX = 16 << 20, OPEN_MAX = 400 };

struct one {
	struct bus_ask *ask;
	void *socket;			/* NULL: not opened yet, or over */
	void *request;
	size_t len;
	int64_t timeout_ms, end_ms;
	bool over;
};

struct bus_asker {
	struct bus *bus;
	struct one *ones;		/* in the order asked */
	size_t n, cap, n_sockets, n_over;
	zmq_pollitem_t *items;
	size_t *at;			/* items[i] is of ones[at[i]] */
	size_t items_cap, at_cap;
};

int
bus_asker_new(struct bus_asker **out, struct bus *bus)
{
	if ((*out = calloc(1, sizeof(**out))) == NULL)
		return ENOMEM;
	(*out)->bus = bus;
	return 0;
}

void
bus_asker_destroy(struct bus_asker **asker)
{
	struct bus_asker *a = *asker;

	if (a == NULL)
		return;
	for (size_t i = 0; i < a->n; i++) {
		bus__socket_close(a->bus, &a->ones[i].socket);
		free(a->ones[i].request);
	}
	free(a->ones);
	free(a->items);
	free(a->at);
	free(a);
	*asker = NULL;
}

size_t
bus_asker_open(const struct bus_asker *asker)
{
	return asker->n;
}

int
bus_asker_ask(struct bus_asker *a, struct bus_ask *ask, const void *request, size_t len, int64_t timeout_ms)
{
	struct one *o;

	if (mem_grow((void **)&a->ones, &a->cap, a->n + 1, sizeof(*a->ones)) != 0)
		return ENOMEM;
	o = &a->ones[a->n];
	*o = (struct one){.ask = ask, .len = len, .timeout_ms = timeout_ms};
	if ((o->request = malloc(len + 1)) == NULL)
		return ENOMEM;
	memcpy(o->request, request, len);
	ask->rc = ERR_TIMEOUT;
	ask->answer = NULL;
	ask->len = 0;
	a->n++;
	return 0;
}

static void
end(struct bus_asker *a, struct one *o)
{
	a->n_sockets -= o->socket != NULL;
	bus__socket_close(a->bus, &o->socket);
	o->over = true;
	a->n_over++;
}

static void
open_one(struct bus_asker *a, struct one *o)
{
	struct bus__socket_options options = {ZMQ_DEALER, ANSWER_MAX, HWM_FRAMES, 0};
	int rc;

	o->end_ms = clock_now_ms() + o->timeout_ms;
	if ((o->socket = bus__socket_new(a->bus, &options)) == NULL) {
		o->ask->rc = errno;
		end(a, o);
		return;
	}
	a->n_sockets++;
	if ((rc = bus__connect(a->bus, o->socket, o->ask->endpoint, o->ask->server_key, NULL)) == 0
	    && zmq_send(o->socket, o->request, o->len, ZMQ_DONTWAIT) < 0)
		rc = errno;
	if (rc != 0) {
		o->ask->rc = rc;
		end(a, o);
	}
}

/* The one frame of an answer; a message of more parts is dropped. */
static void
take_answer(struct bus_asker *a, struct one *o)
{
	struct bus_ask *ask = o->ask;
	zmq_msg_t msg;
	int more;

	zmq_msg_init(&msg);
	if (zmq_msg_recv(&msg, o->socket, ZMQ_DONTWAIT) >= 0) {
		more = zmq_msg_more(&msg);
		if (!more && (ask->answer = malloc(zmq_msg_size(&msg) + 1)) != NULL) {
			ask->len = zmq_msg_size(&msg);
			memcpy(ask->answer, zmq_msg_data(&msg), ask->len);
			ask->answer[ask->len] = 0;
			ask->rc = 0;
		}
		while (more && zmq_msg_recv(&msg, o->socket, ZMQ_DONTWAIT) >= 0)
			more = zmq_msg_more(&msg);
	}
	zmq_msg_close(&msg);
	if (ask->rc == 0)
		end(a, o);
}

/* Removes one that is over and returns it; NULL: none is. */
static struct bus_ask *
leave(struct bus_asker *a)
{
	struct bus_ask *ask = NULL;

	for (size_t i = 0; i < a->n && ask == NULL; i++)
		if (a->ones[i].over) {
			ask = a->ones[i].ask;
			free(a->ones[i].request);
			memmove(&a->ones[i], &a->ones[i + 1], (a->n - i - 1) * sizeof(a->ones[0]));
			a->n--;
			a->n_over--;
		}
	return ask;
}

/* Opens what may be opened, ends what timed out, and waits for answers until `until` at the latest. */
static int
turn(struct bus_asker *a, int64_t until)
{
	int64_t now = clock_now_ms(), wait;
	size_t n = 0;

	for (size_t i = 0; i < a->n; i++) {
		struct one *o = &a->ones[i];

		if (!o->over && o->socket == NULL && a->n_sockets < OPEN_MAX)
			open_one(a, o);
		if (o->socket == NULL)
			continue;
		if (o->end_ms <= now) {
			take_answer(a, o);	/* it may have come since the last poll */
			if (!o->over)
				end(a, o);
		} else {
			until = o->end_ms < until ? o->end_ms : until;
		}
	}
	if (a->n_over > 0)
		return 0;
	if (mem_grow((void **)&a->items, &a->items_cap, a->n + 1, sizeof(*a->items)) != 0 ||
	    mem_grow((void **)&a->at, &a->at_cap, a->n + 1, sizeof(*a->at)) != 0)
		return ENOMEM;
	for (size_t i = 0; i < a->n; i++)
		if (a->ones[i].socket != NULL) {
			a->items[n] = (zmq_pollitem_t){.socket = a->ones[i].socket, .fd = -1,
			    .events = ZMQ_POLLIN};
			a->at[n++] = i;
		}
	wait = until - clock_now_ms();
	if (zmq_poll(a->items, (int)n, wait > 0 ? (long)wait : 0) < 0)
		return errno == EINTR ? 0 : errno;
	for (size_t i = 0; i < n; i++)
		if ((a->items[i].revents & ZMQ_POLLIN) != 0)
			take_answer(a, &a->ones[a->at[i]]);
	return 0;
}

struct bus_ask *
bus_asker_next(struct bus_asker *a, int64_t wait_ms)
{
	int64_t until = clock_now_ms() + wait_ms;
	int rc = 0;

	while (a->n > 0 && a->n_over == 0 && (rc = turn(a, until)) == 0)
		if (a->n_over == 0 && clock_now_ms() >= until)
			break;
	for (size_t i = 0; rc != 0 && i < a->n; i++)	/* polling failed: end all of them */
		if (!a->ones[i].over) {
			a->ones[i].ask->rc = rc;
			end(a, &a->ones[i]);
		}
	return leave(a);
}

struct bus_ask *
bus_asker_drop(struct bus_asker *a)
{
	for (size_t i = 0; i < a->n; i++)
		if (!a->ones[i].over) {
			end(a, &a->ones[i]);
			break;
		}
	return leave(a);
}
