"""Sources by type on the white stack."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from tract7dt.qa.compass import SkyGeometry, sky_geometry
from tract7dt.qa.figure import Panel, note, save_figure, sky_sheet
from tract7dt.qa.stretch import block_mean, display_factor, grey, measure_stretch
from tract7dt.qa.style import SYMBOLS, draw_symbols, fading_scale, legend_handle, zoomed_scale
from tract7dt.types import F8, Bool, Box

if TYPE_CHECKING:
    import pandas as pd
    from astropy.wcs import WCS

__all__ = [
    "TYPE_GROUPS",
    "extent_of",
    "overlay_figure",
    "plot_white_overlay",
    "plot_white_zoom",
    "sky_subtitle",
    "source_groups",
]

#: Longer side of a single sky image, points.
SIDE = 460.0

#: TYPE values (upper case) of the named groups; every other value is unknown.
TYPE_GROUPS = {"star": ("STAR",), "galaxy": ("GAL", "EXP", "DEV", "SERSIC")}


def plot_white_overlay(
    white: NDArray[np.floating],
    table: pd.DataFrame,
    wcs: WCS | None,
    path: str | os.PathLike[str],
    *,
    gal_model: str,
    downsample: int = 4,
    title: str = "Sources by type on the white stack",
    dpi: int = 300,
    n_crop_excluded: int | None = None,
) -> None:
    """Draw the catalogue on the white stack and write white_overlay.png.

    Parameters
    ----------
    white : ndarray (ny, nx)
        White stack of the working frame; may be a memory map.
    table : DataFrame
        Columns of :class:`tract7dt.types.Sources`; TYPE and the exclusion columns may be absent.
    wcs : WCS or None
        Of the working frame; None: no compass and scale bar.
    path : path
    gal_model : str
        Model that stands in for an unknown type.
    downsample : int
        Block size of the displayed image (``overlay.downsample_full``).
    title : str
    dpi : int
    n_crop_excluded : int, optional
        For the legend; default: counted in ``table``.
    """
    frame = Box(0, white.shape[1], 0, white.shape[0])
    save_figure(
        overlay_figure(
            white, table, wcs, frame, gal_model=gal_model, downsample=downsample, title=title, dpi=dpi,
            n_crop_excluded=n_crop_excluded,
        ),
        path,
    )  # fmt: skip


def plot_white_zoom(
    white: NDArray[np.floating],
    table: pd.DataFrame,
    wcs: WCS | None,
    path: str | os.PathLike[str],
    *,
    zoom_box: Box | Sequence[int],
    gal_model: str,
    title: str = "Zoom on the white stack",
    dpi: int = 300,
) -> None:
    """Draw one region (``overlay.zoom_box``: x0, x1, y0, y1) and write white_overlay_zoom.png.

    What lies outside of the working frame is left blank. Other parameters as in :func:`plot_white_overlay`.
    """
    box = zoom_box if isinstance(zoom_box, Box) else Box(*(int(v) for v in zoom_box))
    figure = overlay_figure(white, table, wcs, box, gal_model=gal_model, downsample=1, title=title, dpi=dpi)
    save_figure(figure, path)


def overlay_figure(
    white: NDArray[np.floating],
    table: pd.DataFrame,
    wcs: WCS | None,
    box: Box,
    *,
    gal_model: str,
    downsample: int,
    title: str,
    dpi: int,
    n_crop_excluded: int | None = None,
) -> Figure:
    """The figure behind both overlays: ``box`` of the white stack with the sources in it."""
    frame = Box(0, white.shape[1], 0, white.shape[0])
    shown = box.expanded(0, frame.expanded(max(frame.shape), Box(-(10**9), 10**9, -(10**9), 10**9)))
    if shown.nx < 1 or shown.ny < 1:
        shown = Box(box.x0, box.x0 + 100, box.y0, box.y0 + 100)
    factor = display_factor(shown.shape, downsample, int(SIDE * dpi / 72))
    image = block_mean(white, factor, shown)
    groups = source_groups(table, frame, shown)
    sky = sky_geometry(wcs, (shown.x0 + shown.x1 - 1) / 2, (shown.y0 + shown.y1 - 1) / 2)
    drawn = ("unknown", "galaxy", "star", "saturated")
    n_drawn = sum(len(groups[name][0]) for name in drawn)
    scale = fading_scale(n_drawn, SIDE**2 * min(shown.shape) / max(shown.shape))
    sheet = sky_sheet(
        [Panel(grey(image, measure_stretch(image)), extent_of(image.shape, factor, shown))],
        title=title,
        subtitle=sky_subtitle(sky, factor, missing=bool(np.isnan(image).any())),
        handles=_legend(groups, gal_model, n_crop_excluded, scale, whole=box == frame),
        sky=sky,
        dpi=dpi,
        side=SIDE,
    )
    ax = sheet.panels[0]
    scale = zoomed_scale(scale, sheet.pixel_pt)
    for name in drawn:
        draw_symbols(ax, SYMBOLS[name], *groups[name], scale=scale)
    if not np.isfinite(image).any():
        inside = box.x1 > 0 and box.y1 > 0 and box.x0 < frame.x1 and box.y0 < frame.y1
        note(ax, "no finite pixel" if inside else "the box lies outside of the working frame", on_dark=True)
    ax.set(xlim=(shown.x0 - 0.5, shown.x1 - 0.5), ylim=(shown.y0 - 0.5, shown.y1 - 0.5))
    return sheet.figure


def extent_of(shape: tuple[int, ...], factor: int, box: Box) -> tuple[float, float, float, float]:
    """Extent of a block-averaged image of ``box`` (its last blocks may reach beyond the box)."""
    return box.x0 - 0.5, box.x0 - 0.5 + shape[1] * factor, box.y0 - 0.5, box.y0 - 0.5 + shape[0] * factor


def sky_subtitle(sky: SkyGeometry | None, factor: int, *, missing: bool = False) -> str:
    """Where the image is on the sky and how it is shown."""
    parts = []
    if sky is not None:
        parts += [f"centre {sky.centre}", f"{sky.pixel_scale_arcsec:.3g}″/pix"]
    parts.append("asinh stretch" if factor == 1 else f"asinh stretch, mean of {factor} × {factor} pix")
    if missing:
        parts.append("blue: no data")
    return "   ·   ".join(parts)


def source_groups(table: pd.DataFrame, frame: Box, shown: Box) -> dict[str, tuple[F8, F8]]:
    """Positions by what is drawn: star, galaxy, unknown, saturated; and, not drawn, crop and lost.

    The drawn groups hold the sources in ``shown``; ``crop`` and ``lost`` (no position, or off the frame
    without being flagged) those of the whole table.
    """
    x, y = table["x_pix_white"].to_numpy(float), table["y_pix_white"].to_numpy(float)
    n = len(table)
    kind = np.full(n, "")
    if "TYPE" in table:
        kind = table["TYPE"].fillna("").astype(str).str.strip().str.upper().to_numpy(str)
    saturated, crop = _flag(table, "excluded_saturation"), _flag(table, "excluded_crop")
    positioned = np.isfinite(x) & np.isfinite(y)
    crop &= positioned
    lost = ~crop & ~frame.contains(x, y)
    placed = ~crop & ~lost & shown.contains(x, y)
    star, galaxy = np.isin(kind, TYPE_GROUPS["star"]), np.isin(kind, TYPE_GROUPS["galaxy"])
    picks = {
        "star": placed & ~saturated & star,
        "galaxy": placed & ~saturated & galaxy,
        "unknown": placed & ~saturated & ~star & ~galaxy,
        "saturated": placed & saturated,
        "crop": crop,
        "lost": lost,
    }
    return {name: (x[pick], y[pick]) for name, pick in picks.items()}


def _flag(table: pd.DataFrame, column: str) -> Bool:
    if column not in table:
        return np.zeros(len(table), dtype=bool)
    return table[column].to_numpy(bool).copy()


def _legend(
    groups: dict[str, tuple[F8, F8]],
    gal_model: str,
    n_crop_excluded: int | None,
    scale: float,
    *,
    whole: bool,
) -> list[Line2D]:
    n = {name: len(x) for name, (x, _) in groups.items()}
    texts = {
        "star": f"STAR (N={n['star']})",
        "galaxy": f"GAL/EXP/DEV/SERSIC (N={n['galaxy']})",
        "unknown": f"UNKNOWN (N={n['unknown']}) (fallback={gal_model})",
        "saturated": f"excluded: saturation (N={n['saturated']})",
    }
    handles = [legend_handle(SYMBOLS[name], text, scale=scale) for name, text in texts.items()]
    if whole:
        cropped = n["crop"] if n_crop_excluded is None else n_crop_excluded
        handles += [
            legend_handle(SYMBOLS["not_drawn"], f"not drawn: excluded by crop (N={cropped})"),
            legend_handle(SYMBOLS["not_drawn"], f"not drawn: NaN or out of bounds (N={n['lost']})"),
        ]
    return handles
