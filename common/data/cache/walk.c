/* SPDX-License-Identifier: Apache-2.0 */
/* Iteration: the next record from a key on; every record of a table, also damaged ones. */
#include "data/cache/cache_internal.h"

#include <stdlib.h>
#include <string.h>

#define WALK_STEP 1024			/* records per read transaction */
#define WALK_KEY_MAX 512		/* LMDB's keys have at most 511 bytes */

static uint64_t
take_u64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

/* The next record of labels or scores, whose keys have one form: u8 set, u64 seq. */
static int
next(struct cache_txn *txn, enum cache_table table, uint8_t set, uint64_t *seq, struct cache_bytes *out)
{
	struct cache__key key = {.len = 0};
	MDB_cursor *cursor;
	MDB_val k, v;
	int rc;

	cache__key_u8(&key, set);
	cache__key_u64(&key, *seq);
	k = (MDB_val){key.len, key.bytes};
	if ((rc = mdb_cursor_open(txn->txn, txn->c->dbi[table], &cursor)) != 0)
		return cache__rc(rc);
	rc = cache__rc(mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE));
	if (rc == 0 && (k.mv_size != key.len || *(const uint8_t *)k.mv_data != set))
		rc = ERR_NOT_FOUND;
	if (rc == 0) {
		*seq = take_u64((const uint8_t *)k.mv_data + 1);
		rc = cache__verify(txn->c, &k, &v, out);
	}
	mdb_cursor_close(cursor);
	return rc;
}

int
cache_labels_next(struct cache_txn *txn, uint64_t *seq, struct cache_bytes *out)
{
	return next(txn, CACHE_TABLE_LABELS, 0, seq, out);
}

int
cache_scores_next(struct cache_txn *txn, enum cache_scores set, uint64_t *seq, struct cache_bytes *out)
{
	return next(txn, CACHE_TABLE_SCORES, (uint8_t)set, seq, out);
}

static void
read_key(struct cache_item *item)
{
	const uint8_t *p = item->key;

	switch (item->table) {
	case CACHE_TABLE_SCORES:
	case CACHE_TABLE_LABELS:
		if (!(item->key_ok = item->key_len == 9 && p[0] <= (item->table == CACHE_TABLE_SCORES ? CACHE_SCORES_TEACHER : 0)))
			return;
		item->set = p[0];
		item->seq = take_u64(p + 1);
		return;
	case CACHE_TABLE_ROWS:
		if (!(item->key_ok = item->key_len == 28))
			return;
		item->block = take_u64(p + 16);
		item->chunk = (uint32_t)(take_u64(p + 20) & UINT32_MAX);
		item->plan = (struct hash128){take_u64(p), take_u64(p + 8)};
		return;
	case CACHE_TABLE_PLANS:
		if ((item->key_ok = item->key_len == 16))
			item->plan = (struct hash128){take_u64(p), take_u64(p + 8)};
		return;
	case CACHE_TABLE_ATTEMPTS:
	case CACHE_TABLE_QUARANTINE:
		if ((item->key_ok = item->key_len == 8))
			item->seq = take_u64(p);
		return;
	default:
		item->key_ok = item->key_len > 0;
	}
}

/*
 * Passes up to WALK_STEP records after the key last[0 .. *last_len) to each() and updates that key. Returns
 * MDB_NOTFOUND at the end of the table. *stop: the non-zero result of each().
 */
static int
step(struct cache *c, enum cache_table table, uint8_t *last, size_t *last_len, int (*each)(void *arg, const struct cache_item *item), void *arg,
    int *stop)
{
	MDB_val k = {*last_len, last}, v;
	MDB_cursor *cursor = NULL;
	MDB_txn *txn;
	int rc;

	if ((rc = cache__read_begin(c, &txn)) != 0)
		return rc;
	if ((rc = mdb_cursor_open(txn, c->dbi[table], &cursor)) != 0)
		goto out;
	rc = mdb_cursor_get(cursor, &k, &v, *last_len == 0 ? MDB_FIRST : MDB_SET_RANGE);
	if (rc == 0 && *last_len > 0 && k.mv_size == *last_len && memcmp(k.mv_data, last, *last_len) == 0)
		rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
	for (int n = 0; rc == 0 && n < WALK_STEP; n++) {
		struct cache_item item = {.table = table, .key = k.mv_data, .key_len = k.mv_size};

		read_key(&item);
		item.rc = cache__verify(c, &k, &v, &item.bytes);
		if ((*stop = each(arg, &item)) != 0)
			break;
		if (k.mv_size > WALK_KEY_MAX) {
			rc = MDB_CORRUPTED;
			break;
		}
		*last_len = k.mv_size;
		memcpy(last, k.mv_data, *last_len);
		rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
	}
out:
	if (cursor != NULL)
		mdb_cursor_close(cursor);
	cache__read_end(c, txn);
	return rc;
}

int
cache_each(struct cache *c, enum cache_table table, int (*each)(void *arg, const struct cache_item *item), void *arg)
{
	uint8_t last[WALK_KEY_MAX];
	size_t last_len = 0;
	int rc, stop = 0;

	do
		rc = step(c, table, last, &last_len, each, arg, &stop);
	while (rc == 0 && stop == 0);
	return stop != 0 ? stop : rc == MDB_NOTFOUND ? 0 : cache__rc(rc);
}
