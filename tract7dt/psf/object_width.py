"""A width where there is neither a header nor an ePSF: Moffat profiles of what the cell holds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tract7dt.psf.cutouts import cutout
from tract7dt.psf.detection import CellImage
from tract7dt.psf.shift import StampShifter
from tract7dt.psf.wings import MoffatProfile, fit_moffat

__all__ = ["width_of_profiles"]

#: Brightest round objects that are measured, and half-size of their cutouts, pix.
OBJECTS, HALF = 9, 15
#: Those as narrow as this share of them are taken: the wider ones are galaxies and blends.
NARROW_PERCENTILE = 30
MAX_RATIO = 1.4
MIN_PIXELS = 9


def width_of_profiles(image: CellImage) -> float:
    """FWHM of the narrower ones of the brightest round objects, pix; NaN where there are none.

    Saturated pixels are left out, so that the wings of a star tell its width where its core cannot.

    Parameters
    ----------
    image : CellImage
    """
    objects = image.objects
    round_ = np.flatnonzero((objects.n_bright >= MIN_PIXELS) & (objects.ratio < MAX_RATIO))
    widths = [_width(image, int(i)) for i in round_[np.argsort(-objects.flux[round_])[:OBJECTS]]]
    found = [w for w in widths if math.isfinite(w)]
    return float(np.percentile(found, NARROW_PERCENTILE)) if found else math.nan


def _width(image: CellImage, index: int) -> float:
    x, y = float(image.objects.x[index]), float(image.objects.y[index])
    ix, iy = round(x), round(y)
    unusable = image.nonfinite | image.saturated
    segments = cutout(image.segments, ix, iy, HALF, 0)
    known = ~cutout(unusable, ix, iy, HALF, True) & ((segments == 0) | (segments == index + 1))
    if known.sum() < known.size / 3:
        return math.nan
    data = cutout(image.data, ix, iy, HALF, 0.0).astype(float)
    if not cutout(image.saturated, ix, iy, HALF, False).any():
        data = _centred(data, x - ix, y - iy)
    variance = np.where(known, float(image.noise[iy, ix]) ** 2 + np.maximum(data, 0) / image.gain, np.inf)
    start = MoffatProfile.of_width(max(1.5, 2.0 * float(image.objects.rms_size[index])))
    flux = max(float(image.objects.flux[index]), 1e-9)
    scaled = MoffatProfile(start.amplitude * flux, start.alpha, start.beta)
    width = fit_moffat(data, variance, scaled).fwhm
    return width if 1.0 < width < HALF else math.nan


def _centred(data: NDArray[np.float64], dx: float, dy: float) -> NDArray[np.float64]:
    return StampShifter(len(data)).shift(data[None], np.array([-dx]), np.array([-dy]))[0]
