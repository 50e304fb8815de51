"""Colours by their hexadecimal names, and scales of colours between a few of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tract7dt.types import F8

__all__ = ["ColorScale", "to_hex", "to_rgb"]


def to_rgb(color: str) -> tuple[float, float, float]:
    """Red, green and blue, 0 to 1, of ``#rrggbb``."""
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def to_hex(rgb: Sequence[float] | F8) -> str:
    """``#rrggbb`` of red, green and blue, 0 to 1."""
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in rgb)


class ColorScale:
    """Colours in equal steps from 0 to 1, straight lines in RGB between them.

    Parameters
    ----------
    colors : sequence of str
    """

    def __init__(self, colors: Sequence[str]) -> None:
        self._rgb = np.array([to_rgb(color) for color in colors])

    def __call__(self, value: F8 | float) -> F8:
        """Red, green and blue (..., 3) of values (...); those outside of [0, 1] have the colour of the end."""
        at = np.clip(np.asarray(value, float), 0, 1) * (len(self._rgb) - 1)
        low = np.minimum(at.astype(int), len(self._rgb) - 2)
        share = (at - low)[..., None]
        mixed: F8 = self._rgb[low] * (1 - share) + self._rgb[low + 1] * share
        return mixed
