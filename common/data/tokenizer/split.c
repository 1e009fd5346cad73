/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <string.h>

/*
 * Receives the pieces of one part in order: matches and the text between them. It holds back one piece, to
 * which the next one may be joined.
 */
struct cutter {
	struct tokenizer_encoder *enc;
	size_t k;
	const unsigned char *p;
	size_t from, to; /* the piece held back */
	bool first; /* the encoder's `first` for this part */
	bool has, matched; /* a piece is held back; the last piece was a match */
};

static int
hand_on(const struct cutter *c, size_t from, size_t to)
{
	c->enc->first = c->first && from == 0;
	return from < to ? tokenizer__split(c->enc, c->k + 1, c->p + from, to - from) : 0;
}

static int
flush(struct cutter *c)
{
	bool had = c->has;

	c->has = false;
	return had ? hand_on(c, c->from, c->to) : 0;
}

static int
piece(struct cutter *c, size_t from, size_t to, bool match)
{
	const struct stage *s = &c->enc->tok->stage[c->k];
	bool before = c->matched, join;
	int rc;

	match ^= s->invert;
	switch (s->behavior) {
	case BEHAVIOR_ISOLATED:
		return hand_on(c, from, to);
	case BEHAVIOR_REMOVED:
		return match ? 0 : hand_on(c, from, to);
	case BEHAVIOR_MERGED_PREVIOUS:
		join = match && !before;
		break;
	case BEHAVIOR_MERGED_NEXT:
		join = !match && before;
		break;
	default:
		join = match == before;
	}
	c->matched = match;
	if (c->has && join) {
		c->to = to;
		return 0;
	}
	if ((rc = flush(c)) != 0)
		return rc;
	c->from = from;
	c->to = to;
	c->has = true;
	return 0;
}

static int
split_regex(struct cutter *c, size_t n)
{
	const struct stage *s = &c->enc->tok->stage[c->k];
	const struct matcher *m = tokenizer__regex_for(s->regex, c->p, n);
	size_t at = 0, done = 0, from, to, last = SIZE_MAX;
	int rc = 0;

	/* As Oniguruma's iterator in Hugging Face's library: no empty match where the last one ended. */
	while (at < n || (at == n && s->may_be_empty)) {
		if ((rc = tokenizer__regex_next(
			 c->enc, c->k, m, s->pattern, c->p, n, at, &from, &to)) == ERR_NOT_FOUND)
			break;
		if (rc != 0)
			return rc;
		if (from == to && last == to) {
			at += at < n ? tokenizer__utf8_len(c->p + at, n - at) : 1;
			continue;
		}
		at = last = to;
		if ((done < from && (rc = piece(c, done, from, false)) != 0) ||
		    (rc = piece(c, from, to, true)) != 0)
			return rc;
		done = to;
	}
	return done < n ? piece(c, done, n, false) : 0;
}

/* Splits at characters of the class; each is a separate match. */
static int
split_chars(struct cutter *c, size_t n)
{
	unsigned chars = c->enc->tok->stage[c->k].chars;
	size_t at = 0, done = 0, len;
	int rc;

	for (; at < n; at += len) {
		len = tokenizer__utf8_len(c->p + at, n - at);
		if ((tokenizer__char_class(tokenizer__utf8_decode(c->p + at, len)) & chars) == 0)
			continue;
		if ((done < at && (rc = piece(c, done, at, false)) != 0) ||
		    (rc = piece(c, at, at + len, true)) != 0)
			return rc;
		done = at + len;
	}
	return done < n ? piece(c, done, n, false) : 0;
}

static int
split_words(struct cutter *c, size_t n)
{
	size_t at = 0, from = 0, len;
	unsigned kind, before = CHAR_SPACE;
	int rc;

	for (; at < n; at += len, before = kind) {
		len = tokenizer__utf8_len(c->p + at, n - at);
		kind = tokenizer__char_class(tokenizer__utf8_decode(c->p + at, len)) &
		    (CHAR_WORD | CHAR_SPACE);
		if (kind == before)
			continue;
		if (before != CHAR_SPACE && (rc = hand_on(c, from, at)) != 0)
			return rc;
		from = at;
	}
	return before != CHAR_SPACE ? hand_on(c, from, n) : 0;
}

