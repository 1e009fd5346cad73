# SPDX-License-Identifier: Apache-2.0
"""What SALT saves against tuned baselines: a grid of runs, each a fleet.yaml with overrides.

    python3 bench/study/study.py prepare                      text, tokenizer, corpus (once)
    python3 bench/study/study.py list   [PATTERN...]          cells: finished or not, and how long they take
    python3 bench/study/study.py run    [PATTERN...] [--jobs N] [--seconds S] [--pairs FILE]
    python3 bench/study/study.py run    PATTERN... --alone    the same cells again, by the clock
    python3 bench/study/study.py tables                       docs/results.json and the tables and plots of docs/results.md

A cell is a complete run, named SIZE/RECIPE/lrX/seedN/pP: the model, the recipe (recipes.py), the peak learning rate, the seed, and the steps as a
percentage of the baseline's. `run` runs what is missing, a cell's teacher and starting model first, and stops cleanly after S seconds; what a
stopped cell has done is continued by the next call. A finished cell is one file in bench/study/runs: its options, evaluations, cost and machine.
PATTERN is a shell pattern over names. Work lies in build/study (--dir).

With --jobs above 1 cells run side by side, a thread each: the fastest way to the losses, which do not depend on it. Their seconds are no measure of
speed and are marked; wall clock is claimed only from cells that ran alone (--alone), two threads, one after the other. Each of these has a result of
its own, NAME.alone.json, so a cell that has run beside others can be run again by the clock.

With --pairs FILE (minimal pairs as of `saltctl eval --pairs`: JSON lines with sentence_good and sentence_bad, or good and bad) the complete runs of
the seeds of the claim are judged by them too, before their checkpoint is deleted. A result keeps one bit for each pair, so two runs can be compared
pair by pair.
"""
from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import recipes  # noqa: E402


