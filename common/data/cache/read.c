/* SPDX-License-Identifier: Apache-2.0 */
/* Reads: snapshots, single records, identity values, and whole small tables. */
#include "data/cache/cache_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
cache__read_begin(struct cache *c, MDB_txn **txn)
{
	int rc;

	for (int attempt = 0;; attempt++) {
		pthread_rwlock_rdlock(&c->map_lock);
		if ((rc = mdb_txn_begin(c->env, NULL, MDB_RDONLY, txn)) == 0)
			return 0;
		pthread_rwlock_unlock(&c->map_lock);
		if (rc != MDB_MAP_RESIZED || attempt > 8)
			return rc;
		pthread_rwlock_wrlock(&c->map_lock);	/* the writer enlarged the map: adopt its size */
		mdb_env_set_mapsize(c->env, 0);
		pthread_rwlock_unlock(&c->map_lock);
	}
}

void
cache__read_end(struct cache *c, MDB_txn *txn)
{
	mdb_txn_abort(txn);
	pthread_rwlock_unlock(&c->map_lock);
}

int
cache_txn_begin(struct cache *c, struct cache_txn **out)
{
	struct cache_txn *txn = calloc(1, sizeof(*txn));
	int rc;

	*out = NULL;
	if (txn == NULL)
		return ENOMEM;
	txn->c = c;
	if ((rc = cache__read_begin(c, &txn->txn)) != 0) {
		free(txn);
		return cache__rc(rc);
	}
	*out = txn;
	return 0;
}

void
cache_txn_end(struct cache_txn **txn)
{
	if (*txn == NULL)
		return;
	cache__read_end((*txn)->c, (*txn)->txn);
	free(*txn);
	*txn = NULL;
}

int
cache_labels_get(struct cache_txn *txn, uint64_t seq, struct cache_bytes *out)
{
	struct cache__key key = cache__key_labels(seq);

	return cache__get(txn->c, txn->txn, CACHE_TABLE_LABELS, key.bytes, key.len, out);
}

int
cache_labels_has(struct cache_txn *txn, uint64_t seq)
{
	struct cache__key key = cache__key_labels(seq);
	MDB_val k = {key.len, key.bytes}, v;

	return cache__rc(mdb_get(txn->txn, txn->c->dbi[CACHE_TABLE_LABELS], &k, &v));
}

int
cache_scores_get(struct cache_txn *txn, enum cache_scores set, uint64_t seq, struct cache_bytes *out)
{
	struct cache__key key = cache__key_scores(set, seq);

	return cache__get(txn->c, txn->txn, CACHE_TABLE_SCORES, key.bytes, key.len, out);
}

static int
rows_chunk(struct cache_txn *txn, struct hash128 plan, uint64_t block, uint32_t chunk, struct cache_bytes *out, uint64_t *total)
{
	struct cache__key key = cache__key_rows(plan, block, chunk);
	uint64_t want;
	int rc;

	if ((rc = cache__get(txn->c, txn->txn, CACHE_TABLE_ROWS, key.bytes, key.len, out)) != 0)
		return rc;
	if (out->len < CACHE__ROWS_HEADER_BYTES)
		goto damaged;
	*total = cache__get_u64(out->bytes);
	if (*total <= (uint64_t)chunk * CACHE__ROWS_CHUNK && *total > 0)
		goto damaged;
	want = *total - (uint64_t)chunk * CACHE__ROWS_CHUNK;
	if (want > CACHE__ROWS_CHUNK)
		want = CACHE__ROWS_CHUNK;
	if (cache__get_u32(out->bytes + 8) != want || out->len != CACHE__ROWS_HEADER_BYTES + want * CACHE__ROW_BYTES)
		goto damaged;
	return 0;
damaged:
	atomic_fetch_add(&txn->c->n_corrupt, 1);
	return ERR_CORRUPT;
}

int
cache_rows_count(struct cache_txn *txn, struct hash128 plan, uint64_t block, uint64_t *n)
{
	struct cache_bytes v;

	return rows_chunk(txn, plan, block, 0, &v, n);
}

int
cache_rows_get(struct cache_txn *txn, struct hash128 plan, uint64_t block, uint64_t first, size_t n, struct cache_row *out)
{
	struct cache_bytes v;
	uint64_t total, at = first;
	int rc;

	if ((rc = rows_chunk(txn, plan, block, 0, &v, &total)) != 0)
		return rc;
	if (first > total || n > total - first)
		return ERR_RANGE;
	while (at < first + n) {
		uint32_t chunk = (uint32_t)(at / CACHE__ROWS_CHUNK);

		if ((rc = rows_chunk(txn, plan, block, chunk, &v, &total)) != 0)
			return rc == ERR_NOT_FOUND ? ERR_CORRUPT : rc;
		for (; at < first + n && at / CACHE__ROWS_CHUNK == chunk; at++, out++) {
			const uint8_t *p = v.bytes + CACHE__ROWS_HEADER_BYTES + (at % CACHE__ROWS_CHUNK) * CACHE__ROW_BYTES;
			uint32_t bits = cache__get_u32(p + 16);

			out->position = cache__get_u64(p);
			out->seq = cache__get_u64(p + 8);
			memcpy(&out->score, &bits, 4);
			out->flags = cache__get_u32(p + 20);
		}
	}
	return 0;
}

