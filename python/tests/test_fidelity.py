# SPDX-License-Identifier: Apache-2.0
"""Labels against the live teacher: those of the same model are as near as fresh draws, those of another model are not; OPT, which teacherd does
not know, labelled by the library."""
from __future__ import annotations

import json
import math
import pathlib
import threading
from typing import Any, Callable

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

import saltfleet
from fleet import CONTEXT, TOKENIZER, Fleet
from saltfleet.teacher import fidelity


def opt(folder: pathlib.Path, seed: int, vocab: int = 4096, positions: int = 64) -> OPTForCausalLM:
    torch.manual_seed(seed)
    config = OPTConfig(vocab_size=vocab, hidden_size=32, num_hidden_layers=1, ffn_dim=64, num_attention_heads=2, max_position_embeddings=positions,
                       word_embed_proj_dim=32, dropout=0.0, init_std=0.4, tie_word_embeddings=True)
    m = OPTForCausalLM(config).eval()
    m.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((TOKENIZER / "tokenizer.json").read_bytes())
    return m


@torch.no_grad()
def teach(config: pathlib.Path, folder: pathlib.Path, m: Any, stop: threading.Event) -> None:
    with saltfleet.Teacher(config, [saltfleet.Model(folder, 4096, CONTEXT)]) as teacher:
        while not stop.is_set():
            try:
                lease = teacher.lease(0.2)
            except saltfleet.SaltTimeout:
                continue
            with lease:
                for i in range(lease.n):
                    lease.submit_logits(i, m(torch.from_numpy(lease.tokens[i:i + 1, :-1]).long()).logits[0])


def test_the_tail_is_one_mass() -> None:
    label, p = torch.tensor([0.5, 0.25, 0, 0], dtype=torch.float64), torch.tensor([0.4, 0.2, 0.3, 0.1], dtype=torch.float64)
    kl, tv = fidelity._distance(label, p, label > 0)
    assert kl == pytest.approx(0.5 * math.log(0.5 / 0.4) + 0.25 * math.log(0.25 / 0.2) + 0.25 * math.log(0.25 / 0.4))
    assert tv == pytest.approx((0.1 + 0.05 + 0.15) / 2)


@pytest.mark.parametrize("kind", ["sampled", "topk", "dense"])
def test_live(make_fleet: Callable[..., Fleet], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    m = opt(tmp_path / "opt", 5)
    opt(tmp_path / "other", 6)
    fleet = make_fleet(teacher={"model": tmp_path / "opt", "compute_class": "fp32/torch"}, labels={"kind": kind, "samples": 50, "k": 16, "tau": 0.5})
    fleet.selectord()
    stop = threading.Event()
    thread = threading.Thread(target=teach, args=(fleet.config, tmp_path / "opt", m, stop))
    thread.start()

    def measure(folder: str) -> dict[str, Any]:
        assert fidelity.main(["--model", str(tmp_path / folder), "-c", str(fleet.config), "--device", "cpu", "--timeout", "60"]) == 0
        return json.loads(capsys.readouterr().out)

    try:
        same, other = measure("opt"), measure("other")
    finally:
        stop.set()
        thread.join()
    assert same["sequences"] == 4 and same["compute_class"] == "fp32/torch" and same["label_kind"] == kind
    if kind == "sampled":       # 128 positions: as far as other draws of the same number are
        assert same["kl_nats"] == pytest.approx(same["kl_nats_fresh"], rel=0.15)
        assert same["total_variation"] == pytest.approx(same["total_variation_fresh"], rel=0.15)
        assert other["kl_nats"] > 2 * other["kl_nats_fresh"]
    else:                       # whole probabilities: only their rounding is left
        assert abs(same["kl_nats"]) < 1e-4 and same["total_variation"] < 1e-3
        assert other["kl_nats"] > 0.05
    assert fidelity.main(["--model", str(tmp_path / "opt"), "-c", str(fleet.config), "--step", "7", "--device", "cpu"]) == 78
    assert "a step of phase one" in capsys.readouterr().err
    for vocab, positions in ((4000, 64), (4096, CONTEXT // 2)):     # less than corpus and context have
        opt(tmp_path / "small", 7, vocab, positions)
        assert fidelity.main(["--model", str(tmp_path / "small"), "-c", str(fleet.config), "--device", "cpu", "--timeout", "60"]) == 78
        assert f"found {vocab} ids and {positions} positions" in capsys.readouterr().err
