"""Columns that only pass through: text in the CSV, in Parquet and FITS numbers where they are plain."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tract7dt.catalog.csvfile import PANDAS_DTYPE
from tract7dt.schema import describe

__all__ = ["numeric_or_text", "with_types"]

#: A plain number has no leading zero (00019 is a name), no plus sign, no blanks and no separators.
INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
FLOAT = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
NOT_A_NUMBER = {"nan", "NaN", "NAN"}

INT64 = np.iinfo(np.int64)

#: Whole numbers up to here are exact as float64.
EXACT_FLOAT = 2**53


def numeric_or_text(values: Sequence[str]) -> pd.Series:
    """``values`` as Int64 or float64 where every non-empty one is a plain number, else as they are.

    Parameters
    ----------
    values : sequence of str
        Empty means missing. NaN in any of its usual spellings counts as a number in a float column.

    Returns
    -------
    pandas.Series
        ``Int64`` (missing: null), ``float64`` (missing: NaN) or text. A whole number that the numeric type
        cannot hold exactly keeps its column text: it is a name rather than a measurement.
    """
    filled = [v for v in values if v]
    if filled and all(INTEGER.fullmatch(v) and v != "-0" for v in filled):
        if all(INT64.min < int(v) <= INT64.max for v in filled):
            return pd.Series([int(v) if v else pd.NA for v in values], dtype="Int64")
    elif filled and all(_is_float(v) for v in filled):
        return pd.Series([float(v) if v else np.nan for v in values], dtype="float64")
    return pd.Series(list(values), dtype="str")


def with_types(table: pd.DataFrame, bands: Sequence[str]) -> pd.DataFrame:
    """Catalogue with columns of the schema in their types and every other text column numeric where it is.

    Parameters
    ----------
    table : pandas.DataFrame
        Is not changed.
    bands : sequence of str
    """
    columns = {}
    for name in table.columns:
        values = table[name]
        known = describe(str(name), bands)
        if known is not None:
            missing_text = known.dtype == "str" and values.isna().any()
            columns[name] = (values.fillna("") if missing_text else values).astype(PANDAS_DTYPE[known.dtype])
        elif values.dtype.kind in "OUT" or isinstance(values.dtype, pd.StringDtype):
            columns[name] = numeric_or_text(["" if pd.isna(v) else str(v) for v in values]).set_axis(
                values.index
            )
        elif values.dtype.kind in "iu":
            columns[name] = values.astype("Int64")
        else:
            columns[name] = values.astype("float64") if values.dtype.kind == "f" else values
    return pd.DataFrame(columns, index=table.index, copy=False)


def _is_float(value: str) -> bool:
    """Whether the text is a plain number that float64 holds (a large whole number must be exact)."""
    if value in NOT_A_NUMBER:
        return True
    if not FLOAT.fullmatch(value):
        return False
    if INTEGER.fullmatch(value):
        return abs(int(value)) <= EXACT_FLOAT
    return bool(np.isfinite(float(value)))
