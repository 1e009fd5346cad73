/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes into labels_decode, half of them with length and checksum made right, so that the payload's rules are reached. What is
 * accepted obeys the promises of struct labels_batch, and sampled rows, coded again, come back.
 */
#include "data/labels/labels.h"

#include "fuzz.h"

static void
check_rows(const struct labels_spec *spec, const struct labels_batch *b, struct hash128 tokens)
{
	int32_t *n_unique, *ids, *counts;
	struct labels_buf buf = {0};
	struct labels_batch again = {0};
	struct err_note note;

	CHECK(b->n_rows == spec->context);
	if (spec->kind == LABELS_KIND_DENSE)
		return;
	for (size_t r = 0; r < b->n_rows; r++) {
		double sum = (double)b->tail[r];

		CHECK(b->tail[r] >= 0 && b->row_offsets[r] < b->row_offsets[r + 1]);
		for (int64_t e = b->row_offsets[r]; e < b->row_offsets[r + 1]; e++) {
			CHECK(b->ids[e] >= 0 && (uint32_t)b->ids[e] < spec->vocab && b->weights[e] >= 0);
			CHECK(e == b->row_offsets[r] || b->ids[e] > b->ids[e - 1]);
			sum += (double)b->weights[e];
		}
		CHECK_NEAR(sum, 1, 1e-5);
	}
	if (spec->kind != LABELS_KIND_SAMPLED)
		return;
	n_unique = calloc(spec->context, sizeof(*n_unique));
	ids = calloc((size_t)spec->context * spec->n_samples, sizeof(*ids));
	counts = calloc((size_t)spec->context * spec->n_samples, sizeof(*counts));
	for (size_t r = 0; r < b->n_rows; r++)
		for (int64_t e = b->row_offsets[r]; e < b->row_offsets[r + 1]; e++) {
			size_t at = r * spec->n_samples + (size_t)n_unique[r]++;

			ids[at] = b->ids[e];
			counts[at] = (int32_t)lrint((double)b->weights[e] * spec->n_samples);
		}
	CHECK(labels_encode_sampled(spec, tokens, n_unique, ids, counts, &buf, &note) == 0);
	CHECK(labels_decode(spec, tokens, buf.bytes, buf.len, &again, &note) == 0 && again.n_rows == b->n_rows);
	CHECK(memcmp(again.row_offsets, b->row_offsets, (b->n_rows + 1) * sizeof(*b->row_offsets)) == 0);
	CHECK(memcmp(again.ids, b->ids, (size_t)b->row_offsets[b->n_rows] * sizeof(*b->ids)) == 0);
	CHECK(memcmp(again.weights, b->weights, (size_t)b->row_offsets[b->n_rows] * sizeof(*b->weights)) == 0);
	labels_batch_free(&again);
	labels_buf_free(&buf);
	free(n_unique);
	free(ids);
	free(counts);
}

int
main(void)
{
	static const char *const names[4] = {"sampled", "topk", "dense", "like"};
	static int32_t tokens[4][261] = {{11, 69999, 0, 7}, {11, 69999, 0, 7}, {4, 0, 1, 2}};
	static struct labels_spec specs[4] = {
		{.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = 3, .vocab = 70000, .n_samples = 300, .tau = 1, .set = {21, 22}},
		{.kind = LABELS_KIND_TOPK, .version = LABELS_VERSION, .context = 3, .vocab = 65537, .k = 3, .tau = 1},
		{.kind = LABELS_KIND_DENSE, .version = LABELS_VERSION, .context = 3, .vocab = 5, .tau = 1},
		{.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = 260, .vocab = 6000, .n_samples = 12, .tau = 1, .set = {21, 22}},
	};
	static const uint8_t likes[6] = {120, 132, 140, 148, 168, 180};
	struct labels_batch batch = {0};
	static uint8_t seed[4][2048], bytes[4096], codes[70000];
	struct labels_unigram *u, *u_like;
	size_t seed_len[4], accepted = 0;

	for (int i = 0; i < 4; i++) {
		char path[128];
		FILE *f;

		snprintf(path, sizeof(path), "tests/golden/labels/%s.bin", names[i]);
		f = fopen(path, "rb");
		REQUIRE(f != NULL);
		seed_len[i] = fread(seed[i], 1, sizeof(seed[i]), f);
		fclose(f);
	}
	for (uint32_t v = 0; v < 70000; v++)		/* as tests/golden/labels/make.py */
		codes[v] = (uint8_t)(1 + v * 7919 % 251);
	REQUIRE(labels_unigram_new(&u, codes, 70000, NULL) == 0);
	specs[0].unigram = u;
	for (int i = 0; i < 261; i++)
		tokens[3][i] = i * 17;
	for (uint32_t v = 0; v < 6000; v++)
		codes[v] = v % 100 == 0 ? likes[v / 1000] : (uint8_t)(1 + v * 7919 % 100);
	REQUIRE(labels_unigram_new(&u_like, codes, 6000, NULL) == 0);
	specs[3].unigram = u_like;
	fuzz_seed(20260131);
	for (int round = 0; round < 60000; round++) {
		int which = round / 2 % 4;
		struct labels_spec spec = specs[which];
		struct hash128 want = hash_tokens(tokens[which], (size_t)spec.context + 1);
		struct labels_header h;
		struct err_note note;
		uint8_t *exact;
		size_t n;

		memcpy(bytes, seed[which], seed_len[which]);
		if (round & 1) {
			uint32_t payload;
			uint64_t sum;

			/* only the payload, the last 8 bytes kept for the checksum */
			n = 56 + fuzz_mutate(bytes + 56, seed_len[which] - 64, sizeof(bytes) - 64) + 8;
			payload = (uint32_t)(n - 64);
			memcpy(bytes + 32, &payload, 4);
			sum = hash_bytes64(bytes, n - 8);
			memcpy(bytes + n - 8, &sum, 8);
		} else {
			n = fuzz_mutate(bytes, seed_len[which], sizeof(bytes));
		}
		exact = malloc(n > 0 ? n : 1);
		memcpy(exact, bytes, n);
		labels_batch_clear(&batch);
		if (labels_decode(&spec, want, exact, n, &batch, &note) == 0) {
			accepted++;
			check_rows(&spec, &batch, want);
		} else {
			CHECK(batch.n_rows == 0 && note.name[0] != '\0');
		}
		if (labels_peek(exact, n, &h, &note) == 0)
			labels_check(&spec, NULL, exact, n, &note);
		free(exact);
	}
	fprintf(stderr, "%zu accepted\n", accepted);
	CHECK(accepted > 100);
	labels_batch_free(&batch);
	labels_unigram_destroy(&u);
	labels_unigram_destroy(&u_like);
	return check_done();
}
