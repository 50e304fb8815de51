from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from reuse_runs import Rerun, copied, small_sample


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
    return copied(first, tmp_path / "moved")


@pytest.fixture
def copies(first: Rerun, tmp_path: Path) -> Callable[[str], Rerun]:
    return lambda name: copied(first, tmp_path / name)
