/* SPDX-License-Identifier: Apache-2.0 */
#include "data/labels/labels_internal.h"

#include <inttypes.h>
#include <math.h>

int
labels_scores_encode(const float *loss_nats, const int32_t *rank, uint32_t L, uint8_t *out, struct err_note *note)
{
	for (uint32_t t = 0; t < L; t++) {
		int rc = !isfinite(loss_nats[t]) ? ERR_NONFINITE : !(loss_nats[t] >= -1e-3f) || rank[t] < 0 ? ERR_RANGE : 0;

		if (rc != 0)
			return err_expect_at(note, rc, "score", "row %" PRIu32,
			    "a finite loss >= 0 and a rank >= 0", "loss %g, rank %" PRId32, t,
			    (double)loss_nats[t], rank[t]);
		/* For losses 65535 is an ordinary code, the largest loss. */
		labels__put(out + 3 * (size_t)t, labels__code(loss_nats[t] > 0 ? loss_nats[t] : 0), 2);
		out[3 * (size_t)t + 2] = (uint8_t)(rank[t] < 255 ? rank[t] : 255);
	}
	return 0;
}

int
labels_scores_decode(const void *bytes, size_t len, uint32_t L, float *loss_nats, uint8_t *rank, struct err_note *note)
{
	const uint8_t *p = bytes;

	if (len != (size_t)L * LABELS_SCORE_BYTES)
		return err_expect(note, ERR_CORRUPT, "score record", "%zu bytes (%" PRIu32 " tokens)", "%zu",
		    (size_t)L * LABELS_SCORE_BYTES, L, len);
	for (uint32_t t = 0; t < L; t++, p += LABELS_SCORE_BYTES) {
		if (loss_nats != NULL)
			loss_nats[t] = (float)labels__get(p, 2) / 2048;
		if (rank != NULL)
			rank[t] = p[2];
	}
	return 0;
}

bool
labels_score_absent(float loss_nats, uint8_t rank)
{
	return rank == 255 && loss_nats == 0;
}

void
labels_scores_within(const int32_t *tokens, uint32_t L, int32_t end, float *loss_nats, int32_t *rank)
{
	for (uint32_t t = 0; end >= 0 && t < L; t++)
		if (tokens[t] == end) {
			loss_nats[t] = 0;
			rank[t] = 255;
		}
}

double
labels_scores_mean(const float *loss_nats, const uint8_t *rank, uint32_t L, uint32_t *n)
{
	double sum = 0;
	uint32_t counted = 0;

	for (uint32_t t = 0; t < L; t++) {
		sum += (double)loss_nats[t];
		counted += !labels_score_absent(loss_nats[t], rank[t]);
	}
	if (n != NULL)
		*n = counted;
	return sum / counted;
}
