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

/*
 * The patterns in tokenizer.json are written for Oniguruma with Ruby's syntax and Unicode classes; PCRE2
 * reads most of them alike but gives some a different meaning. So a pattern is translated: constructs with
 * the same meaning are copied, others are rewritten (white space: PCRE2's \s contains U+180E, which is not
 * white space), and the rest is refused with its place.
 *
 * Characters whose properties may differ in PCRE2's version of Unicode are listed after its own class. PCRE2
 * tries the whole list, up to a hundred characters, for each character that its class does not match.
 * They are rare: a pattern is also compiled without the lists, which gives the same matches in a text that
 * has none of the characters listed.
 */
#define WHITE "\\p{Z}\\x09-\\x0d\\x{85}"
/*
 * Oniguruma's \w beside letters, marks and decimal digits: letter-like numbers and symbols; without brackets
 * around it, WORD_LATIN too.
 */
#define WORD_MORE \
	"\\x{16ee}-\\x{16f0}\\x{2160}-\\x{2182}\\x{2185}-\\x{2188}\\x{24b6}-\\x{24e9}\\x{3007}\\x{3021}-\\x{3029}" \
	"\\x{3038}-\\x{303a}\\x{a6e6}-\\x{a6ef}\\x{10140}-\\x{10174}\\x{10341}\\x{1034a}\\x{103d1}-\\x{103d5}" \
	"\\x{12400}-\\x{1246e}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define WORD_LATIN "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#if PCRE2_MAJOR > 10 || PCRE2_MINOR >= 40
#define SCRIPT "\\p{sc:" /* without it the name is that of the script extensions */
#else
#define SCRIPT "\\p{"
#endif
#define MAX_PATTERN_BYTES 16384u
#define MAX_NESTED 32
#define JIT_STACK_MIN (32u << 10)
#define JIT_STACK_MAX (8u << 20)
#define MATCH_LIMIT 200000000u
#define HEAP_LIMIT_KIB (256u << 10)

#define WORD_CATEGORIES "L M Nd Pc"

struct range {
	uint32_t first, last;
};

struct matcher {
	pcre2_code *code;
	bool jit;
};

struct regex {
	struct matcher full, plain; /* plain: code is NULL where nothing is listed */
	struct range *rare; /* sorted */
	size_t n_rare;
	unsigned char lowest; /* first byte of the first of them */
};

struct regex_scratch {
	pcre2_match_data *match[MAX_STAGES];
	pcre2_match_context *context;
	pcre2_jit_stack *jit_stack;
};

struct translation {
	const char *in;
	size_t at, len;
	struct tokenizer_bytes out;
	size_t atom; /* where in out the last atom begins, for what repeats it */
	size_t opened[MAX_NESTED]; /* where in out a group begins */
	bool fold[MAX_NESTED]; /* letters match without case */
	size_t depth;
	bool no_memory, plain; /* plain: what would be listed goes to `rare` */
	struct range *rare;
	size_t n_rare, rare_cap;
	/* For tokenizer__regex_covers. */
	struct tokenizer_bytes
	    free; /* "|" and each outermost alternative that asks for nothing around its match */
	size_t alternative; /* where in out the one at hand begins */
	bool bound,
	    atom_is_group; /* it does ask, or keeps what it took (possessive); the last atom is a group */
};

static void
emit_to(struct translation *t, struct tokenizer_bytes *to, const char *s, size_t n)
{
	if (t->no_memory || (t->no_memory = tokenizer__bytes_reserve(to, n + 1) != 0))
		return;
	memcpy(to->bytes + to->n, s, n);
	to->bytes[to->n += n] = '\0';
}

static void
emit_text(struct translation *t, struct tokenizer_bytes *to, const char *s)
{
	if (!t->no_memory)		/* s may be of a buffer that there is none of then */
		emit_to(t, to, s, strlen(s));
}

