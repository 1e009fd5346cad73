/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file - whole files: read, replaced atomically; folders made with their parents, removed with their content.
 * Every function returns 0, errno or an ERR_ code and fills the note with the path and the step that failed.
 * A write that stores fewer bytes than asked without an errno is ENOSPC.
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
 * file_read - the whole file in malloc'ed memory, with a NUL after it that len does not count. max_bytes 0:
 * no limit; a longer file is ERR_RANGE.
 */
int file_read(const char *path, size_t max_bytes, char **data, size_t *len, struct err_note *note);

/*
 * file_pread - n bytes from byte at of fd, all of them. 0; errno; ERR_CORRUPT where the file ends before: it
 * was cut short after its size was read. path is for the note. Any thread.
 */
int file_pread(int fd, const char *path, uint64_t at, void *out, size_t n, struct err_note *note);

/*
 * What the first n bytes of a file show it to be, in words for a message ("a gzip file"); NULL: none of the
 * kinds known here. n may be any number; 512 bytes are enough.
 * file_format - by signatures that are too long to occur by chance at the start of a file of numbers, and by
 * the header of safetensors.
 * file_magic - by these signatures, by shorter ones and by the start of a web page; not safetensors. For
 * files that should be JSON or safetensors.
 * file_not_text - by signatures that no text begins with, and by some that one may begin with, if is_binary
 * says that the rest is none; *advice:
 * what to do where text was wanted.
 * file_is_text - whether n bytes are UTF-8 text without control characters; a character that n cuts is fine.
 */
const char *file_format(const void *head, size_t n);
const char *file_magic(const void *head, size_t n);
const char *file_not_text(const void *head, size_t n, bool (*is_binary)(const unsigned char *p, size_t n), const char **advice);
bool file_is_text(const void *head, size_t n);

/* file_write_all - all n bytes to fd, repeated after short writes and EINTR. 0 or errno; no note. */
int file_write_all(int fd, const void *p, size_t n);

/*
 * file_make_dirs - PATH and its missing parents, as mkdir -p; each new name is synced in its folder.
 * file_make_parents - only the parents of PATH. 0 if they exist already.
 */
int file_make_dirs(const char *path, mode_t mode, struct err_note *note);
int file_make_parents(const char *path, struct err_note *note);

/*
 * file_replace - a file is replaced as a whole or not at all: written to a temporary file beside it, then
 * renamed over it.
 *	struct file_replace r;
 *	if ((rc = file_replace_begin(&r, path, note)) != 0)	makes missing parents, opens r.f for writing
 *		return rc;
 *	fprintf(r.f, ...);					errors stick to r.f
 *	return file_replace_end(&r, durable, note);		closes and renames; after an error removes the temporary file
 * durable: the file is synced before the rename and its folder after it. file_replace_abort removes the temporary file.
 * file_replace_all - the same for bytes at hand.
 */
struct file_replace {
	FILE *f;
	char path[4096], temp[4096];
};
int file_replace_begin(struct file_replace *r, const char *path, struct err_note *note);
int file_replace_end(struct file_replace *r, bool durable, struct err_note *note);
void file_replace_abort(struct file_replace *r);
int file_replace_all(const char *path, const void *data, size_t len, bool durable, struct err_note *note);

/*
 * file_remove_tree - PATH, and everything below it if it is a folder. Symbolic links are removed and never
 * followed, mounted file systems are not entered (EBUSY). After a failure the rest is removed all the same;
 * the note names the first file that stays. 0 if there is none.
 */
int file_remove_tree(const char *path, struct err_note *note);

/* file_sync_dir - fsync of a folder, so that names created or renamed in it survive a power cut. */
int file_sync_dir(const char *dir, struct err_note *note);

#endif
