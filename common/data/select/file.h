/* SPDX-License-Identifier: Apache-2.0 */
/*
 * select_file - the selection file of selector.mode file: rows that another program chose, or its scores.
 * Each line is a JSON object:
 *
 *   {"sequence": N}               all lines: the rows of phase one in their order
 *   {"sequence": N, "score": S}   all lines, in any order: selectord chooses by these scores as by S(x)
 *
 * N is the number of a sequence of the training corpus, S a finite number of single precision. Other members
 * are ignored. Each sequence occurs at most once.
 *
 * A struct select_file is read-only after select_file_read: any thread.
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
	uint64_t n;				/* sequences in the file */
	uint64_t *list;				/* [n] sequences in file order; NULL: file of scores */
	uint64_t *place;			/* [n_windows] with list: index in it, or UINT64_MAX */
	float *score;				/* [n_windows] without list; NaN: none */
	struct hash128 hash;			/* of the numbers, not of the text; docs/formats.md */
};

/*
 * select_file_read - reads all of path and checks it.
 * @name       used in notes in place of path
 * @n_windows  number of sequences of the corpus, above 0
 * Returns 0 and *f (select_file_destroy it); ERR_FORMAT or ERR_RANGE with name and line in the note (not an
 * object, no sequence, a sequence that the corpus does not have or that occurs twice, a score that is not a
 * finite number, lines of both forms, no line at all); ENOMEM; errno.
 */
int select_file_read(struct select_file **f, const char *path, const char *name, uint64_t n_windows, struct err_note *note);
void select_file_destroy(struct select_file **f);	/* takes NULL */

/*
 * select_file_check - checks that the file is sufficient for n_rows rows of a plan with this order that takes
 * K = kept rows from each block of W = window sequences. A list needs n_rows lines; scores are needed for
 * every sequence of the plan's blocks. Returns 0, or ERR_RANGE with the first missing one. If the number of
 * scores can be sufficient, every position of the plan up to the first missing one is checked.
 */
int select_file_check(const struct select_file *f, const struct blend *order, uint32_t seed, uint64_t n_rows, uint64_t window,
    uint64_t kept, struct err_note *note);

#endif