/* Puts s before what out has from `place` on. */
static void
emit_before(struct translation *t, size_t place, const char *s)
{
	size_t n = strlen(s);

	emit_to(t, &t->out, s, n);
	if (t->no_memory)
		return;
	memmove(t->out.bytes + place + n, t->out.bytes + place, t->out.n - n - place);
	memcpy(t->out.bytes + place, s, n);
}

static void
end_alternative(struct translation *t)
{
	if (!t->bound && t->out.n > t->alternative) {
		emit_text(t, &t->free, "|");
		emit_to(t, &t->free, (const char *)t->out.bytes + t->alternative, t->out.n - t->alternative);
	}
	t->bound = false;
}

/* A set of characters as the inside of brackets; negated: all others. */
struct set {
	struct tokenizer_bytes text;
	bool negated;
};

/* list: \\x{A} and \\x{A}-\\x{B}, after each other; NULL: none (Cs, which no UTF-8 has). */
static void
set_list(struct translation *t, struct set *set, const char *list)
{
	if (list == NULL)
		return;
	if (!t->plain)
		emit_text(t, &set->text, list);
	while (t->plain && *list != '\0') {
		struct range r;
		char *end;

		if ((t->no_memory = t->no_memory ||
			     mem_grow((void **)&t->rare, &t->rare_cap, t->n_rare + 1, sizeof r) != 0))
			return;
		r.first = r.last = (uint32_t)strtoul(list + strlen("\\x{"), &end, 16);
		if (end[1] == '-')
			r.last = (uint32_t)strtoul(end + strlen("}-\\x{"), &end, 16);
		t->rare[t->n_rare++] = r;
		list = end + 1;
	}
}

/* General categories; one letter is all that begin with it. */
static void
set_categories(struct translation *t, struct set *set, const char *names)
{
	static const char *const groups[] = {
	    "Lu Ll Lt Lm Lo", "Mn Mc Me", "Nd Nl No", "Pc Pd Ps Pe Pi Pf Po", "Sm Sc Sk So", "Zs Zl Zp"};

	for (; *names != '\0'; names += strcspn(names, " "), names += *names == ' ') {
		size_t n = strcspn(names, " "), i;
		const char *parts = names, *end = names + n, *name;
		bool script;

		emit_text(t, &set->text, "\\p{");
		emit_to(t, &set->text, names, n);
		emit_text(t, &set->text, "}");
		for (i = 0; n == 1 && i < sizeof groups / sizeof groups[0]; i++) {
			if (groups[i][0] == names[0])
				end = (parts = groups[i]) + strlen(groups[i]);
		}
		for (; parts < end; parts += 3)
			set_list(t, set, tokenizer__new_of(parts, 2, &name, &script));
	}
}

/* \p{..} and \P{..}: general categories, one letter or two, and scripts. t->at is at the p. */
static bool
property(struct translation *t, struct set *set)
{
	static const struct {
		const char *name, *parts;
		bool others; /* all but these: PCRE2 may take a newer character for one that is not assigned */
	} groups[] = {
	    {"L", "L", false},
	    {"M", "M", false},
	    {"N", "N", false},
	    {"P", "P", false},
	    {"S", "S", false},
	    {"Z", "Z", false},
	    {"C", "L M N P S Z", true},
	    {"Cn", "L M N P S Z Cc Cf Cs Co", true},
	};
	const char *p = t->in + t->at, *end = memchr(p, '}', t->len - t->at), *start, *name, *more;
	size_t n, i;
	bool script;

	if (t->len - t->at < 4 || p[1] != '{' || end == NULL)
		return false;
	start = p + 2 + (p[2] == '^');
	n = (size_t)(end - start);
	set->negated = (p[0] == 'P') != (p[2] == '^');
	for (i = 0; i < sizeof groups / sizeof groups[0]; i++) {
		if (strlen(groups[i].name) != n || memcmp(groups[i].name, start, n) != 0)
			continue;
		t->at += (size_t)(end + 1 - p);
		set->negated ^= groups[i].others;
		set_categories(t, set, groups[i].parts);
		return true;
	}
	if (n == 2 && memcmp(start, "Cs", 2) == 0) {
		t->at += (size_t)(end + 1 - p);
		emit_text(t, &set->text, "\\p{Cs}");
		return true;
	}
	if ((more = tokenizer__new_of(start, n, &name, &script)) == NULL)
		return false;
	t->at += (size_t)(end + 1 - p);
	emit_text(t, &set->text, script ? SCRIPT : "\\p{");
	emit_text(t, &set->text, name);
	emit_text(t, &set->text, "}");
	set_list(t, set, more);
	return true;
}

