"""A light canvas for every picture of a run, from overlays of the field to cutouts of sources by the hundred.

Every pixel is an index into one fixed palette (sky greys, the signed scale, a colour cube), so that an image
goes in by one look-up and the file comes out without a search for colours. Such a picture takes milliseconds,
a Matplotlib figure hundreds. Symbols and colours are those of :mod:`tract7dt.qa.style`.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

from tract7dt.qa.color import to_rgb
from tract7dt.qa.marker_stamps import marker_stamp, segment_distance
from tract7dt.qa.palette import PALETTE, to_index
from tract7dt.qa.style import PAPER, Symbol
from tract7dt.store import write_bytes
from tract7dt.types import F8

__all__ = ["Sheet", "coverage", "lay", "lay_mark", "lay_marks", "text_width"]

U1 = NDArray[np.uint8]
U2 = NDArray[np.uint16]

#: Fewer symbols than this are set one by one, more of them in one go over the whole image.
_FEW = 60
#: Share of pixels that are as those above, from which on a row is written as differences.
_ALIKE = 0.6
#: Steps in which a colour covers a pixel.
_COVER = 32
_PNG = b"\x89PNG\r\n\x1a\n"


@functools.cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    # Matplotlib brings the fonts; to import it would take longer than many pictures.
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("matplotlib is not installed: its fonts are those of the pictures")
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / name
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@functools.lru_cache(maxsize=2048)
def _glyph(letter: str, size: int, bold: bool) -> U2:
    """Coverage of a letter; as high as the font, as wide as the way to the next letter."""
    font = _font(size, bold)
    ascent, descent = font.getmetrics()
    core, (dx, dy) = font.getmask2(letter, mode="L", anchor="ls")
    width, height = core.size
    out = np.zeros((ascent + descent, max(round(font.getlength(letter)), 1)), np.float32)
    drawn = np.frombuffer(bytes(core), np.uint8).reshape(height, width) / np.float32(255)
    top, left = max(ascent + dy, 0), max(dx, 0)
    drawn = drawn[: out.shape[0] - top, : max(out.shape[1] - left, 0)]
    out[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    return coverage(out)


def _text_mask(text: str, size: int, bold: bool) -> U2:
    """Coverage of a line of text, letter by letter: most texts are numbers that come once."""
    return np.concatenate([_glyph(letter, size, bold) for letter in text or " "], axis=1)


def text_width(text: str, size: int, bold: bool = False) -> int:
    """Width of a line of text in pixels."""
    return sum(_glyph(letter, size, bold).shape[1] for letter in text or " ")


def coverage(mask: NDArray[np.floating]) -> U2:
    """How far a colour covers pixels (0 to 1), coded for :func:`lay`: 256 times one of a few steps."""
    steps: U2 = np.round(mask * np.float32(_COVER)).astype(np.uint16) * np.uint16(256)
    return steps


@functools.lru_cache(maxsize=128)
def _mixed(color: str) -> U1:
    """Palette index of a colour over every index of the palette, for every step of coverage, flat."""
    share = (np.arange(_COVER + 1) / _COVER)[:, None, None]
    mixed = to_index(PALETTE * (1 - share) + _rgb(color) * share)
    mixed[0] = np.arange(256)
    return mixed.ravel()


@functools.cache
def _rgb(color: str) -> NDArray[np.float32]:
    return np.array(to_rgb(color), np.float32) * 255


@functools.cache
def _index(color: str) -> int:
    return int(to_index(_rgb(color)))


def lay(pixels: U1, left: int, top: int, mask: U2, color: str) -> None:
    """Lay a colour over images of palette indices as far as ``mask`` covers; what sticks out is cut off.

    Parameters
    ----------
    pixels : ndarray, uint8 (..., height, width)
        Changed in place, all images alike.
    left, top : int
        Where the mask begins.
    mask : ndarray, uint16
        As :func:`coverage` makes it.
    color : str
    """
    height, width = pixels.shape[-2:]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + mask.shape[1], width), min(top + mask.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    part = pixels[..., y0:y1, x0:x1]
    part[...] = _mixed(color).take(mask[y0 - top : y1 - top, x0 - left : x1 - left] + part)


@functools.lru_cache(maxsize=256)
def _stamp(symbol: Symbol, size: float, width: float, rim: bool) -> tuple[tuple[str, U2], ...]:
    return tuple((color, coverage(mask)) for color, mask in marker_stamp(symbol, size, width, rim))


def lay_mark(
    pixels: U1, symbol: Symbol, x: float, y: float, *, size: float, width: float, rim: bool = True
) -> None:
    """Set a symbol with its middle at ``(x, y)``, row 0 being the upper one; see :func:`lay`."""
    for color, mask in _stamp(symbol, round(size, 1), round(width, 1), rim):
        half = mask.shape[0] // 2
        lay(pixels, round(x) - half, round(y) - half, mask, color)


def lay_marks(
    pixels: U1, symbol: Symbol, x: F8, y: F8, *, size: float, width: float, rim: bool = True
) -> None:
    """Set a symbol at many places; where two of them meet, no rim covers a line. See :func:`lay_mark`."""
    across, down = np.rint(x).astype(int), np.rint(y).astype(int)
    rows, columns = pixels.shape[-2:]
    for color, mask in _stamp(symbol, round(size, 1), round(width, 1), rim):
        half = mask.shape[0] // 2
        if len(across) < _FEW:
            for column, row in zip(across.tolist(), down.tolist(), strict=True):
                lay(pixels, column - half, row - half, mask, color)
            continue
        near = (across > -half) & (across < columns + half) & (down > -half) & (down < rows + half)
        # with a margin, so that no symbol has to be cut
        cover = np.zeros((rows + 4 * half, columns + 4 * half), np.uint16)
        flat, place = cover.reshape(-1), (down[near] + half) * cover.shape[1] + across[near] + half
        for dy, dx in zip(*np.nonzero(mask), strict=True):
            at = place + (dy * cover.shape[1] + dx)
            flat[at] = np.maximum(flat[at], mask[dy, dx])
        lay(pixels, 0, 0, cover[2 * half : 2 * half + rows, 2 * half : 2 * half + columns], color)


@dataclass
class Sheet:
    """A picture in the making.

    Attributes
    ----------
    pixels : ndarray, uint8 (height, width)
        Palette indices; row 0 is the upper one.
    texts : list of str
        What was written, in order.
    marks : dict
        Where each symbol was set, by its name, in pixels of the picture.
    enlarged : bool
        Whether an image was enlarged: its rows repeat.
    """

    pixels: U1
    texts: list[str] = field(default_factory=list)
    marks: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    enlarged: bool = False

    @classmethod
    def blank(cls, width: int, height: int, color: str = PAPER) -> Sheet:
        """An empty picture of one colour."""
        index = _index(color)
        return cls(np.full((height, width), index, np.uint8))

    def copy(self) -> Sheet:
        """The same so far, to be gone on with alone."""
        return Sheet(self.pixels.copy(), list(self.texts), {k: list(v) for k, v in self.marks.items()})

    def fill(self, left: int, top: int, width: int, height: int, color: str) -> None:
        """Fill a rectangle."""
        rows, cols = slice(max(top, 0), max(top + height, 0)), slice(max(left, 0), max(left + width, 0))
        self.pixels[rows, cols] = _index(color)

    def image(self, left: int, top: int, index: U1, zoom: int = 1) -> None:
        """Set an image of palette indices whose first row is the lowest, as in the sky frames."""
        shown = index[::-1]
        if zoom > 1:
            self.enlarged = True
            shown = shown.repeat(zoom, axis=0).repeat(zoom, axis=1)
        self.pixels[top : top + shown.shape[0], left : left + shown.shape[1]] = shown

    def text(
        self,
        left: float,
        top: float,
        text: str,
        *,
        size: int = 12,
        color: str = "#000000",
        bold: bool = False,
        align: str = "left",
    ) -> None:
        """Write one line; ``left`` is its left end, its middle or its right end by ``align``."""
        self.texts.append(text)
        mask = _text_mask(text, size, bold)
        shift = {"left": 0.0, "centre": 0.5, "right": 1.0}[align]
        lay(self.pixels, round(left - shift * mask.shape[1]), round(top), mask, color)

    def texts_in_line(
        self, middles: Sequence[float], top: float, texts: Sequence[str], *, size: int, color: str
    ) -> None:
        """Write several texts at one height, each around its middle; sooner than one by one."""
        self.texts += texts
        for middle, text in zip(middles, texts, strict=True):
            mask = _text_mask(text, size, False)
            lay(self.pixels, round(middle - mask.shape[1] / 2), round(top), mask, color)

    def mark(
        self, name: str, symbol: Symbol, x: float, y: float, *, size: float, width: float, rim: bool = True
    ) -> None:
        """Set a symbol with its middle at ``(x, y)`` pixels of the picture."""
        self.marks.setdefault(name, []).append((x, y))
        lay_mark(self.pixels, symbol, x, y, size=size, width=width, rim=rim)

    def mark_all(
        self, name: str, symbol: Symbol, x: F8, y: F8, *, size: float, width: float, rim: bool = True
    ) -> None:
        """Set a symbol at many places, in pixels of the picture."""
        self.marks.setdefault(name, []).extend(zip(x.tolist(), y.tolist(), strict=True))
        lay_marks(self.pixels, symbol, x, y, size=size, width=width, rim=rim)

    def veil(self, left: int, top: int, width: int, height: int, color: str, share: float) -> None:
        """A translucent rectangle."""
        if width > 0 and height > 0:
            lay(self.pixels, left, top, coverage(np.full((height, width), share, np.float32)), color)

    def stroke(self, x0: float, y0: float, x1: float, y1: float, color: str, width: float) -> None:
        """A straight line with smooth edges."""
        pad = int(np.ceil(width)) + 1
        left, top = int(min(x0, x1)) - pad, int(min(y0, y1)) - pad
        y, x = np.mgrid[top : int(max(y0, y1)) + pad + 1, left : int(max(x0, x1)) + pad + 1].astype(float)
        distance = segment_distance(x, y, np.array([x0, y0]), np.array([x1, y1]))
        lay(self.pixels, left, top, coverage(np.clip(0.5 + width / 2 - distance, 0, 1)), color)

    def outline(self, left: int, top: int, width: int, height: int, color: str, dash: int = 0) -> None:
        """A rectangle one pixel wide, dashed if ``dash`` is positive."""
        index = _index(color)
        for row in (top, top + height - 1):
            self._run(row, slice(left, left + width), index, dash)
        for column in (left, left + width - 1):
            self._run(slice(top, top + height), column, index, dash)

    def _run(self, rows: int | slice, cols: int | slice, index: int, dash: int) -> None:
        limit = self.pixels.shape
        for at, size in ((rows, limit[0]), (cols, limit[1])):
            if isinstance(at, int) and not 0 <= at < size:
                return
        part = self.pixels[_inside(rows), _inside(cols)]
        on = slice(None) if dash == 0 else (np.arange(part.size) // dash) % 2 == 0
        part[on] = index

    def line(self, x0: float, y0: float, x1: float, y1: float, color: str) -> None:
        """A straight line one pixel wide."""
        n = int(max(abs(x1 - x0), abs(y1 - y0))) + 1
        x, y = np.rint(np.linspace(x0, x1, n)).astype(int), np.rint(np.linspace(y0, y1, n)).astype(int)
        there = (x >= 0) & (y >= 0) & (x < self.pixels.shape[1]) & (y < self.pixels.shape[0])
        self.pixels[y[there], x[there]] = _index(color)

    def rgb(self) -> U1:
        """The picture in colours (height, width, 3)."""
        out: U1 = PALETTE[self.pixels]
        return out

    def save(self, path: str | os.PathLike[str], dpi: int = 100) -> None:
        """Write the picture as a PNG with palette, whole or not at all."""
        write_bytes(path, self.png(dpi))

    def png(self, dpi: int = 100) -> bytes:
        """The picture as a PNG with palette.

        Noise does not repeat, so a search for repetitions would only take time: runs of one value and
        short codes for frequent ones are all that is used (zlib's Z_RLE).
        """
        height, width = self.pixels.shape
        rows = np.zeros((height, width + 1), np.uint8)  # a leading 0 a row: no filter
        rows[:, 1:] = self.pixels
        # rows that mostly repeat the one above (enlarged images) as differences from it: filter 2
        if self.enlarged:
            alike = 1 + np.flatnonzero((self.pixels[1:] == self.pixels[:-1]).mean(axis=1) > _ALIKE)
            rows[alike, 1:] -= self.pixels[alike - 1]
            rows[alike, 0] = 2
        packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
        content = packer.compress(rows.data) + packer.flush()
        per_metre = round(dpi / 0.0254)
        return _PNG + b"".join(
            (
                _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
                _chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
                _chunk(b"PLTE", PALETTE.tobytes()),
                _chunk(b"IDAT", content),
                _chunk(b"IEND", b""),
            )
        )


def _inside(at: int | slice) -> int | slice:
    return at if isinstance(at, int) else slice(max(at.start, 0), max(at.stop, 0))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
