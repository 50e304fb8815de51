"""Hessians with negative curvature, made positive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.linear import is_positive

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

# Couplings (correlations of two parameters) that tie sources into a group, and the most parameters of a group.
_COUPLED, _LARGEST_GROUP = (0.2, 0.05), 120


def make_positive(hessian: F8, free: Bool, owner: I8, unit: F8, floor: F8) -> bool:
    """Replace negative curvatures by their absolute values, in place; False if the Hessian stays indefinite.

    A step along such a direction then leads away from the saddle point instead of to it (Dauphin et al. 2014,
    arXiv:1406.2572). First sources are treated one by one, then groups of coupled ones, larger and larger until
    the whole is positive.

    Parameters
    ----------
    hessian : ndarray, float64 (n, n)
    free : ndarray, bool (n,)
        Parameters that count.
    owner : ndarray, int64 (n,)
        Source of every parameter.
    unit, floor : ndarray, float64 (n,)
        Trusted steps, in which directions are measured, and what is added to the diagonal in a step.
    """
    _turn_sources(hessian, free, owner, unit, floor)
    if is_positive(hessian, free, floor):
        return True
    use = np.flatnonzero(free)
    for threshold in _COUPLED:
        group = _groups(hessian, use, owner, threshold)
        for g in range(group.max() + 1):
            own = use[group[owner[use]] == g]
            if not 0 < len(own) <= _LARGEST_GROUP:
                continue
            block = hessian[np.ix_(own, own)]
            if not is_positive(block, np.ones(len(own), bool), floor[own]):
                hessian[np.ix_(own, own)] = _turned(block, unit[own])
        if is_positive(hessian, free, floor):
            return True
    return False


def _turn_sources(hessian: F8, free: Bool, owner: I8, unit: F8, floor: F8) -> None:
    """The same for the block of every source by itself; all blocks of a size at once."""
    start = np.flatnonzero(np.diff(owner, prepend=-1))
    count = np.diff(start, append=len(owner))
    for size in np.unique(count):
        place = start[count == size][:, None] + np.arange(size)
        rows, columns = place[:, :, None], place[:, None, :]
        both = free[rows] & free[columns]
        block = np.where(both, hessian[rows, columns] * unit[rows] * unit[columns], 0.0)
        diagonal = np.arange(size)
        damped = block.copy()
        damped[:, diagonal, diagonal] += (floor * unit**2)[place]
        bad = np.flatnonzero(np.linalg.eigvalsh(damped)[:, 0] <= 0)
        if len(bad) == 0:
            continue
        values, vectors = np.linalg.eigh(block[bad])
        missing = (vectors * (np.abs(values) - values)[:, None, :]) @ vectors.swapaxes(1, 2)
        rows, columns = rows[bad], columns[bad]
        hessian[rows, columns] += np.where(both[bad], missing / (unit[rows] * unit[columns]), 0.0)


def _turned(block: F8, unit: F8) -> F8:
    """A symmetric matrix with the absolute values of its eigenvalues, in units of the trusted steps."""
    values, vectors = np.linalg.eigh(block * unit[:, None] * unit)
    missing = (vectors * (np.abs(values) - values)) @ vectors.T
    turned: F8 = block + missing / unit[:, None] / unit
    return turned


def _groups(hessian: F8, use: I8, owner: I8, threshold: float) -> I8:
    """Group number of every source; those with parameters coupled above a threshold share one."""
    from scipy.sparse import coo_array  # few patches need it, and it is slow to import
    from scipy.sparse.csgraph import connected_components

    size = np.sqrt(np.abs(np.diagonal(hessian))) + 1e-30
    coupling = np.abs(hessian[np.ix_(use, use)]) / size[use] / size[use][:, None]
    rows, columns = np.nonzero(coupling > threshold)
    mine, n = owner[use], int(owner.max()) + 1
    graph = coo_array((np.ones(len(rows)), (mine[rows], mine[columns])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)
