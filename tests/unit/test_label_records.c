/* SPDX-License-Identifier: Apache-2.0 */
/* Label records byte by byte: golden ones, damaged ones, and intact ones that break a rule. */
#include "data/labels/labels.h"

#include <stdint.h>
#include "check.h"

static struct err_note note;

/* Reads a file that tests/golden/labels/make.py made from the documented offsets; 0 if there is none. */
static size_t
golden(const char *name, uint8_t *out, size_t cap)
{
	char path[128];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "tests/golden/labels/%s.bin", name);
	f = fopen(path, "rb");
	REQUIRE(f != NULL);
	n = fread(out, 1, cap, f);
	fclose(f);
	REQUIRE(n > 0 && n < cap);
	return n;
}

enum { GOLDEN_KINDS = 7, GOLDEN_MAX = 2048, LIKE_ROWS = 260, LIKE_DRAWS = 12 };

static int32_t golden_tokens[GOLDEN_KINDS][LIKE_ROWS + 1] = {{11, 69999, 0, 7}, {11, 69999, 0, 7}, {4, 0, 1, 2}, {0, 1, 2, 3, 4, 0}, {0, 1, 2}};
static struct labels_spec golden_spec[GOLDEN_KINDS] = {
	{.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = 3, .vocab = 70000, .n_samples = 300, .tau = 1, .set = {21, 22}},
	{.kind = LABELS_KIND_TOPK, .version = LABELS_VERSION, .context = 3, .vocab = 65537, .k = 3, .tau = 1},
	{.kind = LABELS_KIND_DENSE, .version = LABELS_VERSION, .context = 3, .vocab = 5, .tau = 1},
	{.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = 5, .vocab = 5, .n_samples = 7, .tau = 1, .set = {21, 22}},
	{.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = 2, .vocab = 5, .n_samples = 1, .tau = 1, .set = {21, 22}},
	{.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = LIKE_ROWS, .vocab = 6000, .n_samples = LIKE_DRAWS, .tau = 1, .set = {21, 22}},
	{.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = 40, .vocab = 3000, .n_samples = LIKE_DRAWS, .tau = 1, .set = {21, 22}},
};
static const char *const golden_name[GOLDEN_KINDS] = {"sampled", "topk", "dense", "tiny", "one", "like", "common"};
static struct labels_unigram *golden_unigram[4];

static void
unigrams_make(void)
{
	static const uint8_t five[5] = {1, 255, 16, 15, 200}, likes[6] = {120, 132, 140, 148, 168, 180};
	static uint8_t codes[70000];
	char hex[HASH_HEX_BYTES];

	for (int i = 0; i <= LIKE_ROWS; i++)
		golden_tokens[5][i] = i * 17;
	for (uint32_t v = 0; v < 70000; v++)
		codes[v] = (uint8_t)(1 + v * 7919 % 251);
	REQUIRE(labels_unigram_new(&golden_unigram[0], codes, 70000, &note) == 0);
	REQUIRE(labels_unigram_new(&golden_unigram[1], five, 5, &note) == 0);
	CHECK_STR(hash_hex(labels_unigram_hash(golden_unigram[0]), hex), "79f002b56cc64768ad2f4dc4f5869388");
	golden_spec[0].unigram = golden_unigram[0];
	for (uint32_t v = 0; v < 6000; v++)
		codes[v] = v % 100 == 0 ? likes[v / 1000] : (uint8_t)(1 + v * 7919 % 100);
	REQUIRE(labels_unigram_new(&golden_unigram[2], codes, 6000, &note) == 0);
	golden_spec[5].unigram = golden_unigram[2];
	for (int i = 0; i <= 40; i++)
		golden_tokens[6][i] = i;
	memset(codes, 9, 3000);
	REQUIRE(labels_unigram_new(&golden_unigram[3], codes, 3000, &note) == 0);
	golden_spec[6].unigram = golden_unigram[3];
	golden_spec[3].unigram = golden_spec[4].unigram = golden_unigram[1];
}

static struct hash128
golden_hash(int i)
{
	return hash_tokens(golden_tokens[i], (size_t)golden_spec[i].context + 1);
}

