/* SPDX-License-Identifier: Apache-2.0 */
/* Blends: the order compared with Megatron's rule, its inverse, shares, and lists of corpora. */
#include <errno.h>

#include "base/random/shuffle.h"
#include "corpus_files.h"
#include "data/corpus/blend.h"

enum { L = 4, VOCAB = 50 };

/* The rule of build_blending_indices (Megatron-LM), in doubles as in the original: the weights sum to 1. */
static void
megatron(const double *weight, int n_parts, int n, int *part, int *sample)
{
	int taken[8] = {0};

	for (int k = 0; k < n; k++) {
		double most = -1e9;

		for (int i = 0; i < n_parts; i++) {
			double behind = weight[i] * (k > 1 ? k : 1) - taken[i];

			if (behind > most) {
				most = behind;
				part[k] = i;
			}
		}
		sample[k] = taken[part[k]]++;
	}
}

static struct blend *
blend_of(const double *weights, const uint64_t *n_windows, size_t n)
{
	uint32_t shares[BLEND_PARTS_MAX];
	struct blend *b = NULL;
	size_t bad;

	REQUIRE(blend_shares(weights, n, shares, &bad) == 0 && blend_new(&b, n_windows, shares, n, &note) == 0);
	return b;
}

/* The period is a prime, so two parts are never equally far behind, and doubles decide like whole numbers. */
static void
order_is_megatrons(void)
{
	static const double weights[3] = {503, 199, 307}, shares[3] = {503 / 1009.0, 199 / 1009.0, 307 / 1009.0};
	static const uint64_t n_windows[3] = {40, 1000, 300}, first[3] = {0, 40, 1040};
	static const int tenth[10] = {0, 1, 2, 0, 1, 0, 2, 0, 1, 0};	/* 0.5, 0.3, 0.2 by hand */
	int part[1009], sample[1009];
	struct blend *b = blend_of(weights, n_windows, 3);
	uint32_t period;

	megatron(shares, 3, 1009, part, sample);
	CHECK(blend_share(b, 1, &period) == 199 && period == 1009);
	for (uint64_t p = 0; p < 3 * 1009; p++) {
		int i = part[p % 1009];
		uint64_t j = (uint64_t)sample[p % 1009] + p / 1009 * (uint64_t)weights[i];

		CHECK((int)blend_part_at(b, p) == i);
		CHECK(blend_order(b, 7, p) == first[i] + shuffle_order(7 + (uint32_t)i, n_windows[i], j));
	}
	blend_destroy(&b);

	b = blend_of((const double[]){0.5, 0.3, 0.2}, n_windows, 3);
	for (uint64_t p = 0; p < 30; p++)
		CHECK((int)blend_part_at(b, p) == tenth[p % 10]);
	blend_destroy(&b);

	/* of equal parts the first one comes first */
	b = blend_of((const double[]){2, 2, 2}, n_windows, 3);
	for (uint64_t p = 0; p < 9; p++)
		CHECK(blend_part_at(b, p) == p % 3);
	blend_destroy(&b);
}

/* Shares are within 0.1 % of the weights over 100,000 positions from any start, also without a period. */
static void
shares_are_the_weights(void)
{
	static const double rows[3][3] = {{0.7, 0.2, 0.1}, {3.14159265358979, 2.71828182845905, 1.41421356237310}, {1, 1e-2, 0.333333333}};
	static const uint64_t n_windows[3] = {5, 500, 50000}, from[2] = {0, 1234567};

	for (int r = 0; r < 3; r++) {
		struct blend *b = blend_of(rows[r], n_windows, 3);

		for (size_t i = 0; i < 6; i++) {
			uint64_t p = from[i % 2], n = blend_taken(b, i / 2, p + 100000) - blend_taken(b, i / 2, p);
			double want = rows[r][i / 2] / (rows[r][0] + rows[r][1] + rows[r][2]);

			CHECK_NEAR((double)n / 100000 / want, 1, 1e-3);
		}
		blend_destroy(&b);
	}
}

/* Every sequence of a part comes once an epoch; blend_position, _epoch_at, _taken, _round equal counting. */
static void
inverse(void)
{
	static const uint64_t n_windows[3] = {7, 31, 3};
	struct blend *b = blend_of((const double[]){4, 5, 2}, n_windows, 3);
	uint64_t times[41] = {0}, taken[3] = {0}, unseen = 41;

	CHECK(blend_n_windows(b) == 41 && blend_n_parts(b) == 3);
	for (uint64_t p = 0; p < 2000; p++) {
		uint64_t index = blend_order(b, 11, p);
		size_t i = blend_part_at(b, p);

		REQUIRE(index < 41 && i == (index < 7 ? 0 : index < 38 ? 1 : 2));
		CHECK(blend_taken(b, i, p) == taken[i] && times[index] == taken[i] / n_windows[i]);
		CHECK(blend_position(b, 11, times[index], index) == p && blend_epoch_at(b, index, p) == times[index]);
		unseen -= times[index]++ == 0;
		taken[i]++;
		CHECK(p + 1 < blend_round(b) || unseen == 0);
	}
	CHECK(blend_position(b, 11, UINT64_MAX / 2, 40) == UINT64_MAX);
	blend_destroy(&b);
}

