"""Fields with a known PSF for the tests of tract7dt.psf; drawn by galsim, not by the code under test."""

from __future__ import annotations

import galsim
import numpy as np
import pandas as pd
from astropy.wcs import WCS

from tract7dt.types import Box, Field, Frame

FWHM, BETA, G1, G2 = 3.3, 3.2, 0.02, -0.01


def profile(fwhm: float = FWHM, beta: float = BETA, g1: float = G1, g2: float = G2):
    return galsim.Moffat(beta=beta, fwhm=fwhm).shear(g1=g1, g2=g2)


def true_stamp(k: int = 55, dx: float = 0.0, dy: float = 0.0, **shape) -> np.ndarray:
    """Effective PSF at pixel centres; its sum is the share of the flux that falls on the stamp."""
    centre = galsim.PositionD((k + 1) / 2 + dx, (k + 1) / 2 + dy)
    image = galsim.ImageD(k, k)
    return profile(**shape).drawImage(image=image, scale=1, method="no_pixel", center=centre).array


def draw_stars(shape, x, y, flux, **kind) -> np.ndarray:
    image = np.zeros(shape)
    for xs, ys, f in zip(x, y, flux, strict=True):
        ix, iy, half = round(xs), round(ys), 45
        stamp = true_stamp(2 * half + 1, xs - ix, ys - iy, **kind) * f
        y0, x0 = iy - half, ix - half
        cut = np.s_[
            max(0, -y0) : min(2 * half + 1, shape[0] - y0), max(0, -x0) : min(2 * half + 1, shape[1] - x0)
        ]
        image[max(y0, 0) : y0 + 2 * half + 1, max(x0, 0) : x0 + 2 * half + 1] += stamp[cut]
    return image


def draw_galaxies(shape, x, y, flux, re) -> np.ndarray:
    image = np.zeros(shape)
    for xs, ys, f, r in zip(x, y, flux, re, strict=True):
        k, ix, iy = 91, round(xs), round(ys)
        thing = galsim.Convolve(galsim.Exponential(half_light_radius=r), profile()).withFlux(f)
        centre = galsim.PositionD(46 + xs - ix, 46 + ys - iy)
        stamp = thing.drawImage(image=galsim.ImageD(k, k), scale=1, method="no_pixel", center=centre).array
        image[iy - 45 : iy + 46, ix - 45 : ix + 46] += stamp
    return image


def grid_positions(shape, step=85, margin=60, seed=1):
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[margin : shape[0] - margin : step, margin : shape[1] - margin : step]
    return xs.ravel() + rng.uniform(-8, 8, xs.size), ys.ravel() + rng.uniform(-8, 8, ys.size)


def make_field(
    image, sky_sigma=1.0, gain=4.0, saturation=None, fwhm=FWHM, seed=2, sky=0.0, noise=True
) -> Field:
    rng = np.random.default_rng(seed)
    data = image + sky
    if noise:
        data = rng.poisson(np.maximum(image, 0) * gain) / gain + sky + rng.normal(0, sky_sigma, image.shape)
    frame = Frame("m500", data.astype(np.float32), sky_sigma, gain, 1.0, 25.0, saturation, fwhm, "sim.fits")
    blank = np.zeros(image.shape, np.float32)
    box = Box(0, image.shape[1], 0, image.shape[0])
    return Field({"m500": frame}, blank, blank, WCS(naxis=2), box, 0.505, None, 25.0)


def gaia_table(x, y, mag) -> pd.DataFrame:
    return pd.DataFrame({"x_pix_white": x, "y_pix_white": y, "phot_g_mean_mag": mag})


def psf_flux(image: np.ndarray, stamp: np.ndarray, radius: float = 10.0) -> float:
    """PSF-fit flux with free position: an independent least squares with a spline of the stamp."""
    from scipy.ndimage import shift
    from scipy.optimize import least_squares

    half = image.shape[0] // 2
    yy, xx = np.mgrid[-half : half + 1, -half : half + 1]
    inside = np.hypot(xx, yy) <= radius

    def residual(p):
        return (p[0] * shift(stamp, (p[2], p[1]), order=5, mode="nearest") * 1.0 - image)[inside]

    start = [image[inside].sum(), 0.0, 0.0]
    return float(least_squares(residual, start, x_scale=[start[0], 0.1, 0.1]).x[0])


def fit_fluxes(image: np.ndarray, x, y, stamp_at, radius: float = 10.0) -> np.ndarray:
    """PSF-fit flux of each star with free place and sky: plain least squares, a Fourier shift of the stamp."""
    fluxes = []
    for xs, ys in zip(x, y, strict=True):
        stamp = np.asarray(stamp_at(xs, ys), float)
        k = stamp.shape[0]
        ix, iy, half = round(xs), round(ys), k // 2
        data = np.asarray(image[iy - half : iy + half + 1, ix - half : ix + half + 1], float)
        axis = np.arange(-half, half + 1)
        inside = np.hypot(axis[:, None], axis[None, :]) <= radius
        transform = np.fft.fft2(np.fft.ifftshift(stamp))
        wave = -2j * np.pi * np.fft.fftfreq(k)
        by_x, by_y = wave[None, :], wave[:, None]
        dx, dy, found = xs - ix, ys - iy, np.zeros(4)
        for _ in range(4):
            moved = transform * np.exp(by_x * dx + by_y * dy)
            parts = [
                np.fft.fftshift(np.fft.ifft2(p).real)[inside] for p in (moved, moved * by_x, moved * by_y)
            ]
            design = np.column_stack([*parts, np.ones(inside.sum())])
            found = np.linalg.lstsq(design, data[inside], rcond=None)[0]
            dx += np.clip(found[1] / found[0], -0.5, 0.5)
            dy += np.clip(found[2] / found[0], -0.5, 0.5)
        fluxes.append(found[0])
    return np.array(fluxes)
