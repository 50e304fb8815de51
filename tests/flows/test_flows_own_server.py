"""The server that a run starts for itself: when it is known that it needs one, and what it does until then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import server

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a Prefect home without anything in them."""
    for name in [name for name in os.environ if name.upper().startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_process_looks_for_an_address_where_none_can_be(bare: Path) -> None:
    asked = server.ConfiguredUrl()
    assert asked.is_nowhere
    assert asked.url() is None


@pytest.mark.parametrize("place", [".env", "prefect.toml", "pyproject.toml", "home/profiles.toml"])
def test_a_file_of_prefects_settings_is_read(bare: Path, place: str) -> None:
    (bare / place).write_text("")
    asked = server.ConfiguredUrl()
    asked.close()
    assert not asked.is_nowhere


@pytest.mark.parametrize("name", ["PREFECT_PROFILE", "prefect_api_url", "PREFECT_PROFILES_PATH"])
def test_a_variable_that_leads_to_an_address_is_followed(
    bare: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "local")
    asked = server.ConfiguredUrl()
    asked.close()
    assert not asked.is_nowhere


def test_a_held_server_that_is_not_released_leaves_nothing(bare: Path) -> None:
    """The run found its inputs wrong: no database, and no process that waits."""
    ended = subprocess.run(
        [sys.executable, "-m", "flows.server_child", "1", str(os.getpid()), "127.0.0.1", "held"],
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    assert not list((bare / "home").glob("prefect.db*"))
