/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of tokenizer share.
 *
 *   load.c        tokenizer.json -> struct tokenizer     split.c    the stages: a text -> words
 *   load_steps.c  its normaliser and pre-tokenizer       regex.c    patterns compiled and matched by PCRE2
 *   template.c    its post-processor                     normal.c   the normaliser's steps
 *   precompiled.c SentencePiece's normaliser, a table of replacements
 *   oniguruma.c   translates Oniguruma's patterns for PCRE2
 *   spm.c         SentencePiece's models as such files   unicode.c  classes of characters
 *   vocab.c       tables of tokens and merges            bpe.c      a word -> ids, cached
 *   added.c       added tokens in a text                 unigram.c  a word -> ids by the best sum of scores
 *   encode.c      all steps for a text, in order         decode.c   the decoder's steps, read and applied: ids -> text
 */
#ifndef SALT_TOKENIZER_INSIDE_H
#define SALT_TOKENIZER_INSIDE_H

#include "data/tokenizer/tokenizer.h"

#define MAX_STAGES 16
#define MAX_NORMALS 16
#define MAX_DECODE 8
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
	const char *find;		/* what a text is searched for: the content, normalised if `normalized` */
	size_t find_len;
	int32_t id;
	bool special, lstrip, rstrip, normalized, single_word;
};

/* Edges of a byte trie in an open-addressed table: (node, byte) -> node. Node 0 is the root; key 0 is a free slot. */
struct trie {
	uint32_t *key, *child;		/* key = (node << 8 | byte) + 1 */
	size_t mask;
	int32_t *token;			/* per node: index into tok->added or a token id, or -1 */
	uint32_t n_nodes;
	bool first[256];		/* some token begins with this byte */
};

/*
 * MODEL_BYTES: BPE whose first symbols are bytes, tokens stand unmapped from the byte-level alphabet.
 * MODEL_CHARS: BPE whose first symbols are characters, as SentencePiece. MODEL_UNIGRAM: likewise, the
 * segmentation with the largest sum of scores.
 */
enum model_kind { MODEL_BYTES, MODEL_CHARS, MODEL_UNIGRAM };

/*
 * A pre-tokenizer is a list of stages. Each gets one part of the text at a time and hands its pieces, in
 * order, to the next; the last hands words to the model. The numbers are part of the fingerprint.
 */
enum stage_kind {
	STAGE_SPLIT,			/* at the matches of a regular expression, or of single characters of a class */
	STAGE_PREFIX_SPACE,		/* puts a space before a part that does not begin with one */
	STAGE_WORDS,			/* Whitespace: runs of word characters, runs of others; white space is left out */
	STAGE_BYTE_MAP,			/* bytes -> the byte-level alphabet: where stages follow ByteLevel */
	STAGE_METASPACE			/* a character for each space, and maybe before the part; maybe words that begin with it */
};

/* What becomes of the matches; "previous" and "next" are the neighbouring pieces that are no matches. */
enum behavior { BEHAVIOR_ISOLATED, BEHAVIOR_REMOVED, BEHAVIOR_MERGED_PREVIOUS, BEHAVIOR_MERGED_NEXT, BEHAVIOR_CONTIGUOUS };

enum prepend_scheme { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };

struct stage {
	enum stage_kind kind;
	enum behavior behavior;
	bool invert;			/* matches and the text between them change places */
	bool may_be_empty;		/* the pattern can match nothing at all */
	const char *pattern;		/* as in the file, or what stands for it: identity */
	struct regex *regex;		/* of the pattern; NULL: characters of `chars` */
	unsigned chars;			/* enum char_class */
	enum prepend_scheme prepend;	/* of STAGE_METASPACE, whose pattern is its character */
	bool split;
};

/* The normaliser is a list of steps, each over a whole part of the text. */
enum normal_kind { NORMAL_NFC, NORMAL_NFD, NORMAL_NFKC, NORMAL_NFKD, NORMAL_LOWERCASE, NORMAL_STRIP, NORMAL_STRIP_ACCENTS, NORMAL_REPLACE,
	NORMAL_PREPEND, NORMAL_PRECOMPILED, NORMAL_SENTENCEPIECE };

