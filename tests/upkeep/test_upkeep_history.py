"""A field over its nights: its history here and where it is published, zero points that jump, its health."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from published_run import make_run, write_summary

from flows import notices
from flows.health import health_rows, runs_by_night
from flows.notices import look_for_jumps
from tract7dt.publish import publish
from tract7dt.settings import Settings, apply_overrides, fill_placeholders
from tract7dt.settings.paths import resolve_paths
from tract7dt.store import WorkDir
from tract7dt.upkeep import history, jumps, nights_here
from tract7dt.upkeep.history import zero_points_of


def template_of(folder: Path, url: str | None = None) -> Settings:
    """A field whose nights lie at ``folder/NIGHT/run``."""
    given = {"tile_name": "UDS", "input_catalog": "cat.csv", "image_list_file": "list.txt"}
    values = {
        "inputs": given,
        "outputs": {"work_dir": str(folder / "{night}" / "run")},
        "publish": {"url": url},
    }
    return resolve_paths(Settings.model_validate(values), folder)


def night_of(
    folder: Path, night: str, zero_points: Mapping[str, float], url: str | None = None, **record: Any
) -> Settings:
    """What a run of a night leaves."""
    settings = make_run(folder / night, url)
    table = "".join(f"{band},{value}\n" for band, value in zero_points.items())
    WorkDir.of(settings).zp_summary.write_text(f"band,zp_median\n{table}")
    write_summary(settings, **({"run_id": f"run-{night}", "parameters": {"night": night}} | record))
    return settings


def told(settings: Settings, **overrides: Any) -> Settings:
    return apply_overrides(settings, overrides, settings.base_dir)


# --- history -----------------------------------------------------------------------------------------------


def test_nights_are_found_where_the_paths_put_them(tmp_path: Path) -> None:
    for night in ("2026-01-01", "2026-01-03"):
        night_of(tmp_path, night, {"m400": 25.0})
    for other in ("2026-13-01", "2026-01-02x", "notes", "2026-01-05"):
        (tmp_path / other).mkdir()
    assert [night for night, _ in nights_here(template_of(tmp_path))] == ["2026-01-03", "2026-01-01"]
    assert nights_here(template_of(tmp_path / "nowhere")) == []
    twice = told(template_of(tmp_path), **{"outputs.work_dir": str(tmp_path / "n{night}_{night}")})
    work = tmp_path / "n2026-01-01_2026-01-01"
    for folder in (work, tmp_path / "n2026-01-01_2026-01-02"):
        folder.mkdir()
        (folder / "run_summary.json").write_text("{}")
    assert [settings.outputs.work_dir for _, settings in nights_here(twice)] == [work]


def test_history_here_is_completed_from_what_is_published(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/public"
    for n, value in enumerate((25.01, 25.02, 25.03), 1):
        publish(
            night_of(tmp_path / "there", f"2026-01-0{n}", {"m400": value}, url), f"run-{n}", f"2026-01-0{n}"
        )
    night_of(tmp_path, "2026-01-03", {"m400": 26.0}, status="done")
    night_of(tmp_path, "2026-01-04", {"m400": 27.0}, status="failed")
    found = history(template_of(tmp_path, url), 10)
    assert [(r.night, r.status, r.zero_points) for r in found] == [
        ("2026-01-04", "failed", {}),
        ("2026-01-03", "done", {"m400": 26.0}),
        ("2026-01-02", "done", {"m400": 25.02}),
        ("2026-01-01", "done", {"m400": 25.01}),
    ]
    assert found[2].where == f"{url}/UDS/2026-01-02/run-2"
    assert [r.night for r in history(template_of(tmp_path, url), 2, before="2026-01-03")] == [
        "2026-01-02",
        "2026-01-01",
    ]
    (tmp_path / "public/UDS/2026-01-02/run-2/manifest.json").write_text("{")
    assert "2026-01-02" not in {r.night for r in history(template_of(tmp_path, url), 10)}


def test_zero_points_of_a_table() -> None:
    text = "band,zp_median\nm400,25.5\nm425,\nm450,nan\nm475,x\n,3\n"
    assert zero_points_of(text) == {"m400": 25.5}
    assert zero_points_of("") == {}


# --- jumps -------------------------------------------------------------------------------------------------


def test_a_jump_is_measured_from_the_median_of_the_nights_before() -> None:
    before = [{"m400": 25.0, "m425": 24.0}, {"m400": 25.2}, {"m400": 25.1}, {"m400": 40.0}]
    (found,) = jumps({"m400": 25.30, "m425": 30.0, "m450": 1.0}, before, 0.1)
    assert (found.band, found.n_nights, found.median) == ("m400", 4, pytest.approx(25.15))
    assert found.difference == pytest.approx(0.15)
    assert str(found) == "m400: 25.300 mag, +0.150 from the median of 4 nights (25.150)"
    assert jumps({"m400": 25.20}, before, 0.1) == []
    assert jumps({"m400": 20.0}, before[:2], 0.1) == []  # two nights are no habit


def test_a_run_tells_of_its_jumps_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, dict[str, str], dict[str, Any]]] = []
    monkeypatch.setattr(
        notices, "emit_event", lambda event, resource, payload: sent.append((event, resource, payload))
    )
    for n, value in enumerate((25.01, 25.02, 25.0, 25.31), 1):
        night_of(tmp_path, f"2026-01-0{n}", {"m400": value})
    template = template_of(tmp_path)
    settings = fill_placeholders(template, "2026-01-04")
    assert len(look_for_jumps(template, settings, "2026-01-04", "run-4")) == 1
    ((event, resource, payload),) = sent
    assert event == "tract7dt.zero-point.jumped"
    assert resource == {"prefect.resource.id": "tract7dt.field.uds", "prefect.resource.name": "UDS"}
    assert (payload["night"], payload["bands"], payload["limit_mag"]) == ("2026-01-04", {"m400": 0.3}, 0.1)
    assert "UDS 2026-01-04: m400: 25.310 mag, +0.300" in payload["text"]

    third = fill_placeholders(template, "2026-01-03")
    assert look_for_jumps(template, third, "2026-01-03", "run-3") == []
    for changes in ({"watch.zp_jump_mag": 0.35}, {"watch.zp_jump_mag": None}, {"zp.enabled": False}):
        changed = told(template, **changes)
        assert look_for_jumps(changed, fill_placeholders(changed, "2026-01-04"), "2026-01-04", "run-4") == []

    assert look_for_jumps(template, settings, None, "run-4") == []
    assert len(sent) == 1


# --- health ------------------------------------------------------------------------------------------------


def run_of(run_id: str, night: str, state: str = "Completed", started: bool = True) -> Any:
    begin = datetime.datetime.fromisoformat(f"{night}T12:00:00+00:00") + datetime.timedelta(days=1)
    return SimpleNamespace(
        id=run_id, state_name=state, parameters={}, expected_start_time=begin,
        start_time=begin if started else None, total_run_time=datetime.timedelta(seconds=75),
        state=SimpleNamespace(is_final=lambda: state != "Late"),
    )  # fmt: skip


def test_a_row_a_night(tmp_path: Path) -> None:
    counts = {"sources": 40, "fitted": 32, "reliable": 24, "failed_patches": {}}
    for n, value in enumerate((25.01, 25.02, 25.0, 25.31), 1):
        night_of(tmp_path, f"2026-01-0{n}", {"m400": value}, counts=counts, wall_s=65.0)
    runs = runs_by_night(
        [
            run_of("late", "2026-01-07", "Late", started=False),
            run_of("again", "2026-01-06", "Skipped"),
            run_of("bad", "2026-01-06", "Failed"),
            run_of("again", "2026-01-04", "Skipped"),
            run_of("run-2026-01-04", "2026-01-04"),
        ],
        "America/Santiago",
    )
    rows = health_rows(history(template_of(tmp_path), 20), runs, ["2026-01-07"], 0.1, 5, "http://ui")
    assert [(row["night"], row["status"]) for row in rows] == [
        ("2026-01-07", "did not run"),
        ("2026-01-06", "Failed"),
        ("2026-01-04", "Completed"),
        ("2026-01-03", "done"),
        ("2026-01-02", "done"),
    ]
    assert rows[1]["run"] == "[bad](http://ui/runs/flow-run/bad)"
    assert rows[1]["time"] == "1 min 15 s"
    assert rows[2] == {
        "night": "2026-01-04", "status": "Completed", "run": "[run-2026](http://ui/runs/flow-run/run-2026-01-04)",
        "time": "1 min 05 s", "sources": 40, "fitted": 32, "reliable": 24, "share": "75.0%", "patches failed": 0,
        "jumps (mag)": "m400 +0.300", "zero points (mag)": "m400 25.310",
        "results": str(tmp_path / "2026-01-04" / "run"),
    }  # fmt: skip
    assert rows[3]["run"] == "run-2026"  # of a run that the server does not know
    assert {row["jumps (mag)"] for row in rows[3:]} == {""}
    json.dumps(rows, allow_nan=False)
