"""What the headers of the images say, and every check that needs no pixel."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS, FITSFixedWarning, WcsError
from astropy.wcs.utils import proj_plane_pixel_area

from tract7dt.errors import InputError
from tract7dt.frames.alignment import alignment_problems
from tract7dt.frames.stream import ImageHeader, read_header
from tract7dt.types import Box

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["ImageInfo", "inspect_images", "working_box"]

log = logging.getLogger(__name__)

#: A band names files and columns: no path separators, no blanks, nothing that a shell or CSV would read.
_BAND = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
#: Names that collide with our own files (``white.npy``, ``{band}_bad.npy``) or columns (``FLUX_x_ERR``).
_RESERVED_BAND = re.compile(r"(?i)white|white_sigma|white_full_preview|.*_bad|.*_err|.*_fit")

#: Zero points beyond these are none: the pixels would not fit into the numbers that hold them.
_ZP_RANGE = (-25.0, 75.0)
#: A FWHM outside of this is a mistake, pix.
_FWHM_RANGE = (0.3, 100.0)

#: What astropy and wcslib raise on keywords that make no WCS.
_WCS_ERRORS = (
    WcsError,
    fits.VerifyError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Header of one input image, checked.

    Attributes
    ----------
    path : str
        Local path or URL.
    band : str
        FILTER.
    shape : (int, int)
        ``(ny, nx)`` of the full image.
    wcs : astropy.wcs.WCS
        Celestial WCS of the full image.
    pixel_scale_arcsec : float
        Geometric mean.
    zp_auto : float
        ZP_AUTO, mag AB.
    sky_sigma : float
        SKYSIG, ADU.
    gain : float
        EGAIN, electrons per ADU.
    saturate : float or None
        SATURATE, ADU.
    fwhm_pix : float or None
        PEEING, else SEEING over the pixel scale.
    epoch : float or None
        Julian year of DATE-OBS or MJD-OBS.
    """

    path: str
    band: str
    shape: tuple[int, int]
    wcs: WCS
    pixel_scale_arcsec: float
    zp_auto: float
    sky_sigma: float
    gain: float
    saturate: float | None
    fwhm_pix: float | None
    epoch: float | None


def inspect_images(paths: Sequence[str], settings: Settings) -> list[ImageInfo]:
    """Read the headers of all images and check everything that needs no pixel.

    Keywords and WCS of each; one image a FILTER; one shape; alignment with the first image within
    ``checks.wcs_tolerance``; something left after the crop.

    Returns
    -------
    list of ImageInfo
        In the order of ``paths``.

    Raises
    ------
    InputError
        With all problems of all images at once.
    """
    if not paths:
        raise InputError("expected at least one image, found none")
    with ThreadPoolExecutor(min(16, len(paths))) as pool:
        headers = list(pool.map(_header_or_problem, paths))
    images: list[ImageInfo] = []
    problems: list[str] = []
    for path, header in zip(paths, headers):
        if isinstance(header, str):
            problems.append(header)
            continue
        image, found = _inspect(path, header)
        problems += [f"{path}: {problem}" for problem in found]
        if image is not None:
            images.append(image)
    problems += _duplicate_bands(images) + _frame_problems(images, settings)
    if problems:
        raise InputError("\n  ".join(["the images cannot be used:", *problems]))
    return images


def working_box(shape: tuple[int, int], settings: Settings) -> Box:
    """The working frame within a full image of ``shape``: all of it, or what ``crop.margin`` leaves."""
    margin = settings.crop.margin if settings.crop.enabled else 0
    ny, nx = shape
    return Box(margin, max(nx - margin, margin), margin, max(ny - margin, margin))


def _header_or_problem(path: str) -> ImageHeader | str:
    try:
        return read_header(path)
    except InputError as error:
        return str(error)


