"""Analytic stamps: Moffat, circular Gaussians, and a Gaussian mixture that imitates a given stamp.

Pixel integration. All stamps of this package are *effective* PSFs: the value at a pixel is the flux that
falls on it. The FWHM that comes from a header or from stars was measured on pixels, so it is the width of
the effective profile already; the profile is therefore sampled at pixel centres, not integrated over the
pixel a second time. Each stamp is then scaled to unit sum.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tract7dt.psf.moments import windowed_covariance

__all__ = ["circular_gaussians_stamp", "imitate_with_gaussians", "moffat_alpha", "moffat_stamp"]

F8 = NDArray[np.float64]

#: sigma multiples and weights of the circular mixtures by number of components.
CIRCULAR_MIXTURES: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    1: ((1.0,), (1.0,)),
    2: ((1.0, 2.5), (0.85, 0.15)),
    3: ((1.0, 2.0, 4.0), (0.8, 0.15, 0.05)),
}

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))


def _radius_squared(radius_pix: float) -> F8:
    half = max(1, math.ceil(radius_pix))
    axis = np.arange(-half, half + 1, dtype=float)
    return axis[:, None] ** 2 + axis[None, :] ** 2


def moffat_alpha(fwhm_pix: float, beta: float) -> float:
    """Core width of a Moffat profile ``(1 + (r / alpha)**2)**-beta``, pix."""
    return fwhm_pix / (2.0 * math.sqrt(2.0 ** (1.0 / beta) - 1.0))


def moffat_stamp(fwhm_pix: float, beta: float, radius_pix: float) -> F8:
    """Circular Moffat stamp of unit sum, float64 (k, k) with ``k = 2 ceil(radius_pix) + 1``."""
    alpha = moffat_alpha(fwhm_pix, beta)
    stamp = (1.0 + _radius_squared(radius_pix) / alpha**2) ** -beta
    return stamp / stamp.sum()


def circular_gaussians_stamp(fwhm_pix: float, n: int, radius_pix: float) -> F8:
    """Sum of ``n`` (1, 2 or 3) circular Gaussians of unit sum, float64 (k, k).

    The first has ``sigma = fwhm / 2.3548``; multiples and weights are :data:`CIRCULAR_MIXTURES`.
    """
    sigma = fwhm_pix / FWHM_PER_SIGMA
    squared = _radius_squared(radius_pix)
    stamp = np.zeros_like(squared)
    for multiple, weight in zip(*CIRCULAR_MIXTURES[n], strict=True):
        part = np.exp(-0.5 * squared / (multiple * sigma) ** 2)
        stamp += weight * part / part.sum()
    return stamp / stamp.sum()


def imitate_with_gaussians(stamp: F8, n: int) -> F8:
    """Best non-negative mixture of ``n`` concentric Gaussians to a stamp, drawn on the same pixels.

    The components share the stamp's shape and centre (its moments under a Gaussian window); their widths
    are a geometric series whose two ends are searched, their weights follow by non-negative least squares.

    Parameters
    ----------
    stamp : ndarray (k, k)
        Unit sum.
    n : int
        Number of components, at least 1.

    Returns
    -------
    ndarray, float64 (k, k)
        Unit sum, no negative value.
    """
    target = np.ascontiguousarray(stamp, dtype=np.float64)
    return _imitation(target.tobytes(), target.shape[0], n).copy()


@lru_cache(maxsize=128)  # all patches of a cell ask for the same one
def _imitation(stamp: bytes, k: int, n: int) -> F8:
    target = np.frombuffer(stamp).reshape(k, k)
    squared, sigma = _elliptical_radius(target)
    # equal weight would let the peak decide alone; this keeps the wings in the fit
    weight = 1.0 / np.sqrt(np.maximum(target, 0.0) + 1e-4 * target.max())
    best, best_cost = target, math.inf
    for narrow in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        for ratio in (1.0,) if n == 1 else (1.3, 1.45, 1.6, 1.8, 2.1, 2.5):
            widths = sigma * narrow * ratio ** np.arange(n)
            parts = np.exp(-0.5 * squared.ravel()[None, :] / widths[:, None] ** 2)
            parts /= parts.sum(1, keepdims=True)
            amplitude, cost = _non_negative((parts * weight.ravel()).T, (target * weight).ravel())
            if cost < best_cost and amplitude.sum() > 0:
                best, best_cost = (amplitude @ parts).reshape(target.shape), cost
    return best / best.sum()


def _non_negative(design: F8, data: F8) -> tuple[F8, float]:
    """Non-negative least squares through the small triangular factor: amplitudes and norm of the residual."""
    from scipy.optimize import nnls  # a quarter of a second that a fit with ePSFs does without

    q, r = np.linalg.qr(design)
    projected = q.T @ data
    amplitude, inside = nnls(r, projected)
    return amplitude, math.sqrt(inside**2 + max(float(data @ data - projected @ projected), 0.0))


def _elliptical_radius(stamp: F8) -> tuple[F8, float]:
    """Squared radius on the stamp's own ellipses (area-preserving) and its Gaussian-windowed sigma, pix."""
    axis = np.arange(stamp.shape[0], dtype=float) - stamp.shape[0] // 2
    x, y = axis[None, :], axis[:, None]
    cov = windowed_covariance(stamp)
    sigma = float(np.linalg.det(cov)) ** 0.25
    inverse = np.linalg.inv(cov / sigma**2)
    return inverse[0, 0] * x * x + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y * y, sigma
