# SPDX-License-Identifier: Apache-2.0
"""A run of fleet.yaml with the transformers Trainer. Started again, it continues from the newest checkpoint.

    python hf_trainer.py fleet.yaml STUDENT OUT

STUDENT is the config.json of a model, and OUT the folder of checkpoints.

The product of per_device_train_batch_size, gradient_accumulation_steps and the number of processes (torchrun)
is trainer.batch, here 8.
"""
import os
import sys

import torch
from saltfleet.hf import SaltTrainer
from transformers import AutoConfig, AutoModelForCausalLM, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

config, student, out = sys.argv[1:]
rows = 8 // int(os.environ.get("WORLD_SIZE", "1"))
set_seed(1)
model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(student), dtype=torch.float32)
args = TrainingArguments(out, per_device_train_batch_size=rows // 2, gradient_accumulation_steps=2, learning_rate=1e-3, adam_beta2=0.95,
                         weight_decay=0.1, lr_scheduler_type="cosine", warmup_steps=2, logging_steps=1, eval_strategy="steps", eval_steps=6,
                         save_strategy="steps", save_steps=3, save_total_limit=2, report_to="none", disable_tqdm=True,
                         use_cpu=not torch.cuda.is_available())
SaltTrainer(model, args, config=config).train(resume_from_checkpoint=get_last_checkpoint(out) if os.path.isdir(out) else None)
