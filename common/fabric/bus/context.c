/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/bus/bus_internal.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/log/log.h"

enum {
	DEFAULT_MAX_MESSAGE = 16 << 20,
	HANDSHAKE_MS = 3000,		/* a connection that has not finished its handshake by then is closed */
	HEARTBEAT_MS = 3000, HEARTBEAT_TIMEOUT_MS = 9000,
	RECONNECT_MS = 100, RECONNECT_MAX_MS = 5000,
	CONNECT_TIMEOUT_MS = 5000,
	KEEPALIVE_IDLE_S = 6, KEEPALIVE_EVERY_S = 2, KEEPALIVE_PROBES = 3,
	BACKLOG = 1024,
	SOCKETS_MAX = 8192,
	FILES_MIN = 64,			/* descriptors: selectord has 32 of its own, a rank of trainerd under MPI 44 */
	BUDGET_MIN = 64 << 20,
	BUDGET_MESSAGES = 16		/* bytes queued for all peers together, in units of max_message */
};

const char *
bus_role_name(enum bus_role role)
{
	static const char *const names[] = {"none", "selector", "teacher", "trainer", "client"};

	return (unsigned)role < 5 ? names[role] : "?";
}

enum bus_role
bus__role_from_name(const char *name)
{
	for (int r = BUS_ROLE_SELECTOR; r <= BUS_ROLE_CLIENT; r++)
		if (strcmp(name, bus_role_name((enum bus_role)r)) == 0)
			return (enum bus_role)r;
	return BUS_ROLE_NONE;
}

/* Loads this process's key, starts the ZAP thread and tests that it rejects other keys. */
static int
open_keys(struct bus *bus, const struct bus_options *o, struct err_note *note)
{
	int rc;

	if (!zmq_has("curve"))
		return err_note_set(note, ERR_UNSUPPORTED, "security.curve_dir: this libzmq has no CURVE");
	if ((bus->curve_dir = strdup(o->curve_dir)) == NULL)
		return err_note_set(note, ENOMEM, "bus");
	if ((rc = bus__keys_check_dir(bus->curve_dir, note)) != 0)
		return rc;
	if ((rc = bus__key_load(bus->curve_dir, o->key_name != NULL ? o->key_name : bus_role_name(o->role),
	    true, &bus->key, note)) != 0)
		return rc;
	if (o->role != BUS_ROLE_NONE && bus->key.role != o->role)
		return err_expect_at(note, ERR_CONFIG, "%s/%s.key", "role", "%s", "%s", bus->curve_dir,
		    bus->key.name, bus_role_name(o->role), bus_role_name(bus->key.role));
	return (rc = bus__zap_start(bus, note)) != 0 ? rc : bus__zap_prove(bus, note);
}

int
bus_raise_files(struct err_note *note)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return 0;
	if (files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	return files.rlim_cur >= FILES_MIN ? 0 : err_expect(note, EMFILE, "open files (ulimit -n)",
	    "a hard limit of at least %d for this process", "%llu", FILES_MIN, (unsigned long long)files.rlim_cur);
}

int
bus_new(struct bus **out, const struct bus_options *options, struct err_note *note)
{
	struct bus *bus;
	int rc = 0;

	*out = NULL;
	if ((rc = bus_raise_files(note)) != 0)
		return rc;
	if ((bus = calloc(1, sizeof(*bus))) == NULL)
		return err_note_set(note, ENOMEM, "bus");
	bus->max_message = options->max_message != 0 ? options->max_message : DEFAULT_MAX_MESSAGE;
	bus->allow_plain_remote = options->allow_plain_remote;
	bus->budget = bus->max_message * BUDGET_MESSAGES;
	if (bus->budget < BUDGET_MIN)
		bus->budget = BUDGET_MIN;
	if (bus->max_message > INT32_MAX)
		rc = err_expect(note, ERR_CONFIG, "bus.max_message", "at most %d bytes", "%llu", INT32_MAX,
		    (unsigned long long)bus->max_message);
	else if ((bus->ctx = zmq_ctx_new()) == NULL || zmq_ctx_set(bus->ctx, ZMQ_MAX_SOCKETS,
	    SOCKETS_MAX) != 0)
		rc = err_note_set(note, errno, "zmq context");
	else if ((rc = bus__guard_new(&bus->guard, bus)) != 0)
		err_note_set(note, rc, "bus");
	else if (options->curve_dir != NULL && options->curve_dir[0] != '\0')
		rc = open_keys(bus, options, note);
	if (rc != 0)
		bus_destroy(&bus);
	*out = bus;
	return rc;
}

