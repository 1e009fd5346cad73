/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the stream: windows, checks, counts, fingerprint. */
#include "data/corpus/corpus_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

#define CHUNK_TOKENS 4096u		/* of a scan */

const struct corpus_info *
corpus_info(const struct corpus *c)
{
	return &c->info;
}

uint64_t
corpus_n_tokens(const struct corpus *c)
{
	return c->info.n_tokens;
}

uint64_t
corpus_n_windows(const struct corpus *c, uint32_t L)
{
	return L == 0 ? 0 : (c->info.n_tokens - 1) / L;
}

void
corpus_set_number(struct corpus *c, uint32_t corpus_no)
{
	c->number = corpus_no;
}

int
corpus_limit_vocab(struct corpus *c, uint32_t vocab, struct err_note *note)
{
	if (c->info.vocab > vocab)
		return err_expect_at(note, ERR_MISMATCH, "%s", "vocabulary", "at most the model's %" PRIu32,
		    "%" PRIu32, c->stem, vocab, c->info.vocab);
	if (vocab < c->limit)
		c->limit = vocab;
	return 0;
}

/* n tokens from position on, whichever files they lie in, as int32 (uint32 above INT32_MAX come out negative). position + n <= n_tokens. */
static void
copy(const struct corpus *c, uint64_t position, size_t n, int32_t *out)
{
	size_t lo = 0, hi = c->n_parts;

	while (hi - lo > 1) {		/* the last part that begins at or before position */
		size_t mid = (lo + hi) / 2;

		if (c->parts[mid].first <= position)
			lo = mid;
		else
			hi = mid;
	}
	for (; n > 0; lo++) {
		const struct corpus__part *part = &c->parts[lo];
		uint64_t at = position - part->first, left = part->n_tokens - at;
		size_t take = n < left ? n : (size_t)left;

		if (take == 0)
			continue;	/* an empty shard */
		if (c->info.dtype == CORPUS_DTYPE_UINT16) {
			const uint8_t *p = part->tokens + 2 * at;

			for (size_t i = 0; i < take; i++) {
				uint16_t id;

				memcpy(&id, p + 2 * i, 2);
				out[i] = id;
			}
		} else {
			memcpy(out, part->tokens + 4 * at, 4 * take);
		}
		out += take;
		n -= take;
		position += take;
	}
}

/* Index of the first id that is negative or >= limit; n if there is none. */
static size_t
first_bad(const int32_t *ids, size_t n, uint32_t limit)
{
	size_t i = 0;

	while (i < n && (uint32_t)ids[i] < limit)
		i++;
	return i;
}

static int
bad_id(const struct corpus *c, uint64_t position, uint32_t limit, int32_t id, struct err_note *note)
{
	err_expect_at(note, ERR_CORRUPT, "%s", "token %" PRIu64, "an id below the vocabulary of %" PRIu32, "",
	    c->stem, position, limit);
	if (c->info.dtype == CORPUS_DTYPE_UINT32)
		err_note_found(note, "%" PRIu32, (uint32_t)id);
	else
		err_note_found(note, "%" PRId32, id);
	return ERR_CORRUPT;
}

int
corpus_window(const struct corpus *c, uint64_t seq, uint32_t L, int32_t *out, struct err_note *note)
{
	uint64_t index = CORPUS_SEQ_INDEX(seq), first = index * L;
	size_t bad;

	if (CORPUS_SEQ_NO(seq) != c->number)
		return err_expect_at(note, ERR_RANGE, "%s", "sequence %" PRIu64, "one of corpus %" PRIu32,
		    "corpus %" PRIu32, c->stem, seq, c->number, CORPUS_SEQ_NO(seq));
	if (index >= corpus_n_windows(c, L))
		return err_expect_at(note, ERR_RANGE, "%s", "context %" PRIu32, "a window below %" PRIu64,
		    "%" PRIu64, c->stem, L, corpus_n_windows(c, L), index);
	copy(c, first, (size_t)L + 1, out);
	if ((bad = first_bad(out, (size_t)L + 1, c->limit)) <= L) {
		bad_id(c, first + bad, c->limit, out[bad], note);
		err_note_place(note, "token %" PRIu64 " (window %" PRIu64 " of context %" PRIu32 ", position %zu)", first + bad, index, L, bad);
		return ERR_CORRUPT;
	}
	return 0;
}

/* Every token once; counts may be NULL. */
static int
scan(const struct corpus *c, uint32_t vocab, uint64_t *counts, struct err_note *note)
{
	int32_t ids[CHUNK_TOKENS];
	uint64_t at = 0;

	while (at < c->info.n_tokens) {
		uint64_t left = c->info.n_tokens - at;
		size_t n = left < CHUNK_TOKENS ? (size_t)left : CHUNK_TOKENS, bad;

		copy(c, at, n, ids);
		if ((bad = first_bad(ids, n, vocab)) < n)
			return bad_id(c, at + bad, vocab, ids[bad], note);
		for (size_t i = 0; counts != NULL && i < n; i++)
			counts[ids[i]]++;
		at += n;
	}
	return 0;
}

