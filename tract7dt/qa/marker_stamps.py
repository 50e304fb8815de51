"""Symbols as small masks, drawn once by Matplotlib and then set wherever they are needed."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tract7dt.qa.style import Symbol, draw_symbols

__all__ = ["marker_stamp"]


@functools.lru_cache(maxsize=256)
def marker_stamp(
    symbol: Symbol, size: float, width: float, rim: bool
) -> tuple[tuple[str, NDArray[np.float32]], ...]:
    """Masks of a symbol with their colours, in the order in which they are laid on.

    Parameters
    ----------
    symbol : Symbol
    size, width : float
        Of the symbol and of its lines, pixels.
    rim : bool
        Whether a dark rim lies below it, so that it shows on bright stars, too.

    Returns
    -------
    tuple of (str, ndarray float32)
        Square masks of odd side: how far the colour covers a pixel, 0 to 1.
    """
    drawn = replace(symbol, size=size, width=width)
    layers = [(symbol.color, _mask(drawn))]
    if rim and not symbol.filled:
        layers.insert(0, ("#000000", 0.55 * _mask(replace(drawn, width=width + 1.4))))
    return tuple(layers)


def _mask(symbol: Symbol) -> NDArray[np.float32]:
    """Coverage of a symbol; one point is one pixel at 72 dots per inch."""
    # a diamond reaches sqrt(2) times as far as its size says
    side = 2 * int(np.ceil(0.75 * (symbol.size + symbol.width) + 2)) + 1
    figure = Figure(figsize=(side / 72, side / 72), dpi=72)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, side), ylim=(0, side))
    ax.set_axis_off()
    black = replace(symbol, color="#000000")
    draw_symbols(ax, black, np.array([side / 2]), np.array([side / 2]), rim=False)
    canvas.draw()
    red = np.asarray(canvas.buffer_rgba())[..., 0]
    return np.float32(1) - red.astype(np.float32) / np.float32(255)
