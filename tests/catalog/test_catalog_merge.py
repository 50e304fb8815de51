"""Merge, sky positions and reliability."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from synthetic_catalog import BANDS, empty_row, make_audit, make_fit, make_payload, make_sources, make_wcs

from tract7dt.catalog import (
    merge,
    patch_table,
    read_catalog,
    read_merged,
    read_patch_catalog,
    write_catalog,
    write_merged,
    write_patch_catalog,
)
from tract7dt.catalog.sky import sky_errors, sky_position
from tract7dt.errors import ProductError
from tract7dt.types import Sources


def tables_of(sources, *, single=False, skip=(), fallback=(), **changes):
    """Two patches that share out the active rows, each with a halo source of the other."""
    rows = [i for i in range(2, len(sources)) if i not in skip]
    first, second = rows[::2], rows[1::2]
    result = []
    for number, (mine, halo) in enumerate(((second, first[:1]), (first, second[:1]))):
        payload = make_payload(sources, mine, halo, tag=(0, 1, number, 0))
        result.append(
            patch_table(payload, make_fit(payload, single, **changes), make_audit(fallback=fallback))
        )
    return result


def merged_of(sources, tables, single=False, failed=None, not_fitted=None):
    return merge(sources, tables, make_wcs(), BANDS, single, failed, not_fitted)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("has_id", [True, False])
def test_every_row_once_in_order_with_its_own_fit(tmp_path, single, has_id):
    sources = make_sources(has_id=has_id)
    tables = tables_of(sources, single=single)
    for number, table in enumerate(tables):
        write_patch_catalog(table, tmp_path / f"{number}.csv")
    back = [read_patch_catalog(tmp_path / f"{number}.csv") for number in range(2)]
    merged = merged_of(sources, back, single)

    given = [c for c in sources.table.columns if c in ("ID", "RA", "DEC", "TYPE", "note", "other_mag")]
    pd.testing.assert_frame_equal(merged[given], sources.table[given], check_dtype=False)
    assert merged.columns[: len(given)].tolist() == given
    fits = pd.concat(tables).set_index("source_index")
    for i in range(2, len(sources)):
        for band in BANDS:
            assert merged[f"FLUX_{band}_fit"][i] == fits[f"FLUX_{band}_fit"][i]
        assert merged["patch_tag"][i] == fits["patch_tag"][i]
    assert merged["excluded_reason"].tolist()[:3] == ["crop", "saturation", ""]


@pytest.mark.parametrize("single", [False, True])
def test_rows_without_a_fit_are_empty_and_flags_are_plain_booleans(single):
    sources = make_sources()
    merged = merged_of(sources, tables_of(sources, single=single, skip=(5,)), single)
    for name in merged.columns:
        if merged[name].dtype == bool:
            continue
        assert merged[name].dtype != object or merged[name].map(type).eq(str).all(), name
    flags = [
        c
        for c in merged
        if c.startswith(("opt_converged", "opt_hit", "flag_bound_stalled", "excluded_", "fit_is"))
    ]
    flags = [c for c in flags if "which" not in c and "reason" not in c]
    assert len(flags) >= 7
    assert all(merged[c].dtype == bool for c in flags)
    s = "_g" if single else ""
    for row in (0, 1, 5):
        assert np.isnan(merged.loc[row, f"x_pix_white{s}_fit"])
        assert np.isnan(merged.loc[row, f"RA{s}_fit"])
        assert np.isnan(merged.loc[row, "FLUX_g_fit"])
        assert merged.loc[row, "stype_fit"] == ""
        assert merged.loc[row, "patch_tag"] == ""
        assert not merged.loc[row, f"opt_converged{s}"]
        assert merged.loc[row, f"opt_niters{s}"] is pd.NA
    assert merged["fit_quality_issues"].tolist()[:3] == ["excluded", "excluded", "bright_mask"]
    assert merged["fit_quality_issues"][5] == "no_fit_result"
    assert merged["fit_is_reliable"].tolist() == [False] * 3 + [True, True, False] + [True] * 6


def test_flags_without_gaia_or_bright_mask_columns():
    """With zp disabled and no bright mask the base catalogue may lack these columns; nothing becomes NaN."""
    sources = make_sources()
    bare = Sources(sources.table.drop(columns=["gaia_source_id", "affected_by_bright_mask"]), True)
    merged = merged_of(bare, tables_of(bare))
    assert merged["gaia_source_id"].tolist() == [""] * 12
    assert merged["affected_by_bright_mask"].dtype == bool
    assert merged["excluded_any"].dtype == bool


def test_the_log_counts_active_rows_without_a_fit(caplog):
    sources = make_sources()
    with caplog.at_level(logging.INFO, "tract7dt.catalog.merging"):
        merged_of(sources, tables_of(sources, skip=(5, 6)))
    assert "2 active rows without a fit" in caplog.text
    assert "8 fitted, 7 reliable, 2 excluded (crop 1, saturation 1)" in caplog.text


def test_failed_patches_keep_their_rows(caplog):
    sources = make_sources()
    tables = tables_of(sources, skip=(5, 6))
    failed = {"r03_c04_pr01_pc02": ("engine: singular matrix", [5, 6])}
    merged = merged_of(sources, tables, failed=failed)
    assert merged["fit_quality_issues"][5] == "no_fit_result,patch_failed"
    assert not merged["fit_is_reliable"][5]
    assert merged["patch_tag"][6] == "r03_c04_pr01_pc02"
    assert merged["epsf_tag"][6] == "r03_c04"
    assert "singular matrix" in caplog.text


def test_patches_that_were_left_out_keep_their_rows(caplog):
    sources = make_sources()
    tables = tables_of(sources, skip=(5, 6))
    failed = {"r03_c04_pr01_pc02": ("engine: singular matrix", [5])}
    merged = merged_of(sources, tables, failed=failed, not_fitted={"r03_c04_pr01_pc03": [6]})
    assert merged["fit_quality_issues"][5] == "no_fit_result,patch_failed"
    assert merged["fit_quality_issues"][6] == "no_fit_result,patch_not_fitted"
    assert not merged["fit_is_reliable"][6]
    assert merged["patch_tag"][6] == "r03_c04_pr01_pc03"
    assert np.isnan(merged["x_pix_white_fit"][6])
    assert "1 patches were left out, 1 sources have no fit" in caplog.text


def test_nothing_fitted_at_all():
    sources = make_sources()
    merged = merged_of(sources, [])
    assert len(merged) == 12
    assert (
        merged["fit_quality_issues"].tolist()
        == ["excluded"] * 2 + ["no_fit_result,bright_mask"] + ["no_fit_result"] * 9
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: [*t, t[0].head(1)], "more than one patch"),
        (lambda t: [t[0].assign(source_index=t[0]["source_index"] + 100), t[1]], "does not have"),
        (lambda t: [t[0].assign(ID=t[0]["ID"].str.lstrip("0")), t[1]], "another catalogue"),
        (
            lambda t: [t[0].assign(source_index=t[0]["source_index"].to_numpy()[::-1]), t[1]],
            "another catalogue",
        ),
        (lambda t: [t[0].assign(x_pix_white=t[0]["x_pix_white"] + 3), t[1]], "another catalogue"),
        (
            lambda t: [t[0].drop(columns="CHI2_r_fit"), t[1]],
            r"table 0 \(patch r00_c01_pr00_pc00\) lacks \['CHI2_r_fit'\]",
        ),
        (lambda t: [t[0].assign(FLUXERR_z_fit=1.0), t[1]], "bands that are not fitted here"),
    ],
)
def test_results_of_another_run_are_refused(change, message):
    sources = make_sources()
    with pytest.raises(ProductError, match=message):
        merged_of(sources, change(tables_of(sources)))


def test_results_of_the_other_mode_and_of_excluded_rows_are_refused():
    sources = make_sources()
    with pytest.raises(ProductError, match="fitted together"):
        merged_of(sources, tables_of(sources, single=True), single=False)
    table = sources.table.copy()
    table.loc[4, ["excluded_saturation", "excluded_any"]] = True
    with pytest.raises(ProductError, match="excluded"):
        merged_of(Sources(table, True), tables_of(sources))
    with pytest.raises(ProductError, match="more than one patch"):
        merged_of(sources, tables_of(sources), failed={"r00_c00_pr00_pc00": ("x", [4])})


def test_rows_with_equal_coordinates_of_a_catalogue_without_id_do_not_mix():
    sources = make_sources(has_id=False)
    stale = tables_of(sources)
    moved = sources.table.copy()
    moved["RA"] += 1e-9
    with pytest.raises(ProductError, match="another catalogue"):
        merged_of(Sources(moved, False), stale)


def test_an_input_column_may_have_the_name_of_the_row_number(tmp_path):
    sources = make_sources()
    tables = tables_of(sources)
    merged = merged_of(Sources(sources.table.assign(source_index="a7"), True), tables)
    write_catalog(merged, tmp_path / "c.csv", BANDS)
    assert read_catalog(tmp_path / "c.csv")["source_index"].tolist() == ["a7"] * 12


def test_an_input_column_named_like_a_result_is_kept_aside(caplog):
    sources = make_sources()
    table = sources.table.copy()
    table.insert(3, "Re_fit", "old")
    table.insert(4, "MAG_g_fit", "12")
    merged = merged_of(Sources(table, True), tables_of(sources))
    assert merged["Re_fit_input"].tolist() == ["old"] * 12
    assert merged["MAG_g_fit_input"].tolist() == ["12"] * 12
    assert merged["Re_fit"].dtype == float
    assert "Re_fit" in caplog.text


def test_the_merged_table_survives_its_file_exactly(tmp_path):
    for single in (False, True):
        sources = make_sources()
        merged = merged_of(sources, tables_of(sources, single=single, skip=(5,)), single)
        write_merged(merged, tmp_path / "m.parquet")
        back = read_merged(tmp_path / "m.parquet")
        pd.testing.assert_frame_equal(back, merged, check_exact=True)
        back.loc[0, "FLUX_g_fit"] = 1.0  # may be changed


# --- reliability -----------------------------------------------------------------------------------------


def one_patch(sources, single=False, fallback=(), **changes):
    rows = list(range(2, len(sources)))
    payload = make_payload(sources, rows)
    fit = make_fit(payload, single)
    return patch_table(
        payload, replace(fit, **{k: f(fit) for k, f in changes.items()}), make_audit(fallback=fallback)
    )


def flag(rows):
    """A boolean field with the given catalogue rows (all sets) set; row 2 is the first source."""

    def make(fit):
        values = np.zeros_like(fit.converged)
        values[:, np.array(rows) - 2] = True
        return values

    return make


def test_each_issue_of_the_fit():
    sources = make_sources()
    table = one_patch(
        sources,
        hit_max_iters=flag([4]),
        converged=lambda f: ~(flag([4])(f) | flag([5])(f)),
        stalled=flag([5]),
        bound=lambda f: tuple(
            tuple("pos.x@upper" if i == 4 else "" for i in range(len(f))) for _ in range(1)
        ),
        x=lambda f: empty_row(f, "x", row=5)["x"],
        flux=lambda f: np.where(
            np.arange(len(f)) == 6, [[1.0], [np.nan]], np.where(np.arange(len(f)) == 7, np.nan, 5.0)
        ),
    )
    merged = merged_of(sources, [table])
    issues = merged["fit_quality_issues"]
    assert issues[4] == "hit_max_iters"
    assert issues[5] == "not_converged"
    assert issues[6] == "bound_stalled"
    assert issues[7] == "no_fit_result"  # no position
    assert issues[8] == ""  # one band without a flux says nothing against the other
    assert issues[9] == "no_fit_result"  # no flux in any band
    assert merged["fit_is_reliable"].tolist() == [False] * 3 + [
        True,
        False,
        True,
        False,
        False,
        True,
        False,
        True,
        True,
    ]


def test_all_psf_fallback_is_soft_and_needs_all_bands():
    sources = make_sources()
    some = merged_of(sources, [one_patch(sources, fallback=("g",))])
    both = merged_of(sources, [one_patch(sources, fallback=("g", "r"))])
    assert (some["fit_quality_issues"][3:] == "").all()
    assert (both["fit_quality_issues"][3:] == "all_psf_fallback").all()
    assert both["fit_is_reliable"][3:].all()


def test_in_single_band_mode_each_band_is_judged_by_itself():
    sources = make_sources()
    table = one_patch(
        sources,
        single=True,
        fallback=("r",),
        hit_max_iters=lambda f: np.array([np.arange(len(f)) == 2, np.zeros(len(f), bool)]),
        x=lambda f: np.where([np.arange(len(f)) == 3, np.zeros(len(f), bool)], np.nan, f.x),
    )
    merged = merged_of(sources, [table], single=True)
    assert merged["fit_quality_issues_g"][4] == "hit_max_iters"
    assert merged["fit_quality_issues_r"][4] == "all_psf_fallback"
    assert merged["fit_quality_issues"][4] == "hit_max_iters"
    assert not merged["fit_is_reliable"][4]
    assert not merged["fit_is_reliable_g"][4]
    assert merged["fit_is_reliable_r"][4]
    # A band without a result counts against that band only.
    assert merged["fit_quality_issues_g"][5] == "no_fit_result"
    assert not merged["fit_is_reliable_g"][5]
    assert merged["fit_is_reliable"][5]
    assert merged["fit_quality_issues"][5] == "all_psf_fallback"  # the only band with a result fell back
    assert merged["fit_quality_issues"][6] == ""


# --- sky -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ra", "dec"), [(150.0, 20.0), (0.0001, -45.0), (359.99999, 5.0), (10.0, 89.99), (30.0, -90.0)]
)
def test_sky_errors_against_scattered_positions(ra, dec):
    """The covariance is that of astropy's offsets of many scattered pixel positions."""
    wcs = make_wcs(ra, dec)
    rng = np.random.default_rng(2)
    x, y = 210.3, 195.8
    cov = np.array([[0.04, 0.015], [0.015, 0.0225]])
    pixels = rng.multivariate_normal([x, y], cov, 40000)
    centre = SkyCoord(*sky_position(wcs, np.array([x]), np.array([y])), unit="deg")
    east, north = centre.spherical_offsets_to(SkyCoord(*wcs.all_pix2world(*pixels.T, 0), unit="deg"))
    expected = np.std(east.to_value(u.arcsec)), np.std(north.to_value(u.arcsec))
    got = sky_errors(wcs, *(np.array([v]) for v in (x, y, 0.2, 0.15, 0.015)))
    # 40000 draws give a standard deviation to 0.35 per cent; four of these.
    np.testing.assert_allclose(np.ravel(got), expected, rtol=0.014)