/*
 * Row t of like.bin. Rows with the same t mod 5 have ids in common. Two pairs have other ids in common: rows
 * 1 and 256, which are 255 apart, and rows 3 and 259, which are 256 apart.
 */
static int
like_row(int t, int32_t *ids, int32_t *counts)
{
	int n = 1 + t % 6, far = t == 1 || t == 256 ? 500 : t == 3 || t == 259 ? 700 : 100 * (t % 5);

	for (int i = 0; i < n; i++) {
		ids[i] = 1000 * i + far + (i % 3 == 2 ? t : 0);
		counts[i] = 1;
	}
	counts[t * 7 % n] += (LIKE_DRAWS - n) * (t % 4) / 4;
	counts[t * 3 % n] += LIKE_DRAWS - n - (LIKE_DRAWS - n) * (t % 4) / 4;
	return n;
}

/* Row t of common.bin: some of four ids, each the last or the first of a class of equally common ids. */
static int
common_row(int t, int32_t *ids, int32_t *counts)
{
	static const int32_t four[4] = {127, 128, 2047, 2048};
	int n = 0;

	for (int i = 0; i < 4; i++)
		if ((t % 15 + 1) >> i & 1) {
			counts[n] = 1;
			ids[n++] = four[i];
		}
	counts[0] = LIKE_DRAWS + 1 - n;
	return n;
}

/* Writes ids and counts of row t, as in tests/golden/labels/make.py; returns their number. */
static int
golden_row(int which, int t, int32_t *ids, int32_t *counts)
{
	static const int32_t four_ids[4] = {5, 6, 134, 69999}, four_counts[4] = {1, 128, 129, 42};
	int n = which == 0 ? (t == 0 ? 1 : t == 1 ? 4 : 100) : which == 3 ? t + 1 : 1;

	if (which >= 5)
		return which == 5 ? like_row(t, ids, counts) : common_row(t, ids, counts);
	for (int i = 0; i < n; i++) {
		ids[i] = which == 0 ? (t == 0 ? 0 : t == 1 ? four_ids[i] : 5 + 233 * i) : which == 3 ? i : t == 0 ? 4 : 0;
		counts[i] = which == 0 ? (t == 0 ? 300 : t == 1 ? four_counts[i] : 1 + i % 5) : which == 3 ? (i < n - 1 ? 1 : 8 - n) : 1;
	}
	return n;
}

static void
golden_sampled(int which)
{
	const struct labels_spec *spec = &golden_spec[which];
	const int L = (int)spec->context, N = (int)spec->n_samples;
	static int32_t ids[LIKE_ROWS * LIKE_DRAWS], counts[LIKE_ROWS * LIKE_DRAWS], draws[LIKE_ROWS * LIKE_DRAWS], n_unique[LIKE_ROWS];
	struct hash128 tokens = golden_hash(which);
	struct labels_batch batch = {0};
	struct labels_buf buf = {0};
	uint8_t file[GOLDEN_MAX];
	size_t n = golden(golden_name[which], file, sizeof(file)), at = 0;

	for (int t = 0; t < L; t++) {
		int d = 0;

		n_unique[t] = golden_row(which, t, ids + t * N, counts + t * N);
		for (int i = 0; i < n_unique[t]; i++)
			for (int c = 0; c < counts[t * N + i]; c++, d++)
				draws[t * N + (N == 300 ? (d * 7) % N : N - 1 - d)] = ids[t * N + i];	/* 7 and 300 share no factor: a permutation */
		REQUIRE(d == N);
	}
	CHECK(labels_encode_sampled(spec, tokens, n_unique, ids, counts, &buf, &note) == 0);
	CHECK_ROW(golden_name[which], buf.len == n && memcmp(buf.bytes, file, n) == 0);
	CHECK(labels_encode_draws(spec, tokens, draws, &buf, &note) == 0);
	CHECK_ROW(golden_name[which], buf.len == n && memcmp(buf.bytes, file, n) == 0);

	/* a second sequence is appended to the first */
	for (int again = 0; again < 3; again++) {
		if (again == 2)
			labels_batch_clear(&batch);
		REQUIRE(labels_decode(spec, tokens, file, n, &batch, &note) == 0);
		CHECK(batch.n_rows == (size_t)(again == 1 ? 2 * L : L) && batch.kind == LABELS_KIND_SAMPLED && batch.vocab == spec->vocab);
	}
	for (int t = 0; t < L; t++) {
		CHECK(batch.row_offsets[t] == (int64_t)at && batch.row_offsets[t + 1] == (int64_t)at + n_unique[t] && batch.tail[t] == 0);
		for (int i = 0; i < n_unique[t]; i++, at++) {
			CHECK_ROW(golden_name[which], batch.ids[at] == ids[t * N + i]);
			CHECK_NEAR(batch.weights[at], counts[t * N + i] / (double)N, 1e-7);
		}
	}
	labels_batch_free(&batch);
	labels_buf_free(&buf);
}