struct normal_step {
	enum normal_kind kind;
	bool left, right;		/* of NORMAL_STRIP; NORMAL_SENTENCEPIECE: a space before the text; runs of spaces are one, none at the ends */
	const char *pattern, *content;	/* of NORMAL_REPLACE, NORMAL_PREPEND (content); the pattern is a regular expression */
	size_t content_len;
	struct regex *regex;
	const uint32_t *units;		/* of NORMAL_PRECOMPILED, NORMAL_SENTENCEPIECE (maybe none): the trie; content is what its values index */
	size_t n_units;
	const char *literal;		/* NULL, or the bytes that the pattern stands for */
	size_t literal_len;
};

enum decode_kind { DECODE_REPLACE, DECODE_BYTE_FALLBACK, DECODE_FUSE, DECODE_STRIP, DECODE_METASPACE, DECODE_JOIN_SPACE };

/*
 * A step of a decoder for MODEL_CHARS and MODEL_UNIGRAM, as Hugging Face's of that name; JOIN_SPACE: a file
 * without decoder.
 */
struct decode_step {
	enum decode_kind kind;
	const char *from, *to;		/* Replace: text and content; Strip, Metaspace: from is the character */
	uint32_t start, stop;		/* Strip: at most so many characters at either end */
	bool drop_first;		/* Metaspace: none in the first token */
};

struct tokenizer {
	struct mem_arena *arena;	/* token bytes, contents, patterns */
	int32_t n_tokens;
	const unsigned char **bytes;	/* [n_tokens] */
	uint32_t *len;			/* [n_tokens] */
	uint8_t *mark;			/* [n_tokens] enum token_mark */
	enum model_kind model;
	int32_t byte_id[256];		/* MODEL_BYTES: of each byte; else with byte_fallback of <0x00>..<0xFF>; -1: the vocabulary has none */
	int32_t ascii_id[128];		/* not MODEL_BYTES: of each ASCII character, or -1 */
	int32_t unk_id;			/* not MODEL_BYTES: -1 is none */
	bool fuse_unk;
	uint32_t joins[256][8];		/* bit b of joins[a]: some token may hold byte a, end of a character, and b, start of the next */
	bool joins_space[256];		/* likewise, the next is U+2581 */
	bool may_cut, all_bytes;	/* words may be cut where nothing joins; each byte has a byte_id */
	double *score, unk_score;	/* MODEL_UNIGRAM: [n_tokens] */
	struct trie pieces;		/* MODEL_UNIGRAM: its tokens */
	struct decode_step decode[MAX_DECODE];	/* not MODEL_BYTES */
	size_t n_decode;
	const unsigned char **shown;	/* [n_tokens] what a token is in the middle of decoded text; MODEL_BYTES: bytes and len */
	uint32_t *shown_len;
	struct pair_slot *pair;
	size_t pair_mask;
	uint64_t *pair_seen;		/* a bit for some bits of the hash of each pair: most pairs have none, and the table is large */
	unsigned pair_shift;
	uint32_t n_merges;
	int32_t *word;			/* open addressing: ids of TOKEN_BYTE_LEVEL tokens by their bytes; -1 free */
	size_t word_mask;
	struct added_token *added;
	size_t n_added;
	struct trie raw, normalized;	/* added tokens looked for before and after the normaliser */
	struct stage stage[MAX_STAGES];
	size_t n_stages;
	struct normal_step normal[MAX_NORMALS];
	size_t n_normals;
	bool ignore_merges, lossless;
	bool mapped;			/* words come in the byte-level alphabet, not as bytes */
	struct tokenizer_template template;
	const char *template_not;	/* why it is not known; NULL: it is */
	size_t n_renumbered;		/* added tokens with another id than the file states */
	struct hash128 fingerprint;
	char describe[256];
};

struct cache_entry;
struct merge_scratch;
struct regex_scratch;
struct unigram_scratch;

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
	struct regex_scratch *regex;
	struct unigram_scratch *unigram;
	bool first;			/* the part at hand begins where the text does, or the stretch after invalid bytes */
	struct tokenizer_bytes changed[MAX_STAGES];	/* text of STAGE_PREFIX_SPACE, STAGE_BYTE_MAP, STAGE_METASPACE */
	struct tokenizer_bytes unmapped;
	struct tokenizer_bytes normal[2];	/* the steps write to one and read the other */
	int32_t *code_points;		/* of the normaliser */
	size_t code_points_cap;
};

