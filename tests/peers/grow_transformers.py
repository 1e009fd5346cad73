# SPDX-License-Identifier: Apache-2.0
"""Models grown by saltctl, in transformers: the same logits as the small model, which transformers made.

    tests/peers/run.sh tests/peers/grow_transformers.py --bin build/dev/bin

Each small model below has random weights, norms and biases off their initial constants; its logits are several units large. For each
growth the logits of both must agree within 1e-4 in fp32. --depth stack must give other logits, and as many layers.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.utils import logging

BOUND = 1e-4
LLAMA = {"vocab_size": 211, "hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 0}
GPT2 = {"vocab_size": 211, "n_positions": 64, "n_embd": 40, "n_layer": 2, "n_head": 4, "n_inner": 56, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
        "attn_pdrop": 0.0, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 0}
DOUBLE = ["--width", "80", "--layers", "4", "--noise", "1"]

# name: configuration, growths
MODELS = {
    "gpt2": (GPT2Config(**GPT2), [DOUBLE, ["--width", "120"], ["--width", "60", "--noise", "1"], ["--layers", "3", "--ff", "57"]]),
    "gpt2 untied": (GPT2Config(**GPT2, tie_word_embeddings=False), [DOUBLE]),
    "llama tied": (LlamaConfig(**LLAMA, tie_word_embeddings=True), [DOUBLE, ["--width", "120", "--noise", "1"], ["--width", "100", "--noise", "1"],
                                                                    ["--layers", "5"]]),
    "llama untied": (LlamaConfig(**LLAMA, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
                     [DOUBLE, ["--heads", "8", "--kv-heads", "2"], ["--heads", "10", "--kv-heads", "5", "--noise", "1"]]),
    "qwen2": (Qwen2Config(**LLAMA, tie_word_embeddings=True), [DOUBLE, ["--width", "80", "--heads", "6", "--ff", "100"]]),
    "qwen3": (Qwen3Config(**LLAMA, head_dim=16, tie_word_embeddings=False), [DOUBLE]),
    "gpt_neox": (GPTNeoXConfig(**{**LLAMA, "num_key_value_heads": 4}, rotary_pct=0.4), [DOUBLE, ["--width", "50"]]),
}


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def grow(args, folder, out, options):
    text = subprocess.run([args.bin / "saltctl", "model", "grow", folder, out, "--json", *options], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(text.stdout)


def compare(args, name, folder):
    config, growths = MODELS[name]
    torch.manual_seed(11)
    small = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for p in small.parameters():
            if p.dim() == 1:
                p += 0.2 * torch.randn(p.shape)
    small.save_pretrained(folder / "small")
    tokens = torch.randint(0, config.vocab_size, (3, 50), generator=torch.Generator().manual_seed(5))
    good = True
    with torch.no_grad():
        want = small(tokens, use_cache=False).logits
        for i, options in enumerate(growths):
            said = grow(args, folder / "small", folder / f"grown{i}", options)
            grown = load(folder / f"grown{i}")
            apart = float((grown(tokens, use_cache=False).logits - want).abs().max())
            # Counted by transformers, which has a tied output layer once too.
            fine = apart <= BOUND and said["function_preserved"] and said["parameters"] == grown.num_parameters() > small.num_parameters()
            good = good and fine
            print(f"{name} {' '.join(options)}: {'ok' if fine else 'FAILED'}: logits up to {float(want.abs().max()):.3g} differ by {apart:.2g}",
                  flush=True)
        stacked = grow(args, folder / "small", folder / "stacked", ["--depth", "stack", "--layers", "4"])
        model = load(folder / "stacked")
        apart = float((model(tokens, use_cache=False).logits - want).abs().max())
        layers = [{k.split(f".{i}.", 1)[1]: v for k, v in model.state_dict().items() if f".{i}." in k} for i in range(4)]
        same = all(torch.equal(layers[i][k], layers[i + 2][k]) for i in range(2) for k in layers[i])
    fine = apart > 0.1 and same and not stacked["function_preserved"] and len(layers[0]) > 5
    print(f"{name} --depth stack: {'ok' if fine else 'FAILED'}: logits differ by {apart:.2g}", flush=True)
    return good and fine


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    args = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    good = True
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            good = compare(args, name, pathlib.Path(folder)) and good
    return 0 if good else 1


sys.exit(main())
