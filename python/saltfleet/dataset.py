# SPDX-License-Identifier: Apache-2.0
"""SaltDataset: the rows of a fleet as a torch IterableDataset, and Batch, what it yields.

Rows are a pure function of plan and step, so the state of a loader is one integer, the next step, at any number of processes.
"""
from __future__ import annotations

import collections
import dataclasses
import logging
import os
import sys
import threading
import time
import weakref
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from . import client, documents
from .corpus import Corpus
from .errors import SaltClosed, SaltConfigError, SaltForked, SaltRangeError, SaltTimeout

_log = logging.getLogger("saltfleet")
_SAY_S = 30.0       # interval of log lines while a loop waits


@dataclasses.dataclass
class Batch:
    """Rows of one step, or of a part of it. B rows of L targets; K is the largest number of entries that a
    position has.

    The label of position (b, t) is the teacher's distribution over token labels[b, t]: ascending soft_ids[b,
    t] with soft_weights[b, t], padded with id 0 and weight 0, and `tail`, the probability outside of them. In
    phase two all soft members are None. Dense labels are in `dense` alone.

    With corpus.isolate_documents, labels are -100 at a token that ends a document, where nothing is to be
    predicted, and document_starts has the position at which each position's document begins.
    model(batch.input_ids, **batch.forward_kwargs()) keeps the attention of a transformers model inside
    documents; saltfleet.documents has the forms for other attention implementations.
    """

    input_ids: torch.Tensor                     # int64 [B, L]
    labels: torch.Tensor                        # int64 [B, L]: the next tokens, not to be shifted again; -100: none
    kd_weight: torch.Tensor                     # float32 [B]: distillation weight; 0: no label
    seqs: torch.Tensor                          # int64 [B]: number of the sequence in the corpus
    soft_ids: torch.Tensor | None = None        # int64 [B, L, K]
    soft_weights: torch.Tensor | None = None    # float32 [B, L, K]
    tail: torch.Tensor | None = None            # float32 [B, L]
    dense: torch.Tensor | None = None           # float32 [B, L, V]
    document_starts: torch.Tensor | None = None     # int64 [B, L]; None: documents are not isolated
    step: int = 0
    phase: int = 2
    kind: str = "none"                          # "sampled", "topk", "dense"; "none" in phase two
    residual: str = "true_token"                # where the tail goes: "true_token", "ghost", "renormalise"
    token_weight: str = "constant"              # of kd_weight: "constant", "teacher_confidence", "margin"
    vocab: int | None = None                    # ids are below it; None: salt_loss finds the largest id

    def _map(self, f: Any) -> Batch:
        return Batch(**{k: f(v) if isinstance(v, torch.Tensor) else v for k, v in vars(self).items()})

    def forward_kwargs(self, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        """position_ids and attention_mask for a transformers model of this dtype; {} if documents are not
        isolated."""
        return documents.forward_kwargs(self.document_starts, dtype)

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._map(lambda t: t.pin_memory())

    def as_dict(self) -> dict[str, Any]:
        """All members that are not None."""
        return {k: v for k, v in vars(self).items() if v is not None}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Batch:
        """The inverse of as_dict; other keys are ignored."""
        return cls(**{f.name: d[f.name] for f in dataclasses.fields(cls) if f.name in d})


def _isolate(b: Batch, end: int | None) -> Batch:
    if end is not None:
        b.labels = b.labels.masked_fill(b.input_ids == end, -100)
        b.document_starts = documents.starts_of(b.input_ids, end)
    return b


def batch_of(rows: client.Rows, residual: str, token_weight: str = "constant", document_end: int | None = None) -> Batch:
    """A Batch with copies of the rows' arrays, so that the rows can be freed."""
    tokens = torch.from_numpy(rows.tokens.astype(np.int64))
    b = Batch(input_ids=tokens[:, :-1].contiguous(), labels=tokens[:, 1:].contiguous(), kd_weight=torch.from_numpy(rows.kd_weight.copy()),
              seqs=torch.from_numpy(rows.seqs.astype(np.int64)), step=rows.step, phase=rows.phase, kind=rows.kind, residual=residual,
              token_weight=token_weight)
    if rows.dense is not None:
        b.dense = torch.from_numpy(rows.dense.copy()).view(rows.n, rows.context, rows.vocab)
    elif rows.offsets is not None:
        b.soft_ids, b.soft_weights = (torch.from_numpy(a).view(rows.n, rows.context, -1) for a in rows.padded())
        b.tail = torch.from_numpy(rows.tail.copy()).view(rows.n, rows.context)      # type: ignore[union-attr]
    return _isolate(b, document_end)


class SaltDataset(IterableDataset[Batch]):
    """Batches of the run that fleet.yaml describes, from step 0, or that of load_state_dict, to the last.

    config          path of fleet.yaml
    rank            this process takes rows [rank * B, (rank + 1) * B) of every step, B = batch / world_size.
    world_size      Processes that hold parts of one replica (tensor parallel) have the same rank. Give both
                    or neither; neither means one process
    overrides       texts "section.key=value"
    vocab_size      ids of the student's output layer, if more than the corpus's vocabulary (a padded one)
    prefetch        steps that are fetched ahead
    device          batches are moved there; None: they stay in CPU memory
    timeout_s       a batch that takes longer raises SaltTimeout, after which next() may be called again.
                    None: no limit; the reason of a wait is logged (logger "saltfleet")
    micro_batches   number of batches per step, of B / micro_batches rows each

    Give it to a DataLoader with batch_size=None and num_workers 0 or 1. With 1 the worker has a copy: the
    state_dict of this object does not advance, and switch() and set_step() do not reach the copy. Errors:
    saltfleet.errors; all except SaltTimeout are final.
    """

    def __init__(self, config: str | os.PathLike[str], rank: int | None = None, world_size: int | None = None, *,
                 overrides: Sequence[str] = (), vocab_size: int | None = None, prefetch: int = 4, device: Any = None,
                 timeout_s: float | None = None, micro_batches: int = 1):
        super().__init__()
        self.rank, self.world_size = _place(rank, world_size)
        if prefetch < 1:
            raise SaltConfigError(f"SaltDataset: prefetch: expected at least 1, found {prefetch}")
        if micro_batches < 1:
            raise SaltConfigError(f"SaltDataset: micro_batches: expected at least 1, found {micro_batches}")
        self.micro_batches, self.device, self.timeout_s, self.prefetch = micro_batches, device, timeout_s, prefetch
        self._open: dict[str, Any] = {"config": os.fspath(config), "overrides": overrides, "rank": self.rank, "vocab": vocab_size or 0,
                      "prefetch_steps": prefetch}
        self._step = self._part = 0                 # of the next batch
        self._switch: int | None = None             # set by switch()
        self._current: weakref.ref[_Iterator] | None = None     # one that is dropped ends its thread
        self._trainer: client.Trainer | None = None
        self._pid = os.getpid()
        self.plan = self.trainer().plan
        if self.plan.batch % self.world_size:
            raise SaltConfigError(f"SaltDataset: trainer.batch of {config}: expected a multiple of world_size {self.world_size}, found "
                                  f"{self.plan.batch}")
        self.rows_per_step = self.plan.batch // self.world_size
        if self.rows_per_step % micro_batches:
            raise SaltConfigError(f"SaltDataset: micro_batches: expected a divisor of the {self.rows_per_step} rows that a process has in each "
                                  f"step (trainer.batch {self.plan.batch} / world_size {self.world_size}), found {micro_batches}")

    # ---- what is read and said ----

    def trainer(self) -> client.Trainer:
        """The saltfleet.Trainer. One worker of a DataLoader opens its own; any other fork is rejected."""
        if os.getpid() != self._pid:
            if get_worker_info() is None:
                raise SaltForked(f"SaltDataset: opened in process {self._pid}, used in its fork {os.getpid()}: make it in the process that "
                                 "uses it")
            self._pid, self._trainer, self._current = os.getpid(), None, None
        if self._trainer is None:
            self._trainer = client.Trainer(**self._open)
            if self._switch is not None:
                self._trainer.switch(self._switch)
        return self._trainer

    def view(self) -> client.View:
        """The present state: rows ready, the reason of a wait, what selectord has acknowledged."""
        return self.trainer().view()

    def kd_weight(self, step: int) -> float:
        return self.trainer().kd_weight(step)

    def checkpointed(self, step: int) -> None:
        """States that a checkpoint of `step` is on disk and that the run will not resume from older ones. At
        the switch or later this also releases the teachers. Returns at once; flush() waits until selectord
        has acknowledged it."""
        self.trainer().checkpointed(step)
        switch = self.trainer().plan.switch_step
        if switch is not None and 0 < switch <= step:
            self.release(switch)

    def release(self, step: int | None = None) -> None:
        """States that the checkpoint of the switch is on disk: no more labels are needed. checkpointed() does
        it too."""
        if step is None:
            step = self.trainer().plan.switch_step
            if step is None:
                raise SaltConfigError("SaltDataset.release: the switch is not decided yet (phase_one.until_margin): call switch(step) first")
        self.trainer().release(step)

    def switch(self, step: int) -> None:
        """With phase_one.until_margin: phase two begins at `step`. Batches fetched for later steps are dropped."""
        self.trainer().switch(step)
        self._switch = step
        self.plan = self.trainer().plan
        self._stop()

    def flush(self, timeout_s: float | None = None) -> None:
        """Waits until selectord has acknowledged checkpoints and release."""
        self.trainer().flush(timeout_s)

    def close(self) -> None:
        """Ends the prefetch thread and the connection. The dataset opens again when it is used."""
        self._stop()
        self._current = None
        if self._trainer is not None:
            self._trainer.close()
        self._trainer = None

    def _stop(self) -> None:
        iterator = None if self._current is None else self._current()
        if iterator is not None:
            iterator.stop()

    # ---- position ----

    def state_dict(self) -> dict[str, int]:
        """{"step": n}: n is the step of the next batch. Between the micro-batches of a step it is that step,
        which then begins again."""
        state = {"step": self._step}
        return state if self._switch is None else {**state, "switch_step": self._switch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continues from a state of a run with any number of processes."""
        if "step" not in state:
            raise SaltConfigError(f'SaltDataset.load_state_dict: expected {{"step": n}}, found keys {sorted(state)}')
        if state.get("switch_step") is not None:
            self.switch(int(state["switch_step"]))
        self.set_step(int(state["step"]))

    def set_step(self, step: int) -> None:
        """The next batch is the first of `step`."""
        if not 0 <= step <= self.plan.steps:
            raise SaltRangeError(f"SaltDataset: step: expected 0 to {self.plan.steps} (trainer.steps), found {step}")
        self._step, self._part = step, 0

    def __len__(self) -> int:
        """Batches left."""
        return (self.plan.steps - self._step) * self.micro_batches - self._part

    # ---- batches ----

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        if info is not None and info.num_workers > 1:
            raise SaltConfigError(f"SaltDataset: num_workers: expected 0 or 1, found {info.num_workers}: SaltDataset fetches in threads, and the "
                                  "rows of a step belong to one process")
        self.trainer()
        self._stop()
        self._part = 0
        iterator = _Iterator(self)
        self._current = weakref.ref(iterator)
        return iterator

    def heldout(self, batch_size: int = 8, sequences: int | None = None) -> Iterator[Batch]:
        """Batches of this process's share of the held-out corpus: sequence i belongs to process i mod
        world_size. sequences None: the first trainer.eval_sequences, 0: all."""
        if not self.plan.corpus_heldout:
            raise SaltConfigError(f"SaltDataset.heldout: {self._open['config']} names no corpus.heldout")
        if batch_size < 1 or (sequences or 0) < 0:
            raise SaltRangeError(f"SaltDataset.heldout: expected batch_size >= 1 and sequences >= 0 or None, found {batch_size} and {sequences}")
        corpus = Corpus(self.plan.corpus_heldout, self.plan.corpus_dtype or None)
        total = corpus.n_windows(self.plan.context)
        mine = range(self.rank, min(total, (self.plan.eval_sequences if sequences is None else sequences) or total), self.world_size)
        for at in range(0, len(mine), batch_size):
            seqs = mine[at:at + batch_size]
            tokens = torch.from_numpy(np.stack([corpus.window(i, self.plan.context) for i in seqs]).astype(np.int64))
            b = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), torch.zeros(len(seqs)), torch.tensor(list(seqs)),
                      vocab=self.plan.vocab)
            b = _isolate(b, self.plan.document_end)
            yield b if self.device is None else b.to(self.device)

    def __getstate__(self) -> dict[str, Any]:       # for a worker that is spawned
        return {**self.__dict__, "_trainer": None, "_current": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _pid=os.getpid())


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Checks rank and world_size, also against torch.distributed: without a world size every process would
    train the same rows."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    processes = torch.distributed.get_world_size() if distributed else int(os.environ.get("WORLD_SIZE") or 1)
    if rank is None and world_size is None:
        if processes > 1:
            raise SaltConfigError(f"SaltDataset: rank and world_size: expected them to be given, since this is one of {processes} processes "
                                  "(torch.distributed, WORLD_SIZE); found neither")
        return 0, 1
    if rank is None or world_size is None:
        raise SaltConfigError(f"SaltDataset: expected rank and world_size or neither, found rank {rank}, world_size {world_size}")
    if world_size < 1:
        raise SaltConfigError(f"SaltDataset: world_size: expected at least 1, found {world_size}")
    if not 0 <= rank < world_size:
        raise SaltConfigError(f"SaltDataset: rank: expected 0 to {world_size - 1} (world_size {world_size}), found {rank}")
    if distributed and processes % world_size:
        raise SaltConfigError(f"SaltDataset: world_size: expected a divisor of the {processes} processes of torch.distributed, found {world_size}")
    return rank, world_size


class _Iterator:
    """Batches in order, made by a thread. It follows set_step: batches fetched for another step are
    dropped."""

    def __init__(self, dataset: SaltDataset):
        self._dataset = dataset
        self._fetch: _Fetch | None = None

    def __iter__(self) -> _Iterator:
        return self

    def __next__(self) -> Batch:
        ds = self._dataset
        ds.trainer()                    # rejects a fork
        if ds._current is None or ds._current() is not self:
            raise SaltClosed("SaltDataset: this iteration has ended: another one began, or close() was called")
        if ds._step >= ds.plan.steps:
            self.stop()
            raise StopIteration
        if self._fetch is None or self._fetch.next != (ds._step, ds._part):
            self.stop()
            self._fetch = _Fetch(ds)
        batch = self._fetch.get(ds.timeout_s)
        ds._part += 1
        if ds._part == ds.micro_batches:
            ds._step, ds._part = ds._step + 1, 0
        return batch if ds.device is None else batch.to(ds.device, non_blocking=True)

    def stop(self) -> None:
        if self._fetch is not None:
            self._fetch.stop()
            self._fetch = None

    __del__ = stop


class _Fetch:
    """A thread that makes batches from a step on, two steps ahead; the library is `prefetch` steps ahead of it."""

    def __init__(self, ds: SaltDataset):
        self.next = (ds._step, ds._part)            # of the batch that get() returns
        self._trainer = ds.trainer()
        self._plan, self._parts = ds.plan, ds.micro_batches
        self._n = ds.rows_per_step // ds.micro_batches
        self._first = ds.rank * ds.rows_per_step
        self._pin = ds.device is not None and torch.device(ds.device).type == "cuda"
        self._ready: collections.deque[Batch | BaseException] = collections.deque()
        self._changed = threading.Condition()
        self._pid = os.getpid()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="saltfleet-fetch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        step, part = self.next
        try:
            while step < self._plan.steps:
                batch = self._batch(step, part)
                if batch is None:
                    return
                with self._changed:
                    self._ready.append(batch)
                    self._changed.notify_all()
                    while len(self._ready) >= 2 * self._parts and not self._stopped:
                        self._changed.wait()
                step, part = (step, part + 1) if part + 1 < self._parts else (step + 1, 0)
        except BaseException as e:      # get() raises it in the loop
            with self._changed:
                self._ready.append(e)
                self._changed.notify_all()

    def _batch(self, step: int, part: int) -> Batch | None:
        while not self._stopped:
            try:
                rows = self._trainer.rows(step, self._first + part * self._n, self._n, timeout_s=0.1)
            except SaltTimeout:
                continue
            batch = batch_of(rows, self._plan.residual, self._plan.token_weight, self._plan.document_end)
            batch.vocab = self._plan.vocab
            return batch.pin_memory() if self._pin else batch
        return None

    def get(self, timeout_s: float | None) -> Batch:
        begin = say = time.monotonic()
        with self._changed:
            while not self._ready:
                self._changed.wait(0.2)     # returns for signals too
                now = time.monotonic()
                if self._ready:
                    break
                if timeout_s is not None and now - begin >= timeout_s:
                    raise SaltTimeout(f"SaltDataset: no rows of step {self.next[0]} within {timeout_s:g} s: "
                                      f"{self._trainer.view().waiting or 'reason unknown'}")
                if now - say >= _SAY_S:
                    say = now
                    _log.warning("waiting for rows of step %d for %.0f s: %s", self.next[0], now - begin, self._trainer.view().waiting)
            found = self._ready[0]
            if isinstance(found, BaseException):
                raise found                 # final: it stays there
            self._ready.popleft()
            self._changed.notify_all()
        step, part = self.next
        self.next = (step, part + 1) if part + 1 < self._parts else (step + 1, 0)
        return found

    def stop(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # a fork has no such thread, and its copy of the lock may never be released
        if finalizing() or os.getpid() != self._pid:
            return
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()


__all__ = ["Batch", "SaltDataset", "batch_of"]
