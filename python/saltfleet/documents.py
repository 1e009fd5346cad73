# SPDX-License-Identifier: Apache-2.0
"""Documents inside sequences (corpus.isolate_documents): what a model needs so that attention and positions
stay inside them. Pure torch.

`starts` int64 [B, L] is the index in the sequence at which each position's document begins. Other forms of
it:

    position_ids    t - starts: positions begin at 0 in each document
    document_mask   bool [B, 1, L, L], True where a query sees a key: for scaled_dot_product_attention
    cu_seqlens      int32 [documents + 1], borders in the flattened B * L positions: for
                    flash_attn_varlen_func
    forward_kwargs  arguments of a transformers model
"""
from __future__ import annotations

from typing import Any

import torch

__all__ = ["cu_seqlens", "document_mask", "forward_kwargs", "position_ids", "starts_of"]


def starts_of(input_ids: torch.Tensor, document_end: int) -> torch.Tensor:
    """int64 [B, L] of tokens [B, L]: a document begins after each document_end."""
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    begins = torch.zeros_like(input_ids, dtype=torch.int64)
    begins[:, 1:] = torch.where(input_ids[:, :-1] == document_end, places[1:], 0)
    return begins.cummax(1).values


def position_ids(starts: torch.Tensor) -> torch.Tensor:
    """int64 [B, L]."""
    return torch.arange(starts.shape[1], device=starts.device) - starts


def document_mask(starts: torch.Tensor) -> torch.Tensor:
    """bool [B, 1, L, L]: causal, inside documents. It takes L * L bytes per sequence; cu_seqlens needs no
    mask."""
    places = torch.arange(starts.shape[1], device=starts.device)
    return ((places >= starts[:, :, None]) & (places <= places[:, None])).unsqueeze(1)


def cu_seqlens(starts: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The borders, and the length of the longest document. Waits for the device."""
    flat = (starts == torch.arange(starts.shape[1], device=starts.device)).reshape(-1)
    borders = torch.cat([flat.nonzero().squeeze(1), torch.tensor([flat.numel()], device=flat.device)]).to(torch.int32)
    return borders, int(borders.diff().max())


def forward_kwargs(starts: torch.Tensor | None, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Arguments of a transformers model in addition to input_ids: position_ids, and a mask that is added to
    scores (attention sdpa or eager; dtype: the model's). {} if documents are not isolated (starts None)."""
    if starts is None:
        return {}
    mask = torch.zeros_like(document_mask(starts), dtype=dtype).masked_fill_(~document_mask(starts), torch.finfo(dtype).min)
    return {"position_ids": position_ids(starts), "attention_mask": mask}
