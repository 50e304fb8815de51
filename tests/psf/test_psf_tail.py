from __future__ import annotations

import json

import numpy as np
import psf_scenes as scenes
import pytest

from tract7dt.psf import psf_at, wing_stamp
from tract7dt.psf.wings import MoffatProfile
from tract7dt.types import Epsf


def moffat_epsf(k: int = 55, quality: dict | None = None) -> tuple[Epsf, MoffatProfile]:
    profile = MoffatProfile.of_width(3.2, 3.1)
    stamp = profile.stamp(k)
    return Epsf((stamp / stamp.sum()).astype(np.float32), 20, "epsf", quality or {}), profile


def test_the_inner_part_is_the_stamp():
    epsf, _ = moffat_epsf()
    wide = wing_stamp(epsf, 60)
    assert wide.shape == (121, 121)
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide[33:88, 33:88], epsf.stamp / epsf.stamp.sum(dtype=float), rtol=1e-6)
    np.testing.assert_array_equal(wing_stamp(epsf, 20), wide[40:81, 40:81])
    with pytest.raises(ValueError, match="half-size"):
        wing_stamp(epsf, -1)


def test_a_tail_without_a_record_is_fitted():
    epsf, profile = moffat_epsf()
    truth = profile.stamp(201) / profile.stamp(55).sum()
    np.testing.assert_allclose(wing_stamp(epsf, 100), truth, rtol=0.1)


def test_the_tail_of_a_built_stamp_follows_the_profile(star_result):
    """Analytic Moffat to 100 pix: galsim's own is cut where 1e-5 of the flux is left."""
    epsf = psf_at(star_result.grid, "r00_c00", 280, 280)
    epsf = Epsf(epsf.stamp, epsf.n_stars, epsf.kind, json.loads(json.dumps(dict(epsf.quality))))
    wide = wing_stamp(epsf, 100)
    true = MoffatProfile.of_width(scenes.FWHM, scenes.BETA)
    true_stamp = true.stamp(201) / true.stamp(55).sum()
    axis = np.arange(-100, 101)
    radius = np.hypot(axis[:, None], axis[None, :])
    for r in (35, 50, 70, 100):
        ring = np.abs(radius - r) < 1
        assert wide[ring].mean() == pytest.approx(true_stamp[ring].mean(), rel=0.25)
    # what pixels resolve of a profile rings along the row and the column through the centre: by 1e-6 of the peak
    away = np.minimum(np.abs(axis)[:, None], np.abs(axis)[None, :]) > 1
    rings = [wide[(np.abs(radius - r) < 0.7) & away].mean() for r in range(25, 60)]
    steps = np.abs(np.diff(np.log(rings)))
    assert steps.max() < 0.3  # the profile itself falls by 0.24 a pixel at 26 pix
    assert wide.min() > -1e-4 * wide.max()


def test_the_tail_of_a_cell_is_in_its_record(star_result):
    quality = star_result.grid.cells["r00_c00"].quality
    assert quality["tail_beta"] == pytest.approx(scenes.BETA, abs=0.15)
