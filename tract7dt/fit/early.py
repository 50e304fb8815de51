"""The first two stages of a staged fit: positions held, then positions alone. They only prepare the third.

So they need not see everything. They look at the third of the bands that tell most, and leave a source as soon as
there is little to gain for it. After them, halo sources that do not matter to the patch's own are held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.evaluate import Evaluator, Point
from tract7dt.fit.halo import idle_halo, influence_of
from tract7dt.fit.optimise import Optimiser
from tract7dt.fit.options import EngineOptions
from tract7dt.fit.parameters import build_layout

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

# No source counts for more than this (S/N squared) where the bands are chosen: a bright star is well known in any.
_ENOUGH = 100.0


def run_early_stages(
    start: Point, evaluator: Evaluator, theta: F8, owned: Bool, tolerance: float, max_iterations: int
) -> tuple[F8, list[Mapping[str, Any]]]:
    """Positions held, then positions alone, each until a step promises less than ``tolerance`` for every source.

    Halo sources that do not matter and have next to nothing to gain are marked as held where they are then.

    Parameters
    ----------
    start : Point
        The current point of a stage without derivatives.
    evaluator : Evaluator
    theta : ndarray, float64 (S, 6)
    owned : ndarray, bool (S,)
        The patch's own sources.
    tolerance : float
    max_iterations : int

    Returns
    -------
    theta : ndarray, float64 (S, 6)
    summaries : list of mapping
    """
    parameters, options = evaluator.parameters, evaluator.options
    live, influence = evaluator.live.copy(), influence_of(start, evaluator)
    evaluator.live &= telling_bands(start, evaluator)[:, None]
    near = np.ones(evaluator.n, bool)
    summaries: list[Mapping[str, Any]] = []
    for name, pos, shape in (("positions_held", False, True), ("positions_only", True, False)):
        maximum = Optimiser(evaluator, build_layout(parameters, pos, shape), theta).maximise(
            max_iterations, tolerance, tolerance, options.early_enough
        )
        theta = maximum.point.theta
        near &= maximum.own < tolerance
        summaries.append(
            stage_summary(
                name, maximum.status, maximum.iterations, maximum.converged(tolerance), maximum.point.lnp
            )
        )
    if options.hold_halo:
        # what it was in all bands at the start counts as well as what it has become in those that were looked at
        influence = np.maximum(influence, influence_of(maximum.point, evaluator))
        parameters.idle = near & ~parameters.held & idle_halo(influence, owned)
        parameters.held |= parameters.idle
    evaluator.live[...] = live
    return without_shapes_of_moved(theta, parameters.start, options), summaries


def telling_bands(point: Point, evaluator: Evaluator) -> Bool:
    """The bands of the most signal to noise: ``options.early_bands`` of all, at least three; bool (nband,)."""
    assert evaluator.layout is not None
    columns = evaluator.layout.flux_columns[:-1]
    power = np.stack([np.diagonal(matrix)[columns] for matrix in point.matrix]) * point.flux**2
    told = (np.minimum(power, _ENOUGH) * evaluator.live).sum(axis=1)
    n_bands = len(told)
    count = max(int(np.ceil(evaluator.options.early_bands * n_bands)), min(3, n_bands))
    chosen = np.zeros(n_bands, bool)
    chosen[np.argsort(-told, kind="stable")[:count]] = True
    return chosen


def without_shapes_of_moved(theta: F8, start: F8, options: EngineOptions) -> F8:
    """Parameters (S, 6), with the shape of the start again where a source has moved far.

    A shape that was fitted at a wrong position has grown towards the right one, and would keep it from there.
    """
    moved = np.hypot(*(theta - start)[:, :2].T) > options.reset_shape_pix
    back: F8 = np.where(moved[:, None] & (np.arange(theta.shape[1]) > 1), start, theta)
    return back


def stage_summary(name: str, status: str, iterations: int, done: Bool, lnp: float) -> dict[str, Any]:
    """What ``meta.json`` says of a stage; ``done`` (S,) are the sources that have converged."""
    return {
        "name": name,
        "niter": iterations,
        "converged": status == "converged",
        "status": status,
        "n_converged": int(done.sum()),
        "n_sources": len(done),
        "lnp": lnp,
    }
