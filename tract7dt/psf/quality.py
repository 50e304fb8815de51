"""How good a stamp is: shape, encircled energy, and what the stars themselves say about its error."""

from __future__ import annotations

from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray

from tract7dt.psf.cutouts import StarStamps, fit_radius
from tract7dt.psf.moments import windowed_covariance
from tract7dt.psf.stack import Stack

__all__ = ["growth_curve", "measure_quality", "stamp_shape"]

F8 = NDArray[np.float64]

ENCIRCLED = (0.5, 0.8, 0.9, 0.95)
#: Stars that count for the comparison of aperture and PSF flux.
MIN_SNR_APERTURE = 30.0


def growth_curve(stamp: F8, radii: F8) -> F8:
    """Flux of a stamp within circles about its centre pixel.

    Parameters
    ----------
    stamp : ndarray (k, k)
    radii : ndarray (n,)
        Pix; pixels are cut exactly by the circle.

    Returns
    -------
    ndarray (n,)
    """
    half = stamp.shape[0] // 2
    centre = np.full(len(radii), float(half))
    data = np.ascontiguousarray(stamp, dtype=np.float64)
    return np.asarray(sep.sum_circle(data, centre, centre, np.asarray(radii, float), subpix=0)[0], float)


def stamp_shape(stamp: F8) -> dict[str, float]:
    """FWHM, ellipticity, position angle and encircled-energy radii of a unit-sum stamp.

    Returns
    -------
    dict
        ``fwhm_pix`` (diameter of the circle with the area above half of the peak, on a 10 times finer
        grid), ``ellipticity`` (1 - b/a, moments under a matched Gaussian window), ``theta_deg``
        (counter-clockwise from +x), ``ee50_pix`` ... ``ee95_pix``, ``peak``.
    """
    half = stamp.shape[0] // 2
    radii = np.arange(0.25, half + 0.26, 0.25)
    curve = np.maximum.accumulate(growth_curve(stamp, radii))
    shape = {
        f"ee{round(100 * share)}_pix": float(np.interp(share, np.append(0, curve), np.append(0, radii)))
        for share in ENCIRCLED
    }
    cov = windowed_covariance(stamp)
    major, minor = np.sort(np.linalg.eigvalsh(cov))[::-1]
    shape["ellipticity"] = float(1 - np.sqrt(max(minor, 1e-6) / max(major, 1e-6)))
    shape["theta_deg"] = float(np.degrees(0.5 * np.arctan2(2 * cov[0, 1], cov[0, 0] - cov[1, 1])))
    shape["fwhm_pix"] = _fwhm(stamp)
    shape["peak"] = float(stamp.max())
    return shape


def _fwhm(stamp: F8) -> float:
    """Diameter of the circle of the area above half of the maximum, band-limited interpolation, pix."""
    k = stamp.shape[0]
    half = k // 2
    reach = min(half, 15)
    core = stamp[half - reach : half + reach + 1, half - reach : half + reach + 1]
    n, fine = core.shape[0], 11
    transform = np.fft.fftshift(np.fft.fft2(core))
    padded = np.zeros((n * fine, n * fine), complex)
    lo = n * fine // 2 - n // 2
    padded[lo : lo + n, lo : lo + n] = transform
    image = np.fft.ifft2(np.fft.ifftshift(padded)).real * fine**2
    area = float((image > image.max() / 2).sum()) / fine**2
    return 2 * float(np.sqrt(area / np.pi))


