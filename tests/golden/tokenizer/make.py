#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make this folder's fixtures: small tokenizers with the splits of well-known ones, texts, and the ids Hugging Face gives.

usage: make.py POD_FOLDER | seams | kinds     (perl-doc's /usr/share/perl/5.36.0/pod; the files here came from tokenizers 0.23.3)

NAME.json              tokenizer; NAME tells whose normaliser, split and merge rule it carries
texts/T.txt            any bytes
ids/NAME/T.u16         ids of T, little-endian, special tokens not recognised; T.specials.u16: recognised
seams.json             merges each byte 0x80..0xbf with a following a, 1, !: ids then show on which side of a split a character stands
seams.hash             xxh3-128 of seams.json's ids (int32) of seams_text(): the class of every code point below U+32400
kinds.txt              each pipeline of kinds.py: its name, a tab, the members of tokenizer.json but the model
kinds_model.json       their model
kinds_text.txt         random text where their pieces meet
kinds.tsv              for each of them the xxh3-128 of the ids (int32) of each text and of kinds_text.txt with special tokens recognised
pod.tsv                file, xxh3-128 of its bytes, then for each tokenizer the xxh3-128 of its ids as little-endian int32
"""
import json
import pathlib
import random
import shutil
import sys

import numpy as np
import xxhash
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "peers"))
import kinds  # noqa: E402
import tokenizer_hf  # noqa: E402

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
P = pre_tokenizers


def split(pattern):
    return P.Sequence([P.Split(Regex(pattern), "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)])


# name: (normaliser, pre-tokenizer, special tokens)
KINDS = {
    "gpt2": (None, P.ByteLevel(add_prefix_space=False), ["<|endoftext|>"]),
    "llama3": (None, split(LLAMA3), ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]),
    "smollm2": (None, P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)]),
                ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]),
    "qwen2": (normalizers.NFC(), split(QWEN2), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
    "prefix": (None, P.ByteLevel(add_prefix_space=True), ["<s>", "</s>", "<mask>"]),
}


def train(name, texts):
    normalizer, pre, specials = KINDS[name]
    tok = Tokenizer(models.BPE())
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre
    tok.decoder = decoders.ByteLevel()
    alphabet = sorted(P.ByteLevel.alphabet())
    if name == "smollm2":               # its vocabulary has no token for bytes that no text holds
        alphabet = [c for c in alphabet if c not in (tokenizer_hf.ALPHABET[0xF5], tokenizer_hf.ALPHABET[0xFF])]
    # Real files of Llama 3 and Qwen2 keep special tokens out of the vocabulary, at its end; GPT-2 and SmolLM2 within it.
    within = specials if name in ("gpt2", "smollm2") else []
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1500, special_tokens=within, show_progress=False,
                                                       initial_alphabet=alphabet))
    if name == "prefix":
        tok.add_special_tokens([*specials[:2], AddedToken("<mask>", lstrip=True, rstrip=True, special=True)])
        tok.add_tokens([AddedToken("    ", normalized=True), AddedToken("<tool>", normalized=False)])
    elif not within:
        tok.add_special_tokens(specials)
    if name == "qwen2":
        tok.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=True)])
    d = json.loads(tok.to_str())
    if name == "llama3":                # words in the vocabulary that no merge makes: only ignore_merges finds them
        d["model"]["ignore_merges"] = True
        last = max(d["model"]["vocab"].values())
        gone = {t for t in d["model"]["vocab"] if len(t) > 7 and d["model"]["vocab"][t] > last - 200}
        d["model"]["merges"] = [m for m in d["model"]["merges"] if "".join(m) not in gone and not gone & set(m)]
    if name in ("gpt2", "smollm2"):     # the older way to write merges
        d["model"]["merges"] = [" ".join(m) for m in d["model"]["merges"]]
    path = HERE / f"{name}.json"
    path.write_text(json.dumps(d, ensure_ascii=False, separators=(",", ":")) + "\n")
    return Tokenizer.from_file(str(path))


HAND = """I'll we've DON'T can'T it'S 'ſ x'ſ ’s 'RE'Ve 'd'm you'd've ''s ' s
naïve cafe\u0301 café A\u030a Å \u212b e\u0323\u0302 e\u0302\u0323 \u1ec7 ﬁ ﬀ ſt ß ẞ İ ı
\u0344 \u0958 \u2126 \u212a \ufb1d \U0002f800 \U0001d15e \u1100\u1161\u11a8 \uac01 \uac00\u11a8 \u0d4a \u0d46\u0d3e
नमस्ते दुनिया क्षत्रिय ज़ தமிழ் ภาษาไทย ភាសាខ្មែរ မြန်မာ བོད་ཡིག
שָׁלוֹם עֲלֵיכֶם العَرَبِيَّة \u202eabc\u202c \u2066mixed עברית text\u2069 \u200f\u200e
👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇫🇷🇩🇪 ❤️ ☺︎ 1️⃣ a\u200db a\u200cb \u2060 \ufeff \u00ad
中文，没有空格。日本語テキスト、カタカナ。한국어 문장입니다. 龜龜 〇一二三 ㊀ ⑩ Ⅷ ½ ² ٣٤٥ १२३ 𝟘𝟙 1234567 12,345.67 0x1F 1e-9
a\u00a0b a\u2003b \u3000 x\u1680y x\u180ey \u0085x\u2028y\u2029z \u200b \x1c\x1d\x1e\x1f \x0b\x0c end
e\u0301\u0301\u0301\u0323\u0327\u0301 \u0301alone o\u0338\u0308 \u0041\u0315\u0300\u05ae\u0062
"""


def texts(rng):
    source = (HERE.parents[2] / "common/hash/order.c").read_bytes() + pathlib.Path(tokenizer_hf.__file__).read_bytes()
    yield "code", source[:12000].replace(b"\n", b"\r\n", 40)
    yield "hand", HAND.encode("utf-8")
    spaces = "".join(rng.choice([" ", "  ", "   ", "\n", "\r\n", "\t", "\r", "\n\n", " \n ", "\u00a0", "\u3000", "x", "y1", ".", "'s",
                                 " " * rng.randrange(1, 70), "\n" * rng.randrange(1, 20), "\t" * rng.randrange(1, 9)])
                     for _ in range(1500))
    yield "spaces", spaces.encode()
    # Any code point Unicode 14 knows or not, mostly close to another of its script.
    points = []
    for _ in range(400):
        base = rng.choice([rng.randrange(0x20, 0x3000), rng.randrange(0x20, 0x400), rng.randrange(0x300, 0x370),
                           rng.randrange(0x900, 0x1100), rng.randrange(0x1F000, 0x1FB00), rng.randrange(0xA000, 0xD7A0)])
        points += [min(0x10FFFF, base + rng.randrange(24)) for _ in range(rng.randrange(1, 8))]
        points += [0x20] * (rng.random() < 0.4)
    yield "points", "".join(chr(c) for c in points if not 0xD800 <= c < 0xE000).encode()
    marks = "".join(rng.choice("aeiouAEIOUnсйЙщ가각") + "".join(chr(rng.randrange(0x300, 0x370))
                    for _ in range(rng.choice([0, 0, 1, 1, 2, 3, 30]))) for _ in range(300))
    yield "marks", marks.encode()
    broken = bytearray(HAND.encode() * 2)
    for _ in range(len(broken) // 15):
        i = rng.randrange(len(broken))
        broken[i:i + rng.randrange(3)] = bytes(rng.randrange(256) if rng.random() < 0.5 else rng.randrange(0x80, 0xF5)
                                               for _ in range(rng.randrange(3)))
    yield "broken", bytes(b for b in broken if b not in (0xF5, 0xFF))
    yield "lone", b"\x80 a\xc3 b\xe2\x82 c\xf0\x9f\x98 d\xed\xa0\x80\xed\xb0\x80 e\xc0\x80 f\xe0\x80\x80 \xf4\x90\x80\x80\xfe g\xe2\x82"
    yield "all", bytes(b for b in range(256) if b not in (0xF5, 0xFF)) * 3
    yield "long", b"a" * 3000 + b" " * 3000 + b"ab" * 1500 + b"=" * 2000 + b"\n" * 1000 + b"0" * 1000 + "\u0301".encode() * 500
    yield "added", (b"<|endoftext|>a <|endoftext|> b<|im_start|>user\n<|im_end|><tool_call>x</tool_call>  <mask>  y<mask><s>z</s>"
                    b"<|begin_of_text|>hello<|end_of_text|><|eot_id|><|endoftext|<|endoftext|><repo_name>      if    x:<tool> <tool>")
    yield "empty", b""


def seams():
    vocab = {c: i for i, c in enumerate(sorted(P.ByteLevel.alphabet()))}
    merges = [(tokenizer_hf.ALPHABET[b], c) for b in range(0x80, 0xC0) for c in "a1!"]
    for m in merges:
        vocab["".join(m)] = len(vocab)
    tok = Tokenizer(models.BPE(vocab, merges))
    tok.pre_tokenizer, tok.decoder = P.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    (HERE / "seams.json").write_text(tok.to_str() + "\n")
    return tok


def seams_text():
    return "".join(f"{chr(c)}a {chr(c)}1 {chr(c)}! " for c in range(0x80, 0x32400) if not 0xD800 <= c < 0xE000).encode()


def make_kinds():
    # Its words are whole texts, so that its merges cross every border between pieces: ids show where a split is.
    rng = random.Random(12)
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = P.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    tok.train_from_iterator([tokenizer_hf.random_text(rng) for _ in range(4000)],
                            trainers.BpeTrainer(vocab_size=kinds.VOCAB, special_tokens=["<|endoftext|>"], show_progress=False,
                                                initial_alphabet=P.ByteLevel.alphabet(), max_token_length=12))
    (HERE / "kinds_model.json").write_text(json.dumps(json.loads(tok.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
    rng = random.Random(11)
    (HERE / "kinds_text.txt").write_bytes("".join(tokenizer_hf.random_text(rng) for _ in range(800)).encode())
    (HERE / "kinds.txt").write_text("".join(f"{k}\t{kinds.steps(k)}\n" for k in kinds.KINDS))
    texts = {p.stem: p.read_bytes() for p in [*sorted((HERE / "texts").glob("*.txt")), HERE / "kinds_text.txt"]}
    rows = ["\t".join(["kind", *texts, "specials"])]
    for k in kinds.KINDS:
        tok = Tokenizer.from_str(kinds.whole(k))
        ids = [tokenizer_hf.encode(tok, t) for t in texts.values()] + [tokenizer_hf.encode(tok, texts["kinds_text"], True)]
        rows.append("\t".join([k, *(xxhash.xxh3_128_hexdigest(np.array(i, dtype="<i4").tobytes()) for i in ids)]))
    (HERE / "kinds.tsv").write_text("\n".join(rows) + "\n")


def main():
    if sys.argv[1] == "kinds":
        make_kinds()
        return
    ids = np.array(tokenizer_hf.encode(seams(), seams_text()), dtype="<i4")
    (HERE / "seams.hash").write_text(xxhash.xxh3_128_hexdigest(ids.tobytes()) + "\n")
    if sys.argv[1] == "seams":
        return
    pods = pathlib.Path(sys.argv[1])
    corpus = [p.read_bytes().decode("utf-8", "ignore") for p in sorted(pods.glob("perl*.pod")) if p.stat().st_size < 60000]
    corpus += [HAND] * 3
    toks = {name: train(name, corpus) for name in KINDS}
    for folder in ("texts", "ids"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    (HERE / "texts").mkdir()
    for t, data in texts(random.Random(7)):
        (HERE / "texts" / f"{t}.txt").write_bytes(data)
        for name, tok in toks.items():
            folder = HERE / "ids" / name
            folder.mkdir(parents=True, exist_ok=True)
            for specials in (False, True):
                ids = np.array(tokenizer_hf.encode(tok, data, specials), dtype="<u2")
                (folder / f"{t}{'.specials' if specials else ''}.u16").write_bytes(ids.tobytes())
    rows = []
    for p in sorted(pods.glob("*.pod")):
        data = p.read_bytes()
        if len(data) > 60000 or p.name in ("perlcn.pod", "perljp.pod", "perlko.pod", "perltw.pod"):
            row = [p.name, xxhash.xxh3_128_hexdigest(data)]
            row += [xxhash.xxh3_128_hexdigest(np.array(tokenizer_hf.encode(t, data), dtype="<i4").tobytes()) for t in toks.values()]
            rows.append("\t".join(row))
    make_kinds()
    (HERE / "pod.tsv").write_text("\t".join(["file", "bytes", *toks]) + "\n" + "\n".join(rows) + "\n")


main()
