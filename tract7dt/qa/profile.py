"""Radial profile of a stamp."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from tract7dt.types import F8

__all__ = ["growth_curve", "half_width", "radial_profile"]

#: Parts of a pixel along each axis.
_PARTS = 5
#: How a part counts in its ring and in the two next ones to each side.
_SPREAD = np.array([1, 2, 3, 2, 1]) / 9


def radial_profile(stamp: F8) -> tuple[F8, F8]:
    """Distance from the centre pixel (pix) and value of every finite pixel, flattened."""
    ny, nx = stamp.shape
    y, x = np.indices(stamp.shape)
    r = np.hypot(x - nx // 2, y - ny // 2).ravel()
    value = stamp.ravel()
    good = np.isfinite(value)
    return r[good], value[good]


def half_width(r: F8, value: F8) -> float:
    """Full width at half of the largest value; NaN if the profile never falls to half.

    From ring means in steps of half a pixel, linear between them.

    Parameters
    ----------
    r, value : ndarray
        As :func:`radial_profile` gives them.
    """
    step = np.round(2.0 * r).astype(np.int64)
    count = np.bincount(step)
    filled = count > 0
    mean = np.bincount(step, value)[filled] / count[filled]
    radius = np.bincount(step, r)[filled] / count[filled]
    half = 0.5 * float(mean.max(initial=0.0))
    below = np.flatnonzero(mean < half)
    if not below.size or below[0] == 0:
        return float("nan")
    i = below[0]
    share = (mean[i - 1] - half) / (mean[i - 1] - mean[i])
    return 2.0 * float(radius[i - 1] + share * (radius[i] - radius[i - 1]))


def growth_curve(stamp: F8) -> tuple[F8, F8]:
    """Share of the sum within a circle around the centre pixel, for radii in steps of a tenth of a pixel.

    A pixel's value is spread evenly over 5 by 5 parts of it, and a part over the rings around it, so the curve
    has no steps at whole pixels.
    Not finite pixels count as 0; without a positive sum the curve is 0.

    Returns
    -------
    radius, share : ndarray, float64
    """
    known = np.nan_to_num(stamp, nan=0.0, posinf=0.0, neginf=0.0)
    fine = np.repeat(np.repeat(known, _PARTS, 0), _PARTS, 1)
    grown: F8 = np.cumsum(np.bincount(_rings(stamp.shape[0], stamp.shape[1]), fine.ravel()))
    total = float(grown[-1])
    grown[1:-1] = np.convolve(np.pad(grown, 2, mode="edge"), _SPREAD, mode="valid")[1:-1]
    return np.arange(len(grown)) / 10.0, grown / total if total > 0 else np.zeros(len(grown))


@functools.lru_cache(maxsize=8)
def _rings(ny: int, nx: int) -> NDArray[np.int64]:
    """Ring, a tenth of a pixel wide, of every part of every pixel."""
    y = (np.arange(ny * _PARTS) + 0.5) / _PARTS - 0.5 - ny // 2
    x = (np.arange(nx * _PARTS) + 0.5) / _PARTS - 0.5 - nx // 2
    return np.ceil(10.0 * np.hypot(x[None, :], y[:, None])).astype(np.int64).ravel()
