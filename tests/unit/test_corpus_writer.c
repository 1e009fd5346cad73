/* SPDX-License-Identifier: Apache-2.0 */
/* Writing corpora: reading them back, later changes, rejected calls, a killed writer, a full disk. */
#include "corpus_files.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err/crash.h"
#include "check.h"

static void
round_trip(uint32_t vocab, enum corpus_dtype dtype)
{
	static int32_t want[300];
	static uint64_t counts[70000], seen[70000];
	const struct corpus_info *info;
	struct corpus *c, *again;
	struct hash128 a, b;
	size_t n = 0;
	int next = 0;

	for (int d = 1; d <= 20; d++) {
		for (int i = 0; i < d; i++)
			want[n++] = (int32_t)((uint32_t)(next++) * 977u % vocab);
		want[n++] = 2;
	}
	REQUIRE(write_some(in_dir("own"), vocab, 20, true) == 0);
	REQUIRE(corpus_open(&c, in_dir("own"), &note) == 0);
	info = corpus_info(c);
	CHECK(info->kind == CORPUS_KIND_MEGATRON && info->dtype == dtype && info->n_tokens == n && info->n_documents == 20);
	CHECK(info->vocab == vocab && info->eod == 2 && info->n_bytes == 840 && info->has_counts && info->has_tokenizer && info->has_source);
	CHECK(info->tokenizer.hi == 0xabc && info->source.lo == 6);
	for (uint64_t i = 0; i < corpus_n_windows(c, 7); i++) {
		int32_t out[8];

		CHECK(corpus_window(c, i, 7, out, &note) == 0 && memcmp(out, want + 7 * i, sizeof(out)) == 0);
	}
	for (uint32_t v = 0; v < vocab; v++)
		seen[v] = 1;
	for (size_t i = 0; i < n; i++)
		seen[want[i]]++;
	CHECK(corpus_counts(c, vocab, counts, &note) == 0 && memcmp(counts, seen, vocab * sizeof(counts[0])) == 0);
	CHECK(corpus_counts(c, vocab - 1, counts, &note) == ERR_MISMATCH);

	CHECK(corpus_fingerprint(c, &a, &note) == 0 && corpus_fingerprint(c, &b, &note) == 0 && hash_equal(a, b));
	CHECK(access(in_dir("own.bin.salthash"), F_OK) == 0 && access(in_dir("own.bin.tmp"), F_OK) != 0);
	REQUIRE(corpus_open(&again, in_dir("own.bin"), &note) == 0);
	CHECK(corpus_fingerprint(again, &b, &note) == 0 && hash_equal(a, b));
	corpus_destroy(&again);
	corpus_destroy(&c);

	/* the same tokens under another name have the same fingerprint, other tokens another one */
	REQUIRE(write_some(in_dir("copy"), vocab, 20, true) == 0 && corpus_open(&c, in_dir("copy"), &note) == 0);
	CHECK(corpus_fingerprint(c, &b, &note) == 0 && hash_equal(a, b));
	corpus_destroy(&c);
	REQUIRE(write_some(in_dir("copy"), vocab, 19, true) == 0 && corpus_open(&c, in_dir("copy"), &note) == 0);
	CHECK(corpus_fingerprint(c, &b, &note) == 0 && !hash_equal(a, b));
	corpus_destroy(&c);
}

/* Turns PREFIX.json of version 2 into one of version 1, which has no "check". */
static void
as_version_1(char *text)
{
	char *version = strstr(text, "\"version\": 2"), *check = strstr(text, ",\n  \"check\"");

	REQUIRE(version != NULL && check != NULL);
	version[11] = '1';
	strcpy(check, "\n}\n");
}