/* Hexadecimal digits at t->at, from lo to hi of them, as \x{..}. */
static bool
code_point(struct translation *t, size_t lo, size_t hi, struct tokenizer_bytes *to)
{
	size_t n = 0;

	while (n < hi && t->at + n < t->len && strchr("0123456789abcdefABCDEF", t->in[t->at + n]) != NULL)
		n++;
	if (n < lo)
		return false;
	emit_text(t, to, "\\x{");
	emit_to(t, to, t->in + t->at, n);
	emit_text(t, to, "}");
	t->at += n;
	return true;
}

/* What follows a backslash and stands for characters; in_class: between brackets. t->at is after the backslash. */
static bool
escape(struct translation *t, struct set *set, bool in_class)
{
	unsigned char c = t->at < t->len ? (unsigned char)t->in[t->at] : '\0';
	char two[3] = {'\\', (char)c, '\0'};

	switch (c) {
	case 'r':
	case 'n':
	case 't':
	case 'f':
	case 'a':
	case 'e':
		t->at++;
		emit_text(t, &set->text, two);
		return true;
	case 'v':
		t->at++;
		emit_text(t, &set->text, "\\x{b}");
		return true;
	case 's':
	case 'S':
		t->at++;
		set->negated = c == 'S';
		emit_text(t, &set->text, WHITE);
		return true;
	case 'd':
	case 'D':
		t->at++;
		set->negated = c == 'D';
		set_categories(t, set, "Nd");
		return true;
	case 'w':
	case 'W':
		t->at++;
		set->negated = c == 'W';
		set_categories(t, set, WORD_CATEGORIES);
		emit_text(t, &set->text, in_class ? "" : WORD_LATIN);
		set_list(t, set, WORD_MORE);
		return true;
	case 'h':
	case 'H':
		t->at++;
		set->negated = c == 'H';
		emit_text(t, &set->text, "0-9a-fA-F");
		return true;
	case 'p':
	case 'P':
		return property(t, set);
	case 'u':
		t->at++;
		return code_point(t, 4, 4, &set->text);
	case 'x':
		t->at++;
		if (t->at >= t->len || t->in[t->at] != '{')
			return t->at < t->len && t->in[t->at] >= '0' && t->in[t->at] <= '7' &&
			    code_point(t, 2, 2, &set->text);
		t->at++;
		return code_point(t, 1, 6, &set->text) && t->at < t->len && t->in[t->at++] == '}';
	default:
		if (c < 0x20 || c == 0x7f || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c >= '0' && c <= '9'))
			return false;
		if (c < 0x80)
			emit_text(t, &set->text, "\\");
		emit_to(t, &set->text, two + 1, 1);
		t->at++;
		return true;
	}
}

/*
 * One side of && in brackets: the characters listed, and expressions for one character each that cannot be
 * listed with them.
 */
struct operand {
	struct set set;
	struct tokenizer_bytes others; /* "|" before each */
};

/* The operand as an expression for one character, after `to`. */
static void
operand_text(struct translation *t, const struct operand *o, struct tokenizer_bytes *to)
{
	bool listed = o->set.text.n > 0, others = o->others.n > 0;

	if (!listed && !others) {
		emit_text(t, to, "(?!)");
		return;
	}
	emit_text(t, to, others ? "(?:" : "");
	if (listed) {
		emit_text(t, to, "[");
		emit_text(t, to, (const char *)o->set.text.bytes);
		emit_text(t, to, "]");
	}
	if (others) {
		emit_text(t, to, (const char *)o->others.bytes + !listed);
		emit_text(t, to, ")");
	}
}

