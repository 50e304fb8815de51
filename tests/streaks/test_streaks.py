from __future__ import annotations

import numpy as np
import pytest

from tract7dt import streaks
from tract7dt.streaks import find_streaks
from tract7dt.types import Frame

NY, NX = 300, 400


def frame(data: np.ndarray) -> Frame:
    return Frame("m600", data.astype(np.float32), 2.0, 3.0, 1.0, 25.0, None, 3.0, "x.fits")


def sky(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 2.0, (NY, NX))


def line(angle_deg: float, amplitude: float) -> tuple[np.ndarray, np.ndarray]:
    """A trail through the centre, and the distance of every pixel from it."""
    yy, xx = np.mgrid[0:NY, 0:NX]
    t = np.radians(angle_deg)
    distance = (xx - NX / 2) * np.sin(t) - (yy - NY / 2) * np.cos(t)
    return amplitude * np.exp(-0.5 * (distance / 1.8) ** 2), distance


@pytest.mark.parametrize("angle", [0, 37, 90, 152])
def test_a_trail_is_covered_and_little_else(angle):
    trail, distance = line(angle, 15.0)
    mask = find_streaks(frame(sky(np.random.default_rng(angle)) + trail))
    assert mask is not None
    assert mask[np.abs(distance) < 2].mean() > 0.98
    assert not mask[np.abs(distance) > 15].any()


@pytest.mark.parametrize("angle", [0, 3, 37, 90, 152])
def test_a_trail_across_strips_is_one_trail(angle, monkeypatch, caplog):
    monkeypatch.setattr(streaks, "_STRIP_PIXELS", 190 * NX)
    monkeypatch.setattr(streaks, "_MARGIN_ROWS", 60)
    trail, distance = line(angle, 15.0)
    with caplog.at_level("INFO"):
        mask = find_streaks(frame(sky(np.random.default_rng(angle)) + trail))
    assert mask is not None
    assert mask[np.abs(distance) < 2].mean() > 0.98
    assert not mask[np.abs(distance) > 15].any()
    assert "1 trail(s)" in caplog.text


def test_a_trail_over_nan_pixels_and_a_star(tmp_path):
    trail, distance = line(60, 20.0)
    data = sky(np.random.default_rng(1)) + trail
    data[:, 150:152] = np.nan
    yy, xx = np.mgrid[0:NY, 0:NX]
    data += 3000 * np.exp(-0.5 * ((xx - 200) ** 2 + (yy - 150) ** 2) / 1.7**2)
    mask = find_streaks(frame(data))
    assert mask is not None
    assert mask[(np.abs(distance) < 2) & np.isfinite(data)].mean() > 0.95


def test_stars_and_an_edge_on_galaxy_are_no_trail():
    rng = np.random.default_rng(2)
    yy, xx = np.mgrid[0:NY, 0:NX]
    data = sky(rng)
    for x, y in rng.uniform(10, 290, (60, 2)):
        data += 500 * np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / 1.7**2)
    data += 60 * np.exp(-0.5 * (((xx - 200) / 25) ** 2 + ((yy - 150) / 5) ** 2))
    assert find_streaks(frame(data)) is None


def test_plain_sky_and_a_tiny_frame_have_none():
    assert find_streaks(frame(sky(np.random.default_rng(3)))) is None
    assert (
        find_streaks(Frame("m600", np.zeros((20, 20), np.float32), 2.0, 3.0, 1.0, 25.0, None, 3.0, "x"))
        is None
    )
