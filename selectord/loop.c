/* SPDX-License-Identifier: Apache-2.0 */
#include "selectord/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/err/crash.h"
#include "base/json/json.h"
#include "base/log/log.h"
#include "fabric/daemon/daemon.h"
#include "fabric/wire/status_answer.h"
#include "fabric/wire/wire.h"

#define TICK_MS 100
#define COST_NS 250000			/* loop time of one unit of cost; a frame costs at least one */
#define HELD_BYTES (16u << 20)
#define DRAIN_MS 10000
#define LATE_MS 3000			/* if a turn of the loop is so late, the process or the machine was
					   stopped */
#define CATCH_UP_MS 2000
#define BEHIND_MS 10000			/* while received frames are not all handled, no lease expires for
					   this time: a renewal may be among them */
#define ROSTER_MAX 1024
#define TRIM_BYTES (1 << 20)
#define KEEP_BYTES (64 << 20)		/* freed memory that malloc keeps, because records come and go all the time */

/* A frame that may be sent when record `after` is on the disk. */
struct parked {
	uint64_t peer, after;
	uint8_t *frame;
	size_t len;
	bool end;
	TAILQ_ENTRY(parked) link;
};

/* All numbers that become metrics. */
struct numbers {
	struct core_stats core;
	uint64_t rows_ahead, n_differed, n_bad_messages, n_commits, n_unsent, n_unread;
	double heldout_loss, map_ratio, disk_free;
};

#define COUNT(field) offsetof(struct numbers, field), false
#define RATIO(field) offsetof(struct numbers, field), true

