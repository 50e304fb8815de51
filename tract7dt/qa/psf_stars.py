"""The candidates of a cell's PSF: those that it was made of, and why the others were not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.overlay import sky_subtitle
from tract7dt.qa.psf import MAX_DPI
from tract7dt.qa.raster import Sheet, grey_index, text_width
from tract7dt.qa.raster_sky import draw_axis, draw_sky_strip
from tract7dt.qa.stretch import block_mean, display_factor, measure_stretch
from tract7dt.qa.style import FAINT, INK, PAPER, SYMBOLS, Symbol, fading_scale, zoomed_scale
from tract7dt.types import Box

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["REASON_SYMBOLS", "plot_psf_stars", "psf_stars_sheet"]

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
#: Longer side of the image, points, and the most pixels of it.
_SIDE, _MOST = 330.0, 920
_LEFT, _TOP, _AXIS, _RIGHT = 52, 66, 36, 10
#: Narrowest picture, room for compass and scale bar, height of a row of the legend, pixels.
_NARROWEST, _SKY, _ROW = 560, 190, 17
_FONT = 11
_LEVELS = 40
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
        At most :data:`~tract7dt.qa.psf.MAX_DPI` count; the image is never more than 920 pixels.
    """
    psf_stars_sheet(window, box, candidates, band=band, cell=cell, wcs=wcs, dpi=dpi).save(path, dpi)


def psf_stars_sheet(
    window: NDArray[np.floating],
    box: Box,
    candidates: Sequence[Mapping[str, Any]],
    *,
    band: str,
    cell: str,
    wcs: WCS | None,
    dpi: int,
) -> Sheet:
    """The picture behind :func:`plot_psf_stars`; its ``marks`` are by ``used``, ``gaia`` and reason."""
    side = min(int(_SIDE * min(dpi, MAX_DPI) / 72), _MOST)
    factor = display_factor(window.shape, 1, side)
    image = block_mean(window, factor)
    sky = sky_geometry(wcs, (box.x0 + box.x1 - 1) / 2, (box.y0 + box.y1 - 1) / 2)
    x, y = (np.array([c[axis] for c in candidates], dtype=float) for axis in "xy")
    groups = _groups(candidates)
    zoom = max(1, side // max(image.shape))
    width, height = image.shape[1] * zoom, image.shape[0] * zoom
    total = max(_LEFT + width + _RIGHT, _NARROWEST)
    rows = _legend_rows([text for _, text, _ in groups.values()], total - (_SKY if sky else 0))
    strip = max(rows * _ROW + 14, 44 if sky else 0)
    sheet = Sheet.blank(total, _TOP + height + _AXIS + strip)
    sheet.text(_LEFT, 6, "   ".join(p for p in ("PSF stars", band, cell) if p), size=15, color=INK, bold=True)
    missing = bool(np.isnan(image).any())
    sheet.text(_LEFT, 27, sky_subtitle(sky, factor, missing=missing), size=_FONT, color=FAINT)
    sheet.image(_LEFT, _TOP, grey_index(measure_stretch(image).grey(image), _LEVELS), zoom)
    draw_axis(sheet, _LEFT, _TOP + height, width, (box.x0, box.x1), "x [pix]", horizontal=True)
    draw_axis(sheet, _LEFT, _TOP, height, (box.y0, box.y1), "y [pix]", horizontal=False)
    # a sheet of its own, so that no symbol sticks out of the image
    panel = Sheet(sheet.pixels[_TOP : _TOP + height, _LEFT : _LEFT + width], marks=sheet.marks)
    per_pixel = zoom / factor
    unit = max(width, height) / _SIDE  # pixels of the picture a point, as if it filled its place
    scale = unit * zoomed_scale(fading_scale(len(x), width * height / unit**2), per_pixel / unit)
    for name, (symbol, _, pick) in reversed(groups.items()):  # the commonest reasons last, used ones on top
        for i in np.flatnonzero(pick & np.isfinite(x) & np.isfinite(y)):
            left, down = (
                (x[i] - box.x0 + 0.5) * per_pixel - 0.5,
                height - (y[i] - box.y0 + 0.5) * per_pixel - 0.5,
            )
            panel.mark(
                name, symbol, left, down, size=symbol.size * scale, width=max(symbol.width * scale, 1.3)
            )
    words = "" if len(candidates) else "no candidate"
    words = words if np.isfinite(image).any() else "no finite pixel"
    sheet.text(_LEFT + width / 2, _TOP + height / 2 - 8, words, color=PAPER, align="centre")
    draw_sky_strip(sheet, _TOP + height + _AXIS, strip, (), sky, per_pixel, _SKY - 70)
    _draw_legend(sheet, _TOP + height + _AXIS + 7, rows, groups)
    return sheet


def _groups(candidates: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Symbol, str, NDArray[np.bool_]]]:
    """Symbol, words and members of what is drawn: used, of Gaia, and each reason, the commonest first."""
    used = np.array([bool(c["used"]) for c in candidates], dtype=bool)
    gaia = np.array([str(c.get("origin", "")).startswith("gaia") for c in candidates], dtype=bool)
    reasons = np.array(
        ["" if c["used"] else str(c.get("reason") or "not used") for c in candidates], dtype=object
    )
    found = {
        "gaia": (SYMBOLS["gaia"], "Gaia star", gaia),
        "used": (SYMBOLS["psf_used"], "used", used),
    }
    for reason, symbol in _reason_symbols(Counter(reasons[~used].tolist())).items():
        words = _REASON_TEXTS.get(reason, reason.replace("_", " "))
        found[reason] = (symbol, words, (reasons == reason) & ~used)
    return {name: (s, f"{words} (N={int(pick.sum())})", pick) for name, (s, words, pick) in found.items()}


def _columns(texts: Sequence[str], rows: int) -> list[int]:
    """Width of each column of a legend, pixels."""
    parts = [texts[i : i + rows] for i in range(0, len(texts), rows)]
    return [34 + max(text_width(text, _FONT) for text in part) for part in parts]


def _legend_rows(texts: Sequence[str], room: int) -> int:
    """As few rows as the words allow."""
    for rows in range(1, len(texts)):
        if sum(_columns(texts, rows)) <= room:
            return rows
    return len(texts)


def _draw_legend(
    sheet: Sheet, top: int, rows: int, groups: Mapping[str, tuple[Symbol, str, NDArray[np.bool_]]]
) -> None:
    texts = [text for _, text, _ in groups.values()]
    lefts = np.cumsum([8, *_columns(texts, rows)])
    for i, (name, (symbol, text, _)) in enumerate(groups.items()):
        left, middle = int(lefts[i // rows]), top + (i % rows + 0.5) * _ROW
        size = min(symbol.size * 1.15, 13.0)
        sheet.mark(f"legend {name}", symbol, left + 8, middle, size=size, width=symbol.width + 0.3, rim=False)
        sheet.text(left + 20, middle - 8, text, size=_FONT, color=PAPER)


def _reason_symbols(counts: Counter[str]) -> dict[str, Symbol]:
    """Symbol of each reason, commonest first; one that is not known gets the next free symbol."""
    free = iter(_OTHER_REASONS)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {reason: REASON_SYMBOLS.get(reason) or next(free, _OTHER_REASONS[-1]) for reason, _ in ordered}
