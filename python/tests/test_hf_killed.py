# SPDX-License-Identifier: Apache-2.0
"""examples/hf_trainer.py killed in both phases, and with two processes. Apart from test_hf.py, so that both run side by side."""
import re

from resume import EXAMPLES, Run, by_step, killed_and_resumed, rows_of, small


def test_example_killed_and_resumed(make_fleet, tmp_path, assets):
    killed_and_resumed(make_fleet, tmp_path, lambda fleet, out: [EXAMPLES / "hf_trainer.py", fleet.config, assets / "student", out])


def test_two_processes(make_fleet, tmp_path, assets):
    """DDP of the Trainer: the rows of every step, each once, and the losses of one process, of steps and of the held-out corpus."""
    fleet = small(make_fleet)
    expected, found, evaluated = rows_of(fleet), {}, {}
    for world in (2, 1):
        with Run(tmp_path, str(world), [EXAMPLES / "hf_trainer.py", fleet.config, assets / "student", tmp_path / f"out-{world}"], world=world) as run:
            run.wait_end()
            found[world] = by_step(run)
            evaluated[world] = [float(x) for x in re.findall(r"'eval_loss': '?([0-9.e+-]+)", run.output.read_text())]
    assert len(evaluated[1]) == len(evaluated[2]) == 2
    assert all(abs(a - b) < 2e-3 for a, b in zip(*evaluated.values())), evaluated
    for step, rows in expected.items():
        means = []
        for steps in found.values():
            assert sorted(seq for seqs, _ in steps[step] for seq in seqs) == sorted(rows), step
            means.append(sum(loss for _, loss in steps[step]) / len(steps[step]))
        assert abs(means[0] - means[1]) < 2e-5, step
    assert {world: len(steps) for world, steps in found.items()} == {1: len(expected), 2: len(expected)}