static const struct {
	enum status_kind kind;
	const char *name, *unit, *help;
	size_t at;
	bool real;				/* double, else uint64_t */
} metrics[] = {
	{STATUS_QUEUE, "rows_ahead", "rows", "rows ready beyond the highest row requested, newest plan",
	    COUNT(rows_ahead)},
	{STATUS_QUEUE, "leases", "", "leases that teachers hold", COUNT(core.n_leases)},
	{STATUS_QUEUE, "sequences_leased", "sequences", "leased sequences without a result",
	    COUNT(core.n_seqs_leased)},
	{STATUS_QUEUE, "row_requests_waiting", "", "row requests that wait for labels", COUNT(core.n_waiting)},
	{STATUS_QUEUE, "records_pending", "", "records not yet on disk", COUNT(core.n_ops_pending)},
	{STATUS_QUEUE, "pending_bytes", "bytes", "bytes of the records not yet on disk",
	    COUNT(core.pending_bytes)},
	{STATUS_RATED, "labels_total", "sequences", "labels accepted", COUNT(core.n_labels)},
	{STATUS_RATED, "scores_total", "sequences", "scores accepted", COUNT(core.n_scores)},
	{STATUS_RATED, "rows_sent_total", "rows", "rows sent to trainers", COUNT(core.n_rows_sent)},
	{STATUS_COUNTER, "label_bytes_total", "bytes", "bytes of labels accepted", COUNT(core.n_label_bytes)},
	{STATUS_COUNTER, "leases_granted_total", "", "leases granted", COUNT(core.n_leases_granted)},
	{STATUS_COUNTER, "leases_expired_total", "", "leases whose holder disconnected or made no progress",
	    COUNT(core.n_leases_expired)},
	{STATUS_COUNTER, "leases_returned_total", "", "leases returned", COUNT(core.n_leases_returned)},
	{STATUS_COUNTER, "row_requests_total", "", "row requests, including repeats",
	    COUNT(core.n_row_requests)},
	{STATUS_COUNTER, "blocks_written_total", "", "blocks whose rows were chosen and written", COUNT(core.n_blocks_written)},
	{STATUS_COUNTER, "duplicates_total", "sequences", "results for sequences with a known result",
	    COUNT(core.n_duplicates)},
	{STATUS_COUNTER, "differed_total", "sequences", "results that differ from the known one",
	    COUNT(n_differed)},
	{STATUS_COUNTER, "bad_results_total", "sequences", "results that were dropped as wrong", COUNT(core.n_bad_results)},
	{STATUS_COUNTER, "bad_messages_total", "", "messages that were dropped as wrong", COUNT(n_bad_messages)},
	{STATUS_COUNTER, "refused_total", "", "peers refused", COUNT(core.n_refused)},
	{STATUS_COUNTER, "holders_lost_total", "",
	    "teachers lost while they held a lease of a single sequence",
	    COUNT(core.n_dead)},
	{STATUS_COUNTER, "sequence_errors_total", "", "errors that teachers reported for a sequence", COUNT(core.n_errors)},
	{STATUS_COUNTER, "teachers_sent_away_total", "",
	    "teachers disconnected for too many errors or wrong results",
	    COUNT(core.n_away)},
	{STATUS_COUNTER, "no_memory_total", "",
	    "times that there was not enough memory for a peer or its plan",
	    COUNT(core.n_no_memory)},
	{STATUS_COUNTER, "damaged_records_total", "", "damaged records found in the cache", COUNT(core.n_corrupt)},
	{STATUS_COUNTER, "labels_dropped_total", "sequences", "labels dropped at the request of a client",
	    COUNT(core.n_dropped)},
	{STATUS_COUNTER, "commits_total", "", "commits", COUNT(n_commits)},
	{STATUS_COUNTER, "unsent_total", "", "messages dropped because the peer's queue was full or it was gone", COUNT(n_unsent)},
	{STATUS_COUNTER, "labels_unread_total", "sequences",
	    "labels that arrived too fast to check their label rows; checksum and header were checked",
	    COUNT(n_unread)},
	{STATUS_GAUGE, "quarantined", "sequences", "sequences in quarantine", COUNT(core.n_quarantined)},
	{STATUS_GAUGE, "peers", "", "connected peers", COUNT(core.n_peers)},
	{STATUS_GAUGE, "teachers", "", "connected teachers", COUNT(core.n_teachers)},
	{STATUS_GAUGE, "trainers", "", "connected trainer ranks", COUNT(core.n_trainers)},
	{STATUS_GAUGE, "plans", "", "plans opened", COUNT(core.n_plans)},
	{STATUS_GAUGE, "plans_released", "", "released plans", COUNT(core.n_plans_released)},
	{STATUS_GAUGE, "blocks_active", "", "blocks being scanned, scored or labelled", COUNT(core.n_blocks_active)},
	{STATUS_GAUGE, "rows_ready", "rows", "rows that can be served, from row 0 without a gap, newest plan", COUNT(core.rows_ready)},
	{STATUS_GAUGE, "rows_asked", "rows", "end of the rows requested, newest plan",
	    COUNT(core.rows_asked)},
	{STATUS_GAUGE, "heldout_loss_nats", "nats",
	    "the teacher's mean loss on the held-out sequences; 0 while unknown",
	    RATIO(heldout_loss)},
	{STATUS_GAUGE, "cache_map_ratio", "", "share of the cache's map in use", RATIO(map_ratio)},
	{STATUS_GAUGE, "cache_disk_free_ratio", "", "share of the cache's file system that is free", RATIO(disk_free)},
};

_Static_assert(sizeof(size_t) == sizeof(uint64_t), "counts of core_stats are read as uint64_t");
enum { N_METRICS = sizeof(metrics) / sizeof(metrics[0]) };

/* Events that peers can cause: at most so many lines of each are logged in LIMIT_MS. */
static const struct {
	const char *name;
	uint64_t max;
} limited[] = {
	{"frame.bad", 20}, {"message.refused", 20}, {"peer.refused", 20}, {"peer.wrong_role", 20}, {"result.bad", 20},
	{"result.differs", 20}, {"seq.error", 50}, {"plan.opened", 100}, {"plan.retired", 100}, {"peer.welcome", 1000},
	{"peer.lost", 1000}, {"peer.bye", 1000}, {"memory", 5},
};

