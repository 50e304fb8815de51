"""Compile the kernels, or load them from the cache, before anything is timed or forked."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from tract7dt.fit.fit import fit_patch
from tract7dt.types import ModelKind, ModelSources, PatchProblem

__all__ = ["warm_up"]


def warm_up() -> None:
    """Fit a patch of one source of each kind.

    The first call on a machine compiles for some ten seconds and leaves the result in numba's cache; later
    ones load it in a fraction of a second. Two workers that start on a cold cache would both compile.
    """
    n, size = len(ModelKind), 41
    axis = np.arange(-8, 9)
    stamp = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / 1.5**2)
    x = np.array([10.0, 30.0, 10.0, 30.0])
    none = np.full(n, np.inf)
    sources = ModelSources(
        kind=np.arange(n),
        x=x,
        y=np.array([10.0, 10.0, 30.0, 30.0]),
        re=np.full(n, 2.0),
        ell=np.full(n, 0.2),
        theta=np.zeros(n),
        sersic_n=np.full(n, 2.0),
        flux=np.full((1, n), 100.0),
        pos_err=none,
        re_err=none,
        ell_err=none,
        theta_err=none,
        flux_err=np.full((1, n), np.inf),
        owned=np.ones(n, bool),
    )
    data = np.random.default_rng(0).normal(0, 1, (1, size, size)).astype(np.float32)
    for column, row in zip(
        x, sources.y, strict=True
    ):  # something to converge on, so that the last steps are taken
        data[0, int(row) - 8 : int(row) + 9, int(column) - 8 : int(column) + 9] += 200 * stamp
    problem = PatchProblem(
        tag="warm_up",
        bands=("b",),
        data=data,
        weight=np.ones((1, size, size), np.float32),
        sky_sigma=np.ones(1),
        gain=np.ones(1),
        psf=(stamp / stamp.sum(),),
        psf_extended=None,
        sources=sources,
    )
    fit_patch(
        problem,
        SimpleNamespace(
            engine="native",
            n_opt_iters=20,
            dlnp_stop=1e-3,
            pos_max_shift_pix=5.0,
            enable_staged_fit=True,
            enable_multi_band_simultaneous_fitting=True,
            flag_maxiter_margin=0,
            eps_flux=1e-4,
        ),
    )


if __name__ == "__main__":
    warm_up()
