/* SPDX-License-Identifier: Apache-2.0 */
/* Peers, messages, sequences, and records on their way to the disk. */
#include "selectord/core_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "data/corpus/blend.h"
#include "data/corpus/corpus.h"
#include "data/labels/labels.h"
#include "base/err/crash.h"
#include "base/mem/mem.h"
#include "data/select/select.h"

#define PENDING_BYTES_MAX (UINT64_C(256) << 20)		/* while more than this waits for the disk, no leases are granted */

/* ---- output ---- */

void
core__event(struct core *c, enum log_level level, const char *name, const char *fmt, ...)
{
	struct core_event *e;
	va_list ap;

	if (mem_grow((void **)&c->out.events, &c->events_cap, c->out.n_events + 1, sizeof(*e)) != 0)
		return;				/* one line less in the log */
	e = &c->out.events[c->out.n_events++];
	e->level = level;
	snprintf(e->name, sizeof(e->name), "%s", name);
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
}

static void
message_free(struct core_message *m)
{
	free(m->memory[0]);
	free(m->memory[1]);
	m->memory[0] = m->memory[1] = NULL;
}

struct core_message *
core__send(struct core *c, uint64_t peer, enum wire_type type)
{
	struct core_message *m = &c->spare;

	if (mem_grow((void **)&c->out.messages, &c->messages_cap, c->out.n_messages + 1, sizeof(*m)) == 0) {
		m = &c->out.messages[c->out.n_messages++];
	} else {
		c->no_memory = true;
		message_free(m);
	}
	memset(m, 0, sizeof(*m));
	m->peer = peer;
	m->msg.type = type;
	return m;
}

void
core__refuse_note(struct core *c, uint64_t peer, int code, const struct err_note *note, const char *text,
    uint32_t retry_ms)
{
	struct core_message *m = core__send(c, peer, WIRE_REFUSE);
	struct wire_refuse *r = &m->msg.refuse;

	r->code = code;
	snprintf(r->field, sizeof(r->field), "%.*s", WIRE_NAME_MAX - 1, note->name);
	snprintf(r->expected, sizeof(r->expected), "%s", note->expected);
	snprintf(r->found, sizeof(r->found), "%s", note->found);
	snprintf(r->text, sizeof(r->text), "%s", text);
	r->retry_ms = retry_ms;
	m->end = retry_ms == 0;
	if (retry_ms == 0) {
		c->stats.n_refused++;
		core__event(c, LOG_LEVEL_WARN, "peer.refused", "peer=%" PRIu64 " code=%d field=%s expected=\"%s\" found=\"%s\" text=\"%s\"", peer,
		    code, r->field, r->expected, r->found, text);
	}
}

void
core__refuse_memory(struct core *c, uint64_t peer)
{
	c->no_memory = true;
	core__refuse(c, peer, EX_UNAVAILABLE, "", 5000, "memory", "enough for this request", "too little");
}

/* Allocates the pending record with the op, so that core__op_done cannot fail. */
struct core_op *
core__op(struct core *c, enum core_op_kind kind, uint64_t seq)
{
	struct core_op *op = calloc(1, sizeof(*op));

	if (op == NULL || (op->pending = calloc(1, sizeof(*op->pending))) == NULL ||
	    mem_grow((void **)&c->out.ops, &c->ops_cap, c->out.n_ops + 1, sizeof(op)) != 0) {
		core_op_free(&op);
		c->no_memory = true;
		return NULL;
	}
	op->kind = kind;
	op->seq = seq;
	return op;
}

void
core__op_done(struct core *c, struct core_op *op, uint8_t wants, size_t bytes)
{
	struct core_pending *p = op->pending;

	op->pending = NULL;
	op->no = ++c->next_op;
	c->out.ops[c->out.n_ops++] = op;	/* core__op made room, and one op is made at a time */
	*p = (struct core_pending){
	    op->no, op->kind, op->seq, wants, op->set, bytes, op->plan_hash, op->block, NULL, NULL};
	DL_APPEND(c->pending, p);
	c->n_pending++;
	c->stats.pending_bytes += bytes;
}

