# SPDX-License-Identifier: Apache-2.0
import pytest
from resume import EXAMPLES, killed_and_resumed

pytest.importorskip("lightning")
pytest.importorskip("torchdata")


def test_example_killed_and_resumed(make_fleet, tmp_path, assets):
    killed_and_resumed(make_fleet, tmp_path, lambda fleet, out: [EXAMPLES / "lightning_loop.py", fleet.config, assets / "student", out])
