#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Token ids of tokenize_file from a tokenizer.model against those of sentencepiece itself.

usage: tokenizer_sentencepiece.py --program build/dev/bin/tokenize_file [--models FOLDER] [--strings N] [--large TEXT [--mb 9]]

Models: Unigram and BPE with each normaliser that sentencepiece has, runs of spaces made one, trained on this repository's texts into FOLDER,
where they are kept (else for once). Each is compared on N random strings (1,000) and on each line of docs/*.md, and all together as one text; with --large on the text,
code and hard Unicode of tokenizer_hf.py too, as lines and in chunks of 1 MB. Exit status 1 where any text's ids differ, 77 without sentencepiece.
"""
import argparse
import pathlib
import random
import struct
import sys
import tempfile

import tokenizer_hf

ROOT = tokenizer_hf.ROOT
RULES = ["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"]
CHUNK = 1_000_000


def train(sentencepiece, folder, kind, rule):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}_{rule}.model"
    if not path.exists():
        texts = [*ROOT.glob("docs/*.md"), ROOT / "tests/golden/tokenizer/texts/hand.txt"]
        lines = [line for p in sorted(texts) for line in p.read_text(encoding="utf-8").split("\n") if line]
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=str(path.with_suffix("")), model_type=kind, vocab_size=2000, byte_fallback=rule in ("nfkc", "identity"),
            normalization_rule_name=rule, add_dummy_prefix=rule != "nfkc_cf", minloglevel=2, num_threads=1)
    return path


def differ(program, path, sp, texts):
    data = b"".join(struct.pack("<I", len(b)) + b for b in (t.encode() for t in texts))
    raw = tokenizer_hf.run(program, path, data, "--texts")
    got = [[]]
    for i in struct.unpack(f"<{len(raw) // 4}i", raw):
        if i < 0:
            got.append([])
        else:
            got[-1].append(i)
    bad = [(t, w, g) for t, w, g in zip(texts, sp.encode(texts), got) if w != g]
    for t, w, g in bad[:1]:
        k = next((k for k, (a, b) in enumerate(zip(w, g)) if a != b), min(len(w), len(g)))
        print(f"{path.stem}: {len(bad)} of {len(texts)} texts differ: {t[:200]!r}: id {k} of {len(w)}/{len(g)}: want "
              f"{[sp.id_to_piece(i) for i in w[k:k + 8]]} got {[sp.id_to_piece(i) for i in g[k:k + 8]]}")
    return len(bad)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--program", required=True)
    p.add_argument("--models", type=pathlib.Path)
    p.add_argument("--strings", type=int, default=1000)
    p.add_argument("--large", metavar="TEXT")
    p.add_argument("--mb", type=int, default=9)
    a = p.parse_args()
    try:
        import sentencepiece
    except ImportError:
        print("skipped: no sentencepiece package")
        sys.exit(77)
    rng = random.Random(2)
    texts = [tokenizer_hf.random_text(rng) for _ in range(a.strings)]
    texts += [line for path in sorted(ROOT.glob("docs/*.md")) for line in path.read_text(encoding="utf-8").split("\n")]
    texts.append("\n".join(texts))      # long enough for sums of scores far below -100,000
    with tempfile.TemporaryDirectory() as folder:
        for path in tokenizer_hf.large(a.large, folder, a.mb * 1_000_000) if a.large else ():
            text = path.read_bytes().decode("utf-8", "ignore").replace("\0", "")
            texts += [*text.split("\n"), *(text[i:i + CHUNK] for i in range(0, len(text), CHUNK))] if path.name != "bytes" else []
        bad = 0
        for kind in ("unigram", "bpe"):
            for rule in RULES:
                path = train(sentencepiece, a.models or pathlib.Path(folder), kind, rule)
                bad += differ(a.program, path, sentencepiece.SentencePieceProcessor(model_file=str(path)), texts)
                if a.large:
                    print(f"{path.stem}: compared, {bad} differ so far", flush=True)
    print(f"sentencepiece {sentencepiece.__version__}: {2 * len(RULES)} models, {len(texts)} texts of {sum(len(t.encode()) for t in texts)} bytes, {bad} differ")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
