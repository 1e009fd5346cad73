/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of text share: source.c (bytes of a file), kind.c (what bytes are), text.c (documents). */
#ifndef SALT_TEXT_INTERNAL_H
#define SALT_TEXT_INTERNAL_H

#include <bzlib.h>
#include <iconv.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "data/text/text.h"

/*
 * source.c - the bytes of one file, decompressed and, after text__source_convert, as UTF-8. Zeroed before
 * text__source_open.
 */
struct text__codec;
struct text__source {
	const char *name;			/* for notes */
	int fd;
	uint64_t n_raw;				/* bytes read from the file */
	bool started, at_end, inside;		/* inside: of a compressed member */
	const struct text__codec *codec;	/* NULL: not compressed */
	unsigned char *raw;			/* [in, n_in) is not yet used */
	size_t in, n_in;
	union {
		z_stream gzip;
		bz_stream bzip2;
		lzma_stream xz;
		ZSTD_DStream *zstd;
	} z;
	const char *encoding;			/* NULL: as it is */
	iconv_t converter;
	char *wide;				/* bytes to convert: [0, n_wide) */
	size_t n_wide;
	bool wide_end;
};

int text__source_open(struct text__source *s, const char *path, struct err_note *note);
void text__source_close(struct text__source *s);	/* keeps the memory for the next one */
void text__source_free(struct text__source *s);
/*
 * At least one byte into p, or *got 0 at the end. Compressed data that is damaged or cut short is
 * ERR_FORMAT with its offset.
 */
int text__source_read(struct text__source *s, void *p, size_t n, size_t *got, struct err_note *note);
/* From here on the source is in this encoding; head is what was read of it already. */
int text__source_convert(struct text__source *s, const char *encoding, const void *head, size_t n, struct err_note *note);
const char *text__source_codec(const struct text__source *s);	/* "gzip"; NULL: not compressed */
/* The ending of a name that promises a compressed file and the name of that format; NULL: none. */
const char *text__codec_ending(const char *name, const char **format);

/* kind.c */
#define TEXT__HEAD_BYTES (64u << 10)	/* what is looked at; a source may be shorter */

/* The encoding of a byte order mark ("UTF-8", ...) and its length; NULL: none. */
const char *text__bom(const unsigned char *p, size_t n, size_t *len);
/*
 * What the first bytes are if they are not text, and what to do about it; NULL: text. *stop: never left
 * out in silence of a folder.
 */
const char *text__not_text(const unsigned char *p, size_t n, const char **advice, bool *stop);
/* An object or an array of objects begins here. */
bool text__looks_json(const unsigned char *p, size_t n);
bool text__named_json(const char *name);
/* A format that the name promises and that is never text ("a Parquet file"); NULL: none. */
const char *text__named_binary(const char *name);
bool text__ends_with(const char *s, const char *end);

#endif
