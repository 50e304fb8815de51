"""How far the light of a source reaches: the distance at which it sinks into the sky noise."""

from __future__ import annotations

import numpy as np
from scipy.special import gamma, gammaincinv

from tract7dt.types import F8, I8, ModelKind

__all__ = ["moffat_reach", "reach", "sersic_reach"]

#: A neighbour counts where it is brighter than this, in sigma of the sky of a pixel.
THRESHOLD_SIGMA = 0.1
#: A galaxy is followed to this many half-light radii.
GALAXY_EXTENT_RE = 8.0
_INDEX = {ModelKind.EXP: 1.0, ModelKind.DEV: 4.0}


def moffat_reach(flux: F8, fwhm: F8, beta: float, level: F8) -> F8:
    """Distance at which a Moffat star falls to ``level``; -inf where it never exceeds it.

    Surface brightness ``F (beta - 1) / (pi a**2) (1 + (r/a)**2)**-beta`` with
    ``a = fwhm / (2 sqrt(2**(1/beta) - 1))``.

    Parameters
    ----------
    flux, fwhm, level : ndarray
        Scaled counts, pix, scaled counts per pixel; broadcast against each other.
    beta : float
    """
    core = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    peak = np.maximum(flux, 0) * (beta - 1) / (np.pi * core**2)
    ratio = np.maximum(peak / level, 1e-300)
    return np.where(ratio > 1, core * np.sqrt(np.maximum(ratio ** (1 / beta) - 1, 0)), -np.inf)


def sersic_reach(flux: F8, re: F8, n: F8, level: F8) -> F8:
    """Distance at which a round Sersic profile falls to ``level``; -inf where it never exceeds it.

    Surface brightness ``I0 exp(-b (r/re)**(1/n))``, ``b = P^-1(2n, 1/2)`` of the regularised incomplete
    gamma function, ``I0 = F b**(2n) / (2 pi n Gamma(2n) re**2)`` (total flux to infinity).
    """
    b = gammaincinv(2 * n, 0.5)
    centre = np.maximum(flux, 0) * b ** (2 * n) / (2 * np.pi * n * gamma(2 * n) * re**2)
    ratio = np.maximum(centre / level, 1e-300)
    return np.where(ratio > 1, re * (np.log(np.maximum(ratio, 1)) / b) ** n, -np.inf)


def reach(
    flux: F8, kind: I8, re: F8, sersic_n: F8, sky_sigma: F8, fwhm: F8, beta: float, psf_radius: float | F8
) -> F8:
    """Largest distance, over the bands, at which each source exceeds ``THRESHOLD_SIGMA`` of the sky.

    A star ends with its PSF stamp. A galaxy is the larger of a star of its flux and its own profile
    shifted out by one FWHM (for the blurring); it ends a stamp and ``GALAXY_EXTENT_RE`` radii away.

    Parameters
    ----------
    flux : ndarray (nband, n)
        Scaled counts; NaN or not positive: nothing seen in that band.
    kind, re, sersic_n : ndarray (n,)
        :class:`ModelKind`, pix, index.
    sky_sigma, fwhm : ndarray (nband,)
    beta : float
        Moffat beta of the PSF's wings.
    psf_radius : float or ndarray (n,)
        Distance from its star at which a PSF stamp has ended, pix.

    Returns
    -------
    ndarray (n,)
        Pix; -inf for a source that never exceeds the threshold.
    """
    flux = np.nan_to_num(flux, nan=0.0, posinf=0.0, neginf=0.0)
    level, width = THRESHOLD_SIGMA * sky_sigma[:, None], fwhm[:, None]
    star = np.max(moffat_reach(flux, width, beta, level), axis=0, initial=-np.inf)
    ends = np.broadcast_to(psf_radius, star.shape)
    result = np.minimum(star, ends)
    extended = np.flatnonzero(kind != ModelKind.STAR)
    if len(extended):
        own = re[extended]
        index = np.array([_INDEX.get(ModelKind(k), np.nan) for k in kind[extended]])
        index = np.where(np.isnan(index), sersic_n[extended], index)
        profile = sersic_reach(flux[:, extended], own, index, level) + width
        far = np.maximum(np.max(profile, axis=0, initial=-np.inf), star[extended])
        result[extended] = np.minimum(far, ends[extended] + GALAXY_EXTENT_RE * own)
    return result
