"""The flow on a real server: same results on every runner, and what each kind of trouble does to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import alive, descendants, wait_for
from serverside import server_logs

from tract7dt.run_record import STAGES

NO_TRACE = "Traceback (most recent call last)"


def _called(work: Path, stage: str) -> bool:
    calls = work / "calls.txt"
    return calls.is_file() and stage in calls.read_text()


# --- the runners agree -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(make_served: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = {}
    for runner in ("process", "thread", "direct"):
        command = make_served(tmp_path_factory.mktemp(runner))
        config = command.config("process" if runner == "direct" else runner)
        extra = ["--direct"] if runner == "direct" else []
        done[runner] = command("run", "--config", str(config), *extra)
    return done


def test_every_runner_writes_the_same_catalogue(runs: dict[str, Any]) -> None:
    for name, ran in runs.items():
        assert ran.code == 0, (name, ran.err)
    assert runs["process"].catalog == runs["thread"].catalog == runs["direct"].catalog
    assert runs["process"].catalog.count(b"\n") == 13


@pytest.mark.parametrize("runner", ["process", "thread", "direct"])
def test_record_names_every_stage_as_done(runs: dict[str, Any], runner: str) -> None:
    summary = runs[runner].summary
    assert summary["status"] == "done"
    assert [entry["name"] for entry in summary["stages"]] == list(STAGES)
    assert {entry["status"] for entry in summary["stages"]} == {"done"}
    assert summary["counts"]["patches"] == 12


def test_pool_works_in_other_processes_and_threads_do_not(runs: dict[str, Any]) -> None:
    for stage in ("build_epsf_band", "fit_patch_batch"):
        pids = {r: {call[2] for call in ran.calls if call[0] == stage} for r, ran in runs.items()}
        main = {r: next(call[2] for call in ran.calls if call[0] == "merge") for r, ran in runs.items()}
        assert main["process"] not in pids["process"]
        assert pids["thread"] == {main["thread"]}
        assert pids["direct"] == {main["direct"]}


def test_cpu_and_memory_of_workers_are_in_the_record(runs: dict[str, Any]) -> None:
    pooled, threaded = (runs[r].stage("build_epsf") for r in ("process", "thread"))
    assert pooled["detail"]["workers"] in (1, 2)
    assert pooled["cpu_s"] > 0.5  # a worker imports Prefect and the library
    assert pooled["peak_rss_mb"] > 50
    assert "workers" not in threaded["detail"]


def test_log_file_holds_what_workers_logged(runs: dict[str, Any]) -> None:
    log = (runs["process"].work / "run.log").read_text()
    assert log.count("fake build_epsf_band") == 4
    assert log.count("fake fit_patch_batch") == 12
    assert "stage merge: done" in log


def test_nothing_of_the_progress_is_left(runs: dict[str, Any]) -> None:
    assert not any((ran.work / ".progress").exists() for ran in runs.values())


def test_end_of_a_run_says_what_came_out(runs: dict[str, Any]) -> None:
    for ran in runs.values():
        assert "25.0100" in ran.out
        assert "12 patches" in ran.out
        assert "output_catalog.csv" in ran.out


def test_tasks_and_subflows_and_logs_are_on_the_server(runs: dict[str, Any], server_url: str) -> None:
    def post(path: str) -> list[dict[str, Any]]:
        request = urllib.request.Request(
            f"{server_url}/{path}/filter",
            data=b'{"limit": 200}',
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return list(json.load(answer))

    assert {"T1", "build-epsf", "run-patches"} <= {run["name"] for run in post("flow_runs")}
    names = {run["name"] for run in post("task_runs")}
    assert {f"build_epsf_band {band}" for band in ("m400", "m425", "m450", "m475")} <= names
    assert any("fake build_epsf_band m450" in entry["message"] for entry in post("logs"))


# --- troubles ----------------------------------------------------------------------------------------------


def test_wrong_input_in_a_worker_ends_the_run_at_once(served: Any) -> None:
    """The other worker hangs; nothing is tried again; the message is ours."""
    trouble = {"build_epsf_band:m400": "hang", "build_epsf_band:m425": "input"}
    ran = served("run", "--config", str(served.config("process")), trouble=trouble)
    assert ran.code == 1
    assert "stage build_epsf failed: m425: expected a good input, found a bad one" in ran.err
    assert NO_TRACE not in ran.err
    assert [call[1] for call in ran.calls].count("m425") == 1
    assert ran.summary["status"] == "failed"
    assert ran.summary["error"]["stage"] == "build_epsf"
    assert ran.stage("build_epsf")["status"] == "failed"


def test_passing_troubles_are_retried_and_single_failures_recorded(served: Any, server_url: str) -> None:
    """A lost connection once, a band that cannot be built, a patch that cannot be fitted: one run."""
    trouble = {"load_inputs": "once", "build_epsf_band:m425": "exit", "patch:p03": "yes"}
    ran = served("run", "--config", str(served.config()), trouble=trouble)
    assert [call[0] for call in ran.calls].count("load_inputs") == 2
    assert "ePSF of m425 failed, the analytic PSF stands in: StageError" in ran.err
    run = ran.summary["run_id"]
    for said in (
        "met a trouble that may pass",
        "Retry 1/2 will start",
    ):  # in the log of the task, on the server
        told = [entry for entry in server_logs(server_url, said) if entry["flow_run_id"] == run]
        assert len(told) == 1
        assert told[0]["task_run_id"]
        assert "the mount went away" in told[0]["message"]
    assert b"epsf_m425" not in ran.catalog
    assert b"epsf_m400,epsf_m450,epsf_m475" in ran.catalog
    assert ran.code == 1  # the catalogue is whole but for the sources of a patch, and the user must know
    assert "1 of 12 patches could not be fitted" in ran.err
    assert "p03: ValueError: no good pixel" in ran.err
    assert ran.summary["counts"]["failed_patches"] == {"p03": "ValueError: no good pixel"}
    assert b"calibrated" in ran.catalog


def test_all_bands_failing_is_a_failure(served: Any) -> None:
    ran = served("run", "--config", str(served.config()), trouble={"build_epsf_band": "bug"})
    assert ran.code == 1
    assert "the ePSF of every band failed" in ran.err
    assert NO_TRACE not in ran.err
    assert NO_TRACE in (ran.work / "run.log").read_text()
    assert not (ran.work / "output_catalog.csv").exists()


def test_optional_stages_are_skipped_with_their_reason(served: Any) -> None:
    more = "zp: {enabled: false}\nbright_mask: {enabled: false}\nepsf: {parallel_bands: false}"
    ran = served("run", "--config", str(served.config(more=more)), trouble={"merge": "product"})
    assert ran.code == 1
    reasons = {e["name"]: e["detail"]["reason"] for e in ran.summary["stages"] if e["status"] == "skipped"}
    assert reasons == {"augment_gaia": "zp.enabled is false", "bright_mask": "bright_mask.enabled is false"}
    bands = [call for call in ran.calls if call[0] == "build_epsf_band"]
    assert [call[1] for call in bands] == ["m400", "m425", "m450", "m475"]  # one at a time
    assert len({call[2] for call in bands}) == 1
    assert "stage merge failed: merge: the product is gone" in ran.err
    assert [call[0] for call in ran.calls].count("merge") == 1


# --- the server of a run -----------------------------------------------------------------------------------


def test_wrong_input_is_reported_before_a_server_is_started(command: Any) -> None:
    ran = command("run", "--config", str(command.config()), trouble={"check_inputs": "input"})
    assert ran.code == 1
    assert "check_inputs: expected a good input, found a bad one" in ran.err
    assert not (ran.work / "prefect_server.log").exists()
    assert not (ran.work / "run_summary.json").exists()
    assert ran.seconds < 10


def test_unreachable_server_is_said_in_seconds(command: Any) -> None:
    address = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    ran = command("run", "--config", str(command.config()), env=address)
    assert ran.code == 1
    assert "no Prefect server answers at http://127.0.0.1:9/api" in ran.err
    assert not _called(ran.work, "load_inputs")
    assert ran.seconds < 10


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_process_outlives_the_run(command: Any, number: int, code: int) -> None:
    """The run has a server of its own and workers that hang: both end with it."""
    process: subprocess.Popen[str] = command.start(
        "run", "--config", str(command.config("process")), trouble={"build_epsf_band": "hang"}
    )
    work = command.folder / "out"
    try:
        assert wait_for(lambda: _called(work, "build_epsf_band"), 90), (work / "run.log").read_text()
        family = descendants(process.pid)
        assert len(family) >= 3  # server and two workers
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code
    assert wait_for(lambda: not alive(family), 15), alive(family)
    if number == signal.SIGINT:
        assert "interrupted" in err
        assert NO_TRACE not in err
        assert json.loads((work / "run_summary.json").read_text())["status"] == "failed"
    else:
        assert json.loads((work / "run_summary.json").read_text())["status"] == "running"
