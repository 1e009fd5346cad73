/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz - what the targets share. A target is one file with LLVMFuzzerTestOneInput: any bytes go in, and it ends the process by FUZZ_CHECK
 * where a promise is broken. The preset fuzz links it with libFuzzer; all others with replay.c, which runs the kept inputs.
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

/* replay.c lets one allocation fail in these runs: ENOMEM is then a right answer. */
__attribute__((weak)) bool fuzz_faults;

#define FUZZ_CHECK(cond)										\
	do {												\
		if (!(cond)) {										\
			fprintf(stderr, "%s:%d: FUZZ_CHECK failed: %s\n", __FILE__, __LINE__, #cond);	\
			abort();									\
		}											\
	} while (0)

/* A refusal names what was refused. */
#define FUZZ_REFUSED(rc, note)	FUZZ_CHECK((rc) != 0 && ((note).name[0] != '\0' || (fuzz_faults && (rc) == ENOMEM)))

/* True if rc is 0; nothing but memory may have been missing. */
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

/* A folder of this process, in memory where there is /dev/shm; removed at exit. */
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

/* Inputs of two parts: the first ends at the first byte that is 0, which belongs to neither. Returns the length of the first. */
static inline size_t
fuzz_cut(const uint8_t *data, size_t len, const char **rest, size_t *rest_len)
{
	const uint8_t *zero = len > 0 ? memchr(data, 0, len) : NULL;

	*rest = zero != NULL ? (const char *)zero + 1 : NULL;
	*rest_len = zero != NULL ? len - (size_t)(zero + 1 - data) : 0;
	return zero != NULL ? (size_t)(zero - data) : len;
}

#endif
