# SPDX-License-Identifier: Apache-2.0
"""Isolated documents: the loss of the positions that have a target is that of these positions alone, and the forms that attentions take say the
same thing."""
from __future__ import annotations

import pytest
import torch

from saltfleet import documents, salt_loss, salt_loss_from_hidden, salt_metrics
from saltfleet.dataset import Batch

B, L, V, K, END = 3, 20, 17, 4, 2


def tokens() -> torch.Tensor:
    return torch.randint(0, 6, (B, L + 1), generator=torch.Generator().manual_seed(0))


def test_starts() -> None:
    x = torch.tensor([[5, END, 7, 8, END, END, 9], [END, 1, 1, 1, 1, 1, END]])
    starts = documents.starts_of(x, END)
    assert starts.tolist() == [[0, 0, 2, 2, 2, 5, 6], [0, 1, 1, 1, 1, 1, 1]]
    assert documents.position_ids(starts).tolist() == [[0, 1, 0, 1, 2, 0, 0], [0, 0, 1, 2, 3, 4, 5]]
    borders, longest = documents.cu_seqlens(starts)
    assert (borders.tolist(), longest) == ([0, 2, 5, 6, 7, 8, 14], 6)
    assert documents.forward_kwargs(None) == {}


def test_attention() -> None:
    """Through the mask as document by document."""
    starts = documents.starts_of(tokens()[:, :-1], END)
    q = torch.randn(B, 2, L, 8, generator=torch.Generator().manual_seed(1))
    attend = torch.nn.functional.scaled_dot_product_attention
    whole = attend(q, q, q, attn_mask=documents.document_mask(starts)).transpose(1, 2).reshape(B * L, 2, 8)
    added = attend(q, q, q, attn_mask=documents.forward_kwargs(starts)["attention_mask"]).transpose(1, 2).reshape(B * L, 2, 8)
    torch.testing.assert_close(added, whole)
    flat, (borders, _) = q.transpose(1, 2).reshape(B * L, 2, 8), documents.cu_seqlens(starts)
    for begin, end in zip(borders[:-1].tolist(), borders[1:].tolist()):
        part = flat[begin:end].transpose(0, 1)[None]
        torch.testing.assert_close(attend(part, part, part, is_causal=True)[0].transpose(0, 1), whole[begin:end])


@pytest.mark.parametrize("residual", ["true_token", "ghost", "renormalise"])
@pytest.mark.parametrize("phase", [1, 2])
def test_loss(residual: str, phase: int) -> None:
    torch.manual_seed(2)
    x, y = tokens()[:, :-1], tokens()[:, 1:]
    keep, soft = (x != END).reshape(-1), {}
    if phase == 1:
        ids = torch.stack([torch.randperm(V)[:K].sort().values for _ in range(B * L)]).view(B, L, K)
        weights = torch.rand(B, L, K)
        weights *= 0.8 / weights.sum(-1, keepdim=True)
        soft = {"soft_ids": ids, "soft_weights": weights, "tail": 1 - weights.sum(-1)}

    def kept(t: torch.Tensor) -> torch.Tensor:
        return t.reshape(-1, *t.shape[2:])[keep][None]

    same = {"residual": residual, "phase": phase, "kind": "topk", "vocab": V}
    batch = Batch(x, y.masked_fill(x == END, -100), torch.full((B,), 0.6), torch.arange(B), document_starts=documents.starts_of(x, END),
                  **soft, **same)      # type: ignore[arg-type]
    alone = Batch(kept(x), kept(y), torch.full((1,), 0.6), torch.arange(1), **{k: kept(v) for k, v in soft.items()}, **same)   # type: ignore[arg-type]
    z = torch.randn(B, L, V, dtype=torch.float64, requires_grad=True)
    z_alone = kept(z).detach().requires_grad_(True)
    loss, loss_alone = salt_loss(z, batch), salt_loss(z_alone, alone)
    loss.backward()
    loss_alone.backward()
    torch.testing.assert_close(loss, loss_alone)
    torch.testing.assert_close(z.grad.reshape(-1, V)[keep], z_alone.grad[0])        # type: ignore[union-attr]
    assert (z.grad.reshape(-1, V)[~keep] == 0).all()                                # type: ignore[union-attr]
    assert (salt_loss(z, batch, "none").reshape(-1)[~keep] == 0).all()
    for name, value in salt_metrics(z.detach(), batch).items():
        torch.testing.assert_close(value, salt_metrics(z_alone.detach(), alone)[name], equal_nan=True)
    h, w = torch.randn(B, L, 8, requires_grad=True), torch.randn(V, 8)
    chunked = salt_loss_from_hidden(h, w, batch, chunk=7)
    chunked.backward()
    torch.testing.assert_close(chunked, salt_loss(h @ w.T, batch))
    assert (h.grad.reshape(-1, 8)[~keep] == 0).all()                                # type: ignore[union-attr]
