"""The pictures of a run: which are wanted by the settings, from what, and where they go."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from tract7dt.qa.bright import plot_bright_mask
from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.crop import plot_white_after_crop, plot_white_before_crop
from tract7dt.qa.cutouts import CutoutSheet, cutout_sheets
from tract7dt.qa.gaia import plot_gaia_augmentation
from tract7dt.qa.overlay import plot_white_overlay, plot_white_zoom
from tract7dt.qa.patch import plot_patch_overview
from tract7dt.qa.psf import plot_epsf
from tract7dt.qa.psf_background import background_map
from tract7dt.qa.psf_cell import draw_cell_diagnostics
from tract7dt.qa.psf_stars import plot_psf_stars
from tract7dt.qa.sky_page import SIDE
from tract7dt.qa.stretch import display_factor
from tract7dt.qa.zp import plot_zp_vs_mag
from tract7dt.types import F4, F8, U1, Box, EpsfGrid, Field, PatchPayload, PsfDiagnosis, ZeroPoint

if TYPE_CHECKING:
    from tract7dt.settings import Settings
    from tract7dt.store import WorkDir

__all__ = [
    "draw_bright_mask",
    "draw_crop",
    "draw_cutouts",
    "draw_epsf_band",
    "draw_gaia",
    "draw_overlays",
    "draw_patch",
    "draw_zero_points",
    "overview_table",
    "useful_dpi",
    "working_wcs",
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

    @property
    def diagnosis(self) -> PsfDiagnosis | None:
        """Background and stars, where they are to be drawn."""


class BandCells(Protocol):
    """The ePSFs of a band and the records of its cells, by cell tag."""

    @property
    def grid(self) -> EpsfGrid:
        """The stamps."""

    @property
    def meta(self) -> Mapping[str, PsfCell]:
        """The records."""


#: Two pictures a band: beyond this resolution they only take longer.
_BAND_DPI = 150
_POINTS = 72.0
#: Longer side of psfstars.png, pixels; that without background is for comparison, and half as large.
_STARS = 920


def useful_dpi(wanted: int, shape: tuple[int, int], downsample: int = 1) -> int:
    """Resolution at which an image is drawn: no finer than its own pixels, and at least 150 if so wanted.

    A picture of a small frame at 300 dots per inch would show every pixel as a square, and take four times
    as long as one at 150.
    """
    pixels = max(shape) / display_factor(shape, downsample, max(shape))
    return min(wanted, max(_BAND_DPI, round(pixels * _POINTS / SIDE)))


def draw_crop(settings: Settings, work: WorkDir, field: Field) -> None:
    """white_before_crop.png and white_after_crop.png, as ``crop.enabled`` and ``crop.plot_*`` say.

    The first is drawn from the preview of the whole frame that was written with the frames; without a
    preview it is left out.
    """
    crop = settings.crop
    if not crop.enabled:
        return
    preview = work.frames / "white_full_preview.npy"
    dpi = useful_dpi(settings.plotting.dpi, field.white.shape, crop.post_crop_display_downsample)
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
    gal_model = str(settings.patch_run.gal_model)
    dpi = useful_dpi(settings.plotting.dpi, field.white.shape, overlay.downsample_full)
    x0, x1, y0, y1 = overlay.zoom_box
    zoom_dpi = useful_dpi(settings.plotting.dpi, (max(y1 - y0, 1), max(x1 - x0, 1)))
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
            dpi=zoom_dpi,
        )


def draw_gaia(
    settings: Settings, work: WorkDir, field: Field, table: pd.DataFrame, n_input: int, box: Box | None
) -> None:
    """gaia_augmentation_overlay.png; arguments as in :func:`tract7dt.qa.gaia.plot_gaia_augmentation`."""
    plot_gaia_augmentation(
        field.white,
        table,
        n_input,
        work.gaia_overlay,
        wcs=field.wcs,
        box=box,
        downsample=settings.overlay.downsample_full,
        title=f"{work.name}: match with Gaia",
        dpi=useful_dpi(settings.plotting.dpi, field.white.shape, settings.overlay.downsample_full),
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
        dpi=useful_dpi(settings.plotting.dpi, field.white.shape, settings.overlay.downsample_full),
    )


def draw_epsf_band(settings: Settings, work: WorkDir, field: Field, built: BandCells) -> None:
    """The pictures of every cell of a band, as ``epsf.*`` wants them; those without an ePSF are removed."""
    band, epsf, dpi = built.grid.band, settings.epsf, settings.plotting.dpi
    for tag, cell in built.meta.items():
        folder = work.epsf_cell(band, tag)
        stamp = built.grid.cells.get(tag)
        if stamp is None:
            (folder / "epsf.png").unlink(missing_ok=True)
        else:
            plot_epsf(stamp, {"band": band, "cell": tag}, folder / "epsf.png", dpi=dpi)
        window, found = field.frames[band].window(cell.box), cell.diagnosis
        _draw_psf_stars(settings, folder, window, cell, band, tag, field.wcs)
        box = cell.box
        sky = sky_geometry(field.wcs, (box.x0 + box.x1 - 1) / 2, (box.y0 + box.y1 - 1) / 2)
        draw_cell_diagnostics(epsf, folder, window, box, stamp, found, band=band, cell=tag, dpi=dpi, sky=sky)


def _draw_psf_stars(
    settings: Settings, folder: Path, window: F4, cell: PsfCell, band: str, tag: str, wcs: WCS | None
) -> None:
    """psfstars.png and, with the background map subtracted, psfstars_bgsub.png."""
    candidates = [
        {"x": c.x, "y": c.y, "origin": c.origin, "used": c.used, "reason": c.reason} for c in cell.candidates
    ]
    images: dict[str, F4 | None] = {"psfstars.png": window, "psfstars_bgsub.png": None}
    wanted = settings.epsf.save_patch_background_diagnostics and settings.epsf.background_subtract_patch
    if wanted and cell.diagnosis is not None:
        images["psfstars_bgsub.png"] = window - background_map(cell.diagnosis, window.shape, 1)
    for name, image in images.items():
        if image is None:
            (folder / name).unlink(missing_ok=True)
            continue
        first = name == "psfstars.png"
        plot_psf_stars(
            image, cell.box, candidates, folder / name, band=band if first else f"{band}, background subtracted",
            cell=tag, wcs=wcs, dpi=settings.plotting.dpi, most=_STARS if first else _STARS // 2,
        )  # fmt: skip


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
        ``source_index`` and the fitted columns of the sources that have them.
    """
    plot_patch_overview(
        payload.data,
        model,
        weight,
        payload.bands,
        overview_table(payload.table, fitted, payload.bands),
        payload.patch,
        work.patch_dir(payload.patch.tag) / "patch_overview.png",
        wcs=working_wcs(work.wcs),
        dpi=settings.plotting.dpi,
    )