static void
golden_topk(void)
{
	static const int32_t ids[9] = {65536, 3, 70, 9, 2, 65000, 4, 1, 3};
	static const float log_p[9] = {-0.69314718f, -1.38629436f, -2.07944154f, -1, -3, -3, 0, -31.99951171875f, -40};
	static const int32_t want_ids[9] = {3, 70, 65536, 2, 9, 65000, 1, 3, 4};
	static const double want_t[9] = {0.25, 0.125, 0.5, 0.0497870684, 0.3678794412, 0.0497870684, 0, 0, 1};
	static const double want_tail[3] = {0.125, 0.5325464220, 0};
	struct hash128 tokens = golden_hash(1);
	struct labels_batch batch = {0};
	struct labels_buf buf = {0};
	uint8_t file[GOLDEN_MAX];
	size_t n = golden("topk", file, sizeof(file));

	CHECK(labels_encode_topk(&golden_spec[1], tokens, ids, log_p, &buf, &note) == 0);
	CHECK(buf.len == n && memcmp(buf.bytes, file, n) == 0);
	REQUIRE(labels_decode(&golden_spec[1], tokens, file, n, &batch, &note) == 0);
	CHECK(batch.n_rows == 3 && batch.row_offsets[1] == 3 && batch.row_offsets[3] == 9);
	for (int i = 0; i < 9; i++) {
		CHECK(batch.ids[i] == want_ids[i]);
		CHECK_NEAR(batch.weights[i], want_t[i], want_t[i] / 4000 + 1e-13);
	}
	CHECK(batch.weights[7] == 0);	/* exp(-40) has code 65535, which is exactly 0 */
	for (int t = 0; t < 3; t++)
		CHECK_NEAR(batch.tail[t], want_tail[t], 2.5e-4);
	labels_batch_free(&batch);
	labels_buf_free(&buf);
}

/* Soft labels for golden values of the definition, with tau 1 and 0.25. */
static void
golden_dense(void)
{
	static const double want[15] = {0.469911, 0.172871, 0.063596, 0.285016, 0.008607, 0.866561, 0.015872, 0.000291, 0.117276, 0,
	    0.473991, 0.174371, 0.064148, 0.287490, 0};
	static const float u[4] = {2, 1, 0, 1.5f};
	struct hash128 tokens = golden_hash(2);
	struct labels_batch batch = {0};
	struct labels_buf buf = {0};
	float log_p[15];
	uint8_t file[GOLDEN_MAX];
	size_t n = golden("dense", file, sizeof(file));

	for (int t = 0; t < 3; t++) {
		double tau = t == 1 ? 0.25 : 1, sum = 0;

		for (int v = 0; v < 5; v++)
			sum += v < 4 ? exp(u[v] / tau) : t < 2 ? exp(-2 / tau) : 0;
		for (int v = 0; v < 5; v++)
			log_p[5 * t + v] = v == 4 && t == 2 ? -INFINITY : (float)((v < 4 ? u[v] : -2) / tau - log(sum));
	}
	CHECK(labels_encode_dense(&golden_spec[2], tokens, log_p, &buf, &note) == 0);
	CHECK(buf.len == n && memcmp(buf.bytes, file, n) == 0);
	REQUIRE(labels_decode(&golden_spec[2], tokens, file, n, &batch, &note) == 0);
	CHECK(batch.n_rows == 3 && batch.kind == LABELS_KIND_DENSE);
	for (int i = 0; i < 15; i++)
		CHECK_NEAR(batch.dense[i], want[i], want[i] / 4000 + 6e-7);
	CHECK(batch.dense[14] == 0);
	for (int t = 0; t < 3; t++) {
		double sum = 0;

		for (int v = 0; v < 5; v++)
			sum += (double)batch.dense[5 * t + v];
		CHECK_NEAR(sum, 1, 1e-6);
	}
	labels_batch_free(&batch);
	labels_buf_free(&buf);
}

