"""Windows of memory-mapped arrays, read so that the pages do not stay.

A page of a mapped file counts as memory of every process that has touched it. Windows of twenty full frames add up
to all of them; so the pages of a window are handed back to the system, whose cache keeps the file anyway.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["drop_pages", "read_part"]


def read_part(array: NDArray[Any], part: tuple[slice, slice]) -> NDArray[Any]:
    """Copy of ``array[part]``, C-contiguous; of a memory map no page stays with this process.

    Parameters
    ----------
    array : ndarray (ny, nx)
        Any array; a memory map of a whole file is what this is for.
    part : (slice, slice)
        Rows and columns, without steps.
    """
    copy = np.array(array[part], order="C")
    y0, y1, _ = part[0].indices(array.shape[0])
    drop_pages(array, y0, y1)
    return copy


def drop_pages(array: Any, y0: int, y1: int) -> None:
    """Hand back the pages that hold rows ``[y0, y1)`` of a memory map; does nothing for other arrays.

    Who reads the rows meanwhile, in this thread or another, gets them from the system's cache again.
    """
    base = array.base
    if not isinstance(array, np.memmap) or not isinstance(base, mmap.mmap) or not array.flags.c_contiguous:
        return
    row = array.strides[0]
    shift = array.offset % mmap.ALLOCATIONGRANULARITY  # the map begins at a whole page before the first pixel
    start = (shift + y0 * row) // mmap.PAGESIZE * mmap.PAGESIZE
    end = min(shift + y1 * row, len(base))
    if end > start:
        with contextlib.suppress(AttributeError):  # not every system has it
            base.madvise(mmap.MADV_DONTNEED, start, end - start)
