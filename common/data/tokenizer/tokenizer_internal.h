/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of tokenizer share.
 *
 *   load.c     tokenizer.json -> struct tokenizer; its
 *   load_steps.c  normaliser and split                   split.c    regular expressions: a text -> words
 *   vocab.c    tables of tokens and merges, decoding     normal.c   NFC
 *   added.c    added tokens in a text                    bpe.c      a word -> ids, cached
 *   encode.c   all steps for a text, in order
 */
#ifndef SALT_TOKENIZER_INSIDE_H
#define SALT_TOKENIZER_INSIDE_H

#include "data/tokenizer/tokenizer.h"

#define MAX_STAGES 16
#define MAX_TOKEN_BYTES 65536u		/* of one token, so that notes and buffers stay small */
#define MAX_ADDED_BYTES 4096u
#define MAX_TEXT_BYTES 0x7fffffffu	/* of one tokenizer_encode: places in a word are 32 bits */

enum token_mark { TOKEN_MODEL = 1, TOKEN_ADDED = 2, TOKEN_SPECIAL = 4, TOKEN_BYTE_LEVEL = 8 };

/* Open addressing, load at most one half; a slot is free where left is UINT32_MAX. */
struct pair_slot {
	uint32_t left, right, rank;
	int32_t id;
};

struct added_token {
	const char *content;		/* of the tokenizer's arena */
	size_t len;
	int32_t id;
	bool special, lstrip, rstrip, normalized;
};

/* Edges of a byte trie in an open-addressed table: (node, byte) -> node. Node 0 is the root; key 0 is a free slot. */
struct trie {
	uint32_t *key, *child;		/* key = (node << 8 | byte) + 1 */
	size_t mask;
	int32_t *token;			/* per node: index into tok->added, or -1 */
	uint32_t n_nodes;
	bool first[256];		/* some token begins with this byte */
};

enum stage_kind { STAGE_SPLIT, STAGE_PREFIX_SPACE };

struct stage {
	enum stage_kind kind;
	const char *pattern;		/* as in the file: identity */
	void *code;			/* pcre2_code of the translated pattern */
};

struct tokenizer {
	struct mem_arena *arena;	/* token bytes, contents, patterns */
	int32_t n_tokens;
	const unsigned char **bytes;	/* [n_tokens] */
	uint32_t *len;			/* [n_tokens] */
	uint8_t *mark;			/* [n_tokens] enum token_mark */
	int32_t byte_id[256];		/* -1: the vocabulary has none */
	struct pair_slot *pair;
	size_t pair_mask;
	uint32_t n_merges;
	int32_t *word;			/* open addressing: ids of TOKEN_BYTE_LEVEL tokens by their bytes; -1 free */
	size_t word_mask;
	struct added_token *added;
	size_t n_added;
	struct trie raw, normalized;	/* added tokens looked for before and after the normaliser */
	struct stage stage[MAX_STAGES];
	size_t n_stages;
	bool nfc, ignore_merges, lossless;
	struct hash128 fingerprint;
	char describe[256];
};

struct cache_entry;
struct merge_scratch;
struct split_scratch;

struct tokenizer_encoder {
	const struct tokenizer *tok;
	unsigned flags;
	struct tokenizer_ids *out;
	struct err_note *note;
	const unsigned char *text;	/* what tokenizer_encode was given: for places in notes */
	size_t text_len;
	int32_t unknown_id;		/* for a byte without a token; -1: none */
	uint64_t n_unknown;
	struct cache_entry *cache;
	struct merge_scratch *merge;
	struct split_scratch *split;
	struct tokenizer_bytes prefixed[MAX_STAGES];
	struct tokenizer_bytes normal;
	int32_t *code_points;		/* of the normaliser */
	size_t code_points_cap;
};

/* vocab.c */
/* Byte-level alphabet (GPT-2's): the text of a token in the file -> its bytes. false: some character is not of the alphabet. */
bool tokenizer__unmap(const char *s, size_t n, unsigned char *out, size_t *out_len);
int tokenizer__words_build(struct tokenizer *tok);			/* word[], byte_id[] from bytes/len/mark. 0 or ENOMEM */
int32_t tokenizer__word_find(const struct tokenizer *tok, const unsigned char *p, size_t n);	/* id or -1 */
int tokenizer__pairs_alloc(struct tokenizer *tok, size_t n_merges);
void tokenizer__pair_put(struct tokenizer *tok, uint32_t left, uint32_t right, uint32_t rank, int32_t id);
int tokenizer__fingerprint(struct tokenizer *tok);			/* 0 or ENOMEM */

static inline const struct pair_slot *
tokenizer__pair_find(const struct tokenizer *tok, uint32_t left, uint32_t right)
{
	uint64_t h = ((uint64_t)left << 32 | right) * UINT64_C(0x9e3779b97f4a7c15);
	size_t i = (size_t)(h >> 32) & tok->pair_mask;

	for (;; i = (i + 1) & tok->pair_mask) {
		const struct pair_slot *s = &tok->pair[i];

		if (s->left == left && s->right == right)
			return s;
		if (s->left == UINT32_MAX)
			return NULL;
	}
}

/* added.c */
int tokenizer__trie_build(struct tokenizer *tok, struct trie *t, bool normalized);	/* 0 or ENOMEM */
void tokenizer__trie_free(struct trie *t);
/* Next added token at or after *at: [*start, *end) of the text is it, white space it strips included; NULL: none. floor: strip
 * no further left than this. Sets *at where the search goes on. */
const struct added_token *tokenizer__added_next(const struct tokenizer *tok, const struct trie *t, unsigned flags,
    const unsigned char *p, size_t n, size_t floor, size_t *at, size_t *start, size_t *end);

/* split.c */
/* @place: where in the JSON, for the note. Returns 0, ERR_UNSUPPORTED, ERR_FORMAT or ENOMEM. */
int tokenizer__stage_split(struct stage *s, const char *pattern, const char *place, const char *name, struct err_note *note);
void tokenizer__stage_free(struct stage *s);
struct split_scratch *tokenizer__split_scratch_new(void);
void tokenizer__split_scratch_destroy(struct split_scratch **s);
/* Cut [p, p+n) (well-formed UTF-8) by stages k.. and give each word to tokenizer__word. */
int tokenizer__split(struct tokenizer_encoder *enc, size_t k, const unsigned char *p, size_t n);

/* normal.c */
/* NFC of [p, p+n) (well-formed UTF-8): *out points at p itself where that is normal already, else into enc->normal. */
int tokenizer__nfc(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, const unsigned char **out, size_t *out_len);

/* bpe.c */
struct merge_scratch *tokenizer__merge_scratch_new(void);
void tokenizer__merge_scratch_destroy(struct merge_scratch **m);
struct cache_entry *tokenizer__cache_new(void);
int tokenizer__word(struct tokenizer_encoder *enc, const unsigned char *p, size_t n);	/* appends its ids */

/* encode.c */
/* Length of the well-formed UTF-8 sequence at p, 0 if there is none (n > 0). */
size_t tokenizer__utf8_len(const unsigned char *p, size_t n);
int tokenizer__bytes_reserve(struct tokenizer_bytes *b, size_t more);
int tokenizer__ids_reserve(struct tokenizer_ids *ids, size_t more);

#endif
