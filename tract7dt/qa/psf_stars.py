"""The candidates of a cell's PSF: those that it was made of, and why the others were not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.figure import Panel, note, save_figure, sky_sheet
from tract7dt.qa.overlay import SIDE, extent_of, sky_subtitle
from tract7dt.qa.psf import MAX_DPI
from tract7dt.qa.stretch import block_mean, display_factor, grey, measure_stretch
from tract7dt.qa.style import SYMBOLS, Symbol, draw_symbols, fading_scale, legend_handle, zoomed_scale
from tract7dt.types import Box

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["REASON_SYMBOLS", "plot_psf_stars", "psf_stars_figure"]

#: Symbols of the candidates that were turned down, by reason; red is for saturation, as everywhere.
REASON_SYMBOLS: dict[str, Symbol] = {
    "saturated": SYMBOLS["saturated"],
    "nonfinite": Symbol("1", "#c9d1dc", "#6c7480", size=10.0),
    "edge": Symbol("s", "#c9d1dc", "#6c7480", size=8.0),
    "roundness": Symbol("d", "#ff2be0", "#b3119f", size=11.0),
    "size": Symbol("H", "#ff2be0", "#b3119f", size=10.0),
    "neighbour": Symbol("8", "#ff8c1a", "#b86200", size=9.0),
    "min_sep": Symbol(">", "#ff8c1a", "#b86200", size=9.0),
    "snr": Symbol("v", "#ffe83d", "#8f7a00", size=8.5),
    "outlier": Symbol("P", "#ff9d93", "#d02b1f", size=9.0),
    "fit_failed": Symbol("p", "#ff9d93", "#d02b1f", size=9.5),
    "max_stars": Symbol("o", "#9aa3ae", "#8a929c", size=7.0),
}
_REASON_TEXTS = {
    "snr": "low S/N",
    "min_sep": "close to brighter star",
    "neighbour": "neighbour in stamp",
    "nonfinite": "pixels without data",
    "max_stars": "good, not needed",
    "roundness": "not round",
    "size": "not of the size of a star",
}
_OTHER_REASONS = tuple(Symbol(marker, "#c7a4ff", "#5b2fa8", size=8.5) for marker in ("<", "*", "2", "3", "4"))


def plot_psf_stars(
    window: NDArray[np.floating],
    box: Box,
    candidates: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    band: str = "",
    cell: str = "",
    wcs: WCS | None = None,
    dpi: int = 300,
) -> None:
    """Draw a cell with its PSF stars and the candidates that were turned down, and write psfstars.png.

    Parameters
    ----------
    window : ndarray (ny, nx)
        Pixels of ``box``.
    box : Box
        The cell in the working frame.
    candidates : sequence of mapping
        ``x``, ``y`` (pix, working frame), ``origin`` (``sep`` or ``gaia``), ``used`` (bool), ``reason``
        (why not used).
    path : path
    band, cell : str
    wcs : WCS, optional
        Of the working frame.
    dpi : int
        At most :data:`~tract7dt.qa.psf.MAX_DPI` count.
    """
    dpi = min(dpi, MAX_DPI)
    save_figure(psf_stars_figure(window, box, candidates, band=band, cell=cell, wcs=wcs, dpi=dpi), path)


def psf_stars_figure(
    window: NDArray[np.floating],
    box: Box,
    candidates: Sequence[Mapping[str, Any]],
    *,
    band: str,
    cell: str,
    wcs: WCS | None,
    dpi: int,
) -> Figure:
    """The figure behind :func:`plot_psf_stars`."""
    factor = display_factor(window.shape, 1, int(SIDE * dpi / 72))
    image = block_mean(window, factor)
    sky = sky_geometry(wcs, (box.x0 + box.x1 - 1) / 2, (box.y0 + box.y1 - 1) / 2)
    x = np.array([c["x"] for c in candidates], dtype=float)
    y = np.array([c["y"] for c in candidates], dtype=float)
    used = np.array([bool(c["used"]) for c in candidates], dtype=bool)
    gaia = np.array([str(c.get("origin", "")).startswith("gaia") for c in candidates], dtype=bool)
    reasons = np.array(
        ["" if c["used"] else str(c.get("reason") or "not used") for c in candidates], dtype=object
    )
    symbols = _reason_symbols(Counter(reasons[~used].tolist()))
    handles: list[Line2D] = [
        legend_handle(SYMBOLS["psf_used"], f"used (N={int(used.sum())})"),
        legend_handle(SYMBOLS["gaia"], f"Gaia star (N={int(gaia.sum())})"),
    ]
    for reason, symbol in symbols.items():
        count = int(((reasons == reason) & ~used).sum())
        handles.append(
            legend_handle(symbol, f"{_REASON_TEXTS.get(reason, reason.replace('_', ' '))} (N={count})")
        )
    sheet = sky_sheet(
        [Panel(grey(image, measure_stretch(image)), extent_of(image.shape, factor, box))],
        title="   ".join(part for part in ("PSF stars", band, cell) if part),
        subtitle=sky_subtitle(sky, factor, missing=bool(np.isnan(image).any())),
        handles=handles,
        sky=sky,
        dpi=dpi,
        side=0.65 * SIDE,
    )
    ax = sheet.panels[0]
    scale = zoomed_scale(fading_scale(len(candidates), sheet.area_pt2), sheet.pixel_pt)
    for reason, symbol in symbols.items():
        pick = (reasons == reason) & ~used
        draw_symbols(ax, symbol, x[pick], y[pick], scale=scale)
    draw_symbols(ax, SYMBOLS["psf_used"], x[used], y[used], scale=scale)
    draw_symbols(ax, SYMBOLS["gaia"], x[gaia], y[gaia], scale=scale)
    ax.set(xlim=(box.x0 - 0.5, box.x1 - 0.5), ylim=(box.y0 - 0.5, box.y1 - 0.5))
    if not np.isfinite(image).any():
        note(ax, "no finite pixel", on_dark=True)
    elif not len(candidates):
        note(ax, "no candidate", on_dark=True)
    return sheet.figure


def _reason_symbols(counts: Counter[str]) -> dict[str, Symbol]:
    """Symbol of each reason, commonest first; one that is not known gets the next free symbol."""
    free = iter(_OTHER_REASONS)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {reason: REASON_SYMBOLS.get(reason) or next(free, _OTHER_REASONS[-1]) for reason, _ in ordered}
