/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/load_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

#define MAX_DECODE_DEPTH 4

/*
 * Converts ids to text. Byte-level tokens are bytes and only concatenated. Tokens of other models go through
 * the decoder's steps as in Hugging Face's library: each step makes a new list of pieces from a list of
 * pieces. One difference: if the bytes of consecutive <0x..> tokens are not UTF-8, they stay these bytes,
 * whereas the library writes U+FFFD for each.
 */
struct pieces {
	struct tokenizer_bytes text;
	size_t *end; /* [n] end of each piece in text */
	size_t n, cap;
};

static int
piece_begin(struct pieces *to)
{
	int rc = to->n < to->cap ? 0 : mem_grow((void **)&to->end, &to->cap, to->n + 1, sizeof to->end[0]);

	if (rc == 0)
		to->end[to->n++] = to->text.n;
	return rc;
}

/* Appends to the last piece. */
static int
piece_add(struct pieces *to, const void *p, size_t n)
{
	int rc = tokenizer__bytes_reserve(&to->text, n);

	if (rc != 0 || n == 0)
		return rc;
	memcpy(to->text.bytes + to->text.n, p, n);
	to->end[to->n - 1] = to->text.n += n;
	return 0;
}

/* The byte of a token <0x..>, else -1. A + may replace the first digit, as in Rust's from_str_radix. */
static int
byte_of_token(const unsigned char *p, size_t n)
{
	int value = 0;

	if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>')
		return -1;
	for (size_t i = 3; i < 5; i++) {
		int c = p[i],
		    digit = c >= '0' && c <= '9'       ? c - '0' :
		    (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 :
							 -1;

		if (digit < 0 && !(c == '+' && i == 3))
			return -1;
		value = value * 16 + (digit < 0 ? 0 : digit);
	}
	return value;
}

/* Appends [p, p+n) with each `from` replaced by `to`, which may be "". */
static int
replace(struct pieces *out, const unsigned char *p, size_t n, const char *from, const char *to)
{
	size_t len = strlen(from), done = 0;
	int rc = 0;

	while (done < n && rc == 0) {
		const unsigned char *hit = memmem(p + done, n - done, from, len);
		size_t at = hit == NULL ? n : (size_t)(hit - p);

		if ((rc = piece_add(out, p + done, at - done)) == 0 && hit != NULL)
			rc = piece_add(out, to, strlen(to));
		done = at + (hit == NULL ? 0 : len);
	}
	return rc;
}

static int
strip(struct pieces *out, const unsigned char *p, size_t n, const struct decode_step *d)
{
	size_t len = strlen(d->from), from = 0, to = n;
	uint32_t i;

	for (i = 0; i < d->start && n - from >= len && memcmp(p + from, d->from, len) == 0; i++)
		from += len;
	for (i = 0; i < d->stop && to >= from + len && memcmp(p + to - len, d->from, len) == 0; i++)
		to -= len;
	return piece_add(out, p + from, to - from);
}

/* Runs one step. first: the first piece of `in` is at the beginning of the text, not in the middle. */
static int
run_step(const struct decode_step *d, const struct pieces *in, struct pieces *out, bool first)
{
	bool bytes = false; /* the last piece of out consists of byte tokens */
	size_t from = 0, i;
	int rc = 0, byte;

	for (i = 0; i < in->n && rc == 0; from = in->end[i++]) {
		const unsigned char *p = in->text.bytes + from;
		size_t n = in->end[i] - from;

		byte = d->kind == DECODE_BYTE_FALLBACK ? byte_of_token(p, n) : -1;
		if ((d->kind != DECODE_FUSE || i == 0) && !(byte >= 0 && bytes) &&
		    (rc = piece_begin(out)) != 0)
			break;
		bytes = byte >= 0;
		switch (d->kind) {
		case DECODE_REPLACE:
			rc = replace(out, p, n, d->from, d->to);
			break;
		case DECODE_BYTE_FALLBACK:
			rc = bytes ? piece_add(out, &(unsigned char){(unsigned char)byte}, 1) :
				     piece_add(out, p, n);
			break;
		case DECODE_FUSE:
			rc = piece_add(out, p, n);
			break;
		case DECODE_STRIP:
			rc = strip(out, p, n, d);
			break;
		case DECODE_METASPACE:
			rc = replace(out, p, n, d->from, i == 0 && first && d->drop_first ? "" : " ");
			break;
		case DECODE_JOIN_SPACE:
			if ((rc = piece_add(out, " ", i > 0)) == 0)
				rc = piece_add(out, p, n);
			break;
		}
	}
	return rc;
}

static void
pieces_free(struct pieces *p)
{
	free(p->text.bytes);
	free(p->end);
}

/*
 * Runs all steps over list[0]; the result is list[*which]. in_middle: the tokens are between others, so
 * nothing is stripped from the ends of the text.
 */
static int
run_steps(const struct tokenizer *tok, struct pieces list[2], bool in_middle, int *which)
{
	bool fused = false;
	int rc = 0;

	*which = 0;
	for (size_t i = 0; i < tok->n_decode && rc == 0; i++) {
		fused = fused || tok->decode[i].kind == DECODE_FUSE;
		if (in_middle && fused && tok->decode[i].kind == DECODE_STRIP)
			continue;
		list[!*which].n = list[!*which].text.n = 0;
		rc = run_step(&tok->decode[i], &list[*which], &list[!*which], !in_middle);
		*which = !*which;
	}
	return rc;
}

int
tokenizer__shown_build(struct tokenizer *tok)
{
	struct pieces list[2] = {{.n = 0}};
	int rc = 0, which;
	void *copy;

	if (tok->model == MODEL_BYTES) {
		tok->shown = tok->bytes;
		tok->shown_len = tok->len;
		return 0;
	}
	tok->shown = mem_alloc((size_t)tok->n_tokens, sizeof tok->shown[0]);
	tok->shown_len = mem_alloc((size_t)tok->n_tokens, sizeof tok->shown_len[0]);
	if (tok->shown == NULL || tok->shown_len == NULL)
		return ENOMEM;
	for (int32_t id = 0; id < tok->n_tokens && rc == 0; id++) {
		list[0].n = list[0].text.n = 0;
		if ((rc = piece_begin(&list[0])) != 0 ||
		    (rc = piece_add(&list[0], tok->bytes[id], tok->len[id])) != 0 ||
		    (rc = run_steps(tok, list, true, &which)) != 0)
			break;
		tok->shown[id] = tok->bytes[id];
		tok->shown_len[id] = (uint32_t)list[which].text.n;
		if (list[which].text.n == tok->len[id] &&
		    (tok->len[id] == 0 || memcmp(list[which].text.bytes, tok->bytes[id], tok->len[id]) == 0))
			continue;
		if ((copy = mem_arena_strndup(tok->arena,
			 list[which].text.n > 0 ? (char *)list[which].text.bytes : "", list[which].text.n)) ==
		    NULL)
			rc = ENOMEM;
		tok->shown[id] = copy;
	}
	pieces_free(&list[0]);
	pieces_free(&list[1]);
	return rc;
}

static int
decode_steps(
    const struct tokenizer *tok, const int32_t *ids, size_t n, unsigned flags, struct tokenizer_bytes *out)
{
	struct pieces list[2] = {{.n = 0}};
	int rc = 0, which = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		if ((flags & TOKENIZER_SKIP_SPECIALS) != 0 && (tok->mark[ids[i]] & TOKEN_SPECIAL) != 0)
			continue;
		if ((rc = piece_begin(&list[0])) == 0)
			rc = piece_add(&list[0], tok->bytes[ids[i]], tok->len[ids[i]]);
	}
	if (rc == 0 && (rc = run_steps(tok, list, false, &which)) == 0 &&
	    (rc = tokenizer__bytes_reserve(out, list[which].text.n + 1)) == 0 && list[which].text.n > 0) {
		memcpy(out->bytes + out->n, list[which].text.bytes, list[which].text.n);
		out->n += list[which].text.n;
	}
	pieces_free(&list[0]);
	pieces_free(&list[1]);
	return rc;
}

