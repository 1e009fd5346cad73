# SPDX-License-Identifier: Apache-2.0
"""Trainer, Teacher and Client: the calls of saltfleet.h with numpy arrays. No torch.

saltfleet.h has the contract of each call. Differences: errors are exceptions (saltfleet.errors); times are in
seconds, None waits without limit; a call that waits can be interrupted (Ctrl-C). Any object may be used by
several threads at once, but a Lease by one at a time. All calls release the GIL.
"""
from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
import time
import weakref
from typing import Any, Callable, Iterator, Sequence, TypeVar

import numpy as np

from ._ffi import UNKNOWN, cast, check, ffi, lib, log_line, milliseconds, new, text
from .errors import SaltClosed, SaltConfigError, SaltForked, SaltRangeError, SaltTimeout

KINDS = ("none", "sampled", "topk", "dense")
RESIDUALS = ("true_token", "ghost", "renormalise")
TOKEN_WEIGHTS = ("constant", "teacher_confidence", "margin")
_SLICE_S = 0.2      # a waiting call returns to the interpreter at this interval, to handle signals

T = TypeVar("T")


def version() -> str:
    """Version of the library."""
    return text(lib.salt_version())


@dataclasses.dataclass(frozen=True)
class Plan:
    """Settings of the run, from configuration and corpus; struct salt_plan."""

    steps: int
    switch_step: int | None     # first step of phase two; None: until_margin, not decided yet
    batch: int                  # sequences per step, over all processes
    context: int                # L
    vocab: int                  # ids of labels: the corpus's vocabulary
    n_windows: int
    seed: int
    label_kind: str             # KINDS
    n: int                      # N of sampled labels, k of topk
    tau: float
    kd_weight: float
    residual: str               # RESIDUALS
    margin_nats: float | None
    handover_steps: int         # until_margin: steps from the one that meets the margin to the switch
    checkpoint_every: int
    eval_every: int
    run_dir: str
    mode: str
    corpus_train: str
    corpus_heldout: str
    tokenizer: str
    compute_class: str
    corpus_dtype: str           # dtype of raw ids; "": the corpora state it
    eval_sequences: int         # an evaluation takes so many held-out sequences, from the first on; 0: all
    token_weight: str           # TOKEN_WEIGHTS
    isolate_documents: bool     # corpus.isolate_documents
    document_end: int | None    # trainer, client: the id that ends a document; None: not isolated


@dataclasses.dataclass(frozen=True)
class View:
    """The present state of connections and work; struct salt_view."""

    shards: int
    shards_welcomed: int
    rows_ready: int
    ahead: int
    teacher_nats: float | None
    checkpointed: int
    released: bool
    sequences: int
    tokens: int
    unconfirmed: int
    quarantined_rows: int
    label_bytes: int
    status_endpoint: str
    waiting: str


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that a teacher serves; struct salt_model."""

    dir: str | os.PathLike[str]
    vocab: int
    max_context: int
    score: bool = True
    label: bool = True
    corpus_tokenizer: str | os.PathLike[str] | None = None


def _python(value: Any) -> Any:
    return text(value) if isinstance(value, ffi.CData) else value


def _fields(struct: Any, into: type[T]) -> dict[str, Any]:
    return {f.name: _python(getattr(struct, f.name)) for f in dataclasses.fields(into)}    # type: ignore[arg-type]


def _natural(call: str, **values: int) -> None:
    for what, value in values.items():
        if not 0 <= value < 2**63:
            raise SaltRangeError(f"{call}: {what}: expected a number >= 0, found {value}")


class _Memory:
    """An array in C memory. numpy's view keeps this object alive, and this object keeps the owner alive."""

    def __init__(self, owner: Any, p: Any, shape: tuple[int, ...], dtype: str):
        self.owner = owner
        self.__array_interface__ = {"version": 3, "typestr": dtype, "shape": shape, "data": (int(cast("uintptr_t", p)), True)}


