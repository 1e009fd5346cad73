/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache - the LMDB tables: scores, labels, rows, plans, attempts, quarantine, meta. The only module that includes LMDB.
 *
 * One process writes (selectord's commit.c, under an exclusive lock on DIR/selectord.lock), any number read.
 * LMDB's default sync mode only: a commit that returned 0 is on the disk. Every value ends with 8 bytes of
 * checksum, verified at each read.
 *
 * Caveats: local file systems only (by statfs; NFS, SMB, FUSE, 9p and similar are refused). The map is
 * sparse; it is address space, not disk, and grows (cache_grow). A read transaction that stays open keeps old
 * pages from being reused: end it within a second, never hold one while waiting for anything. docs/formats.md
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
#define CACHE_IDENTITY_BYTES 160			/* of one identity value, with NUL */
#define CACHE_IDENTITY_PART "corpus.part.%zu"		/* of a blend only: "N windows, share S" */
#define CACHE_VALUE_MAX (UINT32_C(1) << 30)		/* bytes of one record */

struct cache;
struct cache_txn;

enum cache_table { CACHE_TABLE_META, CACHE_TABLE_SCORES, CACHE_TABLE_LABELS, CACHE_TABLE_ROWS, CACHE_TABLE_PLANS, CACHE_TABLE_ATTEMPTS,
	CACHE_TABLE_QUARANTINE, CACHE_TABLES };

enum cache_mode {
	CACHE_WRITE,			/* selectord: takes the lock, creates what is missing */
	CACHE_READ,			/* saltctl: the cache must exist; a selectord may be running on it */
	CACHE_UPKEEP			/* saltctl: takes the lock and may write, but the cache must exist */
};

/*
 * cache_open - open DIR, or create it with its parents.
 * @map_bytes  the map to begin with, a larger file makes it larger; 0: CACHE_MAP_BYTES_DEFAULT (CACHE_WRITE), as it is (CACHE_UPKEEP);
 *             not used by CACHE_READ
 * Returns 0 and *c (cache_destroy it); ERR_BUSY (another writer; the note has its pid and host),
 * ERR_UNSUPPORTED (network or FUSE file system, named), ERR_VERSION, ERR_CORRUPT (no LMDB file of ours, or
 * cut short), ERR_NOT_FOUND (not CACHE_WRITE: no cache there), ENOMEM, errno.
 * Dead readers' slots are cleared. One cache of a directory per process.
 */
int cache_open(struct cache **c, const char *dir, enum cache_mode mode, uint64_t map_bytes, struct err_note *note);

/*
 * cache_check_pages - compares the pages of the LMDB file with what LMDB itself counted, without following
 * them blindly, so that a damaged page is an error and not a SIGSEGV. cache_open does it. @all: headers of
 * overflow pages too, which is a read for each record. 0; ERR_CORRUPT (the note has the page and what to do);
 * ENOMEM; errno, EIO from the disk too.
 */
int cache_check_pages(struct cache *c, bool all, struct err_note *note);
void cache_destroy(struct cache **c);		/* takes NULL; every transaction must have ended */

/*
 * Identity: named texts that all data of the cache depend on ("corpus", "context", "label_set.tau"). The
 * first selectord writes them, in one commit. Names not stored yet are added (a score set that comes later),
 * names not given are left alone.
 * Returns 0; ERR_MISMATCH, the note giving directory, name, stored value (expected) and given value (found),
 * nothing written; ERR_RANGE (text too long); what a commit can fail with. CACHE_WRITE only.
 */
struct cache_identity {
	const char *name;		/* at most 63 bytes */
	const char *value;		/* less than CACHE_IDENTITY_BYTES */
};

int cache_identity_bind(struct cache *c, const struct cache_identity *items, size_t n, struct err_note *note);

/* cache_identity_get - one stored value into buf (cut to size). 0, ERR_NOT_FOUND, ERR_CORRUPT, errno. Any mode. */
int cache_identity_get(struct cache *c, const char *name, char *buf, size_t size);

/*
 * cache_unigram_put - store the unigram table of the label set (labels_unigram_bytes), so that readers of the
 * cache need no corpus. A commit of its own; nothing is written if a table is stored already. Write mode.
 * cache_unigram_get - *bytes malloc'ed, the caller's. 0, ERR_NOT_FOUND, ERR_CORRUPT, ENOMEM, errno.
 */
int cache_unigram_put(struct cache *c, const uint8_t *bytes, size_t len);
int cache_unigram_get(struct cache *c, uint8_t **bytes, size_t *len);

/* cache_identity_each - all of them in name order; stops at each()'s first non-zero and returns it. */
int cache_identity_each(struct cache *c, int (*each)(void *arg, const char *name, const char *value), void *arg);

/* ---- reading ---- */

/*
 * cache_txn_begin - a snapshot. 0, ENOMEM or errno. One thread per transaction. cache_txn_end takes NULL and
 * sets *txn to NULL.
 */
int cache_txn_begin(struct cache *c, struct cache_txn **txn);
void cache_txn_end(struct cache_txn **txn);

struct cache_bytes {
	const uint8_t *bytes;
	size_t len;
};

/*
 * Which model a score comes from. A cache has one label set and one score set; held-out windows are scored by
 * the teacher.
 */
enum cache_scores { CACHE_SCORES_SCORER = 0, CACHE_SCORES_TEACHER = 1 };

/*
 * cache_labels_get - borrow the soft labels of one sequence.
 * @seq   as given by corpus_window()
 * @out   one encoded record, see labels.h for its offsets
 * Valid until cache_txn_end(): it points into the map. Do not write, free or send it later.
 * Returns 0, ERR_NOT_FOUND, ERR_CORRUPT (checksum; counted, see cache_n_corrupt), or errno; *out is untouched then.
 * cache_scores_get - the same for a score record.
 */
int cache_labels_get(struct cache_txn *txn, uint64_t seq, struct cache_bytes *out);
int cache_scores_get(struct cache_txn *txn, enum cache_scores set, uint64_t seq, struct cache_bytes *out);

/* cache_labels_has - is there a record, good or damaged? Reads its key only. 0, ERR_NOT_FOUND, errno. */
int cache_labels_has(struct cache_txn *txn, uint64_t seq);

/* One row of a block, as chosen. */
enum cache_row_flags { CACHE_ROW_QUARANTINED = 1 };	/* was quarantined when the block was chosen: weight 0 */

struct cache_row {
	uint64_t position;		/* p in the stream */
	uint64_t seq;
	float score;			/* S(x), nats; NaN in mode none and where it does not exist */
	uint32_t flags;
};

/*
 * cache_rows_get - rows [first, first + n) of a block into out. Returns 0, ERR_NOT_FOUND (block not written),
 * ERR_RANGE (past its end), ERR_CORRUPT, errno. cache_rows_count - number of rows of a block: 0 and *n, or as
 * above.
 */
int cache_rows_get(struct cache_txn *txn, struct hash128 plan, uint64_t block, uint64_t first, size_t n, struct cache_row *out);
int cache_rows_count(struct cache_txn *txn, struct hash128 plan, uint64_t block, uint64_t *n);

/*
 * How the rows of a plan are found: every sequence in shuffle order, by scores of this cache, by scores of a
 * file, a list of a file.
 */
enum cache_plan_mode { CACHE_MODE_NONE, CACHE_MODE_SALT_DS, CACHE_MODE_SCORES, CACHE_MODE_LIST };

/* What is stored about a plan beside its rows. */
struct cache_plan {
	struct hash128 hash;
	uint32_t seed, batch, mode, k;	/* mode: CACHE_MODE_ */
	uint64_t window, kept, n_rows;	/* W, K of a block */
	double keep;
	uint64_t oldest_step;		/* of CHECKPOINTED */
	uint64_t released_step;
	bool released;
};

int cache_plan_get(struct cache_txn *txn, struct hash128 hash, struct cache_plan *out);

/* Teachers that disappeared or failed while they held a sequence; see selectord. */
#define CACHE_ATTEMPTS_MAX 3

struct cache_attempts {
	uint64_t seq;
	uint32_t n_dead;		/* of boot[] and who[]: different teachers that failed on it */
	uint32_t n_errors;		/* times a teacher answered with an error */
	struct hash128 boot[CACHE_ATTEMPTS_MAX];	/* the process, where it disappeared with a lease of this sequence alone; else zero */
	struct hash128 who[CACHE_ATTEMPTS_MAX];		/* hash of key, host and name; of an older record: the same as boot */
};

struct cache_quarantine {
	uint64_t seq;
	int64_t since_s;		/* Unix time */
	char reason[256];
};

/*
 * All of a table, in key order; stop at each()'s first non-zero and return it. ERR_CORRUPT records are
 * counted and left out.
 */
int cache_plans_each(struct cache_txn *txn, int (*each)(void *arg, const struct cache_plan *plan), void *arg);
int cache_attempts_each(struct cache_txn *txn, int (*each)(void *arg, const struct cache_attempts *a), void *arg);
int cache_quarantine_each(struct cache_txn *txn, int (*each)(void *arg, const struct cache_quarantine *q), void *arg);

/*
 * cache_labels_next - the first label record at or after *seq; *seq becomes its. cache_scores_next - the same
 * in one of the score sets.
 * Returns 0; ERR_NOT_FOUND (none; *seq untouched); ERR_CORRUPT (*seq is that of the damaged one, *out
 * untouched); errno. Borrowed as above.
 */
int cache_labels_next(struct cache_txn *txn, uint64_t *seq, struct cache_bytes *out);
int cache_scores_next(struct cache_txn *txn, enum cache_scores set, uint64_t *seq, struct cache_bytes *out);

/*
 * One record of any table, as cache_each finds it. key_ok: the key has its table's form; then the fields it
 * is made of are filled:
 * scores set, seq; labels, attempts, quarantine seq; rows plan, block, chunk; plans plan.
 */
struct cache_item {
	enum cache_table table;
	const void *key;
	size_t key_len;
	int rc;				/* 0, or ERR_CORRUPT: the checksum does not hold, bytes is empty */
	struct cache_bytes bytes;
	bool key_ok;
	uint8_t set;
	uint64_t seq, block;
	uint32_t chunk;
	struct hash128 plan;
};

/*
 * cache_each - every record of a table in key order, damaged ones too (counted), in steps of short
 * transactions: a record written meanwhile may or may not be seen. What each() gets is borrowed until it
 * returns; it must not write to the cache.
 * Stops at each()'s first non-zero and returns it; else 0, ENOMEM, errno.
 */
int cache_each(struct cache *c, enum cache_table table, int (*each)(void *arg, const struct cache_item *item), void *arg);

/* ---- writing: selectord/commit.c; saltctl under CACHE_UPKEEP ---- */

/*
 * cache_write_begin, then any of the calls below, then cache_write_commit or cache_write_abort. A thread of
 * its own may do it; one at a time. Every failure of a call below leaves a transaction that is only good for
 * cache_write_abort.
 *
 * Errors: ENOSPC, EDQUOT (no room: abort, wait, do it again from the start), ERR_FULL (the map is used up), EIO (the disk failed: what is
 * on it is not known; the process must end, 74), others.  A short write, which LMDB reports as EIO, is ENOSPC here when the file
 * system has less than the reserve of cache_room().
 */
int cache_write_begin(struct cache *c);
int cache_write_commit(struct cache *c);
int cache_write_turn(struct cache *c);		/* an empty commit: after it the pages freed by the last commit can be reused */
void cache_write_abort(struct cache *c);	/* does nothing without a transaction */

/*
 * Records are written once. Returns 0; ERR_EXISTS with *differs (may be NULL) set when the stored bytes are
 * others: nothing changed and the transaction goes on. A stored record that is damaged is replaced.
 */
int cache_write_labels(struct cache *c, uint64_t seq, const void *bytes, size_t len, bool *differs);
int cache_write_scores(struct cache *c, enum cache_scores set, uint64_t seq, const void *bytes, size_t len, bool *differs);
int cache_write_rows(struct cache *c, struct hash128 plan, uint64_t block, const struct cache_row *rows, size_t n, bool *differs);

/* Removing: 0 also if there is no such record. */
int cache_drop_labels(struct cache *c, uint64_t seq);
int cache_drop_scores(struct cache *c, enum cache_scores set, uint64_t seq);
int cache_drop_attempts(struct cache *c, uint64_t seq);
int cache_drop_rows(struct cache *c, struct hash128 plan, uint64_t block);
int cache_drop_key(struct cache *c, enum cache_table table, const void *key, size_t len);	/* whatever cache_each showed */

/* These replace an existing record. */
int cache_write_plan(struct cache *c, const struct cache_plan *plan);
int cache_write_attempts(struct cache *c, const struct cache_attempts *a);
int cache_write_quarantine(struct cache *c, const struct cache_quarantine *q);

/* ---- upkeep ---- */

/*
 * cache_room - 0; ENOSPC (file system below its reserve: the smaller of 64 MiB and 1/50 of its size),
 * ERR_FULL (over 95% of the map used), errno. @map_ratio (may be NULL): share of the map used; warn over 0.8.
 * Any thread.
 */
int cache_room(struct cache *c, double *map_ratio);

/*
 * cache_room_inside - for a file system below its reserve: 0 if dropped records left at least the reserve in
 * pages of the cache's own file, ENOSPC if not, others. Any thread.
 */
int cache_room_inside(struct cache *c);

/*
 * cache_there - 0 if the file that is open is the one in cache.dir; ENOENT: the folder or the file was
 * removed, moved or replaced. Any thread.
 */
int cache_there(const struct cache *c);

/* cache_disk_free - share of the cache's file system that is free; NaN: unknown. Any thread. */
double cache_disk_free(const struct cache *c);

/*
 * cache_grow - twice the map (at least 16 MiB, at most 1 TiB more): for the thread that writes, between
 * transactions, on ERR_FULL or before. Waits until this process's read transactions have ended; readers in
 * other processes take over the new size by themselves. 0 and *map_bytes; ENOMEM (no address space), errno:
 * the map is as it was.
 */
int cache_grow(struct cache *c, uint64_t *map_bytes);

/* cache_reader_check - free the slots of readers that died; how many. Every 10 s or so. */
int cache_reader_check(struct cache *c, int *n_dead);

uint64_t cache_n_corrupt(const struct cache *c);	/* damaged records met since open */

struct cache_stat {
	struct {
		uint64_t n_records;
		uint64_t n_bytes;	/* pages of the table */
	} table[CACHE_TABLES];
	uint64_t map_bytes, used_bytes;	/* used: pages ever used, free ones too */
	uint64_t file_bytes;		/* on the disk */
	uint32_t n_readers;
};

const char *cache_table_name(enum cache_table table);
int cache_stat(struct cache *c, struct cache_stat *out);

#endif
