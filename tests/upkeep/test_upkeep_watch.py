"""Fields that did not run: what is due, what counts as a run, and that it is told once."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from test_upkeep_history import template_of

from flows import watch
from flows.parameters import Given
from flows.site import Schedule, SiteField, last_time

UTC = datetime.UTC
SINCE = datetime.datetime(2025, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text + "+00:00")


@pytest.mark.parametrize(
    ("cron", "until", "due"),
    [
        ("30 8 * * *", "2026-01-10T12:00", "2026-01-10T11:30"),  # summer: UTC - 3 h
        ("30 8 * * *", "2026-01-10T11:29", "2026-01-09T11:30"),
        ("30 8 * * *", "2026-07-10T13:00", "2026-07-10T12:30"),  # winter: UTC - 4 h
        ("30 8 * * 1", "2026-01-10T12:00", "2026-01-05T11:30"),
        ("30 8 1 3 *", "2026-01-10T12:00", "2025-03-01T11:30"),
        ("* * * * *", "2026-01-10T12:00", "2026-01-10T12:00"),
    ],
)
def test_when_a_schedule_was_last_due(cron: str, until: str, due: str) -> None:
    assert last_time(Schedule(cron, "America/Santiago", SINCE), at(until)) == at(due)


def test_a_new_field_was_not_due_before_it_was_there() -> None:
    since = at("2026-01-10T11:31")
    assert last_time(Schedule("30 8 * * *", "America/Santiago", since), at("2026-01-10T20:00")) is None


class Server:
    """Of Prefect's server what keeps a variable."""

    def __init__(self) -> None:
        self.value: Any = None

    def read_variable_by_name(self, name: str) -> Any:
        return None if self.value is None else SimpleNamespace(value=self.value)

    def create_variable(self, variable: Any) -> None:
        self.value = variable.value

    update_variable = create_variable


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(watch, "tell", lambda event, field, text, **payload: texts.append(text))
    return texts


def run(expected: str, started: str | None, state: str = "Completed") -> Any:
    return SimpleNamespace(
        expected_start_time=at(expected), start_time=at(started) if started else None, state_name=state,
        state=SimpleNamespace(is_final=lambda: state in ("Completed", "Cancelled")),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([], "the server has no run of that time"),
        ([run("2026-01-09T11:30", "2026-01-09T11:31")], "the server has no run of that time"),
        ([run("2026-01-10T11:30", None, "Late")], "its run is Late"),
        ([run("2026-01-10T11:30", "2026-01-10T13:00", "Running")], None),
        ([run("2026-01-10T12:00", "2026-01-10T12:01")], None),  # by hand, afterwards
        ([run("2026-01-10T11:30", None, "Cancelled")], None),  # somebody wanted it so
    ],
)
def test_a_field_that_did_not_run_is_told_once(
    runs: list[Any], said: str | None, told: list[str], tmp_path: Path
) -> None:
    schedule = Schedule("30 8 * * *", "America/Santiago", SINCE)
    field = SiteField("UDS", uuid4(), Given("config.yaml"), (schedule,))
    server: Any = Server()
    template = template_of(tmp_path)
    for now in ("2026-01-10T14:29", "2026-01-10T14:31", "2026-01-10T15:31"):  # 3 h after it was due, and on
        missed = watch._missed(server, field, template, runs, at(now))
    assert missed == ([] if said is None else ["2026-01-09"])
    here = [text for text in told if "2026-01-10 11:30" in text]
    assert len(here) == (0 if said is None else 1)
    assert said is None or said in here[0]
    if said is not None:
        watch._missed(server, field, template, runs, at("2026-01-11T14:31"))
        assert "2026-01-11 11:30" in told[-1]
