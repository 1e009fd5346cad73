/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks PREFIX.idx of a Megatron indexed dataset completely before any of it is used. docs/formats.md has
 * the offsets.
 */
#include "data/corpus/corpus_internal.h"

#include <inttypes.h>
#include <string.h>

#define CHUNK 4096u /* entries read at a time */

static uint64_t
get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	memcpy(&v, p, bytes);		/* little-endian hosts only; CMake refuses others */
	return v;
}

int
corpus__bad(struct err_note *note, int rc, const char *path, uint64_t at, const char *expected, int64_t found)
{
	return err_expect_at(note, rc, "%s", "byte %" PRIu64, "%s", "%" PRId64, path, at, expected, found);
}

static int
check_header(const struct corpus__file *idx, uint8_t header[CORPUS__IDX_HEADER], struct corpus_info *info,
    struct err_note *note)
{
	static const char *const names[] = {"", "uint8", "int8", "int16", "", "int64", "float64", "float32"};
	const char *path = idx->path;
	uint64_t version;
	uint8_t dtype;
	int rc;

	if (idx->size < CORPUS__IDX_HEADER) {
		corpus__bad(
		    note, ERR_FORMAT, path, idx->size, "a header of 34 bytes (MMIDIDX)", (int64_t)idx->size);
		err_note_found(note, "%" PRIu64 " bytes", idx->size);
		return ERR_FORMAT;
	}
	if ((rc = corpus__file_read(idx, 0, header, CORPUS__IDX_HEADER, note)) != 0)
		return rc;
	if (memcmp(header, CORPUS__IDX_MAGIC, CORPUS__IDX_MAGIC_BYTES) != 0) {
		int old = memcmp(header, "TNTIDX\0\0", 8) == 0;

		corpus__bad(note, old ? ERR_UNSUPPORTED : ERR_FORMAT, path, 0, "MMIDIDX and two zero bytes", 0);
		if (old)
			err_note_found(note, "TNTIDX, the older layout");
		else
			err_note_found(
			    note, "%02x %02x %02x %02x ...", header[0], header[1], header[2], header[3]);
		return old ? ERR_UNSUPPORTED : ERR_FORMAT;
	}
	if ((version = get(header + 9, 8)) != 1)
		return corpus__bad(note, ERR_VERSION, path, 9, "version 1", (int64_t)version);
	dtype = header[17];
	if (dtype != CORPUS_DTYPE_UINT16 && dtype != CORPUS_DTYPE_INT32) {
		int known = dtype >= 1 && dtype <= 7;

		corpus__bad(note, known ? ERR_UNSUPPORTED : ERR_FORMAT, path, 17, "token type 8 (uint16) or 4 (int32)", dtype);
		if (known)
			err_note_found(note, "%u (%s)", dtype, names[dtype]);
		return known ? ERR_UNSUPPORTED : ERR_FORMAT;
	}
	info->dtype = (enum corpus_dtype)dtype;
	return 0;
}

/* Checks n sequences: sizes from byte 34 on, then pointers. *out: the byte where the last one ends. */
static int
check_sequences(const struct corpus__file *idx, uint64_t n, const char *bin_path, uint64_t bin_bytes,
    uint64_t token_bytes, uint64_t *out, struct err_note *note)
{
	uint64_t sizes_at = CORPUS__IDX_HEADER, pointers_at = sizes_at + 4 * n, end = 0;
	uint8_t sizes[4 * CHUNK], pointers[8 * CHUNK];
	const char *path = idx->path;
	int rc;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t k = i % CHUNK, take = n - i < CHUNK ? n - i : CHUNK;
		int32_t size;
		int64_t pointer;

		if (k == 0 &&
		    ((rc = corpus__file_read(idx, sizes_at + 4 * i, sizes, 4 * take, note)) != 0 ||
			(rc = corpus__file_read(idx, pointers_at + 8 * i, pointers, 8 * take, note)) != 0))
			return rc;
		size = (int32_t)get(sizes + 4 * k, 4);
		pointer = (int64_t)get(pointers + 8 * k, 8);
		if (size < 0)
			return corpus__bad(
			    note, ERR_FORMAT, path, sizes_at + 4 * i, "a size of 0 or more", size);
		if (pointer < 0 || (uint64_t)pointer != end) {
			corpus__bad(note, ERR_FORMAT, path, pointers_at + 8 * i, "", pointer);
			err_note_expected(note, "pointer %" PRIu64 " of sequence %" PRIu64 ", the end of the one before", end, i);
			return ERR_FORMAT;
		}
		end += (uint64_t)size * token_bytes;
		if (end > bin_bytes) {
			corpus__bad(note, ERR_FORMAT, path, sizes_at + 4 * i, "", size);
			return err_expect(note, ERR_FORMAT, "",
			    "sequence %" PRIu64 " to end within the %" PRIu64 " bytes of %s",
			    "its end at %" PRIu64, i, bin_bytes, bin_path, end);
		}
	}
	*out = end;
	return 0;
}

