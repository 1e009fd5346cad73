/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

/* Implements Unicode Standard table 3-7, well-formed sequences: the range of byte 2 depends on byte 1. */
size_t
tokenizer__utf8_len(const unsigned char *p, size_t n)
{
	unsigned lo = 0x80, hi = 0xbf;
	size_t len, i;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	if (p[0] == 0xe0)
		lo = 0xa0;
	else if (p[0] == 0xed)
		hi = 0x9f;
	else if (p[0] == 0xf0)
		lo = 0x90;
	else if (p[0] == 0xf4)
		hi = 0x8f;
	if (n < len || p[1] < lo || p[1] > hi)
		return 0;
	for (i = 2; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	return len;
}

uint32_t
tokenizer__utf8_decode(const unsigned char *p, size_t len)
{
	switch (len) {
	case 1:
		return p[0];
	case 2:
		return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
	case 3:
		return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
	default:
		return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
	}
}

/* The length of the well-formed UTF-8 at the beginning of p. */
static size_t
valid_prefix(const unsigned char *p, size_t n)
{
	size_t i = 0, len;
	uint64_t eight;

	while (i < n) {
		if (i + 8 <= n && (memcpy(&eight, p + i, 8), (eight & UINT64_C(0x8080808080808080)) == 0)) {
			i += 8;
			continue;
		}
		if ((len = tokenizer__utf8_len(p + i, n - i)) == 0)
			break;
		i += len;
	}
	return i;
}

int
tokenizer__bytes_reserve(struct tokenizer_bytes *b, size_t more)
{
	size_t need;

	if (!mem_add(b->n, more, &need))
		return ENOMEM;
	return need <= b->cap ? 0 : mem_grow((void **)&b->bytes, &b->cap, need, 1);
}

int
tokenizer__ids_reserve(struct tokenizer_ids *ids, size_t more)
{
	size_t need;

	if (!mem_add(ids->n, more, &need))
		return ENOMEM;
	return need <= ids->cap ? 0 : mem_grow((void **)&ids->ids, &ids->cap, need, sizeof ids->ids[0]);
}

/*
 * Splits at the added tokens of trie t, appends their ids and passes each part between them to `part`. Called
 * for the raw text first; then for each remaining part after the normaliser, with the tokens that are matched
 * in normalised text.
 */
static int
cut_added(struct tokenizer_encoder *enc, const struct trie *t, const unsigned char *p, size_t n,
    int (*part)(struct tokenizer_encoder *, const unsigned char *, size_t))
{
	const struct added_token *a;
	size_t done = 0, at = 0, from, to;
	bool first = enc->first;
	int rc;

	while ((a = tokenizer__added_next(enc->tok, t, enc->flags, p, n, done, &at, &from, &to)) != NULL) {
		enc->first = first && done == 0;
		if (from > done && (rc = part(enc, p + done, from - done)) != 0)
			return rc;
		if ((rc = tokenizer__ids_reserve(enc->out, 1)) != 0)
			return err_note_set(enc->note, rc, "token ids");
		enc->out->ids[enc->out->n++] = a->id;
		done = to;
	}
	enc->first = first && done == 0;
	return done < n ? part(enc, p + done, n - done) : 0;
}

static int
split_part(struct tokenizer_encoder *enc, const unsigned char *p, size_t n)
{
	return tokenizer__split(enc, 0, p, n);
}

static int
normal_part(struct tokenizer_encoder *enc, const unsigned char *p, size_t n)
{
	int rc;

	if ((rc = tokenizer__normalize(enc, p, n, &p, &n)) != 0)
		return rc;
	return cut_added(enc, &enc->tok->normalized, p, n, split_part);
}

int
tokenizer_encoder_new(struct tokenizer_encoder **enc, const struct tokenizer *tok)
{
	struct tokenizer_encoder *e;

	if ((*enc = e = calloc(1, sizeof *e)) == NULL)
		return ENOMEM;
	e->tok = tok;
	e->unknown_id = -1;
	if ((e->cache = tokenizer__cache_new()) == NULL || (e->merge = tokenizer__merge_scratch_new()) == NULL ||
	    (e->regex = tokenizer__regex_scratch_new()) == NULL) {
		tokenizer_encoder_destroy(enc);
		return ENOMEM;
	}
	return 0;
}

void
tokenizer_encoder_destroy(struct tokenizer_encoder **enc)
{
	struct tokenizer_encoder *e = *enc;
	size_t i;

	if (e == NULL)
		return;
	free(e->cache);
	tokenizer__merge_scratch_destroy(&e->merge);
	tokenizer__regex_scratch_destroy(&e->regex);
	for (i = 0; i < MAX_STAGES; i++)
		free(e->changed[i].bytes);
	free(e->unmapped.bytes);
	free(e->normal[0].bytes);
	free(e->normal[1].bytes);
	tokenizer__unigram_scratch_destroy(&e->unigram);
	free(e->code_points);
	free(e);
	*enc = NULL;
}

void
tokenizer_encoder_unknown(struct tokenizer_encoder *enc, int32_t id)
{
	enc->unknown_id = id;
}

uint64_t
tokenizer_encoder_n_unknown(const struct tokenizer_encoder *enc)
{
	return enc->n_unknown;
}

int
tokenizer_encode(struct tokenizer_encoder *enc, const void *text, size_t len, unsigned flags, struct tokenizer_ids *out,
    struct err_note *note)
{
	const unsigned char *p = text;
	size_t at = 0, before = out->n;
	int rc = 0;

	if (len > MAX_TEXT_BYTES)
		return err_expect(note, ERR_RANGE, "text", "at most %u bytes at a time", "%zu",
		    MAX_TEXT_BYTES, len);
	enc->flags = flags;
	enc->out = out;
	enc->note = note;
	enc->text = p;
	enc->text_len = len;
	while (at < len && rc == 0) {
		size_t n = valid_prefix(p + at, len - at), bad;

		enc->first = true;
		if (n > 0 && (rc = cut_added(enc, &enc->tok->raw, p + at, n, normal_part)) != 0)
			break;
		for (at += n, bad = at; bad < len && tokenizer__utf8_len(p + bad, len - bad) == 0; bad++)
			;
		rc = tokenizer__word(enc, p + at, bad - at);
		at = bad;
	}
	enc->out = NULL;
	enc->note = NULL;
	enc->text = NULL;
	if (rc != 0)
		out->n = before;
	return rc;
}

