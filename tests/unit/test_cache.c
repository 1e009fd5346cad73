/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of the cache: records are read back as written, also after a reopen; data of different
 * identities is rejected; damage is reported.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/cache/cache.h"

static char dir[64];

static void
fresh(void)
{
	char made[] = "/tmp/salt-cache-XXXXXX";

	REQUIRE(mkdtemp(made) != NULL);
	snprintf(dir, sizeof(dir), "%s/c", made);
}

static void
gone(void)
{
	char cmd[128];

	dir[strlen(dir) - 2] = '\0';
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	CHECK(system(cmd) == 0);
}

static struct cache *
opened(enum cache_mode mode)
{
	struct cache *c;
	struct err_note note;
	char text[1200];
	int rc = cache_open(&c, dir, mode, 64 << 20, &note);

	if (rc != 0)
		fprintf(stderr, "%s\n", err_note_str(&note, rc, text, sizeof(text)));
	REQUIRE(rc == 0);
	return c;
}

static const struct hash128 plan_a = {1, 2}, plan_b = {1, 3};

static void
test_records(void)
{
	static const uint8_t one[] = "label one", two[] = "label two", score[] = {1, 2, 3, 4, 5, 6};
	struct cache_row rows[3] = {{10, 110, 1.5f, 0}, {12, 112, 0.25f, CACHE_ROW_QUARANTINED}, {13, 113, NAN, 0}}, back[3];
	struct cache_plan plan = {.hash = plan_a, .seed = 7, .batch = 8, .mode = 1, .k = 10, .window = 64, .kept = 32, .n_rows = 999, .keep = 0.5,
	    .oldest_step = 3, .released_step = 11, .released = true}, plan_back;
	struct cache_txn *txn;
	struct cache_bytes b;
	struct cache *c;
	bool differs;
	uint64_t n;

	fresh();
	c = opened(CACHE_WRITE);
	CHECK(cache_write_labels(c, 5, one, 9, NULL) == ERR_INTERNAL);	/* no transaction */
	REQUIRE(cache_write_begin(c) == 0);
	CHECK(cache_write_labels(c, 5, one, 9, &differs) == 0);
	CHECK(cache_write_labels(c, 5, one, 9, &differs) == ERR_EXISTS && !differs);
	CHECK(cache_write_labels(c, 5, two, 9, &differs) == ERR_EXISTS && differs);
	CHECK(cache_write_scores(c, CACHE_SCORES_SCORER, 5, score, 6, NULL) == 0);
	CHECK(cache_write_rows(c, plan_a, 4, rows, 3, NULL) == 0);
	rows[0].seq++;
	CHECK(cache_write_rows(c, plan_a, 4, rows, 3, &differs) == ERR_EXISTS && differs);
	rows[0].seq--;
	CHECK(cache_write_plan(c, &plan) == 0);
	REQUIRE(cache_write_commit(c) == 0);
	REQUIRE(cache_write_begin(c) == 0);
	CHECK(cache_write_labels(c, 6, two, 9, NULL) == 0);
	cache_write_abort(c);
	cache_destroy(&c);

	c = opened(CACHE_WRITE);
	REQUIRE(cache_txn_begin(c, &txn) == 0);
	CHECK(cache_labels_get(txn, 5, &b) == 0 && b.len == 9 && memcmp(b.bytes, one, 9) == 0);
	CHECK(cache_labels_get(txn, 6, &b) == ERR_NOT_FOUND);			/* aborted */
	CHECK(cache_scores_get(txn, CACHE_SCORES_SCORER, 5, &b) == 0 && b.len == 6 && memcmp(b.bytes, score, 6) == 0);
	CHECK(cache_scores_get(txn, CACHE_SCORES_TEACHER, 5, &b) == ERR_NOT_FOUND);	/* another set */
	CHECK(cache_rows_count(txn, plan_a, 4, &n) == 0 && n == 3);
	CHECK(cache_rows_count(txn, plan_b, 4, &n) == ERR_NOT_FOUND);
	CHECK(cache_rows_count(txn, plan_a, 5, &n) == ERR_NOT_FOUND);
	CHECK(cache_rows_get(txn, plan_a, 4, 1, 2, back) == 0 && back[0].seq == 112 && back[0].position == 12 && back[0].score == 0.25f &&
	    back[0].flags == CACHE_ROW_QUARANTINED && back[1].seq == 113 && isnan(back[1].score));
	CHECK(cache_rows_get(txn, plan_a, 4, 2, 2, back) == ERR_RANGE);
	CHECK(cache_plan_get(txn, plan_a, &plan_back) == 0 && plan_back.seed == 7 && plan_back.batch == 8 && plan_back.mode == 1 &&
	    plan_back.k == 10 && plan_back.window == 64 && plan_back.kept == 32 && plan_back.n_rows == 999 && plan_back.keep == 0.5 &&
	    plan_back.oldest_step == 3 && plan_back.released_step == 11 && plan_back.released);
	cache_txn_end(&txn);
	REQUIRE(cache_write_begin(c) == 0);
	CHECK(cache_drop_labels(c, 5) == 0 && cache_drop_labels(c, 5) == 0);
	REQUIRE(cache_write_commit(c) == 0);
	REQUIRE(cache_txn_begin(c, &txn) == 0);
	CHECK(cache_labels_get(txn, 5, &b) == ERR_NOT_FOUND);
	cache_txn_end(&txn);
	cache_destroy(&c);
	gone();
}

