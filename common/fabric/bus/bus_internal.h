/* What the files of bus share. */
#ifndef SALT_BUS_INTERNAL_H
#define SALT_BUS_INTERNAL_H

#include "fabric/bus/bus.h"
#include "fabric/bus/waker.h"
#include <stdatomic.h>
#include <zmq.h>

#define BUS_KEY_BYTES 41		/* Z85 text and NUL */
#define BUS_ZAP_DOMAIN "salt"

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
	atomic_int n_sockets;		/* open ones: the context may only be closed without any */
};

/* context.c: every socket comes from here with all options set, and goes back there. NULL: errno. */
struct bus__socket_options {
	int type;
	int64_t max_message;		/* bytes taken */
	int hwm;			/* frames, both ways, each peer */
	int linger_ms;
};

void *bus__socket_new(struct bus *bus, const struct bus__socket_options *options);
void bus__socket_close(struct bus *bus, void **socket);	/* takes NULL */
void *bus__monitor_new(struct bus *bus, void *socket, int events);	/* PAIR that hears the socket's events */
bool bus__monitor_next(void *monitor, int *event, int *value);	/* never waits */
int bus__bind(struct bus *bus, void *socket, const char *endpoint, char out[BUS_ENDPOINT_MAX], struct err_note *note);
int bus__connect(struct bus *bus, void *socket, const char *endpoint, const char *server_key, struct err_note *note);

/* endpoint.c */
struct bus__endpoint {
	bool ipc, any, loopback;	/* any: all interfaces */
	bool loopback_name;		/* a host's name that means this machine only, as Debian's /etc/hosts has it for its own */
	char host[200], port[8];
	char bindable[BUS_ENDPOINT_MAX];	/* with the host as a number */
};

int bus__endpoint_parse(const char *text, struct bus__endpoint *out, struct err_note *note);

/* keys.c, zap.c */
int bus__key_load(const char *dir, const char *name, bool secret, struct bus_key *out, struct err_note *note);
bool bus__key_allowed(const char *dir, const char *public_key, struct bus_key *out);	/* reads the directory now */
enum bus_role bus__role_from_name(const char *name);
int bus__zap_start(struct bus *bus, struct err_note *note);
void bus__zap_stop(struct bus *bus);
int bus__zap_prove(struct bus *bus, struct err_note *note);	/* a throw-away key is refused */
int bus__curve_server(struct bus *bus, void *socket);
int bus__curve_client(struct bus *bus, void *socket, const struct bus_key *mine, const char *server_public);

/* outbox.c: frames that ZeroMQ does not take yet. Bounded in bytes. */
struct bus__frame {
	struct bus__frame *next;
	zmq_msg_t msg;
};

struct bus__outbox {
	struct bus__frame *first, *last;
	size_t bytes;
};

int bus__frame_wrap(zmq_msg_t *msg, uint8_t *bytes, size_t len);	/* takes bytes always; 0 or ENOMEM */
int bus__outbox_put(struct bus__outbox *box, zmq_msg_t *msg, size_t max_bytes);	/* takes msg always; 0, ERR_AGAIN, ENOMEM */
void bus__outbox_drop_first(struct bus__outbox *box);	/* after it was sent, or not */
void bus__outbox_clear(struct bus__outbox *box);

/* What bus_poll asks of what was added. */
size_t bus__server_flush(struct bus_server *server);	/* retries; bytes still queued */
bool bus__server_pending(const struct bus_server *server);	/* something to receive that no descriptor tells of */
bool bus__client_pending(const struct bus_client *client);
int64_t bus__server_due_ms(const struct bus_server *server);	/* when it wants to be called again, INT64_MAX: no need */
void *bus__server_socket(struct bus_server *server);
void *bus__server_monitor(struct bus_server *server);
size_t bus__client_flush(struct bus_client *client);
int64_t bus__client_due_ms(const struct bus_client *client);
void *bus__client_socket(struct bus_client *client);
void *bus__client_monitor(struct bus_client *client);

#endif
