#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Token ids of tokenize_file against Hugging Face tokenizers on real files.

usage: tokenizer_hf.py --program build/dev/bin/tokenize_file [--tokenizer T.json ...] [--kinds] [--fuzz N] [--chunk BYTES]
                       [--large TEXT | FILE...]

Without --tokenizer: the shipped one and all of tests/golden/tokenizer. Without FILE: the texts there, this repository's own
files as code, and perl-doc's (over 1 MB) where installed. Each file is compared as a whole (cut into --chunk
bytes where given, at any byte, so that invalid UTF-8 comes up), special tokens not recognised, in the repository's files also recognised, and decoded
again. --kinds: the pipelines of tests/golden/tokenizer/kinds.py instead. --fuzz: N random strings for each tokenizer too. Exit status 1 on the first difference of each pair, which is shown; 77 without the tokenizers package.

--large TEXT, with --kinds about 25 minutes and so no part of the suite: 9 MB (--mb) of TEXT (plain, or JSON lines with a member "text"), a third of that of
source code of this repository, /usr/include and /usr/lib/python3, 1 MB of random pieces of Unicode, each code point below U+32000 in
random order, and 256 KiB of random bytes, in chunks of 1 MB cut at any byte. Special tokens are recognised in the last three only.
"""
import argparse
import itertools
import json
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
INVALID = re.compile("[\udc80-\udcff]+")


def byte_alphabet():
    """GPT-2's: byte -> character."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printing]
    return {**{b: chr(b) for b in printing}, **{b: chr(256 + i) for i, b in enumerate(others)}}


ALPHABET = byte_alphabet()


def invalid(tok, run):
    """Ids of a run of invalid bytes: HF's model of it in the byte-level alphabet; else its byte tokens; else <unk>, one for neighbours
    where the model joins them."""
    if tok.token_to_id("<0x00>") is not None and getattr(tok.model, "byte_fallback", True):
        return [tok.token_to_id(f"<0x{b:02X}>") for b in run]
    if tok.token_to_id(ALPHABET[0]) is not None:
        return [t.id for t in tok.model.tokenize("".join(ALPHABET[b] for b in run))]
    return [tok.token_to_id("<unk>")] * (1 if getattr(tok.model, "fuse_unk", True) else len(run))


def encode(tok, data, specials=False):
    """Ids of bytes: HF of each well-formed part by itself, each run of invalid bytes as above."""
    tok.encode_special_tokens = not specials
    text = data.decode("utf-8", "surrogateescape")
    ids, at = [], 0
    for m in INVALID.finditer(text):
        if m.start() > at:
            ids += tok.encode(text[at:m.start()], add_special_tokens=False).ids
        ids += invalid(tok, [ord(c) - 0xDC00 for c in m.group()])
        at = m.end()
    if at < len(text):
        ids += tok.encode(text[at:], add_special_tokens=False).ids
    return ids


def run(program, tokenizer, data, *options):
    return subprocess.run([program, str(tokenizer), *options], input=data, stdout=subprocess.PIPE, check=True).stdout


def decode(tok, ids):
    """Text of ids as HF gives it, but added tokens give their content: its byte-level decoder takes the é of one for a byte, and a normalized
    one comes back as the normaliser leaves it."""
    added = {i: t.content for i, t in tok.get_added_tokens_decoder().items() if not t.content.isascii() or t.normalized}
    runs = itertools.groupby(ids, lambda i: added.get(i, True))
    return "".join(tok.decode(list(run), skip_special_tokens=False) if key is True else key * len(list(run)) for key, run in runs)