def _inspect(path: str, header: ImageHeader) -> tuple[ImageInfo | None, list[str]]:
    problems: list[str] = []
    band = _band(header, problems)
    zp_auto = _number(header, "ZP_AUTO", problems, positive=False)
    if math.isfinite(zp_auto) and not _ZP_RANGE[0] <= zp_auto <= _ZP_RANGE[1]:
        low, high = _ZP_RANGE
        problems.append(f"ZP_AUTO = {zp_auto:g}: expected a magnitude from {low:g} to {high:g}")
    sky_sigma = _number(header, "SKYSIG", problems)
    gain = _number(header, "EGAIN", problems)
    saturate = None
    if header.get("SATURATE") is None:
        log.warning("%s: no SATURATE in the header, its saturated pixels are not masked", path)
    else:
        saturate = _number(header, "SATURATE", problems)
    wcs = _celestial_wcs(header, problems)
    if wcs is None or problems:
        return None, problems
    scale = 3600.0 * math.sqrt(proj_plane_pixel_area(wcs))
    fwhm, epoch = _fwhm_pix(path, header, scale), _epoch(path, header)
    return (
        ImageInfo(path, band, header.shape, wcs, scale, zp_auto, sky_sigma, gain, saturate, fwhm, epoch),
        [],
    )


def _band(header: ImageHeader, problems: list[str]) -> str:
    value = header.get("FILTER")
    if value is None:
        problems.append("keyword FILTER is missing; expected the name of the band")
        return ""
    band = value.strip() if isinstance(value, str) else ""
    if not _BAND.fullmatch(band):
        problems.append(
            f"FILTER = {value!r}: expected text of letters, digits and _ . + - (it names files and columns)"
        )
    elif _RESERVED_BAND.fullmatch(band):
        problems.append(f"FILTER = {value!r}: this name is used for other files or columns; expected another")
    return band


def _number(header: ImageHeader, keyword: str, problems: list[str], *, positive: bool = True) -> float:
    """Value of a keyword as a float; NaN, and a problem, where it is missing or out of range."""
    wanted = "a number above 0" if positive else "a finite number"
    raw = header.get(keyword)
    if raw is None:
        problems.append(f"keyword {keyword} is missing; expected {wanted}")
        return math.nan
    value = _as_float(raw)
    if not math.isfinite(value) or (positive and value <= 0):
        problems.append(f"{keyword} = {raw!r}: expected {wanted}")
        return math.nan
    return value


def _as_float(value: object) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            return math.nan
    return math.nan


