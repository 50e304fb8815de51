"""Dense linear algebra: kernels for symmetric systems, and the steps of a Newton method, damped and scaled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs

from tract7dt.fit._jit import kernel

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@kernel
def scaled_system(hessian: Any, free: Any, damping: Any, out: Any, scale: Any) -> None:
    """Damped Hessian with unit diagonal, lower triangle; rows of parameters that are not free are a unit's.

    Parameters
    ----------
    hessian : ndarray, float64 (n, n)
    free : ndarray, bool (n,)
    damping : ndarray, float64 (n,)
        Added to the diagonal.
    out : ndarray, float64 (n, n)
        Filled on and below the diagonal.
    scale : ndarray, float64 (n,)
        Filled with what rows and columns were multiplied by; 0 where not free.
    """
    n = hessian.shape[0]
    for i in range(n):
        size = max(abs(hessian[i, i] + damping[i]), 1e-30)
        scale[i] = 1 / np.sqrt(size) if free[i] else 0.0
    for i in range(n):
        row, to, a = hessian[i], out[i], scale[i]
        for j in range(i):
            to[j] = row[j] * a * scale[j]
        to[i] = (row[i] + damping[i]) * a * a if free[i] else 1.0


@kernel
def mirror(matrix: Any) -> None:
    """Copy the lower triangle of a square matrix to the upper one."""
    for i in range(matrix.shape[0]):
        for j in range(i):
            matrix[j, i] = matrix[i, j]


@kernel
def cholesky(a: Any, least: float) -> bool:
    """Lower Cholesky factor in place (the upper triangle is cleared), pivots raised to ``least``.

    False if any had to be: with 0, if the matrix is not positive definite.
    """
    n, whole = a.shape[0], True
    for i in range(n):
        row_i = a[i]
        for j in range(i):
            row_j = a[j]
            t = 0.0
            for k in range(j):
                t += row_i[k] * row_j[k]
            row_i[j] = (row_i[j] - t) / row_j[j]
        t = 0.0
        for k in range(i):
            t += row_i[k] * row_i[k]
        pivot = row_i[i] - t
        if not pivot > least:
            whole = False
        row_i[i] = np.sqrt(max(pivot, least))
        for k in range(i + 1, n):
            row_i[k] = 0.0
    return whole


@kernel
def forward(low: Any, right: Any) -> None:
    """``L^-1`` times ``right`` float64 (n, m), in place; ``low`` (n, n) holds L on and below the diagonal."""
    for i in range(low.shape[0]):
        to = right[i]
        for k in range(i):
            w = low[i, k]
            if w != 0.0:
                above = right[k]
                for t in range(right.shape[1]):
                    to[t] -= w * above[t]
        w = 1 / low[i, i]
        for t in range(right.shape[1]):
            to[t] *= w


@kernel
def backward(low: Any, right: Any) -> None:
    """``L^-T`` times ``right`` float64 (n, m), in place."""
    for i in range(low.shape[0] - 1, -1, -1):
        of = right[i]
        w = 1 / low[i, i]
        for t in range(right.shape[1]):
            of[t] *= w
        for k in range(i):
            w = low[i, k]
            if w != 0.0:
                to = right[k]
                for t in range(right.shape[1]):
                    to[t] -= w * of[t]


@kernel
def gather(matrix: Any, rows: Any, columns: Any, left: Any, right: Any, out: Any) -> None:
    """``out[i, j] = left[i] matrix[rows[i], columns[j]] right[j]``, all float64 but the two int64 indices."""
    for i in range(rows.shape[0]):
        row, to, a = matrix[rows[i]], out[i], left[i]
        for j in range(columns.shape[0]):
            to[j] = a * row[columns[j]] * right[j]


@kernel
def alike(matrix: Any, scale: Any, flux_columns: Any, cosine: float, found: Any) -> None:
    """Mark the sources whose whitened models in one band have a cosine above a limit with another's.

    Parameters
    ----------
    matrix : ndarray, float64 (N, N)
        Normal matrix of all images.
    scale : ndarray, float64 (S + 1,)
        ``diag(A)**-1/2`` of the models and the sky.
    flux_columns : ndarray, int64 (S + 1,)
        Where models and sky are in the matrix.
    cosine : float
    found : ndarray, bool (S,)
        Set where it is so, left alone elsewhere.
    """
    for s in range(found.shape[0]):
        row = matrix[flux_columns[s]]
        for t in range(s):
            if abs(row[flux_columns[t]]) * scale[s] * scale[t] > cosine:
                found[s] = found[t] = True


def _factor(hessian: F8, free: Bool, damping: F8) -> tuple[F8, F8, bool]:
    """Cholesky factor of the scaled system, the scale, and whether the system is positive definite."""
    n = len(hessian)
    system, scale = np.empty((n, n)), np.empty(n)
    scaled_system(hessian, free, damping, system, scale)
    # the lower triangle by rows is the upper one by columns, as LAPACK wants it: no copy
    factor, info = dpotrf(system.T, lower=0, clean=0, overwrite_a=1)
    return factor, scale, info == 0


def is_positive(hessian: F8, free: Bool, damping: F8) -> bool:
    """Whether the damped Hessian of the free parameters is positive definite."""
    return not free.any() or _factor(hessian, free, damping)[2]


def solve_positive(hessian: F8, gradient: F8, free: Bool, damping: F8) -> F8 | None:
    """Step ``(H + damping)^-1 g`` over the free parameters, 0 for the others; None if H is not positive."""
    if not free.any():
        return np.zeros_like(gradient)
    factor, scale, positive = _factor(hessian, free, damping)
    if not positive:
        return None
    step: F8 = scale * dpotrs(factor, scale * gradient, lower=0)[0]
    return step


def solve(hessian: F8, gradient: F8, free: Bool, damping: F8) -> F8:
    """Step ``(H + damping)^-1 g`` over the free parameters, 0 for the others.

    A matrix that is not positive definite is replaced by the one with the absolute values of its eigenvalues,
    so that the step always goes uphill.
    """
    step = solve_positive(hessian, gradient, free, damping)
    if step is not None:
        return step
    step = np.zeros_like(gradient)
    use = np.flatnonzero(free)
    system, scale = np.empty_like(hessian), np.empty(len(hessian))
    scaled_system(hessian, free, damping, system, scale)
    values, vectors = np.linalg.eigh(system[np.ix_(use, use)], UPLO="L")
    right = scale[use] * gradient[use]
    step[use] = scale[use] * (vectors @ ((vectors.T @ right) / np.maximum(np.abs(values), 1e-6)))
    return step


def solve_blocks(hessian: F8, gradient: F8, free: Bool, damping: F8, start: NDArray[np.int64]) -> F8:
    """Steps of every diagonal block by itself, as :func:`solve` would take them.

    Parameters
    ----------
    hessian, gradient, free, damping
        As in :func:`solve`.
    start : ndarray, int64 (blocks + 1,)
        Edges of the blocks.
    """
    step = np.zeros_like(gradient)
    count = np.diff(start)
    for size in np.unique(count[count > 0]):
        place = start[:-1][count == size][:, None] + np.arange(size)
        block = hessian[place[:, :, None], place[:, None, :]]
        diagonal = np.arange(size)
        block[:, diagonal, diagonal] += damping[place]
        scale = 1 / np.sqrt(np.maximum(np.abs(block[:, diagonal, diagonal]), 1e-30))
        scale = np.where(free[place], scale, 0.0)
        block *= scale[:, :, None] * scale[:, None, :]
        block[:, diagonal, diagonal] = np.where(free[place], block[:, diagonal, diagonal], 1.0)
        values, vectors = np.linalg.eigh(block)
        right = np.einsum("sji,sj->si", vectors, scale * gradient[place])
        step[place] = scale * np.einsum("sij,sj->si", vectors, right / np.maximum(np.abs(values), 1e-6))
    return step
