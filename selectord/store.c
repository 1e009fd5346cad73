/* SPDX-License-Identifier: Apache-2.0 */
#include "selectord/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock/clock.h"
#include "base/mem/mem.h"

static int
begin(struct store *s)
{
	return s->txn != NULL ? 0 : cache_txn_begin(s->cache, &s->txn);
}

static int
ask_label(void *arg, uint64_t seq, struct cache_bytes *out)
{
	struct store *s = arg;
	int rc = begin(s);

	return rc != 0 ? rc : cache_labels_get(s->txn, seq, out);
}

static int
ask_scores(void *arg, enum cache_scores set, uint64_t seq, struct cache_bytes *out)
{
	struct store *s = arg;
	int rc = begin(s);

	return rc != 0 ? rc : cache_scores_get(s->txn, set, seq, out);
}

static int
ask_rows_count(void *arg, struct hash128 plan, uint64_t block, uint64_t *n)
{
	struct store *s = arg;
	int rc = begin(s);

	return rc != 0 ? rc : cache_rows_count(s->txn, plan, block, n);
}

/*
 * A checksum covers a record of thousands of rows, but the core asks for one row at a time. So the piece of
 * the block that contains the row is read once and kept. NULL: it cannot be kept, for whatever reason;
 * reading the single row then returns the error.
 */
static const struct store_rows *
rows_piece(struct store *s, struct hash128 plan, uint64_t block, uint64_t first)
{
	struct store_rows *r = &s->rows[0];
	uint64_t total;

	for (struct store_rows *at = s->rows; at < s->rows + STORE_ROWS_KEPT; at++) {
		if (at->n > 0 && at->block == block && at->first == first && hash_equal(at->plan, plan)) {
			at->used = ++s->n_rows_asked;
			return at;
		}
		if (at->used < r->used)
			r = at;
	}
	if (cache_rows_count(s->txn, plan, block, &total) != 0 || first >= total)
		return NULL;
	free(r->rows);
	*r = (struct store_rows){plan, block, first, 0, NULL, ++s->n_rows_asked};
	total = total - first < STORE_ROWS ? total - first : STORE_ROWS;
	if ((r->rows = mem_alloc(total, sizeof(*r->rows))) == NULL || cache_rows_get(s->txn, plan, block, first, total, r->rows) != 0)
		return NULL;
	r->n = total;
	return r;
}

static int
ask_rows(void *arg, struct hash128 plan, uint64_t block, uint64_t first, size_t n, struct cache_row *out)
{
	struct store *s = arg;
	const struct store_rows *r;
	uint64_t at = first % STORE_ROWS;
	int rc = begin(s);

	if (rc != 0)
		return rc;
	if ((r = rows_piece(s, plan, block, first - at)) == NULL || at >= r->n || n > r->n - at)
		return cache_rows_get(s->txn, plan, block, first, n, out);
	memcpy(out, r->rows + at, n * sizeof(*out));
	return 0;
}

static int
ask_plan(void *arg, struct hash128 plan, struct cache_plan *out)
{
	struct store *s = arg;
	int rc = begin(s);

	return rc != 0 ? rc : cache_plan_get(s->txn, plan, out);
}

static int
ask_plans(void *arg, int (*each)(void *each_arg, const struct cache_plan *plan), void *each_arg)
{
	struct store *s = arg;
	uint64_t n_corrupt = cache_n_corrupt(s->cache);
	int rc = begin(s);

	if (rc == 0)
		rc = cache_plans_each(s->txn, each, each_arg);
	return rc == 0 && cache_n_corrupt(s->cache) != n_corrupt ? ERR_CORRUPT : rc;
}

static int
ask_n_results(void *arg, uint64_t *n)
{
	struct store *s = arg;
	struct cache_stat stat;
	int rc = cache_stat(s->cache, &stat);
	uint64_t labels = stat.table[CACHE_TABLE_LABELS].n_records, scores = stat.table[CACHE_TABLE_SCORES].n_records;

	*n = labels > scores ? labels : scores;
	return rc;
}

