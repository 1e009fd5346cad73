/* SPDX-License-Identifier: Apache-2.0 */
#include "data/labels/labels_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

void
labels__put(uint8_t *p, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

uint64_t
labels__get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << 8 * i;
	return v;
}

unsigned
labels__id_bytes(uint32_t vocab)
{
	return vocab <= 1u << 16 ? 2 : vocab <= 1u << 24 ? 3 : 4;
}

double
labels__code_value(uint32_t code)
{
	return code == LABELS__CODE_ZERO ? 0 : exp(-(double)code / 2048);
}

uint32_t
labels__code(double nats)
{
	double code = nats * 2048;

	return code < LABELS__CODE_ZERO ? (uint32_t)rint(code) : LABELS__CODE_ZERO;
}

void
labels_buf_free(struct labels_buf *buf)
{
	free(buf->bytes);
	memset(buf, 0, sizeof(*buf));
}

void
labels_batch_clear(struct labels_batch *batch)
{
	batch->kind = 0;
	batch->vocab = 0;
	batch->n_rows = 0;
}

void
labels_batch_free(struct labels_batch *batch)
{
	free(batch->row_offsets);
	free(batch->ids);
	free(batch->weights);
	free(batch->tail);
	free(batch->dense);
	memset(batch, 0, sizeof(*batch));
}

int
labels__batch_reserve(struct labels_batch *batch, const struct labels_spec *spec, size_t rows, size_t entries)
{
	size_t all_rows, used, floats;
	int rc;

	if (!mem_add(batch->n_rows, rows, &all_rows))
		return ENOMEM;
	if (spec->kind == LABELS_KIND_DENSE) {
		if (!mem_mul(all_rows, spec->vocab, &floats))
			return ENOMEM;
		return mem_grow((void **)&batch->dense, &batch->cap_dense, floats, sizeof(batch->dense[0]));
	}
	used = batch->n_rows > 0 ? (size_t)batch->row_offsets[batch->n_rows] : 0;
	if (!mem_add(used, entries, &entries))
		return ENOMEM;
	if ((rc = mem_grow((void **)&batch->row_offsets, &batch->cap_offsets, all_rows + 1, sizeof(batch->row_offsets[0]))) != 0 ||
	    (rc = mem_grow((void **)&batch->tail, &batch->cap_tail, all_rows, sizeof(batch->tail[0]))) != 0 ||
	    (rc = mem_grow((void **)&batch->ids, &batch->cap_ids, entries, sizeof(batch->ids[0]))) != 0 ||
	    (rc = mem_grow((void **)&batch->weights, &batch->cap_weights, entries, sizeof(batch->weights[0]))) != 0)
		return rc;
	if (batch->n_rows == 0)
		batch->row_offsets[0] = 0;
	return 0;
}
