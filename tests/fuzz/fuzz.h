/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz - shared by the fuzz targets. A target is one file with LLVMFuzzerTestOneInput, which takes any bytes;
 * FUZZ_CHECK ends the process if the code under test breaks its contract. The preset fuzz links a target with
 * libFuzzer, all other presets with replay.c, which runs the kept inputs.
 */
#ifndef SALT_FUZZ_H
#define SALT_FUZZ_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Set by replay.c for the runs in which one allocation fails; ENOMEM is then a correct result. */
__attribute__((weak)) bool fuzz_faults;

#define FUZZ_CHECK(cond)										\
	do {												\
		if (!(cond)) {										\
			fprintf(stderr, "%s:%d: FUZZ_CHECK failed: %s\n", __FILE__, __LINE__, #cond);	\
			abort();									\
		}											\
	} while (0)

/* An error must have a note with a name. */
#define FUZZ_REFUSED(rc, note)	FUZZ_CHECK((rc) != 0 && ((note).name[0] != '\0' || (fuzz_faults && (rc) == ENOMEM)))

/* True if rc is 0. Any error other than an injected ENOMEM aborts. */
#define FUZZ_WORKS(rc)		(fuzz_works(rc, __FILE__, __LINE__))

static inline bool
fuzz_works(int rc, const char *file, int line)
{
	if (rc != 0 && !(fuzz_faults && rc == ENOMEM)) {
		fprintf(stderr, "%s:%d: expected 0, found %d (%s)\n", file, line, rc, err_str(rc));
		abort();
	}
	return rc == 0;
}

static char fuzz_dir_path[64];

static inline int
fuzz_unlink(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st, (void)kind, (void)at;
	return remove(path);
}

static inline void
fuzz_dir_remove(void)
{
	nftw(fuzz_dir_path, fuzz_unlink, 8, FTW_DEPTH | FTW_PHYS);
}

/* A folder for this process, in /dev/shm if possible; removed at exit. */
static inline const char *
fuzz_dir(void)
{
	if (fuzz_dir_path[0] == '\0') {
		const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR");

		snprintf(fuzz_dir_path, sizeof(fuzz_dir_path), "%.40s/fuzz.XXXXXX", tmp != NULL ? tmp : "/tmp");
		FUZZ_CHECK(mkdtemp(fuzz_dir_path) != NULL);
		atexit(fuzz_dir_remove);
	}
	return fuzz_dir_path;
}

/* Writes fuzz_dir()/name and returns its path, valid until the next call. */
static inline const char *
fuzz_file(const char *name, const void *bytes, size_t len)
{
	static char path[192];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", fuzz_dir(), name);
	FUZZ_CHECK((fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) >= 0);
	FUZZ_CHECK(write(fd, bytes, len) == (ssize_t)len);
	close(fd);
	return path;
}

/*
 * Splits an input into two parts at the first zero byte, which belongs to neither. Returns the length of the
 * first part; *rest is NULL if there is no zero byte.
 */
static inline size_t
fuzz_cut(const uint8_t *data, size_t len, const char **rest, size_t *rest_len)
{
	const uint8_t *zero = len > 0 ? memchr(data, 0, len) : NULL;

	*rest = zero != NULL ? (const char *)zero + 1 : NULL;
	*rest_len = zero != NULL ? len - (size_t)(zero + 1 - data) : 0;
	return zero != NULL ? (size_t)(zero - data) : len;
}

#endif
