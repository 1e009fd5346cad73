# SPDX-License-Identifier: Apache-2.0
"""python_teacher_vs_forward: tokens a second of a teacher in transformers with a real selectord (leases, forward pass, scores, 50 draws a
token, submits), compared with the bare forward passes of the same batches. GPT-2 124M's shape, vocabulary 50,304, context 512, on the CPU.

    tests/peers/run.sh bench/python/teacher.py --build BUILD [--json FILE] [--rounds N] [--threads N] [--tiny] [--cpu-time]

Both take turns; the median of the rounds counts. --cpu-time: processor seconds of the process in place of the clock's, for a busy machine.
"""
from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument("--build", type=pathlib.Path, default=SOURCE / "build")
p.add_argument("--json", type=pathlib.Path)
p.add_argument("--rounds", type=int, default=3)
p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
p.add_argument("--seconds", type=float, help="of each turn (default: 20; tiny: 3)")
p.add_argument("--tiny", action="store_true")
p.add_argument("--cpu-time", action="store_true")
args = p.parse_args()
args.seconds = args.seconds or (3 if args.tiny else 20)
os.environ.setdefault("SALTFLEET_LIBRARY", str(args.build / "lib/libsaltfleet.so.1"))
sys.path[:0] = [str(SOURCE / "python"), str(SOURCE / "python/tests")]

import torch  # noqa: E402
import transformers  # noqa: E402
from gpu import Scene  # noqa: E402
from saltfleet import Model, Teacher, Trainer  # noqa: E402
from saltfleet.teacher.loop import Loop  # noqa: E402
from saltfleet.teacher.model import Transformers  # noqa: E402

clock = time.process_time if args.cpu_time else time.perf_counter
vocab, context, shape = (512, 64, dict(n_embd=64, n_layer=2, n_head=2)) if args.tiny else (50304, 512, dict(n_embd=768, n_layer=12, n_head=12))
torch.set_num_threads(args.threads)
torch.manual_seed(1)
net = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=vocab, n_positions=context, **shape)).eval()


class Timed:
    """The backend, and when it got its first batch and gave its last results."""

    def __init__(self, backend: Transformers):
        self._backend, self.batch, self.begun, self.ended, self.sequences = backend, backend.batch, None, 0.0, 0

    def ready(self) -> bool:
        return True

    def interrupt(self) -> None:
        pass

    def start(self, items):
        self.begun = self.begun if self.begun is not None else clock()
        finish = self._backend.start(items)

        def finished() -> None:
            finish()
            self.ended, self.sequences = clock(), self.sequences + len(items)
        return finished


def teacher(scene: Scene) -> float:
    model = Model(scene.folder / "teacher", vocab, context)
    with Teacher(scene.config, [model], name="bench") as t:
        backend = Timed(Transformers([net], vocab, torch.device("cpu"), context))
        loop = Loop(t, backend)
        timer = threading.Timer(args.seconds, loop.stop)
        timer.start()
        loop.run()
        timer.cancel()
    return backend.sequences * context / (backend.ended - backend.begun)


def forward() -> float:
    n = Transformers([net], vocab, torch.device("cpu"), context).batch
    tokens = torch.randint(0, vocab, (n, context))
    begun, sequences, end = clock(), 0, time.perf_counter() + args.seconds
    with torch.no_grad():
        while time.perf_counter() < end:
            net(input_ids=tokens, use_cache=False).logits
            sequences += n
    return sequences * context / (clock() - begun)


with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    net.save_pretrained(folder / "teacher")
    steps = 4000 if args.tiny else 100
    with Scene((args.build / "bin").resolve(), folder, folder / "teacher", vocab=vocab, context=context, batch=64, steps=steps, phase_one=steps,
               compute_class="fp32/torch-cpu") as scene, Trainer(scene.config) as trainer:
        try:
            trainer.rows(0, timeout_s=0)        # someone must want the labels
        except TimeoutError:
            pass
        pairs = [(teacher(scene), forward()) for _ in range(args.rounds)]
value, peer = (sorted(x)[len(x) // 2] for x in zip(*pairs))
row = {"name": "python_teacher_vs_forward", "value": round(value, 1), "unit": "tokens/s" + (" of processor time" if args.cpu_time else ""),
       "peer": f"forward of transformers {transformers.__version__}, torch {torch.__version__}", "peer_value": round(peer, 1), "ratio": round(value / peer, 4)}
print("{name:<28} {value:>10} {unit}  {peer_value:>10} {peer}  {ratio}".format(**row))
if args.json:
    args.json.write_text(json.dumps([row], indent=1) + "\n")
