/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer - bytes <-> token ids, according to a Hugging Face tokenizer.json (BPE over bytes or characters, Unigram).
 *
 * One struct tokenizer is loaded once, never changes and is shared by all threads. Each thread that encodes has its own
 * struct tokenizer_encoder: the regular expressions' scratch memory and a cache of words already cut into
 * ids. Ids never depend on what the encoder processed before.
 *
 * Steps of encoding: cut out what is not UTF-8 -> added tokens -> normaliser -> split into words -> the model per word.
 *
 *   Invalid bytes      The text is cut at every maximal run of bytes that belong to no well-formed UTF-8 sequence. A run is
 *                      a word of its own, given to BPE unchanged; each stretch between is encoded by itself.
 *   Added tokens       Those marked special are recognised only with TOKENIZER_SPECIALS: a corpus is plain text, and
 *                      "<|endoftext|>" in it is thirteen characters. The others are always recognised (Hugging Face:
 *                      encode_special_tokens = True does the same; its default is TOKENIZER_SPECIALS).
 *   post_processor     (BOS and the like), truncation and padding are not applied; see tokenizer_get_template.
 *
 * Where tokenizer_is_lossless() holds, decode(encode(x)) = x for any bytes x.
 */
#ifndef SALT_TOKENIZER_H
#define SALT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"
#include "base/hash/hash.h"

#define TOKENIZER_MAX_FILE_BYTES (256u << 20)
#define TOKENIZER_MAX_VOCAB (1u << 22)		/* ids, added tokens included */
#define TOKENIZER_MAX_MERGES (1u << 22)

struct tokenizer;
struct tokenizer_encoder;

/*
 * Growing arrays, zeroed by the caller ({0}); the calls append. free(x.ids), free(x.bytes) when done; set n
 * to 0 to use again.
 */
struct tokenizer_ids {
	int32_t *ids;
	size_t n, cap;
};

struct tokenizer_bytes {
	unsigned char *bytes;
	size_t n, cap;
};

/* Ids around one text. */
struct tokenizer_template {
	const int32_t *before, *after;
	size_t n_before, n_after;
};

enum tokenizer_flags {
	TOKENIZER_SPECIALS = 1,		/* encode: recognise special tokens in the text */
	TOKENIZER_DROP_UNKNOWN = 2,	/* encode: leave out bytes that have no token, as Hugging Face does, and count them */
	TOKENIZER_SKIP_SPECIALS = 4	/* decode: leave special tokens out */
};

/*
 * tokenizer_load, tokenizer_parse - from a file, from its text (@name stands in notes). A path that ends in
 * .model is that of a SentencePiece model.
 * Return 0 and *tok (tokenizer_destroy it); on failure *tok is NULL, the note has the place in the JSON and
 * what was expected:
 * ERR_FORMAT (not JSON, wrong types, an id twice, a merge of unknown tokens), ERR_RANGE (over a cap above),
 * ERR_UNSUPPORTED (valid, but nothing that README.md describes), ENOMEM, or errno.
 */
int tokenizer_load(struct tokenizer **tok, const char *path, struct err_note *note);
int tokenizer_parse(struct tokenizer **tok, const char *text, size_t len, const char *name, struct err_note *note);
void tokenizer_destroy(struct tokenizer **tok);		/* takes NULL; no encoder of it may be in use any more */

/*
 * tokenizer_model_json - the tokenizer.json that a SentencePiece model (tokenizer.model) is, as Hugging
 * Face's library reads it; with a table of characters or remove_extra_whitespaces as sentencepiece reads it, with
 * a normaliser that only this module knows. json_close *root. Returns 0; ERR_FORMAT, ERR_RANGE with the place in the file or
 * the piece; ERR_UNSUPPORTED: spaces not escaped or put behind words, user-defined or unused pieces with the
 * latter normaliser, models other than BPE and Unigram; ENOMEM or errno.
 */
struct json;
int tokenizer_model_json(const char *path, struct json **root, struct err_note *note);

/*
 * tokenizer_vocab_size - n: ids are 0..n-1. A few may have no token (holes in the file's ids): they decode to
 * nothing, as in Hugging Face's library. A model's vocab_size may be larger, never smaller.
 */
int32_t tokenizer_vocab_size(const struct tokenizer *tok);

/*
 * tokenizer_fingerprint - over all that changes ids or bytes (vocabulary, merges, normaliser, split, added
 * tokens), not the file's formatting, its order of keys, or the parts not applied.
 */
struct hash128 tokenizer_fingerprint(const struct tokenizer *tok);

