/* SPDX-License-Identifier: Apache-2.0 */
/* Writes: one transaction at a time, in selectord's commit thread; and the identity, once at the start. */
#include "data/cache/cache_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err/crash.h"
#include "base/mem/mem.h"

int
cache_write_begin(struct cache *c)
{
	if (c->mode == CACHE_READ || c->write != NULL)
		return ERR_INTERNAL;
	return cache__rc(mdb_txn_begin(c->env, NULL, 0, &c->write));
}

/* LMDB reports a short write as EIO. If the file system is below its reserve, this was the cause: ENOSPC. */
static int
no_room_or(struct cache *c, int rc)
{
	return rc == EIO && cache_room(c, NULL) == ENOSPC ? ENOSPC : rc;
}

int
cache_write_commit(struct cache *c)
{
	MDB_txn *txn = c->write;

	c->write = NULL;
	if (txn == NULL)
		return ERR_INTERNAL;
	return no_room_or(c, cache__rc(mdb_txn_commit(txn)));
}

int
cache_write_turn(struct cache *c)
{
	struct cache_bytes v;
	char format[32];
	size_t len;
	int rc;

	if ((rc = cache_write_begin(c)) != 0)
		return rc;
	if ((rc = cache__get(c, c->write, CACHE_TABLE_META, "format", 6, &v)) == 0) {
		len = v.len < sizeof(format) ? v.len : sizeof(format);
		memcpy(format, v.bytes, len);
		/* Writes the same value, because LMDB skips a commit without a write. */
		rc = no_room_or(c, cache__put(c, c->write, CACHE_TABLE_META, "format", 6, format, len));
	}
	if (rc == 0)
		return cache_write_commit(c);
	cache_write_abort(c);
	return rc;
}

void
cache_write_abort(struct cache *c)
{
	mdb_txn_abort(c->write);
	c->write = NULL;
}

/* Writes a record once, as cache.h says. Only a damaged record is replaced. */
static int
put_once(struct cache *c, enum cache_table table, const struct cache__key *key, const void *bytes, size_t len, bool *differs)
{
	struct cache_bytes old;
	int rc;

	if (differs != NULL)
		*differs = false;
	if (c->write == NULL)
		return ERR_INTERNAL;
	/* Usually the key is new, and this is the only descent of the tree. */
	if ((rc = cache__put_new(c, c->write, table, key->bytes, key->len, bytes, len)) != ERR_EXISTS)
		return no_room_or(c, rc);
	if ((rc = cache__get(c, c->write, table, key->bytes, key->len, &old)) == 0) {
		if (differs != NULL)
			*differs = old.len != len || memcmp(old.bytes, bytes, len) != 0;
		return ERR_EXISTS;
	}
	if (rc != ERR_NOT_FOUND && rc != ERR_CORRUPT)
		return rc;
	return no_room_or(c, cache__put(c, c->write, table, key->bytes, key->len, bytes, len));
}

int
cache_write_labels(struct cache *c, uint64_t seq, const void *bytes, size_t len, bool *differs)
{
	struct cache__key key = cache__key_labels(seq);

	return put_once(c, CACHE_TABLE_LABELS, &key, bytes, len, differs);
}

int
cache_write_scores(struct cache *c, enum cache_scores set, uint64_t seq, const void *bytes, size_t len, bool *differs)
{
	struct cache__key key = cache__key_scores(set, seq);

	return put_once(c, CACHE_TABLE_SCORES, &key, bytes, len, differs);
}

