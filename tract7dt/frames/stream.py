"""Pixels of a FITS image: one pass from file or URL, compressed or not.

Only the first image counts: the primary HDU, or the first extension where the primary has no data.
An image that is a URL is read from its copy in the local cache. Plain images are read as a stream, so that a
gzip file needs no unpacked copy and no more memory than a few rows; a tile-compressed image needs random
access and is read through astropy.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.hdu.compressed._compression import CfitsioException  # it has no public name

from tract7dt.errors import InputError, StoreUnreachableError
from tract7dt.store import sha256_file
from tract7dt.store.remote import local_copy
from tract7dt.types import F4, F8

__all__ = ["FileRead", "ImageHeader", "PixelReader", "read_header"]

#: Stands for the value of a header card that cannot be read.
UNREADABLE = "(a card that is no FITS)"
#: Bytes that the system is asked to have ready, so that the disk works while a chunk is converted. With more the
#: files that other threads read wait too long.
_AHEAD = 4 << 20
#: Bytes that it is asked for at a time, at least.
_LEAST = 1 << 19
_DTYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
#: What a broken file or connection raises, astropy included where a header is not what it says it is.
_READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    ImportError,
    zlib.error,
    fits.VerifyError,
    CfitsioException,
)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Header of the image HDU and how its pixels lie in the file.

    Attributes
    ----------
    header : astropy.io.fits.Header
        Of the image HDU.
    primary : astropy.io.fits.Header
        Of the primary HDU (the same object where that is the image).
    tiled : bool
        Tile-compressed.
    shape : (int, int)
        ``(ny, nx)``.
    """

    header: fits.Header
    primary: fits.Header
    tiled: bool
    shape: tuple[int, int]

    def get(self, keyword: str) -> Any:
        """Value of ``keyword`` in the image's header, else in the primary's; None where it is in neither.

        A card that is no FITS gives :data:`UNREADABLE`, a text that is neither a number nor a band.
        """
        try:
            return self.header.get(keyword, self.primary.get(keyword))
        except fits.VerifyError:
            return UNREADABLE


def _is_gzip(stream: IO[bytes]) -> bool:
    start = stream.read(2)
    stream.seek(0)
    return start == b"\x1f\x8b"


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what a missing or broken file raises into an InputError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a FITS file, found a folder") from None
    except StoreUnreachableError:
        raise
    except _READ_ERRORS as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: not a readable FITS image ({why})") from error


def read_header(path: str) -> ImageHeader:
    """Header of the first image of a FITS file, without its pixels.

    Parameters
    ----------
    path : str
        Local path or fsspec URL, of which a local copy is kept; gzip is recognised by content.

    Raises
    ------
    InputError
        The file is missing, not FITS, its first two HDUs hold no 2-D image, or it is a plain file that ends
        before its pixels do.
    StoreUnreachableError
        The store of a URL does not answer.
    """
    with _reading(path):
        return _header_of(local_copy(path), path)


def _header_of(file: Path, path: str) -> ImageHeader:
    """Header of the image in ``file``; ``path`` is its name for messages."""
    with file.open("rb") as raw:
        if _is_gzip(raw):
            with gzip.GzipFile(fileobj=raw) as stream:
                return _first_image(stream, path)
        image = _first_image(raw, path)
        if not image.tiled:
            _check_length(raw, image, path)
        return image


def _check_length(stream: IO[bytes], image: ImageHeader, path: str) -> None:
    """Refuse a truncated file while nothing has been written; ``stream`` stands at its first pixel."""
    wanted = math.prod(image.shape) * abs(int(image.header["BITPIX"])) // 8
    start = stream.tell()
    found = stream.seek(0, io.SEEK_END) - start
    if found < wanted:
        raise InputError(f"{path}: truncated, expected {wanted} bytes of pixels, found {found}")