/*
 * tokenizer_identify - what the tokenizer.json at path is compared by, where no text is encoded:
 * tokenizer_fingerprint of a file that can be loaded; of another (a kind that is not supported, larger than
 * the limits) the xxh3-128 of its bytes.
 * @why  "" if the file can be loaded, else why not, as tokenizer_load says it, cut to size bytes.
 * Returns 0; ERR_FORMAT: not a JSON object at all, so damaged or another kind of file; ENOMEM or errno.
 */
int tokenizer_identify(const char *path, struct hash128 *id, char *why, size_t size, struct err_note *note);

/*
 * tokenizer_is_lossless - no normaliser, no prefix space, no step that leaves text out, and a token for each
 * of the 256 bytes. A Split that keeps only its matches leaves nothing out where each character can be shown
 * to have one. Of text without TOKENIZER_SPECIALS.
 */
bool tokenizer_is_lossless(const struct tokenizer *tok);

/* tokenizer_describe - the split and normaliser in one line for `tokenizer info`; as long as the tokenizer. */
const char *tokenizer_describe(const struct tokenizer *tok);

/*
 * tokenizer_token - the bytes of one id (not NUL-terminated, maybe not UTF-8), as long as the tokenizer.
 * Returns 0 or ERR_RANGE with everything untouched. @special may be NULL.
 */
int tokenizer_token(const struct tokenizer *tok, int32_t id, const unsigned char **bytes, size_t *len, bool *special);

/*
 * tokenizer_get_template - the ids that the file's post_processor puts around one text (TemplateProcessing,
 * RobertaProcessing, BertProcessing, alone or in a Sequence), such as BOS before and EOS after it.
 * tokenizer_encode never adds them.
 * The arrays live as long as the tokenizer. Both are empty where the file has no post_processor or one that
 * adds nothing.
 * Returns 0, or ERR_UNSUPPORTED with the note saying which post_processor it is.
 */
int tokenizer_get_template(const struct tokenizer *tok, struct tokenizer_template *t, struct err_note *note);

/*
 * tokenizer_end_of_document - the id that ends a document.
 * @name  content of an added token, or NULL: the first that exists of <|endoftext|>, <|end_of_text|>, </s>, <eos>, <|eos|>,
 *        <|end_of_document|>, <|end▁of▁sentence|> with full-width bars.
 * Returns 0, or ERR_NOT_FOUND with the note saying what was looked for.
 */
int tokenizer_end_of_document(const struct tokenizer *tok, const char *name, int32_t *id, struct err_note *note);

/*
 * tokenizer_encoder_new - about 5 MB of scratch for one thread, and 4 bytes for each merge once a word is
 * longer than 32 bytes; tok must outlive it. Returns 0 or ENOMEM.
 */
int tokenizer_encoder_new(struct tokenizer_encoder **enc, const struct tokenizer *tok);
void tokenizer_encoder_destroy(struct tokenizer_encoder **enc);		/* takes NULL */

/*
 * tokenizer_encode - append the ids of a text.
 * @text   any bytes, including NUL; need not end in NUL. len 0 appends nothing.
 * @flags  TOKENIZER_SPECIALS, TOKENIZER_DROP_UNKNOWN
 * Returns 0; ERR_UNSUPPORTED: a byte without a token (note: which, where), ERR_RANGE: a limit of the regular
 * expressions, ENOMEM. out->n is as before the call then. Near-linear in len whatever the text.
 */
int tokenizer_encode(struct tokenizer_encoder *enc, const void *text, size_t len, unsigned flags, struct tokenizer_ids *out,
    struct err_note *note);

/*
 * With TOKENIZER_DROP_UNKNOWN: tokenizer_encoder_unknown sets an id that takes the place of each byte without
 * a token; -1, as at first:
 * none. tokenizer_encoder_n_unknown is the number of such bytes since the encoder was made.
 */
void tokenizer_encoder_unknown(struct tokenizer_encoder *enc, int32_t id);
uint64_t tokenizer_encoder_n_unknown(const struct tokenizer_encoder *enc);

/*
 * tokenizer_decode - append the bytes of n ids. @flags TOKENIZER_SKIP_SPECIALS. Any thread.
 * Returns 0, ERR_RANGE (note: which id, at which place; out->n as before) or ENOMEM. A cut within a character
 * gives part of its bytes; the caller decides how to print them.
 */
int tokenizer_decode(const struct tokenizer *tok, const int32_t *ids, size_t n, unsigned flags, struct tokenizer_bytes *out,
    struct err_note *note);

#endif
