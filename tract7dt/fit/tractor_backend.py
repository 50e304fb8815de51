"""The second engine, ``patch_run.engine: tractor``: sources as The Tractor draws them, where it is installed.

The Tractor makes the models and their derivatives (position derivatives of galaxies brought from degrees to
pixels). Bounds, priors, weak priors, stages and flags are those of the native engine, and so are the estimators of
the errors, from The Tractor's derivatives. The steps are made in :mod:`tract7dt.fit.tractor.climb`.
"""

from __future__ import annotations

import numpy as np

from tract7dt.fit.early import stage_summary, without_shapes_of_moved
from tract7dt.fit.fit import assemble, single_band
from tract7dt.fit.options import EngineOptions, FitSettings
from tract7dt.fit.parameters import Parameters, add_weak_priors, build_layout, build_parameters, usable_start
from tract7dt.fit.scene import Scene, check_problem
from tract7dt.fit.shapes import soft_from_shape
from tract7dt.fit.stages import SetFit, at_bounds, empty_fit, select_sources
from tract7dt.fit.tractor import api as the_tractor
from tract7dt.fit.tractor.climb import Summit, climb
from tract7dt.fit.tractor.drawing import Artist
from tract7dt.fit.tractor.posterior import Point, Posterior, gram
from tract7dt.fit.tractor.quality import covariances, measure
from tract7dt.types import F4, F8, I8, Bool, ModelSources, PatchFit, PatchProblem

__all__ = ["check_available", "fit_patch", "render_model"]

_NAMES = ("pos.x", "pos.y", "shape.logre", "shape.ee1", "shape.ee2", "sersicindex")
# A source is not fitted in a band where less than this share of its light falls on good pixels and its start flux
# would not be seen there either.
_LEAST_LIGHT = 1e-3


def check_available() -> None:
    """Raise ConfigError, with the cure, where The Tractor is not there."""
    the_tractor.load()


def fit_patch(
    problem: PatchProblem, patch_run: FitSettings, options: EngineOptions | None = None
) -> PatchFit:
    """Fit a patch with The Tractor.

    Parameters
    ----------
    problem, patch_run
        As in :func:`tract7dt.fit.fit_patch`.
    options : EngineOptions, optional
        Bounds, tolerances and weak priors; the rest is the native engine's.

    Raises
    ------
    ConfigError
        The Tractor is not installed.
    PatchError
        As in :func:`tract7dt.fit.fit_patch`.
    """
    api = the_tractor.load()
    check_problem(problem)
    options = options or EngineOptions()
    if patch_run.enable_multi_band_simultaneous_fitting:
        return assemble(problem, False, [_fit_set(api, problem, patch_run, options)])
    bands = (single_band(problem, b) for b in range(len(problem.bands)))
    return assemble(problem, True, [_fit_set(api, one, patch_run, options) for one in bands])


def render_model(problem: PatchProblem, fit: PatchFit) -> F4:
    """Model of a patch as The Tractor draws it, sky included: float32 (nband, ny, nx).

    Parameters
    ----------
    problem : PatchProblem
        Gives shapes and PSFs; masked pixels are drawn like any other.
    fit : PatchFit
        Of either engine. A source that was not fitted in a band is absent from it.
    """
    api = the_tractor.load()
    check_problem(problem)
    scene = Scene(
        np.zeros_like(problem.data), np.ones_like(problem.weight), problem.psf, problem.psf_extended
    )
    out = np.zeros(problem.data.shape, np.float32)
    for b in range(len(problem.bands)):
        row = b if fit.single_band else 0
        shape = np.nan_to_num(np.stack([fit.re[row], fit.ell[row], fit.theta[row]]))
        soft = soft_from_shape(np.maximum(shape[0], 1e-3), shape[1], shape[2])
        index = np.log(np.where(np.isfinite(fit.sersic_n[row]), fit.sersic_n[row], 1.0))
        theta = np.stack([fit.x[row], fit.y[row], *soft, index], axis=1)
        there = np.isfinite(fit.x[row]) & np.isfinite(fit.flux[b])
        artist = Artist(api, problem, scene, fit.kind[there], theta[there])
        out[b] += np.float32(np.nan_to_num(fit.sky[b]))
        for s, flux in enumerate(fit.flux[b, there]):
            drawn = artist.model(s, b, theta[there][s])
            if drawn is not None:
                out[b][drawn.window] += np.float32(flux) * drawn.images[0]
    return out


def _fit_set(
    api: the_tractor.Api, problem: PatchProblem, settings: FitSettings, options: EngineOptions
) -> SetFit:
    """Fit bands that share positions and shapes."""
    out = empty_fit(np.shape(problem.data), len(problem.sources))
    scene = Scene(problem.data, problem.weight, problem.psf, problem.psf_extended)
    usable = usable_start(problem.sources)
    out.issues = ["" if ok else "no_start_values" for ok in usable]
    if not (scene.weight_sum > 0).any():
        out.issues = [issue or "no_good_pixel" for issue in out.issues]
        return out
    sources = select_sources(problem.sources, usable)
    parameters = build_parameters(sources, scene.ny, scene.nx, settings.pos_max_shift_pix, options)
    artist = Artist(api, problem, scene, parameters.kind, parameters.start)
    _keep_on_canvas(parameters, artist)
    posterior = Posterior(artist, scene, parameters)
    start = posterior.point(parameters.start)
    _drop_invisible(posterior, start, sources)
    start = posterior.point(parameters.start, start, np.zeros(len(sources), bool))
    weak = add_weak_priors(parameters, _total_snr(posterior, start), options)
    weak &= posterior.live.any(axis=0)
    summit = _climb_stages(posterior, settings, options, out)
    place = np.flatnonzero(usable)
    _fill(out, place, problem, posterior, summit, settings, options)
    for k, i in enumerate(place):
        if weak[k]:
            out.issues[i] = ",".join(filter(None, [out.issues[i], "weak_prior"]))
    out.status = summit.status if posterior.live.any() else "empty"
    return out


