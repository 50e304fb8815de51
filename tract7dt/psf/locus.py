"""The size that the stars of a cell have in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["stellar_locus"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]


def stellar_locus(size: F8, snr: F8, gaia: Bool) -> tuple[float, float]:
    """Half-light radius of stars and its scatter: Gaia's if there are five, else the mode of the bright.

    Parameters
    ----------
    size : ndarray (n,)
        Half-light radii, pix; NaN if not measured.
    snr : ndarray (n,)
    gaia : ndarray, bool (n,)
        Known to be stars.

    Returns
    -------
    centre, spread : float
        Pix; NaN where no size is known.
    """
    finite = np.isfinite(size)
    if (finite & gaia).sum() >= 5:
        sample = size[finite & gaia]
        centre = float(np.median(sample))
    else:
        bright = finite & (snr >= 40)
        sample = np.sort(size[bright] if bright.sum() >= 3 else size[finite])
        if len(sample) == 0:
            return np.nan, np.nan
        centre = _half_sample_mode(sample)
    near = sample[np.abs(sample - centre) < 0.15 * centre]
    spread = 1.4826 * float(np.median(np.abs(near - np.median(near)))) if len(near) >= 3 else 0.0
    return centre, min(spread, 0.03 * centre)


def _half_sample_mode(values: F8) -> float:
    """Mode of sorted values: the densest half, again and again (Bickel & Fruehwirth 2006)."""
    while len(values) > 3:
        half = (len(values) + 1) // 2
        start = int(np.argmin(values[half - 1 :] - values[: len(values) - half + 1]))
        values = values[start : start + half]
    return float(np.median(values))
