"""What makes a star of a candidate: neighbours, outliers, the same checks for SEP and Gaia, all on record."""

from __future__ import annotations

import json

import numpy as np
import psf_scenes as scenes
import pytest

from tract7dt.psf import build_band, write_band
from tract7dt.qa.psf_stars import REASON_SYMBOLS
from tract7dt.settings import EpsfSettings
from tract7dt.store import WorkDir

SHAPE = (620, 620)
#: Reasons that :class:`tract7dt.psf.Candidate` names.
REASONS = [
    "snr",
    "edge",
    "nonfinite",
    "saturated",
    "roundness",
    "size",
    "neighbour",
    "min_sep",
    "max_stars",
    "outlier",
    "fit_failed",
]


def near(meta, x, y):
    return min(meta.candidates, key=lambda c: np.hypot(c.x - x, c.y - y))


def meta_of(field, gaia=None, **options):
    settings = EpsfSettings(epsf_ngrid=1, max_stars=60).model_copy(update=options)
    return build_band(field, "m500", [(0, 0)], gaia, settings).meta["r00_c00"]


@pytest.mark.parametrize("mode", ["sep", "gaia"])
def test_a_neighbour_of_more_than_one_per_cent_in_the_fit_box(mode):
    x, y = scenes.grid_positions(SHAPE, step=90)
    flux = 5e4
    image = scenes.draw_stars(SHAPE, x, y, np.full(len(x), flux))
    angles = np.linspace(0, 5, 9)
    shares = [0.06] * 3 + [0.002] * 3 + [0.3] * 3
    distances = [7.0] * 6 + [22.0] * 3  # the last: bright, but far outside the fit box of 8.25 pix
    for i, (share, r, angle) in enumerate(zip(shares, distances, angles, strict=True)):
        place = [x[i] + r * np.cos(angle)], [y[i] + r * np.sin(angle)]
        image += scenes.draw_stars(SHAPE, *place, [share * flux])
    gaia = scenes.gaia_table(x, y, np.full(len(x), 15.0)) if mode == "gaia" else None
    meta = meta_of(scenes.make_field(image), gaia, psfstar_mode=mode)
    words = [near(meta, x[i], y[i]).reason for i in range(9)]
    assert words[:3] == ["neighbour"] * 3
    assert words[3:] == [""] * 6


def test_an_outlier_of_the_stack():
    """A star with a hot pixel group in its wing: round, of the right size, but not like the others."""
    x, y = scenes.grid_positions(SHAPE, step=90)
    image = scenes.draw_stars(SHAPE, x, y, np.full(len(x), 3e4))
    for i, (dx, dy) in ((4, (3, 2)), (11, (-2, 3))):
        ix, iy = round(x[i]) + dx, round(y[i]) + dy
        image[iy, ix] += 700.0
        image[2 * round(y[i]) - iy, 2 * round(x[i]) - ix] += 700.0
    meta = meta_of(scenes.make_field(image))
    words = [near(meta, x[i], y[i]).reason for i in range(len(x))]
    assert {words[4], words[11]} <= {"outlier", "size", "neighbour"}
    assert words.count("") == len(x) - 2
    assert "outlier" in words


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_star_far_brighter_than_the_others_is_used(seed):
    """The first stamp has the wings' noise of the faint ones, 500 times the noise of the bright one's pixels."""
    x, y = scenes.grid_positions(SHAPE, step=150)
    flux = np.full(len(x), 2500.0)
    flux[5] = 8e5
    image = scenes.draw_stars(SHAPE, x, y, flux, fwhm=3.9)
    meta = meta_of(scenes.make_field(image, fwhm=3.9, seed=seed))
    bright = near(meta, x[5], y[5])
    assert bright.snr > 1000
    assert bright.reason == ""


def test_every_reason_has_a_colour_or_form_of_its_own():
    assert set(REASONS) <= set(REASON_SYMBOLS)
    looks = [(s.marker, s.color) for s in (REASON_SYMBOLS[r] for r in REASONS)]
    assert len(set(looks)) == len(REASONS)


def test_the_record_of_a_cell(star_result, tmp_path):
    parts = {name: tmp_path / name for name in ("epsf", "patches", "payloads", "fits", "overlay", "cropped")}
    work = WorkDir(root=tmp_path, final_catalog=tmp_path / "c.csv", name="t", **parts)
    write_band(star_result, work)
    record = json.loads((work.epsf_cell("m500", "r00_c00") / "meta.json").read_text())
    assert record["nstars_used"] == sum(c["used"] for c in record["candidates"]) > 20
    assert {c["reason"] for c in record["candidates"]} <= {"", *REASONS}
    assert all(c["used"] == (c["reason"] == "") for c in record["candidates"])
    assert "pixel response included" in record["convention"]
    assert "centred on the middle pixel" in record["convention"]
    quality = record["quality"]
    for name in ("ellipticity", "fwhm_pix", "ee50_pix", "ee80_pix", "residual_scatter", "relative_error"):
        assert np.isfinite(quality[name]), name
    assert 0 < quality["relative_error"] < 0.01
