#include "selectord/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock/clock.h"
#include "base/clock/stop.h"
#include "base/err/crash.h"
#include "base/json/json.h"
#include "base/log/log.h"
#include "fabric/daemon/notify.h"
#include "fabric/wire/status_answer.h"
#include "fabric/wire/wire.h"

#define TICK_MS 100
#define DRAIN_MS 10000
#define ROSTER_MAX 1024
#define TRIM_BYTES (1 << 20)
#define KEEP_BYTES (64 << 20)		/* of free memory at hand: what records came in goes round, and is not asked of the kernel each time */

/* A frame that may be sent when its record is on the disk. */
struct parked {
	uint64_t peer, after;
	uint8_t *frame;
	size_t len;
	bool end;
	struct parked *next;
};

struct metrics {
	struct status_metric *leases_granted, *leases_expired, *leases_returned, *scores, *labels, *label_bytes, *duplicates, *differed, *bad_results,
	    *bad_messages, *refused, *rows_sent, *row_requests, *quarantined, *holders_lost, *errors, *blocks, *corrupt, *commits, *unsent, *unread, *dropped;
	struct status_metric *leases, *seqs_leased, *requests_waiting, *records_pending, *rows_ahead, *pending_bytes;
	struct status_metric *peers, *teachers, *trainers, *plans, *plans_released, *blocks_active, *rows_ready, *rows_asked, *heldout_loss, *map_ratio, *disk_free;
};

struct loop {
	struct loop_parts p;
	struct bus_poll *poll;
	struct parked *parked, **parked_last;	/* by after */
	size_t n_parked;
	uint64_t last_after;			/* of the last one parked */
	uint64_t durable, submitted, n_unsent, n_bad_frames;
	struct metrics m;
	bool draining;
	bool ready;				/* one turn was made */
	int64_t next_tick_ms, next_second_ms, next_readers_ms;
	bool room;
	uint64_t most_pending;			/* bytes, since memory was given back */
	pthread_mutex_t lock;			/* what the status thread reads */
	struct core_peer_stats roster[ROSTER_MAX];
	struct core_plan_stats plans[CORE_PLANS_MAX];
	size_t n_roster, n_plans;
	struct core_stats last;			/* counters already told to status */
};

