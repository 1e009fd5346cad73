/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ZAP (RFC 27) decides which keys may connect. At each handshake libzmq sends a request to a REP socket at a
 * fixed inproc address. Without an answer it waits and then drops the connection. Without a socket there, and
 * without ZMQ_ZAP_ENFORCE_DOMAIN, it accepts any key: hence the test below, and hence the process ends when
 * this thread ends.
 */
#include "fabric/bus/bus_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock/clock.h"
#include "base/log/log.h"

enum { ZAP_PARTS = 7, ZAP_PART_MAX = 256, PROVE_MS = 5000 };

struct bus__zap {
	struct bus *bus;
	struct bus__service service;
	atomic_bool proving;		/* bus__zap_prove connects with its random key */
	atomic_uint_fast64_t n_refused;
};

struct part {
	uint8_t bytes[ZAP_PART_MAX];
	size_t len;
};

/*
 * Receives one request: version, request id, domain, address, identity, mechanism, credentials. False: the
 * message has another form. Consumes all parts in any case.
 */
static bool
receive(void *socket, struct part parts[ZAP_PARTS], int *n_parts)
{
	int more = 1, n = 0;
	bool good = true;

	while (more) {
		zmq_msg_t msg;

		zmq_msg_init(&msg);
		if (zmq_msg_recv(&msg, socket, n == 0 ? ZMQ_DONTWAIT : 0) < 0) {
			zmq_msg_close(&msg);
			return false;
		}
		if (n < ZAP_PARTS && zmq_msg_size(&msg) <= ZAP_PART_MAX) {
			parts[n].len = zmq_msg_size(&msg);
			memcpy(parts[n].bytes, zmq_msg_data(&msg), parts[n].len);
		} else
			good = false;
		n++;
		more = zmq_msg_more(&msg);
		zmq_msg_close(&msg);
	}
	*n_parts = n;
	return good;
}

static bool
is(const struct part *p, const char *text)
{
	return p->len == strlen(text) && memcmp(p->bytes, text, p->len) == 0;
}

static void
answer(struct bus__zap *zap, struct part parts[ZAP_PARTS], int n, bool good)
{
	char public_key[BUS_KEY_BYTES] = "", user[BUS_USER_MAX + BUS_KEY_BYTES] = "";
	static struct log_limit limit;
	struct bus_key key;
	unsigned long left_out;
	bool allowed = false;
	void *s = zap->service.socket;

	if (good && n == ZAP_PARTS && is(&parts[0], "1.0") && is(&parts[2], BUS_ZAP_DOMAIN) && is(&parts[5], "CURVE")
	    && parts[6].len == 32 && zmq_z85_encode(public_key, parts[6].bytes, 32) != NULL
	    && bus__key_allowed(zap->bus->curve_dir, public_key, &key)) {
		allowed = true;
		snprintf(user, sizeof(user), "%s/%s/%s", bus_role_name(key.role), key.name, public_key);
	}
	if (!allowed) {
		atomic_fetch_add(&zap->n_refused, 1);
		if (!atomic_load(&zap->proving)) {
			atomic_fetch_add(&zap->bus->n_refused, 1);
			if (log_limited(&limit, &left_out))
				log_warn("bus.refused", "address=%.*s key=\"%s\" why=\"not among the accepted keys\" left_out=%lu",
				    good && n > 3 ? (int)parts[3].len : 0, (const char *)parts[3].bytes, public_key, left_out);
		}
	}
	if (zmq_send(s, "1.0", 3, ZMQ_SNDMORE) < 0
	    || zmq_send(s, parts[1].bytes, n > 1 ? parts[1].len : 0, ZMQ_SNDMORE) < 0
	    || zmq_send(s, allowed ? "200" : "400", 3, ZMQ_SNDMORE) < 0
	    || zmq_send(s, allowed ? "OK" : "unknown key", allowed ? 2 : 11, ZMQ_SNDMORE) < 0
	    || zmq_send(s, user, strlen(user), ZMQ_SNDMORE) < 0 || zmq_send(s, "", 0, 0) < 0)
		log_fatal("bus.zap", "error=\"%s\"", zmq_strerror(errno));
}

static void
serve(void *arg)
{
	struct part parts[ZAP_PARTS] = {{.len = 0}};
	struct bus__zap *zap = arg;
	int n = 0;
	bool good = receive(zap->service.socket, parts, &n);

	if (n > 0)
		answer(zap, parts, n, good);
}

