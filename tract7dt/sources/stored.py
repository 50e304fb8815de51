"""The base catalogue on disk between stages."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tract7dt.errors import ProductError
from tract7dt.store import atomic_path
from tract7dt.types import Sources

__all__ = ["read_sources", "write_sources"]

_KEY = b"tract7dt.sources"


def write_sources(sources: Sources, path: str | Path) -> None:
    """Write the base catalogue as Parquet: every number to the bit, "" and missing text apart."""
    columns = {}
    for name, column in sources.table.items():
        if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_numeric_dtype(column.dtype):
            columns[str(name)] = pa.array(column.to_numpy())
        elif isinstance(column.dtype, pd.StringDtype):
            columns[str(name)] = pa.array(column, pa.string(), from_pandas=True)
        else:
            texts = [None if pd.isna(value) else str(value) for value in column]
            columns[str(name)] = pa.array(texts, pa.string())
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps({"has_id": sources.has_id})})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_sources(path: str | Path) -> Sources:
    """Read what :func:`write_sources` wrote.

    Raises
    ------
    ProductError
        The file is missing, damaged, or something else.
    """
    try:
        table = pq.read_table(path)
        has_id = bool(json.loads((table.schema.metadata or {})[_KEY])["has_id"])
    except FileNotFoundError:
        raise ProductError(f"{path}: missing; tract7dt run makes it") from None
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise ProductError(f"{path}: not a base catalogue of this pipeline ({error!r})") from error
    return Sources(table.to_pandas(), has_id)
