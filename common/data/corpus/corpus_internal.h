/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of corpus share. */
#ifndef SALT_CORPUS_INTERNAL_H
#define SALT_CORPUS_INTERNAL_H

#include "data/corpus/corpus.h"

#define CORPUS__PATH_MAX 4096
#define CORPUS__FORMAT "saltfleet-corpus"
#define CORPUS__ABOUT_MAX (1u << 20)	/* bytes of PREFIX.json */
#define CORPUS__COUNTS_HEADER 16u

#define CORPUS__IDX_MAGIC "MMIDIDX\0"	/* and the literal's own zero: 9 bytes */
#define CORPUS__IDX_MAGIC_BYTES 9u
#define CORPUS__IDX_HEADER 34u

/* A whole file, mapped. bytes NULL and len 0 for an empty one. */
struct corpus__map {
	const uint8_t *bytes;
	size_t len;
};

struct corpus__part {
	char *path;
	struct corpus__map map;
	const uint8_t *tokens;		/* into map; as aligned as the file: read with memcpy */
	uint64_t first, n_tokens;	/* position in the stream */
};

struct corpus {
	struct corpus_info info;
	uint32_t number;
	uint32_t limit;			/* ids in windows are below it */
	char *stem;			/* PREFIX of PREFIX.json */
	char *idx_path;			/* Megatron */
	struct corpus__part *parts;
	size_t n_parts, cap_parts;
	bool has_about, has_recorded, has_fingerprint;
	struct hash128 recorded;	/* PREFIX.json's fingerprint */
	struct hash128 counts;		/* PREFIX.json's hash of PREFIX.counts.bin */
	struct hash128 fingerprint;
};

int corpus__map_file(const char *path, struct corpus__map *map, struct err_note *note);
void corpus__unmap(struct corpus__map *map);

unsigned corpus__token_bytes(enum corpus_dtype dtype);

/* The note "PATH: byte AT: expected ..., found ..."; returns rc. */
int corpus__bad(struct err_note *note, int rc, const char *path, uint64_t at, const char *expected, int64_t found);

/* corpus__idx_check - PREFIX.idx against the size of PREFIX.bin; fills info's dtype, n_tokens, n_documents. */
int corpus__idx_check(const char *path, struct corpus__map idx, const char *bin_path, uint64_t bin_bytes, struct corpus_info *info,
    struct err_note *note);

/* corpus__about_read - PREFIX.json, if it exists and has our format, into c; *kind is what it describes. c->has_about. */
int corpus__about_read(struct corpus *c, enum corpus_kind *kind, struct corpus_info *about, struct err_note *note);

/* corpus__about_write - PREFIX.json's text at path, synced. unknown_bytes, fingerprint, source, counts: NULL for none. */
int corpus__about_write(const char *path, const struct corpus_info *info, const char *unknown_bytes,
    const struct hash128 *fingerprint, const struct hash128 *counts, struct err_note *note);

/* corpus__identity - the fingerprint from the roots of the files. idx NULL unless Megatron. */
int corpus__identity(enum corpus_kind kind, enum corpus_dtype dtype, const char *idx, const char *const *bins, size_t n_bins,
    bool use_sidecar, struct hash128 *out, struct err_note *note);

#endif
