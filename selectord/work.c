/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks: what is stored of them and what they need; held-out sequences; which teacher gets the next lease.
 */
#include "selectord/core_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/corpus/blend.h"
#include "data/corpus/corpus.h"
#include "data/labels/labels.h"
#include "base/mem/mem.h"
#include "data/select/select.h"

#define SAME_TEACHER_MS 5000
#define BLOCKS_BYTES_MAX (UINT64_C(64) << 20)	/* limit for a plan's active blocks; two may always be
						   active */

uint64_t
core__order(const struct core *c, const struct core_plan *plan, uint64_t p)
{
	if (plan->list != NULL)
		return CORPUS_SEQ_MAKE(CORPUS_TRAIN, plan->list->list[p % plan->list->n]);
	return CORPUS_SEQ_MAKE(CORPUS_TRAIN, blend_order(c->cfg.order, plan->wire.seed, p));
}

uint64_t
core__epoch_at(const struct core *c, const struct select_file *list, uint64_t index, uint64_t p)
{
	return list != NULL ? p / list->n : blend_epoch_at(c->cfg.order, index, p);
}

bool
core__position(const struct core *c, const struct select_file *list, uint32_t seed, uint64_t epoch, uint64_t index, uint64_t *p)
{
	if (list == NULL) {
		*p = blend_position(c->cfg.order, seed, epoch, index);
		return true;
	}
	*p = epoch * list->n + list->place[index];
	return list->place[index] < list->n;
}

/* ---- held-out windows ---- */

static uint64_t
heldout_seq(uint64_t i)
{
	return CORPUS_SEQ_MAKE(CORPUS_HELDOUT, i);
}

static void
heldout_mean(struct core *c)
{
	double sum = 0;
	uint64_t n = 0;

	if (c->n_held < c->cfg.n_heldout || c->cfg.n_heldout == 0)
		return;
	for (uint64_t i = 0; i < c->cfg.n_heldout; i++)		/* in corpus order, so that the sum does not
								   depend on the order of results */
		if ((c->held[i] & POS_QUARANTINED) == 0) {
			sum += c->held_loss[i];
			n++;
		}
	c->heldout_loss = n > 0 ? sum / (double)n : NAN;
	core__event(c, LOG_LEVEL_INFO, "heldout.scored", "windows=%" PRIu64 " loss_nats=%.6f", n, c->heldout_loss);
}

static void
heldout_read(struct core *c, uint64_t i)
{
	uint32_t L = c->cfg.corpus.context;
	struct cache_bytes v;
	int rc = c->store->scores(c->store->arg, CACHE_SCORES_TEACHER, heldout_seq(i), &v);

	if (rc == 0 && (rc = labels_scores_decode(v.bytes, v.len, L, c->loss, c->rank, NULL)) == 0) {
		c->held_loss[i] = (float)labels_scores_mean(c->loss, c->rank, L, NULL);
		c->held[i] |= POS_SCORED;
		c->n_held++;
	} else if (core__quarantined(c, heldout_seq(i))) {
		c->held[i] |= POS_SCORED | POS_QUARANTINED;
		c->n_held++;
	}
}

void
core__heldout_scan(struct core *c)
{
	for (uint64_t i = 0; i < c->cfg.n_heldout; i++)
		if ((c->held[i] & POS_SCORED) == 0)
			heldout_read(c, i);
	heldout_mean(c);
}

void
core__heldout_stored(struct core *c, uint64_t seq)
{
	uint64_t i = CORPUS_SEQ_INDEX(seq);

	if (i >= c->cfg.n_heldout || (c->held[i] & POS_SCORED) != 0)
		return;
	heldout_read(c, i);
	heldout_mean(c);
}

/* ---- blocks ---- */

static bool
done_bit(const struct core *c, const struct core_plan *plan, uint64_t no)
{
	uint64_t j = no / c->cfg.n_shards, ready = plan->ready / c->cfg.n_shards;

	return j < ready || (j - ready < DONE_BITS && (plan->done[j % DONE_BITS / 8] >> j % 8 & 1) != 0);
}

/*
 * Marks a block as done. One too far ahead to be remembered is looked up again when the frontier reaches it.
 */
