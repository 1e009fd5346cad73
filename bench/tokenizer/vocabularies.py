#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train the vocabularies that bench_tokenizer measures: byte-level BPE, SentencePiece's BPE and Unigram, of 32k, 128k and 256k tokens.

usage: vocabularies.py TEXT OUT [--mb 40] [--only bytes|pieces|unigram] [--sizes 32000 128000 256000]

TEXT is plain text or JSON lines with a member "text"; documents are taken from all of it, --mb megabytes together. OUT gets
bytes-N.json (byte-level BPE with GPT-2's split), pieces-N.json (Llama 2's normaliser, no split, byte fallback), unigram-N.json
(Metaspace), and text: 10 MB of other documents. Needs the tokenizers package; minutes for each kind. Then

    build/release/bin/bench_tokenizer OUT/bytes-128000.json OUT/text
"""
import argparse
import json
import pathlib

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

BYTES = [f"<0x{b:02X}>" for b in range(256)]
SPECIALS = ["<unk>", "<s>", "</s>"]
BENCH_BYTES = 10_000_000


def documents(path):
    """Texts of a file: of its lines where they are JSON, else stretches of 64 KiB."""
    with open(path, encoding="utf-8", errors="ignore") as f:
        if path.suffix == ".jsonl":
            yield from (json.loads(line)["text"] for line in f)
        else:
            while text := f.read(65536):
                yield text


def sample(path, n_bytes, offset):
    """Every k-th document from number `offset` on, so that the file gives about n_bytes."""
    k = max(2, path.stat().st_size // n_bytes)
    out = []
    for i, text in enumerate(documents(path)):
        if i % k == offset and n_bytes > 0:
            out.append(text)
            n_bytes -= len(text.encode())
    return out


def first_merges(d, size):
    """The file with the first `size` tokens: BPE's training adds tokens one by one, so a smaller vocabulary is a prefix."""
    vocab = {t: i for t, i in d["model"]["vocab"].items() if i < size}
    merges = [m for m in d["model"]["merges"] if "".join(m) in vocab and m[0] in vocab and m[1] in vocab]
    return d | {"model": d["model"] | {"vocab": vocab, "merges": merges}}


def train_bytes(texts, sizes):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=max(sizes), special_tokens=["<|endoftext|>"], show_progress=False,
                                                       initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    d = json.loads(tok.to_str())
    return {n: first_merges(d, n) for n in sizes}


def train_pieces(texts, sizes):
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=max(sizes), special_tokens=SPECIALS + BYTES, limit_alphabet=2000,
                                                       show_progress=False))
    tok.pre_tokenizer = None
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    d = json.loads(tok.to_str())
    d["pre_tokenizer"], d["added_tokens"] = None, d["added_tokens"][:len(SPECIALS)]
    return {n: first_merges(d, n) for n in sizes}


def train_unigram(texts, sizes):
    out = {}
    for n in sizes:
        tok = Tokenizer(models.Unigram())
        tok.pre_tokenizer = pre_tokenizers.Metaspace()
        tok.decoder = decoders.Metaspace()
        tok.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=n, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False))
        out[n] = json.loads(tok.to_str())
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("text", type=pathlib.Path)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--mb", type=int, default=40)
    p.add_argument("--only", choices=["bytes", "pieces", "unigram"])
    p.add_argument("--sizes", type=int, nargs="+", default=[32000, 128000, 256000])
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "text").write_bytes("\n".join(sample(a.text, BENCH_BYTES, 1)).encode()[:BENCH_BYTES])
    texts = sample(a.text, a.mb * 1_000_000, 0)
    for kind in [a.only] if a.only else ["bytes", "pieces", "unigram"]:
        for n, d in globals()[f"train_{kind}"](texts, a.sizes).items():
            (a.out / f"{kind}-{n}.json").write_text(json.dumps(d, ensure_ascii=False), encoding="utf-8")
            print(f"{kind}-{n}.json: {len(d['model']['vocab'])} tokens")


if __name__ == "__main__":
    main()
