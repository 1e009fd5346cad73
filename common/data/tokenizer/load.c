/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/load_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file/file.h"
#include "base/hash/hash.h"
#include "base/mem/mem.h"

#define READ_BYTES ((size_t)1 << 20)

int
tokenizer__bad(struct loading *l, int rc, const char *place, const char *expected, const char *fmt, ...)
{
	char found[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(found, sizeof found, fmt, ap);
	va_end(ap);
	return err_expect_at(l->note, rc, "%s", "%s", "%s", "%s", l->name, place, expected, found);
}

int
tokenizer__no_memory(struct loading *l)
{
	return err_note_set(l->note, ENOMEM, "%s", l->name);
}

const char *
tokenizer__kind_of(const struct json *j)
{
	return j == NULL ? "nothing" : json_kind_name(json_kind(j));
}

int
tokenizer__flag(struct loading *l, const struct json *object, const char *place, const char *key, bool otherwise, bool *out)
{
	const struct json *j = json_get(object, key);
	char where[PLACE_BYTES];

	*out = otherwise;
	if (json_kind(j) == JSON_KIND_NULL || json_flag(j, out))
		return 0;
	snprintf(where, sizeof where, "%.200s.%s", place, key);
	return tokenizer__bad(l, ERR_FORMAT, where, "true or false", "%s", tokenizer__kind_of(j));
}

int
tokenizer__text(struct loading *l, const struct json *object, const char *place, const char *key, const char **out)
{
	const struct json *j = json_get(object, key);
	char where[PLACE_BYTES];

	if (json_text(j, out))
		return 0;
	snprintf(where, sizeof where, "%.200s.%s", place, key);
	return tokenizer__bad(l, ERR_FORMAT, where, "a string", "%s", tokenizer__kind_of(j));
}

/* Reads an id and checks that it is below TOKENIZER_MAX_VOCAB. */
static int
token_id(struct loading *l, const struct json *j, const char *place, int64_t *id)
{
	if (!json_int(j, id))
		return tokenizer__bad(l, ERR_FORMAT, place, "a token id", "%s", tokenizer__kind_of(j));
	if (*id < 0 || *id >= (int64_t)TOKENIZER_MAX_VOCAB) {
		tokenizer__bad(l, ERR_RANGE, place, "", "%" PRId64, *id);
		err_note_expected(l->note, "a token id, 0..%u", TOKENIZER_MAX_VOCAB - 1);
		return ERR_RANGE;
	}
	return 0;
}

static void
vocab_place(char *place, const char *key)
{
	snprintf(place, PLACE_BYTES, "model.vocab['%.60s']", key);
}

/* Sets tok->n_tokens, for now an upper bound, and allocates the arrays of that length. */
static int
size_vocab(struct loading *l, const struct json *added)
{
	struct tokenizer *tok = l->tok;
	size_t model = l->n_model, most = model + json_count(added), n;
	char place[PLACE_BYTES];
	int64_t id, top = -1;
	void *it;
	int rc;

	if (most > TOKENIZER_MAX_VOCAB) {
		tokenizer__bad(l, ERR_RANGE, "model.vocab", "", "%zu with added_tokens", most);
		err_note_expected(l->note, "at most %u tokens", TOKENIZER_MAX_VOCAB);
		return ERR_RANGE;
	}
	for (it = json_first(l->vocab); it != NULL; it = json_next(l->vocab, it)) {
		vocab_place(place, json_key(it));
		if ((rc = token_id(l, json_value(it), place, &id)) != 0)
			return rc;
		if (id > top)
			top = id;
	}
	if (model == 0)
		return tokenizer__bad(l, ERR_FORMAT, "model.vocab", "at least one token", "none");
	if (tok->model == MODEL_UNIGRAM)
		top = (int64_t)model - 1;
	/* The number of added tokens that are new is known only later. */
	n = (size_t)top < most ? most : (size_t)top + 1;
	tok->bytes = mem_alloc(n, sizeof tok->bytes[0]);
	tok->len = mem_alloc(n, sizeof tok->len[0]);
	tok->mark = mem_alloc(n, sizeof tok->mark[0]);
	tok->added = mem_alloc(json_count(added), sizeof tok->added[0]);
	if (tok->model == MODEL_UNIGRAM)
		tok->score = mem_alloc(n, sizeof tok->score[0]);
	if (tok->bytes == NULL || tok->len == NULL || tok->mark == NULL || tok->added == NULL ||
	    (tok->model == MODEL_UNIGRAM && tok->score == NULL))
		return tokenizer__no_memory(l);
	tok->n_tokens = (int32_t)n;
	return 0;
}

static int
put_token(struct loading *l, const char *place, const char *text, int64_t id)
{
	struct tokenizer *tok = l->tok;
	size_t len = strlen(text), n = len;
	unsigned char *copy;

	if (len > MAX_TOKEN_BYTES)
		return tokenizer__bad(l, ERR_RANGE, place, "at most 65536 bytes", "%zu", len);
	if (tok->mark[id] != 0)
		return tokenizer__bad(
		    l, ERR_FORMAT, place, "an id no other token has", "%" PRId64 ", twice", id);
	if ((copy = (unsigned char *)mem_arena_strndup(tok->arena, text, len)) == NULL)
		return tokenizer__no_memory(l);
	tok->mark[id] = TOKEN_MODEL;
	if (tok->model == MODEL_BYTES && tokenizer__unmap(text, len, copy, &n) && n > 0)
		tok->mark[id] |= TOKEN_BYTE_LEVEL;
	else
		memcpy(
		    copy, text, n = len); /* not in the alphabet: the text unchanged, as in the decoder */
	tok->bytes[id] = copy;
	tok->len[id] = (uint32_t)n;
	return 0;
}

static int
load_vocab(struct loading *l)
{
	char place[PLACE_BYTES];
	int64_t id;
	void *it;
	int rc = 0;

	for (it = json_first(l->vocab); it != NULL && rc == 0; it = json_next(l->vocab, it)) {
		json_int(json_value(it), &id);			/* checked by size_vocab */
		vocab_place(place, json_key(it));
		rc = put_token(l, place, json_key(it), id);
	}
	return rc;
}

/* Reads an item [text, score] of Unigram's list. */
static int
piece(struct loading *l, const struct json *j, size_t i, const char **text, double *score)
{
	char place[PLACE_BYTES];

	if (json_count(j) == 2 && json_text(json_item(j, 0), text) && json_num(json_item(j, 1), score))
		return 0;
	snprintf(place, sizeof place, "model.vocab[%zu]", i);
	return tokenizer__bad(l, ERR_FORMAT, place, "[token, score]", "%s", tokenizer__kind_of(j));
}

/* Makes l->vocab from Unigram's list; a token that occurs twice has its last id. */
static int
list_vocab(struct loading *l, const struct json *list)
{
	const char *text;
	double score;
	int rc;

	if (json_kind(list) != JSON_KIND_ARRAY)
		return tokenizer__bad(l, ERR_FORMAT, "model.vocab", "an array of [token, score]", "%s",
		    tokenizer__kind_of(list));
	l->n_model = json_count(list);
	l->owns_vocab = true;
	if ((l->vocab = json_new_object()) == NULL)
		return tokenizer__no_memory(l);
	for (size_t i = 0; i < l->n_model && i < TOKENIZER_MAX_VOCAB; i++) {
		if ((rc = piece(l, json_item(list, i), i, &text, &score)) != 0)
			return rc;
		if (json_put(l->vocab, text, json_new_int((int64_t)i)) != 0)
			return tokenizer__no_memory(l);
	}
	return 0;
}

static int
load_pieces(struct loading *l, const struct json *list)
{
	char place[PLACE_BYTES];
	const char *text;
	int rc = 0;

	for (size_t i = 0; i < l->n_model && rc == 0; i++) {
		snprintf(place, sizeof place, "model.vocab[%zu]", i);
		if ((rc = piece(l, json_item(list, i), i, &text, &l->tok->score[i])) == 0)
			rc = put_token(l, place, text, (int64_t)i);
	}
	return rc;
}

static int
load_added_token(struct loading *l, const struct json *j, size_t i, int32_t *next)
{
	struct tokenizer *tok = l->tok;
	struct added_token *a = &tok->added[i];
	const struct json *in_vocab;
	char place[PLACE_BYTES], where[PLACE_BYTES + 16];
	const char *content;
	int64_t id, stated;
	int rc;

	snprintf(place, sizeof place, "added_tokens[%zu]", i);
	if (json_kind(j) != JSON_KIND_OBJECT)
		return tokenizer__bad(l, ERR_FORMAT, place, "an object", "%s", tokenizer__kind_of(j));
	if ((rc = tokenizer__text(l, j, place, "content", &content)) != 0 || (rc = tokenizer__flag(l, j, place, "single_word", false, &a->single_word)) != 0 ||
	    (rc = tokenizer__flag(l, j, place, "special", false, &a->special)) != 0 ||
	    (rc = tokenizer__flag(l, j, place, "lstrip", false, &a->lstrip)) != 0 ||
	    (rc = tokenizer__flag(l, j, place, "rstrip", false, &a->rstrip)) != 0 ||
	    (rc = tokenizer__flag(l, j, place, "normalized", !a->special, &a->normalized)) != 0)
		return rc;
	a->len = strlen(content);
	snprintf(where, sizeof where, "%.200s.content", place);
	if (a->len == 0 || a->len > MAX_ADDED_BYTES)
		return tokenizer__bad(l, ERR_RANGE, where, "1 to 4096 bytes", "%zu", a->len);
	snprintf(where, sizeof where, "%.200s.id", place);
	if ((rc = token_id(l, json_get(j, "id"), where, &stated)) != 0)
		return rc;
	if ((a->content = mem_arena_strndup(tok->arena, content, a->len)) == NULL)
		return tokenizer__no_memory(l);
	a->find = a->content;
	a->find_len = a->len;
	/*
	 * As in Hugging Face's library: a token of the vocabulary keeps its id, others are numbered in order.
	 */
	if ((in_vocab = json_get(l->vocab, content)) != NULL) {
		json_int(in_vocab, &id);
		if (tok->len[id] != a->len || memcmp(tok->bytes[id], content, a->len) != 0)
			return tokenizer__bad(l, ERR_UNSUPPORTED, where,
			    "an added token that is not also a byte-level token", "'%.60s'", content);
	} else {
		id = (*next)++;
		if (tok->mark[id] != 0) {
			tokenizer__bad(l, ERR_UNSUPPORTED, where, "", "%" PRId64 " for '%.60s'", id, content);
			err_note_expected(l->note,
			    "the id of the first new token (the number of tokens in model.vocab) to be free");
			return ERR_UNSUPPORTED;
		}
		tok->bytes[id] = (const unsigned char *)a->content;
		tok->len[id] = (uint32_t)a->len;
	}
	a->id = (int32_t)id;
	tok->n_renumbered += id != stated;
	if ((tok->mark[id] & TOKEN_ADDED) != 0)
		return tokenizer__bad(l, ERR_FORMAT, place, "each added token once", "'%.60s', twice", content);
	tok->mark[id] |= (uint8_t)(TOKEN_ADDED | (a->special ? TOKEN_SPECIAL : 0));
	if (!a->special && (a->lstrip || a->rstrip))
		l->loses = true;
	tok->n_added = i + 1;
	return 0;
}

/* Normalises the content of added tokens that are searched for in normalised text. */
static int
normalize_added(struct loading *l)
{
	struct tokenizer *tok = l->tok;
	struct tokenizer_encoder *enc;
	const unsigned char *p;
	char place[PLACE_BYTES];
	size_t i, n;
	int rc = 0;

	if (tok->n_normals == 0)
		return 0;
	if (tokenizer_encoder_new(&enc, tok) != 0)
		return tokenizer__no_memory(l);
	enc->note = l->note;
	for (i = 0; i < tok->n_added && rc == 0; i++) {
		struct added_token *a = &tok->added[i];

		if (!a->normalized || (rc = tokenizer__normalize(enc, (const unsigned char *)a->content, a->len, &p, &n)) != 0)
			continue;
		snprintf(place, sizeof place, "added_tokens[%zu].content", i);
		if (n == 0)
			rc = tokenizer__bad(l, ERR_UNSUPPORTED, place,
			    "text that is not empty after normalisation", "'%.60s'", a->content);
		else if ((a->find = mem_arena_strndup(tok->arena, (const char *)p, n)) == NULL)
			rc = tokenizer__no_memory(l);
		a->find_len = n;
	}
	tokenizer_encoder_destroy(&enc);
	return rc;
}

static int
load_added(struct loading *l, const struct json *added)
{
	struct tokenizer *tok = l->tok;
	int32_t next = (int32_t)l->n_model, id;
	size_t i;
	int rc;

	for (i = 0; i < json_count(added); i++) {
		if ((rc = load_added_token(l, json_item(added, i), i, &next)) != 0)
			return rc;
	}
	for (id = tok->n_tokens; id > next && tok->mark[id - 1] == 0; id--)
		;
	tok->n_tokens = id;
	for (id = 0; id < tok->n_tokens; id++) {
		if (tok->mark[id] == 0)
			tok->bytes[id] = (const unsigned char *)"";		/* a hole */
	}
	if ((rc = normalize_added(l)) != 0)
		return rc;
	if ((rc = tokenizer__trie_build(tok, &tok->raw, false)) == 0)
		rc = tokenizer__trie_build(tok, &tok->normalized, true);
	if (rc == ENOMEM)
		return tokenizer__no_memory(l);
	if (rc == ERR_FORMAT)
		return tokenizer__bad(l, rc, "added_tokens", "tokens that differ after normalisation",
		    "two equal ones");
	return rc == 0 ? 0 : tokenizer__bad(l, rc, "added_tokens", "at most 16 MiB of them", "more");
}

/* Reads a merge, "left right" or ["left", "right"]; the two sides are NUL-terminated in buf. */
static int
merge_sides(struct loading *l, const struct json *j, const char *place, char *buf, const char **left, const char **right)
{
	const char *a, *b, *space;
	size_t n, m;

	if (json_kind(j) == JSON_KIND_ARRAY) {
		if (json_count(j) != 2 || !json_text(json_item(j, 0), &a) || !json_text(json_item(j, 1), &b))
			return tokenizer__bad(l, ERR_FORMAT, place, "two strings", "an array of %zu items", json_count(j));
		n = strlen(a);
		m = strlen(b);
	} else {
		if (!json_text(j, &a))
			return tokenizer__bad(l, ERR_FORMAT, place, "\"left right\" or [\"left\", \"right\"]", "%s", tokenizer__kind_of(j));
		if ((space = strchr(a, ' ')) == NULL || strchr(space + 1, ' ') != NULL)
			return tokenizer__bad(l, ERR_FORMAT, place, "two tokens with one space between", "'%.100s'", a);
		n = (size_t)(space - a);
		b = space + 1;
		m = strlen(b);
	}
	if (n > MAX_TOKEN_BYTES || m > MAX_TOKEN_BYTES)
		return tokenizer__bad(l, ERR_RANGE, place, "at most 65536 bytes", "%zu", n + m);
	memcpy(buf, a, n);
	buf[n] = '\0';
	memcpy(buf + n + 1, b, m + 1);
	*left = buf;
	*right = buf + n + 1;
	return 0;
}

static int
vocab_id(struct loading *l, const char *place, const char *what, const char *token, int64_t *id)
{
	char expected[64];

	if (json_int(json_get(l->vocab, token), id))
		return 0;
	snprintf(expected, sizeof expected, "the %s in model.vocab", what);
	return tokenizer__bad(l, ERR_FORMAT, place, expected, "no '%.100s'", token);
}

static int
load_merges(struct loading *l, const struct json *merges)
{
	char *buf = NULL, place[PLACE_BYTES];
	const char *left = NULL, *right = NULL;
	size_t i, n = json_count(merges), n_left;
	int64_t a, b, c;
	int rc;

	if (json_kind(merges) != JSON_KIND_ARRAY)
		return tokenizer__bad(l, ERR_FORMAT, "model.merges", "an array", "%s", tokenizer__kind_of(merges));
	if (n > TOKENIZER_MAX_MERGES) {
		tokenizer__bad(l, ERR_RANGE, "model.merges", "", "%zu", n);
		err_note_expected(l->note, "at most %u merges", TOKENIZER_MAX_MERGES);
		return ERR_RANGE;
	}
	if ((buf = malloc(4 * (MAX_TOKEN_BYTES + 2))) == NULL || tokenizer__pairs_alloc(l->tok, n) != 0) {
		rc = tokenizer__no_memory(l);
		goto out;
	}
	for (i = 0; i < n; i++) {
		char *joined = buf + 2 * (MAX_TOKEN_BYTES + 2);

		snprintf(place, sizeof place, "model.merges[%zu]", i);
		/*
		 * The first line of a merges.txt, copied with the others. Hugging Face's library skips every
		 * text that begins like this.
		 */
		if (json_text(json_item(merges, i), &left) && strncmp(left, "#version", 8) == 0)
			continue;
		if ((rc = merge_sides(l, json_item(merges, i), place, buf, &left, &right)) != 0)
			goto out;
		n_left = strlen(left);
		memcpy(joined, left, n_left);
		memcpy(joined + n_left, right, strlen(right) + 1);
		if ((rc = vocab_id(l, place, "left side", left, &a)) != 0 || (rc = vocab_id(l, place, "right side", right, &b)) != 0 ||
		    (rc = vocab_id(l, place, "joined token", joined, &c)) != 0)
			goto out;
		tokenizer__pair_put(l->tok, (uint32_t)a, (uint32_t)b, l->tok->n_merges++, (int32_t)c);
	}
	rc = 0;
out:
	free(buf);
	return rc;
}

/* Sets the kind of the model and its vocabulary; rejects fields that would change ids in unsupported ways. */
static int
check_model(struct loading *l, const struct json *model)
{
	static const char *const empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
	const struct json *j;
	const char *s;
	char place[PLACE_BYTES];
	double dropout;
	size_t i;
	int rc;

	if (json_kind(model) != JSON_KIND_OBJECT)
		return tokenizer__bad(l, ERR_FORMAT, "model", "an object", "%s", tokenizer__kind_of(model));
	l->tok->model = MODEL_CHARS; /* tokenizer__load_steps makes it MODEL_BYTES for ByteLevel */
	if ((j = json_get(model, "type")) != NULL && json_text(j, &s) && strcmp(s, "Unigram") == 0) {
		l->tok->model = MODEL_UNIGRAM;
		return list_vocab(l, json_get(model, "vocab"));
	}
	if (j != NULL && (!json_text(j, &s) || strcmp(s, "BPE") != 0))
		return tokenizer__bad(l, ERR_UNSUPPORTED, "model.type", "BPE or Unigram", "%s",
		    json_text(j, &s) ? s : tokenizer__kind_of(j));
	j = json_get(model, "dropout");
	if (json_kind(j) != JSON_KIND_NULL && !(json_num(j, &dropout) && dropout == 0))
		return tokenizer__bad(l, ERR_UNSUPPORTED, "model.dropout", "null", "%s", tokenizer__kind_of(j));
	for (i = 0; i < sizeof empty / sizeof empty[0]; i++) {
		j = json_get(model, empty[i]);
		if (json_kind(j) == JSON_KIND_NULL || (json_text(j, &s) && s[0] == '\0'))
			continue;
		snprintf(place, sizeof place, "model.%s", empty[i]);
		return tokenizer__bad(l, ERR_UNSUPPORTED, place, "null or \"\"", "%s", json_text(j, &s) ? s : tokenizer__kind_of(j));
	}
	if ((rc = tokenizer__flag(l, model, "model", "ignore_merges", false, &l->tok->ignore_merges)) != 0)
		return rc;
	l->vocab = json_get(model, "vocab");
	l->n_model = json_count(l->vocab);
	if (json_kind(l->vocab) != JSON_KIND_OBJECT)
		return tokenizer__bad(l, ERR_FORMAT, "model.vocab", "an object", "%s", tokenizer__kind_of(l->vocab));
	return 0;
}

/* Reads the id of unk_token, or unk_id; -1: none. */
static int
unknown_id(struct loading *l, const struct json *model, int64_t *unk)
{
	const struct json *j = json_get(model, l->tok->model == MODEL_UNIGRAM ? "unk_id" : "unk_token");
	const char *s;

	*unk = -1;
	if (json_kind(j) == JSON_KIND_NULL)
		return 0;
	if (l->tok->model != MODEL_UNIGRAM)
		return json_text(j, &s) ? vocab_id(l, "model.unk_token", "token", s, unk) :
					  tokenizer__bad(l, ERR_FORMAT, "model.unk_token", "a string or null",
					      "%s", tokenizer__kind_of(j));
	if (json_int(j, unk) && *unk >= 0 && (uint64_t)*unk < l->n_model)
		return 0;
	return tokenizer__bad(
	    l, ERR_FORMAT, "model.unk_id", "an id of model.vocab, or null", "%s", tokenizer__kind_of(j));
}

/*
 * Reads what replaces bytes and characters without a token: byte tokens or the unk_token, if there are any.
 */
static int
load_unknown(struct loading *l, const struct json *model)
{
	struct tokenizer *tok = l->tok;
	bool all = true, fuse, fallback;
	char text[8];
	int64_t unk;
	size_t b;
	int rc;

	if ((rc = unknown_id(l, model, &unk)) != 0 ||
	    (rc = tokenizer__flag(l, model, "model", "fuse_unk", false, &fuse)) != 0 ||
	    (rc = tokenizer__flag(l, model, "model", "byte_fallback", false, &fallback)) != 0)
		return rc;
	tok->unk_id = (int32_t)unk;
	tok->fuse_unk = fuse;
	for (b = 0; b < 256; b++) {
		snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
		if (tok->model != MODEL_BYTES && fallback)
			tok->byte_id[b] = tokenizer__word_find(
			    tok, (const unsigned char *)text, strlen(text));
		if (tok->model != MODEL_BYTES || tok->byte_id[b] >= 0)
			continue;
		all = false;
		if (fallback || (unk >= 0 && fuse))
			return tokenizer__bad(l, ERR_UNSUPPORTED,
			    fallback ? "model.byte_fallback" : "model.fuse_unk",
			    "false, or a token for each byte", "true, none for 0x%02x", (unsigned)b);
		tok->byte_id[b] = (int32_t)unk;
	}
	tok->lossless = tok->model == MODEL_BYTES && all && tok->n_normals == 0 && !l->loses;
	return 0;
}

static int
build(struct loading *l, const struct json *root)
{
	const struct json *model = json_get(root, "model"), *added = json_get(root, "added_tokens"), *j;
	const char *s;
	bool unigram;
	int rc;

	if (json_kind(root) != JSON_KIND_OBJECT)
		return tokenizer__bad(l, ERR_FORMAT, "top level", "an object", "%s",
		    tokenizer__kind_of(root));
	if ((j = json_get(root, "version")) != NULL && !(json_text(j, &s) && strcmp(s, "1.0") == 0))
		return tokenizer__bad(l, ERR_VERSION, "version", "\"1.0\"", "%s", json_text(j, &s) ? s : tokenizer__kind_of(j));
	if (json_kind(added) != JSON_KIND_ARRAY && json_kind(added) != JSON_KIND_NULL)
		return tokenizer__bad(l, ERR_FORMAT, "added_tokens", "an array", "%s", tokenizer__kind_of(added));
	if ((rc = check_model(l, model)) != 0 ||
	    (rc = tokenizer__load_steps(l, json_get(root, "normalizer"), json_get(root, "pre_tokenizer"))) !=
		0 ||
	    (rc = tokenizer__load_decoder(l, json_get(root, "decoder"))) != 0)
		return rc;
	unigram = l->tok->model == MODEL_UNIGRAM;
	if ((rc = size_vocab(l, added)) != 0 ||
	    (rc = unigram ? load_pieces(l, json_get(model, "vocab")) : load_vocab(l)) != 0 ||
	    (rc = load_added(l, added)) != 0 ||
	    (!unigram && (rc = load_merges(l, json_get(model, "merges"))) != 0))
		return rc;
	if (tokenizer__words_build(l->tok) != 0)
		return tokenizer__no_memory(l);
	if ((rc = load_unknown(l, model)) != 0)
		return rc;
	if (unigram && (rc = tokenizer__unigram_build(l->tok)) == ERR_RANGE)
		return tokenizer__bad(l, rc, "model.vocab", "at most 16 MiB of tokens", "more");
	tokenizer__joins_build(l->tok);
	if (l->tok->n_renumbered > 0) {
		size_t n = strlen(l->tok->describe);

		snprintf(l->tok->describe + n, sizeof l->tok->describe - n, "; %zu added tokens have other ids than the file states", l->tok->n_renumbered);
	}
	if (tokenizer__load_template(l->tok, json_get(root, "post_processor")) != 0)
		return tokenizer__no_memory(l);
	if (rc != 0 || tokenizer__shown_build(l->tok) != 0 || tokenizer__fingerprint(l->tok) != 0)
		return tokenizer__no_memory(l);
	return 0;
}

static int
from_json(struct tokenizer **tok, const struct json *root, const char *name, struct err_note *note)
{
	struct loading l = {.name = name, .note = note};
	int rc;

	if ((*tok = l.tok = calloc(1, sizeof **tok)) == NULL || (l.tok->arena = mem_arena_new(0)) == NULL)
		rc = tokenizer__no_memory(&l);
	else
		rc = build(&l, root);
	if (l.owns_vocab)
		json_close(&l.vocab);
	if (rc != 0)
		tokenizer_destroy(tok);
	else
		err_note_set(note, 0, "%s", "");
	return rc;
}

static bool
is_model(const char *path)
{
	size_t n = strlen(path);

	return n > 6 && strcmp(path + n - 6, ".model") == 0;
}

int
tokenizer_load(struct tokenizer **tok, const char *path, struct err_note *note)
{
	struct json *root;
	int rc;

	*tok = NULL;
	rc = is_model(path) ? tokenizer_model_json(path, &root, note) :
			      json_parse_file(path, TOKENIZER_MAX_FILE_BYTES, &root, note);
	if (rc != 0)
		return rc;
	rc = from_json(tok, root, path, note);
	json_close(&root);
	return rc;
}

int
tokenizer_parse(struct tokenizer **tok, const char *source, size_t len, const char *name, struct err_note *note)
{
	struct json *root;
	int rc;

	*tok = NULL;
	if ((rc = json_parse(source, len, name, &root, note)) != 0)
		return rc;
	rc = from_json(tok, root, name, note);
	json_close(&root);
	return rc;
}

/* Hashes the file's bytes; ERR_FORMAT unless it begins and ends like a JSON object, or is a .model. */
static int
hash_object(const char *path, struct hash128 *id, struct err_note *note)
{
	struct hash_state *h = hash_new();
	FILE *f = fopen(path, "rbe");
	char *buf = malloc(READ_BYTES), head[64];
	const char *magic;
	size_t n, n_head = 0, at;
	int rc = 0, first = EOF, last = EOF;

	if (f == NULL || h == NULL || buf == NULL) {
		rc = err_note_set(note, f == NULL ? errno : ENOMEM, "%s", path);
		goto out;
	}
	while ((n = fread(buf, 1, READ_BYTES, f)) > 0) {
		hash_update(h, buf, n);
		if (n_head == 0)
			memcpy(head, buf, n_head = n < sizeof(head) ? n : sizeof(head));
		for (at = first == EOF && n >= 3 && memcmp(buf, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; first == EOF && at < n; at++)
			if (strchr(" \t\r\n", buf[at]) == NULL)
				first = (unsigned char)buf[at];
		for (at = n; at > 0 && buf[at - 1] != '\0' && strchr(" \t\r\n", buf[at - 1]) != NULL; at--)
			;
		if (at > 0)
			last = (unsigned char)buf[at - 1];
	}
	magic = file_magic(head, n_head);
	if (ferror(f))
		rc = err_note_set(note, EIO, "%s", path);
	else if (!is_model(path) && (first != '{' || last != '}'))
		rc = err_expect(note, ERR_FORMAT, "%s", "a JSON object, or no such file: only encoding and decoding of text need it", "%s", path, magic != NULL ? magic : n_head == 0 ?
		    "an empty file" : first == '{' ? "one that does not end" : "another kind of file");
	*id = hash_digest(h);
out:
	if (f != NULL)
		fclose(f);
	free(buf);
	hash_destroy(&h);
	return rc;
}

int
tokenizer_identify(const char *path, struct hash128 *id, char *why, size_t size, struct err_note *note)
{
	struct tokenizer *tok;
	struct err_note reason = {.name = ""};
	int rc = tokenizer_load(&tok, path, &reason);

	why[0] = '\0';
	if (rc == 0) {
		*id = tokenizer_fingerprint(tok);
		tokenizer_destroy(&tok);
		return 0;
	}
	if (rc > 0) {
		if (note != NULL)
			*note = reason;
		return rc;
	}
	err_note_str(&reason, rc, why, size);
	return hash_object(path, id, note);
}

void
tokenizer_destroy(struct tokenizer **tok)
{
	struct tokenizer *t = *tok;
	size_t i;

	if (t == NULL)
		return;
	for (i = 0; i < t->n_stages; i++)
		tokenizer__regex_free(&t->stage[i].regex);
	for (i = 0; i < t->n_normals; i++)
		tokenizer__regex_free(&t->normal[i].regex);
	tokenizer__trie_free(&t->raw);
	tokenizer__trie_free(&t->normalized);
	tokenizer__trie_free(&t->pieces);
	if (t->model != MODEL_BYTES) {
		free(t->shown);
		free(t->shown_len);
	}
	free(t->score);
	mem_arena_destroy(&t->arena);
	free(t->bytes);
	free(t->len);
	free(t->mark);
	free(t->pair);
	free(t->pair_seen);
	free(t->word);
	free(t->added);
	free(t);
	*tok = NULL;
}
