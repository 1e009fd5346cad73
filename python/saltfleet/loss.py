# SPDX-License-Identifier: Apache-2.0
"""The loss of both phases, as trainerd computes it. Pure torch.

With student logits z, p = softmax(z), next token y, teacher's label t and distillation weight w:

    q = (1 - w) * onehot(y) + w * t,    loss = logsumexp(z) - sum_v q_v z_v,    d loss / d z = p - q

A label of kind topk leaves the probability `tail` outside of its k ids. The batch's `residual` says where it
goes:

    true_token    to y
    renormalise   t is divided by its sum (an empty t: all of it at y)
    ghost         to one class that stands for all other ids: -tail * log P, P the student's probability
                  outside of the k ids

The batch's `token_weight` says what w of a position is. t_y is the probability of y in t after the residual
rule, p_y the student's (both are those of the ghost's class if y is none of the ids):

    constant             kd_weight
    teacher_confidence   kd_weight * min(1, t_y)
    margin               kd_weight * max(0, 1 - p_y / t_y); no gradient goes through it

In phase two the loss is that of the next token. The mean is taken over all positions, with or without a soft
label. With corpus.isolate_documents a token that ends a document has no target (labels -100): its loss is 0,
it has no gradient, and no mean includes it.
"""
from __future__ import annotations

import torch

from .errors import SaltNonfinite, SaltRangeError

__all__ = ["salt_loss", "salt_loss_from_hidden", "salt_metrics"]

RESIDUALS = ("true_token", "ghost", "renormalise")
TOKEN_WEIGHTS = ("constant", "teacher_confidence", "margin")
REDUCTIONS = ("mean", "sum", "none")
NO_TARGET = -100                                # in labels, as in torch.nn.functional.cross_entropy
CPU_CHUNK, GPU_CHUNK = 1 << 20, 1 << 26         # floats of a temporary; on a CPU it stays in the cache
HIDDEN_CHUNK = 1 << 24                          # logits that exist at a time


# ---- targets ----------------------------------------------------------------------------------------------------------

class _Targets:
    """What the loss needs for n positions. y, w, at_next, tail [n]; t as ids, values, kept [n, K] or dense
    [n, V].

    counted: None, or [n] bool: False where there is no target (labels -100). w: before token_weight. at_next:
    probability of t that is added at y. tail: probability of the ghost. kept: entries that are not padding,
    for the ghost only.
    """

    __slots__ = ("y", "counted", "w", "ids", "values", "dense", "at_next", "tail", "kept", "token_weight")

    def __init__(self, y, counted=None, w=None, ids=None, values=None, dense=None, at_next=None, tail=None, kept=None, token_weight="constant"):
        self.y, self.counted, self.w, self.ids, self.values, self.dense = y, counted, w, ids, values, dense
        self.at_next, self.tail, self.kept, self.token_weight = at_next, tail, kept, token_weight

    def rows(self, begin, end):
        members = (getattr(self, name) for name in self.__slots__)
        return _Targets(*(x[begin:end] if isinstance(x, torch.Tensor) else x for x in members))


def _targets(batch, dtype, vocab):
    y, counted = batch.labels.reshape(-1), None
    if batch.document_starts is not None:
        counted = y != NO_TARGET
        y = torch.where(counted, y, 0)
    if batch.soft_ids is None and batch.dense is None:
        return _Targets(y, counted)
    n = len(y)
    w = batch.kd_weight.to(dtype).repeat_interleave(batch.labels.shape[1])
    if counted is not None:
        w = w * counted
    rule = batch.token_weight
    if batch.dense is not None:
        return _Targets(y, counted, w, dense=batch.dense.reshape(n, -1), token_weight=rule)
    ids, values = batch.soft_ids.reshape(n, -1), batch.soft_weights.reshape(n, -1).to(dtype)
    tail = batch.tail.reshape(-1).to(dtype)
    if batch.residual == "ghost":
        # Padding is id 0 with weight 0 behind entries whose ids ascend, so id 0 is a label's only in the first column.
        kept = (ids > 0) | (values > 0)
        kept[:, :1] |= ids[:, 1:2] > 0 if ids.shape[1] > 1 else False
        return _Targets(y, counted, w, ids, values, tail=torch.where(kept.sum(1) < vocab, tail, 0), kept=kept, token_weight=rule)
    if batch.residual == "renormalise":
        total = values.sum(1)
        return _Targets(y, counted, w, ids, values / torch.where(total > 0, total, 1)[:, None], at_next=(total <= 0).to(dtype),
                        token_weight=rule)
    return _Targets(y, counted, w, ids, values, at_next=tail, token_weight=rule)


