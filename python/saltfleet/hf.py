# SPDX-License-Identifier: Apache-2.0
"""SaltTrainer: a transformers Trainer whose rows, labels and loss are those of fleet.yaml.

    args = TrainingArguments("out", per_device_train_batch_size=8, gradient_accumulation_steps=4, ...)
    trainer = SaltTrainer(model, args, config="fleet.yaml")
    trainer.train()                                         # or resume_from_checkpoint=True

One step of the Trainer is one step of the plan: per_device_train_batch_size * gradient_accumulation_steps *
processes is trainer.batch. A checkpoint is written at the switch, and then the teachers are released.
Optimizer, schedule and clipping are the Trainer's own.
"""
from __future__ import annotations

import logging
import math
import os
import pathlib
import re
import time
from typing import Any, Sequence

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .corpus import Corpus
from .dataset import Batch, SaltDataset
from .errors import SaltConfigError, SaltTimeout
from .loss import NO_TARGET, salt_loss

_log = logging.getLogger("saltfleet")
# Key in the Trainer's log history, from which a resumed run reads a switch that the margin decided.
SWITCH = "salt_switch_step"
FLUSH_S = 20.0


class SaltCallback(TrainerCallback):
    """Reports checkpoints and the switch to selectord. on_checkpoint and on_switch may be overridden; call
    the inherited ones."""

    def __init__(self, trainer: SaltTrainer):
        self.trainer, self.ds = trainer, trainer.salt

    def on_checkpoint(self, step: int, oldest: int) -> None:
        """The checkpoint of `step` is on disk; `oldest` is the oldest one on disk. Called in one process."""
        self.ds.trainer().checkpointed(oldest)

    def on_switch(self, step: int) -> None:
        """The checkpoint of the switch, or a later one, is on disk: releases the teachers. Called in one process."""
        self.ds.release(step)

    # ---- of TrainerCallback ----

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        decided = [entry[SWITCH] for entry in state.log_history if SWITCH in entry]
        if decided and self.ds.plan.switch_step is None:
            self.ds.switch(int(decided[-1]))
        self.ds.set_step(state.global_step)
        if state.global_step > 0:       # the last process may have ended between checkpoint and report
            self._say(args, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        state.epoch = state.global_step / self.ds.plan.steps
        if state.global_step == self.ds.plan.switch_step:
            control.should_save = True

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any) -> None:
        plan = self.ds.plan
        if plan.switch_step is not None or plan.margin_nats is None or "eval_loss" not in (metrics or {}):
            return
        teacher = self.trainer.teacher_nats()
        if metrics["eval_loss"] > teacher + plan.margin_nats:       # type: ignore[index]
            return
        switch = state.global_step + plan.handover_steps
        self.ds.switch(switch)
        state.log_history.append({SWITCH: switch, "step": state.global_step})
        control.should_save |= switch == state.global_step

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()
        self._say(args, state)

    def _say(self, args: Any, state: Any) -> None:
        folders = {int(m[1]): p for p in pathlib.Path(args.output_dir).glob("*") if (m := re.fullmatch(PREFIX_CHECKPOINT_DIR + r"-(\d+)", p.name))}
        if not state.is_world_process_zero or state.global_step not in folders:
            return
        _sync(folders[state.global_step])
        self.on_checkpoint(state.global_step, min(folders))
        switch = self.ds.plan.switch_step
        if switch is not None and switch <= state.global_step:
            self.on_switch(switch)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        try:
            self.ds.flush(FLUSH_S)
        except SaltTimeout as e:        # the run is complete, but selectord has not acknowledged it
            _log.warning("SaltTrainer: %s", e)