static int
seen_attempts(void *arg, const struct cache_attempts *a)
{
	*(struct cache_attempts *)arg = *a;
	return 0;
}

static int
seen_quarantine(void *arg, const struct cache_quarantine *q)
{
	*(struct cache_quarantine *)arg = *q;
	return 0;
}

static void
test_troubles(void)
{
	struct cache_attempts a = {77, 2, 1, {{1, 2}, {3, 4}, {0, 0}}}, got = {0};
	struct cache_quarantine q = {78, 1234, "three teachers"}, qgot = {0};
	struct cache *c;
	struct cache_txn *txn;

	fresh();
	c = opened(CACHE_WRITE);
	REQUIRE(cache_write_begin(c) == 0);
	CHECK(cache_write_attempts(c, &a) == 0 && cache_write_quarantine(c, &q) == 0);
	REQUIRE(cache_write_commit(c) == 0);
	REQUIRE(cache_txn_begin(c, &txn) == 0);
	CHECK(cache_attempts_each(txn, seen_attempts, &got) == 0 && got.seq == 77 && got.n_dead == 2 && got.n_errors == 1 && got.boot[1].lo == 4);
	CHECK(cache_quarantine_each(txn, seen_quarantine, &qgot) == 0 && qgot.seq == 78 && qgot.since_s == 1234);
	CHECK_STR(qgot.reason, "three teachers");
	cache_txn_end(&txn);
	cache_destroy(&c);
	gone();
}

/* A block of more rows than fit in one record. */
static void
test_long_block(void)
{
	enum { N = 10000 };
	struct cache_row *rows = calloc(N, sizeof(*rows)), *back = calloc(N, sizeof(*back));
	struct cache *c;
	struct cache_txn *txn;
	uint64_t n;

	fresh();
	c = opened(CACHE_WRITE);
	for (uint64_t i = 0; i < N; i++)
		rows[i] = (struct cache_row){2 * i, 3 * i, (float)i, 0};
	REQUIRE(cache_write_begin(c) == 0);
	CHECK(cache_write_rows(c, plan_a, 0, rows, N, NULL) == 0);
	REQUIRE(cache_write_commit(c) == 0);
	REQUIRE(cache_txn_begin(c, &txn) == 0);
	CHECK(cache_rows_count(txn, plan_a, 0, &n) == 0 && n == N);
	CHECK(cache_rows_get(txn, plan_a, 0, 0, N, back) == 0 && memcmp(rows, back, N * sizeof(*rows)) == 0);
	CHECK(cache_rows_get(txn, plan_a, 0, 4090, 10, back) == 0 && memcmp(rows + 4090, back, 10 * sizeof(*rows)) == 0);
	CHECK(cache_rows_get(txn, plan_a, 0, N, 0, back) == 0);
	CHECK(cache_rows_get(txn, plan_a, 0, N, 1, back) == ERR_RANGE);
	CHECK(cache_rows_get(txn, plan_a, 0, UINT64_MAX, 2, back) == ERR_RANGE);
	cache_txn_end(&txn);
	cache_destroy(&c);
	gone();
	free(rows);
	free(back);
}

