/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

/*
 * The byte-level alphabet: bytes that are printable Latin-1 characters are mapped to themselves, the other 68
 * to U+0100 onwards in byte order: 0 to 0x20, 0x7f to 0xa0, 0xad.
 */
static uint32_t
char_of(unsigned b)
{
	if (b <= 0x20)
		return 0x100 + b;
	if (b >= 0x7f && b <= 0xa0)
		return 0x121 + (b - 0x7f);
	return b == 0xad ? 0x143 : b;
}

static int
byte_of(uint32_t c)
{
	if (c >= 0x100)
		return c <= 0x120 ? (int)(c - 0x100) : c <= 0x142 ? (int)(c - 0x121 + 0x7f) : c == 0x143 ? 0xad : -1;
	return char_of(c) == c ? (int)c : -1;
}

size_t
tokenizer__map(const unsigned char *p, size_t n, unsigned char *out)
{
	size_t i, at = 0;

	for (i = 0; i < n; i++) {
		uint32_t c = char_of(p[i]);

		if (c < 0x80) {
			out[at++] = (unsigned char)c;
		} else {
			out[at++] = (unsigned char)(0xc0 | c >> 6);
			out[at++] = (unsigned char)(0x80 | (c & 0x3f));
		}
	}
	return at;
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
	int32_t id, other;

	for (i = 0; i < 256; i++)
		tok->byte_id[i] = -1;
	if ((tok->word = mem_alloc(slots, sizeof tok->word[0])) == NULL)
		return ENOMEM;
	for (i = 0; i < slots; i++)
		tok->word[i] = -1;
	tok->word_mask = slots - 1;
	for (id = 0; id < tok->n_tokens; id++) {
		if ((tok->mark[id] & (tok->model == MODEL_BYTES ? TOKEN_BYTE_LEVEL : TOKEN_MODEL)) == 0)
			continue;
		if (tok->model == MODEL_BYTES && tok->len[id] == 1)
			tok->byte_id[tok->bytes[id][0]] = id;
		i = hash_bytes64(tok->bytes[id], tok->len[id]) & tok->word_mask;
		while ((other = tok->word[i]) >= 0 && (tok->len[other] != tok->len[id] ||
		    memcmp(tok->bytes[other], tok->bytes[id], tok->len[id]) != 0))
			i = (i + 1) & tok->word_mask;
		tok->word[i] = id;		/* for a token that is twice in Unigram's list: the last */
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

	for (tok->pair_shift = 64 - 6; slots >> (64 - tok->pair_shift - 2) != 0; tok->pair_shift--)
		;
	if ((tok->pair = mem_alloc(slots, sizeof tok->pair[0])) == NULL ||
	    (tok->pair_seen = mem_alloc((size_t)1 << (64 - tok->pair_shift - 6), sizeof tok->pair_seen[0])) == NULL)
		return ENOMEM;
	tok->pair_mask = slots - 1;
	for (i = 0; i < slots; i++)
		tok->pair[i].left = UINT32_MAX;
	return 0;
}

/* Adds a merge. A pair that occurs twice has the later rank, as in Hugging Face's table. */
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
		tok->pair_seen[(h >> tok->pair_shift) / 64] |= UINT64_C(1) << (h >> tok->pair_shift) % 64;
	}
	*s = (struct pair_slot){left, right, rank, id};
}

static int
by_rank(const void *a, const void *b)
{
	const struct pair_slot *x = a, *y = b;

	return (x->rank > y->rank) - (x->rank < y->rank);
}

/* Called only for these models, so that the fingerprints of byte-level tokenizers do not change. */
static void
hash_model(const struct tokenizer *tok, struct hash_state *h)
{
	hash_field_u64(h, "model", tok->model);
	hash_field_u64(h, "unk", (uint64_t)(int64_t)tok->unk_id);
	hash_field_u64(h, "fuse_unk", tok->fuse_unk);
	hash_field(h, "byte_id", tok->byte_id, sizeof tok->byte_id);
	for (size_t i = 0; i < tok->n_decode; i++) {
		const struct decode_step *d = &tok->decode[i];

		hash_field_u64(h, "decode", d->kind);
		hash_field_str(h, "from", d->from != NULL ? d->from : "");
		hash_field_str(h, "to", d->to != NULL ? d->to : "");
		hash_field_u64(h, "ends", (uint64_t)d->start << 32 | d->stop);
		hash_field_u64(h, "drop_first", d->drop_first);
	}
	if (tok->score != NULL)
		hash_field(h, "score", tok->score, (size_t)tok->n_tokens * sizeof tok->score[0]);
}

/*
 * The order of merges affects ids, the numbers of their lines do not, so the fingerprint covers the pairs
 * sorted by rank.
 */
int
tokenizer__fingerprint(struct tokenizer *tok)
{
	struct hash_state *h = hash_new();
	struct pair_slot *merge = mem_alloc((size_t)tok->n_merges + 1, sizeof merge[0]);
	bool only_nfc = tok->n_normals == 1 && tok->normal[0].kind == NORMAL_NFC;
	size_t i, n = 0;
	int32_t id;

	if (h == NULL || merge == NULL) {
		hash_destroy(&h);
		free(merge);
		return ENOMEM;
	}
	hash_field_u64(h, "tokenizer", 1);
	hash_field_u64(h, "nfc", only_nfc);
	hash_field_u64(h, "ignore_merges", tok->ignore_merges);
	/* Features newer than version 1 are hashed only if used, so that other fingerprints do not change. */
	for (i = 0; i < tok->n_normals && !only_nfc; i++) {
		const struct normal_step *s = &tok->normal[i];

		hash_field_u64(h, "normal", s->kind);
		hash_field_u64(h, "sides", (unsigned)s->left | (unsigned)s->right << 1);
		hash_field_str(h, "pattern", s->pattern != NULL ? s->pattern : "");
		hash_field(h, "content", s->content, s->content_len);
	}
	for (i = 0; i < tok->n_stages; i++) {
		const struct stage *s = &tok->stage[i];

		hash_field_u64(h, "stage", s->kind);
		hash_field_str(h, "pattern", s->pattern);
		if (s->behavior != BEHAVIOR_ISOLATED && !(s->chars == CHAR_NUMERIC && !s->invert))
			hash_field_u64(h, "behavior", s->behavior | (unsigned)s->invert << 8);
		if (s->kind == STAGE_METASPACE)
			hash_field_u64(h, "metaspace", (uint64_t)s->prepend << 1 | s->split);
	}
	if (tok->model != MODEL_BYTES)
		hash_model(tok, h);
	for (id = 0; id < tok->n_tokens; id++) {
		hash_field_u64(h, "mark", tok->mark[id]);
		hash_field(h, "token", tok->bytes[id], tok->len[id]);
	}
	for (i = 0; tok->pair != NULL && i <= tok->pair_mask; i++) {
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
		    (unsigned)a->normalized << 3 | (unsigned)a->single_word << 4);
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
	*bytes = tok->shown[id];
	*len = tok->shown_len[id];
	if (special != NULL)
		*special = (tok->mark[id] & TOKEN_SPECIAL) != 0;
	return 0;
}

int
tokenizer_get_template(const struct tokenizer *tok, struct tokenizer_template *t, struct err_note *note)
{
	*t = tok->template;
	if (tok->template_not == NULL)
		return 0;
	return err_expect_at(note, ERR_UNSUPPORTED, "tokenizer.json", "post_processor",
	    "TemplateProcessing with one sequence, RobertaProcessing, BertProcessing, ByteLevel or a Sequence of these", "%s", tok->template_not);
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
