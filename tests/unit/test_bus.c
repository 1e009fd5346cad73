/* SPDX-License-Identifier: Apache-2.0 */
/* Tests bus over loopback with both ends in this process. Every wait has a limit; nothing is measured. */
#include "fabric/bus/bus.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>
#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/log/log.h"
#include "check.h"
#include "fabric/bus/bus_internal.h"

enum { PATIENCE_MS = 10000 };

static struct bus *
plain_bus(uint64_t max_message)
{
	struct bus_options options = {.max_message = max_message};
	struct bus *bus;

	REQUIRE(bus_new(&bus, &options, NULL) == 0);
	return bus;
}

/* Waits for the next event of one kind at a server or client and skips other events. */
static bool
await_server(struct bus_poll *poll, struct bus_server *server, enum bus_event_kind kind, struct bus_event *event)
{
	int64_t end = clock_now_ms() + PATIENCE_MS;

	while (clock_now_ms() < end) {
		while (bus_server_recv(server, event) == 0) {
			if (event->kind == kind)
				return true;
			bus_event_free(event);
		}
		bus_poll_wait(poll, 50);
	}
	return false;
}

static bool
await_client(struct bus_poll *poll, struct bus_client *client, enum bus_event_kind kind, struct bus_event *event)
{
	int64_t end = clock_now_ms() + PATIENCE_MS;

	while (clock_now_ms() < end) {
		while (bus_client_recv(client, event) == 0) {
			if (event->kind == kind)
				return true;
			bus_event_free(event);
		}
		bus_poll_wait(poll, 50);
	}
	return false;
}

/* Bytes that the server still queues, after it has tried to send them. */
static size_t
queued(struct bus_server *server)
{
	struct bus__source *source = (struct bus__source *)server;
	int64_t due_ms = 0;
	bool pending = false;

	return source->flush(source, &due_ms, &pending);
}

static bool
logged(const char *what)
{
	char last[600];

	log_last_error(last, sizeof(last));
	return strstr(last, what) != NULL;
}

static uint8_t *
bytes(const char *text)
{
	return (uint8_t *)strdup(text);
}

static bool
frame_is(const struct bus_event *event, const char *text)
{
	return event->len == strlen(text) && memcmp(event->frame, text, event->len) == 0;
}

/* Whether this machine has ::1; containers often do not. */
static bool
has_ipv6(void)
{
	struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	bool has = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0;

	if (fd >= 0)
		close(fd);
	return has;
}

static void
test_there_and_back(const char *endpoint)
{
	struct bus *bus = plain_bus(1 << 20);
	struct bus_poll *poll = bus_poll_new(bus);
	struct bus_server *server = NULL;
	struct bus_client *client = NULL;
	struct bus_event event;
	struct err_note note = {0};
	uint64_t peer;
	char port[BUS_ENDPOINT_MAX];

	REQUIRE(bus_server_new(&server, bus, endpoint, &note) == 0);
	snprintf(port, sizeof(port), "%s", bus_server_endpoint(server));
	REQUIRE(bus_client_new(&client, bus, port, NULL, &note) == 0);
	bus_poll_add_server(poll, server);
	bus_poll_add_client(poll, client);
	REQUIRE(await_client(poll, client, BUS_EVENT_CONNECTED, &event));
	CHECK(bus_client_send(client, bytes("hello"), 5) == 0);
	CHECK(bus_client_send(client, malloc(1), 0) == 0);
	REQUIRE(await_server(poll, server, BUS_EVENT_FRAME, &event));
	CHECK(frame_is(&event, "hello"));
	CHECK(event.key_role == BUS_ROLE_NONE && event.user[0] == 0);
	peer = event.peer;
	bus_event_free(&event);
	REQUIRE(await_server(poll, server, BUS_EVENT_FRAME, &event));
	CHECK(event.len == 0 && event.peer == peer);
	bus_event_free(&event);
	CHECK(bus_server_send(server, peer, bytes("welcome"), 7) == 0);
	REQUIRE(await_client(poll, client, BUS_EVENT_FRAME, &event));
	CHECK(frame_is(&event, "welcome"));
	bus_event_free(&event);
	CHECK(bus_server_send(server, peer + 1, bytes("nobody"), 6) == ERR_CLOSED);

	/* the port is in use: the error names it */
	struct bus_server *second = NULL;

	CHECK(bus_server_new(&second, bus, port, &note) == EADDRINUSE && second == NULL);
	CHECK_STR(note.name, port);

	/* the peer disconnects: GONE, and sending to it fails */
	bus_poll_remove(poll, client);
	bus_client_destroy(&client);
	REQUIRE(await_server(poll, server, BUS_EVENT_GONE, &event));
	CHECK(event.peer == peer);
	CHECK(bus_server_send(server, peer, bytes("late"), 4) == ERR_CLOSED);
	CHECK(queued(server) == 0);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_destroy(&bus);
}

