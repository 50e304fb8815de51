"""Benchmark of the fit engine: ``python benchmarks/bench_fit.py [--quick] [--out RESULTS.md]``.

CPU seconds per patch (best of a few runs, one thread, after a warm-up), also as multiples of the time of one
float32 64 x 64 real FFT measured in the same run; log-posterior from several starts; pulls against the truth;
what a second thread brings, memory of a worker, start-up. Every bar gets a line that says whether it is met.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402 - after the thread counts
import scenes  # noqa: E402
import scipy.fft  # noqa: E402
from fit_bars import Bar, at_least, at_most  # noqa: E402
from fit_memory import peak_of_a_worker  # noqa: E402

from tract7dt.fit import EngineOptions, fit_native  # noqa: E402
from tract7dt.types import PatchFit, PatchProblem  # noqa: E402

#: (sources, bands), side in pixels, CPU seconds that must and should be reached.
SIZES = (
    ((10, 4), 110, 0.04, 0.015),
    ((30, 6), 200, 0.2, 0.08),
    ((30, 20), 200, 0.8, 0.3),
    ((100, 6), 360, 2.5, 0.8),
)


#: What a worker does before its first patch.
START_UP = (
    "import time; from tract7dt import fit_patch; from tract7dt.fit.warm import warm_up; warm_up(); "
    "print(time.process_time())"
)


@dataclass(frozen=True)
class PatchRun:
    """The settings of a fit, at their defaults."""

    engine: str = "native"
    n_opt_iters: int = 20
    dlnp_stop: float = 1e-12
    pos_max_shift_pix: float | None = 5.0
    enable_staged_fit: bool = True
    enable_multi_band_simultaneous_fitting: bool = True
    flag_maxiter_margin: int = 0
    eps_flux: float = 1e-4
    threads_per_process: int = 1


def time_of_fft(repeats: int = 3000) -> float:
    """CPU seconds of one float32 64 x 64 real FFT (best of five series)."""
    image = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    best = np.inf
    for _ in range(5):
        start = time.process_time()
        for _ in range(repeats):
            scipy.fft.rfft2(image)
        best = min(best, (time.process_time() - start) / repeats)
    return best


def timed_fit(problem: PatchProblem, settings: PatchRun, repeats: int) -> tuple[float, PatchFit]:
    """CPU seconds (best of ``repeats``) and the fit."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        fit = fit_native(problem, settings)
        best = min(best, time.process_time() - start)
    return best, fit


def speed(n_seeds: int, repeats: int, bars: list[Bar]) -> list[str]:
    """Table of CPU times."""
    unit = time_of_fft()
    lines = [
        f"One float32 64 x 64 rfft2: {1e6 * unit:.1f} us.",
        "",
        "| (sources, bands) | staged, s | in FFTs | one stage, s | in FFTs "
        "| must / aim, s | iterations | converged | log-posterior |",
        "|---" * 9 + "|",
    ]
    for (n, bands), size, must, aim in SIZES:
        staged, joint, rounds, done, lnp = [], [], [], [], []
        for seed in range(n_seeds if n < 100 else max(1, n_seeds // 3)):
            problem, _ = scenes.random_problem(n, bands, size, seed)
            seconds, fit = timed_fit(problem, PatchRun(), repeats)
            staged.append(seconds)
            joint.append(timed_fit(problem, PatchRun(enable_staged_fit=False, n_opt_iters=60), repeats)[0])
            rounds.append([stage["niter"] for stage in fit.stages])
            done.append(fit.converged.mean())
            lnp.append(fit.lnp[0])
        a, b = np.median(staged), np.median(joint)
        bars.append(at_most(f"CPU time of a patch of {n} sources in {bands} bands", a, must, "s", aim))
        lines.append(
            f"| ({n}, {bands}) | {a:.3f} | {a / unit:.0f} | {b:.3f} | {b / unit:.0f} | {must} / {aim} "
            f"| {' + '.join(f'{v:.0f}' for v in np.median(rounds, axis=0))} | {np.mean(done):.3f} | {lnp[0]:.2f} |"
        )
    lines += [
        "",
        f"Medians over {n_seeds} patches (a third of that for 100 sources); log-posterior of the first.",
    ]
    return lines


def threads_and_memory(bars: list[Bar]) -> list[str]:
    """Wall time with one and two threads, peak memory of a worker, start-up of a process."""
    problem, _ = scenes.random_problem(30, 20, 200, 0)
    wall = {1: np.inf, 2: np.inf}
    for _ in range(8):
        for threads in wall:
            settings = PatchRun(threads_per_process=threads)
            start = time.perf_counter()
            fit_native(problem, settings)
            wall[threads] = min(wall[threads], time.perf_counter() - start)
    peak = peak_of_a_worker(scenes.random_problem(60, 20, 300, 0)[0])
    command = [sys.executable, "-c", START_UP]
    used = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)
    ]
    bars.append(at_least("two threads on (30, 20), speed-up of wall time", wall[1] / wall[2], 1.6))
    bars.append(at_most("peak memory of a worker, 300 x 300 pix, 20 bands, 60 sources", peak, 600, "MB"))
    return [
        f"(30, 20): {wall[1]:.3f} s with one thread, {wall[2]:.3f} s with two (wall, best of 8; cores that others "
        "use too show less).",
        "",
        f"Peak memory of a worker with 300 x 300 pix, 20 bands and 60 sources: {peak:.0f} MB.",
        "",
        f"Start of a process: {min(used):.2f} CPU seconds to import what a worker of the fit imports, load the "
        "compiled kernels and fit a patch of four sources (compiled once before).",
    ]


