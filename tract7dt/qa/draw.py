"""The pictures of a run: which are wanted by the settings, from what, and where they go."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from tract7dt.qa.bright import plot_bright_mask
from tract7dt.qa.crop import plot_white_after_crop, plot_white_before_crop
from tract7dt.qa.overlay import plot_white_overlay, plot_white_zoom
from tract7dt.qa.patch import plot_patch_overview
from tract7dt.qa.psf import plot_epsf
from tract7dt.qa.psf_stars import plot_psf_stars
from tract7dt.qa.zp import plot_zp_vs_mag
from tract7dt.types import F4, F8, U1, Box, EpsfGrid, Field, PatchPayload, ZeroPoint

if TYPE_CHECKING:
    import pandas as pd

    from tract7dt.settings import Settings
    from tract7dt.store import WorkDir

__all__ = [
    "draw_bright_mask",
    "draw_crop",
    "draw_epsf_band",
    "draw_overlays",
    "draw_patch",
    "draw_zero_points",
    "overview_table",
]


class PsfCandidate(Protocol):
    """What is drawn of a candidate PSF star."""

    @property
    def x(self) -> float:
        """Working-frame position, pix."""

    @property
    def y(self) -> float:
        """Working-frame position, pix."""

    @property
    def origin(self) -> str:
        """``sep`` or ``gaia``."""

    @property
    def used(self) -> bool:
        """Part of the stack."""

    @property
    def reason(self) -> str:
        """Why not."""


class PsfCell(Protocol):
    """What is drawn of a cell."""

    @property
    def box(self) -> Box:
        """The cell in the working frame."""

    @property
    def candidates(self) -> Sequence[PsfCandidate]:
        """All that were looked at."""


class BandCells(Protocol):
    """The ePSFs of a band and the records of its cells, by cell tag."""

    @property
    def grid(self) -> EpsfGrid:
        """The stamps."""

    @property
    def meta(self) -> Mapping[str, PsfCell]:
        """The records."""


def draw_crop(settings: Settings, work: WorkDir, field: Field) -> None:
    """white_before_crop.png and white_after_crop.png, as ``crop.enabled`` and ``crop.plot_*`` say.

    The first is drawn from the preview of the whole frame that was written with the frames; without a
    preview it is left out.
    """
    crop = settings.crop
    if not crop.enabled:
        return
    dpi, preview = settings.plotting.dpi, work.frames / "white_full_preview.npy"
    if crop.plot_pre_crop and preview.is_file():
        manifest = json.loads(work.field_manifest.read_text(encoding="utf-8"))
        plot_white_before_crop(
            np.load(preview, mmap_mode="r", allow_pickle=False),
            field.crop,
            work.cropped / "white_before_crop.png",
            downsample=crop.display_downsample,
            preview_factor=int(manifest["preview"]["step"]),
            wcs=field.wcs,
            title=f"{work.name}: white stack before the crop",
            dpi=dpi,
        )
    if crop.plot_post_crop:
        plot_white_after_crop(
            field.white,
            work.cropped / "white_after_crop.png",
            downsample=crop.post_crop_display_downsample,
            wcs=field.wcs,
            crop_box=field.crop,
            title=f"{work.name}: white stack of the working frame",
            dpi=dpi,
        )


def draw_overlays(settings: Settings, work: WorkDir, field: Field, table: pd.DataFrame) -> None:
    """white_overlay.png and white_overlay_zoom.png, as ``overlay.*`` says."""
    overlay = settings.overlay
    if not overlay.enabled:
        return
    gal_model, dpi = str(settings.patch_run.gal_model), settings.plotting.dpi
    plot_white_overlay(
        field.white,
        table,
        field.wcs,
        work.overlay / "white_overlay.png",
        gal_model=gal_model,
        downsample=overlay.downsample_full,
        title=f"{work.name}: sources by type",
        dpi=dpi,
    )
    if overlay.zoom_enabled:
        plot_white_zoom(
            field.white,
            table,
            field.wcs,
            work.overlay / "white_overlay_zoom.png",
            zoom_box=tuple(overlay.zoom_box),
            gal_model=gal_model,
            title=f"{work.name}: sources by type, zoom",
            dpi=dpi,
        )


def draw_bright_mask(
    settings: Settings,
    work: WorkDir,
    field: Field,
    mask: U1,
    detections: pd.DataFrame,
    sources: pd.DataFrame,
) -> None:
    """white_bright_mask_overlay.png; arguments as in :func:`tract7dt.qa.bright.plot_bright_mask`."""
    plot_bright_mask(
        field.white,
        mask,
        detections,
        sources,
        work.bright_mask_overlay,
        wcs=field.wcs,
        downsample=settings.overlay.downsample_full,
        title=f"{work.name}: bright sources and their mask",
        dpi=settings.plotting.dpi,
    )


def draw_epsf_band(settings: Settings, work: WorkDir, field: Field, built: BandCells) -> None:
    """epsf.png and psfstars.png of every cell of a band; an epsf.png without an ePSF is removed."""
    band = built.grid.band
    for tag, cell in built.meta.items():
        folder = work.epsf_cell(band, tag)
        epsf = built.grid.cells.get(tag)
        if epsf is None:
            (folder / "epsf.png").unlink(missing_ok=True)
        else:
            plot_epsf(epsf, {"band": band, "cell": tag}, folder / "epsf.png", dpi=settings.plotting.dpi)
        plot_psf_stars(
            field.frames[band].window(cell.box),
            cell.box,
            [
                {"x": c.x, "y": c.y, "origin": c.origin, "used": c.used, "reason": c.reason}
                for c in cell.candidates
            ],
            folder / "psfstars.png",
            band=band,
            cell=tag,
            wcs=field.wcs,
            dpi=settings.plotting.dpi,
        )


def draw_patch(
    settings: Settings,
    work: WorkDir,
    payload: PatchPayload,
    weight: F4,
    model: F4,
    fitted: pd.DataFrame,
) -> None:
    """patch_overview.png.

    Parameters
    ----------
    settings : Settings
    work : WorkDir
    payload : PatchPayload
    weight, model : ndarray (nband, ny, nx)
        Weights of the fit, model with sky.
    fitted : DataFrame
        The per-patch catalogue: ``source_index`` and the fitted columns, base sources only.
    """
    wcs = WCS(fits.getheader(work.wcs)) if work.wcs.is_file() else None
    plot_patch_overview(
        payload.data,
        model,
        weight,
        payload.bands,
        overview_table(payload.table, fitted, payload.bands),
        payload.patch,
        work.patch_dir(payload.patch.tag) / "patch_overview.png",
        wcs=wcs,
        dpi=settings.plotting.dpi,
    )


def overview_table(table: pd.DataFrame, fitted: pd.DataFrame, bands: Sequence[str]) -> pd.DataFrame:
    """Sources of a payload with their fitted positions, for :func:`tract7dt.qa.patch.plot_patch_overview`.

    A fit of single bands has a position per band: their median is taken. Halo sources have no fitted
    position in the catalogue (NaN). ``stype`` is the fitted type, TYPE where there is none.
    """
    shown = table[["source_index", "x_pix_patch", "y_pix_patch", "_is_halo_source"]].reset_index(drop=True)
    by_source = fitted.set_index("source_index").reindex(shown["source_index"])
    for axis in ("x", "y"):
        shown[f"{axis}_pix_patch_fit"] = _position(by_source, axis, bands)
    given = table["TYPE"].to_numpy(object) if "TYPE" in table else np.full(len(table), "", dtype=object)
    found = by_source["stype_fit"].to_numpy(object)
    shown["stype"] = [f if isinstance(f, str) and f else g for f, g in zip(found, given, strict=True)]
    return shown


def _position(fitted: pd.DataFrame, axis: str, bands: Sequence[str]) -> F8:
    names = [f"{axis}_pix_patch_fit", *(f"{axis}_pix_patch_{band}_fit" for band in bands)]
    values = fitted[[name for name in names if name in fitted]].to_numpy(float)
    out = np.full(len(fitted), np.nan)
    some = np.isfinite(values).any(axis=1)
    if some.any():
        out[some] = np.nanmedian(values[some], axis=1)
    return out


def draw_zero_points(
    settings: Settings, work: WorkDir, zero_points: Iterable[ZeroPoint], stars: pd.DataFrame
) -> None:
    """zp_vs_mag__{band}.png and zp_vs_mag__{band}_fullrange.png of every band.

    Parameters
    ----------
    settings : Settings
    work : WorkDir
    zero_points : iterable of ZeroPoint
    stars : DataFrame
        As in :func:`tract7dt.qa.zp.plot_zp_vs_mag`, all bands.
    """
    for zp in zero_points:
        for suffix, full_range in (("", False), ("_fullrange", True)):
            path = work.zp / f"zp_vs_mag__{zp.band}{suffix}.png"
            plot_zp_vs_mag(stars, zp, settings.zp, path, full_range=full_range, dpi=settings.plotting.dpi)
