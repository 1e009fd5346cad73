/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the stream: windows, checks, counts, fingerprint. */
#include "data/corpus/corpus_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file/file.h"
#include "base/mem/mem.h"

#define CHUNK_TOKENS 4096u		/* read at a time in a scan */

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
	uint64_t n = 0;

	if (c->members == NULL)
		return L == 0 ? 0 : (c->info.n_tokens - 1) / L;
	for (size_t i = 0; i < c->n_members; i++)
		n += corpus_n_windows(c->members[i], L);
	return n;
}

void
corpus_set_number(struct corpus *c, uint32_t corpus_no)
{
	c->number = corpus_no;
}

int
corpus_limit_vocab(struct corpus *c, uint32_t vocab, struct err_note *note)
{
	int rc;

	for (size_t i = 0; i < c->n_members; i++)
		if ((rc = corpus_limit_vocab(c->members[i], vocab, note)) != 0)
			return rc;
	if (c->members != NULL)
		return 0;
	if (c->info.vocab > vocab)
		return err_expect_at(note, ERR_MISMATCH, "%s", "vocabulary", "at most the model's %" PRIu32,
		    "%" PRIu32, c->stem, vocab, c->info.vocab);
	/*
	 * If a program wrote larger ids as uint16, their upper bits are lost, and the file does not show it.
	 */
	if (vocab > 65536 && c->info.vocab == 0 && c->info.dtype == CORPUS_DTYPE_UINT16 &&
	    c->info.kind != CORPUS_KIND_MEGATRON)
		return err_expect_at(note, ERR_MISMATCH, "%s", "vocabulary",
		    "ids of 32 bits for the model's vocabulary of %" PRIu32,
		    "uint16, which can name 65,536 (if the tokenizer has no more, state \"vocab\" in %s.json)",
		    c->parts[0].file.path, vocab, c->stem);
	if (vocab < c->limit)
		c->limit = vocab;
	return 0;
}

