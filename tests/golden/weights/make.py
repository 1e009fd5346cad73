#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the fixtures of this folder with transformers, safetensors and numpy; run from anywhere, writes beside itself.

    gpt2/           GPT2LMHeadModel.save_pretrained: tied, transformer. prefix, no lm_head.weight
    gpt2_bare/      GPT2Model's names (no prefix), attn.bias buffers and a redundant lm_head.weight, as on old checkpoints
    llama/          LlamaForCausalLM: grouped queries, tied, rope llama3, written as transformers 5 does (rope_parameters)
    llama_sharded/  the same model as llama/, in shards with an index
    llama_bf16/     untied, biases, bfloat16, legacy keys rope_theta and rope_scaling
    llama_mixed/    tied; F64, F32, F16 and BF16 tensors; the embedding under lm_head.weight only; in two shards, the index naming both of the pair
    dtypes.safetensors   one tensor of each common dtype, numpy's values
    expect.json     for every model: tensor -> [sum, first, last] in float64, as numpy sees them
    logits.json     for every model: logits of one short sequence (float32), from transformers
"""
import json, pathlib, shutil, sys
import numpy as np, torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

here = pathlib.Path(__file__).resolve().parent
ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
expect, logits = {}, {}


def randomise(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.2)
    return model.eval()


def record(name, model):
    with torch.no_grad():
        out = model(ids).logits[0].float()
    logits[name] = {"ids": ids[0].tolist(), "logits": [[float(np.float32(v)) for v in row] for row in out.tolist()]}
    expect[name] = {}
    for f in sorted((here / name).glob("*.safetensors")):
        for k, v in load_file(f).items():
            v = v.float().double().flatten()        # F64 is rounded to float
            expect[name][k] = [v.sum().item(), v[0].item(), v[-1].item()]


def fresh(name):
    shutil.rmtree(here / name, ignore_errors=True)
    return here / name


gpt2 = randomise(GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=16, n_embd=12, n_layer=2, n_head=3, bos_token_id=0,
    eos_token_id=0, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)), 1)
gpt2.save_pretrained(fresh("gpt2"))
record("gpt2", gpt2)

d = fresh("gpt2_bare")
gpt2.save_pretrained(d)
t = {k.removeprefix("transformer."): v.contiguous() for k, v in load_file(d / "model.safetensors").items()}
t["lm_head.weight"] = t["wte.weight"].clone()
for i in range(2):
    t[f"h.{i}.attn.bias"] = torch.tril(torch.ones(16, 16, dtype=torch.uint8)).view(1, 1, 16, 16)
    t[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
save_file(t, d / "model.safetensors")          # no format key: as old tools wrote
record("gpt2_bare", gpt2)

scaling = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
llama = randomise(LlamaForCausalLM(LlamaConfig(vocab_size=37, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True,
    rope_parameters={"rope_theta": 5000.0, **scaling}, bos_token_id=1, eos_token_id=2)), 2)
llama.save_pretrained(fresh("llama"))
record("llama", llama)
llama.save_pretrained(fresh("llama_sharded"), max_shard_size="4KB")
record("llama_sharded", llama)

other = randomise(LlamaForCausalLM(LlamaConfig(vocab_size=29, hidden_size=12, intermediate_size=20, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=32, tie_word_embeddings=False,
    attention_bias=True, mlp_bias=True, bos_token_id=1, eos_token_id=2)), 3).to(torch.bfloat16)
d = fresh("llama_bf16")
other.save_pretrained(d)
c = json.loads((d / "config.json").read_text())
p = c.pop("rope_parameters")
c["rope_theta"], c["rope_scaling"], c["torch_dtype"] = p["rope_theta"], None, c.pop("dtype")
c["eos_token_id"] = [2, 5]
(d / "config.json").write_text(json.dumps(c, indent=2) + "\n")
record("llama_bf16", LlamaForCausalLM.from_pretrained(d, dtype=torch.float32))

d = fresh("llama_mixed")
llama.save_pretrained(d)
(d / "model.safetensors").unlink()
kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
t = {k: v.clone().contiguous() for k, v in llama.state_dict().items() if k != "model.embed_tokens.weight"}
g = torch.Generator().manual_seed(5)
for i, k in enumerate(sorted(t)):       # F64: values that float does not have
    t[k] = (t[k].double() * (1 + 1e-9 * torch.randn(t[k].shape, generator=g).double())).to(kinds[i % 4])
parts = [{k: v for i, (k, v) in enumerate(sorted(t.items())) if i % 2 == part} for part in (0, 1)]
where = {"model.embed_tokens.weight": "model-00002-of-00002.safetensors"}
for part in (0, 1):
    file = f"model-0000{part + 1}-of-00002.safetensors"
    save_file(parts[part], d / file, metadata={"format": "pt"})
    where |= dict.fromkeys(parts[part], file)
(d / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}, indent=1) + "\n")
mixed = LlamaForCausalLM(llama.config).eval()
mixed.load_state_dict({k: v.float() for k, v in t.items()} | {"model.embed_tokens.weight": t["lm_head.weight"].float()})
record("llama_mixed", mixed)
expect["llama_mixed"]["model.embed_tokens.weight"] = expect["llama_mixed"]["lm_head.weight"]

for f in here.glob("*/generation_config.json"):
    f.unlink()

r = np.random.default_rng(4)
save_numpy({"f64": r.normal(size=(2, 3)), "f32": r.normal(size=(3, 5)).astype(np.float32), "f16": np.array(
    [0, -0.0, 1, -2, 65504, 6.1e-5, 5.96e-8, 0.333], dtype=np.float16), "i64": np.arange(-3, 4), "u8": np.arange(9, dtype=np.uint8),
    "bool": np.array([[True, False]]), "scalar": np.array(2.5, dtype=np.float32), "empty": np.zeros((0, 4), dtype=np.float32)},
    here / "dtypes.safetensors", metadata={"note": "made by numpy"})

(here / "expect.json").write_text(json.dumps(expect, indent=1, sort_keys=True) + "\n")
(here / "logits.json").write_text(json.dumps(logits) + "\n")
