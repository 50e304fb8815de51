"""Which of the rows near saturated pixels is the star that saturates.

Rows near saturation are excluded together: the star, and whatever the catalogue has around it. Only the star has
the wings of the star; read for each of them, they would be subtracted several times over.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from tract7dt.mapped import read_part
from tract7dt.types import BAD_SATURATED, F8, U1, Bool

__all__ = ["saturated_cores"]

#: Farthest that the star may lie from the nearest saturated pixel, pix.
MATCH_PIX = 3.0
_HALF = 40
_SAME_CORE_PIX = 3.0


def saturated_cores(masks: Iterable[U1], x: F8, y: F8) -> Bool:
    """Whether each position is the star of a saturated core: the nearest one to the core's centre.

    Parameters
    ----------
    masks : iterable of ndarray, uint8 (ny, nx)
        Final masks of the bands; a core is a connected group of pixels saturated in any of them.
    x, y : ndarray, float64 (n,)
        Positions in the frame, pix.

    Returns
    -------
    ndarray, bool (n,)
    """
    bands = tuple(masks)
    found = [_core_of(bands, float(xi), float(yi)) for xi, yi in zip(x, y, strict=True)]
    candidates = [i for i, core in enumerate(found) if core is not None]
    centre = np.array([found[i] for i in candidates], float).reshape(-1, 2)
    distance = np.hypot(centre[:, 0] - x[candidates], centre[:, 1] - y[candidates])
    chosen = np.ones(len(candidates), bool)
    if len(candidates) > 1:
        for one, other in sorted(cKDTree(centre).query_pairs(_SAME_CORE_PIX)):
            chosen[one if distance[one] > distance[other] else other] = False
    result = np.zeros(len(x), bool)
    result[np.array(candidates, dtype=np.int64)[chosen]] = True
    return result


def _core_of(masks: tuple[U1, ...], x: float, y: float) -> tuple[float, float] | None:
    """Centre of the saturated group nearest to a position, if it is within ``MATCH_PIX``."""
    x0, y0 = max(round(x) - _HALF, 0), max(round(y) - _HALF, 0)
    window = slice(y0, round(y) + _HALF + 1), slice(x0, round(x) + _HALF + 1)
    saturated = np.zeros(np.shape(masks[0][window]), bool)
    for mask in masks:
        saturated |= (read_part(mask, window) & BAD_SATURATED) != 0
    rows, columns = np.nonzero(saturated)
    if not len(rows):
        return None
    distance = np.hypot(columns + x0 - x, rows + y0 - y)
    nearest = int(distance.argmin())
    if distance[nearest] > MATCH_PIX:
        return None
    groups, _ = ndimage.label(saturated, structure=np.ones((3, 3)))
    cy, cx = ndimage.center_of_mass(groups == groups[rows[nearest], columns[nearest]])
    return float(cx) + x0, float(cy) + y0
