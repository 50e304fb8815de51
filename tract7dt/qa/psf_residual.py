"""How well a cell's PSF describes its stars: what is left of them, and how their light grows outwards."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tract7dt.qa.palette import signed_index
from tract7dt.qa.plot_panel import FONT, PlotPanel
from tract7dt.qa.profile import growth_curve
from tract7dt.qa.raster import Sheet
from tract7dt.qa.raster_sky import nice_ticks
from tract7dt.qa.style import FAINT, INK, LEVEL, PAPER, band_colors
from tract7dt.types import F8, Epsf, PsfDiagnosis

__all__ = ["Fits", "fit_stars", "growth_sheet", "residual_sheet"]

_LEFT, _TOP, _SIDE, _GAP, _FOOT = 56, 84, 220, 30, 46
#: Linear within this share of the peak: the noise of a median of few stars is not to fill the picture.
#: The least scale of what is left, share of the peak.
_LINEAR, _LEAST_LIMIT = 3e-3, 0.005
#: Radius within which a star counts, in FWHM, and its bounds, pix.
_CORE, _CORE_BOUNDS = 2.5, (5.0, 20.0)
_SIGMAS = 5.0
#: Stars whose own growth curves are drawn.
_CURVES = 12


class Fits(NamedTuple):
    """The stars of a stack against the PSF, each at its place, with its flux fitted.

    Attributes
    ----------
    stars : ndarray (n, k, k)
        Star over flux, moved to the middle of a pixel; NaN where not good.
    left : ndarray (n, k, k)
        (star - model) / flux, in place.
    pulls : ndarray (m,)
        (star - model) / sigma of all good pixels within the core, photon noise included.
    """

    stars: F8
    left: F8
    pulls: F8


def fit_stars(epsf: Epsf, diagnosis: PsfDiagnosis, most: int) -> Fits:
    """Fit the flux of the stars that were used, the brightest ``most`` of them.

    Flux = sum(w d m) / sum(w m**2) over the good pixels within the core, with w = 1: a bright star's noise
    is its own, and must not decide what its middle weighs.
    """
    stamp = np.asarray(epsf.stamp, float)
    k = stamp.shape[0]
    used = np.flatnonzero(diagnosis.used)
    used = used[np.argsort(-diagnosis.snr[used], kind="stable")][:most]
    margin = (diagnosis.data.shape[-1] - k) // 2
    middle = slice(margin, margin + k)
    axis = np.arange(k) - k // 2
    fwhm = float(epsf.quality.get("fwhm_pix") or 4.0)
    core = np.hypot(axis[:, None], axis[None, :]) <= np.clip(_CORE * fwhm, *_CORE_BOUNDS)
    pulls: list[F8] = []
    moved, rest = np.full((len(used), k, k), np.nan), np.full((len(used), k, k), np.nan)
    for row, i in enumerate(used):
        shift = diagnosis.y[i] - round(float(diagnosis.y[i])), diagnosis.x[i] - round(float(diagnosis.x[i]))
        model = ndimage.shift(stamp, shift, order=3, mode="nearest")
        data = diagnosis.data[i][middle, middle].astype(float) - diagnosis.sky[i]
        good = diagnosis.good[i][middle, middle] & np.isfinite(data)
        inside = good & core
        flux = float((data * model)[inside].sum() / max(float((model[inside] ** 2).sum()), 1e-30))
        if not flux > 0:
            continue
        filled = np.where(good, data / flux, model)
        back = ndimage.shift(filled, (-shift[0], -shift[1]), order=3, mode="nearest")
        moved[row] = np.where(good, back, np.nan)
        rest[row] = np.where(good, data / flux - model, np.nan)
        sigma = np.sqrt(diagnosis.noise[i] ** 2 + np.maximum(flux * model, 0) / max(diagnosis.gain, 1e-12))
        pulls.append(((data - flux * model) / sigma)[inside])
    return Fits(moved, rest, np.concatenate(pulls) if pulls else np.zeros(0))


def residual_sheet(epsf: Epsf, fits: Fits, *, band: str, cell: str) -> Sheet:
    """Median of the stars, the PSF, what is left, and how the pulls of the pixels are distributed.

    Parameters
    ----------
    epsf : Epsf
    fits : Fits
    band, cell : str
    """
    stamp = np.asarray(epsf.stamp, float)
    k = stamp.shape[0]
    zoom = max(1, round(_SIDE / k))
    side = k * zoom
    step = side + _GAP
    sheet = Sheet.blank(_LEFT + 4 * step + 50, _TOP + side + _FOOT)
    sheet.text(_LEFT, 8, f"Stars against their PSF   {band}   {cell}", size=16, color=INK, bold=True)
    peak = max(float(np.nanmax(stamp, initial=0.0)), 1e-30)
    some = np.isfinite(fits.stars).any(axis=(1, 2)) if len(fits.stars) else np.zeros(0, bool)
    median, left = (_median(cube[some]) / peak for cube in (fits.stars, fits.left))
    limit = max(_LEAST_LIMIT, _round_up(float(np.nanpercentile(np.abs(left), 99.5)) if some.any() else 0.0))
    scatter = 0.5 * float(np.subtract(*np.percentile(fits.pulls, [84.13, 15.87]))) if some.any() else np.nan
    words = f"{int(some.sum())} stars"
    if np.isfinite(scatter):
        core = left[k // 2 - 2 : k // 2 + 3, k // 2 - 2 : k // 2 + 3]
        words += f"   ·   scatter of the pulls {scatter:.2f} σ"
        words += f"   ·   largest of the middle {100 * np.nanmax(np.abs(core)):.2f} % of the peak"
    sheet.text(_LEFT, 34, words, size=FONT + 1, color=FAINT)
    panels = (
        ("median star", _asinh(median)),
        ("PSF", _asinh(stamp / peak)),
        (f"(star − PSF) / peak, ±{100 * limit:g} %", left / limit),
    )
    ticks = [t for t in nice_ticks(-k / 2, k / 2, 4) if abs(t) <= k / 2 - 0.5]
    for number, (title, image) in enumerate(panels):
        at = _LEFT + number * step
        sheet.image(at, _TOP, signed_index(image, 1.0), zoom)
        PlotPanel(sheet, at, _TOP, side, side, (-k / 2, k / 2), (-k / 2, k / 2)).frame(
            ticks, ticks if number == 0 else (), "x − centre [pix]", title, _signed
        )
    if not some.any():
        sheet.text(_LEFT + side / 2, _TOP + side / 2 - 8, "no star", size=12, color=PAPER, align="centre")
    _histogram(sheet, _LEFT + 3 * step + 40, side, fits.pulls, band)
    return sheet


def _signed(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _median(cube: F8) -> F8:
    """Median over the stars; NaN where none has a good pixel."""
    if not len(cube):
        return np.full(cube.shape[1:], np.nan)
    known = np.isfinite(cube).any(axis=0)
    out = np.full(cube.shape[1:], np.nan)
    out[known] = np.nanmedian(cube[:, known], axis=0)
    return out


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    if not value > 0:
        return 0.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(f * power for f in (1, 2, 5, 10) if f * power >= value * (1 - 1e-12)))


def _asinh(value: F8) -> F8:
    return np.arcsinh(value / _LINEAR) / np.arcsinh(1 / _LINEAR)


def _histogram(sheet: Sheet, left: int, side: int, pulls: F8, band: str) -> None:
    """Pulls of the pixels, and a Gaussian of unit width of the same area."""
    edges = np.linspace(-_SIGMAS, _SIGMAS, 41)
    counts, _ = np.histogram(pulls, edges)
    width = edges[1] - edges[0]
    share = counts / max(len(pulls), 1) / width
    top = max(0.45, 1.1 * float(share.max(initial=0.0)))
    panel = PlotPanel(sheet, left, _TOP, side, side, (-_SIGMAS, _SIGMAS), (0.0, top))
    color = band_colors([band])[band]
    for value, low, high in zip(share, edges[:-1], edges[1:], strict=True):
        (x0, x1), (y0, _) = panel.at(np.array([low, high]), np.array([value, 0.0]))
        rows = round(float(side - 1 - y0))
        sheet.fill(
            left + round(float(x0)), _TOP + side - 1 - rows, round(float(x1)) - round(float(x0)), rows, color
        )
    x = np.linspace(-_SIGMAS, _SIGMAS, 120)
    panel.curve(x, np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi), INK, 1.6)
    panel.frame(
        (-4, -2, 0, 2, 4), nice_ticks(0, top, 5), "(star − PSF) / σ", "share of pixels per σ", _signed
    )
    sheet.text(left + side - 6, _TOP + 6, "line: unit width", size=FONT, color=FAINT, align="right")


def growth_sheet(epsf: Epsf, fits: Fits | None, *, band: str, cell: str) -> Sheet:
    """Encircled energy of the PSF, and of its brightest stars.

    A star's curve is that of its pixels over its fitted flux, so that its sky and its noise show.
    """
    stamp = np.asarray(epsf.stamp, float)
    color = band_colors([band])[band]
    edge = stamp.shape[0] / 2
    sheet = Sheet.blank(800, 470)
    left, top, width, height = 56, 76, 720, 340
    sheet.text(left, 8, f"Encircled energy   {band}   {cell}", size=16, color=INK, bold=True)
    panel = PlotPanel(sheet, left, top, width, height, (0.0, edge), (0.0, 1.15))
    ticks = nice_ticks(0, edge, 8), (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
    panel.grid(*ticks, FAINT, 0.15)
    curves = []
    for star in () if fits is None else fits.stars[:_CURVES]:
        if np.isfinite(star).any():
            filled = np.where(np.isfinite(star), star, stamp)
            radius, share = growth_curve(filled)
            curves.append((np.r_[radius, np.nan], np.r_[share * float(filled.sum()), np.nan]))
    if curves:  # in one go: a value that is not finite breaks the line
        radius, share = (np.concatenate(part) for part in zip(*curves, strict=True))
        panel.curve(np.where(radius <= edge, radius, np.nan), share, "#9aa3ae", 1.0)
    radius, share = growth_curve(stamp)
    panel.curve(radius[radius <= edge], share[radius <= edge], color, 2.6)
    words = []
    for level in (0.5, 0.8, 0.95):
        reached = np.flatnonzero(share >= level)
        if reached.size and radius[reached[0]] <= edge:
            at = float(radius[reached[0]])
            panel.level([0.0, at, at], [level, level, 0.0], LEVEL)
            words.append(f"{level:.0%} within {at:.2f} pix")
    panel.frame(*ticks, "radius [pix]", "share of the light", lambda t: f"{t:.1f}")
    said = f"{epsf.kind}, {epsf.n_stars} stars" + (f" (grey: the {len(curves)} brightest)" if curves else "")
    sheet.text(left, 33, "   ·   ".join([said, *words]), size=FONT + 1, color=FAINT)
    return sheet
