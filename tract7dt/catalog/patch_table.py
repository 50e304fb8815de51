"""The catalogue of one patch: what the fit found for the sources that the patch owns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tract7dt.catalog.csvfile import read_csv, typed_array, write_csv
from tract7dt.errors import ProductError
from tract7dt.schema import bands_of, expand, is_single_band, set_suffix
from tract7dt.types import ModelKind, PatchFit, PatchPayload, PsfAudit

__all__ = ["key_columns", "patch_columns", "patch_table", "read_patch_catalog", "write_patch_catalog"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Sersic index of the models that do not fit it.
FIXED_INDEX = {ModelKind.EXP: 1.0, ModelKind.DEV: 4.0}


def key_columns(table: pd.DataFrame) -> list[str]:
    """Columns that name a source: ``ID``, or ``RA`` and ``DEC`` where there is none."""
    return ["ID"] if "ID" in table.columns else ["RA", "DEC"]


def patch_columns(key: list[str], bands: tuple[str, ...], single_band: bool) -> list[str]:
    """Columns of a per-patch catalogue, in order."""
    fitted = [c.name for c in expand(bands, single_band, made_by=("patch_fit",))]
    return ["source_index", *key, "x_pix_white", "y_pix_white", *fitted]


def patch_table(payload: PatchPayload, fit: PatchFit, audit: PsfAudit) -> pd.DataFrame:
    """Rows of the sources that the patch owns, in the order of the payload.

    Conventions: ``THETA`` is counter-clockwise from +x in [-90, 90); ``phi_deg = THETA - 90`` mod 180 is the
    same direction from +y; ``ab = 1 - ELL``. A star has no shape. The Sersic index of ``exp`` is 1 and of
    ``dev`` 4, without an error.

    Parameters
    ----------
    payload : PatchPayload
        What was fitted; gives names, start positions and ownership.
    fit : PatchFit
        One entry a row of ``payload.table``.
    audit : PsfAudit

    Returns
    -------
    pandas.DataFrame
        Columns of :func:`patch_columns`.

    Raises
    ------
    ProductError
        If ``fit`` is not of this payload.
    """
    _check_same_patch(payload, fit)
    own = ~payload.table["_is_halo_source"].to_numpy(bool)
    rows = payload.table[own]
    index = pd.RangeIndex(len(rows))
    values: dict[str, object] = {c: rows[c].to_numpy() for c in ("x_pix_patch", "y_pix_patch")}
    values["stype_fit"] = [ModelKind(k).name.lower() for k in fit.kind[own]]
    for band, i in fit.sets():
        values |= _positions(payload, fit, i, own, set_suffix(band))
        values |= _shapes(fit, i, own, set_suffix(band))
        values |= _optimiser(fit, i, own, set_suffix(band))
    for i, band in enumerate(fit.bands):
        values |= _band(fit, i, own, band)
    values |= {name: [value] * len(rows) for name, value in _audit(payload, fit, audit).items()}

    names = (*key_columns(rows), "x_pix_white", "y_pix_white")
    values |= {name: rows[name].to_numpy() for name in names}
    columns = expand(fit.bands, fit.single_band)
    table = {c.name: typed_array(values[c.name], c) for c in columns if c.name in values}
    table["source_index"] = rows["source_index"].to_numpy(np.int64)
    wanted = patch_columns(key_columns(rows), fit.bands, fit.single_band)
    return pd.DataFrame(table, index=index)[wanted]


def write_patch_catalog(table: pd.DataFrame, path: str | Path) -> None:
    """Write a per-patch catalogue as CSV, whole or not at all; it reads back bit for bit."""
    write_csv(table, path)


def read_patch_catalog(path: str | Path) -> pd.DataFrame:
    """Read a per-patch catalogue; columns that this version does not know stay as text.

    Raises
    ------
    ProductError
        If the file is missing or damaged, or lacks columns.
    """
    table = read_csv(path, row_numbers=("source_index",))
    bands = bands_of(table.columns)
    if not bands:
        raise ProductError(f"{path}: no FLUXERR_{{band}}_fit column, so this is not a patch catalogue")
    need = patch_columns(key_columns(table), bands, is_single_band(table.columns))
    lacking = [c for c in need if c not in table.columns]
    if lacking:
        raise ProductError(f"{path}: lacks the columns {lacking}; fit the patch again")
    return table


def _check_same_patch(payload: PatchPayload, fit: PatchFit) -> None:
    """Raise unless the fit has the payload's tag, bands and number of sources."""
    problems = [
        f"{what}: payload {expected!r}, fit {found!r}"
        for what, expected, found in (
            ("patch", payload.patch.tag, fit.tag),
            ("bands", payload.bands, fit.bands),
            ("number of sources", len(payload.table), len(fit)),
        )
        if expected != found
    ]
    if problems:
        raise ProductError(
            f"patch {payload.patch.tag}: the fit is of another payload ({'; '.join(problems)})"
        )


