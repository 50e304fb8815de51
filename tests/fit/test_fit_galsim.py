"""Noiseless single sources, drawn by GalSim through a Moffat PSF and the pixel, come back.

Conventions (docs/inputs.md): flux is the light within 8 Re, Re is that of the profile without this cut, along the
major axis; THETA counter-clockwise from +x. The PSF is drawn to infinity, the fit has its stamp: 101 pix, which
hold all but 1e-5 of it.
"""

from __future__ import annotations

import galsim
import numpy as np
import pytest
import scenes
from fit_settings import PatchRun
from scenes import DEV, EXP, GS_PARAMS, SERSIC, STAR

from tract7dt.fit import fit_patch
from tract7dt.types import PatchProblem

FLUX = 1e5
FLUX_TOLERANCE, RE_TOLERANCE, N_TOLERANCE, ELL_TOLERANCE = 0.002, 0.005, 0.01, 0.005
ANGLE_TOLERANCE, POSITION_TOLERANCE = 0.5, 0.01

SHAPES = [(1.5, 0.1, 20.0), (2.5, 0.3, -70.0), (4.0, 0.6, 45.0), (6.0, 0.5, 85.0)]
MODELS = [(EXP, 1.0), (DEV, 4.0)] + [(SERSIC, n) for n in (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)]


def profile(kind, re, ell, theta, n, cut=True):
    """GalSim's own galaxy: round, of the circularised radius, sheared to its axis ratio."""
    radius = re * np.sqrt(1 - ell)
    round_one = galsim.Sersic(
        n={EXP: 1.0, DEV: 4.0}.get(kind, n),
        half_light_radius=radius,
        trunc=8 * radius if cut else 0.0,
        flux_untruncated=cut,
        gsparams=GS_PARAMS,
    )
    return round_one.shear(q=1 - ell, beta=theta * galsim.degrees)


def problem_of(galaxy, kind, re, ell, theta, n, x=75.3, y=74.6, size=151, psfs=((3.2, 3.5),)):
    """Pixels without noise and a scattered start; one band a PSF ``(fwhm, beta)``."""
    data, stamps = [], []
    for fwhm, beta in psfs:
        moffat = galsim.Moffat(beta=beta, fwhm=fwhm).shear(g1=0.02, g2=-0.01)
        psf = galsim.Convolve(moffat, galsim.Pixel(1.0), gsparams=GS_PARAMS)
        drawn = psf if galaxy is None else galsim.Convolve(galaxy, psf, gsparams=GS_PARAMS)
        image = galsim.ImageD(size, size, xmin=0, ymin=0)
        drawn.drawImage(image, scale=1.0, method="no_pixel", center=galsim.PositionD(x, y))
        data.append(image.array)
        stamps.append(scenes.psf_stamp(psf, 101))
    truth = scenes.few_sources(len(psfs), (kind, x, y, re, ell, theta, n, FLUX))
    start = scenes.scattered_start(truth, len(psfs), np.random.default_rng(5))
    pixels, one = np.array(data, np.float32), np.ones(len(psfs))
    bands = tuple(f"b{i}" for i in range(len(psfs)))
    return PatchProblem(
        "galsim", bands, pixels, np.ones_like(pixels), one, 1e9 * one, tuple(stamps), None, start
    )


def turned(found, true):
    return abs((found - true + 90) % 180 - 90)


def check_shape(fit, kind, re, ell, theta, n):
    assert fit.re[0, 0] == pytest.approx(re, rel=RE_TOLERANCE)
    assert fit.ell[0, 0] == pytest.approx(ell, abs=ELL_TOLERANCE)
    assert turned(fit.theta[0, 0], theta) < ANGLE_TOLERANCE
    if kind == SERSIC:
        assert fit.sersic_n[0, 0] == pytest.approx(n, rel=N_TOLERANCE)


def check_position(fit, x=75.3, y=74.6):
    assert fit.x[0, 0] == pytest.approx(x, abs=POSITION_TOLERANCE)
    assert fit.y[0, 0] == pytest.approx(y, abs=POSITION_TOLERANCE)


