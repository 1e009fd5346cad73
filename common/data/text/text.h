/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text - documents from files, folders and standard input. Plain text or JSON lines, either also compressed by zstd (recognised by its
 * first bytes). Bytes are passed on unchanged: nothing is decoded, trimmed or repaired, and bytes that are not UTF-8 stay.
 */
#ifndef SALT_TEXT_H
#define SALT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err/err.h"

enum text_split {
	TEXT_SPLIT_FILE,		/* a file is a document */
	TEXT_SPLIT_BLANK,		/* one or more empty lines separate documents */
	TEXT_SPLIT_LINE,		/* a line is a document, without its newline */
	TEXT_SPLIT_MARK			/* a line equal to mark separates documents */
};

struct text_options {
	enum text_split split;
	const char *mark;
	bool jsonl;			/* every source is JSON lines; else those named .jsonl, .ndjson, .jsonl.zst, .ndjson.zst are */
	const char *field;		/* the member of a JSON line that is the document */
	const char *only;		/* file names in folders must match this shell pattern; NULL: all but hidden ones */
	bool skip_bad;			/* count bad JSON lines and go on instead of failing */
};

struct text;

/*
 * text_open - @paths: files, folders (their files in name order, folders inside likewise, hidden ones left out) and "-". Sources are
 * listed now and opened one by one. 0; ENOENT, EACCES, ERR_NOT_FOUND (a folder without a file that fits), ENOMEM; note names it.
 */
int text_open(struct text **t, const char *const *paths, size_t n, const struct text_options *options, struct err_note *note);
void text_close(struct text **t);	/* takes NULL */

/*
 * text_next - the next document that is not empty; good until the next call.
 * Returns 0; ERR_NOT_FOUND after the last; ERR_FORMAT (bad JSON line, zstd data cut short: file and line or offset in the note), ENOMEM, errno.
 */
int text_next(struct text *t, const unsigned char **doc, size_t *n, struct err_note *note);

size_t text_n_files(const struct text *t);
uint64_t text_total_bytes(const struct text *t);	/* on disk, all sources; 0: not known (a pipe) */
uint64_t text_read_bytes(const struct text *t);		/* of these, read so far */
uint64_t text_n_bad(const struct text *t);		/* bad lines skipped */

#endif
