"""Which halo sources matter to the sources that a patch is fitted for.

A source of the halo is in a patch for its light on the patch's own sources; its own result comes from another
patch. Most halo sources have none there. Their positions and shapes are held, only their fluxes are fitted: they
would cost as much as the patch's own sources, up to half of a fit, for nothing that is kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.evaluate import Evaluator, Point

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

# A source matters to another if the flux of that one would move by more than this many sigma, were it not there.
_MATTERS = 0.02


def idle_halo(influence: F8, owned: Bool) -> Bool:
    """Halo sources that do not reach the patch's own, nor another one that does.

    Parameters
    ----------
    influence : ndarray, float64 (S, S)
        From :func:`influence_of`.
    owned : ndarray, bool (S,)
        The patch's own sources. Without any, no source is idle.

    Returns
    -------
    ndarray, bool (S,)
    """
    if owned.all() or not owned.any():
        return np.zeros(len(owned), bool)
    fitted = owned.copy()
    reaches = influence > _MATTERS
    while True:
        # what reaches a halo source that matters, matters
        more = ~fitted & reaches[:, fitted].any(axis=1)
        if not more.any():
            return np.asarray(~fitted, bool)
        fitted |= more


def influence_of(point: Point, evaluator: Evaluator) -> F8:
    """By how many sigma the fluxes of a source (column) would move without another one (row), float64 (S, S).

    As if there were but the two, ``S/N`` of the one times the cosine of their whitened models; all bands in which
    they are live in quadrature. ``point`` is the evaluator's current one.
    """
    assert evaluator.layout is not None
    columns = evaluator.layout.flux_columns[:-1]
    total = np.zeros((evaluator.n, evaluator.n))
    for matrix, flux, live in zip(point.matrix, point.flux, evaluator.live, strict=True):
        overlap = matrix[columns[:, None], columns]
        size = np.sqrt(np.where(live, np.diagonal(overlap), 0.0))
        moved = np.divide(overlap * flux[:, None], size, out=np.zeros_like(overlap), where=size > 0)
        total += moved**2
    np.fill_diagonal(total, 0.0)
    influence: F8 = np.sqrt(total)
    return influence
