"""Many small symmetric systems of equations at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["solve_small"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Condition number, after scaling to unit diagonal, beyond which a system has no solution.
MAX_CONDITION = 1e8


def solve_small(normal: F8, right: F8) -> tuple[F8, F8, Bool]:
    """Solutions of ``n`` systems, the inverses, and which of them have one.

    Parameters
    ----------
    normal : ndarray (n, m, m)
        Symmetric, not negative.
    right : ndarray (n, m)

    Returns
    -------
    solution : ndarray (n, m)
    inverse : ndarray (n, m, m)
        Covariance of the solution where ``normal`` is its curvature.
    valid : ndarray, bool (n,)
    """
    scale = np.sqrt(np.maximum(np.einsum("naa->na", normal), 0.0))
    valid = (scale > 0).all(1)
    scale = np.where(scale > 0, scale, 1.0)
    scaled = normal / scale[:, :, None] / scale[:, None, :]
    scaled = np.where(valid[:, None, None], scaled, np.eye(normal.shape[1]))
    valid &= np.linalg.cond(scaled) < MAX_CONDITION
    scaled = np.where(valid[:, None, None], scaled, np.eye(normal.shape[1]))
    inverse = np.linalg.inv(scaled) / scale[:, :, None] / scale[:, None, :]
    return (inverse @ right[..., None])[..., 0], inverse, valid
