"""Scenes that break fits: crowds within one FWHM, hundreds of sources, faint free profiles, odd PSF stamps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes
from fit_settings import PatchRun
from scenes import EXP, SERSIC, STAR

from tract7dt.errors import PatchError
from tract7dt.fit import EngineOptions, fit_native, fit_patch, render_model

NO_PRIORS = EngineOptions(weak_priors=False)
FLAT_VALLEY = pytest.param(
    4,
    marks=pytest.mark.slow,
)


def residual_rms(problem, fit):
    good = problem.weight > 0
    return np.std(((problem.data - render_model(problem, fit)) * np.sqrt(problem.weight))[good])


# --- any start leads to the same maximum ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "seed", [0, 1, 3, FLAT_VALLEY, *(pytest.param(s, marks=pytest.mark.slow) for s in (2, *range(5, 13)))]
)
def test_no_start_is_better_than_the_ordinary_one(seed):
    """The log-posterior is never worse by more than 0.1 than from the truth, 2 pix off, or with twice the flux.

    Sources of S/N 30: those of 5 have several maxima, one on every peak of the noise nearby.
    """
    problem, truth = scenes.random_problem(10, 4, 110, seed, snr=30.0)
    ordinary = fit_native(problem, PatchRun(n_opt_iters=60), NO_PRIORS)
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, len(truth))
    start = problem.sources
    others = {
        "truth": scenes.no_priors(truth, 4, flux=np.maximum(truth.flux, 1e-4)),
        "2 pix off": replace(start, x=truth.x + 2 * np.cos(angle), y=truth.y + 2 * np.sin(angle)),
        "twice the flux": replace(start, flux=2 * start.flux),
    }
    for name, sources in others.items():
        fit = fit_native(replace(problem, sources=sources), PatchRun(n_opt_iters=60), NO_PRIORS)
        assert fit.lnp[0] < ordinary.lnp[0] + 0.1, name


def test_zero_flux():
    """Nothing where a free Sersic profile is asked for: a measurement of zero, with its error."""
    problem, truth = scenes.hard_cases()["zero_flux"]
    fit = fit_patch(problem, PatchRun())
    assert fit.status == "converged"
    assert np.all(np.abs(fit.flux[:, 1]) < 4.5 * fit.flux_err[:, 1])
    assert "weak_prior" in fit.issues[0][1]
    assert np.all(np.hypot(fit.x - truth.x, fit.y - truth.y)[:, 0] < 0.2)
    np.testing.assert_allclose(fit.flux[:, 0], truth.flux[:, 0], rtol=0.2)


# --- crowds -----------------------------------------------------------------------------------------------------


def crowd(n, kinds, seed=3, n_bands=4, width=3.6, with_bands=False, stamp=45):
    """``n`` sources within a circle of one FWHM (3.0 to 4.2 pix), S/N of hundreds each, started near the truth."""
    rng = np.random.default_rng(seed)
    radius, angle = 0.5 * width * np.sqrt(rng.uniform(0, 1, n)), rng.uniform(0, 2 * np.pi, n)
    rows = [
        (kinds[i % len(kinds)], 40 + radius[i] * np.cos(angle[i]), 40 + radius[i] * np.sin(angle[i]))
        + (1.5, 0.3, 20.0 * i - 80, 1.0, 3000.0)
        for i in range(n)
    ]
    rows.append((STAR, 62.3, 60.7, 1, 0, 0, 1, 2000.0))  # a bystander
    truth = scenes.few_sources(n_bands, *rows)
    bands = scenes.make_bands(n_bands, rng, stamp=stamp, spread=0.0)
    start = scenes.scattered_start(truth, n_bands, rng, 0.5)
    problem = scenes.make_problem(truth, bands, 80, 80, rng, start)
    return (problem, truth, bands) if with_bands else (problem, truth)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 12])
@pytest.mark.parametrize("kinds", [(STAR,), (STAR, EXP), (EXP,)], ids=["stars", "mixed", "galaxies"])
def test_a_crowd_within_one_fwhm(n, kinds):
    """No crash, finite numbers, the light as a whole is right, and the bystander does not notice."""
    problem, truth = crowd(n, kinds)
    fit = fit_patch(problem, PatchRun())
    assert np.isfinite(fit.flux).all()
    assert np.isfinite(fit.flux_err).all()
    assert residual_rms(problem, fit) == pytest.approx(1, abs=0.05)
    total, true = fit.flux[:, :n].sum(axis=1), truth.flux[:, :n].sum(axis=1)
    np.testing.assert_allclose(total, true, rtol=0.02)
    assert fit.converged[0, -1]
    outcomes = fit.converged.astype(int) + fit.stalled + fit.hit_max_iters
    assert np.all(outcomes == 1)  # what did not converge says so
    assert (fit.status == "converged") == fit.converged.all()
    assert fit.bound[0][-1] == fit.issues[0][-1] == ""
    assert np.all(np.abs(fit.flux - truth.flux)[:, -1] < 4 * fit.flux_err[:, -1])
    # what cannot be told apart is said to be uncertain: the errors are those of a crowd, not of single sources
    if n >= 3:
        assert np.median(fit.flux_err[:, :n]) > 3 * np.median(fit.flux_err[:, -1])


@pytest.mark.parametrize("n", [2, 3])
def test_stars_of_a_crowd_are_within_their_errors(n):
    """Two and three stars within one FWHM: pulls of unit width, and from the truth there is nothing better."""
    flux, place = [], []
    for seed in range(10):
        problem, truth = crowd(n, (STAR,), seed)
        fit = fit_native(problem, PatchRun(n_opt_iters=60), NO_PRIORS)
        near = replace(problem, sources=scenes.no_priors(truth, 4))
        assert fit_native(near, PatchRun(n_opt_iters=60), NO_PRIORS).lnp[0] < fit.lnp[0] + 0.1
        flux.append(((fit.flux - truth.flux) / fit.flux_err)[:, :n].ravel())
        place += [((fit.x - truth.x) / fit.x_err)[0, :n], ((fit.y - truth.y) / fit.y_err)[0, :n]]
    assert np.sqrt(np.mean(np.square(np.concatenate(flux)))) == pytest.approx(1, abs=0.35)
    assert np.sqrt(np.mean(np.square(np.concatenate(place)))) == pytest.approx(1, abs=0.35)


def marginal_errors(problem, fit, bands):
    """Flux errors (nband, n) of stars from the normal matrix of GalSim images, in double precision."""
    n, n_bands = len(fit), len(bands)
    size = problem.data.shape[1]

    def image(s, dx=0.0, dy=0.0):
        one = scenes.few_sources(n_bands, (STAR, fit.x[0, s] + dx, fit.y[0, s] + dy, 1, 0, 0, 1, 1.0))
        one.flux[:] = 1
        return np.array([scenes.draw(one, bands, b, size, size) for b in range(n_bands)])

    def in_band(images, b):
        return (images * (np.arange(n_bands) == b)[:, None, None]).ravel()

    columns = [in_band(image(s), b) for b in range(n_bands) for s in range(n)]
    for s in range(n):
        for dx, dy in ((0.02, 0), (0, 0.02)):
            slope = (image(s, dx, dy) - image(s, -dx, -dy)) / 0.04
            columns.append((slope * fit.flux[:, s, None, None]).ravel())
    columns += [in_band(np.ones((n_bands, size, size)), b) for b in range(n_bands)]
    design = np.array(columns).T * np.sqrt(problem.weight.ravel())[:, None]
    scale = np.linalg.norm(design, axis=0)
    inverse = np.linalg.inv((design / scale).T @ (design / scale))
    return (np.sqrt(np.diagonal(inverse)) / scale)[: n * n_bands].reshape(n_bands, n)


@pytest.mark.parametrize(
    ("n", "seed", "tolerance"),
    [
        (2, 0, 0.1),
        (3, 0, 0.05),
        (5, 2, 0.1),
        (5, 0, 0.3),
        (8, 2, 0.1),
    ],
)
def test_errors_of_a_crowd_are_the_marginal_ones(n, seed, tolerance):
    """As double precision gives them from GalSim's images of the fitted stars.

    With stamps of 61 pix: where all is lost, the hard edges of smaller ones, part of the model that is fitted,
    tell the stars apart better than anything else does. (Of eight, two often end on one spot, some 0.04 pix
    apart: there float32 images cannot tell them apart, and errors are half of what they should be.)
    """
    problem, _, bands = crowd(n, (STAR,), seed, with_bands=True, stamp=61)
    fit = fit_native(problem, PatchRun(n_opt_iters=60), NO_PRIORS)
    np.testing.assert_allclose(fit.flux_err / marginal_errors(problem, fit, bands), 1, atol=tolerance)


@pytest.mark.parametrize("kind", [STAR, EXP])
def test_no_flux_of_a_crowd_of_twelve_has_an_error_of_zero(kind):
    problem, _ = crowd(12, (kind,))
    assert np.all(fit_patch(problem, PatchRun()).flux_err > 0)


@pytest.mark.parametrize(
    "shares", [(0.4, 0.5, 0.1, 0.0), pytest.param((0.25, 0.45, 0.15, 0.15), marks=pytest.mark.slow)]
)
def test_four_hundred_sources(shares):
    """One patch of 400 sources, a third of them blended: all settle, with the truth's fluxes."""
    problem, truth = scenes.random_problem(400, 1, 420, 5, snr=30.0, shares=shares)
    fit = fit_patch(problem, PatchRun())
    pulls = ((fit.flux - truth.flux) / fit.flux_err).ravel()
    assert len(fit) == 400
    assert fit.converged.mean() > 0.99
    assert abs(np.median(pulls)) < 0.2
    assert 0.85 < 1.4826 * np.median(np.abs(pulls - np.median(pulls))) < 1.15
    assert residual_rms(problem, fit) == pytest.approx(1, abs=0.02)


