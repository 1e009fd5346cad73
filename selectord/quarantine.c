/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences on which teachers fail, and teachers that fail. A sequence goes into quarantine when different
 * teachers failed on it: they vanished while they held it alone, or reported an error. A teacher that reports
 * errors for many sequences, or sends wrong results, is rejected instead. A plan with too many sequences in
 * quarantine is not trained.
 */
#include "selectord/core_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "data/corpus/corpus.h"

#define SHARE_FLOOR 1000		/* the share is taken of at least so many sequences, because a share
					   of fewer means little */

/* ---- teachers ---- */

static struct core_known *
known_find(struct core *c, struct hash128 who)
{
	struct core_known *k;

	HASH_FIND(hh, c->known, &who, sizeof(who), k);
	return k;
}

static bool
connected(const struct core *c, const struct core_known *k)
{
	const struct core_peer *p;

	for (p = c->peers; p != NULL && p->known != k; p = p->next)
		;
	return p != NULL;
}

struct core_known *
core__known(struct core *c, struct hash128 who, const char *name, const char *host)
{
	struct core_known *k = known_find(c, who), *old, *next;

	if (k != NULL)
		return k;
	if (HASH_COUNT(c->known) >= CORE_KNOWN_MAX)
		HASH_ITER(hh, c->known, old, next)
			if (!connected(c, old)) {
				HASH_DEL(c->known, old);
				free(old);
				break;
			}
	if ((k = calloc(1, sizeof(*k))) == NULL)
		return NULL;
	k->who = who;
	snprintf(k->label, sizeof(k->label), "%s@%s", name, host);
	HASH_ADD(hh, c->known, who, sizeof(k->who), k);
	if (k->hh.tbl != NULL)
		return k;
	free(k);
	return NULL;
}

static void
refuse_teacher(struct core *c, const struct core_peer *p)
{
	const struct core_known *k = p->known;
	bool bad = k->n_bad >= CORE_BAD_MAX;

	core__refuse(c, p->id, EX_DATAERR, "see the log of selectord", 0, "result", "%s",
	    "%" PRIu64 " errors, %" PRIu32 " wrong results, %" PRIu64 " good ones",
	    bad ? "valid scores and labels" : "errors for at most a few sequences", k->n_errors, k->n_bad,
	    k->n_good);
}

void
core__teacher_check(struct core *c, struct core_known *k, int64_t now_ms)
{
	if (k->n_bad < CORE_BAD_MAX && k->n_errors <= CORE_ERRORS_MAX + k->n_good / CORE_ERRORS_PER)
		return;
	k->away_ms = now_ms + CORE_AWAY_MS;
	c->stats.n_away++;
	core__event(c, LOG_LEVEL_ERROR, "teacher.sent_away",
	    "teacher=%s errors=%" PRIu64 " wrong=%" PRIu32 " good=%" PRIu64 " minutes=%d", k->label, k->n_errors, k->n_bad,
	    k->n_good, CORE_AWAY_MS / 60000);
	for (struct core_peer *q = c->peers, *next; q != NULL; q = next) {
		next = q->next;
		if (q->known != k)
			continue;
		refuse_teacher(c, q);
		core__leases_back(c, q->boot);
		core__peer_drop(c, q->id);
	}
}

bool
core__teacher_away(struct core *c, struct core_peer *p, int64_t now_ms)
{
	struct core_known *k = p->known;

	if (k->away_ms == 0)
		return false;
	if (now_ms < k->away_ms) {
		refuse_teacher(c, p);
		return true;
	}
	k->away_ms = 0;				/* its counts start again */
	k->n_bad = 0;
	k->n_errors = k->n_good = 0;
	return false;
}

/* ---- sequences ---- */

void
core__save_attempts(struct core *c, const struct core_seq *s)
{
	struct core_op *op = core__op(c, CORE_OP_ATTEMPTS, s->seq);

	if (op == NULL)
		return;
	op->attempts.seq = s->seq;
	op->attempts.n_dead = s->n_failed;
	op->attempts.n_errors = s->n_errors;
	for (uint32_t i = 0; i < s->n_failed; i++) {
		op->attempts.boot[i] = s->failed[i].boot;
		op->attempts.who[i] = s->failed[i].who;
	}
	core__op_done(c, op, 0, 0);
}

