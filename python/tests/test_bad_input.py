# SPDX-License-Identifier: Apache-2.0
"""Wrong files, arguments and arrays: each is an exception of saltfleet.errors that names the thing, what was expected and what was found, and
the fleet goes on."""
from __future__ import annotations

import pathlib
import shutil
from typing import Any, Callable

import numpy as np
import pytest
import torch

import saltfleet
from fleet import CONTEXT, SOURCE, TOKENIZER, Fleet, make_corpus, make_model
from saltfleet import SaltDataset

FOREIGN = {"teacher": {"compute_class": "fp32/any"}}


def first(fleet: Fleet, *overrides: str, **options: Any) -> saltfleet.Batch:
    return next(iter(SaltDataset(fleet.config, overrides=overrides, timeout_s=20, **options)))


def raised(kind: type[Exception], f: Callable[[], Any], *parts: str) -> None:
    """f raises kind, and each part is in its text."""
    with pytest.raises(kind) as e:
        f()
    assert type(e.value) is kind
    missing = [part for part in parts if part not in str(e.value)]
    assert not missing, f"{e.value}: expected {missing}"


@pytest.fixture(autouse=True)
def nothing_lost(request: pytest.FixtureRequest) -> Any:
    """After each test of the running fleet it still serves."""
    yield
    if "fleet" in request.fixturenames:
        assert first(request.getfixturevalue("fleet")).phase == 1


# ---- a fleet.yaml that is not the fleet's ----

@pytest.mark.parametrize("override, expected, found", [
    ("labels.tau=2", "1", "2"), ("labels.samples=9", "8", "9"), ("labels.kind=topk", "sampled", "topk"), ("labels.seed=8", "7", "8")])
def test_other_label_set(fleet: Fleet, override: str, expected: str, found: str) -> None:
    name = override.split("=")[0].split(".")[1]
    raised(saltfleet.SaltMismatch, lambda: first(fleet, override), f"label_set.{name}", f"expected {expected}", f"found {found}")


def test_other_context(fleet: Fleet) -> None:
    raised(saltfleet.SaltMismatch, lambda: first(fleet, "corpus.context=16"), "corpus.context", "expected 32", "found 16")


def test_other_corpus(fleet: Fleet, tmp_path: pathlib.Path) -> None:
    theirs = pathlib.Path(fleet.sections["corpus"]["train"])
    make_corpus(tmp_path / "other", tmp_path / "held", [str(SOURCE / "README.md")])
    windows = [saltfleet.Corpus(p).n_windows(CONTEXT) for p in (theirs, tmp_path / "other")]
    raised(saltfleet.SaltMismatch, lambda: first(fleet, f"corpus.train={tmp_path / 'other'}"), "corpus.n_windows", *map(str, windows))
    # of the same size, with one token changed: as raw ids, since PREFIX.json would tell
    tokens = saltfleet.Corpus(theirs)[:].astype(np.uint16)
    tokens[77] += 1
    tokens.tofile(changed := tmp_path / "changed.bin")
    prints = [str(saltfleet.Corpus(p, dtype).info.fingerprint) for p, dtype in ((theirs, None), (changed, "uint16"))]
    raised(saltfleet.SaltMismatch, lambda: first(fleet, f"corpus.train={changed}", "corpus.dtype=uint16", vocab_size=4096), "corpus.fingerprint",
           *prints)


def test_options(fleet: Fleet) -> None:
    raised(saltfleet.SaltConfigError, lambda: first(fleet, "trainer.batches=8"), "trainer.batches")
    raised(saltfleet.SaltConfigError, lambda: first(fleet, "trainer.batch=0"), "trainer.batch", "0")
    raised(saltfleet.SaltNotFound, lambda: SaltDataset(fleet.folder / "nothing.yaml"), "nothing.yaml")
    raised(saltfleet.SaltNotFound, lambda: first(fleet, "corpus.train=nothing"), "nothing")


# ---- places of processes ----

