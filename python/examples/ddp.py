# SPDX-License-Identifier: Apache-2.0
"""loop.py over several processes: DistributedDataParallel, or with --fsdp FullyShardedDataParallel (FSDP2).

    torchrun --nproc-per-node 2 ddp.py [--fsdp] fleet.yaml STUDENT OUT

Every process has its share of each step's rows. The loss is the mean over them, so that the mean over the
processes is the step's. Without a GPU it runs on gloo. OUT/step_N.pt holds the model, the optimizer and the
step; a run that is started again continues from the newest one.
"""
import argparse
import os
import pathlib

import torch
import torch.distributed as dist
import transformers
from saltfleet import SaltDataset, salt_loss
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

parser = argparse.ArgumentParser()
parser.add_argument("--fsdp", action="store_true")
parser.add_argument("config")
parser.add_argument("student")
parser.add_argument("out", type=pathlib.Path)
args = parser.parse_args()

cuda = torch.cuda.is_available()
dist.init_process_group("nccl" if cuda else "gloo")
rank, world = dist.get_rank(), dist.get_world_size()
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
if cuda:
    torch.cuda.set_device(device)

plain = transformers.AutoModelForCausalLM.from_pretrained(args.student, dtype=torch.float32).to(device).train()
ds = SaltDataset(args.config, rank, world, vocab_size=plain.config.vocab_size, device=device if cuda else None)
if args.fsdp:
    mesh = dist.init_device_mesh(device.type, (world,))
    for layer in plain.base_model.h if hasattr(plain.base_model, "h") else plain.base_model.layers:
        fully_shard(layer, mesh=mesh)
    model = fully_shard(plain, mesh=mesh)
else:
    model = DistributedDataParallel(plain)
groups = [{"params": [p for p in model.parameters() if (p.ndim == 2) == big], "weight_decay": 0.1 * big} for big in (True, False)]
optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))

whole = StateDictOptions(full_state_dict=True, cpu_offload=True, broadcast_from_rank0=args.fsdp)
saved = sorted(args.out.glob("step_*.pt"))
if saved:
    state = torch.load(saved[-1], weights_only=True)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=whole)
    ds.load_state_dict(state["data"])

for batch in ds:
    logits = model(batch.input_ids, use_cache=False, **batch.forward_kwargs()).logits     # {} unless corpus.isolate_documents
    targets = (batch.labels >= 0).sum()         # differs between the processes with corpus.isolate_documents
    dist.all_reduce(targets)
    # The mean over the whole step: gradients are averaged over the processes.
    loss = salt_loss(logits, batch, "sum") * world / targets
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    mean, seqs = loss.detach().clone(), [None] * world
    dist.all_reduce(mean, dist.ReduceOp.SUM)
    dist.all_gather_object(seqs, batch.seqs.tolist())
    if rank == 0:
        print(batch.step, mean.item() / world, *sum(seqs, []), flush=True)
    done = batch.step + 1
    if done in (ds.plan.switch_step, ds.plan.steps) or (ds.plan.checkpoint_every and done % ds.plan.checkpoint_every == 0):
        weights, moments = get_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if rank == 0:
            args.out.mkdir(parents=True, exist_ok=True)
            torch.save({"model": weights, "optimizer": moments, "data": ds.state_dict()}, args.out / "new")
            os.replace(args.out / "new", args.out / f"step_{done:08}.pt")
            ds.checkpointed(done)       # at the switch this also releases the teachers
        dist.barrier()
if rank == 0:
    ds.flush()
dist.destroy_process_group()
