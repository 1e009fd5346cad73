# SPDX-License-Identifier: Apache-2.0
"""Scores and labels from logits. Pure torch, on any device.

This computes what teacherd's kernel computes (common/engine/kernels/kernels.h), in the same precision where
draws depend on it: weights exp((u - max) / tau) in float32, rounded to multiples of 2^-33. Sums of them are
exact in float64, whatever their order, so the same logits and the same uniforms give the same draws on every
device.
"""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

BLOCK = 64                          # weights are summed by blocks; blocks with draws are then summed id by id
MAGIC = 1.5 * 2.0**52 * 2.0**-33    # adding and subtracting it rounds a float64 to a multiple of 2^-33
CHUNK = {"cpu": 1 << 20}            # logits at a time, so that they stay in a core's cache; on devices:
CHUNK_DEVICE = 1 << 26


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What to compute from logits."""

    # n_valid: the corpus's vocabulary. Results are of the distribution over these ids; the probability of
    # other ids is in the tail of topk.
    n_valid: int
    score: bool = True
    kind: str = "none"      # of the label: none, sampled, topk, dense
    n: int = 0              # N draws or k
    tau: float = 1.0


@dataclasses.dataclass
class Reduced:
    """Results of n sequences, in CPU memory. Results that were not wanted are None."""

    loss_nats: np.ndarray | None    # float32 [n, L]: -ln p(next token) at tau 1
    rank: np.ndarray | None         # int32 [n, L]: ids with a greater logit, or an equal one and a lower id
    draws: np.ndarray | None        # int32 [n, L, N]
    ids: np.ndarray | None          # int32 [n, L, k], best first
    log_p: np.ndarray | None        # float32 [n, L, k]: logarithms of tempered probabilities, among all ids of the model
    failed: dict[int, str]          # sequences with logits that are not finite: why


class Reducer:
    """Keeps the working memory between batches. One thread at a time."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.device], torch.Tensor] = {}

    def _buffer(self, name: str, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """A buffer [rows, columns], of zeros when it is created."""
        found = self._buffers.get((name, device))
        if found is None or found.shape[1] != columns or found.shape[0] < rows:
            found = self._buffers[name, device] = torch.zeros(rows, columns, dtype=dtype, device=device)
        return found[:rows]

    @torch.inference_mode()
    def start(self, logits: torch.Tensor, targets: torch.Tensor, wanted: Wanted, uniforms: torch.Tensor | None = None) -> Pending:
        """Reduces logits [n, L, V] of any float type to results on the same device; Pending.get() copies
        them.

        targets: int64 [n, L] on that device, for scores. uniforms: float64 [n, L, N] on that device, for
        sampled labels. Dense labels are the logits themselves: submit_logits takes them.
        """
        n, length, vocab = logits.shape
        if not 1 <= wanted.n_valid <= vocab:
            raise ValueError(f"logits: expected at least {wanted.n_valid} ids, the corpus's vocabulary, found {vocab}")
        rows, device = n * length, logits.device
        flat, y, u = logits.reshape(rows, vocab), targets.reshape(rows, 1), None
        out: dict[str, torch.Tensor] = {"finite": torch.empty(rows, dtype=torch.bool, device=device)}
        if wanted.score:
            out["loss_nats"] = torch.empty(rows, dtype=torch.float32, device=device)
            out["rank"] = torch.empty(rows, dtype=torch.int32, device=device)
        if wanted.kind == "sampled":
            if uniforms is None or uniforms.shape != (n, length, wanted.n):
                raise ValueError(f"uniforms: expected [{n}, {length}, {wanted.n}], found {None if uniforms is None else list(uniforms.shape)}")
            u = uniforms.reshape(rows, wanted.n)
            out["draws"] = torch.empty(rows, wanted.n, dtype=torch.int32, device=device)
        elif wanted.kind == "topk":
            out["ids"] = torch.empty(rows, wanted.n, dtype=torch.int32, device=device)
            out["log_p"] = torch.empty(rows, wanted.n, dtype=torch.float32, device=device)
        step = max(1, min(rows, CHUNK.get(device.type, CHUNK_DEVICE) // wanted.n_valid))
        for a in range(0, rows, step):
            b = min(rows, a + step)
            others = flat[a:b, wanted.n_valid:] if wanted.kind == "topk" and wanted.n_valid < vocab else None
            self._chunk(flat[a:b, :wanted.n_valid], others, y[a:b], u[a:b] if u is not None else None, wanted, step,
                        {name: t[a:b] for name, t in out.items()})
        return Pending(n, length, out, flat, wanted)

    def _chunk(self, logits: torch.Tensor, others: torch.Tensor | None, y: torch.Tensor, u: torch.Tensor | None, wanted: Wanted, step: int,
               out: dict[str, torch.Tensor]) -> None:
        rows, vocab = logits.shape
        device = logits.device
        if logits.dtype != torch.float32:
            logits = self._buffer("logits", step, vocab, torch.float32, device)[:rows].copy_(logits)
        work = self._buffer("work", step, vocab, torch.float32, device)[:rows]
        top = logits.amax(1, keepdim=True)
        total = None
        if wanted.score:
            at_y = logits.gather(1, y)
            # Ties go to the lower id, as in teacherd. They are rare in float32, and the mask is only made where there are some.
            rank = torch.gt(logits, at_y, out=work).sum(1)
            ties = torch.eq(logits, at_y, out=work).sum(1) > 1
            if bool(ties.any()):
                lower = torch.arange(vocab, device=device) < y[ties]
                rank[ties] += ((logits[ties] == at_y[ties]) & lower).sum(1)
            out["rank"].copy_(rank)
            total = torch.sub(logits, top, out=work).exp_().sum(1).double()
            out["loss_nats"].copy_((top.double() - at_y.double()).squeeze(1) + total.log())
        if wanted.kind in ("sampled", "topk") and (total is None or wanted.tau != 1):
            total = torch.sub(logits, top, out=work).mul_(1 / wanted.tau).exp_().sum(1).double()
        elif total is None:
            total = top.squeeze(1).double()
        out["finite"].copy_(torch.isfinite(total))
        if wanted.score:
            out["finite"].logical_and_(torch.isfinite(out["loss_nats"]))
        if wanted.kind == "topk":
            values, ids = logits.topk(wanted.n, 1)
            out["ids"].copy_(ids)
            log_total = total.log()
            if others is not None:      # they may have all of the probability, so the sums stay logarithms
                log_others = torch.logsumexp((others.float() - top) / wanted.tau, 1).double()
                out["finite"].logical_and_(log_others < math.inf)
                log_total = torch.logaddexp(log_total, log_others)
            out["log_p"].copy_((values.double() - top.double()) / wanted.tau - log_total.unsqueeze(1))
        elif wanted.kind == "sampled":
            out["draws"].copy_(self._draw(work, u, step))

    def _draw(self, weights: torch.Tensor, u: torch.Tensor, step: int) -> torch.Tensor:
        """Smallest id whose cumulative weight exceeds u * total; [rows, N]. Ids of a row that is not finite
        are arbitrary."""
        rows, vocab = weights.shape
        blocks = -(-vocab // BLOCK)
        # columns beyond vocab are zero and stay zero
        exact = self._buffer("exact", step, blocks * BLOCK, torch.float64, weights.device)[:rows]
        exact[:, :vocab].copy_(weights).add_(MAGIC).sub_(MAGIC)
        exact = exact.view(rows, blocks, BLOCK)
        sums = exact.sum(2).cumsum(1)
        bounds = u * sums[:, -1:]
        block = torch.searchsorted(sums, bounds, right=True).clamp_(max=blocks - 1)
        before = torch.cat([sums.new_zeros(rows, 1), sums], 1).gather(1, block)
        inside = exact[torch.arange(rows, device=weights.device).unsqueeze(1), block].cumsum_(2).add_(before.unsqueeze(2))
        return (block * BLOCK + (inside <= bounds.unsqueeze(2)).sum(2)).clamp_(max=vocab - 1)


class Pending:
    """Results in progress; get() waits for the device."""

    def __init__(self, n: int, length: int, out: dict[str, torch.Tensor], logits: torch.Tensor, wanted: Wanted):
        self._n, self._length, self._out, self._wanted = n, length, out, wanted
        self._logits = logits       # kept for the text of an error, and for dense labels

    def logits(self, i: int) -> np.ndarray:
        """float32 [L, n_valid] of a sequence."""
        rows = self._logits[i * self._length:(i + 1) * self._length, :self._wanted.n_valid]
        return rows.to("cpu", torch.float32).numpy()

    def _why(self, row: int) -> str:
        logits = self._logits[row, :None if self._wanted.kind == "topk" else self._wanted.n_valid].float()
        bad = (torch.isnan(logits) | (logits == math.inf)).nonzero()
        where = f"logit of id {int(bad[0])}: {float(logits[bad[0]]):g}" if len(bad) else "the loss is not finite"
        return f"position {row % self._length}: {where}"

    def get(self) -> Reduced:
        out = {name: t.cpu().numpy() for name, t in self._out.items()}
        bad = np.flatnonzero(~out.pop("finite"))
        failed: dict[int, str] = {}
        for row in bad:
            if int(row) // self._length not in failed:
                failed[int(row) // self._length] = self._why(int(row))
        shaped = {name: a.reshape(self._n, self._length, *a.shape[1:]) for name, a in out.items()}
        return Reduced(**{name: shaped.get(name) for name in ("loss_nats", "rank", "draws", "ids", "log_p")}, failed=failed)


def philox_uniforms(seed: int, seq: int, length: int, n: int) -> np.ndarray:
    """The numbers of salt_uniforms, float64 [L, N], in numpy: for tests and other programs.
    common/data/labels/labels.h has the contract."""
    mask = np.uint64(0xFFFFFFFF)
    pairs = (n + 1) // 2
    position, draw = np.meshgrid(np.arange(length, dtype=np.uint64), np.arange(pairs, dtype=np.uint64), indexing="ij")
    c0, c1 = np.full_like(position, seq & 0xFFFFFFFF), np.full_like(position, seq >> 32)
    c2, c3 = position, draw
    k0, k1 = seed & 0xFFFFFFFF, 3       # 3: RANDOM_PURPOSE_LABEL
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (b >> np.uint64(32)) ^ c1 ^ np.uint64(k0), b & mask, (a >> np.uint64(32)) ^ c3 ^ np.uint64(k1), a & mask
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    words = np.stack([c0 << np.uint64(32) | c1, c2 << np.uint64(32) | c3], axis=2).reshape(length, 2 * pairs)
    return (words[:, :n] >> np.uint64(11)).astype(np.float64) * 2.0**-53


def bytes_of(vocab: int, context: int) -> int:
    """Upper bound of the memory that the logits of one sequence take while they are computed and reduced,
    including float32 copies by the model."""
    return 2 * 4 * vocab * context


__all__ = ["Pending", "Reduced", "Reducer", "Wanted", "bytes_of", "philox_uniforms"]