def measure_quality(stack: Stack, stars: StarStamps, stamp: F8) -> dict[str, Any]:
    """Plain numbers for meta.json.

    Parameters
    ----------
    stack : Stack
    stars : StarStamps
        What it was made of.
    stamp : ndarray (k, k)
        Final unit-sum stamp.

    Returns
    -------
    dict
        Shape (:func:`stamp_shape`); ``chi_median`` (residual over photon and sky noise within the fit
        radius, 1 for a perfect stamp); ``residual_scatter`` (robust sigma of residual over peak of the
        model within half the fit radius, bright stars); ``size_scatter`` (robust sigma of the stars' relative
        size); ``aperture_bias``, ``aperture_bias_err`` (median of aperture flux over PSF flux, both brought
        to total by this stamp, minus 1, and its error); ``relative_error`` (one sigma of the
        stamp's effect on a PSF flux: 1 / S with S the stars' joint signal-to-noise, capped at 1 / mismatch a
        star; simulations find 0.5 to 1.2 times that); ``moffat_beta``; ``x_mean``, ``y_mean`` (where in the
        frame the stamp holds: mean place of its stars by weight, pix); ``iterations``, ``converged``,
        ``start``.
    """
    used = stack.used
    quality: dict[str, Any] = dict(stamp_shape(stamp))
    noise_flux = np.sqrt(stars.noise**2 / np.sum(stamp**2) + np.maximum(stack.flux, 0) / stars.gain)
    snr = stack.flux / noise_flux
    bias, bias_err = _aperture_bias(stack, stars, stamp, quality["fwhm_pix"], used & (snr > MIN_SNR_APERTURE))
    size = stack.size_excess[used]
    size_scatter = 1.4826 * float(np.median(np.abs(size - np.median(size)))) if used.sum() > 2 else np.nan
    capped = snr[used] ** 2 / (1 + (stack.mismatch * snr[used]) ** 2)
    statistical = 1.0 / float(np.sqrt(capped.sum()))
    quality |= {
        "chi_median": float(np.median(stack.chi[used])),
        "residual_scatter": _residual_scatter(stack, stars, quality["fwhm_pix"]),
        "size_scatter": size_scatter,
        "aperture_bias": bias,
        "aperture_bias_err": bias_err,
        "relative_error": statistical,
        "moffat_beta": stack.profile.beta,
        "fine_share": stack.fine_share,
        "mismatch": stack.mismatch,
        "snr_total": float(np.sqrt(np.sum(snr[used] ** 2))),
        "snr_median": float(np.median(snr[used])),
        "x_mean": float(np.average((stars.x + stack.dx)[used], weights=capped)),
        "y_mean": float(np.average((stars.y + stack.dy)[used], weights=capped)),
        "iterations": stack.iterations,
        "converged": stack.converged,
        "start": stack.start,
    }
    return quality


def _residual(stack: Stack, stars: StarStamps) -> F8:
    return np.where(stars.good, stars.data - stack.sky[:, None, None] - stack.model, 0.0)


def _residual_scatter(stack: Stack, stars: StarStamps, fwhm: float) -> float:
    half = stars.k // 2
    axis = np.arange(-half, half + 1)
    core = np.hypot(axis[:, None], axis[None, :]) <= 0.5 * fit_radius(fwhm)
    bright = np.flatnonzero(stack.used)[np.argsort(-stack.flux[stack.used])[:10]]
    relative = (_residual(stack, stars)[bright] / stack.model[bright].max((1, 2))[:, None, None])[:, core]
    return 1.4826 * float(np.median(np.abs(relative - np.median(relative))))


def _aperture_bias(
    stack: Stack, stars: StarStamps, stamp: F8, fwhm: float, use: NDArray[np.bool_]
) -> tuple[float, float]:
    """Median and error of (aperture flux / PSF flux) - 1: what is left within 2.5 FWHM, over flux."""
    half = stars.k // 2
    axis = np.arange(-half, half + 1)
    within = np.hypot(axis[:, None], axis[None, :]) <= min(2.5 * fwhm, half)
    if not use.any():
        return float("nan"), float("nan")
    left = _residual(stack, stars)[use][:, within].sum(1) / stack.flux[use]
    scatter = 1.4826 * np.median(np.abs(left - np.median(left))) if use.sum() > 2 else np.std(left)
    return float(np.median(left)), float(1.2533 * scatter / np.sqrt(use.sum()))
