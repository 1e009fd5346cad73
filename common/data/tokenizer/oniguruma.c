/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokenizer/oniguruma.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/mem/mem.h"

/*
 * The patterns in tokenizer.json are written for Oniguruma with Ruby's syntax and Unicode classes. PCRE2
 * gives most constructs the same meaning, but not all. So a pattern is translated: constructs with the same
 * meaning are copied, others are rewritten (PCRE2's \s contains U+180E, which is not white space), and the
 * rest is rejected with its offset.
 *
 * Characters whose properties may differ in PCRE2's version of Unicode are listed after PCRE2's class. PCRE2
 * searches the whole list, of up to a hundred characters, for each character that its class does not match,
 * which is slow. These characters are rare, so a pattern is also compiled without the lists; this gives the
 * same matches in a text that has none of the listed characters.
 */
#define WHITE "\\p{Z}\\x09-\\x0d\\x{85}"
/*
 * The characters of Oniguruma's \w that are not letters, marks or decimal digits: letter-like numbers and
 * symbols; outside brackets WORD_LATIN too.
 */
#define WORD_MORE \
	"\\x{16ee}-\\x{16f0}\\x{2160}-\\x{2182}\\x{2185}-\\x{2188}\\x{24b6}-\\x{24e9}\\x{3007}\\x{3021}-\\x{3029}" \
	"\\x{3038}-\\x{303a}\\x{a6e6}-\\x{a6ef}\\x{10140}-\\x{10174}\\x{10341}\\x{1034a}\\x{103d1}-\\x{103d5}" \
	"\\x{12400}-\\x{1246e}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define WORD_LATIN "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#if PCRE2_MAJOR > 10 || PCRE2_MINOR >= 40
#define SCRIPT "\\p{sc:" /* without "sc:" the name means the script extensions */
#else
#define SCRIPT "\\p{"
#endif

#define WORD_CATEGORIES "L M Nd Pc"

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
	if (!t->no_memory)		/* else s may come from a buffer that was not allocated */
		emit_to(t, to, s, strlen(s));
}

/* Inserts s at offset `place` of out. */
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

/* A set of characters, as text for the inside of brackets; negated: all other characters. */
struct set {
	struct tokenizer_bytes text;
	bool negated;
};

/*
 * Adds a list of \\x{A} and \\x{A}-\\x{B} to the set; if plain, to t->rare. NULL: none (Cs is not in UTF-8).
 */
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

/* Adds general categories to the set; one letter means all that begin with it. */
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

/* Translates \p{..} and \P{..}: general categories of one or two letters, and scripts. t->at is at the p. */
static bool
property(struct translation *t, struct set *set)
{
	static const struct {
		const char *name, *parts;
		bool others; /* all but these: PCRE2 may take a newer character for unassigned */
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

/* Translates lo to hi hexadecimal digits at t->at to \x{..}. */
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

/* Translates an escape for characters; in_class: within brackets. t->at is after the backslash. */
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
 * One operand of && within brackets: a set of characters, and expressions for one character that cannot be
 * part of a set.
 */
struct operand {
	struct set set;
	struct tokenizer_bytes others; /* the expressions, "|" before each */
};

/* Appends the operand, as an expression for one character, to `to`. */
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

/* Translates the items of one operand, up to && or ]. */
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
			/* A - at either end is a character; it is escaped, because sets may be joined. */
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
 * Translates brackets; t->at is at the first one. If the result can be written as brackets, `simple` gets
 * their inside, else `expression` gets it: sets within a set are joined, and [A&&B] becomes (?=[A])[B].
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

/* Translates a backslash outside brackets, at t->at. */
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
		int fold; /* 1: fold case; -1: do not; 0: as outside */
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
 * Translates {n}, {n,}, {n,m}, {,m}; other braces are characters. In Ruby a + after it repeats the whole
 * again (it does not make it possessive), and a ? after {n} makes it optional.
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
	if (has_hi && hi < lo) /* Oniguruma takes it as possessive */
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

/*
 * Translates a literal character. Within (?i: ) Oniguruma matches some pairs of letters to a single character
 * (ss and U+00DF) and PCRE2 does not, so these are rejected.
 */
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

bool
oniguruma_translate(struct translation *t)
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
