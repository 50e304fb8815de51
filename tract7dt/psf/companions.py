"""Companions that hide in a star's wing: what it has on one side and not on the other.

A detection is split where isophotes part, which those of a companion of 10 % at 2 FWHM do not. But a star is
the same on both sides, whatever its width and elongation; what a PSF has of its own on one side, all stars of
the cell have. Where the catalogue knows of a source, its flux is fitted to that difference, and less of it
counts than elsewhere: one place is asked, not hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tract7dt.psf.cutouts import StarStamps
from tract7dt.psf.moments import windowed_centroid
from tract7dt.psf.shift import StampShifter
from tract7dt.psf.wings import MoffatProfile

__all__ = ["Companions", "find_companions"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Share of a star's light by which its two sides may differ.
ASYMMETRY = 0.03
#: What stands out from that by this many sigma is something else.
SIGMA = 5.0
#: The same where a source is known to be; with less, nobody could tell it from nothing.
KNOWN_SIGMA = 1.0
#: Nearer to the centre than this many FWHM a companion cannot be told from the star's own shape.
NEAREST = 1.2
#: Best stars that tell what the PSF has on one side, and how few do not.
WITNESSES, MIN_WITNESSES = 9, 3
#: Error of a median over that of a mean.
MEDIAN_ERROR = 1.25


@dataclass(frozen=True, slots=True)
class Companions:
    """What lies beside ``n`` stars, in units of each star's flux.

    Attributes
    ----------
    elsewhere : ndarray (n,)
        Flux of the brightest companion where nothing is known to be; 0 where none is seen.
    known : ndarray (n,)
        Of the sources that are known, what falls within the fit radius.
    unsure : ndarray (n,)
        Error of that for a source so near that it cannot be told from the star's own shape; 0 without one.
    """

    elsewhere: F8
    known: F8
    unsure: F8


@dataclass(frozen=True, slots=True)
class _Sides:
    """A star of unit flux minus itself turned by 180 degrees about its centre.

    ``x``, ``y`` is its centre, pix from the middle of the cutout; ``alike`` what both sides have.
    """

    x: float
    y: float
    difference: F8
    variance: F8
    alike: F8


def find_companions(stars: StarStamps, fwhm: float, fit_pix: float) -> Companions:
    """Companions of stars, the known ones where they are and others wherever they show.

    Parameters
    ----------
    stars : StarStamps
        Best first.
    fwhm, fit_pix : float
        Width of stars; companions are looked for within the fit radius, pix.
    """
    found = Companions(*np.zeros((3, len(stars))))
    if not len(stars):
        return found
    reach = int(min(stars.k // 2, np.ceil(fit_pix + fwhm)))
    axis = np.arange(-reach, reach + 1, dtype=float)
    radius = np.hypot(axis[:, None], axis[None, :])
    ring = (radius >= NEAREST * fwhm) & (radius <= fit_pix)
    sides = [_two_sides(stars, i, reach, fwhm, fit_pix) for i in range(len(stars))]
    maps, errors = zip(*(_point_sources(s, fwhm) for s in sides), strict=True)
    for i, own in enumerate(sides):
        others = [j for j in range(len(stars)) if j != i][:WITNESSES]
        seen, error, difference, variance = maps[i], errors[i], own.difference, own.variance
        if len(others) >= MIN_WITNESSES:
            seen = seen - np.median([maps[j] for j in others], axis=0)
            difference = difference - np.median([sides[j].difference for j in others], axis=0)
            share = MEDIAN_ERROR**2 / len(others)
            error = np.sqrt(error**2 + share * np.mean([errors[j] ** 2 for j in others], axis=0))
            variance = variance + share * np.mean([sides[j].variance for j in others], axis=0)
        free = ring
        if stars.beside and len(stars.beside[i]):
            rows = stars.beside[i] - [own.x, own.y, 0.0]
            away = np.hypot(axis[None, None, :] - rows[:, :1, None], axis[None, :, None] - rows[:, 1:2, None])
            free = ring & (away > fwhm).all(0)
            shares, sigma = _fluxes_at(rows, difference, variance, axis, fwhm, fit_pix)
            found.known[i] = shares[shares > KNOWN_SIGMA * sigma].sum()
            near = np.hypot(rows[:, 0], rows[:, 1]) < NEAREST * fwhm
            found.unsure[i] = sigma[near].max(initial=0.0)
        found.elsewhere[i] = seen[free & (seen > SIGMA * error)].max(initial=0.0)
    return found


def _two_sides(stars: StarStamps, i: int, reach: int, fwhm: float, fit_pix: float) -> _Sides:
    middle = stars.k // 2
    core = slice(middle - reach, middle + reach + 1)
    good, data = stars.good[i, core, core], stars.data[i, core, core]
    x, y = windowed_centroid(data, fwhm)
    cut = StampShifter(2 * reach + 1).shift(data[None], np.array([-x]), np.array([-y]))[0]
    other = cut[::-1, ::-1]
    known = good & good[::-1, ::-1]
    variance = 2 * stars.noise[i] ** 2 + (np.maximum(cut, 0) + np.maximum(other, 0)) / stars.gain
    axis = np.arange(-reach, reach + 1)
    total = max(float(cut[np.hypot(axis[:, None], axis[None, :]) <= fit_pix].sum()), float(stars.noise[i]))
    return _Sides(
        x,
        y,
        np.where(known, cut - other, 0.0) / total,
        variance / total**2,
        np.maximum(np.minimum(cut, other), 0.0) / total,
    )


def _point_sources(sides: _Sides, fwhm: float) -> tuple[F8, F8]:
    """Flux of a point source at each pixel, and its error."""
    sigma = fwhm / 2.3548
    # under a Gaussian window of its own width a point source of unit flux sums to 1 / (4 pi sigma**2)
    flux_of = 4 * np.pi * sigma**2
    excess = ndimage.gaussian_filter(sides.difference, sigma, mode="constant")
    alike = ndimage.gaussian_filter(sides.alike, sigma, mode="constant")
    # squares of the window's weights: a window narrower by sqrt(2), times 1 / (4 pi sigma**2)
    variance = ndimage.gaussian_filter(sides.variance, sigma / np.sqrt(2), mode="constant") / flux_of
    return flux_of * excess, flux_of * np.hypot(np.sqrt(variance), ASYMMETRY / SIGMA * alike)


def _fluxes_at(
    rows: F8, difference: F8, variance: F8, axis: F8, fwhm: float, fit_pix: float
) -> tuple[F8, F8]:
    """Fluxes of known sources within the fit radius, and errors: least squares of the difference of the sides.

    Free are their fluxes and the star's centre, which a companion has moved; the star itself is in neither.
    """
    x, y = axis[None, :], axis[:, None]
    _, by_x, by_y = MoffatProfile.of_width(fwhm).with_slopes(x, y)
    columns, inside = [2 * by_x, 2 * by_y], []
    for dx, dy, width in rows:
        light = MoffatProfile.of_width(float(width)).image(x - dx, y - dy)
        inside.append(float(light[np.hypot(x, y) <= fit_pix].sum()))
        columns.append(light - light[::-1, ::-1])
    used = (np.hypot(x, y) <= axis[-1]) & (difference != 0)
    # each pair of pixels is there twice
    weight = 0.5 / variance[used]
    design = np.array([column[used] for column in columns])
    # no companion is brighter than the star
    normal = (design * weight) @ design.T + np.diag([1e-9, 1e-9] + [1.0] * len(rows))
    covariance = np.linalg.inv(normal)
    flux = (covariance @ (design @ (weight * difference[used])))[2:]
    return flux * inside, np.sqrt(np.diag(covariance)[2:]) * inside
