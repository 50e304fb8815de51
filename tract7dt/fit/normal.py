"""Kernels of variable projection: fluxes and sky of every band, and the reduced normal equations.

In a band, let A be the normal matrix of the unit-flux models and the sky (plus flux priors), C that of models with
flux-weighted derivatives. Fluxes and sky are ``A^-1 b`` at any value of the shared parameters, and the Hessian of
what is left is ``f f J^T J - C^T A^-1 C`` (Kaufman 1975; Golub & Pereyra 2003, Inverse Problems 19, R1). With
A = L L^T the second term is ``Y^T Y``, ``Y = L^-1 C``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tract7dt.fit._jit import kernel
from tract7dt.fit.gram import gram
from tract7dt.fit.linear import cholesky, forward
from tract7dt.fit.residuals import project, residual

# Relative ridge on A: float32 dot products are good to 1e-7, so two models on one spot are singular without it.
RIDGE = 3e-7
#: Rows of the Hessian that are made at a time: blocks of a fixed size give the same numbers, whoever makes them.
BLOCK = 8
# Relative error of a dot product in float32, and the share of a sigma by which it may shift a parameter.
_ROUNDING, _NEGLIGIBLE = 5e-7, 1e-3


@kernel
def bring_up(before: Any, stale: Any, changed: Any, n_images: Any, first: Any, matrix: Any) -> None:
    """Make the normal matrix of one band that before the change, but for the entries of changed sources.

    Parameters
    ----------
    before, matrix : ndarray, float64 (N, N)
        Symmetric.
    stale : ndarray, bool (S,)
        Sources in whose rows the two differ.
    changed : ndarray, bool (S,)
        Sources whose rows are about to be replaced.
    n_images, first : ndarray, int64 (S,)
    """
    last = matrix.shape[0] - 1
    for s in range(stale.shape[0]):
        if not stale[s] or changed[s]:
            continue
        for c in range(first[s], first[s] + n_images[s]):
            old, row = before[c], matrix[c]
            for j in range(last + 1):
                if row[j] != old[j]:
                    row[j] = old[j]
                    matrix[j, c] = old[j]


@kernel
def project_by_matrix(
    matrix: Any,
    rhs: Any,
    flux_columns: Any,
    flux: Any,
    sky: float,
    n_images: Any,
    first: Any,
    live: Any,
    out: Any,
) -> Any:
    """Dot products of the images of one band with the residual, from those with data and models.

    Parameters
    ----------
    matrix, rhs : ndarray, float64 (N, N), (N,)
        Sums of float32 products.
    flux_columns : ndarray, int64 (S + 1,)
    flux : ndarray, float64 (S,)
    sky : float
    n_images, first : ndarray, int64 (S,)
    live : ndarray, bool (S,)
    out : ndarray, float64 (N,)
        Filled.

    Returns
    -------
    ndarray, bool (S,)
        Sources so bright, or so near to bright ones, that the difference of large numbers is not to be trusted.
    """
    n = flux.shape[0]
    uncertain = np.zeros(n, np.bool_)
    for s in range(n):
        for c in range(first[s], first[s] + n_images[s]):
            out[c] = 0.0
            if not live[s]:
                continue
            row = matrix[c]
            taken = sky * row[flux_columns[n]]
            total, size = rhs[c] - taken, abs(rhs[c]) + abs(taken)
            for t in range(n):
                taken = flux[t] * row[flux_columns[t]]
                total -= taken
                size += abs(taken)
            out[c] = total
            # an error of x times the norm of the image is one of x sigma in its parameter
            if _ROUNDING * size > _NEGLIGIBLE * np.sqrt(row[c]):
                uncertain[s] = True
    return uncertain


@kernel
def solve_bands(
    data: Any,
    sqrt_w: Any,
    buffer: Any,
    offset: Any,
    box: Any,
    n_images: Any,
    first: Any,
    flux_columns: Any,
    live: Any,
    changed: Any,
    stale: Any,
    prior_mean: Any,
    prior_precision: Any,
    weight_sum: Any,
    data_sum: Any,
    matrix_before: Any,
    rhs_before: Any,
    matrix: Any,
    rhs: Any,
    factor: Any,
    scale: Any,
    flux: Any,
    sky: Any,
    chi2: Any,
    residuals: Any,
    projection: Any,
) -> None:
    """Normal matrices, best fluxes and sky, residuals and their projections, band by band.

    Parameters
    ----------
    data, sqrt_w : ndarray, float32 (nband, ny, nx)
    buffer, offset, box, n_images, first
        Whitened images (:mod:`tract7dt.fit.gram`).
    flux_columns : ndarray, int64 (S + 1,)
    live : ndarray, bool (nband, S)
    changed, stale : ndarray, bool (S,)
        Sources drawn anew; sources in whose rows ``matrix`` and ``matrix_before`` differ.
    prior_mean, prior_precision : ndarray, float64 (nband, S)
        Flux priors.
    weight_sum, data_sum : ndarray, float64 (nband,)
    matrix_before, rhs_before, matrix, rhs : ndarray, float64 (nband, N, N), (nband, N)
        Normal equations before and after the change.
    factor : ndarray, float64 (nband, S + 1, S + 1)
        Filled with L of the scaled A.
    scale : ndarray, float64 (nband, S + 1)
        Filled with ``diag(A)**-1/2``; 0 for a source that is not live and for the sky of an empty band.
    flux : ndarray, float64 (nband, S)
    sky, chi2 : ndarray, float64 (nband,)
    residuals : ndarray, float32 (nband, ny, nx)
    projection : ndarray, float64 (nband, N)
        Filled: dot products of all images with the residual.
    """
    n_bands, n = flux.shape
    last = matrix.shape[1] - 1
    solution = np.empty(n + 1)
    everything = changed.all()
    for b in range(n_bands):
        if everything:
            matrix[b] = 0.0
        else:
            bring_up(matrix_before[b], stale, changed, n_images, first, matrix[b])
            rhs[b] = rhs_before[b]
        gram(
            buffer[b], offset, box, n_images, first, live[b], changed, data[b], sqrt_w[b], np.float32(0),
            matrix[b], rhs[b],
        )  # fmt: skip
        matrix[b, last, last] = weight_sum[b]
        rhs[b, last] = data_sum[b]
        a, sc = factor[b], scale[b]
        for i in range(n + 1):
            d = matrix[b, flux_columns[i], flux_columns[i]]
            if i < n:
                d += prior_precision[b, i]
            usable = d > 0 and (i == n or live[b, i])
            sc[i] = 1 / np.sqrt(d) if usable else 0.0
            solution[i] = rhs[b, flux_columns[i]]
            if i < n:
                solution[i] += prior_precision[b, i] * prior_mean[b, i]
            solution[i] *= sc[i]
        for i in range(n + 1):
            for j in range(i):
                a[i, j] = matrix[b, flux_columns[i], flux_columns[j]] * sc[i] * sc[j]
            a[i, i] = 1.0 + RIDGE
        cholesky(a, RIDGE)
        for i in range(n + 1):
            t = solution[i]
            for k in range(i):
                t -= a[i, k] * solution[k]
            solution[i] = t / a[i, i]
        for i in range(n, -1, -1):
            solution[i] /= a[i, i]
            for k in range(i):
                solution[k] -= a[i, k] * solution[i]
        for i in range(n):
            flux[b, i] = solution[i] * sc[i]
        sky[b] = solution[n] * sc[n]
        chi2[b] = residual(buffer[b], offset, box, flux[b], sky[b], data[b], sqrt_w[b], residuals[b])
        uncertain = project_by_matrix(
            matrix[b], rhs[b], flux_columns, flux[b], sky[b], n_images, first, live[b], projection[b]
        )
        project(buffer[b], offset, box, n_images, first, uncertain, residuals[b], projection[b])


@kernel
def reduce_bands(
    matrix: Any,
    flux: Any,
    projection: Any,
    eliminated: Any,
    owner: Any,
    theta_columns: Any,
    start: int,
    stop: int,
    gradient: Any,
    hessian: Any,
) -> None:
    """Gradient and reduced Hessian of some of the shared parameters.

    Parameters
    ----------
    matrix, flux, projection
        From :func:`solve_bands`.
    eliminated : ndarray, float64 (nT, nband * (S + 1))
        From :func:`eliminate_bands`, of all bands.
    owner : ndarray, int64 (nT,)
        Source of each shared parameter.
    theta_columns : ndarray, int64 (nT,)
    start, stop : int
        The parameters, in blocks of ``BLOCK``.
    gradient : ndarray, float64 (nT,)
        Filled for these parameters: of the log-likelihood.
    hessian : ndarray, float64 (nT, nT)
        Their rows are filled up to the diagonal: ``sum_b f f J^T J - Y^T Y``.
    """
    n_theta = owner.shape[0]
    first, end = start * BLOCK, min(stop * BLOCK, n_theta)
    for begin in range(first, end, BLOCK):
        after = min(begin + BLOCK, end)
        taken = np.dot(eliminated[begin:after], eliminated[:after].T)
        for i in range(begin, after):
            gradient[i] = 0.0
            for j in range(i + 1):
                hessian[i, j] = -taken[i - begin, j]
    f = np.empty(n_theta)
    for b in range(flux.shape[0]):
        for t in range(end):
            f[t] = flux[b, owner[t]]
        for i in range(first, end):
            gradient[i] += f[i] * projection[b, theta_columns[i]]
            row, to, fi = matrix[b, theta_columns[i]], hessian[i], f[i]
            for j in range(i + 1):
                to[j] += row[theta_columns[j]] * fi * f[j]


@kernel
def eliminate_bands(
    matrix: Any,
    factor: Any,
    scale: Any,
    flux: Any,
    projection: Any,
    owner: Any,
    flux_columns: Any,
    theta_columns: Any,
    newton: Any,
    eliminated: Any,
) -> None:
    """Y of some bands, of which the second part of the reduced Hessian is made.

    Parameters
    ----------
    matrix, factor, scale, flux, projection
        From :func:`solve_bands`.
    owner : ndarray, int64 (nT,)
        Source of each shared parameter.
    flux_columns, theta_columns : ndarray, int64 (S + 1,), (nT,)
    newton : ndarray, bool (S,)
        Sources whose C includes ``-<dT, r>``, the second derivative by own flux and parameter.
    eliminated : ndarray, float64 (nT, nband * (S + 1))
        Filled: Y^T of the bands, side by side.
    """
    n_bands, n = flux.shape
    n_theta = owner.shape[0]
    y = np.empty((n + 1, n_theta))
    for b in range(n_bands):
        for a in range(n + 1):
            row, to, sc = matrix[b, flux_columns[a]], y[a], scale[b, a]
            for t in range(n_theta):
                to[t] = row[theta_columns[t]] * flux[b, owner[t]] * sc
        for t in range(n_theta):
            s = owner[t]
            if newton[s]:
                y[s, t] -= projection[b, theta_columns[t]] * scale[b, s]
        forward(factor[b], y)
        for t in range(n_theta):
            to = eliminated[t, b * (n + 1) : (b + 1) * (n + 1)]
            for a in range(n + 1):
                to[a] = y[a, t]
