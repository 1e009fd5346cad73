/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chooses a block's rows, then looks up their labels, both in steps, because a block may have millions of
 * positions.
 */
#include "selectord/core_internal.h"

#include <math.h>
#include <stdlib.h>

#include "data/corpus/blend.h"
#include "data/corpus/corpus.h"
#include "data/select/select.h"

/* Positions counted, and epochs checked, for one unit of scan_left; units for one needed_elsewhere(). */
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

/* Whether a written block other than this one needs the label of seq. */
static bool
needed_elsewhere(struct core *c, uint64_t seq, const struct core_plan *own, const struct core_block *block)
{
	for (struct core_plan *q = c->plans; q != NULL; q = q->next) {
		uint64_t end = q->n_blocks * q->window;

		c->scan_left -= q->released ? 0 : (int64_t)(core__epoch_at(c, q->list, CORPUS_SEQ_INDEX(seq), end) / EPOCHS_COST);
		for (uint64_t epoch = 0; !q->released; epoch++) {
			uint64_t p, no, at;
			const struct core_block *b;

			if (!core__position(c, q->list, q->wire.seed, epoch, CORPUS_SEQ_INDEX(seq), &p) || p >= end)
				break;
			no = p / q->window;
			if (no % c->cfg.n_shards != c->cfg.shard)
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

/* Called when all scores are known, or none is needed. */
void
core__choose_begin(struct core_block *b)
{
	b->state = BLOCK_CHOOSE;
	b->scan_at = 0;
}

static bool
make_room(struct core *c, struct core_plan *plan, struct core_block *b, bool drop)
{
	if (b->limits == NULL && plan->scored) {
		b->cut = calloc(1, sizeof(*b->cut));
		b->limits = calloc(plan->n_parts, sizeof(*b->limits));
		if ((b->wanted = calloc(plan->n_parts, sizeof(*b->wanted))) != NULL) {
			b->wanted[0] = plan->kept;
			if (plan->n_parts > 1)
				select_parts(c->cfg.order, b->no, plan->window, plan->kept, b->wanted);
			if (b->cut != NULL)
				b->cut->n_keep = b->wanted[0];
		}
	}
	if (b->rows == NULL)
		b->rows = malloc(plan->kept * sizeof(*b->rows));
	if (drop && b->drops == NULL)
		b->drops = malloc((plan->window - plan->kept + 1) * sizeof(*b->drops));
	if ((!plan->scored || (b->cut != NULL && b->limits != NULL && b->wanted != NULL)) && b->rows != NULL && (!drop || b->drops != NULL))
		return true;
	free(b->cut);
	free(b->limits);
	free(b->wanted);
	b->cut = NULL;
	b->limits = NULL;
	b->wanted = NULL;
	c->no_memory = plan->no_memory = true;
	return false;
}

static size_t
part_of(const struct core *c, const struct core_plan *plan, const struct core_block *b, uint64_t i)
{
	return plan->n_parts > 1 ? blend_part_at(c->cfg.order, b->first + i) : 0;
}

/* Two passes for each part find the lowest score that is chosen. */
static void
count(struct core *c, const struct core_plan *plan, struct core_block *b)
{
	while (b->n_limits < plan->n_parts && c->scan_left > 0) {
		uint64_t n = plan->window - b->scan_at, most = (uint64_t)c->scan_left * COUNT_COST;

		n = n < most ? n : most;
		if (plan->n_parts == 1)
			select_cut_count(b->cut, b->score + b->scan_at, n);
		else
			for (uint64_t i = b->scan_at; i < b->scan_at + n; i++)
				if (part_of(c, plan, b, i) == b->n_limits)
					select_cut_count(b->cut, &b->score[i], 1);
		c->scan_left -= (int64_t)(n / COUNT_COST) + 1;
		if ((b->scan_at += n) < plan->window)
			continue;
		select_cut_next(b->cut);
		b->scan_at = 0;
		if (b->cut->pass < 2)
			continue;
		/*
		 * If fewer are eligible than wanted, a block still has K rows: sequences without a score fill it up,
		 * with weight 0.
		 */
		b->limits[b->n_limits] = select_cut_limit(b->cut, b->wanted[b->n_limits]);
		if (++b->n_limits < plan->n_parts)
			*b->cut = (struct select_cut){.n_keep = b->wanted[b->n_limits]};
	}
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
	bool scores = plan->scored, salt_ds = plan->wire.mode == WIRE_MODE_SALT_DS, drop = salt_ds && c->same_model && !c->cfg.keep_unselected;
	struct core_op *op;

	if (!make_room(c, plan, b, drop))
		return;
	if (scores)
		count(c, plan, b);
	for (; (!scores || b->n_limits == plan->n_parts) && b->scan_at < plan->window && c->scan_left > 0; b->scan_at++, c->scan_left--) {
		uint64_t i = b->scan_at, seq = core__order(c, plan, b->first + i);
		bool kept = !scores || select_take(&b->limits[part_of(c, plan, b, i)], b->score[i]);

		if (salt_ds && !isnan(b->score[i]))	/* scores of a file have their own unit */
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
	if (b->scan_at < plan->window || (scores && b->n_limits < plan->n_parts))
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
	free(b->limits);
	free(b->wanted);
	b->cut = NULL;
	b->limits = NULL;
	b->wanted = NULL;
	core__op_done(c, op, 0, op->n_rows * sizeof(*op->rows));
	b->op = c->next_op;
	b->state = BLOCK_CHOSEN;
	c->stats.n_blocks_written++;
}

/* Called when the rows are on the disk. */
void
core__check_begin(struct core_block *b)
{
	b->state = BLOCK_CHECK;
	b->scan_at = b->cursor = b->n_labelled = b->n_kept = 0;
}

/*
 * Looks up which chosen sequences have a label. The scan did so too, but since then another block may have
 * dropped the label, or the sequence went into quarantine.
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