int
tokenizer_decode(const struct tokenizer *tok, const int32_t *ids, size_t n, unsigned flags,
    struct tokenizer_bytes *out, struct err_note *note)
{
	size_t i, before = out->n;
	int rc = 0;

	for (i = 0; i < n; i++) {
		if (ids[i] < 0 || ids[i] >= tok->n_tokens)
			return err_expect_at(note, ERR_RANGE, "token id", "item %zu", "0..%d", "%d", i,
			    tok->n_tokens - 1, ids[i]);
	}
	if (tok->model != MODEL_BYTES)
		rc = decode_steps(tok, ids, n, flags, out);
	for (i = 0; i < n && rc == 0 && tok->model == MODEL_BYTES; i++) {
		int32_t id = ids[i];

		if ((flags & TOKENIZER_SKIP_SPECIALS) != 0 && (tok->mark[id] & TOKEN_SPECIAL) != 0)
			continue;
		if ((rc = tokenizer__bytes_reserve(out, (size_t)tok->len[id] + 1)) != 0)
			break;
		memcpy(out->bytes + out->n, tok->bytes[id], tok->len[id]);
		out->n += tok->len[id];
	}
	if (rc == 0)
		return 0;
	out->n = before;
	return err_note_set(note, rc, "decoded text");
}

