#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make the fixtures of models whose tokens are pieces of text, not of bytes: pieces_*.json, pieces_*.model and pieces.tsv.

usage: pieces.py POD_FOLDER     (with the packages tokenizers, sentencepiece, transformers; the files here came from tokenizers 0.23.3,
                                 sentencepiece 0.2.3, transformers 5.24)

pieces_NAME.json    trained by tokenizers; pieces_NAME.model by sentencepiece. Of these the reference is the same vocabulary in tokenizers'
                    own classes, its merges from transformers' generate_merges
pieces.tsv          file, text of texts/, special tokens recognised or not, number of ids, xxh3-128 of the ids as little-endian int32,
                    xxh3-128 of the text that tokenizers decodes them to; - where bytes are not UTF-8, which come out as U+FFFD there
"""
import base64
import json
import pathlib
import sys
import tempfile

import numpy as np
import sentencepiece
import sentencepiece.sentencepiece_model_pb2 as proto
import xxhash
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import tokenization_utils_base

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "peers"))
import tokenizer_hf  # noqa: E402

BYTES = [f"<0x{b:02X}>" for b in range(256)]
SPECIALS = ["<unk>", "<s>", "</s>"]
N, P, D = normalizers, pre_tokenizers, decoders
REPLACE = N.Replace(" ", "▁")
LLAMA_NORMALIZER = N.Sequence([N.Prepend("▁"), REPLACE])
LLAMA_DECODER = D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])
GEMMA_DECODER = D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse()])


def bpe(texts, fallback):
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=fallback))
    tok.pre_tokenizer = P.Metaspace(prepend_scheme="never")
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1000, special_tokens=SPECIALS + (BYTES if fallback else []),
                                                       limit_alphabet=90, show_progress=False))
    d = json.loads(tok.to_str())
    d["added_tokens"] = d["added_tokens"][:3]
    return d


def crossing(texts):
    """Merges over spaces, and of runs of them: a text may not be cut before every space."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = LLAMA_NORMALIZER
    parts = [line[i:i + 40] for text in texts for line in text.split("\n") for i in range(0, len(line), 40)]
    tok.train_from_iterator(parts[::8], trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIALS + BYTES, limit_alphabet=90, show_progress=False))
    d = json.loads(tok.to_str())
    d["added_tokens"] = d["added_tokens"][:3]
    return d


def unigram(texts):
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = P.Metaspace()
    tok.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=800, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False))
    return json.loads(tok.to_str())


def variant(d, normalizer, pre, decoder, more=(), **model):
    d = json.loads(json.dumps(d))
    d["model"].update(model)
    d["pre_tokenizer"] = None
    tok = Tokenizer.from_str(json.dumps(d))
    if normalizer is not None:
        tok.normalizer = normalizer
    if pre is not None:
        tok.pre_tokenizer = pre
    if decoder is not None:
        tok.decoder = decoder
    tok.add_tokens(list(more))
    return tok


def sentencepiece_model(name, texts, kind):
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
        f.write("\n".join(t for text in texts for t in text.split("\n") if t))
        f.flush()
        sentencepiece.SentencePieceTrainer.train(
            input=f.name, model_prefix=str(HERE / name), model_type=kind, vocab_size=900, byte_fallback=True, character_coverage=0.99,
            normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["<tool>", "    "],
            control_symbols=["<mask>"], minloglevel=2, num_threads=1)
    (HERE / f"{name}.vocab").unlink()
    m = proto.ModelProto()
    m.ParseFromString((HERE / f"{name}.model").read_bytes())
    m.trainer_spec.ClearField("input")          # names of files of the machine at hand
    m.trainer_spec.ClearField("model_prefix")
    (HERE / f"{name}.model").write_bytes(m.SerializeToString())
    pieces = [(p.piece, p.score) for p in m.pieces]
    if kind == "bpe":
        skip = {p.piece for p in m.pieces if p.type in (2, 3, 6)}
        vocab = {p: i for i, (p, _) in enumerate(pieces)}
        merges = tokenization_utils_base.generate_merges(vocab, dict(pieces), skip)
        tok = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    else:
        tok = Tokenizer(models.Unigram(pieces, 0, True))
    tok.normalizer, tok.decoder = LLAMA_NORMALIZER, LLAMA_DECODER
    for p in m.pieces:
        if p.type in (2, 3, 4):
            (tok.add_tokens if p.type == 4 else tok.add_special_tokens)([AddedToken(p.piece, normalized=False, special=p.type != 4)])
    return tok


