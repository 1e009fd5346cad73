/* SPDX-License-Identifier: Apache-2.0 */
/* teacherd's main loop over the fake bus: idle messages, requested leases, forward passes per lease. */
#include "teacherd/loop.h"

#include <stdatomic.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "check.h"
#include "fabric/config/config.h"
#include "base/hash/hash.h"
#include "data/labels/labels.h"
#include "engine/model/model.h"
#include "replay/fake_bus.h"
#include "fabric/status/status.h"
#include "engine/infer/infer.h"
#include "engine/weights/weights.h"
#include "fabric/wire/wire.h"

enum { IDLE_MS = 100000 };		/* selectord drops a peer that is silent for 120 s */

struct story {
	int64_t began_ms;
	size_t seen;			/* number of frames processed */
	int n_hello, n_ping, n_pong, n_credit, n_result;
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
		s->n_result += m->type == WIRE_RESULT;
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
	/* A lease for a model that this teacher does not have is answered with an error at once. */
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
		s->began_ms = clock_now_ms();
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
	return clock_now_ms() - s->began_ms < IDLE_MS || stop_requested() ? FAKE_TIMEOUT : FAKE_STOP;
}

/*
 * After a lost connection its results are sent again at once. If selectord has dropped the lease it does not
 * answer, and after a while the teacher drops the lease too. Otherwise eight such leases would keep this
 * teacher idle for ever, and one would delay its end.
 */
struct cut_story {
	struct story story;
	int64_t back_ms, stop_ms;
	int results_at_once;
};

static enum fake_step
cut_off(void *arg, int step)
{
	struct wire_message welcome = {.type = WIRE_WELCOME, .welcome = {.protocol_version = WIRE_VERSION, .boot_id = {1, 2}, .n_shards = 1,
	    .max_message = 1 << 20, .lease_ms = 5000, .corpus = {.present = true, .fingerprint = {true, {3, 4}}, .context = 8, .n_windows = 4,
	    .vocab_size = 64}}};
	const uint64_t seq = 5;
	const int32_t tokens[9] = {1, 2, 3};
	struct wire_message lease = {.type = WIRE_LEASE, .lease = {.lease_id = 1, .model = {9, 9}, .want_score = true, .seqs = &seq, .n_seqs = 1,
	    .tokens = tokens, .context = 8, .lease_ms = 5000, .n_valid = 64}};
	struct cut_story *s = arg;

	look(&s->story);
	switch (step) {
	case 0:
	case 4:
		fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
		return FAKE_GO;
	case 1:
	case 5:
		s->back_ms = clock_now_ms();
		push(&welcome);
		return FAKE_GO;
	case 2:
		push(&lease);
		return FAKE_GO;
	case 3:
		CHECK(s->story.n_result == 1);
		fake_bus_push_event(0, 0, BUS_EVENT_DISCONNECTED);
		return FAKE_GO;
	case 6:
		s->results_at_once = s->story.n_result;
		return FAKE_GO;
	default:
		s->stop_ms = stop_requested() ? s->stop_ms : clock_now_ms();
		return clock_now_ms() - s->back_ms < IDLE_MS || stop_requested() ? FAKE_TIMEOUT : FAKE_STOP;
	}
}

/* A WELCOME whose label set has another hash than its parts and table ends the teacher before any lease. */
struct set_story {
	struct story story;
	uint8_t table[64];
	/* index of the table's byte that is changed after hashing; -1: none */
	int32_t flip;
	uint32_t seed;			/* in WELCOME; the hash is that with seed 7 */
};

static enum fake_step
label_set(void *arg, int step)
{
	struct set_story *s = arg;
	struct wire_message m = {.type = WIRE_WELCOME, .welcome = {.protocol_version = WIRE_VERSION, .boot_id = {1, 2}, .n_shards = 1,
	    .max_message = 1 << 20, .lease_ms = 5000, .corpus = {.present = true, .fingerprint = {true, {3, 4}}, .context = 8, .n_windows = 4,
	    .vocab_size = 64}, .label_set = {.present = true, .teacher = {true, {5, 6}}, .compute_class = "fp32/openblas", .kind = LABELS_KIND_SAMPLED,
	    .n = 8, .tau = 0.25f, .seed = s->seed, .version = LABELS_VERSION}}};
	struct labels_set set = {.corpus = {3, 4}, .teacher = {5, 6}, .compute_class = "fp32/openblas", .spec = {.kind = LABELS_KIND_SAMPLED,
	    .version = LABELS_VERSION, .context = 8, .vocab = 64, .n_samples = 8, .seed = 7, .tau = 0.25}};

	look(&s->story);
	if (step == 0) {
		fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
		return FAKE_GO;
	}
	if (step == 1) {
		for (size_t i = 0; i < sizeof(s->table); i++)
			s->table[i] = (uint8_t)(1 + i * 3);
		set.spec.unigram_hash = hash_bytes(s->table, sizeof(s->table));
		m.welcome.label_set.hash = (struct wire_id){true, labels_set_hash(&set)};
		if (s->flip >= 0)
			s->table[s->flip] ^= 1;
		m.welcome.unigram = (struct wire_bytes){s->table, sizeof(s->table)};
		push(&m);
		return FAKE_GO;
	}
	return FAKE_STOP;
}

