"""One band's image: sources, noise and defects."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tract7dt.sample.bands import BandTruth
from tract7dt.sample.options import SampleOptions, random_stream
from tract7dt.sample.profiles import Moffat, Sersic, draw_galaxy, draw_star

__all__ = ["observe", "psf_at", "render_sources"]

F4 = NDArray[np.float32]

#: Sources are drawn out to this share of the sky noise, within limits in pixels.
_FAINTEST = 0.01
_STAR_HALF, _GALAXY_HALF = (12, 400), (14, 300)
_ROWS = 256


def psf_at(band: BandTruth, x: float, y: float, options: SampleOptions) -> Moffat:
    """PSF at a position of the frame."""
    u, v = 2 * x / options.width - 1, 2 * y / options.height - 1
    widening = 1 + band.fx * u + band.fy * v + band.fr * (u * u + v * v) / 2
    return Moffat(band.fwhm_px * widening, band.beta, band.g1 + band.g1x * u, band.g2 + band.g2y * v)


def render_sources(truth: pd.DataFrame, band: BandTruth, options: SampleOptions) -> F4:
    """All sources without noise, ADU, float32 (height, width)."""
    image = np.zeros((options.height, options.width), np.float32)
    fluxes = 10 ** (-0.4 * (truth[f"mag_{band.band}"].to_numpy() - band.zp_true))
    threshold = _FAINTEST * band.skysig
    columns = zip(
        truth["x"], truth["y"], truth["type"], truth["n"], truth["Re"], truth["ELL"], truth["THETA"], fluxes
    )
    for x, y, kind, n, re, ell, theta, flux in columns:
        psf = psf_at(band, x, y, options)
        ix, iy = round(x), round(y)
        reach = psf.radius_at(flux, threshold)
        if kind == "STAR":
            half = int(np.ceil(np.clip(reach, *_STAR_HALF)))
            stamp = draw_star(psf, x - ix, y - iy, half)
        else:
            galaxy = Sersic(n, re, 1 - ell, theta)
            reach = max(reach, galaxy.radius_at(flux, threshold) + 3 * psf.fwhm)
            half = int(np.ceil(np.clip(reach, *_GALAXY_HALF)))
            stamp = draw_galaxy(galaxy, psf, x - ix, y - iy, half)
        _add(image, stamp, flux, ix - half, iy - half)
    return image


def observe(model: F4, band: BandTruth, options: SampleOptions) -> tuple[F4, NDArray[np.bool_]]:
    """An observation of a noiseless image.

    Parameters
    ----------
    model : ndarray, float32 (height, width)
        ADU.

    Returns
    -------
    data : ndarray, float32 (height, width)
        With trail, noise, sky residual, clipping at ``saturate`` and NaN regions.
    clipped : ndarray, bool (height, width)
        Pixels at saturation.
    """
    rng = random_stream(options.seed, "noise", band.band)
    height, width = model.shape
    data = np.empty_like(model)
    clipped = np.empty(model.shape, bool)
    trail = _Trail(rng, width, height) if band.trail else None
    u = 2 * np.arange(width) / width - 1
    for start in range(0, height, _ROWS):  # by rows: the noise arrays of a whole frame would be large
        rows = np.arange(start, min(start + _ROWS, height))
        expected = model[rows].astype(float)
        if trail is not None:
            expected += 12 * band.skysig * trail.profile(rows)
        electrons = rng.poisson(np.maximum(expected, 0) * band.egain)
        sky_sigma = band.skysig * _noise_factor(rows, width, height, options.edge_noise_pix)
        seen = electrons / band.egain + rng.normal(0, 1, expected.shape) * sky_sigma
        seen += band.sky0 + band.skyx * u + band.skyy * (2 * rows / height - 1)[:, None]
        clipped[rows] = seen >= band.saturate
        data[rows] = np.minimum(seen, band.saturate)
    _blank_regions(data, band, options, rng)
    return data, clipped


def _add(image: F4, stamp: NDArray[np.float64], flux: float, x0: int, y0: int) -> None:
    """Add ``flux * stamp`` with its first pixel at (x0, y0); what lies outside of the image is lost."""
    height, width = image.shape
    ny, nx = stamp.shape
    ya, yb, xa, xb = max(y0, 0), min(y0 + ny, height), max(x0, 0), min(x0 + nx, width)
    if ya < yb and xa < xb:
        image[ya:yb, xa:xb] += (flux * stamp[ya - y0 : yb - y0, xa - x0 : xb - x0]).astype(np.float32)


class _Trail:
    """A straight satellite trail across the frame, 1.8 pix wide (sigma)."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.x0, self.y0 = rng.uniform(0.3, 0.7) * width, height / 2
        angle = rng.uniform(0.9, 2.2)
        self.cos, self.sin = np.cos(angle), np.sin(angle)
        self.x = np.arange(width)

    def profile(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Brightness relative to the middle of the trail, (len(rows), width)."""
        across = (self.x - self.x0)[None, :] * self.sin - (rows - self.y0)[:, None] * self.cos
        return np.asarray(np.exp(-0.5 * (across / 1.8) ** 2))


def _edge_distance(rows: NDArray[np.int64], width: int, height: int) -> NDArray[np.int64]:
    x = np.arange(width)
    across = np.minimum(x, width - 1 - x)[None, :]
    return np.minimum(across, np.minimum(rows, height - 1 - rows)[:, None])


def _noise_factor(rows: NDArray[np.int64], width: int, height: int, edge: int) -> NDArray[np.float64] | float:
    """Noise towards the border, where fewer exposures overlap."""
    if edge == 0:
        return 1.0
    return 1 + 3 * np.clip(1 - _edge_distance(rows, width, height) / edge, 0, 1) ** 2


def _blank_regions(data: F4, band: BandTruth, options: SampleOptions, rng: np.random.Generator) -> None:
    """Set NaN: a bad column pair, a box, and a rim of a noisy edge."""
    height, width = data.shape
    if options.edge_noise_pix > 0:
        rim = max(2, options.edge_noise_pix // 12)
        data[:rim], data[-rim:] = np.nan, np.nan
        data[:, :rim], data[:, -rim:] = np.nan, np.nan
    if band.nan_column:
        column = int(rng.uniform(0.2, 0.8) * width)
        data[int(0.1 * height) : int(0.7 * height), column : column + 2] = np.nan
    if band.nan_box:
        x0, y0 = int(rng.uniform(0.15, 0.75) * width), int(rng.uniform(0.15, 0.75) * height)
        data[y0 : y0 + max(8, height // 40), x0 : x0 + max(8, width // 40)] = np.nan