def test_sky_errors_of_a_rotated_frame_exactly():
    """Near the tangent point north lies along a known pixel direction, so errors are known by hand."""
    scale = 0.505
    wcs = make_wcs(rotation=90.0)  # x runs north, y runs east
    errors = sky_errors(wcs, *(np.array([v]) for v in (199.0, 199.0, 0.3, 0.1, 0.02)))
    np.testing.assert_allclose(np.ravel(errors), [0.1 * scale, 0.3 * scale], rtol=1e-9)


def test_sky_errors_with_distortion():
    """A SIP term changes the local scale; the errors follow it."""
    wcs = make_wcs(rotation=0.0)
    header = wcs.to_header(relax=True)
    header.update(
        {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-4}
    )
    header.update({"B_2_0": 0.0, "NAXIS": 2})
    bent = WCS(header)
    at = np.array([399.0]), np.array([199.0])
    ra_err, dec_err = sky_errors(bent, *at, np.array([0.1]), np.array([0.1]), np.array([0.0]))
    # x scale grows by d(x + 1e-4 x**2)/dx at 200 pix from the reference pixel.
    np.testing.assert_allclose(ra_err, 0.1 * 0.505 * (1 + 2e-4 * 200), rtol=1e-4)
    np.testing.assert_allclose(dec_err, 0.1 * 0.505, rtol=1e-4)