/* Counts forward passes, with the linker option --wrap. */
static atomic_int n_passes;
int __real_model_forward(struct model_session *s, const int32_t *tokens, int64_t b, int64_t t);
int __wrap_model_forward(struct model_session *s, const int32_t *tokens, int64_t b, int64_t t);

int
__wrap_model_forward(struct model_session *s, const int32_t *tokens, int64_t b, int64_t t)
{
	atomic_fetch_add(&n_passes, (int)b);
	return __real_model_forward(s, tokens, b, t);
}

/* A lease for scores and labels of one model. */
struct both_story {
	struct story story;
	struct hash128 model;
	struct labels_unigram *unigram;
	bool want_score, want_label;
	int n_scores, n_labels;
};

enum { BOTH_SEQS = 3, BOTH_L = 8, BOTH_VOCAB = 37 };

static void
take_results(struct both_story *s)
{
	for (const struct fake_sent *f; (f = fake_bus_sent(s->story.seen)) != NULL; s->story.seen++) {
		struct wire_message *m = NULL;

		REQUIRE(wire_decode(f->frame, f->len, &m, NULL) == 0);
		for (size_t i = 0; m->type == WIRE_RESULT && i < m->result.n_rows; i++) {
			CHECK(m->result.rows[i].error[0] == '\0');
			s->n_scores += m->result.rows[i].scores.len == BOTH_L * LABELS_SCORE_BYTES;
			s->n_labels += m->result.rows[i].label.len > LABELS_OVERHEAD_BYTES;
		}
		wire_message_destroy(&m);
	}
}

static enum fake_step
both(void *arg, int step)
{
	static const uint64_t seqs[BOTH_SEQS] = {5, 6, 9};
	static int32_t tokens[BOTH_SEQS * (BOTH_L + 1)];
	struct both_story *s = arg;
	struct wire_label_set set = {.present = true, .teacher = {true, s->model}, .compute_class = "fp32/openblas", .kind = LABELS_KIND_SAMPLED,
	    .n = 8, .tau = 1, .seed = 7, .version = LABELS_VERSION};
	struct labels_set id = {.corpus = {3, 4}, .teacher = s->model, .compute_class = "fp32/openblas", .spec = {.kind = LABELS_KIND_SAMPLED,
	    .version = LABELS_VERSION, .context = BOTH_L, .vocab = BOTH_VOCAB, .n_samples = 8, .seed = 7, .tau = 1, .unigram = s->unigram}};
	struct wire_message m = {.type = WIRE_WELCOME, .welcome = {.protocol_version = WIRE_VERSION, .boot_id = {1, 2}, .n_shards = 1,
	    .max_message = 1 << 20, .lease_ms = 5000, .corpus = {.present = true, .fingerprint = {true, {3, 4}}, .context = BOTH_L, .n_windows = 40,
	    .vocab_size = BOTH_VOCAB}}};

	take_results(s);
	set.hash = (struct wire_id){true, labels_set_hash(&id)};
	switch (step) {
	case 0:
		fake_bus_push_event(0, 0, BUS_EVENT_CONNECTED);
		return FAKE_GO;
	case 1:
		m.welcome.label_set = set;
		m.welcome.unigram = (struct wire_bytes){labels_unigram_bytes(s->unigram), BOTH_VOCAB};
		push(&m);
		return FAKE_GO;
	case 2:
		for (int i = 0; i < BOTH_SEQS * (BOTH_L + 1); i++)
			tokens[i] = (7 * i + 1) % BOTH_VOCAB;
		m = (struct wire_message){.type = WIRE_LEASE, .lease = {.lease_id = 1, .model = s->model, .want_score = s->want_score,
		    .want_label = s->want_label, .seqs = seqs, .n_seqs = BOTH_SEQS, .tokens = tokens, .context = BOTH_L, .lease_ms = 5000,
		    .n_valid = BOTH_VOCAB}};
		if (s->want_label)
			m.lease.label_set = set;
		push(&m);
		return FAKE_GO;
	default:
		if (stop_requested())
			return FAKE_TIMEOUT;
		return s->n_scores < (s->want_score ? BOTH_SEQS : 0) || s->n_labels < (s->want_label ? BOTH_SEQS : 0) ? FAKE_AGAIN_WHEN_WOKEN : FAKE_STOP;
	}
}

struct daemon {
	struct bus *bus;
	struct bus_waker *waker;
	struct config *config;
	struct infer *infer;
	struct status *status;
};

/* The metrics at the end of the last play(). */
static struct status_snapshot last;

static double
metric(const char *name)
{
	for (size_t i = 0; i < last.n_metrics; i++)
		if (strcmp(last.metrics[i].name, name) == 0)
			return last.metrics[i].value;
	return -1;
}

