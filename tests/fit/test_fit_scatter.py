"""The error of every fitted quantity is its scatter from one noise to the next, on the sky too.

One patch with a star, a galaxy, a free Sersic profile and a blend, drawn once by GalSim, with many noises: sky
and the photons of the sources, fitted with weights of the sky alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes
from astropy.wcs import WCS
from fit_settings import PatchRun
from scenes import DEV, EXP, SERSIC, STAR

from tract7dt.catalog.sky import sky_errors, sky_position
from tract7dt.fit import fit_patch

SIZE, GAIN = 100, 4.0
ROWS = [
    (STAR, 22.3, 24.6, 1, 0, 0, 1, 3000.0),
    (EXP, 72.4, 25.2, 3.0, 0.5, 25, 1, 8000.0),
    (SERSIC, 25.8, 74.6, 3.5, 0.4, -50, 1.5, 16000.0),
    (DEV, 70.2, 74.0, 3.0, 0.4, 70, 4, 16000.0),
    (STAR, 76.3, 76.5, 1, 0, 0, 1, 3000.0),  # on the wing of the last
]


def sky_wcs():
    """A WCS far from the equator, turned, sheared and not square, so that x and y mix."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [0.002, 60.0], [50.0, 50.0]
    wcs.wcs.cd = 1e-4 * np.array([[-1.3, 0.6], [0.5, 1.1]])
    return wcs


def realisations(n, **settings):
    rng = np.random.default_rng(33)
    bands = scenes.make_bands(2, rng, stamp=45, gain=GAIN, spread=0.0)
    truth = scenes.few_sources(2, *ROWS)
    clean = scenes.make_problem(truth, bands, SIZE, SIZE, None)
    variance = (
        bands.sky_sigma[:, None, None] ** 2 + np.maximum(clean.data - bands.sky[:, None, None], 0) / GAIN
    )
    values = {name: [] for name in ("x", "y", "re", "ell", "theta", "sersic_n", "flux", "sky", "ra", "dec")}
    errors = {name: [] for name in values}
    wcs = sky_wcs()
    for _ in range(n):
        noise = rng.normal(size=clean.data.shape) * np.sqrt(variance)
        fit = fit_patch(replace(clean, data=(clean.data + noise).astype(np.float32)), PatchRun(**settings))
        for name in ("x", "y", "re", "ell", "theta", "sersic_n"):
            values[name].append(getattr(fit, name)[0])
            errors[name].append(getattr(fit, f"{name}_err")[0])
        for name in ("flux", "sky"):
            values[name].append(getattr(fit, name).ravel())
            errors[name].append(getattr(fit, f"{name}_err").ravel())
        ra, dec = sky_position(wcs, fit.x[0], fit.y[0])
        east = ((ra + 180) % 360 - 180) * np.cos(np.radians(dec)) * 3600
        ra_err, dec_err = sky_errors(wcs, fit.x[0], fit.y[0], fit.x_err[0], fit.y_err[0], fit.xy_cov[0])
        for name, value, error in (("ra", east, ra_err), ("dec", dec * 3600, dec_err)):
            values[name].append(value)
            errors[name].append(error)
    arrays = {name: np.array(value) for name, value in values.items()}
    return truth, arrays, {name: np.array(error) for name, error in errors.items()}


def check(found, n):
    """Scatter against reported error, and the mean against the truth, for all sources and quantities."""
    truth, values, errors = found
    allowed = 4 / np.sqrt(2 * n)
    true = {name: getattr(truth, name) for name in ("x", "y", "re", "ell", "theta", "sersic_n")}
    true["flux"] = truth.flux.ravel()
    for name, value in values.items():
        known = np.isfinite(value).all(axis=0)
        assert (np.isfinite(errors[name]).all(axis=0) == known).all(), name
        expected = {"re": [1, 2, 3], "ell": [1, 2, 3], "theta": [1, 2, 3], "sersic_n": [2]}
        assert np.flatnonzero(known).tolist() == expected.get(name, list(range(value.shape[1])))
        ratio = value[:, known].std(axis=0, ddof=1) / errors[name][:, known].mean(axis=0)
        assert np.all(np.abs(ratio - 1) < allowed), (name, ratio)
        if name in true:
            pull = (value[:, known] - true[name][known]) / errors[name][:, known]
            assert np.all(np.abs(pull.mean(axis=0)) < 4.5 / np.sqrt(n) + 0.06), (name, pull.mean(axis=0))


def test_reported_errors_are_the_scatter():
    check(realisations(120), 120)


@pytest.mark.slow
def test_reported_errors_are_the_scatter_to_a_few_percent():
    check(realisations(1000), 1000)


@pytest.mark.slow
def test_reported_errors_are_the_scatter_without_stages():
    check(realisations(300, enable_staged_fit=False), 300)
