# SPDX-License-Identifier: Apache-2.0
"""PyTorch's tokens per second at the shapes of bench_model.c: lines "NAME VALUE" for its --peer.

    tests/peers/run.sh bench/model/bench_model.py [--threads N] [--seconds S] > peer.txt

transformers' models, fp32, scaled-dot-product attention, no compilation. train: forward, cross-entropy, backward; teach: forward
without gradients, next token's loss and rank, 50 draws of torch.multinomial a row.
"""
import argparse
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig


def gpt2(v, ctx, c, layers, heads):
    return GPT2Config(vocab_size=v, n_positions=ctx, n_embd=c, n_layer=layers, n_head=heads, resid_pdrop=0.0, embd_pdrop=0.0,
                      attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)


SHAPES = {
    "gpt2_2x96_v4096": (16, 128, gpt2(4096, 128, 96, 2, 4)),
    "gpt2_4x160_v4096": (16, 128, gpt2(4096, 128, 160, 4, 5)),
    "gpt2_124m": (4, 64, gpt2(50257, 1024, 768, 12, 12)),
    "smollm2_135m": (4, 64, LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                                        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
                                        tie_word_embeddings=True)),
}


def train(model, x, y):
    torch.nn.functional.cross_entropy(model(x, use_cache=False).logits.flatten(0, 1), y).backward()


@torch.no_grad()
def teach(model, x, y):
    z = model(x, use_cache=False).logits.flatten(0, 1)
    target = z.gather(1, y[:, None])
    rank = (z > target).sum(1)
    return torch.logsumexp(z, 1) - target[:, 0], rank, torch.multinomial(torch.softmax(z, 1), 50, replacement=True)


def measure(once, seconds):
    once()
    runs, end = [], time.monotonic() + seconds
    while len(runs) < 3 or (len(runs) < 200 and time.monotonic() < end):
        start = time.monotonic()
        once()
        runs.append(time.monotonic() - start)
    return statistics.median(runs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name, (b, t, config) in SHAPES.items():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()
        x = torch.randint(0, config.vocab_size, (b, t))
        y = torch.randint(0, config.vocab_size, (b * t,))
        for what, once in (("train", train), ("teach", teach)):
            print(f"{name}_{what}", round(b * t / measure(lambda: once(model, x, y), args.seconds), 1), flush=True)


if __name__ == "__main__":
    main()
