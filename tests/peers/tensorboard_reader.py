# SPDX-License-Identifier: Apache-2.0
"""The run of tests/system/tensorboard.sh, read by TensorBoard's own reader: steps done twice are there once.

    tests/peers/run.sh tests/peers/tensorboard_reader.py --bin build/dev/bin
"""
import argparse
import importlib.util
import os
import pathlib
import subprocess
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--bin", type=pathlib.Path, required=True)
parser.add_argument("--source", type=pathlib.Path, default=pathlib.Path("."))
args = parser.parse_args()
if importlib.util.find_spec("tensorboard") is None:
    print("skipped: no tensorboard in this python: run tests/peers/setup.sh", file=sys.stderr)
    sys.exit(77)
environment = dict(os.environ, BIN=str(args.bin.resolve()), SOURCE=str(args.source.resolve()), TB_READER=sys.executable)
sys.exit(subprocess.run(["bash", str(args.source / "tests/system/tensorboard.sh")], env=environment, timeout=240).returncode)