static void
test_server_restarts(void)
{
	struct bus *bus = plain_bus(0);
	struct bus_poll *poll = bus_poll_new(bus);
	struct bus_server *server = NULL;
	struct bus_client *client = NULL;
	struct bus_event event;
	struct err_note note;
	char endpoint[BUS_ENDPOINT_MAX];
	int64_t end;

	REQUIRE(bus_server_new(&server, bus, "tcp://127.0.0.1:*", &note) == 0);
	snprintf(endpoint, sizeof(endpoint), "%s", bus_server_endpoint(server));
	REQUIRE(bus_client_new(&client, bus, endpoint, NULL, &note) == 0);
	bus_poll_add_client(poll, client);
	REQUIRE(await_client(poll, client, BUS_EVENT_CONNECTED, &event));
	bus_server_destroy(&server);
	REQUIRE(await_client(poll, client, BUS_EVENT_DISCONNECTED, &event));
	CHECK(bus_client_send(client, bytes("x"), 1) == ERR_CLOSED);
	/* the library closes sockets in the background: the port may still be in use for a moment */
	for (end = clock_now_ms() + PATIENCE_MS; server == NULL && clock_now_ms() < end; stop_sleep_ms(20))
		if (bus_server_new(&server, bus, endpoint, &note) != 0)
			CHECK(server == NULL);
	REQUIRE(server != NULL);
	bus_poll_add_server(poll, server);
	REQUIRE(await_client(poll, client, BUS_EVENT_CONNECTED, &event));
	CHECK(bus_client_send(client, bytes("again"), 5) == 0);
	REQUIRE(await_server(poll, server, BUS_EVENT_FRAME, &event));
	CHECK(frame_is(&event, "again"));
	bus_event_free(&event);
	bus_client_destroy(&client);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_destroy(&bus);
}

/*
 * For a peer that does not read, the server queues a bounded number of bytes; when it reads again, all
 * accepted frames arrive in order.
 */
static void
test_queue_full(void)
{
	enum { MAX = 64 << 10, FRAMES = 20000 };
	struct bus *bus = plain_bus(MAX);
	struct bus_poll *poll = bus_poll_new(bus);
	struct bus_server *server = NULL;
	struct bus_client *client = NULL;
	struct bus_event event;
	uint64_t peer;
	uint32_t taken = 0, arrived = 0;
	int rc = 0;

	REQUIRE(bus_server_new(&server, bus, "tcp://127.0.0.1:0", NULL) == 0);
	REQUIRE(bus_client_new(&client, bus, bus_server_endpoint(server), NULL, NULL) == 0);
	bus_poll_add_client(poll, client);
	REQUIRE(await_client(poll, client, BUS_EVENT_CONNECTED, &event));
	CHECK(bus_client_send(client, bytes("x"), 1) == 0);
	bus_poll_add_server(poll, server);
	REQUIRE(await_server(poll, server, BUS_EVENT_FRAME, &event));
	peer = event.peer;
	bus_event_free(&event);
	for (uint32_t i = 0; i < FRAMES && rc == 0; i++) {
		uint8_t *frame = calloc(1, 4000);

		memcpy(frame, &i, sizeof(i));
		if ((rc = bus_server_send(server, peer, frame, 4000)) == 0)
			taken++;
	}
	CHECK(rc == ERR_AGAIN);
	CHECK(taken < FRAMES);
	CHECK(queued(server) > 0 && queued(server) <= 4 * MAX);
	while (arrived < taken && await_client(poll, client, BUS_EVENT_FRAME, &event)) {
		uint32_t i = UINT32_MAX;

		if (event.len == 4000)
			memcpy(&i, event.frame, sizeof(i));
		CHECK(i == arrived);
		arrived++;
		bus_event_free(&event);
	}
	CHECK(arrived == taken);
	CHECK(queued(server) == 0);
	bus_client_destroy(&client);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_destroy(&bus);
}

