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


def _running(site: Site) -> str:
    """A run that the server takes for running; its id."""
    (deployment,) = site.post("/deployments/filter", {"deployments": {"name": {"any_": ["UDS"]}}})
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T00:00:00Z"}}
    run = site.post(f"/deployments/{deployment['id']}/create_flow_run", {"state": later})
    answer = site.post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    assert answer["status"] == "ACCEPT"
    return str(run["id"])


@pytest.mark.slow
def test_nothing_is_left_of_a_site_that_is_killed(site: Site) -> None:
    (site.folder / "fields").mkdir()
    (site.folder / "fields" / "UDS.yaml").write_text("config: /data/none.yaml\n")
    site.serve()
    assert site.process is not None
    pid, run = site.process.pid, _running(site)
    lines = _children_of(pid)
    assert len([line for line in lines if "flows.server_child" in line or "flows.worker_child" in line]) == 2
    os.kill(pid, signal.SIGKILL)
    site.process.wait(10)
    end = time.monotonic() + 60
    while (left := _children_of(pid)) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == set()

    site.serve()
    assert "1 runs were cut off" in site.log
    (state,) = [found["state"] for found in site.post("/flow_runs/filter", {}) if found["id"] == run]
    assert state["type"] == "CRASHED"
    assert site.stop() == 0


def test_a_folder_that_is_no_site(tmp_path: Path) -> None:
    for command in ("serve", "deploy"):
        ran = CliRunner().invoke(app, [command, str(tmp_path)])
        assert ran.exit_code == 2, ran.output
