"""Zero point, its statistics and the magnitudes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from astropy.stats import mad_std, sigma_clip
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq

from tract7dt.catalog import apply_zero_points, measure_zero_points, write_zp
from tract7dt.catalog.robust import SMALL_SAMPLE, clip_mad, excess_scatter, median_error, weighted_median
from tract7dt.errors import ProductError
from tract7dt.store import WorkDir

VALUES = arrays(np.float64, st.integers(1, 60), elements=st.floats(-5, 5, width=32))


# --- statistics ------------------------------------------------------------------------------------------


@given(VALUES)
def test_equal_weights_give_the_median(values):
    assert weighted_median(values, np.full(len(values), 0.1)) == pytest.approx(np.median(values), abs=1e-12)


@given(VALUES, st.integers(0, 2**32 - 1))
def test_weighted_median_against_numpy(values, seed):
    weights = np.random.default_rng(seed).uniform(0.1, 5, len(values))
    expected = np.quantile(values, 0.5, weights=weights, method="inverted_cdf")
    assert weighted_median(values, weights) == expected


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(-5, 5, width=32)), st.integers(0, 2**32 - 1))
def test_whole_weights_are_repetitions(values, seed):
    times = np.random.default_rng(seed).integers(1, 6, len(values))
    repeated = np.median(np.repeat(values, times))
    assert weighted_median(values, times.astype(float)) == pytest.approx(repeated, abs=1e-12)


@given(VALUES, st.integers(0, 2**32 - 1), st.floats(-30, 30), st.floats(0.01, 100))
def test_weighted_median_moves_with_the_values_and_not_with_the_weights_scale(values, seed, shift, factor):
    weights = np.random.default_rng(seed).uniform(0.1, 5, len(values))
    base = weighted_median(values, weights)
    assert weighted_median(values + shift, weights) == pytest.approx(base + shift, abs=1e-9)
    assert weighted_median(values, weights * factor) == base
    assert weighted_median(-values, weights) == pytest.approx(-base, abs=1e-12)


@pytest.mark.parametrize(("n", "outliers"), [(30, 0), (30, 3), (200, 20), (1000, 7)])
def test_clip_against_astropy(n, outliers):
    """astropy never takes a value back; where none comes back, both are one rule (1.4826 is its 1.482602)."""
    rng = np.random.default_rng(n + outliers)
    values = rng.normal(25, 0.02, n)
    values[:outliers] += rng.uniform(0.3, 2, outliers)
    expected = ~sigma_clip(values, sigma=3, maxiters=10, cenfunc="median", stdfunc=mad_std).mask
    np.testing.assert_array_equal(clip_mad(values, 3.0, 10), expected)
    assert not clip_mad(values, 3.0, 10)[:outliers].any()


def test_one_round_is_the_formula():
    rng = np.random.default_rng(3)
    values = rng.standard_t(2, 50)
    centre = np.median(values)
    scatter = 1.4826 * np.median(np.abs(values - centre))
    np.testing.assert_array_equal(clip_mad(values, 2.0, 1), np.abs(values - centre) <= 2.0 * scatter)


def test_clip_stops_for_zero_mad_and_for_few_values():
    np.testing.assert_array_equal(clip_mad(np.array([1.0, 1, 1, 1, 9]), 3.0, 10), [True] * 5)
    np.testing.assert_array_equal(clip_mad(np.array([1.0, 9.0]), 3.0, 10), [True] * 2)
    np.testing.assert_array_equal(clip_mad(np.zeros(0), 3.0, 10), [])
    np.testing.assert_array_equal(clip_mad(np.array([0.0, 1, 2, 3, 50]), 3.0, 0), [True] * 5)


def naive_clip(values, clip_sigma=3.0, rounds=10):
    """The rule of the output contract, word for word; indices of the kept."""
    kept = list(range(len(values)))
    for _ in range(rounds):
        if len(kept) < 3:
            break
        median = np.median([values[i] for i in kept])
        scatter = np.median([abs(values[i] - median) for i in kept])
        if scatter == 0:
            break
        now = [i for i in range(len(values)) if abs(values[i] - median) <= clip_sigma * 1.4826 * scatter]
        if now == kept:
            break
        kept = now
    return kept


@pytest.mark.parametrize(("n", "at_most"), [(4, 0.75), (5, 0.75), (7, 0.8)])
def test_few_good_stars_are_clipped_less_than_without_the_factor(n, at_most):
    draws = np.random.default_rng(n).normal(0, 1, (600, n))
    lost = sum(n - clip_mad(d, 3.0, 10).sum() for d in draws)
    assert lost < at_most * sum(n - len(naive_clip(d)) for d in draws)


@pytest.mark.parametrize("n", [3, 5, 9])
def test_a_clear_outlier_among_few_goes(n):
    values = np.random.default_rng(n).normal(25, 0.01, n)
    values[0] = 25.6
    assert not clip_mad(values, 3.0, 10)[0]


@settings(deadline=None)
@given(arrays(np.float64, st.integers(10, 40), elements=st.floats(-5, 5, width=16)))
def test_clip_against_the_rule_word_for_word(values):
    expected = np.isin(np.arange(len(values)), naive_clip(values))
    assume(expected.sum() >= 10)  # below, the small-sample factor comes in
    np.testing.assert_array_equal(clip_mad(values, 3.0, 10), expected)


def test_the_small_sample_factor_makes_the_mad_unbiased():
    rng = np.random.default_rng(8)
    for n, factor in enumerate(SMALL_SAMPLE, 2):
        draws = rng.normal(0, 1, (60000, n))
        scatter = 1.4826 * np.median(np.abs(draws - np.median(draws, axis=1, keepdims=True)), axis=1)
        assert factor * scatter.mean() == pytest.approx(1.0, abs=0.015)


@pytest.mark.parametrize(("scatter", "low", "high"), [(0.05, 0.85, 1.15), (0.01, 0.6, 1.0), (0.0, 0.15, 1.0)])
@pytest.mark.parametrize("n", [15, 60])
def test_pulls_of_the_weighted_median(n, scatter, low, high):
    """Of unit width where stars scatter by more than their errors, never wider."""
    rng = np.random.default_rng(n)
    pulls = []
    for _ in range(1500):
        formal = 10 ** rng.uniform(-3, -1.3, n)
        draw, weights = rng.normal(0, np.hypot(formal, scatter)), formal**-2.0
        m = weighted_median(draw, weights)
        pulls.append(m / median_error(draw, weights, m))
    width = 1.4826 * np.median(np.abs(pulls))
    assert low < width < high


@pytest.mark.parametrize("n", [5, 15, 60])
def test_pulls_of_a_plain_median(n):
    rng = np.random.default_rng(n)
    draws, weights = rng.normal(0, 1, (1500, n)), np.ones(n)
    pulls = [np.median(d) / median_error(d, weights, float(np.median(d))) for d in draws]
    assert 1.4826 * np.median(np.abs(pulls)) == pytest.approx(1.0, abs=0.13)


def test_the_error_of_a_plain_median_of_many():
    rng = np.random.default_rng(4)
    values = rng.normal(0, 0.02, 4000)
    error = median_error(values, np.ones(4000), float(np.median(values)))
    assert error == pytest.approx(np.sqrt(np.pi / 2) * 0.02 / np.sqrt(4000), rel=0.05)


def test_the_error_of_one_or_of_equal_stars():
    assert np.isnan(median_error(np.array([25.0]), np.ones(1), 25.0))
    assert median_error(np.full(3, 25.0), np.ones(3), 25.0) == 0.0


# --- zero points -----------------------------------------------------------------------------------------


def star_table(n, seed=0, zp=25.3, scatter=0.01, single=False, bands=("g", "r")):
    """A merged catalogue of stars, and their magnitudes (nband, n)."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"gaia_source_id": [str(4 * 10**18 + i) for i in range(n)]})
    mags = rng.uniform(13, 17, (len(bands), n))
    for i, band in enumerate(bands):
        flux = 10 ** (0.4 * (zp + rng.normal(0, scatter, n) - mags[i]))
        table[f"FLUX_{band}_fit"] = flux
        table[f"FLUXERR_{band}_fit"] = flux * 10 ** rng.uniform(-3, -2, n)
        if single:
            table[f"fit_is_reliable_{band}"] = True
    table["fit_is_reliable"] = not single
    return table, mags


