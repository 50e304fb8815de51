"""What the picture tests share: a WCS of any orientation, and reading back what was drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.wcs import WCS
from PIL import Image

from tract7dt.types import Patch


def make_wcs(
    *,
    rotation: float = 0.0,
    flip: bool = False,
    swapped: bool = False,
    scale: float = 0.5,
    crval=(150.1, -22.3),
) -> WCS:
    """TAN WCS: ``rotation`` in degrees, ``flip`` mirrors x, ``swapped`` puts DEC on the first axis."""
    wcs = WCS(naxis=2)
    angle, step = np.deg2rad(rotation), scale / 3600
    matrix = step * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        matrix[:, 0] *= -1
    wcs.wcs.crpix = [60.5, 40.5]
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cd = ["RA---TAN", "DEC--TAN"], list(crval), matrix
    if swapped:
        wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cd = ["DEC--TAN", "RA---TAN"], list(crval)[::-1], matrix[::-1]
    return wcs


@dataclass(frozen=True)
class Png:
    """A picture file, read in full (a damaged file fails here)."""

    width: int
    height: int
    dpi: float
    bytes: int
    pixels: np.ndarray


def read_png(path: Path) -> Png:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        dpi = float(picture.info["dpi"][0])
        pixels = np.asarray(picture.convert("RGB"))
    return Png(pixels.shape[1], pixels.shape[0], dpi, path.stat().st_size, pixels)


@dataclass(frozen=True)
class PatchInput:
    data: np.ndarray
    model: np.ndarray
    weight: np.ndarray
    bands: tuple[str, ...]
    table: pd.DataFrame
    patch: Patch