static void
test_identity(void)
{
	static const struct cache_identity first[] = {{"corpus", "aa"}, {"context", "128"}}, more[] = {{"context", "128"}, {"score_set", "s1"}},
	    other[] = {{"corpus", "aa"}, {"context", "256"}, {"new", "x"}};
	struct err_note note;
	struct cache *c;
	char v[32];

	fresh();
	c = opened(CACHE_WRITE);
	CHECK(cache_identity_bind(c, first, 2, &note) == 0);
	CHECK(cache_identity_bind(c, first, 2, &note) == 0);
	CHECK(cache_identity_bind(c, more, 2, &note) == 0);
	CHECK(cache_identity_bind(c, other, 3, &note) == ERR_MISMATCH);
	CHECK_STR(note.place, "context");
	CHECK(strncmp(note.expected, "128", 3) == 0);
	CHECK_STR(note.found, "256");
	/* after a mismatch nothing is written */
	CHECK(cache_identity_get(c, "new", v, sizeof(v)) == ERR_NOT_FOUND);
	cache_destroy(&c);
	c = opened(CACHE_READ);
	CHECK(cache_identity_get(c, "score_set", v, sizeof(v)) == 0);
	CHECK_STR(v, "s1");
	CHECK(cache_write_begin(c) != 0);
	cache_destroy(&c);
	gone();
}

