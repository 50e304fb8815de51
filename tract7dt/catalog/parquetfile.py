"""Catalogues as Parquet, with unit and description in each field's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tract7dt.catalog.csvfile import PANDAS_DTYPE
from tract7dt.catalog.text import text_array
from tract7dt.errors import ProductError
from tract7dt.schema import describe
from tract7dt.store import atomic_path
from tract7dt.store.atomic import plain

__all__ = ["read_parquet", "write_parquet"]

#: Key of the run's metadata in the file's schema.
METADATA_KEY = b"tract7dt"

#: Rows are packed in groups of so many: a group is held until it is whole.
_GROUP_ROWS = 1 << 17


def write_parquet(
    table: pd.DataFrame, path: str | Path, bands: Sequence[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write ``table`` whole or not at all; equal tables give equal bytes.

    A field's metadata holds ``unit`` and ``description`` where the schema knows the column; the file's holds
    ``tract7dt``, the run's metadata as JSON. A missing float is NaN, a missing
    integer null, a missing text "".

    Parameters
    ----------
    table : pandas.DataFrame
        Columns of type float64, Int64, bool or text.
    path : path
    bands : sequence of str
    metadata : mapping, optional
        Plain values, e.g. field name, ``zp_ref``, versions.
    """
    fields, arrays = [], []
    for name in table.columns:
        known = describe(str(name), bands)
        about = {} if known is None else {"unit": known.unit, "description": known.text}
        array = _array(table[name])
        arrays.append(array)
        fields.append(pa.field(str(name), array.type, metadata=about or None))
    text = json.dumps(plain(metadata or {}), sort_keys=True, allow_nan=False)
    schema = pa.schema(fields, metadata={METADATA_KEY: text.encode()})
    with atomic_path(path) as temporary:
        table_of_arrow = pa.Table.from_arrays(arrays, schema=schema)
        pq.write_table(table_of_arrow, temporary, compression="zstd", row_group_size=_GROUP_ROWS)


def read_parquet(path: str | Path) -> pd.DataFrame:
    """Read a table of :func:`write_parquet`; the exact inverse.

    Raises
    ------
    ProductError
        If the file is missing or damaged.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise ProductError(f"{path}: not found") from error
    except (pa.ArrowException, OSError) as error:
        raise ProductError(f"{path}: not a Parquet file, or damaged: {error}") from error
    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_integer(column.type):
            columns[name] = column.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        elif pa.types.is_floating(column.type):
            # A copy: what arrow hands out cannot be written to.
            columns[name] = pd.Series(np.array(column.to_numpy(), dtype=float))
        elif pa.types.is_boolean(column.type):
            columns[name] = pd.Series(column.to_numpy().astype(bool))
        else:
            columns[name] = _texts(column)
    return pd.DataFrame(columns, columns=table.column_names, copy=False)


def _array(values: pd.Series) -> pa.Array:
    """A column as an arrow array."""
    kind = values.dtype.kind
    if kind == "f":
        return pa.array(values.to_numpy(float), type=pa.float64(), from_pandas=False)
    if kind in "iu":
        return pa.array(values.astype("Int64"), type=pa.int64())
    if kind == "b":
        return pa.array(values.to_numpy(bool), type=pa.bool_())
    return text_array(values)


def _texts(column: pa.ChunkedArray) -> pd.Series:
    """A column of texts as pandas has them."""
    if not pa.types.is_string(column.type):
        return pd.Series(column.to_pylist(), dtype="str")
    series: pd.Series = column.to_pandas(types_mapper={pa.string(): PANDAS_DTYPE["str"]}.get)
    return series
