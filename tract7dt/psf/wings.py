"""What the stars cannot say about the wings: an elliptical Moffat, corrected where the stack has signal.

A stack of 30 faint stars carries noise in 3000 wing pixels, and a residual sky of a thousandth of the
peak in each of them would change the unit sum by per cents. So the stamp is a Moffat profile fitted to the
whole stack plus the stack's departure from it, and the departure is kept only as far as it stands out of
the noise: ring averages first, then single pixels (a Wiener factor, its signal variance measured by ring).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

__all__ = ["MoffatProfile", "fit_moffat", "regularise"]

F8 = NDArray[np.float64]

#: Weak prior on the Moffat index: ln(beta - 1) of seeing-limited images, and its width.
LOG_BETA_PRIOR = (math.log(2.3), 0.4)
#: The profile is not a perfect model: share of its value that the fit may miss without penalty.
MODEL_TOLERANCE = 0.01
#: (mean / error)**2 that a ring average must exceed before any of it is believed; noise alone has 1.
EVIDENCE = 4.0
#: Excess of the pixels' scatter in a ring over their noise that chance may make, in sigma of that excess.
CHANCE = 2.0
#: Width of the ring in which single pixels are faded out at the edge of the stamp, pix.
EDGE_FADE = 5.0
#: Ratio of signal to noise, in variance, above which a ring needs no support by its neighbours.
CERTAIN = 5.0
#: Samples a pixel of the finer grid that tells what the pixels resolve of a profile (odd).
FINE = 3
#: Range of ln amplitude, ln alpha, ln(beta - 1), e1, e2.
_BOUNDS = np.array(
    [[-50.0, math.log(0.3), math.log(0.2), -0.6, -0.6], [50.0, math.log(60.0), math.log(20.0), 0.6, 0.6]]
)


@dataclass(frozen=True, slots=True)
class MoffatProfile:
    """``amplitude * (1 + form / alpha**2)**-beta`` with ``form = (1-e1) x**2 + (1+e1) y**2 - 2 e2 x y``.

    Attributes
    ----------
    amplitude : float
        Value at the centre.
    alpha : float
        Core width, pix.
    beta : float
        Index, > 1.
    e1, e2 : float
        Elongation along x (e1 > 0) and along the diagonal (e2 > 0).
    """

    amplitude: float
    alpha: float
    beta: float
    e1: float = 0.0
    e2: float = 0.0

    @classmethod
    def of_width(cls, fwhm: float, beta: float = 3.3) -> MoffatProfile:
        """Round profile of unit total flux and given FWHM, pix."""
        alpha = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))
        return cls((beta - 1) / (math.pi * alpha**2), alpha, beta)

    @property
    def fwhm(self) -> float:
        """Full width at half maximum, geometric mean of the axes, pix."""
        shape = max(1 - self.e1**2 - self.e2**2, 1e-6) ** -0.25
        return 2 * self.alpha * math.sqrt(2 ** (1 / self.beta) - 1) * shape

    @property
    def total(self) -> float:
        """Flux to infinity of the unit amplitude given."""
        shape = max(1 - self.e1**2 - self.e2**2, 1e-6) ** -0.5
        return self.amplitude * math.pi * self.alpha**2 / (self.beta - 1) * shape

    def image(self, x: F8, y: F8) -> F8:
        """Values at offsets ``x``, ``y`` from the centre, pix."""
        form = (1 - self.e1) * x * x + (1 + self.e1) * y * y - 2 * self.e2 * x * y
        return self.amplitude * (1 + form / self.alpha**2) ** -self.beta

    def stamp(self, k: int) -> F8:
        """Values on a (k, k) grid centred on pixel ``k // 2``."""
        x, y = _grid(k)
        return self.image(x, y)

    def with_slopes(self, x: F8, y: F8) -> tuple[F8, F8, F8]:
        """Values at offsets ``x``, ``y``, pix, and how they change with the place of the centre in x and y."""
        base = 1 + ((1 - self.e1) * x * x + (1 + self.e1) * y * y - 2 * self.e2 * x * y) / self.alpha**2
        value = self.amplitude * base**-self.beta
        slope = 2 * self.beta / self.alpha**2 * value / base
        return value, slope * ((1 - self.e1) * x - self.e2 * y), slope * ((1 + self.e1) * y - self.e2 * x)

    def resolved(self, k: int) -> F8:
        """What a (k, k) grid of pixels resolves: the profile up to the Nyquist frequency, at pixel centres.

        That is what stars at all fractions of a pixel have in common; what is finer averages out of their
        stack. A star on a pixel's centre is higher: by 1 % of the peak at FWHM 2.5 pix, by 0.1 % at 3.5.
        """
        middle = k * FINE // 2
        axis = (np.arange(k * FINE) - middle) / FINE
        fine = np.roll(self.image(axis[None, :], axis[:, None]), (-middle, -middle), (0, 1))
        kept = np.rint(fft.fftfreq(k) * k).astype(int)
        coarse = fft.ifft2(fft.fft2(fine)[np.ix_(kept, kept)]).real / FINE**2
        return np.asarray(np.roll(coarse, (k // 2, k // 2), (0, 1)), float)

    def unresolved_size(self, k: int) -> F8:
        """How much of the profile pixels do not resolve, wherever in its pixel a star is, ndarray (k, k)."""
        return np.asarray(ndimage.maximum_filter(np.abs(self.stamp(k) - self.resolved(k)), 3))


def _grid(k: int) -> tuple[F8, F8]:
    axis = np.arange(k, dtype=float) - k // 2
    return np.broadcast_to(axis[None, :], (k, k)), np.broadcast_to(axis[:, None], (k, k))


def fit_moffat(stack: F8, variance: F8, start: MoffatProfile) -> MoffatProfile:
    """Moffat profile of a stack, by weighted least squares with the prior on beta.

    Parameters
    ----------
    stack, variance : ndarray (k, k)
        Pixels with infinite variance are not used.
    start : MoffatProfile
        Where to begin; returned when the fit fails.
    """
    x, y = _grid(stack.shape[0])
    tolerance = MODEL_TOLERANCE * np.maximum(start.image(x, y), 0)
    used = np.isfinite(variance)
    if used.sum() < 12:
        return start
    weight = 1 / np.sqrt(variance[used] + tolerance[used] ** 2)
    x, y, data = x[used], y[used], stack[used]

    vector = np.array(
        [math.log(start.amplitude), math.log(start.alpha), math.log(start.beta - 1), start.e1, start.e2]
    )
    cost, gradient, curvature = _moffat_system(vector, x, y, data, weight)
    damping = 1e-3
    for _ in range(30):
        step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), -gradient)
        trial = np.clip(vector + step, *_BOUNDS)
        new_cost, new_gradient, new_curvature = _moffat_system(trial, x, y, data, weight)
        if new_cost > cost or not math.isfinite(new_cost):
            damping *= 10
            if damping > 1e6:
                break
            continue
        gain, vector, cost = cost - new_cost, trial, new_cost
        gradient, curvature, damping = new_gradient, new_curvature, max(damping / 10, 1e-9)
        if gain < 1e-4:
            break
    return _from_vector(vector)


def _moffat_system(p: F8, x: F8, y: F8, data: F8, weight: F8) -> tuple[float, F8, F8]:
    """Half chi-square of the profile with the prior, its gradient and Gauss-Newton curvature."""
    profile = _from_vector(p)
    form = (1 - profile.e1) * x * x + (1 + profile.e1) * y * y - 2 * profile.e2 * x * y
    base = 1 + form / profile.alpha**2
    value = profile.amplitude * base**-profile.beta * weight
    slope = -profile.beta * value / base / profile.alpha**2
    columns = np.empty((5, len(x)))
    columns[0] = value
    columns[1] = -2 * form * slope
    columns[2] = -value * np.log(base) * (profile.beta - 1)
    columns[3] = slope * (y * y - x * x)
    columns[4] = -2 * slope * x * y
    residual = value - data * weight
    prior = (p[2] - LOG_BETA_PRIOR[0]) / LOG_BETA_PRIOR[1]
    gradient, curvature = columns @ residual, columns @ columns.T
    gradient[2] += prior / LOG_BETA_PRIOR[1]
    curvature[2, 2] += LOG_BETA_PRIOR[1] ** -2
    return 0.5 * float(residual @ residual + prior**2), gradient, curvature


def _from_vector(p: F8) -> MoffatProfile:
    return MoffatProfile(math.exp(p[0]), math.exp(p[1]), 1 + math.exp(p[2]), float(p[3]), float(p[4]))


def regularise(stack: F8, variance: F8, model: F8, taper: tuple[float, float], edge: float) -> F8:
    """The stack where it has signal, the model where it has none.

    Parameters
    ----------
    stack, variance : ndarray (k, k)
        Weighted mean of the stars and its variance (infinite where no star has a pixel).
    model : ndarray (k, k)
        Its profile, as far as pixels resolve it.
    taper : (inner, outer)
        Radii between which ring averages are faded out: there the local sky is measured, so that the
        stack holds no information about a level, pix.
    edge : float
        Radius at which any departure from the model ends, pix: the stamp meets its tail there.

    Returns
    -------
    ndarray (k, k)
    """
    k = stack.shape[0]
    x, y = _grid(k)
    radius = np.hypot(x, y)
    known = np.isfinite(variance)
    noise = np.where(known, variance, 1.0)
    excess = np.where(known, stack - model, 0.0)
    ring = np.rint(radius).astype(int)
    n_rings = ring.max() + 1

    inverse = np.where(known, 1 / noise, 0.0)
    precision = np.bincount(ring.ravel(), inverse.ravel(), n_rings)
    mean = np.bincount(ring.ravel(), (inverse * excess).ravel(), n_rings) / np.maximum(precision, 1e-300)
    error = 1 / np.maximum(precision, 1e-300)
    signal = _along_rings(mean**2 / error - EVIDENCE, 1.5)
    keep = signal / (signal + 1)
    rings = np.arange(n_rings)
    inner, outer = taper
    fade = np.clip((outer - rings) / max(outer - inner, 1e-6), 0, 1)
    level = np.interp(radius, rings, mean * keep * fade)

    rest = excess - np.interp(radius, rings, mean)
    count = np.maximum(np.bincount(ring.ravel(), known.ravel(), n_rings), 1)
    power = np.bincount(ring.ravel(), np.where(known, rest**2 - noise, 0.0).ravel(), n_rings) / count
    typical = np.bincount(ring.ravel(), np.where(known, noise, 0.0).ravel(), n_rings) / count
    typical = np.where(typical > 0, typical, 1.0)
    # what chance makes of the noise of so many pixels is no signal
    believed = power / typical - CHANCE * np.sqrt(2 / count)
    wiener = np.interp(radius, rings, _along_rings(believed, 1.0) * typical)
    rest *= wiener / (wiener + noise) * known * np.clip((edge - radius) / EDGE_FADE, 0, 1)
    return model + level + rest


def _along_rings(ratio: F8, width: float) -> F8:
    """Signal over noise by ring, smoothed where it is doubtful: a core's must not leak into the wings."""
    smooth = ndimage.gaussian_filter1d(np.minimum(ratio, CERTAIN), width, mode="nearest")
    return np.where(ratio >= CERTAIN, ratio, np.clip(smooth, 0, None))
