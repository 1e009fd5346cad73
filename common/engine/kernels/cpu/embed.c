/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kernels/cpu/cpu.h"

#include <string.h>

#define COLUMN_BLOCK 64
#define COLUMNS 1024			/* columns of a row that are added at a time */

void
cpu__embed(struct kernels *k, struct tensor *y, const int32_t *tokens, const struct tensor *wte, const struct tensor *wpe,
    int64_t m, int64_t t, const int32_t *starts)
{
	int64_t c = kernels__cols(wte);
	const void *te = wte->data, *pe = wpe != NULL ? wpe->data : NULL;

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t i = 0; i < m; i++) {
		if (pe == NULL && y->dtype == wte->dtype) {
			memcpy(kernels__element(y->data, y->dtype, i * c), kernels__element(te, wte->dtype, tokens[i] * c),
			    (size_t)c * dtype_size(y->dtype));
			continue;
		}
		for (int64_t at = 0; at < c; at += COLUMNS) {
			int64_t n = c - at < COLUMNS ? c - at : COLUMNS;
			float te_room[COLUMNS], pe_room[COLUMNS], y_room[COLUMNS], *out = cpu__place(y->data, y->dtype, i * c + at, y_room);

			if (pe == NULL) {		/* bf16 to fp32 */
				k->vec->widen(out, (const uint16_t *)te + tokens[i] * c + at, n);
				continue;
			}
			k->vec->add(out, cpu__read(k, te, wte->dtype, tokens[i] * c + at, n, te_room),
			    cpu__read(k, pe, wpe->dtype, cpu__position(starts, i, t) * c + at, n, pe_room), n);
			cpu__store(k, y->data, y->dtype, i * c + at, n, out);
		}
	}
}

/* Threads share out the columns and add the rows in order, so the order of each sum is fixed. */
void
cpu__embed_bwd(struct kernels *k, struct tensor *d_wte, struct tensor *d_wpe, const struct tensor *d_y, const int32_t *tokens,
    int64_t m, int64_t t, const int32_t *starts)
{
	int64_t c = kernels__cols(d_y), blocks = (c + COLUMN_BLOCK - 1) / COLUMN_BLOCK;
	float *te = cpu__f32(d_wte), *pe = d_wpe != NULL ? cpu__f32(d_wpe) : NULL;

#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t block = 0; block < blocks; block++) {
		int64_t at = block * COLUMN_BLOCK, n = c - at < COLUMN_BLOCK ? c - at : COLUMN_BLOCK;

		for (int64_t i = 0; i < m; i++) {
			float room[COLUMN_BLOCK], *row = te + tokens[i] * c + at;
			const float *d = cpu__read(k, d_y->data, d_y->dtype, i * c + at, n, room);

			k->vec->add(row, row, d, n);
			if (pe != NULL) {
				row = pe + cpu__position(starts, i, t) * c + at;
				k->vec->add(row, row, d, n);
			}
		}
	}
}
