# SPDX-License-Identifier: Apache-2.0
"""A SALT run of the fleet beside the same recipe in PyTorch: the final held-out losses.

    tests/peers/run.sh bench/study/pytorch_recipe.py --bin build/bin [--steps 200] [--text FILE...] [--json FILE] [--only NAME...]

A small student (2 layers of 64, context 64) and a teacher that trainerd has trained. The fleet: selectord, one teacherd, trainerd, in fp32. PyTorch:
transformers' model with the same initial weights, the same sequences in the order of docs/formats.md, and the formulas of docs/training.md written
down here once more. Its labels are never those of the fleet: they are softmax(u / tau) of its own forward pass of the teacher, over the whole
vocabulary. Loss of a token: -sum_v q_v log p_v, q = (1 - w) onehot(y) + w t in phase one, the next token alone after the switch; AdamW with the same
learning rates and clipping. What it shows: data order, weights and temperature of the labels, loss, gradient, optimizer, schedule and switch are the
method's. The learning rate is moderate: at 4e-3, with equal labels, differences of 1e-7 in the first step's loss had grown to 0.1 after 90 steps,
and to half a per cent at the end.

    dense        the fleet's labels have all ids (2 bytes each): only rounding differs
    dense_sharp  the same at tau 0.25
    sampled      50 draws a token on both sides. PyTorch draws from its own softmax, with the random numbers of docs/formats.md, so the draws are the same
                 but for rounding. Printed beside it: how far a run with these labels ends from one with exact labels, and the same for another
                 labels.seed. Draws give the gradient of exact labels in the mean only, so that is no error

The baseline of the same weights, PyTorch alone without labels, must be ten times further off than the fleet: else the comparison could not fail. Exit
status 1 if it is not, or if the fleet is more than --bar (0.3 %) off. --json FILE replaces or adds the rows fleet_vs_pytorch_loss... in FILE.
"""
import argparse
import glob
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

SOURCE = pathlib.Path(__file__).resolve().parents[2]
CONTEXT, BATCH, SEED, HELDOUT = 64, 8, 7, 128
LR, MIN_RATIO, DECAY, WEIGHT, SHARE = 1e-3, 0.1, 0.1, 0.667, 0.4
RUNS = {"dense": ("dense", 1.0, 0), "dense_sharp": ("dense", 0.25, 0), "sampled": ("sampled", 1.0, 50)}       # kind, tau, draws


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=500,
                          env=dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1"))
    if done.returncode != 0:
        raise SystemExit(f"pytorch_recipe: {' '.join(map(str, command))}: exit {done.returncode}: {done.stderr[-2000:]}{done.stdout[-2000:]}")
    return done.stdout


