/*
 * bus - sockets, poll, keys. The only module that includes ZeroMQ.
 *
 * One `struct bus` per process. Sockets belong to the thread that made them; a loop owns one `struct bus_poll` and what is added to
 * it. Other threads hand work over by a `struct bus_queue`, whose waker ends the poll.
 *
 * A loop reads like this:
 *
 *	while (bus_poll_wait(poll, timeout_ms) == 0 && !stop_requested()) {
 *		while (bus_server_recv(server, &event) == 0) { ...; bus_event_free(&event); }
 *		while (bus_queue_pop(committed, &item) == 0) ...
 *	}
 *
 * Delivery: sent is not delivered. A frame may vanish with its connection, at any time and without a word; what matters is asked
 * again until it is answered. It is never delivered twice, never in part, and frames of one connection keep their order.
 */
#ifndef SALT_BUS_H
#define SALT_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"
#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/hash/hash.h"

enum {
	BUS_ENDPOINT_MAX = 256,
	BUS_USER_MAX = 96,
	BUS_KEY_NAME_MAX = 64,
	BUS_STATUS_REQUEST_MAX = 4096	/* bytes a status socket takes */
};

/* This process ------------------------------------------------------------------------------------------------------------- */

struct hash128 bus_boot_id(void);		/* 16 random bytes, drawn once per process */
const char *bus_host(void);			/* this host's name, for HELLO and announcements; static storage */

/* Context -------------------------------------------------------------------------------------------------------------------- */

struct bus;
enum bus_role { BUS_ROLE_NONE, BUS_ROLE_SELECTOR, BUS_ROLE_TEACHER, BUS_ROLE_TRAINER, BUS_ROLE_CLIENT };

struct bus_options {
	uint64_t max_message;		/* bus.max_message, bytes: longest frame taken on data sockets; a longer one ends its connection. 0: 16 MiB */
	const char *curve_dir;		/* security.curve_dir; NULL or "": plain, and then only loopback may be bound ... */
	bool allow_plain_remote;	/* ... unless this */
	enum bus_role role;		/* which key is ours: KEY_NAME.key in curve_dir */
	const char *key_name;		/* NULL: bus_role_name(role) */
};

/*
 * bus_new - with curve_dir: reads our key and the allow-list, starts the ZAP thread and proves that a throw-away key is refused.
 * Returns 0; ERR_CONFIG, ERR_NOT_FOUND, EACCES or ERR_FORMAT for keys (note names the file); ERR_INTERNAL when the proof fails.
 * bus_destroy - after every socket is gone and every thread that had one has ended. Takes NULL. Waits at most a second for what was
 * sent last.
 */
int bus_new(struct bus **out, const struct bus_options *options, struct err_note *note);
void bus_destroy(struct bus **bus);
const char *bus_role_name(enum bus_role role);		/* "selector", "teacher", "trainer", "client" */

/* Server: ROUTER ------------------------------------------------------------------------------------------------------------- */

enum bus_event_kind {
	BUS_EVENT_FRAME = 1,		/* server, client: a frame came */
	BUS_EVENT_GONE,			/* server: the connection of this peer ended (a hint: it may be back under another number) */
	BUS_EVENT_CONNECTED,		/* client: a connection stands (again), handshake done: say HELLO */
	BUS_EVENT_DISCONNECTED,		/* client: it is gone and what was queued with it; reconnecting goes on by itself */
	BUS_EVENT_REFUSED		/* client: the server does not take our key, or the other way round; retried slowly */
};

/* peer: one connection, never 0, never used again. A reconnecting process gets another; who it is says HELLO.boot_id. */
struct bus_event {
	enum bus_event_kind kind;
	uint64_t peer;			/* server only */
	const uint8_t *frame;		/* FRAME: good until bus_event_free or the next recv on that socket */
	size_t len;
	enum bus_role key_role;		/* server with CURVE: role of the peer's key; else BUS_ROLE_NONE */
	char user[BUS_USER_MAX];	/* server with CURVE: name of the peer's key; else "" */
	void *own;			/* bus's */
};

void bus_event_free(struct bus_event *event);	/* takes freed and zeroed ones */

struct bus_server;

/*
 * bus_server_new - bind. @endpoint "tcp://host:port", host may be "*", port 0 or "*" for any free one, or "ipc://path".
 * Returns 0; EADDRINUSE, EADDRNOTAVAIL, ERR_CONFIG (not an endpoint; plain off loopback) or errno; note names the endpoint.
 * bus_server_endpoint - where others reach it: the actual port; for host "*" this host's name.
 * One part is a frame; a peer that sends more parts is cut off and counted (bus_server_bad).
 */
