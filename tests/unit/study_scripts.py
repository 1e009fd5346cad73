# SPDX-License-Identifier: Apache-2.0
"""bench/study: arithmetic of the tables, order of the cells, the runner with a fleet that is a stub. Expected values are computed by hand."""
import argparse
import contextlib
import io
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "bench/study"))
import recipes  # noqa: E402
import study  # noqa: E402
import tables  # noqa: E402

# A saltctl that knows what the runner asks: eval by sequence (four of them) and by pairs (five).
SALTCTL = """#!/usr/bin/env python3
import json, pathlib, sys
words = sys.argv[1:]
def value(name):
    return words[words.index(name) + 1] if name in words else None
model = pathlib.Path(value("--model") or words[-1])
if words[:2] == ["model", "new"]:
    model.mkdir(parents=True)
elif words[:2] == ["model", "info"]:
    print(json.dumps({"params": 12}))
elif words[0] == "eval" and value("--pairs"):
    right = [True, False, True, True, False] if "salt" in str(model) else [False, False, True, True, False]
    pathlib.Path(value("--items")).write_text("".join(json.dumps({"line": i + 1, "right": r}) + "\\n" for i, r in enumerate(right)))
    print("{}")
elif words[0] == "eval":
    losses = [4.0, 1.0, 3.0, 2.0] if "slm" in str(model) else [0.5, 0.25, 1.5, 1.0]
    pathlib.Path(value("--by-sequence")).write_text("".join(json.dumps({"sequence": i, "loss": x}) + "\\n" for i, x in enumerate(losses)))
    print(json.dumps({"log_perplexity": sum(losses) / 4, "accuracy": 0.5, "bits_per_byte": 2.0}))
else:
    sys.exit(f"stub: {words}")
"""


class Stub(study.Study):
    """The fleet of a cell: it writes metrics and the checkpoint, and remembers the order of its starts."""

    def __init__(self, *args):
        super().__init__(*args)
        self.started = []

    def fleet(self, verb, config, *words):
        if verb == "up":
            folder = config.parent
            self.started.append(folder.name)
            cell = next(c for c in [recipes.Cell("small", n) for n in recipes.SLMS] + recipes.cells(self) if self.folder(c) == folder)
            if not all(self.checkpoint(n, n.steps()).exists() for n in self.needs(cell)):
                return subprocess.Popen(["sh", "-c", "exit 66"])
            for step in {cell.steps(), cell.early_step()}:
                self.checkpoint(cell, step).mkdir(parents=True, exist_ok=True)
            step = {"kind": "step", "step_seconds": 30.0, "wait_seconds": 2.0, "label_bytes": 7, "kd_tokens": 3}
            (folder / "run/metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in (
                step, {"kind": "eval", "step": 20, "loss": 3.0, "accuracy": 0.25}, step)))
            (folder / "run/logs").mkdir(exist_ok=True)
            (folder / "run/logs/trainerd.log").write_text("".join(
                f'ts=1 event=run.start mode=salt step={s} compute="{c}" why="x"\nts=2 event=stop\n' for s, c in ((0, "OpenBLAS fp32"), (20, "oneDNN bf16"))))
            (folder / "run/ledger").mkdir(exist_ok=True)
            (folder / "run/ledger/teacherd-1.json").write_text('{"role": "teacher", "cpu_seconds": 8.0}')
        return subprocess.Popen(["true"])


def result(loss, **more):
    return {"final": {"log_perplexity": loss, "accuracy": 0.2, "bits_per_byte": 2.0}, "evaluations": [[400, loss + 0.5, 0.1], [800, loss, 0.2]], "train_seconds": 90.0, "wait_seconds": 10.0,
            "teacher_cpu_seconds": 20.0, "wall_seconds": 120.0, **more}


class WithFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for name in ("bin", "data", "runs", "docs"):
            (self.folder / name).mkdir()
        (self.folder / "bin/saltctl").write_text(SALTCTL)
        (self.folder / "bin/saltctl").chmod(0o755)
        (self.folder / "pairs.jsonl").write_text("{}\n" * 5)

    def study(self, alone=False, pairs=False, kind=Stub):
        f = self.folder
        return kind(argparse.Namespace(dir=f, bin=f / "bin", runs=f / "runs", docs=f / "docs", alone=alone, pairs=f / "pairs.jsonl" if pairs else None))

    def put(self, cell, value, alone=False):
        self.study().result_path(cell, alone).write_text(json.dumps(value))

    def put_sweep(self, size="small"):
        """The middle learning rate is the best one of every recipe."""
        for name, recipe in recipes.RECIPES.items():
            for lr, loss in zip(recipes.rates(size, recipe), (5.2, 5.0, 5.1)):
                self.put(recipes.Cell(size, name, lr), result(loss))


class Arithmetic(unittest.TestCase):
    def test_mean_se(self):
        self.assertEqual(tables.mean_se([]), (None, None))
        self.assertEqual(tables.mean_se([None, 3.0]), (3.0, None))
        mean, se = tables.mean_se([1.0, 2.0, None, 6.0])
        self.assertEqual(mean, 3.0)
        self.assertAlmostEqual(se, math.sqrt(7.0 / 3))          # deviations -2, -1, 3; 14 / 2 = 7

    def test_share(self):
        base = result(4.0)
        runs = {60: result(4.4), 70: result(4.2), 80: result(3.9), 90: result(3.8), 100: result(3.7)}
        value, bound = tables.share(runs, base)
        self.assertAlmostEqual(value, 0.80 - 0.10 * 0.1 / 0.3)  # from 4.2 at 70 to 3.9 at 80
        self.assertFalse(bound)
        self.assertEqual(tables.share({60: result(3.9), 70: result(3.8)}, base), (0.6, True))
        self.assertEqual(tables.share({60: result(4.0)}, base), (0.6, False))
        self.assertEqual(tables.share({60: result(4.2), 100: result(4.1)}, base), (None, False))

    def test_between(self):
        self.assertEqual(tables.between({70: 100.0, 80: 120.0}, 70), 100.0)
        self.assertAlmostEqual(tables.between({60: 0.0, 70: 100.0, 80: 120.0}, 77.5), 115.0)
        self.assertIsNone(tables.between({70: 100.0, 80: 120.0}, 65))
        self.assertIsNone(tables.between({}, 65))

    def test_bits(self):
        self.assertEqual(study.bits_to_hex([True, False, True, True, False]), "b0")         # 1011 0000
        for bits in ([], [True], [False] * 4, [False, True, True, False, True, True, True]):
            self.assertEqual(tables.hex_to_bits(study.bits_to_hex(bits), len(bits)), bits)

    def test_thirds(self):
        self.assertEqual(study.thirds([6, 1, 5, 2, 4, 3], [60, 10, 50, 20, 40, 30]), [15, 35, 55])
        self.assertEqual(study.thirds([1, 1, 1], [7, 8, 9]), [7, 8, 9])                   # of equal ones the first


