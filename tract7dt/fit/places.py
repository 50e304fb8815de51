"""Where the sources of a patch are drawn: sizes of stamps, middles, and room for the images in flat buffers.

Every source has one place, for its images at the current point or at a trial. A source that outgrows its place
gets a new one at the end of the buffers: nobody else has to be drawn again for it.

The buffers of all bands share a fixed amount of memory, however many bands there are. What does not fit is not
kept: a band without a buffer of its own is drawn anew, as a whole, into one that a thread lends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.draw import Stamps, Tables, draw_sources
from tract7dt.fit.options import EngineOptions
from tract7dt.fit.parameters import LOG_RE, Parameters
from tract7dt.fit.profiles import CUT_RADIUS
from tract7dt.fit.scene import Scene
from tract7dt.fit.stamps import boxes, stamp_size, usable_radius
from tract7dt.fit.threads import Team
from tract7dt.fit.workspace import Workspace
from tract7dt.types import ModelKind

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

# A source farther from the middle of its stamp than this (pix) gets a new middle.
_KEEP_CENTRE = 0.75
# Profiles end softly: nothing is left this many half-light radii beyond the cut.
_SOFT_END = 1.0
# A step in log re before which a larger stamp is prepared. The gain of such a step is far above what the change of
# stamps does to the objective; for a smaller one it would not be.
_MUCH_WIDER = 0.25
# Bands in which a source stands out this much less than where it does most are not asked how far it reaches.
_STANDS_OUT = 0.6
# Where places in use are less than this share of the buffers, sources move together before a band is given up.
_SPARSE = 0.9
# A source's place has room for a stamp whose radius is this much larger, pix.
_MARGIN = 2
# Room for PSF transforms, in numbers of all bands together: as much as most patches take, asked for at once.
_PSF_PIXELS = 3 << 20
# Once sizes are settled, a source must have grown by this (in log re) to get a larger stamp.
_SETTLED_GROWTH = 0.15


def pixel(theta: F8) -> I8:
    """Nearest pixel (x, y) of every source, int64 (S, 2)."""
    nearest: I8 = np.floor(theta[:, :2] + 0.5).astype(np.int64)
    return nearest


def _area(box: I8) -> I8:
    """Pixels of boxes (S, 4) as x0, x1, y0, y1; int64 (S,)."""
    area: I8 = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
    return area


class Places:
    """Stamps and buffers of one set of sources.

    Parameters
    ----------
    scene : Scene
    parameters : Parameters
    options : EngineOptions
    workspace : Workspace
        Holds the buffers.
    team : Team
        Threads.

    Attributes
    ----------
    size, radius : ndarray, int64 (S,)
        Side of a source's stamp, and the radius that is used of it.
    kept : int
        So many bands, from the first on, have a buffer of their own.
    moved : bool
        No source is where it was, by the last call of :meth:`stamps`: all have to be drawn again.
    """

    def __init__(
        self,
        scene: Scene,
        parameters: Parameters,
        options: EngineOptions,
        workspace: Workspace,
        team: Team,
    ) -> None:
        n = len(parameters.kind)
        self.scene, self.parameters, self.options = scene, parameters, options
        self.size, self.radius = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._workspace, self._team = workspace, team
        self.kept, self.moved, self._length, self._free = 0, False, 0, list(range(team.threads))
        self._pixels: F4 = np.empty(0, np.float32)
        self._divide(1)
        self._extended = parameters.kind != ModelKind.STAR
        self._n_images = np.ones(n, np.int64)
        self._room, self._needed = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._offset, self._end = np.zeros(n, np.int64), 0
        self._psf: F4 = workspace.rows("psfs", scene.n_bands, np.float32)
        self._psf_offset = np.zeros(n, np.int64)
        self._psf_place: dict[tuple[int, bool], int] = {}
        self._psf_end = 0  # there is room behind it
        self._loaded = np.full(n, -1, np.int64)
        self._most = np.full(n, options.stamp_radius_max, np.int64)
        self._largest = self._reach(parameters.start)
        self._settled: F8 | None = None

    def _reach(self, theta: F8) -> I8:
        """Radius beyond which a source's model is zero but for the ringing of the PSF's edge."""
        scene, star = self.scene, ~self._extended
        psf = np.where(star, scene.psf_radius(False), scene.psf_radius(True))
        profile = np.where(star, 0.0, (CUT_RADIUS + _SOFT_END) * np.exp(np.minimum(theta[:, LOG_RE], 7.0)))
        most = np.minimum(self._most, max(scene.ny, scene.nx))
        reach: I8 = np.minimum(psf + 3 + np.ceil(profile).astype(np.int64), np.maximum(most, psf + 3))
        return reach

    def _resize(self, s: int, radius: int) -> None:
        """Give a source the smallest stamp that serves a radius."""
        self.size[s] = stamp_size(min(radius, int(self._largest[s])))
        self.radius[s] = min(usable_radius(int(self.size[s])), int(self._largest[s]))

    def first_sizes(self, level: F8, live: Bool, tables: Tables) -> None:
        """Stamp sizes from the start values.

        A source whose start values alone need more than the cap of radii may have that, and half as much again.
        """
        scene, theta = self.scene, self.parameters.start
        self._most[:] = max(scene.ny, scene.nx)
        self._largest = self._reach(theta)
        for s in range(len(theta)):
            reach = min(int(4 * np.exp(min(theta[s, LOG_RE], 6.0))) + 12, 96) if self._extended[s] else 0
            self._resize(s, max(scene.psf_radius(bool(self._extended[s])) + 4, reach))
        self._fit_sizes(theta, np.asarray((level > 0).any(axis=0), bool), level, live, tables)
        self._most = np.maximum(self.options.stamp_radius_max, self.radius + self.radius // 2)

    def _fit_sizes(self, theta: F8, todo: Bool, level: F8, live: Bool, tables: Tables) -> None:
        """Draw the models of some sources alone, on stamps that grow, until they fit.

        In the bands in which a source stands out most: there it reaches farthest.
        """
        scene, n = self.scene, len(theta)
        height = np.divide(1, level, out=np.zeros_like(level), where=live & (level > 0))
        live = live & (height > _STANDS_OUT * height.max(axis=0, initial=0.0))
        held, nowhere = np.ones(n, bool), np.zeros(n, np.int64)
        for _ in range(4):
            if not todo.any():
                break
            self._load_psfs()
            box = np.zeros((n, 4), np.int64)
            stamps = Stamps(self.size, pixel(theta), box, nowhere, self._psf, self._psf_offset)
            found: list[I8] = []

            def draw(
                start: int, stop: int, todo: Bool = todo, stamps: Stamps = stamps, found: list[I8] = found
            ) -> None:
                mine, empty = np.zeros(n, np.int64), np.zeros((stop - start, 1), np.float32)
                found.append(mine)
                draw_sources(
                    theta, self.parameters.kind, False, False, held, todo, live[start:stop],
                    stamps._replace(psf=stamps.psf[start:stop]), tables, scene.sqrt_w[start:stop],
                    empty, level[start:stop], mine,
                )  # fmt: skip

            self._team.share(draw, scene.n_bands, live.sum(axis=1) + 0.1)
            needed = np.max(found, axis=0)
            grow = todo & (needed >= self.radius - 1) & (self.radius < self._largest)
            for s in map(int, np.flatnonzero(todo)):
                self._resize(s, int(1.5 * self.radius[s]) if grow[s] else max(int(needed[s]) + 2, 7))
            todo = grow

    def restrict(self, weak: Bool) -> None:
        """Lower the cap of radii for sources that are held by weak priors."""
        cap = np.maximum(self.options.stamp_radius_weak, self.radius + self.radius // 2)
        self._most = np.where(weak, np.minimum(self._most, cap), self._most)
        self._largest = self._reach(self.parameters.start)

    def coarsen(self, level: F8, live: Bool, tables: Tables) -> None:
        """Stamp sizes for another level of what is needed, at the start values."""
        seen = np.asarray((level > 0).any(axis=0), bool)
        self._fit_sizes(self.parameters.start, seen, level, live, tables)

    # ---------------------------------------------------------------- room
    def start_stage(self, n_images: I8) -> None:
        """Forget all places; the sources are to have ``n_images`` images each."""
        self._n_images, self._end, self._settled = n_images, 0, None
        self._room[:] = 0
        self._forget_psfs()

    def _psf_keys(self) -> list[tuple[int, bool]]:
        """Which transform each source needs: size, and whether it is the one for galaxies."""
        other = self._extended & (not self.scene.has_one_psf)
        return list(zip(self.size.tolist(), other.tolist(), strict=True))

    def _forget_psfs(self) -> None:
        """Let the transforms go that are of no size in use; points of before are void."""
        used = set(self._psf_keys())
        kept = sorted((place, key) for key, place in self._psf_place.items() if key in used)
        self._psf_place, self._psf_end = {}, 0
        self._loaded[:] = -1
        for place, key in kept:
            size = key[0] * (key[0] // 2 + 1) * 2
            begin, end = self._psf_end, self._psf_end + size
            self._psf[:, begin:end] = self._psf[:, place : place + size]
            self._psf_place[key], self._psf_end = begin, end

    def _load_psfs(self) -> None:
        """PSF transforms of all sizes that were in use in a stage, flat, and each source's place in them."""
        if np.array_equal(self.size, self._loaded):
            return
        self._loaded = self.size.copy()
        keys = self._psf_keys()
        for key in sorted(set(keys) - set(self._psf_place)):
            new = self.scene.psf_transform(*key).reshape(self.scene.n_bands, -1)
            begin, end = self._psf_end, self._psf_end + new.shape[1]
            if end > self._psf.shape[1]:
                width = max(end + end // 4, _PSF_PIXELS // self.scene.n_bands)
                larger = np.empty((self.scene.n_bands, width), np.float32)
                larger[:, :begin] = self._psf[:, :begin]
                self._psf = larger
                self._workspace.keep("psfs", larger)
            self._psf[:, begin:end] = new
            self._psf_place[key], self._psf_end = begin, end
        self._psf_offset = np.array([self._psf_place[key] for key in keys], np.int64)

    @property
    def buffer(self) -> F4:
        """Images of the bands that are kept, flat, float32 (kept, ...); places are in ``Stamps.offset``."""
        return self._pixels[: self.kept * self._length].reshape(self.kept, self._length)

    @contextlib.contextmanager
    def lent(self) -> Iterator[F4]:
        """A buffer for a band that is not kept, float32 (1, ...), for as long as the block runs."""
        place = self._free.pop()  # there is one for every thread
        try:
            begin = (self.kept + place) * self._length
            yield self._pixels[begin : begin + self._length][None]
        finally:
            self._free.append(place)

    def _make_room(self, centre: I8, box: I8, changed: Bool, before: Stamps | None) -> None:
        """A new place for every source that outgrew its own; what is in the buffers stays where it is.

        Unless places that were left behind are what makes the buffers too small: then all sources move together.
        """
        outgrown = np.flatnonzero(changed & (_area(box) > self._room))
        if len(outgrown) == 0:
            return
        # only the part of a stamp that lies on the patch takes room, and what a step or two may add to it
        wide = boxes(centre[outgrown], self.radius[outgrown] + _MARGIN, self.scene.ny, self.scene.nx)
        self._room[outgrown] = _area(wide)
        used, room = self._end, self._n_images * self._room
        added, whole = int(room[outgrown].sum()), int(room.sum())
        if used == 0 or (
            before is not None and self._length < used + added and whole < _SPARSE * (used + added)
        ):
            self._offset, self._end = np.cumsum(room) - room, whole
            self.kept, self.moved = 0, used > 0
            self._divide(whole)
            if before is not None:
                before.offset[:] = self._offset
            return
        self._offset[outgrown] = used + np.cumsum(room[outgrown]) - room[outgrown]
        self._end = used + added
        if self._end > self._length:
            self._divide(self._end)

    def _divide(self, least: int) -> None:
        """Divide the memory into buffers of ``least`` pixels or more; what is kept of a band stays.

        There are no more of them than before while something is kept: they only get longer.
        """
        n_bands, threads = self.scene.n_bands, min(self._team.threads, self.scene.n_bands)
        pixels = self.options.image_memory_mb * 2**20 // 4
        before, length = self.buffer, self._length
        if n_bands * least <= pixels or n_bands == threads:  # as many are lent at a time
            kept = n_bands
            self._length = max(least, pixels // n_bands)
        else:
            kept = max(0, min(pixels // (least + least // 8) - threads, n_bands - 1))
            self._length = max(least, pixels // (kept + threads))
        count = (kept + (threads if kept < n_bands else 0)) * self._length
        self._pixels = self._workspace.empty("images", (max(pixels, count),), np.float32)
        self.kept = kept
        for b in reversed(range(min(kept, len(before)))):  # the last first: they move towards the end
            self._pixels[b * self._length : b * self._length + length] = before[b]

    def stamps(self, theta: F8, changed: Bool, before: Stamps | None, recentre: bool) -> Stamps:
        """Stamps of a point: new ones for the changed sources, those of ``before`` for the others.

        Parameters
        ----------
        theta : ndarray, float64 (S, 6)
        changed : ndarray, bool (S,)
        before : Stamps or None
            Of the current point.
        recentre : bool
            Put the changed sources on the pixels nearest to them.
        """
        self.moved = False
        if recentre and changed.all():  # nothing is to be kept: places from the beginning on
            self._room[:], self._end = 0, 0
            self._forget_psfs()
        self._load_psfs()
        centre = pixel(theta)
        if before is not None and not recentre:
            # a middle that followed the source at half a pixel would make the objective jump there, to and fro
            near = np.abs(theta[:, :2] - before.centre).max(axis=1, initial=0.0) < _KEEP_CENTRE
            centre = np.where(near[:, None], before.centre, centre)
        box = boxes(centre, self.radius, self.scene.ny, self.scene.nx)
        self._make_room(centre, box, changed, before)
        offset = self._offset.copy()
        if before is not None:
            box = np.where(changed[:, None], box, before.box)
            centre = np.where(changed[:, None], centre, before.centre)
            offset = np.where(changed, offset, before.offset)
        return Stamps(self.size.copy(), centre, box, offset, self._psf, self._psf_offset)

    # ---------------------------------------------------------------- sizes on the way
    def remember(self, changed: Bool, needed: I8) -> None:
        """Take note of the radii that the changed sources of an accepted point needed."""
        self._needed = np.where(changed, needed, self._needed)

    def prepare(self, theta: F8, before: F8, changed: Bool) -> None:
        """Before a trial: larger stamps for sources that the step makes wider, lest they be drawn twice."""
        self._largest = np.where(changed, self._reach(theta), self._largest)
        wider = np.where(self._extended & changed, theta[:, LOG_RE] - before[:, LOG_RE], 0.0)
        for s in map(int, np.flatnonzero((wider > _MUCH_WIDER) & self._may_grow(theta))):
            radius = int(self._needed[s] * np.exp(min(wider[s], 0.7))) + 2
            if radius > self.radius[s]:
                self._resize(s, max(radius, int(self.radius[s])))

    def _may_grow(self, theta: F8) -> Bool:
        if self._settled is None:
            return np.ones(len(theta), bool)
        grown: Bool = theta[:, LOG_RE] > self._settled + _SETTLED_GROWTH
        return grown

    def adapt(self, theta: F8, changed: Bool, shrink: bool) -> Bool | None:
        """Fit stamps to what the current point needed; returns the sources to draw again, or None."""
        before = self.size.copy()
        may_grow = self._may_grow(theta)
        for s in map(int, np.flatnonzero(changed)):
            needed = int(self._needed[s])
            if needed >= self.radius[s] and self.radius[s] < self._largest[s]:
                if may_grow[s]:
                    self._resize(s, int(1.25 * self.radius[s]) + 2)
            elif shrink and self._settled is None and needed + 3 < 0.8 * self.radius[s]:
                self._resize(s, max(int(1.1 * needed) + 2, 7))
        redraw: Bool = before != self.size
        return redraw if redraw.any() else None

    def settle(
        self, theta: F8, centre: I8, visible: Bool, level: F8, live: Bool, tables: Tables
    ) -> Bool | None:
        """Give all sources the stamps that a fit from any other start would end with.

        Sizes follow from the current point alone, not from the way to it; returns the sources to draw again
        (on the pixel nearest to them), or None.
        """
        before = self.size.copy()
        for s in map(int, np.flatnonzero(visible)):
            self._resize(s, int(1.3 * self._needed[s]) + 3)
        self._fit_sizes(theta, visible, level, live, tables)
        self._settled = theta[:, LOG_RE].copy()
        redraw: Bool = (before != self.size) | (pixel(theta) != centre).any(axis=1)
        if 2 * redraw.sum() > len(redraw):
            # all of them, so that none of the old places is needed any more: they would be half of the buffers
            redraw[:] = True
        return redraw if redraw.any() else None
