/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing a block's rows, then looking up their labels. Both in steps, because a block may have millions of
 * positions.
 */
#include "selectord/core_internal.h"

#include <math.h>
#include <stdlib.h>

#include "base/random/shuffle.h"
#include "data/corpus/corpus.h"
#include "data/select/select.h"

/* Positions counted, and epochs looked at, for one unit of scan_left; units for one needed_elsewhere(). */
enum { COUNT_COST = 8, EPOCHS_COST = 8, DROP_COST = 4 };

int
core__row_find(struct core *c, struct hash128 plan, uint64_t block, uint64_t kept, uint64_t p, uint64_t *i)
{
	uint64_t lo = 0, hi = kept;
	struct cache_row row;
	int rc;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;

		if ((rc = c->store->rows(c->store->arg, plan, block, mid, 1, &row)) != 0)
			return rc;
		if (row.position == p) {
			*i = mid;
			return 0;
		}
		if (row.position < p)
			lo = mid + 1;
		else
			hi = mid;
	}
	return ERR_NOT_FOUND;
}

/* Does a written block other than this one need the label of seq? */
static bool
needed_elsewhere(struct core *c, uint64_t seq, const struct core_plan *own, const struct core_block *block)
{
	uint64_t n = c->cfg.corpus.n_windows;

	for (struct core_plan *q = c->plans; q != NULL; q = q->next) {
		uint64_t end = q->n_blocks * q->window;

		c->scan_left -= q->released ? 0 : (int64_t)(end / n / EPOCHS_COST);
		for (uint64_t epoch = 0; !q->released && epoch * n < end; epoch++) {
			uint64_t p = epoch * n + shuffle_position(q->wire.seed, n, epoch, CORPUS_SEQ_INDEX(seq)), no = p / q->window;
			uint64_t at;
			const struct core_block *b;

			if (p >= end || no % c->cfg.n_shards != c->cfg.shard)
				continue;
			if (q == own && no == block->no) {
				if ((block->flags[p - block->first] & POS_KEPT) != 0)
					return true;
				continue;
			}
			if ((b = core__block_find(q, no)) != NULL) {
				if (b->state != BLOCK_SCAN && (b->flags[p - b->first] & POS_KEPT) != 0)
					return true;
				if (b->state != BLOCK_SCAN)
					continue;
			}
			if (core__row_find(c, q->hash, no, q->kept, p, &at) == 0)
				return true;
		}
	}
	return false;
}

/* All scores are known, or none is needed. */
void
core__choose_begin(struct core_block *b)
{
	b->state = BLOCK_CHOOSE;
	b->scan_at = 0;
}

static bool
make_room(struct core *c, struct core_plan *plan, struct core_block *b, bool drop)
{
	if (b->cut == NULL && (b->cut = calloc(1, sizeof(*b->cut))) != NULL)
		b->cut->n_keep = plan->kept;
	if (b->rows == NULL)
		b->rows = malloc(plan->kept * sizeof(*b->rows));
	if (drop && b->drops == NULL)
		b->drops = malloc((plan->window - plan->kept + 1) * sizeof(*b->drops));
	if (b->cut != NULL && b->rows != NULL && (!drop || b->drops != NULL))
		return true;
	c->no_memory = plan->no_memory = true;
	return false;
}

/* Two passes find the lowest score that is kept. */
static void
count(struct core *c, const struct core_plan *plan, struct core_block *b)
{
	while (b->cut->pass < 2 && c->scan_left > 0) {
		uint64_t n = plan->window - b->scan_at, most = (uint64_t)c->scan_left * COUNT_COST;

		n = n < most ? n : most;
		select_cut_count(b->cut, b->score + b->scan_at, n);
		c->scan_left -= (int64_t)(n / COUNT_COST) + 1;
		if ((b->scan_at += n) < plan->window)
			continue;
		select_cut_next(b->cut);
		b->scan_at = 0;
		/*
		 * Fewer than K are eligible, but a block has K rows: sequences without a score fill it up,
		 * with weight 0.
		 */
		b->n_fill = plan->kept - b->cut->n_keep;
	}
}