void
core_op_free(struct core_op **op)
{
	if (*op == NULL)
		return;
	mem_arena_destroy(&(*op)->held);
	free((*op)->pending);
	free((*op)->rows);
	free((*op)->drops);
	free(*op);
	*op = NULL;
}

const struct core_out *
core_out(struct core *c)
{
	return &c->out;
}

void
core_clear(struct core *c)
{
	for (size_t i = 0; i < c->out.n_messages; i++)
		message_free(&c->out.messages[i]);
	message_free(&c->spare);
	for (size_t i = 0; i < c->out.n_ops; i++)
		core_op_free(&c->out.ops[i]);
	c->out.n_messages = c->out.n_ops = c->out.n_events = 0;
}

/* ---- sequences ---- */

struct core_seq *
core__seq(struct core *c, uint64_t seq, bool make)
{
	struct core_seq *s;

	HASH_FIND(hh, c->seqs, &seq, sizeof(seq), s);
	if (s != NULL || !make)
		return s;
	if ((s = calloc(1, sizeof(*s))) != NULL) {
		s->seq = seq;
		HASH_ADD(hh, c->seqs, seq, sizeof(s->seq), s);
	}
	if (s != NULL && s->hh.tbl != NULL)
		return s;
	c->no_memory = true;
	free(s);
	return NULL;
}

/* Marks these parts as not pending any more, and frees their copies. */
static void
seq_durable(struct core_seq *s, uint8_t wants)
{
	s->flight &= (uint8_t)~wants;
	s->pending &= (uint8_t)~wants;
	if ((wants & WANT_SCORE) != 0)
		mem_arena_destroy(&s->scores.held);
	if ((wants & WANT_LABEL) != 0)
		mem_arena_destroy(&s->label.held);
}

void
core__seq_forget(struct core *c, uint64_t seq)
{
	struct core_seq *s = core__seq(c, seq, false);

	if (s == NULL || s->flight != 0 || s->op != 0 || s->single || s->quarantined || s->n_failed != 0 || s->n_errors != 0)
		return;
	seq_durable(s, WANT_SCORE | WANT_LABEL);
	HASH_DEL(c->seqs, s);
	free(s);
}

bool
core__quarantined(struct core *c, uint64_t seq)
{
	const struct core_seq *s = core__seq(c, seq, false);

	return s != NULL && s->quarantined;
}

int
core__score_of(struct core *c, uint64_t seq, unsigned k, float *out)
{
	uint32_t L = c->cfg.corpus.context;
	struct cache_bytes v;
	struct core_op *op;
	int rc = c->store->scores(c->store->arg, CACHE_SCORES_SCORER, seq, &v);

	if (rc == 0 && (rc = labels_scores_decode(v.bytes, v.len, L, c->loss, c->rank, NULL)) == 0) {
		*out = (float)select_score(c->loss, c->rank, L, k, c->scratch);
		return 0;
	}
	if (rc == ERR_NOT_FOUND)
		return rc;
	core__event(c, LOG_LEVEL_WARN, "scores.damaged", "seq=%" PRIu64 " rc=%d next=\"scored again\"", seq, rc);
	c->stats.n_corrupt++;
	if ((op = core__op(c, CORE_OP_DROP_SCORES, seq)) != NULL) {
		op->set = CACHE_SCORES_SCORER;
		core__op_done(c, op, 0, 0);
	}
	return ERR_NOT_FOUND;
}

bool
core__has_label(struct core *c, uint64_t seq)
{
	struct cache_bytes v;
	struct core_op *op;
	int rc = c->store->label(c->store->arg, seq, &v);

	c->scan_left -= rc != ERR_NOT_FOUND ? LABEL_COST : 0;
	if (rc == 0 || rc == ERR_NOT_FOUND)
		return rc == 0;
	core__event(c, LOG_LEVEL_WARN, "label.damaged", "seq=%" PRIu64 " rc=%d next=\"labelled again\"", seq, rc);
	c->stats.n_corrupt++;
	if ((op = core__op(c, CORE_OP_DROP_LABEL, seq)) != NULL)
		core__op_done(c, op, 0, 0);
	return false;
}