/* A flipped bit, a truncated record and an extra byte are rejected; the batch is unchanged. */
static void
damage(void)
{
	for (int kind = 0; kind < GOLDEN_KINDS; kind++) {
		const struct labels_spec *spec = &golden_spec[kind];
		struct hash128 tokens = golden_hash(kind);
		struct labels_batch batch = {0};
		struct labels_header h;
		uint8_t file[GOLDEN_MAX], bad[GOLDEN_MAX];
		size_t n = golden(golden_name[kind], file, sizeof(file));

		REQUIRE(labels_decode(spec, tokens, file, n, &batch, &note) == 0);
		CHECK(labels_check(spec, &tokens, file, n, &note) == 0 && labels_check(spec, NULL, file, n, &note) == 0);
		CHECK(labels_peek(file, n, &h, &note) == 0 && h.kind == spec->kind && h.context == spec->context && hash_equal(h.set, spec->set) && h.vocab == spec->vocab &&
		    hash_equal(h.tokens, tokens) && h.version == LABELS_VERSION && h.payload_bytes == n - LABELS_OVERHEAD_BYTES);
		for (size_t bit = 0; bit < 8 * n; bit++) {
			int rc;

			memcpy(bad, file, n);
			bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
			rc = labels_decode(spec, tokens, bad, n, &batch, &note);
			CHECK_ROW(golden_name[kind], rc == (bit / 8 == 2 ? ERR_VERSION : ERR_CORRUPT) && note.name[0] != '\0');
			CHECK_ROW(golden_name[kind], labels_check(spec, NULL, bad, n, &note) == rc && labels_peek(bad, n, &h, &note) == rc);
		}
		for (size_t cut = 0; cut <= n + 1; cut++) {
			/* a sanitizer then finds reads past its end */
			uint8_t *exact = malloc(cut > 0 ? cut : 1);

			memcpy(exact, file, cut);
			if (cut != n)
				CHECK_ROW(golden_name[kind], labels_decode(spec, tokens, exact, cut, &batch, &note) == ERR_CORRUPT);
			free(exact);
		}
		CHECK(batch.n_rows == spec->context);
		labels_batch_free(&batch);
	}
}

/* Sets lengths and checksum of a record of n bytes whose payload was changed. */
static void
sealed(uint8_t *file, size_t n)
{
	uint32_t payload = (uint32_t)(n - LABELS_OVERHEAD_BYTES);
	uint64_t sum;

	memcpy(file + 32, &payload, 4);
	sum = hash_bytes64(file, n - 8);
	memcpy(file + n - 8, &sum, 8);
}

static int
same_rows(const struct labels_batch *a, const struct labels_batch *b)
{
	size_t n = a->n_rows, entries = (size_t)a->row_offsets[n];

	return n == b->n_rows && memcmp(a->row_offsets, b->row_offsets, (n + 1) * sizeof(*a->row_offsets)) == 0 &&
	    memcmp(a->ids, b->ids, entries * sizeof(*a->ids)) == 0 && memcmp(a->weights, b->weights, entries * sizeof(*a->weights)) == 0;
}

/*
 * Payloads of sampled labels that no encoder makes, in intact records. If a payload with a flipped bit can be
 * decoded, its rows are valid: encoding and decoding them gives the same rows.
 */
