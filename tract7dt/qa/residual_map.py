"""Residual maps: each patch leaves a small one of its base box, the report puts them together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tract7dt.store import atomic_path
from tract7dt.store.npy import write_array
from tract7dt.types import Box, Patch

if TYPE_CHECKING:
    from tract7dt.store import WorkDir
    from tract7dt.types import F4

__all__ = ["BLOCK", "NO_RESIDUAL", "STEPS_PER_SIGMA", "mosaic", "residual_blocks", "write_residual_map"]

#: Side of a block, pix.
BLOCK = 8
#: The stored value is the mean residual of a block in units of its own noise, times this.
STEPS_PER_SIGMA = 16
NO_RESIDUAL = -128


def residual_blocks(residual: F4, weight: F4, patch: Patch) -> NDArray[np.int8]:
    """Weighted mean of data - model over blocks of the base box, in sigma of that mean.

    With w = 1/sigma**2: sum(w (d - m)) / sqrt(sum(w)), of unit variance where the model is right.

    Parameters
    ----------
    residual : ndarray, float32 (nband, ny, nx)
        (data - model) sqrt(w), of the patch.
    weight : ndarray, float32 (nband, ny, nx)
        w.
    patch : Patch

    Returns
    -------
    ndarray, int8 (nband, ceil(ny / BLOCK), ceil(nx / BLOCK))
        Times ``STEPS_PER_SIGMA``, clipped; ``NO_RESIDUAL`` where nothing has weight.
    """
    base, roi = patch.base, patch.roi
    rows, cols = slice(base.y0 - roi.y0, base.y1 - roi.y0), slice(base.x0 - roi.x0, base.x1 - roi.x0)
    residual, weight = residual[:, rows, cols], weight[:, rows, cols]
    w = np.where((weight > 0) & np.isfinite(residual), weight, np.float32(0))
    total = _block_sums(np.multiply(residual, np.sqrt(w), out=np.zeros_like(w), where=w > 0))
    weighed = _block_sums(w)
    sigmas = np.divide(total, np.sqrt(weighed), out=np.zeros_like(total), where=weighed > 0)
    steps = np.clip(np.round(sigmas * STEPS_PER_SIGMA), -127, 127).astype(np.int8)
    steps[weighed <= 0] = NO_RESIDUAL
    return steps


def _block_sums(cube: F4) -> F4:
    ny, nx = cube.shape[1:]
    in_columns = np.add.reduceat(cube, np.arange(0, ny, BLOCK), axis=1)
    blocks: F4 = np.add.reduceat(in_columns, np.arange(0, nx, BLOCK), axis=2)
    return blocks


def write_residual_map(work: WorkDir, patch: Patch, weight: F4, residual: F4) -> None:
    """Write a patch's residual.npy (parameters of :func:`residual_blocks`)."""
    blocks = residual_blocks(residual, weight, patch)
    with atomic_path(work.patch_residual(patch.tag)) as path, path.open("wb") as stream:
        write_array(stream, blocks)


def mosaic(
    parts: Iterable[tuple[Box, Path]], shape: tuple[int, int], n_bands: int, step: int = BLOCK
) -> NDArray[np.int8]:
    """Residual maps of a field from those of its patches.

    Parameters
    ----------
    parts : iterable of (Box, Path)
        Base box and residual.npy of each patch; a missing or unfit file leaves a hole.
    shape : (ny, nx)
        Of the working frame.
    n_bands : int
    step : int
        Pixels of the frame in a pixel of the mosaic.

    Returns
    -------
    ndarray, int8 (n_bands, ceil(ny / step), ceil(nx / step))
    """
    ny, nx = (-(-n // step) for n in shape)
    out = np.full((n_bands, ny, nx), NO_RESIDUAL, np.int8)
    for box, path in parts:
        try:
            blocks = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        if blocks.ndim != 3 or len(blocks) != n_bands or blocks.dtype != np.int8:
            continue
        y, x = _centres(box.y0, box.y1, step), _centres(box.x0, box.x1, step)
        if not len(y) or not len(x):
            continue
        source_y = np.minimum((y * step + step // 2 - box.y0).clip(0) // BLOCK, blocks.shape[1] - 1)
        source_x = np.minimum((x * step + step // 2 - box.x0).clip(0) // BLOCK, blocks.shape[2] - 1)
        out[:, y[0] : y[-1] + 1, x[0] : x[-1] + 1] = blocks[:, source_y[:, None], source_x[None, :]]
    return out


def _centres(low: int, high: int, step: int) -> NDArray[np.int64]:
    """Mosaic pixels whose centre lies in ``[low, high)``."""
    first = -(-(low - step // 2) // step)
    last = -(-(high - step // 2) // step)
    return np.arange(max(first, 0), max(last, 0))
