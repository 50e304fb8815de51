"""Pixels of a source: a sheared Moffat, and a Sersic profile convolved with one.

The PSF is the effective one (the pixel response is part of it), so an image is the profile at the pixel
centres: nothing is integrated over pixels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

__all__ = ["Moffat", "Sersic", "draw_galaxy", "draw_star"]

F8 = NDArray[np.float64]

#: Profiles with an index of at least this end at ``_END_RADII`` half-light radii, as survey catalogues do.
_END_FROM_INDEX, _END_RADII = 2.0, 8.0


@dataclass(frozen=True, slots=True)
class Moffat:
    """A Moffat PSF of unit flux with an area-preserving shear.

    Attributes
    ----------
    fwhm : float
        Before the shear, pix.
    beta : float
    g1, g2 : float
        Reduced shear.
    """

    fwhm: float
    beta: float
    g1: float = 0.0
    g2: float = 0.0

    @property
    def alpha(self) -> float:
        """Scale radius, pix."""
        return float(self.fwhm / (2 * np.sqrt(2 ** (1 / self.beta) - 1)))

    @property
    def peak(self) -> float:
        """Central value, per square pixel."""
        return float((self.beta - 1) / (np.pi * self.alpha**2))

    @property
    def shear(self) -> F8:
        """Matrix that takes the round profile's plane to the sheared one's, (2, 2), determinant 1."""
        norm = 1 / np.sqrt(1 - self.g1**2 - self.g2**2)
        return norm * np.array([[1 + self.g1, self.g2], [self.g2, 1 - self.g1]])

    def at(self, x: F8, y: F8) -> F8:
        """Value at an offset from the centre, per square pixel."""
        inverse = np.linalg.inv(self.shear)
        u, v = inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y
        return np.asarray(self.peak * (1 + (u * u + v * v) / self.alpha**2) ** -self.beta)

    def transform(self, kx: F8, ky: F8) -> F8:
        """Fourier transform at angular frequencies (rad/pix); 1 at the origin."""
        s = self.shear
        k = np.hypot(s[0, 0] * kx + s[1, 0] * ky, s[0, 1] * kx + s[1, 1] * ky)
        table, step = _moffat_table(self.beta)
        return np.interp(k * (self.alpha / step), np.arange(len(table)), table, right=0.0)

    def radius_at(self, flux: float, threshold: float) -> float:
        """Radius at which a star of this flux falls to a surface brightness, pix."""
        ratio = max(flux * self.peak / threshold, 1.0)
        return float(self.alpha * np.sqrt(ratio ** (1 / self.beta) - 1))


@dataclass(frozen=True, slots=True)
class Sersic:
    """An elliptical Sersic profile of unit flux.

    Attributes
    ----------
    n : float
        Sersic index.
    re : float
        Semi-major-axis half-light radius (of the profile without end), pix.
    q : float
        Axis ratio b/a.
    theta : float
        Angle of the major axis from +x towards +y, degrees.
    """

    n: float
    re: float
    q: float
    theta: float

    def transform(self, kx: F8, ky: F8) -> F8:
        """Fourier transform at angular frequencies (rad/pix); 1 at the origin."""
        c, s = np.cos(np.radians(self.theta)), np.sin(np.radians(self.theta))
        k = self.re * np.hypot(c * kx + s * ky, self.q * (c * ky - s * kx))
        log_k, table = _sersic_table(self.n)
        return np.interp(np.log(np.maximum(k, 1e-9)), log_k, table, left=1.0, right=0.0)

    def radius_at(self, flux: float, threshold: float) -> float:
        """Semi-major axis at which a galaxy of this flux falls to a surface brightness, or ends, pix."""
        b = special.gammaincinv(2 * self.n, 0.5)
        total = 2 * np.pi * self.n * special.gamma(2 * self.n) * b ** (-2 * self.n) * self.re**2 * self.q
        ratio = max(flux / total / threshold, 1.0)
        radius = self.re * (np.log(ratio) / b) ** self.n
        return float(min(radius, _END_RADII * self.re) if self.n >= _END_FROM_INDEX else radius)


def draw_star(psf: Moffat, dx: float, dy: float, half: int) -> F8:
    """Star of unit flux, (2 half + 1, 2 half + 1), centred (dx, dy) off the middle pixel."""
    offset = np.arange(-half, half + 1, dtype=float)
    return psf.at((offset - dx)[None, :], (offset - dy)[:, None])


def draw_galaxy(galaxy: Sersic, psf: Moffat, dx: float, dy: float, half: int) -> F8:
    """Galaxy of unit flux seen through ``psf``, (2 half + 1, 2 half + 1), (dx, dy) off the middle pixel.

    Product of the two analytic transforms, inverted on a grid of half pixels, of which every second point
    is kept: the PSF passes frequencies beyond the pixels' Nyquist frequency, and sampling folds them back.
    """
    size = fft.next_fast_len(2 * half + 1, real=True)
    k_half = 2 * np.pi / size * np.arange(size + 1)
    k_full = 2 * np.pi / size * np.fft.fftfreq(2 * size, 1 / (2 * size))
    kx, ky = k_half[None, :], k_full[:, None]
    shift = np.exp(-1j * kx * (half + dx)) * np.exp(-1j * ky * (half + dy))
    spectrum = galaxy.transform(kx, ky) * psf.transform(kx, ky) * shift
    fine = fft.irfft2(spectrum, s=(2 * size, 2 * size), overwrite_x=True)
    # A pixel of the inverse transform is an average over the (2 size)**2 half pixels of a unit period.
    return np.ascontiguousarray(4.0 * fine[: 4 * half + 1 : 2, : 4 * half + 1 : 2])


@functools.lru_cache(maxsize=32)
def _moffat_table(beta: float) -> tuple[F8, float]:
    """Transform of a round Moffat, 2 (k/2)**(b-1) K_{b-1}(k) / Gamma(b-1) with k in 1/alpha, and its step."""
    step = 0.005
    k = np.arange(1, 8000) * step
    values = 2 * (k / 2) ** (beta - 1) * special.kv(beta - 1, k) / special.gamma(beta - 1)
    return np.concatenate([[1.0], values]), step


@functools.lru_cache(maxsize=32)
def _sersic_table(n: float) -> tuple[F8, F8]:
    """Transform of a round Sersic of half-light radius 1 against log k.

    By quadrature where k is low, and by a logarithmic Hankel transform above: that one is fast where the
    Bessel function turns over many times, but blurs the sharp end of a profile.
    """
    b = special.gammaincinv(2 * n, 0.5)
    end = _END_RADII if n >= _END_FROM_INDEX else (60 / b) ** n
    join = np.log(240 / end)
    low_k = np.arange(np.log(1e-3), join, 0.02)
    high_k, high = _hankel_transform(n, b, end)
    above = (high_k > join) & (high_k < np.log(1e4))
    low = _quadrature_transform(n, b, end, np.exp(low_k))
    return np.concatenate([low_k, high_k[above]]), np.concatenate([low, high[above]])


def _quadrature_transform(n: float, b: float, end: float, k: F8) -> F8:
    """Integral of I(r) J0(k r) r dr over that of I(r) r dr, by Gauss-Legendre in pieces of log r."""
    x, weight = np.polynomial.legendre.leggauss(32)
    edges = np.linspace(np.log(1e-7), np.log(end), 65)
    half = 0.5 * (edges[1] - edges[0])
    r = np.exp((edges[:-1, None] + half * (x + 1)).ravel())
    light = np.tile(weight, 64) * r * r * np.exp(-b * r ** (1 / n))
    return np.asarray(special.j0(np.outer(k, r)) @ light / light.sum())


def _hankel_transform(n: float, b: float, end: float) -> tuple[F8, F8]:
    log_r, step = np.linspace(np.log(1e-7), np.log(1e4), 4096, retstep=True)
    r = np.exp(log_r)
    light = np.where(r < end, np.exp(-b * r ** (1 / n)), 0.0)
    inside = special.gammainc(2 * n, b * end ** (1 / n))
    total = 2 * np.pi * n * special.gamma(2 * n) * b ** (-2 * n) * inside
    offset = fft.fhtoffset(step, mu=0.0)
    log_k = offset - log_r[::-1]
    return log_k, 2 * np.pi * fft.fht(r * light, step, mu=0.0, offset=offset) / np.exp(log_k) / total
