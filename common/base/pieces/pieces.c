/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pieces/pieces.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json/json.h"
#include "base/mem/mem.h"

#define SPACE "\xe2\x96\x81" /* U+2581 */
#define MAX_PIECE_BYTES 512u /* longer pieces get no merges, whose search takes quadratic time */

struct merge {
	float score;
	uint32_t id, left; /* id of the joined piece; bytes of its left part */
	uint32_t n_left, n_right; /* characters */
};

/*
 * Hugging Face's order (transformers' generate_merges): the higher score of the piece first, then the longer
 * left part, then the longer right part.
 */
static int
by_score(const void *a, const void *b)
{
	const struct merge *x = a, *y = b;

	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	if (x->n_left != y->n_left)
		return x->n_left > y->n_left ? -1 : 1;
	if (x->n_right != y->n_right)
		return x->n_right > y->n_right ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

/* Whether a piece can stand for text; the others take no part in merges. */
static bool
is_text(const struct pieces *p, int64_t id)
{
	return p->type[id] == PIECE_NORMAL || p->type[id] == PIECE_USER_DEFINED ||
	    p->type[id] == PIECE_UNUSED;
}

static bool
find(const struct pieces *p, const struct json *vocab, const char *text, size_t n)
{
	char copy[MAX_PIECE_BYTES + 1];
	int64_t id;

	memcpy(copy, text, n);
	copy[n] = '\0';
	return json_int(json_get(vocab, copy), &id) && is_text(p, id);
}

/* Finds every way to cut each piece into two pieces, sorted by_score. 0, ERR_RANGE or ENOMEM. */
static int
find_merges(const struct pieces *p, const struct json *vocab, struct merge **merge, size_t *n)
{
	size_t cap = 0;

	*n = 0;
	for (size_t i = 0; i < p->n; i++) {
		const char *s = p->text[i];
		size_t len = strlen(s), at, n_chars = 0, left = 0;

		if (!is_text(p, (int64_t)i) || len > MAX_PIECE_BYTES)
			continue;
		for (at = 0; at < len; at++)
			n_chars += ((unsigned char)s[at] & 0xc0) != 0x80;
		for (at = 1; at < len; at++) {
			if (((unsigned char)s[at] & 0xc0) == 0x80)
				continue;
			left++;
			if (!find(p, vocab, s, at) || !find(p, vocab, s + at, len - at))
				continue;
			if (*n >= PIECES_MAX_MERGES)
				return ERR_RANGE;
			if (*n >= cap && mem_grow((void **)merge, &cap, *n + 1, sizeof **merge) != 0)
				return ENOMEM;
			(*merge)[(*n)++] = (struct merge){p->score[i], (uint32_t)i, (uint32_t)at,
			    (uint32_t)left, (uint32_t)(n_chars - left)};
		}
	}
	if (*n > 0)
		qsort(*merge, *n, sizeof **merge, by_score);
	return 0;
}

static struct json *
merges_json(const struct pieces *p, const struct merge *merge, size_t n)
{
	struct json *list = json_new_array();
	char left[MAX_PIECE_BYTES + 1];
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		memcpy(left, p->text[merge[i].id], merge[i].left);
		left[merge[i].left] = '\0';
		rc = json_push(list, json_build("[s, s]", left, p->text[merge[i].id] + merge[i].left));
	}
	if (rc != 0)
		json_close(&list);
	return list;
}

static int
bad_piece(const struct pieces *p, const char *name, struct err_note *note, size_t i, int rc,
    const char *expected, const char *found)
{
	char place[48];

	snprintf(place, sizeof place, "piece %zu", i);
	err_expect_at(note, rc, "%s", "%s", "%s", "%s", name, place, expected, found);
	if (p->text[i] != NULL)
		err_note_found(note, "%s ('%.60s')", found, p->text[i]);
	return rc;
}

/*
 * Fills vocab, text -> id, and for Unigram the list of (text, score). Rejects a text that is empty or occurs
 * twice, and a score that is not finite.
 */
static int
fill_vocab(
    const struct pieces *p, const char *name, struct json *vocab, struct json *list, struct err_note *note)
{
	char found[32];

	for (size_t i = 0; i < p->n; i++) {
		if (p->text[i][0] == '\0')
			return bad_piece(p, name, note, i, ERR_FORMAT, "some text", "none");
		if (!(p->score[i] - p->score[i] == 0)) {
			snprintf(found, sizeof(found), "%g", (double)p->score[i]);
			return bad_piece(p, name, note, i, ERR_FORMAT, "a finite score", found);
		}
		if (json_get(vocab, p->text[i]) != NULL)
			return bad_piece(p, name, note, i, ERR_FORMAT, "unique pieces", "a duplicate");
		if (json_put(vocab, p->text[i], json_new_int((int64_t)i)) != 0 ||
		    (p->unigram &&
			json_push(list, json_build("[s, f]", p->text[i], (double)p->score[i])) != 0))
			return err_note_set(note, ENOMEM, "%s", name);
	}
	return 0;
}

