"""A run of the flow while others fail it: the object store is slow or fails half-way, the server is gone."""

from __future__ import annotations

import json
import os
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from processes import wait_for
from s3_server import Proxy, S3Server
from test_flows_server import _called, _start_server, _state, _stop_server

pytestmark = pytest.mark.slow


def _aws() -> dict[str, str]:
    return {name: os.environ[name] for name in os.environ if name.startswith("AWS_")} | {
        "AWS_ENDPOINT_URL": ""
    }


def _published(served: Any, proxy: Proxy) -> str:
    return str(served.config(more=f"publish: {{url: s3://faults/7dt, endpoint_url: '{proxy.endpoint}'}}"))


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_store_that_is_slow_delays_the_run_and_nothing_else(
    served: Any, s3: S3Server, proxy: Proxy, server_url: str
) -> None:
    bucket = s3.bucket("faults")
    proxy.fault = lambda method, path: 0.5
    ran = served(
        "run", "--config", _published(served, proxy), "--night", "2026-11-01", env=_aws()
    )  # before those of the others
    assert ran.code == 0, ran.err
    assert any(method == "PUT" for method, _ in proxy.requests)
    run_id = ran.summary["run_id"]
    assert json.loads((bucket / "7dt" / "T1" / "latest.json").read_text())["run_id"] == run_id
    assert _state(server_url, run_id) == "Completed"


@pytest.mark.parametrize("fault", ["503", "cut"])
def test_a_store_that_fails_half_way_costs_the_publication_alone(
    served: Any, s3: S3Server, proxy: Proxy, server_url: str, fault: str
) -> None:
    """The run is a failed one, its catalogue is whole; the next one computes nothing and publishes."""
    bucket = s3.bucket("faults")
    config, env = _published(served, proxy), _aws()
    before = _files(bucket)
    puts = 0

    def half_way(method: str, path: str) -> str | None:
        nonlocal puts
        puts += method == "PUT"
        return fault if puts > 6 else None

    proxy.fault = half_way
    ran = served("run", "--config", config, "--night", f"2026-11-{10 + len(fault)}", env=env)
    assert ran.code == 1, ran.err
    assert "the catalogue is complete" in ran.err
    assert "Traceback" not in ran.err
    assert ran.summary["status"] == "done"
    failed = ran.summary["run_id"]
    assert _state(server_url, failed) == "Failed"
    new = _files(bucket) - before
    assert new  # it was in the middle
    assert not any(name.endswith("manifest.json") for name in new)
    latest = bucket / "7dt" / "T1" / "latest.json"
    assert not latest.is_file() or json.loads(latest.read_text())["run_id"] != failed

    proxy.fault = lambda method, path: None
    again = served("run", "--config", config, "--night", f"2026-11-{10 + len(fault)}", env=env)
    assert again.code == 0, again.err
    computed = {entry["name"] for entry in again.summary["stages"] if entry["status"] != "cached"}
    assert computed <= {"run_patches"}  # these stages cost nothing, and sign no fits that could be reused
    assert again.catalog == ran.catalog
    assert json.loads(latest.read_text())["run_id"] == again.summary["run_id"]
    assert _state(server_url, again.summary["run_id"]) == "Completed"
    assert not list(again.work.rglob(".*.tmp*"))


def _task_runs(url: str, run_id: str) -> list[dict[str, Any]]:
    """Task runs of a run, as the UI lists them."""
    body = json.dumps({"flow_runs": {"id": {"any_": [run_id]}}, "limit": 200}).encode()
    request = urllib.request.Request(
        f"{url}/task_runs/filter", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return list(json.load(answer))


@pytest.mark.parametrize("stage", ["load_inputs", "build_epsf_band", "fit_patch_batch"])
def test_a_server_that_is_gone_for_a_minute(command: Any, tmp_path: Path, stage: str) -> None:
    """Killed in a stage, back after 60 s on the same port and database, while the run needs it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path / "home"
    home.mkdir()
    environment = command.environment | {"PREFECT_HOME": str(home)}
    url = f"http://127.0.0.1:{port}/api"
    server = _start_server(port, home, environment)
    pace = {"FAKE_CELL_S": "1.0", "FAKE_PATCH_S": "1.0"}
    try:
        process = command.start(
            *("run", "--config", str(command.config("process"))),
            env={"PREFECT_HOME": str(home), "PREFECT_API_URL": url} | pace,
        )
        try:
            work = command.folder / "out"
            assert wait_for(lambda: _called(work, stage), 400)
            _stop_server(server)
            time.sleep(60)
            assert process.poll() is None, process.communicate()
            server = _start_server(port, home, environment)
            _, err = process.communicate(timeout=600)
        finally:
            process.kill()
        assert process.returncode == 0, err
        summary = json.loads((work / "run_summary.json").read_text())
        assert summary["status"] == "done"
        assert len((work / "output_catalog.csv").read_text().splitlines()) > 1
        calls = [line.split()[:2] for line in (work / "calls.txt").read_text().splitlines()]
        assert len(calls) == len({tuple(call) for call in calls})  # nothing was computed twice
        assert _state(url, summary["run_id"]) == "Completed"
        tasks = _task_runs(url, summary["run_id"])
        assert tasks
        assert {task["state"]["type"] for task in tasks} == {"COMPLETED"}
        assert not list(work.rglob(".*.tmp*"))
    finally:
        _stop_server(server)
