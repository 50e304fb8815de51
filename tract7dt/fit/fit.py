"""The fit of a patch: choice of engine, all bands at once or one by one, and the result."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tract7dt.errors import ConfigError
from tract7dt.fit.options import EngineOptions, FitSettings, threads_of
from tract7dt.fit.scene import check_problem
from tract7dt.fit.shapes import shape_errors, shape_from_soft
from tract7dt.fit.stages import SetFit, fit_set
from tract7dt.fit.threads import Team
from tract7dt.types import ModelSources, PatchFit, PatchProblem

F8 = NDArray[np.float64]

#: An engine: the same problem and settings in, the same kind of result out.
Engine = Callable[[PatchProblem, FitSettings], PatchFit]

# Fields of a set that are joined band by band, and those that are stacked set by set.
_BY_BAND = ("flux", "flux_err", "chi2", "frac_masked", "frac_flux", "sky", "sky_err", "residual")
_BY_SET = ("converged", "hit_max_iters", "stalled", "niter", "last_dlnp", "lnp")

_TRACTOR_MODULE = "tract7dt.fit.tractor_backend"


def fit_patch(problem: PatchProblem, patch_run: FitSettings) -> PatchFit:
    """Fit all sources of a patch.

    Parameters
    ----------
    problem : PatchProblem
    patch_run : FitSettings
        The ``patch_run`` section of the settings.

    Returns
    -------
    PatchFit
        One entry a source of the problem, in its order. A source that cannot be fitted is NaN with a reason in
        ``issues``: ``no_good_pixel`` (in no band), ``no_good_pixel:{band}``, ``no_start_values``,
        ``outside_patch`` and ``halo_held`` (position and shape held, hence without errors, because the source is
        off the patch, or not the patch's own and without influence on those); ``weak_prior`` marks faint or
        overshadowed sources that were held by the engine's own weak priors.

    Raises
    ------
    ConfigError
        Unknown engine, or one that is not available here.
    PatchError
        The arrays of the problem do not fit together, or a PSF stamp is unusable.
    """
    return find_engine(patch_run.engine)(problem, patch_run)


def find_engine(name: str) -> Engine:
    """The engine of that name (``patch_run.engine``).

    Raises
    ------
    ConfigError
        Unknown engine, or one that is not available here.
    """
    if name == "native":
        return fit_native
    if name != "tractor":
        raise ConfigError(f"patch_run.engine: expected 'native' or 'tractor', found {name!r}")
    if importlib.util.find_spec(_TRACTOR_MODULE) is None:
        raise ConfigError(
            "patch_run.engine: 'tractor' needs tract7dt.fit.tractor_backend, which is not available here; "
            "use 'native'"
        )
    engine: Engine = importlib.import_module(_TRACTOR_MODULE).fit_patch
    return engine


def check_engine(name: str) -> None:
    """Raise ConfigError if fits with that engine are bound to fail: unknown, or what it needs is not installed."""
    find_engine(name)
    if name == "tractor":
        importlib.import_module(_TRACTOR_MODULE).check_available()


def fit_native(
    problem: PatchProblem,
    patch_run: FitSettings,
    options: EngineOptions | None = None,
    begin: ModelSources | None = None,
) -> PatchFit:
    """Fit a patch with the native engine.

    Parameters
    ----------
    problem, patch_run
        As in :func:`fit_patch`.
    options : EngineOptions, optional
        Numbers of the engine itself.
    begin : ModelSources, optional
        Positions and shapes to begin from, where they are not those of ``problem``, to which priors and bounds
        belong in any case: shows whether a maximum depends on where the search began.
    """
    check_problem(problem)
    options = options or EngineOptions()
    single = not patch_run.enable_multi_band_simultaneous_fitting
    sets = [single_band(problem, b) for b in range(len(problem.bands))] if single else [problem]
    with Team(threads_of(patch_run)) as team:
        return assemble(problem, single, [fit_set(part, patch_run, options, team, begin) for part in sets])


def single_band(problem: PatchProblem, b: int) -> PatchProblem:
    """The problem of one band alone."""
    one = slice(b, b + 1)
    sources = replace(problem.sources, flux=problem.sources.flux[one], flux_err=problem.sources.flux_err[one])
    return replace(
        problem,
        bands=problem.bands[one],
        data=problem.data[one],
        weight=problem.weight[one],
        sky_sigma=problem.sky_sigma[one],
        gain=problem.gain[one],
        psf=problem.psf[one],
        psf_extended=None if problem.psf_extended is None else problem.psf_extended[one],
        sources=sources,
    )


def assemble(problem: PatchProblem, is_single: bool, fits: list[SetFit]) -> PatchFit:
    """Put the sets together to the result of the patch (one set a band if ``is_single``)."""
    shapes = [_shape(fit, problem.sources) for fit in fits]

    def shape(name: str) -> F8:
        return np.stack([values[name] for values in shapes])

    def by_set(name: str) -> Any:
        return np.stack([getattr(fit, name) for fit in fits])

    def by_band(name: str) -> F8:
        arrays = [getattr(fit, name) for fit in fits]
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]

    stages: list[Mapping[str, Any]] = []
    for i, fit in enumerate(fits):
        stages += [{"band": problem.bands[i], **stage} if is_single else stage for stage in fit.stages]
    values: dict[str, Any] = {name: shape(name) for name in shapes[0]}
    values |= {name: by_band(name) for name in _BY_BAND} | {name: by_set(name) for name in _BY_SET}
    return PatchFit(
        tag=problem.tag,
        bands=tuple(problem.bands),
        single_band=is_single,
        kind=np.asarray(problem.sources.kind, np.int64).copy(),
        **values,
        bound=tuple(tuple(fit.bound) for fit in fits),
        issues=tuple(tuple(fit.issues) for fit in fits),
        stages=tuple(stages),
        status=_worst([fit.status for fit in fits]),
    )


def _worst(statuses: list[str]) -> str:
    """Outcome of a patch of several sets: the least good one; ``empty`` only if all are."""
    for status in ("max_iters", "stalled", "converged"):
        if status in statuses:
            return status
    return "empty"


def _shape(fit: SetFit, sources: ModelSources) -> dict[str, F8]:
    """Positions and shapes of a set in the catalogue's conventions, with errors."""
    theta, covariance = fit.theta, fit.covariance
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        re, ell, angle = shape_from_soft(theta[:, 2], theta[:, 3], theta[:, 4])
    index = np.exp(theta[:, 5])
    ell_err, angle_err = np.full(len(re), np.nan), np.full(len(re), np.nan)
    for s in np.flatnonzero(np.isfinite(covariance[:, 3:5, 3:5]).all(axis=(1, 2))):
        ell_err[s], angle_err[s] = shape_errors(theta[s, 3], theta[s, 4], covariance[s, 3:5, 3:5])
    return {
        "x": theta[:, 0],
        "y": theta[:, 1],
        "x_err": sigma[:, 0],
        "y_err": sigma[:, 1],
        "xy_cov": covariance[:, 0, 1],
        "re": re,
        "re_err": re * sigma[:, 2],
        "ell": ell,
        "ell_err": ell_err,
        "theta": angle,
        "theta_err": angle_err,
        "sersic_n": index,
        "sersic_n_err": index * sigma[:, 5],
    }
