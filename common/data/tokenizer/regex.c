/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

#include "base/mem/mem.h"
#include "data/tokenizer/oniguruma.h"

#define MAX_PATTERN_BYTES 16384u
#define JIT_STACK_MIN (32u << 10)
#define JIT_STACK_MAX (8u << 20)
#define MATCH_LIMIT 200000000u
#define HEAP_LIMIT_KIB (256u << 10)

struct matcher {
	pcre2_code *code;
	bool jit;
};

struct regex {
	struct matcher full, plain; /* plain: without lists; its code is NULL if there are none */
	struct range *rare; /* the listed characters, sorted */
	size_t n_rare;
	unsigned char lowest; /* first UTF-8 byte of the lowest listed character */
};

struct regex_scratch {
	pcre2_match_data *match[MAX_STAGES];
	pcre2_match_context *context;
	pcre2_jit_stack *jit_stack;
};

static int
compile(struct matcher *m, bool *may_be_empty, const char *pattern, size_t len, struct err_note *note)
{
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	PCRE2_SIZE offset;
	uint32_t empty = 0;
	int error;
	PCRE2_UCHAR text[160];

	if (context == NULL)
		return ENOMEM;
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	m->code = pcre2_compile((PCRE2_SPTR)pattern, len, PCRE2_UTF | PCRE2_UCP, &error, &offset, context);
	pcre2_compile_context_free(context);
	if (m->code == NULL) {
		pcre2_get_error_message(error, text, sizeof text);
		err_note_found(note, "%s", (const char *)text);
		return error == PCRE2_ERROR_LOOKBEHIND_NOT_FIXED_LENGTH ? ERR_UNSUPPORTED : ERR_FORMAT;
	}
	pcre2_pattern_info(m->code, PCRE2_INFO_MATCHEMPTY, &empty);
	*may_be_empty = empty != 0;
	/* Without executable memory (PCRE2_ERROR_NOMEMORY, _JIT_BADOPTION) matching works, but slower. */
	m->jit = pcre2_jit_compile(m->code, PCRE2_JIT_COMPLETE) == 0;
	return 0;
}

static int
by_first(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->first > y->first) - (x->first < y->first);
}

/*
 * Compiles the pattern without lists. Lists may occur twice, so overlapping ranges are joined after a sort.
 */
static int
compile_plain(struct regex *re, const char *pattern, struct err_note *note)
{
	struct translation t = {.in = pattern, .len = strlen(pattern), .plain = true};
	unsigned char first[4];
	bool may_be_empty;
	size_t i, n = 0;
	int rc = 0;

	if (!oniguruma_translate(&t) || t.no_memory) {
		rc = t.no_memory ? ENOMEM : ERR_INTERNAL;
	} else if (t.n_rare > 0 &&
	    (rc = compile(&re->plain, &may_be_empty, (const char *)t.out.bytes, t.out.n, note)) == 0) {
		qsort(t.rare, t.n_rare, sizeof t.rare[0], by_first);
		for (i = 1; i < t.n_rare; i++) {
			if (t.rare[i].first > t.rare[n].last)
				t.rare[++n] = t.rare[i];
			else if (t.rare[i].last > t.rare[n].last)
				t.rare[n].last = t.rare[i].last;
		}
		re->rare = t.rare;
		re->n_rare = n + 1;
		utf8proc_encode_char((utf8proc_int32_t)t.rare[0].first, first);
		re->lowest = first[0];
		t.rare = NULL;
	}
	free(t.out.bytes);
	free(t.free.bytes);
	free(t.rare);
	return rc;
}

int
tokenizer__regex_compile(struct regex **out, bool *may_be_empty, const char *pattern, const char *place,
    const char *name, struct err_note *note)
{
	struct translation t = {.in = pattern, .len = strlen(pattern)};
	struct regex *re = *out = calloc(1, sizeof *re);
	int rc = 0;

	if (re == NULL)
		return ENOMEM;
	err_expect_at(note, ERR_UNSUPPORTED, "%s", "%s", "a regular expression", "", name, place);
	if (t.len == 0 || t.len > MAX_PATTERN_BYTES) {
		err_note_found(note, "one of %zu bytes", t.len);
		tokenizer__regex_free(out);
		return ERR_UNSUPPORTED;
	}
	if (!oniguruma_translate(&t)) {
		rc = ERR_UNSUPPORTED;
		err_note_expected(note,
		    "a regular expression of literals, classes, \\s \\d \\w \\b \\p{general category or script}, groups, lookaround");
		err_note_found(note, "'%.40s' at byte %zu of '%.100s'", pattern + (t.at > 0 ? t.at - 1 : 0),
		    t.at, pattern);
	} else {
		rc = t.no_memory ?
		    ENOMEM :
		    compile(&re->full, may_be_empty, (const char *)t.out.bytes, t.out.n, note);
		if (rc == 0)
			rc = compile_plain(re, pattern, note);
	}
	free(t.out.bytes);
	free(t.free.bytes);
	if (rc != 0)
		tokenizer__regex_free(out);
	return rc;
}

/*
 * An alternative that matches one character, without assertions or possessive parts, matches this character
 * anywhere. So if each character is matched by such an alternative, no text is left between two matches.
 */
