# SPDX-License-Identifier: Apache-2.0
"""python_kd_step_cost: a training step of GPT-2 124M in PyTorch (transformers, fp32, fused AdamW) with salt_loss on sampled labels, N = 50,
compared with the same step with cross_entropy. And python_kd_loss_cost: forward and backward of the two losses alone, logits at hand.

    tests/peers/run.sh bench/python/step.py [--json FILE] [--rounds N] [--threads N] [--batch B] [--tokens L] [--tiny] [--cpu-time]

Both take turns, and the medians of the rounds count. --cpu-time: processor seconds of the process in place of the clock's, for a busy machine.
"""
from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument("--build", type=pathlib.Path, default=SOURCE / "build")
p.add_argument("--json", type=pathlib.Path)
p.add_argument("--rounds", type=int, default=5)
p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
p.add_argument("--batch", type=int, default=4)
p.add_argument("--tokens", type=int, default=256)
p.add_argument("--tiny", action="store_true")
p.add_argument("--cpu-time", action="store_true")
args = p.parse_args()
os.environ.setdefault("SALTFLEET_LIBRARY", str((args.build / "lib/libsaltfleet.so.1").resolve()))
sys.path.insert(0, str(SOURCE / "python"))

import torch  # noqa: E402
import transformers  # noqa: E402
from saltfleet import Batch, salt_loss  # noqa: E402

clock = time.process_time if args.cpu_time else time.perf_counter
torch.set_num_threads(args.threads)
torch.manual_seed(1)
shape = dict(vocab_size=512, n_embd=64, n_layer=2, n_head=2) if args.tiny else dict(vocab_size=50257, n_embd=768, n_layer=12, n_head=12)
b, length, vocab = (2, 16, 512) if args.tiny else (args.batch, args.tokens, 50257)
model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, n_positions=1024, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def make_batch() -> Batch:
    """50 draws a token from distributions that leave about 12 different ids, as trained teachers' do."""
    tokens = torch.randint(0, vocab, (b, length + 1))
    likely = torch.randint(0, vocab, (b * length, 60))
    draws = likely.gather(1, torch.multinomial(1 / torch.arange(1, 61.0) ** 1.6, b * length * 50, replacement=True).view(b * length, 50))
    ids, weights = torch.zeros(b * length, 50, dtype=torch.int64), torch.zeros(b * length, 50)
    for row, drawn in enumerate(draws):
        unique, counts = drawn.unique(return_counts=True)
        ids[row, :len(unique)], weights[row, :len(unique)] = unique, counts / 50
    k = int((weights > 0).sum(1).max())
    return Batch(input_ids=tokens[:, :-1].contiguous(), labels=tokens[:, 1:].contiguous(), kd_weight=torch.full((b,), 0.667),
                 seqs=torch.arange(b), soft_ids=ids[:, :k].reshape(b, length, k), soft_weights=weights[:, :k].reshape(b, length, k),
                 tail=torch.zeros(b, length), phase=1, kind="sampled")


def cross_entropy(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())


def step(loss_of) -> float:
    begun = clock()
    loss_of(model(batch.input_ids, use_cache=False).logits, batch).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return clock() - begun


def alone(loss_of) -> float:
    z = logits.detach().requires_grad_()
    begun = clock()
    loss_of(z, batch).backward()
    return clock() - begun


def compare(name: str, measure, rounds: int) -> dict:
    measure(cross_entropy), measure(salt_loss)                                                      # warm up
    pairs = [(measure(salt_loss), measure(cross_entropy)) for _ in range(rounds)]
    ours, plain = (1000 * sorted(x)[len(x) // 2] for x in zip(*pairs))
    row = {"name": name, "value": round(ours, 2), "unit": "ms" + (" of processor time" if args.cpu_time else ""),
           "peer": f"cross_entropy, torch {torch.__version__}", "peer_value": round(plain, 2), "ratio": round(ours / plain, 4)}
    print("{name:<28} {value:>10} {unit}  {peer_value:>10} {peer}  {ratio}".format(**row), flush=True)
    return row


batch = make_batch()
print(f"{b} x {length} tokens, {(batch.soft_weights > 0).sum() / (b * length):.1f} entries a token, {batch.soft_ids.shape[2]} at most")
logits = torch.randn(b, length, vocab)
rows = [compare("python_kd_loss_cost", alone, 2 * args.rounds), compare("python_kd_step_cost", step, args.rounds)]
if args.json:
    args.json.write_text(json.dumps(rows, indent=1) + "\n")
