/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile peers must not be able to end a process, fill its memory or use up its descriptors. These peers
 * implement ZMTP 3.0 (RFC 23) over TCP by hand, because a peer of the library cannot do most of this.
 */
#include "fabric/bus/bus.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock/clock.h"
#include "base/log/log.h"
#include "check.h"
#include "fabric/bus/bus_internal.h"

enum { PATIENCE_MS = 10000, MORE = 1, LONG = 2, COMMAND = 4 };

static struct bus *
plain_bus(uint64_t max_message)
{
	struct bus_options options = {.max_message = max_message};
	struct bus *bus;

	REQUIRE(bus_new(&bus, &options, NULL) == 0);
	return bus;
}

/* Connects to "tcp://127.0.0.1:PORT" or "ipc://PATH". */
static int
dial(const char *endpoint)
{
	struct sockaddr_un path = {.sun_family = AF_UNIX};
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(strrchr(endpoint, ':') + 1)),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	bool ipc = strncmp(endpoint, "ipc://", 6) == 0;
	int fd = socket(ipc ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (ipc) {
		snprintf(path.sun_path, sizeof(path.sun_path), "%s", endpoint + 6);
		REQUIRE(fd >= 0 && connect(fd, (struct sockaddr *)&path, sizeof(path)) == 0);
		return fd;
	}
	REQUIRE(fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0);
	return fd;
}

static size_t
short_frame(uint8_t *out, uint8_t flags, const void *body, size_t len)
{
	out[0] = flags;
	out[1] = (uint8_t)len;
	memcpy(out + 2, body, len);
	return 2 + len;
}

/* Connects and sends greeting and READY of a DEALER or SUB without keys; waits for the server's READY. */
static int
greet_as(const char *endpoint, bool sub)
{
	static const char dealer[] = "\5READY\13Socket-Type\0\0\0\6DEALER", subscriber[] = "\5READY\13Socket-Type\0\0\0\3SUB";
	uint8_t greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0, 'N', 'U', 'L', 'L'}, command[64], in[256];
	size_t n = sub ? short_frame(command, COMMAND, subscriber, sizeof(subscriber) - 1) :
	    short_frame(command, COMMAND, dealer, sizeof(dealer) - 1), got = 0;
	int fd = dial(endpoint);
	ssize_t k;

	REQUIRE(send(fd, greeting, sizeof(greeting), 0) == sizeof(greeting) && send(fd, command, n, 0) == (ssize_t)n);
	while (got < 64 + 2 || got < 64 + 2 + (size_t)in[65]) {
		REQUIRE((k = recv(fd, in + got, sizeof(in) - got, 0)) > 0);
		got += (size_t)k;
	}
	return fd;
}

static int
greet(const char *endpoint)
{
	return greet_as(endpoint, false);
}

/* Closes with RST, so that the server notices at once. */
static void
reset(int fd)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

/*
 * libzmq 4.3.4 stops reading from a peer whose queue is full, loses the descriptor if the peer then vanishes,
 * and aborts ("!_io_error") at the next heartbeat of either side. SALT_ROUNDS=10000 makes a long test.
 */
static void
test_vanishing_peers(void)
{
	enum { AT_ONCE = 20, FRAMES = 200 };
	const char *env = getenv("SALT_ROUNDS");
	long rounds = env != NULL ? atol(env) : 40;
	struct bus *bus = plain_bus(1 << 16);
	struct bus_poll *poll = bus_poll_new(bus);
	struct bus_server *server = NULL;
	struct bus_event event;
	uint8_t burst[FRAMES * 3 + 32];
	size_t n = 0, frames = 0, gone = 0, started = 0, unseen = 0;
	int64_t end;

	REQUIRE(bus_server_new(&server, bus, "tcp://127.0.0.1:0", NULL) == 0);
	bus_poll_add_server(poll, server);
	for (int i = 0; i < FRAMES; i++)
		n += short_frame(burst + n, 0, "x", 1);
	n += short_frame(burst + n, COMMAND, "\4PING\0\144", 7);
	while (started < (size_t)rounds) {
		int fds[AT_ONCE];

		for (int i = 0; i < AT_ONCE; i++, started++) {
			fds[i] = greet(bus_server_endpoint(server));
			REQUIRE(send(fds[i], burst, n, 0) == (ssize_t)n);
		}
		/* simulates a daemon that computes, so that its queues fill */
		stop_sleep_ms(50);
		for (int i = 0; i < AT_ONCE; i++)
			reset(fds[i]);
		stop_sleep_ms(5);
		/* on a busy host a reset may arrive before the burst was read; such a peer is never seen */
		for (end = clock_now_ms() + 300; gone + unseen < started && clock_now_ms() < end; bus_poll_wait(poll, 10))
			while (bus_server_recv(server, &event) == 0) {
				frames += event.kind == BUS_EVENT_FRAME;
				gone += event.kind == BUS_EVENT_GONE;
				bus_event_free(&event);
			}
		unseen = started - gone;
		REQUIRE(frames == gone * FRAMES);	/* every peer that was seen is reported as gone */
	}
	CHECK(gone > 0);
	printf("%zu peers vanished, %zu of them before they were seen; %zu frames came\n", started, unseen, frames);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_destroy(&bus);
}

