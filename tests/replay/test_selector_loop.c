/* SPDX-License-Identifier: Apache-2.0 */
/*
 * selectord's real loop, core, store and writer over the fake bus: a scenario in which every counter counts.
 * At its end every metric of the status socket is compared with what happened. A metric without an expected
 * value fails the test.
 */
#include "selectord/loop.h"

#include <math.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/json/json.h"
#include "check.h"
#include "replay/fake_bus.h"

enum { L = 4, VOCAB = 32, WINDOWS = 24, WINDOW = 8, LEASE_MS = 4000, N_PINGS = 120, BACKLOG = 1000 };
enum { TEACHER = 1, OTHER = 2, TRAINER = 3, CLIENT = 4, NOISE = 5, STRANGER = 6, SECOND = 7 };	/* connections */

static const struct hash128 model = {10, 10};
static char dir[64];
static bool told;				/* a frame was pushed since the loop last ran */

struct story {
	struct core_config cfg;
	struct store store;
	struct commit *commit;
	struct status *status;
	struct loop *loop;
	struct corpus *train, *heldout;
	/* the original of the store */
	int (*label)(void *arg, uint64_t seq, struct cache_bytes *out);
	bool damage;				/* the next label that is read is damaged */
	int at;					/* step of the script */
	int64_t wait_until_ms;
	size_t seen;				/* number of frames processed */
	struct wire_message *lease;		/* TEACHER's first lease of training sequences */
	uint64_t victim;			/* sequence whose holder vanishes when it is leased alone */
	bool lost, returned;
	struct hash128 plan;
	size_t label_len;
	uint64_t n_leases, n_leases_before, n_results, n_done, n_rows, n_asked, n_acks;
	struct wire_dropped dropped;
	uint64_t n_pongs, n_pongs_before;	/* of TRAINER; those before CLIENT's */
};

static void
push(uint64_t peer, const struct wire_message *m)
{
	uint8_t *frame;
	size_t len;

	REQUIRE(wire_encode(m, SIZE_MAX, &frame, &len, NULL) == 0);
	fake_bus_push(0, peer, frame, len);
	free(frame);
	told = true;
}

static void
hello(const struct story *s, uint64_t peer, enum wire_role role, const struct wire_plan *plan)
{
	struct wire_message m = {.type = WIRE_HELLO,
	    .hello = {.role = role, .boot_id = {peer, 1}, .name = "p", .max_message = 1 << 16}};

	snprintf(m.hello.name, sizeof(m.hello.name), "p%u", (unsigned)peer);
	if (role == WIRE_ROLE_TEACHER) {
		m.hello.n_models = 1;
		m.hello.models[0] = (struct wire_model){model, "fp32/x", true, true, VOCAB, 1024, {false, {0, 0}}};
	} else {
		m.hello.corpus = s->cfg.corpus;
	}
	if (peer == STRANGER)
		m.hello.corpus.fingerprint.hash.lo++;
	if (plan != NULL)
		m.hello.plan = *plan;
	push(peer, &m);
}

static void
credit(uint64_t peer)
{
	push(peer, &(struct wire_message){.type = WIRE_LEASE_REQUEST, .lease_request = {1}});
}

