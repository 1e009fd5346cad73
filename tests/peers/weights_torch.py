# SPDX-License-Identifier: Apache-2.0
"""Loss weights of documents: trainerd's steps beside the same steps in PyTorch, from the same JSON lines and the same first weights.

    tests/peers/run.sh tests/peers/weights_torch.py --bin build/dev/bin

The mean of a step is sum a l / sum a over the targets of the batch, a being the weight of the document that the target is in, and l the loss of
the target: -log p of the token alone, or in phase one with the distribution of a teacher, (1 - w) (-log p_y) - w sum_v t_v log p_v. Loss, norm of the
gradient and the losses after the updates are compared, at one and two ranks, with and without isolated documents. Without them transformers sees a
window as it is; with them each document of a window is a sequence of its own. In phase one a fleet runs, its labels dense; PyTorch's t is
softmax(u) of its own forward pass of the teacher.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM

L, BATCH, STEPS, BOUND = 32, 8, 5, 2e-5
W = 0.667

parser = argparse.ArgumentParser()
parser.add_argument("--bin", type=pathlib.Path, required=True)
parser.add_argument("--source", type=pathlib.Path, default=pathlib.Path("."))
args = parser.parse_args()
source, programs = args.source.resolve(), args.bin.resolve()
sys.path.insert(0, str(source / "tests/golden"))
from order_of import order      # noqa: E402


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=200, **more)
    if done.returncode:
        sys.exit(f"{command}: {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def windows(folder):
    """Tokens int64 [n, L + 1], and the weight of each target [n, L], from the files and the JSON lines alone."""
    tokens = np.fromfile(folder / "train.bin", np.uint16).astype(np.int64)
    rows = [json.loads(line) for line in open(folder / "text.jsonl")]
    ends = np.flatnonzero(tokens == 0)                  # 0 ends a document
    assert len(ends) == len(rows)
    weight = np.repeat([row["w"] for row in rows], np.diff(ends, prepend=-1))
    n = (len(tokens) - 1) // L
    return (torch.tensor(np.stack([tokens[i * L:i * L + L + 1] for i in range(n)])),
            torch.tensor(np.stack([weight[i * L + 1:i * L + L + 1] for i in range(n)])))


def losses_of(model, teacher, x, isolate):
    """The loss of each target [B, L], mixed with the teacher's distribution where there is a teacher, and whether it is predicted."""
    def losses(inputs, targets):
        logp = torch.log_softmax(model(inputs).logits, 2)
        hard = -logp.gather(2, targets[:, :, None])[:, :, 0]
        if teacher is None:
            return hard
        with torch.no_grad():
            t = torch.softmax(teacher(inputs).logits, 2)
        return (1 - W) * hard - W * (t * logp).sum(2)
    if not isolate:
        return losses(x[:, :-1], x[:, 1:]), torch.ones(len(x), L)
    out, counted = torch.zeros(len(x), L), torch.zeros(len(x), L)
    for b, row in enumerate(x):
        ends = [i for i in range(L) if row[i] == 0]
        for first, last in zip([0] + [e + 1 for e in ends], [e - 1 for e in ends] + [L - 1]):      # inputs first .. last have targets
            if first <= last:
                out[b, first:last + 1] = losses(row[None, first:last + 1], row[None, first + 1:last + 2])[0]
                counted[b, first:last + 1] = 1
    return out, counted


def in_torch(folder, teacher, isolate, lrs):
    """[(loss, norm)] of the steps."""
    if teacher is not None:
        teacher = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32).eval()
    model = AutoModelForCausalLM.from_pretrained(folder / "student", dtype=torch.float32)
    adamw = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    tokens, weights = windows(folder)
    out = []
    for step, lr in enumerate(lrs):
        seqs = [order(3, len(tokens), step * BATCH + i) for i in range(BATCH)]
        nats, counted = losses_of(model, teacher, tokens[seqs], isolate)
        a = weights[seqs] * counted
        loss = (a * nats).sum() / a.sum()
        adamw.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in adamw.param_groups:
            group["lr"] = lr
        adamw.step()
        out.append((loss.item(), norm.item()))
    return out


