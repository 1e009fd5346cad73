/*
 * store - what the core asks (struct core_store), answered from the cache and the corpora. One read transaction, begun by the first
 * question and ended by store_end(), which the loop calls after it has encoded what the core said.
 */
#ifndef SALT_SELECTORD_STORE_H
#define SALT_SELECTORD_STORE_H

#include <stdatomic.h>
#include "data/cache/cache.h"
#include "data/corpus/corpus.h"
#include "data/labels/labels.h"
#include "selectord/core.h"

struct store {
	struct core_store ask;			/* for core_new */
	struct cache *cache;
	const struct corpus *train, *heldout;	/* heldout: NULL if there is none */
	struct labels_spec spec;
	uint32_t context;
	int32_t *tokens;			/* [context + 1], scratch */
	struct cache_txn *txn;
	/* How much of what comes is read through, see store.c. */
	int64_t window_ns, spent_ns;		/* since when, and for how long in it */
	uint64_t n_unread;
	atomic_uint_fast64_t n_unread_total;	/* records of which the envelope was checked and the payload was not; any thread */
};

int store_init(struct store *store, struct cache *cache, const struct corpus *train, const struct corpus *heldout, const struct labels_spec *spec);
void store_end(struct store *store);		/* what was borrowed is gone */
void store_free(struct store *store);

#endif
