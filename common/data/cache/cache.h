/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache - the LMDB tables: scores, labels, rows, plans, attempts, quarantine, meta. The only module that
 * includes LMDB.
 *
 * One process writes (selectord's commit.c, under an exclusive lock on DIR/selectord.lock), any number read.
 * Only LMDB's default sync mode is used: a commit that returned 0 is on the disk. Every value ends with 8
 * bytes of checksum, which each read verifies.
 *
 * Caveats: local file systems only (checked by statfs; NFS, SMB, FUSE, 9p and similar are rejected). The map
 * is address space, not disk space, and grows (cache_grow). An open read transaction prevents LMDB from
 * reusing old pages: end it within a second, and never hold one while waiting for anything. docs/formats.md
 * has the byte offsets.
 */
#ifndef SALT_CACHE_H
#define SALT_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"
#include "base/hash/hash.h"

#define CACHE_FORMAT_VERSION 1u
#define CACHE_MAP_BYTES_DEFAULT (UINT64_C(1) << 40)	/* 1 TiB of address space */
#define CACHE_IDENTITY_BYTES 160			/* limit of an identity value, with NUL */
#define CACHE_IDENTITY_PART "corpus.part.%zu"		/* only for blends: "N windows, share S" */
#define CACHE_VALUE_MAX (UINT32_C(1) << 30)		/* bytes of one record */

struct cache;
struct cache_txn;

enum cache_table { CACHE_TABLE_META, CACHE_TABLE_SCORES, CACHE_TABLE_LABELS, CACHE_TABLE_ROWS, CACHE_TABLE_PLANS, CACHE_TABLE_ATTEMPTS,
	CACHE_TABLE_QUARANTINE, CACHE_TABLES };

enum cache_mode {
	CACHE_WRITE,			/* selectord: takes the lock, creates folder and cache if missing */
	CACHE_READ,			/* saltctl: the cache must exist; a selectord may be using it */
	CACHE_UPKEEP			/* saltctl: takes the lock and may write, but the cache must exist */
};

/*
 * cache_open - opens the cache in DIR; CACHE_WRITE creates it, with parent folders.
 * @map_bytes  initial size of the map; it becomes larger if the file is. 0: CACHE_MAP_BYTES_DEFAULT
 *             (CACHE_WRITE), or as stored in the file (CACHE_UPKEEP); not used by CACHE_READ
 * Returns 0 and *c (cache_destroy it); ERR_BUSY (another writer; the note has its pid and host),
 * ERR_UNSUPPORTED (network or FUSE file system; the note names it), ERR_VERSION, ERR_CORRUPT (not an LMDB
 * file of ours, damaged or cut short), ERR_NOT_FOUND (no cache, and the mode is not CACHE_WRITE), ENOMEM,
 * errno. Clears the slots of dead readers. A process must not open one directory twice.
 */
int cache_open(struct cache **c, const char *dir, enum cache_mode mode, uint64_t map_bytes, struct err_note *note);

/*
 * cache_check_pages - checks the pages of the LMDB file against LMDB's own counts, and each reference before
 * it follows it, so that a damaged page is an error and not a SIGSEGV. cache_open calls it. @all: also the
 * headers of overflow pages, which costs one read for each record. Returns 0; ERR_CORRUPT (the note has the
 * page and what to do); ENOMEM; errno, also EIO from the disk.
 */
int cache_check_pages(struct cache *c, bool all, struct err_note *note);
void cache_destroy(struct cache **c);		/* takes NULL; every transaction must have ended */

/*
 * cache_identity_bind - checks that the cache has the given identity. The identity is a set of named texts on
 * which all data of the cache depend ("corpus", "context", "label_set.tau"). Names that are not stored yet
 * are added in one commit (all of them in a new cache); stored names that are not given are left unchanged.
 * Returns 0; ERR_MISMATCH, with directory, name, stored value (expected) and given value (found) in the note
 * and nothing written; ERR_RANGE (text too long); or as cache_write_commit. Not for CACHE_READ.
 */
struct cache_identity {
	const char *name;		/* at most 63 bytes */
	const char *value;		/* less than CACHE_IDENTITY_BYTES */
};

int cache_identity_bind(struct cache *c, const struct cache_identity *items, size_t n, struct err_note *note);

/* cache_identity_get - copies a stored value into buf, cut to size. 0, ERR_NOT_FOUND, ERR_CORRUPT, errno. */
int cache_identity_get(struct cache *c, const char *name, char *buf, size_t size);

/*
 * cache_unigram_put - stores the unigram table of the label set (labels_unigram_bytes) in its own commit, so
 * that readers of the cache need no corpus. Does nothing if a table is stored already. Not for CACHE_READ.
 * cache_unigram_get - reads it into *bytes, malloc'ed, which the caller frees. 0, ERR_NOT_FOUND, ERR_CORRUPT,
 * ENOMEM, errno.
 */
int cache_unigram_put(struct cache *c, const uint8_t *bytes, size_t len);
int cache_unigram_get(struct cache *c, uint8_t **bytes, size_t *len);

/*
 * cache_identity_each - calls each() for all stored names, sorted; stops at and returns its first non-zero.
 */
int cache_identity_each(struct cache *c, int (*each)(void *arg, const char *name, const char *value), void *arg);

/* ---- reading ---- */

/*
 * cache_txn_begin - begins a read transaction, which sees a snapshot. Returns 0, ENOMEM or errno. A
 * transaction belongs to one thread. cache_txn_end takes NULL and sets *txn to NULL.
 */
int cache_txn_begin(struct cache *c, struct cache_txn **txn);
void cache_txn_end(struct cache_txn **txn);

struct cache_bytes {
	const uint8_t *bytes;
	size_t len;
};

/*
 * The model that made a score. A cache has one label set and one score set; the teacher scores the held-out
 * sequences.
 */
enum cache_scores { CACHE_SCORES_SCORER = 0, CACHE_SCORES_TEACHER = 1 };

/*
 * cache_labels_get - gets the soft labels of one sequence.
 * @seq   as for corpus_window()
 * @out   one encoded record, see labels.h for its offsets. It points into the map and is valid until
 *        cache_txn_end(); do not write to it or free it
 * Returns 0; or, with *out unchanged, ERR_NOT_FOUND, ERR_CORRUPT (wrong checksum; counted, see
 * cache_n_corrupt), errno.
 * cache_scores_get - the same for a score record.
 */
int cache_labels_get(struct cache_txn *txn, uint64_t seq, struct cache_bytes *out);
int cache_scores_get(struct cache_txn *txn, enum cache_scores set, uint64_t seq, struct cache_bytes *out);

/*
 * cache_labels_has - 0 if there is a label record, even a damaged one (reads the key); ERR_NOT_FOUND; errno.
 */
int cache_labels_has(struct cache_txn *txn, uint64_t seq);

/* CACHE_ROW_QUARANTINED: the sequence was quarantined when the block was chosen: trained with weight 0. */
enum cache_row_flags { CACHE_ROW_QUARANTINED = 1 };

/* One row of a block. */
struct cache_row {
	uint64_t position;		/* stream position p */
	uint64_t seq;
	float score;			/* S(x), nats; NaN in mode none and if there is none */
	uint32_t flags;
};

/*
 * cache_rows_get - reads rows [first, first + n) of a block into out. Returns 0, ERR_NOT_FOUND (the block is
 * not written), ERR_RANGE (past its end), ERR_CORRUPT, errno.
 * cache_rows_count - *n: number of rows of a block. Errors as cache_rows_get.
 */
int cache_rows_get(struct cache_txn *txn, struct hash128 plan, uint64_t block, uint64_t first, size_t n, struct cache_row *out);
int cache_rows_count(struct cache_txn *txn, struct hash128 plan, uint64_t block, uint64_t *n);

/*
 * How the rows of a plan are chosen: all sequences in shuffle order, by the scores of this cache, by the
 * scores of a selection file, or as a selection file lists them.
 */
enum cache_plan_mode { CACHE_MODE_NONE, CACHE_MODE_SALT_DS, CACHE_MODE_SCORES, CACHE_MODE_LIST };

/* A plan as stored, without its rows. */
struct cache_plan {
	struct hash128 hash;
	uint32_t seed, batch, mode, k;	/* mode: CACHE_MODE_ */
	uint64_t window, kept, n_rows;	/* W, K of a block */
	double keep;
	uint64_t oldest_step;		/* as stated by CHECKPOINTED */
	uint64_t released_step;
	bool released;
};

int cache_plan_get(struct cache_txn *txn, struct hash128 hash, struct cache_plan *out);

/* Teachers that disappeared or failed while they held a lease of a sequence; see selectord. */
#define CACHE_ATTEMPTS_MAX 3

struct cache_attempts {
	uint64_t seq;
	uint32_t n_dead;		/* entries of boot[] and who[]: different teachers that failed */
	uint32_t n_errors;		/* times a teacher answered with an error */
	/*
	 * boot: the boot id, if the teacher disappeared with a lease of only this sequence; else 0. who: hash
	 * of key, host and name; in older records equal to boot.
	 */
	struct hash128 boot[CACHE_ATTEMPTS_MAX];
	struct hash128 who[CACHE_ATTEMPTS_MAX];
};

struct cache_quarantine {
	uint64_t seq;
	int64_t since_s;		/* Unix time */
	char reason[256];
};

/*
 * These call each() for all records of a table in key order; they stop at its first non-zero result and
 * return it. Damaged records are counted and left out.
 */
int cache_plans_each(struct cache_txn *txn, int (*each)(void *arg, const struct cache_plan *plan), void *arg);
int cache_attempts_each(struct cache_txn *txn, int (*each)(void *arg, const struct cache_attempts *a), void *arg);
int cache_quarantine_each(struct cache_txn *txn, int (*each)(void *arg, const struct cache_quarantine *q), void *arg);

/*
 * cache_labels_next - finds the first label record at or after *seq and sets *seq to its sequence.
 * cache_scores_next - the same for one kind of scores.
 * Returns 0; ERR_NOT_FOUND (*seq unchanged); ERR_CORRUPT (*seq is the damaged record's, *out unchanged);
 * errno. *out is valid as in cache_labels_get.
 */
int cache_labels_next(struct cache_txn *txn, uint64_t *seq, struct cache_bytes *out);
int cache_scores_next(struct cache_txn *txn, enum cache_scores set, uint64_t *seq, struct cache_bytes *out);

/*
 * One record of any table, as cache_each finds it. key_ok: the key has the form of its table; then the fields
 * of which it consists are set: set and seq for scores; seq for labels, attempts and quarantine; plan, block
 * and chunk for rows; plan for plans.
 */
struct cache_item {
	enum cache_table table;
	const void *key;
	size_t key_len;
	int rc;				/* 0, or ERR_CORRUPT: the checksum is wrong, and bytes is empty */
	struct cache_bytes bytes;
	bool key_ok;
	uint8_t set;
	uint64_t seq, block;
	uint32_t chunk;
	struct hash128 plan;
};

/*
 * cache_each - calls each() for every record of a table in key order, also for damaged ones (counted), in
 * several short transactions: a record that is written meanwhile may or may not be seen. *item is valid until
 * each() returns; each() must not write to the cache. Stops at each()'s first non-zero result and returns it;
 * else returns 0, ENOMEM, errno.
 */
int cache_each(struct cache *c, enum cache_table table, int (*each)(void *arg, const struct cache_item *item), void *arg);

/* ---- writing: selectord/commit.c; saltctl under CACHE_UPKEEP ---- */

/*
 * Call cache_write_begin, then any of the calls below, then cache_write_commit or cache_write_abort. Any
 * thread may write, one at a time. After a failure of a call below only cache_write_abort may follow.
 *
 * Errors: ENOSPC, EDQUOT (no space: abort, wait, and repeat the whole transaction), ERR_FULL (the map is used
 * up), EIO (the disk failed, and the state on it is unknown: the process must end with exit code 74), others.
 * LMDB reports a short write as EIO; it is ENOSPC here if the file system has less than the reserve of
 * cache_room().
 */
int cache_write_begin(struct cache *c);
int cache_write_commit(struct cache *c);
int cache_write_turn(struct cache *c);		/* an empty commit: frees the last one's pages for reuse */
void cache_write_abort(struct cache *c);	/* does nothing without a transaction */

/*
 * Records are written once. Returns 0, or ERR_EXISTS: a record is stored already, nothing was changed, and
 * the transaction may continue. *differs (may be NULL): whether the stored bytes differ. A damaged record is
 * replaced.
 */
int cache_write_labels(struct cache *c, uint64_t seq, const void *bytes, size_t len, bool *differs);
int cache_write_scores(struct cache *c, enum cache_scores set, uint64_t seq, const void *bytes, size_t len, bool *differs);
int cache_write_rows(struct cache *c, struct hash128 plan, uint64_t block, const struct cache_row *rows, size_t n, bool *differs);

/* These remove records. They return 0 also if there is no such record. */
int cache_drop_labels(struct cache *c, uint64_t seq);
int cache_drop_scores(struct cache *c, enum cache_scores set, uint64_t seq);
int cache_drop_attempts(struct cache *c, uint64_t seq);
int cache_drop_rows(struct cache *c, struct hash128 plan, uint64_t block);
int cache_drop_key(struct cache *c, enum cache_table table, const void *key, size_t len); /* of cache_each */

/* These replace an existing record. */
int cache_write_plan(struct cache *c, const struct cache_plan *plan);
int cache_write_attempts(struct cache *c, const struct cache_attempts *a);
int cache_write_quarantine(struct cache *c, const struct cache_quarantine *q);

/* ---- upkeep ---- */

/*
 * cache_room - checks that there is space for a commit. Returns 0; ENOSPC (the file system has less free than
 * the reserve: the smaller of 64 MiB and 1/50 of its size); ERR_FULL (more than 95% of the map is used);
 * errno.
 * @map_ratio (may be NULL): share of the map that is used. Any thread.
 */
int cache_room(struct cache *c, double *map_ratio);

/*
 * cache_room_inside - for a file system below its reserve: 0 if the cache's own file has at least the reserve
 * in free pages (from dropped records), ENOSPC if not, others. Any thread.
 */
int cache_room_inside(struct cache *c);

/*
 * cache_there - 0 if the open file is still the one in cache.dir; ENOENT: the folder or the file was removed,
 * moved or replaced. Any thread.
 */
int cache_there(const struct cache *c);

/* cache_disk_free - share of the cache's file system that is free; NaN: unknown. Any thread. */
double cache_disk_free(const struct cache *c);

/*
 * cache_grow - doubles the map (adds at least 16 MiB, at most 1 TiB). The writing thread calls it between
 * transactions, after ERR_FULL or earlier. Waits until this process's read transactions have ended; readers
 * in other processes adopt the new size by themselves. Returns 0 and *map_bytes; ENOMEM (no address space) or
 * errno with the map unchanged.
 */
int cache_grow(struct cache *c, uint64_t *map_bytes);

/* cache_reader_check - frees the slots of dead readers; *n_dead: how many. Call it about every 10 s. */
int cache_reader_check(struct cache *c, int *n_dead);

uint64_t cache_n_corrupt(const struct cache *c);	/* damaged records read since open */

struct cache_stat {
	struct {
		uint64_t n_records;
		uint64_t n_bytes;	/* pages of the table */
	} table[CACHE_TABLES];
	uint64_t map_bytes, used_bytes;	/* used: pages ever used, also those free now */
	uint64_t file_bytes;		/* on the disk */
	uint32_t n_readers;
};

const char *cache_table_name(enum cache_table table);
int cache_stat(struct cache *c, struct cache_stat *out);

#endif
