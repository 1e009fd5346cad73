#include "fabric/bus/bus_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/clock/clock.h"
#include "base/log/log.h"

enum {
	BUCKETS = 256,
	HWM_FRAMES = 16,
	QUEUE_MESSAGES = 4,		/* our own queue a peer, in units of max_message */
	ID_BYTES = 5,			/* of ids that ROUTER makes: 0 and a number */
	LINGER_MS = 1000,
	END_MS = 500			/* for a last REFUSE to leave before the connection is cut */
};

/*
 * One connection. Its number is its routing id. ZeroMQ tells of a lost connection by its file descriptor only, so the descriptor a
 * frame came in on is kept; a descriptor is used again, which recv() takes care of.
 */
struct peer {
	struct peer *next;		/* of the bucket */
	uint64_t number;
	int fd;				/* -1: not known */
	bool gone, ended;
	int64_t end_ms;			/* ended: when to cut it off; INT64_MAX: done */
	struct bus__outbox box;
};

struct bus_server {
	struct bus *bus;
	void *socket, *monitor;
	char endpoint[BUS_ENDPOINT_MAX];
	struct peer *buckets[BUCKETS];
	size_t n_gone, n_ended;		/* peers marked so and still in the table */
	size_t queued, max_queued;	/* bytes; the latter a peer */
	uint64_t n_bad;
};

int
bus_server_new(struct bus_server **out, struct bus *bus, const char *endpoint, struct err_note *note)
{
	struct bus__socket_options options = {ZMQ_ROUTER, (int64_t)bus->max_message, HWM_FRAMES, LINGER_MS};
	struct bus_server *s;
	int rc = 0;

	*out = NULL;
	if ((s = calloc(1, sizeof(*s))) == NULL)
		return err_note_set(note, ENOMEM, "%s", endpoint);
	s->bus = bus;
	s->max_queued = (size_t)bus->max_message * QUEUE_MESSAGES;
	if ((s->socket = bus__socket_new(bus, &options)) == NULL
	    || (s->monitor = bus__monitor_new(bus, s->socket, ZMQ_EVENT_DISCONNECTED)) == NULL)
		rc = err_note_set(note, errno, "%s", endpoint);
	else
		rc = bus__bind(bus, s->socket, endpoint, s->endpoint, note);
	if (rc != 0)
		bus_server_destroy(&s);
	*out = s;
	return rc;
}

void
bus_server_destroy(struct bus_server **server)
{
	struct bus_server *s = *server;

	if (s == NULL)
		return;
	*server = NULL;
	bus__server_flush(s);		/* what still fits goes along */
	for (int b = 0; b < BUCKETS; b++)
		for (struct peer *p = s->buckets[b], *next; p != NULL; p = next) {
			next = p->next;
			bus__outbox_clear(&p->box);
			free(p);
		}
	bus__socket_close(s->bus, &s->socket);
	bus__socket_close(s->bus, &s->monitor);
	free(s);
}

const char *
bus_server_endpoint(const struct bus_server *server)
{
	return server->endpoint;
}

uint64_t
bus_server_bad(const struct bus_server *server)
{
	return server->n_bad;
}

size_t
bus_server_queued(const struct bus_server *server)
{
	return server->queued;
}

/* Numbers are never 0: bit 40 is always set. */
static uint64_t
number_of(const uint8_t id[ID_BYTES])
{
	uint64_t n = 1;

	for (int i = 0; i < ID_BYTES; i++)
		n = n << 8 | id[i];
	return n;
}

static void
id_of(uint64_t number, uint8_t id[ID_BYTES])
{
	for (int i = ID_BYTES - 1; i >= 0; i--, number >>= 8)
		id[i] = (uint8_t)number;
}

static struct peer *
find(struct bus_server *s, uint64_t number)
{
	struct peer *p = s->buckets[number % BUCKETS];

	while (p != NULL && p->number != number)
		p = p->next;
	return p;
}

static void
drop_queue(struct bus_server *s, struct peer *p)
{
	s->queued -= p->box.bytes;
	bus__outbox_clear(&p->box);
}

static void
mark_gone(struct bus_server *s, struct peer *p)
{
	if (p->gone)
		return;
	p->gone = true;
	p->fd = -1;
	s->n_gone++;
	drop_queue(s, p);
}

/* Everybody on this descriptor but `keep` (may be NULL) is gone. */
static void
fd_gone(struct bus_server *s, int fd, const struct peer *keep)
{
	for (int b = 0; b < BUCKETS; b++)
		for (struct peer *p = s->buckets[b]; p != NULL; p = p->next)
			if (p->fd == fd && p != keep)
				mark_gone(s, p);
}

