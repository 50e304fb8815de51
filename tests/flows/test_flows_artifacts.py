"""What the UI shows of a run: tables without NaN, a page for a phone, and no harm from a server that is away."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from flows import artifacts, summary
from flows.artifacts import Board
from tract7dt.progress import ProgressWriter, open_folder, write_plan
from tract7dt.run_record import RunRecord
from tract7dt.settings import Settings, settings_from_dict
from tract7dt.store import WorkDir, write_text

RUN = "0b2c1f64-8f6e-4f7e-9a55-1d1d5c1b0001"
OTHER = "9c0374af-acf6-4a0e-b958-289fde5b5b6b"
ZP = "band,n_raw,n_kept,n_clipped,zp_median,zp_err_mad,zp_err_std,zp_err_median\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    values = {
        "inputs": {"tile_name": "UDS_1", "input_catalog": "c.csv", "image_list_file": "l.txt"},
        "outputs": {"work_dir": "out"},
    }
    return settings_from_dict(values, tmp_path).settings


def entry(name: str, status: str = "done", **detail: Any) -> dict[str, Any]:
    return {
        "name": name,
        "status": status,
        "wall_s": 75.26,
        "cpu_s": 1.0,
        "peak_rss_mb": 310.2,
        "detail": detail,
    }


def record(**more: Any) -> dict[str, Any]:
    stages = [
        entry("load_inputs", "cached", reused_from=[OTHER]),
        entry("augment_gaia", "skipped", reason="zp.enabled is false"),
        entry("build_epsf", bands=3, reused=2, why={"m400": "input m400 changed"}),
        entry("run_patches", patches=16, reused=4, left_out=3),
        entry("merge", why="never made here"),
        entry("compute_zp", why="zp.clip_sigma changed: 3.0 -> 2.5"),
    ]
    counts = {
        "sources": 200,
        "active": 180,
        "fitted": 170,
        "reliable": 153,
        "patches": 16,
        "failed_patches": {"r00_c00_pr00_pc00": "LinAlgError: <singular> | matrix"},
        "patches_not_fitted": ["a", "b", "c"],
        "issues": {"excluded": 20, "bound_stalled": 5},
    }
    return {
        "status": "partial",
        "run_id": RUN,
        "field": "UDS_1",
        "started": "2026-11-21T05:00:00-03:00",
        "wall_s": 245.2,
        "error": None,
        "stages": stages,
        "counts": counts,
        "parameters": {"night": "2026-11-20", "overrides": {"zp.clip_sigma": 2.5}, "only": ["r00_c00"]},
    } | more


def zero_points(tmp_path: Path) -> list[dict[str, str]]:
    path = tmp_path / "zp_summary.csv"
    path.write_text(ZP + "m400,9,8,1,25.01234,0.0101,0.02,0.0042\nm425,3,0,0,nan,nan,inf,\n")
    return summary.read_zero_points(path)


def test_the_page_says_what_an_observer_asks(tmp_path: Path) -> None:
    page = summary.summary_markdown(record(), zero_points(tmp_path), "all_mad", warnings=["m425: too few"])
    for line in (
        "## UDS\\_1 · 2026-11-20: partial",
        "- **200** sources",
        "- **170** fitted, **153** reliable (90%)",
        "- **16** patches: **1 failed**, **3 not fitted** (the run was of a part of the field)",
        "- `r00_c00_pr00_pc00`: LinAlgError: &lt;singular> \\| matrix",
        "| m400 | 25.012 | 0.004 | 8 |",
        "| m425 | **none** | **none** | 0 |",
        "- m425: too few",
        "- `zp.clip_sigma` = `2.5`",
        "- only r00\\_c00",
        "### Stages (4 min 05 s)",
        f"| ✓ load inputs | 1 min 15 s | reused from {OTHER[:8]} |",
        "| – augment gaia | 1 min 15 s | zp.enabled is false |",
        "| ✓ build epsf | 1 min 15 s | 2 of 3 bands reused; input m400 changed |",
        "| ✓ run patches | 1 min 15 s | 4 of 16 patches reused; 3 left out |",
        "| ✓ merge | 1 min 15 s |  |",
        "| ✓ compute zp | 1 min 15 s | zp.clip\\_sigma changed: 3.0 -> 2.5 |",
    ):
        assert line in page.splitlines(), line
    assert "nan" not in page
    assert len(page.encode()) < 100_000


def test_a_failed_run_says_where_and_why() -> None:
    error = {"stage": "merge", "message": "ProductError: <x> is\ndamaged"}
    page = summary.summary_markdown(record(status="failed", error=error, counts={}), [], "all_mad")
    assert "It ended in stage **merge**:\n\n> ProductError: &lt;x> is\n> damaged" in page


def test_long_lists_are_cut() -> None:
    failed = {f"p{i}": "x" for i in range(2000)}
    page = summary.summary_markdown(
        record(counts={"sources": 1, "patches": 2000, "failed_patches": failed}), [], ""
    )
    assert "- and 1990 more" in page
    assert len(page) < 5000


def test_tables_hold_plain_finite_values(tmp_path: Path) -> None:
    tables = [
        summary.stage_rows(record()),
        summary.zero_point_rows(zero_points(tmp_path), "all_mad"),
        summary.reliability_rows(record()),
    ]
    for rows in tables:
        assert rows
        json.dumps(rows, allow_nan=False)
        assert len({tuple(row) for row in rows}) == 1
    assert tables[1][0]["scatter of the stars"] == 0.0101
    assert tables[1][1]["zero point (mag)"] is None
    assert summary.zero_point_rows(zero_points(tmp_path), "bright_std")[0]["scatter of the stars"] == 0.02
    assert [(row["sources"], row["number"], row["share"]) for row in tables[2]][3:] == [
        ("reliable", 153, "76.5%"),
        ("excluded", 20, "10.0%"),
        ("bound_stalled", 5, "2.5%"),
    ]
    assert summary.reliability_rows(record(counts={})) == []


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (125, "2 min 05 s"), (3720, "1 h 02 min")]
)
def test_times_in_words(seconds: float, said: str) -> None:
    assert summary.duration(seconds) == said


# --- the board --------------------------------------------------------------------------------------------


class _Client:
    """Stands for the server; counts what it is asked."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.made: list[Any] = []
        self.changed: list[Any] = []
        self.trouble = trouble

    def __enter__(self) -> _Client:
        if self.trouble:
            raise self.trouble
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def create_artifact(self, artifact: Any) -> Any:
        from types import SimpleNamespace
        from uuid import uuid4

        self.made.append(artifact)
        return SimpleNamespace(id=uuid4())

    def update_artifact(self, artifact_id: Any, artifact: Any) -> None:
        self.changed.append(artifact)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> _Client:
    made = _Client()
    monkeypatch.setattr(artifacts, "get_client", lambda sync_client: made)
    return made


