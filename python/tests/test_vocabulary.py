# SPDX-License-Identifier: Apache-2.0
"""Student, teacher and corpus with output layers of different sizes: a tokenizer of 151,665 ids in models of 151,936 and 152,064 (Qwen2.5's
sizes), and a teacher whose tokenizer has more ids than the corpus's."""
from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import sys
import threading
from typing import Any, Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import saltfleet
from fleet import SOURCE, TOKENIZER, Fleet, saltctl

CONTEXT, K = 16, 8
TEACHER, STUDENT, IDS = 152064, 151936, 151665


def tokenizer(folder: pathlib.Path, ids: int, **other: str) -> pathlib.Path:
    """share/tokenizer-4k with further ids that no text has; other: old token = new token."""
    t = json.loads((TOKENIZER / "tokenizer.json").read_text())
    vocab = {other.get(token, token): i for token, i in t["model"]["vocab"].items()}
    t["model"]["vocab"] = vocab | {f"\u0120filler{i}": i for i in range(len(vocab), ids)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(t))
    return folder


def model(vocab: int, folder: pathlib.Path | None = None) -> LlamaForCausalLM:
    torch.manual_seed(vocab)
    m = LlamaForCausalLM(LlamaConfig(vocab_size=vocab, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                                     max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.5)).eval()
    if folder is not None:
        m.save_pretrained(folder)
    return m


def corpus(folder: pathlib.Path, ids: pathlib.Path) -> None:
    saltctl("corpus", "build", "--tokenizer", ids, "--out", folder / "train", SOURCE / "README.md")


def fleet_of(make_fleet: Callable[..., Fleet], tmp_path: pathlib.Path, who: str, **changes: Any) -> Fleet:
    compute = {} if who == "teacherd" else {"compute_class": "fp32/torch"}
    return make_fleet(corpus={"train": tmp_path / "train", "heldout": "", "context": CONTEXT}, labels={"kind": "topk", "k": K},
                      teacher={"model": tmp_path / "teacher", **compute}, trainer={"steps": 3, "batch": 2, "lanes": 1, "model": "student"},
                      compute={"dtype": "fp32"}, selector={"label_ahead_steps": 2, "lease_sequences": 4}, phase_one={"steps": 2, "weight": 0.5}, **changes)


def teach(fleet: Fleet, who: str, folder: pathlib.Path) -> None:
    fleet.selectord()
    if who == "teacherd":
        fleet.teacherd()
    else:
        fleet.start("teacher", "-m", "saltfleet.teacher", "--model", folder, "-c", fleet.config, "--device", "cpu", "--dtype", "float32",
                    program=sys.executable)


@torch.no_grad()
def label(teacher: saltfleet.Teacher, m: LlamaForCausalLM, sequences: int) -> None:
    """The work of some leases, here: a process with torch takes seconds to start."""
    while teacher.view().sequences < sequences:
        with teacher.lease(30) as lease:
            for i in range(lease.n):
                lease.submit_logits(i, m(torch.from_numpy(lease.tokens[i:i + 1, :-1]).long()).logits[0])