/* Calls each() for every record of a table. Each value is verified; damaged ones are counted and left out. */
static int
walk(struct cache *c, MDB_txn *txn, enum cache_table table, int (*each)(void *arg, const MDB_val *key, struct cache_bytes value), void *arg)
{
	MDB_cursor *cursor;
	MDB_val k, v;
	struct cache_bytes value;
	int rc;

	if ((rc = mdb_cursor_open(txn, c->dbi[table], &cursor)) != 0)
		return cache__rc(rc);
	while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0)
		if (cache__verify(c, &k, &v, &value) == 0 && (rc = each(arg, &k, value)) != 0)
			break;
	mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? 0 : cache__rc(rc);
}

struct identity_walk {
	int (*each)(void *arg, const char *name, const char *value);
	void *arg;
	int rc;
};

static int
identity_each(void *arg, const MDB_val *key, struct cache_bytes value)
{
	struct identity_walk *w = arg;
	char name[CACHE__KEY_MAX], text[CACHE_IDENTITY_BYTES];

	if (key->mv_size < 3 || memcmp(key->mv_data, "id/", 3) != 0)
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)key->mv_size - 3, (const char *)key->mv_data + 3);
	snprintf(text, sizeof(text), "%.*s", (int)(value.len < sizeof(text) ? value.len : sizeof(text) - 1), (const char *)value.bytes);
	w->rc = w->each(w->arg, name, text);
	return w->rc != 0;
}

int
cache_identity_each(struct cache *c, int (*each)(void *arg, const char *name, const char *value), void *arg)
{
	struct identity_walk w = {each, arg, 0};
	MDB_txn *txn;
	int rc;

	if ((rc = cache__read_begin(c, &txn)) != 0)
		return cache__rc(rc);
	rc = walk(c, txn, CACHE_TABLE_META, identity_each, &w);
	cache__read_end(c, txn);
	return w.rc != 0 ? w.rc : rc;
}

int
cache_identity_get(struct cache *c, const char *name, char *buf, size_t size)
{
	char key[CACHE__KEY_MAX];
	struct cache_bytes v;
	MDB_txn *txn;
	int rc, n = snprintf(key, sizeof(key), "id/%s", name);

	if (n >= (int)sizeof(key))
		return ERR_RANGE;
	if ((rc = cache__read_begin(c, &txn)) != 0)
		return cache__rc(rc);
	if ((rc = cache__get(c, txn, CACHE_TABLE_META, key, (size_t)n, &v)) == 0)
		snprintf(buf, size, "%.*s", (int)v.len, (const char *)v.bytes);
	cache__read_end(c, txn);
	return rc;
}

int
cache_unigram_get(struct cache *c, uint8_t **bytes, size_t *len)
{
	struct cache_bytes v;
	MDB_txn *txn;
	int rc;

	*bytes = NULL;
	if ((rc = cache__read_begin(c, &txn)) != 0)
		return cache__rc(rc);
	if ((rc = cache__get(c, txn, CACHE_TABLE_META, "unigram", 7, &v)) == 0) {
		if ((*bytes = malloc(v.len > 0 ? v.len : 1)) != NULL)
			memcpy(*bytes, v.bytes, *len = v.len);
		else
			rc = ENOMEM;
	}
	cache__read_end(c, txn);
	return rc;
}

/* Decodes a plan; docs/formats.md has the offsets. */
static int
plan_unpack(struct cache *c, struct cache_bytes v, struct cache_plan *out)
{
	uint64_t bits;

	if (v.len != 84) {
		atomic_fetch_add(&c->n_corrupt, 1);
		return ERR_CORRUPT;
	}
	memset(out, 0, sizeof(*out));
	out->hash.hi = cache__get_u64(v.bytes);
	out->hash.lo = cache__get_u64(v.bytes + 8);
	out->seed = cache__get_u32(v.bytes + 16);
	out->batch = cache__get_u32(v.bytes + 20);
	out->mode = cache__get_u32(v.bytes + 24);
	out->k = cache__get_u32(v.bytes + 28);
	out->window = cache__get_u64(v.bytes + 32);
	out->kept = cache__get_u64(v.bytes + 40);
	out->n_rows = cache__get_u64(v.bytes + 48);
	bits = cache__get_u64(v.bytes + 56);
	memcpy(&out->keep, &bits, 8);
	out->oldest_step = cache__get_u64(v.bytes + 64);
	out->released_step = cache__get_u64(v.bytes + 72);
	out->released = cache__get_u32(v.bytes + 80) != 0;
	return 0;
}

int
cache_plan_get(struct cache_txn *txn, struct hash128 hash, struct cache_plan *out)
{
	struct cache__key key = {.len = 0};
	struct cache_bytes v;
	int rc;

	cache__key_hash(&key, hash);
	if ((rc = cache__get(txn->c, txn->txn, CACHE_TABLE_PLANS, key.bytes, key.len, &v)) != 0)
		return rc;
	return plan_unpack(txn->c, v, out);
}

