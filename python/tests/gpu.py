# SPDX-License-Identifier: Apache-2.0
"""Teacher and training loop on a GPU, one command of a few minutes; prints JSON rows as the benches do.

    python3 python/tests/gpu.py [--device cuda] [--bin FOLDER] [--json FILE] [--tiny]

It needs the saltfleet package (the wheel, or else this source and the library of the build), torch, transformers, and a selectord: in FOLDER, else in
build/bin, else on the PATH. The GPU's machine needs none of our Debian packages if the folder comes from a machine where saltfleet was built:

    python3 python/tests/gpu.py --pack FOLDER [--bin build/bin]       selectord, libsaltfleet and the libraries that they need

Rows: python_gpu_label_tps, tokens a second that a teacher of SmolLM2-135M's shape labels, as selectord acknowledges them; python_gpu_train_tps
and python_gpu_train_plain_tps, tokens a second of a student in phase one with labels at hand, and in phase two.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

SOURCE = pathlib.Path(__file__).resolve().parents[2]
VOCAB = 49152


def pack(bin_dir: pathlib.Path, out: pathlib.Path) -> None:
    """Everything but the C library and what belongs to it."""
    out.mkdir(parents=True, exist_ok=True)
    files = [bin_dir / "selectord", bin_dir.parent / "lib/libsaltfleet.so.1"]
    for file in files:
        shutil.copy(file.resolve(), out / file.name)
        for name, path in re.findall(r"^\s*(\S+) => (/\S+)", subprocess.run(["ldd", file], capture_output=True, text=True, check=True).stdout, re.M):
            if not re.match(r"(libc|libm|libdl|librt|libpthread|ld-linux)[.-]", name):
                shutil.copy(path, out / name)
    print(f"{out}: {', '.join(sorted(p.name for p in out.iterdir()))}")


def find_bin(given: pathlib.Path | None) -> pathlib.Path:
    on_path = shutil.which("selectord")
    places = [given] if given else [pathlib.Path(os.environ["BIN"])] if "BIN" in os.environ else [SOURCE / "build/bin"] + (
        [pathlib.Path(on_path).parent] if on_path else [])
    for place in places:
        if (place / "selectord").exists():
            return place.resolve()
    sys.exit(f"gpu.py: no selectord in {' or '.join(map(str, places))}: build it (deploy/install-deps.sh, cmake --preset release, cmake --build --preset "
             "release), or bring a folder of --pack from a machine where it is built")


class Scene:
    """A corpus of random ids, fleet.yaml and a selectord, in a folder of its own."""

    def __init__(self, bin_dir: pathlib.Path, folder: pathlib.Path, teacher: pathlib.Path, *, vocab: int, context: int, batch: int, steps: int,
                 phase_one: int, compute_class: str):
        import numpy as np

        self.folder, self.config, self._selectord = folder, folder / "fleet.yaml", None
        rng = np.random.default_rng(7)
        for name, n in (("train", steps * batch * context + 1), ("held", 4 * context + 1)):
            ids = np.minimum(rng.zipf(1.2, n) - 1, vocab - 1).astype("<u2")
            ids.tofile(folder / f"{name}.bin")
            (folder / f"{name}.json").write_text(json.dumps({"format": "saltfleet-corpus", "version": 1, "kind": "raw", "dtype": "uint16",
                                                             "n_tokens": n, "vocab": vocab}))
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.config.write_text(f"""run: {{dir: run, seed: 3}}
corpus: {{train: {folder}/train, heldout: {folder}/held, context: {context}}}
cache: {{dir: cache, map_size: 64MiB}}
teacher: {{model: {teacher}, compute_class: {compute_class}}}
labels: {{kind: sampled, samples: 50, seed: 7}}
selector: {{mode: none, endpoints: ["tcp://127.0.0.1:{port}"], lease_sequences: 32, label_ahead_steps: all}}
trainer: {{steps: {steps}, batch: {batch}, eval_every: 0}}
phase_one: {{steps: {phase_one}, weight: 0.667}}
""")
        env = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(bin_dir), os.environ.get("LD_LIBRARY_PATH", "")]))} if list(
            bin_dir.glob("*.so*")) else None
        self._log = open(folder / "selectord.log", "wb")
        self._selectord = subprocess.Popen([bin_dir / "selectord", "-c", self.config], stdout=self._log, stderr=self._log, env=env)

    def close(self) -> None:
        self._selectord.terminate()
        self._selectord.wait(30)
        self._log.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def label(scene: Scene, teacher: pathlib.Path, device: str, rows: int, context: int) -> dict[str, Any]:
    """Tokens a second between the first tenth of the rows and the last row, so that the start does not count."""
    import saltfleet

    log = open(scene.folder / "teacher.log", "wb")
    process = subprocess.Popen([sys.executable, "-m", "saltfleet.teacher", "-c", scene.config, "--model", teacher, "--device", device], stdout=log, stderr=log)
    points: list[tuple[float, int]] = []
    with saltfleet.Trainer(scene.config) as trainer:
        for step in range(rows // trainer.plan.batch):
            while True:
                try:
                    trainer.rows(step, timeout_s=1)
                    break
                except saltfleet.SaltTimeout:
                    if process.poll() is not None:
                        sys.exit(f"gpu.py: the teacher ended with {process.returncode}:\n{(scene.folder / 'teacher.log').read_text()[-3000:]}")
            points.append((time.monotonic(), (step + 1) * trainer.plan.batch))
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    text = (scene.folder / "teacher.log").read_text()
    assert code == 0, text[-3000:]
    (a, n), (b, m) = points[len(points) // 10], points[-1]
    found = re.search(r"event=batch sequences=(\d+)", text)
    return {"name": "python_gpu_label_tps", "value": round((m - n) * context / (b - a), 1), "unit": "tokens/s", "batch": int(found[1])}


def train(scene: Scene, student: Any, device: str, amp: bool) -> list[dict[str, Any]]:
    """The ten-line loop: phase one with labels at hand, then phase two. The first steps of each do not count."""
    import torch

    import saltfleet

    def wait() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.monotonic()

    model = student.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ends: dict[int, list[float]] = {1: [], 2: []}
    losses = []
    tokens = 0
    for batch in saltfleet.SaltDataset(scene.config, device=device, timeout_s=120):
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=amp):
            logits = model(input_ids=batch.input_ids, use_cache=False).logits
            loss = saltfleet.salt_loss(logits, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        ends[batch.phase].append(wait())
        tokens = batch.input_ids.numel()
    assert all(torch.isfinite(x) for x in losses), losses
    names = {1: "python_gpu_train_tps", 2: "python_gpu_train_plain_tps"}
    rows = []
    for phase, times in ends.items():
        steady = [b - a for a, b in zip(times[2:], times[3:])]
        rows.append({"name": names[phase], "value": round(tokens / sorted(steady)[len(steady) // 2], 1), "unit": "tokens/s"})
    rows[0].update(peer="the same loop without labels", peer_value=rows[1]["value"], ratio=round(rows[0]["value"] / rows[1]["value"], 4))
    return rows


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--device", default="cuda")
    p.add_argument("--bin", type=pathlib.Path)
    p.add_argument("--json", type=pathlib.Path)
    p.add_argument("--tiny", action="store_true", help="small shapes, to see that everything runs")
    p.add_argument("--pack", type=pathlib.Path)
    args = p.parse_args()
    bin_dir = find_bin(args.bin)
    if args.pack:
        return pack(bin_dir, args.pack)
    if (bin_dir / "libsaltfleet.so.1").exists():
        os.environ.setdefault("SALTFLEET_LIBRARY", str(bin_dir / "libsaltfleet.so.1"))
        import ctypes

        for so in sorted(bin_dir.glob("*.so*")):        # so that the library finds the others beside it, in whatever order they need each other
            for other in sorted(bin_dir.glob("*.so*")):
                try:
                    ctypes.CDLL(str(other), ctypes.RTLD_GLOBAL)
                except OSError:
                    pass
    if importlib.util.find_spec("saltfleet") is None:       # no wheel: this source, with the library of the build
        sys.path.insert(0, str(SOURCE / "python"))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SOURCE / "python"), os.environ.get("PYTHONPATH", "")]))
        os.environ.setdefault("SALTFLEET_LIBRARY", str(bin_dir.parent / "lib/libsaltfleet.so.1"))
    import torch
    import transformers

    cuda = args.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        sys.exit("gpu.py: torch.cuda.is_available() is False: --device cpu --tiny tries the script itself")
    begun = time.monotonic()
    vocab, context, batch, phase_one, steps = (512, 64, 8, 8, 16) if args.tiny else (VOCAB, 1024, 16, 48, 80)
    shape = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2) if args.tiny else dict(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        config = transformers.LlamaConfig(vocab_size=vocab, max_position_embeddings=context, tie_word_embeddings=True, **shape)
        transformers.LlamaForCausalLM(config).save_pretrained(folder / "teacher")
        student = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=vocab, max_position_embeddings=context, tie_word_embeddings=True, **(
            shape if args.tiny else dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=16, num_attention_heads=16, num_key_value_heads=16))))
        compute_class = "bf16/torch-cuda" if cuda else "fp32/torch-cpu"
        with Scene(bin_dir, folder, folder / "teacher", vocab=vocab, context=context, batch=batch, steps=steps, phase_one=phase_one,
                   compute_class=compute_class) as scene:
            rows = [label(scene, folder / "teacher", args.device, phase_one * batch, context)]
            rows += train(scene, student, args.device, amp=cuda)
    where = {"device": torch.cuda.get_device_name() if cuda else "cpu", "torch": torch.__version__, "seconds": round(time.monotonic() - begun)}
    text = json.dumps([{"peer": None, "peer_value": None, "ratio": None, **row, **where} for row in rows], indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
