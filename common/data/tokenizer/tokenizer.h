/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer - converts bytes to token ids and back, according to a Hugging Face tokenizer.json (BPE over
 * bytes or characters, Unigram).
 *
 * A struct tokenizer is read-only after loading and shared by all threads. Each thread that encodes has its
 * own struct tokenizer_encoder: scratch memory of the regular expressions, and a cache of words with their
 * ids. Ids never depend on what the encoder processed before.
 *
 * Steps of encoding: separate invalid UTF-8 -> added tokens -> normaliser -> split into words -> the model
 * per word.
 *
 *   Invalid bytes   The text is cut at every maximal run of bytes that belong to no well-formed UTF-8
 *                   sequence. Each run is a word, which the model gets unchanged; each stretch between runs
 *                   is encoded separately.
 *   Added tokens    Those marked special are recognised only with TOKENIZER_SPECIALS: a corpus is plain text,
 *                   and "<|endoftext|>" in it is thirteen characters. The others are always recognised. (This
 *                   is Hugging Face's encode_special_tokens = True; its default is like TOKENIZER_SPECIALS.)
 *   post_processor  (BOS and the like), truncation and padding are not applied; see tokenizer_get_template.
 *
 * If tokenizer_is_lossless(), decode(encode(x)) = x for any bytes x.
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
 * Growing arrays. The caller zeroes them ({0}), functions append to them, and the caller calls free(x.ids) or
 * free(x.bytes). Set n to 0 to reuse one.
 */
struct tokenizer_ids {
	int32_t *ids;
	size_t n, cap;
};

struct tokenizer_bytes {
	unsigned char *bytes;
	size_t n, cap;
};

/* Ids to put before and after a text. */
struct tokenizer_template {
	const int32_t *before, *after;
	size_t n_before, n_after;
};

enum tokenizer_flags {
	TOKENIZER_SPECIALS = 1,		/* encode: recognise special tokens in the text */
	TOKENIZER_DROP_UNKNOWN = 2,	/* encode: drop and count bytes without a token, as Hugging Face */
	TOKENIZER_SKIP_SPECIALS = 4	/* decode: leave special tokens out */
};

/*
 * tokenizer_load, tokenizer_parse - load a tokenizer from a file, from the text of one (@name is used in
 * notes). A path that ends in .model is that of a SentencePiece model.
 * Return 0 and *tok (tokenizer_destroy it); or, with *tok NULL and the place in the JSON and what was
 * expected in the note: ERR_FORMAT (not JSON, wrong types, an id twice, a merge of unknown tokens), ERR_RANGE
 * (above a limit stated above), ERR_UNSUPPORTED (valid, but not supported, see README.md), ENOMEM, or errno.
 */
int tokenizer_load(struct tokenizer **tok, const char *path, struct err_note *note);
int tokenizer_parse(struct tokenizer **tok, const char *text, size_t len, const char *name, struct err_note *note);
void tokenizer_destroy(struct tokenizer **tok);		/* takes NULL; destroy its encoders before */

/*
 * tokenizer_model_json - converts a SentencePiece model (tokenizer.model) to a tokenizer.json that gives the
 * ids of Hugging Face's library. If the model has a table of characters or remove_extra_whitespaces, the ids
 * are those of sentencepiece, by a normaliser that only this module supports. Returns 0 and *root (json_close
 * it); ERR_FORMAT, ERR_RANGE with the place in the file or the piece in the note; ERR_UNSUPPORTED: spaces not
 * escaped or put behind words, user-defined or unused pieces together with that normaliser, models other than
 * BPE and Unigram; ENOMEM or errno.
 */
struct json;
int tokenizer_model_json(const char *path, struct json **root, struct err_note *note);

/*
 * tokenizer_vocab_size - returns n: ids are 0..n-1. Some may have no token (holes in the file's ids); they
 * decode to nothing, as in Hugging Face's library. A model's vocab_size may be larger, but not smaller.
 */
int32_t tokenizer_vocab_size(const struct tokenizer *tok);

/*
 * tokenizer_fingerprint - the hash of everything that affects ids or bytes: vocabulary, merges, normaliser,
 * split, added tokens. It does not depend on the file's formatting, its order of keys, or the parts that are
 * not applied.
 */
struct hash128 tokenizer_fingerprint(const struct tokenizer *tok);

/*
 * tokenizer_identify - the identity of the tokenizer.json at path, for programs that only compare tokenizers:
 * the tokenizer_fingerprint if the file can be loaded; else (an unsupported kind, or above the limits) the
 * xxh3-128 of its bytes.
 * @why  "" if the file can be loaded, else tokenizer_load's reason, cut to size bytes
 * Returns 0; ERR_FORMAT: not a JSON object, so damaged or another kind of file; ENOMEM or errno.
 */
int tokenizer_identify(const char *path, struct hash128 *id, char *why, size_t size, struct err_note *note);

/*
 * tokenizer_is_lossless - true if there is no normaliser, no prefix space, no step that leaves out text, and
 * a token for each of the 256 bytes. A Split that keeps only its matches is accepted if every character is
 * known to match. Valid for encoding without TOKENIZER_SPECIALS.
 */
bool tokenizer_is_lossless(const struct tokenizer *tok);

/* tokenizer_describe - split and normaliser in one line, for `tokenizer info`; valid as long as tok. */
const char *tokenizer_describe(const struct tokenizer *tok);

/*
 * tokenizer_token - the bytes of one id as within a decoded text (not NUL-terminated, maybe not UTF-8); valid
 * as long as the tokenizer. Returns 0, or ERR_RANGE with nothing written. @special may be NULL.
 */
int tokenizer_token(const struct tokenizer *tok, int32_t id, const unsigned char **bytes, size_t *len, bool *special);

/*
 * tokenizer_get_template - the ids that the file's post_processor puts around one text (TemplateProcessing,
 * RobertaProcessing, BertProcessing, alone or in a Sequence), such as BOS before and EOS after it.
 * tokenizer_encode never adds them. The arrays are valid as long as the tokenizer. Both are empty if the file
 * has no post_processor or one that adds nothing. Returns 0, or ERR_UNSUPPORTED with the post_processor in
 * the note.
 */
int tokenizer_get_template(const struct tokenizer *tok, struct tokenizer_template *t, struct err_note *note);

/*
 * tokenizer_end_of_document - the id that ends a document.
 * @name  content of an added token, or NULL: the first that exists of <|endoftext|>, <|end_of_text|>, </s>,
 *        <eos>, <|eos|>, <|end_of_document|>, <|end▁of▁sentence|> with full-width bars.
 * Returns 0, or ERR_NOT_FOUND with the names that were looked for in the note.
 */
int tokenizer_end_of_document(const struct tokenizer *tok, const char *name, int32_t *id, struct err_note *note);

/*
 * tokenizer_encoder_new - makes the encoder of one thread. It takes about 5 MB, and after the first word
 * longer than 32 bytes also 4 bytes for each merge. tok must outlive it. Returns 0 or ENOMEM.
 */
int tokenizer_encoder_new(struct tokenizer_encoder **enc, const struct tokenizer *tok);
void tokenizer_encoder_destroy(struct tokenizer_encoder **enc);		/* takes NULL */

/*
 * tokenizer_encode - appends the ids of a text to out.
 * @text   any bytes, including NUL; need not end in NUL. len 0 appends nothing.
 * @flags  TOKENIZER_SPECIALS, TOKENIZER_DROP_UNKNOWN
 * Returns 0; or, with out->n as before the call, ERR_UNSUPPORTED (a byte without a token; the note has byte
 * and offset), ERR_RANGE (a text of 2 GiB or more, one that the normaliser makes too long, or a limit of the
 * regular expressions), ENOMEM. The time is near-linear in len for any text.
 */
int tokenizer_encode(struct tokenizer_encoder *enc, const void *text, size_t len, unsigned flags, struct tokenizer_ids *out,
    struct err_note *note);

/*
 * For TOKENIZER_DROP_UNKNOWN. tokenizer_encoder_unknown - sets an id that replaces each byte (or character)
 * without a token; -1, the default: none. tokenizer_encoder_n_unknown - the number of these since the encoder
 * was made.
 */
void tokenizer_encoder_unknown(struct tokenizer_encoder *enc, int32_t id);
uint64_t tokenizer_encoder_n_unknown(const struct tokenizer_encoder *enc);

/*
 * tokenizer_decode - appends the bytes of n ids to out. @flags TOKENIZER_SKIP_SPECIALS. Any thread.
 * Returns 0; or, with out->n as before the call, ERR_RANGE (the note has the id and its index) or ENOMEM. If
 * the ids end within a character, the output has part of its bytes; the caller decides how to print them.
 */
int tokenizer_decode(const struct tokenizer *tok, const int32_t *ids, size_t n, unsigned flags, struct tokenizer_bytes *out,
    struct err_note *note);

#endif
