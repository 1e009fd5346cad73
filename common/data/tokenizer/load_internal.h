/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files that read tokenizer.json. */
#ifndef SALT_TOKENIZER_LOAD_H
#define SALT_TOKENIZER_LOAD_H

#include "base/json/json.h"
#include "data/tokenizer/tokenizer_internal.h"

#define PLACE_BYTES 256

struct loading {
	struct tokenizer *tok;
	const char *name;
	struct err_note *note;
	struct json *vocab;		/* token -> id; for Unigram made from its list */
	bool owns_vocab;
	size_t n_model;			/* number of tokens in the model */
	bool byte_level, loses;		/* loses: some step leaves out or adds text, so it is not lossless */
};

/* Sets the note: place in the JSON, what was expected, what was found. Returns rc. */
int tokenizer__bad(struct loading *l, int rc, const char *place, const char *expected, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
int tokenizer__no_memory(struct loading *l);
const char *tokenizer__kind_of(const struct json *j);

/* Read a member of the object at `place`: a flag, `otherwise` if it is absent or null; a string. */
int tokenizer__flag(struct loading *l, const struct json *object, const char *place, const char *key, bool otherwise, bool *out);
int tokenizer__text(struct loading *l, const struct json *object, const char *place, const char *key, const char **out);

/* load_steps.c: reads normalizer and pre_tokenizer into tok->normal and tok->stage. */
int tokenizer__load_steps(struct loading *l, const struct json *normalizer, const struct json *pre_tokenizer);

/* decode.c: reads the decoder; of MODEL_BYTES only checks it. */
int tokenizer__load_decoder(struct loading *l, const struct json *decoder);
/* Reads the members that the pre-tokenizer and the decoder Metaspace have in common. */
int tokenizer__metaspace(struct loading *l, const struct json *j, const char *place, const char **replacement, enum prepend_scheme *scheme);

#endif