static void
set_done(struct core *c, struct core_plan *plan, uint64_t no)
{
	uint64_t j = no / c->cfg.n_shards, ready = plan->ready / c->cfg.n_shards;

	if (j < ready || j - ready >= DONE_BITS)
		return;
	plan->done[j % DONE_BITS / 8] |= (uint8_t)(1u << j % 8);
	for (; plan->ready < plan->n_blocks && done_bit(c, plan, plan->ready); plan->ready += c->cfg.n_shards) {
		j = plan->ready / c->cfg.n_shards;
		plan->done[j % DONE_BITS / 8] &= (uint8_t)~(1u << j % 8);
	}
}

uint64_t
core__rows_ready(const struct core_plan *plan)
{
	return plan->ready >= plan->n_blocks || plan->ready * plan->kept > plan->wire.n_rows ? plan->wire.n_rows : plan->ready * plan->kept;
}

struct core_block *
core__block_find(struct core_plan *plan, uint64_t no)
{
	struct core_block *b;

	DL_SEARCH_SCALAR(plan->blocks, b, no, no);
	return b;
}

static void
block_close(struct core_plan *plan, struct core_block *b)
{
	DL_DELETE(plan->blocks, b);
	plan->n_active--;
	free(b->flags);
	free(b->score);
	free(b->cut);
	free(b->limits);
	free(b->wanted);
	free(b->rows);
	free(b->drops);
	free(b);
}

void
core__blocks_close(struct core_plan *plan)
{
	while (plan->blocks != NULL)
		block_close(plan, plan->blocks);
}

static int
by_number(const struct core_block *a, const struct core_block *b)
{
	return a->no < b->no ? -1 : a->no > b->no;
}

uint64_t
core__block_bytes(uint64_t window, uint64_t kept)
{
	return window * (1 + sizeof(float)) + kept * sizeof(struct cache_row) + (window - kept) * sizeof(uint64_t);
}

bool
core__block_open(struct core *c, struct core_plan *plan, uint64_t no)
{
	struct core_block *b;

	if (core__block_find(plan, no) != NULL)
		return true;
	if (plan->n_active >= 2 && plan->n_active * core__block_bytes(plan->window, plan->kept) >= BLOCKS_BYTES_MAX)
		return false;			/* wait until active ones are closed */
	if ((b = calloc(1, sizeof(*b))) == NULL || (b->flags = calloc(plan->window, 1)) == NULL ||
	    (plan->scored && (b->score = calloc(plan->window, sizeof(*b->score))) == NULL)) {
		if (b != NULL)
			free(b->flags);
		free(b);
		c->no_memory = plan->no_memory = true;
		return false;
	}
	b->no = no;
	b->first = no * plan->window;
	b->state = BLOCK_SCAN;
	DL_INSERT_INORDER(plan->blocks, b, by_number);
	plan->n_active++;
	return true;
}

void
core__block_finish(struct core *c, struct core_plan *plan, struct core_block *b)
{
	set_done(c, plan, b->no);
	block_close(plan, b);
}

void
core__rows_written(struct core *c, struct hash128 hash, uint64_t no)
{
	struct core_plan *plan = core__plan(c, hash);
	struct core_block *b = plan != NULL ? core__block_find(plan, no) : NULL;

	if (b != NULL && b->state == BLOCK_CHOSEN)
		core__check_begin(b);
}

/* ---- scanning: what is stored of a block ---- */

static void
scan_position(struct core *c, struct core_plan *plan, struct core_block *b, uint64_t i)
{
	uint64_t seq = core__order(c, plan, b->first + i);

	if (plan->wire.mode != WIRE_MODE_SALT_DS || c->same_model)
		if (core__has_label(c, seq))
			b->flags[i] |= POS_LABELLED;
	if (core__quarantined(c, seq) && (b->flags[i] & POS_LABELLED) == 0)
		b->flags[i] |= POS_QUARANTINED;
	if (b->score == NULL)
		return;
	if ((b->flags[i] & POS_QUARANTINED) != 0)
		b->score[i] = NAN;
	else if (plan->wire.mode == WIRE_MODE_FILE)
		b->score[i] = c->cfg.file->score[CORPUS_SEQ_INDEX(seq)];
	else if (core__score_of(c, seq, plan->wire.k, &b->score[i]) != 0)
		return;
	b->flags[i] |= POS_SCORED;
	b->n_scored++;
}