/*
 * Limits: frames received in one turn of the loop; cost of one peer in it; frames that wait for the next
 * turn.
 */
enum { TURN_FRAMES = 256, TURN_COST = 32, HELD_FRAMES = 512, COSTS = 1024 };

/* A frame that waits for the next turn, because its peer has used up its share of this one. */
struct held {
	struct bus_event event;
	TAILQ_ENTRY(held) link;
};

enum { N_LIMITED = sizeof(limited) / sizeof(limited[0]), LIMIT_MS = 10000, NO_MEMORY_MS = 5000 };

struct loop {
	struct loop_parts p;
	struct bus_poll *poll;
	TAILQ_HEAD(parked_list, parked) parked;	/* by after */
	TAILQ_HEAD(held_list, held) held;	/* in the order received */
	size_t n_held, held_bytes;
	struct { uint64_t peer; uint32_t cost; } costs[COSTS];	/* of this turn; by peer */
	uint64_t durable, submitted, n_unsent, n_bad_frames;
	struct status_metric *metric[N_METRICS];
	bool draining;
	bool ready;				/* the first turn of the loop is done */
	int64_t turned_ms, caught_up_ms;	/* the last turn of the loop; no lease expires before
						   caught_up_ms */
	bool all_read;				/* all received frames were handled in this turn */
	int64_t behind_ms;			/* since when all_read is false, or the last tick */
	int64_t next_tick_ms, next_second_ms, next_readers_ms, next_limit_ms;
	uint64_t n_logged[N_LIMITED];		/* since then */
	uint64_t most_pending;			/* largest pending_bytes since memory was last returned to the
						   kernel */
	pthread_mutex_t lock;			/* for what the status thread reads: */
	struct wire_peer roster[ROSTER_MAX];
	struct core_plan_stats plans[CORE_PLANS_MAX];
	size_t n_roster, n_plans;
	int64_t roster_ms;			/* when the two were last updated */
	struct numbers numbers;
};

static void
metrics_update(struct loop *l, int64_t now_ms)
{
	struct numbers *v = &l->numbers;
	const struct core_stats *s = &v->core;
	struct commit_state commit = commit_state(l->p.commit);
	const char *state;
	char text[256];

	core_stats(l->p.core, &v->core);
	v->rows_ahead = s->rows_ready > s->rows_asked ? s->rows_ready - s->rows_asked : 0;
	v->n_differed = s->n_differed + commit.n_differed;
	v->n_bad_messages = s->n_bad_messages + l->n_bad_frames;
	v->n_commits = commit.n_commits;
	v->n_unsent = l->n_unsent;
	v->n_unread = atomic_load(&l->p.store->n_unread_total);
	v->heldout_loss = isnan(s->heldout_loss_nats) ? 0 : s->heldout_loss_nats;
	cache_room(l->p.cache, &v->map_ratio);
	v->disk_free = cache_disk_free(l->p.cache);
	for (size_t i = 0; i < N_METRICS; i++) {
		const void *at = (const char *)v + metrics[i].at;
		uint64_t n = metrics[i].real ? 0 : *(const uint64_t *)at;

		if (metrics[i].kind == STATUS_COUNTER || metrics[i].kind == STATUS_RATED)
			status_add(l->metric[i], n - (uint64_t)status_get(l->metric[i]));
		else
			status_set(l->metric[i], metrics[i].real ? *(const double *)at : (double)n);
	}
	if (l->draining)
		state = "draining";
	else if (commit.waiting != 0 || s->no_room)
		state = "disk full";
	else if (s->n_plans == 0)
		state = "waiting for a plan";
	else if (s->n_plans == s->n_plans_released)
		state = "released";
	else if (s->n_plans_wanted == 0)
		state = "waiting for a trainer";
	else if (s->starved[0] != '\0')
		state = "waiting for teachers";
	else if (s->n_blocks_active > 0)
		state = "labelling";
	else
		state = "ahead";
	status_state(l->p.status, state, now_ms);
	status_step(l->p.status, s->rows_ready, s->rows_total);
	if (commit.waiting != 0 || s->no_room) {
		snprintf(text, sizeof(text),
		    "no space in the cache: %s; no leases and no acknowledgements until there is space",
		    err_str(commit.waiting != 0 ? commit.waiting : ENOSPC));
		status_error(l->p.status, text);
	} else if (s->starved[0] != '\0' && !l->draining) {
		status_error(l->p.status, s->starved);
	} else if (s->failing[0] != '\0' && !l->draining) {
		status_error(l->p.status, s->failing);
	} else {
		status_error(l->p.status, "");		/* the last line of the log is shown */
	}
	daemon_notify_status("%s: %zu teachers, %zu trainer ranks, %" PRIu64 " of %" PRIu64 " rows ready",
	    state, s->n_teachers, s->n_trainers, s->rows_ready, s->rows_total);
	pthread_mutex_lock(&l->lock);
	l->roster_ms = now_ms;
	l->n_roster = core_peers(l->p.core, l->roster, ROSTER_MAX, now_ms);
	l->n_plans = core_plan_stats(l->p.core, l->plans, CORE_PLANS_MAX);
	pthread_mutex_unlock(&l->lock);
}

