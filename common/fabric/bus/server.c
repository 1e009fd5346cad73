/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/bus_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/clock/clock.h"
#include "base/log/log.h"
#include "base/mem/mem.h"

enum {
	BUCKETS = 256,
	HWM_FRAMES = 16,
	LIBRARY_BYTES = 1 << 20,	/* limit of frames that libzmq holds for a peer; the last one may
					   exceed it */
	QUEUE_MESSAGES = 4,		/* limit of what is queued for each peer, and from each peer, in units
					   of max_message */
	FIRST_BYTES = 256 << 10,	/* what a peer may send before its first message (HELLO) is complete */
	STUCK_MS = 2000,		/* a peer that has read nothing for this time is ended when the budget
					   is used up */
	ID_BYTES = 5,			/* length of ids that ROUTER makes: 0 and a number */
	AHEAD = 64,			/* ipc: at most so many frames are taken from libzmq for each one that
					   is returned */
	FRAME_COST = 160,		/* memory of a queued frame in addition to its bytes */
	LINGER_MS = 1000,
	END_MS = 500			/* time for a last REFUSE to be sent before the connection is
					   closed */
};

/*
 * One connection. Its number is its routing id. ZeroMQ reports a lost connection by its file descriptor only,
 * so the peer keeps the descriptor on which its first frame arrived. Descriptors are reused; note_peer
 * handles that.
 */
struct peer {
	LIST_ENTRY(peer) entry;
	uint64_t number;
	int fd;				/* -1: not known */
	bool gone, ended;
	char public_key[BUS_KEY_BYTES];	/* with keys */
	int64_t end_ms;			/* ended: when to close the connection; INT64_MAX: done */
	struct bus__outbox box;
	struct bus__flow *flow;		/* bytes in box and in libzmq */
	size_t in_bytes;		/* of frames in bus_server.in */
};

/* A frame that was taken from libzmq and is not returned yet. */
struct waiting {
	TAILQ_ENTRY(waiting) entry;
	struct bus_event event;
};

struct bus_server {
	struct bus__source source;
	struct bus *bus;
	char endpoint[BUS_ENDPOINT_MAX];
	LIST_HEAD(, peer) buckets[BUCKETS];	/* by number */
	size_t n_gone, n_ended;		/* peers marked so and still in the table */
	size_t queued;			/* bytes, of all peers */
	size_t max_queued;		/* bytes, of each peer, in each direction */
	bool ipc;			/* the kernel does not count received bytes: frames are taken from
					   libzmq early and counted here */
	TAILQ_HEAD(, waiting) in;
	size_t in_bytes;
	bool *fd_open;			/* [n_fds] by descriptor: a connection was accepted and has not
					   ended */
	size_t n_fds;
	unsigned keys_changed;		/* bus.keys_changed when peers' keys were last checked */
	bool named_logged;		/* a peer that chose its own routing id was logged */
};

#define EACH_PEER(s, p) for (int b_ = 0; b_ < BUCKETS; b_++) LIST_FOREACH(p, &(s)->buckets[b_], entry)

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
	struct peer *p;

	LIST_FOREACH(p, &s->buckets[number % BUCKETS], entry)
		if (p->number == number)
			break;
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

/* Marks all peers on this descriptor as gone, except `keep` (may be NULL). */
static void
fd_gone(struct bus_server *s, int fd, const struct peer *keep)
{
	struct peer *p;

	EACH_PEER(s, p)
		if (p->fd == fd && p != keep)
			mark_gone(s, p);
}

static void
drain_monitor(struct bus_server *s)
{
	int event, value;

	while (bus__monitor_next(s->source.monitor, &event, &value)) {
		size_t had = s->n_fds;

		bus__refused(s->bus, event, value, s->endpoint);
		if ((event != ZMQ_EVENT_ACCEPTED && event != ZMQ_EVENT_DISCONNECTED) || value < 0 ||
		    mem_grow((void **)&s->fd_open, &s->n_fds, (size_t)value + 1, sizeof(*s->fd_open)) != 0)
			continue;
		memset(s->fd_open + had, 0, s->n_fds - had);
		s->fd_open[value] = event == ZMQ_EVENT_ACCEPTED;
		if (event == ZMQ_EVENT_DISCONNECTED)
			fd_gone(s, value, NULL);
	}
}

