/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashes of files, whole and by blocks, and the side file PATH.salthash, with which the next start need not
 * read the whole file:
 *   salthash2 <root, 32 hex> <size> <mtime seconds>.<nanoseconds> <inode> <block bytes> <check, 32 hex>\n
 *   u64 [number of blocks], little-endian: the xxh3-64 of each block
 * check is the xxh3-128 of the line up to it and of the u64 checksums. The older form is one line,
 * "salthash1 root size mtime inode".
 */
#include "base/hash/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock/clock.h"
#include "base/cpus/cpus.h"
#include "base/file/file.h"
#include "base/log/log.h"
#include "base/mem/mem.h"

#define PIECE_BYTES (UINT64_C(64) << 20)
#define READ_BYTES (4 * HASH_BLOCK_BYTES)
#define HEADER_BYTES 256u

struct hash_blocks {
	const char *path;
	uint64_t size, n;
	uint64_t *sums; /* [n] */
	_Atomic unsigned char *checked; /* [n] */
};

/* The state of hashing one file: several threads each take the next piece until none is left. */
struct hash_job {
	int fd;
	const char *path;
	uint64_t size, n_pieces;
	uint64_t *sums;			/* of blocks; may be NULL */
	struct hash128 *pieces;		/* [n_pieces] */
	atomic_uint_fast64_t next, done_bytes;
	double said_s;			/* when progress was last logged; used by the calling thread only */
	pthread_mutex_t lock;		/* guards rc and note, which are those of the first failure */
	int rc;
	struct err_note *note;
};

#define THREADS_MAX 64
#define SAY_EVERY_S 5

static int
hash_piece(struct hash_job *j, uint64_t number, unsigned char *buf, bool says, struct err_note *note)
{
	uint64_t at = number * PIECE_BYTES, end = j->size - at < PIECE_BYTES ? j->size : at + PIECE_BYTES;
	struct hash_state *h = hash_new();
	int rc = 0;

	if (h == NULL)
		return err_note_set(note, ENOMEM, "%s", j->path);
	for (uint64_t n, done; at < end; at += n) {
		n = end - at < READ_BYTES ? end - at : READ_BYTES;
		if ((rc = file_pread(j->fd, j->path, at, buf, n, note)) != 0)
			break;
		hash_update(h, buf, n);
		for (uint64_t i = 0; j->sums != NULL && i < n; i += HASH_BLOCK_BYTES)
			j->sums[(at + i) / HASH_BLOCK_BYTES] =
			    hash_bytes64(buf + i, n - i < HASH_BLOCK_BYTES ? n - i : HASH_BLOCK_BYTES);
		done = atomic_fetch_add(&j->done_bytes, n) + n;
		if (says && clock_now_s() - j->said_s >= SAY_EVERY_S) {
			j->said_s = clock_now_s();
			log_info("file.hashing", "path=%s done=%.1f%% of_bytes=%" PRIu64, j->path, 100.0 * (double)done / (double)j->size,
			    j->size);
		}
	}
	j->pieces[number] = hash_digest(h);
	hash_destroy(&h);
	return rc;
}

static void
hash_pieces(struct hash_job *j, bool says)
{
	unsigned char *buf = malloc(READ_BYTES);
	struct err_note note = {.name = ""};
	int rc = buf != NULL ? 0 : err_note_set(&note, ENOMEM, "%s", j->path);

	for (uint64_t i; rc == 0 && (i = atomic_fetch_add(&j->next, 1)) < j->n_pieces;)
		rc = hash_piece(j, i, buf, says, &note);
	free(buf);
	if (rc == 0)
		return;
	atomic_store(&j->next, j->n_pieces);
	pthread_mutex_lock(&j->lock);
	if (j->rc == 0) {
		j->rc = rc;
		if (j->note != NULL)
			*j->note = note;
	}
	pthread_mutex_unlock(&j->lock);
}

static void *
hash_thread(void *job)
{
	hash_pieces(job, false);
	return NULL;
}

/*
 * Reads size bytes of fd with at most as many threads as there are processors and pieces; makes *root and the
 * checksums of the blocks (sums may be NULL). If a thread cannot be started, the others do its work.
 */
