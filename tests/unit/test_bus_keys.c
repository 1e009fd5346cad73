/* SPDX-License-Identifier: Apache-2.0 */
/* Tests which keys are accepted, with all cases in which CURVE and ZAP are known to accept every client. */
#include "fabric/bus/bus_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>
#include "base/clock/clock.h"
#include "check.h"
#include "base/log/log.h"

enum { PATIENCE_MS = 10000, SILENCE_MS = 400 };

static char dir[256], other_dir[300];

static int
new_bus(struct bus **bus, const char *keys, enum bus_role role, struct err_note *note)
{
	struct bus_options options = {.curve_dir = keys, .role = role};

	return bus_new(bus, &options, note);
}

/* Waits for the first event whose kind is in mask (1 << kind); returns the kind, or 0 if none comes. */
static int
await_client(struct bus_poll *poll, struct bus_client *client, unsigned mask, int64_t limit_ms, struct bus_event *event)
{
	int64_t end = clock_now_ms() + limit_ms;

	while (clock_now_ms() < end) {
		while (bus_client_recv(client, event) == 0) {
			if ((mask & 1u << event->kind) != 0)
				return event->kind;
			bus_event_free(event);
		}
		bus_poll_wait(poll, 20);
	}
	return 0;
}

static bool
await_frame(struct bus_poll *poll, struct bus_server *server, int64_t limit_ms, struct bus_event *event)
{
	int64_t end = clock_now_ms() + limit_ms;

	while (clock_now_ms() < end) {
		while (bus_server_recv(server, event) == 0) {
			if (event->kind == BUS_EVENT_FRAME)
				return true;
			bus_event_free(event);
		}
		bus_poll_wait(poll, 20);
	}
	return false;
}

static void
path_of(char *out, size_t size, const char *in, const char *name)
{
	snprintf(out, size, "%s/%s", in, name);
}

static void
test_files(void)
{
	struct err_note note = {0};
	struct bus *bus = NULL;
	struct stat st;
	char path[400];
	FILE *f;

	CHECK(bus_keys_generate(dir, "selector", BUS_ROLE_SELECTOR, &note) == 0);
	CHECK(bus_keys_generate(dir, "teacher", BUS_ROLE_TEACHER, &note) == 0);
	CHECK(bus_keys_generate(dir, "trainer", BUS_ROLE_TRAINER, &note) == 0);
	CHECK(bus_keys_generate(other_dir, "teacher", BUS_ROLE_TEACHER, &note) == 0);
	CHECK(bus_keys_generate(dir, "selector", BUS_ROLE_SELECTOR, &note) == EEXIST);
	CHECK(strstr(note.name, "selector.pub") != NULL || strstr(note.name, "selector.key") != NULL);
	CHECK(bus_keys_generate(dir, "../selector", BUS_ROLE_SELECTOR, &note) == ERR_FORMAT);
	CHECK(bus_keys_generate(dir, ".hidden", BUS_ROLE_SELECTOR, &note) == ERR_FORMAT);
	CHECK(bus_keys_generate(dir, "x", BUS_ROLE_NONE, &note) == ERR_FORMAT);
	path_of(path, sizeof(path), dir, "selector.key");
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
	CHECK(stat(dir, &st) == 0 && (st.st_mode & 0777) == 0700);

	/* our key is missing, readable by all, malformed, or has another role: the error names the file */
	CHECK(new_bus(&bus, dir, BUS_ROLE_CLIENT, &note) == ERR_NOT_FOUND && bus == NULL);
	CHECK(strstr(note.name, "client.key") != NULL);
	chmod(path, 0644);
	CHECK(new_bus(&bus, dir, BUS_ROLE_SELECTOR, &note) == EACCES && bus == NULL);
	CHECK_STR(note.found, "0644");
	chmod(path, 0600);
	path_of(path, sizeof(path), dir, "client.key");
	REQUIRE((f = fopen(path, "w")) != NULL);
	fputs("role=client\npublic=short\n", f);
	fclose(f);
	chmod(path, 0600);
	CHECK(new_bus(&bus, dir, BUS_ROLE_CLIENT, &note) == ERR_FORMAT && bus == NULL);
	unlink(path);
	CHECK(bus_new(&bus, &(struct bus_options){.curve_dir = dir, .role = BUS_ROLE_TRAINER, .key_name = "teacher"}, &note) == ERR_CONFIG);
	CHECK(bus == NULL);
}