/* ---- life ---- */

int
core_check(const struct core_config *cfg, struct err_note *note)
{
	uint64_t L = cfg->corpus.context, row = (L + 1) * 4 + 10;

	if (cfg->record_max + 3 * L + 1024 <= cfg->max_message && row + 1024 <= cfg->max_message)
		return 0;
	return err_expect(note, ERR_CONFIG, "bus.max_message",
	    "space for one sequence: a label record of up to %" PRIu64 " bytes, %" PRIu64
	    " bytes of scores, %" PRIu64 " of tokens",
	    "%" PRIu32, cfg->record_max, 3 * L, row, cfg->max_message);
}

int
core_new(struct core **out, const struct core_config *cfg, const struct core_store *store, struct err_note *note)
{
	struct core *c = calloc(1, sizeof(*c));
	size_t L = cfg->corpus.context;
	int rc;

	*out = NULL;
	if (c == NULL)
		return ENOMEM;
	c->cfg = *cfg;
	if (c->cfg.quarantine_teachers == 0 || c->cfg.quarantine_teachers > CACHE_ATTEMPTS_MAX)
		c->cfg.quarantine_teachers = CACHE_ATTEMPTS_MAX;
	c->store = store;
	c->room = true;
	c->heldout_loss = NAN;
	c->same_model = hash_equal(cfg->label_set.teacher.hash, cfg->score_set.scorer.hash);
	c->loss = mem_alloc(L, sizeof(*c->loss));
	c->scratch = mem_alloc(L, sizeof(*c->scratch));
	c->rank = mem_alloc(L, 1);
	c->tokens = mem_alloc(L + 1, sizeof(*c->tokens));
	c->pick = core__pick_new();
	c->held = calloc(cfg->n_heldout + 1, 1);
	c->held_loss = calloc(cfg->n_heldout + 1, sizeof(*c->held_loss));
	if (c->loss == NULL || c->scratch == NULL || c->rank == NULL || c->tokens == NULL || c->held == NULL ||
	    c->held_loss == NULL || c->pick == NULL) {
		core_destroy(&c);
		return ENOMEM;
	}
	c->lease_rows = cfg->lease_rows < WIRE_SEQS_MAX ? cfg->lease_rows : WIRE_SEQS_MAX;
	if ((rc = core_check(cfg, note)) != 0 ||
	    (cfg->order == NULL && (rc = blend_new(&c->own_order, &cfg->corpus.n_windows, NULL, 1, note)) != 0)) {
		core_destroy(&c);
		return rc;
	}
	if (cfg->order == NULL)
		c->cfg.order = c->own_order;
	core__heldout_scan(c);
	*out = c;
	return 0;
}

void
core_destroy(struct core **core)
{
	struct core_seq *s, *next_seq;
	struct core_lease *l, *next_lease;
	struct core_known *k, *next_known;
	struct core *c = *core;

	if (c == NULL)
		return;
	core_clear(c);
	HASH_ITER(hh, c->leases, l, next_lease)
		core__lease_free(c, l);
	HASH_ITER(hh, c->seqs, s, next_seq) {
		seq_durable(s, WANT_SCORE | WANT_LABEL);
		HASH_DEL(c->seqs, s);
		free(s);
	}
	HASH_ITER(hh, c->known, k, next_known) {
		HASH_DEL(c->known, k);
		free(k);
	}
	for (struct core_peer *p; (p = c->peers) != NULL; free(p))
		c->peers = p->next;
	for (struct core_wait *w; (w = c->waits) != NULL; free(w))
		c->waits = w->next;
	for (struct core_pending *p; (p = c->pending) != NULL; free(p))
		c->pending = p->next;
	for (struct core_plan *p; (p = c->plans) != NULL; free(p)) {
		c->plans = p->next;
		core__blocks_close(p);
	}
	free(c->drop.plans);
	free(c->out.messages);
	free(c->out.ops);
	free(c->out.events);
	free(c->held);
	free(c->held_loss);
	free(c->loss);
	free(c->scratch);
	free(c->rank);
	free(c->tokens);
	free(c->pick);
	blend_destroy(&c->own_order);
	free(c);
	*core = NULL;
}

