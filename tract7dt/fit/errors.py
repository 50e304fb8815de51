"""Covariances of parameters, fluxes and sky at the maximum, with the photon noise of the sources themselves.

The fit weighs pixels by w, which need not be the inverse of their true variance: with sky weights a bright star's
own noise is not in them. To first order the estimate moves with the noise as ``H^-1 J^T W eps``, so its
covariance is ``H^-1 (J^T W V W J) H^-1``, V the true variance ``sky_sigma**2 + model / gain`` (model without
sky). The middle is the normal matrix of the images times ``sqrt(w V)``: exact, blends included. It is built over
all parameters of a band and reduced as the Hessian is (:mod:`tract7dt.fit.normal`), as H and what it has more
than H: the result is ``H^-1 + H^-1 E H^-1``. A prior counts as a measurement of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri

from tract7dt.fit._jit import kernel
from tract7dt.fit.evaluate import Evaluator, Point
from tract7dt.fit.gram import gram
from tract7dt.fit.linear import alike, backward, cholesky, forward, gather
from tract7dt.fit.parameters import step_jacobian

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

# Sources whose whitened models have a cosine above this with another's count as crowded (stars: 0.7 FWHM apart).
_CROWDED = 0.5
# Relative ridge on A: what is left of a source that its neighbours describe as well but for this share of its
# squares is noise of its float32 image.
_RIDGE = 1e-11
# Bands a thread whose matrices are there at once, lest threads wait for each other after every band.
_AT_ONCE = 4


@dataclass(frozen=True)
class Covariances:
    """What is known about the errors.

    Attributes
    ----------
    shared : ndarray, float64 (S, 6, 6)
        Covariance of a source's shared parameters, marginal; NaN for a parameter that was not free.
    flux_err : ndarray, float64 (nband, S)
        Marginal; NaN where a source has no pixels.
    sky_err : ndarray, float64 (nband,)
    """

    shared: F8
    flux_err: F8
    sky_err: F8


@kernel
def scale_images(buffer: Any, offset: Any, box: Any, n_images: Any, live: Any, factor: Any) -> None:
    """Multiply all images of one band by ``factor`` float32 (ny, nx), in place."""
    for s in range(offset.shape[0]):
        if not live[s]:
            continue
        x0, x1, y0 = box[s, 0], box[s, 1], box[s, 2]
        w, h = x1 - x0, box[s, 3] - y0
        for i in range(n_images[s]):
            for y in range(h):
                start = offset[s] + (i * h + y) * w
                p, q = buffer[start : start + w], factor[y0 + y, x0:x1]
                for x in range(w):
                    p[x] *= q[x]


@kernel
def excess_factor(variance: Any, sqrt_w: Any, factor: Any, weighed: Any) -> Any:
    """What the images of one band are to be multiplied by for the noise beyond the least that a pixel has.

    Parameters
    ----------
    variance, sqrt_w : ndarray, float32 (ny, nx)
        True variance times the fit's weight; sqrt(weight), 0 where a pixel is not used.
    factor, weighed : ndarray, float32 (ny, nx)
        Filled: ``sqrt(variance - least)``, 0 where a pixel is not used; and that times ``sqrt_w``.

    Returns
    -------
    least : float
        Smallest ``variance`` of a used pixel, 1 at most.
    power : float
        Sum of the squares of ``weighed``.
    """
    least, zero = np.float32(1), np.float32(0)
    for y in range(variance.shape[0]):
        for x in range(variance.shape[1]):
            least = min(least, variance[y, x] if sqrt_w[y, x] > 0 else least)
    power = 0.0
    for y in range(variance.shape[0]):
        row = 0.0
        for x in range(variance.shape[1]):
            q = sqrt_w[y, x]
            root = np.sqrt(variance[y, x] - least) if q > 0 else zero
            factor[y, x], weighed[y, x] = root, root * q
            row += float(weighed[y, x]) ** 2
        power += row
    return float(least), power


@kernel
def resum(
    buffer: Any,
    offset: Any,
    box: Any,
    n_images: Any,
    first: Any,
    live: Any,
    which: Any,
    sqrt_w: Any,
    zero: Any,
    matrix: Any,
) -> None:
    """Replace the entries of some sources in a normal matrix (:func:`tract7dt.fit.gram.gram`); no data."""
    nothing = np.zeros(matrix.shape[0])
    gram(buffer, offset, box, n_images, first, live, which, sqrt_w, sqrt_w, zero, matrix, nothing)


@kernel
def reduce_band(
    buffer: Any,
    offset: Any,
    box: Any,
    n_images: Any,
    first: Any,
    live: Any,
    sqrt_w: Any,
    variance: Any,
    normal: Any,
    fit_scale: Any,
    rough: Any,
    flux: Any,
    prior_precision: Any,
    owner: Any,
    flux_columns: Any,
    theta_columns: Any,
    factor: Any,
    scale: Any,
    x: Any,
    a_excess: Any,
    leak: Any,
    hessian: Any,
    more: Any,
) -> None:
    """Normal matrices of one band with the weights of the fit (A, C), and their excess with the true variance.

    Where models overlap as in a crowd, all are summed again in float64: what tells the sources apart is a tiny
    difference of large numbers there. For the same reason the noise beyond that of the weights is kept by itself:
    without it the sandwich is the inverse of the Hessian, to the last digit. The images in the buffer are spent.

    Parameters
    ----------
    buffer, offset, box, n_images, first, live
        Whitened images (:mod:`tract7dt.fit.gram`).
    sqrt_w, variance : ndarray, float32 (ny, nx)
        sqrt(weight); true variance times the fit's weight.
    normal, fit_scale, rough, flux
        The fit's matrix (N, N), scale (S + 1,), factor (S + 1, S + 1) and fluxes (S,):
        :func:`tract7dt.fit.normal.solve_bands`.
    prior_precision : ndarray, float64 (S,)
        Of the fluxes.
    owner, flux_columns, theta_columns : ndarray, int64 (nT,), (S + 1,), (nT,)
    factor : ndarray, float64 (S + 1, S + 1)
        Filled with L of the scaled A.
    scale : ndarray, float64 (S + 1,)
        Filled with ``diag(A)**-1/2``, 0 where there are no pixels.
    x : ndarray, float64 (S + 1, nT)
        Filled: ``A^-1 C``.
    a_excess, leak : ndarray, float64 (S + 1, S + 1), (S + 1, nT)
        Filled: excess of A, and of C less that of ``A x``.
    hessian, more : ndarray, float64 (nT, nT)
        Filled: the Hessian of the band, and what it has more with the true variance.
    """
    n, n_theta = flux.shape[0], owner.shape[0]
    crowded = np.zeros(n, np.bool_)
    alike(normal, fit_scale, flux_columns, _CROWDED, crowded)
    matrix = normal.copy()
    if crowded.any():
        resum(buffer, offset, box, n_images, first, live, crowded, sqrt_w, np.float64(0), matrix)
    spread, weighed = np.empty_like(sqrt_w), np.empty_like(sqrt_w)
    least, power = excess_factor(variance, sqrt_w, spread, weighed)
    scale_images(buffer, offset, box, n_images, live, spread)
    excess, everything = np.zeros_like(matrix), np.ones(n, np.bool_)
    resum(buffer, offset, box, n_images, first, live, everything, weighed, np.float32(0), excess)
    if crowded.any():
        resum(buffer, offset, box, n_images, first, live, crowded, weighed, np.float64(0), excess)
    excess[-1, -1] = power
    if least < 1:
        excess -= (1 - least) * matrix

    f, used = np.empty(n_theta), np.zeros(n + 1)
    for t in range(n_theta):
        f[t] = flux[owner[t]]
    for s in range(n + 1):
        d = matrix[flux_columns[s], flux_columns[s]] + (prior_precision[s] if s < n else 0.0)
        used[s] = 1.0 if fit_scale[s] > 0 else 0.0
        scale[s] = used[s] / np.sqrt(d if d > 0 else 1.0)
    gather(matrix, flux_columns, flux_columns, scale, scale, factor)
    for s in range(n + 1):
        factor[s, s] = 1 + _RIDGE
    if not cholesky(factor, 0.0):
        factor[:] = rough
    gather(matrix, flux_columns, theta_columns, scale, f, x)
    forward(factor, x)
    gather(matrix, theta_columns, theta_columns, f, f, hessian)
    hessian -= np.dot(x.T, x)
    backward(factor, x)
    for s in range(n + 1):
        x[s] *= scale[s]
    gather(excess, flux_columns, flux_columns, used, used, a_excess)
    gather(excess, flux_columns, theta_columns, used, f, leak)
    a_x = np.dot(a_excess, x)
    cross = np.dot(x.T, leak - 0.5 * a_x)
    gather(excess, theta_columns, theta_columns, f, f, more)
    more -= cross + cross.T
    leak -= a_x


@kernel
def flux_variance(
    factor: Any, scale: Any, x: Any, a_excess: Any, leak: Any, inverse: Any, shared: Any, out: Any
) -> None:
    """Diagonal of the covariance of fluxes and sky of one band, into ``out`` float64 (S + 1,).

    Parameters
    ----------
    factor, scale, x, a_excess, leak
        From :func:`reduce_band`.
    inverse, shared : ndarray, float64 (nT, nT)
        Inverse of the Hessian, covariance of the shared parameters.
    """
    a_inverse = np.diag(scale)
    forward(factor, a_inverse)
    backward(factor, a_inverse)
    for s in range(len(scale)):
        a_inverse[s] *= scale[s]
    own, through = np.dot(a_inverse, a_excess), np.dot(x, shared)
    mixed, known = np.dot(a_inverse, leak), np.dot(x, inverse)
    for s in range(len(scale)):
        total = a_inverse[s, s]
        for t in range(len(scale)):
            total += own[s, t] * a_inverse[s, t]
        for t in range(x.shape[1]):
            total += through[s, t] * x[s, t] - 2 * mixed[s, t] * known[s, t]
        out[s] = total


def covariances(evaluator: Evaluator, point: Point, variance: F4, at_bound: Bool) -> Covariances:
    """Covariances at the current point. The images that the evaluator keeps are spent: call this last.

    Parameters
    ----------
    evaluator : Evaluator
        In a stage in which every parameter is free.
    point : Point
        Its current point.
    variance : ndarray, float32 (nband, ny, nx)
        From :meth:`tract7dt.fit.scene.Scene.relative_variance`.
    at_bound : ndarray, bool (S, 6)
        Parameters that stand at a bound; they count as known.
    """
    layout, scene, n = evaluator.layout, evaluator.scene, evaluator.n
    assert layout is not None
    owner, column = layout.owner, layout.column
    n_theta = len(owner)
    reduced, hessian, excess = _reduce(evaluator, point, variance, n_theta)
    rows, columns = layout.pairs
    _, prior = evaluator.parameters.prior_derivatives(point.theta)
    hessian[rows, columns] += prior[owner[rows], column[rows], column[columns]]
    free = np.flatnonzero(~at_bound[owner, column] & (np.diagonal(hessian) > 1e-12))
    inverse = np.zeros((n_theta, n_theta))
    inverse[np.ix_(free, free)] = _inverse(hessian[np.ix_(free, free)])
    shared = inverse + inverse @ excess @ inverse
    flux_err, sky_err = np.full((scene.n_bands, n), np.nan), np.full(scene.n_bands, np.nan)

    def spread(start: int, stop: int) -> None:
        found = np.empty(n + 1)
        for b in range(start, stop):
            flux_variance(*reduced.of(b), inverse, shared, found)
            sigma = np.sqrt(np.maximum(found, 0))
            flux_err[b] = np.where(evaluator.live[b], sigma[:-1], np.nan)
            sky_err[b] = sigma[-1] if scene.weight_sum[b] > 0 else np.nan

    evaluator.team.share(spread, scene.n_bands)
    block = np.full((n, 6, 6), np.nan)
    known = np.zeros(n_theta, bool)
    known[free] = True
    both = known[rows] & known[columns]
    rows, columns = rows[both], columns[both]
    block[owner[rows], column[rows], column[columns]] = shared[rows, columns]
    # from the coordinates of steps; what is not free does not vary
    turn = step_jacobian(point.theta)
    turned = np.einsum("sik,skl,sjl->sij", turn, np.nan_to_num(block), turn)
    block = np.where(np.isnan(block), np.nan, turned)
    return Covariances(block, flux_err, sky_err)


@dataclass
class _Reduced:
    """What :func:`reduce_band` leaves of every band for the errors of its fluxes."""

    factor: F8
    scale: F8
    x: F8
    a_excess: F8
    leak: F8

    @classmethod
    def empty(cls, n_bands: int, n: int, n_theta: int) -> _Reduced:
        """Room for ``n`` sources and ``n_theta`` shared parameters."""
        return cls(
            np.empty((n_bands, n + 1, n + 1)),
            np.empty((n_bands, n + 1)),
            np.empty((n_bands, n + 1, n_theta)),
            np.empty((n_bands, n + 1, n + 1)),
            np.empty((n_bands, n + 1, n_theta)),
        )

    def of(self, b: int) -> tuple[F8, F8, F8, F8, F8]:
        """The arrays of one band, as the kernels take them."""
        return self.factor[b], self.scale[b], self.x[b], self.a_excess[b], self.leak[b]


def _reduce(evaluator: Evaluator, point: Point, variance: F4, n_theta: int) -> tuple[_Reduced, F8, F8]:
    """All bands, and the sums of their Hessians and of what these have more with the true variance.

    A few bands at a time: only the sums are needed of their largest matrices. These are added in the order of the
    bands, whatever thread has made them.
    """
    layout, scene = evaluator.layout, evaluator.scene
    assert layout is not None
    n_bands = scene.n_bands
    reduced = _Reduced.empty(n_bands, evaluator.n, n_theta)
    at_once = min(n_bands, 1 if evaluator.team.threads == 1 else _AT_ONCE * evaluator.team.threads)
    sums = np.zeros((2, n_theta, n_theta))
    terms = np.empty((at_once, 2, n_theta, n_theta))
    for begin in range(0, n_bands, at_once):
        count = min(at_once, n_bands - begin)

        def reduce(start: int, stop: int, begin: int = begin) -> None:
            for part, images in evaluator.drawn(point, begin + start, begin + stop):
                for i, b in enumerate(range(part.start, part.stop)):
                    reduce_band(
                        images[i],
                        point.stamps.offset,
                        point.stamps.box,
                        layout.n_images,
                        layout.first,
                        evaluator.live[b],
                        scene.sqrt_w[b],
                        variance[b],
                        point.matrix[b],
                        point.scale[b],
                        point.factor[b],
                        point.flux[b],
                        evaluator.parameters.flux_prior_precision[b],
                        layout.owner,
                        layout.flux_columns,
                        layout.theta_columns,
                        *reduced.of(b),
                        *terms[b - begin],
                    )

        evaluator.team.share(reduce, count)
        for i in range(count):
            sums += terms[i]
    return reduced, sums[0], sums[1]


def _inverse(hessian: F8) -> F8:
    """Inverse of a positive matrix; directions of no curvature get a huge variance instead of a failure."""
    if len(hessian) == 0:
        return hessian
    scale = 1 / np.sqrt(np.diagonal(hessian))
    scaled = hessian * scale[:, None] * scale
    factor, info = dpotrf(scaled, lower=1)
    if info == 0 and np.min(np.diagonal(factor)) > 1e-5:
        lower = np.tril(dpotri(factor, lower=1)[0])
        inverse = lower + np.tril(lower, -1).T
    else:
        values, vectors = np.linalg.eigh(scaled)
        inverse = (vectors / np.maximum(values, 1e-10)) @ vectors.T
    return inverse * scale[:, None] * scale
