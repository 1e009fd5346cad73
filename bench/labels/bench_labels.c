/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_labels EXPORT ROUNDS - encodes the sampled labels of a `saltctl cache export` as records again, in
 * one thread. Prints one line: tokens, bytes per token of whole records, distinct ids per token, entropy of
 * the stored distribution in bits per token, tokens/s encoded, tokens/s decoded (medians of ROUNDS). Exits
 * with an error if a record does not decode to its input. labels.sh runs it.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/common/bench.h"
#include "base/json/json.h"
#include "data/labels/labels.h"
#include "engine/weights/weights.h"

#define ROUNDS_MAX 64

/* All records: n_unique[record * L + row]; ids and counts of a label row begin at (record * L + row) * N. */
struct rows {
	struct labels_spec spec;
	struct labels_unigram *unigram;
	size_t n;
	int32_t *n_unique, *ids, *counts;
	double unique, bits;			/* sums over tokens */
};

static uint64_t
value(const struct weights_tensor *t, uint64_t i)
{
	size_t width = weights_dtype_bytes(t->dtype);
	uint64_t v = 0;

	memcpy(&v, t->data + i * width, width);		/* little-endian hosts only, like the whole project */
	return v;
}

static void
read_table(struct rows *r, const char *dir)
{
	uint8_t *codes = bench_need(malloc(r->spec.vocab));
	struct err_note note = {0};
	char path[4096];
	FILE *in;
	int rc;

	snprintf(path, sizeof(path), "%s/unigram.bin", dir);
	if ((in = fopen(path, "rb")) == NULL || fread(codes, 1, r->spec.vocab, in) != r->spec.vocab)
		bench_fail(path, ERR_FORMAT, NULL);
	fclose(in);
	if ((rc = labels_unigram_new(&r->unigram, codes, r->spec.vocab, &note)) != 0)
		bench_fail(path, rc, &note);
	r->spec.unigram = r->unigram;
	free(codes);
}

static void
read_file(struct rows *r, const char *path)
{
	const size_t L = r->spec.context, N = r->spec.n_samples;
	const struct weights_tensor *seq, *offsets, *ids, *counts;
	struct err_note note = {0};
	struct weights *w;
	int rc;

	if ((rc = weights_open(&w, path, &note)) != 0)
		bench_fail(path, rc, &note);
	seq = weights_find(w, "seq");
	offsets = weights_find(w, "row_offsets");
	ids = weights_find(w, "ids");
	counts = weights_find(w, "counts");
	if (seq == NULL || offsets == NULL || ids == NULL || counts == NULL || offsets->n_elements != seq->n_elements * L + 1)
		bench_fail(path, ERR_FORMAT, NULL);
	r->n_unique = bench_need(realloc(r->n_unique, (r->n + seq->n_elements) * L * sizeof(*r->n_unique)));
	r->ids = bench_need(realloc(r->ids, (r->n + seq->n_elements) * L * N * sizeof(*r->ids)));
	r->counts = bench_need(realloc(r->counts, (r->n + seq->n_elements) * L * N * sizeof(*r->counts)));
	for (uint64_t i = 0; i < seq->n_elements * L; i++) {
		uint64_t from = value(offsets, i), n = value(offsets, i + 1) - from;
		size_t row = r->n * L + i;

		if (n < 1 || n > N || from + n > ids->n_elements || from + n > counts->n_elements)
			bench_fail(path, ERR_FORMAT, NULL);
		r->n_unique[row] = (int32_t)n;
		r->unique += (double)n;
		for (uint64_t j = 0; j < n; j++) {
			double p = (double)value(counts, from + j) / (double)N;

			r->ids[row * N + j] = (int32_t)value(ids, from + j);
			r->counts[row * N + j] = (int32_t)value(counts, from + j);
			r->bits -= p * log2(p);
		}
	}
	r->n += seq->n_elements;
	weights_close(&w);
}

