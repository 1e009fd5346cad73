/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Declarations shared by the files of tokenizer.
 *
 *   load.c        tokenizer.json -> struct tokenizer     split.c    the stages: a text -> words
 *   load_steps.c  its normaliser and pre-tokenizer       regex.c    patterns compiled and matched by PCRE2
 *   template.c    its post-processor                     normal.c   the normaliser's steps
 *   precompiled.c SentencePiece's normaliser, a table of replacements
 *   oniguruma.c   translates Oniguruma's patterns for PCRE2
 *   spm.c         SentencePiece's models -> JSON         unicode.c  classes of characters
 *   vocab.c       tables of tokens and merges            bpe.c      a word -> ids, cached
 *   added.c       added tokens in a text                 unigram.c  a word -> ids by the best sum of scores
 *   encode.c      all steps for a text, in order         decode.c   the decoder: ids -> text
 */
#ifndef SALT_TOKENIZER_INSIDE_H
#define SALT_TOKENIZER_INSIDE_H

#include "data/tokenizer/tokenizer.h"

#define MAX_STAGES 16
#define MAX_NORMALS 16
#define MAX_DECODE 8
#define MAX_TOKEN_BYTES 65536u		/* longest token, so that notes and buffers stay small */
#define MAX_ADDED_BYTES 4096u
#define MAX_TEXT_BYTES 0x7fffffffu	/* longest text, because positions in a word have 32 bits */

enum token_mark { TOKEN_MODEL = 1, TOKEN_ADDED = 2, TOKEN_SPECIAL = 4, TOKEN_BYTE_LEVEL = 8 };

/* A slot of an open-addressed table that is at most half full. left is UINT32_MAX in a free slot. */
struct pair_slot {
	uint32_t left, right, rank;
	int32_t id;
};

struct added_token {
	const char *content;		/* in the tokenizer's arena */
	size_t len;
	const char *find;		/* the bytes to search for: the content, normalised if `normalized` */
	size_t find_len;
	int32_t id;
	bool special, lstrip, rstrip, normalized, single_word;
};

/*
 * Edges of a byte trie in an open-addressed table: (node, byte) -> node. Node 0: the root; key 0: a free
 * slot.
 */
struct trie {
	uint32_t *key, *child;		/* key = (node << 8 | byte) + 1 */
	size_t mask;
	int32_t *token;			/* for each node: index into tok->added or a token id, or -1 */
	uint32_t n_nodes;
	bool first[256];		/* whether some token begins with this byte */
};

/*
 * MODEL_BYTES: BPE whose first symbols are bytes; tokens are stored as bytes, not in the byte-level alphabet.
 * MODEL_CHARS: BPE whose first symbols are characters, as in SentencePiece. MODEL_UNIGRAM: characters too,
 * and the segmentation with the largest sum of scores.
 */
enum model_kind { MODEL_BYTES, MODEL_CHARS, MODEL_UNIGRAM };

/*
 * A pre-tokenizer is a list of stages. Each gets one part of the text at a time and passes its pieces, in
 * order, to the next stage; the last one passes words to the model. The numbers are part of the fingerprint.
 */
enum stage_kind {
	STAGE_SPLIT,			/* splits at matches of a pattern, or at characters of a class */
	STAGE_PREFIX_SPACE,		/* puts a space before a part that does not begin with one */
	STAGE_WORDS,			/* Whitespace: runs of word characters, of others; drops spaces */
	STAGE_BYTE_MAP,			/* bytes -> byte-level alphabet, if stages follow ByteLevel */
	STAGE_METASPACE			/* replaces spaces; may prepend one, and split before each */
};

/* What happens to the matches; "previous" and "next" are the neighbouring pieces that are not matches. */
enum behavior { BEHAVIOR_ISOLATED, BEHAVIOR_REMOVED, BEHAVIOR_MERGED_PREVIOUS, BEHAVIOR_MERGED_NEXT, BEHAVIOR_CONTIGUOUS };

enum prepend_scheme { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };

