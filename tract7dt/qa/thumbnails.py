"""Small pictures within a text: what a page shows that cannot reach the files of the machine that made them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tract7dt.types import F8

__all__ = ["data_url", "data_urls", "tiles"]

_QUALITY = 72
_SMALLEST = 48
_MAX_PIXELS = 400_000_000


def data_urls(pictures: Sequence[Path | Image.Image], width: int, budget: int) -> list[str]:
    """Pictures as ``data:`` URLs that take at most ``budget`` characters together.

    Parameters
    ----------
    pictures : sequence of Path or Image
    width : int
        Largest width, pix; less where the budget asks for it.
    budget : int

    Returns
    -------
    list of str
        One a picture; "" where it does not fit at any width that shows something.
    """
    each = budget // max(1, len(pictures))
    return [data_url(picture, width, each) for picture in pictures]


def data_url(picture: Path | Image.Image, width: int, budget: int) -> str:
    """One picture as a ``data:`` URL of at most ``budget`` characters; "" if it cannot be."""
    if isinstance(picture, Path):
        try:
            with Image.open(picture) as opened:
                if opened.width * opened.height > _MAX_PIXELS:
                    return ""
                image = opened.convert("RGB")
        except (OSError, ValueError):
            return ""
    else:
        image = picture.convert("RGB")
    size = min(width, image.width)
    while size >= min(_SMALLEST, image.width):
        url = _encoded(image, size)
        if len(url) <= budget:
            return url
        size = int(size * 0.8)
    return ""


def _encoded(image: Image.Image, width: int) -> str:
    height = max(1, round(image.height * width / image.width))
    small = image if width == image.width else image.resize((width, height), Image.Resampling.LANCZOS)
    held = io.BytesIO()
    small.save(held, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode("ascii")


def tiles(stamps: Sequence[Sequence[F8 | None]], side: int = 64) -> Image.Image:
    """Stamps side by side, each stretched by itself so that its wings show.

    Parameters
    ----------
    stamps : sequence of sequences of (n, n) arrays or None
        By row, the first at the bottom (as cells of a field); None: grey.
    side : int
        Of a tile, pix.
    """
    rows, columns = len(stamps), max(len(row) for row in stamps)
    sheet = Image.new("L", (columns * side, rows * side), 96)
    for r, row in enumerate(stamps):
        for c, stamp in enumerate(row):
            if stamp is not None:
                tile = Image.fromarray(_stretched(stamp)[::-1]).resize((side - 2, side - 2))
                sheet.paste(tile, (c * side + 1, (rows - 1 - r) * side + 1))
    return sheet


def _stretched(stamp: F8) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """0 ... 255 by the inverse hyperbolic sine: a thousandth of the peak is seen."""
    peak = float(np.nanmax(stamp))
    if not np.isfinite(peak) or peak <= 0:
        return np.zeros(stamp.shape, np.uint8)
    scaled = np.arcsinh(np.nan_to_num(stamp) / peak * 300.0) / np.arcsinh(300.0)
    return (np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)
