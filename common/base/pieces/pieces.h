/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pieces - SentencePiece's vocabularies, which have scores in place of merges, as a Hugging Face
 * tokenizer.json. They stand in a tokenizer.model (data/tokenizer) and in GGUF files (engine/gguf).
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
	 * NULL: spaces are kept, and the steps are Llama 2's. Else SentencePiece's own normaliser: its table of
	 * characters in base64 (may be ""); runs of spaces become one.
	 */
	const char *charsmap;
	bool collapse;
};

/*
 * pieces_json - normaliser and decoder as Llama 2's file has them; unknown and control pieces are special
 * added tokens, user-defined ones added tokens. Merges as transformers makes them (generate_merges): each way
 * to cut a piece in two, by the piece's score, then the longer left part; of pieces up to 512 bytes.
 * Returns 0 and *root (json_close it); ERR_FORMAT (no text, a piece twice, a score that is not finite,
 * unk_id), ERR_RANGE (too many merges), with the piece in the note, name first; ENOMEM.
 */
int pieces_json(const struct pieces *p, const char *name, struct json **root, struct err_note *note);

#endif
