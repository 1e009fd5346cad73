/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics over the records of a cache, and the rows that have labels. */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"
#include "saltctl/core/output.h"
#include "data/select/select.h"

/* The sequence from which sample i of n is read: evenly spread over 0 .. windows - 1, at least next. */
static uint64_t
spread(uint64_t i, uint64_t n, uint64_t windows, uint64_t next)
{
	uint64_t seq = (uint64_t)((double)i / (double)n * (double)windows);

	return seq < next ? next : seq;
}

int
cache_sample(struct cache *c, const struct cache_id *id, enum cache_table table, uint64_t max,
    int (*each)(void *arg, uint64_t seq, struct cache_bytes v), void *arg, uint64_t *n_damaged)
{
	uint64_t n = max == 0 || max > id->windows ? id->windows : max, next = 0;
	int rc = 0;

	for (uint64_t i = 0; rc == 0 && i < n; i++) {
		uint64_t seq = spread(i, n, id->windows, next);
		struct cache_txn *txn;
		struct cache_bytes v;

		if ((rc = cache_txn_begin(c, &txn)) != 0)
			return rc;
		/* The first record at or after seq that was not read yet. */
		rc = table == CACHE_TABLE_LABELS ? cache_labels_next(txn, &seq, &v) :
		    cache_scores_next(txn, CACHE_SCORES_SCORER, &seq, &v);
		if (rc == 0)
			rc = each(arg, seq, v);
		cache_txn_end(&txn);
		if (rc != ERR_NOT_FOUND && rc < 0) {
			*n_damaged += 1;
			rc = 0;
		}
		next = seq + 1;
	}
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

struct look {
	const struct cache_id *id;
	struct cache_look *out;
	struct labels_batch batch;
	struct cache_bits ids;
	double entropy, entries, loss_sum, top;
	uint64_t score_tokens;			/* with a prediction */
	float *loss, *scratch;			/* [L] */
	uint8_t *rank;
};

static double
entropy_of(double t)
{
	return t > 0 ? -t * log2(t) : 0;
}

static int
look_label(void *arg, uint64_t seq, struct cache_bytes v)
{
	struct look *l = arg;
	const struct labels_batch *b = &l->batch;
	int rc = cache_decode(l->id, v, &l->batch, NULL, NULL);
	bool sparse;

	(void)seq;
	if (rc != 0)
		return rc == ERR_NOT_FOUND ? ERR_CORRUPT : rc;
	sparse = b->kind != LABELS_KIND_DENSE;
	for (size_t r = 0; r < b->n_rows; r++) {
		double h = 0;

		for (uint32_t id = 0; !sparse && id < b->vocab; id++) {
			double t = b->dense[r * b->vocab + id];

			h += entropy_of(t);
			l->entries += t > 0;
			if (t > 0)
				cache_bits_set(&l->ids, id);
		}
		for (int64_t i = sparse ? b->row_offsets[r] : 0; sparse && i < b->row_offsets[r + 1]; i++) {
			h += entropy_of(b->weights[i]);
			l->entries += 1;
			cache_bits_set(&l->ids, (uint64_t)b->ids[i]);
		}
		if (sparse)
			h += entropy_of(b->tail[r]);
		l->entropy += h;
	}
	l->out->label_tokens += b->n_rows;
	l->out->label_bytes += v.len;
	l->out->n_labels++;
	return 0;
}

static int
look_score(void *arg, uint64_t seq, struct cache_bytes v)
{
	struct look *l = arg;
	struct cache_look *out = l->out;
	uint32_t L = l->id->labels.spec.context;
	double s;
	int rc = labels_scores_decode(v.bytes, v.len, L, l->loss, l->rank, NULL);

	(void)seq;
	if (rc != 0)
		return rc;
	s = select_score(l->loss, l->rank, L, out->k, l->scratch);
	for (uint32_t t = 0; t < L; t++) {
		l->loss_sum += l->loss[t];
		l->score_tokens += !labels_score_absent(l->loss[t], l->rank[t]);
		l->top += l->rank[t] < out->k;
	}
	*(double *)ctl_add(out->score, out->n_scores, out->cap_scores) = s;
	if (s > out->s_max)
		out->s_max = s;
	return 0;
}

int
cache_look(struct cache *c, const struct cache_id *id, uint64_t max, unsigned k, struct cache_look *out)
{
	struct look l = {.id = id, .out = out};
	double tokens;
	uint32_t L = id->labels.spec.context;
	int rc;

	*out = (struct cache_look){.k = k};
	if (!id->bound)
		return 0;
	cache_bits_new(&l.ids, id->labels.spec.vocab);
	l.loss = ctl_alloc(L, sizeof(*l.loss));
	l.scratch = ctl_alloc(L, sizeof(*l.scratch));
	l.rank = ctl_alloc(L, 1);
	if ((rc = cache_sample(c, id, CACHE_TABLE_LABELS, max, look_label, &l, &out->n_damaged)) == 0)
		rc = cache_sample(c, id, CACHE_TABLE_SCORES, max, look_score, &l, &out->n_damaged);
	for (uint64_t i = 0; i < l.ids.n; i++)
		out->distinct_ids += cache_bits_get(&l.ids, i);
	tokens = (double)out->label_tokens;			/* without records the means are NaN */
	out->entropy_bits = l.entropy / tokens;
	out->unique = l.entries / tokens;
	out->mean_loss_nats = l.loss_sum / (double)l.score_tokens;
	out->in_top_k = l.top / (double)l.score_tokens;
	labels_batch_free(&l.batch);
	cache_bits_free(&l.ids);
	free(l.loss);
	free(l.scratch);
	free(l.rank);
	return rc;
}

void
cache_look_free(struct cache_look *look)
{
	free(look->score);
	look->score = NULL;
}

void
cache_look_bins(const struct cache_look *look, uint64_t bins[CACHE_LOOK_BINS])
{
	memset(bins, 0, CACHE_LOOK_BINS * sizeof(*bins));
	for (uint64_t i = 0; i < look->n_scores; i++) {
		double at = look->s_max > 0 ? look->score[i] / look->s_max * CACHE_LOOK_BINS : 0;

		if (at >= 0)			/* not NaN */
			bins[at < CACHE_LOOK_BINS ? (size_t)at : CACHE_LOOK_BINS - 1]++;
	}
}

/* ---- plans, quarantine, blocks ---- */

static int
set_bit(void *arg, const struct cache_quarantine *q)
{
	if (CORPUS_SEQ_NO(q->seq) == CORPUS_TRAIN)
		cache_bits_set(arg, CORPUS_SEQ_INDEX(q->seq));
	return 0;
}

int
cache_quarantined(struct cache *c, uint64_t windows, struct cache_bits *out)
{
	struct cache_txn *txn = NULL;
	int rc;

	cache_bits_new(out, windows);
	if ((rc = cache_txn_begin(c, &txn)) == 0)
		rc = cache_quarantine_each(txn, set_bit, out);
	cache_txn_end(&txn);
	return rc;
}

struct plans {
	struct cache_plan *list;
	size_t n, cap;
};

static int
add_plan(void *arg, const struct cache_plan *plan)
{
	struct plans *p = arg;

	*(struct cache_plan *)ctl_add(p->list, p->n, p->cap) = *plan;
	return 0;
}

int
cache_plans(struct cache *c, struct cache_plan **plans, size_t *n)
{
	struct plans p = {.list = NULL};
	struct cache_txn *txn = NULL;
	int rc;

	if ((rc = cache_txn_begin(c, &txn)) == 0)
		rc = cache_plans_each(txn, add_plan, &p);
	cache_txn_end(&txn);
	*plans = p.list;
	*n = p.n;
	return rc;
}

struct block_at {
	struct hash128 plan;
	uint64_t block;
};

struct block_list {
	struct block_at *at;
	size_t n, cap;
};

static int
list_block(void *arg, const struct cache_item *item)
{
	struct block_list *l = arg;

	if (item->key_ok && (l->n == 0 || !hash_equal(l->at[l->n - 1].plan, item->plan) ||
	    l->at[l->n - 1].block != item->block))
		*(struct block_at *)ctl_add(l->at, l->n, l->cap) = (struct block_at){item->plan, item->block};
	return 0;
}

int
cache_blocks(struct cache *c, int (*each)(void *arg, struct cache_txn *txn, struct hash128 plan, uint64_t block, int rc,
    const struct cache_row *rows, uint64_t n), void *arg)
{
	struct block_list list = {.at = NULL};
	struct cache_row *rows = NULL;
	size_t cap = 0;
	int rc = cache_each(c, CACHE_TABLE_ROWS, list_block, &list);

	for (size_t i = 0; rc == 0 && i < list.n; i++) {
		struct cache_txn *txn;
		uint64_t n = 0;
		int got;

		if ((rc = cache_txn_begin(c, &txn)) != 0)
			break;
		got = cache_rows_count(txn, list.at[i].plan, list.at[i].block, &n);
		if (got == 0 && n > (UINT64_C(1) << 40))
			got = ERR_CORRUPT;
		if (got == 0 && (rc = mem_grow((void **)&rows, &cap, (size_t)n + 1, sizeof(*rows))) == 0)
			got = cache_rows_get(txn, list.at[i].plan, list.at[i].block, 0, (size_t)n, rows);
		if (rc == 0)
			rc = each(arg, txn, list.at[i].plan, list.at[i].block, got, got == 0 ? rows : NULL,
			    got == 0 ? n : 0);
		cache_txn_end(&txn);
	}
	free(rows);
	free(list.at);
	return rc;
}

struct cover {
	struct cache_cover *item;
	size_t n, cap;
};

static int
cover_block(void *arg, struct cache_txn *txn, struct hash128 plan, uint64_t block, int rc,
    const struct cache_row *rows, uint64_t n)
{
	struct cover *all = arg;
	struct cache_cover *v;

	(void)block;
	v = all->n > 0 && hash_equal(all->item[all->n - 1].plan, plan) ? &all->item[all->n - 1] :
	    ctl_add(all->item, all->n, all->cap);
	v->plan = plan;
	v->blocks++;
	v->damaged += rc != 0;
	v->rows += n;
	for (uint64_t i = 0; i < n; i++) {
		if ((rows[i].flags & CACHE_ROW_QUARANTINED) != 0)
			v->quarantined++;
		else if (cache_labels_has(txn, rows[i].seq) == 0)
			v->labelled++;
	}
	return 0;
}

int
cache_cover(struct cache *c, struct cache_cover **out, size_t *n)
{
	struct cover all = {.item = NULL};
	int rc = cache_blocks(c, cover_block, &all);

	*out = all.item;
	*n = all.n;
	return rc;
}
