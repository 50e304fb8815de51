"""Rows about images and the list of them."""

from __future__ import annotations

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from badinput_field import BANDS, SIDE, STARS, TinyField, image_header, pixels
from badinput_rows import Changes, Row, catalogue_of, row

IMAGES = "Images"


def rewrite(tiny: TinyField, number: int, data: np.ndarray | None, header: fits.Header) -> None:
    fits.PrimaryHDU(data, header).writeto(tiny.image(number), overwrite=True)


def with_cards(tiny: TinyField, number: int, **cards: object) -> None:
    header = image_header(BANDS[number])
    header.update(cards)
    rewrite(tiny, number, pixels(number), header)


def with_wcs(tiny: TinyField, **cards: object) -> None:
    """Give all images another WCS, and the catalogue the positions that go with it."""
    for number in range(len(BANDS)):
        with_cards(tiny, number, **cards)
    wcs = WCS(fits.getheader(tiny.image()))
    rows = tiny.rows()
    for line, (x, y, _) in zip(rows[1:], STARS):
        line[1:3] = [f"{float(value):.8f}" for value in wcs.all_pix2world(x, y, 0)]
    tiny.write_rows(rows)


def assert_measured(tiny: TinyField, bands: tuple[str, ...] = BANDS) -> None:
    """Every row is there, and every star has its flux and place."""
    table = catalogue_of(tiny)
    assert table["ID"].tolist() == [line[0] for line in tiny.rows()[1:]]
    for line, (x, y, flux) in zip(table.itertuples(), STARS):
        assert abs(float(line.x_pix_white_fit) - x) < 0.1
        assert abs(float(line.y_pix_white_fit) - y) < 0.1
        for band in bands:
            assert abs(float(getattr(line, f"FLUX_{band}_fit")) / flux - 1) < 0.1


@row(
    IMAGES,
    "A FITS file that was cut off",
    "the run ends before anything is written",
    "truncated, expected … bytes of pixels, found …",
    1,
)
def truncated(tiny: TinyField) -> None:
    tiny.image(1).write_bytes(tiny.image(1).read_bytes()[:20000])


@row(
    IMAGES,
    "A gzipped FITS file that was cut off",
    "the run ends",
    "not a readable FITS image (Compressed file ended before the end-of-stream marker was reached)",
    1,
)
def truncated_gzip(tiny: TinyField) -> None:
    import gzip

    packed = gzip.compress(tiny.image(1).read_bytes(), mtime=0)
    tiny.image(1).write_bytes(packed[: len(packed) // 2])


@row(IMAGES, "A file that is no FITS", "the run ends", "expected a FITS file, whose first word is SIMPLE", 1)
def no_fits(tiny: TinyField) -> None:
    tiny.image().write_text("<html>404</html>")


@row(IMAGES, "An empty file", "the run ends", "expected a FITS file, whose first word is SIMPLE", 1)
def empty_file(tiny: TinyField) -> None:
    tiny.image().write_bytes(b"")


@row(
    IMAGES,
    "A FITS file without data",
    "the run ends",
    "expected an image in the primary HDU or the first extension, found none",
    1,
)
def no_data(tiny: TinyField) -> None:
    rewrite(tiny, 0, None, image_header(BANDS[0]))


@row(
    IMAGES,
    "A table where the image should be",
    "the run ends",
    "expected an image in the first extension, found BINTABLE",
    1,
)
def wrong_hdu(tiny: TinyField) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1, 2])])
    fits.HDUList([fits.PrimaryHDU(), table, fits.ImageHDU(pixels(0), image_header(BANDS[0]))]).writeto(
        tiny.image(), overwrite=True
    )


@row(IMAGES, "Data of three dimensions", "the run ends", "expected a 2-D image, found NAXIS 96 x 96 x 2", 1)
def cube(tiny: TinyField) -> None:
    rewrite(tiny, 0, np.stack([pixels(0), pixels(1)]), image_header(BANDS[0]))


