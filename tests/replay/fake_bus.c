/* SPDX-License-Identifier: Apache-2.0 */
#include "replay/fake_bus.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "fabric/bus/waker.h"

enum { SOCKETS_MAX = 16, WAKERS_MAX = 8, RULES_MAX = 64, SENT_MAX = 65536, WAKE_LIMIT_MS = 10000 };

struct arrival {
	STAILQ_ENTRY(arrival) entry;
	struct bus_event event;
	uint8_t bytes[];
};

STAILQ_HEAD(box, arrival);

static struct {
	atomic_int_fast64_t now_ms;
	atomic_int stop;
	fake_script_fn *script;
	void *arg;
	int step;
	int n_sockets, n_status;
	bool started;			/* set by the first reset, which initializes the lists in boxes */
	struct box boxes[SOCKETS_MAX];
	struct { int socket; uint64_t peer; int rc; } rules[RULES_MAX];
	size_t n_rules;
	struct fake_sent sent[SENT_MAX];
	size_t n_sent;
	struct bus_status *status[SOCKETS_MAX];
} fake;

struct bus { int dummy; };
struct bus_server { int socket; char endpoint[BUS_ENDPOINT_MAX]; };
struct bus_client { int socket; bool connected; };
struct bus_status { bus_status_fn *fn; void *arg; char endpoint[BUS_ENDPOINT_MAX]; };
struct bus_events { char endpoint[BUS_ENDPOINT_MAX]; };
struct bus_poll { struct bus_waker *wakers[WAKERS_MAX]; size_t n_wakers; bool stop_seen; };

static void
broken(const char *what)
{
	fprintf(stderr, "fake_bus: %s (step %d of the script)\n", what, fake.step);
	abort();
}

static void *
must(void *p)
{
	if (p == NULL)
		broken("out of memory");
	return p;
}

/* Script --------------------------------------------------------------------------------------- */

void
fake_bus_reset(int64_t start_ms, fake_script_fn *script, void *arg)
{
	for (int s = 0; s < SOCKETS_MAX; s++) {
		struct arrival *a;

		while (fake.started && (a = STAILQ_FIRST(&fake.boxes[s])) != NULL) {
			STAILQ_REMOVE_HEAD(&fake.boxes[s], entry);
			free(a);
		}
		STAILQ_INIT(&fake.boxes[s]);
	}
	fake.started = true;
	for (size_t i = 0; i < fake.n_sent; i++)
		free((void *)(uintptr_t)fake.sent[i].frame);
	fake.n_sent = fake.n_rules = 0;
	fake.n_sockets = fake.n_status = fake.step = 0;
	fake.script = script;
	fake.arg = arg;
	atomic_store(&fake.now_ms, start_ms);
	atomic_store(&fake.stop, 0);
}

void
fake_bus_advance(int64_t ms)
{
	atomic_fetch_add(&fake.now_ms, ms);
}

static void
push(int socket, struct arrival *a)
{
	if (socket < 0 || socket >= SOCKETS_MAX)
		broken("no such socket");
	STAILQ_INSERT_TAIL(&fake.boxes[socket], a, entry);
}

void
fake_bus_push(int socket, uint64_t peer, const void *frame, size_t len)
{
	struct arrival *a = must(calloc(1, sizeof(*a) + len));

	if (len > 0)
		memcpy(a->bytes, frame, len);
	a->event = (struct bus_event){.kind = BUS_EVENT_FRAME, .peer = peer, .frame = a->bytes, .len = len};
	push(socket, a);
}

void
fake_bus_push_event(int socket, uint64_t peer, enum bus_event_kind kind)
{
	struct arrival *a = must(calloc(1, sizeof(*a)));

	a->event = (struct bus_event){.kind = kind, .peer = peer};
	push(socket, a);
}

void
fake_bus_send_rc(int socket, uint64_t peer, int rc)
{
	size_t i = 0;

	while (i < fake.n_rules && (fake.rules[i].socket != socket || fake.rules[i].peer != peer))
		i++;
	if (i == RULES_MAX)
		broken("too many send rules");
	fake.rules[i].socket = socket;
	fake.rules[i].peer = peer;
	fake.rules[i].rc = rc;
	if (i == fake.n_rules)
		fake.n_rules++;
}

size_t
fake_bus_n_sent(void)
{
	return fake.n_sent;
}

const struct fake_sent *
fake_bus_sent(size_t i)
{
	return i < fake.n_sent ? &fake.sent[i] : NULL;
}

int
fake_bus_ask(int status, const void *body, size_t len, uint8_t **answer, size_t *answer_len)
{
	*answer = NULL;
	*answer_len = 0;
	if (status < 0 || status >= fake.n_status || fake.status[status] == NULL)
		return ERR_NOT_FOUND;
	fake.status[status]->fn(fake.status[status]->arg, body, len, answer, answer_len);
	return 0;
}