def test_a_star_within_its_own_error_is_no_outlier():
    # published and fitted magnitudes of a real field: four of nine agree to a millimagnitude by chance
    zp = np.array([25.0090, 24.9970, 25.0079, 25.0057, 24.9946, 25.0070, 24.9513, 25.0359])
    error = np.array([0.0050, 0.0056, 0.0019, 0.0060, 0.0240, 0.0063, 0.0110, 0.0055])
    assert clip_mad(zp, 3.0, 10).sum() < 6
    assert clip_mad(zp, 3.0, 10, error).tolist() == [True] * 6 + [False] * 2
    unknown = np.full(len(zp), np.nan)
    assert clip_mad(zp, 3.0, 10, unknown).tolist() == clip_mad(zp, 3.0, 10).tolist()


def naive_excess(values, errors):
    """The s that makes chi-square about the weighted mean equal n - 1; 0 if it is smaller without."""

    def chi2(s):
        w = [1 / (e**2 + s**2) for e in errors]
        mean = sum(a * b for a, b in zip(w, values)) / sum(w)
        return sum(a * (b - mean) ** 2 for a, b in zip(w, values)) - (len(values) - 1)

    return brentq(chi2, 0, 10, xtol=1e-12) if chi2(0) > 0 else 0.0


def naive_zero_point(mag, flux, error):
    """The rules of the output contract on plain lists, with the stars' excess scatter in the weights."""
    zp = [m + 2.5 * np.log10(f) for m, f in zip(mag, flux)]
    err = [2.5 / np.log(10) * e / f for e, f in zip(error, flux)]
    kept = naive_clip(zp)
    order = sorted(kept, key=lambda i: zp[i])
    excess = naive_excess([zp[i] for i in order], [err[i] for i in order])
    weights = [1 / (err[i] ** 2 + excess**2) for i in order]
    half, total, value = sum(weights) / 2, 0.0, None
    for i, w in zip(order, weights):
        total += w
        if total >= half:
            value = zp[i]
            break
    residual = [abs(zp[i] - value) for i in kept]
    bright = [zp[i] for i in kept if flux[i] / error[i] >= 100]
    return value, np.median(residual), np.std(bright), len(bright), len(kept)


