"""Payload of a patch: everything that its fit needs, cut out of the field."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tract7dt.errors import ProductError
from tract7dt.geometry import cell_boxes, cell_tag
from tract7dt.mapped import read_part
from tract7dt.patches.assignment import Assignment, SourceMap
from tract7dt.patches.roles import BASE
from tract7dt.types import (
    BAD_NONFINITE,
    F8,
    U1,
    Epsf,
    EpsfGrid,
    Field,
    ModelKind,
    Patch,
    PatchPayload,
    Sources,
)

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["SECONDS_PER_COST", "PayloadBuilder", "build_payload", "predicted_cost"]

log = logging.getLogger(__name__)

#: CPU seconds of the native fit per unit of :func:`predicted_cost`, within a factor of two.
SECONDS_PER_COST = 4.5e-4
# A star has two shape parameters to differentiate by, a galaxy five or six.
_STAR_WEIGHT = 0.5
# Number of galaxies at which overlaps double the price of a source.
_OVERLAP = 12.0
# Reading, weighing and tabulating, per pixel and per patch, in units of a galaxy in a band.
_PER_PIXEL = 5e-5
_PER_PATCH = 20.0


class PayloadBuilder:
    """Cuts payloads out of one field; what all patches share is worked out once.

    Parameters
    ----------
    field : Field
    masks : mapping of str to ndarray, uint8 (ny, nx)
        Final mask of each band (memory maps are read by window).
    sources : Sources
    epsf : mapping of str to EpsfGrid
        By band; a band or cell that is absent gets no PSF (``None``).
    settings : Settings
        Sections ``patch_run``, ``patch_inputs``, ``epsf`` and ``moffat_psf``.
    psf_at : callable, optional
        ``(grid, cell tag, x, y) -> Epsf or None``: the PSF at a patch's centre, working-frame pix; without
        it a patch gets the stamp of its cell.

    Raises
    ------
    ProductError
        If a band has no mask, or one of another shape than the frame.
    """

    def __init__(
        self,
        field: Field,
        masks: Mapping[str, U1],
        sources: Sources,
        epsf: Mapping[str, EpsfGrid],
        settings: Settings,
        psf_at: Callable[[EpsfGrid, str, float, float], Epsf | None] | None = None,
    ) -> None:
        wrong = [
            f"{band}: {'none' if band not in masks else masks[band].shape}"
            for band in field.bands
            if band not in masks or masks[band].shape != field.shape
        ]
        if wrong:
            raise ProductError(
                f"expected a final mask of shape {field.shape} for each band; found {'; '.join(wrong)}"
            )
        self._field, self._masks, self._epsf, self._psf_at = field, masks, epsf, psf_at
        self._table = sources.table
        self._skip_empty = settings.patch_inputs.skip_empty_patch
        self._cells = cell_boxes(field.box, settings.epsf.epsf_ngrid)
        self._map = SourceMap.of(sources, field, masks, settings, self._stamp_at)

    def build(self, patch: Patch) -> PatchPayload | None:
        """Payload of ``patch``, or None for a patch without base sources that is to be skipped."""
        assigned = self._map.assign(patch)
        if self._skip_empty and not (assigned.kind == BASE).any():
            return None
        frames = list(self._field.frames.values())
        data = np.stack([frame.window(patch.roi) for frame in frames])
        bad = np.stack([read_part(self._masks[frame.band], patch.roi.slices) for frame in frames])
        bad = bad.astype(np.uint8) | np.where(np.isfinite(data), 0, BAD_NONFINITE).astype(np.uint8)
        return PatchPayload(
            patch=patch,
            bands=self._field.bands,
            data=data,
            bad=bad,
            sky_sigma=np.array([frame.sky_sigma for frame in frames], dtype=float),
            gain=np.array([frame.gain for frame in frames], dtype=float),
            scale=np.array([frame.scale for frame in frames], dtype=float),
            fwhm_pix=np.array([np.nan if f.fwhm_pix is None else f.fwhm_pix for f in frames], dtype=float),
            psfs=tuple(self._psf(frame.band, patch) for frame in frames),
            table=self._rows(patch, assigned),
            paths=tuple(frame.path for frame in frames),
        )

    def _psf(self, band: str, patch: Patch) -> Epsf | None:
        base = patch.base
        return self._epsf_at(band, patch.epsf_tag, (base.x0 + base.x1 - 1) / 2, (base.y0 + base.y1 - 1) / 2)

    def _epsf_at(self, band: str, tag: str, x: float, y: float) -> Epsf | None:
        grid = self._epsf.get(band)
        if grid is None:
            return None
        return grid.cells.get(tag) if self._psf_at is None else self._psf_at(grid, tag, x, y)

    def _stamp_at(self, band: str, x: float, y: float) -> F8 | None:
        """PSF stamp at a position of the working frame."""
        for (row, col), box in self._cells.items():
            if box.contains(np.array([x]), np.array([y]))[0]:
                epsf = self._epsf_at(band, cell_tag(row, col), x, y)
                return None if epsf is None else np.asarray(epsf.stamp, float)
        return None

    def _rows(self, patch: Patch, assigned: Assignment) -> pd.DataFrame:
        """The base catalogue's rows with the columns of this patch behind them."""
        rows = self._table.iloc[assigned.rows].reset_index(drop=True)
        extra = {
            "source_index": assigned.rows.astype(np.int64),
            "x_pix_patch": rows["x_pix_white"].to_numpy(float) - patch.roi.x0,
            "y_pix_patch": rows["y_pix_white"].to_numpy(float) - patch.roi.y0,
            "_is_halo_source": assigned.kind != BASE,
            "halo_kind": assigned.kind.astype(object),
        }
        extra |= {f"_flux_start_{b}": f for b, f in zip(self._field.bands, assigned.flux, strict=True)}
        rows = rows.drop(columns=[name for name in extra if name in rows])
        return pd.concat([rows, pd.DataFrame(extra, index=rows.index)], axis=1)


def build_payload(
    patch: Patch,
    field: Field,
    masks: Mapping[str, U1],
    sources: Sources,
    epsf: Mapping[str, EpsfGrid],
    settings: Settings,
) -> PatchPayload | None:
    """Payload of a single patch; for many patches of a field keep a :class:`PayloadBuilder`.

    Returns
    -------
    PatchPayload or None
        None where ``patch_inputs.skip_empty_patch`` is set and no active source lies in the base box.
        Its table has, besides the columns that :class:`~tract7dt.types.PatchPayload` names, ``halo_kind``
        (see :class:`~tract7dt.patches.assignment.Assignment`) and ``_flux_start_{band}``: the start flux
        of ``outside`` and ``saturated`` rows, scaled counts, NaN for the others.
    """
    return PayloadBuilder(field, masks, sources, epsf, settings).build(patch)


def predicted_cost(payload: PatchPayload) -> float:
    """Relative cost of a patch's fit, for dividing patches into batches of even length.

    The unit is one galaxy in one band. Sources that overlap cost more, so the cost grows faster than
    their number.
    """
    kinds = payload.table["TYPE"].astype(str) if "TYPE" in payload.table else pd.Series([], dtype=object)
    n_stars = sum(ModelKind.of(text, ModelKind.EXP) is ModelKind.STAR for text in kinds)
    n = len(payload.table) - (1 - _STAR_WEIGHT) * n_stars
    n_bands = len(payload.bands)
    return n_bands * n * (1 + n / _OVERLAP) + _PER_PIXEL * payload.data.size + _PER_PATCH