# ---- losses and gradient of a chunk of rows, without autograd ----------------------------------------------------------

def _logsumexp(z):
    top = z.amax(1)
    return torch.sub(z, top[:, None]).exp_().sum(1).log_().add_(top)


def _outside(z, t):
    """z with -inf at the label's ids: what is left is the ghost's class."""
    return z.scatter_add(1, t.ids, torch.where(t.kept, -torch.inf, 0).to(z.dtype))


def _weights(z, t, lse, lse_tail):
    """w [n] of the positions, with their token_weight."""
    if t.token_weight == "constant":
        return t.w
    log_p = z.gather(1, t.y[:, None]).squeeze(1) - lse
    if t.dense is not None:
        t_y = t.dense.gather(1, t.y[:, None]).squeeze(1).to(z.dtype)
    else:
        is_y = t.ids == t.y[:, None]
        t_y = (t.values * is_y).sum(1)
        if t.at_next is not None:
            t_y = t_y + t.at_next
        if t.tail is not None:
            ghost = ~(is_y & t.kept).any(1) & (t.tail > 0)
            t_y, log_p = torch.where(ghost, t.tail, t_y), torch.where(ghost, lse_tail - lse, log_p)
    if t.token_weight == "teacher_confidence":
        return t.w * t_y.clamp(max=1)
    return t.w * torch.where(t_y > 0, (1 - log_p.exp() / torch.where(t_y > 0, t_y, 1)).clamp(min=0), 0)


def _losses(z, t):
    """(loss, hard, soft, lse, lse_tail, w) [n] of logits z [n, V]; soft and w are None without labels, lse_tail without a ghost."""
    lse, lse_tail = _logsumexp(z), None
    hard = lse - z.gather(1, t.y[:, None]).squeeze(1)
    if t.w is None:
        hard, = _only_counted(t, hard)
        return hard, hard, None, lse, None, None
    if t.dense is not None:
        dense = t.dense.to(z.dtype)
        soft = dense.sum(1) * lse - (dense * z).sum(1)
    else:
        soft = (t.values * (lse[:, None] - z.gather(1, t.ids))).sum(1)
    if t.at_next is not None:
        soft += t.at_next * hard
    if t.tail is not None:
        lse_tail = _logsumexp(_outside(z, t))
        soft += torch.where(t.tail > 0, t.tail * (lse - lse_tail), 0)
    w = _weights(z, t, lse, lse_tail)
    loss, hard = _only_counted(t, torch.where(w > 0, (1 - w) * hard + w * soft, hard), hard)
    return loss, hard, soft, lse, lse_tail, w


def _gradient(z, t, lse, lse_tail, w, g, out=None):
    """g * (p - q) [n, V]; g [n] is the derivative by each row's loss."""
    if t.counted is not None:
        g = g * t.counted
    d = torch.sub(z, lse[:, None], out=out).exp_().mul_(g[:, None])
    if w is None:
        return d.scatter_add_(1, t.y[:, None], -g[:, None])
    w = w * g
    if t.tail is not None:
        ghost = _outside(z, t).sub_(lse_tail[:, None]).exp_().mul_((w * t.tail)[:, None])
        d.sub_(torch.where((w * t.tail != 0)[:, None], ghost, 0))
    if t.dense is not None:
        d.addcmul_(t.dense.to(z.dtype), w[:, None], value=-1)
    else:
        d.scatter_add_(1, t.ids, -w[:, None] * t.values)
    at_y = g - w if t.at_next is None else g - w + w * t.at_next
    return d.scatter_add_(1, t.y[:, None], -at_y[:, None])


