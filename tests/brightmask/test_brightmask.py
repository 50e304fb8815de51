from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sep
from astropy.io import fits
from astropy.modeling.functional_models import Gaussian2D
from astropy.wcs import WCS
from photutils.aperture import EllipticalAperture
from scipy import ndimage

from tract7dt import brightmask
from tract7dt.brightmask import find_bright, flag_affected, read_bright_mask, write_bright_mask
from tract7dt.errors import ProductError
from tract7dt.settings import BrightMaskSettings
from tract7dt.types import Box, Field, Frame, Sources

SHAPE = (180, 220)
PLAIN = BrightMaskSettings(dilate_pix=0)


def star(x: float, y: float, flux: float, sx: float = 2.0, sy: float = 2.0, theta: float = 0.0) -> np.ndarray:
    py, px = np.indices(SHAPE)
    return Gaussian2D(flux / (2 * np.pi * sx * sy), x, y, sx, sy, theta)(px, py).astype("f4")


def make_field(signal: np.ndarray, saturation: float | None = 1e9, seed: int = 0) -> Field:
    rng = np.random.default_rng(seed)
    data = (signal + rng.normal(0, 1, SHAPE)).astype("f4")
    if saturation is not None:
        data = np.minimum(data, np.float32(saturation))
    frame = Frame("r", data, 1.0, 1.0, 1.0, 25.0, saturation, 4.7, "x")
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [-1e-4, 1e-4]
    box = Box(0, SHAPE[1], 0, SHAPE[0])
    return Field({"r": frame}, data, np.ones(SHAPE, "f4"), wcs, box, 0.5, None, 25.0)


def sources_at(
    *xy: tuple[float, float], saturated: tuple[int, ...] = (), off: tuple[int, ...] = ()
) -> Sources:
    at = np.array(xy, float).reshape(-1, 2)
    crop = np.isin(np.arange(len(at)), off)
    cut = np.isin(np.arange(len(at)), saturated)
    table = pd.DataFrame(
        {
            "x_pix_white": at[:, 0],
            "y_pix_white": at[:, 1],
            "excluded_crop": crop,
            "excluded_saturation": cut,
            "excluded_any": crop | cut,
            "affected_by_bright_mask": False,
        }
    )
    return Sources(table, has_id=False)


def test_only_unlisted_sources_are_masked() -> None:
    field = make_field(star(50, 60, 5e4) + star(150.3, 100.6, 5e4))
    found = find_bright(field, sources_at((20, 20), (51.5, 61.5)), PLAIN)
    table = found.detections.sort_values("x").reset_index(drop=True)
    assert table["matched"].tolist() == [True, False]
    assert table["source_index"].tolist() == [1, -1]
    assert table["x"].to_numpy() == pytest.approx([50, 150.3], abs=0.05)
    # SEP's rms of a sigma 2 Gaussian is 2 (slightly less: truncated at the threshold): a mask of 3 x that
    assert table["a"].to_numpy() == pytest.approx([2, 2], rel=0.1)
    assert found.mask.dtype == np.uint8
    py, px = np.indices(SHAPE)
    inside = np.hypot(px - 150.3, py - 100.6) < 5.5
    outside = np.hypot(px - 150.3, py - 100.6) > 7.0
    assert (found.mask[inside] == 1).all()
    assert not found.mask[outside].any()


def test_detections_equal_sep_alone() -> None:
    field = make_field(star(50, 60, 5e3) + star(60, 66, 3e3) + star(150, 100, 2e4, 6, 2, 0.5))
    found = find_bright(field, sources_at(), BrightMaskSettings()).detections
    expected = sep.extract(
        field.white, 5.0, err=field.white_sigma, minarea=20, deblend_nthresh=32, deblend_cont=0.005
    )
    for name in ("x", "y", "a", "b", "theta", "flux", "npix"):
        np.testing.assert_array_equal(found[name].to_numpy(), expected[name].astype(float))
    assert sep.get_extract_pixstack() == 300000  # the buffers of other users of SEP stay as they were


