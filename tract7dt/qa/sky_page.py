"""One sky image with axes, symbols, and a dark strip below that carries legend, compass and scale bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tract7dt.qa.compass import SkyGeometry
from tract7dt.qa.raster import Sheet, text_width
from tract7dt.qa.raster_sky import draw_axis, draw_sky_strip
from tract7dt.qa.style import FAINT, INK, PAPER, Symbol, as_drawn
from tract7dt.types import F8, U1, Box

__all__ = ["SIDE", "Entry", "SkyPage", "sky_page", "sky_subtitle"]

#: Longer side of the image, points.
SIDE = 460.0
#: Size of the words, points of a picture whose image is ``SIDE`` wide, and the least pixels of them.
_WORDS, _SMALLEST = 6.2, 11
#: Narrowest picture, in sizes of the words.
_NARROWEST = 50


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the legend.

    Attributes
    ----------
    text : str
    symbol : Symbol or None
    color : str
        Of a line or an area, where there is no symbol.
    look : str
        ``line``, ``dashed`` or ``area``.
    """

    text: str
    symbol: Symbol | None = None
    color: str = ""
    look: Literal["line", "dashed", "area"] = "line"


@dataclass(frozen=True, slots=True)
class SkyPage:
    """A sheet with a sky image in its place.

    Attributes
    ----------
    sheet : Sheet
    box : Box
        What is shown, pixels of the frame.
    left, top, width, height : int
        Of the image, pixels of the picture.
    per_pixel : float
        Pixels of the picture a pixel of the frame.
    size : int
        Of the words, pixels.
    legend : (int, int)
        Where the legend ends on the right, and the room that it has, pixels.
    """

    sheet: Sheet
    box: Box
    left: int
    top: int
    width: int
    height: int
    per_pixel: float
    size: int
    legend: tuple[int, int]

    @property
    def panel(self) -> Sheet:
        """The image as a sheet of its own, so that nothing sticks out of it."""
        part = self.sheet.pixels[self.top : self.top + self.height, self.left : self.left + self.width]
        return Sheet(part, self.sheet.texts, self.sheet.marks)

    @property
    def unit(self) -> float:
        """Pixels of the picture a point, as if the image filled its place."""
        return max(self.width, self.height) / SIDE

    @property
    def area_pt2(self) -> float:
        """Area of the image, square points."""
        return self.width * self.height / self.unit**2

    def at(self, x: F8 | float, y: F8 | float) -> tuple[F8, F8]:
        """Pixels of the image, from its upper left corner, of positions in the frame."""
        across = (np.asarray(x, float) - self.box.x0 + 0.5) * self.per_pixel - 0.5
        return across, self.height - (np.asarray(y, float) - self.box.y0 + 0.5) * self.per_pixel - 0.5

    def symbols(self, name: str, symbol: Symbol, x: F8, y: F8, scale: float) -> None:
        """Mark positions of the frame; those that are not finite are passed over."""
        good = np.isfinite(x) & np.isfinite(y)
        shown = as_drawn(symbol, scale)
        across, down = self.at(x[good], y[good])
        thin = max(shown.width * self.unit, 0.0 if shown.filled else 1.2)
        rim = not shown.filled and len(x) <= 5000
        self.panel.mark_all(name, shown, across, down, size=shown.size * self.unit, width=thin, rim=rim)

    def rectangle(self, box: Box, color: str, dash: int = 0) -> None:
        """The outline of a box of the frame."""
        (x0, x1), (y1, y0) = self.at(np.array([box.x0, box.x1]) - 0.5, np.array([box.y0, box.y1]) - 0.5)
        left, upper = round(float(x0)), round(float(y0))
        wide, high = round(float(x1 - x0)) + 1, round(float(y1 - y0)) + 1
        self.panel.outline(left, upper, wide, high, color, dash=dash)
        self.sheet.marks.setdefault("box", []).append((float(x0), float(y0)))

    def veil(self, box: Box, color: str, share: float) -> None:
        """A translucent cover over a box of the frame."""
        (x0, x1), (y1, y0) = self.at(np.array([box.x0, box.x1]) - 0.5, np.array([box.y0, box.y1]) - 0.5)
        left, upper = round(float(x0)) + 1, round(float(y0)) + 1
        self.panel.veil(left, upper, round(float(x1)) + 1 - left, round(float(y1)) + 1 - upper, color, share)

    def note(self, text: str) -> None:
        """Say in the middle of an empty image why it is empty."""
        middle = self.left + self.width / 2
        self.sheet.text(
            middle, self.top + self.height / 2 - 8, text, size=self.size, color=PAPER, align="centre"
        )


