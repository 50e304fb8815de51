"""ePSFs of one band, cell by cell: detect, choose stars, stack, judge."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tract7dt.geometry import cell_boxes, cell_tag
from tract7dt.psf.analytic import moffat_stamp
from tract7dt.psf.detection import CellImage, detect_cell
from tract7dt.psf.diagnosis import diagnose_cell
from tract7dt.psf.known import KnownSources
from tract7dt.psf.object_width import width_of_profiles
from tract7dt.psf.products import BandEpsf, CellMeta
from tract7dt.psf.quality import measure_quality
from tract7dt.psf.selection import Candidate, Selection, after_stack, select_stars
from tract7dt.psf.spatial import fit_spatial
from tract7dt.psf.stack import Stack, StackOptions, refine
from tract7dt.psf.tail import tail_record
from tract7dt.types import Box, Epsf, EpsfGrid, Frame

if TYPE_CHECKING:
    import pandas as pd

    from tract7dt.settings import EpsfSettings
    from tract7dt.types import Field

log = logging.getLogger(__name__)

__all__ = ["active_cells", "build_band", "build_cell"]

F8 = NDArray[np.float64]

#: A cell with fewer stars in its stack takes the stamp of the nearest cell that has at least as many.
MIN_OWN_STARS = 2
#: Relative difference of PSF fluxes in a cell (twice that of sizes) beyond which they are no stars.
MAX_MISMATCH = 0.08
#: A stamp this much wider or narrower than the band's median is not of stars (asked of three cells or more).
MAX_WIDTH_RATIO = 1.3
#: Moffat index of a stamp that is nothing but a width.
FALLBACK_BETA = 3.3


def active_cells(field: Field, x: F8, y: F8, epsf: EpsfSettings) -> list[tuple[int, int]]:
    """Cells ``(row, col)`` to build, row by row: all, or those that hold a source.

    Parameters
    ----------
    field : Field
    x, y : ndarray (n,)
        Places of the sources that take part in the fit, working-frame pix; NaN is in no cell.
    epsf : EpsfSettings
        ``epsf_ngrid``, ``skip_empty_epsf_patches``.
    """
    boxes = cell_boxes(field.box, epsf.epsf_ngrid)
    if not epsf.skip_empty_epsf_patches:
        return list(boxes)
    return [cell for cell, box in boxes.items() if box.contains(x, y).any()]


def build_band(
    field: Field,
    band: str,
    active_cells: Sequence[tuple[int, int]],
    gaia: pd.DataFrame | None,
    epsf: EpsfSettings,
    on_cell: Callable[[int, int], None] | None = None,
    *,
    min_own_stars: int = MIN_OWN_STARS,
    sources: pd.DataFrame | None = None,
) -> BandEpsf:
    """Build the ePSF of every active cell of a band.

    A cell without enough stars is not an error: it borrows the stamp of the nearest cell of the band
    (kind ``borrowed``), or is absent when there is none, and its record says why. Where the header tells no
    width either, an absent cell has a Moffat stamp (kind ``moffat``, no stars) as wide as its round
    detections, from which the analytic fallback takes its width.

    Parameters
    ----------
    field : Field
        Its frames are read by window.
    band : str
    active_cells : sequence of (row, col)
    gaia : DataFrame or None
        Columns ``x_pix_white``, ``y_pix_white`` (pix), ``phot_g_mean_mag``.
    epsf : EpsfSettings
    on_cell : callable, optional
        Called with (cells done, cells in all) after each cell.
    min_own_stars : int
        Fewer stars in a cell's stack: borrow.
    sources : DataFrame, optional
        The base catalogue (:class:`tract7dt.types.Sources`): where to look for neighbours of stars.

    Returns
    -------
    BandEpsf
    """
    boxes = cell_boxes(field.box, epsf.epsf_ngrid)
    known = KnownSources.none() if sources is None else KnownSources.of_table(sources)
    cells: dict[str, Epsf] = {}
    meta: dict[str, CellMeta] = {}
    for done, (row, col) in enumerate(active_cells, start=1):
        tag = cell_tag(row, col)
        stamp, record = build_cell(field.frames[band], (row, col), boxes[row, col], gaia, epsf, known)
        meta[tag] = record
        if stamp is not None:
            cells[tag] = stamp
        if on_cell is not None:
            on_cell(done, len(active_cells))
    cells, meta = _without_misfits(cells, meta)
    spatial = None
    if epsf.spatial == "interpolated":
        spatial = fit_spatial(cells, meta, field.box, stack_options(epsf))
    cells, meta = _borrow(cells, meta, min_own_stars)
    if spatial is not None:
        cells = _with_model_error(cells, spatial.quality["error_by_cell"])
    if field.frames[band].fwhm_pix is None:
        cells = cells | _widths_alone(cells, meta, epsf.final_psf_size)
    built = sum(m.status == "built" for m in meta.values())
    log.info("band %s: %d of %d cells with an ePSF of their own", band, built, len(meta))
    return BandEpsf(EpsfGrid(band, cells, spatial), meta)


def build_cell(
    frame: Frame,
    cell: tuple[int, int],
    box: Box,
    gaia: pd.DataFrame | None,
    epsf: EpsfSettings,
    known: KnownSources | None = None,
) -> tuple[Epsf | None, CellMeta]:
    """Build the ePSF of one cell of one band, and its record; None where no star serves.

    Parameters
    ----------
    frame : Frame
    cell : (row, col)
    box : Box
        The cell in the frame.
    gaia, epsf
        As in :func:`build_band`.
    known : KnownSources, optional
        Sources of the catalogue, working frame.
    """
    begin = time.process_time()
    image = detect_cell(frame, box, epsf)
    selection = select_stars(image, gaia, epsf, frame.fwhm_pix, known)
    stack = refine(selection.stamps, selection.fwhm, stack_options(epsf)) if len(selection.chosen) else None
    reason = _why_absent(selection, stack)
    result: Epsf | None = None
    candidates, n_used = selection.candidates, 0
    if stack is None:
        candidates = after_stack(selection, ("fit_failed",) * len(selection.chosen))
    else:
        candidates, n_used = after_stack(selection, stack.reasons), int(stack.used.sum())
        reason = _not_stars(stack, candidates)
        result = None if reason else _epsf(stack, selection, epsf.final_psf_size)
        if result is None:
            reason, n_used = reason or "the stack has no peak at its centre", 0
    log.debug("%s %s: %d candidates, %d used %s", frame.band, cell, len(candidates), n_used, reason)
    return result, CellMeta(
        band=frame.band,
        tag=cell_tag(*cell),
        row=cell[0],
        col=cell[1],
        box=box,
        status="absent" if result is None else "built",
        reason=reason,
        candidates=candidates,
        n_extracted=len(selection.chosen),
        n_used=n_used,
        object_fwhm=math.nan
        if result is not None or frame.fwhm_pix is not None
        else width_of_profiles(image),
        background_level=float(np.median(image.background)),
        noise=_typical_noise(image),
        seconds=time.process_time() - begin,
        stars=selection.stamps,
        spare=selection.spare,
        stack=stack,
        diagnosis=diagnose_cell(image, candidates, epsf) if epsf.wants_diagnoses else None,
    )


def stack_options(epsf: EpsfSettings) -> StackOptions:
    """The settings of the stack."""
    annulus = (epsf.star_local_bkg_annulus_rin_pix, epsf.star_local_bkg_annulus_rout_pix)
    return StackOptions(
        size=epsf.final_psf_size,
        max_iterations=epsf.maxiters,
        clip=epsf.do_clip,
        oversampling=epsf.oversamp,
        recenter_boxsize=epsf.recenter_boxsize,
        sky_annulus=annulus if epsf.star_local_bkg_subtract else None,
        sky_sigma_clip=epsf.star_local_bkg_sigma,
        sky_min_pixels=epsf.star_local_bkg_minpix,
    )


def _typical_noise(image: CellImage) -> float:
    return float(np.median(image.noise))


def _why_absent(selection: Selection, stack: Stack | None) -> str:
    if stack is not None:
        return ""
    if not selection.candidates:
        return "no candidate"
    if len(selection.chosen):
        return "no star could be fitted"
    words = [c.reason for c in selection.candidates]
    counts = sorted({w: words.count(w) for w in words}.items(), key=lambda item: -item[1])
    return "no usable star: " + ", ".join(f"{word} {n}" for word, n in counts)


def _not_stars(stack: Stack, candidates: Sequence[Candidate]) -> str:
    """Why the objects of a stack cannot be stars; "" if they can.

    Stars of a cell are of one size. Where Gaia names fewer than three of them and the sizes differ by more
    than twice what a PSF may vary, the cell's round objects were galaxies.
    """
    known = sum(c.used and c.origin == "gaia" for c in candidates)
    if known >= 3 or stack.used.sum() < 3 or stack.mismatch <= MAX_MISMATCH:
        return ""
    return (
        f"the sizes of the {int(stack.used.sum())} objects differ by {50 * stack.mismatch:.0f} %: not stars"
    )


def _epsf(stack: Stack, selection: Selection, size: int) -> Epsf | None:
    lo = stack.stamp.shape[0] // 2 - size // 2
    stamp = stack.stamp[lo : lo + size, lo : lo + size]
    total = float(stamp.sum())
    centre = size // 2
    peak = stamp[max(centre - 1, 0) : centre + 2, max(centre - 1, 0) : centre + 2].max()
    if not np.all(np.isfinite(stamp)) or total <= 0 or peak < stamp.max():
        return None
    stamp = stamp / total
    quality = {"n_candidates": len(selection.candidates)} | measure_quality(stack, selection.stamps, stamp)
    quality |= tail_record(stack.profile, total)
    return Epsf(np.ascontiguousarray(stamp, dtype=np.float32), int(stack.used.sum()), "epsf", quality)


def _without_misfits(
    cells: dict[str, Epsf], meta: dict[str, CellMeta]
) -> tuple[dict[str, Epsf], dict[str, CellMeta]]:
    """Take away stamps whose width is not that of the band: galaxies, or blends, taken for stars."""
    if len(cells) < 3:
        return cells, meta
    typical = float(np.median([epsf.quality["fwhm_pix"] for epsf in cells.values()]))
    kept, meta = dict(cells), dict(meta)
    for tag, epsf in cells.items():
        width = epsf.quality["fwhm_pix"]
        if not typical / MAX_WIDTH_RATIO < width < typical * MAX_WIDTH_RATIO:
            del kept[tag]
            reason = f"FWHM {width:.2f} pix, the band's median is {typical:.2f}: not stars"
            meta[tag] = replace(meta[tag], status="absent", reason=reason)
    return kept, meta


def _borrow(
    cells: dict[str, Epsf], meta: dict[str, CellMeta], min_own_stars: int
) -> tuple[dict[str, Epsf], dict[str, CellMeta]]:
    """Give cells with too few stars the stamp of the nearest cell that has enough."""
    donors = [tag for tag, epsf in cells.items() if epsf.n_stars >= max(min_own_stars, 1)]
    cells, meta = dict(cells), dict(meta)
    for tag, record in meta.items():
        if tag in donors or not donors:
            continue
        distance, nearest = min(
            (math.dist((record.row, record.col), (meta[d].row, meta[d].col)), d) for d in donors
        )
        own = record.n_used
        lent = cells[nearest]
        reason = record.reason or f"{own} own stars, fewer than {min_own_stars}"
        quality = dict(lent.quality) | {
            "borrowed_from": nearest,
            "borrowed_distance_cells": distance,
            "n_own_stars": own,
        }
        cells[tag] = replace(lent, kind="borrowed", quality=quality)
        meta[tag] = replace(record, status="borrowed", reason=f"{reason}; stamp of {nearest}")
    return cells, meta


def _with_model_error(cells: dict[str, Epsf], errors: Mapping[str, float]) -> dict[str, Epsf]:
    """The record of each cell, with the error of the spatial model there."""
    return {
        tag: replace(epsf, quality=dict(epsf.quality) | {"model_error": errors[tag]})
        for tag, epsf in cells.items()
    }


def _widths_alone(cells: dict[str, Epsf], meta: dict[str, CellMeta], size: int) -> dict[str, Epsf]:
    """Moffat stamps of the width of the objects that there are, for cells without an ePSF."""
    known = [m.object_fwhm for m in meta.values() if math.isfinite(m.object_fwhm)]
    found = {}
    for tag, record in meta.items():
        if tag in cells or not known:
            continue
        width = record.object_fwhm if math.isfinite(record.object_fwhm) else float(np.median(known))
        stamp = moffat_stamp(width, FALLBACK_BETA, size // 2).astype(np.float32)
        found[tag] = Epsf(stamp, 0, "moffat", {"fwhm_pix": width})
    return found
