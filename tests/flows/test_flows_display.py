"""What is said of a run in progress."""

from __future__ import annotations

import io
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows import display
from flows.display import Display, Snapshot, band_lines, heartbeat, patch_line, read_snapshot
from flows.logs import FILE_ONLY, ConsoleHandler
from tract7dt.progress import Plan, Progress, ProgressWriter, open_folder, write_plan
from tract7dt.store import write_json


def _report(kind: str, name: str, worker: str, done: int, total: int, **more: Any) -> Progress:
    values = {"failed": 0, "note": "", "state": "running", "started": 1000.0, "updated": 1010.0} | more
    return Progress(kind=kind, name=name, worker=worker, done=done, total=total, **values)


def _drawn(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def _snapshot(stage: str, reports: list[Progress], plan: Plan | None, now: float = 1010.0) -> Snapshot:
    kind = "epsf" if stage == "build_epsf" else "patches"
    return Snapshot([{"name": stage, "status": "running"}], reports, {kind: plan}, now)


def test_one_line_a_worker_with_its_hand_over() -> None:
    reports = [
        _report("epsf", "m400", "a", 49, 49, state="done"),
        _report("epsf", "m425", "b", 10, 49),
        _report("epsf", "m475", "a", 21, 42, started=1003.0),
    ]
    lines = _drawn(band_lines(_snapshot("build_epsf", reports, None))).splitlines()
    assert len(lines) == 2
    assert "m475" in lines[0]
    assert "50%" in lines[0]
    assert "21/42 cells" in lines[0]
    assert "3.0/s, ETA 0:07" in lines[0]  # 21 cells in 7 s
    assert "done m400 -> start m475" in lines[0]
    assert "start m425" in lines[1]


def test_patches_are_one_line() -> None:
    reports = [
        _report("patches", "p0", "a", 30, 30, failed=2, state="done"),
        _report("patches", "p1", "a", 10, 30),
        _report("patches", "p2", "b", 10, 30, failed=1),
    ]
    plan = Plan("patches", (), 120, 2, 1000.0)
    line = patch_line(_snapshot("run_patches", reports, plan, now=1025.0))
    assert line == "patches: 50/120 done, 2 running, 3 failed, 2.0/s, ETA 0:35"


def test_heartbeat_tells_bands_left() -> None:
    reports = [
        _report("epsf", "m400", "a", 40, 40, state="done"),
        _report("epsf", "m425", "a", 20, 40),
        _report("epsf", "m450", "b", 3, 40, state="failed"),
    ]
    plan = Plan("epsf", ("m400", "m425", "m450", "m475", "m500"), 0, 2, 985.0)
    said = heartbeat(_snapshot("build_epsf", reports, plan, now=1010.0))
    assert said == "ePSF: 1/5 bands, 1 failed, m425 50%, ETA 0:25"  # 2.5 of 5 bands in 25 s
    assert heartbeat(Snapshot([], [], {}, 0.0)) is None


def test_record_of_an_earlier_run_is_not_shown(tmp_path: Path) -> None:
    write_json(tmp_path / "run_summary.json", {"stages": [{"name": "merge", "status": "running"}]})
    assert read_snapshot(tmp_path).stage == "merge"
    assert read_snapshot(tmp_path, since=time.time() + 60).stage is None


def test_log_lines_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(display, "_HEARTBEAT_S", 0.1)
    monkeypatch.setattr(display, "_LOOK_S", 0.02)
    stream = io.StringIO()
    with (
        caplog.at_level(logging.INFO, "flows.display"),
        open_folder(tmp_path) as folder,
        Display(tmp_path, Console(file=stream), "a run"),
    ):
        write_plan(folder, "patches", [], total=8, workers=1)
        write_json(tmp_path / "run_summary.json", {"stages": [{"name": "run_patches", "status": "running"}]})
        with ProgressWriter(folder, "patches", "p0") as progress:
            progress.update(4, 4, failed=1)
            time.sleep(0.5)
    said = [record.message for record in caplog.records]
    assert any(line.startswith("patches: 4/8 done, 0 running, 1 failed") for line in said)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("debug", [False, True])
def test_console_shows_tracebacks_and_prefect_only_when_debugging(debug: bool) -> None:
    stream = io.StringIO()
    handler = ConsoleHandler(Console(file=stream, width=200), debug, logging.INFO)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    try:
        raise ValueError("inner")
    except ValueError as error:
        trace = (type(error), error, error.__traceback__)
    ours = logging.LogRecord("tract7dt.x", logging.ERROR, "", 0, "[not markup] failed", None, trace)
    handler.emit(ours)
    handler.emit(logging.LogRecord("prefect.task_runs", logging.ERROR, "", 0, "of prefect", None, None))
    hidden = logging.makeLogRecord({"name": "flows", "levelno": logging.ERROR, "msg": "hidden"} | FILE_ONLY)
    handler.emit(hidden)
    text = stream.getvalue()
    assert "ERROR [not markup] failed" in text
    assert ("Traceback" in text) is debug
    assert ("of prefect" in text) is debug
    assert "hidden" not in text
    assert ours.exc_info == trace  # other handlers still have it