def sky_page(
    index: U1,
    factor: int,
    box: Box,
    *,
    title: str,
    subtitle: str,
    entries: Sequence[Entry],
    sky: SkyGeometry | None,
    side: int,
) -> SkyPage:
    """Lay out a sky image: each of its pixels becomes a whole number of picture pixels.

    Parameters
    ----------
    index : ndarray, uint8 (ny, nx)
        Palette indices, lowest row first.
    factor : int
        Pixels of the frame in one of the image, along each axis.
    box : Box
        What is shown, pixels of the frame.
    title, subtitle : str
    entries : sequence of Entry
        The legend lies below the image and hides nothing.
    sky : SkyGeometry or None
        For compass and scale bar.
    side : int
        Wanted length of the image's longer side, pixels.
    """
    zoom = max(1, round(side / max(index.shape)))
    # the last blocks may reach beyond the box: what is outside is not shown
    width, height = (
        min(n * zoom, -(-length * zoom // factor)) for n, length in zip(index.shape[::-1], (box.nx, box.ny))
    )
    size = max(_SMALLEST, round(_WORDS * max(width, height) / SIDE))
    left, top, axis = round(5.2 * size), round(6.0 * size), round(3.4 * size)
    total = max(left + width, left + text_width(subtitle, size), (_NARROWEST - 1) * size) + size
    row, room = round(1.6 * size), total - (17 * size if sky else 0)
    rows = _legend_rows([entry.text for entry in entries], room, size)
    strip = max(rows * row + round(1.2 * size), round(4.6 * size) if sky else 0)
    sheet = Sheet.blank(total, top + height + axis + strip)
    sheet.text(left, 0.5 * size, title, size=round(1.4 * size), color=INK, bold=True)
    sheet.text(left, 2.5 * size, subtitle, size=size, color=FAINT)
    shown = np.repeat(np.repeat(index[::-1], zoom, axis=0), zoom, axis=1) if zoom > 1 else index[::-1]
    sheet.enlarged = zoom > 1
    sheet.pixels[top : top + height, left : left + width] = shown[-height:, :width]
    limits = (box.x0, box.x1), (box.y0, box.y1)
    draw_axis(sheet, left, top + height, width, limits[0], "x [pix]", horizontal=True, size=size)
    draw_axis(sheet, left, top, height, limits[1], "y [pix]", horizontal=False, size=size)
    per_pixel, below = zoom / factor, top + height + axis
    draw_sky_strip(sheet, below, strip, (), sky, per_pixel, 12 * size, size)
    end = _draw_legend(sheet, below + round(0.6 * size), row, rows, entries, size)
    return SkyPage(sheet, box, left, top, width, height, per_pixel, size, (end, room))


def sky_subtitle(sky: SkyGeometry | None, factor: int, *, missing: bool = False) -> str:
    """Where the image is on the sky and how it is shown."""
    parts = []
    if sky is not None:
        parts += [f"centre {sky.centre}", f"{sky.pixel_scale_arcsec:.3g}″/pix"]
    parts.append("asinh stretch" if factor == 1 else f"asinh stretch, mean of {factor} × {factor} pix")
    if missing:
        parts.append("blue: no data")
    return "   ·   ".join(parts)


def _columns(texts: Sequence[str], rows: int, size: int) -> list[int]:
    """Width of each column of a legend, pixels."""
    parts = [texts[i : i + rows] for i in range(0, len(texts), rows)] if texts else []
    return [3 * size + max(text_width(text, size) for text in part) for part in parts]


def _legend_rows(texts: Sequence[str], room: int, size: int) -> int:
    """As few rows as the words allow."""
    for rows in range(1, len(texts)):
        if sum(_columns(texts, rows, size)) <= room:
            return rows
    return len(texts)


def _draw_legend(sheet: Sheet, top: int, row: int, rows: int, entries: Sequence[Entry], size: int) -> int:
    """Write the legend; returns where it ends on the right."""
    columns = _columns([entry.text for entry in entries], rows, size)
    lefts = np.cumsum([round(0.7 * size), *columns])
    for i, entry in enumerate(entries):
        left, middle = int(lefts[i // rows]), top + round((i % rows + 0.5) * row)
        centre = left + 0.75 * size
        if entry.symbol is not None:
            symbol, width = entry.symbol, entry.symbol.width * size / 8
            sheet.mark(
                "legend",
                symbol,
                centre,
                middle,
                size=min(symbol.size / 8, 1.2) * size,
                width=width,
                rim=False,
            )
        elif entry.look == "area":
            sheet.fill(left, middle - size // 3, round(1.5 * size), round(0.75 * size), entry.color)
        else:
            dash = 4 if entry.look == "dashed" else 0
            sheet.outline(left, middle, round(1.5 * size), 1, entry.color, dash=dash)
        sheet.text(left + 2 * size, middle - 0.7 * size, entry.text, size=size, color=PAPER)
    return int(lefts[-1])
