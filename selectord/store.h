/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store - struct core_store, implemented with the cache and the corpora. The first query begins a read
 * transaction; store_end() ends it. The loop calls store_end() after it has encoded the core's messages.
 */
#ifndef SALT_SELECTORD_STORE_H
#define SALT_SELECTORD_STORE_H

#include <stdatomic.h>
#include "data/cache/cache.h"
#include "data/corpus/corpus.h"
#include "data/labels/labels.h"
#include "selectord/core.h"

/* Rows of a block that were read and verified. They are kept in memory, because written rows never change. */
enum { STORE_ROWS = 4096, STORE_ROWS_KEPT = 16 };	/* rows of one piece; number of pieces, at most 96 KiB
							   each, the least recently used is replaced */

struct store_rows {
	struct hash128 plan;
	uint64_t block, first;			/* first: a multiple of STORE_ROWS */
	size_t n;				/* 0: none */
	struct cache_row *rows;			/* [n] */
	uint64_t used;
};

struct store {
	struct core_store ask;			/* for core_new */
	struct cache *cache;
	const struct corpus *train, *heldout;	/* heldout: NULL if there is none */
	struct labels_spec spec;
	uint32_t context;
	int32_t *tokens;			/* [context + 1], scratch */
	int failed;				/* 0, or why the corpus could not be read: the daemon must end */
	struct err_note why;
	struct cache_txn *txn;
	struct store_rows rows[STORE_ROWS_KEPT];
	uint64_t n_rows_asked;
	/* For deciding which labels are checked fully, see store.c. */
	int64_t window_ns, spent_ns;		/* begin of the window, and time spent in it */
	uint64_t n_unread;
	atomic_uint_fast64_t n_unread_total;	/* labels of which only the envelope was checked; any thread */
};

int store_init(struct store *store, struct cache *cache, const struct corpus *train, const struct corpus *heldout,
    const struct labels_spec *spec);
void store_end(struct store *store);		/* borrowed bytes are no longer valid */
void store_free(struct store *store);

#endif
