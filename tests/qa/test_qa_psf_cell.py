"""The set of pictures of a PSF cell: the switches, what is shown, and that the numbers in them are right."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from qa_inputs import make_wcs, read_png

from tract7dt.psf.diagnosis import STEP, diagnose
from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.psf_background import background_map, background_sheet, star_background_sheet
from tract7dt.qa.psf_cell import draw_cell_diagnostics
from tract7dt.qa.psf_montage import montage_sheet
from tract7dt.qa.psf_residual import fit_stars, growth_sheet, residual_sheet
from tract7dt.settings import EpsfSettings
from tract7dt.types import Box, Epsf, Frame, PsfDiagnosis

NAMES = {
    "save_patch_background_diagnostics": {"background_diagnostics.png"},
    "save_star_local_background_diagnostics": {"star_local_background_diagnostics.png"},
    "save_growth_curve": {"epsf_growth_curve.png"},
    "save_residual_diagnostics": {"epsf_residual_diagnostics.png"},
}
MONTAGES = {"extracted_stars.png", "used_stars.png"}


@dataclasses.dataclass
class Star:
    x: float
    y: float
    snr: float
    used: bool
    reason: str = ""


STARS = [
    Star(40.3, 50.2, 900.0, True), Star(100.0, 39.6, 300.0, True), Star(70.4, 100.0, 50.0, False, "outlier"),
    Star(20.0, 120.0, 5.0, False, "snr"),
]  # fmt: skip


def profile(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gaussian of sigma 2 pix, unit sum."""
    return np.exp(-(x**2 + y**2) / 8) / (8 * np.pi)


@pytest.fixture
def frame() -> Frame:
    """A slope of eight counts over 150 pixels, noise of one count, three stars."""
    rng = np.random.default_rng(8)
    yy, xx = np.indices((150, 150)).astype(float)
    image = 200 + 0.05 * xx + rng.normal(0, 1, xx.shape)
    for star, flux in zip(STARS[:3], (20000, 6000, 1000), strict=True):
        image += flux * profile(xx - star.x, yy - star.y)
    image[38:42, 110:113] = np.nan
    return Frame("m500", image.astype(np.float32), 1.0, 1e9, 1.0, 25.0, None, 4.7, "m500.fits")


@pytest.fixture
def settings() -> EpsfSettings:
    return EpsfSettings(
        cutout_size=41, final_psf_size=31, background_boxsize=32, background_filtersize=3, epsf_ngrid=1,
        star_local_bkg_annulus_rin_pix=13.0, star_local_bkg_annulus_rout_pix=19.0,
    )  # fmt: skip


@pytest.fixture
def found(frame, settings) -> PsfDiagnosis:
    return diagnose(frame, Box(0, 150, 0, 150), STARS, settings)


@pytest.fixture
def epsf() -> Epsf:
    y, x = np.indices((31, 31)) - 15.0
    return Epsf(profile(x, y).astype(np.float32), 2, "epsf", {"fwhm_pix": 4.71})


def test_a_diagnosis_holds_the_stars_of_the_stack_and_their_sky(found):
    assert found.used.tolist() == [True, True, False]
    assert found.reason == ("", "", "outlier")
    assert found.data.shape == (3, 41, 41)
    assert np.isnan(found.data[1]).sum() == 12, "pixels without data"
    assert not found.good[1][np.isnan(found.data[1])].any()
    assert np.abs(found.sky).max() < 0.5, "the map took the slope away: little is left of its 8 counts"
    assert found.data[0].sum() == pytest.approx(20000, rel=0.1)


