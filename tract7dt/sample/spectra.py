"""Colours of the simulated sources: black-body stars, galaxies of an old and a young population."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["REFERENCE_NM", "Spectra", "draw_spectra"]

F8 = NDArray[np.float64]

#: Wavelength of the reference magnitude.
REFERENCE_NM = 625.0
_HC_OVER_K_NM = 1.4387769e7  # nm K
_OLD_K, _YOUNG_K = 4300.0, 11000.0
_HALPHA_NM, _BAND_WIDTH_NM = 656.3, 25.0


@dataclass(frozen=True, slots=True)
class Spectra:
    """Spectral shapes of all sources, one entry a source.

    Attributes
    ----------
    is_star : ndarray, bool (n,)
    temperature : ndarray, float64 (n,)
        Of stars, K.
    redshift, young : ndarray, float64 (n,)
        Of galaxies: redshift, and the young population's share of the light at the reference wavelength.
    line : ndarray, float64 (n,)
        Factor by which H alpha raises the band that it falls into; 1: no line.
    """

    is_star: NDArray[np.bool_]
    temperature: F8
    redshift: F8
    young: F8
    line: F8

    def colour(self, wave_nm: float) -> F8:
        """AB magnitude at ``wave_nm`` minus that at the reference wavelength, (n,)."""
        star = _planck_ratio(wave_nm, REFERENCE_NM, self.temperature)
        rest, reference = wave_nm / (1 + self.redshift), REFERENCE_NM / (1 + self.redshift)
        galaxy = self.young * _planck_ratio(rest, reference, _YOUNG_K)
        galaxy += (1 - self.young) * _planck_ratio(rest, reference, _OLD_K)
        in_band = np.abs(_HALPHA_NM * (1 + self.redshift) - wave_nm) < _BAND_WIDTH_NM / 2
        galaxy *= np.where(in_band, self.line, 1.0)
        return np.asarray(-2.5 * np.log10(np.where(self.is_star, star, galaxy)))


def draw_spectra(is_star: NDArray[np.bool_], rng: np.random.Generator) -> Spectra:
    """Draw spectral shapes for ``n`` sources."""
    n = len(is_star)
    return Spectra(
        is_star=is_star,
        temperature=10 ** rng.uniform(np.log10(3300), np.log10(9500), n),
        redshift=rng.uniform(0.02, 0.8, n),
        young=rng.beta(2, 2, n),
        line=np.where(rng.random(n) < 0.15, rng.uniform(1.2, 2.0, n), 1.0),
    )


def _planck_ratio(wave_nm: Any, reference_nm: Any, temperature: Any) -> F8:
    """Ratio of a black body's flux density per frequency at two wavelengths."""
    x, x0 = _HC_OVER_K_NM / (wave_nm * temperature), _HC_OVER_K_NM / (reference_nm * temperature)
    return np.asarray((reference_nm / wave_nm) ** 3 * np.expm1(x0) / np.expm1(x))