@torch.no_grad()
def expected(teacher: LlamaForCausalLM, batch: saltfleet.Batch, ids: int, among: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The K most probable ids of the corpus's vocabulary and their probabilities among so many ids (None: all of the model), by transformers."""
    p = torch.softmax(teacher(batch.input_ids).logits[..., :among].double(), -1)[..., :ids]
    value, index = p.topk(K, -1)
    order = index.argsort(-1)
    return index.gather(-1, order), value.gather(-1, order)


def check_labels(teacher: LlamaForCausalLM, batch: saltfleet.Batch, ids: int, among: int | None = None) -> None:
    index, value = expected(teacher, batch, ids, among)
    assert batch.soft_ids.shape[-1] == K
    equal = (batch.soft_ids == index).all(-1)
    assert equal.float().mean() > 0.9           # two ids of nearly the same probability may change places
    torch.testing.assert_close(batch.soft_weights[equal], value[equal].float(), rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(batch.tail, 1 - batch.soft_weights.sum(-1), rtol=0, atol=1e-5)


def check_loss(student: LlamaForCausalLM, batch: saltfleet.Batch, rule: str) -> None:
    """The formula, in float64 and with the whole distribution."""
    with torch.no_grad():
        logits = student(batch.input_ids).logits
    log_q = torch.log_softmax(logits.double(), -1)
    t = torch.zeros_like(log_q).scatter_add_(-1, batch.soft_ids, batch.soft_weights.double())
    tail, y = batch.tail.double(), batch.labels[..., None]
    soft = -(t * log_q).sum(-1)
    if rule == "true_token":
        soft = soft - tail * log_q.gather(-1, y)[..., 0]
    elif rule == "renormalise":
        soft = soft / t.sum(-1)
    else:
        soft = soft - tail * torch.log(1 - log_q.exp().gather(-1, batch.soft_ids).sum(-1))
    want = (0.5 * soft - 0.5 * log_q.gather(-1, y)[..., 0]).mean()
    assert saltfleet.salt_loss(logits, batch).item() == pytest.approx(want.item(), abs=2e-5)


@pytest.mark.parametrize("who", ["teacherd", "transformers"])
def test_padded(make_fleet: Callable[..., Fleet], tmp_path: pathlib.Path, who: str) -> None:
    corpus(tmp_path, tokenizer(tmp_path / "teacher", IDS))
    teacher, student = model(TEACHER, tmp_path / "teacher"), model(STUDENT)
    fleet = fleet_of(make_fleet, tmp_path, who)
    teach(fleet, who, tmp_path / "teacher")
    dataset = saltfleet.SaltDataset(fleet.config, vocab_size=STUDENT, timeout_s=60)
    assert dataset.plan.vocab == IDS
    batch = next(iter(dataset))
    check_labels(teacher, batch, IDS, IDS if who == "teacherd" else None)       # teacherd leaves the others out
    for rule in ("true_token", "ghost", "renormalise"):
        check_loss(student, dataclasses.replace(batch, residual=rule), rule)
    with pytest.raises(saltfleet.SaltMismatch, match="151600.*151665"):
        saltfleet.SaltDataset(fleet.config, vocab_size=151600)


def test_more_ids(make_fleet: Callable[..., Fleet], tmp_path: pathlib.Path) -> None:
    """The teacher's tokenizer has the 4,096 ids of the corpus's and 70 more; in another one id 1,000 is another token."""
    corpus(tmp_path, TOKENIZER)
    tokenizer(tmp_path / "teacher", 4166)
    teacher = model(4166, tmp_path / "teacher")
    fleet = fleet_of(make_fleet, tmp_path, "transformers")
    fleet.selectord()
    rows = iter(saltfleet.SaltDataset(fleet.config, timeout_s=60))
    served = saltfleet.Model(tmp_path / "teacher", 4166, 64, corpus_tokenizer=TOKENIZER / "tokenizer.json")
    with saltfleet.Teacher(fleet.config, [served]) as t:
        thread = threading.Thread(target=label, args=(t, teacher, 2))
        thread.start()
        check_labels(teacher, next(rows), 4096)
        thread.join()

    # id 1000 is another token in the teacher's tokenizer: the teacher refuses to start, before it makes a label
    token = {i: t for t, i in json.loads((TOKENIZER / "tokenizer.json").read_text())["model"]["vocab"].items()}[1000]
    other = tokenizer(tmp_path / "other", 4166, **{token: "other"})
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "teacher" / name, other)
    with pytest.raises(saltfleet.SaltMismatch) as e:
        saltfleet.Teacher(fleet.config, [saltfleet.Model(other, 4166, 64, corpus_tokenizer=TOKENIZER / "tokenizer.json")])
    assert "id 1000" in str(e.value) and token in str(e.value) and "other" in str(e.value)
    # and without the comparison, by selectord
    with saltfleet.Teacher(fleet.config, [saltfleet.Model(other, 4166, 64)]) as unchecked:
        with pytest.raises(saltfleet.SaltMismatch, match="models.tokenizer"):
            unchecked.lease(20)
