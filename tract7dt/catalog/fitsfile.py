"""Catalogues as FITS binary tables, with TUNIT and a description (TCOMM) of each column."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy.io import fits

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
    hdus = [primary]
    for number, start in enumerate(range(0, max(len(names), 1), MAX_COLUMNS), 1):
        part = range(start, min(start + MAX_COLUMNS, len(names)))
        columns = [_column(names[i], table.iloc[:, i], bands) for i in part]
        hdu = fits.BinTableHDU.from_columns(
            [c for c, _ in columns], nrows=len(table), name="CATALOG" if number == 1 else f"CATALOG{number}"
        )
        for i, (_, text) in enumerate(columns, 1):
            if text:
                hdu.header.set(f"TCOMM{i}", text, after=f"TTYPE{i}")
        hdus.append(hdu)
    with atomic_path(path) as temporary:
        fits.HDUList(hdus).writeto(temporary, overwrite=True, output_verify="exception")


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


def _column(name: str, values: pd.Series, bands: Sequence[str]) -> tuple[fits.Column, str]:
    """FITS column and the text of its TCOMM."""
    original = str(values.name)
    known = describe(original, bands)
    notes = [known.text] if known is not None else []
    if name != original:
        notes.append(f"Column {json.dumps(original)} of the CSV.")
    unit = known.unit if known is not None and known.unit else None
    kind = values.dtype.kind
    if kind == "f":
        column = fits.Column(name, "D", unit=unit, array=values.to_numpy(float))
    elif kind == "b":
        column = fits.Column(name, "L", unit=unit, array=values.to_numpy(bool))
    elif kind in "iu":
        whole = values.astype("Int64")
        null = NULL if whole.isna().any() else None
        column = fits.Column(name, "K", unit=unit, null=null, array=whole.to_numpy(np.int64, na_value=NULL))
    else:
        text = ["" if pd.isna(v) else str(v) for v in values]
        coded = [t.encode("utf-8") for t in text]
        if not all(t.isascii() for t in text):
            notes.append("Text is UTF-8.")
        width = max(map(len, coded), default=0) or 1
        column = fits.Column(name, f"{width}A", unit=unit, array=np.array(coded, dtype=f"S{width}"))
    return column, " ".join(notes)


def _comments(metadata: Mapping[str, Any]) -> Iterable[str]:
    """Lines for the primary header: metadata as JSON values, then the flags."""
    for key, value in metadata.items():
        yield f"{json.dumps(str(key))[1:-1]} = {json.dumps(plain(value), sort_keys=True, allow_nan=False)}"
    yield "excluded_reason, joined by '+':"
    yield from (f"  {r.name}: {r.text}" for r in EXCLUSION_REASONS)
    yield "fit_quality_issues, joined by ',':"
    yield from (f"  {q.name} ({'hard' if q.hard else 'soft'}): {q.text}" for q in QUALITY_ISSUES)