static void
one_part_is_the_shuffle(void)
{
	static const uint64_t n = 1000;
	struct blend *b = blend_of((const double[]){17}, &n, 1);

	for (uint64_t p = 0; p < 3000; p += 7) {
		CHECK(blend_order(b, 5, p) == shuffle_order(5, n, p) && blend_taken(b, 0, p) == p && blend_part_at(b, p) == 0);
		CHECK(blend_position(b, 5, p / n, blend_order(b, 5, p)) == p);
	}
	CHECK(blend_round(b) == n);
	blend_destroy(&b);
}

static void
bad_weights(void)
{
	static const double rows[][3] = {{1, 0, 1}, {1, -1, 1}, {1, NAN, 1}, {1, INFINITY, 1}, {1, 1e-9, 1}};
	uint32_t shares[3];
	uint64_t n = 0;
	struct blend *b;
	size_t bad;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		CHECK(blend_shares(rows[i], 3, shares, &bad) == ERR_RANGE && bad == 1);
	CHECK(blend_new(&b, &n, (const uint32_t[]){1}, 1, &note) == ERR_RANGE && b == NULL);
}

/* Writes a Megatron corpus of n documents. */
static void
make(const char *name, int n, uint32_t vocab, uint64_t tokenizer)
{
	struct corpus_writer_options o = {.vocab = vocab, .eod = 2, .tokenizer = {0xabc, tokenizer}};
	struct corpus_writer *w = NULL;

	REQUIRE(corpus_writer_new(&w, in_dir(name), &o, &note) == 0);
	for (int d = 0; d < n; d++) {
		int32_t ids[5] = {d % 50, n % 50, 7, 8, 9};

		REQUIRE(corpus_writer_document(w, ids, 5, 9, &note) == 0);
	}
	REQUIRE(corpus_writer_finish(w, NULL, &note) == 0);
	corpus_writer_destroy(&w);
}

static const char *
list_of(const char *a, double wa, const char *b, double wb)
{
	static char text[2][900];
	static int turn;
	char *out = text[turn++ % 2];

	snprintf(out, sizeof(text[0]), "[{\"prefix\": \"%s\", \"weight\": %.9g}, {\"weight\": %.9g, \"prefix\": \"%s\"}]", in_dir(a), wa, wb, in_dir(b));
	return out;
}

static struct hash128
fingerprint_of(const char *prefix)
{
	struct corpus *c = NULL;
	struct hash128 h = {0, 0};

	CHECK(corpus_open(&c, prefix, &note) == 0 && corpus_fingerprint(c, &h, &note) == 0);
	corpus_destroy(&c);
	return h;
}

/* The sequences of a list are those of its parts in order; counts and sizes are the sums. */
static void
list_is_a_corpus(void)
{
	uint64_t counts[3][VOCAB];
	struct corpus *c[3];
	struct blend *b;
	int32_t got[L + 1], want[L + 1];
	uint64_t n[2], window;

	REQUIRE(corpus_open(&c[0], list_of("a", 1, "b", 3), &note) == 0);
	REQUIRE(corpus_open(&c[1], in_dir("a"), &note) == 0 && corpus_open(&c[2], in_dir("b"), &note) == 0);
	n[0] = corpus_n_windows(c[1], L);
	n[1] = corpus_n_windows(c[2], L);
	CHECK(corpus_n_parts(c[0]) == 2 && corpus_n_windows(c[0], L) == n[0] + n[1] && corpus_info(c[0])->n_documents == 30 &&
	    corpus_info(c[0])->vocab == VOCAB && corpus_info(c[0])->eod == 2 && corpus_info(c[0])->n_bytes == 270);
	CHECK_STR(corpus_kind_name(corpus_info(c[0])->kind), "blend");
	for (uint64_t i = 0; i < n[0] + n[1]; i++) {
		const struct corpus *part = i < n[0] ? c[1] : c[2];

		CHECK(corpus_window(c[0], i, L, got, &note) == 0 && corpus_window(part, i < n[0] ? i : i - n[0], L, want, &note) == 0 &&
		    memcmp(got, want, sizeof(got)) == 0);
		CHECK(strcmp(corpus_prefix(corpus_at(c[0], L, i, &window)), corpus_prefix(part)) == 0 && window == (i < n[0] ? i : i - n[0]));
	}
	CHECK(corpus_window(c[0], n[0] + n[1], L, got, &note) == ERR_RANGE && corpus_at(c[0], L, n[0] + n[1], &window) == NULL);
	for (int i = 0; i < 3; i++)
		CHECK(corpus_counts(c[i], VOCAB, counts[i], &note) == 0);
	for (int v = 0; v < VOCAB; v++)
		CHECK(counts[0][v] - 1 == counts[1][v] - 1 + counts[2][v] - 1);
	CHECK(corpus_check_vocab(c[0], VOCAB, &note) == 0 && corpus_verify(c[0], &note) == 0 && corpus_limit_vocab(c[0], VOCAB, &note) == 0);
	CHECK(corpus_check_vocab(c[0], 20, &note) == ERR_CORRUPT);
	CHECK(corpus_limit_vocab(c[0], VOCAB - 1, &note) == ERR_MISMATCH);
	REQUIRE(corpus_blend(&b, c[0], L, &note) == 0);
	CHECK(blend_n_windows(b) == n[0] + n[1] && blend_part_at(b, 0) == 1);
	blend_destroy(&b);
	for (int i = 0; i < 3; i++)
		corpus_destroy(&c[i]);
}

