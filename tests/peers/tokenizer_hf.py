#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Token ids of tokenize_file against Hugging Face tokenizers on real files.

usage: tokenizer_hf.py --program build/dev/bin/tokenize_file [--tokenizer T.json ...] [--chunk BYTES] [FILE...]

Without --tokenizer: the shipped one and all of tests/golden/tokenizer. Without FILE: the texts there, this repository's own
files as code, and perl-doc's (over 1 MB) where installed. Each file is compared as a whole (cut into --chunk
bytes where given, at any byte, so that invalid UTF-8 comes up), special tokens not recognised and recognised, and decoded
again. Exit status 1 on the first difference of each pair, which is shown; 77 without the tokenizers package.
"""
import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
INVALID = re.compile("[\udc80-\udcff]+")


def byte_alphabet():
    """GPT-2's: byte -> character."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printing]
    return {**{b: chr(b) for b in printing}, **{b: chr(256 + i) for i, b in enumerate(others)}}


ALPHABET = byte_alphabet()


def encode(tok, data, specials=False):
    """Ids of bytes: HF of each well-formed part by itself, HF's BPE model of each run of invalid bytes."""
    tok.encode_special_tokens = not specials
    text = data.decode("utf-8", "surrogateescape")
    ids, at = [], 0
    for m in INVALID.finditer(text):
        if m.start() > at:
            ids += tok.encode(text[at:m.start()], add_special_tokens=False).ids
        ids += [t.id for t in tok.model.tokenize("".join(ALPHABET[ord(c) - 0xDC00] for c in m.group()))]
        at = m.end()
    if at < len(text):
        ids += tok.encode(text[at:], add_special_tokens=False).ids
    return ids


def run(program, tokenizer, data, *options):
    return subprocess.run([program, str(tokenizer), *options], input=data, stdout=subprocess.PIPE, check=True).stdout


def compare(program, path, tok, name, data, specials):
    import numpy as np

    want = np.array(encode(tok, data, specials), dtype=np.int32)
    raw = run(program, path, data, *(["--specials"] if specials else []))
    got = np.frombuffer(raw, dtype="<i4")
    if len(want) == len(got) and (want == got).all():
        if tok.normalizer is None and not specials and "prefix" not in path.name and run(program, path, raw, "--decode") != data:
            print(f"{path.name} {name}: decoded text differs")
            return False
        return True
    k = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
    print(f"{path.name} {name} specials={specials}: id {k} of {len(want)}/{len(got)}: "
          f"want {want[k - 3:k + 5].tolist()} got {got[k - 3:k + 5].tolist()}: after "
          f"{''.join(tok.id_to_token(int(i)) or '?' for i in want[max(0, k - 8):k])!r}, want "
          f"{[tok.id_to_token(int(i)) for i in want[k:k + 5]]} got {[tok.id_to_token(int(i)) for i in got[k:k + 5]]}")
    return False


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--program", required=True)
    p.add_argument("--tokenizer", action="append")
    p.add_argument("--chunk", type=int, default=0)
    p.add_argument("files", nargs="*")
    a = p.parse_args()
    try:
        import tokenizers
    except ImportError:
        print("skipped: no tokenizers package")
        sys.exit(77)
    paths = a.tokenizer or [ROOT / "share/tokenizer-4k/tokenizer.json", *sorted((ROOT / "tests/golden/tokenizer").glob("*.json"))]
    files = a.files or [*(ROOT / "tests/golden/tokenizer/texts").glob("*.txt"), *ROOT.glob("common/*/*.c"),
                        *pathlib.Path("/usr/share/perl/5.36.0/pod").glob("perl5[12]*delta.pod")]
    bad = n = n_bytes = 0
    for path in map(pathlib.Path, paths):
        tok = tokenizers.Tokenizer.from_file(str(path))
        for name in files:
            data = pathlib.Path(name).read_bytes()
            step = a.chunk or max(1, len(data))
            for at in range(0, max(1, len(data)), step):
                for specials in (False, True):
                    n += 1
                    n_bytes += len(data[at:at + step])
                    bad += not compare(a.program, path, tok, f"{name}+{at}", data[at:at + step], specials)
    print(f"tokenizers {tokenizers.__version__}: {n} comparisons over {n_bytes} bytes, {bad} differ")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