class SaltTrainer(Trainer):
    """A transformers Trainer with SaltDataset and salt_loss.

    config          path of fleet.yaml; overrides: texts "section.key=value"
    train_dataset   instead of config: a SaltDataset of this process's rank and of gradient_accumulation_steps
                    micro-batches
    callback        a class derived from SaltCallback
    others          as of Trainer; eval_dataset None: the fleet's held-out corpus

    args.max_steps -1 becomes trainer.steps, and args.ignore_data_skip becomes True: a resumed run goes to its
    step without reading the rows before it. Labels are not shifted again, the rows keep all of their members
    (remove_unused_columns has no effect), and the loss is the mean over the positions of a step that have a
    target, whatever gradient_accumulation_steps and the number of processes are. Raises SaltConfigError if
    args and plan disagree.
    """

    loss_is_scaled_for_ga = False       # compute_loss returns the mean of a micro-batch; the Trainer divides by their number

    def __init__(self, model: Any = None, args: TrainingArguments | None = None, *, config: str | os.PathLike[str] | None = None,
                 overrides: Sequence[str] = (), train_dataset: SaltDataset | None = None, callback: type[SaltCallback] = SaltCallback,
                 **kwargs: Any):
        args = args if args is not None else TrainingArguments("tmp_trainer")
        if (config is None) == (train_dataset is None):
            raise SaltConfigError(f"SaltTrainer: expected config or train_dataset, found {'neither' if config is None else 'both'}")
        if args.dataloader_num_workers > 0:
            raise SaltConfigError(f"SaltTrainer: dataloader_num_workers: expected 0, found {args.dataloader_num_workers}: SaltDataset fetches "
                                  "in threads of its own")
        if args.label_smoothing_factor or kwargs.get("compute_loss_func") is not None:
            raise SaltConfigError(f"SaltTrainer: expected label_smoothing_factor 0 and no compute_loss_func, since the loss is that of fleet.yaml, "
                                  f"found {args.label_smoothing_factor} and {kwargs.get('compute_loss_func')}")
        args.device                                     # sets up torch.distributed; before that, world_size is 1
        parts = args.gradient_accumulation_steps
        if train_dataset is None:
            assert config is not None
            vocab = model.get_output_embeddings().weight.shape[0] if hasattr(model, "get_output_embeddings") else None
            train_dataset = SaltDataset(config, args.process_index, args.world_size, overrides=overrides, micro_batches=parts,
                                        vocab_size=vocab)
        self.salt, plan = train_dataset, train_dataset.plan
        found = (train_dataset.rank, train_dataset.world_size, train_dataset.micro_batches)
        if found != (args.process_index, args.world_size, parts):
            raise SaltConfigError(f"SaltTrainer: train_dataset: expected rank {args.process_index}, world_size {args.world_size}, micro_batches "
                                  f"{parts} (gradient_accumulation_steps), found rank {found[0]}, world_size {found[1]}, micro_batches {found[2]}")
        rows = args.per_device_train_batch_size * parts * args.world_size
        if rows != plan.batch:
            raise SaltConfigError(f"SaltTrainer: expected trainer.batch {plan.batch} = per_device_train_batch_size * gradient_accumulation_steps "
                                  f"* processes, found {args.per_device_train_batch_size} * {parts} * {args.world_size} = {rows}")
        if args.max_steps > plan.steps:
            raise SaltConfigError(f"SaltTrainer: max_steps: expected at most trainer.steps {plan.steps}, found {args.max_steps}")
        if args.max_steps < 0:
            args.max_steps = plan.steps
        args.ignore_data_skip = True
        if kwargs.get("eval_dataset") is None and plan.corpus_heldout:
            kwargs["eval_dataset"] = train_dataset      # stands for its held-out corpus, see evaluate()
        super().__init__(model, args, train_dataset=train_dataset, **kwargs)
        self.model_accepts_loss_kwargs = False
        self._targets: Any = None       # with corpus.isolate_documents, see get_batch_samples
        self.add_callback(callback(self))

    def get_train_dataloader(self) -> Any:
        """Not prepared by accelerate, which would distribute the rows once more."""
        return _Loader(self.salt, batch_size=None, collate_fn=Batch.as_dict)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, *args: Any) -> Any:
        """With corpus.isolate_documents the micro-batches of a step differ in their number of targets. The mean of these
        numbers, over micro-batches and processes, is what compute_loss divides by: the Trainer then takes the mean over
        both."""
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, *args)
        if self.salt.plan.isolate_documents and samples:
            found = torch.stack([(s["labels"] != NO_TARGET).sum() for s in samples]).double().mean()
            self._targets = self.accelerator.reduce(found.float().to(self.args.device), "mean")
        return samples, items

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        batch = Batch.from_dict(inputs)
        outputs = model(input_ids=batch.input_ids, use_cache=False, **batch.forward_kwargs(self.model.dtype))
        by_step = self._targets is not None and model.training      # an evaluation of another dataset has its own targets
        # A GradScaler skips steps that are not finite; without one they end the run.
        loss = salt_loss(outputs.logits.float() if self.args.fp16 else outputs.logits, batch, "sum" if by_step else "mean",
                         check_finite=not self.args.fp16)
        if by_step:
            loss = loss / self._targets
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Mean loss and accuracy of the next token on the first trainer.eval_sequences held-out sequences;
        with eval_dataset as Trainer.evaluate."""
        if (self.eval_dataset if eval_dataset is None else eval_dataset) is not self.salt:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        model = self.model_wrapped if self.is_in_train else self.accelerator.prepare_model(self.model, evaluation_mode=True)
        training = model.training
        model.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        with torch.no_grad():
            for batch, counts in self._heldout():
                batch = batch.to(self.args.device)
                logits = model(input_ids=batch.input_ids, use_cache=False, **batch.forward_kwargs(self.model.dtype)).logits
                loss = salt_loss(logits.float(), batch, reduction="none", check_finite=False)
                rows = torch.stack([loss, (logits.argmax(-1) == batch.labels).to(loss.dtype), (batch.labels >= 0).to(loss.dtype)])
                sums += counts * rows.double().sum((1, 2)).cpu()
        model.train(training)
        sums = self.accelerator.reduce(sums.float().to(self.args.device), "sum").double()
        metrics = {f"{metric_key_prefix}_loss": (sums[0] / sums[2]).item(), f"{metric_key_prefix}_accuracy": (sums[1] / sums[2]).item()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _heldout(self) -> Any:
        """Yields (batch, 1), the same number in every process, as FSDP needs it: a process without further
        batches repeats its last one as (batch, 0)."""
        size, world, plan = self.args.per_device_eval_batch_size, self.args.world_size, self.salt.plan
        batch, made = None, 0
        for made, batch in enumerate(self.salt.heldout(size), 1):
            yield batch, 1
        total = Corpus(plan.corpus_heldout, plan.corpus_dtype or None).n_windows(plan.context)
        most = math.ceil(min(total, plan.eval_sequences or total) / (world * size))
        if batch is None:
            raise SaltConfigError(f"SaltTrainer.evaluate: expected at least {world} held-out sequences, one for each process, found fewer")
        for _ in range(made, most):
            yield batch, 0

    def teacher_nats(self) -> float:
        """The teacher's held-out loss, the same in every process. Waits until selectord has sent it."""
        value, said = torch.zeros(1), time.monotonic()
        while self.args.process_index == 0:
            nats = self.salt.view().teacher_nats
            if nats is not None:
                value[0] = nats
                break
            if time.monotonic() - said > 30:
                said = time.monotonic()
                _log.warning("SaltTrainer: waiting for the teacher's held-out loss: %s", self.salt.view().waiting)
            time.sleep(0.2)
        return float(self.accelerator.reduce(value.to(self.args.device), "sum"))


class _Loader(DataLoader):
    """Its length is that of the whole run, because the Trainer reads it before it goes to the checkpoint's
    step."""

    def __len__(self) -> int:
        return self.dataset.plan.steps * self.dataset.micro_batches     # type: ignore[attr-defined]


def _sync(folder: pathlib.Path) -> None:
    """Syncs a checkpoint to disk: one that is reported to selectord must survive a crash of this host."""
    for path in [*(p for p in folder.rglob("*") if p.is_file()), folder, folder.parent]:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


__all__ = ["SaltCallback", "SaltTrainer"]
