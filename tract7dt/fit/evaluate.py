"""Evaluation of the log-posterior: draw what moved, solve the linear part, keep what did not change."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.curvature import model_curvature
from tract7dt.fit.draw import Stamps, draw_sources, load_tables
from tract7dt.fit.normal import reduce_bands, solve_bands
from tract7dt.fit.options import EngineOptions
from tract7dt.fit.parameters import Layout, Parameters
from tract7dt.fit.scene import Scene
from tract7dt.fit.stamps import boxes, stamp_size, usable_radius
from tract7dt.types import ModelKind

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

# A source farther from the middle of its stamp than this (pix) gets a new middle.
_KEEP_CENTRE = 0.75


@dataclass
class Point:
    """The model at one value of the shared parameters.

    Attributes
    ----------
    theta : ndarray, float64 (S, 6)
    slot : ndarray, int64 (S,)
        Which of its two places in the buffers a source's images are in.
    stamps : Stamps
    changed : ndarray, bool (S,)
        Sources drawn for this point.
    needed : ndarray, int64 (S,)
        Radius that a drawn source needs.
    matrix, rhs : ndarray, float64 (nband, N, N), (nband, N)
    factor, scale, projection, residuals
        See :func:`tract7dt.fit.normal.solve_bands`.
    flux : ndarray, float64 (nband, S)
    sky, chi2 : ndarray, float64 (nband,)
    log_prior : float
    source_log_prior : ndarray, float64 (S,)
        Its part that belongs to the shared parameters of each source.
    """

    theta: F8
    slot: I8
    stamps: Stamps
    changed: Bool
    needed: I8
    matrix: F8
    rhs: F8
    factor: F8
    scale: F8
    projection: F8
    residuals: F4
    flux: F8
    sky: F8
    chi2: F8
    log_prior: float
    source_log_prior: F8

    @property
    def lnp(self) -> float:
        """Log-posterior, without the constant of the Gaussian."""
        return float(-0.5 * self.chi2.sum() + self.log_prior)


@dataclass
class Work:
    """Counts of what was done."""

    evaluations: int = 0
    drawn: int = 0
    counters: dict[str, int] = field(default_factory=dict)


class Evaluator:
    """Evaluates points and holds the buffers; keeps a current point and makes a trial beside it.

    Parameters
    ----------
    scene : Scene
    parameters : Parameters
    options : EngineOptions
    start_flux : ndarray, float64 (nband, S)
        Sizes the first stamps.
    """

    def __init__(self, scene: Scene, parameters: Parameters, options: EngineOptions, start_flux: F8) -> None:
        self.scene, self.parameters, self.options = scene, parameters, options
        self.tables = load_tables(options.profiles)
        self.n = len(parameters.kind)
        self.flux = np.where(np.isfinite(start_flux), start_flux, 0.0)
        self.live = np.ones((scene.n_bands, self.n), bool) & (scene.weight_sum > 0)[:, None]
        self.work = Work()
        self.size = np.zeros(self.n, np.int64)
        self.radius = np.zeros(self.n, np.int64)
        self._capacity = np.zeros(self.n, np.int64)
        self._needed = np.zeros(self.n, np.int64)
        self._largest = np.where(
            parameters.kind == ModelKind.STAR, scene.psf_radius(False) + 3, max(scene.ny, scene.nx)
        )
        self._psf, self._psf_offset = np.zeros((scene.n_bands, 0), np.float32), np.zeros(self.n, np.int64)
        self._offset, self._half = np.zeros(self.n, np.int64), 0
        self._buffer = np.empty((scene.n_bands, 0), np.float32)
        self.layout: Layout | None = None
        self.current: Point | None = None
        self._first_sizes()

    # ---------------------------------------------------------------- stamps and buffers
    def _resize(self, s: int, radius: int) -> None:
        """Give a source the smallest stamp that serves a radius."""
        self.size[s] = stamp_size(min(radius, int(self._largest[s])))
        self.radius[s] = min(usable_radius(int(self.size[s])), int(self._largest[s]))

    def _first_sizes(self) -> None:
        """Stamp sizes from the start values: draw models alone, on growing stamps, until they fit."""
        scene, theta = self.scene, self.parameters.start
        extended = self.parameters.kind != ModelKind.STAR
        for s in range(self.n):
            reach = min(int(4 * np.exp(min(theta[s, 2], 6.0))) + 12, 96) if extended[s] else 0
            self._resize(s, max(scene.psf_radius(bool(extended[s])) + 4, reach))
        level = self._level()
        todo = (level > 0).any(axis=0)
        centre = _pixel(theta)
        needed = np.zeros(self.n, np.int64)
        held = np.ones(self.n, bool)
        for _ in range(4):
            if not todo.any():
                break
            self._load_psfs()
            nowhere = Stamps(
                self.size,
                centre,
                np.zeros((self.n, 4), np.int64),
                np.zeros(self.n, np.int64),
                self._psf,
                self._psf_offset,
            )
            draw_sources(
                theta,
                self.parameters.kind,
                False,
                False,
                held,
                todo,
                self.live,
                nowhere,
                self.tables,
                scene.sqrt_w,
                np.zeros((scene.n_bands, 1), np.float32),
                level,
                needed,
            )
            grow = todo & (needed >= self.radius - 1) & (self.radius < self._largest)
            for s in map(int, np.flatnonzero(todo)):
                self._resize(s, int(1.5 * self.radius[s]) if grow[s] else max(int(needed[s]) + 2, 7))
            todo = grow

    def _level(self) -> F8:
        """Model value above which a pixel is needed (nband, S); 0 where no flux is known."""
        height = np.abs(self.flux) * self.scene.typical_sqrt_w[:, None]
        return np.where(height > 0, self.options.stamp_threshold / np.maximum(height, 1e-30), 0.0)

    def _load_psfs(self) -> None:
        """PSF transforms of the sizes in use, flat, and each source's place in them."""
        keys = [
            (int(m), bool(k)) for m, k in zip(self.size, self.parameters.kind != ModelKind.STAR, strict=True)
        ]
        start, parts, place = 0, [], {}
        for key in sorted(set(keys)):
            parts.append(self.scene.psf_transform(*key).reshape(self.scene.n_bands, -1))
            place[key] = start
            start += parts[-1].shape[1]
        self._psf = np.concatenate(parts, axis=1) if parts else np.zeros((self.scene.n_bands, 0), np.float32)
        self._psf_offset = np.array([place[key] for key in keys], np.int64)

    def _place_images(self) -> bool:
        """Room for the images of all sources, twice; True if everything moved and must be drawn again."""
        assert self.layout is not None
        self._load_psfs()
        if not (self.radius > self._capacity).any():
            return False
        self._capacity = np.maximum(self._capacity, self.radius + self.radius // 4 + 2)
        side = 2 * self._capacity + 1
        room = self.layout.n_images * np.minimum(side, self.scene.nx) * np.minimum(side, self.scene.ny)
        self._offset = np.concatenate([[0], np.cumsum(room)[:-1]]).astype(np.int64)
        self._half = int(room.sum())
        if self._buffer.shape[1] < 2 * self._half:
            self._buffer = np.empty((self.scene.n_bands, 2 * self._half), np.float32)
        return True

    def start_stage(self, layout: Layout, theta: F8) -> Point:
        """Draw everything that a stage needs at ``theta`` and make it the current point."""
        self.layout = layout
        self._capacity[:] = 0
        self._place_images()
        n_columns = int(layout.n_images.sum()) + 1
        shape = (self.scene.n_bands, n_columns, n_columns)
        self._matrices = [np.zeros(shape), np.zeros(shape)]
        self._rhs = [np.zeros(shape[:2]), np.zeros(shape[:2])]
        self._images = [np.zeros(self.scene.data.shape, np.float32) for _ in range(2)]
        self.current = None
        return self.accept(self.evaluate(theta, np.ones(self.n, bool)))

    # ---------------------------------------------------------------- points
    def evaluate(self, theta: F8, changed: Bool, recentre: bool = False) -> Point:
        """The point ``theta``, drawing only the sources that differ from the current point.

        The trial shares buffers with the next trial: accept it, or let it go. ``recentre`` puts the changed
        sources on the pixels nearest to them.
        """
        layout, scene, before = self.layout, self.scene, self.current
        assert layout is not None
        n_bands = scene.n_bands
        centre = _pixel(theta)
        if before is not None and not recentre:
            # a middle that followed the source at half a pixel would make the objective jump there, to and fro
            near = np.abs(theta[:, :2] - before.stamps.centre).max(axis=1, initial=0.0) < _KEEP_CENTRE
            centre = np.where(near[:, None], before.stamps.centre, centre)
        box = boxes(centre, self.radius, scene.ny, scene.nx)
        if before is None:
            slot = np.zeros(self.n, np.int64)
        else:
            box = np.where(changed[:, None], box, before.stamps.box)
            centre = np.where(changed[:, None], centre, before.stamps.centre)
            slot = np.where(changed, 1 - before.slot, before.slot)
        offset = self._offset + slot * self._half
        stamps = Stamps(self.size.copy(), centre, box, offset, self._psf, self._psf_offset)
        level = self._level()
        needed = np.zeros(self.n, np.int64)
        parameters = self.parameters
        draw_sources(
            theta,
            parameters.kind,
            layout.pos,
            layout.shape,
            parameters.held,
            changed,
            self.live,
            stamps,
            self.tables,
            scene.sqrt_w,
            self._buffer,
            level,
            needed,
        )
        needed = np.where((level > 0).any(axis=0), needed, np.maximum(self.radius - 2, 0))
        point = Point(
            theta=theta,
            slot=slot,
            stamps=stamps,
            changed=changed,
            needed=needed,
            matrix=self._matrices[1],
            rhs=self._rhs[1],
            factor=np.empty((n_bands, self.n + 1, self.n + 1)),
            scale=np.empty((n_bands, self.n + 1)),
            projection=np.empty((n_bands, self._rhs[1].shape[1])),
            residuals=self._images[1],
            flux=np.empty((n_bands, self.n)),
            sky=np.empty(n_bands),
            chi2=np.empty(n_bands),
            log_prior=0.0,
            source_log_prior=self._source_log_prior(theta),
        )
        solve_bands(
            scene.data,
            scene.sqrt_w,
            self._buffer,
            offset,
            box,
            layout.n_images,
            layout.first,
            layout.flux_columns,
            self.live,
            changed,
            parameters.flux_prior_mean,
            parameters.flux_prior_precision,
            scene.weight_sum,
            scene.data_sum,
            self._matrices[0],
            self._rhs[0],
            point.matrix,
            point.rhs,
            point.factor,
            point.scale,
            point.flux,
            point.sky,
            point.chi2,
            point.residuals,
            point.projection,
        )
        point.log_prior = float(point.source_log_prior.sum()) + self._flux_log_prior(point.flux)
        self.work.evaluations += 1
        self.work.drawn += int(changed.sum())
        return point

    def accept(self, point: Point) -> Point:
        """Make a trial the current point."""
        self._matrices.reverse()
        self._rhs.reverse()
        self._images.reverse()
        self.current, self.flux = point, point.flux
        self._needed = np.where(point.changed, point.needed, self._needed)
        return point

    def _source_log_prior(self, theta: F8) -> F8:
        off = theta - self.parameters.prior_mean
        value: F8 = -0.5 * np.einsum("si,sij,sj->s", off, self.parameters.prior_precision, off)
        return value

    def _flux_log_prior(self, flux: F8) -> float:
        p = self.parameters
        return float(-0.5 * (self.live * p.flux_prior_precision * (flux - p.flux_prior_mean) ** 2).sum())

    def derivatives(self, point: Point, newton: Bool) -> tuple[F8, F8]:
        """Gradient of the log-posterior and its negative Hessian over the free parameters of the stage.

        Parameters
        ----------
        point : Point
        newton : ndarray, bool (S,)
            Sources for which the Hessian is exact; for the others it is Gauss-Newton's.

        Returns
        -------
        gradient : ndarray, float64 (nT,)
        hessian : ndarray, float64 (nT, nT)
        """
        layout, p = self.layout, self.parameters
        assert layout is not None
        owner, column = layout.owner, layout.column
        n_theta = len(owner)
        gradient, hessian = np.empty(n_theta), np.empty((n_theta, n_theta))
        eliminated = np.empty((self.scene.n_bands * (self.n + 1), n_theta))
        reduce_bands(
            point.matrix,
            point.factor,
            point.scale,
            point.flux,
            point.projection,
            owner,
            layout.flux_columns,
            layout.theta_columns,
            newton,
            gradient,
            hessian,
            eliminated,
        )
        hessian -= eliminated.T @ eliminated
        off = point.theta - p.prior_mean
        gradient -= np.einsum("sij,sj->si", p.prior_precision, off)[owner, column]
        extra = p.prior_precision
        if newton.any():
            extra = extra - self.curvature(point, newton)
        same = np.flatnonzero(np.diff(owner, prepend=-1))
        for start, stop in zip(same, np.append(same[1:], n_theta)):
            block = np.ix_(column[start:stop], column[start:stop])
            hessian[start:stop, start:stop] += extra[owner[start]][block]
        return gradient, hessian

    def curvature(self, point: Point, wanted: Bool) -> F8:
        """``sum_b f_b <r_b, d2T_b>`` of the wanted sources, float64 (S, 6, 6), 0 for the others."""
        out = np.zeros((self.n, 6, 6))
        model_curvature(
            point.theta,
            self.parameters.kind,
            wanted,
            self.live,
            point.stamps,
            self.tables,
            self.scene.sqrt_w,
            point.residuals,
            point.flux,
            out,
        )
        return out

    def adapt_stamps(self, shrink: bool) -> Bool | None:
        """Fit stamps to what the current point needed; returns the sources to draw again, or None."""
        point = self.current
        assert point is not None
        before = self.size.copy()
        for s in map(int, np.flatnonzero(point.changed)):
            needed = int(point.needed[s])
            if needed >= self.radius[s] and self.radius[s] < self._largest[s]:
                self._resize(s, int(1.25 * self.radius[s]) + 2)
            elif shrink and needed + 3 < 0.8 * self.radius[s]:
                self._resize(s, max(int(1.1 * needed) + 2, 7))
        changed = before != self.size
        if not changed.any():
            return None
        return np.ones(self.n, bool) if self._place_images() else changed

    def settle_stamps(self) -> Bool | None:
        """Give all sources the stamps that a fit from any other start would end with.

        Sizes follow from the current point alone, not from the way to it; returns the sources to draw again
        (on the pixel nearest to them), or None.
        """
        point = self.current
        assert point is not None
        before = self.size.copy()
        for s in range(self.n):
            if self.flux[:, s].any():
                self._resize(s, max(int(self._needed[s]) + 2, 7))
        changed = (before != self.size) | (_pixel(point.theta) != point.stamps.centre).any(axis=1)
        if not changed.any():
            return None
        return np.ones(self.n, bool) if self._place_images() else changed

    def buffer(self, b: int) -> F4:
        """Whitened images of one band, flat; places are in ``Stamps.offset``."""
        return self._buffer[b]

    def images(self, point: Point, b: int, s: int) -> F4:
        """Whitened images of a source in a band at a point: float32 (n_images, h, w), a view."""
        assert self.layout is not None
        x0, x1, y0, y1 = point.stamps.box[s]
        count = int(self.layout.n_images[s])
        start = int(point.stamps.offset[s])
        return self._buffer[b, start : start + count * (y1 - y0) * (x1 - x0)].reshape(count, y1 - y0, x1 - x0)


def _pixel(theta: F8) -> I8:
    """Nearest pixel (x, y) of every source."""
    pixel: I8 = np.floor(theta[:, :2] + 0.5).astype(np.int64)
    return pixel
