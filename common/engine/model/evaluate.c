/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"
#include "engine/model/session.h"

static void
add(struct kernels_loss_sums *to, const struct kernels_loss_sums *more)
{
	to->loss += more->loss;
	to->hard += more->hard;
	to->correct += more->correct;
	to->rows += more->rows;
	to->finite = to->finite && more->finite;
}

static double
mean(const float *x, const int32_t *next, size_t n)
{
	double sum = 0;
	size_t counted = 0;

	for (size_t i = 0; i < n; i++) {
		sum += (double)x[i];
		counted += next[i] != KERNELS_NO_TARGET;
	}
	return counted > 0 ? sum / (double)counted : 0;
}

int
model_evaluate_lane(struct model_session *s, const struct model_evaluation *e, int64_t lane, struct kernels_loss_sums *sums)
{
	uint64_t group = (uint64_t)e->group, stride = (uint64_t)e->lanes * group;
	size_t len = (size_t)e->context, rows = (size_t)e->group * len;
	int32_t *window = mem_alloc(len + 1, sizeof(*window)), *inputs = mem_alloc(rows, sizeof(*inputs)), *next = mem_alloc(rows, sizeof(*next));
	float *row_hard = e->window_nats != NULL ? mem_alloc(rows, sizeof(*row_hard)) : NULL;
	struct kernels_targets targets = {.next = next, .row_hard = row_hard};
	struct kernels_loss_sums more;
	int rc = window == NULL || inputs == NULL || next == NULL || (e->window_nats != NULL && row_hard == NULL) ? ENOMEM : 0;

	*sums = (struct kernels_loss_sums){.finite = true};
	for (uint64_t first = (uint64_t)lane * group; first < e->n_windows && rc == 0; first += stride) {
		size_t n = (size_t)(e->n_windows - first < group ? e->n_windows - first : group);

		for (size_t i = 0; i < n && (rc = e->get(e->arg, first + i, window)) == 0; i++) {
			memcpy(inputs + i * len, window, len * sizeof(*inputs));
			memcpy(next + i * len, window + 1, len * sizeof(*next));
		}
		if (rc != 0 || (rc = model_forward(s, inputs, (int64_t)n, e->context)) != 0)
			break;
		targets.n_rows = (int64_t)(n * len);
		model_document_targets(inputs, targets.n_rows, s->document_end, next);
		if ((rc = model_loss(s, &targets, 0.0f, NULL, &more)) != 0)
			break;
		add(sums, &more);
		for (size_t i = 0; row_hard != NULL && i < n; i++)
			e->window_nats[first + i] = mean(row_hard + i * len, next + i * len, len);
	}
	free(row_hard);
	free(window);
	free(inputs);
	free(next);
	return rc;
}
