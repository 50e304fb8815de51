"""Row-wise reading and writing of .npy arrays.

Plain reads and writes instead of memory maps: the pages of a map that a scan has touched count as memory of
the process, and twenty full frames would look like gigabytes.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tract7dt.errors import ProductError
from tract7dt.store.digest import QuickDigest

__all__ = [
    "CHUNK_PIXELS",
    "RowReader",
    "RowWriter",
    "open_array",
    "read_rows",
    "row_chunks",
    "row_strips",
    "write_array",
]

#: Pixels that one worker holds at a time; a handful of float64 arrays of it stay under 25 MB.
CHUNK_PIXELS = 1 << 19
#: Bytes that file systems give room to at a time.
_BLOCK = 4096


def row_chunks(ny: int, nx: int, max_pixels: int = CHUNK_PIXELS) -> Iterator[tuple[int, int]]:
    """``(y0, y1)`` of consecutive row ranges of about ``max_pixels`` pixels each."""
    step = max(1, max_pixels // nx)
    for y0 in range(0, ny, step):
        yield y0, min(y0 + step, ny)


def row_strips(ny: int, nx: int, max_pixels: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """``(y0, y1, core0, core1)`` of row ranges that overlap, for what must see whole objects.

    Each strip is its core and ``margin`` rows of its neighbours' on either side; the cores tile the frame. Strips
    hold about ``max_pixels`` pixels; a frame of no more is one strip.
    """
    if ny * nx <= max_pixels:
        yield 0, ny, 0, ny
        return
    step = max(margin, max_pixels // nx - 2 * margin, 1)
    for core0 in range(0, ny, step):
        core1 = min(core0 + step, ny)
        yield max(core0 - margin, 0), min(core1 + margin, ny), core0, core1


class RowWriter:
    """Writes a 2-D .npy file by rows, in any order, from any thread.

    With ``digest`` the rows come in their order, from one thread, and get a quick digest on the way. With
    ``holes`` blocks of nothing but zeros are not written: they read as zeros and take no room on the disk.

    Parameters
    ----------
    path : Path
        File to make or overwrite.
    shape : (int, int)
        ``(ny, nx)``.
    dtype : dtype
    digest : bool
        Whether :meth:`digest` will be asked for.
    holes : bool
        For what is zero nearly everywhere.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int],
        dtype: DTypeLike,
        *,
        digest: bool = False,
        holes: bool = False,
    ) -> None:
        self._dtype, self._holes = np.dtype(dtype), holes
        self._shape = shape
        with path.open("w+b") as stream:
            header = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            self._start = stream.tell()
            stream.truncate(self._start + shape[0] * shape[1] * self._dtype.itemsize)
            stream.seek(0)
            self._digest = QuickDigest() if digest else None
            if self._digest is not None:
                self._digest.update(stream.read(self._start))
        self._path, self._next = path, 0
        self._file = os.open(path, os.O_WRONLY)

    def write(self, y0: int, rows: NDArray[Any]) -> None:
        """Write ``rows`` (n, nx) at row ``y0``."""
        data = np.ascontiguousarray(rows, self._dtype).data.cast("B")
        offset = self._start + y0 * self._shape[1] * self._dtype.itemsize
        if self._digest is not None and y0 == self._next:
            self._digest.update(data)
            self._next += len(rows)
        for start, end in _written_parts(data, offset) if self._holes else [(0, len(data))]:
            part, place = data[start:end], offset + start
            while part:
                written = os.pwrite(self._file, part, place)
                part, place = part[written:], place + written

    def digest(self) -> str:
        """Quick digest of the file, once every row has been written.

        Raises
        ------
        RuntimeError
            If the rows came in another order.
        """
        if self._digest is None or self._next != self._shape[0]:
            raise RuntimeError(f"{self._path}: not digested: rows in order up to {self._next}")
        return self._digest.text()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