/* Sends the block repeatedly until the connection ends, at most max bytes; returns the number of bytes. */
static size_t
pour(int fd, const uint8_t *block, size_t len, size_t max)
{
	size_t sent = 0;
	ssize_t k;

	while (sent < max && (k = send(fd, block + sent % len, len - sent % len, MSG_NOSIGNAL)) > 0)
		sent += (size_t)k;
	return sent;
}

static void
answer_large(void *arg, const uint8_t *body, size_t len, uint8_t **answer, size_t *answer_len)
{
	(void)arg, (void)body, (void)len;
	*answer_len = 1 << 20;
	*answer = calloc(1, *answer_len);
}

/* The memory of this process in MiB. */
static long
memory_mib(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	long kib = -1;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "RssAnon: %ld", &kib) == 1)
			break;
	fclose(f);
	return kib / 1024;
}

/*
 * Endless bytes that never form a message: before the handshake, as message parts, as the beginning of a long
 * frame; at each kind of socket.
 */
static void
test_endless_bytes(bool ipc)
{
	enum { BLOCK = 1 << 20, MAX = 512 << 20 };
	static const struct { const char *what; int socket; bool greets, hello; uint8_t flags; size_t body; } rows[] = {
		{"no ZMTP at all", 0, false, false, 0xee, 200},
		{"a command before the handshake", 0, false, false, LONG | COMMAND, 1 << 20},
		{"parts", 0, true, true, MORE, 200}, {"parts of one byte", 0, true, true, MORE, 1},
		{"parts before the first message", 0, true, false, MORE, 200}, {"parts to the status socket", 1, true, true, MORE, 200},
		{"parts of one byte to the status socket", 1, true, true, MORE, 1}, {"subscriptions", 2, true, false, 0, 200},
	};
	struct bus *bus = plain_bus(1 << 20);
	struct bus_poll *poll = bus_poll_new(bus);
	struct bus_server *server = NULL;
	struct bus_status *status = NULL;
	struct bus_events *events = NULL;
	struct bus_event event;
	uint8_t *block = malloc(BLOCK);
	char dir[] = "/tmp/salt-ipc-XXXXXX", paths[3][64];
	long before, most = 0;

	REQUIRE(block != NULL && mkdtemp(dir) != NULL);
	for (int i = 0; i < 3; i++)
		snprintf(paths[i], sizeof(paths[i]), ipc ? "ipc://%s/%d" : "tcp://127.0.0.1:0", dir, i);
	REQUIRE(bus_server_new(&server, bus, paths[0], NULL) == 0);
	REQUIRE(bus_status_new(&status, bus, paths[1], answer_large, NULL, NULL) == 0);
	REQUIRE(bus_events_publish(&events, bus, paths[2], NULL) == 0);
	bus_poll_add_server(poll, server);
	before = memory_mib();
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		const char *endpoint = rows[r].socket == 0 ? bus_server_endpoint(server) : rows[r].socket == 1 ?
		    bus_status_endpoint(status) : bus_events_endpoint(events);
		size_t len = 0, sent;
		int fd = rows[r].greets ? greet_as(endpoint, rows[r].socket == 2) : dial(endpoint);
		uint8_t body[256] = "\1topic", hello[8];

		if (rows[r].hello) {
			REQUIRE(send(fd, hello, short_frame(hello, 0, "hi", 2), 0) == 4);
			for (bool got = rows[r].socket != 0; !got; bus_poll_wait(poll, 10))
				if (bus_server_recv(server, &event) == 0) {
					got = event.kind == BUS_EVENT_FRAME;
					bus_event_free(&event);
				}
		}
		if (rows[r].body > 255)
			memset(block, 0, BLOCK);
		while (rows[r].body <= 255 && len + 260 < BLOCK) {
			memcpy(body + 6, &len, sizeof(len));		/* subscriptions differ */
			len += short_frame(block + len, rows[r].flags, body, rows[r].body);
		}
		if (rows[r].body > 255) {
			static const uint8_t greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
			static const uint8_t head[9] = {LONG | COMMAND, 0, 0, 0, 0, 0, 0xf, 0xff, 0xff};

			REQUIRE(send(fd, greeting, sizeof(greeting), 0) == 64 && send(fd, head, sizeof(head), 0) == 9);
			len = BLOCK;
		}
		sent = pour(fd, block, len, MAX);
		CHECK_ROW(rows[r].what, sent < MAX);
		most = memory_mib() > most ? memory_mib() : most;
		printf("%s, %s: ended after %zu KiB, memory %ld MiB\n", ipc ? "ipc" : "tcp", rows[r].what, sent >> 10, memory_mib());
		close(fd);
	}
	free(block);
	/* parts of one byte need a hundred times their size, and bytes arrive for 20 ms before a check */
	CHECK(most - before < 512);
	bus_events_destroy(&events);
	bus_status_destroy(&status);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_destroy(&bus);
	for (int i = 0; ipc && i < 3; i++)
		unlink(paths[i] + strlen("ipc://"));
	CHECK(rmdir(dir) == 0);
}