/*
 * The histogram of scores up to the last bin that is not empty; NULL for a plan that chooses without scores.
 */
static struct json *
scores_json(const struct core_scores *s)
{
	struct json *scored = json_new_array(), *kept = json_new_array();
	size_t n = CORE_SCORE_BINS;

	while (n > 0 && s->scored[n - 1] == 0)
		n--;
	for (size_t i = 0; i < n; i++) {
		json_push(scored, json_new_int((int64_t)s->scored[i]));
		json_push(kept, json_new_int((int64_t)s->kept[i]));
	}
	if (n > 0)
		return json_build("{s:f, s:o, s:o}", "bin_nats", CORE_SCORE_BIN_NATS, "sequences", scored,
		    "kept", kept);
	json_close(&scored);
	json_close(&kept);
	return NULL;
}

void
loop_members(void *arg, struct json *answer)
{
	struct loop *l = arg;
	struct json *list = json_new_array(), *scores;
	char hex[HASH_HEX_BYTES];

	if (list == NULL)
		return;
	pthread_mutex_lock(&l->lock);
	for (size_t i = 0; i < l->n_plans && i < CORE_PLANS_MAX; i++) {
		const struct core_plan_stats *p = &l->plans[i];
		struct json *o = json_build("{s:s, s:I, s:I, s:I, s:I, s:b}", "plan", hash_hex(p->hash, hex),
		    "rows", (long long)p->n_rows, "rows_ready", (long long)p->rows_ready, "rows_asked",
		    (long long)p->rows_asked, "blocks_active", (long long)p->n_blocks_active, "released",
		    p->released);

		if ((scores = scores_json(&p->scores)) != NULL)
			json_put(o, "scores", scores);
		json_push(list, o);
	}
	pthread_mutex_unlock(&l->lock);
	json_put(answer, "plans", list);
}

size_t
loop_peers(void *arg, struct wire_peer *peers, size_t max)
{
	struct loop *l = arg;
	double since_s;
	size_t n;

	pthread_mutex_lock(&l->lock);
	since_s = (double)(clock_now_ms() - l->roster_ms) / 1000;
	n = l->n_roster < max ? l->n_roster : max;
	memcpy(peers, l->roster, n * sizeof(*peers));
	pthread_mutex_unlock(&l->lock);
	for (size_t i = 0; i < n; i++)
		peers[i].age_s += since_s;
	return n;
}

/* ---- sending ---- */

static void
send_frame(struct loop *l, uint64_t peer, uint8_t *frame, size_t len, bool end)
{
	int rc = bus_server_send(l->p.server, peer, frame, len);

	if (rc != 0)
		l->n_unsent++;
	if (end)
		bus_server_end(l->p.server, peer);
}

