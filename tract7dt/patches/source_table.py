r"""The SOURCES table of a payload: a FITS binary table that gives back every value exactly.

FITS text is ASCII, padded with blanks, and a column name is a short ASCII word. So text is written with
Python's escapes (``\xe9``, ``\u3042``, a last blank as ``\x20``), a missing text as ``\N``; exact names and
types stand in the payload's description, to which :func:`table_columns` contributes.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from tract7dt.errors import ProductError

__all__ = ["read_table", "table_columns", "table_extension"]

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


def table_extension(table: pd.DataFrame, columns: list[dict[str, str]]) -> tuple[str, bytes]:
    """Extension SOURCES with the rows of ``table``: its cards but for END, and its data (FITS 4.0, 7.3).

    The same bytes as of astropy's BinTableHDU, which looks at every card several times: with a hundred and more
    columns that takes about as long as the rest of a payload.

    Parameters
    ----------
    table : DataFrame
    columns : list
        From :func:`table_columns`.
    """
    formats, arrays = [], []
    for column in columns:
        values = table[column["name"]]
        if column["type"] in ("str", "object"):
            text = [_MISSING if pd.isna(value) else escape(value) for value in values]
            width = max((len(value) for value in text), default=0) or 1
            formats.append(f"{width}A")
            arrays.append(np.array(text, dtype=f"S{width}"))
        else:
            array = values.to_numpy()
            formats.append(_NUMBERS[array.dtype.kind][0])
            arrays.append(_in_fits(array))
    rows = np.empty(len(table), [(c["label"], a.dtype) for c, a in zip(columns, arrays, strict=True)])
    for column, array in zip(columns, arrays, strict=True):
        rows[column["label"]] = array
    cards = "XTENSION= 'BINTABLE'           / binary table extension".ljust(80)
    for name, value, comment in (
        ("BITPIX", 8, "array data type"),
        ("NAXIS", 2, "number of array dimensions"),
        ("NAXIS1", rows.dtype.itemsize, "length of dimension 1"),
        ("NAXIS2", len(table), "length of dimension 2"),
        ("PCOUNT", 0, "number of group parameters"),
        ("GCOUNT", 1, "number of groups"),
        ("TFIELDS", len(columns), "number of table fields"),
    ):
        cards += f"{name:8s}= {value:>20d} / {comment}".ljust(80)
    for number, (column, code) in enumerate(zip(columns, formats, strict=True), 1):
        for keyword, text_value in ((f"TTYPE{number}", column["label"]), (f"TFORM{number}", code)):
            cards += f"{keyword:8s}= '{text_value:8s}'".ljust(80)
    cards += "EXTNAME = 'SOURCES '           / extension name".ljust(80)
    return cards, rows.tobytes()


def _in_fits(array: np.ndarray) -> np.ndarray:
    """Numbers or booleans as the binary table has them: big-endian, in 8 bytes, or T and F."""
    if array.dtype == np.bool_:
        return np.where(array, np.uint8(ord("T")), np.uint8(ord("F")))
    whole = array.view(np.int64) if array.dtype == np.uint64 else array.astype(_NUMBERS[array.dtype.kind][1])
    return whole.astype(whole.dtype.newbyteorder(">"))


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