static bool class(
    struct translation *t, struct set *simple, struct tokenizer_bytes *expression, size_t depth);

/* What one operand lists, up to && or ]. */
static bool
class_items(struct translation *t, struct operand *o, size_t first, size_t depth)
{
	while (t->at < t->len) {
		char c = t->in[t->at];
		struct set set = {0};
		struct tokenizer_bytes expression = {0};
		bool ok = true;

		if ((c == ']' && t->at > first) ||
		    (c == '&' && t->at + 1 < t->len && t->in[t->at + 1] == '&'))
			return true;
		if (c == '[') {
			static const struct {
				const char *name, *text;
			} posix[] = {{"[:space:]", WHITE}, {"[:digit:]", "\\p{Nd}"}};
			size_t i;

			for (i = 0; i < 2 && strncmp(t->in + t->at, posix[i].name, 9) != 0; i++)
				;
			if (i < 2) {
				t->at += 9;
				emit_text(t, &set.text, posix[i].text);
				if (i == 1) {
					set.text.n = 0;
					set_categories(t, &set, "Nd");
				}
			} else if (t->at + 1 < t->len && t->in[t->at + 1] == ':') {
				return false;
			} else {
				ok = class(t, &set, &expression, depth + 1);
			}
		} else if (c == '\\' && t->at + 1 < t->len && t->in[t->at + 1] == 'b') {
			t->at += 2;
			emit_text(t, &set.text, "\\x{8}");
		} else if (c == '\\') {
			t->at++;
			ok = escape(t, &set, true);
		} else {
			/* A - at either end is no range, whatever other set this one becomes part of. */
			emit_text(t, &set.text,
			    c == ']' ||
				    (c == '-' && (t->at == first || strncmp(t->in + t->at, "-]", 2) == 0)) ?
				"\\" :
				"");
			emit_to(t, &set.text, &c, 1);
			t->at++;
		}
		if (ok && expression.n > 0) {
			emit_text(t, &o->others, "|");
			emit_text(t, &o->others, (const char *)expression.bytes);
		} else if (ok && set.negated) {
			emit_text(t, &o->others, "|[^");
			emit_text(t, &o->others, (const char *)set.text.bytes);
			emit_text(t, &o->others, "]");
		} else if (ok && set.text.n > 0) {
			emit_text(t, &o->set.text, (const char *)set.text.bytes);
		}
		free(set.text.bytes);
		free(expression.bytes);
		if (!ok)
			return false;
	}
	return false;
}

/*
 * Brackets, t->at is at the first. What can be written as brackets again goes to `simple` (without them),
 * anything else to `expression`: sets within sets are their union, and [A&&B] is (?=[A])[B].
 */
static bool class(struct translation *t, struct set *simple, struct tokenizer_bytes *expression, size_t depth)
{
	struct operand o = {0};
	struct tokenizer_bytes before = {0}, last = {0};
	bool negated, ok = depth < MAX_NESTED, more = true;

	t->at++;
	negated = ok && t->at < t->len && t->in[t->at] == '^';
	t->at += negated;
	while (ok && more) {
		if (!(ok = class_items(t, &o, last.n > 0 ? 0 : t->at, depth)))
			break;
		more = t->in[t->at] == '&';
		t->at += more ? 2 : 1;
		if (!more && before.n == 0 && last.n == 0 && o.others.n == 0 && o.set.text.n > 0) {
			simple->text = o.set.text;
			simple->negated = negated;
			o.set.text = (struct tokenizer_bytes){0};
			goto out;
		}
		if (last.n > 0) {
			emit_text(t, &before, "(?=");
			emit_text(t, &before, (const char *)last.bytes);
			emit_text(t, &before, ")");
			last.n = 0;
		}
		operand_text(t, &o, &last);
		o.set.text.n = o.others.n = 0;
	}
	if (!ok || t->no_memory)
		goto out;
	emit_text(t, expression, negated ? "(?:(?!" : "(?:");
	if (before.n > 0)
		emit_text(t, expression, (const char *)before.bytes);
	emit_text(t, expression, (const char *)last.bytes);
	emit_text(t, expression, negated ? ")(?s:.))" : ")");
out:
	free(o.set.text.bytes);
	free(o.others.bytes);
	free(before.bytes);
	free(last.bytes);
	return ok;
}