static void
record(int socket, uint64_t peer, uint8_t *frame, size_t len, bool ended)
{
	if (fake.n_sent == SENT_MAX)
		broken("too much was sent");
	fake.sent[fake.n_sent++] = (struct fake_sent){atomic_load(&fake.now_ms), socket, peer, frame, len, ended};
}

static int
sent(int socket, uint64_t peer, uint8_t *frame, size_t len)
{
	for (size_t i = 0; i < fake.n_rules; i++)
		if (fake.rules[i].socket == socket && fake.rules[i].peer == peer && fake.rules[i].rc != 0) {
			free(frame);
			return fake.rules[i].rc;
		}
	record(socket, peer, frame, len, false);
	return 0;
}

static int
received(int socket, struct bus_event *event)
{
	struct arrival *a = STAILQ_FIRST(&fake.boxes[socket]);

	memset(event, 0, sizeof(*event));
	if (a == NULL)
		return ERR_AGAIN;
	STAILQ_REMOVE_HEAD(&fake.boxes[socket], entry);
	*event = a->event;
	event->own = a;
	return 0;
}

/* The bus -------------------------------------------------------------------------------------- */

int64_t
clock_now_ms(void)
{
	return atomic_load(&fake.now_ms);
}

double
clock_now_s(void)
{
	return (double)clock_now_ms() * 1e-3;
}

void
stop_sleep_ms(int64_t ms)
{
	fake_bus_advance(ms);
}

struct hash128
bus_boot_id(void)
{
	return (struct hash128){0xfabe, 0xb005};
}

const char *
bus_host(void)
{
	return "fakehost";
}

int
stop_install(void)
{
	return 0;
}

bool
stop_requested(void)
{
	return atomic_load(&fake.stop) != 0;
}

int
stop_signal(void)
{
	return atomic_load(&fake.stop);
}

void
stop_request(void)
{
	atomic_store(&fake.stop, 15);
}

int
bus_new(struct bus **out, const struct bus_options *options, struct err_note *note)
{
	(void)options;
	(void)note;
	*out = must(calloc(1, sizeof(**out)));
	return 0;
}

void
bus_destroy(struct bus **bus)
{
	free(*bus);
	*bus = NULL;
}

const char *
bus_role_name(enum bus_role role)
{
	static const char *const names[] = {"none", "selector", "teacher", "trainer", "client"};

	return (unsigned)role < 5 ? names[role] : "?";
}

void
bus_event_free(struct bus_event *event)
{
	free(event->own);
	memset(event, 0, sizeof(*event));
}

static int
next_socket(void)
{
	if (fake.n_sockets == SOCKETS_MAX)
		broken("too many sockets");
	return fake.n_sockets++;
}

int
bus_server_new(struct bus_server **out, struct bus *bus, const char *endpoint, struct err_note *note)
{
	(void)bus;
	(void)note;
	*out = must(calloc(1, sizeof(**out)));
	(*out)->socket = next_socket();
	snprintf((*out)->endpoint, sizeof((*out)->endpoint), "%s", endpoint);
	return 0;
}

void
bus_server_destroy(struct bus_server **server)
{
	free(*server);
	*server = NULL;
}

const char *
bus_server_endpoint(const struct bus_server *server)
{
	return server->endpoint;
}

int
bus_server_recv(struct bus_server *server, struct bus_event *event)
{
	return received(server->socket, event);
}

int
bus_server_send(struct bus_server *server, uint64_t peer, uint8_t *frame, size_t len)
{
	return sent(server->socket, peer, frame, len);
}

void
bus_server_end(struct bus_server *server, uint64_t peer)
{
	record(server->socket, peer, NULL, 0, true);
}

int
bus_client_new(struct bus_client **out, struct bus *bus, const char *endpoint, const char *server_key, struct err_note *note)
{
	(void)bus;
	(void)endpoint;
	(void)server_key;
	(void)note;
	*out = must(calloc(1, sizeof(**out)));
	(*out)->socket = next_socket();
	return 0;
}

void
bus_client_destroy(struct bus_client **client)
{
	free(*client);
	*client = NULL;
}

int
bus_client_recv(struct bus_client *client, struct bus_event *event)
{
	int rc = received(client->socket, event);

	if (rc == 0 && event->kind == BUS_EVENT_CONNECTED)
		client->connected = true;
	if (rc == 0 && event->kind == BUS_EVENT_DISCONNECTED)
		client->connected = false;
	return rc;
}

int
bus_client_send(struct bus_client *client, uint8_t *frame, size_t len)
{
	if (!client->connected) {
		free(frame);
		return ERR_CLOSED;
	}
	return sent(client->socket, 0, frame, len);
}

struct bus_poll *
bus_poll_new(struct bus *bus)
{
	(void)bus;
	return must(calloc(1, sizeof(struct bus_poll)));
}

void
bus_poll_destroy(struct bus_poll **poll)
{
	free(*poll);
	*poll = NULL;
}