@pytest.mark.parametrize(("re", "ell", "theta"), SHAPES)
@pytest.mark.parametrize(("kind", "n"), MODELS, ids=[f"{k.name}-{n:g}" for k, n in MODELS])
def test_flux_shape_and_position_of_a_galaxy(kind, n, re, ell, theta):
    fit = fit_patch(
        problem_of(profile(kind, re, ell, theta, n).withFlux(FLUX), kind, re, ell, theta, n), PatchRun()
    )
    assert fit.status == "converged"
    assert fit.flux[0, 0] == pytest.approx(FLUX, rel=FLUX_TOLERANCE)
    check_position(fit)
    check_shape(fit, kind, re, ell, theta, n)


@pytest.mark.parametrize("theta", np.arange(-90.0, 90.0, 15.0))
def test_every_angle(theta):
    fit = fit_patch(
        problem_of(profile(EXP, 3.0, 0.5, theta, 1.0).withFlux(FLUX), EXP, 3.0, 0.5, theta, 1.0), PatchRun()
    )
    assert turned(fit.theta[0, 0], theta) < 0.05
    assert -90 <= fit.theta[0, 0] < 90
    assert fit.ell[0, 0] == pytest.approx(0.5, abs=0.001)


@pytest.mark.parametrize("ell", [0.0, 0.05, 0.5, 0.8, 0.9])
def test_every_axis_ratio(ell):
    fit = fit_patch(
        problem_of(profile(EXP, 5.0, ell, 30.0, 1.0).withFlux(FLUX), EXP, 5.0, ell, 30.0, 1.0), PatchRun()
    )
    assert fit.ell[0, 0] == pytest.approx(ell, abs=ELL_TOLERANCE)
    assert fit.re[0, 0] == pytest.approx(5.0, rel=RE_TOLERANCE)
    assert fit.flux[0, 0] == pytest.approx(FLUX, rel=FLUX_TOLERANCE)


@pytest.mark.parametrize(("fwhm", "beta"), [(2.2, 3.5), (3.2, 3.0), (5.0, 4.5)])
@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.49, -0.31), (-0.5, 0.5)])
def test_a_star_anywhere_in_its_pixel(fwhm, beta, dx, dy):
    problem = problem_of(None, STAR, 1, 0, 0, 1, x=75 + dx, y=74 + dy, psfs=((fwhm, beta),))
    problem.data[:] *= FLUX
    fit = fit_patch(problem, PatchRun())
    assert fit.flux[0, 0] == pytest.approx(FLUX, rel=FLUX_TOLERANCE)
    check_position(fit, 75 + dx, 74 + dy)


def test_bands_of_different_seeing_share_one_shape():
    shape = (3.0, 0.4, -25.0)
    problem = problem_of(
        profile(SERSIC, *shape, 2.0).withFlux(FLUX),
        SERSIC,
        *shape,
        2.0,
        psfs=((2.5, 3.5), (4.0, 3.5), (6.0, 4.0)),
    )
    fit = fit_patch(problem, PatchRun())
    np.testing.assert_allclose(fit.flux[:, 0], FLUX, rtol=FLUX_TOLERANCE)
    check_shape(fit, SERSIC, *shape, 2.0)
    alone = fit_patch(problem, PatchRun(enable_multi_band_simultaneous_fitting=False))
    np.testing.assert_allclose(alone.flux[:, 0], FLUX, rtol=FLUX_TOLERANCE)
    np.testing.assert_allclose(alone.re[:, 0], 3.0, rtol=RE_TOLERANCE)
    np.testing.assert_allclose(alone.sersic_n[:, 0], 2.0, rtol=N_TOLERANCE)
    assert np.all(turned(alone.theta[:, 0], -25.0) < ANGLE_TOLERANCE)


@pytest.mark.parametrize(("kind", "n"), [(EXP, 1.0), (SERSIC, 2.0), (DEV, 4.0)])
def test_total_flux_is_the_light_within_eight_re(kind, n):
    """A galaxy without end has the flux that GalSim finds within 8 Re, to 0.7 %: its halo passes for sky."""
    shape = (2.0, 0.3, 20.0)
    within = profile(kind, *shape, n).flux  # GalSim's: of a profile of unit flux when it is not cut
    endless = profile(kind, *shape, n, cut=False).withFlux(FLUX)
    fit = fit_patch(problem_of(endless, kind, *shape, n, size=201, x=100, y=100), PatchRun())
    assert fit.flux[0, 0] / FLUX == pytest.approx(within, rel=0.007)
    assert fit.re[0, 0] == pytest.approx(2.0, rel=0.015)
    if kind == DEV:
        assert within == pytest.approx(0.943, abs=0.001)