def test_against_the_rules_word_for_word(zp_settings):
    table, mags = star_table(80, seed=3, scatter=0.02)
    table.loc[:5, "FLUX_g_fit"] *= 1.4
    (g, r), per_object = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    for band, zp, mag in (("g", g, mags[0]), ("r", r, mags[1])):
        flux, error = table[f"FLUX_{band}_fit"].tolist(), table[f"FLUXERR_{band}_fit"].tolist()
        value, err_mad, err_std, n_bright, n_kept = naive_zero_point(mag.tolist(), flux, error)
        assert zp.value == pytest.approx(value, abs=1e-12)
        assert zp.err_mad == pytest.approx(err_mad, abs=1e-12)
        assert zp.err_std == pytest.approx(err_std, abs=1e-12)
        assert (zp.n_err_src, zp.n_kept, zp.n_raw, zp.n_clipped) == (n_bright, n_kept, 80, 80 - n_kept)
        assert zp.err_snr_used == 100
        assert zp.err == zp.err_mad
        mine = per_object[per_object["band"] == band]
        assert mine["is_kept"].sum() == n_kept
        assert (mine["is_kept"] ^ mine["is_clipped"]).all()
    assert g.n_clipped >= 6


def test_excess_scatter_is_what_the_errors_leave_out():
    rng = np.random.default_rng(5)
    errors = rng.uniform(0.005, 0.02, 4000)
    values = rng.normal(0, np.hypot(errors, 0.03))
    assert excess_scatter(values, errors) == pytest.approx(0.03, rel=0.05)
    assert excess_scatter(rng.normal(0, 0.5 * errors), errors) == 0
    assert excess_scatter(np.array([0.0, 1.0]), np.array([0.1, 0.1])) == 0