int
cache_write_rows(struct cache *c, struct hash128 plan, uint64_t block, const struct cache_row *rows, size_t n, bool *differs)
{
	uint8_t *chunk = malloc(CACHE__ROWS_HEADER_BYTES + (size_t)CACHE__ROWS_CHUNK * CACHE__ROW_BYTES);
	bool any = false, other;
	int rc = 0;

	if (differs != NULL)
		*differs = false;
	if (chunk == NULL)
		return ENOMEM;
	for (size_t at = 0; at < n || at == 0; at += CACHE__ROWS_CHUNK) {
		size_t count = n - at < CACHE__ROWS_CHUNK ? n - at : CACHE__ROWS_CHUNK;
		struct cache__key key = cache__key_rows(plan, block, (uint32_t)(at / CACHE__ROWS_CHUNK));

		cache__put_u64(chunk, n);
		cache__put_u32(chunk + 8, (uint32_t)count);
		cache__put_u32(chunk + 12, 0);
		for (size_t i = 0; i < count; i++) {
			const struct cache_row *row = &rows[at + i];
			uint8_t *p = chunk + CACHE__ROWS_HEADER_BYTES + i * CACHE__ROW_BYTES;
			uint32_t bits;

			memcpy(&bits, &row->score, 4);
			cache__put_u64(p, row->position);
			cache__put_u64(p + 8, row->seq);
			cache__put_u32(p + 16, bits);
			cache__put_u32(p + 20, row->flags);
		}
		rc = put_once(c, CACHE_TABLE_ROWS, &key, chunk, CACHE__ROWS_HEADER_BYTES + count * CACHE__ROW_BYTES, &other);
		if (rc != 0 && rc != ERR_EXISTS)
			break;
		if (rc == ERR_EXISTS) {
			any = true;
			if (differs != NULL && other)
				*differs = true;
		}
	}
	free(chunk);
	return rc == 0 && any ? ERR_EXISTS : rc;
}

int
cache_drop_labels(struct cache *c, uint64_t seq)
{
	struct cache__key key = cache__key_labels(seq);

	return no_room_or(c, cache__drop(c, CACHE_TABLE_LABELS, key.bytes, key.len));
}

int
cache_drop_scores(struct cache *c, enum cache_scores set, uint64_t seq)
{
	struct cache__key key = cache__key_scores(set, seq);

	return no_room_or(c, cache__drop(c, CACHE_TABLE_SCORES, key.bytes, key.len));
}

int
cache_drop_attempts(struct cache *c, uint64_t seq)
{
	struct cache__key key = {.len = 0};

	cache__key_u64(&key, seq);
	return no_room_or(c, cache__drop(c, CACHE_TABLE_ATTEMPTS, key.bytes, key.len));
}

int
cache_drop_key(struct cache *c, enum cache_table table, const void *key, size_t len)
{
	return no_room_or(c, cache__drop(c, table, key, len));
}

/* Reads only keys, because chunks may be damaged and the first one may be missing. */
int
cache_drop_rows(struct cache *c, struct hash128 plan, uint64_t block)
{
	struct cache__key key = cache__key_rows(plan, block, 0);
	const size_t prefix = key.len - 4;
	MDB_cursor *cursor;
	int rc;

	if (c->write == NULL)
		return ERR_INTERNAL;
	if ((rc = mdb_cursor_open(c->write, c->dbi[CACHE_TABLE_ROWS], &cursor)) != 0)
		return cache__rc(rc);
	do {
		MDB_val k = {key.len, key.bytes}, v;

		rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
		if (rc == 0 && (k.mv_size != key.len || memcmp(k.mv_data, key.bytes, prefix) != 0))
			rc = MDB_NOTFOUND;
	} while (rc == 0 && (rc = mdb_cursor_del(cursor, 0)) == 0);
	mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? 0 : no_room_or(c, cache__rc(rc));
}

static int
put(struct cache *c, enum cache_table table, const struct cache__key *key, const void *bytes, size_t len)
{
	if (c->write == NULL)
		return ERR_INTERNAL;
	return no_room_or(c, cache__put(c, c->write, table, key->bytes, key->len, bytes, len));
}

int
cache_write_plan(struct cache *c, const struct cache_plan *plan)
{
	struct cache__key key = {.len = 0};
	uint8_t v[84];
	uint64_t bits;

	cache__key_hash(&key, plan->hash);
	memcpy(&bits, &plan->keep, 8);
	cache__put_u64(v, plan->hash.hi);
	cache__put_u64(v + 8, plan->hash.lo);
	cache__put_u32(v + 16, plan->seed);
	cache__put_u32(v + 20, plan->batch);
	cache__put_u32(v + 24, plan->mode);
	cache__put_u32(v + 28, plan->k);
	cache__put_u64(v + 32, plan->window);
	cache__put_u64(v + 40, plan->kept);
	cache__put_u64(v + 48, plan->n_rows);
	cache__put_u64(v + 56, bits);
	cache__put_u64(v + 64, plan->oldest_step);
	cache__put_u64(v + 72, plan->released_step);
	cache__put_u32(v + 80, plan->released);
	return put(c, CACHE_TABLE_PLANS, &key, v, sizeof(v));
}

