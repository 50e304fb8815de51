"""Centre and shape of a stamp under a Gaussian window, which noise in the wings does not reach."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["windowed_centroid", "windowed_covariance"]

F8 = NDArray[np.float64]


def windowed_centroid(stamp: F8, fwhm: float, iterations: int = 20) -> tuple[float, float]:
    """Centre of a stamp under a round Gaussian window of the same FWHM, pix from pixel ``k // 2``.

    The window follows the centre (as SExtractor's XWIN_IMAGE does), so noise and asymmetry of the far
    wings do not pull. Returns (0, 0) when the stamp has no flux under the window.
    """
    half = stamp.shape[0] // 2
    grid = np.arange(stamp.shape[0], dtype=float) - half
    sigma = max(fwhm, 1.0) / 2.3548
    x = y = 0.0
    for _ in range(iterations):
        window = np.exp(-0.5 * ((grid - y) / sigma) ** 2)[:, None] * np.exp(-0.5 * ((grid - x) / sigma) ** 2)
        weighted = window * stamp
        total = weighted.sum()
        if total <= 0:
            return 0.0, 0.0
        # the window halves the apparent offset of a Gaussian of its own width: hence the factor 2
        step_x = 2 * float((weighted.sum(0) * (grid - x)).sum() / total)
        step_y = 2 * float((weighted.sum(1) * (grid - y)).sum() / total)
        x, y = x + step_x, y + step_y
        if abs(x) > half or abs(y) > half:
            return 0.0, 0.0
        if max(abs(step_x), abs(step_y)) < 1e-5:
            break
    return x, y


def windowed_covariance(stamp: F8) -> F8:
    """Covariance (xx, xy; xy, yy) of the Gaussian that fits a centred stamp under its own weight, pix**2.

    Adaptive moments (Bernstein & Jarvis 2002): the window is the result, found by iteration. A stamp
    without a matching Gaussian gives the last one that made sense.
    """
    half = stamp.shape[0] // 2
    axis = np.arange(stamp.shape[0], dtype=float) - half
    x, y = axis[None, :], axis[:, None]
    cov: F8 = np.eye(2) * 2.0
    for _ in range(50):
        inverse = np.linalg.inv(cov)
        form = inverse[0, 0] * x * x + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y * y
        light = np.exp(-0.5 * form) * stamp
        total = light.sum()
        if total <= 0:
            return cov
        xx, xy, yy = (float((light * p).sum() / total) for p in (x * x, x * y, y * y))
        matched = 2 * np.array([[xx, xy], [xy, yy]])  # the window halves a Gaussian's variance
        if np.linalg.det(matched) < 1e-3 or np.trace(matched) > half**2 + 4:
            return cov
        if np.allclose(matched, cov, rtol=1e-5):
            return matched
        cov = matched
    return cov