def philox(key, counter):
    """Philox4x32-10: key two numbers, counter four arrays of u64 below 2^32; four such arrays."""
    low = np.uint64(0xFFFFFFFF)
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = b >> np.uint64(32) ^ c1 ^ np.uint64(k0), b & low, a >> np.uint64(32) ^ c3 ^ np.uint64(k1), a & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def drawn(t, sequences, draws, seed):
    """t [sequences * CONTEXT, V]: count / draws of each id, drawn as docs/formats.md says (draws of sampled labels)."""
    shape = (len(sequences), CONTEXT, draws // 2)
    counter = [np.broadcast_to(x, shape).astype(np.uint64) for x in (
        np.array(sequences)[:, None, None], 0, np.arange(CONTEXT)[:, None], np.arange(draws // 2))]
    words = philox((seed, 3), counter)
    u = [(hi << np.uint64(32) | lo) >> np.uint64(11) for hi, lo in (words[:2], words[2:])]
    u = torch.tensor(np.stack(u, -1).reshape(len(t), draws).astype(np.float64) * 2.0**-53)
    sums = t.double().cumsum(1)
    ids = torch.searchsorted(sums, u * sums[:, -1:], right=True).clamp(max=t.shape[1] - 1)
    return torch.zeros_like(t).scatter_add_(1, ids, torch.full(ids.shape, 1 / draws))


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


class Recipe:
    def __init__(self, folder, args):
        self.dir, self.bin, self.steps = folder, args.bin.resolve(), args.steps
        self.switch, self.warmup = int(args.steps * SHARE), args.steps // 10
        tokenizer = SOURCE / "share/tokenizer-4k"
        run(self.bin / "saltctl", "corpus", "build", "--tokenizer", tokenizer, "--out", folder / "train", "--heldout-out", folder / "heldout",
            "--heldout-one-in", 4, *args.text)
        for name, layers, width, heads in (("student", 2, 64, 2), ("teacher_shape", 2, 48, 2)):
            run(self.bin / "saltctl", "model", "new", "--layers", layers, "--width", width, "--heads", heads, "--context", CONTEXT,
                "--tokenizer", tokenizer, folder / name)
        # transformers makes the first weights and saves them; both sides start from this folder
        torch.manual_seed(SEED)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder / "student"), dtype=torch.float32).save_pretrained(folder / "first")
        self.order = list(map(int, run(sys.executable, SOURCE / "tests/golden/order_of.py", SEED, (self.tokens("train").size - 1) // CONTEXT, 0,
                                       self.steps * BATCH).split()))
        self.fleet("teacher", {"trainer.model": folder / "teacher_shape", "trainer.lr": 4e-3, "run.seed": 1})
        self.teacher = load(self.checkpoint("teacher")).eval()

    def tokens(self, name):
        return np.fromfile(self.dir / f"{name}.bin", dtype="<u2").astype(np.int64)

    def rows(self, name, sequences):
        tokens = self.tokens(name)
        return torch.tensor(np.stack([tokens[i * CONTEXT:i * CONTEXT + CONTEXT + 1] for i in sequences]))

    def checkpoint(self, name):
        return self.dir / name / f"checkpoints/step_{self.steps:08d}"

    def fleet(self, name, options):
        """A run of the fleet; (loss of each step, final held-out loss as trainerd computed it)."""
        options = {"run.dir": name, "corpus.train": "train", "corpus.heldout": "heldout", "corpus.context": CONTEXT, "compute.dtype": "fp32",
                   "trainer.steps": self.steps, "trainer.batch": BATCH, "trainer.lr": LR, "trainer.min_lr_ratio": MIN_RATIO, "trainer.warmup": self.warmup,
                   "trainer.weight_decay": DECAY, "trainer.eval_every": 0, "trainer.eval_sequences": HELDOUT, "trainer.threads": 1, **options}
        sections = {}
        for key, value in options.items():
            section, option = key.split(".")
            sections.setdefault(section, []).append(f"  {option}: {value}\n")
        config = self.dir / f"{name}.yaml"
        config.write_text("".join(f"{s}:\n" + "".join(lines) for s, lines in sections.items()))
        try:
            run(SOURCE / "deploy/local.sh", "up", "--wait", "--bin", self.bin, "-c", config)
        finally:
            run(SOURCE / "deploy/local.sh", "down", "--bin", self.bin, "-c", config)
        lines = [json.loads(line) for line in open(self.dir / name / "metrics.jsonl")]
        return [m["loss"] for m in lines if m["kind"] == "step"], [m["loss"] for m in lines if m["kind"] == "eval"][-1]

    def fleet_salt(self, name, kind, tau):
        return self.fleet(name, {
            "run.seed": SEED, "trainer.model": self.dir / "student", "trainer.init": self.dir / "first", "phase_one.steps": self.switch,
            "phase_one.weight": WEIGHT, "teacher.model": self.checkpoint("teacher"), "teacher.threads": 1, "labels.kind": kind, "labels.tau": tau,
            "cache.dir": f"{name}.cache", "cache.map_size": "8GiB", "selector.mode": "none", "selector.endpoints": f'["ipc://{self.dir}/{name}.ipc"]',
            "deploy.teachers": 1})

    def learning_rate(self, step):
        if step < self.warmup:
            return LR * (step + 1) / self.warmup
        x = (step - self.warmup) / (self.steps - self.warmup)
        return LR * (MIN_RATIO + (1 - MIN_RATIO) * (1 + math.cos(math.pi * x)) / 2)

    def torch_salt(self, switch, tau=1.0, draws=0, seed=1):
        """The recipe in PyTorch: (loss of each step, final held-out loss). switch 0: the baseline. draws: labels of that many draws with labels.seed
        seed, 0: exact."""
        model = load(self.dir / "first").train()
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW([{"params": [p for p in parameters if (p.dim() == 2) == matrix], "weight_decay": DECAY * matrix}
                                       for matrix in (True, False)], betas=(0.9, 0.95), eps=1e-8)
        losses = []
        for step in range(self.steps):
            sequences = self.order[step * BATCH:(step + 1) * BATCH]
            rows = self.rows("train", sequences)
            z, y = model(rows[:, :-1], use_cache=False).logits.flatten(0, 1), rows[:, 1:].flatten()
            q = torch.nn.functional.one_hot(y, z.shape[1]).float()
            if step < switch:
                with torch.no_grad():
                    t = torch.softmax(self.teacher(rows[:, :-1], use_cache=False).logits.flatten(0, 1) / tau, 1)
                    if draws:
                        t = drawn(t, sequences, draws, seed)
                q = (1 - WEIGHT) * q + WEIGHT * t
            loss = -(q * torch.log_softmax(z, 1)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(step)
            optimizer.step()
            losses.append(loss.item())
        return losses, self.heldout(model)

    def heldout(self, model):
        rows = self.rows("heldout", range(HELDOUT))
        with torch.no_grad():
            return torch.nn.functional.cross_entropy(model.eval()(rows[:, :-1], use_cache=False).logits.flatten(0, 1), rows[:, 1:].flatten()).item()


def write_rows(path, rows):
    old = json.loads(path.read_text()) if path.exists() else []
    names = {r["name"] for r in rows}
    path.write_text(json.dumps([r for r in old if r["name"] not in names] + rows, indent=1) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--bin", type=pathlib.Path, required=True)
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--bar", type=float, default=0.003)
    p.add_argument("--text", nargs="+", default=sorted(glob.glob("/usr/share/perl/*/pod/*.pod")), help="default: the *.pod files of Debian's perl-doc")
    p.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    p.add_argument("--json", type=pathlib.Path)
    args = p.parse_args()
    if not args.text:
        p.error("no text: apt-get install perl-doc, or give --text FILE...")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    rows, good, begun = [], True, time.monotonic()

    def row(name, value, unit, theirs, note):
        rows.append({"name": name, "value": round(value, 6), "unit": unit, "peer": "PyTorch " + torch.__version__.split("+")[0],
                     "peer_value": round(theirs, 6), "ratio": round(value / theirs, 6), "note": note})
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(pathlib.Path(folder), args)
        _, alone = recipe.torch_salt(0)
        print(f"teacher {recipe.heldout(recipe.teacher):.4f} nats; baseline, PyTorch: {alone:.4f} after {args.steps} steps", flush=True)
        for name in args.only:
            kind, tau, draws = RUNS[name]
            ours, final = recipe.fleet_salt(name, kind, tau)
            theirs, peer = recipe.torch_salt(recipe.switch, tau, draws)
            off, step_off = final / peer - 1, max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
            control = abs(alone / peer - 1)
            ok = abs(off) <= args.bar and 10 * abs(off) < control
            good &= ok
            print(f"{name}: fleet {final:.5f}, PyTorch {peer:.5f} nats: {100 * off:+.4f} %; largest difference of a step's loss {step_off:.1e}; "
                  f"baseline {100 * control:.2f} % off: {'good' if ok else 'BAD'}", flush=True)
            note = f"final held-out loss, {args.steps} steps, {name}; {100 * off:+.4f} %; largest difference of a step's training loss {step_off:.1e}"
            if draws:
                exact, other = recipe.torch_salt(recipe.switch, tau)[1], recipe.torch_salt(recipe.switch, tau, draws, 2)[1]
                text = f"these draws end {100 * (peer / exact - 1):+.2f} % from exact labels, those of another seed {100 * (other / exact - 1):+.2f} %"
                print(f"{name}: {text}", flush=True)
                note += "; " + text
            row("fleet_vs_pytorch_loss" + ("" if name == "dense" else "_" + name), final, "nats a token", peer, note)
    print(f"{time.monotonic() - begun:.0f} s")
    if args.json:
        write_rows(args.json, rows)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
