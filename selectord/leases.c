/* Leases: granted, renewed, returned, expired; results and what they say about a sequence. */
#include "selectord/core_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/labels/labels.h"
#include "base/mem/mem.h"

#define ERROR_PAUSE_MS 1000		/* after an error report, times the number of them: not leased again before */

static const char *
wants_name(uint8_t wants)
{
	return wants == WANT_SCORE ? "score" : wants == WANT_LABEL ? "label" : "both";
}

static struct core_lease *
lease_find(struct core *c, uint64_t id, struct hash128 boot)
{
	struct core_lease *l;

	for (l = c->lease_at[id % LEASE_BUCKETS]; l != NULL && (l->id != id || !hash_equal(l->boot, boot)); l = l->chain)
		;
	return l;
}

static void
lease_add(struct core *c, struct core_lease *l)
{
	struct core_lease **bucket = &c->lease_at[l->id % LEASE_BUCKETS];

	if ((l->next = c->leases) != NULL)
		l->next->prev = l;
	c->leases = l;
	l->chain = *bucket;
	*bucket = l;
	c->n_live++;
	c->n_single += l->single;
}

/* It counts no more among those that teachers hold. */
static void
lease_over(struct core *c, const struct core_lease *l)
{
	if (l->expired)
		return;
	c->n_live--;
	c->n_single -= l->single;
}

static void
lease_free(struct core *c, struct core_lease *l)
{
	struct core_lease **at = &c->lease_at[l->id % LEASE_BUCKETS];

	lease_over(c, l);
	while (*at != l)
		at = &(*at)->chain;
	*at = l->chain;
	*(l->prev != NULL ? &l->prev->next : &c->leases) = l->next;
	if (l->next != NULL)
		l->next->prev = l->prev;
	free(l->seqs);
	free(l->open);
	free(l);
}

bool
core__holds_single(const struct core *c, struct hash128 boot)
{
	for (const struct core_lease *l = c->n_single > 0 ? c->leases : NULL; l != NULL; l = l->next)
		if (l->single && !l->expired && hash_equal(l->boot, boot))
			return true;
	return false;
}

static void
save_attempts(struct core *c, const struct core_seq *s)
{
	struct core_op *op = core__op(c, CORE_OP_ATTEMPTS);

	if (op == NULL)
		return;
	op->seq = op->attempts.seq = s->seq;
	op->attempts.n_dead = s->n_dead;
	op->attempts.n_errors = s->n_errors;
	memcpy(op->attempts.boot, s->boot, sizeof(s->boot));
	core__op_done(c, op, 0, 0);
}

static void
quarantine(struct core *c, struct core_seq *s, const char *reason)
{
	struct core_op *op;

	if (s->quarantined)
		return;
	s->quarantined = true;
	c->stats.n_quarantined++;
	core__event(c, LOG_LEVEL_ERROR, "seq.quarantined", "seq=%" PRIu64 " reason=\"%.200s\"", s->seq, reason);
	if ((op = core__op(c, CORE_OP_QUARANTINE)) == NULL)
		return;
	op->seq = op->quarantine.seq = s->seq;		/* since_s is the writer's: there is no clock here */
	snprintf(op->quarantine.reason, sizeof(op->quarantine.reason), "%s", reason);
	core__op_done(c, op, 0, 0);
	core__seq_quarantined(c, s->seq);
}