def _wide(z):
    return z if z.dtype == torch.float64 else z.float()


def _chunk_rows(z):
    return max(1, (CPU_CHUNK if z.device.type == "cpu" else GPU_CHUNK) // z.shape[1])


def _only_counted(t, *losses):
    """0 where there is no target."""
    return losses if t.counted is None else tuple(x if x is None else torch.where(t.counted, x, 0) for x in losses)


def _all_losses(z, t):
    """_losses of z [n, V] in any dtype, chunk by chunk."""
    rows = _chunk_rows(z)
    parts = [_losses(_wide(z[i:i + rows]), t.rows(i, i + rows)) for i in range(0, len(z), rows)]
    return [None if column[0] is None else torch.cat(column) for column in zip(*parts)]


class _FromLogits(torch.autograd.Function):
    """Losses [n] of logits [n, V]. Keeps the logits, which the model has anyway, but no softmax of them."""

    @staticmethod
    def forward(ctx, z, t):
        loss, _, _, lse, lse_tail, w = _all_losses(z, t)
        ctx.save_for_backward(z, lse, lse_tail, w)
        ctx.t = t
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        z, lse, lse_tail, w = ctx.saved_tensors
        d, rows = torch.empty_like(z), _chunk_rows(z)
        in_place = d.dtype in (torch.float32, torch.float64)
        for i in range(0, len(z), rows):
            part = slice(i, i + rows)
            tail, w_i = (None if x is None else x[part] for x in (lse_tail, w))
            chunk = _gradient(_wide(z[part]), ctx.t.rows(i, i + rows), lse[part], tail, w_i, g[part], d[part] if in_place else None)
            if not in_place:
                d[part] = chunk
        return d, None


class _FromHidden(torch.autograd.Function):
    """Sum of the losses times scale, and losses [n], of hidden states h [n, C]. Gradients are computed while
    the logits exist, and kept."""

    @staticmethod
    def forward(ctx, h, weight, bias, t, scale, rows):
        need_h, need_w, need_b = ctx.needs_input_grad[:3]
        any_grad = need_h or need_w or need_b
        ctx.d_h = torch.empty_like(h) if need_h else None
        ctx.d_w = torch.zeros_like(weight, dtype=_sum_dtype(weight)) if need_w else None
        ctx.d_b = torch.zeros_like(bias, dtype=_sum_dtype(bias)) if need_b else None
        losses = []
        for i in range(0, len(h), rows):
            h_i, t_i = h[i:i + rows], t.rows(i, i + rows)
            narrow = torch.nn.functional.linear(h_i, weight, bias)
            if i == 0:
                _check_dtype("hidden times lm_head_weight", narrow.dtype)
            z = _wide(narrow)
            loss, _, _, lse, lse_tail, w = _losses(z, t_i)
            losses.append(loss)
            if not any_grad:
                continue
            d = _gradient(z, t_i, lse, lse_tail, w, torch.ones_like(loss) * scale).to(narrow.dtype)
            if need_h:
                ctx.d_h[i:i + rows] = d @ weight
            if need_w:
                ctx.d_w += d.T @ h_i
            if need_b:
                ctx.d_b += d.sum(0)
        losses = torch.cat(losses)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        ctx.mark_non_differentiable(losses)
        return losses.sum() * scale, losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g, _):
        if not hasattr(ctx, "d_h"):
            raise RuntimeError("salt_loss_from_hidden: backward was called twice on one loss; the first call used up its gradients")
        d_h, d_w, d_b, dtypes = ctx.d_h, ctx.d_w, ctx.d_b, ctx.dtypes
        del ctx.d_h, ctx.d_w, ctx.d_b
        scaled = [None if d is None else d.mul_(g) for d in (d_h, d_w, d_b)]
        return (scaled[0], None if d_w is None else scaled[1].to(dtypes[0]), None if d_b is None else scaled[2].to(dtypes[1]),
                None, None, None)


