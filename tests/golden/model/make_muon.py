# SPDX-License-Identifier: Apache-2.0
"""Ten steps of torch.optim.Muon on models of make_fixtures.py, for tests/golden/test_model.c.

    python3 tests/golden/model/make_muon.py        (tests/peers/requirements.txt; writes beside itself)

NAME_muon.json  muon: settings, the losses of ten steps, each before its update, with PyTorch's Newton-Schulz in fp32 (losses) and in bf16,
                as PyTorch has it (losses_bf16)
NAME_muon.bin   array final/TENSOR: the parameters after the ten steps, Newton-Schulz in fp32
Muon has the matrices of the layers, with adjust_lr_fn "match_rms_adamw"; AdamW the rest. GPT-2's fused projection is three parameters.
Weights and tokens are those of NAME.bin.
"""
import inspect
import json

import numpy as np
import torch
from torch.optim import _muon

from make_fixtures import ADAMW, HERE, MODELS, Writer, named

MUON = {**ADAMW, "momentum": 0.95}
NAMES = ("gpt2_tied", "llama_grouped", "neox")


def arrays(name):
    header, data = json.loads((HERE / f"{name}.json").read_text()), (HERE / f"{name}.bin").read_bytes()
    kinds = {"f32": "<f4", "i32": "<i4", "i64": "<i8"}
    return {a["name"]: np.frombuffer(data, kinds[a["dtype"]], int(np.prod(a["shape"])), a["offset"]).reshape(a["shape"]).copy()
            for a in header["arrays"]}, header["config"]


def split(name, p, config):
    """The matrices of a tensor, and how they become one again."""
    heads, size = config["n_heads"], config["head_dim"]
    if name.endswith("c_attn.weight"):
        return list(p.chunk(3, 1)), lambda parts: torch.cat(parts, 1)
    if name.endswith("query_key_value.weight"):
        rows = p.view(heads, 3, size, -1)
        return [rows[:, i].reshape(heads * size, -1) for i in range(3)], lambda parts: torch.stack(
            [x.view(heads, size, -1) for x in parts], 1).reshape(3 * heads * size, -1)
    return [p], lambda parts: parts[0]


def ten_steps(name, dtype):
    source = inspect.getsource(_muon._zeropower_via_newtonschulz)
    space = dict(vars(_muon))
    exec(source.replace("torch.bfloat16", dtype), space)
    shipped, _muon._zeropower_via_newtonschulz = _muon._zeropower_via_newtonschulz, space["_zeropower_via_newtonschulz"]
    data, config = arrays(name)
    model, _ = MODELS[name][0]()
    model.eval()
    memory = {id(p): n for n, p in model.named_parameters()}
    leaves, joins, muon, decayed, plain = {}, {}, [], [], []
    for n, p in named(model).items():
        value = torch.from_numpy(data["param/" + n])
        hidden = p.dim() == 2 and (".h." in n or ".layers." in n)
        parts, join = split(n, value, config) if hidden else ([value], lambda x: x[0])
        parts = [torch.nn.Parameter(x.clone().contiguous()) for x in parts]
        leaves[n], joins[n] = parts, (memory[id(p)], join)
        (muon if hidden else decayed if p.dim() == 2 else plain).extend(parts)
    optimisers = [torch.optim.Muon(muon, lr=MUON["lr"], weight_decay=MUON["decay"], momentum=MUON["momentum"], nesterov=True,
                                   adjust_lr_fn="match_rms_adamw"),
                  torch.optim.AdamW([{"params": decayed, "weight_decay": MUON["decay"]}, {"params": plain, "weight_decay": 0.0}],
                                    lr=MUON["lr"], betas=(MUON["beta1"], MUON["beta2"]), eps=MUON["eps"])]
    tokens, losses = torch.from_numpy(data["adamw/tokens"]).long(), []
    for step in range(MUON["steps"]):
        batch = tokens[step % len(tokens)]
        whole = {key: join(leaves[n]) for n, (key, join) in joins.items()}
        z = torch.func.functional_call(model, whole, (batch[:, :-1],), {"use_cache": False}, tie_weights=True).logits.flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(z, batch[:, 1:].flatten())
        for o in optimisers:
            o.zero_grad()
        loss.backward()
        for o in optimisers:
            o.step()
        losses.append(loss.item())
    _muon._zeropower_via_newtonschulz = shipped
    return losses, {n: join(leaves[n]).detach().numpy() for n, (_, join) in joins.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for model_name in NAMES:
        exact, final = ten_steps(model_name, "torch.float32")
        rounded, final_bf16 = ten_steps(model_name, "torch.bfloat16")
        out = Writer()
        for key, array in final.items():
            out.put("final/" + key, array)
        header = json.loads((HERE / f"{model_name}.json").read_text())
        out.save(model_name + "_muon", {**{k: header[k] for k in ("config", "batch", "tokens")},
                                        "muon": {**MUON, "losses": exact, "losses_bf16": rounded}})
        print(f"{model_name}: losses {exact[0]:.4f} to {exact[-1]:.4f}; Newton-Schulz in bf16 instead: largest difference of a loss "
              f"{max(abs(a - b) for a, b in zip(exact, rounded)):.2g}, of a parameter "
              f"{max(float(np.abs(final[k] - final_bf16[k]).max()) for k in final):.2g}")
