"""One fitted patch at a glance: data, model and what is left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.figure import Panel, SkySheet, axes_at, dress, note, save_figure, sky_sheet
from tract7dt.qa.overlay import extent_of, sky_subtitle
from tract7dt.qa.stretch import Stretch, block_mean, display_factor, grey, measure_stretch
from tract7dt.qa.style import (
    CONTRAST,
    INK,
    SIGNED,
    SYMBOLS,
    draw_symbols,
    fading_scale,
    legend_handle,
    order_bands,
)
from tract7dt.types import F4, F8, Bool, Box, Patch

if TYPE_CHECKING:
    import pandas as pd
    from astropy.wcs import WCS

__all__ = ["patch_figure", "plot_patch_overview", "weighted_stacks"]

_SIDE = 172.0
_SIGMAS = 5.0
_STAR, _HALO = "star", "halo"


def plot_patch_overview(
    data: F4,
    model: F4,
    weight: F4,
    bands: Sequence[str],
    table: pd.DataFrame,
    patch: Patch,
    path: str | os.PathLike[str],
    *,
    wcs: WCS | None = None,
    dpi: int = 300,
) -> None:
    """Draw the weighted stack of data, model and residual of a patch and write patch_overview.png.

    Parameters
    ----------
    data, model, weight : ndarray (nband, ny, nx)
        Scaled counts, model with sky, 1 / sigma**2 (0: masked), of the patch's roi.
    bands : sequence of str
    table : DataFrame
        One row a source: ``x_pix_patch``, ``y_pix_patch`` (start, pix in the roi), ``x_pix_patch_fit``,
        ``y_pix_patch_fit`` (NaN or absent: not fitted), ``_is_halo_source``, ``stype``.
    patch : Patch
    path : path
    wcs : WCS, optional
        Of the working frame, for compass and scale bar.
    dpi : int
    """
    save_figure(patch_figure(data, model, weight, bands, table, patch, wcs=wcs, dpi=dpi), path)


def patch_figure(
    data: F4,
    model: F4,
    weight: F4,
    bands: Sequence[str],
    table: pd.DataFrame,
    patch: Patch,
    *,
    wcs: WCS | None,
    dpi: int,
) -> Figure:
    """The figure behind :func:`plot_patch_overview`."""
    seen, fitted, residual = weighted_stacks(data, model, weight)
    roi = patch.roi
    factor = display_factor(seen.shape, 1, int(_SIDE * dpi / 72))
    seen, fitted = block_mean(seen, factor), block_mean(fitted, factor)
    # The mean of n independent pixels in sigma has a width of 1/sqrt(n): scaled back, 1 stays one sigma.
    residual = block_mean(residual, factor) * np.float32(factor)
    stretch = measure_stretch(seen)
    extent = extent_of(seen.shape, factor, roi)
    sky = sky_geometry(wcs, (roi.x0 + roi.x1 - 1) / 2, (roi.y0 + roi.y1 - 1) / 2)
    order = order_bands(bands)
    names = order[0] if len(order) == 1 else f"{order[0]} … {order[-1]}" if order else "none"
    halo = table["_is_halo_source"].to_numpy(bool)
    subtitle = [
        f"{len(bands)} bands: {names}",
        f"{int((~halo).sum())} sources, {int(halo.sum())} in the halo",
    ]
    spread = _spread(residual)
    if np.isfinite(spread):
        subtitle.append(f"residual scatter {spread:.2f} σ")
    subtitle.append(sky_subtitle(sky, factor, missing=bool(np.isnan(seen).any())))
    panels = [
        Panel(grey(seen, stretch), extent, "data, weighted stack"),
        Panel(grey(fitted, Stretch(stretch.sky, stretch.sigma, stretch.peak)), extent, "model"),
        Panel(_signed(residual), extent, "(data − model) / σ"),
    ]
    sheet = sky_sheet(
        panels, title=f"Patch {patch.tag}", subtitle="   ·   ".join(subtitle), handles=_legend(table),
        sky=sky, dpi=dpi, side=_SIDE, extra_right=34.0,
    )  # fmt: skip
    _color_bar(sheet)
    for ax in sheet.panels:
        _outline(ax, patch.base)
        ax.set(xlim=(roi.x0 - 0.5, roi.x1 - 0.5), ylim=(roi.y0 - 0.5, roi.y1 - 0.5))
    _draw_sources(sheet, table, roi)
    if not np.isfinite(seen).any():
        note(sheet.panels[0], "every pixel is masked", on_dark=True)
    return sheet.figure


def weighted_stacks(data: F4, model: F4, weight: F4) -> tuple[F4, F4, F4]:
    """Weighted mean of data and of model over the bands, and their difference in sigma.

    With w = 1/sigma**2: mean = sum(w d) / sum(w), and (mean_d - mean_m) sqrt(sum(w)) has unit variance
    where the model is right. NaN where no band has weight.

    Returns
    -------
    data, model, residual : ndarray, float32 (ny, nx)
    """
    good = (weight > 0) & np.isfinite(data) & np.isfinite(model)
    w = np.where(good, weight, np.float32(0))
    total = w.sum(axis=0)
    some = total > 0
    means = []
    for cube in (data, model):
        summed = np.where(good, cube, np.float32(0)) * w
        blank = np.full(total.shape, np.nan, dtype=np.float32)
        means.append(np.divide(summed.sum(axis=0), total, out=blank, where=some))
    residual = ((means[0] - means[1]) * np.sqrt(total)).astype(np.float32)
    return means[0], means[1], residual


def _spread(residual: F4) -> float:
    """Robust standard deviation of the residual."""
    good = residual[np.isfinite(residual)]
    return float(1.4826 * np.median(np.abs(good - np.median(good)))) if good.size else float("nan")


def _signed(residual: F4) -> np.ndarray:
    # Quarters of a sigma: few colours, so that the picture compresses.
    level = np.clip(np.round(residual * 4) / 4, -_SIGMAS, _SIGMAS)
    rgba = SIGNED(np.ma.masked_invalid(Normalize(-_SIGMAS, _SIGMAS)(level)), bytes=True)
    return np.asarray(rgba)


def _color_bar(sheet: SkySheet) -> None:
    last = sheet.panels[-1]
    box, figure = last.get_position(), sheet.figure
    width, height = figure.get_figwidth() * 72, figure.get_figheight() * 72
    bar = axes_at(figure, box.x1 * width + 5, (1 - box.y1) * height, 6, box.height * height)
    scale = ScalarMappable(Normalize(-_SIGMAS, _SIGMAS), SIGNED)
    colorbar = figure.colorbar(scale, cax=bar, ticks=[-5, -2.5, 0, 2.5, 5])
    colorbar.outline.set_linewidth(0.5)
    dress(bar, "", "")
    bar.set_ylabel("σ", fontsize=8, color=INK, rotation=0, labelpad=1)


def _outline(ax: Axes, base: Box) -> None:
    ax.add_patch(
        Rectangle(
            (base.x0 - 0.5, base.y0 - 0.5),
            base.nx,
            base.ny,
            fill=False,
            edgecolor=CONTRAST,
            linewidth=0.8,
            linestyle=(0, (4, 3)),
            alpha=0.8,
        )
    )


def _columns(table: pd.DataFrame, roi: Box) -> tuple[F8, F8, F8, F8]:
    """Start and fitted positions in the working frame; fitted NaN where there is none."""
    out: list[F8] = []
    for name in ("x_pix_patch", "y_pix_patch", "x_pix_patch_fit", "y_pix_patch_fit"):
        offset = roi.x0 if name.startswith("x") else roi.y0
        values = table[name].to_numpy(float) if name in table else np.full(len(table), np.nan)
        out.append(values + offset)
    return out[0], out[1], out[2], out[3]


def _kinds(table: pd.DataFrame) -> dict[str, Bool]:
    """Who is drawn how: halo sources by their own symbol, base sources by model."""
    halo = table["_is_halo_source"].to_numpy(bool)
    stype = table["stype"].fillna("").astype(str).str.strip().str.lower().to_numpy(str)
    star = np.isin(stype, ("star",))
    known = star | np.isin(stype, ("gal", "exp", "dev", "sersic"))
    return {
        "halo": halo,
        "unknown": ~halo & ~known,
        "galaxy": ~halo & known & ~star,
        "star": ~halo & star,
    }


def _draw_sources(sheet: SkySheet, table: pd.DataFrame, roi: Box) -> None:
    x0, y0, x1, y1 = _columns(table, roi)
    # A source without a fit stands where it started.
    there = np.isfinite(x1) & np.isfinite(y1)
    x, y = np.where(there, x1, x0), np.where(there, y1, y0)
    scale = min(0.8, fading_scale(len(table), sheet.area_pt2))
    data, _, residual = sheet.panels
    moved = np.stack([np.column_stack([x0, y0])[there], np.column_stack([x1, y1])[there]], axis=1)
    data.add_collection(
        LineCollection(list(moved), colors=CONTRAST, linewidths=0.7, alpha=0.8), autolim=False
    )
    for name, members in _kinds(table).items():
        draw_symbols(data, SYMBOLS[name], x[members], y[members], scale=scale)
        # On the residual only a hair line: what is inside of the symbol matters here.
        thin = replace(SYMBOLS[name], width=0.5)
        draw_symbols(residual, thin, x[members], y[members], scale=scale, rim=False)
    draw_symbols(data, SYMBOLS["start"], x0, y0, scale=0.7 * scale)


def _legend(table: pd.DataFrame) -> list[Line2D]:
    kinds = _kinds(table)
    texts = {
        "star": "star, fitted",
        "galaxy": "galaxy, fitted",
        "unknown": "unknown type",
        "halo": "halo source",
    }
    handles = [
        legend_handle(SYMBOLS[name], f"{text} (N={int(kinds[name].sum())})")
        for name, text in texts.items()
        if kinds[name].any() or name in (_STAR, _HALO)
    ]
    handles.append(legend_handle(SYMBOLS["start"], "start position"))
    handles.append(Line2D([], [], color=CONTRAST, linewidth=0.8, linestyle=(0, (4, 3)), label="base box"))
    return handles
