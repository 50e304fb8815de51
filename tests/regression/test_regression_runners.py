"""The flow on each runner writes the catalogue that the stages without Prefect write, to the last bit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.server import LocalServer
from tract7dt.sample import SampleOptions, make_sample

WAYS = {
    "direct": ("--direct", {}),
    "process": (None, {"task_runner": "process", "max_workers": 2, "patches_per_task": 1}),
    "thread": (None, {"task_runner": "thread", "max_workers": 2, "patches_per_task": 2}),
    "sequential": (None, {"task_runner": "sequential"}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """``work_dir`` of the same field, run in every way by the command; one server for all."""
    folder = tmp_path_factory.mktemp("runners")
    field = make_sample(
        folder / "field", SampleOptions(width=320, height=320, bands=3, stars=30, galaxies=20, seed=3)
    )
    config = yaml.safe_load(field.config.read_text())
    config |= {"plotting": {"dpi": 40}, "patch_run": {"no_patch_overview": True, "no_cutouts": True}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(folder / "prefect"))
        patch.delenv("PREFECT_API_URL", raising=False)
        server = LocalServer(folder / "server.log")
        with server.running():
            server.wait_until_ready()
            patch.setenv("PREFECT_API_URL", server.url)
            made = {}
            for name, (option, runtime) in WAYS.items():
                config["outputs"]["work_dir"] = str(folder / name)
                config["runtime"] = runtime
                path = field.directory / f"{name}.yaml"
                path.write_text(yaml.safe_dump(config))
                command = [sys.executable, "-m", "flows.cli", "run", "--config", str(path)]
                command += [option] if option else []
                done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
                assert done.returncode == 0, done.stderr[-3000:]
                made[name] = folder / name
            yield made


@pytest.mark.parametrize("way", [name for name in WAYS if name != "direct"])
@pytest.mark.parametrize("suffix", ["csv", "parquet", "fits"])
def test_the_same_bytes(runs: dict[str, Path], way: str, suffix: str) -> None:
    expected = (runs["direct"] / f"output_catalog.{suffix}").read_bytes()
    assert len(expected) > 5000
    assert (runs[way] / f"output_catalog.{suffix}").read_bytes() == expected
