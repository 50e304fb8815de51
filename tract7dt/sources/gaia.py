"""Gaia stars in the base catalogue: match, flux backfill, and injection of those that it lacks."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from tract7dt.errors import InputError
from tract7dt.sources.columns import PLACEMENT
from tract7dt.sources.gaia_table import at_epoch, gaia_magnitudes, place_gaia, read_gaia
from tract7dt.store import atomic_path
from tract7dt.types import F8, I8, Bool, Box, Field, ModelKind, Sources

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = [
    "at_epoch",
    "augment",
    "gaia_magnitudes",
    "match_one_to_one",
    "place_gaia",
    "read_gaia",
    "selection_box",
    "write_augmented_csv",
]

log = logging.getLogger(__name__)

#: A row that the catalogue calls a galaxy is only taken for a Gaia star within this part of the radius.
_GALAXY_RADIUS_SHARE = 0.5


def augment(
    sources: Sources,
    gaia: pd.DataFrame,
    field: Field,
    settings: Settings,
    saturated: Callable[[F8, F8], Bool] | None = None,
) -> Sources:
    """Tag the catalogue's rows with their Gaia star, fill missing fluxes, add the stars that it lacks.

    Gaia stars take part within ``zp.gaia_mag_min`` to ``zp.gaia_mag_max``, on the frame and in the square
    around the active sources (:func:`selection_box`). Every row with a position can be matched, whether
    active or excluded (an excluded saturated star with a Gaia flux is a neighbour that can be modelled).
    The match is one to one, nearest pair first, in two rounds: rows that may be stars (TYPE STAR, GAL,
    blank or unknown); then, for the Gaia stars that are left, rows of TYPE EXP, DEV and SERSIC within
    half the radius. So a galaxy never takes the star beside it, and a star that was typed as a galaxy is
    not modelled twice.

    Injected rows come after all input rows, in the order of the Gaia table: TYPE STAR, position at the
    images' epoch, ``POS_ERR`` = ``zp.gaia_pos_err_pix``, fluxes from the magnitudes, ID
    ``gaia_{source_id}`` (no ID where the input has none: the merge key is RA, DEC then). Stars near
    saturated pixels are injected, too, but as excluded: nobody fits them, yet they shine on others.

    Parameters
    ----------
    sources : Sources
    gaia : DataFrame
        From :func:`read_gaia`, with or without :func:`place_gaia`.
    field : Field
    settings : Settings
        Section ``zp``.
    saturated : callable or None
        Which positions (x, y of the working frame) are near saturation; None: none are.

    Returns
    -------
    Sources
        All input rows first, in their order. Columns that the input lacks (``TYPE``, ``POS_ERR``,
        ``FLUX_{band}`` of every band) stand behind its own. With no Gaia star on the frame: unchanged.

    Raises
    ------
    InputError
        If an input row that is another object has the ID of a star to be injected.
    """
    zp = settings.zp
    if "x_pix_white" not in gaia:
        gaia = place_gaia(gaia, field)
    table = sources.table.assign(gaia_source_id="")
    stars = _stars_in_box(gaia, table, field, settings)
    if stars.empty:
        log.warning("no Gaia star of %.1f-%.1f mag on the frame", zp.gaia_mag_min, zp.gaia_mag_max)
        return sources
    rows, matched = _match(table, stars, zp.match_radius_arcsec)
    table = _with_flux_columns(table, field.bands)
    table = _tagged(table, stars, rows, matched, field)
    rest = np.setdiff1d(np.arange(len(stars)), matched)
    log.info("%d Gaia stars, %d matched, %d not in the catalogue", len(stars), len(matched), len(rest))
    if zp.inject_gaia_sources and len(rest):
        table = _with_injected(table, stars.iloc[rest], field, sources.has_id, zp.gaia_pos_err_pix, saturated)
    return replace(sources, table=table)


# --- which stars ---------------------------------------------------------------------------------------


def selection_box(x: F8, y: F8, min_size: int, frame: Box) -> Box:
    """Tightest square around positions, at least ``min_size`` wide, moved and cut to lie on the frame.

    Parameters
    ----------
    x, y : ndarray
        Pixels; those that are not finite do not count. Without any the box is the frame.
    min_size : int
        Pix.
    frame : Box
    """
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return frame
    # Pixel i covers [i - 0.5, i + 0.5): floor, not rint, which goes to even.
    low = [int(np.floor(v[finite].min() + 0.5)) for v in (x, y)]
    high = [int(np.floor(v[finite].max() + 0.5)) + 1 for v in (x, y)]
    side = max(high[0] - low[0], high[1] - low[1], min_size)
    edges: list[int] = []
    for lo, hi, first, last in (
        (low[0], high[0], frame.x0, frame.x1),
        (low[1], high[1], frame.y0, frame.y1),
    ):
        start = (lo + hi - side) // 2
        start = max(first, min(start, last - side))
        edges += [start, min(start + side, last)]
    return Box(*edges)


def _stars_in_box(gaia: pd.DataFrame, table: pd.DataFrame, field: Field, settings: Settings) -> pd.DataFrame:
    zp = settings.zp
    active = table.loc[~table["excluded_any"].to_numpy(bool)]
    x, y = active["x_pix_white"].to_numpy(float), active["y_pix_white"].to_numpy(float)
    box = selection_box(x, y, zp.min_box_size_pix, field.box)
    bright = gaia["phot_g_mean_mag"].between(zp.gaia_mag_min, zp.gaia_mag_max).to_numpy()
    inside = box.contains(gaia["x_pix_white"].to_numpy(float), gaia["y_pix_white"].to_numpy(float))
    return gaia[bright & inside].reset_index(drop=True)


# --- match ---------------------------------------------------------------------------------------------


def match_one_to_one(ra: F8, dec: F8, other_ra: F8, other_dec: F8, radius_arcsec: float) -> tuple[I8, I8]:
    """Pairs of two lists within a radius, the nearest pair first; nobody is in two pairs.

    Ties go to the lower index of the first list, then of the second.

    Parameters
    ----------
    ra, dec, other_ra, other_dec : ndarray
        Degrees; positions that are not finite have no pair.
    radius_arcsec : float

    Returns
    -------
    first, second : ndarray, int64
        Indices of each pair, by distance.
    """
    lists = []
    for a, d in ((ra, dec), (other_ra, other_dec)):
        index = np.flatnonzero(np.isfinite(a) & np.isfinite(d))
        a, d = np.radians(a[index]), np.radians(d[index])
        lists.append((index, np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)))
    (index, here), (other_index, there) = lists
    nothing = np.zeros(0, dtype=np.int64)
    if not len(index) or not len(other_index):
        return nothing, nothing
    chord = 2 * np.sin(np.radians(radius_arcsec / 3600) / 2)
    pairs = cKDTree(here).sparse_distance_matrix(cKDTree(there), chord, output_type="ndarray")
    order = np.lexsort((pairs["j"], pairs["i"], pairs["v"]))
    taken: set[int] = set()
    taken_other: set[int] = set()
    chosen = []
    for i, j in zip(pairs["i"][order].tolist(), pairs["j"][order].tolist(), strict=True):
        if i not in taken and j not in taken_other:
            taken.add(i)
            taken_other.add(j)
            chosen.append((index[i], other_index[j]))
    found = np.array(chosen, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _match(table: pd.DataFrame, stars: pd.DataFrame, radius_arcsec: float) -> tuple[I8, I8]:
    """Row numbers of the catalogue and of ``stars``, pair by pair; see :func:`augment` for the rule."""
    galaxy = np.zeros(len(table), dtype=bool)
    if "TYPE" in table:
        kinds = [ModelKind.of(str(text), ModelKind.STAR) for text in table["TYPE"]]
        galaxy = np.array([kind is not ModelKind.STAR for kind in kinds], dtype=bool)
    ra, dec = table["RA"].to_numpy(float), table["DEC"].to_numpy(float)
    star_ra, star_dec = stars["ra"].to_numpy(float), stars["dec"].to_numpy(float)
    rows, matched = match_one_to_one(np.where(galaxy, np.nan, ra), dec, star_ra, star_dec, radius_arcsec)
    left = np.where(np.isin(np.arange(len(stars)), matched), np.nan, star_ra)
    within = radius_arcsec * _GALAXY_RADIUS_SHARE
    more_rows, more = match_one_to_one(np.where(galaxy, ra, np.nan), dec, left, star_dec, within)
    if len(more):
        log.info("%d Gaia stars matched to rows of a galaxy type", len(more))
    return np.concatenate([rows, more_rows]), np.concatenate([matched, more])


# --- columns and rows ----------------------------------------------------------------------------------


def _with_column(table: pd.DataFrame, name: str, value: str | float) -> pd.DataFrame:
    """``table`` with a further input column, ahead of those that the pipeline appends."""
    if name in table:
        return table
    table = table.copy()
    place = next((k for k, column in enumerate(table.columns) if column in PLACEMENT), len(table.columns))
    table.insert(place, name, value)
    return table


def _with_flux_columns(table: pd.DataFrame, bands: tuple[str, ...]) -> pd.DataFrame:
    for band in bands:
        table = _with_column(table, f"FLUX_{band}", np.nan)
    return table


def _fluxes(stars: pd.DataFrame, field: Field) -> F8:
    """Fluxes from magnitudes, ``10**(0.4 (zp_ref - mag))``, (nband, n); NaN where there is none."""
    magnitude = gaia_magnitudes(stars, stars["source_id"], field.bands)
    return np.asarray(10 ** (0.4 * (field.zp_ref - magnitude)))


def _tagged(table: pd.DataFrame, stars: pd.DataFrame, rows: I8, matched: I8, field: Field) -> pd.DataFrame:
    """``table`` with the stars' identifiers, and their fluxes where it has none."""
    identifier = table["gaia_source_id"].to_numpy(dtype=object, copy=True)
    identifier[rows] = stars["source_id"].to_numpy(dtype=object)[matched]
    columns: dict[str, Any] = {"gaia_source_id": pd.Series(identifier, index=table.index, dtype="str")}
    for band, flux in zip(field.bands, _fluxes(stars, field), strict=True):
        given = table[f"FLUX_{band}"].to_numpy(float, copy=True)
        given[rows] = np.where(np.isnan(given[rows]), flux[matched], given[rows])
        columns[f"FLUX_{band}"] = given
    return table.assign(**columns)


