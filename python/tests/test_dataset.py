# SPDX-License-Identifier: Apache-2.0
"""SaltDataset against a real selectord and teacherd. The fleet of `fleet`: 12 steps of 8 rows of 32 tokens, the switch at step 6."""
from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import saltfleet
from saltfleet import Rows, SaltDataset
from saltfleet._ffi import ffi
from saltfleet.dataset import Batch, batch_of

STEPS, SWITCH, ROWS, L, N = 12, 6, 8, 32, 8


def open_ds(fleet, *args, **kwargs):
    return SaltDataset(fleet.config, *args, **{"timeout_s": 30, **kwargs})


def same(a: Batch, b: Batch) -> bool:
    x, y = a.as_dict(), b.as_dict()
    return x.keys() == y.keys() and all(torch.equal(v, y[k]) if isinstance(v, torch.Tensor) else v == y[k] for k, v in x.items())


def dense_of(b: Batch, vocab: int) -> torch.Tensor:
    """[B, L, V] float64, so that batches of other padding can be compared."""
    return torch.zeros(*b.input_ids.shape, vocab, dtype=torch.float64).scatter_add_(2, b.soft_ids, b.soft_weights.double())


@pytest.fixture(scope="module")
def whole(fleet):
    """All batches of one process."""
    batches = list(open_ds(fleet))
    assert [b.step for b in batches] == list(range(STEPS))
    return batches


# ---- what a batch is ----

def test_padding_is_the_csr():
    """Against plain loops, with positions without entries, and a row in quarantine."""
    rng = np.random.default_rng(5)
    n, context = 3, 7
    counts = rng.integers(0, 6, n * context)
    counts[context:2 * context] = 0
    a = {"offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), "seqs": np.array([9, 8, 7], np.uint64),
         "tokens": rng.integers(0, 100, (n, context + 1)).astype(np.int32), "kd_weight": np.array([.5, 0, .5], np.float32),
         "quarantined": np.array([0, 1, 0], np.uint8), "ids": rng.integers(0, 100, counts.sum()).astype(np.int32),
         "weights": rng.random(counts.sum()).astype(np.float32), "tail": rng.random(n * context).astype(np.float32)}
    c = ffi.new("struct salt_rows *", {"n": n, "context": context, "step": 4, "phase": 1, "kind": 1, "max_entries": counts.max()})
    for name, array in a.items():
        setattr(c, name, ffi.cast(ffi.typeof(getattr(c, name)), array.ctypes.data))
    b = batch_of(Rows(c, None), "ghost")
    assert b.soft_ids.shape == b.soft_weights.shape == (n, context, counts.max())
    assert b.soft_ids.dtype == b.input_ids.dtype == b.labels.dtype == b.seqs.dtype == torch.int64
    assert b.soft_weights.dtype == b.tail.dtype == b.kd_weight.dtype == torch.float32
    for p in range(n * context):
        i, t = divmod(p, context)
        entries, rest = slice(a["offsets"][p], a["offsets"][p + 1]), int(counts.max() - counts[p])
        assert b.soft_ids[i, t].tolist() == [*a["ids"][entries].tolist(), *[0] * rest]
        assert b.soft_weights[i, t].tolist() == [*a["weights"][entries].tolist(), *[0.0] * rest]
    tokens = torch.from_numpy(a["tokens"]).long()
    assert torch.equal(b.input_ids, tokens[:, :-1]) and torch.equal(b.labels, tokens[:, 1:]) and b.seqs.tolist() == [9, 8, 7]
    assert torch.equal(b.tail.flatten(), torch.from_numpy(a["tail"])) and b.kd_weight.tolist() == [.5, 0, .5]
    assert b.token_weight == "constant"
    assert (b.step, b.phase, b.kind, b.residual) == (4, 1, "sampled", "ghost")
    again = Batch.from_dict({**b.as_dict(), "other": 1})
    assert same(b, again) and again.dense is None
    assert b.to("meta").soft_ids.device.type == "meta" and b.soft_ids.device.type == "cpu"
    c.phase, c.kind, c.offsets = 2, 0, ffi.NULL
    with pytest.raises(saltfleet.SaltRangeError, match="phase 2, kind 0"):
        Rows(c, None).padded()


