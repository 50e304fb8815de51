"""Whether a FITS file is there to its end: what a copy that is still under way is not."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import IO

from astropy.io import fits

__all__ = ["what_is_missing"]

_BLOCK = 2880
_CHUNK = 1 << 20


def what_is_missing(path: Path) -> str | None:
    """What a local FITS file lacks, by the lengths that its headers announce; None if it is whole.

    A compressed file is read to its end, of others only the headers. What is no FITS file lacks its
    beginning: a copy may have reserved its space.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not zipped:
            return _lacking(raw, path.stat().st_size)
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                size = 0
                while part := stream.read(_CHUNK):
                    size += len(part)
                stream.seek(0)
                return _lacking(stream, size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            return f"the compressed data end too soon ({error})"


def _lacking(stream: IO[bytes] | gzip.GzipFile, size: int) -> str | None:
    if stream.read(6) != b"SIMPLE":
        return "it does not begin as FITS does"
    start = 0
    while start < size:
        stream.seek(start)
        try:
            header = fits.Header.fromfile(stream)
        except (EOFError, OSError, ValueError):
            # Some writers leave blocks of zeros behind the last extension.
            return "a header is cut off" if start == 0 or _is_header(stream, start) else None
        end = stream.tell() + _data_bytes(header)
        if end > size:
            return f"expected {end} bytes, found {size}"
        start = -(-end // _BLOCK) * _BLOCK
    return None


def _is_header(stream: IO[bytes] | gzip.GzipFile, start: int) -> bool:
    stream.seek(start, io.SEEK_SET)
    return stream.read(8) == b"XTENSION"


def _data_bytes(header: fits.Header) -> int:
    """Length of the data of an HDU (FITS 4.0, eq. 1 and 2)."""
    axes = [int(header[f"NAXIS{n}"]) for n in range(1, int(header.get("NAXIS", 0)) + 1)]
    if not axes:
        return 0
    values = abs(int(header["BITPIX"])) // 8 * int(header.get("GCOUNT", 1))
    return values * (int(header.get("PCOUNT", 0)) + math.prod(axes))
