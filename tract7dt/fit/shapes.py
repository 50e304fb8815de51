"""Ellipses: catalogue shape (Re, ELL, THETA) and softened shape (log re, ee1, ee2), with Jacobians.

The fit moves in the softened shape, whose every value is a valid ellipse. With axis ratio ``q = 1 - ELL``
and THETA = beta, counter-clockwise from +x towards +y::

    e = (1 - q) / (1 + q)      ee = -ln(1 - e)      ee1 = -ee cos 2 beta      ee2 = ee sin 2 beta

that is, ee1 and ee2 are ee times cosine and sine of twice the angle from +y towards +x.

At fixed re the image of a galaxy has a cone at ``ee = 0``: whatever the direction, the ellipse gets smaller. At
fixed mean radius ``(a + b) / 2`` it has none. So steps, derivatives and bounds are in its logarithm,
``m = log re - stretch``, ``stretch = log(1 + e)``, while values, errors and the catalogue's priors are in log re.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

F8 = NDArray[np.float64]

# Below this the direction of the ellipse has no meaning.
_ROUND = 1e-12


def soft_from_shape(re: F8, ell: F8, theta: F8) -> tuple[F8, F8, F8]:
    """Softened shape of an ellipse.

    Parameters
    ----------
    re : ndarray
        Semi-major-axis half-light radius, pix.
    ell : ndarray
        1 - b/a, below 1.
    theta : ndarray
        Angle of the major axis, degrees counter-clockwise from +x.

    Returns
    -------
    log_re, ee1, ee2 : ndarray
    """
    q = np.clip(1 - np.asarray(ell, float), 1e-12, 1.0)
    ee = -np.log(2 * q / (1 + q))
    twice = 2 * np.deg2rad(theta)
    return np.log(re), -ee * np.cos(twice), ee * np.sin(twice)


def shape_from_soft(log_re: F8, ee1: F8, ee2: F8) -> tuple[F8, F8, F8]:
    """Catalogue shape of a softened ellipse: the inverse of :func:`soft_from_shape`.

    Returns
    -------
    re, ell, theta : ndarray
        pix; 1 - b/a; degrees in [-90, 90).
    """
    shrink = np.exp(-np.hypot(ee1, ee2))
    ell = 1 - shrink / (2 - shrink)
    theta = np.rad2deg(0.5 * np.arctan2(ee2, -np.asarray(ee1)))
    theta = np.where(theta >= 90, theta - 180, theta)
    return np.exp(log_re), ell, theta


def soft_covariance(ell: float, theta: float, ell_err: float, theta_err: float) -> F8:
    """Covariance of (ee1, ee2) from independent errors of ELL and THETA, float64 (2, 2).

    ``J diag(ell_err**2, theta_err**2) J^T`` with the Jacobian J of the definition above. A nearly round
    source has no angle: where ee is below its own error, the error across is at least the error along.

    Parameters
    ----------
    ell, ell_err : float
        1 - b/a and its error.
    theta, theta_err : float
        Degrees.
    """
    q = min(max(1 - ell, 1e-6), 1.0)
    ee = -math.log(2 * q / (1 + q))
    along = ell_err / (q * (1 + q))
    across = 2 * ee * math.radians(theta_err)
    if ee < along:
        across = max(across, along)
    cos, sin = math.cos(2 * math.radians(theta)), math.sin(2 * math.radians(theta))
    rotation = np.array([[-cos, sin], [sin, cos]])
    return np.asarray(rotation @ np.diag([along**2, across**2]) @ rotation.T)


def shape_errors(ee1: float, ee2: float, covariance: F8) -> tuple[float, float]:
    """Errors of ELL (at most 1) and THETA (degrees, at most 90) from the covariance (2, 2) of (ee1, ee2).

    An error as wide as the range of its quantity says that nothing is known; a wider one would say no more.
    """
    ee = math.hypot(ee1, ee2)
    if ee > _ROUND:
        along = np.array([ee1, ee2]) / ee
    else:
        along = np.array([1.0, 0.0])
    across = np.array([-along[1], along[0]])
    shrink = math.exp(-ee)
    slope = 2 * shrink / (2 - shrink) ** 2
    ell_err = min(slope * math.sqrt(max(float(along @ covariance @ along), 0.0)), 1.0)
    angle = math.sqrt(max(float(across @ covariance @ across), 0.0))
    theta_err = 90.0 if angle >= math.pi * ee else math.degrees(0.5 * angle / ee)
    return ell_err, theta_err


def stretch(ee1: F8, ee2: F8) -> F8:
    """Logarithm of re over the mean radius (a + b) / 2."""
    value: F8 = np.log(2 - np.exp(-np.hypot(ee1, ee2)))
    return value


def stretch_slopes(ee1: F8, ee2: F8) -> tuple[F8, F8]:
    """Derivatives of :func:`stretch` by ee1 and ee2; 0 at the tip of its cone."""
    ee = np.hypot(ee1, ee2)
    shrink = np.exp(-ee)
    slope = np.where(ee > _ROUND, shrink / (2 - shrink) / np.maximum(ee, _ROUND), 0.0)
    return slope * ee1, slope * ee2


@njit(cache=True, error_model="numpy", nogil=True)
def ellipse(
    log_re: float, ee1: float, ee2: float, jacobian: F8
) -> tuple[float, float, float]:  # pragma: no cover
    """Matrix C of an ellipse, ``s = Cxx kx**2 + 2 Cxy kx ky + Cyy ky**2``, and its derivatives.

    Parameters
    ----------
    log_re, ee1, ee2 : float
    jacobian : ndarray, float64 (3, 3)
        Filled with d(Cxx, Cxy, Cyy) / d(m, ee1, ee2), m the logarithm of the mean radius.

    Returns
    -------
    cxx, cxy, cyy : float
        pix**2; the variance-like size is re**2 along the major axis, (q re)**2 along the minor.
    """
    ee = math.hypot(ee1, ee2)
    shrink = math.exp(-ee)
    e = -math.expm1(-ee)  # 1 - shrink, exact for the roundest as well
    c, s, ratio = 1.0, 0.0, 1.0
    if ee > _ROUND:
        c, s, ratio = ee1 / ee, ee2 / ee, e / ee
    e1, e2 = e * c, e * s
    a = math.exp(2 * log_re) / (1 + e) ** 2
    cxx = a * (1 + e * e - 2 * e1)
    cxy = 2 * a * e2
    cyy = a * (1 + e * e + 2 * e1)
    jacobian[0, 0] = 2 * cxx
    jacobian[1, 0] = 2 * cxy
    jacobian[2, 0] = 2 * cyy
    for k in range(2):
        de = shrink * (c if k == 0 else s)
        de1 = shrink * c * c + ratio * s * s if k == 0 else (shrink - ratio) * c * s
        de2 = (shrink - ratio) * c * s if k == 0 else shrink * s * s + ratio * c * c
        jacobian[0, k + 1] = a * (2 * e * de - 2 * de1)
        jacobian[1, k + 1] = 2 * a * de2
        jacobian[2, k + 1] = a * (2 * e * de + 2 * de1)
    return cxx, cxy, cyy


@njit(cache=True, error_model="numpy", nogil=True)
def ellipse_curvature(log_re: float, ee1: float, ee2: float, second: F8) -> None:  # pragma: no cover
    """Second derivatives of (Cxx, Cxy, Cyy) by (m, ee1, ee2), into ``second`` float64 (3, 3, 3), C first.

    Central differences of the analytic Jacobian, good to 1e-8: only the optimiser's steps rest on them.
    """
    ahead, behind = np.empty((3, 3)), np.empty((3, 3))
    step = 1e-4
    mean = log_re - math.log(2 - math.exp(-math.hypot(ee1, ee2)))
    for k in range(3):
        d0 = step if k == 0 else 0.0
        d1 = step if k == 1 else 0.0
        d2 = step if k == 2 else 0.0
        stretched = mean + math.log(2 - math.exp(-math.hypot(ee1 + d1, ee2 + d2)))
        ellipse(stretched + d0, ee1 + d1, ee2 + d2, ahead)
        stretched = mean + math.log(2 - math.exp(-math.hypot(ee1 - d1, ee2 - d2)))
        ellipse(stretched - d0, ee1 - d1, ee2 - d2, behind)
        for i in range(3):
            for j in range(3):
                second[i, j, k] = (ahead[i, j] - behind[i, j]) / (2 * step)