int
core_load_attempts(struct core *c, const struct cache_attempts *a)
{
	struct core_seq *s = core__seq(c, a->seq, true);

	if (s == NULL)
		return ENOMEM;
	s->single = true;
	s->n_failed = a->n_dead <= CACHE_ATTEMPTS_MAX ? a->n_dead : CACHE_ATTEMPTS_MAX;
	s->n_errors = a->n_errors;
	for (uint32_t i = 0; i < s->n_failed; i++)
		s->failed[i] = (struct core_failure){a->who[i], a->boot[i]};
	return 0;
}

int
core_load_quarantine(struct core *c, const struct cache_quarantine *q)
{
	struct core_seq *s = core__seq(c, q->seq, true);

	if (s == NULL)
		return ENOMEM;
	if (!s->quarantined) {
		c->stats.n_quarantined++;
		c->n_quarantined += CORPUS_SEQ_NO(q->seq) == CORPUS_TRAIN;
	}
	s->quarantined = true;
	return 0;
}

/* ---- peers ---- */

struct core_peer *
core__peer(struct core *c, uint64_t id)
{
	struct core_peer *p;

	DL_SEARCH_SCALAR(c->peers, p, id, id);
	return p;
}

struct core_peer *
core__boot(struct core *c, struct hash128 boot)
{
	struct core_peer *p;

	for (p = c->peers; p != NULL && !hash_equal(p->boot, boot); p = p->next)
		;
	return p;
}

struct core_plan *
core__plan(struct core *c, struct hash128 hash)
{
	struct core_plan *p;

	for (p = c->plans; p != NULL && !hash_equal(p->hash, hash); p = p->next)
		;
	return p;
}

void
core__peer_drop(struct core *c, uint64_t id)
{
	struct core_peer *p = core__peer(c, id);

	if (p != NULL) {
		if (p->plan != NULL)
			p->plan->n_peers--;
		DL_DELETE(c->peers, p);
		free(p);
	}
	core__waits_drop_peer(c, id);
}

bool
core__plan_active(const struct core_plan *plan)
{
	return !plan->released && (plan->n_peers > 0 || plan->left_open);
}

/* Pauses a plan for lack of memory: its peers are refused for now, and it rests until one of them returns. */
static void
plan_pause(struct core *c, struct core_plan *plan)
{
	for (struct core_peer *p = c->peers, *next; p != NULL; p = next) {
		next = p->next;
		if (p->plan == plan) {
			core__refuse_memory(c, p->id);
			core__peer_drop(c, p->id);
		}
	}
	plan->left_open = plan->no_memory = false;
}

static uint32_t
stored_mode(const struct core_plan *plan)
{
	return plan->wire.mode == WIRE_MODE_NONE ? CACHE_MODE_NONE : plan->wire.mode == WIRE_MODE_SALT_DS ? CACHE_MODE_SALT_DS :
	    plan->scored ? CACHE_MODE_SCORES : CACHE_MODE_LIST;
}

void
core__save_plan(struct core *c, const struct core_plan *plan)
{
	struct core_op *op = core__op(c, CORE_OP_PLAN, 0);

	if (op == NULL)
		return;
	op->plan = (struct cache_plan){
		.hash = plan->hash, .seed = plan->wire.seed, .batch = plan->wire.batch, .mode = stored_mode(plan), .k = plan->wire.k,
		.window = plan->window, .kept = plan->kept, .n_rows = plan->wire.n_rows, .keep = plan->wire.keep,
		.oldest_step = plan->oldest_step, .released_step = plan->released_step, .released = plan->released,
	};
	core__op_done(c, op, 0, 0);
}

/* ---- messages ---- */

/*
 * Counts, logs and refuses a message that this peer had no right to send. After CORE_MISUSE_MAX of them the
 * peer is disconnected.
 */
