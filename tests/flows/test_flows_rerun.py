"""Reruns of a tiny field on a real server (SQLite): what is recorded, a part of the field, artifacts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rerun_field import CONFIG, Field

pytestmark = pytest.mark.slow

FITS = {"run_patches", "merge", "compute_zp"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, server_url: str) -> Field:
    """A run from nothing. Nobody may write to its folder."""
    return Field.made(tmp_path_factory.mktemp("rerun") / "first", server_url)


@pytest.fixture
def field(first: Field, tmp_path: Path) -> Field:
    shutil.copytree(first.folder, tmp_path / "field")
    return Field(tmp_path / "field", first.server_url)


def test_the_record_says_what_was_given_and_what_was_reused(first: Field, field: Field) -> None:
    maker = first.summary["run_id"]
    field.run(overrides={"zp.clip_sigma": 2.5}, night="2026-11-20", field="TINY")
    summary = field.summary
    assert summary["run_id"] != maker
    assert summary["parameters"] == {
        "config": str(field.folder / "config.yaml"),
        "field": "TINY",
        "night": "2026-11-20",
        "overrides": {"zp.clip_sigma": 2.5},
        "refresh": [],
        "only": [],
        "publish": True,
    }
    assert field.detail("merge")["reused_from"] == [maker]
    assert "zp.clip_sigma" in field.detail("compute_zp")["why"]
    kept = max((field.folder / "work").glob("config_used_*.yaml"))
    assert kept.read_text() == "# override: zp.clip_sigma = 2.5\n" + CONFIG


def test_a_part_of_the_field(field: Field) -> None:
    """Patches that are left out keep their fits; without one their sources stay and say so."""
    before = pd.read_csv(field.catalogue)
    metas = list((field.folder / "work" / "outputs").glob("*/meta.json"))
    mine = [path for path in metas if path.parent.name.startswith("r00_c00")]
    assert field.run(only=["r00_c00"], refresh=["run_patches"]) == {"run_patches"}
    assert field.detail("run_patches")["reused"] == len(metas) - len(mine)
    assert field.summary["status"] == "done"
    gone = [path for path in metas if path.parent.name.startswith("r01_")]
    for path in gone:
        path.unlink()
    assert field.run(only=[mine[0].parent.name], refresh=["run_patches"]) == FITS
    assert field.summary["status"] == "partial"
    assert len(field.summary["counts"]["patches_not_fitted"]) == len(gone)
    after = pd.read_csv(field.catalogue)
    lost = after["fit_quality_issues"].str.contains("patch_not_fitted", na=False)
    assert len(after) == len(before)
    assert lost.any()
    assert after.loc[lost, "patch_tag"].str.startswith("r01_").all()
    assert not after.loc[lost, "fit_is_reliable"].any()
    flux = [c for c in after.columns if c.startswith("FLUX_") and c.endswith("_fit")]
    assert after.loc[lost, flux].isna().all().all()
    same = ~lost & before["patch_tag"].notna()
    np.testing.assert_array_equal(after.loc[same, flux], before.loc[same, flux])
    assert field.run() == FITS  # the rest
    assert pd.read_csv(field.catalogue).equals(before)


def test_artifacts_are_on_the_server_under_the_name_of_the_field(field: Field) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.settings import PREFECT_API_URL, temporary_settings

    field.run(overrides={"zp.clip_sigma": 2.6})
    run = field.summary["run_id"]
    with temporary_settings({PREFECT_API_URL: field.server_url}), get_client(sync_client=True) as client:
        found = client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
    shown = {artifact.key: artifact for artifact in found if artifact.key}
    assert set(shown) == {
        f"tiny-{name}"
        for name in (
            "progress-bands",
            "progress-patches",
            "stages",
            "zero-points",
            "reliability",
            "summary",
            "overlay",
            "epsf",
            "zero-point-plots",
            "results",
        )
    }
    assert shown["tiny-progress-bands"].data == 100
    assert "## TINY: done" in str(shown["tiny-summary"].data)
    assert "zp.clip\\_sigma changed" in str(shown["tiny-summary"].data)
    rows = json.loads(str(shown["tiny-stages"].data))
    assert [row["status"] for row in rows] == ["cached"] * 9 + ["done"]