static void
metrics_register(struct loop *l)
{
	struct status *st = l->p.status;
	struct metrics *m = &l->m;
	const struct {
		struct status_metric **at;
		enum status_kind kind;
		const char *name, *unit, *help;
	} all[] = {
		{&m->rows_ahead, STATUS_QUEUE, "rows_ahead", "rows", "rows ready beyond the furthest one asked for, newest plan"},
		{&m->leases, STATUS_QUEUE, "leases", "", "leases that teachers hold"},
		{&m->seqs_leased, STATUS_QUEUE, "sequences_leased", "sequences", "sequences of those leases without a result"},
		{&m->requests_waiting, STATUS_QUEUE, "row_requests_waiting", "", "row requests that wait for labels"},
		{&m->records_pending, STATUS_QUEUE, "records_pending", "", "records on their way to the disk"},
		{&m->pending_bytes, STATUS_QUEUE, "pending_bytes", "bytes", "bytes of those records"},
		{&m->labels, STATUS_RATED, "labels_total", "sequences", "labels taken in"},
		{&m->scores, STATUS_RATED, "scores_total", "sequences", "scores taken in"},
		{&m->rows_sent, STATUS_RATED, "rows_sent_total", "rows", "rows sent to trainers"},
		{&m->label_bytes, STATUS_COUNTER, "label_bytes_total", "bytes", "bytes of labels taken in"},
		{&m->leases_granted, STATUS_COUNTER, "leases_granted_total", "", "leases handed out"},
		{&m->leases_expired, STATUS_COUNTER, "leases_expired_total", "", "leases whose holder vanished or stood still"},
		{&m->leases_returned, STATUS_COUNTER, "leases_returned_total", "", "leases handed back"},
		{&m->row_requests, STATUS_COUNTER, "row_requests_total", "", "row requests, repeated ones too"},
		{&m->blocks, STATUS_COUNTER, "blocks_written_total", "", "blocks whose rows were chosen and written"},
		{&m->duplicates, STATUS_COUNTER, "duplicates_total", "sequences", "results for what was stored already"},
		{&m->differed, STATUS_COUNTER, "differed_total", "sequences", "results that differed from what was stored already"},
		{&m->bad_results, STATUS_COUNTER, "bad_results_total", "sequences", "results that were dropped as wrong"},
		{&m->bad_messages, STATUS_COUNTER, "bad_messages_total", "", "messages that were dropped as wrong"},
		{&m->refused, STATUS_COUNTER, "refused_total", "", "peers refused"},
		{&m->holders_lost, STATUS_COUNTER, "holders_lost_total", "", "teachers lost with one sequence alone in hand"},
		{&m->errors, STATUS_COUNTER, "sequence_errors_total", "", "errors that teachers reported for a sequence"},
		{&m->corrupt, STATUS_COUNTER, "damaged_records_total", "", "damaged records found in the cache"},
		{&m->dropped, STATUS_COUNTER, "labels_dropped_total", "sequences", "labels taken away because a client asked"},
		{&m->commits, STATUS_COUNTER, "commits_total", "", "commits"},
		{&m->unsent, STATUS_COUNTER, "unsent_total", "", "messages dropped because the peer's queue was full or it was gone"},
		{&m->unread, STATUS_COUNTER, "labels_unread_total", "sequences", "labels that came too fast to be read through: checksum and header were checked"},
		{&m->quarantined, STATUS_GAUGE, "quarantined", "sequences", "sequences in quarantine"},
		{&m->peers, STATUS_GAUGE, "peers", "", "connected peers"},
		{&m->teachers, STATUS_GAUGE, "teachers", "", "connected teachers"},
		{&m->trainers, STATUS_GAUGE, "trainers", "", "connected trainer ranks"},
		{&m->plans, STATUS_GAUGE, "plans", "", "plans opened"},
		{&m->plans_released, STATUS_GAUGE, "plans_released", "", "of them released"},
		{&m->blocks_active, STATUS_GAUGE, "blocks_active", "", "blocks being scanned, scored or labelled"},
		{&m->rows_ready, STATUS_GAUGE, "rows_ready", "rows", "rows that can be served, from row 0 without a gap, newest plan"},
		{&m->rows_asked, STATUS_GAUGE, "rows_asked", "rows", "one past the furthest row asked for, newest plan"},
		{&m->heldout_loss, STATUS_GAUGE, "heldout_loss_nats", "nats", "the teacher's mean loss on the held-out windows; 0 while not known"},
		{&m->map_ratio, STATUS_GAUGE, "cache_map_ratio", "", "share of the cache's map in use"},
		{&m->disk_free, STATUS_GAUGE, "cache_disk_free_ratio", "", "share of the cache's file system that is free"},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		*all[i].at = status_register(st, all[i].kind, all[i].name, all[i].unit, all[i].help);
}

static void
metrics_update(struct loop *l, int64_t now_ms)
{
	struct metrics *m = &l->m;
	struct core_stats s;
	const char *state;
	double ratio = 0;
	char text[256];

	core_stats(l->p.core, &s);
	status_set(m->leases, (double)s.n_leases);
	status_set(m->seqs_leased, (double)s.n_seqs_leased);
	status_set(m->requests_waiting, (double)s.n_waiting);
	status_set(m->records_pending, (double)s.n_ops_pending);
	status_set(m->pending_bytes, (double)s.pending_bytes);
	status_set(m->rows_ahead, s.rows_ready > s.rows_asked ? (double)(s.rows_ready - s.rows_asked) : 0);
	status_set(m->quarantined, (double)s.n_quarantined);
	status_set(m->peers, (double)s.n_peers);
	status_set(m->teachers, (double)s.n_teachers);
	status_set(m->trainers, (double)s.n_trainers);
	status_set(m->plans, (double)s.n_plans);
	status_set(m->plans_released, (double)s.n_plans_released);
	status_set(m->blocks_active, (double)s.n_blocks_active);
	status_set(m->rows_ready, (double)s.rows_ready);
	status_set(m->rows_asked, (double)s.rows_asked);
	status_set(m->heldout_loss, isnan(s.heldout_loss_nats) ? 0 : s.heldout_loss_nats);
	if (cache_room(l->p.cache, &ratio) == 0 || ratio > 0)
		status_set(m->map_ratio, ratio);
	status_set(m->disk_free, cache_disk_free(l->p.cache));
#define DELTA(metric, field)	status_add(m->metric, s.field - l->last.field)
	DELTA(labels, n_labels);
	DELTA(scores, n_scores);
	DELTA(rows_sent, n_rows_sent);
	DELTA(label_bytes, n_label_bytes);
	DELTA(leases_granted, n_leases_granted);
	DELTA(leases_expired, n_leases_expired);
	DELTA(leases_returned, n_leases_returned);
	DELTA(row_requests, n_row_requests);
	DELTA(blocks, n_blocks_written);
	DELTA(duplicates, n_duplicates);
	DELTA(differed, n_differed);
	DELTA(bad_results, n_bad_results);
	DELTA(bad_messages, n_bad_messages);
	DELTA(refused, n_refused);
	DELTA(holders_lost, n_dead);
	DELTA(errors, n_errors);
	DELTA(corrupt, n_corrupt);
	DELTA(dropped, n_dropped);
#undef DELTA
	l->last = s;
	status_add(m->commits, commit_n_commits(l->p.commit) - (uint64_t)status_get(m->commits));
	status_add(m->unread, atomic_load(&l->p.store->n_unread_total) - (uint64_t)status_get(m->unread));
	status_add(m->unsent, l->n_unsent - (uint64_t)status_get(m->unsent));
	if (l->draining)
		state = "draining";
	else if (commit_waiting(l->p.commit) != 0 || s.no_room)
		state = "disk full";
	else if (s.n_plans == 0)
		state = "waiting for a plan";
	else if (s.n_plans == s.n_plans_released)
		state = "released";
	else if (s.starved[0] != '\0')
		state = "waiting for teachers";
	else if (s.n_blocks_active > 0)
		state = "labelling";
	else
		state = "ahead";
	status_state(l->p.status, state, now_ms);
	status_step(l->p.status, s.rows_ready, s.rows_total);
	if (commit_waiting(l->p.commit) != 0 || s.no_room) {
		snprintf(text, sizeof(text), "no room in the cache: %s; no leases, no acknowledgements until there is",
		    err_str(commit_waiting(l->p.commit) != 0 ? commit_waiting(l->p.commit) : ENOSPC));
		status_error(l->p.status, text);
	} else if (s.starved[0] != '\0' && !l->draining) {
		status_error(l->p.status, s.starved);
	} else {
		log_last_error(text, sizeof(text));
		status_error(l->p.status, text);
	}
	notify_status("%s: %zu teachers, %zu trainer ranks, %" PRIu64 " of %" PRIu64 " rows ready", state, (size_t)s.n_teachers,
	    (size_t)s.n_trainers, s.rows_ready, s.rows_total);
	pthread_mutex_lock(&l->lock);
	l->n_roster = core_peer_stats(l->p.core, l->roster, ROSTER_MAX);
	l->n_plans = core_plan_stats(l->p.core, l->plans, CORE_PLANS_MAX);
	pthread_mutex_unlock(&l->lock);
}

/* Bins up to the last one that has anything; nothing of a plan that chooses without scores. */
static void
put_scores(struct json *plan, const struct core_scores *s)
{
	struct json *o, *scored, *kept;
	size_t n = CORE_SCORE_BINS;

	while (n > 0 && s->scored[n - 1] == 0)
		n--;
	if (n == 0 || (o = json_new_object()) == NULL)
		return;
	scored = json_new_array();
	kept = json_new_array();
	for (size_t i = 0; i < n; i++) {
		json_push(scored, json_new_int((int64_t)s->scored[i]));
		json_push(kept, json_new_int((int64_t)s->kept[i]));
	}
	json_put(o, "bin_nats", json_new_num(CORE_SCORE_BIN_NATS));
	json_put(o, "sequences", scored);
	json_put(o, "kept", kept);
	json_put(plan, "scores", o);
}

/* JSON gets what the protobuf has, and the plans. */
static uint8_t *
add_plans(struct loop *l, uint8_t *answer, size_t *len)
{
	struct json *root = NULL, *list = json_new_array(), *o;
	char hex[HASH_HEX_BYTES], *text = NULL;

	if (json_parse((const char *)answer, *len, "status", &root, NULL) != 0 || list == NULL) {
		json_close(&list);
		goto out;
	}
	for (size_t i = 0; i < l->n_plans && i < CORE_PLANS_MAX; i++) {
		const struct core_plan_stats *p = &l->plans[i];

		if ((o = json_new_object()) == NULL)
			break;
		json_put(o, "plan", json_new_text(hash_hex(p->hash, hex)));
		json_put(o, "rows", json_new_int((int64_t)p->n_rows));
		json_put(o, "rows_ready", json_new_int((int64_t)p->rows_ready));
		json_put(o, "rows_asked", json_new_int((int64_t)p->rows_asked));
		json_put(o, "blocks_active", json_new_int((int64_t)p->n_blocks_active));
		json_put(o, "released", json_new_flag(p->released));
		put_scores(o, &p->scores);
		json_push(list, o);
	}
	json_put(root, "plans", list);
	text = json_print(root, false);
out:
	json_close(&root);
	if (text == NULL)
		return answer;
	free(answer);
	*len = strlen(text);
	return (uint8_t *)text;
}

void
loop_status(void *arg, const uint8_t *body, size_t len, uint8_t **answer, size_t *answer_len)
{
	struct loop *l = arg;
	int64_t now_ms = clock_now_ms();
	struct status_snapshot *snap;
	struct wire_peer *peers = NULL;
	size_t n;

	*answer = NULL;
	if (log_answer(body, len, (char **)answer, answer_len) || (snap = malloc(sizeof(*snap))) == NULL)
		return;
	status_snapshot(l->p.status, now_ms, snap);
	pthread_mutex_lock(&l->lock);
	n = l->n_roster < ROSTER_MAX ? l->n_roster : ROSTER_MAX;
	if ((peers = calloc(n + 1, sizeof(*peers))) != NULL) {
		for (size_t i = 0; i < n; i++) {
			const struct core_peer_stats *p = &l->roster[i];

			memcpy(peers[i].name, p->name, sizeof(peers[i].name));
			memcpy(peers[i].host, p->host, sizeof(peers[i].host));
			memcpy(peers[i].status_endpoint, p->status_endpoint, sizeof(peers[i].status_endpoint));
			peers[i].role = p->role;
			peers[i].pid = p->pid;
			peers[i].age_s = (double)(now_ms - p->heard_ms) / 1000;
		}
		if (wire_status_answer(body, len, snap, peers, n, answer, answer_len) != 0)
			*answer = NULL;
		if (*answer != NULL && *answer_len > 0 && (*answer)[0] == '{')
			*answer = add_plans(l, *answer, answer_len);
	}
	pthread_mutex_unlock(&l->lock);
	free(peers);
	free(snap);
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

	while ((p = l->parked) != NULL && p->after <= l->durable) {
		if ((l->parked = p->next) == NULL)
			l->parked_last = &l->parked;
		l->n_parked--;
		crash_point("loop.acknowledge");
		send_frame(l, p->peer, p->frame, p->len, p->end);
		free(p);
	}
}

/* What the core said, while its borrowed bytes are good: frames made, records handed over, lines logged. Then the snapshot ends. */
static int
flush(struct loop *l, int rc)
{
	const struct core_out *out = core_out(l->p.core);

	for (size_t i = 0; i < out->n_events; i++)
		log_event(out->events[i].level, out->events[i].name, "%s", out->events[i].text);
	for (size_t i = 0; i < out->n_messages && rc == 0; i++) {
		const struct core_message *m = &out->messages[i];
		struct err_note note;
		struct parked *p;
		uint8_t *frame;
		char text[512];
		size_t len;

		if ((rc = wire_encode(&m->msg, l->p.max_message, &frame, &len, &note)) == ENOMEM)
			break;
		if (rc != 0) {
			log_error("message.unsendable", "type=%s peer=%" PRIu64 " error=\"%s\"", wire_type_name(m->msg.type), m->peer,
			    err_note_str(&note, rc, text, sizeof(text)));
			rc = 0;
			continue;
		}
		if (m->after <= l->durable) {
			send_frame(l, m->peer, frame, len, m->end);
			continue;
		}
		if ((p = calloc(1, sizeof(*p))) == NULL) {
			free(frame);
			rc = ENOMEM;
			break;
		}
		*p = (struct parked){m->peer, m->after, frame, len, m->end, NULL};
		struct parked **at = &l->parked;

		if (l->parked != NULL && m->after >= l->last_after)
			at = l->parked_last;
		while (*at != NULL && (*at)->after <= p->after)
			at = &(*at)->next;
		p->next = *at;
		*at = p;
		if (p->next == NULL) {
			l->parked_last = &p->next;
			l->last_after = p->after;
		}
		l->n_parked++;
	}
	for (size_t i = 0; i < out->n_ops; i++) {
		l->submitted = out->ops[i]->no;
		commit_submit(l->p.commit, out->ops[i]);
		out->ops[i] = NULL;
	}
	core_clear(l->p.core);
	store_end(l->p.store);
	return rc;
}

/* ---- receiving ---- */

static int
frame_in(struct loop *l, const struct bus_event *e, int64_t now_ms)
{
	struct wire_message *msg = NULL;
	struct err_note note;
	char text[512];
	int rc;

	if ((rc = wire_decode(e->frame, e->len, &msg, &note)) == ENOMEM)
		return rc;
	if (rc != 0) {
		struct wire_message refuse = {.type = WIRE_REFUSE};
		uint8_t *frame;
		size_t len;

		l->n_bad_frames++;
		status_add(l->m.bad_messages, 1);
		log_warn("frame.bad", "peer=%" PRIu64 " bytes=%zu error=\"%s\"", e->peer, e->len, err_note_str(&note, rc, text, sizeof(text)));
		wire_refuse_fill(&refuse.refuse, rc, &note, 0);
		if (wire_encode(&refuse, l->p.max_message, &frame, &len, NULL) == 0)
			send_frame(l, e->peer, frame, len, true);
		else
			bus_server_end(l->p.server, e->peer);
		return flush(l, core_gone(l->p.core, e->peer, now_ms));
	}
	/* With CURVE a key has a role; who speaks as another is cut off. */
	if (msg->type == WIRE_HELLO && e->key_role != BUS_ROLE_NONE &&
	    !((e->key_role == BUS_ROLE_TEACHER && msg->hello.role == WIRE_ROLE_TEACHER) ||
	      (e->key_role == BUS_ROLE_TRAINER && msg->hello.role == WIRE_ROLE_TRAINER) ||
	      (e->key_role == BUS_ROLE_CLIENT && msg->hello.role == WIRE_ROLE_CLIENT))) {
		log_warn("peer.wrong_role", "peer=%" PRIu64 " key=%s key_role=%s says=%s", e->peer, e->user, bus_role_name(e->key_role),
		    wire_role_name(msg->hello.role));
		bus_server_end(l->p.server, e->peer);
		wire_message_destroy(&msg);
		return 0;
	}
	rc = core_message(l->p.core, e->peer, msg, now_ms);
	rc = flush(l, rc);
	wire_message_destroy(&msg);
	return rc;
}

static int
durable_in(struct loop *l, int64_t now_ms)
{
	uint64_t durable = commit_durable(l->p.commit);
	int rc;

	if ((rc = commit_failed(l->p.commit)) != 0)
		return rc;
	if (durable == l->durable)
		return 0;
	l->durable = durable;
	send_parked(l);
	return flush(l, core_durable(l->p.core, durable, now_ms));
}

static int
time_in(struct loop *l, int64_t now_ms)
{
	int rc = 0;

	if (now_ms >= l->next_tick_ms || core_wait_ms(l->p.core) <= 1) {
		l->next_tick_ms = now_ms + TICK_MS;
		rc = flush(l, core_tick(l->p.core, now_ms));
	}
	if (rc == 0 && now_ms >= l->next_second_ms) {
		int room = cache_room(l->p.cache, NULL);

		l->next_second_ms = now_ms + 1000;
		if (room == ENOSPC)			/* dropped labels leave room in the file, not on the disk */
			room = cache_room_inside(l->p.cache);
		/* a map that is nearly full (ERR_FULL) the writer makes larger; where it cannot, it waits, and says so */
		l->room = (room == 0 || room == ERR_FULL) && commit_waiting(l->p.commit) == 0;
		rc = flush(l, core_room(l->p.core, l->room, now_ms));
		metrics_update(l, now_ms);
		/* What a burst of records took goes back when it is over. */
		if (l->last.pending_bytes > l->most_pending)
			l->most_pending = l->last.pending_bytes;
		if (l->last.pending_bytes == 0 && l->most_pending > TRIM_BYTES) {
			l->most_pending = 0;
			malloc_trim(0);
		}
	}
	if (rc == 0 && now_ms >= l->next_readers_ms) {
		int n_dead = 0;

		l->next_readers_ms = now_ms + 10000;
		if (cache_reader_check(l->p.cache, &n_dead) == 0 && n_dead > 0)
			log_warn("cache.dead_readers", "cleared=%d", n_dead);
	}
	return rc;
}

int
loop_run(struct loop *l)
{
	int64_t drain_until_ms = 0;
	struct bus_event e;
	int rc = 0;

	metrics_update(l, clock_now_ms());
	while (rc == 0) {
		int64_t now_ms = clock_now_ms(), tick_ms = l->next_tick_ms > now_ms ? l->next_tick_ms - now_ms : 0, wait_ms = core_wait_ms(l->p.core);

		if ((rc = bus_poll_wait(l->poll, wait_ms < tick_ms ? wait_ms : tick_ms)) != 0)
			break;
		now_ms = clock_now_ms();
		if (stop_requested() && !l->draining) {
			log_info("drain", "records_pending=%" PRIu64, l->submitted - l->durable);
			l->draining = true;
			drain_until_ms = now_ms + DRAIN_MS;
			notify_stopping("draining: %" PRIu64 " records on their way to the disk", l->submitted - l->durable);
			rc = flush(l, core_drain(l->p.core, now_ms));
		}
		/* The disk's word first: what the core is asked next may be stored by now. */
		if (rc == 0)
			rc = durable_in(l, now_ms);
		for (int n = 0; rc == 0 && n < 256 && bus_server_recv(l->p.server, &e) == 0; n++) {
			rc = e.kind == BUS_EVENT_FRAME ? frame_in(l, &e, now_ms) :
			    e.kind == BUS_EVENT_GONE ? flush(l, core_gone(l->p.core, e.peer, now_ms)) : 0;
			bus_event_free(&e);
		}
		if (rc == 0)
			rc = time_in(l, now_ms);
		if (rc == 0 && !l->ready) {
			l->ready = true;
			notify_ready("serving");
		}
		/* Records in hand must come down to the disk; where there is no room, waiting for it is the work. */
		notify_turn(l->durable, l->durable != l->submitted && commit_waiting(l->p.commit) == 0);
		if (l->draining && ((l->durable == l->submitted && l->parked == NULL) || now_ms >= drain_until_ms))
			break;
	}
	return rc;
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
	l->parked_last = &l->parked;
	l->room = true;
	l->durable = l->submitted = commit_durable(parts->commit);
	pthread_mutex_init(&l->lock, NULL);
	mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
	mallopt(M_MMAP_THRESHOLD, KEEP_BYTES / 2);
	if ((l->poll = bus_poll_new(parts->bus)) == NULL) {
		loop_destroy(&l);
		return errno != 0 ? errno : ENOMEM;
	}
	if ((rc = bus_poll_add_server(l->poll, parts->server)) != 0 || (rc = bus_poll_add_waker(l->poll, parts->waker)) != 0) {
		loop_destroy(&l);
		return rc;
	}
	metrics_register(l);
	*out = l;
	return 0;
}

void
loop_destroy(struct loop **loop)
{
	struct loop *l = *loop;

	if (l == NULL)
		return;
	for (struct parked *p; (p = l->parked) != NULL; free(p)) {
		l->parked = p->next;
		free(p->frame);
	}
	bus_poll_destroy(&l->poll);
	pthread_mutex_destroy(&l->lock);
	free(l);
	*loop = NULL;
}
