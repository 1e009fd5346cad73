# SPDX-License-Identifier: Apache-2.0
"""salt_loss against trainerd's kernel, against the formulas in float64, and against finite differences, for each kind of label."""
from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess

import numpy as np
import pytest
import torch

from saltfleet import SaltError, SaltNonfinite, SaltRangeError, salt_loss, salt_loss_from_hidden, salt_metrics
from saltfleet.dataset import Batch

B, L, C, V, K, W = 3, 7, 16, 83, 6, 0.667
RULES = ("true_token", "renormalise", "ghost")
CASES = [("none", "true_token"), ("sampled", "true_token"), ("dense", "true_token"), *(("topk", rule) for rule in RULES)]
TOKEN_WEIGHTS = ("constant", "teacher_confidence", "margin")
ALL = [(kind, residual, rule) for kind, residual in CASES for rule in (TOKEN_WEIGHTS if kind != "none" else TOKEN_WEIGHTS[:1])]
LOSS_DUMP = pathlib.Path(os.environ.get("BIN", ".")) / "loss_dump"


def make_batch(kind: str, residual: str = "true_token", seed: int = 0, token_weight: str = "constant") -> Batch:
    """Labels with the awkward cases: y among the ids and not, id 0 kept, rows of different lengths, an empty row, a sequence without weight."""
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, V, (B, L)))
    batch = Batch(input_ids=torch.zeros_like(labels), labels=labels, kd_weight=torch.tensor([W, 0.0, 1.0]), seqs=torch.tensor([5, 6, 7]),
                  step=4, phase=1, kind=kind, residual=residual, token_weight=token_weight)
    if kind == "none":
        batch.kd_weight, batch.phase = torch.zeros(B), 2
    elif kind == "dense":
        batch.dense = torch.softmax(torch.from_numpy(rng.normal(0, 2, (B, L, V))).float(), -1)
    else:
        batch.soft_ids, batch.soft_weights = torch.zeros(B, L, K, dtype=torch.int64), torch.zeros(B, L, K)
        for b, t in np.ndindex(B, L):
            n = int(rng.integers(1, K + 1))
            ids = rng.choice(V, n, replace=False)
            if t == 1:
                ids[0] = labels[b, t] if labels[b, t] not in ids else ids[0]
            elif t == 2:
                ids[0] = 0 if 0 not in ids else ids[0]
            weights = rng.dirichlet(np.ones(n + (kind == "topk")))[:n]
            if t == 3 and kind == "topk":
                n = 0               # a label without entries: the tail is all of it
            batch.soft_ids[b, t, :n] = torch.from_numpy(np.sort(ids))[:n]
            batch.soft_weights[b, t, :n] = torch.from_numpy(weights)[:n]
        batch.tail = (1 - batch.soft_weights.sum(-1)).clamp(min=0)
    return batch


def make_head(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, L, C, generator=g), torch.randn(V, C, generator=g)


def positions(batch: Batch) -> list[tuple[int, float, dict[int, float], float]]:
    """(y, w, kept entries, tail) of every position, in float64."""
    out = []
    for b, t in np.ndindex(B, L):
        kept = {}
        if batch.dense is not None:
            kept = dict(enumerate(batch.dense[b, t].double().tolist()))
        elif batch.soft_ids is not None:
            kept = {i: v for i, v in zip(batch.soft_ids[b, t].tolist(), batch.soft_weights[b, t].double().tolist()) if v > 0}
        tail = 0.0 if batch.tail is None else 1 - sum(kept.values())
        out.append((int(batch.labels[b, t]), float(batch.kd_weight[b].double()), kept, max(tail, 0.0)))
    return out


