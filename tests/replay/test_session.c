/* SPDX-License-Identifier: Apache-2.0 */
/* A session over the fake bus: when it sends HELLO, which WELCOMEs it accepts, and lost connections. */
#include "fabric/session/session.h"

#include "base/clock/clock.h"
#include "check.h"
#include "fabric/bus/bus.h"
#include "replay/fake_bus.h"

enum { L = 8, VOCAB = 64, RETRY_MS = 700 };

static const struct wire_corpus corpus = {.present = true, .fingerprint = {true, {3, 4}}, .context = L,
    .n_windows = 40, .vocab_size = VOCAB};
static struct wire_plan plan = {.present = true, .seed = 1, .batch = 2, .mode = WIRE_MODE_NONE,
    .window = 4, .n_rows = 16};
static uint8_t table[VOCAB];
static struct wire_id resumed_file;	/* for the options in begin() */

struct fixture {
	struct bus *bus;
	struct bus_poll *poll;
	struct session *s;
	struct session_event e;
	size_t seen;
};

static void
push(int socket, const struct wire_message *m)
{
	uint8_t *frame;
	size_t len;

	REQUIRE(wire_encode(m, SIZE_MAX, &frame, &len, NULL) == 0);
	fake_bus_push(socket, 0, frame, len);
	free(frame);
}

/* Whether the next sent frame has this type; *m: the message, to be destroyed. WIRE_NONE: no frame. */
static bool
sent(struct fixture *f, enum wire_type type, int socket, struct wire_message **m)
{
	const struct fake_sent *frame = fake_bus_sent(f->seen);
	struct wire_message *own = NULL;
	bool good;

	if (frame == NULL || type == WIRE_NONE)
		return frame == NULL && type == WIRE_NONE;
	f->seen++;
	REQUIRE(wire_decode(frame->frame, frame->len, &own, NULL) == 0);
	good = own->type == type && frame->socket == socket;
	if (m != NULL)
		*m = own;
	else
		wire_message_destroy(&own);
	return good;
}

/* Whether the next event is of this kind; 0: whether there is none. */
static bool
next(struct fixture *f, enum session_event_kind kind)
{
	int rc = session_next(f->s, &f->e);

	return kind == 0 ? rc == ERR_AGAIN && f->e.message == NULL : rc == 0 && f->e.kind == kind;
}

static void
begin(struct fixture *f, size_t n_shards, bool need_labels)
{
	static char a[] = "tcp://127.0.0.1:1", b[] = "tcp://127.0.0.1:2";
	char *endpoints[] = {a, b};
	struct wire_hello hello = {.role = WIRE_ROLE_TRAINER, .name = "t", .max_message = 1 << 20,
	    .corpus = corpus, .plan = plan, .label_set = {.present = true, .kind = LABELS_KIND_SAMPLED, .n = 8,
	    .tau = 1, .seed = 7, .version = LABELS_VERSION}};
	struct session_options o = {.endpoints = endpoints, .n_shards = n_shards, .hello = &hello,
	    .all_shards = true, .need_labels = need_labels, .file = resumed_file};

	memset(f, 0, sizeof(*f));
	fake_bus_reset(1000, NULL, NULL);
	REQUIRE(bus_new(&f->bus, &(struct bus_options){0}, NULL) == 0 &&
	    (f->poll = bus_poll_new(f->bus)) != NULL);
	o.bus = f->bus;
	o.poll = f->poll;
	REQUIRE(session_new(&f->s, &o, NULL) == 0);
}

static void
end(struct fixture *f)
{
	session_event_free(&f->e);
	session_destroy(&f->s);
	bus_poll_destroy(&f->poll);
	bus_destroy(&f->bus);
}