/* If public and secret key are not a pair no client could connect, so this is an error at start. */
static void
test_mixed_pair(void)
{
	char a[400], b[400], line[128], text[1024] = "";
	struct err_note note = {0};
	struct bus *bus = NULL;
	FILE *f;

	path_of(a, sizeof(a), dir, "mixed.key");
	path_of(b, sizeof(b), dir, "teacher.pub");
	CHECK(bus_keys_generate(dir, "mixed", BUS_ROLE_TEACHER, &note) == 0);
	REQUIRE((f = fopen(b, "r")) != NULL);
	while (fgets(line, sizeof(line), f) != NULL)
		strcat(text, line);
	fclose(f);
	REQUIRE((f = fopen(a, "r")) != NULL);
	while (fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, "secret=", 7) == 0)
			strcat(text, line);
	fclose(f);
	REQUIRE((f = fopen(a, "w")) != NULL);
	fputs(text, f);
	fclose(f);
	CHECK(bus_new(&bus, &(struct bus_options){.curve_dir = dir, .role = BUS_ROLE_TEACHER, .key_name = "mixed"}, &note) == ERR_FORMAT);
	unlink(a);
	path_of(a, sizeof(a), dir, "mixed.pub");
	unlink(a);
}

static void
test_matrix(void)
{
	struct bus *selector = NULL, *teacher = NULL, *stranger = NULL, *plain = NULL;
	struct bus_poll *server_poll, *poll;
	struct bus_server *server = NULL;
	struct bus_client *client = NULL;
	struct bus_event event;
	struct err_note note = {0};
	char endpoint[BUS_ENDPOINT_MAX], from[400], to[400], last[600];
	unsigned any = 1u << BUS_EVENT_CONNECTED | 1u << BUS_EVENT_REFUSED;
	void *ctx, *raw;
	int linger = 0;

	REQUIRE(new_bus(&selector, dir, BUS_ROLE_SELECTOR, &note) == 0);
	/* with keys, every interface may be bound */
	REQUIRE(bus_server_new(&server, selector, "tcp://*:0", &note) == 0);
	snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1%s", strrchr(bus_server_endpoint(server), ':'));
	server_poll = bus_poll_new(selector);
	bus_poll_add_server(server_poll, server);

	/* a listed key is accepted, and the server knows its name and role */
	REQUIRE(new_bus(&teacher, dir, BUS_ROLE_TEACHER, &note) == 0);
	REQUIRE(bus_client_new(&client, teacher, endpoint, "selector", &note) == 0);
	poll = bus_poll_new(teacher);
	bus_poll_add_client(poll, client);
	REQUIRE(await_client(poll, client, any, PATIENCE_MS, &event) == BUS_EVENT_CONNECTED);
	CHECK(bus_client_send(client, (uint8_t *)strdup("hi"), 2) == 0);
	REQUIRE(await_frame(server_poll, server, PATIENCE_MS, &event));
	CHECK(event.len == 2 && event.key_role == BUS_ROLE_TEACHER);
	CHECK_STR(event.user, "teacher");
	bus_event_free(&event);
	bus_client_destroy(&client);

	/* the server has another key than the client expects: the client sends nothing */
	REQUIRE(bus_client_new(&client, teacher, endpoint, "trainer", &note) == 0);
	bus_poll_destroy(&poll);
	poll = bus_poll_new(teacher);
	bus_poll_add_client(poll, client);
	CHECK(await_client(poll, client, 1u << BUS_EVENT_CONNECTED, SILENCE_MS, &event) == 0);
	CHECK(bus_client_send(client, (uint8_t *)strdup("hi"), 2) == ERR_CLOSED);
	bus_client_destroy(&client);
	CHECK(bus_client_new(&client, teacher, endpoint, "nobody", &note) == ERR_NOT_FOUND);

	/* a key that is revoked while connected: the next connection is rejected */
	path_of(from, sizeof(from), dir, "teacher.pub");
	path_of(to, sizeof(to), dir, "teacher.revoked");
	REQUIRE(rename(from, to) == 0);
	REQUIRE(bus_client_new(&client, teacher, endpoint, "selector", &note) == 0);
	bus_poll_destroy(&poll);
	poll = bus_poll_new(teacher);
	bus_poll_add_client(poll, client);
	CHECK(await_client(poll, client, any, PATIENCE_MS, &event) == BUS_EVENT_REFUSED);
	CHECK(bus_client_send(client, (uint8_t *)strdup("hi"), 2) == ERR_CLOSED);
	/* after the key is listed again, the same client reconnects by itself */
	REQUIRE(rename(to, from) == 0);
	CHECK(await_client(poll, client, 1u << BUS_EVENT_CONNECTED, PATIENCE_MS, &event) == BUS_EVENT_CONNECTED);
	bus_client_destroy(&client);
	bus_poll_destroy(&poll);
	bus_destroy(&teacher);

	/* a client with a key that is not listed, and the correct server key */
	path_of(from, sizeof(from), dir, "selector.pub");
	path_of(to, sizeof(to), other_dir, "selector.pub");
	REQUIRE(link(from, to) == 0);
	REQUIRE(new_bus(&stranger, other_dir, BUS_ROLE_TEACHER, &note) == 0);
	REQUIRE(bus_client_new(&client, stranger, endpoint, "selector", &note) == 0);
	poll = bus_poll_new(stranger);
	bus_poll_add_client(poll, client);
	CHECK(await_client(poll, client, any, PATIENCE_MS, &event) == BUS_EVENT_REFUSED);
	bus_client_destroy(&client);
	bus_poll_destroy(&poll);
	bus_destroy(&stranger);

	/* a client without a key */
	REQUIRE(bus_new(&plain, &(struct bus_options){0}, &note) == 0);
	REQUIRE(bus_client_new(&client, plain, endpoint, NULL, &note) == 0);
	poll = bus_poll_new(plain);
	bus_poll_add_client(poll, client);
	CHECK(await_client(poll, client, any, PATIENCE_MS, &event) == BUS_EVENT_REFUSED);
	bus_client_destroy(&client);
	bus_poll_destroy(&poll);
	bus_destroy(&plain);
	ctx = zmq_ctx_new();
	raw = zmq_socket(ctx, ZMQ_DEALER);
	zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof(linger));
	zmq_connect(raw, endpoint);
	zmq_send(raw, "plain", 5, 0);
	CHECK(!await_frame(server_poll, server, SILENCE_MS, &event));
	zmq_close(raw);
	zmq_ctx_term(ctx);
	log_last_error(last, sizeof(last));
	CHECK(strstr(last, "bus.bad_peer") == NULL);

	bus_server_destroy(&server);
	bus_poll_destroy(&server_poll);
	bus_destroy(&selector);
}