void
bus_destroy(struct bus **bus)
{
	struct bus *b = *bus;

	if (b == NULL)
		return;
	*bus = NULL;
	bus__zap_stop(b);
	bus__guard_destroy(&b->guard);
	if (atomic_load(&b->n_sockets) != 0) {
		/* zmq_ctx_term would wait for them for ever; the process ends anyway */
		log_error("bus.destroy", "sockets_open=%d", atomic_load(&b->n_sockets));
		return;
	}
	if (b->ctx != NULL)
		while (zmq_ctx_term(b->ctx) != 0 && errno == EINTR)
			;
	free(b->curve_dir);
	explicit_bzero(&b->key, sizeof(b->key));
	free(b);
}

/*
 * RCVHWM 0: a socket with a full queue stops reading its peer, and libzmq up to 4.3.5 aborts when that peer
 * vanishes and a heartbeat of either side follows (its issues 3596, 3937, 4364). What a peer may have queued
 * is bounded in bytes instead, by guard.c. A SUB socket keeps the bound, because its peer drops what it
 * cannot send; so neither end of events has heartbeats, and TCP's keepalive finds dead hosts.
 */
void *
bus__socket_new(struct bus *bus, const struct bus__socket_options *o)
{
	const bool events = o->type == ZMQ_PUB || o->type == ZMQ_SUB;
	const struct { int option, value; } ints[] = {
		{ZMQ_SNDHWM, o->hwm}, {ZMQ_RCVHWM, o->type == ZMQ_SUB ? o->hwm : 0}, {ZMQ_LINGER, o->linger_ms},
		{ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS}, {ZMQ_HEARTBEAT_IVL, events ? 0 : HEARTBEAT_MS},
		{ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS}, {ZMQ_HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS},
		{ZMQ_TCP_KEEPALIVE, 1}, {ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S}, {ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_EVERY_S},
		{ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES}, {ZMQ_RECONNECT_IVL, RECONNECT_MS},
		{ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS}, {ZMQ_CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS},
		{ZMQ_BACKLOG, BACKLOG}, {ZMQ_ROUTER_MANDATORY, 1}, {ZMQ_ROUTER_HANDOVER, 0},
	};
	size_t n = sizeof(ints) / sizeof(ints[0]) - (o->type == ZMQ_ROUTER ? 0 : 2);	/* the last two are ROUTER's */
	void *s = zmq_socket(bus->ctx, o->type);
	int saved, rc;

	if (s == NULL)
		return NULL;
	atomic_fetch_add(&bus->n_sockets, 1);
	rc = zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &o->max_message, sizeof(o->max_message));
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = zmq_setsockopt(s, ints[i].option, &ints[i].value, sizeof(ints[i].value));
	if (rc != 0) {
		saved = errno;
		bus__socket_close(bus, &s);
		errno = saved;
	}
	return s;
}

void
bus__socket_close(struct bus *bus, void **socket)
{
	if (*socket == NULL)
		return;
	/*
	 * stop the monitor while its reader exists: without one, the library's I/O thread would block for
	 * ever in writing events
	 */
	zmq_socket_monitor(*socket, NULL, 0);
	zmq_close(*socket);
	*socket = NULL;
	atomic_fetch_sub(&bus->n_sockets, 1);
}

void
bus_counts(const struct bus *bus, uint64_t *n_refused, uint64_t *n_ended)
{
	*n_refused = atomic_load(&bus->n_refused);
	*n_ended = atomic_load(&bus->n_ended);
}

