"""Step by step, again, halfway, with something broken: the catalogue is the same, or says what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from regression_runs import Run, configuration, execute, start, write_config

from tract7dt.errors import ProductError
from tract7dt.sample import SampleField

STEPS = ("run-epsf", "build-patches", "build-patch-inputs", "run-patches", "merge", "compute-zp")


@pytest.fixture(scope="module")
def stepped(runner, rough_catalogue: Path) -> Run:
    """The steps one after the other. Whoever changes it puts it back."""
    inputs = {"input_catalog": str(rough_catalogue)}
    run = runner(STEPS[0], inputs=inputs)
    for step in STEPS[1:]:
        run.again(step)
    return run


def fitted_files(run: Run) -> dict[str, int]:
    """When each patch's catalogue was written, ns."""
    return {path.name: path.stat().st_mtime_ns for path in run.work.fits.glob("*/*_cat_fit.csv")}


# --- same again ----------------------------------------------------------------------------------------


def test_steps_one_by_one_write_the_catalogue_of_a_run(stepped: Run, whole: Run) -> None:
    assert stepped.work.root != whole.work.root
    assert stepped.bytes("csv") == whole.bytes("csv")
    assert stepped.bytes("parquet", "fits") == whole.bytes("parquet", "fits")
    for name in ("zp_summary", "zp_per_object", "augmented_catalog"):
        mine, theirs = (getattr(run.work, name).read_bytes() for run in (stepped, whole))
        assert mine == theirs, name
    stages = {entry["name"]: entry["status"] for entry in stepped.summary["stages"]}
    assert len(stages) == 10
    reused = {name for name, status in stages.items() if status == "cached"}
    assert reused == {"load_inputs", "augment_gaia", "bright_mask"}, "the merge found them up to date"
    assert set(stages.values()) == {"done", "cached"}


def test_a_second_run_writes_the_same_bytes(runner, whole: Run, rough_catalogue: Path) -> None:
    """Other folder, other number of workers, payloads not compressed: same catalogue in all formats."""
    run = runner(
        inputs={"input_catalog": str(rough_catalogue)},
        performance={"frame_prep_workers": 1, "white_stack_workers": 1},
        patch_inputs={"gzip_compresslevel": 0, "max_workers": 1},
    )
    assert run.bytes() == whole.bytes()


def test_zero_point_alone_rewrites_only_itself(stepped: Run, whole: Run) -> None:
    before, fits = stepped.table, fitted_files(stepped)
    changed = stepped.again("compute-zp", zp={"clip_sigma": 0.8})
    after = changed.table
    magnitudes = [name for name in before if name.startswith(("MAG_", "MAGERR_"))]
    assert len(magnitudes) == 6
    assert list(after) == list(before)
    pd.testing.assert_frame_equal(after.drop(columns=magnitudes), before.drop(columns=magnitudes))
    assert not after[magnitudes].equals(before[magnitudes])
    kept, kept_before = (pd.read_csv(run.work.zp_summary)["n_kept"] for run in (changed, whole))
    assert (kept < kept_before).any()
    assert fitted_files(stepped) == fits
    assert stepped.again("compute-zp").bytes() == whole.bytes()


# --- resume --------------------------------------------------------------------------------------------


def test_resume_keeps_finished_patches_until_a_fit_setting_changes(stepped: Run, whole: Run) -> None:
    first = fitted_files(stepped)
    assert len(first) == 4
    resumed = stepped.again("run-patches", patch_run={"resume": True})
    assert fitted_files(resumed) == first, "turning resume on must not make finished fits stale"
    drawn = stepped.again("run-patches", patch_run={"resume": True, "max_workers": 1, "cutout_size": 50})
    assert fitted_files(drawn) == first, "neither do settings that change no fit"

    victim = "r00_c00_pr01_pc00_cat_fit.csv"
    path = next(stepped.work.fits.glob(f"*/{victim}"))
    path.write_bytes(path.read_bytes()[:-40])
    mended = fitted_files(stepped.again("run-patches", patch_run={"resume": True}))
    assert {name for name in first if mended[name] != first[name]} == {victim}, "a damaged fit is done again"

    changed = fitted_files(stepped.again("run-patches", patch_run={"resume": True, "r_ap": 4.0}))
    assert all(changed[name] != mended[name] for name in first)

    for step in ("run-patches", "merge", "compute-zp"):
        last = stepped.again(step)
    assert last.bytes() == whole.bytes()


def test_resumed_run_fits_only_what_is_missing(runner, whole: Run, rough_catalogue: Path) -> None:
    """A run that was killed while it fitted, started again as a whole."""
    inputs = {"input_catalog": str(rough_catalogue)}
    run = runner(inputs=inputs)
    first = fitted_files(run)
    missing = "r00_c00_pr00_pc01"
    run.work.patch_meta(missing).unlink()
    run.work.final_catalog.unlink()
    resumed = run.again("run", patch_run={"resume": True})
    second = fitted_files(resumed)
    assert {name for name in first if second[name] != first[name]} == {f"{missing}_cat_fit.csv"}
    assert resumed.bytes() == whole.bytes()


