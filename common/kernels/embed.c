#include "kernels/internal.h"

#include <string.h>

#include "log/log.h"

#define COLUMN_BLOCK 64

static void
check_tokens(const int32_t *tokens, int64_t n, int64_t vocab)
{
	for (int64_t i = 0; i < n; i++)
		if (tokens[i] < 0 || tokens[i] >= vocab)
			log_fatal("kernels.token", "id=%d vocab=%lld row=%lld", (int)tokens[i], (long long)vocab, (long long)i);
}

void
kernels_embed(struct kernels *k, struct tensor *y, const int32_t *tokens, const struct tensor *wte, const struct tensor *wpe,
    int64_t b, int64_t t)
{
	int64_t c = kernels__cols(wte), m = b * t;
	const float *te = kernels__f32(wte), *pe = wpe != NULL ? kernels__f32(wpe) : NULL;
	float *out = kernels__f32(y);

	kernels__shape(kernels__rows(y) == m && kernels__cols(y) == c && (pe == NULL || (kernels__cols(wpe) == c && wpe->dims[0] >= t)),
	    "embed");
	check_tokens(tokens, m, wte->dims[0]);
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t i = 0; i < m; i++) {
		if (pe != NULL)
			k->vec->add(out + i * c, te + tokens[i] * c, pe + i % t * c, c);
		else
			memcpy(out + i * c, te + tokens[i] * c, (size_t)c * sizeof(float));
	}
}

/* Columns are shared out, rows go in order: each sum has one order whatever the threads do. */
void
kernels_embed_bwd(struct kernels *k, struct tensor *d_wte, struct tensor *d_wpe, const struct tensor *d_y, const int32_t *tokens,
    int64_t b, int64_t t)
{
	int64_t c = kernels__cols(d_y), m = b * t, blocks = (c + COLUMN_BLOCK - 1) / COLUMN_BLOCK;
	float *te = kernels__f32(d_wte), *pe = d_wpe != NULL ? kernels__f32(d_wpe) : NULL;
	const float *d = kernels__f32(d_y);

	kernels__shape(kernels__rows(d_y) == m && kernels__cols(d_wte) == c &&
	    (pe == NULL || (kernels__cols(d_wpe) == c && d_wpe->dims[0] >= t)), "embed_bwd");
	check_tokens(tokens, m, d_wte->dims[0]);
#pragma omp parallel for num_threads(k->threads) schedule(static) if (k->threads > 1 && m * c > k->small)
	for (int64_t block = 0; block < blocks; block++) {
		int64_t at = block * COLUMN_BLOCK, n = c - at < COLUMN_BLOCK ? c - at : COLUMN_BLOCK;

		for (int64_t i = 0; i < m; i++) {
			float *row = te + tokens[i] * c + at;

			k->vec->add(row, row, d + i * c + at, n);
			if (pe != NULL) {
				row = pe + i % t * c + at;
				k->vec->add(row, row, d + i * c + at, n);
			}
		}
	}
}