/* Makes a WELCOME that matches the HELLO in begin(). */
static struct wire_message
make_welcome(uint32_t shard, uint32_t n_shards)
{
	struct wire_message m = {.type = WIRE_WELCOME, .welcome = {.protocol_version = WIRE_VERSION,
	    .boot_id = {1, 2}, .shard = shard, .n_shards = n_shards, .max_message = 1 << 20, .lease_ms = 5000,
	    .corpus = corpus, .rows_ready = 3, .label_set = {.present = true, .teacher = {true, {5, 6}},
	    .compute_class = "fp32/openblas", .kind = LABELS_KIND_SAMPLED, .n = 8, .tau = 1, .seed = 7,
	    .version = LABELS_VERSION}, .unigram = {table, sizeof(table)}}};
	struct labels_set set = {.corpus = {3, 4}, .teacher = {5, 6}, .compute_class = "fp32/openblas",
	    .spec = {.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = L, .vocab = VOCAB,
	    .n_samples = 8, .seed = 7, .tau = 1}};

	for (size_t i = 0; i < sizeof(table); i++)
		table[i] = (uint8_t)(1 + i * 3);
	set.spec.unigram_hash = hash_bytes(table, sizeof(table));
	m.welcome.label_set.hash = (struct wire_id){true, labels_set_hash(&set)};
	m.welcome.plan_hash = (struct wire_id){true, wire_plan_hash(&corpus, &plan, NULL)};
	return m;
}

static void
greet(struct fixture *f)
{
	struct wire_message m = make_welcome(0, 1);

	fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
	REQUIRE(next(f, 0) && sent(f, WIRE_HELLO, 0, NULL));
	push(0, &m);
	REQUIRE(next(f, SESSION_WELCOME) && next(f, 0) && session_welcomed(f->s, 0));
}

/* HELLO is the first message, and is repeated after 10 s; its contents. */
static void
test_hello(void)
{
	struct wire_message *m = NULL, ping = {.type = WIRE_PING, .ping = {77}}, lease = {.type = WIRE_DONE};
	const uint64_t seq = 1;
	struct fixture f;

	begin(&f, 1, false);
	CHECK(next(&f, 0) && sent(&f, WIRE_NONE, 0, NULL));
	fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
	CHECK(next(&f, 0) && sent(&f, WIRE_HELLO, 0, &m));
	CHECK(hash_equal(m->hello.boot_id, bus_boot_id()) && strcmp(m->hello.host, bus_host()) == 0 &&
	    m->hello.pid != 0);
	wire_message_destroy(&m);
	lease.done = (struct wire_done){1, &seq, 1};
	push(0, &lease);				/* dropped: it comes before WELCOME */
	push(0, &ping);
	CHECK(next(&f, 0) && sent(&f, WIRE_PONG, 0, &m) && m->ping.nonce == 77);
	wire_message_destroy(&m);
	fake_bus_advance(9999);
	CHECK(next(&f, 0) && sent(&f, WIRE_NONE, 0, NULL));
	fake_bus_advance(1);
	CHECK(next(&f, 0) && sent(&f, WIRE_HELLO, 0, NULL) && sent(&f, WIRE_NONE, 0, NULL));
	CHECK(session_send(f.s, 0, &ping) == ERR_CLOSED && session_n_welcomed(f.s) == 0 &&
	    session_welcome(f.s, 0) == NULL);
	fake_bus_push_event(0, 0, BUS_EVENT_REFUSED);
	CHECK(next(&f, SESSION_KEY_REFUSED) && next(&f, 0));
	end(&f);
}