static void
misuse(struct core *c, struct core_peer *p, enum wire_type type, const char *expected, const char *found)
{
	struct core_message *m = core__send(c, p->id, WIRE_REFUSE);
	struct wire_refuse *r = &m->msg.refuse;

	c->stats.n_bad_messages++;
	p->n_misused++;
	r->code = EX_NOPERM;
	snprintf(r->field, sizeof(r->field), "%s", wire_type_name(type));
	snprintf(r->expected, sizeof(r->expected), "%s", expected);
	snprintf(r->found, sizeof(r->found), "%s", found);
	m->end = p->n_misused >= CORE_MISUSE_MAX;
	core__event(c, LOG_LEVEL_WARN, "message.refused", "name=%s role=%s message=%s expected=\"%s\" found=\"%s\"", p->name,
	    wire_role_name(p->role), r->field, expected, found);
	if (!m->end)
		return;
	c->stats.n_refused++;
	core__leases_back(c, p->boot);
	core__peer_drop(c, p->id);
}

/* Returns the plan if this peer opened it with its HELLO. NULL: not so, and the message was refused. */
static struct core_plan *
own_plan(struct core *c, struct core_peer *p, enum wire_type type, struct hash128 hash)
{
	char found[HASH_HEX_BYTES + 32], hex[HASH_HEX_BYTES];

	if (p->role == WIRE_ROLE_TRAINER && p->plan != NULL && hash_equal(p->plan->hash, hash))
		return p->plan;
	snprintf(found, sizeof(found), "%s, plan %s", wire_role_name(p->role), hash_hex(hash, hex));
	misuse(c, p, type, "a trainer, and the plan of its HELLO", found);
	return NULL;
}

static void
plan_message(struct core *c, struct core_peer *peer, const struct wire_message *msg, int64_t now_ms)
{
	bool release = msg->type == WIRE_RELEASE;
	uint64_t step = release ? msg->release.step : msg->checkpointed.step, steps;
	struct hash128 hash = release ? msg->release.plan_hash : msg->checkpointed.plan_hash;
	struct core_plan *plan = own_plan(c, peer, msg->type, hash);
	struct core_message *m;
	char hex[HASH_HEX_BYTES];

	if (plan == NULL)
		return;
	steps = plan->n_blocks * plan->kept / plan->wire.batch + 1;
	if (release)
		plan->undecided_ms = 0;
	if (release && !plan->released) {
		plan->released = true;
		plan->released_step = step;
		plan->released_ms = now_ms;
		crash_point("plan.release");
		core__blocks_close(plan);
		core__waits_drop_plan(c, plan);
		core__event(c, LOG_LEVEL_INFO, "plan.released", "plan=%s step=%" PRIu64, hash_hex(hash, hex), step);
		core__save_plan(c, plan);
	} else if (!release && step > plan->oldest_step) {
		crash_point("plan.checkpointed");
		plan->oldest_step = step < steps ? step : steps;	/* later steps have no rows */
		core__save_plan(c, plan);
	}
	m = core__send(c, peer->id, WIRE_ACK);
	m->msg.ack.request_id = release ? msg->release.request_id : msg->checkpointed.request_id;
	m->after = c->next_op;			/* also for a repeated message: the first record may not be on
						   the disk yet */
}

/*
 * Releases teachers when all plans are released, or when the teachers have been idle for a long time. A run
 * that ended with phase one and is then made longer opens a released plan and requests rows a moment later:
 * its teachers must not be released in between.
 */