static void
atom_set(struct translation *t, const struct set *set, bool brackets)
{
	t->atom = t->out.n;
	t->atom_is_group = false;
	if (t->no_memory)
		return;
	emit_text(t, &t->out, set->negated ? "[^" : brackets ? "[" : "");
	emit_text(t, &t->out, (const char *)set->text.bytes);
	emit_text(t, &t->out, set->negated || brackets ? "]" : "");
}

static bool
brackets(struct translation *t)
{
	struct set set = {0};
	struct tokenizer_bytes expression = {0};
	bool ok = class(t, &set, &expression, 0);

	if (ok && expression.n > 0) {
		t->atom = t->out.n;
		t->atom_is_group = false;
		emit_text(t, &t->out, (const char *)expression.bytes);
	} else if (ok && !t->no_memory) {
		atom_set(t, &set, true);
	}
	free(set.text.bytes);
	free(expression.bytes);
	return ok;
}

/* t->at is at the backslash. */
static bool
backslash(struct translation *t)
{
	static const struct {
		char name;
		const char *text;
	} places[] = {{'A', "\\A"}, {'z', "\\z"}, {'Z', "(?=\\n?\\z)"}};
	struct set set = {0};
	char c = t->at + 1 < t->len ? t->in[t->at + 1] : '\0';
	size_t i;
	bool ok;

	t->at++;
	for (i = 0; i < sizeof places / sizeof places[0]; i++) {
		if (c != places[i].name)
			continue;
		t->at++;
		t->bound = true;
		t->atom = t->out.n;
		emit_text(t, &t->out, places[i].text);
		return true;
	}
	if (c == 'b' || c == 'B') {
		static const char *const before[] = {"(?<!", "(?<="}, *const after[] = {"(?=", "(?!"};
		const char *w;

		t->at++;
		t->bound = true;
		set_categories(t, &set, WORD_CATEGORIES);
		emit_text(t, &set.text, WORD_LATIN);
		set_list(t, &set, WORD_MORE);
		emit_text(t, &set.text, "]");
		t->atom = t->out.n;
		w = t->no_memory ? "" : (const char *)set.text.bytes;
		emit_text(t, &t->out, "(?:");
		for (i = 0; i < 2; i++) {
			emit_text(t, &t->out, before[i]);
			emit_text(t, &t->out, "[");
			emit_text(t, &t->out, w);
			emit_text(t, &t->out, ")");
			emit_text(t, &t->out, after[c == 'b' ? i : 1 - i]);
			emit_text(t, &t->out, "[");
			emit_text(t, &t->out, w);
			emit_text(t, &t->out, i == 0 ? ")|" : "))");
		}
		free(set.text.bytes);
		return true;
	}
	ok = escape(t, &set, false);
	if (ok && set.text.n > 0)
		atom_set(t, &set, strchr("sSdDwWhHpP", c) != NULL);
	free(set.text.bytes);
	return ok;
}