def draw_cutouts(
    settings: Settings,
    work: WorkDir,
    payload: PatchPayload,
    weight: F4,
    model: F4,
    fitted: pd.DataFrame,
) -> None:
    """cutouts/src_{ID}.png and src_halo_{ID}.png of a patch, arguments as for :func:`draw_patch`.

    Of all its sources, those of the base first, ``patch_run.cutout_start`` and ``cutout_max_sources`` choose.
    Cutouts of an earlier fit are removed.
    """
    run, tag, table = settings.patch_run, payload.patch.tag, payload.table
    halo = table["_is_halo_source"].to_numpy(bool)
    end = None if run.cutout_max_sources is None else run.cutout_start + run.cutout_max_sources
    numbers = np.argsort(halo, kind="stable")[run.cutout_start : end].tolist()
    names = source_names(table)
    paths = [work.cutout(tag, names[i], halo=bool(halo[i])) for i in numbers]
    drop_others(work.cutouts(tag), paths)
    if not numbers:
        return
    shown = overview_table(table, fitted, payload.bands)
    mine = fitted.set_index("source_index").reindex(table["source_index"]).reset_index(drop=True)
    shown = pd.concat(
        [shown, mine[[name for name in mine if name not in shown and name != "stype_fit"]]], axis=1
    )
    roi = payload.patch.roi
    sky = sky_geometry(working_wcs(work.wcs), (roi.x0 + roi.x1 - 1) / 2, (roi.y0 + roi.y1 - 1) / 2)
    shared = CutoutSheet(payload.data, model, weight, payload.sky_sigma, payload.bands, shown, run, sky)
    every = _cutout_titles(table, shown, names, tag)
    titles = [every[i] for i in numbers]
    cutout_sheets(shared, titles, paths, numbers)


def source_names(table: pd.DataFrame) -> list[str]:
    """How the sources of a table are called in file names: their ID, without one the row of the catalogue."""
    rows = [str(row) for row in table["source_index"]]
    if "ID" not in table:
        return rows
    return [
        text if isinstance(text, str) and text else row for text, row in zip(table["ID"], rows, strict=True)
    ]


def _cutout_titles(
    table: pd.DataFrame, shown: pd.DataFrame, names: Sequence[str], tag: str
) -> list[tuple[str, str]]:
    """Title and subtitle of every source; by columns, as a row of a table takes a millisecond."""
    n = len(table)
    places = [""] * n
    if "RA" in table and "DEC" in table:
        sky = zip(table["RA"].tolist(), table["DEC"].tolist(), strict=True)
        places = [f"RA {ra:.5f}°, DEC {dec:+.5f}°" for ra, dec in sky]
    kinds = [str(kind or "unknown type").lower() for kind in shown["stype"].tolist()]
    halo = [", halo source" if is_halo else "" for is_halo in table["_is_halo_source"].tolist()]
    x, y = table["x_pix_white"].tolist(), table["y_pix_white"].tolist()
    return [
        (
            f"{names[i]}   {kinds[i]}{halo[i]}",
            f"{places[i]}   x {x[i]:.1f}, y {y[i]:.1f} pix   patch {tag}   flux in counts",
        )
        for i in range(n)
    ]


def drop_others(folder: Path, keep: Sequence[Path]) -> None:
    """Remove the pictures of ``folder`` that are not to be there any more."""
    if folder.is_dir():
        current = {path.name for path in keep}
        for path in folder.glob("src_*.png"):
            if path.name not in current:
                path.unlink()


def working_wcs(path: Path) -> WCS | None:
    """WCS of the working frame as it was written; None if there is no such file."""
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    return _read_wcs(str(path), changed)


@functools.lru_cache(maxsize=4)
def _read_wcs(path: str, changed: int) -> WCS:
    """The WCS of a header, read once as long as the file is the same; it has no pixels behind it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(fits.getheader(path))


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
    dpi = min(settings.plotting.dpi, _BAND_DPI)
    for zp in zero_points:
        for suffix, full_range in (("", False), ("_fullrange", True)):
            path = work.zp / f"zp_vs_mag__{zp.band}{suffix}.png"
            plot_zp_vs_mag(stars, zp, settings.zp, path, full_range=full_range, dpi=dpi)