/* A corpus of this writer of which one file is changed afterwards. */
static void
changed_afterwards(void)
{
	static uint8_t buf[16384];
	uint64_t counts[1000];
	struct corpus *c;
	struct hash128 h;
	size_t n;
	char *at;

	REQUIRE(write_some(in_dir("c"), 1000, 5, true) == 0);
	n = slurp(in_dir("c.bin"), buf, sizeof(buf));
	buf[0] ^= 1;
	spill(in_dir("c.bin"), buf, n);
	REQUIRE(corpus_open(&c, in_dir("c"), &note) == 0);
	CHECK(corpus_fingerprint(c, &h, &note) == ERR_CORRUPT && strlen(note.found) == 32);
	corpus_destroy(&c);

	REQUIRE(write_some(in_dir("c"), 1000, 5, true) == 0);
	n = slurp(in_dir("c.counts.bin"), buf, sizeof(buf));
	CHECK(n == 16 + 8 * 1000);
	buf[500] ^= 4;
	spill(in_dir("c.counts.bin"), buf, n);
	REQUIRE(corpus_open(&c, in_dir("c"), &note) == 0);
	CHECK(corpus_counts(c, 1000, counts, &note) == ERR_CORRUPT);
	spill(in_dir("c.counts.bin"), buf, n - 1);
	CHECK(corpus_counts(c, 1000, counts, &note) == ERR_CORRUPT);
	corpus_destroy(&c);

	/* PREFIX.json with other counts, or truncated; without it the corpus is treated as a foreign one */
	n = slurp(in_dir("c.json"), buf, sizeof(buf));
	buf[n] = '\0';
	REQUIRE((at = strstr((char *)buf, "\"n_tokens\": 20")) != NULL);
	at[13] = '9';
	spill(in_dir("c.json"), buf, n);
	CHECK(corpus_open(&c, in_dir("c"), &note) == ERR_CORRUPT && strcmp(note.place, "check") == 0 && c == NULL);
	as_version_1((char *)buf);
	spill(in_dir("c.json"), buf, strlen((char *)buf));
	CHECK(corpus_open(&c, in_dir("c"), &note) == ERR_CORRUPT && strcmp(note.place, "n_tokens") == 0 && c == NULL);
	REQUIRE((at = strstr((char *)buf, "\"n_tokens\": 29")) != NULL);
	at[13] = '0';
	n = strlen((char *)buf);
	spill(in_dir("c.json"), buf, n);
	/* version 1, written by older programs */
	REQUIRE(corpus_open(&c, in_dir("c"), &note) == 0);
	CHECK(corpus_info(c)->vocab == 1000 && corpus_fingerprint(c, &h, &note) == 0);
	corpus_destroy(&c);
	REQUIRE((at = strstr((char *)buf, "\"eod\": 2")) != NULL);
	at[7] = '-';
	spill(in_dir("c.json"), buf, n);
	CHECK(corpus_open(&c, in_dir("c"), &note) == ERR_FORMAT);
	spill(in_dir("c.json"), buf, n / 2);
	CHECK(corpus_open(&c, in_dir("c"), &note) == ERR_FORMAT);
	spill(in_dir("c.json"), "{\"text\": \"jsonl of\"}\n{\"text\": \"somebody else\"}\n", 48);
	REQUIRE(corpus_open(&c, in_dir("c"), &note) == 0);
	CHECK(corpus_info(c)->vocab == 0 && corpus_info(c)->n_documents == 5);
	CHECK(corpus_counts(c, 1000, counts, &note) == 0 && counts[2] == 6 && counts[977] == 2 && counts[3] == 1);
	corpus_destroy(&c);
}

