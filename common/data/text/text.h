/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text - reads documents from files, folders and standard input. The first bytes of a source, never its name
 * alone, decide how it is read:
 *
 *   compressed     gzip, bzip2, xz, zstd, any number of members; the content is then examined in the same way
 *   Unicode        a byte order mark is skipped; UTF-16 and UTF-32 are converted to UTF-8 if they have one,
 *                  and rejected if they have none
 *   JSON           one object per line, objects that span lines, arrays of objects
 *   not text       known formats, and bytes that no text has: rejected, or in a folder left out and counted
 *   plain text     everything else; bytes are passed on unchanged, also those that are not UTF-8
 *
 * text_tally counts the sources that were read and left out, and keeps the first three of each kind.
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

enum text_form {
	TEXT_FORM_AUTO,
	TEXT_FORM_PLAIN,		/* plain text, also JSON and binary files; decompressed if need be */
	TEXT_FORM_JSON			/* JSON, even if name and first bytes do not look like it */
};

struct text_options {
	enum text_split split;
	const char *mark;
	enum text_form form;
	const char *field;		/* the member of a JSON object that is the document */
	const char *weight_field;	/* the member with the document's weight (JSON only); or NULL */
	const char *only;		/* file names in folders must match this shell pattern; NULL: all but hidden ones */
	bool skip_bad;			/* count bad JSON records and continue instead of failing */
};

enum text_tally_kind {
	TEXT_TALLY_PLAIN,		/* files read as plain text */
	TEXT_TALLY_JSON,		/* files read as JSON */
	TEXT_TALLY_NO_DOCUMENT,		/* of these: files without a document */
	TEXT_TALLY_NOT_TEXT,		/* files in folders left out: not text */
	TEXT_TALLY_NO_FIELD,		/* files in folders left out: one JSON object without the field */
	TEXT_TALLY_HIDDEN,		/* files and folders left out: their names begin with a dot */
	TEXT_TALLY_NOT_ONLY,		/* files left out: their names do not match options.only */
	TEXT_TALLY_NO_FILE,		/* entries of folders left out: links to folders, sockets, pipes */
	TEXT_TALLY_BAD,			/* JSON records left out by skip_bad, with the reason */
	TEXT_TALLY_EMPTY,		/* JSON records left out: the text is empty */
	TEXT_TALLY_SURROGATES,		/* JSON records in which a lone surrogate became U+FFFD */
	TEXT_TALLIES
};

#define TEXT_TALLY_FIRST 3

struct text_tally {
	uint64_t n;
	char *first[TEXT_TALLY_FIRST];	/* file, line and reason of the first ones; NULL if there are fewer */
};

/*
 * Where a document begins: line from 1; record from 1 in JSON that is not one object per line, else 0. name
 * is valid as long as the struct text.
 */
struct text_place {
	const char *name;
	uint64_t line, record;
};

struct text;

/*
 * text_open - @paths: files, folders and "-" for standard input. A folder's files are read in name order,
 * including those of folders inside it; hidden ones are left out. Lists the sources now; they are opened one
 * by one later. Returns 0; ENOENT, EACCES, ERR_NOT_FOUND (a folder without a matching file), ENOMEM; the note
 * names the path.
 */
int text_open(struct text **t, const char *const *paths, size_t n, const struct text_options *options, struct err_note *note);
void text_close(struct text **t);	/* takes NULL */

/*
 * text_next - gets the next document that is not empty; *doc is valid until the next call. @place may be
 * NULL. Returns 0; ERR_NOT_FOUND after the last; ERR_FORMAT with file and line or byte in the note (a bad
 * JSON record, a file that is not text, compressed data that is damaged or cut short); ENOMEM, errno.
 */
int text_next(struct text *t, const unsigned char **doc, size_t *n, struct text_place *place, struct err_note *note);

/*
 * text_weight - with weight_field: the weight of the document that text_next returned last, 0 or
 * TEXT_WEIGHT_MIN to TEXT_WEIGHT_MAX. A record whose weight is missing, not a number or out of range is a bad
 * JSON record, like one without the text.
 */
#define TEXT_WEIGHT_MIN 1e-6
#define TEXT_WEIGHT_MAX 1e6
double text_weight(const struct text *t);

size_t text_n_files(const struct text *t);
uint64_t text_total_bytes(const struct text *t);	/* size of all sources on disk; 0: unknown (a pipe) */
uint64_t text_read_bytes(const struct text *t);		/* bytes of these read so far */
const struct text_tally *text_tally(const struct text *t, enum text_tally_kind kind); /* as long as t */

/*
 * text_tally_add - adds count, and keeps the text if fewer than TEXT_TALLY_FIRST are kept. Returns 0 or
 * ENOMEM. The caller must free() the texts of its own tallies.
 */
int text_tally_add(struct text_tally *tally, uint64_t count, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