/* Reads one row of a block that was written before. The row stays, even if the scores have changed. */
static int
scan_row(struct core *c, struct core_plan *plan, struct core_block *b, uint64_t i)
{
	struct cache_row row;
	uint64_t at;
	int rc;

	if ((rc = c->store->rows(c->store->arg, plan->hash, b->no, i, 1, &row)) != 0)
		return rc;
	if (row.position < b->first || (at = row.position - b->first) >= plan->window || row.seq != core__order(c, plan, row.position))
		return ERR_CORRUPT;
	b->flags[at] |= POS_KEPT;
	if ((row.flags & CACHE_ROW_QUARANTINED) != 0 || core__quarantined(c, row.seq))
		b->flags[at] |= POS_QUARANTINED;
	return 0;
}

static void
scan_block(struct core *c, struct core_plan *plan, struct core_block *b)
{
	char hex[HASH_HEX_BYTES];
	uint64_t n;

	if (b->scan_at == 0)
		b->rows_stored = c->store->rows_count(c->store->arg, plan->hash, b->no, &n) == 0 && n == plan->kept;
	while (b->rows_stored && b->scan_at < plan->kept && c->scan_left > 0) {
		c->scan_left--;
		if (scan_row(c, plan, b, b->scan_at) == 0) {
			b->scan_at++;
			continue;
		}
		/*
		 * Choosing is a pure function of what is stored: the same rows will replace the damaged
		 * record.
		 */
		core__event(c, LOG_LEVEL_ERROR, "rows.damaged", "plan=%s block=%" PRIu64 " next=\"chosen again\"", hash_hex(plan->hash, hex), b->no);
		c->stats.n_corrupt++;
		memset(b->flags, 0, plan->window);
		b->rows_stored = false;
		b->scan_at = 0;
	}
	if (b->rows_stored && b->scan_at == plan->kept) {
		core__check_begin(b);
		return;
	}
	while (!b->rows_stored && b->scan_at < plan->window && c->scan_left > 0) {
		c->scan_left--;
		scan_position(c, plan, b, b->scan_at++);
	}
	if (b->rows_stored || b->scan_at < plan->window)
		return;
	b->state = BLOCK_SCORE;
	if (!plan->scored || b->n_scored == plan->window)
		core__choose_begin(b);
}

/* Does what needs no teacher, as far as scan_left allows. It may close the block. */
static void
block_step(struct core *c, struct core_plan *plan, struct core_block *b)
{
	if (b->state == BLOCK_SCAN)
		scan_block(c, plan, b);
	if (b->state == BLOCK_CHOOSE)
		core__choose_step(c, plan, b);
	if (b->state == BLOCK_CHECK)
		core__check_step(c, plan, b);
}

/* Positions of the active blocks that may still need a lease. */
static uint64_t
work_left(const struct core_plan *plan)
{
	uint64_t left = 0;

	for (const struct core_block *b = plan->blocks; b != NULL; b = b->next)
		left += plan->window - (b->state == BLOCK_SCORE || b->state == BLOCK_LABEL ? b->cursor : 0);
	return left;
}

static void
scan_plan(struct core *c, struct core_plan *plan, uint64_t slots)
{
	uint64_t target = plan->asked < plan->wire.n_rows ? plan->asked : plan->wire.n_rows, n_blocks, S = c->cfg.n_shards;

	for (struct core_block *b = plan->blocks, *next; b != NULL && c->scan_left > 0; b = next) {
		next = b->next;
		block_step(c, plan, b);
	}
	target = plan->ahead < plan->wire.n_rows - target ? target + plan->ahead : plan->wire.n_rows;
	n_blocks = target == 0 ? 0 : (target - 1) / plan->kept + 1;
	/*
	 * Open blocks with twice as many positions as the connected teachers can lease, not the whole plan.
	 */
	while (c->scan_left > 0 && plan->frontier < n_blocks && plan->frontier / S - plan->ready / S < DONE_BITS &&
	    work_left(plan) < 2 * slots * c->lease_rows) {
		uint64_t no = plan->frontier;

		if (!done_bit(c, plan, no) && core__block_find(plan, no) == NULL) {
			if (!core__block_open(c, plan, no))
				return;
			block_step(c, plan, core__block_find(plan, no));
		}
		plan->frontier += S;
	}
}

