/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem/mem.h"

enum want { WANT_VALUE, WANT_VALUE_OR_END, WANT_KEY, WANT_KEY_OR_END, WANT_COMMA_OR_END };

struct span {
	const char *p;
	size_t n;
	bool escaped;
};

static int
bad(struct json_scan *s, const char *expected, size_t at)
{
	s->expected = expected;
	s->used = at;
	return ERR_FORMAT;
}

static const char *
skip_space(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
		p++;
	return p;
}

/*
 * Finds the content of a string; p is behind its opening quote. Returns 0, ERR_AGAIN if the input ends within
 * it, or ERR_FORMAT if it contains a newline.
 */
static int
string_span(const char *p, const char *end, struct span *out)
{
	const char *quote = p;

	while ((quote = memchr(quote, '"', (size_t)(end - quote))) != NULL) {
		const char *b = quote;

		while (b > p && b[-1] == '\\')
			b--;
		if ((quote - b) % 2 == 0)
			break;
		quote++;
	}
	out->p = p;
	out->n = (size_t)((quote != NULL ? quote : end) - p);
	if (memchr(p, '\n', out->n) != NULL)
		return ERR_FORMAT;
	out->escaped = memchr(p, '\\', out->n) != NULL;
	return quote != NULL ? 0 : ERR_AGAIN;
}

static bool
hex4(const char *p, const char *end, unsigned *out)
{
	*out = 0;
	for (int i = 0; i < 4; i++) {
		int c = end - p > i ? p[i] : 0, low = c | 0x20;

		if ((c < '0' || c > '9') && (low < 'a' || low > 'f'))
			return false;
		*out = *out << 4 | (unsigned)(c <= '9' ? c - '0' : low - 'a' + 10);
	}
	return true;
}

static size_t
put_utf8(char *out, unsigned c)
{
	unsigned char *o = (unsigned char *)out;
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	if (n == 1) {
		o[0] = (unsigned char)c;
		return 1;
	}
	for (size_t i = n - 1; i > 0; i--, c >>= 6)
		o[i] = (unsigned char)(0x80 | (c & 0x3f));
	o[0] = (unsigned char)((0xf00u >> n & 0xff) | c);
	return n;
}

/*
 * Replaces the escapes of `in`; the result, never longer than the source, is in s->buf. Returns 0, ENOMEM, or
 * ERR_FORMAT for a wrong escape with *at, its offset from in->p.
 */
static int
unescape(struct json_scan *s, const struct span *in, size_t *n_out, size_t *at)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *p = in->p, *end = in->p + in->n, *which;
	size_t n = 0;

	if (mem_grow((void **)&s->buf, &s->cap, in->n + 1, 1) != 0)
		return ENOMEM;
	while (p < end) {
		const char *slash = memchr(p, '\\', (size_t)(end - p));
		size_t plain = (size_t)((slash != NULL ? slash : end) - p);
		unsigned c, low;

		memcpy(s->buf + n, p, plain);
		n += plain;
		if (slash == NULL)
			break;
		*at = (size_t)(slash - in->p);
		p = slash + 2;
		if (slash[1] != 'u') {
			if (slash[1] == '\0' || (which = strchr(from, slash[1])) == NULL)
				return ERR_FORMAT;
			s->buf[n++] = to[which - from];
			continue;
		}
		if (!hex4(p, end, &c))
			return ERR_FORMAT;
		p += 4;
		if (c >= 0xd800 && c < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u' &&
		    hex4(p + 2, end, &low) && low >= 0xdc00 && low < 0xe000) {
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
			p += 6;
		} else if (c >= 0xd800 && c < 0xe000) {
			c = 0xfffd;
			s->n_replaced++;
		}
		n += put_utf8(s->buf + n, c);
	}
	*n_out = n;
	return 0;
}

/* *same: whether the member name `found` is key. A name with a wrong escape is not. Returns 0 or ENOMEM. */
static int
compare_key(struct json_scan *s, const struct span *found, const char *key, bool *same)
{
	size_t n = found->n, at;
	int rc = found->escaped ? unescape(s, found, &n, &at) : 0;

	*same = rc == 0 && n == strlen(key) && memcmp(found->escaped ? s->buf : found->p, key, n) == 0;
	return rc == ENOMEM ? rc : 0;
}

