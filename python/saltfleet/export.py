# SPDX-License-Identifier: Apache-2.0
"""Exports rows and labels as Parquet, and imports labels made elsewhere into a fleet's cache. Needs pyarrow.

A file has one row for each sequence, in the order of the plan. Columns:

    seq         int64               number of the sequence in the corpus
    step        int64               step that trains it
    kd_weight   float32             distillation weight; 0: no label
    input_ids   list<int32>         L + 1 tokens: inputs [0, L), targets [1, L]
    ids         list<list<int32>>   L lists: ids of the label of target t, ascending. Absent with dense labels
    counts      list<list<int32>>   sampled labels: draws of each id, together N
    logprobs    list<list<float>>   topk labels: natural logarithms of the tempered probabilities; dense: one
                                    for each id of the vocabulary

`datasets.load_dataset("parquet", data_files=...)` reads it. The metadata of the schema describe the labels
(kind, N or k, tau, context, fingerprint of the corpus) as JSON, under the key "saltfleet".
"""
from __future__ import annotations

import dataclasses
import json
import logging
import os
from typing import Any, Iterator, Sequence

import numpy as np

from . import client
from .corpus import Corpus
from .errors import SaltConfigError, SaltDataError, SaltMismatch, SaltNotFound, SaltRangeError, SaltTimeout

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as e:
    raise ImportError("saltfleet.export needs pyarrow: pip install pyarrow") from e

LIST_ENTRIES = 2**31 - 1        # of a table's column of lists: its offsets are int32


def _about(plan: client.Plan, corpus: Corpus) -> dict[str, Any]:
    """What a file and a fleet must agree on."""
    return {"kind": plan.label_kind, "n": plan.n, "tau": plan.tau, "context": plan.context, "vocab": plan.vocab,
            "corpus": corpus.info.fingerprint + (", documents isolated" if plan.isolate_documents else "")}


def _lists(values: Any, offsets: np.ndarray, positions: int) -> pa.Array:
    """An array of rows, each of `positions` lists."""
    inner = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(inner) + 1, positions, dtype=np.int32)), inner)