int bus_server_new(struct bus_server **out, struct bus *bus, const char *endpoint, struct err_note *note);
void bus_server_destroy(struct bus_server **server);
const char *bus_server_endpoint(const struct bus_server *server);
int bus_server_recv(struct bus_server *server, struct bus_event *event);	/* 0, ERR_AGAIN (nothing there), errno. Never waits. */

/*
 * bus_server_send - takes the frame (malloc'ed) whatever it returns. Never waits: beyond what ZeroMQ holds (16 frames a peer) it queues
 * up to 4 x max_message bytes a peer, tried again at each bus_poll_wait.
 * Returns 0; ERR_AGAIN: queue full, the frame is dropped; ERR_CLOSED: no such peer (any more); ENOMEM.
 */
int bus_server_send(struct bus_server *server, uint64_t peer, uint8_t *frame, size_t len);
void bus_server_end(struct bus_server *server, uint64_t peer);	/* forget its queue, ignore and cut it off: after a final REFUSE, bad frames */
uint64_t bus_server_bad(const struct bus_server *server);	/* peers cut off for their frames since the start */
size_t bus_server_queued(const struct bus_server *server);	/* bytes in our queues, all peers */

/* Client: DEALER ------------------------------------------------------------------------------------------------------------- */

struct bus_client;

/*
 * bus_client_new - connects in the background and for ever, 100 ms to 5 s between tries; a stopped server is noticed by heartbeats
 * within 12 s. @server_key name of the server's public key in curve_dir ("selector"); ignored without CURVE, NULL: "selector".
 * Returns 0, ERR_CONFIG (not an endpoint), ERR_NOT_FOUND (no such key), errno.
 * bus_client_send - as bus_server_send; ERR_CLOSED while not connected.
 */
int bus_client_new(struct bus_client **out, struct bus *bus, const char *endpoint, const char *server_key, struct err_note *note);
void bus_client_destroy(struct bus_client **client);
int bus_client_recv(struct bus_client *client, struct bus_event *event);	/* 0, ERR_AGAIN, errno; frames and connection events */
int bus_client_send(struct bus_client *client, uint8_t *frame, size_t len);
bool bus_client_connected(const struct bus_client *client);
size_t bus_client_queued(const struct bus_client *client);	/* bytes */

/* Wakers, queues, poll ------------------------------------------------------------------------------------------------------- */

struct bus_waker;
struct bus_waker *bus_waker_new(void);		/* NULL: errno */
void bus_waker_destroy(struct bus_waker **waker);
void bus_waker_wake(struct bus_waker *waker);	/* any thread, signal handlers; takes NULL */
void bus_waker_notify(void *waker);		/* the same as a callback for modules that do not know bus */

/*
 * bus_queue - bounded queue of pointers, many writers, any readers. @waker woken by each push, may be NULL, must outlive the queue.
 * push: 0, ERR_FULL, ERR_CLOSED. pop: 0, ERR_AGAIN, ERR_CLOSED (closed and empty). wait: pop, waiting up to timeout_ms (-1: for
 * ever): 0, ERR_TIMEOUT, ERR_CLOSED. close wakes all waiters. What is left inside at destroy is the caller's to pop before.
 */
struct bus_queue;
struct bus_queue *bus_queue_new(size_t capacity, struct bus_waker *waker);	/* NULL without memory */
void bus_queue_destroy(struct bus_queue **queue);
int bus_queue_push(struct bus_queue *queue, void *item);
int bus_queue_pop(struct bus_queue *queue, void **item);
int bus_queue_wait(struct bus_queue *queue, void **item, int64_t timeout_ms);
void bus_queue_close(struct bus_queue *queue);
size_t bus_queue_count(const struct bus_queue *queue);

/*
 * bus_poll - what one loop waits for. Adding borrows: remove before destroying the thing.
 * bus_poll_wait - until something may be there to receive, a waker was woken, a stop was asked for (once) or timeout_ms passed (-1: no
 * limit); also retries queued sends. 0 in all these cases: drain everything, nothing says what it was. errno otherwise.
 */
struct bus_poll;
struct bus_poll *bus_poll_new(struct bus *bus);	/* NULL: errno */
void bus_poll_destroy(struct bus_poll **poll);
int bus_poll_add_server(struct bus_poll *poll, struct bus_server *server);	/* 0 or ENOMEM */
int bus_poll_add_client(struct bus_poll *poll, struct bus_client *client);
int bus_poll_add_waker(struct bus_poll *poll, struct bus_waker *waker);
void bus_poll_remove(struct bus_poll *poll, const void *thing);
int bus_poll_wait(struct bus_poll *poll, int64_t timeout_ms);

