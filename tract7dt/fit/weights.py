"""Weights of the likelihood: 1 / sigma**2 of every pixel, 0 where it is not used; and what the noise truly is."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tract7dt.errors import ConfigError, PatchError
from tract7dt.fit._jit import kernel

# Relative accuracy to which a weight is recognised as that of a noise model.
_SAME = 1e-4
# Bits of the exponent of a float32.
_EXPONENT = 0x7F800000
# Pixels of a band that tell its typical weight well enough to size stamps; an odd step visits all columns in turn.
_ENOUGH = 5000


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
    n_bands, counts = data.shape[:1], (sigma.shape, gain.shape)
    wrong += [f"{n} of shape {c}" for n, c in zip(("sky_sigma", "gain"), counts) if c != n_bands]
    if wrong:
        raise PatchError(
            f"weights: one positive sky_sigma and gain per band expected, found {', '.join(wrong)}"
        )
    found = np.empty(data.shape, np.float32)
    for b, pixels in enumerate(data):
        good = (np.asarray(bad[b]) == 0) & np.isfinite(pixels)
        variance: NDArray[np.float32] = np.full(pixels.shape, np.float32(sigma[b] ** 2))
        if noise_model == "total":
            variance += np.where(good, np.maximum(pixels, 0), 0) / np.float32(gain[b])
        found[b] = np.where(good, 1 / variance, 0)
    return found


@kernel
def whiten_pixels(data: Any, weight: Any, whitened: Any, sqrt_w: Any) -> Any:
    """Pixels of one band times sqrt(weight), and sqrt(weight); 0 where the weight or the pixel is no use.

    Parameters
    ----------
    data, weight : ndarray, float32 (ny, nx)
        NaN and infinity are allowed in both.
    whitened, sqrt_w : ndarray, float32 (ny, nx)
        Filled.

    Returns
    -------
    weight_sum, data_sum : float
        Sums of weight, and of weight times data, over the pixels that are used.
    """
    zero = np.float32(0)
    bits, weight_bits = data.view(np.int32), weight.view(np.int32)
    weight_sum, data_sum = 0.0, 0.0
    for y in range(data.shape[0]):
        by_weight, by_data = 0.0, 0.0
        for x in range(data.shape[1]):
            # the exponent of what is not finite has all bits set; fast arithmetic assumes that there is none
            finite = (bits[y, x] & _EXPONENT) != _EXPONENT and (weight_bits[y, x] & _EXPONENT) != _EXPONENT
            good = finite and weight_bits[y, x] > 0
            root = np.sqrt(weight[y, x]) if good else zero
            value = data[y, x] * root if good else zero
            sqrt_w[y, x], whitened[y, x] = root, value
            by_weight += float(root) * float(root)
            by_data += float(root) * float(value)
        weight_sum += by_weight
        data_sum += by_data
    return weight_sum, data_sum


@kernel
def typical_value(values: Any) -> float:
    """Median of the positive of some values, of every few where there are very many; 0 without any.

    ``values`` float32 (n,).
    """
    step = max(1, values.shape[0] // _ENOUGH)
    some = values[::step]
    positive = some[some > 0]
    if positive.shape[0] == 0:
        positive = values[values > 0]
    return np.median(positive) if positive.shape[0] else 0.0


@kernel
def relative_variance(
    data: Any, sqrt_w: Any, residual: Any, sky: Any, sky_sigma: Any, gain: Any, out: Any
) -> None:
    """True variance of the pixels at the maximum times their weight; 1 where a pixel is not used.

    The variance is ``sky_sigma**2 + max(model, 0) / gain``, the photon noise that of the model without sky, or
    ``1 / weight`` if that is more: somebody who knew more lowered the weight. The weights of ``noise_model:
    total`` scatter around the former with the noise of the data, and are not taken for that.

    Parameters
    ----------
    data, sqrt_w, residual : ndarray, float32 (nband, ny, nx)
        Whitened data, sqrt(weight), whitened residual.
    sky, sky_sigma, gain : ndarray, float64 (nband,)
        Fitted sky, its noise, electrons per scaled count.
    out : ndarray, float32 (nband, ny, nx)
        Filled.
    """
    n_bands, ny, nx = data.shape
    for b in range(n_bands):
        noise = np.float32(sky_sigma[b] ** 2)
        level, photon = np.float32(sky[b]), np.float32(1 / gain[b])
        zero, one, same = np.float32(0), np.float32(1), np.float32(_SAME)
        for y in range(ny):
            for x in range(nx):
                q, d = sqrt_w[b, y, x], data[b, y, x]
                signal = max(d - residual[b, y, x] - level * q, zero)
                true = q * q * noise + q * signal * photon
                total = q * q * noise + q * max(d, zero) * photon
                if q == 0:
                    true = one
                elif abs(total - one) > same:
                    true = max(true, one)
                out[b, y, x] = true