WORDS = ["the", "The", "to", " to  ", " in", "in  ", "is", "  is   ", "a", "漢字、かなー", "々", "THE", " of the ", "I'll", "DON'T", "'s", "'S", "café", "cafe\u0301", "naïve", "日本", "日本語", "漢字かなカナ", "한국어", "привет",
         "مرحبا", "שלום", "ไทย", "नमस्ते", "ﬁ", "ﬀ", "½", "²", "Ⅷ", "٣٤", "१२", "\u00a0", "\u3000", "\u2028", "\u0085", "\u180e", "\u200b", "\u200d",
         "\u0301", "\u0323", "\u0327", "İ", "ı", "ſ", "ß", "K", "Å", "😀", "👨\u200d👩", "🇫🇷", "<|endoftext|>", "<mask>", "<s>", "<x>", "zz", "qq", "e.", "...", "——",
         "“", "”", "0x1Fe", "1234567", "12,345.6", "3.14", "x", "xy", "xyxy", "aab", "abc", "_", "__init__", "camelCaseWord", "HTTPServer", "a-b-c",
         "\t", "\n", "\r\n", "\r", "\n\n", " ", "  ", "   ", "        ", "\x00", "\x1c", "\x7f", "\ufeff", "\ufffd", "\U00011935\U00011930", "\u1100\u1161",
         "\u0897", "\U00010d50", "\U000105c0", "\U0001e030", "\ua7cb", "\ua7f2", "(", ")", "[", "]", "|", "#", "$", "%", "\\", "/", "&&", "^", "+=", "…", "。", "，"]


def random_text(rng):
    """Pieces that meet in every order, and any code points."""
    out = []
    for _ in range(rng.choice([1, 2, 3, 5, 8, 20])):
        r = rng.random()
        if r < 0.75:
            out.append(rng.choice(WORDS))
        elif r < 0.85:
            out.append("".join(rng.choice("abcdefgABCDEFG xyz0123456789.,'-") for _ in range(rng.randrange(1, 8))))
        else:
            top = rng.choice([0x80, 0x250, 0x3000, 0x10000, 0x32400, 0x110000])
            out += [chr(c) for c in (rng.randrange(top) for _ in range(rng.randrange(1, 4))) if not 0xD800 <= c < 0xE000]
    return "".join(out)


def fuzz(program, path, tok, name, n, specials):
    """Numbers of texts that differ; shows the first."""
    rng = random.Random(f"{name} {specials}")
    texts = [random_text(rng) for _ in range(n)]
    data = b"".join(struct.pack("<I", len(b)) + b for b in (t.encode() for t in texts))
    raw = run(program, path, data, "--texts", "--drop", *(["--specials"] if specials else []))
    got, all_ids = [[]], struct.unpack(f"<{len(raw) // 4}i", raw)
    for i in all_ids:
        if i < 0:
            got.append([])
        else:
            got[-1].append(i)
    tok.encode_special_tokens = not specials
    bad = [(t, w.ids, g) for t, w, g in zip(texts, tok.encode_batch(texts, add_special_tokens=False), got) if w.ids != g]
    for t, w, g in bad[:1]:
        print(f"{name} specials={specials}: {len(bad)} of {n} differ: {t!r}: want {[tok.id_to_token(i) for i in w]} got {[tok.id_to_token(i) for i in g]}")
    return len(bad)


