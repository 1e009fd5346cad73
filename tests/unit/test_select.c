/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing: golden values of the definition, ties, NaN, even and odd counts, and a reference that sorts. */
#include "check.h"
#include "base/hash/hash.h"
#include "data/corpus/blend.h"
#include "data/select/select.h"
#include "base/random/random.h"

static void
test_golden(void)
{
	/* example of the definition with k = 10: masked (0.10 2.30 0.70 0 1.20 0.05 0 1.90), S = 0.40 */
	static const float loss[] = {0.10f, 2.30f, 0.70f, 5.00f, 1.20f, 0.05f, 3.10f, 1.90f};
	static const uint8_t rank[] = {0, 3, 1, 40, 2, 0, 11, 6};
	float scratch[8];

	CHECK_NEAR(select_score(loss, rank, 8, 10, scratch), 0.40, 1e-7);
	/* all in the top k: 0.05 0.10 0.70 1.20 1.90 2.30 3.10 5.00 -> (1.20 + 1.90) / 2 */
	CHECK_NEAR(select_score(loss, rank, 8, 41, scratch), 1.55, 1e-6);
	/* rank < k: k = 11 masks rank 11, k = 12 does not: 0 .05 .10 .70 1.20 1.90 2.30 3.10 -> 0.95 */
	CHECK_NEAR(select_score(loss, rank, 8, 11, scratch), 0.40, 1e-7);
	CHECK_NEAR(select_score(loss, rank, 8, 12, scratch), 0.95, 1e-6);
	/* odd: without the last: 0 0 .05 .10 .70 1.20 2.30 -> .10 */
	CHECK_NEAR(select_score(loss, rank, 7, 10, scratch), 0.10, 1e-7);
	CHECK_NEAR(select_score(loss, rank, 1, 10, scratch), 0.10, 1e-7);
	CHECK(isnan(select_score(loss, rank, 0, 10, scratch)));
}

/* Loss 0 with rank 255 is a token without a prediction. Counted as 0, these three would give 0. */
static void
test_absent(void)
{
	static const float loss[] = {1, 0, 3, 0, 0, 0};
	static const uint8_t rank[] = {0, 255, 0, 255, 255, 0};
	float scratch[6];

	CHECK_NEAR(select_score(loss, rank, 5, 10, scratch), 2, 1e-7);
	CHECK_NEAR(select_score(loss, rank, 6, 10, scratch), 1, 1e-7);	/* rank 0: a real loss of 0 */
	CHECK(isnan(select_score(loss + 3, rank + 3, 2, 10, scratch)));
}

static void
test_nan(void)
{
	static const float loss[] = {1, NAN, 2};
	/* a NaN makes the score NaN even if it is masked */
	static const uint8_t rank[] = {0, 200, 0};
	float scratch[3];

	CHECK(isnan(select_score(loss, rank, 3, 10, scratch)));
}

static int
by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

static void
test_median_against_sort(void)
{
	float loss[300], scratch[300], sorted[300];
	uint8_t rank[300];
	uint32_t w[4];

	for (uint32_t round = 0; round < 400; round++) {
		uint32_t n;
		double want;

		random_words(7, RANDOM_PURPOSE_GENERATE, round, 0, 0, w);
		n = 1 + w[0] % 300;
		for (uint32_t i = 0; i < n; i++) {
			random_words(7, RANDOM_PURPOSE_GENERATE, round, 1, i, w);
			loss[i] = (float)(w[0] % (round % 2 == 0 ? 7 : 65536)) / 2048;	/* many ties in every second round */
			rank[i] = (uint8_t)(w[1] % 30);
			sorted[i] = rank[i] < 10 ? loss[i] : 0;
		}
		qsort(sorted, n, sizeof(float), by_value);
		want = n % 2 == 1 ? sorted[n / 2] : ((double)sorted[n / 2 - 1] + sorted[n / 2]) / 2;
		CHECK(select_score(loss, rank, n, 10, scratch) == want);
	}
}

