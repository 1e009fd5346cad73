#include "labels/labels.h"

#include <stdint.h>
#include "check.h"

static struct err_note note;

/* tests/golden/labels/make.py put these files together from the documented offsets; len 0 if there is none. */
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

static const int32_t golden_tokens[3][4] = {{11, 69999, 0, 7}, {11, 69999, 0, 7}, {4, 0, 1, 2}};
static const struct labels_spec golden_spec[3] = {
	{.kind = LABELS_KIND_SAMPLED, .version = 1, .context = 3, .vocab = 70000, .n_samples = 300, .tau = 1},
	{.kind = LABELS_KIND_TOPK, .version = 1, .context = 3, .vocab = 65537, .k = 3, .tau = 1},
	{.kind = LABELS_KIND_DENSE, .version = 1, .context = 3, .vocab = 5, .tau = 1},
};
static const char *const golden_name[3] = {"sampled", "topk", "dense"};

static void
golden_sampled(void)
{
	enum { N = 300 };
	static const int32_t n_unique[3] = {1, 4, 3};
	static const int32_t want_ids[8] = {0, 5, 6, 134, 69999, 127, 256, 40000};
	static const int32_t want_counts[8] = {300, 1, 128, 129, 42, 150, 149, 1};
	static int32_t ids[3 * N], counts[3 * N], draws[3 * N];
	struct hash128 tokens = hash_tokens(golden_tokens[0], 4);
	struct labels_batch batch = {0};
	struct labels_buf buf = {0};
	uint8_t file[256];
	size_t n = golden("sampled", file, sizeof(file)), at = 0;

	for (int t = 0; t < 3; t++) {
		int d = 0;

		for (int i = 0; i < n_unique[t]; i++, at++) {
			ids[t * N + i] = want_ids[at];
			counts[t * N + i] = want_counts[at];
			for (int c = 0; c < want_counts[at]; c++, d++)
				draws[t * N + (d * 7) % N] = want_ids[at];	/* 7 and 300 share no factor: a permutation */
		}
		REQUIRE(d == N);
	}
	CHECK(labels_encode_sampled(&golden_spec[0], tokens, n_unique, ids, counts, &buf, &note) == 0);
	CHECK(buf.len == n && memcmp(buf.bytes, file, n) == 0);
	CHECK(labels_encode_draws(&golden_spec[0], tokens, draws, &buf, &note) == 0);
	CHECK(buf.len == n && memcmp(buf.bytes, file, n) == 0);

	REQUIRE(labels_decode(&golden_spec[0], tokens, file, n, &batch, &note) == 0);
	CHECK(batch.n_rows == 3 && batch.kind == LABELS_KIND_SAMPLED && batch.vocab == 70000);
	CHECK(batch.row_offsets[0] == 0 && batch.row_offsets[1] == 1 && batch.row_offsets[2] == 5 && batch.row_offsets[3] == 8);
	for (int i = 0; i < 8; i++) {
		CHECK(batch.ids[i] == want_ids[i]);
		CHECK_NEAR(batch.weights[i], want_counts[i] / 300.0, 1e-7);
	}
	CHECK(batch.tail[0] == 0 && batch.tail[2] == 0);
	/* a second sequence goes behind the first */
	REQUIRE(labels_decode(&golden_spec[0], tokens, file, n, &batch, &note) == 0);
	CHECK(batch.n_rows == 6 && batch.row_offsets[6] == 16 && batch.ids[15] == 40000 && batch.row_offsets[4] == 9);
	labels_batch_clear(&batch);
	REQUIRE(labels_decode(&golden_spec[0], tokens, file, n, &batch, &note) == 0);
	CHECK(batch.n_rows == 3 && batch.row_offsets[3] == 8);
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
	struct hash128 tokens = hash_tokens(golden_tokens[1], 4);
	struct labels_batch batch = {0};
	struct labels_buf buf = {0};
	uint8_t file[256];
	size_t n = golden("topk", file, sizeof(file));

	CHECK(labels_encode_topk(&golden_spec[1], tokens, ids, log_p, &buf, &note) == 0);
	CHECK(buf.len == n && memcmp(buf.bytes, file, n) == 0);
	REQUIRE(labels_decode(&golden_spec[1], tokens, file, n, &batch, &note) == 0);
	CHECK(batch.n_rows == 3 && batch.row_offsets[1] == 3 && batch.row_offsets[3] == 9);
	for (int i = 0; i < 9; i++) {
		CHECK(batch.ids[i] == want_ids[i]);
		CHECK_NEAR(batch.weights[i], want_t[i], want_t[i] / 4000 + 1e-13);
	}
	CHECK(batch.weights[7] == 0);	/* exp(-40) is code 65535: exactly 0 */
	for (int t = 0; t < 3; t++)
		CHECK_NEAR(batch.tail[t], want_tail[t], 2.5e-4);
	labels_batch_free(&batch);
	labels_buf_free(&buf);
}

