"""Catalogues as FITS binary tables, with TUNIT and a description (TCOMM) of each column."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io import fits
from numpy.typing import NDArray

from tract7dt.catalog.text import text_array
from tract7dt.flags import EXCLUSION_REASONS, QUALITY_ISSUES
from tract7dt.schema import describe
from tract7dt.store import atomic_path
from tract7dt.store.atomic import plain

__all__ = ["fits_names", "write_fits"]

#: Most columns of a FITS table: TFIELDS has three digits.
MAX_COLUMNS = 999

#: Longest column name that fits the 68 characters of a header value with room for a suffix.
MAX_NAME = 60

#: Stands for a missing integer (TNULL).
NULL = np.iinfo(np.int64).min

#: Rows are written some at a time, of so many bytes together.
_ROWS_BYTES = 1 << 24

#: FITS files consist of blocks.
_BLOCK = 2880


def write_fits(
    table: pd.DataFrame, path: str | Path, bands: Sequence[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write ``table`` as a binary table named CATALOG, whole or not at all; equal tables give equal bytes.

    A missing float is NaN, a missing integer TNULL, a missing text "". Text beyond ASCII is stored as UTF-8
    (astropy's ``Table.read`` decodes it), and TCOMM says so; FITS does not keep blanks at the end of a text.
    Column names are made fit for FITS by :func:`fits_names`, and TCOMM names the original. Above 999 columns
    the rest follows in CATALOG2, CATALOG3, ..., row by row the same sources. The run's metadata and the
    meaning of the flags are in the comments of the header.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns of type float64, Int64, bool or text.
    path : path
    bands : sequence of str
    metadata : mapping, optional
        Plain values.
    """
    names = fits_names([str(c) for c in table.columns])
    primary = fits.PrimaryHDU()
    for line in _comments(metadata or {}):
        primary.header.add_comment(line)
    hdus, parts = fits.HDUList([primary]), []
    for number, start in enumerate(range(0, max(len(names), 1), MAX_COLUMNS), 1):
        part = [
            _column(names[i], table.iloc[:, i], bands)
            for i in range(start, min(start + MAX_COLUMNS, len(names)))
        ]
        hdus.append(_empty_table(part, len(table), "CATALOG" if number == 1 else f"CATALOG{number}"))
        parts.append(part)
    hdus.update_extend()
    hdus.verify("exception")
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(primary.header.tostring().encode("ascii"))
        for hdu, part in zip(hdus[1:], parts, strict=True):
            stream.write(_with_rows(hdu.header, len(table)).tostring().encode("ascii"))
            _write_rows(stream, part, len(table))


@dataclass(frozen=True, slots=True)
class _Part:
    """A column of the file: how it is described, and its bytes row by row."""

    column: fits.Column
    text: str
    dtype: str
    rows: Callable[[slice], NDArray[Any]]


def _empty_table(columns: Sequence[_Part], nrows: int, name: str) -> fits.BinTableHDU:
    """The table without its rows: astropy would hold all of them, the texts several times over."""
    hdu = fits.BinTableHDU.from_columns([c.column for c in columns], nrows=0, name=name)
    for i, column in enumerate(columns, 1):
        if column.text:
            hdu.header.insert("EXTNAME", (f"TCOMM{i}", column.text))
    return hdu


def _with_rows(header: fits.Header, n: int) -> fits.Header:
    header["NAXIS2"] = n
    return header


