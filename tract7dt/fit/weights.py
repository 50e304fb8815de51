"""Weights of the likelihood: 1 / sigma**2 of every pixel, 0 where it is not used."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tract7dt.errors import ConfigError, PatchError


def weights(
    data: NDArray[np.float32],
    bad: NDArray[np.uint8],
    sky_sigma: NDArray[np.float64],
    gain: NDArray[np.float64],
    noise_model: Literal["sky", "total"] | str,
) -> NDArray[np.float32]:
    """Inverse variance of the pixels of a patch.

    Parameters
    ----------
    data : ndarray, float32 (nband, ny, nx)
        Scaled counts; NaN is allowed.
    bad : ndarray, uint8 (nband, ny, nx)
        0 where a pixel may be used.
    sky_sigma : ndarray, float64 (nband,)
        Sky noise per pixel, scaled counts.
    gain : ndarray, float64 (nband,)
        Electrons per scaled count.
    noise_model : {"sky", "total"}
        ``sky``: ``sky_sigma**2``. ``total``: plus the photon noise ``max(data, 0) / gain``.

    Returns
    -------
    ndarray, float32 (nband, ny, nx)

    Raises
    ------
    ConfigError
        Unknown ``noise_model``.
    PatchError
        A sky sigma (or, for ``total``, a gain) is not a positive number, or shapes differ.
    """
    if noise_model not in ("sky", "total"):
        raise ConfigError(f"patch_run.noise_model: expected 'sky' or 'total', found {noise_model!r}")
    data = np.asarray(data, dtype=np.float32)
    if data.ndim != 3 or np.shape(bad) != data.shape:
        raise PatchError(f"weights: data {data.shape} and mask {np.shape(bad)} must both be (nband, ny, nx)")
    sigma = np.asarray(sky_sigma, dtype=np.float64)
    gain = np.asarray(gain, dtype=np.float64)
    wrong = [f"sky_sigma[{i}] = {v}" for i, v in enumerate(sigma) if not (np.isfinite(v) and v > 0)]
    if noise_model == "total":
        wrong += [f"gain[{i}] = {v}" for i, v in enumerate(gain) if not (np.isfinite(v) and v > 0)]
    if wrong or sigma.shape != data.shape[:1] or gain.shape != data.shape[:1]:
        raise PatchError(
            f"weights: one positive sky_sigma and gain per band expected, found {', '.join(wrong)}"
        )
    good = (np.asarray(bad) == 0) & np.isfinite(data)
    variance: NDArray[np.float32] = np.full(data.shape, (sigma**2).astype(np.float32)[:, None, None])
    if noise_model == "total":
        signal = np.where(good, np.maximum(data, 0), 0)
        variance += signal / gain.astype(np.float32)[:, None, None]
    return np.where(good, 1 / variance, 0).astype(np.float32)