def test_places(fleet: Fleet) -> None:
    raised(saltfleet.SaltConfigError, lambda: SaltDataset(fleet.config, rank=2, world_size=2), "rank", "0 to 1", "found 2")
    raised(saltfleet.SaltConfigError, lambda: SaltDataset(fleet.config, rank=-1, world_size=2), "rank", "0 to 1", "found -1")
    raised(saltfleet.SaltConfigError, lambda: SaltDataset(fleet.config, rank=0, world_size=3), "trainer.batch", "world_size 3", "found 8")
    raised(saltfleet.SaltConfigError, lambda: SaltDataset(fleet.config, rank=1), "rank 1", "world_size None")
    raised(saltfleet.SaltConfigError, lambda: SaltDataset(fleet.config, micro_batches=3), "micro_batches", "8 rows", "found 3")
    raised(saltfleet.SaltRangeError, lambda: SaltDataset(fleet.config).set_step(13), "0 to 12", "found 13")
    raised(saltfleet.SaltRangeError, lambda: saltfleet.Trainer(fleet.config).rows(0, 4, 8), "trainer.batch = 8", "8 from row 4")
    raised(saltfleet.SaltRangeError, lambda: SaltDataset(fleet.config, vocab_size=-1), "vocab", "found -1")


@pytest.mark.parametrize("call", ["checkpointed", "release", "switch", "kd_weight"])
def test_steps(fleet: Fleet, call: str) -> None:
    raised(saltfleet.SaltRangeError, lambda: getattr(SaltDataset(fleet.config), call)(-1), f"{call}: step", "found -1")


def test_checkpoint_after_the_end(fleet: Fleet) -> None:
    """In silence it would release the teachers, and the rows of phase one would never be labelled."""
    dataset = SaltDataset(fleet.config)
    raised(saltfleet.SaltRangeError, lambda: dataset.checkpointed(13), "checkpointed: step", "trainer.steps = 12", "found 13")
    dataset.flush(20)
    assert not dataset.view().released and dataset.view().checkpointed == 0


def test_heldout(fleet: Fleet) -> None:
    for arguments in ((0,), (-1,), (8, -5)):
        raised(saltfleet.SaltRangeError, lambda: list(SaltDataset(fleet.config).heldout(*arguments)), "batch_size >= 1", str(arguments[-1]))


# ---- selectord ----