/* A plain ZeroMQ socket, for messages that our clients never send. */
static void *
foreign(void *ctx, int type, const char *endpoint)
{
	void *s = zmq_socket(ctx, type);
	int linger = 0, timeout = PATIENCE_MS;

	REQUIRE(s != NULL);
	zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof(linger));
	zmq_setsockopt(s, ZMQ_RCVTIMEO, &timeout, sizeof(timeout));
	REQUIRE(zmq_connect(s, endpoint) == 0);
	return s;
}

static void
test_bad_peers(void)
{
	struct bus *bus = plain_bus(100000);
	struct bus_poll *poll = bus_poll_new(bus);
	struct bus_server *server = NULL;
	struct bus_client *good = NULL;
	struct bus_event event;
	void *ctx = zmq_ctx_new(), *two, *big, *named;
	char *large = calloc(1, 100001);
	uint64_t first;
	int n_frames = 0;

	REQUIRE(bus_server_new(&server, bus, "tcp://127.0.0.1:0", NULL) == 0);
	bus_poll_add_server(poll, server);
	two = foreign(ctx, ZMQ_DEALER, bus_server_endpoint(server));
	zmq_send(two, "one", 3, 0);
	REQUIRE(await_server(poll, server, BUS_EVENT_FRAME, &event));
	first = event.peer;
	bus_event_free(&event);
	CHECK(!logged("bus.bad_peer"));
	zmq_send(two, "a", 1, ZMQ_SNDMORE);
	zmq_send(two, "b", 1, 0);
	zmq_send(two, "c", 1, 0);		/* dropped: the connection is being closed */
	REQUIRE(await_server(poll, server, BUS_EVENT_GONE, &event));
	CHECK(event.peer == first);
	CHECK(logged("bus.bad_peer") && logged("more than one part"));
	zmq_close(two);

	/* a frame of the maximum length is accepted; one byte more ends the connection */
	big = foreign(ctx, ZMQ_DEALER, bus_server_endpoint(server));
	zmq_send(big, large, 100000, 0);
	REQUIRE(await_server(poll, server, BUS_EVENT_FRAME, &event));
	CHECK(event.len == 100000);
	first = event.peer;
	bus_event_free(&event);
	zmq_send(big, large, 100001, 0);
	REQUIRE(await_server(poll, server, BUS_EVENT_GONE, &event));
	CHECK(event.peer == first);
	zmq_close(big);

	/* a peer that chooses its routing id is ignored */
	named = zmq_socket(ctx, ZMQ_DEALER);
	zmq_setsockopt(named, ZMQ_ROUTING_ID, "teacher", 7);
	REQUIRE(zmq_connect(named, bus_server_endpoint(server)) == 0);
	zmq_send(named, "x", 1, 0);
	for (int i = 0; i < 200 && !logged("peer chose its own routing id"); i++) {
		bus_poll_wait(poll, 50);
		while (bus_server_recv(server, &event) == 0) {
			n_frames += event.kind == BUS_EVENT_FRAME;
			bus_event_free(&event);
		}
	}
	CHECK(logged("peer chose its own routing id") && n_frames == 0);
	zmq_close(named);

	/* other peers are not affected */
	REQUIRE(bus_client_new(&good, bus, bus_server_endpoint(server), NULL, NULL) == 0);
	bus_poll_add_client(poll, good);
	REQUIRE(await_client(poll, good, BUS_EVENT_CONNECTED, &event));
	CHECK(bus_client_send(good, bytes("fine"), 4) == 0);
	REQUIRE(await_server(poll, server, BUS_EVENT_FRAME, &event));
	CHECK(frame_is(&event, "fine"));
	/* bus_server_end: what was sent before arrives, then the connection ends */
	first = event.peer;
	bus_event_free(&event);
	CHECK(bus_server_send(server, first, bytes("refused"), 7) == 0);
	bus_server_end(server, first);
	CHECK(bus_server_send(server, first, bytes("more"), 4) == ERR_CLOSED);
	REQUIRE(await_client(poll, good, BUS_EVENT_FRAME, &event));
	CHECK(frame_is(&event, "refused"));
	bus_event_free(&event);
	CHECK(await_client(poll, good, BUS_EVENT_DISCONNECTED, &event));
	free(large);
	bus_client_destroy(&good);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_destroy(&bus);
	zmq_ctx_term(ctx);
}