static void
drain_monitor(struct bus_server *s)
{
	int event, value;

	while (bus__monitor_next(s->monitor, &event, &value))
		if (event == ZMQ_EVENT_DISCONNECTED)
			fd_gone(s, value, NULL);
}

/* Takes one gone peer out of the table; 0 when there is none. */
static uint64_t
take_gone(struct bus_server *s)
{
	for (int b = 0; s->n_gone > 0 && b < BUCKETS; b++)
		for (struct peer **at = &s->buckets[b]; *at != NULL; at = &(*at)->next)
			if ((*at)->gone) {
				struct peer *p = *at;
				uint64_t number = p->number;

				*at = p->next;
				s->n_gone--;
				s->n_ended -= p->ended;
				free(p);
				return number;
			}
	return 0;
}

static void
cut_off(struct peer *p)
{
	/* The library has no call for it. It sees the closed connection and does the rest, DISCONNECTED included. */
	if (p->fd >= 0)
		shutdown(p->fd, SHUT_RDWR);
	p->end_ms = INT64_MAX;
}

static void
end(struct bus_server *s, struct peer *p, int64_t end_ms)
{
	if (p->gone || p->ended)
		return;
	p->ended = true;
	p->end_ms = end_ms;
	s->n_ended++;
}

void
bus_server_end(struct bus_server *s, uint64_t number)
{
	struct peer *p = find(s, number);

	if (p != NULL)
		end(s, p, clock_now_ms() + END_MS);
}

/* A peer that broke the rules of frames, found by what it sent. */
static void
punish(struct bus_server *s, struct peer *p, const char *why)
{
	s->n_bad++;
	log_warn("bus.bad_peer", "endpoint=%s peer=%llx why=\"%s\"", s->endpoint, (unsigned long long)p->number, why);
	drop_queue(s, p);
	end(s, p, 0);
	cut_off(p);
}

static struct peer *
note_peer(struct bus_server *s, uint64_t number, int fd)
{
	struct peer *p = find(s, number);

	if (p != NULL)
		return p;
	/*
	 * A new connection may have the descriptor of one that ended: its DISCONNECTED was sent before, so it is there by now. Taken
	 * first, it cannot hit the new peer.
	 */
	drain_monitor(s);
	if ((p = calloc(1, sizeof(*p))) == NULL)
		return NULL;
	p->number = number;
	p->fd = fd;
	p->next = s->buckets[number % BUCKETS];
	s->buckets[number % BUCKETS] = p;
	if (fd >= 0)
		fd_gone(s, fd, p);
	return p;
}

/* The key's role and name, as zap.c gave them: "role/name". */
static void
fill_user(struct bus_event *event, zmq_msg_t *msg)
{
	const char *user = zmq_msg_gets(msg, "User-Id"), *slash;
	char role[16];

	if (user == NULL || (slash = strchr(user, '/')) == NULL || (size_t)(slash - user) >= sizeof(role))
		return;
	memcpy(role, user, (size_t)(slash - user));
	role[slash - user] = 0;
	event->key_role = bus__role_from_name(role);
	snprintf(event->user, sizeof(event->user), "%s", slash + 1);
}

/* The rest of a message of too many parts: they are all here, or none would be. */
static void
skip_parts(void *socket)
{
	zmq_msg_t msg;
	int more = 1;

	while (more) {
		zmq_msg_init(&msg);
		more = zmq_msg_recv(&msg, socket, 0) >= 0 && zmq_msg_more(&msg);
		zmq_msg_close(&msg);
	}
}

int
bus_server_recv(struct bus_server *s, struct bus_event *event)
{
	memset(event, 0, sizeof(*event));
	/* First who is gone, then the frames: at EAGAIN all that those had sent has been handed out. */
	drain_monitor(s);
	for (;;) {
		uint8_t id[256];
		struct peer *p;
		zmq_msg_t *msg;
		int n, more;

		if ((n = zmq_recv(s->socket, id, sizeof(id), ZMQ_DONTWAIT)) < 0) {
			if (errno == EINTR)
				continue;
			if (errno != EAGAIN)
				return errno;
			if ((event->peer = take_gone(s)) == 0)
				return ERR_AGAIN;
			event->kind = BUS_EVENT_GONE;
			return 0;
		}
		if ((msg = malloc(sizeof(*msg))) == NULL) {
			skip_parts(s->socket);
			return ENOMEM;
		}
		zmq_msg_init(msg);
		if (zmq_msg_recv(msg, s->socket, 0) < 0) {
			free(msg);
			return errno;
		}
		if ((more = zmq_msg_more(msg)) != 0)
			skip_parts(s->socket);
		/* an id of its own choosing is not one of ours: nobody is answered there */
		p = n == ID_BYTES && id[0] == 0 ? note_peer(s, number_of(id), zmq_msg_get(msg, ZMQ_SRCFD)) : NULL;
		if (p == NULL && n != ID_BYTES)
			s->n_bad++;
		if (p != NULL && more && !p->ended)
			punish(s, p, "more than one part");
		if (p == NULL || more || p->ended) {
			zmq_msg_close(msg);
			free(msg);
			continue;
		}
		event->kind = BUS_EVENT_FRAME;
		event->peer = p->number;
		event->frame = zmq_msg_data(msg);
		event->len = zmq_msg_size(msg);
		event->own = msg;
		fill_user(event, msg);
		return 0;
	}
}

