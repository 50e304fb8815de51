"""The PSF as a function of place: one stamp for the whole frame, deformed as the stars show.

Within a cell the PSF varies by per cents in width, which no single stamp follows. What varies is, to first
order, size and elongation: three numbers that each star gives by itself, bright or near the edge, and that
are smooth over the frame. The stamp's finer structure is averaged over all cells.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tract7dt.psf.cutouts import StarStamps, fit_radius, local_sky
from tract7dt.psf.deform import N_MODES, Deformable, deformed_profile
from tract7dt.psf.fine_light import FineLight
from tract7dt.psf.products import CellMeta
from tract7dt.psf.quality import stamp_shape
from tract7dt.psf.shapes import measure_shapes
from tract7dt.psf.stack import FINE_TOLERANCE, StackOptions
from tract7dt.psf.surface import MAX_DEGREE, Surface, basis, fit_surface, n_terms
from tract7dt.psf.tail import tail_record
from tract7dt.psf.wings import MoffatProfile, fit_moffat
from tract7dt.types import Box, Epsf, EpsfGrid, SpatialPsf

__all__ = ["fit_spatial", "psf_at"]

log = logging.getLogger(__name__)

F8 = NDArray[np.float64]

#: The mode that is the size.
SIZE = 0
#: With fewer stars there is nothing to be said about variation.
MIN_STARS = 4
#: Each round measures the stars against the deformed stamp, so that the second one starts near the truth.
ROUNDS = 2
#: Relative error of the joint stamp, for the weights of the fit of its profile.
PROFILE_ERROR = 1e-5
#: Radius of the aperture of a first flux, pix.
FIRST_APERTURE = 5.0
#: Error of a median over that of a mean.
MEDIAN_ERROR = 1.25
#: How far beyond the values at its own stars the model may go, where there are none.
REACH = 0.005
#: Places per axis at which the model's errors are judged.
JUDGED = 7


@dataclass(frozen=True, slots=True)
class _Sample:
    """Stars to be measured: cutouts, start values, local sky and its error; places from -1 to 1."""

    stars: StarStamps
    start: tuple[F8, F8, F8]
    sky: F8
    sky_error: F8
    u: F8
    v: F8


def fit_spatial(
    cells: Mapping[str, Epsf], meta: Mapping[str, CellMeta], box: Box, options: StackOptions
) -> SpatialPsf | None:
    """Model of a band from the stacks of its cells and from all stars that can be measured.

    Parameters
    ----------
    cells : mapping of str to Epsf
        Of the cells with a stack of their own.
    meta : mapping of str to CellMeta
        With stars and stacks in memory.
    box : Box
        The frame.
    options : StackOptions
        Size of the stamp and annulus of the local sky.

    Returns
    -------
    SpatialPsf or None
        None where no cell has a stack. With fewer than four stars the deformation is zero.
    """
    built = [meta[tag] for tag in cells if meta[tag].stack is not None and meta[tag].stars is not None]
    if not built:
        return None
    joint, fine_share = _joint_stamp([cells[m.tag] for m in built], built, options.size)
    radius = fit_radius(joint.profile.fwhm)
    samples = [s for m in built for s in _samples(m, box, options)]
    coefficients = np.zeros((N_MODES, n_terms(MAX_DEGREE)))
    surfaces: list[Surface] = []
    for _ in range(ROUNDS):
        u, v, value, error = _measured(samples, joint, fine_share, coefficients, radius)
        if len(u) < MIN_STARS:
            break
        surfaces = [
            fit_surface(u, v, value[:, mode], error[:, mode], bowls=mode == SIZE) for mode in range(N_MODES)
        ]
        coefficients = np.array([s.coefficients for s in surfaces])
    at_stars = basis(u, v) @ coefficients.T
    limits = np.zeros((N_MODES, 2))
    if surfaces:
        limits = np.stack([at_stars.min(0) - REACH, at_stars.max(0) + REACH], axis=1)
    lo = joint.stamp.shape[0] // 2 - options.size // 2
    shape = stamp_shape(joint.stamp[lo : lo + options.size, lo : lo + options.size])
    quality = {
        "fwhm_pix": shape["fwhm_pix"],
        "n_cells": len(built),
        "n_measured": len(u),
        "n_clipped": [int((~s.used).sum()) for s in surfaces],
        "scatter": [s.scatter for s in surfaces],
        "error": [_typical_error(s) for s in surfaces],
        "error_of_mean": [math.sqrt(s.covariance[0, 0]) for s in surfaces],
        "error_by_cell": {tag: _error_at_centre(surfaces, m.box, box) for tag, m in meta.items()},
        "range": [_range(c) for c in coefficients],
    }
    log.debug("spatial model of %d stars: %s", len(u), quality)
    return SpatialPsf(
        joint.stamp.astype(np.float32),
        astuple(joint.profile),
        coefficients,
        limits,
        box,
        options.size,
        sum(m.n_used for m in built),
        quality,
    )


def _joint_stamp(epsfs: Sequence[Epsf], built: Sequence[CellMeta], size: int) -> tuple[Deformable, float]:
    """Mean of the stacks, each by its own error, and how much their stars show of what it lacks."""
    weight = np.array([float(e.quality["relative_error"]) ** -2.0 for e in epsfs])
    stacks = [m.stack for m in built if m.stack is not None]
    stamp = np.tensordot(weight / weight.sum(), np.array([s.stamp for s in stacks]), axes=1)
    lo = stamp.shape[0] // 2 - size // 2
    stamp = stamp / stamp[lo : lo + size, lo : lo + size].sum()
    share = float(weight @ [s.fine_share for s in stacks] / weight.sum())
    profile = stacks[int(weight.argmax())].profile
    if len(stacks) > 1:
        scene = stamp + share * (profile.stamp(len(stamp)) - profile.resolved(len(stamp)))
        profile = fit_moffat(scene, np.full(stamp.shape, (PROFILE_ERROR * stamp.max()) ** 2), profile)
    return Deformable(stamp, profile), share


def _samples(meta: CellMeta, box: Box, options: StackOptions) -> list[_Sample]:
    """The stars of a cell's stack, with what the stack knows of them, and its spare stars."""
    stack, found = meta.stack, []
    if meta.stars is not None and stack is not None and stack.used.any():
        use = np.flatnonzero(stack.used)
        start = (stack.flux[use], stack.dx[use], stack.dy[use])
        found.append(_sample(meta.stars.subset(use), start, stack.sky[use], box, options))
    if meta.spare is not None and len(meta.spare):
        spare = meta.spare
        sky = np.zeros(len(spare))
        if options.sky_annulus is not None:
            sky = local_sky(
                spare.data, spare.good, options.sky_annulus, options.sky_sigma_clip, options.sky_min_pixels
            )
        core = spare.good & (_radius(spare.k) < FIRST_APERTURE)
        flux = np.where(core, spare.data - sky[:, None, None], 0.0).sum((1, 2))
        zero = np.zeros(len(spare))
        found.append(_sample(spare, (np.maximum(flux, spare.noise), zero, zero), sky, box, options))
    return found