/* Sends a result for one sequence. Each version has another label and other scores. */
static void
result(struct story *s, uint64_t peer, const struct wire_lease *l, uint64_t seq, int version)
{
	struct wire_result_row row = {.seq = seq};
	struct wire_message m = {.type = WIRE_RESULT, .result = {l->lease_id, &row, 1}};
	int32_t window[L + 1], ids[L * 2], rank[L] = {0};
	float log_p[L * 2], loss[L];
	struct labels_buf buf = {0};
	uint8_t scores[3 * L];

	for (int t = 0; t < L; t++) {
		loss[t] = (float)(seq % 7 + (uint64_t)version);
		for (int i = 0; i < 2; i++) {
			ids[2 * t + i] = (int32_t)((seq + (uint64_t)version) % (VOCAB - 2)) + i;
			log_p[2 * t + i] = -1.0f - (float)i;
		}
	}
	REQUIRE(labels_scores_encode(loss, rank, L, scores, NULL) == 0);
	if (l->want_score)
		row.scores = (struct wire_bytes){scores, sizeof(scores)};
	if (l->want_label) {
		REQUIRE(corpus_window(s->train, seq, L, window, NULL) == 0);
		REQUIRE(labels_encode_topk(&s->store.spec, hash_tokens(window, L + 1), ids, log_p, &buf, NULL) == 0);
		row.label = (struct wire_bytes){buf.bytes, buf.len};
	}
	push(peer, &m);
	s->n_results++;
	if (l->want_label)
		s->label_len = buf.len;		/* all top-k records have the same length */
	labels_buf_free(&buf);
}

/* Sends an error for the sequence. */
static void
fail(struct story *s, uint64_t peer, uint64_t lease_id, uint64_t seq)
{
	struct wire_result_row row = {.seq = seq, .error = "not finite"};

	push(peer, &(struct wire_message){.type = WIRE_RESULT, .result = {lease_id, &row, 1}});
	s->n_results++;
}

/*
 * Answers a lease at once, with these exceptions: TEACHER's first lease waits, OTHER's first one is returned,
 * and the first holder of the victim alone vanishes. After TEACHER, OTHER fails on a sequence too.
 */
static void
take_lease(struct story *s, uint64_t peer, struct wire_message *m)
{
	const struct wire_lease *l = &m->lease;

	s->n_leases++;
	if (s->lease == NULL && CORPUS_SEQ_NO(l->seqs[0]) == CORPUS_TRAIN) {
		CHECK(peer == TEACHER);
		s->lease = m;
		return;
	}
	if (peer == OTHER && !s->returned) {
		push(peer, &(struct wire_message){.type = WIRE_LEASE_RETURN, .lease_return = {l->lease_id}});
		s->returned = true;
	} else if (l->n_seqs == 1 && l->seqs[0] == s->victim && !s->lost) {
		s->lost = true;
	} else {
		for (size_t i = 0; i < l->n_seqs; i++)
			if (peer == OTHER && l->seqs[i] == s->lease->lease.seqs[1])
				fail(s, peer, l->lease_id, l->seqs[i]);
			else
				result(s, peer, l, l->seqs[i], 0);
	}
	wire_message_destroy(&m);
}

static void
look(struct story *s)
{
	for (const struct fake_sent *f; (f = fake_bus_sent(s->seen)) != NULL; s->seen++) {
		struct wire_message *m = NULL;

		if (f->ended)
			continue;
		REQUIRE(wire_decode(f->frame, f->len, &m, NULL) == 0);
		if (m->type == WIRE_LEASE) {
			take_lease(s, f->peer, m);
			continue;
		}
		if (m->type == WIRE_WELCOME && f->peer == TRAINER)
			s->plan = m->welcome.plan_hash.hash;
		if (m->type == WIRE_DONE)
			s->n_done += m->done.n_seqs;
		if (m->type == WIRE_ROWS)
			s->n_rows += m->rows.n_rows;
		if (m->type == WIRE_DROPPED)
			s->dropped = m->dropped;
		s->n_acks += m->type == WIRE_ACK;
		if (m->type == WIRE_PONG && f->peer == TRAINER)
			s->n_pongs++;
		if (m->type == WIRE_PONG && f->peer == CLIENT)
			s->n_pongs_before = s->n_pongs;
		wire_message_destroy(&m);
	}
}

static int
maybe_damaged(void *arg, uint64_t seq, struct cache_bytes *out)
{
	struct story *s = (struct story *)(void *)((char *)arg - offsetof(struct story, store));

	if (!s->damage)
		return s->label(arg, seq, out);
	s->damage = false;
	return ERR_CORRUPT;
}