/*
 * Shares the lookups of this millisecond: each active plan, and DROP_LABELS, gets an equal part of what is
 * left; then those that need more get the rest. Another plan is the first each time.
 */
void
core__scan(struct core *c)
{
	uint64_t slots = 1 + c->n_live;
	int64_t n = 1;
	bool hungry = true;

	for (const struct core_peer *p = c->peers; p != NULL; p = p->next)
		slots += p->credit;
	for (const struct core_plan *p = c->plans; p != NULL; p = p->next)
		n += core__plan_active(p);
	for (int pass = 0; pass < 2 && c->scan_left > 0 && hungry; pass++) {
		struct core_plan *plan = c->scan_turn != NULL ? c->scan_turn : c->plans, *first = plan;
		int64_t left = n, all = c->scan_left, part = pass == 0 ? all / left-- : all;

		c->scan_left = part;
		core__drop_step(c);
		hungry = c->scan_left <= 0;
		c->scan_left += all - part;
		for (; plan != NULL && c->scan_left > 0; plan = plan->next != NULL ? plan->next : c->plans) {
			if (core__plan_active(plan)) {
				all = c->scan_left;
				part = pass == 0 && left > 1 ? all / left-- : all;
				c->scan_left = part;
				scan_plan(c, plan, slots);
				hungry |= c->scan_left <= 0;
				c->scan_left += all - part;
			}
			if ((plan->next != NULL ? plan->next : c->plans) == first)
				break;
		}
		if (first != NULL)
			c->scan_turn = first->next;
	}
}

/* ---- what happens to a sequence concerns every block it is in ---- */

static void
each_position(struct core *c, uint64_t seq, void (*each)(struct core *c, struct core_plan *plan, struct core_block *b, uint64_t i, uint8_t wants),
    uint8_t wants)
{
	uint64_t index = CORPUS_SEQ_INDEX(seq);

	if (CORPUS_SEQ_NO(seq) != CORPUS_TRAIN || index >= c->cfg.corpus.n_windows)
		return;
	for (struct core_plan *plan = c->plans; plan != NULL; plan = plan->next) {
		uint64_t last_epoch = UINT64_MAX, at = 0;
		bool listed = true;

		for (struct core_block *b = plan->blocks, *next; b != NULL; b = next) {
			uint64_t first = b->first, end = first + plan->window;
			size_t n_active = plan->n_active;

			next = b->next;
			for (uint64_t epoch = core__epoch_at(c, plan->list, index, first);; epoch++) {
				if (epoch != last_epoch)
					listed = core__position(c, plan->list, plan->wire.seed, epoch, index, &at);
				last_epoch = epoch;
				if (!listed || at >= end)
					break;
				if (at >= first)
					each(c, plan, b, at - first, wants);
				if (plan->n_active != n_active)
					break;		/* each() closed the block */
			}
		}
	}
}

static bool
scanned(const struct core_block *b, uint64_t i)
{
	return b->state == BLOCK_CHECK ? i < b->scan_at : b->state != BLOCK_SCAN || (!b->rows_stored && i < b->scan_at);
}

static bool
labelling(const struct core_block *b)
{
	return b->state == BLOCK_LABEL || b->state == BLOCK_CHECK;
}

static void
position_stored(struct core *c, struct core_plan *plan, struct core_block *b, uint64_t i, uint8_t wants)
{
	if (!scanned(b, i))
		return;				/* the scan will find it */
	if ((wants & WANT_LABEL) != 0 && (b->flags[i] & POS_LABELLED) == 0) {
		if (labelling(b) && (b->flags[i] & POS_KEPT) != 0 && (b->flags[i] & POS_QUARANTINED) == 0)
			b->n_labelled++;
		b->flags[i] |= POS_LABELLED;
	}
	if ((wants & WANT_SCORE) != 0 && b->score != NULL && (b->flags[i] & POS_SCORED) == 0 &&
	    core__score_of(c, core__order(c, plan, b->first + i), plan->wire.k, &b->score[i]) == 0) {
		b->flags[i] |= POS_SCORED;
		b->n_scored++;
	}
	if (b->state == BLOCK_SCORE && b->n_scored == plan->window)
		core__choose_begin(b);
	else if (b->state == BLOCK_LABEL && b->n_labelled == b->n_kept)
		core__block_finish(c, plan, b);
}

