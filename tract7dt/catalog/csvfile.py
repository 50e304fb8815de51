"""Catalogues as CSV: what is read back is what was written, bit for bit and character for character."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tract7dt.catalog.csv_text import write_lines
from tract7dt.errors import ProductError
from tract7dt.schema import Column, bands_of, describe
from tract7dt.store import atomic_path

__all__ = ["missing_values", "read_csv", "typed", "typed_array", "write_csv"]

#: pandas types of the schema's types; a missing int64 stays missing instead of turning the column to floats.
PANDAS_DTYPE: dict[str, Any] = {
    name: pd.api.types.pandas_dtype(of_pandas)
    for name, of_pandas in {"float64": "float64", "int64": "Int64", "bool": "bool", "str": "str"}.items()
}

#: Up to pandas 3.0 the parser that reads floats exactly had to be asked for; since then asking for it warns.
EXACT_FLOATS: dict[str, Any] = (
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)


def write_csv(table: pd.DataFrame, path: str | Path) -> None:
    """Write ``table`` whole or not at all: floats in the shortest form that reads back, text as it is.

    Raises
    ------
    ProductError
        If two columns have one name.
    """
    doubles = sorted(set(table.columns[table.columns.duplicated()].astype(str)))
    if doubles:
        raise ProductError(f"{path}: several columns are named {doubles}; a table needs different names")
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        write_lines(table, stream)


def read_csv(
    path: str | Path, bands: Sequence[str] | None = None, row_numbers: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a table of :func:`write_csv`: columns of the schema in their types, any other as text.

    Parameters
    ----------
    path : path
    bands : sequence of str, optional
        Fitted bands; default: those that the columns show.
    row_numbers : sequence of str, optional
        Further columns, of whole numbers that are never missing.

    Raises
    ------
    ProductError
        If the file is missing, is not a table, or a value does not fit its column's type.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            names = next(csv.reader(stream), [])
        found = bands_of(names) if bands is None else bands
        columns = {n: describe(n, found) for n in names}
        kinds = {n: "str" if c is None else c.dtype for n, c in columns.items()}
        return pd.read_csv(
            path,
            dtype={n: "int64" if n in row_numbers else PANDAS_DTYPE[k] for n, k in kinds.items()},
            keep_default_na=False,
            na_values={n: [""] for n, k in kinds.items() if k in ("float64", "int64")},
            encoding="utf-8",
            **EXACT_FLOATS,
        )
    except FileNotFoundError as error:
        raise ProductError(f"{path}: not found") from error
    except (ValueError, OSError, csv.Error) as error:  # parser errors of pandas are ValueErrors
        raise ProductError(f"{path}: not a catalogue that this version wrote: {error}") from error


def typed_array(values: object, column: Column) -> Any:
    """``values`` as an array of the type that the schema gives a column: NumPy's where none can be missing."""
    if column.dtype in ("float64", "bool"):
        return np.asarray(values, column.dtype)
    return pd.Series(values, dtype=PANDAS_DTYPE[column.dtype]).array


def typed(values: object, column: Column, index: pd.Index) -> pd.Series:
    """``values`` as the column of the type that the schema gives it."""
    return pd.Series(values, index=index, dtype=PANDAS_DTYPE[column.dtype], name=column.name)


def missing_values(column: Column, index: pd.Index) -> pd.Series:
    """The column of rows without a value: NaN, null, False or ""."""
    value = {"float64": float("nan"), "int64": pd.NA, "bool": False, "str": ""}[column.dtype]
    kind = {"float64": float, "bool": bool}.get(column.dtype, object)
    return typed(np.full(len(index), value, dtype=kind), column, index)
