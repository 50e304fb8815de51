"""Subdivision of a pixel frame into ePSF cells and patches."""

from __future__ import annotations

import numpy as np

from tract7dt.types import Box

__all__ = ["cell_boxes", "cell_tag", "grid_edges"]


def grid_edges(lo: int, hi: int, n: int) -> list[int]:
    """``n + 1`` edges from ``lo`` to ``hi``: steps of ``(hi - lo) // n``, the last one takes the rest.

    Raises
    ------
    ValueError
        If the range holds fewer than ``n`` pixels.
    """
    if n < 1 or hi - lo < n:
        raise ValueError(f"cannot divide {hi - lo} pixels into {n} parts")
    step = (hi - lo) // n
    return [lo + i * step for i in range(n)] + [hi]


def cell_tag(row: int, col: int) -> str:
    """Name of an ePSF cell: rows along y, columns along x."""
    return f"r{row:02d}_c{col:02d}"


def cell_boxes(box: Box, n: int) -> dict[tuple[int, int], Box]:
    """``(row, col) -> Box`` of the ``n`` by ``n`` cells that tile ``box``, row by row."""
    ys, xs = grid_edges(box.y0, box.y1, n), grid_edges(box.x0, box.x1, n)
    return {(r, c): Box(xs[c], xs[c + 1], ys[r], ys[r + 1]) for r, c in np.ndindex(n, n)}