/* After WELCOME: messages, PING after silence, HELLO on request, BYE. */
static void
test_welcomed(void)
{
	struct wire_message m = {.type = WIRE_DROPPED, .dropped = {5, 6, 7, 8}}, *taken;
	struct fixture f;

	begin(&f, 1, false);
	greet(&f);
	CHECK(session_welcome(f.s, 0)->rows_ready == 3);
	CHECK(hash_equal(session_plan_hash(f.s), wire_plan_hash(&corpus, &plan, NULL)));
	push(0, &m);
	REQUIRE(next(&f, SESSION_MESSAGE) && f.e.message->dropped.labels == 6);
	taken = f.e.message;
	f.e.message = NULL;
	CHECK(next(&f, 0) && taken->dropped.kept == 8);
	wire_message_destroy(&taken);
	fake_bus_advance(30000);
	CHECK(next(&f, 0) && sent(&f, WIRE_NONE, 0, NULL));
	fake_bus_advance(1);
	CHECK(next(&f, 0) && sent(&f, WIRE_PING, 0, NULL) && next(&f, 0) && sent(&f, WIRE_NONE, 0, NULL));
	session_hello(f.s, 0, 500);
	fake_bus_advance(499);
	CHECK(next(&f, 0) && sent(&f, WIRE_NONE, 0, NULL));
	fake_bus_advance(1);
	CHECK(next(&f, 0) && sent(&f, WIRE_HELLO, 0, NULL) && session_welcomed(f.s, 0));
	session_bye(f.s, "enough");
	CHECK(sent(&f, WIRE_BYE, 0, NULL));
	end(&f);
}

/* A lost connection, and a REFUSE with retry_ms. */
static void
test_lost(void)
{
	struct wire_message refuse = {.type = WIRE_REFUSE,
	    .refuse = {.code = 75, .field = "hello", .retry_ms = RETRY_MS}}, m = make_welcome(0, 1);
	struct fixture f;

	begin(&f, 1, false);
	greet(&f);
	CHECK(f.e.kind == 0);
	fake_bus_push_event(0, 0, BUS_EVENT_DISCONNECTED);
	CHECK(next(&f, SESSION_LOST) && f.e.shard == 0 && !session_welcomed(f.s, 0) &&
	    session_welcome(f.s, 0) != NULL);
	fake_bus_advance(60000);
	CHECK(next(&f, 0) && sent(&f, WIRE_NONE, 0, NULL));
	fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
	push(0, &m);					/* sent on the lost connection */
	CHECK(next(&f, 0) && sent(&f, WIRE_HELLO, 0, NULL) && !session_welcomed(f.s, 0));
	push(0, &m);
	CHECK(next(&f, SESSION_WELCOME) && !f.e.restarted);
	push(0, &refuse);				/* selectord has dropped this peer */
	CHECK(next(&f, SESSION_LOST) && next(&f, 0) && sent(&f, WIRE_NONE, 0, NULL));
	fake_bus_advance(RETRY_MS - 1);
	CHECK(next(&f, 0) && sent(&f, WIRE_NONE, 0, NULL));
	push(0, &refuse);				/* before WELCOME: no event */
	CHECK(next(&f, 0));
	fake_bus_advance(RETRY_MS);
	CHECK(next(&f, 0) && sent(&f, WIRE_HELLO, 0, NULL));
	m.welcome.boot_id.lo++;
	push(0, &m);
	CHECK(next(&f, SESSION_WELCOME) && f.e.restarted && next(&f, 0));
	end(&f);
}

/* A final REFUSE ends the shard, and its code can be used as exit code. */
static void
test_refused(void)
{
	static const int codes[] = {64, 65, 66, 69, 70, 73, 74, 75, 77, 78};

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		struct wire_message refuse = {.type = WIRE_REFUSE, .refuse = {.code = codes[i],
		    .field = "plan.seed", .expected = "1", .found = "2", .text = "no"}};
		struct fixture f;

		begin(&f, 1, false);
		fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
		CHECK(next(&f, 0) && sent(&f, WIRE_HELLO, 0, NULL));
		push(0, &refuse);
		CHECK(next(&f, SESSION_FAILED) && f.e.message != NULL && err_exit_code(f.e.rc) == codes[i]);
		CHECK(strcmp(f.e.note.name, "plan.seed") == 0 && strcmp(f.e.note.expected, "1") == 0 &&
		    strcmp(f.e.note.found, "2; no") == 0);
		CHECK(strstr(f.e.note.place, "tcp://127.0.0.1:1") != NULL);
		fake_bus_push_event(0, 0, BUS_EVENT_DISCONNECTED);
		fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
		fake_bus_advance(60000);
		CHECK(next(&f, 0) && sent(&f, WIRE_NONE, 0, NULL));
		end(&f);
	}
}

