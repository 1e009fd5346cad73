/* SPDX-License-Identifier: Apache-2.0 */
/* Declarations shared by the files of corpus. */
#ifndef SALT_CORPUS_INTERNAL_H
#define SALT_CORPUS_INTERNAL_H

#include <sys/types.h>

#include "data/corpus/blend.h"
#include "data/corpus/corpus.h"

#define CORPUS__PATH_MAX 4096
#define CORPUS__FORMAT "saltfleet-corpus"
#define CORPUS__ABOUT_MAX (1u << 20)	/* largest PREFIX.json in bytes */
#define CORPUS__COUNTS_MAGIC "SALTCNT1"
#define CORPUS__COUNTS_HEADER 16u
#define CORPUS__WEIGHTS ".weights.bin"
#define CORPUS__WEIGHTS_MAGIC "SALTWGT1"
#define CORPUS__WEIGHTS_HEADER 16u
#define CORPUS__SOURCES ".sources.jsonl"
#define CORPUS__SOURCES_HEAD "{\"format\": \"saltfleet-sources\", \"version\": 1}\n"

#define CORPUS__IDX_MAGIC "MMIDIDX\0"	/* 9 bytes with the literal's terminating zero */
#define CORPUS__IDX_MAGIC_BYTES 9u
#define CORPUS__IDX_HEADER 34u

/*
 * A file that is read with pread. It is not mapped, so that a file that is cut short while in use causes an
 * error, not SIGBUS. Only the first FILES_OPEN (open.c) files of a corpus stay open; for the others fd is -1,
 * and each read opens them.
 */
struct corpus__file {
	char *path;
	int fd;
	uint64_t size;
	dev_t dev;
	ino_t inode;
};

struct corpus__part {
	struct corpus__file file;
	char *idx_path;			/* Megatron; else NULL */
	struct hash_blocks *blocks;	/* NULL before corpus_fingerprint */
	uint64_t tokens_at;		/* byte offset of the first token */
	uint64_t first, n_tokens;	/* position in the stream */
};

struct corpus {
	struct corpus_info info;
	uint32_t number;
	uint32_t limit;			/* ids in windows must be below it */
	char *stem;			/* PREFIX of PREFIX.json */
	char *unknown_bytes, *add_special;	/* as PREFIX.json states them, or NULL */
	struct corpus__part *parts;
	size_t n_parts, cap_parts;
	bool has_about, has_recorded, has_fingerprint;
	bool isolated;
	struct hash128 recorded;	/* PREFIX.json's fingerprint */
	struct hash128 counts;		/* PREFIX.json's hash of PREFIX.counts.bin */
	struct hash128 weights_hash;	/* PREFIX.json's hash of PREFIX.weights.bin */
	struct corpus__weights *weights;	/* NULL before corpus_load_weights, and in a blend */
	struct hash128 fingerprint;
	char *prefix;			/* as given to corpus_open */
	struct corpus **members;	/* of a blend, which has no parts; else NULL */
	size_t n_members;
	uint32_t *shares;		/* [n_members] */
};

/*
 * open: opens path and fills *file; close frees it. fd: returns a descriptor, valid until done; < 0 with *rc.
 * read: reads n bytes from offset `at`. check: checks the blocks of these bytes, see hash_blocks_check.
 */
int corpus__file_open(struct corpus__file *file, const char *path, struct err_note *note);
void corpus__file_close(struct corpus__file *file);
int corpus__file_fd(const struct corpus__file *file, int *rc, struct err_note *note);
void corpus__file_done(const struct corpus__file *file, int fd);
int corpus__file_read(const struct corpus__file *file, uint64_t at, void *out, size_t n, struct err_note *note);
int corpus__file_check(const struct corpus__file *file, struct hash_blocks *blocks, uint64_t at, uint64_t n, bool again,
    struct err_note *note);

unsigned corpus__token_bytes(enum corpus_dtype dtype);

