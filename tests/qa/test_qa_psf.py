"""Pictures of the PSF: they say and show what they should, survive anything, and keep legends in their place."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from qa_inputs import make_wcs, read_png

from tract7dt import qa
from tract7dt.qa.plot_panel import PlotPanel
from tract7dt.qa.psf import epsf_sheet
from tract7dt.qa.psf_stars import psf_stars_page
from tract7dt.qa.raster import Sheet
from tract7dt.types import Box, Epsf

DPI = 60


def moffat(k: int = 51) -> np.ndarray:
    """alpha 4 pix, beta 3, unit sum."""
    y, x = np.indices((k, k)) - k // 2
    stamp = (1 + (x**2 + y**2) / 16.0) ** -3
    return (stamp / stamp.sum()).astype(np.float32)


def check(path) -> None:
    png = read_png(path)
    assert png.dpi == pytest.approx(DPI, abs=0.1)
    assert 3.0 * DPI < png.width < 16 * DPI
    assert 1.2 * DPI < png.height < 16 * DPI
    assert png.pixels.std() > 5, "nothing was drawn"
    assert [p.name for p in path.parent.iterdir()] == [path.name], "a temporary file was left"


def counts(sheet) -> dict[str, int]:
    """``text -> N`` of the legend."""
    found = [text.split(" (N=") for text in sheet.texts if " (N=" in text]
    return {label: int(rest.rstrip(")")) for label, rest in found}


def stars_page(shape, candidates, wcs=None, dpi=DPI, x0=0, y0=0):
    image = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    box = Box(x0, x0 + shape[1], y0, y0 + shape[0])
    return psf_stars_page(image, box, candidates, band="m400", cell="r00_c01", wcs=wcs, dpi=dpi)


def test_epsf_says_what_it_is(tmp_path):
    quality = {"ellipticity": 0.031, "fwhm_pix": 4.2, "relative_error": 0.004, "model_error": 0.0012}
    epsf = Epsf(moffat(), 23, "borrowed", quality | {"borrowed_from": "r00_c01"})
    texts = "\n".join(epsf_sheet(epsf, {"band": "m525", "cell": "r03_c04"}, dpi=DPI).texts)
    for text in (
        "m525   r03_c04",
        "borrowed from r00_c01",
        "23 stars",
        "FWHM 4.20 pix",
        "ellipticity 0.031",
        "flux error 0.12 %",
        "encircled energy",
        "x − centre [pix]",
    ):
        assert text in texts
    measured = epsf_sheet(Epsf(moffat(), 0, "moffat"), {}, dpi=DPI).texts
    assert any("FWHM 4.10 pix" in text for text in measured), "8 sqrt(2^(1/3) - 1) = 4.08"
    qa.plot_epsf(epsf, {"band": "m525"}, tmp_path / "e.png", dpi=DPI)
    check(tmp_path / "e.png")


@pytest.mark.parametrize(
    "stamp",
    [
        np.full((25, 25), np.nan), np.zeros((25, 25)), -np.ones((25, 25)), np.ones((1, 1)), np.eye(25),
        np.where(np.eye(25) > 0, np.nan, moffat(25)), np.full((3, 3), np.inf), np.ones((25, 25)), moffat(501),
    ],
    ids=["nan", "zero", "negative", "one", "diagonal", "holes", "inf", "flat", "large"],
)  # fmt: skip
def test_epsf_survives(tmp_path, stamp):
    qa.plot_epsf(Epsf(stamp.astype(np.float32), 0, "epsf"), {"n_stars": None}, tmp_path / "e.png", dpi=300)
    png = read_png(tmp_path / "e.png")
    assert png.pixels.std() > 5
    assert png.width < 2000


def test_the_stamp_is_drawn_the_right_way_up():
    """What lies at +x, +y of the centre is right of and above it."""
    stamp = moffat(25)
    stamp[18, 16] = stamp.max()
    sheet = epsf_sheet(Epsf(stamp, 5, "epsf"), {}, dpi=DPI)
    zoom = round(200 / 25)
    at = sheet.rgb()[80 + (24 - 18) * zoom + 3, 56 + 16 * zoom + 3].astype(int)
    mirrored = sheet.rgb()[80 + 18 * zoom + 3, 56 + 16 * zoom + 3].astype(int)
    assert at.sum() > mirrored.sum() + 200


def test_a_curve_goes_through_its_points_and_breaks_where_there_are_none():
    sheet = Sheet.blank(120, 120)
    panel = PlotPanel(sheet, 10, 10, 101, 101, (0.0, 10.0), (0.0, 10.0))
    panel.curve(np.array([0.0, 4.0, np.nan, 6.0, 10.0]), np.array([0.0, 4.0, 5.0, 6.0, 10.0]), "#000000")
    dark = sheet.rgb().sum(axis=2) < 300
    assert dark[110 - 20, 10 + 20]
    assert dark[110 - 80, 10 + 80]
    assert not dark[60 - 4 : 60 + 5, 60 - 4 : 60 + 5].any(), "between (4, 4) and (6, 6)"
    assert not dark[110 - 80 :, 10 + 80].all()


def test_psf_stars_by_reason(tmp_path):
    reasons = ["saturated", "edge", "edge", "novel", "another_new", "", None]
    candidates = [
        {"x": 1010.0 + i, "y": 2010.0, "origin": "sep", "used": False, "reason": r}
        for i, r in enumerate(reasons)
    ]
    for i in range(4):
        reason = "" if i < 3 else "max_stars"
        candidates.append({"x": 1050.0, "y": 2040.0 + i, "origin": "gaia", "used": i < 3, "reason": reason})
    sheet = stars_page((80, 120), candidates, make_wcs(), x0=1000, y0=2000).sheet
    assert counts(sheet) == {
        "used": 3, "Gaia star": 4, "saturated": 1, "edge": 2, "novel": 1, "another new": 1, "not used": 2,
        "good, not needed": 1,
    }  # fmt: skip
    zoom = 275 // 120
    assert len(sheet.marks["used"]) == 3
    assert len(sheet.marks["gaia"]) == 4
    ((x, y),) = sheet.marks["saturated"]
    assert (x, y) == pytest.approx((10.5 * zoom - 0.5, (80 - 10.5) * zoom - 0.5))
    qa.plot_psf_stars(
        np.ones((80, 120)), Box(1000, 1120, 2000, 2080), candidates, tmp_path / "s.png", dpi=DPI
    )
    check(tmp_path / "s.png")


@pytest.mark.parametrize(
    ("shape", "fill", "wcs"),
    [
        ((1, 1), np.nan, None),
        ((3, 400), 0.0, make_wcs(swapped=True)),
        ((400, 3), np.inf, WCS(naxis=2)),
        ((50, 50), np.nan, make_wcs(crval=(10.0, 90.0))),
    ],
    ids=["one pixel", "flat", "tall", "empty"],
)
def test_psf_stars_survive(tmp_path, shape, fill, wcs):
    image = np.full(shape, fill, np.float32)
    candidate = {"x": np.nan, "y": 0.0, "origin": "sep", "used": False, "reason": "snr"}
    for name, rows in (("none", []), ("nowhere", [candidate])):
        path = tmp_path / name / "p.png"
        qa.plot_psf_stars(image, Box(0, shape[1], 0, shape[0]), rows, path, wcs=wcs, dpi=DPI)
        check(path)


@pytest.mark.parametrize("wcs", [None, make_wcs(rotation=45)], ids=["no WCS", "WCS"])
@pytest.mark.parametrize("shape", [(80, 120), (400, 10), (10, 400), (900, 900)])
def test_the_legend_fits(wcs, shape):
    reasons = [
        "saturated",
        "edge",
        "snr",
        "roundness",
        "size",
        "neighbour",
        "min_sep",
        "max_stars",
        "outlier",
    ]
    rows = [{"x": 1, "y": 1, "origin": "sep", "used": False, "reason": r} for r in reasons]
    page = stars_page(shape, rows, wcs, dpi=300 if shape[0] == 900 else DPI)
    assert len(page.sheet.marks["legend"]) == len(reasons) + 2
    end, room = page.legend
    assert end <= room
    bar = page.sheet.marks.get("scale bar")
    assert bar is None or end < bar[0][0]
    assert max(x for x, _ in page.sheet.marks["legend"]) < end
    assert max(y for _, y in page.sheet.marks["legend"]) < page.sheet.pixels.shape[0] - 5
