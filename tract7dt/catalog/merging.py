"""The final catalogue: every input row, in order, exactly once, with what was fitted for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tract7dt.catalog.csvfile import missing_values, typed
from tract7dt.catalog.patch_table import key_columns, patch_columns
from tract7dt.catalog.reliability import flag_reliability
from tract7dt.catalog.sky import sky_errors, sky_position
from tract7dt.errors import ProductError
from tract7dt.flags import excluded_reason
from tract7dt.schema import Column, expand, set_suffix
from tract7dt.types import Sources

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["merge"]

log = logging.getLogger(__name__)

I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: A patch result and its catalogue row, both of one run, start from positions that differ by less, pix.
SAME_POSITION_PIX = 1e-6


def merge(
    sources: Sources,
    patch_tables: Sequence[pd.DataFrame],
    wcs: WCS,
    bands: Sequence[str],
    single_band: bool,
    failed: Mapping[str, tuple[str, Sequence[int]]] | None = None,
    not_fitted: Mapping[str, Sequence[int]] | None = None,
) -> pd.DataFrame:
    """Join the base catalogue with the results of all patches.

    Parameters
    ----------
    sources : Sources
        Base catalogue, Gaia rows included where there are any.
    patch_tables : sequence of pandas.DataFrame
        Per-patch catalogues, as ``patch_table`` makes and ``read_patch_catalog`` reads them.
    wcs : astropy.wcs.WCS
        Of the working frame.
    bands : sequence of str
        Fitted bands.
    single_band : bool
        Whether each band was fitted alone.
    failed : mapping of str to (str, sequence of int), optional
        Patches that ended in an error: tag -> (reason, ``source_index`` of their base sources). The rows
        keep empty fit columns, except for the two tags, and are flagged ``patch_failed``.
    not_fitted : mapping of str to sequence of int, optional
        Patches that were left out: tag -> ``source_index`` of their base sources. As the failed ones, but
        flagged ``patch_not_fitted``.

    Returns
    -------
    pandas.DataFrame
        One row for each of ``sources``, in its order: its columns, then those of the schema. An input column
        that bears the name of an output is kept as ``{name}_input``. Flags are plain booleans; a row
        without a fit has NaN, null, False or "".

    Raises
    ------
    ProductError
        If the results are not of this catalogue, or a source has more than one result.
    """
    failed, not_fitted = failed or {}, not_fitted or {}
    lost = {tag: rows for tag, (_, rows) in failed.items()} | dict(not_fitted)
    bands = tuple(bands)
    columns = {c.name: c for c in expand(bands, single_band, ("sources", "patch_fit", "merge"))}
    results = {c.name for c in expand(bands, single_band, ("patch_fit", "merge", "zero_point"))}
    table = _base(sources, columns, results)
    fit = _concatenated(patch_tables, key_columns(sources.table), bands, single_band)
    at = _rows_of(fit, table, sources, lost)

    fit_columns = expand(bands, single_band, ("patch_fit",))
    made = {c.name: _placed(fit, c, at, table.index) for c in fit_columns}
    _tag_lost(made, columns, lost, table.index)
    without = [_rows(len(table), rows) for rows in ([r for _, r in failed.values()], not_fitted.values())]
    made |= _sky(made, columns, wcs, bands if single_band else (None,))
    reason = excluded_reason(table["excluded_crop"].to_numpy(), table["excluded_saturation"].to_numpy())
    made["excluded_reason"] = typed(reason, columns["excluded_reason"], table.index)
    # Columns are put side by side as they are, without a copy: of a million rows each takes 8 MB.
    made = {name: table[name] for name in table.columns} | made
    flags = flag_reliability(pd.DataFrame(made, copy=False), bands, single_band, *without)
    made |= {name: typed(value, columns[name], table.index) for name, value in flags.items()}
    order = [c for c in table.columns if c not in columns] + list(columns)
    merged = pd.DataFrame({name: made[name] for name in order}, index=table.index, copy=False)
    _report(merged, failed, not_fitted)
    return merged


def _base(sources: Sources, columns: Mapping[str, Column], results: set[str]) -> pd.DataFrame:
    """Copy of the base catalogue with its columns in the types of the schema, none named like a result."""
    made_by_load = [c for c in columns.values() if c.made_by == "sources"]
    table = sources.table.reset_index(drop=True)
    taken = [c for c in table.columns if c in results]
    if taken:
        log.warning("the input catalogue has columns with names of results; kept as {name}_input: %s", taken)
        table = table.rename(columns={c: f"{c}_input" for c in taken})
    lacking = [c.name for c in made_by_load if c.name not in table.columns]
    optional = {"gaia_source_id", "affected_by_bright_mask"}
    if set(lacking) - optional:
        raise ProductError(f"the base catalogue lacks the columns {sorted(set(lacking) - optional)}")
    doubles = sorted(set(table.columns[table.columns.duplicated()]))
    if doubles:
        raise ProductError(f"the base catalogue has several columns named {doubles}")
    for c in made_by_load:
        if c.name in lacking:
            table[c.name] = missing_values(c, table.index)
        else:
            values = table[c.name]
            filled = (
                values.fillna("" if c.dtype == "str" else False) if c.dtype in ("str", "bool") else values
            )
            table[c.name] = typed(filled.to_numpy(), c, table.index)
    return table


def _concatenated(
    tables: Sequence[pd.DataFrame], key: list[str], bands: tuple[str, ...], single_band: bool
) -> pd.DataFrame:
    """All results in one table, after a check that they are of these bands and this mode."""
    need = patch_columns(key, bands, single_band)
    problems = []
    for number, table in enumerate(tables):
        tags = sorted(set(table["patch_tag"])) if "patch_tag" in table else []
        name = f"table {number} (patch {', '.join(tags) or 'unknown'})"
        lacking = [c for c in need if c not in table.columns]
        if lacking:
            problems.append(f"{name} lacks {lacking[:5]}{' ...' if len(lacking) > 5 else ''}")
        other = [c for c in table.columns if c.startswith("FLUXERR_") and c not in need]
        if other:
            problems.append(f"{name} has {other}, of bands that are not fitted here")
    if problems:
        mode = "each alone" if single_band else "together"
        raise ProductError(
            f"results of another run: expected the bands {list(bands)} fitted {mode}; " + "; ".join(problems)
        )
    filled = [t[need] for t in tables if len(t)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=need)


def _rows_of(
    fit: pd.DataFrame,
    table: pd.DataFrame,
    sources: Sources,
    lost: Mapping[str, Sequence[int]],
) -> I8:
    """Row of the base catalogue of every result.

    Raises
    ------
    ProductError
        If a result has no row, a row has two results or a result although it is excluded or its patch
        has none, or names or positions differ.
    """
    at = fit["source_index"].to_numpy(np.int64)
    outside = (at < 0) | (at >= len(table))
    if outside.any():
        raise ProductError(
            f"{outside.sum()} results name rows that the catalogue of {len(table)} rows does not have "
            f"({_some(fit, outside)}): they are of another catalogue; fit the patches again"
        )
    members = np.array([i for rows in lost.values() for i in rows], dtype=np.int64)
    beyond = members[(members < 0) | (members >= len(table))]
    if len(beyond):
        raise ProductError(
            f"patches without a fit name rows that the catalogue of {len(table)} rows does not have: "
            f"{beyond[:5].tolist()}"
        )
    all_rows = np.concatenate([at, members])
    counts = np.bincount(all_rows, minlength=len(table))
    if (counts > 1).any():
        double = np.flatnonzero(counts > 1)[:5]
        tags = fit.loc[np.isin(at, double), "patch_tag"].tolist()
        raise ProductError(
            f"{(counts > 1).sum()} sources belong to more than one patch (rows {double.tolist()}, "
            f"patches {tags}): results of different patch grids are mixed; fit the patches again"
        )
    stale = _differs(fit, table, sources.table, at)
    if stale.any():
        raise ProductError(
            f"{stale.sum()} results do not have the name or position of their catalogue row "
            f"({_some(fit, stale)}): they are of another catalogue; fit the patches again"
        )
    excluded = table["excluded_any"].to_numpy()[at]
    if excluded.any():
        raise ProductError(
            f"{excluded.sum()} results are of excluded sources ({_some(fit, excluded)}): "
            "they are of another run; fit the patches again"
        )
    return at


def _differs(fit: pd.DataFrame, table: pd.DataFrame, original: pd.DataFrame, at: I8) -> Bool:
    """Results whose key or start position is not that of the row that they name."""
    stale = np.zeros(len(fit), dtype=bool)
    for name in key_columns(original):
        mine, theirs = fit[name].to_numpy(), original[name].to_numpy()[at]
        if name == "ID":
            # Blanks at the end do not survive a FITS table, so they do not count here.
            stale |= np.array(
                [str(a).rstrip() != str(b).rstrip() for a, b in zip(mine, theirs, strict=True)], bool
            )
        else:
            stale |= mine.astype(float) != theirs.astype(float)
    for name in ("x_pix_white", "y_pix_white"):
        shift = np.abs(fit[name].to_numpy(float) - table[name].to_numpy()[at])
        stale |= ~(shift <= SAME_POSITION_PIX)
    return stale


def _some(fit: pd.DataFrame, which: Bool) -> str:
    """A few rows by patch and number, for a message."""
    rows = fit.loc[which, ["patch_tag", "source_index"]].head(5)
    return ", ".join(f"{tag} row {index}" for tag, index in rows.itertuples(index=False))


def _placed(fit: pd.DataFrame, column: Column, at: I8, index: pd.Index) -> pd.Series:
    """A fitted column spread over the rows of the base catalogue."""
    values = (
        missing_values(column, index)
        .to_numpy(dtype=object if column.dtype in ("str", "int64") else None)
        .copy()
    )
    values[at] = fit[column.name].to_numpy()
    return typed(values, column, index)


def _tag_lost(
    made: dict[str, pd.Series],
    columns: Mapping[str, Column],
    lost: Mapping[str, Sequence[int]],
    index: pd.Index,
) -> None:
    """Set the tags of rows in patches that have no fit."""
    tags = {name: made[name].to_numpy(dtype=object).copy() for name in ("patch_tag", "epsf_tag")}
    for tag, members in lost.items():
        where = np.asarray(members, dtype=np.int64)
        tags["patch_tag"][where] = tag
        tags["epsf_tag"][where] = tag.split("_pr")[0]
    made |= {name: typed(values, columns[name], index) for name, values in tags.items()}


def _rows(n: int, patches: Iterable[Sequence[int]]) -> Bool:
    """Which of ``n`` rows the patches hold."""
    rows = np.zeros(n, dtype=bool)
    rows[[i for members in patches for i in members]] = True
    return rows


def _sky(
    made: Mapping[str, pd.Series], columns: Mapping[str, Column], wcs: WCS, sets: Sequence[str | None]
) -> dict[str, pd.Series]:
    """Sky positions and errors of every set."""
    result: dict[str, pd.Series] = {}
    for band in sets:
        s = set_suffix(band)
        x, y = (made[f"{axis}_pix_white{s}_fit"].to_numpy() for axis in "xy")
        error = [made[f"{name}{s}_fit_{what}"].to_numpy() for name, what in _ERROR_COLUMNS]
        names = (f"RA{s}_fit", f"DEC{s}_fit", f"RA{s}_fit_err", f"DEC{s}_fit_err")
        values = (*sky_position(wcs, x, y), *sky_errors(wcs, x, y, *error))
        index = made[f"x_pix_white{s}_fit"].index
        result |= {n: typed(v, columns[n], index) for n, v in zip(names, values, strict=True)}
    return result


_ERROR_COLUMNS = (("x_pix", "err"), ("y_pix", "err"), ("xy_pix", "cov"))


def _report(
    merged: pd.DataFrame,
    failed: Mapping[str, tuple[str, Sequence[int]]],
    not_fitted: Mapping[str, Sequence[int]],
) -> None:
    """Log what the merge found."""
    excluded = merged["excluded_any"].to_numpy()
    without = merged["fit_quality_issues"].str.contains("no_fit_result", regex=False).to_numpy(bool)
    log.info(
        "merged %d rows: %d fitted, %d reliable, %d excluded (crop %d, saturation %d), "
        "%d active rows without a fit",
        len(merged),
        int((~excluded & ~without).sum()),
        int(merged["fit_is_reliable"].sum()),
        int(excluded.sum()),
        int(merged["excluded_crop"].sum()),
        int(merged["excluded_saturation"].sum()),
        int(without.sum()),
    )
    for tag, (reason, rows) in failed.items():
        log.warning("patch %s failed, %d sources have no fit: %s", tag, len(rows), reason)
    if not_fitted:
        log.warning(
            "%d patches were left out, %d sources have no fit",
            len(not_fitted),
            sum(map(len, not_fitted.values())),
        )