def test_phases(whole, assets):
    corpus = saltfleet.Corpus(assets / "train")
    for b in whole:
        assert b.input_ids.shape == b.labels.shape == (ROWS, L)
        for seq, x, y in zip(b.seqs.tolist(), b.input_ids, b.labels):
            window = corpus.window(seq, L)
            assert x.tolist() == window[:-1].tolist() and y.tolist() == window[1:].tolist()
        if b.step < SWITCH:
            assert (b.phase, b.kind) == (1, "sampled") and torch.equal(b.kd_weight, torch.full((ROWS,), 0.667))
            counts = b.soft_weights.double() * N
            assert torch.allclose(counts, counts.round(), atol=1e-5) and torch.allclose(counts.sum(2), torch.full((ROWS, L), float(N), dtype=torch.float64))
            real = b.soft_weights > 0
            assert bool(real.any(2).all()) and int(real.sum(2).max()) == real.shape[2]      # K is what the longest needs
            assert bool((b.soft_ids.diff(dim=2)[real[:, :, 1:]] > 0).all()) and bool((b.soft_ids[~real] == 0).all())
            assert bool((b.tail == 0).all())
        else:
            assert (b.phase, b.kind) == (2, "none") and bool((b.kd_weight == 0).all())
            assert b.soft_ids is b.soft_weights is b.tail is b.dense is None
    seqs = torch.cat([b.seqs for b in whole])
    assert len(set(seqs.tolist())) == STEPS * ROWS


@pytest.mark.parametrize("kind", ["topk", "dense"])
def test_other_kinds(make_fleet, kind):
    fleet = make_fleet(labels={"kind": kind, "k": 5}, trainer={"steps": 2}, phase_one={"steps": 1, "residual": "ghost", "token_weight": "margin"}).up()
    ds = open_ds(fleet)
    b, last = ds
    assert (b.kind, b.residual, b.token_weight, last.kind) == (kind, "ghost", "margin", "none")
    if kind == "dense":
        assert b.dense.shape == (ROWS, L, ds.plan.vocab) and torch.allclose(b.dense.sum(2), torch.ones(ROWS, L), atol=1e-4)
        assert b.soft_ids is b.soft_weights is b.tail is None
    else:
        assert b.soft_ids.shape == (ROWS, L, 5) and torch.allclose(b.soft_weights.sum(2) + b.tail, torch.ones(ROWS, L), atol=1e-4)
        assert bool((b.tail > 0).all()) and b.dense is None


# ---- any number of processes, any position ----

