"""Progress of workers through files."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tract7dt import progress
from tract7dt.errors import StageError
from tract7dt.progress import (
    MessageHandler,
    MessageReader,
    ProgressWriter,
    open_folder,
    progress_folder,
    read_plan,
    read_progress,
    request_stop,
    write_plan,
)


def test_reports_go_through_their_states(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        with ProgressWriter.of(tmp_path, "epsf", "m400") as writer:
            [begun] = read_progress(folder)
            assert (begun.state, begun.done, begun.total) == ("running", 0, 0)
            writer.update(5, 5, failed=2, note="cell r00_c04")
            [now] = read_progress(folder)
            assert (now.kind, now.name, now.done, now.total, now.failed) == ("epsf", "m400", 5, 5, 2)
            assert now.note == "cell r00_c04"
            assert now.worker.endswith(f"-{os.getpid()}-{threading.get_ident()}")
        assert read_progress(folder)[0].state == "done"
        with pytest.raises(ValueError), ProgressWriter.of(tmp_path, "epsf", "m425"):
            raise ValueError
        assert [(p.name, p.state) for p in read_progress(folder)] == [("m400", "done"), ("m425", "failed")]
    assert not progress_folder(tmp_path).exists()


def test_writing_is_rate_limited_but_the_last_step_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(progress, "_replace", lambda path, value: written.append(value["done"]))
    with open_folder(tmp_path) as folder, ProgressWriter(folder, "patches", "batch") as writer:
        writer.update(0, 2000)
        assert written == [0, 0]  # the start, and how much there is to do
        for step in range(1, 2001):
            writer.update(step, 2000)
    assert written[-2:] == [2000, 2000]  # the last step, and the end
    assert len(written) < 20


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    with ProgressWriter.of(tmp_path, "epsf", "m400") as writer:
        writer.update(1, 1)
    assert list(tmp_path.iterdir()) == []


def test_lost_folder_does_not_end_the_work(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder, ProgressWriter(folder, "epsf", "m400") as writer:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        writer.update(3, 3)


def test_half_written_report_is_passed_over(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        ProgressWriter(folder, "epsf", "m400").update(1, 1)
        (folder / "epsf-m425.progress.json").write_text('{"kind": "ep')
        assert [report.name for report in read_progress(folder)] == ["m400"]


@given(name=st.text(min_size=1, max_size=30), kind=st.sampled_from(["epsf", "patches", "a/b"]))
def test_any_name_makes_a_file_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, name: str, kind: str
) -> None:
    if any(0xD800 <= ord(character) <= 0xDFFF for character in name):
        return
    with open_folder(tmp_path_factory.mktemp("names")) as folder:
        ProgressWriter(folder, kind, name).update(1, 1)
        ProgressWriter(folder, kind, name + "x").update(1, 1)
        assert {(report.kind, report.name) for report in read_progress(folder)} == {
            (kind, name),
            (kind, name + "x"),
        }


def test_plan_round_trip(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        assert read_plan(folder, "epsf") is None
        write_plan(folder, "epsf", ["m400", "m425"], total=98, workers=2)
        plan = read_plan(folder, "epsf")
        assert plan is not None
        assert (plan.names, plan.total, plan.workers) == (("m400", "m425"), 98, 2)


def test_work_ends_at_the_next_step_once_the_run_has_given_up(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        writer = ProgressWriter(folder, "epsf", "m400")
        writer.update(1, 2)
        request_stop(folder)
        with pytest.raises(StageError, match="m400"):
            writer.update(2, 2)


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    old = progress_folder(tmp_path)
    old.mkdir()
    (old / "stop").touch()
    with open_folder(tmp_path) as folder:
        assert list(folder.iterdir()) == []


# --- messages ----------------------------------------------------------------------------------------------


def _log_from_elsewhere(folder: str, number: int) -> None:
    logger = logging.getLogger("tract7dt.elsewhere")
    logger.handlers, logger.propagate = [MessageHandler(folder)], False
    logger.setLevel(logging.INFO)
    for step in range(20):
        logger.warning("worker %d step %d", number, step)


def test_messages_of_other_processes_arrive_once_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_folder(tmp_path) as folder, caplog.at_level(logging.INFO):
        reader = MessageReader(folder)
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=_log_from_elsewhere, args=(str(folder), i)) for i in range(2)]
        for worker in workers:
            worker.start()
        end = time.monotonic() + 20
        while any(worker.is_alive() for worker in workers) and time.monotonic() < end:
            reader.take_up()
        for worker in workers:
            worker.join()
        reader.take_up()
        assert reader.take_up() == 0
    said = [r.message for r in caplog.records if r.name == "tract7dt.elsewhere"]
    assert sorted(said) == sorted(f"worker {i} step {step}" for i in range(2) for step in range(20))
    assert [s for s in said if s.startswith("worker 0")] == [f"worker 0 step {step}" for step in range(20)]


def test_traceback_of_a_worker_comes_along_and_half_a_line_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_folder(tmp_path) as folder, caplog.at_level(logging.INFO):
        handler, reader = MessageHandler(folder), MessageReader(folder)
        try:
            raise KeyError("what")
        except KeyError as error:
            trace = (type(error), error, error.__traceback__)
        handler.emit(logging.LogRecord("tract7dt.w", logging.ERROR, "", 0, "100 %% %s", ("bad",), trace))
        [path] = folder.glob("*.messages")
        with path.open("a") as stream:
            stream.write(json.dumps({"name": "tract7dt.w"})[:-3])
        assert reader.take_up() == 1
    [record] = [r for r in caplog.records if r.name == "tract7dt.w"]
    assert record.message.startswith("100 % bad\nTraceback")
    assert record.levelname == "ERROR"