/* The part that contains the token at position: the last one that begins at or before it. */
static size_t
part_of(const struct corpus *c, uint64_t position)
{
	size_t lo = 0, hi = c->n_parts;

	while (hi - lo > 1) {
		size_t mid = (lo + hi) / 2;

		if (c->parts[mid].first <= position)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/*
 * Reads n tokens of a part from token `at` on as int32. Values that are not valid ids (above INT32_MAX or
 * negative) become or stay negative.
 */
static int
read_part(const struct corpus *c, const struct corpus__part *part, uint64_t at, size_t n, int32_t *out,
    struct err_note *note)
{
	unsigned width = corpus__token_bytes(c->info.dtype);
	uint64_t from = part->tokens_at + width * at, wide[512];
	uint8_t *narrow = (uint8_t *)out + 2 * n; /* the half of out that is written last */
	int rc;

	if (part->blocks != NULL &&
	    (rc = corpus__file_check(&part->file, part->blocks, from, (uint64_t)width * n, false, note)) != 0)
		return rc;
	switch (width) {
	case 2:
		if ((rc = corpus__file_read(&part->file, from, narrow, 2 * n, note)) != 0)
			return rc;
		for (size_t i = 0; i < n; i++) {
			uint16_t id;

			memcpy(&id, narrow + 2 * i, 2);
			out[i] = id;
		}
		return 0;
	case 4:
		return corpus__file_read(&part->file, from, out, 4 * n, note);
	default:
		for (size_t done = 0, take; done < n; done += take) {
			take = n - done < 512 ? n - done : 512;
			if ((rc = corpus__file_read(&part->file, from + 8 * done, wide, 8 * take, note)) != 0)
				return rc;
			for (size_t i = 0; i < take; i++)
				out[done + i] = wide[i] <= INT32_MAX ? (int32_t)wide[i] : -1;
		}
		return 0;
	}
}

/* Reads n tokens from position on, across files. Requires position + n <= n_tokens. */
static int
copy(const struct corpus *c, uint64_t position, size_t n, int32_t *out, struct err_note *note)
{
	for (size_t i = part_of(c, position); n > 0; i++) {
		const struct corpus__part *part = &c->parts[i];
		uint64_t at = position - part->first, left = part->n_tokens - at;
		size_t take = n < left ? n : (size_t)left;
		int rc;

		if (take == 0)
			continue;	/* an empty shard */
		if ((rc = read_part(c, part, at, take, out, note)) != 0)
			return rc;
		out += take;
		n -= take;
		position += take;
	}
	return 0;
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

/*
 * Sets the note for a bad id, printed as the file stores it. The place is "token POSITION", with the position
 * within the file if there are several files.
 */
static int
bad_id(const struct corpus *c, uint64_t position, uint32_t limit, int32_t id, struct err_note *note)
{
	const struct corpus__part *part = &c->parts[part_of(c, position)];
	uint64_t wide = 0;
	char place[64] = "";

	if (c->n_parts > 1)
		snprintf(place, sizeof(place), " (token %" PRIu64 " of this file)", position - part->first);
	err_expect_at(note, ERR_CORRUPT, "%s", "token %" PRIu64 "%s",
	    "an id below the vocabulary of %" PRIu32, "", part->file.path, position, place, limit);
	if (corpus__token_bytes(c->info.dtype) == 8)
		corpus__file_read(
		    &part->file, part->tokens_at + 8 * (position - part->first), &wide, 8, NULL);
	if (c->info.dtype == CORPUS_DTYPE_INT64)
		err_note_found(note, "%" PRId64, (int64_t)wide);
	else if (c->info.dtype == CORPUS_DTYPE_UINT64)
		err_note_found(note, "%" PRIu64, wide);
	else if (c->info.dtype == CORPUS_DTYPE_UINT32)
		err_note_found(note, "%" PRIu32, (uint32_t)id);
	else
		err_note_found(note, "%" PRId32, id);
	return ERR_CORRUPT;
}

int
corpus_window(const struct corpus *c, uint64_t seq, uint32_t L, int32_t *out, struct err_note *note)
{
	uint64_t index = CORPUS_SEQ_INDEX(seq), first = index * L;
	char place[sizeof(note->place)];
	size_t bad;
	int rc;

	if (CORPUS_SEQ_NO(seq) != c->number)
		return err_expect_at(note, ERR_RANGE, "%s", "sequence %" PRIu64, "one of corpus %" PRIu32,
		    "corpus %" PRIu32, c->stem, seq, c->number, CORPUS_SEQ_NO(seq));
	if (index >= corpus_n_windows(c, L))
		return err_expect_at(note, ERR_RANGE, "%s", "context %" PRIu32, "a window below %" PRIu64,
		    "%" PRIu64, c->stem, L, corpus_n_windows(c, L), index);
	if (c->members != NULL) {
		const struct corpus *part = corpus_at(c, L, index, &index);

		return corpus_window(part, CORPUS_SEQ_MAKE(part->number, index), L, out, note);
	}
	if ((rc = copy(c, first, (size_t)L + 1, out, note)) != 0)
		return rc;
	if ((bad = first_bad(out, (size_t)L + 1, c->limit)) <= L) {
		bad_id(c, first + bad, c->limit, out[bad], note);
		snprintf(place, sizeof(place), "%s", note != NULL ? note->place : "");
		err_note_place(note, "%s (window %" PRIu64 " of context %" PRIu32 ", position %zu)", place,
		    index, L, bad);
		return ERR_CORRUPT;
	}
	return 0;
}

int
corpus_tokens(const struct corpus *c, uint64_t first, size_t n, int32_t *out, struct err_note *note)
{
	size_t bad;
	int rc;

	if (c->members != NULL || first > c->info.n_tokens || n > c->info.n_tokens - first)
		return err_expect(note, ERR_RANGE, "%s", "tokens below %" PRIu64 " of a corpus alone", "%zu from %" PRIu64 " on", c->stem,
		    c->info.n_tokens, n, first);
	if ((rc = copy(c, first, n, out, note)) != 0)
		return rc;
	return (bad = first_bad(out, n, c->limit)) < n ? bad_id(c, first + bad, c->limit, out[bad], note) : 0;
}

/* Reads every token once, checks that it is below vocab and counts it; counts may be NULL. */
static int
scan(const struct corpus *c, uint32_t vocab, uint64_t *counts, struct err_note *note)
{
	int32_t ids[CHUNK_TOKENS];
	uint64_t at = 0;
	int rc;

	for (size_t i = 0; i < c->n_members; i++)
		if ((rc = scan(c->members[i], vocab, counts, note)) != 0)
			return rc;
	while (c->members == NULL && at < c->info.n_tokens) {
		uint64_t left = c->info.n_tokens - at;
		size_t n = left < CHUNK_TOKENS ? (size_t)left : CHUNK_TOKENS, bad;

		if ((rc = copy(c, at, n, ids, note)) != 0)
			return rc;
		if ((bad = first_bad(ids, n, vocab)) < n)
			return bad_id(c, at + bad, vocab, ids[bad], note);
		for (size_t i = 0; counts != NULL && i < n; i++)
			counts[ids[i]]++;
		at += n;
	}
	return 0;
}

/* Returns 0 if one of the first tokens is the end-of-document id; ERR_NOT_FOUND; or the error of a read. */
static int
find_end(const struct corpus *c, struct err_note *note)
{
	int32_t ids[CHUNK_TOKENS];
	int rc;

	for (uint64_t at = 0; at < c->info.n_tokens && at < CORPUS_ISOLATE_TOKENS; at += CHUNK_TOKENS) {
		uint64_t left = c->info.n_tokens - at;
		size_t n = left < CHUNK_TOKENS ? (size_t)left : CHUNK_TOKENS;

		if ((rc = copy(c, at, n, ids, note)) != 0)
			return rc;
		for (size_t i = 0; i < n; i++)
			if (ids[i] == c->info.eod)
				return 0;
	}
	return ERR_NOT_FOUND;
}

/* Returns 0 if the documents of the corpus, or of all parts of a blend, can be kept apart; else an error. */
static int
check_isolation(const struct corpus *c, int32_t end, struct err_note *note)
{
	int rc;

	for (size_t i = 0; i < c->n_members; i++)
		if ((rc = check_isolation(c->members[i], end, note)) != 0)
			return rc;
	if (c->members != NULL)
		return 0;
	if (c->info.eod < 0)
		return err_expect_at(note, ERR_FORMAT, "%s", "corpus.isolate_documents", "the id that ends documents (\"eod\" in %s.json)", "none; state "
		    "it there, or build the corpus with saltctl corpus build", c->stem, c->stem);
	if (end >= 0 && c->info.eod != end)
		return err_expect_at(note, ERR_MISMATCH, "%s", "corpus.isolate_documents", "the end-of-document id of corpus.train, %" PRId32, "%" PRId32,
		    c->stem, end, c->info.eod);
	if ((rc = find_end(c, note)) == ERR_NOT_FOUND)
		return err_expect_at(note, ERR_FORMAT, "%s", "corpus.isolate_documents", "documents that end with token %" PRId32 " (\"eod\" in %s.json)",
		    "none in the first %" PRIu64 " tokens", c->stem, c->info.eod, c->stem,
		    c->info.n_tokens < CORPUS_ISOLATE_TOKENS ? c->info.n_tokens : CORPUS_ISOLATE_TOKENS);
	return rc;
}

int
corpus_isolate(struct corpus *c, int32_t end, struct err_note *note)
{
	int rc = check_isolation(c, end, note);

	c->isolated |= rc == 0;
	return rc;
}

int32_t
corpus_document_end(const struct corpus *c)
{
	return c->isolated ? c->info.eod : -1;
}

int
corpus_check_vocab(const struct corpus *c, uint32_t vocab, struct err_note *note)
{
	return scan(c, vocab < (uint32_t)INT32_MAX + 1 ? vocab : (uint32_t)INT32_MAX + 1, NULL, note);
}

int
corpus_counts(const struct corpus *c, uint32_t vocab, uint64_t *out, struct err_note *note)
{
	const size_t want = CORPUS__COUNTS_HEADER + 8 * (size_t)vocab;
	char path[CORPUS__PATH_MAX + 16], *bytes = NULL;
	uint32_t stored;
	size_t len;
	int rc;

	if (vocab == 0 || vocab > INT32_MAX || (c->info.vocab != 0 && c->info.vocab != vocab))
		return err_expect_at(note, ERR_MISMATCH, "%s", "vocabulary", "%" PRIu32, "%" PRIu32, c->stem,
		    c->info.vocab, vocab);
	if (c->members != NULL)
		return corpus__list_counts(c, vocab, out, note);
	if (!c->info.has_counts) {
		for (uint32_t v = 0; v < vocab; v++)
			out[v] = 1;
		return scan(c, vocab, out, note);
	}
	snprintf(path, sizeof(path), "%s.counts.bin", c->stem);
	if ((rc = file_read(path, 0, &bytes, &len, note)) != 0)
		return rc;
	if (len != want) {
		rc = corpus__bad(note, ERR_CORRUPT, path, len, "", 0);
		err_note_expected(note, "%zu bytes (vocabulary %" PRIu32 ")", want, vocab);
		err_note_found(note, "%zu", len);
		goto out;
	}
	memcpy(&stored, bytes + 8, 4);
	if (!hash_equal(hash_bytes(bytes, len), c->counts) || memcmp(bytes, CORPUS__COUNTS_MAGIC, 8) != 0 ||
	    stored != vocab) {
		rc = corpus__bad(note, ERR_CORRUPT, path, 0, "the counts whose hash is in PREFIX.json", 0);
		err_note_found(note, "different contents");
		goto out;
	}
	memcpy(out, bytes + CORPUS__COUNTS_HEADER, 8 * (size_t)vocab);
out:
	free(bytes);
	return rc;
}

int
corpus__identity(enum corpus_kind kind, enum corpus_dtype dtype, const struct hash128 *idx,
    const struct hash128 *bins, size_t n, struct hash128 *out, struct err_note *note)
{
	struct hash_state *h = hash_new();

	if (h == NULL)
		return err_note_set(note, ENOMEM, "fingerprint of a corpus");
	hash_field_u64(h, "corpus", 1);
	hash_field_str(h, "kind", corpus_kind_name(kind));
	hash_field_str(h, "dtype", corpus_dtype_name(dtype));
	for (size_t i = 0; i < n; i++) {
		if (idx != NULL)
			hash_field(h, "idx", &idx[i], sizeof(idx[i]));
		hash_field(h, "bin", &bins[i], sizeof(bins[i]));
	}
	*out = hash_digest(h);
	hash_destroy(&h);
	return 0;
}

/*
 * Gets the block checksums of all parts, and the hashes from which the fingerprint is made. The index is
 * hashed as a whole, because all of it was read to open the corpus.
 */
static int
hash_parts(struct corpus *c, struct hash128 *idx, struct hash128 *bins, struct err_note *note)
{
	int rc = 0;

	for (size_t i = 0; i < c->n_parts && rc == 0; i++) {
		struct corpus__part *part = &c->parts[i];
		int fd = corpus__file_fd(&part->file, &rc, note);

		if (fd < 0)
			break;
		hash_blocks_close(&part->blocks); /* from a call that failed */
		rc = hash_blocks_open(&part->blocks, fd, part->file.path, &bins[i], note);
		corpus__file_done(&part->file, fd);
		if (rc == 0 && part->idx_path != NULL)
			rc = hash_file(part->idx_path, &idx[i], note);
	}
	return rc;
}

/* Computes c->fingerprint, which does not depend on corpus_isolate. */
static int
fingerprint(struct corpus *c, struct err_note *note)
{
	struct hash128 *hashes, *idx;
	int rc;

	if (c->has_fingerprint)
		return 0;
	if (c->members != NULL) {
		if ((rc = corpus__list_fingerprint(c, note)) == 0)
			c->has_fingerprint = true;
		return rc;
	}
	if ((hashes = mem_alloc(c->n_parts, 2 * sizeof(hashes[0]))) == NULL)
		return err_note_set(note, ENOMEM, "%s", c->stem);
	idx = hashes + c->n_parts;
	if ((rc = hash_parts(c, idx, hashes, note)) != 0 ||
	    (rc = corpus__identity(c->info.kind, c->info.dtype,
		 c->info.kind == CORPUS_KIND_MEGATRON ? idx : NULL, hashes, c->n_parts, &c->fingerprint,
		 note)) != 0)
		goto out;
	if (c->has_recorded && !hash_equal(c->recorded, c->fingerprint)) {
		char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES];

		rc = err_expect_at(note, ERR_CORRUPT, "%s", "fingerprint", "%s as in PREFIX.json", "%s",
		    c->stem, hash_hex(c->recorded, a), hash_hex(c->fingerprint, b));
		goto out;
	}
	c->has_fingerprint = true;
out:
	free(hashes);
	return rc;
}

int
corpus_fingerprint(struct corpus *c, struct hash128 *out, struct err_note *note)
{
	struct hash_state *h;
	int rc = fingerprint(c, note);

	if (rc != 0)
		return rc;
	*out = c->fingerprint;
	if (!c->isolated)
		return 0;
	if ((h = hash_new()) == NULL)
		return err_note_set(note, ENOMEM, "fingerprint of a corpus");
	hash_field_u64(h, "isolated", 1);
	hash_field(h, "corpus", out, sizeof(*out));
	hash_field_u64(h, "end", (uint64_t)c->info.eod);
	*out = hash_digest(h);
	hash_destroy(&h);
	return 0;
}

int
corpus_verify(struct corpus *c, struct err_note *note)
{
	int rc = fingerprint(c, note);

	for (size_t i = 0; i < c->n_members && rc == 0; i++)
		rc = corpus_verify(c->members[i], note);
	for (size_t i = 0; i < c->n_parts && rc == 0; i++)
		rc = corpus__file_check(
		    &c->parts[i].file, c->parts[i].blocks, 0, c->parts[i].file.size, true, note);
	return rc;
}

bool
corpus_split_heldout(const void *text, size_t n_bytes, uint32_t one_in)
{
	return one_in != 0 && hash_bytes64(text, n_bytes) % one_in == 0;
}
