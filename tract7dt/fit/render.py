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
from tract7dt.fit.workspace import kept_workspace
from tract7dt.types import ModelKind, ModelSources, PatchFit, PatchProblem

F4 = NDArray[np.float32]


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
    n_bands = len(problem.bands)
    # bands that share positions and shapes are drawn together, as in the fit
    parts = [slice(b, b + 1) for b in range(n_bands)] if fit.single_band else [slice(0, n_bands)]
    for row, part in enumerate(parts):
        _render(problem, fit, row, part, options, out[part])
    return out


def _render(
    problem: PatchProblem, fit: PatchFit, row: int, part: slice, options: EngineOptions, out: F4
) -> None:
    """Render the bands of one set (``row`` of the fit) into ``out`` float32 (bands of the set, ny, nx)."""
    sources = _fitted_sources(fit, row, part)
    sky_sigma = np.asarray(problem.sky_sigma, float)[part]
    weight = np.empty_like(out)
    weight[...] = sky_sigma[:, None, None] ** -2
    extended = None if problem.psf_extended is None else problem.psf_extended[part]
    scene = Scene(np.zeros_like(out), weight, problem.psf[part], extended)
    parameters = build_parameters(sources, scene.ny, scene.nx, None, options)
    evaluator = Evaluator(scene, parameters, options, sources.flux, workspace=kept_workspace())
    point = evaluator.start_stage(build_layout(parameters, False, False), parameters.start)
    flux, sky = np.nan_to_num(sources.flux), np.nan_to_num(fit.sky[part])
    for part, images in evaluator.drawn(point, 0, len(out)):
        for b, image in zip(range(part.start, part.stop), images):
            residual(
                image, point.stamps.offset, point.stamps.box, flux[b], float(sky[b]),
                scene.data[b], scene.sqrt_w[b], out[b],
            )  # fmt: skip
            out[b] /= -scene.sqrt_w[b]


def _fitted_sources(fit: PatchFit, row: int, part: slice) -> ModelSources:
    """The fitted sources of a set as start values, without those that have none."""
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
        flux=fit.flux[part],
        pos_err=none,
        re_err=none,
        ell_err=none,
        theta_err=none,
        flux_err=np.full(np.shape(fit.flux[part]), np.inf),
        owned=np.ones(n, bool),
    )
    return select_sources(sources, np.isfinite(fit.x[row]) & np.isfinite(fit.flux[part]).any(axis=0))
