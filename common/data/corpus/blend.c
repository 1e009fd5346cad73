/* SPDX-License-Identifier: Apache-2.0 */
#include "data/corpus/blend.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/mem/mem.h"
#include "base/random/shuffle.h"

struct part {
	uint64_t n, first;		/* number of windows; index of the first */
	uint32_t share;
	uint32_t *at;			/* [share] positions in a period that visit this part, ascending */
};

struct blend {
	size_t n_parts;
	uint64_t n_windows;
	uint32_t period;
	uint8_t *part_at;		/* [period] */
	uint32_t *before;		/* [period]: number of earlier positions with the same part */
	uint32_t *at;			/* [period] memory of all parts' at */
	struct part part[];
};

/* Largest remainder method: every share is its quota of BLEND_PERIOD_MAX, rounded down or up. */
static void
round_shares(const double *weights, double sum, size_t n, uint32_t *shares)
{
	double rest[BLEND_PARTS_MAX];
	uint32_t total = 0;

	for (size_t i = 0; i < n; i++) {
		double quota = weights[i] / sum * BLEND_PERIOD_MAX;

		shares[i] = (uint32_t)quota;
		rest[i] = quota - shares[i];
		total += shares[i];
	}
	for (; total < BLEND_PERIOD_MAX; total++) {
		size_t most = 0;

		for (size_t i = 1; i < n; i++)
			if (rest[i] > rest[most])
				most = i;
		shares[most]++;
		rest[most]--;
	}
}

static bool
fits(const double *weights, double sum, size_t n, uint32_t period, uint32_t *shares)
{
	uint64_t total = 0;

	for (size_t i = 0; i < n; i++) {
		double quota = weights[i] / sum * period, whole = floor(quota + 0.5);

		if (fabs(quota - whole) > 1e-6 || whole < 1)
			return false;
		shares[i] = (uint32_t)whole;
		total += shares[i];
	}
	return total == period;
}

int
blend_shares(const double *weights, size_t n, uint32_t *shares, size_t *bad)
{
	double sum = 0;

	if (n < 1 || n > BLEND_PARTS_MAX)
		return ERR_RANGE;
	for (*bad = 0; *bad < n; ++*bad) {
		if (!(weights[*bad] > 0) || !isfinite(weights[*bad]))
			return ERR_RANGE;
		sum += weights[*bad];
	}
	for (uint32_t period = 1; isfinite(sum) && period <= BLEND_PERIOD_MAX; period++)
		if (fits(weights, sum, n, period, shares))
			return 0;
	if (isfinite(sum))
		round_shares(weights, sum, n, shares);
	for (*bad = 0; *bad < n; ++*bad)
		if (!isfinite(sum) || shares[*bad] == 0)
			return ERR_RANGE;
	return 0;
}

/* Fills the tables of a period. */
static void
fill(struct blend *b)
{
	uint32_t taken[BLEND_PARTS_MAX] = {0};

	for (uint32_t q = 0; q < b->period; q++) {
		int64_t most = INT64_MIN;
		uint8_t part = 0;

		for (size_t i = 0; i < b->n_parts; i++) {
			int64_t behind = (int64_t)b->part[i].share * (q > 0 ? q : 1) - (int64_t)taken[i] * b->period;

			if (behind > most) {
				most = behind;
				part = (uint8_t)i;
			}
		}
		b->part_at[q] = part;
		b->before[q] = taken[part];
		b->part[part].at[taken[part]++] = q;
	}
}

