"""A published catalogue as an astropy table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy import units as u
from astropy.table import Column, MaskedColumn, QTable

from tract7dt.errors import StoreError
from tract7dt.results.runs import find_run
from tract7dt.results.transfer import fetch_object
from tract7dt.store.remote import cache_folder

__all__ = ["load"]


def load(
    url: str,
    field: str | None = None,
    night: str | None = None,
    run: str = "latest",
    endpoint_url: str | None = None,
    cache_dir: str | Path | None = None,
) -> QTable:
    """The catalogue of a published run, with units and descriptions.

    The file is kept in the cache under its SHA-256: the next call reads it from there.

    Parameters
    ----------
    url : str
        ``publish.url`` of the runs, e.g. ``s3://bucket/photometry``.
    field : str, optional
        May be left out where there is only one.
    night : str, optional
        ``YYYY-MM-DD``.
    run : str
        An id, or its beginning; ``latest``: the latest (of ``night``, if that is given).
    endpoint_url : str, optional
        S3-compatible service; default AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL.
    cache_dir : path, optional
        Default :func:`tract7dt.store.remote.cache_folder`.

    Returns
    -------
    astropy.table.QTable
        One row an input row. A missing number is NaN, a missing integer masked. ``meta`` holds ``field``,
        ``night``, ``run_id``, ``status``, ``url`` and what the catalogue itself says of the run.

    Raises
    ------
    StoreError
        There is no such run, or its catalogue is not what the manifest says.
    """
    found = find_run(url, field, night, run, endpoint_url)
    entries = [e for e in found.manifest.of_kind("catalogue") if e.key.endswith(".parquet")]
    if len(entries) != 1:
        raise StoreError(f"{found.store.address()}: expected one catalogue in Parquet, found {len(entries)}")
    root = Path(cache_dir) if cache_dir is not None else cache_folder()
    path = root / "catalogues" / f"{entries[0].sha256}.parquet"
    fetch_object(found.store, entries[0], path)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{found.store.address(entries[0].key)}: not a readable Parquet table ({error})"
        ) from error
    result = QTable([_column(table.field(i), table.column(i)) for i in range(table.num_columns)])
    text = (table.schema.metadata or {}).get(b"tract7dt", b"").decode("utf-8", "replace")
    manifest = found.manifest
    result.meta.update(
        field=manifest.field, night=manifest.night, run_id=manifest.run_id, status=manifest.status,
        url=found.store.address(), catalogue=text,
    )  # fmt: skip
    return result


def _column(field: Any, values: Any) -> Any:
    """One column with its unit and description."""
    about = {k.decode(): v.decode("utf-8", "replace") for k, v in (field.metadata or {}).items()}
    common = {"name": field.name, "description": about.get("description") or None}
    if pa.types.is_integer(field.type):
        mask = np.asarray(values.is_null())
        whole = values.fill_null(0).to_numpy().astype(np.int64)
        return MaskedColumn(whole, mask=mask, **common) if mask.any() else Column(whole, **common)
    if pa.types.is_floating(field.type):
        unit = u.Unit(about["unit"], parse_strict="silent") if about.get("unit") else None
        return Column(np.array(values.to_numpy(), float), unit=unit, **common)
    if pa.types.is_boolean(field.type):
        return Column(np.asarray(values.to_numpy(zero_copy_only=False), bool), **common)
    return Column(np.array(["" if v is None else str(v) for v in values.to_pylist()], str), **common)
