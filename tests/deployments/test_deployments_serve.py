"""What becomes of a site whose command is killed, or that is wrong from the beginning."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from nightly_site import Site
from typer.testing import CliRunner

from flows.cli import app


def _children_of(pid: int) -> set[str]:
    """Command lines of what runs still below a folder's processes."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            line = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if fields[0] != "Z" and f" {pid}" in line:
            found.add(line)
    return found


@pytest.mark.slow
def test_nothing_is_left_of_a_site_that_is_killed(site: Site) -> None:
    (site.folder / "fields").mkdir()
    site.serve()
    assert site.process is not None
    pid = site.process.pid
    assert (
        len(
            [
                line
                for line in _children_of(pid)
                if "flows.server_child" in line or "flows.worker_child" in line
            ]
        )
        == 2
    )
    os.kill(pid, signal.SIGKILL)
    site.process.wait(10)
    end = time.monotonic() + 60
    while (left := _children_of(pid)) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == set()


def test_a_folder_that_is_no_site(tmp_path: Path) -> None:
    for command in ("serve", "deploy"):
        ran = CliRunner().invoke(app, [command, str(tmp_path)])
        assert ran.exit_code == 2, ran.output