class Cells(WithFolder):
    def test_needs_come_first_and_once(self):
        s = self.study()
        salt, grown = recipes.Cell("small", "salt3", 2e-3), recipes.Cell("small", "grown_salt", 2e-3)
        self.assertEqual([str(c) for c in s.ordered([salt, grown, salt])],
                         ["small/slm3", "small/salt3/lr0.002/seed1/p100", "small/slm", "small/grown_salt/lr0.002/seed1/p100"])

    def test_claims_follow_the_sweep(self):
        s = self.study()
        self.assertFalse([c for c in recipes.cells(s) if c.seed != recipes.CHOICE_SEED])
        self.put_sweep()
        claims = [c for c in recipes.cells(s) if c.seed != recipes.CHOICE_SEED]
        self.assertEqual({c.lr for c in claims if c.recipe_name == "salt"}, {4e-3})
        self.assertEqual({c.percent for c in claims if c.recipe_name == "salt"}, {40, 50, 60, 70, 80, 90, 100})
        self.assertEqual({c.size for c in claims}, {"small"})
        self.put(recipes.Cell("small", "salt+linear", 4e-3), result(4.9))                  # a change that helped is what is claimed
        names = {c.recipe_name for c in recipes.cells(s) if c.seed != recipes.CHOICE_SEED}
        self.assertIn("salt+linear", names)
        self.assertNotIn("salt", names)
        self.put(recipes.Cell("small", "salt+linear", 4e-3, 2, 80), result(5.0))
        self.put(recipes.Cell("small", "salt+n60", 4e-3), result(4.8))                     # a better one, after a claim has begun
        names = {c.recipe_name for c in recipes.cells(s) if c.seed != recipes.CHOICE_SEED}
        self.assertLessEqual({"salt+linear", "salt+n60"}, names)

    def test_a_share_of_more_seeds_comes_first(self):
        s = self.study()
        self.put_sweep()
        for seed in recipes.CLAIM_SEEDS:
            self.put(recipes.Cell("small", "baseline", 4e-3, seed), result(4.0))
            self.put(recipes.Cell("small", "salt", 4e-3, seed, 80), result(4.0))
        self.put(recipes.Cell("small", "salt+linear", 4e-3, 2, 70), result(4.0))          # lower, of one seed
        mean, se, name, *_ = tables.Results(s).best_share("small", ("salt",))
        self.assertEqual((mean, se, name), (0.8, 0.0, "salt"))

    def test_an_upper_bound_has_no_standard_error(self):
        s = self.study()
        self.put_sweep()
        for seed, final in zip(recipes.CLAIM_SEEDS, (3.9, 4.0, 4.0), strict=True):
            self.put(recipes.Cell("small", "baseline", 4e-3, seed), result(4.0))
            self.put(recipes.Cell("small", "salt", 4e-3, seed, 80), result(final))        # 3.9: no run is short enough
        self.assertEqual(tables.Results(s).best_share("small", ("salt",)), (0.8, None, "salt", 1, 3))
        self.assertIn("| 80.0; 1 at most |", tables.claim_table(tables.Results(s), "small"))

    def test_shorter_runs_scale(self):
        options = recipes.Cell("small", "salt", 2e-3, 2, 70).options()
        self.assertEqual((options["trainer.steps"], options["trainer.warmup"], options["phase_one.steps"]), (560, 56, 224))

    def test_a_smaller_batch_takes_more_steps(self):
        options = recipes.Cell("large", "baseline_quarter", 2e-3).options()
        self.assertEqual([options[f"trainer.{k}"] for k in ("steps", "batch", "micro_batch", "lanes", "warmup")], [3200, 4, 1, 4, 320])

    def test_rates_of_the_sizes(self):
        self.assertEqual(recipes.rates("small", {}), [2e-3, 4e-3, 8e-3])
        self.assertEqual(recipes.rates("large", {}), [1e-3, 2e-3, 4e-3])
        self.assertEqual(recipes.rates("small", {"rates": {"large": (2e-3, 4e-3)}}), [2e-3, 4e-3, 8e-3])
        self.assertEqual(recipes.rates("large", {"rates": {"large": (2e-3, 4e-3)}}), [1e-3, 2e-3])

    def test_recipes_of_three_and_four_rates_fill_their_rows(self):
        self.assertEqual([len(recipes.rates("large", recipes.RECIPES[name])) for name in ("baseline", "salt")], [3, 4])
        for size in recipes.SIZES:
            self.put_sweep(size)
            rows = [line for line in tables.sweep_table(tables.Results(self.study()), size).splitlines() if line.startswith("|")]
            self.assertEqual({row.count("|") for row in rows}, {6})


