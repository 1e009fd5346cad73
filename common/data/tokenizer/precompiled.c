/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem/mem.h"

/*
 * SentencePiece's normaliser (T5, XLM-R) as Hugging Face's library applies it. A double-array trie
 * (darts-clone) maps texts to offsets in a list of NUL-terminated replacements. A grapheme cluster of fewer
 * than 6 bytes that begins with a text of the trie is replaced, as a whole, by the replacement of the
 * shortest such text. In longer clusters, and if there is no such text, each character is replaced
 * separately.
 */
#define MAX_CLUSTER_BYTES 6u
#define MAX_RESULT_BYTES 256u /* longest replacement, which limits growth */

static int
base64_value(char c)
{
	const char *alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
		   *at = strchr(alphabet, c);

	return at != NULL ? (int)(at - alphabet) : -1;
}

/* Decodes n bytes of base64 into out, [n / 4 * 3]. false: not base64. */
static bool
base64_decode(const char *s, size_t n, unsigned char *out, size_t *n_out)
{
	uint32_t bits = 0;
	size_t i, at = 0;
	int v;

	if (n % 4 != 0)
		return false;
	for (; n > 0 && s[n - 1] == '='; n--)
		;
	for (i = 0; i < n; i++) {
		if (s[i] == '\0' || (v = base64_value(s[i])) < 0)
			return false;
		bits = bits << 6 | (uint32_t)v;
		if (i % 4 != 0)
			out[at++] = (unsigned char)(bits >> (6 - 2 * (i % 4)));
	}
	*n_out = at;
	return true;
}

/* Whether the list of replacements is UTF-8 and none is longer than MAX_RESULT_BYTES. */
static bool
list_is_good(const unsigned char *p, size_t n)
{
	size_t at = 0, len, run = 0;

	for (; at < n; at += len) {
		if ((len = tokenizer__utf8_len(p + at, n - at)) == 0)
			return false;
		run = p[at] == '\0' ? 0 : run + len;
		if (run > MAX_RESULT_BYTES)
			return false;
	}
	return true;
}

int
tokenizer__precompiled_load(
    struct tokenizer *tok, struct normal_step *s, const char *base64, const char **expected)
{
	size_t len = strlen(base64), n, trie, i;
	unsigned char *bytes = mem_arena_alloc_raw(tok->arena, len / 4 * 3 + 4);
	uint32_t *units;

	if (bytes == NULL)
		return ENOMEM;
	if (len == 0 && s->kind == NORMAL_SENTENCEPIECE) {		/* no table */
		s->pattern = "";
		return 0;
	}
	*expected = "base64";
	if (!base64_decode(base64, len, bytes, &n))
		return ERR_FORMAT;
	*expected = "the length of a trie, a trie of that length and a list of texts";
	if (n < 8)
		return ERR_FORMAT;
	trie = bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
	if (trie == 0 || trie % 4 != 0 || trie > n - 4)
		return ERR_FORMAT;
	*expected = "UTF-8 texts of at most 256 bytes each";
	if (!list_is_good(bytes + 4 + trie, n - 4 - trie))
		return ERR_FORMAT;
	s->n_units = trie / 4;
	if ((units = mem_arena_alloc_raw(tok->arena, trie)) == NULL)
		return ENOMEM;
	for (i = 0; i < s->n_units; i++) {
		const unsigned char *p = bytes + 4 + 4 * i;

		units[i] = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
	}
	s->units = units;
	s->content = (const char *)bytes + 4 + trie;
	s->content_len = n - 4 - trie;
	return (s->pattern = mem_arena_strndup(tok->arena, base64, len)) != NULL ? 0 : ENOMEM;
}

