"""A run of a deployment before its first stage: its night, nothing to do, waiting, nights that were missed."""

from __future__ import annotations

import datetime
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from astropy.io import fits
from prefect.exceptions import Pause

from flows import tonight
from flows.parameters import Given, read_given
from tract7dt.errors import InputError
from tract7dt.nights import evening_before, nights_before
from tract7dt.store import WorkDir

RUN = UUID("0b2c1f64-8f6e-4f7e-9a55-1d1d5c1b0001")
DEPLOYMENT = UUID("9c0374af-acf6-4a0e-b958-289fde5b5b6b")
TODAY = evening_before(datetime.datetime.now(datetime.UTC), "America/Santiago")
CONFIG = """\
inputs: {tile_name: UDS, input_catalog: c.csv, image_list_file: "%s"}
outputs: {work_dir: "runs/%s"}
night: {quiet_seconds: 0, retry_minutes: 2, catch_up: 2}
"""


class _Client:
    """Stands for the server; keeps what it is asked."""

    def __init__(self) -> None:
        self.states: list[Any] = []
        self.started: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_flow_run_state(self, run_id: UUID, state: Any, force: bool) -> Any:
        self.states.append(state)
        return SimpleNamespace(state=state)

    def create_flow_run_from_deployment(self, deployment: UUID, **more: Any) -> Any:
        self.started.setdefault(more["idempotency_key"], more)
        return SimpleNamespace(id="new")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> _Client:
    made = _Client()
    monkeypatch.setattr(tonight, "get_client", lambda sync_client: made)
    return made


def scheduled(monkeypatch: pytest.MonkeyPatch, at: str | None = None, auto: bool = True) -> None:
    begins = datetime.datetime.fromisoformat(at) if at else datetime.datetime.now(datetime.UTC)
    run = SimpleNamespace(
        id=RUN,
        deployment_id=DEPLOYMENT,
        auto_scheduled=auto,
        expected_start_time=begins,
        parameters={"config": "x"},
    )
    monkeypatch.setattr(tonight, "_deployed", lambda: run)


def field(tmp_path: Path, listed: str = "{night}/list.txt", work: str = "{night}") -> Given:
    (tmp_path / "config.yaml").write_text(CONFIG % (listed, work))
    (tmp_path / "c.csv").write_text("RA,DEC\n")
    return Given(str(tmp_path / "config.yaml"))


def images(tmp_path: Path, night: str, *names: str) -> None:
    folder = tmp_path / night
    folder.mkdir(exist_ok=True)
    for name in names:
        fits.PrimaryHDU(np.zeros((50, 60), "f4")).writeto(folder / name)
        os.utime(folder / name, (time.time() - 600,) * 2)
    (folder / "list.txt").write_text("".join(f"{night}/{name}\n" for name in names))


def early(given: Given) -> Any:
    given = tonight.of_its_night(given)
    return tonight.nothing_to_do(read_given(given).settings, given)


def test_a_run_that_no_deployment_started_is_left_alone(tmp_path: Path) -> None:
    given = field(tmp_path, "list.txt", "run")
    assert tonight.of_its_night(given) == given
    assert tonight.nothing_to_do(read_given(given).settings, given) is None


@pytest.mark.parametrize(
    ("at", "night"),
    [("2026-11-21T11:30:00+00:00", "2026-11-20"), ("2026-11-22T00:30:00+00:00", "2026-11-21")],
)
def test_the_night_is_that_of_the_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, night: str
) -> None:
    scheduled(monkeypatch, at)
    given = field(tmp_path)
    assert tonight.of_its_night(given).night == night
    asked = Given(given.config, night="2026-01-01")
    assert tonight.of_its_night(asked) is asked


def test_no_images_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: _Client) -> None:
    scheduled(monkeypatch)
    state = early(field(tmp_path))
    assert (state.type.value, state.name) == ("COMPLETED", "Skipped")
    assert f"no images of {TODAY}" in state.message
    assert not (tmp_path / "runs").exists()