def test_artifacts_are_made_once_and_changed_when_there_is_news(settings: Settings, client: _Client) -> None:
    board, folder = Board(settings, RUN), WorkDir.of(settings)
    with RunRecord(settings, "run", RUN, {"night": None}) as kept, open_folder(folder.root) as progress:
        board.update()
        keys = {artifact.key: artifact for artifact in client.made}
        assert set(keys) == {
            "uds-1-progress-bands",
            "uds-1-progress-patches",
            "uds-1-summary",
        }  # stages come with the first stage
        assert {str(a.flow_run_id) for a in client.made} == {RUN}
        board.update()
        assert client.changed == []
        with kept.stage("build_epsf"):
            write_plan(progress, "epsf", ["m400", "m425"])
            with ProgressWriter(progress, "epsf", "m400") as writer:
                writer.update(1, 2)
                board.update()
                said = [a for a in client.changed if isinstance(a.data, float)]
                assert [a.data for a in said] == [25.0]
                assert "m400 50%" in said[0].description
        with kept.stage("run_patches") as entry:
            entry.detail |= {"patches": 8, "reused": 5}
            write_plan(progress, "patches", [], total=3)
            with ProgressWriter(progress, "patches", "p") as writer:
                writer.update(3, 3)
            board.update()
            assert [a.data for a in client.changed if isinstance(a.data, float)][-1] == 99.0, "not yet done"
    board.update()
    last = [a for a in client.changed if isinstance(a.data, float)][-1]
    assert (last.data, last.description) == (100.0, "patches: 8, 5 of them reused")
    assert any(a.key == "uds-1-stages" for a in client.made)
    assert "UDS\\_1: done" in [a for a in client.changed if isinstance(a.data, str)][-1].data
    assert len(client.made) == 4


def test_the_record_of_another_run_is_not_shown(settings: Settings, client: _Client) -> None:
    Board(settings, RUN).update()
    with RunRecord(settings, "run", OTHER):
        Board(settings, RUN).update()
    assert client.made == []


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("all connection attempts failed"),
        httpx.ReadTimeout("slow"),
        PrefectHTTPStatusError(
            "503", request=httpx.Request("POST", "http://x"), response=httpx.Response(503)
        ),
        ConnectionResetError("peer"),
    ],
)
def test_a_server_that_is_away_costs_an_artifact_only(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: Exception
) -> None:
    monkeypatch.setattr(artifacts, "get_client", lambda sync_client: _Client(trouble))
    board = Board(settings, RUN)
    with RunRecord(settings, "run", RUN), caplog.at_level(logging.WARNING):
        board.update()
        board.update()
    assert caplog.text.count("artifacts are not up to date") == 1


def test_a_defect_of_ours_is_not_taken_for_one_of_the_server(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "get_client", lambda sync_client: _Client(KeyError("stage")))
    with RunRecord(settings, "run", RUN), pytest.raises(KeyError):
        Board(settings, RUN).update()


def test_warnings_of_the_run_are_on_the_page(settings: Settings, client: _Client) -> None:
    with artifacts.reported(settings, RUN), RunRecord(settings, "run", RUN) as kept, kept.stage("compute_zp"):
        logging.getLogger("tract7dt.catalog").warning("m400: only %d stars", 3)
        logging.getLogger("tract7dt.catalog").warning("m400: only %d stars", 3)
        write_text(WorkDir.of(settings).zp_summary, ZP + "m400,9,3,1,25.01234,0.0101,0.02,0.0042\n")
    pages = [a.data for a in (*client.made, *client.changed) if str(a.data).startswith("## ")]
    assert pages[-1].count("m400: only 3 stars") == 1
    assert "| m400 | 25.012 | 0.004 | 3 |" in pages[-1]
