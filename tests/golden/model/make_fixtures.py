# SPDX-License-Identifier: Apache-2.0
"""Fixtures of tests/golden/test_model.c: tiny random GPT-2, Llama, Qwen2, Qwen3 and GPT-NeoX models of transformers, with what PyTorch makes of them.

    python3 tests/golden/model/make_fixtures.py        (tests/peers/requirements.txt; writes beside itself)

NAME.json   config     our struct model_config, field by field
            batch, tokens   B, T
            cases      mixed-target losses: {name, residual, sparse or dense, loss, hard, soft, correct}; means over rows, nats
            adamw      settings and the losses of ten steps, each before its update
            arrays     {name, dtype "f32" | "i32" | "i64", shape, offset in bytes into NAME.bin}
NAME.bin    the arrays, little-endian, row-major, each at a multiple of 8
Arrays: param/TENSOR, tokens [B, T+1], logits [B*T, V], and of a case C: C/weight [M], C/offsets [M+1], C/ids, C/values or
C/dense [M, V], and its gradient C/grad/TENSOR of the mean loss; adamw/tokens [2, B, T+1], used in turn.
rope.json   inverse rotary frequencies of real configurations.
"""
import json
import pathlib

import numpy as np
import torch
from transformers import (GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

HERE = pathlib.Path(__file__).resolve().parent
ADAMW = {"lr": 3e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "decay": 0.1, "steps": 10}


class Writer:
    def __init__(self):
        self.data, self.arrays = bytearray(), []

    def put(self, name, array):
        array = np.ascontiguousarray(array)
        kind = {"float32": "f32", "int32": "i32", "int64": "i64"}[array.dtype.name]
        self.data += b"\0" * (-len(self.data) % 8)
        self.arrays.append({"name": name, "dtype": kind, "shape": list(array.shape), "offset": len(self.data)})
        self.data += array.tobytes()

    def save(self, name, header):
        text = json.dumps({**header, "arrays": self.arrays}, indent=1)
        (HERE / (name + ".json")).write_text(text + "\n")
        (HERE / (name + ".bin")).write_bytes(self.data)


def gpt2(vocab, context, d_model, layers, heads, d_ff, tied):
    cfg = GPT2Config(vocab_size=vocab, n_positions=context, n_embd=d_model, n_layer=layers, n_head=heads, n_inner=d_ff,
                     resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, layer_norm_epsilon=1e-5, tie_word_embeddings=tied,
                     bos_token_id=None, eos_token_id=None)
    ours = {"family": "gpt2", "vocab_size": vocab, "context": context, "d_model": d_model, "n_layers": layers,
            "n_heads": heads, "n_kv_heads": heads, "head_dim": d_model // heads, "d_ff": d_ff, "norm_eps": 1e-5,
            "tied": tied, "attention_bias": True, "mlp_bias": True, "rope_theta": 0.0}
    return GPT2LMHeadModel(cfg), ours


def rope_parameters(theta, scaling):
    if scaling is None:
        return {"rope_type": "default", "rope_theta": theta}
    factor, low, high, original = scaling
    return {"rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": low,
            "high_freq_factor": high, "original_max_position_embeddings": original}


def llama(vocab, context, d_model, layers, heads, kv_heads, head_dim, d_ff, tied, bias, theta, scaling=None):
    cfg = LlamaConfig(vocab_size=vocab, max_position_embeddings=context, hidden_size=d_model, num_hidden_layers=layers,
                      num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, intermediate_size=d_ff,
                      rms_norm_eps=1e-5, tie_word_embeddings=tied, attention_bias=bias, mlp_bias=bias,
                      rope_parameters=rope_parameters(theta, scaling), bos_token_id=None, eos_token_id=None)
    ours = {"family": "llama", "vocab_size": vocab, "context": context, "d_model": d_model, "n_layers": layers,
            "n_heads": heads, "n_kv_heads": kv_heads, "head_dim": head_dim, "d_ff": d_ff, "norm_eps": 1e-5,
            "tied": tied, "attention_bias": bias, "mlp_bias": bias, "rope_theta": theta}
    if scaling is not None:
        ours["rope_scaling"] = dict(zip(("factor", "low_freq_factor", "high_freq_factor", "original_context"), scaling))
    return LlamaForCausalLM(cfg), ours


def qwen(version, vocab, context, d_model, layers, heads, kv_heads, head_dim, d_ff, tied, bias, theta):
    shape = dict(vocab_size=vocab, max_position_embeddings=context, hidden_size=d_model, num_hidden_layers=layers,
                 num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, intermediate_size=d_ff,
                 rms_norm_eps=1e-6, tie_word_embeddings=tied, rope_parameters=rope_parameters(theta, None))
    ours = {"family": f"qwen{version}", "vocab_size": vocab, "context": context, "d_model": d_model, "n_layers": layers,
            "n_heads": heads, "n_kv_heads": kv_heads, "head_dim": head_dim, "d_ff": d_ff, "norm_eps": 1e-6, "tied": tied,
            "attention_bias": bias, "mlp_bias": False, "rope_theta": theta}
    if version == 2:
        return Qwen2ForCausalLM(Qwen2Config(**shape)), ours
    return Qwen3ForCausalLM(Qwen3Config(**shape, attention_bias=bias)), ours


def neox(vocab, context, d_model, layers, heads, d_ff, tied, bias, theta, share, parallel):
    rope = {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": share}
    cfg = GPTNeoXConfig(vocab_size=vocab, max_position_embeddings=context, hidden_size=d_model, num_hidden_layers=layers,
                        num_attention_heads=heads, intermediate_size=d_ff, layer_norm_eps=1e-5, tie_word_embeddings=tied,
                        attention_bias=bias, use_parallel_residual=parallel, rope_parameters=rope)
    ours = {"family": "gpt_neox", "vocab_size": vocab, "context": context, "d_model": d_model, "n_layers": layers,
            "n_heads": heads, "n_kv_heads": heads, "head_dim": d_model // heads, "d_ff": d_ff, "norm_eps": 1e-5, "tied": tied,
            "attention_bias": bias, "mlp_bias": True, "rope_theta": theta, "parallel_residual": parallel,
            "rotary_dim": int(d_model // heads * share)}
    return GPTNeoXForCausalLM(cfg), ours


MODELS = {
    "gpt2_tied": (lambda: gpt2(131, 19, 21, 2, 3, 55, True), 3, 13, True),
    "gpt2_untied": (lambda: gpt2(67, 8, 20, 3, 5, 33, False), 1, 7, False),
    "llama_grouped": (lambda: llama(131, 64, 30, 2, 6, 2, 8, 41, True, False, 10000.0), 2, 11, True),
    "llama_biases": (lambda: llama(97, 32, 20, 2, 4, 4, 6, 37, False, True, 500.0), 3, 9, False),
    "llama_scaled": (lambda: llama(71, 512, 21, 2, 3, 1, 10, 29, False, False, 10000.0, (8.0, 1.0, 4.0, 24)), 2, 37, False),
    "qwen2": (lambda: qwen(2, 83, 40, 22, 2, 4, 2, 6, 31, True, True, 1000.0), 2, 11, True),
    "qwen3": (lambda: qwen(3, 79, 40, 18, 2, 6, 2, 10, 35, False, False, 5000.0), 2, 13, True),
    "neox": (lambda: neox(89, 40, 24, 2, 3, 50, False, True, 10000.0, 0.25, True), 2, 13, True),
    "neox_serial": (lambda: neox(61, 40, 20, 3, 2, 27, True, False, 500.0, 0.6, False), 1, 17, False),
}


def randomise(model, rng):
    """Weights far from their initial values, so that no gradient is small by construction."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            x = torch.from_numpy(rng.standard_normal(tuple(p.shape)).astype(np.float32))
            if p.dim() == 2:
                p.copy_(0.2 * x)
            elif name.endswith("bias"):
                p.copy_(0.1 * x)
            else:
                p.copy_(1 + 0.3 * x)


def named(model):
    """As their files name them: GPT-NeoX's output layer has another name there than in memory."""
    neox = model.config.model_type == "gpt_neox"
    return {"embed_out.weight" if neox and n == "lm_head.weight" else n: p for n, p in model.named_parameters()}


def soft_label(logits, tau, rng):
    """A teacher that is near the student, and errs."""
    u = logits.double() + torch.from_numpy(rng.standard_normal(tuple(logits.shape)))
    return torch.softmax(u / tau, -1)


def mixed_loss(z, y, w, t, residual):
    """z [M, V] float64; t [M, V] probabilities, zero outside K; the loss of each row, and its soft part."""
    logp = torch.log_softmax(z, -1)
    onehot = torch.nn.functional.one_hot(y, z.shape[1]).double()
    tail = 1 - t.sum(-1)
    if residual == "ghost":
        outside = torch.where(t > 0, -torch.inf, logp).logsumexp(-1)
        soft = -(t * logp).sum(-1) - torch.where(tail > 1e-9, tail * outside, 0)
        return (1 - w) * -(onehot * logp).sum(-1) + w * soft, soft
    if residual == "true_token":
        t = t + tail[:, None] * onehot
    elif residual == "renormalise":
        t = t / t.sum(-1, keepdim=True)
    q = (1 - w)[:, None] * onehot + w[:, None] * t
    return torch.logsumexp(z, -1) - (q * z).sum(-1), -(t * logp).sum(-1)


def sparse(t, k):
    out = torch.zeros_like(t)
    ids = t.topk(k, -1).indices
    return out.scatter(-1, ids, t.gather(-1, ids))


def sampled(t, n, rng):
    counts = np.stack([rng.multinomial(n, row / row.sum()) for row in t.numpy()])
    return torch.from_numpy(counts / n)


def cases_of(logits, rng):
    soft = soft_label(logits, 0.8, rng)
    return [("true_token", sparse(soft, 5)), ("renormalise", sparse(soft, 5)), ("ghost", sparse(soft, 5)),
            ("sampled", sampled(soft, 13, rng)), ("dense", soft)]


def put_grads(out, case, model):
    for name, p in named(model).items():
        out.put(f"{case}/grad/{name}", p.grad.numpy())


def run_case(out, model, x, y, case, t, w):
    """One loss, its gradient, and what our side needs to make the same. t None: the plain LM loss."""
    residual = case if case in ("renormalise", "ghost") else "true_token"
    model.zero_grad()
    z = model(x, use_cache=False).logits.flatten(0, 1).double()
    entry = {"name": case, "residual": residual, "sparse": False, "dense": False}
    hard = torch.nn.functional.cross_entropy(z, y, reduction="none")
    rows = hard
    if t is not None:
        t = t.float().double()
        rows, soft = mixed_loss(z, y, w.double(), t, residual)
        entry["soft"] = soft[w > 0].mean().item()
        entry["dense" if case == "dense" else "sparse"] = True
        out.put(f"{case}/weight", w.numpy())
    rows.mean().backward()
    entry.update(loss=rows.mean().item(), hard=hard.mean().item(), correct=int((z.argmax(-1) == y).sum()))
    if case == "dense":
        out.put("dense/dense", t.float().numpy())
    elif t is not None:
        kept = [row.nonzero()[:, 0] for row in t]
        out.put(f"{case}/offsets", np.cumsum([0] + [len(k) for k in kept]).astype(np.int64))
        out.put(f"{case}/ids", torch.cat(kept).numpy().astype(np.int32))
        out.put(f"{case}/values", torch.cat([row[k] for row, k in zip(t, kept)]).float().numpy())
    put_grads(out, case, model)
    return entry


def adamw_losses(model, tokens):
    groups = [{"params": [p for p in model.parameters() if p.dim() == 2], "weight_decay": ADAMW["decay"]},
              {"params": [p for p in model.parameters() if p.dim() != 2], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=ADAMW["lr"], betas=(ADAMW["beta1"], ADAMW["beta2"]), eps=ADAMW["eps"])
    losses = []
    for step in range(ADAMW["steps"]):
        batch = tokens[step % len(tokens)]
        optimiser.zero_grad()
        z = model(batch[:, :-1], use_cache=False).logits.flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(z, batch[:, 1:].flatten())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def make(name, seed):
    build, b, t, with_soft = MODELS[name]
    rng = np.random.default_rng(seed)
    model, config = build()
    randomise(model, rng)
    model.eval()
    out = Writer()
    for n, p in named(model).items():
        out.put("param/" + n, p.detach().numpy())
    tokens = torch.from_numpy(rng.integers(0, config["vocab_size"], (b, t + 1)))
    x, y = tokens[:, :-1], tokens[:, 1:].flatten()
    with torch.no_grad():
        logits = model(x, use_cache=False).logits.flatten(0, 1)
    out.put("tokens", tokens.numpy().astype(np.int32))
    out.put("logits", logits.numpy())
    cases = [run_case(out, model, x, y, "hard", None, None)]
    if with_soft:
        w = torch.full((b * t,), 2 / 3)
        w[1], w[4], w[b * t - 1] = 0, 1, 0.25
        cases += [run_case(out, model, x, y, case, label, w) for case, label in cases_of(logits, rng)]
    steps = torch.from_numpy(rng.integers(0, config["vocab_size"], (2, b, t + 1)))
    out.put("adamw/tokens", steps.numpy().astype(np.int32))
    adamw = {**ADAMW, "losses": adamw_losses(model, steps)}
    out.save(name, {"config": config, "batch": b, "tokens": t, "cases": cases, "adamw": adamw})


def make_rope():
    """Frequencies of configurations people use, from transformers' own rotary embedding."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    rows = []
    for what, head_dim, theta, scaling in (("SmolLM2-135M", 64, 100000.0, None), ("Llama 2", 128, 10000.0, None),
                                           ("Llama 3.1 8B", 128, 500000.0, (8.0, 1.0, 4.0, 8192)),
                                           ("Llama 3.2 1B", 64, 500000.0, (32.0, 1.0, 4.0, 8192))):
        cfg = LlamaConfig(hidden_size=head_dim, num_attention_heads=1, head_dim=head_dim,
                          rope_parameters=rope_parameters(theta, scaling))
        freq = LlamaRotaryEmbedding(cfg).inv_freq
        rows.append({"what": what, "head_dim": head_dim, "rope_theta": theta, "scaling": scaling,
                     "inv_freq": [float(f) for f in freq]})
    (HERE / "rope.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for number, model_name in enumerate(MODELS):
        make(model_name, 1000 + number)
    make_rope()
