# SPDX-License-Identifier: Apache-2.0
"""Labels of a real fleet as Parquet, and from there into the cache of another fleet of the same identities."""
from __future__ import annotations

import json
import threading
import types

import numpy as np
import pytest

import saltfleet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from saltfleet import export  # noqa: E402

ROWS, SWITCH, L, N, K = 8, 2, 32, 8, 5
CHANGES = {"trainer": {"steps": 3}, "phase_one": {"steps": SWITCH}, "teacher": {"compute_class": "fp32/any"}}


def labels(kind):
    """Sharp, so that ids are drawn more than once."""
    return {"kind": kind, "k": K, "tau": 0.02}


@pytest.fixture(scope="module", params=["sampled", "topk", "dense"])
def made(request, tmp_path_factory, assets):
    """(kind, file, rows of each step with their records, fleet) of a fleet with a teacherd."""
    from fleet import Fleet

    folder = tmp_path_factory.mktemp(request.param)
    fleet = Fleet(folder / "a", assets, labels=labels(request.param), **CHANGES).up()
    try:
        assert export.to_parquet(fleet.config, folder / "labels.parquet", timeout_s=60) == SWITCH * ROWS
        with saltfleet.Trainer(fleet.config, keep_records=True) as t:
            yield request.param, folder / "labels.parquet", [t.rows(step, timeout_s=60) for step in range(SWITCH)], fleet
    finally:
        fleet.down()


def test_what_is_in_it(made, tmp_path):
    datasets = pytest.importorskip("datasets")
    kind, path, rows, _ = made
    assert not path.with_suffix(".parquet.part").exists()
    table = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path))
    assert table.num_rows == SWITCH * ROWS
    about = json.loads(pq.read_schema(path).metadata[b"saltfleet"])
    assert about["kind"] == kind and about["context"] == L and about["n"] == {"sampled": N, "topk": K, "dense": 0}[kind]
    repeated = 0
    for i, row in enumerate(table):
        r, j = rows[i // ROWS], i % ROWS
        assert row["input_ids"] == r.tokens[j].tolist() and row["seq"] == r.seqs[j] and row["step"] == i // ROWS
        assert row["kd_weight"] == pytest.approx(0.667)
        for t in range(L):
            p = j * L + t
            if kind == "dense":
                assert np.allclose(np.exp(row["logprobs"][t]), r.dense[p], atol=1e-6)
                continue
            entries = slice(r.offsets[p], r.offsets[p + 1])
            assert row["ids"][t] == r.ids[entries].tolist()
            if kind == "sampled":
                repeated += max(row["counts"][t]) > 1
                assert sum(row["counts"][t]) == N and np.allclose(np.array(row["counts"][t]) / N, r.weights[entries])
            else:
                assert np.allclose(np.exp(row["logprobs"][t]), r.weights[entries], atol=1e-6)
    assert kind != "sampled" or repeated > L


def test_small_tables(made, tmp_path, monkeypatch):
    """A step whose lists are too large for int32 offsets is written in several tables: the same rows."""
    kind, path, rows, fleet = made
    most = max(r.context * (r.vocab if r.dense is not None else r.max_entries) for r in rows)
    monkeypatch.setattr(export, "LIST_ENTRIES", 3 * most)
    assert export.to_parquet(fleet.config, tmp_path / "small.parquet", timeout_s=60) == SWITCH * ROWS
    assert pq.ParquetFile(tmp_path / "small.parquet").num_row_groups > SWITCH
    assert pq.read_table(tmp_path / "small.parquet").equals(pq.read_table(path))
    monkeypatch.setattr(export, "LIST_ENTRIES", L - 1)
    with pytest.raises(saltfleet.SaltRangeError, match="label entries a sequence"):
        export.to_parquet(fleet.config, tmp_path / "none.parquet", timeout_s=60)
    assert not list(tmp_path.glob("none*"))


def answered(path, fleet, assets, **kwargs):
    """from_parquet in a thread, while the rows are asked for; its result."""
    out = []

    def answer():
        try:
            out.append(export.from_parquet(path, fleet.config, assets / "teacher", idle_s=5, **kwargs))
        except Exception as e:
            out.append(e)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread, out


def test_into_another_cache(made, make_fleet, assets, caplog):
    """No other teacher is there. The records are the same bytes. Where nothing is asked for that is said."""
    kind, path, rows, _ = made
    fleet = make_fleet(labels=labels(kind), **CHANGES)
    fleet.selectord()
    thread, out = answered(path, fleet, assets)
    with saltfleet.Trainer(fleet.config, keep_records=True) as t:
        for step in range(SWITCH):
            r = t.rows(step, timeout_s=30)
            assert np.array_equal(r.tokens, rows[step].tokens)
            if kind == "dense":         # through logits: rounding of the code may differ by one step
                assert np.allclose(r.dense, rows[step].dense, atol=2e-3)
            else:
                assert r.records == rows[step].records
        t.release(SWITCH)
        t.flush(20)
    thread.join(60)
    assert out == [SWITCH * ROWS], out
    assert caplog.text == ""
    assert export.from_parquet(path, fleet.config, assets / "teacher", idle_s=1) == 0
    assert f"{SWITCH * ROWS} of {SWITCH * ROWS} sequences were not asked for" in caplog.text


def test_labels_that_do_not_fit(made, make_fleet, assets, tmp_path):
    kind, path, _, _ = made
    fleet = make_fleet(labels=labels(kind), **CHANGES)
    with pytest.raises(saltfleet.SaltMismatch, match=r"tau: expected 0.5, .*found 0.02"):
        export.from_parquet(path, fleet.config, assets / "teacher", overrides=["labels.tau=0.5"])
    with pytest.raises(saltfleet.SaltMismatch, match="corpus: expected"):
        export.from_parquet(path, fleet.config, assets / "teacher", overrides=[f"corpus.train={assets / 'held'}"])
    (tmp_path / "text.parquet").write_text("no Parquet")
    for name, error in (("none", saltfleet.SaltNotFound), ("text", saltfleet.SaltDataError)):
        with pytest.raises(error, match=f"{name}.parquet: expected a Parquet file"):
            export.from_parquet(tmp_path / f"{name}.parquet", fleet.config, assets / "teacher")
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["seq"]), tmp_path / "no_seq.parquet")
    with pytest.raises(saltfleet.SaltDataError, match="seq"):
        export.from_parquet(tmp_path / "no_seq.parquet", fleet.config, assets / "teacher")
    # Tokens of another text under the same numbers.
    tokens = [[*t[:7], t[7] + 1, *t[8:]] for t in table["input_ids"].to_pylist()]
    other = table.set_column(table.schema.get_field_index("input_ids"), table.schema.field("input_ids"), pa.array(tokens, pa.list_(pa.int32())))
    pq.write_table(other, tmp_path / "other.parquet")
    fleet.selectord()
    thread, out = answered(tmp_path / "other.parquet", fleet, assets)
    with saltfleet.Trainer(fleet.config) as t:
        with pytest.raises(saltfleet.SaltTimeout):
            t.rows(0, timeout_s=2)
        thread.join(60)
    assert len(out) == 1 and isinstance(out[0], saltfleet.SaltMismatch) and "token 7: expected" in str(out[0]), out


