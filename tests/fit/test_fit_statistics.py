"""Errors must be true: pulls against GalSim's truth of unit width, with sky weights and photon noise."""

from __future__ import annotations

import numpy as np
import pytest
import scenes
from fit_settings import PatchRun

from tract7dt.fit import fit_patch


def width(values):
    """Robust width; a parameter at a bound has no error and no pull."""
    values = values[np.isfinite(values)]
    return 1.4826 * np.median(np.abs(values - np.median(values)))


def pulls(seeds, **scene):
    flux, position, converged, chi2, ratio = [], [], [], [], []
    for seed in seeds:
        problem, truth = scenes.random_problem(seed=seed, **scene)
        fit = fit_patch(problem, PatchRun())
        flux.append(((fit.flux - truth.flux) / fit.flux_err).ravel())
        for found, error, true in ((fit.x, fit.x_err, truth.x), (fit.y, fit.y_err, truth.y)):
            position.append((found[0] - true) / error[0])
        converged.append(fit.converged[0])
        chi2.append(fit.chi2.ravel())
        ratio.append((fit.flux / fit.flux_err).ravel())
    return tuple(np.concatenate(part) for part in (flux, position, converged, chi2, ratio))


def test_photon_noise_of_bright_stars_is_in_their_errors():
    # S/N up to 3000, where the photons of the stars themselves are most of the noise
    flux, position, converged, chi2, snr = pulls(
        range(3),
        n=25,
        n_bands=4,
        size=260,
        gain=40.0,
        blended=0.1,
        shares=(1, 0, 0, 0),
        snr=1200.0,
        snr_spread=1.5,
    )
    assert np.percentile(snr, 5) < 100
    assert np.percentile(snr, 99) > 1000
    assert abs(np.median(flux)) < 0.2
    assert width(flux) == pytest.approx(1, abs=0.15)
    assert width(position) == pytest.approx(1, abs=0.2)
    assert np.median(chi2) == pytest.approx(1, abs=0.06)
    assert converged.mean() >= 0.97


def test_mixed_blended_sources():
    flux, position, converged, chi2, _ = pulls(range(10, 13), n=20, n_bands=4, size=160, gain=50.0)
    assert abs(np.median(flux)) < 0.2
    assert width(flux) == pytest.approx(1, abs=0.15)
    assert width(position) == pytest.approx(1, abs=0.25)
    assert np.median(chi2) == pytest.approx(1, abs=0.06)
    assert converged.mean() >= 0.97


def test_shape_errors():
    shape = {"re": [], "ell": [], "theta": []}
    for seed in range(4):
        problem, truth = scenes.random_problem(
            20, 3, 300, seed, gain=20.0, blended=0.0, shares=(0, 0.7, 0.3, 0), snr=60.0, snr_spread=0.4
        )
        fit = fit_patch(problem, PatchRun())
        shape["re"].append((fit.re[0] - truth.re) / fit.re_err[0])
        shape["ell"].append((fit.ell[0] - truth.ell) / fit.ell_err[0])
        turn = (fit.theta[0] - truth.theta + 90) % 180 - 90
        shape["theta"].append(turn / fit.theta_err[0])
    for name, values in shape.items():
        assert width(np.concatenate(values)) == pytest.approx(1, abs=0.3), name
        assert abs(np.median(np.concatenate(values))) < 0.45, name


def test_covariance_of_position_is_positive_definite():
    problem, _ = scenes.random_problem(20, 3, 150, 3)
    fit = fit_patch(problem, PatchRun())
    assert np.all(np.abs(fit.xy_cov) < fit.x_err * fit.y_err)


@pytest.mark.slow
def test_pulls_of_many():
    flux, position, converged, _, _ = pulls(range(100, 112), n=30, n_bands=6, size=200, gain=50.0)
    assert len(flux) >= 2000
    assert abs(np.median(flux)) <= 0.05
    assert 0.95 <= width(flux) <= 1.08
    assert 0.95 <= width(position) <= 1.12
    assert converged.mean() >= 0.99