static void
release_teachers(struct core *c, int64_t now_ms)
{
	bool all = c->plans != NULL;

	for (const struct core_plan *p = c->plans; p != NULL; p = p->next)
		all &= p->released && now_ms >= p->undecided_ms;
	for (struct core_peer *p = c->peers; p != NULL; p = p->next) {
		const char *why = NULL;
		bool holds = false;

		if (p->role != WIRE_ROLE_TEACHER || p->released)
			continue;
		for (const struct core_lease *l = all ? NULL : c->leases; l != NULL && !holds; l = l->hh.next)
			holds = !l->expired && hash_equal(l->boot, p->boot);
		if (all)
			why = "plans released";
		else if (holds)
			p->busy_ms = now_ms;
		else if (c->cfg.teacher_idle_ms > 0 && now_ms - p->busy_ms >= c->cfg.teacher_idle_ms)
			why = "idle";
		if (why == NULL)
			continue;
		p->released = true;
		crash_point("teacher.release");
		snprintf(core__send(c, p->id, WIRE_RELEASE_TEACHER)->msg.release_teacher.reason, WIRE_TEXT_MAX, "%s", why);
		core__event(c, LOG_LEVEL_INFO, "teacher.released", "name=%s reason=\"%s\"", p->name, why);
	}
}

/*
 * Called when a result is on the disk: its parts are no longer pending, and the blocks that wait for them are
 * updated.
 */
static void
result_durable(struct core *c, const struct core_pending *p)
{
	struct core_seq *s = core__seq(c, p->seq, false);

	if (s != NULL) {
		seq_durable(s, p->wants);
		if (s->op == p->no)
			s->op = 0;
		core__seq_forget(c, p->seq);
	}
	if (p->set == CACHE_SCORES_TEACHER)
		core__heldout_stored(c, p->seq);
	else
		core__seq_stored(c, p->seq, p->wants);
}

/* Processes one step of the records that are on the disk by now: a commit can contain thousands. */
static void
take_durable(struct core *c)
{
	struct core_pending *p;

	for (int n = 0; n < DURABLE_STEP && (p = c->pending) != NULL && p->no <= c->told_durable; n++) {
		DL_DELETE(c->pending, p);
		c->n_pending--;
		c->durable = p->no;
		c->stats.pending_bytes -= p->bytes;
		if (p->kind == CORE_OP_RESULT)
			result_durable(c, p);
		else if (p->kind == CORE_OP_ROWS)
			core__rows_written(c, p->plan, p->block);
		free(p);
		c->waits_due = true;
	}
	c->more |= c->pending != NULL && c->pending->no <= c->told_durable;
}

static void
settle(struct core *c, int64_t now_ms)
{
	c->more = c->work_due = false;
	take_durable(c);
	if (now_ms != c->scan_ms) {
		c->scan_ms = now_ms;
		c->scan_left = SCAN_STEP;
	}
	core__scan(c);
	if (c->room && !c->draining && c->stats.pending_bytes < PENDING_BYTES_MAX)
		core__grant(c, now_ms);
	core__waits_check(c);
	if (c->no_memory) {			/* work that could not be done is retried with the next
						   call */
		for (struct core_plan *p = c->plans; p != NULL; p = p->next)
			if (p->no_memory)
				plan_pause(c, p);
		c->no_memory = false;
		c->stats.n_no_memory++;
		core__event(c, LOG_LEVEL_ERROR, "memory", "next=\"will be retried\"");
	}
}

static void
teacher_message(struct core *c, struct core_peer *p, const struct wire_message *msg, int64_t now_ms)
{
	if (p->role != WIRE_ROLE_TEACHER) {
		misuse(c, p, msg->type, "a teacher", wire_role_name(p->role));
	} else if (msg->type == WIRE_LEASE_REQUEST) {
		p->credit = msg->lease_request.credit < 64 ? msg->lease_request.credit : 64;
	} else if (msg->type == WIRE_LEASE_RENEW) {
		core__lease_renew(c, p, &msg->lease_renew, now_ms);
	} else if (msg->type == WIRE_LEASE_RETURN) {
		core__lease_return(c, p, msg->lease_return.lease_id);
	} else {
		p->busy_ms = now_ms;
		core__result(c, p, msg, now_ms);
		core__teacher_check(c, p->known, now_ms);
	}
}

static void
bye(struct core *c, struct core_peer *p, const struct wire_bye *m)
{
	char quoted[120];

	core__event(c, LOG_LEVEL_INFO, "peer.bye", "name=%s reason=%s", p->name, log_quote(m->reason, quoted, sizeof(quoted)));
	if (p->plan != NULL)
		p->plan->left_open = true;
	core__leases_back(c, p->boot);
	core__peer_drop(c, p->id);
}

