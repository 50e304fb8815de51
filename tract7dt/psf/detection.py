"""What one cell holds in one band: background, noise and detections, found once and used by all checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import sep
from numpy.typing import NDArray
from scipy import ndimage

from tract7dt.sep_buffers import sep_buffers
from tract7dt.types import BAD_SATURATED, Box

if TYPE_CHECKING:
    from tract7dt.settings import EpsfSettings
    from tract7dt.types import Frame

__all__ = ["CellImage", "Detections", "detect_cell", "stamp_width"]

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: Pixels of a detection for the source mask and the neighbours; faint ones matter, so it is small.
MIN_NEIGHBOUR_AREA = 5
DEBLEND_LEVELS, DEBLEND_CONTRAST = 32, 0.005
SUB_OBJECTS = 16384


@dataclass(frozen=True, slots=True)
class Detections:
    """All objects of a cell's window, faint neighbours included.

    Attributes
    ----------
    x, y : ndarray (n,)
        Windowed (or barycentric) position, window pix.
    flux : ndarray (n,)
        Isophotal flux, scaled counts.
    ratio : ndarray (n,)
        SEP a / b.
    rms_size : ndarray (n,)
        sqrt(a b), pix.
    n_pixels : ndarray, int64 (n,)
        Pixels of the isophote.
    n_bright : ndarray, int64 (n,)
        Pixels above ``epsf.thresh_sigma``.
    """

    x: F8
    y: F8
    flux: F8
    ratio: F8
    rms_size: F8
    n_pixels: I8
    n_bright: I8

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class CellImage:
    """Pixels of a cell with the margin that stars near its border need.

    Attributes
    ----------
    cell, window, frame_box : Box
        The cell; the cell with margin; the whole frame (all in working-frame pixels).
    data : ndarray, float32 (ny, nx)
        Window with the background map subtracted, 0 where not finite.
    background : ndarray, float32 (ny, nx)
        The map; 0 everywhere when ``epsf.background_subtract_patch`` is false.
    noise : ndarray, float32 (ny, nx)
        Sky sigma per pixel.
    nonfinite, saturated : ndarray, bool (ny, nx)
    segments : ndarray, int32 (ny, nx)
        0 or 1 + index of the detection.
    objects : Detections
    gain : float
        Electrons per scaled count.
    """

    cell: Box
    window: Box
    frame_box: Box
    data: F4
    background: F4
    noise: F4
    nonfinite: Bool
    saturated: Bool
    segments: NDArray[np.int32]
    objects: Detections
    gain: float


def stamp_width(epsf: EpsfSettings) -> int:
    """Width of the star cutouts: ``cutout_size``, never less than the stamp that is made from them; odd."""
    return max(epsf.cutout_size, epsf.final_psf_size) | 1


def detect_cell(frame: Frame, cell: Box, epsf: EpsfSettings) -> CellImage:
    """Background, noise and detections of one cell.

    Two passes: a first background (clipped, no mask) to find the sources, a second one without them.

    Parameters
    ----------
    frame : Frame
        Only the cell's window is read.
    cell : Box
    epsf : EpsfSettings
    """
    frame_box = Box(0, frame.data.shape[1], 0, frame.data.shape[0])
    reach = math.ceil(epsf.gaia_match_r_pix) + 1  # a Gaia star beyond the border may snap into the cell
    window = cell.expanded(stamp_width(epsf) // 2 + max(epsf.edge_pad, reach), frame_box)
    pixels, bits = frame.window(window), frame.bad_bits(window)
    nonfinite = ~np.isfinite(pixels)
    saturated = (bits & BAD_SATURATED) > 0
    pixels[nonfinite] = 0.0
    first = _background(pixels, nonfinite | saturated, epsf)
    flat = pixels - first.back()
    sigma = first.globalrms if first.globalrms > 0 else float(frame.sky_sigma)
    with sep_buffers(pixels.size, SUB_OBJECTS):
        found, segments = sep.extract(
            flat,
            epsf.background_source_mask_sigma,
            err=sigma,
            mask=nonfinite,
            minarea=MIN_NEIGHBOUR_AREA,
            deblend_nthresh=DEBLEND_LEVELS,
            deblend_cont=DEBLEND_CONTRAST,
            segmentation_map=True,
        )
    sources = segments > 0
    if epsf.background_mask_dilate > 0 and sources.any():
        sources = ndimage.binary_dilation(sources, iterations=epsf.background_mask_dilate)
    masked = sources | nonfinite | saturated
    second = _background(pixels, masked, epsf) if masked.mean() < 0.9 else first
    background = second.back() if epsf.background_subtract_patch else np.zeros_like(pixels)
    noise = second.rms()
    noise = np.where(noise > 0, noise, np.float32(frame.sky_sigma)).astype(np.float32)
    data = pixels - background
    data[nonfinite] = 0.0
    return CellImage(
        cell,
        window,
        frame_box,
        data,
        background.astype(np.float32),
        noise,
        nonfinite,
        saturated,
        segments,
        _objects(found, segments, data, noise, epsf.thresh_sigma),
        float(frame.gain),
    )


def _background(pixels: F4, mask: Bool, epsf: EpsfSettings) -> sep.Background:
    ny, nx = pixels.shape
    return sep.Background(
        pixels,
        mask=mask,
        bw=min(epsf.background_boxsize, nx),
        bh=min(epsf.background_boxsize, ny),
        fw=epsf.background_filtersize,
        fh=epsf.background_filtersize,
    )


def _objects(
    found: NDArray[np.void], segments: NDArray[np.int32], data: F4, noise: F4, thresh_sigma: float
) -> Detections:
    bright = segments[data > thresh_sigma * noise]
    n_bright = np.bincount(bright, minlength=len(found) + 1)[1:]
    x, y = found["x"].astype(float), found["y"].astype(float)
    a, b = np.maximum(found["a"], 1e-3), np.maximum(found["b"], 1e-3)
    return Detections(
        x,
        y,
        found["flux"].astype(float),
        (a / b).astype(float),
        np.sqrt(a * b).astype(float),
        found["npix"].astype(np.int64),
        n_bright,
    )