def test_sky_of_missing_positions_is_missing():
    nothing = np.full(3, np.nan)
    for values in (sky_position(make_wcs(), nothing, nothing), sky_errors(make_wcs(), *[nothing] * 5)):
        assert np.isnan(values).all()


def test_fitted_sky_positions_are_those_of_the_pixels():
    sources = make_sources()
    wcs = make_wcs()
    for single, s in ((False, ""), (True, "_r")):
        merged = merged_of(sources, tables_of(sources, single=single), single)
        good = merged[f"x_pix_white{s}_fit"].notna()
        ra, dec = merged[f"RA{s}_fit"][good], merged[f"DEC{s}_fit"][good]
        x, y = wcs.all_world2pix(ra, dec, 0)
        np.testing.assert_allclose(x, merged[f"x_pix_white{s}_fit"][good], atol=1e-6)
        np.testing.assert_allclose(y, merged[f"y_pix_white{s}_fit"][good], atol=1e-6)
        # Rotation leaves the total error alone.
        total = np.hypot(merged[f"RA{s}_fit_err"], merged[f"DEC{s}_fit_err"])[good]
        pixels = np.hypot(merged[f"x_pix{s}_fit_err"], merged[f"y_pix{s}_fit_err"])[good]
        np.testing.assert_allclose(total, 0.505 * pixels, rtol=1e-5)