static void
send_parked(struct loop *l)
{
	struct parked *p;

	while ((p = TAILQ_FIRST(&l->parked)) != NULL && p->after <= l->durable) {
		TAILQ_REMOVE(&l->parked, p, link);
		crash_point("loop.acknowledge");
		send_frame(l, p->peer, p->frame, p->len, p->end);
		free(p);
	}
}

/*
 * Keeps a frame until record `after` is on the disk. Most arrive in that order, so its position is searched
 * from the end.
 */
static void
park(struct loop *l, const struct core_message *m, uint8_t *frame, size_t len)
{
	struct parked *p = calloc(1, sizeof(*p)), *before;

	if (p == NULL) {			/* the peer will ask again */
		l->n_unsent++;
		free(frame);
		return;
	}
	p->peer = m->peer;
	p->after = m->after;
	p->frame = frame;
	p->len = len;
	p->end = m->end;
	TAILQ_FOREACH_REVERSE(before, &l->parked, parked_list, link)
		if (before->after <= p->after)
			break;
	if (before != NULL)
		TAILQ_INSERT_AFTER(&l->parked, before, p, link);
	else
		TAILQ_INSERT_HEAD(&l->parked, p, link);
}

static void
send_message(struct loop *l, const struct core_message *m)
{
	struct err_note note;
	uint8_t *frame;
	char text[512];
	size_t len;
	int rc = wire_encode(&m->msg, l->p.max_message, &frame, &len, &note);

	if (rc != 0) {
		l->n_unsent++;
		log_error("message.unsendable", "type=%s peer=%" PRIu64 " error=\"%s\"",
		    wire_type_name(m->msg.type), m->peer, err_note_str(&note, rc, text, sizeof(text)));
		if (m->end)
			bus_server_end(l->p.server, m->peer);
	} else if (m->after > l->durable) {
		park(l, m, frame, len);
	} else {
		send_frame(l, m->peer, frame, len, m->end);
	}
}

/*
 * Whether one more line of this event is within its limit. Others are counted, and log_left_out() reports
 * them.
 */
static bool
log_allowed(struct loop *l, const char *name)
{
	for (size_t i = 0; i < N_LIMITED; i++)
		if (strcmp(limited[i].name, name) == 0)
			return l->n_logged[i]++ < limited[i].max;
	return true;
}

static void
log_left_out(struct loop *l)
{
	for (size_t i = 0; i < N_LIMITED; i++) {
		if (l->n_logged[i] > limited[i].max)
			log_warn("log.left_out", "lines=%" PRIu64 " of=%s seconds=%d", l->n_logged[i] - limited[i].max,
			    limited[i].name, LIMIT_MS / 1000);
		l->n_logged[i] = 0;
	}
}

/*
 * Handles the core's output: encodes its messages, submits its records, logs its events. Messages borrow
 * bytes of the read transaction, so the transaction ends last.
 */
static void
flush(struct loop *l)
{
	const struct core_out *out = core_out(l->p.core);

	/* If the corpus cannot be read, the core's conclusions (quarantine, refused labels) are discarded. */
	if (l->p.store->failed != 0)
		core_clear(l->p.core);
	for (size_t i = 0; i < out->n_events; i++)
		if (log_allowed(l, out->events[i].name))
			log_event(out->events[i].level, out->events[i].name, "%s", out->events[i].text);
	for (size_t i = 0; i < out->n_messages; i++)
		send_message(l, &out->messages[i]);
	for (size_t i = 0; i < out->n_ops; i++) {
		l->submitted = out->ops[i]->no;
		commit_submit(l->p.commit, out->ops[i]);
		out->ops[i] = NULL;
	}
	core_clear(l->p.core);
	store_end(l->p.store);
}

/* ---- receiving ---- */