void
core__seq_stored(struct core *c, uint64_t seq, uint8_t wants)
{
	each_position(c, seq, position_stored, wants);
}

static void
position_quarantined(struct core *c, struct core_plan *plan, struct core_block *b, uint64_t i, uint8_t wants)
{
	(void)wants;
	if (!scanned(b, i) || (b->flags[i] & (POS_LABELLED | POS_QUARANTINED)) != 0)
		return;
	b->flags[i] |= POS_QUARANTINED;
	if (labelling(b) && (b->flags[i] & POS_KEPT) != 0) {
		b->n_labelled++;
	} else if (b->score != NULL && (b->state == BLOCK_SCAN || b->state == BLOCK_SCORE)) {
		b->score[i] = NAN;
		if ((b->flags[i] & POS_SCORED) == 0)
			b->n_scored++;
		b->flags[i] |= POS_SCORED;
	}
	if (b->state == BLOCK_SCORE && b->n_scored == plan->window)
		core__choose_begin(b);
	else if (b->state == BLOCK_LABEL && b->n_labelled == b->n_kept)
		core__block_finish(c, plan, b);
}

void
core__seq_quarantined(struct core *c, uint64_t seq)
{
	if (CORPUS_SEQ_NO(seq) == CORPUS_HELDOUT)
		core__heldout_stored(c, seq);
	each_position(c, seq, position_quarantined, 0);
}

static void
position_free(struct core *c, struct core_plan *plan, struct core_block *b, uint64_t i, uint8_t wants)
{
	(void)c;
	(void)plan;
	(void)wants;
	if (i < b->cursor)
		b->cursor = i;
}

void
core__seq_free(struct core *c, uint64_t seq)
{
	c->work_due = true;
	if (CORPUS_SEQ_NO(seq) == CORPUS_HELDOUT && CORPUS_SEQ_INDEX(seq) < c->held_cursor)
		c->held_cursor = CORPUS_SEQ_INDEX(seq);
	each_position(c, seq, position_free, 0);
}

/* ---- which teacher gets which sequences ---- */

struct core_pick {
	uint64_t seqs[WIRE_SEQS_MAX];
	size_t n, max;
	uint8_t wants;			/* the same for all sequences of a lease */
	bool single;
	struct hash128 who;		/* the teacher */
	int64_t now_ms;
};

struct core_pick *
core__pick_new(void)
{
	return calloc(1, sizeof(struct core_pick));
}

enum pick_answer { PICKED, PASSED, LATER };	/* PASSED: nothing to lease; LATER: there is, but not in this
						   lease */

static enum pick_answer
pick_seq(struct core *c, struct core_pick *pick, uint64_t seq, uint8_t wants)
{
	const struct core_seq *s = core__seq(c, seq, false);

	if (s != NULL) {
		if (s->quarantined || (wants & (s->flight | s->pending) & WANT_SCORE) != 0)
			return PASSED;		/* a pending score may exclude it: do not label it yet */
		wants &= (uint8_t)~(s->flight | s->pending);
		if (wants == 0)
			return PASSED;
		if (s->not_before_ms > pick->now_ms)
			return LATER;
		/*
		 * The teacher that reported an error gets it again only if no other takes it for a while.
		 */
		if (s->n_errors > 0 && hash_equal(s->error_who, pick->who) && pick->now_ms < s->not_before_ms + SAME_TEACHER_MS)
			return LATER;
	}
	for (size_t i = 0; i < pick->n; i++)
		if (pick->seqs[i] == seq)
			return PASSED;		/* a block that spans the end of an epoch may contain it
						   twice */
	if (pick->n == pick->max || pick->single || (pick->n > 0 && wants != pick->wants))
		return LATER;
	if (s != NULL && s->single) {
		if (pick->n > 0)
			return LATER;
		pick->single = true;
	}
	pick->wants = wants;
	pick->seqs[pick->n++] = seq;
	return PICKED;
}

static void
pick_heldout(struct core *c, struct core_pick *pick)
{
	uint64_t keep = UINT64_MAX, i;

	for (i = c->held_cursor; i < c->cfg.n_heldout && pick->n < pick->max && !pick->single; i++)
		if ((c->held[i] & POS_SCORED) == 0 && pick_seq(c, pick, heldout_seq(i), WANT_SCORE) == LATER && keep == UINT64_MAX)
			keep = i;
	c->held_cursor = keep < i ? keep : i;
}