static bool
is_kept(const struct core_plan *plan, struct core_block *b, uint64_t i)
{
	if (plan->wire.mode != WIRE_MODE_SALT_DS || select_cut_take(b->cut, b->score[i]))
		return true;
	if (!isnan(b->score[i]) || b->n_fill == 0)
		return false;
	b->n_fill--;
	return true;
}

static void
count_score(struct core_scores *s, float score, bool kept)
{
	size_t bin = score < CORE_SCORE_BINS * CORE_SCORE_BIN_NATS ? (size_t)(score / CORE_SCORE_BIN_NATS) : CORE_SCORE_BINS - 1;

	s->scored[bin]++;
	s->kept[bin] += kept;
}

void
core__choose_step(struct core *c, struct core_plan *plan, struct core_block *b)
{
	bool scores = plan->wire.mode == WIRE_MODE_SALT_DS, drop = scores && c->same_model && !c->cfg.keep_unselected;
	struct core_op *op;

	if (!make_room(c, plan, b, drop))
		return;
	if (scores)
		count(c, plan, b);
	for (; (!scores || b->cut->pass == 2) && b->scan_at < plan->window && c->scan_left > 0; b->scan_at++, c->scan_left--) {
		uint64_t i = b->scan_at, seq = core__order(c, plan, b->first + i);
		bool kept = is_kept(plan, b, i);

		if (scores && !isnan(b->score[i]))
			count_score(&plan->scores, b->score[i], kept);
		if (kept) {
			b->flags[i] |= POS_KEPT;
			b->rows[b->n_rows++] = (struct cache_row){b->first + i, seq, b->score != NULL ? b->score[i] : NAN,
			    (b->flags[i] & POS_QUARANTINED) != 0 && (b->flags[i] & POS_LABELLED) == 0 ? CACHE_ROW_QUARANTINED : 0};
		} else if (drop && (b->flags[i] & POS_LABELLED) != 0) {
			c->scan_left -= DROP_COST;
			if (!needed_elsewhere(c, seq, plan, b))
				b->drops[b->n_drops++] = seq;
		}
	}
	if (b->scan_at < plan->window || (scores && b->cut->pass < 2))
		return;
	if ((op = core__op(c, CORE_OP_ROWS, 0)) == NULL)
		return;
	op->plan_hash = plan->hash;
	op->block = b->no;
	op->rows = b->rows;
	op->n_rows = b->n_rows;
	op->drops = b->drops;
	op->n_drops = b->n_drops;
	b->rows = NULL;
	b->drops = NULL;
	free(b->cut);
	b->cut = NULL;
	core__op_done(c, op, 0, op->n_rows * sizeof(*op->rows));
	b->op = c->next_op;
	b->state = BLOCK_CHOSEN;
	c->stats.n_blocks_written++;
}

/* The rows are on the disk. */
void
core__check_begin(struct core_block *b)
{
	b->state = BLOCK_CHECK;
	b->scan_at = b->cursor = b->n_labelled = b->n_kept = 0;
}

/*
 * Which kept sequences have a label? Looked up again, because another block may have dropped the label before
 * this one kept it, or the sequence went into quarantine.
 */
void
core__check_step(struct core *c, struct core_plan *plan, struct core_block *b)
{
	for (; b->scan_at < plan->window && c->scan_left > 0; b->scan_at++, c->scan_left--) {
		uint64_t i = b->scan_at, seq;

		if ((b->flags[i] & POS_KEPT) == 0)
			continue;
		seq = core__order(c, plan, b->first + i);
		b->flags[i] &= (uint8_t)~POS_LABELLED;
		if (core__has_label(c, seq))
			b->flags[i] |= POS_LABELLED;
		else if (core__quarantined(c, seq))
			b->flags[i] |= POS_QUARANTINED;
		b->n_kept++;
		b->n_labelled += (b->flags[i] & (POS_LABELLED | POS_QUARANTINED)) != 0;
	}
	if (b->scan_at < plan->window)
		return;
	b->state = BLOCK_LABEL;
	if (b->n_labelled == b->n_kept)
		core__block_finish(c, plan, b);
}
