"""Maximisation of the log-posterior over the shared parameters: Levenberg-Marquardt, damped source by source.

What differs from the textbook:

- The damping belongs to a source, not to the patch: a source whose own surroundings got worse is damped, its
  neighbours go on. Limits on a step (``TRUST``) are met by damping that source and solving again; scaling a
  joint step of blended sources would spoil its direction.
- Near the maximum a source's exact curvature replaces Gauss-Newton's (:mod:`tract7dt.fit.curvature`).
- Convergence belongs to a source: its share of the expected gain of an undamped step. A source without anything
  to gain is neither moved nor drawn again, so late iterations cost only what still moves.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tract7dt.fit.evaluate import Evaluator, Point
from tract7dt.fit.parameters import EE1, LOG_N, Layout
from tract7dt.fit.residuals import local_gain

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

log = logging.getLogger(__name__)

#: Largest step of x, y (pix), log re, ee1, ee2, ln n; for the ee it grows with their square.
TRUST: F8 = np.array([1.0, 1.0, 0.7, 0.5, 0.5, 0.4])
#: Curvature added to the Hessian of every step, so that a flat direction is not followed for ever.
FLOOR: F8 = np.array([1e-4, 1e-4, 1e-2, 1e-2, 1e-2, 1e-2])
_LAMBDA_START, _LAMBDA_MIN, _LAMBDA_MAX = 1e-3, 1e-7, 1e8
# A source that was to bring less than this share of the gain is not blamed when it fails to come.
_CULPRIT = 0.02
# Couplings (correlations of two parameters) that tie sources into a group, and the most parameters of a group.
_COUPLED, _LARGEST_GROUP = (2.0, 0.2, 0.05), 120
# Stamps get their final sizes when the expected gain is this many tolerances: a step or two before the end.
_SETTLE = 50.0
# How much more than the tolerance the joint step may promise a converged source.
_JOINT = 50.0
# After this many quarters of the iterations, sources that are still expected to gain this many tolerances wait
# until the others are done: their steps, tried and taken back, would keep the others from settling.
_WAIT_AFTER, _WAIT = 3, 100.0
# A loss above this is never taken for rounding.
_MOST_NOISE = 1.0
# Iterations after which stamps may shrink; a new size changes the objective by about 0.01, so a late change
# would keep the optimiser busy. They may always grow.
_SHRINK_AFTER = (1, 4, 9)


@dataclass
class Maximum:
    """Outcome of one stage.

    Attributes
    ----------
    point : Point
    status : str
        ``converged``, ``stalled`` or ``max_iters``.
    iterations : int
    moved : ndarray, int64 (S,)
        Iterations in which a source was moved.
    expected : ndarray, float64 (S,)
        Gain in log-posterior that a step of all settled sources still promises, by source.
    own : ndarray, float64 (S,)
        Gain that a step of this source alone still promises.
    last_gain : ndarray, float64 (S,)
        Gain in the source's surroundings when it last moved.
    """

    point: Point
    status: str
    iterations: int
    moved: I8
    expected: F8
    own: F8
    last_gain: F8

    def converged(self, tolerance: float) -> Bool:
        """Sources that have nothing more to gain, bool (S,).

        What a source's own step promises is below the tolerance. In the joint step of all such sources it may be
        ``_JOINT`` times as much: a few tenths of a sigma.
        """
        settled: Bool = np.logical_and(self.own < tolerance, self.expected < _JOINT * tolerance)
        return settled


class Optimiser:
    """One stage of a fit.

    Parameters
    ----------
    evaluator : Evaluator
    layout : Layout
        Which parameters are free.
    theta : ndarray, float64 (S, 6)
        Start.
    """

    def __init__(self, evaluator: Evaluator, layout: Layout, theta: F8) -> None:
        self.evaluator, self.layout = evaluator, layout
        self.n = evaluator.n
        self.owner, self.column = layout.owner, layout.column
        self.lower = evaluator.parameters.lower[self.owner, self.column]
        self.upper = evaluator.parameters.upper[self.owner, self.column]
        self.floor = FLOOR[self.column]
        self.point = evaluator.start_stage(layout, theta)
        self.newton = np.zeros(self.n, bool)
        self.waiting = np.zeros(self.n, bool)
        self.damping = np.full(self.n, _LAMBDA_START)
        self.moved = np.zeros(self.n, np.int64)
        self.last_gain = np.zeros(self.n)

    def maximise(
        self,
        max_iterations: int,
        tolerance: float,
        freeze: float,
        enough: float = 0.0,
        settle: bool = False,
    ) -> Maximum:
        """Iterate until nothing is to be gained.

        Parameters
        ----------
        max_iterations : int
            Steps that helped; of all, twice as many are tried.
        tolerance : float
            Expected gain of the whole patch at which to stop.
        freeze : float
            Expected gain below which a source is left alone; when all are, the stage is over.
        enough : float
            Stop as converged after an iteration that brought less than this share of the stage's whole gain.
        settle : bool
            At the maximum give every source the stamp that it needs there, and go on: stamps that depend on the
            way would make the log-posterior depend on it too, by 0.1 or so.
        """
        iteration = tries = idle = rejected = 0
        total = 0.0
        gradient, hessian, free, step, expected = self._newton_step()
        status = "max_iters"
        while True:
            active = expected > freeze
            done = expected.sum() < tolerance or not active.any()
            if done and self.waiting.any():
                self.waiting[:] = False
                gradient, hessian, free, step, expected = self._newton_step()
                continue
            if done or (settle and expected.sum() < _SETTLE * tolerance):
                redraw = self.evaluator.settle_stamps() if settle else None
                settle = False
                if redraw is None and done:
                    status = "converged"
                    break
            else:
                redraw = None
            if redraw is not None:
                again = self.evaluator.evaluate(self.point.theta, redraw, recentre=True)
                self.point = self.evaluator.accept(again)
                gradient, hessian, free, step, expected = self._newton_step()
                continue
            if iteration >= max_iterations or tries >= 2 * max_iterations:
                break
            tries += 1
            new, predicted = self._damped_step(gradient, hessian, free, step, active)
            changed = np.bincount(self.owner, new != self._vector(), self.n) > 0
            if not changed.any():
                status = "stalled"
                break
            trial = self.evaluator.evaluate(self._theta(new), changed)
            gain, local = self._gain(trial)
            log.debug(
                "step %d: lnp %.4f gain %.3g predicted %.3g",
                tries,
                self.point.lnp,
                gain,
                predicted.sum(),
            )
            if gain >= 0 or self._is_noise(gain, predicted.sum()):
                rejected = 0
                iteration += 1
                self.moved += changed
                total += gain
                self.last_gain = np.where(changed, local, self.last_gain)
                self._relax(local, predicted, gain)
                self.point = self.evaluator.accept(trial)
                idle = idle + 1 if max(gain, predicted.sum()) < tolerance else 0
                redraw = self.evaluator.adapt_stamps(iteration in _SHRINK_AFTER)
                if redraw is not None:
                    self.point = self.evaluator.accept(self.evaluator.evaluate(self.point.theta, redraw))
                if enough > 0 and gain < enough * total:
                    status = "converged"
                    break
                self.newton |= (expected < self.evaluator.options.newton_below) & ~self.waiting
                gradient, hessian, free, step, expected = self._newton_step()
                if iteration == _WAIT_AFTER * max_iterations // 4:
                    self.waiting = expected > _WAIT * tolerance
                    if self.waiting.any():
                        gradient, hessian, free, step, expected = self._newton_step()
            else:
                rejected += 1
                idle = idle + 1 if predicted.sum() < tolerance else 0
                self._tighten(local, predicted, changed, rejected)
                redraw = self.evaluator.outdated_stamps()
                if redraw is not None:
                    self.point = self.evaluator.accept(self.evaluator.evaluate(self.point.theta, redraw))
                    gradient, hessian, free, step, expected = self._newton_step()
            if idle >= 3 or self.damping[changed].min() >= _LAMBDA_MAX:
                status = "stalled"
                break
        if self.waiting.any():
            self.waiting[:] = False
            gradient, hessian, free, step, expected = self._newton_step()
        own, expected = self._prospects(gradient, hessian, free, tolerance)
        return Maximum(self.point, status, iteration, self.moved, expected, own, self.last_gain)

    # ---------------------------------------------------------------- steps
    def _vector(self) -> F8:
        return self.point.theta[self.owner, self.column]

    def _theta(self, vector: F8) -> F8:
        theta = self.point.theta.copy()
        theta[self.owner, self.column] = vector
        return theta

    def _newton_step(self) -> tuple[F8, F8, Bool, F8, F8]:
        """Derivatives, free parameters, undamped step and its expected gain by source."""
        gradient, hessian = self.evaluator.derivatives(self.point, self.newton)
        vector = self._vector()
        free = ~(((vector <= self.lower) & (gradient < 0)) | ((vector >= self.upper) & (gradient > 0)))
        free &= ~self.waiting[self.owner]
        if self.newton.any() and not self._make_positive(hessian, free):
            self.newton[:] = False
            gradient, hessian = self.evaluator.derivatives(self.point, self.newton)
        step = solve(hessian, gradient, free, self.floor)
        expected = np.abs(np.bincount(self.owner, 0.5 * gradient * step, self.n))
        return gradient, hessian, free, step, expected

    def _make_positive(self, hessian: F8, free: Bool) -> bool:
        """Replace negative curvatures by their absolute values, in place; False if the Hessian stays indefinite.

        A step along such a direction then leads away from the saddle point instead of to it (Dauphin et al. 2014,
        arXiv:1406.2572), in units of the trusted steps. Groups of coupled sources are treated one by one,
        larger and larger ones until the whole is positive.
        """
        use = np.flatnonzero(free)
        for threshold in _COUPLED:
            if _is_positive(hessian, use, self.floor):
                return True
            group = self._groups(hessian, use, threshold)
            for g in range(group.max() + 1):
                own = use[group[self.owner[use]] == g]
                if 0 < len(own) <= _LARGEST_GROUP and not _is_positive(hessian, own, self.floor):
                    unit = TRUST[self.column[own]]
                    values, vectors = np.linalg.eigh(hessian[np.ix_(own, own)] * unit[:, None] * unit)
                    missing = (vectors * (np.abs(values) - values)) @ vectors.T
                    hessian[np.ix_(own, own)] += missing / unit[:, None] / unit
        return _is_positive(hessian, use, self.floor)

    def _groups(self, hessian: F8, use: I8, threshold: float) -> I8:
        """Group number of every source; those with parameters coupled above a threshold share one."""
        size = np.sqrt(np.abs(np.diagonal(hessian))) + 1e-30
        coupling = np.abs(hessian[np.ix_(use, use)]) / size[use] / size[use][:, None]
        rows, columns = np.nonzero(coupling > threshold)
        owner = self.owner[use]
        graph = coo_array((np.ones(len(rows)), (owner[rows], owner[columns])), shape=(self.n, self.n))
        return connected_components(graph, directed=False)[1].astype(np.int64)

    def _prospects(self, gradient: F8, hessian: F8, free: Bool, tolerance: float) -> tuple[F8, F8]:
        """Gain that a step of each source alone promises, and one of all that have next to nothing to gain alone.

        A source that is still to move is held where it is in the second: what it would do to its neighbours
        when it moves is its own doing. Steps within trust; float64 (S,) each.
        """
        own = np.zeros(self.n)
        for s in np.unique(self.owner):
            own[s] = self._promise(gradient, hessian, free & (self.owner == s))[s]
        settled = own < tolerance
        together = self._promise(gradient, hessian, free & settled[self.owner])
        return own, np.where(settled, together, own)

    def _promise(self, gradient: F8, hessian: F8, free: Bool) -> F8:
        """Expected gain of a step of some parameters, every source's part of it cut to trust; float64 (S,)."""
        step = solve(hessian, gradient, free, self.floor)
        excess = _excess(step, TRUST[self.column], self.owner, self.n)
        share = np.minimum(1.0, 1 / np.maximum(excess, 1e-9))
        gain: F8 = np.abs(np.bincount(self.owner, 0.5 * gradient * step, self.n)) * share * (2 - share)
        return gain

    def _damped_step(self, gradient: F8, hessian: F8, free: Bool, step: F8, active: Bool) -> tuple[F8, F8]:
        """New parameter vector within trust and bounds, and the gain it promises by source."""
        owner, vector = self.owner, self._vector()
        theta = self.point.theta
        trust = TRUST[self.column]
        ellipticity = (self.column == EE1) | (self.column == LOG_N - 1)
        trust = np.where(ellipticity, trust * (1 + (theta[:, EE1:LOG_N] ** 2).sum(axis=1))[owner], trust)
        # at least what moves the log-posterior by 1/2 over a trusted step: a flat direction must feel the damping
        diagonal = np.maximum(np.diagonal(hessian), TRUST[self.column] ** -2.0)
        damping = np.maximum(self.damping, _LAMBDA_MIN)
        moving = free & active[owner]
        step = np.where(moving, step, 0.0)
        excess = _excess(step, trust, owner, self.n)
        if (damping[active] > 1e-5).any() or (excess > 1.01).any():
            for _ in range(8):
                step = solve(hessian, gradient, moving, damping[owner] * diagonal + self.floor)
                excess = _excess(step, trust, owner, self.n)
                if (excess <= 1.01).all():
                    break
                damping = np.where(excess > 1, np.maximum(damping * 3, 0.03) * excess, damping)
        shrink = np.minimum(1.0, 1 / np.maximum(excess, 1e-9))
        new = np.clip(vector + step * shrink[owner], self.lower, self.upper)
        move = new - vector
        promised: F8 = np.bincount(owner, move * (gradient - 0.5 * (hessian @ move)), self.n).astype(float)
        return new, promised

    # ---------------------------------------------------------------- bookkeeping of the damping
    def _gain(self, trial: Point) -> tuple[float, F8]:
        """Gain in log-posterior, and its part in the surroundings of every source."""
        local = np.zeros(self.n)
        gain = trial.log_prior - self.point.log_prior
        for before, after in zip(self.point.residuals, trial.residuals):
            gain += local_gain(before, after, self.point.stamps.box, local)
        return float(gain), local + trial.source_log_prior - self.point.source_log_prior

    def _is_noise(self, loss: float, promised: float) -> bool:
        """Whether a loss is no more than rounding, and the promised gain could not be told from it.

        The residuals are float32: exact to 1e-7 of the data. Where a bright star leaves large residuals, the
        sum of their squares is uncertain by much more than where they are noise.
        """
        if loss < -_MOST_NOISE:
            return False
        pairs = zip(self.evaluator.scene.data, self.point.residuals, strict=True)
        noise = 1e-7 * np.sqrt(sum(float(np.sum((d * r) ** 2)) + d.size for d, r in pairs))
        return loss > -2 * noise and promised < 10 * noise

    def _relax(self, local: F8, predicted: F8, gain: float) -> None:
        """After a step that helped: less damping, but for sources that fell short of their promise."""
        short = (local < 0.25 * predicted) & (predicted > _CULPRIT * predicted.sum())
        factor = 1.0 if gain > 0.5 * predicted.sum() else 4.0
        raised = np.maximum(self.damping * factor, _LAMBDA_START)
        self.damping = np.clip(np.where(short, raised, self.damping * 0.1), _LAMBDA_MIN, 1e6)

    def _tighten(self, local: F8, predicted: F8, changed: Bool, rejected: int) -> None:
        """After a step that harmed: more damping for the culprits, for all that moved if there is none."""
        bad = (local < 0) & changed & (predicted > _CULPRIT * predicted.sum())
        if not bad.any() or rejected > 1:
            bad = changed
        self.damping = np.where(
            bad, np.clip(np.maximum(self.damping * 10, 0.1), 0, _LAMBDA_MAX), self.damping
        )