@row(
    IMAGES,
    "A band of NaN alone",
    "the other bands are fitted; the band's columns are empty",
    "m450: no finite pixel in the working frame of …",
    0,
)
def all_nan(tiny: TinyField) -> None:
    rewrite(tiny, 0, np.full((SIDE, SIDE), np.nan, np.float32), image_header(BANDS[0]))


@all_nan.checked
def nan_band_is_empty(tiny: TinyField) -> None:
    assert_measured(tiny, BANDS[1:])
    assert set(catalogue_of(tiny)["FLUX_m450_fit"]) == {""}


@row(
    IMAGES,
    "A band of one value",
    "kept, as it could be right; its fluxes are those of an image without sources",
    "m450: every finite pixel in the working frame of … has the value 0",
    0,
)
def constant(tiny: TinyField) -> None:
    rewrite(tiny, 0, np.zeros((SIDE, SIDE), np.float32), image_header(BANDS[0]))


@constant.checked
def other_band_is_measured(tiny: TinyField) -> None:
    assert_measured(tiny, BANDS[1:])
    for text in catalogue_of(tiny)["FLUX_m450_fit"]:
        assert abs(float(text)) < 100


@row(
    IMAGES,
    "SKYSIG negative, EGAIN zero",
    "the run ends, naming both",
    "SKYSIG = -2.0: expected a number above 0 … EGAIN = 0: expected a number above 0",
    1,
)
def bad_noise(tiny: TinyField) -> None:
    with_cards(tiny, 0, SKYSIG=-2.0)
    with_cards(tiny, 1, EGAIN=0)


@row(
    IMAGES,
    "SKYSIG a thousandth of what the pixels scatter by",
    "fitted by it, as it could be meant; the log doubts it",
    "m650: SKYSIG = 0.002 in …, but its pixels scatter by … m650: by SKYSIG * EGAIN = 0.002 * 2 the sky in …",
    0,
)
def small_sky_sigma(tiny: TinyField) -> None:
    with_cards(tiny, 1, SKYSIG=0.002)


@row(
    IMAGES,
    "A pixel of 1e30",
    "fitted, and saturated where SATURATE says so; the log says that fluxes may be wrong",
    "m650: a pixel of … is 1e+30, which no count of light is",
    0,
)
def pixel_beyond_counts(tiny: TinyField) -> None:
    data = pixels(1)
    data[5, 90] = 1e30
    rewrite(tiny, 1, data, image_header(BANDS[1]))


@row(
    IMAGES,
    "PEEING of a million pixels",
    "not used; the width is taken from the stars",
    "PEEING = 1000000.0 is a FWHM of 1e+06 pixels, expected 0.3 to 100; it is not used",
    0,
)
def wide_seeing(tiny: TinyField) -> None:
    with_cards(tiny, 1, PEEING=1e6)


wide_seeing.checked(assert_measured)


@row(IMAGES, "ZP_AUTO = 1e5", "the run ends", "ZP_AUTO = 100000: expected a magnitude from -25 to 75", 1)
def large_zero_point(tiny: TinyField) -> None:
    with_cards(tiny, 1, ZP_AUTO=1e5)


@row(
    IMAGES,
    "SATURATE at or below the sky",
    "sources near pixels above it (here all) are excluded, and say so",
    "m450: … % of the pixels in the working frame of … count as saturated; is SATURATE = 0.001 right?",
    0,
)
def low_saturate(tiny: TinyField) -> None:
    with_cards(tiny, 0, SATURATE=0.001)


@low_saturate.checked
def all_are_saturated(tiny: TinyField) -> None:
    table = catalogue_of(tiny)
    assert table["excluded_reason"].tolist() == ["saturation"] * len(STARS)
    assert set(table["fit_is_reliable"]) == {"False"}
    assert set(table["FLUX_m450_fit"]) == {""}