static uint32_t
offset_of(uint32_t unit)
{
	return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

/*
 * Finds the shortest (or longest) text of the trie with which [p, p+n) begins; *out: its replacement. Returns
 * the length of the text, 0 if there is none.
 */
static size_t
find(const struct normal_step *s, const unsigned char *p, size_t n, bool longest, const char **out,
    size_t *out_len)
{
	uint32_t unit;
	size_t at, i, value, len = 0;
	const char *end;

	if (s->n_units == 0)
		return 0;
	at = offset_of(s->units[0]);
	for (i = 0; i < n && p[i] != '\0' && (len == 0 || longest); i++) {
		if ((at ^= p[i]) >= s->n_units || ((unit = s->units[at]) & (1u << 31 | 0xff)) != p[i])
			break;
		at ^= offset_of(unit);
		if ((unit >> 8 & 1) == 0)
			continue;
		if (at >= s->n_units || (value = s->units[at] & ~(1u << 31)) >= s->content_len ||
		    (s->content[value] & 0xc0) == 0x80)
			break;
		*out = s->content + value;
		end = memchr(*out, '\0', s->content_len - value);
		*out_len = end != NULL ? (size_t)(end - *out) : s->content_len - value;
		len = i + 1;
	}
	return len;
}

static int
put(struct tokenizer_bytes *b, const void *p, size_t n)
{
	int rc = tokenizer__bytes_reserve(b, n + 1);

	if (rc == 0) {
		memcpy(b->bytes + b->n, p, n);
		b->n += n;
	}
	return rc;
}

/*
 * Marks newer than Unicode 14 that continue a cluster in tokenizers 0.23.3 (found by trying every code
 * point); utf8proc 2.8 has none of them.
 */
static bool
is_new_mark(utf8proc_int32_t c)
{
	static const struct {
		utf8proc_int32_t first, last;
	} marks[] = {{0x897, 0x897}, {0x1acf, 0x1add}, {0x1ae0, 0x1aeb}, {0x10d69, 0x10d6d},
	    {0x10efa, 0x10efc}, {0x113b8, 0x113c0}, {0x113c2, 0x113c2}, {0x113c5, 0x113c5},
	    {0x113c7, 0x113ca}, {0x113cc, 0x113d0}, {0x113d2, 0x113d2}, {0x113e1, 0x113e2},
	    {0x11b60, 0x11b67}, {0x11f5a, 0x11f5a}, {0x1611e, 0x1612f}, {0x1e5ee, 0x1e5ef},
	    {0x1e6e3, 0x1e6e3}, {0x1e6e6, 0x1e6e6}, {0x1e6ee, 0x1e6ef}, {0x1e6f5, 0x1e6f5}};
	size_t i;

	for (i = 0; i < sizeof marks / sizeof marks[0] && c > marks[i].last; i++)
		;
	return i < sizeof marks / sizeof marks[0] && c >= marks[i].first;
}

/* The length of the grapheme cluster at p. */
static size_t
cluster(const unsigned char *p, size_t n)
{
	size_t at = tokenizer__utf8_len(p, n), len;
	utf8proc_int32_t state = 0, c = (utf8proc_int32_t)tokenizer__utf8_decode(p, at), next;

	for (; at < n; at += len, c = next) {
		if (c < 0x80 && p[at] < 0x80 && !(c == '\r' && p[at] == '\n'))
			break;
		len = tokenizer__utf8_len(p + at, n - at);
		next = (utf8proc_int32_t)tokenizer__utf8_decode(p + at, len);
		if (utf8proc_grapheme_break_stateful(c, next, &state) &&
		    !(is_new_mark(next) && c != '\n' && c != '\r'))
			break;
	}
	return at;
}

int
tokenizer__precompiled(
    const struct normal_step *s, const unsigned char *p, size_t n, struct tokenizer_bytes *b,
    size_t max, bool *same)
{
	size_t at = 0, all, len, to_len;
	const char *to;
	int rc = 0;

	*same = true;
	for (; at < n && rc == 0; at += all) {
		if (b->n > max)
			return EFBIG;
		all = cluster(p + at, n - at);
		if (all < MAX_CLUSTER_BYTES && find(s, p + at, all, false, &to, &to_len) > 0) {
			*same = false;
			rc = put(b, to, to_len);
			continue;
		}
		for (size_t i = 0; i < all && rc == 0; i += len) {
			len = tokenizer__utf8_len(p + at + i, all - i);
			if (find(s, p + at + i, len, false, &to, &to_len) == 0) {
				rc = put(b, p + at + i, len);
				continue;
			}
			*same = false;
			rc = put(b, to, to_len);
		}
	}
	return rc;
}

/*
 * Applies the same table as SentencePiece itself does: at each position it replaces the longest text that the
 * trie has, or keeps the character. In the result spaces become U+2581; with s->right a space after a space
 * is dropped.
 */
int
tokenizer__sentencepiece(
    const struct normal_step *s, const unsigned char *p, size_t n, struct tokenizer_bytes *b, size_t max)
{
	static const char space[] = "\xe2\x96\x81";
	bool after_space = s->right;
	size_t at, len, to_len, i;
	const char *to;
	int rc;

	if (s->left && (rc = put(b, space, 3)) != 0)
		return rc;
	for (at = 0; at < n; at += len) {
		if (b->n > max)
			return EFBIG;
		if ((len = find(s, p + at, n - at, true, &to, &to_len)) == 0) {
			to = (const char *)p + at;
			to_len = len = tokenizer__utf8_len(p + at, n - at);
		}
		for (; after_space && to_len > 0 && *to == ' '; to_len--)
			to++;
		if (to_len == 0)
			continue;
		after_space = s->right && to[to_len - 1] == ' ';
		if (memchr(to, ' ', to_len) == NULL) {
			if ((rc = put(b, to, to_len)) != 0)
				return rc;
			continue;
		}
		for (i = 0; i < to_len; i++) {
			if ((rc = to[i] == ' ' ? put(b, space, 3) : put(b, to + i, 1)) != 0)
				return rc;
		}
	}
	while (s->right && b->n >= 3 && memcmp(b->bytes + b->n - 3, space, 3) == 0)
		b->n -= 3;
	return 0;
}
