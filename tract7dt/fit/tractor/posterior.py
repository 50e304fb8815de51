"""Log-posterior of a patch from drawn images: best fluxes and sky, residuals, reduced normal equations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from tract7dt.fit.parameters import Layout, Parameters, step_jacobian
from tract7dt.fit.scene import Scene
from tract7dt.fit.tractor.drawing import Artist, Drawn
from tract7dt.types import F4, F8, Bool

#: Images of a patch, ``[band][source]``.
Images = list[list[Drawn | None]]

# Relative ridge: two models on one spot are singular without it.
_RIDGE = 1e-6


@dataclass
class Point:
    """The model at one value of the shared parameters.

    Attributes
    ----------
    theta : ndarray, float64 (S, 6)
    models : Images
        At least the models; with derivatives behind them at an accepted point.
    flux : ndarray, float64 (nband, S)
    sky : ndarray, float64 (nband,)
    residuals : ndarray, float32 (nband, ny, nx)
        Whitened.
    lnp : float
        Log-posterior, without the constant of the Gaussian.
    """

    theta: F8
    models: Images
    flux: F8
    sky: F8
    residuals: F4
    lnp: float


def gram(images: list[Drawn | None], first: NDArray[np.int64], n_columns: int, sqrt_w: F4) -> F8:
    """Dot products of all images of a band and of the whitened constant (the last column).

    Parameters
    ----------
    images : list of Drawn or None
        None: columns of zeros.
    first : ndarray, int64 (S,)
        First column of each source.
    n_columns : int
        Columns, without the constant.
    sqrt_w : ndarray, float32 (ny, nx)
    """
    out = np.zeros((n_columns + 1, n_columns + 1))
    there = [(drawn, int(start)) for drawn, start in zip(images, first) if drawn is not None]
    for i, (a, row) in enumerate(there):
        rows = slice(row, row + len(a.images))
        out[rows, -1] = np.tensordot(a.images, sqrt_w[a.window], 2)
        for b, column in there[: i + 1]:
            x0, x1 = max(a.box[0], b.box[0]), min(a.box[1], b.box[1])
            y0, y1 = max(a.box[2], b.box[2]), min(a.box[3], b.box[3])
            if x0 < x1 and y0 < y1:
                columns = slice(column, column + len(b.images))
                part_a, part_b = (
                    d.images[:, y0 - d.box[2] : y1 - d.box[2], x0 - d.box[0] : x1 - d.box[0]].reshape(
                        len(d.images), -1
                    )
                    for d in (a, b)
                )
                out[rows, columns] = part_a @ part_b.T
    out[-1, -1] = np.sum(sqrt_w.astype(float) ** 2)
    lower = np.tril(out)
    lower[-1, :-1] = out[:-1, -1]
    return lower + np.tril(lower, -1).T


def solver(matrix: F8) -> tuple[F8, F8]:
    """Scaled Cholesky factor and the scale, for :func:`solve`; rows without any light are left out."""
    diagonal = np.diagonal(matrix)
    scale = np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 0.0)
    scaled = matrix * scale[:, None] * scale
    np.fill_diagonal(scaled, 1 + _RIDGE)
    return np.asarray(cho_factor(scaled, lower=True)[0]), scale


def solve(factor: tuple[F8, F8], right: F8) -> F8:
    """``matrix^-1 right``; 0 in the rows that were left out."""
    scale = factor[1].reshape((-1,) + (1,) * (right.ndim - 1))
    return np.asarray(scale * cho_solve((factor[0], True), scale * right))


@dataclass
class Band:
    """Normal matrix of a band: A of models and sky, C of them with the derivatives, D of the derivatives.

    Derivatives are those of the model with its flux, and ``x = A^-1 C``.
    """

    a: F8
    c: F8
    d: F8
    x: F8
    factor: tuple[F8, F8]


class Posterior:
    """Log-posterior of a patch and its derivatives."""

    def __init__(self, artist: Artist, scene: Scene, parameters: Parameters) -> None:
        self.artist, self.scene, self.parameters = artist, scene, parameters
        self.n = len(parameters.kind)
        self.live: Bool = np.ones((scene.n_bands, self.n), bool) & (scene.weight_sum > 0)[:, None]

    def point(self, theta: F8, before: Point | None = None, moved: Bool | None = None) -> Point:
        """Draw the models at ``theta``, or only those that moved since ``before``, and solve the linear part."""
        models: Images = []
        for b in range(self.scene.n_bands):
            row: list[Drawn | None] = []
            for s in range(self.n):
                if before is not None and moved is not None and not moved[s]:
                    row.append(before.models[b][s])
                else:
                    row.append(self.artist.model(s, b, theta[s]) if self.live[b, s] else None)
            models.append(row)
        return self._solved(theta, models)

    def _solved(self, theta: F8, models: Images) -> Point:
        scene, parameters = self.scene, self.parameters
        flux, sky = np.zeros((scene.n_bands, self.n)), np.zeros(scene.n_bands)
        residuals = scene.data.copy()
        lnp = float(self.parameters.log_prior(theta).sum())
        columns = np.arange(self.n)
        for b, row in enumerate(models):
            only = [None if d is None else Drawn(d.box, d.images[:1]) for d in row]
            matrix = gram(only, columns, self.n, scene.sqrt_w[b])
            right = np.zeros(self.n + 1)
            for s, drawn in enumerate(only):
                if drawn is not None:
                    right[s] = float(np.sum(drawn.images[0] * scene.data[b][drawn.window], dtype=float))
            right[-1] = scene.data_sum[b]
            precision = np.where(np.diagonal(matrix)[:-1] > 0, parameters.flux_prior_precision[b], 0.0)
            matrix[columns, columns] += precision
            right[:-1] += precision * parameters.flux_prior_mean[b]
            solution = solve(solver(matrix), right)
            flux[b], sky[b] = solution[:-1], solution[-1]
            residuals[b] -= np.float32(sky[b]) * scene.sqrt_w[b]
            for s, drawn in enumerate(only):
                if drawn is not None:
                    residuals[b][drawn.window] -= np.float32(flux[b, s]) * drawn.images[0]
            lnp -= 0.5 * float(np.sum(residuals[b].astype(float) ** 2))
            lnp -= 0.5 * float(np.sum(precision * (flux[b] - parameters.flux_prior_mean[b]) ** 2))
        return Point(theta, models, flux, sky, residuals, lnp)

    def differentiate(self, point: Point, layout: Layout, stale: Bool, fine: bool) -> None:
        """Draw the derivatives of the sources that moved since they were drawn last."""
        for b, s in zip(*np.nonzero(self.live & stale)):
            drawn = self.artist.derivatives(int(s), int(b), point.theta[s], layout, fine)
            point.models[b][s] = drawn

    def bands(self, point: Point, layout: Layout, factor: F4 | None = None) -> list[Band]:
        """Normal matrices of the bands, of images times ``factor`` (nband, ny, nx) where that is given."""
        out = []
        n_columns = int(layout.n_images.sum())
        for b, row in enumerate(point.models):
            images, sqrt_w = row, self.scene.sqrt_w[b]
            if factor is not None:
                images = [None if d is None else Drawn(d.box, d.images * factor[b][d.window]) for d in row]
                sqrt_w = sqrt_w * factor[b]
            matrix = gram(images, layout.first, n_columns, sqrt_w)
            f = point.flux[b][layout.owner]
            models, thetas = layout.flux_columns, layout.theta_columns
            a = matrix[np.ix_(models, models)].copy()
            prior = np.where(np.diagonal(a)[:-1] > 0, self.parameters.flux_prior_precision[b], 0.0)
            a[np.arange(self.n), np.arange(self.n)] += prior
            c = matrix[np.ix_(models, thetas)] * f
            d = matrix[np.ix_(thetas, thetas)] * f[:, None] * f
            solved = solver(a)
            out.append(Band(a, c, d, solve(solved, c), solved))
        return out

    def prior_derivatives(self, point: Point, layout: Layout) -> tuple[F8, F8]:
        """Gradient of the log-prior by the free parameters, and minus its Hessian."""
        owner, column = layout.owner, layout.column
        pull, precision = self.parameters.prior_derivatives(point.theta)
        turn = np.linalg.inv(step_jacobian(point.theta))  # derivatives are by the parameters themselves here
        pull = np.einsum("sji,sj->si", turn, pull)
        precision = np.einsum("ski,skl,slj->sij", turn, precision, turn)
        values = precision[owner[:, None], column[:, None], column[None, :]]
        return pull[owner, column], np.where(owner[:, None] == owner, values, 0.0)

    def derivatives(self, point: Point, layout: Layout) -> tuple[F8, F8]:
        """Gradient of the log-posterior with fluxes and sky at their best, and minus its Gauss-Newton Hessian."""
        owner = layout.owner
        gradient, hessian = self.prior_derivatives(point, layout)
        for b, band in enumerate(self.bands(point, layout)):
            hessian += band.d - band.c.T @ band.x
            for s, drawn in enumerate(point.models[b]):
                if drawn is not None and len(drawn.images) > 1:
                    pull = np.tensordot(drawn.images[1:], point.residuals[b][drawn.window], 2)
                    gradient[owner == s] += point.flux[b, s] * pull
        return gradient, hessian
