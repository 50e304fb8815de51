"""Names of the catalogue's columns: those that mean something to us, and those that are ours to write."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["NUMBERS", "PLACEMENT", "canonical_name", "flux_band", "is_number", "is_reserved"]

_TEXTS = ("ID", "TYPE")
#: Known columns of numbers, besides ``FLUX_{band}`` and ``FLUX_{band}_ERR``.
NUMBERS = ("RA", "DEC", "ELL", "THETA", "Re", "SERSIC_n", "POS_ERR", "Re_ERR", "ELL_ERR", "THETA_ERR")
_BY_FOLDED = {name.casefold(): name for name in (*_TEXTS, *NUMBERS)}
_FLUX = re.compile(r"flux_(?P<band>.+?)(?P<err>_err)?", re.IGNORECASE)

#: Columns that the loading stage appends, with the value that they start from.
PLACEMENT: dict[str, float | bool | str] = {
    "x_pix_white": float("nan"),
    "y_pix_white": float("nan"),
    "excluded_crop": False,
    "excluded_saturation": False,
    "excluded_any": False,
    "gaia_source_id": "",
    "affected_by_bright_mask": False,
}

#: Columns that the pipeline writes. Any case, because column names of a FITS table have none.
_RESERVED = re.compile(
    r"""
      x_pix_white | y_pix_white | x_pix_patch | y_pix_patch | source_index | _is_halo_source
    | excluded_(crop|saturation|any|reason) | gaia_source_id | affected_by_bright_mask
    | (x|y)_pix_(white|patch)(_.+)?_fit | (x|y)_pix(_.+)?_fit_err
    | (RA|DEC|Re|re_pix|ab|phi_deg|ELL|THETA|sersic_n|stype)(_.+)?_fit(_err)?
    | (FLUX|FLUXERR|MAG|MAGERR|CHI2|SKY)_.+_fit | FRACMASKED_.+ | FRACFLUX_.+
    | opt_(converged|hit_max_iters|niters|last_dlnp)(_.+)? | flag_bound_stalled(_.+)?
    | patch_tag | epsf_tag | fit_is_reliable | fit_quality_issues
    | psf_min_epsf_nstars_for_use | psf_(used_epsf|fallback|low_star)_band_count
    | psf_(fallback|low_star)_bands | psf_frozen_bands_for_optimizer | psf_fallback_reasons_json
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_reserved(name: str) -> bool:
    """Whether the pipeline writes a column of this name, so that an input cannot bring it."""
    return _RESERVED.fullmatch(name.strip()) is not None


def canonical_name(name: str) -> str:
    """The name in the case that we use, where it is one that we know; any other name as it is.

    The band of a ``FLUX_{band}`` keeps its own case.
    """
    known = _BY_FOLDED.get(name.strip().casefold())
    if known is not None:
        return known
    flux = _FLUX.fullmatch(name.strip())
    if flux is not None:
        return f"FLUX_{flux['band']}" + ("_ERR" if flux["err"] else "")
    return name


def is_number(name: str) -> bool:
    """Whether a column of this canonical name holds numbers."""
    return name in NUMBERS or name.startswith("FLUX_")


def flux_band(name: str) -> str | None:
    """Band of a canonical ``FLUX_{band}``; None for any other column, errors included."""
    if not name.startswith("FLUX_") or name.endswith("_ERR"):
        return None
    return name.removeprefix("FLUX_")


def listed(items: Iterable[str], most: int = 10) -> str:
    """``items`` joined for a message, the first ``most`` of them."""
    items = list(items)
    more = f", and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
