# SPDX-License-Identifier: Apache-2.0
"""Parts for torchtitan 0.3: a data loader, a loss, a checkpoint manager and a trainer. In a config registry:

    from saltfleet.torchtitan import SaltChunkedLoss, SaltCheckpointManager, SaltDataLoader, SaltTrainer

    config = SaltTrainer.Config(
        dataloader=SaltDataLoader.Config(fleet="fleet.yaml"),
        loss=SaltChunkedLoss.Config(),
        checkpoint=SaltCheckpointManager.Config(enable=True, interval=1000),
        training=TrainingConfig(local_batch_size=8, global_batch_size=512, seq_len=2048, steps=20000,
                                disable_cuda_graphs=True),
        ...as before...
    )

fleet.yaml determines the rows, so training.global_batch_size, seq_len and steps must be trainer.batch,
corpus.context and trainer.steps; other values are rejected. Data parallelism of all kinds (DDP, FSDP, HSDP)
works; tensor, context and pipeline parallelism are rejected.

A checkpoint holds one integer for the rows, the next step, so a run may continue with another number of
processes.
"""
from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.checkpointer.base import DATALOADER
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import BaseLoss, ChunkedLossWrapper, cross_entropy_loss
from torchtitan.tools import filesystem
from torchtitan.trainer import Trainer

from .dataset import Batch, SaltDataset
from .errors import SaltConfigError, SaltTimeout
from .loss import salt_loss

_log = logging.getLogger("saltfleet")
_BATCH = "salt"         # key of the Batch, next to the model's inputs
_SOFT = ("soft_ids", "soft_weights", "tail", "dense")


def _expect(name: str, expected: Any, found: Any, why: str) -> None:
    if found != expected:
        raise SaltConfigError(f"saltfleet.torchtitan: {name}: expected {expected} ({why}), found {found}")


