/* SPDX-License-Identifier: Apache-2.0 */
/* Leases: granted, renewed, returned, expired; and the results of teachers. */
#include "selectord/core_internal.h"
#include "base/err/crash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/labels/labels.h"
#include "base/mem/mem.h"

#define ERROR_PAUSE_MS 1000		/* pause before a sequence is leased again, times the number of errors
					   reported for it */
#define ERROR_PAUSES 60

static const char *
wants_name(uint8_t wants)
{
	return wants == WANT_SCORE ? "score" : wants == WANT_LABEL ? "label" : "both";
}

static struct core_lease *
lease_find(struct core *c, uint64_t id, struct hash128 boot)
{
	struct core_lease *l;

	HASH_FIND(hh, c->leases, &id, sizeof(id), l);
	return l != NULL && hash_equal(l->boot, boot) ? l : NULL;
}

/* Removes a lease from the counts of live ones. */
static void
lease_over(struct core *c, const struct core_lease *l)
{
	if (l->expired)
		return;
	c->n_live--;
	c->n_single -= l->single;
}

void
core__lease_free(struct core *c, struct core_lease *l)
{
	lease_over(c, l);
	c->work_due |= l->single;
	HASH_DEL(c->leases, l);
	free(l->seqs);
	free(l->open);
	free(l);
}

bool
core__holds_single(const struct core *c, struct hash128 boot)
{
	for (const struct core_lease *l = c->n_single > 0 ? c->leases : NULL; l != NULL; l = l->hh.next)
		if (l->single && !l->expired && hash_equal(l->boot, boot))
			return true;
	return false;
}

/* Adds the sequences that can be leased, with their tokens; the others stay free. */
static void
lease_fill(struct core *c, struct core_lease *l, const uint64_t *seqs, size_t n, int32_t *tokens, uint64_t *sent)
{
	uint32_t L = c->cfg.corpus.context;

	for (size_t i = 0; i < n; i++) {
		struct core_seq *s = core__seq(c, seqs[i], true);
		int rc;

		if (s == NULL) {
			core__seq_free(c, seqs[i]);
			continue;
		}
		if ((rc = c->store->tokens(c->store->arg, seqs[i], tokens + l->n * (L + 1))) != 0) {
			char reason[96];

			snprintf(reason, sizeof(reason), "the corpus cannot provide this sequence: %s",
			    err_str(rc));
			core__quarantine(c, s, reason);
			core__seq_free(c, seqs[i]);
			core__seq_forget(c, seqs[i]);
			continue;
		}
		s->flight |= l->wants;
		l->open[l->n] = true;
		sent[l->n] = l->seqs[l->n] = seqs[i];
		l->n++;
	}
}