def reference(z: np.ndarray, batch: Batch, weights: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """(loss, soft, entropy, w) [B * L] of logits z, as the method states them, one position at a time. weights: the w of each position,
    whatever token_weight says."""
    losses, softs, entropies, ws = [], [], [], []
    for n, (row, (y, w, t, tail)) in enumerate(zip(z.astype(np.float64), positions(batch))):
        log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
        classes = [(v, log_p[i]) for i, v in t.items()]
        if batch.residual == "ghost" and tail > 0:
            outside = [i for i in range(V) if i not in t]
            classes.append((tail, np.log(np.exp(log_p[outside]).sum())))
        elif batch.residual == "renormalise" and t:
            classes = [(v / sum(t.values()), lp) for v, lp in classes]
        elif batch.residual == "renormalise" or tail > 0:
            t = {**t, y: t.get(y, 0.0) + (tail if batch.residual == "true_token" else 1.0)}
            classes = [(v, log_p[i]) for i, v in t.items()]
        elsewhere = classes[-1] if len(classes) > len(t) else (0.0, log_p[y])
        t_y, log_p_y = dict(zip(t, classes)).get(y, elsewhere)
        if batch.token_weight == "teacher_confidence":
            w *= min(1, t_y)
        elif batch.token_weight == "margin":
            w *= max(0, 1 - np.exp(log_p_y) / t_y) if t_y > 0 else 0
        w = w if weights is None else weights[n]
        ws.append(w)
        softs.append(-sum(v * lp for v, lp in classes))
        entropies.append(-sum(v * np.log(v) for v, _ in classes if v > 0))
        losses.append((1 - w) * -log_p[y] + w * softs[-1] if w > 0 else -log_p[y])
    return np.array(losses), np.array(softs), np.array(entropies), np.array(ws)


def engine(hidden: torch.Tensor, weight: torch.Tensor, batch: Batch) -> dict[str, np.ndarray]:
    """loss_dump: kernels_output_loss on the same numbers."""
    def flat(x: torch.Tensor, dtype: type) -> bytes:
        return x.numpy().astype(dtype).tobytes()

    m, labels, parts, entries = B * L, 0, [], 0
    if batch.dense is not None:
        labels, parts = 2, [flat(batch.dense, np.float32)]
    elif batch.soft_ids is not None:
        real = (batch.soft_weights > 0).reshape(m, -1)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), real.sum(1).cumsum(0)])
        labels, entries = 1, int(offsets[-1])
        parts = [flat(offsets, np.int64), flat(batch.soft_ids.reshape(m, -1)[real], np.int32),
                 flat(batch.soft_weights.reshape(m, -1)[real], np.float32)]
    c, v = hidden.shape[-1], weight.shape[0]
    residual = ("true_token", "ghost", "renormalise").index(batch.residual)
    rule = TOKEN_WEIGHTS.index(batch.token_weight)
    data = b"".join([np.array([m, c, v, labels, residual, entries, rule], np.int64).tobytes(), flat(hidden, np.float32), flat(weight, np.float32),
                     flat(batch.labels, np.int32), flat(batch.kd_weight.repeat_interleave(L), np.float32), *parts])
    out = subprocess.run([LOSS_DUMP], input=data, capture_output=True, check=True, timeout=60).stdout
    means = np.frombuffer(out, np.float64, 6)
    rest = np.split(np.frombuffer(out, np.float32, offset=48), np.cumsum([m, m, m * c]))
    return {**dict(zip(("loss", "hard", "soft", "entropy", "token_weight", "accuracy"), means)), "rows": rest[0], "d_h": rest[2].reshape(B, L, c),
            "d_w": rest[3].reshape(v, c)}


