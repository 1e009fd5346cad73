/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of bus share. */
#ifndef SALT_BUS_INTERNAL_H
#define SALT_BUS_INTERNAL_H

#include "fabric/bus/bus.h"
#include "fabric/bus/waker.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <zmq.h>

#define BUS_KEY_BYTES 41		/* Z85 text and NUL */
#define BUS_ZAP_DOMAIN "salt"
#define BUS_ZAP_ENFORCE_DOMAIN 93	/* in the library, but not in Debian's header */

struct bus_key {
	char name[BUS_KEY_NAME_MAX];
	enum bus_role role;
	char public_key[BUS_KEY_BYTES], secret_key[BUS_KEY_BYTES];
};

struct bus {
	void *ctx;
	uint64_t max_message;
	char *curve_dir;		/* NULL: plain */
	bool allow_plain_remote;
	struct bus_key key;		/* with curve_dir */
	struct bus__zap *zap;
	atomic_int n_sockets;		/* open ones; the ZeroMQ context may only be closed when there are none */
	struct bus__guard *guard;
	uint64_t budget;		/* bytes that may be queued for all peers together, in each direction */
	atomic_uint keys_changed;	/* how often the accepted keys have changed */
	atomic_uint_fast64_t n_refused;	/* handshakes without an accepted key */
	atomic_uint_fast64_t n_ended;	/* connections that were ended because they held too much */
	atomic_size_t out_bytes;	/* of frames that servers have queued, libzmq's share included */
};

/* context.c: makes every socket with all options set, and closes it. NULL: errno. */
struct bus__socket_options {
	int type;
	int64_t max_message;		/* longest frame received, bytes */
	int hwm;			/* frames that wait to be sent to each peer */
	int linger_ms;
};

void *bus__socket_new(struct bus *bus, const struct bus__socket_options *options);
void bus__socket_close(struct bus *bus, void **socket);	/* takes NULL */
void *bus__monitor_new(struct bus *bus, void *socket, int events);	/* PAIR that receives the socket's events */
bool bus__monitor_next(void *monitor, int *event, int *value);	/* never waits */
int bus__bind(struct bus *bus, void *socket, const char *endpoint, char out[BUS_ENDPOINT_MAX], struct err_note *note);
int bus__connect(struct bus *bus, void *socket, const char *endpoint, const char *server_key, struct err_note *note);

/*
 * guard.c: ends connections for which this process holds more memory than their limit. One per bus; its
 * threads start at the first bus__guard_watch.
 * bus__guard_watch     watches the accepted connections of a socket bound to endpoint. With socket (else
 *                      NULL) it also reports rejected handshakes, and ends all connections of the socket when
 *                      a key is removed; those with an accepted key reconnect. lock (else NULL) protects a
 *                      socket that nobody polls: the guard uses it from time to time, so that libzmq frees
 *                      the memory of ended connections
 * bus__guard_received  counts a frame of so many bytes that arrived on fd, which may be -1
 * bus__guard_may_send  whether an answer of so many bytes may be sent; false: earlier answers were not read,
 *                      and the connection is ended
 */
struct bus__limits {
	uint64_t first, most;		/* bytes held for a connection: before its first message, and at any
					   time */
};

int bus__guard_new(struct bus__guard **out, struct bus *bus);	/* 0 or ENOMEM */
void bus__guard_destroy(struct bus__guard **guard);
int bus__guard_watch(struct bus__guard *guard, const char *endpoint, struct bus__limits limits, void *socket, pthread_mutex_t *lock);	/* 0 or errno */
/* logs and counts a rejected handshake, from a server's monitor */
void bus__refused(struct bus *bus, int event, int value, const char *endpoint);
void bus__guard_forget(struct bus__guard *guard, const char *endpoint);
void bus__guard_received(struct bus__guard *guard, int fd, size_t bytes);
bool bus__guard_may_send(struct bus__guard *guard, int fd, size_t bytes, uint64_t most);
void bus__peer_address(int fd, char *out, size_t size);		/* "192.0.2.7:4711"; ipc: "pid:4711"; "?" */