def _sum_dtype(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


# ---- checks -----------------------------------------------------------------------------------------------------------

def _check_dtype(what, dtype):
    if dtype not in (torch.float32, torch.bfloat16, torch.float64):
        raise SaltRangeError(f"{what}: expected float32, bfloat16 or float64, found {str(dtype).removeprefix('torch.')}. In float16 the "
                        "gradient (p - q) / positions is mostly below the smallest number; if a GradScaler takes care of that, "
                        "pass logits.float()")


def _check(what, x, shape, vocab, batch, reduction):
    """x: logits or hidden states, whose first two dimensions are shape; vocab: logits a position."""
    if reduction not in REDUCTIONS:
        raise SaltRangeError(f"reduction: expected one of {', '.join(REDUCTIONS)}, found {reduction!r}")
    labels = batch.labels
    if tuple(shape) != tuple(labels.shape):
        raise SaltRangeError(f"{what}: expected [B, L, ...] with B, L = {list(labels.shape)} as batch.labels, found {list(x.shape)}")
    if x.device != labels.device:
        raise SaltRangeError(f"{what} are on {x.device}, the batch of step {batch.step} is on {labels.device}: expected one device. "
                         "batch.to(device) moves it")
    needs = batch.vocab
    if needs is None:                           # a batch made by hand; on a device this waits for it
        needs = 1 + max(int(ids.max()) for ids in (labels, batch.soft_ids) if ids is not None and ids.numel() > 0)
    if vocab < needs:
        raise SaltRangeError(f"{what}: expected at least {needs} logits a position, as the labels of step {batch.step} have ids below "
                         f"{needs}, found {vocab}")
    if batch.dense is not None and batch.dense.shape[-1] != vocab:
        raise SaltRangeError(f"{what}: dense labels of step {batch.step} have {batch.dense.shape[-1]} ids, the model has {vocab} logits a "
                         "position: expected the same. SaltDataset(vocab_size=...) makes labels of that width")
    if batch.soft_ids is not None and batch.residual not in RESIDUALS:
        raise SaltRangeError(f"batch.residual: expected one of {', '.join(RESIDUALS)}, found {batch.residual!r}")
    if batch.token_weight not in TOKEN_WEIGHTS:
        raise SaltRangeError(f"batch.token_weight: expected one of {', '.join(TOKEN_WEIGHTS)}, found {batch.token_weight!r}")


def _check_finite(what, losses, batch):
    if torch.compiler.is_compiling() or torch.isfinite(losses.sum()):
        return
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad) == 0:
        return                                  # only their sum is too large
    row, position = divmod(int(bad[0]), batch.labels.shape[1])
    raise SaltNonfinite(f"{what}: the loss of step {batch.step}, row {row} (sequence {int(batch.seqs[row])}), position {position} "
                             f"is {losses[bad[0]].item()}, expected a finite number; {len(bad)} of {len(losses)} positions are like "
                             "that. Skip the update, or go back to a checkpoint")


def _counted(batch):
    """Positions with a target: a number, or a scalar tensor."""
    return batch.labels.numel() if batch.document_starts is None else (batch.labels != NO_TARGET).sum()


def _reduce(losses, batch, reduction):
    if reduction == "none":
        return losses.view_as(batch.labels)
    return losses.sum() / _counted(batch) if reduction == "mean" and batch.document_starts is not None else \
        losses.mean() if reduction == "mean" else losses.sum()


# ---- public -----------------------------------------------------------------------------------------------------------

def salt_loss(logits, batch, reduction="mean", *, check_finite=True):
    """The mixed loss of a batch, in nats; the same as trainerd's, with the same gradient.

    logits        [B, L, V] of the student for batch.input_ids; float32, bfloat16 (computed in float32) or
                  float64. Position t predicts batch.labels[:, t], which are shifted already. V may exceed the
                  vocabulary of the labels.
    reduction     "mean" over all positions with a target (without corpus.isolate_documents B * L), "sum", or
                  "none": [B, L]
    check_finite  SaltNonfinite if a loss is NaN or infinite. The check waits for the device; False omits it,
                  for a GradScaler for instance

    Memory in addition to the logits: one gradient of their size, and a chunk. Raises SaltRangeError (dtype,
    shape, device, vocabulary) with what was expected and what was found.
    """
    _check_dtype("logits", logits.dtype)
    _check("logits", logits, logits.shape[:2], logits.shape[-1], batch, reduction)
    z = logits.reshape(-1, logits.shape[-1])
    losses = _FromLogits.apply(z, _targets(batch, _sum_dtype(z), z.shape[1]))
    if check_finite:
        _check_finite("salt_loss", losses.detach(), batch)
    return _reduce(losses, batch, reduction)