/* Runs teacherd's loop with a scenario; returns its code, and its note. */
static int
play(fake_script_fn *step, void *story, struct err_note *note)
{
	static const char yaml[] = "selector: {endpoints: [\"tcp://127.0.0.1:1\"]}\n";
	struct daemon d = {.waker = bus_waker_new()};
	struct infer_options io = {.kernels = {.dtype = KERNELS_DTYPE_FP32}, .threads = 1, .notify = bus_waker_notify, .notify_arg = d.waker};
	char text[1200];
	int rc;

	fake_bus_reset(1000, step, story);
	REQUIRE(bus_new(&d.bus, &(struct bus_options){0}, NULL) == 0 && (d.status = status_new("teacherd", "t", "0", 0)) != NULL);
	REQUIRE((rc = config_load_text(yaml, sizeof(yaml) - 1, "test", ".", NULL, 0, &d.config, note)) == 0);
	REQUIRE(infer_new(&d.infer, &io, note) == 0);
	rc = infer_add_model(d.infer, "tests/golden/weights/llama", true, true, note);
	CHECK_ROW(rc == 0 ? "rc" : err_note_str(note, rc, text, sizeof(text)), rc == 0);

	struct loop_options o = {.config = d.config, .bus = d.bus, .infer = d.infer, .waker = d.waker, .status = d.status, .name = "t", .status_endpoint = ""};

	rc = loop_run(&o, note);
	status_snapshot(d.status, clock_now_ms(), &last);
	infer_destroy(&d.infer);
	config_destroy(&d.config);
	status_destroy(&d.status);
	bus_destroy(&d.bus);
	bus_waker_destroy(&d.waker);
	return rc;
}

int
main(void)
{
	static const struct {
		const char *what;
		int32_t flip;
		uint32_t seed;
		bool taken;
	} sets[] = {{"its own table", -1, 7, true}, {"second byte of the table", 1, 7, false}, {"last byte of the table", 63, 7, false},
	    {"another seed", -1, 8, false}};
	struct story story = {0};
	struct cut_story cut = {{0}};
	struct err_note note = {.name = ""};
	char text[1200];
	int rc;

	rc = play(idle, &story, &note);
	CHECK_ROW(rc == 0 ? "rc" : err_note_str(&note, rc, text, sizeof(text)), rc == 0);
	look(&story);
	CHECK(story.n_hello == 1);
	/* after one finished lease it requests two, not three */
	CHECK(story.n_credit == 2 && story.credit == 2);
	/* without PING selectord would drop this teacher */
	CHECK(story.n_ping >= 2);
	CHECK(metric("sequences_failed_total") == 1 && metric("results_sent_total") == 1 && metric("leases_in_hand") == 0);

	rc = play(cut_off, &cut, &note);
	CHECK_ROW(rc == 0 ? "rc" : err_note_str(&note, rc, text, sizeof(text)), rc == 0);
	look(&cut.story);
	CHECK(cut.results_at_once == 2);
	CHECK(cut.story.n_result == 5);				/* one before, four after the reconnect */
	CHECK(metric("results_sent_total") == 5);
	CHECK(clock_now_ms() == cut.stop_ms);			/* it ends without waiting */

	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		struct set_story s = {.flip = sets[i].flip, .seed = sets[i].seed};

		note = (struct err_note){.name = ""};
		rc = play(label_set, &s, &note);
		look(&s.story);
		CHECK_ROW(sets[i].what, rc == (sets[i].taken ? 0 : ERR_MISMATCH));
		CHECK_ROW(sets[i].what, s.story.n_credit == (sets[i].taken ? 1 : 0));
		CHECK_ROW(sets[i].what, sets[i].taken || (strcmp(note.name, "label_set.hash") == 0 && strstr(note.place, "tcp://127.0.0.1:1") != NULL));
	}
	/* Scores and labels of one model need a single forward pass. */
	static const struct {
		const char *what;
		bool score, label;
	} wants[] = {{"scores", true, false}, {"labels", false, true}, {"both", true, true}};
	uint8_t codes[BOTH_VOCAB];

	memset(codes, 3, sizeof(codes));
	for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++) {
		struct both_story s = {.want_score = wants[i].score, .want_label = wants[i].label};

		REQUIRE(weights_fingerprint("tests/golden/weights/llama", &s.model, &note) == 0);
		REQUIRE(labels_unigram_new(&s.unigram, codes, sizeof(codes), &note) == 0);
		n_passes = 0;
		rc = play(both, &s, &note);
		CHECK_ROW(rc == 0 ? wants[i].what : err_note_str(&note, rc, text, sizeof(text)), rc == 0);
		CHECK_ROW(wants[i].what, s.n_scores == (wants[i].score ? BOTH_SEQS : 0) && s.n_labels == (wants[i].label ? BOTH_SEQS : 0));
		CHECK_ROW(wants[i].what, n_passes == BOTH_SEQS);
		CHECK_ROW(wants[i].what, metric("sequences_total") == BOTH_SEQS && metric("tokens_total") == BOTH_SEQS * BOTH_L);
		CHECK_ROW(wants[i].what, metric("results_sent_total") == BOTH_SEQS && metric("sequences_failed_total") == 0);
		labels_unigram_destroy(&s.unigram);
	}
	return check_done();
}
