#include "selectord/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mem/mem.h"

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

static int
ask_rows(void *arg, struct hash128 plan, uint64_t block, uint64_t first, size_t n, struct cache_row *out)
{
	struct store *s = arg;
	int rc = begin(s);

	return rc != 0 ? rc : cache_rows_get(s->txn, plan, block, first, n, out);
}

static int
ask_plan(void *arg, struct hash128 plan, struct cache_plan *out)
{
	struct store *s = arg;
	int rc = begin(s);

	return rc != 0 ? rc : cache_plan_get(s->txn, plan, out);
}

static int
ask_tokens(void *arg, uint64_t seq, int32_t *out)
{
	struct store *s = arg;
	const struct corpus *c = CORPUS_SEQ_NO(seq) == CORPUS_HELDOUT ? s->heldout : s->train;

	return c == NULL ? ERR_NOT_FOUND : corpus_window(c, seq, s->context, out, NULL);
}

static int
ask_check_label(void *arg, uint64_t seq, const void *bytes, size_t len, struct err_note *note)
{
	struct store *s = arg;
	struct hash128 tokens;
	int rc;

	if ((rc = ask_tokens(s, seq, s->tokens)) != 0)
		return rc;
	tokens = hash_tokens(s->tokens, (size_t)s->context + 1);
	return labels_check(&s->spec, &tokens, bytes, len, note);
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
	s->ask = (struct core_store){s, ask_label, ask_scores, ask_rows_count, ask_rows, ask_plan, ask_tokens, ask_check_label};
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
	free(s->tokens);
	s->tokens = NULL;
}
