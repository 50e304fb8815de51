from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import psf_scenes as scenes

from tract7dt.psf import build_band
from tract7dt.settings import EpsfSettings


@pytest.fixture(scope="session")
def star_field():
    """36 stars of S/N 100 to 2000 on a grid, 560 pix square, sky 0.4 sigma too high."""
    shape = (560, 560)
    x, y = scenes.grid_positions(shape)
    flux = 10 ** np.random.default_rng(5).uniform(3.3, 5.0, len(x))
    return scenes.make_field(scenes.draw_stars(shape, x, y, flux), sky=0.4), x, y, flux


@pytest.fixture(scope="session")
def star_result(star_field):
    field, *_ = star_field
    return build_band(field, "m500", [(0, 0)], None, EpsfSettings(epsf_ngrid=1, max_stars=40))
