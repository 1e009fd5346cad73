/* SPDX-License-Identifier: Apache-2.0 */
/*
 * select_file - selector.mode file: rows that another program chose, or its scores. Lines of JSON objects:
 *
 *   {"sequence": N}               all lines: the rows of phase one in their order
 *   {"sequence": N, "score": S}   all lines, in any order: selectord chooses by these scores as by S(x)
 *
 * N is the number of a sequence of the training corpus, S a finite number of single precision. Other members are
 * not read. A sequence occurs once.
 *
 * A struct select_file does not change after select_file_read; any thread.
 */
#ifndef SALT_SELECT_FILE_H
#define SALT_SELECT_FILE_H

#include <stdint.h>
#include <stdio.h>

#include "base/err/err.h"
#include "base/hash/hash.h"

struct blend;

struct select_file {
	uint64_t n_windows;			/* sequences of the corpus */
	uint64_t n;				/* sequences that the file names */
	uint64_t *list;				/* [n] in their order; NULL: the file has scores */
	uint64_t *place;			/* [n_windows] with list: where in it, UINT64_MAX: not in it */
	float *score;				/* [n_windows] without list; NaN: none */
	struct hash128 hash;			/* of the numbers, not of the text; docs/formats.md */
};

/*
 * select_file_read - reads all of path and checks it.
 * @name       stands for path in notes
 * @n_windows  of the corpus, above 0
 * Returns 0 and *f (select_file_destroy it); ERR_FORMAT or ERR_RANGE with name and line in the note (not an object,
 * no sequence, a sequence that the corpus has not or that came before, a score that is not a finite number, lines of
 * both forms, no line); ENOMEM; errno.
 */
int select_file_read(struct select_file **f, const char *path, const char *name, uint64_t n_windows, struct err_note *note);
void select_file_destroy(struct select_file **f);	/* takes NULL */

/*
 * select_file_check - is the file enough for n_rows rows of a plan with this order and K = kept rows of each
 * W = window sequences? A list needs n_rows lines; scores are needed for every sequence of the plan's blocks.
 * Returns 0, or ERR_RANGE with the first that is missing. Looks at each position of the plan until then, once the
 * number of scores makes it possible.
 */
int select_file_check(const struct select_file *f, const struct blend *order, uint32_t seed, uint64_t n_rows, uint64_t window,
    uint64_t kept, struct err_note *note);

#endif
