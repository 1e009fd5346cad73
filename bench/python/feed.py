# SPDX-License-Identifier: Apache-2.0
"""python_feed_tps: tokens a second of SaltDataset in a loop that does nothing, one process, against a real selectord that has all labels
(sampled, N = 50, 512 tokens a sequence, 32 sequences a step). Entries of a token are printed; text labelled by a trained model has about 12.

    tests/peers/run.sh bench/python/feed.py --build BUILD [--json FILE] [--rounds N] [--tiny] [--cpu-time]

The median of the rounds counts. selectord works beside it, on the same processors. --cpu-time: processor seconds of this process in place of
the clock's, for a busy machine; selectord's are not in them.
"""
from __future__ import annotations

import argparse
import glob
import json
import os
import pathlib
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument("--build", type=pathlib.Path, default=SOURCE / "build")
p.add_argument("--json", type=pathlib.Path)
p.add_argument("--rounds", type=int, default=5)
p.add_argument("--tiny", action="store_true")
p.add_argument("--cpu-time", action="store_true")
args = p.parse_args()
os.environ.update(BIN=str((args.build / "bin").resolve()), SOURCE=str(SOURCE))
os.environ.setdefault("SALTFLEET_LIBRARY", str((args.build / "lib/libsaltfleet.so.1").resolve()))
sys.path[:0] = [str(SOURCE / "python"), str(SOURCE / "python/tests")]

from fleet import TOKENIZER, Fleet, make_corpus, saltctl  # noqa: E402
from saltfleet import SaltDataset  # noqa: E402

clock = time.process_time if args.cpu_time else time.perf_counter
context, batch, steps = (32, 8, 6) if args.tiny else (512, 32, 20)
with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    texts = None if args.tiny else sorted(glob.glob("/usr/share/doc/*/copyright"))[:300] + sorted(glob.glob("/usr/share/common-licenses/*"))
    make_corpus(folder / "train", folder / "held", texts)
    for name, seed in ("teacher", 11), ("student", None):
        saltctl("model", "new", "--layers", 1, "--width", 64, "--heads", 2, "--context", context, "--untied", "--tokenizer", TOKENIZER,
                *(["--weights", seed] if seed else []), folder / name)
    # A random teacher is nearly uniform; at a low temperature its labels are as narrow as those of a trained one.
    fleet = Fleet(folder / "fleet", folder, corpus={"context": context}, cache={"dir": "cache", "map_size": "1GiB"},
                  labels={"kind": "sampled", "samples": 50, "seed": 7, "tau": 0.03}, phase_one={"steps": steps, "weight": 0.667},
                  trainer={"steps": steps, "batch": batch}).up()
    try:
        ds = SaltDataset(fleet.config, timeout_s=1200)
        entries = sum(int((b.soft_weights > 0).sum()) for b in ds) / (steps * batch * context)      # waits for the labels
        fleet.stop("teacherd-0")
        found = []
        for _ in range(args.rounds):
            ds.set_step(0)
            begun, tokens = clock(), 0
            for b in ds:
                tokens += b.input_ids.numel()
            found.append(tokens / (clock() - begun))
        ds.close()
    finally:
        fleet.down()
value = sorted(found)[len(found) // 2]
row = {"name": "python_feed_tps", "value": round(value), "unit": "tokens/s" + (" of processor time" if args.cpu_time else ""), "peer": None,
       "peer_value": None, "ratio": None}
print(f"{row['name']:<28} {row['value']:>10} {row['unit']}  {entries:.1f} entries a token; rounds {min(found):.0f} to {max(found):.0f}")
if args.json:
    args.json.write_text(json.dumps([row], indent=1) + "\n")
