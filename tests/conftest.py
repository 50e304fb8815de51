"""Fixtures that several test packages share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# CI tries the same examples every time, so that it judges the change and not the dice; elsewhere they vary.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Copies of inputs that are URLs go to the tests' own folder."""
    os.environ["TRACT7DT_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the shared material (real fields, simulator, checker); skips where it is not at hand."""
    folder = Path(os.environ.get("TRACT7DT_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "tools").is_dir():
        pytest.skip(f"shared material not found at {folder} (set TRACT7DT_SHARED)")
    return folder


@pytest.fixture(scope="session")
def bundled_field() -> Path:
    """The real field that comes with the package."""
    return REPOSITORY / "tract7dt" / "data" / "sdss_s82_small"
