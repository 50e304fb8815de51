"""Maximisation of the log-posterior over the shared parameters.

What differs from the textbook:

- Damping belongs to a source, not to the patch (:mod:`tract7dt.fit.damping`).
- Near the maximum a source's exact curvature replaces Gauss-Newton's (:mod:`tract7dt.fit.curvature`).
- Convergence belongs to a source: its share of the expected gain of an undamped step. A source without anything
  to gain is neither moved nor drawn again, so late iterations cost only what still moves.
- On the way stamps are small; near the maximum each source gets the stamp that it needs there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.damping import TRUST, Damping, excess_of
from tract7dt.fit.evaluate import Evaluator, Point
from tract7dt.fit.linear import solve, solve_blocks, solve_positive
from tract7dt.fit.parameters import Layout, from_steps, to_steps
from tract7dt.fit.residuals import sum_of_squares
from tract7dt.fit.saddle import make_positive

__all__ = ["FLOOR", "TRUST", "Maximum", "Optimiser"]

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

log = logging.getLogger(__name__)

#: Curvature added to the Hessian of every step, so that a flat direction is not followed for ever.
FLOOR: F8 = np.array([1e-4, 1e-4, 1e-2, 1e-2, 1e-2, 1e-2])
# Stamps get their final sizes when the expected gain is this many tolerances: a step or two before the end.
_SETTLE = 50.0
# How much more than the tolerance the joint step may promise a converged source.
_JOINT = 50.0
# After this many quarters of the iterations stamps get their final sizes in any case, and sources that are still
# expected to gain this many tolerances wait until the others are done: their steps, tried and taken back, would
# keep the others from settling.
_LATE, _WAIT = 3, 100.0
# A parameter this near to its bound is at it: on its way through log re it is rounded.
_EDGE = 1e-9
# A loss above this is never taken for rounding.
_MOST_NOISE = 1.0
# Steps in a row that promised or brought less than the tolerance before a stage counts as stalled.
_IDLE = 3
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
        self.damping = Damping(self.owner, self.column, self.n)
        self.moved = np.zeros(self.n, np.int64)
        self.last_gain = np.zeros(self.n)
        self.iteration = self.tries = self.idle = self.rejected = 0
        self.total = 0.0

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
            Near the maximum give every source the stamp that it needs there, and go on: stamps that depend on the
            way would make the log-posterior depend on it too, by 0.1 or so.
        """
        self._expand()
        status = ""
        while not status:
            active = self.expected > freeze
            done = self.expected.sum() < tolerance or not active.any()
            late = 4 * max(self.iteration, self.tries // 2) >= _LATE * max_iterations
            if done and self.waiting.any():
                self._end_waiting()
            elif settle and (done or late or self.expected.sum() < _SETTLE * tolerance):
                settle = False
                self._settle()
            elif done:
                status = "converged"
            elif self.iteration >= max_iterations or self.tries >= 2 * max_iterations:
                status = "max_iters"
            else:
                status = self._try_step(active, max_iterations, tolerance, enough)
        if settle:
            self._settle()
        self._redraw(self.evaluator.overdrawn())
        if self.waiting.any():
            self._end_waiting()
        own, expected = self._prospects(self.gradient, self.hessian, self.free, tolerance)
        found = Maximum(self.point, status, self.iteration, self.moved, expected, own, self.last_gain)
        if found.converged(tolerance).all():
            # the sum over many sources may never get below the tolerance, though each of them has
            found.status = "converged"
        return found

    # ---------------------------------------------------------------- steps
    def _vector(self) -> F8:
        """Free parameters in the coordinates of steps, in which also their bounds are."""
        return to_steps(self.point.theta)[self.owner, self.column]

    def _expand(self) -> None:
        """Derivatives at the point, free parameters, undamped step and its expected gain by source."""
        self.gradient, self.hessian = self.evaluator.derivatives(self.point, self.newton)
        vector = self._vector()
        outward = ((vector <= self.lower + _EDGE) & (self.gradient < 0)) | (
            (vector >= self.upper - _EDGE) & (self.gradient > 0)
        )
        self.free = ~outward & ~self.waiting[self.owner]
        step = solve_positive(self.hessian, self.gradient, self.free, self.floor)
        if step is None:
            unit = TRUST[self.column]
            if self.newton.any() and not make_positive(self.hessian, self.free, self.owner, unit, self.floor):
                self.newton[:] = False
                self.gradient, self.hessian = self.evaluator.derivatives(self.point, self.newton)
            step = solve(self.hessian, self.gradient, self.free, self.floor)
        self.step = step
        self.expected = np.abs(np.bincount(self.owner, 0.5 * self.gradient * step, self.n))

    def _redraw(self, which: Bool | None, recentre: bool = False) -> bool:
        """Draw some sources again where they are; False if there are none."""
        if which is None:
            return False
        again = self.evaluator.evaluate(self.point.theta, which, recentre=recentre)
        self.point = self.evaluator.accept(again)
        return True

    def _settle(self) -> None:
        """Give every source the stamp that it needs at the point."""
        if self._redraw(self.evaluator.settle_stamps(), recentre=True):
            self._expand()

    def _end_waiting(self) -> None:
        self.waiting[:] = False
        self._expand()

    def _try_step(self, active: Bool, max_iterations: int, tolerance: float, enough: float) -> str:
        """Move the active sources and keep what helps; returns how the stage ended, or "" if it has not."""
        self.tries += 1
        theta, predicted = self._damped_step(active)
        changed = (theta != self.point.theta).any(axis=1)
        if not changed.any():
            return "stalled"
        trial = self.evaluator.evaluate(theta, changed, compare=True)
        gain, local = trial.gain, trial.local_gain
        promised = float(predicted.sum())
        log.debug("step %d: lnp %.4f gain %.3g predicted %.3g", self.tries, self.point.lnp, gain, promised)
        if gain >= 0 or self._is_noise(gain, promised):
            self.idle = self.idle + 1 if max(gain, promised) < tolerance else 0
            self._take(trial, local, predicted, gain)
            if enough > 0 and gain < enough * self.total:
                return "converged"
            self.newton |= (self.expected < self.evaluator.options.newton_below) & ~self.waiting
            self._expand()
            if self.iteration == _LATE * max_iterations // 4:
                self.waiting = self.expected > _WAIT * tolerance
                if self.waiting.any():
                    self._expand()
        else:
            self.rejected += 1
            self.idle = self.idle + 1 if promised < tolerance else 0
            self.damping.tighten(local, predicted, changed, self.rejected)
            if self._redraw(self.evaluator.outdated_stamps()):
                self._expand()
        return "stalled" if self.idle >= _IDLE or self.damping.spent(changed) else ""

    def _take(self, trial: Point, local: F8, predicted: F8, gain: float) -> None:
        """Make a trial the current point, with the stamps that it turned out to need."""
        self.rejected = 0
        self.iteration += 1
        self.moved += trial.changed
        self.total += gain
        self.last_gain = np.where(trial.changed, local, self.last_gain)
        self.damping.relax(local, predicted, gain)
        self.point = self.evaluator.accept(trial)
        self._redraw(self.evaluator.adapt_stamps(self.iteration in _SHRINK_AFTER))

    def _damped_step(self, active: Bool) -> tuple[F8, F8]:
        """New parameters within trust and bounds, and the gain they promise by source."""
        before = self._vector()
        moving = self.free & active[self.owner]
        step = self.damping.step(self.point.theta, self.gradient, self.hessian, self.floor, moving, self.step)
        move = np.where(step != 0, np.clip(before + step, self.lower, self.upper) - before, 0.0)
        coordinates = to_steps(self.point.theta)
        coordinates[self.owner, self.column] += move
        still = np.bincount(self.owner, move != 0, self.n) == 0
        # to the last digit: what has not moved is not drawn again
        theta = np.where(still[:, None], self.point.theta, from_steps(coordinates))
        gain = move * (self.gradient - 0.5 * (self.hessian @ move))
        promised: F8 = np.bincount(self.owner, gain, self.n).astype(float)
        return theta, promised

    # ---------------------------------------------------------------- what was and will be gained
    def _prospects(self, gradient: F8, hessian: F8, free: Bool, tolerance: float) -> tuple[F8, F8]:
        """Gain that a step of each source alone promises, and one of all that have next to nothing to gain alone.

        A source that is still to move is held where it is in the second: what it would do to its neighbours
        when it moves is its own doing. Steps within trust; float64 (S,) each.
        """
        start = np.searchsorted(self.owner, np.arange(self.n + 1))
        own = self._promise(gradient, solve_blocks(hessian, gradient, free, self.floor, start))
        settled = own < tolerance
        together = self._promise(gradient, solve(hessian, gradient, free & settled[self.owner], self.floor))
        return own, np.where(settled, together, own)

    def _promise(self, gradient: F8, step: F8) -> F8:
        """Expected gain of a step, every source's part of it cut to trust; float64 (S,)."""
        excess = excess_of(step, TRUST[self.column], self.owner, self.n)
        share = np.minimum(1.0, 1 / np.maximum(excess, 1e-9))
        gain: F8 = np.abs(np.bincount(self.owner, 0.5 * gradient * step, self.n)) * share * (2 - share)
        return gain

    def _is_noise(self, loss: float, promised: float) -> bool:
        """Whether a loss is no more than rounding, and the promised gain could not be told from it.

        The residuals are float32: exact to 1e-7 of the data. Where a bright star leaves large residuals, the
        sum of their squares is uncertain by much more than where they are noise.
        """
        if loss < -_MOST_NOISE:
            return False
        data = self.evaluator.scene.data
        noise = 1e-7 * np.sqrt(sum(map(sum_of_squares, data, self.point.residuals)) + data.size)
        return loss > -2 * noise and promised < 10 * noise