struct stage {
	enum stage_kind kind;
	enum behavior behavior;
	bool invert;			/* matches and the text between them are exchanged */
	bool may_be_empty;		/* the pattern can match an empty string */
	const char *pattern;		/* as in the file, or a name for it; part of the fingerprint */
	struct regex *regex;		/* the compiled pattern; NULL: characters of `chars` */
	unsigned chars;			/* enum char_class */
	enum prepend_scheme prepend;	/* for STAGE_METASPACE, whose pattern is its character */
	bool split;
};

/* The normaliser is a list of steps; each works on a whole part of the text. */
enum normal_kind { NORMAL_NFC, NORMAL_NFD, NORMAL_NFKC, NORMAL_NFKD, NORMAL_LOWERCASE, NORMAL_STRIP, NORMAL_STRIP_ACCENTS, NORMAL_REPLACE,
	NORMAL_PREPEND, NORMAL_PRECOMPILED, NORMAL_SENTENCEPIECE };

struct normal_step {
	enum normal_kind kind;
	/*
	 * NORMAL_STRIP: the sides. NORMAL_SENTENCEPIECE: left puts a space before the text; right makes runs
	 * of spaces one and removes those at the ends.
	 */
	bool left, right;
	const char *pattern, *content;	/* NORMAL_REPLACE (a regular expression, text), NORMAL_PREPEND */
	size_t content_len;
	struct regex *regex;
	/* NORMAL_PRECOMPILED, NORMAL_SENTENCEPIECE (or NULL): the trie; its values are offsets in content */
	const uint32_t *units;
	size_t n_units;
	const char *literal;		/* the pattern's bytes if it is plain text; else NULL */
	size_t literal_len;
};

enum decode_kind { DECODE_REPLACE, DECODE_BYTE_FALLBACK, DECODE_FUSE, DECODE_STRIP, DECODE_METASPACE, DECODE_JOIN_SPACE };

/*
 * A step of the decoder of MODEL_CHARS and MODEL_UNIGRAM, with Hugging Face's name. JOIN_SPACE is used for a
 * file without decoder.
 */
struct decode_step {
	enum decode_kind kind;
	const char *from, *to;		/* Replace: text and content; Strip, Metaspace: from is the character */
	uint32_t start, stop;		/* Strip: most characters to remove at the start, at the end */
	bool drop_first;		/* Metaspace: remove the character from the first token */
};

struct tokenizer {
	struct mem_arena *arena;	/* token bytes, contents, patterns */
	int32_t n_tokens;
	const unsigned char **bytes;	/* [n_tokens] */
	uint32_t *len;			/* [n_tokens] */
	uint8_t *mark;			/* [n_tokens] enum token_mark */
	enum model_kind model;
	/* id of each byte, or -1. MODEL_BYTES: its token; else <0x00>..<0xFF> with byte_fallback */
	int32_t byte_id[256];
	int32_t ascii_id[128];		/* not MODEL_BYTES: id of each ASCII character, or -1 */
	int32_t unk_id;			/* not MODEL_BYTES: -1 is none */
	bool fuse_unk;
	/*
	 * bit b of joins[a]: a token may have a character that ends with byte a before one that begins with b
	 */
	uint32_t joins[256][8];
	bool joins_space[256];		/* the same if the next character is U+2581 */
	bool may_cut, all_bytes;	/* words may be cut where no token joins; every byte has a byte_id */
	double *score, unk_score;	/* MODEL_UNIGRAM: [n_tokens] */
	struct trie pieces;		/* MODEL_UNIGRAM: its tokens */
	struct decode_step decode[MAX_DECODE];	/* not MODEL_BYTES */
	size_t n_decode;
	const unsigned char **shown;	/* [n_tokens] bytes within a decoded text; MODEL_BYTES: bytes, len */
	uint32_t *shown_len;
	struct pair_slot *pair;
	size_t pair_mask;
	/* bits set by the hashes of all pairs: most lookups find no pair, and the table is large */
	uint64_t *pair_seen;
	unsigned pair_shift;
	uint32_t n_merges;
	/* open-addressed: ids of model tokens (MODEL_BYTES: TOKEN_BYTE_LEVEL) by their bytes; -1: free */
	int32_t *word;
	size_t word_mask;
	struct added_token *added;
	size_t n_added;
	struct trie raw, normalized;	/* added tokens to find before and after the normaliser */
	struct stage stage[MAX_STAGES];
	size_t n_stages;
	struct normal_step normal[MAX_NORMALS];
	size_t n_normals;
	bool ignore_merges, lossless;
	bool mapped;			/* words are in the byte-level alphabet, not bytes */
	struct tokenizer_template template;
	const char *template_not;	/* the unsupported post_processor; NULL: template is valid */
	size_t n_renumbered;		/* added tokens whose id differs from the file's */
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
	const unsigned char *text;	/* the text of tokenizer_encode, for offsets in notes */
	size_t text_len;
	int32_t unknown_id;		/* replaces a byte without a token; -1: none */
	uint64_t n_unknown;
	struct cache_entry *cache;
	struct merge_scratch *merge;
	struct regex_scratch *regex;
	struct unigram_scratch *unigram;
	bool first;			/* the current part begins the text, or follows invalid bytes */
	struct tokenizer_bytes changed[MAX_STAGES];	/* output of PREFIX_SPACE, BYTE_MAP, METASPACE */
	struct tokenizer_bytes unmapped;
	struct tokenizer_bytes normal[2];	/* steps read one and write the other */
	int32_t *code_points;		/* scratch of the normaliser */
	size_t code_points_cap;
};

