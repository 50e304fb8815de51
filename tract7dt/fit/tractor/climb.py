"""Climb to the maximum: damped Gauss-Newton steps with one damping a source.

The Tractor's own optimiser scales one joint step for the whole patch and cuts it to nothing where a single
parameter meets its bound; here each source is damped for itself and a parameter at its bound is held there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.optimise import FLOOR, TRUST
from tract7dt.fit.parameters import Layout
from tract7dt.fit.tractor.posterior import Point, Posterior
from tract7dt.types import F8, Bool

_DAMPING, _DAMPING_MIN, _DAMPING_MAX = 1e-3, 1e-7, 1e8
_TRIALS = 8
# A source that can gain less than this share of the tolerance is not moved, nor drawn again.
_STILL = 0.1
# What a source's step brought, as a share of what was promised, above which its damping falls and below which it
# rises.
_GOOD, _BAD = 0.5, 0.25
# Failures after which all sources are damped, not only those whose surroundings got worse.
_PATIENCE = 2
# Below this expected gain, The Tractor's derivatives are replaced by central differences of its models.
_FINE = 1.0


@dataclass
class Summit:
    """Where a climb ended.

    Attributes
    ----------
    point : Point
    gain : ndarray, float64 (S,)
        What a source could still gain by the quadratic approximation.
    last_gain : ndarray, float64 (S,)
        The same for the last step that moved it.
    moved : ndarray, int64 (S,)
        Iterations in which a source was moved.
    iterations : int
    status : str
        ``converged``, ``stalled`` (no step was uphill) or ``max_iters``.
    """

    point: Point
    gain: F8
    last_gain: F8
    moved: NDArray[np.int64]
    iterations: int
    status: str


def climb(posterior: Posterior, layout: Layout, theta: F8, max_iterations: int, tolerance: float) -> Summit:
    """Maximise over the free parameters of a layout.

    Parameters
    ----------
    posterior : Posterior
    layout : Layout
    theta : ndarray, float64 (S, 6)
        Start.
    max_iterations : int
    tolerance : float
        A source has converged when it can gain less than this.
    """
    n = posterior.n
    posterior.artist.start_stage(layout)
    point = posterior.point(theta)
    summit = Summit(point, np.zeros(n), np.zeros(n), np.zeros(n, np.int64), 0, "converged")
    damping, stale = np.full(n, _DAMPING), np.ones(n, bool)
    fine = False
    before: _Hill | None = None
    for done in range(max_iterations + 1):
        posterior.differentiate(point, layout, stale, fine)
        hill = _Hill(posterior, layout, point)
        if not fine and hill.gain.sum() < _FINE:
            hill, fine = _refined(posterior, layout, point), True
        if before is not None:
            _adapt(damping, before, hill)
        summit.point, summit.gain, summit.iterations = point, hill.gain, done
        if (hill.gain < tolerance).all():
            summit.status = "converged"
            break
        if done == max_iterations:
            summit.status = "max_iters"
            break
        active = hill.gain >= _STILL * tolerance
        trial = _uphill(posterior, hill, damping, active)
        if trial is None and not fine:
            fine, stale, damping, before = True, np.ones(n, bool), np.full(n, _DAMPING), None
            continue
        if trial is None:
            summit.status = "stalled"
            break
        point, stale, before = trial, active, hill
        summit.last_gain = np.where(active, hill.gain, summit.last_gain)
        summit.moved += active
    return summit


def _refined(posterior: Posterior, layout: Layout, point: Point) -> _Hill:
    """Gradient and curvature from central differences."""
    posterior.differentiate(point, layout, np.ones(posterior.n, bool), fine=True)
    return _Hill(posterior, layout, point)


class _Hill:
    """Gradient and curvature at a point, and the steps that follow from them."""

    def __init__(self, posterior: Posterior, layout: Layout, point: Point) -> None:
        self.layout, self.point, self.n = layout, point, posterior.n
        self.gradient, hessian = posterior.derivatives(point, layout)
        self.hessian = hessian + np.diag(FLOOR[layout.column])
        self.value = point.theta[layout.owner, layout.column]
        self.lower = posterior.parameters.lower[layout.owner, layout.column]
        self.upper = posterior.parameters.upper[layout.owner, layout.column]
        outward = (self.value <= self.lower) & (self.gradient < 0)
        outward |= (self.value >= self.upper) & (self.gradient > 0)
        known = np.diagonal(hessian) > 1e-12
        self.free = ~outward & known
        step = self._newton(np.zeros(len(self.free)), self.free)
        excess = self._excess(step)
        share = 1 / np.maximum(excess, 1.0)
        self.gain: F8 = (
            np.abs(np.bincount(layout.owner, 0.5 * self.gradient * step, self.n)) * share * (2 - share)
        )

    def _newton(self, damping: F8, free: Bool) -> F8:
        """Step of the free parameters: what would cross a bound is put on it, the rest solved again."""
        step = np.zeros(len(free))
        matrix = self.hessian + np.diag(damping * np.diagonal(self.hessian))
        use = free.copy()
        for _ in range(len(free) + 1):
            index = np.flatnonzero(use)
            if not len(index):
                break
            right = self.gradient[index] - matrix[np.ix_(index, np.flatnonzero(~use))] @ step[~use]
            step[index] = _solve(matrix[np.ix_(index, index)], right)
            low, high = self.value + step < self.lower, self.value + step > self.upper
            crossing = use & (low | high)
            if not crossing.any():
                break
            step = np.where(crossing, np.where(low, self.lower, self.upper) - self.value, step)
            use &= ~crossing
        return step

    def _excess(self, step: F8) -> F8:
        """Largest part of each source's step in units of what is trusted."""
        excess = np.zeros(self.n)
        np.maximum.at(excess, self.layout.owner, np.abs(step) / TRUST[self.layout.column])
        return excess

    def step(self, damping: F8, active: Bool) -> F8:
        """New shared parameters: active sources move as far as is trusted; ``damping`` is raised for that."""
        owner, column = self.layout.owner, self.layout.column
        free = self.free & active[owner]
        for _ in range(20):
            step = self._newton(damping[owner], free)
            too_far = self._excess(step) > 1
            if not too_far.any():
                break
            damping[too_far] = np.maximum(damping[too_far] * 4, 0.05)
        step = step / np.maximum(self._excess(step), 1.0)[owner]
        theta = self.point.theta.copy()
        theta[owner, column] = np.clip(self.value + step, self.lower, self.upper)
        return theta


