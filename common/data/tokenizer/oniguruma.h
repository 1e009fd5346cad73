/* SPDX-License-Identifier: Apache-2.0 */
/* oniguruma - patterns as Oniguruma reads them, translated for PCRE2. Private to the tokenizer. */
#ifndef SALT_TOKENIZER_ONIGURUMA_H
#define SALT_TOKENIZER_ONIGURUMA_H

#include "data/tokenizer/tokenizer_internal.h"

#define MAX_NESTED 32

struct range {
	uint32_t first, last;
};

struct translation {
	const char *in;
	size_t at, len;
	struct tokenizer_bytes out;
	size_t atom; /* where in out the last atom begins, for what repeats it */
	size_t opened[MAX_NESTED]; /* where in out a group begins */
	bool fold[MAX_NESTED]; /* letters match without case */
	size_t depth;
	bool no_memory, plain; /* plain: what would be listed goes to `rare` */
	struct range *rare;
	size_t n_rare, rare_cap;
	/* For tokenizer__regex_covers. */
	struct tokenizer_bytes
	    free; /* "|" and each outermost alternative that asks for nothing around its match */
	size_t alternative; /* where in out the one at hand begins */
	bool bound,
	    atom_is_group; /* it does ask, or keeps what it took (possessive); the last atom is a group */
};

/*
 * oniguruma_translate - t->in [len] to t->out, which the caller frees as it frees t->free and t->rare. false: t->at is at or just after a
 * construct that is not supported. t->no_memory is to be asked as well.
 */
bool oniguruma_translate(struct translation *t);

#endif