def _keep_on_canvas(parameters: Parameters, artist: Artist) -> None:
    """Bound the positions of sources that move to where The Tractor can differentiate them."""
    lower, upper = artist.limits()
    moves = ~parameters.held
    parameters.lower[moves, :2] = np.maximum(parameters.lower[moves, :2], lower)
    parameters.upper[moves, :2] = np.minimum(parameters.upper[moves, :2], upper)


def _drop_invisible(posterior: Posterior, start: Point, sources: ModelSources) -> None:
    """Mark the bands in which a source has no light on good pixels as not live, and take its models out."""
    for b, s in zip(*np.nonzero(posterior.live)):
        drawn = start.models[b][s]
        if drawn is not None:
            q = posterior.scene.sqrt_w[b][drawn.window]
            good = q > 0
            light = float(np.sum(drawn.images[0][good] / q[good]))
            power = float(np.sum(drawn.images[0].astype(float) ** 2))
            seen = power * float(np.nan_to_num(sources.flux[b, s])) ** 2
        if drawn is None or power <= 0 or (light < _LEAST_LIGHT and not seen > 1.0):
            posterior.live[b, s] = False
            start.models[b][s] = None


def _total_snr(posterior: Posterior, point: Point) -> F8:
    """Signal to noise of every source over all bands, times its share of the light under its profile."""
    n = posterior.n
    total = np.zeros(n)
    for b, row in enumerate(point.models):
        overlap = np.maximum(gram(row, np.arange(n), n, posterior.scene.sqrt_w[b])[:-1, :-1], 0)
        flux = np.maximum(point.flux[b], 0)
        own, everything = flux * np.diagonal(overlap), overlap @ flux
        share = np.divide(own, everything, out=np.zeros(n), where=everything > 0)
        total += flux * own * share**2
    return np.sqrt(total)


def _climb_stages(posterior: Posterior, settings: FitSettings, options: EngineOptions, out: SetFit) -> Summit:
    """Run the stages of the settings; the summaries go into ``out.stages``."""
    parameters = posterior.parameters
    tolerance = max(settings.dlnp_stop, options.min_tolerance)
    early = max(options.early_tolerance, tolerance)
    plan = [("all", True, True, tolerance)]
    if settings.enable_staged_fit:
        plan = [("positions_held", False, True, early), ("positions_only", True, False, early), *plan]
    theta = parameters.start.copy()
    for name, pos, shape, stop in plan:
        layout = build_layout(parameters, pos, shape)
        summit = climb(posterior, layout, theta, int(settings.n_opt_iters), stop)
        theta = summit.point.theta
        if name == "positions_only":
            theta = without_shapes_of_moved(theta, parameters.start, options)
        done = summit.gain < stop
        out.stages.append(stage_summary(name, summit.status, summit.iterations, done, summit.point.lnp))
    return summit


def _fill(
    out: SetFit,
    place: I8,
    problem: PatchProblem,
    posterior: Posterior,
    summit: Summit,
    settings: FitSettings,
    options: EngineOptions,
) -> None:
    """Write the maximum into the result; ``place`` are the usable sources."""
    point, parameters, live = summit.point, posterior.parameters, posterior.live
    layout = build_layout(parameters, True, True)
    seen: Bool = np.asarray(live.any(axis=0), bool)
    free = parameters.has() & (seen & ~parameters.held)[:, None]
    below, above = at_bounds(point.theta, parameters, free, options)
    variance = posterior.scene.relative_variance(point.residuals, point.sky, problem)
    shared, flux_err, sky_err = covariances(posterior, point, layout, variance, below | above)
    out.chi2[:, place], out.frac_masked[:, place], out.frac_flux[:, place] = measure(
        posterior, point, layout, variance
    )
    out.theta[place] = np.where(parameters.has() & seen[:, None], point.theta, np.nan)
    out.covariance[place] = np.where(seen[:, None, None], shared, np.nan)
    out.flux[:, place] = np.where(live, point.flux, np.nan)
    out.flux_err[:, place] = flux_err
    out.residual = point.residuals.copy()
    out.sky[:] = np.where(posterior.scene.weight_sum > 0, point.sky, np.nan)
    out.sky_err[:] = sky_err
    done = summit.gain < max(settings.dlnp_stop, options.min_tolerance)
    margin = max(0, settings.flag_maxiter_margin)
    spent = summit.status == "max_iters" or summit.iterations >= max(1, settings.n_opt_iters - margin)
    out.converged[place], out.hit_max_iters[place] = done & seen, ~done & seen & spent
    out.stalled[place] = ~done & seen & ~spent
    out.niter[place], out.lnp = summit.moved, point.lnp
    out.last_dlnp[place] = np.where(seen, summit.last_gain, np.nan)
    for k, i in enumerate(place):
        flags = [f"{name}@lower" for name, at in zip(_NAMES, below[k]) if at]
        flags += [f"{name}@upper" for name, at in zip(_NAMES, above[k]) if at]
        out.bound[i] = ",".join(flags)
        missing = [f"no_good_pixel:{band}" for band, ok in zip(problem.bands, live[:, k]) if not ok]
        held = ["outside_patch"] if parameters.held[k] else []
        out.issues[i] = ",".join(missing + held) if seen[k] else "no_good_pixel"
