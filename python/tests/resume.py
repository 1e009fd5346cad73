# SPDX-License-Identifier: Apache-2.0
"""A training program of some framework, killed and started again: what the tests of the integrations share."""
from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Sequence

from fleet import Fleet, free_port
from saltfleet import Trainer

HERE = pathlib.Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
STEPS, SWITCH, EVERY, BATCH = 12, 6, 3, 8       # of the fleets; a checkpoint every EVERY steps
WAIT_S = 200.0                                  # frameworks take long to import where many tests run


class Run:
    """SCRIPT ARGUMENT... as `world` processes, under logged.py."""

    def __init__(self, folder: pathlib.Path, name: str, command: Sequence[Any], hold: int | None = None, world: int = 1):
        port = str(free_port())
        self.logs = [folder / f"{name}.{rank}.rows" for rank in range(world)]
        self.output = folder / f"{name}.log"
        self.processes = []
        for rank, log in enumerate(self.logs):
            log.touch()
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            env = {**os.environ, **(place if world > 1 else {}), **({} if hold is None else {"HOLD": str(hold)}), "CUDA_VISIBLE_DEVICES": "",
                   "TORCH_COMPILE_DISABLE": "1"}
            with open(self.output, "ab") as out:
                self.processes.append(subprocess.Popen([sys.executable, HERE / "logged.py", log, *map(str, command)], env=env, cwd=folder,
                                                       stdin=subprocess.DEVNULL, stdout=out, stderr=out))

    def lines(self) -> list[list[dict[str, Any]]]:
        """Of each process, in order."""
        return [[json.loads(line) for line in log.read_text().splitlines()] for log in self.logs]

    def wait_held(self, **expected: Any) -> None:
        """Waits until all processes are in the step `hold`. expected: what selectord has acknowledged to process 0."""
        end = time.monotonic() + WAIT_S
        while not all(lines and "released" in lines[-1] for lines in self.lines()):
            assert all(p.poll() is None for p in self.processes), f"it ended too early: {self.tail()}"
            assert time.monotonic() < end, f"it does not come to the step: {self.tail()}"
            time.sleep(0.1)
        said = self.lines()[0][-1]
        assert said == expected, f"expected {expected}, found {said}"

    def wait_end(self) -> None:
        codes = [p.wait(WAIT_S) for p in self.processes]
        assert not any(codes), f"exit codes {codes}: {self.tail()}"

    def kill(self) -> list[int]:
        """Their exit codes."""
        for p in self.processes:
            p.kill()
        return [p.wait() for p in self.processes]

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def tail(self) -> str:
        return self.output.read_text(errors="replace")[-4000:]


def rows_of(fleet: Fleet) -> dict[int, list[int]]:
    """The rows of every step as the library gives them, without any framework."""
    with Trainer(fleet.config) as trainer:
        return {step: trainer.rows(step, 0, BATCH, timeout_s=60).seqs.tolist() for step in range(STEPS)}


def by_step(run: Run) -> dict[int, list[tuple[list[int], float]]]:
    """The calls of the loss in each step, those of process 0 first. Steps are in the order in which they were trained."""
    steps: dict[int, list[tuple[list[int], float]]] = {}
    for lines in run.lines():
        before = -1
        for line in lines:
            if "released" in line:
                continue
            assert line["step"] in (before, before + 1) or before == -1, f"step {line['step']} after {before}"
            assert line["phase"] == (1 if line["step"] < SWITCH else 2)
            before = line["step"]
            steps.setdefault(before, []).append((line["seqs"], line["loss"]))
    return steps


def small(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet(trainer={"steps": STEPS, "batch": BATCH, "checkpoint_every": EVERY}, phase_one={"steps": SWITCH}).up()


def killed_and_resumed(make_fleet: Callable[..., Fleet], tmp_path: pathlib.Path, command: Callable[[Fleet, pathlib.Path], Sequence[Any]],
                       oldest: int = 6) -> None:
    """One run that nothing disturbs; one that SIGKILL ends in step 4 (phase one) and in step 10 (phase two), between checkpoints. Every call
    of the loss has the rows and, to the last bit, the loss of the other run. The teacher ends at the switch, by itself and with 0.
    oldest: the oldest checkpoint that is kept in step 10; that of the switch, if it is later."""
    whole_fleet, fleet = small(make_fleet), small(make_fleet)
    expected = rows_of(whole_fleet)
    assert len({seq for rows in expected.values() for seq in rows}) == STEPS * BATCH
    again = command(fleet, tmp_path / "killed")
    with Run(tmp_path, "whole", command(whole_fleet, tmp_path / "whole")) as whole:
        with Run(tmp_path, "first", again, hold=4) as first:
            first.wait_held(checkpointed=3, released=False)
            assert fleet.running["teacherd-0"].poll() is None
            assert first.kill() == [-signal.SIGKILL]
        with Run(tmp_path, "second", again, hold=10) as second:
            second.wait_held(checkpointed=oldest, released=True)
            assert fleet.wait_end("teacherd-0") == 0            # while the trainer runs
            assert second.kill() == [-signal.SIGKILL]
        fleet.stop("selectord-0")                               # not needed any more
        with Run(tmp_path, "third", again) as third:
            third.wait_end()
        whole.wait_end()
    assert whole_fleet.wait_end("teacherd-0") == 0

    undisturbed = by_step(whole)
    assert {step: [seq for seqs, _ in calls for seq in seqs] for step, calls in undisturbed.items()} == expected
    for run, steps in (first, range(0, 5)), (second, range(3, 11)), (third, range(9, STEPS)):
        found = by_step(run)
        # It goes on at the checkpoint: no step is missing, none comes twice.
        assert list(found) == list(steps), f"{run.output.stem}: expected steps {list(steps)}, found {list(found)}"
        for step in steps:                              # the last one was cut off
            assert found[step] == undisturbed[step][:len(found[step])], f"step {step} of {run.output.stem}"
            assert len(found[step]) == len(undisturbed[step]) or step == steps[-1]
