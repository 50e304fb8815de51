"""Every row comes out as it went in: the bookkeeping defects of the pipeline before, each a test here."""

from __future__ import annotations

import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from regression_runs import FLAGS, Run, execute, logged, read_rows, write_config, write_rows

from tract7dt.errors import InputError
from tract7dt.resources import worker_count
from tract7dt.sample import SampleField

BANDS = ("m400", "m650", "m875")


def assert_plain_flags(run: Run) -> None:
    """The flags are true booleans in every row of every format."""
    text, table = run.text, pq.read_table(run.catalogue("parquet"))
    with fits.open(run.catalogue("fits")) as hdus:
        for name in FLAGS:
            assert set(text[name]) <= {"True", "False"}, f"{name} of the CSV"
            assert str(table.schema.field(name).type) == "bool", f"{name} of the Parquet"
            assert table[name].null_count == 0, f"{name} of the Parquet"
            assert hdus["CATALOG"].data[name].dtype == bool, f"{name} of the FITS"
            assert hdus["CATALOG"].data[name].tolist() == table[name].to_pylist()


# --- rows and columns ----------------------------------------------------------------------------------


def test_every_input_row_once_in_order(whole: Run, rough_catalogue: Path) -> None:
    header, rows = read_rows(rough_catalogue)
    given = [row[header.index("ID")] for row in rows]
    ids = whole.text["ID"].tolist()
    assert ids[: len(given)] == given
    assert all(name.startswith("gaia_") for name in ids[len(given) :])
    assert len(set(ids)) == len(ids)
    assert whole.table["ID"].tolist() == ids
    with fits.open(whole.catalogue("fits")) as hdus:
        assert hdus["CATALOG"].data["ID"].tolist() == ids


def test_columns_of_the_user_pass_through_in_their_place(whole: Run, rough_catalogue: Path) -> None:
    header, rows = read_rows(rough_catalogue)
    text = whole.text
    assert [name for name in text.columns if name in header] == header
    assert text.columns[: len(header)].tolist() == header
    for name in ("first", "my note", "z_phot", "ID", "TYPE"):
        want = [row[header.index(name)] for row in rows]
        assert text[name].iloc[: len(rows)].tolist() == want, name
    for name in ("RA", "DEC", "ELL", "THETA", "Re"):
        want = np.array([float(row[header.index(name)] or "nan") for row in rows])
        want[~np.isfinite(want)] = np.nan
        np.testing.assert_array_equal(pd.to_numeric(text[name]).to_numpy()[: len(rows)], want, name)


def test_columns_carry_unit_and_description(whole: Run) -> None:
    schema = pq.read_schema(whole.catalogue("parquet"))
    want = {"RA_fit": "deg", "x_pix_white_fit": "pix", "MAG_m650_fit": "mag", "RA_fit_err": "arcsec"}
    with fits.open(whole.catalogue("fits")) as hdus:
        columns, head = hdus["CATALOG"].columns, hdus["CATALOG"].header
        for name, unit in want.items():
            about = schema.field(name).metadata
            assert about[b"unit"].decode() == unit
            assert columns[name].unit == unit
            assert about[b"description"].decode() == head[f"TCOMM{columns.names.index(name) + 1}"] != ""
        fitted = [name for name in schema.names if name.startswith(("FLUX", "MAG")) and name.endswith("_fit")]
        assert len(fitted) == 12
        assert all(schema.field(name).metadata[b"unit"] for name in fitted)


# --- (14) leading zeros --------------------------------------------------------------------------------


def test_14_leading_zeros_survive_with_injected_gaia_stars(whole: Run, rough_catalogue: Path) -> None:
    ids = whole.text["ID"]
    injected = ids.str.startswith("gaia_")
    assert injected.sum() >= 2, "the field must have stars to inject"
    assert (ids.str.fullmatch(r"0\d{5}")).sum() >= 30
    assert "000001" in set(ids)


@pytest.fixture(scope="module")
def not_injected(runner) -> Run:
    return runner(zp={"inject_gaia_sources": False})