def _with_injected(
    table: pd.DataFrame,
    stars: pd.DataFrame,
    field: Field,
    has_id: bool,
    pos_err: float | None,
    saturated: Callable[[F8, F8], Bool] | None,
) -> pd.DataFrame:
    x, y = stars["x_pix_white"].to_numpy(float), stars["y_pix_white"].to_numpy(float)
    near = np.zeros(len(stars), dtype=bool) if saturated is None else np.asarray(saturated(x, y), dtype=bool)
    values: dict[str, Any] = {
        "RA": stars["ra"].to_numpy(float),
        "DEC": stars["dec"].to_numpy(float),
        "TYPE": "STAR",
        "x_pix_white": x,
        "y_pix_white": y,
        "excluded_saturation": near,
        "excluded_any": near,
        "gaia_source_id": stars["source_id"].to_numpy(dtype=object),
    }
    values |= {f"FLUX_{band}": flux for band, flux in zip(field.bands, _fluxes(stars, field), strict=True)}
    if has_id:
        values["ID"] = ("gaia_" + stars["source_id"]).to_numpy(dtype=object)
        _check_free(table["ID"], values["ID"])
    table = _with_column(table, "TYPE", "")
    if pos_err is not None:
        table = _with_column(table, "POS_ERR", np.nan)
        values["POS_ERR"] = pos_err
    new = {name: _column(values.get(name), table[name].dtype, len(stars)) for name in table.columns}
    log.info("%d Gaia stars added, %d of them excluded near saturation", len(stars), near.sum())
    return pd.concat([table, pd.DataFrame(new)], ignore_index=True)


def _column(value: object, dtype: object, n: int) -> pd.Series:
    """``value`` as a column; without one: NaN, False or "" by the column's type."""
    if value is None:
        kind = getattr(dtype, "kind", "O")
        value = {"f": np.nan, "b": False}.get(kind, "")
    return pd.Series(value, index=pd.RangeIndex(n), dtype=dtype)  # type: ignore[call-overload,no-any-return]


def _check_free(taken: pd.Series, wanted: object) -> None:
    repeated = taken[taken.isin(np.asarray(wanted))]
    if len(repeated):
        raise InputError(
            f"the input catalogue has IDs of Gaia stars that are to be injected, at other positions: "
            f"{', '.join(repeated[:10])}; rename them, or set zp.inject_gaia_sources: false"
        )


def write_augmented_csv(sources: Sources, path: str | os.PathLike[str]) -> None:
    """Write the augmented catalogue, flags included, as CSV; text to the character, floats exact."""
    with atomic_path(path) as temporary:
        sources.table.to_csv(temporary, index=False)
