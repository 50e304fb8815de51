"""Zero point of each band from Gaia stars, and magnitudes from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tract7dt.catalog.csvfile import write_csv
from tract7dt.catalog.robust import clip_mad, excess_scatter, mad, median_error, weighted_median
from tract7dt.errors import ProductError
from tract7dt.types import ZeroPoint

if TYPE_CHECKING:
    from tract7dt.settings import ZpSettings
    from tract7dt.store import WorkDir

__all__ = ["apply_zero_points", "measure_zero_points", "write_zp"]

log = logging.getLogger(__name__)

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Magnitudes per relative flux error.
MAG_PER_RELATIVE = 2.5 / np.log(10.0)

#: Stars that a standard deviation of bright stars needs.
MIN_BRIGHT = 10

#: Columns of zp_all_bands__per_object.csv.
PER_OBJECT = (
    "band",
    "gaia_source_id",
    "gaiaxp_mag",
    "flux",
    "fluxerr",
    "zp",
    "zp_err",
    "is_kept",
    "is_clipped",
)


def measure_zero_points(
    table: pd.DataFrame, gaia_mags: pd.DataFrame | F8, bands: Sequence[str], zp: ZpSettings
) -> tuple[tuple[ZeroPoint, ...], pd.DataFrame]:
    """Zero point of each band: ``mag_{band} + 2.5 log10(flux)`` of the Gaia stars, clipped and averaged.

    A star counts when its row has a ``gaia_source_id``, a magnitude, a positive flux, and is reliable
    (``fit_is_reliable_{band}`` in single-band mode, else ``fit_is_reliable``). The model that was fitted to
    it does not matter: a matched row that the catalogue calls a galaxy counts too.

    The value is the median weighted by 1 / (zp_err**2 + s**2), with s the scatter of the stars beyond their
    flux errors (:func:`~tract7dt.catalog.robust.excess_scatter`), 0 where there is none.

    Parameters
    ----------
    table : pandas.DataFrame
        Merged catalogue.
    gaia_mags : ndarray, float64 (nband, n), or pandas.DataFrame
        AB magnitudes of the rows' stars, NaN where there is none; a DataFrame has one row a row of ``table``
        and the columns ``mag_{band}``.
    bands : sequence of str
    zp : ZpSettings
        ``clip_sigma``, ``clip_max_iters``, ``zp_err_method``, ``zp_err_snr_min``.

    Returns
    -------
    zero_points : tuple of ZeroPoint
        One a band; a band without a star has the value NaN, and a warning is logged.
    per_object : pandas.DataFrame
        One row a star and band: columns of zp_all_bands__per_object.csv, then ``is_reliable`` and
        ``row`` (of ``table``). Unreliable stars are in it, for plots, neither kept nor clipped.

    Raises
    ------
    ProductError
        If the magnitudes do not fit the table.
    """
    mags = _magnitudes(gaia_mags, bands, len(table))
    ids = table["gaia_source_id"].fillna("").astype(str).str.strip()
    _warn_of_doubles(ids)
    zero_points, objects = [], []
    for band, mag in zip(bands, mags, strict=True):
        stars = _stars_of(table, ids, mag, band)
        zero_point = _zero_point(band, stars, zp)
        zero_points.append(zero_point)
        objects.append(stars)
    per_object = pd.concat(objects, ignore_index=True)
    return tuple(zero_points), per_object[[*PER_OBJECT, "is_reliable", "row"]]


def apply_zero_points(table: pd.DataFrame, zps: Sequence[ZeroPoint]) -> pd.DataFrame:
    """Catalogue with AB magnitudes of every row, reliable or not.

    ``MAG = zp - 2.5 log10(FLUX)`` and ``MAGERR**2 = (2.5 / ln 10 * FLUXERR / FLUX)**2 + zp_err**2``.

    Parameters
    ----------
    table : pandas.DataFrame
        Merged catalogue; is not changed.
    zps : sequence of ZeroPoint

    Returns
    -------
    pandas.DataFrame
        With ``MAG_{band}_fit`` and ``MAGERR_{band}_fit`` as last columns, NaN where the flux is not positive
        or the band has no zero point. Columns of these names that were there are replaced.
    """
    columns: dict[str, F8] = {}
    for zp in zps:
        flux = table[f"FLUX_{zp.band}_fit"].to_numpy(float)
        error = table[f"FLUXERR_{zp.band}_fit"].to_numpy(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            good = np.isfinite(flux) & (flux > 0)
            magnitude = np.where(good, zp.value - 2.5 * np.log10(flux), np.nan)
            of_flux = np.where(good & (error > 0), MAG_PER_RELATIVE * error / flux, np.nan)
        columns[f"MAG_{zp.band}_fit"] = magnitude
        columns[f"MAGERR_{zp.band}_fit"] = np.where(np.isfinite(magnitude), np.hypot(of_flux, zp.err), np.nan)
    rest = table.drop(columns=[c for c in columns if c in table.columns])
    return pd.concat([rest, pd.DataFrame(columns, index=table.index)], axis=1)


def write_zp(zps: Sequence[ZeroPoint], per_object: pd.DataFrame, work: WorkDir) -> None:
    """Write ``ZP/zp_summary.csv`` and ``ZP/zp_all_bands__per_object.csv``.

    The latter holds the reliable stars, ``n_raw`` rows a band.

    Parameters
    ----------
    zps : sequence of ZeroPoint
    per_object : pandas.DataFrame
        Of :func:`measure_zero_points`.
    work : WorkDir
    """
    summary = pd.DataFrame(
        {
            "band": [z.band for z in zps],
            "n_raw": [z.n_raw for z in zps],
            "n_kept": [z.n_kept for z in zps],
            "n_clipped": [z.n_clipped for z in zps],
            "n_unreliable": [z.n_unreliable for z in zps],
            "clip_sigma": [z.clip_sigma for z in zps],
            "zp_median": [z.value for z in zps],
            "zp_err_mad": [z.err_mad for z in zps],
            "zp_err_std": [z.err_std for z in zps],
            "n_zp_err_src": [z.n_err_src for z in zps],
            "zp_err_snr_used": [z.err_snr_used for z in zps],
            "zp_err_median": [z.err_median for z in zps],
        }
    )
    write_csv(summary, work.zp_summary)
    write_csv(per_object.loc[per_object["is_reliable"], list(PER_OBJECT)], work.zp_per_object)


def _magnitudes(gaia_mags: pd.DataFrame | F8, bands: Sequence[str], n: int) -> F8:
    """Magnitudes as float64 (nband, n)."""
    if isinstance(gaia_mags, pd.DataFrame):
        nothing = np.full(len(gaia_mags), np.nan)
        gaia_mags = np.array(
            [gaia_mags[f"mag_{b}"].to_numpy(float) if f"mag_{b}" in gaia_mags else nothing for b in bands]
        )
    mags = np.asarray(gaia_mags, dtype=float)
    if mags.shape != (len(bands), n):
        raise ProductError(
            f"Gaia magnitudes: expected {len(bands)} bands of {n} rows, found shape {mags.shape}"
        )
    return mags


def _stars_of(table: pd.DataFrame, ids: pd.Series, mag: F8, band: str) -> pd.DataFrame:
    """Stars with a magnitude and a positive flux in one band, reliable or not."""
    flux = table[f"FLUX_{band}_fit"].to_numpy(float)
    error = table[f"FLUXERR_{band}_fit"].to_numpy(float)
    of_band = f"fit_is_reliable_{band}"
    reliable = table[of_band if of_band in table else "fit_is_reliable"].to_numpy(bool)
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero((ids != "").to_numpy() & np.isfinite(mag) & np.isfinite(flux) & (flux > 0))
    flux, error = flux[rows], error[rows]
    with np.errstate(invalid="ignore"):
        zp_err = np.where(np.isfinite(error) & (error > 0), MAG_PER_RELATIVE * error / flux, np.nan)
    return pd.DataFrame(
        {
            "band": pd.Series([band] * len(rows), dtype="str"),
            "gaia_source_id": ids.to_numpy()[rows],
            "gaiaxp_mag": mag[rows],
            "flux": flux,
            "fluxerr": error,
            "zp": mag[rows] + 2.5 * np.log10(flux),
            "zp_err": zp_err,
            "is_kept": np.zeros(len(rows), dtype=bool),
            "is_clipped": np.zeros(len(rows), dtype=bool),
            "is_reliable": reliable[rows],
            "row": rows,
        }
    )


def _zero_point(band: str, stars: pd.DataFrame, zp: ZpSettings) -> ZeroPoint:
    """Zero point from the reliable stars; sets ``is_kept`` and ``is_clipped`` of ``stars``."""
    reliable = stars["is_reliable"].to_numpy(bool)
    values, errors = stars["zp"].to_numpy()[reliable], stars["zp_err"].to_numpy()[reliable]
    n_unreliable = int((~reliable).sum())
    if not len(values):
        log.warning(
            "%s: no zero point: no reliable Gaia star has a magnitude and a positive flux (%d unreliable)",
            band,
            n_unreliable,
        )
        nan = float("nan")
        return ZeroPoint(band, 0, 0, 0, n_unreliable, zp.clip_sigma, nan, nan, nan, nan, 0, nan, nan)

    keep = clip_mad(values, zp.clip_sigma, zp.clip_max_iters, errors)
    stars.loc[reliable, "is_kept"] = keep
    stars.loc[reliable, "is_clipped"] = ~keep
    kept, kept_errors = values[keep], errors[keep]
    known = np.isfinite(kept_errors)
    if known.any():
        # The errors of a magnitude know nothing of the star's XP error nor of a PSF that is off by a per cent:
        # without that scatter in the weights, the one brightest star would be the zero point.
        used = kept[known]
        weights = 1.0 / (kept_errors[known] ** 2 + excess_scatter(used, kept_errors[known]) ** 2)
    else:  # no errors at all: every star counts the same
        used, weights = kept, np.ones(len(kept))
    value = weighted_median(used, weights)
    err_mad = mad(kept, value)
    err_std, n_src, snr_used = _bright_std(band, kept, kept_errors, err_mad, zp.zp_err_snr_min)
    result = ZeroPoint(
        band=band,
        n_raw=len(values),
        n_kept=int(keep.sum()),
        n_clipped=int((~keep).sum()),
        n_unreliable=n_unreliable,
        clip_sigma=zp.clip_sigma,
        value=value,
        err_mad=err_mad,
        err_std=err_std,
        err_median=median_error(used, weights, value),
        n_err_src=n_src,
        err_snr_used=snr_used,
        err=err_std if zp.zp_err_method == "bright_std" else err_mad,
    )
    _report(result)
    return result


def _bright_std(
    band: str, values: F8, errors: F8, scatter: float, snr_min: float
) -> tuple[float, int, float]:
    """Standard deviation of bright stars, stars behind it and their S/N limit; with too few, the MAD."""
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = MAG_PER_RELATIVE / errors  # NaN, so never bright, where the error is unknown
    for limit in (snr_min, snr_min / 2.0, snr_min / 4.0):
        bright = snr >= limit
        n = int(bright.sum())
        if n >= MIN_BRIGHT:
            return float(np.std(values[bright])), n, limit
        log.warning("%s: zp_err_std: only %d stars with S/N >= %g, %d needed", band, n, limit, MIN_BRIGHT)
    log.warning("%s: zp_err_std: the MAD of all %d stars stands in", band, len(values))
    return scatter, len(values), float("nan")


def _warn_of_doubles(ids: pd.Series) -> None:
    """Warn where two rows claim one star: it counts twice."""
    named = ids[ids != ""]
    double = sorted(set(named[named.duplicated()]))
    if double:
        log.warning(
            "%d Gaia stars belong to more than one row and count more than once: %s", len(double), double[:5]
        )


def _report(zp: ZeroPoint) -> None:
    """Log one band's result."""
    log.info(
        "%s: zero point %.4f +- %.4f mag (scatter: MAD %.4f, bright %.4f); stars: %d kept, %d clipped, "
        "%d unreliable",
        zp.band,
        zp.value,
        zp.err_median,
        zp.err_mad,
        zp.err_std,
        zp.n_kept,
        zp.n_clipped,
        zp.n_unreliable,
    )
    if zp.n_kept < 3:
        log.warning("%s: the zero point rests on %d star(s); its scatter is not measured", zp.band, zp.n_kept)
