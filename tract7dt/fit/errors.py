"""Covariances of parameters, fluxes and sky at the maximum, with the photon noise of the sources themselves.

The fit weighs pixels by w, which need not be the inverse of their true variance: with sky weights a bright star's
own noise is not in them. To first order the estimate moves with the noise as ``H^-1 J^T W eps``, so its
covariance is ``H^-1 (J^T W V W J) H^-1``, V the true variance ``sky_sigma**2 + model / gain`` (model without
sky). The middle is
the normal matrix of the images times ``sqrt(w V)``: exact, blends included. It is built over all parameters
of a band and reduced as the Hessian is (:mod:`tract7dt.fit.normal`). A prior counts as a measurement of its
own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs

from tract7dt.fit._jit import kernel
from tract7dt.fit.evaluate import Evaluator, Point
from tract7dt.fit.gram import gram

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]


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


def relative_variance(evaluator: Evaluator, point: Point, sky_sigma: F8, gain: F8) -> F4:
    """True variance of the pixels times their weight, float32 (nband, ny, nx); 1 where a pixel is not used.

    Parameters
    ----------
    evaluator, point
        The maximum.
    sky_sigma, gain : ndarray, float64 (nband,)
    """
    scene = evaluator.scene
    out = np.ones_like(scene.data)
    for b in range(scene.n_bands):
        q = scene.sqrt_w[b]
        model = scene.data[b] - point.residuals[b] - np.float32(point.sky[b]) * q  # whitened, without sky
        signal = np.maximum(model, 0) * q / np.float32(gain[b])
        out[b] = np.where(q > 0, q * q * np.float32(sky_sigma[b] ** 2) + signal, 1)
    return out


def covariances(evaluator: Evaluator, point: Point, variance: F4, at_bound: Bool) -> Covariances:
    """Covariances at the current point. The images in the evaluator's buffer are spent: call this last.

    Parameters
    ----------
    evaluator : Evaluator
        In a stage in which every parameter is free.
    point : Point
        Its current point.
    variance : ndarray, float32 (nband, ny, nx)
        From :func:`relative_variance`.
    at_bound : ndarray, bool (S, 6)
        Parameters that stand at a bound; they count as known.
    """
    layout, scene, n = evaluator.layout, evaluator.scene, evaluator.n
    assert layout is not None
    owner, column = layout.owner, layout.column
    n_theta = len(owner)
    _, hessian = evaluator.derivatives(point, np.zeros(n, bool))
    free = np.flatnonzero(~at_bound[owner, column] & (np.diagonal(hessian) > 1e-12))
    inverse = np.zeros((n_theta, n_theta))
    inverse[np.ix_(free, free)] = _inverse(hessian[np.ix_(free, free)])
    middle = np.zeros((n_theta, n_theta))
    reduced: dict[int, _Band] = {}

    def reduce(start: int, stop: int) -> None:
        for b in range(start, stop):
            reduced[b] = _Band(evaluator, point, variance[b], b)

    evaluator.team.share(reduce, scene.n_bands)
    bands = [reduced[b] for b in range(scene.n_bands)]
    for band in bands:
        middle += band.middle
    prior = evaluator.parameters.prior_precision
    same = owner[:, None] == owner
    middle += np.where(same, prior[owner[:, None], column[:, None], column[None, :]], 0.0)
    shared = inverse @ middle @ inverse
    flux_err, sky_err = np.full((scene.n_bands, n), np.nan), np.full(scene.n_bands, np.nan)
    for b, band in enumerate(bands):
        sigma = np.sqrt(np.maximum(band.flux_variance(inverse, shared), 0))
        flux_err[b] = np.where(evaluator.live[b], sigma[:-1], np.nan)
        sky_err[b] = sigma[-1] if scene.weight_sum[b] > 0 else np.nan
    block = np.full((n, 6, 6), np.nan)
    known = np.zeros(n_theta, bool)
    known[free] = True
    for i, j in zip(*np.nonzero(same & known[:, None] & known)):
        block[owner[i], column[i], column[j]] = shared[i, j]
    return Covariances(block, flux_err, sky_err)


class _Band:
    """Normal matrices of one band with the weights of the fit (A, C) and with the true variance."""

    def __init__(self, evaluator: Evaluator, point: Point, variance: F4, b: int) -> None:
        layout, scene, n = evaluator.layout, evaluator.scene, evaluator.n
        assert layout is not None
        flux_columns, theta_columns, owner = layout.flux_columns, layout.theta_columns, layout.owner
        offset, box, live = point.stamps.offset, point.stamps.box, evaluator.live[b]
        factor = np.sqrt(variance)
        buffer = evaluator.buffer(b)
        scale_images(buffer, offset, box, layout.n_images, live, factor)
        noisy = np.zeros_like(point.matrix[b])
        sqrt_w = scene.sqrt_w[b] * factor
        everything = np.ones(n, bool)
        unused = np.zeros(noisy.shape[0])
        gram(
            buffer,
            offset,
            box,
            layout.n_images,
            layout.first,
            live,
            everything,
            sqrt_w,
            sqrt_w,
            noisy,
            unused,
        )
        noisy[-1, -1] = np.sum(sqrt_w.astype(float) ** 2)
        f = point.flux[b][owner]
        self.scale = point.scale[b]
        self.factor = point.factor[b]
        self.c = point.matrix[b][np.ix_(flux_columns, theta_columns)] * f
        self.x = self.solve(self.c)
        used = (self.scale > 0)[:, None]
        prior = np.append(evaluator.parameters.flux_prior_precision[b], 0.0)
        self.a_noisy = np.where(
            used & used.T, noisy[np.ix_(flux_columns, flux_columns)] + np.diag(prior), 0.0
        )
        c_noisy = np.where(used, noisy[np.ix_(flux_columns, theta_columns)] * f, 0.0)
        a_x = self.a_noisy @ self.x
        cross = self.x.T @ (c_noisy - 0.5 * a_x)
        self.middle = noisy[np.ix_(theta_columns, theta_columns)] * f[:, None] * f - cross - cross.T
        self.leak = c_noisy - a_x

    def solve(self, right: F8) -> F8:
        """``A^-1 right``, 0 in the rows of sources without pixels."""
        if right.shape[1] == 0:
            return np.zeros_like(right)
        solved: F8 = dpotrs(self.factor, self.scale[:, None] * right, lower=1)[0]
        return self.scale[:, None] * solved

    def flux_variance(self, inverse: F8, shared: F8) -> F8:
        """Diagonal of the covariance of fluxes and sky, float64 (S + 1,)."""
        a_inverse = self.solve(np.eye(len(self.scale)))
        own = np.einsum("ij,ij->i", a_inverse @ self.a_noisy, a_inverse)
        through = np.einsum("ij,ij->i", self.x @ shared, self.x)
        mixed = np.einsum("ij,ij->i", a_inverse @ self.leak, self.x @ inverse)
        return own + through - 2 * mixed


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
