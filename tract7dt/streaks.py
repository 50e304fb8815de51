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
from tract7dt.store.npy import read_rows
from tract7dt.types import Bool, Frame

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
_PIXSTACK = 20_000_000


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
    data = np.array(read_rows(frame.data, 0, ny), dtype=np.float32)
    blank = ~np.isfinite(data)
    data[blank] = 0.0
    with sep_buffers(min(data.size, _PIXSTACK)):
        found, footprint = sep.extract(
            data, _THRESHOLD, err=frame.sky_sigma, mask=blank, minarea=_MIN_AREA, deblend_nthresh=1,
            deblend_cont=1.0, clean=False, segmentation_map=True,
        )  # fmt: skip
    labels = np.flatnonzero(is_streak(found["a"], found["b"])) + 1
    if labels.size == 0:
        return None
    log.info("band %s: %d trail(s), up to %.0f pix long", frame.band, labels.size,
             np.sqrt(12.0) * float(found["a"][labels - 1].max()))  # fmt: skip
    mask = ndimage.binary_dilation(np.isin(footprint, labels), iterations=_GROW)
    for streak in found[labels - 1]:
        _draw_line(mask, float(streak["x"]), float(streak["y"]), float(streak["theta"]))
    return np.asarray(mask, bool)


def _draw_line(mask: Bool, x: float, y: float, theta: float) -> None:
    """Set the pixels within ``_HALF_WIDTH`` of the line through (x, y) at angle ``theta`` (rad)."""
    columns = np.arange(mask.shape[1])
    for row in range(mask.shape[0]):
        distance = (columns - x) * np.sin(theta) - (row - y) * np.cos(theta)
        mask[row, np.abs(distance) <= _HALF_WIDTH] = True
