/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frames ENDPOINT DIR COUNT SEED PID [keys=DIR] - sends mutated frames from accepted peers to a selectord,
 * process PID.
 *
 * 20 clients send 100 PINGs a second each, and one teacher requests leases. First no other peer is connected;
 * then another process also sends COUNT frames: messages of all types with changed bytes, and valid ones with
 * absurd numbers and with plans, leases and rows of other peers. DIR is made by `fakes files`. Prints one
 * line:
 *   frames F connections C share_min S share_mean M rss_before A rss_most B mib
 * share: a client's rate of answered PINGs during the attack, relative to its rate before. Exit code: 0, or 1
 * if the selectord ended or a client had no answer for 10 s.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../fuzz/mutate.h"
#include "base/clock/clock.h"
#include "data/corpus/corpus.h"
#include "fabric/bus/bus.h"
#include "fabric/session/session.h"
#include "fabric/wire/wire.h"

enum { L = 16, VOCAB = 96, CLIENTS = 20, ALONE_MS = 1500, PING_MS = 10, SILENT_MS = 10000, BURST = 16, FRAME_MAX = 1 << 16 };

static const char *endpoint, *keys;
static struct wire_corpus corpus, heldout;
static pid_t selectord;
static struct hash128 plan_hash, boot;
static uint64_t lease_id, n_pings;

static void
die(int rc, const struct err_note *note, const char *what)
{
	char text[1200];

	fprintf(stderr, "frames: %s: %s\n", what, err_note_str(note, rc, text, sizeof(text)));
	exit(1);
}

static struct wire_corpus
open_corpus(const char *dir, const char *name)
{
	struct err_note note = {0};
	struct wire_corpus out;
	struct hash128 hash;
	struct corpus *c;
	char path[512];
	int rc;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if ((rc = corpus_open(&c, path, &note)) != 0 || (rc = corpus_fingerprint(c, &hash, &note)) != 0)
		die(rc, &note, path);
	out = session_corpus(c, hash, L, VOCAB, (struct wire_id){.known = false});
	corpus_destroy(&c);
	return out;
}

static struct bus *
open_bus(enum bus_role role)
{
	struct bus_options o = {.curve_dir = keys, .role = role};
	struct err_note note = {0};
	struct bus *bus;
	int rc = bus_new(&bus, &o, &note);

	if (rc != 0)
		die(rc, &note, "bus");
	return bus;
}

static struct wire_message
hello(enum wire_role role, uint64_t number)
{
	struct wire_message m = {.type = WIRE_HELLO, .hello = {.protocol_version = WIRE_VERSION, .role = role,
	    .boot_id = {number, boot.lo}, .max_message = 1 << 20, .pid = (uint32_t)getpid()}};

	snprintf(m.hello.name, sizeof(m.hello.name), "frames-%" PRIu64, number);
	if (role == WIRE_ROLE_TEACHER)
		return m;
	m.hello.corpus = corpus;
	m.hello.heldout = heldout;
	return m;
}

static int
tell(struct bus_client *c, const struct wire_message *m)
{
	uint8_t *frame;
	size_t len;
	int rc = wire_encode(m, SIZE_MAX, &frame, &len, NULL);

	return rc != 0 ? rc : bus_client_send(c, frame, len);
}

/* ---- the peers beside the attack ---- */

struct client {
	struct bus_client *c;
	bool welcomed, waits;
	int64_t next_ms, heard_ms;
	uint64_t nonce, answers;
};

static void
client_turn(struct client *c, uint64_t number, int64_t now_ms)
{
	struct wire_message *m, h;
	struct bus_event e;

	while (bus_client_recv(c->c, &e) == 0) {
		if (e.kind == BUS_EVENT_CONNECTED) {
			h = hello(WIRE_ROLE_CLIENT, number);
			tell(c->c, &h);
			c->welcomed = c->waits = false;
		} else if (e.kind == BUS_EVENT_FRAME && wire_decode(e.frame, e.len, &m, NULL) == 0) {
			c->heard_ms = now_ms;
			c->welcomed |= m->type == WIRE_WELCOME;
			if (m->type == WIRE_PONG && m->ping.nonce == c->nonce) {
				c->answers++;
				c->waits = false;
			}
			if (m->type == WIRE_REFUSE)
				die(ERR_REFUSED, NULL, m->refuse.field);
			wire_message_destroy(&m);
		}
		bus_event_free(&e);
	}
	if (!c->welcomed || c->waits || now_ms < c->next_ms)
		return;
	c->waits = tell(c->c, &(struct wire_message){.type = WIRE_PING, .ping = {++c->nonce}}) == 0;
	c->next_ms = c->next_ms + PING_MS > now_ms ? c->next_ms + PING_MS : now_ms + PING_MS;
}