def _tables(rows: client.Rows, plan: client.Plan, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in tables of at most LIST_ENTRIES entries each."""
    each = rows.context * (rows.vocab if rows.dense is not None else max(1, rows.max_entries))
    if each > LIST_ENTRIES:
        raise SaltRangeError(f"to_parquet: expected at most {LIST_ENTRIES} label entries a sequence, a limit of Parquet's lists, found {each}")
    for begin in range(0, rows.n, LIST_ENTRIES // each):
        yield _table(rows, range(begin, min(rows.n, begin + LIST_ENTRIES // each)), plan, schema)


def _table(rows: client.Rows, part: range, plan: client.Plan, schema: pa.Schema) -> pa.Table:
    """Rows `part` of a step."""
    n, length, some = len(part), rows.context, slice(part.start, part.stop)
    positions = slice(part.start * length, part.stop * length)
    columns: dict[str, Any] = {
        "seq": pa.array(rows.seqs[some].astype(np.int64)),
        "step": pa.array(np.full(n, rows.step, np.int64)),
        "kd_weight": pa.array(rows.kd_weight[some]),
        "input_ids": pa.ListArray.from_arrays(pa.array(np.arange(0, n * (length + 1) + 1, length + 1, dtype=np.int32)),
                                              pa.array(rows.tokens[some].reshape(-1))),
    }
    with np.errstate(divide="ignore"):
        if rows.dense is not None:
            columns["logprobs"] = _lists(np.log(rows.dense[positions].reshape(-1)), np.arange(n * length + 1) * rows.vocab, length)
        else:
            assert rows.offsets is not None and rows.ids is not None and rows.weights is not None
            offsets = rows.offsets[positions.start:positions.stop + 1]
            entries = slice(int(offsets[0]), int(offsets[-1]))
            weights, offsets = rows.weights[entries], offsets - offsets[0]
            columns["ids"] = _lists(rows.ids[entries], offsets, length)
            if plan.label_kind == "sampled":
                columns["counts"] = _lists(np.rint(weights.astype(np.float64) * plan.n).astype(np.int32), offsets, length)
            else:
                columns["logprobs"] = _lists(np.log(weights), offsets, length)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def to_parquet(config: str | os.PathLike[str], path: str | os.PathLike[str], *, steps: range | None = None,
               overrides: Sequence[str] = (), timeout_s: float | None = None, compression: str = "zstd") -> int:
    """Writes the rows of phase one (steps None: all) with their labels to a Parquet file as they arrive, and
    returns the number of rows. The trainer can still read all of them. SaltTimeout if a step's rows take
    longer than timeout_s. An unfinished file is removed."""
    with client.Trainer(config, overrides=overrides, name="export") as trainer:
        plan = trainer.plan
        end = plan.steps if plan.switch_step is None else plan.switch_step
        if steps is None:
            if plan.switch_step is None:
                raise SaltConfigError("to_parquet: steps: expected a range, since phase_one.until_margin leaves the end of phase one open; "
                                      "found None")
            steps = range(end)
        if len(steps) == 0 or min(steps) < 0 or max(steps) >= end:
            raise SaltConfigError(f"to_parquet: steps: expected steps of phase one, which has {end}, found {steps}")
        lists = {"sampled": (("ids", pa.int32()), ("counts", pa.int32())), "topk": (("ids", pa.int32()), ("logprobs", pa.float32())),
                 "dense": (("logprobs", pa.float32()),)}[plan.label_kind]
        schema = pa.schema([("seq", pa.int64()), ("step", pa.int64()), ("kd_weight", pa.float32()), ("input_ids", pa.list_(pa.int32())),
                            *((name, pa.list_(pa.list_(kind))) for name, kind in lists)],
                           metadata={"saltfleet": json.dumps(_about(plan, Corpus(plan.corpus_train, plan.corpus_dtype or None)))})
        part, n = f"{os.fspath(path)}.part", 0
        try:
            with pq.ParquetWriter(part, schema, compression=compression) as writer:
                for step in steps:
                    rows = trainer.rows(step, timeout_s=timeout_s)
                    for table in _tables(rows, plan, schema):
                        writer.write_table(table)
                    n += rows.n
            os.replace(part, path)
        finally:
            if os.path.exists(part):
                os.unlink(part)
        return n


class _File:
    """Labels of a Parquet file by sequence."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        try:
            self._file = pq.ParquetFile(path)
        except FileNotFoundError:
            raise SaltNotFound(f"{self.path}: expected a Parquet file, found no such file") from None
        except (OSError, pa.ArrowInvalid) as e:
            raise SaltDataError(f"{self.path}: expected a Parquet file, found: {e}") from None
        schema = self._file.schema_arrow
        self.about = json.loads((schema.metadata or {}).get(b"saltfleet", b"{}"))
        for name in ("seq", "input_ids"):
            if name not in schema.names:
                raise SaltDataError(f"{self.path}: expected the columns seq and input_ids, found {schema.names}")
        self._names = [name for name in ("input_ids", "ids", "counts", "logprobs") if name in schema.names]
        self._places: dict[int, tuple[int, int]] = {}
        for group in range(self._file.num_row_groups):
            for i, seq in enumerate(self._file.read_row_group(group, columns=["seq"])["seq"].to_pylist()):
                self._places[seq] = (group, i)
        self._group, self._table = -1, None

    def sequences(self) -> set[int]:
        return set(self._places)

    def row(self, seq: int) -> dict[str, Any] | None:
        """The columns of a sequence, None if it is not there."""
        place = self._places.get(seq)
        if place is None:
            return None
        if place[0] != self._group:
            self._group, self._table = place[0], self._file.read_row_group(place[0], columns=self._names)
        return {name: self._table[name][place[1]] for name in self._names}      # type: ignore[index]


def _matrix(row: dict[str, Any], name: str, dtype: pa.DataType, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Flat values and lengths of a list of lists."""
    if name not in row:
        raise SaltDataError(f"{where}: expected a column {name}, found {sorted(row)}")
    try:
        inner = row[name].values
        flat, lengths = inner.flatten(), pc.list_value_length(inner)
        if flat.null_count or lengths.null_count:
            raise ValueError("nulls")
        return flat.cast(dtype).to_numpy(zero_copy_only=False), lengths.to_numpy(zero_copy_only=False)
    except (AttributeError, TypeError, ValueError, NotImplementedError) as e:       # no lists, or numbers that dtype cannot hold
        raise SaltDataError(f"{where}: {name}: expected lists of lists of {dtype}, found {row[name].type}: {e}") from None


def _submit(lease: client.Lease, i: int, row: dict[str, Any], where: str) -> None:
    tokens = np.asarray(row["input_ids"].values.to_numpy(zero_copy_only=False))
    if not np.array_equal(tokens, lease.tokens[i]):
        at = int(np.argmax(tokens[:lease.context + 1] != lease.tokens[i][:len(tokens)])) if len(tokens) else 0
        raise SaltMismatch(f"{where}: token {at}: expected {lease.tokens[i][at]} of the corpus, found "
                           f"{tokens[at] if at < len(tokens) else 'none'} ({len(tokens)} tokens)")
    if lease.kind == "sampled":
        (ids, lengths), (counts, counted) = _matrix(row, "ids", pa.int32(), where), _matrix(row, "counts", pa.int32(), where)
        if not np.array_equal(lengths, counted) or (counts < 0).any():
            raise SaltDataError(f"{where}: counts: expected one number >= 0 for each id, found {len(counts)} for {len(ids)} ids, the least is "
                                f"{min(counts, default=None)}")
        sums = np.bincount(np.repeat(np.arange(len(lengths)), lengths), counts, len(lengths)).astype(np.int64)
        if len(lengths) != lease.context or (sums != lease.n_draws).any():
            raise SaltDataError(f"{where}: expected {lease.context} positions of {lease.n_draws} draws, found {len(lengths)} positions of "
                                f"{sorted(set(sums.tolist()))} draws")
        lease.submit_samples(i, np.repeat(ids, counts).reshape(lease.context, lease.n_draws))
    elif lease.kind == "topk":
        (ids, lengths), (log_p, others) = _matrix(row, "ids", pa.int32(), where), _matrix(row, "logprobs", pa.float32(), where)
        for name, found in (("ids", lengths), ("logprobs", others)):
            if len(found) != lease.context or (found != lease.k).any():
                raise SaltDataError(f"{where}: {name}: expected {lease.context} positions of {lease.k}, found {len(found)} positions of "
                                    f"{sorted(set(found.tolist()))}")
        ids, log_p = ids.reshape(lease.context, lease.k), log_p.reshape(lease.context, lease.k)
        best = np.argsort(-log_p, axis=1, kind="stable")
        lease.submit_topk(i, np.take_along_axis(ids, best, 1), np.take_along_axis(log_p, best, 1))
    else:
        log_p, lengths = _matrix(row, "logprobs", pa.float32(), where)
        if len(lengths) != lease.context or lengths[0] < lease.n_valid or (lengths != lengths[0]).any():
            raise SaltDataError(f"{where}: expected {lease.context} positions of the same number of probabilities, at least {lease.n_valid}, found "
                                f"{len(lengths)} positions of {sorted(set(lengths.tolist()))}")
        # Logits of the tempered distribution are log_p * tau.
        lease.submit_logits(i, log_p.reshape(lease.context, -1) * np.float32(lease.tau))


def _model(model: client.Model | str | os.PathLike[str]) -> client.Model:
    """The model to announce. It serves labels alone, because a file has no scores."""
    if isinstance(model, client.Model):
        return dataclasses.replace(model, score=False, label=True)
    path = os.path.join(model, "config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    context = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(config.get("vocab_size"), int) or not isinstance(context, int):
        raise SaltConfigError(f"{path}: expected vocab_size and max_position_embeddings or n_positions, found {sorted(config)}: give a saltfleet.Model")
    return client.Model(model, config["vocab_size"], context, score=False)


def from_parquet(path: str | os.PathLike[str], config: str | os.PathLike[str], model: client.Model | str | os.PathLike[str], *,
                 overrides: Sequence[str] = (), compute_class: str | None = None, idle_s: float | None = 10.0) -> int:
    """Answers leases from the file like a teacher, so that its labels enter the cache of the fleet, and
    returns the number of sequences. `model` is the directory of the model that made the labels; its files are
    the identity that selectord checks. Ends when all sequences of the file were requested, when selectord has
    no more work, or after idle_s without a lease (None: never).

    Tokens of every row are compared with the corpus's. A file has labels alone: scores (of selector.mode:
    salt_ds, and of the held-out sequences) and sequences that it does not have are left to other teachers;
    SaltRefused if there are too many of those. A warning says how many sequences of the file were not
    requested. SaltMismatch: labels of another kind, tau, context or corpus.
    """
    file, done = _File(path), 0
    with client.Client(config, overrides=overrides) as c:
        mode, wanted = c.plan.mode, _about(c.plan, Corpus(c.plan.corpus_train, c.plan.corpus_dtype or None))
    for name, value in file.about.items():
        if name in wanted and wanted[name] != value:
            raise SaltMismatch(f"{file.path}: {name}: expected {wanted[name]}, as {os.fspath(config)} says, found {value}")
    left = file.sequences()
    with client.Teacher(config, [_model(model)], overrides=overrides, compute_class=compute_class, name="parquet") as teacher:
        for lease in _leases(teacher, idle_s):
            for i, seq in enumerate(lease.seqs.tolist()):
                row = file.row(seq)
                if row is None:
                    if left:        # else selectord is beyond the file
                        lease.submit_error(i, f"{file.path} has no sequence {seq}")
                    continue
                try:
                    _submit(lease, i, row, f"{file.path}: sequence {seq}")
                except (SaltMismatch, SaltDataError):
                    lease.submit_error(i, f"{file.path}: sequence {seq} does not fit")
                    raise
                left.discard(seq)
                done += 1
            if not left:
                break
        teacher.flush(60)
    if left:
        logging.getLogger("saltfleet").warning(
            "%s: %d of %d sequences were not asked for: they have labels, or no row needs them%s", file.path, len(left), len(file.sequences()),
            ", or selectord waits for scores to choose rows (selector.mode: salt_ds), which a file does not have: start a teacher with "
            "--serve score" if mode == "salt_ds" else "")
    return done


def _leases(teacher: client.Teacher, idle_s: float | None) -> Iterator[client.Lease]:
    while True:
        try:
            lease = teacher.lease(idle_s)
        except SaltTimeout:
            return
        if lease is None:
            return
        with lease:
            yield lease
