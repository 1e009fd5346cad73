#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make this folder's fixtures: small GGUF files, and what the gguf package and transformers make of them.

usage: make.py     (the files here came from gguf 0.19.0, transformers 5.23 with PyTorch 2.15)

types.gguf       a tensor of random blocks for each type, named as it; the first three with extreme scales
types.f32        what the gguf package decodes them to, in the order of TYPES
tiny.gguf        a Llama of two layers in mixed types, with the tokenizer of ../tokenizer/smollm2.json
tiny.tokens      int32[8]; tiny.logits: float32 [2, V], rows 0 and 7 of what transformers makes of tiny.gguf
*_tiny           models of other architectures without a tokenizer, .gguf, .tokens, .logits; the logits are those of the model with the values
                 that the gguf package decodes
NAME.gguf        no tensors: the tokenizer of ../tokenizer/NAME.json
mini.gguf        one layer and 260 tokens, for mutations
"""
import json
import pathlib
import sys

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "peers"))
import gguf_write  # noqa: E402
from gguf_write import TYPE, TYPES  # noqa: E402


def types(rng):
    w = gguf.GGUFWriter(HERE / "types.gguf", "llama")
    values = []
    for t in TYPES:
        blocks = gguf_write.random_blocks(rng, t, 4, max(96, gguf.GGML_QUANT_SIZES[t][0]), edges=True)
        values.append(gguf.quants.dequantize(blocks, t).astype("<f4").ravel())
        data = blocks.view({TYPE.F32: np.float32, TYPE.F16: np.float16}.get(t, np.uint8))
        w.add_tensor(t.name, data, raw_dtype=t)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    np.concatenate(values).tofile(HERE / "types.f32")


def llama(seed, **sizes):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(rms_norm_eps=1e-5, rope_theta=50000.0, **sizes)).eval()
    for name, p in model.named_parameters():
        torch.nn.init.normal_(p, 1.0 if "norm" in name else 0.0, 0.2 if "norm" in name else 0.3)
    return model


def tiny(rng):
    tokenizer = json.loads((HERE / "../tokenizer/smollm2.json").read_text())
    model = llama(1, vocab_size=1500, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True)
    of = {"embed_tokens": TYPE.Q8_0, "q_proj": TYPE.Q4_0, "k_proj": TYPE.Q5_0, "v_proj": TYPE.Q4_1, "o_proj": TYPE.Q5_1,
          "gate_proj": TYPE.F16, "up_proj": TYPE.BF16, "down_proj": TYPE.Q8_0}
    gguf_write.write(HERE / "tiny.gguf", model, lambda name: of[name.split(".")[-2]], rng, tokenizer, "smollm", 1, 2)
    back = AutoModelForCausalLM.from_pretrained(HERE, gguf_file="tiny.gguf", dtype=torch.float32, attn_implementation="eager").eval()
    tokens = torch.tensor([[1, 17, 1400, 3, 999, 256, 31, 700]])
    with torch.no_grad():
        logits = back(tokens, use_cache=False).logits[0]
    tokens.numpy().astype("<i4").tofile(HERE / "tiny.tokens")
    logits[[0, 7]].numpy().astype("<f4").tofile(HERE / "tiny.logits")


ROPE = {"rope_type": "default", "rope_theta": 50000.0}
OTHERS = {
    "qwen2": {"tie_word_embeddings": False}, "qwen3": {"head_dim": 12, "tie_word_embeddings": True},
    "gemma2": {"sliding_window": 4, "head_dim": 12, "query_pre_attn_scalar": 12, "attn_logit_softcapping": 2.0,
               "final_logit_softcapping": 3.0, "tie_word_embeddings": True},
    "gemma3_text": {"sliding_window": 4, "head_dim": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 6, "num_attention_heads": 2,
                    "num_key_value_heads": 1, "intermediate_size": 32, "tie_word_embeddings": True,
                    "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 50000.0},
                                        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "phi3": {"sliding_window": 4, "original_max_position_embeddings": 4, "partial_rotary_factor": 0.5, "pad_token_id": 0,
             "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0],
                                 "original_max_position_embeddings": 4, "partial_rotary_factor": 0.5}},
    "olmo2": {"tie_word_embeddings": False},
    "smollm3": {"num_hidden_layers": 4, "intermediate_size": 32, "pad_token_id": 0, "tie_word_embeddings": True},
    "granite": {"attention_multiplier": 0.05, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 2.5,
                "rope_parameters": {"rope_type": "yarn", "rope_theta": 50000.0, "factor": 4.0, "original_max_position_embeddings": 4}},
}


def others(rng):
    tokens = torch.tensor([[1, 17, 40, 3, 39, 26, 31, 7]])
    for model_type, more in OTHERS.items():
        torch.manual_seed(3)
        config = AutoConfig.for_model(model_type, **(dict(
            vocab_size=41, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=16, rope_parameters=ROPE) | more))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        for p in model.parameters():
            torch.nn.init.normal_(p, p.mean().item() if p.ndim == 1 else 0.0, 0.2)
        kinds = [TYPE.MXFP4, TYPE.IQ4_NL, TYPE.F16, TYPE.Q8_0]
        of = {n: kinds[i % 4] if p.shape[-1] % 32 == 0 else TYPE.F32 for i, (n, p) in enumerate(model.named_parameters())}
        model.load_state_dict(gguf_write.write(HERE / f"{model_type}_tiny.gguf", model, of.get, rng))
        with torch.no_grad():
            logits = model(tokens, use_cache=False).logits[0]
        tokens.numpy().astype("<i4").tofile(HERE / f"{model_type}_tiny.tokens")
        logits[[0, 7]].numpy().astype("<f4").tofile(HERE / f"{model_type}_tiny.logits")


def tokenizer_only(name, pre, bos, eos):
    w = gguf.GGUFWriter(HERE / f"{name}.gguf", "llama")
    gguf_write.add_tokenizer(w, json.loads((HERE / f"../tokenizer/{name}.json").read_text()), pre, bos, eos)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def mini(rng):
    alphabet = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    tokenizer = {"model": {"vocab": {t: i for i, t in enumerate(["<e>"] + alphabet + ["ab", "abc"])}, "merges": ["a b", "ab c"]},
                 "added_tokens": [{"id": 0, "content": "<e>", "special": True}, {"id": 259, "content": "<x y>", "special": False}]}
    model = llama(2, vocab_size=260, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                  num_key_value_heads=1, max_position_embeddings=16, tie_word_embeddings=True)
    gguf_write.write(HERE / "mini.gguf", model, lambda name: TYPE.Q4_0, rng, tokenizer, "gpt-2", 0, 0)


if __name__ == "__main__":
    rng = np.random.default_rng(4)
    types(rng)
    tiny(rng)
    tokenizer_only("gpt2", "gpt-2", 0, 0)
    tokenizer_only("llama3", "llama-bpe", 1500, 1501)
    tokenizer_only("qwen2", "qwen2", None, 1500)
    mini(rng)
    others(np.random.default_rng(5))