/* Checks m document marks from offset `at` on: the first sequence of each document, then n. */
static int
check_documents(const struct corpus__file *idx, uint64_t at, uint64_t m, uint64_t n, struct err_note *note)
{
	uint8_t docs[8 * CHUNK];
	int64_t last = 0;
	int rc;

	for (uint64_t i = 0; i < m; i++) {
		uint64_t k = i % CHUNK, take = m - i < CHUNK ? m - i : CHUNK;
		int64_t doc;

		if (k == 0 && (rc = corpus__file_read(idx, at + 8 * i, docs, 8 * take, note)) != 0)
			return rc;
		doc = (int64_t)get(docs + 8 * k, 8);
		if (i == 0 && doc != 0)
			return corpus__bad(
			    note, ERR_FORMAT, idx->path, at, "the first document at sequence 0", doc);
		if (doc < last)
			return corpus__bad(
			    note, ERR_FORMAT, idx->path, at + 8 * i, "documents in ascending order", doc);
		if (i == m - 1 && doc != (int64_t)n)
			return corpus__bad(note, ERR_FORMAT, idx->path, at + 8 * i,
			    "the number of sequences as the last mark", doc);
		last = doc;
	}
	return m > 0 ? 0 : corpus__bad(note, ERR_FORMAT, idx->path, 26, "at least one document mark", 0);
}

int
corpus__idx_check(const char *path, const char *bin_path, uint64_t bin_bytes, struct corpus_info *info,
    struct err_note *note)
{
	uint8_t header[CORPUS__IDX_HEADER];
	uint64_t n, m, want, end = 0, token_bytes;
	struct corpus__file idx;
	int rc;

	if ((rc = corpus__file_open(&idx, path, note)) != 0)
		return rc;
	if ((rc = check_header(&idx, header, info, note)) != 0)
		goto out;
	token_bytes = corpus__token_bytes(info->dtype);
	n = get(header + 18, 8);
	m = get(header + 26, 8);
	if (n > idx.size / 12) {
		rc = corpus__bad(
		    note, ERR_FORMAT, path, 18, "no more sequences than the file has room for", (int64_t)n);
		goto out;
	}
	if (m > idx.size / 8) {
		rc = corpus__bad(
		    note, ERR_FORMAT, path, 26, "no more documents than the file has room for", (int64_t)m);
		goto out;
	}
	want = CORPUS__IDX_HEADER + 12 * n + 8 * m;
	if (idx.size != want) {
		corpus__bad(note, ERR_FORMAT, path, idx.size < want ? idx.size : want, "", 0);
		rc = err_expect(note, ERR_FORMAT, "",
		    "%" PRIu64 " bytes (%" PRIu64 " sequences, %" PRIu64 " document marks)",
		    "%" PRIu64 " bytes%s", want, n, m, idx.size,
		    idx.size == want + n && n > 0 ? " (with multimodal modes, which are not supported)" : "");
		goto out;
	}
	if ((rc = check_sequences(&idx, n, bin_path, bin_bytes, token_bytes, &end, note)) != 0)
		goto out;
	if (end != bin_bytes) {
		corpus__bad(note, ERR_FORMAT, bin_path, end, "", 0);
		rc = err_expect(note, ERR_FORMAT, "", "%" PRIu64 " bytes, the end of the last sequence in %s",
		    "%" PRIu64, end, path, bin_bytes);
		goto out;
	}
	if ((rc = check_documents(&idx, CORPUS__IDX_HEADER + 12 * n, m, n, note)) != 0)
		goto out;
	info->n_tokens = end / token_bytes;
	info->n_documents = m - 1;
out:
	corpus__file_close(&idx);
	return rc;
}
