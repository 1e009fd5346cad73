# SPDX-License-Identifier: Apache-2.0
"""Teachers in transformers: any causal language model in a directory, scores and labels from one forward
pass."""
from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import time
from typing import Any, Callable, Sequence

import numpy as np
import torch

from .. import documents
from ..client import Lease, Model, Plan
from ..errors import SaltConfigError, SaltMemoryError, SaltMismatch
from . import label, log
from .loop import Item, fail, submit

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CLASS_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}       # first word of a compute class
CPU_LOGITS_BYTES = 1 << 28
TOKENS_MAX = {"cpu": 1 << 12}       # tokens of a batch, more is not faster; on other devices:
TOKENS_MAX_DEVICE = 1 << 17
SHARE = 0.8                         # of the free device memory


def device_of(name: str) -> torch.device:
    """auto, cpu, cuda, cuda:N."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError
    except RuntimeError:
        raise SaltConfigError(f"--device: expected auto, cpu, cuda or cuda:N, found {name}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SaltConfigError(f"--device: expected a device that torch {torch.__version__} can use, found {name}, and "
                              "torch.cuda.is_available() is False: install a torch for this GPU and its driver, or take --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SaltConfigError(f"--device: expected cuda:0 .. cuda:{torch.cuda.device_count() - 1}, found {name}")
    return device


def dtype_of(name: str, compute_class: str, device: torch.device) -> torch.dtype:
    """auto: the dtype with which the declared class begins, else bfloat16 on a GPU and float32 elsewhere. A
    dtype that contradicts the class is rejected."""
    declared = CLASS_DTYPES.get(compute_class.split("/")[0])
    if name == "auto":
        name = declared or ("bfloat16" if device.type == "cuda" else "float32")
    if declared is not None and declared != name:
        raise SaltMismatch(f"--dtype: expected {declared}, because teacher.compute_class is {compute_class}, found {name}: labels of one "
                           "class are made in one precision")
    return DTYPES[name]


def load(model: Model, device: torch.device, dtype: torch.dtype, trust_remote_code: bool = False) -> Any:
    """Loads a model that gives model.vocab logits per position."""
    import transformers

    begun = time.monotonic()
    try:
        net, loaded = transformers.AutoModelForCausalLM.from_pretrained(str(model.dir), dtype=dtype, local_files_only=True,
                                                                        trust_remote_code=trust_remote_code, output_loading_info=True)
    except (ValueError, KeyError, OSError, RuntimeError, ImportError) as e:
        raise SaltConfigError(f"{model.dir}: expected a causal language model that transformers {transformers.__version__} can load, "
                              f"found: {(str(e) or type(e).__name__).splitlines()[0]}") from None
    if loaded["missing_keys"]:      # transformers fills these weights with random numbers
        raise SaltConfigError(f"{model.dir}: expected all weights of {type(net).__name__} in its safetensors, found none for "
                              f"{', '.join(sorted(loaded['missing_keys'])[:3])}")
    net = net.to(device).eval().requires_grad_(False)
    with torch.no_grad():
        vocab = net(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False).logits.shape[-1]
    if vocab != model.vocab:
        raise SaltMismatch(f"{model.dir}: expected {model.vocab} logits a position, the vocab_size of config.json, found {vocab}")
    log.info("model.loaded", dir=model.dir, type=net.config.model_type, params=sum(p.numel() for p in net.parameters()), vocab=vocab,
             device=device, dtype=str(dtype).removeprefix("torch."), seconds=round(time.monotonic() - begun, 1))
    return net


class Transformers:
    """The backend of loop.Loop: one or two models, batches of `batch` sequences."""

    def __init__(self, models: Sequence[Any], vocab: int, device: torch.device, context: int, batch: int | None = None, compile: bool = False):
        self._vocab, self._device, self._compile = vocab, device, compile
        self._dtype = getattr(models[0], "dtype", torch.float32)
        self._forward = [torch.compile(m, dynamic=False) if compile else m for m in models]
        self._reducer = label.Reducer()
        self.batch = batch or self._batch_for(context)
        log.info("batch", sequences=self.batch, tokens=self.batch * context, chosen="given" if batch else "from memory")

    def ready(self) -> bool:
        return True

    def interrupt(self) -> None:
        pass

    def _batch_for(self, context: int) -> int:
        """Number of sequences that fit: on the CPU their logits take CPU_LOGITS_BYTES, on a device two trials
        measure the memory of a sequence."""
        vocab = self._vocab
        most = max(1, TOKENS_MAX.get(self._device.type, TOKENS_MAX_DEVICE) // context)
        if self._device.type != "cuda":
            return max(1, min(most, CPU_LOGITS_BYTES // (4 * vocab * context)))

        def peak(n: int) -> int:
            torch.cuda.reset_peak_memory_stats(self._device)
            wanted = label.Wanted(vocab, True, "topk", min(64, vocab))
            for forward in self._forward:
                tokens = torch.zeros(n, context, dtype=torch.long, device=self._device)
                label.Reducer().start(self._logits(forward, tokens), tokens, wanted)
            torch.cuda.synchronize(self._device)
            return torch.cuda.max_memory_allocated(self._device)
        try:
            one, three = peak(1), peak(3)
        except torch.cuda.OutOfMemoryError:
            return 1
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(self._device)[0]
        # Two batches at a time: the results of one are fetched while the next is computed.
        return max(1, min(most, int(SHARE * free / max(1, three - one))))

    def _logits(self, forward: Any, tokens: torch.Tensor, document_end: int | None = None) -> torch.Tensor:
        starts = None if document_end is None else documents.starts_of(tokens, document_end)
        with torch.no_grad():
            return forward(input_ids=tokens, use_cache=False, **documents.forward_kwargs(starts, self._dtype)).logits

    def start(self, items: Sequence[Item]) -> Callable[[], None]:
        """Starts a batch of one model. If memory runs out, the batch size is halved for good."""
        parts, out = [items], []
        while parts:
            part = parts.pop(0)
            try:
                out.append(self._start(part))
            except torch.cuda.OutOfMemoryError as e:
                if len(part) == 1:
                    raise SaltMemoryError(f"{self._device}: one sequence of {part[0].lease.context} tokens does not fit into its memory: "
                                          f"{str(e).splitlines()[0]}") from None
                half = len(part) // 2
                self.batch = min(self.batch, half)
                log.warn("batch.halved", sequences=self.batch, why=str(e).splitlines()[0])
                parts[:0] = [part[:half], part[half:]]
                torch.cuda.empty_cache()
        return lambda: [finish() for finish in out] and None

    def _start(self, items: Sequence[Item]) -> Callable[[], None]:
        lease = items[0].lease
        wants_label = [item for item in items if item.lease.want_label]
        label_of = wants_label[0].lease if wants_label else lease
        wanted = label.Wanted(lease.n_valid, any(item.lease.want_score for item in items), label_of.kind if wants_label else "none",
                              label_of.n_draws if label_of.kind == "sampled" else label_of.k, label_of.tau)
        padded = len(items) if not self._compile else max(self.batch, len(items))      # one shape, compiled once
        tokens = np.empty((padded, lease.context + 1), np.int64)
        for row, item in enumerate(items):
            tokens[row] = item.lease.tokens[item.i]
        tokens[len(items):] = tokens[0]
        on_device = torch.from_numpy(tokens).to(self._device)
        uniforms = None
        if wanted.kind == "sampled":
            host = np.zeros((len(items), lease.context, wanted.n))
            for row, item in enumerate(items):
                if item.lease.want_label:
                    host[row] = item.lease.uniforms(item.i)
            uniforms = torch.from_numpy(host).to(self._device)
        logits = self._logits(self._forward[lease.model], on_device[:, :-1], lease.document_end)[:len(items)]
        pending = self._reducer.start(logits, on_device[:len(items), 1:], wanted, uniforms)
        return lambda: self._finish(items, pending, wanted)

    def _finish(self, items: Sequence[Item], pending: label.Pending, wanted: label.Wanted) -> None:
        results = pending.get()
        for row, item in enumerate(items):
            if row in results.failed:
                fail(item, results.failed[row])
                continue

            def give(lease: Lease, i: int, row: int = row) -> None:
                if lease.want_label and wanted.kind == "dense":
                    lease.submit_logits(i, pending.logits(row))         # gives the scores too
                    return
                if lease.want_score:
                    lease.submit_scores(i, results.loss_nats[row], results.rank[row])
                if lease.want_label and wanted.kind == "sampled":
                    lease.submit_samples(i, results.draws[row])
                elif lease.want_label:
                    lease.submit_topk(i, results.ids[row], results.log_p[row])
            submit(item, give)


def backend(args: argparse.Namespace, models: Sequence[Model], plan: Plan) -> Transformers:
    if args.threads:
        torch.set_num_threads(args.threads)
    device = device_of(args.device)
    dtype = dtype_of(args.dtype, plan.compute_class, device)
    log.info("engine", torch=torch.__version__, device=torch.cuda.get_device_name(device) if device.type == "cuda" else device,
             threads=torch.get_num_threads(), compute_class=plan.compute_class, compile=args.compile)
    nets = [load(m, device, dtype, args.trust_remote_code) for m in models]
    return Transformers(nets, max(m.vocab for m in models), device, plan.context, args.batch, args.compile)


__all__ = ["Transformers", "backend", "device_of", "dtype_of", "load"]