/* ---- reading ---- */

/* Reads a member that is one character: Strip's content, Metaspace's replacement. */
static int
character(struct loading *l, const struct json *j, const char *place, const char *key, const char **out)
{
	char where[PLACE_BYTES];
	int rc = tokenizer__text(l, j, place, key, out);

	if (rc != 0)
		return rc;
	if ((*out)[0] == '\0' ||
	    tokenizer__utf8_len((const unsigned char *)*out, strlen(*out)) != strlen(*out)) {
		snprintf(where, sizeof where, "%.200s.%s", place, key);
		return tokenizer__bad(l, ERR_FORMAT, where, "one character", "'%.100s'", *out);
	}
	return (*out = mem_arena_strndup(l->tok->arena, *out, strlen(*out))) == NULL ?
	    tokenizer__no_memory(l) :
	    0;
}

static int
load_replace(struct loading *l, const struct json *j, const char *place, struct decode_step *d)
{
	const struct json *pattern = json_get(j, "pattern");
	char where[PLACE_BYTES];
	bool grows = false;
	int rc;

	snprintf(where, sizeof where, "%.200s.pattern", place);
	if (json_get(pattern, "Regex") != NULL)
		return tokenizer__bad(l, ERR_UNSUPPORTED, where, "a String", "a Regex");
	if ((rc = tokenizer__text(l, pattern, where, "String", &d->from)) != 0 ||
	    (rc = tokenizer__text(l, j, place, "content", &d->to)) != 0)
		return rc;
	for (size_t i = 0; i < l->tok->n_decode; i++)
		grows = grows ||
		    (l->tok->decode[i].to != NULL &&
			strlen(l->tok->decode[i].to) > strlen(l->tok->decode[i].from));
	/* This limits the growth of a text to four times. */
	if (d->from[0] == '\0' || strlen(d->to) > (grows ? 1 : 4) * strlen(d->from))
		return tokenizer__bad(l, ERR_UNSUPPORTED, place,
		    grows ? "content not longer than the pattern, after one that is" :
			    "a pattern, and content at most four times as long",
		    "'%.60s' for '%.60s'", d->to, d->from);
	d->from = mem_arena_strndup(l->tok->arena, d->from, strlen(d->from));
	d->to = mem_arena_strndup(l->tok->arena, d->to, strlen(d->to));
	return d->from == NULL || d->to == NULL ? tokenizer__no_memory(l) : 0;
}

static int
load_strip(struct loading *l, const struct json *j, const char *place, struct decode_step *d)
{
	int64_t start, stop;

	if (!json_int(json_get(j, "start"), &start) || !json_int(json_get(j, "stop"), &stop) || start < 0 ||
	    stop < 0 || start > UINT32_MAX || stop > UINT32_MAX)
		return tokenizer__bad(l, ERR_FORMAT, place, "start and stop, 0 or more", "others");
	d->start = (uint32_t)start;
	d->stop = (uint32_t)stop;
	return character(l, j, place, "content", &d->from);
}

int
tokenizer__metaspace(struct loading *l, const struct json *j, const char *place, const char **replacement,
    enum prepend_scheme *scheme)
{
	static const char *const names[] = {"never", "first", "always"};
	const char *s = "always";
	char where[PLACE_BYTES];
	bool prefix;
	int rc;

