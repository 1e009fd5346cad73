# SPDX-License-Identifier: Apache-2.0
"""S(x) of the scorer of tests/system/choice.sh, beside PyTorch's of the same weights; that script compares the rows at 1, 2 and 4 shards.

    tests/peers/run.sh tests/peers/choice_torch.py --bin build/dev/bin
"""
import argparse
import os
import pathlib
import subprocess
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--bin", type=pathlib.Path, required=True)
parser.add_argument("--source", type=pathlib.Path, default=pathlib.Path("."))
args = parser.parse_args()
environment = dict(os.environ, BIN=str(args.bin.resolve()), SOURCE=str(args.source.resolve()), SCORES_TORCH=sys.executable)
sys.exit(subprocess.run(["bash", str(args.source / "tests/system/choice.sh")], env=environment, timeout=240).returncode)