static void
writer_refuses(void)
{
	struct corpus_writer_options o = {.vocab = 10, .eod = 2};
	struct corpus_writer *w, *other;
	int32_t ids[3] = {1, 2, 3};
	struct corpus *c;

	o.eod = 10;
	CHECK(corpus_writer_new(&w, in_dir("w"), &o, &note) == ERR_RANGE && w == NULL);
	o = (struct corpus_writer_options){.vocab = 0};
	CHECK(corpus_writer_new(&w, in_dir("w"), &o, &note) == ERR_RANGE);
	o = (struct corpus_writer_options){.vocab = 10, .eod = 2};
	w = start(in_dir("new/folder/w"), 10, false);		/* parents are created */
	corpus_writer_destroy(&w);
	CHECK(close(creat(in_dir("file"), 0666)) == 0);
	CHECK(corpus_writer_new(&w, in_dir("file/below/w"), &o, &note) == ENOTDIR && w == NULL);
	CHECK_STR(note.name, in_dir("file"));

	w = start(in_dir("w"), 10, false);
	CHECK(corpus_writer_new(&other, in_dir("w"), &o, &note) == ERR_BUSY && other == NULL);
	CHECK(corpus_writer_document(w, ids, 0, 0, &note) == 0 && corpus_writer_n_documents(w) == 0);
	CHECK(corpus_writer_finish(w, NULL, &note) == ERR_FORMAT && strstr(note.expected, "one document") != NULL);
	corpus_writer_destroy(&w);
	CHECK(access(in_dir("w.bin.tmp"), F_OK) != 0 && access(in_dir("w.bin"), F_OK) != 0);

	w = start(in_dir("w"), 10, false);
	CHECK(corpus_writer_document(w, ids, 3, 3, &note) == 0 && corpus_writer_n_tokens(w) == 4);
	ids[1] = 10;
	CHECK(corpus_writer_document(w, ids, 3, 3, &note) == ERR_RANGE);
	CHECK_STR(note.place, "document 1, position 1");
	CHECK(corpus_writer_finish(w, NULL, &note) == ERR_CLOSED);
	corpus_writer_destroy(&w);
	ids[1] = -1;
	w = start(in_dir("w"), 10, false);
	CHECK(corpus_writer_document(w, ids, 3, 3, &note) == ERR_RANGE);
	corpus_writer_destroy(&w);
	CHECK(corpus_open(&c, in_dir("w"), &note) == ENOENT);

	REQUIRE(write_some(in_dir("w"), 10, 2, false) == 0);
	CHECK(corpus_writer_new(&w, in_dir("w"), &o, &note) == ERR_EXISTS);

	/* Files of other programs at the names of a corpus: ids, and the text itself, which not even replace overwrites. */
	CHECK(close(creat(in_dir("ids.bin"), 0666)) == 0);
	CHECK(corpus_writer_new(&w, in_dir("ids"), &o, &note) == ERR_EXISTS && w == NULL);
	CHECK_STR(note.name, in_dir("ids.bin"));
	CHECK(close(creat(in_dir("text.json"), 0666)) == 0);
	CHECK(corpus_writer_new(&w, in_dir("text"), &o, &note) == ERR_EXISTS && w == NULL);
	o.replace = true;
	CHECK(corpus_writer_new(&w, in_dir("text"), &o, &note) == ERR_EXISTS && w == NULL);
	CHECK_STR(note.name, in_dir("text.json"));
	CHECK(access(in_dir("text.bin.tmp"), F_OK) != 0);
	CHECK(corpus_writer_new(&w, in_dir("ids"), &o, &note) == 0);
	corpus_writer_destroy(&w);
}

/* After a kill at each step of finish there is the old corpus, an error, or the new corpus; never a mix. */
static void
killed(void)
{
	static const struct {
		const char *point;
		int fresh, replacing;	/* rc of corpus_open afterwards */
		uint64_t n_documents;
	} rows[] = {
		{"corpus.written", ENOENT, 0, 3}, {"corpus.unlinked_idx", ENOENT, ERR_CORRUPT, 0}, {"corpus.renamed_json", ERR_CORRUPT, ERR_CORRUPT, 0},
		{"corpus.renamed_bin", ERR_CORRUPT, ERR_CORRUPT, 0}, {"corpus.renamed_counts", ERR_CORRUPT, ERR_CORRUPT, 0},
		{"corpus.renamed_idx", 0, 0, 6},
	};

	for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
		const char *point = rows[i / 2].point;
		int replacing = i % 2, status, rc;
		struct corpus *c;
		char name[16];
		pid_t pid;

		snprintf(name, sizeof(name), "k%zu", i);
		if (replacing)
			REQUIRE(write_some(in_dir(name), 50, 3, true) == 0);
		if ((pid = fork()) == 0) {
			setenv("SALT_CRASH_AT", point, 1);
			_exit(write_some(in_dir(name), 50, 6, replacing) == 0 ? 0 : 1);
		}
		REQUIRE(waitpid(pid, &status, 0) == pid);
		CHECK_ROW(point, WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		rc = corpus_open(&c, in_dir(name), &note);
		CHECK_ROW(point, rc == (replacing ? rows[i / 2].replacing : rows[i / 2].fresh));
		CHECK_ROW(point, rc != 0 || corpus_info(c)->n_documents == rows[i / 2].n_documents);
		corpus_destroy(&c);
		snprintf(name + strlen(name), sizeof(name) - strlen(name), ".bin");
		if (rc == ERR_CORRUPT)
			CHECK_ROW(point, corpus_open(&c, in_dir(name), &note) == ERR_CORRUPT);
		snprintf(name, sizeof(name), "k%zu", i);
		REQUIRE(write_some(in_dir(name), 50, 6, true) == 0);	/* building again repairs it */
		REQUIRE(corpus_open(&c, in_dir(name), &note) == 0);
		CHECK_ROW(point, corpus_info(c)->n_documents == 6);
		corpus_destroy(&c);
	}
}