static bool
group(struct translation *t)
{
	static const struct {
		const char *in, *out;
		int fold; /* 0: as around it */
	} kinds[] = {{"(?:", "(?:", 0}, {"(?i:", "(?i:", 1}, {"(?-i:", "(?-i:", -1}, {"(?m:", "(?s:", 0},
	    {"(?=", "(?=", 0}, {"(?!", "(?!", 0}, {"(?<=", "(?<=", 0}, {"(?<!", "(?<!", 0},
	    {"(?>", "(?>", 0}};
	size_t i, n;

	if (t->depth + 1 == MAX_NESTED)
		return false;
	t->opened[t->depth] = t->out.n;
	t->fold[t->depth + 1] = t->fold[t->depth];
	if (t->at + 1 >= t->len || (t->in[t->at + 1] != '?' && t->in[t->at + 1] != '*')) {
		emit_text(t, &t->out, "(?:");
		t->depth++;
		t->at++;
		return true;
	}
	for (i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		n = strlen(kinds[i].in);
		if (t->len - t->at < n || memcmp(t->in + t->at, kinds[i].in, n) != 0)
			continue;
		emit_text(t, &t->out, kinds[i].out);
		t->at += n;
		t->bound |= strchr("=!<>", kinds[i].in[2]) != NULL;
		if (kinds[i].fold != 0)
			t->fold[t->depth + 1] = kinds[i].fold > 0;
		t->depth++;
		return true;
	}
	return false;
}

/*
 * {n}, {n,}, {n,m}, {,m}; other braces are characters. A + after it repeats all of it in Ruby, a ? after {n}
 * makes it optional.
 */
static bool
repeat(struct translation *t)
{
	size_t i = t->at + 1;
	unsigned lo = 0, hi = 0;
	bool has_lo = false, has_hi = false, comma;
	char text[48], next;

	for (; i < t->len && t->in[i] >= '0' && t->in[i] <= '9' && lo < 100000; i++, has_lo = true)
		lo = 10 * lo + (unsigned)(t->in[i] - '0');
	if ((comma = i < t->len && t->in[i] == ','))
		i++;
	for (; comma && i < t->len && t->in[i] >= '0' && t->in[i] <= '9' && hi < 100000; i++, has_hi = true)
		hi = 10 * hi + (unsigned)(t->in[i] - '0');
	if (i >= t->len || t->in[i] != '}' || (!has_lo && !has_hi)) {
		t->atom = t->out.n;
		emit_text(t, &t->out, "\\{");
		t->at++;
		return true;
	}
	if (has_hi && hi < lo) /* possessive there */
		return false;
	if (!comma)
		snprintf(text, sizeof text, "{%u}", lo);
	else if (has_hi)
		snprintf(text, sizeof text, "{%u,%u}", lo, hi);
	else
		snprintf(text, sizeof text, "{%u,}", lo);
	t->at = i + 1;
	emit_text(t, &t->out, text);
	next = t->at < t->len ? t->in[t->at] : '\0';
	if (next == '+' || next == '*' || (next == '?' && !comma)) {
		emit_before(t, t->atom, "(?:");
		emit_text(t, &t->out, next == '+' ? ")+" : next == '*' ? ")*" : ")?");
		t->at++;
		return t->at >= t->len || strchr("+*?{", t->in[t->at]) == NULL;
	}
	return true;
}

/* In (?i: ) some pairs of letters match a single character in Oniguruma (ss and U+00DF), in PCRE2 none does. */
static bool
literal(struct translation *t)
{
	static const char pairs[] = "ss ff fi fl st";
	unsigned char c = (unsigned char)t->in[t->at];
	size_t n = tokenizer__utf8_len((const unsigned char *)t->in + t->at, t->len - t->at);

	if (n == 0)
		return false;
	if (t->fold[t->depth] && n > 1 && strncmp(t->in + t->at, "\xe2\x80\x99", 3) != 0)
		return false;
	if (t->fold[t->depth] && t->at > 0 && n == 1) {
		char two[3] = {(char)(t->in[t->at - 1] | 32), (char)(c | 32), '\0'};

		if (two[0] >= 'a' && two[0] <= 'z' && strstr(pairs, two) != NULL)
			return false;
	}
	t->atom = t->out.n;
	t->atom_is_group = false;
	emit_to(t, &t->out, t->in + t->at, n);
	t->at += n;
	return true;
}

