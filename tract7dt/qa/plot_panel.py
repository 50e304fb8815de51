"""A small graph on a raster sheet: frame, ticks, curves, points, levels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.raster import Sheet, coverage, lay, text_width
from tract7dt.qa.style import FAINT, INK, Symbol
from tract7dt.types import F8

__all__ = ["FONT", "PlotPanel"]

FONT = 11
#: Steps a pixel in which curves and points are placed: their edges are smooth.
_FINE = 3


@dataclass(frozen=True, slots=True)
class PlotPanel:
    """Graph of ``width`` by ``height`` pixels of a sheet, its upper left corner at ``left``, ``top``.

    Attributes
    ----------
    sheet : Sheet
    left, top, width, height : int
    x_limits, y_limits : (float, float)
        Values at the frame.
    font : int
        Size of the words, pixels.
    """

    sheet: Sheet
    left: int
    top: int
    width: int
    height: int
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    font: int = FONT

    def at(self, x: F8 | float, y: F8 | float) -> tuple[F8, F8]:
        """Pixels from the panel's upper left corner."""
        (x0, x1), (y0, y1) = self.x_limits, self.y_limits
        across = (np.asarray(x, float) - x0) / (x1 - x0) * (self.width - 1)
        return across, (1 - (np.asarray(y, float) - y0) / (y1 - y0)) * (self.height - 1)

    def frame(
        self,
        x_ticks: Iterable[float],
        y_ticks: Iterable[float],
        x_label: str,
        y_label: str,
        y_text: Callable[[float], str],
    ) -> None:
        """Frame, ticks with numbers, labels: that of x below, that of y above the upper left corner."""
        sheet, bottom, size = self.sheet, self.top + self.height, self.font
        sheet.outline(self.left, self.top, self.width, self.height, FAINT)
        for tick in x_ticks:
            x = self.left + float(self.at(tick, self.y_limits[0])[0])
            sheet.line(x, bottom, x, bottom + 3, FAINT)
            sheet.text(x, bottom + 4, f"{tick:g}".replace("-", "−"), size=size, color=INK, align="centre")
        for tick in y_ticks:
            y = self.top + float(self.at(self.x_limits[0], tick)[1])
            sheet.line(self.left - 4, y, self.left - 1, y, FAINT)
            sheet.text(self.left - 6, y - 0.7 * size, y_text(tick), size=size, color=INK, align="right")
        right = self.left + self.width
        sheet.text(right, bottom + 1.7 * size, x_label, size=size, color=INK, align="right")
        sheet.text(self.left, self.top - 1.65 * size, y_label, size=size, color=INK)

    def grid(self, x_ticks: Iterable[float], y_ticks: Iterable[float], color: str, share: float) -> None:
        """Faint lines at the ticks."""
        sheet = self.sheet
        for tick in x_ticks:
            x = self.left + round(float(self.at(tick, self.y_limits[0])[0]))
            sheet.veil(x, self.top + 1, 1, self.height - 2, color, share)
        for tick in y_ticks:
            y = self.top + round(float(self.at(self.x_limits[0], tick)[1]))
            sheet.veil(self.left + 1, y, self.width - 2, 1, color, share)

    def band(self, low: float, high: float, color: str, share: float) -> None:
        """A translucent band between two values of y, as far as it lies in the panel."""
        ends = np.clip(self.at(self.x_limits[0], np.array([high, low]))[1], 0, self.height - 1)
        upper, lower = round(float(ends[0])), round(float(ends[1]))
        self.sheet.veil(self.left + 1, self.top + upper, self.width - 2, lower - upper + 1, color, share)

    def error_bars(self, x: F8, y: F8, error: F8, color: str, share: float) -> None:
        """Upright lines one pixel wide, from ``y - error`` to ``y + error``."""
        across, upper = self.at(x, y + error)
        lower = self.at(x, y - error)[1]
        cover = np.zeros((self.height, self.width), np.float32)
        limit = self.height - 1
        for column, y0, y1 in zip(
            np.rint(across).astype(int).tolist(),
            np.rint(np.clip(upper, 0, limit)).astype(int).tolist(),
            np.rint(np.clip(lower, 0, limit)).astype(int).tolist(),
            strict=True,
        ):
            cover[y0 : y1 + 1, column] = share
        lay(self.sheet.pixels, self.left, self.top, coverage(cover), color)

    def symbols(self, name: str, symbol: Symbol, x: F8, y: F8, unit: float) -> None:
        """Mark values; ``unit`` is a point, pixels. What is outside of the panel is cut off."""
        across, down = self.at(x, y)
        part = self.sheet.pixels[self.top : self.top + self.height, self.left : self.left + self.width]
        panel = Sheet(part, marks=self.sheet.marks)
        size, width = symbol.size * unit, symbol.width * unit
        panel.mark_all(name, symbol, across, down, size=size, width=width, rim=False)

    def curve(self, x: F8, y: F8, color: str, width: float = 1.6) -> None:
        """A line through the points, broken where one is not finite."""
        across, down = self.at(x, y)
        steps = np.hypot(np.diff(across), np.diff(down))
        known = np.isfinite(steps)
        count = np.where(known, np.ceil(np.where(known, steps, 0) * _FINE * 1.5) + 1, 0).astype(int)
        which = np.repeat(np.arange(len(steps)), count)
        share = (np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)) / np.maximum(
            count[which], 1
        )
        self._dots(
            across[which] + share * np.diff(across)[which],
            down[which] + share * np.diff(down)[which],
            color,
            width,
            1.0,
        )

    def points(self, x: F8, y: F8, color: str, size: float, opacity: float) -> None:
        """Round dots; what is not finite is left out."""
        across, down = self.at(x, y)
        good = np.isfinite(across) & np.isfinite(down)
        self._dots(across[good], down[good], color, size, opacity)

    def level(self, x: Sequence[float], y: Sequence[float], color: str, dash: int = 4) -> None:
        """Straight dashed lines from point to point; nothing if one is not finite."""
        across, down = self.at(np.asarray(x, float), np.asarray(y, float))
        if not (np.isfinite(across).all() and np.isfinite(down).all()):
            return
        across, down = np.rint(across).astype(int) + self.left, np.rint(down).astype(int) + self.top
        for x0, x1, y0, y1 in zip(across[:-1], across[1:], down[:-1], down[1:], strict=True):
            left, upper = int(min(x0, x1)), int(min(y0, y1))
            width, height = int(abs(x1 - x0)) + 1, int(abs(y1 - y0)) + 1
            self.sheet.outline(left, upper, width, height, color, dash=dash)

    def text(self, x: float, y: float, text: str, color: str, shift: tuple[int, int] = (6, -16)) -> None:
        """Words beside a point, moved by ``shift`` pixels (right, down) but no further than the frame."""
        across, down = self.at(x, y)
        most = self.width - text_width(text, self.font) - 2
        left, top = self.left + min(float(across) + shift[0], most), self.top + float(down) + shift[1]
        self.sheet.text(left, top, text, size=self.font, color=color)

    def _dots(self, across: F8, down: F8, color: str, size: float, opacity: float) -> None:
        fine = np.zeros((self.height * _FINE, self.width * _FINE), bool)
        x = np.rint(across * _FINE).astype(int) + _FINE // 2
        y = np.rint(down * _FINE).astype(int) + _FINE // 2
        for dy, dx in _disc(0.5 * size * _FINE):
            inside = (x + dx >= 0) & (x + dx < fine.shape[1]) & (y + dy >= 0) & (y + dy < fine.shape[0])
            fine[y[inside] + dy, x[inside] + dx] = True
        share = np.float32(opacity / _FINE**2)
        cover = np.zeros((self.height, self.width), np.uint8)
        for row in range(_FINE):
            for column in range(_FINE):  # a mean over both axes at once takes ten times as long
                cover += fine[row::_FINE, column::_FINE]
        lay(self.sheet.pixels, self.left, self.top, coverage(share * cover), color)


def _disc(radius: float) -> list[tuple[int, int]]:
    reach = int(np.ceil(radius))
    axis: NDArray[np.int64] = np.arange(-reach, reach + 1)
    y, x = np.nonzero(np.hypot(axis[:, None], axis[None, :]) <= radius)
    return [(int(b) - reach, int(a) - reach) for b, a in zip(y, x, strict=True)]
