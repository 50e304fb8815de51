"""The flow on each runner writes the catalogue that the stages without Prefect write, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tract7dt.sample import SampleOptions, make_sample

WAYS = {
    "direct": ("--direct", {}),
    "process": (None, {"task_runner": "process", "max_workers": 2, "patches_per_task": 1}),
    "thread": (None, {"task_runner": "thread", "max_workers": 2, "patches_per_task": 2}),
    "sequential": (None, {"task_runner": "sequential"}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``work_dir`` of the same field, run in every way by the command."""
    folder = tmp_path_factory.mktemp("runners")
    field = make_sample(
        folder / "field", SampleOptions(width=320, height=320, bands=3, stars=30, galaxies=20, seed=3)
    )
    config = yaml.safe_load(field.config.read_text())
    made = {}
    for name, (option, runtime) in WAYS.items():
        config["outputs"]["work_dir"] = str(folder / name)
        config["plotting"] = {"dpi": 40}
        config["runtime"] = runtime
        path = field.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        command = [
            sys.executable,
            "-m",
            "flows.cli",
            "run",
            "--config",
            str(path),
            *([option] if option else []),
        ]
        environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
        environment["PREFECT_HOME"] = str(folder / "prefect")
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        made[name] = folder / name
    return made


@pytest.mark.parametrize("way", [name for name in WAYS if name != "direct"])
@pytest.mark.parametrize("suffix", ["csv", "parquet", "fits"])
def test_the_same_bytes(runs: dict[str, Path], way: str, suffix: str) -> None:
    expected = (runs["direct"] / f"output_catalog.{suffix}").read_bytes()
    assert len(expected) > 5000
    assert (runs[way] / f"output_catalog.{suffix}").read_bytes() == expected