static int
ask_label_next(void *arg, uint64_t *seq, struct cache_bytes *out)
{
	struct store *s = arg;
	int rc = begin(s);

	return rc != 0 ? rc : cache_labels_next(s->txn, seq, out);
}

static int
ask_tokens(void *arg, uint64_t seq, int32_t *out)
{
	struct store *s = arg;
	const struct corpus *c = CORPUS_SEQ_NO(seq) == CORPUS_HELDOUT ? s->heldout : s->train;
	struct err_note note = {.name = ""};
	int rc = c == NULL ? ERR_NOT_FOUND : corpus_window(c, seq, s->context, out, &note);

	if ((rc > 0 || rc == ERR_CORRUPT) && s->failed == 0) {
		s->failed = rc;
		s->why = note;
	}
	return rc;
}

#define CHECK_WINDOW_NS INT64_C(20000000)
#define CHECK_SPEND_NS INT64_C(500000)		/* time for full checks in each such window; beyond it: */
#define CHECK_ONE_OF 1024			/* one label of so many is checked fully */

/*
 * Checks length, checksum and header: this finds what can go wrong on the way from a teacher with this
 * encoder.
 */
static int
check_envelope(const struct labels_spec *spec, const struct hash128 *tokens, const void *bytes, size_t len, struct err_note *note)
{
	struct labels_header h;
	uint32_t param = spec->kind == LABELS_KIND_SAMPLED ? spec->n_samples : spec->kind == LABELS_KIND_TOPK ? spec->k : 0;
	int rc = labels_peek(bytes, len, &h, note);

	if (rc == 0 && (h.version != spec->version || h.kind != spec->kind || h.context != spec->context || h.param != param ||
	    h.vocab != spec->vocab || !hash_equal(h.set, spec->set) || !hash_equal(h.tokens, *tokens)))
		rc = labels_check(spec, tokens, bytes, len, note);		/* for the note: what differs */
	return rc;
}

/*
 * Checks checksum, kind, L, N, vocabulary and tokens of every label. Its label rows (ids, counts) are checked
 * too, as long as that takes no more than a fortieth of this thread's time; when labels arrive faster, only
 * one in 1,024 of the others. The trainer checks all of them.
 */
static int
ask_check_label(void *arg, uint64_t seq, const void *bytes, size_t len, struct err_note *note)
{
	struct store *s = arg;
	struct hash128 tokens;
	int64_t start;
	int rc;

	if ((rc = ask_tokens(s, seq, s->tokens)) != 0)
		return rc;
	tokens = hash_tokens(s->tokens, (size_t)s->context + 1);
	start = clock_now_ns();
	if (start - s->window_ns >= CHECK_WINDOW_NS) {
		s->window_ns = start;
		s->spent_ns = 0;
	}
	if (s->spent_ns >= CHECK_SPEND_NS && ++s->n_unread % CHECK_ONE_OF != 0) {
		atomic_fetch_add(&s->n_unread_total, 1);
		return check_envelope(&s->spec, &tokens, bytes, len, note);
	}
	rc = labels_check(&s->spec, &tokens, bytes, len, note);
	s->spent_ns += clock_now_ns() - start;
	return rc;
}

int
store_init(struct store *s, struct cache *cache, const struct corpus *train, const struct corpus *heldout, const struct labels_spec *spec)
{
	memset(s, 0, sizeof(*s));
	s->cache = cache;
	s->train = train;
	s->heldout = heldout;
	s->spec = *spec;
	s->context = spec->context;
	s->tokens = mem_alloc((size_t)spec->context + 1, sizeof(*s->tokens));
	s->ask = (struct core_store){s, ask_label, ask_scores, ask_rows_count, ask_rows, ask_plan, ask_plans, ask_label_next,
	    ask_tokens, ask_n_results, ask_check_label};
	return s->tokens != NULL ? 0 : ENOMEM;
}

void
store_end(struct store *s)
{
	cache_txn_end(&s->txn);
}

void
store_free(struct store *s)
{
	store_end(s);
	for (size_t i = 0; i < STORE_ROWS_KEPT; i++)
		free(s->rows[i].rows);
	free(s->tokens);
	s->tokens = NULL;
}
