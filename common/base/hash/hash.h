/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash - fingerprints and checksums. All functions except those of files are pure; stored caches and runs
 * depend on every bit of the results.
 */
#ifndef SALT_HASH_H
#define SALT_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"

/* A fingerprint: xxh3-128, seed 0, printed as 32 hex digits, high half first. Not safe against forgery. */
struct hash128 {
	uint64_t hi, lo;
};

#define HASH_HEX_BYTES 33

struct hash128 hash_bytes(const void *p, size_t n);
uint64_t hash_bytes64(const void *p, size_t n);			/* xxh3-64: checksums of records */
/* hash_crc32c - the CRC-32C (RFC 3720) of n bytes, for file formats that contain it. */
uint32_t hash_crc32c(const void *p, size_t n);
int hash_equal(struct hash128 a, struct hash128 b);
const char *hash_hex(struct hash128 h, char buf[HASH_HEX_BYTES]);
int hash_from_hex(struct hash128 *out, const char *hex);	/* 0 or ERR_FORMAT */

/*
 * hash_tokens - hashes n token ids as little-endian int32, whatever type the corpus stores. A label record
 * contains this hash of its tokens.
 */
struct hash128 hash_tokens(const int32_t *ids, size_t n);

/*
 * Hashes data that arrives in pieces. hash_new returns NULL without memory. hash_field adds name, length and
 * bytes, so that different sequences of fields never add the same bytes.
 */
struct hash_state;
struct hash_state *hash_new(void);
void hash_destroy(struct hash_state **h);
void hash_update(struct hash_state *h, const void *p, size_t n);
void hash_field(struct hash_state *h, const char *name, const void *p, size_t n);
void hash_field_begin(struct hash_state *h, const char *name, uint64_t n);	/* hash_update adds them */
void hash_field_u64(struct hash_state *h, const char *name, uint64_t v);
void hash_field_str(struct hash_state *h, const char *name, const char *s);
struct hash128 hash_digest(const struct hash_state *h);

/*
 * hash_file - hashes the xxh3-128 of each 64 MiB piece of a file, in order, and the file's length. Reads the
 * whole file with as many threads as processors (at most 64), and logs the progress every five seconds.
 * Returns 0, or errno or ERR_CORRUPT (cut short) with the note.
 */
int hash_file(const char *path, struct hash128 *root, struct err_note *note);

/*
 * hash_blocks - the xxh3-64 of each block of an open file. A block is checked against it when it is read, so
 * that no changed byte is used after the file's hash was computed. Memory: 9 bytes a block.
 */
#define HASH_BLOCK_BYTES (1u << 18)
struct hash_blocks;

/*
 * hash_blocks_open - gets the block checksums and the hash of the file (as hash_file) from PATH.salthash, if
 * it describes the file's present state (size, mtime in ns, inode). Else reads the file, and writes
 * PATH.salthash if the folder permits. path must stay valid until hash_blocks_close. Returns 0; ERR_CORRUPT:
 * PATH.salthash is of the older form and states another hash for this size, time and inode, or the file was
 * cut short; ENOMEM; errno.
 */
int hash_blocks_open(struct hash_blocks **b, int fd, const char *path, struct hash128 *root, struct err_note *note);
void hash_blocks_close(struct hash_blocks **b);			/* takes NULL */

/*
 * hash_blocks_check - reads the blocks that contain bytes of [at, at + n) and compares their checksums.
 * Blocks that were found good before are skipped unless `again`. Returns 0; ERR_CORRUPT: a block differs, or
 * the file was cut short; errno; ENOMEM. The note names block and bytes. Any thread.
 */
int hash_blocks_check(struct hash_blocks *b, int fd, uint64_t at, uint64_t n, bool again, struct err_note *note);

#endif
