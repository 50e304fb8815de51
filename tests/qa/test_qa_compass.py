"""North, east, scale and position, against astropy's own coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from qa_inputs import make_wcs

from tract7dt.qa.compass import angle_label, scale_bar_arcsec, sky_geometry
from tract7dt.qa.raster import Sheet
from tract7dt.qa.raster_sky import draw_compass, draw_scale_bar

CASES = {
    "plain": make_wcs(),
    "rotated": make_wcs(rotation=37.0),
    "flipped": make_wcs(rotation=-80.0, flip=True),
    "swapped": make_wcs(rotation=20.0, swapped=True),
    "swapped and flipped": make_wcs(rotation=200.0, swapped=True, flip=True),
    "at zero": make_wcs(crval=(0.0, 10.0)),
    "far north": make_wcs(crval=(12.0, 89.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_directions_and_scale(name):
    wcs = CASES[name]
    x, y = 55.0, 61.0
    sky = sky_geometry(wcs, x, y)
    assert sky is not None
    here = wcs.pixel_to_world(x, y)
    for angle, vector in ((0.0, sky.north), (90.0, sky.east)):
        there = here.directional_offset_by(angle * u.deg, 1.0 * u.arcsec)
        dx, dy = (float(v) - w for v, w in zip(wcs.world_to_pixel(there), (x, y)))
        np.testing.assert_allclose(vector, np.array([dx, dy]) / np.hypot(dx, dy), atol=1e-4)
    assert sky.names == ("N", "E")
    assert sky.pixel_scale_arcsec == pytest.approx(0.5, rel=1e-4)
    text = sky.centre
    for letter, sign in (("ʰ", "h"), ("ᵐ", "m"), ("ˢ", "s"), ("°", "d"), ("′", "m"), ("″", "s"), ("−", "-")):
        text = text.replace(letter, sign)
    assert SkyCoord(text).separation(here).arcsec < 1.1


def test_the_real_field(bundled_field):
    from astropy.io import fits

    wcs = WCS(fits.getheader(bundled_field / "images" / "sdss_s82_rA.fits.gz"))
    sky = sky_geometry(wcs, 300, 300)
    assert sky is not None
    assert sky.pixel_scale_arcsec == pytest.approx(0.396, abs=0.001)


@pytest.mark.parametrize("text", [(0.0, -0.0001), (359.99999999, -12.5), (15.0, 89.9999)])
def test_position_never_shows_sixty(text):
    wcs = make_wcs(crval=text)
    sky = sky_geometry(wcs, 59.5, 39.5)
    assert sky is None or "60" not in sky.centre.replace("60°", "")


def test_no_geometry_where_there_is_none():
    linear = WCS(naxis=2)
    cube = WCS(naxis=3)
    cube.wcs.ctype = ["RA---TAN", "DEC--TAN", "FREQ"]
    singular = make_wcs()
    singular.wcs.cd = [[1e-4, 1e-4], [1e-4, 1e-4]]
    nan = make_wcs(crval=(np.nan, np.nan))
    pole = make_wcs(crval=(10.0, 90.0))
    for wcs, place in (
        *((wcs, (0, 0)) for wcs in (None, linear, cube, singular, nan)),
        (pole, (59.5, 39.5)),
    ):
        assert sky_geometry(wcs, *place) is None


def test_another_system_is_named_as_it_is():
    wcs = make_wcs()
    wcs.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
    sky = sky_geometry(wcs, 60, 40)
    assert sky is not None
    assert sky.names == ("GLAT", "GLON")


def test_scale_bar_is_round_and_fits():
    for width in (0.3, 7.0, 44.0, 100.0, 4000.0, 1e6):
        length = scale_bar_arcsec(width)
        assert length <= width
        assert length > width / 3 or width > 1e5
    assert scale_bar_arcsec(0.01) == 0.1
    assert [angle_label(a) for a in (0.5, 30, 60, 600, 3600)] == ["0.5″", "30″", "1′", "10′", "1°"]


def test_scale_bar_has_its_length():
    sky = sky_geometry(make_wcs(), 60, 40)
    assert sky is not None
    sheet = Sheet.blank(200, 60, "#000000")
    draw_scale_bar(sheet, sky, 0.0, 150.0, 30.0, 3.0, 90.0, 10)
    # 90 pixels of the picture are 30 of the frame, 15 arcsec: 10 arcsec fit, which are 20 pixels, 60.
    (x0, row), (x1, _) = sheet.marks["scale bar"]
    assert x1 - x0 == pytest.approx(60.0, rel=1e-4)
    bright = np.flatnonzero(sheet.rgb()[int(row), :, 0] > 200)
    assert (bright[0], bright[-1] + 1) == (90, 150)
    assert sheet.texts == ["10″"]


def test_no_scale_bar_where_there_is_no_room():
    sky = sky_geometry(make_wcs(), 60, 40)
    assert sky is not None
    sheet = Sheet.blank(200, 60, "#000000")
    draw_scale_bar(sheet, sky, 120.0, 150.0, 30.0, 3.0, 90.0, 10)
    assert not sheet.texts
    assert not sheet.rgb().any()


@pytest.mark.parametrize("flip", [False, True])
def test_arrows_point_north_and_east(flip):
    """North is up; east to the left, mirrored to the right: there the picture is bright and beyond it is not."""
    sky = sky_geometry(make_wcs(flip=flip), 60, 40)
    assert sky is not None
    sheet = Sheet.blank(101, 101, "#000000")
    draw_compass(sheet, sky, 50.0, 50.0, 10)
    assert sheet.texts == ["N", "E"]
    rows, columns = np.nonzero(sheet.rgb()[:, :, 0] > 200)
    corner_x, corner_y = np.bincount(columns).argmax(), np.bincount(rows).argmax()
    assert corner_y > 50, "the arrows meet below the middle: north is up"
    assert (corner_x > 50) is not flip, "and right of the middle: east is to the left"