def test_strips_find_what_the_whole_frame_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    # Far enough from each other that none is a blend: SEP deals out the pixels between two objects at random.
    places = [(x, y) for x in range(12, 210, 28) for y in range(12, 175, 28)]
    shifts = rng.uniform(-4, 4, (len(places), 2))
    field = make_field(
        sum(star(x + dx, y + dy, 10 ** rng.uniform(2, 3.5)) for (x, y), (dx, dy) in zip(places, shifts))
    )
    whole = find_bright(field, sources_at(), PLAIN)
    # Seven strips of 25 rows; the largest isophote here ends within 12 pixels of its centre.
    monkeypatch.setattr(brightmask, "_STRIP_PIXELS", 65 * SHAPE[1])
    monkeypatch.setattr(brightmask, "_MARGIN_ROWS", 20)
    strips = find_bright(field, sources_at(), PLAIN)
    assert len(whole.detections) > 25
    order = ["y", "x"]
    one, other = (
        found.detections.drop(columns=["matched", "source_index"]).sort_values(order).to_numpy()
        for found in (whole, strips)
    )
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
    assert np.array_equal(strips.mask, whole.mask)


def test_ellipse_against_photutils_and_dilation_against_scipy() -> None:
    field = make_field(star(110, 90, 1e5, 9.0, 3.0, np.deg2rad(30)))
    found = find_bright(field, sources_at(), PLAIN)
    (row,) = found.detections.to_dict("records")
    assert np.rad2deg(row["theta"]) == pytest.approx(30, abs=0.5)
    aperture = EllipticalAperture(
        (row["x"], row["y"]), 3 * row["a"], max(3 * row["b"], 6.0), theta=row["theta"]
    )
    expected = aperture.to_mask(method="center").to_image(SHAPE) > 0
    np.testing.assert_array_equal(found.mask == 1, expected)
    dilated = find_bright(field, sources_at(), BrightMaskSettings(dilate_pix=2))
    np.testing.assert_array_equal(dilated.mask == 1, ndimage.binary_dilation(expected, iterations=2))


def test_smallest_radius_and_edges() -> None:
    field = make_field(star(1.0, 179.0, 2e3, 1.2, 1.2))
    found = find_bright(field, sources_at(), BrightMaskSettings(min_radius_pix=12, dilate_pix=0, minarea=5))
    (row,) = found.detections.to_dict("records")
    py, px = np.indices(SHAPE)
    np.testing.assert_array_equal(found.mask == 1, np.hypot(px - row["x"], py - row["y"]) <= 12)


def test_blank_pixels_hide_nothing_and_find_nothing() -> None:
    field = make_field(star(110, 90, 1e5))
    white = field.white.copy()
    white[80:84, :] = np.nan
    white[0, 0] = np.inf
    sigma = np.where(np.isfinite(white), 1, np.inf).astype("f4")
    blank = Field(field.frames, white, sigma, field.wcs, field.crop, 0.5, None, 25.0)
    found = find_bright(blank, sources_at(), PLAIN)
    assert len(found.detections) == 1
    assert found.detections["x"][0] == pytest.approx(110, abs=0.1)
    nowhere = np.full(SHAPE, np.nan, "f4")
    sigma = np.full(SHAPE, np.inf, "f4")
    nothing = Field(field.frames, nowhere, sigma, field.wcs, field.crop, 0.5, None, 25.0)
    assert len(find_bright(nothing, sources_at((1, 1)), PLAIN).detections) == 0


def test_read_only_memory_maps_are_taken(tmp_path: Path) -> None:
    field = make_field(star(110, 90, 1e5))
    np.save(tmp_path / "w.npy", field.white)
    white = np.load(tmp_path / "w.npy", mmap_mode="r")
    mapped = Field(field.frames, white, field.white_sigma, field.wcs, field.crop, 0.5, None, 25.0)
    assert len(find_bright(mapped, sources_at(), PLAIN).detections) == 1


def test_saturated_pixels_of_any_band_have_their_own_bit() -> None:
    field = make_field(star(50, 60, 1e6), saturation=3000.0)
    found = find_bright(field, sources_at((50, 60)), PLAIN)
    np.testing.assert_array_equal(found.mask == 2, field.frames["r"].data >= 3000.0)
    assert (found.mask == 2).sum() > 20