void
bus_event_free(struct bus_event *event)
{
	if (event->own != NULL) {
		zmq_msg_close(event->own);
		free(event->own);
	}
	memset(event, 0, sizeof(*event));
}

/* 0: msg taken; EAGAIN, EHOSTUNREACH: still the caller's. */
static int
try_send(struct bus_server *s, const struct peer *p, zmq_msg_t *msg)
{
	uint8_t id[ID_BYTES];
	int events, rc;
	size_t n = sizeof(events);

	id_of(p->number, id);
	for (int attempt = 0; ; attempt++) {
		if (zmq_send(s->socket, id, ID_BYTES, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
			break;
		if ((rc = errno) == EINTR)
			continue;
		if (rc != EAGAIN || attempt > 0)
			return rc;
		/* asking for events makes the socket hear what its peers have read meanwhile */
		zmq_getsockopt(s->socket, ZMQ_EVENTS, &events, &n);
	}
	/* the id found room, so the body has it */
	while (zmq_msg_send(msg, s->socket, ZMQ_DONTWAIT) < 0)
		if (errno != EINTR)
			return errno;
	return 0;
}

int
bus_server_send(struct bus_server *s, uint64_t number, uint8_t *frame, size_t len)
{
	struct peer *p = find(s, number);
	zmq_msg_t msg;
	size_t before;
	int rc;

	if (p == NULL || p->gone || p->ended) {
		free(frame);
		return ERR_CLOSED;
	}
	if ((rc = bus__frame_wrap(&msg, frame, len)) != 0)
		return rc;
	if (p->box.first == NULL) {
		if ((rc = try_send(s, p, &msg)) == 0)
			return 0;
		if (rc != EAGAIN) {
			zmq_msg_close(&msg);
			mark_gone(s, p);
			return rc == EHOSTUNREACH ? ERR_CLOSED : rc;
		}
	}
	before = p->box.bytes;
	rc = bus__outbox_put(&p->box, &msg, s->max_queued);
	s->queued += p->box.bytes - before;
	return rc;
}

static void
flush_peer(struct bus_server *s, struct peer *p)
{
	while (p->box.first != NULL) {
		size_t len = zmq_msg_size(&p->box.first->msg);
		int rc = try_send(s, p, &p->box.first->msg);

		if (rc == EAGAIN)
			return;
		if (rc != 0) {
			mark_gone(s, p);
			return;
		}
		p->box.bytes -= len;
		s->queued -= len;
		bus__outbox_drop_first(&p->box);
	}
}

size_t
bus__server_flush(struct bus_server *s)
{
	int64_t now;

	if (s->queued == 0 && s->n_ended == 0)
		return 0;
	now = clock_now_ms();
	for (int b = 0; b < BUCKETS; b++)
		for (struct peer *p = s->buckets[b]; p != NULL; p = p->next) {
			flush_peer(s, p);
			if (p->ended && !p->gone && p->end_ms <= now)
				cut_off(p);
		}
	return s->queued;
}

bool
bus__server_pending(const struct bus_server *server)
{
	return server->n_gone > 0;
}

int64_t
bus__server_due_ms(const struct bus_server *s)
{
	int64_t due = INT64_MAX;

	for (int b = 0; s->n_ended > 0 && b < BUCKETS; b++)
		for (const struct peer *p = s->buckets[b]; p != NULL; p = p->next)
			if (p->ended && !p->gone && p->end_ms < due)
				due = p->end_ms;
	return due;
}

void *
bus__server_socket(struct bus_server *server)
{
	return server->socket;
}

void *
bus__server_monitor(struct bus_server *server)
{
	return server->monitor;
}