void *
bus__monitor_new(struct bus *bus, void *socket, int events)
{
	static atomic_uint number;
	char name[48];
	int zero = 0;
	void *m;

	snprintf(name, sizeof(name), "inproc://salt-monitor-%u", atomic_fetch_add(&number, 1));
	if (zmq_socket_monitor(socket, name, events) != 0)
		return NULL;
	if ((m = zmq_socket(bus->ctx, ZMQ_PAIR)) == NULL)
		return NULL;
	atomic_fetch_add(&bus->n_sockets, 1);
	if (zmq_setsockopt(m, ZMQ_LINGER, &zero, sizeof(zero)) != 0
	    || zmq_setsockopt(m, ZMQ_RCVHWM, &zero, sizeof(zero)) != 0 || zmq_connect(m, name) != 0)
		bus__socket_close(bus, &m);
	return m;
}

bool
bus__monitor_next(void *monitor, int *event, int *value)
{
	zmq_msg_t msg;
	bool got = false;
	int more;

	zmq_msg_init(&msg);
	if (zmq_msg_recv(&msg, monitor, ZMQ_DONTWAIT) >= 6) {
		const uint8_t *p = zmq_msg_data(&msg);
		uint16_t e;
		uint32_t v;

		memcpy(&e, p, sizeof(e));
		memcpy(&v, p + 2, sizeof(v));
		*event = e;
		*value = (int)v;
		got = true;
		for (more = zmq_msg_more(&msg); more; more = zmq_msg_more(&msg))	/* the address */
			if (zmq_msg_recv(&msg, monitor, 0) < 0)
				break;
	}
	zmq_msg_close(&msg);
	return got;
}

/* Reads the options back from the socket: if one had no effect, the socket would accept any peer. */
static bool
is_curve_server(void *socket)
{
	int mechanism = -1, server = 0, enforce = 0;
	size_t n = sizeof(int);
	char domain[16] = "";
	size_t domain_n = sizeof(domain);

	return zmq_getsockopt(socket, ZMQ_MECHANISM, &mechanism, &n) == 0 && mechanism == ZMQ_CURVE
	    && zmq_getsockopt(socket, ZMQ_CURVE_SERVER, &server, &n) == 0 && server == 1
	    && zmq_getsockopt(socket, ZMQ_ZAP_DOMAIN, domain, &domain_n) == 0 && strcmp(domain,
	    BUS_ZAP_DOMAIN) == 0 && zmq_getsockopt(socket, BUS_ZAP_ENFORCE_DOMAIN, &enforce, &n) == 0 &&
	    enforce == 1;
}

/*
 * libzmq unlinks whatever is at the path of an ipc socket. Only a socket without a listener may be replaced:
 * a killed process left it.
 */
static int
check_ipc_path(const char *endpoint, const char *path, struct err_note *note)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, rc = 0;

	if (lstat(path, &st) != 0)
		return errno == ENOENT ? 0 : err_note_set(note, errno, "%s", endpoint);
	if (!S_ISSOCK(st.st_mode))
		return err_expect(note, EEXIST, "%s", "an unused path or a stale socket",
		    "a file that is not a socket; it is not replaced", endpoint);
	if ((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) < 0)
		return err_note_set(note, errno, "%s", endpoint);
	memcpy(at.sun_path, path, strlen(path) + 1);		/* bus__endpoint_parse has checked the length */
	if (connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0 || errno != ECONNREFUSED)
		rc = err_expect(note, EADDRINUSE, "%s", "a path that no process listens on", "one that another process listens on", endpoint);
	close(fd);
	return rc;
}

/*
 * Binds an ipc socket. The folder is locked, so that of two processes that start at once one detects the
 * other.
 */