/* STAGE_PREFIX_SPACE, STAGE_BYTE_MAP: puts a space before the part; maps it to the byte-level alphabet. */
static int
change(struct tokenizer_encoder *enc, size_t k, const unsigned char *p, size_t n)
{
	struct tokenizer_bytes *b = &enc->changed[k];
	bool map = enc->tok->stage[k].kind == STAGE_BYTE_MAP;
	int rc;

	if (!map && p[0] == ' ')
		return tokenizer__split(enc, k + 1, p, n);
	b->n = 0;
	if ((rc = tokenizer__bytes_reserve(b, map ? 2 * n : n + 1)) != 0)
		return err_note_set(enc->note, rc, "a text of %zu bytes", n);
	if (map) {
		b->n = tokenizer__map(p, n, b->bytes);
	} else {
		b->bytes[0] = ' ';
		memcpy(b->bytes + 1, p, n);
		b->n = n + 1;
	}
	return tokenizer__split(enc, k + 1, b->bytes, b->n);
}

/*
 * Replaces each space by s->pattern, and puts it before the text if s->prepend says so. With s->split a word
 * begins at each s->pattern.
 */
static int
metaspace(struct tokenizer_encoder *enc, size_t k, const unsigned char *p, size_t n)
{
	const struct stage *s = &enc->tok->stage[k];
	struct tokenizer_bytes *b = &enc->changed[k];
	size_t len = strlen(s->pattern), i, from;
	bool first = enc->first;
	int rc;

	b->n = 0;
	if ((rc = tokenizer__bytes_reserve(b, (n + 1) * len)) != 0)
		return err_note_set(enc->note, rc, "a text of %zu bytes", n);
	if (p[0] != ' ' && (n < len || memcmp(p, s->pattern, len) != 0) &&
	    (s->prepend == PREPEND_ALWAYS || (s->prepend == PREPEND_FIRST && first))) {
		memcpy(b->bytes, s->pattern, len);
		b->n = len;
	}
	for (i = 0; i < n; i++) {
		if (p[i] != ' ') {
			b->bytes[b->n++] = p[i];
			continue;
		}
		memcpy(b->bytes + b->n, s->pattern, len);
		b->n += len;
	}
	for (from = 0; s->split && rc == 0; from += i) {
		const unsigned char *next = b->n - from > len ?
		    memmem(b->bytes + from + 1, b->n - from - 1, s->pattern, len) : NULL;

		if (next == NULL)
			break;
		i = (size_t)(next - b->bytes) - from;
		enc->first = first && from == 0;
		rc = tokenizer__split(enc, k + 1, b->bytes + from, i);
	}
	enc->first = first && from == 0;
	return rc != 0 ? rc : tokenizer__split(enc, k + 1, b->bytes + from, b->n - from);
}

static int
word(struct tokenizer_encoder *enc, const unsigned char *p, size_t n)
{
	struct tokenizer_bytes *b = &enc->unmapped;
	int rc;

	if (!enc->tok->mapped)
		return tokenizer__word(enc, p, n);
	b->n = 0;
	if ((rc = tokenizer__bytes_reserve(b, n)) != 0)
		return err_note_set(enc->note, rc, "a word of %zu bytes", n);
	if (!tokenizer__unmap((const char *)p, n, b->bytes, &b->n))
		return err_note_set(enc->note, ERR_INTERNAL, "a word of %zu bytes", n);
	return tokenizer__word(enc, b->bytes, b->n);
}

int
tokenizer__split(struct tokenizer_encoder *enc, size_t k, const unsigned char *p, size_t n)
{
	const struct stage *s = &enc->tok->stage[k];
	struct cutter c = {.enc = enc, .k = k, .p = p, .first = enc->first};
	int rc;

	if (n == 0)
		return 0;
	if (k == enc->tok->n_stages)
		return word(enc, p, n);
	switch (s->kind) {
	case STAGE_PREFIX_SPACE:
	case STAGE_BYTE_MAP:
		return change(enc, k, p, n);
	case STAGE_METASPACE:
		return metaspace(enc, k, p, n);
	case STAGE_WORDS:
		return split_words(&c, n);
	default:
		rc = s->regex != NULL ? split_regex(&c, n) : split_chars(&c, n);
		return rc == 0 ? flush(&c) : rc;
	}
}