bool
core__lease_new(struct core *c, struct core_peer *peer, uint8_t wants, enum cache_scores set, const uint64_t *seqs, size_t n, bool single,
    int64_t now_ms)
{
	uint32_t L = c->cfg.corpus.context;
	struct core_lease *l = calloc(1, sizeof(*l));
	struct core_message *m;
	struct wire_lease *w;
	int32_t *tokens = mem_alloc(n * (L + 1), sizeof(*tokens));
	uint64_t *sent = mem_alloc(n, sizeof(*sent));

	if (l == NULL || tokens == NULL || sent == NULL || (l->seqs = malloc(n * sizeof(*l->seqs))) == NULL ||
	    (l->open = malloc(n * sizeof(*l->open))) == NULL) {
		c->no_memory = true;
		for (size_t i = 0; i < n; i++)
			core__seq_free(c, seqs[i]);
		goto fail;
	}
	l->wants = wants;
	lease_fill(c, l, seqs, n, tokens, sent);
	if (l->n == 0)
		goto fail;
	l->id = ++c->next_lease;
	HASH_ADD(hh, c->leases, id, sizeof(l->id), l);
	if (l->hh.tbl == NULL) {
		for (size_t i = 0; i < l->n; i++) {
			core__seq(c, l->seqs[i], false)->flight &= (uint8_t)~wants;
			core__seq_free(c, l->seqs[i]);
			core__seq_forget(c, l->seqs[i]);
		}
		goto fail;
	}
	l->n_open = l->n;
	l->boot = peer->boot;
	l->who = peer->known->who;
	l->set = set;
	l->single = single;
	l->granted_ms = l->moved_ms = now_ms;
	l->expires_ms = now_ms + c->cfg.lease_ms;
	c->n_live++;
	c->n_single += l->single;
	/* The attempts must be on the disk before the next teacher gets the sequence. */
	if (single)
		core__save_attempts(c, core__seq(c, l->seqs[0], false));
	m = core__send(c, peer->id, WIRE_LEASE);
	crash_point("lease.new");
	m->after = single ? c->next_op : 0;
	m->memory[0] = tokens;
	m->memory[1] = sent;
	w = &m->msg.lease;
	w->lease_id = l->id;
	w->model = set == CACHE_SCORES_TEACHER || (wants & WANT_SCORE) == 0 ? c->cfg.label_set.teacher.hash : c->cfg.score_set.scorer.hash;
	w->want_score = (wants & WANT_SCORE) != 0;
	w->want_label = (wants & WANT_LABEL) != 0;
	w->seqs = sent;
	w->n_seqs = l->n;
	w->tokens = tokens;
	w->context = L;
	w->lease_ms = c->cfg.lease_ms;
	if (w->want_label)
		w->label_set = c->cfg.label_set;
	w->n_valid = c->cfg.n_valid;
	w->document_end = c->cfg.corpus.document_end;
	c->stats.n_leases_granted++;
	core__event(c, LOG_LEVEL_DEBUG, "lease.granted",
	    "lease=%" PRIu64 " to=%s wants=%s seqs=%zu single=%d", l->id, peer->name, wants_name(wants), l->n,
	    single);
	return true;
fail:
	if (l != NULL) {
		free(l->seqs);
		free(l->open);
	}
	free(l);
	free(tokens);
	free(sent);
	return false;
}

/*
 * Whether all that the lease asked for of this sequence is stored by now, from a late result or another
 * lease.
 */
static bool
stored(struct core *c, const struct core_lease *l, uint64_t seq)
{
	struct cache_bytes v;

	if ((l->wants & WANT_SCORE) != 0 && c->store->scores(c->store->arg, l->set, seq, &v) != 0)
		return false;
	return (l->wants & WANT_LABEL) == 0 || c->store->label(c->store->arg, seq, &v) == 0;
}

/*
 * Ends a lease; its sequences without a result can be leased again. vanished: the holder did not return it.
 */
static void
lease_end(struct core *c, struct core_lease *l, bool vanished)
{
	bool alone = l->n == 1;

	for (size_t i = 0; i < l->n; i++) {
		struct core_seq *s = core__seq(c, l->seqs[i], false);

		if (!l->open[i] || s == NULL)
			continue;
		if (s->pending == 0 || (s->pending & l->wants) != l->wants)
			s->flight &= (uint8_t)~(l->wants & (uint8_t)~s->pending);
		if (vanished && !s->quarantined && s->pending == 0 && !stored(c, l, s->seq)) {
			uint32_t n = s->n_failed;

			s->single = true;
			if (alone)
				core__seq_failed(c, s, l->who, &l->boot,
				    "teachers disconnected while only they held this sequence");
			if (s->n_failed > n) {
				c->stats.n_dead++;
				core__event(c, LOG_LEVEL_WARN, "seq.holder_lost", "seq=%" PRIu64 " times=%" PRIu32, s->seq, s->n_failed);
			}
		}
		core__seq_free(c, l->seqs[i]);
		core__seq_forget(c, l->seqs[i]);
	}
}

void
core__lease_renew(struct core *c, struct core_peer *peer, const struct wire_lease_renew *m, int64_t now_ms)
{
	struct core_lease *l = lease_find(c, m->lease_id, peer->boot);
	int64_t stalled, longest;

	if (l == NULL || l->expired)
		return;
	if (m->progress != l->progress) {
		l->progress = m->progress;
		l->moved_ms = now_ms;
	}
	stalled = l->moved_ms + (int64_t)WIRE_LEASE_STALLED * c->cfg.lease_ms;
	longest = l->granted_ms + (int64_t)WIRE_LEASE_LONGEST * c->cfg.lease_ms;
	l->expires_ms = now_ms + c->cfg.lease_ms;
	if (l->expires_ms > stalled)
		l->expires_ms = stalled;
	if (l->expires_ms > longest)
		l->expires_ms = longest;
}

