"""The bright-source mask: detections, what they match, and what the mask covers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch as Swatch
from numpy.typing import NDArray

from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.figure import Panel, note, save_figure, sky_sheet
from tract7dt.qa.overlay import SIDE, extent_of, sky_subtitle
from tract7dt.qa.stretch import block_any, block_mean, display_factor, grey, measure_stretch
from tract7dt.qa.style import SYMBOLS, draw_symbols, fading_scale, legend_handle, zoomed_scale
from tract7dt.types import F8, U1, Bool, Box

if TYPE_CHECKING:
    import pandas as pd
    from astropy.wcs import WCS

__all__ = ["bright_mask_figure", "bright_mask_groups", "plot_bright_mask"]

#: Bits of white_bright_mask.fits and how they are tinted.
_BRIGHT, _SATURATED = 1, 2
_TINT = {_BRIGHT: "#ff7a00", _SATURATED: "#8f6bff"}
_TINT_STRENGTH = 0.38


def plot_bright_mask(
    white: NDArray[np.floating],
    mask: U1,
    detections: pd.DataFrame,
    sources: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    wcs: WCS | None = None,
    downsample: int = 4,
    title: str = "Bright sources on the white stack",
    dpi: int = 300,
) -> None:
    """Draw detections, catalogue and mask on the white stack; write white_bright_mask_overlay.png.

    Parameters
    ----------
    white : ndarray (ny, nx)
    mask : ndarray, uint8 (ny, nx)
        Bit 1: masked around unmatched detections; bit 2: saturated in any band.
    detections : DataFrame
        ``x``, ``y`` (pix), ``matched`` (bool), ``source_index`` (row of ``sources``, where matched).
    sources : DataFrame
        ``x_pix_white``, ``y_pix_white``, ``affected_by_bright_mask``.
    path : path
    wcs, downsample, title, dpi
        As in :func:`tract7dt.qa.overlay.plot_white_overlay`.
    """
    figure = bright_mask_figure(
        white, mask, detections, sources, wcs=wcs, downsample=downsample, title=title, dpi=dpi
    )
    save_figure(figure, path)


def bright_mask_figure(
    white: NDArray[np.floating],
    mask: U1,
    detections: pd.DataFrame,
    sources: pd.DataFrame,
    *,
    wcs: WCS | None,
    downsample: int,
    title: str,
    dpi: int,
) -> Figure:
    """The figure behind :func:`plot_bright_mask`."""
    frame = Box(0, white.shape[1], 0, white.shape[0])
    factor = display_factor(white.shape, downsample, int(SIDE * dpi / 72))
    image = block_mean(white, factor)
    rgba = grey(image, measure_stretch(image))
    for bit, color in _TINT.items():
        _tint(rgba, block_any(mask, bit, factor), color)
    groups = bright_mask_groups(detections, sources)
    sky = sky_geometry(wcs, (frame.nx - 1) / 2, (frame.ny - 1) / 2)
    sheet = sky_sheet(
        [Panel(rgba, extent_of(image.shape, factor, frame))],
        title=title,
        subtitle=sky_subtitle(sky, factor, missing=bool(np.isnan(image).any())),
        handles=_legend(groups, mask),
        sky=sky,
        dpi=dpi,
        side=SIDE,
    )
    ax = sheet.panels[0]
    scale = fading_scale(sum(len(x) for x, _ in groups.values()), sheet.area_pt2)
    scale = zoomed_scale(scale, sheet.pixel_pt)
    for name, (x, y) in groups.items():
        draw_symbols(ax, SYMBOLS[name], x, y, scale=scale)
    ax.set(xlim=(-0.5, frame.x1 - 0.5), ylim=(-0.5, frame.y1 - 0.5))
    if not np.isfinite(image).any():
        note(ax, "no finite pixel", on_dark=True)
    return sheet.figure


def bright_mask_groups(detections: pd.DataFrame, sources: pd.DataFrame) -> dict[str, tuple[F8, F8]]:
    """Positions by meaning, in drawing order: matched_source, matched, affected, unmatched."""
    dx, dy = detections["x"].to_numpy(float), detections["y"].to_numpy(float)
    matched: Bool = detections["matched"].to_numpy(bool)
    sx, sy = sources["x_pix_white"].to_numpy(float), sources["y_pix_white"].to_numpy(float)
    partner = np.unique(detections["source_index"].to_numpy()[matched].astype(np.int64))
    is_partner = np.zeros(len(sources), dtype=bool)
    is_partner[partner[(partner >= 0) & (partner < len(sources))]] = True
    affected = np.zeros(len(sources), dtype=bool)
    if "affected_by_bright_mask" in sources:
        affected = sources["affected_by_bright_mask"].to_numpy(bool)
    affected = affected & ~is_partner & np.isfinite(sx) & np.isfinite(sy)
    return {
        "matched_source": (sx[is_partner], sy[is_partner]),
        "matched": (dx[matched], dy[matched]),
        "affected": (sx[affected], sy[affected]),
        "unmatched": (dx[~matched], dy[~matched]),
    }


def _tint(rgba: NDArray[np.uint8], where: Bool, color: str) -> None:
    mixed = (1 - _TINT_STRENGTH) * rgba[where] + _TINT_STRENGTH * 255 * np.array(to_rgba(color))
    rgba[where] = np.round(mixed).astype(np.uint8)


def _legend(groups: dict[str, tuple[F8, F8]], mask: U1) -> list[Line2D | Swatch]:
    texts = {
        "matched": "detection, in the catalogue",
        "unmatched": "detection, not in the catalogue",
        "matched_source": "catalogue source, detected",
        "affected": "catalogue source under the mask",
    }
    handles: list[Line2D | Swatch] = [
        legend_handle(SYMBOLS[name], f"{text} (N={len(groups[name][0])})") for name, text in texts.items()
    ]
    for bit, text in ((_BRIGHT, "masked as bright"), (_SATURATED, "saturated in any band")):
        share = _share(mask, bit)
        handles.append(Swatch(color=_TINT[bit], alpha=0.75, label=f"{text} ({share} of the pixels)"))
    return handles


def _share(mask: U1, bit: int) -> str:
    """Share of the pixels with ``bit``, read by strips of rows."""
    rows = max(1, 4_000_000 // max(1, mask.shape[1]))
    count = sum(
        int(np.count_nonzero(np.asarray(mask[r : r + rows]) & bit)) for r in range(0, mask.shape[0], rows)
    )
    percent = 100.0 * count / max(mask.size, 1)
    return "0 %" if count == 0 else f"{percent:.2g} %" if percent >= 0.01 else "<0.01 %"