static double
metric(const struct status_snapshot *snap, const char *name)
{
	for (size_t i = 0; i < snap->n_metrics; i++)
		if (strcmp(snap->metrics[i].name, name) == 0)
			return snap->metrics[i].value;
	return NAN;
}

/* Checks metrics while the first lease and the row request are open. */
static void
check_middle(struct story *s)
{
	static struct status_snapshot snap;

	status_snapshot(s->status, clock_now_ms(), &snap);
	CHECK(metric(&snap, "leases") == 1 && metric(&snap, "sequences_leased") == 2);
	CHECK(metric(&snap, "row_requests_waiting") == 1 && metric(&snap, "rows_asked") == 4);
	CHECK(metric(&snap, "rows_ready") == 0 && metric(&snap, "plans_released") == 0 &&
	    metric(&snap, "plans") == 1);
}

static void
check_end(struct story *s)
{
	static struct status_snapshot snap;
	enum { N = 2 * WINDOW - 1 };		/* two blocks without the sequence in quarantine */
	const struct { const char *name; double want; } all[] = {
		{"rows_ahead", 0}, {"leases", 0}, {"sequences_leased", 0}, {"row_requests_waiting", 0}, {"records_pending", 0}, {"pending_bytes", 0},
		{"labels_total", N}, {"scores_total", N + 1},		/* with the held-out sequence */
		{"rows_sent_total", 4}, {"label_bytes_total", (double)(N * s->label_len)},
		{"leases_granted_total", (double)s->n_leases}, {"leases_expired_total", 2}, {"leases_returned_total", 1},
		{"row_requests_total", 1}, {"blocks_written_total", 3}, {"duplicates_total", 3}, {"differed_total", 3}, {"bad_results_total", 1},
		{"bad_messages_total", 2}, {"refused_total", 1}, {"holders_lost_total", 1}, {"sequence_errors_total", 2}, {"teachers_sent_away_total", 0}, {"no_memory_total", 0},
		{"damaged_records_total", 1}, {"labels_dropped_total", WINDOW}, {"commits_total", (double)commit_state(s->commit).n_commits},
		{"unsent_total", 1}, {"labels_unread_total", N + 3}, {"quarantined", 1}, {"peers", 3}, {"teachers", 0}, {"trainers", 2},
		{"plans", 2}, {"plans_released", 1}, {"blocks_active", 1}, {"rows_ready", 0}, {"rows_asked", 0},
		{"heldout_loss_nats", (double)(CORPUS_SEQ_MAKE(CORPUS_HELDOUT, 0) % 7)},
	};
	struct json *root;
	struct wire_peer peers[8];

	status_snapshot(s->status, clock_now_ms(), &snap);
	CHECK(snap.n_metrics == sizeof(all) / sizeof(all[0]) + 2);	/* a new metric needs a line here */
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		CHECK_ROW(all[i].name, metric(&snap, all[i].name) == all[i].want);
		if (metric(&snap, all[i].name) != all[i].want)
			fprintf(stderr, "  %g, expected %g\n", metric(&snap, all[i].name), all[i].want);
	}
	CHECK(metric(&snap, "cache_map_ratio") > 0 && metric(&snap, "cache_map_ratio") < 1);
	CHECK(metric(&snap, "cache_disk_free_ratio") > 0 && metric(&snap, "cache_disk_free_ratio") <= 1);
	CHECK(metric(&snap, "commits_total") >= 3);
	CHECK(s->n_pongs == N_PINGS && s->n_pongs_before > 0 && s->n_pongs_before < N_PINGS / 2);
	CHECK(s->n_rows == 4 && s->lost && s->returned);
	/* 1 damaged, 1 in quarantine */
	CHECK(s->dropped.labels == WINDOW && s->dropped.kept == WINDOW - 2);
	CHECK(loop_peers(s->loop, peers, 8) == 3 && loop_peers(s->loop, peers, 2) == 2);
	REQUIRE((root = json_new_object()) != NULL);
	loop_members(s->loop, root);
	CHECK(json_count(json_get(root, "plans")) == 2);
	CHECK(json_get(json_item(json_get(root, "plans"), 0), "scores") == NULL);
	CHECK(json_get(json_item(json_get(root, "plans"), 1), "scores") != NULL);
	json_close(&root);
}

