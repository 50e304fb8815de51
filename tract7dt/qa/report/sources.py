"""The catalogue as the report carries it: positions, shapes, magnitudes and their errors, in few bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tract7dt.flags import QUALITY_ISSUES
from tract7dt.types import F8

if TYPE_CHECKING:
    from tract7dt.qa.report.products import RunProducts

__all__ = [
    "DETECTION_SIGMA",
    "ERROR_DECADES",
    "ERROR_STEPS",
    "LIMIT",
    "MAG_STEP",
    "MAG_ZERO",
    "NOTHING",
    "number_counts",
    "pack_sources",
    "spectral_points",
]

#: A source is detected in a band at this many sigma; below, its upper limit is shown.
DETECTION_SIGMA = 3.0
#: A magnitude is stored as round((mag - MAG_ZERO) / MAG_STEP), 65535: none.
MAG_ZERO, MAG_STEP, NOTHING = 0.0, 0.0005, 65535
#: An error is stored as its logarithm from 1e-4 to 1 mag in ERROR_STEPS; LIMIT: an upper limit.
ERROR_DECADES, ERROR_STEPS, LIMIT = 4.0, 253, 255

_TYPES = ("star", "exp", "dev", "sersic", "")


def pack_sources(run: RunProducts, order: Sequence[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays of all sources and the texts that go with them; bands in the order given.

    Returns
    -------
    arrays : dict
        ``x``, ``y`` (fitted, else input, pix), ``ra``, ``dec``, ``kind``, ``flags``, ``patch``, ``re``, ``ab``,
        ``phi``, ``n``, ``chi2`` (n,), ``mag``, ``err`` (n, nband).
    texts : dict
        ``id``, ``kinds``, ``flags``, ``patches``.
    """
    table = run.catalog
    n = len(table)
    mag, err = spectral_points(run, order)
    flags, names = _flags(table)
    patch, tags = _different(table, "patch_tag")
    ids = table["ID"].fillna("").astype(str).tolist() if "ID" in table else [""] * n
    ids = [name or str(i) for i, name in enumerate(ids)]
    arrays: dict[str, NDArray[Any]] = {
        "x": _first(table, ("x_pix_white_fit", "x_pix_white")).astype(np.float32),
        "y": _first(table, ("y_pix_white_fit", "y_pix_white")).astype(np.float32),
        "ra": _first(table, ("RA_fit", "RA")),
        "dec": _first(table, ("DEC_fit", "DEC")),
        "kind": _kinds(table),
        "flags": flags,
        "patch": patch.astype(np.uint16),
        "re": _steps(_first(table, ("re_pix_fit",)), 0.01),
        "ab": _steps(_first(table, ("ab_fit",)), 0.001),
        "phi": _steps(_first(table, ("phi_deg_fit",)), 0.01),
        "n": _steps(_first(table, ("sersic_n_fit",)), 0.001),
        "chi2": _steps(_median_chi2(table, order), 0.001),
        "mag": mag,
        "err": err,
    }
    texts = {"id": ids, "kinds": list(_TYPES), "flags": names, "patches": tags}
    return arrays, texts