static void
forget(struct peer *p)
{
	LIST_REMOVE(p, entry);
	bus__outbox_clear(&p->box);
	bus__flow_leave(p->flow);
	free(p);
}

/* Removes one gone peer from the table and returns its number; 0 when there is none. */
static uint64_t
take_gone(struct bus_server *s)
{
	struct peer *p;

	if (s->n_gone == 0)
		return 0;
	EACH_PEER(s, p)
		if (p->gone) {
			uint64_t number = p->number;

			s->n_gone--;
			s->n_ended -= p->ended;
			forget(p);
			return number;
		}
	return 0;
}

static void
disconnect(struct peer *p)
{
	/*
	 * libzmq has no call to disconnect a peer, but it notices the end of the connection and reports
	 * DISCONNECTED.
	 */
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

/* Ends a peer that sent a message of more than one part. */
static void
reject(struct bus_server *s, struct peer *p)
{
	static struct log_limit limit;
	unsigned long left_out;

	if (log_limited(&limit, &left_out))
		log_warn("bus.bad_peer",
		    "endpoint=%s peer=%llx why=\"message has more than one part\" left_out=%lu", s->endpoint,
		    (unsigned long long)p->number, left_out);
	drop_queue(s, p);
	end(s, p, 0);
	disconnect(p);
}

/* 0: msg was sent. EAGAIN, EHOSTUNREACH: the caller still owns msg. */
static int
try_send(struct bus_server *s, const struct peer *p, zmq_msg_t *msg)
{
	uint8_t id[ID_BYTES];
	int events, rc;
	size_t n = sizeof(events);

	if (atomic_load(&p->flow->bytes) - p->box.bytes > LIBRARY_BYTES + zmq_msg_size(msg))
		return EAGAIN;
	id_of(p->number, id);
	for (int attempt = 0; ; attempt++) {
		if (zmq_send(s->source.socket, id, ID_BYTES, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
			break;
		if ((rc = errno) == EINTR)
			continue;
		if (rc != EAGAIN || attempt > 0)
			return rc;
		/* makes the socket notice what its peers have read meanwhile */
		zmq_getsockopt(s->source.socket, ZMQ_EVENTS, &events, &n);
	}
	/* the id was accepted, so the body will be */
	while (zmq_msg_send(msg, s->source.socket, ZMQ_DONTWAIT) < 0)
		if (errno != EINTR)
			return errno;
	return 0;
}

static void
flush_peer(struct bus_server *s, struct peer *p)
{
	struct bus__frame *f;
	int rc = 0;

	while (rc == 0 && (f = STAILQ_FIRST(&p->box.frames)) != NULL)
		if ((rc = try_send(s, p, &f->msg)) == 0) {
			s->queued -= f->len;
			bus__outbox_drop_first(&p->box);
		}
	if (rc != 0 && rc != EAGAIN)
		mark_gone(s, p);
}

/* If the accepted keys have changed, disconnects peers whose key is no longer accepted. */
static void
check_keys(struct bus_server *s)
{
	unsigned changed = atomic_load(&s->bus->keys_changed);
	struct peer *p;

	if (changed == s->keys_changed)
		return;
	s->keys_changed = changed;
	EACH_PEER(s, p) {
		if (p->gone || p->ended || p->public_key[0] == '\0' || bus__key_allowed(s->bus->curve_dir, p->public_key, NULL))
			continue;
		log_warn("bus.key_removed", "endpoint=%s peer=%llx key=\"%s\"", s->endpoint, (unsigned long long)p->number, p->public_key);
		drop_queue(s, p);
		end(s, p, 0);
		disconnect(p);
	}
}

static size_t
flush(struct bus__source *source, int64_t *due_ms, bool *pending)
{
	struct bus_server *s = (struct bus_server *)source;
	int64_t now = clock_now_ms();
	struct peer *p;

	check_keys(s);

	if (s->queued > 0 || s->n_ended > 0)
		EACH_PEER(s, p) {
			flush_peer(s, p);
			if (p->ended && !p->gone && p->end_ms <= now)
				disconnect(p);
			if (p->ended && !p->gone && p->end_ms < *due_ms)
				*due_ms = p->end_ms;
		}
	*pending = *pending || s->n_gone > 0 || !TAILQ_EMPTY(&s->in);
	return s->queued;
}

int
bus_server_new(struct bus_server **out, struct bus *bus, const char *endpoint, struct err_note *note)
{
	struct bus__socket_options options = {ZMQ_ROUTER, (int64_t)bus->max_message, HWM_FRAMES, LINGER_MS};
	struct bus_server *s;
	int rc = 0;

	*out = NULL;
	if ((s = calloc(1, sizeof(*s))) == NULL)
		return err_note_set(note, ENOMEM, "%s", endpoint);
	s->source.flush = flush;
	s->bus = bus;
	s->max_queued = (size_t)bus->max_message * QUEUE_MESSAGES;
	s->ipc = strncmp(endpoint, "ipc://", 6) == 0;
	TAILQ_INIT(&s->in);
	if ((s->source.socket = bus__socket_new(bus, &options)) == NULL
	    || (s->source.monitor = bus__monitor_new(bus, s->source.socket, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED |
	    ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)) == NULL)
		rc = err_note_set(note, errno, "%s", endpoint);
	else if ((rc = bus__bind(bus, s->source.socket, endpoint, s->endpoint, note)) == 0 &&
	    (rc = bus__guard_watch(bus->guard, s->endpoint, (struct bus__limits){FIRST_BYTES, s->max_queued},
	    NULL, NULL)) != 0)
		err_note_set(note, rc, "%s: thread that watches connections", endpoint);
	if (rc != 0)
		bus_server_destroy(&s);
	*out = s;
	return rc;
}

static void drop_waiting(struct bus_server *s, const struct peer *peer);

void
bus_server_destroy(struct bus_server **server)
{
	struct bus_server *s = *server;
	int64_t ignored_ms = 0;
	bool ignored = false;
	struct peer *p;

	if (s == NULL)
		return;
	*server = NULL;
	flush(&s->source, &ignored_ms, &ignored);	/* sends what ZeroMQ still accepts */
	drop_waiting(s, NULL);
	for (int b = 0; b < BUCKETS; b++)
		while ((p = LIST_FIRST(&s->buckets[b])) != NULL)
			forget(p);
	if (s->endpoint[0] != '\0')
		bus__guard_forget(s->bus->guard, s->endpoint);
	bus__socket_close(s->bus, &s->source.socket);
	bus__socket_close(s->bus, &s->source.monitor);
	free(s->fd_open);
	free(s);
}

const char *
bus_server_endpoint(const struct bus_server *server)
{
	return server->endpoint;
}

static struct peer *
note_peer(struct bus_server *s, uint64_t number, int fd)
{
	struct peer *p = find(s, number);

	if (p != NULL)
		return p;
	/*
	 * A new connection may reuse the descriptor of one that ended. The DISCONNECTED of that one has
	 * arrived by now; handle it first, so that it is not taken for the new peer's.
	 */
	drain_monitor(s);
	if ((p = calloc(1, sizeof(*p))) == NULL || (p->flow = bus__flow_new(s->bus)) == NULL) {
		free(p);
		return NULL;
	}
	p->number = number;
	p->fd = fd;
	STAILQ_INIT(&p->box.frames);
	LIST_INSERT_HEAD(&s->buckets[number % BUCKETS], p, entry);
	if (fd >= 0)
		fd_gone(s, fd, p);
	if (fd >= 0 && ((size_t)fd >= s->n_fds || !s->fd_open[fd]))
		mark_gone(s, p);		/* it ended before its first frame was received */
	return p;
}

/* Fills in the key's role, its name and the key itself, which zap.c passes as "role/name/key". */
static void
fill_user(struct bus_event *event, struct peer *p, zmq_msg_t *msg)
{
	const char *user = zmq_msg_gets(msg, "User-Id"), *name, *key;
	char role[16];

	if (user == NULL || (name = strchr(user, '/')) == NULL || (key = strchr(name + 1, '/')) == NULL ||
	    (size_t)(name - user) >= sizeof(role))
		return;
	snprintf(role, sizeof(role), "%.*s", (int)(name - user), user);
	event->key_role = bus__role_from_name(role);
	snprintf(event->user, sizeof(event->user), "%.*s", (int)(key - name - 1), name + 1);
	snprintf(p->public_key, sizeof(p->public_key), "%s", key + 1);
}

/* Receives the next frame of a peer that was not ended. 0, EAGAIN, errno. */
static int
receive(struct bus_server *s, struct bus_event *event, struct peer **from)
{
	for (;;) {
		uint8_t id[256];
		struct peer *p;
		bool single;
		int n, fd, rc;

		if ((n = zmq_recv(s->source.socket, id, sizeof(id), ZMQ_DONTWAIT)) < 0) {
			if (errno == EINTR)
				continue;
			return errno;
		}
		if ((rc = bus__frame_recv(s->source.socket, event, &single)) != 0)
			return rc;
		/* a peer with an id of its own choosing is ignored: it could take the id of another */
		fd = zmq_msg_get(event->own, ZMQ_SRCFD);
		bus__guard_received(s->bus->guard, fd, event->len);
		p = n == ID_BYTES && id[0] == 0 ? note_peer(s, number_of(id), fd) : NULL;
		if (n != ID_BYTES && !s->named_logged) {
			log_warn(
			    "bus.bad_peer", "endpoint=%s why=\"peer chose its own routing id\"", s->endpoint);
			s->named_logged = true;
		}
		if (p != NULL && !single && !p->ended)
			reject(s, p);
		if (p == NULL || !single || p->ended) {
			bus_event_free(event);
			continue;
		}
		event->kind = BUS_EVENT_FRAME;
		event->peer = p->number;
		fill_user(event, p, event->own);
		*from = p;
		return 0;
	}
}

/* The peer of a frame in s->in is still in the table, because GONE follows its last frame. */
static void
waiting_free(struct bus_server *s, struct waiting *w)
{
	struct peer *p = find(s, w->event.peer);

	p->in_bytes -= w->event.len + FRAME_COST;
	s->in_bytes -= w->event.len + FRAME_COST;
	TAILQ_REMOVE(&s->in, w, entry);
	free(w);
}

/* Drops the waiting frames of a peer, or of all peers (NULL). */
static void
drop_waiting(struct bus_server *s, const struct peer *peer)
{
	struct waiting *next;

	for (struct waiting *w = TAILQ_FIRST(&s->in); w != NULL; w = next) {
		struct bus_event event = w->event;

		next = TAILQ_NEXT(w, entry);
		if (peer != NULL && event.peer != peer->number)
			continue;
		waiting_free(s, w);
		bus_event_free(&event);
	}
}

/*
 * Ends ipc connections as guard.c ends TCP connections: one that holds too much, or the one that holds most
 * when all of them together hold too much.
 */
static void
end_flooding(struct bus_server *s, struct peer *last)
{
	static struct log_limit limit;
	bool all = s->in_bytes > s->bus->budget;
	struct peer *p, *worst = last;
	unsigned long left_out;

	if (!all && last->in_bytes <= s->max_queued)
		return;
	if (all)
		EACH_PEER(s, p)
			worst = p->in_bytes > worst->in_bytes ? p : worst;
	if (log_limited(&limit, &left_out))
		log_warn("bus.peer_ended", "endpoint=%s peer=%llx bytes=%zu why=\"%s\" left_out=%lu",
		    s->endpoint, (unsigned long long)worst->number, worst->in_bytes,
		    all ? "peers sent more than can be handled; this one sent most" :
			  "this peer sends faster than its messages can be handled",
		    left_out);
	atomic_fetch_add(&s->bus->n_ended, 1);
	drop_waiting(s, worst);
	drop_queue(s, worst);
	end(s, worst, 0);
	disconnect(worst);
}

static int
take_early(struct bus_server *s)
{
	struct waiting *w;
	struct peer *p;
	int rc = 0;

	for (int i = 0; i < AHEAD && rc == 0; i++) {
		if ((w = calloc(1, sizeof(*w))) == NULL)
			return ENOMEM;
		if ((rc = receive(s, &w->event, &p)) != 0) {
			free(w);
			break;
		}
		TAILQ_INSERT_TAIL(&s->in, w, entry);
		p->in_bytes += w->event.len + FRAME_COST;
		s->in_bytes += w->event.len + FRAME_COST;
		end_flooding(s, p);
	}
	return rc;
}

int
bus_server_recv(struct bus_server *s, struct bus_event *event)
{
	struct waiting *w;
	struct peer *p;
	int rc;

	memset(event, 0, sizeof(*event));
	/* Lost connections first, then frames: at EAGAIN all frames of lost peers have been returned. */
	drain_monitor(s);
	rc = s->ipc ? take_early(s) : receive(s, event, &p);
	while ((w = TAILQ_FIRST(&s->in)) != NULL) {
		bool ended = find(s, w->event.peer)->ended;

		*event = w->event;
		waiting_free(s, w);
		if (!ended)
			return 0;
		bus_event_free(event);
	}
	if (rc != EAGAIN)
		return rc;
	if ((event->peer = take_gone(s)) == 0)
		return ERR_AGAIN;
	event->kind = BUS_EVENT_GONE;
	return 0;
}

/*
 * Called when more is queued than the budget allows. Ends the peer with the longest queue of those that have
 * read nothing for STUCK_MS. False: there is none.
 */
static bool
end_stuck(struct bus_server *s)
{
	static struct log_limit limit;
	int64_t now = clock_now_ms();
	struct peer *p, *worst = NULL;
	unsigned long left_out;
	size_t most = 0, n;

	EACH_PEER(s, p)
		if (!p->ended && !p->gone && (n = atomic_load(&p->flow->bytes)) > most &&
		    now - atomic_load(&p->flow->moved_ms) >= STUCK_MS) {
			most = n;
			worst = p;
		}
	if (worst == NULL)
		return false;
	if (log_limited(&limit, &left_out))
		log_warn("bus.slow_peer",
		    "endpoint=%s peer=%llx bytes=%zu why=\"this peer does not read, and too much is queued "
		    "for all peers\" left_out=%lu",
		    s->endpoint, (unsigned long long)worst->number, most, left_out);
	drop_queue(s, worst);
	end(s, worst, 0);
	disconnect(worst);
	return true;
}

int
bus_server_send(struct bus_server *s, uint64_t number, uint8_t *frame, size_t len)
{
	struct peer *p = find(s, number);
	zmq_msg_t msg;
	size_t before;
	int rc;

	while (atomic_load(&s->bus->out_bytes) + len > s->bus->budget && end_stuck(s))
		;
	if (p == NULL || p->gone || p->ended) {
		free(frame);
		return ERR_CLOSED;
	}
	if (atomic_load(&s->bus->out_bytes) + len > 2 * s->bus->budget && atomic_load(&p->flow->bytes) > 0) {
		free(frame);
		return ERR_AGAIN;
	}
	if ((rc = bus__frame_wrap(&msg, frame, len, p->flow)) != 0)
		return rc;
	if (STAILQ_EMPTY(&p->box.frames)) {
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
