"""What surrounds a sky image on a raster sheet: axes with numbers, the dark strip with legend, bar and compass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tract7dt.qa.compass import SkyGeometry, angle_label, scale_bar_arcsec
from tract7dt.qa.raster import Sheet, text_width
from tract7dt.qa.style import CONTRAST, DARK, FAINT, INK, PAPER, SYMBOLS

__all__ = ["STRIP", "draw_axis", "draw_compass", "draw_scale_bar", "draw_sky_strip", "nice_ticks"]

_ENTRY = 10
#: Height of a strip that holds compass and scale bar, pixels.
STRIP = 44


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
    sheet: Sheet,
    left: int,
    top: int,
    length: int,
    limits: tuple[int, int],
    label: str,
    *,
    horizontal: bool,
    size: int = 10,
) -> None:
    """Ticks, numbers and label along the lower (``top`` is its height) or the left edge of an image.

    ``limits`` are pixels, half-open: an image of one pixel reaches half a pixel to both sides of its centre.
    ``size`` is that of the words, pixels.
    """
    low, high = limits
    per_pixel = length / max(high - low, 1)
    room = round((5.8 if horizontal else 3.4) * size)
    for tick in nice_ticks(low, high - 1, max(1, length // room)):
        at = (tick - low + 0.5) * per_pixel
        text = f"{tick:.0f}".replace("-", "−")
        if horizontal:
            sheet.line(left + at, top, left + at, top + 3, FAINT)
            sheet.text(left + at, top + 3, text, size=size, color=INK, align="centre")
        else:
            y = top + length - at
            sheet.line(left - 4, y, left - 1, y, FAINT)
            sheet.text(left - 6, y - 0.7 * size, text, size=size, color=INK, align="right")
    if horizontal:
        sheet.text(left + length, top + 1.7 * size, label, size=size, color=INK, align="right")
    else:
        sheet.text(left - 6, top - 1.8 * size, label, size=size, color=INK, align="right")


def draw_sky_strip(
    sheet: Sheet,
    top: int,
    height: int,
    entries: Sequence[tuple[str, str]],
    sky: SkyGeometry | None,
    per_pixel: float,
    widest: int,
    size: int = 10,
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
    size : int
        Of the words, pixels; compass and bar grow with it.
    """
    right = sheet.pixels.shape[1]
    sheet.fill(0, top, right, height, DARK)
    middle = top + height / 2
    left = 8
    for name, text in entries:
        symbol = SYMBOLS[name]
        sheet.mark(f"legend {name}", symbol, left + 6, middle, size=_ENTRY, width=1.2, rim=False)
        sheet.text(left + 16, middle - 7, text, size=size, color=PAPER)
        left += 26 + text_width(text, size)
    if sky is None:
        return
    draw_compass(sheet, sky, right - 2.4 * size, middle, size)
    draw_scale_bar(sheet, sky, left, right - 6.0 * size, middle, per_pixel, 0.75 * widest, size)


def draw_scale_bar(
    sheet: Sheet,
    sky: SkyGeometry,
    left: float,
    end: float,
    middle: float,
    per_pixel: float,
    longest: float,
    size: int,
) -> None:
    """A bar of a round length that ends at ``end``, its length above; nothing where it would pass ``left``."""
    arcsec = scale_bar_arcsec(longest / per_pixel * sky.pixel_scale_arcsec)
    length = arcsec / sky.pixel_scale_arcsec * per_pixel
    words = angle_label(arcsec)
    if end - max(length, text_width(words, size)) <= left:
        return
    row, thick = round(middle + 0.6 * size), max(2, round(0.2 * size))
    sheet.fill(round(end - length), row, round(length), thick, CONTRAST)
    sheet.marks["scale bar"] = [(end - length, row), (end, row)]
    sheet.text(end - length / 2, middle - size, words, size=size, color=PAPER, align="centre")


def draw_compass(sheet: Sheet, sky: SkyGeometry, x: float, y: float, size: int) -> None:
    """North and east around ``(x, y)``."""
    long, width = 1.15 * size, max(1.1, 0.12 * size)
    # the middle of the two arrows, not their common end, lies in the middle of the strip
    x -= 0.5 * long * (sky.north[0] + sky.east[0])
    y += 0.5 * long * (sky.north[1] + sky.east[1])
    for (dx, dy), name in ((sky.north, sky.names[0]), (sky.east, sky.names[1])):
        tip = x + long * dx, y - long * dy
        sheet.stroke(x, y, *tip, CONTRAST, width)
        for side in (0.4, -0.4):  # the barbs of the arrow
            back = -0.35 * long * (dx - side * dy), 0.35 * long * (dy + side * dx)
            sheet.stroke(*tip, tip[0] + back[0], tip[1] + back[1], CONTRAST, width)
        sheet.text(
            x + 1.75 * long * dx, y - 1.75 * long * dy - 0.7 * size, name, size=size - 1, color=PAPER,
            align="centre",
        )  # fmt: skip
