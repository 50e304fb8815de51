"""How much wider and longer than a stamp each star is, by least squares in the star's own pixels.

What is known to lie beside a star is fitted with it, so that its light is not taken for the star's width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tract7dt.psf.cutouts import StarStamps
from tract7dt.psf.deform import N_MODES
from tract7dt.psf.fine_light import FineLight
from tract7dt.psf.shift import StampShifter
from tract7dt.psf.small_systems import solve_small
from tract7dt.psf.wings import MoffatProfile

__all__ = ["StarShapes", "measure_shapes"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Share of a star's light by which the model may be wrong in a pixel; it keeps one star from deciding alone.
MODEL_ERROR = 0.003
STEPS = 3
MAX_OFFSET_PIX = 2.0
#: Nearest objects beside a star that are fitted with it, and share of their light by which a profile that is
#: the PSF's, only wider, may be wrong in a pixel.
MAX_BESIDE, BESIDE_ERROR = 4, 0.2


@dataclass(frozen=True, slots=True)
class StarShapes:
    """Departures of ``n`` stars from their models.

    Attributes
    ----------
    value, error : ndarray (n, 3)
        Size (ln), elongation along x and along the diagonal, relative to the model; one sigma.
    flux, dx, dy : ndarray (n,)
        Scaled counts; pix from the cutout's centre pixel.
    valid : ndarray, bool (n,)
    """

    value: F8
    error: F8
    flux: F8
    dx: F8
    dy: F8
    valid: Bool


def measure_shapes(
    stars: StarStamps,
    models: F8,
    unresolved: F8,
    fine: FineLight,
    start: tuple[F8, F8, F8],
    sky: F8,
    sky_error: F8,
    radius: float,
) -> StarShapes:
    """Measure size and elongation of stars against their models, all with flux, place, sky and what is beside.

    Parameters
    ----------
    stars : StarStamps
    models : ndarray (n, k, k)
        Expected PSF of each star, centred.
    unresolved : ndarray (k, k)
        How far what the pixels do not resolve of a PSF of unit flux may be wrong.
    fine : FineLight
        What they do not resolve: it is no part of the models, and is taken off the stars.
    start : (flux, dx, dy), each ndarray (n,)
    sky, sky_error : ndarray (n,)
        Local sky, scaled counts per pixel; the fit may depart from it by its error.
    radius : float
        Pixels this near to the star take part, pix.
    """
    k, n = stars.k, len(stars)
    reach = int(min(k // 2, np.ceil(radius) + 1))
    core = slice(k // 2 - reach, k // 2 + reach + 1)
    axis = np.arange(-reach, reach + 1, dtype=float)
    flux, dx, dy = (part.astype(float).copy() for part in start)
    data = stars.data[:, core, core] - sky[:, None, None]
    good = stars.good[:, core, core] & (np.hypot(axis[:, None], axis[None, :]) <= radius)
    shifter = StampShifter(k)
    beside = _profiles_beside(stars, fine.profile, axis)
    n_columns = 7 + beside.shape[1]
    valid, light_beside = np.ones(n, bool), np.zeros_like(data)
    for step in range(STEPS):
        value, by_x, by_y = (part[:, core, core] for part in shifter.models(models, dx, dy))
        x, y = axis[None, None, :] - dx[:, None, None], axis[None, :, None] - dy[:, None, None]
        # by_x and by_y differentiate by the place of the star: minus the gradient
        modes = [by_x * x + by_y * y - 2 * value, by_x * x - by_y * y, by_x * y + by_y * x]
        light = np.maximum(flux[:, None, None] * value, 0.0)
        variance = (stars.noise**2)[:, None, None] + light / stars.gain + (MODEL_ERROR * light) ** 2
        variance += (flux[:, None, None] * unresolved[core, core]) ** 2
        variance += light_beside / stars.gain + (BESIDE_ERROR * light_beside) ** 2
        weight = np.where(good, 1 / variance, 0.0).reshape(n, 1, -1)
        columns = np.concatenate(
            [np.stack([value, by_x, by_y, *modes, np.ones_like(value)], axis=1), beside], axis=1
        ).reshape(n, n_columns, -1)
        weighted = columns * weight
        normal = weighted @ columns.transpose(0, 2, 1)
        normal[:, 6, 6] += 1 / sky_error**2
        # not brighter than the star, or the star would have been the other one
        normal[:, range(7, n_columns), range(7, n_columns)] += 1 / flux[:, None] ** 2
        own = data - flux[:, None, None] * fine.at(dx, dy, core)
        found, covariance, solved = solve_small(normal, (weighted @ own.reshape(n, -1, 1))[..., 0])
        valid &= solved & (found[:, 0] > 0)
        flux = np.where(valid, found[:, 0], flux)
        safe = np.where(valid, flux, 1.0)
        light_beside = np.einsum("nm,nmij->nij", np.maximum(found[:, 7:], 0.0), beside)
        if step < STEPS - 1:
            dx += np.where(valid, np.clip(found[:, 1] / safe, -0.5, 0.5), 0.0)
            dy += np.where(valid, np.clip(found[:, 2] / safe, -0.5, 0.5), 0.0)
    valid &= np.hypot(dx, dy) <= MAX_OFFSET_PIX
    shape = slice(3, 3 + N_MODES)
    error = np.sqrt(np.maximum(np.einsum("naa->na", covariance)[:, shape], 0.0)) / safe[:, None]
    valid &= (error > 0).all(1) & np.isfinite(error).all(1)
    # Least squares follow the noise: they place a star where noise makes it narrow, and noise that makes it bright
    # makes it wide. To second order in the noise they are off by -1/2 C A' W tr(C H), with covariance C, slopes A,
    # weights W and second derivatives H (Box 1971, J. R. Stat. Soc. B 33, 171), and their ratio by -cov / flux**2:
    # together some -3 / SNR**2 in size, of which faint stars have more than the surface through them may be wrong.
    place = covariance[:, 1:3, 1:3] / safe[:, None, None]
    curved = shifter.curved(models, dx, dy, place)[:, core, core].reshape(n, -1, 1)
    value = found + 0.5 * (covariance @ (weighted @ curved))[..., 0]
    value = value[:, shape] / safe[:, None] + covariance[:, shape, 0] / safe[:, None] ** 2
    return StarShapes(value, error, flux, dx, dy, valid)


def _profiles_beside(stars: StarStamps, profile: MoffatProfile, axis: F8) -> F8:
    """Images of unit flux of what lies beside each star, ndarray (n, m, k, k); 0 where there is nothing."""
    nearest = [rows[np.argsort(np.hypot(rows[:, 0], rows[:, 1]))[:MAX_BESIDE]] for rows in stars.beside]
    images = np.zeros((len(stars), max(map(len, nearest), default=0), len(axis), len(axis)))
    for i, rows in enumerate(nearest):
        for j, (x, y, fwhm) in enumerate(rows):
            wider = replace(profile, alpha=profile.alpha * fwhm / profile.fwhm)
            images[i, j] = wider.image(axis[None, :] - x, axis[:, None] - y) / wider.total
    return images