def salt_loss_from_hidden(hidden, lm_head_weight, batch, bias=None, *, chunk=None, reduction="mean", check_finite=True):
    """salt_loss of logits hidden @ lm_head_weight.T + bias, which never exist as a whole.

    hidden           [B, L, C], the input of the model's output layer
    lm_head_weight   [V, C]; bias: [V] or None
    chunk            positions whose logits exist at a time; None: 64 MiB of float32
    reduction        "mean" or "sum"

    The gradients are computed in the forward pass, the weight's in float32, and kept: [B, L, C] and [V, C].
    Only one backward is possible. Products have the dtype of hidden, or of autocast.
    """
    if reduction == "none":
        raise SaltRangeError("reduction: expected mean or sum, found 'none': gradients are computed before the backward pass")
    _check_dtype("hidden", hidden.dtype)
    if hidden.shape[-1] != lm_head_weight.shape[-1]:
        raise SaltRangeError(f"lm_head_weight: expected [V, {hidden.shape[-1]}], as hidden is {list(hidden.shape)}, found "
                         f"{list(lm_head_weight.shape)}")
    vocab = lm_head_weight.shape[0]
    _check("hidden", hidden, hidden.shape[:2], vocab, batch, reduction)
    h = hidden.reshape(-1, hidden.shape[-1])
    scale = 1 / _counted(batch) if reduction == "mean" else 1.0
    rows = chunk or max(64, HIDDEN_CHUNK // vocab)
    loss, losses = _FromHidden.apply(h, lm_head_weight, bias, _targets(batch, _sum_dtype(h), vocab), scale, rows)
    if check_finite:
        _check_finite("salt_loss_from_hidden", losses, batch)
    return loss


@torch.no_grad()
def salt_metrics(logits, batch):
    """Means in nats, as scalar tensors: loss, hard and accuracy (over all positions with a target); soft,
    entropy, kl = soft - entropy and token_weight (over positions with a kd_weight; NaN if there are none).
    entropy is that of the label after the residual rule; token_weight is the distillation weight after the
    rule of batch.token_weight."""
    _check_dtype("logits", logits.dtype)
    _check("logits", logits, logits.shape[:2], logits.shape[-1], batch, "mean")
    z = logits.reshape(-1, logits.shape[-1])
    t = _targets(batch, _sum_dtype(z), z.shape[1])
    loss, hard, soft, _, _, w = _all_losses(z, t)
    n, right = _counted(batch), (z.argmax(1) == t.y) if t.counted is None else (z.argmax(1) == t.y) & t.counted
    out = {"loss": loss.sum() / n, "hard": hard.sum() / n, "accuracy": right.to(loss.dtype).sum() / n}
    known = torch.zeros_like(t.y, dtype=torch.bool) if t.w is None else t.w > 0
    nothing = loss.new_full((), torch.nan)
    out["soft"] = nothing if soft is None else soft[known].mean()
    out["entropy"] = nothing if soft is None else _entropy(t)[known].mean()
    out["kl"] = out["soft"] - out["entropy"]
    out["token_weight"] = nothing if w is None else w[known].mean()
    return out


def _entropy(t):
    if t.dense is not None:
        return -torch.xlogy(t.dense, t.dense).sum(1)
    at_y = torch.zeros_like(t.w) if t.at_next is None else t.at_next
    is_y = (t.ids == t.y[:, None]) & (t.values > 0)        # the tail is added to y if the label contains y
    values = t.values + is_y * at_y[:, None]
    at_y = torch.where(is_y.any(1), 0, at_y)
    rest = 0 if t.tail is None else torch.xlogy(t.tail, t.tail)
    return -(torch.xlogy(values, values).sum(1) + torch.xlogy(at_y, at_y) + rest)
