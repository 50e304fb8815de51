"""Figures without pyplot: made, laid out in points, drawn and written whole, with no global state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tract7dt.qa.compass import SkyGeometry, draw_compass, draw_scale_bar
from tract7dt.qa.style import DARK, FAINT, INK, PAPER
from tract7dt.store import atomic_path

__all__ = ["Panel", "SkySheet", "axes_at", "dress", "new_figure", "note", "save_figure", "sky_sheet"]

_POINTS = 72.0
_TITLE = 33.0
_LEFT, _RIGHT, _XLABEL = 43.0, 10.0, 31.0
_GAP = 42.0
_LEGEND_ROW = 12.0
_LEGEND_FONT = 7.5
#: Room in the footer for the compass and the scale bar, points.
_COMPASS, _BAR = 56.0, 104.0
_MIN_WIDTH = 330.0


def new_figure(width: float, height: float, dpi: int) -> Figure:
    """Figure of ``width`` by ``height`` points on white, with an Agg canvas of its own."""
    figure = Figure(figsize=(width / _POINTS, height / _POINTS), dpi=dpi, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure as a PNG of at most 256 colours, whole or not at all.

    A palette image of a grey sky with a few symbol colours looks the same and is a quarter of the size
    of a full-colour one, and faster to write.
    """
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    picture = Image.frombuffer("RGBA", (width, height), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
    small = picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        small.save(temporary, format="PNG", compress_level=4, dpi=(figure.dpi, figure.dpi))


def axes_at(figure: Figure, left: float, top: float, width: float, height: float, **kwargs: Any) -> Axes:
    """Axes whose box is given in points from the figure's upper left corner, put on whole pixels."""
    fig_w, fig_h = figure.get_figwidth() * figure.dpi, figure.get_figheight() * figure.dpi
    unit = figure.dpi / _POINTS
    x0, w = round(left * unit), max(1, round(width * unit))
    h = max(1, round(height * unit))
    y0 = round(fig_h - top * unit) - h
    return figure.add_axes((x0 / fig_w, y0 / fig_h, w / fig_w, h / fig_h), **kwargs)


def dress(ax: Axes, xlabel: str, ylabel: str) -> None:
    """Axis labels and ticks in the common style."""
    ax.set_xlabel(xlabel, fontsize=8, color=INK, labelpad=2)
    ax.set_ylabel(ylabel, fontsize=8, color=INK, labelpad=2)
    ax.tick_params(labelsize=7, colors=INK, width=0.6, length=3, direction="out", pad=2)
    for spine in ax.spines.values():
        spine.set_linewidth(0.6)
        spine.set_color(FAINT)


def note(ax: Axes, text: str, *, on_dark: bool = False) -> None:
    """Say in the middle of an empty plot why it is empty."""
    ax.text(
        0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=9,
        color=PAPER if on_dark else FAINT, wrap=True,
    )  # fmt: skip


def heading(figure: Figure, title: str, subtitle: str, left: float = _LEFT) -> None:
    """Title and, smaller, what one must know to read the picture."""
    height = figure.get_figheight() * _POINTS
    x = left / (figure.get_figwidth() * _POINTS)
    figure.text(x, 1 - 13 / height, title, fontsize=10, fontweight="bold", color=INK, va="center")
    figure.text(x, 1 - 25 / height, subtitle, fontsize=7, color=FAINT, va="center")


@dataclass(frozen=True, slots=True)
class Panel:
    """One sky image of a sheet.

    Attributes
    ----------
    image : ndarray (ny, nx, 4), uint8
        As displayed.
    extent : (float, float, float, float)
        Left, right, bottom, top in pixels of the frame (edges, so half-integer).
    title : str
        Above the panel; "" for a single one.
    """

    image: np.ndarray
    extent: tuple[float, float, float, float]
    title: str = ""


@dataclass(frozen=True, slots=True)
class SkySheet:
    """A figure of sky images in a row above a dark strip with legend, compass and scale bar.

    Attributes
    ----------
    figure : Figure
    panels : tuple of Axes
    legend : Axes
        The strip.
    area_pt2 : float
        Area of a panel, square points.
    pixel_pt : float
        Width of a pixel of the frame, points.
    """

    figure: Figure
    panels: tuple[Axes, ...]
    legend: Axes
    area_pt2: float
    pixel_pt: float


def sky_sheet(
    panels: Sequence[Panel],
    *,
    title: str,
    subtitle: str,
    handles: Sequence[Artist],
    sky: SkyGeometry | None,
    dpi: int,
    side: float,
    extra_right: float = 0.0,
) -> SkySheet:
    """Lay out sky images of one shape: each image pixel becomes a whole number of picture pixels.

    Parameters
    ----------
    panels : sequence of Panel
    title, subtitle : str
    handles : sequence of Artist
        Legend entries; the legend lies below the images and hides nothing.
    sky : SkyGeometry or None
        For compass and scale bar.
    dpi : int
    side : float
        Wanted length of a panel's longer side, points.
    extra_right : float
        Room right of the last panel, points (for a colour bar).
    """
    rows, cols = panels[0].image.shape[:2]
    zoom = max(1, round(side * dpi / _POINTS / max(rows, cols)))
    unit = _POINTS / dpi
    width, height = cols * zoom * unit, rows * zoom * unit
    titled = any(panel.title for panel in panels)
    top = _TITLE + (13.0 if titled else 0.0)
    content = len(panels) * width + (len(panels) - 1) * _GAP + extra_right
    strip = max(content, _MIN_WIDTH)
    columns, legend_height = _legend_layout(handles, strip - (_COMPASS + _BAR if sky else 0.0))
    foot = max(legend_height, _COMPASS - 4 if sky else 0.0, 4.0)
    figure = new_figure(_LEFT + strip + _RIGHT, top + height + _XLABEL + foot + 7.0, dpi)
    heading(figure, title, subtitle)
    axes = []
    for i, panel in enumerate(panels):
        ax = axes_at(figure, _LEFT + i * (width + _GAP), top, width, height, facecolor=DARK)
        ax.imshow(panel.image, origin="lower", interpolation="nearest", extent=panel.extent, aspect="auto")
        dress(ax, "x [pix]", "y [pix]" if i == 0 else "")
        _few_ticks(ax, width, height)
        if panel.title:
            ax.set_title(panel.title, fontsize=8.5, color=INK, loc="left", pad=3)
        axes.append(ax)
    per_pixel = width / (panels[0].extent[1] - panels[0].extent[0])
    legend = _footer(figure, top + height + _XLABEL, strip, foot, handles, columns)
    if sky is not None:
        draw_compass(legend, sky, strip - _COMPASS / 2, foot / 2, 19.0)
        draw_scale_bar(legend, sky, strip - _COMPASS - 4, foot / 2 - 4, per_pixel, _BAR - 20)
    return SkySheet(figure, tuple(axes), legend, width * height, per_pixel)


def _few_ticks(ax: Axes, width: float, height: float) -> None:
    ax.locator_params(axis="x", nbins=max(2, int(width / 55)), integer=True)
    ax.locator_params(axis="y", nbins=max(2, int(height / 40)), integer=True)


def _legend_layout(handles: Sequence[Artist], room: float) -> tuple[int, float]:
    """Columns and height of a legend in ``room`` points: as few rows as the labels allow."""
    if not handles:
        return 1, 0.0
    for columns in range(len(handles), 0, -1):
        rows = -(-len(handles) // columns)
        by_column = [handles[i : i + rows] for i in range(0, len(handles), rows)]
        widths = [max(_text_width(str(h.get_label())) for h in part) for part in by_column]
        if sum(widths) + 28.0 * len(widths) <= room or columns == 1:
            break
    return len(by_column), rows * _LEGEND_ROW + 9.0


def _text_width(text: str) -> float:
    """Width of a legend label in points, from mean advances of the default font (upper bound)."""
    advance = {"upper": 0.69, "digit": 0.64, "narrow": 0.38, "other": 0.61}
    total = 0.0
    for letter in text:
        kind = "upper" if letter.isupper() else "digit" if letter.isdigit() else "other"
        total += advance["narrow" if letter in " ijlftr()/.,:" else kind]
    return total * _LEGEND_FONT


def _footer(
    figure: Figure, top: float, width: float, height: float, handles: Sequence[Artist], columns: int
) -> Axes:
    ax = axes_at(figure, _LEFT, top, width, height, facecolor=DARK)
    ax.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if handles:
        ax.legend(
            handles=list(handles), loc="center left", ncols=columns, frameon=False, fontsize=_LEGEND_FONT,
            labelcolor=PAPER, handlelength=1.4, handletextpad=0.6, columnspacing=1.6, borderaxespad=0.5,
            labelspacing=0.45,
        )  # fmt: skip
    return ax