int
bus__zap_start(struct bus *bus, struct err_note *note)
{
	struct bus__zap *zap = calloc(1, sizeof(*zap));
	int linger = 0, rc;

	if (zap == NULL)
		return err_note_set(note, ENOMEM, "ZAP thread");
	zap->bus = bus;
	zap->service.serve = serve;
	zap->service.arg = zap;
	if ((zap->service.socket = zmq_socket(bus->ctx, ZMQ_REP)) == NULL
	    || zmq_setsockopt(zap->service.socket, ZMQ_LINGER, &linger, sizeof(linger)) != 0
	    || zmq_bind(zap->service.socket, "inproc://zeromq.zap.01") != 0)
		rc = errno;
	else
		rc = bus__service_start(&zap->service);
	bus->zap = zap;
	if (rc != 0) {
		bus__zap_stop(bus);
		err_note_set(note, rc, "ZAP thread");
	}
	return rc;
}

void
bus__zap_stop(struct bus *bus)
{
	struct bus__zap *zap = bus->zap;

	if (zap == NULL)
		return;
	bus__service_stop(&zap->service);
	if (zap->service.socket != NULL)
		zmq_close(zap->service.socket);
	free(zap);
	bus->zap = NULL;
}

int
bus__curve_server(struct bus *bus, void *socket)
{
	int one = 1;

	if (zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof(one)) != 0
	    || zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, bus->key.secret_key, BUS_KEY_BYTES) != 0
	    || zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, BUS_ZAP_DOMAIN, strlen(BUS_ZAP_DOMAIN)) != 0
	    || zmq_setsockopt(socket, BUS_ZAP_ENFORCE_DOMAIN, &one, sizeof(one)) != 0)
		return errno;
	return 0;
}

int
bus__curve_client(void *socket, const struct bus_key *mine, const char *server_public)
{
	if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server_public, BUS_KEY_BYTES) != 0
	    || zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, mine->public_key, BUS_KEY_BYTES) != 0
	    || zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, mine->secret_key, BUS_KEY_BYTES) != 0)
		return errno;
	return 0;
}

/*
 * Connects with a random key to a socket made like every server's. Unless the ZAP thread rejects the key, the
 * bus is not created, so that no socket is bound that accepts any peer.
 */
int
bus__zap_prove(struct bus *bus, struct err_note *note)
{
	struct bus__socket_options server_options = {ZMQ_ROUTER, 1024, 4, 0};
	struct bus__socket_options client_options = {ZMQ_DEALER, 1024, 4, 0};
	const int handshake = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
	struct bus_key stranger = {.name = "stranger"};
	char endpoint[BUS_ENDPOINT_MAX], mine[BUS_KEY_BYTES];
	void *server = NULL, *client = NULL, *monitor = NULL;
	uint64_t refused = atomic_load(&bus->zap->n_refused);
	int64_t end = clock_now_ms() + PROVE_MS;
	bool let_in = false, rejected = false;
	int event, value, rc = 0;
	char byte;

	atomic_store(&bus->zap->proving, true);
	if ((server = bus__socket_new(bus, &server_options)) == NULL
	    || (client = bus__socket_new(bus, &client_options)) == NULL
	    || (monitor = bus__monitor_new(bus, client, handshake)) == NULL
	    || zmq_curve_keypair(stranger.public_key, stranger.secret_key) != 0) {
		rc = err_note_set(note, errno, "test that unknown keys are rejected");
		goto out;
	}
	if ((rc = bus__bind(bus, server, "tcp://127.0.0.1:*", endpoint, note)) != 0)
		goto out;
	if (zmq_curve_public(mine, bus->key.secret_key) != 0 || strcmp(mine, bus->key.public_key) != 0) {
		rc = err_expect(note, ERR_FORMAT, "%s/%s.key", "a public and a secret key of one pair",
		    "keys of two pairs", bus->curve_dir, bus->key.name);
		goto out;
	}
	if ((rc = bus__curve_client(client, &stranger, mine)) != 0 || zmq_connect(client, endpoint) != 0
	    || zmq_send(client, "x", 1, ZMQ_DONTWAIT) < 0) {
		rc = err_note_set(note, errno, "test that unknown keys are rejected");
		goto out;
	}
	while (!let_in && !rejected && clock_now_ms() < end) {
		zmq_pollitem_t items[2] = {{server, 0, ZMQ_POLLIN, 0}, {monitor, 0, ZMQ_POLLIN, 0}};

		zmq_poll(items, 2, 50);
		let_in = zmq_recv(server, &byte, 1, ZMQ_DONTWAIT) >= 0;
		while (bus__monitor_next(monitor, &event, &value)) {
			let_in = let_in || event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED;
			rejected = rejected || event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
		}
	}
	if (let_in || !rejected || atomic_load(&bus->zap->n_refused) == refused)
		rc = err_expect(note, ERR_INTERNAL, "test that unknown keys are rejected",
		    "a random key to be rejected", "%s",
		    let_in ? "the key was accepted" : "no answer in 5 s");
out:
	atomic_store(&bus->zap->proving, false);
	bus__socket_close(bus, &monitor);
	bus__socket_close(bus, &client);
	bus__socket_close(bus, &server);
	return rc;
}
