/* SPDX-License-Identifier: Apache-2.0 */
/* Tests selector.file: its two forms, refused input with the line it names, the hash that identifies it, and the check that it has enough sequences. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/random/shuffle.h"
#include "check.h"
#include "data/corpus/blend.h"
#include "data/select/file.h"

enum { N = 40 };

static char path[] = "/tmp/salt-select-XXXXXX";

static int
parse(const char *text, struct select_file **f, struct err_note *note)
{
	FILE *out = fopen(path, "w");

	REQUIRE(out != NULL && fputs(text, out) >= 0 && fclose(out) == 0);
	*note = (struct err_note){.name = ""};
	return select_file_read(f, path, "FILE", N, note);
}

static void
test_forms(void)
{
	struct select_file *f;
	struct err_note note;

	REQUIRE(parse("{\"sequence\": 7}\n\n{\"kind\": [1, {}], \"sequence\": 39}\r\n{\"sequence\": 0}", &f, &note) == 0);
	CHECK(f->n == 3 && f->score == NULL && f->list[0] == 7 && f->list[1] == 39 && f->list[2] == 0);
	CHECK(f->place[7] == 0 && f->place[39] == 1 && f->place[0] == 2 && f->place[1] == UINT64_MAX);
	select_file_destroy(&f);

	REQUIRE(parse("{\"sequence\": 7, \"score\": -0.1}\n{\"score\": 3, \"sequence\": 39}\n{\"sequence\": 1, \"score\": 1e-3}\n", &f, &note) == 0);
	CHECK(f->n == 3 && f->list == NULL && f->score[7] == -0.1f && f->score[39] == 3 && f->score[1] == 0.001f && isnan(f->score[0]));
	select_file_destroy(&f);
}

static void
test_bad(void)
{
	static const struct { const char *text; int rc; const char *place, *found; } rows[] = {
		{"", ERR_FORMAT, "", "none"},
		{"\n\n", ERR_FORMAT, "", "none"},
		{"{\"sequence\": 1}\n{\"sequence\": 40}\n", ERR_RANGE, "line 2: sequence", "40"},
		{"{\"sequence\": -1}\n", ERR_RANGE, "line 1: sequence", "-1"},
		{"{\"sequence\": 3}\n\n{\"sequence\": 4}\n{\"sequence\": 3}\n", ERR_FORMAT,
		    "line 4: sequence", "3, also in line 1"},
		{"{\"sequence\": 3, \"score\": 1}\n{\"sequence\": 3, \"score\": 1}\n", ERR_FORMAT,
		    "line 2: sequence", "3, also in line 1"},
		{"{\"sequence\": 3, \"score\": 1}\n{\"sequence\": 4}\n", ERR_FORMAT, "line 2: score", "none"},
		{"{\"sequence\": 3}\n{\"sequence\": 4, \"score\": 1}\n", ERR_FORMAT,
		    "line 2: score", "a score"},
		{"{\"sequence\": 3, \"score\": null}\n", ERR_FORMAT, "line 1: score", "null"},
		{"{\"sequence\": 3, \"score\": \"1\"}\n", ERR_FORMAT, "line 1: score", NULL},
		{"{\"sequence\": 3, \"score\": 1e39}\n", ERR_RANGE, "line 1: score", "1e+39"},
		{"{\"sequence\": 3, \"score\": 1}\n{\"sequence\": 4, \"score\": NaN}\n", ERR_FORMAT, "line 2", NULL},
		{"{\"sequence\": 3, \"score\": Infinity}\n", ERR_FORMAT, "line 1", NULL},
		{"{\"sequence\": 3.0}\n", ERR_FORMAT, "line 1: sequence", NULL},
		{"{\"seq\": 3}\n", ERR_FORMAT, "line 1: sequence", "none"},
		{"[3]\n", ERR_FORMAT, "line 1", NULL},
		{"3\t4\n", ERR_FORMAT, "line 1", NULL},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct select_file *f;
		struct err_note note;

		CHECK_ROW(rows[i].text, parse(rows[i].text, &f, &note) == rows[i].rc && f == NULL);
		CHECK_STR(note.name, "FILE");
		CHECK_STR(note.place, rows[i].place);
		CHECK_ROW(rows[i].text, note.expected[0] != '\0');
		if (rows[i].found != NULL)
			CHECK_STR(note.found, rows[i].found);
	}
}

/* Files with the same numbers have the same identity. */
static void
test_identity(void)
{
	static const char *const same[] = {
		"{\"sequence\": 2, \"score\": 0.5}\n{\"sequence\": 1, \"score\": 0.25}\n",
		"{\"sequence\": 1, \"score\": 25e-2, \"loss\": 9}\n{\"score\": 0.5, \"sequence\": 2}",
	}, *const others[] = {
		"{\"sequence\": 2, \"score\": 0.25}\n{\"sequence\": 1, \"score\": 0.5}\n",
		"{\"sequence\": 2, \"score\": 0.5}\n",
		"{\"sequence\": 2}\n{\"sequence\": 1}\n",
		"{\"sequence\": 1}\n{\"sequence\": 2}\n",
	};
	struct hash128 hash[6];

	for (size_t i = 0; i < 6; i++) {
		struct select_file *f;
		struct err_note note;

		REQUIRE(parse(i < 2 ? same[i] : others[i - 2], &f, &note) == 0);
		hash[i] = f->hash;
		select_file_destroy(&f);
	}
	for (size_t i = 0; i < 6; i++)
		for (size_t j = 0; j < i; j++)
			CHECK(hash_equal(hash[i], hash[j]) == (i == 1 && j == 0));
}

