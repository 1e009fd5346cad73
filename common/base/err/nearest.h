/* SPDX-License-Identifier: Apache-2.0 */
/* nearest - "did you mean ...?" */
#ifndef SALT_NEAREST_H
#define SALT_NEAREST_H

#include <stddef.h>

/*
 * err_nearest - returns the candidate that word was probably meant to be: the one with the smallest
 * err_distance, the first of equally near ones; NULL if the distance is more than a third of word's letters
 * plus one. get(arg, i) returns candidate i, NULL after the last.
 */
const char *err_nearest(const char *word, const char *(*get)(const void *arg, size_t i), const void *arg);

/*
 * err_distance - number of edits (insert, delete, change, swap of neighbours) that turn a into b; SIZE_MAX if
 * a or b has more than 64 bytes.
 */
size_t err_distance(const char *a, const char *b);

#endif