# --- faint free profiles ----------------------------------------------------------------------------------------


def faint(seed, flux=25.0):
    rng = np.random.default_rng(seed)
    bands = scenes.make_bands(2, rng, stamp=45, spread=0.0)
    rows = [
        (STAR, 25.0, 25.0, 1, 0, 0, 1, 2000.0),
        (SERSIC, 60.0, 55.0, 2.5, 0.3, 20, 2, flux),
        (SERSIC, 30.0, 70.0, 2.5, 0.3, 20, 2, flux),
    ]
    truth = scenes.few_sources(2, *rows)
    return scenes.make_problem(truth, bands, 96, 96, rng), truth


def test_faint_free_profiles_are_held_and_flagged_and_need_not_be():
    """With the weak priors neither n nor re runs away; without them some do; the bright star never has one."""
    wild = 0
    for seed in range(8):
        problem, truth = faint(seed)
        held = fit_patch(problem, PatchRun())
        assert held.issues[0] == ("", "weak_prior", "weak_prior")
        assert held.converged.all()
        assert np.all((held.re[0, 1:] < 12.5) & (held.re[0, 1:] > 0.2))
        assert np.all((held.sersic_n[0, 1:] > 0.4) & (held.sersic_n[0, 1:] < 6.0))
        assert not any("sersicindex" in text for text in held.bound[0])
        assert np.all(np.abs(held.flux - truth.flux)[:, 1:] < 4.5 * held.flux_err[:, 1:])
        free = fit_native(problem, PatchRun(), NO_PRIORS)
        assert not any("weak_prior" in text for text in free.issues[0])
        mean = free.re * (1 - free.ell / 2)  # of the half-axes
        assert np.all(mean[0, 1:] <= 48 * (1 + 1e-6))  # half the patch
        wild += sum("sersicindex" in text or "logre" in text for text in free.bound[0])
        np.testing.assert_allclose(free.flux[:, 0], held.flux[:, 0], atol=0.2 * held.flux_err[:, 0].max())
    assert wild >= 3  # of 16


