/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: a label record. Byte 0: the label set (bits 0 and 1), and whether length and checksum are corrected
 * (bit 2), so that the rules of the payload are tested. An accepted record fulfils the guarantees of struct
 * labels_batch, and sampled rows are unchanged after encoding and decoding.
 */
#include "data/labels/labels.h"

#include <math.h>
#include "fuzz.h"

enum { RECORD_MAX = 1 << 16, ROWS_MAX = 260, SAMPLES_MAX = 300 * 3 > 12 * ROWS_MAX ? 300 * 3 : 12 * ROWS_MAX };

static const int32_t tokens_short[4] = {11, 69999, 0, 7}, tokens_dense[4] = {4, 0, 1, 2};
static int32_t tokens_long[ROWS_MAX + 1];
static const int32_t *const tokens[4] = {tokens_short, tokens_short, tokens_dense, tokens_long};
static struct labels_spec specs[4] = {		/* as in tests/golden/labels/make.py */
	{.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = 3, .vocab = 70000, .n_samples = 300, .tau = 1, .set = {21, 22}},
	{.kind = LABELS_KIND_TOPK, .version = LABELS_VERSION, .context = 3, .vocab = 65537, .k = 3, .tau = 1},
	{.kind = LABELS_KIND_DENSE, .version = LABELS_VERSION, .context = 3, .vocab = 5, .tau = 1},
	{.kind = LABELS_KIND_SAMPLED, .version = LABELS_VERSION, .context = ROWS_MAX, .vocab = 6000, .n_samples = 12, .tau = 1, .set = {21, 22}},
};
static struct labels_batch batch, again;
static struct labels_buf coded;

/* Frees everything that is kept between runs. */
static void
finish(void)
{
	labels_unigram_destroy((struct labels_unigram **)(uintptr_t)&specs[0].unigram);
	labels_unigram_destroy((struct labels_unigram **)(uintptr_t)&specs[3].unigram);
	labels_batch_free(&batch);
	labels_batch_free(&again);
	labels_buf_free(&coded);
}

static void
start(void)
{
	static const uint8_t likes[6] = {120, 132, 140, 148, 168, 180};
	static uint8_t codes[70000];
	struct labels_unigram *u;

	for (uint32_t v = 0; v < 70000; v++)
		codes[v] = (uint8_t)(1 + v * 7919 % 251);
	FUZZ_CHECK(labels_unigram_new(&u, codes, 70000, NULL) == 0);
	specs[0].unigram = u;
	for (uint32_t v = 0; v < 6000; v++)
		codes[v] = v % 100 == 0 ? likes[v / 1000] : (uint8_t)(1 + v * 7919 % 100);
	FUZZ_CHECK(labels_unigram_new(&u, codes, 6000, NULL) == 0);
	specs[3].unigram = u;
	for (int32_t i = 0; i <= ROWS_MAX; i++)
		tokens_long[i] = i * 17;
	atexit(finish);
}

static void
code_again(const struct labels_spec *spec, struct hash128 of)
{
	static int32_t n_unique[ROWS_MAX], ids[SAMPLES_MAX], counts[SAMPLES_MAX];
	const struct labels_batch *b = &batch;
	struct err_note note;

	for (size_t r = 0; r < b->n_rows; r++) {
		n_unique[r] = 0;
		for (int64_t e = b->row_offsets[r]; e < b->row_offsets[r + 1]; e++) {
			size_t at = r * spec->n_samples + (size_t)n_unique[r]++;

			ids[at] = b->ids[e];
			counts[at] = (int32_t)lrint((double)b->weights[e] * spec->n_samples);
		}
	}
	labels_batch_clear(&again);
	if (!FUZZ_WORKS(labels_encode_sampled(spec, of, n_unique, ids, counts, &coded, &note)) ||
	    !FUZZ_WORKS(labels_decode(spec, of, coded.bytes, coded.len, &again, &note)))
		return;
	FUZZ_CHECK(again.n_rows == b->n_rows && memcmp(again.row_offsets, b->row_offsets, (b->n_rows + 1) * sizeof(*b->row_offsets)) == 0);
	FUZZ_CHECK(memcmp(again.ids, b->ids, (size_t)b->row_offsets[b->n_rows] * sizeof(*b->ids)) == 0);
	FUZZ_CHECK(memcmp(again.weights, b->weights, (size_t)b->row_offsets[b->n_rows] * sizeof(*b->weights)) == 0);
}

static void
check_rows(const struct labels_spec *spec)
{
	const struct labels_batch *b = &batch;

	FUZZ_CHECK(b->n_rows == spec->context);
	for (size_t r = 0; r < b->n_rows && spec->kind == LABELS_KIND_DENSE; r++) {
		double sum = 0;

		for (uint32_t v = 0; v < spec->vocab; v++)
			sum += (double)b->dense[r * spec->vocab + v];
		FUZZ_CHECK(fabs(sum - 1) <= 1e-5);
	}
	for (size_t r = 0; r < b->n_rows && spec->kind != LABELS_KIND_DENSE; r++) {
		double sum = (double)b->tail[r];

		FUZZ_CHECK(b->tail[r] >= 0 && b->row_offsets[r] < b->row_offsets[r + 1]);
		for (int64_t e = b->row_offsets[r]; e < b->row_offsets[r + 1]; e++) {
			FUZZ_CHECK(b->ids[e] >= 0 && (uint32_t)b->ids[e] < spec->vocab && b->weights[e] >= 0);
			FUZZ_CHECK(e == b->row_offsets[r] || b->ids[e] > b->ids[e - 1]);
			sum += (double)b->weights[e];
		}
		FUZZ_CHECK(fabs(sum - 1) <= 1e-5);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static uint8_t record[RECORD_MAX];
	const struct labels_spec *spec;
	struct labels_header header;
	struct err_note note = {0};
	struct hash128 of;
	uint8_t rank[32];
	float loss[32];
	size_t n;
	int rc;

	if (specs[0].unigram == NULL)
		start();
	if (len < 1 || len - 1 > RECORD_MAX)
		return 0;
	spec = &specs[data[0] & 3];
	of = hash_tokens(tokens[data[0] & 3], (size_t)spec->context + 1);
	n = len - 1;
	memcpy(record, data + 1, n);
	if ((data[0] & 4) != 0 && n >= LABELS_OVERHEAD_BYTES) {
		uint32_t payload = (uint32_t)(n - LABELS_OVERHEAD_BYTES);
		uint64_t sum;

		memcpy(record + 32, &payload, 4);
		sum = hash_bytes64(record, n - 8);
		memcpy(record + n - 8, &sum, 8);
	}
	labels_batch_clear(&batch);
	if ((rc = labels_decode(spec, of, record, n, &batch, &note)) == 0) {
		check_rows(spec);
		if (spec->kind == LABELS_KIND_SAMPLED)
			code_again(spec, of);
	} else {
		FUZZ_REFUSED(rc, note);
		FUZZ_CHECK(batch.n_rows == 0);
	}
	if (labels_peek(record, n, &header, &note) == 0 && labels_check(spec, NULL, record, n, &note) != 0)
		FUZZ_CHECK(note.name[0] != '\0');
	labels_scores_decode(record, n, 32, loss, rank, &note);
	return 0;
}
