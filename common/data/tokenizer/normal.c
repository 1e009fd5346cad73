/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem/mem.h"

/*
 * The normal forms (Unicode Standard Annex 15): decompose, sort each run of combining marks by class,
 * compose. utf8proc decomposes and composes. Its sort is quadratic in the run, so long runs would take too
 * long; the runs are sorted here.
 *
 * Low code points are normal by themselves and never the second character of a composition (first_byte), so
 * only stretches of higher ones, each with the one character before it, are processed. Inert characters are
 * newer than the tables of Hugging Face's library, which takes them for starters that neither decompose nor
 * compose, so they end a run that is sorted and composed.
 */
#define STRETCH_BYTES \
	4096u /* a longer stretch ends at the next boundary: a byte takes 16 bytes of memory or more */
#define MAX_GROWTH 64 /* limit for all steps together, each of which could multiply a text's length by 256 */
#define MAX_POINTS 18 /* most code points into which one character decomposes (U+FDFA) */

static const struct {
	int options;
	unsigned char first_byte; /* of the lowest character that may change: U+0300, U+00C0, U+00A0 */
	size_t growth; /* most code points for each byte of a text */
} forms[] = {
    [NORMAL_NFC] = {UTF8PROC_STABLE | UTF8PROC_COMPOSE, 0xcc, 2},
    [NORMAL_NFD] = {UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, 0xc3, 2},
    [NORMAL_NFKC] = {UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_COMPOSE, 0xc2, 6},
    [NORMAL_NFKD] = {UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE, 0xc2, 6},
};

static bool
is_inert(int32_t c)
{
	return c >= 0x300 && (tokenizer__char_class((uint32_t)c) & CHAR_INERT) != 0;
}

static unsigned
class_of(int32_t c)
{
	return (unsigned)utf8proc_get_property(c)->combining_class & 255;
}

/* Whether c is normal by itself and combines with neither the character before it nor the one after it. */
static bool
is_boundary(int32_t c)
{
	const utf8proc_property_t *q = utf8proc_get_property(c);

	return q->combining_class == 0 && q->decomp_seqindex == UINT16_MAX && q->comb_index == UINT16_MAX &&
	    !(c >= 0x1160 && c <= 0x11ff) && !(c >= 0xac00 && c <= 0xd7a3);
}

/* Sorts n marks by combining class, stably; none is a starter. tmp: [n]. */
static void
sort_marks(int32_t *c, size_t n, int32_t *tmp)
{
	size_t first[257] = {0}, i, k;

	if (n <= 16) {
		for (i = 1; i < n; i++) {
			int32_t x = c[i];

			for (k = i; k > 0 && class_of(c[k - 1]) > class_of(x); k--)
				c[k] = c[k - 1];
			c[k] = x;
		}
		return;
	}
	for (i = 0; i < n; i++)
		first[class_of(c[i]) + 1]++;
	for (i = 1; i < 257; i++)
		first[i] += first[i - 1];
	for (i = 0; i < n; i++)
		tmp[first[class_of(c[i])]++] = c[i];
	memcpy(c, tmp, n * sizeof c[0]);
}

static int
write_points(struct tokenizer_bytes *b, const int32_t *points, size_t n)
{
	size_t i;
	int rc;

	if ((rc = tokenizer__bytes_reserve(b, 4 * n + 1)) != 0)
		return rc;
	for (i = 0; i < n; i++)
		b->n += (size_t)utf8proc_encode_char(points[i], b->bytes + b->n);
	return 0;
}

/* Sorts and, if the form says so, composes n decomposed code points, and appends them to b. tmp: [n]. */
static int
finish_points(struct tokenizer_bytes *b, int options, int32_t *points, size_t n, int32_t *tmp)
{
	utf8proc_ssize_t left = (utf8proc_ssize_t)n;
	size_t i, k;

	for (i = 0; i < n; i = k) {
		for (k = i; k < n && class_of(points[k]) != 0; k++)
			;
		if (k - i > 1)
			sort_marks(points + i, k - i, tmp);
		if (k == i)
			k++;
	}
	if ((options & UTF8PROC_COMPOSE) != 0 && n > 0 &&
	    (left = utf8proc_normalize_utf32(points, left, options)) < 0)
		return ERR_LIBRARY;
	return write_points(b, points, (size_t)left);
}