def test_a_run_waits_and_then_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: _Client
) -> None:
    scheduled(monkeypatch)
    given = field(tmp_path)
    images(tmp_path, TODAY, "a.fits")
    (tmp_path / TODAY / "list.txt").write_text(f"{TODAY}/a.fits\n{TODAY}/b.fits\n")
    with pytest.raises(Pause):
        early(given)
    (state,) = client.states
    assert (state.type.value, state.name) == ("SCHEDULED", "AwaitingRetry")
    assert "b.fits: not there yet" in state.message
    pause = state.state_details.scheduled_time - datetime.datetime.now(datetime.UTC)
    assert 100 < pause.total_seconds() <= 120

    note = tmp_path / "runs" / TODAY / ".arrival.json"
    seen = json.loads(note.read_text())
    note.write_text(json.dumps(seen | {"first": time.time() - 3 * 3600 - 1}))
    with pytest.raises(InputError, match=r"waited 180 min for images .*b\.fits: not there yet"):
        early(given)
    note.write_text(json.dumps(seen | {"run_id": "another"}))  # each run has its own patience
    with pytest.raises(Pause):
        early(given)
    images(tmp_path, TODAY, "b.fits")
    assert early(given) is None


def test_a_list_that_names_the_night_in_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: _Client
) -> None:
    scheduled(monkeypatch)
    given = field(tmp_path, "list.txt")
    (tmp_path / "list.txt").write_text("{night}/a.fits\n{night}/b.fits\n")
    assert early(given).name == "Skipped"
    images(tmp_path, TODAY, "a.fits")
    with pytest.raises(Pause):
        early(given)


def test_a_list_that_is_wrong_is_an_error_and_no_night_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: _Client
) -> None:
    scheduled(monkeypatch)
    given = field(tmp_path, "list.txt", "run")
    assert early(given) is None  # the run goes on, and fails over the missing list
    (tmp_path / "list.txt").write_text("nowhere/a.fits\n")
    assert early(given) is None


def test_nights_that_were_missed_are_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: _Client
) -> None:
    scheduled(monkeypatch)
    given = field(tmp_path)
    far, before, yesterday = nights_before(TODAY, 3)
    for night in (far, before, yesterday, TODAY):
        images(tmp_path, night, "a.fits")
    assert early(given) is None
    assert {more["parameters"]["night"] for more in client.started.values()} == {before, yesterday}
    assert all(more["parameters"]["config"] == "x" for more in client.started.values())

    client.started.clear()
    done = WorkDir.of(read_given(Given(given.config, night=before)).settings)
    done.root.mkdir(parents=True)
    done.run_summary.write_text(
        '{"status": "failed", "error": {"message": "InputError"}}'
    )  # it was not missed
    (tmp_path / yesterday / "list.txt").unlink()  # nor was this: no images
    early(given)
    assert client.started == {}
    for cut_off in (
        '{"status": "running"}',
        '{"status": "failed", "error": {"message": "interrupted (Abort)"}}',
    ):
        client.started.clear()
        done.run_summary.write_text(cut_off)
        early(given)
        assert [more["parameters"]["night"] for more in client.started.values()] == [before]


def test_only_scheduled_runs_make_up_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: _Client
) -> None:
    scheduled(monkeypatch, auto=False)
    for night in (nights_before(TODAY, 1)[0], TODAY):
        images(tmp_path, night, "a.fits")
    assert early(field(tmp_path)) is None
    assert client.started == {}


@pytest.mark.parametrize(("days", "skipped"), [(2, False), (3, True)])
def test_a_run_that_is_too_late_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: _Client, days: int, skipped: bool
) -> None:
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    scheduled(monkeypatch, at.isoformat())
    given = tonight.of_its_night(field(tmp_path))
    assert given.night is not None
    images(tmp_path, given.night, "a.fits")
    state = tonight.nothing_to_do(read_given(given).settings, given)
    assert (state is not None) is skipped
    if state is not None:
        assert f"{given.night} is 3 nights ago; night.catch_up is 2" in str(state.message)