@pytest.mark.parametrize("world_size", [2, 4])
def test_world_sizes(fleet, whole, world_size):
    parts = [list(open_ds(fleet, rank, world_size)) for rank in range(world_size)]
    vocab = saltfleet.Client(fleet.config).plan.vocab
    for step, b in enumerate(whole):
        mine = [p[step] for p in parts]
        assert all(p.input_ids.shape == (ROWS // world_size, L) for p in mine)
        for name in ("input_ids", "labels", "seqs", "kd_weight"):
            assert torch.equal(torch.cat([getattr(p, name) for p in mine]), getattr(b, name)), (step, name)
        if b.phase == 1:
            assert torch.equal(torch.cat([dense_of(p, vocab) for p in mine]), dense_of(b, vocab))


def test_micro_batches(fleet, whole):
    ds = open_ds(fleet, 1, 2, micro_batches=2)
    assert len(ds) == 2 * STEPS
    it = iter(ds)
    for step in range(STEPS):
        first = next(it)
        assert ds.state_dict() == {"step": step} and len(ds) == 2 * (STEPS - step) - 1
        second = next(it)
        assert first.step == second.step == step and ds.state_dict() == {"step": step + 1}
        assert torch.equal(torch.cat([first.seqs, second.seqs]), whole[step].seqs[ROWS // 2:])
    assert list(it) == []


@pytest.mark.parametrize("step", [0, 1, SWITCH - 1, SWITCH, SWITCH + 1, STEPS - 1, STEPS])
def test_resume(fleet, whole, step):
    """From the state of a loader of one process, at 1 and 2 processes."""
    first = open_ds(fleet)
    it = iter(first)
    for _ in range(step):
        next(it)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    assert state == {"step": step} and len(first) == STEPS - step
    first.close()
    ds = open_ds(fleet)
    ds.load_state_dict(state)
    assert len(ds) == STEPS - step
    rest = list(ds)
    assert len(rest) == STEPS - step and all(same(a, b) for a, b in zip(rest, whole[step:]))
    assert list(ds) == [] and len(ds) == 0
    half = open_ds(fleet, 1, 2)
    half.load_state_dict(state)
    assert [b.seqs.tolist() for b in half] == [b.seqs[ROWS // 2:].tolist() for b in whole[step:]]


def test_set_step_while_it_is_read(fleet, whole):
    ds = open_ds(fleet)
    it = iter(ds)
    assert same(next(it), whole[0])
    for step in (7, 2, 2, 0, 11):
        ds.set_step(step)
        assert same(next(it), whole[step]) and ds.state_dict() == {"step": step + 1}
    for wrong in (-1, STEPS + 1):
        with pytest.raises(saltfleet.SaltRangeError, match=rf"0 to {STEPS} .*found {wrong}"):
            ds.set_step(wrong)
    with pytest.raises(saltfleet.SaltConfigError, match=r"step.*found keys \['epoch'\]"):
        ds.load_state_dict({"epoch": 1})


def test_a_second_iteration_ends_the_first(fleet, whole):
    ds = open_ds(fleet)
    first = iter(ds)
    next(first)
    second = iter(ds)
    with pytest.raises(saltfleet.SaltClosed, match="another one began"):
        next(first)
    assert same(next(second), whole[1])


def test_an_iteration_that_is_left_ends_its_thread(fleet):
    def fetching():
        return [t for t in __import__("threading").enumerate() if t.name == "saltfleet-fetch"]

    gc.collect()
    before = len(fetching())
    for _ in open_ds(fleet):
        assert len(fetching()) == before + 1
        break
    gc.collect()
    assert len(fetching()) == before


# ---- loaders of torch ----

def test_dataloader(fleet, whole):
    for workers, context in ((0, None), (1, "fork"), (1, "spawn")):
        batches = list(DataLoader(open_ds(fleet), batch_size=None, num_workers=workers, multiprocessing_context=context))
        assert len(batches) == STEPS and all(same(a, b) for a, b in zip(batches, whole)), (workers, context)


def test_two_workers_are_refused(fleet):
    with pytest.raises(saltfleet.SaltConfigError, match="num_workers: expected 0 or 1, found 2"):
        next(iter(DataLoader(open_ds(fleet), batch_size=None, num_workers=2)))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop", [1, SWITCH, SWITCH + 2])
def test_stateful_dataloader(fleet, whole, workers, stop):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader():
        return stateful(open_ds(fleet), batch_size=None, num_workers=workers)

    first = loader()
    it = iter(first)
    for step in range(stop):
        assert same(next(it), whole[step])
    state = pickle.loads(pickle.dumps(first.state_dict()))
    del it, first
    second = loader()
    second.load_state_dict(state)
    rest = list(second)
    assert [b.step for b in rest] == list(range(stop, STEPS)) and all(same(a, b) for a, b in zip(rest, whole[stop:]))


def in_fork(ds, say):
    try:
        next(iter(ds))
        say.put("no error")
    except saltfleet.SaltForked as e:
        say.put(str(e))


def test_fork(fleet, whole):
    ds = open_ds(fleet)
    it = iter(ds)
    next(it)
    context = multiprocessing.get_context("fork")
    say = context.Queue()
    child = context.Process(target=in_fork, args=(ds, say))
    child.start()
    text = say.get(timeout=20)
    child.join(20)
    assert child.exitcode == 0 and f"opened in process {os.getpid()}" in text and str(child.pid) in text
    assert same(next(it), whole[1])     # the parent's goes on


# ---- wrong use ----

def test_wrong_place(fleet):
    for rank, world_size, text in ((2, 2, "rank: expected 0 to 1 .world_size 2., found 2"), (-1, 2, "found -1"),
                                   (0, 0, "world_size: expected at least 1, found 0"), (1, None, "found rank 1, world_size None"),
                                   (0, 3, "multiple of world_size 3, found 8")):
        with pytest.raises(saltfleet.SaltConfigError, match=text):
            open_ds(fleet, rank, world_size)
    with pytest.raises(saltfleet.SaltConfigError, match=r"divisor of the 4 rows.*batch 8 / world_size 2.*found 3"):
        open_ds(fleet, 0, 2, micro_batches=3)


def test_forgotten_world_size(fleet, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(saltfleet.SaltConfigError, match="one of 4 processes"):
        open_ds(fleet)


def test_world_size_of_torch_distributed(fleet, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        with pytest.raises(saltfleet.SaltConfigError, match="divisor of the 1 processes of torch.distributed, found 2"):
            open_ds(fleet, 0, 2)
        assert next(iter(open_ds(fleet))).step == 0
    finally:
        torch.distributed.destroy_process_group()


def test_wrong_vocabulary(fleet):
    vocab = saltfleet.Client(fleet.config).plan.vocab
    assert open_ds(fleet, vocab_size=vocab + 64).plan.vocab == vocab
    with pytest.raises((saltfleet.SaltMismatch, saltfleet.SaltConfigError, saltfleet.SaltDataError)) as e:
        open_ds(fleet, vocab_size=vocab - 1)
    assert str(vocab) in str(e.value) and str(vocab - 1) in str(e.value), e.value


def test_wrong_plan(fleet):
    with pytest.raises(saltfleet.SaltMismatch, match="label_set.samples.*expected 8, found 9"):
        next(iter(open_ds(fleet, overrides=["labels.samples=9"])))
    with pytest.raises(saltfleet.SaltMismatch, match="label_set.tau.*expected 1, found 2"):
        next(iter(open_ds(fleet, overrides=["labels.tau=2"])))


def test_other_corpus(fleet, assets):
    windows = [saltfleet.Corpus(assets / name).n_windows(L) for name in ("train", "held")]
    with pytest.raises(saltfleet.SaltMismatch, match=f"corpus.*expected {windows[0]}, found {windows[1]}"):
        next(iter(open_ds(fleet, overrides=[f"corpus.train={assets / 'held'}"])))


def test_wrong_file(tmp_path):
    with pytest.raises(saltfleet.SaltNotFound, match="nowhere.yaml"):
        SaltDataset(tmp_path / "nowhere.yaml")
    (tmp_path / "f.yaml").write_text("trainer: {batsh: 8}\n")
    with pytest.raises(saltfleet.SaltConfigError, match=r"f.yaml:1.*batsh"):
        SaltDataset(tmp_path / "f.yaml")
    with pytest.raises(saltfleet.SaltConfigError, match="overrides: expected a sequence"):
        SaltDataset(tmp_path / "f.yaml", overrides="trainer.batch=8")


# ---- networks and the life of a run ----

def test_without_selectord(make_fleet):
    """Phase one waits and says for what; phase two needs nobody, also in a process that begins there."""
    fleet = make_fleet()
    endpoint = fleet.sections["selector"]["endpoints"][0]
    ds = open_ds(fleet, timeout_s=0.5)
    it = iter(ds)
    with pytest.raises(saltfleet.SaltTimeout, match=f"step 0 within 0.5 s.*{endpoint}"):
        next(it)
    ds.set_step(SWITCH)
    assert next(it).phase == 2
    code = f"import saltfleet; d = saltfleet.SaltDataset({str(fleet.config)!r}); d.load_state_dict({{'step': 7}}); print([b.step for b in d])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(list(range(7, STEPS))), done.stderr
    ds.set_step(0)
    with pytest.raises(saltfleet.SaltTimeout):
        next(it)
    fleet.up()
    ds.timeout_s = 30
    ds.set_step(0)
    assert next(it).step == 0       # the same iteration goes on


def test_an_iterator_that_is_left_open(fleet):
    """The end of the process says nothing: its threads have ended by then."""
    code = (f"import saltfleet\nrows = iter(saltfleet.SaltDataset({os.fspath(fleet.config)!r}, overrides=['phase_one.steps=0', 'run.dir=left']))\n"
            "next(rows)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "ignored" not in done.stderr, done.stderr


def test_waiting_can_be_interrupted(make_fleet):
    ds = SaltDataset(make_fleet().config)

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            next(iter(ds))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            ds.trainer().rows(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begin < 20


def test_selectord_restarts(make_fleet, whole):
    fleet = make_fleet(selector={"label_ahead_steps": 2}).up()
    ds = open_ds(fleet, prefetch=1)
    it = iter(ds)
    assert same(next(it), whole[0])
    fleet.stop("selectord-0", signal.SIGKILL)
    fleet.selectord()
    assert all(same(next(it), whole[step]) for step in range(1, STEPS))


def test_teachers_are_released_at_the_switch(make_fleet):
    fleet = make_fleet().up()
    ds = open_ds(fleet)
    for b in ds:
        ds.checkpointed(b.step + 1)
        if b.step + 1 < SWITCH:
            assert not ds.view().released
        else:
            break
    ds.flush(20)
    assert ds.view().released and ds.view().checkpointed == SWITCH
    assert fleet.wait_end("teacherd-0") == 0
    assert len(list(ds)) == STEPS - SWITCH


def test_until_margin(make_fleet, whole):
    fleet = make_fleet(phase_one={"steps": 0, "until_margin": 0.1}).up()
    ds = open_ds(fleet)
    assert ds.plan.switch_step is None and ds.plan.margin_nats == 0.1
    it = iter(ds)
    for step in range(3):
        assert next(it).phase == 1
    with pytest.raises(saltfleet.SaltConfigError, match="not decided"):
        ds.release()
    ds.switch(3)
    assert ds.plan.switch_step == 3 and ds.state_dict() == {"step": 3, "switch_step": 3}
    b = next(it)
    assert (b.step, b.phase) == (3, 2)
    again = open_ds(fleet)
    again.load_state_dict(ds.state_dict())
    assert [(b.step, b.phase) for b in again] == [(step, 2) for step in range(4, STEPS)]


def test_heldout(fleet, assets):
    corpus = saltfleet.Corpus(assets / "held")
    n = corpus.n_windows(L)
    ds = open_ds(fleet)
    batches = list(ds.heldout(batch_size=16))
    assert torch.equal(torch.cat([b.seqs for b in batches]), torch.arange(n)) and all(b.phase == 2 for b in batches)
    assert torch.cat([b.labels for b in batches])[3].tolist() == corpus.window(3, L)[1:].tolist()
    halves = [torch.cat([b.seqs for b in open_ds(fleet, rank, 2).heldout(sequences=9)]) for rank in range(2)]
    assert [h.tolist() for h in halves] == [[0, 2, 4, 6, 8], [1, 3, 5, 7]]