def main():
    torch.manual_seed(0)
    worst = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        text = pathlib.Path("/usr/share/common-licenses/GPL-3").read_text().split("\n\n")
        with open(folder / "text.jsonl", "w") as f:
            for i, t in enumerate(t[:150] for t in text if t.strip()):
                f.write(json.dumps({"text": t, "w": [1, 0, 0.5, 2.25, 3][i % 5]}) + "\n")
        tokenizer = source / "share/tokenizer-4k"
        run(programs / "saltctl", "corpus", "build", "--jsonl", "--weight-column", "w", "--tokenizer", tokenizer, "--out", folder / "train",
            folder / "text.jsonl")
        run(programs / "saltctl", "model", "new", "--layers", 2, "--width", 32, "--heads", 2, "--ff", 64, "--context", L, "--tokenizer", tokenizer,
            "--weights", 5, folder / "student")
        teacher = folder / f"run_False_1_None/checkpoints/step_{STEPS:08d}"         # the first run's student
        # Dense labels are rounded, by up to a factor of 1.00025, and AdamW's first updates enlarge that: the learning rate of phase one is smaller.
        for isolate, ranks, micro, taught in ((False, 1, 1, None), (False, 2, 2, None), (True, 1, 1, None), (True, 2, 2, None),
                                              (False, 1, 1, teacher), (True, 2, 2, teacher)):
            where = folder / f"run_{isolate}_{ranks}_{taught and taught.name}"
            phase_one = f"""
phase_one: {{steps: {STEPS}, weight: {W}}}
labels: {{kind: dense, tau: 1}}
teacher: {{model: {teacher}, threads: 1}}
cache: {{dir: {where}.cache}}
selector: {{mode: none, endpoints: ["ipc://{where}.ipc"]}}
deploy: {{teachers: 1}}
"""
            (folder / "fleet.yaml").write_text(f"""
run: {{dir: {where}, seed: 3}}
corpus: {{train: {folder}/train, context: {L}, isolate_documents: {str(isolate).lower()}}}
compute: {{dtype: fp32}}
trainer: {{model: {folder}/student, init: {folder}/student, ranks: {ranks}, steps: {STEPS},
  batch: {BATCH}, lanes: 2, micro_batch: {micro}, lr: {1e-3 if taught else 1e-2}, warmup: 0, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0, clip: 1.0, threads: 1, tensorboard: false}}
""" + (phase_one if taught else ""))
            if taught:
                fleet = [source / "deploy/local.sh", "up", "--wait", "--bin", programs, "-c", folder / "fleet.yaml"]
                try:
                    run(*fleet)
                finally:
                    run(fleet[0], "down", *fleet[3:])
            else:
                run(source / "deploy/mpi.sh", "-n", ranks, programs / "trainerd", "-c", folder / "fleet.yaml", env={**os.environ, "OMP_NUM_THREADS": "1"})
            steps = [x for x in map(json.loads, open(where / "metrics.jsonl")) if x["kind"] == "step"]
            assert len(steps) == STEPS and all(x["phase"] == (1 if taught else 2) for x in steps)
            for ours, (loss, norm) in zip(steps, in_torch(folder, taught, isolate, [x["lr"] for x in steps])):
                apart = max(abs(ours["loss"] / loss - 1), abs(ours["grad_norm"] / norm - 1) / 10)
                worst[bool(taught)] = max(worst[bool(taught)], apart)
                if apart > BOUND:
                    sys.exit(f"isolate {isolate}, {ranks} ranks, teacher {taught}, step {ours['step']}: loss {ours['loss']}, norm {ours['grad_norm']}; "
                             f"PyTorch {loss}, {norm}")
    print(f"loss and gradient of weighted steps: at most {worst[0]:.1e} apart, in phase one {worst[1]:.1e}")


main()
