# SPDX-License-Identifier: Apache-2.0
"""The same run, two trainers: trainerd, and examples/loop.py on another fleet of the same configuration. 60 steps, the switch at 20.

The learning rate is moderate: at three times this rate the losses of PyTorch in fp32 and in fp64 already differ by more than 1e-4."""
from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers

from fleet import BIN, SOURCE, Fleet, make_model
from saltfleet import SaltDataset, salt_metrics

STEPS, SWITCH = 60, 20
ENDS = 0            # the id that ends documents: <|endoftext|> of share/tokenizer-4k


@pytest.fixture(scope="module")
def trained(tmp_path_factory, assets):        # type: ignore[no-untyped-def]
    """A teacher that is ahead of a new student: with random weights all probabilities are alike, and so are the weights of the tokens."""
    fleet = Fleet(tmp_path_factory.mktemp("trained"), assets, phase_one={"steps": 0},
                  trainer={"model": assets / "teacher", "init": assets / "teacher", "steps": STEPS, "lr": 1e-2})
    subprocess.run([BIN / "trainerd", "-c", fleet.config], check=True, capture_output=True, timeout=120)
    return fleet.folder / f"run/checkpoints/step_{STEPS:08}"


@pytest.mark.parametrize("family, labels, residual, token_weight, isolate", [
    ("llama", {"kind": "sampled", "samples": 50}, "true_token", "constant", False),
    ("llama", {"kind": "sampled", "samples": 50}, "true_token", "teacher_confidence", True),
    ("gpt2", {"kind": "topk", "k": 8}, "ghost", "margin", False),
    ("gpt2", {"kind": "topk", "k": 8}, "ghost", "constant", True),
])
def test_same_run(family, labels, residual, token_weight, isolate, trained, make_fleet, tmp_path):        # type: ignore[no-untyped-def]
    student = make_model(tmp_path / "student", 3, "--family", family)
    options = {"labels": labels, "phase_one": {"steps": SWITCH, "weight": 0.667, "residual": residual, "token_weight": token_weight},
               "teacher": {"model": trained}, "corpus": {"isolate_documents": isolate},
               "trainer": {"model": student, "init": student, "steps": STEPS, "lr": 1e-3, "warmup": 2, "dtype": "fp32"}}
    ours, theirs = make_fleet(**options).up(), make_fleet(**options).up()
    trainerd = subprocess.Popen([BIN / "trainerd", "-c", ours.config], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    loop = subprocess.run([sys.executable, SOURCE / "python/examples/loop.py", theirs.config, student, tmp_path / "out"],
                          capture_output=True, text=True, timeout=120)
    assert loop.returncode == 0, loop.stderr
    assert trainerd.wait(120) == 0, trainerd.stderr.read()
    lines = map(json.loads, (ours.folder / "run/metrics.jsonl").read_text().splitlines())
    want = [line for line in lines if line["kind"] == "step"]
    got = [line.split() for line in loop.stdout.splitlines()]
    assert [int(step) + 1 for step, _, _ in got] == [line["step"] for line in want] == list(range(1, STEPS + 1))
    assert [int(phase) for _, phase, _ in got] == [line["phase"] for line in want] == [1] * SWITCH + [2] * (STEPS - SWITCH)
    difference = np.abs([float(got[i][2]) - want[i]["loss"] for i in range(STEPS)])
    print(f"{family}, {labels['kind']}, {token_weight}: largest difference of a step's loss {difference.max():.1e}")
    assert difference.max() < 1e-4
    assert want[0]["hard"] - want[-1]["hard"] > 0.3, "a run that does not learn shows little"

    # The same rows and labels: the labels' entropy is a number of every label alone, the first loss one of every row.
    model, ends = transformers.AutoModelForCausalLM.from_pretrained(student), 0
    for batch in SaltDataset(theirs.config, timeout_s=30):
        if batch.phase == 2:
            break
        with torch.no_grad():
            metrics = salt_metrics(model(batch.input_ids, **batch.forward_kwargs()).logits, batch)
        ended = batch.input_ids == ENDS
        ends += int(ended.sum())
        assert ((batch.labels == -100) == (ended if isolate else False)).all()
        np.testing.assert_allclose(metrics["entropy"].item(), want[batch.step]["teacher_entropy"], rtol=1e-6)
        if batch.step == 0:
            np.testing.assert_allclose(metrics["token_weight"].item(), want[0]["token_weight"], rtol=1e-4)
            assert (token_weight == "constant") == (want[0]["token_weight"] > 0.66) and want[0]["token_weight"] > 0.002
            np.testing.assert_allclose(metrics["hard"].item(), want[0]["hard"], rtol=1e-6)

    assert ends > 20, "rows without borders show little"

    # The teachers were released at the switch, as trainerd's are.
    assert ours.wait_end("teacherd-0") == theirs.wait_end("teacherd-0") == 0
    for fleet in ours, theirs:
        assert re.search("release", fleet.log("selectord-0")), fleet.log("selectord-0")
    saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / f"out/step_{STEPS:08}").state_dict()
    trained = transformers.AutoModelForCausalLM.from_pretrained(ours.folder / f"run/checkpoints/step_{STEPS:08}").state_dict()
    for name, tensor in trained.items():
        torch.testing.assert_close(saved[name], tensor, rtol=0, atol=2e-3)
