# SPDX-License-Identifier: Apache-2.0
"""titan_cpu.py FLEET FOLDER [chunked]: torchtitan with saltfleet.torchtitan, a Llama of one layer, on processors.

torchtitan 0.3 has no CPU device. What is replaced here, all of it outside of saltfleet: the name of the device; six functions that torch.cpu
lacks (name, capacity and statistics of memory; an index as current device); attention that runs without a compiler; and the sums of FSDP, since
gloo cannot scale while it adds. The trainer, FSDP, optimizer, schedule and checkpoints are torchtitan's.
"""
import os
import sys
import types
from dataclasses import dataclass

import torch
import torch._utils

import saltfleet

for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
    os.environ.setdefault(name, value)
torch._utils._get_available_device_type = lambda: "cpu"
torch.cpu.get_device_name = lambda device=None: "cpu"
torch.cpu.get_device_properties = lambda device=None: types.SimpleNamespace(total_memory=1 << 30)
torch.cpu.current_device = lambda: 0
torch.cpu.memory_stats = lambda device=None: {}
torch.cpu.reset_peak_memory_stats = torch.cpu.empty_cache = lambda: None

from torch.distributed.fsdp import FSDPModule  # noqa: E402
from torchtitan.components.metrics import MetricsProcessor  # noqa: E402
from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw  # noqa: E402
from torchtitan.components.tokenizer import BaseTokenizer  # noqa: E402
from torchtitan.config import TrainingConfig  # noqa: E402
from torchtitan.config.configs import DebugConfig  # noqa: E402
from torchtitan.models import llama3  # noqa: E402
from torchtitan.models.common.attention import ScaledDotProductAttention  # noqa: E402
from torchtitan.protocols.model_spec import ModelSpec  # noqa: E402

from saltfleet.torchtitan import SaltCheckpointManager, SaltChunkedLoss, SaltDataLoader, SaltLoss, SaltTrainer  # noqa: E402


class NoTokenizer(BaseTokenizer):
    """Rows are tokens already."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        pass

    def __init__(self, config, **_):
        super().__init__()

    encode = decode = get_vocab_size = None


def model(vocab, context, dim=32, heads=2):
    layers = llama3._build_llama3_layers(
        n_layers=1, dim=dim, n_heads=heads, hidden_dim=64, attn_backend="flex",
        rope=llama3.ComplexRoPE.Config(dim=dim // heads, max_seq_len=context, theta=10000, scaling="none"))
    for layer in layers:
        layer.attention.inner_attention = ScaledDotProductAttention.Config()
    return llama3.Llama3Model.Config(
        dim=dim, vocab_size=vocab, layers=layers,
        tok_embeddings=llama3.Embedding.Config(num_embeddings=vocab, embedding_dim=dim, param_init=llama3._EMBEDDING_INIT),
        norm=llama3.RMSNorm.Config(normalized_shape=dim, param_init=llama3._NORM_INIT),
        lm_head=llama3.Linear.Config(in_features=dim, out_features=vocab, param_init=llama3._output_linear_init(dim)))


def parallelize(module, **options):
    module = llama3.parallelize_llama(module, **options)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_force_sum_reduction_for_comms(True)
    return module


def main(fleet, folder, *words):
    with saltfleet.Client(fleet) as client:
        plan = client.plan
    config = SaltTrainer.Config(
        model_spec=ModelSpec(name="llama3", flavor="tiny", model=model(plan.vocab, plan.context), parallelize_fn=parallelize, pipelining_fn=None,
                             post_optimizer_build_fn=None, state_dict_adapter=None),
        dump_folder=folder, tokenizer=NoTokenizer.Config(),
        dataloader=SaltDataLoader.Config(fleet=fleet),
        loss=SaltChunkedLoss.Config(num_chunks=4) if "chunked" in words else SaltLoss.Config(),
        checkpoint=SaltCheckpointManager.Config(enable=True, interval=plan.checkpoint_every, keep_latest_k=2, last_save_model_only=False,
                                                async_mode="async" if "async" in words else "disabled"),
        training=TrainingConfig(local_batch_size=2, global_batch_size=plan.batch, seq_len=plan.context, steps=plan.steps,
                                disable_cuda_graphs=True, mixed_precision_param="float32"),
        optimizer=default_adamw(lr=3e-3), lr_scheduler=LRSchedulersContainer.Config(warmup_steps=2), metrics=MetricsProcessor.Config(log_freq=1),
        activation_checkpoint=None, debug=DebugConfig(seed=1))
    trainer = config.build()
    trainer.train()
    trainer.close()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
