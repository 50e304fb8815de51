"""What can be said against each fit: ``fit_is_reliable`` and ``fit_quality_issues``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tract7dt.flags import reliability
from tract7dt.schema import set_suffix

__all__ = ["flag_reliability"]

Bool = NDArray[np.bool_]


def flag_reliability(
    table: pd.DataFrame, bands: Sequence[str], single_band: bool, patch_failed: Bool, patch_not_fitted: Bool
) -> dict[str, object]:
    """Reliability columns of a merged table.

    With all bands fitted together a source has a result when it has a position and a flux in one band at
    least: a band without a good pixel has no flux, and that says nothing against the others. In single-band
    mode each band is judged by itself in ``fit_is_reliable_{band}``, and the source as a whole is reliable
    when no band that has a result has a hard issue (and one has a result).

    Parameters
    ----------
    table : pandas.DataFrame
        Base catalogue with the fitted columns.
    bands : sequence of str
    single_band : bool
    patch_failed : ndarray, bool (n,)
        Rows whose patch ended in an error.
    patch_not_fitted : ndarray, bool (n,)
        Rows whose patch was left out.

    Returns
    -------
    dict of str to array
        ``fit_is_reliable``, ``fit_quality_issues``, and both per band in single-band mode.
    """
    excluded = table["excluded_any"].to_numpy(bool)
    common = {
        "excluded": excluded,
        "patch_failed": patch_failed & ~excluded,
        "patch_not_fitted": patch_not_fitted & ~excluded,
        "bright_mask": table["affected_by_bright_mask"].to_numpy(bool),
    }
    if not single_band:
        result = _has_result(table, None, bands)
        count = table["psf_used_epsf_band_count"].to_numpy(float, na_value=np.nan)
        fallback = result & (count == 0)
        reliable, text = reliability({**common, **_of_fit(table, None, result, excluded, fallback)})
        return {"fit_is_reliable": reliable, "fit_quality_issues": text}

    results = [_has_result(table, b, (b,)) for b in bands]
    fallbacks = [r & _named_in(table["psf_fallback_bands"], b) for b, r in zip(bands, results, strict=True)]
    single = [
        {**common, **_of_fit(table, b, r, excluded, f)}
        for b, r, f in zip(bands, results, fallbacks, strict=True)
    ]
    together = {name: np.any([s[name] for s in single], axis=0) for name in single[0]}
    together["no_fit_result"] = np.all([s["no_fit_result"] for s in single], axis=0)
    some = np.any(results, axis=0)
    together["all_psf_fallback"] = some & np.all(
        [f | ~r for f, r in zip(fallbacks, results, strict=True)], axis=0
    )
    reliable, text = reliability(together)
    columns: dict[str, object] = {"fit_is_reliable": reliable, "fit_quality_issues": text}
    for band, issues in zip(bands, single, strict=True):
        columns[f"fit_is_reliable_{band}"], columns[f"fit_quality_issues_{band}"] = reliability(issues)
    return columns


def _has_result(table: pd.DataFrame, band: str | None, bands: Sequence[str]) -> Bool:
    """Whether a set has a position and the flux of one of its bands."""
    s = set_suffix(band)
    position = np.isfinite(table[f"x_pix_white{s}_fit"]) & np.isfinite(table[f"y_pix_white{s}_fit"])
    flux = np.any([np.isfinite(table[f"FLUX_{b}_fit"]) for b in bands], axis=0)
    return np.asarray(position, dtype=bool) & flux


def _of_fit(
    table: pd.DataFrame, band: str | None, result: Bool, excluded: Bool, fallback: Bool
) -> dict[str, Bool]:
    """Issues of one set, where it has a result."""
    s = set_suffix(band)
    exhausted = result & table[f"opt_hit_max_iters{s}"].to_numpy(bool)
    return {
        "no_fit_result": ~result & ~excluded,
        "hit_max_iters": exhausted,
        "bound_stalled": result & table[f"flag_bound_stalled{s}"].to_numpy(bool),
        "not_converged": result & ~table[f"opt_converged{s}"].to_numpy(bool) & ~exhausted,
        "all_psf_fallback": fallback,
    }


def _named_in(lists: pd.Series, band: str) -> Bool:
    """Which comma-separated lists hold ``band``."""
    return np.array([band in text.split(",") for text in lists], dtype=bool)
