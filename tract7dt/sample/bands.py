"""The medium bands of the telescope: how deep they go, and what the sky does to each in a simulated field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tract7dt.errors import SampleError
from tract7dt.sample.options import BAND_NAMES, PIXEL_SCALE_ARCSEC, ZP_REF, SampleOptions, random_stream

__all__ = ["BandTruth", "choose_bands", "draw_band", "limiting_magnitude"]

# What single exposures of the telescope reach: wavelength (nm), 5-sigma depth (mag AB), zero point (mag AB).
_MEASURED = np.array(
    [
        (400, 18.7, 25.7),
        (450, 19.3, 26.7),
        (500, 19.2, 26.7),
        (550, 18.7, 26.6),
        (600, 18.7, 26.4),
        (650, 18.5, 26.0),
        (700, 18.3, 25.6),
        (750, 17.7, 25.0),
        (800, 17.0, 24.5),
        (850, 16.4, 23.7),
        (875, 16.0, 23.4),
    ]
)


@dataclass(frozen=True, slots=True)
class BandTruth:
    """One band of a simulated field: calibration, noise, PSF and defects.

    Attributes
    ----------
    band : str
    wave : float
        Central wavelength, nm.
    zp_true, zp_auto, zp_expect : float
        Zero point of the image, the one that its header claims, and the one that a fit on the common
        scale should find, ``zp_ref + zp_true - zp_auto``; mag AB.
    depth : float
        Magnitude of a point source of S/N 5 (sky noise only, optimal weights), mag AB.
    fwhm_px, beta : float
        Moffat PSF at the field centre (FWHM before the shear), pix.
    skysig : float
        Sky noise, ADU.
    egain : float
        e-/ADU of the stack.
    saturate : float
        ADU.
    fx, fy, fr : float
        Fractional FWHM change from centre to edge: along x, along y, and as a bowl.
    g1, g2, g1x, g2y : float
        Shear of the PSF at the centre, and its change towards the edge.
    sky0, skyx, skyy : float
        Left-over sky plane, ADU: at the centre, and its change to the edge along x and y.
    nan_column, nan_box, trail : bool
        Defects of this band.
    """

    band: str
    wave: float
    zp_true: float
    zp_auto: float
    zp_expect: float
    depth: float
    fwhm_px: float
    beta: float
    skysig: float
    egain: float
    saturate: float
    fx: float
    fy: float
    fr: float
    g1: float
    g2: float
    g1x: float
    g2y: float
    sky0: float
    skyx: float
    skyy: float
    nan_column: bool
    nan_box: bool
    trail: bool


def choose_bands(bands: int | Sequence[str]) -> list[str]:
    """Names of the bands: so many, spread evenly over the range, or those that are named.

    Raises
    ------
    SampleError
        If there is no such band, or one is named twice.
    """
    if isinstance(bands, int):
        if not 1 <= bands <= len(BAND_NAMES):
            raise SampleError(f"bands: {bands} given; there are 1 to {len(BAND_NAMES)}")
        chosen = np.linspace(0, len(BAND_NAMES) - 1, bands).round().astype(int)
        return [BAND_NAMES[i] for i in chosen]
    unknown = [name for name in bands if name not in BAND_NAMES]
    if unknown or not bands or len(set(bands)) < len(bands):
        raise SampleError(f"bands: {list(bands)} given; name each once, of {', '.join(BAND_NAMES)}")
    return list(bands)


def limiting_magnitude(wave: float, exposures: int) -> float:
    """5-sigma depth of a stack, mag AB: it gains 1.25 log10 of the number of exposures."""
    return float(np.interp(wave, _MEASURED[:, 0], _MEASURED[:, 1]) + 1.25 * np.log10(exposures))


def draw_band(band: str, place: int, n_bands: int, options: SampleOptions) -> BandTruth:
    """Draw one band's truth; it depends on the seed and the band, not on which others there are.

    Parameters
    ----------
    band : str
    place, n_bands : int
        Which of how many bands it is: the defects are spread over the first, middle and last.
    options : SampleOptions
    """
    rng = random_stream(options.seed, "band", band)
    wave = float(band[1:])
    zp_true = float(np.interp(wave, _MEASURED[:, 0], _MEASURED[:, 2])) + rng.normal(0, 0.05)
    zp_auto = zp_true + rng.choice([-1, 1]) * rng.uniform(0.01, 0.06)
    zp_true, zp_auto = round(zp_true, 4), round(zp_auto, 4)
    fwhm_px = round(rng.uniform(1.2, 2.5) / PIXEL_SCALE_ARCSEC, 3)
    beta = round(rng.uniform(3.0, 3.8), 2)
    depth = limiting_magnitude(wave, options.exposures)
    skysig = sky_noise(depth, zp_true, fwhm_px, beta)
    variation = options.psf_variation
    fx, fy = rng.normal(0, 0.5 * variation, 2)
    fr = rng.uniform(0.3, 1.0) * variation
    shears = rng.normal(0, 0.012, 4)
    sky = rng.normal(0, options.sky_residual, 3) * skysig
    return BandTruth(
        band=band,
        wave=wave,
        zp_true=zp_true,
        zp_auto=zp_auto,
        zp_expect=round(ZP_REF + zp_true - zp_auto, 4),
        depth=depth,
        fwhm_px=fwhm_px,
        beta=beta,
        skysig=skysig,
        egain=round(rng.uniform(0.7, 0.9) * options.exposures, 3),
        saturate=round(rng.uniform(52000, 60000)),
        fx=fx,
        fy=fy,
        fr=fr,
        g1=shears[0],
        g2=shears[1],
        g1x=shears[2],
        g2y=shears[3],
        sky0=sky[0],
        skyx=sky[1],
        skyy=sky[2],
        nan_column=options.nan_regions and place == 0,
        nan_box=options.nan_regions and place == n_bands // 2,
        trail=options.trail and place == n_bands - 1,
    )


def sky_noise(depth: float, zp: float, fwhm_px: float, beta: float) -> float:
    """Sky noise per pixel (ADU) at which a point source of magnitude ``depth`` has S/N 5.

    With weights like the PSF p the variance of a flux is sigma**2 / sum(p**2), and for a Moffat
    sum(p**2) = (beta - 1)**2 / (pi alpha**2 (2 beta - 1)).
    """
    alpha = fwhm_px / (2 * np.sqrt(2 ** (1 / beta) - 1))
    noise_pixels = np.pi * alpha**2 * (2 * beta - 1) / (beta - 1) ** 2
    return float(10 ** (-0.4 * (depth - zp)) / (5 * np.sqrt(noise_pixels)))