static void
payloads(int which)
{
	static int32_t n_unique[LIKE_ROWS], ids[LIKE_ROWS * LIKE_DRAWS], counts[LIKE_ROWS * LIKE_DRAWS];
	const struct labels_spec *spec = &golden_spec[which];
	struct hash128 tokens = golden_hash(which);
	struct labels_batch batch = {0}, again = {0};
	struct labels_buf buf = {0};
	uint8_t file[GOLDEN_MAX], bad[GOLDEN_MAX];
	const int N = (int)spec->n_samples;
	size_t n = golden(golden_name[which], file, sizeof(file)), refused = 0;

	memcpy(bad, file, n);
	for (size_t state = 56; state < 80; state += 8) {
		memcpy(bad, file, n);
		memset(bad + state, 0, 8);
		sealed(bad, n);
		CHECK(labels_decode(spec, tokens, bad, n, &batch, &note) == ERR_CORRUPT && strstr(note.expected, "state of 2^31") != NULL);
		bad[state + 7] = 0x80;
		sealed(bad, n);
		CHECK(labels_decode(spec, tokens, bad, n, &batch, &note) == ERR_CORRUPT && strstr(note.expected, "state of 2^31") != NULL);
	}
	for (size_t cut = LABELS_OVERHEAD_BYTES; cut < n + 12; cut++) {
		memcpy(bad, file, n);
		memset(bad + n - 8, 0, 24);
		sealed(bad, cut);
		if (cut != n)
			CHECK_ROW("other length", labels_decode(spec, tokens, bad, cut, &batch, &note) == ERR_CORRUPT && batch.n_rows == 0);
	}
	for (size_t bit = 8 * LABELS_HEADER_BYTES; bit < 8 * (n - 8); bit++) {
		memcpy(bad, file, n);
		bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
		sealed(bad, n);
		labels_batch_clear(&batch);
		if (labels_decode(spec, tokens, bad, n, &batch, &note) != 0) {
			CHECK(note.place[0] != '\0' && note.expected[0] != '\0' && batch.n_rows == 0);
			refused++;
			continue;
		}
		for (int t = 0; t < (int)spec->context; t++) {
			int64_t from = batch.row_offsets[t];

			n_unique[t] = (int32_t)(batch.row_offsets[t + 1] - from);
			for (int i = 0; i < n_unique[t]; i++) {
				ids[N * t + i] = batch.ids[from + i];
				counts[N * t + i] = (int32_t)lrint((double)batch.weights[from + i] * N);
			}
		}
		CHECK(labels_encode_sampled(spec, tokens, n_unique, ids, counts, &buf, &note) == 0);
		labels_batch_clear(&again);
		CHECK(labels_decode(spec, tokens, buf.bytes, buf.len, &again, &note) == 0 && same_rows(&batch, &again));
	}
	CHECK(refused > 8 * (n - LABELS_OVERHEAD_BYTES) * 8 / 10);
	labels_batch_free(&batch);
	labels_batch_free(&again);
	labels_buf_free(&buf);
}

/* Records of make.py with one fault in the last row; everything else is encoded correctly. */
static void
lies(void)
{
	static const struct {
		const char *name, *expected;
	} rows[] = {
		{"bad_again", "at most n ids of another row"}, {"bad_back", "a row of this record"}, {"bad_twice", "no id twice"},
		{"bad_many", "counts with sum N"}, {"bad_none", "counts with sum N"},
	};
	static const int32_t tokens[3] = {1, 2, 3};
	struct labels_spec spec = golden_spec[5];
	struct labels_batch batch = {0};
	uint8_t file[GOLDEN_MAX];

	spec.context = 2;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t n = golden(rows[i].name, file, sizeof(file));

		CHECK_ROW(rows[i].name, labels_decode(&spec, hash_tokens(tokens, 3), file, n, &batch, &note) == ERR_CORRUPT && batch.n_rows == 0);
		CHECK_ROW(rows[i].name, strstr(note.expected, rows[i].expected) != NULL && strstr(note.place, "row 1") != NULL);
	}
	labels_batch_free(&batch);
}

