"""The fitted model as images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.evaluate import Evaluator
from tract7dt.fit.options import EngineOptions
from tract7dt.fit.parameters import build_layout, build_parameters
from tract7dt.fit.residuals import residual
from tract7dt.fit.scene import Scene, check_problem
from tract7dt.fit.stages import select_sources
from tract7dt.types import ModelKind, ModelSources, PatchFit, PatchProblem


def render_model(
    problem: PatchProblem, fit: PatchFit, options: EngineOptions | None = None
) -> NDArray[np.float32]:
    """Model of a patch, sky included, in scaled counts: float32 (nband, ny, nx).

    Parameters
    ----------
    problem : PatchProblem
        Gives shapes and PSFs; masked pixels are rendered like any other.
    fit : PatchFit
        A source that was not fitted in a band is absent from it; a sky that was not fitted counts as 0.
    options : EngineOptions, optional
        Those of the fit, if they were not the default.
    """
    check_problem(problem)
    options = options or EngineOptions()
    out = np.zeros(np.shape(problem.data), np.float32)
    for b in range(len(problem.bands)):
        out[b] = _render_band(problem, fit, b, options)
    return out


def _render_band(problem: PatchProblem, fit: PatchFit, b: int, options: EngineOptions) -> NDArray[np.float32]:
    row = b if fit.single_band else 0
    sky = float(np.nan_to_num(fit.sky[b]))
    shape = problem.data.shape[1:]
    sources = _fitted_sources(fit, row, b)
    weight = np.full((1, *shape), problem.sky_sigma[b] ** -2, np.float32)
    scene = Scene(
        np.zeros((1, *shape), np.float32),
        weight,
        problem.psf[b : b + 1],
        None if problem.psf_extended is None else problem.psf_extended[b : b + 1],
    )
    parameters = build_parameters(sources, scene.ny, scene.nx, None, options)
    evaluator = Evaluator(scene, parameters, options, sources.flux)
    point = evaluator.start_stage(build_layout(parameters, False, False), parameters.start)
    minus = np.zeros(shape, np.float32)
    residual(
        evaluator.buffer(0), point.stamps.offset, point.stamps.box, sources.flux[0], sky,
        scene.data[0], scene.sqrt_w[0], minus,
    )  # fmt: skip
    return -minus / scene.sqrt_w[0]


def _fitted_sources(fit: PatchFit, row: int, b: int) -> ModelSources:
    """The fitted sources of one band as start values, without those that have none."""
    n = len(fit.kind)
    none = np.full(n, np.inf)
    sources = ModelSources(
        kind=fit.kind,
        x=fit.x[row],
        y=fit.y[row],
        re=np.where(fit.kind == ModelKind.STAR, 1.0, fit.re[row]),
        ell=np.where(fit.kind == ModelKind.STAR, 0.0, fit.ell[row]),
        theta=np.where(fit.kind == ModelKind.STAR, 0.0, fit.theta[row]),
        sersic_n=np.where(fit.kind == ModelKind.SERSIC, fit.sersic_n[row], 1.0),
        flux=fit.flux[b : b + 1],
        pos_err=none,
        re_err=none,
        ell_err=none,
        theta_err=none,
        flux_err=none[None],
        owned=np.ones(n, bool),
    )
    return select_sources(sources, np.isfinite(fit.x[row]) & np.isfinite(fit.flux[b]))