def _excess(step: F8, trust: F8, owner: I8, n: int) -> F8:
    """Largest ratio of a step to its limit, by source."""
    excess = np.zeros(n)
    np.maximum.at(excess, owner, np.abs(step) / trust)
    return excess


def _scaled(hessian: F8, use: I8, damping: F8) -> tuple[F8, F8]:
    """Damped Hessian of the parameters ``use`` with unit diagonal, and the scale."""
    h = hessian[np.ix_(use, use)]
    h[np.arange(len(use)), np.arange(len(use))] += damping[use]
    scale = 1 / np.sqrt(np.maximum(np.abs(np.diagonal(h)), 1e-30))
    h *= scale[:, None]
    h *= scale
    return h, scale


def _is_positive(hessian: F8, use: I8, damping: F8) -> bool:
    """Whether the damped Hessian of the parameters ``use`` is positive definite."""
    return len(use) == 0 or dpotrf(_scaled(hessian, use, damping)[0], lower=1, clean=0)[1] == 0


def solve(hessian: F8, gradient: F8, free: Bool, damping: F8) -> F8:
    """Step ``(H + damping)^-1 g`` over the free parameters, 0 for the others.

    A matrix that is not positive definite is replaced by the one with the absolute values of its eigenvalues,
    so that the step always goes uphill.
    """
    step = np.zeros_like(gradient)
    use = np.flatnonzero(free)
    if len(use) == 0:
        return step
    h, scale = _scaled(hessian, use, damping)
    factor, info = dpotrf(h, lower=1, clean=0)
    if info == 0:
        step[use] = scale * dpotrs(factor, scale * gradient[use], lower=1)[0]
    else:
        values, vectors = np.linalg.eigh(h)
        step[use] = scale * (
            vectors @ ((vectors.T @ (scale * gradient[use])) / np.maximum(np.abs(values), 1e-6))
        )
    return step