class RowReader:
    """Reads a 2-D .npy file by rows into arrays that are there, in any order, from any thread.

    Parameters
    ----------
    path : Path
    shape : (int, int)
        ``(ny, nx)``.
    dtype : dtype
    stage : str
        The one that writes the file, for messages.

    Raises
    ------
    ProductError
        The file is missing, damaged, or not of the expected shape and type.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int], dtype: DTypeLike, stage: str = "load_inputs"
    ) -> None:
        array: Any = open_array(path, shape, dtype, stage)
        self._path, self._stage = path, stage
        self._start, self._row = array.offset, shape[1] * array.itemsize
        self._file = os.open(path, os.O_RDONLY)

    def read(self, y0: int, out: NDArray[Any]) -> None:
        """Fill ``out`` (n, nx), which is contiguous, with the rows from ``y0``.

        Raises
        ------
        ProductError
            The file has become shorter since it was opened.
        """
        left, place = out.data.cast("B"), self._start + y0 * self._row
        while left:
            n = os.preadv(self._file, [left], place)
            if n == 0:
                error = "cut off while it was read"
                raise ProductError(
                    f"{self._path}: damaged ({error}); tract7dt run --refresh {self._stage} makes it again"
                )
            left, place = left[n:], place + n

    def __enter__(self) -> RowReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def _written_parts(data: memoryview, offset: int) -> list[tuple[int, int]]:
    """Runs of ``data`` whose blocks of the file, in which they begin at ``offset``, hold more than zeros."""
    # the first block begins before the data, the last may end after it
    before = offset % _BLOCK
    blocks = np.zeros(-(-(before + len(data)) // _BLOCK) * _BLOCK, np.uint8)
    blocks[before : before + len(data)] = np.frombuffer(data, np.uint8)
    used = np.r_[False, blocks.reshape(-1, _BLOCK).any(axis=1), False]
    starts, ends = np.flatnonzero(used[1:] & ~used[:-1]), np.flatnonzero(used[:-1] & ~used[1:])
    runs = zip((starts * _BLOCK - before).tolist(), (ends * _BLOCK - before).tolist(), strict=True)
    return [(max(start, 0), min(end, len(data))) for start, end in runs]


def read_rows(array: Any, y0: int, y1: int) -> NDArray[Any]:
    """Copy of rows ``[y0, y1)`` of a 2-D array; of a whole memory-mapped file without touching the map."""
    whole_file = isinstance(getattr(array, "base", None), mmap.mmap)  # a slice of a map has the map as base
    if isinstance(array, np.memmap) and whole_file and array.flags.c_contiguous:
        nx = array.shape[1]
        offset = array.offset + y0 * nx * array.itemsize
        return np.fromfile(str(array.filename), array.dtype, (y1 - y0) * nx, offset=offset).reshape(
            y1 - y0, nx
        )
    return np.array(array[y0:y1])


def open_array(
    path: Path, shape: tuple[int, int], dtype: DTypeLike, stage: str = "load_inputs"
) -> NDArray[Any]:
    """Read-only memory map of a .npy file; ``stage`` is the one that writes it, for messages.

    Raises
    ------
    ProductError
        The file is missing, damaged, or not of the expected shape and type.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ProductError(f"{path}: missing; tract7dt run --refresh {stage} makes it again") from None
    except (OSError, ValueError, EOFError) as error:
        raise ProductError(
            f"{path}: damaged ({error}); tract7dt run --refresh {stage} makes it again"
        ) from error
    if array.shape != tuple(shape) or array.dtype != np.dtype(dtype):
        raise ProductError(
            f"{path}: expected {np.dtype(dtype)} of shape {tuple(shape)}, found {array.dtype} {array.shape}"
        )
    return array


class _Stream:
    """What of a file is left when NumPy is not to see that it is one."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.write = stream.write


def write_array(stream: IO[bytes], array: NDArray[Any]) -> None:
    """Write an array as .npy, byte for byte what ``np.save`` writes.

    ``np.save`` writes to a file past Python, and says of a full disk how many items it could not write, not why.

    Raises
    ------
    OSError
        As of any write.
    """
    np.lib.format.write_array(_Stream(stream), np.asanyarray(array), allow_pickle=False)
