# SPDX-License-Identifier: Apache-2.0
"""Pipelines of tokenizer.json: normalisers, pre-tokenizers, added tokens and patterns that real files have, one kind each.

Each is put around the model of kinds_model.json. make.py writes that, kinds.txt and kinds.tsv; tests/peers/tokenizer_hf.py compares live.
"""
import json
import pathlib

VOCAB = 4000
HERE = pathlib.Path(__file__).resolve().parent

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PLAIN = {**BYTES, "use_regex": False}
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
POSSESSIVE = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
KIMI = r"[\p{Han}]+|" + O200K.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]")
DEEPSEEK = [r"\p{N}{1,3}", r"[一-龥\u3040-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"]
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def normals(*types):
    return {"type": "Sequence", "normalizers": [{"type": t} if isinstance(t, str) else t for t in types]}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def regex(pattern, behavior="Isolated", invert=False):
    return {"pre_tokenizer": sequence(split(pattern, behavior, invert), PLAIN)}


def text(pattern, behavior):
    return {"pre_tokenizer": sequence(split(pattern, behavior, False, "String"), PLAIN)}


def token(content, n, **how):
    return {"id": VOCAB + n, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": False, **how}


def added(*tokens, **more):
    return {"added_tokens": [token("<|endoftext|>", -VOCAB, special=True), *tokens], "pre_tokenizer": BYTES, **more}


def digits(alone):
    return {"type": "Digits", "individual_digits": alone}


def punctuation(behavior):
    return {"type": "Punctuation", "behavior": behavior}


STRIP = {"type": "Strip", "strip_left": True, "strip_right": True}

KINDS = {
    # families
    "olmo2": regex(CL100K, "Removed", True),
    "stablelm2": regex(CL100K, "Removed", True) | {"normalizer": {"type": "NFC"}},
    "cl100k": regex(POSSESSIVE),
    "o200k": regex(O200K),
    "kimi": regex(KIMI),
    "deepseek": {"pre_tokenizer": sequence(*map(split, DEEPSEEK), PLAIN)},
    "bloom": regex(BLOOM),
    "falcon": {"pre_tokenizer": sequence(punctuation("Contiguous"), BYTES, digits(False), split("[0-9][0-9][0-9]"))},
    "starcoder": {"pre_tokenizer": sequence(digits(True), BYTES)},
    "thousands": {"pre_tokenizer": sequence(split(r"\d{1,3}(?=(?:\d{3})*\b)"), BYTES)},
    # behaviours
    **{f"regex_{b.lower()}{'_invert' * i}": regex(r"[aeiou \n]|\p{N}\p{L}*", b, bool(i)) for i in (0, 1) for b in
       ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")},
    **{f"text_{b.lower()}": text("e", b) for b in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")},
    "text_special": text(".", "Isolated"),
    **{f"punctuation_{b.lower()}": {"pre_tokenizer": sequence(punctuation(b), PLAIN)} for b in
       ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous")},
    "digits": {"pre_tokenizer": sequence(digits(False), PLAIN)},
    "digits_alone": {"pre_tokenizer": sequence(digits(True), PLAIN)},
    "whitespace": {"pre_tokenizer": sequence({"type": "Whitespace"}, PLAIN)},
    "whitespace_split": {"pre_tokenizer": sequence({"type": "WhitespaceSplit"}, PLAIN)},
    "delimiter": {"pre_tokenizer": sequence({"type": "CharDelimiterSplit", "delimiter": "-"}, PLAIN)},
    "bert": {"pre_tokenizer": sequence({"type": "BertPreTokenizer"}, BYTES)},
    "prefix_parts": {"pre_tokenizer": sequence(digits(True), {**BYTES, "add_prefix_space": True})},
    "bytes_digits": {"pre_tokenizer": sequence(BYTES, digits(True))},
    "bytes_split": {"pre_tokenizer": sequence(PLAIN, split(r"Ġ?\p{L}+|\p{N}", "Isolated"), punctuation("Isolated"))},
    "bytes_whitespace": {"pre_tokenizer": sequence({**PLAIN, "add_prefix_space": True}, {"type": "Whitespace"})},
    # patterns
    "boundary": regex(r"\b\w+\b"),
    "no_boundary": regex(r"\B.", "MergedWithPrevious"),
    "empty": regex(r"x*"),
    "empty_ahead": regex(r"(?=\p{Lu})", "MergedWithNext"),
    "line_start": regex(r"^\s*\S+"),
    "line_end": regex(r"\S+\s*$"),
    "whole_end": regex(r"\A\S+|\S+\Z|\s+\z"),
    "scripts": regex(r"\p{Han}+|\p{Hiragana}+|\p{Katakana}+|\p{Hangul}+|\p{Cyrillic}+|\p{Arabic}+|\p{Thai}+|\p{Latin}+|\p{Greek}+"
                     r"|\p{Devanagari}+|\p{Hebrew}+|\p{Common}+"),
    "no_scripts": regex(r"\P{Latin}+|\p{^Han}"),
    "categories": regex(r"\p{Lu}+|\p{Ll}+|\p{M}+|\p{Sc}|\p{Sm}|\p{So}|\p{Pd}|\p{Nl}|\p{No}|\p{Zs}+|\p{Cf}|\p{C}"),
    "unassigned": regex(r"\p{Cn}+|\P{Cn}{3}"),
    "not_in_class": regex(r"[\P{L}\s]+|[^\S\n]+|[\W\d]+"),
    "sets": regex(r"[a-f[0-9][x-z]]+|[\p{L}&&[^a-m]&&\P{Lu}]+|[^\w&&[^_]]"),
    "word": regex(r"\w+|\W"),
    "hex": regex(r"0x\h+|\H"),
    "counts": regex(r"\p{N}{2,3}+|a{2}?b|[ab]{,2}c|\s{2,}|(?:xy){1,2}?"),
    "atomic": regex(r"(?>a|ab)c|(?:ab)++c|\S*+"),
    "fold": regex(r"(?i)the|of|and|\p{L}"),
    "fold_off": regex(r"(?i:an(?-i:D)|x)"),
    "dot_all": regex(r"(?m:a.b)|.x"),
    "behind": regex(r"(?<=[a-z])(?=[A-Z])|(?<!\p{L})\p{N}+"),
    # normalisers
    **{t.lower(): {"normalizer": {"type": t}, "pre_tokenizer": BYTES} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")},
    "strip": {"normalizer": STRIP, "pre_tokenizer": BYTES},
    "strip_left": {"normalizer": {**STRIP, "strip_right": False}, "pre_tokenizer": BYTES},
    "strip_right": {"normalizer": {**STRIP, "strip_left": False}, "pre_tokenizer": BYTES},
    "replace_text": {"normalizer": {"type": "Replace", "pattern": {"String": "e."}, "content": "<E>"}, "pre_tokenizer": BYTES},
    "replace_regex": {"normalizer": {"type": "Replace", "pattern": {"Regex": r" {2,}|\p{N}+"}, "content": "▁"}, "pre_tokenizer": BYTES},
    "bare": {"normalizer": normals("NFD", "StripAccents", "Lowercase", STRIP,
                                   {"type": "Replace", "pattern": {"String": " "}, "content": ""}), "pre_tokenizer": BYTES},
    "nfkc_lower": {"normalizer": normals("NFKC", "Lowercase"), "pre_tokenizer": BYTES},
    # added tokens
    "single_word": added(token("the", 0, single_word=True), token("of the", 1, single_word=True), token("a", 2, single_word=True, lstrip=True)),
    "strips": added(token("in", 0, lstrip=True), token("to", 1, rstrip=True), token("  ", 2), token("is", 3, lstrip=True, rstrip=True),
                    token("\n", 4, normalized=True)),
    "special_strips": added(token("<mask>", 0, lstrip=True, rstrip=True, special=True), token("<s>", 1, special=True, single_word=True)),
    "normalized": added(token("café", 0, normalized=True), token("日本", 1, normalized=True), token("THE", 2, normalized=True),
                        token("ﬁ", 3), token("Of", 4), normalizer=normals("NFKD", "Lowercase")),
    "any_order": added(token("zz", 7), token("qq", 3), token("<x>", 12, special=True), token("the", 40)),
    "raw_spaces": added(*(token(" " * n, i, normalized=n % 2 == 0) for i, n in enumerate(range(2, 9)))),
}
EMPTY = {"added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": BYTES}


def steps(name):
    """The members of this kind's tokenizer.json but the model, as text without the outer braces."""
    return json.dumps(EMPTY | KINDS[name], ensure_ascii=False, separators=(",", ":"))[1:-1]


def whole(name):
    model = json.loads((HERE / "kinds_model.json").read_text())["model"]
    return f'{{"version":"1.0",{steps(name)},"model":{json.dumps(model, ensure_ascii=False)}}}'
