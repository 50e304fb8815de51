"""The table of docs/orchestration.md, row by row: what is changed, and which stages the flow then computes.

On a real server (SQLite), with the real stages on a tiny field.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from tract7dt.sample import SampleOptions, make_sample

pytestmark = pytest.mark.slow

OPTIONS = SampleOptions(
    width=260, height=260, bands=2, seed=6, stars=22, galaxies=6, saturated=1, uncatalogued=1, mag_limit=19.0
)
CONFIG = """\
inputs: {tile_name: TINY, input_catalog: field/input_catalog.csv, image_list_file: field/image_list.txt,
         gaiaxp_synphot_csv: field/gaiaxp_synphot.csv}
outputs: {work_dir: work}
crop: {margin: 6, plot_pre_crop: false}
overlay: {zoom_enabled: false}
plotting: {dpi: 40}
epsf: {epsf_ngrid: 2, ngrid: 2}
patch_run: {no_patch_overview: true, no_cutouts: true, n_opt_iters: 6}
runtime: {task_runner: thread, max_workers: 2}
"""

FITS = {"run_patches", "merge", "compute_zp"}


@dataclass
class Field:
    """A field with a work_dir, and the server that its runs report to."""

    folder: Path
    server_url: str

    def run(self, **given: Any) -> set[str]:
        """Run the flow; the stages that were not reused."""
        from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

        from flows.photometry import photometry

        with temporary_settings({PREFECT_API_URL: self.server_url, PREFECT_LOGGING_TO_API_ENABLED: False}):
            photometry(str(self.folder / "config.yaml"), **given)
        return {entry["name"] for entry in self.summary["stages"] if entry["status"] == "done"}

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "work" / "run_summary.json").read_text()))

    def detail(self, stage: str) -> dict[str, Any]:
        return next(dict(e["detail"]) for e in self.summary["stages"] if e["name"] == stage)

    @property
    def image(self) -> Path:
        return min((self.folder / "field").rglob("*.fits"))

    @property
    def catalogue(self) -> Path:
        return self.folder / "work" / "output_catalog.csv"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, server_url: str) -> tuple[Field, float]:
    """A run from nothing, and the seconds that it took. Nobody may write to its folder."""
    folder = tmp_path_factory.mktemp("rerun") / "first"
    make_sample(folder / "field", OPTIONS)
    (folder / "config.yaml").write_text(CONFIG)
    field = Field(folder, server_url)
    begun = time.process_time()
    assert len(field.run()) == 10
    assert field.summary["status"] == "done"
    assert field.summary["counts"]["patches"] > 8
    return field, time.process_time() - begun


@pytest.fixture
def field(first: tuple[Field, float], tmp_path: Path) -> Field:
    shutil.copytree(first[0].folder, tmp_path / "field")
    return Field(tmp_path / "field", first[0].server_url)


def _nothing(field: Field) -> None:
    pass


def _touch(field: Field) -> None:
    for path in (field.folder / "field").rglob("*.*"):
        path.write_bytes(path.read_bytes())
        os.utime(path, (1.0, 1.0))


def _pixel(field: Field) -> None:
    with fits.open(field.image, mode="update") as hdus:
        hdus[0].data[12, 12] += 1.0


def _catalogue_row(field: Field) -> None:
    path = field.folder / "field" / "input_catalog.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[len(table)] = table.iloc[0].to_dict() | {"ID": "another"}
    table.to_csv(path, index=False)


def _lose_catalogue(field: Field) -> None:
    field.catalogue.unlink()


def _damage_fit(field: Field) -> None:
    path = min((field.folder / "work" / "outputs").glob("*/*_cat_fit.csv"))
    path.write_text(path.read_text()[:-20])


def _lose_epsf(field: Field) -> None:
    min((field.folder / "work" / "EPSFs").rglob("epsf.npy")).unlink()


@pytest.mark.parametrize(
    ("change", "given", "computed"),
    [
        (_nothing, {}, set()),
        (_touch, {}, set()),
        (_nothing, {"overrides": {"zp.clip_sigma": 2.5}}, {"compute_zp"}),
        (_nothing, {"overrides": {"patch_run.n_opt_iters": 7}}, FITS),
        (_nothing, {"overrides": {"runtime.max_workers": 1}}, set()),
        (_lose_catalogue, {}, {"compute_zp"}),
        (_damage_fit, {}, {"run_patches"}),
        (_lose_epsf, {}, {"build_epsf"}),
        (_nothing, {"refresh": ["merge"]}, {"merge", "compute_zp"}),  # the catalogue is written by both
        (_nothing, {"refresh": ["build_epsf"]}, {"build_epsf"}),
    ],
    ids=lambda value: (
        getattr(value, "__name__", None) or (json.dumps(value) if isinstance(value, dict) else None)
    ),
)
def test_what_is_changed_is_what_is_computed(
    field: Field, change: Callable[[Field], None], given: dict[str, Any], computed: set[str]
) -> None:
    before = field.catalogue.read_bytes()
    change(field)
    assert field.run(**given) == computed
    assert field.summary["status"] == "done"
    if not given.get("overrides"):
        assert field.catalogue.read_bytes() == before


def test_a_changed_image_costs_its_own_band(field: Field) -> None:
    _pixel(field)
    computed = field.run()
    assert {"load_inputs", "build_epsf", "run_patches", "merge", "compute_zp"} <= computed
    assert field.detail("build_epsf")["reused"] == 1
    assert field.detail("build_epsf")["bands"] == 2


def test_a_changed_catalogue_keeps_the_epsfs(field: Field) -> None:
    before = field.summary["counts"]["sources"]
    _catalogue_row(field)
    computed = field.run()
    assert {"load_inputs", "augment_gaia", "build_patch_inputs", *FITS} <= computed
    assert "build_epsf" not in computed
    assert field.summary["counts"]["sources"] == before + 1


def test_an_unchanged_field_costs_a_tenth_and_fits_nothing(
    first: tuple[Field, float], field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tract7dt import fit_patch

    def refuse(*_: Any) -> Any:
        raise AssertionError("a patch was fitted")

    monkeypatch.setattr(fit_patch, "fit_payload", refuse)
    begun = time.process_time()
    assert field.run() == set()
    spent = time.process_time() - begun
    # The field is tiny: what Prefect itself takes for a run of ten tasks is no part of the field's time.
    assert spent < max(0.1 * first[1], 3.0)


def test_the_record_says_what_was_given_and_what_was_reused(first: tuple[Field, float], field: Field) -> None:
    maker = first[0].summary["run_id"]
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
        )
    }
    assert shown["tiny-progress-bands"].data == 100
    assert "## TINY: done" in str(shown["tiny-summary"].data)
    assert "zp.clip\\_sigma changed" in str(shown["tiny-summary"].data)
    rows = json.loads(str(shown["tiny-stages"].data))
    assert [row["status"] for row in rows] == ["cached"] * 9 + ["done"]
