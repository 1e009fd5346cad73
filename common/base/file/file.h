/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file - reads whole files and replaces them atomically; creates folders with their parents and removes them
 * with their content. Functions with a note return 0, errno or an ERR_ code, and fill the note with the path
 * and the step that failed. A short write that sets no errno is reported as ENOSPC.
 */
#ifndef SALT_FILE_H
#define SALT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include "base/err/err.h"

/*
 * file_read - reads the whole file into malloc'ed memory and appends a NUL that len does not count.
 * max_bytes 0: no limit; a longer file is ERR_RANGE. After an error *data is NULL.
 */
int file_read(const char *path, size_t max_bytes, char **data, size_t *len, struct err_note *note);

/*
 * file_pread - reads exactly n bytes from offset `at` of fd. Returns 0, errno, or ERR_CORRUPT if the file
 * ends earlier, because it was cut short after its size was read. path is for the note. Any thread.
 */
int file_pread(int fd, const char *path, uint64_t at, void *out, size_t n, struct err_note *note);

/*
 * These functions recognize a file's format by its first n bytes. They return its name for a message
 * ("a gzip file", static), or NULL if it is none of the known ones. Any n is allowed; 512 bytes are enough.
 * file_format - uses signatures that are too long to occur by chance at the start of a file of numbers, and
 * the header of safetensors.
 * file_magic - uses these signatures, shorter ones and the start of a web page, but not safetensors. For
 * files that should be JSON or safetensors.
 * file_not_text - uses signatures that no text begins with, and signatures that a text may begin with if
 * is_binary(head, n) is true. *advice: what the user can do if text is required, or NULL.
 * file_is_text - whether the n bytes are UTF-8 text without control characters. The last character may be
 * cut.
 */
const char *file_format(const void *head, size_t n);
const char *file_magic(const void *head, size_t n);
const char *file_not_text(const void *head, size_t n, bool (*is_binary)(const unsigned char *p, size_t n), const char **advice);
bool file_is_text(const void *head, size_t n);

/* file_write_all - writes all n bytes to fd; continues after short writes and EINTR. Returns 0 or errno. */
int file_write_all(int fd, const void *p, size_t n);

/*
 * file_make_dirs - creates PATH and its missing parents, as mkdir -p does, and syncs the parent folder of
 * each.
 * file_make_parents - creates only the parents of PATH. Both return 0 for folders that exist already.
 */
int file_make_dirs(const char *path, mode_t mode, struct err_note *note);
int file_make_parents(const char *path, struct err_note *note);

/*
 * file_replace - replaces a file as a whole or not at all: the data are written to a temporary file beside
 * it, which is then renamed.
 *	struct file_replace r;
 *	if ((rc = file_replace_begin(&r, path, note)) != 0)	makes missing parents, opens r.f for writing
 *		return rc;
 *	fprintf(r.f, ...);					errors stick to r.f
 *	return file_replace_end(&r, durable, note);		closes, renames; removes r.temp after an error
 * durable: the file is synced before the rename and its folder after it. file_replace_abort removes the
 * temporary file.
 * file_replace_all - all of this in one call, for data in memory.
 * file_replaceable - what file_replace_begin checks first: EEXIST if path is there and not a regular file, for
 * instance a pipe, /dev/null or /dev/stdout, which the rename would remove.
 */
struct file_replace {
	FILE *f;
	char path[4096], temp[4096];
};
int file_replace_begin(struct file_replace *r, const char *path, struct err_note *note);
int file_replace_end(struct file_replace *r, bool durable, struct err_note *note);
void file_replace_abort(struct file_replace *r);
int file_replaceable(const char *path, struct err_note *note);
int file_replace_all(const char *path, const void *data, size_t len, bool durable, struct err_note *note);

/*
 * file_remove_tree - removes PATH, and everything below it if it is a folder. Symbolic links are removed and
 * never followed; mounted file systems are not entered (EBUSY). After a failure the other files are still
 * removed, and the note names the first file that could not be. Returns 0 if PATH does not exist.
 */
int file_remove_tree(const char *path, struct err_note *note);

/* file_sync_dir - syncs a folder, so that names created or renamed in it survive a power cut. */
int file_sync_dir(const char *dir, struct err_note *note);

#endif
