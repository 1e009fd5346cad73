# SPDX-License-Identifier: Apache-2.0
"""litgpt's own `pretrain` with the rows and labels of a fleet:

    python litgpt_pretrain.py fleet.yaml pythia-160m --out_dir out --resume auto --train.micro_batch_size 4 \\
        --train.save_interval 1000

After fleet.yaml come the arguments of `litgpt pretrain`. Batch, context and number of tokens are those of
fleet.yaml. litgpt's pretrain has no option for a loss, so this program replaces two functions that pretrain
calls: the loss and save_checkpoint.
"""
import contextlib
import sys
from pathlib import Path

import torch
from litgpt import pretrain
from litgpt.data import DataModule
from litgpt.utils import CLI
from torch.utils.data import DataLoader, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import saltfleet

hard_loss, write_checkpoint = pretrain.chunked_cross_entropy, pretrain.save_checkpoint
dataset = None      # the SaltDataset of this process
batch = None        # the Batch whose tokens litgpt processes


class Tokens(IterableDataset):
    """litgpt takes [B, L + 1] tokens and makes inputs and targets itself. The state is that of the
    dataset."""

    def __iter__(self):
        global batch
        for batch in dataset:
            yield torch.cat([batch.input_ids, batch.labels[:, -1:]], dim=1)

    def state_dict(self):
        return dataset.state_dict()

    def load_state_dict(self, state):
        dataset.load_state_dict(state)
        release(state["step"])      # the last process may have ended between this checkpoint and its report


class Heldout(IterableDataset):
    def __iter__(self):
        for b in dataset.heldout(batch_size=4):
            yield torch.cat([b.input_ids, b.labels[:, -1:]], dim=1)


class SaltData(DataModule):
    def __init__(self, fleet: str):
        super().__init__()
        self.fleet = fleet

    def connect(self, tokenizer=None, batch_size=1, max_seq_length=None, **_):
        global dataset
        place = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if torch.distributed.is_initialized() else (0, 1)
        dataset = saltfleet.SaltDataset(self.fleet, *place)
        if dataset.plan.context != max_seq_length or dataset.rows_per_step % batch_size:
            raise SystemExit(f"expected a context of {dataset.plan.context} and a micro-batch that divides {dataset.rows_per_step}, "
                             f"found {max_seq_length} and {batch_size}: set --train.max_seq_length and --train.micro_batch_size")
        if dataset.plan.isolate_documents:
            raise SystemExit(f"{self.fleet}: corpus.isolate_documents: expected false, found true: litgpt's models take no document mask")
        dataset.micro_batches = dataset.rows_per_step // batch_size

    def train_dataloader(self):
        return StatefulDataLoader(Tokens(), batch_size=None)

    def val_dataloader(self):
        return DataLoader(Heldout(), batch_size=None)


def loss(logits, targets, **options):
    if logits.is_meta or not torch.is_grad_enabled():       # litgpt counts operations, or evaluates
        return hard_loss(logits, targets, **options)
    return saltfleet.salt_loss(logits, batch.to(logits.device))


def release(step):
    """A checkpoint of the switch or later is on disk: no more labels are needed."""
    if 0 < (dataset.plan.switch_step or 0) <= step:
        dataset.release()


def save_checkpoint(fabric, state, tokenizer_dir, checkpoint_file):
    write_checkpoint(fabric, state, tokenizer_dir, checkpoint_file)
    if fabric.global_rank == 0:
        # Rows from the oldest checkpoint on may be requested again.
        steps = [int(f.parent.name.split("-")[1]) for f in checkpoint_file.parents[1].glob("step-*/*.pth")] or [state["step_count"]]
        dataset.checkpointed(min(steps))
        release(state["step_count"])


def main():
    fleet = sys.argv.pop(1)
    with saltfleet.Client(fleet) as client:
        plan = client.plan
    sys.argv += [f"--data={__name__}.SaltData", f"--data.fleet={Path(fleet).resolve()}", f"--train.max_seq_length={plan.context}",
                 f"--train.global_batch_size={plan.batch}", f"--train.max_tokens={plan.steps * plan.batch * plan.context}"]
    pretrain.chunked_cross_entropy, pretrain.save_checkpoint = loss, save_checkpoint
    CLI(pretrain.setup)
    with contextlib.suppress(saltfleet.SaltTimeout):        # in phase two selectord may be gone
        dataset.flush(5)
    dataset.close()


if __name__ == "__main__":
    main()