def _celestial_wcs(header: ImageHeader, problems: list[str]) -> WCS | None:
    """WCS of the image; None, and a problem, where it is not one of RA and DEC that we can crop and store."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            wcs = WCS(header.header).celestial
            if wcs.naxis == 2:
                wcs.wcs.set()
    except _WCS_ERRORS as error:
        problems.append(f"WCS cannot be read: {' '.join(str(error).split())}")
        return None
    if wcs.naxis != 2 or {wcs.wcs.lngtyp, wcs.wcs.lattyp} != {"RA", "DEC"}:
        found = ", ".join(str(header.header.get(f"CTYPE{i}", "nothing")) for i in (1, 2))
        problems.append(f"expected a celestial WCS (CTYPE RA---xxx, DEC--xxx), found {found}")
        return None
    if (
        _has_empty_cd_row(header.header)
        or not np.isfinite(wcs.pixel_scale_matrix).all()
        or np.linalg.det(wcs.pixel_scale_matrix) == 0
    ):
        problems.append("expected a WCS matrix (CD, or PC and CDELT) that can be inverted")
        return None
    system, equinox = wcs.wcs.radesys.strip(), wcs.wcs.equinox
    if system not in ("", "ICRS", "FK5") or (
        system == "FK5" and equinox not in (2000.0,) and equinox == equinox
    ):
        problems.append(f"expected RADESYS ICRS or FK5 (J2000), found {system} {equinox:g}")
        return None
    if any((wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2)):
        problems.append("expected a WCS without distortion tables (CPDISj, D2IMDISj); SIP and TPV are known")
        return None
    return wcs


def _has_empty_cd_row(header: fits.Header) -> bool:
    """Whether a row of the CD matrix is zero, which wcslib would take for 1 deg/pix without a word."""
    return any(
        any(f"CD{i}_{j}" in header for j in (1, 2)) and not any(header.get(f"CD{i}_{j}", 0.0) for j in (1, 2))
        for i in (1, 2)
    )


def _fwhm_pix(path: str, header: ImageHeader, pixel_scale_arcsec: float) -> float | None:
    for keyword, unit_pix in (("PEEING", 1.0), ("SEEING", pixel_scale_arcsec)):
        raw = header.get(keyword)
        if raw is None:
            continue
        value = _as_float(raw)
        if not (math.isfinite(value) and value > 0):
            log.warning("%s: %s = %r is not a positive number and is not used", path, keyword, raw)
        elif not _FWHM_RANGE[0] <= value / unit_pix <= _FWHM_RANGE[1]:
            log.warning(
                "%s: %s = %r is a FWHM of %.3g pixels, expected %g to %g; it is not used",
                path, keyword, raw, value / unit_pix, *_FWHM_RANGE,
            )  # fmt: skip
        else:
            return value / unit_pix
    return None


def _epoch(path: str, header: ImageHeader) -> float | None:
    """Julian year of the exposure: DATE-OBS where it has a time, else MJD-OBS, else the date alone."""
    date, mjd = header.get("DATE-OBS"), _as_float(header.get("MJD-OBS"))
    text = date.strip() if isinstance(date, str) else ""
    if "T" not in text and math.isfinite(mjd) and mjd > 0:
        return float(Time(mjd, format="mjd", scale="utc").jyear)
    if not text:
        return None
    try:
        return float(Time(text, scale="utc").jyear)
    except ValueError:
        if math.isfinite(mjd) and mjd > 0:
            return float(Time(mjd, format="mjd", scale="utc").jyear)
        log.warning("%s: DATE-OBS = %r is not a date and is not used", path, date)
        return None


def _duplicate_bands(images: Sequence[ImageInfo]) -> list[str]:
    problems = []
    first: dict[str, ImageInfo] = {}
    for image in images:
        other = first.setdefault(image.band.casefold(), image)
        if other is not image and other.band == image.band:
            problems.append(f"FILTER = {image.band!r} in {other.path} and in {image.path}; expected one each")
        elif other is not image:
            problems.append(
                f"FILTER = {other.band!r} in {other.path} and {image.band!r} in {image.path} differ in case "
                "alone; expected names that differ, since columns of a FITS table have no case"
            )
    return problems


def _frame_problems(images: Sequence[ImageInfo], settings: Settings) -> list[str]:
    """Shapes, alignment and crop."""
    if not images:
        return []
    reference, problems = images[0], []
    ny, nx = reference.shape
    for image in images[1:]:
        if image.shape != reference.shape:
            why = (
                ""
                if settings.checks.require_same_shape
                else (" (checks.require_same_shape is off, but all images are stacked on one pixel frame)")
            )
            problems.append(
                f"{image.path}: {image.shape[1]} x {image.shape[0]} pixels, "
                f"expected {nx} x {ny} as in {reference.path}{why}"
            )
        elif settings.checks.require_wcs_alignment:
            found = alignment_problems(
                reference.wcs, image.wcs, reference.shape, settings.checks.wcs_tolerance
            )
            problems += [f"{image.path}: {problem} (first image: {reference.path})" for problem in found]
    box = working_box(reference.shape, settings)
    cells, patches = settings.epsf.epsf_ngrid, settings.epsf.ngrid
    if min(box.shape) == 0:
        problems.append(
            f"crop.margin = {settings.crop.margin} leaves nothing of images of {nx} x {ny} pixels"
        )
    elif min(box.shape) // cells < patches:
        problems.append(
            f"the working frame of {box.nx} x {box.ny} pixels cannot be divided into {cells} x {cells} cells "
            f"(epsf.epsf_ngrid) of {patches} x {patches} patches (epsf.ngrid)"
        )
    return problems