/* A file must have the scores of all sequences of the blocks, or a list of as many sequences as rows. */
static void
test_enough(void)
{
	enum { SEED = 5, W = 8, K = 4 };
	char text[N * 40] = "", *at = text;
	const uint64_t n = N;
	const uint32_t share = 1;
	struct select_file *f;
	struct err_note note;
	struct blend *order;

	REQUIRE(blend_new(&order, &n, &share, 1, &note) == 0);
	for (uint64_t p = 0; p < 3 * W; p++)		/* three blocks */
		at += sprintf(at, "{\"sequence\": %d, \"score\": %d}\n", (int)shuffle_order(SEED, N, p), (int)p);
	REQUIRE(parse(text, &f, &note) == 0);
	CHECK(select_file_check(f, order, SEED, 3 * K, W, K, &note) == 0);
	CHECK(select_file_check(f, order, SEED, 0, W, K, &note) == 0);
	/* needs a fourth block */
	CHECK(select_file_check(f, order, SEED, 3 * K + 1, W, K, &note) == ERR_RANGE);
	CHECK_STR(note.name, "selector.file");
	/* another order */
	CHECK(select_file_check(f, order, SEED + 1, 3 * K, W, K, &note) == ERR_RANGE);
	CHECK(strstr(note.expected, "a score of sequence ") != NULL);
	CHECK(select_file_check(f, order, SEED, UINT64_MAX, UINT64_C(1) << 40, 1, &note) == ERR_RANGE);
	select_file_destroy(&f);

	at = text;
	for (int i = 0; i < 12; i++)
		at += sprintf(at, "{\"sequence\": %d}\n", i);
	REQUIRE(parse(text, &f, &note) == 0);
	CHECK(select_file_check(f, order, SEED, 12, W, K, &note) == 0);
	CHECK(select_file_check(f, order, SEED, 13, W, K, &note) == ERR_RANGE);
	select_file_destroy(&f);
	blend_destroy(&order);
}

int
main(void)
{
	int fd = mkstemp(path);

	REQUIRE(fd >= 0);
	close(fd);
	test_forms();
	test_bad();
	test_identity();
	test_enough();
	unlink(path);
	return check_done();
}
