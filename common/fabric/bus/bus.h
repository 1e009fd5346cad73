/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus - sockets, poll, keys. The only module that includes ZeroMQ.
 *
 * Caveats:
 *   Sending is not delivery. A frame may be lost with its connection at any time, without an error. The sender
 *   of a frame that matters repeats it until it is answered. A frame is never delivered twice and
 *   never in part, and frames of one connection keep their order. No call waits, except bus_poll_wait,
 *   bus_asker_next, bus_events_recv and the destroy functions.
 *
 * One `struct bus` per process. Sockets belong to the thread that made them; a loop owns one `struct
 * bus_poll` and what is added to it. Other threads wake the loop with a waker. A loop:
 *
 *	while (bus_poll_wait(poll, timeout_ms) == 0 && !stop_requested())
 *		while (bus_server_recv(server, &event) == 0) { ...; bus_event_free(&event); }
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
	BUS_STATUS_REQUEST_MAX = 4096	/* bytes of a request that a status socket accepts */
};

/* This process --------------------------------------------------------------------------------- */

struct hash128 bus_boot_id(void);		/* 16 random bytes, drawn once per process */
const char *bus_host(void);			/* this host's name; static storage */

/* Bus ------------------------------------------------------------------------------------------ */

struct bus;
enum bus_role { BUS_ROLE_NONE, BUS_ROLE_SELECTOR, BUS_ROLE_TEACHER, BUS_ROLE_TRAINER, BUS_ROLE_CLIENT };

struct bus_options {
	uint64_t max_message;		/* bytes; a longer frame on a data socket ends its connection. 0: 16 MiB */
	const char *curve_dir;		/* security.curve_dir; NULL or "": no keys */
	bool allow_plain_remote;	/* without keys: bind other addresses than loopback too */
	enum bus_role role;		/* role that this process's key must have: KEY_NAME.key in
					   curve_dir */
	const char *key_name;		/* NULL: bus_role_name(role) */
};

/*
 * bus_raise_files - raises the soft limit of open files to the hard limit: each connection needs a
 * descriptor, also one that is idle or not authenticated. EMFILE if the hard limit is so low that libzmq or
 * MPI would abort for lack of descriptors. bus_new calls it; a program whose other libraries open files
 * before that calls it at its start.
 */
int bus_raise_files(struct err_note *note);

/*
 * bus_new - with curve_dir: reads this process's key and the allow-list, starts the ZAP thread and tests that
 * a random key is rejected. Returns 0; ERR_CONFIG, ERR_NOT_FOUND, EACCES or ERR_FORMAT for keys (the note
 * names the file); ERR_INTERNAL when the test fails; EMFILE, see bus_raise_files.
 * bus_destroy - call it after all sockets are destroyed and all threads that had one have ended. Takes NULL.
 * Waits at most a second for the last frames to be sent.
 */
int bus_new(struct bus **out, const struct bus_options *options, struct err_note *note);
void bus_destroy(struct bus **bus);

/*
 * bus_counts - counts since bus_new: rejected handshakes, and connections that were ended because they held
 * too much memory. Any thread.
 */
void bus_counts(const struct bus *bus, uint64_t *n_refused, uint64_t *n_ended);
const char *bus_role_name(enum bus_role role);		/* "selector", "teacher", "trainer", "client" */

/* Server: ROUTER ------------------------------------------------------------------------------- */

enum bus_event_kind {
	BUS_EVENT_FRAME = 1,		/* server, client: a frame arrived */
	BUS_EVENT_GONE,			/* server: this connection ended; its process may come back as another peer */
	BUS_EVENT_CONNECTED,		/* client: connected (again), the handshake is done; send HELLO */
	BUS_EVENT_DISCONNECTED,		/* client: connection and queued frames are lost; it reconnects by itself */
	BUS_EVENT_REFUSED		/* client: one side does not accept the other's key; retried slowly */
};

/*
 * peer: number of one connection, never 0 and never reused. A process that reconnects gets another number;
 * HELLO.boot_id identifies the process.
 */