void
core__lease_new(struct core *c, struct core_peer *peer, uint8_t wants, enum cache_scores set, const uint64_t *seqs, size_t n, bool single,
    int64_t now_ms)
{
	uint32_t L = c->cfg.corpus.context;
	struct core_lease *l = calloc(1, sizeof(*l));
	struct core_message *m;
	struct wire_lease *w;
	int32_t *tokens = mem_alloc(n * (L + 1), sizeof(*tokens));
	uint64_t *sent = mem_alloc(n, sizeof(*sent));
	int rc;

	if (l == NULL || tokens == NULL || sent == NULL || (l->seqs = malloc(n * sizeof(*l->seqs))) == NULL ||
	    (l->open = malloc(n * sizeof(*l->open))) == NULL) {
		if (l != NULL)
			free(l->seqs);
		free(l);
		free(tokens);
		free(sent);
		c->failed = true;
		return;
	}
	for (size_t i = 0; i < n; i++) {
		struct core_seq *s = core__seq(c, seqs[i], true);

		if (s == NULL)
			break;
		if ((rc = c->store->tokens(c->store->arg, seqs[i], tokens + l->n * (L + 1))) != 0) {
			char reason[96];

			snprintf(reason, sizeof(reason), "the corpus cannot give it: %s", err_str(rc));
			quarantine(c, s, reason);
			continue;
		}
		s->flight |= wants;
		l->open[l->n] = true;
		sent[l->n] = l->seqs[l->n] = seqs[i];
		l->n++;
	}
	l->n_open = l->n;
	l->id = ++c->next_lease;
	l->boot = peer->boot;
	l->wants = wants;
	l->set = set;
	l->single = single;
	l->granted_ms = l->moved_ms = now_ms;
	l->expires_ms = now_ms + c->cfg.lease_ms;
	lease_add(c, l);
	if (l->n == 0) {
		lease_free(c, l);
		free(tokens);
		free(sent);
		return;
	}
	/* From the second grant on the attempt is on the disk before the teacher has the sequence. */
	if (single)
		save_attempts(c, core__seq(c, l->seqs[0], true));
	m = core__send(c, peer->id, WIRE_LEASE);
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
	c->stats.n_leases_granted++;
	core__event(c, LOG_LEVEL_DEBUG, "lease.granted", "lease=%" PRIu64 " to=%s wants=%s seqs=%zu single=%d", l->id, peer->name, wants_name(wants),
	    l->n, single);
}

/* Is what the lease wanted of this sequence stored by now (by a late result, by another lease)? */
static bool
stored(struct core *c, const struct core_lease *l, uint64_t seq)
{
	struct cache_bytes v;

	if ((l->wants & WANT_SCORE) != 0 && c->store->scores(c->store->arg, l->set, seq, &v) != 0)
		return false;
	return (l->wants & WANT_LABEL) == 0 || c->store->label(c->store->arg, seq, &v) == 0;
}

/* The lease is over; what is open goes back to be leased again. vanished: its holder said nothing. */
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
			bool known = false;

			s->single = true;
			for (uint32_t j = 0; j < s->n_dead; j++)
				known |= hash_equal(s->boot[j], l->boot);
			if (alone && !known && s->n_dead < CACHE_ATTEMPTS_MAX) {
				s->boot[s->n_dead++] = l->boot;
				c->stats.n_dead++;
				save_attempts(c, s);
				core__event(c, LOG_LEVEL_WARN, "seq.holder_lost", "seq=%" PRIu64 " times=%" PRIu32, s->seq, s->n_dead);
			}
			if (s->n_dead >= CORE_DEAD_MAX)
				quarantine(c, s, "three different teachers vanished with it alone in hand");
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
	stalled = l->moved_ms + (int64_t)CORE_LEASE_STALLED * c->cfg.lease_ms;
	longest = l->granted_ms + (int64_t)CORE_LEASE_LONGEST * c->cfg.lease_ms;
	l->expires_ms = now_ms + c->cfg.lease_ms;
	if (l->expires_ms > stalled)
		l->expires_ms = stalled;
	if (l->expires_ms > longest)
		l->expires_ms = longest;
}

void
core__lease_return(struct core *c, struct core_peer *peer, uint64_t id, int64_t now_ms)
{
	struct core_lease *l = lease_find(c, id, peer->boot);

	(void)now_ms;
	if (l == NULL)
		return;
	if (!l->expired)
		lease_end(c, l, false);
	c->stats.n_leases_returned++;
	lease_free(c, l);
}

void
core__leases_back(struct core *c, struct hash128 boot, int64_t now_ms)
{
	(void)now_ms;
	for (struct core_lease *l = c->leases, *next; l != NULL; l = next) {
		next = l->next;
		if (!hash_equal(l->boot, boot))
			continue;
		if (!l->expired)
			lease_end(c, l, false);
		c->stats.n_leases_returned++;
		lease_free(c, l);
	}
}

