"""Peak memory of a process that fits one large patch: ``python benchmarks/fit_memory.py PROBLEM.npz``.

Prints MB. The process imports what a worker of the fit stage imports, loads the kernels, and fits the patch twice.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

import numpy as np


def store(problem: object, path: Path) -> None:
    """Write the arrays of a PatchProblem without extended PSFs."""
    sources = {f"source_{f.name}": getattr(problem.sources, f.name) for f in fields(problem.sources)}
    names = ("data", "weight", "sky_sigma", "gain")
    np.savez(path, **{name: getattr(problem, name) for name in names}, psf=np.stack(problem.psf), **sources)


def peak_of_a_worker(problem: object) -> float:
    """Peak memory in MB of a fresh process that fits a problem."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        store(problem, path)
        done = subprocess.run(
            [sys.executable, __file__, str(path)], capture_output=True, text=True, check=True
        )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Fit the stored problem and print the peak."""
    from flows import pool_worker  # noqa: F401 - what a worker imports
    from tract7dt import catalog, fit, fit_patch, patches, psf, resources, sources, stages  # noqa: F401
    from tract7dt.fit.warm import warm_up
    from tract7dt.settings import PatchRunSettings
    from tract7dt.types import ModelSources, PatchProblem

    # names that load when they are first used: those of a payload on its way to a catalogue
    needed = [patches.read_payload, psf.choose_psfs, sources.model_sources, catalog.patch_table]
    assert all(map(callable, needed))
    warm_up()

    with np.load(sys.argv[1]) as stored:
        held = {name: stored[name] for name in stored.files}
    models = ModelSources(**{name[7:]: held[name] for name in held if name.startswith("source_")})
    problem = PatchProblem(
        tag="memory",
        bands=tuple(f"b{i}" for i in range(len(held["data"]))),
        data=held["data"],
        weight=held["weight"],
        sky_sigma=held["sky_sigma"],
        gain=held["gain"],
        psf=tuple(held["psf"]),
        psf_extended=None,
        sources=models,
    )
    for _ in range(2):
        fit.fit_patch(problem, PatchRunSettings())
    print(resources.peak_rss_mb())


if __name__ == "__main__":
    main()