/* The soft labels of the method's golden values, tau 1 and 0.25. */
static void
golden_dense(void)
{
	static const double want[15] = {0.469911, 0.172871, 0.063596, 0.285016, 0.008607, 0.866561, 0.015872, 0.000291, 0.117276, 0,
	    0.473991, 0.174371, 0.064148, 0.287490, 0};
	static const float u[4] = {2, 1, 0, 1.5f};
	struct hash128 tokens = hash_tokens(golden_tokens[2], 4);
	struct labels_batch batch = {0};
	struct labels_buf buf = {0};
	float log_p[15];
	uint8_t file[256];
	size_t n = golden("dense", file, sizeof(file));
	double sum4 = 0;

	for (int i = 0; i < 4; i++)
		sum4 += exp(u[i]);
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

/* No record with one bit turned, cut short or with a byte more is taken; the batch stays as it was. */
static void
damage(void)
{
	for (int kind = 0; kind < 3; kind++) {
		const struct labels_spec *spec = &golden_spec[kind];
		struct hash128 tokens = hash_tokens(golden_tokens[kind], 4);
		struct labels_batch batch = {0};
		struct labels_header h;
		uint8_t file[256], bad[256];
		size_t n = golden(golden_name[kind], file, sizeof(file));

		REQUIRE(labels_decode(spec, tokens, file, n, &batch, &note) == 0);
		CHECK(labels_check(spec, &tokens, file, n, &note) == 0 && labels_check(spec, NULL, file, n, &note) == 0);
		CHECK(labels_peek(file, n, &h, &note) == 0 && h.kind == spec->kind && h.context == 3 && h.vocab == spec->vocab &&
		    hash_equal(h.tokens, tokens) && h.version == 1 && h.payload_bytes == n - 48);
		for (size_t bit = 0; bit < 8 * n; bit++) {
			int rc;

			memcpy(bad, file, n);
			bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
			rc = labels_decode(spec, tokens, bad, n, &batch, &note);
			CHECK_ROW(golden_name[kind], rc == (bit / 8 == 2 ? ERR_VERSION : ERR_CORRUPT) && note.name[0] != '\0');
			CHECK_ROW(golden_name[kind], labels_check(spec, NULL, bad, n, &note) == rc && labels_peek(bad, n, &h, &note) == rc);
		}
		for (size_t cut = 0; cut <= n + 1; cut++) {
			uint8_t *exact = malloc(cut > 0 ? cut : 1);	/* so that the sanitizer sees a read past its end */

			memcpy(exact, file, cut);
			if (cut != n)
				CHECK_ROW(golden_name[kind], labels_decode(spec, tokens, exact, cut, &batch, &note) == ERR_CORRUPT);
			free(exact);
		}
		CHECK(batch.n_rows == 3);
		labels_batch_free(&batch);
	}
}

/* A whole record (checksum made anew) that breaks one rule. */
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
		{"payload shorter than said", 0, 32, {0x1b}, 1, ERR_CORRUPT}, {"version 2", 0, 2, {2}, 1, ERR_VERSION},
		/* sampled payload: 01 00 ab02 | 04 05 00 00 7f 7f 8001 e8a104 29 | 03 7f 9501 8001 9401 bfb602 00 */
		{"no ids", 0, 40, {0}, 1, ERR_CORRUPT}, {"n_unique over N", 0, 40, {0xff, 0x7f}, 2, ERR_CORRUPT},
		{"varint not shortest", 0, 40, {0x81, 0x00}, 2, ERR_CORRUPT}, {"counts one short", 0, 42, {0xaa}, 1, ERR_CORRUPT},
		{"counts one over", 0, 42, {0xac}, 1, ERR_CORRUPT}, {"id = V", 0, 52, {0xe9}, 1, ERR_CORRUPT},
		{"varint runs out", 0, 67, {0x80}, 1, ERR_CORRUPT}, {"one id less, bytes left", 0, 56, {0x02}, 1, ERR_CORRUPT},
		/* topk payload, a row: 3 ids of 3 bytes from 40 (65536, 3, 70), codes from 49 (1420, 2839, 4259) */
		{"id = V", 1, 40, {0x01, 0x00, 0x01}, 3, ERR_CORRUPT}, {"an id twice", 1, 43, {70, 0, 0}, 3, ERR_CORRUPT},
		{"not by probability", 1, 49, {0xff, 0xff}, 2, ERR_CORRUPT}, {"tie, higher id first", 1, 51, {0xa3, 0x10}, 2, 0},
		{"tie, higher id first", 1, 49, {0x17, 0x0b}, 2, ERR_CORRUPT}, {"sum over 1", 1, 49, {0, 0}, 2, ERR_CORRUPT},
		{"sum under 1", 2, 40, {0xff, 0xff}, 2, ERR_CORRUPT}, {"sum over 1", 2, 40, {0, 0}, 2, ERR_CORRUPT},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct labels_spec *spec = &golden_spec[rows[i].kind];
		struct hash128 tokens = hash_tokens(golden_tokens[rows[i].kind], 4);
		struct labels_batch batch = {0};
		uint8_t file[256];
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

/* Payloads of one row, N 2, V 10: what is refused, and why. */
static void
sampled_payloads(void)
{
	static const struct labels_spec spec = {.kind = LABELS_KIND_SAMPLED, .version = 1, .context = 1, .vocab = 10, .n_samples = 2, .tau = 1};
	static const struct {
		const char *what;
		uint8_t payload[9];
		size_t n;
		const char *why;	/* in note.expected; NULL: fine */
	} rows[] = {
		{"one id", {1, 3, 1}, 3, NULL}, {"two ids", {2, 3, 0, 5, 0}, 5, NULL},
		{"bytes left", {1, 3, 1, 0}, 4, "end of the payload"},
		{"n_unique not shortest", {0x81, 0, 3, 1}, 4, "shortest"}, {"gap not shortest", {1, 0x83, 0, 1}, 4, "shortest"},
		{"count not shortest", {1, 3, 0x81, 0x80, 0}, 5, "shortest"},
		{"gap 2^32 - 1", {1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1}, 7, "below the vocabulary"},
		{"gap 2^32", {1, 0x80, 0x80, 0x80, 0x80, 0x10, 1}, 7, "below 2^32"},
		{"six bytes", {1, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 1}, 8, "shortest"},
		{"ids wrap around", {2, 3, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0}, 9, "below the vocabulary"},
		{"id = V", {2, 3, 0, 6, 0}, 5, "below the vocabulary"}, {"too short", {1, 3}, 2, "at least 3 bytes"},
		{"ends in a row", {2, 3, 0}, 3, "whole varint"}, {"count 2^32", {1, 3, 0xff, 0xff, 0xff, 0xff, 0x0f}, 7, "sum N"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct labels_batch batch = {0};
		uint8_t record[64] = {'S', 'L', 1, 1, 1, 0, 0, 0, 2, 0, 0, 0, 10};
		size_t n = 40 + rows[i].n;
		uint64_t sum;
		int rc;

		record[32] = (uint8_t)rows[i].n;
		memcpy(record + 40, rows[i].payload, rows[i].n);
		sum = hash_bytes64(record, n);
		memcpy(record + n, &sum, 8);
		rc = labels_decode(&spec, (struct hash128){0, 0}, record, n + 8, &batch, &note);
		CHECK_ROW(rows[i].what, rc == (rows[i].why == NULL ? 0 : ERR_CORRUPT));
		CHECK_ROW(rows[i].what, rows[i].why == NULL ? batch.n_rows == 1 : batch.n_rows == 0 && strstr(note.expected, rows[i].why) != NULL);
		labels_batch_free(&batch);
	}
}

/* The same tokens moved by one are other tokens: labels off by one do not decode. */
static void
shifted(void)
{
	static const int32_t stream[5] = {11, 69999, 0, 7, 8};
	struct labels_batch batch = {0};
	uint8_t file[256];
	size_t n = golden("sampled", file, sizeof(file));

	CHECK(labels_decode(&golden_spec[0], hash_tokens(stream, 4), file, n, &batch, &note) == 0);
	CHECK(labels_decode(&golden_spec[0], hash_tokens(stream + 1, 4), file, n, &batch, &note) == ERR_MISMATCH);
	CHECK(labels_decode(&golden_spec[0], hash_tokens(stream, 3), file, n, &batch, &note) == ERR_MISMATCH);
	CHECK(strstr(note.place, "tokens") != NULL && strlen(note.expected) == 32 && strlen(note.found) == 32);
	CHECK(batch.n_rows == 3);
	/* a batch holds one kind and one vocabulary */
	n = golden("topk", file, sizeof(file));
	CHECK(labels_decode(&golden_spec[1], hash_tokens(stream, 4), file, n, &batch, &note) == ERR_MISMATCH);
	CHECK(strcmp(note.place, "kind of the batch") == 0 && batch.n_rows == 3);
	labels_batch_free(&batch);
}

static void
encoder_refuses(void)
{
	struct labels_spec s = {.kind = LABELS_KIND_SAMPLED, .version = 1, .context = 2, .vocab = 10, .n_samples = 3, .tau = 1};
	struct labels_spec k = {.kind = LABELS_KIND_TOPK, .version = 1, .context = 1, .vocab = 10, .k = 2, .tau = 1};
	struct labels_spec d = {.kind = LABELS_KIND_DENSE, .version = 1, .context = 1, .vocab = 2, .tau = 1};
	static const struct {
		const char *what;
		int32_t n_unique, ids[3], counts[3];
		int want;
	} sampled[] = {
		{"fine", 2, {1, 9}, {1, 2}, 0}, {"id = V", 2, {1, 10}, {1, 2}, ERR_RANGE}, {"id < 0", 2, {-1, 9}, {1, 2}, ERR_RANGE},
		{"not ascending", 2, {9, 1}, {1, 2}, ERR_RANGE}, {"twice", 2, {1, 1}, {1, 2}, ERR_RANGE},
		{"sum N-1", 2, {1, 9}, {1, 1}, ERR_RANGE}, {"sum N+1", 2, {1, 9}, {2, 2}, ERR_RANGE},
		{"count 0", 2, {1, 9}, {0, 3}, ERR_RANGE}, {"none", 0, {1, 9}, {1, 2}, ERR_RANGE}, {"over N", 4, {1, 2, 3}, {1, 1, 1}, ERR_RANGE},
	};
	static const struct {
		const char *what;
		int32_t ids[2];
		float log_p[2];
		int want;
	} topk[] = {
		{"fine", {3, 1}, {-1, -1}, 0}, {"rounding", {3, 1}, {1e-5f, -20}, 0}, {"id = V", {3, 10}, {-1, -1}, ERR_RANGE},
		{"twice", {3, 3}, {-1, -2}, ERR_RANGE}, {"NaN", {3, 1}, {-1, NAN}, ERR_NONFINITE}, {"over 1", {3, 1}, {0.1f, -9}, ERR_RANGE},
		{"sum over 1", {3, 1}, {-0.5f, -0.5f}, ERR_RANGE}, {"infinite", {3, 1}, {INFINITY, -1}, ERR_RANGE},
	};
	struct labels_buf buf = {0};
	struct hash128 tokens = {1, 2};
	int32_t draws[6] = {9, 9, 0, 1, 2, 3};
	float log_p[2] = {-0.69314718f, -0.69314718f};

	for (size_t i = 0; i < sizeof(sampled) / sizeof(sampled[0]); i++) {
		int32_t n_unique[2] = {1, sampled[i].n_unique}, ids[6] = {5}, counts[6] = {3};

		memcpy(ids + 3, sampled[i].ids, sizeof(sampled[i].ids));
		memcpy(counts + 3, sampled[i].counts, sizeof(sampled[i].counts));
		CHECK_ROW(sampled[i].what, labels_encode_sampled(&s, tokens, n_unique, ids, counts, &buf, &note) == sampled[i].want);
		CHECK_ROW(sampled[i].what, sampled[i].want == 0 ? buf.len > 0 : buf.len == 0 && strstr(note.place, "row 1") != NULL);
	}
	for (size_t i = 0; i < sizeof(topk) / sizeof(topk[0]); i++) {
		CHECK_ROW(topk[i].what, labels_encode_topk(&k, tokens, topk[i].ids, topk[i].log_p, &buf, &note) == topk[i].want);
		CHECK_ROW(topk[i].what, (topk[i].want == 0) == (buf.len > 0));
	}
	CHECK(labels_encode_draws(&s, tokens, draws, &buf, &note) == 0);
	draws[4] = 10;
	CHECK(labels_encode_draws(&s, tokens, draws, &buf, &note) == ERR_RANGE && strstr(note.place, "row 1") != NULL);
	draws[4] = -1;
	CHECK(labels_encode_draws(&s, tokens, draws, &buf, &note) == ERR_RANGE);
	CHECK(labels_encode_draws(&k, tokens, draws, &buf, &note) == ERR_MISMATCH);
	CHECK(labels_encode_dense(&d, tokens, log_p, &buf, &note) == 0);
	log_p[1] = -1;
	CHECK(labels_encode_dense(&d, tokens, log_p, &buf, &note) == ERR_RANGE && buf.len == 0);
	d.context = LABELS_CONTEXT_MAX;		/* 2^24 * 2^31 * 2 bytes: named before anything is read */
	d.vocab = INT32_MAX;
	CHECK(labels_encode_dense(&d, tokens, log_p, &buf, &note) == ERR_RANGE);
	labels_buf_free(&buf);
}

/* Random rows: what goes in comes out; t within a factor exp(1/4096) for topk. */
static void
round_trip(void)
{
	enum { L = 17, N = 50, K = 20, V = 1000 };
	static int32_t draws[L * N], ids[L * K];
	static float log_p[L * K], dense[L * V];
	struct labels_spec spec = {.version = 1, .context = L, .vocab = V, .n_samples = N, .k = K, .tau = 1};
	struct labels_batch batch = {0};
	struct labels_buf buf = {0};
	struct hash128 tokens = {3, 4};
	double worst = 0;

	for (uint32_t i = 0; i < L * N; i++) {
		uint32_t r[4];

		hash_chance(7, HASH_PURPOSE_GENERATE, 0, i, 0, r);
		draws[i] = (int32_t)((uint64_t)(r[0] >> 20) * (r[1] >> 20) * V >> 24);	/* favours small ids: many repeat */
	}
	spec.kind = LABELS_KIND_SAMPLED;
	REQUIRE(labels_encode_draws(&spec, tokens, draws, &buf, &note) == 0);
	REQUIRE(labels_decode(&spec, tokens, buf.bytes, buf.len, &batch, &note) == 0);
	for (int t = 0; t < L; t++) {
		int seen = 0;

		for (int64_t e = batch.row_offsets[t]; e < batch.row_offsets[t + 1]; e++) {
			int count = 0;

			for (int d = 0; d < N; d++)
				count += draws[t * N + d] == batch.ids[e];
			CHECK(count > 0 && batch.weights[e] == (float)count / N);
			CHECK(e == batch.row_offsets[t] || batch.ids[e] > batch.ids[e - 1]);
			seen += count;
		}
		CHECK(seen == N);
	}
	labels_batch_clear(&batch);

	spec.kind = LABELS_KIND_TOPK;
	for (int t = 0; t < L; t++)
		for (int i = 0; i < K; i++) {
			uint32_t r[4];

			hash_chance(8, HASH_PURPOSE_GENERATE, 0, (uint32_t)(t * K + i), 0, r);
			ids[t * K + i] = (i * 389 + t) % V;
			log_p[t * K + i] = -3.5f - 0.8f * (float)i - 0.5f * hash_uniform(r[0]);
		}
	REQUIRE(labels_encode_topk(&spec, tokens, ids, log_p, &buf, &note) == 0);
	CHECK(buf.len == 48 + L * K * 4);
	REQUIRE(labels_decode(&spec, tokens, buf.bytes, buf.len, &batch, &note) == 0);
	CHECK(batch.row_offsets[L] == L * K);
	for (int t = 0; t < L; t++) {
		double left = 1;

		for (int i = 0; i < K; i++) {
			for (int64_t e = batch.row_offsets[t]; e < batch.row_offsets[t + 1]; e++)
				if (batch.ids[e] == ids[t * K + i]) {
					worst = fmax(worst, fabs(log((double)batch.weights[e]) - (double)log_p[t * K + i]));
					left -= (double)batch.weights[e];
				}
		}
		CHECK_NEAR(batch.tail[t], left, 1e-6);
	}
	CHECK(worst > 1.0 / 5000 && worst <= 1.0 / 4096 + 1e-6);
	labels_batch_clear(&batch);

	spec.kind = LABELS_KIND_DENSE;
	for (int t = 0; t < L; t++) {
		double sum = 0;

		for (int v = 0; v < V; v++)
			sum += exp(-0.01 * ((v * 7 + t) % V));
		for (int v = 0; v < V; v++)
			dense[t * V + v] = (float)(-0.01 * ((v * 7 + t) % V) - log(sum));
	}
	REQUIRE(labels_encode_dense(&spec, tokens, dense, &buf, &note) == 0);
	REQUIRE(labels_decode(&spec, tokens, buf.bytes, buf.len, &batch, &note) == 0);
	for (int i = 0; i < L * V; i++)
		CHECK(fabs(log((double)batch.dense[i]) - (double)dense[i]) <= 1.0 / 2048);
	labels_batch_free(&batch);
	labels_buf_free(&buf);
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

static void
spec_ranges(void)
{
	static const struct labels_spec good = {.kind = LABELS_KIND_TOPK, .version = 1, .context = 8, .vocab = 10, .k = 10, .tau = 1};
	static const struct {
		const char *field;
		struct labels_spec spec;
		int want;
	} rows[] = {
		{"kind", {.kind = 0, .version = 1, .context = 8, .vocab = 10, .k = 3, .tau = 1}, ERR_RANGE},
		{"kind", {.kind = 4, .version = 1, .context = 8, .vocab = 10, .k = 3, .tau = 1}, ERR_RANGE},
		{"version", {.kind = 2, .version = 2, .context = 8, .vocab = 10, .k = 3, .tau = 1}, ERR_VERSION},
		{"context", {.kind = 2, .version = 1, .context = 0, .vocab = 10, .k = 3, .tau = 1}, ERR_RANGE},
		{"vocab", {.kind = 2, .version = 1, .context = 8, .vocab = 1u << 31, .k = 3, .tau = 1}, ERR_RANGE},
		{"k", {.kind = 2, .version = 1, .context = 8, .vocab = 10, .k = 11, .tau = 1}, ERR_RANGE},
		{"n_samples", {.kind = 1, .version = 1, .context = 8, .vocab = 10, .n_samples = 0, .tau = 1}, ERR_RANGE},
		{"tau", {.kind = 2, .version = 1, .context = 8, .vocab = 10, .k = 3, .tau = 0}, ERR_RANGE},
		{"tau", {.kind = 2, .version = 1, .context = 8, .vocab = 10, .k = 3, .tau = NAN}, ERR_RANGE},
		{"tau", {.kind = 2, .version = 1, .context = 8, .vocab = 10, .k = 3, .tau = INFINITY}, ERR_RANGE},
	};

	CHECK(labels_spec_check(&good, &note) == 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CHECK_ROW(rows[i].field, labels_spec_check(&rows[i].spec, &note) == rows[i].want);
		CHECK_STR(note.place, rows[i].field);
	}
}

/* Hashes from make.py; every field of an identity changes it, what a kind does not use does not. */
static void
identities(void)
{
	const struct labels_set set = {.corpus = {1, 2}, .teacher = {3, 4}, .compute_class = "fp32/openblas",
	    .spec = {.kind = LABELS_KIND_SAMPLED, .version = 1, .context = 128, .vocab = 4096, .n_samples = 50, .seed = 17, .tau = 0.25}};
	const struct labels_scores_set scored = {.corpus = {1, 2}, .scorer = {3, 4}, .compute_class = "fp32/openblas", .context = 128, .version = 1};
	struct labels_set other[11];
	struct labels_scores_set other_scored[5];
	char hex[HASH_HEX_BYTES], text[LABELS_TEXT_BYTES];
	enum labels_kind kind;

	CHECK_STR(hash_hex(labels_spec_hash(&set.spec), hex), "e6ff5cbfcd66ec5320b9a0d8fddc3d06");
	CHECK_STR(hash_hex(labels_set_hash(&set), hex), "36589ae2bac4055071ef73a9536839f0");
	CHECK_STR(hash_hex(labels_scores_set_hash(&scored), hex), "6790a6296a4da309fde58afc0f53b950");
	CHECK_STR(labels_set_text(&set, text, sizeof(text)), "labels=36589ae2bac4055071ef73a9536839f0 "
	    "corpus=00000000000000010000000000000002 L=128 vocab=4096 teacher=00000000000000030000000000000004 compute=fp32/openblas "
	    "tau=0.25 kind=sampled n=50 seed=17 version=1");
	CHECK(strstr(labels_scores_set_text(&scored, text, sizeof(text)), "compute=fp32/openblas version=1") != NULL);

	for (int i = 0; i < 11; i++)
		other[i] = set;
	other[1].corpus.lo++;
	other[2].teacher.hi++;
	strcpy(other[3].compute_class, "bf16/onednn");
	other[4].spec.kind = LABELS_KIND_DENSE;
	other[5].spec.context++;
	other[6].spec.vocab++;
	other[7].spec.n_samples++;
	other[8].spec.seed++;
	other[9].spec.tau = 0.5;
	other[10].spec.version++;
	for (int i = 0; i < 11; i++)
		for (int j = 0; j < i; j++)
			CHECK(!hash_equal(labels_set_hash(&other[i]), labels_set_hash(&other[j])));
	other[1] = set;
	other[1].spec.k = 9;
	CHECK(hash_equal(labels_set_hash(&set), labels_set_hash(&other[1])));
	other[4].spec.seed = 99;
	other[5] = set;
	other[5].spec.kind = LABELS_KIND_DENSE;
	CHECK(hash_equal(labels_set_hash(&other[4]), labels_set_hash(&other[5])));

	for (int i = 0; i < 5; i++)
		other_scored[i] = scored;
	other_scored[0].corpus.hi++;
	other_scored[1].scorer.lo++;
	strcpy(other_scored[2].compute_class, "fp32/openblat");
	other_scored[3].context++;
	other_scored[4].version++;
	for (int i = 0; i < 5; i++)
		CHECK(!hash_equal(labels_scores_set_hash(&scored), labels_scores_set_hash(&other_scored[i])));

	CHECK(labels_kind_from_name("topk", &kind) == 0 && kind == LABELS_KIND_TOPK);
	CHECK(labels_kind_from_name("?", &kind) == ERR_NOT_FOUND);
	CHECK_STR(labels_kind_name(LABELS_KIND_DENSE), "dense");
	CHECK_STR(labels_kind_name(9), "?");
}

int
main(void)
{
	golden_sampled();
	golden_topk();
	golden_dense();
	damage();
	rules();
	sampled_payloads();
	shifted();
	encoder_refuses();
	round_trip();
	scores();
	spec_ranges();
	identities();
	return check_done();
}
