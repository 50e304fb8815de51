"""Faults in the middle of a run on a real server: what is lost, what is kept, who is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from processes import alive, descendants, wait_for, workers_of
from serverside import server_logs

HERE = Path(__file__).resolve().parent
NO_TRACE = "Traceback (most recent call last)"


def _temporaries(work: Path) -> list[Path]:
    return list(work.rglob(".*.tmp*"))


# --- the flow over stages that cost nothing ----------------------------------------------------------------


def test_what_happens_in_workers_stays_with_their_patches(served: Any, server_url: str) -> None:
    """Killed once, killed twice, memory filled, hanging: one run, which ends well but for three patches."""
    trouble = {
        "fit_patch_batch:p01": "kill once",
        "fit_patch_batch:p03": "os._exit",
        "fit_patch_batch:p05": "memory",
        "fit_patch_batch:p09": "hang",
        "build_epsf_band:m425": "kill once",
    }
    config = str(served.config("process"))
    limits = ["runtime.patch_timeout_seconds=6", "runtime.worker_memory_mb=1200"]
    options = [part for limit in limits for part in ("--override", limit)]
    ran = served("run", "--config", config, *options, trouble=trouble)
    assert ran.code == 1, ran.err
    assert NO_TRACE not in ran.err
    failed = ran.summary["counts"]["failed_patches"]
    assert set(failed) == {"p03", "p05", "p09"}
    assert failed["p03"] == "its worker was killed twice: exit status 7"
    assert failed["p05"].startswith("MemoryError")
    assert failed["p09"] == "not fitted in 6 s (runtime.patch_timeout_seconds)"
    assert {entry["status"] for entry in ran.summary["stages"]} <= {"done", "cached"}
    calls = [call[1] for call in ran.calls]
    assert [calls.count(tag) for tag in ("p00", "p01", "p03", "p09", "m425")] == [1, 2, 2, 1, 2]
    assert not _temporaries(ran.work)

    healthy_work = served.folder / "healthy"
    healthy = served("run", "--config", config, "--direct", "--override", f"outputs.work_dir={healthy_work}")
    assert healthy.code == 0, healthy.err
    expected = (healthy_work / "output_catalog.csv").read_text().splitlines()
    for line, other in zip(ran.catalog.decode().splitlines(), expected, strict=True):
        assert line == other or line in ("p03 has no fit", "p09 has no fit")

    for said in ("patch p03: its worker was killed (exit status 7); once more", "m425"):
        assert server_logs(server_url, said), said
    [entry, *_] = server_logs(server_url, "patch p03: its worker was killed")
    assert entry["task_run_id"]  # in the log of the task that it happened to


def test_sigterm_ends_the_run_at_once(served: Any) -> None:
    """A band that kills its workers is out; then everything hangs, with tasks in the queue."""
    trouble = {"build_epsf_band:m425": "kill", "fit_patch_batch": "hang"}
    process: subprocess.Popen[str] = served.start(
        "run", "--config", str(served.config("process")), trouble=trouble
    )
    work = served.folder / "out"
    calls = work / "calls.txt"
    try:
        hanging = wait_for(lambda: calls.is_file() and calls.read_text().count("fit_patch_batch") >= 2, 120)
        assert hanging, (work / "run.log").read_text()
        workers = workers_of(process.pid)
        assert len(workers) == 2
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert wait_for(lambda: not alive(workers), 3)
        _, err = process.communicate(timeout=120)
        assert time.monotonic() - begun < 10
    finally:
        process.kill()
    assert process.returncode == 130
    assert "ePSF of m425 failed, the analytic PSF stands in" in err
    assert "its worker was killed twice: SIGKILL" in err
    assert json.loads((work / "run_summary.json").read_text())["status"] == "failed"
    assert not _temporaries(work)
    assert not (work / ".progress").exists()


# --- the whole pipeline on the bundled field ---------------------------------------------------------------

_QUICK = (
    "patch_run.no_patch_overview=true",
    "patch_run.no_cutouts=true",
    "inputs.image_list_file=image_list_A.txt",
)


class Field:
    """The bundled field in a folder of its own, and the command over it."""

    def __init__(self, folder: Path, source: Path, environment: dict[str, str]) -> None:
        shutil.copytree(source, folder)
        self.folder, self.work, self._environment = folder, folder / "run", environment

    def start(self, *options: str, faults: dict[str, str] | None = None) -> subprocess.Popen[str]:
        given = [part for text in (*_QUICK, *options) if "=" in text for part in ("--override", text)]
        flags = [text for text in options if "=" not in text]
        return subprocess.Popen(
            [sys.executable, str(HERE / "faulty_cli.py"), "run", "--config", "config.yaml", *given, *flags],
            env=self._environment | {"FAULTS": json.dumps(faults or {})},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options: str, faults: dict[str, str] | None = None) -> tuple[int, str]:
        process = self.start(*options, faults=faults)
        _, err = process.communicate(timeout=900)
        return process.returncode, err

    @property
    def begun(self) -> list[str]:
        return [line.split()[0] for line in (self.work / "begun.txt").read_text().splitlines()]

    @property
    def rows(self) -> list[str]:
        return (self.work / "output_catalog.csv").read_text().splitlines()

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.work / "run_summary.json").read_text()))

    def finished(self) -> list[str]:
        return sorted(path.parent.name for path in self.work.glob("outputs/*/meta.json"))


@pytest.fixture(scope="module")
def make_field(
    tmp_path_factory: pytest.TempPathFactory, bundled_field: Path, prefect_home: Path, server_url: str
) -> Any:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment = kept | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), str(HERE)]),
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_API_URL": server_url,
    }

    def make(name: str) -> Field:
        return Field(tmp_path_factory.mktemp(name) / "field", bundled_field, environment)

    return make


@pytest.fixture(scope="module")
def healthy(make_field: Any) -> Field:
    field: Field = make_field("healthy")
    code, err = field.run("--direct")
    assert code == 0, err
    return field


@pytest.mark.slow
def test_faults_in_real_fits_cost_their_patches_only(make_field: Any, healthy: Field) -> None:
    tags = healthy.begun
    assert len(tags) >= 4
    faults = dict(zip(tags, ("os._exit", "kill once", "memory"), strict=False))
    field = make_field("faulty")
    code, err = field.run("runtime.worker_memory_mb=1500", "runtime.task_runner=process", faults=faults)
    assert code == 1, err
    failed = field.summary["counts"]["failed_patches"]
    assert set(failed) == {tags[0], tags[2]}
    assert "its worker was killed twice: exit status 7" in failed[tags[0]]
    assert "MemoryError" in failed[tags[2]]
    assert not _temporaries(field.work)
    assert len(field.rows) == len(healthy.rows)
    # Before the zero points, which depend on all stars.
    merged = [_merged(work) for work in (field.work, healthy.work)]
    assert len(merged[0]) == len(merged[1])
    concerned = {
        index
        for tag in (tags[0], tags[2])
        for index in json.loads(next(healthy.work.glob(f"**/{tag}/meta.json")).read_text())["source_index"]
    }
    assert concerned
    for index, (one, other) in enumerate(zip(*merged, strict=True)):
        assert (one == other) is (index not in concerned), index
        if index in concerned:
            assert "failed" in str(one["fit_quality_issues"])


def _merged(work: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(work / "sources" / "merged.parquet").to_pylist()
    return [{name: repr(value) for name, value in row.items()} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_run_that_was_killed_goes_on_where_it_was(make_field: Any, healthy: Field, number: int) -> None:
    field = make_field("killed")
    hanging = healthy.begun[-1]
    process = field.start(
        "runtime.task_runner=process", "runtime.patches_per_task=1", faults={hanging: "hang"}
    )
    try:
        n_others = len(healthy.begun) - 1
        assert wait_for(lambda: len(field.finished()) == n_others, 600), field.finished()
        family = descendants(process.pid)
        process.send_signal(number)
        assert wait_for(lambda: not alive(family), 10 if number == signal.SIGTERM else 3), alive(family)
        process.communicate(timeout=120)
    finally:
        process.kill()
    done = field.finished()
    (field.work / "begun.txt").unlink()
    code, err = field.run("runtime.task_runner=process")
    assert code == 0, err
    assert field.begun == [hanging]
    assert hanging not in done
    assert field.rows == healthy.rows
    assert not _temporaries(field.work)


@pytest.mark.slow
def test_worker_that_is_killed_from_outside_costs_nothing(make_field: Any, healthy: Field) -> None:
    field = make_field("outside")
    process = field.start("runtime.task_runner=process")
    try:
        assert wait_for(lambda: (field.work / "begun.txt").exists(), 600)
        victim = int((field.work / "begun.txt").read_text().split()[1])
        os.kill(victim, signal.SIGKILL)
        _, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "its worker was killed (SIGKILL" in (field.work / "run.log").read_text()
    assert field.rows == healthy.rows
