# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import subprocess

import pytest
from resume import EXAMPLES, HERE, killed_and_resumed

nanochat = os.environ.get("SALT_NANOCHAT")
if not nanochat:
    pytest.skip("SALT_NANOCHAT: no checkout of nanochat (commit 92d63d4)", allow_module_level=True)


def test_recipe_killed_and_resumed(make_fleet, tmp_path):
    patched = tmp_path / "nanochat"
    shutil.copytree(nanochat, patched, ignore=shutil.ignore_patterns(".git"))
    subprocess.run(["patch", "-s", "-p1", "-i", EXAMPLES / "nanochat.diff"], cwd=patched, check=True)
    killed_and_resumed(make_fleet, tmp_path, lambda fleet, out: [HERE / "nanochat_cpu.py", patched, fleet.config, out])
