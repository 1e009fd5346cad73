/* load - what the files of bench_selector_load share. */
#ifndef SALT_BENCH_SELECTOR_LOAD_H
#define SALT_BENCH_SELECTOR_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/hash/hash.h"
#include "data/labels/labels.h"
#include "fabric/wire/wire.h"

enum { VOCAB = 50000, SAMPLES = 50 };

void die(int rc, const struct err_note *note, const char *what) __attribute__((noreturn));
double seconds_now(void);

/* files.c: DIR/train (n_tokens), DIR/model (one small layer; nobody runs it). */
void files_make(const char *dir, uint64_t n_tokens, uint32_t context);

/*
 * record.c: records of a real size, made once and given another token hash (and so another checksum) for each sequence.
 * records_make - about want_bytes each, by the encoder of labels; dies when a patched record is not what labels_check takes.
 */
struct records {
	struct labels_spec spec;		/* set: WELCOME's, before the first records_patch whose record somebody checks. unigram: the corpus's, kept to the end */
	struct labels_buf of[32];
	size_t max_len, n_candidates;
	double mean_len;
};

void records_make(struct records *r, const char *corpus, uint32_t context, size_t want_bytes);
size_t records_patch(const struct records *r, uint64_t seq, struct hash128 tokens, uint8_t *out);	/* max_len bytes of room; its length */

/*
 * lmdb.c: the peer, a file of its own, keys ascending, 256 a commit, LMDB's default sync. lmdb_write appends n records and returns the
 * seconds it took; in turn with the ingest of as many, for the disk and the kernel's pages are not the same from one second to the next.
 */
struct lmdb;

struct lmdb *lmdb_open(const char *dir, const struct records *r);
double lmdb_write(struct lmdb *b, const struct records *r, uint64_t n);
void lmdb_close(struct lmdb **b);

#endif