/* Called when the holder gives up a lease. An expired lease was counted when it expired. */
static void
lease_return(struct core *c, struct core_lease *l)
{
	if (!l->expired) {
		lease_end(c, l, false);
		c->stats.n_leases_returned++;
	}
	core__lease_free(c, l);
}

void
core__lease_return(struct core *c, struct core_peer *peer, uint64_t id)
{
	struct core_lease *l = lease_find(c, id, peer->boot);

	if (l != NULL)
		lease_return(c, l);
}

void
core__leases_back(struct core *c, struct hash128 boot)
{
	struct core_lease *l, *next;

	HASH_ITER(hh, c->leases, l, next) {
		if (hash_equal(l->boot, boot))
			lease_return(c, l);
	}
}

void
core__boot_back(struct core *c, struct hash128 boot)
{
	for (struct core_seq *s = c->seqs; s != NULL; s = s->hh.next) {
		uint32_t kept = 0;

		for (uint32_t j = 0; j < s->n_failed; j++)
			if (!hash_equal(s->failed[j].boot, boot))
				s->failed[kept++] = s->failed[j];
		if (kept == s->n_failed || s->quarantined)
			continue;
		s->n_failed = kept;
		core__save_attempts(c, s);
		core__event(c, LOG_LEVEL_INFO, "seq.holder_back", "seq=%" PRIu64 " times=%" PRIu32, s->seq,
		    s->n_failed);
	}
}

void
core__leases_tick(struct core *c, int64_t now_ms)
{
	struct core_lease *l, *next;

	HASH_ITER(hh, c->leases, l, next) {
		if (!l->expired && now_ms >= l->expires_ms) {
			lease_over(c, l);
			l->expired = true;
			c->stats.n_leases_expired++;
			core__event(c, LOG_LEVEL_WARN, "lease.expired", "lease=%" PRIu64 " wants=%s seqs=%zu open=%zu", l->id, wants_name(l->wants), l->n,
			    l->n_open);
			lease_end(c, l, true);
		}
		/* An expired lease is kept for a while: a late result is accepted. */
		if (l->expired && (l->n_open == 0 || now_ms >= l->expires_ms + 10 * (int64_t)c->cfg.lease_ms))
			core__lease_free(c, l);
	}
}

/* ---- results ---- */

/*
 * Handles an error that a teacher reported. After its first one, a teacher's error counts as a failure of the
 * sequence only while the teacher delivers as many sequences as it reports errors: a teacher that fails on
 * everything shows nothing about a sequence.
 */
static void
row_error(struct core *c, struct core_peer *peer, struct core_lease *l, struct core_seq *s, const char *text, int64_t now_ms)
{
	struct core_known *k = peer->known;
	/* a bad sequence counts once against a teacher */
	bool again = s->n_errors > 0 && hash_equal(s->error_who, k->who);
	uint32_t n = s->n_failed;

	for (uint32_t i = 0; i < n; i++)
		again |= hash_equal(s->failed[i].who, k->who);
	c->stats.n_errors++;
	k->n_errors += !again;
	s->n_errors++;
	s->error_who = k->who;
	core__event(c, LOG_LEVEL_WARN, "seq.error", "seq=%" PRIu64 " teacher=%s error=\"%.150s\"", s->seq, k->label, text);
	s->flight &= (uint8_t)~l->wants;
	s->not_before_ms = now_ms + ERROR_PAUSE_MS * (int64_t)(s->n_errors < ERROR_PAUSES ? s->n_errors : ERROR_PAUSES);
	if (k->n_errors <= k->n_good + 1)
		core__seq_failed(c, s, k->who, NULL, text);
	if (s->n_failed == n)
		core__save_attempts(c, s);
	core__seq_free(c, s->seq);
}

static bool
same(const void *a, size_t a_len, const void *b, size_t b_len)
{
	return a_len == b_len && memcmp(a, b, a_len) == 0;
}

/*
 * Tells whether one part of a result (scores or label) is known already: STORED, or COMING (on its way to the
 * disk). Sets *differs if the known part has other bytes.
 */
enum known { NEW, COMING, STORED };

