# SPDX-License-Identifier: Apache-2.0
"""tokenizer.py TEXT.jsonl FOLDER VOCABULARY: a byte-level BPE tokenizer trained on every fourth document (and all long ones) of the text."""
import json
import pathlib
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

text, folder, vocabulary = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()


def documents():
    with open(text) as lines:
        for i, line in enumerate(lines):
            if i % 4 == 0 or len(line) > 20000:
                yield json.loads(line)["text"]


tokenizer.train_from_iterator(documents(), trainers.BpeTrainer(
    vocab_size=vocabulary, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
folder.mkdir(parents=True, exist_ok=True)
tokenizer.save(str(folder / "tokenizer.json"))
