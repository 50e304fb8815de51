"""The 256 colours of the raster pictures: greys, the signed scale, a cube of colours, translucent tints."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.color import to_rgb
from tract7dt.qa.style import NO_DATA, SIGNED

__all__ = [
    "GREYS",
    "NO_DATA_INDEX",
    "PALETTE",
    "SIGNED_STEPS",
    "TINTS",
    "grey_index",
    "signed_index",
    "tinted",
    "to_index",
]

U1 = NDArray[np.uint8]

#: Grey levels, darkest first, at the beginning of the palette.
GREYS = 64
NO_DATA_INDEX = GREYS
#: Levels of the signed scale, the lowest first; zero in the middle.
SIGNED_STEPS = 41
_SIGNED_FIRST = GREYS + 1
_CUBE = 5
#: Levels of grey under each of the translucent colours of :data:`TINTS`, at the end of the palette.
_TINT_LEVELS, _TINT_SHARE = 12, 0.38
TINTS = ("#ff7a00", "#8f6bff")


def _palette() -> U1:
    greys = np.repeat(np.linspace(6, 255, GREYS)[:, None], 3, axis=1)
    signed = np.asarray(SIGNED(np.linspace(0, 1, SIGNED_STEPS))) * 255
    steps = np.linspace(0, 255, _CUBE)
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    under = np.repeat(np.linspace(6, 255, _TINT_LEVELS)[:, None], 3, axis=1)
    tints = [(1 - _TINT_SHARE) * under + _TINT_SHARE * 255 * np.array(to_rgb(tint)) for tint in TINTS]
    rest = np.zeros((256 - _USED - 2 * _TINT_LEVELS, 3))
    parts = [greys, np.array([to_rgb(NO_DATA)]) * 255, signed, cube, *tints, rest]
    return np.round(np.concatenate(parts)).astype(np.uint8)


_USED = GREYS + 1 + SIGNED_STEPS + _CUBE**3
PALETTE = _palette()


@functools.cache
def _nearest() -> U1:
    """Palette index of every colour of 5, 6 and 5 bits, the nearer one of the nearest grey and of the cube."""
    red, green, blue = np.meshgrid(*(np.linspace(0, 255, n) for n in (32, 64, 32)), indexing="ij")
    colors = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    grey = np.clip(np.round((colors.mean(axis=1) - 6) / 249 * (GREYS - 1)), 0, GREYS - 1).astype(int)
    steps = np.round(colors / 255 * (_CUBE - 1)).astype(int)
    cube = GREYS + 1 + SIGNED_STEPS + (steps[:, 0] * _CUBE + steps[:, 1]) * _CUBE + steps[:, 2]
    to_grey, to_cube = (((PALETTE[index] - colors) ** 2).sum(axis=1) for index in (grey, cube))
    return np.where(to_grey <= to_cube, grey, cube).astype(np.uint8)


def to_index(rgb: NDArray[np.floating]) -> U1:
    """Palette index of the nearest colour, 0 to 255 (..., 3); the signed scale is for images alone."""
    code = np.clip(rgb, 0, 255).astype(np.uint16)
    return _nearest()[((code[..., 0] >> 3) << 11) | ((code[..., 1] >> 2) << 5) | (code[..., 2] >> 3)]


def grey_index(level: NDArray[np.floating], levels: int = GREYS) -> U1:
    """Palette index of brightness in [0, 1]; NaN becomes the colour of no data.

    Fewer ``levels`` make noise compress better.
    """
    missing = np.isnan(level)
    step = (GREYS - 1) / (levels - 1)
    index = np.round(np.round(np.where(missing, 0.0, level) * (levels - 1)) * step).astype(np.uint8)
    index[missing] = NO_DATA_INDEX
    return index


def signed_index(value: NDArray[np.floating], limit: float) -> U1:
    """Palette index of a signed quantity that is shown from ``-limit`` to ``limit``."""
    missing = ~np.isfinite(value)
    scaled = np.clip(np.where(missing, 0.0, value) / limit, -1.0, 1.0)
    index = np.round(scaled * (SIGNED_STEPS // 2)).astype(np.int16) + SIGNED_STEPS // 2 + _SIGNED_FIRST
    index[missing] = NO_DATA_INDEX
    return index.astype(np.uint8)


def tinted(index: U1, where: NDArray[np.bool_], number: int) -> U1:
    """Grey palette indices with a translucent colour over them (``TINTS[number]``) ``where`` it is wanted."""
    level = np.minimum(index, GREYS - 1).astype(float) / (GREYS - 1)
    over = _USED + number * _TINT_LEVELS + np.round(level * (_TINT_LEVELS - 1)).astype(np.uint8)
    return np.where(where, over, index).astype(np.uint8)