def test_no_selectord(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet()
    endpoint = fleet.sections["selector"]["endpoints"][0]
    dataset = SaltDataset(fleet.config, timeout_s=1)
    raised(saltfleet.SaltTimeout, lambda: next(iter(dataset)), "step 0", "1 s", endpoint)
    fleet.up()                              # and when it comes, the same call succeeds
    dataset.timeout_s = 30
    assert next(iter(dataset)).step == 0
    dataset.close()


def test_closed(fleet: Fleet) -> None:
    trainer = saltfleet.Trainer(fleet.config)
    trainer.close()
    raised(saltfleet.SaltClosed, lambda: trainer.rows(0), "Trainer")


# ---- teachers ----

def test_other_teacher(make_fleet: Callable[..., Fleet], assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    fleet = make_fleet(**FOREIGN)
    fleet.selectord()
    other = make_model(tmp_path / "other", 12)
    theirs, ours = saltfleet.model_identity(assets / "teacher"), saltfleet.model_identity(other)
    teacher = saltfleet.Teacher(fleet.config, [saltfleet.Model(other, 4096, CONTEXT)])
    raised(saltfleet.SaltMismatch, lambda: teacher.lease(20), "models.fingerprint", theirs, ours)
    teacher.close()
    # of another class: the labels of a set are of one. By the option, and by a fleet.yaml that is not selectord's
    served = [saltfleet.Model(assets / "teacher", 4096, CONTEXT)]
    raised(saltfleet.SaltMismatch, lambda: saltfleet.Teacher(fleet.config, served, compute_class="bf16/any"), "compute_class", "fp32/any", "bf16/any")
    with saltfleet.Teacher(fleet.config, served, overrides=["teacher.compute_class=bf16/any"]) as teacher:
        raised(saltfleet.SaltMismatch, lambda: teacher.lease(20), "compute_class", "fp32/any", "bf16/any")
    raised(saltfleet.SaltConfigError, lambda: saltfleet.Teacher(fleet.config, served, overrides=["teacher.compute_class=auto"]),
           "teacher.compute_class", "auto")


def test_models(make_fleet: Callable[..., Fleet], assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    fleet = make_fleet(**FOREIGN)

    def teacher(*args: Any, **kwargs: Any) -> saltfleet.Teacher:
        return saltfleet.Teacher(fleet.config, [saltfleet.Model(*args, **kwargs)])

    fleet.selectord()
    raised(saltfleet.SaltNotFound, lambda: teacher(tmp_path / "nothing", 4096, CONTEXT), "nothing")
    raised(saltfleet.SaltMismatch, lambda: teacher(assets / "teacher", 4000, CONTEXT).lease(20), "models.vocab_size", "4096", "found 4000")
    raised(saltfleet.SaltMismatch, lambda: teacher(assets / "teacher", 4096, 16).lease(20), "32", "found 16")
    # another tokenizer: the first id that differs is named
    shutil.copytree(assets / "teacher", other := tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"the"', '"teh"'))
    raised(saltfleet.SaltMismatch, lambda: teacher(other, 4096, CONTEXT, corpus_tokenizer=TOKENIZER / "tokenizer.json"), '"the"', '"teh"', "id ")
    raised(saltfleet.SaltMismatch, lambda: teacher(other, 4096, CONTEXT).lease(20), "models.tokenizer")


def test_logits(make_fleet: Callable[..., Fleet], assets: pathlib.Path) -> None:
    fleet = make_fleet(**FOREIGN)
    fleet.selectord()
    trainer = saltfleet.Trainer(fleet.config)
    try:
        trainer.rows(0, timeout_s=0.1)
    except saltfleet.SaltTimeout:
        pass                                # but now selectord has work
    with saltfleet.Teacher(fleet.config, [saltfleet.Model(assets / "teacher", 4096, CONTEXT)]) as teacher, teacher.lease(30) as lease:
        good = np.zeros((CONTEXT, 4096), np.float32)
        bad = good.copy()
        bad[3, 5] = np.nan
        raised(saltfleet.SaltRangeError, lambda: lease.submit_logits(0, good.astype(np.float16)), "sequence 0", "float32", "float16")
        raised(saltfleet.SaltRangeError, lambda: lease.submit_logits(0, torch.zeros(CONTEXT, 4096, dtype=torch.bfloat16)), "float32", "bfloat16")
        raised(saltfleet.SaltRangeError, lambda: lease.submit_logits(0, torch.zeros(CONTEXT, 4096, device="meta")), "CPU", "meta")
        raised(saltfleet.SaltRangeError, lambda: lease.submit_logits(0, good[:, :4000]), "4096", "4000")
        raised(saltfleet.SaltRangeError, lambda: lease.submit_logits(0, good[:5]), str(CONTEXT), "5")
        raised(saltfleet.SaltRangeError, lambda: lease.submit_logits(lease.n, good), str(lease.n))
        raised(saltfleet.SaltNonfinite, lambda: lease.submit_logits(0, bad), "3", "5", "nan")
        for i in range(1, lease.n):         # the others of the lease are not lost
            lease.submit_logits(i, good)
        teacher.flush(30)
        assert teacher.view().sequences == lease.n - 1 and teacher.view().unconfirmed == 0
    trainer.close()


# ---- students ----

def test_vocabulary(fleet: Fleet) -> None:
    raised(saltfleet.SaltMismatch, lambda: SaltDataset(fleet.config, vocab_size=4000), "vocabulary", "4000", "4096")
    batch = first(fleet)
    n, length = batch.labels.shape
    raised(saltfleet.SaltRangeError, lambda: saltfleet.salt_loss(torch.zeros(n, length, 4096, dtype=torch.float16), batch), "float32", "float16")
    raised(saltfleet.SaltNonfinite, lambda: saltfleet.salt_loss(torch.full((n, length, 4096), torch.nan), batch), "step 0", "row 0", "nan")
    raised(saltfleet.SaltRangeError, lambda: saltfleet.salt_loss(torch.zeros(n, length, 4000), batch), "4000", "4096")
    raised(saltfleet.SaltRangeError, lambda: saltfleet.salt_loss(torch.zeros(n, length + 1, 4096), batch), str(length), str(length + 1))
    raised(saltfleet.SaltRangeError, lambda: saltfleet.salt_loss_from_hidden(torch.zeros(n, length, 32), torch.zeros(4096, 33), batch), "32", "33")


def test_device(fleet: Fleet) -> None:
    """The meta device stands for a GPU: nothing of a tensor there may be read on the CPU."""
    batch = first(fleet)
    shape = (*batch.labels.shape, 4096)
    raised(saltfleet.SaltRangeError, lambda: saltfleet.salt_loss(torch.zeros(shape, device="meta"), batch), "meta", "cpu")
    raised(saltfleet.SaltRangeError, lambda: saltfleet.salt_loss_from_hidden(torch.zeros(*shape[:2], 32, device="meta"),
                                                                             torch.zeros(4096, 32, device="meta"), batch), "meta", "cpu")
    raised(saltfleet.SaltRangeError, lambda: saltfleet.salt_metrics(torch.zeros(shape, device="meta"), batch), "meta", "cpu")
