from __future__ import annotations

import galsim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psf_scenes import true_stamp
from scipy import ndimage

from tract7dt.psf.analytic import circular_gaussians_stamp, imitate_with_gaussians, moffat_stamp
from tract7dt.psf.moments import windowed_centroid, windowed_covariance
from tract7dt.psf.quality import growth_curve, stamp_shape
from tract7dt.psf.shift import StampShifter
from tract7dt.psf.wings import MoffatProfile, fit_moffat


@given(st.floats(2.0, 8.0), st.floats(2.0, 6.0))
@settings(max_examples=15, deadline=None)
def test_moffat_stamp_equals_galsim(fwhm, beta):
    stamp = moffat_stamp(fwhm, beta, 25.0)
    image = galsim.ImageD(51, 51)
    galsim.Moffat(beta=beta, fwhm=fwhm).drawImage(image=image, scale=1, method="no_pixel")
    expected = image.array / image.array.sum()
    assert stamp.shape == (51, 51)
    assert stamp.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(stamp, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize(
    ("n", "parts"),
    [(1, [(1, 1)]), (2, [(1, 0.85), (2.5, 0.15)]), (3, [(1, 0.8), (2, 0.15), (4, 0.05)])],
)
def test_circular_gaussians_are_the_documented_mixtures(n, parts):
    sigma = 4.0 / 2.3548200450309493
    image = galsim.ImageD(81, 81)
    for multiple, weight in parts:
        galsim.Gaussian(sigma=multiple * sigma, flux=weight).drawImage(
            image=image, scale=1, method="no_pixel", add_to_image=True
        )
    np.testing.assert_allclose(circular_gaussians_stamp(4.0, n, 40.0), image.array, atol=1e-5)


@pytest.mark.parametrize("n", [3, 4, 9])
def test_gaussian_imitation_keeps_flux_and_core(n):
    stamp = true_stamp(55)
    stamp = stamp / stamp.sum()
    model = imitate_with_gaussians(stamp, n)
    assert model.sum() == pytest.approx(1, abs=1e-9)
    assert model.min() >= 0
    assert np.abs(model - stamp).max() < 0.03 * stamp.max()
    radii = np.array([3.0, 5.0, 10.0])
    np.testing.assert_allclose(growth_curve(model, radii), growth_curve(stamp, radii), atol=0.01)


def test_imitation_of_a_gaussian_is_exact_with_one_component():
    gaussian = circular_gaussians_stamp(4.0, 1, 25.0)
    np.testing.assert_allclose(imitate_with_gaussians(gaussian, 1), gaussian, atol=1e-4 * gaussian.max())


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
@settings(max_examples=15, deadline=None)
def test_shift_equals_a_star_drawn_there(dx, dy):
    value, by_x, by_y = StampShifter(61).models(true_stamp(61), np.array([dx]), np.array([dy]))
    drawn = true_stamp(61, dx, dy)
    np.testing.assert_allclose(value[0], drawn, atol=2e-3 * drawn.max())
    step = 1e-3
    slope = (true_stamp(61, dx + step, dy) - true_stamp(61, dx - step, dy)) / (2 * step)
    np.testing.assert_allclose(by_x[0], slope, atol=0.01 * np.abs(slope).max())
    slope = (true_stamp(61, dx, dy + step) - true_stamp(61, dx, dy - step)) / (2 * step)
    np.testing.assert_allclose(by_y[0], slope, atol=0.01 * np.abs(slope).max())


def test_windowed_centroid_finds_the_offset():
    assert windowed_centroid(true_stamp(61, 0.31, -0.17), 3.3) == pytest.approx((0.31, -0.17), abs=0.002)
    assert windowed_centroid(np.zeros((61, 61)), 3.3) == (0.0, 0.0)


def test_windowed_covariance_agrees_with_galsim_adaptive_moments():
    stamp = true_stamp(61, g1=0.08, g2=0.05)
    moments = galsim.hsm.FindAdaptiveMom(galsim.Image(stamp))
    cov = windowed_covariance(stamp)
    assert np.linalg.det(cov) ** 0.25 == pytest.approx(moments.moments_sigma, rel=1e-3)
    e1 = (cov[0, 0] - cov[1, 1]) / (cov[0, 0] + cov[1, 1])
    assert e1 == pytest.approx(moments.observed_e1, abs=1e-3)


def test_stamp_shape_measures_width_and_growth():
    stamp = true_stamp(55, fwhm=3.6, g1=0.0, g2=0.0)
    shape = stamp_shape(stamp)
    assert shape["fwhm_pix"] == pytest.approx(3.6, abs=0.03)
    assert shape["ellipticity"] == pytest.approx(0, abs=0.005)
    # a circle cuts pixels, so the curve is that of the profile spread over a pixel
    spread = galsim.Convolve(galsim.Moffat(beta=3.2, fwhm=3.6), galsim.Pixel(1.0))
    half_light = spread.drawImage(scale=0.1, nx=601, ny=601, method="no_pixel").calculateHLR(flux=1.0)
    assert shape["ee50_pix"] == pytest.approx(half_light, rel=0.01)


def test_moffat_fit_recovers_a_noisy_profile():
    rng = np.random.default_rng(3)
    stamp = true_stamp(61)
    noise = 1e-3 * stamp.max()
    found = fit_moffat(
        stamp + rng.normal(0, noise, stamp.shape), np.full(stamp.shape, noise**2), MoffatProfile.of_width(4.0)
    )
    assert found.fwhm == pytest.approx(3.3, rel=0.01)
    assert found.beta == pytest.approx(3.2, abs=0.1)
    assert found.total == pytest.approx(1.0, rel=0.01)


def test_centroid_ignores_far_wings():
    stamp = ndimage.gaussian_filter(np.pad([[1.0]], 30), 1.4)
    stamp[:, :10] += 1e-3
    assert np.hypot(*windowed_centroid(stamp, 3.3)) < 1e-3
