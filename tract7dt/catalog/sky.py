"""From pixels to the sky: positions and their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["sky_errors", "sky_position"]

F8 = NDArray[np.float64]

ARCSEC_PER_RADIAN = 180.0 * 3600.0 / np.pi


def sky_position(wcs: WCS, x: F8, y: F8) -> tuple[F8, F8]:
    """RA and DEC of pixel positions.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Celestial WCS of the working frame, distortion included.
    x, y : ndarray, float64 (n,)
        0-based pixel positions; NaN gives NaN.

    Returns
    -------
    ra, dec : ndarray, float64 (n,)
        Degrees, ``0 <= ra < 360``.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    ra, dec = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    good = np.isfinite(x) & np.isfinite(y)
    if good.any():
        ra[good], dec[good] = wcs.all_pix2world(x[good], y[good], 0)
    return ra, dec


def sky_errors(wcs: WCS, x: F8, y: F8, x_err: F8, y_err: F8, xy_cov: F8) -> tuple[F8, F8]:
    """Errors of the sky position from the covariance of the pixel position.

    With the Jacobian J of the tangent-plane offsets (east, north) with respect to (x, y), the covariance on
    the sky is J C J'. J comes from central differences of one pixel of the full WCS as unit vectors, so it
    holds for any projection and distortion, across RA = 0 and up to the poles.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
    x, y : ndarray, float64 (n,)
        Pixel positions.
    x_err, y_err : ndarray, float64 (n,)
        One-sigma errors, pix.
    xy_cov : ndarray, float64 (n,)
        Covariance of x and y, pix**2.

    Returns
    -------
    ra_err, dec_err : ndarray, float64 (n,)
        One sigma towards east and towards north on the sky, arcsec: ``ra_err`` is that of ``ra cos(dec)``.
        NaN where an input is.
    """
    ra, dec = np.deg2rad(sky_position(wcs, x, y))
    east = np.stack([-np.sin(ra), np.cos(ra), np.zeros_like(ra)])
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    by_x = _unit_vector(wcs, x + 0.5, y) - _unit_vector(wcs, x - 0.5, y)
    by_y = _unit_vector(wcs, x, y + 0.5) - _unit_vector(wcs, x, y - 0.5)

    errors = []
    for axis in (east, north):
        a, b = (axis * by_x).sum(axis=0), (axis * by_y).sum(axis=0)
        variance = (a * x_err) ** 2 + 2.0 * a * b * xy_cov + (b * y_err) ** 2
        # A correlation of one may round to a variance just below zero.
        errors.append(np.sqrt(np.maximum(variance, 0.0)) * ARCSEC_PER_RADIAN)
    return errors[0], errors[1]


def _unit_vector(wcs: WCS, x: F8, y: F8) -> F8:
    """Unit vectors (3, n) of pixel positions."""
    ra, dec = np.deg2rad(sky_position(wcs, x, y))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
