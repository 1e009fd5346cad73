#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make the fixtures of SentencePiece models with a table of characters: pieces_table_*.model and pieces_table.tsv.

usage: pieces_table.py      (with the packages sentencepiece, xxhash; the files here came from sentencepiece 0.2.3)

pieces_table.tsv    as pieces.tsv, of texts that are UTF-8, ids and text as sentencepiece has them; - where it shows a token that is unknown
"""
import pathlib
import tempfile

import numpy as np
import sentencepiece
import sentencepiece.sentencepiece_model_pb2 as proto
import xxhash

HERE = pathlib.Path(__file__).resolve().parent
# One for one, two for one, one for two, nothing, white space, and texts that others begin with.
TABLE = {"A": "a", "É": "e\u0301", "e\u0301": "é", "ﬁ": "fi", "\u00ad": "", "…": "...", "……": "—", "\u3000": " ", "\t": " ", "\n": " ", "\r\n": " ", "ß": "ss",
         "th": "þ", "the": "ð", "a\u0301\u0323": "ạ", "1": " one "}


def model(name, texts, rules, **how):
    out = HERE / f"{name}.model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(out.with_suffix("")), vocab_size=500, character_coverage=0.99, normalization_rule_tsv=rules, hard_vocab_limit=False,
        minloglevel=2, num_threads=1, **how)
    out.with_suffix(".vocab").unlink()
    m = proto.ModelProto()
    m.ParseFromString(out.read_bytes())
    m.trainer_spec.ClearField("model_prefix")       # names of files of the machine at hand
    m.normalizer_spec.ClearField("normalization_rule_tsv")
    out.write_bytes(m.SerializeToString())
    return sentencepiece.SentencePieceProcessor(model_file=str(out))


def main():
    texts = {}
    for path in sorted((HERE / "texts").glob("*.txt")):
        try:
            texts[path.stem] = path.read_bytes().decode()
        except UnicodeDecodeError:
            pass
    lines = [line for name in ("code", "hand") for line in texts[name].split("\n") if line and "\0" not in line]
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as f:
        f.write("".join("\t".join(" ".join(f"{ord(c):X}" for c in s) for s in pair) + "\n" for pair in TABLE.items()))
        f.flush()
        models = {"pieces_table_unigram": model("pieces_table_unigram", lines, f.name, model_type="unigram", byte_fallback=True),
                  "pieces_table_bpe": model("pieces_table_bpe", lines, f.name, model_type="bpe", add_dummy_prefix=False)}
    rows = []
    for name, sp in models.items():
        for stem, text in texts.items():
            ids, back = np.array(sp.encode(text), dtype="<i4"), sp.decode(sp.encode(text))
            rows.append([f"{name}.model", stem, "0", str(len(ids)), xxhash.xxh3_128_hexdigest(ids.tobytes()),
                         "-" if "⁇" in back else xxhash.xxh3_128_hexdigest(back.encode())])
    (HERE / "pieces_table.tsv").write_text("".join("\t".join(r) + "\n" for r in rows))


main()