def test_one_very_bright_star_is_not_the_zero_point(zp_settings):
    table, mags = star_table(15, zp=25.0, scatter=0.02, seed=8)
    for band, mag in zip(("g", "r"), mags):
        table.loc[0, f"FLUX_{band}_fit"] = 1.03 * 10 ** (0.4 * (25.0 - mag[0]))
        table.loc[0, f"FLUXERR_{band}_fit"] = 1e-4 * table.loc[0, f"FLUX_{band}_fit"]
    for zp in measure_zero_points(table, mags, ("g", "r"), zp_settings)[0]:
        assert abs(zp.value - 25.0) < 0.015


def test_the_truth_comes_back(zp_settings):
    table, mags = star_table(400, zp=24.87, scatter=0.015)
    table.loc[:39, ["FLUX_g_fit", "FLUX_r_fit"]] *= 0.6
    zps, _ = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    for zp in zps:
        assert abs(zp.value - 24.87) < 4 * zp.err_median
        assert zp.err_median < 0.003
        assert zp.err_std == pytest.approx(0.015, rel=0.2)
        assert zp.err_mad == pytest.approx(0.015 * 0.6745, rel=0.2)
        assert zp.n_clipped >= 40


@settings(max_examples=25, deadline=None)
@given(st.floats(-6, 6), st.integers(1, 40), st.integers(0, 1000))
def test_a_flux_scale_shifts_the_zero_point_and_nothing_else(log_factor, n, seed):
    factor = 10**log_factor
    zp_settings = SimpleNamespace(
        clip_sigma=3.0, clip_max_iters=10, zp_err_method="all_mad", zp_err_snr_min=100.0
    )
    table, mags = star_table(n, seed)
    scaled = table.copy()
    columns = [c for c in table if c.startswith("FLUX")]
    scaled[columns] *= factor
    before, _ = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    after, _ = measure_zero_points(scaled, mags, ("g", "r"), zp_settings)
    brighter, _ = measure_zero_points(table, mags - 2.5 * log_factor, ("g", "r"), zp_settings)
    for a, b, c in zip(before, after, brighter):
        assert b.value - a.value == pytest.approx(2.5 * log_factor, abs=1e-9)
        assert c.value - a.value == pytest.approx(-2.5 * log_factor, abs=1e-9)
        assert (b.n_kept, c.n_kept) == (a.n_kept, a.n_kept)
        for name in ("err_mad", "err_std", "err_median"):
            assert getattr(b, name) == pytest.approx(getattr(a, name), abs=1e-9, nan_ok=True)
    order = np.random.default_rng(seed).permutation(n)
    mixed, _ = measure_zero_points(
        table.iloc[order].reset_index(drop=True), mags[:, order], ("g", "r"), zp_settings
    )
    assert [z.value for z in mixed] == pytest.approx([z.value for z in before], abs=1e-12)


def test_only_reliable_matched_stars_with_positive_flux_and_a_magnitude(zp_settings):
    table, mags = star_table(20)
    table.loc[0, "gaia_source_id"] = ""
    table.loc[1, "FLUX_g_fit"] = -3.0
    table.loc[2, "FLUX_g_fit"] = np.nan
    table.loc[3, "FLUX_g_fit"] = 0.0
    table.loc[4, "fit_is_reliable"] = False
    mags[0, 5] = np.nan
    (g, r), per_object = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    assert (g.n_raw, g.n_unreliable) == (14, 1)
    assert (r.n_raw, r.n_unreliable) == (18, 1)
    unreliable = per_object[(per_object["band"] == "g") & ~per_object["is_reliable"]]
    assert unreliable["row"].tolist() == [4]
    assert not unreliable[["is_kept", "is_clipped"]].any(axis=None)