class SaltDataLoader(BaseDataLoader):
    """Micro-batches of local_batch_size rows of the run that fleet.yaml describes. Its state is the same on every rank."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        fleet: str = "fleet.yaml"
        """Path of fleet.yaml."""

        overrides: list[str] = field(default_factory=list)
        """Texts "section.key=value", as --set of the daemons."""

        vocab_size: int | None = None
        """Ids of the model's output layer, if more than the corpus's vocabulary."""

        prefetch: int = 4
        """Steps that are fetched ahead."""

    def __init__(self, config: Config, *, dp_world_size: int, dp_rank: int, seq_len: int, local_batch_size: int, **_: Any):
        self.dataset = SaltDataset(config.fleet, dp_rank, dp_world_size, overrides=config.overrides, vocab_size=config.vocab_size,
                                   prefetch=config.prefetch)
        plan, rows = self.dataset.plan, self.dataset.rows_per_step
        _expect("corpus.isolate_documents", False, plan.isolate_documents, "masks of torchtitan's attentions are not made here")
        _expect("training.seq_len", plan.context, seq_len, f"corpus.context of {config.fleet}")
        if rows % local_batch_size:
            raise SaltConfigError(f"saltfleet.torchtitan: training.local_batch_size: expected a divisor of the {rows} rows that a process "
                                  f"has in each step (trainer.batch {plan.batch} / {dp_world_size} processes), found {local_batch_size}")
        self.dataset.micro_batches = rows // local_batch_size

    def __iter__(self) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
        for b in self.dataset:
            # Without positions the masked attentions of torchtitan are not causal. Each row is one sequence,
            # as for trainerd and teachers.
            positions = torch.arange(b.labels.shape[1]).expand_as(b.labels)
            yield {"input": b.input_ids, "positions": positions, _BATCH: b}, b.labels

    def state_dict(self) -> dict[str, Any]:
        # Always the same keys, because a checkpoint is read with the keys of the loader that reads it. -1:
        # the configuration states the switch.
        return {"switch_step": -1, **self.dataset.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:          # torchtitan allows an empty one
            self.dataset.load_state_dict({k: v for k, v in state_dict.items() if (k, v) != ("switch_step", -1)})


class SaltLoss(BaseLoss):
    """Phase one: cross-entropy to the mixture of the next token and the teacher's distribution. Phase two: the next token."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseLoss.Config):
        pass

    batch: Batch | None = None          # batch of the next call, set by SaltTrainer

    def __init__(self, config: Config, *, compile_config: Any = None):
        pass                            # not compiled: K, the width of the soft labels, differs from batch to batch

    def __call__(self, pred: torch.Tensor, labels: torch.Tensor, global_valid_tokens: torch.Tensor | None = None,
                 **inputs: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        batch, self.batch = inputs.get(_BATCH, self.batch), None
        if batch is None:
            if pred.requires_grad:
                raise SaltConfigError("saltfleet.torchtitan: SaltLoss: no rows for this call: expected SaltTrainer.Config in place of "
                                      "Trainer.Config, which hands the teacher's labels to the loss")
            loss = cross_entropy_loss(pred, labels)     # validation
        else:
            if _BATCH in inputs:        # a chunk of the positions
                batch = dataclasses.replace(batch, labels=labels, kd_weight=inputs["kd_weight"][:, 0],
                                            **{k: inputs[k] for k in _SOFT if k in inputs})
            # torchtitan divides this sum by the tokens of all processes, and checks for values that are not
            # finite.
            loss = salt_loss(pred, batch, "sum", check_finite=False)
        return (loss if global_valid_tokens is None else loss / global_valid_tokens), {}


class SaltChunkedLoss(ChunkedLossWrapper):
    """SaltLoss in num_chunks parts of the positions: the logits of one part are in memory at a time."""

    @dataclass(kw_only=True, slots=True)
    class Config(ChunkedLossWrapper.Config):
        loss_fn: BaseLoss.Config = field(default_factory=SaltLoss.Config)

    batch: Batch | None = None

    def __call__(self, pred: torch.Tensor, labels: torch.Tensor, global_valid_tokens: torch.Tensor | None = None,
                 **inputs: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        batch, self.batch = self.batch, None
        if batch is not None:           # tensors are split along the positions, other values are passed on
            inputs = {_BATCH: batch, "kd_weight": batch.kd_weight[:, None].expand_as(labels),
                      **{k: getattr(batch, k) for k in _SOFT if getattr(batch, k) is not None}}
        return super().__call__(pred, labels, global_valid_tokens, **inputs)


class SaltCheckpointManager(CheckpointManager):
    """Also writes a checkpoint at the switch, and reports the checkpoints to selectord: rows before the
    oldest one will not be requested again, and a checkpoint of the switch or later releases the teachers.
    Without checkpoints (enable=False) teachers are not released."""

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        pass

    def _load(self, step: int = -1) -> bool:
        loaded = super()._load(step)
        if loaded and filesystem.isdir(self.folder):
            self._tell()            # the last process may have ended between a checkpoint and its report
        return loaded

    def _should_save(self, curr_step: int, last_step: bool = False) -> bool:
        return super()._should_save(curr_step, last_step) or (not self.load_only and curr_step == self._dataset.plan.switch_step)

    def _save(self, curr_step: int, last_step: bool = False) -> bool:
        saved = super()._save(curr_step, last_step)
        if saved and curr_step == self._dataset.plan.switch_step:
            self.maybe_wait_for_saving()            # teachers wait for this one
        if saved and self.save_future is None:
            self._tell()
        return saved

    def _wait_for_saving(self) -> None:
        super()._wait_for_saving()
        self._tell()

    @property
    def _dataset(self) -> SaltDataset:
        return self.states[DATALOADER].dataset

    def _tell(self) -> None:
        """Reports the checkpoints that are complete on disk: .metadata is written last, by rank 0."""
        if torch.distributed.get_rank() != 0:
            return
        steps = sorted(int(m[1]) for m in map(re.compile(r"step-(\d+)").fullmatch, filesystem.listdir(self.folder)) if m)
        steps = [step for step in steps[-self.keep_latest_k:]       # older ones are being removed; 0 keeps all
                 if filesystem.isfile(filesystem.join(self._create_checkpoint_id(step), ".metadata"))]
        if not steps:
            return
        self._dataset.checkpointed(steps[0])
        switch = self._dataset.plan.switch_step
        if switch is not None and steps[-1] >= switch > 0:
            self._dataset.release(switch)


class SaltTrainer(Trainer):
    """torchtitan's Trainer, which also passes the labels of a batch to the loss."""

    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        pass

    def __init__(self, config: Config):
        for name in ("tensor", "context", "pipeline"):
            name = f"{name}_parallel_degree"
            _expect(f"parallelism.{name}", 1, getattr(config.parallelism, name), "soft labels are not divided")
        if config.parallelism.spmd_backend == "full_dtensor":
            raise SaltConfigError("saltfleet.torchtitan: parallelism.spmd_backend: expected spmd_types or partial_dtensor, found "
                                  "full_dtensor")
        _expect("training.disable_cuda_graphs", True, config.training.disable_cuda_graphs, "the width of soft labels varies")
        super().__init__(config)
        for name, part, kinds in (("dataloader", self.dataloader, (SaltDataLoader,)), ("loss", self.loss_fn, (SaltLoss, SaltChunkedLoss)),
                                  ("checkpoint", self.checkpointer, (SaltCheckpointManager,))):
            if not isinstance(part, kinds):
                raise SaltConfigError(f"saltfleet.torchtitan: {name}: expected {' or '.join(k.__name__ for k in kinds)}.Config, found "
                                      f"{type(part).__name__}.Config")
        plan = self.dataloader.dataset.plan
        batch = config.training.local_batch_size * self.dataloader.dataset.world_size * self.gradient_accumulation_steps
        _expect("training.global_batch_size", plan.batch, batch, "trainer.batch of fleet.yaml")
        _expect("training.steps", plan.steps, config.training.steps, "trainer.steps of fleet.yaml")

    def post_dataloading_process(self, input_dict: dict[str, Any], labels: torch.Tensor) -> Any:
        batch = input_dict.pop(_BATCH)
        self.loss_fn.batch = batch.to(self.device)
        return super().post_dataloading_process(input_dict, labels)

    def close(self) -> None:
        super().close()
        if isinstance(getattr(self, "dataloader", None), SaltDataLoader):
            try:
                self.dataloader.dataset.flush(5)
            except SaltTimeout as e:        # in phase two selectord may be gone
                _log.warning("at the end: %s", e)
            self.dataloader.dataset.close()


__all__ = ["SaltCheckpointManager", "SaltChunkedLoss", "SaltDataLoader", "SaltLoss", "SaltTrainer"]
