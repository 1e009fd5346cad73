/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err/err.h"
#include "base/err/nearest.h"

#include <errno.h>
#include <stdint.h>
#include "check.h"

static const char *
word_at(const void *arg, size_t i)
{
	return ((const char *const *)arg)[i];
}

static void
nearest(void)
{
	static const char *const words[] = {"steps", "seed", "set", NULL};
	char longer[80];

	CHECK(err_distance("", "") == 0 && err_distance("abc", "") == 3 && err_distance("kitten", "sitting") == 3);
	CHECK(err_distance("ab", "ba") == 1);				/* swapped neighbours count once */
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	CHECK(err_distance(longer, "a") == SIZE_MAX);
	CHECK_STR(err_nearest("stesp", word_at, words), "steps");
	CHECK_STR(err_nearest("sed", word_at, words), "seed");		/* the first of equally near words */
	CHECK(err_nearest("kitten", word_at, words) == NULL);
	CHECK(err_nearest(longer, word_at, words) == NULL);
}

int
main(void)
{
	struct err_note note;
	char buf[256];

	for (int rc = ERR_NOT_FOUND; rc < ERR_END; rc++) {
		CHECK(strstr(err_str(rc), "unknown") == NULL);
		CHECK(err_exit_code(rc) >= 64 && err_exit_code(rc) <= 78);
	}
	CHECK(strstr(err_str(ERR_END), "unknown") != NULL);
	CHECK_STR(err_str(0), "ok");
	CHECK(err_exit_code(0) == 0);
	CHECK(err_exit_code(ENOENT) == 66);
	CHECK(err_exit_code(ENOSPC) == 74);
	CHECK(err_exit_code(ERR_MISMATCH) == 78);
	CHECK(err_note_set(&note, ERR_FORMAT, "%s", "a.idx") == ERR_FORMAT);
	err_note_place(&note, "byte %d", 9);
	err_note_expected(&note, "version %d", 1);
	err_note_found(&note, "%d", 7);
	CHECK_STR(err_note_str(&note, ERR_FORMAT, buf, sizeof(buf)), "a.idx: byte 9: expected version 1, found 7: malformed input");
	CHECK_STR(err_note_str(NULL, ERR_FULL, buf, sizeof(buf)), "no space left");
	CHECK(err_note_set(NULL, 5, "x") == 5);
	CHECK(err_expect(&note, ERR_RANGE, "trainer.lanes", "a power of two", "%d", 3) == ERR_RANGE);
	CHECK_STR(err_note_str(&note, ERR_RANGE, buf, sizeof(buf)), "trainer.lanes: expected a power of two, found 3: value out of range");
	CHECK(err_expect_at(&note, ERR_FORMAT, "%s", "byte %d", "at most %d bytes", "%zu", "a.bin", 8, 4, (size_t)5) == ERR_FORMAT);
	CHECK_STR(note.name, "a.bin");
	CHECK_STR(note.place, "byte 8");
	CHECK_STR(note.expected, "at most 4 bytes");
	CHECK_STR(note.found, "5");
	CHECK(err_expect(&note, ERR_FORMAT, "", "other", "") == ERR_FORMAT);
	CHECK_STR(note.name, "a.bin");
	CHECK_STR(note.place, "byte 8");
	CHECK_STR(note.expected, "other");
	CHECK_STR(note.found, "");
	CHECK(err_expect(NULL, 5, "x", "y", "z") == 5);
	nearest();
	return check_done();
}
