# SPDX-License-Identifier: Apache-2.0
"""Our engine beside transformers, live: real shapes, through model directories, both ways.

    tests/peers/run.sh tests/peers/model_torch.py --program build/dev/bin/model_dump [--only NAME | --small] [--threads N]

Each model below is made by transformers with random weights and saved; model_dump loads it and its logits and gradients are
compared with PyTorch's. Then model_dump makes first values of its own, saves them, and transformers loads that directory and
must give the same logits. Prints a line per model with the largest differences; exit status 1 if one is over its bound.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.utils import logging

LOGITS, GRADS, LOSS = 1e-4, 1e-3, 1e-4


def gpt2(**changes):
    return GPT2Config(**{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, **changes})


def smollm2(**changes):
    return LlamaConfig(**{"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                          "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
                          "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "initializer_range": 0.041666666666666664,
                          "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
                          "bos_token_id": 0, "eos_token_id": 0, **changes})


LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}

# name: configuration, B, T, shard size of save_pretrained
MODELS = {
    "gpt2_124m": (lambda: gpt2(), 2, 64, None),
    "smollm2": (lambda: smollm2(num_hidden_layers=6), 2, 64, None),         # SmolLM2-135M in all but depth
    # Llama 3.2's frequencies at positions where they matter, untied, sharded
    "llama3_long": (lambda: smollm2(vocab_size=1031, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=8,
                                    num_key_value_heads=2, head_dim=64, max_position_embeddings=131072, tie_word_embeddings=False,
                                    rope_parameters=LLAMA3), 1, 1025, "2MB"),
    "llama_biases": (lambda: smollm2(vocab_size=513, hidden_size=120, intermediate_size=301, num_hidden_layers=3, num_attention_heads=5,
                                     num_key_value_heads=1, attention_bias=True, mlp_bias=True), 3, 127, None),
    "gpt2_untied": (lambda: gpt2(vocab_size=1003, n_positions=300, n_embd=100, n_layer=3, n_head=5, n_inner=211,
                                 tie_word_embeddings=False, bos_token_id=0, eos_token_id=0), 2, 299, None),
    # Qwen2.5-0.5B, Qwen3-0.6B and Pythia-160m in all but vocabulary and depth
    "qwen2": (lambda: Qwen2Config(vocab_size=1031, hidden_size=896, intermediate_size=4864, num_hidden_layers=2, num_attention_heads=14,
                                  num_key_value_heads=2, max_position_embeddings=32768, rms_norm_eps=1e-6, tie_word_embeddings=True,
                                  rope_parameters={"rope_type": "default", "rope_theta": 1e6}), 2, 130, None),
    "qwen3": (lambda: Qwen3Config(vocab_size=1031, hidden_size=1024, intermediate_size=3072, num_hidden_layers=2, num_attention_heads=16,
                                  num_key_value_heads=8, head_dim=128, max_position_embeddings=40960, rms_norm_eps=1e-6,
                                  tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e6}), 2, 130, None),
    "pythia": (lambda: GPTNeoXConfig(vocab_size=1031, hidden_size=768, intermediate_size=3072, num_hidden_layers=3,
                                     num_attention_heads=12, max_position_embeddings=2048), 2, 130, None),
    "neox_serial": (lambda: GPTNeoXConfig(vocab_size=513, hidden_size=120, intermediate_size=301, num_hidden_layers=3,
                                          num_attention_heads=5, max_position_embeddings=200, use_parallel_residual=False,
                                          attention_bias=False, tie_word_embeddings=True,
                                          rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.6}),
                    3, 127, None),
}
REAL_SIZES = ("gpt2_124m", "smollm2")
# Once more with isolated documents: transformers gets a block-diagonal mask, positions that restart, and no target after the end of a document.
DOCUMENTS = ("llama_biases", "gpt2_untied", "qwen3", "pythia")
END = 3


def make(config, seed):
    """Random weights in the shapes of a real model; norms and biases off their initial constants."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p += 0.1 * torch.randn(p.shape)
    return model


def dump(args, folder, tokens, out, *options):
    out.mkdir()
    (out / "tokens.i32").write_bytes(tokens.numpy().astype("<i4").tobytes())
    b, t = tokens.shape[0], tokens.shape[1] - 1
    text = subprocess.run([args.program, folder, out / "tokens.i32", str(b), str(t), out, "--threads", str(args.threads), *options],
                          stdout=subprocess.PIPE, check=True, text=True).stdout
    result = json.loads(text)
    result["logits"] = np.fromfile(out / "logits.f32", dtype="<f4")
    result["grads"] = np.memmap(out / "grads.f32", dtype="<f4", mode="r")
    return result


