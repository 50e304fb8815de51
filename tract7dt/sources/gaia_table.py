"""The Gaia table: reading, checking, and moving its stars to the epoch of the images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tract7dt.errors import InputError
from tract7dt.sources.catalogue import sky_to_pixel
from tract7dt.sources.raw_table import RawTable, read_raw_table
from tract7dt.types import F8, Field

__all__ = ["at_epoch", "gaia_magnitudes", "place_gaia", "read_gaia"]

log = logging.getLogger(__name__)

#: Magnitudes beyond these stand for "no value" in many tables (99, -99, 1e20).
_MAG_RANGE = (-10.0, 40.0)
_MAS_PER_RAD = np.degrees(1) * 3.6e6
_LISTED = 10


def read_gaia(path: str, bands: Sequence[str], need_magnitudes: bool) -> pd.DataFrame:
    """Read a Gaia table (CSV, or what :func:`read_raw_table` takes).

    Parameters
    ----------
    path : str
        Local path or URL.
    bands : sequence of str
        Bands of the images.
    need_magnitudes : bool
        True for augmentation and zero point; False where the stars only seed the ePSF: then ``ra`` and
        ``dec`` are enough.

    Returns
    -------
    DataFrame
        ``source_id`` (text as in the file, "" where none), ``ra``, ``dec`` (deg), ``phot_g_mean_mag``,
        ``mag_{band}`` for those of ``bands`` that the file has, ``pmra`` (with cos dec), ``pmdec``
        (mas/yr), ``ref_epoch`` (Julian year); numbers are NaN where absent or unreadable, magnitudes
        also beyond -10 to 40. Rows without a valid position are left out.

    Raises
    ------
    InputError
        If the file cannot be read, a row has more or fewer cells than the header, a column that is needed
        is missing or comes twice, no ``mag_{band}`` belongs to a band, or a ``source_id`` is empty (where it
        is needed) or repeats.
    StoreUnreachableError
        The store of a URL does not answer.
    """
    raw = _read(path)
    where = {name.strip(): number for number, name in enumerate(raw.names)}
    magnitudes = [f"mag_{band}" for band in bands if f"mag_{band}" in where]
    numbers = ("ra", "dec", "phot_g_mean_mag", *magnitudes, "pmra", "pmdec", "ref_epoch")
    _check_columns(raw, ("source_id", *numbers), bands, magnitudes, need_magnitudes)
    index = pd.RangeIndex(len(raw))
    table = pd.DataFrame({"source_id": _identifiers(raw, where, need_magnitudes)}, index=index)
    for name in numbers:
        table[name] = raw.numbers(where[name])[0] if name in where else np.full(len(raw), np.nan)
    for name in ("phot_g_mean_mag", *magnitudes):
        table[name] = table[name].where(table[name].between(*_MAG_RANGE))
    valid = np.isfinite(table["ra"]) & (table["dec"].abs() <= 90)
    if not valid.all():
        log.warning("%s: %d of %d rows have no valid ra, dec; left out", path, (~valid).sum(), len(table))
    return table[valid].reset_index(drop=True)


def _read(path: str) -> RawTable:
    try:
        return read_raw_table(path)
    except InputError as error:
        raise InputError(
            f"Gaia table {path} cannot be read: {str(error).removeprefix(f'{path}: ')}"
        ) from error


def _check_columns(
    raw: RawTable, known: Sequence[str], bands: Sequence[str], magnitudes: list[str], need_magnitudes: bool
) -> None:
    names = [name.strip() for name in raw.names]
    needed = ("source_id", "ra", "dec", "phot_g_mean_mag") if need_magnitudes else ("ra", "dec")
    problems = [f"column {name} is missing" for name in needed if name not in names]
    problems += [f"column {name} comes twice" for name in known if names.count(name) > 1]
    if need_magnitudes and not magnitudes:
        present = [name for name in names if name.startswith("mag_")]
        problems.append(
            f"no column mag_{{band}} for any image band ({', '.join(bands)}); "
            f"the table has {', '.join(present[:_LISTED]) or 'none'}"
        )
    if problems:
        raise InputError(f"Gaia table {raw.path}: {'; '.join(problems)}; columns: {', '.join(names)}")
    absent = [band for band in bands if f"mag_{band}" not in magnitudes]
    if need_magnitudes and absent:
        log.warning("%s has no mag_{band} for %s: no zero point there", raw.path, ", ".join(absent))


def _identifiers(raw: RawTable, where: Mapping[str, int], needed: bool) -> pd.Series:
    if "source_id" not in where:
        return pd.Series("", index=pd.RangeIndex(len(raw)), dtype="str")
    column = where["source_id"]
    problems = []
    if isinstance(raw.columns[column], np.ndarray):
        problems.append("source_id is a column of floating-point numbers, which lose the last digits of it")
    identifiers = pd.Series([text.strip() for text in raw.text(column)], dtype="str")
    if needed and (identifiers == "").any():
        rows = np.flatnonzero(identifiers == "")[:_LISTED].tolist()
        lines = [row + 1 if raw.lines is None else raw.lines[row] for row in rows]
        problems.append(f"source_id is empty on line {', '.join(map(str, lines))}")
    repeated = identifiers[identifiers.duplicated() & (identifiers != "")].unique()
    if len(repeated):
        problems.append(f"{len(repeated)} source_id repeat: {', '.join(repeated[:_LISTED])}")
    if problems:
        raise InputError(f"Gaia table {raw.path}: {'; '.join(problems)}")
    return identifiers


def at_epoch(ra: F8, dec: F8, pmra: F8, pmdec: F8, years: F8) -> tuple[F8, F8]:
    """Positions after ``years`` of uniform motion along a great circle's tangent.

    The direction ``r`` becomes ``r + t (pmra p + pmdec q)``, normalised, with ``p`` and ``q`` the unit
    vectors towards east and north: rigorous but for parallax and radial velocity (Hipparcos catalogue,
    ESA SP-1200, volume 1, section 1.5.5), and valid at the poles.

    Parameters
    ----------
    ra, dec : ndarray
        Degrees.
    pmra, pmdec : ndarray
        mas/yr; ``pmra`` includes cos(dec).
    years : ndarray
        Julian years; where any of these is NaN the star stays.
    """
    known = np.isfinite(pmra) & np.isfinite(pmdec) & np.isfinite(years)
    if not known.any():
        return ra, dec
    a, d = np.radians(ra[known]), np.radians(dec[known])
    east, north = ((pm[known] * years[known] / _MAS_PER_RAD) for pm in (pmra, pmdec))
    x = np.cos(d) * np.cos(a) - east * np.sin(a) - north * np.sin(d) * np.cos(a)
    y = np.cos(d) * np.sin(a) + east * np.cos(a) - north * np.sin(d) * np.sin(a)
    z = np.sin(d) + north * np.cos(d)
    ra, dec = ra.copy(), dec.copy()
    ra[known] = np.degrees(np.arctan2(y, x)) % 360
    dec[known] = np.degrees(np.arctan2(z, np.hypot(x, y)))
    return ra, dec


def place_gaia(table: pd.DataFrame, field: Field) -> pd.DataFrame:
    """Move the stars to the epoch of the images, and find their pixels.

    Parameters
    ----------
    table : DataFrame
        From :func:`read_gaia`.
    field : Field
        With ``epoch`` None the positions stay as they are.

    Returns
    -------
    DataFrame
        ``table`` with ``ra``, ``dec`` at the epoch and ``x_pix_white``, ``y_pix_white`` (working frame;
        NaN where the WCS has no pixel).
    """
    ra, dec = table["ra"].to_numpy(float), table["dec"].to_numpy(float)
    if field.epoch is not None:
        pmra, pmdec = table["pmra"].to_numpy(float), table["pmdec"].to_numpy(float)
        ra, dec = at_epoch(ra, dec, pmra, pmdec, field.epoch - table["ref_epoch"].to_numpy(float))
    x, y = sky_to_pixel(field.wcs, ra, dec, field.shape)
    return table.assign(ra=ra, dec=dec, x_pix_white=x, y_pix_white=y)


def gaia_magnitudes(table: pd.DataFrame, source_ids: ArrayLike, bands: Sequence[str]) -> F8:
    """Magnitudes of the named stars.

    Parameters
    ----------
    table : DataFrame
        From :func:`read_gaia`.
    source_ids : array_like of str (n,)
    bands : sequence of str

    Returns
    -------
    ndarray, float64 (nband, n)
        mag AB; NaN for an unknown star, a band that the table lacks, and where it has no value.
    """
    wanted = pd.Index(np.asarray(source_ids, dtype=object))
    row = pd.Index(table["source_id"].astype(object)).get_indexer(wanted)
    result = np.full((len(bands), len(wanted)), np.nan)
    for number, band in enumerate(bands):
        if f"mag_{band}" in table and len(table):
            values = table[f"mag_{band}"].to_numpy(float)
            result[number] = np.where((row >= 0) & (wanted != ""), values[row], np.nan)
    return result