# --- other division ------------------------------------------------------------------------------------


def test_21_results_of_another_division_are_not_merged(runner, whole: Run, rough_catalogue: Path) -> None:
    inputs = {"input_catalog": str(rough_catalogue)}
    run = runner(inputs=inputs, epsf={"ngrid": 3})
    assert len(fitted_files(run)) > 4
    assert "r00_c00_pr02_pc02" in set(run.table["patch_tag"])

    changed = run.again("build-patches", epsf={"ngrid": 2}).again("build-patch-inputs")
    payloads = {path.name.split(".")[0] for path in changed.work.payloads.glob("*.fits*")}
    assert payloads == {f"r00_c00_pr0{row}_pc0{col}" for row in range(2) for col in range(2)}

    # Four tags of the old division are tags of the new one, too, of other pixels and sources.
    with pytest.raises(ProductError, match="run-patches"):
        changed.again("merge")
    again = changed.again("run", patch_run={"resume": True})
    assert again.bytes() == whole.bytes()
    assert again.summary["counts"]["patches"] == 4


# --- steps without their predecessor -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("build-patch-inputs", "run-epsf"),
        ("run-patches", "build-patch-inputs"),
        ("merge", "build-patch-inputs"),
        ("compute-zp", "merge"),
    ],
)
def test_step_without_its_predecessor_names_the_command(
    sample: SampleField, tmp_path: Path, command: str, wanted: str
) -> None:
    config = write_config(tmp_path / "config.yaml", configuration(sample, tmp_path / "work"))
    with pytest.raises(ProductError, match=f"run `tract7dt {wanted}` first"):
        execute(config, command)
    assert not (tmp_path / "work" / "output_catalog.csv").exists()


def test_each_missing_product_names_its_command(sample: SampleField, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", configuration(sample, tmp_path / "work"))
    epsf = execute(config, "run-epsf")
    with pytest.raises(ProductError, match="run `tract7dt build-patches` first"):
        execute(config, "build-patch-inputs")
    execute(config, "build-patches")
    band = epsf.work.epsf_band("m650")
    there = band.read_bytes()
    band.unlink()
    with pytest.raises(ProductError, match=r"EPSFs/m650/cells.json .*run `tract7dt run-epsf` first"):
        execute(config, "build-patch-inputs")
    band.write_bytes(there)
    execute(config, "build-patch-inputs")
    with pytest.raises(ProductError, match="run `tract7dt run-patches` first"):
        execute(config, "merge")


# --- failure is a value --------------------------------------------------------------------------------


def test_6_a_damaged_payload_costs_its_own_patch_only_and_the_exit_code(stepped: Run, whole: Run) -> None:
    tag = "r00_c00_pr01_pc01"
    path = next(stepped.work.payloads.glob(f"{tag}.fits*"))
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    try:
        fitted = start("-m", "flows.cli", "run-patches", "--config", str(stepped.config))
        merge = stepped.again("merge")
        broken = stepped.again("compute-zp")
    finally:
        path.write_bytes(good)

    assert fitted.code == 1
    assert "1 of 4 patches could not be fitted" in fitted.err
    assert tag in fitted.err
    meta = json.loads(stepped.work.patch_meta(tag).read_text())
    assert meta["status"] == "failed"
    assert path.name in meta["reason"]
    assert not stepped.work.patch_catalog(tag).exists()
    assert set(broken.summary["counts"]["failed_patches"]) == {tag}
    assert broken.summary["counts"]["failed_patches"][tag] == meta["reason"]

    healthy, table = whole.table, broken.table
    assert table["ID"].tolist() == healthy["ID"].tolist()
    lost = (healthy["patch_tag"] == tag).to_numpy()
    assert 3 <= lost.sum() < len(table) - 3
    issues = [set(text.split(",")) for text in table.loc[lost, "fit_quality_issues"]]
    assert all({"no_fit_result", "patch_failed"} <= found for found in issues)
    assert not table.loc[lost, "fit_is_reliable"].any()
    assert table.loc[lost, "x_pix_white_fit"].isna().all()
    assert table.loc[lost, "FLUX_m650_fit"].isna().all()
    assert set(table.loc[lost, "patch_tag"]) == {tag}
    rest = [name for name in table if not name.startswith("MAG")]  # there are fewer stars for the zero point
    pd.testing.assert_frame_equal(table.loc[~lost, rest], healthy.loc[~lost, rest])

    # (15) the true number, in the log
    (line,) = [text for text in merge.log if "active rows without a fit" in text]
    assert int(re.search(r"(\d+) active rows without a fit", line)[1]) == np.count_nonzero(lost)
    assert any(text.startswith("WARNING") and tag in text and "failed" in text for text in merge.log)

    for step in ("run-patches", "merge", "compute-zp"):
        mended = stepped.again(step)
    assert mended.bytes() == whole.bytes()
