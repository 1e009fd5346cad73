/* SPDX-License-Identifier: Apache-2.0 */
/* PREFIX.idx of a Megatron indexed dataset: completely checked before any of it is used. docs/formats.md has the offsets. */
#include "data/corpus/corpus_internal.h"

#include <inttypes.h>
#include <string.h>

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
check_header(const char *path, struct corpus__map idx, struct corpus_info *info, struct err_note *note)
{
	static const char *const names[] = {"", "uint8", "int8", "int16", "", "int64", "float64", "float32"};
	uint64_t version;
	uint8_t dtype;

	if (idx.len < CORPUS__IDX_HEADER) {
		corpus__bad(note, ERR_FORMAT, path, idx.len, "a header of 34 bytes (MMIDIDX)", (int64_t)idx.len);
		err_note_found(note, "%zu bytes", idx.len);
		return ERR_FORMAT;
	}
	if (memcmp(idx.bytes, CORPUS__IDX_MAGIC, CORPUS__IDX_MAGIC_BYTES) != 0) {
		int old = memcmp(idx.bytes, "TNTIDX\0\0", 8) == 0;

		corpus__bad(note, old ? ERR_UNSUPPORTED : ERR_FORMAT, path, 0, "MMIDIDX and two zero bytes", 0);
		if (old)
			err_note_found(note, "TNTIDX, the older layout");
		else
			err_note_found(note, "%02x %02x %02x %02x ...", idx.bytes[0], idx.bytes[1], idx.bytes[2], idx.bytes[3]);
		return old ? ERR_UNSUPPORTED : ERR_FORMAT;
	}
	if ((version = get(idx.bytes + 9, 8)) != 1)
		return corpus__bad(note, ERR_VERSION, path, 9, "version 1", (int64_t)version);
	dtype = idx.bytes[17];
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

int
corpus__idx_check(const char *path, struct corpus__map idx, const char *bin_path, uint64_t bin_bytes, struct corpus_info *info,
    struct err_note *note)
{
	uint64_t n, m, want, end = 0, token_bytes;
	const uint8_t *sizes, *pointers, *docs;
	int64_t last = 0;
	int rc;

	if ((rc = check_header(path, idx, info, note)) != 0)
		return rc;
	token_bytes = corpus__token_bytes(info->dtype);
	n = get(idx.bytes + 18, 8);
	m = get(idx.bytes + 26, 8);
	if (n > idx.len / 12)
		return corpus__bad(note, ERR_FORMAT, path, 18, "no more sequences than the file has room for", (int64_t)n);
	if (m > idx.len / 8)
		return corpus__bad(note, ERR_FORMAT, path, 26, "no more documents than the file has room for", (int64_t)m);
	want = CORPUS__IDX_HEADER + 12 * n + 8 * m;
	if (idx.len != want) {
		corpus__bad(note, ERR_FORMAT, path, idx.len < want ? idx.len : want, "", 0);
		return err_expect(note, ERR_FORMAT, "",
		    "%" PRIu64 " bytes (%" PRIu64 " sequences, %" PRIu64 " document marks)", "%zu bytes%s",
		    want, n, m, idx.len,
		    idx.len == want + n && n > 0 ? " (with multimodal modes, which are not supported)" : "");
	}
	sizes = idx.bytes + CORPUS__IDX_HEADER;
	pointers = sizes + 4 * n;
	docs = pointers + 8 * n;
	for (uint64_t i = 0; i < n; i++) {
		int32_t size = (int32_t)get(sizes + 4 * i, 4);
		int64_t pointer = (int64_t)get(pointers + 8 * i, 8);

		if (size < 0)
			return corpus__bad(note, ERR_FORMAT, path, (uint64_t)(sizes - idx.bytes) + 4 * i, "a size of 0 or more", size);
		if (pointer < 0 || (uint64_t)pointer != end) {
			corpus__bad(note, ERR_FORMAT, path, (uint64_t)(pointers - idx.bytes) + 8 * i, "", pointer);
			err_note_expected(note, "pointer %" PRIu64 " of sequence %" PRIu64 ", the end of the one before", end, i);
			return ERR_FORMAT;
		}
		end += (uint64_t)size * token_bytes;
		if (end > bin_bytes) {
			corpus__bad(note, ERR_FORMAT, path, (uint64_t)(sizes - idx.bytes) + 4 * i, "", size);
			return err_expect(note, ERR_FORMAT, "",
			    "sequence %" PRIu64 " to end within the %" PRIu64 " bytes of %s",
			    "its end at %" PRIu64, i, bin_bytes, bin_path, end);
		}
	}
	if (end != bin_bytes) {
		corpus__bad(note, ERR_FORMAT, bin_path, end, "", 0);
		return err_expect(note, ERR_FORMAT, "",
		    "%" PRIu64 " bytes, the end of the last sequence in %s", "%" PRIu64, end, path,
		    bin_bytes);
	}
	for (uint64_t i = 0; i < m; i++) {
		int64_t doc = (int64_t)get(docs + 8 * i, 8);
		uint64_t at = (uint64_t)(docs - idx.bytes) + 8 * i;

		if (i == 0 && doc != 0)
			return corpus__bad(note, ERR_FORMAT, path, at, "the first document at sequence 0", doc);
		if (doc < last)
			return corpus__bad(note, ERR_FORMAT, path, at, "documents in ascending order", doc);
		if (i == m - 1 && doc != (int64_t)n)
			return corpus__bad(note, ERR_FORMAT, path, at, "the number of sequences as the last mark", doc);
		last = doc;
	}
	if (m == 0)
		return corpus__bad(note, ERR_FORMAT, path, 26, "at least one document mark", 0);
	info->n_tokens = end / token_bytes;
	info->n_documents = m - 1;
	return 0;
}