class Runner(WithFolder):
    def run_cells(self, s, *cells):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            self.assertEqual(s.run(cells, 2, 0, s.alone), [])
        return errors.getvalue()

    def test_a_cell_from_start_to_tables(self):
        base, salt = recipes.Cell("small", "baseline", 4e-3, 2), recipes.Cell("small", "salt", 4e-3, 2)
        self.put_sweep()
        s = self.study(pairs=True)
        self.run_cells(s, salt, base)
        self.assertLess(s.started.index("small.slm"), s.started.index("small.salt.lr0.004.seed2.p100"))
        got = s.result(salt)
        self.assertEqual(got["pairs"]["right"], "b0")
        self.assertEqual((got["pairs"]["items"], got["pairs"]["accuracy"]), (5, 0.6))
        self.assertEqual(got["by_teacher_loss"], [0.25, 1.0, 1.0])      # slm: 4 1 3 2, so the thirds are {1}, {3}, {2, 0}
        self.assertEqual((got["parameters"], got["train_seconds"], got["wait_seconds"], got["teacher_cpu_seconds"]), (12, 60.0, 4.0, 8.0))
        self.assertEqual((got["label_bytes"], got["label_tokens"], got["alone"], got["compute"]), (14, 6, False, "oneDNN bf16"))
        self.assertEqual(got["evaluations"], [[20, 3.0, 0.25]])
        self.assertNotIn("pairs", s.result(recipes.Cell("small", "slm")))
        self.assertFalse(s.checkpoint(salt, 800).exists())
        self.assertTrue(s.checkpoint(recipes.Cell("small", "slm"), 800).exists())
        d = tables.Results(s).pairs("small", "salt")                    # one of five pairs differs: 0.2, se sqrt(0.2 / 5)
        self.assertAlmostEqual(d[0], 0.2)
        self.assertAlmostEqual(d[1], 0.2)
        self.assertEqual(d[2:], (None, 1))
        self.run_cells(s, salt)                                         # what is finished is not run again
        self.assertEqual(len(s.started), 3)

    def test_small_model_without_checkpoint_is_trained_again_first(self):
        salt, slm = recipes.Cell("small", "salt", 4e-3, 2), recipes.Cell("small", "slm")
        self.put_sweep()
        self.put(slm, result(5.4))                                      # as in a clone: the result is committed, the checkpoint is not
        s = self.study()
        self.run_cells(s, salt)
        self.assertEqual(s.started, ["small.slm", "small.salt.lr0.004.seed2.p100"])

    def test_alone_is_another_result(self):
        cell = recipes.Cell("small", "baseline", 4e-3)
        self.put(cell, result(5.0, alone=False))
        s = self.study(alone=True)
        self.run_cells(s, cell)
        self.assertEqual(s.started, ["small.baseline.lr0.004.seed1.p100.alone"])
        self.assertTrue(s.timed(cell)["alone"])
        self.assertEqual(s.result(cell)["final"]["log_perplexity"], 5.0)
        self.assertIn("threads: 2", (s.folder(cell) / "fleet.yaml").read_text())

    def test_finished_without_pairs_is_said(self):
        cell = recipes.Cell("small", "baseline", 4e-3, 2)
        self.put_sweep()
        self.put(cell, result(5.0))
        self.assertIn("p100 is finished and was not judged by pairs; to run it again delete its file", self.run_cells(self.study(pairs=True), cell))


    def test_options_before_patterns(self):
        done = subprocess.run([sys.executable, SOURCE / "bench/study/study.py", "list", "--jobs", "1", "--runs", self.folder, "small/slm", "small/slm3"],
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, [line.split()[0] for line in done.stdout.splitlines()]), (0, ["small/slm", "small/slm3"]), done.stderr)


