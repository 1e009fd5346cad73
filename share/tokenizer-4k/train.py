#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train the shipped tokenizer: byte-level BPE, 4,096 ids, <|endoftext|> at id 0, GPT-2's split, no normaliser.

usage: train.py FOLDER OUT.json     FOLDER holds *.pod files: Debian 12's perl-doc has them in /usr/share/perl/5.36.0/pod

Needs the Hugging Face `tokenizers` package; the file shipped was made with tokenizers 0.23.3.
"""
import pathlib
import sys

import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 4096


def documents(folder):
    """The folder's documents in name order; what is not UTF-8 is left out and said so."""
    for path in sorted(pathlib.Path(folder).glob("*.pod")):
        try:
            yield path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as e:
            print(f"{path.name}: left out: {e}", file=sys.stderr)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    texts = list(documents(sys.argv[1]))
    if not texts:
        sys.exit(f"{sys.argv[1]}: no *.pod files")
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(texts, trainer)
    size = tok.get_vocab_size()
    if size != VOCABULARY:
        sys.exit(f"{size} ids came out, {VOCABULARY} wanted: too little text")
    tok.save(sys.argv[2])
    n = sum(len(t.encode()) for t in texts)
    ids = sum(len(e.ids) for e in tok.encode_batch(texts, add_special_tokens=False))
    print(f"tokenizers {tokenizers.__version__}: {len(texts)} documents, {n} bytes, {n / ids:.3f} bytes a token")


main()
