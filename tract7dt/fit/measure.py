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


@kernel
def profile_sums_of_bands(
    buffer: Any,
    offset: Any,
    box: Any,
    live: Any,
    flux: Any,
    sky: Any,
    data: Any,
    sqrt_w: Any,
    residual: Any,
    variance: Any,
    out: Any,
) -> None:
    """:func:`profile_sums` of every live source in every band, into ``out`` float64 (nband, S, 5)."""
    for b in range(live.shape[0]):
        for s in range(live.shape[1]):
            if live[b, s]:
                profile_sums(
                    buffer[b, offset[s] :],
                    box[s],
                    flux[b, s],
                    sky[b],
                    data[b],
                    sqrt_w[b],
                    residual[b],
                    variance[b],
                    out[b, s],
                )


@kernel
def light_on_good_pixels(
    buffer: Any, offset: Any, box: Any, live: Any, sqrt_w: Any, light: Any, power: Any
) -> None:
    """What of a unit-flux model lies on used pixels.

    Parameters
    ----------
    buffer : ndarray, float32 (nband, ...)
    offset, box
        Where the whitened models are (:mod:`tract7dt.fit.gram`).
    live : ndarray, bool (nband, S)
    sqrt_w : ndarray, float32 (nband, ny, nx)
    light, power : ndarray, float64 (nband, S)
        Filled for live sources: sum of the model, and of its square times the weight.
    """
    for b in range(live.shape[0]):
        for s in range(live.shape[1]):
            if not live[b, s]:
                continue
            x0, x1, y0 = box[s, 0], box[s, 1], box[s, 2]
            w = x1 - x0
            total, square = 0.0, 0.0
            for y in range(box[s, 3] - y0):
                start = offset[s] + y * w
                p, q = buffer[b, start : start + w], sqrt_w[b, y0 + y, x0:x1]
                for x in range(w):
                    if q[x] > 0:
                        total += p[x] / q[x]
                        square += p[x] * p[x]
            light[b, s], power[b, s] = total, square


def measure(evaluator: Evaluator, point: Point, variance: F4) -> tuple[F8, F8, F8]:
    """Profile-weighted quality numbers of every source and band.

    Parameters
    ----------
    evaluator, point
        The maximum.
    variance : ndarray, float32 (nband, ny, nx)
        True variance of the pixels times their weight (:meth:`tract7dt.fit.scene.Scene.relative_variance`).

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
    scene, live, layout = evaluator.scene, evaluator.live, evaluator.layout
    assert layout is not None
    sums = np.zeros((*live.shape, 5))

    def measure_bands(start: int, stop: int) -> None:
        for part, images in evaluator.drawn(point, start, stop):
            profile_sums_of_bands(
                images,
                point.stamps.offset,
                point.stamps.box,
                live[part],
                point.flux[part],
                point.sky[part],
                scene.data[part],
                scene.sqrt_w[part],
                point.residuals[part],
                variance[part],
                sums[part],
            )

    evaluator.team.share(measure_bands, scene.n_bands)
    total, square, others, own, cube = (sums[..., i] for i in range(5))
    taken = 1 + (layout.n_images - 1) / np.maximum(live.sum(axis=0), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.maximum(total - taken * cube, 0.1 * total)
        chi2 = np.where(live & (total > 0), square / expected, np.nan)
        light = others + own
        shared = np.where(light > 0, others / light, 0.0)
    masked = np.where(live, np.clip(1 - total, 0.0, 1.0), np.nan)
    return chi2, masked, np.where(live, shared, np.nan)
