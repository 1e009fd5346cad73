/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of cache share. */
#ifndef SALT_CACHE_INTERNAL_H
#define SALT_CACHE_INTERNAL_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include "data/cache/cache.h"

#define CACHE__CHECKSUM_BYTES 8u
#define CACHE__ROWS_CHUNK 4096u			/* rows of one record of the rows table */
#define CACHE__ROWS_HEADER_BYTES 16u
#define CACHE__ROW_BYTES 24u
#define CACHE__KEY_MAX 64u
#define CACHE__ATTEMPTS_BYTES (16u + 32u * CACHE_ATTEMPTS_MAX)

struct cache {
	char *dir;
	enum cache_mode mode;
	int lock_fd;				/* CACHE_WRITE; -1 */
	MDB_env *env;
	MDB_dbi dbi[CACHE_TABLES];
	MDB_txn *write;				/* of cache_write_begin */
	pthread_rwlock_t map_lock;		/* read: a transaction or a look at the map; write: the map moves (cache_grow) */
	atomic_uint_fast64_t n_corrupt;
};

struct cache_txn {
	struct cache *c;
	MDB_txn *txn;
};

/* A key under construction: integers big-endian, so that LMDB's order is their order. */
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

int cache__check_metas(const char *dir, int fd, struct err_note *note);	/* pages.c, before LMDB opens it: 0, ERR_CORRUPT, errno */
int cache__rc(int rc);				/* LMDB's codes -> ours */

/*
 * cache__read_begin - a read transaction of LMDB, under map_lock, after taking over a map that another
 * process made larger. 0 or LMDB's code.
 */
int cache__read_begin(struct cache *c, MDB_txn **txn);
void cache__read_end(struct cache *c, MDB_txn *txn);

/*
 * cache__get - one value without its checksum. 0, ERR_NOT_FOUND, ERR_CORRUPT (counted), errno. Borrowed from
 * the transaction.
 */
int cache__get(struct cache *c, MDB_txn *txn, enum cache_table table, const void *key, size_t key_len, struct cache_bytes *out);
int cache__verify(struct cache *c, const MDB_val *key, const MDB_val *value, struct cache_bytes *out);

/*
 * cache__put - value and checksum; replaces what is there. cache__put_new: ERR_EXISTS and nothing done if it
 * is. cache__drop - 0 also when absent.
 */
int cache__put(struct cache *c, MDB_txn *txn, enum cache_table table, const void *key, size_t key_len, const void *bytes, size_t len);
int cache__put_new(struct cache *c, MDB_txn *txn, enum cache_table table, const void *key, size_t key_len, const void *bytes, size_t len);
int cache__drop(struct cache *c, enum cache_table table, const void *key, size_t key_len);

#endif