/* vocab.c */
/*
 * Byte-level alphabet (GPT-2's): the text of a token in the file -> its bytes. false: some character is not
 * of the alphabet.
 */
bool tokenizer__unmap(const char *s, size_t n, unsigned char *out, size_t *out_len);
size_t tokenizer__map(const unsigned char *p, size_t n, unsigned char *out);	/* out: room for 2n; returns its length */
int tokenizer__words_build(struct tokenizer *tok);			/* word[], byte_id[] from bytes/len/mark. 0 or ENOMEM */
int32_t tokenizer__word_find(const struct tokenizer *tok, const unsigned char *p, size_t n);	/* id or -1 */
int tokenizer__pairs_alloc(struct tokenizer *tok, size_t n_merges);
void tokenizer__pair_put(struct tokenizer *tok, uint32_t left, uint32_t right, uint32_t rank, int32_t id);
int tokenizer__fingerprint(struct tokenizer *tok);			/* 0 or ENOMEM */

static inline const struct pair_slot *
tokenizer__pair_find(const struct tokenizer *tok, uint32_t left, uint32_t right)
{
	uint64_t h = ((uint64_t)left << 32 | right) * UINT64_C(0x9e3779b97f4a7c15);
	size_t i = (size_t)(h >> 32) & tok->pair_mask, seen = (size_t)(h >> tok->pair_shift);

	if ((tok->pair_seen[seen / 64] >> seen % 64 & 1) == 0)
		return NULL;
	for (;; i = (i + 1) & tok->pair_mask) {
		const struct pair_slot *s = &tok->pair[i];

		if (s->left == left && s->right == right)
			return s;
		if (s->left == UINT32_MAX)
			return NULL;
	}
}

/* added.c */
int tokenizer__trie_alloc(struct trie *t, size_t total);		/* total: bytes of all keys. 0, ENOMEM, ERR_RANGE: over 16 MiB */
int32_t tokenizer__trie_put(struct trie *t, const unsigned char *p, size_t n, int32_t value);	/* returns what was there: -1, nothing */

static inline size_t
tokenizer__trie_slot(const struct trie *t, uint32_t node, unsigned char byte)
{
	uint32_t key = (node << 8 | byte) + 1;
	size_t i = (size_t)(key * 0x9e3779b1u) & t->mask;

	while (t->key[i] != 0 && t->key[i] != key)
		i = (i + 1) & t->mask;
	return i;
}

int tokenizer__trie_build(struct tokenizer *tok, struct trie *t, bool normalized);	/* 0, ENOMEM, ERR_RANGE, ERR_FORMAT */
void tokenizer__trie_free(struct trie *t);
/*
 * The next match at or after *at that counts: [*start, *end) of the text is the token with the white space it
 * strips; *at is then the end of the match itself, so that white space stripped on its right is searched too,
 * as Hugging Face's library does. NULL:
 * none. floor: strip no further left than this.
 */
const struct added_token *tokenizer__added_next(const struct tokenizer *tok, const struct trie *t, unsigned flags,
    const unsigned char *p, size_t n, size_t floor, size_t *at, size_t *start, size_t *end);

/* regex.c: a pattern as Oniguruma reads it. */
struct regex;
/* @place: where in the JSON, for the note. re: NULL on failure. Returns 0, ERR_UNSUPPORTED, ERR_FORMAT or ENOMEM. */
int tokenizer__regex_compile(struct regex **re, bool *may_be_empty, const char *pattern, const char *place, const char *name,
    struct err_note *note);
/* Its matches leave no text between them, whatever the text. false: they may, or it cannot be told. */
bool tokenizer__regex_covers(const char *pattern);
void tokenizer__regex_free(struct regex **re);
struct regex_scratch;
struct regex_scratch *tokenizer__regex_scratch_new(void);
void tokenizer__regex_scratch_destroy(struct regex_scratch **s);
/* What finds the matches in [p, p+n) (well-formed UTF-8), as long as re. */
struct matcher;
const struct matcher *tokenizer__regex_for(const struct regex *re, const unsigned char *p, size_t n);
/*
 * First match at or after `at` into *from, *to; slot: of MAX_STAGES matches at once. Returns 0,
 * ERR_NOT_FOUND, or an error with a note.
 */