@pytest.mark.parametrize("kind, residual, rule", ALL)
def test_engine(kind: str, residual: str, rule: str) -> None:
    """The same loss and gradients as trainerd's kernel, from logits and from hidden states, in one chunk and in chunks that do not divide."""
    batch, (hidden, weight) = make_batch(kind, residual, token_weight=rule), make_head()
    want = engine(hidden, weight, batch)
    for chunk in (None, 4, 1000, "logits"):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = salt_loss(h @ w.T, batch) if chunk == "logits" else salt_loss_from_hidden(h, w, batch, chunk=chunk)
        (2 * loss).backward()
        np.testing.assert_allclose(loss.item(), want["loss"], rtol=1e-6)
        np.testing.assert_allclose(h.grad / 2, want["d_h"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(w.grad / 2, want["d_w"], rtol=1e-4, atol=1e-6)
    rows = salt_loss(hidden @ weight.T, batch, reduction="none")
    np.testing.assert_allclose(rows.reshape(-1), want["rows"], rtol=2e-6, atol=1e-6)
    metrics = salt_metrics(hidden @ weight.T, batch)
    for name in ("loss", "hard", "accuracy") + (("soft", "entropy", "token_weight") if kind != "none" else ()):
        np.testing.assert_allclose(metrics[name].item(), want[name], rtol=2e-6, err_msg=name)
    if kind == "none":
        assert all(metrics[name].isnan() for name in ("soft", "entropy", "kl", "token_weight"))
    else:
        np.testing.assert_allclose(metrics["kl"].item(), want["soft"] - want["entropy"], rtol=1e-5)


@pytest.mark.parametrize("kind, residual, rule", ALL)
def test_formula(kind: str, residual: str, rule: str) -> None:
    """The formulas of the method in numpy, at double precision; and the gradient against finite differences of them, weights held."""
    batch, (hidden, weight) = make_batch(kind, residual, 3, rule), make_head(4)
    z = (hidden @ weight.T).double().requires_grad_()
    loss = salt_loss(z, batch)
    loss.backward()
    flat = z.detach().numpy().reshape(-1, V)
    want, soft, entropy, weights = reference(flat, batch)
    np.testing.assert_allclose(loss.item(), want.mean(), rtol=1e-7)
    if kind != "none":
        with_label = batch.kd_weight.repeat_interleave(L).numpy() > 0
        metrics = salt_metrics(z.detach(), batch)
        np.testing.assert_allclose(metrics["soft"].item(), soft[with_label].mean(), rtol=1e-6)
        np.testing.assert_allclose(metrics["entropy"].item(), entropy[with_label].mean(), rtol=1e-6)
        np.testing.assert_allclose(metrics["token_weight"].item(), weights[with_label].mean(), rtol=1e-6)
        assert rule == "constant" or 0 < weights[with_label].mean() < (1 + W) / 2 - 1e-3
    rng, step = np.random.default_rng(5), 1e-5
    for _ in range(60):
        at = (rng.integers(len(flat)), rng.integers(V))
        if rng.random() < 0.5:          # where the gradient is not p alone
            at = (at[0], positions(batch)[at[0]][0])
        moved = [flat.copy(), flat.copy()]
        moved[0][at] += step
        moved[1][at] -= step
        slope = (reference(moved[0], batch, weights)[0].sum() - reference(moved[1], batch, weights)[0].sum()) / (2 * step) / len(flat)
        np.testing.assert_allclose(z.grad.reshape(-1, V)[at].item(), slope, rtol=1e-5, atol=1e-8)


def test_autograd() -> None:
    """torch's own check of each gradient in float64, with a weight for every position."""
    for kind, residual in CASES:
        batch, (hidden, weight) = make_batch(kind, residual, seed=8), make_head(9)
        z = (hidden @ weight.T)[:, :, :V].double().requires_grad_()
        scale = torch.linspace(0.5, 2, B * L, dtype=torch.float64).view(B, L)
        assert torch.autograd.gradcheck(lambda x: salt_loss(x, batch, reduction="none") * scale, z, eps=1e-6, atol=1e-6, fast_mode=True)


def test_golden() -> None:
    """The worked numbers of the method: V = 5, one position, K = {0, 3}, w = 2/3."""
    z = torch.tensor([[[1.0, 0.5, -0.5, 2.0, -1.0]]])
    t = torch.softmax(torch.tensor([2.0, 1.0, 0.0, 1.5, -2.0]), 0)
    topk = {"soft_ids": torch.tensor([[[0, 3]]]), "soft_weights": t[[0, 3]].view(1, 1, 2), "tail": (1 - t[[0, 3]].sum()).view(1, 1)}
    counts = torch.tensor([[[23.0, 9, 3, 15]]]) / 50
    sampled = {"soft_ids": torch.arange(4).view(1, 1, 4), "soft_weights": counts, "tail": torch.zeros(1, 1)}
    cases = [
        ("true_token", topk, 1.602346, (-.099749, -.367205, .047644, .390412, .028898)),
        ("renormalise", topk, 1.458971, (-.201447, -.203823, .047644, .328729, .028898)),
        ("ghost", topk, 1.526476, (-.099749, -.306514, .009866, .390412, .005984)),
        ("true_token", sampled, 1.630665, (-.093141, -.323823, .007644, .380423, .028898)),
        ("true_token", {"dense": t.view(1, 1, 5)}, 1.653349, (-.099749, -.319071, .005247, .390412, .023160)),
    ]
    for residual, label, loss, gradient in cases:
        batch = Batch(input_ids=torch.zeros(1, 1, dtype=torch.int64), labels=torch.tensor([[1]]), kd_weight=torch.tensor([2 / 3]),
                      seqs=torch.zeros(1, dtype=torch.int64), phase=1, residual=residual, **label)
        x = z.clone().requires_grad_()
        got = salt_loss(x, batch)
        got.backward()
        assert abs(got.item() - loss) < 1.5e-6
        np.testing.assert_allclose(x.grad.view(5), gradient, atol=1.5e-6)


def test_ghost_corners() -> None:
    """A kept id of weight 0, also id 0, is no part of the ghost. A label that keeps every id has no ghost, whatever rounding left as tail."""
    z = torch.tensor([[[0.3, -1.0, 2.0, 0.5]] * 3])
    batch = Batch(input_ids=torch.zeros(1, 3, dtype=torch.int64), labels=torch.tensor([[1, 1, 1]]), kd_weight=torch.ones(1),
                  seqs=torch.zeros(1, dtype=torch.int64), phase=1, residual="ghost",
                  soft_ids=torch.tensor([[[0, 2, 0, 0], [2, 3, 0, 0], [0, 1, 2, 3]]]),
                  soft_weights=torch.tensor([[[0, 0.6, 0, 0], [0.6, 0, 0, 0], [0.1, 0.2, 0.3, 0.38]]]),
                  tail=torch.tensor([[0.4, 0.4, 0.02]]))
    log_p = torch.log_softmax(z[0, 0], 0)
    want = [-0.6 * log_p[2] - 0.4 * torch.logsumexp(log_p[[1, 3]], 0), -0.6 * log_p[2] - 0.4 * torch.logsumexp(log_p[[0, 1]], 0),
            -(batch.soft_weights[0, 2] * log_p).sum()]
    torch.testing.assert_close(salt_loss(z, batch, reduction="none"), torch.stack(want)[None])


@pytest.mark.parametrize("kind, residual", CASES)
def test_bfloat16(kind: str, residual: str) -> None:
    """bfloat16 logits are computed in float32: the loss of the rounded logits, and its gradient rounded once."""
    batch, (hidden, weight) = make_batch(kind, residual), make_head()
    narrow = (hidden @ weight.T).bfloat16().requires_grad_()
    wide = narrow.detach().float().requires_grad_()
    a, b = salt_loss(narrow, batch), salt_loss(wide, batch)
    assert a.dtype == torch.float32 and a.item() == b.item()
    a.backward(), b.backward()
    assert torch.equal(narrow.grad, wide.grad.bfloat16())
    h = hidden.bfloat16().requires_grad_()
    w = weight.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = salt_loss_from_hidden(h, w, batch, chunk=5)
    loss.backward()
    assert abs(loss.item() - b.item()) < 0.05 and h.grad.dtype == torch.bfloat16 and w.grad.dtype == torch.float32


def test_bias() -> None:
    batch, (hidden, weight) = make_batch("sampled"), make_head()
    tensors = [hidden.requires_grad_(), weight.requires_grad_(), torch.linspace(-1, 1, V).requires_grad_()]
    want = torch.autograd.grad(salt_loss(torch.nn.functional.linear(*tensors), batch, reduction="sum"), tensors)
    got = torch.autograd.grad(salt_loss_from_hidden(hidden, weight, batch, tensors[2], chunk=4, reduction="sum"), tensors)
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_wide_logits() -> None:
    """A padded output layer: logits beyond the labels' vocabulary take part in the softmax, as trainerd's do."""
    batch, (hidden, weight) = make_batch("topk", "ghost"), make_head()
    wide = torch.cat([weight, torch.randn(13, C)])
    assert abs(salt_loss(hidden @ wide.T, batch).item() - engine(hidden, wide, batch)["loss"]) < 1e-5


def test_memory() -> None:
    """salt_loss_from_hidden makes no tensor of [B * L, V], salt_loss none but the gradient."""
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):        # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(x, torch.Tensor):
                    largest = max(largest, x.untyped_storage().nbytes())
            return out

    for kind, residual in CASES:
        if kind == "dense":
            continue                        # the labels have that size
        batch, (hidden, weight) = make_batch(kind, residual), make_head()
        h, w = hidden.requires_grad_(), weight.requires_grad_()
        largest = 0
        with Sizes():
            salt_loss_from_hidden(h, w, batch, chunk=2).backward()
        assert 0 < largest <= V * C * 4 < B * L * V * 4


def test_once() -> None:
    batch, (hidden, weight) = make_batch("sampled"), make_head()
    loss = salt_loss_from_hidden(hidden.requires_grad_(), weight, batch)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward was called twice"):
        loss.backward()


@pytest.mark.parametrize("change, words", [
    (lambda z, b: (z.half(), b), ("float32", "float16", "GradScaler")),
    (lambda z, b: (z[:, :, :40], b), ("at least 8", "found 40")),
    (lambda z, b: (z, dataclasses.replace(b, vocab=84)), ("at least 84", "found 83")),
    (lambda z, b: (z[:, :5], b), ("[3, 7]", "[3, 5, 83]")),
    (lambda z, b: (z.to("meta"), b), ("on meta", "on cpu")),
    (lambda z, b: (z, dataclasses.replace(b, residual="elsewhere")), ("renormalise", "'elsewhere'")),
    (lambda z, b: (z, dataclasses.replace(b, token_weight="margins")), ("teacher_confidence", "'margins'")),
    (lambda z, b: (z, dataclasses.replace(b, soft_ids=None, dense=torch.ones(B, L, 90) / 90)), ("90", "83")),
])
def test_refused(change, words) -> None:        # type: ignore[no-untyped-def]
    z, batch = change(torch.randn(B, L, V), make_batch("topk"))
    for call in (salt_loss, salt_metrics):
        with pytest.raises(SaltRangeError) as e:
            call(z, batch)
        assert all(word in str(e.value) for word in words), str(e.value)
    assert isinstance(e.value, SaltError) and isinstance(e.value, ValueError)


def test_refused_hidden() -> None:
    batch, (hidden, weight) = make_batch("topk"), make_head()
    with pytest.raises(SaltRangeError, match="float16"):
        salt_loss_from_hidden(hidden.half(), weight.half(), batch)
    with pytest.raises(SaltRangeError, match=r"\[V, 16\].*\[83, 15\]"):
        salt_loss_from_hidden(hidden, weight[:, :15], batch)
    with pytest.raises(SaltRangeError, match="'none'"):
        salt_loss_from_hidden(hidden, weight, batch, reduction="none")
    with pytest.raises(SaltRangeError, match="'average'"):
        salt_loss(hidden @ weight.T, batch, reduction="average")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nonfinite(bad: float) -> None:
    """The exception names step, row, sequence, position and what was found; check_finite=False lets a GradScaler see it."""
    batch, (hidden, weight) = make_batch("sampled"), make_head()
    z = hidden @ weight.T
    z[2, 4, 11] = bad
    with pytest.raises(SaltNonfinite, match=r"step 4, row 2 \(sequence 7\), position 4 is (nan|inf).*1 of 21"):
        salt_loss(z, batch)
    assert not torch.isfinite(salt_loss(z, batch, check_finite=False))
    hidden[1, 3, 0] = bad
    with pytest.raises(SaltNonfinite, match=r"row 1 \(sequence 6\), position 3"):
        salt_loss_from_hidden(hidden, weight, batch)
