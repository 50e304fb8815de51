"""Every mode of the fit, from a payload to the patch's catalogue: what comes out, and in which columns."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import scenes
from fit_payloads import X0, Y0, catalogue_of, payload_of, settings_of
from scenes import DEV, EXP, SERSIC, STAR

from tract7dt import catalog, fit
from tract7dt.fit_patch import patch_problem
from tract7dt.psf.quality import stamp_shape
from tract7dt.types import Epsf

ROWS = [
    (STAR, 22.0, 20.0, 1, 0, 0, 1, 6000.0),
    (EXP, 60.3, 24.2, 2.5, 0.4, 30, 1, 12000.0),
    (DEV, 24.4, 62.6, 2.5, 0.3, -60, 4, 15000.0),
    (SERSIC, 62.0, 60.8, 3.0, 0.5, 75, 1.6, 20000.0),
]
FITTED = ["x_pix_patch", "y_pix_patch", "x_pix_white", "y_pix_white"]
FITTED += ["sersic_n", "re_pix", "ab", "phi_deg", "Re", "ELL", "THETA"]
ERRORS = ["x_pix", "y_pix", "Re", "ELL", "THETA", "sersic_n"]
OUTCOME = ["opt_converged", "opt_hit_max_iters", "opt_niters", "opt_last_dlnp"]
OUTCOME += ["flag_bound_stalled", "flag_bound_stalled_which_parameter"]


def small_scene(gain=30.0, stamp=51):
    rng = np.random.default_rng(17)
    bands = scenes.make_bands(3, rng, stamp=stamp, gain=gain, spread=0.1)
    truth = scenes.few_sources(3, *ROWS)
    return scenes.make_problem(truth, bands, 84, 84, rng), truth


@pytest.fixture(scope="module")
def scene():
    return small_scene()


def run(scene, payload=None, catalogue=True, **patch_run):
    problem, truth = scene
    if payload is None:
        payload = payload_of(problem, **(catalogue_of(truth, problem.bands) if catalogue else {}))
    settings = settings_of(**patch_run)
    posed, audit = patch_problem(settings, payload)
    result = fit.fit_patch(posed, settings.patch_run)
    return catalog.patch_table(payload, result, audit), result


def pulls(table, truth, bands, suffix=""):
    flux = [(table[f"FLUX_{b}_fit"] - truth.flux[i]) / table[f"FLUXERR_{b}_fit"] for i, b in enumerate(bands)]
    x = (table[f"x_pix_patch{suffix}_fit"] - truth.x) / table[f"x_pix{suffix}_fit_err"]
    y = (table[f"y_pix_patch{suffix}_fit"] - truth.y) / table[f"y_pix{suffix}_fit_err"]
    return np.concatenate([*flux, x, y])


@pytest.mark.parametrize(
    ("multi", "staged", "noise", "known"),
    itertools.product([True, False], [True, False], ["sky", "total"], [True, False]),
)
def test_all_modes_find_the_truth(scene, multi, staged, noise, known):
    """Fluxes and positions within 4.5 sigma, shapes too, all reported by every mode; with and without start."""
    problem, truth = scene
    table, result = run(
        scene,
        catalogue=known,
        enable_multi_band_simultaneous_fitting=multi,
        enable_staged_fit=staged,
        noise_model=noise,
        n_opt_iters=40,
    )
    assert result.status == "converged"
    for band in [""] if multi else [f"_{b}" for b in problem.bands]:
        assert table[f"opt_converged{band}"].all()
        assert np.abs(pulls(table, truth, problem.bands, band)).max() < 4.5
        galaxy = slice(1, None)
        for name, true in (("Re", truth.re), ("ELL", truth.ell)):
            off = (table[f"{name}{band}_fit"] - true) / table[f"{name}{band}_fit_err"]
            assert np.abs(off[galaxy]).max() < 4.5
        turn = (table[f"THETA{band}_fit"] - truth.theta + 90) % 180 - 90
        assert np.abs(turn / table[f"THETA{band}_fit_err"])[galaxy].max() < 4.5
        n = (table[f"sersic_n{band}_fit"] - truth.sersic_n) / table[f"sersic_n{band}_fit_err"]
        assert abs(n[3]) < 4.5
    names = {stage["name"] for stage in result.stages}
    assert names == ({"positions_held", "positions_only", "all"} if staged else {"all"})
    assert len(result.stages) == len(names) * (1 if multi else 3)
    for stage in result.stages:
        assert stage["niter"] <= 40
        assert isinstance(stage["converged"], bool)
        assert ("band" in stage) is not multi


def test_single_band_columns_carry_the_band(scene):
    problem, _ = scene
    many, together = run(scene)
    table, alone = run(scene, enable_multi_band_simultaneous_fitting=False)
    for name in FITTED:
        assert f"{name}_fit" in many
        assert f"{name}_fit" not in table
        for band in problem.bands:
            assert f"{name}_{band}_fit" in table
    for name in ERRORS:
        assert f"{name}_fit_err" in many
        assert all(f"{name}_{band}_fit_err" in table for band in problem.bands)
    for name in OUTCOME:
        assert name in many
        assert name not in table
        assert all(f"{name}_{band}" in table for band in problem.bands)
    for band in problem.bands:
        for name in (
            "FLUX_{}_fit",
            "FLUXERR_{}_fit",
            "CHI2_{}_fit",
            "FRACMASKED_{}",
            "FRACFLUX_{}",
            "SKY_{}_fit",
        ):
            assert name.format(band) in table
            assert name.format(band) in many
    assert table["stype_fit"].tolist() == many["stype_fit"].tolist() == ["star", "exp", "dev", "sersic"]
    # what one band says of the position is not what another says, and all know less than the three together
    for i, band in enumerate(problem.bands):
        np.testing.assert_array_equal(table[f"x_pix_patch_{band}_fit"], alone.x[i])
        np.testing.assert_array_equal(table[f"x_pix_white_{band}_fit"], alone.x[i] + X0)
        np.testing.assert_array_equal(table[f"y_pix_white_{band}_fit"], alone.y[i] + Y0)
        assert np.all(alone.x_err[i] > together.x_err[0])
    assert len(np.unique(alone.x[:, 1])) == 3
    assert np.isnan(table["Re_b0_fit"][0])
    assert table["sersic_n_b0_fit"][1:3].tolist() == [1, 4]


def test_a_bound_of_one_band_is_flagged_in_that_band(scene):
    problem, truth = scene
    off = replace(problem, data=problem.data.copy())
    off.data[1] = np.roll(off.data[1], 2, axis=1)  # the second band is 2 pix off
    table, _ = run((off, truth), enable_multi_band_simultaneous_fitting=False, pos_max_shift_pix=1.0)
    assert table["flag_bound_stalled_which_parameter_b1"].str.contains("pos.x@upper").all()
    assert table["flag_bound_stalled_b1"].all()
    assert table["x_pix_b1_fit_err"].isna().all()
    for band in ("b0", "b2"):
        assert not table[f"flag_bound_stalled_{band}"].any()
        assert (table[f"flag_bound_stalled_which_parameter_{band}"] == "").all()


def test_several_bounds_are_told_in_one_text(scene):
    """A star fitted as a galaxy, 2 pix to the right of its box: position at a bound, size as small as can be."""
    problem, truth = scene
    columns = catalogue_of(truth, problem.bands) | {"TYPE": ["EXP", "EXP", "DEV", "SERSIC"]}
    payload = payload_of(problem, **columns)
    payload.table.loc[0, ["x_pix_patch", "Re"]] = [20.8, 0.4]
    table, _ = run(scene, payload, pos_max_shift_pix=1.195, n_opt_iters=60)
    told = table["flag_bound_stalled_which_parameter"]
    assert set(told[0].split(",")) <= {"pos.x@upper", "shape.logre@lower"}
    assert "pos.x@upper" in told[0]
    assert told[1:].tolist() == ["", "", ""]
    assert np.isnan(table["x_pix_fit_err"][0])
    assert np.isfinite(table["y_pix_fit_err"][0])


def test_weights_with_source_noise_bring_smaller_errors(scene):
    """With sky weights alone, the errors say what it costs to ignore the photon noise of bright sources."""
    _, sky = run(scene, noise_model="sky")
    _, total = run(scene, noise_model="total")
    assert np.all(total.flux_err < 1.02 * sky.flux_err)
    assert total.flux_err[0, 0] < 0.99 * sky.flux_err[0, 0]


# --- PSFs ---------------------------------------------------------------------------------------------------

AUDIT = {
    "pixelized": "",
    "hybrid": "",
    "gaussian_mixture_from_stamp": "b0,b1,b2",
}


@pytest.mark.parametrize("model", list(AUDIT))
def test_psf_models(scene, model):
    """A mixture of enough Gaussians is the stamp: fluxes agree to 1 %, and the audit says what served."""
    problem, truth = scene
    stamp, _ = run(scene)
    table, _ = run(scene, psf_model=model, gaussian_mixture_n=9, hybrid_psf_n=9)
    assert table["opt_converged"].all()
    for i, band in enumerate(problem.bands):
        np.testing.assert_allclose(table[f"FLUX_{band}_fit"], stamp[f"FLUX_{band}_fit"], rtol=0.01)
        np.testing.assert_allclose(table[f"FLUX_{band}_fit"], truth.flux[i], rtol=0.04)
    # the hybrid's stars have the stamp itself
    if model == "hybrid":
        assert table["FLUX_b0_fit"][0] == pytest.approx(stamp["FLUX_b0_fit"][0], rel=1e-4)
    if model != "pixelized":
        assert table["FLUX_b0_fit"][1] != stamp["FLUX_b0_fit"][1]
    row = table.iloc[0]
    assert row["psf_frozen_bands_for_optimizer"] == AUDIT[model]
    assert row["psf_used_epsf_band_count"] == 3
    assert row["psf_fallback_band_count"] == row["psf_low_star_band_count"] == 0
    assert row["psf_fallback_bands"] == row["psf_low_star_bands"] == ""
    assert json.loads(row["psf_fallback_reasons_json"]) == {}
    assert row["psf_min_epsf_nstars_for_use"] == 2


@pytest.mark.parametrize("model", ["moffat", "gaussian_mixture", "ncircular_gaussian"])
@pytest.mark.parametrize("psf_model", list(AUDIT))
def test_fallbacks(scene, model, psf_model):
    """One band without an ePSF, one with too few stars; the third keeps its own. Each model takes its place."""
    problem, truth = scene
    good = problem.psf[2].astype(np.float32)
    psfs = (None, Epsf(problem.psf[1].astype(np.float32), 1, "epsf"), Epsf(good, 9, "epsf"))
    widths = [stamp_shape(stamp)["fwhm_pix"] for stamp in problem.psf]
    payload = payload_of(problem, psfs=psfs, fwhm=widths, **catalogue_of(truth, problem.bands))
    table, result = run(scene, payload, psf_fallback_model=model, psf_model=psf_model)
    row = table.iloc[0]
    assert row["psf_fallback_bands"] == "b0,b1"
    assert row["psf_low_star_bands"] == "b1"
    assert row["psf_fallback_band_count"] == 2
    assert row["psf_used_epsf_band_count"] == row["psf_low_star_band_count"] == 1
    reasons = json.loads(row["psf_fallback_reasons_json"])
    assert set(reasons) == {"b0", "b1"}
    assert "no ePSF" in reasons["b0"]
    assert "1 star" in reasons["b1"]
    mixtures = ["b0", "b1"] if model == "gaussian_mixture" else []
    mixtures += ["b2"] if psf_model == "gaussian_mixture_from_stamp" else []
    assert row["psf_frozen_bands_for_optimizer"] == ",".join(mixtures)
    # the fallback knows only the width; wings of circular Gaussians are not those of a Moffat profile
    circular = model == "ncircular_gaussian"
    np.testing.assert_allclose(result.flux[:2], truth.flux[:2], rtol=0.12 if circular else 0.04)
    np.testing.assert_allclose(result.flux[2], truth.flux[2], rtol=0.1 if circular else 0.025)


def test_every_fallback_model_is_all_there_is(scene):
    problem, truth = scene
    payload = payload_of(problem, psfs=(None,) * 3, fwhm=np.nan, **catalogue_of(truth, problem.bands))
    table, _ = run(scene, payload, fallback_default_fwhm_pix=3.6)
    row = table.iloc[0]
    assert row["psf_used_epsf_band_count"] == 0
    assert row["psf_fallback_band_count"] == 3
    assert all("3.6" in reason for reason in json.loads(row["psf_fallback_reasons_json"]).values())


def test_halo_sources_are_fitted_and_not_reported(scene):
    problem, truth = scene
    payload = payload_of(problem, halo=(1,), **catalogue_of(truth, problem.bands))
    table, result = run(scene, payload)
    assert table["ID"].tolist() == ["0000", "0002", "0003"]
    assert len(result) == 4
    whole, _ = run(scene)
    np.testing.assert_array_equal(table["FLUX_b0_fit"], whole["FLUX_b0_fit"].drop(index=1))