/* A record with a correct checksum that breaks one rule. */
static void
rules(void)
{
	static const struct {
		const char *what;
		int kind;		/* 0 sampled, 1 topk, 2 dense */
		size_t at;
		uint8_t bytes[4];
		size_t n;
		int want;
	} rows[] = {
		{"kind 0", 0, 3, {0}, 1, ERR_CORRUPT}, {"kind 4", 0, 3, {4}, 1, ERR_CORRUPT},
		{"another kind", 1, 3, {3}, 1, ERR_MISMATCH},
		{"L one less", 0, 4, {2}, 1, ERR_MISMATCH}, {"L one more", 0, 4, {4}, 1, ERR_MISMATCH},
		{"N one less", 0, 8, {0x2b}, 1, ERR_MISMATCH}, {"k", 1, 8, {2}, 1, ERR_MISMATCH},
		{"vocabulary", 0, 12, {0x71}, 1, ERR_MISMATCH}, {"tokens", 0, 16, {0}, 1, ERR_MISMATCH},
		{"tokens, low half", 0, 24, {1}, 1, ERR_MISMATCH}, {"flags", 0, 36, {1}, 1, ERR_CORRUPT},
		{"payload shorter than said", 0, 32, {0x1b}, 1, ERR_CORRUPT}, {"version 1", 0, 2, {1}, 1, ERR_VERSION},
		{"version 2", 0, 2, {2}, 1, ERR_VERSION}, {"version 4", 0, 2, {4}, 1, ERR_VERSION},
		{"label set", 0, 40, {9}, 1, ERR_MISMATCH}, {"label set, low half", 0, 48, {9}, 1, ERR_MISMATCH},
		/* topk payload, a row: 3 ids of 3 bytes from 56 (65536, 3, 70), codes from 65 (1420, 2839, 4259) */
		{"id = V", 1, 56, {0x01, 0x00, 0x01}, 3, ERR_CORRUPT}, {"an id twice", 1, 59, {70, 0, 0}, 3, ERR_CORRUPT},
		{"not by probability", 1, 65, {0xff, 0xff}, 2, ERR_CORRUPT}, {"tie, higher id first", 1, 67, {0xa3, 0x10}, 2, 0},
		{"tie, higher id first", 1, 65, {0x17, 0x0b}, 2, ERR_CORRUPT}, {"sum over 1", 1, 65, {0, 0}, 2, ERR_CORRUPT},
		{"sum under 1", 2, 56, {0xff, 0xff}, 2, ERR_CORRUPT}, {"sum over 1", 2, 56, {0, 0}, 2, ERR_CORRUPT},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct labels_spec *spec = &golden_spec[rows[i].kind];
		struct hash128 tokens = golden_hash(rows[i].kind);
		struct labels_batch batch = {0};
		uint8_t file[GOLDEN_MAX];
		size_t n = golden(golden_name[rows[i].kind], file, sizeof(file));
		uint64_t sum;
		int rc;

		memcpy(file + rows[i].at, rows[i].bytes, rows[i].n);
		sum = hash_bytes64(file, n - 8);
		memcpy(file + n - 8, &sum, 8);
		rc = labels_decode(spec, tokens, file, n, &batch, &note);
		CHECK_ROW(rows[i].what, rc == rows[i].want);
		CHECK_ROW(rows[i].what, rc == 0 || (batch.n_rows == 0 && note.place[0] != '\0' && note.expected[0] != '\0'));
		labels_batch_free(&batch);
	}
}

/* Tokens shifted by one are other tokens, so labels that are off by one are rejected. */
static void
shifted(void)
{
	static const int32_t stream[5] = {11, 69999, 0, 7, 8};
	struct labels_batch batch = {0};
	uint8_t file[GOLDEN_MAX];
	size_t n = golden("sampled", file, sizeof(file));

	CHECK(labels_decode(&golden_spec[0], hash_tokens(stream, 4), file, n, &batch, &note) == 0);
	CHECK(labels_decode(&golden_spec[0], hash_tokens(stream + 1, 4), file, n, &batch, &note) == ERR_MISMATCH);
	CHECK(labels_decode(&golden_spec[0], hash_tokens(stream, 3), file, n, &batch, &note) == ERR_MISMATCH);
	CHECK(strstr(note.place, "tokens") != NULL && strlen(note.expected) == 32 && strlen(note.found) == 32);
	CHECK(batch.n_rows == 3);
	/* all labels of a batch have one kind and one vocabulary */
	n = golden("topk", file, sizeof(file));
	CHECK(labels_decode(&golden_spec[1], hash_tokens(stream, 4), file, n, &batch, &note) == ERR_MISMATCH);
	CHECK(strcmp(note.place, "kind of the batch") == 0 && batch.n_rows == 3);
	labels_batch_free(&batch);
}

