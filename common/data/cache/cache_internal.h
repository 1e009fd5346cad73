/* SPDX-License-Identifier: Apache-2.0 */
/* Declarations shared by the files of cache. */
#ifndef SALT_CACHE_INTERNAL_H
#define SALT_CACHE_INTERNAL_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include "data/cache/cache.h"

#define CACHE__CHECKSUM_BYTES 8u
#define CACHE__ROWS_CHUNK 4096u			/* rows in one record of the rows table */
#define CACHE__ROWS_HEADER_BYTES 16u
#define CACHE__ROW_BYTES 24u
#define CACHE__KEY_MAX 64u
#define CACHE__ATTEMPTS_BYTES (16u + 32u * CACHE_ATTEMPTS_MAX)

struct cache {
	char *dir;
	enum cache_mode mode;
	int lock_fd;				/* -1 in CACHE_READ */
	MDB_env *env;
	MDB_dbi dbi[CACHE_TABLES];
	MDB_txn *write;				/* the open write transaction, or NULL */
	pthread_rwlock_t map_lock;		/* read: a transaction, a query of the map; write: resize */
	atomic_uint_fast64_t n_corrupt;
};

struct cache_txn {
	struct cache *c;
	MDB_txn *txn;
};

/* A key under construction. Integers are big-endian, so that LMDB sorts them by value. */
struct cache__key {
	uint8_t bytes[CACHE__KEY_MAX];
	size_t len;
};

void cache__key_u8(struct cache__key *key, uint8_t v);
void cache__key_u64(struct cache__key *key, uint64_t v);
void cache__key_hash(struct cache__key *key, struct hash128 h);
struct cache__key cache__key_labels(uint64_t seq);
struct cache__key cache__key_scores(enum cache_scores set, uint64_t seq);
struct cache__key cache__key_rows(struct hash128 plan, uint64_t block, uint32_t chunk);

void cache__put_u32(uint8_t *p, uint32_t v);	/* little-endian */
void cache__put_u64(uint8_t *p, uint64_t v);
uint32_t cache__get_u32(const uint8_t *p);
uint64_t cache__get_u64(const uint8_t *p);

/* pages.c; call it before LMDB opens the file. 0, ERR_CORRUPT, errno */
int cache__check_metas(const char *dir, int fd, struct err_note *note);
int cache__rc(int rc);				/* converts LMDB's codes to ours */

/*
 * cache__read_begin - begins a read transaction of LMDB under map_lock, after adopting the size of a map that
 * another process enlarged. Returns 0 or LMDB's code.
 */
int cache__read_begin(struct cache *c, MDB_txn **txn);
void cache__read_end(struct cache *c, MDB_txn *txn);

/*
 * cache__get - reads one value, verifies its checksum and returns it without that. *out is valid as long as
 * the transaction. 0, ERR_NOT_FOUND, ERR_CORRUPT (counted), errno. cache__verify - the same for a record at
 * hand.
 */
int cache__get(struct cache *c, MDB_txn *txn, enum cache_table table, const void *key, size_t key_len, struct cache_bytes *out);
int cache__verify(struct cache *c, const MDB_val *key, const MDB_val *value, struct cache_bytes *out);

/*
 * cache__put - writes a value and its checksum; replaces an existing record. cache__put_new - if the record
 * exists, returns ERR_EXISTS and changes nothing. cache__drop - returns 0 also if there is no such record.
 */
int cache__put(struct cache *c, MDB_txn *txn, enum cache_table table, const void *key, size_t key_len, const void *bytes, size_t len);
int cache__put_new(struct cache *c, MDB_txn *txn, enum cache_table table, const void *key, size_t key_len, const void *bytes, size_t len);
int cache__drop(struct cache *c, enum cache_table table, const void *key, size_t key_len);

#endif
