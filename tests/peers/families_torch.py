# SPDX-License-Identifier: Apache-2.0
"""The families of docs/models.md beside transformers: configurations of small open models, shrunk, with random weights.

    tests/peers/run.sh tests/peers/families_torch.py --program build/dev/bin/model_dump --saltctl build/dev/bin/saltctl [--only NAME]

Each row of MODELS is a published model's config.json as far as it matters, in its own spelling, with small sizes. transformers makes
it with random weights and saves it; model_dump loads that directory: logits, gradients and ten steps of AdamW are compared. Then
model_dump saves what it trained, transformers loads that directory, and both must give the same logits. The published spelling
and the one that transformers saves must mean the same: saltctl gives both the same fingerprint. REFUSED is what must be refused, by key.
Prints a line per model; exit status 1 if one is over its bound.
"""
import argparse
import copy
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

LOGITS, GRADS, LOSS = 1e-4, 1e-3, 1e-4
B, T = 2, 21

LLAMA = {"model_type": "llama", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu",
         "rope_theta": 10000.0, "tie_word_embeddings": False, "attention_bias": False, "initializer_range": 0.1,
         "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 96}
GPT2 = {"model_type": "gpt2", "vocab_size": 97, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "n_inner": None,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        "initializer_range": 0.1, "bos_token_id": 1, "eos_token_id": 2}
NEOX = {"model_type": "gpt_neox", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": 64, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "rotary_pct": 0.25,
        "rotary_emb_base": 10000, "use_parallel_residual": True, "tie_word_embeddings": False, "initializer_range": 0.1,
        "bos_token_id": 0, "eos_token_id": 0}
OPT = {"model_type": "opt", "vocab_size": 97, "hidden_size": 32, "ffn_dim": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
       "max_position_embeddings": 64, "word_embed_proj_dim": 32, "do_layer_norm_before": True, "activation_function": "relu",
       "dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.1, "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 96}
NEO = {"model_type": "gpt_neo", "vocab_size": 97, "hidden_size": 32, "intermediate_size": None, "num_layers": 4, "num_heads": 4,
       "max_position_embeddings": 64, "attention_types": [[["global", "local"], 2]], "window_size": 5, "activation_function": "gelu_new",
       "layer_norm_epsilon": 1e-5, "embed_dropout": 0.0, "resid_dropout": 0.0, "attention_dropout": 0.0, "initializer_range": 0.1,
       "bos_token_id": 1, "eos_token_id": 2}
PHI = {"model_type": "phi", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 3,
       "num_attention_heads": 4, "num_key_value_heads": None, "max_position_embeddings": 64, "hidden_act": "gelu_new",
       "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "rope_theta": 10000.0, "rope_scaling": None, "qk_layernorm": False,
       "tie_word_embeddings": False, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "initializer_range": 0.1, "bos_token_id": None,
       "eos_token_id": None}
GEMMA = {"head_dim": 12, "attention_bias": False, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "num_key_value_heads": 1}
LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
STABLELM = {"model_type": "stablelm", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25, "use_qkv_bias": True,
            "use_parallel_residual": False, "qk_layernorm": False, "hidden_dropout": 0.0, "num_key_value_heads": 4}
STARCODER2 = {"model_type": "starcoder2", "norm_epsilon": 1e-5, "use_bias": True, "hidden_act": "gelu_pytorch_tanh", "sliding_window": 6,
              "residual_dropout": 0.0, "embedding_dropout": 0.0}
GRANITE = {"model_type": "granite", "embedding_multiplier": 12.0, "attention_multiplier": 0.015625, "residual_multiplier": 0.22,
           "logits_scaling": 8.0, "mlp_bias": False, "tie_word_embeddings": True}


def longrope(n, scale):
    return [1.0 + scale * i / n for i in range(n)]


def llama(**changes):
    return {**LLAMA, **changes}


def without(row, *keys):
    return {k: v for k, v in row.items() if k not in keys}


# The published config.json of each, but for sizes.
MODELS = {
    "SmolLM-135M": llama(tie_word_embeddings=True, num_attention_heads=8, num_key_value_heads=4, rope_scaling=None),
    "SmolLM2-135M": llama(tie_word_embeddings=True, rope_theta=100000, rope_interleaved=False, rope_scaling=None, pretraining_tp=1),
    "SmolLM3-3B": llama(model_type="smollm3", num_hidden_layers=5, no_rope_layers=[1, 1, 1, 0, 1], no_rope_layer_interval=4,
                        rope_theta=5000000.0, tie_word_embeddings=True, use_sliding_window=False, sliding_window=None,
                        layer_types=["full_attention"] * 5, mlp_bias=False),
    "Llama-2-7b": llama(num_key_value_heads=4, rope_scaling=None, pretraining_tp=1),
    "Llama-3-8B": llama(rope_theta=500000.0),
    "Llama-3.1-8B": llama(rope_theta=500000.0, rope_scaling={**LLAMA3, "factor": 8.0}),
    "Llama-3.2-1B": llama(rope_theta=500000.0, rope_scaling=LLAMA3, tie_word_embeddings=True, head_dim=8),
    "TinyLlama-1.1B": llama(rope_scaling=None),
    "LLongMA (linear)": llama(rope_scaling={"type": "linear", "factor": 4.0}),
    "Llama dynamic NTK": llama(rope_scaling={"type": "dynamic", "factor": 2.0}),
    "Yarn-Llama-2": llama(rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
    "Mistral-7B-v0.1": without(llama(model_type="mistral", sliding_window=6), "attention_bias"),
    "Mistral-7B-v0.3": without(llama(model_type="mistral", sliding_window=None, rope_theta=1000000.0), "attention_bias"),
    "Mistral-Nemo": without(llama(model_type="mistral", sliding_window=None, head_dim=10, rope_theta=1000000.0), "attention_bias"),
    "Ministral-8B": without(llama(model_type="ministral", sliding_window=6, num_hidden_layers=4, head_dim=8,
                            layer_types=["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"]), "attention_bias"),
    "Zephyr (Mistral)": without(llama(model_type="mistral", sliding_window=4096), "attention_bias"),
    "Qwen2-0.5B": without(llama(model_type="qwen2", tie_word_embeddings=True, rope_theta=1000000.0, sliding_window=32768,
                                max_window_layers=24, use_sliding_window=False), "attention_bias"),
    "Qwen2.5-0.5B": without(llama(model_type="qwen2", tie_word_embeddings=True, rms_norm_eps=1e-6, rope_theta=1000000.0,
                                  sliding_window=32768, max_window_layers=21, use_sliding_window=False), "attention_bias"),
    "Qwen2.5-7B-1M (yarn)": without(llama(model_type="qwen2", rope_scaling={"type": "yarn", "factor": 4.0,
                                    "original_max_position_embeddings": 16}), "attention_bias"),
    "Qwen2 with windows": without(llama(model_type="qwen2", num_hidden_layers=4, sliding_window=6, max_window_layers=2,
                                        use_sliding_window=True), "attention_bias"),
    "Qwen3-0.6B": llama(model_type="qwen3", tie_word_embeddings=True, rms_norm_eps=1e-6, head_dim=12, rope_theta=1000000,
                        sliding_window=None, max_window_layers=28, use_sliding_window=False),
    "Pythia-160m": NEOX,
    "GPT-NeoX gelu_fast's formula": {**NEOX, "hidden_act": "gelu_new", "use_parallel_residual": False},
    "GPT-2": GPT2,
    "Cerebras-GPT-111M": {**GPT2, "activation_function": "gelu", "n_inner": 128, "scale_attn_weights": True},
    "TinyStories (GPT-Neo)": NEO,
    "OPT-125m": OPT,
    "Galactica (OPT)": {**OPT, "activation_function": "gelu", "layerdrop": 0.0, "bos_token_id": 0, "eos_token_id": 2},
    "OLMo-1B": without(llama(model_type="olmo", num_key_value_heads=4, clip_qkv=None, tie_word_embeddings=True), "rms_norm_eps"),
    "OLMo-2-1B": llama(model_type="olmo2", num_key_value_heads=4, rms_norm_eps=1e-6, rope_theta=500000, rope_scaling=None),
    "OLMo-2-32B": llama(model_type="olmo2", rms_norm_eps=1e-6, rope_theta=500000),
    "OLMo-3-7B": llama(model_type="olmo3", num_key_value_heads=4, num_hidden_layers=5, rms_norm_eps=1e-6, sliding_window=6,
                       layer_types=["sliding_attention"] * 3 + ["full_attention", "sliding_attention"],
                       rope_parameters={"full_attention": {"rope_type": "yarn", "rope_theta": 500000.0, "factor": 8.0,
                                                           "beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 1.2079441541679836,
                                                           "original_max_position_embeddings": 16},
                                        "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0}}),
    "Granite-3.0-2b": llama(**GRANITE),
    "Granite-3.3-8b": llama(**{**GRANITE, "tie_word_embeddings": False, "logits_scaling": 16.0, "attention_multiplier": 0.0078125},
                            rope_theta=10000000.0, rope_scaling=None),
    "Gemma-2b": llama(model_type="gemma", **GEMMA, hidden_act="gelu", hidden_activation=None, rope_scaling=None),
    "Gemma-2-2b": without(llama(model_type="gemma2", **GEMMA, num_hidden_layers=4, hidden_activation="gelu_pytorch_tanh",
                                query_pre_attn_scalar=16, sliding_window=6, attn_logit_softcapping=5.0, final_logit_softcapping=3.0,
                                cache_implementation="hybrid"), "hidden_act"),
    "Gemma-3-270m": without(llama(model_type="gemma3_text", **GEMMA, num_hidden_layers=7, hidden_activation="gelu_pytorch_tanh",
                                  query_pre_attn_scalar=16, sliding_window=6, _sliding_window_pattern=6, rope_theta=1000000.0,
                                  rope_local_base_freq=10000.0, rope_scaling=None, attn_logit_softcapping=None,
                                  final_logit_softcapping=None), "hidden_act"),
    "Gemma-3-4b (text)": without(llama(model_type="gemma3_text", **GEMMA, num_hidden_layers=3, hidden_activation="gelu_pytorch_tanh",
                                       query_pre_attn_scalar=12, sliding_window=6, sliding_window_pattern=2, rope_theta=1000000.0,
                                       rope_local_base_freq=10000.0, rope_scaling={"factor": 8.0, "rope_type": "linear"}), "hidden_act"),
    "Phi-1.5": PHI,
    "Phi-2": {**PHI, "partial_rotary_factor": 0.5, "num_key_value_heads": 4},
    "Phi-3-mini-4k": llama(model_type="phi3", num_key_value_heads=4, sliding_window=7, original_max_position_embeddings=64,
                           rope_scaling=None, embd_pdrop=0.0, resid_pdrop=0.0),
    "Phi-3-mini-128k": llama(model_type="phi3", num_key_value_heads=4, sliding_window=262144, original_max_position_embeddings=16,
                             rope_scaling={"type": "longrope", "short_factor": longrope(4, 1), "long_factor": longrope(4, 9)}),
    "Phi-4-mini": llama(model_type="phi3", partial_rotary_factor=0.75, tie_word_embeddings=True, head_dim=8, sliding_window=None,
                        original_max_position_embeddings=32,
                        rope_scaling={"type": "longrope", "short_factor": longrope(3, 1), "long_factor": longrope(3, 9)}),
    "StableLM-2-1.6b": without(llama(**STABLELM), "rms_norm_eps", "attention_bias"),
    "StableLM-3b-4e1t": without(llama(**{**STABLELM, "use_qkv_bias": False}), "rms_norm_eps", "attention_bias"),
    "StarCoder2-3b": without(llama(**STARCODER2), "rms_norm_eps", "attention_bias"),
    "SantaCoder (GPTBigCode)": {**GPT2, "model_type": "gpt_bigcode", "activation_function": "gelu_pytorch_tanh", "multi_query": True,
                                "n_inner": 128},
    "MobileLLM-125M": without(llama(model_type="mobilellm", share_embedding=True, layer_sharing=False), "tie_word_embeddings"),
    "Yi-6B": llama(rope_theta=5000000.0),
    "Falcon3-1B": llama(head_dim=16, rope_theta=1000042, mlp_bias=False),
    "InternLM-7B": without(llama(model_type="internlm", bias=True, num_key_value_heads=4), "attention_bias"),
    "InternLM3-8B": without(llama(model_type="internlm3", head_dim=8, bias=False, qkv_bias=False, rope_theta=50000000,
                                  rope_scaling={"factor": 6.0, "rope_type": "dynamic"}), "attention_bias"),
    "MiniCPM-2B": llama(model_type="minicpm", scale_emb=12, scale_depth=1.4, dim_model_base=8, tie_word_embeddings=True),
    "Seed-OSS": llama(model_type="seed_oss", head_dim=12, attention_bias=True, attention_out_bias=False, residual_dropout=0.0),
    "AFM-4.5B (Arcee)": llama(model_type="arcee", hidden_act="relu2", mlp_bias=False, rope_scaling={"rope_type": "yarn", "factor": 2.0,
                              "mscale": 1.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 32}),
    "Minitron-4B (Nemotron)": without(llama(model_type="nemotron", norm_eps=1e-5, hidden_act="relu2", partial_rotary_factor=0.5,
                                            mlp_bias=False), "rms_norm_eps"),
}

# model_type that transformers does not have: the same model under another name.
AS = {"mobilellm": lambda c: llama(tie_word_embeddings=c["share_embedding"]),
      "internlm": lambda c: {**c, "model_type": "llama", "attention_bias": c["bias"]},
      "minicpm": lambda c: {**c, "model_type": "granite", "embedding_multiplier": float(c["scale_emb"]), "attention_multiplier": 8 ** -0.5,
                            "residual_multiplier": c["scale_depth"] / c["num_hidden_layers"] ** 0.5,
                            "logits_scaling": c["hidden_size"] / c["dim_model_base"]}}

# What must be refused, and the key that the message names.
REFUSED = {
    "Bloom-560m": ({"model_type": "bloom", "vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "model_type"),
    "Falcon-7B": ({"model_type": "falcon", "vocab_size": 97, "hidden_size": 32, "alibi": False}, "model_type"),
    "GPT-J-6B": ({"model_type": "gptj", "vocab_size": 97, "n_embd": 32}, "model_type"),
    "InternLM2-1.8B": ({"model_type": "internlm2", "vocab_size": 97, "hidden_size": 32}, "model_type"),
    "Mixtral-8x7B": ({"model_type": "mixtral", "vocab_size": 97, "hidden_size": 32}, "model_type"),
    "Mamba-130m": ({"model_type": "mamba", "vocab_size": 97, "hidden_size": 32}, "model_type"),
    "Command-R": ({"model_type": "cohere", "vocab_size": 97, "hidden_size": 32}, "model_type"),
    "OLMo-7B with clip_qkv": (without(llama(model_type="olmo", clip_qkv=8.0), "rms_norm_eps"), "clip_qkv"),
    "StableLM-2-12b": (without(llama(**{**STABLELM, "qk_layernorm": True}), "rms_norm_eps"), "qk_layernorm"),
    "MobileLLM-LS": (llama(model_type="mobilellm", share_embedding=True, layer_sharing=True), "layer_sharing"),
    "OPT-350m": ({**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 16}, "do_layer_norm_before"),
    "Llama with a window": (llama(sliding_window=8), "sliding_window"),
    "Llama with half of rotary": (llama(partial_rotary_factor=0.5), "partial_rotary_factor"),
    "Hunyuan's alpha": (llama(rope_scaling={"type": "dynamic", "alpha": 1000.0, "factor": 1.0}), "rope_scaling.alpha"),
    "Phi with qk_layernorm": ({**PHI, "qk_layernorm": True}, "qk_layernorm"),
}


def reference(row):
    theirs = copy.deepcopy(AS[row["model_type"]](row) if row["model_type"] in AS else row)
    config = CONFIG_MAPPING[theirs.pop("model_type")](**theirs)
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p += 0.1 * torch.randn(p.shape)
    return model


def their_names(model):
    names = dict(model.named_parameters())
    if model.config.model_type == "gpt_neox":
        names = {n.replace("lm_head.weight", "embed_out.weight"): p for n, p in names.items()}      # as in its files
    return names


def fingerprint(args, folder):
    done = subprocess.run([args.saltctl, "model", "info", "--json", folder], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"saltctl model info: {done.stderr}")
    return re.search(r'"fingerprint": *"([0-9a-f]+)"', done.stdout).group(1)


def compare(args, name, folder):
    row, started = MODELS[name], time.monotonic()
    native = row["model_type"] not in AS
    model = reference(row)
    tokens = torch.randint(0, 96, (B, T + 1), generator=torch.Generator().manual_seed(5))      # 96, the padding, has no gradient there
    model.save_pretrained(folder / "theirs")
    shutil.copytree(folder / "theirs", folder / "published")
    (folder / "published" / "config.json").write_text(json.dumps(row))
    for made in ("out", "ours"):
        (folder / made).mkdir()
    (folder / "tokens.i32").write_bytes(tokens.numpy().astype("<i4").tobytes())
    source = folder / ("theirs" if native else "published")
    done = subprocess.run([args.program, source, folder / "tokens.i32", str(B), str(T), folder / "out", "--steps", "10", "--save",
                           folder / "ours"], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{name}: FAILED: {done.stderr.strip()}", flush=True)
        return False
    ours = json.loads(done.stdout)

    z = model(tokens[:, :-1], use_cache=False).logits.flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(z, tokens[:, 1:].flatten())
    loss.backward()
    logits = np.fromfile(folder / "out/logits.f32", dtype="<f4")
    grads = np.fromfile(folder / "out/grads.f32", dtype="<f4")
    d_logits = float(np.abs(logits - z.detach().flatten().numpy()).max())
    d_loss, d_grad, where, names = abs(ours["loss"] - loss.item()), 0.0, "", their_names(model)
    if set(names) != set(ours["tensors"]):
        print(f"{name}: FAILED: tensors differ: {sorted(set(names) ^ set(ours['tensors']))[:4]}", flush=True)
        return False
    top = max(float(p.grad.abs().max()) for p in names.values())
    for n, p in names.items():
        want = p.grad.flatten().numpy()
        size = max(float(np.abs(want).max()), 1e-4 * top)           # without rope a bias of the keys has the gradient 0
        ratio = float(np.abs(grads[ours["tensors"][n]:ours["tensors"][n] + p.numel()] - want).max()) / size
        d_grad, where = max((d_grad, where), (ratio if ratio == ratio else float("inf"), n))

    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    d_steps = 0.0
    for got in ours["steps"]:
        optimiser.step()
        optimiser.zero_grad()
        z = model(tokens[:, :-1], use_cache=False).logits.flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(z, tokens[:, 1:].flatten())
        loss.backward()
        d_steps = max(d_steps, abs(got - loss.item()))

    problems = {}
    if native:
        back, info = AutoModelForCausalLM.from_pretrained(folder / "ours", dtype=torch.float32, attn_implementation="eager",
                                                          output_loading_info=True)
        problems = {k: v for k, v in info.items() if v}
        published = fingerprint(args, folder / "published")
        if published != fingerprint(args, folder / "theirs"):
            problems["config"] = "the published one and transformers' differ"
    else:
        back = reference(row)
        back.load_state_dict(load_file(folder / "ours/model.safetensors"), strict=False)
        back.tie_weights()
    with torch.no_grad():
        after = torch.nn.functional.cross_entropy(back.eval()(tokens[:, :-1], use_cache=False).logits.flatten(0, 1),
                                                  tokens[:, 1:].flatten()).item()
    d_back = abs(after - ours["steps"][-1])
    good = d_logits <= LOGITS and d_loss <= LOSS and d_grad <= GRADS and d_steps <= LOSS and d_back <= LOSS and not problems
    print(f"{name} ({row['model_type']}): {'ok' if good else 'FAILED'}: logits {d_logits:.1e}, gradient {d_grad:.1e} ({where}), "
          f"ten steps {d_steps:.1e}, saved and loaded there {d_back:.1e}{' ' + str(problems) if problems else ''}; "
          f"{time.monotonic() - started:.1f} s", flush=True)
    return good


def refuse(args, name, folder):
    row, key = REFUSED[name]
    (folder / "config.json").write_text(json.dumps(row))
    (folder / "tokens.i32").write_bytes(bytes(64))
    done = subprocess.run([args.program, folder, folder / "tokens.i32", "1", "2", folder, "--init", "1"], capture_output=True, text=True)
    good = done.returncode != 0 and key in done.stderr
    print(f"{name} ({row['model_type']}): {'refused' if good else 'FAILED'}: {done.stderr.strip()[-300:]}", flush=True)
    return good


def new(args, name, folder):
    """saltctl makes a model of the family; transformers loads it, and its logits are ours."""
    done = subprocess.run([args.saltctl, "model", "new", "--family", name, "--layers", "4", "--width", "32", "--heads", "4", "--vocab", "97",
                           "--context", "64", "--weights", "3", folder / "new"], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"model new {name}: FAILED: {done.stderr.strip()}", flush=True)
        return False
    back, info = AutoModelForCausalLM.from_pretrained(folder / "new", dtype=torch.float32, attn_implementation="eager",
                                                      output_loading_info=True)
    tokens = torch.randint(0, 97, (B, T + 1), generator=torch.Generator().manual_seed(5))
    (folder / "tokens.i32").write_bytes(tokens.numpy().astype("<i4").tobytes())
    (folder / "out").mkdir()
    subprocess.run([args.program, folder / "new", folder / "tokens.i32", str(B), str(T), folder / "out"], stdout=subprocess.DEVNULL, check=True)
    logits = np.fromfile(folder / "out/logits.f32", dtype="<f4")
    with torch.no_grad():
        d_logits = float(np.abs(logits - back.eval()(tokens[:, :-1], use_cache=False).logits.flatten().numpy()).max())
    problems = {k: v for k, v in info.items() if v}
    good = d_logits <= LOGITS and not problems
    print(f"model new {name}: {'ok' if good else 'FAILED'}: logits {d_logits:.1e} {problems or ''}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--saltctl", required=True)
    parser.add_argument("--only", help="a name, or a part of one")
    args = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    good = n = 0
    families = sorted({row["model_type"] for row in MODELS.values()} - set(AS))
    for check, names in ((compare, MODELS), (refuse, REFUSED), (new, families)):
        for name in names:
            if args.only and args.only.lower() not in name.lower():
                continue
            with tempfile.TemporaryDirectory() as folder:
                n += 1
                try:
                    good += check(args, name, pathlib.Path(folder))
                except (Exception, SystemExit) as error:            # the rest is still of interest
                    print(f"{name}: FAILED: {type(error).__name__}: {str(error)[:300]}", flush=True)
    print(f"{good} of {n}")
    return 0 if good == n else 1


if __name__ == "__main__":
    sys.exit(main())