struct bus_event {
	enum bus_event_kind kind;
	uint64_t peer;			/* server only */
	const uint8_t *frame;		/* FRAME: valid until bus_event_free */
	size_t len;
	enum bus_role key_role;		/* server with keys: role of the peer's key; else BUS_ROLE_NONE */
	char user[BUS_USER_MAX];	/* server with keys: name of the peer's key; else "" */
	void *own;			/* private to bus */
};

void bus_event_free(struct bus_event *event);	/* takes freed and zeroed events */

struct bus_server;

/*
 * bus_server_new - binds. @endpoint "tcp://host:port", host may be "*", port 0 or "*" for any free one, or
 * "ipc://path". Returns 0; EADDRINUSE, EADDRNOTAVAIL, ERR_CONFIG (not an endpoint; without keys off loopback)
 * or errno; the note names the endpoint.
 * bus_server_endpoint - the address for clients: with the actual port; for host "*" with this host's name.
 * A frame is a message of one part. A peer that sends more parts is disconnected and logged (bus.bad_peer).
 */
int bus_server_new(struct bus_server **out, struct bus *bus, const char *endpoint, struct err_note *note);
void bus_server_destroy(struct bus_server **server);
const char *bus_server_endpoint(const struct bus_server *server);
int bus_server_recv(struct bus_server *server, struct bus_event *event);	/* 0, ERR_AGAIN, errno */

/*
 * bus_server_send - takes ownership of the frame (malloc'ed) in all cases. Frames that ZeroMQ does not accept
 * yet are queued, up to 4 x max_message bytes for each peer, and sent by later calls of bus_poll_wait. When
 * more than 16 x max_message bytes (at least 64 MiB) are queued for all peers, peers that read nothing for 2 s
 * are ended.
 * Returns 0; ERR_AGAIN: a queue is full, the frame is dropped; ERR_CLOSED: no such peer (any more); ENOMEM.
 * bus_server_end - rejects a peer for good: frames sent before are delivered, frames from it are ignored, and
 * then it is disconnected.
 */
int bus_server_send(struct bus_server *server, uint64_t peer, uint8_t *frame, size_t len);
void bus_server_end(struct bus_server *server, uint64_t peer);

/* Client: DEALER ------------------------------------------------------------------------------- */

struct bus_client;

/*
 * bus_client_new - connects in the background and keeps trying, every 100 ms to 5 s. Heartbeats detect a
 * server that hangs within 12 s. @server_key name of the server's public key in curve_dir
 * ("selector"); ignored without keys, NULL: "selector". Returns 0, ERR_CONFIG (not an endpoint),
 * ERR_NOT_FOUND (no such key), errno.
 * bus_client_send - as bus_server_send; ERR_CLOSED while not connected.
 */
int bus_client_new(struct bus_client **out, struct bus *bus, const char *endpoint, const char *server_key,
    struct err_note *note);
void bus_client_destroy(struct bus_client **client);
int bus_client_recv(struct bus_client *client, struct bus_event *event);	/* 0, ERR_AGAIN, errno */
int bus_client_send(struct bus_client *client, uint8_t *frame, size_t len);

/* Wakers and poll ------------------------------------------------------------------------------ */

struct bus_waker;
struct bus_waker *bus_waker_new(void);		/* NULL: errno */
void bus_waker_destroy(struct bus_waker **waker);
void bus_waker_wake(struct bus_waker *waker);	/* any thread, signal handlers; takes NULL */
void bus_waker_notify(void *waker);		/* the same, as a callback for modules that do not include
						   bus */

/*
 * bus_poll - the sockets and wakers that one loop waits for. It borrows what is added: remove it before you
 * destroy it.
 * bus_poll_wait - waits until something may have arrived, a waker was woken, a stop was requested (reported
 * once) or timeout_ms passed (-1: no limit); also sends queued frames. Returns 0 in all these cases, so
 * receive from everything; else errno.
 */
struct bus_poll;
struct bus_poll *bus_poll_new(struct bus *bus);	/* NULL: errno */
void bus_poll_destroy(struct bus_poll **poll);
int bus_poll_add_server(struct bus_poll *poll, struct bus_server *server);	/* 0 or ENOMEM */
int bus_poll_add_client(struct bus_poll *poll, struct bus_client *client);
int bus_poll_add_waker(struct bus_poll *poll, struct bus_waker *waker);
void bus_poll_remove(struct bus_poll *poll, const void *thing);			/* takes NULL */
int bus_poll_wait(struct bus_poll *poll, int64_t timeout_ms);

