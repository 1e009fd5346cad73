# SPDX-License-Identifier: Apache-2.0
"""Models and tokenizers of Hugging Face as GGUF files, for tests and fixtures: names are those of the gguf package, values, order of
rows and metadata as llama.cpp's conversion makes them."""
import gguf
import numpy as np
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

ARCHS = {"llama": "LLAMA", "mistral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3", "gemma": "GEMMA", "gemma2": "GEMMA2",
         "gemma3_text": "GEMMA3", "phi3": "PHI3", "olmo2": "OLMO2", "smollm3": "SMOLLM3", "granite": "GRANITE"}     # model_type: MODEL_ARCH
PAIRED = ("LLAMA", "SMOLLM3", "GRANITE")
TYPE = gguf.GGMLQuantizationType
READ_ONLY = (TYPE.Q2_K, TYPE.Q3_K, TYPE.Q4_K, TYPE.Q5_K, TYPE.Q6_K, TYPE.IQ4_NL, TYPE.IQ4_XS)
TYPES = [TYPE.F32, TYPE.F16, TYPE.BF16, TYPE.Q8_0, TYPE.Q4_0, TYPE.Q4_1, TYPE.Q5_0, TYPE.Q5_1, TYPE.Q2_K, TYPE.Q3_K, TYPE.Q4_K, TYPE.Q5_K,
         TYPE.Q6_K, TYPE.IQ4_NL, TYPE.IQ4_XS, TYPE.MXFP4, TYPE.TQ1_0, TYPE.TQ2_0]


def pair_rows(w, heads):
    """Halves of a head's rotary pairs -> pairs side by side."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def halve_rows(w, heads):
    """The way back."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def finite_halves(rng, n, largest=0x7800):
    """fp16 bits of any sign and exponent (subnormal ones too) up to `largest`."""
    return (rng.integers(0, largest, n, dtype=np.uint16) | rng.integers(0, 2, n, dtype=np.uint16) << 15).view(np.uint8).reshape(n, 2)


def random_blocks(rng, type_, rows, width, largest=0x7800, edges=False):
    """Blocks of every bit pattern but for scales that are no numbers: bytes [rows, bytes of a row]. edges: scales of
    the first three blocks are extreme ones."""
    elements, size = gguf.GGML_QUANT_SIZES[type_]
    n = rows * width // elements
    p = rng.integers(0, 256, (n, size), dtype=np.uint8)
    if type_ in (TYPE.F32, TYPE.BF16):
        p[:, -1] &= 0xBF                # exponent under 128
    elif type_ == TYPE.MXFP4:           # scales are powers of two, all but the largest ones, whose products are no floats
        p[:, 0] %= 253 if largest == 0x7800 else 110
        if edges:                       # subnormal ones, the largest
            p[:3, 0] = 0, 1, 252
    elif type_ == TYPE.F16:
        p = finite_halves(rng, n, largest)
    else:
        at = {TYPE.Q6_K: [208], TYPE.Q3_K: [108], TYPE.Q2_K: [80, 82], TYPE.TQ1_0: [52], TYPE.TQ2_0: [64]}.get(type_)
        at = at or ([0, 2] if type_ in (TYPE.Q4_1, TYPE.Q5_1, TYPE.Q4_K, TYPE.Q5_K) else [0])
        for a in at:
            p[:, a:a + 2] = finite_halves(rng, n, largest)
            if edges:                   # smallest subnormal, largest, minus zero
                p[:3, a:a + 2] = np.array([0x0001, 0x7BFF, 0x8000], np.uint16).view(np.uint8).reshape(3, 2)
    return p.reshape(rows, -1)


def quantize(rng, w, type_):
    """The array's bytes in a type; types that the package only reads get random blocks with small scales instead."""
    if type_ in READ_ONLY:
        return random_blocks(rng, type_, *w.shape, largest=0x1000)
    return gguf.quants.quantize(np.ascontiguousarray(w, dtype=np.float32), type_)