def _view(owner: Any, p: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.asarray(_Memory(owner, p, shape, dtype))


def _given(what: str, array: Any, dtype: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Checks an array of the caller. It is not converted, which would hide a mistake. None in shape: any
    length."""
    found = str(getattr(array, "dtype", type(array).__name__)).removeprefix("torch.")
    device = str(getattr(array, "device", "cpu"))
    wanted = "[" + ", ".join("*" if n is None else str(n) for n in shape) + "]"
    if found != dtype:
        raise SaltRangeError(f"{what}: expected {dtype} {wanted}, found {found}: convert it first")
    if device != "cpu":
        raise SaltRangeError(f"{what}: expected memory of the CPU, found device {device}: copy it with .cpu()")
    a = np.asarray(array)
    if a.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, a.shape)):
        raise SaltRangeError(f"{what}: expected shape {wanted}, found {list(a.shape)}")
    return a


def _slices(wait: Callable[[int], T | None], timeout_s: float | None, late: Callable[[], str]) -> T:
    """Calls wait(timeout_ms) again and again until it returns something or the time is over. Python handles
    signals between the calls."""
    end = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left = end - time.monotonic()
        found = wait(milliseconds(max(0.0, min(_SLICE_S, left))))
        if found is not None:
            return found
        if left <= _SLICE_S and time.monotonic() >= end:
            raise SaltTimeout(late())


class _Open:
    """An open struct salt. Every call enters it, so that close() waits for calls of other threads."""

    def __init__(self, name: str, s: Any):
        self._name, self._s, self._pid, self._calls = name, s, os.getpid(), 0
        self._changed = threading.Condition()

    def __enter__(self) -> Any:
        if os.getpid() != self._pid:        # before the lock, which another thread may have held at the fork
            raise SaltForked(f"{self._name}: opened in process {self._pid}, used in its fork {os.getpid()}: open it in the process that uses it")
        with self._changed:
            if not self._s[0]:
                raise SaltClosed(f"{self._name}: it has been closed")
            self._calls += 1
            return self._s[0]

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._calls -= 1
            self._changed.notify_all()

    def close(self) -> None:
        if os.getpid() != self._pid:
            return
        with self._changed:
            s, self._s = self._s, new("struct salt **")
            while self._calls:
                self._changed.wait()
        lib.salt_close(s)


class _Handle:
    """A struct salt. close(), the end of a with block, the garbage collector or the end of the process closes
    it."""

    def __init__(self, role: int, config: str | os.PathLike[str], overrides: Sequence[str], name: str | None, keep: list[Any],
                 **options: Any):
        o = new("struct salt_options *")
        o.size = ffi.sizeof(o[0])
        o.role = role
        if isinstance(overrides, str):
            raise SaltConfigError(f'overrides: expected a sequence of "section.key=value", found the text {overrides!r}: write [{overrides!r}]')
        texts = [new("char[]", s.encode()) for s in overrides]
        keep += [config_text := new("char[]", os.fsencode(config)), texts, array := new("char *[]", texts)]
        o.config, o.overrides, o.n_overrides = config_text, array, len(texts)
        if name is not None:
            keep.append(name_text := new("char[]", name.encode()))
            o.name = name_text
        for key, value in options.items():
            try:
                setattr(o, key, value)
            except OverflowError:
                raise SaltRangeError(f"{type(self).__name__}: {key}: expected a number from 0 to {2**32 - 1}, found {value}") from None
        o.log = log_line
        error = new("struct salt_error *")
        s = new("struct salt **")
        check(lib.salt_open(s, o, error), error)
        self._open = _Open(type(self).__name__, s)
        self.close = weakref.finalize(self, self._open.close)       # a second call has no effect

    def _call(self, function: Any, *args: Any, also: tuple[int, ...] = ()) -> int:
        error = new("struct salt_error *")
        with self._open as s:
            rc = function(s, *args, error)
        return check(rc, error, also)

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def plan(self) -> Plan:
        p = new("struct salt_plan *")
        p.size = ffi.sizeof(p[0])
        self._call(lib.salt_plan, p)
        fields = _fields(p, Plan)
        fields["switch_step"] = None if p.switch_step == UNKNOWN else p.switch_step
        fields["label_kind"] = KINDS[p.label_kind]
        fields["residual"] = RESIDUALS[p.residual]
        fields["token_weight"] = TOKEN_WEIGHTS[p.token_weight]
        fields["isolate_documents"] = bool(p.isolate_documents)
        fields["document_end"] = None if p.document_end < 0 else p.document_end
        fields["margin_nats"] = None if math.isnan(p.margin_nats) else p.margin_nats
        return Plan(**fields)

    def view(self) -> View:
        v = new("struct salt_view *")
        v.size = ffi.sizeof(v[0])
        self._call(lib.salt_view, v)
        fields = _fields(v, View)
        fields["teacher_nats"] = None if math.isnan(v.teacher_nats) else v.teacher_nats
        fields["released"] = bool(v.released)
        return View(**fields)

    def flush(self, timeout_s: float | None = None) -> None:
        """Waits until all shards have acknowledged the calls before it; SaltTimeout."""
        self._wait(lambda ms: self._call(lib.salt_flush, ms, also=(1,)) == 0 or None, timeout_s, "flush")

    def _wait(self, wait: Callable[[int], T | None], timeout_s: float | None, what: str) -> T:
        return _slices(wait, timeout_s, lambda: f"{what}: nothing within {timeout_s:g} s: {self.view().waiting or 'reason unknown'}")


class Client(_Handle):
    """Plan and view of a fleet."""

    def __init__(self, config: str | os.PathLike[str], *, overrides: Sequence[str] = (), name: str | None = None):
        super().__init__(lib.SALT_CLIENT, config, overrides, name, [])


class Rows:
    """Rows of a step; struct salt_rows. Arrays are read-only views of the library's memory, and valid as long
    as they are referenced."""

    def __init__(self, p: Any, free: Callable[[Any], None] | None):
        owner = ffi.gc(p, free) if free else p
        n, length = p.n, p.context
        positions = n * length
        self.step: int = p.step
        self.first: int = p.first
        self.n: int = n
        self.context: int = length
        self.phase: int = p.phase
        self.kind: str = KINDS[p.kind]
        self.vocab: int = p.vocab
        self.max_entries: int = p.max_entries
        self.label_bytes: int = p.label_bytes
        self.tokens = _view(owner, p.tokens, (n, length + 1), "<i4")
        self.seqs = _view(owner, p.seqs, (n,), "<u8")
        self.kd_weight = _view(owner, p.kd_weight, (n,), "<f4")
        self.quarantined = _view(owner, p.quarantined, (n,), "|u1")
        self.offsets = self.ids = self.weights = self.tail = self.dense = None
        if p.offsets:
            self.offsets = _view(owner, p.offsets, (positions + 1,), "<i8")
            entries = int(self.offsets[-1])
            self.ids = _view(owner, p.ids, (entries,), "<i4")
            self.weights = _view(owner, p.weights, (entries,), "<f4")
            self.tail = _view(owner, p.tail, (positions,), "<f4")
        if p.dense:
            self.dense = _view(owner, p.dense, (positions, p.vocab), "<f4")
        # [n, L] index of the first token of the position's document
        self.document_starts: np.ndarray | None = None
        if p.document_starts:
            self.document_starts = _view(owner, p.document_starts, (n, length), "<i4")
        self._p = owner
        self.records: list[bytes | None] | None = None
        if p.records:
            self.records = [bytes(ffi.buffer(p.records[i], p.record_bytes[i])) if p.records[i] else None for i in range(n)]

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies the labels into rectangular arrays: ids int64 [n * L, K] and weights float32 [n * L, K],
        padded with id 0 and weight 0; K is max_entries, at least 1. Only for rows with offsets."""
        k = max(1, self.max_entries)
        ids, weights = np.empty((self.n * self.context, k), np.int64), np.empty((self.n * self.context, k), np.float32)
        error = new("struct salt_error *")
        check(lib.salt_rows_padded(self._p, k, cast("int64_t *", ids.ctypes.data), cast("float *", weights.ctypes.data), error), error)
        return ids, weights


def _rows_free(p: Any) -> None:
    lib.salt_rows_free(new("struct salt_rows **", p))


class Trainer(_Handle):
    """A trainer: rows of the steps, checkpoints and the switch."""

    def __init__(self, config: str | os.PathLike[str], *, overrides: Sequence[str] = (), name: str | None = None, rank: int = 0,
                 vocab: int = 0, prefetch_steps: int = 0, threads: int = 0, keep_records: bool = False):
        super().__init__(lib.SALT_TRAINER, config, overrides, name, [], rank=rank, vocab=vocab, prefetch_steps=prefetch_steps,
                         threads=threads, keep_records=keep_records)

    def rows(self, step: int, first: int = 0, n: int | None = None, timeout_s: float | None = None) -> Rows:
        """Rows [first, first + n) of a step; n None: all from first on. SaltTimeout says what the call waited
        for."""
        if n is None:
            n = self.plan.batch - first
        _natural("rows", step=step, first=first, n=n)

        def wait(timeout_ms: int) -> Rows | None:
            rows = new("struct salt_rows **")
            return Rows(rows[0], _rows_free) if self._call(lib.salt_rows, step, first, n, timeout_ms, rows, also=(1,)) == 0 else None

        return self._wait(wait, timeout_s, f"rows of step {step}")

    def checkpointed(self, step: int) -> None:
        """States that the oldest complete checkpoint from which the run may resume is that of `step`. Never
        waits; flush() does."""
        _natural("checkpointed", step=step)
        self._call(lib.salt_checkpointed, step)

    def release(self, step: int) -> None:
        """States that the checkpoint of the switch (step) is on disk: no more labels are needed. Never waits;
        flush() does."""
        _natural("release", step=step)
        self._call(lib.salt_release, step)

    def switch(self, step: int) -> None:
        """With until_margin: sets the switch step, which the caller decides."""
        _natural("switch", step=step)
        self._call(lib.salt_switch, step)

    def kd_weight(self, step: int) -> float:
        """Distillation weight of a step, for the present switch step."""
        _natural("kd_weight", step=step)
        with self._open as s:
            return float(lib.salt_kd_weight(s, step))


class Lease:
    """Sequences to compute. `tokens` [n, L + 1] int32 and `seqs` [n] are copies. Give it back with close() or
    a with block."""

    def __init__(self, teacher: Teacher, p: Any):
        self._teacher = teacher
        self._p = new("struct salt_lease **", p)
        self.id: int = p.id
        self.model: int = p.model
        self.want_score = bool(p.want_score)
        self.want_label = bool(p.want_label)
        self.n: int = p.n
        self.context: int = p.context
        self.n_valid: int = p.n_valid
        self.kind: str = KINDS[p.kind]
        self.n_draws: int = p.n_draws
        self.k: int = p.k
        self.tau: float = p.tau
        self.seed: int = p.seed
        self.tokens = _view(None, p.tokens, (p.n, p.context + 1), "<i4").copy()
        self.seqs = _view(None, p.seqs, (p.n,), "<u8").copy()
        self.document_end: int | None = None if p.document_end < 0 else p.document_end
        self.document_starts: np.ndarray | None = None     # [n, L] as in Rows, for computing the logits
        if p.document_starts:
            self.document_starts = _view(None, p.document_starts, (p.n, p.context), "<i4").copy()

    def _submit(self, function: Any, *args: Any) -> None:
        self._teacher._call(function, self._pointer(), *args)

    def _pointer(self) -> Any:
        if not self._p[0]:
            raise SaltClosed(f"lease {self.id}: it has been returned")
        return self._p[0]

    def submit_logits(self, i: int, logits: Any) -> None:
        """logits float32 [L, V'], V' >= n_valid: row t has the logits after tokens 0..t; -inf is a
        probability of 0. With topk labels the probability of columns from n_valid to the model's vocab goes
        to the tail."""
        a = np.ascontiguousarray(_given(f"logits of sequence {i}", logits, "float32", (self.context, None)))
        if a.shape[1] < self.n_valid:
            raise SaltRangeError(f"logits of sequence {i}: expected at least {self.n_valid} columns, found {a.shape[1]}")
        self._submit(lib.salt_submit_logits, i, cast("float *", a.ctypes.data), a.shape[1])

    def submit_scores(self, i: int, loss_nats: Any, rank: Any) -> None:
        """loss_nats float32 [L], rank int32 [L]."""
        loss = np.ascontiguousarray(_given(f"losses of sequence {i}", loss_nats, "float32", (self.context,)))
        ranks = np.ascontiguousarray(_given(f"ranks of sequence {i}", rank, "int32", (self.context,)))
        self._submit(lib.salt_submit_scores, i, cast("float *", loss.ctypes.data), cast("int32_t *", ranks.ctypes.data))

    def submit_samples(self, i: int, draws: Any) -> None:
        """draws int32 [L, N], in any order."""
        a = np.ascontiguousarray(_given(f"draws of sequence {i}", draws, "int32", (self.context, self.n_draws)))
        self._submit(lib.salt_submit_samples, i, cast("int32_t *", a.ctypes.data))

    def submit_topk(self, i: int, ids: Any, log_p: Any) -> None:
        """ids int32 [L, k], all below n_valid, and log_p float32 [L, k], best first; the tail is 1 minus the
        sum of these probabilities."""
        a = np.ascontiguousarray(_given(f"ids of sequence {i}", ids, "int32", (self.context, self.k)))
        p = np.ascontiguousarray(_given(f"log_p of sequence {i}", log_p, "float32", (self.context, self.k)))
        self._submit(lib.salt_submit_topk, i, cast("int32_t *", a.ctypes.data), cast("float *", p.ctypes.data))

    def submit_error(self, i: int, why: str) -> None:
        """The sequence cannot be computed; selectord gives it to another teacher."""
        self._submit(lib.salt_submit_error, i, why.encode())

    def uniforms(self, i: int) -> np.ndarray:
        """float64 [L, N] in [0, 1): draw d of row t is the smallest id whose cumulative probability exceeds u[t, d] * total."""
        u = np.empty((self.context, self.n_draws), np.float64)
        error = new("struct salt_error *")
        check(lib.salt_uniforms(self._pointer(), i, cast("double *", u.ctypes.data), error), error)
        return u

    def renew(self) -> None:
        """Reports that the caller still works on the lease."""
        self._submit(lib.salt_renew)

    def close(self) -> None:
        """salt_return: sequences without a result go back to selectord."""
        if self._p[0]:
            try:
                with self._teacher._open as s:
                    lib.salt_return(s, self._p)
            except (SaltClosed, SaltForked):        # then the lease is gone too
                self._p = new("struct salt_lease **")

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Teacher(_Handle):
    """A teacher: leases and their results."""

    def __init__(self, config: str | os.PathLike[str], models: Sequence[Model], *, overrides: Sequence[str] = (), name: str | None = None,
                 compute_class: str | None = None, threads: int = 0):
        array = new("struct salt_model[]", len(models))
        keep: list[Any] = [array]
        for c, m in zip(array, models):
            keep.append(dir_text := new("char[]", os.fsencode(m.dir)))
            c.dir, c.vocab, c.max_context, c.serves_score, c.serves_label = dir_text, m.vocab, m.max_context, m.score, m.label
            if m.corpus_tokenizer is not None:
                keep.append(tokenizer := new("char[]", os.fsencode(m.corpus_tokenizer)))
                c.corpus_tokenizer = tokenizer
        options: dict[str, Any] = {}
        if compute_class is not None:
            keep.append(class_text := new("char[]", compute_class.encode()))
            options["compute_class"] = class_text
        super().__init__(lib.SALT_TEACHER, config, overrides, name, keep, models=array, n_models=len(models), threads=threads, **options)

    def lease(self, timeout_s: float | None = None) -> Lease | None:
        """The next lease; None: no more work (released, or after drain()). SaltTimeout says what the call
        waited for."""
        def wait(timeout_ms: int) -> list[Lease] | None:
            lease = new("struct salt_lease **")
            rc = self._call(lib.salt_lease, timeout_ms, lease, also=(1, 2))
            return [Lease(self, lease[0])] if rc == 0 else [] if rc == 2 else None

        found = self._wait(wait, timeout_s, "lease")
        return found[0] if found else None

    def leases(self) -> Iterator[Lease]:
        """All leases until there is no more work; each is given back before the next one is taken."""
        while (lease := self.lease()) is not None:
            with lease:
                yield lease

    def drain(self) -> None:
        """Takes no new leases: those fetched ahead are handed back, and lease() returns None. May be called
        in a signal handler."""
        self._call(lib.salt_drain)


def status(endpoint: str, timeout_s: float = 2.0) -> dict[str, Any]:
    """The answer of a status socket (tcp:// or ipc://)."""
    out, error = new("char **"), new("struct salt_error *")
    check(lib.salt_status(endpoint.encode(), milliseconds(timeout_s), out, error), error)
    try:
        answer: dict[str, Any] = json.loads(text(out[0]))
        return answer
    finally:
        lib.salt_free(out[0])


def model_identity(directory: str | os.PathLike[str]) -> str:
    """Hash over config.json and the safetensors files of a model's directory, which identifies it in
    selectord."""
    out, error = new("char[33]"), new("struct salt_error *")
    check(lib.salt_model_identity(os.fsencode(directory), out, error), error)
    return text(out)


__all__ = ["Client", "Lease", "Model", "Plan", "Rows", "Teacher", "Trainer", "View", "model_identity", "status", "version"]