static void
say(void *arg, const uint8_t *body, size_t len, uint8_t **answer, size_t *answer_len)
{
	(void)body;
	(void)len;
	*answer = (uint8_t *)strdup(arg);
	*answer_len = strlen(arg);
}

static void
ask_one(struct bus *bus, struct bus_ask *ask, int64_t timeout_ms)
{
	struct bus_asker *asker = NULL;

	REQUIRE(bus_asker_new(&asker, bus) == 0 && bus_asker_ask(asker, ask, "", 0, timeout_ms) == 0);
	while (bus_asker_open(asker) > 0)
		bus_asker_next(asker, timeout_ms);
	bus_asker_destroy(&asker);
}

static void
test_status_keys(void)
{
	struct bus *trainer = NULL, *selector = NULL, *plain = NULL;
	struct bus_status *status = NULL;
	struct bus_ask ask = {.server_key = "trainer"};
	struct err_note note = {0};

	REQUIRE(new_bus(&trainer, dir, BUS_ROLE_TRAINER, &note) == 0 && new_bus(&selector, dir, BUS_ROLE_SELECTOR, &note) == 0);
	REQUIRE(bus_new(&plain, &(struct bus_options){0}, &note) == 0);
	REQUIRE(bus_status_new(&status, trainer, "tcp://127.0.0.1:0", say, "fine", &note) == 0);
	ask.endpoint = bus_status_endpoint(status);
	ask_one(selector, &ask, PATIENCE_MS);
	CHECK(ask.rc == 0 && ask.len == 4);
	free(ask.answer);
	ask_one(plain, &ask, SILENCE_MS);
	CHECK(ask.rc != 0 && ask.answer == NULL);
	bus_status_destroy(&status);
	bus_destroy(&plain);
	bus_destroy(&selector);
	bus_destroy(&trainer);
}

