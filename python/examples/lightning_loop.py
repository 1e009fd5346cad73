# SPDX-License-Identifier: Apache-2.0
"""A Lightning run with the rows and labels of a fleet. Starting it again continues from the newest
checkpoint:

    python lightning_loop.py fleet.yaml MODEL_DIR OUT_DIR

MODEL_DIR has the config.json of a transformers causal LM, which gets random weights; checkpoints go to
OUT_DIR.
"""
import contextlib
import sys
from pathlib import Path

import lightning as L
import torch
from torchdata.stateful_dataloader import StatefulDataLoader
from transformers import AutoConfig, AutoModelForCausalLM

import saltfleet


class Student(L.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, _):
        logits = self.model(batch.input_ids, **batch.forward_kwargs()).logits      # {} unless corpus.isolate_documents
        loss = saltfleet.salt_loss(logits, batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


class Batches(StatefulDataLoader):
    def __len__(self):
        # Lightning needs the number of batches of the run; a SaltDataset counts those that are left
        return self.dataset.plan.steps


class Checkpoints(L.Callback):
    """Writes a checkpoint every `checkpoint_every` steps of fleet.yaml, at the switch and at the end, and tells selectord."""

    def __init__(self, dataset, folder, keep=2):
        self.dataset, self.folder, self.keep = dataset, Path(folder), keep

    def steps(self):
        return sorted(int(f.stem.split("-")[1]) for f in self.folder.glob("step-*.ckpt"))

    def path(self, step):
        return self.folder / f"step-{step:08d}.ckpt"

    def tell(self):
        """Rows from the oldest checkpoint on may be requested again. A checkpoint of the switch or later
        releases the teachers."""
        steps, switch = self.steps(), self.dataset.plan.switch_step
        if steps:
            self.dataset.checkpointed(steps[0])
            if switch is not None and steps[-1] >= switch > 0:
                self.dataset.release()

    def on_train_start(self, trainer, *_):
        if trainer.is_global_zero:
            self.tell()             # the last process may have ended between a checkpoint and its report

    def on_train_batch_end(self, trainer, *_):
        plan, step = self.dataset.plan, trainer.global_step
        if step in (plan.switch_step, plan.steps) or (plan.checkpoint_every and step % plan.checkpoint_every == 0):
            trainer.save_checkpoint(self.path(step).with_suffix(".part"))
            if trainer.is_global_zero:
                # a file with the final name is complete
                self.path(step).with_suffix(".part").rename(self.path(step))
                for old in self.steps()[:-self.keep]:
                    self.path(old).unlink()
                self.tell()


def main(fleet, model_dir, out):
    L.seed_everything(1)
    trainer = L.Trainer(max_steps=-1, max_epochs=1, default_root_dir=out, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                        enable_model_summary=False)
    dataset = saltfleet.SaltDataset(fleet, rank=trainer.global_rank, world_size=trainer.world_size)
    checkpoints = Checkpoints(dataset, out)
    trainer.callbacks.append(checkpoints)
    student = Student(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_dir)))
    newest = checkpoints.steps()[-1:]
    trainer.fit(student, Batches(dataset, batch_size=None), ckpt_path=checkpoints.path(*newest) if newest else None)
    with contextlib.suppress(saltfleet.SaltTimeout):        # in phase two selectord may be gone
        dataset.flush(5)
    dataset.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
