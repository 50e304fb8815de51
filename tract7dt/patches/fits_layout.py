"""The extensions of a payload's FITS file, as arrays.

Only what the writer writes is understood: images, and binary tables of numbers, logicals and text, nothing
scaled, compressed or of variable length. A general reader spends more time on the headers of a payload than
the fit of a small patch takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tract7dt.errors import ProductError

__all__ = ["Extension", "read_extensions", "read_header"]

_BLOCK, _CARD, _MOST = 2880, 80, 999
_PIXELS = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_FIELDS = {"L": "i1", "K": ">i8", "D": ">f8"}
_SCALING = ("BSCALE", "BZERO", "TSCAL", "TZERO", "ZIMAGE")


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension.

    Attributes
    ----------
    kind : {"image", "table"}
    name : str
        EXTNAME.
    array : ndarray
        Read-only view of the file's bytes, in their order: pixels, or the table's rows as a structured array.
    """

    kind: Literal["image", "table"]
    name: str
    array: np.ndarray


def read_extensions(content: bytes, start: int) -> list[Extension]:
    """All extensions behind the primary header (which has no data), which ends at ``start``.

    Raises
    ------
    ProductError
        If a header or its data are cut off, or hold what no payload holds.
    """
    found = []
    while start < len(content):
        header, start = read_header(content, start)
        if header.get("XTENSION") not in ("IMAGE", "BINTABLE"):
            raise ProductError(f"expected an image or a table, found {header.get('XTENSION')!r}")
        dtype, shape = _layout(header)
        size = dtype.itemsize * int(np.prod(shape, dtype=object))
        if int(header.get("PCOUNT", 0)) != 0 or int(header.get("GCOUNT", 1)) != 1:
            raise ProductError("extension with a heap or groups")
        if start + size > len(content):
            raise ProductError(f"truncated: an extension of {size} bytes in a file of {len(content)}")
        array = np.frombuffer(content, dtype, count=size // max(dtype.itemsize, 1), offset=start)
        kind: Literal["image", "table"] = "table" if header["XTENSION"] == "BINTABLE" else "image"
        found.append(Extension(kind, str(header.get("EXTNAME", "")), array.reshape(shape)))
        start += -(-size // _BLOCK) * _BLOCK
    return found


def read_header(content: bytes, start: int) -> tuple[dict[str, Any], int]:
    """Keywords of the header that begins at ``start`` (texts and whole numbers), and where its data begin.

    Raises
    ------
    ProductError
        If it does not end, or holds what no payload holds.
    """
    header: dict[str, Any] = {}
    last = ""
    for place in range(start, len(content) - _CARD + 1, _CARD):
        card = content[place : place + _CARD]
        keyword = card[:8].rstrip().decode("latin-1")
        if keyword == "END":
            used = place + _CARD - start
            return header, start + -(-used // _BLOCK) * _BLOCK
        if keyword.startswith(_SCALING):
            raise ProductError(f"keyword {keyword}: payloads are not scaled or compressed")
        if card[8:10] == b"= ":
            last = keyword
            header[keyword] = _value(card[10:].decode("latin-1"))
        elif keyword == "CONTINUE" and str(header.get(last, "")).endswith("&"):
            header[last] = header[last][:-1] + str(_value(card[10:].decode("latin-1")))
    raise ProductError("a header without an end")


def _value(text: str) -> str | int | None:
    """Value of a card: text, or a whole number; None for what the layout does not depend on."""
    quoted = re.match(r"\s*'((?:[^']|'')*)'", text)
    if quoted:
        return quoted[1].replace("''", "'").rstrip(" ")
    number = text.split("/")[0].strip()
    return int(number) if re.fullmatch(r"[+-]?\d{1,18}", number) else None


def _layout(header: dict[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape of the data."""
    axes = [header.get(f"NAXIS{i}") for i in range(_count(header, "NAXIS"), 0, -1)]
    if not all(isinstance(axis, int) and axis >= 0 for axis in axes):
        raise ProductError(f"extension {header.get('EXTNAME')}: axes {axes}")
    shape = tuple(int(axis) for axis in axes if axis is not None)
    if header["XTENSION"] == "IMAGE":
        if header.get("BITPIX") not in _PIXELS:
            raise ProductError(f"extension {header.get('EXTNAME')}: BITPIX {header.get('BITPIX')!r}")
        return np.dtype(_PIXELS[header["BITPIX"]]), shape if shape else (0,)
    fields = [_field(header, i) for i in range(1, _count(header, "TFIELDS") + 1)]
    try:
        dtype = np.dtype(fields)
    except ValueError as error:
        raise ProductError(f"extension {header.get('EXTNAME')}: {error}") from error
    if len(shape) != 2 or shape[1] != dtype.itemsize:
        raise ProductError(f"extension {header.get('EXTNAME')}: rows of {dtype.itemsize} bytes, axes {shape}")
    return dtype, shape[:1]


def _count(header: dict[str, Any], keyword: str) -> int:
    """A number of axes or columns: FITS allows 999."""
    count = header.get(keyword)
    if not isinstance(count, int) or not 0 <= count <= _MOST:
        raise ProductError(f"extension {header.get('EXTNAME')}: {keyword} {count!r}")
    return count


def _field(header: dict[str, Any], number: int) -> tuple[str, str]:
    """Name and type of a column."""
    name, code = header.get(f"TTYPE{number}"), str(header.get(f"TFORM{number}"))
    parts = re.fullmatch(r"(\d{0,9})([LKDA])", code)
    if not isinstance(name, str) or not name or parts is None:
        raise ProductError(f"column {number} of extension {header.get('EXTNAME')}: {name!r} of type {code!r}")
    if parts[2] == "A":
        return name, f"S{int(parts[1] or 1)}"
    if int(parts[1] or 1) != 1:
        raise ProductError(f"column {name} of extension {header.get('EXTNAME')}: {code} is no single value")
    return name, _FIELDS[parts[2]]