/* Removing a key ends its connections to every kind of socket; connections with other keys continue. */
static void
test_removed(void)
{
	struct bus *selector = NULL, *teacher = NULL, *trainer = NULL;
	struct bus_server *server = NULL;
	struct bus_client *gone = NULL, *stays = NULL;
	struct bus_events *events = NULL, *heard = NULL;
	struct bus_poll *poll = NULL, *stays_poll = NULL;
	char from[400], to[400], topic[32], text[32] = "";
	struct bus_event event;
	struct err_note note = {0};
	uint64_t before, refused, ended;
	int64_t end;
	int lost = 0;

	REQUIRE(new_bus(&selector, dir, BUS_ROLE_SELECTOR, &note) == 0 && new_bus(&teacher, dir, BUS_ROLE_TEACHER, &note) == 0 &&
	    new_bus(&trainer, dir, BUS_ROLE_TRAINER, &note) == 0);
	REQUIRE(bus_server_new(&server, selector, "tcp://127.0.0.1:0", &note) == 0 &&
	    bus_events_publish(&events, selector, "tcp://127.0.0.1:0", &note) == 0);
	REQUIRE(bus_client_new(&gone, teacher, bus_server_endpoint(server), NULL, &note) == 0 &&
	    bus_client_new(&stays, trainer, bus_server_endpoint(server), NULL, &note) == 0 &&
	    bus_events_subscribe(&heard, teacher, bus_events_endpoint(events), NULL, "a", &note) == 0);
	poll = bus_poll_new(teacher);
	stays_poll = bus_poll_new(trainer);
	bus_poll_add_client(poll, gone);
	bus_poll_add_client(stays_poll, stays);
	REQUIRE(await_client(poll, gone, 1u << BUS_EVENT_CONNECTED, PATIENCE_MS, &event) == BUS_EVENT_CONNECTED);
	REQUIRE(await_client(stays_poll, stays, 1u << BUS_EVENT_CONNECTED, PATIENCE_MS, &event) == BUS_EVENT_CONNECTED);
	CHECK(bus_client_send(gone, (uint8_t *)strdup("hi"), 2) == 0 && bus_client_send(stays, (uint8_t *)strdup("hi"), 2) == 0);
	bus_poll_remove(poll, gone);
	bus_poll_add_server(poll, server);
	for (int i = 0; i < 2; i++) {
		REQUIRE(await_frame(poll, server, PATIENCE_MS, &event));
		bus_event_free(&event);
	}
	for (end = clock_now_ms() + PATIENCE_MS; text[0] == '\0' && clock_now_ms() < end;) {
		bus_events_send(events, "a", "heard");
		bus_events_recv(heard, topic, sizeof(topic), text, sizeof(text), 20);
	}
	CHECK_STR(text, "heard");

	bus_counts(selector, &before, &ended);
	path_of(from, sizeof(from), dir, "teacher.pub");
	path_of(to, sizeof(to), dir, "teacher.revoked");
	REQUIRE(rename(from, to) == 0);
	for (end = clock_now_ms() + PATIENCE_MS; lost == 0 && clock_now_ms() < end; bus_poll_wait(poll, 20))
		while (bus_server_recv(server, &event) == 0) {
			lost += event.kind == BUS_EVENT_GONE;
			bus_event_free(&event);
		}
	CHECK(lost == 1);
	/* both reconnect and are rejected, which is counted */
	for (end = clock_now_ms() + PATIENCE_MS, refused = 0; refused < before + 2 && clock_now_ms() < end; bus_poll_wait(poll, 20)) {
		while (bus_client_recv(gone, &event) == 0)
			bus_event_free(&event);
		bus_counts(selector, &refused, &ended);
	}
	CHECK(refused >= before + 2);
	while (bus_events_recv(heard, topic, sizeof(topic), text, sizeof(text), 0) == 0)
		;
	bus_events_send(events, "a", "secret");
	CHECK(bus_events_recv(heard, topic, sizeof(topic), text, sizeof(text), SILENCE_MS) == ERR_TIMEOUT);
	CHECK(bus_client_send(stays, (uint8_t *)strdup("ho"), 2) == 0 && await_frame(poll, server, PATIENCE_MS, &event));
	bus_event_free(&event);
	REQUIRE(rename(to, from) == 0);
	bus_events_destroy(&heard);
	bus_events_destroy(&events);
	bus_client_destroy(&gone);
	bus_client_destroy(&stays);
	bus_server_destroy(&server);
	bus_poll_destroy(&poll);
	bus_poll_destroy(&stays_poll);
	bus_destroy(&teacher);
	bus_destroy(&trainer);
	bus_destroy(&selector);
}