class Study:
    def __init__(self, args):
        self.dir, self.bin, self.runs, self.docs = (p.resolve() for p in (args.dir, args.bin, args.runs, args.docs))
        self.alone, self.pairs = args.alone, args.pairs
        self.stop = threading.Event()
        self.lock = threading.Lock()

    # ---- cells ----

    def result_path(self, cell, alone=False):
        return self.runs / (str(cell).replace("/", ".") + (".alone" if alone else "") + ".json")

    def result(self, cell):
        """What the cell gave. Its losses do not depend on what ran beside it, so a run by the clock will do."""
        for path in (self.result_path(cell), self.result_path(cell, True)):
            if path.exists():
                return json.loads(path.read_text())
        return None

    def timed(self, cell):
        """What the cell gave when it ran alone."""
        path = self.result_path(cell, True)
        return json.loads(path.read_text()) if path.exists() else None

    def runs_alone(self, cell):
        return self.alone and not cell.is_slm()

    def folder(self, cell):
        return self.dir / "cells" / (str(cell).replace("/", ".") + (".alone" if self.runs_alone(cell) else ""))

    def checkpoint(self, cell, step):
        return self.folder(cell) / f"run/checkpoints/step_{step:08d}"

    def needs(self, cell):
        """The cells whose checkpoints this one reads."""
        return [recipes.Cell(cell.size, slm) for slm in cell.recipe_slms()]

    # ---- preparation ----

    def saltctl(self, *words):
        done = subprocess.run([self.bin / "saltctl", *map(str, words)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"saltctl {' '.join(map(str, words))}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def prepare(self):
        if (self.dir / "data/train.json").exists() and (self.dir / "data/heldout.json").exists():
            return
        self.dir.mkdir(parents=True, exist_ok=True)
        text, tokenizer = self.dir / "text.jsonl", self.dir / "tokenizer"
        if not text.exists():
            with open(text.with_suffix(".new"), "w") as out:
                subprocess.run([sys.executable, SOURCE / "bench/study/text.py", "--packages", self.dir / "packages"], stdout=out, check=True)
            text.with_suffix(".new").rename(text)
        if not tokenizer.exists():
            python = os.environ.get("SALT_PEERS_PYTHON", SOURCE / "build/peers/bin/python")
            subprocess.run([python, SOURCE / "bench/study/tokenizer.py", text, tokenizer, str(recipes.VOCABULARY)], check=True)
        print(self.saltctl("corpus", "build", "--tokenizer", tokenizer, "--out", self.dir / "data/train", "--heldout-out", self.dir / "data/heldout",
                           "--heldout-one-in", 40, "--jsonl", text), end="")

    def model(self, cell):
        """The folder of the cell's model, or, for a grown start, the initial weights made from the small model's."""
        shape = recipes.shape(cell)
        name = "x".join(map(str, shape))
        folder = self.dir / "models" / name
        with self.lock:
            if not folder.exists():
                layers, width, heads = shape
                self.saltctl("model", "new", "--family", "llama", "--layers", layers, "--width", width, "--heads", heads, "--context",
                             recipes.CONTEXT, "--tokenizer", self.dir / "tokenizer", folder)
        return folder

    def grown(self, cell, slm):
        layers, width, heads = recipes.shape(cell)
        out = self.folder(cell) / "grown"
        if not out.exists():
            self.saltctl("model", "grow", self.checkpoint(slm, slm.steps()), out, "--layers", layers, "--width", width, "--heads", heads,
                         "--seed", cell.seed, *recipes.GROW)
        return out

    # ---- one cell ----

    def options(self, cell, threads):
        options = cell.options()
        options["corpus.train"] = str(self.dir / "data/train")
        options["corpus.heldout"] = str(self.dir / "data/heldout")
        options["trainer.model"] = str(self.model(cell))
        options["trainer.threads"] = threads
        options["run.dir"] = "run"
        for slm in self.needs(cell):
            if cell.recipe().get("teacher") == slm.recipe_name:
                folder = self.folder(cell)
                endpoint = f"ipc://{folder}/s.ipc"
                options.update({"teacher.model": str(self.checkpoint(slm, slm.steps())), "teacher.threads": threads, "cache.dir": "cache",
                                "cache.map_size": "16GiB", "selector.endpoints": f'["{endpoint}"]'})
                if options.get("selector.mode") == "salt_ds":
                    options["teacher.scorer"] = str(self.checkpoint(slm, slm.early_step()))
            if cell.recipe().get("grow") == slm.recipe_name:
                options["trainer.init"] = str(self.grown(cell, slm))
        return options

    def write_config(self, cell, options):
        sections = {}
        for key, value in options.items():
            section, name = key.split(".")
            sections.setdefault(section, []).append(f"  {name}: {json.dumps(value) if isinstance(value, bool) else value}")
        path = self.folder(cell) / "fleet.yaml"
        path.write_text("".join(f"{s}:\n" + "\n".join(lines) + "\n" for s, lines in sections.items()))
        return path

    def fleet(self, verb, config, *words):
        env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        with open(config.with_name(f"{verb}.log"), "a") as log:
            return subprocess.Popen([SOURCE / "deploy/local.sh", verb, "--bin", self.bin, "-c", config, *words], stdout=log, stderr=log, env=env,
                                    start_new_session=True)

    def metrics(self, cell):
        with open(self.folder(cell) / "run/metrics.jsonl") as lines:
            return [json.loads(line) for line in lines]

    def run_cell(self, cell, threads, alone):
        """Trains the cell to its end and writes its result. False if it was stopped before."""
        folder = self.folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        options = self.options(cell, threads)
        config = self.write_config(cell, options)
        begun = time.time()
        up = self.fleet("up", config, "--wait")
        while up.poll() is None and not self.stop.is_set():
            time.sleep(0.5)
        stopped = up.poll() is None
        self.fleet("down", config).wait(180)
        if stopped:
            up.wait(60)
            return False
        last = self.checkpoint(cell, cell.steps())
        if up.returncode != 0 or not last.exists():
            raise RuntimeError(f"{cell}: the fleet ended with {up.returncode}; see {folder}/up.log and run/logs")
        self.write_result(cell, options, threads, alone, time.time() - begun)
        for path in folder.glob("run/checkpoints/step_*"):          # only what other cells read stays
            if not (cell.is_slm() and path.name in (f"step_{cell.steps():08d}", f"step_{cell.early_step():08d}")):
                shutil.rmtree(path)
        for name in ("cache", "grown"):
            shutil.rmtree(folder / name, ignore_errors=True)
        return True

    # ---- judging a finished cell ----

    def judged_by_pairs(self, cell):
        return cell.seed in recipes.CLAIM_SEEDS and cell.percent == 100 and not cell.is_slm()

    def judge_pairs(self, cell, threads):
        """Minimal pairs: the file's hash, the share of right ones, and a bit for each pair, the first one the highest, in hexadecimal."""
        items = self.folder(cell) / "pairs.items"
        self.saltctl("eval", "--json", "--model", self.checkpoint(cell, cell.steps()), "--tokenizer", self.dir / "tokenizer",
                     "--pairs", self.pairs, "--items", items, "--threads", threads)
        right = [json.loads(line)["right"] for line in items.read_text().splitlines()]
        items.unlink()
        return {"sha256": hashlib.sha256(self.pairs.read_bytes()).hexdigest()[:16], "items": len(right),
                "accuracy": sum(right) / len(right), "right": bits_to_hex(right)}

    def by_sequence(self, cell, out, threads):
        """The last evaluation of a run, and the loss of each of its sequences in the file out."""
        return json.loads(self.saltctl("eval", "--json", "--model", self.checkpoint(cell, cell.steps()), "--corpus", self.dir / "data/heldout",
                                       "--context", recipes.CONTEXT, "--windows", recipes.FINAL_SEQUENCES, "--threads", threads,
                                       "--by-sequence", out))

    def thirds(self, cell, own, threads):
        """Mean loss on the sequences that the small model of this size finds easy, medium and hard; None without one."""
        slm = recipes.Cell(cell.size, "slm")
        path = self.folder(slm) / "by_sequence.jsonl"
        with self.lock:
            if not path.exists():
                if not self.checkpoint(slm, slm.steps()).exists():
                    return None
                self.by_sequence(slm, path, threads)
        return thirds(read_losses(path), read_losses(own))

    def write_result(self, cell, options, threads, alone, wall):
        metrics = self.metrics(cell)
        steps = [m for m in metrics if m["kind"] == "step"]
        ledger = [json.loads(p.read_text()) for p in (self.folder(cell) / "run/ledger").glob("*.json")]
        losses = self.folder(cell) / "by_sequence.jsonl"
        final = self.by_sequence(cell, losses, threads)
        result = {
            "cell": str(cell), "options": {k: v for k, v in options.items() if not str(v).startswith(("/", '["ipc')) and "/" not in str(v)},
            "parameters": json.loads(self.saltctl("model", "info", "--json", self.model(cell)))["params"],
            "evaluations": [[m["step"], round(m["loss"], 5), round(m["accuracy"], 5)] for m in metrics if m["kind"] == "eval"],
            "final": {k: v for k, v in final.items() if k not in ("model", "corpus")}, "by_teacher_loss": self.thirds(cell, losses, threads),
            "train_seconds": round(sum(m["step_seconds"] for m in steps), 1), "wait_seconds": round(sum(m["wait_seconds"] for m in steps), 1),
            "teacher_cpu_seconds": round(sum(e.get("cpu_seconds", 0) for e in ledger if e.get("role", "").startswith("teacher")), 1),
            "label_bytes": sum(m["label_bytes"] or 0 for m in steps), "label_tokens": sum(m["kd_tokens"] or 0 for m in steps),
            "wall_seconds": round(wall, 1), "alone": alone,
            "machine": cpu_name(), "compute": compute(self.folder(cell) / "run/logs/trainerd.log"), "commit": commit(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
        if self.pairs and self.judged_by_pairs(cell):
            result["pairs"] = self.judge_pairs(cell, threads)
        self.runs.mkdir(exist_ok=True)
        path = self.result_path(cell, self.runs_alone(cell))
        path.with_suffix(".new").write_text(json.dumps(result, indent=1) + "\n")
        path.with_suffix(".new").rename(path)
        print(f"{time.strftime('%H:%M:%S')} {cell}: {final_loss(result):.4f} nats, {wall:.0f} s", flush=True)

    def run(self, cells, jobs, seconds, alone):
        end = time.monotonic() + seconds if seconds else None
        todo, claimed, failed = self.ordered(cells), set(), []
        missing = {str(c) for c in todo}            # not yet finished by this call

        def work():
            while not self.stop.is_set():
                with self.lock:
                    cell = next((c for c in todo if str(c) not in claimed and not any(str(n) in missing for n in self.needs(c))), None)
                    if cell is None:
                        if all(str(c) in claimed for c in todo):
                            return
                    else:
                        claimed.add(str(cell))
                if cell is None:
                    time.sleep(1)
                    if failed:
                        return
                    continue
                try:
                    if self.run_cell(cell, 2 if alone else 1, alone):
                        with self.lock:
                            missing.discard(str(cell))
                except (RuntimeError, OSError, subprocess.SubprocessError) as e:
                    failed.append(str(cell))
                    print(f"study.py: {e}", file=sys.stderr, flush=True)
        threads = [threading.Thread(target=work) for _ in range(jobs)]
        for t in threads:
            t.start()
        while any(t.is_alive() for t in threads):
            if end and time.monotonic() > end:
                self.stop.set()
            time.sleep(0.5)
        return failed

    def ordered(self, cells):
        """What is missing of cells and what they need; needs first."""
        out = {}
        for cell in cells:
            for need in [*self.needs(cell), cell]:
                done = self.timed(need) if self.runs_alone(need) else self.result(need)
                if done is None or (need.is_slm() and not self.checkpoint(need, need.steps()).exists()):
                    out.setdefault(str(need), need)
                elif self.pairs and self.judged_by_pairs(need) and "pairs" not in done:
                    print(f"study.py: {need} is finished and was not judged by pairs; to run it again delete its file in {self.runs}",
                          file=sys.stderr)
        return list(out.values())


def final_loss(result):
    return result["final"]["log_perplexity"]


def bits_to_hex(bits):
    """[True, False, ...] as hexadecimal digits, the first bit the highest; the last digit is filled up with 0."""
    text = "".join("01"[bool(b)] for b in bits)
    text += "0" * (-len(text) % 4)
    return "".join(f"{int(text[i:i + 4], 2):x}" for i in range(0, len(text), 4))


def read_losses(path):
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def thirds(teacher, losses):
    """Mean of losses over the sequences with the lowest, middle and highest teacher's loss."""
    order = sorted(range(len(teacher)), key=lambda i: (teacher[i], i))
    n = len(order)
    return [round(sum(losses[i] for i in part) / len(part), 5) for part in (order[n * k // 3:n * (k + 1) // 3] for k in range(3))]


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def compute(log):
    """The backend and dtype that trainerd named when it last started; None without its log."""
    found = re.findall(r' event=run\.start .*?compute="([^"]*)"', log.read_text()) if log.exists() else []
    return found[-1] if found else None


def commit():
    return subprocess.run(["git", "-C", SOURCE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage=__doc__.split("\n\n")[1])
    p.add_argument("verb", choices=("prepare", "list", "run", "tables"))
    p.add_argument("patterns", nargs="*", metavar="PATTERN")
    p.add_argument("--dir", type=pathlib.Path, default=SOURCE / "build/study")
    p.add_argument("--bin", type=pathlib.Path, default=SOURCE / "build/bin")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--seconds", type=float, default=0)
    p.add_argument("--alone", action="store_true", help="one cell at a time with two threads, for wall clock")
    p.add_argument("--pairs", type=pathlib.Path, help="minimal pairs that the runs of the claim are judged by")
    p.add_argument("--runs", type=pathlib.Path, default=SOURCE / "bench/study/runs")
    p.add_argument("--docs", type=pathlib.Path, default=SOURCE / "docs", help="where `tables` writes")
    args = p.parse_intermixed_args()      # options may stand before the patterns
    if args.pairs and not args.pairs.is_file():
        p.error(f"--pairs: expected a file, found {args.pairs}")
    if args.verb == "run" and args.alone and not args.patterns:
        p.error("--alone needs a PATTERN: wall clock wants a few cells only")
    study = Study(args)
    if args.verb == "tables":
        import tables
        return tables.main(study)
    if args.verb in ("prepare", "run"):
        study.prepare()
    cells = [c for c in recipes.cells(study) if not args.patterns or any(fnmatch.fnmatch(str(c), q) for q in args.patterns)]
    if args.verb == "list":
        for cell in cells:
            result = study.result(cell)
            print(f"{cell!s:48}", f"{final_loss(result):.4f} nats  {result['wall_seconds']:.0f} s" if result else "-")
    if args.verb == "run":
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, lambda *_: study.stop.set())
        if args.alone and args.jobs != 1:
            args.jobs = 1
        if failed := study.run(cells, args.jobs, args.seconds, args.alone):
            print("study.py: failed: " + " ".join(failed), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