/* endpoint.c */
struct bus__endpoint {
	bool ipc, any, loopback;	/* any: all interfaces */
	bool ipv6;			/* the socket needs ZMQ_IPV6 */
	bool loopback_name;		/* a name other than localhost that resolves to loopback */
	char host[200], port[8];
	char bindable[BUS_ENDPOINT_MAX];	/* with the host as a number */
};

int bus__endpoint_parse(const char *text, struct bus__endpoint *out, struct err_note *note);

/* keys.c, zap.c */
int bus__key_load(const char *dir, const char *name, bool secret, struct bus_key *out, struct err_note *note);
bool bus__key_allowed(const char *dir, const char *public_key, struct bus_key *out);	/* reads dir each time; out may be NULL */
int bus__keys_check_dir(const char *dir, struct err_note *note);	/* EACCES if others may write to it */
uint64_t bus__keys_sum(const char *dir);	/* hash of all accepted keys; changes when a key is added or
						   removed */
enum bus_role bus__role_from_name(const char *name);
int bus__zap_start(struct bus *bus, struct err_note *note);
void bus__zap_stop(struct bus *bus);
int bus__zap_prove(struct bus *bus, struct err_note *note);	/* 0 if a random key is rejected */
int bus__curve_server(struct bus *bus, void *socket);
int bus__curve_client(void *socket, const struct bus_key *mine, const char *server_public);

/*
 * Bytes that are queued for one peer, libzmq's share included: a wrapped frame counts until libzmq has freed
 * it, which may be after the peer was forgotten. flow may be NULL.
 */
struct bus__flow {
	atomic_int refs;
	atomic_size_t bytes;
	atomic_int_fast64_t moved_ms;	/* when the last frame was freed, or the first one queued */
	atomic_size_t *total;		/* of all flows: bus.out_bytes */
};

struct bus__flow *bus__flow_new(struct bus *bus);	/* NULL: no memory */
void bus__flow_leave(struct bus__flow *flow);		/* takes NULL */

/*
 * frame.c. bus__frame_recv: receives the next message into own, frame and len of *event; *single: it had only
 * one part. Further parts are dropped. 0, EAGAIN, ENOMEM or errno.
 */
/* owns bytes in all cases; 0 or ENOMEM */
int bus__frame_wrap(zmq_msg_t *msg, uint8_t *bytes, size_t len, struct bus__flow *flow);
int bus__frame_recv(void *socket, struct bus_event *event, bool *single);

/* Queue of frames that ZeroMQ does not accept yet, bounded in bytes. */
struct bus__frame {
	STAILQ_ENTRY(bus__frame) entry;
	size_t len;
	zmq_msg_t msg;
};

struct bus__outbox {
	STAILQ_HEAD(, bus__frame) frames;
	size_t bytes;
};

int bus__outbox_put(struct bus__outbox *box, zmq_msg_t *msg, size_t max_bytes);	/* takes msg; 0, ERR_AGAIN, ENOMEM */
void bus__outbox_drop_first(struct bus__outbox *box);
void bus__outbox_clear(struct bus__outbox *box);

/*
 * service.c: a thread, with all signals blocked, that calls serve(arg) whenever the socket has something to
 * receive.
 */
struct bus__service {
	void *socket;
	void (*serve)(void *arg);
	void *arg;
	struct bus_waker *stop;		/* NULL: not started */
	atomic_bool stopping;
	pthread_t thread;
};

int bus__service_start(struct bus__service *service);	/* socket, serve and arg are set; 0 or errno */
void bus__service_stop(struct bus__service *service);	/* no effect if it is not started */

/* What a poll needs from a server or client; it is their first member. */
struct bus__source {
	void *socket, *monitor;
	/*
	 * Sends queued frames as far as ZeroMQ accepts them, and does what is due. Returns the bytes still
	 * queued; lowers *due_ms to the time of the next call it needs; sets *pending if something can be
	 * received that no descriptor reports.
	 */
	size_t (*flush)(struct bus__source *source, int64_t *due_ms, bool *pending);
};

#endif