void
core__boot_back(struct core *c, struct hash128 boot)
{
	for (size_t i = 0; i < c->seqs_cap; i++)
		for (struct core_seq *s = c->seqs[i]; s != NULL; s = s->next) {
			uint32_t kept = 0;

			for (uint32_t j = 0; j < s->n_dead; j++)
				if (!hash_equal(s->boot[j], boot))
					s->boot[kept++] = s->boot[j];
			if (kept == s->n_dead || s->quarantined)
				continue;
			s->n_dead = kept;
			save_attempts(c, s);
			core__event(c, LOG_LEVEL_INFO, "seq.holder_back", "seq=%" PRIu64 " times=%" PRIu32, s->seq, s->n_dead);
		}
}

void
core__leases_tick(struct core *c, int64_t now_ms)
{
	for (struct core_lease *l = c->leases, *next; l != NULL; l = next) {
		next = l->next;
		if (!l->expired && now_ms >= l->expires_ms) {
			lease_over(c, l);
			l->expired = true;
			c->stats.n_leases_expired++;
			core__event(c, LOG_LEVEL_WARN, "lease.expired", "lease=%" PRIu64 " wants=%s seqs=%zu open=%zu", l->id, wants_name(l->wants), l->n,
			    l->n_open);
			lease_end(c, l, true);
		}
		/* An expired one is kept for a while: a late result is as good as any. */
		if (l->expired && (l->n_open == 0 || now_ms >= l->expires_ms + 10 * (int64_t)c->cfg.lease_ms))
			lease_free(c, l);
	}
}

/* ---- results ---- */

static void
row_error(struct core *c, struct core_peer *peer, struct core_lease *l, struct core_seq *s, const char *text, int64_t now_ms)
{
	char reason[96];
	bool other = s->n_errors > 0 && !hash_equal(s->error_boot, peer->boot);

	c->stats.n_errors++;
	if (s->n_errors++ == 0)
		s->error_boot = peer->boot;
	core__event(c, LOG_LEVEL_WARN, "seq.error", "seq=%" PRIu64 " teacher=%s error=\"%.150s\"", s->seq, peer->name, text);
	s->flight &= (uint8_t)~l->wants;
	s->not_before_ms = now_ms + ERROR_PAUSE_MS * (int64_t)s->n_errors;
	if (other || s->n_errors >= CORE_ERRORS_MAX) {
		snprintf(reason, sizeof(reason), "teachers report: %.70s", text);
		quarantine(c, s, reason);
	} else {
		save_attempts(c, s);
	}
	core__seq_free(c, s->seq);
}