def spectral_points(run: RunProducts, order: Sequence[str]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Magnitudes and errors as they are stored, (n, nband).

    With a zero point the catalogue's MAG and MAGERR; without, the nominal zp_ref and the flux's error alone.
    Below ``DETECTION_SIGMA`` the magnitude is that of ``DETECTION_SIGMA`` times the error: an upper limit.
    """
    table = run.catalog
    zero = _zero_points(run)
    mag = np.full((len(table), len(order)), NOTHING, np.uint16)
    err = np.zeros((len(table), len(order)), np.uint8)
    for i, band in enumerate(order):
        flux, sigma = (_number(table, f"{name}_{band}_fit") for name in ("FLUX", "FLUXERR"))
        good = np.isfinite(flux) & np.isfinite(sigma) & (sigma > 0)
        seen = good & (flux > DETECTION_SIGMA * sigma)
        shown = np.where(seen, flux, DETECTION_SIGMA * sigma)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = zero.get(band, run.zp_ref) - 2.5 * np.log10(shown)
            error = 2.5 / np.log(10) * sigma / flux
        calibrated = _number(table, f"MAGERR_{band}_fit")
        error = np.where(np.isfinite(calibrated), calibrated, error)
        code = np.round((value - MAG_ZERO) / MAG_STEP)
        fits = good & np.isfinite(code) & (code >= 0) & (code < NOTHING)
        mag[fits, i] = code[fits].astype(np.uint16)
        with np.errstate(divide="ignore", invalid="ignore"):
            level = (np.log10(error) + ERROR_DECADES) / ERROR_DECADES * ERROR_STEPS
        err[:, i] = np.where(seen, np.nan_to_num(np.clip(np.round(level), 0, ERROR_STEPS)), LIMIT)
    return mag, err


def number_counts(run: RunProducts, order: Sequence[str], step: float = 0.5) -> dict[str, Any]:
    """Detected sources per bin of magnitude, all and reliable ones, band by band."""
    mag, err = spectral_points(run, order)
    reliable = _bool(run.catalog, "fit_is_reliable")
    value = np.where((mag == NOTHING) | (err == LIMIT), np.nan, mag * MAG_STEP + MAG_ZERO)
    finite = value[np.isfinite(value)]
    if not finite.size:
        return {"edges": [], "all": {}, "reliable": {}}
    edges = np.arange(np.floor(finite.min() / step), np.ceil(finite.max() / step) + 1) * step
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0] + step])
    counts: dict[str, dict[str, list[int]]] = {"all": {}, "reliable": {}}
    for i, band in enumerate(order):
        for name, pick in (("all", np.ones(len(value), bool)), ("reliable", reliable)):
            column = value[pick, i]
            counts[name][band] = np.histogram(column[np.isfinite(column)], edges)[0].tolist()
    return {"edges": edges.tolist(), **counts}


def _zero_points(run: RunProducts) -> dict[str, float]:
    if run.zero_points is None:
        return {}
    rows = zip(run.zero_points["band"], run.zero_points["zp_median"], strict=True)
    return {str(band): float(value) for band, value in rows if np.isfinite(value)}


def _flags(table: pd.DataFrame) -> tuple[NDArray[np.uint16], list[str]]:
    """Issues of every row as bits, and what the bits mean; the last ones: unreliable, Gaia star."""
    issues, texts = _different(table, "fit_quality_issues")
    names = [issue.name for issue in QUALITY_ISSUES]
    of_text = [sum(1 << bit for bit, name in enumerate(names) if name in t.split(",")) for t in texts]
    bits = np.array(of_text, np.uint16)[issues]
    bits |= np.uint16(1 << len(names)) * ~_bool(table, "fit_is_reliable")
    bits |= np.uint16(1 << (len(names) + 1)) * _given(table, "gaia_source_id")
    return bits, [*names, "unreliable", "gaia"]


def _kinds(table: pd.DataFrame) -> NDArray[np.uint8]:
    fitted, given = _codes(table, "stype_fit"), _codes(table, "TYPE")
    return np.where(_given(table, "stype_fit"), fitted, given)


def _codes(table: pd.DataFrame, name: str) -> NDArray[np.uint8]:
    """Numbers of the types that a column names; that of "" for any other text."""
    where, texts = _different(table, name)
    known = [text.strip().lower() for text in texts]
    code = [_TYPES.index(text) if text in _TYPES else len(_TYPES) - 1 for text in known]
    return np.array(code, np.uint8)[where]


def _different(table: pd.DataFrame, name: str) -> tuple[NDArray[np.intp], list[str]]:
    """The different texts of a column, sorted, and for each row which of them it has."""
    if name not in table or not len(table):
        return np.zeros(len(table), np.intp), [""]
    where, texts = pd.factorize(table[name].fillna("").astype(str).to_numpy(object), sort=True)
    return where, [str(text) for text in texts]


def _given(table: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    """Rows in which a column of texts is not empty."""
    where, texts = _different(table, name)
    return np.array([text != "" for text in texts], bool)[where]


def _bool(table: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    if name not in table:
        return np.zeros(len(table), bool)
    return table[name].fillna(False).to_numpy(bool)


def _number(table: pd.DataFrame, name: str) -> F8:
    if name not in table:
        return np.full(len(table), np.nan)
    return table[name].to_numpy(np.float64, na_value=np.nan)


def _first(table: pd.DataFrame, names: Sequence[str]) -> F8:
    """The first finite value of some columns, row by row."""
    out = np.full(len(table), np.nan)
    for name in names:
        out = np.where(np.isfinite(out), out, _number(table, name))
    return out


def _median_chi2(table: pd.DataFrame, order: Sequence[str]) -> F8:
    values = np.stack([_number(table, f"CHI2_{band}_fit") for band in order], axis=1)
    out = np.full(len(table), np.nan)
    some = np.isfinite(values).any(axis=1)
    if some.any():
        out[some] = np.nanmedian(values[some], axis=1)
    return out


def _steps(value: F8, step: float) -> NDArray[np.uint16]:
    """Value in steps, 65535 where there is none; too large a one is the largest."""
    code = np.clip(np.round(value / step), 0, NOTHING - 1)
    return np.where(np.isfinite(code), code, NOTHING).astype(np.uint16)