/* A frame that is too long for the client ends its connection; the client reconnects by itself. */
static void
test_too_long_for_client(void)
{
	struct bus *bus = plain_bus(1 << 20), *small = plain_bus(64 << 10);
	struct bus_poll *server_poll = bus_poll_new(bus), *poll = bus_poll_new(small);
	struct bus_server *server = NULL;
	struct bus_client *client = NULL;
	struct bus_event event;
	uint64_t peer;

	REQUIRE(bus_server_new(&server, bus, "tcp://127.0.0.1:0", NULL) == 0);
	REQUIRE(bus_client_new(&client, small, bus_server_endpoint(server), NULL, NULL) == 0);
	bus_poll_add_server(server_poll, server);
	bus_poll_add_client(poll, client);
	REQUIRE(await_client(poll, client, BUS_EVENT_CONNECTED, &event));
	CHECK(bus_client_send(client, bytes("x"), 1) == 0);
	REQUIRE(await_server(server_poll, server, BUS_EVENT_FRAME, &event));
	peer = event.peer;
	bus_event_free(&event);
	CHECK(bus_server_send(server, peer, calloc(1, 100000), 100000) == 0);
	CHECK(await_client(poll, client, BUS_EVENT_DISCONNECTED, &event));
	CHECK(await_client(poll, client, BUS_EVENT_CONNECTED, &event));
	CHECK(bus_client_send(client, bytes("back"), 4) == 0);
	CHECK(await_server(server_poll, server, BUS_EVENT_FRAME, &event) && frame_is(&event, "back") && event.peer != peer);
	bus_event_free(&event);
	bus_client_destroy(&client);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_poll_destroy(&server_poll);
	bus_destroy(&small);
	bus_destroy(&bus);
}

static void
say_status(void *arg, const uint8_t *body, size_t len, uint8_t **answer, size_t *answer_len)
{
	(void)arg;
	if (len == 6 && memcmp(body, "silent", 6) == 0)
		return;
	*answer = malloc(len + 3);
	memcpy(*answer, "ok:", 3);
	memcpy(*answer + 3, body, len);
	*answer_len = len + 3;
}

