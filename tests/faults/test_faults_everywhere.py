"""A run that dies or finds no room, at every place at which it can: the next one goes on and loses nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tract7dt.run_record import STAGES

HERE = Path(__file__).resolve().parent
#: Stages of a run of the command, all of which a fault must have met when it is tried everywhere.
MET = set(STAGES)


def cases(folder: Path, kind: str, step: int, *prefix: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The healthy run and the cases."""
    command = [*prefix, sys.executable, str(HERE / "forked_runs.py"), str(folder), kind, str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    healthy, *rest = [json.loads(line) for line in done.stdout.splitlines()]
    assert healthy["code"] == 0, healthy["words"]
    assert rest
    return healthy, rest


def assert_survived(healthy: dict[str, Any], case: dict[str, Any]) -> None:
    assert case["again"] == 0, case["words"]
    assert case["catalogue"] == healthy["catalogue"], case["number"]
    assert case["refitted"] == []
    assert case["temporaries"] == []


@pytest.mark.parametrize("step", [37, pytest.param(1, marks=pytest.mark.slow)], ids=["few", "everywhere"])
def test_killed_and_gone_on(tmp_path: Path, step: int) -> None:
    healthy, tried = cases(tmp_path, "kill", step)
    for case in tried:
        assert_survived(healthy, case)
    # Notes of progress are written by the clock, so a run may put a few files fewer than the healthy one.
    missed = [case["number"] for case in tried if case["code"] == 0]
    assert {case["code"] for case in tried} <= {-9, 0}
    assert len(missed) <= max(1, 0.1 * len(tried))
    assert all(number > 0.8 * healthy["replacements"] for number in missed)
    if step == 1:
        assert {case["stopped"] for case in tried} >= MET
        assert {case["finished"] for case in tried} == {0, 1, 2, 3, 4}


@pytest.mark.slow
def test_clock_that_goes_back(tmp_path: Path) -> None:
    healthy, tried = cases(tmp_path, "clock", 10)
    for case in tried:
        assert case["code"] == 0, case["terminal"]
        assert_survived(healthy, case)


@pytest.mark.slow
def test_disk_that_is_full_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """A file system of 12 MB, in a namespace of our own, filled but for a little more each time."""
    mount = 'mount -t tmpfs -o size=12m none "$1" && shift && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(tmp_path)]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no mount namespaces here: {error}")
    healthy, tried = cases(tmp_path, "full", 48, *prefix)
    failed = [case for case in tried if case["code"] != 0]
    assert len(failed) > 10
    for case in failed:
        assert case["code"] == 1
        # of the system, and of astropy where it writes a FITS file
        assert re.search("No space left on device|Not enough space on disk", case["terminal"])
        assert "what to do:" in case["terminal"]
    for case in tried:
        assert_survived(healthy, case)
