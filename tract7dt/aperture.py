"""Aperture photometry: the start flux of a source that the catalogue gives none for."""

from __future__ import annotations

import numpy as np
import sep
from numpy.typing import NDArray

from tract7dt.types import F4, F8

__all__ = ["circular_flux"]


def circular_flux(data: F4, bad: NDArray[np.uint8] | NDArray[np.bool_], x: F8, y: F8, radius: float) -> F8:
    """Flux in circular apertures, masked pixels replaced by the mean of the aperture's good ones.

    Parameters
    ----------
    data : ndarray, float32 (ny, nx)
        Scaled counts; may hold NaN where ``bad`` is set. Pixels that are not finite are always left out.
    bad : ndarray, uint8 or bool (ny, nx)
        Pixels to leave out where non-zero.
    x, y : ndarray, float64 (n,)
        Centres in the frame of ``data``, pix; may be NaN or lie outside.
    radius : float
        Aperture radius, pix.

    Returns
    -------
    ndarray, float64 (n,)
        Scaled counts; NaN where the aperture holds no good pixel. What lies beyond the edge of the
        window is not made up for.
    """
    x, y = np.array(x, dtype=float, ndmin=1), np.array(y, dtype=float, ndmin=1)
    flux = np.full(x.shape, np.nan)
    usable = np.isfinite(x) & np.isfinite(y)
    if not usable.any() or data.size == 0:
        return flux
    # sep takes native, C-contiguous, writable buffers only; a read-only memory map is none
    pixels = np.require(data, dtype=np.float32, requirements=["C", "W"])
    mask = np.ascontiguousarray((np.asarray(bad) != 0) | ~np.isfinite(pixels)).view(np.uint8)
    total, _, _ = sep.sum_circle(pixels, x[usable], y[usable], float(radius), mask=mask)
    flux[usable] = total
    return flux
