"""What is done to the server, or through it, while a run goes on: cancel, restart, no network."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import alive, descendants, wait_for

HERE = Path(__file__).resolve().parent


def _called(work: Path, stage: str) -> bool:
    calls = work / "calls.txt"
    return calls.is_file() and stage in calls.read_text()


def _post(url: str, path: str, body: Any) -> Any:
    request = urllib.request.Request(
        f"{url}{path}", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def _state(url: str, run_id: str) -> str:
    with urllib.request.urlopen(f"{url}/flow_runs/{run_id}", timeout=20) as answer:
        return str(json.load(answer)["state"]["name"])


@contextlib.contextmanager
def _worker(environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real process worker of Prefect."""
    with (folder / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "tests", "--type", "process"]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        yield process
    finally:
        family = {process.pid, *descendants(process.pid)}
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        for pid in alive(family):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _deployed_run(url: str, config: Path) -> str:
    """A run of a deployment that the server gives to the worker; its id."""
    with contextlib.suppress(urllib.error.HTTPError):  # there already
        _post(url, "/work_pools/", {"name": "tests", "type": "process"})
    flow = _post(url, "/flows/", {"name": "photometry"})
    deployment = _post(
        url,
        "/deployments/",
        {
            "name": f"T1-{time.monotonic_ns()}",
            "flow_id": flow["id"],
            "work_pool_name": "tests",
            "entrypoint": "fake_flow.photometry",
            "parameters": {"config": str(config)},
        },
    )
    return str(_post(url, f"/deployments/{deployment['id']}/create_flow_run", {})["id"])


def test_cancel_from_the_api_leaves_no_process(served: Any, server_url: str) -> None:
    """In the middle of fits, in worker processes that would hang for ever."""
    config, work = served.config("process", "night: {quiet_seconds: 0}\n"), served.folder / "out"
    trouble = json.dumps({"fit_patch_batch:p04": "hang"})
    environment = served.environment | {"FAKE_TROUBLE": trouble, "PREFECT_WORKER_QUERY_SECONDS": "2"}
    with _worker(environment, served.folder) as worker:
        run_id = _deployed_run(server_url, config)
        log = served.folder / "worker.log"
        assert wait_for(lambda: _called(work, "fit_patch_batch p04"), 400), log.read_text()
        family = descendants(worker.pid)
        assert len(family) >= 2  # the flow and its workers
        _post(
            server_url,
            f"/flow_runs/{run_id}/set_state",
            {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False},
        )
        begun = time.monotonic()
        assert wait_for(lambda: not alive(family), 40), log.read_text()
        assert wait_for(lambda: _state(server_url, run_id) == "Cancelled", 40), _state(server_url, run_id)
        assert time.monotonic() - begun < 40
    summary = json.loads((work / "run_summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["error"]["stage"] == "run_patches"
    assert "interrupted" in summary["error"]["message"]
    assert not (work / ".progress").exists()
    assert list(work.rglob(".*.tmp*")) == []


def test_cancel_of_a_run_that_a_command_has_started(served: Any, server_url: str) -> None:
    """No worker of Prefect's looks after it: it looks itself."""
    trouble = {"fit_patch_batch:p04": "hang"}
    process = served.start("run", "--config", str(served.config("process")), trouble=trouble)
    work = served.folder / "out"
    try:
        assert wait_for(lambda: _called(work, "fit_patch_batch p04"), 400)
        run_id = json.loads((work / "run_summary.json").read_text())["run_id"]
        family = descendants(process.pid)
        assert family
        state = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
        _post(server_url, f"/flow_runs/{run_id}/set_state", state)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "the run was cancelled on the server" in err
    assert wait_for(lambda: not alive(family), 3)
    assert _state(server_url, run_id) == "Cancelled"
    assert list(work.rglob(".*.tmp*")) == []


def _start_server(port: int, home: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server_child", str(port), str(os.getpid())],
            env=environment | {"PREFECT_SERVER_API_PORT": str(port)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2))
        return False

    assert wait_for(answers, 120), (home / "server.log").read_text()
    return process


def _stop_server(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


def _copy_database(home: Path, to: Path) -> None:
    """An empty one is made in steps that take longer than all the rest of a test."""
    with (
        contextlib.closing(sqlite3.connect(home / "prefect.db")) as there,
        contextlib.closing(sqlite3.connect(to / "prefect.db")) as here,
    ):
        there.backup(here)


def test_a_run_outlives_a_restart_of_its_server(
    command: Any, tmp_path: Path, prefect_home: Path, server_url: str
) -> None:
    """Killed while ePSFs are built, back after some seconds: the run ends well, and the server knows."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path / "home"
    home.mkdir()
    _copy_database(prefect_home, home)
    environment = command.environment | {"PREFECT_HOME": str(home)}
    url = f"http://127.0.0.1:{port}/api"
    server = _start_server(port, home, environment)
    try:
        process = command.start(
            *("run", "--config", str(command.config("process"))),
            env={"PREFECT_HOME": str(home), "PREFECT_API_URL": url, "FAKE_CELL_S": "1.0"},
        )
        try:
            work = command.folder / "out"
            assert wait_for(lambda: _called(work, "build_epsf_band"), 400)
            _stop_server(server)
            time.sleep(2)
            assert process.poll() is None  # in the middle of it
            server = _start_server(port, home, environment)
            _, err = process.communicate(timeout=400)
        finally:
            process.kill()
        assert process.returncode == 0, err
        summary = json.loads((work / "run_summary.json").read_text())
        assert summary["status"] == "done"
        assert _state(url, summary["run_id"]) == "Completed"
    finally:
        _stop_server(server)


def _no_network() -> list[str] | None:
    """Command prefix without any network but loopback; None where that is not allowed."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return None
    prefix = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if tried.returncode == 0 else None


@pytest.mark.slow
def test_a_run_needs_no_internet(command: Any) -> None:
    """With a server of its own, in a network of nothing but loopback."""
    prefix = _no_network()
    if prefix is None:
        pytest.skip("no network namespaces here (unshare, ip)")
    outside = subprocess.run([*prefix, "ip", "-o", "link"], capture_output=True, text=True, check=True)
    assert len(outside.stdout.splitlines()) >= 1
    assert "eth" not in outside.stdout
    config = command.config("process")
    arguments = [*prefix, sys.executable, str(HERE / "fake_cli.py"), "run", "--config", str(config)]
    done = subprocess.run(
        arguments, env=command.environment, cwd=command.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "artifacts are not up to date" not in done.stderr
    assert json.loads((command.folder / "out" / "run_summary.json").read_text())["status"] == "done"


def test_nothing_is_reported_to_anybody(command: Any) -> None:
    """Neither by the server nor by the client, whoever starts the flow."""
    code = (
        "import flows.photometry\n"
        "from prefect._internal.analytics.enabled import is_telemetry_enabled\n"
        "from prefect.settings import get_current_settings\n"
        "print(is_telemetry_enabled(), get_current_settings().server.analytics_enabled)\n"
        "import os\n"
        "print(os.environ['RAY_USAGE_STATS_ENABLED'])\n"
    )
    noisy = ("CI", "DO_NOT_TRACK", "GITHUB_ACTIONS", "RAY_USAGE_STATS_ENABLED")
    environment = {name: value for name, value in command.environment.items() if name not in noisy}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False", "0"]
