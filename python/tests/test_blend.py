# SPDX-License-Identifier: Apache-2.0
"""corpus.train as a list: SaltDataset yields the rows that trainerd trains, in both phases; Corpus reads the list."""
from __future__ import annotations

import json
import subprocess

import torch
from transformers import AutoModelForCausalLM

import saltfleet
from fleet import BIN, CONTEXT, LICENCES, make_corpus
from saltfleet import SaltDataset

STEPS, SWITCH, ROWS = 12, 6, 8


def test_rows_are_trainerds(make_fleet, tmp_path, assets):
    """trainerd with a learning rate of nothing: each step's loss is that of its rows under the weights it began with."""
    for name, first in (("a", 0), ("b", 5), ("c", 10)):
        make_corpus(tmp_path / name, tmp_path / f"{name}-held", [f"/usr/share/common-licenses/{x}" for x in LICENCES[first:first + 4]])
    blend = [{"prefix": tmp_path / "a", "weight": 3}, {"prefix": tmp_path / "b", "weight": 1}, {"prefix": tmp_path / "c", "weight": 2}]
    fleet = make_fleet(corpus={"train": blend}, selector={"mode": "salt_ds", "block": 24, "k": 200},
                       trainer={"init": assets / "teacher", "lr": 1e-12, "weight_decay": 0}, compute={"dtype": "fp32"}).up()
    subprocess.run([BIN / "trainerd", "-c", fleet.config], check=True, capture_output=True, timeout=120)
    lines = [json.loads(x) for x in (fleet.folder / "run/metrics.jsonl").read_text().splitlines()]
    theirs = [x["hard"] if "hard" in x else x["loss"] for x in lines if x["kind"] == "step"]
    assert len(theirs) == STEPS

    dataset = SaltDataset(fleet.config, timeout_s=30, overrides=["run.dir=other"])
    model = AutoModelForCausalLM.from_pretrained(assets / "teacher")
    ours, parts = [], []
    corpus = saltfleet.Corpus(dataset.plan.corpus_train)
    ends = [sum(p.n_windows(CONTEXT) for p in corpus.parts[:i + 1]) for i in range(3)]
    for batch in dataset:
        for seq, ids in zip(batch.seqs.tolist(), batch.input_ids):
            assert corpus.window(seq, CONTEXT)[:-1].tolist() == ids.tolist()
            parts.append(next(i for i in range(3) if seq < ends[i]))
        with torch.no_grad():
            logits = model(batch.input_ids).logits
        ours.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten()).item())
    assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), atol=2e-5, rtol=0), (ours, theirs)
    assert sum(abs(x - y) > 1e-4 for x, y in zip(ours, ours[1:])) > STEPS // 2          # other rows have other losses
    assert [parts.count(i) for i in range(3)] == [48, 16, 32]                           # 96 rows at 3 : 1 : 2

    assert corpus.info.kind == "blend" and corpus.n_windows(CONTEXT) == ends[2] and len(corpus) == sum(map(len, corpus.parts))
    first, second = corpus.parts[:2]
    assert corpus[len(first) - 2:len(first) + 3].tolist() == first[len(first) - 2:].tolist() + second[:3].tolist()
    assert first.parts == [first]