static int
stretch(struct tokenizer_encoder *enc, enum normal_kind form, const unsigned char *p, size_t n,
    struct tokenizer_bytes *b)
{
	int options = forms[form].options, rc, last_class = 0;
	size_t room = forms[form].growth * n + MAX_POINTS, at = 0, n_points = 0, len;
	utf8proc_ssize_t left;
	int32_t *points, c;

	/* The second half is for sorting. */
	if ((rc = mem_grow((void **)&enc->code_points, &enc->code_points_cap, 2 * room,
		 sizeof enc->code_points[0])) != 0)
		return rc;
	points = enc->code_points;
	for (; at < n; at += len) {
		len = tokenizer__utf8_len(p + at, n - at);
		c = (int32_t)tokenizer__utf8_decode(p + at, len);
		if (is_inert(c)) {
			if ((rc = finish_points(b, options, points, n_points, points + room)) != 0 ||
			    (rc = write_points(b, &c, 1)) != 0)
				return rc;
			n_points = 0;
			continue;
		}
		left = utf8proc_decompose_char(c, points + n_points, MAX_POINTS, options, &last_class);
		if (left < 0 || left > MAX_POINTS)
			return ERR_INTERNAL;
		n_points += (size_t)left;
	}
	return finish_points(b, options, points, n_points, points + room);
}

static int
append(struct tokenizer_bytes *b, const void *p, size_t n)
{
	int rc = tokenizer__bytes_reserve(b, n + 1);

	if (rc == 0 && n > 0) {
		memcpy(b->bytes + b->n, p, n);
		b->n += n;
	}
	return rc;
}

/* In the steps below b gets the changed text; *same: the text did not change, and b is not used. */
static int
normal_form(struct tokenizer_encoder *enc, enum normal_kind form, const unsigned char *p, size_t n,
    struct tokenizer_bytes *b, bool *same)
{
	unsigned char high = forms[form].first_byte;
	size_t done = 0, from, to = 0;
	int rc;

	for (;;) {
		while (to < n && p[to] < high)
			to++;
		if (to == n)
			break;
		from = to;
		if (from > done) {
			do {
				from--;
			} while ((p[from] & 0xc0) == 0x80);
		}
		if ((rc = append(b, p + done, from - done)) != 0)
			return rc;
		while (to < n && p[to] >= high) {
			size_t len = tokenizer__utf8_len(p + to, n - to);

			if (to - from >= STRETCH_BYTES &&
			    is_boundary((int32_t)tokenizer__utf8_decode(p + to, len)))
				break;
			to += len;
		}
		if ((rc = stretch(enc, form, p + from, to - from, b)) != 0)
			return rc;
		done = to;
	}
	*same = done == 0;
	return done == 0 ? 0 : append(b, p + done, n - done);
}

/* As Rust's char::to_lowercase: maps each code point to one, except U+0130 to two. */
static int
lower_case(const unsigned char *p, size_t n, struct tokenizer_bytes *b)
{
	size_t at = 0, len;
	int rc = tokenizer__bytes_reserve(b, 2 * n + 4);

	for (; rc == 0 && at < n; at += len) {
		uint32_t c, low;

		len = 1;
		if (p[at] < 0x80) {
			b->bytes[b->n++] = (unsigned char)(p[at] >= 'A' && p[at] <= 'Z' ? p[at] + 32 : p[at]);
			continue;
		}
		len = tokenizer__utf8_len(p + at, n - at);
		c = tokenizer__utf8_decode(p + at, len);
		if ((low = tokenizer__lower_new(c)) == 0)
			low = c == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
		b->n += (size_t)utf8proc_encode_char((utf8proc_int32_t)low, b->bytes + b->n);
		if (c == 0x130)
			rc = append(b, "\xcc\x87", 2);
		/* A letter may take one byte more in lower case (U+023A); 2n bytes are reserved. */
	}
	return rc;
}

static int
strip_accents(const unsigned char *p, size_t n, struct tokenizer_bytes *b, bool *same)
{
	size_t at = 0, len;
	int rc = tokenizer__bytes_reserve(b, n + 1);

	*same = true;
	for (; rc == 0 && at < n; at += len) {
		len = p[at] < 0x80 ? 1 : tokenizer__utf8_len(p + at, n - at);
		if (len > 1 &&
		    (tokenizer__char_class(tokenizer__utf8_decode(p + at, len)) & CHAR_MARK) != 0) {
			*same = false;
			continue;
		}
		memcpy(b->bytes + b->n, p + at, len);
		b->n += len;
	}
	return rc;
}