/* WELCOMEs that differ from HELLO in one thing each. */
static void
test_differs(void)
{
	static const char *const names[] = {NULL, "corpus.vocab_size", "corpus.fingerprint", "label_set.tau",
	    "label_set.seed", "selector.endpoints", "selector.endpoints", "plan", "label_set.hash",
	    "label_set.hash", "label_set.hash"};

	for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++) {
		struct wire_message m = make_welcome(0, 1);
		struct wire_welcome *w = &m.welcome;
		struct fixture f;

		begin(&f, 1, false);
		fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
		CHECK(next(&f, 0));
		w->corpus.vocab_size += i == 1;
		if (i == 1)
			w->unigram.len = 0, w->label_set.present = false;
		w->corpus.fingerprint.hash.lo += i == 2;
		w->label_set.tau += (float)(i == 3);
		w->label_set.seed += i == 4;
		w->n_shards += i == 5;
		if (i == 6)
			w->shard = 1, w->n_shards = 2;
		w->plan_hash.hash.lo ^= i == 7;
		w->label_set.hash.hash.lo ^= i == 8;
		table[0] ^= i == 9 ? 2 : 0;
		table[VOCAB - 1] ^= i == 10 ? 2 : 0;
		push(0, &m);
		CHECK_ROW(names[i] != NULL ? names[i] : "good",
		    next(&f, names[i] != NULL ? SESSION_FAILED : SESSION_WELCOME));
		CHECK_ROW(names[i] != NULL ? names[i] : "good", names[i] == NULL ||
		    (f.e.rc == ERR_MISMATCH && strcmp(f.e.note.name, names[i]) == 0));
		end(&f);
	}
}

/* A session with a plan accepts only the label set of the first WELCOME, on every shard. */
static void
test_two_shards(void)
{
	struct wire_message m = make_welcome(0, 2);
	struct labels_set set = {.corpus = {3, 4}, .teacher = {5, 9}, .compute_class = "fp32/openblas",
	    .spec = {.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = L, .vocab = VOCAB,
	    .n_samples = 8, .seed = 7, .tau = 1, .unigram_hash = hash_bytes(table, sizeof(table))}};
	struct fixture f;

	begin(&f, 2, false);
	fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
	fake_bus_push_event(1, 0, BUS_EVENT_CONNECTED);
	CHECK(next(&f, 0) && sent(&f, WIRE_HELLO, 0, NULL) && sent(&f, WIRE_HELLO, 1, NULL));
	push(0, &m);
	CHECK(next(&f, SESSION_WELCOME) && f.e.shard == 0 && next(&f, 0) && session_n_welcomed(f.s) == 1 &&
	    session_n_shards(f.s) == 2);
	m.welcome.shard = 1;
	m.welcome.label_set.teacher.hash = set.teacher;		/* another valid label set */
	m.welcome.label_set.hash.hash = labels_set_hash(&set);
	push(1, &m);
	CHECK(next(&f, SESSION_FAILED) && f.e.shard == 1 && strcmp(f.e.note.name, "label_set.hash") == 0 &&
	    session_welcomed(f.s, 0));
	end(&f);
}

/* In salt_ds the score set is part of a plan's identity: shards with different ones serve different plans. */
static void
test_two_plans(void)
{
	struct wire_message m;
	struct fixture f;

	plan.mode = WIRE_MODE_SALT_DS;
	plan.k = 2;
	plan.keep = 0.5;
	begin(&f, 2, false);
	fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
	fake_bus_push_event(1, 0, BUS_EVENT_CONNECTED);
	CHECK(next(&f, 0) && sent(&f, WIRE_HELLO, 0, NULL) && sent(&f, WIRE_HELLO, 1, NULL));
	for (uint32_t shard = 0; shard < 2; shard++) {
		m = make_welcome(shard, 2);
		m.welcome.score_set = (struct wire_score_set){.present = true, .hash = {true, {7, shard}},
		    .scorer = {true, {5, 6}}, .compute_class = "fp32/openblas",
		    .version = LABELS_SCORES_VERSION};
		m.welcome.plan_hash.hash = wire_plan_hash(&corpus, &plan, &m.welcome.score_set.hash.hash);
		push((int)shard, &m);
	}
	CHECK(next(&f, SESSION_WELCOME) && f.e.shard == 0);
	CHECK(next(&f, SESSION_FAILED) && f.e.shard == 1 && strcmp(f.e.note.name, "plan") == 0);
	end(&f);
	plan.mode = WIRE_MODE_NONE;
	plan.keep = plan.k = 0;
}