int
blend_new(struct blend **out, const uint64_t *n_windows, const uint32_t *shares, size_t n, struct err_note *note)
{
	struct blend *b;
	uint64_t period = 0, used = 0;

	*out = NULL;
	for (size_t i = 0; i < n; i++) {
		if (n_windows[i] == 0 || n_windows[i] >> 48 != 0 || (n > 1 && shares[i] == 0))
			return err_expect(note, ERR_RANGE, "part %zu of a blend", "windows and a share", "%" PRIu64 " windows", i, n_windows[i]);
		period += n > 1 ? shares[i] : 1;
	}
	if (n < 1 || n > BLEND_PARTS_MAX || period > BLEND_PERIOD_MAX)
		return err_expect(note, ERR_RANGE, "a blend", "1 to %u parts and a period of at most %u", "%zu, %" PRIu64, BLEND_PARTS_MAX,
		    BLEND_PERIOD_MAX, n, period);
	if ((b = calloc(1, sizeof(*b) + n * sizeof(b->part[0]))) == NULL)
		goto no_memory;
	b->n_parts = n;
	b->period = (uint32_t)period;
	if (n > 1 && ((b->part_at = mem_alloc(period, sizeof(*b->part_at))) == NULL ||
	    (b->before = mem_alloc(period, sizeof(*b->before))) == NULL || (b->at = mem_alloc(period, sizeof(*b->at))) == NULL))
		goto no_memory;
	for (size_t i = 0; i < n; i++) {
		b->part[i] = (struct part){n_windows[i], b->n_windows, n > 1 ? shares[i] : 1, b->at != NULL ? b->at + used : NULL};
		b->n_windows += n_windows[i];
		used += b->part[i].share;
	}
	if (n > 1)
		fill(b);
	*out = b;
	return 0;
no_memory:
	blend_destroy(&b);
	return err_note_set(note, ENOMEM, "a blend of %zu corpora", n);
}

void
blend_destroy(struct blend **b)
{
	if (*b == NULL)
		return;
	free((*b)->part_at);
	free((*b)->before);
	free((*b)->at);
	free(*b);
	*b = NULL;
}

size_t
blend_n_parts(const struct blend *b)
{
	return b->n_parts;
}

uint64_t
blend_n_windows(const struct blend *b)
{
	return b->n_windows;
}

uint32_t
blend_share(const struct blend *b, size_t part, uint32_t *period)
{
	*period = b->period;
	return b->part[part].share;
}

/* Returns the part that contains index; *window: number of the window in that part. */
static size_t
part_of(const struct blend *b, uint64_t index, uint64_t *window)
{
	size_t i = b->n_parts - 1;

	while (b->part[i].first > index)
		i--;
	*window = index - b->part[i].first;
	return i;
}

size_t
blend_part_at(const struct blend *b, uint64_t p)
{
	return b->n_parts > 1 ? b->part_at[p % b->period] : 0;
}

uint64_t
blend_order(const struct blend *b, uint32_t seed, uint64_t p)
{
	size_t i = blend_part_at(b, p);
	const struct part *part = &b->part[i];

	if (b->n_parts == 1)
		return shuffle_order(seed, part->n, p);
	return part->first + shuffle_order(seed + (uint32_t)i, part->n, p / b->period * part->share + b->before[p % b->period]);
}

uint64_t
blend_position(const struct blend *b, uint32_t seed, uint64_t epoch, uint64_t index)
{
	uint64_t window, start, j, p;
	size_t i = part_of(b, index, &window);
	const struct part *part = &b->part[i];

	if (__builtin_mul_overflow(epoch, part->n, &start) || start > UINT64_MAX - part->n)
		return UINT64_MAX;
	j = start + shuffle_position(seed + (uint32_t)i, part->n, epoch, window);
	if (b->n_parts == 1)
		return j;
	if (__builtin_mul_overflow(j / part->share, (uint64_t)b->period, &p) || p > UINT64_MAX - b->period)
		return UINT64_MAX;
	return p + part->at[j % part->share];
}

uint64_t
blend_epoch_at(const struct blend *b, uint64_t index, uint64_t p)
{
	uint64_t window;
	size_t i = part_of(b, index, &window);

	return blend_taken(b, i, p) / b->part[i].n;
}

uint64_t
blend_round(const struct blend *b)
{
	uint64_t most = 0;

	for (size_t i = 0; i < b->n_parts; i++) {
		uint64_t n = b->part[i].n, share = b->part[i].share, p = ((n - 1) / share + 1) * b->period;

		most = p > most ? p : most;
	}
	return b->n_parts > 1 ? most : b->n_windows;
}

uint64_t
blend_taken(const struct blend *b, size_t i, uint64_t p)
{
	const struct part *part = &b->part[i];
	uint64_t q = p % b->period;
	size_t lo = 0, hi = part->share;

	if (b->n_parts == 1)
		return p;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (part->at[mid] < q)
			lo = mid + 1;
		else
			hi = mid;
	}
	return p / b->period * part->share + lo;
}
