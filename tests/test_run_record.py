"""run_summary.json: honest at every moment."""

from __future__ import annotations

import json
import multiprocessing
import re
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tract7dt import resources
from tract7dt.errors import InputError
from tract7dt.patches import SECONDS_PER_COST
from tract7dt.progress import open_folder, progress_folder
from tract7dt.run_record import STAGES, RunRecord, failed_stage
from tract7dt.settings import Settings, settings_from_dict
from tract7dt.store import WorkDir, sha256_file, write_json


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "cat.csv").write_text("RA,DEC\n1,2\n")
    (tmp_path / "list.txt").write_text("a.fits\n")
    values = {
        "inputs": {"input_catalog": "cat.csv", "image_list_file": "list.txt", "tile_name": "T9"},
        "outputs": {"work_dir": "out"},
    }
    return settings_from_dict(values, tmp_path).settings


def _read(settings: Settings) -> dict[str, Any]:
    return dict(json.loads(WorkDir.of(settings).run_summary.read_text()))


def test_record_is_true_at_every_moment(settings: Settings) -> None:
    with RunRecord(settings, "run") as record:
        assert _read(settings)["status"] == "running"
        assert _read(settings)["stages"] == []
        with record.stage("load_inputs") as entry:
            [now] = _read(settings)["stages"]
            assert (now["name"], now["status"]) == ("load_inputs", "running")
            entry.detail["images"] = 3
        record.skip("augment_gaia", "zp.enabled is false")
        with record.stage("bright_mask") as entry:
            entry.status = "cached"
    stored = _read(settings)
    assert stored["status"] == "done"
    assert stored["error"] is None
    assert stored["field"] == "T9"
    stages = [(e["name"], e["status"]) for e in stored["stages"]]
    assert stages == [("load_inputs", "done"), ("augment_gaia", "skipped"), ("bright_mask", "cached")]
    assert stored["stages"][0]["detail"] == {"images": 3}
    assert stored["stages"][1]["detail"] == {"reason": "zp.enabled is false"}


def test_failure_is_recorded_and_goes_on_its_way(settings: Settings) -> None:
    with (
        pytest.raises(InputError, match="no RA column") as caught,
        RunRecord(settings, "run") as record,
        record.stage("load_inputs"),
    ):
        raise InputError("no RA column")
    stored = _read(settings)
    assert stored["status"] == "failed"
    assert stored["error"] == {"stage": "load_inputs", "message": "InputError: no RA column"}
    assert stored["stages"][0]["status"] == "failed"
    assert failed_stage(caught.value) == "load_inputs"
    assert failed_stage(InputError("elsewhere")) is None


def test_interrupt_is_a_failure_too(settings: Settings) -> None:
    with pytest.raises(KeyboardInterrupt), RunRecord(settings, "run") as record, record.stage("merge"):
        raise KeyboardInterrupt
    assert _read(settings)["status"] == "failed"


def test_killed_run_leaves_running(settings: Settings) -> None:
    def die() -> None:
        record = RunRecord(settings, "run")
        with record.stage("load_inputs"):
            import os

            os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join()
    stored = _read(settings)
    assert stored["status"] == "running"
    assert stored["stages"][0]["status"] == "running"
    assert stored["finished"] is None


def test_stages_are_listed_in_the_order_of_the_pipeline(settings: Settings) -> None:
    with RunRecord(settings, "run") as record:
        for name in reversed(STAGES):
            record.skip(name, "a test")
    assert [entry["name"] for entry in _read(settings)["stages"]] == list(STAGES)


def test_step_command_keeps_the_rest_of_the_record(settings: Settings) -> None:
    with RunRecord(settings, "run") as record:
        for name in STAGES:
            with record.stage(name):
                pass
    with RunRecord(settings, "compute-zp") as record, record.stage("compute_zp"):
        pass
    stored = _read(settings)
    assert stored["command"] == "compute-zp"
    assert [e["command"] for e in stored["stages"]] == ["run"] * 9 + ["compute-zp"]
    with RunRecord(settings, "run") as record, record.stage("load_inputs"):
        pass
    assert len(_read(settings)["stages"]) == 1


def test_damaged_record_is_begun_anew(settings: Settings) -> None:
    path = WorkDir.of(settings).run_summary
    path.parent.mkdir(parents=True)
    path.write_text('{"stages": [{"nam')
    with RunRecord(settings, "merge") as record, record.stage("merge"):
        pass
    assert [entry["name"] for entry in _read(settings)["stages"]] == ["merge"]


