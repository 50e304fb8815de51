"""Start values and priors of the sources of a patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tract7dt.aperture import circular_flux
from tract7dt.types import F8, I8, Bool, ModelKind, ModelSources, PatchPayload

if TYPE_CHECKING:
    from tract7dt.settings import PatchRunSettings

__all__ = ["model_sources"]

#: Range of half-light radii to start from, pix.
RE_RANGE = (0.3, 100.0)
#: Range of axis ratios to start from.
AXIS_RATIO_RANGE = (0.1, 1.0)
DEFAULT_AXIS_RATIO = 0.8
#: Sersic indices to start from; inside of what the profile tables cover, so that no fit starts at a bound.
SERSIC_N_RANGE = (0.3, 6.0)
#: Position priors of neighbours that are not fitted here, pix: only their wings are seen.
OUTSIDE_POS_ERR = 0.1
SATURATED_POS_ERR = 0.3
#: Priors of such neighbours on flux and half-light radius (relative), ellipticity and angle (deg).
NEIGHBOUR_REL_ERR = 0.2
NEIGHBOUR_ELL_ERR = 0.1
NEIGHBOUR_THETA_ERR = 15.0


def model_sources(payload: PatchPayload, patch_run: PatchRunSettings) -> ModelSources:
    """Start values and priors from the payload's table and pixels.

    Start values: flux of the catalogue where finite and positive, else ``_flux_start_{band}``, else an
    aperture of ``r_ap`` on the payload's good pixels, never below ``eps_flux``; ``b/a`` =
    clip(1 - ELL, 0.1, 1), 0.8 without; ``THETA`` (degrees counter-clockwise from +x) folded to (-90, 90],
    0 without; ``Re`` clipped to 0.3-100 pix, ``re_fallback_pix`` without; ``SERSIC_n`` where finite and
    positive (clipped to 0.3-6), else ``sersic_n_init``. TYPE in any case; GAL, blank and anything else
    is ``gal_model``, but a star for rows excluded for saturation.

    Priors: only for a value that came from the catalogue and has a finite positive error; ellipticity
    and angle only where both have. Neighbours that are not fitted here are held: a position prior of
    0.1 pix (``outside``) or 0.3 pix (``saturated``, ``beside``) at most, and for ``outside`` ones of 20 % on Re,
    0.1 on ELL and 15 deg on THETA at most. Their flux has a prior of 20 % (``outside``: with the
    aperture's sky noise where it came from one), except that the clipped aperture flux of a ``saturated``
    row, a mere lower limit, has none.

    Parameters
    ----------
    payload : PatchPayload
    patch_run : PatchRunSettings
        ``gal_model``, ``r_ap``, ``eps_flux``, ``re_fallback_pix``, ``sersic_n_init``.

    Returns
    -------
    ModelSources
        One entry a row of the payload's table, in its order.
    """
    table = payload.table
    place = _column(table, "halo_kind", "").astype(str).to_numpy(dtype=object)
    outside, saturated = place == "outside", (place == "saturated") | (place == "beside")
    re, re_err = _radius(table, patch_run.re_fallback_pix)
    ell, theta, ell_err, theta_err = _ellipse(table)
    flux, flux_err = _fluxes(payload, patch_run, outside, saturated)
    pos_err = _error(table, "POS_ERR")
    pos_err = np.where(outside, np.minimum(pos_err, OUTSIDE_POS_ERR), pos_err)
    pos_err = np.where(saturated, np.minimum(pos_err, SATURATED_POS_ERR), pos_err)
    return ModelSources(
        kind=_kinds(table, patch_run.gal_model, saturated),
        x=_number(table, "x_pix_patch"),
        y=_number(table, "y_pix_patch"),
        re=re,
        ell=ell,
        theta=theta,
        sersic_n=_sersic_index(table, patch_run.sersic_n_init),
        flux=flux,
        pos_err=pos_err,
        re_err=np.where(outside, np.minimum(re_err, NEIGHBOUR_REL_ERR * re), re_err),
        ell_err=np.where(outside, np.minimum(ell_err, NEIGHBOUR_ELL_ERR), ell_err),
        theta_err=np.where(outside, np.minimum(theta_err, NEIGHBOUR_THETA_ERR), theta_err),
        flux_err=flux_err,
        owned=~table["_is_halo_source"].to_numpy(bool),
    )


def _kinds(table: pd.DataFrame, gal_model: str, saturated: Bool) -> I8:
    unknown = ModelKind.of(gal_model, ModelKind.EXP)
    return np.array(
        [
            ModelKind.of(str(text), ModelKind.STAR if star else unknown)
            for text, star in zip(_column(table, "TYPE", ""), saturated, strict=True)
        ],
        dtype=np.int64,
    )


def _radius(table: pd.DataFrame, fallback: float) -> tuple[F8, F8]:
    given = _number(table, "Re")
    start = np.where(np.isfinite(given), np.clip(given, *RE_RANGE), fallback)
    known = np.isfinite(given) & (given > 0)
    return start, np.where(known, _error(table, "Re_ERR"), np.inf)


def _ellipse(table: pd.DataFrame) -> tuple[F8, F8, F8, F8]:
    """Start ell, theta and their prior widths."""
    given_ell, given_theta = _number(table, "ELL"), _number(table, "THETA")
    ratio = np.where(np.isfinite(given_ell), np.clip(1 - given_ell, *AXIS_RATIO_RANGE), DEFAULT_AXIS_RATIO)
    theta = np.where(np.isfinite(given_theta), 90 - (90 - given_theta) % 180, 0.0)
    ell_err, theta_err = _error(table, "ELL_ERR"), _error(table, "THETA_ERR")
    both = np.isfinite(given_ell) & np.isfinite(given_theta) & np.isfinite(ell_err) & np.isfinite(theta_err)
    return 1 - ratio, theta, np.where(both, ell_err, np.inf), np.where(both, theta_err, np.inf)


def _sersic_index(table: pd.DataFrame, initial: float) -> F8:
    given = _number(table, "SERSIC_n")
    known = np.isfinite(given) & (given > 0)
    return np.clip(np.where(known, given, initial), *SERSIC_N_RANGE)


def _fluxes(payload: PatchPayload, run: PatchRunSettings, outside: Bool, saturated: Bool) -> tuple[F8, F8]:
    """Start fluxes and their prior widths, (nband, n)."""
    table = payload.table
    x, y = _number(table, "x_pix_patch"), _number(table, "y_pix_patch")
    flux = np.empty((len(payload.bands), len(table)))
    err = np.full(flux.shape, np.inf)
    for number, band in enumerate(payload.bands):
        given, on_frame = _number(table, f"FLUX_{band}"), _number(table, f"_flux_start_{band}")
        known = np.isfinite(given) & (given > 0)
        start = np.where(known, given, on_frame)
        gaps = np.isnan(start)
        start[gaps] = circular_flux(payload.data[number], payload.bad[number], x[gaps], y[gaps], run.r_ap)
        noise = payload.sky_sigma[number] * np.sqrt(np.pi) * run.r_ap
        held = np.hypot(NEIGHBOUR_REL_ERR * start, np.where(known, 0.0, noise))
        prior = np.where(known, _error(table, f"FLUX_{band}_ERR"), np.inf)
        measured = outside & np.isfinite(on_frame) & ~known
        err[number] = np.where((known & (outside | saturated)) | measured, np.minimum(prior, held), prior)
        flux[number] = np.fmax(np.nan_to_num(start, nan=run.eps_flux), run.eps_flux)
    return flux, err


def _column(table: pd.DataFrame, name: str, default: object) -> pd.Series:
    return table[name] if name in table else pd.Series([default] * len(table), index=table.index)


def _number(table: pd.DataFrame, name: str) -> F8:
    """Column as float64; NaN where absent."""
    if name not in table:
        return np.full(len(table), np.nan)
    column = table[name]
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":  # a table has dozens of them
        return column.to_numpy().astype(float)
    return np.array(column, dtype=float)


def _error(table: pd.DataFrame, name: str) -> F8:
    """Column of errors; inf (no prior) where absent, not finite or not positive."""
    given = _number(table, name)
    return np.where(np.isfinite(given) & (given > 0), given, np.inf)