static enum fake_step
script(void *arg, int step)
{
	struct wire_plan plan = {.present = true,
	    .seed = 1,
	    .batch = 4,
	    .mode = WIRE_MODE_SALT_DS,
	    .k = 10,
	    .window = WINDOW,
	    .keep = 0.5,
	    .n_rows = WINDOW,
	    .label_ahead_rows = UINT64_MAX};
	struct story *s = arg;
	struct wire_result_row row = {0};
	struct wire_message bad = {.type = WIRE_RESULT, .result = {0, &row, 1}};
	static struct status_snapshot snap;

	(void)step;
	look(s);
	if (told) {
		told = false;
		return FAKE_GO;
	}
	if (s->n_done < s->n_results || s->n_acks < s->n_asked)
		return FAKE_AGAIN_WHEN_WOKEN;
	if (stop_requested() || clock_now_ms() < s->wait_until_ms)
		return FAKE_TIMEOUT;
	switch (s->at++) {
	case 0:
		hello(s, TRAINER, WIRE_ROLE_TRAINER, &plan);
		hello(s, TEACHER, WIRE_ROLE_TEACHER, NULL);
		hello(s, OTHER, WIRE_ROLE_TEACHER, NULL);
		credit(TEACHER);			/* for the held-out sequence */
		break;
	case 1:
		credit(TEACHER);
		break;
	case 2:
		REQUIRE(s->lease != NULL && s->lease->lease.n_seqs == 4);
		s->victim = s->lease->lease.seqs[2];
		credit(OTHER);
		result(s, TEACHER, &s->lease->lease, s->lease->lease.seqs[0], 0);
		/* differs; the first result may not be on disk yet */
		result(s, TEACHER, &s->lease->lease, s->lease->lease.seqs[0], 1);
		break;
	case 3:
		/* the first one differs from the result on disk, the second does not */
		result(s, TEACHER, &s->lease->lease, s->lease->lease.seqs[0], 1);
		result(s, TEACHER, &s->lease->lease, s->lease->lease.seqs[0], 0);
		fail(s, TEACHER, s->lease->lease.lease_id, s->lease->lease.seqs[1]);
		bad.result.lease_id = s->lease->lease.lease_id;
		row = (struct wire_result_row){.seq = s->victim,
		    .scores = {(const uint8_t *)"x", 1},
		    .label = {(const uint8_t *)"x", 1}};
		push(TEACHER, &bad);
		fake_bus_push(0, NOISE, "noise", 5);
		credit(TRAINER);			/* not allowed: only for teachers */
		hello(s, STRANGER, WIRE_ROLE_TRAINER, NULL);
		push(TRAINER,
		    &(struct wire_message){.type = WIRE_ROWS_REQUEST, .rows_request = {7, s->plan, 0, 4, 0}});
		fake_bus_send_rc(0, OTHER, ERR_AGAIN);
		push(OTHER, &(struct wire_message){.type = WIRE_PING});
		break;
	case 4:
		fake_bus_send_rc(0, OTHER, 0);
		s->wait_until_ms = clock_now_ms() + LEASE_MS / 2;
		break;
	case 5:
		check_middle(s);
		/* more than is read in a turn; after it the message that renews TEACHER's lease */
		for (int i = 0; i < BACKLOG; i++)
			push(OTHER, &(struct wire_message){.type = WIRE_PING});
		push(TEACHER, &(struct wire_message){.type = WIRE_LEASE_RENEW, .lease_renew = {s->lease->lease.lease_id, 1}});
		fake_bus_advance(LEASE_MS / 2 + 100);
		s->wait_until_ms = clock_now_ms() + 1200;
		break;
	case 6:
		status_snapshot(s->status, clock_now_ms(), &snap);
		CHECK(metric(&snap, "leases") == 1 && metric(&snap, "leases_expired_total") == 0);
		s->wait_until_ms = clock_now_ms() + LEASE_MS + 500;		/* TEACHER's lease expires */
		break;
	case 7:
		s->n_leases_before = s->n_leases;
		credit(OTHER);
		credit(TEACHER);
		/* The ACK comes when all records are on disk: the test's clock must wait for the writer. */
		push(TRAINER, &(struct wire_message){.type = WIRE_CHECKPOINTED, .checkpointed = {8, s->plan, 0}});
		s->n_asked++;
		break;
	case 8:
		status_snapshot(s->status, clock_now_ms(), &snap);
		if (metric(&snap, "rows_ready") == WINDOW)
			break;
		if (s->n_leases == s->n_leases_before)
			s->wait_until_ms = clock_now_ms() + 500;
		s->at = 7;
		break;
	case 9:
		push(OTHER, &(struct wire_message){.type = WIRE_BYE});
		push(TEACHER, &(struct wire_message){.type = WIRE_BYE});
		break;
	case 10:
		s->damage = true;
		plan.mode = WIRE_MODE_NONE;		/* the sequences of the other plan's first block */
		hello(s, SECOND, WIRE_ROLE_TRAINER, &plan);
		push(TRAINER, &(struct wire_message){.type = WIRE_RELEASE, .release = {9, s->plan, 2}});
		s->n_asked++;
		break;
	case 11:
		hello(s, CLIENT, WIRE_ROLE_CLIENT, NULL);
		push(CLIENT, &(struct wire_message){.type = WIRE_DROP_LABELS, .drop_labels = {10, true}});
		break;
	case 12:
		if (s->dropped.request_id != 10) {
			s->at--;
			return FAKE_AGAIN_WHEN_WOKEN;
		}
		/* more than a peer's share of a turn, followed by a frame of another peer */
		for (int i = 0; i < N_PINGS; i++)
			push(TRAINER, &(struct wire_message){.type = WIRE_PING});
		push(CLIENT, &(struct wire_message){.type = WIRE_PING});
		s->wait_until_ms = clock_now_ms() + 2500;
		break;
	default:
		check_end(s);
		return FAKE_STOP;
	}
	told = false;
	return FAKE_GO;
}