static void
test_status(void)
{
	struct bus *bus = plain_bus(0);
	struct bus_status *status = NULL, *more[20] = {0};
	struct bus_ask asks[22] = {0};
	struct bus_asker *asker = NULL;
	void *ctx = zmq_ctx_new(), *s;
	char buf[64] = "", *large = calloc(1, 5000);
	struct err_note note;

	REQUIRE(bus_status_new(&status, bus, "tcp://127.0.0.1:0", say_status, NULL, &note) == 0);
	/* a plain REQ socket */
	s = foreign(ctx, ZMQ_REQ, bus_status_endpoint(status));
	zmq_send(s, "", 0, 0);
	CHECK(zmq_recv(s, buf, sizeof(buf), 0) == 3 && memcmp(buf, "ok:", 3) == 0);
	zmq_send(s, "json", 4, 0);
	CHECK(zmq_recv(s, buf, sizeof(buf), 0) == 7 && memcmp(buf, "ok:json", 7) == 0);
	zmq_close(s);
	/* a DEALER socket, with a delimiter and without; the answer has the same shape */
	s = foreign(ctx, ZMQ_DEALER, bus_status_endpoint(status));
	zmq_send(s, "", 0, ZMQ_SNDMORE);
	zmq_send(s, "a", 1, 0);
	CHECK(zmq_recv(s, buf, sizeof(buf), 0) == 0);
	CHECK(zmq_recv(s, buf, sizeof(buf), 0) == 4 && memcmp(buf, "ok:a", 4) == 0);
	zmq_send(s, "silent", 6, 0);
	zmq_send(s, "x", 1, ZMQ_SNDMORE);		/* two parts, the first not empty: no answer */
	zmq_send(s, "y", 1, 0);
	zmq_send(s, "", 0, ZMQ_SNDMORE);
	zmq_send(s, "x", 1, ZMQ_SNDMORE);
	zmq_send(s, "y", 1, 0);
	zmq_send(s, "b", 1, 0);
	CHECK(zmq_recv(s, buf, sizeof(buf), 0) == 4 && memcmp(buf, "ok:b", 4) == 0);
	zmq_close(s);
	/* longer than a request may be: disconnected, and the next client is served */
	s = foreign(ctx, ZMQ_DEALER, bus_status_endpoint(status));
	zmq_send(s, large, 5000, 0);
	zmq_close(s);
	/* all at once: 20 that answer, one where nothing listens, one that is not an endpoint */
	for (int i = 0; i < 20; i++) {
		REQUIRE(bus_status_new(&more[i], bus, "tcp://127.0.0.1:0", say_status, NULL, &note) == 0);
		asks[i].endpoint = bus_status_endpoint(more[i]);
	}
	asks[20].endpoint = "tcp://127.0.0.1:1";
	asks[21].endpoint = "not an endpoint";
	REQUIRE(bus_asker_new(&asker, bus) == 0);
	for (int i = 0; i < 22; i++)
		REQUIRE(bus_asker_ask(asker, &asks[i], "json", 4, 2000) == 0);
	while (bus_asker_open(asker) > 0)
		bus_asker_next(asker, 2000);
	bus_asker_destroy(&asker);
	for (int i = 0; i < 20; i++) {
		CHECK(asks[i].rc == 0 && asks[i].len == 7 && memcmp(asks[i].answer, "ok:json", 7) == 0);
		free(asks[i].answer);
		bus_status_destroy(&more[i]);
	}
	CHECK(asks[20].rc == ERR_TIMEOUT && asks[20].answer == NULL);
	CHECK(asks[21].rc == ERR_CONFIG && asks[21].answer == NULL);
	free(large);
	bus_status_destroy(&status);
	bus_destroy(&bus);
	zmq_ctx_term(ctx);
}

/* A peer that does not answer does not delay others: their answers come while its long timeout runs. */
static void
test_asker(void)
{
	struct bus *bus = plain_bus(0);
	struct bus_status *status = NULL;
	struct bus_asker *asker = NULL;
	struct bus_ask asks[7] = {0}, *got;
	bool seen[7] = {false};
	int64_t start = clock_now_ms();

	REQUIRE(bus_status_new(&status, bus, "tcp://127.0.0.1:0", say_status, NULL, NULL) == 0);
	REQUIRE(bus_asker_new(&asker, bus) == 0);
	CHECK(bus_asker_next(asker, 60000) == NULL);		/* returns at once: no query is open */
	for (size_t i = 0; i < 7; i++) {
		bool silent = i == 0 || i == 3;

		asks[i] = (struct bus_ask){.endpoint = bus_status_endpoint(status), .id = i};
		REQUIRE(bus_asker_ask(asker, &asks[i], silent ? "silent" : "json", silent ? 6 : 4, i == 3 ? 100 : 3600000) == 0);
	}
	for (size_t i = 0; i < 6; i++) {
		REQUIRE((got = bus_asker_next(asker, 3600000)) != NULL);
		CHECK(got == &asks[got->id] && !seen[got->id]);
		seen[got->id] = true;
		CHECK(got->id == 3 ? got->rc == ERR_TIMEOUT && got->answer == NULL : got->rc == 0 && got->len == 7);
		free(got->answer);
	}
	CHECK(!seen[0] && bus_asker_open(asker) == 1);
	CHECK(bus_asker_next(asker, 10) == NULL);		/* its timeout has not passed */
	CHECK(bus_asker_drop(asker) == &asks[0] && asks[0].rc == ERR_TIMEOUT);
	CHECK(bus_asker_drop(asker) == NULL && bus_asker_open(asker) == 0);
	CHECK(clock_now_ms() - start < 3600000);
	bus_asker_destroy(&asker);
	bus_status_destroy(&status);
	bus_destroy(&bus);
}

