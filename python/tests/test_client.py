# SPDX-License-Identifier: Apache-2.0
"""Trainer, Client and Corpus without torch's part."""
from __future__ import annotations

import gc
import os
import pathlib
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

import saltfleet
from saltfleet import _ffi


def test_import_without_the_library(tmp_path):
    """The package imports; the first call names every place that was looked at."""
    code = "import saltfleet\nfrom saltfleet.dataset import Batch\ntry:\n    saltfleet.version()\nexcept ImportError as e:\n    print(e)"
    environment = {**os.environ, "SALTFLEET_LIBRARY": str(tmp_path / "nowhere.so")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert "nowhere.so" in done.stdout and "libsaltfleet.so.1" in done.stdout and "SALTFLEET_LIBRARY" in done.stdout, done


def test_import_without_torch():
    """Trainer, Teacher and Corpus need numpy only."""
    code = "import sys; sys.modules['torch'] = None; import saltfleet; print(saltfleet.version(), saltfleet.Trainer.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [saltfleet.version(), "Trainer"], done


def test_errors_are_the_headers():
    """One exception for each code, by its name."""
    names = {"SALT_CONFIG": "SaltConfigError", "SALT_DATA": "SaltDataError", "SALT_RANGE": "SaltRangeError", "SALT_MEMORY": "SaltMemoryError",
             "SALT_SYSTEM": "SaltSystemError", "SALT_INTERNAL": "SaltInternalError"}
    codes = _ffi.ffi.typeof("enum salt_code").relements
    assert codes.pop("SALT_OK") == 0
    assert {code: kind.__name__ for code, kind in saltfleet.errors.KINDS.items()} == {
        code: names.get(name, "Salt" + name.removeprefix("SALT_").title().replace("_", "")) for name, code in codes.items()}
    for name, code in codes.items():
        assert _ffi.text(_ffi.lib.salt_code_name(code)) == name
    source = (pathlib.Path(__file__).parents[2] / "client/error.c").read_text()
    exit_codes = {codes[name]: int(code) for name, code in re.findall(r'\[(SALT_\w+)\] = \{"\w+", (\d+)\}', source) if name != "SALT_OK"}
    assert {code: kind.exit_code for code, kind in saltfleet.errors.KINDS.items()} == exit_codes


def test_plan(fleet, assets):
    with saltfleet.Client(fleet.config) as c:
        p = c.plan
    assert (p.steps, p.switch_step, p.batch, p.context, p.label_kind, p.n, p.mode) == (12, 6, 8, 32, "sampled", 8, "salt")
    assert p.corpus_train == str(assets / "train") and p.n_windows == saltfleet.Corpus(assets / "train").n_windows(32)
    with pytest.raises(saltfleet.SaltClosed, match="closed"):
        c.view()
    c.close()


def test_arrays_outlive_everything(fleet):
    t = saltfleet.Trainer(fleet.config)
    rows = t.rows(0, 2, 3, timeout_s=30)
    tokens, ids, weights = rows.tokens, rows.ids, rows.weights
    copies = tokens.copy(), ids.copy(), weights.copy()
    assert tokens.shape == (3, 33) and not tokens.flags.writeable and not tokens.flags.owndata
    t.close()
    del rows, t
    gc.collect()
    noise = [np.full(1 << 18, 7, np.int32) for _ in range(20)]      # would land in memory that was given back
    assert all(np.array_equal(a, b) for a, b in zip((tokens, ids, weights), copies)) and noise


FINALIZERS_IN_THE_PARSER = """
import faulthandler, gc, sys
faulthandler.dump_traceback_later(40, exit=True)
import saltfleet
from saltfleet._ffi import ffi
gc.disable()
trainer, corpus = saltfleet.Trainer(sys.argv[1]), saltfleet.Corpus(sys.argv[2])
cycle = [trainer.rows(0, timeout_s=30), trainer, corpus]
cycle.append(cycle)
alive = trainer._open
del cycle, trainer, corpus
gc.set_threshold(gc.get_count()[0] + 20, 1, 1)      # 20 objects more: not before the parser, but in it
gc.enable()
ffi.typeof("struct salt_rows *(*)[7]")        # new to cffi, so it is parsed, with a lock held
assert not alive._s[0]                         # and the collector ran in the parser
print("done")
"""


def test_finalizers_in_the_parser_of_cffi(fleet, assets):
    """The collector ends handles while cffi holds its lock, in a process that has not used their functions before: it does not wait for it."""
    done = subprocess.run([sys.executable, "-c", FINALIZERS_IN_THE_PARSER, fleet.config, assets / "train"], capture_output=True, text=True,
                          timeout=60)
    assert done.stdout == "done\n", done.stderr[-3000:]


def test_rows_out_of_range(fleet):
    with saltfleet.Trainer(fleet.config) as t:
        for step, first, n, found in ((12, 0, 1, "12"), (0, 8, 1, "8"), (0, 0, 9, "9"), (-1, 0, 1, "-1"), (0, 0, 0, "0")):
            with pytest.raises(saltfleet.SaltRangeError, match=found):
                t.rows(step, first, n, timeout_s=5)


def test_records(fleet):
    with saltfleet.Trainer(fleet.config, keep_records=True) as t:
        rows = t.rows(1, timeout_s=30)
        assert sum(map(len, rows.records)) == rows.label_bytes > 0
        assert t.rows(7).records in (None, [None] * 8)


def test_closing_waits_for_calls_of_other_threads(make_fleet):
    t = saltfleet.Trainer(make_fleet().config)      # nobody answers
    seen = []

    def ask():
        try:
            t.rows(0)
        except saltfleet.SaltClosed as e:
            seen.append(e)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    t.close()
    for thread in threads:
        thread.join(20)
    assert len(seen) == 4


def test_the_end_of_a_process_with_an_open_dataset(make_fleet):
    code = f"import saltfleet, time; d = saltfleet.SaltDataset({str(make_fleet().config)!r}, timeout_s=0.3)\ntry:\n    next(iter(d))\n" \
           "except saltfleet.SaltTimeout:\n    it = iter(d)\n    print('waited')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "waited\n", ""), done


def test_status(fleet):
    with saltfleet.Trainer(fleet.config, name="me") as t:
        endpoint = t.view().status_endpoint
        answer = saltfleet.status(endpoint)
        assert "me" in str(answer), answer
    with pytest.raises(saltfleet.SaltTimeout):
        saltfleet.status("ipc:///nowhere/at/all", 0.2)
    with pytest.raises(saltfleet.SaltConfigError, match="http"):
        saltfleet.status("http://127.0.0.1", 0.2)


def test_corpus(assets):
    c = saltfleet.Corpus(assets / "train")
    ids = np.memmap(f"{assets / 'train'}.bin", np.uint16, "r").astype(np.int32)     # Megatron's .bin is nothing but ids
    assert len(c) == len(ids) and c.info.dtype == "uint16" and c.info.n_documents > 10
    assert np.array_equal(c[:], ids)
    for at in (slice(0, 1), slice(5, 5), slice(7, 4100), slice(len(ids) - 3, None), slice(-1, None), slice(100, 20)):
        assert np.array_equal(c[at], ids[at]), at
    assert (c[0], c[-1], c[4097]) == (ids[0], ids[-1], ids[4097])
    assert np.array_equal(c.window(3, 32), ids[96:129]) and sum(1 for _ in c.windows(1000)) == (len(ids) - 1) // 1000
    with pytest.raises(IndexError, match=str(len(ids))):
        c[len(ids)]
    with pytest.raises(saltfleet.SaltRangeError):
        c.window(c.n_windows(32), 32)
    with pytest.raises(saltfleet.SaltNotFound, match="nowhere"):
        saltfleet.Corpus(assets / "nowhere")
