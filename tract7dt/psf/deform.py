"""Small affine changes of a stamp: wider, stretched along x, stretched along the diagonal.

The stamp is a Moffat profile plus a small rest. The profile is deformed exactly, tail included; only the
rest is interpolated, so that noise of the wings is not amplified and no edge shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tract7dt.psf.wings import MoffatProfile

__all__ = ["N_MODES", "Deformable", "deformed_profile"]

F8 = NDArray[np.float64]

#: Size, elongation along x, elongation along the diagonal.
N_MODES = 3


def _inverse_map(shape: F8) -> F8:
    """Matrix B with P'(r) = det B * P(B r) for ``shape`` = (s, e1, e2): sizes grow by exp(s)."""
    s, e1, e2 = (float(v) for v in shape)
    e = math.hypot(e1, e2)
    # exp(-M) of M = (s + e1, e2; e2, s - e1): the traceless part squares to e**2
    along = math.sinh(e) / e if e > 0 else 1.0
    return math.exp(-s) * (math.cosh(e) * np.eye(2) - along * np.array([[e1, e2], [e2, -e1]]))


def deformed_profile(profile: MoffatProfile, shape: F8) -> MoffatProfile:
    """The profile after a deformation; its flux to infinity does not change.

    Parameters
    ----------
    profile : MoffatProfile
    shape : ndarray (3,)
        ln of the growth in size, and the elongations e1, e2.
    """
    inverse = _inverse_map(shape)
    form = np.array([[1 - profile.e1, -profile.e2], [-profile.e2, 1 + profile.e1]])
    form = inverse.T @ form @ inverse
    half_trace = 0.5 * (form[0, 0] + form[1, 1])
    return MoffatProfile(
        profile.amplitude * float(np.linalg.det(inverse)),
        profile.alpha / float(np.sqrt(half_trace)),
        profile.beta,
        float(0.5 * (form[1, 1] - form[0, 0]) / half_trace),
        float(-form[0, 1] / half_trace),
    )


@dataclass(frozen=True, slots=True)
class Deformable:
    """A stamp that can be deformed.

    Attributes
    ----------
    stamp : ndarray (k, k)
    profile : MoffatProfile
        Its fit.
    """

    stamp: F8
    profile: MoffatProfile

    def deformed(self, shapes: F8) -> F8:
        """Stamps after the deformations ``shapes`` (n, 3), ndarray (n, k, k)."""
        k = self.stamp.shape[0]
        centre = np.array([k // 2, k // 2], float)
        rest = ndimage.spline_filter(self.stamp - self.profile.stamp(k), order=3, mode="constant")
        result = np.empty((len(shapes), k, k))
        for i, shape in enumerate(shapes):
            inverse = _inverse_map(shape)[::-1, ::-1]  # arrays run y, x
            moved = ndimage.affine_transform(
                rest, inverse, centre - inverse @ centre, order=3, mode="constant", prefilter=False
            )
            result[i] = deformed_profile(self.profile, shape).stamp(k) + np.linalg.det(inverse) * moved
        return result