# A table of characters of its own: one for one, two for one, one for two, nothing, a newline, and the start of a cluster.
TABLE = {"A": "a", "É": "e\u0301", "e\u0301": "é", "ﬁ": "fi", "\u00ad": "", "…": "...", "ᵚ\u0301": "q", "\u3000": " ", "\n": " ", "\r\n": " ",
         "ß": "ss", "\u0301": "\u0300"}


def charsmap(texts):
    """SentencePiece's precompiled_charsmap of TABLE, in base64."""
    with tempfile.TemporaryDirectory() as folder:
        rules, text = pathlib.Path(folder) / "rules.tsv", pathlib.Path(folder) / "text"
        points = (lambda s: " ".join(f"{ord(c):X}" for c in s))
        rules.write_text("".join(f"{points(a)}\t{points(b)}\n" for a, b in TABLE.items()))
        text.write_text("\n".join(texts[0].split("\n")[:400]), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=f"{folder}/m", model_type="char", vocab_size=60, hard_vocab_limit=False,
                                                 normalization_rule_tsv=str(rules), minloglevel=2, num_threads=1)
        m = proto.ModelProto()
        m.ParseFromString(pathlib.Path(f"{folder}/m.model").read_bytes())
        return base64.b64encode(m.normalizer_spec.precompiled_charsmap).decode()


def precompiled(tok, texts):
    """As T5's file: the table, white space at the end away, runs of spaces one."""
    d = json.loads(tok.to_str())
    d["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": charsmap(texts)}, {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]}
    return Tokenizer.from_str(json.dumps(d))


def main():
    pods = pathlib.Path(sys.argv[1])
    texts = [p.read_bytes().decode("utf-8", "ignore") for p in sorted(pods.glob("perl*.pod")) if p.stat().st_size < 60000][:12]
    texts += [(HERE / "texts/hand.txt").read_text(encoding="utf-8")] * 2
    plain, fallback, uni = bpe(texts, False), bpe(texts, True), unigram(texts)
    uni_bytes = json.loads(json.dumps(uni))
    uni_bytes["model"]["vocab"][3:3] = [[b, 0.0] for b in BYTES]
    tool = [AddedToken("<tool>", normalized=False), AddedToken("\n\n", normalized=False)]
    toks = {
        "llama": variant(fallback, LLAMA_NORMALIZER, None, LLAMA_DECODER),
        "cross": variant(crossing(texts), None, None, LLAMA_DECODER),
        "gemma": variant(fallback, REPLACE, P.Split(" ", "merged_with_previous"), GEMMA_DECODER, tool, ignore_merges=True),
        "first": variant(fallback, None, P.Metaspace(prepend_scheme="first", split=False), LLAMA_DECODER, tool),
        "unk": variant(plain, None, P.Metaspace(), D.Metaspace(), fuse_unk=False),
        "fuse": variant(plain, None, P.Metaspace(prepend_scheme="never"), None),
        "unigram": variant(uni, None, P.Sequence([P.WhitespaceSplit(), P.Metaspace()]), D.Metaspace(), tool),
        "whole": variant(uni_bytes, LLAMA_NORMALIZER, None, D.Sequence([D.ByteFallback(), D.Metaspace()]), byte_fallback=True),
    }
    toks["t5"] = precompiled(variant(uni_bytes, None, P.Metaspace(), D.Sequence([D.ByteFallback(), D.Metaspace()]), byte_fallback=True), texts)
    names = {}
    for name, tok in toks.items():
        path = HERE / f"pieces_{name}.json"
        path.write_text(tok.to_str() + "\n", encoding="utf-8")
        names[path.name] = Tokenizer.from_file(str(path))
    for kind in ("bpe", "unigram"):
        names[f"pieces_{kind}.model"] = sentencepiece_model(f"pieces_{kind}", texts, kind)
    rows = []
    for name, tok in names.items():
        for path in sorted((HERE / "texts").glob("*.txt")):
            for specials in (False, True):
                ids = np.array(tokenizer_hf.encode(tok, path.read_bytes(), specials), dtype="<i4")
                back = tok.decode(ids.tolist(), skip_special_tokens=False)
                rows.append([name, path.stem, str(int(specials)), str(len(ids)), xxhash.xxh3_128_hexdigest(ids.tobytes()),
                             "-" if "\ufffd" in back else xxhash.xxh3_128_hexdigest(back.encode())])
    (HERE / "pieces.tsv").write_text("".join("\t".join(r) + "\n" for r in rows))


main()