static size_t
space_at(const unsigned char *p, size_t n)
{
	size_t len = n > 0 ? tokenizer__utf8_len(p, n) : 0;

	return len > 0 && (tokenizer__char_class(tokenizer__utf8_decode(p, len)) & CHAR_SPACE) != 0 ? len : 0;
}

static void
strip(const struct normal_step *s, const unsigned char **p, size_t *n)
{
	size_t len, k;

	while (s->left && (len = space_at(*p, *n)) > 0) {
		*p += len;
		*n -= len;
	}
	while (s->right && *n > 0) {
		for (k = 1; k < *n && k < 4 && ((*p)[*n - k] & 0xc0) == 0x80; k++)
			;
		if (space_at(*p + *n - k, k) == 0)
			break;
		*n -= k;
	}
}

static int
replace(struct tokenizer_encoder *enc, const struct normal_step *s, const unsigned char *p, size_t n,
    struct tokenizer_bytes *b, size_t max, bool *same)
{
	const struct matcher *m = s->literal != NULL ? NULL : tokenizer__regex_for(s->regex, p, n);
	size_t at = 0, from, to;
	int rc = 0;

	*same = true;
	while (at < n) {
		if (s->literal != NULL) {
			const unsigned char *q = s->literal_len == 1 ?
			    memchr(p + at, s->literal[0], n - at) :
			    memmem(p + at, n - at, s->literal, s->literal_len);

			if (q == NULL)
				break;
			from = (size_t)(q - p);
			to = from + s->literal_len;
		} else if ((rc = tokenizer__regex_next(enc, 0, m, s->pattern, p, n, at, &from, &to)) ==
		    ERR_NOT_FOUND) {
			break;
		} else if (rc != 0) {
			return rc;
		}
		*same = false;
		if ((rc = append(b, p + at, from - at)) != 0 ||
		    (rc = append(b, s->content, s->content_len)) != 0)
			return rc;
		if (b->n > max)
			return EFBIG;
		at = to;
	}
	return *same ? 0 : append(b, p + at, n - at);
}

int
tokenizer__normalize(struct tokenizer_encoder *enc, const unsigned char *p, size_t n,
    const unsigned char **out, size_t *out_len)
{
	size_t i, given_len = n, turn = 0, max = n < MAX_TEXT_BYTES / 128 ? MAX_GROWTH * n + 65536 : MAX_TEXT_BYTES;
	int rc = 0;

	for (i = 0; i < enc->tok->n_normals && n > 0; i++) {
		const struct normal_step *s = &enc->tok->normal[i];
		struct tokenizer_bytes *b = &enc->normal[turn];
		bool same = false;

		b->n = 0;
		switch (s->kind) {
		case NORMAL_LOWERCASE:
			rc = lower_case(p, n, b);
			break;
		case NORMAL_STRIP:
			same = true;
			strip(s, &p, &n);
			break;
		case NORMAL_STRIP_ACCENTS:
			rc = strip_accents(p, n, b, &same);
			break;
		case NORMAL_PREPEND:
			if ((rc = append(b, s->content, s->content_len)) == 0)
				rc = append(b, p, n);
			break;
		case NORMAL_PRECOMPILED:
			rc = tokenizer__precompiled(s, p, n, b, max, &same);
			break;
		case NORMAL_SENTENCEPIECE:
			rc = tokenizer__sentencepiece(s, p, n, b, max);
			break;
		case NORMAL_REPLACE:
			rc = replace(enc, s, p, n, b, max, &same);
			break;
		default:
			rc = normal_form(enc, s->kind, p, n, b, &same);
		}
		if (rc == EFBIG || (rc == 0 && !same && b->n > max))
			return err_expect(enc->note, ERR_RANGE, "normalizer",
			    "a text that grows to at most 64 times its bytes", "more, from %zu bytes", given_len);
		if (rc == ERR_RANGE || (rc == ERR_LIBRARY && s->kind == NORMAL_REPLACE))
			return rc; /* with a note */
		if (rc != 0)
			return err_note_set(enc->note, rc, "normalising %zu bytes", given_len);
		if (!same) {
			p = b->bytes;
			n = b->n;
			turn = !turn;
		}
	}
	*out = p;
	*out_len = n;
	return 0;
}