def test_bright_profiles_have_no_weak_prior():
    problem, _ = faint(0, flux=4000.0)
    fit = fit_patch(problem, PatchRun())
    assert fit.issues[0] == ("", "", "")
    free = fit_native(problem, PatchRun(), NO_PRIORS)
    np.testing.assert_array_equal(fit.flux, free.flux)


def test_ellipticity_of_a_hopeless_source_has_no_error_beyond_its_range():
    """ELL lies between 0 and 1; a source that says nothing of its shape may say so, but no more than that."""
    errors = []
    for seed in range(6):
        problem, _ = faint(seed, flux=3.0)
        fit = fit_patch(problem, PatchRun(enable_multi_band_simultaneous_fitting=False))
        errors.append(fit.ell_err[:, 1:].ravel())
        assert np.nanmax(fit.theta_err) <= 90
    assert np.nanmax(np.concatenate(errors)) <= 1


# --- PSF stamps, bands, pixels ----------------------------------------------------------------------------


@pytest.mark.parametrize("side", [25, 31, 45, 63, 75, 101])
def test_psf_stamps_of_any_odd_side(side):
    """A stamp holds the light within it; a small one of a Moffat PSF counts less, by what GalSim says it lacks."""
    rng = np.random.default_rng(2)
    bands = scenes.make_bands(2, rng, stamp=side, spread=0.0)
    wide = scenes.make_bands(2, np.random.default_rng(2), stamp=201, spread=0.0)
    truth = scenes.few_sources(
        2, (STAR, 60.3, 59.6, 1, 0, 0, 1, 4000.0), (EXP, 90.2, 30.5, 2.5, 0.4, 30, 1, 9000.0)
    )
    problem = scenes.make_problem(truth, bands, 121, 121, None)
    fit = fit_patch(problem, PatchRun())
    assert fit.status == "converged"
    for b in range(2):
        lost = 1 - wide.stamps[b][100 - side // 2 : 101 + side // 2, 100 - side // 2 : 101 + side // 2].sum()
        assert fit.flux[b, 0] / truth.flux[b, 0] == pytest.approx(1 - lost, abs=0.003 + 0.3 * lost)
    np.testing.assert_allclose(fit.flux[:, 1], truth.flux[:, 1], rtol=0.02)
    np.testing.assert_allclose(fit.x[0], truth.x, atol=0.01)


@pytest.mark.parametrize("side", [24, 44, 100])
def test_even_stamps_are_refused_with_the_band_and_the_shape(side):
    problem, _ = faint(0)
    even = np.full((side, side), 1 / side**2)
    with pytest.raises(PatchError, match=rf"psf of band b1: .*odd side, found shape \({side}, {side}\)"):
        fit_patch(replace(problem, psf=(problem.psf[0], even)), PatchRun())


def test_bands_may_have_stamps_of_different_sides():
    problem, truth = faint(1, flux=4000.0)
    other = scenes.make_bands(2, np.random.default_rng(1), stamp=75, spread=0.0)
    fit = fit_patch(replace(problem, psf=(problem.psf[0], other.stamps[1])), PatchRun())
    np.testing.assert_allclose(fit.flux, truth.flux, rtol=0.05)


def test_one_band_with_ten_times_the_noise_tells_nothing_and_harms_nothing():
    """Shared quantities are those of the good bands, and the noisy one has errors ten times as large."""
    rng = np.random.default_rng(6)
    bands = scenes.make_bands(4, rng, stamp=45, spread=0.0)
    loud = replace(bands, sky_sigma=bands.sky_sigma * [1, 1, 10, 1])
    truth = scenes.few_sources(
        4, (EXP, 30.2, 30.4, 2.5, 0.4, 30, 1, 3000.0), (STAR, 50.3, 48.6, 1, 0, 0, 1, 1000.0)
    )
    problem = scenes.make_problem(truth, loud, 80, 80, rng)
    fit = fit_patch(problem, PatchRun())
    quiet = [0, 1, 3]
    without = fit_patch(
        replace(
            problem,
            bands=tuple(problem.bands[b] for b in quiet),
            data=problem.data[quiet],
            weight=problem.weight[quiet],
            sky_sigma=problem.sky_sigma[quiet],
            gain=problem.gain[quiet],
            psf=tuple(problem.psf[b] for b in quiet),
            sources=replace(
                problem.sources, flux=problem.sources.flux[quiet], flux_err=problem.sources.flux_err[quiet]
            ),
        ),
        PatchRun(),
    )
    assert fit.converged.all()
    assert np.all(np.abs(fit.flux - truth.flux) < 4.5 * fit.flux_err)
    np.testing.assert_allclose(fit.flux_err[2] / fit.flux_err[0], 10, rtol=0.35)
    assert np.all(np.abs(fit.x - without.x) < 0.3 * without.x_err)
    assert np.all(np.abs(fit.flux[quiet] - without.flux) < 0.3 * without.flux_err)


def test_nan_pixels_without_a_mask_do_not_count():
    """NaN and infinities under a positive weight: the same as masked."""
    problem, _ = faint(2, flux=4000.0)
    rng = np.random.default_rng(0)
    holes = rng.uniform(size=problem.data.shape) < 0.03
    data = problem.data.copy()
    data[holes] = rng.choice([np.nan, np.inf, -np.inf], holes.sum())
    unmasked = fit_patch(replace(problem, data=data), PatchRun())
    masked = fit_patch(
        replace(problem, data=data, weight=np.where(holes, 0, problem.weight).astype(np.float32)), PatchRun()
    )
    np.testing.assert_array_equal(unmasked.flux, masked.flux)
    np.testing.assert_array_equal(unmasked.chi2, masked.chi2)
    np.testing.assert_array_equal(unmasked.frac_masked, masked.frac_masked)
    assert np.isfinite(unmasked.flux_err).all()


def test_errors_grow_where_the_weights_say_that_the_noise_is_larger():
    """Half of the patch has twice the noise, and weights that say so: pulls are of unit width in both halves."""
    rng = np.random.default_rng(1)
    bands = scenes.make_bands(1, rng, stamp=35, spread=0.0)
    place = [(18.0 + 24 * i, 18.0 + 24 * j) for i in range(4) for j in range(4)]
    truth = scenes.few_sources(1, *((STAR, x, y, 1, 0, 0, 1, 900.0) for x, y in place))
    clean = scenes.make_problem(truth, bands, 108, 108, None)
    loud = np.where(np.arange(108) < 54, 2.0, 1.0) * bands.sky_sigma[0]
    weight = np.broadcast_to(loud**-2, clean.data.shape).astype(np.float32)
    pulls = []
    for _ in range(8):
        data = clean.data + rng.normal(size=clean.data.shape) * loud
        fit = fit_patch(replace(clean, data=data.astype(np.float32), weight=weight), PatchRun())
        pulls.append(((fit.flux - truth.flux) / fit.flux_err)[0])
    left = np.array(pulls)[:, truth.x < 54]
    right = np.array(pulls)[:, truth.x > 54]
    assert right.std() == pytest.approx(1, abs=0.25)
    assert left.std() == pytest.approx(1, abs=0.25)