/* Disconnects the sender of a frame that is not a message, or for which there is no memory. */
static void
frame_bad(struct loop *l, const struct bus_event *e, int rc, const struct err_note *note)
{
	struct wire_message refuse = {.type = WIRE_REFUSE};
	uint8_t *frame;
	char text[512];
	size_t len;

	l->n_bad_frames += rc != ENOMEM;
	if (log_allowed(l, "frame.bad"))
		log_warn("frame.bad", "peer=%" PRIu64 " bytes=%zu error=\"%s\"", e->peer, e->len,
		    err_note_str(note, rc, text, sizeof(text)));
	wire_refuse_fill(&refuse.refuse, rc, note, rc == ENOMEM ? NO_MEMORY_MS : 0);
	if (wire_encode(&refuse, l->p.max_message, &frame, &len, NULL) == 0)
		send_frame(l, e->peer, frame, len, true);
	else
		bus_server_end(l->p.server, e->peer);
	core_gone(l->p.core, e->peer);
	flush(l);
}

static void
frame_in(struct loop *l, const struct bus_event *e, int64_t now_ms)
{
	struct wire_message *msg = NULL;
	struct err_note note = {0};
	int rc;

	if ((rc = wire_decode(e->frame, e->len, &msg, &note)) != 0) {
		frame_bad(l, e, rc, &note);
		return;
	}
	/* With CURVE a key has a role: a peer that claims another one is disconnected. */
	if (msg->type == WIRE_HELLO && e->key_role != BUS_ROLE_NONE &&
	    !((e->key_role == BUS_ROLE_TEACHER && msg->hello.role == WIRE_ROLE_TEACHER) ||
	      (e->key_role == BUS_ROLE_TRAINER && msg->hello.role == WIRE_ROLE_TRAINER) ||
	      (e->key_role == BUS_ROLE_CLIENT && msg->hello.role == WIRE_ROLE_CLIENT))) {
		l->n_bad_frames++;
		if (log_allowed(l, "peer.wrong_role"))
			log_warn("peer.wrong_role", "peer=%" PRIu64 " key=%s key_role=%s says=%s", e->peer, e->user,
			    bus_role_name(e->key_role), wire_role_name(msg->hello.role));
		bus_server_end(l->p.server, e->peer);
	} else {
		core_message(l->p.core, e->peer, e->user, msg, now_ms);
		flush(l);
	}
	wire_message_destroy(&msg);
}

static uint32_t *
cost_of(struct loop *l, uint64_t peer)
{
	size_t i = peer % COSTS;

	while (l->costs[i].peer != 0 && l->costs[i].peer != peer)
		i = (i + 1) % COSTS;		/* there are more entries than a turn has frames and held
						   peers */
	l->costs[i].peer = peer;
	return &l->costs[i].cost;
}

static void
event_in(struct loop *l, struct bus_event *e, int64_t now_ms)
{
	int64_t start_ns = clock_now_ns();

	if (e->kind == BUS_EVENT_FRAME) {
		frame_in(l, e, now_ms);
	} else if (e->kind == BUS_EVENT_GONE) {
		core_gone(l->p.core, e->peer);
		flush(l);
	}
	*cost_of(l, e->peer) += 1 + (uint32_t)((clock_now_ns() - start_ns) / COST_NS);
	bus_event_free(e);
}

/* Keeps a frame for the next turn. false: no memory. */
static bool
hold(struct loop *l, struct bus_event *e)
{
	struct held *h = calloc(1, sizeof(*h));

	if (h == NULL)
		return false;
	h->event = *e;
	TAILQ_INSERT_TAIL(&l->held, h, link);
	l->n_held++;
	l->held_bytes += e->len;
	return true;
}

/*
 * Handles the frames of one turn. ZeroMQ delivers one frame of each peer in turn, but frames differ in cost.
 * When a peer has used up its share of the turn, its further frames wait for the next turn, in their order.
 * When too many frames wait, no more are received in this turn.
 */
