"""Robust statistics of few values: clipping, weighted median and its error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["clip_mad", "excess_scatter", "mad", "median_error", "weighted_median"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Standard deviation of a Gaussian over its median absolute deviation.
SIGMA_PER_MAD = 1.4826

#: What makes the scaled MAD of 2 to 9 Gaussian values unbiased (Croux and Rousseeuw 1992, Computational
#: Statistics 1, 411). Without it, three to nine good stars lose one far too often.
SMALL_SAMPLE = (1.196, 1.495, 1.363, 1.206, 1.200, 1.140, 1.129, 1.107)

#: A MAD below this is rounding, not scatter.
ROUNDING = 1e-10


def mad(values: F8, centre: float) -> float:
    """Median absolute deviation from ``centre``, unscaled."""
    return float(np.median(np.abs(values - centre)))


def clip_mad(values: F8, clip_sigma: float, max_iters: int, errors: F8 | None = None) -> Bool:
    """Which values are within ``clip_sigma`` robust sigma of the median of the kept ones.

    Each round takes median and MAD of the values kept so far and judges all values anew:
    ``|v - median| <= clip_sigma * 1.4826 * MAD``. For fewer than ten kept values the MAD, which is then
    biased low, is multiplied by its small-sample factor. A value within ``clip_sigma`` of its own error is no
    outlier, however close the others happen to lie together: of nine good stars, four that agreed by chance
    to a millimagnitude threw out the other five. Rounds end when nothing changes, the MAD is 0 or
    fewer than three values remain.

    Parameters
    ----------
    values : ndarray, float64 (n,)
        Finite.
    clip_sigma : float
    max_iters : int
        Most rounds.
    errors : ndarray, float64 (n,), optional
        One sigma of the values; NaN where it is not known.

    Returns
    -------
    ndarray, bool (n,)
    """
    keep = np.ones(len(values), dtype=bool)
    for _ in range(max_iters):
        n = int(keep.sum())
        if n < 3:
            break
        centre = float(np.median(values[keep]))
        scatter = SIGMA_PER_MAD * mad(values[keep], centre)
        if scatter <= SIGMA_PER_MAD * ROUNDING:
            break
        sigma = np.full(len(values), _small_sample(n) * scatter)
        now = np.abs(values - centre) <= clip_sigma * (sigma if errors is None else np.fmax(sigma, errors))
        if np.array_equal(now, keep) or not now.any():
            break
        keep = now
    return keep


def excess_scatter(values: F8, errors: F8) -> float:
    """Scatter that the formal errors do not account for.

    The s for which ``sum((v - m)**2 / (e**2 + s**2)) = n - 1``, with m the mean weighted by the same variances
    (Paule and Mandel 1982, J. Res. Natl. Bur. Stand. 87, 377); 0 where the errors account for all of it.

    Parameters
    ----------
    values, errors : ndarray, float64 (n,)
        Errors positive.

    Returns
    -------
    float
        0 for fewer than three values.
    """
    n = len(values)
    if n < 3:
        return 0.0

    def excess(s: float) -> float:
        weights = 1.0 / (errors**2 + s**2)
        mean = np.sum(weights * values) / np.sum(weights)
        return float(np.sum(weights * (values - mean) ** 2) - (n - 1))

    low, high = 0.0, float(np.ptp(values)) + ROUNDING
    if excess(low) <= 0.0:
        return 0.0
    while high - low > 1e-6 * high:  # excess falls with s, and at high is below zero
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0.0 else (low, middle)
    return high


def weighted_median(values: F8, weights: F8) -> float:
    """The value with half of the weight on either side.

    Where the weight up to a value is exactly half of all, the result is the middle between it and the next
    one, so that equal weights give the ordinary median.

    Parameters
    ----------
    values, weights : ndarray, float64 (n,)
        n >= 1; weights positive.
    """
    order = np.argsort(values, kind="stable")
    ordered, sums = values[order], np.cumsum(weights[order])
    half = 0.5 * sums[-1]
    rounding = 1e-12 * sums[-1]  # of a sum of equal weights
    first = int(np.searchsorted(sums, half - rounding))
    if first + 1 < len(ordered) and abs(sums[first] - half) <= rounding:
        return float(0.5 * (ordered[first] + ordered[first + 1]))
    return float(ordered[first])


def median_error(values: F8, weights: F8, centre: float) -> float:
    """Standard error of a weighted median, from the scatter of the values.

    The weighted median solves sum(w_i sign(v_i - m)) = 0. The asymptotic variance of such an estimate is
    sum(w_i**2) / (2 f sum(w_i))**2 with f the density of the values at the median (Huber and Ronchetti 2009,
    Robust Statistics, section 3.2, for weighted terms); a Gaussian has f = 1 / (sqrt(2 pi) sigma), hence

        err = sqrt(pi / 2) sigma / sqrt(n_eff),    n_eff = sum(w_i)**2 / sum(w_i**2),

    with sigma the scaled MAD about the median, corrected for few values. One sigma for all is right where
    stars scatter by more than their formal errors; where the formal errors are all there is, the error comes
    out too large (by up to 3 for weights that differ a thousandfold), never too small.

    Parameters
    ----------
    values, weights : ndarray, float64 (n,)
    centre : float
        The weighted median.

    Returns
    -------
    float
        NaN for fewer than two values.
    """
    if len(values) < 2:
        return float("nan")
    n_eff = np.sum(weights) ** 2 / np.sum(weights**2)
    sigma = _small_sample(len(values)) * SIGMA_PER_MAD * mad(values, centre)
    return float(np.sqrt(0.5 * np.pi / n_eff) * sigma)


def _small_sample(n: int) -> float:
    """Factor on the scaled MAD of ``n >= 2`` values."""
    return SMALL_SAMPLE[n - 2] if n < 10 else 1.0