void
core_message(struct core *c, uint64_t id, const char *key, const struct wire_message *msg, int64_t now_ms)
{
	struct core_peer *p = core__peer(c, id);
	struct core_plan *plan;

	c->no_memory = false;
	if (msg->type == WIRE_HELLO) {
		core__hello(c, id, key, &msg->hello, now_ms);
		settle(c, now_ms);
		return;
	}
	if (p == NULL) {			/* selectord was restarted, or the peer was silent for too long */
		core__refuse(c, id, EX_TEMPFAIL, "unknown peer: send HELLO again", 100, "hello",
		    "HELLO first", "%s", wire_type_name(msg->type));
		return;
	}
	p->heard_ms = now_ms;
	switch (msg->type) {
	case WIRE_PING:
		core__send(c, id, WIRE_PONG)->msg.ping.nonce = msg->ping.nonce;
		return;
	case WIRE_BYE:
		bye(c, p, &msg->bye);
		break;
	case WIRE_LEASE_REQUEST:
	case WIRE_LEASE_RENEW:
	case WIRE_LEASE_RETURN:
	case WIRE_RESULT:
		teacher_message(c, p, msg, now_ms);
		/* Results are frequent, and change nothing for others before they are on the disk. */
		if (!c->work_due && (msg->type == WIRE_RESULT || msg->type == WIRE_LEASE_RENEW))
			return;
		break;
	case WIRE_ROWS_REQUEST:
		if ((plan = own_plan(c, p, msg->type, msg->rows_request.plan_hash)) != NULL)
			core__rows_request(c, p, plan, &msg->rows_request, now_ms);
		break;
	case WIRE_CHECKPOINTED:
	case WIRE_RELEASE:
		plan_message(c, p, msg, now_ms);
		break;
	case WIRE_DROP_LABELS:
		if (p->role == WIRE_ROLE_CLIENT)
			core__drop_labels(c, p, &msg->drop_labels);
		else
			misuse(c, p, msg->type, "a client", wire_role_name(p->role));
		break;
	default:
		misuse(c, p, msg->type, "a message type that peers send", wire_type_name(msg->type));
		break;
	}
	settle(c, now_ms);
}

void
core_gone(struct core *c, uint64_t peer)
{
	const struct core_peer *p = core__peer(c, peer);

	if (p != NULL)			/* NULL after BYE and after a final REFUSE */
		core__event(c, LOG_LEVEL_INFO, "peer.lost", "name=%s role=%s host=%s", p->name, wire_role_name(p->role), p->host);
	core__peer_drop(c, peer);
}

void
core_durable(struct core *c, uint64_t no, int64_t now_ms)
{
	c->told_durable = no;
	settle(c, now_ms);
}

void
core_room(struct core *c, bool room, int64_t now_ms)
{
	if (c->room != room)
		core__event(c, LOG_LEVEL_WARN, room ? "disk.room" : "disk.full", "leases=%s rows=served", room ? "granted" : "stopped");
	c->room = room;
	settle(c, now_ms);
}

void
core_drain(struct core *c, int64_t now_ms)
{
	c->draining = true;
	settle(c, now_ms);
}

void
core_tick(struct core *c, int64_t now_ms)
{
	for (struct core_peer *p = c->peers, *next; p != NULL; p = next) {
		next = p->next;
		if (now_ms - p->heard_ms > CORE_SILENT_MS) {
			core__event(c, LOG_LEVEL_INFO, "peer.silent", "name=%s role=%s", p->name, wire_role_name(p->role));
			core__peer_drop(c, p->id);
		}
	}
	core__leases_tick(c, now_ms);
	release_teachers(c, now_ms);
	c->waits_due = true;
	settle(c, now_ms);
}

int64_t
core_wait_ms(const struct core *c)
{
	return c->more ? 0 : c->scan_left <= 0 ? 1 : INT64_MAX;
}