static enum known
part_known(int rc, const struct cache_bytes *stored_bytes, bool pending, const struct core_copy *coming,
    const struct wire_bytes *got, bool *differs)
{
	if (rc == 0) {
		*differs |= !same(stored_bytes->bytes, stored_bytes->len, got->bytes, got->len);
		return STORED;
	}
	if (!pending)
		return NEW;
	*differs |= !same(coming->bytes, coming->len, got->bytes, got->len);
	return COMING;
}

static void
bad_row(struct core *c, struct core_peer *peer, const struct core_lease *l, uint64_t seq, const char *why)
{
	c->stats.n_bad_results++;
	peer->known->n_bad++;
	core__event(c, LOG_LEVEL_WARN, "result.bad",
	    "teacher=%s lease=%" PRIu64 " seq=%" PRIu64 " why=\"%s\"", peer->name, l->id, seq, why);
}

/* Checks that the row has what its lease asked for, and that it is valid. 0, or an error with a note. */
static int
check_row(struct core *c, const struct core_lease *l, const struct wire_result_row *row, struct err_note *note)
{
	int rc = 0;

	if (((l->wants & WANT_SCORE) != 0 && row->scores.len == 0) || ((l->wants & WANT_LABEL) != 0 && row->label.len == 0))
		return err_note_set(note, ERR_FORMAT, "a requested part is missing");
	if ((l->wants & WANT_SCORE) != 0)
		rc = labels_scores_decode(row->scores.bytes, row->scores.len, c->cfg.corpus.context, NULL,
		    NULL, note);
	if (rc == 0 && (l->wants & WANT_LABEL) != 0)
		rc = c->store->check_label(c->store->arg, row->seq, row->label.bytes, row->label.len, note);
	return rc;
}

static void
keep_copy(struct core_copy *copy, struct mem_arena *arena, const struct wire_bytes *bytes)
{
	mem_arena_destroy(&copy->held);
	*copy = (struct core_copy){mem_arena_hold(arena), bytes->bytes, bytes->len};
}

/* Makes a record of the parts of a result that are not known yet. false: no memory. */
static bool
store_row(struct core *c, const struct core_lease *l, struct core_seq *s, const struct wire_message *msg,
    const struct wire_result_row *row, bool scores, bool label)
{
	bool suspect = s->single || s->n_failed > 0 || s->n_errors > 0;
	struct core_op *op = core__op(c, CORE_OP_RESULT, row->seq);

	if (op == NULL)
		return false;
	op->set = l->set;
	op->held = mem_arena_hold(msg->arena);
	if (scores) {
		op->scores = row->scores.bytes;
		op->scores_len = row->scores.len;
		keep_copy(&s->scores, msg->arena, &row->scores);
	}
	if (label) {
		op->label = row->label.bytes;
		op->label_len = row->label.len;
		keep_copy(&s->label, msg->arena, &row->label);
	}
	core__op_done(c, op, l->wants & (uint8_t)~s->pending, op->scores_len + op->label_len);
	s->op = c->next_op;
	s->pending |= l->wants;
	s->flight |= l->wants;
	s->single = false;
	s->n_failed = s->n_errors = 0;
	if (suspect && (op = core__op(c, CORE_OP_DROP_ATTEMPTS, row->seq)) != NULL)
		core__op_done(c, op, 0, 0);
	c->stats.n_scores += scores;
	c->stats.n_labels += label;
	c->stats.n_label_bytes += label ? row->label.len : 0;
	return true;
}

/*
 * Handles one row of a result. 0: acknowledge it when record *after is on the disk. ENOMEM: nothing has
 * changed; the teacher sends it again, or its lease expires. ERR_FORMAT: the row is wrong.
 */
