"""Evaluation of the log-posterior: draw what moved, solve the linear part, keep what did not change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.curvature import model_curvature
from tract7dt.fit.draw import Stamps, draw_sources, load_tables
from tract7dt.fit.linear import alike, mirror
from tract7dt.fit.normal import BLOCK, eliminate_bands, reduce_bands, solve_bands
from tract7dt.fit.options import EngineOptions
from tract7dt.fit.parameters import Layout, Parameters, filled
from tract7dt.fit.places import Places
from tract7dt.fit.residuals import gain_of_bands
from tract7dt.fit.scene import Scene
from tract7dt.fit.threads import Team
from tract7dt.fit.workspace import Workspace
from tract7dt.types import PatchProblem

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]


# Two models with a cosine above this cannot be told apart without the faintest of their wings (stars: 0.45 FWHM).
_INSEPARABLE = 0.75
# What a band costs in which all sources are drawn, in units of one in which those are that have changed.
_DRAWN_ANEW = 1.5


@dataclass
class Point:
    """The model at one value of the shared parameters.

    Attributes
    ----------
    theta : ndarray, float64 (S, 6)
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
    gain : float
        Of a trial: log-posterior above that of the point that was the current one; 0 if not asked for.
    local_gain : ndarray, float64 (S,)
        Its part in the surroundings of every source.
    """

    theta: F8
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
    gain: float
    local_gain: F8

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
    team : Team, optional
        Threads.
    workspace : Workspace, optional
        Where large arrays are kept from patch to patch.
    """

    def __init__(
        self,
        scene: Scene,
        parameters: Parameters,
        options: EngineOptions,
        start_flux: F8,
        team: Team | None = None,
        workspace: Workspace | None = None,
    ) -> None:
        self.scene, self.parameters, self.options = scene, parameters, options
        self.team, self.workspace = team or Team(), workspace or Workspace()
        self.tables = load_tables(options.profiles)
        self.n = len(parameters.kind)
        self.flux = filled(start_flux)
        self.live = np.ones((scene.n_bands, self.n), bool) & (scene.weight_sum > 0)[:, None]
        self.work = Work()
        self.layout: Layout | None = None
        self.current: Point | None = None
        self.coarseness = 1.0
        self.places = Places(scene, parameters, options, self.workspace, self.team)
        self.places.first_sizes(self._level(), self.live, self.tables)

    def _level(self) -> F8:
        """Model value above which a pixel is needed (nband, S); 0 where no flux is known."""
        threshold = self.options.stamp_threshold * self.coarseness
        height = np.abs(self.flux) * self.scene.typical_sqrt_w[:, None]
        return np.where(height > 0, threshold / np.maximum(height, 1e-30), 0.0)

    def start_stage(self, layout: Layout, theta: F8) -> Point:
        """Draw everything that a stage needs at ``theta`` and make it the current point."""
        self.layout = layout
        self.places.start_stage(layout.n_images)
        n_columns = int(layout.n_images.sum()) + 1
        shape = (self.scene.n_bands, n_columns, n_columns)
        zeros, sides = self.workspace.zeros, ("a", "b")
        self._matrices, self._rhs, self._images = [], [], []  # those of before go first
        self._matrices = [zeros(f"matrix {side}", shape) for side in sides]
        self._rhs = [zeros(f"rhs {side}", shape[:2]) for side in sides]
        image = self.scene.data.shape
        self._images = [self.workspace.empty(f"residuals {side}", image, np.float32) for side in sides]
        self._stale, self._overdrawn = np.ones(self.n, bool), np.zeros(self.n, bool)
        self._curvature = np.zeros((self.n, 6, 6))
        self._curved = np.zeros(self.n, bool)
        self.current = None
        return self.accept(self.evaluate(theta, np.ones(self.n, bool)))

    # ---------------------------------------------------------------- points
    def evaluate(self, theta: F8, changed: Bool, recentre: bool = False, compare: bool = False) -> Point:
        """The point ``theta``, drawing only the sources that differ from the current point.

        The trial shares buffers with the next trial: accept it, or let it go. Its images take the place of those
        of the current point, which :meth:`overdrawn` tells; the next trial draws what it needs of them again.

        Parameters
        ----------
        theta : ndarray, float64 (S, 6)
        changed : ndarray, bool (S,)
        recentre : bool
            Put the changed sources on the pixels nearest to them.
        compare : bool
            Fill what the trial gains over the current point.
        """
        before = self.current
        if before is not None and not recentre:
            self.places.prepare(theta, before.theta, changed)
        stamps = self.places.stamps(theta, changed, before.stamps if before else None, recentre)
        if self.places.moved:
            self._overdrawn[:] = True
        n_bands = self.scene.n_bands
        point = Point(
            theta=theta,
            stamps=stamps,
            changed=changed,
            needed=np.zeros(self.n, np.int64),
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
            source_log_prior=self.parameters.log_prior(theta),
            gain=0.0,
            local_gain=np.zeros(self.n),
        )
        whole, local = self._draw_and_solve(point, before if compare else None)
        point.log_prior = float(point.source_log_prior.sum()) + self._flux_log_prior(point.flux)
        if compare and before is not None:
            point.gain = whole + point.log_prior - before.log_prior
            point.local_gain = local + point.source_log_prior - before.source_log_prior
        self.work.evaluations += 1
        return point

    def _draw_and_solve(self, point: Point, before: Point | None) -> tuple[float, F8]:
        """Draw the changed sources into the buffers, and fill radii, fluxes, skies and residuals of the point.

        Returns the gain in log-likelihood over the point ``before``, and its part in the boxes of the sources
        there; 0 without one.
        """
        layout, scene, parameters = self.layout, self.scene, self.parameters
        assert layout is not None
        level = self._level()
        needed: list[I8] = []
        drawn, everything = point.changed | self._overdrawn, np.ones(self.n, bool)
        local, whole = np.zeros((scene.n_bands, self.n)), np.zeros(scene.n_bands)

        def draw_and_solve(start: int, stop: int) -> None:
            for part, images in self._buffers(start, stop):
                is_kept = part.start < self.places.kept
                needed.append(self._draw(point, part, drawn if is_kept else everything, images, level[part]))
                solve_bands(
                    scene.data[part],
                    scene.sqrt_w[part],
                    images,
                    point.stamps.offset,
                    point.stamps.box,
                    layout.n_images,
                    layout.first,
                    layout.flux_columns,
                    self.live[part],
                    point.changed,
                    self._stale,
                    parameters.flux_prior_mean[part],
                    parameters.flux_prior_precision[part],
                    scene.weight_sum[part],
                    scene.data_sum[part],
                    self._matrices[0][part],
                    self._rhs[0][part],
                    point.matrix[part],
                    point.rhs[part],
                    point.factor[part],
                    point.scale[part],
                    point.flux[part],
                    point.sky[part],
                    point.chi2[part],
                    point.residuals[part],
                    point.projection[part],
                )
            if before is not None:
                part = slice(start, stop)
                residuals = before.residuals[part], point.residuals[part]
                gain_of_bands(*residuals, before.stamps.box, local[part], whole[part])

        # in a band without sources there is only the image to be looked at
        cost = self.live.sum(axis=1) + 0.1 * self.n
        cost[self.places.kept :] *= _DRAWN_ANEW
        self.team.share(draw_and_solve, scene.n_bands, cost)
        point.needed = np.where(
            (level > 0).any(axis=0), np.max(needed, axis=0), np.maximum(self.places.radius - 2, 0)
        )
        self._stale = point.changed.copy()
        self._overdrawn = point.changed.copy()
        self.work.drawn += int(drawn.sum())
        return float(whole.sum()), local.sum(axis=0)

    def _buffers(self, start: int, stop: int) -> Iterator[tuple[slice, F4]]:
        """Buffers for the bands of a thread's share: of all that are kept together, then of each of the others."""
        kept = min(self.places.kept, stop)
        if start < kept:
            yield slice(start, kept), self.places.buffer[start:kept]
        for b in range(max(start, kept), stop):
            with self.places.lent() as images:
                yield slice(b, b + 1), images

    def _draw(self, point: Point, part: slice, wanted: Bool, images: F4, level: F8) -> I8:
        """Draw the wanted sources in some bands; the radii that they need there, int64 (S,)."""
        needed = np.zeros(self.n, np.int64)
        layout, parameters, stamps = self.layout, self.parameters, point.stamps
        assert layout is not None
        draw_sources(
            point.theta,
            parameters.kind,
            layout.pos,
            layout.shape,
            parameters.held,
            wanted,
            self.live[part],
            stamps._replace(psf=stamps.psf[part]),
            self.tables,
            self.scene.sqrt_w[part],
            images,
            level,
            needed,
        )
        return needed

    def accept(self, point: Point) -> Point:
        """Make a trial the current point."""
        self._matrices.reverse()
        self._rhs.reverse()
        self._images.reverse()
        self.current, self.flux = point, point.flux
        self._curved &= ~point.changed
        self._overdrawn[:] = False
        self.places.remember(point.changed, point.needed)
        return point

    def _flux_log_prior(self, flux: F8) -> float:
        p = self.parameters
        return float(-0.5 * (self.live * p.flux_prior_precision * (flux - p.flux_prior_mean) ** 2).sum())

    def derivatives(self, point: Point, newton: Bool) -> tuple[F8, F8]:
        """Gradient of the log-posterior and its negative Hessian over the free parameters of the stage.

        In the coordinates of steps (:func:`tract7dt.fit.parameters.to_steps`).

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
        n_theta, n_bands = len(owner), self.scene.n_bands
        gradient, hessian = np.empty(n_theta), np.empty((n_theta, n_theta))
        eliminated = np.empty((n_theta, n_bands * (self.n + 1)))

        def reduce(start: int, stop: int) -> None:
            reduce_bands(
                point.matrix,
                point.flux,
                point.projection,
                eliminated,
                owner,
                layout.theta_columns,
                start,
                stop,
                gradient,
                hessian,
            )

        def eliminate(start: int, stop: int) -> None:
            part = slice(start, stop)
            eliminate_bands(
                point.matrix[part],
                point.factor[part],
                point.scale[part],
                point.flux[part],
                point.projection[part],
                owner,
                layout.flux_columns,
                layout.theta_columns,
                newton,
                eliminated[:, start * (self.n + 1) : stop * (self.n + 1)],
            )

        self.team.share(eliminate, n_bands)
        n_blocks = -(-n_theta // BLOCK)
        self.team.share(reduce, n_blocks, np.arange(1.0, n_blocks + 1))  # rows end at the diagonal
        mirror(hessian)
        pull, extra = p.prior_derivatives(point.theta)
        gradient += pull[owner, column]
        if newton.any():
            extra = extra - self._kept_curvature(point, newton)
        rows, columns = layout.pairs
        hessian[rows, columns] += extra[owner[rows], column[rows], column[columns]]
        return gradient, hessian

    def _kept_curvature(self, point: Point, wanted: Bool) -> F8:
        """The curvature of the wanted sources, that of the last time for a source that has not moved since.

        It serves the steps alone, and changes little while only neighbours move.
        """
        fresh = wanted & ~self._curved
        if fresh.any():
            self._curvature = np.where(fresh[:, None, None], self.curvature(point, fresh), self._curvature)
            if point is self.current:
                self._curved |= fresh
        kept: F8 = np.where(wanted[:, None, None], self._curvature, 0.0)
        return kept

    def curvature(self, point: Point, wanted: Bool) -> F8:
        """``sum_b f_b <r_b, d2T_b>`` of the wanted sources, float64 (S, 6, 6), 0 for the others."""
        out = np.zeros((self.n, 6, 6))
        # the largest stamps dealt out one by one, so that threads have about as much to do
        todo = np.flatnonzero(wanted)
        todo = todo[np.argsort(-point.stamps.size[todo], kind="stable")]
        todo = np.concatenate([todo[i :: self.team.threads] for i in range(self.team.threads)])

        def bend(start: int, stop: int) -> None:
            mine = np.zeros(self.n, bool)
            mine[todo[start:stop]] = True
            model_curvature(
                point.theta,
                self.parameters.kind,
                mine,
                self.live,
                point.stamps,
                self.tables,
                self.scene.sqrt_w,
                point.residuals,
                point.flux,
                out,
            )

        self.team.share(bend, len(todo))
        return out

    def adapt_stamps(self, shrink: bool) -> Bool | None:
        """Fit stamps to what the current point needed; returns the sources to draw again, or None."""
        point = self.current
        assert point is not None
        return self.places.adapt(point.theta, point.changed, shrink)

    def outdated_stamps(self) -> Bool | None:
        """Sources whose stamp was enlarged for a trial that was let go, to be drawn again; or None."""
        assert self.current is not None
        redraw: Bool = self.places.size != self.current.stamps.size
        return redraw if redraw.any() else None

    def overdrawn(self) -> Bool | None:
        """Sources whose images are those of a trial that was let go, to be drawn again; or None."""
        return self._overdrawn.copy() if self._overdrawn.any() else None

    def coarsen_stamps(self) -> None:
        """Until they are settled, end stamps farther in: on the way to the maximum their edges do not matter."""
        self.coarseness = self.options.stamp_coarseness
        self.places.coarsen(self._level(), self.live, self.tables)

    def settle_stamps(self) -> Bool | None:
        """Give all sources the stamps of the current point (:meth:`Places.settle`)."""
        point = self.current
        assert point is not None
        self.coarseness = 1.0
        visible: Bool = np.asarray(self.flux.any(axis=0), bool)
        level = np.where(self._inseparable(point), self.options.crowd_threshold, 1.0) * self._level()
        return self.places.settle(point.theta, point.stamps.centre, visible, level, self.live, self.tables)

    def _inseparable(self, point: Point) -> Bool:
        """Sources whose model is much the same as another one's in some band, bool (S,)."""
        assert self.layout is not None
        found = np.zeros(self.n, bool)
        for matrix, scale in zip(point.matrix, point.scale, strict=True):
            alike(matrix, scale, self.layout.flux_columns, _INSEPARABLE, found)
        return found

    def relative_variance(self, point: Point, problem: PatchProblem) -> F4:
        """True variance of the pixels times their weight at the current point, float32 (nband, ny, nx).

        In the place of the residuals of trials, of which there can be none any more.
        """
        return self.scene.relative_variance(point.residuals, point.sky, problem, self._images[1])

    def drawn(self, point: Point, start: int, stop: int) -> Iterator[tuple[slice, F4]]:
        """Whitened images of some bands at the current point, a few bands at a time.

        Parameters
        ----------
        point : Point
            The current one.
        start, stop : int
            Bands.

        Yields
        ------
        part : slice
            Bands.
        images : ndarray, float32 (bands, ...)
            Theirs, flat; places are in ``Stamps.offset``. Those of a band that is not kept are drawn for this, and
            gone afterwards.
        """
        everything = np.ones(self.n, bool)
        for part, images in self._buffers(start, stop):
            if part.start >= self.places.kept:
                self._draw(point, part, everything, images, np.zeros((1, self.n)))
            yield part, images

    def images(self, point: Point, b: int, s: int) -> F4:
        """Whitened images of a source in a band at the current point: float32 (n_images, h, w), a copy."""
        assert self.layout is not None
        x0, x1, y0, y1 = point.stamps.box[s]
        count = int(self.layout.n_images[s])
        start = int(point.stamps.offset[s])
        ((_, flat),) = [(part, images.copy()) for part, images in self.drawn(point, b, b + 1)]
        return flat[0, start : start + count * (y1 - y0) * (x1 - x0)].reshape(count, y1 - y0, x1 - x0)
