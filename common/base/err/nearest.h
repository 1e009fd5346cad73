/* SPDX-License-Identifier: Apache-2.0 */
/* nearest - "did you mean ...?" */
#ifndef SALT_NEAREST_H
#define SALT_NEAREST_H

#include <stddef.h>

/*
 * err_nearest - the candidate that was probably meant by word, NULL if none is near: at most a third of its
 * letters, plus one, were mistyped. get(arg, i) gives candidate i, NULL after the last. Of equally near ones
 * the first.
 */
const char *err_nearest(const char *word, const char *(*get)(const void *arg, size_t i), const void *arg);

/*
 * err_distance - edits (insert, delete, change, swap of neighbours) from a to b; SIZE_MAX if one has more
 * than 64 bytes.
 */
size_t err_distance(const char *a, const char *b);

#endif
