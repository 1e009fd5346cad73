# SPDX-License-Identifier: Apache-2.0
"""logged.py LOG SCRIPT ARGUMENT...: runs SCRIPT as a program, and writes one line of JSON to LOG for each call of salt_loss: step, phase,
the rows, and the loss. With HOLD=STEP in the environment the process stops for good in the first call of that step, after its line and one
of what selectord has acknowledged."""
import json
import os
import runpy
import sys
import time

import torch

import saltfleet
import saltfleet.loss

torch.set_num_threads(1)
salt_loss, opened = saltfleet.loss.salt_loss, []


class SaltDataset(saltfleet.SaltDataset):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        opened.append(self)


def logged(logits, batch, *args, **options):
    loss = salt_loss(logits, batch, *args, **options)
    if loss.dim():          # an evaluation
        return loss
    write(step=batch.step, phase=batch.phase, seqs=batch.seqs.tolist(), loss=loss.item())
    if str(batch.step) == os.environ.get("HOLD"):
        for ds in opened:
            ds.flush(60)
            write(checkpointed=ds.view().checkpointed, released=ds.view().released)
        time.sleep(600)
    return loss


def write(**line):
    with open(log, "a") as f:
        f.write(json.dumps(line) + "\n")       # at once: a reader sees whole lines


if __name__ == "__main__":
    log = sys.argv[1]
    sys.argv[:] = sys.argv[2:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    saltfleet.loss.salt_loss, saltfleet.dataset.SaltDataset = logged, SaltDataset
    runpy.run_path(sys.argv[0], run_name="__main__")