def _solve(matrix: F8, right: F8) -> F8:
    """``matrix^-1 right`` on a unit diagonal; directions without curvature are not followed."""
    scale = 1 / np.sqrt(np.diagonal(matrix))
    values, vectors = np.linalg.eigh(matrix * scale[:, None] * scale)
    kept = values > 1e-9
    solved: F8 = scale * ((vectors[:, kept] / values[kept]) @ (vectors[:, kept].T @ (scale * right)))
    return solved


def _uphill(posterior: Posterior, hill: _Hill, damping: F8, active: Bool) -> Point | None:
    """A point that is higher, or None; ``damping`` is adapted in place."""
    for failures in range(_TRIALS):
        trial = posterior.point(hill.step(damping, active), hill.point, active)
        gain = trial.lnp - hill.point.lnp
        if np.isfinite(gain) and gain > 0:
            return trial
        blamed = active & (_local_gains(posterior, hill.point, trial) < 0)
        if failures >= _PATIENCE or not blamed.any():
            blamed = active
        damping[blamed] = np.clip(damping[blamed] * 10, 0.01, _DAMPING_MAX)
    return None


def _adapt(damping: F8, before: _Hill, after: _Hill) -> None:
    """Change the damping of each source by what its part of the last step brought; in place.

    Its part of the gain is the mean of the gradients at both ends times the step: these add up to the whole.
    """
    owner, column = before.layout.owner, before.layout.column
    step = (after.point.theta - before.point.theta)[owner, column]
    promised = np.bincount(owner, step * (before.gradient - 0.5 * before.hessian @ step), before.n)
    brought = np.bincount(owner, 0.5 * step * (before.gradient + after.gradient), before.n)
    moved = np.bincount(owner, np.abs(step), before.n) > 0
    good, bad = moved & (brought > _GOOD * promised), moved & (brought < _BAD * promised)
    damping[good] = np.maximum(damping[good] / 8, _DAMPING_MIN)
    damping[bad] = np.clip(damping[bad] * 5, 0.05, _DAMPING_MAX)


def _local_gains(posterior: Posterior, before: Point, after: Point) -> F8:
    """Gain in log-likelihood around each source, pixels weighted by its profile relative to its peak."""
    out = np.zeros(posterior.n)
    for b, row in enumerate(after.models):
        change = 0.5 * (before.residuals[b] ** 2 - after.residuals[b] ** 2)
        for s, drawn in enumerate(row):
            if drawn is not None:
                profile = np.maximum(drawn.images[0], 0)
                out[s] += float(np.sum(profile * change[drawn.window])) / max(float(profile.max()), 1e-30)
    return out
