# SPDX-License-Identifier: Apache-2.0
"""Llama models and tokenizers of Hugging Face as GGUF files, for tests and fixtures: names, order of rows and metadata as
llama.cpp's conversion makes them."""
import gguf
import numpy as np

LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
TYPE = gguf.GGMLQuantizationType


def name_of(name):
    stem, end = name.rsplit(".", 1)
    if stem in ENDS:
        return f"{ENDS[stem]}.{end}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[rest]}.{end}"


def pair_rows(w, heads):
    """Halves of a head's rotary pairs -> pairs side by side."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def finite_halves(rng, n, largest=0x7800):
    """fp16 bits of any sign and exponent (subnormal ones too) up to `largest`."""
    return (rng.integers(0, largest, n, dtype=np.uint16) | rng.integers(0, 2, n, dtype=np.uint16) << 15).view(np.uint8).reshape(n, 2)


def random_blocks(rng, type_, rows, width, largest=0x7800):
    """Blocks of every bit pattern but for scales that are no numbers: bytes [rows, bytes of a row]."""
    elements, size = gguf.GGML_QUANT_SIZES[type_]
    n = rows * width // elements
    p = rng.integers(0, 256, (n, size), dtype=np.uint8)
    if type_ in (TYPE.F32, TYPE.BF16):
        p[:, -1] &= 0xBF                # exponent under 128
    elif type_ == TYPE.F16:
        p = finite_halves(rng, n, largest)
    else:
        at = [size - 2] if type_ == TYPE.Q6_K else [0] if type_ in (TYPE.Q4_0, TYPE.Q5_0, TYPE.Q8_0) else [0, 2]
        for a in at:
            p[:, a:a + 2] = finite_halves(rng, n, largest)
    return p.reshape(rows, -1)


def quantize(rng, w, type_):
    """The array's bytes in a type; K types, which the package only reads, get random blocks with small scales instead."""
    if type_ in (TYPE.Q4_K, TYPE.Q5_K, TYPE.Q6_K):
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


def write(path, model, type_of, rng, tokenizer=None, pre="smollm", bos=None, eos=None, more={}):
    """A transformers LlamaForCausalLM; type_of(name of a matrix) -> its type, vectors are F32. more: F32 vectors besides."""
    c = model.config
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_rope_dimension_count(c.head_dim)
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_vocab_size(c.vocab_size)
    if tokenizer:
        add_tokenizer(w, tokenizer, pre, bos, eos)
    for name, x in model.state_dict().items():
        x = x.float().numpy()
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        if ".q_proj." in name or ".k_proj." in name:
            x = pair_rows(x, c.num_attention_heads if ".q_proj." in name else c.num_key_value_heads)
        type_ = type_of(name) if x.ndim == 2 else TYPE.F32
        w.add_tensor(name_of(name), quantize(rng, x, type_), raw_dtype=type_)
    for name, x in more.items():
        w.add_tensor(name, x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
