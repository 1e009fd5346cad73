/* What the records of a cache say, taken together; and which rows have their labels. */
#include "saltctl/cache/cache.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"
#include "data/select/select.h"

/* Entropy and number of entries of every row of the batch, added up. */
static int
add_rows(const struct labels_batch *b, struct cache_look *out, struct cache_bits *ids, double *entropy, double *entries)
{
	for (size_t r = 0; r < b->n_rows; r++) {
		double h = 0;

		if (b->kind == LABELS_KIND_DENSE) {
			for (uint32_t v = 0; v < b->vocab; v++) {
				double t = b->dense[r * b->vocab + v];

				if (t > 0) {
					h -= t * log2(t);
					*entries += 1;
					cache_bits_set(ids, v);
				}
			}
		} else {
			for (int64_t i = b->row_offsets[r]; i < b->row_offsets[r + 1]; i++) {
				double t = b->weights[i];

				if (t > 0)
					h -= t * log2(t);
				cache_bits_set(ids, (uint64_t)b->ids[i]);
			}
			*entries += (double)(b->row_offsets[r + 1] - b->row_offsets[r]);
			if (b->tail[r] > 0)
				h -= (double)b->tail[r] * log2((double)b->tail[r]);
		}
		*entropy += h;
	}
	out->label_tokens += b->n_rows;
	return 0;
}

/* Up to max places, evenly spread over the windows; the first record at or after each that was not taken yet. */
static int
look_labels(struct cache *c, const struct cache_id *id, uint64_t max, struct cache_look *out)
{
	uint64_t n = max == 0 || max > id->windows ? id->windows : max, next = 0, seq;
	struct labels_batch batch = {.kind = 0};
	struct cache_bits ids = {.bits = NULL};
	double entropy = 0, entries = 0;
	int rc = cache_bits_new(&ids, id->labels.spec.vocab);

	for (uint64_t i = 0; rc == 0 && i < n; i++) {
		struct cache_txn *txn;
		struct cache_bytes v;

		seq = cache_spread(i, n, id->windows, next);
		if ((rc = cache_txn_begin(c, &txn)) != 0)
			break;
		rc = cache_labels_next(txn, &seq, &v);
		if (rc == 0 && (rc = cache_decode(id, NULL, v, &batch, NULL, NULL)) == 0) {
			rc = add_rows(&batch, out, &ids, &entropy, &entries);
			out->label_bytes += v.len;
			out->n_labels++;
		} else if (rc != ERR_NOT_FOUND && rc < 0) {
			out->n_damaged++;
			rc = 0;
		}
		cache_txn_end(&txn);
		next = seq + 1;
	}
	for (uint64_t i = 0; i < ids.n; i++)
		out->distinct_ids += cache_bits_get(&ids, i);
	out->entropy_bits = out->label_tokens > 0 ? entropy / (double)out->label_tokens : NAN;
	out->unique = out->label_tokens > 0 ? entries / (double)out->label_tokens : NAN;
	labels_batch_free(&batch);
	cache_bits_free(&ids);
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int
look_scores(struct cache *c, const struct cache_id *id, uint64_t max, struct cache_look *out)
{
	uint32_t L = id->labels.spec.context;
	uint64_t n = max == 0 || max > id->windows ? id->windows : max, next = 0, seq, top = 0;
	float *loss = mem_alloc(L, sizeof(*loss)), *scratch = mem_alloc(L, sizeof(*scratch));
	uint8_t *rank = mem_alloc(L, 1);
	double sum = 0;
	size_t cap = 0;
	int rc = loss == NULL || scratch == NULL || rank == NULL ? ENOMEM : 0;

	for (uint64_t i = 0; rc == 0 && i < n; i++) {
		struct cache_txn *txn;
		struct cache_bytes v;

		seq = cache_spread(i, n, id->windows, next);
		if ((rc = cache_txn_begin(c, &txn)) != 0)
			break;
		rc = cache_scores_next(txn, CACHE_SCORES_SCORER, &seq, &v);
		if (rc == 0 && (rc = labels_scores_decode(v.bytes, v.len, L, loss, rank, NULL)) == 0 &&
		    (rc = mem_grow((void **)&out->score, &cap, out->n_scores + 1, sizeof(*out->score))) == 0) {
			double s = select_score(loss, rank, L, out->k, scratch);

			for (uint32_t t = 0; t < L; t++) {
				sum += loss[t];
				top += rank[t] < out->k;
			}
			out->score[out->n_scores++] = s;
			if (s > out->s_max)
				out->s_max = s;
		} else if (rc != ERR_NOT_FOUND && rc < 0) {
			out->n_damaged++;
			rc = 0;
		}
		cache_txn_end(&txn);
		next = seq + 1;
	}
	out->mean_loss_nats = out->n_scores > 0 ? sum / ((double)out->n_scores * L) : NAN;
	out->in_top_k = out->n_scores > 0 ? (double)top / ((double)out->n_scores * L) : NAN;
	free(loss);
	free(scratch);
	free(rank);
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

int
cache_look(struct cache *c, const struct cache_id *id, uint64_t max, unsigned k, struct cache_look *out)
{
	int rc;

	*out = (struct cache_look){.k = k};
	if (!id->bound)
		return 0;
	if ((rc = look_labels(c, id, max, out)) != 0)
		return rc;
	return look_scores(c, id, max, out);
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

/* ---- blocks ---- */

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
	int rc;

	if (!item->key_ok)
		return 0;
	if (l->n > 0 && hash_equal(l->at[l->n - 1].plan, item->plan) && l->at[l->n - 1].block == item->block)
		return 0;
	if ((rc = mem_grow((void **)&l->at, &l->cap, l->n + 1, sizeof(*l->at))) == 0)
		l->at[l->n++] = (struct block_at){item->plan, item->block};
	return rc;
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
			rc = each(arg, txn, list.at[i].plan, list.at[i].block, got, got == 0 ? rows : NULL, got == 0 ? n : 0);
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
cover_block(void *arg, struct cache_txn *txn, struct hash128 plan, uint64_t block, int rc, const struct cache_row *rows, uint64_t n)
{
	struct cover *all = arg;
	struct cache_cover *v;

	(void)block;
	if (all->n == 0 || !hash_equal(all->item[all->n - 1].plan, plan)) {
		int grown = mem_grow((void **)&all->item, &all->cap, all->n + 1, sizeof(*all->item));

		if (grown != 0)
			return grown;
		all->item[all->n++] = (struct cache_cover){.plan = plan};
	}
	v = &all->item[all->n - 1];
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
