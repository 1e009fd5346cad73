/* teacherd's real loop over the fake bus: what it says when nothing happens, and how much it asks for. */
#include "teacherd/loop.h"

#include "check.h"
#include "config/config.h"
#include "replay/fake_bus.h"
#include "status/status.h"
#include "teacherd/infer.h"
#include "wire/wire.h"

enum { IDLE_MS = 100000 };		/* selectord forgets who is silent for 120 s */

struct story {
	int64_t began_ms;
	size_t seen;			/* frames looked at */
	int n_hello, n_ping, n_pong, n_credit;
	uint32_t credit;		/* of the last LEASE_REQUEST */
};

static void
push(const struct wire_message *m)
{
	uint8_t *frame;
	size_t len;

	REQUIRE(wire_encode(m, SIZE_MAX, &frame, &len, NULL) == 0);
	fake_bus_push(0, 0, frame, len);
	free(frame);
}

static void
look(struct story *s)
{
	for (const struct fake_sent *f; (f = fake_bus_sent(s->seen)) != NULL; s->seen++) {
		struct wire_message *m = NULL;

		REQUIRE(!f->ended && wire_decode(f->frame, f->len, &m, NULL) == 0);
		s->n_hello += m->type == WIRE_HELLO;
		s->n_ping += m->type == WIRE_PING;
		if (m->type == WIRE_LEASE_REQUEST) {
			s->n_credit++;
			s->credit = m->lease_request.credit;
		}
		wire_message_destroy(&m);
	}
}

static enum fake_step
idle(void *arg, int step)
{
	struct wire_message welcome = {.type = WIRE_WELCOME, .welcome = {.protocol_version = WIRE_VERSION, .boot_id = {1, 2}, .n_shards = 1,
	    .max_message = 1 << 20, .lease_ms = 5000}};
	struct wire_message pong = {.type = WIRE_PONG};
	const uint64_t seq = 5;
	const int32_t tokens[9] = {1, 2, 3};
	/* Of a model that it does not hold: answered with an error, at once. */
	struct wire_message lease = {.type = WIRE_LEASE, .lease = {.lease_id = 1, .model = {9, 9}, .want_score = true, .seqs = &seq, .n_seqs = 1,
	    .tokens = tokens, .context = 8, .lease_ms = 5000, .n_valid = 64}};
	struct wire_message done = {.type = WIRE_DONE, .done = {.lease_id = 1, .seqs = &seq, .n_seqs = 1}};
	struct story *s = arg;

	look(s);
	if (step == 0) {
		fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
		return FAKE_GO;
	}
	if (step == 1) {
		CHECK(s->n_hello == 1);
		welcome.welcome.corpus = (struct wire_corpus){.present = true, .fingerprint = {true, {3, 4}}, .context = 8, .n_windows = 4,
		    .vocab_size = 64};
		push(&welcome);
		s->began_ms = bus_now_ms();
		return FAKE_GO;
	}
	if (step == 2) {
		CHECK(s->n_credit == 1 && s->credit == 2);
		push(&lease);
		return FAKE_GO;
	}
	if (step == 3) {
		push(&done);
		return FAKE_GO;
	}
	if (s->n_ping > s->n_pong) {
		s->n_pong++;
		push(&pong);
		return FAKE_GO;
	}
	return bus_now_ms() - s->began_ms < IDLE_MS || bus_stop_requested() ? FAKE_TIMEOUT : FAKE_STOP;
}

int
main(void)
{
	struct bus_waker *waker = bus_waker_new();
	static const char yaml[] = "selector: {endpoints: [\"tcp://127.0.0.1:1\"]}\n";
	struct story story = {0};
	struct config *config = NULL;
	struct infer *infer = NULL;
	struct status *status;
	struct bus *bus = NULL;
	struct infer_options io = {.threads = 1, .waker = waker};
	struct err_note note = {.name = ""};
	char text[1200];
	int rc;

	fake_bus_reset(1000, idle, &story);
	REQUIRE(bus_new(&bus, &(struct bus_options){0}, NULL) == 0 && (status = status_new("teacherd", "t", "0", 0)) != NULL);
	REQUIRE((rc = config_load_text(yaml, sizeof(yaml) - 1, "test", ".", NULL, 0, &config, &note)) == 0);
	REQUIRE(infer_new(&infer, &io, &note) == 0);
	rc = infer_add_model(infer, "tests/golden/weights/llama", true, true, &note);
	CHECK_ROW(rc == 0 ? "rc" : err_note_str(&note, rc, text, sizeof(text)), rc == 0);

	struct loop_options o = {.config = config, .bus = bus, .infer = infer, .waker = waker, .status = status, .name = "t", .status_endpoint = ""};

	rc = loop_run(&o, &note);
	CHECK_ROW(rc == 0 ? "rc" : err_note_str(&note, rc, text, sizeof(text)), rc == 0);
	look(&story);
	CHECK(story.n_hello == 1);
	CHECK(story.n_credit == 2 && story.credit == 2);	/* one has come and is done with: again it can take two, not one more */
	CHECK(story.n_ping >= 2);				/* else it is forgotten and never gets a lease again */
	infer_destroy(&infer);
	config_destroy(&config);
	status_destroy(&status);
	bus_destroy(&bus);
	bus_waker_destroy(&waker);
	return check_done();
}
