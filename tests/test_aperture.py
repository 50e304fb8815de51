from __future__ import annotations

import numpy as np
import pytest
from photutils.aperture import CircularAperture, aperture_photometry

from tract7dt.aperture import circular_flux


def scene():
    rng = np.random.default_rng(4)
    return rng.normal(3, 1, (80, 100)).astype(np.float32)


def test_fluxes_agree_with_photutils():
    """Both by 5 x 5 subpixels; photutils in float64."""
    data = scene()
    rng = np.random.default_rng(5)
    x, y = rng.uniform(8, 90, 50), rng.uniform(8, 70, 50)
    wanted = aperture_photometry(
        data.astype(float), CircularAperture(np.column_stack([x, y]), 5.0), method="subpixel", subpixels=5
    )["aperture_sum"]
    got = circular_flux(data, np.zeros(data.shape, np.uint8), x, y, 5.0)
    np.testing.assert_allclose(got, wanted, rtol=2e-5)


def test_masked_pixels_count_as_the_mean_of_the_rest():
    data = np.full((40, 40), 2.0, np.float32)
    bad = np.zeros(data.shape, np.uint8)
    whole = circular_flux(data, bad, [20.0], [20.0], 5.0)
    data[18:21, 20], bad[18:20, 20] = 1e9, 4
    data[20, 20] = np.nan  # not in the mask that is given, left out all the same
    np.testing.assert_allclose(circular_flux(data, bad, [20.0], [20.0], 5.0), whole, rtol=1e-6)


@pytest.mark.parametrize(("x", "y"), [(np.nan, 5.0), (5.0, np.inf), (-50.0, 5.0), (30.0, 30.0)])
def test_no_good_pixel_gives_nan(x, y):
    bad = np.zeros((40, 40), bool)
    bad[22:39, 22:39] = True
    got = circular_flux(np.ones((40, 40), np.float32), bad, [10.0, x], [10.0, y], 5.0)
    assert np.isfinite(got[0])
    assert np.isnan(got[1])


def test_read_only_swapped_and_strided_arrays_are_taken():
    data = scene()
    wanted = circular_flux(data, np.zeros(data.shape, np.uint8), [30.0], [30.0], 4.0)
    fixed = data.copy()
    fixed.flags.writeable = False
    for other in (fixed, data.astype(">f4"), np.asfortranarray(data), data.astype(float)):
        np.testing.assert_allclose(
            circular_flux(other, np.zeros(data.shape, bool), [30.0], [30.0], 4.0), wanted
        )
    np.testing.assert_allclose(
        circular_flux(np.pad(data, 3)[3:-3, 3:-3], np.zeros(data.shape, np.uint8), [30.0], [30.0], 4.0),
        wanted,
    )
    assert circular_flux(data, np.zeros(data.shape, np.uint8), [], [], 4.0).shape == (0,)
    assert np.isnan(
        circular_flux(np.zeros((0, 0), np.float32), np.zeros((0, 0), bool), [1.0], [1.0], 4.0)
    ).all()