static void
scores(void)
{
	static const float loss[6] = {0, 0.10f, 2.30f, 31.9990234375f, 31.9997f, 100};
	static const int32_t rank[6] = {0, 3, 254, 255, 256, 70000};
	static const uint8_t want_rank[6] = {0, 3, 254, 255, 255, 255};
	uint8_t file[64], out[18], back_rank[6];
	float back[6], bad_loss = NAN;
	int32_t bad_rank = -1;
	size_t n = golden("scores", file, sizeof(file));

	CHECK(labels_scores_encode(loss, rank, 6, out, &note) == 0);
	CHECK(n == sizeof(out) && memcmp(out, file, n) == 0);
	REQUIRE(labels_scores_decode(out, sizeof(out), 6, back, back_rank, &note) == 0);
	for (int i = 0; i < 6; i++) {
		CHECK_NEAR(back[i], i < 5 ? loss[i] : 31.99951171875f, 1.0 / 4096 + 1e-6);
		CHECK(back_rank[i] == want_rank[i]);
	}
	CHECK(labels_scores_decode(out, 18, 6, NULL, NULL, &note) == 0);
	CHECK(labels_scores_decode(out, 17, 6, back, back_rank, &note) == ERR_CORRUPT);
	CHECK(labels_scores_decode(out, 18, 5, back, back_rank, &note) == ERR_CORRUPT);
	CHECK(labels_scores_encode(&bad_loss, rank, 1, out, &note) == ERR_NONFINITE);
	bad_loss = -0.5f;
	CHECK(labels_scores_encode(&bad_loss, rank, 1, out, &note) == ERR_RANGE);
	CHECK(labels_scores_encode(loss, &bad_rank, 1, out, &note) == ERR_RANGE);
}

/* Token 7 ends documents: the token after it has no prediction. */
static void
scores_within(void)
{
	static const int32_t tokens[5] = {1, 7, 2, 3, 7};
	float loss[5] = {0.5f, 4, 1, 1.5f, NAN}, back[5];
	int32_t rank[5] = {1, 300, 0, 2, 9};
	uint8_t out[15], back_rank[5];
	uint32_t n = 0;

	labels_scores_within(tokens, 5, -1, loss, rank);
	CHECK(loss[1] == 4 && rank[1] == 300);
	labels_scores_within(tokens, 5, 7, loss, rank);
	REQUIRE(labels_scores_encode(loss, rank, 5, out, &note) == 0);
	REQUIRE(labels_scores_decode(out, sizeof(out), 5, back, back_rank, &note) == 0);
	for (int i = 0; i < 5; i++)
		CHECK(labels_score_absent(back[i], back_rank[i]) == (tokens[i] == 7));
	CHECK_NEAR(labels_scores_mean(back, back_rank, 5, &n), 1, 1e-6);
	CHECK(n == 3 && isnan(labels_scores_mean(back + 4, back_rank + 4, 1, &n)) && n == 0);
}

int
main(void)
{
	unigrams_make();
	golden_sampled(0);
	golden_sampled(3);
	golden_sampled(4);
	golden_sampled(5);
	golden_sampled(6);
	golden_topk();
	golden_dense();
	damage();
	payloads(0);
	payloads(5);
	lies();
	rules();
	shifted();
	scores();
	scores_within();
	for (size_t i = 0; i < sizeof(golden_unigram) / sizeof(golden_unigram[0]); i++)
		labels_unigram_destroy(&golden_unigram[i]);
	return check_done();
}
