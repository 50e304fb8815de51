"""The stamp that fits all stars best: least squares in the stars' own pixels, from photutils' start.

The stamp moves to the stars, never the reverse: model = flux * shift(stamp) + sky in each star's own pixels,
and what is left over is shifted back and added to the stamp until nothing is left over on average. An error
of the shift then costs an iteration, not a bias.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tract7dt.psf.cutouts import StarStamps, fit_radius, local_sky
from tract7dt.psf.fine_light import FineLight
from tract7dt.psf.moments import windowed_centroid
from tract7dt.psf.photutils_start import photutils_start
from tract7dt.psf.shift import StampShifter
from tract7dt.psf.small_systems import solve_small
from tract7dt.psf.stack_result import Stack, StackOptions
from tract7dt.psf.wings import MoffatProfile, fit_moffat, regularise

__all__ = ["Stack", "StackOptions", "refine"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Share of a star's own light by which one PSF for a whole cell may be wrong: start value and range. It is
#: measured from the spread of the stars' sizes, keeps the few brightest stars from deciding alone where the
#: PSF varies, and is the floor of the tolerances below.
MISMATCH, MISMATCH_RANGE = 0.02, (0.005, 0.3)
#: Spread of sizes that stars of one cell may have; more is not taken as an excuse for outliers.
MAX_STAR_SPREAD = 0.03
CLIP_SIGMA = 5.0
#: A star whose fitted centre is farther from its stamp's centre pixel is not the star that was selected.
MAX_OFFSET_PIX = 2.0
#: Largest change of the stamp, relative to its peak, at which the iteration ends.
CONVERGED_CHANGE = 1e-4
#: Share of what is finer than the pixels by which the profile may be wrong in it.
FINE_TOLERANCE = 0.3
#: How much of it the data show is measured, from this expectation and uncertainty: sampled as the profile is
#: (1), or smoothed, as by resampling (0).
FINE_SHARE, FINE_SHARE_ERROR = 1.0, 0.5
#: Iterations in which that share is measured.
FINE_ITERATIONS = (1, 2, 3, 4, 5)
#: Error of the first stamp in every pixel, over its peak. photutils' has the noise of the faintest stars in its
#: wings: taken at its word, it would fit a star of a hundred times their flux with a negative one.
START_ERROR = 0.03


def refine(stars: StarStamps, fwhm: float, options: StackOptions) -> Stack | None:
    """Stamp, fluxes and centres that fit all stars best.

    Parameters
    ----------
    stars : StarStamps
    fwhm : float
        Expected width, pix.
    options : StackOptions

    Returns
    -------
    Stack or None
        None when no star could be fitted.
    """
    first = photutils_start(
        stars, fwhm, options.oversampling, options.recenter_boxsize, options.max_iterations
    )
    stamp = MoffatProfile.of_width(fwhm).stamp(stars.k) if first is None else first
    work = _Work(stars, _unit(stamp, options.size), fwhm, options)
    converged, iteration = False, 0
    limit = max(options.max_iterations, 6)
    for iteration in range(1, limit + 1):
        if not work.fit_stars(steps=3 if iteration == 1 else 1):
            return None
        if iteration in (3, 5):
            work.reject()
        if iteration in FINE_ITERATIONS:
            work.measure_fine()
        # half steps at the end: the shrinkage of the wings can make full ones swing between two answers
        change = work.improve(options.clip and iteration in (3, 5), step=1.0 if iteration < 7 else 0.5)
        work.stamp_error = 0.0
        if iteration > 5 and change < CONVERGED_CHANGE:
            converged = True
            break
    if not work.fit_stars(steps=1):
        return None
    return work.result(iteration, converged, "moffat" if first is None else "photutils")


def _unit(stamp: F8, size: int) -> F8:
    """``stamp`` scaled so that its central ``size`` by ``size`` pixels sum to 1."""
    lo = stamp.shape[0] // 2 - size // 2
    return stamp / stamp[lo : lo + size, lo : lo + size].sum()


class _Work:
    """The unknowns of the iteration, alternately improved: stars given the stamp, stamp given the stars."""

    def __init__(self, stars: StarStamps, stamp: F8, fwhm: float, options: StackOptions) -> None:
        n, k = len(stars), stars.k
        axis = np.arange(k) - k // 2
        self.stars, self.stamp, self.options = stars, stamp, options
        self.shifter = StampShifter(k)
        self.x, self.y = axis[None, :].astype(float), axis[:, None].astype(float)
        self.disc = np.hypot(self.x, self.y) <= fit_radius(fwhm)
        self.profile = MoffatProfile.of_width(fwhm)
        self.dx, self.dy, self.sky = np.zeros(n), np.zeros(n), np.zeros(n)
        core = np.where(self.disc & stars.good, stars.data, 0.0).sum((1, 2))
        self.flux = np.maximum(core, stars.noise)
        self.used = np.ones(n, bool)
        self.reasons = [""] * n
        self.size_excess, self.chi = np.zeros(n), np.full(n, np.nan)
        self.model = np.zeros((n, k, k))
        reach = int(min(k // 2, np.ceil(fit_radius(fwhm))))
        self.core = slice(k // 2 - reach, k // 2 + reach + 1)
        self.mismatch = MISMATCH
        self.kept = np.ones((n, k, k), bool)
        self.fine_share = FINE_SHARE
        self.stamp_error = START_ERROR * float(stamp.max())
        self._split()

    def variance(self, model: F8, window: slice = slice(None)) -> F8:
        """Pixel variance: sky, photons of the model, the stamp's own imperfection, what pixels do not resolve."""
        light = np.maximum(model, 0.0)
        sky = (self.stars.noise**2)[:, None, None]
        fine = self.flux[:, None, None] * self.unresolved[window, window]
        own = (self.flux * self.stamp_error)[:, None, None]
        return sky + light / self.stars.gain + (self.mismatch * light) ** 2 + fine**2 + own**2

    def _split(self) -> None:
        """The stamp as a share of the profile plus rest: of the profile the part finer than pixels is known."""
        k = self.stars.k
        self.resolved = self.profile.resolved(k)
        self.rest = self.stamp - self.fine_share * self.resolved
        self.unresolved = FINE_TOLERANCE * self.profile.unresolved_size(k)

    def models(self) -> tuple[F8, F8, F8]:
        """PSF of each star where it is, (n, k, k), and its derivatives by the place."""
        rest = self.shifter.models(self.rest, self.dx, self.dy)
        own = self.profile.with_slopes(self.x - self.dx[:, None, None], self.y - self.dy[:, None, None])
        value, by_x, by_y = (a + self.fine_share * b for a, b in zip(rest, own, strict=True))
        return value, by_x, by_y

    def measure_fine(self) -> None:
        """How much of the light that is finer than pixels the stars show, by least squares."""
        use, core = np.flatnonzero(self.used), self.core
        window = np.s_[:, core, core]
        fine = self.flux[use, None, None] * FineLight(self.profile, self.stars.k).at(
            self.dx[use], self.dy[use], core
        )
        good = (self.stars.good & self.kept)[use][window]
        weight = np.where(good, 1 / self.variance(self.model)[use][window], 0.0)
        signal = float((weight * fine**2).sum())
        step = float((weight * fine * self._residual()[use][window]).sum())
        step += (FINE_SHARE - self.fine_share) / FINE_SHARE_ERROR**2
        self.fine_share = float(np.clip(self.fine_share + step / (signal + FINE_SHARE_ERROR**-2), 0, 1))
        self._split()

    def fit_stars(self, steps: int) -> bool:
        """Gauss-Newton steps for flux and centre of each star, then its local sky; False if none is left."""
        for _ in range(steps):
            self._step()
        self.model = self.flux[:, None, None] * self.models()[0]
        if self.options.sky_annulus is not None:
            # without its own wings, so that the annulus may lie where the star still shines
            self.sky = local_sky(
                self.stars.data - self.model,
                self.stars.good,
                self.options.sky_annulus,
                self.options.sky_sigma_clip,
                self.options.sky_min_pixels,
            )
        return bool(self.used.any())

    def _step(self) -> None:
        value, by_x, by_y = (part[:, self.core, self.core] for part in self.models())
        offset_x = self.x[:, self.core] - self.dx[:, None, None]
        offset_y = self.y[self.core] - self.dy[:, None, None]
        # models() differentiates by the place of the star, P(x - x0); growing by a factor 1 + s changes
        # P(r) / s**2 by -r.grad P - 2 P, and -grad P is the derivative by the place
        wider = by_x * offset_x + by_y * offset_y - 2 * value
        good = self.stars.good[:, self.core, self.core] & self.disc[self.core, self.core]
        weight = np.where(good, 1 / self.variance(self.flux[:, None, None] * value, self.core), 0.0)
        data = self.stars.data[:, self.core, self.core] - self.sky[:, None, None]
        n = len(data)
        design = np.stack([value, by_x, by_y, wider], axis=1).reshape(n, 4, -1)
        weighted = design * weight.reshape(n, 1, -1)
        normal = weighted @ design.transpose(0, 2, 1)
        right = (weighted @ data.reshape(n, -1, 1))[..., 0]
        place, _, valid = solve_small(normal[:, :3, :3], right[:, :3])
        sized, _, valid_size = solve_small(
            normal, right
        )  # the size only measures: flux and place are fitted without
        flux = np.where(valid, place[:, 0], np.nan)
        self._drop(~(np.isfinite(flux) & (flux > 0)), "fit_failed")
        use = self.used
        self.flux[use] = flux[use]
        self.dx[use] += np.clip(place[use, 1] / flux[use], -0.5, 0.5)
        self.dy[use] += np.clip(place[use, 2] / flux[use], -0.5, 0.5)
        positive = valid_size & (sized[:, 0] > 0)
        self.size_excess = np.where(positive, sized[:, 3] / np.where(positive, sized[:, 0], 1.0), 0.0)
        self._drop(np.hypot(self.dx, self.dy) > MAX_OFFSET_PIX, "fit_failed")

    def _residual(self) -> F8:
        return self.stars.data - self.sky[:, None, None] - self.model

    def _chi(self) -> F8:
        plain = (self.stars.noise**2)[:, None, None] + np.maximum(self.model, 0) / self.stars.gain
        inside = self.stars.good & self.disc
        square = np.where(inside, self._residual() ** 2 / plain, 0.0).sum((1, 2))
        return np.sqrt(square / np.maximum(inside.sum((1, 2)), 1))

    def _drop(self, bad: Bool, reason: str) -> None:
        for i in np.flatnonzero(bad & self.used):
            self.used[i], self.reasons[i] = False, reason
            self.flux[i] = max(self.flux[i], self.stars.noise[i]) if np.isfinite(self.flux[i]) else 1.0
            self.dx[i] = self.dy[i] = 0.0

    def reject(self) -> None:
        """Measure how far the stars differ; take out those that the stack does not describe.

        These are extended or double objects (too wide), defects (too narrow), and stars with light of
        others or damage within the fit radius (bad residual).
        """
        chosen = self.used
        if chosen.sum() < 3:
            return
        own = self._measure_spread()
        if not self.options.clip:
            return
        off = np.abs(self.size_excess - np.median(self.size_excess[chosen]))
        expected = np.hypot(2.0 / self._signal_to_noise(), np.hypot(min(own, MAX_STAR_SPREAD), MISMATCH / 2))
        wrong = off > CLIP_SIGMA * expected
        inside = self.stars.good & self.disc
        misfit = np.where(inside, self._residual() ** 2 / self.variance(self.model), 0).sum((1, 2))
        misfit = np.sqrt(misfit / np.maximum(inside.sum((1, 2)), 1))
        wrong |= misfit > 0.5 * CLIP_SIGMA * max(float(np.median(misfit[chosen])), 1.0)
        if (chosen & ~wrong).any():
            self._drop(wrong, "outlier")

    def _measure_spread(self) -> float:
        """Spread of the used stars' sizes beyond their noise; sets the mismatch, twice that in flux."""
        chosen = self.used
        excess, noise = self.size_excess[chosen], 2.0 / self._signal_to_noise()[chosen]
        spread = 1.4826 * float(np.median(np.abs(excess - np.median(excess))))
        own = math.sqrt(max(spread**2 - float(np.median(noise)) ** 2, 0.0))
        self.mismatch = float(np.clip(2 * own, *MISMATCH_RANGE))
        return own

    def _signal_to_noise(self) -> F8:
        effective = 1 / np.sum(self.stamp**2)
        return self.flux / np.sqrt(effective * self.stars.noise**2 + self.flux / self.stars.gain)

    def improve(self, clip: bool, step: float) -> float:
        """Add the stars' mean residual to the stamp; returns the largest change relative to the peak.

        ``clip`` renews the 5-sigma clip of single pixels; ``step`` is the share of the way that is gone.
        """
        use = np.flatnonzero(self.used)
        flux = self.flux[use, None, None]
        residual = self._residual()[use] / flux
        variance = self.variance(self.model)[use] / flux**2
        if clip:  # renewed twice, then kept: pixels that come and go would keep the iteration alive
            self.kept[use] = residual**2 <= CLIP_SIGMA**2 * variance
        good = self.stars.good[use] & self.kept[use]
        residual = self.shifter.shift(np.where(good, residual, 0.0), -self.dx[use], -self.dy[use])
        weight = np.where(good, 1 / variance, 0.0)
        total = weight.sum(0)
        known = total > 0
        mean = np.where(known, (weight * residual).sum(0), 0.0) / np.where(known, total, 1.0)
        stack = self.stamp + mean
        spread = np.where(known, 1 / np.where(known, total, 1.0), np.inf)
        # the profile is that of the sky, the stack what the pixels resolve of it
        k = self.stars.k
        finer = self.fine_share * (self.profile.stamp(k) - self.resolved)
        self.profile = fit_moffat(stack + finer, spread, self.profile)
        finer = self.fine_share * (self.profile.stamp(k) - self.profile.resolved(k))
        half = k // 2
        outer = self.options.sky_annulus[0] if self.options.sky_annulus else half
        taper = (0.75 * min(outer, half), float(min(outer, half)))
        updated = regularise(stack, spread, self.profile.stamp(k) - finer, taper, self.options.size / 2)
        x, y = windowed_centroid(updated, self.profile.fwhm)
        updated = self.shifter.shift(updated[None], np.array([-x]), np.array([-y]))[0]
        self.dx[use] += x
        self.dy[use] += y
        updated = _unit(updated, self.options.size)
        change = float(np.abs(updated - self.stamp).max() / updated.max())
        self.stamp = self.stamp + step * (updated - self.stamp)
        self._split()
        return change

    def result(self, iterations: int, converged: bool, start: str) -> Stack:
        """The state as a frozen product."""
        if self.used.sum() >= 3:
            self._measure_spread()
        return Stack(
            self.stamp,
            self.profile,
            self.flux,
            self.dx,
            self.dy,
            self.sky,
            self.used,
            tuple(self.reasons),
            self._chi(),
            self.size_excess,
            self.model,
            self.fine_share,
            self.mismatch,
            iterations,
            converged,
            start,
        )
