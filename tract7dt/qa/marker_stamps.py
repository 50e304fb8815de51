"""Symbols as small masks, drawn once and then set wherever they are needed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.style import Symbol

__all__ = ["marker_stamp", "segment_distance"]

_F8 = NDArray[np.float64]
_Points = Sequence[tuple[float, float]]


def _regular(n: int, first_deg: float = 90.0, radius: float = 0.5) -> _Points:
    angle = np.deg2rad(first_deg) + 2 * np.pi * np.arange(n) / n
    return list(zip((radius * np.cos(angle)).tolist(), (radius * np.sin(angle)).tolist(), strict=True))


def _ellipse(n: int, wide: float, high: float, angle_deg: float) -> _Points:
    t, angle = 2 * np.pi * np.arange(n) / n, np.deg2rad(angle_deg)
    x, y = wide * np.cos(t), high * np.sin(t)
    return [
        (float(a), float(b))
        for a, b in zip(x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle))
    ]


def _star() -> _Points:
    tips, dents = _regular(5), _regular(5, 126.0, 0.19)
    return [point for pair in zip(tips, dents, strict=True) for point in pair]


def _turned(points: _Points, quarters: int) -> _Points:
    for _ in range(quarters):
        points = [(-y, x) for x, y in points]
    return points


_TRIANGLE: _Points = ((0.0, 0.5), (-0.5, -0.5), (0.5, -0.5))
_SIXTH = 1 / 6
_PLUS: _Points = (
    (-_SIXTH, 0.5), (-_SIXTH, _SIXTH), (-0.5, _SIXTH), (-0.5, -_SIXTH), (-_SIXTH, -_SIXTH), (-_SIXTH, -0.5),
    (_SIXTH, -0.5), (_SIXTH, -_SIXTH), (0.5, -_SIXTH), (0.5, _SIXTH), (_SIXTH, _SIXTH), (_SIXTH, 0.5),
)  # fmt: skip
_CROSS: _Points = (
    (-0.25, 0.5), (0.0, 0.25), (0.25, 0.5), (0.5, 0.25), (0.25, 0.0), (0.5, -0.25),
    (0.25, -0.5), (0.0, -0.25), (-0.25, -0.5), (-0.5, -0.25), (-0.25, 0.0), (-0.5, 0.25),
)  # fmt: skip
_DIAGONAL = 0.5 * 2**0.5
#: Closed outlines of a symbol of size 1, x to the right and y up.
_OUTLINES: dict[str, _Points] = {
    "o": _regular(48),
    "ellipse": _ellipse(48, 0.56, 0.336, 40.0),
    "s": _regular(4, 45.0, _DIAGONAL),
    "D": _regular(4, 90.0, _DIAGONAL),
    "d": [(0.6 * x, y) for x, y in _regular(4, 90.0, _DIAGONAL)],
    "p": _regular(5),
    "h": _regular(6),
    "H": _regular(6, 0.0),
    "8": _regular(8, 22.5),
    "*": _star(),
    "P": _PLUS,
    "X": _CROSS,
    "^": _TRIANGLE,
    "<": _turned(_TRIANGLE, 1),
    "bowtie": ((0.5, 0.4), (0.5, -0.4), (-0.5, 0.4), (-0.5, -0.4)),
    "hourglass": ((-0.4, 0.5), (0.4, 0.5), (-0.4, -0.5), (0.4, -0.5)),
    "v": _turned(_TRIANGLE, 2),
    ">": _turned(_TRIANGLE, 3),
}
_DOWN: _Points = ((0.0, -0.5), (0.4, 0.25), (-0.4, 0.25))
#: Symbols of lines from the middle.
_RAYS: dict[str, _Points] = {
    "+": ((0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)),
    "x": ((0.5, 0.5), (-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5)),
    "1": _DOWN,
    "2": _turned(_DOWN, 2),
    "3": _turned(_DOWN, 3),
    "4": _turned(_DOWN, 1),
}


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
    """Coverage of a symbol: a pixel whose middle is half a pixel from the edge is just outside or inside."""
    # a diamond reaches sqrt(2) times as far as its size says
    half = int(np.ceil(0.75 * (symbol.size + symbol.width) + 1))
    y, x = np.mgrid[half : -half - 1 : -1, -half : half + 1].astype(float)
    outline = _OUTLINES.get(symbol.marker)
    points = symbol.size * np.array(_RAYS[symbol.marker] if outline is None else outline)
    starts = np.zeros_like(points) if outline is None else np.roll(points, 1, axis=0)
    distance = np.min([segment_distance(x, y, a, b) for a, b in zip(starts, points, strict=True)], axis=0)
    if symbol.filled and outline is not None:
        distance = np.where(_inside(x, y, points), -distance, distance)
    return np.clip(0.5 + symbol.width / 2 - distance, 0, 1).astype(np.float32)


def segment_distance(x: _F8, y: _F8, start: _F8, end: _F8) -> _F8:
    """Distance of points to the straight line from ``start`` to ``end``."""
    dx, dy = end - start
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
    out: _F8 = np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)
    return out


def _inside(x: _F8, y: _F8, points: _F8) -> NDArray[np.bool_]:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(np.roll(points, 1, axis=0), points, strict=True):
        crosses = (y0 > y) != (y1 > y)
        if crosses.any():
            inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0 if y1 != y0 else 1.0))
    return inside