static struct corpus *
make_corpus(const char *name, uint32_t number, size_t n_tokens)
{
	struct corpus_writer_options o = {.vocab = VOCAB, .eod = 0, .tokenizer = {1, 2}};
	struct corpus_writer *w;
	struct corpus *c;
	char prefix[100];
	int32_t ids[WINDOWS * L];

	REQUIRE(n_tokens <= sizeof(ids) / sizeof(ids[0]));
	for (size_t i = 0; i < n_tokens; i++)
		ids[i] = (int32_t)(1 + (i * 7 + number) % (VOCAB - 1));
	snprintf(prefix, sizeof(prefix), "%s/%s", dir, name);
	REQUIRE(corpus_writer_new(&w, prefix, &o, NULL) == 0);
	/* adds an end-of-document token */
	REQUIRE(corpus_writer_document(w, ids, n_tokens, n_tokens, NULL) == 0);
	REQUIRE(corpus_writer_finish(w, NULL, NULL) == 0);
	corpus_writer_destroy(&w);
	REQUIRE(corpus_open(&c, prefix, NULL) == 0);
	corpus_set_number(c, number);
	return c;
}

/* The store accepts a label only if it matches the label set, also without time for full checks. */
static void
check_labels(struct story *s)
{
	struct labels_spec other[] = {
	    s->store.spec, s->store.spec, s->store.spec, s->store.spec, s->store.spec, s->store.spec};
	int64_t spent_ns = s->store.spent_ns;
	int32_t window[L + 1], ids[L * VOCAB] = {0};
	float log_p[L * VOCAB] = {0};
	struct labels_buf buf = {0};
	struct err_note note;

	other[1].vocab++;
	other[2].k--;
	other[3].set.lo++;
	other[4].kind = LABELS_KIND_DENSE;
	for (int t = 0; t < L; t++)
		for (int i = 0; i < 2; i++) {
			ids[2 * t + i] = i;
			log_p[2 * t + i] = -1.0f - (float)i;
		}
	for (int full = 0; full < 2; full++)
		for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
			/* the last one has the tokens of another sequence */
			uint64_t seq = i == 5 ? 8 : 7;

			s->store.spent_ns = full ? 0 : spent_ns;
			REQUIRE(corpus_window(s->train, seq, L, window, NULL) == 0);
			if (other[i].kind == LABELS_KIND_DENSE) {
				for (size_t v = 0; v < L * VOCAB; v++)
					log_p[v] = -3.4657359f;		/* 1 / 32 */
				REQUIRE(labels_encode_dense(&other[i], hash_tokens(window, L + 1), log_p,
				    &buf, NULL) == 0);
			} else {
				for (size_t v = 0; v < L * other[i].k; v++) {
					ids[v] = (int32_t)(v % other[i].k);
					log_p[v] = -1.0f - (float)ids[v];
				}
				REQUIRE(labels_encode_topk(&other[i], hash_tokens(window, L + 1), ids, log_p,
					    &buf, NULL) == 0);
			}
			CHECK((s->store.ask.check_label(&s->store, 7, buf.bytes, buf.len, &note) == 0) == (i == 0));
		}
	labels_buf_free(&buf);
	s->store.spent_ns = spent_ns;
	s->store.n_unread = 0;
	atomic_store(&s->store.n_unread_total, 0);
}