static void
test_events(void)
{
	struct bus *bus = plain_bus(0);
	struct bus_events *pub = NULL, *sub = NULL;
	char topic[32], text[32];
	int rc = ERR_TIMEOUT;

	REQUIRE(bus_events_publish(&pub, bus, "tcp://127.0.0.1:0", NULL) == 0);
	REQUIRE(bus_events_subscribe(&sub, bus, bus_events_endpoint(pub), NULL, "lease", NULL) == 0);
	/* a subscription takes a moment; what PUB sends before is lost */
	for (int i = 0; i < 100 && rc != 0; i++) {
		bus_events_send(pub, "rows", "not asked for");
		bus_events_send(pub, "lease", "seqs=8");
		rc = bus_events_recv(sub, topic, sizeof(topic), text, sizeof(text), 50);
	}
	CHECK(rc == 0);
	CHECK_STR(topic, "lease");
	CHECK_STR(text, "seqs=8");
	bus_events_destroy(&sub);
	bus_events_destroy(&pub);
	bus_destroy(&bus);
}

static atomic_bool woken;

static void *
wake_later(void *waker)
{
	stop_sleep_ms(30);
	atomic_store(&woken, true);
	bus_waker_wake(waker);
	return NULL;
}

/* A wake by another thread ends the poll. A wake before the poll ends the next poll, once. */
static void
test_waker(void)
{
	struct bus *bus = plain_bus(0);
	struct bus_waker *waker = bus_waker_new();
	struct bus_poll *poll = bus_poll_new(bus);
	int64_t start = clock_now_ms();
	pthread_t thread;

	bus_poll_add_waker(poll, waker);
	bus_waker_wake(waker);
	bus_waker_notify(waker);
	CHECK(bus_poll_wait(poll, 3600000) == 0);
	CHECK(bus_poll_wait(poll, 1) == 0);		/* no wake is left: this poll waits */
	CHECK(clock_now_ms() > start);
	pthread_create(&thread, NULL, wake_later, waker);
	while (!atomic_load(&woken))
		CHECK(bus_poll_wait(poll, 3600000) == 0);
	pthread_join(thread, NULL);
	CHECK(clock_now_ms() - start < 3600000);
	bus_poll_remove(poll, waker);
	bus_poll_remove(poll, NULL);
	bus_poll_destroy(&poll);
	bus_waker_destroy(&waker);
	bus_destroy(&bus);
}

