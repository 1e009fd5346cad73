# SPDX-License-Identifier: Apache-2.0
"""PyTorch as a peer of the benches: one process that answers "how long does this take you" as often as it is asked.

    tests/peers/run.sh bench/peers/torch_peer.py [--threads N] [--device cpu|cuda] [--variants eager,compiled,layers] [--cpu-time]

Reads lines "WORK DTYPE SIZES...", answers "SECONDS VARIANT". The first question about a work warms up every variant (eager; torch.compile,
whole or a layer at a time; bf16 under autocast) and keeps the fastest; "- none" instead says that none works. bench/compare.sh starts one
process a variant, so that all of them take part in the comparison to its end.

    train FAMILY layers width heads kv_heads ff vocab batch tokens [micro_batch]   one whole step: forward, loss, backward, clip, fused AdamW
    muon FAMILY ...                                                                as train, torch.optim.Muon for the matrices of the layers
    teach FAMILY ...                                                               no gradients: forward, softmax, 50 draws a token
    forward FAMILY ...                                                             no gradients: logits only

micro_batch counts on a GPU only, where the whole batch may not fit: gradients of as many sequences are added up. On a CPU the batch is one.
transformers' models, scaled_dot_product_attention, random weights and tokens; fp32 masters, bf16 by autocast.
"""
import argparse
import contextlib
import gc
import os
import sys
import time

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig


clock = time.monotonic                           # or processor seconds of the process: --cpu-time
device = "cpu"                                   # --device


def config_of(family, layers, width, heads, kv_heads, ff, vocab, tokens):
    if family == "gpt2":
        return GPT2Config(vocab_size=vocab, n_positions=max(tokens, 1024), n_embd=width, n_layer=layers, n_head=heads, n_inner=ff,
                          resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    return LlamaConfig(vocab_size=vocab, hidden_size=width, intermediate_size=ff, num_hidden_layers=layers, num_attention_heads=heads,
                       num_key_value_heads=kv_heads, max_position_embeddings=max(tokens, 2048), tie_word_embeddings=True,
                       rms_norm_eps=1e-5, rope_theta=1e5)


def new_model(config):
    try:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    except (TypeError, ValueError):             # versions before these arguments
        return AutoModelForCausalLM.from_config(config)


def new_adamw(parameters):
    options = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.1}
    for faster in ({"fused": True}, {"foreach": True}, {}):
        try:
            return torch.optim.AdamW(parameters, **options, **faster)
        except (TypeError, RuntimeError):
            continue
    raise RuntimeError("no AdamW")


def new_muon(model):
    """Muon for the matrices of the layers, as transformers has them (GPT-2's queries, keys and values are one), AdamW for all else."""
    named = list(model.named_parameters())
    muon = [p for n, p in named if p.dim() == 2 and (".h." in n or ".layers." in n)]
    rest = [p for _, p in named if all(p is not m for m in muon)]
    return [torch.optim.Muon(muon, lr=1e-4, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), new_adamw(rest)]


class Work:
    """One work in one variant; once() does it."""

    def __init__(self, kind, dtype, variant, sizes):
        family, (layers, width, heads, kv_heads, ff, vocab, batch, tokens) = sizes[0], map(int, sizes[1:9])
        self.kind, self.bf16 = kind, dtype == "bf16"
        self.model = new_model(config_of(family, layers, width, heads, kv_heads, ff, vocab, tokens))
        self.model.to(device)
        self.call = torch.compile(self.model) if variant == "compiled" else self.model
        self.loss = self.loss_of
        if variant == "compiled" and device == "cuda" and kind in ("train", "muon"):
            # The loss as well: its fp32 logits, 6.6 GB at 32 x 1024 tokens, then need not exist.
            self.call, self.loss = self.model, torch.compile(self.loss_of)
        if variant == "layers":                  # one compilation for all layers
            for module in self.model.modules():
                if type(module).__name__.endswith(("Block", "DecoderLayer")):
                    module.compile()
        self.micro = int(sizes[9]) if device == "cuda" and len(sizes) > 9 else batch
        self.model.train(kind in ("train", "muon"))
        self.optimizers = new_muon(self.model) if kind == "muon" else [new_adamw(self.model.parameters())] if kind == "train" else []
        self.x = torch.randint(0, vocab, (batch, tokens), device=device)
        self.y = torch.randint(0, vocab, (batch, tokens), device=device)

    def autocast(self):
        return torch.autocast(device, dtype=torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def loss_of(self, x, y):
        return torch.nn.functional.cross_entropy(self.call(x, use_cache=False).logits.flatten(0, 1), y.flatten())

    def once(self):
        if self.optimizers:
            for x, y in zip(self.x.split(self.micro), self.y.split(self.micro)):
                with self.autocast():
                    loss = self.loss(x, y) * (len(x) / len(self.x))
                loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            return
        with torch.no_grad(), self.autocast():
            z = self.call(self.x, use_cache=False).logits.flatten(0, 1)
            if self.kind == "teach":
                torch.multinomial(torch.softmax(z.float(), 1), 50, replacement=True)

    def seconds(self):
        start = clock()
        self.once()
        if device == "cuda":
            torch.cuda.synchronize()
        return clock() - start


def try_variant(kind, dtype, variant, sizes):
    """(seconds, Work) of a variant, or None with the reason on stderr."""
    try:
        work = Work(kind, dtype, variant, sizes)
        work.seconds()                           # warms up, compiles
        return work.seconds(), work
    except Exception as e:                       # a variant that this version or machine cannot run
        print(f"torch_peer: {variant} {dtype}: {str(e).splitlines()[0] if str(e) else type(e).__name__}", file=sys.stderr)
        return None


class Server:
    def __init__(self, variants):
        self.variants, self.key, self.best = variants, None, None

    def ask(self, words):
        key = " ".join(words)
        if key != self.key:
            self.key, self.best = key, None
            gc.collect()
            for variant in self.variants:
                tried = try_variant(words[0], words[1], variant, words[2:])
                print(f"torch_peer: {key} {variant}: {tried[0] if tried else None}", file=sys.stderr, flush=True)
                if tried and (self.best is None or tried[0] < self.best[0]):
                    self.best = (*tried, variant)
                del tried
                gc.collect()
        if self.best is None:
            return "- none"
        return f"{self.best[1].seconds():.6f} {self.best[2]}"


def main():
    global clock, device
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variants", default="eager,compiled")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    device = args.device
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch_peer: PyTorch sees no GPU: " + ("its build has no CUDA" if torch.version.cuda is None else "no device or driver"))
    clock = time.process_time if args.cpu_time else time.monotonic
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    variants = [v for v in args.variants.split(",") if v == "eager" or hasattr(torch, "compile")]
    server = Server(variants)
    print(f"ready PyTorch {torch.__version__}{' on the GPU' if device == 'cuda' else ''}", flush=True)
    for line in sys.stdin:
        print(server.ask(line.split()), flush=True)


if __name__ == "__main__":
    main()
