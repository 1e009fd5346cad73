/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Simulates power cuts, after which the disk may lack written data (kill -9 cannot test this, because the
 * page cache survives it). Every write and sync of LMDB is recorded, and the file is rebuilt as a cut at a
 * random moment may leave it: synced data is there, and of later writes any subset of sectors. The reopened
 * cache must have every commit that was acknowledged before the cut completely, and the commit in progress
 * completely or not at all. The test also checks itself: without any sync, or without those of LMDB's meta
 * pages, this must fail.
 */
#include "check.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random/random.h"
#include "data/cache/cache.h"
#include "base/hash/hash.h"

enum { COMMITS = 60, RECORDS = 8, RECORD_BYTES = 3000, DROP_AFTER = 3, TRIALS = 250, CONTROLS = 120, SECTOR = 512, EVENTS_MAX = 1 << 16, WRITTEN_BACK = 64 };

enum kind { WRITE, WRITE_SYNCED, SYNC, ACKNOWLEDGED };		/* WRITE_SYNCED: to a descriptor of O_DSYNC */

static struct event {
	enum kind kind;
	off_t at;
	size_t len;
	uint8_t *bytes;
} events[EVENTS_MAX];
static size_t n_events, file_bytes;
static bool noting;

/* ---- the calls of LMDB, which replace those of the C library ---- */

static bool
noted(int fd)
{
	char link[64], path[4096];
	ssize_t n;

	if (!noting)
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	return n > 9 && memcmp(path + n - 9, "/data.mdb", 9) == 0;
}

static struct event *
note(enum kind kind)
{
	REQUIRE(n_events < EVENTS_MAX);
	events[n_events].kind = kind;
	return &events[n_events++];
}

static void
note_write(int fd, const struct iovec *v, int n, off_t at, ssize_t written)
{
	struct event *e;
	size_t done = 0;

	if (written <= 0 || !noted(fd))
		return;
	e = note((fcntl(fd, F_GETFL) & O_DSYNC) != 0 ? WRITE_SYNCED : WRITE);
	e->at = at;
	e->len = (size_t)written;
	REQUIRE((e->bytes = malloc(e->len)) != NULL);
	for (int i = 0; i < n && done < e->len; i++) {
		size_t part = v[i].iov_len < e->len - done ? v[i].iov_len : e->len - done;

		memcpy(e->bytes + done, v[i].iov_base, part);
		done += part;
	}
	if ((size_t)at + e->len > file_bytes)
		file_bytes = (size_t)at + e->len;
}

#define REAL(name) static __typeof__(name) *real; if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, #name)

ssize_t
pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	REAL(pwrite);
	ssize_t done = real(fd, bytes, n, at);

	note_write(fd, &(struct iovec){(void *)(uintptr_t)bytes, n}, 1, at, done);
	return done;
}

ssize_t
pwritev(int fd, const struct iovec *v, int n, off_t at)
{
	REAL(pwritev);
	ssize_t done = real(fd, v, n, at);

	note_write(fd, v, n, at, done);
	return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off_t at);
ssize_t pwritev64(int fd, const struct iovec *v, int n, off_t at);

ssize_t
pwrite64(int fd, const void *bytes, size_t n, off_t at)
{
	return pwrite(fd, bytes, n, at);
}

ssize_t
pwritev64(int fd, const struct iovec *v, int n, off_t at)
{
	return pwritev(fd, v, n, at);
}

ssize_t
writev(int fd, const struct iovec *v, int n)
{
	REAL(writev);
	off_t at = noted(fd) ? lseek(fd, 0, SEEK_CUR) : 0;
	ssize_t done = real(fd, v, n);

	note_write(fd, v, n, at, done);
	return done;
}

int
fdatasync(int fd)
{
	REAL(fdatasync);
	int rc = real(fd);

	if (rc == 0 && noted(fd))
		note(SYNC);
	return rc;
}

int
fsync(int fd)
{
	REAL(fsync);
	int rc = real(fd);

	if (rc == 0 && noted(fd))
		note(SYNC);
	return rc;
}

/* ---- data: commit k writes RECORDS labels, and drops half of those of commit k - DROP_AFTER ---- */

static void
record(uint64_t seq, uint8_t out[RECORD_BYTES])
{
	uint32_t w[4];

	for (uint32_t i = 0; i < RECORD_BYTES; i += 16) {
		random_words(1, RANDOM_PURPOSE_GENERATE, seq, i, 0, w);
		memcpy(out + i, w, RECORD_BYTES - i < 16 ? RECORD_BYTES - i : 16);
	}
}

static void
write_all(const char *dir)
{
	uint8_t bytes[RECORD_BYTES];
	struct cache *c;

	REQUIRE(cache_open(&c, dir, CACHE_WRITE, 4 << 20, NULL) == 0);
	for (uint64_t k = 1; k <= COMMITS; k++) {
		REQUIRE(cache_write_begin(c) == 0);
		for (uint64_t seq = k * RECORDS; seq < (k + 1) * RECORDS; seq++) {
			record(seq, bytes);
			REQUIRE(cache_write_labels(c, seq, bytes, sizeof(bytes), NULL) == 0);
			if (k > DROP_AFTER && seq % 2 == 1)
				REQUIRE(cache_drop_labels(c, seq - DROP_AFTER * RECORDS) == 0);
		}
		REQUIRE(cache_write_commit(c) == 0);
		note(ACKNOWLEDGED)->at = (off_t)k;
	}
	noting = false;
	cache_destroy(&c);
}

