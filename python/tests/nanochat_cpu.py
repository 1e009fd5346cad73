# SPDX-License-Identifier: Apache-2.0
"""nanochat_cpu.py NANOCHAT FLEET FOLDER: scripts/base_train.py of a nanochat checkout with the recipe, one layer, on processors, from its
newest checkpoint on. What is replaced: the tokenizer, of which only the number of ids is used here; wandb; and torch.compile, which takes
minutes."""
import os
import pathlib
import re
import runpy
import sys
import types

import torch

import saltfleet

nanochat, fleet, folder = map(pathlib.Path, sys.argv[1:])
os.chdir(fleet.parent)          # the recipe says fleet.yaml
with saltfleet.Client("fleet.yaml") as client:
    plan = client.plan
sys.path.insert(0, str(nanochat))
os.environ["NANOCHAT_BASE_DIR"] = str(folder)
tokenizer = types.ModuleType("nanochat.tokenizer")
tokenizer.get_tokenizer = lambda: types.SimpleNamespace(get_vocab_size=lambda: plan.vocab)
tokenizer.get_token_bytes = lambda device: None
tokenizer.HuggingFaceTokenizer = tokenizer.RustBPETokenizer = object
sys.modules |= {"nanochat.tokenizer": tokenizer, "wandb": types.ModuleType("wandb")}
torch.compile = lambda f=None, **_: f if f is not None else lambda g: g

saved = [int(m[1]) for f in folder.rglob("meta_*.json") if (m := re.search(r"meta_(\d+)", f.name))]
options = {"depth": 1, "aspect-ratio": 32, "head-dim": 16, "max-seq-len": plan.context, "window-pattern": "L", "device-batch-size": 4,
           "total-batch-size": plan.batch * plan.context, "num-iterations": plan.steps, "eval-every": -1, "core-metric-every": -1,
           "sample-every": -1, "save-every": plan.checkpoint_every, "device-type": "cpu", "resume-from-step": max(saved, default=-1)}
sys.argv[1:] = [f"--{k}={v}" for k, v in options.items()]
runpy.run_module("scripts.base_train", run_name="__main__")
