"""Sources by type on the white stack."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.palette import grey_index
from tract7dt.qa.sky_page import SIDE, Entry, SkyPage, sky_page, sky_subtitle
from tract7dt.qa.stretch import block_mean, display_factor, measure_stretch
from tract7dt.qa.style import DOT_SCALE, SYMBOLS, as_drawn, fading_scale, zoomed_scale
from tract7dt.types import F8, Bool, Box

if TYPE_CHECKING:
    import pandas as pd
    from astropy.wcs import WCS

__all__ = [
    "TYPE_GROUPS",
    "overlay_page",
    "plot_white_overlay",
    "plot_white_zoom",
    "source_groups",
]

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
    page = overlay_page(
        white, table, wcs, frame, gal_model=gal_model, downsample=downsample, title=title, dpi=dpi,
        n_crop_excluded=n_crop_excluded,
    )  # fmt: skip
    page.sheet.save(path, dpi)


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
    page = overlay_page(white, table, wcs, box, gal_model=gal_model, downsample=1, title=title, dpi=dpi)
    page.sheet.save(path, dpi)


def overlay_page(
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
) -> SkyPage:
    """The picture behind both overlays: ``box`` of the white stack with the sources in it."""
    frame = Box(0, white.shape[1], 0, white.shape[0])
    shown = box.expanded(0, frame.expanded(max(frame.shape), Box(-(10**9), 10**9, -(10**9), 10**9)))
    if shown.nx < 1 or shown.ny < 1:
        shown = Box(box.x0, box.x0 + 100, box.y0, box.y0 + 100)
    side = int(SIDE * dpi / 72)
    factor = display_factor(shown.shape, downsample, side)
    image = block_mean(white, factor, shown)
    groups = source_groups(table, frame, shown)
    sky = sky_geometry(wcs, (shown.x0 + shown.x1 - 1) / 2, (shown.y0 + shown.y1 - 1) / 2)
    drawn = ("unknown", "galaxy", "star", "saturated")
    n_drawn = sum(len(groups[name][0]) for name in drawn)
    scale = fading_scale(n_drawn, SIDE**2 * min(shown.shape) / max(shown.shape))
    page = sky_page(
        grey_index(measure_stretch(image).grey(image), 48),
        factor,
        shown,
        title=title,
        subtitle=sky_subtitle(sky, factor, missing=bool(np.isnan(image).any())),
        entries=_legend(groups, gal_model, n_crop_excluded, scale, whole=box == frame),
        sky=sky,
        side=side,
    )
    scale = zoomed_scale(scale, page.per_pixel / page.unit)
    for name in drawn:
        page.symbols(name, SYMBOLS[name], *groups[name], scale)
    if not np.isfinite(image).any():
        inside = box.x1 > 0 and box.y1 > 0 and box.x0 < frame.x1 and box.y0 < frame.y1
        page.note("no finite pixel" if inside else "the box lies outside of the working frame")
    return page


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
) -> list[Entry]:
    n = {name: len(x) for name, (x, _) in groups.items()}
    texts = {
        "star": f"STAR (N={n['star']})",
        "galaxy": f"GAL/EXP/DEV/SERSIC (N={n['galaxy']})",
        "unknown": f"UNKNOWN (N={n['unknown']}) (fallback={gal_model})",
        "saturated": f"excluded: saturation (N={n['saturated']})",
    }
    look = as_drawn(SYMBOLS["star"], scale) if scale < DOT_SCALE else None
    entries = [
        Entry(text, SYMBOLS[name] if look is None else replace(look, color=SYMBOLS[name].color, size=4.0))
        for name, text in texts.items()
    ]
    if whole:
        cropped = n["crop"] if n_crop_excluded is None else n_crop_excluded
        lost = SYMBOLS["not_drawn"]
        entries += [
            Entry(f"not drawn: excluded by crop (N={cropped})", lost),
            Entry(f"not drawn: NaN or out of bounds (N={n['lost']})", lost),
        ]
    return entries