int tokenizer__regex_next(struct tokenizer_encoder *enc, size_t slot, const struct matcher *m, const char *pattern,
    const unsigned char *p, size_t n, size_t at, size_t *from, size_t *to);

/* split.c */
/* Cut [p, p+n) (well-formed UTF-8) by stages k.. and give each word to tokenizer__word. */
int tokenizer__split(struct tokenizer_encoder *enc, size_t k, const unsigned char *p, size_t n);

/* normal.c */
/* All steps on [p, p+n) (well-formed UTF-8): *out points at p itself where nothing changes, else into enc->normal. */
int tokenizer__normalize(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, const unsigned char **out, size_t *out_len);

/* precompiled.c: SentencePiece's table of characters (precompiled_charsmap), in base64. */
int tokenizer__precompiled_load(struct tokenizer *tok, struct normal_step *s, const char *base64, const char **expected);
int tokenizer__precompiled(const struct normal_step *s, const unsigned char *p, size_t n, struct tokenizer_bytes *b, size_t max,
    bool *same);		/* EFBIG: more than max bytes */
int tokenizer__sentencepiece(const struct normal_step *s, const unsigned char *p, size_t n, struct tokenizer_bytes *b, size_t max);

/* unicode.c */
/* Each as the part of Hugging Face's library that asks has it: their Unicode versions differ (README.md). */
enum char_class {
	CHAR_PUNCT = 1,			/* Punctuation */
	CHAR_NUMERIC = 2,		/* Digits */
	CHAR_WORD = 4,			/* Whitespace, and single_word of added tokens */
	CHAR_MARK = 8,			/* StripAccents */
	CHAR_SPACE = 16,		/* White_Space */
	CHAR_INERT = 32			/* the normal forms leave it alone, as newer than their tables */
};
unsigned tokenizer__char_class(uint32_t c);
uint32_t tokenizer__lower_new(uint32_t c);	/* lower case of letters that utf8proc may not know; 0: not one of these */
/*
 * In-class text of the code points with this general category (two letters) or script that PCRE2 may not
 * know, and its name there;
 * NULL: no such name.
 */
const char *tokenizer__new_of(const char *p, size_t n, const char **name, bool *script);

/* template.c */
/*
 * The file's post_processor into tok->template. What is not known is no error until someone asks for it. 0 or
 * ENOMEM.
 */
struct json;
int tokenizer__load_template(struct tokenizer *tok, const struct json *post_processor);

/* bpe.c */
struct merge_scratch *tokenizer__merge_scratch_new(void);
void tokenizer__merge_scratch_destroy(struct merge_scratch **m);
struct cache_entry *tokenizer__cache_new(void);
int tokenizer__word(struct tokenizer_encoder *enc, const unsigned char *p, size_t n);	/* appends its ids */
/* The bytes at p have no token and nothing stands for them: an id, an error, or nothing, as the encoder is set. */
int tokenizer__no_token(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, int32_t *ids, size_t *n_ids);
void tokenizer__joins_build(struct tokenizer *tok);		/* joins, may_cut, all_bytes, ascii_id from the vocabulary and merges */
/* Length of the part of [p, p+n) that no token crosses the end of, n at most. */
size_t tokenizer__cut(const struct tokenizer *tok, const unsigned char *p, size_t n);

/* unigram.c */
int tokenizer__unigram_build(struct tokenizer *tok);		/* pieces, unk_score. 0, ENOMEM, ERR_RANGE: over 16 MiB of tokens */
void tokenizer__unigram_scratch_destroy(struct unigram_scratch **s);
int tokenizer__unigram_word(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, struct tokenizer_ids *out);

/* decode.c */
int tokenizer__shown_build(struct tokenizer *tok);		/* 0 or ENOMEM */

/* encode.c */
/* Length of the well-formed UTF-8 sequence at p, 0 if there is none (n > 0). */
size_t tokenizer__utf8_len(const unsigned char *p, size_t n);
uint32_t tokenizer__utf8_decode(const unsigned char *p, size_t len);	/* of one well-formed sequence */
int tokenizer__bytes_reserve(struct tokenizer_bytes *b, size_t more);
int tokenizer__ids_reserve(struct tokenizer_ids *ids, size_t more);

#endif