/* Reads a number, true, false, null, NaN, Infinity or -Infinity. Sets *kind; returns the end, or NULL. */
static const char *
bare_word(const char *p, const char *end, enum json_kind *kind)
{
	static const struct {
		const char *word;
		enum json_kind kind;
	} words[] = {{"null", JSON_KIND_NULL}, {"true", JSON_KIND_FLAG}, {"false", JSON_KIND_FLAG},
	    {"NaN", JSON_KIND_FLOAT}, {"Infinity", JSON_KIND_FLOAT}, {"-Infinity", JSON_KIND_FLOAT}};
	const char *q = p;

	while (q < end &&
	    ((*q >= '0' && *q <= '9') || ((*q | 0x20) >= 'a' && (*q | 0x20) <= 'z') || *q == '+' ||
		*q == '-' || *q == '.'))
		q++;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		*kind = words[i].kind;
		if ((size_t)(q - p) == strlen(words[i].word) &&
		    memcmp(p, words[i].word, (size_t)(q - p)) == 0)
			return q;
	}
	*kind = JSON_KIND_FLOAT;
	if (q == end)
		return q; /* the input ends here, perhaps within a word */
	for (const char *d = p + (*p == '-'); d == p || d < q; d++)
		if ((*d < '0' || *d > '9') && (d == p + (*p == '-') || strchr(".eE+-", *d) == NULL))
			return NULL;
	return q > p + (*p == '-') ? q : NULL;
}

int
json_scan(struct json_scan *s, const char *text, size_t len, const char *key)
{
	const char *p = text, *end = text + len;
	struct span str, value = {.p = NULL};
	enum want want = WANT_VALUE;
	size_t depth = 0, n = 0, at = 0;
	bool wanted = false;
	int rc;

	s->found = false;
	s->n_replaced = 0;
	for (;;) {
		if ((p = skip_space(p, end)) == end)
			return ERR_AGAIN;
		if ((*p == '}' &&
			(want == WANT_KEY_OR_END ||
			    (want == WANT_COMMA_OR_END && s->open[depth - 1] == '{'))) ||
		    (*p == ']' &&
			(want == WANT_VALUE_OR_END ||
			    (want == WANT_COMMA_OR_END && s->open[depth - 1] == '[')))) {
			p++;
			if (--depth == 0)
				break;
			want = WANT_COMMA_OR_END;
			continue;
		}
		if (want == WANT_COMMA_OR_END) {
			if (*p != ',')
				return bad(s, s->open[depth - 1] == '{' ? "a comma or }" : "a comma or ]",
				    (size_t)(p - text));
			want = s->open[depth - 1] == '{' ? WANT_KEY : WANT_VALUE;
			p++;
			continue;
		}
		if (depth == 0 && *p != '{')
			return bad(s, "{", (size_t)(p - text));
		if (*p == '"' && (rc = string_span(p + 1, end, &str)) != 0)
			return rc == ERR_AGAIN ?
			    rc :
			    bad(s, "the end of a string before the end of the line", (size_t)(p - text));
		if (want == WANT_KEY || want == WANT_KEY_OR_END) {
			if (*p != '"')
				return bad(s, "a name in quotes", (size_t)(p - text));
			if (depth == 1 && (rc = compare_key(s, &str, key, &wanted)) != 0)
				return rc;
			if ((p = skip_space(str.p + str.n + 1, end)) == end)
				return ERR_AGAIN;
			if (*p++ != ':')
				return bad(s, "a colon", (size_t)(p - 1 - text));
			want = WANT_VALUE;
			continue;
		}
		if (wanted) {
			s->found = true;
			s->kind = *p == '"' ? JSON_KIND_TEXT : *p == '{' ? JSON_KIND_OBJECT : JSON_KIND_ARRAY;
			value = str;
		}
		if (*p == '{' || *p == '[') {
			if (mem_grow((void **)&s->open, &s->cap_open, depth + 1, 1) != 0)
				return ENOMEM;
			s->open[depth++] = *p;
			want = *p++ == '{' ? WANT_KEY_OR_END : WANT_VALUE_OR_END;
		} else {
			enum json_kind kind;
			const char *after = *p == '"' ? str.p + str.n + 1 : bare_word(p, end, &kind);

			if (after == NULL)
				return bad(s, "a value", (size_t)(p - text));
			if (wanted && *p != '"') {
				s->kind = kind;
				value = (struct span){.p = p, .n = (size_t)(after - p)};
			}
			p = after;
			want = WANT_COMMA_OR_END;
		}
		wanted = false;
	}
	s->used = (size_t)(p - text);
	if (!s->found || s->kind == JSON_KIND_ARRAY || s->kind == JSON_KIND_OBJECT)
		return 0;
	s->n_replaced = 0;
	s->text = value.p;
	s->n_text = value.n;
	if (s->kind != JSON_KIND_TEXT || !value.escaped)
		return 0;
	if ((rc = unescape(s, &value, &n, &at)) != 0)
		return rc == ERR_FORMAT ? bad(s, "an escape that JSON has", (size_t)(value.p - text) + at) :
					  rc;
	s->text = s->buf;
	s->n_text = n;
	return 0;
}

void
json_scan_free(struct json_scan *s)
{
	free(s->buf);
	free(s->open);
	*s = (struct json_scan){.text = NULL};
}
