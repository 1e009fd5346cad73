/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask - requests to many status sockets at once; each ends with its own answer or timeout, independently of
 * the others.
 */
#include "fabric/bus/bus_internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/clock/clock.h"

enum { HWM_FRAMES = 16, ANSWER_MAX = 16 << 20, OPEN_MAX = 400 };

struct one {
	TAILQ_ENTRY(one) entry;
	struct bus_ask *ask;
	void *socket;			/* NULL: not opened yet, or ended */
	int64_t timeout_ms, end_ms;
	size_t len;
	uint8_t request[];
};

struct bus_asker {
	struct bus *bus;
	TAILQ_HEAD(, one) open, ended;	/* in the order asked; in the order they ended */
	size_t n, n_sockets;
	zmq_pollitem_t items[OPEN_MAX];
	struct one *polled[OPEN_MAX];	/* the request of each item */
};

int
bus_asker_new(struct bus_asker **out, struct bus *bus)
{
	if ((*out = calloc(1, sizeof(**out))) == NULL)
		return ENOMEM;
	(*out)->bus = bus;
	TAILQ_INIT(&(*out)->open);
	TAILQ_INIT(&(*out)->ended);
	return 0;
}

void
bus_asker_destroy(struct bus_asker **asker)
{
	struct bus_asker *a = *asker;
	struct one *o;

	if (a == NULL)
		return;
	TAILQ_CONCAT(&a->ended, &a->open, entry);
	while ((o = TAILQ_FIRST(&a->ended)) != NULL) {	/* the asks are not touched: their owner may have freed them */
		bus__socket_close(a->bus, &o->socket);
		TAILQ_REMOVE(&a->ended, o, entry);
		free(o);
	}
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
	struct one *o = calloc(1, sizeof(*o) + len);

	if (o == NULL)
		return ENOMEM;
	o->ask = ask;
	o->timeout_ms = timeout_ms;
	o->len = len;
	memcpy(o->request, request, len);
	ask->rc = ERR_TIMEOUT;
	ask->answer = NULL;
	ask->len = 0;
	TAILQ_INSERT_TAIL(&a->open, o, entry);
	a->n++;
	return 0;
}

static void
end(struct bus_asker *a, struct one *o, int rc)
{
	o->ask->rc = rc;
	a->n_sockets -= o->socket != NULL;
	bus__socket_close(a->bus, &o->socket);
	TAILQ_REMOVE(&a->open, o, entry);
	TAILQ_INSERT_TAIL(&a->ended, o, entry);
}

static void
open_one(struct bus_asker *a, struct one *o)
{
	struct bus__socket_options options = {ZMQ_DEALER, ANSWER_MAX, HWM_FRAMES, 0};
	int rc;

	o->end_ms = clock_now_ms() + o->timeout_ms;
	if ((o->socket = bus__socket_new(a->bus, &options)) == NULL) {
		end(a, o, errno);
		return;
	}
	a->n_sockets++;
	rc = bus__connect(a->bus, o->socket, o->ask->endpoint, o->ask->server_key, NULL);
	if (rc == 0 && zmq_send(o->socket, o->request, o->len, ZMQ_DONTWAIT) < 0)
		rc = errno;
	if (rc != 0)
		end(a, o, rc);
}

/* Receives the answer if it has arrived. True: the request has ended. */
static bool
take_answer(struct bus_asker *a, struct one *o)
{
	struct bus_event event = {0};
	bool single;

	if (bus__frame_recv(o->socket, &event, &single) != 0)
		return false;
	if (single && (o->ask->answer = malloc(event.len + 1)) != NULL) {
		o->ask->len = event.len;
		memcpy(o->ask->answer, event.frame, event.len);
		o->ask->answer[event.len] = 0;
		end(a, o, 0);
	}
	bus_event_free(&event);
	return o->socket == NULL;
}

/*
 * Opens requests up to the limit, ends those that timed out, and waits for answers until `until` at the
 * latest.
 */
static int
turn(struct bus_asker *a, int64_t until)
{
	int64_t now = clock_now_ms(), wait;
	int n = 0;

	for (struct one *o = TAILQ_FIRST(&a->open), *next; o != NULL; o = next) {
		next = TAILQ_NEXT(o, entry);
		if (o->socket == NULL && a->n_sockets < OPEN_MAX)
			open_one(a, o);
		if (o->socket == NULL)
			continue;
		if (o->end_ms <= now) {
			if (!take_answer(a, o))		/* the answer may have arrived since the last poll */
				end(a, o, ERR_TIMEOUT);
			continue;
		}
		until = o->end_ms < until ? o->end_ms : until;
		a->items[n] = (zmq_pollitem_t){.socket = o->socket, .fd = -1, .events = ZMQ_POLLIN};
		a->polled[n++] = o;
	}
	if (!TAILQ_EMPTY(&a->ended))
		return 0;
	wait = until - clock_now_ms();
	if (zmq_poll(a->items, n, wait > 0 ? (long)wait : 0) < 0)
		return errno == EINTR ? 0 : errno;
	for (int i = 0; i < n; i++)
		if ((a->items[i].revents & ZMQ_POLLIN) != 0)
			take_answer(a, a->polled[i]);
	return 0;
}

/* Returns the first one that has ended; NULL: none has. */
static struct bus_ask *
leave(struct bus_asker *a)
{
	struct one *o = TAILQ_FIRST(&a->ended);
	struct bus_ask *ask;

	if (o == NULL)
		return NULL;
	ask = o->ask;
	TAILQ_REMOVE(&a->ended, o, entry);
	free(o);
	a->n--;
	return ask;
}

struct bus_ask *
bus_asker_next(struct bus_asker *a, int64_t wait_ms)
{
	int64_t until = clock_now_ms() + wait_ms;
	int rc = 0;

	while (!TAILQ_EMPTY(&a->open) && TAILQ_EMPTY(&a->ended) && (rc = turn(a, until)) == 0)
		if (clock_now_ms() >= until)
			break;
	while (rc != 0 && !TAILQ_EMPTY(&a->open))	/* polling failed: no answer will come */
		end(a, TAILQ_FIRST(&a->open), rc);
	return leave(a);
}

struct bus_ask *
bus_asker_drop(struct bus_asker *a)
{
	if (TAILQ_EMPTY(&a->ended) && !TAILQ_EMPTY(&a->open))
		end(a, TAILQ_FIRST(&a->open), ERR_TIMEOUT);
	return leave(a);
}
