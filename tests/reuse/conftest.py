from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from reuse_runs import Rerun, small_sample


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Rerun:
    """A run from nothing. Nobody may run it again, or write to its folder."""
    folder = tmp_path_factory.mktemp("reuse")
    field = Rerun.of(small_sample(folder), folder / "first")
    assert len(field.run()) == 10
    return field


@pytest.fixture
def field(first: Rerun, tmp_path: Path) -> Rerun:
    """A copy of the run's folder at another place, with other times of its files."""
    return _copy(first, tmp_path / "moved")


def _copy(first: Rerun, folder: Path) -> Rerun:
    shutil.copytree(first.folder, folder)
    return Rerun(folder, {name: dict(section) for name, section in first.values.items()})


@pytest.fixture
def copies(first: Rerun, tmp_path: Path) -> Callable[[str], Rerun]:
    return lambda name: _copy(first, tmp_path / name)
