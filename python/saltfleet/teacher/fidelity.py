# SPDX-License-Identifier: Apache-2.0
"""python -m saltfleet.teacher.fidelity: how far stored labels are from the live teacher, for any transformers
model. `saltctl cache stat --fidelity` does the same for the architectures that teacherd computes."""
from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any, Sequence

import numpy as np
import torch

from .. import documents
from ..client import Model, Plan, Rows, Trainer
from ..errors import SaltConfigError, SaltError, SaltMismatch
from . import model as models
from .__main__ import _shape


def _distance(label: torch.Tensor, p: torch.Tensor, kept: torch.Tensor) -> tuple[float, float]:
    """KL(label, p) and total variation of one position in float64. The ids outside a top-k label (kept false) are one mass in both."""
    inside, outside = label[kept], p[kept]
    tail, rest = max(0.0, 1 - float(inside.sum())), max(0.0, 1 - float(outside.sum()))
    positive = inside > 0
    kl = float((inside[positive] * (inside[positive] / outside[positive].clamp_min(1e-300)).log()).sum())
    if tail > 1e-9:
        kl += tail * float(np.log(tail / max(rest, 1e-300)))
    return kl, (float((inside - outside).abs().sum()) + abs(tail - rest)) / 2


def _labels(rows: Rows, position: int, vocab: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The stored label of a position as probabilities [vocab], and the ids that it covers."""
    if rows.dense is not None:
        return torch.from_numpy(rows.dense[position, :vocab].astype(np.float64)), torch.ones(vocab, dtype=torch.bool)
    assert rows.offsets is not None and rows.ids is not None and rows.weights is not None
    at = slice(rows.offsets[position], rows.offsets[position + 1])
    t = torch.zeros(vocab, dtype=torch.float64)
    t[torch.from_numpy(rows.ids[at].astype(np.int64))] = torch.from_numpy(rows.weights[at].astype(np.float64))
    return t, t > 0


@torch.no_grad()
def fidelity(net: Any, rows: Rows, plan: Plan, device: torch.device, seed: int = 0) -> dict[str, Any]:
    """Mean distances from the live teacher over the positions of the rows that have a label, KL divergence in
    nats and total variation: of the stored labels, and for sampled labels also of fresh draws from the live
    teacher. Correct labels are about as far away as fresh draws."""
    generator = torch.Generator().manual_seed(seed)
    stored, fresh, sequences = [], [], 0
    for i in range(rows.n):
        if rows.kd_weight[i] == 0 or rows.quarantined[i]:
            continue
        sequences += 1
        tokens = torch.from_numpy(rows.tokens[i:i + 1, :-1].astype(np.int64)).to(device)
        starts = None if plan.document_end is None else documents.starts_of(tokens, plan.document_end)
        logits = net(input_ids=tokens, use_cache=False, **documents.forward_kwargs(starts, net.dtype)).logits[0].double().cpu()
        if plan.label_kind != "topk":       # the tail of topk labels includes the ids beyond the corpus's
            logits = logits[:, :plan.vocab]
        for t, p in enumerate(torch.softmax(logits / plan.tau, -1)[:, :plan.vocab]):
            label, kept = _labels(rows, i * rows.context + t, plan.vocab)
            stored.append(_distance(label, p, kept))
            if plan.label_kind == "sampled":
                counts = torch.bincount(torch.multinomial(p, plan.n, replacement=True, generator=generator), minlength=plan.vocab)
                fresh.append(_distance(counts.double() / plan.n, p, counts > 0))
    if not stored:
        raise SaltConfigError("fidelity: expected rows with labels, found none: their sequences are in quarantine")
    kl, tv = np.mean(stored, 0)
    out = {"sequences": sequences, "kl_nats": float(kl), "total_variation": float(tv)}
    if fresh:
        out["kl_nats_fresh"], out["total_variation_fresh"] = map(float, np.mean(fresh, 0))
    return out


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m saltfleet.teacher.fidelity", description="Compares stored labels with what the teacher says now. "
                                "selectord must be running; rows of the first steps are asked for, and are labelled if they are not yet.")
    p.add_argument("--model", required=True, metavar="DIR", help="the teacher's directory")
    p.add_argument("-c", "--config", required=True, metavar="FILE", help="fleet.yaml")
    p.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="as in fleet.yaml; may be given several times")
    p.add_argument("--sequences", type=int, default=4, metavar="N", help="at most a step's (default: 4)")
    p.add_argument("--step", type=int, default=0, metavar="S", help="whose rows are compared (default: 0)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    p.add_argument("--dtype", choices=("auto", *models.DTYPES), default="auto", help="default: of teacher.compute_class")
    p.add_argument("--trust-remote-code", action="store_true", help="run Python code that lies in the model's directory")
    p.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds to wait for the rows (default: 600)")
    args = p.parse_args(argv)
    try:
        with Trainer(args.config, overrides=args.set, name=f"fidelity-{os.getpid()}") as trainer:
            plan = trainer.plan
            rows = trainer.rows(args.step, 0, max(1, min(args.sequences, plan.batch)), args.timeout)
        if rows.phase != 1:
            raise SaltConfigError(f"--step: expected a step of phase one, found {args.step}: its rows have no labels")
        device = models.device_of(args.device)
        vocab, context = _shape(args.model, args.trust_remote_code)
        if vocab < plan.vocab or context < plan.context:
            raise SaltMismatch(f"{args.model}: expected a model of at least {plan.vocab} ids, the corpus's vocabulary, and corpus.context = "
                               f"{plan.context} positions, found {vocab} ids and {context} positions in its config.json")
        net = models.load(Model(args.model, vocab, context), device, models.dtype_of(args.dtype, plan.compute_class, device),
                          args.trust_remote_code)
        print(json.dumps({"compute_class": plan.compute_class, "label_kind": plan.label_kind, **fidelity(net, rows, plan, device)}, indent=2))
        return 0
    except SaltError as e:
        print(f"saltfleet.teacher.fidelity: {e}", file=sys.stderr)
        return e.exit_code


if __name__ == "__main__":
    sys.exit(main())
