/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text - documents from files, folders and standard input. The first bytes of a source, never its name
 * alone, decide how it is read:
 *
 *   compressed     gzip, bzip2, xz, zstd, any number of members; what is inside is looked at in the same way
 *   Unicode        a byte order mark is skipped; UTF-16 and UTF-32 with one become UTF-8, without one they are refused by name
 *   JSON           lines, objects one after the other over any lines, arrays of objects
 *   not text       known formats by name, and bytes that no text has: refused, or left out and counted in a folder
 *   plain text     everything else. Bytes are passed on unchanged, and bytes that are not UTF-8 stay
 *
 * What was read and what was left out is counted with the first three places: text_tally.
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
	TEXT_FORM_PLAIN,		/* plain text whatever the bytes, JSON and binary files too; compression is still undone */
	TEXT_FORM_JSON			/* JSON, whatever the name and the first bytes */
};

struct text_options {
	enum text_split split;
	const char *mark;
	enum text_form form;
	const char *field;		/* the member of a JSON object that is the document */
	const char *weight_field;	/* the member that holds the document's weight, for text_weight; NULL: none. JSON alone has it */
	const char *only;		/* file names in folders must match this shell pattern; NULL: all but hidden ones */
	bool skip_bad;			/* count bad JSON records and go on instead of failing */
};

enum text_tally_kind {
	TEXT_TALLY_PLAIN,		/* files read as plain text */
	TEXT_TALLY_JSON,		/* files read as JSON */
	TEXT_TALLY_NO_DOCUMENT,		/* of these: files without a document */
	TEXT_TALLY_NOT_TEXT,		/* files of a folder left out: not text */
	TEXT_TALLY_NO_FIELD,		/* files of a folder left out: one JSON object without the field */
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
	char *first[TEXT_TALLY_FIRST];	/* file, place and reason of the first ones; NULL: fewer */
};

/*
 * Where a document begins: line from 1, record from 1 in JSON that is not lines (else 0). name: as long as
 * the struct text.
 */
struct text_place {
	const char *name;
	uint64_t line, record;
};

struct text;

/*
 * text_open - @paths: files, folders (their files in name order, folders inside likewise, hidden ones left
 * out) and "-". Sources are listed now and opened one by one. 0; ENOENT, EACCES, ERR_NOT_FOUND (a folder
 * without a file that fits), ENOMEM; note names it.
 */
int text_open(struct text **t, const char *const *paths, size_t n, const struct text_options *options, struct err_note *note);
void text_close(struct text **t);	/* takes NULL */

/*
 * text_next - the next document that is not empty; good until the next call. @place may be NULL.
 * Returns 0; ERR_NOT_FOUND after the last; ERR_FORMAT with file and line or byte in the note (a bad JSON
 * record, a file that is not text, compressed data that is damaged or cut short); ENOMEM, errno.
 */
int text_next(struct text *t, const unsigned char **doc, size_t *n, struct text_place *place, struct err_note *note);

/*
 * text_weight - with weight_field: the weight of the document that text_next has returned, TEXT_WEIGHT_MIN to
 * TEXT_WEIGHT_MAX or 0. A record in which it is missing, no number or outside is a bad JSON record, as one
 * without the text.
 */
#define TEXT_WEIGHT_MIN 1e-6
#define TEXT_WEIGHT_MAX 1e6
double text_weight(const struct text *t);

size_t text_n_files(const struct text *t);
uint64_t text_total_bytes(const struct text *t);	/* on disk, all sources; 0: not known (a pipe) */
uint64_t text_read_bytes(const struct text *t);		/* of these, read so far */
const struct text_tally *text_tally(const struct text *t, enum text_tally_kind kind);	/* so far; as long as t */

/*
 * text_tally_add - counts, and keeps the text if it is of the first. 0 or ENOMEM. free() the texts of a
 * tally of your own.
 */
int text_tally_add(struct text_tally *tally, uint64_t count, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