/* vocab.c */
/*
 * Converts the text of a token from GPT-2's byte-level alphabet to its bytes; out: [n]. false: some character
 * is not in the alphabet.
 */
bool tokenizer__unmap(const char *s, size_t n, unsigned char *out, size_t *out_len);
/* The inverse; out: [2n]. Returns the length. */
size_t tokenizer__map(const unsigned char *p, size_t n, unsigned char *out);
int tokenizer__words_build(struct tokenizer *tok);	/* makes word and byte_id. 0 or ENOMEM */
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
/* total: bytes of all keys. 0, ENOMEM, ERR_RANGE: 16 MiB or more */
int tokenizer__trie_alloc(struct trie *t, size_t total);
/* Sets the value of a key and returns its previous value, -1 for none. */
int32_t tokenizer__trie_put(struct trie *t, const unsigned char *p, size_t n, int32_t value);

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
 * Finds the next valid match at or after *at. [*start, *end) is the token with the white space that it
 * strips. *at becomes the end of the match itself, so that the white space stripped on its right is searched
 * too, as in Hugging Face's library. NULL: no match. floor: white space before it is not stripped.
 */
const struct added_token *tokenizer__added_next(const struct tokenizer *tok, const struct trie *t, unsigned flags,
    const unsigned char *p, size_t n, size_t floor, size_t *at, size_t *start, size_t *end);

/* regex.c: patterns in Oniguruma's syntax. */
struct regex;
/*
 * @place: in the JSON, for the note. *re is NULL after a failure. Returns 0, ERR_UNSUPPORTED, ERR_FORMAT or
 * ENOMEM.
 */
int tokenizer__regex_compile(struct regex **re, bool *may_be_empty, const char *pattern, const char *place, const char *name,
    struct err_note *note);
/* Whether its matches cover any text completely. false: not always, or unknown. */
bool tokenizer__regex_covers(const char *pattern);
void tokenizer__regex_free(struct regex **re);
struct regex_scratch;
struct regex_scratch *tokenizer__regex_scratch_new(void);
void tokenizer__regex_scratch_destroy(struct regex_scratch **s);
/* The matcher to use for [p, p+n) (well-formed UTF-8); valid as long as re. */
struct matcher;
const struct matcher *tokenizer__regex_for(const struct regex *re, const unsigned char *p, size_t n);
/*
 * Finds the first match at or after `at`: [*from, *to). slot: index of the match data, below MAX_STAGES.
 * Returns 0, ERR_NOT_FOUND, or an error with a note.
 */
int tokenizer__regex_next(struct tokenizer_encoder *enc, size_t slot, const struct matcher *m, const char *pattern,
    const unsigned char *p, size_t n, size_t at, size_t *from, size_t *to);

