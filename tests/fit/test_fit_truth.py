"""Noiseless single sources drawn by GalSim must come back: flux 0.2 %, re 0.5 %, angle 0.5 deg, position 0.01
pix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes
from fit_settings import PatchRun
from scenes import DEV, EXP, SERSIC, STAR

from tract7dt.fit import fit_patch, render_model

GALAXIES = [
    (EXP, 3.0, 0.4, 25.0, 1.0),
    (EXP, 1.2, 0.2, -60.0, 1.0),
    (DEV, 3.0, 0.3, 70.0, 4.0),
    (DEV, 6.0, 0.5, -30.0, 4.0),
    (SERSIC, 3.0, 0.4, 89.0, 0.5),
    (SERSIC, 4.0, 0.6, -45.0, 1.5),
    (SERSIC, 3.0, 0.4, -89.0, 2.5),
    (SERSIC, 4.0, 0.2, 10.0, 5.0),
]


def scene(kind, re, ell, theta, n, x=75.3, y=74.6, flux=1e5, size=151):
    rng = np.random.default_rng(3)
    bands = replace(scenes.make_bands(2, rng, stamp=65), sky=np.zeros(2))
    truth = scenes.few_sources(2, (kind, x, y, re, ell, theta, n, flux))
    start = scenes.scattered_start(truth, 2, rng)
    return scenes.make_problem(truth, bands, size, size, None, start, exact_psf=False), truth


@pytest.mark.parametrize("source", GALAXIES, ids=lambda g: f"{g[0].name}-n{g[4]:g}-re{g[1]:g}-theta{g[3]:g}")
def test_galaxy_comes_back(source):
    problem, truth = scene(*source)
    fit = fit_patch(problem, PatchRun())
    assert fit.status == "converged"
    np.testing.assert_allclose(fit.flux, truth.flux, rtol=0.002)
    np.testing.assert_allclose([fit.x[0], fit.y[0]], [truth.x, truth.y], atol=0.01)
    np.testing.assert_allclose(fit.re[0], truth.re, rtol=0.005)
    np.testing.assert_allclose(fit.ell[0], truth.ell, atol=0.003)
    assert abs((fit.theta[0, 0] - truth.theta[0] + 90) % 180 - 90) < 0.5
    if source[0] == SERSIC:
        np.testing.assert_allclose(fit.sersic_n[0], truth.sersic_n, rtol=0.01)
    else:
        assert np.isnan(fit.sersic_n).all()
    np.testing.assert_allclose(render_model(problem, fit), problem.data, atol=2e-4 * problem.data.max())


def test_star_comes_back():
    problem, truth = scene(STAR, 1.0, 0.0, 0.0, 1.0)
    fit = fit_patch(problem, PatchRun())
    np.testing.assert_allclose(fit.flux, truth.flux, rtol=2e-4)
    np.testing.assert_allclose([fit.x[0], fit.y[0]], [truth.x, truth.y], atol=1e-3)
    for name in ("re", "ell", "theta", "sersic_n", "re_err", "ell_err", "theta_err", "sersic_n_err"):
        assert np.isnan(getattr(fit, name)).all()
    np.testing.assert_allclose(fit.frac_masked, 0, atol=1e-3)
    np.testing.assert_allclose(fit.frac_flux, 0, atol=1e-3)


@pytest.mark.parametrize("start_theta", [-80.0, 0.0, 70.0])
def test_angle_comes_back_from_a_wrong_start(start_theta):
    problem, _ = scene(EXP, 4.0, 0.5, 30.0, 1.0)
    problem.sources.theta[:] = start_theta
    problem.sources.ell[:] = 0.3
    fit = fit_patch(problem, PatchRun())
    assert abs(fit.theta[0, 0] - 30) < 0.5


def test_galaxy_half_a_pixel_off_comes_back():
    problem, truth = scene(EXP, 3.0, 0.4, 25.0, 1.0)
    problem.sources.x[:] = truth.x + 0.5
    problem.sources.y[:] = truth.y - 0.5
    fit = fit_patch(problem, PatchRun())
    np.testing.assert_allclose([fit.x[0], fit.y[0]], [truth.x, truth.y], atol=0.01)


def test_mirrored_and_scaled_scenes_give_mirrored_and_scaled_fits():
    problem, _ = scene(EXP, 3.0, 0.4, 25.0, 1.0, size=101, x=48.3, y=51.6)
    fit = fit_patch(problem, PatchRun())
    source = problem.sources
    mirrored = replace(
        problem,
        data=10 * problem.data[:, :, ::-1],
        weight=problem.weight[:, :, ::-1] / 100,
        sky_sigma=10 * problem.sky_sigma,
        gain=problem.gain / 10,
        psf=tuple(p[:, ::-1] for p in problem.psf),
        sources=replace(source, x=100 - source.x, theta=-source.theta, flux=10 * source.flux),
    )
    other = fit_patch(mirrored, PatchRun())
    np.testing.assert_allclose(other.flux, 10 * fit.flux, rtol=1e-5)
    np.testing.assert_allclose(other.x, 100 - fit.x, atol=1e-4)
    np.testing.assert_allclose(other.theta, -fit.theta, atol=0.01)
    np.testing.assert_allclose(other.flux_err, 10 * fit.flux_err, rtol=1e-3)


def test_galaxies_use_the_extended_psf():
    problem, truth = scene(EXP, 3.0, 0.4, 25.0, 1.0)
    delta = np.zeros((65, 65))
    delta[32, 32] = 1
    swapped = replace(problem, psf=(delta, delta), psf_extended=problem.psf)
    np.testing.assert_array_equal(fit_patch(swapped, PatchRun()).flux, fit_patch(problem, PatchRun()).flux)
    wrong = fit_patch(replace(problem, psf_extended=(delta, delta)), PatchRun())
    assert abs(wrong.re[0, 0] / truth.re[0] - 1) > 0.02
