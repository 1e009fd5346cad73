/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

/*
 * Unigram (Kudo, 2018): of all segmentations of a word into tokens the one with the largest sum of scores,
 * found from left to right (Viterbi). A character that is not a token can be unknown, with the smallest score
 * minus 10. Neighbouring unknown characters are joined; they become byte tokens or the unk token. Additions
 * and comparisons have the order of Hugging Face's library, so that equal sums give the same choice.
 *
 * A long word is cut at positions that no token crosses: all segmentations have a border there, so the best
 * one up to there is final. The sum is carried on to the next part, so that it rounds as if the word had not
 * been cut.
 */
#define UNKNOWN_PENALTY 10.0
#define CUT_BYTES 4096u
#define LEAST_SUM -100000.0

struct node {
	double score; /* sum of the best segmentation that ends here */
	uint32_t from; /* where its last token begins; UINT32_MAX: no segmentation ends here */
	int32_t id;
};

struct unigram_scratch {
	struct node *node; /* [bytes of the part + 1] */
	uint32_t *end; /* ends of the best segmentation's tokens, the last first */
	size_t node_cap, end_cap;
};

void
tokenizer__unigram_scratch_destroy(struct unigram_scratch **s)
{
	if (*s == NULL)
		return;
	free((*s)->node);
	free((*s)->end);
	free(*s);
	*s = NULL;
}

static bool
is_sentencepiece(const struct tokenizer *tok)
{
	return tok->n_normals > 0 && tok->normal[0].kind == NORMAL_SENTENCEPIECE;
}

/* Whether a token can match text. SentencePiece, unlike the library, excludes special and byte tokens. */
static bool
is_piece(const struct tokenizer *tok, int32_t id)
{
	size_t b = 0;

	if ((tok->mark[id] & TOKEN_MODEL) == 0)
		return false;
	if (!is_sentencepiece(tok))
		return true;
	while (b < 256 && tok->byte_id[b] != id)
		b++;
	return (tok->mark[id] & TOKEN_SPECIAL) == 0 && b == 256;
}

int
tokenizer__unigram_build(struct tokenizer *tok)
{
	size_t total = 0;
	double least = HUGE_VAL;
	int rc;

	for (int32_t id = 0; id < tok->n_tokens; id++) {
		if (!is_piece(tok, id))
			continue;
		total += tok->len[id];
		if (tok->score[id] < least)
			least = tok->score[id];
	}
	tok->unk_score = least - UNKNOWN_PENALTY;
	if (is_sentencepiece(tok))
		tok->unk_score = (float)tok->unk_score;
	if ((rc = tokenizer__trie_alloc(&tok->pieces, total)) != 0)
		return rc;
	for (int32_t id = 0; id < tok->n_tokens; id++) {
		if (is_piece(tok, id) && tok->len[id] > 0)
			tokenizer__trie_put(&tok->pieces, tok->bytes[id], tok->len[id], id);
	}
	return 0;
}

static inline void
offer(struct node *to, double score, bool rounded, size_t from, int32_t id)
{
	if (rounded)
		score = (float)score;
	if (to->from == UINT32_MAX || score > to->score)
		*to = (struct node){score, (uint32_t)from, id};
}

/*
 * Large sums lose precision in fp32. So if the sum at a position is below -100,000, SentencePiece subtracts
 * it from the sums of all later positions that have one, and continues from 0. Returns the sum to use at this
 * position.
 */
static double
rebase(struct node *node, size_t at, size_t n, bool rounded)
{
	double by = node[at].score;
	size_t k;

	if (!rounded || by >= LEAST_SUM)
		return by;
	for (k = at + 1; k <= n; k++) {
		if (node[k].from != UINT32_MAX)
			node[k].score = (float)(node[k].score - by);
	}
	return node[at].score = 0;
}

