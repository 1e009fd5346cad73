/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loss_dump - computes loss and gradients for given targets with our engine, for python/tests/test_loss.py.
 *
 *   loss_dump < IN > OUT
 *
 * IN int64 M, C, V, labels (0 none, 1 sparse, 2 dense), residual (enum kernels_residual), entries, rule (enum
 *      kernels_token_weight); float h [M, C], w_out [V, C]; int32 next [M]; float weight [M];
 *      sparse: int64 offsets [M + 1], int32 ids, float values [entries]; dense: float [M, V]
 * OUT double loss, hard, soft, entropy, weight (means; the last three over rows with weight > 0), correct;
 *      float loss [M], hard [M]; d_h [M, C], d_w [V, C] of the mean loss
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/kernels/kernels.h"

static void *
get(size_t n, size_t size)
{
	void *p = calloc(n + 1, size);

	if (p == NULL || fread(p, size, n, stdin) != n) {
		fprintf(stderr, "loss_dump: standard input ended early\n");
		exit(65);
	}
	return p;
}

static void
put(const void *p, size_t n, size_t size)
{
	if (fwrite(p, size, n, stdout) != n)
		exit(74);
}

int
main(void)
{
	const struct kernels_options options = {.backend = KERNELS_BACKEND_OPENBLAS, .dtype = KERNELS_DTYPE_FP32, .threads = 1};
	int64_t *sizes = get(7, sizeof(*sizes)), m = sizes[0], c = sizes[1], v = sizes[2];
	size_t rows = (size_t)m, n_h = (size_t)(m * c), n_w = (size_t)(v * c);
	float *h = get(n_h, sizeof(float)), *w = get(n_w, sizeof(float));
	struct kernels_targets t = {.n_rows = m, .residual = (enum kernels_residual)sizes[4],
	    .token_weight = (enum kernels_token_weight)sizes[6]};
	float *d_h = calloc(n_h, sizeof(float)), *d_w = calloc(n_w, sizeof(float));
	struct tensor th = tensor_2d(h, DTYPE_F32, m, c), tw = tensor_2d(w, DTYPE_F32, v, c);
	struct tensor td_h = tensor_2d(d_h, DTYPE_F32, m, c), td_w = tensor_2d(d_w, DTYPE_F32, v, c);
	struct kernels_loss_sums sums;
	struct err_note note = {0};
	struct kernels *k;
	double means[6];

	t.next = get(rows, sizeof(int32_t));
	t.weight = get(rows, sizeof(float));
	if (sizes[3] == 1) {
		t.offsets = get(rows + 1, sizeof(int64_t));
		t.ids = get((size_t)sizes[5], sizeof(int32_t));
		t.values = get((size_t)sizes[5], sizeof(float));
	} else if (sizes[3] == 2) {
		t.dense = get((size_t)(m * v), sizeof(float));
	}
	t.row_loss = calloc(rows, sizeof(float));
	t.row_hard = calloc(rows, sizeof(float));
	if (d_h == NULL || d_w == NULL || t.row_loss == NULL || t.row_hard == NULL || kernels_new(&k, &options, &note) != 0)
		return 71;
	kernels_output_loss(k, &th, &tw, NULL, &t, 1.0f / (float)m, &td_h, &td_w, &sums);
	means[0] = sums.loss / (double)sums.rows;
	means[1] = sums.hard / (double)sums.rows;
	means[2] = sums.soft / (double)sums.kd_rows;
	means[3] = sums.entropy / (double)sums.kd_rows;
	means[4] = sums.weight / (double)sums.kd_rows;
	means[5] = (double)sums.correct / (double)sums.rows;
	put(means, 6, sizeof(double));
	put(t.row_loss, rows, sizeof(float));
	put(t.row_hard, rows, sizeof(float));
	put(d_h, n_h, sizeof(float));
	put(d_w, n_w, sizeof(float));
	return fflush(stdout) == 0 ? 0 : 74;
}