static int
hash_all(int fd, const char *path, uint64_t size, uint64_t *sums, struct hash128 *root, struct err_note *note)
{
	struct hash_job j = {.fd = fd, .path = path, .size = size, .n_pieces = size / PIECE_BYTES + (size % PIECE_BYTES != 0),
	    .sums = sums, .said_s = clock_now_s(), .note = note, .lock = PTHREAD_MUTEX_INITIALIZER};
	int n = j.n_pieces > 1 ? cpus_here() : 1, started = 1;
	struct hash_state *h = hash_new();
	pthread_t threads[THREADS_MAX];

	if (h == NULL || (j.pieces = mem_alloc(j.n_pieces + 1, sizeof(j.pieces[0]))) == NULL) {
		j.rc = err_note_set(note, ENOMEM, "%s", path);
		goto out;
	}
	while (started < n && started < THREADS_MAX && (uint64_t)started < j.n_pieces &&
	    pthread_create(&threads[started], NULL, hash_thread, &j) == 0)
		started++;
	hash_pieces(&j, true);
	while (started > 1)
		pthread_join(threads[--started], NULL);
	for (uint64_t i = 0; i < j.n_pieces; i++)
		hash_field(h, "piece", &j.pieces[i], sizeof(j.pieces[i]));
	hash_field_u64(h, "size", size);
	*root = hash_digest(h);
out:
	free(j.pieces);
	hash_destroy(&h);
	return j.rc;
}

int
hash_file(const char *path, struct hash128 *root, struct err_note *note)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		rc = err_note_set(note, errno, "%s", path);
	else
		rc = hash_all(fd, path, (uint64_t)st.st_size, NULL, root, note);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* Writes the state of the file into buf, as the side file has it. */
