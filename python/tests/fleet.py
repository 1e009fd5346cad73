# SPDX-License-Identifier: Apache-2.0
"""A small fleet of real daemons for the tests: corpus, models, selectord and teacherd, all on loopback. BIN is the folder of the programs,
SOURCE the root of the source (run.sh sets both)."""
from __future__ import annotations

import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import time
from typing import Any

BIN = pathlib.Path(os.environ["BIN"])
SOURCE = pathlib.Path(os.environ["SOURCE"])
TOKENIZER = SOURCE / "share/tokenizer-4k"
LICENCES = ("Apache-2.0 Artistic BSD CC0-1.0 GFDL-1.2 GFDL-1.3 GPL-1 GPL-2 GPL-3 LGPL-2 LGPL-2.1 LGPL-3 MPL-1.1 MPL-2.0").split()
CONTEXT = 32


def saltctl(*args: Any) -> str:
    done = subprocess.run([BIN / "saltctl", *map(str, args)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"saltctl {args}: {done.stderr}"
    return done.stdout


def make_corpus(prefix: pathlib.Path, heldout: pathlib.Path, files: list[str] | None = None) -> None:
    """About 60,000 tokens of the licences that every Debian has."""
    names = [f"/usr/share/common-licenses/{name}" for name in LICENCES] if files is None else files
    saltctl("corpus", "build", "--split-on", "blank-lines", "--tokenizer", TOKENIZER, "--out", prefix, "--heldout-out", heldout, *names)


def make_model(folder: pathlib.Path, seed: int | None, *options: Any) -> pathlib.Path:
    """One layer of width 32; with random weights if a seed is given."""
    saltctl("model", "new", "--layers", 1, "--width", 32, "--heads", 2, "--ff", 64, "--context", CONTEXT, "--tokenizer", TOKENIZER,
            *([] if seed is None else ["--weights", seed]), *options, folder)
    return folder


def free_port() -> int:
    while True:
        port = random.SystemRandom().randrange(20000, 32000)        # below the ports that the system gives to clients
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)):
                return port


def yaml_of(sections: dict[str, dict[str, Any]]) -> str:
    """fleet.yaml; an option that is None is left out."""
    def value(v: Any) -> str:
        if isinstance(v, (list, tuple)):
            return "[" + ", ".join(map(value, v)) + "]"
        if isinstance(v, dict):
            return "{" + ", ".join(f"{k}: {value(x)}" for k, x in v.items()) + "}"
        text = str(v).lower() if isinstance(v, bool) else str(v)
        return text if re.fullmatch(r"[\w.]+|\d+e-\d+", text) else f'"{text}"'

    return "".join(f"{name}: {{{', '.join(f'{k}: {value(v)}' for k, v in options.items() if v is not None)}}}\n" for name, options in sections.items())


class Fleet:
    """fleet.yaml in a folder of its own, and the daemons that the test starts. `changes` are options of sections, {"trainer": {...}}."""

    def __init__(self, folder: pathlib.Path, assets: pathlib.Path, shards: int = 1, **changes: dict[str, Any]):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.config = folder, folder / "fleet.yaml"
        self.sections: dict[str, dict[str, Any]] = {
            "run": {"dir": "run", "seed": 3},
            "corpus": {"train": assets / "train", "heldout": assets / "held", "context": CONTEXT},
            "cache": {"dir": "cache", "map_size": "64MiB"},
            "teacher": {"model": assets / "teacher", "threads": 1},
            "labels": {"kind": "sampled", "samples": 8, "seed": 7},
            "selector": {"mode": "none", "endpoints": [f"tcp://127.0.0.1:{free_port()}" for _ in range(shards)], "lease_sequences": 8,
                         "label_ahead_steps": 64, "commit_ms": 5, "lease_s": 2},
            "trainer": {"model": assets / "student", "steps": 12, "batch": 8, "lanes": 4, "lr": 0.003, "warmup": 2, "eval_every": 0,
                        "checkpoint_every": 0, "threads": 1},
            "phase_one": {"steps": 6, "weight": 0.667},
        }
        for name, options in changes.items():
            self.sections.setdefault(name, {}).update(options)
        self.shards = shards
        self.config.write_text(yaml_of(self.sections))
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: Any, program: str | None = None) -> subprocess.Popen[bytes]:
        """A daemon in the background, its log in NAME.log."""
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen([BIN / (program or name.split("-")[0]), *map(str, command)], stdout=log, stderr=log,
                                       env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.running[name] = process
        return process

    def selectord(self) -> None:
        for shard in range(self.shards):
            self.start(f"selectord-{shard}", "-c", self.config, *(["--shard", f"{shard}/{self.shards}"] if self.shards > 1 else []))

    def teacherd(self, name: str = "teacherd-0", *options: Any) -> None:
        self.start(name, "-c", self.config, *options)

    def up(self) -> Fleet:
        self.selectord()
        self.teacherd()
        return self

    def stop(self, name: str, how: int = signal.SIGTERM) -> int:
        """Ends a daemon; its exit code."""
        process = self.running.pop(name)
        process.send_signal(how)
        return process.wait(20)

    def wait_end(self, name: str, seconds: float = 20) -> int:
        """Waits for a daemon that ends by itself; its exit code."""
        return self.running.pop(name).wait(seconds)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait_line(self, name: str, pattern: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not re.search(pattern, self.log(name)):
            assert time.monotonic() < end, f"no line {pattern!r} in {name}.log: {self.log(name)[-2000:]}"
            time.sleep(0.05)

    def down(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
        for process in self.running.values():
            process.wait()
        self.running.clear()