static int
check_quarantine(void *arg, const struct cache_quarantine *q)
{
	const struct story *s = arg;

	CHECK(q->seq == s->lease->lease.seqs[1] && q->since_s > 1700000000 &&
	    strstr(q->reason, "not finite") != NULL);
	return 0;
}

static void
wake(void *arg)
{
	bus_waker_wake(arg);
}

int
main(void)
{
	static struct story s;
	struct labels_spec spec = {.kind = LABELS_KIND_TOPK,
	    .version = LABELS_VERSION,
	    .context = L,
	    .vocab = VOCAB,
	    .k = 2,
	    .tau = 1,
	    .set = {3, 3}};
	struct loop_parts p = {.waker = bus_waker_new(), .max_message = 1 << 16};
	char made[] = "/tmp/salt-selector-XXXXXX", path[100], cmd[100];
	/* DROP_LABELS keeps such a label */
	const uint64_t unselected = CORPUS_SEQ_MAKE(CORPUS_HELDOUT, 5);
	struct cache_txn *txn = NULL;
	struct core_op *op;

	REQUIRE(mkdtemp(made) != NULL);
	snprintf(dir, sizeof(dir), "%s", made);
	s.train = make_corpus("train", CORPUS_TRAIN, WINDOWS * L);
	s.heldout = make_corpus("held", CORPUS_HELDOUT, L);
	REQUIRE(corpus_n_windows(s.train, L) == WINDOWS && corpus_n_windows(s.heldout, L) == 1);
	s.cfg = (struct core_config){
	    .boot_id = {9, 9},
	    .n_shards = 1,
	    .max_message = 1 << 16,
	    .lease_rows = 4,
	    .lease_ms = LEASE_MS,
	    .n_valid = VOCAB,
	    .record_max = 200,
	    .quarantine_teachers = 2,
	    .max_quarantined = 1,
	    .n_heldout = 1,
	    .keep_unselected = true,
	    .corpus = {true, {true, {1, 1}}, L, WINDOWS, {false, {0, 0}}, VOCAB},
	    .heldout = {true, {true, {1, 2}}, L, 1, {false, {0, 0}}, VOCAB},
	    .label_set = {true, {true, spec.set}, {true, model}, "fp32/x", LABELS_KIND_TOPK, 2, 1.0f, 0,
		LABELS_VERSION},
	    .score_set = {true, {true, {4, 4}}, {true, model}, "fp32/x", 1},
	};
	fake_bus_reset(1000, script, &s);
	snprintf(path, sizeof(path), "%s/cache", dir);
	REQUIRE(bus_new(&p.bus, &(struct bus_options){0}, NULL) == 0 &&
	    bus_server_new(&p.server, p.bus, "tcp://127.0.0.1:1", NULL) == 0);
	REQUIRE((p.status = s.status = status_new("selectord", "selectord", "0", 0)) != NULL);
	REQUIRE(cache_open(&p.cache, path, CACHE_WRITE, 64 << 20, NULL) == 0);
	REQUIRE(store_init(&s.store, p.cache, s.train, s.heldout, &spec) == 0);
	s.store.window_ns = INT64_MAX / 2;		/* as if the time for full checks were used up */
	s.store.spent_ns = INT64_MAX / 2;
	check_labels(&s);
	s.label = s.store.ask.label;
	s.store.ask.label = maybe_damaged;
	p.store = &s.store;
	REQUIRE(core_new(&p.core, &s.cfg, &s.store.ask, NULL) == 0);
	store_end(&s.store);
	/*
	 * A record whose difference only the writer can detect, which is counted too; and a label that is
	 * dropped with the rows of a block.
	 */
	REQUIRE(cache_write_begin(p.cache) == 0 &&
	    cache_write_scores(p.cache, CACHE_SCORES_TEACHER, 99, "abc", 3, NULL) == 0);
	REQUIRE(cache_write_labels(p.cache, unselected, "label", 5, NULL) == 0);
	REQUIRE(cache_write_commit(p.cache) == 0 && commit_new(&p.commit, p.cache, 1, 64, wake, p.waker) == 0);
	REQUIRE((op = calloc(1, sizeof(*op))) != NULL);
	*op = (struct core_op){.kind = CORE_OP_RESULT,
	    .seq = 99,
	    .set = CACHE_SCORES_TEACHER,
	    .scores = (const uint8_t *)"abd",
	    .scores_len = 3};
	commit_submit(p.commit, op);
	REQUIRE((op = calloc(1, sizeof(*op))) != NULL && (op->rows = calloc(1, sizeof(*op->rows))) != NULL);
	REQUIRE((op->drops = malloc(sizeof(*op->drops))) != NULL);
	op->kind = CORE_OP_ROWS;
	op->plan_hash = (struct hash128){7, 7};
	op->n_rows = op->n_drops = 1;
	op->drops[0] = unselected;
	commit_submit(p.commit, op);
	s.commit = p.commit;
	REQUIRE(loop_new(&s.loop, &p) == 0);
	CHECK(loop_run(s.loop, NULL) == 0);
	CHECK(s.at == 14);				/* the script was completed */
	REQUIRE(cache_txn_begin(p.cache, &txn) == 0 && cache_quarantine_each(txn, check_quarantine, &s) == 0);
	CHECK(cache_labels_has(txn, unselected) == ERR_NOT_FOUND);
	cache_txn_end(&txn);
	loop_destroy(&s.loop);
	commit_destroy(&p.commit);
	core_destroy(&p.core);
	store_free(&s.store);
	cache_destroy(&p.cache);
	status_destroy(&p.status);
	bus_server_destroy(&p.server);
	bus_destroy(&p.bus);
	bus_waker_destroy(&p.waker);
	corpus_destroy(&s.train);
	corpus_destroy(&s.heldout);
	wire_message_destroy(&s.lease);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	CHECK(system(cmd) == 0);
	return check_done();
}
