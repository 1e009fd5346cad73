# SPDX-License-Identifier: Apache-2.0
"""The shortest loop: a run of fleet.yaml with a transformers model. The losses are trainerd's with the same options.

    python loop.py fleet.yaml STUDENT OUT           STUDENT: a model directory; OUT: where checkpoints go
"""
import math
import sys

import torch
import transformers
from saltfleet import SaltDataset, salt_loss

config, student, out = sys.argv[1:]
peak, warmup, decay = 1e-3, 2, 0.1

model = transformers.AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32).train()
ds = SaltDataset(config, vocab_size=model.config.vocab_size)
groups = [{"params": [p for p in model.parameters() if (p.ndim == 2) == big], "weight_decay": decay if big else 0.0} for big in (True, False)]
optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95))
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / warmup if step < warmup else
                                             0.55 + 0.45 * math.cos(math.pi * (step - warmup) / (ds.plan.steps - warmup)))
for batch in ds:
    loss = salt_loss(model(batch.input_ids, **batch.forward_kwargs()).logits, batch)      # {} unless corpus.isolate_documents
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    print(batch.step, batch.phase, loss.item(), flush=True)
    if batch.step + 1 in (ds.plan.switch_step, ds.plan.steps):
        model.save_pretrained(f"{out}/step_{batch.step + 1:08}")
        ds.checkpointed(batch.step + 1)         # at the switch this also releases the teachers
ds.flush()
