/* SPDX-License-Identifier: Apache-2.0 */
/* gguf_pairs - the pairs of an open GGUF file: lookup, typed values, error notes. */
#include "engine/gguf/gguf_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	unsigned bytes;				/* 0: the length is stored in the file */
} kinds[GGUF__KINDS] = {
	[GGUF__U8] = {"u8", 1}, [GGUF__I8] = {"i8", 1}, [GGUF__U16] = {"u16", 2}, [GGUF__I16] = {"i16", 2}, [GGUF__U32] = {"u32", 4},
	[GGUF__I32] = {"i32", 4}, [GGUF__F32] = {"f32", 4}, [GGUF__BOOL] = {"flag", 1}, [GGUF__TEXT] = {"string", 0},
	[GGUF__ARRAY] = {"array", 0}, [GGUF__U64] = {"u64", 8}, [GGUF__I64] = {"i64", 8}, [GGUF__F64] = {"f64", 8},
};

uint64_t
gguf__little(const unsigned char *p, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

unsigned
gguf__kind_bytes(enum gguf__kind kind)
{
	return kinds[kind].bytes;
}

int
gguf__by_key(const void *a, const void *b)
{
	return strcmp(((const struct gguf__pair *)a)->key, ((const struct gguf__pair *)b)->key);
}

const struct gguf__pair *
gguf__pair(const struct gguf *g, const char *key)
{
	const struct gguf__pair want = {.key = key};

	return g->n_pairs == 0 ? NULL : bsearch(&want, g->pairs, g->n_pairs, sizeof(want), gguf__by_key);
}

const char *
gguf__key(const struct gguf *g, const char *end, char buf[GGUF__KEY_BYTES])
{
	struct gguf__text arch = {"", 0};

	gguf__text(gguf__pair(g, "general.architecture"), &arch);
	snprintf(buf, GGUF__KEY_BYTES, "%.*s.%s", (int)(arch.len < 64 ? arch.len : 64), arch.s, end);
	return buf;
}

const char *
gguf__kind_name(enum gguf__kind kind)
{
	return kinds[kind].name;
}

/* Returns false if the value is not an integer or exceeds int64. */
static bool
integer(enum gguf__kind kind, const unsigned char *p, int64_t *out)
{
	uint64_t v;

	switch (kind) {
	case GGUF__U8: case GGUF__U16: case GGUF__U32: case GGUF__U64:
		v = gguf__little(p, kinds[kind].bytes);
		if (v > INT64_MAX)
			return false;
		*out = (int64_t)v;
		return true;
	case GGUF__I8:
		*out = (int8_t)p[0];
		return true;
	case GGUF__I16:
		*out = (int16_t)gguf__little(p, 2);
		return true;
	case GGUF__I32:
		*out = (int32_t)gguf__little(p, 4);
		return true;
	case GGUF__I64:
		*out = (int64_t)gguf__little(p, 8);
		return true;
	default:
		return false;
	}
}

bool
gguf__int(const struct gguf__pair *pair, int64_t *out)
{
	return pair != NULL && integer(pair->kind, pair->value, out);
}

bool
gguf__num(const struct gguf__pair *pair, double *out)
{
	uint64_t v;
	int64_t i;
	uint32_t u;
	float f;

	if (gguf__int(pair, &i)) {
		*out = (double)i;
		return true;
	}
	if (pair == NULL || (pair->kind != GGUF__F32 && pair->kind != GGUF__F64))
		return false;
	v = gguf__little(pair->value, kinds[pair->kind].bytes);
	if (pair->kind == GGUF__F64) {
		memcpy(out, &v, sizeof(*out));
		return true;
	}
	u = (uint32_t)v;
	memcpy(&f, &u, sizeof(f));
	*out = (double)f;
	return true;
}

bool
gguf__flag(const struct gguf__pair *pair, bool *out)
{
	if (pair == NULL || pair->kind != GGUF__BOOL)
		return false;
	*out = pair->value[0] != 0;
	return true;
}

bool
gguf__text(const struct gguf__pair *pair, struct gguf__text *out)
{
	const unsigned char *at;

	if (pair == NULL || pair->kind != GGUF__TEXT)
		return false;
	at = pair->value;
	*out = gguf__next_text(&at);
	return true;
}

bool
gguf__is(const struct gguf__text *text, const char *s)
{
	return text->len == strlen(s) && memcmp(text->s, s, text->len) == 0;
}

struct gguf__text
gguf__next_text(const unsigned char **at)
{
	struct gguf__text text = {(const char *)*at + 8, (size_t)gguf__little(*at, 8)};

	*at += 8 + text.len;
	return text;
}

int64_t
gguf__next_int(enum gguf__kind kind, const unsigned char **at)
{
	int64_t v = 0;

	integer(kind, *at, &v);
	*at += kinds[kind].bytes;
	return v;
}

int
gguf__bad(const struct gguf *g, struct err_note *note, int rc, const char *key, const char *expected, const char *fmt, ...)
{
	char found[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(found, sizeof(found), fmt, ap);
	va_end(ap);
	return err_expect_at(note, rc, "%s", "key %s", "%s", "%s", g->path, key, expected, found);
}

int
gguf__bad_kind(const struct gguf *g, struct err_note *note, const char *key, const char *expected)
{
	const struct gguf__pair *pair = gguf__pair(g, key);

	return gguf__bad(g, note, ERR_FORMAT, key, expected, "%s", pair == NULL ? "nothing" : kinds[pair->kind].name);
}

size_t
gguf__utf8(const unsigned char *s, size_t n)
{
	size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

	if (len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if (len >= 3) {				/* rejects overlong forms, surrogates, values over U+10FFFF */
		if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
		    (s[0] == 0xf4 && s[1] > 0x8f))
			return 0;
	}
	return len;
}