/* split.c */
/* Splits [p, p+n) (well-formed UTF-8) by the stages from k on and passes each word to tokenizer__word. */
int tokenizer__split(struct tokenizer_encoder *enc, size_t k, const unsigned char *p, size_t n);

/* normal.c */
/*
 * Applies all steps to [p, p+n) (well-formed UTF-8). *out points into p, or into enc->normal after changes.
 */
int tokenizer__normalize(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, const unsigned char **out, size_t *out_len);

/* precompiled.c: SentencePiece's table of characters (precompiled_charsmap), in base64. */
int tokenizer__precompiled_load(struct tokenizer *tok, struct normal_step *s, const char *base64, const char **expected);
int tokenizer__precompiled(const struct normal_step *s, const unsigned char *p, size_t n, struct tokenizer_bytes *b, size_t max,
    bool *same);		/* *same: nothing was replaced. EFBIG: more than max bytes */
int tokenizer__sentencepiece(const struct normal_step *s, const unsigned char *p, size_t n, struct tokenizer_bytes *b, size_t max);

/* unicode.c */
/* Each as in the part of Hugging Face's library that uses it: their Unicode versions differ (README.md). */
enum char_class {
	CHAR_PUNCT = 1,			/* Punctuation */
	CHAR_NUMERIC = 2,		/* Digits */
	CHAR_WORD = 4,			/* Whitespace, and single_word of added tokens */
	CHAR_MARK = 8,			/* StripAccents */
	CHAR_SPACE = 16,		/* White_Space */
	CHAR_INERT = 32			/* newer than the normal forms' tables; they leave it unchanged */
};
unsigned tokenizer__char_class(uint32_t c);
uint32_t tokenizer__lower_new(uint32_t c);	/* lower case of a letter that utf8proc may lack, else 0 */
/*
 * The code points of this general category (two letters) or script that PCRE2 may lack, as text for a class,
 * and the category's or script's name in PCRE2. NULL: no such name.
 */
const char *tokenizer__new_of(const char *p, size_t n, const char **name, bool *script);

/* template.c */
/*
 * Reads the file's post_processor into tok->template. An unsupported one is an error only in
 * tokenizer_get_template. Returns 0 or ENOMEM.
 */
struct json;
int tokenizer__load_template(struct tokenizer *tok, const struct json *post_processor);

/* bpe.c */
struct merge_scratch *tokenizer__merge_scratch_new(void);
void tokenizer__merge_scratch_destroy(struct merge_scratch **m);
struct cache_entry *tokenizer__cache_new(void);
int tokenizer__word(struct tokenizer_encoder *enc, const unsigned char *p, size_t n);	/* appends its ids */
/* For bytes at p without a token or substitute: an id, an error or nothing, as the encoder is configured. */
int tokenizer__no_token(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, int32_t *ids, size_t *n_ids);
/* Makes joins, may_cut, all_bytes and ascii_id from the vocabulary and the merges. */
void tokenizer__joins_build(struct tokenizer *tok);
/* The length of the first part of [p, p+n) whose end no token crosses, at most n. */
size_t tokenizer__cut(const struct tokenizer *tok, const unsigned char *p, size_t n);

/* unigram.c */
/* Makes pieces and unk_score. 0, ENOMEM, ERR_RANGE: 16 MiB of tokens or more */
int tokenizer__unigram_build(struct tokenizer *tok);
void tokenizer__unigram_scratch_destroy(struct unigram_scratch **s);
int tokenizer__unigram_word(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, struct tokenizer_ids *out);

/* decode.c */
int tokenizer__shown_build(struct tokenizer *tok);		/* makes shown. 0 or ENOMEM */

/* encode.c */
/* The length of the well-formed UTF-8 sequence at p, 0 if there is none. n must be above 0. */
size_t tokenizer__utf8_len(const unsigned char *p, size_t n);
uint32_t tokenizer__utf8_decode(const unsigned char *p, size_t len);	/* one well-formed sequence */
int tokenizer__bytes_reserve(struct tokenizer_bytes *b, size_t more);
int tokenizer__ids_reserve(struct tokenizer_ids *ids, size_t more);

#endif
