"""Companions that hide in a star's wing: what it has on one side and not on the other.

A detection is split where isophotes part, which those of a companion of 10 % at 2 FWHM do not. But a star is
the same on both sides, whatever its width and elongation; what a PSF has of its own on one side, all stars of
the cell have.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tract7dt.psf.cutouts import StarStamps
from tract7dt.psf.moments import windowed_centroid
from tract7dt.psf.shift import StampShifter

__all__ = ["companion_shares"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Share of a star's light by which its two sides may differ.
ASYMMETRY = 0.03
#: What stands out from that by this many sigma is something else.
SIGMA = 5.0
#: Nearer to the centre than this many FWHM a companion cannot be told from the star's own shape.
NEAREST = 1.2
#: Best stars that tell what the PSF has on one side, and how few do not.
WITNESSES, MIN_WITNESSES = 9, 3
#: Error of a median over that of a mean.
MEDIAN_ERROR = 1.25


def companion_shares(stars: StarStamps, fwhm: float, fit_pix: float) -> F8:
    """Flux of the brightest companion of each star over the star's own; 0 where none is seen.

    Parameters
    ----------
    stars : StarStamps
        Best first.
    fwhm, fit_pix : float
        Width of stars; companions are looked for within the fit radius, pix.

    Returns
    -------
    ndarray (n,)
    """
    shares = np.zeros(len(stars))
    if not len(stars):
        return shares
    reach = int(min(stars.k // 2, np.ceil(fit_pix + fwhm)))
    axis = np.arange(-reach, reach + 1)
    radius = np.hypot(axis[:, None], axis[None, :])
    ring = (radius >= NEAREST * fwhm) & (radius <= fit_pix)
    maps, errors = zip(*(_lop_sided(stars, i, reach, fwhm, fit_pix) for i in range(len(stars))), strict=True)
    for i in range(len(stars)):
        others = [j for j in range(len(stars)) if j != i][:WITNESSES]
        own, error = maps[i], errors[i]
        if len(others) >= MIN_WITNESSES:
            own = own - np.median([maps[j] for j in others], axis=0)
            spread = np.mean([errors[j] ** 2 for j in others], axis=0) / len(others)
            error = np.sqrt(error**2 + MEDIAN_ERROR**2 * spread)
        seen = ring & (own > SIGMA * error)
        shares[i] = own[seen].max(initial=0.0)
    return shares


def _lop_sided(stars: StarStamps, i: int, reach: int, fwhm: float, fit_pix: float) -> tuple[F8, F8]:
    """Flux over the star's of a point source at each pixel, from one side minus the other, and its error."""
    middle = stars.k // 2
    core = slice(middle - reach, middle + reach + 1)
    good = stars.good[i, core, core]
    x, y = windowed_centroid(stars.data[i, core, core], fwhm)
    cut = StampShifter(2 * reach + 1).shift(stars.data[i, core, core][None], np.array([-x]), np.array([-y]))[
        0
    ]
    other = cut[::-1, ::-1]
    known = good & good[::-1, ::-1]
    sigma = fwhm / 2.3548
    # under a Gaussian window of its own width a point source of unit flux sums to 1 / (4 pi sigma**2)
    flux_of = 4 * np.pi * sigma**2
    excess = ndimage.gaussian_filter(np.where(known, cut - other, 0.0), sigma, mode="constant")
    alike = ndimage.gaussian_filter(np.maximum(np.minimum(cut, other), 0.0), sigma, mode="constant")
    variance = 2 * stars.noise[i] ** 2 + (np.maximum(cut, 0) + np.maximum(other, 0)) / stars.gain
    # squares of the window's weights: a window narrower by sqrt(2), times 1 / (4 pi sigma**2)
    variance = ndimage.gaussian_filter(variance, sigma / np.sqrt(2), mode="constant") / flux_of
    axis = np.arange(-reach, reach + 1)
    total = float(cut[np.hypot(axis[:, None], axis[None, :]) <= fit_pix].sum())
    scale = flux_of / max(total, float(stars.noise[i]))
    return scale * excess, scale * np.hypot(np.sqrt(variance), ASYMMETRY / SIGMA * alike)