def test_a_listed_saturated_star_is_known_although_it_is_excluded() -> None:
    """Its centroid is 5 pixels off: a bleed trail of saturated pixels on one side."""
    signal = star(50, 60, 1e6)
    signal[59:62, 50:75] = 5000.0
    field = make_field(signal, saturation=3000.0)
    sources = sources_at((50, 60), (150, 100), saturated=(0,))
    found = find_bright(field, sources, PLAIN)
    assert np.hypot(found.detections["x"][0] - 50, found.detections["y"][0] - 60) > 3
    assert found.detections["source_index"].tolist() == [0]
    assert not (found.mask & 1).any()
    unlisted = find_bright(field, sources_at((150, 100)), PLAIN)
    assert unlisted.detections["source_index"].tolist() == [-1]
    assert (unlisted.mask & 1).any()


def test_a_neighbour_excluded_beside_an_unlisted_saturated_star_does_not_shield_it() -> None:
    field = make_field(star(50, 60, 1e6), saturation=3000.0)
    found = find_bright(field, sources_at((50, 71), saturated=(0,)), PLAIN)
    assert found.detections["source_index"].tolist() == [-1]
    assert found.mask[60, 50] == 3


def test_sources_off_the_frame_match_nothing() -> None:
    field = make_field(star(50, 60, 5e4))
    sources = sources_at((50, 60), (np.nan, np.nan), off=(0, 1))
    found = find_bright(field, sources, PLAIN)
    assert not found.detections["matched"].any()


def test_flag_affected_takes_active_sources_on_masked_pixels() -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[20, 30], mask[40, 50], mask[20, 31] = 1, 2, 3
    sources = sources_at(
        (29.5, 20.49), (29.49, 20), (50, 40), (31, 20), (30, 20), (np.nan, 1), (-0.5, 179.49),
        saturated=(4,), off=(5,),
    )  # fmt: skip
    flagged = flag_affected(sources, mask).table["affected_by_bright_mask"]
    assert flagged.tolist() == [True, False, False, True, False, False, False]
    assert flagged.dtype == bool
    assert not sources.table["affected_by_bright_mask"].any()


def test_files(tmp_path: Path) -> None:
    field = make_field(star(50, 60, 1e6) + star(150, 100, 5e4), saturation=3000.0)
    found = find_bright(field, sources_at((50, 60)), PLAIN)
    path = tmp_path / "sub" / "white_bright_mask.fits"
    write_bright_mask(found, field, path)
    first = path.read_bytes()
    back = read_bright_mask(path)
    np.testing.assert_array_equal(back, found.mask)
    assert back.dtype == np.uint8
    with fits.open(path) as hdus:
        assert hdus[0].header["CTYPE1"] == "RA---TAN"
        assert hdus["DETECTIONS"].data["matched"].tolist() == found.detections["matched"].tolist()
    write_bright_mask(found, field, path)
    assert path.read_bytes() == first
    path.write_bytes(first[:9000])
    with pytest.raises(ProductError, match="damaged"):
        read_bright_mask(path)
    with pytest.raises(ProductError, match="missing"):
        read_bright_mask(tmp_path / "none.fits")
    fits.PrimaryHDU(np.zeros((3, 3), "f4")).writeto(tmp_path / "float.fits")
    with pytest.raises(ProductError, match="expected a uint8 image"):
        read_bright_mask(tmp_path / "float.fits")


def test_the_real_field(shared: Path) -> None:
    """With the catalogue, few bright detections are left over; without it, all are."""
    folder = shared / "data" / "sdss_s82_small"
    with fits.open(folder / "images" / "sdss_s82_rA.fits.gz") as hdus:
        header, data = hdus[0].header, hdus[0].data.astype("f4")
    frame = Frame("rA", data, 1.0, 1.0, 1.0, 25.0, None, 3.0, "x")
    sigma = np.full(data.shape, header["SKYSIG"], "f4")
    wcs = WCS(header)
    field = Field({"rA": frame}, data, sigma, wcs, Box(0, 600, 0, 600), 0.396, None, 25.0)
    catalogue = pd.read_csv(folder / "input_catalog.csv")
    x, y = wcs.all_world2pix(catalogue["RA"], catalogue["DEC"], 0)
    found = find_bright(field, sources_at(*zip(x, y)), BrightMaskSettings())
    matched = found.detections["matched"]
    bright = found.detections["flux"] > np.quantile(found.detections["flux"], 0.5)
    assert len(found.detections) >= 15
    assert matched[bright].mean() > 0.8
    empty = find_bright(field, sources_at(), BrightMaskSettings())
    assert not empty.detections["matched"].any()
    assert (empty.mask & 1).sum() > 3 * (found.mask & 1).sum()
