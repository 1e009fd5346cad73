/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_file and its sidecar. The sidecar is one line of text:
 *   salthash1 <root, 32 hex> <size> <mtime seconds>.<nanoseconds> <inode>
 */
#include "base/hash/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file/file.h"

#define PIECE_BYTES (UINT64_C(64) << 20)

static int
sidecar_read(const char *side, const struct stat *st, struct hash128 *root)
{
	char hex[HASH_HEX_BYTES];
	uint64_t size, inode;
	int64_t sec;
	long nsec;
	FILE *f = fopen(side, "re");
	int n;

	if (f == NULL)
		return ERR_NOT_FOUND;
	n = fscanf(f, "salthash1 %32s %" SCNu64 " %" SCNd64 ".%ld %" SCNu64, hex, &size, &sec, &nsec, &inode);
	fclose(f);
	if (n != 5 || size != (uint64_t)st->st_size || sec != (int64_t)st->st_mtim.tv_sec || nsec != st->st_mtim.tv_nsec ||
	    inode != (uint64_t)st->st_ino)
		return ERR_NOT_FOUND;
	return hash_from_hex(root, hex);
}

/* Failures are ignored: without the sidecar the next start reads the whole file. */
static void
sidecar_write(const char *side, const struct stat *st, struct hash128 root)
{
	char hex[HASH_HEX_BYTES];
	struct file_replace r;

	if (file_replace_begin(&r, side, NULL) != 0)
		return;
	fprintf(r.f, "salthash1 %s %" PRIu64 " %" PRId64 ".%09ld %" PRIu64 "\n", hash_hex(root, hex), (uint64_t)st->st_size,
	    (int64_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (uint64_t)st->st_ino);
	file_replace_end(&r, false, NULL);
}

int
hash_file(const char *path, int use_sidecar, struct hash128 *root, struct err_note *note)
{
	struct hash_state *h = NULL;
	char side[4160];
	struct stat st;
	int fd, rc = 0;

	snprintf(side, sizeof(side), "%s.salthash", path);
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return err_note_set(note, errno, "%s", path);
	if (fstat(fd, &st) != 0) {
		rc = err_note_set(note, errno, "%s", path);
		goto out;
	}
	if (use_sidecar && sidecar_read(side, &st, root) == 0)
		goto out;
	if ((h = hash_new()) == NULL) {
		rc = ENOMEM;
		goto out;
	}
	for (uint64_t at = 0; at < (uint64_t)st.st_size; at += PIECE_BYTES) {
		uint64_t left = (uint64_t)st.st_size - at;
		size_t n = left < PIECE_BYTES ? (size_t)left : (size_t)PIECE_BYTES;
		void *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, (off_t)at);
		struct hash128 piece;

		if (p == MAP_FAILED) {
			rc = err_note_set(note, errno, "%s", path);
			err_note_place(note, "byte %" PRIu64, at);
			goto out;
		}
		piece = hash_bytes(p, n);
		munmap(p, n);
		hash_field(h, "piece", &piece, sizeof(piece));
	}
	hash_field_u64(h, "size", (uint64_t)st.st_size);
	*root = hash_digest(h);
	if (use_sidecar)
		sidecar_write(side, &st, *root);
out:
	hash_destroy(&h);
	close(fd);
	return rc;
}