struct each_walk {
	struct cache *c;
	int (*plan)(void *arg, const struct cache_plan *plan);
	int (*attempts)(void *arg, const struct cache_attempts *a);
	int (*quarantine)(void *arg, const struct cache_quarantine *q);
	void *arg;
	int rc;
};

static int
each_plan(void *arg, const MDB_val *key, struct cache_bytes v)
{
	struct each_walk *w = arg;
	struct cache_plan plan;

	(void)key;
	if (plan_unpack(w->c, v, &plan) == 0)
		w->rc = w->plan(w->arg, &plan);
	return w->rc != 0;
}

static int
each_attempts(void *arg, const MDB_val *key, struct cache_bytes v)
{
	struct each_walk *w = arg;
	struct cache_attempts a = {0};
	/* offset of who[] from boot[]; 0: an older record */
	size_t who = v.len == CACHE__ATTEMPTS_BYTES ? 16 * CACHE_ATTEMPTS_MAX : 0;

	(void)key;
	if ((v.len != CACHE__ATTEMPTS_BYTES && v.len != 16 + 16 * CACHE_ATTEMPTS_MAX) || (a.n_dead = cache__get_u32(v.bytes + 8)) > CACHE_ATTEMPTS_MAX) {
		atomic_fetch_add(&w->c->n_corrupt, 1);
		return 0;
	}
	a.seq = cache__get_u64(v.bytes);
	a.n_errors = cache__get_u32(v.bytes + 12);
	for (int i = 0; i < CACHE_ATTEMPTS_MAX; i++) {
		a.boot[i].hi = cache__get_u64(v.bytes + 16 + 16 * i);
		a.boot[i].lo = cache__get_u64(v.bytes + 24 + 16 * i);
		a.who[i].hi = cache__get_u64(v.bytes + who + 16 + 16 * i);
		a.who[i].lo = cache__get_u64(v.bytes + who + 24 + 16 * i);
	}
	w->rc = w->attempts(w->arg, &a);
	return w->rc != 0;
}

static int
each_quarantine(void *arg, const MDB_val *key, struct cache_bytes v)
{
	struct each_walk *w = arg;
	struct cache_quarantine q = {0};

	(void)key;
	if (v.len < 16 || v.len - 16 >= sizeof(q.reason)) {
		atomic_fetch_add(&w->c->n_corrupt, 1);
		return 0;
	}
	q.seq = cache__get_u64(v.bytes);
	q.since_s = (int64_t)cache__get_u64(v.bytes + 8);
	memcpy(q.reason, v.bytes + 16, v.len - 16);
	w->rc = w->quarantine(w->arg, &q);
	return w->rc != 0;
}

int
cache_plans_each(struct cache_txn *txn, int (*each)(void *arg, const struct cache_plan *plan), void *arg)
{
	struct each_walk w = {.c = txn->c, .plan = each, .arg = arg};
	int rc = walk(txn->c, txn->txn, CACHE_TABLE_PLANS, each_plan, &w);

	return w.rc != 0 ? w.rc : rc;
}

int
cache_attempts_each(struct cache_txn *txn, int (*each)(void *arg, const struct cache_attempts *a), void *arg)
{
	struct each_walk w = {.c = txn->c, .attempts = each, .arg = arg};
	int rc = walk(txn->c, txn->txn, CACHE_TABLE_ATTEMPTS, each_attempts, &w);

	return w.rc != 0 ? w.rc : rc;
}

int
cache_quarantine_each(struct cache_txn *txn, int (*each)(void *arg, const struct cache_quarantine *q), void *arg)
{
	struct each_walk w = {.c = txn->c, .quarantine = each, .arg = arg};
	int rc = walk(txn->c, txn->txn, CACHE_TABLE_QUARANTINE, each_quarantine, &w);

	return w.rc != 0 ? w.rc : rc;
}

int
cache_stat(struct cache *c, struct cache_stat *out)
{
	MDB_envinfo info;
	MDB_txn *txn;
	MDB_stat st;
	mdb_filehandle_t fd;
	int rc;

	memset(out, 0, sizeof(*out));
	if ((rc = cache__read_begin(c, &txn)) != 0)
		return cache__rc(rc);
	if ((rc = mdb_env_info(c->env, &info)) != 0 || (rc = mdb_env_get_fd(c->env, &fd)) != 0)
		goto out;
	for (int t = 0; t < CACHE_TABLES && rc == 0; t++) {
		if ((rc = mdb_stat(txn, c->dbi[t], &st)) != 0)
			break;
		out->table[t].n_records = st.ms_entries;
		out->table[t].n_bytes = (uint64_t)(st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages) * st.ms_psize;
		out->used_bytes = (uint64_t)(info.me_last_pgno + 1) * st.ms_psize;
	}
out:
	cache__read_end(c, txn);
	out->map_bytes = info.me_mapsize;
	out->n_readers = info.me_numreaders;
	if (rc == 0) {
		off_t end = lseek(fd, 0, SEEK_END);

		out->file_bytes = end > 0 ? (uint64_t)end : 0;
	}
	return cache__rc(rc);
}
