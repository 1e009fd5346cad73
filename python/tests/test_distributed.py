# SPDX-License-Identifier: Apache-2.0
"""examples/ddp.py on gloo: DDP with 1, 2 and 4 processes and FSDP with 2 have the same rows in a step and the same losses. Documents are
isolated, so the processes have different numbers of targets."""
from __future__ import annotations

import json
import subprocess
import sys

import pytest

import fleet as fleets
from saltfleet import SaltDataset

STEPS, SWITCH = 12, 6


@pytest.fixture(scope="module")
def run(tmp_path_factory, assets):
    """run(name, processes, options...): {step: (loss, sequences)} of the example, whose checkpoints are in the folder `name`. One fleet for
    all of them: it is released by the first, and serves its rows again to the others."""
    folder = tmp_path_factory.mktemp("distributed")
    student = fleets.make_model(folder / "student", 3, "--family", "llama")
    fleet = fleets.Fleet(folder / "fleet", assets, corpus={"isolate_documents": True}).up()
    forked = subprocess.Popen([sys.executable, fleets.SOURCE / "python/tests/forked.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def go(name, processes, *options):
        out = folder / f"{name}-{processes}.txt"
        argv = [fleets.SOURCE / "python/examples/ddp.py", *options, fleet.config, student, folder / name]
        forked.stdin.write(json.dumps({"processes": processes, "argv": list(map(str, argv)), "out": str(out)}) + "\n")
        forked.stdin.flush()
        assert json.loads(forked.stdout.readline())["codes"] == [0] * processes, fleet.log("selectord-0")[-2000:]
        lines = map(str.split, out.read_text().splitlines())
        return {int(step): (float(loss), list(map(int, seqs))) for step, loss, *seqs in lines}

    go.fleet, go.folder = fleet, folder
    try:
        go.one = go("one", 1)
        go.want = {b.step: b.seqs.tolist() for b in SaltDataset(fleet.config, timeout_s=30)}
        yield go
    finally:
        forked.kill()
        forked.wait()
        fleet.down()


def same(run, steps, first=0):
    """The union of rows is the plan's, in its order; losses are those of one process, but for rounding."""
    assert {step: seqs for step, (_, seqs) in steps.items()} == {step: run.want[step] for step in range(first, STEPS)}
    for step, (loss, _) in steps.items():
        assert abs(loss - run.one[step][0]) < 2e-5, step


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_processes(run, kind):
    """1, 2 and 4 processes; then from the checkpoint of the switch, which 2 processes wrote, with 4."""
    options = ["--fsdp"] if kind == "fsdp" else []
    same(run, run.one)
    same(run, run(kind, 2, *options))
    if kind == "ddp":
        same(run, run("four", 4))
    (run.folder / kind / f"step_{STEPS:08}.pt").unlink()
    same(run, run(kind, 4, *options), SWITCH)


def test_released(run):
    assert run.fleet.wait_end("teacherd-0") == 0
