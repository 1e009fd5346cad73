/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token files. Byte 0: what the rest is (0 PREFIX.idx beside a .bin of zeros, 1 PREFIX.bin alone, 2 the full name of a file, 3 a pattern
 * that matches it and a shard of llm.c). Bytes 1 and 2: length of the .bin. Bytes 3 and 4: length of PREFIX.json, which comes last.
 * What opens has the tokens that the files have room for, and windows can be read to the end.
 */
#include "data/corpus/corpus.h"

#include "fuzz.h"

static void
read_all(struct corpus *c)
{
	struct err_note note = {0};
	int32_t out[5];
	uint64_t n = corpus_n_windows(c, 4);
	int rc;

	for (uint64_t i = 0; i < n; i++)
		if ((rc = corpus_window(c, i, 4, out, &note)) != 0) {
			FUZZ_CHECK(rc == ERR_CORRUPT);		/* an id past the vocabulary */
			FUZZ_REFUSED(rc, note);
		}
	FUZZ_CHECK(corpus_window(c, n, 4, out, &note) == ERR_RANGE);
	if (corpus_check_vocab(c, 50257, &note) != 0)
		FUZZ_CHECK(note.found[0] != '\0');
	if (corpus_limit_vocab(c, 50257, &note) != 0)
		FUZZ_CHECK(note.found[0] != '\0');
	if (corpus_info(c)->vocab > 0 && corpus_info(c)->vocab < 1000) {
		static uint64_t counts[1000];

		if ((rc = corpus_counts(c, corpus_info(c)->vocab, counts, &note)) != 0)
			FUZZ_REFUSED(rc, note);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const names[4] = {"x.idx", "x.bin", "x", "x.t"};
	static const uint8_t zeros[65536];
	int32_t shard[256 + 2] = {20240520, 1, 4};
	char opened[128];
	struct err_note note = {0};
	struct corpus *c;
	uint16_t n_bin, n_json;
	int kind, rc;

	if (len < 5)
		return 0;
	kind = data[0] & 3;
	memcpy(&n_bin, data + 1, 2);
	memcpy(&n_json, data + 3, 2);
	data += 5;
	len -= 5;
	n_json = n_json < len ? n_json : (uint16_t)len;
	for (int i = 0; i < 4; i++) {
		snprintf(opened, sizeof(opened), "%s/%s", fuzz_dir(), names[i]);
		unlink(opened);
	}
	snprintf(opened, sizeof(opened), "%s/x.json", fuzz_dir());
	unlink(opened);
	if (kind == 0)
		fuzz_file("x.bin", zeros, n_bin);
	if (n_json > 0)
		fuzz_file("x.json", data + len - n_json, n_json);
	fuzz_file(names[kind], data, len - n_json);
	fuzz_file("x.tt", shard, sizeof(shard));
	snprintf(opened, sizeof(opened), "%s/x%s", fuzz_dir(), kind == 3 ? ".t*" : "");
	if ((rc = corpus_open(&c, opened, &note)) != 0) {
		FUZZ_CHECK(c == NULL);
		FUZZ_REFUSED(rc, note);
		return 0;
	}
	if (kind == 0)
		FUZZ_CHECK(corpus_n_tokens(c) * (corpus_info(c)->dtype == CORPUS_DTYPE_UINT16 ? 2 : 4) == n_bin);
	read_all(c);
	corpus_destroy(&c);
	return 0;
}