def test_in_single_band_mode_a_band_has_its_own_flag(zp_settings):
    table, mags = star_table(20, single=True)
    table.loc[3:5, "fit_is_reliable_g"] = False
    (g, r), _ = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    assert (g.n_raw, g.n_unreliable, r.n_raw) == (17, 3, 20)


def test_a_band_without_stars_is_nan_with_a_warning(zp_settings, caplog):
    table, mags = star_table(5)
    mags[1] = np.nan
    (g, r), per_object = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    assert np.isfinite(g.value)
    assert np.isnan([r.value, r.err, r.err_mad, r.err_std, r.err_median, r.err_snr_used]).all()
    assert (r.n_raw, r.n_kept, r.n_err_src) == (0, 0, 0)
    assert "r: no zero point" in caplog.text
    calibrated = apply_zero_points(table, (g, r))
    assert calibrated["MAG_r_fit"].isna().all()
    assert calibrated["MAGERR_r_fit"].isna().all()
    empty, objects = measure_zero_points(table.head(0), mags[:, :0], ("g", "r"), zp_settings)
    assert np.isnan([z.value for z in empty]).all()
    assert len(objects) == 0
    assert list(objects.columns) == list(per_object.columns)


def test_bright_stars_fall_back_step_by_step(zp_settings, caplog):
    table, mags = star_table(30, scatter=0.001)
    flux = table["FLUX_g_fit"]
    for snr, limit, n, warnings in ((200, 100, 30, 0), (60, 50, 30, 1), (30, 25, 30, 2), (10, np.nan, 30, 4)):
        caplog.clear()
        table["FLUXERR_g_fit"] = flux / snr
        ((zp,), _) = measure_zero_points(table, mags[:1], ("g",), zp_settings)
        assert zp.err_snr_used == limit or (np.isnan(zp.err_snr_used) and np.isnan(limit))
        assert zp.n_err_src == pytest.approx(n, abs=3)
        assert len([r for r in caplog.records if "zp_err_std" in r.message]) == warnings
        if np.isnan(limit):
            assert zp.err_std == zp.err_mad


def test_the_active_error_follows_the_setting(zp_settings):
    table, mags = star_table(60, scatter=0.02)
    zp_settings.zp_err_method = "bright_std"
    ((zp,), _) = measure_zero_points(table, mags[:1], ("g",), zp_settings)
    assert zp.err == zp.err_std != zp.err_mad


def test_one_star_and_stars_without_errors(zp_settings, caplog):
    table, mags = star_table(1)
    ((zp, _), _) = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    assert zp.value == pytest.approx(mags[0, 0] + 2.5 * np.log10(table["FLUX_g_fit"][0]))
    assert "rests on 1 star" in caplog.text
    table, mags = star_table(12)
    table["FLUXERR_g_fit"] = np.nan
    table.loc[:5, "FLUXERR_r_fit"] = np.nan
    ((g, r), _) = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    plain = mags[0] + 2.5 * np.log10(table["FLUX_g_fit"])
    assert g.value == pytest.approx(np.median(plain[clip_mad(plain.to_numpy(), 3, 10)]))
    assert g.err_median > 0
    assert np.isfinite(r.value)


def test_a_star_claimed_twice_is_reported(zp_settings, caplog):
    table, mags = star_table(5)
    table.loc[1, "gaia_source_id"] = table.loc[0, "gaia_source_id"]
    measure_zero_points(table, mags, ("g", "r"), zp_settings)
    assert "more than one row" in caplog.text