/* Status sockets and events -------------------------------------------------------------------- */

/*
 * bus_status_fn - answers one request, on the status socket's own thread, at any time: it must lock what it
 * reads.
 * @body    the request, len bytes, at most BUS_STATUS_REQUEST_MAX
 * @answer  set to malloc'ed memory (taken), or leave NULL to send no answer
 */
typedef void bus_status_fn(void *arg, const uint8_t *body, size_t len, uint8_t **answer, size_t *answer_len);

/*
 * bus_status_new - binds and starts the thread that answers while the daemon computes. Requests are [body] or
 * ['', body]; other messages are dropped. Errors as bus_server_new. bus_status_destroy ends the thread.
 */
struct bus_status;
int bus_status_new(struct bus_status **out, struct bus *bus, const char *endpoint, bus_status_fn *fn, void *arg,
    struct err_note *note);
void bus_status_destroy(struct bus_status **status);
const char *bus_status_endpoint(const struct bus_status *status);

/*
 * bus_asker - sends requests to many status sockets. Each has its own timeout, and is returned when it has
 * ended. One thread. At most 400 connections are open at once; further requests, and their timeouts, start
 * when earlier ones end. Answers over 16 MiB are dropped.
 * bus_asker_ask   adds a request; 0 or ENOMEM. ask is borrowed until next or drop returns it; the request is
 *                 copied
 * bus_asker_next  returns one that has ended; the caller frees its answer. NULL: none ended within wait_ms,
 *                 or none is open
 * bus_asker_open  number of requests that were not returned yet
 * bus_asker_drop  returns one of them, ended or not; NULL: no more
 */
struct bus_ask {
	const char *endpoint, *server_key;	/* in; key as in bus_client_new */
	int rc;				/* out: 0, ERR_TIMEOUT, ERR_REFUSED (keys), ERR_CONFIG (not an endpoint) */
	uint8_t *answer;		/* out: malloc'ed; NULL unless rc is 0 */
	size_t len;
	size_t id;			/* for the caller's use */
};

struct bus_asker;
int bus_asker_new(struct bus_asker **out, struct bus *bus);
void bus_asker_destroy(struct bus_asker **asker);
int bus_asker_ask(struct bus_asker *asker, struct bus_ask *ask, const void *request, size_t len, int64_t timeout_ms);
struct bus_ask *bus_asker_next(struct bus_asker *asker, int64_t wait_ms);
struct bus_ask *bus_asker_drop(struct bus_asker *asker);
size_t bus_asker_open(const struct bus_asker *asker);

/*
 * Events: PUB and SUB, for telemetry only: an event is lost without an error when nobody subscribed or a
 * subscriber is slow. text: one line. bus_events_send never waits and may be called by any thread; the other
 * functions are for the thread that made the object.
 */
struct bus_events;
int bus_events_publish(struct bus_events **out, struct bus *bus, const char *endpoint, struct err_note *note);
int bus_events_subscribe(struct bus_events **out, struct bus *bus, const char *endpoint,
    const char *server_key, const char *topic, struct err_note *note);
void bus_events_destroy(struct bus_events **events);
const char *bus_events_endpoint(const struct bus_events *events);
void bus_events_send(struct bus_events *events, const char *topic, const char *text);
int bus_events_recv(struct bus_events *events, char *topic, size_t topic_size, char *text, size_t text_size,
    int64_t timeout_ms);	/* 0 or ERR_TIMEOUT */

/* Keys ----------------------------------------------------------------------------------------- */

/*
 * bus_keys_generate - makes DIR/NAME.key (secret, mode 0600) and DIR/NAME.pub (role and public key), never
 * overwriting; makes DIR and its parents (0700) when missing. Name: [A-Za-z0-9._-], no leading dot. The .pub
 * files of DIR are the allow-list, read at each handshake and every second: removing one revokes the key and
 * ends its connections. Returns 0, EEXIST, ERR_FORMAT (name), EACCES (others may write to DIR), errno; the
 * note names the file.
 */
int bus_keys_generate(const char *dir, const char *name, enum bus_role role, struct err_note *note);

#endif