def _sample(stars: StarStamps, start: tuple[F8, F8, F8], sky: F8, box: Box, options: StackOptions) -> _Sample:
    inner, outer = options.sky_annulus or (0.5 * stars.k, 0.5 * stars.k)
    radius = _radius(stars.k)
    outer = min(outer, stars.k // 2)
    ring = (radius >= min(inner, outer - 3)) & (radius <= outer)
    n_sky = np.maximum((stars.good & ring).sum((1, 2)), 1)
    u, v = _place(stars.x + start[1], stars.y + start[2], box)
    return _Sample(stars, start, sky, MEDIAN_ERROR * stars.noise / np.sqrt(n_sky), u, v)


def _radius(k: int) -> F8:
    axis = np.arange(k, dtype=float) - k // 2
    return np.hypot(axis[:, None], axis[None, :])


def _place(x: F8 | float, y: F8 | float, box: Box) -> tuple[F8, F8]:
    """Coordinates from -1 to 1 over the frame; a place beyond it has those of its border."""
    u = 2 * (np.atleast_1d(np.asarray(x, float)) + 0.5 - box.x0) / box.nx - 1
    v = 2 * (np.atleast_1d(np.asarray(y, float)) + 0.5 - box.y0) / box.ny - 1
    return np.clip(u, -1, 1), np.clip(v, -1, 1)


def _measured(
    samples: Sequence[_Sample], joint: Deformable, fine_share: float, coefficients: F8, radius: float
) -> tuple[F8, F8, F8, F8]:
    """Places, deformations and their errors of all stars, against the model as it is."""
    parts: list[tuple[F8, F8, F8, F8]] = []
    k = joint.stamp.shape[0]
    unresolved = FINE_TOLERANCE * joint.profile.unresolved_size(k)
    fine = FineLight(joint.profile, k, fine_share)
    for sample in samples:
        expected = basis(sample.u, sample.v) @ coefficients.T
        shapes = measure_shapes(
            sample.stars,
            joint.deformed(expected),
            unresolved,
            fine,
            sample.start,
            sample.sky,
            sample.sky_error,
            radius,
        )
        ok = shapes.valid
        parts.append((sample.u[ok], sample.v[ok], (expected + shapes.value)[ok], shapes.error[ok]))
    u, v, value, error = (np.concatenate(column) for column in zip(*parts, strict=True))
    return u, v, value, error


def _over_frame() -> F8:
    axis = np.linspace(-1, 1, JUDGED + 1)[:-1] + 1 / JUDGED
    u, v = np.meshgrid(axis, axis)
    return basis(u.ravel(), v.ravel())


def _typical_error(surface: Surface) -> float:
    """Root mean square of one sigma over the frame."""
    places = _over_frame()
    return float(np.sqrt(np.einsum("ni,ij,nj->n", places, surface.covariance, places).mean()))


def _error_at_centre(surfaces: Sequence[Surface], cell: Box, box: Box) -> float:
    """One sigma of ln size at the centre of a cell; a PSF flux is wrong by about as much."""
    if not surfaces:
        return math.nan
    place = basis(*_place((cell.x0 + cell.x1 - 1) / 2, (cell.y0 + cell.y1 - 1) / 2, box))[0]
    return float(math.sqrt(place @ surfaces[0].covariance @ place))


def _range(coefficients: F8) -> float:
    """Largest minus smallest value over the frame."""
    return float(np.ptp(_over_frame() @ coefficients))


def psf_at(grid: EpsfGrid, tag: str, x: float, y: float) -> Epsf | None:
    """PSF of one band at a place.

    Parameters
    ----------
    grid : EpsfGrid
    tag : str
        The cell that the place lies in; it answers for ``kind``.
    x, y : float
        Place in the working frame, pix.

    Returns
    -------
    Epsf or None
        Unit sum. ``n_stars`` counts the stars of the whole band, all of which the stamp is made of; the
        cell's own number is ``n_own_stars`` of the quality, which is the cell's but for the width, the tail
        and the place. None where the cell has no ePSF; the cell's own where the grid has no spatial model.
    """
    own, model = grid.cells.get(tag), grid.spatial
    if own is None or model is None:
        return own
    shape = np.clip((basis(*_place(x, y, model.box)) @ model.coefficients.T)[0], *model.limits.T)
    joint = Deformable(np.asarray(model.stamp, float), MoffatProfile(*model.profile))
    lo = joint.stamp.shape[0] // 2 - model.size // 2
    stamp = joint.deformed(shape[None])[0, lo : lo + model.size, lo : lo + model.size]
    total = float(stamp.sum())
    quality = dict(own.quality) | {
        "spatial": "interpolated",
        "x": float(x),
        "y": float(y),
        "n_own_stars": int(own.quality.get("n_own_stars", own.n_stars)),
        "fwhm_pix": float(model.quality["fwhm_pix"]) * float(np.exp(shape[0])),
    }
    quality |= tail_record(deformed_profile(joint.profile, shape), total)
    return replace(own, stamp=(stamp / total).astype(np.float32), n_stars=model.n_stars, quality=quality)
