/* SPDX-License-Identifier: Apache-2.0 */
/* oniguruma - translates patterns in Oniguruma's syntax to PCRE2's. Private to the tokenizer. */
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
	size_t atom; /* offset in out of the last atom, which a quantifier repeats */
	size_t opened[MAX_NESTED]; /* offset in out of each open group */
	bool fold[MAX_NESTED]; /* letters match without regard to case */
	size_t depth;
	bool no_memory, plain; /* plain: listed characters go to `rare` and not to out */
	struct range *rare;
	size_t n_rare, rare_cap;
	/* For tokenizer__regex_covers. */
	struct tokenizer_bytes
	    free; /* "|" and each outermost alternative that depends only on the text it matches */
	size_t alternative; /* offset in out of the current alternative */
	/* bound: the alternative has assertions or possessive parts. atom_is_group: the last atom is one. */
	bool bound,
	    atom_is_group;
};

/*
 * oniguruma_translate - translates t->in [len] to t->out. The caller frees t->out, t->free and t->rare.
 * Returns false with t->at at or just after a construct that is not supported. The caller must check
 * t->no_memory too.
 */
bool oniguruma_translate(struct translation *t);

#endif
