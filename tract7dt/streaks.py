"""Satellite and aircraft trails: masked in the band that they cross, not in the others.

A trail is in one exposure of one band. On the white stack it is diluted by all other bands, and SEP may take
its centre for a catalogue source that happens to lie there; so it is looked for band by band, by its shape.
"""

from __future__ import annotations

import logging

import numpy as np
import sep
from scipy import ndimage

from tract7dt.sep_buffers import sep_buffers
from tract7dt.store.npy import read_rows, row_strips
from tract7dt.types import F4, F8, Bool, Frame

__all__ = ["MIN_ELONGATION", "MIN_LENGTH", "find_streaks", "is_streak"]

log = logging.getLogger(__name__)

#: a / b of a streak, and its length in pixels (for a uniform line the rms a is length / sqrt(12)): beyond any
#: galaxy, whose b/a hardly falls below 0.15, and beyond a blended pair of stars.
MIN_ELONGATION = 7.0
MIN_LENGTH = 100.0

#: Threshold in sky sigma after SEP's matched filter, and pixels above it.
_THRESHOLD = 2.0
_MIN_AREA = 100
#: Pixels around the footprint that are masked with it: a trail is as wide as the seeing.
_GROW = 4
#: Half-width of the line along which a trail is followed to the edges of the frame, pix: where it is broken
#: (bad columns, a source) or fades, it is still there.
_HALF_WIDTH = 6.0
#: Pixels of a band that are looked at at once, and rows beyond its own that each part of it sees: of a trail that
#: crosses the border of two parts, one sees a piece that is long enough.
_STRIP_PIXELS = 1 << 23
_MARGIN_ROWS = 128
#: Pieces whose directions differ by less (rad) and that lie on one line are one trail.
_SAME_ANGLE = np.radians(3.0)


def is_streak(a: np.ndarray, b: np.ndarray) -> Bool:
    """Whether detections of rms semi-axes ``a`` and ``b`` (pix) have the shape of a trail."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return (a >= MIN_ELONGATION * np.maximum(b, 0.1)) & (a * np.sqrt(12.0) >= MIN_LENGTH)


def find_streaks(frame: Frame) -> Bool | None:
    """Pixels of one band that a trail covers.

    Parameters
    ----------
    frame : Frame

    Returns
    -------
    ndarray, bool (ny, nx), or None
        None where there is no trail, which is the rule.
    """
    ny, nx = frame.data.shape
    if max(ny, nx) < MIN_LENGTH:
        return None
    mask: Bool | None = None
    pieces = []
    for y0, y1, _, _ in row_strips(ny, nx, _STRIP_PIXELS, _MARGIN_ROWS):
        found, footprint = _pieces(np.asarray(read_rows(frame.data, y0, y1), np.float32), frame.sky_sigma)
        if footprint is None:
            continue
        mask = np.zeros((ny, nx), bool) if mask is None else mask
        mask[y0:y1] |= footprint
        found["y"] += y0
        pieces.append(found)
    if mask is None:
        return None
    trails = _trails(np.concatenate(pieces))
    log.info("band %s: %d trail(s), up to %.0f pix long", frame.band, len(trails),
             np.sqrt(12.0) * float(trails["a"][0]))  # fmt: skip
    for trail in trails:
        _draw_line(mask, float(trail["x"]), float(trail["y"]), float(trail["theta"]))
    return mask


def _pieces(data: F4, sky_sigma: float) -> tuple[np.ndarray, Bool | None]:
    """Detections of the shape of a trail and the pixels around them; None where there is none."""
    blank = ~np.isfinite(data)
    data[blank] = 0.0
    with sep_buffers(data.size):
        found, footprint = sep.extract(
            data, _THRESHOLD, err=sky_sigma, mask=blank, minarea=_MIN_AREA, deblend_nthresh=1,
            deblend_cont=1.0, clean=False, segmentation_map=True,
        )  # fmt: skip
    labels = np.flatnonzero(is_streak(found["a"], found["b"])) + 1
    if labels.size == 0:
        return found[:0], None
    mask = ndimage.binary_dilation(np.isin(footprint, labels), iterations=_GROW)
    return found[labels - 1], np.asarray(mask, bool)


def _trails(pieces: np.ndarray) -> np.ndarray:
    """The longest piece of every trail, longest first: what else lies on its line belongs to it."""
    kept: list[int] = []
    for i in np.argsort(-pieces["a"], kind="stable"):
        piece = pieces[i]
        known = pieces[kept]
        turn = np.abs((known["theta"] - piece["theta"] + np.pi / 2) % np.pi - np.pi / 2)
        if not np.any((turn < _SAME_ANGLE) & (_distance(piece["x"], piece["y"], known) <= _HALF_WIDTH)):
            kept.append(int(i))
    return pieces[kept]


def _distance(x: float, y: float, lines: np.ndarray) -> F8:
    """Distance of (x, y) from each line, pix."""
    across = (x - lines["x"]) * np.sin(lines["theta"]) - (y - lines["y"]) * np.cos(lines["theta"])
    return np.asarray(np.abs(across), np.float64)


def _draw_line(mask: Bool, x: float, y: float, theta: float) -> None:
    """Set the pixels within ``_HALF_WIDTH`` of the line through (x, y) at angle ``theta`` (rad)."""
    columns = np.arange(mask.shape[1])
    for row in range(mask.shape[0]):
        distance = (columns - x) * np.sin(theta) - (row - y) * np.cos(theta)
        mask[row, np.abs(distance) <= _HALF_WIDTH] = True
