"""A real field fitted by machines that share nothing with the run but a scheduler and an object store.

Workers are processes of their own in folders of their own; each has an ear on what it opens, and would tell of any
file of the run. One of them dies of its first batch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server

from tract7dt.sample import SampleOptions, make_sample

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = SampleOptions(
    width=420, height=420, bands=3, seed=9, stars=50, galaxies=20, saturated=1, uncatalogued=1
)
SETTINGS = (
    "epsf.epsf_ngrid=2",
    "epsf.ngrid=2",
    "patch_run.n_opt_iters=8",
    "patch_run.no_cutouts=true",
    "patch_run.no_patch_overview=true",
    "overlay.zoom_enabled=false",
    "plotting.dpi=40",
    "runtime.patches_per_task=2",
    "runtime.max_workers=2",
)

#: Given to each worker before it begins.
PRELOAD = """\
import os, signal, sys
from pathlib import Path

hidden, here = os.environ["HIDDEN"], Path(os.environ["HERE"])

def listen(event, args):
    if event == "open" and isinstance(args[0], str) and args[0].startswith(hidden):
        with (here / "saw").open("a") as told:
            told.write(args[0] + "\\n")

sys.addaudithook(listen)

from tract7dt import stages

fit = getattr(stages.fit_patch_batch, "real", stages.fit_patch_batch)  # this module is loaded twice

def fit_here(settings, payloads, on_patch=None):
    with (here / "batches").open("a") as told:
        told.write(f"{os.getpid()} {stages.payload_tag(payloads[0])}\\n")
    if os.environ.get("DIES") and not (here / "died").exists():
        (here / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return fit(settings, payloads, on_patch)

fit_here.real = fit
stages.fit_patch_batch = fit_here
"""


def _need(runner: str) -> None:
    if importlib.util.find_spec(f"prefect_{runner}") is None:
        pytest.skip(f"prefect-{runner} is not installed: pip install 'tract7dt-flow[{runner}]'")


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample(tmp_path_factory.mktemp("staged") / "field", OPTIONS).directory


def run(served: Any, field: Path, name: str, *options: str) -> Path:
    """A run of the field by the command; its work_dir."""
    work = served.folder / name
    overrides = [part for o in (*SETTINGS, f"outputs.work_dir={work}", *options) for part in ("-o", o)]
    command = [sys.executable, "-m", "flows.cli", "run", "-c", str(field / "config.yaml"), *overrides]
    ran = subprocess.run(command, env=served.environment, cwd=served.folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return Path(work)


@contextlib.contextmanager
def cluster(folder: Path, hidden: Path, environment: dict[str, str]) -> Iterator[str]:
    """A scheduler and two workers, each in a folder of its own; the first dies of its first batch."""
    from distributed import Client

    known = folder / "scheduler.json"
    preload = folder / "preload.py"
    preload.write_text(PRELOAD)
    dask = [sys.executable, "-m", "dask"]
    started = [
        subprocess.Popen(
            [*dask, "scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard"]
            + ["--scheduler-file", str(known)],
            cwd=folder,
            env=environment,
        )
    ]
    try:
        for number in range(2):
            here = folder / f"machine{number}"
            here.mkdir()
            mine = {"HERE": str(here), "HIDDEN": str(hidden), "TMPDIR": str(here)}
            mine |= {"DIES": "1"} if number == 0 else {}
            own = {k: v for k, v in environment.items() if k not in ("PREFECT_API_URL", "PREFECT_HOME")}
            started.append(
                subprocess.Popen(
                    [*dask, "worker", "--scheduler-file", str(known), "--nworkers", "1", "--nthreads", "1"]
                    + ["--no-dashboard", "--preload", str(preload), "--host", "127.0.0.1"],
                    cwd=here,
                    env=own | mine | {"PREFECT_HOME": str(here / "prefect")},
                )
            )
        end = time.monotonic() + 180
        while not known.exists():
            assert time.monotonic() < end
            time.sleep(0.2)
        with Client(scheduler_file=str(known), timeout=120) as client:
            client.wait_for_workers(2, timeout=180)
        yield str(json.loads(known.read_text())["address"])
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.mark.slow
def test_dask_workers_without_a_shared_disk(s3: S3Server, served: Any, field: Path, tmp_path: Path) -> None:
    _need("dask")
    bucket = s3.bucket("staging")
    served.environment |= {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    served.environment["PYTHONPATH"] = str(ROOT)
    expected = run(served, field, "direct", "runtime.task_runner=process")
    machines = tmp_path / "machines"
    machines.mkdir()
    with cluster(machines, served.folder / "dasked", served.environment) as address:
        work = run(
            served,
            field,
            "dasked",
            "runtime.task_runner=dask",
            f"runtime.cluster.address={address}",
            "runtime.staging_url=s3://staging/area",
            "patch_run.remove_payloads=true",
        )
    assert (work / "output_catalog.csv").read_bytes() == (expected / "output_catalog.csv").read_bytes()
    begun = [
        line.split()
        for number in range(2)
        for line in (machines / f"machine{number}" / "batches").read_text().splitlines()
    ]
    tags = [tag for _, tag in begun]
    assert (machines / "machine0" / "died").exists()
    assert len(tags) == len(set(tags)) + 1 == 9, "sixteen patches in eight batches, one of them twice"
    opened = [path.read_text() for path in machines.glob("machine*/saw")]
    assert not opened, "workers opened files of the run"
    assert not [path for path in bucket.rglob("*") if path.is_file()], "the staging area is empty again"
    assert not list((work / "patch_payloads").glob("*.fits*"))
    summary = json.loads((work / "run_summary.json").read_text())
    assert summary["status"] == "done"
    assert all(cost["cpu_s"] > 0 for cost in summary["patch_costs"].values())
    [fits] = [entry for entry in summary["stages"] if entry["name"] == "run_patches"]
    assert fits["cpu_s"] >= sum(cost["cpu_s"] for cost in summary["patch_costs"].values())


@pytest.mark.slow
def test_ray_workers_by_url(s3: S3Server, served: Any, field: Path) -> None:
    _need("ray")
    bucket = s3.bucket("staging-ray")
    served.environment |= {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    served.environment["PYTHONPATH"] = str(ROOT)
    expected = run(served, field, "sequential", "runtime.task_runner=sequential")
    work = run(
        served,
        field,
        "rayed",
        "runtime.task_runner=ray",
        "runtime.staging_url=s3://staging-ray/area",
    )
    assert (work / "output_catalog.csv").read_bytes() == (expected / "output_catalog.csv").read_bytes()
    assert not [path for path in bucket.rglob("*") if path.is_file()]