/* Fills node[1..n]; the caller has set node[0].score. */
static void
best_way(const struct tokenizer *tok, struct node *node, const unsigned char *p, size_t n)
{
	const struct trie *t = &tok->pieces;
	bool rounded = is_sentencepiece(tok);
	size_t at, k, len;

	for (at = 1; at <= n; at++)
		node[at].from = UINT32_MAX;
	for (at = 0; at < n; at += len) {
		double till_here = rebase(node, at, n, rounded);
		uint32_t up = 0;
		bool single = false;

		len = tokenizer__utf8_len(p + at, n - at);
		len = len == 0 ? 1 : len;
		for (k = at; k < n; k++) {
			size_t slot = tokenizer__trie_slot(t, up, p[k]);
			int32_t id;

			if (t->key[slot] == 0)
				break;
			up = t->child[slot];
			if ((id = t->token[up]) < 0)
				continue;
			offer(&node[k + 1], tok->score[id] + till_here, rounded, at, id);
			single = single || k + 1 - at == len;
		}
		if (!single)
			offer(&node[at + len], tok->unk_score + till_here, rounded, at, tok->unk_id);
	}
}

/* Appends the ids of [p, p+n): the text of token id, or joined unknown characters if id is unk_id. */
static int
put(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, int32_t id, struct tokenizer_ids *out)
{
	const struct tokenizer *tok = enc->tok;
	size_t k;
	int rc;

	if ((rc = tokenizer__ids_reserve(out, n)) != 0)
		return err_note_set(enc->note, rc, "token ids");
	if (id != tok->unk_id || (id = tokenizer__word_find(tok, p, n)) >= 0) {
		out->ids[out->n++] = id;
		return 0;
	}
	for (k = 0; k < n && tok->byte_id[p[k]] >= 0; k++)
		;
	if (k == n) {
		for (k = 0; k < n; k++)
			out->ids[out->n++] = tok->byte_id[p[k]];
		return 0;
	}
	if (tok->unk_id < 0)
		return tokenizer__no_token(enc, p, n, out->ids, &out->n);
	out->ids[out->n++] = tok->unk_id;
	return 0;
}

/* Encodes a part of a word; *score is the sum before the part and becomes the sum after it. */
static int
part(
    struct tokenizer_encoder *enc, const unsigned char *p, size_t n, double *score, struct tokenizer_ids *out)
{
	struct unigram_scratch *s = enc->unigram;
	size_t n_ends = 0, at;
	int rc;

	if ((rc = mem_grow((void **)&s->node, &s->node_cap, n + 1, sizeof s->node[0])) != 0 ||
	    (rc = mem_grow((void **)&s->end, &s->end_cap, n + 1, sizeof s->end[0])) != 0)
		return err_note_set(enc->note, rc, "a word of %zu bytes", n);
	s->node[0].score = *score;
	best_way(enc->tok, s->node, p, n);
	*score = s->node[n].score;
	for (at = n; at > 0; at = s->node[at].from) {
		/* Join an unknown token with the unknown one after it. */
		if (n_ends > 0 && s->node[at].id == enc->tok->unk_id &&
		    s->node[s->end[n_ends - 1]].id == enc->tok->unk_id) {
			s->node[s->end[n_ends - 1]].from = s->node[at].from;
			continue;
		}
		s->end[n_ends++] = (uint32_t)at;
	}
	for (rc = 0; n_ends > 0 && rc == 0; n_ends--) {
		const struct node *end = &s->node[s->end[n_ends - 1]];

		rc = put(enc, p + end->from, s->end[n_ends - 1] - end->from, end->id, out);
	}
	return rc;
}

int
tokenizer__unigram_word(
    struct tokenizer_encoder *enc, const unsigned char *p, size_t n, struct tokenizer_ids *out)
{
	const struct tokenizer *tok = enc->tok;
	double score = 0;
	int rc = 0;

	if (enc->unigram == NULL && (enc->unigram = calloc(1, sizeof *enc->unigram)) == NULL)
		return err_note_set(enc->note, ENOMEM, "a word of %zu bytes", n);
	while (n > 0 && rc == 0) {
		size_t len = n;

		if (tok->may_cut && n > CUT_BYTES) {
			for (len = 0; len < CUT_BYTES && len < n;)
				len += tokenizer__cut(tok, p + len, n - len);
		}
		rc = part(enc, p, len, &score, out);
		p += len;
		n -= len;
	}
	return rc;
}
