"""Reach against GalSim: at the distance given, the rendered source has sunk to the threshold."""

from __future__ import annotations

import galsim
import numpy as np
import pytest

from tract7dt.patches.reach import moffat_reach, reach, sersic_reach
from tract7dt.types import ModelKind


@pytest.mark.parametrize("fwhm", [2.5, 4.0])
@pytest.mark.parametrize("flux", [3e3, 1e6])
def test_a_moffat_star_is_at_the_level_at_its_reach(fwhm, flux):
    r = float(moffat_reach(np.array(flux), np.array(fwhm), 3.5, np.array(0.2)))
    star = galsim.Moffat(beta=3.5, fwhm=fwhm, flux=flux)
    assert star.xValue(r, 0) == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize("n", [0.5, 1.0, 4.0, 6.0])
def test_a_sersic_galaxy_is_at_the_level_at_its_reach(n):
    r = float(sersic_reach(np.array(2e5), np.array(4.0), np.array(n), np.array(0.2)))
    galaxy = galsim.Sersic(n=n, half_light_radius=4.0, flux=2e5)
    assert galaxy.xValue(r, 0) == pytest.approx(0.2, rel=1e-4)


def test_nothing_above_the_level_reaches_nowhere():
    assert moffat_reach(np.array(1.0), np.array(4.0), 3.5, np.array(5.0)) == -np.inf
    assert sersic_reach(np.array(-3.0), np.array(4.0), np.array(1.0), np.array(5.0)) == -np.inf


def test_the_brightest_band_counts_and_a_star_ends_with_its_stamp():
    flux = np.array([[np.nan, 50.0, 1e9], [300.0, -5.0, 1.0]])
    kind = np.full(3, int(ModelKind.STAR))
    sigma, fwhm = np.array([1.0, 1.0]), np.array([4.0, 4.0])
    far = reach(flux, kind, np.full(3, 3.0), np.full(3, 3.0), sigma, fwhm, 3.5, 29.0)
    assert far[0] == pytest.approx(float(moffat_reach(np.array(300.0), np.array(4.0), 3.5, np.array(0.1))))
    assert 0 < far[1] < far[0] < 29
    assert far[2] == 29


def test_a_blurred_galaxy_has_sunk_below_the_threshold_beyond_its_reach():
    flux, re, fwhm, sigma = 4e4, 6.0, 4.0, 3.0
    psf = galsim.Moffat(beta=3.5, fwhm=fwhm)
    for kind, n in ((ModelKind.EXP, 1.0), (ModelKind.DEV, 4.0)):
        r = float(
            reach(
                np.array([[flux]]), np.array([int(kind)]), np.array([re]), np.array([2.0]),
                np.array([sigma]), np.array([fwhm]), 3.5, 29.0,
            )[0]
        )  # fmt: skip
        size = 2 * int(r + 6) + 1
        blurred = galsim.Convolve(galsim.Sersic(n=n, half_light_radius=re, flux=flux), psf)
        image = blurred.drawImage(nx=size, ny=size, scale=1.0, method="no_pixel").array
        y, x = np.indices(image.shape) - size // 2
        beyond = image[np.hypot(x, y) > r].max()
        within = image[np.hypot(x, y) < r - 2 * fwhm].min()
        # never missed, and not searched for much farther than it is seen
        assert beyond < 0.1 * sigma * 1.05
        assert within > 0.1 * sigma
