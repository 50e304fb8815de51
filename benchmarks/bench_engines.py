"""Both engines on the same patches: ``python benchmarks/bench_engines.py [--quick] [--out RESULTS_engines.md]``.

Needs The Tractor. CPU seconds; log-posterior of both solutions by both renderers; differences of fluxes; pulls
against the truth; and what The Tractor's own optimiser makes of the same start.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402 - after the thread counts
import scenes  # noqa: E402
from bench_fit import PatchRun, width  # noqa: E402

from tract7dt.fit import EngineOptions, fit_native, render_model, tractor_backend  # noqa: E402
from tract7dt.fit.parameters import build_parameters  # noqa: E402
from tract7dt.fit.scene import Scene  # noqa: E402
from tract7dt.fit.tractor import api as the_tractor  # noqa: E402
from tract7dt.fit.tractor.drawing import pixel_wcs  # noqa: E402
from tract7dt.types import ModelKind, ModelSources, PatchFit, PatchProblem  # noqa: E402

#: (sources, bands), side in pixels, patches.
SIZES = (((10, 4), 110, 3), ((30, 6), 200, 3), ((30, 20), 200, 1))
#: Shares of STAR, EXP, DEV and SERSIC without free indices: The Tractor's mixtures for those are its own.
NO_INDEX = (0.3, 0.5, 0.2, 0.0)
#: The profiles of The Tractor in the native engine: only then are log-posteriors those of one and the same model.
MIXTURE = EngineOptions(profiles="mixture")


def log_likelihood(problem: PatchProblem, model: np.ndarray) -> float:
    """Of an image of the model, without the constant of the Gaussian."""
    good = np.isfinite(problem.data) & (problem.weight > 0)
    off = np.where(good, np.nan_to_num(problem.data) - model, 0).astype(float)
    return float(-0.5 * np.sum(problem.weight * off**2))


@dataclass
class Compared:
    """Solutions of a patch by both engines."""

    seconds: tuple[float, float]
    native: PatchFit
    tractor: PatchFit
    lnp: dict[tuple[str, str], float]


def timed(fit: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and the result."""
    start = time.process_time()
    result = fit()
    return time.process_time() - start, result


def compare(problem: PatchProblem) -> Compared:
    """Fit with both, with the same profiles, and draw each solution with both renderers.

    The log-posterior by the other renderer is its log-likelihood plus the fit's own log-prior.
    """
    ours, native = timed(lambda: fit_native(problem, PatchRun(), MIXTURE))
    theirs, tractor = timed(lambda: tractor_backend.fit_patch(problem, PatchRun()))
    lnp = {}
    for name, fit in (("native", native), ("tractor", tractor)):
        drawn = {
            "native": log_likelihood(problem, render_model(problem, fit, MIXTURE)),
            "tractor": log_likelihood(problem, tractor_backend.render_model(problem, fit)),
        }
        log_prior = float(fit.lnp[0]) - drawn[name]
        lnp |= {(name, renderer): value + log_prior for renderer, value in drawn.items()}
    return Compared((ours, theirs), native, tractor, lnp)