#: Scenes of the generator whose maximum is looked for from several starts.
N_SCENES = 12


def starts(bars: list[Bar]) -> list[str]:
    """Tables of log-posteriors from several starts, relative to the best: as in a run, and without priors."""
    lines, behind = _starts(EngineOptions())
    bars.append(
        at_most(
            "ordinary scenes: log-posterior below the best of any start, from any start", behind[True], 0.1
        )
    )
    bars.append(at_most("hard cases: log-posterior below the best known", behind[False], 1.0))
    bare, _ = _starts(EngineOptions(weak_priors=False))
    return [
        "With the settings of a run: priors and bounds belong to the catalogue, wherever the search begins.",
        "",
        *lines,
        "",
        "Without weak priors, for comparison: sources of S/N 4 to 9 have several maxima.",
        "",
        *bare,
    ]


def _starts(options: EngineOptions) -> tuple[list[str], dict[bool, float]]:
    """A table, and what the worst start (hard cases: the given one) lacks, for ordinary scenes and hard cases."""
    settings = {
        "staged": PatchRun(n_opt_iters=60),
        "one stage": PatchRun(n_opt_iters=60, enable_staged_fit=False),
    }
    columns = [f"{k}, {s}" for s in settings for k in ("given", "truth", "2 pix off")]
    lines = ["| scene | best | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    cases = scenes.hard_cases()
    cases |= {f"random {seed}": scenes.random_problem(10, 4, 110, seed) for seed in range(N_SCENES)}
    behind = {True: 0.0, False: 0.0}
    for name, (problem, truth) in cases.items():
        near = replace(scenes.no_priors(truth, len(problem.bands)), kind=problem.sources.kind)
        rng = np.random.default_rng(0)
        far = [truth.x + rng.choice([-1.4, 1.4], len(truth)), truth.y + rng.choice([-1.4, 1.4], len(truth))]
        begin = [None, near, replace(near, x=far[0], y=far[1])]
        lnp = [
            fit_native(problem, how, options, start).lnp[0] for how in settings.values() for start in begin
        ]
        ordinary = name.startswith("random")
        behind[ordinary] = max(behind[ordinary], max(lnp) - (min(lnp) if ordinary else lnp[0]))
        lines.append(f"| {name} | {max(lnp):.2f} | " + " | ".join(f"{v - max(lnp):.2f}" for v in lnp) + " |")
    return lines, behind


def width(values: np.ndarray) -> float:
    """Robust standard deviation of the finite values."""
    values = values[np.isfinite(values)]
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def pulls(n_patches: int, bars: list[Bar]) -> list[str]:
    """Table of pulls of fluxes, positions and shapes."""
    kinds = {
        "mixed, blended, S/N 12": {"size": 200, "gain": 50.0},
        "stars, S/N 10 to 3000": {
            "size": 300,
            "gain": 40.0,
            "shares": (1, 0, 0, 0),
            "snr": 1200.0,
            "snr_spread": 1.5,
            "blended": 0.1,
        },
    }
    lines = [
        "| scenes | fluxes | flux: median | width | position: median | width "
        "| log re | ELL | THETA | chi2 | converged | out of iterations |",
        "|---" * 12 + "|",
    ]
    for name, how in kinds.items():
        flux, place, shape, chi2, done, spent = [], [], {"re": [], "ell": [], "theta": []}, [], [], []
        for seed in range(100, 100 + n_patches):
            problem, truth = scenes.random_problem(30, 6, seed=seed, **how)
            fit = fit_native(problem, PatchRun())
            flux.append(((fit.flux - truth.flux) / fit.flux_err).ravel())
            place += [(fit.x[0] - truth.x) / fit.x_err[0], (fit.y[0] - truth.y) / fit.y_err[0]]
            shape["re"].append(np.log(fit.re[0] / truth.re) * fit.re[0] / fit.re_err[0])
            shape["ell"].append((fit.ell[0] - truth.ell) / fit.ell_err[0])
            shape["theta"].append(((fit.theta[0] - truth.theta + 90) % 180 - 90) / fit.theta_err[0])
            chi2.append(fit.chi2.ravel())
            done.append(fit.converged[0])
            spent.append(fit.hit_max_iters[0])
        f, p = np.concatenate(flux), np.concatenate(place)
        if np.isfinite(f).sum() >= 2000:  # fewer say too little
            bars.append(Bar(f"{name}: median pull of the fluxes", float(np.nanmedian(f)), -0.05, 0.05))
            bars.append(Bar(f"{name}: width of the pulls of the fluxes", width(f), 0.95, 1.08))
            bars.append(Bar(f"{name}: width of the pulls of the positions", width(p), 0.95, 1.12))
        shapes = [np.concatenate(v) for v in shape.values()]
        widths = " | ".join(f"{width(v):.2f}" if np.isfinite(v).any() else "" for v in shapes)
        lines.append(
            f"| {name} | {np.isfinite(f).sum()} | {np.nanmedian(f):+.3f} | {width(f):.3f} "
            f"| {np.nanmedian(p):+.3f} | {width(p):.3f} | {widths} | {np.nanmedian(np.concatenate(chi2)):.3f} "
            f"| {np.concatenate(done).mean():.4f} | {np.concatenate(spent).sum()} |"
        )
    return lines


def main() -> None:
    """Run all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer patches: seconds rather than minutes")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    args = parser.parse_args()
    fit_native(scenes.random_problem(4, 2, 60, 0)[0], PatchRun())  # compile, or load what was compiled
    n_seeds, n_patches = (3, 3) if args.quick else (9, 12)
    bars: list[Bar] = []
    tables = ["## Speed", "", *speed(n_seeds, 3, bars), ""]
    tables += ["## Threads, memory, start-up", "", *threads_and_memory(bars), ""]
    tables += ["## Log-posterior below the best of all starts", "", *starts(bars), ""]
    pulled = pulls(n_patches, bars)
    tables += ["## Pulls against the truth (default settings, width = 1.4826 MAD)", "", *pulled, ""]
    lines = [
        "# Fit engine",
        "",
        f"Python {platform.python_version()}, {platform.machine()}, one thread; `make bench`.",
        "",
        "## Bars",
        "",
        *(f"- {bar.line()}" for bar in bars),
        "",
        *tables,
    ]
    text = "\n".join(lines)
    old = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
    _, heading, tiles = old.partition("\n## Tile at scale")  # of bench_tile.py, which writes below
    args.out.write_text(text + heading + tiles, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