def test_the_background_map_is_the_slope(found):
    shown = background_map(found, (150, 150), 1)
    xx = np.indices((150, 150))[1]
    assert np.abs(shown - (200 + 0.05 * xx))[20:-20, 20:-20].max() < 1.5
    coarse = background_map(found, (50, 50), 3)
    np.testing.assert_allclose(coarse, shown.reshape(50, 3, 50, 3).mean(axis=(1, 3)), atol=0.2)
    assert found.background.shape == (-(-150 // STEP),) * 2


def test_pulls_have_unit_width_and_fluxes_come_back(found, epsf):
    fits = fit_stars(epsf, found, 100)
    assert len(fits.stars) == 2, "the outlier is no star of the stack"
    assert fits.pulls.std() == pytest.approx(1.0, abs=0.12)  # 2 x 430 pixels: 0.024; the map's rest
    assert np.nanmax(np.abs(fits.left[0])) < 0.02 * float(epsf.stamp.max()) * 5
    middle = fits.stars[0][15, 15] / float(epsf.stamp.max())
    assert middle == pytest.approx(1.0, abs=0.03), "moved to the middle of a pixel, over its flux"
    assert len(fit_stars(epsf, found, 1).stars) == 1
    assert fit_stars(epsf, found, 0).pulls.size == 0


def test_a_wrong_psf_shows(found, epsf):
    y, x = np.indices((31, 31)) - 15.0
    wide = np.exp(-(x**2 + y**2) / 12.5)
    wrong = dataclasses.replace(epsf, stamp=(wide / wide.sum()).astype(np.float32))
    right, left = (fit_stars(each, found, 100) for each in (epsf, wrong))
    assert left.pulls.std() > 3 * right.pulls.std()
    assert left.left[0][15, 15] > 0.1 * float(wrong.stamp.max()), (
        "the star is sharper: too bright in the middle"
    )


@pytest.mark.parametrize("switch", [None, *NAMES, "save_star_montage_max"])
def test_switches(tmp_path, found, epsf, settings, frame, switch):
    off = dict.fromkeys(NAMES, False) | {"save_star_montage_max": 0}
    wanted = MONTAGES if switch == "save_star_montage_max" else NAMES.get(switch or "", set())
    if switch is not None:
        off[switch] = 100 if switch == "save_star_montage_max" else True
    for name in set().union(*NAMES.values(), MONTAGES):
        (tmp_path / name).write_bytes(b"of an earlier run")
    draw_cell_diagnostics(
        settings.model_copy(update=off), tmp_path, frame.data, Box(0, 150, 0, 150), epsf, found,
        band="m500", cell="r00_c00", dpi=90,
    )  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == wanted
    for path in tmp_path.iterdir():
        png = read_png(path)
        assert png.dpi == pytest.approx(90, abs=0.1)
        assert png.pixels.std() > 5
        assert png.bytes < 200_000
    assert settings.model_copy(update=off).wants_diagnoses is (switch is not None)


def test_pictures_say_what_they_show(found, epsf, frame):
    box = Box(0, 150, 0, 150)
    names = {"band": "m500", "cell": "r00_c00"}
    sheet = background_sheet(frame.data, box, found, **names, color_bar=True)
    assert {"as it is", "background map", "map subtracted", "x [pix]", "y [pix]"} <= set(sheet.texts)
    assert len(sheet.texts) > len(background_sheet(frame.data, box, found, **names, color_bar=False).texts)
    sheet = star_background_sheet(found, (13.0, 19.0), **names, color_bar=True)
    assert len(sheet.marks["star"]) == 2
    assert "S/N 900" in sheet.texts
    assert any("annulus 13 to 19 pix" in text for text in sheet.texts)
    sheet = montage_sheet(found, used_only=False, most=100, **names)
    assert [len(sheet.marks[name]) for name in ("used", "outlier")] == [2, 1]
    assert "S/N 50, outlier" in sheet.texts
    assert any(
        "3 stars, the brightest 2 shown" in t
        for t in montage_sheet(found, used_only=False, most=2, **names).texts
    )
    sheet = montage_sheet(found, used_only=True, most=100, **names)
    assert set(sheet.marks) == {"used"}
    sheet = residual_sheet(epsf, fit_stars(epsf, found, 100), **names)
    assert any(text.startswith("2 stars") for text in sheet.texts)
    assert {"median star", "PSF", "(star − PSF) / σ"} <= set(sheet.texts)
    sheet = growth_sheet(epsf, fit_stars(epsf, found, 100), **names)
    # a Gaussian holds half of its light within sigma sqrt(2 ln 2): 2.35 pix
    (words,) = [text for text in sheet.texts if "50% within" in text]
    assert float(words.split("50% within ")[1].split()[0]) == pytest.approx(2.35, abs=0.15)


def test_pictures_with_pixels_of_the_sky_have_compass_and_scale_bar(found, frame):
    """Bars of a round length: 0.5 arcsec a pixel, as large as each picture shows a pixel."""
    sky = sky_geometry(make_wcs(), 75.0, 75.0)
    names = {"band": "m500", "cell": "r00_c00", "sky": sky}
    box = Box(0, 150, 0, 150)
    sheets = (
        (background_sheet(frame.data, box, found, **names, color_bar=True), 2.0),
        (star_background_sheet(found, (13.0, 19.0), **names, color_bar=True), 1.0),
        (montage_sheet(found, used_only=True, most=100, **names), 3.0),
    )
    for sheet, zoom in sheets:
        assert {"N", "E"} <= set(sheet.texts)
        (x0, _), (x1, _) = sheet.marks["scale bar"]
        (words,) = [text for text in sheet.texts if text.endswith("″")]
        assert x1 - x0 == pytest.approx(float(words[:-1]) / 0.5 * zoom, rel=0.01), words


def test_a_cell_without_stars_is_drawn(tmp_path, epsf, settings, frame):
    none = diagnose(frame, Box(0, 150, 0, 150), [], settings)
    for name, stamp in (("borrowed", epsf), ("absent", None)):
        draw_cell_diagnostics(
            settings, tmp_path / name, frame.data, Box(0, 150, 0, 150), stamp, none,
            band="m500", cell="r00_c00", dpi=90,
        )  # fmt: skip
    drawn = set().union(*NAMES.values(), MONTAGES)
    assert {path.name for path in (tmp_path / "borrowed").iterdir()} == drawn
    assert drawn - {path.name for path in (tmp_path / "absent").iterdir()} == {
        "epsf_growth_curve.png",
        "epsf_residual_diagnostics.png",
    }
