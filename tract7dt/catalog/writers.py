"""The final catalogue in its three formats, and the merged catalogue between stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tract7dt.catalog.csvfile import read_csv, write_csv
from tract7dt.catalog.fitsfile import write_fits
from tract7dt.catalog.parquetfile import read_parquet, write_parquet
from tract7dt.catalog.passthrough import with_types
from tract7dt.errors import ConfigError
from tract7dt.schema import bands_of

__all__ = ["catalog_paths", "read_catalog", "read_merged", "write_catalog", "write_merged"]


def catalog_paths(path_csv: str | Path) -> tuple[Path, Path, Path]:
    """Paths of the CSV, Parquet and FITS catalogue.

    Raises
    ------
    ConfigError
        If the CSV would have the name of one of the others.
    """
    csv = Path(path_csv)
    others = csv.with_suffix(".parquet"), csv.with_suffix(".fits")
    if csv in others:
        raise ConfigError(
            f"outputs.final_catalog: {csv} names the CSV catalogue, "
            "so it ends in .csv; Parquet and FITS are written beside it"
        )
    return csv, *others


def write_catalog(
    table: pd.DataFrame,
    path_csv: str | Path,
    bands: Sequence[str],
    metadata: Mapping[str, Any] | None = None,
) -> tuple[Path, Path, Path]:
    """Write the final catalogue as CSV, Parquet and FITS, each file whole or not at all.

    The CSV is plain: floats in the shortest form that reads back the same, text exactly as it was. In
    Parquet and FITS a column that only passes through is numeric where all its values are plain numbers.
    No file holds a date: equal catalogues are equal files.

    Parameters
    ----------
    table : pandas.DataFrame
        Merged catalogue, with or without magnitudes.
    path_csv : path
        ``outputs.final_catalog``.
    bands : sequence of str
    metadata : mapping, optional
        Plain values for the headers of Parquet and FITS, e.g. field name, ``zp_ref``, versions.

    Returns
    -------
    tuple of Path
        CSV, Parquet and FITS.

    Raises
    ------
    ConfigError
        If ``path_csv`` ends in ``.parquet`` or ``.fits``.
    ProductError
        If two columns have one name.
    """
    csv, parquet, fits = catalog_paths(path_csv)
    write_csv(table, csv)
    rich = with_types(table, bands)
    write_parquet(rich, parquet, bands, metadata)
    write_fits(rich, fits, bands, metadata)
    return csv, parquet, fits


def read_catalog(path: str | Path, bands: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a catalogue of :func:`write_catalog` from its CSV or Parquet file.

    The CSV gives back the table that was written, pass-through text included; Parquet gives back the same
    with pass-through columns in the types that they have in the file.

    Parameters
    ----------
    path : path
        The format follows the suffix ``.parquet``; anything else is CSV.
    bands : sequence of str, optional
        Fitted bands, for CSV; default: those that the columns show.

    Raises
    ------
    ProductError
        If the file is missing or damaged.
    """
    return read_parquet(path) if Path(path).suffix == ".parquet" else read_csv(path, bands)


def write_merged(table: pd.DataFrame, path: str | Path) -> None:
    """Write the merged catalogue between stages as Parquet, pass-through columns as text.

    :func:`read_merged` is the exact inverse.
    """
    write_parquet(table, path, bands_of(table.columns))


def read_merged(path: str | Path) -> pd.DataFrame:
    """Read the table of :func:`write_merged`.

    Raises
    ------
    ProductError
        If the file is missing or damaged.
    """
    return read_parquet(path)
