/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

/*
 * The byte-level alphabet: bytes that print as a Latin-1 character stand for themselves, the other 68 are U+0100 onwards in
 * byte order.
 */
static bool
prints(unsigned b)
{
	return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

static int
byte_of(uint32_t c)
{
	unsigned b;

	if (c < 256)
		return prints(c) ? (int)c : -1;
	for (b = 0, c -= 256; b < 256; b++) {
		if (!prints(b) && c-- == 0)
			return (int)b;
	}
	return -1;
}

bool
tokenizer__unmap(const char *s, size_t n, unsigned char *out, size_t *out_len)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t i = 0, at = 0;

	while (i < n) {
		uint32_t c = p[i++];
		int b;

		if (c >= 0x80) {			/* the alphabet ends at U+0143: two bytes */
			if ((c & 0xe0) != 0xc0 || i == n)
				return false;
			c = (c & 0x1f) << 6 | (p[i++] & 0x3f);
		}
		if ((b = byte_of(c)) < 0)
			return false;
		out[at++] = (unsigned char)b;
	}
	*out_len = at;
	return true;
}

static size_t
table_slots(size_t n)
{
	size_t slots = 16;

	while (slots < 2 * n)
		slots *= 2;
	return slots;
}

int
tokenizer__words_build(struct tokenizer *tok)
{
	size_t slots = table_slots((size_t)tok->n_tokens), i;
	int32_t id;

	for (i = 0; i < 256; i++)
		tok->byte_id[i] = -1;
	if ((tok->word = mem_alloc(slots, sizeof tok->word[0])) == NULL)
		return ENOMEM;
	for (i = 0; i < slots; i++)
		tok->word[i] = -1;
	tok->word_mask = slots - 1;
	for (id = 0; id < tok->n_tokens; id++) {
		if ((tok->mark[id] & TOKEN_BYTE_LEVEL) == 0)
			continue;
		if (tok->len[id] == 1)
			tok->byte_id[tok->bytes[id][0]] = id;
		i = hash_bytes64(tok->bytes[id], tok->len[id]) & tok->word_mask;
		while (tok->word[i] >= 0)
			i = (i + 1) & tok->word_mask;
		tok->word[i] = id;
	}
	return 0;
}

int32_t
tokenizer__word_find(const struct tokenizer *tok, const unsigned char *p, size_t n)
{
	size_t i = hash_bytes64(p, n) & tok->word_mask;
	int32_t id;

	for (; (id = tok->word[i]) >= 0; i = (i + 1) & tok->word_mask) {
		if (tok->len[id] == n && memcmp(tok->bytes[id], p, n) == 0)
			return id;
	}
	return -1;
}

int
tokenizer__pairs_alloc(struct tokenizer *tok, size_t n_merges)
{
	size_t slots = table_slots(n_merges), i;

	if ((tok->pair = mem_alloc(slots, sizeof tok->pair[0])) == NULL)
		return ENOMEM;
	tok->pair_mask = slots - 1;
	for (i = 0; i < slots; i++)
		tok->pair[i].left = UINT32_MAX;
	return 0;
}

/* A pair that comes twice has the later rank, as in Hugging Face's table. */
void
tokenizer__pair_put(struct tokenizer *tok, uint32_t left, uint32_t right, uint32_t rank, int32_t id)
{
	struct pair_slot *s = (struct pair_slot *)(uintptr_t)tokenizer__pair_find(tok, left, right);
	size_t i;

	if (s == NULL) {
		uint64_t h = ((uint64_t)left << 32 | right) * UINT64_C(0x9e3779b97f4a7c15);

		for (i = (size_t)(h >> 32) & tok->pair_mask; tok->pair[i].left != UINT32_MAX; i = (i + 1) & tok->pair_mask)
			;
		s = &tok->pair[i];
	}
	*s = (struct pair_slot){left, right, rank, id};
}

static int
by_rank(const void *a, const void *b)
{
	const struct pair_slot *x = a, *y = b;

	return (x->rank > y->rank) - (x->rank < y->rank);
}

