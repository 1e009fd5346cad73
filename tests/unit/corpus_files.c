/* SPDX-License-Identifier: Apache-2.0 */
#include "corpus_files.h"

#include "files.h"

struct err_note note;

void
copy_golden(const char *from, const char *to)
{
	uint8_t buf[2048];
	char path[160];

	snprintf(path, sizeof(path), GOLDEN "%s", from);
	spill(in_dir(to), buf, slurp(path, buf, sizeof(buf)));
}

struct corpus_writer *
start(const char *prefix, uint32_t vocab, bool replace)
{
	struct corpus_writer_options o = {.vocab = vocab, .eod = 2, .tokenizer = {0xabc, 0xdef}, .replace = replace};
	struct corpus_writer *w = NULL;

	REQUIRE(corpus_writer_new(&w, prefix, &o, &note) == 0);
	return w;
}

int
write_some(const char *prefix, uint32_t vocab, int n, bool replace)
{
	struct corpus_writer *w = start(prefix, vocab, replace);
	struct hash128 source = {5, 6};
	int32_t ids[256];
	int rc = 0, next = 0;

	for (int d = 1; d <= n && rc == 0; d++) {
		for (int i = 0; i < d; i++)
			ids[i] = (int32_t)((uint32_t)(next++) * 977u % vocab);
		rc = corpus_writer_document(w, ids, (size_t)d, 4 * (uint64_t)d, &note);
	}
	if (rc == 0)
		rc = corpus_writer_finish(w, &source, &note);
	corpus_writer_destroy(&w);
	return rc;
}
