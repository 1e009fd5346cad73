/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err/nearest.h"

#include <stdint.h>
#include <string.h>

enum { WORD_MAX = 64 };			/* longer words are not compared */

size_t
err_distance(const char *a, const char *b)
{
	size_t d[WORD_MAX + 1][WORD_MAX + 1], n = strlen(a), m = strlen(b);

	if (n > WORD_MAX || m > WORD_MAX)
		return SIZE_MAX;
	for (size_t i = 0; i <= n; i++)
		d[i][0] = i;
	for (size_t j = 0; j <= m; j++)
		d[0][j] = j;
	for (size_t i = 1; i <= n; i++)
		for (size_t j = 1; j <= m; j++) {
			size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			if (d[i - 1][j] + 1 < best)
				best = d[i - 1][j] + 1;
			if (d[i][j - 1] + 1 < best)
				best = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    d[i - 2][j - 2] + 1 < best)
				best = d[i - 2][j - 2] + 1;
			d[i][j] = best;
		}
	return d[n][m];
}

const char *
err_nearest(const char *word, const char *(*get)(const void *arg, size_t i), const void *arg)
{
	size_t best = strlen(word) / 3 + 2, d;
	const char *found = NULL, *candidate;

	for (size_t i = 0; (candidate = get(arg, i)) != NULL; i++)
		if ((d = err_distance(word, candidate)) < best) {
			best = d;
			found = candidate;
		}
	return found;
}
