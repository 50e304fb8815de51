"""Which positions lie near saturated pixels."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from tract7dt.store.npy import read_rows
from tract7dt.types import F8, Bool, Field, Frame

__all__ = ["near_saturation"]

_STRIP_ROWS = 128


def near_saturation(field: Field, x: F8, y: F8, radius_pix: float, require_all_bands: bool) -> Bool:
    """Whether a saturated pixel's centre lies within ``radius_pix`` of each position.

    Frames are read in strips of rows, and only where there are positions: the cost does not grow with the
    radius and hardly with the number of positions.

    Parameters
    ----------
    field : Field
    x, y : ndarray, float64 (n,)
        Positions in the working frame, pix; may lie off the frame. NaN is near nothing.
    radius_pix : float
    require_all_bands : bool
        True: near saturation in every band (a band without SATURATE never is); False: in any band.

    Returns
    -------
    ndarray, bool (n,)
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    near = np.full(x.shape, require_all_bands)
    near &= np.isfinite(x) & np.isfinite(y)
    for frame in field.frames.values():
        # What the bands so far have settled needs no look at this one.
        open_ = near if require_all_bands else ~near & np.isfinite(x) & np.isfinite(y)
        found = np.zeros(x.shape, bool)
        found[open_] = _near_in_band(frame, x[open_], y[open_], radius_pix)
        near = near & found if require_all_bands else near | found
    return near


def _near_in_band(frame: Frame, x: F8, y: F8, radius_pix: float) -> Bool:
    near = np.zeros(x.shape, bool)
    if frame.saturation is None:
        return near
    ny = frame.data.shape[0]
    strip = np.floor(y / _STRIP_ROWS)
    for index in np.unique(strip):
        members = np.flatnonzero(strip == index)
        y0 = max(0, int(np.ceil(y[members].min() - radius_pix)))
        y1 = min(ny, int(np.floor(y[members].max() + radius_pix)) + 1)
        if y0 >= y1:
            continue
        rows = read_rows(frame.data, y0, y1)
        with np.errstate(invalid="ignore"):
            # of a flat array, for which NumPy has a faster way; there are next to none
            saturated_y, saturated_x = np.divmod(np.flatnonzero(rows >= frame.saturation), rows.shape[1])
        if saturated_x.size:
            tree = cKDTree(np.column_stack([saturated_x, saturated_y + y0]))
            distance, _ = tree.query(np.column_stack([x[members], y[members]]))
            near[members] = distance <= radius_pix
    return near
