# SPDX-License-Identifier: Apache-2.0
import pytest
from resume import BATCH, EVERY, EXAMPLES, killed_and_resumed

from fleet import CONTEXT

pytest.importorskip("litgpt")
pytest.importorskip("torchdata")


def test_example_killed_and_resumed(make_fleet, tmp_path):
    """litgpt's own pretrain, in micro-batches of half a batch."""
    model = {"name": "tiny", "n_layer": 1, "n_embd": 32, "n_head": 2, "intermediate_size": 64, "block_size": CONTEXT, "vocab_size": 4096,
             "padded_vocab_size": 4096}
    options = {"train.micro_batch_size": BATCH // 2, "train.save_interval": EVERY, "train.lr_warmup_steps": 2, "train.max_norm": 1,
               "precision": "32-true", "logger_name": "csv", "optimizer": "AdamW", "devices": 1, "resume": "auto",
               **{f"model_config.{k}": v for k, v in model.items()}}
    killed_and_resumed(make_fleet, tmp_path, lambda fleet, out: [
        EXAMPLES / "litgpt_pretrain.py", fleet.config, "tiny", "--out_dir", out, *(f"--{k}={v}" for k, v in options.items())], oldest=3)