@row(IMAGES, "ZP_AUTO is NaN", "the run ends", "ZP_AUTO = 'NaN': expected a finite number", 1)
def nan_zero_point(tiny: TinyField) -> None:
    with_cards(tiny, 1, ZP_AUTO="NaN")


@row(
    IMAGES,
    "A header card that is no FITS",
    "the run ends",
    "SKYSIG = '(a card that is no FITS)': expected",
    1,
)
def broken_card(tiny: TinyField) -> None:
    data = tiny.image().read_bytes()
    place = data.index(b"SKYSIG  =")
    tiny.image().write_bytes(data[: place + 10] + b"2.0 e+ 1 ADU'".ljust(70) + data[place + 80 :])


@row(
    IMAGES,
    "A WCS with an empty row in its matrix",
    "the run ends",
    "expected a WCS matrix (CD, or PC and CDELT) that can be inverted",
    1,
)
def singular_wcs(tiny: TinyField) -> None:
    for number in range(len(BANDS)):
        with_cards(tiny, number, CD2_2=0.0)


@row(
    IMAGES,
    "A WCS whose matrix is singular",
    "the run ends",
    "expected a WCS matrix (CD, or PC and CDELT) that can be inverted",
    1,
)
def degenerate_wcs(tiny: TinyField) -> None:
    for number in range(len(BANDS)):
        with_cards(tiny, number, CD1_1=1e-4, CD1_2=1e-4, CD2_1=1e-4, CD2_2=1e-4)