def test_14_leading_zeros_survive_without_injected_gaia_stars(not_injected: Run, sample: SampleField) -> None:
    header, rows = read_rows(sample.catalog)
    ids = [row[header.index("ID")] for row in rows]
    assert ids[0] == "000001"
    assert not_injected.text["ID"].tolist() == ids
    assert not_injected.table["ID"].tolist() == ids
    augmented = pd.read_csv(not_injected.work.augmented_catalog, dtype=str, keep_default_na=False)
    assert augmented["ID"].tolist() == ids
    with fits.open(not_injected.catalogue("fits")) as hdus:
        assert hdus["CATALOG"].data["ID"].tolist() == ids
    assert not_injected.stage("compute_zp")["status"] == "done"


# --- (15) rows without a fit ---------------------------------------------------------------------------


def rows_without_fit(run: Run) -> int:
    """What the merge logged of active rows without a fit."""
    (line,) = [text for text in run.log if "rows:" in text and "merged" in text]
    return int(re.search(r"(\d+) active rows without a fit", line)[1])


def test_15_merge_logs_no_row_without_fit_where_there_is_none(whole: Run) -> None:
    table = whole.table
    active = ~table["excluded_any"]
    assert table.loc[active, "x_pix_white_fit"].notna().all()
    assert rows_without_fit(whole) == 0


# --- (16) flags of excluded rows -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_zp(runner, rough_catalogue: Path) -> Run:
    return runner(inputs={"input_catalog": str(rough_catalogue)}, zp={"enabled": False})


@pytest.fixture(scope="module")
def without_star(runner, rough_catalogue: Path) -> Run:
    return runner(
        inputs={"input_catalog": str(rough_catalogue)}, zp={"gaia_mag_min": 2.0, "gaia_mag_max": 3.0}
    )