int
bus_poll_add_server(struct bus_poll *poll, struct bus_server *server)
{
	(void)poll;
	(void)server;
	return 0;
}

int
bus_poll_add_client(struct bus_poll *poll, struct bus_client *client)
{
	(void)poll;
	(void)client;
	return 0;
}

int
bus_poll_add_waker(struct bus_poll *poll, struct bus_waker *waker)
{
	if (poll->n_wakers == WAKERS_MAX)
		broken("too many wakers");
	poll->wakers[poll->n_wakers++] = waker;
	return 0;
}

void
bus_poll_remove(struct bus_poll *poll, const void *thing)
{
	for (size_t i = 0; i < poll->n_wakers; i++)
		if (poll->wakers[i] == thing)
			poll->wakers[i--] = poll->wakers[--poll->n_wakers];
}

/* Whether a waker was woken within real_ms; clears it. */
static bool
woken(struct bus_poll *p, int real_ms)
{
	struct pollfd fds[WAKERS_MAX];

	for (size_t i = 0; i < p->n_wakers; i++)
		fds[i] = (struct pollfd){.fd = bus__waker_fd(p->wakers[i]), .events = POLLIN};
	if (poll(fds, p->n_wakers, real_ms) <= 0)
		return false;
	for (size_t i = 0; i < p->n_wakers; i++)
		bus__waker_clear(p->wakers[i]);
	return true;
}

int
bus_poll_wait(struct bus_poll *p, int64_t timeout_ms)
{
	for (int s = 0; s < fake.n_sockets; s++)
		if (!STAILQ_EMPTY(&fake.boxes[s]))
			return 0;
	if (woken(p, 0) || (stop_requested() && !p->stop_seen)) {
		p->stop_seen = stop_requested();
		return 0;
	}
	if (fake.script == NULL)
		broken("polled without a script");
	switch (fake.script(fake.arg, fake.step)) {
	case FAKE_GO:
		fake.step++;
		break;
	case FAKE_TIMEOUT:
		if (timeout_ms < 0)
			broken("FAKE_TIMEOUT of a poll without end");
		fake.step++;
		fake_bus_advance(timeout_ms);
		break;
	case FAKE_AGAIN_WHEN_WOKEN:
		if (!woken(p, WAKE_LIMIT_MS))
			broken("no thread woke the poll");
		break;
	case FAKE_STOP:
		fake.step++;
		stop_request();
		p->stop_seen = true;
		break;
	}
	return 0;
}

int
bus_status_new(struct bus_status **out, struct bus *bus, const char *endpoint, bus_status_fn *fn, void *arg, struct err_note *note)
{
	(void)bus;
	(void)note;
	if (fake.n_status == SOCKETS_MAX)
		broken("too many status sockets");
	*out = must(calloc(1, sizeof(**out)));
	(*out)->fn = fn;
	(*out)->arg = arg;
	snprintf((*out)->endpoint, sizeof((*out)->endpoint), "%s", endpoint);
	fake.status[fake.n_status++] = *out;
	return 0;
}

void
bus_status_destroy(struct bus_status **status)
{
	for (int i = 0; i < fake.n_status; i++)
		if (fake.status[i] == *status)
			fake.status[i] = NULL;
	free(*status);
	*status = NULL;
}

const char *
bus_status_endpoint(const struct bus_status *status)
{
	return status->endpoint;
}

int
bus_events_publish(struct bus_events **out, struct bus *bus, const char *endpoint, struct err_note *note)
{
	(void)bus;
	(void)note;
	*out = must(calloc(1, sizeof(**out)));
	snprintf((*out)->endpoint, sizeof((*out)->endpoint), "%s", endpoint);
	return 0;
}

int
bus_events_subscribe(struct bus_events **out, struct bus *bus, const char *endpoint, const char *server_key, const char *topic,
    struct err_note *note)
{
	(void)server_key;
	(void)topic;
	return bus_events_publish(out, bus, endpoint, note);
}

void
bus_events_destroy(struct bus_events **events)
{
	free(*events);
	*events = NULL;
}

const char *
bus_events_endpoint(const struct bus_events *events)
{
	return events->endpoint;
}

void
bus_events_send(struct bus_events *events, const char *topic, const char *text)
{
	(void)events;
	(void)topic;
	(void)text;
}

int
bus_events_recv(struct bus_events *events, char *topic, size_t topic_size, char *text, size_t text_size, int64_t timeout_ms)
{
	(void)events;
	(void)topic_size;
	(void)text_size;
	topic[0] = text[0] = 0;
	fake_bus_advance(timeout_ms);
	return ERR_TIMEOUT;
}

int
bus_keys_generate(const char *dir, const char *name, enum bus_role role, struct err_note *note)
{
	(void)role;
	return err_note_set(note, ERR_UNSUPPORTED, "%s/%s", dir, name);
}