static void
frames_in(struct loop *l, int64_t now_ms)
{
	struct held *h, *next;
	struct bus_event e;

	memset(l->costs, 0, sizeof(l->costs));
	for (h = TAILQ_FIRST(&l->held); h != NULL; h = next) {
		next = TAILQ_NEXT(h, link);
		if (*cost_of(l, h->event.peer) >= TURN_COST)
			continue;
		TAILQ_REMOVE(&l->held, h, link);
		l->n_held--;
		l->held_bytes -= h->event.len;
		event_in(l, &h->event, now_ms);
		free(h);
	}
	l->all_read = false;
	for (int n = 0; n < TURN_FRAMES && l->n_held < HELD_FRAMES && l->held_bytes < HELD_BYTES; n++) {
		if (bus_server_recv(l->p.server, &e) != 0) {
			l->all_read = l->n_held == 0;
			break;
		}
		if (*cost_of(l, e.peer) < TURN_COST || !hold(l, &e))
			event_in(l, &e, now_ms);
	}
}

static int
durable_in(struct loop *l, int64_t now_ms)
{
	struct commit_state commit = commit_state(l->p.commit);

	if (commit.failed != 0 || commit.durable == l->durable)
		return commit.failed;
	l->durable = commit.durable;
	send_parked(l);
	core_durable(l->p.core, commit.durable, now_ms);
	flush(l);
	return 0;
}

static int
time_in(struct loop *l, int64_t now_ms)
{
	int rc;

	/* While this process was stopped, peers may have renewed leases: first handle what they sent. */
	if (now_ms - l->turned_ms > LATE_MS) {
		log_info("late", "ms=%" PRId64, now_ms - l->turned_ms);
		l->caught_up_ms = now_ms + CATCH_UP_MS;
	}
	l->turned_ms = now_ms;
	if (l->all_read)
		l->behind_ms = now_ms;
	if (now_ms >= l->caught_up_ms && (l->all_read || now_ms - l->behind_ms >= BEHIND_MS) && (now_ms >= l->next_tick_ms || core_wait_ms(l->p.core) <= 1)) {
		l->next_tick_ms = now_ms + TICK_MS;
		l->behind_ms = now_ms;
		core_tick(l->p.core, now_ms);
		flush(l);
	}
	if (now_ms >= l->next_second_ms) {
		int room = cache_room(l->p.cache, NULL);

		if ((rc = cache_there(l->p.cache)) != 0)
			return rc;
		l->next_second_ms = now_ms + 1000;
		if (room == ENOSPC)			/* dropped labels leave free pages in the file, not on the disk */
			room = cache_room_inside(l->p.cache);
		/*
		 * The writer enlarges a map that is nearly full (ERR_FULL); where it cannot, it waits for
		 * space.
		 */
		room = (room == 0 || room == ERR_FULL) && commit_state(l->p.commit).waiting == 0;
		core_room(l->p.core, room, now_ms);
		flush(l);
		metrics_update(l, now_ms);
		/* After a burst of records its memory is returned to the kernel. */
		if (l->numbers.core.pending_bytes > l->most_pending)
			l->most_pending = l->numbers.core.pending_bytes;
		if (l->numbers.core.pending_bytes == 0 && l->most_pending > TRIM_BYTES) {
			l->most_pending = 0;
			malloc_trim(0);
		}
	}
	if (now_ms >= l->next_limit_ms) {
		l->next_limit_ms = now_ms + LIMIT_MS;
		log_left_out(l);
	}
	if (now_ms >= l->next_readers_ms) {
		int n_dead = 0;

		l->next_readers_ms = now_ms + 10000;
		if (cache_reader_check(l->p.cache, &n_dead) == 0 && n_dead > 0)
			log_warn("cache.dead_readers", "cleared=%d", n_dead);
	}
	return 0;
}

