/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files - a temporary folder for a test, and functions for whole files. All source files of a test share the
 * folder, as they share the counts of check.h.
 */
#ifndef SALT_TESTS_FILES_H
#define SALT_TESTS_FILES_H

#include <ftw.h>

#include "check.h"

__attribute__((weak)) char files_dir[64];

/* files_begin makes the folder; files_end removes it with its content. */
static inline void
files_begin(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(files_dir, sizeof(files_dir), "%.40s/salt_files.XXXXXX", tmp != NULL ? tmp : "/tmp");
	REQUIRE(mkdtemp(files_dir) != NULL);
}

static inline int
files_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static inline void
files_end(void)
{
	nftw(files_dir, files_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* The path of a file in the folder; valid until the fourth call after this one. */
static inline const char *
in_dir(const char *name)
{
	static char where[4][160];
	static int turn;
	char *out = where[turn++ % 4];

	snprintf(out, sizeof(where[0]), "%s/%s", files_dir, name);
	return out;
}

static inline void
spill(const char *path, const void *p, size_t n)
{
	FILE *f = fopen(path, "wb");

	REQUIRE(f != NULL && fwrite(p, 1, n, f) == n && fclose(f) == 0);
}

static inline void
spill_text(const char *path, const char *text)
{
	spill(path, text, strlen(text));
}

/* Reads the whole file, which must have fewer than cap bytes; returns their number. */
static inline size_t
slurp(const char *path, void *out, size_t cap)
{
	FILE *f = fopen(path, "rb");
	size_t n;

	REQUIRE(f != NULL);
	n = fread(out, 1, cap, f);
	fclose(f);
	REQUIRE(n < cap);
	return n;
}

#endif
