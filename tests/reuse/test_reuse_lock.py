"""One run at a time in a work_dir."""

from __future__ import annotations

import getpass
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tract7dt import reuse
from tract7dt.errors import RunLocked, Tract7dtError
from tract7dt.settings import Settings, settings_from_dict

HOLD = """
import sys, time
from pathlib import Path
from tract7dt import reuse
from tract7dt.settings import settings_from_dict
inputs = {"input_catalog": "c.csv", "image_list_file": "l.txt"}
settings = settings_from_dict({"inputs": inputs, "outputs": {"work_dir": sys.argv[1]}}, Path("/")).settings
with reuse.locked(settings, "run-of-the-night"):
    print("held", flush=True)
    time.sleep(60)
"""


def configured(folder: Path) -> Settings:
    inputs = {"input_catalog": "c.csv", "image_list_file": "l.txt"}
    return settings_from_dict({"inputs": inputs, "outputs": {"work_dir": str(folder)}}, folder).settings


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", HOLD, str(tmp_path / "work")]
    environment = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process  # type: ignore[misc]
    process.kill()
    process.wait()


def test_second_run_is_refused_and_told_whose_the_first_is(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(RunLocked) as caught, reuse.locked(configured(tmp_path / "work"), "other"):
        pass
    assert isinstance(caught.value, Tract7dtError)
    for word in (
        "run run-of-the-night",
        f"of {getpass.getuser()} on {socket.gethostname()}",
        f"process {holder.pid}",
        f"since {time.strftime('%Y-%m-%dT')}",
        str(tmp_path / "work"),
    ):
        assert word in str(caught.value)


def test_killed_run_leaves_a_stale_lock_that_blocks_nobody(
    holder: subprocess.Popen[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with caplog.at_level(logging.WARNING), reuse.locked(configured(tmp_path / "work"), "next") as dead:
        assert dead == "run-of-the-night"
    assert "the lock of run run-of-the-night" in caplog.text
    assert "is stale" in caplog.text
    caplog.clear()
    with reuse.locked(configured(tmp_path / "work"), "next but one") as dead:
        assert dead is None
    assert not caplog.records, "a run that ends gives its lock back"


def test_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    settings = configured(tmp_path / "work")
    with pytest.raises(ZeroDivisionError), reuse.locked(settings, "a"):
        raise ZeroDivisionError
    with reuse.locked(settings, "b"), pytest.raises(RunLocked), reuse.locked(settings, "c"):
        pass
    with reuse.locked(configured(tmp_path / "elsewhere"), "d"), reuse.locked(settings, "e"):
        pass