@pytest.mark.parametrize("which", ["whole", "without_zp", "without_star", "not_injected"])
def test_16_flags_are_booleans_in_every_row(which: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(which)
    assert_plain_flags(run)
    text = run.text
    want = np.where(text["excluded_crop"] == "True", "crop", "")
    near = (text["excluded_saturation"] == "True").to_numpy()
    want = np.where(near & (want == "crop"), "crop+saturation", np.where(near, "saturation", want))
    assert text["excluded_reason"].tolist() == want.tolist()
    assert ((text["excluded_any"] == "True") == (want != "")).all()
    assert near.any(), "the saturated star must exclude somebody"


def test_16_without_zero_point_stages_are_skipped(without_zp: Run) -> None:
    assert without_zp.summary["status"] == "done"
    for name in ("augment_gaia", "compute_zp"):
        assert without_zp.stage(name)["status"] == "skipped"
        assert without_zp.stage(name)["detail"]["reason"] == "zp.enabled is false"
    assert not [name for name in without_zp.text if name.startswith("MAG")]
    assert set(without_zp.text["gaia_source_id"]) == {""}


def test_16_without_gaia_star_on_the_frame_the_run_is_done(without_star: Run) -> None:
    assert without_star.summary["status"] == "done"
    assert any(text.startswith("WARNING") and "no Gaia star" in text for text in without_star.log)
    assert set(without_star.text["gaia_source_id"]) == {""}
    assert without_star.table["fit_is_reliable"].sum() >= 20
    zero_points = pd.read_csv(without_star.work.zp_summary)
    assert zero_points["band"].tolist() == list(BANDS)
    assert zero_points["zp_median"].isna().all()
    assert without_star.table["MAG_m650_fit"].isna().all()


# --- (17) positions that are not finite ----------------------------------------------------------------


def test_17_rows_without_position_stay_with_empty_fit(whole: Run, rough_catalogue: Path) -> None:
    header, rows = read_rows(rough_catalogue)
    ra = [row[header.index("RA")] for row in rows]
    dec = [row[header.index("DEC")] for row in rows]
    lost = [i for i, (a, d) in enumerate(zip(ra, dec)) if a in ("", "nan") or d == "inf"]
    far = [row[header.index("ID")] for row in rows].index("far away")
    assert len(lost) == 3, "a blank RA, a NaN RA and an infinite DEC"
    table = whole.table
    for i in (*lost, far):
        row = table.iloc[i]
        assert row["ID"] == rows[i][header.index("ID")]
        assert row["excluded_crop"]
        assert row["excluded_any"]
        assert row["excluded_reason"] == "crop"
        assert not row["fit_is_reliable"]
        assert row["fit_quality_issues"] == "excluded"
        assert row["patch_tag"] == ""
        assert row["stype_fit"] == ""
        numbers = [
            name for name in table if name.endswith(("_fit", "_err")) and table[name].dtype.kind == "f"
        ]
        assert len(numbers) > 20
        assert row[numbers].isna().all()
    assert table.loc[lost, ["x_pix_white", "y_pix_white"]].isna().all(axis=None)
    assert whole.summary["status"] == "done"
    assert (whole.text.loc[lost, "FLUX_m650_fit"] == "").all()


# --- (18) no Gaia table --------------------------------------------------------------------------------


def test_18_no_gaia_table_with_zero_point_wanted(runner) -> None:
    run = runner(inputs={"gaiaxp_synphot_csv": None}, zp={"enabled": True})
    assert run.summary["status"] == "done"
    for name in ("augment_gaia", "compute_zp"):
        assert run.stage(name)["status"] == "skipped"
        assert "inputs.gaiaxp_synphot_csv" in run.stage(name)["detail"]["reason"]
    assert any(text.startswith("WARNING") and "gaiaxp_synphot_csv" in text for text in run.log)
    assert run.table["fit_is_reliable"].sum() >= 20
    assert not [name for name in run.table if name.startswith("MAG")]
    assert_plain_flags(run)


# --- (19) lower-case columns ---------------------------------------------------------------------------


def test_19_lower_case_columns_mean_the_same(
    runner, whole: Run, rough_catalogue: Path, tmp_path: Path
) -> None:
    header, rows = read_rows(rough_catalogue)
    lower = {"ID", "RA", "DEC", "TYPE", "ELL", "THETA", "Re"}
    names = [name.lower() if name in lower else name for name in header]
    assert {"type", "ell", "theta", "re", "ra"} <= set(names)
    run = runner(inputs={"input_catalog": str(write_rows(tmp_path / "lower.csv", names, rows))})
    assert run.bytes("csv") == whole.bytes("csv")
    assert set(run.table["stype_fit"]) >= {"star", "exp", "dev", "sersic"}
    warned = [text for text in run.log if text.startswith("WARNING") and "is read as" in text]
    assert len(warned) >= len(lower)


# --- (20) duplicates -----------------------------------------------------------------------------------


def test_20_duplicate_ids_are_an_error_at_load_that_names_them(
    runner, sample: SampleField, tmp_path: Path
) -> None:
    header, rows = read_rows(sample.catalog)
    doubled = write_rows(tmp_path / "doubled.csv", header, [*rows, rows[4], rows[9]])
    with pytest.raises(InputError, match=r"(?s)'000005'.*'000010'"):
        runner(inputs={"input_catalog": str(doubled)})


def test_20_duplicate_filter_is_an_error_at_load_that_names_it(
    runner, sample: SampleField, tmp_path: Path
) -> None:
    images = tmp_path / "images.txt"
    other = shutil.copy(sample.images[1], tmp_path / "another_night.fits")
    images.write_text("".join(f"{path}\n" for path in (*sample.images, other)))
    with pytest.raises(InputError, match=r"FILTER = 'm650' in .*7DT_SIM_m650.* and in .*another_night"):
        runner(inputs={"image_list_file": str(images)})


def test_20_without_id_duplicate_positions_are_an_error(runner, sample: SampleField, tmp_path: Path) -> None:
    header, rows = read_rows(sample.catalog)
    at = header.index("ID")
    rows = [[*row[:at], *row[at + 1 :]] for row in [*rows, rows[6]]]
    catalogue = write_rows(tmp_path / "no_id.csv", [*header[:at], *header[at + 1 :]], rows)
    with pytest.raises(InputError, match=r"\(RA, DEC\) = .* in row 7 "):
        runner(inputs={"input_catalog": str(catalogue)})


# --- (21) workers --------------------------------------------------------------------------------------


def test_21_no_more_workers_than_cores(whole: Run) -> None:
    cores = len(os.sched_getaffinity(0))
    with logged() as messages:
        assert worker_count(cores + 30) == cores
    assert any(f"{cores + 30} workers were asked for, {cores} cores are there" in text for text in messages)
    assert worker_count("auto") == cores
    assert worker_count(cores, n_tasks=1) == 1
    (line,) = [text for text in whole.log if "load_inputs timing" in text]
    assert int(re.search(r"(\d+) workers?\)", line)[1]) <= cores


# --- hard sky ------------------------------------------------------------------------------------------


def test_hard_sky_is_survived(whole: Run, sample: SampleField) -> None:
    """NaN regions, a trail, a saturated star and one that nobody knows: all patches are fitted."""
    truth = pd.read_csv(sample.truth, dtype={"ID": str, "source_id": str}, keep_default_na=False)
    assert truth["saturated"].astype(str).eq("True").any()
    unknown = truth[(truth["catalogued"].astype(str) == "False") & (truth["gaia"].astype(str) == "False")]
    assert len(unknown) == 1
    nan = [np.isnan(fits.getdata(path)).sum() for path in sample.images]
    assert np.count_nonzero(nan) == 2
    assert whole.summary["counts"]["failed_patches"] == {}
    assert whole.summary["counts"]["patches"] == 4
    table = whole.table
    active = table[~table["excluded_any"]]
    assert active["x_pix_white_fit"].notna().all()
    assert active["fit_is_reliable"].mean() >= 0.8
    assert (active["fit_is_reliable"] | (active["fit_quality_issues"] != "")).all()
    mask = fits.getdata(whole.work.bright_mask)
    x, y = (round(float(unknown[name].iloc[0])) - 8 for name in "xy")
    assert mask[y, x] & 1, "the star that nobody knows is masked"


def test_magnitudes_follow_from_fluxes_and_zero_point(whole: Run) -> None:
    zero_points = pd.read_csv(whole.work.zp_summary).set_index("band")
    table = whole.table
    for band in BANDS:
        flux = table[f"FLUX_{band}_fit"].to_numpy(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            want = zero_points.loc[band, "zp_median"] - 2.5 * np.log10(flux)
        want[~(flux > 0)] = math.nan
        np.testing.assert_allclose(table[f"MAG_{band}_fit"], want, rtol=0, atol=1e-9)


# --- other catalogues ----------------------------------------------------------------------------------


def test_catalogue_without_id_gives_the_same_fits(
    runner, not_injected: Run, sample: SampleField, tmp_path: Path
) -> None:
    header, rows = read_rows(sample.catalog)
    at = header.index("ID")
    rows = [[*row[:at], *row[at + 1 :]] for row in rows]
    catalogue = write_rows(tmp_path / "no_id.csv", [*header[:at], *header[at + 1 :]], rows)
    run = runner(inputs={"input_catalog": str(catalogue)}, zp={"inject_gaia_sources": False})
    pd.testing.assert_frame_equal(run.text, not_injected.text.drop(columns="ID"))


def test_catalogue_that_is_elsewhere_is_no_crash(runner, sample: SampleField, tmp_path: Path) -> None:
    header, rows = read_rows(sample.catalog)
    ra = header.index("RA")
    rows = [[*row[:ra], f"{float(row[ra]) + 3:.6f}", *row[ra + 1 :]] for row in rows]
    catalogue = write_rows(tmp_path / "elsewhere.csv", header, rows)
    run = runner(inputs={"input_catalog": str(catalogue)}, zp={"enabled": False})
    assert any(text.startswith("WARNING") and "none of" in text for text in run.log)
    assert run.text["ID"].tolist() == [row[header.index("ID")] for row in rows]
    assert set(run.text["excluded_reason"]) == {"crop"}
    assert run.summary["counts"]["patches"] == 0
    assert_plain_flags(run)


def test_each_band_alone(runner, rough_catalogue: Path, whole: Run) -> None:
    run = runner(
        inputs={"input_catalog": str(rough_catalogue)},
        patch_run={"enable_multi_band_simultaneous_fitting": False},
    )
    assert run.text["ID"].tolist() == whole.text["ID"].tolist()
    assert_plain_flags(run)
    table = run.table
    for band in BANDS:
        assert {
            f"x_pix_white_{band}_fit",
            f"RA_{band}_fit",
            f"Re_{band}_fit",
            f"opt_converged_{band}",
        } <= set(table)
        together, error = (whole.table[f"{name}_{band}_fit"] for name in ("FLUX", "FLUXERR"))
        seen = table[f"fit_is_reliable_{band}"] & whole.table["fit_is_reliable"] & (together > 10 * error)
        assert seen.sum() >= 5
        assert np.median(np.abs(table[f"FLUX_{band}_fit"] - together)[seen] / error[seen]) < 0.5
    assert run.stage("compute_zp")["status"] == "done"


# --- configuration of 0.7 ------------------------------------------------------------------------------


def test_configuration_of_0_7_runs_to_the_same_catalogue(whole: Run, rough_catalogue: Path) -> None:
    """Keys, legacy ones included, as version 0.7 of the existing pipeline has them, paths beside the file."""
    folder = whole.work.root.parent / "of_0_7"
    config = folder / "config.yaml"
    values = {
        "inputs": {
            "tile_name": "SMALL",
            "input_catalog": "../" * len(folder.parts[1:]) + str(rough_catalogue).lstrip("/"),
            "image_list_file": str(rough_catalogue.parent / "image_list.txt"),
            "gaiaxp_synphot_csv": str(rough_catalogue.parent / "gaiaxp_synphot.csv"),
        },
        "outputs": {
            "work_dir": "out",
            "epsf_dir": "EPSFs",
            "patches_dir": "patches",
            "patch_inputs_dir": "patch_payloads",
            "tractor_out_dir": "outputs",
            "final_catalog": "output_catalog.csv",
            "cropped_images_dir": "cropped_images",
            "overlay_dir": "overlay",
        },
        "image_scaling": {"zp_ref": 25.0},
        "crop": {"enabled": True, "margin": 8, "plot_pre_crop": False, "plot_post_crop": False},
        "overlay": {"enabled": False, "zoom_box": [40, 90, 40, 90]},
        "checks": {"require_wcs_alignment": True, "wcs_tolerance": {"crval": 1e-6}},
        "source_saturation_cut": {"enabled": True, "radius_pix": 20.0, "saturation_divisor": 1.3},
        "logging": {"level": "INFO", "file": "auto"},
        "plotting": {"dpi": 40},
        "performance": {"frame_prep_workers": "auto", "white_stack_workers": "auto"},
        "epsf": {
            "epsf_ngrid": 1,
            "ngrid": 2,
            "gaia_seed_sat_r": 5,
            "gaia_seed_sat_div": 1.4,
            "save_star_montage_max": 0,
            "save_patch_background_diagnostics": False,
            "save_star_local_background_diagnostics": False,
            "save_growth_curve": False,
            "save_residual_diagnostics": False,
            "max_workers": 32,
        },
        "patch_inputs": {"include_wcs_in_payload": True, "keep_payloads_in_memory": False, "max_workers": 16},
        "patch_run": {
            "python_exe": "/usr/bin/python3",
            "max_workers": 32,
            "no_cutouts": True,
            "no_patch_overview": True,
            "gal_model": "exp",
        },
        "moffat_psf": {"module_path": "moffat_psf.py", "fwhm_default_pix": 4.0, "beta": 3.5},
        "merge": {"pattern": "*_cat_fit.csv"},
        "zp": {"enabled": True, "inject_gaia_sources": True},
    }
    run = execute(write_config(config, values))
    assert run.work.root == folder / "out"
    assert run.bytes() == whole.bytes()
