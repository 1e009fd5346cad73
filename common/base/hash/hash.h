/*
 * hash - fingerprints and checksums. Everything here but hash_file is a pure function with golden values in tests/unit/test_hash.c:
 * caches and runs on disk depend on each bit of it.
 */
#ifndef SALT_HASH_H
#define SALT_HASH_H

#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"

/* A fingerprint: xxh3-128, seed 0. Printed as 32 hex digits, high half first. Not against forgery, against mistakes. */
struct hash128 {
	uint64_t hi, lo;
};

#define HASH_HEX_BYTES 33

struct hash128 hash_bytes(const void *p, size_t n);
uint64_t hash_bytes64(const void *p, size_t n);			/* xxh3-64: checksums of records */
/* hash_crc32c - Castagnoli's CRC (RFC 3720) of n bytes: for the formats of others that ask for it. */
uint32_t hash_crc32c(const void *p, size_t n);
int hash_equal(struct hash128 a, struct hash128 b);
const char *hash_hex(struct hash128 h, char buf[HASH_HEX_BYTES]);
int hash_from_hex(struct hash128 *out, const char *hex);	/* 0 or ERR_FORMAT */

/* hash_tokens - of n token ids as little-endian int32, whatever the corpus stores them in: the check between labels and tokens. */
struct hash128 hash_tokens(const int32_t *ids, size_t n);

/*
 * Streaming. hash_new: NULL without memory. The text fields of an identity are fed with hash_field, which adds name, length
 * and bytes, so that neighbouring fields cannot run into each other.
 */
struct hash_state;
struct hash_state *hash_new(void);
void hash_destroy(struct hash_state **h);
void hash_update(struct hash_state *h, const void *p, size_t n);
void hash_field(struct hash_state *h, const char *name, const void *p, size_t n);
void hash_field_u64(struct hash_state *h, const char *name, uint64_t v);
void hash_field_str(struct hash_state *h, const char *name, const char *s);
struct hash128 hash_digest(const struct hash_state *h);

/*
 * hash_file - root over the xxh3-128 of each 64 MiB piece, in order, and the length.
 * With use_sidecar, PATH.salthash keeps the root together with size, mtime in ns and inode, and is used while these are unchanged; it is
 * (re)written where the directory permits, silently skipped where not. Returns 0 or errno, note filled.
 */
int hash_file(const char *path, int use_sidecar, struct hash128 *root, struct err_note *note);

#endif