/* Sets the note to "PATH: byte AT: expected ..., found ..." and returns rc. */
int corpus__bad(struct err_note *note, int rc, const char *path, uint64_t at, const char *expected, int64_t found);

/*
 * corpus__idx_check - checks PREFIX.idx, also against bin_bytes; fills info's dtype, n_tokens, n_documents.
 */
int corpus__idx_check(const char *path, const char *bin_path, uint64_t bin_bytes, struct corpus_info *info, struct err_note *note);

/*
 * corpus__format - recognizes a token file other than Megatron's by its first n bytes. Returns 0 with kind,
 * dtype, n_tokens and tokens_at; a file of no known format is raw, with all but kind 0. ERR_FORMAT,
 * ERR_UNSUPPORTED, ERR_VERSION: it is another kind of file, which the note names.
 */
#define CORPUS__HEAD_BYTES 4096u
struct corpus__format {
	enum corpus_kind kind;
	enum corpus_dtype dtype;
	uint64_t n_tokens, tokens_at;
};
int corpus__format(const char *path, const uint8_t *head, size_t n, uint64_t size, struct corpus__format *f, struct err_note *note);

/*
 * corpus__about_ours - *ours: path is a PREFIX.json in our format, maybe a damaged one. Returns 0 or errno.
 */
int corpus__about_ours(const char *path, bool *ours, struct err_note *note);

/*
 * corpus__about_read - reads PREFIX.json into *about and c's hashes, if it exists and has our format
 * (c->has_about). *kind: the kind of corpus that it describes.
 */
int corpus__about_read(struct corpus *c, enum corpus_kind *kind, struct corpus_info *about, struct err_note *note);

/*
 * corpus__about_write - writes PREFIX.json's text to path and syncs it. unknown_bytes, add_special,
 * fingerprint, counts, weights: NULL if there is none.
 */
int corpus__about_write(const char *path, const struct corpus_info *info, const char *unknown_bytes, const char *add_special,
    const struct hash128 *fingerprint, const struct hash128 *counts, const struct hash128 *weights, struct err_note *note);

void corpus__weights_destroy(struct corpus__weights **w);		/* takes NULL */

/*
 * Iterates over the documents of a Megatron corpus (not a blend). next: the next document is tokens
 * [first, first + n) of the stream; ERR_NOT_FOUND after the last, ERR_CORRUPT, ENOMEM, errno. end: frees the
 * index. Memory: the index of one file.
 */
struct corpus__documents {
	const struct corpus *c;
	size_t part;
	uint64_t at;			/* next document of the part */
	char *index;			/* the part's index; NULL: not read yet */
};
int corpus__documents_next(struct corpus__documents *d, uint64_t *first, uint64_t *n, struct err_note *note);
void corpus__documents_end(struct corpus__documents *d);

/* corpus__identity - the fingerprint from the files' hashes: bins[n]; idx[n] for Megatron, else NULL. */
int corpus__identity(enum corpus_kind kind, enum corpus_dtype dtype, const struct hash128 *idx, const struct hash128 *bins, size_t n,
    struct hash128 *out, struct err_note *note);

/*
 * corpus__agree - adds the properties of the part called name (`one`) to those of the parts before it
 * (`all`); first: name of the first part. Properties that both state must be equal (ERR_MISMATCH); a property
 * that only one of them states holds for all.
 */
int corpus__agree(struct corpus_info *all, const char *first, const struct corpus_info *one, const char *name, struct err_note *note);

/* list.c, for blends. open: fills c. counts: as corpus_counts. fingerprint: computes c->fingerprint. */
int corpus__list_open(struct corpus *c, const char *text, enum corpus_dtype stated, struct err_note *note);
int corpus__list_counts(const struct corpus *c, uint32_t vocab, uint64_t *out, struct err_note *note);
int corpus__list_fingerprint(struct corpus *c, struct err_note *note);

#endif
