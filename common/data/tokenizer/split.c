/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/tokenizer_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/*
 * The patterns in tokenizer.json are written for Oniguruma with Ruby's syntax and Unicode classes; PCRE2 reads most of them
 * alike but gives some a different meaning. So a pattern is translated: constructs with the same meaning are copied, others are
 * rewritten (white space: PCRE2's \s contains U+180E, which is not white space), and the rest is refused with its place.
 */
#define WHITE "\\p{Z}\\x09-\\x0d\\x{85}"

/*
 * Letters and numbers of Unicode 15 and 16, which the PCRE2 of Debian 12 (Unicode 14) does not know and Hugging Face's
 * Oniguruma does. With a newer PCRE2 they are redundant.
 */
#define NEW_L "\\x{1c89}\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d65}" \
	"\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}" \
	"\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}" \
	"\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}" \
	"\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}" \
	"\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NEW_N "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}" \
	"\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"
#define MAX_PATTERN_BYTES 16384u
#define MAX_GROWTH 256u			/* the longest translation of one byte of a pattern; \p{L} is five bytes */
#define JIT_STACK_MIN (32u << 10)
#define JIT_STACK_MAX (8u << 20)
#define MATCH_LIMIT 200000000u
#define HEAP_LIMIT_KIB (256u << 10)

struct split_scratch {
	pcre2_match_data *match[MAX_STAGES];
	pcre2_match_context *context;
	pcre2_jit_stack *jit_stack;
};

struct translation {
	const char *in;
	size_t at, len;
	char *out;			/* room for the longest translation of in */
	size_t n;
};

static void
emit(struct translation *t, const char *s, size_t n)
{
	memcpy(t->out + t->n, s, n);
	t->n += n;
}

static void
emit_text(struct translation *t, const char *s)
{
	emit(t, s, strlen(s));
}

/* \p{..} and \P{..}: general categories, one letter or two. t->at is at the p. */
static bool
property(struct translation *t, bool in_class)
{
	static const char *const known = "L M N P S Z C Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So "
	    "Zs Zl Zp Cc Cf Cs Co Cn";
	const char *p = t->in + t->at, *end = memchr(p, '}', t->len - t->at), *k, *name;
	size_t n, from = t->at;

	if (t->len - t->at < 4 || p[1] != '{' || end == NULL)
		return false;
	name = p + 2 + (p[2] == '^');
	n = (size_t)(end - name);
	for (k = known; k != NULL; k = (k = strchr(k, ' ')) == NULL ? NULL : k + 1) {
		if ((n == 1 || n == 2) && strncmp(k, name, n) == 0 && (k[n] == ' ' || k[n] == '\0')) {
			const char *more = n == 2 || (name[0] != 'L' && name[0] != 'N') ? NULL : name[0] == 'L' ? NEW_L : NEW_N;
			bool negated = (p[0] == 'P') != (p[2] == '^');

			t->at += (size_t)(end + 1 - p);
			if (more != NULL && in_class && negated)
				return false;
			if (more != NULL && !in_class)
				emit_text(t, negated ? "[^" : "[");
			emit_text(t, more != NULL ? "\\p{" : "\\");
			emit(t, more != NULL ? name : t->in + from, more != NULL ? n + 1 : t->at - from);
			emit_text(t, more != NULL ? more : "");
			if (more != NULL && !in_class)
				emit_text(t, "]");
			return true;
		}
	}
	return false;
}

/* Hexadecimal digits at t->at, from lo to hi of them, as \x{..}. */
static bool
code_point(struct translation *t, size_t lo, size_t hi)
{
	size_t n = 0;

	while (n < hi && t->at + n < t->len && strchr("0123456789abcdefABCDEF", t->in[t->at + n]) != NULL)
		n++;
	if (n < lo)
		return false;
	emit_text(t, "\\x{");
	emit(t, t->in + t->at, n);
	emit_text(t, "}");
	t->at += n;
	return true;
}

