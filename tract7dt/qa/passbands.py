"""Wavelengths and widths of the telescope's bands."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

from tract7dt.qa.style import band_wavelength

__all__ = ["Passband", "passband", "passbands_in_order"]


@dataclass(frozen=True, slots=True)
class Passband:
    """Where a band lies.

    Attributes
    ----------
    pivot_nm : float
        Pivot wavelength of the total response.
    low_nm, high_nm : float or None
        Where the response falls to half of its maximum; None where that is not known.
    """

    pivot_nm: float
    low_nm: float | None
    high_nm: float | None


@functools.cache
def _table() -> Mapping[str, Passband]:
    """The 7DT's bands: pivot and half-maximum wavelengths, detector and atmosphere included."""
    text = resources.files("tract7dt").joinpath("data/bands_7dt.csv").read_text(encoding="utf-8")
    return {
        row["filter"]: Passband(float(row["pivot_nm"]), float(row["fwhm_lo_nm"]), float(row["fwhm_hi_nm"]))
        for row in csv.DictReader(text.splitlines())
    }


def passband(band: str) -> Passband | None:
    """Where ``band`` lies: from the table, else as far as its name tells; None if it tells nothing."""
    found = _table().get(band)
    if found is None:
        told = band_wavelength(band)
        found = None if told is None else Passband(told, None, None)
    return found


def passbands_in_order(bands: Iterable[str]) -> list[tuple[str, Passband | None]]:
    """Bands by pivot wavelength; those of unknown wavelength behind them, in the order given."""
    known = [(band, passband(band)) for band in bands]
    return sorted(known, key=lambda item: float("inf") if item[1] is None else item[1].pivot_nm)
