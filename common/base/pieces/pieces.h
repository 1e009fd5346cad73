/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pieces - converts SentencePiece's vocabularies, which have scores in place of merges, to the JSON of a
 * Hugging Face tokenizer.json. They come from a tokenizer.model (data/tokenizer) or a GGUF file
 * (engine/gguf).
 */
#ifndef SALT_PIECES_H
#define SALT_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err/err.h"

#define PIECES_MAX_MERGES (1u << 22)

struct json;

/* As numbered in sentencepiece_model.proto and in GGUF. */
enum piece_type {
	PIECE_NORMAL = 1,
	PIECE_UNKNOWN,
	PIECE_CONTROL,
	PIECE_USER_DEFINED,
	PIECE_UNUSED,
	PIECE_BYTE
};

struct pieces {
	size_t n;
	const char *const *text; /* [n] UTF-8 */
	const float *score; /* [n] */
	const uint8_t *type; /* [n] enum piece_type */
	bool unigram, byte_fallback, prefix; /* prefix: a space is put before each text */
	int32_t unk_id;
	/*
	 * NULL: the steps of Llama 2, which keep spaces. Else SentencePiece's own normaliser with this table
	 * of characters in base64 (may be ""); collapse: runs of spaces become one.
	 */
	const char *charsmap;
	bool collapse;
};

/*
 * pieces_json - makes the tokenizer.json. Without charsmap the normaliser is that of Llama 2's file; the
 * decoder always is. Unknown and control pieces become special added tokens, user-defined ones added tokens.
 * Merges are made as by transformers (generate_merges): every way to cut a piece of up to 512 bytes into two
 * pieces, sorted by the piece's score, then the longer left part first.
 * Returns 0 and *root (json_close it); ERR_FORMAT: a piece without text or that occurs twice, a score that is
 * not finite, a bad unk_id; ERR_RANGE: too many merges; ENOMEM. The note begins with name and states the
 * piece.
 */
int pieces_json(const struct pieces *p, const char *name, struct json **root, struct err_note *note);

#endif
