"""Dask and Ray in the place of the pool, by setting alone: the same catalogue, and a killed worker survived."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest


def _need(runner: str) -> None:
    if importlib.util.find_spec(f"prefect_{runner}") is None:
        pytest.skip(f"prefect-{runner} is not installed: pip install 'tract7dt-flow[{runner}]'")


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_cluster_makes_the_same_and_survives_a_killed_worker(served: Any, runner: str) -> None:
    _need(runner)
    expected = served("run", "--config", str(served.config("sequential")), "--direct")
    assert expected.code == 0, expected.err
    work = f"outputs.work_dir={served.folder / 'clustered'}"
    trouble = {"fit_patch_batch:p04": "kill once", "build_epsf_band:m425": "kill once"}
    ran = served("run", "--config", str(served.config(runner)), "--override", work, trouble=trouble)
    assert ran.code == 0, ran.err
    clustered = served.folder / "clustered"
    assert (clustered / "output_catalog.csv").read_bytes() == expected.catalog
    calls = [line.split() for line in (clustered / "calls.txt").read_text().splitlines()]
    main = next(pid for stage, _, pid in calls if stage == "merge")
    assert main not in {pid for stage, _, pid in calls if stage in ("fit_patch_batch", "build_epsf_band")}
    assert len([1 for _, item, _ in calls if item == "p04"]) >= 2


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_runner_that_is_not_installed_is_named(command: Any, runner: str) -> None:
    if importlib.util.find_spec(f"prefect_{runner}") is not None:
        pytest.skip(f"prefect-{runner} is installed")
    ran = command("run", "--config", str(command.config(runner)))
    assert ran.code == 2
    assert f"runtime.task_runner is {runner}, but prefect-{runner} is not installed" in ran.err
