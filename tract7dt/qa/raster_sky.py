"""What surrounds a sky image on a raster sheet: axes with numbers, the dark strip with legend, bar and compass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tract7dt.qa.compass import SkyGeometry, angle_label, scale_bar_arcsec
from tract7dt.qa.raster import Sheet, text_width
from tract7dt.qa.style import CONTRAST, DARK, FAINT, INK, PAPER, SYMBOLS

__all__ = ["draw_axis", "draw_sky_strip", "nice_ticks"]

_ENTRY = 10
_COMPASS = 60


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within ``[low, high]``, at most ``most`` of them (and at least one)."""
    span = max(high - low, 1e-12)
    for power in range(int(np.floor(np.log10(span))) - 2, int(np.ceil(np.log10(span))) + 2):
        for factor in (1, 2, 5):
            step = factor * 10.0**power
            ticks = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
            if len(ticks) <= max(most, 1):
                return [float(tick) for tick in ticks] or [float(low)]
    return [float(low)]


def draw_axis(
    sheet: Sheet, left: int, top: int, length: int, limits: tuple[int, int], label: str, *, horizontal: bool
) -> None:
    """Ticks, numbers and label along the lower (``top`` is its height) or the left edge of an image.

    ``limits`` are pixels, half-open: an image of one pixel reaches half a pixel to both sides of its centre.
    """
    low, high = limits
    per_pixel = length / max(high - low, 1)
    room = 58 if horizontal else 34
    for tick in nice_ticks(low, high - 1, max(1, length // room)):
        at = (tick - low + 0.5) * per_pixel
        text = f"{tick:.0f}"
        if horizontal:
            sheet.line(left + at, top, left + at, top + 3, FAINT)
            sheet.text(left + at, top + 3, text, size=10, color=INK, align="centre")
        else:
            y = top + length - at
            sheet.line(left - 4, y, left - 1, y, FAINT)
            sheet.text(left - 6, y - 7, text, size=10, color=INK, align="right")
    if horizontal:
        sheet.text(left + length, top + 17, label, size=10, color=INK, align="right")
    else:
        sheet.text(left - 6, top - 18, label, size=10, color=INK, align="right")


def draw_sky_strip(
    sheet: Sheet,
    top: int,
    height: int,
    entries: Sequence[tuple[str, str]],
    sky: SkyGeometry | None,
    per_pixel: float,
    widest: int,
) -> None:
    """The dark strip below sky images.

    Parameters
    ----------
    sheet : Sheet
    top, height : int
    entries : sequence of (str, str)
        Legend: name of a symbol of :data:`tract7dt.qa.style.SYMBOLS`, text.
    sky : SkyGeometry or None
        None: neither compass nor scale bar.
    per_pixel : float
        Pixels of the picture a pixel of the frame.
    widest : int
        The scale bar is at most three quarters of this, pixels of the picture.
    """
    right = sheet.pixels.shape[1]
    sheet.fill(0, top, right, height, DARK)
    middle = top + height / 2
    left = 8
    for name, text in entries:
        symbol = SYMBOLS[name]
        sheet.mark(f"legend {name}", symbol, left + 6, middle, size=_ENTRY, width=1.2, rim=False)
        sheet.text(left + 16, middle - 7, text, size=10, color=PAPER)
        left += 26 + text_width(text, 10)
    if sky is None:
        return
    _compass(sheet, sky, right - 24, middle)
    arcsec = scale_bar_arcsec(0.75 * widest / per_pixel * sky.pixel_scale_arcsec)
    length = arcsec / sky.pixel_scale_arcsec * per_pixel
    end = right - _COMPASS
    if end - length > left:
        for offset in (6, 7):
            sheet.line(end - length, middle + offset, end, middle + offset, CONTRAST)
        sheet.text(end - length / 2, middle - 10, angle_label(arcsec), size=10, color=PAPER, align="centre")


def _compass(sheet: Sheet, sky: SkyGeometry, x: float, y: float) -> None:
    # the middle of the two arrows, not their common end, lies in the middle of the strip
    x -= 6 * (sky.north[0] + sky.east[0])
    y += 6 * (sky.north[1] + sky.east[1])
    for (dx, dy), name in ((sky.north, sky.names[0]), (sky.east, sky.names[1])):
        sheet.line(x, y, x + 12 * dx, y - 12 * dy, CONTRAST)
        sheet.text(x + 18 * dx, y - 18 * dy - 7, name, size=9, color=PAPER, align="centre")
