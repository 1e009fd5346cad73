#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write common/data/tokenizer/unicode.c: the characters' classes as Hugging Face's library has them.

usage: unicode.py > ../../../common/data/tokenizer/unicode.c     (tokenizers 0.23.3, PCRE2 10.42, utf8proc 2.8; about ten minutes)

Each class is asked of the part of the library that uses it, for every code point. General categories and scripts are asked of
Oniguruma and of PCRE2; what the second lacks is written down. The same for lower case and the normal forms with utf8proc.
"""
import ctypes

from tokenizers import Regex, normalizers, pre_tokenizers

P = pre_tokenizers
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
SCRIPTS = """Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki Bopomofo
Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Common Coptic Cuneiform
Cypriot Cyrillic Deseret Devanagari Duployan Egyptian_Hieroglyphs Elbasan Ethiopic Georgian Glagolitic Gothic Grantha Greek
Gujarati Gurmukhi Han Hangul Hanunoo Hebrew Hiragana Inherited Javanese Kaithi Kannada Katakana Kayah_Li Khmer Lao Latin Lepcha
Limbu Lisu Malayalam Mandaic Meetei_Mayek Miao Mongolian Myanmar New_Tai_Lue Nko Ogham Ol_Chiki Old_Italic Old_Persian Oriya
Osage Phags_Pa Phoenician Rejang Runic Samaritan Saurashtra Sharada Shavian Sinhala Sundanese Syloti_Nagri Syriac Tagalog
Tagbanwa Tai_Le Tai_Tham Tai_Viet Tamil Tangut Telugu Thaana Thai Tibetan Tifinagh Ugaritic Vai Yi""".split()
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
PUNCT, NUMERIC, WORD, MARK, SPACE, INERT = (1 << i for i in range(6))


def text_of(points):
    return "".join(map(chr, points))


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def onig(pattern, text):
    return {ord(c) for s, _ in P.Split(Regex(pattern), "removed", invert=True).pre_tokenize_str(text) for c in s}


class Pcre2:
    def __init__(self):
        self.lib = ctypes.CDLL("libpcre2-8.so.0")
        self.lib.pcre2_compile_8.restype = self.lib.pcre2_match_data_create_8.restype = ctypes.c_void_p
        self.lib.pcre2_get_ovector_pointer_8.restype = ctypes.POINTER(ctypes.c_size_t)
        self.match = ctypes.c_void_p(self.lib.pcre2_match_data_create_8(1, None))

    def __call__(self, pattern, text):
        size, utf, ucp, no_check = ctypes.c_size_t, 0x80000, 0x20000, 0x40000000
        p, t = pattern.encode(), text.encode()
        code = ctypes.c_void_p(self.lib.pcre2_compile_8(p, size(len(p)), utf | ucp, ctypes.byref(ctypes.c_int()), ctypes.byref(size()),
                                                        None))
        place, out, at = self.lib.pcre2_get_ovector_pointer_8(self.match), set(), 0
        while self.lib.pcre2_match_8(code, t, size(len(t)), size(at), no_check, self.match, None) >= 0:
            out.update(map(ord, t[place[0]:place[1]].decode()))
            at = place[1]
        return out


class Utf8proc:
    OPTIONS = {"NFC": 2 | 8, "NFD": 2 | 16, "NFKC": 2 | 8 | 4, "NFKD": 2 | 16 | 4}

    def __init__(self):
        self.lib, self.libc = ctypes.CDLL("libutf8proc.so.2"), ctypes.CDLL(None)
        self.lib.utf8proc_map.restype = ctypes.c_ssize_t

    def __call__(self, form, text):
        out, b = ctypes.c_void_p(), text.encode()
        n = self.lib.utf8proc_map(b, ctypes.c_ssize_t(len(b)), ctypes.byref(out), self.OPTIONS[form])
        try:
            return ctypes.string_at(out, n).decode()
        finally:
            self.libc.free(out)

    def lower(self, c):
        return self.lib.utf8proc_tolower(c)

    def unassigned(self, c):
        return self.lib.utf8proc_category(c) == 0


def classes(utf8proc, assigned):
    """code point -> bits"""
    text, bits = text_of(POINTS), dict.fromkeys(POINTS, 0)

    def mark(points, bit):
        for c in points:
            bits[c] |= bit

    def left_by(pre):
        return {ord(c) for s, _ in pre.pre_tokenize_str(text) for c in s}

    mark(set(POINTS) - left_by(P.WhitespaceSplit()), SPACE)
    mark(set(POINTS) - left_by(P.Punctuation("removed")), PUNCT)
    after_a = "".join("a" + chr(c) for c in POINTS)
    mark({ord(s) for s, _ in P.Digits(individual_digits=True).pre_tokenize_str(after_a) if len(s) == 1 and s != "a"}, NUMERIC)
    mark({ord(c) for s, _ in P.Whitespace().pre_tokenize_str(after_a) if s[0] == "a" for c in s}, WORD)
    mark(set(POINTS) - set(map(ord, normalizers.StripAccents().normalize_str(text))), MARK)
    # Newer than the tables of the library's normal forms: neither decomposed nor moved there.
    for form in Utf8proc.OPTIONS:
        n = getattr(normalizers, form)()
        mark([c for c in POINTS if n.normalize_str(chr(c)) == chr(c) != utf8proc(form, chr(c))], INERT)
    n = normalizers.NFD()
    mark([c for c in POINTS if any(n.normalize_str(s) != utf8proc("NFD", s) for s in ("a\u0345" + chr(c), "a" + chr(c) + "\u0334"))], INERT)
    mark([0x11930, 0x11935], INERT)     # they compose to U+11938, newer too
    mark([c for c in assigned if utf8proc.unassigned(c)], INERT)
    return bits


def lower(utf8proc):
    n = normalizers.Lowercase()
    pairs = [(c, ord(low)) for c in POINTS if len(low := n.normalize_str(chr(c))) == 1 and ord(low) != utf8proc.lower(c)]
    runs = []
    for c, low in pairs:
        if runs and runs[-1][1] == c - 1 and low - c == runs[-1][2]:
            runs[-1][1] = c
        else:
            runs.append([c, c, low - c])
    return runs


def wrapped(items, indent="\t", sep=", "):
    lines, line = [], indent
    for item in items:
        if len(line.expandtabs(8)) + len(item) + 2 > 108:
            lines.append(line.rstrip())
            line = indent
        line += item + sep
    return "\n".join([*lines, line.rstrip()])


def in_class(points):
    return "".join(f"\\\\x{{{a:x}}}" + (f"-\\\\x{{{b:x}}}" if b > a else "") for a, b in ranges(points))


def c_strings(s, first, indent="\t    "):
    """A string literal of any length, cut between escapes."""
    out, line = [], first + '"'
    for part in s.replace("\\\\x", "\0\\\\x").split("\0"):
        if len(line.expandtabs(8)) + len(part) > 106:
            out.append(line + '"')
            line = indent + '"'
        line += part
    return "\n".join([*out, line + '"'])


def main():
    pcre2, utf8proc = Pcre2(), Utf8proc()
    text = text_of(POINTS)
    known, new = {}, []
    for name in CATEGORIES:
        known[name] = onig(rf"\p{{{name}}}+", text)
        new.append((name, "false", known[name] - pcre2(rf"\p{{{name}}}+", text)))
    some = text_of([c for c in POINTS if c < 0x32400 or 0xE0000 <= c < 0xE0200])
    new += [(name, "true", onig(rf"\p{{{name}}}+", some) - pcre2(rf"\p{{sc:{name}}}+", some)) for name in SCRIPTS]
    bits = classes(utf8proc, set().union(*known.values()))
    runs = []
    for c in POINTS:
        if c >= 128 and bits[c] and runs and runs[-1][1] == c - 1 and runs[-1][2] == bits[c]:
            runs[-1][1] = c
        elif c >= 128 and bits[c]:
            runs.append([c, c, bits[c]])
    print("""/* SPDX-License-Identifier: Apache-2.0 */