/* false: t->at is at or just after the unsupported construct. */
static bool
translate(struct translation *t)
{
	bool whole = t->len >= 4 && memcmp(t->in, "(?i)", 4) == 0;

	if (whole) {
		emit_text(t, &t->out, "(?i:");
		t->fold[0] = true;
		t->at = 4;
		t->bound = true;
	}
	while (t->at < t->len && !t->no_memory) {
		char c = t->in[t->at];
		bool ok = true;

		switch (c) {
		case '\\':
			ok = backslash(t);
			break;
		case '[':
			ok = brackets(t);
			break;
		case '(':
			ok = group(t);
			break;
		case ')':
			if ((ok = t->depth > 0)) {
				t->atom = t->opened[--t->depth];
				t->atom_is_group = true;
				emit_text(t, &t->out, ")");
				t->at++;
			}
			break;
		case '{':
			ok = repeat(t);
			break;
		case '^':
		case '$':
		case '}':
		case ']':
			t->atom = t->out.n;
			t->atom_is_group = false;
			t->bound |= c == '^' || c == '$';
			emit_text(t, &t->out,
			    c == '^'	 ? "(?m:^)" :
				c == '$' ? "(?m:$)" :
				c == '}' ? "\\}" :
					   "\\]");
			t->at++;
			break;
		case '\0':
			ok = false;
			break;
		case '|':
		case '.':
		case '?':
		case '*':
		case '+':
			if (c == '.') {
				t->atom = t->out.n;
				t->atom_is_group = false;
			}
			t->bound |= c == '+' && t->atom_is_group && strchr("+*?", t->in[t->at - 1]) != NULL;
			if (c == '|' && t->depth == 0)
				end_alternative(t);
			emit_to(t, &t->out, &c, 1);
			t->at++;
			if (c == '|' && t->depth == 0)
				t->alternative = t->out.n;
			break;
		default:
			ok = literal(t);
		}
		if (!ok)
			return false;
	}
	end_alternative(t);
	if (whole)
		emit_text(t, &t->out, ")");
	return true;
}

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
	/* Without executable memory (PCRE2_ERROR_NOMEMORY, _JIT_BADOPTION) matching is only slower. */
	m->jit = pcre2_jit_compile(m->code, PCRE2_JIT_COMPLETE) == 0;
	return 0;
}

static int
by_first(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->first > y->first) - (x->first < y->first);
}

/* The same pattern without lists. Ranges may overlap, as a list may be there twice: sorted, they are joined. */
static int
compile_plain(struct regex *re, const char *pattern, struct err_note *note)
{
	struct translation t = {.in = pattern, .len = strlen(pattern), .plain = true};
	unsigned char first[4];
	bool may_be_empty;
	size_t i, n = 0;
	int rc = 0;

	if (!translate(&t) || t.no_memory) {
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
	if (!translate(&t)) {
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
 * An alternative that matches one character alone, and neither looks around it nor keeps what it took,
 * matches something wherever the character stands: nothing can be left between two matches if each character
 * has one.
 */
bool
tokenizer__regex_covers(const char *pattern)
{
	struct translation t = {.in = pattern, .len = strlen(pattern)};
	struct tokenizer_bytes all = {0};
	pcre2_match_data *match = pcre2_match_data_create(1, NULL);
	bool covers = match != NULL && translate(&t) && t.free.n > 0 && !t.no_memory, may_be_empty;
	struct matcher m = {0};
	uint32_t c;

	if (covers) {
		emit_text(&t, &all, "\\A(?:");
		emit_text(&t, &all, (const char *)t.free.bytes + 1);
		emit_text(&t, &all, ")\\z");
		covers = !t.no_memory &&
		    compile(&m, &may_be_empty, (const char *)all.bytes, all.n, NULL) == 0;
	}
	for (c = 0; covers && c < 0x110000; c += c == 0xd7ff ? 0x801 : 1) {
		unsigned char utf8[4];
		size_t n = (size_t)utf8proc_encode_char((utf8proc_int32_t)c, utf8);

		covers = pcre2_match(m.code, utf8, n, 0, PCRE2_NO_UTF_CHECK, match, NULL) >= 0;
	}
	pcre2_code_free(m.code);
	pcre2_match_data_free(match);
	free(t.out.bytes);
	free(t.free.bytes);
	free(all.bytes);
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
