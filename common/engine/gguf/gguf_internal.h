/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_internal - shared by the files of gguf: an open file and its pairs. */
#ifndef SALT_GGUF_OWN_H
#define SALT_GGUF_OWN_H

#include "engine/gguf/gguf.h"

/* Numbered as in the file. */
enum gguf__kind {
	GGUF__U8, GGUF__I8, GGUF__U16, GGUF__I16, GGUF__U32, GGUF__I32, GGUF__F32, GGUF__BOOL, GGUF__TEXT, GGUF__ARRAY, GGUF__U64,
	GGUF__I64, GGUF__F64, GGUF__KINDS
};

struct gguf__text {
	const char *s;				/* not terminated by NUL */
	size_t len;
};

struct gguf__pair {
	const char *key;			/* in the file's arena */
	enum gguf__kind kind, item_kind;	/* item_kind: of an array's items */
	uint64_t count;				/* number of an array's items */
	const unsigned char *value;		/* first byte of the value, or of an array's first item */
};

struct gguf {
	char *path;
	unsigned char *map;
	uint64_t size;
	struct mem_arena *arena;		/* keys and names, terminated by NUL */
	struct gguf__pair *pairs;		/* sorted by key */
	size_t n_pairs;
	struct gguf_tensor *tensors;		/* sorted by name */
	size_t n_tensors;
};

const struct gguf__pair *gguf__pair(const struct gguf *g, const char *key);	/* NULL: no such key */
/*
 * gguf__key - writes "ARCHITECTURE.END" to buf and returns buf. ARCHITECTURE is general.architecture, or
 * empty if the file has none, which gives a key that no file has.
 */
#define GGUF__KEY_BYTES 128
const char *gguf__key(const struct gguf *g, const char *end, char buf[GGUF__KEY_BYTES]);
int gguf__by_key(const void *a, const void *b);				/* for qsort */
const char *gguf__kind_name(enum gguf__kind kind);
unsigned gguf__kind_bytes(enum gguf__kind kind);			/* 0: the length is stored in the file */
uint64_t gguf__little(const unsigned char *p, unsigned bytes);

/*
 * Read a pair's value; return false if it has another kind or pair is NULL. gguf__int accepts every integer
 * within int64.
 */
bool gguf__int(const struct gguf__pair *pair, int64_t *out);
bool gguf__num(const struct gguf__pair *pair, double *out);	/* accepts floats and integers */
bool gguf__flag(const struct gguf__pair *pair, bool *out);
bool gguf__text(const struct gguf__pair *pair, struct gguf__text *out);
bool gguf__is(const struct gguf__text *text, const char *s);

/*
 * A split of text into words, before byte-level BPE, and other rules that tokenizers with this split share.
 */
struct gguf__pre {
	const char *names;			/* names in tokenizer.ggml.pre, separated by spaces */
	const char *splits[6];			/* regular expressions, applied in order: each isolates its
						 * matches; none: only GPT-2's */
	bool digits;				/* first isolates every digit */
	bool falcon;				/* first isolates runs of punctuation, GPT-2's words and
						 * numbers; then `splits` */
	bool nfc, ignore_merges, bos;		/* bos: added unless the file says otherwise */
};

const struct gguf__pre *gguf__pre(const struct gguf__text *name);		/* NULL: no such name */
const char *gguf__pre_names(size_t i);		/* names of row i of the table; NULL after the last */

/*
 * Iterate over an array: *at starts as pair->value; each call returns one item and advances *at. The items
 * were checked when the file was opened.
 */
struct gguf__text gguf__next_text(const unsigned char **at);
int64_t gguf__next_int(enum gguf__kind kind, const unsigned char **at);

/* Sets a note on a key: "FILE: key KEY: expected ..., found ...". Returns rc. */
int gguf__bad(const struct gguf *g, struct err_note *note, int rc, const char *key, const char *expected, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* The same with ERR_FORMAT; found is the kind of the key's value, or "nothing". */
int gguf__bad_kind(const struct gguf *g, struct err_note *note, const char *key, const char *expected);

/* Length of the well-formed UTF-8 sequence at s; 0: there is none. */
size_t gguf__utf8(const unsigned char *s, size_t n);

#endif
