/* SPDX-License-Identifier: Apache-2.0 */
#include "data/select/select.h"
#include "data/corpus/blend.h"

#include <math.h>
#include <string.h>

/*
 * Wirth's selection: reorders x so that x[i < k] <= x[k] <= x[i > k]. Returns x[k], the k-th smallest from 0.
 * x must not contain NaN.
 */
static float
nth(float *x, ptrdiff_t n, ptrdiff_t k)
{
	ptrdiff_t lo = 0, hi = n - 1;

	while (lo < hi) {
		float pivot = x[k];
		ptrdiff_t i = lo, j = hi;

		do {
			while (x[i] < pivot)
				i++;
			while (pivot < x[j])
				j--;
			if (i <= j) {
				float t = x[i];

				x[i++] = x[j];
				x[j--] = t;
			}
		} while (i <= j);
		if (j < k)
			lo = i;
		if (k < i)
			hi = j;
	}
	return x[k];
}

double
select_score(const float *loss_nats, const uint8_t *rank, size_t n, unsigned k, float *scratch)
{
	size_t all = n;
	float high, low;

	n = 0;
	for (size_t t = 0; t < all; t++) {
		if (isnan(loss_nats[t]))
			return NAN;
		if (rank[t] != 255 || loss_nats[t] != 0)
			scratch[n++] = rank[t] < k ? loss_nats[t] : 0.0f;
	}
	if (n == 0)
		return NAN;
	high = nth(scratch, (ptrdiff_t)n, (ptrdiff_t)(n / 2));
	if (n % 2 == 1)
		return high;
	low = scratch[0];			/* largest of the lower half, which nth() put first */
	for (size_t t = 1; t < n / 2; t++)
		if (scratch[t] > low)
			low = scratch[t];
	return ((double)low + (double)high) / 2;
}

uint64_t
select_kept(double keep, uint64_t window)
{
	double exact = keep * (double)window;
	uint64_t kept;

	if (!(exact > 0))
		return 0;
	/*
	 * Rounding 0.29 to binary can lose half a unit in the last place of keep, and the product another
	 * half.
	 */
	exact = floor(exact + exact * 4 * 2.220446049250313e-16);
	if (!(exact < 18446744073709549568.0))
		return window;
	kept = (uint64_t)exact;
	return kept < window ? kept : window;
}

/* Keys, as unsigned numbers, sort as the scores do; 0 and -0 have the same key. */
static uint32_t
key_of(float score)
{
	uint32_t bits;

	if (score == 0)				/* of either sign */
		score = 0;
	memcpy(&bits, &score, sizeof(bits));
	return bits >> 31 != 0 ? ~bits : bits | UINT32_C(1) << 31;
}

void
select_cut_count(struct select_cut *cut, const float *score, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		uint32_t key;

		if (isnan(score[i]))
			continue;
		key = key_of(score[i]);
		if (cut->pass == 0) {
			cut->n_eligible++;
			cut->bins[key >> 16]++;
		} else if (key >> 16 == cut->key >> 16) {
			cut->bins[key & 0xffff]++;
		}
	}
}

void
select_cut_next(struct select_cut *cut)
{
	uint32_t bin = 0xffff;

	if (cut->n_keep > cut->n_eligible)
		cut->n_keep = cut->n_eligible;
	/* Find the bin of the lowest chosen score. */
	while (bin > 0 && cut->n_above + cut->bins[bin] < cut->n_keep)
		cut->n_above += cut->bins[bin--];
	cut->key = cut->pass == 0 ? bin << 16 : cut->key | bin;
	cut->n_ties = cut->n_keep - cut->n_above;
	cut->pass++;
	memset(cut->bins, 0, sizeof(cut->bins));
}

struct select_limit
select_cut_limit(const struct select_cut *cut, uint64_t n_keep)
{
	return (struct select_limit){.n_keep = cut->n_keep, .n_ties = cut->n_ties, .n_fill = n_keep - cut->n_keep, .key = cut->key};
}

int
select_take(struct select_limit *limit, float score)
{
	uint64_t *left;
	uint32_t key;

	if (isnan(score)) {
		left = &limit->n_fill;
	} else {
		if (limit->n_keep == 0)
			return 0;
		if ((key = key_of(score)) != limit->key)
			return key > limit->key;
		left = &limit->n_ties;
	}
	if (*left == 0)
		return 0;
	--*left;
	return 1;
}

void
select_parts(const struct blend *order, uint64_t no, uint64_t window, uint64_t kept, uint64_t *rows)
{
	uint64_t left = kept;

	for (size_t i = 0; i < blend_n_parts(order); i++) {
		uint64_t want = blend_taken(order, i, (no + 1) * kept) - blend_taken(order, i, no * kept);
		uint64_t has = blend_taken(order, i, (no + 1) * window) - blend_taken(order, i, no * window);

		rows[i] = want < has ? want : has;
		left -= rows[i];
	}
	for (size_t i = 0; left > 0 && i < blend_n_parts(order); i++) {
		uint64_t has = blend_taken(order, i, (no + 1) * window) - blend_taken(order, i, no * window);
		uint64_t more = has - rows[i] < left ? has - rows[i] : left;

		rows[i] += more;
		left -= more;
	}
}