/* AddressSanitizer keeps freed memory for a while, so with it the allocated bytes count. */
extern size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static long
allocated_mib(void)
{
	return __sanitizer_get_current_allocated_bytes != NULL ? (long)(__sanitizer_get_current_allocated_bytes() >> 20) : memory_mib();
}

/* Subscribers that connect and disconnect while nothing is published leave no memory behind. */
static void
test_subscribers(void)
{
	enum { ROUNDS = 5, PEERS = 300 };
	struct bus *bus = plain_bus(1 << 20);
	struct bus_events *events = NULL;
	long first = 0, last = 0;

	REQUIRE(bus_events_publish(&events, bus, "tcp://127.0.0.1:0", NULL) == 0);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < PEERS; i++)
			reset(greet_as(bus_events_endpoint(events), true));
		stop_sleep_ms(500);
		malloc_trim(0);
		last = allocated_mib();
		first = round == 0 ? last : first;
	}
	printf("%d subscribers that came and went: memory %+ld MiB\n", (ROUNDS - 1) * PEERS, last - first);
	CHECK(last - first < 10);
	bus_events_destroy(&events);
	bus_destroy(&bus);
}

/* Peers that do not read: the bytes queued for all of them are bounded; a peer that reads is not affected. */
static void
test_no_readers(void)
{
	enum { PEERS = 20, FRAME = 1 << 20 };
	struct bus *bus = plain_bus(16 << 20);
	struct bus_poll *poll = bus_poll_new(bus);
	struct bus_server *server = NULL;
	struct bus_client *client = NULL;
	struct bus_event event;
	uint64_t peers[PEERS + 1];
	uint8_t hello[8];
	size_t n = 0, gone = 0, most = 0, read = 0;
	int64_t end = clock_now_ms() + PATIENCE_MS;
	int fds[PEERS];

	bus->budget = 64 << 20;
	REQUIRE(bus_server_new(&server, bus, "tcp://127.0.0.1:0", NULL) == 0);
	bus_poll_add_server(poll, server);
	REQUIRE(bus_client_new(&client, bus, bus_server_endpoint(server), NULL, NULL) == 0);
	bus_poll_add_client(poll, client);
	for (int i = 0; i < PEERS; i++) {
		fds[i] = greet(bus_server_endpoint(server));
		REQUIRE(send(fds[i], hello, short_frame(hello, 0, "hi", 2), 0) == 4);
	}
	for (bool sent = false; (n < PEERS + 1 || gone < PEERS / 2 || read < 10) && clock_now_ms() < end; bus_poll_wait(poll, 1)) {
		while (bus_client_recv(client, &event) == 0) {
			read += event.kind == BUS_EVENT_FRAME;
			bus_event_free(&event);
		}
		sent = sent || bus_client_send(client, (uint8_t *)strdup("hi"), 2) == 0;
		while (bus_server_recv(server, &event) == 0) {
			if (event.kind == BUS_EVENT_FRAME && n < PEERS + 1)
				peers[n++] = event.peer;
			gone += event.kind == BUS_EVENT_GONE;
			bus_event_free(&event);
		}
		for (size_t i = 0; n == PEERS + 1 && i < n; i++)
			bus_server_send(server, peers[i], calloc(1, FRAME), FRAME);
		most = atomic_load(&bus->out_bytes) > most ? atomic_load(&bus->out_bytes) : most;
	}
	CHECK(most <= 2 * bus->budget + FRAME * (PEERS + 1) && gone >= PEERS / 2 && read >= 10);
	printf("%d peers that read nothing: at most %zu MiB queued, %zu ended; one that reads got %zu frames\n", PEERS, most >> 20, gone, read);
	for (int i = 0; i < PEERS; i++)
		close(fds[i]);
	bus_client_destroy(&client);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_destroy(&bus);
}