/* On a full disk (a file size limit) the step is named, the old corpus is intact and no file is left over. */
static void
disk_full(void)
{
	static const rlim_t limits[] = {100, 300, 3000};	/* tokens, PREFIX.json or counts, ... do not fit */
	struct corpus *c;
	struct hash128 h;

	REQUIRE(write_some(in_dir("full"), 500, 3, true) == 0);
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			struct rlimit limit = {limits[i], limits[i]};
			int rc;

			signal(SIGXFSZ, SIG_IGN);
			setrlimit(RLIMIT_FSIZE, &limit);
			rc = write_some(in_dir("full"), 500, 40, true);
			_exit(rc == EFBIG && strcmp(note.place, "write") == 0 && strstr(note.name, "full") != NULL ? 0 : 1);
		}
		REQUIRE(waitpid(pid, &status, 0) == pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		CHECK(access(in_dir("full.bin.tmp"), F_OK) != 0 && access(in_dir("full.counts.bin.tmp"), F_OK) != 0);
		REQUIRE(corpus_open(&c, in_dir("full"), &note) == 0);
		CHECK(corpus_info(c)->n_documents == 3 && corpus_fingerprint(c, &h, &note) == 0);
		corpus_destroy(&c);
	}
}

/* What another process does between a writer's open of the temporary file and its lock. */
static void (*before_lock)(void);

int
flock(int fd, int operation)
{
	void (*act)(void) = before_lock;

	before_lock = NULL;
	if (act != NULL)
		act();
	return (int)syscall(SYS_flock, fd, operation);
}

static void
other_finishes(void)
{
	REQUIRE(write_some(in_dir("race"), 100, 4, true) == 0);
}

/* Two writers of one corpus: one has opened the temporary file when the other one finishes, which gives that file its last name. */
static void
race(void)
{
	struct corpus_writer_options o = {.vocab = 100, .eod = 2};
	struct corpus_writer *w;
	struct corpus *c;
	struct hash128 h;

	before_lock = other_finishes;
	CHECK(corpus_writer_new(&w, in_dir("race"), &o, &note) == ERR_EXISTS && w == NULL);
	o.replace = true;
	before_lock = other_finishes;
	CHECK(corpus_writer_new(&w, in_dir("race"), &o, &note) == 0);
	REQUIRE(corpus_open(&c, in_dir("race"), &note) == 0);
	CHECK(corpus_info(c)->n_documents == 4 && corpus_fingerprint(c, &h, &note) == 0);
	corpus_destroy(&c);
	corpus_writer_destroy(&w);
	REQUIRE(corpus_open(&c, in_dir("race"), &note) == 0);
	corpus_destroy(&c);
	CHECK(access(in_dir("race.bin.tmp"), F_OK) != 0);
}

static void
split(void)
{
	char text[32];
	int held = 0;

	for (int i = 0; i < 20000; i++) {
		int n = snprintf(text, sizeof(text), "document %d", i);

		held += corpus_split_heldout(text, (size_t)n, 20);
		CHECK(corpus_split_heldout(text, (size_t)n, 20) == corpus_split_heldout(text, (size_t)n, 20));
		CHECK(!corpus_split_heldout(text, (size_t)n, 0) && corpus_split_heldout(text, (size_t)n, 1));
	}
	CHECK(held > 1000 - 5 * 31 && held < 1000 + 5 * 31);	/* five standard deviations */
}

int
main(void)
{
	files_begin();
	round_trip(1000, CORPUS_DTYPE_UINT16);
	round_trip(65536, CORPUS_DTYPE_UINT16);
	round_trip(65537, CORPUS_DTYPE_INT32);
	changed_afterwards();
	writer_refuses();
	race();
	if (CRASH_POINTS)
		killed();
	disk_full();
	split();
	files_end();
	return check_done();
}