/* A folder or public key that others can write is rejected, because they could decide who may connect. */
static void
test_writable(void)
{
	static const mode_t modes[] = {0777, 0775, 0757, 01777};
	struct err_note note = {0};
	struct bus *bus = NULL;
	char path[400];

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		REQUIRE(chmod(dir, modes[i]) == 0);
		CHECK(new_bus(&bus, dir, BUS_ROLE_TEACHER, &note) == EACCES && bus == NULL && strstr(note.name, "security.curve_dir") != NULL);
		CHECK(bus_keys_generate(dir, "new", BUS_ROLE_CLIENT, &note) == EACCES);
	}
	REQUIRE(chmod(dir, 0755) == 0);
	REQUIRE(new_bus(&bus, dir, BUS_ROLE_TEACHER, &note) == 0);
	path_of(path, sizeof(path), dir, "teacher.pub");
	CHECK(bus__key_allowed(dir, bus->key.public_key, NULL));
	REQUIRE(chmod(path, 0664) == 0);
	CHECK(!bus__key_allowed(dir, bus->key.public_key, NULL));
	REQUIRE(chmod(path, 0644) == 0 && chmod(dir, 0775) == 0);
	CHECK(!bus__key_allowed(dir, bus->key.public_key, NULL));		/* made writable while the daemon runs */
	bus_destroy(&bus);
	REQUIRE(chmod(dir, 0700) == 0);
}

static void
clear_dir(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	char file[600];

	while (d != NULL && (e = readdir(d)) != NULL)
		if (e->d_name[0] != '.') {
			snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
			unlink(file);
		}
	if (d != NULL)
		closedir(d);
	rmdir(path);
}

int
main(void)
{
	const char *tmp = getenv("TMPDIR");
	char last[600];

	snprintf(dir, sizeof(dir), "%.200s/keys.XXXXXX", tmp != NULL ? tmp : "/tmp");
	REQUIRE(mkdtemp(dir) != NULL);
	snprintf(other_dir, sizeof(other_dir), "%s.other", dir);
	test_files();
	test_mixed_pair();
	log_last_error(last, sizeof(last));
	/* the rejection of the random key at start is not logged as an error */
	CHECK_STR(last, "");
	test_matrix();
	test_status_keys();
	test_removed();
	test_writable();
	clear_dir(dir);
	clear_dir(other_dir);
	return check_done();
}
