/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two files that read tokenizer.json share.
 */
#ifndef SALT_TOKENIZER_LOAD_H
#define SALT_TOKENIZER_LOAD_H

#include "base/json/json.h"
#include "data/tokenizer/tokenizer_internal.h"

#define PLACE_BYTES 256

struct loading {
	struct tokenizer *tok;
	const char *name;
	struct err_note *note;
	struct json *vocab;		/* token -> id; of Unigram made from its list */
	bool owns_vocab;
	size_t n_model;			/* tokens of the model */
	bool byte_level, loses;		/* text is left out or added: not lossless */
};

/* One note: where in the JSON, what was expected, what was found. Returns rc. */
int tokenizer__bad(struct loading *l, int rc, const char *place, const char *expected, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
int tokenizer__no_memory(struct loading *l);
const char *tokenizer__kind_of(const struct json *j);

/* Members of an object at `place`: a flag that may be absent or null (then `otherwise`), a string. */
int tokenizer__flag(struct loading *l, const struct json *object, const char *place, const char *key, bool otherwise, bool *out);
int tokenizer__text(struct loading *l, const struct json *object, const char *place, const char *key, const char **out);

/* load_steps.c: normalizer and pre_tokenizer into tok->normal and tok->stage. */
int tokenizer__load_steps(struct loading *l, const struct json *normalizer, const struct json *pre_tokenizer);

/* decode.c: the decoder of a model that is not MODEL_BYTES. */
int tokenizer__load_decoder(struct loading *l, const struct json *decoder);
/* What the pre-tokenizer and the decoder of this name have in common. */
int tokenizer__metaspace(struct loading *l, const struct json *j, const char *place, const char **replacement, enum prepend_scheme *scheme);

#endif
