"""The pixels of the simulator against GalSim, which shares nothing with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, special

from tract7dt.sample.bands import draw_band
from tract7dt.sample.options import SampleOptions
from tract7dt.sample.profiles import Moffat, Sersic, draw_galaxy, draw_star
from tract7dt.sample.render import psf_at, render_sources

galsim = pytest.importorskip("galsim")


def precise() -> Any:
    return galsim.GSParams(
        maximum_fft_size=16384, folding_threshold=1e-4, maxk_threshold=1e-5, kvalue_accuracy=1e-7
    )


def galsim_psf(psf: Moffat) -> Any:
    return galsim.Moffat(beta=psf.beta, fwhm=psf.fwhm, gsparams=precise()).shear(g1=psf.g1, g2=psf.g2)


def galsim_galaxy(galaxy: Sersic) -> Any:
    """GalSim's radius is that of the circle of the same area."""
    circle = galaxy.re * np.sqrt(galaxy.q)
    end = {"trunc": 8 * circle, "flux_untruncated": True} if galaxy.n >= 2 else {}
    profile = galsim.Sersic(n=galaxy.n, half_light_radius=circle, gsparams=precise(), **end).withFlux(1.0)
    return profile.shear(q=galaxy.q, beta=galaxy.theta * galsim.degrees)


def drawn(profile: Any, dx: float, dy: float, half: int) -> Any:
    size = 2 * half + 1
    image = profile.drawImage(nx=size, ny=size, scale=1, method="no_pixel", offset=(dx, dy), dtype=float)
    return image.array


@pytest.mark.parametrize(("fwhm", "beta"), [(2.4, 3.8), (3.5, 3.3), (5.0, 3.0)])
def test_star_is_a_moffat(fwhm: float, beta: float) -> None:
    psf = Moffat(fwhm, beta, 0.03, -0.02)
    ours = draw_star(psf, 0.3, -0.4, 30)
    theirs = drawn(galsim_psf(psf), 0.3, -0.4, 30)
    assert np.abs(ours - theirs).max() < 1e-5 * theirs.max()


@pytest.mark.parametrize("n", [0.5, 1.0, 1.75, 2.0, 4.0, 5.0])
@pytest.mark.parametrize(("re", "q", "theta", "fwhm"), [(0.6, 0.5, 30.0, 2.5), (4.0, 0.25, -70.0, 3.2)])
def test_galaxy_is_a_convolved_sersic(n: float, re: float, q: float, theta: float, fwhm: float) -> None:
    """Every pixel to 1e-4 of the peak: position, angle, radius, axis ratio and flux are then right too."""
    galaxy, psf = Sersic(n, re, q, theta), Moffat(fwhm, 3.3, 0.02, -0.01)
    ours = draw_galaxy(galaxy, psf, 0.3, -0.2, 60)
    theirs = drawn(galsim.Convolve(galsim_galaxy(galaxy), galsim_psf(psf), gsparams=precise()), 0.3, -0.2, 60)
    assert np.abs(ours - theirs).max() < 1e-4 * theirs.max()
    assert ours.sum() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("n", [0.75, 1.0, 4.0])
def test_transform_of_a_sersic_is_its_integral(n: float) -> None:
    b = special.gammaincinv(2 * n, 0.5)
    end = 8.0 if n >= 2 else 40.0

    def light(t: float) -> float:  # r = t**(2 n) takes the cusp away
        return t ** (4 * n - 1) * np.exp(-b * t * t)

    limits = (0.0, end ** (1 / (2 * n)))
    total = integrate.quad(light, *limits, epsabs=0, epsrel=1e-10)[0]
    for k in (0.01, 0.3, 1.0, 4.0):
        part = integrate.quad(
            lambda t, k=k: light(t) * special.j0(k * t ** (2 * n)), *limits, epsabs=1e-9, limit=400
        )[0]
        ours = Sersic(n, 1.0, 1.0, 0.0).transform(np.array([k]), np.array([0.0]))[0]
        assert ours == pytest.approx(part / total, abs=1e-4)


def test_a_radius_is_where_the_light_falls_to_the_threshold() -> None:
    psf = Moffat(3.0, 3.3)
    r = psf.radius_at(1000.0, 0.05)
    assert 1000 * psf.at(np.array([r]), np.array([0.0]))[0] == pytest.approx(0.05)
    galaxy = Sersic(1.5, 4.0, 0.5, 0.0)
    profile = galsim.Sersic(n=1.5, half_light_radius=4.0 * np.sqrt(0.5)).shear(q=0.5, beta=0 * galsim.degrees)
    r = galaxy.radius_at(1000.0, 0.05)
    assert 1000 * profile.xValue(r, 0) == pytest.approx(0.05, rel=1e-3)
    assert Sersic(4.0, 4.0, 0.5, 0.0).radius_at(1e9, 0.05) == pytest.approx(32.0)


def test_a_scene_is_the_sum_of_its_sources() -> None:
    """A crowded frame with the PSF of every place, to 2 % of the sky noise and 1e-4 of the peak."""
    options = SampleOptions(width=160, height=120, seed=2)
    band = draw_band("m500", 0, 1, options)
    rng = np.random.default_rng(1)
    kinds = ["STAR", "STAR", "EXP", "DEV", "SERSIC", "SERSIC", "EXP", "STAR"]
    truth = pd.DataFrame(
        {
            "x": rng.uniform(2, 157, 8),
            "y": rng.uniform(2, 117, 8),
            "type": kinds,
            "n": [np.nan, np.nan, 1.0, 4.0, 0.75, 2.5, 1.0, np.nan],
            "Re": [np.nan, np.nan, 3.0, 2.0, 5.0, 1.5, 0.8, np.nan],
            "ELL": [np.nan, np.nan, 0.6, 0.3, 0.1, 0.5, 0.2, np.nan],
            "THETA": [np.nan, np.nan, 40.0, -20.0, 85.0, -60.0, 10.0, np.nan],
            "mag_m500": [15.0, 18.0, 17.0, 18.5, 18.0, 19.0, 20.0, 20.5],
        }
    )
    ours = render_sources(truth, band, options)
    scene = galsim.ImageD(160, 120, xmin=0, ymin=0)
    for s in truth.itertuples():
        psf = galsim_psf(psf_at(band, s.x, s.y, options))
        if s.type != "STAR":
            psf = galsim.Convolve(
                galsim_galaxy(Sersic(s.n, s.Re, 1 - s.ELL, s.THETA)), psf, gsparams=precise()
            )
        psf.withFlux(10 ** (-0.4 * (s.mag_m500 - band.zp_true))).drawImage(
            image=scene, scale=1, method="no_pixel", center=galsim.PositionD(s.x, s.y), add_to_image=True
        )
    assert ours.dtype == np.float32
    difference = np.abs(ours - scene.array)
    assert (difference < 0.02 * band.skysig + 1e-4 * scene.array).all()
    # the PSF does vary: left and right edges differ
    left, right = psf_at(band, 0, 60, options), psf_at(band, 159, 60, options)
    assert abs(left.fwhm / right.fwhm - 1) > 0.003
