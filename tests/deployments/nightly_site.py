"""A site of its own for a test: a folder, a Prefect home, a free port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

CONFIG = """\
inputs: {tile_name: %s, input_catalog: input_catalog.csv, image_list_file: "%s",
         gaiaxp_synphot_csv: gaiaxp_synphot.csv}
outputs: {work_dir: "runs/{night}"}
crop: {margin: 6, plot_pre_crop: false}
overlay: {zoom_enabled: false}
plotting: {dpi: 40}
epsf: {epsf_ngrid: 1, ngrid: 2}
patch_run: {no_patch_overview: true, n_opt_iters: 8}
runtime: {max_workers: 2}
night: {quiet_seconds: 0, retry_minutes: 0.1}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def site_environment(home: Path) -> dict[str, str]:
    """As a new operator's: no Prefect, no store, a home of its own, the package first on the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "AWS_"))}
    paths = [
        str(ROOT),
        *[p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(ROOT)],
    ]
    return kept | {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PYTHONPATH": os.pathsep.join(paths),
        "TRACT7DT_CACHE_DIR": str(home / "cache"),
        "COLUMNS": "200",
    }


@dataclass
class Site:
    """A site, served or not."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def ui(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "serve.log").read_text(errors="replace")

    def add(self, name: str, seed: int, cron: str | None, listed: str = "image_list.txt") -> Path:
        from tract7dt.sample import SampleOptions, make_sample

        data = self.folder / "data" / name
        make_sample(data, SampleOptions(width=260, height=260, bands=2, seed=seed, stars=22, galaxies=6))
        (data / "config.yaml").write_text(CONFIG % (name, listed))
        fields = self.folder / "fields"
        fields.mkdir(exist_ok=True)
        schedule = f"cron: '{cron}'\n" if cron else ""
        (fields / f"{name}.yaml").write_text(f"config: ../data/{name}/config.yaml\n{schedule}")
        return data

    def serve(self, runs: int = 1) -> None:
        command = [sys.executable, "-m", "flows.cli", "serve", str(self.folder), "--port", str(self.port)]
        command += ["--runs", str(runs)]
        with (self.folder / "serve.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self.wait("worker started", 180)

    def wait(self, text: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while text not in self.log:
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > end:
                raise AssertionError(f"no {text!r} in\n{self.log}")
            time.sleep(0.3)

    def post(self, path: str, body: Any) -> Any:
        return self.request("POST", path, body)

    def request(self, method: str, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.ui}/api{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for pause in (1, 2, 4, 8, None):
            try:
                with opener.open(request, timeout=180) as answer:  # of a machine that is busy
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                # SQLite that somebody else writes to: the server asks to be asked again.
                if error.code != 503 or pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError

    def runs(self, field: str) -> list[dict[str, Any]]:
        """Runs of a field that have left the schedule, the earliest first."""
        asked = {
            "deployments": {"name": {"any_": [field]}},
            "flow_runs": {"start_time": {"is_null_": False}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        return list(self.post("/flow_runs/filter", asked))

    def latest(self, field: str) -> dict[str, Any]:
        """The record of the last night's run of a field."""
        records = sorted((self.folder / "data" / field / "runs").glob("*/run_summary.json"))
        return dict(json.loads(records[-1].read_text()))

    def wait_for_run(
        self, field: str, said: Callable[[dict[str, Any]], bool], seconds: float = 420.0
    ) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := [run for run in self.runs(field) if said(run)]:
                return found[0]
            time.sleep(1.0)
        seen = [(r["name"], r["state"]["name"], r["state"]["message"]) for r in self.runs(field)]
        raise AssertionError(f"{field}: {seen}\n{self.log[-3000:]}")

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            self.process = None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site", free_port(), environment=site_environment(tmp_path))
    made.folder.mkdir()
    yield made
    if made.process is not None:
        made.process.kill()