/* The order of two merges matters, the numbers of their lines do not; so the fingerprint takes the pairs sorted by rank. */
int
tokenizer__fingerprint(struct tokenizer *tok)
{
	struct hash_state *h = hash_new();
	struct pair_slot *merge = mem_alloc((size_t)tok->n_merges + 1, sizeof merge[0]);
	size_t i, n = 0;
	int32_t id;

	if (h == NULL || merge == NULL) {
		hash_destroy(&h);
		free(merge);
		return ENOMEM;
	}
	hash_field_u64(h, "tokenizer", 1);
	hash_field_u64(h, "nfc", tok->nfc);
	hash_field_u64(h, "ignore_merges", tok->ignore_merges);
	for (i = 0; i < tok->n_stages; i++) {
		hash_field_u64(h, "stage", tok->stage[i].kind);
		hash_field_str(h, "pattern", tok->stage[i].pattern);
	}
	for (id = 0; id < tok->n_tokens; id++) {
		hash_field_u64(h, "mark", tok->mark[id]);
		hash_field(h, "token", tok->bytes[id], tok->len[id]);
	}
	for (i = 0; i <= tok->pair_mask; i++) {
		if (tok->pair[i].left != UINT32_MAX)
			merge[n++] = tok->pair[i];
	}
	qsort(merge, n, sizeof merge[0], by_rank);
	for (i = 0; i < n; i++)
		hash_field_u64(h, "merge", (uint64_t)merge[i].left << 32 | merge[i].right);
	for (i = 0; i < tok->n_added; i++) {
		const struct added_token *a = &tok->added[i];

		hash_field_u64(h, "added", (uint64_t)a->id);
		hash_field(h, "content", a->content, a->len);
		hash_field_u64(h, "how", (unsigned)a->special | (unsigned)a->lstrip << 1 | (unsigned)a->rstrip << 2 |
		    (unsigned)a->normalized << 3);
	}
	tok->fingerprint = hash_digest(h);
	hash_destroy(&h);
	free(merge);
	return 0;
}

int32_t
tokenizer_vocab_size(const struct tokenizer *tok)
{
	return tok->n_tokens;
}

struct hash128
tokenizer_fingerprint(const struct tokenizer *tok)
{
	return tok->fingerprint;
}

bool
tokenizer_is_lossless(const struct tokenizer *tok)
{
	return tok->lossless;
}

const char *
tokenizer_describe(const struct tokenizer *tok)
{
	return tok->describe;
}

int
tokenizer_token(const struct tokenizer *tok, int32_t id, const unsigned char **bytes, size_t *len, bool *special)
{
	if (id < 0 || id >= tok->n_tokens)
		return ERR_RANGE;
	*bytes = tok->bytes[id];
	*len = tok->len[id];
	if (special != NULL)
		*special = (tok->mark[id] & TOKEN_SPECIAL) != 0;
	return 0;
}

static const struct added_token *
added_find(const struct tokenizer *tok, const void *bytes, size_t len)
{
	size_t i;

	for (i = 0; i < tok->n_added; i++) {
		if (tok->added[i].len == len && memcmp(tok->added[i].content, bytes, len) == 0)
			return &tok->added[i];
	}
	return NULL;
}

int
tokenizer_end_of_document(const struct tokenizer *tok, const char *name, int32_t *id, struct err_note *note)
{
	static const char *const usual[] = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<|end_of_document|>",
	    ("<\xef\xbd\x9c" "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>")};
	const struct added_token *a = NULL;
	size_t i;

	if (name != NULL) {
		a = added_find(tok, name, strlen(name));
	} else {
		for (i = 0; i < sizeof usual / sizeof usual[0] && a == NULL; i++)
			a = added_find(tok, usual[i], strlen(usual[i]));
	}
	if (a != NULL) {
		*id = a->id;
		return 0;
	}
	err_note_set(note, ERR_NOT_FOUND, "end-of-document token");
	err_note_place(note, "added_tokens");
	if (name != NULL)
		err_note_expected(note, "'%s'", name);
	else
		err_note_expected(note, "one of <|endoftext|>, <|end_of_text|>, </s>, <eos>, <|eos|>, <|end_of_document|>");
	err_note_found(note, "%zu added tokens, none of these", tok->n_added);
	return ERR_NOT_FOUND;
}

int
tokenizer_decode(const struct tokenizer *tok, const int32_t *ids, size_t n, unsigned flags, struct tokenizer_bytes *out,
    struct err_note *note)
{
	size_t i, before = out->n;
	int rc;

	for (i = 0; i < n; i++) {
		int32_t id = ids[i];

		if (id < 0 || id >= tok->n_tokens) {
			rc = err_expect_at(note, ERR_RANGE, "token id", "item %zu", "0..%d", "%d", i,
			    tok->n_tokens - 1, id);
			goto fail;
		}
		if ((flags & TOKENIZER_SKIP_SPECIALS) != 0 && (tok->mark[id] & TOKEN_SPECIAL) != 0)
			continue;
		if ((rc = tokenizer__bytes_reserve(out, (size_t)tok->len[id] + 1)) != 0) {
			err_note_set(note, rc, "decoded text");
			goto fail;
		}
		memcpy(out->bytes + out->n, tok->bytes[id], tok->len[id]);
		out->n += tok->len[id];
	}
	return 0;
fail:
	out->n = before;
	return rc;
}
