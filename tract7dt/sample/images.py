"""Bringing the images of a downloaded field into the usual form: images/7DT_UDS_{band}.fits."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from astropy.io import fits

from tract7dt.errors import SampleError

__all__ = ["standardise_images"]

log = logging.getLogger(__name__)

_FITS_NAME = re.compile(r"(?i)\.(fits|fit|fts)(\.gz|\.fz)?$")
_BAND = re.compile(r"(?i)(?<![a-z0-9])m(\d{3})(?![0-9])")


def standardise_images(folder: Path) -> list[Path]:
    """Move the images of a field to ``images/7DT_UDS_{band}.fits`` (``.fits.gz``, ``.fits.fz`` stay packed).

    The band is the header's FILTER, else the ``m###`` in the name. Where there is an ``images`` folder,
    only FITS files in it are images.

    Parameters
    ----------
    folder : Path
        Unpacked field.

    Returns
    -------
    list of Path
        Images in the order of their wavelengths.

    Raises
    ------
    SampleError
        If there is no image, or two are of one band.
    """
    images = folder / "images"
    where = images if images.is_dir() else folder
    bands: dict[str, Path] = {}
    for path in sorted(where.rglob("*")):
        if not path.is_file() or not _FITS_NAME.search(path.name):
            continue
        band = _band_of(path)
        if band is None:
            log.warning("%s is of no known band: left as it is", path.relative_to(folder))
        elif band in bands:
            raise SampleError(
                f"the sample archive holds two images of {band}: {bands[band].relative_to(folder)} and "
                f"{path.relative_to(folder)}"
            )
        else:
            bands[band] = path
    if not bands:
        raise SampleError("the sample archive holds no FITS image of a band (m400 to m875)")
    images.mkdir(exist_ok=True)
    return [_move(bands[band], images, band) for band in sorted(bands)]


def _band_of(path: Path) -> str | None:
    for text in (_filter_of(path), path.name):
        found = _BAND.search(text)
        if found:
            return f"m{found[1]}"
    return None


def _filter_of(path: Path) -> str:
    """FILTER of the first header that has one, "" if none does."""
    try:
        with fits.open(path) as file:
            for hdu in file[:2]:
                if hdu.header.get("FILTER"):
                    return str(hdu.header["FILTER"]).strip()
    except OSError as error:
        raise SampleError(f"{path.name} of the sample archive is no FITS file: {error}") from None
    return ""


def _move(path: Path, images: Path, band: str) -> Path:
    packed = path.suffix.lower() if path.suffix.lower() in (".gz", ".fz") else ""
    target = images / f"7DT_UDS_{band}.fits{packed}"
    if target != path:
        if target.exists():
            raise SampleError(f"the sample archive holds a {target.name} of another band than its name says")
        path.rename(target)
    return target