def test_magnitudes_may_come_as_a_table_and_must_fit(zp_settings):
    table, mags = star_table(12)
    frame = pd.DataFrame({"mag_g": mags[0]})
    zps, _ = measure_zero_points(table, frame, ("g", "r"), zp_settings)
    both, _ = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    assert zps[0] == both[0]
    assert zps[1].n_raw == 0
    with pytest.raises(ProductError, match=r"expected 2 bands of 12 rows, found shape \(12, 2\)"):
        measure_zero_points(table, mags.T, ("g", "r"), zp_settings)


# --- magnitudes ------------------------------------------------------------------------------------------


def test_magnitudes_of_all_rows(zp_settings):
    table, mags = star_table(40, zp=25.3, scatter=0.02)
    table.loc[3, "FLUX_g_fit"] = -1.0
    table.loc[4, ["FLUX_g_fit", "FLUXERR_g_fit"]] = np.nan
    table.loc[5, "gaia_source_id"] = ""
    table.loc[6, "fit_is_reliable"] = False
    table.loc[7, "FLUXERR_g_fit"] = np.nan
    zps, _ = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    before = table.copy()
    done = apply_zero_points(table, zps)
    pd.testing.assert_frame_equal(table, before)
    good = np.isfinite(table["FLUX_g_fit"]) & (table["FLUX_g_fit"] > 0)
    np.testing.assert_allclose(
        done["MAG_g_fit"][good] - zps[0].value, -2.5 * np.log10(table["FLUX_g_fit"][good]), atol=1e-12
    )
    np.testing.assert_allclose(np.median(done["MAG_g_fit"][good] - mags[0][good]), 0.0, atol=0.01)
    assert zps[1].err > 0.005
    assert done["MAG_g_fit"][~good].isna().all()
    assert done["MAGERR_g_fit"].isna().tolist() == (~good | (np.arange(40) == 7)).tolist()
    relative = table["FLUXERR_r_fit"] / table["FLUX_r_fit"]
    expected = (1.0857362047581296 * relative) ** 2 + zps[1].err ** 2
    np.testing.assert_allclose(done["MAGERR_r_fit"] ** 2, expected, rtol=1e-12)


def test_applying_again_replaces(zp_settings):
    table, mags = star_table(20)
    zps, _ = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    once = apply_zero_points(table, zps)
    pd.testing.assert_frame_equal(apply_zero_points(once, zps), once)
    shifted, _ = measure_zero_points(table, mags + 1, ("g", "r"), zp_settings)
    again = apply_zero_points(once, shifted)
    assert again.columns.tolist() == once.columns.tolist()
    np.testing.assert_allclose(again["MAG_g_fit"] - once["MAG_g_fit"], 1.0)


SUMMARY = """
band n_raw n_kept n_clipped n_unreliable clip_sigma zp_median zp_err_mad zp_err_std n_zp_err_src
zp_err_snr_used zp_err_median
"""
PER_OBJECT = "band gaia_source_id gaiaxp_mag flux fluxerr zp zp_err is_kept is_clipped"


def test_the_files_have_the_columns_of_the_contract(tmp_path, zp_settings):
    table, mags = star_table(20)
    table.loc[2, "fit_is_reliable"] = False
    zps, per_object = measure_zero_points(table, mags, ("g", "r"), zp_settings)
    work = WorkDir(*[tmp_path] * 7, final_catalog=tmp_path / "c.csv", name="field")
    write_zp(zps, per_object, work)
    summary = pd.read_csv(tmp_path / "ZP" / "zp_summary.csv")
    assert summary.columns.tolist() == SUMMARY.split()
    assert summary["zp_median"].tolist() == [z.value for z in zps]
    objects = pd.read_csv(tmp_path / "ZP" / "zp_all_bands__per_object.csv", dtype={"gaia_source_id": str})
    assert objects.columns.tolist() == PER_OBJECT.split()
    assert len(objects) == summary["n_raw"].sum() == 38
    assert objects["is_kept"].dtype == bool
    assert objects["gaia_source_id"].str.len().eq(19).all()
