/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem/mem.h"

/*
 * NFC (Unicode Standard Annex 15): decompose, sort each run of combining marks by class, compose. utf8proc does the first and
 * the last; its sort is quadratic in the run, so a long run of marks would take too long: the runs are sorted here.
 *
 * Code points below U+0300 (bytes below 0xcc) are normal by themselves and never the second of a composition, so only
 * stretches of higher ones, each with the one character before it, are looked at.
 */
#define HIGH_BYTE 0xcc
#define STRETCH_BYTES 4096u		/* beyond this a stretch ends at the first possible place: memory is 16 bytes for each of its bytes */

static uint32_t
decode(const unsigned char *p, size_t len)
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

static unsigned
class_of(int32_t c)
{
	return (unsigned)utf8proc_get_property(c)->combining_class & 255;
}

/* Normal by itself, and combines neither with the character before nor with the one after it. */
static bool
is_boundary(int32_t c)
{
	const utf8proc_property_t *q = utf8proc_get_property(c);

	return q->combining_class == 0 && q->decomp_seqindex == UINT16_MAX && q->comb_index == UINT16_MAX &&
	    !(c >= 0x1160 && c <= 0x11ff) && !(c >= 0xac00 && c <= 0xd7a3);
}

/* Stable, by combining class; none of the n is a starter. tmp: room for n. */
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
stretch(struct tokenizer_encoder *enc, const unsigned char *p, size_t n)
{
	const int options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
	size_t at = 0, n_points = 0, i, k;
	utf8proc_ssize_t left;
	int32_t *points;
	int rc, last_class = 0;

	/* A character of two bytes or more decomposes into at most four; then as much again for sorting. */
	if ((rc = mem_grow((void **)&enc->code_points, &enc->code_points_cap, 4 * n + 8, sizeof enc->code_points[0])) != 0)
		return rc;
	points = enc->code_points;
	while (at < n) {
		size_t len = tokenizer__utf8_len(p + at, n - at);

		left = utf8proc_decompose_char((int32_t)decode(p + at, len), points + n_points, 4, options, &last_class);
		if (left < 0 || left > 4)
			return ERR_INTERNAL;
		n_points += (size_t)left;
		at += len;
	}
	for (i = 0; i < n_points; i = k) {
		for (k = i; k < n_points && class_of(points[k]) != 0; k++)
			;
		if (k - i > 1)
			sort_marks(points + i, k - i, points + n_points);
		if (k == i)
			k++;
	}
	if ((left = utf8proc_normalize_utf32(points, (utf8proc_ssize_t)n_points, options)) < 0)
		return ERR_LIBRARY;
	if ((rc = tokenizer__bytes_reserve(&enc->normal, 4 * (size_t)left)) != 0)
		return rc;
	for (i = 0; i < (size_t)left; i++)
		enc->normal.n += (size_t)utf8proc_encode_char(points[i], enc->normal.bytes + enc->normal.n);
	return 0;
}

int
tokenizer__nfc(struct tokenizer_encoder *enc, const unsigned char *p, size_t n, const unsigned char **out, size_t *out_len)
{
	size_t done = 0, from, to = 0;
	int rc;

	*out = p;
	*out_len = n;
	enc->normal.n = 0;
	for (;;) {
		while (to < n && p[to] < HIGH_BYTE)
			to++;
		if (to == n)
			break;
		from = to;
		if (from > done) {
			do {
				from--;
			} while ((p[from] & 0xc0) == 0x80);
		}
		if ((rc = tokenizer__bytes_reserve(&enc->normal, from - done + 1)) != 0)
			goto fail;
		memcpy(enc->normal.bytes + enc->normal.n, p + done, from - done);
		enc->normal.n += from - done;
		while (to < n && p[to] >= HIGH_BYTE) {
			size_t len = tokenizer__utf8_len(p + to, n - to);

			if (to - from >= STRETCH_BYTES && is_boundary((int32_t)decode(p + to, len)))
				break;
			to += len;
		}
		if ((rc = stretch(enc, p + from, to - from)) != 0)
			goto fail;
		done = to;
	}
	if (done == 0)
		return 0;
	if ((rc = tokenizer__bytes_reserve(&enc->normal, n - done + 1)) != 0)
		goto fail;
	memcpy(enc->normal.bytes + enc->normal.n, p + done, n - done);
	enc->normal.n += n - done;
	*out = enc->normal.bytes;
	*out_len = enc->normal.n;
	return 0;
fail:
	return err_note_set(enc->note, rc, "normalising %zu bytes", n);
}
