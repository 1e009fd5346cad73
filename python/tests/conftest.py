# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pathlib
from typing import Any, Callable, Iterator

import pytest
import torch

from fleet import Fleet, make_corpus, make_model

torch.set_num_threads(1)        # tests run side by side


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with train and held (corpora), teacher (random weights), student (a shape)."""
    folder = tmp_path_factory.mktemp("assets")
    make_corpus(folder / "train", folder / "held")
    make_model(folder / "teacher", 11)
    make_model(folder / "student", None)
    return folder


@pytest.fixture
def make_fleet(tmp_path: pathlib.Path, assets: pathlib.Path) -> Iterator[Callable[..., Fleet]]:
    """make_fleet(trainer={...}, ...): a Fleet in a folder of its own; its daemons end with the test."""
    made: list[Fleet] = []

    def make(**changes: Any) -> Fleet:
        made.append(Fleet(tmp_path / f"fleet-{len(made)}", assets, **changes))
        return made[-1]

    yield make
    for fleet in made:
        fleet.down()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, assets: pathlib.Path) -> Iterator[Fleet]:
    """One running fleet for the tests of a module that only read: 12 steps of 8 rows, the switch at 6, sampled labels."""
    f = Fleet(tmp_path_factory.mktemp("fleet"), assets).up()
    yield f
    f.down()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A file whose framework is not installed: skipped, for ctest."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = 77