int
cache_write_attempts(struct cache *c, const struct cache_attempts *a)
{
	struct cache__key key = {.len = 0};
	uint8_t v[CACHE__ATTEMPTS_BYTES];

	cache__key_u64(&key, a->seq);
	cache__put_u64(v, a->seq);
	cache__put_u32(v + 8, a->n_dead);
	cache__put_u32(v + 12, a->n_errors);
	for (int i = 0; i < CACHE_ATTEMPTS_MAX; i++) {
		cache__put_u64(v + 16 + 16 * i, a->boot[i].hi);
		cache__put_u64(v + 24 + 16 * i, a->boot[i].lo);
		cache__put_u64(v + 16 + 16 * (CACHE_ATTEMPTS_MAX + i), a->who[i].hi);
		cache__put_u64(v + 24 + 16 * (CACHE_ATTEMPTS_MAX + i), a->who[i].lo);
	}
	return put(c, CACHE_TABLE_ATTEMPTS, &key, v, sizeof(v));
}

int
cache_write_quarantine(struct cache *c, const struct cache_quarantine *q)
{
	struct cache__key key = {.len = 0};
	uint8_t v[16 + sizeof(q->reason)];
	size_t n = strnlen(q->reason, sizeof(q->reason) - 1);

	cache__key_u64(&key, q->seq);
	cache__put_u64(v, q->seq);
	cache__put_u64(v + 8, (uint64_t)q->since_s);
	memcpy(v + 16, q->reason, n);
	return put(c, CACHE_TABLE_QUARANTINE, &key, v, 16 + n);
}

int
cache_identity_bind(struct cache *c, const struct cache_identity *items, size_t n, struct err_note *note)
{
	char key[CACHE__KEY_MAX];
	struct cache_bytes old;
	bool any = false;
	int rc;

	err_note_set(note, 0, "cache.dir %s", c->dir);
	if ((rc = cache_write_begin(c)) != 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		int len = snprintf(key, sizeof(key), "id/%s", items[i].name);

		err_note_place(note, "%s", items[i].name);
		if (len >= (int)sizeof(key) || strlen(items[i].value) >= CACHE_IDENTITY_BYTES) {
			rc = ERR_RANGE;
			goto out;
		}
		rc = cache__get(c, c->write, CACHE_TABLE_META, key, (size_t)len, &old);
		if (rc == 0 && (old.len != strlen(items[i].value) || memcmp(old.bytes, items[i].value, old.len) != 0)) {
			err_note_expected(note, "%.*s, which the cache was made with", (int)old.len, (const char *)old.bytes);
			err_note_found(note, "%s", items[i].value);
			rc = ERR_MISMATCH;
		} else if (rc == ERR_NOT_FOUND) {
			any = true;
			rc = cache__put(c, c->write, CACHE_TABLE_META, key, (size_t)len, items[i].value, strlen(items[i].value));
		}
		if (rc != 0)
			goto out;
	}
	if (any) {
		crash_point("cache.identity");
		return cache_write_commit(c);
	}
out:
	cache_write_abort(c);
	return no_room_or(c, rc);
}

int
cache_unigram_put(struct cache *c, const uint8_t *bytes, size_t len)
{
	struct cache_bytes old;
	int rc;

	if ((rc = cache_write_begin(c)) != 0)
		return rc;
	rc = cache__get(c, c->write, CACHE_TABLE_META, "unigram", 7, &old);
	if (rc == ERR_NOT_FOUND && (rc = cache__put(c, c->write, CACHE_TABLE_META, "unigram", 7, bytes, len)) == 0)
		return cache_write_commit(c);
	cache_write_abort(c);
	return no_room_or(c, rc);
}