static int
bind_ipc(void *socket, const char *endpoint, struct err_note *note)
{
	char folder[BUS_ENDPOINT_MAX];
	int lock, rc;

	if (endpoint[6] == '@' || strcmp(endpoint + 6, "*") == 0)
		return zmq_bind(socket, endpoint) != 0 ? err_note_set(note, errno, "%s", endpoint) : 0;
	snprintf(folder, sizeof(folder), "%s", endpoint + 6);
	if ((lock = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || flock(lock, LOCK_EX) != 0)
		rc = err_note_set(note, errno, "%s: folder of the socket", endpoint);
	else if ((rc = check_ipc_path(endpoint, endpoint + 6, note)) == 0 && zmq_bind(socket, endpoint) != 0)
		rc = err_note_set(note, errno, "%s", endpoint);
	if (lock >= 0)
		close(lock);
	return rc;
}

int
bus__bind(struct bus *bus, void *socket, const char *endpoint, char out[BUS_ENDPOINT_MAX],
    struct err_note *note)
{
	struct bus__endpoint e;
	char actual[BUS_ENDPOINT_MAX];
	const char *port;
	size_t n = sizeof(actual);
	int one = 1, rc;

	if ((rc = bus__endpoint_parse(endpoint, &e, note)) != 0)
		return rc;
	if (bus->curve_dir != NULL) {
		if ((rc = bus__curve_server(bus, socket)) != 0 || !is_curve_server(socket))
			return err_note_set(note, rc != 0 ? rc : ERR_INTERNAL, "%s: keys of the socket",
			    endpoint);
	} else if (!e.loopback && !bus->allow_plain_remote) {
		return err_expect_at(note, ERR_CONFIG, "%s", "security.curve_dir",
		    "keys, or a loopback address, or security.allow_plain_remote: true",
		    "no keys, and an address that other hosts reach", endpoint);
	}
	if (e.ipc && (rc = bind_ipc(socket, e.bindable, note)) != 0)
		return rc;
	if (e.ipv6 && zmq_setsockopt(socket, ZMQ_IPV6, &one, sizeof(one)) != 0)
		return err_note_set(note, errno, "%s", endpoint);
	if (!e.ipc && zmq_bind(socket, e.bindable) != 0) {
		if (errno == EADDRINUSE)
			return err_expect(note, EADDRINUSE, "%s", "a free port",
			    "a port that another process listens on", endpoint);
		if (errno == ENODEV || errno == EADDRNOTAVAIL)
			return err_expect(note, EADDRNOTAVAIL, "%s", "an address of this host", "", endpoint);
		return err_note_set(note, errno, "%s", endpoint);
	}
	if (e.loopback_name)
		log_warn("bus.loopback_name",
		    "endpoint=%s bound=%s hint=\"%s is a loopback address in /etc/hosts: "
		    "other hosts cannot connect\"", endpoint, e.bindable, e.host);
	if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, actual, &n) != 0)
		return err_note_set(note, errno, "%s", endpoint);
	if (e.any && (port = strrchr(actual, ':')) != NULL)
		snprintf(out, BUS_ENDPOINT_MAX, "tcp://%s%s", bus_host(), port);
	else
		snprintf(out, BUS_ENDPOINT_MAX, "%s", actual);
	return 0;
}

int
bus__connect(struct bus *bus, void *socket, const char *endpoint, const char *server_key,
    struct err_note *note)
{
	struct bus__endpoint e;
	struct bus_key server;
	int one = 1, rc;

	if ((rc = bus__endpoint_parse(endpoint, &e, note)) != 0)
		return rc;
	if (!e.ipc && (e.any || strcmp(e.port, "0") == 0))
		return err_expect(note, ERR_CONFIG, "%s", "a host and a port to connect to", "a wildcard",
		    endpoint);
	if (bus->curve_dir != NULL) {
		if ((rc = bus__key_load(bus->curve_dir, server_key != NULL ? server_key : "selector", false,
		    &server, note)) != 0)
			return rc;
		if ((rc = bus__curve_client(socket, &bus->key, server.public_key)) != 0)
			return err_note_set(note, rc, "%s: keys of the socket", endpoint);
	}
	if (e.ipv6 && zmq_setsockopt(socket, ZMQ_IPV6, &one, sizeof(one)) != 0)
		return err_note_set(note, errno, "%s", endpoint);
	/* not the resolved address: the library resolves a name again at each reconnect */
	if (zmq_connect(socket, endpoint) != 0)
		return err_note_set(note, errno, "%s", endpoint);
	return 0;
}