def _first_image(stream: IO[bytes] | gzip.GzipFile, path: str) -> ImageHeader:
    if stream.read(6) != b"SIMPLE":
        raise InputError(f"{path}: expected a FITS file, whose first word is SIMPLE")
    stream.seek(0)
    primary = fits.Header.fromfile(stream)
    if primary.get("NAXIS", 0) > 0:
        return ImageHeader(primary, primary, False, _image_shape(primary, path))
    if not stream.read(8).startswith(b"XTENSION"):
        raise InputError(f"{path}: expected an image in the primary HDU or the first extension, found none")
    stream.seek(-8, io.SEEK_CUR)
    extension = fits.Header.fromfile(stream)
    if extension.get("ZIMAGE", False):
        stream.seek(0)
        with fits.open(stream, memmap=False) as hdus:
            extension = hdus[1].header.copy()
        return ImageHeader(extension, primary, True, _image_shape(extension, path))
    if extension["XTENSION"].strip() != "IMAGE":
        raise InputError(f"{path}: expected an image in the first extension, found {extension['XTENSION']}")
    return ImageHeader(extension, primary, False, _image_shape(extension, path))


def _image_shape(header: fits.Header, path: str) -> tuple[int, int]:
    sizes = [int(header[f"NAXIS{i}"]) for i in range(1, int(header["NAXIS"]) + 1)]
    if len(sizes) < 2 or any(n != 1 for n in sizes[2:]) or min(sizes) < 1:
        raise InputError(f"{path}: expected a 2-D image, found NAXIS {' x '.join(map(str, sizes)) or 0}")
    return sizes[1], sizes[0]


def _fill(stream: Any, buffer: memoryview) -> int:
    """Read until ``buffer`` is full or the stream ends; the number of bytes read."""
    got = 0
    while got < len(buffer):
        n = stream.readinto(buffer[got:])
        if not n:
            break
        got += n
    return got


@dataclass(frozen=True, slots=True)
class FileRead:
    """A file from which an image was read, and what it was when it was opened.

    Attributes
    ----------
    path : Path
        The image, or the local copy of one at a URL.
    size, mtime_ns : int
    """

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, stream: IO[bytes]) -> FileRead:
        """The open file."""
        stat = os.fstat(stream.fileno())
        return cls(path, stat.st_size, stat.st_mtime_ns)

    def sha256(self) -> str:
        """Digest of the bytes that were read; "" where the file is another one by now, or has been written to."""
        try:
            digest, stat = sha256_file(self.path), self.path.stat()
        except OSError:
            return ""
        return digest if (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns) else ""