static void
read_export(struct rows *r, const char *dir)
{
	struct err_note note = {0};
	struct json *m;
	const struct json *labels, *files;
	const char *text;
	char path[4096];
	int64_t context, vocab, n;
	int rc;

	snprintf(path, sizeof(path), "%s/manifest.json", dir);
	if ((rc = json_parse_file(path, 0, &m, &note)) != 0)
		bench_fail(path, rc, &note);
	labels = json_get(m, "labels");
	if (!json_int(json_get(m, "context"), &context) || !json_int(json_get(m, "vocabulary"), &vocab) || !json_int(json_get(labels, "n"), &n) ||
	    !json_num(json_get(labels, "tau"), &r->spec.tau) || !json_text(json_get(labels, "kind"), &text) || strcmp(text, "sampled") != 0)
		bench_fail("an export of sampled labels", ERR_FORMAT, NULL);
	r->spec.kind = LABELS_KIND_SAMPLED;
	r->spec.version = LABELS_VERSION;
	r->spec.context = (uint32_t)context;
	r->spec.vocab = (uint32_t)vocab;
	r->spec.n_samples = (uint32_t)n;
	if ((rc = labels_spec_check(&r->spec, &note)) != 0)
		bench_fail(path, rc, &note);
	read_table(r, dir);
	files = json_get(labels, "files");
	for (size_t i = 0; i < json_count(files); i++) {
		if (!json_text(json_get(json_item(files, i), "file"), &text))
			bench_fail(path, ERR_FORMAT, NULL);
		snprintf(path, sizeof(path), "%s/%s", dir, text);
		read_file(r, path);
	}
	json_close(&m);
	if (r->n == 0)
		bench_fail("an export with labels", ERR_NOT_FOUND, NULL);
}

static void
same(const struct rows *r, size_t record, const struct labels_batch *b)
{
	const size_t L = r->spec.context, N = r->spec.n_samples;

	for (size_t t = 0; t < L; t++) {
		size_t row = record * L + t;
		int64_t from = b->row_offsets[t];

		if (b->row_offsets[t + 1] - from != r->n_unique[row])
			bench_fail("a record that decodes to what went in", ERR_INTERNAL, NULL);
		for (int32_t i = 0; i < r->n_unique[row]; i++)
			if (b->ids[from + i] != r->ids[row * N + (size_t)i] ||
			    lrintf(b->weights[from + i] * (float)N) != r->counts[row * N + (size_t)i])
				bench_fail("a record that decodes to what went in", ERR_INTERNAL, NULL);
	}
}

int
main(int argc, char **argv)
{
	int rounds = argc == 3 ? atoi(argv[2]) : 0;
	struct rows r = {.n = 0};
	struct labels_buf *buf;
	struct labels_batch batch = {0};
	struct hash128 tokens = {1, 2};
	struct err_note note = {0};
	double encode[ROUNDS_MAX], decode[ROUNDS_MAX], bytes = 0, n_tokens;
	size_t at;
	int rc;

	if (rounds < 1 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "usage: bench_labels EXPORT ROUNDS (1 to %d)\n", ROUNDS_MAX);
		return 64;
	}
	read_export(&r, argv[1]);
	buf = bench_need(calloc(r.n, sizeof(*buf)));
	at = (size_t)r.spec.context * r.spec.n_samples;
	n_tokens = (double)r.n * r.spec.context;
	for (int round = 0; round < rounds; round++) {
		double start = bench_now();

		for (size_t i = 0; i < r.n; i++)
			if ((rc = labels_encode_sampled(&r.spec, tokens, r.n_unique + i * r.spec.context, r.ids + i * at, r.counts + i * at, &buf[i],
			    &note)) != 0)
				bench_fail("encoding", rc, &note);
		encode[round] = bench_now() - start;
		start = bench_now();
		for (size_t i = 0; i < r.n; i++) {
			labels_batch_clear(&batch);
			if ((rc = labels_decode(&r.spec, tokens, buf[i].bytes, buf[i].len, &batch, &note)) != 0)
				bench_fail("decoding", rc, &note);
		}
		decode[round] = bench_now() - start;
	}
	for (size_t i = 0; i < r.n; i++) {
		labels_batch_clear(&batch);
		if ((rc = labels_decode(&r.spec, tokens, buf[i].bytes, buf[i].len, &batch, &note)) != 0)
			bench_fail("decoding", rc, &note);
		same(&r, i, &batch);
		bytes += (double)buf[i].len;
		labels_buf_free(&buf[i]);
	}
	printf("%.0f %.6f %.6f %.6f %.0f %.0f\n", n_tokens, bytes / n_tokens, r.unique / n_tokens, r.bits / n_tokens,
	    n_tokens / bench_median(encode, rounds), n_tokens / bench_median(decode, rounds));
	labels_batch_free(&batch);
	labels_unigram_destroy(&r.unigram);
	free(buf);
	free(r.n_unique);
	free(r.ids);
	free(r.counts);
	return 0;
}