def logits_of(model, tokens, end=None):
    inputs, more = tokens[:, :-1], {}
    if end is not None:
        document = torch.cat([torch.zeros_like(inputs[:, :1]), (inputs[:, :-1] == end).cumsum(1)], 1)
        places = torch.arange(inputs.shape[1])
        seen = (document[:, :, None] == document[:, None, :]) & (places <= places[:, None])
        more = {"position_ids": (document[:, :, None] == document[:, None, :]).tril().sum(2) - 1,
                "attention_mask": torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]}
    return model(inputs, use_cache=False, **more).logits.flatten(0, 1)


def worst_grad(model, result):
    """Of every tensor the largest error over its largest gradient; the worst of these and its name. Every tensor is compared."""
    worst, names = (0.0, ""), dict(model.named_parameters())
    if model.config.model_type == "gpt_neox" and "lm_head.weight" in names:
        names["embed_out.weight"] = names.pop("lm_head.weight")  # as in its files
    if set(names) != set(result["tensors"]):
        raise SystemExit(f"tensors differ: {set(names) ^ set(result['tensors'])}")
    for name, p in names.items():
        begin = result["tensors"][name]
        got = result["grads"][begin:begin + p.numel()]
        want = p.grad.flatten().numpy()
        ratio = float(np.abs(got - want).max() / np.abs(want).max())
        worst = max(worst, (ratio if ratio == ratio else float("inf"), name))
    return worst


def compare(args, name, folder, end=None):
    build, b, t, shards = MODELS[name]
    config = build()
    model = make(config, 7)
    tokens = torch.randint(0, config.vocab_size, (b, t + 1), generator=torch.Generator().manual_seed(5))
    options = () if end is None else ("--document-end", str(end))
    if end is not None:         # about one in 20
        tokens[torch.rand(tokens.shape, generator=torch.Generator().manual_seed(6)) < 0.05] = end
    model.save_pretrained(folder / "theirs", **({"max_shard_size": shards} if shards else {}))
    started = time.monotonic()
    ours = dump(args, folder / "theirs", tokens, folder / "out", *options)
    seconds = time.monotonic() - started
    z, targets = logits_of(model, tokens, end), tokens[:, 1:].flatten()
    if end is not None:
        targets = targets.masked_fill(tokens[:, :-1].flatten() == end, -100)
    loss = torch.nn.functional.cross_entropy(z, targets)
    loss.backward()
    d_logits = float(np.abs(ours["logits"] - z.detach().flatten().numpy()).max())
    d_loss = abs(ours["loss"] - loss.item())
    d_grad, where = worst_grad(model, ours)

    (folder / "ours").mkdir()
    again = dump(args, folder / "theirs", tokens, folder / "out2", "--init", "3", "--save", folder / "ours", *options)
    back, info = AutoModelForCausalLM.from_pretrained(folder / "ours", dtype=torch.float32, attn_implementation="eager",
                                                      output_loading_info=True)
    complaints = {k: v for k, v in info.items() if v}
    with torch.no_grad():
        d_back = float(np.abs(again["logits"] - logits_of(back.eval(), tokens, end).flatten().numpy()).max())
    good = d_logits <= LOGITS and d_loss <= LOSS and d_grad <= GRADS and d_back <= LOGITS and not complaints
    name += "" if end is None else ", documents"
    print(f"{name}: {'ok' if good else 'FAILED'}: logits {d_logits:.2g}, loss {d_loss:.2g}, gradient {d_grad:.2g} ({where}), "
          f"ours loaded there: logits {d_back:.2g}{' ' + str(complaints) if complaints else ''}; {seconds:.1f} s", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--small", action="store_true", help="leave out the real sizes (for slow builds)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.disable_progress_bar()
    good = True
    for name in [args.only] if args.only else MODELS:
        if args.small and name in REAL_SIZES:
            continue
        with tempfile.TemporaryDirectory() as folder:
            good &= compare(args, name, pathlib.Path(folder))
        if name in DOCUMENTS:
            with tempfile.TemporaryDirectory() as folder:
                good &= compare(args, name, pathlib.Path(folder), END)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