void
core__quarantine(struct core *c, struct core_seq *s, const char *reason)
{
	struct core_op *op;
	struct err_note note = {0};

	if (s->quarantined || (op = core__op(c, CORE_OP_QUARANTINE, s->seq)) == NULL)
		return;				/* without memory the next failure tries again */
	s->quarantined = true;
	c->stats.n_quarantined++;
	c->n_quarantined += CORPUS_SEQ_NO(s->seq) == CORPUS_TRAIN;
	core__event(c, LOG_LEVEL_ERROR, "seq.quarantined", "seq=%" PRIu64 " reason=\"%.300s\"", s->seq, reason);
	op->quarantine.seq = s->seq;		/* the writer sets since_s: there is no clock here */
	snprintf(op->quarantine.reason, sizeof(op->quarantine.reason), "%s", reason);
	core__op_done(c, op, 0, 0);
	core__seq_quarantined(c, s->seq);
	for (struct core_plan *plan = c->plans; plan != NULL; plan = plan->next) {
		if (plan->released || !core__quarantine_over(c, plan, &note))
			continue;
		for (struct core_peer *p = c->peers, *next; p != NULL; p = next) {
			next = p->next;
			if (p->plan != plan)
				continue;
			core__refuse_note(c, p->id, EX_DATAERR, &note, "see saltctl cache stat --quarantine", 0);
			core__peer_drop(c, p->id);
		}
		plan->left_open = false;
	}
}

bool
core__quarantine_over(struct core *c, const struct core_plan *plan, struct err_note *note)
{
	uint64_t most = plan->n_blocks * plan->window / c->cfg.n_shards, n = c->cfg.corpus.n_windows / c->cfg.n_shards, of = 0;
	uint64_t floor = SHARE_FLOOR;

	if (c->n_quarantined == 0 || c->store->n_results(c->store->arg, &of) != 0)
		return false;
	most = most < n ? most : n;		/* sequences that the plan can use */
	most = most > 0 ? most : 1;
	floor = floor < most ? floor : most;
	of += c->n_quarantined;
	of = of < floor ? floor : of > most ? most : of;
	if ((double)c->n_quarantined <= ceil(c->cfg.max_quarantined * (double)of))
		return false;
	err_expect(note, ERR_REFUSED, "selector.max_quarantined",
	    "at most %.4g of the sequences in quarantine (%.0f of %" PRIu64 ")", "%" PRIu64 " in quarantine",
	    c->cfg.max_quarantined, ceil(c->cfg.max_quarantined * (double)of), of, c->n_quarantined);
	return true;
}

static void
failures_reason(struct core *c, const struct core_seq *s, const char *why, char *out, size_t size)
{
	int n = snprintf(out, size, "%.100s: ", why);

	for (uint32_t i = 0; i < s->n_failed && n > 0 && (size_t)n < size; i++) {
		const struct core_known *k = known_find(c, s->failed[i].who);

		n += snprintf(out + n, size - (size_t)n, "%s%.40s", i > 0 ? ", " : "",
		    k != NULL ? k->label : "an earlier teacher");
	}
}

void
core__seq_failed(struct core *c, struct core_seq *s, struct hash128 who, const struct hash128 *vanished, const char *why)
{
	char reason[sizeof(((struct cache_quarantine *)0)->reason)];

	for (uint32_t i = 0; i < s->n_failed; i++)
		if (hash_equal(s->failed[i].who, who))
			return;			/* this teacher counts already */
	if (s->n_failed == CACHE_ATTEMPTS_MAX)
		return;
	s->failed[s->n_failed++] = (struct core_failure){who, vanished != NULL ? *vanished : (struct hash128){0, 0}};
	core__save_attempts(c, s);
	if (s->n_failed < c->cfg.quarantine_teachers)
		return;
	failures_reason(c, s, why, reason, sizeof(reason));
	core__quarantine(c, s, reason);
}
