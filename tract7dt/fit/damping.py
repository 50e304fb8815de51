"""Damping of steps, source by source (Levenberg-Marquardt).

A source whose own surroundings got worse is damped, its neighbours go on. Limits on a step (``TRUST``) are met by
damping that source and solving again; scaling a joint step of blended sources would spoil its direction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.linear import solve
from tract7dt.fit.parameters import EE1, LOG_N

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: Largest step of x, y (pix), log re, ee1, ee2, ln n; for the ee it grows with their square.
TRUST: F8 = np.array([1.0, 1.0, 0.7, 0.5, 0.5, 0.4])
_LAMBDA_START, _LAMBDA_MIN, _LAMBDA_MAX = 1e-3, 1e-7, 1e8
# A source that was to bring less than this share of the gain is not blamed when it fails to come.
_CULPRIT = 0.02


class Damping:
    """One damping a source.

    Parameters
    ----------
    owner, column : ndarray, int64 (nT,)
        Source and place in ``NAMES`` of every free parameter.
    n : int
        Sources.
    """

    def __init__(self, owner: I8, column: I8, n: int) -> None:
        self.owner, self.column, self.n = owner, column, n
        self.values = np.full(n, _LAMBDA_START)

    def spent(self, changed: Bool) -> bool:
        """Whether all sources that were moved are damped as much as can be."""
        return bool(self.values[changed].min() >= _LAMBDA_MAX)

    def step(self, theta: F8, gradient: F8, hessian: F8, floor: F8, moving: Bool, undamped: F8) -> F8:
        """Damped step of the moving parameters, every source's within trust; 0 for the others.

        Parameters
        ----------
        theta : ndarray, float64 (S, 6)
        gradient, hessian : ndarray, float64 (nT,), (nT, nT)
        floor : ndarray, float64 (nT,)
            Added to the diagonal in any case.
        moving : ndarray, bool (nT,)
        undamped : ndarray, float64 (nT,)
            Step of all free parameters, which is taken where nothing needs damping.
        """
        owner, trust = self.owner, TRUST[self.column]
        ellipticity = (self.column == EE1) | (self.column == LOG_N - 1)
        trust = np.where(ellipticity, trust * (1 + (theta[:, EE1:LOG_N] ** 2).sum(axis=1))[owner], trust)
        # at least what moves the log-posterior by 1/2 over a trusted step: a flat direction must feel the damping
        diagonal = np.maximum(np.diagonal(hessian), TRUST[self.column] ** -2.0)
        damping = np.maximum(self.values, _LAMBDA_MIN)
        step = np.where(moving, undamped, 0.0)
        excess = excess_of(step, trust, owner, self.n)
        if (damping[owner[moving]] > 1e-5).any() or (excess > 1.01).any():
            for _ in range(8):
                step = solve(hessian, gradient, moving, damping[owner] * diagonal + floor)
                excess = excess_of(step, trust, owner, self.n)
                if (excess <= 1.01).all():
                    break
                damping = np.where(excess > 1, np.maximum(damping * 3, 0.03) * excess, damping)
        shrink = np.minimum(1.0, 1 / np.maximum(excess, 1e-9))
        within: F8 = step * shrink[owner]
        return within

    def relax(self, local: F8, predicted: F8, gain: float) -> None:
        """After a step that helped: less damping, but for sources that fell short of their promise."""
        short = (local < 0.25 * predicted) & (predicted > _CULPRIT * predicted.sum())
        factor = 1.0 if gain > 0.5 * predicted.sum() else 4.0
        raised = np.maximum(self.values * factor, _LAMBDA_START)
        self.values = np.clip(np.where(short, raised, self.values * 0.1), _LAMBDA_MIN, 1e6)

    def tighten(self, local: F8, predicted: F8, changed: Bool, rejected: int) -> None:
        """After a step that harmed: more damping for the culprits, for all that moved if there is none."""
        bad = (local < 0) & changed & (predicted > _CULPRIT * predicted.sum())
        if not bad.any() or rejected > 1:
            bad = changed
        self.values = np.where(bad, np.clip(np.maximum(self.values * 10, 0.1), 0, _LAMBDA_MAX), self.values)


def excess_of(step: F8, trust: F8, owner: I8, n: int) -> F8:
    """Largest ratio of a step to its limit, by source."""
    excess = np.zeros(n)
    np.maximum.at(excess, owner, np.abs(step) / trust)
    return excess
