/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client_internal.h"

#include <inttypes.h>
#include <string.h>

int
salt_rows_padded(const struct salt_rows *rows, uint32_t k, int64_t *ids, float *weights, struct salt_error *e)
{
	size_t n_positions, at = 0;

	if (rows->offsets == NULL)
		return client__error(e, SALT_RANGE, "salt_rows_padded: expected rows with offsets, found rows of phase %d, kind %d", rows->phase,
		    rows->kind);
	if (k < rows->max_entries)
		return client__error(e, SALT_RANGE, "salt_rows_padded: k: expected at least max_entries %" PRIu32 ", found %" PRIu32, rows->max_entries, k);
	n_positions = (size_t)rows->n * rows->context;
	for (size_t p = 0; p < n_positions; p++, ids += k, weights += k) {
		size_t n = (size_t)rows->offsets[p + 1] - at;

		for (size_t i = 0; i < n; i++)
			ids[i] = rows->ids[at + i];
		memcpy(weights, rows->weights + at, n * sizeof(*weights));
		memset(ids + n, 0, (k - n) * sizeof(*ids));
		memset(weights + n, 0, (k - n) * sizeof(*weights));
		at += n;
	}
	return client__ok(e);
}