static void
pick_block(struct core *c, const struct core_peer *peer, struct core_plan *plan, struct core_block *b, struct core_pick *pick)
{
	uint64_t keep = UINT64_MAX, i;

	if ((b->state != BLOCK_SCORE && b->state != BLOCK_LABEL) || (b->state == BLOCK_SCORE && !peer->can_score) ||
	    (b->state == BLOCK_LABEL && !peer->can_label))
		return;
	for (i = b->cursor; i < plan->window && pick->n < pick->max && !pick->single; i++) {
		uint8_t wants = 0;

		if (b->state == BLOCK_LABEL) {
			if ((b->flags[i] & (POS_KEPT | POS_LABELLED | POS_QUARANTINED)) == POS_KEPT)
				wants = WANT_LABEL;
		} else if ((b->flags[i] & POS_SCORED) == 0) {
			wants = WANT_SCORE;
			if (c->same_model && peer->can_label && (b->flags[i] & POS_LABELLED) == 0)
				wants |= WANT_LABEL;
		}
		if (wants != 0 && pick_seq(c, pick, core__order(c, plan, b->first + i), wants) == LATER && keep == UINT64_MAX)
			keep = i;
	}
	b->cursor = keep < i ? keep : i;
}

static bool
grant_one(struct core *c, struct core_peer *peer, int64_t now_ms)
{
	uint64_t frame = peer->max_message < c->cfg.max_message ? peer->max_message : c->cfg.max_message;
	uint64_t fit = (frame - 1024) / (4 * ((uint64_t)c->cfg.corpus.context + 1) + 10);
	struct core_pick *pick = c->pick;
	struct core_plan *plan;
	size_t n_plans = 0;

	if (core__holds_single(c, peer->boot))	/* any other sequence that it held would become suspect too */
		return false;
	pick->n = 0;
	pick->single = false;
	pick->max = c->lease_rows < fit ? c->lease_rows : fit;
	pick->now_ms = now_ms;
	pick->who = peer->known->who;
	if (peer->can_heldout)
		pick_heldout(c, pick);
	if (pick->n > 0)
		return core__lease_new(c, peer, WANT_SCORE, CACHE_SCORES_TEACHER, pick->seqs, pick->n, pick->single, now_ms);
	for (plan = c->plans; plan != NULL; plan = plan->next)
		n_plans++;
	plan = c->turn != NULL ? c->turn : c->plans;
	for (size_t i = 0; i < n_plans && pick->n == 0; i++) {
		if (core__plan_active(plan))
			for (struct core_block *b = plan->blocks; b != NULL && pick->n < pick->max && !pick->single; b = b->next)
				pick_block(c, peer, plan, b, pick);
		plan = plan->next != NULL ? plan->next : c->plans;
	}
	if (pick->n == 0)
		return false;
	c->turn = plan;
	return core__lease_new(c, peer, pick->wants, CACHE_SCORES_SCORER, pick->seqs, pick->n, pick->single, now_ms);
}

/*
 * Grants one lease to each teacher in turn, GRANT_STEP in one call: after a commit many teachers may ask at
 * once.
 */
void
core__grant(struct core *c, int64_t now_ms)
{
	struct core_peer *p = core__peer(c, c->grant_turn);
	int n = 0;

	for (size_t idle = 0, n_peers = 0;; idle++) {
		if (p == NULL || (p = p->next) == NULL)
			p = c->peers;
		if (p == NULL || (n_peers > 0 && idle >= n_peers))
			return;
		if (n_peers == 0)
			for (const struct core_peer *q = c->peers; q != NULL; q = q->next)
				n_peers++;
		if (p->role != WIRE_ROLE_TEACHER || p->credit == 0 || p->released)
			continue;
		if (n == GRANT_STEP) {
			c->more = true;
			return;
		}
		if (!grant_one(c, p, now_ms))
			continue;
		p->credit--;
		p->busy_ms = now_ms;
		c->grant_turn = p->id;
		n++;
		idle = SIZE_MAX;		/* 0 after the loop's idle++ */
	}
}