def large(source, folder, n):
    """Files of --large, which see."""
    rng = random.Random(1)
    folder = pathlib.Path(folder)
    with open(source, encoding="utf-8", errors="surrogateescape") as f:
        lines = (json.loads(line)["text"] for line in f) if source.endswith(".jsonl") else f
        step = max(1, pathlib.Path(source).stat().st_size // 12_000_000)
        text = "".join(line for i, line in enumerate(lines) if i % step == 0)
    code = [*sorted(ROOT.glob("*/**/*.[ch]"))[::3], *sorted(ROOT.glob("*/**/*.py"))[::2], *sorted(pathlib.Path("/usr/include").glob("*.h")),
            *sorted(pathlib.Path("/usr/lib/python3").glob("**/*.py"))]
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for name, data in {
        "text": text.encode("utf-8", "surrogateescape")[:n],
        "code": b"".join(p.read_bytes()[:60000] for p in code if p.is_file())[:n // 3],
        "unicode": "".join(random_text(rng) for _ in range(60_000)).encode()[:1_000_000],
        "points": "".join(rng.sample(points[:0x32000], 0x32000)).encode(),
        "bytes": rng.randbytes(1 << 18),
    }.items():
        (folder / name).write_bytes(data)
        yield folder / name


def compare(program, path, tok, name, data, specials, back):
    import numpy as np

    want = np.array(encode(tok, data, specials), dtype=np.int32)
    lacks = any(tok.token_to_id(c) is None for c in ALPHABET.values())      # the library leaves such bytes out
    raw = run(program, path, data, *(["--specials"] if specials else []), *(["--drop"] if lacks else []))
    got = np.frombuffer(raw, dtype="<i4")
    if len(want) == len(got) and (want == got).all():
        if back and not lacks and tok.normalizer is None and not specials and "prefix" not in path.name and run(program, path, raw, "--decode") != data:
            print(f"{path.name} {name}: decoded text differs")
            return False
        theirs, ours = decode(tok, want.tolist()), run(program, path, raw, "--decode").decode("utf-8", "replace")
        # Byte tokens that are not UTF-8 stay bytes; HF writes U+FFFD for each of their run (README.md of the tokenizer).
        if theirs == ours or ("\ufffd" in theirs and tok.token_to_id(ALPHABET[0]) is None):
            return True
        k = next((i for i, (x, y) in enumerate(zip(theirs, ours)) if x != y), min(len(theirs), len(ours)))
        print(f"{path.name} {name} specials={specials}: decoded text differs at character {k}: "
              f"want {theirs[max(0, k - 20):k + 20]!r} got {ours[max(0, k - 20):k + 20]!r}")
        return False
    k = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
    print(f"{path.name} {name} specials={specials}: id {k} of {len(want)}/{len(got)}: "
          f"want {want[k - 3:k + 5].tolist()} got {got[k - 3:k + 5].tolist()}: after "
          f"{''.join(tok.id_to_token(int(i)) or '?' for i in want[max(0, k - 8):k])!r}, want "
          f"{[tok.id_to_token(int(i)) for i in want[k:k + 5]]} got {[tok.id_to_token(int(i)) for i in got[k:k + 5]]}")
    return False


def may_have_specials(name, a):
    """Whether to compare a file with special tokens recognised, too. The release notes of Perl and --large's text and code have none."""
    return pathlib.Path(name).name not in ("text", "code") if a.large else bool(a.files) or pathlib.Path(name).is_relative_to(ROOT)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--program", required=True)
    p.add_argument("--tokenizer", action="append")
    p.add_argument("--kinds", nargs="?", const="", help="all, or those whose names match this")
    p.add_argument("--fuzz", type=int, default=0)
    p.add_argument("--chunk", type=int, default=0)
    p.add_argument("--large", metavar="TEXT")
    p.add_argument("--mb", type=int, default=9)
    p.add_argument("files", nargs="*")
    a = p.parse_args()
    try:
        import tokenizers
    except ImportError:
        print("skipped: no tokenizers package")
        sys.exit(77)
    paths = a.tokenizer or [ROOT / "share/tokenizer-4k/tokenizer.json", *sorted((ROOT / "tests/golden/tokenizer").glob("*.json"))]
    files = a.files or [*(ROOT / "tests/golden/tokenizer/texts").glob("*.txt"), *ROOT.glob("common/data/tokenizer/*.c"),
                        *pathlib.Path("/usr/share/perl/5.36.0/pod").glob("perl5[12]*delta.pod")]
    bad = n = n_bytes = 0
    folder = tempfile.TemporaryDirectory()
    if a.large:
        files, a.chunk = list(large(a.large, folder.name, a.mb * 1_000_000)), a.chunk or 1_000_000
    if a.kinds is not None:
        sys.path.insert(0, str(ROOT / "tests/golden/tokenizer"))
        import kinds

        paths = [pathlib.Path(folder.name) / f"{k}.json" for k in kinds.KINDS if re.search(a.kinds, k)]
        for path in paths:
            path.write_text(kinds.whole(path.stem))
    for path in map(pathlib.Path, paths):
        tok = tokenizers.Tokenizer.from_file(str(path))
        for specials in (False, True) if a.fuzz else ():
            n += 1
            bad += fuzz(a.program, path, tok, path.stem, a.fuzz, specials)
        for name in files:
            data = pathlib.Path(name).read_bytes()
            step = a.chunk or max(1, len(data))
            for at in range(0, max(1, len(data)), step):
                for specials in (False, True) if may_have_specials(name, a) else (False,):
                    n += 1
                    n_bytes += len(data[at:at + step])
                    bad += not compare(a.program, path, tok, f"{name}+{at}", data[at:at + step], specials, a.kinds is None)
        if a.large:
            print(f"{path.stem}: {n} comparisons over {n_bytes} bytes so far, {bad} differ", flush=True)
    print(f"tokenizers {tokenizers.__version__}: {n} comparisons over {n_bytes} bytes, {bad} differ")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