static struct json *
added_json(const struct pieces *p)
{
	struct json *list = json_new_array();
	int rc = 0;

	for (size_t i = 0; i < p->n && rc == 0; i++) {
		if (p->type[i] >= PIECE_UNKNOWN && p->type[i] <= PIECE_USER_DEFINED)
			rc = json_push(list,
			    json_build("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int64_t)i, "content",
				p->text[i], "single_word", false, "lstrip", false, "rstrip", false,
				"normalized", false, "special", p->type[i] != PIECE_USER_DEFINED));
	}
	if (rc != 0)
		json_close(&list);
	return list;
}

/*
 * Without charsmap the steps of Llama 2's tokenizer.json: U+2581 before the text (if prefix) and in place of
 * each space. With charsmap SentencePiece's own normaliser.
 */
static struct json *
normalizer_json(const struct pieces *p)
{
	bool prefix = p->prefix;
	struct json *replace = json_build(
	    "{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content", SPACE);

	if (p->charsmap != NULL) {
		json_close(&replace);
		return json_build("{s:s, s:s, s:b, s:b}", "type", "SentencePiece", "precompiled_charsmap", p->charsmap,
		    "add_dummy_prefix", prefix, "remove_extra_whitespaces", p->collapse);
	}
	return !prefix ? replace :
			 json_build("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers", "type",
			     "Prepend", "prepend", SPACE, replace);
}

static struct json *
decoder_json(bool prefix)
{
	struct json *steps = json_build("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern",
	    "String", SPACE, "content", " ", "type", "ByteFallback", "type", "Fuse");

	if (prefix && steps != NULL &&
	    json_push(steps,
		json_build("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0)) !=
		0)
		json_close(&steps);
	return json_build("{s:s, s:o}", "type", "Sequence", "decoders", steps);
}

int
pieces_json(const struct pieces *p, const char *name, struct json **root, struct err_note *note)
{
	struct json *vocab = json_new_object(), *list = json_new_array(), *model = NULL;
	struct merge *merge = NULL;
	size_t n = 0;
	int rc;

	*root = NULL;
	if (vocab == NULL || list == NULL) {
		rc = err_note_set(note, ENOMEM, "%s", name);
		goto out;
	}
	if ((rc = fill_vocab(p, name, vocab, list, note)) != 0)
		goto out;
	if (p->unk_id < 0 || (size_t)p->unk_id >= p->n) {
		rc = err_expect_at(
		    note, ERR_FORMAT, "%s", "unk_id", "the id of a piece", "%d", name, (int)p->unk_id);
		goto out;
	}
	if (p->unigram) {
		model = json_build("{s:s, s:I, s:b, s:O}", "type", "Unigram", "unk_id", (int64_t)p->unk_id,
		    "byte_fallback", p->byte_fallback, "vocab", list);
	} else {
		if ((rc = find_merges(p, vocab, &merge, &n)) == ERR_RANGE)
			err_expect_at(
			    note, rc, "%s", "pieces", "pieces of at most 4194304 merges", "more", name);
		else if (rc == ENOMEM)
			err_note_set(note, rc, "%s", name);
		if (rc != 0)
			goto out;
		model = json_build("{s:s, s:n, s:s, s:n, s:n, s:b, s:b, s:b, s:O, s:o}", "type", "BPE",
		    "dropout", "unk_token", p->text[p->unk_id], "continuing_subword_prefix",
		    "end_of_word_suffix", "fuse_unk", true, "byte_fallback", p->byte_fallback,
		    "ignore_merges", false, "vocab", vocab, "merges", merges_json(p, merge, n));
	}
	*root = json_build("{s:s, s:n, s:n, s:o, s:o, s:n, s:n, s:o, s:o}", "version", "1.0", "truncation",
	    "padding", "added_tokens", added_json(p), "normalizer", normalizer_json(p),
	    "pre_tokenizer", "post_processor", "decoder", decoder_json(p->prefix), "model", model);
	if (*root == NULL)
		rc = err_note_set(note, ENOMEM, "%s", name);
out:
	json_close(&vocab);
	json_close(&list);
	free(merge);
	return rc;
}
