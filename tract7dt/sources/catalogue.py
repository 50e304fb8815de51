"""The input catalogue: reading, checks, and where its sources lie on the working frame."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.wcs import WCS

from tract7dt.errors import InputError
from tract7dt.sources.columns import PLACEMENT, canonical_name, flux_band, is_number, is_reserved, listed
from tract7dt.sources.raw_table import RawTable, read_raw_table
from tract7dt.types import F8, Bool, Field, Sources

__all__ = ["check_bands", "place", "read_catalogue", "sky_to_pixel", "with_saturation"]

log = logging.getLogger(__name__)

#: A position whose way back to the sky misses by more than this was not found, pix.
_ROUND_TRIP_PIX = 0.01


def read_catalogue(path: str | Path) -> Sources:
    """Read the source catalogue and check every value that has a meaning to us.

    Known columns are recognised in any case and get their canonical name; their numbers become float64 (NaN
    where empty, ``nan``, ``null``, ``inf``); ``ID`` and all other columns stay the text that the file held.
    Rows with a non-finite RA or DEC stay.

    Parameters
    ----------
    path : str
        CSV (UTF-8), or .parquet, .pq, .fits, .fit; any of them gzipped; local or an fsspec URL.

    Returns
    -------
    Sources
        Not placed yet: positions NaN, flags False.

    Raises
    ------
    InputError
        With all problems at once: no RA or DEC, columns that appear twice or are ours to write, text where a
        number is due, RA or DEC out of range, empty or repeated ``ID``, without ``ID`` repeated (RA, DEC).
    """
    raw = read_raw_table(str(path))
    names = _column_names(raw)
    if len(raw) == 0:
        raise InputError(f"{path}: expected at least one source, found a header without rows")
    problems: list[str] = []
    columns: dict[str, F8 | list[str]] = {}
    for i, name in enumerate(names):
        if is_number(name):
            values, bad = raw.numbers(i)
            columns[name] = values
            if bad:
                text = raw.text(i)
                cells = listed(f"{raw.row(j)} {text[j]!r}" for j in bad)
                problems.append(f"column {raw.names[i]}: expected numbers, found {cells}")
        else:
            columns[name] = raw.text(i)
    problems += _range_problems(raw, columns) + _key_problems(raw, columns)
    if problems:
        raise InputError("\n  ".join([f"{path}:", *problems]))
    table = pd.DataFrame(columns, columns=names)
    return Sources(table.assign(**PLACEMENT), has_id="ID" in names)


def _column_names(raw: RawTable) -> list[str]:
    """Canonical names in the order of the file."""
    problems = []
    names: list[str] = []
    origin: dict[str, str] = {}
    for i, name in enumerate(raw.names):
        canonical = canonical_name(name) if name.strip() else f"Unnamed: {i}"
        if is_reserved(name):
            problems.append(f"column {name}: the pipeline writes a column of this name; rename or remove it")
        elif canonical in origin:
            problems.append(f"columns {origin[canonical]} and {name}: expected one column {canonical}")
        elif canonical != name:
            log.warning("%s: column %r is read as %s", raw.path, name, canonical)
        origin.setdefault(canonical, name)
        names.append(canonical)
    missing = [name for name in ("RA", "DEC") if name not in origin]
    if missing:
        found = ", ".join(raw.names) or "none"
        problems.append(f"column {' and '.join(missing)} missing; expected RA and DEC, found columns {found}")
    if problems:
        raise InputError("\n  ".join([f"{raw.path}:", *problems]))
    return names


def _range_problems(raw: RawTable, columns: dict[str, F8 | list[str]]) -> list[str]:
    problems = []
    for name, low, high in (("RA", 0.0, 360.0), ("DEC", -90.0, 90.0)):
        values = np.asarray(columns[name], np.float64)
        bad = np.flatnonzero((values < low) | (values > high))
        if bad.size:
            cells = listed(f"{raw.row(int(i))} {values[i]:g}" for i in bad)
            problems.append(f"column {name}: expected {low:g} to {high:g} deg, found {cells}")
    return problems


def _key_problems(raw: RawTable, columns: dict[str, F8 | list[str]]) -> list[str]:
    """Rows that the merge could not tell apart."""
    problems = []
    keys: list[tuple[str, object] | None]
    if "ID" in columns:
        ids = [str(value) for value in columns["ID"]]
        empty = [raw.row(i) for i, value in enumerate(ids) if not value.strip()]
        if empty:
            problems.append(f"column ID: expected an identifier in every row, found none in {listed(empty)}")
        # Blanks around an ID do not tell two apart: a FITS table has none at the end of a text.
        keys = [(f"ID {value!r}", value.strip()) if value.strip() else None for value in ids]
    else:
        radec = zip(np.asarray(columns["RA"]).tolist(), np.asarray(columns["DEC"]).tolist())
        keys = [
            (f"(RA, DEC) = ({ra!r}, {dec!r})", (ra, dec)) if ra == ra and dec == dec else None
            for ra, dec in radec
        ]
    rows: dict[object, list[int]] = {}
    labels: dict[object, str] = {}
    for i, key in enumerate(keys):
        if key is not None:
            rows.setdefault(key[1], []).append(i)
            labels[key[1]] = key[0]
    repeated = [
        f"{labels[key]} in {listed((raw.row(i) for i in where), 5)}"
        for key, where in rows.items()
        if len(where) > 1
    ]
    if repeated:
        hint = "" if "ID" in columns else " (add an ID column to tell them apart)"
        problems.append(f"expected every source once{hint}, found {'; '.join(repeated[:10])}")
        if len(repeated) > 10:
            problems[-1] += f"; and {len(repeated) - 10} more"
    return problems


def check_bands(sources: Sources, bands: Sequence[str]) -> None:
    """Check that the catalogue's ``FLUX_{band}`` columns, if it has any, are those of the images.

    Raises
    ------
    InputError
        With the bands that only one of the two has.
    """
    catalogue = [band for name in sources.table.columns if (band := flux_band(name)) is not None]
    if not catalogue or set(catalogue) == set(bands):
        return
    only_catalogue = [f"FLUX_{band}" for band in catalogue if band not in bands]
    only_images = [band for band in bands if band not in catalogue]
    parts = []
    if only_catalogue:
        parts.append(f"columns without an image: {', '.join(only_catalogue)}")
    if only_images:
        parts.append(f"images without a column: {', '.join(f'FLUX_{band}' for band in only_images)}")
    raise InputError(
        "catalogue and images differ in bands; expected a FLUX_ column for each image or none at all; "
        + "; ".join(parts)
    )


def place(sources: Sources, field: Field) -> Sources:
    """Project the sources onto the working frame.

    Returns
    -------
    Sources
        With ``x_pix_white`` and ``y_pix_white`` (NaN where RA or DEC is not finite, or the projection has no
        such point), ``excluded_crop`` where the position is on no pixel of the frame, the other flags False.
    """
    ra, dec = (sources.table[name].to_numpy(np.float64) for name in ("RA", "DEC"))
    x, y = sky_to_pixel(field.wcs, ra, dec, field.shape)
    off = ~field.box.contains(x, y)
    if off.all():
        _warn_all_off(field, ra, dec)
    _warn_same_place(sources, ~off)
    placed = dict(PLACEMENT) | {"x_pix_white": x, "y_pix_white": y, "excluded_crop": off, "excluded_any": off}
    return Sources(sources.table.assign(**placed), sources.has_id)


def _warn_all_off(field: Field, ra: F8, dec: F8) -> None:
    ny, nx = field.shape
    centre_ra, centre_dec = (float(v) for v in field.wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0))
    hint = ""
    if np.nanmax(ra, initial=0.0) <= 24.0:
        x, y = sky_to_pixel(field.wcs, ra * 15.0, dec, field.shape)
        if field.box.contains(x, y).any():
            hint = "; RA seems to be in hours, expected degrees"
    log.warning(
        "none of %d sources lies on the working frame (centre RA %.5f, DEC %.5f)%s",
        len(ra), centre_ra, centre_dec, hint,
    )  # fmt: skip


def _warn_same_place(sources: Sources, on: Bool) -> None:
    """Name rows on the frame that have one position: their fluxes share the light in no certain way."""
    table = sources.table[on]
    again = table[table.duplicated(["RA", "DEC"], keep=False)].sort_values(["RA", "DEC"], kind="stable")
    if len(again):
        names = again["ID"] if sources.has_id else again.index
        log.warning(
            "%d sources have the position of another one, so that nothing tells their fluxes apart: ID %s",
            len(again), listed(map(str, names)),
        )  # fmt: skip


def with_saturation(sources: Sources, near: Bool) -> Sources:
    """``sources`` with ``excluded_saturation`` set to ``near`` (n,), and ``excluded_any`` to match."""
    near = np.asarray(near, bool)
    if near.shape != (len(sources),):
        raise ValueError(f"expected {len(sources)} flags, found shape {near.shape}")
    crop = sources.table["excluded_crop"].to_numpy(bool)
    return Sources(sources.table.assign(excluded_saturation=near, excluded_any=crop | near), sources.has_id)


def sky_to_pixel(wcs: WCS, ra: F8, dec: F8, shape: tuple[int, int]) -> tuple[F8, F8]:
    """0-based pixel positions of sky positions; NaN where there is none.

    Distortions are inverted by iteration, which diverges far outside of the image for which they were
    measured; there the undistorted position stands in, which is off the frame as well. Positions within half
    a frame of the image that do not come back to their sky position are NaN.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Celestial.
    ra, dec : ndarray, float64 (n,)
        Degrees; may be NaN.
    shape : (int, int)
        ``(ny, nx)`` of the frame.

    Returns
    -------
    x, y : ndarray, float64 (n,)
    """
    x, y = np.full(ra.shape, np.nan), np.full(ra.shape, np.nan)
    finite = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if finite.size == 0:
        return x, y
    x[finite], y[finite] = wcs.wcs_world2pix(ra[finite], dec[finite], 0)
    if wcs.sip is None:
        return x, y
    ny, nx = shape
    near = np.flatnonzero((x > -nx / 2) & (x < 1.5 * nx) & (y > -ny / 2) & (y < 1.5 * ny))
    if near.size == 0:
        return x, y
    x[near], y[near] = wcs.all_world2pix(ra[near], dec[near], 0, quiet=True, maxiter=50)
    with np.errstate(invalid="ignore"):
        back_x, back_y = wcs.wcs_world2pix(*wcs.all_pix2world(x[near], y[near], 0), 0)
        wanted_x, wanted_y = wcs.wcs_world2pix(ra[near], dec[near], 0)
        lost = near[~(np.hypot(back_x - wanted_x, back_y - wanted_y) < _ROUND_TRIP_PIX)]
    x[lost] = y[lost] = np.nan
    return x, y