class Tables(WithFolder):
    def rows(self):
        s = self.study()
        tables.main(s)
        return {r["name"]: r for r in json.loads((s.docs / "results.json").read_text())}

    def test_nothing_yet_and_rows_of_others(self):
        (self.folder / "docs/results.json").write_text(json.dumps([
            {"name": "muon_step_cost", "value": 1.05, "unit": "of AdamW"}, {"name": "salt_steps_share_small_se", "value": 9}]))
        rows = self.rows()
        self.assertEqual(rows["muon_step_cost"], {"name": "muon_step_cost", "value": 1.05, "unit": "of AdamW"})
        self.assertNotIn("salt_steps_share_small_se", rows)
        for name in ("salt_steps_share_small", "salt_steps_share_large", "salt_wall_clock_saved", "grow_salt_steps_share", "muon_salt_steps_share",
                     "minimal_pairs_salt"):
            self.assertIsNone(rows[name]["value"])
            self.assertTrue(rows[name]["why"])

    def test_made_up_runs(self):
        """Baseline 5.0 after 100 s, seeds 2 to 4. SALT ends at 5.1, 4.9, 4.8 after 60, 70, 80 %: 0.65 of the steps. Each run has 10 s of steps a
        tenth, teachers 20 s on two cores. Pairs: SALT 3, 4, 5 of 8, the baseline 3."""
        self.put_sweep()
        for i, seed in enumerate(recipes.CLAIM_SEEDS):
            def pairs(n):
                return {"pairs": {"sha256": "x", "items": 8, "accuracy": n / 8, "right": study.bits_to_hex([k < n for k in range(8)])}}
            base = recipes.Cell("small", "baseline", 4e-3, seed)
            self.put(base, result(5.0, by_teacher_loss=[4.0, 5.0, 6.0], **pairs(3)))
            self.put(base, result(5.0), alone=True)
            for percent, loss in ((60, 5.1), (70, 4.9), (80, 4.8), (100, 4.7)):
                cell = recipes.Cell("small", "salt", 4e-3, seed, percent)
                self.put(cell, result(loss, **(dict(by_teacher_loss=[3.9, 5.0, 6.2], **pairs(3 + i)) if percent == 100 else {})))
                if percent < 80:
                    self.put(cell, result(loss, train_seconds=float(percent - 10)), alone=True)
        rows = self.rows()
        self.assertAlmostEqual(rows["salt_steps_share_small"]["value"], 0.65)
        self.assertEqual(rows["salt_steps_share_small_se"]["value"], 0.0)
        self.assertAlmostEqual(rows["salt_wall_clock_saved"]["value"], 0.35)
        self.assertAlmostEqual(rows["salt_wall_clock_saved_teacher_not_counted"]["value"], 0.45)      # 65 - 20 / 2 of 100
        self.assertIn("small, salt, 3 seeds", rows["salt_wall_clock_saved"]["note"])
        # pair by pair: seeds differ by 0, 1/8, 2/8; over the pairs: means 0 0 0 2/3 1/3 0 0 0, variance (4/9 + 1/9 - 8/64) / 7
        self.assertAlmostEqual(rows["minimal_pairs_salt"]["value"], 4 / 8)
        self.assertAlmostEqual(rows["minimal_pairs_salt"]["peer_value"], 3 / 8)
        self.assertAlmostEqual(rows["minimal_pairs_salt_se"]["value"], math.sqrt((5 / 9 - 8 / 64) / 7 / 8), places=5)
        self.assertIn("0.07217 over seeds", rows["minimal_pairs_salt_se"]["note"])                    # 0.125 / sqrt(3)
        page = (self.folder / "docs/results.md").read_text()
        for line in ("| salt | 100 % | 3 | 4.7000 ± 0.0000 |", "| baseline | 37.50 ± 0.00 |  | 4.0000 ± 0.0000 |", "-0.1000 ± 0.0000",
                     "| salt | 3 | 35.0 ± 0.0 | 45.0 ± 0.0 |"):
            self.assertIn(line, page)
        self.assertTrue((self.folder / "docs/results-small.svg").exists())

    def test_share_without_runs_of_all_steps(self):
        """The share stands once, in the row of the longest run."""
        self.put_sweep()
        for seed in recipes.CLAIM_SEEDS:
            self.put(recipes.Cell("small", "baseline", 4e-3, seed), result(5.0))
            for percent, loss in ((60, 5.1), (70, 4.9)):
                self.put(recipes.Cell("small", "salt", 4e-3, seed, percent), result(loss))
        self.rows()
        page = (self.folder / "docs/results.md").read_text()
        self.assertIn("-0.1000 ± 0.0000 | 65.0 ± 0.0 |", page)
        self.assertEqual(page.count("65.0 ± 0.0"), 1)

    def test_files_of_finished_runs_stay_readable(self):
        """Whatever is in runs/ makes tables, also files without the later members."""
        s = study.Study(argparse.Namespace(dir=self.folder, bin=self.folder, runs=SOURCE / "bench/study/runs", docs=self.folder / "docs", alone=False,
                                           pairs=None))
        tables.main(s)
        for path in s.runs.glob("*.json"):
            r = json.loads(path.read_text())
            self.assertGreater(r["final"]["log_perplexity"], 0, path)
            self.assertGreater(r["train_seconds"], 0, path)


if __name__ == "__main__":
    unittest.main()
