# SPDX-License-Identifier: Apache-2.0
"""docs/python.md: all its commands and programs, in its order, in an empty folder."""
from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from fleet import BIN, SOURCE, free_port


def test_page(tmp_path: pathlib.Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')       # outside of an environment it may be python3 only
    (tools / "python").chmod(0o755)
    page = tmp_path / "page"
    page.mkdir()
    paths = [str(tools), os.path.dirname(sys.executable), str(BIN), str(SOURCE / "deploy"), os.environ["PATH"]]
    env = {**os.environ, "PATH": ":".join(paths), "SALT": str(SOURCE), "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    try:
        done = subprocess.run([sys.executable, SOURCE / "tests/snippets.py", SOURCE / "docs/python.md", page,
                               f"127.0.0.1:5750=127.0.0.1:{free_port()}", f":29500=:{free_port()}"],
                              env=env, timeout=570, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    finally:
        for config in ("fleet.yaml", "torch.yaml"):
            subprocess.run([SOURCE / "deploy/local.sh", "down", "-c", page / config], env=env, timeout=60, capture_output=True)
    print(done.stdout)
    assert done.returncode == 0
