"""From large float images to small grey ones: block mean and asinh stretch, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.color import to_rgb
from tract7dt.qa.style import NO_DATA
from tract7dt.types import F4, U1, Bool, Box

__all__ = ["Stretch", "block_any", "block_mean", "display_factor", "grey", "measure_stretch"]

# Enough grey levels to look smooth, few enough that sky noise compresses.
_LEVELS = 56
_PALETTE = np.empty((_LEVELS + 1, 4), dtype=np.uint8)
_PALETTE[:_LEVELS, :3] = np.linspace(6, 255, _LEVELS).astype(np.uint8)[:, None]
_PALETTE[_LEVELS, :3] = np.round(np.array(to_rgb(NO_DATA)) * 255)
_PALETTE[:, 3] = 255
_STRIP_PIXELS = 4_000_000
_SAMPLE = 60_000
# Below this many pixels on the long side, a coarser picture would save nothing and cost detail.
_SMALL = 700


def display_factor(shape: tuple[int, int], wanted: int, max_pixels: int) -> int:
    """Block size that brings an image to its display size.

    Parameters
    ----------
    shape : (ny, nx)
    wanted : int
        Block size asked for. A frame that would come out smaller than 700 pixels is averaged less;
        one that would come out larger than ``max_pixels`` is averaged more.
    max_pixels : int
        Longest side that can be shown.
    """
    longest = max(*shape, 1)
    relaxed = min(max(wanted, 1), max(1, longest // _SMALL))
    return max(relaxed, -(-longest // max(max_pixels, 1)))


def block_mean(image: NDArray[np.floating], factor: int, box: Box | None = None) -> F4:
    """Mean over blocks of ``factor`` by ``factor`` pixels of ``image`` within ``box``.

    Parameters
    ----------
    image : ndarray (ny, nx)
        Any float dtype; may be a memory map, which is read by strips of rows.
    factor : int
        Block size; blocks at the upper and right edge may be partial.
    box : Box, optional
        Region to show; what lies outside of the image is NaN. Default: the whole image.

    Returns
    -------
    ndarray, float32 (ceil(ny / factor), ceil(nx / factor))
        Mean of the finite pixels of each block, NaN where there is none.
    """
    box = box or Box(0, image.shape[1], 0, image.shape[0])
    rows, cols = -(-box.ny // factor), -(-box.nx // factor)
    out = np.full((rows, cols), np.nan, dtype=np.float32)
    step = max(1, _STRIP_PIXELS // max(1, cols * factor * factor))
    for r0 in range(0, rows, step):
        r1 = min(rows, r0 + step)
        strip = _padded(
            image, Box(box.x0, box.x0 + cols * factor, box.y0 + r0 * factor, box.y0 + r1 * factor), box
        )
        out[r0:r1] = _strip_mean(strip, factor)
    return out


def _padded(image: NDArray[np.floating], wanted: Box, limit: Box) -> F4:
    """Pixels of ``wanted`` in whole blocks, NaN outside of ``limit`` and of the image."""
    x0, x1 = max(wanted.x0, 0), min(wanted.x1, limit.x1, image.shape[1])
    y0, y1 = max(wanted.y0, 0), min(wanted.y1, limit.y1, image.shape[0])
    if (x0, x1, y0, y1) == (wanted.x0, wanted.x1, wanted.y0, wanted.y1):
        return np.asarray(image[wanted.slices], dtype=np.float32)
    strip = np.full(wanted.shape, np.nan, dtype=np.float32)
    if x1 > x0 and y1 > y0:
        strip[y0 - wanted.y0 : y1 - wanted.y0, x0 - wanted.x0 : x1 - wanted.x0] = image[y0:y1, x0:x1]
    return strip


def _strip_mean(strip: F4, factor: int) -> F4:
    if factor == 1:
        return np.where(np.isfinite(strip), strip, np.float32(np.nan))
    with np.errstate(invalid="ignore", over="ignore"):
        total = _block_sum(strip, factor) / np.float32(factor * factor)
    if np.isfinite(total).all():
        return total
    good = np.isfinite(strip)
    count = _block_sum(good.astype(np.float32), factor)
    total = _block_sum(np.where(good, strip, np.float32(0)), factor)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _block_sum(strip: F4, factor: int) -> F4:
    # Rows first, on contiguous memory; then one strided addition for each column of a block.
    ny, nx = strip.shape
    rows: F4 = strip.reshape(ny // factor, factor, nx).sum(axis=1)
    total = rows[:, 0::factor].copy()
    for i in range(1, factor):
        total += rows[:, i::factor]
    return total


def block_any(mask: U1, bit: int, factor: int) -> Bool:
    """Which blocks hold a pixel with ``bit`` set; blocks as in :func:`block_mean`."""
    rows, cols = -(-mask.shape[0] // factor), -(-mask.shape[1] // factor)
    out = np.zeros((rows, cols), dtype=bool)
    step = max(1, _STRIP_PIXELS // max(1, cols * factor * factor))
    for r0 in range(0, rows, step):
        part = (np.asarray(mask[r0 * factor : (r0 + step) * factor]) & bit) > 0
        padded = np.pad(part, ((0, -part.shape[0] % factor), (0, -part.shape[1] % factor)))
        blocks = padded.reshape(padded.shape[0] // factor, factor, cols, factor)
        out[r0 : r0 + blocks.shape[0]] = blocks.any(axis=(1, 3))
    return out


@dataclass(frozen=True, slots=True)
class Stretch:
    """An asinh stretch (Lupton et al. 1999): linear around the sky, logarithmic in bright sources.

    Attributes
    ----------
    sky, sigma : float
        Level and noise of the background.
    peak : float
        Value that is shown white.
    """

    sky: float
    sigma: float
    peak: float

    def grey(self, image: NDArray[np.floating]) -> NDArray[np.float32]:
        """Brightness in [0, 1], NaN where ``image`` is not finite."""
        softening = 4.0 * self.sigma
        low = np.arcsinh(-2.0 * self.sigma / softening)
        high = np.arcsinh((self.peak - self.sky) / softening)
        with np.errstate(invalid="ignore", over="ignore"):
            value = np.arcsinh((np.asarray(image, dtype=np.float32) - self.sky) / softening)
            level = np.clip((value - low) / (high - low), 0.0, 1.0)
        return np.where(np.isfinite(image), level, np.nan).astype(np.float32)


def measure_stretch(image: NDArray[np.floating]) -> Stretch:
    """Stretch for an image: sky and noise from the faint side of its median, white at the brightest 0.1 %.

    Survives anything: an image without a finite pixel or without noise gets a harmless stretch.
    """
    flat = np.asarray(image, dtype=np.float32).ravel()
    flat = flat[:: max(1, flat.size // _SAMPLE)].astype(float)
    flat = flat[np.isfinite(flat)]
    if flat.size == 0:
        return Stretch(0.0, 1.0, 100.0)
    sky = float(np.median(flat))
    below = sky - flat[flat < sky]
    sigma = 1.4826 * float(np.median(below)) if below.size else 0.0
    top = float(np.percentile(flat, 99.9))
    if not sigma > 0:
        # No noise (a model, a constant): let the range of the values set the scale.
        sigma = (top - sky) / 300.0 if top > sky else max(abs(sky), 1.0) * 1e-3
    return Stretch(sky, sigma, max(top, sky + 30.0 * sigma))


def grey(image: NDArray[np.floating], stretch: Stretch) -> NDArray[np.uint8]:
    """Image as 8-bit RGBA (ny, nx, 4): grey by ``stretch``, blue where there is no data."""
    level = stretch.grey(image)
    missing = np.isnan(level)
    index = (np.where(missing, 0.0, level) * (_LEVELS - 1) + 0.5).astype(np.uint8)
    index[missing] = _LEVELS
    return _PALETTE[index]
