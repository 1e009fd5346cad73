/* SPDX-License-Identifier: Apache-2.0 */
/* load - shared by the files of bench_selector_load. */
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

/* files.c: writes DIR/train (n_tokens) and DIR/model (one small layer; it is never computed). */
void files_make(const char *dir, uint64_t n_tokens, uint32_t context);

/*
 * record.c: label records of realistic size, made once; each sequence gets its own token hash and checksum.
 * records_make - makes records of about want_bytes each with the encoder of labels; exits if labels_check
 * rejects a patched record.
 */
struct records {
	/* spec.set must be that of WELCOME before the first records_patch; unigram: of the corpus */
	struct labels_spec spec;
	struct labels_buf of[32];
	size_t max_len, n_candidates;
	double mean_len;
};

void records_make(struct records *r, const char *corpus, uint32_t context, size_t want_bytes);
/* records_patch - writes the record of seq to out (max_len bytes); returns its length. */
size_t records_patch(const struct records *r, uint64_t seq, struct hash128 tokens, uint8_t *out);

/*
 * lmdb.c: the comparison program, bare LMDB: a separate file, ascending keys, 256 records per commit, LMDB's
 * default sync. lmdb_write appends n records and returns the seconds it took. Its runs alternate with the
 * ingest of the same number of records, because the speed of a disk varies from second to second.
 */
struct lmdb;

struct lmdb *lmdb_open(const char *dir, const struct records *r);
double lmdb_write(struct lmdb *b, const struct records *r, uint64_t n);
void lmdb_close(struct lmdb **b);

#endif