static int
result_row(struct core *c, struct core_peer *peer, struct core_lease *l, const struct wire_message *msg, const struct wire_result_row *row,
    uint64_t *after, int64_t now_ms)
{
	enum known scores = STORED, label = STORED;
	struct cache_bytes stored_bytes = {NULL, 0};
	struct err_note note = {0};
	bool differs = false, open;
	struct core_seq *s;
	char text[300];
	size_t at;
	int rc;

	for (at = 0; at < l->n && l->seqs[at] != row->seq; at++)
		;
	if (at == l->n) {
		bad_row(c, peer, l, row->seq, "not in this lease");
		return ERR_FORMAT;
	}
	if ((s = core__seq(c, row->seq, true)) == NULL)
		return ENOMEM;
	if (row->error[0] != '\0') {
		if (l->open[at]) {
			l->open[at] = false;
			l->n_open--;
			if (!l->expired)
				row_error(c, peer, l, s, row->error, now_ms);
		}
		return 0;			/* this teacher has nothing more to send for it */
	}
	if ((rc = check_row(c, l, row, &note)) != 0) {
		if (rc != ENOMEM)
			bad_row(c, peer, l, row->seq, err_note_str(&note, rc, text, sizeof(text)));
		core__seq_forget(c, row->seq);
		return rc == ENOMEM ? ENOMEM : ERR_FORMAT;
	}
	if ((l->wants & WANT_SCORE) != 0) {
		rc = c->store->scores(c->store->arg, l->set, row->seq, &stored_bytes);
		scores = part_known(rc, &stored_bytes, (s->pending & WANT_SCORE) != 0, &s->scores,
		    &row->scores, &differs);
	}
	if ((l->wants & WANT_LABEL) != 0) {
		rc = c->store->label(c->store->arg, row->seq, &stored_bytes);
		label = part_known(rc, &stored_bytes, (s->pending & WANT_LABEL) != 0, &s->label, &row->label,
		    &differs);
	}
	if ((open = l->open[at])) {
		l->open[at] = false;
		l->n_open--;
	}
	if (differs) {
		c->stats.n_differed++;
		core__event(c, LOG_LEVEL_WARN, "result.differs",
		    "teacher=%s seq=%" PRIu64 " kept=\"the first one\"", peer->name, row->seq);
	}
	if (scores != NEW && label != NEW) {
		c->stats.n_duplicates++;
		if ((scores == COMING || label == COMING) && s->op > *after)
			*after = s->op;
		if (s->pending == 0)
			s->flight &= (uint8_t)~l->wants;
		core__seq_forget(c, row->seq);
		return 0;
	}
	if (!store_row(c, l, s, msg, row, scores == NEW, label == NEW)) {
		l->open[at] = open;
		l->n_open += open;
		core__seq_forget(c, row->seq);
		return ENOMEM;
	}
	peer->known->n_good++;
	*after = s->op;
	return 0;
}

void
core__result(struct core *c, struct core_peer *peer, const struct wire_message *msg, int64_t now_ms)
{
	const struct wire_result *m = &msg->result;
	struct core_lease *l = lease_find(c, m->lease_id, peer->boot);
	struct core_message *out;
	uint64_t *seqs = malloc(m->n_rows * sizeof(*seqs)), after = 0;
	size_t n = 0;
	bool no_memory = false;

	if (seqs == NULL) {
		core__refuse_memory(c, peer->id);
		return;
	}
	crash_point("lease.rows");
	for (size_t i = 0; i < m->n_rows && l != NULL; i++) {
		int rc = result_row(c, peer, l, msg, &m->rows[i], &after, now_ms);

		if (rc == 0)
			seqs[n++] = m->rows[i].seq;
		no_memory |= rc == ENOMEM;
	}
	if (no_memory)				/* refused for now: it sends HELLO again, and then again what
						   is not acknowledged */
		core__refuse_memory(c, peer->id);
	if (l == NULL) {
		/*
		 * A forgotten lease, or one of an earlier selectord: only what is stored can be acknowledged.
		 */
		for (size_t i = 0; i < m->n_rows; i++) {
			struct cache_bytes v;

			if ((m->rows[i].label.len == 0 || c->store->label(c->store->arg, m->rows[i].seq, &v) == 0) &&
			    (m->rows[i].scores.len == 0 || c->store->scores(c->store->arg, CACHE_SCORES_SCORER, m->rows[i].seq, &v) == 0 ||
			     c->store->scores(c->store->arg, CACHE_SCORES_TEACHER, m->rows[i].seq, &v) == 0))
				seqs[n++] = m->rows[i].seq;
		}
		c->stats.n_duplicates += n;
	}
	if (l != NULL && l->n_open == 0)
		core__lease_free(c, l);
	if (n == 0) {
		free(seqs);
		return;
	}
	out = core__send(c, peer->id, WIRE_DONE);
	out->msg.done.lease_id = m->lease_id;
	out->msg.done.seqs = seqs;
	out->msg.done.n_seqs = n;
	out->memory[0] = seqs;
	out->after = after;
}