/* Runs the clients until `until_ms`, or until the process `child` (if it is not 0) has ended. */
static void
clients_run(struct bus_poll *poll, struct client *c, int64_t until_ms, pid_t child, long *most_kib)
{
	int64_t now_ms = clock_now_ms(), look_ms = 0;
	int status;

	for (int i = 0; i < CLIENTS; i++)
		c[i].heard_ms = now_ms;
	while (now_ms < until_ms) {
		bus_poll_wait(poll, 2);
		now_ms = clock_now_ms();
		for (uint64_t i = 0; i < CLIENTS; i++) {
			client_turn(&c[i], i + 1, now_ms);
			if (now_ms - c[i].heard_ms > SILENT_MS)
				die(ERR_TIMEOUT, NULL, "a client has no answers");
		}
		if (now_ms < look_ms)
			continue;
		look_ms = now_ms + 100;
		if (kill(selectord, 0) != 0)
			die(errno, NULL, "selectord");
		if (most_kib != NULL) {
			char path[64], line[128];
			long kib;
			FILE *f;

			snprintf(path, sizeof(path), "/proc/%d/status", (int)selectord);
			if ((f = fopen(path, "re")) == NULL)
				die(errno, NULL, path);
			while (fgets(line, sizeof(line), f) != NULL)
				if (sscanf(line, "VmRSS: %ld", &kib) == 1 && kib > *most_kib)
					*most_kib = kib;
			fclose(f);
		}
		if (child != 0 && waitpid(child, &status, WNOHANG) == child) {
			if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
				die(ERR_INTERNAL, NULL, "the sender of the frames");
			return;
		}
	}
}

/* ---- the attack ---- */

static uint64_t
absurd(void)
{
	static const uint64_t edges[] = {0, 1, 7, 4095, 1 << 20, UINT32_MAX, UINT64_C(1) << 32, UINT64_C(1) << 48, UINT64_C(1) << 60,
	    UINT64_C(1) << 62, UINT64_MAX - 1, UINT64_MAX};

	return edges[fuzz_u32() % (sizeof(edges) / sizeof(edges[0]))];
}

static struct wire_plan
some_plan(void)
{
	return (struct wire_plan){.present = true, .seed = fuzz_u32() % 4, .batch = 1 + fuzz_u32() % 8, .mode = fuzz_u32() % 2,
	    .k = 1 + fuzz_u32() % 20, .window = fuzz_u32() % 2 == 0 ? 64 : 1 + absurd() / 2, .keep = 0.5,
	    .pool = fuzz_u32() % 8 == 0 ? absurd() >> 17 : 0, .n_rows = fuzz_u32() % 2 == 0 ? 640 : 1 + absurd() / 2,
	    .label_ahead_rows = absurd()};
}

/* Makes a message that wire accepts, as a malloc'ed frame. */
static int
some_message(enum wire_role role, uint8_t **frame, size_t *len)
{
	static const uint64_t seqs[2] = {7, UINT64_C(1) << 48};
	struct wire_result_row row = {.seq = fuzz_u32() % 700, .scores = {(const uint8_t *)"abcdefghi", 9}, .label = {(const uint8_t *)"label", 5}};
	struct hash128 plan = fuzz_u32() % 2 == 0 ? plan_hash : (struct hash128){fuzz_u32(), 1};
	uint64_t lease = fuzz_u32() % 2 == 0 ? lease_id : 1 + fuzz_u32() % 64;
	struct wire_message m = {.type = 1 + fuzz_u32() % (WIRE_TYPES - 1)};

	switch (m.type) {
	case WIRE_HELLO:
		m = hello(role, 1000 + fuzz_u32() % 8);
		if (role != WIRE_ROLE_TEACHER && fuzz_u32() % 4 != 0)
			m.hello.plan = some_plan();
		m.hello.max_message = fuzz_u32() % 2 == 0 ? 1 << 20 : 1024 + (uint32_t)(absurd() >> 1) % 100000;
		break;
	case WIRE_LEASE_REQUEST:
		m.lease_request.credit = 1 + (uint32_t)(absurd() >> 1);
		break;
	case WIRE_LEASE_RENEW:
		m.lease_renew = (struct wire_lease_renew){lease, absurd()};
		break;
	case WIRE_LEASE_RETURN:
		m.lease_return.lease_id = lease;
		break;
	case WIRE_RESULT:
		if (fuzz_u32() % 2 == 0)
			row = (struct wire_result_row){.seq = fuzz_u32() % 700, .error = "no"};
		m.result = (struct wire_result){lease, &row, 1};
		break;
	case WIRE_DONE:
		m.done = (struct wire_done){lease, seqs, 2};
		break;
	case WIRE_ROWS_REQUEST:
		m.rows_request = (struct wire_rows_request){absurd(), plan, absurd() >> 1, 1 + (uint32_t)(absurd() >> 1), absurd()};
		break;
	case WIRE_CHECKPOINTED:
	case WIRE_RELEASE:
		m.release = (struct wire_release){absurd(), plan, absurd()};
		break;
	case WIRE_PING:
	case WIRE_PONG:
		m.ping.nonce = absurd();
		break;
	case WIRE_BYE:
		strcpy(m.bye.reason, "\x1b[31m\n");
		break;
	case WIRE_DROP_LABELS:
		m.drop_labels = (struct wire_drop_labels){absurd(), fuzz_u32() % 2 == 0};
		break;
	default:
		m.type = WIRE_PING;
	}
	return wire_encode(&m, SIZE_MAX, frame, len, NULL);
}

