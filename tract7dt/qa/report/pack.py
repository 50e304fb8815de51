"""Numbers as a browser reads them fast: typed arrays, compressed, as text."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tract7dt.store.atomic import plain

__all__ = ["json_text", "packed"]

_TYPES = {
    "int8": "Int8Array",
    "uint8": "Uint8Array",
    "uint16": "Uint16Array",
    "float32": "Float32Array",
    "float64": "Float64Array",
}
_LEVEL = 4


def packed(arrays: Mapping[str, NDArray[Any]], text: Any = None) -> str:
    """Arrays, and something that is JSON, as gzipped base64.

    Layout: length of a JSON header (4 bytes, little-endian), the header (name, type, offset, length of each
    array, and ``text``), the arrays, little-endian. The same input gives the same bytes.
    """
    header: dict[str, Any] = {"text": plain(text), "arrays": {}}
    parts: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        header["arrays"][name] = [_TYPES[array.dtype.name], offset, len(content)]
        parts.append(content)
        offset += len(content)
    head = json.dumps(header, allow_nan=False).encode()
    raw = len(head).to_bytes(4, "little") + head + b"".join(parts)
    return base64.b64encode(gzip.compress(raw, _LEVEL, mtime=0)).decode("ascii")


def json_text(value: Any) -> str:
    """``value`` as JSON that can stand in a script element: no ``<`` in it can end the element."""
    text = json.dumps(plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