static void
test_endpoints(void)
{
	static const struct { const char *what, *endpoint; int rc; } rows[] = {
		{"no scheme", "127.0.0.1:5555", ERR_CONFIG},
		{"no port", "tcp://127.0.0.1", ERR_CONFIG},
		{"port too large", "tcp://127.0.0.1:65536", ERR_CONFIG},
		{"port not a number", "tcp://127.0.0.1:x", ERR_CONFIG},
		{"no host", "tcp://:5555", ERR_CONFIG},
		{"another scheme", "udp://127.0.0.1:5555", ERR_CONFIG},
		{"all interfaces, no keys", "tcp://*:0", ERR_CONFIG},
		{"all interfaces by number, no keys", "tcp://0.0.0.0:0", ERR_CONFIG},
		{"an address that is not ours", "tcp://192.0.2.1:0", ERR_CONFIG},
		{"loopback", "tcp://127.0.0.1:0", 0},
		{"loopback by name", "tcp://localhost:*", 0},
		{"another loopback", "tcp://127.0.0.2:0", 0},
		{"IPv6 loopback", "tcp://[::1]:0", 0},
		{"IPv6 loopback, written out", "tcp://[0:0:0:0:0:0:0:1]:*", 0},
		{"IPv6, all interfaces, no keys", "tcp://[::]:0", ERR_CONFIG},
		{"IPv6 that is not ours, no keys", "tcp://[2001:db8::1]:0", ERR_CONFIG},
	};
	struct bus_options open = {.allow_plain_remote = true};
	struct bus *bus = plain_bus(0), *bus_open;
	struct bus_server *s = NULL;
	struct bus_client *c = NULL;
	struct err_note note = {0};
	struct addrinfo *found = NULL;
	char path[115] = "ipc://";

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (strstr(rows[i].endpoint, "localhost") != NULL && getaddrinfo("localhost", NULL, NULL, &found) != 0) {
			printf("not shown: \"%s\": this machine has no localhost (/etc/hosts)\n", rows[i].what);
			continue;
		}
		if (strstr(rows[i].endpoint, "1]:") != NULL && rows[i].rc == 0 && !has_ipv6())
			continue;
		CHECK_ROW(rows[i].what, bus_server_new(&s, bus, rows[i].endpoint, &note) == rows[i].rc);
		CHECK_ROW(rows[i].what, (s != NULL) == (rows[i].rc == 0));
		bus_server_destroy(&s);
	}
	if (found != NULL)
		freeaddrinfo(found);
	CHECK(bus_client_new(&c, bus, "tcp://127.0.0.1:0", NULL, &note) == ERR_CONFIG && c == NULL);
	memset(path + 6, 'p', 108);		/* a Unix socket's name has 107 bytes */
	CHECK(bus_server_new(&s, bus, path, &note) == ERR_CONFIG && s == NULL);
	CHECK(strstr(note.expected, "at most 107 bytes") != NULL && strcmp(note.found, "108") == 0);
	bus_destroy(&bus);
	REQUIRE(bus_new(&bus_open, &open, &note) == 0);
	CHECK(bus_server_new(&s, bus_open, "tcp://*:0", &note) == 0);
	CHECK(s != NULL && strstr(bus_server_endpoint(s), bus_host()) != NULL && strstr(bus_server_endpoint(s), ":0") == NULL);
	bus_server_destroy(&s);
	CHECK(bus_server_new(&s, bus_open, "tcp://192.0.2.1:0", &note) == EADDRNOTAVAIL);
	bus_destroy(&bus_open);
}

/* A child polls without a limit. A signal must end the poll, and the same signal twice must end the child. */
static int
stopped_child(int signals, int sig, int *status)
{
	int ready[2];
	char byte;
	pid_t pid = -1;

	REQUIRE(pipe(ready) == 0 && (pid = fork()) >= 0);
	if (pid == 0) {
		struct bus *bus = plain_bus(0);
		struct bus_poll *poll = bus_poll_new(bus);

		if (stop_install() != 0 || write(ready[1], "r", 1) != 1)
			_exit(1);
		while (!stop_requested())
			bus_poll_wait(poll, -1);
		if (stop_signal() != sig || write(ready[1], "s", 1) != 1)
			_exit(2);
		if (signals == 2)
			for (;;)
				bus_poll_wait(poll, -1);	/* the second signal ends the process */
		bus_poll_destroy(&poll);
		bus_destroy(&bus);
		_exit(33);
	}
	REQUIRE(read(ready[0], &byte, 1) == 1);
	kill(pid, sig);
	REQUIRE(read(ready[0], &byte, 1) == 1);
	if (signals == 2)
		kill(pid, sig);
	REQUIRE(waitpid(pid, status, 0) == pid);
	close(ready[0]);
	close(ready[1]);
	return byte;
}

static void
test_stop(void)
{
	int status;

	CHECK(stopped_child(1, SIGTERM, &status) == 's' && WIFEXITED(status) && WEXITSTATUS(status) == 33);
	CHECK(stopped_child(1, SIGINT, &status) == 's' && WIFEXITED(status) && WEXITSTATUS(status) == 33);
	CHECK(stopped_child(1, SIGUSR1, &status) == 's' && WIFEXITED(status) && WEXITSTATUS(status) == 33);
	CHECK(stopped_child(2, SIGTERM, &status) == 's' && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

int
main(void)
{
	test_stop();		/* must be first: it forks, and there are no threads yet */
	test_there_and_back("tcp://127.0.0.1:0");
	if (has_ipv6())
		test_there_and_back("tcp://[::1]:0");
	else
		printf("not shown: IPv6, which this machine does not have\n");
	test_server_restarts();
	test_queue_full();
	test_bad_peers();
	test_too_long_for_client();
	test_status();
	test_asker();
	test_events();
	test_waker();
	test_endpoints();
	return check_done();
}
