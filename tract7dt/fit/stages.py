"""Fit of one set of bands that share positions and shapes: liveness, weak priors, stages, errors, measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.early import run_early_stages, stage_summary
from tract7dt.fit.errors import covariances
from tract7dt.fit.evaluate import Evaluator, Point
from tract7dt.fit.measure import light_on_good_pixels, measure
from tract7dt.fit.optimise import TRUST, Maximum, Optimiser
from tract7dt.fit.options import EngineOptions, FitSettings
from tract7dt.fit.parameters import (
    NAMES,
    Parameters,
    add_weak_priors,
    build_layout,
    build_parameters,
    to_steps,
    usable_start,
)
from tract7dt.fit.scene import Scene
from tract7dt.fit.threads import Team
from tract7dt.fit.workspace import kept_workspace
from tract7dt.types import ModelSources, PatchProblem

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

# A source is not fitted in a band where less than this share of its light falls on good pixels and its start
# flux would not be seen there either (S/N below 1).
_LEAST_LIGHT = 1e-3


@dataclass
class SetFit:
    """Result of one set of bands, every source of the problem in its order; NaN where there is nothing.

    Attributes
    ----------
    theta : ndarray, float64 (n, 6)
        x, y, log re, ee1, ee2, ln n.
    covariance : ndarray, float64 (n, 6, 6)
    flux, flux_err, chi2, frac_masked, frac_flux : ndarray, float64 (nband, n)
    sky, sky_err : ndarray, float64 (nband,)
    converged, hit_max_iters, stalled : ndarray, bool (n,)
    niter : ndarray, int64 (n,)
        Iterations of the last stage in which the source was moved.
    last_dlnp : ndarray, float64 (n,)
    bound, issues : list of str
    residual : ndarray, float32 (nband, ny, nx)
        Data minus model at the maximum, times sqrt(weight).
    lnp : float
    stages : list of mapping
    status : str
    """

    theta: F8
    covariance: F8
    flux: F8
    flux_err: F8
    chi2: F8
    frac_masked: F8
    frac_flux: F8
    sky: F8
    sky_err: F8
    converged: Bool
    hit_max_iters: Bool
    stalled: Bool
    niter: I8
    last_dlnp: F8
    bound: list[str]
    issues: list[str]
    residual: F4
    lnp: float
    stages: list[Mapping[str, Any]]
    status: str


def empty_fit(shape: tuple[int, ...], n: int) -> SetFit:
    """A result in which nothing was fitted to images of ``shape`` (nband, ny, nx)."""
    n_bands = shape[0]

    def nans(*shape: int) -> F8:
        return np.full(shape, np.nan)

    return SetFit(
        theta=nans(n, 6),
        covariance=nans(n, 6, 6),
        flux=nans(n_bands, n),
        flux_err=nans(n_bands, n),
        chi2=nans(n_bands, n),
        frac_masked=nans(n_bands, n),
        frac_flux=nans(n_bands, n),
        sky=nans(n_bands),
        sky_err=nans(n_bands),
        converged=np.zeros(n, bool),
        hit_max_iters=np.zeros(n, bool),
        stalled=np.zeros(n, bool),
        niter=np.zeros(n, np.int64),
        last_dlnp=nans(n),
        bound=[""] * n,
        issues=[""] * n,
        residual=np.broadcast_to(np.float32(0), shape),  # takes no memory
        lnp=np.nan,
        stages=[],
        status="empty",
    )


def select_sources(sources: ModelSources, keep: Bool) -> ModelSources:
    """The sources for which ``keep`` is true."""
    return replace(
        sources, **{name: np.asarray(getattr(sources, name))[..., keep] for name in ModelSources.__slots__}
    )


def fit_set(
    problem: PatchProblem,
    settings: FitSettings,
    options: EngineOptions,
    team: Team,
    begin: ModelSources | None = None,
) -> SetFit:
    """Fit bands that share positions and shapes (all bands of the problem); ``begin`` as in ``fit_native``."""
    out = empty_fit(np.shape(problem.data), len(problem.sources))
    scene = Scene(problem.data, problem.weight, problem.psf, problem.psf_extended, team)
    usable = usable_start(problem.sources)
    out.issues = ["" if ok else "no_start_values" for ok in usable]
    if not (scene.weight_sum > 0).any():
        out.issues = [issue or "no_good_pixel" for issue in out.issues]
        return out
    sources = select_sources(problem.sources, usable)
    parameters = build_parameters(sources, scene.ny, scene.nx, settings.pos_max_shift_pix, options)
    evaluator = Evaluator(scene, parameters, options, sources.flux, team, kept_workspace())
    start = evaluator.start_stage(build_layout(parameters, False, False), parameters.start)
    if _drop_invisible(evaluator, start, sources):
        start = evaluator.start_stage(build_layout(parameters, False, False), parameters.start)
    weak = add_weak_priors(parameters, _total_snr(start, evaluator), options)
    weak &= evaluator.live.any(axis=0)
    evaluator.places.restrict(weak)
    evaluator.coarsen_stamps()
    theta = parameters.start.copy()
    if begin is not None:
        others = select_sources(begin, usable)
        theta = build_parameters(others, scene.ny, scene.nx, settings.pos_max_shift_pix, options).start
        theta = np.clip(theta, parameters.lower, parameters.upper)
        theta[parameters.held] = parameters.start[parameters.held]
    maximum = _run_stages(start, evaluator, theta, np.asarray(sources.owned, bool), settings, options, out)
    _fill(out, np.flatnonzero(usable), problem, evaluator, maximum, settings, options)
    for i, is_weak in zip(np.flatnonzero(usable), weak):
        if is_weak:
            out.issues[i] = ",".join(filter(None, [out.issues[i], "weak_prior"]))
    out.status = "empty" if evaluator.n == 0 or not evaluator.live.any() else maximum.status
    return out


def _total_snr(point: Point, evaluator: Evaluator) -> F8:
    """Signal to noise of every source over all bands, times its share of the light under its profile.

    With the fluxes of a point (negative ones count as 0). In a blend with a much brighter neighbour the flux
    at the start is mostly what the neighbour's model leaves over, and says nothing about how well the source
    is known.
    """
    layout = evaluator.layout
    assert layout is not None
    columns = layout.flux_columns[:-1]
    total = np.zeros(evaluator.n)
    for b, live in enumerate(evaluator.live):
        overlap = np.maximum(point.matrix[b][np.ix_(columns, columns)], 0)
        flux = np.where(live, np.maximum(point.flux[b], 0), 0)
        own = flux * np.diagonal(overlap)
        everything = overlap @ flux
        share = np.divide(own, everything, out=np.zeros(evaluator.n), where=everything > 0)
        total += flux * own * share**2
    snr: F8 = np.sqrt(total)
    return snr


def _drop_invisible(evaluator: Evaluator, start: Point, sources: ModelSources) -> bool:
    """Mark the bands in which a source has no light on good pixels as not live; True if there are any."""
    live = evaluator.live
    light, power = np.zeros(live.shape), np.zeros(live.shape)
    for part, images in evaluator.drawn(start, 0, len(live)):
        light_on_good_pixels(
            images,
            start.stamps.offset,
            start.stamps.box,
            live[part],
            evaluator.scene.sqrt_w[part],
            light[part],
            power[part],
        )
    seen = power * np.nan_to_num(sources.flux) ** 2 > 1.0
    visible = live & (power > 0) & ((light >= _LEAST_LIGHT) | seen)
    dropped = bool((visible != live).any())
    evaluator.live[...] = visible
    return dropped


def _run_stages(
    start: Point,
    evaluator: Evaluator,
    theta: F8,
    owned: Bool,
    settings: FitSettings,
    options: EngineOptions,
    out: SetFit,
) -> Maximum:
    """Run the stages of the settings from ``theta`` on; the summaries go into ``out.stages``."""
    tolerance = max(settings.dlnp_stop, options.min_tolerance)
    early = max(options.early_tolerance, tolerance)
    if settings.enable_staged_fit:
        theta, summaries = run_early_stages(start, evaluator, theta, owned, early, int(settings.n_opt_iters))
        out.stages += summaries
    freeze = options.freeze * tolerance / options.min_tolerance
    layout = build_layout(evaluator.parameters, True, True)
    maximum = Optimiser(evaluator, layout, theta).maximise(
        int(settings.n_opt_iters), tolerance, freeze, settle=True
    )
    done = maximum.converged(tolerance)
    out.stages.append(stage_summary("all", maximum.status, maximum.iterations, done, maximum.point.lnp))
    return maximum


def _fill(
    out: SetFit,
    place: I8,
    problem: PatchProblem,
    evaluator: Evaluator,
    maximum: Maximum,
    settings: FitSettings,
    options: EngineOptions,
) -> None:
    """Write the maximum into the result; ``place`` are the usable sources."""
    point, parameters = maximum.point, evaluator.parameters
    seen: Bool = np.asarray(evaluator.live.any(axis=0), bool)
    free = parameters.has() & (seen & ~parameters.held)[:, None]
    below, above = at_bounds(to_steps(point.theta), parameters, free, options)
    variance = evaluator.relative_variance(point, problem)
    chi2, masked, shared = measure(evaluator, point, variance)
    errors = covariances(evaluator, point, variance, below | above)
    out.theta[place] = np.where(parameters.has() & seen[:, None], point.theta, np.nan)
    out.covariance[place] = np.where(seen[:, None, None], errors.shared, np.nan)
    out.flux[:, place] = np.where(evaluator.live, point.flux, np.nan)
    out.flux_err[:, place] = errors.flux_err
    out.chi2[:, place], out.frac_masked[:, place], out.frac_flux[:, place] = chi2, masked, shared
    alive = evaluator.scene.weight_sum > 0
    out.sky[:] = np.where(alive, point.sky, np.nan)
    out.sky_err[:] = errors.sky_err
    tolerance = max(settings.dlnp_stop, options.min_tolerance)
    done = maximum.converged(tolerance)
    spent = maximum.status == "max_iters" or maximum.iterations >= max(
        1, settings.n_opt_iters - max(0, settings.flag_maxiter_margin)
    )
    out.converged[place] = done & seen
    out.hit_max_iters[place] = ~done & seen & spent
    out.stalled[place] = ~done & seen & ~spent
    out.niter[place] = maximum.moved
    out.last_dlnp[place] = np.where(seen, maximum.last_gain, np.nan)
    out.residual = point.residuals.copy()
    out.lnp = point.lnp
    for k, i in enumerate(place):
        flags = [
            f"{name}@upper" if up else f"{name}@lower"
            for name, lo, up in zip(NAMES, below[k], above[k])
            if lo or up
        ]
        out.bound[i] = ",".join(flags)
        held = "halo_held" if parameters.idle[k] else "outside_patch" if parameters.held[k] else ""
        out.issues[i] = _issue(problem.bands, evaluator.live[:, k], held)


def at_bounds(values: F8, parameters: Parameters, free: Bool, options: EngineOptions) -> tuple[Bool, Bool]:
    """Which free parameters stand at their lower and upper bound, bool (S, 6) each.

    ``values`` (S, 6) in the coordinates that have the bounds: those of steps.
    """
    slack = options.bound_tolerance * TRUST
    below: Bool = np.logical_and(free, values <= parameters.lower + slack)
    above: Bool = np.logical_and(free, values >= parameters.upper - slack)
    return below, above


def _issue(bands: tuple[str, ...], live: Bool, held: str) -> str:
    """Why values of a source are missing; ``held`` says why its position and shape were, "" if they were not."""
    if not live.any():
        return "no_good_pixel"
    issues = [f"no_good_pixel:{band}" for band, ok in zip(bands, live) if not ok]
    if held:
        issues.append(held)
    return ",".join(issues)