def test_versions_inputs_and_digest(settings: Settings, tmp_path: Path) -> None:
    work = WorkDir.of(settings)
    frame = {"band": "m400", "path": "/data/a.fits", "sha256": "f" * 64}
    write_json(work.field_manifest, {"frames": [frame]})
    with RunRecord(settings, "run") as record, record.stage("load_inputs"):
        pass
    stored = _read(settings)
    assert {"python", "tract7dt", "numpy", "astropy", "photutils", "sep", "numba"} <= set(stored["versions"])
    assert stored["inputs"] == [
        {"path": str(tmp_path / "cat.csv"), "sha256": sha256_file(tmp_path / "cat.csv")},
        {"path": str(tmp_path / "list.txt"), "sha256": sha256_file(tmp_path / "list.txt")},
        {"path": "/data/a.fits", "sha256": "f" * 64},
    ]
    assert re.fullmatch("[0-9a-f]{64}", stored["configuration_sha256"])


def test_counts_come_from_the_products_of_the_run(settings: Settings) -> None:
    work = WorkDir.of(settings)
    table = pd.DataFrame(
        {
            "excluded_any": [False, False, True, False],
            "stype_fit": ["star", "exp", None, ""],
            "fit_is_reliable": [True, False, False, False],
        }
    )
    work.merged.parent.mkdir(parents=True)
    table.to_parquet(work.merged)
    payloads = {tag: {"ref": {"sha256": f"payload {tag}"}} for tag in ("p0", "p1", "p2", "p3")}
    write_json(work.payloads / "payloads.json", payloads)
    write_json(work.patch_meta("p0"), {"status": "converged", "payload_sha256": "payload p0"})
    bad = {"status": "failed", "reason": "LinAlgError: singular", "payload_sha256": "payload p1"}
    write_json(work.patch_meta("p1"), bad)
    write_json(work.patch_meta("p3"), {"status": "converged", "payload_sha256": "of an earlier division"})
    with RunRecord(settings, "run") as record:
        pass
    assert _read(settings)["counts"] == {}  # what lies there is another run's
    with RunRecord(settings, "run") as record:
        for name in ("run_patches", "merge"):
            with record.stage(name):
                pass
        record.count(stars=7)
    assert _read(settings)["counts"] == {
        "sources": 4,
        "active": 3,
        "fitted": 2,
        "reliable": 1,
        "patches": 4,
        "failed_patches": {"p1": "LinAlgError: singular"},
        "patches_not_fitted": ["p2", "p3"],
        "stars": 7,
    }


# --- times and memory --------------------------------------------------------------------------------------


def _spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def _spin_and_report(folder: str) -> None:
    _spin(0.3)
    resources.report_usage(Path(folder))


def test_cpu_of_this_process_and_of_children(settings: Settings) -> None:
    with RunRecord(settings, "run") as record, record.stage("build_epsf"):
        _spin(0.2)
        child = multiprocessing.get_context("fork").Process(target=_spin, args=(0.4,))
        child.start()
        child.join()
    [entry] = _read(settings)["stages"]
    assert 0.6 <= entry["cpu_s"] < 1.2
    assert entry["wall_s"] >= 0.6
    assert entry["peak_rss_mb"] > 10


def test_worker_that_is_a_child_and_reports_counts_once(settings: Settings) -> None:
    root = settings.outputs.work_dir
    with RunRecord(settings, "run") as record, open_folder(root), record.stage("run_patches"):
        child = multiprocessing.get_context("fork").Process(
            target=_spin_and_report, args=(str(progress_folder(root)),)
        )
        child.start()
        child.join()
    [entry] = _read(settings)["stages"]
    assert 0.3 <= entry["cpu_s"] < 0.6
    assert entry["detail"]["workers"] == 1
    assert entry["detail"]["workers_peak_rss_mb"] > 10


def test_worker_elsewhere_counts_by_its_report(settings: Settings) -> None:
    with RunRecord(settings, "run") as record, open_folder(settings.outputs.work_dir) as folder:
        report = folder / "other-host-77.usage.json"
        report.write_text(json.dumps({"cpu_s": 100.0, "peak_rss_mb": 10.0}))
        with record.stage("run_patches"):
            report.write_text(json.dumps({"cpu_s": 150.0, "peak_rss_mb": 4096.0}))
    [entry] = _read(settings)["stages"]
    assert entry["cpu_s"] == pytest.approx(50.0, abs=0.5)
    assert entry["peak_rss_mb"] == 4096.0


def test_the_cost_of_each_patch_is_told_beside_what_was_predicted(settings: Settings) -> None:
    work = WorkDir.of(settings)
    write_json(work.payloads / "payloads.json", {"p0": {"cost": 1000.0}, "p1": {"cost": 10.0}})
    write_json(work.patch_meta("p0"), {"status": "converged", "cpu_s": 0.61, "wall_s": 0.7})
    with RunRecord(settings, "run") as record:
        assert _read(settings)["patch_costs"] == {}, "an earlier run's"
        with record.stage("run_patches"):
            pass
    costs = _read(settings)["patch_costs"]
    assert costs["p0"] == {
        "predicted_cpu_s": pytest.approx(1000 * SECONDS_PER_COST),
        "cpu_s": 0.61,
        "wall_s": 0.7,
    }
    assert costs["p1"]["cpu_s"] is None
