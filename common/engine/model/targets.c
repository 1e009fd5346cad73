/* SPDX-License-Identifier: Apache-2.0 */
/*
 * targets - checks training targets before anything is computed.
 */
#include <inttypes.h>
#include <math.h>

#include "engine/model/model_internal.h"

#define SUM_SLACK 1e-3			/* labels are stored rounded */

static int
refuse_row(struct err_note *note, int64_t row, const char *what, const char *expected, double found)
{
	return err_expect_at(note, ERR_RANGE, "%s", "row %" PRId64, "%s", "%.9g", what, row, expected, found);
}

static int
check_probabilities(const float *values, int64_t n, double *sum, int64_t row, struct err_note *note)
{
	*sum = 0;
	for (int64_t i = 0; i < n; i++) {
		if (!(values[i] >= 0 && values[i] <= 1 + SUM_SLACK))
			return refuse_row(note, row, "soft label", "probabilities from 0 to 1", values[i]);
		*sum += values[i];
	}
	return 0;
}

static int
check_sparse(const struct model_config *cfg, const struct kernels_targets *t, int64_t row, bool used,
    struct err_note *note)
{
	int64_t from = t->offsets[row], to = t->offsets[row + 1];
	double sum;
	int rc;

	if (from < 0 || to < from || to - from > cfg->vocab_size)
		return refuse_row(note, row, "soft label", "from 0 to vocab_size entries", (double)(to - from));
	for (int64_t i = from; i < to; i++) {
		if (t->ids[i] < 0 || t->ids[i] >= cfg->vocab_size)
			return refuse_row(note, row, "id of the soft label", "0 to vocab_size - 1", t->ids[i]);
		if (i > from && t->ids[i] <= t->ids[i - 1])
			return refuse_row(note, row, "id of the soft label", "ascending ids", t->ids[i]);
	}
	if (!used)
		return 0;
	if ((rc = check_probabilities(t->values + from, to - from, &sum, row, note)) != 0)
		return rc;
	if (!(sum <= 1 + SUM_SLACK))
		return refuse_row(note, row, "sum of the soft label", "at most 1", sum);
	if (t->residual == KERNELS_RESIDUAL_RENORMALISE && !(sum > 0))
		return refuse_row(note, row, "sum of the soft label", "above 0, to renormalise", sum);
	return 0;
}

static int
check_dense(const struct model_config *cfg, const struct kernels_targets *t, int64_t row, struct err_note *note)
{
	double sum;
	int rc;

	if ((rc = check_probabilities(t->dense + row * cfg->vocab_size, cfg->vocab_size, &sum, row, note)) != 0)
		return rc;
	if (!(fabs(sum - 1) <= SUM_SLACK))
		return refuse_row(note, row, "sum of the soft label", "1", sum);
	return 0;
}

int
model__targets_check(
    const struct model_config *cfg, const struct kernels_targets *t, int64_t n_rows, struct err_note *note)
{
	int rc;

	if (t->n_rows != n_rows)
		return err_expect(note, ERR_RANGE, "targets", "%" PRId64 " rows", "%" PRId64, n_rows, t->n_rows);
	for (int64_t row = 0; row < n_rows; row++) {
		float w = t->weight != NULL ? t->weight[row] : 0;

		if (t->next[row] == KERNELS_NO_TARGET)
			continue;
		if (t->next[row] < 0 || t->next[row] >= cfg->vocab_size)
			return refuse_row(note, row, "next token", "0 to vocab_size - 1", t->next[row]);
		if (!(w >= 0 && w <= 1))
			return refuse_row(note, row, "weight", "0 to 1", w);
		if (t->loss_weight != NULL && !(t->loss_weight[row] >= 0 && isfinite(t->loss_weight[row])))
			return refuse_row(note, row, "loss weight", "a finite number >= 0", (double)t->loss_weight[row]);
		if (w > 0 && t->offsets == NULL && t->dense == NULL)
			return refuse_row(note, row, "weight", "0 without a soft label", w);
		if (t->offsets != NULL && (rc = check_sparse(cfg, t, row, w > 0, note)) != 0)
			return rc;
		if (t->offsets == NULL && w > 0 && (rc = check_dense(cfg, t, row, note)) != 0)
			return rc;
	}
	return 0;
}