static void
state_text(const struct stat *st, char *buf, size_t size)
{
	snprintf(buf, size, "%" PRIu64 " %" PRId64 ".%09ld %" PRIu64, (uint64_t)st->st_size,
	    (int64_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (uint64_t)st->st_ino);
}

/* Hashes the n bytes of the line before the check, and the bytes that follow the line. 0 or ENOMEM. */
static int
side_check(const char *line, size_t n, const void *rest, size_t n_rest, struct hash128 *check)
{
	struct hash_state *h = hash_new();

	if (h == NULL)
		return ENOMEM;
	hash_update(h, line, n);
	hash_update(h, rest, n_rest);
	*check = hash_digest(h);
	hash_destroy(&h);
	return 0;
}

/*
 * Reads *root and b->sums from the side file. Returns 0; ERR_NOT_FOUND: there is no side file, or it
 * describes another state of the file; ERR_VERSION: it has the older form, which states only the root;
 * ERR_CORRUPT: it is damaged.
 */
static int
side_read(const char *side, const char *state, struct hash_blocks *b, struct hash128 *root)
{
	char want[160], hex[HASH_HEX_BYTES] = "";
	struct hash128 check, stated;
	size_t len, n_line;
	char *text, *end;
	int rc = ERR_CORRUPT;

	if (file_read(side, HEADER_BYTES + b->n * sizeof(b->sums[0]), &text, &len, NULL) != 0)
		return ERR_NOT_FOUND;
	if ((end = memchr(text, '\n', len < HEADER_BYTES ? len : HEADER_BYTES)) == NULL ||
	    (n_line = (size_t)(end - text)) < 44)
		goto out;
	*end = '\0';
	memcpy(hex, text + 10, sizeof(hex) - 1);
	if (hash_from_hex(root, hex) != 0)
		goto out;
	if (strncmp(text, "salthash1 ", 10) == 0) {
		rc = strcmp(text + 43, state) == 0 ? ERR_VERSION : ERR_NOT_FOUND;
		goto out;
	}
	if (n_line < 76 || strncmp(text, "salthash2 ", 10) != 0 || hash_from_hex(&stated, end - 32) != 0 ||
	    side_check(text, n_line - 32, end + 1, len - n_line - 1, &check) != 0 ||
	    !hash_equal(check, stated))
		goto out;
	snprintf(want, sizeof(want), "%s %u ", state, HASH_BLOCK_BYTES);
	rc = strncmp(text + 43, want, strlen(want)) == 0 && len - n_line - 1 == b->n * sizeof(b->sums[0]) ?
	    0 :
	    ERR_NOT_FOUND;
	if (rc == 0 && b->n > 0)
		memcpy(b->sums, end + 1, b->n * sizeof(b->sums[0]));
out:
	free(text);
	return rc;
}

/* Writes the side file. Failures are ignored: the next start then reads the whole file. */
static void
side_write(const char *side, const char *state, const struct hash_blocks *b, struct hash128 root)
{
	char line[HEADER_BYTES], hex[HASH_HEX_BYTES];
	struct file_replace r;
	struct hash128 check;
	int n = snprintf(
	    line, sizeof(line), "salthash2 %s %s %u ", hash_hex(root, hex), state, HASH_BLOCK_BYTES);

	if (side_check(line, (size_t)n, b->sums, b->n * sizeof(b->sums[0]), &check) != 0 ||
	    file_replace_begin(&r, side, NULL) != 0)
		return;
	fprintf(r.f, "%s%s\n", line, hash_hex(check, hex));
	fwrite(b->sums, sizeof(b->sums[0]), b->n, r.f);
	file_replace_end(&r, false, NULL);
}

/*
 * Makes *root and b->sums by reading the file, and writes the side file. was: side_read's result; for
 * ERR_VERSION *root is at first the root that the side file states.
 */
static int
side_make(struct hash_blocks *b, int fd, const char *side, const char *state, int was, struct hash128 *root,
    struct err_note *note)
{
	char now[128], hex[2][HASH_HEX_BYTES];
	struct hash128 old = *root;
	struct stat st;
	int rc;

	if ((rc = hash_all(fd, b->path, b->size, b->sums, root, note)) != 0)
		return rc;
	if (was == ERR_VERSION && !hash_equal(old, *root))
		return err_expect(note, ERR_CORRUPT, "%s",
		    "hash %s, as recorded in its side file .salthash for this size and time",
		    "%s: its bytes changed; restore it from a copy "
		    "(if the change is intended, remove the side file)",
		    b->path, hash_hex(old, hex[0]), hash_hex(*root, hex[1]));
	if (was != ERR_NOT_FOUND)
		log_warn("side_file.renewed", "path=%s why=%s", side,
		    was == ERR_VERSION ? "older_form" : "damaged");
	/* No side file if the file changed in the meantime. */
	if (fstat(fd, &st) == 0) {
		state_text(&st, now, sizeof(now));
		if (strcmp(now, state) == 0)
			side_write(side, state, b, *root);
	}
	return 0;
}

int
hash_blocks_open(
    struct hash_blocks **out, int fd, const char *path, struct hash128 *root, struct err_note *note)
{
	struct hash_blocks *b = mem_alloc(1, sizeof(*b));
	char side[4160], state[128];
	struct stat st;
	int rc;

	*out = NULL;
	if (b == NULL)
		return err_note_set(note, ENOMEM, "%s", path);
	if (fstat(fd, &st) != 0) {
		rc = err_note_set(note, errno, "%s", path);
		goto out;
	}
	b->path = path;
	b->size = (uint64_t)st.st_size;
	b->n = b->size / HASH_BLOCK_BYTES + (b->size % HASH_BLOCK_BYTES != 0);
	if ((b->sums = mem_alloc(b->n + 1, sizeof(b->sums[0]))) == NULL ||
	    (b->checked = mem_alloc(b->n + 1, sizeof(b->checked[0]))) == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", path);
		goto out;
	}
	snprintf(side, sizeof(side), "%s.salthash", path);
	state_text(&st, state, sizeof(state));
	if ((rc = side_read(side, state, b, root)) != 0)
		rc = side_make(b, fd, side, state, rc, root, note);
out:
	if (rc != 0)
		hash_blocks_close(&b);
	*out = b;
	return rc;
}

void
hash_blocks_close(struct hash_blocks **b)
{
	if (*b == NULL)
		return;
	free((*b)->sums);
	free((void *)(*b)->checked);
	free(*b);
	*b = NULL;
}

int
hash_blocks_check(struct hash_blocks *b, int fd, uint64_t at, uint64_t n, bool again, struct err_note *note)
{
	unsigned char *buf = NULL;
	uint64_t last;
	int rc = 0;

	if (n == 0 || at >= b->size)
		return 0;
	last = (n < b->size - at ? at + n - 1 : b->size - 1) / HASH_BLOCK_BYTES;
	for (uint64_t i = at / HASH_BLOCK_BYTES; i <= last && rc == 0; i++) {
		uint64_t from = i * HASH_BLOCK_BYTES,
			 len = b->size - from < HASH_BLOCK_BYTES ? b->size - from : HASH_BLOCK_BYTES, sum;

		if (!again && b->checked[i])
			continue;
		if (buf == NULL && (buf = malloc(HASH_BLOCK_BYTES)) == NULL)
			return err_note_set(note, ENOMEM, "%s", b->path);
		if ((rc = file_pread(fd, b->path, from, buf, len, note)) != 0)
			break;
		if ((sum = hash_bytes64(buf, len)) == b->sums[i])
			b->checked[i] = 1;
		else
			rc = err_expect_at(note, ERR_CORRUPT, "%s",
			    "block %" PRIu64 " (bytes %" PRIu64 " to %" PRIu64 ")",
			    "checksum %016" PRIx64
			    ", as in its side file .salthash or when it was first read",
			    "%016" PRIx64
			    ": its bytes changed, though not its size and time; restore it from a copy "
			    "(if the change is intended, remove the side file)",
			    b->path, i, from, from + len, b->sums[i], sum);
	}
	free(buf);
	return rc;
}
