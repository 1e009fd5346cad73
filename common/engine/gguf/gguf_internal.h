/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of gguf share: an open file and its pairs. */
#ifndef SALT_GGUF_OWN_H
#define SALT_GGUF_OWN_H

#include "engine/gguf/gguf.h"

/* As numbered in the file. */
enum gguf__kind {
	GGUF__U8, GGUF__I8, GGUF__U16, GGUF__I16, GGUF__U32, GGUF__I32, GGUF__F32, GGUF__BOOL, GGUF__TEXT, GGUF__ARRAY, GGUF__U64,
	GGUF__I64, GGUF__F64, GGUF__KINDS
};

struct gguf__text {
	const char *s;				/* not ended by NUL */
	size_t len;
};

struct gguf__pair {
	const char *key;			/* of the file's arena */
	enum gguf__kind kind, item_kind;	/* item_kind: of an array */
	uint64_t count;				/* items of an array */
	const unsigned char *value;		/* first byte of the value; of an array, of its first item */
};

struct gguf {
	char *path;
	unsigned char *map;
	uint64_t size;
	struct mem_arena *arena;		/* keys and names, ended by NUL */
	struct gguf__pair *pairs;		/* in key order */
	size_t n_pairs;
	struct gguf_tensor *tensors;		/* in name order */
	size_t n_tensors;
};

const struct gguf__pair *gguf__pair(const struct gguf *g, const char *key);	/* NULL: no such key */
/*
 * gguf__key - "ARCHITECTURE.END" of the file's general.architecture, in buf; a key that the file cannot have
 * if it names none. Returns buf.
 */
#define GGUF__KEY_BYTES 128
const char *gguf__key(const struct gguf *g, const char *end, char buf[GGUF__KEY_BYTES]);
int gguf__by_key(const void *a, const void *b);				/* for qsort */
const char *gguf__kind_name(enum gguf__kind kind);
unsigned gguf__kind_bytes(enum gguf__kind kind);			/* 0: the length is stored in the file */
uint64_t gguf__little(const unsigned char *p, unsigned bytes);

/*
 * The value in its own type; false if it has another kind (or pair is NULL). gguf__int accepts every integer
 * within int64.
 */
bool gguf__int(const struct gguf__pair *pair, int64_t *out);
bool gguf__num(const struct gguf__pair *pair, double *out);	/* floats and integers */
bool gguf__flag(const struct gguf__pair *pair, bool *out);
bool gguf__text(const struct gguf__pair *pair, struct gguf__text *out);
bool gguf__is(const struct gguf__text *text, const char *s);

/* A split of text into words, before byte-level BPE, and what else the tokenizers of that name have in common. */
struct gguf__pre {
	const char *names;			/* as in tokenizer.ggml.pre, with spaces between */
	const char *splits[6];			/* regular expressions, one after the other: matches and the text between; NULL: GPT-2's alone */
	bool digits;				/* before it, each digit alone */
	bool falcon;				/* runs of punctuation, GPT-2's, numbers, and three digits at a time */
	bool nfc, ignore_merges, bos;		/* bos: added unless the file has another setting */
};

const struct gguf__pre *gguf__pre(const struct gguf__text *name);		/* NULL: no such name */
const char *gguf__pre_names(size_t i);		/* of row i of the table; NULL: there is none */

/*
 * Iterating over an array: at starts as pair->value; each call returns one item and advances. Items were
 * checked when the file was opened.
 */
struct gguf__text gguf__next_text(const unsigned char **at);
int64_t gguf__next_int(enum gguf__kind kind, const unsigned char **at);

/* A note on a key: "FILE: key KEY: expected ..., found ...". Returns rc. */
int gguf__bad(const struct gguf *g, struct err_note *note, int rc, const char *key, const char *expected, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* The same with the kind of the value at key, or "nothing", as found. */
int gguf__bad_kind(const struct gguf *g, struct err_note *note, const char *key, const char *expected);

/* Length of the well-formed UTF-8 sequence at s, 0: none. */
size_t gguf__utf8(const unsigned char *s, size_t n);

#endif