def _positions(payload: PatchPayload, fit: PatchFit, i: int, own: Bool, s: str) -> dict[str, object]:
    """Fitted positions of one set, in the patch and in the working frame."""
    x, y = fit.x[i, own], fit.y[i, own]
    return {
        f"x_pix_patch{s}_fit": x,
        f"y_pix_patch{s}_fit": y,
        f"x_pix_white{s}_fit": x + payload.patch.roi.x0,
        f"y_pix_white{s}_fit": y + payload.patch.roi.y0,
        f"x_pix{s}_fit_err": fit.x_err[i, own],
        f"y_pix{s}_fit_err": fit.y_err[i, own],
        f"xy_pix{s}_fit_cov": fit.xy_cov[i, own],
    }


def _shapes(fit: PatchFit, i: int, own: Bool, s: str) -> dict[str, object]:
    """Fitted shapes of one set; NaN for stars."""
    kind = fit.kind[own]
    extended = kind != ModelKind.STAR

    def shape(values: F8) -> F8:
        return np.where(extended, values[i, own], np.nan)

    re, ell = shape(fit.re), shape(fit.ell)
    theta = shape(fit.theta)
    theta = np.where((theta >= -90.0) & (theta < 90.0), theta, _folded(theta + 90.0) - 90.0)
    n, n_err = shape(fit.sersic_n), shape(fit.sersic_n_err)
    for model, value in FIXED_INDEX.items():
        # A source without a result has no index either.
        n = np.where(kind == model, np.where(np.isfinite(re), value, np.nan), n)
        n_err = np.where(kind == model, np.nan, n_err)
    return {
        f"sersic_n{s}_fit": n,
        f"sersic_n{s}_fit_err": n_err,
        f"re_pix{s}_fit": re,
        f"ab{s}_fit": 1.0 - ell,
        f"phi_deg{s}_fit": _folded(theta - 90.0),
        f"Re{s}_fit": re,
        f"Re{s}_fit_err": shape(fit.re_err),
        f"ELL{s}_fit": ell,
        f"ELL{s}_fit_err": shape(fit.ell_err),
        f"THETA{s}_fit": theta,
        f"THETA{s}_fit_err": shape(fit.theta_err),
    }


def _folded(angle: F8) -> F8:
    """Angle in [0, 180): the remainder of a tiny negative number rounds up to 180 itself."""
    folded = np.mod(angle, 180.0)
    return np.where(folded >= 180.0, 0.0, folded)


def _optimiser(fit: PatchFit, i: int, own: Bool, s: str) -> dict[str, object]:
    """Outcome of the fit of one set."""
    bound = [b for b, mine in zip(fit.bound[i], own, strict=True) if mine]
    return {
        f"opt_converged{s}": fit.converged[i, own],
        f"opt_hit_max_iters{s}": fit.hit_max_iters[i, own],
        f"opt_stalled{s}": fit.stalled[i, own],
        f"opt_niters{s}": fit.niter[i, own],
        f"opt_last_dlnp{s}": fit.last_dlnp[i, own],
        f"flag_bound_stalled{s}": [bool(b) for b in bound],
        f"flag_bound_stalled_which_parameter{s}": bound,
        f"opt_issues{s}": [t for t, mine in zip(fit.issues[i], own, strict=True) if mine],
    }


def _band(fit: PatchFit, i: int, own: Bool, band: str) -> dict[str, object]:
    """Flux and quality in one band, and the patch's sky."""
    n = int(own.sum())
    return {
        f"FLUX_{band}_fit": fit.flux[i, own],
        f"FLUXERR_{band}_fit": fit.flux_err[i, own],
        f"CHI2_{band}_fit": fit.chi2[i, own],
        f"FRACMASKED_{band}": fit.frac_masked[i, own],
        f"FRACFLUX_{band}": fit.frac_flux[i, own],
        f"SKY_{band}_fit": np.full(n, fit.sky[i]),
        f"SKYERR_{band}_fit": np.full(n, fit.sky_err[i]),
    }


def _audit(payload: PatchPayload, fit: PatchFit, audit: PsfAudit) -> dict[str, object]:
    """Where the patch lies and which PSFs it used: the same in all its rows."""
    fallback = sorted(audit.reasons)
    low = sorted(audit.low_star_bands)
    return {
        "patch_tag": payload.patch.tag,
        "epsf_tag": payload.patch.epsf_tag,
        "psf_min_epsf_nstars_for_use": audit.min_nstars,
        "psf_used_epsf_band_count": len(fit.bands) - len(fallback),
        "psf_fallback_band_count": len(fallback),
        "psf_low_star_band_count": len(low),
        "psf_fallback_bands": ",".join(fallback),
        "psf_low_star_bands": ",".join(low),
        "psf_frozen_bands_for_optimizer": ",".join(sorted(audit.mixture_bands)),
        "psf_fallback_reasons_json": json.dumps(dict(audit.reasons), sort_keys=True),
    }