/* Handles what this connection received; true: it has ended. */
static bool
heard(struct bus_client *c, const struct wire_message *h, uint64_t *pong, bool *welcomed, bool *again)
{
	struct wire_message *m;
	struct bus_event e;
	bool over = false;

	while (!over && bus_client_recv(c, &e) == 0) {
		over = e.kind == BUS_EVENT_DISCONNECTED || e.kind == BUS_EVENT_REFUSED;
		if (e.kind == BUS_EVENT_CONNECTED)
			tell(c, h);
		if (e.kind == BUS_EVENT_FRAME && wire_decode(e.frame, e.len, &m, NULL) == 0) {
			*welcomed |= m->type == WIRE_WELCOME;
			if (m->type == WIRE_WELCOME && m->welcome.plan_hash.known)
				plan_hash = m->welcome.plan_hash.hash;
			if (m->type == WIRE_LEASE)
				lease_id = m->lease.lease_id;
			if (m->type == WIRE_PONG)
				*pong = m->ping.nonce;
			*again |= m->type == WIRE_REFUSE && m->refuse.retry_ms > 0;
			over |= m->type == WIRE_REFUSE && m->refuse.retry_ms == 0 && m->refuse.code != 77;
			wire_message_destroy(&m);
		}
		bus_event_free(&e);
	}
	return over;
}

/* Makes the next frame, malloc'ed; mutated: with changed bytes. */
static uint8_t *
next_frame(enum wire_role role, bool mutated, size_t *len)
{
	uint8_t *frame;

	while (some_message(role, &frame, len) != 0)
		;
	if (!mutated || *len > FRAME_MAX / 2)
		return frame;
	if ((frame = realloc(frame, FRAME_MAX)) == NULL)
		die(ENOMEM, NULL, "frame");
	*len = fuzz_mutate(frame, *len, FRAME_MAX);
	return frame;
}

/*
 * Sends frames on one connection until it is refused or lost, or `most` frames are sent. After every few
 * frames it sends a PING and waits for the answer, so that all are handled; the last frame before the PING
 * has changed bytes, after which a connection usually ends.
 */
static uint64_t
connection(struct bus_poll *poll, struct bus_client *c, enum wire_role role, uint64_t most)
{
	int64_t give_up_ms = clock_now_ms() + SILENT_MS;
	struct wire_message h = hello(role, 1000 + fuzz_u32() % 8);
	bool welcomed = false, again = false;
	uint64_t n = 0, nonce = 0, pong = 0;

	h.hello.plan = some_plan();
	h.hello.plan.window = 64;
	h.hello.plan.pool = 0;
	h.hello.plan.n_rows = 640;
	while (n < most && clock_now_ms() < give_up_ms) {
		if (heard(c, &h, &pong, &welcomed, &again))
			return n;
		/* dropped after a BYE, or its plan was not accepted: no answer to PING */
		if (again) {
			tell(c, &h);
			pong = nonce;
			again = welcomed = false;
		}
		if (!welcomed || pong != nonce) {
			bus_poll_wait(poll, 20);
			continue;
		}
		for (uint32_t i = fuzz_u32() % BURST; n < most; i--) {
			size_t len;
			uint8_t *frame = next_frame(role, i == 0, &len);

			n += bus_client_send(c, frame, len) == 0;
			if (i == 0)
				break;
		}
		nonce = ++n_pings + (UINT64_C(1) << 40);		/* some_message() does not use it */
		tell(c, &(struct wire_message){.type = WIRE_PING, .ping = {nonce}});
	}
	return n;
}