/* In mode file the scorer is selector.file: it must equal that of the checkpoint and the first WELCOME. */
static void
test_other_file(void)
{
	struct hash128 files[] = {{5, 6}, {5, 7}};

	plan.mode = WIRE_MODE_FILE;
	plan.keep = 0.5;
	for (int resumed = 0; resumed < 2; resumed++) {
		struct wire_message m = make_welcome(0, 1);
		struct fixture f;

		resumed_file = (struct wire_id){resumed == 1, files[0]};
		begin(&f, 1, false);
		for (int i = resumed; i < 2; i++) {
			fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
			CHECK(next(&f, 0) && sent(&f, WIRE_HELLO, 0, NULL));
			m.welcome.score_set = (struct wire_score_set){.present = true, .hash = {true, {7, (uint64_t)i}},
			    .scorer = {true, files[i]}, .compute_class = "file", .version = LABELS_SCORES_VERSION};
			m.welcome.plan_hash.hash = wire_plan_hash(&corpus, &plan, &m.welcome.score_set.hash.hash);
			push(0, &m);
			CHECK(next(&f, i == 0 ? SESSION_WELCOME : SESSION_FAILED));
			if (i == 0) {
				fake_bus_push_event(0, 0, BUS_EVENT_DISCONNECTED);
				CHECK(next(&f, SESSION_LOST));
			}
		}
		CHECK_STR(f.e.note.name, "selector.file");
		end(&f);
	}
	plan.mode = WIRE_MODE_NONE;
	plan.keep = 0;
	resumed_file.known = false;
}

/* A trainer does not count a WELCOME without a label set. */
static void
test_need_labels(void)
{
	struct wire_message m = make_welcome(0, 1);
	struct fixture f;

	begin(&f, 1, true);
	m.welcome.label_set = (struct wire_label_set){.present = false};
	m.welcome.unigram = (struct wire_bytes){NULL, 0};
	fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
	CHECK(next(&f, 0) && sent(&f, WIRE_HELLO, 0, NULL));
	push(0, &m);
	CHECK(next(&f, 0) && !session_welcomed(f.s, 0) && sent(&f, WIRE_NONE, 0, NULL));
	fake_bus_advance(10000);
	CHECK(next(&f, 0) && sent(&f, WIRE_HELLO, 0, NULL));
	m = make_welcome(0, 1);
	push(0, &m);
	CHECK(next(&f, SESSION_WELCOME));
	end(&f);
}

/* A message that is too long for selectord is reported as a failure, once. */
static void
test_too_long(void)
{
	static uint8_t record[4096];
	struct wire_result_row row = {.seq = 1, .label = {record, sizeof(record)}};
	struct wire_message m = make_welcome(0, 1), result = {.type = WIRE_RESULT, .result = {1, &row, 1}};
	struct fixture f;

	begin(&f, 1, false);
	m.welcome.max_message = 2048;
	fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
	CHECK(next(&f, 0));
	push(0, &m);
	CHECK(next(&f, SESSION_WELCOME));
	CHECK(session_send(f.s, 0, &result) == ERR_RANGE);
	CHECK(next(&f, SESSION_FAILED) && f.e.rc == ERR_RANGE && strstr(f.e.note.place, "RESULT") != NULL &&
	    next(&f, 0));
	end(&f);
}

int
main(void)
{
	test_hello();
	test_welcomed();
	test_lost();
	test_refused();
	test_differs();
	test_two_shards();
	test_two_plans();
	test_other_file();
	test_need_labels();
	test_too_long();
	return check_done();
}