/* An ipc peer that sends messages faster than they are handled is disconnected, and others are served. */
static void
test_ipc_flood(void)
{
	enum { BODY = 200, MAX = 512 << 20, BLOCK = 1 << 16 };
	char dir[] = "/tmp/salt-ipc-XXXXXX", endpoint[80], path[64];
	struct bus *bus = plain_bus(1 << 20);
	struct bus_poll *poll = bus_poll_new(bus);
	struct bus_server *server = NULL;
	struct bus_event event;
	uint8_t *block = malloc(BLOCK), body[BODY] = {0}, hello[8];
	size_t len = 0, sent = 0, frames = 0, good = 0, asked = 0;
	uint64_t flooder = 0, refused, ended;
	bool gone = false, closed = false;
	int64_t last = clock_now_ms() + 3 * PATIENCE_MS;
	long before = memory_mib(), most = 0;
	int fd, other;

	REQUIRE(block != NULL && mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(endpoint, sizeof(endpoint), "ipc://%s", path);
	while (len + BODY + 2 <= BLOCK)
		len += short_frame(block + len, 0, body, BODY);
	REQUIRE(bus_server_new(&server, bus, endpoint, NULL) == 0);
	bus_poll_add_server(poll, server);
	fd = greet(endpoint);
	other = greet(endpoint);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (!(gone && good >= 20) && sent < MAX && clock_now_ms() < last) {
		for (ssize_t k = 1; k > 0 && !closed && sent < MAX;) {
			k = send(fd, block + sent % len, len - sent % len, MSG_NOSIGNAL);
			sent += k > 0 ? (size_t)k : 0;
			closed = k < 0 && errno != EAGAIN;
		}
		if (asked++ < 20)
			REQUIRE(send(other, hello, short_frame(hello, 0, "hi", 2), 0) == 4);
		/* one message at a time, like a slow daemon */
		if (bus_server_recv(server, &event) == 0) {
			if (event.kind == BUS_EVENT_FRAME && event.len == BODY)
				flooder = event.peer;
			frames += event.len == BODY;
			good += event.len == 2;
			gone = gone || (event.kind == BUS_EVENT_GONE && event.peer == flooder);
			bus_event_free(&event);
		}
		most = memory_mib() > most ? memory_mib() : most;
		if (gone)
			bus_poll_wait(poll, 10);
	}
	bus_counts(bus, &refused, &ended);
	printf("an ipc peer that floods: ended after %zu KiB and %zu messages, memory +%ld MiB\n", sent >> 10, frames, most - before);
	CHECK(gone && good == 20 && sent < MAX && ended == 1 && most - before < 256);
	close(fd);
	close(other);
	free(block);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_destroy(&bus);
	unlink(path);
	CHECK(rmdir(dir) == 0);
}

/* At the path of an ipc socket a file or a live socket is kept; a socket without a process is replaced. */
static void
test_ipc_paths(void)
{
	char dir[] = "/tmp/salt-ipc-XXXXXX", endpoint[80], path[64], long_path[200];
	struct bus *bus = plain_bus(0), *other = plain_bus(0);
	struct bus_server *server = NULL, *second = NULL;
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct err_note note = {0};
	int fd;

	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(endpoint, sizeof(endpoint), "ipc://%s", path);
	REQUIRE((fd = open(path, O_CREAT | O_WRONLY, 0600)) >= 0 && write(fd, "mine", 4) == 4);
	CHECK(bus_server_new(&server, bus, endpoint, &note) == EEXIST && server == NULL);
	CHECK(lseek(fd, 0, SEEK_END) == 4 && access(path, F_OK) == 0 && strstr(note.name, path) != NULL);
	close(fd);
	unlink(path);
	REQUIRE(mkdir(path, 0700) == 0);
	CHECK(bus_server_new(&server, bus, endpoint, &note) == EEXIST);
	rmdir(path);
	REQUIRE(symlink("/dev/null", path) == 0);
	CHECK(bus_server_new(&server, bus, endpoint, &note) == EEXIST);
	unlink(path);

	/* a socket left by a killed process */
	REQUIRE((fd = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0);
	strcpy(at.sun_path, path);
	REQUIRE(bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0);
	close(fd);
	CHECK(bus_server_new(&server, bus, endpoint, &note) == 0);
	CHECK(bus_server_new(&second, other, endpoint, &note) == EADDRINUSE && second == NULL);
	CHECK((fd = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0 && connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0);	/* still the first one's */
	close(fd);
	bus_server_destroy(&server);
	snprintf(long_path, sizeof(long_path), "ipc:///tmp/%0150d", 1);
	CHECK(bus_server_new(&server, bus, long_path, &note) == ERR_CONFIG && strstr(note.expected, "107 bytes") != NULL);
	CHECK(bus_server_new(&server, bus, "ipc:///no/such/folder/s", &note) == ENOENT);
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&(struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT},
	    sizeof(struct sockaddr_in6)) == 0)
		CHECK(bus_server_new(&server, bus, "tcp://[::1]:0", &note) == 0);
	if (fd >= 0)
		close(fd);
	bus_server_destroy(&server);
	bus_destroy(&other);
	bus_destroy(&bus);		/* the library has removed its sockets after this */
	unlink(path);
	CHECK(rmdir(dir) == 0);
}

/* With more idle connections than the initial soft limit of descriptors, clients can still connect. */
static void
test_idle_connections(void)
{
	enum { IDLE = 1100 };
	struct rlimit files = {0}, few;
	struct bus *bus;
	struct bus_poll *poll;
	struct bus_server *server = NULL;
	struct bus_client *client = NULL;
	struct bus_event event = {0};
	int64_t end = clock_now_ms() + PATIENCE_MS;
	bool heard = false;
	int fds[IDLE];

	REQUIRE(getrlimit(RLIMIT_NOFILE, &files) == 0);
	if (files.rlim_max < 2 * IDLE + 100)
		return;				/* this host's hard limit is too low */
	few = (struct rlimit){256, files.rlim_max};
	REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
	/* raises the soft limit, also for this test's ends of the connections */
	bus = plain_bus(0);
	poll = bus_poll_new(bus);
	REQUIRE(bus_server_new(&server, bus, "tcp://127.0.0.1:0", NULL) == 0);
	bus_poll_add_server(poll, server);
	for (int i = 0; i < IDLE; i++)
		fds[i] = dial(bus_server_endpoint(server));
	REQUIRE(bus_client_new(&client, bus, bus_server_endpoint(server), NULL, NULL) == 0);
	bus_poll_add_client(poll, client);
	for (bool sent = false; !heard && clock_now_ms() < end; bus_poll_wait(poll, 20)) {
		while (bus_client_recv(client, &event) == 0)
			bus_event_free(&event);
		sent = sent || bus_client_send(client, (uint8_t *)strdup("hi"), 2) == 0;
		while (bus_server_recv(server, &event) == 0) {
			heard = heard || event.kind == BUS_EVENT_FRAME;
			bus_event_free(&event);
		}
	}
	CHECK(heard);
	for (int i = 0; i < IDLE; i++)
		close(fds[i]);
	bus_client_destroy(&client);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_destroy(&bus);
}

/* How often threads of this process began to wait. */
static unsigned long
waits(void)
{
	unsigned long n = 0, one;
	char path[300], line[200];
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	FILE *f;

	REQUIRE(dir != NULL);
	while ((entry = readdir(dir)) != NULL) {
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
		for (f = fopen(path, "r"); f != NULL && fgets(line, sizeof(line), f) != NULL; )
			n += sscanf(line, "voluntary_ctxt_switches: %lu", &one) == 1 ? one : 0;
		if (f != NULL)
			fclose(f);
	}
	closedir(dir);
	return n;
}

/*
 * With a status socket that is not queried, as in an idle client, no thread wakes up 50 times a second. A
 * connection that sends endless bytes is ended nevertheless.
 */
static void
test_quiet(void)
{
	enum { BLOCK = 1 << 20, MAX = 512 << 20 };
	struct bus *bus = plain_bus(1 << 20);
	struct bus_status *status = NULL;
	uint8_t *block = malloc(BLOCK), body[200] = {0};
	unsigned long before, n;
	size_t len = 0;
	int fd;

	REQUIRE(block != NULL && bus_status_new(&status, bus, "tcp://127.0.0.1:0", answer_large, NULL, NULL) == 0);
	while (len + 260 < BLOCK)
		len += short_frame(block + len, MORE, body, sizeof(body));
	for (int i = 0; i < 2; i++) {
		before = waits();
		stop_sleep_ms(2000);
		n = waits() - before;
		CHECK_ROW("waits in two seconds", n < 50);
		printf("a status socket that nobody asks: %lu waits in two seconds\n", n);
		fd = greet(bus_status_endpoint(status));
		CHECK_ROW("parts", pour(fd, block, len, MAX) < MAX);
		close(fd);
		stop_sleep_ms(500);			/* until the bus has noticed the end too */
	}
	free(block);
	bus_status_destroy(&status);
	bus_destroy(&bus);
}

/*
 * With too few descriptors, for which libzmq would abort, bus returns an error. With the smallest allowed
 * number a daemon's sockets can be made.
 */
static void
test_few_files(void)
{
	struct bus_options options = {0};
	struct bus_status *status = NULL;
	struct bus_server *server = NULL;
	struct bus *bus = NULL;
	struct err_note note;
	char text[300];
	int state;
	pid_t pid;

	fflush(stdout);
	if ((pid = fork()) == 0) {
		setrlimit(RLIMIT_NOFILE, &(struct rlimit){20, 20});
		CHECK(bus_new(&bus, &options, &note) == EMFILE && bus == NULL);
		err_note_str(&note, EMFILE, text, sizeof(text));
		CHECK(strstr(text, "ulimit -n") != NULL && strstr(text, "found 20") != NULL);
		_exit(check_done());
	}
	REQUIRE(pid > 0 && waitpid(pid, &state, 0) == pid);
	CHECK(state == 0);
	if ((pid = fork()) == 0) {
		setrlimit(RLIMIT_NOFILE, &(struct rlimit){20, 64});
		CHECK(bus_new(&bus, &options, &note) == 0 && bus_status_new(&status, bus, "tcp://127.0.0.1:*", answer_large, NULL, NULL) == 0 &&
		    bus_server_new(&server, bus, "tcp://127.0.0.1:0", NULL) == 0);
		_exit(check_done());
	}
	REQUIRE(pid > 0 && waitpid(pid, &state, 0) == pid);
	CHECK(state == 0);
}

int
main(void)
{
	log_init("test", LOG_LEVEL_WARN);
	test_few_files();
	test_vanishing_peers();
	test_endless_bytes(false);
	test_endless_bytes(true);
	test_subscribers();
	test_no_readers();
	test_ipc_flood();
	test_ipc_paths();
	test_idle_connections();
	test_quiet();
	return check_done();
}