def _write_rows(stream: BinaryIO, columns: Sequence[_Part], n: int) -> None:
    """The rows of a binary table, some at a time, and what fills the last block."""
    record = np.dtype([(f"c{i}", column.dtype) for i, column in enumerate(columns)])
    step = max(1, _ROWS_BYTES // max(record.itemsize, 1))
    for start in range(0, n if columns else 0, step):
        rows = np.zeros(min(step, n - start), record)
        for i, column in enumerate(columns):
            rows[f"c{i}"] = column.rows(slice(start, start + len(rows)))
        stream.write(rows.tobytes())
    stream.write(bytes(-n * record.itemsize % _BLOCK))


def fits_names(names: Sequence[str]) -> list[str]:
    """Names that FITS can tell apart: ASCII letters, digits and "_", different also in lower case.

    Other characters become "_"; a name that is taken gets "_2", "_3", ...; the first to come keeps it.
    """
    result: list[str] = []
    taken = {n.lower() for n in names if n == _plain_name(n)}
    seen: set[str] = set()
    for name in names:
        wanted = _plain_name(name)
        candidate, number = wanted, 1
        while candidate.lower() in seen or (candidate != name and candidate.lower() in taken):
            number += 1
            candidate = f"{wanted}_{number}"
        seen.add(candidate.lower())
        result.append(candidate)
    return result


def _plain_name(name: str) -> str:
    """``name`` in the characters and length of FITS column names."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)[:MAX_NAME] or "column"


def _column(name: str, values: pd.Series, bands: Sequence[str]) -> _Part:
    """A column of the table as a column of the file."""
    original = str(values.name)
    known = describe(original, bands)
    notes = [known.text] if known is not None else []
    if name != original:
        notes.append(f"Column {json.dumps(original)} of the CSV.")
    unit = known.unit if known is not None and known.unit else None
    kind = values.dtype.kind
    null, rows = None, values.array
    if kind == "f":
        form, dtype = "D", ">f8"
    elif kind == "b":
        form, dtype = "L", "u1"
    elif kind in "iu":
        form, dtype = "K", ">i8"
        rows = values.astype("Int64").array
        null = NULL if rows.isna().any() else None
    else:
        rows = text_array(values)
        if not pc.all(pc.string_is_ascii(rows), min_count=0).as_py():
            notes.append("Text is UTF-8.")
        width = pc.max(pc.binary_length(rows)).as_py() or 1
        form, dtype = f"{width}A", f"S{width}"
    column = fits.Column(name, form, unit=unit, null=null)
    return _Part(column, " ".join(notes), dtype, lambda where: _BYTES[form[-1]](rows[where]))


def _padded(texts: pa.StringArray) -> NDArray[np.bytes_]:
    """Texts in UTF-8 without the blanks at their ends, all of the longest one's width."""
    texts = pc.ascii_rtrim(texts, " \t\n\v\f\r")
    lengths = pc.binary_length(texts).to_numpy()
    width = max(int(lengths.max(initial=0)), 1)
    _, places, data = texts.buffers()
    letters = np.zeros((len(texts), width), np.uint8)
    if lengths.any():
        first = np.frombuffer(places, np.int32)[texts.offset]
        held = np.frombuffer(data, np.uint8)[first : first + int(lengths.sum())]
        letters[np.arange(width) < lengths[:, None]] = held
    return letters.view(f"S{width}")[:, 0]


#: Bytes of some rows by the letter of the column's format.
_BYTES: dict[str, Callable[[Any], NDArray[Any]]] = {
    "D": lambda rows: np.asarray(rows, np.float64),
    "L": lambda rows: np.where(np.asarray(rows, bool), np.uint8(ord("T")), np.uint8(ord("F"))),
    "K": lambda rows: rows.to_numpy(np.int64, na_value=NULL),
    "A": _padded,
}


def _comments(metadata: Mapping[str, Any]) -> Iterable[str]:
    """Lines for the primary header: metadata as JSON values, then the flags."""
    for key, value in metadata.items():
        yield f"{json.dumps(str(key))[1:-1]} = {json.dumps(plain(value), sort_keys=True, allow_nan=False)}"
    yield "excluded_reason, joined by '+':"
    yield from (f"  {r.name}: {r.text}" for r in EXCLUSION_REASONS)
    yield "fit_quality_issues, joined by ',':"
    yield from (f"  {q.name} ({'hard' if q.hard else 'soft'}): {q.text}" for q in QUALITY_ISSUES)
