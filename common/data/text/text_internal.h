/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of text: source.c (bytes of a file), kind.c (formats), text.c (documents). */
#ifndef SALT_TEXT_INTERNAL_H
#define SALT_TEXT_INTERNAL_H

#include <bzlib.h>
#include <iconv.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "data/text/text.h"

/*
 * source.c - reads the bytes of one file, decompressed and, after text__source_convert, as UTF-8. Zero the
 * struct before the first text__source_open.
 */
struct text__codec;
struct text__source {
	const char *name;			/* for notes */
	int fd;
	uint64_t n_raw;				/* bytes read from the file */
	bool started, at_end, inside;		/* inside: within a compressed member */
	const struct text__codec *codec;	/* NULL: not compressed */
	unsigned char *raw;			/* [in, n_in) is unread */
	size_t in, n_in;
	union {
		z_stream gzip;
		bz_stream bzip2;
		lzma_stream xz;
		ZSTD_DStream *zstd;
	} z;
	const char *encoding;			/* NULL: no conversion */
	iconv_t converter;
	char *wide;				/* bytes to convert: [0, n_wide) */
	size_t n_wide;
	bool wide_end;
};

int text__source_open(struct text__source *s, const char *path, struct err_note *note);
void text__source_close(struct text__source *s);	/* keeps the memory for the next file */
void text__source_free(struct text__source *s);
/*
 * Reads at least one byte into p; *got is 0 at the end. ERR_FORMAT with the offset: the compressed data are
 * damaged or cut short.
 */
int text__source_read(struct text__source *s, void *p, size_t n, size_t *got, struct err_note *note);
/* Converts the source from this encoding from here on; head[n]: the bytes that were read already. */
int text__source_convert(struct text__source *s, const char *encoding, const void *head, size_t n, struct err_note *note);
const char *text__source_codec(const struct text__source *s);	/* "gzip"; NULL: not compressed */
/* The ending of a name that belongs to a compressed format, and that format's name; NULL: no such ending. */
const char *text__codec_ending(const char *name, const char **format);

/* kind.c */
#define TEXT__HEAD_BYTES (64u << 10)	/* bytes that are examined; a source may be shorter */

/* The encoding of the byte order mark at p ("UTF-8", ...) and the mark's length; NULL: there is none. */
const char *text__bom(const unsigned char *p, size_t n, size_t *len);
/*
 * The name of the format if the first bytes are not text, with advice for the user; NULL: they are text.
 * *stop: an error in a folder too, where other files that are not text are left out.
 */
const char *text__not_text(const unsigned char *p, size_t n, const char **advice, bool *stop);
/* Whether an object or an array of objects begins at p. */
bool text__looks_json(const unsigned char *p, size_t n);
/* Whether the name has an ending of JSON files, perhaps before that of a compressed format. */
bool text__named_json(const char *name);
/* The format to which the name's ending belongs, if it is never text ("a Parquet file"); NULL: none. */
const char *text__named_binary(const char *name);
bool text__ends_with(const char *s, const char *end);

#endif
