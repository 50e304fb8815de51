r"""The SOURCES table of a payload: a FITS binary table that gives back every value exactly.

FITS text is ASCII, padded with blanks, and a column name is a short ASCII word. So text is written with
Python's escapes (``\xe9``, ``\u3042``, a last blank as ``\x20``), a missing text as ``\N``; exact names and
types stand in the payload's description, to which :func:`table_columns` contributes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tract7dt.errors import ProductError

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["read_table", "table_columns", "table_hdu"]

_MISSING = b"\\N"
#: FITS allows no more columns in a table.
_MAX_COLUMNS = 999
_NUMBERS = {"b": ("L", np.bool_), "i": ("K", np.int64), "u": ("K", np.int64), "f": ("D", np.float64)}


def table_columns(table: pd.DataFrame) -> list[dict[str, str]]:
    """Name in the catalogue, name in the FITS table and type of each column.

    Raises
    ------
    ProductError
        If there are too many columns, or names repeat or are no text.
    """
    names = list(table.columns)
    if len(names) > _MAX_COLUMNS:
        raise ProductError(
            f"a payload's table holds at most {_MAX_COLUMNS} columns, the catalogue has {len(names)}"
        )
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ProductError(f"column names must be text and differ: {names}")
    used: set[str] = set()
    columns = []
    for number, name in enumerate(names):
        label = re.sub(r"[^A-Za-z0-9_]", "_", name)[:60] or "_"
        if label.upper() in used:
            label = f"{label[:54]}_{number}"
        used.add(label.upper())
        columns.append({"name": name, "label": label, "type": _type_of(table[name])})
    return columns


def _type_of(column: pd.Series) -> str:
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in _NUMBERS and dtype.itemsize <= 8:
        return dtype.newbyteorder("=").name
    if all(isinstance(value, str) or pd.isna(value) for value in column):
        return "object" if dtype.kind == "O" and not isinstance(dtype, pd.StringDtype) else "str"
    raise ProductError(f"column {column.name!r} has type {dtype}: a payload holds text, numbers and booleans")


def table_hdu(table: pd.DataFrame, columns: list[dict[str, str]]) -> fits.BinTableHDU:
    """Extension SOURCES with the rows of ``table``; ``columns`` from :func:`table_columns`."""
    from astropy.io import fits  # readers do without

    made = []
    for column in columns:
        values = table[column["name"]]
        if column["type"] in ("str", "object"):
            text = [_MISSING if pd.isna(value) else escape(value) for value in values]
            width = max((len(value) for value in text), default=0) or 1
            made.append(fits.Column(column["label"], f"{width}A", array=np.array(text, dtype=f"S{width}")))
        else:
            array = values.to_numpy()
            code, dtype = _NUMBERS[array.dtype.kind]
            array = array.view(np.int64) if array.dtype == np.uint64 else array.astype(dtype)
            made.append(fits.Column(column["label"], code, array=array))
    return fits.BinTableHDU.from_columns(made, nrows=len(table), name="SOURCES")


def read_table(raw: np.ndarray, columns: list[dict[str, str]]) -> pd.DataFrame:
    """Rows of extension SOURCES as :func:`table_hdu` was given them, from the structured array in the file.

    Raises
    ------
    ProductError
        If the extension's columns are not those of ``columns``, or a value cannot be decoded.
    """
    if [column["label"] for column in columns] != list(raw.dtype.names or ()):
        raise ProductError("the columns of extension SOURCES are not those that its description names")
    result: dict[str, Any] = {}
    for column, field in zip(columns, raw.dtype.names or (), strict=True):
        values, wanted = raw[field], column["type"]
        if wanted in ("str", "object"):
            if values.dtype.kind != "S":
                raise ProductError(f"column {column['name']!r} of extension SOURCES is no text")
            result[column["name"]] = _text(values, wanted, column["name"])
        else:
            result[column["name"]] = _numbers(values, np.dtype(wanted), column["name"])
    return pd.DataFrame(result, index=pd.RangeIndex(len(raw)), columns=[c["name"] for c in columns])


def escape(text: str) -> bytes:
    """``text`` in ASCII with Python's escapes; a blank at the end is escaped, since FITS drops it."""
    code = text.encode("unicode_escape")
    return code[:-1] + b"\\x20" if code.endswith(b" ") else code


def _text(values: np.ndarray, wanted: str, name: str) -> pd.Series:
    stripped = (value.rstrip(b" ") for value in values.tolist())
    try:
        text = [None if value == _MISSING else value.decode("unicode_escape") for value in stripped]
    except UnicodeDecodeError as error:
        raise ProductError(f"column {name!r} of extension SOURCES: {error}") from error
    return pd.Series(text, dtype="str" if wanted == "str" else object)


def _numbers(values: np.ndarray, wanted: np.dtype, name: str) -> np.ndarray:
    if wanted.kind == "b":
        if (
            values.dtype.kind != "i"
            or values.itemsize != 1
            or not np.isin(values, (ord("T"), ord("F"))).all()
        ):
            raise ProductError(f"column {name!r} of extension SOURCES is not logical")
        return values == ord("T")
    expected = "f" if wanted.kind == "f" else "i"
    if values.dtype.kind != expected or values.itemsize != 8:
        raise ProductError(f"column {name!r} of extension SOURCES: expected {wanted}, found {values.dtype}")
    native = values.astype(values.dtype.newbyteorder("="))
    return native.view(np.uint64) if wanted == np.uint64 else native.astype(wanted)
