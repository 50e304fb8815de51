"""Which sources a patch is given: its own, those of its halo, and neighbours whose light reaches in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tract7dt.aperture import circular_flux
from tract7dt.bright_stars import WING_RADIUS, flux_from_wings, overlap
from tract7dt.mapped import read_part
from tract7dt.patches.reach import reach
from tract7dt.patches.roles import BASE, BESIDE, HALO, OUTSIDE, SATURATED
from tract7dt.patches.saturation import saturated_cores
from tract7dt.types import BAD_NONFINITE, F8, I8, U1, Bool, Box, Field, Frame, ModelKind, Patch, Sources

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["Assignment", "SourceMap"]

log = logging.getLogger(__name__)

#: Rows of a frame that are read at once for aperture fluxes.
_CHUNK_ROWS = 512
_RE_RANGE = (0.3, 100.0)


@dataclass(frozen=True, slots=True)
class Assignment:
    """The sources of one patch, in catalogue order.

    Attributes
    ----------
    rows : ndarray, int64 (n,)
        Row numbers in the base catalogue.
    kind : ndarray of str (n,)
        ``""`` base, ``halo`` active within the roi, ``outside`` not fitted here but shining in,
        ``saturated`` a star with a saturated core, ``beside`` excluded because it lies near one.
    flux : ndarray, float64 (nband, n)
        Start flux of ``outside``, ``saturated`` and ``beside`` sources (NaN: unknown); NaN for the others.
    """

    rows: I8
    kind: np.ndarray
    flux: F8


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Positions and reach of every source that can matter to a patch, sorted by y; built once a field.

    Attributes
    ----------
    rows : ndarray, int64 (n,)
        Row numbers in the base catalogue.
    x, y : ndarray, float64 (n,)
        Working frame, pix.
    active, saturated : ndarray, bool (n,)
        Neither: a row off the frame with a catalogue flux.
    core : ndarray, bool (n,)
        Of the ``saturated`` ones, the stars that saturate.
    flux : ndarray, float64 (nband, n)
        The catalogue's where finite and positive, else an aperture on the frame.
    reach : ndarray, float64 (n,)
        Pix; -inf where nothing rises above the noise.
    """

    rows: I8
    x: F8
    y: F8
    active: Bool
    saturated: Bool
    core: Bool
    flux: F8
    reach: F8

    @classmethod
    def of(
        cls,
        sources: Sources,
        field: Field,
        masks: Mapping[str, U1],
        settings: Settings,
        stamp_at: Callable[[str, float, float], F8 | None] | None = None,
    ) -> SourceMap:
        """Map of ``sources``.

        Excluded rows take part where they have a usable model: near saturation, with a position on the
        frame; off the frame, with a position and a catalogue flux in some band.

        Parameters
        ----------
        sources : Sources
        field : Field
        masks : mapping of str to ndarray, uint8 (ny, nx)
            Final mask of each band.
        settings : Settings
            Sections ``patch_run``, ``epsf`` (``final_psf_size``) and ``moffat_psf`` (``beta``).
        stamp_at : callable, optional
            ``(band, x, y) -> unit-sum PSF stamp or None``, for fluxes of saturated stars from their wings.
        """
        table, run = sources.table, settings.patch_run
        x, y = (table[name].to_numpy(float) for name in ("x_pix_white", "y_pix_white"))
        given = _catalogue_flux(table, field.bands)
        placed = np.isfinite(x) & np.isfinite(y)
        on_frame = placed & field.box.contains(x, y)
        active = on_frame & ~table["excluded_any"].to_numpy(bool)
        saturated = on_frame & ~active & table["excluded_saturation"].to_numpy(bool)
        beyond = placed & ~on_frame & np.isfinite(given).any(axis=0)
        rows = np.flatnonzero(active | saturated | beyond)
        rows = rows[np.argsort(y[rows], kind="stable")]
        x, y, active, saturated = x[rows], y[rows], active[rows], saturated[rows]
        core = np.zeros(len(rows), bool)
        core[saturated] = saturated_cores(masks.values(), x[saturated], y[saturated])
        flux = _with_apertures(given[:, rows], x, y, saturated, field, masks, run.r_ap)
        if stamp_at is not None:
            unknown = core & np.isnan(given[:, rows])
            flux = _with_wings(flux, unknown, x, y, field, masks, stamp_at)
        kind, re, index = _shapes(table.iloc[rows], saturated, settings)
        fwhm = np.array([f.fwhm_pix or run.fallback_default_fwhm_pix for f in field.frames.values()])
        sigma = np.array([f.sky_sigma for f in field.frames.values()])
        # The wings of a saturated star are subtracted beyond its stamp, so that it matters farther out.
        stamp_end = np.where(core, WING_RADIUS, settings.epsf.final_psf_size // 2 + 2.0)
        far = reach(flux, kind, re, index, sigma, fwhm, settings.moffat_psf.beta, stamp_end)
        return cls(rows, x, y, active, saturated, core, flux, far)

    def assign(self, patch: Patch) -> Assignment:
        """Sources of ``patch``."""
        roi = patch.roi
        margin = max(float(np.max(self.reach, initial=0.0)), 1.0)
        near = slice(*np.searchsorted(self.y, (roi.y0 - margin, roi.y1 + margin)))
        x, y, active = self.x[near], self.y[near], self.active[near]
        shines = _distance(roi, x, y) <= self.reach[near]
        inside = active & roi.contains(x, y)
        base = active & patch.base.contains(x, y)
        kind = np.full(len(x), "-", dtype="<U9")
        kind[shines & ~active] = OUTSIDE
        kind[shines & self.saturated[near]] = BESIDE
        kind[shines & self.core[near]] = SATURATED
        kind[shines & active & ~inside] = OUTSIDE
        kind[inside] = HALO
        kind[base] = BASE
        chosen = np.flatnonzero(kind != "-")
        chosen = chosen[np.argsort(self.rows[near][chosen])]
        kind = kind[chosen]
        own = (kind == BASE) | (kind == HALO)
        flux = np.where(own, np.nan, self.flux[:, near][:, chosen])
        return Assignment(self.rows[near][chosen], kind, flux)


def _distance(roi: Box, x: F8, y: F8) -> F8:
    """Distance from each position to the nearest pixel centre of ``roi``, 0 within."""
    dx = np.maximum(np.maximum(roi.x0 - x, x - (roi.x1 - 1)), 0)
    dy = np.maximum(np.maximum(roi.y0 - y, y - (roi.y1 - 1)), 0)
    return np.hypot(dx, dy)


def _catalogue_flux(table: pd.DataFrame, bands: tuple[str, ...]) -> F8:
    """FLUX_{band} where finite and positive, else NaN, (nband, n)."""
    flux = np.full((len(bands), len(table)), np.nan)
    for number, band in enumerate(bands):
        if f"FLUX_{band}" in table:
            given = table[f"FLUX_{band}"].to_numpy(float)
            flux[number] = np.where(np.isfinite(given) & (given > 0), given, np.nan)
    return flux


def _with_apertures(
    given: F8, x: F8, y: F8, saturated: Bool, field: Field, masks: Mapping[str, U1], radius: float
) -> F8:
    """``given`` with its gaps filled by aperture fluxes on the frames; ``y`` ascends."""
    flux = given.copy()
    for number, frame in enumerate(field.frames.values()):
        gaps = np.flatnonzero(np.isnan(given[number]) & field.box.contains(x, y))
        if len(gaps):
            flux[number, gaps] = _frame_apertures(
                frame, masks[frame.band], x[gaps], y[gaps], saturated[gaps], field.box, radius
            )
    return flux


def _frame_apertures(frame: Frame, mask: U1, x: F8, y: F8, saturated: Bool, box: Box, radius: float) -> F8:
    """Aperture fluxes on one band, read by chunks of rows so that memory stays small; ``y`` ascends.

    The core of a saturated star stays in: a clipped sum is a lower limit of its flux, which is nearer
    to the truth than what the wings alone would give.
    """
    flux = np.full(len(x), np.nan)
    margin = int(np.ceil(radius)) + 1
    for y0 in range(box.y0, box.y1, _CHUNK_ROWS):
        members = np.arange(*np.searchsorted(y, (y0 - 0.5, y0 + _CHUNK_ROWS - 0.5)))
        if not len(members):
            continue
        window = Box(box.x0, box.x1, max(y0 - margin, box.y0), min(y0 + _CHUNK_ROWS + margin, box.y1))
        data, bad = frame.window(window), read_part(mask, window.slices)
        for group, left_out in (
            (~saturated[members], bad),
            (saturated[members], (bad & BAD_NONFINITE).astype(np.uint8)),
        ):
            chosen = members[group]
            if len(chosen):
                at = x[chosen] - window.x0, y[chosen] - window.y0
                flux[chosen] = circular_flux(data, left_out, *at, radius)
    return flux


def _with_wings(
    flux: F8,
    wanted: Bool,
    x: F8,
    y: F8,
    field: Field,
    masks: Mapping[str, U1],
    stamp_at: Callable[[str, float, float], F8 | None],
) -> F8:
    """``flux`` with those of ``wanted`` (nband, n) raised to what the wings of the star say."""
    flux = flux.copy()
    for number, frame in enumerate(field.frames.values()):
        for star in np.flatnonzero(wanted[number]):
            stamp = stamp_at(frame.band, float(x[star]), float(y[star]))
            found = (
                None if stamp is None else overlap(len(stamp), field.shape, float(x[star]), float(y[star]))
            )
            if stamp is None or found is None:
                continue
            place, part = found
            used = read_part(masks[frame.band], place) == 0
            seen = flux_from_wings(read_part(frame.data, place), used, stamp, part, frame.sky_sigma)
            flux[number, star] = np.fmax(flux[number, star], seen)
    return flux


def _shapes(table: pd.DataFrame, saturated: Bool, settings: Settings) -> tuple[I8, F8, F8]:
    """Model kind, half-light radius (pix) and Sersic index to judge the reach by.

    A saturated row of unknown type counts as a star, not as ``gal_model``.
    """
    run = settings.patch_run
    unknown = ModelKind.of(run.gal_model, ModelKind.EXP)
    text = table["TYPE"].astype(str) if "TYPE" in table else pd.Series("", index=table.index)
    kind = np.array(
        [ModelKind.of(t, ModelKind.STAR if s else unknown) for t, s in zip(text, saturated, strict=True)],
        dtype=np.int64,
    )
    re = _number(table, "Re", run.re_fallback_pix).clip(*_RE_RANGE)
    index = _number(table, "SERSIC_n", run.sersic_n_init)
    return kind, re, np.where(index > 0, index, run.sersic_n_init).clip(0.3, 6.0)


def _number(table: pd.DataFrame, name: str, default: float) -> F8:
    if name not in table:
        return np.full(len(table), default)
    value = table[name].to_numpy(float)
    return np.where(np.isfinite(value), value, default)
