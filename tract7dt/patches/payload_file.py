"""A payload as a file: multi-extension FITS that any viewer opens, checked from end to end when read.

Extensions, in this order: primary (no data; geometry of the patch), ``META`` (one row of JSON: exact values
of everything that is no array), per band its image (float32), ``{band}_BAD`` (uint8) and, where there is a
PSF, ``{band}_PSF`` (float32), at last the table ``SOURCES``. Header keywords are for people and viewers; the
reader goes by META, so that no number is rounded by a header card. ``DATACRC`` in the primary header is the
CRC-32 of all bytes behind it.

This is the reader, which does without astropy (:mod:`tract7dt.patches.fits_layout`): a worker that fits
patches starts faster. The writer is :mod:`tract7dt.patches.payload_writer`.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from isal import igzip_lib, isal_zlib

from tract7dt.errors import ProductError
from tract7dt.patches.fits_layout import Extension, read_extensions, read_header
from tract7dt.patches.payload_check import check_table, parse_meta
from tract7dt.patches.source_table import escape, read_table
from tract7dt.types import PatchPayload

__all__ = ["FORMAT", "MAX_BYTES", "VERSION", "read_payload"]

FORMAT, VERSION = "T7PAYLOAD", 1
#: No payload is larger: what claims to be is damaged, or meant to fill the memory.
MAX_BYTES = 4 * 2**30
#: Largest departure of a PSF stamp's sum from 1.
PSF_SUM_TOLERANCE = 1e-3
# What Python and NumPy raise on content that is not what its header says.
_DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError)


def read_payload(path: str | os.PathLike[str]) -> PatchPayload:
    """Read and check a payload, compressed or not.

    Parameters
    ----------
    path : path or str
        Local path or any URL that fsspec opens.

    Raises
    ------
    ProductError
        If the file is missing, truncated, damaged, of another format or version, or inconsistent; the
        message names the file and what is wrong.
    """
    name = os.fspath(path)
    try:
        content = _unpacked(_read_bytes(name))
        return _payload(read_extensions(content, _check_primary(content)))
    except ProductError as error:
        raise ProductError(f"payload {name}: {error}") from error
    except _DAMAGE as error:
        raise ProductError(f"payload {name} is damaged: {type(error).__name__}: {error}") from error


def _read_bytes(name: str) -> bytes:
    try:
        if "://" not in name:
            return Path(name).read_bytes()
        import fsspec  # payloads that travel are rare

        with fsspec.open(name, "rb") as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        raise ProductError("no such file") from None
    except (OSError, ValueError, ImportError) as error:
        raise ProductError(f"cannot be opened: {error}") from error


def _unpacked(raw: bytes) -> bytes:
    """Content of a gzip file (known by its first bytes), never more than ``MAX_BYTES``."""
    if raw[:2] != b"\x1f\x8b":
        return raw
    unpacker = isal_zlib.decompressobj(wbits=31)
    try:
        content: bytes = unpacker.decompress(raw, MAX_BYTES)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says that it is an instance
        raise ProductError(f"damaged gzip data: {error}") from error
    if not unpacker.eof:
        raise ProductError("truncated gzip data, or larger than a payload can be")
    if unpacker.unused_data:
        raise ProductError(f"{len(unpacker.unused_data)} bytes behind the end of the gzip data")
    return content


def _check_primary(content: bytes) -> int:
    """Format, version and checksum, before anything behind the primary header is looked at; returns its end."""
    if content[:6] != b"SIMPLE":
        raise ProductError("not a FITS file")
    header, end = read_header(content, 0)
    if header.get("FORMAT") != FORMAT:
        raise ProductError(f"not a payload: FORMAT is {header.get('FORMAT')!r}, expected {FORMAT!r}")
    if header.get("FORMATV") != VERSION:
        raise ProductError(f"format version {header.get('FORMATV')!r}, this program reads {VERSION}")
    found = f"{zlib.crc32(memoryview(content)[end:]):08x}"
    if header.get("DATACRC") != found:
        raise ProductError(
            f"content has CRC {found}, header says {header.get('DATACRC')}: truncated or damaged"
        )
    return end


def _payload(extensions: list[Extension]) -> PatchPayload:
    meta = parse_meta(_meta_text(extensions))
    shape, rest = meta.patch.roi.shape, extensions[1:]
    data, bad, psfs = [], [], []
    for band, psf in zip(meta.bands, meta.psfs, strict=True):
        data.append(_image(rest, band, "", np.dtype(np.float32), shape))
        bad.append(_image(rest, band, "_BAD", np.dtype(np.uint8), shape))
        psfs.append(None if psf is None else replace(psf, stamp=_stamp(rest, band)))
    if len(rest) != 1 or rest[0].name != "SOURCES" or rest[0].kind != "table":
        raise ProductError(f"expected table SOURCES at the end, found {[each.name for each in rest]}")
    table = read_table(rest[0].array, meta.columns)
    check_table(table, meta)
    return PatchPayload(
        patch=meta.patch,
        bands=meta.bands,
        data=_native(data, np.float32),
        bad=_native(bad, np.uint8),
        sky_sigma=meta.sky_sigma,
        gain=meta.gain,
        scale=meta.scale,
        fwhm_pix=meta.fwhm_pix,
        psfs=tuple(psfs),
        table=table,
        paths=meta.paths,
    )


def _native(images: list[np.ndarray], dtype: type) -> np.ndarray:
    """Images of the file one behind the other, in the machine's byte order."""
    out = np.empty((len(images), *images[0].shape), dtype)
    for place, image in zip(out, images, strict=True):
        place[...] = image
    return out


def _meta_text(extensions: list[Extension]) -> str:
    meta = extensions[0] if extensions else None
    if meta is None or meta.name != "META" or meta.kind != "table" or len(meta.array) != 1:
        raise ProductError("extension META, one row of JSON, is missing")
    return bytes(meta.array["JSON"][0]).decode("ascii")


def _image(
    rest: list[Extension], band: str, suffix: str, dtype: np.dtype, shape: tuple[int, int] | None
) -> np.ndarray:
    """Take the next extension, which must be the named image: a view of the file's bytes."""
    name = escape(f"{band}{suffix}").decode("ascii")
    if not rest or rest[0].name != name or rest[0].kind != "image":
        found = rest[0].name if rest else "the end of the file"
        raise ProductError(f"expected image extension {name}, found {found}")
    pixels = rest.pop(0).array
    if shape is not None and pixels.shape != shape:
        raise ProductError(f"extension {name} has shape {pixels.shape}, the patch's roi has {shape}")
    if pixels.dtype.newbyteorder("=") != dtype:
        raise ProductError(f"extension {name}: expected {dtype}, found {pixels.dtype}")
    return pixels


def _stamp(rest: list[Extension], band: str) -> np.ndarray:
    stamp = np.array(_image(rest, band, "_PSF", np.dtype(np.float32), None), np.float32, order="C")
    if stamp.ndim != 2 or stamp.shape[0] != stamp.shape[1] or stamp.shape[0] % 2 == 0:
        raise ProductError(f"PSF of {band}: expected a square stamp of odd size, found shape {stamp.shape}")
    total = float(stamp.sum(dtype=np.float64))
    if not abs(total - 1) <= PSF_SUM_TOLERANCE:
        raise ProductError(f"PSF of {band}: expected sum 1, found {total}")
    return stamp