def engines(sizes: tuple[tuple[tuple[int, int], int, int], ...]) -> list[str]:
    """Table of both engines."""
    lines = [
        "| (sources, bands), seed | native, CPU s | tractor, CPU s | ratio | log-posterior, native by native "
        "| by The Tractor's renderer | tractor by native's renderer | by its own | flux: median difference, sigma "
        "| widest 99 %, sigma | error ratio, median | converged native / tractor |",
        "|---" * 12 + "|",
    ]
    for (n, bands), size, patches in sizes:
        for name, how, seed in [("", {}, i) for i in range(patches)] + [
            (" without SERSIC", {"shares": NO_INDEX}, 0)
        ]:
            problem, _ = scenes.random_problem(n, bands, size, seed, **how)
            found = compare(problem)
            a, b = found.native, found.tractor
            off = (b.flux - a.flux) / a.flux_err
            lines.append(
                f"| ({n}, {bands}), {seed}{name} | {found.seconds[0]:.3f} | {found.seconds[1]:.2f} "
                f"| {found.seconds[1] / found.seconds[0]:.0f} "
                f"| {found.lnp['native', 'native']:.3f} | {found.lnp['native', 'tractor']:.3f} "
                f"| {found.lnp['tractor', 'native']:.3f} | {found.lnp['tractor', 'tractor']:.3f} "
                f"| {np.nanmedian(off):+.4f} | {np.nanpercentile(np.abs(off), 99):.3f} "
                f"| {np.nanmedian(b.flux_err / a.flux_err):.3f} "
                f"| {a.converged.mean():.2f} / {b.converged.mean():.2f} |"
            )
            print(lines[-1], flush=True)
    return lines


def pulls(n_patches: int) -> list[str]:
    """Table of pulls against the truth, default settings of both engines."""
    found: dict[str, list[list[np.ndarray]]] = {"native": [[], [], [], []], "tractor": [[], [], [], []]}
    for seed in range(100, 100 + n_patches):
        problem, truth = scenes.random_problem(30, 6, 200, seed, gain=50.0)
        fits = {
            "native": fit_native(problem, PatchRun()),
            "tractor": tractor_backend.fit_patch(problem, PatchRun()),
        }
        for name, fit in fits.items():
            columns = found[name]
            columns[0].append(((fit.flux - truth.flux) / fit.flux_err).ravel())
            columns[1] += [(fit.x[0] - truth.x) / fit.x_err[0], (fit.y[0] - truth.y) / fit.y_err[0]]
            columns[2].append(np.log(fit.re[0] / truth.re) * fit.re[0] / fit.re_err[0])
            columns[3].append(fit.converged[0].astype(float))
    lines = [
        "| engine | fluxes | flux: median | width | position: width | log re: width | converged |",
        "|---" * 7 + "|",
    ]
    for name, columns in found.items():
        flux, place, size, done = (np.concatenate(values) for values in columns)
        lines.append(
            f"| {name} | {np.isfinite(flux).sum()} | {np.nanmedian(flux):+.3f} | {width(flux):.3f} "
            f"| {width(place):.3f} | {width(size):.3f} | {done.mean():.3f} |"
        )
    return lines


def own_optimiser(problem: PatchProblem, steps: int = 20) -> tuple[float, int, float]:
    """CPU seconds, steps and log-likelihood of The Tractor's own optimiser, position derivatives repaired."""
    from tractor import Tractor
    from tractor.constrained_optimizer import ConstrainedOptimizer

    api, wcs = the_tractor.load(), pixel_wcs(the_tractor.load())
    bands = [f"b{b}" for b in range(len(problem.bands))]
    good = np.isfinite(problem.data) & (problem.weight > 0)
    images = [
        api.Image(
            data=np.where(good[b], problem.data[b], 0).astype(np.float32),
            inverr=np.sqrt(np.where(good[b], problem.weight[b], 0)).astype(np.float32),
            psf=api.PixelizedPSF(np.asarray(problem.psf[b], np.float32)),
            wcs=wcs,
            sky=api.ConstantSky(0.0),
            photocal=api.FluxesPhotoCal(name),
            name=name,
        )
        for b, name in enumerate(bands)
    ]
    for image in images:
        image.freezeAllBut("sky")
    sources = [_own_source(api, problem.sources, s, bands) for s in range(len(problem.sources))]
    engine = Tractor(images, sources, optimizer=ConstrainedOptimizer())
    start, done, gain = time.process_time(), 0, np.inf
    while done < steps and gain >= 1e-6:
        gain = engine.optimize()[0]
        done += 1
    return time.process_time() - start, done, engine.getLogLikelihood()