def add_tokenizer(writer, tokenizer, pre, bos=None, eos=None):
    """tokenizer: the object in a tokenizer.json."""
    vocab = {i: t for t, i in tokenizer["model"]["vocab"].items()}
    kind = {i: gguf.TokenType.NORMAL for i in vocab}
    for t in tokenizer["added_tokens"]:
        vocab[t["id"]] = t["content"]
        kind[t["id"]] = gguf.TokenType.CONTROL if t["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([vocab[i] for i in range(len(vocab))])
    writer.add_token_types([kind[i] for i in range(len(vocab))])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    if bos is not None:
        writer.add_bos_token_id(bos)
    if eos is not None:
        writer.add_eos_token_id(eos)


def add_rope(w, c, head_dim):
    """Rope's keys; returns the tensors that llama3 scaling and LongRoPE are stored as."""
    p = c.rope_parameters
    if "full_attention" in p:           # Gemma 3: local layers have a base of their own
        w.add_rope_freq_base_swa(p["sliding_attention"]["rope_theta"])
        p = p["full_attention"]
    w.add_rope_freq_base(p["rope_theta"])
    if p["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(p["factor"])
    elif p["rope_type"] == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(p["factor"])
        w.add_rope_scaling_orig_ctx_len(p["original_max_position_embeddings"])
    elif p["rope_type"] == "llama3":
        plain = 1 / p["rope_theta"] ** (torch.arange(0, head_dim, 2) / head_dim)
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](c, "cpu")
        return {"rope_freqs.weight": (plain / scaled).numpy().astype("<f4")}
    elif p["rope_type"] == "longrope" and c.model_type != "phi3":
        return {"rope_freqs.weight": np.array(p["short_factor"], "<f4")}
    elif p["rope_type"] == "longrope":
        w.add_rope_scaling_orig_ctx_len(p["original_max_position_embeddings"])
        w.add_rope_scaling_attn_factors(ROPE_INIT_FUNCTIONS["longrope"](c, "cpu")[1])
        return {f"rope_factors_{k}.weight": np.array(p[f"{k}_factor"], "<f4") for k in ("short", "long")}
    return {}


def add_own(w, c):
    """Keys of single architectures."""
    if c.model_type in ("gemma2", "gemma3_text"):
        w.add_sliding_window(c.sliding_window)
    if c.model_type == "gemma2":
        w.add_attn_logit_softcapping(c.attn_logit_softcapping)
        w.add_final_logit_softcapping(c.final_logit_softcapping)
    if c.model_type == "phi3":
        w.add_sliding_window(c.sliding_window or 0)
    if c.model_type == "granite":
        w.add_attention_scale(c.attention_multiplier)
        w.add_embedding_scale(c.embedding_multiplier)
        w.add_residual_scale(c.residual_multiplier)
        w.add_logit_scale(c.logits_scaling)


def write(path, model, type_of, rng, tokenizer=None, pre="smollm", bos=None, eos=None, more={}):
    """A transformers causal LM; type_of(name of a matrix) -> its type, vectors are F32. more: F32 vectors besides. Returns the values that
    the file has, under the model's own names and in its own order of rows."""
    c = model.config
    arch = getattr(gguf.MODEL_ARCH, ARCHS[c.model_type])
    names = gguf.get_tensor_name_map(arch, c.num_hidden_layers)
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    w = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    if head_dim != c.hidden_size // c.num_attention_heads:
        w.add_key_length(head_dim)
        w.add_value_length(head_dim)
    if c.model_type == "phi3":
        w.add_rope_dimension_count(int(head_dim * c.rope_parameters.get("partial_rotary_factor", 1.0)))
    elif ARCHS[c.model_type] in PAIRED:
        w.add_rope_dimension_count(head_dim)
    add_own(w, c)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_vocab_size(c.vocab_size)
    more = add_rope(w, c, head_dim) | more
    if tokenizer:
        add_tokenizer(w, tokenizer, pre, bos, eos)
    decoded = {}
    for name, x in model.state_dict().items():
        x = x.float().numpy()
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        heads = c.num_attention_heads if ".q_proj." in name else c.num_key_value_heads if ".k_proj." in name else 0
        paired = heads and ARCHS[c.model_type] in PAIRED
        plus = np.float32("gemma" in c.model_type and name.endswith("norm.weight"))     # Gemma's norms are stored as 1 + g
        x = x + plus
        type_ = type_of(name) if x.ndim == 2 else TYPE.F32
        if x.shape[-1] % gguf.GGML_QUANT_SIZES[type_][0]:       # rows are whole blocks, llama.cpp falls back too
            type_ = TYPE.Q8_0 if x.shape[-1] % 32 == 0 else TYPE.F16
        data = quantize(rng, pair_rows(x, heads) if paired else x, type_)
        w.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), data, raw_dtype=type_)
        back = gguf.quants.dequantize(data, type_).astype(np.float32).reshape(x.shape)
        decoded[name] = torch.from_numpy(np.array(halve_rows(back, heads) if paired else back) - plus)
    if c.tie_word_embeddings:
        decoded["lm_head.weight"] = decoded["model.embed_tokens.weight"]
    for name, x in more.items():
        w.add_tensor(name, x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return decoded