/* What follows a backslash; in_class: between brackets. t->at is after the backslash. */
static bool
escape(struct translation *t, bool in_class)
{
	char c = t->at < t->len ? t->in[t->at] : '\0';

	switch (c) {
	case 'r': case 'n': case 't': case 'f':
		emit_text(t, "\\");
		emit(t, &c, 1);
		t->at++;
		return true;
	case 's':
		t->at++;
		emit_text(t, in_class ? WHITE : "[" WHITE "]");
		return true;
	case 'S':
		t->at++;
		emit_text(t, "[^" WHITE "]");
		return !in_class;
	case 'd':
		t->at++;
		emit_text(t, "\\p{Nd}");
		return true;
	case 'p': case 'P':
		return property(t, in_class);
	case 'u':
		t->at++;
		return code_point(t, 4, 4);
	case 'x':
		t->at++;
		if (t->at >= t->len || t->in[t->at] != '{')
			return t->at < t->len && t->in[t->at] >= '0' && t->in[t->at] <= '7' && code_point(t, 2, 2);
		t->at++;
		return code_point(t, 1, 6) && t->at < t->len && t->in[t->at++] == '}';
	default:
		if (c == '\0' || strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ", c) == NULL)
			return false;
		emit_text(t, "\\");
		emit(t, &c, 1);
		t->at++;
		return true;
	}
}

static bool
class(struct translation *t)
{
	size_t first;

	emit(t, t->in + t->at++, 1);
	if (t->at < t->len && t->in[t->at] == '^')
		emit(t, t->in + t->at++, 1);
	for (first = t->at; t->at < t->len; ) {
		char c = t->in[t->at];

		if (c == ']' && t->at > first) {
			emit(t, &c, 1);
			t->at++;
			return true;
		}
		if (c == ']' || c == '[' || (c == '&' && t->at + 1 < t->len && t->in[t->at + 1] == '&'))
			return false;			/* sets within sets, intersections, [:names:] */
		t->at++;
		if (c == '\\') {
			if (!escape(t, true))
				return false;
		} else {
			emit(t, &c, 1);
		}
	}
	return false;
}

static bool
group(struct translation *t)
{
	static const char *const kinds[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
	size_t i;

	if (t->at + 1 >= t->len || (t->in[t->at + 1] != '?' && t->in[t->at + 1] != '*')) {
		emit_text(t, "(?:");
		t->at++;
		return true;
	}
	for (i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		size_t n = strlen(kinds[i]);

		if (t->len - t->at >= n && memcmp(t->in + t->at, kinds[i], n) == 0) {
			emit(t, t->in + t->at, n);
			t->at += n;
			return true;
		}
	}
	return false;
}

/* {n}, {n,}, {n,m}; a + or ? after it has another meaning in Ruby. */
static bool
repeat(struct translation *t)
{
	size_t from = t->at++;

	if (t->at >= t->len || t->in[t->at] < '0' || t->in[t->at] > '9')
		return false;
	while (t->at < t->len && ((t->in[t->at] >= '0' && t->in[t->at] <= '9') || t->in[t->at] == ','))
		t->at++;
	if (t->at >= t->len || t->in[t->at] != '}')
		return false;
	t->at++;
	if (t->at < t->len && (t->in[t->at] == '+' || t->in[t->at] == '?'))
		return false;
	emit(t, t->in + from, t->at - from);
	return true;
}

/* false: t->at is at or just after the unsupported construct. */
static bool
translate(struct translation *t)
{
	while (t->at < t->len) {
		char c = t->in[t->at];
		bool ok = true;

		switch (c) {
		case '\\':
			t->at++;
			ok = escape(t, false);
			break;
		case '[':
			ok = class(t);
			break;
		case '(':
			ok = group(t);
			break;
		case '{':
			ok = repeat(t);
			break;
		case '^': case '$': case '\0': case '}': case ']':
			ok = false;
			break;
		default:
			emit(t, &c, 1);
			t->at++;
		}
		if (!ok)
			return false;
	}
	return true;
}

static int
compile(struct stage *s, const char *pattern, size_t len, struct err_note *note)
{
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	PCRE2_SIZE offset;
	uint32_t may_be_empty = 0;
	int code, rc = 0;
	PCRE2_UCHAR text[160];

	if (context == NULL)
		return ENOMEM;
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	s->code = pcre2_compile((PCRE2_SPTR)pattern, len, PCRE2_UTF | PCRE2_UCP, &code, &offset, context);
	pcre2_compile_context_free(context);
	if (s->code == NULL) {
		pcre2_get_error_message(code, text, sizeof text);
		err_note_found(note, "%s", (const char *)text);
		return ERR_FORMAT;
	}
	pcre2_pattern_info(s->code, PCRE2_INFO_MATCHEMPTY, &may_be_empty);
	if (may_be_empty) {
		err_note_found(note, "one that can match nothing at all");
		rc = ERR_UNSUPPORTED;
		goto out;
	}
	/* Without executable memory (PCRE2_ERROR_NOMEMORY, _JIT_BADOPTION) matching is only slower. */
	pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE);
out:
	if (rc != 0) {
		pcre2_code_free(s->code);
		s->code = NULL;
	}
	return rc;
}

int
tokenizer__stage_split(struct stage *s, const char *pattern, const char *place, const char *name, struct err_note *note)
{
	struct translation t = {.in = pattern, .len = strlen(pattern)};
	int rc = 0;

	err_expect_at(note, ERR_UNSUPPORTED, "%s", "%s", "a regular expression", "", name, place);
	if (t.len == 0 || t.len > MAX_PATTERN_BYTES) {
		err_note_found(note, "one of %zu bytes", t.len);
		return ERR_UNSUPPORTED;
	}
	if ((t.out = malloc(t.len * MAX_GROWTH)) == NULL)
		return ENOMEM;
	s->kind = STAGE_SPLIT;
	s->pattern = pattern;
	if (!translate(&t)) {
		rc = ERR_UNSUPPORTED;
		err_note_expected(note, "a regular expression of literals, classes, \\s \\S \\d \\p{general category}, groups, lookaround");
		err_note_found(note, "'%.40s' at byte %zu of '%.100s'", pattern + (t.at > 0 ? t.at - 1 : 0), t.at, pattern);
	} else {
		rc = compile(s, t.out, t.n, note);
	}
	free(t.out);
	return rc;
}

void
tokenizer__stage_free(struct stage *s)
{
	if (s->kind == STAGE_SPLIT && s->code != NULL)
		pcre2_code_free(s->code);
	s->code = NULL;
}

struct split_scratch *
tokenizer__split_scratch_new(void)
{
	struct split_scratch *s = calloc(1, sizeof *s);
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
	tokenizer__split_scratch_destroy(&s);
	return NULL;
}

void
tokenizer__split_scratch_destroy(struct split_scratch **s)
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
prefix_space(struct tokenizer_encoder *enc, size_t k, const unsigned char *p, size_t n)
{
	struct tokenizer_bytes *b = &enc->prefixed[k];
	int rc;

	if (n == 0 || p[0] == ' ')
		return tokenizer__split(enc, k + 1, p, n);
	b->n = 0;
	if ((rc = tokenizer__bytes_reserve(b, n + 1)) != 0)
		return err_note_set(enc->note, rc, "a text of %zu bytes", n);
	b->bytes[0] = ' ';
	memcpy(b->bytes + 1, p, n);
	b->n = n + 1;
	return tokenizer__split(enc, k + 1, b->bytes, b->n);
}

static int
match_failed(struct tokenizer_encoder *enc, size_t k, int code, size_t at)
{
	PCRE2_UCHAR text[160];
	int rc = code == PCRE2_ERROR_NOMEMORY ? ENOMEM : code == PCRE2_ERROR_MATCHLIMIT || code == PCRE2_ERROR_DEPTHLIMIT ||
	    code == PCRE2_ERROR_HEAPLIMIT || code == PCRE2_ERROR_JIT_STACKLIMIT ? ERR_RANGE : ERR_LIBRARY;

	pcre2_get_error_message(code, text, sizeof text);
	return err_expect_at(enc->note, rc, "text", "near byte %zu of a part", "text that '%.100s' can split",
	    "%s", at, enc->tok->stage[k].pattern, (const char *)text);
}

int
tokenizer__split(struct tokenizer_encoder *enc, size_t k, const unsigned char *p, size_t n)
{
	const struct stage *s = &enc->tok->stage[k];
	pcre2_match_data *match;
	PCRE2_SIZE *ends;
	size_t at = 0;
	int code, rc;

	if (k == enc->tok->n_stages)
		return tokenizer__word(enc, p, n);
	if (s->kind == STAGE_PREFIX_SPACE)
		return prefix_space(enc, k, p, n);
	match = enc->split->match[k];
	ends = pcre2_get_ovector_pointer(match);
	while (at < n) {
		size_t from, to;

		code = pcre2_match(s->code, p, n, at, PCRE2_NO_UTF_CHECK, match, enc->split->context);
		if (code == PCRE2_ERROR_JIT_STACKLIMIT)
			code = pcre2_match(s->code, p, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, enc->split->context);
		if (code == PCRE2_ERROR_NOMATCH)
			break;
		if (code < 0)
			return match_failed(enc, k, code, at);
		from = ends[0];
		to = ends[1];
		if (from < at || to <= from || to > n)		/* a lookbehind's \K and the like: refused at load */
			return match_failed(enc, k, PCRE2_ERROR_INTERNAL, at);
		/* Behaviour "isolated": the text between two matches is a word too. */
		if (from > at && (rc = tokenizer__split(enc, k + 1, p + at, from - at)) != 0)
			return rc;
		if ((rc = tokenizer__split(enc, k + 1, p + from, to - from)) != 0)
			return rc;
		at = to;
	}
	return at < n ? tokenizer__split(enc, k + 1, p + at, n - at) : 0;
}
