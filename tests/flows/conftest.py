"""The ``tract7dt`` command over fake stages, on a real Prefect server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from s3_server import proxy, s3, s3_server

__all__ = ["proxy", "s3", "s3_server"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

CONFIG = """\
inputs: {{tile_name: T1, input_catalog: cat.csv, image_list_file: list.txt, gaiaxp_synphot_csv: gaia.csv}}
outputs: {{work_dir: out}}
runtime: {{task_runner: {runner}, max_workers: 2, retry_delay_seconds: 0.1}}
{more}
"""


@dataclass
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str
    folder: Path
    seconds: float

    @property
    def work(self) -> Path:
        return self.folder / "out"

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.work / "run_summary.json").read_text()))

    @property
    def calls(self) -> list[list[str]]:
        return [line.split() for line in (self.work / "calls.txt").read_text().splitlines()]

    @property
    def catalog(self) -> bytes:
        return (self.work / "output_catalog.csv").read_bytes()

    def stage(self, name: str) -> dict[str, Any]:
        return next(entry for entry in self.summary["stages"] if entry["name"] == name)


@dataclass
class Command:
    """Starts commands in a folder of their own, with an environment of their own."""

    environment: dict[str, str]
    folder: Path

    def config(self, runner: str = "thread", more: str = "") -> Path:
        for name in ("cat.csv", "gaia.csv"):  # their bytes are keys of what is reused
            (self.folder / name).write_text(name)
        fits.PrimaryHDU(np.zeros((2, 2), np.float32)).writeto(self.folder / "image.fits", overwrite=True)
        (self.folder / "list.txt").write_text("image.fits\n")
        path = self.folder / "config.yaml"
        path.write_text(CONFIG.format(runner=runner, more=more))
        return path

    def start(self, *args: str, trouble: dict[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        environment = self.environment | {"FAKE_TROUBLE": json.dumps(trouble or {})} | more.pop("env", {})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
        command = [sys.executable, str(HERE / "fake_cli.py"), *args]
        return subprocess.Popen(command, env=environment, cwd=self.folder, **pipes)

    def __call__(self, *args: str, trouble: dict[str, str] | None = None, **more: Any) -> Ran:
        begun = time.monotonic()
        process = self.start(*args, trouble=trouble, **more)
        out, err = process.communicate(timeout=400)
        return Ran(process.returncode, out, err, self.folder, time.monotonic() - begun)


def _environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "FAKE_", "COLUMNS"))}
    path = os.pathsep.join([str(ROOT), str(HERE)])
    return kept | {"PYTHONPATH": path, "PREFECT_HOME": str(home), "FAKE_CELL_S": "0.01", "COLUMNS": "120"}


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def server_url(prefect_home: Path) -> Iterator[str]:
    """A Prefect server of the tests, started as the command starts its own."""
    from flows.server import LocalServer

    before = os.environ.get("PREFECT_HOME")
    os.environ["PREFECT_HOME"] = str(prefect_home)
    server = LocalServer(prefect_home / "server.log")
    try:
        with server.running():
            server.wait_until_ready()
            yield server.url
    finally:
        if before is None:
            del os.environ["PREFECT_HOME"]
        else:
            os.environ["PREFECT_HOME"] = before


@pytest.fixture
def command(tmp_path: Path, prefect_home: Path) -> Command:
    """Commands without a configured server."""
    return Command(_environment(prefect_home), tmp_path)


@pytest.fixture
def served(tmp_path: Path, prefect_home: Path, server_url: str) -> Command:
    """Commands on the server of the tests."""
    return Command(_environment(prefect_home) | {"PREFECT_API_URL": server_url}, tmp_path)


@pytest.fixture(scope="session")
def make_served(prefect_home: Path, server_url: str) -> Callable[[Path], Command]:
    return lambda folder: Command(_environment(prefect_home) | {"PREFECT_API_URL": server_url}, folder)