static void
test_kept(void)
{
	static const struct {
		double keep;
		uint64_t window, want;
		const char *what;
	} rows[] = {
		{0.5, 64, 32, "half"}, {0.29, 100, 29, "0.29 * 100 is 28.999999999999996 in binary"}, {0.57, 100, 57, "0.57 * 100 likewise"},
		{1, 512, 512, "all"}, {0.333, 100, 33, "floor"}, {0.999, 10, 9, "never rounded up"}, {0.1, 9, 0, "none"}, {0.7, 10, 7, "7"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		CHECK_ROW(rows[i].what, select_kept(rows[i].keep, rows[i].window) == rows[i].want);
}

/* The reference: sorts by score, takes the first ones, and sorts them by position. */
static const float *sorted_scores;

static int
by_score(const void *a, const void *b)
{
	uint64_t i = *(const uint64_t *)a, j = *(const uint64_t *)b;

	if (sorted_scores[i] != sorted_scores[j])
		return sorted_scores[i] > sorted_scores[j] ? -1 : 1;
	return i < j ? -1 : i > j;
}

static int
by_offset(const void *a, const void *b)
{
	uint64_t i = *(const uint64_t *)a, j = *(const uint64_t *)b;

	return i < j ? -1 : i > j;
}

static uint64_t
sort_block(const float *score, uint64_t n, uint64_t n_keep, uint64_t *kept)
{
	uint64_t order[700], n_eligible = 0;

	REQUIRE(n <= 700);
	for (uint64_t i = 0; i < n; i++)
		if (!isnan(score[i]))
			order[n_eligible++] = i;
	sorted_scores = score;
	qsort(order, n_eligible, sizeof(*order), by_score);
	n_keep = n_keep < n_eligible ? n_keep : n_eligible;
	memcpy(kept, order, n_keep * sizeof(*kept));
	qsort(kept, n_keep, sizeof(*kept), by_offset);
	return n_keep;
}

/* Chooses from a block in steps of any length. */
static uint64_t
cut_block(const float *score, uint64_t n, uint64_t n_keep, uint64_t step, uint64_t *kept)
{
	static struct select_cut cut;
	struct select_limit limit;
	uint64_t at = 0;

	memset(&cut, 0, sizeof(cut));
	cut.n_keep = n_keep;
	for (int pass = 0; pass < 2; pass++) {
		for (uint64_t i = 0; i < n; i += step)
			select_cut_count(&cut, score + i, n - i < step ? n - i : step);
		select_cut_next(&cut);
	}
	limit = select_cut_limit(&cut, cut.n_keep);
	for (uint64_t i = 0; i < n; i++)
		if (select_take(&limit, score[i]))
			kept[at++] = i;
	CHECK(at == cut.n_keep);
	return at;
}

/* If fewer sequences are eligible than needed, the first of the others are added. */
static void
test_fill(void)
{
	static const float score[6] = {NAN, 1, NAN, 0, NAN, NAN};
	static struct select_cut cut = {.n_keep = 4};
	static const int want[6] = {1, 1, 1, 1, 0, 0};
	struct select_limit limit;

	for (int pass = 0; pass < 2; pass++) {
		select_cut_count(&cut, score, 6);
		select_cut_next(&cut);
	}
	limit = select_cut_limit(&cut, 4);
	for (int i = 0; i < 6; i++)
		CHECK(select_take(&limit, score[i]) == want[i]);
}

/* A part gets its share of the rows of all blocks, but never more in a block than it has sequences there. */
static void
test_parts(void)
{
	static const uint64_t n_windows[3] = {10, 10, 10};
	static const uint32_t shares[3] = {89, 10, 1};
	uint64_t rows[3], sum[3] = {0, 0, 0};
	struct blend *b;

	REQUIRE(blend_new(&b, n_windows, shares, 3, NULL) == 0);
	for (uint64_t no = 0; no < 100; no++) {
		uint64_t has[3] = {0, 0, 0};

		select_parts(b, no, 64, 16, rows);
		CHECK(rows[0] + rows[1] + rows[2] == 16);
		for (uint64_t p = no * 64; p < (no + 1) * 64; p++)
			has[blend_part_at(b, p)]++;
		for (int i = 0; i < 3; i++) {
			CHECK(rows[i] <= has[i]);
			sum[i] += rows[i];
		}
	}
	/* 1424, 160 and 16 of 1600 rows; a block without the rare part gives its row to the first */
	CHECK(sum[1] == 160 && sum[2] <= 16 && sum[2] >= 8 && sum[0] == 1600 - 160 - sum[2]);
	select_parts(b, 3, 5, 5, rows);
	CHECK(rows[0] + rows[1] + rows[2] == 5);
	blend_destroy(&b);
}

static void
test_block(void)
{
	static const struct {
		const char *what;
		float score[6];
		uint64_t n_keep, n_want, want[6];
	} rows[] = {
		{"highest, in the order of positions", {1, 5, 2, 4, 3, 0}, 3, 3, {1, 3, 4}},
		{"ties go to the lower position", {2, 2, 2, 2, 2, 2}, 2, 2, {0, 1}},
		{"a tie at the edge", {0, 3, 1, 1, 3, 1}, 3, 3, {1, 2, 4}},
		{"NaN never, even if too few are left", {NAN, 1, NAN, 0, NAN, NAN}, 3, 2, {1, 3}},
		{"zero scores are eligible", {0, 0, NAN, 0, 0, 0}, 5, 5, {0, 1, 3, 4, 5}},
		{"all NaN", {NAN, NAN, NAN, NAN, NAN, NAN}, 2, 0, {0}},
	};
	uint64_t kept[6];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t n = cut_block(rows[i].score, 6, rows[i].n_keep, 4, kept);

		CHECK_ROW(rows[i].what, n == rows[i].n_want);
		CHECK_ROW(rows[i].what, n == rows[i].n_want && memcmp(kept, rows[i].want, n * sizeof(*kept)) == 0);
	}
}

/* The cut in steps gives the same result as sorting: ties at the edge, NaN, both zeroes, too few. */
static void
test_cut(void)
{
	enum { N = 700 };
	float score[N];
	uint64_t want[N], kept[N];
	uint32_t w[4];

	for (uint32_t round = 0; round < 300; round++) {
		uint64_t n_keep, n;

		for (uint32_t i = 0; i < N; i++) {
			random_words(11, RANDOM_PURPOSE_GENERATE, round, i, 0, w);
			score[i] = (float)((int32_t)(w[0] % (round % 3 == 0 ? 5 : 1u << 20)) - (round % 2 == 0 ? 2 : 0)) / (round % 5 == 0 ? 1e6f : 64);
			if (w[1] % 7 == 0)
				score[i] = round % 4 == 0 ? NAN : w[1] % 2 == 0 ? -0.0f : 0.0f;
		}
		random_words(11, RANDOM_PURPOSE_GENERATE, round, 0, 1, w);
		n_keep = 1 + w[0] % N;
		n = sort_block(score, N, n_keep, want);
		CHECK(cut_block(score, N, n_keep, 97, kept) == n && memcmp(kept, want, n * sizeof(*kept)) == 0);
	}
}

int
main(void)
{
	test_golden();
	test_absent();
	test_nan();
	test_median_against_sort();
	test_kept();
	test_block();
	test_fill();
	test_parts();
	test_cut();
	return check_done();
}