/* Made by tests/golden/tokenizer/unicode.py: do not edit. What the tables are for: tokenizer_internal.h and README.md. */
#include "data/tokenizer/tokenizer_internal.h"

#include <string.h>

static const struct {
	uint32_t first, last, bits;
} runs[] = {""")
    print(wrapped([f"{{0x{a:x}, 0x{b:x}, {v}}}" for a, b, v in runs]))
    print("};\n\nstatic const uint8_t ascii[128] = {")
    print(wrapped([str(bits[c]) for c in range(128)]))
    print("};\n\nstatic const struct {\n\tuint32_t first, last;\n\tint32_t to_lower;\n} lower[] = {")
    print(wrapped([f"{{0x{a:x}, 0x{b:x}, {d}}}" for a, b, d in lower(utf8proc)]))
    print("};\n\nstatic const struct {\n\tconst char *name;\n\tbool script;\n\tconst char *more;\n} names[] = {")
    for name, script, points in new:
        print(c_strings(in_class(points), f'\t{{"{name}", {script}, ') + "},")
    print("""};

unsigned
tokenizer__char_class(uint32_t c)
{
	size_t lo = 0, hi = sizeof(runs) / sizeof(runs[0]);

	if (c < 128)
		return ascii[c];
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (c > runs[mid].last)
			lo = mid + 1;
		else if (c < runs[mid].first)
			hi = mid;
		else
			return runs[mid].bits;
	}
	return 0;
}

uint32_t
tokenizer__lower_new(uint32_t c)
{
	for (size_t i = 0; i < sizeof(lower) / sizeof(lower[0]); i++)
		if (c >= lower[i].first && c <= lower[i].last)
			return (uint32_t)((int32_t)c + lower[i].to_lower);
	return 0;
}

/* Case, '_', '-' and ' ' do not count, as in Oniguruma. */
static bool
same_name(const char *name, const char *p, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (strchr("_- ", p[i]) != NULL)
			continue;
		while (*name == '_')
			name++;
		if (*name == '\\0' || ((unsigned char)*name | 32) != ((unsigned char)p[i] | 32))
			return false;
		name++;
	}
	return *name == '\\0';
}

const char *
tokenizer__new_of(const char *p, size_t n, const char **name, bool *script)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!same_name(names[i].name, p, n))
			continue;
		*name = names[i].name;
		*script = names[i].script;
		return names[i].more;
	}
	return NULL;
}""")


if __name__ == "__main__":
    main()