class _AheadReader(io.RawIOBase):
    """Raw stream that lets the system fetch what comes next while what was read is worked on."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream: Any = stream
        self._place, self._fetched = 0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n: int = self._stream.readinto(buffer)
        self._place += n
        self._fetch()
        return n

    def _fetch(self) -> None:
        """Ask for as much as was read: small requests often, so that no other file waits behind a large one."""
        start, end = max(self._fetched, self._place), self._place + _AHEAD
        if end - start < _LEAST:
            return
        with contextlib.suppress(AttributeError, OSError):  # not every system and file has it
            os.posix_fadvise(self._stream.fileno(), start, end - start, os.POSIX_FADV_WILLNEED)
        self._fetched = end


class PixelReader:
    """Pixels of one image in physical values, by rows from the first to the last.

    Parameters
    ----------
    path : str
        Local path or fsspec URL.
    scratch : Path
        Folder for an unpacked copy of a tile-compressed image that is gzipped, too.

    Attributes
    ----------
    file : FileRead
        The file, once the first rows were asked for.
    """

    file: FileRead

    def __init__(self, path: str, scratch: Path) -> None:
        self._path = path
        self._scratch = scratch

    def rows(self, max_pixels: int, together: int = 1) -> Iterator[tuple[int, F4 | F8]]:
        """Yield ``(y0, values)``: (n, nx), not finite where the image has no value.

        The values are float64, or float32 as they lie in the file, of either byte order; they stay until the
        next chunk is asked for.

        Parameters
        ----------
        max_pixels : int
            About the largest number of pixels of a chunk; at least one row (one row of tiles) is read.
        together : int
            So many rows, from the first on, are wanted in one chunk, where tiles let that be.

        Raises
        ------
        InputError
            The file is missing, shorter than its header says, or damaged.
        StoreUnreachableError
            The store of a URL does not answer.
        """
        with _reading(self._path):
            file = local_copy(self._path)  # once, so that header and pixels are of one version of a URL
            image = _header_of(file, self._path)
            step = max(1, max_pixels // image.shape[1] // together) * together
            rows = self._tiled_rows if image.tiled else self._plain_rows
            yield from rows(file, image, step)

    def _plain_rows(self, file: Path, image: ImageHeader, step: int) -> Iterator[tuple[int, F4 | F8]]:
        with file.open("rb") as raw:
            self.file = FileRead.of(file, raw)
            zipped = _is_gzip(raw)
            # a plain file is read by whole chunks, past the buffer
            source = io.BufferedReader(_AheadReader(raw), 1 << 20 if zipped else io.DEFAULT_BUFFER_SIZE)
            stream: Any = gzip.GzipFile(fileobj=source) if zipped else source
            fits.Header.fromfile(stream)
            if image.header is not image.primary:
                fits.Header.fromfile(stream)
            ny, nx = image.shape
            dtype = np.dtype(_DTYPES[int(image.header["BITPIX"])])
            buffer = np.empty((min(step, ny), nx), dtype)
            physical = _Physical(image.header, dtype)
            for y0 in range(0, ny, step):
                chunk = buffer[: ny - y0]
                if _fill(stream, chunk.view(np.uint8).reshape(-1).data) < chunk.nbytes:
                    raise InputError(
                        f"{self._path}: truncated, expected {ny} rows of pixels, found {y0} and a bit"
                    )
                yield y0, physical.values(chunk)
            while zipped and stream.read(1 << 20):  # its end shows whether the file is whole
                pass

    def _tiled_rows(self, file: Path, image: ImageHeader, step: int) -> Iterator[tuple[int, F8]]:
        with self._seekable(file) as stream, fits.open(stream, memmap=False) as hdus:
            hdu = hdus[1]
            # Whole tiles: one that two chunks share would be decompressed twice.
            tile = int(hdu.tile_shape[-2])
            step = max(tile, step // tile * tile)
            ny, nx = image.shape
            for y0 in range(0, ny, step):
                values = hdu.section[..., y0 : min(y0 + step, ny), :]
                yield y0, np.asarray(values, np.float64).reshape(-1, nx)

    @contextlib.contextmanager
    def _seekable(self, file: Path) -> Iterator[IO[bytes]]:
        """The uncompressed file with random access."""
        with contextlib.ExitStack() as stack:
            stream: IO[bytes] = stack.enter_context(file.open("rb"))
            self.file = FileRead.of(file, stream)
            if _is_gzip(stream):
                copy = stack.enter_context(
                    tempfile.NamedTemporaryFile(dir=self._scratch, prefix=".image.", suffix=".tmp")
                )
                shutil.copyfileobj(gzip.GzipFile(fileobj=_AheadReader(stream)), copy, 1 << 20)
                copy.flush()
                stream = stack.enter_context(Path(copy.name).open("rb"))  # astropy insists on read-only
            yield stream


class _Physical:
    """Physical values: ``BZERO + BSCALE * stored``, NaN where stored is BLANK (FITS 4.0, 4.4.2.5)."""

    def __init__(self, header: fits.Header, dtype: np.dtype[Any]) -> None:
        self._scale, self._zero = float(header.get("BSCALE", 1.0)), float(header.get("BZERO", 0.0))
        blank = header.get("BLANK")
        self._blank = blank if blank is not None and dtype.kind in "iu" and math.isfinite(blank) else None
        self._as_stored = (
            dtype.kind == "f" and dtype.itemsize == 4 and (self._scale, self._zero) == (1.0, 0.0)
        )

    def values(self, raw: np.ndarray[Any, Any]) -> F4 | F8:
        """Of stored pixels; these themselves where they are float32 values."""
        if self._as_stored:
            return raw
        values = raw.astype(np.float64)
        if self._scale != 1.0:
            values *= self._scale
        if self._zero != 0.0:
            values += self._zero
        if self._blank is not None:
            values[raw == self._blank] = np.nan
        return values
