"""Errors and quality numbers of a fit, from The Tractor's derivatives at its solution.

The same estimators as those of the native engine (:mod:`tract7dt.fit.errors`, :mod:`tract7dt.fit.measure`):
marginal errors, the sandwich ``A^-1 (sum w**2 V J J^T) A^-1`` with the photon noise of the model in V.
"""

from __future__ import annotations

import numpy as np

from tract7dt.fit.parameters import Layout
from tract7dt.fit.tractor.posterior import Band, Point, Posterior, solve
from tract7dt.types import F4, F8, Bool


def covariances(
    posterior: Posterior, point: Point, layout: Layout, variance: F4, at_bound: Bool
) -> tuple[F8, F8, F8]:
    """Marginal covariances.

    Parameters
    ----------
    posterior, point, layout
        With derivatives of all free parameters at the point.
    variance : ndarray, float32 (nband, ny, nx)
        From :meth:`tract7dt.fit.scene.Scene.relative_variance`.
    at_bound : ndarray, bool (S, 6)
        Parameters that count as known.

    Returns
    -------
    shared : ndarray, float64 (S, 6, 6)
        NaN for a parameter that was not free.
    flux_err : ndarray, float64 (nband, S)
        NaN where a source has no pixels.
    sky_err : ndarray, float64 (nband,)
    """
    owner, column = layout.owner, layout.column
    _, prior = posterior.prior_derivatives(point, layout)
    used = posterior.bands(point, layout)
    true = posterior.bands(point, layout, np.sqrt(variance))
    hessian, middle = prior.copy(), prior.copy()
    for a, m in zip(used, true):
        hessian += a.d - a.c.T @ a.x
        cross = a.x.T @ (m.c - 0.5 * m.a @ a.x)
        middle += m.d - cross - cross.T
    free = np.flatnonzero(~at_bound[owner, column] & (np.diagonal(hessian) > 1e-12))
    inverse = np.zeros_like(hessian)
    inverse[np.ix_(free, free)] = _inverse(hessian[np.ix_(free, free)])
    shared = inverse @ middle @ inverse
    flux_err = np.full(posterior.live.shape, np.nan)
    sky_err = np.full(len(used), np.nan)
    for b, (a, m) in enumerate(zip(used, true)):
        sigma = np.sqrt(np.maximum(_flux_variance(a, m, inverse, shared), 0))
        flux_err[b] = np.where(posterior.live[b], sigma[:-1], np.nan)
        sky_err[b] = sigma[-1] if posterior.scene.weight_sum[b] > 0 else np.nan
    known = np.zeros(len(owner), bool)
    known[free] = True
    block = np.full((posterior.n, 6, 6), np.nan)
    for i, j in zip(*np.nonzero((owner[:, None] == owner) & known[:, None] & known)):
        block[owner[i], column[i], column[j]] = shared[i, j]
    return block, flux_err, sky_err


def _flux_variance(a: Band, m: Band, inverse: F8, shared: F8) -> F8:
    """Variances of fluxes and sky of a band: own noise, that of the shared parameters, and the mixed term."""
    a_inverse = solve(a.factor, np.eye(len(a.a)))
    own = np.einsum("ij,ij->i", a_inverse @ m.a, a_inverse)
    through = np.einsum("ij,ij->i", a.x @ shared, a.x)
    mixed = np.einsum("ij,ij->i", a_inverse @ (m.c - m.a @ a.x), a.x @ inverse)
    return np.asarray(own + through - 2 * mixed)


def _inverse(hessian: F8) -> F8:
    """Inverse; directions of no curvature get a huge variance instead of a failure."""
    if not len(hessian):
        return hessian
    scale = 1 / np.sqrt(np.diagonal(hessian))
    values, vectors = np.linalg.eigh(hessian * scale[:, None] * scale)
    return np.asarray((vectors / np.maximum(values, 1e-10)) @ vectors.T * scale[:, None] * scale)


def measure(posterior: Posterior, point: Point, layout: Layout, variance: F4) -> tuple[F8, F8, F8]:
    """Profile-weighted chi-square, masked share and neighbours' share, float64 (nband, S) each.

    Definitions as in :func:`tract7dt.fit.measure.measure`; NaN where a source has no pixels.
    """
    scene = posterior.scene
    chi2, masked, shared = (np.full((scene.n_bands, posterior.n), np.nan) for _ in range(3))
    taken = 1 + (layout.n_images - 1) / np.maximum(posterior.live.sum(axis=0), 1)
    for b, s in zip(*np.nonzero(posterior.live)):
        drawn = point.models[b][s]
        if drawn is None:
            continue
        q = scene.sqrt_w[b][drawn.window]
        good = q > 0
        q = q[good].astype(float)
        t = np.maximum(drawn.images[0][good] / q, 0)
        residual = point.residuals[b][drawn.window][good]
        everything = (scene.data[b][drawn.window][good] - residual) / q - point.sky[b]
        own = point.flux[b, s] * t
        total, square = t.sum(), np.sum((q * t) ** 2)
        masked[b, s] = min(max(1 - total, 0.0), 1.0)
        if total > 0:
            noise_taken = taken[s] * np.sum(t * (q * t) ** 2) / square if square > 0 else 0.0
            chi2[b, s] = np.sum(t * residual**2 / variance[b][drawn.window][good])
            chi2[b, s] /= max(total - noise_taken, 0.1 * total)
        others, mine = np.sum(t * np.maximum(everything - own, 0)), np.sum(t * np.maximum(own, 0))
        shared[b, s] = others / (others + mine) if others + mine > 0 else 0.0
    return chi2, masked, shared
