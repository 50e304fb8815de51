"""Numbers that say how far a source's fit can be trusted: chi-square, masked share, neighbours' share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit._jit import kernel
from tract7dt.fit.evaluate import Evaluator, Point

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]


@kernel
def profile_sums(
    model: Any,
    box: Any,
    flux: float,
    sky: float,
    data: Any,
    sqrt_w: Any,
    residual: Any,
    variance: Any,
    out: Any,
) -> None:
    """Sums over the used pixels of a source's box, weighted by its profile T (negative values count as 0).

    Parameters
    ----------
    model : ndarray, float32 (h * w,)
        Whitened unit-flux model.
    box : ndarray, int64 (4,)
    flux, sky : float
    data, sqrt_w, residual, variance : ndarray, float32 (ny, nx)
        Whitened data, sqrt(weight), whitened residual, true variance times weight.
    out : ndarray, float64 (5,)
        Filled: sums of T, of T r**2 / variance, of T times the neighbours' model, of T times the own model, and of
        w T**3 over that of w T**2.
    """
    x0, x1, y0, y1 = box
    total, chi2, others, own, cube, square = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for y in range(y0, y1):
        for x in range(x0, x1):
            q = sqrt_w[y, x]
            if q > 0:
                t = max(model[(y - y0) * (x1 - x0) + x - x0] / q, np.float32(0))
                mine = max(flux * t, 0.0)
                everything = (data[y, x] - residual[y, x]) / q - sky
                total += t
                chi2 += t * residual[y, x] ** 2 / variance[y, x]
                others += t * max(everything - flux * t, 0.0)
                own += t * mine
                square += (q * t) ** 2
                cube += t * (q * t) ** 2
    out[0], out[1], out[2], out[3] = total, chi2, others, own
    out[4] = cube / square if square > 0 else 0.0


def measure(evaluator: Evaluator, point: Point, variance: F4) -> tuple[F8, F8, F8]:
    """Profile-weighted quality numbers of every source and band.

    Parameters
    ----------
    evaluator, point
        The maximum.
    variance : ndarray, float32 (nband, ny, nx)
        True variance of the pixels times their weight (:func:`tract7dt.fit.errors.relative_variance`).

    Returns
    -------
    chi2 : ndarray, float64 (nband, S)
        ``sum T r**2 / sigma**2 / sum T (1 - h)`` over used pixels, sigma with the photon noise: 1 for a perfect
        model. The fit itself takes part of the noise out of a source's pixels: ``h = p w T**2 / sum w T**2``
        for the flux (p = 1), and as much again for each shared parameter, divided by the bands that share it.
    frac_masked : ndarray, float64 (nband, S)
        ``1 - sum T`` over used pixels: light on masked pixels or off the patch.
    frac_flux : ndarray, float64 (nband, S)
        ``sum T m_others / sum T (m_others + m_own)``, both models counted where positive.

    NaN where a source has no pixels.
    """
    scene = evaluator.scene
    chi2, masked, shared = (np.full((scene.n_bands, evaluator.n), np.nan) for _ in range(3))
    sums = np.empty(5)
    assert evaluator.layout is not None
    taken = 1 + (evaluator.layout.n_images - 1) / np.maximum(evaluator.live.sum(axis=0), 1)
    for b, s in zip(*np.nonzero(evaluator.live)):
        model = evaluator.images(point, int(b), int(s))[0].reshape(-1)
        profile_sums(
            model,
            point.stamps.box[s],
            point.flux[b, s],
            point.sky[b],
            scene.data[b],
            scene.sqrt_w[b],
            point.residuals[b],
            variance[b],
            sums,
        )
        masked[b, s] = min(max(1 - sums[0], 0.0), 1.0)
        if sums[0] > 0:
            chi2[b, s] = sums[1] / max(sums[0] - taken[s] * sums[4], 0.1 * sums[0])
        light = sums[2] + sums[3]
        shared[b, s] = sums[2] / light if light > 0 else 0.0
    return chi2, masked, shared