int
loop_run(struct loop *l, struct err_note *note)
{
	int64_t drain_until_ms = 0;
	int rc = 0;

	l->turned_ms = l->behind_ms = clock_now_ms();
	metrics_update(l, l->turned_ms);
	while (rc == 0) {
		int64_t now_ms = clock_now_ms(), tick_ms = l->next_tick_ms > now_ms ? l->next_tick_ms - now_ms : 0;
		int64_t wait_ms = l->n_held > 0 ? 0 : core_wait_ms(l->p.core);

		if ((rc = bus_poll_wait(l->poll, wait_ms < tick_ms ? wait_ms : tick_ms)) != 0)
			return err_note_set(note, rc, "waiting for messages");
		now_ms = clock_now_ms();
		if (stop_requested() && !l->draining) {
			log_info("drain", "records_pending=%" PRIu64, l->submitted - l->durable);
			l->draining = true;
			drain_until_ms = now_ms + DRAIN_MS;
			daemon_notify_stopping("draining: %" PRIu64 " records not yet on disk",
			    l->submitted - l->durable);
			core_drain(l->p.core, now_ms);
			flush(l);
		}
		/* First the commits: they may have stored what the next messages ask for. */
		if ((rc = durable_in(l, now_ms)) != 0)
			break;
		frames_in(l, now_ms);
		if ((rc = time_in(l, now_ms)) != 0 || (rc = l->p.store->failed) != 0)
			break;
		if (!l->ready) {
			l->ready = true;
			daemon_notify_ready("serving");
		}
		/*
		 * The watchdog expects progress while records are pending, except while the writer waits for
		 * disk space.
		 */
		daemon_notify_alive(l->durable, l->durable != l->submitted && commit_state(l->p.commit).waiting == 0);
		if (l->draining &&
		    ((l->durable == l->submitted && TAILQ_EMPTY(&l->parked)) || now_ms >= drain_until_ms))
			break;
	}
	log_left_out(l);
	if (rc != 0 && rc == l->p.store->failed) {
		*note = l->p.store->why;
		return rc;
	}
	if (rc == ENOENT)
		return err_expect(note, rc, "cache.dir %s", "the data.mdb that this selectord opened",
		    "that the file was removed, moved or replaced: put it back and start again; without it "
		    "selectord makes a new cache at its next start, and teachers will recompute everything",
		    l->p.cache_dir);
	return rc != 0 ? err_note_set(note, rc, "cache.dir %s", l->p.cache_dir) : 0;
}

int
loop_new(struct loop **out, const struct loop_parts *parts)
{
	struct loop *l = calloc(1, sizeof(*l));
	int rc;

	*out = NULL;
	if (l == NULL)
		return ENOMEM;
	l->p = *parts;
	TAILQ_INIT(&l->parked);
	TAILQ_INIT(&l->held);
	l->durable = l->submitted = commit_state(parts->commit).durable;
	pthread_mutex_init(&l->lock, NULL);
	mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
	mallopt(M_MMAP_THRESHOLD, KEEP_BYTES / 2);
	if ((l->poll = bus_poll_new(parts->bus)) == NULL) {
		loop_destroy(&l);
		return ENOMEM;
	}
	if ((rc = bus_poll_add_server(l->poll, parts->server)) != 0 || (rc = bus_poll_add_waker(l->poll, parts->waker)) != 0) {
		loop_destroy(&l);
		return rc;
	}
	for (size_t i = 0; i < N_METRICS; i++)
		l->metric[i] = status_register(parts->status, metrics[i].kind, metrics[i].name,
		    metrics[i].unit, metrics[i].help);
	*out = l;
	return 0;
}

void
loop_destroy(struct loop **loop)
{
	struct loop *l = *loop;

	if (l == NULL)
		return;
	for (struct parked *p; (p = TAILQ_FIRST(&l->parked)) != NULL; free(p)) {
		TAILQ_REMOVE(&l->parked, p, link);
		free(p->frame);
	}
	for (struct held *h; (h = TAILQ_FIRST(&l->held)) != NULL; free(h)) {
		TAILQ_REMOVE(&l->held, h, link);
		bus_event_free(&h->event);
	}
	bus_poll_destroy(&l->poll);
	pthread_mutex_destroy(&l->lock);
	free(l);
	*loop = NULL;
}