def test_steps(made, tmp_path):
    _, _, _, fleet = made
    assert export.to_parquet(fleet.config, tmp_path / "one.parquet", steps=range(1, 2), timeout_s=60) == ROWS
    with pytest.raises(saltfleet.SaltConfigError, match="phase one, which has 2, found range"):
        export.to_parquet(fleet.config, tmp_path / "x.parquet", steps=range(0, 3))
    with pytest.raises(saltfleet.SaltTimeout, match="rows of step 0"):
        export.to_parquet(fleet.config, tmp_path / "y.parquet", timeout_s=0.3, overrides=["selector.endpoints=[tcp://127.0.0.1:9]"])
    assert not list(tmp_path.glob("y.*"))


@pytest.mark.parametrize("kind, columns, found", [
    ("sampled", {"ids": [[1], []], "counts": [[2], []]}, r"of 2 draws, found 2 positions of \[0, 2\] draws"),
    ("sampled", {"ids": [[1], [2]], "counts": [[1, 1], [2]]}, "counts: expected one number >= 0 for each id, found 3 for 2 ids"),
    ("sampled", {"ids": [[1, 3], [2]], "counts": [[3, -1], [2]]}, "the least is -1"),
    ("sampled", {"ids": [[1], [2]], "counts": [[2.9], [2.0]]}, "counts: expected lists of lists of int32, found .*2.9"),
    ("sampled", {"ids": [[2**32 + 1], [2]], "counts": [[2], [2]]}, "ids: expected lists of lists of int32, found .*4294967297"),
    ("topk", {"ids": [[1, 2]] * 2, "logprobs": [[-1.0], [-1.0, -2.0, -3.0]]}, r"logprobs: expected 2 positions of 2, found 2 positions of \[1, 3\]"),
    ("topk", {"ids": [[1, 2]] * 2, "logprobs": [[None, -2.0], [-1.0, -2.0]]}, "logprobs: expected lists of lists of float, found .*nulls"),
    ("topk", {"ids": [1, 2], "logprobs": [[-1.0, -2.0]] * 2}, "ids: expected lists of lists of int32, found list<element: int64>"),
    ("dense", {"logprobs": [[-1.0, -2.0], [-1.0] * 4]}, r"of the same number of probabilities, at least 2, found 2 positions of \[2, 4\]"),
])
def test_lists_that_do_not_fit(kind, columns, found, tmp_path):
    """Files made elsewhere: ragged lists, and numbers that int32 cannot hold, are no other label."""
    pq.write_table(pa.table({"seq": [0], "input_ids": [[5, 6, 7]], **{k: [v] for k, v in columns.items()}}), tmp_path / "x.parquet")
    lease = types.SimpleNamespace(kind=kind, context=2, n_draws=2, k=2, n_valid=2, tau=1.0, tokens=np.array([[5, 6, 7]]), submit_samples=print,
                                  submit_topk=print, submit_logits=print)
    with pytest.raises(saltfleet.SaltDataError, match=found):
        export._submit(lease, 0, export._File(tmp_path / "x.parquet").row(0), "x.parquet: sequence 0")
