# SPDX-License-Identifier: Apache-2.0
"""A checkpoint that trainerd wrote, loaded by transformers; and trainerd going on from a model that transformers saved.

    tests/peers/run.sh tests/peers/checkpoint_transformers.py --bin build/dev/bin

For each family: saltctl makes a corpus from texts of every Debian and a model, trainerd trains a few steps on two ranks, the
checkpoint is loaded by transformers, whose logits and held-out loss must be ours; that model, saved again by transformers, is
trainer.init of a second run, whose first loss must be what PyTorch computes for the same rows.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

CONTEXT, BATCH, STEPS = 32, 8, 6
MPIRUN = [pathlib.Path(__file__).parents[2] / "deploy" / "mpi.sh", "-n", "2"]


def run(*command):
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=240)


def train(args, folder, name, model, init=None):
    options = [f"run.dir={folder / name}", f"corpus.train={folder / 'train'}", f"corpus.heldout={folder / 'heldout'}",
               f"corpus.context={CONTEXT}", f"trainer.model={model}", f"trainer.steps={STEPS}", f"trainer.batch={BATCH}",
               "trainer.dtype=fp32", "trainer.lr=3e-3", "trainer.eval_sequences=8", "trainer.threads=1", "run.seed=5"]
    if init:
        options.append(f"trainer.init={init}")
    (folder / "fleet.yaml").write_text("run: {seed: 5}\n")
    run(*MPIRUN, args.bin / "trainerd", "-c", folder / "fleet.yaml", *(x for o in options for x in ("--set", o)))
    return [json.loads(line) for line in open(folder / name / "metrics.jsonl")]


def windows(prefix, indices):
    tokens = np.fromfile(f"{prefix}.bin", dtype="<u2").astype(np.int64)
    return torch.tensor(np.stack([tokens[i * CONTEXT:i * CONTEXT + CONTEXT + 1] for i in indices]))


def torch_loss(model, rows):
    with torch.no_grad():
        z = model(rows[:, :-1], use_cache=False).logits
        return torch.nn.functional.cross_entropy(z.flatten(0, 1), rows[:, 1:].flatten()).item(), z.flatten(0, 1).numpy()


def family(args, folder, name):
    tokenizer = args.source / "share/tokenizer-4k"
    run(args.bin / "saltctl", "corpus", "build", "--tokenizer", tokenizer, "--out", folder / "train", "--heldout-out", folder / "heldout",
        "--heldout-one-in", "4", "/usr/share/common-licenses")
    run(args.bin / "saltctl", "model", "new", "--family", name, "--layers", "2", "--width", "48", "--heads", "3", "--context", CONTEXT,
        "--tokenizer", tokenizer, folder / "model")
    lines = train(args, folder, "run", folder / "model")
    checkpoint = folder / f"run/checkpoints/step_{STEPS:08d}"
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    rows = windows(folder / "heldout", range(8))
    loss, logits = torch_loss(model, rows)
    ours = [x for x in lines if x["kind"] == "eval"][-1]["loss"]
    d_heldout = abs(loss - ours)

    (folder / "tokens.i32").write_bytes(rows.numpy().astype("<i4").tobytes())
    (folder / "dump").mkdir()
    run(args.bin / "model_dump", checkpoint, folder / "tokens.i32", "8", CONTEXT, folder / "dump")
    d_logits = float(np.abs(np.fromfile(folder / "dump/logits.f32", dtype="<f4").reshape(logits.shape) - logits).max())

    # The tokenizer beside the weights is the corpus's: what transformers reads with it is what was trained on.
    text = "The licensee may not; \u00e9t\u00e9 \U0001f642  x"
    theirs = AutoTokenizer.from_pretrained(checkpoint)(text, add_special_tokens=False)["input_ids"]
    out = subprocess.run([args.bin / "saltctl", "tokenizer", "encode", "--tokenizer", str(checkpoint)], input=text.encode(),
                         stdout=subprocess.PIPE, check=True).stdout.decode()
    same_ids = [int(x) for x in out.split()] == theirs

    # Back: transformers saves, trainerd starts from it. The first loss, before any update, over the rows of step 0.
    model.save_pretrained(folder / "saved")
    lines = train(args, folder, "second", folder / "model", folder / "saved")
    order = subprocess.run([sys.executable, args.source / "tests/golden/order_of.py", "5", str((np.fromfile(f"{folder}/train.bin", "<u2").size - 1) // CONTEXT),
                            "0", str(BATCH)], stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    loss, _ = torch_loss(model, windows(folder / "train", map(int, order)))
    d_first = abs(loss - lines[0]["loss"])
    good = d_heldout < 1e-5 and d_logits < 1e-4 and d_first < 1e-5 and same_ids
    print(f"{name}: held-out loss {d_heldout:.1e}, logits {d_logits:.1e}, first loss from a saved model {d_first:.1e}, "
          f"token ids {'equal' if same_ids else 'DIFFER'}: {'good' if good else 'BAD'}")
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--source", type=pathlib.Path, default=pathlib.Path("."))
    args = parser.parse_args()
    args.bin, args.source = args.bin.resolve(), args.source.resolve()
    good = True
    for name in ("llama", "gpt2", "qwen2", "qwen3", "gpt_neox"):
        with tempfile.TemporaryDirectory() as folder:
            good = family(args, pathlib.Path(folder), name) and good
    sys.exit(not good)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as e:
        sys.exit(f"{e.cmd}: {e.stderr}")