/* Whether the cache has exactly the content after commits 1 .. k. */
static bool
holds(struct cache *c, uint64_t k)
{
	uint8_t bytes[RECORD_BYTES];
	struct cache_bytes got;
	struct cache_txn *txn;
	bool good = true;

	if (cache_txn_begin(c, &txn) != 0)
		return false;
	for (uint64_t seq = RECORDS; seq < (COMMITS + 1) * RECORDS && good; seq++) {
		bool there = seq / RECORDS <= k && (seq % 2 == 0 || seq / RECORDS + DROP_AFTER > k);
		int rc = cache_labels_get(txn, seq, &got);

		record(seq, bytes);
		good = there ? rc == 0 && got.len == sizeof(bytes) && memcmp(got.bytes, bytes, sizeof(bytes)) == 0 : rc == ERR_NOT_FOUND;
	}
	cache_txn_end(&txn);
	return good;
}

/* ---- the cut ---- */

static uint64_t random_state = 20260117;

static uint64_t
draw(uint64_t n)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (random_state >> 33) % n;
}

/* the last two as with MDB_NOMETASYNC and MDB_NOSYNC */
enum disk { HONEST, NO_META_SYNC, NO_SYNC };

/* Rebuilds the file as a cut after event `cut` may leave it. Returns the last commit acknowledged before. */
static uint64_t
make_again(const char *path, size_t cut, enum disk disk)
{
	uint8_t *image = calloc(1, file_bytes);
	size_t safe = 0, len = 0;
	uint64_t acknowledged = 0;
	int fd;

	REQUIRE(image != NULL);
	if (disk == NO_SYNC)
		safe = cut > WRITTEN_BACK ? cut - WRITTEN_BACK : 0;	/* written back by the kernel */
	for (size_t i = 0; i < cut; i++) {
		if (disk != NO_SYNC && events[i].kind == SYNC)
			safe = i;
		if (events[i].kind == ACKNOWLEDGED)
			acknowledged = (uint64_t)events[i].at;
	}
	for (size_t i = 0; i <= cut; i++) {
		const struct event *e = &events[i];
		bool whole = i < safe || (disk == HONEST && e->kind == WRITE_SYNCED && i < cut);

		for (size_t at = 0; at < e->len; at += SECTOR) {
			size_t n = e->len - at < SECTOR ? e->len - at : SECTOR, end = (size_t)e->at + at + n;

			if (!whole && draw(2) == 0)
				continue;
			memcpy(image + e->at + at, e->bytes + at, n);
			len = end > len ? end : len;
		}
	}
	REQUIRE((fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666)) >= 0);
	REQUIRE(write(fd, image, len) == (ssize_t)len && close(fd) == 0);
	free(image);
	return acknowledged;
}

/* Checks the file in a child process, because a damaged file may end the process. */
static bool
survives(const char *dir, uint64_t acknowledged)
{
	int status;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0) {
		struct cache *c;
		int fd = open("/dev/null", O_WRONLY);
		bool good;

		dup2(fd, 2);
		good = cache_open(&c, dir, CACHE_WRITE, 4 << 20, NULL) == 0 && (holds(c, acknowledged) || holds(c, acknowledged + 1)) && cache_n_corrupt(c) == 0;
		_exit(good ? 0 : 1);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int
trials(const char *dir, size_t from, enum disk disk, int n)
{
	char path[128];
	int lost = 0;

	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	for (int i = 0; i < n; i++) {
		size_t cut = from + draw(n_events - from);
		uint64_t acknowledged = make_again(path, cut, disk);

		lost += !survives(dir, acknowledged);
	}
	return lost;
}

/* Arguments: [CUTS [SEED]] */
int
main(int argc, char **argv)
{
	int n_trials = argc > 1 ? atoi(argv[1]) : TRIALS, lost[3];
	char made[64], dir[64 + 2], command[128];
	size_t from = 0, syncs = 0;

	if (argc > 2)
		random_state = strtoull(argv[2], NULL, 10);
	snprintf(made, sizeof(made), "%s/salt-power-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	REQUIRE(mkdtemp(made) != NULL);
	snprintf(dir, sizeof(dir), "%s/c", made);
	noting = true;
	write_all(dir);
	for (size_t i = 0; i < n_events; i++)
		syncs += events[i].kind == SYNC;
	/* before the first commit the cache may be unusable */
	while (events[from].kind != ACKNOWLEDGED)
		from++;
	CHECK(syncs >= COMMITS);
	for (int disk = HONEST; disk <= NO_SYNC; disk++)
		lost[disk] = trials(dir, from, (enum disk)disk, disk == HONEST ? n_trials : CONTROLS);
	printf("%zu events, %zu syncs; of %d cuts %d lost something, without syncs of meta pages %d, without any %d\n", n_events, syncs, n_trials,
	    lost[HONEST], lost[NO_META_SYNC], lost[NO_SYNC]);
	CHECK(lost[HONEST] == 0);
	CHECK(lost[NO_META_SYNC] > 0);
	CHECK(lost[NO_SYNC] > CONTROLS / 2);
	for (size_t i = 0; i < n_events; i++)
		free(events[i].bytes);
	snprintf(command, sizeof(command), "rm -rf %s", made);
	CHECK(system(command) == 0);
	return check_done();
}