/* Status sockets and events -------------------------------------------------------------------------------------------------- */

/*
 * bus_status_fn - answer one request, on the status socket's own thread, at any time: so it must lock what it reads.
 * @body    the request, len bytes, at most BUS_STATUS_REQUEST_MAX
 * @answer  set to malloc'ed memory (taken), or leave NULL to say nothing
 */
typedef void bus_status_fn(void *arg, const uint8_t *body, size_t len, uint8_t **answer, size_t *answer_len);

/*
 * bus_status_new - binds and starts the thread that answers while the daemon computes. Frames [body] or ['', body]; all else is
 * dropped. Failures as bus_server_new. destroy ends the thread.
 */
struct bus_status;
int bus_status_new(struct bus_status **out, struct bus *bus, const char *endpoint, bus_status_fn *fn, void *arg, struct err_note *note);
void bus_status_destroy(struct bus_status **status);
const char *bus_status_endpoint(const struct bus_status *status);

/*
 * bus_status_ask - the same request to n status sockets at once.
 * @asks    endpoint and server_key (CURVE; NULL: "selector") in; rc, answer (malloc'ed, NULL unless rc is 0) and len out.
 *          rc: 0, ERR_TIMEOUT (no answer), ERR_REFUSED (keys), ERR_CONFIG (not an endpoint)
 * Returns after all have answered or timeout_ms: 0, or errno if nothing could be asked at all. Answers over 16 MiB are dropped.
 */
struct bus_ask {
	const char *endpoint, *server_key;
	int rc;
	uint8_t *answer;
	size_t len;
	size_t id;			/* the caller's */
};

int bus_status_ask(struct bus *bus, struct bus_ask *asks, size_t n, const void *request, size_t request_len, int64_t timeout_ms);

/*
 * bus_asker - the same one by one, for who does not want to wait for the slowest: each request has its own time, and what is over is
 * handed out as it comes. One thread. At most 400 connections at once; the others begin, and their time with them, as those end.
 * bus_asker_ask - 0 or ENOMEM. The ask stays where it is until it is handed out; the request is copied.
 * bus_asker_next - one that is over (its answer is the caller's to free); NULL: none within wait_ms, or none is open.
 * bus_asker_open - how many are asked and not handed out. bus_asker_drop - hands out one of them, over or not; NULL: no more.
 */
struct bus_asker;
int bus_asker_new(struct bus_asker **out, struct bus *bus);
void bus_asker_destroy(struct bus_asker **asker);
int bus_asker_ask(struct bus_asker *asker, struct bus_ask *ask, const void *request, size_t len, int64_t timeout_ms);
struct bus_ask *bus_asker_next(struct bus_asker *asker, int64_t wait_ms);
struct bus_ask *bus_asker_drop(struct bus_asker *asker);
size_t bus_asker_open(const struct bus_asker *asker);

/*
 * Events: PUB and SUB, telemetry only: dropped without a word when nobody listens or somebody is slow. text: one line.
 * bus_events_send never waits and may be called by any thread; the rest is for the one that made it.
 */
struct bus_events;
int bus_events_publish(struct bus_events **out, struct bus *bus, const char *endpoint, struct err_note *note);
int bus_events_subscribe(struct bus_events **out, struct bus *bus, const char *endpoint, const char *server_key, const char *topic, struct err_note *note);
void bus_events_destroy(struct bus_events **events);
const char *bus_events_endpoint(const struct bus_events *events);
void bus_events_send(struct bus_events *events, const char *topic, const char *text);
int bus_events_recv(struct bus_events *events, char *topic, size_t topic_size, char *text, size_t text_size, int64_t timeout_ms); /* 0 or ERR_TIMEOUT */

/* Keys ----------------------------------------------------------------------------------------------------------------------- */

/*
 * bus_keys_generate - DIR/NAME.key (secret, mode 0600) and DIR/NAME.pub (role and public key), made new, never overwritten; DIR is
 * made (0700) when missing. Name: [A-Za-z0-9._-], no leading dot. The .pub files of DIR are the allow-list, read again at each
 * handshake: removing one revokes the key. Returns 0, EEXIST, ERR_FORMAT (name), errno; note names the file.
 */
int bus_keys_generate(const char *dir, const char *name, enum bus_role role, struct err_note *note);

#endif
