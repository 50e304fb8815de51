"""A browser, and a small run with its report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium
from report_runs import SmallRun, small_run


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile"), (1300, 1100)) as started:
        yield started


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A simulated field, run with every picture; nobody may change it."""
    return small_run(tmp_path_factory.mktemp("report") / "field")


@pytest.fixture
def copy(run: SmallRun, tmp_path: Path) -> SmallRun:
    """The same to work on."""
    return run.copied(tmp_path / "field")
