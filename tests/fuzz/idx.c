/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: token files. Byte 0, bits 0 to 2: meaning of the rest (0 PREFIX.idx beside a .bin of zeros, 1
 * PREFIX.bin alone, 2 a file opened by its full name, 3 a pattern that matches it and a shard of llm.c, 4 as
 * 0 but opened by a pattern, 5 the side file of checksums of a .bin of zeros, in which an @ is replaced by
 * the state of that file, 6 PREFIX.counts.bin beside a .bin, 7 a name or pattern in a folder of shards); bits
 * 3 and 4: the stated type of raw ids. Bytes 1 and 2: length of the .bin. Bytes 3 and 4: length of
 * PREFIX.json, which comes last. If the files can be opened, the number of tokens fits their size, all
 * sequences can be read, and opening them again gives the same corpus.
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
			/* an id beyond the vocabulary */
			FUZZ_CHECK(rc == ERR_CORRUPT || (fuzz_faults && rc == ENOMEM));
			FUZZ_REFUSED(rc, note);
		}
	FUZZ_CHECK(corpus_window(c, n, 4, out, &note) == ERR_RANGE);
	if ((rc = corpus_check_vocab(c, 50257, &note)) != 0)
		FUZZ_REFUSED(rc, note);
	if (corpus_limit_vocab(c, 50257, &note) != 0)
		FUZZ_CHECK(note.found[0] != '\0');
	if (corpus_info(c)->vocab > 0 && corpus_info(c)->vocab < 1000) {
		static uint64_t counts[1000];

		if ((rc = corpus_counts(c, corpus_info(c)->vocab, counts, &note)) != 0)
			FUZZ_REFUSED(rc, note);
	}
}

/* Computes the fingerprint, and again with the side files and the PREFIX.json that this writes. */
static void
remember(struct corpus *c, const char *opened, enum corpus_dtype stated)
{
	struct err_note note = {0};
	struct hash128 one, two;
	struct corpus *again;
	bool written = false;
	int rc;

	if ((rc = corpus_remember(c, &written, &note)) != 0 || (rc = corpus_fingerprint(c, &one, &note)) != 0) {
		FUZZ_REFUSED(rc, note);
		return;
	}
	FUZZ_WORKS(corpus_verify(c, &note));
	if (!FUZZ_WORKS(corpus_open_as(&again, opened, written ? CORPUS_DTYPE_NONE : stated, &note)))
		return;
	FUZZ_CHECK(corpus_n_tokens(again) == corpus_n_tokens(c) && corpus_info(again)->dtype == corpus_info(c)->dtype);
	if (FUZZ_WORKS(corpus_fingerprint(again, &two, &note)))
		FUZZ_CHECK(hash_equal(one, two));
	corpus_destroy(&again);
}

/* Writes a side file: the text with the state of a file instead of the first @. */
static void
put_side(const char *of, const uint8_t *data, size_t len)
{
	const uint8_t *mark = len > 0 ? memchr(data, '@', len) : NULL;
	size_t head = mark != NULL ? (size_t)(mark - data) : len, n;
	static char text[70000];
	struct stat st;

	FUZZ_CHECK(stat(of, &st) == 0);
	memcpy(text, data, head);
	n = head;
	if (mark != NULL) {
		n += (size_t)sprintf(text + n, "%lld %lld.%09ld %llu", (long long)st.st_size, (long long)st.st_mtim.tv_sec,
		    st.st_mtim.tv_nsec, (unsigned long long)st.st_ino);
		memcpy(text + n, mark + 1, len - head - 1);
		n += len - head - 1;
	}
	fuzz_file("x.bin.salthash", text, n);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const names[8] = {"x.idx", "x.bin", "x", "x.t", "x.idx", NULL, "x.counts.bin", NULL},
	    *const ask[8] = {"x", "x", "x", "x.t*", "x.[bi]*", "x.bin", "x.[bcj]*", NULL};
	static const enum corpus_dtype types[4] = {
	    CORPUS_DTYPE_NONE, CORPUS_DTYPE_UINT16, CORPUS_DTYPE_UINT32, CORPUS_DTYPE_INT32};
	static const uint8_t zeros[65536];
	int32_t shard[256 + 2] = {20240520, 1, 4};
	enum corpus_dtype stated;
	char opened[128], link[128];
	struct err_note note = {0};
	struct corpus *c;
	uint16_t n_bin, n_json;
	int kind, rc;

	if (len < 5 || len > 65536)
		return 0;
	kind = data[0] & 7;
	stated = types[data[0] >> 3 & 3];
	memcpy(&n_bin, data + 1, 2);
	memcpy(&n_json, data + 3, 2);
	data += 5;
	len -= 5;
	n_json = n_json < len ? n_json : (uint16_t)len;
	len -= n_json;
	nftw(fuzz_dir(), fuzz_unlink, 8, FTW_DEPTH | FTW_PHYS);
	FUZZ_CHECK(mkdir(fuzz_dir(), 0777) == 0);
	if (kind == 0 || kind >= 4)
		fuzz_file("x.bin", zeros, n_bin);
	if (n_json > 0)
		fuzz_file("x.json", data + len, n_json);
	if (names[kind] != NULL)
		fuzz_file(names[kind], data, len);
	if (kind == 5) {
		snprintf(opened, sizeof(opened), "%s/x.bin", fuzz_dir());
		put_side(opened, data, len);
	}
	fuzz_file("x.tt", shard, sizeof(shard));
	snprintf(opened, sizeof(opened), "%s/%s", fuzz_dir(), ask[kind] != NULL ? ask[kind] : "");
	if (kind == 7) {
		if (memchr(data, '/', len) != NULL || memchr(data, 0, len) != NULL)
			return 0;
		snprintf(opened + strlen(opened), 32, "%.*s", (int)len, (const char *)data);
		snprintf(link, sizeof(link), "%s/x.link", fuzz_dir());
		FUZZ_CHECK(symlink("x.tt", link) == 0);
		snprintf(link, sizeof(link), "%s/folder", fuzz_dir());
		FUZZ_CHECK(mkdir(link, 0777) == 0);
		fuzz_file("x.salthash", "salthash2", 9);
	}
	if ((rc = corpus_open_as(&c, opened, stated, &note)) != 0) {
		FUZZ_CHECK(c == NULL);
		FUZZ_REFUSED(rc, note);
		return 0;
	}
	if (kind == 0)
		FUZZ_CHECK(corpus_n_tokens(c) * (corpus_info(c)->dtype == CORPUS_DTYPE_UINT16 ? 2 : 4) == n_bin);
	read_all(c);
	remember(c, opened, stated);
	read_all(c);
	corpus_destroy(&c);
	corpus_destroy(&c);		/* NULL now */
	return 0;
}
