"""What a fit must not care about: units, origin, handedness, the order of things, where the patch ends."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import scenes
from fit_settings import PatchRun
from scenes import DEV, EXP, SERSIC, STAR

from tract7dt.fit import EngineOptions, fit_native, fit_patch

SIZE = 96
# Types mixed, blends among them; in one direction of the sky nothing is symmetric.
ROWS = [
    (STAR, 22.3, 30.6, 1, 0, 0, 1, 3000.0),
    (EXP, 50.4, 47.2, 3.0, 0.5, 25, 1, 9000.0),
    (EXP, 56.8, 51.1, 2.0, 0.3, -60, 1, 5000.0),
    (DEV, 70.7, 24.4, 2.5, 0.4, 70, 4, 9000.0),
    (SERSIC, 30.2, 68.8, 2.5, 0.35, -35, 1.7, 12000.0),
]
# Errors of the fit set the scale: two ways to the same maximum end within this of each other.
SAME = 0.1
# The engine's own weak priors look at the S/N, so they are left out where two fits are compared.
OPTIONS = EngineOptions(weak_priors=False)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(8)
    bands = scenes.make_bands(3, rng, stamp=45, gain=30.0)
    truth = scenes.few_sources(3, *ROWS)
    return scenes.make_problem(truth, bands, SIZE, SIZE, rng, scenes.scattered_start(truth, 3, rng), 0.02)


@pytest.fixture(scope="module")
def fit(problem):
    return fit_native(problem, PatchRun(), OPTIONS)


def moved(problem, rearrange, **source):
    """The problem with all its images (data, weights, PSFs) rearranged alike, and its sources to match."""
    return replace(
        problem,
        data=np.ascontiguousarray(rearrange(problem.data)),
        weight=np.ascontiguousarray(rearrange(problem.weight)),
        psf=tuple(np.ascontiguousarray(rearrange(psf)) for psf in problem.psf),
        sources=replace(problem.sources, **source),
    )


def close(found, expected, error):
    """Equal within ``SAME`` of the error."""
    assert np.all(np.abs(found - expected) < SAME * error), np.max(np.abs(found - expected) / error)


def same_fluxes_and_shapes(other, fit):
    assert other.status == fit.status == "converged"
    close(other.flux, fit.flux, fit.flux_err)
    close(other.sky, fit.sky, fit.sky_err)
    galaxy = fit.kind != STAR
    close(other.re[:, galaxy], fit.re[:, galaxy], fit.re_err[:, galaxy])
    close(other.ell[:, galaxy], fit.ell[:, galaxy], fit.ell_err[:, galaxy])
    close(other.sersic_n[:, 4], fit.sersic_n[:, 4], fit.sersic_n_err[:, 4])
    np.testing.assert_allclose(other.flux_err, fit.flux_err, rtol=0.01)
    np.testing.assert_allclose(other.re_err[:, galaxy], fit.re_err[:, galaxy], rtol=0.02)
    np.testing.assert_allclose(other.theta_err[:, galaxy], fit.theta_err[:, galaxy], rtol=0.02)
    np.testing.assert_allclose(other.chi2, fit.chi2, rtol=0.02)
    np.testing.assert_allclose(other.frac_flux, fit.frac_flux, atol=0.005)
    np.testing.assert_allclose(other.frac_masked, fit.frac_masked, atol=0.005)


def same_angles(found, expected, error):
    turn = (found - expected + 90) % 180 - 90
    assert np.all(np.abs(turn) < SAME * error)


@pytest.mark.parametrize("factor", [1e-3, 0.02, 40.0, 1e4])
def test_the_unit_of_the_counts(problem, fit, factor):
    scaled = replace(
        problem,
        data=(factor * problem.data).astype(np.float32),
        weight=(problem.weight / factor**2).astype(np.float32),
        sky_sigma=factor * problem.sky_sigma,
        gain=problem.gain / factor,
        sources=replace(problem.sources, flux=factor * problem.sources.flux),
    )
    other = fit_native(scaled, PatchRun(), OPTIONS)
    close(other.flux / factor, fit.flux, fit.flux_err)
    np.testing.assert_allclose(other.flux_err / factor, fit.flux_err, rtol=0.01)
    close(other.x, fit.x, fit.x_err)
    close(other.sky / factor, fit.sky, fit.sky_err)
    np.testing.assert_allclose(other.chi2, fit.chi2, rtol=0.01)


def test_flux_is_linear_in_the_data(problem):
    """Ten times the light without noise is ten times the flux, whatever the weights."""
    truth = scenes.few_sources(3, *ROWS)
    bands = scenes.make_bands(3, np.random.default_rng(8), stamp=45)
    quiet = scenes.make_problem(truth, replace(bands, sky=np.zeros(3)), SIZE, SIZE, None)
    one = fit_native(quiet, PatchRun(), OPTIONS)
    ten = fit_native(replace(quiet, data=10 * quiet.data), PatchRun(), OPTIONS)
    np.testing.assert_allclose(ten.flux, 10 * one.flux, rtol=1e-4)
    np.testing.assert_allclose(ten.x, one.x, atol=1e-3)


@pytest.mark.parametrize(("dx", "dy"), [(7, 0), (0, 11), (13, 5)])
def test_whole_pixels(problem, fit, dx, dy):
    """The same pixels with masked ones added on two sides: everything is (dx, dy) farther on."""
    padded = replace(
        problem,
        data=np.pad(problem.data, ((0, 0), (dy, 0), (dx, 0)), constant_values=np.nan),
        weight=np.pad(problem.weight, ((0, 0), (dy, 0), (dx, 0))),
        sources=replace(problem.sources, x=problem.sources.x + dx, y=problem.sources.y + dy),
    )
    other = fit_native(padded, PatchRun(), OPTIONS)
    same_fluxes_and_shapes(other, fit)
    close(other.x - dx, fit.x, fit.x_err)
    close(other.y - dy, fit.y, fit.y_err)


def test_mirrored_in_x(problem, fit):
    source = problem.sources
    other = fit_native(
        moved(problem, lambda a: a[..., ::-1], x=SIZE - 1 - source.x, theta=-source.theta),
        PatchRun(),
        OPTIONS,
    )
    same_fluxes_and_shapes(other, fit)
    close(SIZE - 1 - other.x, fit.x, fit.x_err)
    close(other.y, fit.y, fit.y_err)
    close(-other.xy_cov, fit.xy_cov, fit.x_err * fit.y_err)
    galaxy = fit.kind != STAR
    same_angles(-other.theta[:, galaxy], fit.theta[:, galaxy], fit.theta_err[:, galaxy])


def test_mirrored_in_y(problem, fit):
    source = problem.sources
    other = fit_native(
        moved(problem, lambda a: a[..., ::-1, :], y=SIZE - 1 - source.y, theta=-source.theta),
        PatchRun(),
        OPTIONS,
    )
    same_fluxes_and_shapes(other, fit)
    close(SIZE - 1 - other.y, fit.y, fit.y_err)
    galaxy = fit.kind != STAR
    same_angles(-other.theta[:, galaxy], fit.theta[:, galaxy], fit.theta_err[:, galaxy])


def test_transposed(problem, fit):
    source = problem.sources
    other = fit_native(
        moved(problem, lambda a: a.swapaxes(-1, -2), x=source.y, y=source.x, theta=90 - source.theta),
        PatchRun(),
        OPTIONS,
    )
    same_fluxes_and_shapes(other, fit)
    close(other.y, fit.x, fit.x_err)
    close(other.x, fit.y, fit.y_err)
    close(other.xy_cov, fit.xy_cov, fit.x_err * fit.y_err)
    np.testing.assert_allclose(other.y_err, fit.x_err, rtol=0.01)
    galaxy = fit.kind != STAR
    same_angles(90 - other.theta[:, galaxy], fit.theta[:, galaxy], fit.theta_err[:, galaxy])


def test_turned_by_a_right_angle(problem, fit):
    """Counter-clockwise: (x, y) goes to (SIZE - 1 - y, x), and angles grow by 90 degrees."""
    source = problem.sources
    other = fit_native(
        moved(
            problem,
            lambda a: np.rot90(a, -1, axes=(-2, -1)),  # rows run along +y here, so numpy's sense is reversed
            x=SIZE - 1 - source.y,
            y=source.x,
            theta=source.theta + 90,
        ),
        PatchRun(),
        OPTIONS,
    )
    same_fluxes_and_shapes(other, fit)
    close(other.y, fit.x, fit.x_err)
    galaxy = fit.kind != STAR
    same_angles(other.theta[:, galaxy] - 90, fit.theta[:, galaxy], fit.theta_err[:, galaxy])


@pytest.mark.parametrize("multi", [True, False])
def test_order_of_the_sources(problem, multi):
    settings = PatchRun(enable_multi_band_simultaneous_fitting=multi)
    order = np.array([3, 0, 4, 2, 1])
    shuffled = replace(
        problem,
        sources=replace(
            problem.sources,
            **{f.name: getattr(problem.sources, f.name)[..., order] for f in fields(problem.sources)},
        ),
    )
    fit, other = (fit_native(p, settings, OPTIONS) for p in (problem, shuffled))
    assert other.kind.tolist() == fit.kind[order].tolist()
    close(other.flux, fit.flux[:, order], fit.flux_err[:, order])
    close(other.x, fit.x[:, order], fit.x_err[:, order])
    np.testing.assert_allclose(other.flux_err, fit.flux_err[:, order], rtol=0.01)
    assert other.bound == tuple(tuple(row[i] for i in order) for row in fit.bound)


def test_order_of_the_bands(problem, fit):
    order = [2, 0, 1]
    other = fit_native(
        replace(
            problem,
            bands=tuple(problem.bands[b] for b in order),
            data=problem.data[order],
            weight=problem.weight[order],
            sky_sigma=problem.sky_sigma[order],
            gain=problem.gain[order],
            psf=tuple(problem.psf[b] for b in order),
            sources=replace(
                problem.sources, flux=problem.sources.flux[order], flux_err=problem.sources.flux_err[order]
            ),
        ),
        PatchRun(),
        OPTIONS,
    )
    assert other.bands == ("b2", "b0", "b1")
    close(other.flux, fit.flux[order], fit.flux_err[order])
    close(other.x, fit.x, fit.x_err)
    np.testing.assert_allclose(other.flux_err, fit.flux_err[order], rtol=0.01)
    assert other.lnp[0] == pytest.approx(fit.lnp[0], abs=0.1)


def cut(problem, x0, x1, y0, y1):
    """The part of a patch, with all its sources; those beyond its edge are held where they start."""
    source = problem.sources
    return replace(
        problem,
        data=problem.data[:, y0:y1, x0:x1],
        weight=problem.weight[:, y0:y1, x0:x1],
        sources=replace(source, x=source.x - x0, y=source.y - y0),
    )


def test_two_overlapping_patches_agree_on_the_sources_of_both(problem, fit):
    """The blended pair lies well inside of both; each half has a sky and neighbours of its own."""
    halves = {(0, 0): cut(problem, 0, 76, 0, 76), (26, 18): cut(problem, 26, SIZE, 18, SIZE)}
    for (x0, y0), half in halves.items():
        other = fit_patch(half, PatchRun())
        pair = slice(1, 3)
        # what differs is the noise of the sky level, of half as many pixels
        assert np.all(np.abs(other.flux - fit.flux)[:, pair] < 0.6 * fit.flux_err[:, pair])
        assert np.all(np.abs(other.x + x0 - fit.x)[:, pair] < 0.3 * fit.x_err[:, pair])
        assert np.all(np.abs(other.y + y0 - fit.y)[:, pair] < 0.3 * fit.y_err[:, pair])
        assert np.all(np.abs(other.re - fit.re)[:, pair] < 0.6 * fit.re_err[:, pair])
        np.testing.assert_allclose(other.flux_err[:, pair], fit.flux_err[:, pair], rtol=0.1)


def test_masked_pixels_may_hold_anything(problem, fit):
    nonsense = problem.data.copy()
    nonsense[problem.weight == 0] = np.resize(
        [np.inf, -1e30, 1e30, np.nan, 0], int((problem.weight == 0).sum())
    )
    other = fit_native(replace(problem, data=nonsense), PatchRun(), OPTIONS)
    np.testing.assert_array_equal(other.flux, fit.flux)


def test_a_constant_goes_into_the_sky(problem, fit):
    level = np.array([3.0, -20.0, 0.7])
    raised = replace(problem, data=(problem.data + level[:, None, None]).astype(np.float32))
    other = fit_native(raised, PatchRun(), OPTIONS)
    close(other.flux, fit.flux, fit.flux_err)
    close(other.sky - level, fit.sky, fit.sky_err)
    np.testing.assert_allclose(other.flux_err, fit.flux_err, rtol=0.01)
