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
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs, dtrtrs

from tract7dt.fit._jit import kernel
from tract7dt.fit.evaluate import Evaluator, Point
from tract7dt.fit.gram import gram
from tract7dt.fit.linear import gathered, overlaps
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


def covariances(evaluator: Evaluator, point: Point, variance: F4, at_bound: Bool) -> Covariances:
    """Covariances at the current point. The images in the evaluator's buffer are spent: call this last.

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
    bands, hessian, excess = _reduce(evaluator, point, variance, n_theta)
    rows, columns = layout.pairs
    _, prior = evaluator.parameters.prior_derivatives(point.theta)
    hessian[rows, columns] += prior[owner[rows], column[rows], column[columns]]
    free = np.flatnonzero(~at_bound[owner, column] & (np.diagonal(hessian) > 1e-12))
    inverse = np.zeros((n_theta, n_theta))
    inverse[np.ix_(free, free)] = _inverse(hessian[np.ix_(free, free)])
    shared = inverse + inverse @ excess @ inverse
    flux_err, sky_err = np.full((scene.n_bands, n), np.nan), np.full(scene.n_bands, np.nan)

    def spread(start: int, stop: int) -> None:
        for b in range(start, stop):
            sigma = np.sqrt(np.maximum(bands[b].flux_variance(inverse, shared), 0))
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


def _reduce(evaluator: Evaluator, point: Point, variance: F4, n_theta: int) -> tuple[list[_Band], F8, F8]:
    """All bands, and the sums of their Hessians and of what these have more with the true variance.

    A few bands at a time: a band's matrices take 1 MB for 60 galaxies, and only the sums are needed of them.
    """
    hessian, excess = np.zeros((n_theta, n_theta)), np.zeros((n_theta, n_theta))
    reduced: dict[int, _Band] = {}
    at_once = 1 if evaluator.team.threads == 1 else _AT_ONCE * evaluator.team.threads
    for first in range(0, evaluator.scene.n_bands, at_once):
        count = min(at_once, evaluator.scene.n_bands - first)

        def reduce(start: int, stop: int, first: int = first) -> None:
            for b in range(first + start, first + stop):
                reduced[b] = _Band(evaluator, point, variance[b], b)

        evaluator.team.share(reduce, count)
        for b in range(first, first + count):
            own, more = reduced[b].take_sums()
            hessian += own
            excess += more
    return [reduced[b] for b in range(evaluator.scene.n_bands)], hessian, excess


class _Band:
    """Normal matrices of one band with the weights of the fit (A, C), and their excess with the true variance.

    Where models overlap as in a crowd, all are summed again in float64: what tells the sources apart is a tiny
    difference of large numbers there. For the same reason the noise beyond that of the weights is kept by itself:
    without it the sandwich is the inverse of the Hessian, to the last digit.
    """

    def __init__(self, evaluator: Evaluator, point: Point, variance: F4, b: int) -> None:
        layout, scene = evaluator.layout, evaluator.scene
        assert layout is not None
        flux_columns, theta_columns = layout.flux_columns, layout.theta_columns
        matrix = point.matrix[b]
        crowded = overlaps(matrix, point.scale[b], flux_columns).max(axis=0, initial=0.0) > _CROWDED
        if crowded.any():
            matrix = matrix.copy()
            self._sum(evaluator, point, b, crowded, scene.sqrt_w[b], np.float64(0), matrix)
        excess = self._excess(evaluator, point, variance, b, crowded, matrix)

        f = point.flux[b][layout.owner]
        prior = np.append(evaluator.parameters.flux_prior_precision[b], 0.0)
        diagonal = matrix[flux_columns, flux_columns] + prior
        self.scale = np.where(point.scale[b] > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 0.0)
        a = gathered(matrix, flux_columns, flux_columns, self.scale, self.scale)  # its diagonal is set to 1
        self.factor = _factor(a, point.factor[b])
        c = gathered(matrix, flux_columns, theta_columns, self.scale, f)
        y = dtrtrs(self.factor, c, lower=1)[0] if c.size else c
        self.x = self.scale[:, None] * dtrtrs(self.factor, y, lower=1, trans=1)[0] if c.size else c
        hessian = gathered(matrix, theta_columns, theta_columns, f, f) - y.T @ y
        used = (self.scale > 0).astype(float)
        self.a_excess = gathered(excess, flux_columns, flux_columns, used, used)
        c_excess = gathered(excess, flux_columns, theta_columns, used, f)
        a_x = self.a_excess @ self.x
        cross = self.x.T @ (c_excess - 0.5 * a_x)
        more = gathered(excess, theta_columns, theta_columns, f, f) - cross - cross.T
        self._sums = [(hessian, more)]
        self.leak = c_excess - a_x

    def take_sums(self) -> tuple[F8, F8]:
        """The Hessian of the band and what it has more with the true variance; once only, it is not kept."""
        return self._sums.pop()

    def _excess(
        self, evaluator: Evaluator, point: Point, variance: F4, b: int, crowded: Bool, matrix: F8
    ) -> F8:
        """Normal matrix with the true variance less that with the fit's. The images in the buffer are spent."""
        layout, q = evaluator.layout, evaluator.scene.sqrt_w[b]
        assert layout is not None
        factor, weighed = np.empty_like(q), np.empty_like(q)
        least, power = excess_factor(variance, q, factor, weighed)
        box, live = point.stamps.box, evaluator.live[b]
        scale_images(evaluator.buffer(b), point.stamps.offset, box, layout.n_images, live, factor)
        excess, everything = np.zeros_like(matrix), np.ones(evaluator.n, bool)
        self._sum(evaluator, point, b, everything, weighed, np.float32(0), excess)
        if crowded.any():
            self._sum(evaluator, point, b, crowded, weighed, np.float64(0), excess)
        excess[-1, -1] = power
        if least < 1:
            excess -= (1 - least) * matrix
        return excess

    @staticmethod
    def _sum(
        evaluator: Evaluator,
        point: Point,
        b: int,
        which: Bool,
        sqrt_w: F4,
        zero: np.floating[Any],
        matrix: F8,
    ) -> None:
        """Replace the entries of some sources in a normal matrix by those of the images in the buffer."""
        layout = evaluator.layout
        assert layout is not None
        gram(
            evaluator.buffer(b),
            point.stamps.offset,
            point.stamps.box,
            layout.n_images,
            layout.first,
            evaluator.live[b],
            which,
            sqrt_w,
            sqrt_w,
            zero,
            matrix,
            np.zeros(len(matrix)),
        )

    def solve(self, right: F8) -> F8:
        """``A^-1 right``, 0 in the rows of sources without pixels."""
        solved: F8 = dpotrs(self.factor, self.scale[:, None] * right, lower=1)[0]
        return self.scale[:, None] * solved

    def flux_variance(self, inverse: F8, shared: F8) -> F8:
        """Diagonal of the covariance of fluxes and sky, float64 (S + 1,)."""
        a_inverse = self.solve(np.eye(len(self.scale)))
        own = np.diagonal(a_inverse) + np.einsum("ij,ij->i", a_inverse @ self.a_excess, a_inverse)
        through = np.einsum("ij,ij->i", self.x @ shared, self.x)
        mixed = np.einsum("ij,ij->i", a_inverse @ self.leak, self.x @ inverse)
        return own + through - 2 * mixed


def _factor(a: F8, rough: F8) -> F8:
    """Lower Cholesky factor of a scaled normal matrix with a ridge of ``_RIDGE``; ``rough`` if there is none."""
    diagonal = np.arange(len(a))
    a[diagonal, diagonal] = 1 + _RIDGE
    factor, info = dpotrf(a, lower=1)
    return factor if info == 0 else rough


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