int
corpus_check_vocab(const struct corpus *c, uint32_t vocab, struct err_note *note)
{
	return scan(c, vocab < (uint32_t)INT32_MAX + 1 ? vocab : (uint32_t)INT32_MAX + 1, NULL, note);
}

int
corpus_counts(const struct corpus *c, uint32_t vocab, uint64_t *out, struct err_note *note)
{
	char path[CORPUS__PATH_MAX + 16];
	struct corpus__map map = {0};
	uint32_t stored;
	int rc;

	if (vocab == 0 || vocab > INT32_MAX || (c->info.vocab != 0 && c->info.vocab != vocab))
		return err_expect_at(note, ERR_MISMATCH, "%s", "vocabulary", "%" PRIu32, "%" PRIu32, c->stem,
		    c->info.vocab, vocab);
	if (!c->info.has_counts) {
		for (uint32_t v = 0; v < vocab; v++)
			out[v] = 1;
		return scan(c, vocab, out, note);
	}
	snprintf(path, sizeof(path), "%s.counts.bin", c->stem);
	if ((rc = corpus__map_file(path, &map, note)) != 0)
		return rc;
	if (map.len != CORPUS__COUNTS_HEADER + 8 * (uint64_t)vocab) {
		rc = corpus__bad(note, ERR_CORRUPT, path, map.len, "", 0);
		err_note_expected(note, "%" PRIu64 " bytes (vocabulary %" PRIu32 ")", CORPUS__COUNTS_HEADER + 8 * (uint64_t)vocab, vocab);
		err_note_found(note, "%zu", map.len);
		goto out;
	}
	memcpy(&stored, map.bytes + 8, 4);
	if (!hash_equal(hash_bytes(map.bytes, map.len), c->counts) || memcmp(map.bytes, "SALTCNT1", 8) != 0 || stored != vocab) {
		rc = corpus__bad(note, ERR_CORRUPT, path, 0, "the counts whose hash is in PREFIX.json", 0);
		err_note_found(note, "others");
		goto out;
	}
	memcpy(out, map.bytes + CORPUS__COUNTS_HEADER, 8 * (size_t)vocab);
out:
	corpus__unmap(&map);
	return rc;
}

int
corpus__identity(enum corpus_kind kind, enum corpus_dtype dtype, const char *idx, const char *const *bins, size_t n_bins,
    bool use_sidecar, struct hash128 *out, struct err_note *note)
{
	struct hash_state *h = hash_new();
	struct hash128 root;
	int rc = 0;

	if (h == NULL)
		return err_note_set(note, ENOMEM, "fingerprint of a corpus");
	hash_field_u64(h, "corpus", 1);
	hash_field_str(h, "kind", corpus_kind_name(kind));
	hash_field_str(h, "dtype", corpus_dtype_name(dtype));
	if (idx != NULL) {
		if ((rc = hash_file(idx, use_sidecar, &root, note)) != 0)
			goto out;
		hash_field(h, "idx", &root, sizeof(root));
	}
	for (size_t i = 0; i < n_bins; i++) {
		if ((rc = hash_file(bins[i], use_sidecar, &root, note)) != 0)
			goto out;
		hash_field(h, "bin", &root, sizeof(root));
	}
	*out = hash_digest(h);
out:
	hash_destroy(&h);
	return rc;
}

int
corpus_fingerprint(struct corpus *c, struct hash128 *out, struct err_note *note)
{
	const char **bins = NULL;
	int rc = 0;

	if (c->has_fingerprint)
		goto out;
	if ((bins = mem_alloc(c->n_parts, sizeof(bins[0]))) == NULL)
		return err_note_set(note, ENOMEM, "%s", c->stem);
	for (size_t i = 0; i < c->n_parts; i++)
		bins[i] = c->parts[i].path;
	if ((rc = corpus__identity(c->info.kind, c->info.dtype, c->info.kind == CORPUS_KIND_MEGATRON ? c->idx_path : NULL, bins, c->n_parts,
	    true, &c->fingerprint, note)) != 0)
		goto out;
	if (c->has_recorded && !hash_equal(c->recorded, c->fingerprint)) {
		char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];

		rc = err_expect_at(note, ERR_CORRUPT, "%s", "fingerprint", "%s as in PREFIX.json", "%s",
		    c->stem, hash_hex(c->recorded, a), hash_hex(c->fingerprint, b));
		goto out;
	}
	c->has_fingerprint = true;
out:
	free(bins);
	if (rc == 0)
		*out = c->fingerprint;
	return rc;
}

bool
corpus_split_heldout(const void *text, size_t n_bytes, uint32_t one_in)
{
	return one_in != 0 && hash_bytes64(text, n_bytes) % one_in == 0;
}