/* One row of a result. true: it is to be acknowledged (durable after *after). */
static bool
result_row(struct core *c, struct core_peer *peer, struct core_lease *l, const struct wire_message *msg, const struct wire_result_row *row,
    uint64_t *after, int64_t now_ms)
{
	uint32_t L = c->cfg.corpus.context;
	struct cache_bytes old_scores, old_label;
	bool have_scores, have_label, suspect;
	struct err_note note = {0};
	struct core_seq *s;
	struct core_op *op;
	size_t at, bytes;
	int rc = 0;

	for (at = 0; at < l->n && l->seqs[at] != row->seq; at++)
		;
	if (at == l->n || (s = core__seq(c, row->seq, true)) == NULL) {
		c->stats.n_bad_results++;
		peer->n_bad++;
		core__event(c, LOG_LEVEL_WARN, "result.bad", "teacher=%s lease=%" PRIu64 " seq=%" PRIu64 " why=\"not of this lease\"", peer->name, l->id,
		    row->seq);
		return false;
	}
	if (row->error[0] != '\0') {
		if (l->open[at]) {
			l->open[at] = false;
			l->n_open--;
			if (!l->expired)
				row_error(c, peer, l, s, row->error, now_ms);
		}
		return true;			/* heard; nothing more is wanted from this teacher */
	}
	if (((l->wants & WANT_SCORE) != 0 && row->scores.len == 0) || ((l->wants & WANT_LABEL) != 0 && row->label.len == 0))
		rc = err_note_set(&note, ERR_FORMAT, "a part that was asked for is missing");
	if (rc == 0 && (l->wants & WANT_SCORE) != 0)
		rc = labels_scores_decode(row->scores.bytes, row->scores.len, L, NULL, NULL, &note);
	if (rc == 0 && (l->wants & WANT_LABEL) != 0)
		rc = c->store->check_label(c->store->arg, row->seq, row->label.bytes, row->label.len, &note);
	if (rc != 0) {
		char text[300];

		c->stats.n_bad_results++;
		peer->n_bad++;
		core__event(c, LOG_LEVEL_WARN, "result.bad", "teacher=%s lease=%" PRIu64 " seq=%" PRIu64 " why=\"%s\"", peer->name, l->id, row->seq,
		    err_note_str(&note, rc, text, sizeof(text)));
		core__seq_forget(c, row->seq);
		return false;
	}
	have_scores = (l->wants & WANT_SCORE) == 0 || c->store->scores(c->store->arg, l->set, row->seq, &old_scores) == 0;
	have_label = (l->wants & WANT_LABEL) == 0 || c->store->label(c->store->arg, row->seq, &old_label) == 0;
	if (l->open[at]) {
		l->open[at] = false;
		l->n_open--;
	}
	if (have_scores && have_label) {
		c->stats.n_duplicates++;
		if (((l->wants & WANT_SCORE) != 0 && (old_scores.len != row->scores.len || memcmp(old_scores.bytes, row->scores.bytes, old_scores.len) != 0)) ||
		    ((l->wants & WANT_LABEL) != 0 && (old_label.len != row->label.len || memcmp(old_label.bytes, row->label.bytes, old_label.len) != 0))) {
			c->stats.n_differed++;
			core__event(c, LOG_LEVEL_WARN, "result.differs", "teacher=%s seq=%" PRIu64 " kept=\"what was stored first\"", peer->name, row->seq);
		}
		if (s->pending == 0)
			s->flight &= (uint8_t)~l->wants;
		core__seq_forget(c, row->seq);
		return true;
	}
	if (s->op != 0 && (s->pending & l->wants) == l->wants) {	/* the same is on its way to the disk */
		c->stats.n_duplicates++;
		if (s->op > *after)
			*after = s->op;
		return true;
	}
	if ((op = core__op(c, CORE_OP_RESULT)) == NULL)
		return false;
	op->seq = row->seq;
	op->set = l->set;
	op->held = mem_arena_hold(msg->arena);
	if (!have_scores) {
		op->scores = row->scores.bytes;
		op->scores_len = row->scores.len;
	}
	if (!have_label) {
		op->label = row->label.bytes;
		op->label_len = row->label.len;
	}
	bytes = op->scores_len + op->label_len;
	core__op_done(c, op, l->wants, bytes);
	s->op = *after = c->next_op;
	s->pending |= l->wants;
	s->flight |= l->wants;
	suspect = s->single || s->n_dead > 0 || s->n_errors > 0;
	s->single = false;
	s->n_dead = s->n_errors = 0;
	if (suspect && (op = core__op(c, CORE_OP_DROP_ATTEMPTS)) != NULL) {
		op->seq = row->seq;
		core__op_done(c, op, 0, 0);
	}
	c->stats.n_scores += !have_scores;
	c->stats.n_labels += !have_label;
	c->stats.n_label_bytes += have_label ? 0 : row->label.len;
	return true;
}

void
core__result(struct core *c, struct core_peer *peer, const struct wire_message *msg, int64_t now_ms)
{
	const struct wire_result *m = &msg->result;

	struct core_lease *l = lease_find(c, m->lease_id, peer->boot);
	struct core_message *out;
	uint64_t *seqs = malloc(m->n_rows * sizeof(*seqs)), after = 0;
	size_t n = 0;

	if (seqs == NULL) {
		c->failed = true;
		return;
	}
	c->stats.n_results++;
	for (size_t i = 0; i < m->n_rows && l != NULL; i++)
		if (result_row(c, peer, l, msg, &m->rows[i], &after, now_ms))
			seqs[n++] = m->rows[i].seq;
	if (l == NULL) {
		/* A lease of long ago or of another selectord: what is stored is stored, of the rest nothing is known. */
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
		lease_free(c, l);
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