def _own_source(api: the_tractor.Api, sources: ModelSources, s: int, bands: list[str]) -> Any:
    """A source with a flux per band, at its start."""
    scene = Scene(
        np.zeros((1, 99, 99), np.float32), np.ones((1, 99, 99), np.float32), (np.ones((1, 1)),), None
    )
    theta = build_parameters(sources, scene.ny, scene.nx, None, EngineOptions()).start[s]
    position = api.PixPos(float(theta[0]), float(theta[1]))
    flux = api.Fluxes(**{name: float(sources.flux[b, s]) for b, name in enumerate(bands)})
    kind = sources.kind[s]
    if kind == ModelKind.STAR:
        return api.PointSource(position, flux)
    shape = api.EllipseESoft(*(float(v) for v in theta[2:5]))
    shape.lowers, shape.uppers = [np.log(0.1), -100.0, -100.0], [np.log(1000.0), 100.0, 100.0]
    if kind == ModelKind.SERSIC:
        return api.SersicGalaxy(position, flux, shape, api.SersicIndex(float(np.exp(theta[5]))))
    return (api.ExpGalaxy if kind == ModelKind.EXP else api.DevGalaxy)(position, flux, shape)


def optimisers(sizes: tuple[tuple[tuple[int, int], int, int], ...]) -> list[str]:
    """Table of The Tractor's own optimiser beside ours on its models, without weak priors."""
    lines = [
        "| (sources, bands) | its own: CPU s | steps | log-likelihood | engine tractor: CPU s | log-likelihood |",
        "|---" * 6 + "|",
    ]
    free = replace(MIXTURE, weak_priors=False)
    for (n, bands), size, _ in sizes:
        problem, _ = scenes.random_problem(n, bands, size, 0)
        seconds, steps, own = own_optimiser(problem)
        ours, fit = timed(lambda problem=problem: tractor_backend.fit_patch(problem, PatchRun(), free))
        best = log_likelihood(problem, tractor_backend.render_model(problem, fit))
        lines.append(f"| ({n}, {bands}) | {seconds:.1f} | {steps} | {own:.1f} | {ours:.1f} | {best:.1f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small patches only")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS_engines.md"))
    args = parser.parse_args()
    tractor_backend.check_available()
    warm = scenes.random_problem(4, 2, 60, 0)[0]
    for options in (None, MIXTURE):  # compile, or load what was compiled
        render_model(warm, fit_native(warm, PatchRun(), options), options)
    tractor_backend.fit_patch(warm, PatchRun())
    sizes = SIZES[:1] if args.quick else SIZES
    lines = [
        "# Both engines on the same patches",
        "",
        f"Python {platform.python_version()}, {platform.machine()}, one thread; `benchmarks/bench_engines.py`, "
        "where The Tractor is installed. Patches of `benchmarks/scenes.py`; staged fits with default settings.",
        "",
        "## Speed, log-posterior, fluxes",
        "",
        "Here the native engine draws EXP and DEV galaxies with the Gaussian mixtures that The Tractor uses; "
        "SERSIC galaxies remain true profiles in the one and mixtures of free index in the other. Images are "
        "shifted by a phase in the one, with a Lanczos kernel of order 3 in the other, whose centroid is up to "
        "0.020 pix off as a function of the phase. That is what divides the renderers where sources are bright: "
        "with a phase shift put in its place, the gap at the native solution closes from -0.60 to -0.03 "
        "((10, 4), 0 without SERSIC) and from -8.2 to +0.11 ((30, 6), 0 without SERSIC). Fluxes and errors: "
        "tractor against native.",
        "",
        *engines(sizes),
        "",
        "## Pulls against the truth (true Sersic profiles in the native engine)",
        "",
        *pulls(2 if args.quick else 12),
        "",
        "## The Tractor's own optimiser, 20 steps, position derivatives repaired, no priors",
        "",
        *optimisers(sizes[:2]),
        "",
    ]
    text = "\n".join(lines)
    args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