static void
attack(uint64_t count, uint64_t seed, int out)
{
	static const enum bus_role bus_roles[] = {BUS_ROLE_TRAINER, BUS_ROLE_CLIENT};
	static const enum wire_role roles[] = {WIRE_ROLE_TRAINER, WIRE_ROLE_CLIENT};
	uint64_t n = 0, connections = 0;
	struct err_note note = {0};

	fuzz_seed(seed);
	for (int kind = 0; n < count; kind = !kind) {
		struct bus *bus = open_bus(bus_roles[kind]);
		struct bus_poll *poll = bus_poll_new(bus);
		uint64_t until = n + 5000;

		for (until = until < count ? until : count; n < until; connections++) {
			struct bus_client *c;
			int rc = bus_client_new(&c, bus, endpoint, NULL, &note);

			if (rc != 0 || (rc = bus_poll_add_client(poll, c)) != 0)
				die(rc, &note, endpoint);
			n += connection(poll, c, roles[kind], until - n);
			bus_poll_remove(poll, c);
			bus_client_destroy(&c);
			if (kill(selectord, 0) != 0)
				die(errno, NULL, "selectord");
		}
		bus_poll_destroy(&poll);
		bus_destroy(&bus);
	}
	if (dprintf(out, "%" PRIu64 " %" PRIu64 "\n", n, connections) < 0)
		exit(1);
}

int
main(int argc, char **argv)
{
	struct client c[CLIENTS] = {{0}};
	uint64_t alone[CLIENTS], n = 0, connections = 0;
	double least = 1e9, sum = 0;
	long before = 0, most = 0;
	struct err_note note = {0};
	struct bus_poll *poll;
	int64_t start_ms, ms;
	char text[100] = "";
	int go[2], out[2], rc;
	struct bus *bus;
	pid_t child;

	if (argc < 6) {
		fprintf(stderr, "frames: ENDPOINT DIR COUNT SEED PID [keys=DIR]\n");
		return 64;
	}
	endpoint = argv[1];
	selectord = (pid_t)atoi(argv[5]);
	keys = argc > 6 ? argv[6] + 5 : NULL;
	corpus = open_corpus(argv[2], "train");
	heldout = open_corpus(argv[2], "held");
	boot = (struct hash128){0, (uint64_t)getpid()};
	if (pipe(go) != 0 || pipe(out) != 0 || (child = fork()) < 0)
		die(errno, NULL, "fork");
	if (child == 0) {			/* forked before the library has threads */
		close(go[1]);
		boot.lo = (uint64_t)getpid();
		if (read(go[0], text, 1) == 1)
			attack(strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10), out[1]);
		_exit(0);
	}
	close(go[0]);
	bus = open_bus(BUS_ROLE_CLIENT);
	if ((poll = bus_poll_new(bus)) == NULL)
		die(errno, NULL, "poll");
	for (int i = 0; i < CLIENTS; i++)
		if ((rc = bus_client_new(&c[i].c, bus, endpoint, NULL, &note)) != 0 ||
		    (rc = bus_poll_add_client(poll, c[i].c)) != 0)
			die(rc, &note, endpoint);
	clients_run(poll, c, clock_now_ms() + ALONE_MS / 3, 0, NULL);		/* until they are connected */
	for (int i = 0; i < CLIENTS; i++)
		alone[i] = c[i].answers;
	start_ms = clock_now_ms();
	clients_run(poll, c, start_ms + ALONE_MS, 0, &before);
	ms = clock_now_ms() - start_ms;
	for (int i = 0; i < CLIENTS; i++) {
		alone[i] = (c[i].answers - alone[i]) * 1000000 / (uint64_t)ms;
		if (alone[i] == 0)
			die(ERR_TIMEOUT, NULL, "a client has no answers without the attack");
		c[i].answers = 0;
	}
	start_ms = clock_now_ms();
	if (write(go[1], "g", 1) != 1)
		die(errno, NULL, "pipe");
	clients_run(poll, c, INT64_MAX, child, &most);
	ms = clock_now_ms() - start_ms;
	if (read(out[0], text, sizeof(text) - 1) <= 0 || sscanf(text, "%" SCNu64 " %" SCNu64, &n, &connections) != 2)
		die(ERR_INTERNAL, NULL, "the sender of the frames");
	for (int i = 0; i < CLIENTS; i++) {
		double share = (double)(c[i].answers * 1000000 / (uint64_t)(ms > 0 ? ms : 1)) / (double)alone[i];

		least = share < least ? share : least;
		sum += share / CLIENTS;
	}
	printf("frames %" PRIu64 " connections %" PRIu64 " seconds %.1f share_min %.2f share_mean %.2f rss_before %ld rss_most %ld mib\n", n,
	    connections, (double)ms / 1000, least, sum, before / 1024, most / 1024);
	for (int i = 0; i < CLIENTS; i++)
		bus_client_destroy(&c[i].c);
	bus_poll_destroy(&poll);
	bus_destroy(&bus);
	return 0;
}