static void
test_second_opener(void)
{
	struct err_note note;
	struct cache *c, *d;
	char want[32];
	int status;
	pid_t pid;

	fresh();
	c = opened(CACHE_WRITE);
	snprintf(want, sizeof(want), "pid %ld on ", (long)getpid());
	if ((pid = fork()) == 0) {
		int rc = cache_open(&d, dir, CACHE_WRITE, 0, &note);

		_exit(rc == ERR_BUSY && d == NULL && strncmp(note.found, want, strlen(want)) == 0 ? 0 : 1);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(status == 0);
	if ((pid = fork()) == 0)			/* another process may read while one writes */
		_exit(cache_open(&d, dir, CACHE_READ, 0, &note) == 0 ? 0 : 1);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(status == 0);
	cache_destroy(&c);
	c = opened(CACHE_WRITE);			/* the lock ends with the process that held it */
	cache_destroy(&c);
	gone();
	snprintf(dir, sizeof(dir), "/tmp/salt-no-such-cache");
	CHECK(cache_open(&c, dir, CACHE_READ, 0, &note) == ERR_NOT_FOUND && c == NULL);
}

static int
count_one(void *arg, const struct cache_item *item)
{
	uint64_t *n = arg;

	n[0]++;
	n[1] += item->rc == ERR_CORRUPT;
	return 0;
}

/* Checks the number of records in all tables, and how many of them are damaged. */
static void
count_all(struct cache *c, uint64_t n_records, uint64_t n_bad)
{
	uint64_t n[2] = {0, 0};

	for (int t = 0; t < CACHE_TABLES; t++)
		CHECK(cache_each(c, (enum cache_table)t, count_one, n) == 0);
	CHECK(n[0] == n_records && n[1] == n_bad);
}

/* Changes one byte of a stored value: this record is reported as damaged, its neighbour is not. */
static void
test_damage(void)
{
	static const char mark[] = "the quick brown fox jumps over the lazy dog 0123456789";
	struct cache *c;
	struct cache_txn *txn;
	struct cache_bytes b;
	char path[96], *file;
	off_t size, at;
	int fd;

	fresh();
	c = opened(CACHE_WRITE);
	REQUIRE(cache_write_begin(c) == 0);
	CHECK(cache_write_labels(c, 1, mark, sizeof(mark), NULL) == 0);
	CHECK(cache_write_labels(c, 2, "other", 5, NULL) == 0);
	REQUIRE(cache_write_commit(c) == 0);
	count_all(c, 3, 0);		/* two labels and the format */
	cache_destroy(&c);
	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	fd = open(path, O_RDWR);
	size = lseek(fd, 0, SEEK_END);
	REQUIRE((file = malloc((size_t)size)) != NULL && pread(fd, file, (size_t)size, 0) == size);
	for (at = 0; at + (off_t)sizeof(mark) <= size; at++)
		if (memcmp(file + at, mark, sizeof(mark)) == 0) {
			char flipped = (char)(file[at + 20] ^ 4);

			CHECK(pwrite(fd, &flipped, 1, at + 20) == 1);
		}
	close(fd);
	free(file);
	c = opened(CACHE_WRITE);
	REQUIRE(cache_txn_begin(c, &txn) == 0);
	CHECK(cache_labels_get(txn, 1, &b) == ERR_CORRUPT);
	CHECK(cache_n_corrupt(c) == 1);
	CHECK(cache_labels_get(txn, 2, &b) == 0 && b.len == 5);
	cache_txn_end(&txn);
	count_all(c, 3, 1);
	REQUIRE(cache_write_begin(c) == 0);
	/* a damaged record may be replaced */
	CHECK(cache_write_labels(c, 1, mark, sizeof(mark), NULL) == 0);
	REQUIRE(cache_write_commit(c) == 0);
	count_all(c, 3, 0);
	cache_destroy(&c);
	fd = open(path, O_RDWR);
	CHECK(pwrite(fd, "not a cache, whatever it is, not a cache at all, no", 50, 0) == 50 && pwrite(fd, "not a cache, whatever it is, not a cache at all, no", 50, 4096) == 50);
	close(fd);
	CHECK(cache_open(&c, dir, CACHE_WRITE, 0, NULL) == ERR_CORRUPT);
	gone();
}

static int
sum_one(void *arg, const struct cache_item *item)
{
	struct { uint64_t sum, bad; } *all = arg;

	all->sum = all->sum * 31 + (hash_bytes64(item->key, item->key_len) ^ hash_bytes64(item->bytes.bytes, item->bytes.len));
	all->bad += item->rc != 0;
	return 0;
}

/*
 * With one flipped bit anywhere in the file, opening fails, or the walk finds a damaged record, or nothing
 * has changed. LMDB alone crashes for many of these bits. SALT_ROUNDS: number of bits.
 */
static void
test_flipped_bits(void)
{
	const char *env = getenv("SALT_ROUNDS");
	const int rounds = env != NULL ? atoi(env) : 3000;
	uint8_t value[9000];
	struct { uint64_t sum, bad; } good = {0, 0}, got;
	int refused = 0, found = 0, same = 0, missed = 0, fd, rc;
	struct err_note note;
	struct cache *c;
	uint64_t at = 1;
	char path[96];
	off_t size = 0;

	fresh();
	c = opened(CACHE_WRITE);
	memset(value, 7, sizeof(value));
	/* makes branches, overflow pages and a longer free list */
	for (uint64_t i = 0; i < 6; i++) {
		REQUIRE(cache_write_begin(c) == 0);
		for (uint64_t seq = i * 40; seq < i * 40 + 40; seq++) {
			CHECK(cache_write_labels(c, seq, value, seq % 9 == 0 ? sizeof(value) : 90 + seq, NULL) == 0);
			CHECK(cache_write_scores(c, CACHE_SCORES_SCORER, seq, value, 66, NULL) == 0);
		}
		for (uint64_t seq = i * 40; seq < i * 40 + 40; seq += 3)
			CHECK(cache_drop_labels(c, seq) == 0);
		REQUIRE(cache_write_commit(c) == 0);
	}
	for (int t = 0; t < CACHE_TABLES; t++)
		CHECK(cache_each(c, (enum cache_table)t, sum_one, &good) == 0);
	CHECK(good.bad == 0 && cache_check_pages(c, true, NULL) == 0);
	cache_destroy(&c);
	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	REQUIRE((fd = open(path, O_RDWR)) >= 0 && (size = lseek(fd, 0, SEEK_END)) > 0);
	for (int i = 0; i < rounds; i++) {
		uint64_t bit;
		uint8_t byte, flipped;

		at = at * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		/* every second bit is in the first bytes of a page, which have headers and offsets */
		bit = (at >> 20) % ((uint64_t)size * 8);
		if (i % 2 == 0)
			bit = bit / 32768 * 32768 + (at >> 33) % (i % 4 == 0 ? 1280 : 256);
		REQUIRE(pread(fd, &byte, 1, (off_t)(bit / 8)) == 1);
		flipped = (uint8_t)(byte ^ 1u << bit % 8);
		REQUIRE(pwrite(fd, &flipped, 1, (off_t)(bit / 8)) == 1);
		memset(&got, 0, sizeof(got));
		if ((rc = cache_open(&c, dir, CACHE_READ, 0, &note)) == 0) {
			for (int t = 0; t < CACHE_TABLES && rc == 0; t++)
				rc = cache_each(c, (enum cache_table)t, sum_one, &got);
			if (got.bad > 0 || rc != 0)
				found++;
			else if (got.sum == good.sum)
				same++;
			else
				missed++;
			cache_destroy(&c);
		} else {
			refused++;
			CHECK((rc == ERR_CORRUPT && (strstr(note.found, "damaged") != NULL || strstr(note.found, "cut short") != NULL ||
			    strstr(note.expected, "LMDB file") != NULL)) || rc == ERR_NOT_FOUND || rc == ERR_VERSION);
		}
		REQUIRE(pwrite(fd, &byte, 1, (off_t)(bit / 8)) == 1);
	}
	printf("%d flipped bits: %d refused, %d damaged records, %d without effect, %d missed\n", rounds, refused, found, same, missed);
	CHECK(missed == 0 && refused > rounds / 20 && found > 0);
	close(fd);
	gone();
}

/* With a file size limit, as on a full disk, a commit fails, earlier ones stay, and it works again later. */
static void
test_full(void)
{
	static uint8_t big[100000];
	struct rlimit old, small;
	struct cache *c;
	struct cache_txn *txn;
	struct cache_bytes b;
	uint64_t map = 0;
	int rc = 0, up[2], down[2], status;
	pid_t pid;

	fresh();
	signal(SIGXFSZ, SIG_IGN);
	REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
	c = opened(CACHE_WRITE);
	REQUIRE(cache_write_begin(c) == 0);
	CHECK(cache_write_labels(c, 1, "kept", 4, NULL) == 0);
	REQUIRE(cache_write_commit(c) == 0);
	small = old;
	small.rlim_cur = 256 << 10;
	REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
	REQUIRE(cache_write_begin(c) == 0);
	for (uint64_t i = 10; i < 20 && rc == 0; i++)
		rc = cache_write_labels(c, i, big, sizeof(big), NULL);
	CHECK(rc == 0);
	rc = cache_write_commit(c);
	CHECK(rc == EFBIG || rc == EIO || rc == ENOSPC);
	REQUIRE(setrlimit(RLIMIT_FSIZE, &old) == 0);
	REQUIRE(cache_txn_begin(c, &txn) == 0);
	CHECK(cache_labels_get(txn, 1, &b) == 0 && cache_labels_get(txn, 10, &b) == ERR_NOT_FOUND);
	cache_txn_end(&txn);
	REQUIRE(cache_write_begin(c) == 0);
	CHECK(cache_write_labels(c, 10, big, sizeof(big), NULL) == 0);
	CHECK(cache_write_commit(c) == 0);
	cache_destroy(&c);
	gone();

	/* the map itself is full: 1 MiB */
	fresh();
	REQUIRE(cache_open(&c, dir, CACHE_WRITE, 1 << 20, NULL) == 0);
	REQUIRE(cache_write_begin(c) == 0);
	rc = 0;
	for (uint64_t i = 0; i < 20 && rc == 0; i++)
		rc = cache_write_labels(c, i, big, sizeof(big), NULL);
	CHECK(rc == ERR_FULL);
	cache_write_abort(c);
	REQUIRE(cache_write_begin(c) == 0);
	CHECK(cache_write_labels(c, 1, big, sizeof(big), NULL) == 0);
	CHECK(cache_write_commit(c) == 0);

	/* a larger map keeps the data; another process and the next open with a smaller map follow */
	REQUIRE(pipe(up) == 0 && pipe(down) == 0);
	if ((pid = fork()) == 0) {
		struct cache *reader;
		uint8_t *table;
		size_t n_table;
		char x = 0;
		int bad = 1;

		if (cache_open(&reader, dir, CACHE_READ, 0, NULL) == 0) {
			if (cache_txn_begin(reader, &txn) == 0 && write(up[1], &x, 1) == 1 && read(down[0], &x, 1) == 1) {
				cache_txn_end(&txn);
				bad = cache_unigram_get(reader, &table, &n_table) != ERR_NOT_FOUND || cache_txn_begin(reader, &txn) != 0 ||
				    cache_labels_get(txn, 19, &b) != 0 || b.len != sizeof(big);
				cache_txn_end(&txn);
			}
			cache_destroy(&reader);
		}
		_exit(bad);
	}
	REQUIRE(read(up[0], big, 1) == 1);
	big[0] = 0;
	REQUIRE(cache_grow(c, &map) == 0);
	CHECK(map >= 16 << 20);
	REQUIRE(cache_write_begin(c) == 0);
	CHECK(cache_grow(c, &map) == ERR_INTERNAL);
	for (uint64_t i = 2; i < 20; i++)
		CHECK(cache_write_labels(c, i, big, sizeof(big), NULL) == 0);
	CHECK(cache_write_commit(c) == 0);
	REQUIRE(write(down[1], big, 1) == 1);
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cache_destroy(&c);
	REQUIRE(cache_open(&c, dir, CACHE_WRITE, 1 << 20, NULL) == 0);
	REQUIRE(cache_txn_begin(c, &txn) == 0);
	CHECK(cache_labels_get(txn, 1, &b) == 0 && cache_labels_get(txn, 19, &b) == 0);
	cache_txn_end(&txn);
	cache_destroy(&c);
	gone();
}

static void
test_stat(void)
{
	struct cache *c;
	struct cache_stat st;
	double ratio = -1;

	fresh();
	c = opened(CACHE_WRITE);
	REQUIRE(cache_write_begin(c) == 0);
	for (uint64_t i = 0; i < 100; i++)
		CHECK(cache_write_labels(c, i, "0123456789", 10, NULL) == 0);
	CHECK(cache_write_scores(c, CACHE_SCORES_TEACHER, 1, "abc", 3, NULL) == 0);
	REQUIRE(cache_write_commit(c) == 0);
	CHECK(cache_stat(c, &st) == 0);
	CHECK(st.table[CACHE_TABLE_LABELS].n_records == 100 && st.table[CACHE_TABLE_SCORES].n_records == 1);
	CHECK(st.table[CACHE_TABLE_LABELS].n_bytes >= 1800 && st.map_bytes == 64 << 20 && st.used_bytes <= st.file_bytes);
	CHECK(cache_room(c, &ratio) == 0 && ratio > 0 && ratio < 0.1);
	CHECK(cache_disk_free(c) > 0 && cache_disk_free(c) <= 1);
	CHECK_STR(cache_table_name(CACHE_TABLE_QUARANTINE), "quarantine");
	cache_destroy(&c);
	gone();
}

struct seen {
	uint64_t n[CACHE_TABLES], n_bad, last, seqs;
	size_t bytes;
};

static int
see(void *arg, const struct cache_item *item)
{
	struct seen *s = arg;

	CHECK(item->key_ok);
	s->n[item->table]++;
	s->n_bad += item->rc != 0;
	s->bytes += item->bytes.len;
	if (item->table == CACHE_TABLE_LABELS) {
		CHECK(s->n[CACHE_TABLE_LABELS] == 1 || item->seq > s->last);
		s->last = item->seq;
		s->seqs += item->seq;
	}
	if (item->table == CACHE_TABLE_ROWS)
		CHECK(hash_equal(item->plan, plan_b) && item->block == 5 && item->chunk == s->n[CACHE_TABLE_ROWS] - 1);
	return item->table == CACHE_TABLE_SCORES ? 77 : 0;
}

/* A walk over more records than one step reads; which modes may write; dropping all rows of a block. */
static void
test_walk(void)
{
	struct seen s = {.n_bad = 0};
	struct cache_row *rows = calloc(5000, sizeof(*rows));
	struct cache_txn *txn;
	struct cache_bytes b;
	struct cache *c;
	uint64_t seq, n;

	fresh();
	CHECK(cache_open(&c, dir, CACHE_UPKEEP, 0, NULL) == ERR_NOT_FOUND);
	c = opened(CACHE_WRITE);
	REQUIRE(cache_write_begin(c) == 0);
	for (uint64_t i = 0; i < 3000; i++)
		CHECK(cache_write_labels(c, 3 * i + 1, "abcdef", 6, NULL) == 0);
	CHECK(cache_write_scores(c, CACHE_SCORES_SCORER, 9, "abc", 3, NULL) == 0);
	CHECK(cache_write_scores(c, CACHE_SCORES_TEACHER, 4, "abc", 3, NULL) == 0);
	CHECK(cache_write_rows(c, plan_b, 5, rows, 5000, NULL) == 0);
	REQUIRE(cache_write_commit(c) == 0);
	CHECK(cache_open(&(struct cache *){NULL}, dir, CACHE_UPKEEP, 0, NULL) == ERR_BUSY);
	CHECK(cache_each(c, CACHE_TABLE_LABELS, see, &s) == 0 && s.n[CACHE_TABLE_LABELS] == 3000 && s.n_bad == 0);
	CHECK(s.seqs == 3 * (2999ull * 3000 / 2) + 3000 && s.bytes == 18000);
	CHECK(cache_each(c, CACHE_TABLE_ROWS, see, &s) == 0 && s.n[CACHE_TABLE_ROWS] == 2);
	CHECK(cache_each(c, CACHE_TABLE_SCORES, see, &s) == 77 && s.n[CACHE_TABLE_SCORES] == 1);
	REQUIRE(cache_txn_begin(c, &txn) == 0);
	seq = 2;
	CHECK(cache_labels_next(txn, &seq, &b) == 0 && seq == 4 && b.len == 6);
	CHECK(cache_labels_next(txn, &seq, &b) == 0 && seq == 4);
	seq = 9000;
	CHECK(cache_labels_next(txn, &seq, &b) == ERR_NOT_FOUND && seq == 9000);
	seq = 0;
	CHECK(cache_scores_next(txn, CACHE_SCORES_SCORER, &seq, &b) == 0 && seq == 9);
	seq = 10;
	/* not from the other set */
	CHECK(cache_scores_next(txn, CACHE_SCORES_SCORER, &seq, &b) == ERR_NOT_FOUND);
	cache_txn_end(&txn);
	cache_destroy(&c);
	c = opened(CACHE_UPKEEP);
	REQUIRE(cache_write_begin(c) == 0);
	CHECK(cache_drop_rows(c, plan_b, 5) == 0 && cache_drop_rows(c, plan_a, 5) == 0);
	REQUIRE(cache_write_commit(c) == 0);
	REQUIRE(cache_txn_begin(c, &txn) == 0);
	CHECK(cache_rows_count(txn, plan_b, 5, &n) == ERR_NOT_FOUND);
	cache_txn_end(&txn);
	s = (struct seen){.n_bad = 0};
	CHECK(cache_each(c, CACHE_TABLE_ROWS, see, &s) == 0 && s.n[CACHE_TABLE_ROWS] == 0);
	cache_destroy(&c);
	free(rows);
	gone();
}

/* Another version and a truncated file are rejected with a message that says what to do. */
static void
test_version_and_cut(void)
{
	static const uint8_t big[100000];
	struct err_note note;
	struct cache *c;
	char path[96], *file, text[1200];
	uint64_t sum = hash_bytes64("0", 1) ^ hash_bytes64("format", 6);
	size_t n = 0;
	off_t size;
	int fd;

	fresh();
	c = opened(CACHE_WRITE);
	REQUIRE(cache_write_begin(c) == 0);
	for (uint64_t i = 0; i < 40; i++)
		CHECK(cache_write_labels(c, i, big, sizeof(big), NULL) == 0);
	REQUIRE(cache_write_commit(c) == 0);
	cache_destroy(&c);
	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	fd = open(path, O_RDWR);
	size = lseek(fd, 0, SEEK_END);
	REQUIRE((file = malloc((size_t)size)) != NULL && pread(fd, file, (size_t)size, 0) == size);
	for (off_t at = 0; at + 15 <= size; at++)
		if (memcmp(file + at, "format1", 7) == 0) {
			file[at + 6] = '0';
			/* little-endian, like all supported machines */
			memcpy(file + at + 7, &sum, 8);
			n++;
		}
	CHECK(n >= 1 && pwrite(fd, file, (size_t)size, 0) == size);
	for (int mode = CACHE_WRITE; mode <= CACHE_UPKEEP; mode++) {
		int rc = cache_open(&c, dir, (enum cache_mode)mode, 0, &note);

		CHECK(rc == ERR_VERSION && c == NULL);
		CHECK(strstr(err_note_str(&note, rc, text, sizeof(text)), "expected cache format 1, found 0; with the saltctl that made it type: saltctl cache export") != NULL);
	}
	CHECK(ftruncate(fd, size / 4) == 0);
	CHECK(cache_open(&c, dir, CACHE_READ, 0, &note) == ERR_CORRUPT && strstr(note.found, "cut short") != NULL);
	close(fd);
	free(file);
	gone();
}

int
main(void)
{
	test_walk();
	test_version_and_cut();
	test_records();
	test_troubles();
	test_long_block();
	test_identity();
	test_second_opener();
	test_damage();
	test_flipped_bits();
	test_full();
	test_stat();
	return check_done();
}
