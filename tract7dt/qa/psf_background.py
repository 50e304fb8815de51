"""The background of a PSF cell: the map that was subtracted, and the local sky of every star."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.compass import SkyGeometry
from tract7dt.qa.palette import grey_index
from tract7dt.qa.raster import Sheet, text_width
from tract7dt.qa.raster_sky import STRIP, draw_axis, draw_sky_strip, nice_ticks
from tract7dt.qa.stretch import block_mean, display_factor, measure_stretch
from tract7dt.qa.style import FAINT, INK, LEVEL, SYMBOLS
from tract7dt.types import F4, Box, PsfDiagnosis

I8 = NDArray[np.int64]

__all__ = ["background_map", "background_sheet", "star_background_sheet"]

_LEFT, _TOP, _GAP, _BAR, _FOOT = 52, 74, 18, 66, 40
_SIDE, _FONT, _LEVELS = 300, 11, 40
#: Stars in a column of the picture of local skies, and the grey range of their cutouts, sigma.
_ROWS, _DARK, _WHITE = 10, -3.0, 7.0
_BLOCK_GAP, _WORDS = 26, 92


def background_map(diagnosis: PsfDiagnosis, shape: tuple[int, int], factor: int) -> F4:
    """The background at the blocks of a displayed image, bilinear between the means that were kept.

    Parameters
    ----------
    diagnosis : PsfDiagnosis
    shape : (ny, nx)
        Of the displayed image.
    factor : int
        Pixels of the frame in one of the displayed image.
    """
    rows, columns = (
        _between(n, factor, diagnosis.step, m) for n, m in zip(shape, diagnosis.background.shape)
    )
    kept = diagnosis.background
    tall: F4 = kept[rows[0]] * (1 - rows[2])[:, None] + kept[rows[1]] * rows[2][:, None]
    wide = tall[:, columns[0]] * (1 - columns[2]) + tall[:, columns[1]] * columns[2]
    return wide.astype(np.float32, copy=False)


def _between(n: int, factor: int, step: int, m: int) -> tuple[I8, I8, F4]:
    """The two of ``m`` means between which each of ``n`` blocks lies, and the share of the second."""
    at = np.clip((np.arange(n) + 0.5) * factor / step - 0.5, 0, m - 1)
    low = np.minimum(at.astype(np.int64), max(m - 2, 0))
    return low, np.minimum(low + 1, m - 1), (at - low).astype(np.float32)


def background_sheet(
    window: NDArray[np.floating],
    box: Box,
    diagnosis: PsfDiagnosis,
    *,
    band: str,
    cell: str,
    color_bar: bool,
    sky: SkyGeometry | None = None,
) -> Sheet:
    """Three panels: the cell as it is, its background map, and the cell without it.

    Parameters
    ----------
    window : ndarray (ny, nx)
        Pixels of ``box``.
    box : Box
        The cell in the working frame.
    diagnosis : PsfDiagnosis
    band, cell : str
    color_bar : bool
        Whether the map's scale is drawn.
    sky : SkyGeometry, optional
        For compass and scale bar.
    """
    factor = display_factor(window.shape, 3, _SIDE)
    raw = block_mean(window, factor)
    level = background_map(diagnosis, raw.shape, factor)
    zoom = max(1, _SIDE // max(raw.shape))
    width, height = raw.shape[1] * zoom, raw.shape[0] * zoom
    bar = _BAR if color_bar else 0
    strip = 0 if sky is None else STRIP
    total = max(_LEFT + 3 * width + 2 * _GAP + bar + 12, 700)
    sheet = Sheet.blank(total, _TOP + height + _FOOT + strip)
    sheet.text(_LEFT, 6, f"Background   {band}   {cell}", size=15, color=INK, bold=True)
    low, high = float(level.min()), float(level.max())
    words = f"map: median {np.median(level):.4g}, from {low:.4g} to {high:.4g} scaled counts".replace(
        "-", "−"
    )
    sheet.text(
        _LEFT,
        27,
        f"{words}   ·   asinh stretch of the cell, mean of {factor} × {factor} pix",
        size=_FONT,
        color=FAINT,
    )
    span = max(high - low, 1e-6 * max(abs(low), abs(high), 1.0))
    subtracted = raw - level
    panels = (
        ("as it is", grey_index(measure_stretch(raw).grey(raw), _LEVELS)),
        ("background map", None),
        ("map subtracted", grey_index(measure_stretch(subtracted).grey(subtracted), _LEVELS)),
    )
    left = _LEFT
    for title, index in panels:
        sheet.text(left, _TOP - 18, title, size=12, color=INK)
        shown = grey_index((level - low) / span, _LEVELS) if index is None else index
        sheet.image(left, _TOP, shown, zoom)
        draw_axis(sheet, left, _TOP + height, width, (box.x0, box.x1), "x [pix]", horizontal=True)
        left += width + _GAP
        if index is None and color_bar:
            _color_bar(sheet, left - _GAP + 8, height, low, low + span)
            left += bar
    draw_axis(sheet, _LEFT, _TOP, height, (box.y0, box.y1), "y [pix]", horizontal=False)
    if sky is not None:
        draw_sky_strip(sheet, _TOP + height + _FOOT, strip, (), sky, zoom / factor, width // 2, _FONT)
    return sheet


def _color_bar(sheet: Sheet, left: int, height: int, low: float, high: float) -> None:
    sheet.image(left, _TOP, grey_index(np.repeat(np.linspace(0, 1, height)[:, None], 10, axis=1), _LEVELS))
    for tick in nice_ticks(low, high, max(2, height // 50)):
        y = _TOP + (1 - (tick - low) / (high - low)) * (height - 1)
        sheet.line(left + 10, y, left + 13, y, INK)
        sheet.text(left + 16, y - 7, f"{tick:.4g}".replace("-", "−"), size=10, color=INK)
    sheet.text(left, _TOP - 17, "[counts]", size=10, color=INK)


def star_background_sheet(
    diagnosis: PsfDiagnosis,
    annulus: tuple[float, float],
    *,
    band: str,
    cell: str,
    color_bar: bool,
    sky: SkyGeometry | None = None,
) -> Sheet:
    """A row a star of the stack: as cut out, with the annulus of its sky, and without that sky.

    Parameters
    ----------
    diagnosis : PsfDiagnosis
    annulus : (float, float)
        Radii, pix.
    band, cell : str
    color_bar : bool
        Whether the scale of the grey levels is told.
    sky : SkyGeometry, optional
        For compass and scale bar.
    """
    stars = np.flatnonzero(diagnosis.used)
    k = diagnosis.data.shape[-1]
    columns = max(1, -(-len(stars) // _ROWS))
    rows = min(max(len(stars), 1), _ROWS)
    block = 3 * (k + 3) + _WORDS + _BLOCK_GAP
    strip = 0 if sky is None else STRIP
    sheet = Sheet.blank(max(16 + columns * block, 600), 82 + rows * (k + 3) + 12 + strip)
    sheet.text(14, 6, f"Local sky of the PSF stars   {band}   {cell}", size=15, color=INK, bold=True)
    half = k // 2
    outer = min(annulus[1], half)
    inner = min(annulus[0], outer - 3.0)
    words = f"{len(stars)} stars   ·   annulus {inner:g} to {outer:g} pix   ·   blue: not counted"
    if color_bar:
        words += f"   ·   black {_DARK:g} σ, white {_WHITE:+g} σ".replace("-", "−")
    sheet.text(14, 27, words, size=_FONT, color=FAINT)
    for column in range(columns if len(stars) else 0):
        for i, title in enumerate(("star", "annulus", "without sky")):
            sheet.text(14 + column * block + i * (k + 3), 58, title, size=10, color=INK)
    for number, i in enumerate(stars.tolist()):
        left, top = 14 + (number // _ROWS) * block, 76 + (number % _ROWS) * (k + 3)
        _star_row(sheet, left, top, diagnosis, i, number + 1, (inner, outer))
    if not len(stars):
        sheet.text(14, 60, "no star was used", size=12, color=FAINT)
    if sky is not None:
        draw_sky_strip(sheet, sheet.pixels.shape[0] - strip, strip, (), sky, 1.0, k, _FONT)
    return sheet


def _star_row(
    sheet: Sheet,
    left: int,
    top: int,
    diagnosis: PsfDiagnosis,
    i: int,
    number: int,
    annulus: tuple[float, float],
) -> None:
    data, sigma, sky = diagnosis.data[i], max(float(diagnosis.noise[i]), 1e-12), float(diagnosis.sky[i])
    k = data.shape[0]
    counted = np.where(diagnosis.good[i], data, np.nan)
    for place, image in enumerate((data, counted, data - np.float32(sky))):
        level = np.clip((image / sigma - _DARK) / (_WHITE - _DARK), 0, 1)
        sheet.image(left + place * (k + 3), top, grey_index(level, _LEVELS))
    middle = left + (k + 3) + k // 2, top + k // 2
    ring = replace(SYMBOLS["psf_used"], marker="o")
    panel = Sheet(sheet.pixels[top : top + k, left + k + 3 : left + 2 * k + 3])
    for radius in annulus:
        panel.mark("annulus", ring, k // 2, k // 2, size=2 * radius, width=1.0, rim=False)
    sheet.marks.setdefault("star", []).append(middle)
    words = left + 3 * (k + 3) + 4
    sheet.text(words, top + 4, f"{number}", size=12, color=INK, bold=True)
    sheet.text(
        words + 8 + text_width(f"{number}", 12, True),
        top + 5,
        f"S/N {diagnosis.snr[i]:.0f}",
        size=10,
        color=FAINT,
    )
    sheet.text(words, top + 24, f"sky {sky:+.3g}".replace("-", "−"), size=10, color=LEVEL)
    sheet.text(words, top + 40, f"{sky / sigma:+.2f} σ".replace("-", "−"), size=10, color=FAINT)
