"""Sources as The Tractor draws them: whitened unit-flux images and derivatives, band by band."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tract7dt.fit.parameters import LOG_N, Layout
from tract7dt.fit.scene import Scene
from tract7dt.fit.tractor.api import Api
from tract7dt.types import F4, F8, I8, ModelKind, PatchProblem

# The Tractor cannot differentiate a galaxy whose centre is off its image, so it gets a larger one.
_MARGIN = 32
# Steps of central differences of x, y (pix), log re, ee1, ee2, ln n.
_STEPS = (0.05, 0.05, 0.005, 0.005, 0.005, 0.003)
# Its null WCS states positions in degrees where the fit moves them in pixels of one arcsecond. The CD matrix
# itself must stay, since radii are read through it.
_DEGREES_PER_PIXEL = 1 / 3600
_BAND = "unit"


@dataclass(frozen=True)
class Drawn:
    """Images of a source in one band, times sqrt(weight).

    Attributes
    ----------
    box : tuple of 4 int
        x0, x1, y0, y1 within the patch.
    images : ndarray, float32 (k, y1 - y0, x1 - x0)
        Model of unit flux, and its derivatives with respect to the free parameters.
    """

    box: tuple[int, int, int, int]
    images: F4

    @property
    def window(self) -> tuple[slice, slice]:
        """Index of the box in an ``[y, x]`` array of the patch."""
        x0, x1, y0, y1 = self.box
        return slice(y0, y1), slice(x0, x1)


class Artist:
    """Draws the sources of a patch with The Tractor.

    Parameters
    ----------
    api : Api
    problem : PatchProblem
        For the PSFs.
    scene : Scene
    kind : ndarray, int64 (S,)
    theta : ndarray, float64 (S, 6)
        Shared parameters at the start.
    """

    def __init__(self, api: Api, problem: PatchProblem, scene: Scene, kind: I8, theta: F8) -> None:
        self.scene = scene
        self.canvas = (scene.ny + 2 * _MARGIN, scene.nx + 2 * _MARGIN)
        galaxy_psf = problem.psf if problem.psf_extended is None else problem.psf_extended
        wcs = pixel_wcs(api)
        self.stars = [self._image(api, wcs, psf) for psf in problem.psf]
        self.galaxies = [self._image(api, wcs, psf) for psf in galaxy_psf]
        self.kind = kind
        self.sources = [_source(api, int(k), start) for k, start in zip(kind, theta)]

    def _image(self, api: Api, wcs: Any, psf: F8) -> Any:
        blank = np.broadcast_to(np.float32(0), self.canvas)
        return api.Image(
            data=blank,
            inverr=blank,
            psf=api.PixelizedPSF(np.asarray(psf, np.float32)),
            wcs=wcs,
            sky=api.ConstantSky(0.0),
            photocal=api.FluxesPhotoCal(_BAND),
        )

    def limits(self) -> tuple[F8, F8]:
        """Box that positions must stay in to be drawn with derivatives: lower and upper (x, y)."""
        edge = _MARGIN - 4.0
        return np.full(2, -edge), np.array([self.scene.nx - 1 + edge, self.scene.ny - 1 + edge])

    def start_stage(self, layout: Layout) -> None:
        """Tell The Tractor which parameters move."""
        for source, kind in zip(self.sources, self.kind):
            names = ["pos"] * layout.pos
            if kind != ModelKind.STAR:
                names += ["shape"] * layout.shape
            if kind == ModelKind.SERSIC:
                names += ["sersicindex"] * layout.shape
            source.freezeAllParams()
            for name in ["brightness", *names]:
                source.thawParam(name)

    def model(self, s: int, b: int, theta: F8) -> Drawn | None:
        """Model of a source in a band; None where it does not reach the patch."""
        source = self._placed(s, theta)
        return self._whiten([source.getUnitFluxModelPatch(self._image_of(s, b))], b, np.ones(1))

    def derivatives(self, s: int, b: int, theta: F8, layout: Layout, fine: bool) -> Drawn | None:
        """Model and derivatives of a source in a band.

        The Tractor's own derivatives are differences over two pixels in the position of a galaxy, and one-sided
        in its shape. They lead near the maximum, not onto it; ``fine`` takes central differences of its models.
        """
        if layout.n_images[s] == 1:
            return self.model(s, b, theta)
        if fine:
            return self._central(s, b, theta, layout)
        source = self._placed(s, theta)
        patches = list(source.getParamDerivatives(self._image_of(s, b)))
        patches.insert(0, patches.pop(2 if layout.pos else 0))  # the flux comes after the position
        factor = np.ones(len(patches))
        if layout.shape and self.kind[s] == ModelKind.SERSIC:
            factor[-1] = math.exp(theta[LOG_N])  # n moves as its logarithm
        return self._whiten(patches, b, factor)

    def _central(self, s: int, b: int, theta: F8, layout: Layout) -> Drawn | None:
        """Model and central differences of models, on the box of the model."""
        drawn = self.model(s, b, theta)
        if drawn is None:
            return None
        x0, _, y0, _ = drawn.box
        sqrt_w = self.scene.sqrt_w[b][drawn.window]
        images = np.zeros((int(layout.n_images[s]), *sqrt_w.shape), np.float32)
        images[0] = drawn.images[0]
        for image, column in zip(images[1:], layout.column[layout.owner == s]):
            for sign in (1, -1):
                moved = theta.copy()
                moved[column] += sign * _STEPS[column]
                patch = self._placed(s, moved).getUnitFluxModelPatch(self._image_of(s, b))
                side = np.zeros_like(image)
                if patch is not None and patch.patch is not None:
                    _paste(patch, x0 + _MARGIN, y0 + _MARGIN, side)
                image += np.float32(sign) * side
            image *= sqrt_w / np.float32(2 * _STEPS[column])
        return Drawn(drawn.box, images)

    def _image_of(self, s: int, b: int) -> Any:
        return (self.stars if self.kind[s] == ModelKind.STAR else self.galaxies)[b]

    def _placed(self, s: int, theta: F8) -> Any:
        source = self.sources[s]
        source.pos.x, source.pos.y = float(theta[0]) + _MARGIN, float(theta[1]) + _MARGIN
        if self.kind[s] != ModelKind.STAR:
            source.shape.logre, source.shape.ee1, source.shape.ee2 = (float(v) for v in theta[2:5])
        if self.kind[s] == ModelKind.SERSIC:
            source.sersicindex.val = math.exp(theta[LOG_N])
        return source

    def _whiten(self, patches: list[Any], b: int, factor: F8) -> Drawn | None:
        """The patches on one box, clipped to the patch of the fit."""
        if patches[0] is None or patches[0].patch is None:
            return None
        height, width = patches[0].patch.shape
        left, low = int(patches[0].x0) - _MARGIN, int(patches[0].y0) - _MARGIN
        x0, x1 = max(left, 0), min(left + width, self.scene.nx)
        y0, y1 = max(low, 0), min(low + height, self.scene.ny)
        if x0 >= x1 or y0 >= y1:
            return None
        images = np.zeros((len(patches), y1 - y0, x1 - x0), np.float32)
        for image, patch, scale in zip(images, patches, factor):
            if patch is not None and patch.patch is not None:
                _paste(patch, x0 + _MARGIN, y0 + _MARGIN, image)
                image *= np.float32(scale)
        images *= self.scene.sqrt_w[b, y0:y1, x0:x1]
        return Drawn((x0, x1, y0, y1), images)


def _paste(patch: Any, x0: int, y0: int, out: F4) -> None:
    """Copy what overlaps of a patch into ``out``, whose first pixel is (x0, y0)."""
    left, low = int(patch.x0) - x0, int(patch.y0) - y0
    ny, nx = patch.patch.shape
    ya, yb, xa, xb = max(low, 0), min(low + ny, out.shape[0]), max(left, 0), min(left + nx, out.shape[1])
    if ya < yb and xa < xb:
        out[ya:yb, xa:xb] = patch.patch[ya - low : yb - low, xa - left : xb - left]


def pixel_wcs(api: Api) -> Any:
    """The null WCS with derivatives per pixel instead of per degree."""

    class PixelWcs(api.NullWCS):  # type: ignore[misc, name-defined]
        def pixelDerivsToPositionDerivs(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 - its name there
            return [d * _DEGREES_PER_PIXEL for d in super().pixelDerivsToPositionDerivs(*args, **kwargs)]

    return PixelWcs()


def _source(api: Api, kind: int, theta: F8) -> Any:
    """A source of unit flux."""
    position, flux = api.PixPos(float(theta[0]), float(theta[1])), api.Fluxes(**{_BAND: 1.0})
    if kind == ModelKind.STAR:
        return api.PointSource(position, flux)
    shape = api.EllipseESoft(*(float(v) for v in theta[2:5]))
    if kind == ModelKind.EXP:
        return api.ExpGalaxy(position, flux, shape)
    if kind == ModelKind.DEV:
        return api.DevGalaxy(position, flux, shape)
    return api.SersicGalaxy(position, flux, shape, api.SersicIndex(math.exp(theta[LOG_N])))