@row(
    IMAGES,
    "A WCS of galactic coordinates, or none",
    "the run ends",
    "expected a celestial WCS (CTYPE RA---xxx, DEC--xxx), found GLON-TAN, GLAT-TAN",
    1,
)
def galactic(tiny: TinyField) -> None:
    with_cards(tiny, 0, CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN")


@row(
    IMAGES,
    "SIP distortion",
    "fitted; pixel and sky positions agree to 1e-9 deg",
    "5 sources, 5 active, 2 bands",
    0,
)
def sip(tiny: TinyField) -> None:
    with_wcs(tiny, CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", A_ORDER=2, B_ORDER=2,
             A_2_0=3e-5, A_1_1=-2e-5, B_0_2=4e-5, B_1_1=1e-5)  # fmt: skip


@row(
    IMAGES,
    "TPV distortion",
    "fitted; pixel and sky positions agree to 1e-9 deg",
    "5 sources, 5 active, 2 bands",
    0,
)
def tpv(tiny: TinyField) -> None:
    with_wcs(tiny, CTYPE1="RA---TPV", CTYPE2="DEC--TPV", PV1_1=1.0003, PV1_4=0.02, PV2_1=0.9998, PV2_4=-0.03)


@row(
    IMAGES,
    "A rotated WCS",
    "fitted; pixel and sky positions agree to 1e-9 deg",
    "5 sources, 5 active, 2 bands",
    0,
)
def rotated(tiny: TinyField) -> None:
    step, turn = 0.505 / 3600, np.radians(37.0)
    with_wcs(tiny, CD1_1=-step * np.cos(turn), CD1_2=step * np.sin(turn),
             CD2_1=step * np.sin(turn), CD2_2=step * np.cos(turn))  # fmt: skip


@row(
    IMAGES,
    "A flipped WCS (east to the right)",
    "fitted; pixel and sky positions agree to 1e-9 deg",
    "5 sources, 5 active, 2 bands",
    0,
)
def flipped(tiny: TinyField) -> None:
    with_wcs(tiny, CD1_1=0.505 / 3600)


def _agrees_with_sky(tiny: TinyField) -> None:
    assert_measured(tiny)
    wcs = WCS(fits.getheader(tiny.image()))
    for line in catalogue_of(tiny).itertuples():
        sky = wcs.all_pix2world(float(line.x_pix_white_fit), float(line.y_pix_white_fit), 0)
        np.testing.assert_allclose([float(line.RA_fit), float(line.DEC_fit)], sky, rtol=0, atol=1e-9)


for made in (sip, tpv, rotated, flipped):
    made.checked(_agrees_with_sky)


@row(
    IMAGES, "One image rotated against the first", "the run ends", "CD differs by … deg/pix, allowed 1e-09", 1
)
def one_rotated(tiny: TinyField) -> None:
    with_cards(tiny, 1, CD1_2=1e-6, CD2_1=1e-6)


@row(IMAGES, "Images of different shapes", "the run ends", "96 x 95 pixels, expected 96 x 96 as in …", 1)
def shapes(tiny: TinyField) -> None:
    rewrite(tiny, 1, pixels(1)[:-1], image_header(BANDS[1]))


@row(
    IMAGES,
    "FILTER of two images that differ in case alone",
    "the run ends: columns of a FITS table have no case",
    "FILTER = 'm450' in … and 'M450' in … differ in case alone",
    1,
)
def bands_by_case(tiny: TinyField) -> None:
    with_cards(tiny, 1, FILTER="M450")


@row(
    IMAGES,
    "A pipe or a device where an image should be",
    "the run ends, without a read that would never end",
    "m650.fits: expected a file, found a pipe, a socket or a device",
    1,
)
def pipe(tiny: TinyField) -> None:
    tiny.image(1).unlink()
    os.mkfifo(tiny.image(1))


@row(IMAGES, "Two files of one band", "the run ends", "FILTER = 'm450' in … and in …; expected one each", 1)
def two_of_one_band(tiny: TinyField) -> None:
    with_cards(tiny, 1, FILTER="m450")


@row(
    IMAGES,
    "FILTER = `../../x`",
    "the run ends: it names files and columns",
    "FILTER = '../../x': expected text of letters, digits and _ . + -",
    1,
)
def filter_as_path(tiny: TinyField) -> None:
    with_cards(tiny, 0, FILTER="../../x")


@row(IMAGES, "A folder in the image list", "the run ends", "is a folder; expected a FITS file", 1)
def folder_in_list(tiny: TinyField) -> None:
    tiny.image_list.write_text(f"m450.fits\n{tiny.folder}\n")


@row(IMAGES, "A file in the image list that is a broken link", "the run ends", "m650.fits: no such file", 1)
def broken_link(tiny: TinyField) -> None:
    tiny.image(1).unlink()
    tiny.image(1).symlink_to(tiny.folder / "nowhere.fits")


@row(IMAGES, "An image twice in the list", "the run ends", "is already in line 1", 1)
def image_twice(tiny: TinyField) -> None:
    tiny.image_list.write_text("m450.fits\nm650.fits\nm450.fits\n")


@row(
    IMAGES,
    "An image list that is a FITS file",
    "the run ends",
    "expected a text file with one FITS path or URL per line, found binary data",
    1,
)
def list_is_binary(tiny: TinyField) -> Changes:
    return {"inputs": {"image_list_file": "m450.fits"}}


@row(IMAGES, "An empty image list", "the run ends", "expected one FITS path or URL per line, found none", 1)
def empty_list(tiny: TinyField) -> None:
    tiny.image_list.write_text("# none tonight\n")


@row(IMAGES, "A URL that answers 404", "the run ends, after one request", "gone.fits: no such file", 1)
def not_found(tiny: TinyField) -> None:
    handler = partial(_Quiet, directory=str(tiny.folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tiny.image_list.write_text(f"m450.fits\nhttp://127.0.0.1:{server.server_port}/gone.fits\n")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@row(
    IMAGES,
    "An image smaller than the division into patches",
    "the run ends",
    "the working frame of 96 x 96 pixels cannot be divided into 7 x 7 cells",
    1,
)
def too_small(tiny: TinyField) -> Changes:
    return {"epsf": {"epsf_ngrid": 7, "ngrid": 20}}


__all__ = ["IMAGES", "Row", "assert_measured"]