	if ((rc = character(l, j, place, "replacement", replacement)) != 0 ||
	    (rc = tokenizer__flag(l, j, place, "add_prefix_space", true, &prefix)) != 0 ||
	    (json_get(j, "prepend_scheme") != NULL &&
		(rc = tokenizer__text(l, j, place, "prepend_scheme", &s)) != 0))
		return rc;
	snprintf(where, sizeof where, "%.200s.prepend_scheme", place);
	for (unsigned i = 0; i < 3; i++) {
		if (strcmp(s, names[i]) != 0)
			continue;
		*scheme = (enum prepend_scheme)i;
		if (!prefix && *scheme != PREPEND_NEVER)
			return tokenizer__bad(
			    l, ERR_FORMAT, where, "never, as add_prefix_space is false", "%s", s);
		return 0;
	}
	return tokenizer__bad(l, ERR_FORMAT, where, "never, first or always", "%.100s", s);
}

static int
load_step(struct loading *l, const struct json *j, const char *place, int depth)
{
	struct tokenizer *tok = l->tok;
	struct decode_step d = {.kind = DECODE_FUSE};
	enum prepend_scheme scheme = PREPEND_NEVER;
	const struct json *steps = json_get(j, "decoders");
	const char *type;
	char where[PLACE_BYTES];
	int rc;

	if (json_kind(j) != JSON_KIND_OBJECT)
		return tokenizer__bad(l, ERR_FORMAT, place, "an object", "%s", tokenizer__kind_of(j));
	if ((rc = tokenizer__text(l, j, place, "type", &type)) != 0)
		return rc;
	if (strcmp(type, "Sequence") == 0 && depth < MAX_DECODE_DEPTH) {
		snprintf(where, sizeof where, "%.200s.decoders", place);
		if (json_kind(steps) != JSON_KIND_ARRAY)
			return tokenizer__bad(
			    l, ERR_FORMAT, where, "an array", "%s", tokenizer__kind_of(steps));
		for (size_t i = 0; i < json_count(steps) && rc == 0; i++) {
			snprintf(where, sizeof where, "%.200s.decoders[%zu]", place, i);
			rc = load_step(l, json_item(steps, i), where, depth + 1);
		}
		return rc;
	}
	if (strcmp(type, "Replace") == 0) {
		d.kind = DECODE_REPLACE;
		rc = load_replace(l, j, place, &d);
	} else if (strcmp(type, "Strip") == 0) {
		d.kind = DECODE_STRIP;
		rc = load_strip(l, j, place, &d);
	} else if (strcmp(type, "Metaspace") == 0) {
		d.kind = DECODE_METASPACE;
		rc = tokenizer__metaspace(l, j, place, &d.from, &scheme);
		d.drop_first = scheme != PREPEND_NEVER;
	} else if (strcmp(type, "ByteFallback") == 0) {
		d.kind = DECODE_BYTE_FALLBACK;
	} else if (strcmp(type, "Fuse") != 0) {
		snprintf(where, sizeof where, "%.200s.type", place);
		rc = tokenizer__bad(l, ERR_UNSUPPORTED, where,
		    "Sequence, Replace, ByteFallback, Fuse, Strip or Metaspace", "%.100s", type);
	}
	if (rc != 0)
		return rc;
	if (tok->n_decode == MAX_DECODE)
		return tokenizer__bad(l, ERR_UNSUPPORTED, place, "at most 8 steps of decoding", "more");
	tok->decode[tok->n_decode++] = d;
	return 0;
}

int
tokenizer__load_decoder(struct loading *l, const struct json *decoder)
{
	const struct json *steps = json_get(decoder, "decoders");
	const char *type;
	int rc;

	if (l->tok->model != MODEL_BYTES) {
		if (json_kind(decoder) != JSON_KIND_NULL)
			return load_step(l, decoder, "decoder", 0);
		l->tok->decode[l->tok->n_decode++] = (struct decode_step){.kind = DECODE_JOIN_SPACE};
		return 0;
	}
	if (json_kind(steps) == JSON_KIND_ARRAY && json_count(steps) == 1)
		decoder = json_item(steps, 0);
	if (json_kind(decoder) == JSON_KIND_NULL)
		return 0;
	if ((rc = tokenizer__text(l, decoder, "decoder", "type", &type)) != 0)
		return rc;
	return strcmp(type, "ByteLevel") == 0 ?
	    0 :
	    tokenizer__bad(l, ERR_UNSUPPORTED, "decoder.type", "ByteLevel", "%s", type);
}
