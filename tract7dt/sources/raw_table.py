"""Reading a table as it stands in its file: CSV as text, Parquet and FITS with their own types."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from tract7dt.errors import InputError, StoreUnreachableError
from tract7dt.store.remote import local_copy
from tract7dt.store.urls import is_url
from tract7dt.types import F8

__all__ = ["RawTable", "read_raw_table"]

#: What stands for "no value" in a column of numbers (lower case).
_MISSING = frozenset({"", "nan", "null", "none", "na", "n/a", "<na>", "--"})
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)

#: What pyarrow and astropy raise on a file that is not what its own description says.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)

Column = Sequence[str] | NDArray[Any]


@dataclass(frozen=True, slots=True)
class RawTable:
    """Columns of a file in their order.

    Attributes
    ----------
    path : str
    names : tuple of str
    columns : tuple
        For each column its texts, or a NumPy array of numbers where the format has types.
    lines : tuple of int or None
        Line of each row in a text file.
    """

    path: str
    names: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[int, ...] | None

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def row(self, index: int) -> str:
        """How a message names a row."""
        return f"row {index + 1}" + (f" (line {self.lines[index]})" if self.lines is not None else "")

    def text(self, column: int) -> list[str]:
        """A column as text, "" where the file has no value."""
        values = self.columns[column]
        if not isinstance(values, np.ndarray):
            return list(values)
        return ["" if value != value else str(value) for value in values]

    def numbers(self, column: int) -> tuple[F8, list[int]]:
        """A column as float64, NaN where not finite, and the rows whose text is no number."""
        values = self.columns[column]
        if isinstance(values, np.ndarray):
            result = values.astype(np.float64)
            bad: list[int] = []
        else:
            result = np.full(len(values), np.nan)
            bad = []
            for i, text in enumerate(values):
                word = text.strip()
                if _PLAIN_NUMBER.fullmatch(word):
                    result[i] = float(word)
                elif word.lower().lstrip("+-") not in _MISSING:
                    bad.append(i)
        result[~np.isfinite(result)] = np.nan
        return result, bad


def read_raw_table(path: str) -> RawTable:
    """Read a table; the suffix says the format: .parquet or .pq, .fits or .fit, anything else is CSV.

    Parameters
    ----------
    path : str
        Local path or fsspec URL, of which a local copy is kept; gzip is recognised by content.

    Raises
    ------
    InputError
        The file is missing, a folder, empty, damaged, not UTF-8, or has rows of different lengths.
    StoreUnreachableError
        The store of a URL does not answer.
    """
    data = _bytes(path)
    name = urlsplit(path).path.lower() if is_url(path) else path.lower()
    name = name.removesuffix(".gz")
    if name.endswith((".parquet", ".pq")):
        return _from_parquet(path, data)
    if name.endswith((".fits", ".fit")):
        return _from_fits(path, data)
    return _from_csv(path, data)


def _bytes(path: str) -> bytes:
    try:
        if not is_url(path) and Path(path).is_dir():
            raise InputError(f"{path}: expected a table, found a folder")
        data = local_copy(path).read_bytes()
        return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except StoreUnreachableError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _from_csv(path: str, data: bytes) -> RawTable:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: expected text in UTF-8, found byte 0x{data[error.start]:02x} in line {line} "
            f"(byte {error.start}); save the file as UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(f"{path}: expected text in UTF-8, found NUL bytes (UTF-16, or not a text file)")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if row and (len(row) > 1 or row[0].strip()):
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num} is not valid CSV ({error})") from error
    if not rows:
        raise InputError(f"{path}: expected a header line and rows, found an empty file")
    header = rows.pop(0)
    lines.pop(0)
    wrong = [f"line {n} ({len(row)})" for n, row in zip(lines, rows) if len(row) != len(header)]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise InputError(
            f"{path}: expected {len(header)} cells a row, as in the header; "
            f"found another number in {', '.join(wrong[:10])}{more}"
        )
    columns = tuple(zip(*rows)) if rows else tuple(() for _ in header)
    return RawTable(path, tuple(header), columns, tuple(lines))


def _from_parquet(path: str, data: bytes) -> RawTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        names, columns = [], []
        for name, column in zip(table.column_names, table.columns):
            if re.fullmatch(r"__index_level_\d+__", name):
                continue  # the row labels of a pandas table, not data
            names.append(name)
            if pa.types.is_floating(column.type):
                columns.append(column.to_numpy())
            else:
                columns.append([_text(value) for value in column.to_pylist()])
    except (pa.ArrowException, *_DAMAGE) as error:
        raise InputError(f"{path}: not a readable Parquet table ({_said(error)})") from error
    return RawTable(path, tuple(names), tuple(columns), None)


def _from_fits(path: str, data: bytes) -> RawTable:
    from astropy.io.fits import VerifyError
    from astropy.table import Table

    columns: list[Column] = []
    try:
        table = Table.read(io.BytesIO(data), format="fits")
        vectors = [name for name in table.colnames if table[name].ndim != 1]
        if not vectors:
            columns = [_fits_column(table[name]) for name in table.colnames]
    except (VerifyError, *_DAMAGE) as error:
        raise InputError(f"{path}: expected a FITS table ({_said(error)})") from error
    if vectors:
        raise InputError(f"{path}: expected one number or text a cell, found arrays in {', '.join(vectors)}")
    return RawTable(path, tuple(table.colnames), tuple(columns), None)


def _fits_column(column: Any) -> Column:
    values = np.ma.asarray(column)
    if values.dtype.kind == "f":
        return values.filled(np.nan).astype(values.dtype.newbyteorder("="))
    return [_text(value) for value in values.tolist()]


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "replace").rstrip() if isinstance(value, bytes) else str(value)