/* The fingerprint depends on parts, their order and shares; a list of one corpus has that of the corpus. */
static void
identity(void)
{
	struct hash128 ab = fingerprint_of(list_of("a", 1, "b", 3)), a = fingerprint_of(in_dir("a"));
	char one[400];

	CHECK(hash_equal(ab, fingerprint_of(list_of("a", 0.25, "b", 0.75))));
	CHECK(!hash_equal(ab, fingerprint_of(list_of("a", 1, "b", 2))));
	CHECK(!hash_equal(ab, fingerprint_of(list_of("b", 3, "a", 1))));
	CHECK(!hash_equal(ab, a));
	snprintf(one, sizeof(one), "[{\"prefix\": \"%s\", \"weight\": 0.2}]", in_dir("a"));
	CHECK(hash_equal(fingerprint_of(one), a));
}

static void
rejected(const char *text, int want, const char *says)
{
	struct corpus *c = NULL;
	char got[1200];
	int rc = corpus_open(&c, text, &note);

	err_note_str(&note, rc, got, sizeof(got));
	CHECK_ROW(text, rc == want && c == NULL && strstr(got, says) != NULL);
	if (strstr(got, says) == NULL)
		fprintf(stderr, "  %s\n", got);
}

static void
bad_lists(void)
{
	struct corpus *c = NULL;
	struct blend *b;

	rejected(list_of("a", 1, "absent", 1), ENOENT, "absent");
	rejected(list_of("a", 1, "other", 1), ERR_MISMATCH, "tokenizer");
	rejected(list_of("a", 1, "wide", 1), ERR_MISMATCH, "type of the ids");
	rejected(list_of("a", 1, "b", -1), ERR_RANGE, "/b: weight");
	rejected(list_of("a", 1, "b", 1e-9), ERR_RANGE, "/b: weight");
	rejected(list_of("a", 1, "a", 1), ERR_FORMAT, "part 2");
	rejected("[{\"prefix\": \"a\"}]", ERR_FORMAT, "part 1");
	rejected("[{\"prefix\": 3, \"weight\": 1}]", ERR_FORMAT, "part 1");
	rejected("[{\"prefix\": \"a\", \"weight\": \"1\"}]", ERR_FORMAT, "weight");
	rejected("[{\"prefix\": \"a\", \"weight\": 1, \"more\": 1}]", ERR_FORMAT, "more members");
	rejected("[{]", ERR_FORMAT, "list of corpora");

	REQUIRE(corpus_open(&c, list_of("a", 1, "b", 1), &note) == 0);		/* 60 and 120 tokens */
	CHECK(corpus_blend(&b, c, 60, &note) == ERR_RANGE && b == NULL && strcmp(note.name, in_dir("a")) == 0);
	corpus_destroy(&c);
}

int
main(void)
{
	files_begin();
	make("a", 10, VOCAB, 1);
	make("b", 20, VOCAB, 1);
	make("other", 10, VOCAB, 2);
	make("wide", 10, 70000, 1);
	order_is_megatrons();
	shares_are_the_weights();
	inverse();
	one_part_is_the_shuffle();
	bad_weights();
	list_is_a_corpus();
	identity();
	bad_lists();
	files_end();
	return check_done();
}