bool
tokenizer__regex_covers(const char *pattern)
{
	struct translation t = {.in = pattern, .len = strlen(pattern)};
	char *all = NULL;
	pcre2_match_data *match = pcre2_match_data_create(1, NULL);
	bool covers = match != NULL && oniguruma_translate(&t) && t.free.n > 0 && !t.no_memory, may_be_empty;
	struct matcher m = {0};
	uint32_t c;

	if (covers && asprintf(&all, "\\A(?:%s)\\z", (const char *)t.free.bytes + 1) < 0)
		all = NULL;
	covers = all != NULL && compile(&m, &may_be_empty, all, strlen(all), NULL) == 0;
	for (c = 0; covers && c < 0x110000; c += c == 0xd7ff ? 0x801 : 1) {
		unsigned char utf8[4];
		size_t n = (size_t)utf8proc_encode_char((utf8proc_int32_t)c, utf8);

		covers = pcre2_match(m.code, utf8, n, 0, PCRE2_NO_UTF_CHECK, match, NULL) >= 0;
	}
	pcre2_code_free(m.code);
	pcre2_match_data_free(match);
	free(t.out.bytes);
	free(t.free.bytes);
	free(all);
	return covers;
}

void
tokenizer__regex_free(struct regex **re)
{
	if (*re == NULL)
		return;
	pcre2_code_free((*re)->full.code);
	pcre2_code_free((*re)->plain.code);
	free((*re)->rare);
	free(*re);
	*re = NULL;
}

static bool
is_rare(const struct regex *re, uint32_t c)
{
	size_t lo = 0, hi = re->n_rare;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (c > re->rare[mid].last)
			lo = mid + 1;
		else if (c < re->rare[mid].first)
			hi = mid;
		else
			return true;
	}
	return false;
}

const struct matcher *
tokenizer__regex_for(const struct regex *re, const unsigned char *p, size_t n)
{
	size_t i = 0, len;
	uint64_t eight;

	if (re->plain.code == NULL)
		return &re->full;
	while (i < n) {
		if (i + 8 <= n && (memcpy(&eight, p + i, 8), (eight & UINT64_C(0x8080808080808080)) == 0)) {
			i += 8;
		} else if (p[i] < re->lowest) {
			i++;
		} else {
			len = tokenizer__utf8_len(p + i, n - i);
			if (is_rare(re, tokenizer__utf8_decode(p + i, len)))
				return &re->full;
			i += len;
		}
	}
	return &re->plain;
}

struct regex_scratch *
tokenizer__regex_scratch_new(void)
{
	struct regex_scratch *s = calloc(1, sizeof *s);
	size_t i;

	if (s == NULL)
		return NULL;
	s->context = pcre2_match_context_create(NULL);
	s->jit_stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL);
	if (s->context == NULL || s->jit_stack == NULL)
		goto fail;
	for (i = 0; i < MAX_STAGES; i++) {
		if ((s->match[i] = pcre2_match_data_create(1, NULL)) == NULL)
			goto fail;
	}
	pcre2_set_match_limit(s->context, MATCH_LIMIT);
	pcre2_set_heap_limit(s->context, HEAP_LIMIT_KIB);
	pcre2_jit_stack_assign(s->context, NULL, s->jit_stack);
	return s;
fail:
	tokenizer__regex_scratch_destroy(&s);
	return NULL;
}

void
tokenizer__regex_scratch_destroy(struct regex_scratch **s)
{
	size_t i;

	if (*s == NULL)
		return;
	for (i = 0; i < MAX_STAGES; i++)
		pcre2_match_data_free((*s)->match[i]);
	pcre2_match_context_free((*s)->context);
	pcre2_jit_stack_free((*s)->jit_stack);
	free(*s);
	*s = NULL;
}

static int
match_failed(struct tokenizer_encoder *enc, const char *pattern, int code, size_t at)
{
	PCRE2_UCHAR text[160];
	int rc = code == PCRE2_ERROR_NOMEMORY ? ENOMEM :
	    code == PCRE2_ERROR_MATCHLIMIT || code == PCRE2_ERROR_DEPTHLIMIT ||
		code == PCRE2_ERROR_HEAPLIMIT || code == PCRE2_ERROR_JIT_STACKLIMIT ?
						ERR_RANGE :
						ERR_LIBRARY;

	pcre2_get_error_message(code, text, sizeof text);
	return err_expect_at(enc->note, rc, "text", "near byte %zu of a part", "text that '%.100s' can split",
	    "%s", at, pattern, (const char *)text);
}

int
tokenizer__regex_next(struct tokenizer_encoder *enc, size_t slot, const struct matcher *m, const char *pattern,
    const unsigned char *p, size_t n, size_t at, size_t *from, size_t *to)
{
	pcre2_match_data *match = enc->regex->match[slot];
	pcre2_match_context *context = enc->regex->context;
	const PCRE2_SIZE *ends;
	int rc = m->jit ? pcre2_jit_match(m->code, p, n, at, PCRE2_NO_UTF_CHECK, match, context) :
			  pcre2_match(m->code, p, n, at, PCRE2_NO_UTF_CHECK, match, context);

	if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
		rc = pcre2_match(m->code, p, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, context);
	if (rc == PCRE2_ERROR_NOMATCH)
		return ERR_NOT_FOUND;
	if (rc < 0)
		return match_failed(enc, pattern, rc, at);
	ends = pcre2_get_ovector_pointer(match);
	*from = ends[0];
	*to = ends[1];
	if (*from < at || *to < *from || *to > n)
		return match_failed(enc, pattern, PCRE2_ERROR_INTERNAL, at);
	return 0;
}
